// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The commands of arbitration, as a person would give them, and the story of a dispute.

// FileDispute files a dispute with all that the dispute resolution policy asks for.
func FileDispute(concern emergencyv1.DisputeConcern) *emergencyv1.FileDisputeRequest {
	return &emergencyv1.FileDisputeRequest{
		Concern: concern, Claimants: []string{"critical admin team"}, Respondents: []string{"software assessment team"},
		Complaint: "emergency issue handling under option " + string(rune('0'+concern)), Relief: "a review of the procedure",
	}
}

// Order orders something of a person, within a month of T0.
func Order(person, text string) *emergencyv1.Order {
	return &emergencyv1.Order{Kind: emergencyv1.DirectionKind_DIRECTION_KIND_DO, Person: person, Text: text, DueAt: timestamppb.New(T0().AddDate(0, 6, 0))}
}

// Preliminaries open the proceedings, without orders.
func Preliminaries(dispute string) *emergencyv1.RecordPreliminariesRequest {
	return &emergencyv1.RecordPreliminariesRequest{Dispute: dispute, Jurisdiction: "DRP 2.1", Law: "NSW, Australia"}
}

// DeliverRuling rules on a dispute: every attached deviation was justified, and carla has to write something down.
func DeliverRuling(s *procedure.State, dispute string) *emergencyv1.DeliverRulingRequest {
	c := &emergencyv1.DeliverRulingRequest{
		Dispute: dispute, Parties: "as filed", Facts: "as the log says", Logic: "nothing else would have helped in time", Place: "Berlin",
		Directions: []*emergencyv1.Order{Order("carla", "write the procedure down")},
	}
	for _, v := range procedure.Attached(s, dispute) {
		c.Judgements = append(c.Judgements, &emergencyv1.Judgement{Position: v.Position, Deviation: v.Deviation, Finding: emergencyv1.Finding_FINDING_JUSTIFIED})
	}
	return c
}

// RequestReview asks for the review of a ruling.
func RequestReview(ruling string) *emergencyv1.RequestReviewRequest {
	return &emergencyv1.RequestReviewRequest{Ruling: ruling, Ground: emergencyv1.ReviewGround_REVIEW_GROUND_INJUSTICE, Text: "the assessors were not heard"}
}

// Redact has a restricted value deleted.
func Redact(event uint64, commitment string) *emergencyv1.RedactRequest {
	return &emergencyv1.RedactRequest{Event: event, Commitment: commitment, Ground: "it names a member", Clause: "SP 5.6"}
}

// RevealedOf is the value behind a commitment with its salt, as its owner keeps it.
func (w *World) RevealedOf(commitment string) *procedure.Revealed { return w.Revealed[commitment] }

// disputeChapters are the story of a dispute after an emergency, one minute an act; the names are milestones that follow any
// other story.
func disputeChapters(concern emergencyv1.DisputeConcern) []chapter {
	last := func(w *World) string { return w.State.Disputes[len(w.State.Disputes)-1].ID }
	return []chapter{
		{Filed, func(w *World) { w.act("carla", FileDispute(concern)) }},
		{CaseOpened, func(w *World) {
			w.act("casper", &emergencyv1.OpenCaseRequest{Dispute: last(w), CaseNumber: "a20261125.7"})
		}},
		{Proposed, func(w *World) {
			w.act("casper", &emergencyv1.ProposeArbitratorRequest{Dispute: last(w), Candidate: "agnes"})
		}},
		{DeclinedOnce, func(w *World) {
			w.act("agnes", &emergencyv1.RespondAppointmentRequest{Dispute: last(w), Reason: "no time"})
		}},
		{Appointed, func(w *World) {
			w.act("casper", &emergencyv1.ProposeArbitratorRequest{Dispute: last(w), Candidate: "arno"})
			w.act("arno", &emergencyv1.RespondAppointmentRequest{Dispute: last(w), Accept: true, NoConflict: true})
		}},
		{Begun, func(w *World) { w.act("arno", Preliminaries(last(w))) }},
		{Ruled, func(w *World) { w.act("arno", DeliverRuling(w.State, last(w))) }},
		{RulingPublic, func(w *World) {
			w.act("casper", &emergencyv1.PublishRulingRequest{Ruling: "R1", Text: "it was justified"})
		}},
		{Obeyed, func(w *World) {
			w.act("carla", &emergencyv1.ReportDirectionDoneRequest{Direction: "D1", Proof: "it is in the wiki"})
			w.act("casper", &emergencyv1.ConfirmDirectionRequest{Direction: "D1"})
		}},
		{ReviewAsked, func(w *World) { w.act("anna", RequestReview("R1")) }},
		{ReviewAppointed, func(w *World) {
			w.act("casper", &emergencyv1.OpenCaseRequest{Dispute: last(w), CaseNumber: "a20261126.1"})
			w.act("casper", &emergencyv1.ProposeArbitratorRequest{Dispute: last(w), Candidate: "agnes"})
			w.act("agnes", &emergencyv1.RespondAppointmentRequest{Dispute: last(w), Accept: true, NoConflict: true})
		}},
		{Reopened, func(w *World) {
			w.act("agnes", &emergencyv1.DeliverRulingRequest{Dispute: last(w), Logic: "they have to be heard", Reopen: true})
		}},
		{PanelFormed, func(w *World) {
			w.act("doris", &emergencyv1.FormAppealPanelRequest{Dispute: last(w), Members: []string{"achim", "adele", "alois"}, Senior: "adele"})
		}},
		{FinalRuled, func(w *World) { w.act("adele", DeliverRuling(w.State, last(w))) }},
	}
}

// The milestones of a dispute, in order.
const (
	Filed           Milestone = "dispute filed" // by carla
	CaseOpened      Milestone = "case opened"   // by casper
	Proposed        Milestone = "arbitrator proposed"
	DeclinedOnce    Milestone = "arbitrator declined" // agnes
	Appointed       Milestone = "arbitrator accepted" // arno
	Begun           Milestone = "preliminaries recorded"
	Ruled           Milestone = "ruled" // R1, with D1 for carla
	RulingPublic    Milestone = "ruling published"
	Obeyed          Milestone = "direction confirmed"
	ReviewAsked     Milestone = "review requested" // by anna
	ReviewAppointed Milestone = "arbitrator of the review accepted"
	Reopened        Milestone = "re-opened"
	PanelFormed     Milestone = "panel formed" // adele is senior
	FinalRuled      Milestone = "final ruling"
)

// DisputeMilestones lists them in order.
func DisputeMilestones() []Milestone {
	var list []Milestone
	for _, c := range disputeChapters(0) {
		list = append(list, c.name)
	}
	return list
}

// Dispute plays the story of a dispute about something from its beginning up to a milestone.
func Dispute(concern emergencyv1.DisputeConcern, to Milestone) Step {
	return DisputeFrom(concern, "", to)
}

// DisputeFrom plays a part of it; after is the milestone that was reached.
func DisputeFrom(concern emergencyv1.DisputeConcern, after, to Milestone) Step {
	return func(w *World) {
		w.t.Helper()
		begun := after == ""
		for _, c := range disputeChapters(concern) {
			if begun {
				c.play(w)
			}
			begun = begun || c.name == after
			if c.name == to {
				return
			}
		}
		w.t.Fatalf("no milestone %q or %q", after, to)
	}
}

// Month is what a test waits for an appointment to pass.
const Month = 31 * 24 * time.Hour
