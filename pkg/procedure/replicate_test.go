// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func TestReplication(t *testing.T) {
	t.Parallel()
	push, check := &emergencyv1.PushReplicationRequest{}, &emergencyv1.CheckReplicationRequest{}
	verified := pt.Story(pt.Verified)
	facts := func(f procedure.Facts) []pt.Option { return []pt.Option{pt.Facts(f)} }
	result := func(kind emergencyv1.ReplicationResult, days uint32, drift int) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			e := replicationChecked(t, w)
			if e.GetResult() != kind || e.GetLagDays() != days || len(e.GetDriftPaths()) != drift {
				t.Errorf("%v", e)
			}
		}
	}
	equal, lag, drift := emergencyv1.ReplicationResult_REPLICATION_RESULT_EQUAL, emergencyv1.ReplicationResult_REPLICATION_RESULT_LAG, emergencyv1.ReplicationResult_REPLICATION_RESULT_DRIFT
	pending := procedure.Facts{Replication: &procedure.ReplicationFacts{HostTree: pt.ResultTree(1), BranchTree: pt.BaseTree(), Pending: true}}
	both := procedure.Facts{Replication: &procedure.ReplicationFacts{HostTree: pt.Tree("x"), BranchTree: pt.BaseTree(), Pending: true, Unexplained: []string{"etc/odd"}}}
	run(t, []row{
		{name: "pushed by the agent", given: history(verified), when: push, by: "repo:git", then: events("ReplicationPushed")},
		{name: "pushed by an admin", given: history(verified), when: push, by: "carla", then: events("ReplicationPushed")},
		{name: "pushed by an assessor", given: history(verified), when: push, by: "anna", refused: procedure.ReasonRole},
		{name: "pushed before anything changed", given: history(pt.Story(pt.Observed)), when: push, by: "carla", refused: procedure.ReasonNotDeployed},
		{name: "nothing arrived", given: history(verified), when: push, by: "carla", with: facts(procedure.Facts{}), refused: procedure.ReasonRepoTreeMismatch},
		{name: "equal", given: history(verified, pt.Waits(50*time.Hour)), when: check, by: "repo:git", then: events("ReplicationChecked"), check: result(equal, 2, 0)},
		{name: "lag", given: history(verified, pt.Waits(26*time.Hour)), when: check, by: "anna", with: facts(pending), then: events("ReplicationChecked"), check: result(lag, 1, 0)},
		{name: "who lags", given: history(verified), when: check, by: "anna", with: facts(pending), then: events("ReplicationChecked"), check: func(t *testing.T, w *pt.World) {
			m, err := procedure.DecodeEvent(w.Records[len(w.Records)-1].GetEvents()[0])
			if e, ok := m.(*emergencyv1.ReplicationChecked); err != nil || !ok || !slices.Equal(e.GetWaiting(), []string{"P1r1"}) {
				t.Errorf("%v %v", m, err)
			}
		}},
		{name: "drift", given: history(verified), when: check, by: "anna", with: facts(pt.Drift("etc/odd", "etc/other")), then: events("ReplicationChecked"), check: func(t *testing.T, w *pt.World) {
			result(drift, 0, 2)(t, w)
			n := 0
			for _, o := range procedure.Debts(w.State) {
				if o.Kind == "EXPLAIN_DRIFT" && o.Open() {
					n++
				}
			}
			if n != 2 {
				t.Errorf("%d explanations owed, want one for each path", n)
			}
		}},
		{name: "lag with a path too many is drift", given: history(verified), when: check, by: "anna", with: facts(both), then: events("ReplicationChecked"), check: result(drift, 0, 1)},
		{name: "could not be compared", given: history(verified), when: check, by: "anna", with: facts(procedure.Facts{}), refused: procedure.ReasonNotDeployed},
		{name: "another host", given: history(verified), when: &emergencyv1.CheckReplicationRequest{Host: pt.OtherHost}, by: "anna", refused: procedure.ReasonDrillBoundary},
		{name: "before anything changed", given: history(pt.Story(pt.Declared)), when: check, by: "anna", then: events("ReplicationChecked"), check: result(equal, 0, 0)},
		{name: "in an ended incident", given: history(pt.Story(pt.ClosedDown)), when: check, by: "repo:git", then: events("ReplicationChecked")},
	})
}

func replicationChecked(t *testing.T, w *pt.World) *emergencyv1.ReplicationChecked {
	t.Helper()
	p, err := procedure.DecodeEvent(w.Records[len(w.Records)-1].GetEvents()[0])
	if err != nil {
		t.Fatal(err)
	}
	return p.(*emergencyv1.ReplicationChecked)
}

func TestExplainDrift(t *testing.T) {
	t.Parallel()
	drifted := pt.Does("anna", &emergencyv1.CheckReplicationRequest{}, pt.Facts(pt.Drift("etc/odd")))
	explain := func(to string) func(*procedure.State) procedure.Command {
		return func(s *procedure.State) procedure.Command {
			return &emergencyv1.ExplainDriftRequest{PathCommitment: s.Drift[0].Commitment, BoundTo: to, Explanation: "a certificate was renewed"}
		}
	}
	explained := func(w *pt.World) { w.Do("carla", explain("P1r1")(w.State)) }
	verified := pt.Story(pt.Verified)
	unknown := &emergencyv1.ExplainDriftRequest{PathCommitment: procedure.Commit(nil, []byte("x")), BoundTo: "P1r1"}
	run(t, []row{
		{name: "by a registered revision", given: history(verified, drifted), as: explain("P1r1"), by: "carla", then: events("DriftExplained"), check: func(t *testing.T, w *pt.World) {
			if o, ok := debt(w.State, "EXPLAIN_DRIFT"); !ok || o.Open() {
				t.Errorf("%+v", o)
			}
		}},
		{name: "by a case", given: history(verified, drifted), as: explain("a20261124.3"), by: "anna", then: events("DriftExplained")},
		{name: "by a revert", given: history(verified, drifted), as: explain("revert:beef0123"), by: "anna", then: events("DriftExplained")},
		{name: "by text alone", given: history(verified, drifted), as: explain("certbot did it"), by: "carla", refused: procedure.ReasonExplUnbound},
		{name: "by a revision that is not there", given: history(verified, drifted), as: explain("P9r1"), by: "carla", refused: procedure.ReasonExplUnbound},
		{name: "no such path", given: history(verified, drifted), when: unknown, by: "carla", refused: procedure.ReasonPath},
		{name: "explained already", given: history(verified, drifted, explained), as: explain("P1r1"), by: "carla", refused: procedure.ReasonPath},
		{name: "gone since", given: history(verified, drifted, pt.Does("anna", &emergencyv1.CheckReplicationRequest{})), as: explain("P1r1"), by: "carla", refused: procedure.ReasonPath},
		{name: "no commitment", given: history(verified), when: &emergencyv1.ExplainDriftRequest{PathCommitment: "etc/odd"}, by: "carla", refused: procedure.ReasonField},
	})
}

// TestLag is the counting of procedure.md 10.12, with the case of 2019.
func TestLag(t *testing.T) {
	t.Parallel()
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, x := range []struct {
		effect, arrival string
		days            uint32
		seconds         int64
	}{
		{"2019-02-25T21:25:17Z", "2019-04-15T19:55:23Z", 49, 4228206},
		{"2026-11-24T23:59:59Z", "2026-11-25T00:00:00Z", 1, 1},
		{"2026-11-25T00:00:00Z", "2026-11-25T23:59:59Z", 0, 86399},
		{"2026-11-25T00:30:00+01:00", "2026-11-25T00:30:00Z", 1, 3600}, // the day is counted in UTC
		{"2026-11-25T00:00:00Z", "2026-11-24T00:00:00Z", 0, 0},         // the commit was there first
	} {
		if days, seconds := procedure.Lag(at(x.effect), at(x.arrival)); days != x.days || seconds != x.seconds {
			t.Errorf("from %s to %s: %d days, %d s; want %d, %d", x.effect, x.arrival, days, seconds, x.days, x.seconds)
		}
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	document := func(s *procedure.State) procedure.Command { return pt.Document(s) }
	changed := func(change func(*emergencyv1.DocumentRequest)) func(*procedure.State) procedure.Command {
		return func(s *procedure.State) procedure.Command { return with(pt.Document(s), change) }
	}
	verified := pt.Story(pt.Verified)
	deviated := append(withoutTests(pt.Observed), pt.From(pt.Observed, pt.Verified))
	late := func(want bool) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			p, err := procedure.DecodeEvent(w.Records[len(w.Records)-1].GetEvents()[0])
			if err != nil {
				t.Fatal(err)
			}
			if got := p.(*emergencyv1.ProcedureDocumented).GetLate(); got != want {
				t.Errorf("late %v", got)
			}
		}
	}
	at := func(after time.Duration) pt.Step { return func(w *pt.World) { w.Now = pt.T0().Add(after) } }
	run(t, []row{
		{name: "by the executor", given: history(verified), as: document, by: "carla", then: events("ProcedureDocumented")},
		{name: "by the observer", given: history(verified), as: document, by: "carl", then: events("ProcedureDocumented")},
		{name: "by the lead", given: history(verified), as: document, by: "clara", then: events("ProcedureDocumented")},
		{name: "exactly at the due time", given: history(verified, at(24*time.Hour)), as: document, by: "carla", then: events("ProcedureDocumented"), check: late(false)},
		{name: "late is accepted, and shown late", given: history(verified, at(24*time.Hour+1)), as: document, by: "carla", then: events("ProcedureDocumented"), check: late(true)},
		{name: "nothing was done", given: history(pt.Story(pt.Observed)), as: document, by: "carla", refused: procedure.ReasonNothingToDocument},
		{name: "nothing was done under another strategy", given: history(verified), as: changed(func(c *emergencyv1.DocumentRequest) { c.Strategy = 2 }), by: "carla", refused: procedure.ReasonNothingToDocument},
		{name: "every deviation has a reason", given: deviated, as: document, by: "carla", then: events("ProcedureDocumented")},
		{name: "a deviation without a reason", given: deviated, as: changed(func(c *emergencyv1.DocumentRequest) { c.Reasons = nil }), by: "carla", refused: procedure.ReasonDeviationUnexplained},
		{name: "a deviation with an empty reason", given: deviated, as: changed(func(c *emergencyv1.DocumentRequest) { c.Reasons[0].Reason = "" }), by: "carla", refused: procedure.ReasonDeviationUnexplained},
		{name: "a reason for another position", given: deviated, as: changed(func(c *emergencyv1.DocumentRequest) { c.Reasons[0].Position++ }), by: "carla", refused: procedure.ReasonDeviationUnexplained},
		{name: "timeline not confirmed", given: history(verified), as: changed(func(c *emergencyv1.DocumentRequest) { c.TimelineConfirmed = false }), by: "carla", refused: procedure.ReasonField},
		{name: "no text", given: history(verified), as: changed(func(c *emergencyv1.DocumentRequest) { c.Text = "" }), by: "carla", refused: procedure.ReasonField},
		{name: "no such strategy", given: history(verified), as: changed(func(c *emergencyv1.DocumentRequest) { c.Strategy = 4 }), by: "carla", refused: procedure.ReasonField},
	})
	t.Run("by an admin who did not act", func(t *testing.T) {
		t.Parallel()
		w := given(t, verified).World()
		w.Change(func(s *procedure.State) { s.Applies[0].Executor, s.Applies[0].Observer = "clara", "carl" })
		pt.GivenWorld(t, w).Counting(seen).WhenAs(document).By("carla").ThenRefused(procedure.ReasonNotActingAdmin)
	})
}

func TestBoardSummary(t *testing.T) {
	t.Parallel()
	period := func(from, until time.Duration) procedure.Command {
		return with(pt.BoardSummary(), func(c *emergencyv1.RecordBoardSummaryRequest) {
			c.From, c.Until = stampOf(pt.T0().Add(from)), stampOf(pt.T0().Add(until))
		})
	}
	declared := pt.Story(pt.Declared)
	run(t, []row{
		{name: "by the Board", given: history(declared), when: pt.BoardSummary(), by: "bea", then: events("BoardSummaryRecorded")},
		{name: "by the lead", given: history(declared), when: pt.BoardSummary(), by: "clara", then: events("BoardSummaryRecorded")},
		{name: "by another admin", given: history(declared), when: pt.BoardSummary(), by: "carla", refused: procedure.ReasonRole},
		{name: "from T0 on", given: history(declared), when: period(0, 1), by: "bea", then: events("BoardSummaryRecorded")},
		{name: "up to T0, exclusive", given: history(declared), when: period(-time.Hour, 0), by: "bea", refused: procedure.ReasonField},
		{name: "after T0", given: history(declared), when: period(1, time.Hour), by: "bea", refused: procedure.ReasonField},
		{name: "backwards", given: history(declared), when: period(time.Hour, -time.Hour), by: "bea", refused: procedure.ReasonField},
		{name: "in a closed incident", given: history(pt.Story(pt.ClosedDown)), when: pt.BoardSummary(), by: "bea", then: events("BoardSummaryRecorded")},
	})
}

// What a session changed was changed at its end at the latest: the lag is a lower bound (10.12).
func TestLagOfASession(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Captured)).World()
	end := w.State.Grants[0].Terminated.At
	equal := procedure.Facts{Replication: &procedure.ReplicationFacts{HostTree: pt.SessionTree(), BranchTree: pt.SessionTree(), BranchCommit: "beef02", ArrivedAt: end.Add(49 * 24 * time.Hour)}}
	w.Do("repo:git", &emergencyv1.CheckReplicationRequest{}, pt.Facts(equal))
	m, err := procedure.DecodeEvent(w.Records[len(w.Records)-1].GetEvents()[0])
	if err != nil {
		t.Fatal(err)
	}
	if e := m.(*emergencyv1.ReplicationChecked); e.GetLagDays() != 49 || e.GetLagSeconds() != 49*24*3600 || !e.GetLowerBound() {
		t.Errorf("%v", e)
	}
	w = given(t, pt.Story(pt.Captured)).World()
	w.Do("repo:git", &emergencyv1.PushReplicationRequest{})
	if m, err = procedure.DecodeEvent(w.Records[len(w.Records)-1].GetEvents()[0]); err != nil {
		t.Fatal(err)
	}
	if e := m.(*emergencyv1.ReplicationPushed); e.GetRealActor() != "emil" {
		t.Errorf("%v", e)
	}
}
