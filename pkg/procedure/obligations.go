// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Obligation is something owed: an emergency debt with an owner and a due date (procedure.md 7).
type Obligation struct {
	// ID is <KIND>/<cause position>, with the item behind it where one cause opens several.
	ID   string
	Kind string
	// OwnerRole owes it; Owner is the person, where known.
	OwnerRole emergencyv1.Role
	Owner     string
	Due       time.Time
	// Cause is the position that opened it, at CausedAt.
	Cause    uint64
	CausedAt time.Time
	// By is the position that discharged it; 0 while it is open.
	By   uint64
	ByAt time.Time
	// LiftedBy is the case in which it was lifted instead of being met.
	LiftedBy string
	// How is the command that discharges it; Clause where it comes from.
	How    string
	Clause string

	overdue bool   // recorded as overdue
	rung    uint32 // last recorded rung of the ladder
}

// Open tells whether it is still owed.
func (o Obligation) Open() bool { return o.By == 0 }

// Overdue tells whether it is still owed after its due time.
func (o Obligation) Overdue(now time.Time) bool { return o.Open() && now.After(o.Due) }

// LateBy is by how much it was, or is, late.
func (o Obligation) LateBy(now time.Time) time.Duration {
	at := now
	if !o.Open() {
		at = o.ByAt
	}
	return max(0, at.Sub(o.Due))
}

func (o Obligation) owner() string {
	if o.Owner != "" {
		return fmt.Sprintf("%s (%s)", o.Owner, roleWord(o.OwnerRole))
	}
	return roleWord(o.OwnerRole)
}

// Debts are all obligations of an incident, open and discharged, by cause and kind. An obligation exists from the moment
// its cause is in the history; recording it only makes it visible.
func Debts(s *State) []Obligation {
	if s.Status == Absent || s.Status == Merged {
		return nil
	}
	var list []Obligation
	list = append(list, s.leadDebts()...)
	list = append(list, s.strategyDebts()...)
	list = append(list, s.lateDebts()...)
	for i := range s.Applies {
		list = append(list, s.applyDebts(&s.Applies[i])...)
	}
	list = append(list, s.vetoDebts()...)
	list = append(list, s.driftDebts()...)
	list = append(list, s.consoleDebts()...)
	list = s.lift(append(list, s.arbitrationDebts()...))
	sort.SliceStable(list, func(i, j int) bool {
		if list[i].Cause != list[j].Cause {
			return list[i].Cause < list[j].Cause
		}
		return list[i].ID < list[j].ID
	})
	return list
}

func (s *State) openDebts() []Obligation {
	return slices.DeleteFunc(Debts(s), func(o Obligation) bool { return !o.Open() })
}

// owe builds one obligation; due runs from its cause unless said otherwise.
func (s *State) owe(kind string, cause Mark, due time.Time, role emergencyv1.Role, owner, how, clause string, by ...Mark) Obligation {
	o := Obligation{
		ID: fmt.Sprintf("%s/%d", kind, cause.Position), Kind: kind, OwnerRole: role, Owner: owner, Due: due, Cause: cause.Position, CausedAt: cause.At, How: how, Clause: clause,
	}
	for _, m := range by { // the earliest event after the cause that discharges it
		if m.Position > cause.Position && (o.By == 0 || m.Position < o.By) {
			o.By, o.ByAt = m.Position, m.At
		}
	}
	return o
}

// leadDebts are owed for every emergency.
func (s *State) leadDebts() []Obligation {
	t0 := Mark{Position: 1, At: s.Declared.At}
	p := s.Policy
	decided, referred := Mark{}, Mark{}
	if s.Lead != nil {
		decided, referred = s.Lead.First, s.Lead.FirstReferred
	}
	var reported []Mark
	for _, b := range s.BoardReports {
		reported = append(reported, b.Mark)
	}
	list := []Obligation{
		s.owe("LEAD_DECISION", t0, t0.At.Add(p.Duration("lead_decision")), cl, "", "RecordLeadDecision", "SP 3.2.3.1", decided),
		s.owe("BOARD_SUMMARY", t0, t0.At.Add(p.Duration("board_summary")), cl, "", "RecordBoardSummary", "SP 3.2.3.1, 4.1.3", reported...),
	}
	if referred.Position > 0 {
		list = append(list, s.owe("DISPUTE/REFERRED", referred, referred.At.Add(p.Duration("refer_dispute")), cl, "", "FileDispute", "SP 3.2.3.1", s.referralFilings(referred)...))
	}
	return list
}

// applyDebts are what one attempt on the host opens.
func (s *State) applyDebts(a *Apply) []Obligation {
	p := s.Policy
	start := Mark{Position: a.Position, At: a.StartedAt}
	var list []Obligation
	if effect, _ := s.effectAfter(1, 0); effect.Position == a.Position {
		list = append(list, s.owe("DOCUMENT/S1", start, s.Declared.At.Add(p.Duration("s1.document")), cl, "", "Document", "seed 1", s.documentedUnder(1)...))
	}
	if a.Observer == "" {
		list = append(list, s.owe("OBSERVER_DEBT", start, a.StartedAt.Add(p.Duration("observer_debt")), cl, "", "ConfirmObserver", "SP 4.1", s.checkedAfter(a)...))
	}
	if a.TestsWaived {
		list = append(list, s.owe("TEST_DEBT", start, a.StartedAt.Add(p.Duration("test_debt")), al, "", "ReportTest", "SoftPatch 2b", a.TestsDone, a.Ended))
	}
	if a.Applied.Position > 0 {
		list = append(list, s.appliedDebts(a)...)
	}
	if a.Mismatch.Position > 0 {
		list = append(list, s.owe("EXPLAIN_MISMATCH", a.Mismatch, a.Mismatch.At.Add(p.Duration("mismatch")), ca, a.Executor, "BackOut", "SP 4.2.4", a.Ended, s.mismatchExplained(a)))
	}
	if a.Unproven.Position > 0 {
		list = append(list, s.owe("BACKOUT_PROOF", a.Unproven, a.Unproven.At.Add(p.Duration("backout_proof")), ca, a.Executor, "BackOut", "seed 1.9", a.Ended))
	}
	return list
}

func (s *State) appliedDebts(a *Apply) []Obligation {
	p := s.Policy
	by := []Mark{a.Ended}
	for _, h := range s.Health {
		if h.Revision == a.Revision {
			by = append(by, h)
		}
	}
	list := []Obligation{
		s.owe("HEALTH", a.Applied, a.Applied.At.Add(p.Duration("health")), ca, a.Executor, "RecordHealth", "seed 1.9", by...),
		s.replicate(a.Applied),
	}
	if a.Strategy > 1 {
		list = append(list, s.patchCycleDebts(a)...)
	}
	if a.Ended.Position > 0 { // the host was changed once more: the comparison has to be made again
		list = append(list, s.replicate(a.Ended))
	}
	return list
}

// replicate is owed from a change of the host until host and branch are found equal.
func (s *State) replicate(change Mark) Obligation {
	due := change.At.Add(s.Policy.Duration("replicate"))
	return s.owe("REPLICATE", Mark{Position: change.Position, At: change.At}, due, cl, "", "CheckReplication", "seed 2.5, 3.8", s.equals()...)
}

// equals are the comparisons that found host and branch equal.
func (s *State) equals() []Mark {
	var list []Mark
	for _, r := range s.Replications {
		if r.Kind == emergencyv1.ReplicationResult_REPLICATION_RESULT_EQUAL {
			list = append(list, r.Mark)
		}
	}
	return list
}

func (s *State) checkedAfter(a *Apply) []Mark {
	var list []Mark
	for _, o := range s.Observers {
		if o.After && o.Revision == a.Revision && o.By != a.Executor {
			list = append(list, o.Mark)
		}
	}
	return list
}

// vetoDebts: a veto after the apply had started stops nothing and owes an answer.
func (s *State) vetoDebts() []Obligation {
	var list []Obligation
	for _, v := range s.Vetoes {
		a := s.ApplyOf(v.Revision)
		if !v.AfterApply || a == nil {
			continue
		}
		m := Mark{Position: v.Position, At: v.At}
		list = append(list, s.owe("POST_APPLY_VETO", m, v.At.Add(s.Policy.Duration("post_apply_veto")), ca, a.Executor, "WithdrawVeto", "6, rule 1", v.Ended, a.Ended))
	}
	return list
}

func (s *State) driftDebts() []Obligation {
	var list []Obligation
	for i, p := range s.Drift {
		by := append(s.equals(), p.Explained)
		o := s.owe("EXPLAIN_DRIFT", p.Found, p.Found.At.Add(s.Policy.Duration("explain_drift")), ca, s.lastExecutor(), "ExplainDrift", "seed 2.5", by...)
		o.ID = fmt.Sprintf("%s/%d", o.ID, i+1)
		list = append(list, o)
	}
	return list
}

func (s *State) lastExecutor() string {
	if len(s.Applies) == 0 {
		return ""
	}
	return s.Applies[len(s.Applies)-1].Executor
}

// recorded returns the obligation as events have made it visible so far.
func (s *State) recorded(id string) (*Obligation, bool) {
	for i := range s.Obligations {
		if s.Obligations[i].ID == id {
			return &s.Obligations[i], true
		}
	}
	return nil, false
}

func (s *State) applyObligation(f fact, payload proto.Message) {
	switch e := payload.(type) {
	case *emergencyv1.ObligationOpened:
		s.Obligations = append(s.Obligations, Obligation{ID: e.GetId(), Kind: e.GetKind(), OwnerRole: e.GetOwnerRole(), Owner: e.GetOwner(), Due: e.GetDueAt().AsTime(), Cause: e.GetCause(), Clause: e.GetClause()})
	case *emergencyv1.ObligationDueChanged:
		if o, ok := s.recorded(e.GetId()); ok {
			o.Due, o.Owner, o.OwnerRole = e.GetDueAt().AsTime(), e.GetOwner(), e.GetOwnerRole()
		}
	case *emergencyv1.ObligationDischarged:
		if o, ok := s.recorded(e.GetId()); ok {
			o.By, o.ByAt, o.LiftedBy = e.GetBy(), f.at, e.GetLiftedBy()
		}
	case *emergencyv1.ObligationOverdue:
		if o, ok := s.recorded(e.GetId()); ok {
			o.overdue = true
		}
	case *emergencyv1.ObligationEscalated:
		if o, ok := s.recorded(e.GetId()); ok {
			o.rung = e.GetRung()
		}
	}
}

// decideSync records the difference between what is owed and what was made visible; nothing if there is none.
func decideSync(d *decision, _ *emergencyv1.SyncObligationsRequest) *Refusal {
	for _, o := range Debts(d.s) {
		seen, ok := d.s.recorded(o.ID)
		if !ok {
			d.emit(&emergencyv1.ObligationOpened{
				Id: o.ID, Kind: o.Kind, OwnerRole: o.OwnerRole, Owner: o.Owner, DueAt: timestamppb.New(o.Due), Cause: o.Cause, Clause: o.Clause,
			})
			seen = &Obligation{Due: o.Due, Owner: o.Owner, OwnerRole: o.OwnerRole}
		}
		if seen.Open() && (!seen.Due.Equal(o.Due) || seen.Owner != o.Owner || seen.OwnerRole != o.OwnerRole) {
			d.emit(&emergencyv1.ObligationDueChanged{Id: o.ID, DueAt: timestamppb.New(o.Due), Owner: o.Owner, OwnerRole: o.OwnerRole})
		}
		if seen.Open() && !o.Open() {
			d.emit(&emergencyv1.ObligationDischarged{Id: o.ID, By: o.By, LateByMs: o.LateBy(o.ByAt).Milliseconds(), LiftedBy: o.LiftedBy})
		}
	}
	return nil
}

// NeedsSync tells whether SyncObligations would record something.
func NeedsSync(s *State) bool {
	for _, o := range Debts(s) {
		seen, ok := s.recorded(o.ID)
		if !ok || seen.Open() && (!o.Open() || !seen.Due.Equal(o.Due) || seen.Owner != o.Owner || seen.OwnerRole != o.OwnerRole) {
			return true
		}
	}
	return false
}

// arbitrationTimers make overdue obligations visible and tell the next rung of the ladder (SP 5.3.3).
func (d *decision) arbitrationTimers() []timer {
	var list []timer
	caused := map[string]time.Time{}
	for _, o := range Debts(d.s) {
		caused[o.ID] = o.CausedAt
	}
	for _, o := range d.s.Obligations {
		if !o.Open() {
			continue
		}
		if !o.overdue {
			list = append(list, timer{o.Due, "overdue/" + o.ID, func(d *decision) {
				d.emit(&emergencyv1.ObligationOverdue{Id: o.ID, DueAt: timestamppb.New(o.Due)})
			}})
		}
		rung, due := nextRung(o, caused[o.ID])
		list = append(list, timer{due, "escalate/" + o.ID, func(d *decision) {
			d.emit(&emergencyv1.ObligationEscalated{Id: o.ID, Rung: rung, Told: ladder(o, rung)})
		}})
	}
	return list
}

// nextRung is the next rung that was not told yet: half of the time, due, a day, three days, then every 14 days.
func nextRung(o Obligation, caused time.Time) (uint32, time.Time) {
	next := o.rung + 1
	switch next {
	case 1:
		return next, caused.Add(o.Due.Sub(caused) / 2)
	case 2:
		return next, o.Due
	case 3:
		return next, o.Due.Add(24 * time.Hour)
	case 4:
		return next, o.Due.Add(72 * time.Hour)
	}
	return next, o.Due.Add(72*time.Hour + time.Duration(next-4)*14*24*time.Hour)
}

// ladder is who is told at a rung: owner; owner and team lead; team lead again; the other lead and the Board; the Board.
func ladder(o Obligation, rung uint32) []emergencyv1.Role {
	if o.OwnerRole == cm || o.OwnerRole == ar || o.OwnerRole == dro {
		return arbitrationLadder(o, rung)
	}
	lead, other := cl, al
	if o.OwnerRole == al || o.OwnerRole == sa {
		lead, other = al, cl
	}
	switch rung {
	case 1:
		return roles(o.OwnerRole)
	case 2:
		if o.OwnerRole == lead {
			return roles(lead)
		}
		return roles(o.OwnerRole, lead)
	case 3:
		return roles(lead)
	case 4:
		return roles(other, bd)
	}
	return roles(bd)
}
