// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// incidentOf puts a state into the words of the query API; what depends on the time is judged at now. It keeps nothing of
// the state.
func incidentOf(s *procedure.State, now time.Time) *dashboardv1.Incident {
	out := &dashboardv1.Incident{
		Id: s.Incident, Status: string(s.Status), Strategy: s.Strategy, System: s.Declared.System, Severity: s.Declared.Severity,
		ReasonClass: s.Declared.ReasonClass, Drill: s.Declared.Drill, DeclaredAt: instant(s.Declared.At), DeclaredBy: s.Declared.By,
		Position: s.Position, HeadHash: s.HeadHash, MergedInto: s.MergedInto, Symptom: restricted(s.Declared.Symptom), Host: s.Host(),
		OverallMetAt: instant(procedure.OverallMetAt(s)),
	}
	if s.Policy != nil {
		out.PolicyNumber, out.PolicyDigest = s.Policy.Number, s.Policy.Digest
	}
	if steps := procedure.NextSteps(s); len(steps) > 0 {
		out.Step = steps[0].Number + " " + steps[0].Title
	}
	for _, d := range procedure.Deadlines(s) {
		state := d.State(s, now)
		out.Deadlines = append(out.Deadlines, &dashboardv1.Deadline{Key: d.Key, DueAt: instant(d.Due), State: string(state)})
		if d.Key == "overall" {
			out.OverallDueAt, out.Breached = instant(d.Due), state == procedure.DeadlineBreached || state == procedure.DeadlineLate
		}
	}
	if n := len(s.Replications); n > 0 {
		out.Replication = upper(s.Replications[n-1].Kind.String(), "REPLICATION_RESULT_")
	}
	out.Slots, out.Pages = slotsOf(s), pagesOf(s)
	out.Revisions, out.Vetoes, out.Deployments = revisionsOf(s), vetoesOf(s), deploymentsOf(s)
	out.Obligations = obligationsOf(s, now)
	out.Strategies, out.LateRecords, out.Permissions, out.Grants = strategiesOf(s), lateRecordsOf(s), permissionsOf(s), grantsOf(s)
	out.Disputes, out.Rulings, out.Directions = disputesOf(s, now), rulingsOf(s), directionsOf(s, now)
	for _, d := range s.Deviations {
		out.Deviations = append(out.Deviations, &dashboardv1.DeviationAt{Position: d.Position, Deviation: d.Deviation})
	}
	return out
}

func slotsOf(s *procedure.State) []*dashboardv1.Slot {
	var list []*dashboardv1.Slot
	for _, sl := range s.Slots {
		list = append(list, &dashboardv1.Slot{
			Id: sl.ID, Team: sl.Team, State: string(sl.State), Person: sl.Person, Step: procedure.StepWord(sl.Step), DueAt: slotDue(s, sl),
			HandoverTo: sl.HandoverTo, ContactPath: restricted(sl.Contact),
		})
	}
	return list
}

// slotDue is when the holder has to be heard of again; nobody waits for a slot that is open or ended.
func slotDue(s *procedure.State, sl procedure.Slot) *timestamppb.Timestamp {
	if s.Policy == nil {
		return nil
	}
	switch sl.State {
	case procedure.SlotAccepted:
		return instant(sl.Since.Add(s.Policy.Duration("callout.ack_expiry")))
	case procedure.SlotStandby:
		return instant(sl.Since.Add(s.Policy.Duration("standby.checkin")))
	case procedure.SlotOpen, procedure.SlotEnded:
	}
	return nil
}

func pagesOf(s *procedure.State) []*dashboardv1.PageState {
	var list []*dashboardv1.PageState
	for _, p := range s.Pages {
		state := upper(p.State.String(), "DELIVERY_STATE_")
		if p.State == emergencyv1.DeliveryState_DELIVERY_STATE_UNSPECIFIED {
			state = "PENDING"
		}
		list = append(list, &dashboardv1.PageState{Page: p.ID, Round: p.Round, Team: p.Team, Person: p.Person, Channel: p.Channel, State: state, Detail: p.Detail})
	}
	return list
}

func revisionsOf(s *procedure.State) []*dashboardv1.Revision {
	var list []*dashboardv1.Revision
	for i := range s.Revisions {
		r := &s.Revisions[i]
		out := &dashboardv1.Revision{
			Id: r.ID, Binding: r.Binding, State: procedure.RevisionState(s, r), Current: r.Superseded == "", PatchSha256: r.Artefact.GetSha256(),
			PatchSize: r.Artefact.GetSize(), BaseCommit: r.BaseCommit, BaseTree: r.BaseTree, ResultTree: r.ResultTree, Author: r.Author,
			BugId: r.BugID, Position: r.Position, Checks: checksOf(s, r), Origin: r.Origin, Cycle: cycleOf(r),
		}
		if r.Transfer != nil {
			out.Commit = r.Transfer.Commit
		}
		list = append(list, out)
	}
	return list
}

// checksOf are what was done on a revision before its deployment, in the order of the history; void once another revision
// replaced it.
func checksOf(s *procedure.State, r *procedure.Revision) []*dashboardv1.Check {
	void := r.Superseded != ""
	list := phaseChecks(&r.Checks, void)
	if r.Forward != nil {
		list = append(list, check("forward", "to "+r.Forward.To, r.Forward.Mark, void))
	}
	for _, w := range s.Waivers {
		if w.Revision == r.ID {
			list = append(list, check("waiver", lower(w.Control.String(), "CONTROL_"), w.Mark, void))
		}
	}
	return inOrder(list)
}

// phaseChecks are the reviews, transfer and tests of one phase.
func phaseChecks(c *procedure.Checks, void bool) []*dashboardv1.Check {
	var list []*dashboardv1.Check
	add := func(kind, result string, m procedure.Mark) { list = append(list, check(kind, result, m, void)) }
	if c.First != nil {
		add("first review", lower(c.First.Verdict.String(), "REVIEW_VERDICT_"), c.First.Mark)
	}
	if c.Transfer != nil {
		add("transfer", c.Transfer.Commit, c.Transfer.Mark)
	}
	if c.TestServer != nil {
		add("test server", c.TestServer.Environment, c.TestServer.Mark)
	}
	for _, t := range c.Tests {
		add("test", map[bool]string{true: "pass", false: "fail"}[t.Pass], t.Mark)
	}
	if c.Second != nil {
		add("second review", lower(c.Second.Verdict.String(), "REVIEW_VERDICT_"), c.Second.Mark)
	}
	return list
}

func check(kind, result string, m procedure.Mark, void bool) *dashboardv1.Check {
	return &dashboardv1.Check{Position: m.Position, Kind: kind, By: m.By, Result: result, Void: void, At: instant(m.At)}
}

func inOrder(list []*dashboardv1.Check) []*dashboardv1.Check {
	slices.SortStableFunc(list, func(a, b *dashboardv1.Check) int { return cmp.Compare(a.GetPosition(), b.GetPosition()) })
	return list
}

func vetoesOf(s *procedure.State) []*dashboardv1.Veto {
	var list []*dashboardv1.Veto
	for _, v := range s.Vetoes {
		list = append(list, &dashboardv1.Veto{Id: v.ID, Revision: v.Revision, RaisedBy: v.By, State: string(v.State), AfterApplyStarted: v.AfterApply})
	}
	return list
}

func deploymentsOf(s *procedure.State) []*dashboardv1.Deployment {
	var list []*dashboardv1.Deployment
	for _, a := range s.Applies {
		out := &dashboardv1.Deployment{
			Revision: a.Revision, Host: a.Host, Executor: a.Executor, Observer: a.Observer, State: string(a.State), PreTree: a.PreTree,
			HostTree: a.HostTree, StartedAt: instant(a.StartedAt), Position: a.Position,
		}
		for _, h := range s.Health {
			if h.Revision == a.Revision && h.Position > a.Position {
				out.Health = upper(h.Result, "HEALTH_RESULT_")
			}
		}
		list = append(list, out)
	}
	return list
}

// obligationsOf lists what is owed, the open ones first, each part by due time.
func obligationsOf(s *procedure.State, now time.Time) []*dashboardv1.Obligation {
	debts := procedure.Debts(s)
	slices.SortStableFunc(debts, func(a, b procedure.Obligation) int {
		if a.Open() != b.Open() {
			return map[bool]int{true: -1, false: 1}[a.Open()]
		}
		return a.Due.Compare(b.Due)
	})
	var list []*dashboardv1.Obligation
	for _, o := range debts {
		out := &dashboardv1.Obligation{
			Id: o.ID, Kind: o.Kind, OwnerRole: o.OwnerRole, Owner: o.Owner, DueAt: instant(o.Due), State: "OPEN",
			LateByMs: o.LateBy(now).Milliseconds(), Clause: o.Clause, How: o.How,
		}
		switch {
		case !o.Open():
			out.State = "DISCHARGED"
		case o.Overdue(now):
			out.State = "OVERDUE"
		}
		list = append(list, out)
	}
	return list
}

// instant is a time of the state; absent while it is not known.
func instant(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func restricted(commitment string) *emergencyv1.Restricted {
	if commitment == "" {
		return nil
	}
	return &emergencyv1.Restricted{Commitment: commitment}
}

func upper(value, prefix string) string { return strings.TrimPrefix(value, prefix) }

func lower(value, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(value, prefix)), "_", " ")
}
