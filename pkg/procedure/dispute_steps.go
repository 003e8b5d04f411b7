// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"slices"
	"strings"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// What arbitration waits for, and what can be done about it (procedure.md 1.2, 1.3: steps 2.6 and 3.9).

// ofArbitration are the obligations that disputeSteps says more about than that they are owed.
var ofArbitration = []string{"CASE_OPEN", "RULING", "DIRECTION"}

// number is the step of chapter 1 that a dispute is.
func (x *Dispute) number() string {
	switch strategyOf(x.Concern) {
	case 2:
		return "2.6"
	case 3:
		return "3.9"
	}
	return "4.5"
}

// disputeSteps are what disputes and directions wait for.
func (s *State) disputeSteps() []Step {
	var list []Step
	for i := range s.Disputes {
		x := &s.Disputes[i]
		for _, st := range s.stepsOfDispute(x) {
			st.Number, st.Subject = x.number(), x.ID
			list = append(list, st)
		}
	}
	for i := range s.Directions {
		x := &s.Directions[i]
		if x.Done.Position > 0 || x.Void.Position > 0 {
			continue
		}
		st := Step{Number: "4.5", Title: "direction " + x.ID + " for " + x.named(), Command: "ReportDirectionDone", Subject: x.ID, Due: x.Due}
		if x.Person != "" {
			st.Persons = []string{x.Person}
		}
		if x.Reported.Position > 0 {
			st.Title, st.Command, st.Persons, st.Not = "confirmation that "+x.ID+" was carried out", "ConfirmDirection", nil, distinct([]string{x.Reported.By, x.Person})
		}
		list = append(list, st)
	}
	return list
}

func (s *State) stepsOfDispute(x *Dispute) []Step {
	ruling := x.Filed.At.Add(s.Policy.Duration("ruling"))
	one := func(title, command string, persons ...string) []Step {
		return []Step{{Title: title, Command: command, Persons: persons, Due: ruling}}
	}
	switch {
	case x.Outcome == DisputeClosedDeclined && x.RefiledBy == "":
		return one("a ruling on "+x.ID+", which no arbitrator took: it can be filed again", "FileDispute")
	case !x.Open():
		return nil
	case x.Case == "":
		return []Step{{Title: "a case for " + x.ID, Command: "OpenCase", Due: x.Filed.At.Add(s.Policy.Duration("case_open"))}}
	case len(x.Panel) > 0:
		return one("the panel's ruling on "+x.ID, "DeliverRuling", x.Senior)
	case x.Reopened.Position > 0:
		return one("a panel for "+x.ID, "FormAppealPanel")
	case x.Arbitrator == "":
		if n := len(x.Proposals); n > 0 && x.Proposals[n-1].unanswered() {
			p := x.Proposals[n-1]
			return []Step{{Title: p.Candidate + "'s answer to the appointment in " + x.ID, Command: "RespondAppointment", Persons: []string{p.Candidate}, Due: p.Until}}
		}
		return one("an arbitrator for "+x.ID, "ProposeArbitrator")
	case x.Review():
		return one("whether "+x.ID+" is re-opened", "DeliverRuling", x.Arbitrator)
	case x.Preliminaries.Position == 0:
		return one("the preliminaries of "+x.ID, "RecordPreliminaries", x.Arbitrator)
	}
	return one("a ruling on "+x.ID, "DeliverRuling", x.Arbitrator)
}

// disputeCandidates are the commands of arbitration that could make sense now.
func disputeCandidates(s *State, meta *emergencyv1.CommandMeta) []candidate {
	var list []candidate
	for _, o := range s.openDebts() {
		if concern, ok := strings.CutPrefix(o.Kind, "DISPUTE/"); ok && !slices.ContainsFunc(list, func(c candidate) bool { return c.subject == o.Kind }) {
			list = append(list, candidate{&emergencyv1.FileDisputeRequest{Meta: meta, Concern: concernOf(concern)}, o.Kind, "file the dispute that is owed"})
		}
	}
	list = append(list, candidate{&emergencyv1.FileDisputeRequest{Meta: meta, Concern: emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER}, "", "file a dispute"})
	for i := range s.Disputes {
		list = append(list, s.candidatesOf(&s.Disputes[i], meta)...)
	}
	for _, r := range s.Rulings {
		if r.Published.Position == 0 {
			list = append(list, candidate{&emergencyv1.PublishRulingRequest{Meta: meta, Ruling: r.ID}, r.ID, "publish ruling " + r.ID})
		}
		list = append(list, candidate{&emergencyv1.RequestReviewRequest{Meta: meta, Ruling: r.ID, Ground: emergencyv1.ReviewGround_REVIEW_GROUND_INJUSTICE}, r.ID, "ask for a review of ruling " + r.ID})
	}
	for _, x := range s.Directions {
		switch {
		case x.Done.Position > 0 || x.Void.Position > 0:
		case x.Reported.Position > 0:
			list = append(list, candidate{&emergencyv1.ConfirmDirectionRequest{Meta: meta, Direction: x.ID}, x.ID, "confirm that " + x.ID + " was carried out"})
		default:
			list = append(list, candidate{&emergencyv1.ReportDirectionDoneRequest{Meta: meta, Direction: x.ID}, x.ID, "report that " + x.ID + " was carried out"})
		}
	}
	return list
}

// concernOf is what a dispute is about that an obligation DISPUTE/... asks for.
func concernOf(item string) emergencyv1.DisputeConcern {
	switch item {
	case "S2":
		return emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2
	case "S3":
		return emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_3
	}
	return emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1
}

func (s *State) candidatesOf(x *Dispute, meta *emergencyv1.CommandMeta) []candidate {
	if x.Outcome == DisputeClosedDeclined && x.RefiledBy == "" {
		concern := x.Concern
		if x.Review() {
			concern = emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER
		}
		return []candidate{{&emergencyv1.FileDisputeRequest{Meta: meta, Concern: concern, Refiles: x.ID}, x.ID, "file " + x.ID + " again"}}
	}
	if !x.Open() {
		return nil
	}
	if x.Case == "" {
		return []candidate{{&emergencyv1.OpenCaseRequest{Meta: meta, Dispute: x.ID, CaseNumber: "given-on-opening"}, x.ID, "open a case for " + x.ID}}
	}
	if len(x.Panel) == 0 && x.Reopened.Position > 0 {
		return []candidate{{&emergencyv1.FormAppealPanelRequest{Meta: meta, Dispute: x.ID}, x.ID, "form the panel for " + x.ID}}
	}
	if x.Arbitrator == "" {
		list := []candidate{{&emergencyv1.CloseDeclinedRequest{Meta: meta, Dispute: x.ID}, x.ID, "close " + x.ID + ", which no arbitrator takes"}}
		if n := len(x.Proposals); n > 0 && x.Proposals[n-1].unanswered() {
			return append(list,
				candidate{&emergencyv1.RespondAppointmentRequest{Meta: meta, Dispute: x.ID, Accept: true}, x.ID, "accept the appointment in " + x.ID},
				candidate{&emergencyv1.RespondAppointmentRequest{Meta: meta, Dispute: x.ID}, x.ID, "decline the appointment in " + x.ID})
		}
		return append(list, candidate{&emergencyv1.ProposeArbitratorRequest{Meta: meta, Dispute: x.ID}, x.ID, "ask an arbitrator to take " + x.ID})
	}
	list := []candidate{{&emergencyv1.DeliverRulingRequest{Meta: meta, Dispute: x.ID}, x.ID, "rule on " + x.ID}}
	if !x.Review() {
		list = append(list, candidate{&emergencyv1.RecordPreliminariesRequest{Meta: meta, Dispute: x.ID}, x.ID, "record the preliminaries of " + x.ID})
	}
	return list
}
