// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func (s *State) cloneArbitration(old *State) {
	s.Heads, s.Involved, s.Restricted = slices.Clone(old.Heads), slices.Clone(old.Involved), slices.Clone(old.Restricted)
	s.Directions, s.Lifts = slices.Clone(old.Directions), slices.Clone(old.Lifts)
	s.Disputes = slices.Clone(old.Disputes)
	for i := range s.Disputes {
		s.Disputes[i] = s.Disputes[i].clone()
	}
	s.Rulings = slices.Clone(old.Rulings)
	for i := range s.Rulings {
		s.Rulings[i].Judgements, s.Rulings[i].Lifted = slices.Clone(s.Rulings[i].Judgements), slices.Clone(s.Rulings[i].Lifted)
	}
}

// noteForArbitration keeps what arbitration asks of every event: who acted, under which strategies (that before the record
// and that after the event), and what of it is kept outside.
func (s *State) noteForArbitration(f fact, eventType string, payload proto.Message, under uint32) {
	if !IsIncident(s.Incident) || strings.HasSuffix(eventType, "."+refusedName) {
		return
	}
	if !arbitrates(f.rec.GetCommand(), f.rec.GetActor().GetRole()) {
		s.involve(f.rec.GetActor().GetPerson(), f.pos, under, s.Strategy)
	}
	for _, p := range actorsNamed(payload) {
		s.involve(p, f.pos, under, s.Strategy)
	}
	if _, joint := payload.(*emergencyv1.JointDeclarationSigned); joint {
		s.involve(f.rec.GetActor().GetPerson(), f.pos, 3) // either half is an act of strategy 3 (DRP 1.3)
	}
	if !holdsRestricted(payload) {
		return
	}
	for _, r := range RestrictedFields(payload) {
		if r.Commitment != "" && r.Field != "pages.address" { // those are the rule book's, and the same in every incident
			s.Restricted = append(s.Restricted, RestrictedAt{Position: f.pos, At: f.at, EventType: eventType, Field: r.Field, Commitment: r.Commitment})
		}
	}
}

// arbitrates tells reading, and an act of arbitration, from an act in the incident (X14). Filing a dispute or asking for a review makes a
// party; carrying out a direction is what a party does.
func arbitrates(command string, role emergencyv1.Role) bool {
	switch command {
	case "OpenCase", "ProposeArbitrator", "RespondAppointment", "CloseDeclined", "RecordPreliminaries", "DeliverRuling", "PublishRuling",
		"ConfirmDirection", "FormAppealPanel", "PlayRecording":
		return true
	case "Redact", "Disclose":
		return role == ar
	}
	return false
}

// actorsNamed are persons who did something that another one recorded.
func actorsNamed(payload proto.Message) []string {
	switch e := payload.(type) {
	case *emergencyv1.PatchRegistered:
		return []string{e.GetAuthor()}
	case *emergencyv1.ApplyStarted:
		return []string{e.GetExecutor(), e.GetObserver()}
	case *emergencyv1.RollBackStarted:
		return []string{e.GetExecutor(), e.GetObserver()}
	case *emergencyv1.AccessGrantIssued:
		return []string{e.GetSubject(), e.GetWatcher()}
	case *emergencyv1.WatchArmed:
		return []string{e.GetWatcher()}
	}
	return nil
}

func (s *State) involve(person string, position uint64, strategies ...uint32) {
	if person == "" {
		return
	}
	i := slices.IndexFunc(s.Involved, func(x Involvement) bool { return x.Person == person })
	if i < 0 {
		s.Involved = append(s.Involved, Involvement{Person: person, First: position})
		sort.Slice(s.Involved, func(a, b int) bool { return s.Involved[a].Person < s.Involved[b].Person })
		i = slices.IndexFunc(s.Involved, func(x Involvement) bool { return x.Person == person })
	}
	for _, n := range strategies {
		s.Involved[i].Under |= 1 << (n & 7)
	}
}

// applyArbitration folds the events of arbitration (procedure.md 5.5).
func (s *State) applyArbitration(f fact, payload proto.Message) error {
	switch e := payload.(type) {
	case *emergencyv1.DisputeFiled:
		s.applyFiled(f, e)
	case *emergencyv1.FilingReported:
		s.change(e.GetDispute(), func(x *Dispute) { x.Mailed = f.mark("", "", filingWord(e.GetState())) })
	case *emergencyv1.CaseOpened:
		s.applyCase(f, e)
	case *emergencyv1.ArbitratorProposed:
		s.change(e.GetDispute(), func(x *Dispute) {
			x.Proposals = append(x.Proposals, Proposal{Candidate: e.GetCandidate(), Asked: f.mark(f.who(), "", ""), Until: e.GetAnswerUntil().AsTime()})
		})
	case *emergencyv1.ArbitratorAccepted:
		s.change(e.GetDispute(), func(x *Dispute) {
			x.Arbitrator, x.Accepted = e.GetArbitrator(), f.mark(e.GetArbitrator(), "", "")
			x.answer(e.GetArbitrator(), func(p *Proposal) { p.Accepted = true })
		})
	case *emergencyv1.ArbitratorDeclined:
		s.change(e.GetDispute(), func(x *Dispute) {
			x.answer(e.GetCandidate(), func(p *Proposal) { p.Declined = f.mark(e.GetCandidate(), "", "") })
		})
	case *emergencyv1.DisputeClosedDeclined:
		s.change(e.GetDispute(), func(x *Dispute) { x.end(f, DisputeClosedDeclined) })
	case *emergencyv1.PreliminariesRecorded:
		s.change(e.GetDispute(), func(x *Dispute) {
			if x.Preliminaries.Position == 0 {
				x.Preliminaries = f.mark(f.who(), "", "")
			}
			x.Joined = append(x.Joined, e.GetJoined().GetCommitment())
		})
	case *emergencyv1.DirectionIssued:
		s.applyDirection(f, e)
	case *emergencyv1.RulingDelivered:
		s.applyRuling(f, e)
	case *emergencyv1.ReviewRuled:
		s.change(e.GetDispute(), func(x *Dispute) {
			if e.GetReopened() {
				x.Reopened = f.mark(e.GetArbitrator(), "", "")
			} else {
				x.end(f, DisputeNotReopened)
			}
		})
	case *emergencyv1.ReviewRequested:
		s.applyReview(f, e)
	case *emergencyv1.AppealPanelFormed:
		s.change(e.GetDispute(), func(x *Dispute) { x.Panel, x.Senior = slices.Clone(e.GetMembers()), e.GetSenior() })
	default:
		return s.applyAfterRuling(f, payload)
	}
	return nil
}

// applyAfterRuling folds what becomes of rulings, directions and restricted values.
func (s *State) applyAfterRuling(f fact, payload proto.Message) error {
	switch e := payload.(type) {
	case *emergencyv1.RulingPublished:
		if r, ok := s.Ruling(e.GetRuling()); ok {
			r.Published = f.mark(f.who(), "", "")
		}
	case *emergencyv1.DirectionReported:
		if x, ok := s.Direction(e.GetDirection()); ok {
			x.Reported = f.mark(e.GetPerson(), "", "")
		}
	case *emergencyv1.DirectionConfirmed:
		if x, ok := s.Direction(e.GetDirection()); ok {
			x.Done = f.mark(e.GetPerson(), "", "")
		}
	case *emergencyv1.FieldRedacted:
		if r, ok := s.restricted(e.GetEvent(), e.GetCommitment()); ok {
			r.Redacted = f.mark(f.who(), "", e.GetGround())
		}
	case *emergencyv1.RedactionCompleted:
		for i := range s.Restricted {
			if s.Restricted[i].Redacted.Position == e.GetRedaction() && e.GetRedaction() > 0 {
				s.Restricted[i].Erased = f.mark(f.who(), "", "")
			}
		}
	case *emergencyv1.FieldDisclosed:
		if r, ok := s.restricted(e.GetEvent(), e.GetCommitment()); ok {
			r.Disclosed = f.mark(f.who(), "", "")
		}
	default:
		return fmt.Errorf("event %T is no event of an incident", payload)
	}
	return nil
}

func (s *State) change(dispute string, fn func(*Dispute)) {
	if x, ok := s.Dispute(dispute); ok {
		fn(x)
	}
}

// answer changes the latest proposal of a candidate.
func (x *Dispute) answer(candidate string, fn func(*Proposal)) {
	for i := len(x.Proposals) - 1; i >= 0; i-- {
		if x.Proposals[i].Candidate == candidate {
			fn(&x.Proposals[i])
			return
		}
	}
}

func (x *Dispute) end(f fact, outcome DisputeState) {
	x.Outcome, x.Ended = outcome, f.mark(f.who(), "", "")
}

// headBefore is the last position before the record that is being folded.
func (s *State) headBefore(f fact) uint64 { return f.rec.GetFirstPosition() - 1 }

func (s *State) applyFiled(f fact, e *emergencyv1.DisputeFiled) {
	x := Dispute{
		ID: e.GetDispute(), Concern: e.GetConcern(), Filed: f.mark(e.GetFiledBy(), "", ""), FiledAs: f.rec.GetActor().GetRole(),
		Evidence: e.GetEvidencePosition(), EvidenceHash: e.GetHeadHash(), Refiles: e.GetRefiles(),
		Claimants: e.GetClaimants().GetCommitment(), Respondents: e.GetRespondents().GetCommitment(), Complaint: e.GetComplaint().GetCommitment(),
	}
	for _, v := range e.GetDeviations() {
		x.Deviations = append(x.Deviations, DeviationAt{v.GetPosition(), v.GetDeviation()})
	}
	s.Disputes = append(s.Disputes, x)
	if x.Refiles == "" || x.Refiles == x.ID {
		return
	}
	s.change(x.Refiles, func(old *Dispute) {
		old.RefiledBy = x.ID
		if old.Open() {
			old.end(f, DisputeRefiled)
		}
	})
}

// applyReview takes a request for review in. One that nobody took goes on in the next about the same ruling, which takes over what is owed.
func (s *State) applyReview(f fact, e *emergencyv1.ReviewRequested) {
	x := Dispute{
		ID: e.GetDispute(), Concern: emergencyv1.DisputeConcern_DISPUTE_CONCERN_REVIEW, Filed: f.mark(e.GetRequestedBy(), "", ""),
		FiledAs: f.rec.GetActor().GetRole(), Of: e.GetRuling(), Evidence: s.headBefore(f), Complaint: e.GetText().GetCommitment(),
	}
	for i := range s.Disputes {
		if old := &s.Disputes[i]; old.Review() && old.Of == x.Of && old.Outcome == DisputeClosedDeclined && old.RefiledBy == "" && old.ID != x.ID {
			old.RefiledBy, x.Refiles = x.ID, old.ID
		}
	}
	s.Disputes = append(s.Disputes, x)
}

// applyCase opens a case; under the number of another dispute's case it is joined to that one (10.10).
func (s *State) applyCase(f fact, e *emergencyv1.CaseOpened) {
	lead := s.leadOf(e.GetCaseNumber(), e.GetDispute())
	s.change(e.GetDispute(), func(x *Dispute) {
		x.Case, x.Opened = e.GetCaseNumber(), f.mark(e.GetCaseManager(), "", "")
		if lead != nil && !x.Review() {
			x.JoinedTo = lead.ID
			x.end(f, DisputeJoined)
		}
	})
}

// leadOf is the dispute that another one is joined to under a case number, or nil.
func (s *State) leadOf(number, dispute string) *Dispute {
	for i := range s.Disputes {
		if x := &s.Disputes[i]; x.Case == number && number != "" && x.JoinedTo == "" && x.ID != dispute && x.RefiledBy == "" && !x.Review() {
			return x
		}
	}
	return nil
}

func (s *State) applyDirection(f fact, e *emergencyv1.DirectionIssued) {
	x := Direction{
		ID: e.GetDirection(), Dispute: e.GetDispute(), Kind: e.GetKind(), Person: e.GetPerson(), Role: e.GetRole(), Text: e.GetText().GetCommitment(),
		Due: e.GetDueAt().AsTime(), Issued: f.mark(f.who(), "", ""),
	}
	if f.rec.GetCommand() == "DeliverRuling" && len(s.Rulings) > 0 {
		x.InRuling = s.Rulings[len(s.Rulings)-1].ID
	}
	s.Directions = append(s.Directions, x)
}

func (s *State) applyRuling(f fact, e *emergencyv1.RulingDelivered) {
	x, ok := s.Dispute(e.GetDispute())
	r := Ruling{
		ID: e.GetRuling(), Dispute: e.GetDispute(), Mark: f.mark(e.GetArbitrator(), "", ""), Sealed: e.GetSealed(), Final: e.GetFinal(),
		Lifted: slices.Clone(e.GetLifted()),
	}
	for _, j := range e.GetJudgements() {
		r.Judgements = append(r.Judgements, Judged{DeviationAt{j.GetPosition(), j.GetDeviation()}, j.GetFinding()})
	}
	by := e.GetDispute()
	if ok {
		if r.Case = x.Case; r.Case != "" {
			by = r.Case
		}
		if e.GetFinal() {
			s.supersede(f, x.Of, r.ID)
			x.end(f, DisputeFinalRuled)
		} else {
			x.end(f, DisputeRuled)
		}
	}
	for _, id := range r.Lifted {
		s.Lifts = append(s.Lifts, Lift{id, f.mark(f.who(), "", ""), by})
	}
	s.Rulings = append(s.Rulings, r)
}

// supersede ends what a ruling had ordered and what was not carried out yet: the final one orders anew.
func (s *State) supersede(f fact, old, by string) {
	if r, ok := s.Ruling(old); ok && old != by {
		r.Superseded = by
	}
	for i := range s.Directions {
		if x := &s.Directions[i]; x.InRuling == old && old != "" && x.Done.Position == 0 {
			x.Void = f.mark(f.who(), "", by)
		}
	}
}

// restrictedEvents are the events that have restricted fields at all; looking into the others again and again would cost more
// than folding them.
var restrictedEvents = func() map[protoreflect.FullName]bool {
	list := map[protoreflect.FullName]bool{}
	for _, rows := range catalogue {
		for _, row := range rows {
			d := row.make().ProtoReflect().Descriptor()
			list[d.FullName()] = describesRestricted(d)
		}
	}
	return list
}()

func describesRestricted(d protoreflect.MessageDescriptor) bool {
	for i := range d.Fields().Len() {
		m := d.Fields().Get(i).Message()
		if m != nil && (m.FullName() == (*emergencyv1.Restricted)(nil).ProtoReflect().Descriptor().FullName() || describesRestricted(m)) {
			return true
		}
	}
	return false
}

func holdsRestricted(payload proto.Message) bool {
	return restrictedEvents[payload.ProtoReflect().Descriptor().FullName()]
}
