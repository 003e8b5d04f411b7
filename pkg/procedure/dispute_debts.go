// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The obligations of arbitration (procedure.md 7), and how a ruling lifts any other.

// arbitrationDebts are owed because of disputes, and because of escalations that a dispute has to follow.
func (s *State) arbitrationDebts() []Obligation {
	list := s.escalationDebts()
	for i := range s.Disputes {
		list = append(list, s.disputeDebts(&s.Disputes[i])...)
	}
	for i := range s.Directions {
		list = append(list, s.directionDebt(&s.Directions[i]))
	}
	return list
}

// escalationDebts: after each escalation to strategy 2 or 3 a critical admin files a dispute about it, or the lead records that
// nothing came of it (seed 2.4, 3.7, note x1).
func (s *State) escalationDebts() []Obligation {
	concerns := []emergencyv1.DisputeConcern{2: emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2, 3: emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_3}
	return s.handlingDebts("DISPUTE", "dispute", "FileDispute", "seed 2.4, 3.7", func(h handling) []Mark {
		if int(h.strategy) >= len(concerns) {
			return nil
		}
		return s.filings(concerns[h.strategy])
	})
}

// disputeDebts: a case and a ruling are owed for each filing. A refiled dispute takes over the ruling that is owed already,
// with its date: filing again does not buy time.
func (s *State) disputeDebts(x *Dispute) []Obligation {
	p := s.Policy
	filed := Mark{Position: x.Filed.Position, At: x.Filed.At}
	list := []Obligation{
		s.owe("CASE_OPEN", filed, filed.At.Add(p.Duration("case_open")), cm, "", "OpenCase", "DRP 1.3", s.caseOf(x)),
	}
	if x.Refiles != "" {
		return list
	}
	y := s.successor(x)
	role, owner := cm, ""
	switch {
	case len(y.Panel) > 0:
		role, owner = ar, y.Senior
	case y.Arbitrator != "":
		role, owner = ar, y.Arbitrator
	case y.Outcome == DisputeClosedDeclined, y.Reopened.Position > 0:
		role = dro
	}
	var ruled Mark
	if y.Outcome == DisputeRuled || y.Outcome == DisputeFinalRuled || y.Outcome == DisputeNotReopened {
		ruled = y.Ended
	}
	return append(list, s.owe("RULING", filed, filed.At.Add(p.Duration("ruling")), role, owner, "DeliverRuling", "DRP 3", ruled))
}

// caseOf is when a case was opened on the dispute, or on the one that took its place before there was one.
func (s *State) caseOf(x *Dispute) Mark {
	for range s.Disputes {
		if x.Opened.Position > 0 {
			return x.Opened
		}
		y, ok := s.Dispute(x.RefiledBy)
		if !ok {
			break
		}
		x = y
	}
	return Mark{}
}

func (s *State) directionDebt(x *Direction) Obligation {
	role, owner := x.Role, x.Person
	if role == 0 {
		role = me
	}
	o := s.owe("DIRECTION", Mark{Position: x.Issued.Position, At: x.Issued.At}, x.Due, role, owner, "ReportDirectionDone", "DRP 3.1", x.Done)
	if v := x.Void; v.Position > 0 && (o.By == 0 || v.Position < o.By) {
		o.By, o.ByAt, o.LiftedBy = v.Position, v.At, v.Result
	}
	return o
}

// filings are the filings by a critical admin that concern a strategy (10.10).
func (s *State) filings(concern emergencyv1.DisputeConcern) []Mark {
	var list []Mark
	for _, x := range s.Disputes {
		if x.Concern == concern && x.FiledAs == ca {
			list = append(list, x.Filed)
		}
	}
	return list
}

// referralFilings are those that meet a lead's referral: about strategy 1, or about the one that was in force when the lead referred.
func (s *State) referralFilings(referred Mark) []Mark {
	list := s.filings(emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1)
	switch s.strategyAt(referred.Position) {
	case 2:
		list = append(list, s.filings(emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2)...)
	case 3:
		list = append(list, s.filings(emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_3)...)
	}
	return list
}

// strategyAt is the strategy that was in force at a position.
func (s *State) strategyAt(position uint64) uint32 {
	strategy := uint32(1)
	for _, c := range s.Strategies {
		if c.Position <= position {
			strategy = c.To
		}
	}
	return strategy
}

// lift ends what a ruling lifts, unless it was met before (7).
func (s *State) lift(list []Obligation) []Obligation {
	for _, l := range s.Lifts {
		for i := range list {
			o := &list[i]
			if o.ID == l.Obligation && l.Position > o.Cause && (o.By == 0 || l.Position < o.By) {
				o.By, o.ByAt, o.LiftedBy = l.Position, l.At, l.By
			}
		}
	}
	return list
}

// AfterClosing tells whether it is owed because of something that happened after the incident was closed (6, rule 6).
func (o Obligation) AfterClosing(s *State) bool {
	return s.Status == Closed && !s.EndedAt.IsZero() && o.CausedAt.After(s.EndedAt)
}

// arbitrationLadder is who is told of what arbitration owes: its own people, then the Board (7, SP 5.3.3).
func arbitrationLadder(o Obligation, rung uint32) []emergencyv1.Role {
	switch rung {
	case 1:
		return roles(o.OwnerRole)
	case 2:
		if o.OwnerRole == dro {
			return roles(dro)
		}
		return roles(o.OwnerRole, dro)
	case 3:
		return roles(dro)
	case 4:
		return roles(dro, bd)
	}
	return roles(bd)
}

// WithoutArbitrator are the disputes that have no arbitrator although a ruling is owed, in the order of filing; how long they
// have waited is public (8.6).
func WithoutArbitrator(s *State) []Dispute {
	var list []Dispute
	for i := range s.Disputes {
		x := &s.Disputes[i]
		if y := s.successor(x); y == x && x.Arbitrator == "" && (x.Open() || x.Outcome == DisputeClosedDeclined) {
			list = append(list, x.clone())
		}
	}
	return list
}
