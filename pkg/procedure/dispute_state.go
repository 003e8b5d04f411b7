// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"slices"
	"time"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// DisputeState of a dispute (procedure.md 6).
type DisputeState string

// The states of a dispute. Joined and Refiled ones go on in another dispute; a review's life begins with its request.
const (
	DisputeFiled          DisputeState = "FILED"
	DisputeCaseOpened     DisputeState = "CASE_OPENED"
	DisputeAwaiting       DisputeState = "AWAITING_ARBITRATOR"
	DisputeProposed       DisputeState = "PROPOSED"
	DisputeAccepted       DisputeState = "ACCEPTED"
	DisputePreliminaries  DisputeState = "PRELIMINARIES"
	DisputeRuled          DisputeState = "RULED"
	DisputeClosedDeclined DisputeState = "CLOSED_DECLINED"
	DisputeJoined         DisputeState = "JOINED"
	DisputeRefiled        DisputeState = "REFILED"
	DisputeNotReopened    DisputeState = "NOT_REOPENED"
	DisputeReopened       DisputeState = "REOPENED"
	DisputePanel          DisputeState = "PANEL"
	DisputeFinalRuled     DisputeState = "FINAL_RULED"
)

// Dispute is a filing and what became of it; a request for review is one of kind DISPUTE_CONCERN_REVIEW.
type Dispute struct {
	// ID is unique within the incident, and among all incidents as far as the filing service knew them.
	ID      string
	Concern emergencyv1.DisputeConcern
	// Filed says when and by whom; FiledAs in which role, because only a critical admin's filing discharges (10.10).
	Filed   Mark
	FiledAs emergencyv1.Role
	// Evidence is the last position of the record that the evidence ends with, EvidenceHash that record's hash.
	Evidence     uint64
	EvidenceHash string
	// Deviations are what a ruling must judge.
	Deviations []DeviationAt
	// Claimants, Respondents and Complaint are commitments.
	Claimants, Respondents, Complaint string
	// Refiles is the dispute that this one takes up again, RefiledBy the one that took this one up.
	Refiles, RefiledBy string
	// JoinedTo is the dispute under whose case this one is heard (10.10).
	JoinedTo string

	// Case is the case number; Opened says when and by which case manager.
	Case   string
	Opened Mark
	// Proposals are the arbitrators who were asked, in order.
	Proposals     []Proposal
	Arbitrator    string
	Accepted      Mark
	Preliminaries Mark
	// Joined are the commitments of the parties that joined.
	Joined []string
	// Mailed is what became of the mail to the arbitration forum, in Result; the latest report.
	Mailed Mark

	// Of is the ruling that a review is about; Reopened is when it was re-opened, Panel and Senior are who then decide.
	Of       string
	Reopened Mark
	Panel    []string
	Senior   string

	// Outcome is the state in which it ended, at Ended; empty while it is open.
	Outcome DisputeState
	Ended   Mark
}

// Proposal is an arbitrator who was asked.
type Proposal struct {
	Candidate string
	Asked     Mark
	Until     time.Time
	Declined  Mark
	Accepted  bool
}

// waiting tells whether the answer is still awaited at a time; at the due time itself it is in time.
func (p Proposal) waiting(at time.Time) bool { return p.unanswered() && !at.After(p.Until) }

// ProposalState is what became of asking an arbitrator.
type ProposalState string

// The states of a proposal.
const (
	ProposalWaiting  ProposalState = "WAITING"
	ProposalAccepted ProposalState = "ACCEPTED"
	ProposalDeclined ProposalState = "DECLINED"
	ProposalSilent   ProposalState = "SILENT" // no answer in time
)

// State is what became of it, at a time.
func (p Proposal) State(now time.Time) ProposalState {
	switch {
	case p.Accepted:
		return ProposalAccepted
	case p.Declined.Position > 0:
		return ProposalDeclined
	case p.waiting(now):
		return ProposalWaiting
	}
	return ProposalSilent
}

func (p Proposal) unanswered() bool { return !p.Accepted && p.Declined.Position == 0 }

// Open tells whether it is undecided.
func (x Dispute) Open() bool { return x.Outcome == "" }

// Review tells whether it is a request for review.
func (x Dispute) Review() bool {
	return x.Concern == emergencyv1.DisputeConcern_DISPUTE_CONCERN_REVIEW
}

// State is where it stands at a time: an answer that is not given in time leaves it waiting for an arbitrator.
func (x Dispute) State(now time.Time) DisputeState {
	switch {
	case x.Outcome != "":
		return x.Outcome
	case len(x.Panel) > 0:
		return DisputePanel
	case x.Reopened.Position > 0:
		return DisputeReopened
	case x.Preliminaries.Position > 0:
		return DisputePreliminaries
	case x.Arbitrator != "":
		return DisputeAccepted
	case x.Case == "":
		return DisputeFiled
	case len(x.Proposals) == 0:
		return DisputeCaseOpened
	case x.Proposals[len(x.Proposals)-1].waiting(now):
		return DisputeProposed
	}
	return DisputeAwaiting
}

func (x Dispute) clone() Dispute {
	x.Deviations, x.Proposals, x.Panel = slices.Clone(x.Deviations), slices.Clone(x.Proposals), slices.Clone(x.Panel)
	x.Joined = slices.Clone(x.Joined)
	return x
}

// Ruling is what an arbitrator, or a panel, decided.
type Ruling struct {
	ID      string
	Dispute string
	Mark    // by the arbitrator
	Case    string
	Sealed  bool
	Final   bool
	// Judgements are the findings on the deviations; Lifted the obligations that it lifts.
	Judgements []Judged
	Lifted     []string
	Published  Mark
	// Superseded is the final ruling that took its place.
	Superseded string
}

// Judged is a finding on one deviation.
type Judged struct {
	DeviationAt
	Finding emergencyv1.Finding
}

// Direction is what an arbitrator ordered; a tracked obligation.
type Direction struct {
	ID      string
	Dispute string
	Kind    emergencyv1.DirectionKind
	Person  string
	Role    emergencyv1.Role
	Text    string // commitment
	Due     time.Time
	Issued  Mark
	// InRuling is set for those of a ruling, Sealed if that ruling is sealed.
	InRuling string
	Reported Mark
	Done     Mark // confirmed
	Void     Mark // the ruling was superseded
}

// DirectionState is how far a direction is carried out.
type DirectionState string

// The states of a direction.
const (
	DirectionOpen     DirectionState = "OPEN"
	DirectionOverdue  DirectionState = "OVERDUE"
	DirectionReported DirectionState = "REPORTED" // by whoever carried it out
	DirectionDone     DirectionState = "DONE"     // that was confirmed
	DirectionVoid     DirectionState = "VOID"     // its ruling was superseded
)

// State is how far it is carried out, at a time; one that was reported waits for others, whatever the time.
func (x Direction) State(now time.Time) DirectionState {
	switch {
	case x.Void.Position > 0:
		return DirectionVoid
	case x.Done.Position > 0:
		return DirectionDone
	case x.Reported.Position > 0:
		return DirectionReported
	case now.After(x.Due):
		return DirectionOverdue
	}
	return DirectionOpen
}

// RecordHead is where a record ends, and its hash: what evidence can end with.
type RecordHead struct {
	Position uint64
	Hash     string
}

// Involvement is a person who acted in the incident by something else than arbitration (X14).
type Involvement struct {
	Person string
	// First is the position of the first act.
	First uint64
	// Under has bit n set if the person acted while strategy n was followed.
	Under uint8
}

// entries are the changes by which strategies 2 and 3 came into force anew: each escalation, and a step back to a strategy that was never
// followed before, as from 3 to 2 after the joint declaration out of 1. What a step back returns to has its obligations already.
func (s *State) entries() []StrategyChange {
	var list []StrategyChange
	for _, c := range s.Strategies {
		before := slices.ContainsFunc(list, func(x StrategyChange) bool { return x.To == c.To })
		if c.To > 1 && (c.To > c.From || !before) {
			list = append(list, c)
		}
	}
	return list
}

// everIn tells whether a strategy above 1 was ever in force.
func (s *State) everIn(strategy uint32) bool { return s.enteredLast(strategy) > 0 }

// enteredLast is the position at which a strategy above 1 came into force anew for the last time; 0 for never.
func (s *State) enteredLast(strategy uint32) uint64 {
	var last uint64
	for _, c := range s.entries() {
		if c.To == strategy {
			last = c.Position
		}
	}
	return last
}

// RestrictedAt is a restricted value of the history and what became of it.
type RestrictedAt struct {
	Position   uint64
	At         time.Time
	EventType  string
	Field      string
	Commitment string
	Redacted   Mark
	Erased     Mark
	Disclosed  Mark
}

// Lift is an obligation that a ruling lifts.
type Lift struct {
	Obligation string
	Mark
	By string // case number, or dispute
}

// Dispute returns a dispute by its id.
func (s *State) Dispute(id string) (*Dispute, bool) {
	for i := range s.Disputes {
		if s.Disputes[i].ID == id {
			return &s.Disputes[i], true
		}
	}
	return nil, false
}

// Ruling returns a ruling by its id.
func (s *State) Ruling(id string) (*Ruling, bool) {
	for i := range s.Rulings {
		if s.Rulings[i].ID == id {
			return &s.Rulings[i], true
		}
	}
	return nil, false
}

// Direction returns a direction by its id.
func (s *State) Direction(id string) (*Direction, bool) {
	for i := range s.Directions {
		if s.Directions[i].ID == id {
			return &s.Directions[i], true
		}
	}
	return nil, false
}

// restricted returns a restricted value by where it stands.
func (s *State) restricted(position uint64, commitment string) (*RestrictedAt, bool) {
	for i := range s.Restricted {
		if r := &s.Restricted[i]; r.Position == position && r.Commitment == commitment {
			return r, true
		}
	}
	return nil, false
}

// headAt finds the record whose hash is given.
func (s *State) headAt(hash string) (RecordHead, bool) {
	for i := len(s.Heads) - 1; i >= 0; i-- { // most ask for one of the last
		if s.Heads[i].Hash == hash {
			return s.Heads[i], true
		}
	}
	return RecordHead{}, false
}

// family are the disputes that are decided with one. Whatever a history says, it ends: no dispute is listed twice.
func (s *State) family(x *Dispute) []*Dispute {
	list := []*Dispute{x}
	add := func(id string) {
		y, ok := s.Dispute(id)
		if ok && id != "" && !slices.Contains(list, y) {
			list = append(list, y)
		}
	}
	for i := 0; i < len(list); i++ {
		y := list[i]
		if r, ok := s.Ruling(y.Of); ok && y.Of != "" {
			add(r.Dispute)
		}
		add(y.Refiles)
		for j := range s.Disputes {
			if s.Disputes[j].JoinedTo == y.ID {
				add(s.Disputes[j].ID)
			}
		}
	}
	return list
}

// Family are the disputes that are decided with one: joined to it, refiled by it, and for a review what is reviewed. The
// first is the dispute itself.
func (s *State) Family(dispute string) []*Dispute {
	x, ok := s.Dispute(dispute)
	if !ok {
		return nil
	}
	return s.family(x)
}

// successor is the dispute in which one goes on: refiled or joined.
func (s *State) successor(x *Dispute) *Dispute {
	for range s.Disputes { // each step leads to another one
		next := x.RefiledBy
		if next == "" {
			next = x.JoinedTo
		}
		y, ok := s.Dispute(next)
		if !ok {
			return x
		}
		x = y
	}
	return x
}

// disputeOpen is a dispute that is not decided, or nil.
func (s *State) disputeOpen() *Dispute {
	for i := range s.Disputes {
		if s.Disputes[i].Open() {
			return &s.Disputes[i]
		}
	}
	return nil
}

// rulingOwed is a dispute on which a ruling is still owed: it is open, or no arbitrator took it. nil for none.
func (s *State) rulingOwed() *Dispute {
	for i := range s.Disputes {
		if x := &s.Disputes[i]; x.Open() || x.Outcome == DisputeClosedDeclined && s.successor(x) == x {
			return x
		}
	}
	return nil
}

// Judges tells whether a person decides, or is asked to decide, a dispute of the incident.
func (s *State) Judges(person string) bool {
	return slices.ContainsFunc(s.Disputes, func(x Dispute) bool {
		asked := slices.ContainsFunc(x.Proposals, func(p Proposal) bool { return p.Candidate == person && p.unanswered() })
		return x.Arbitrator == person || asked || slices.Contains(x.Panel, person)
	})
}
