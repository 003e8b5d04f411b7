// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// TestDebtsOfStrategy2: what each escalation and each short road owes, and what pays it (chapter 7).
func TestDebtsOfStrategy2(t *testing.T) {
	t.Parallel()
	in2 := history(pt.Story(pt.Declared), pt.Does("anna", pt.Exploited()))
	escalation := func(rest ...string) []string {
		return append([]string{"DOCUMENT/S2<StrategyEscalated", "DISPUTE/S2<StrategyEscalated"}, rest...)
	}
	applied := func(rest ...string) []string {
		return escalation(append([]string{"OBSERVER_DEBT<ApplyStarted", "HEALTH<PatchApplied", "REPLICATE<PatchApplied", "ENTER_CYCLE<PatchApplied", "REGULAR_REVIEW<PatchApplied"}, rest...)...)
	}
	rolled := history(pt.Story(pt.Verified2), pt.Does("carla", pt.RollBack("carl")), pt.Does(agent, pt.ReportTree(pt.BaseTree())))
	odd := history(pt.Story(pt.Applying2), pt.Does(agent, pt.ReportTree(pt.Tree("odd"))))
	drift := pt.Does("repo:git", &emergencyv1.CheckReplicationRequest{}, pt.Facts(pt.Drift("etc/odd", "etc/even")))
	explain := func(i int) pt.Step {
		return func(w *pt.World) {
			w.Do("anna", &emergencyv1.ExplainDriftRequest{PathCommitment: w.State.Drift[i].Commitment, BoundTo: "P1r1"})
		}
	}
	differs := applied("EXPLAIN_MISMATCH<DeployMismatch", "EXPLAIN_DRIFT<ReplicationChecked", "EXPLAIN_DRIFT<ReplicationChecked")
	replace := func(list []string, pairs ...string) []string {
		list = slices.Clone(list)
		for i := 0; i < len(pairs); i += 2 {
			if at := slices.Index(list, pairs[i]); at >= 0 {
				list[at] = pairs[i+1]
			}
		}
		return list
	}
	for _, x := range []struct {
		name  string
		given []pt.Step
		want  []string
	}{
		{"escalated", in2, escalation()},
		{"back again it is still owed", append(slices.Clone(in2), pt.Does("carla", pt.GoBack(1))), escalation()},
		{"twice", append(slices.Clone(in2), pt.Does("carla", pt.GoBack(1)), pt.Does("anna", pt.Exploited())), append(escalation(), escalation()...)},
		{"to strategy 3", history(pt.Story(pt.Declared), pt.Does("anna", pt.Joint()), pt.Does("carla", pt.Joint())), []string{"DOCUMENT/S3<StrategyEscalated", "DISPUTE/S3<StrategyEscalated"}},
		{"no effect", append(slices.Clone(in2), pt.Does("clara", pt.NoEffect(2))), replace(escalation(), "DOCUMENT/S2<StrategyEscalated", "DOCUMENT/S2<StrategyEscalated by LeadDecisionRecorded", "DISPUTE/S2<StrategyEscalated", "DISPUTE/S2<StrategyEscalated by LeadDecisionRecorded")},
		{"applied", history(pt.Story(pt.Verified2)), applied()},
		{"documented", history(pt.Story(pt.Verified2), func(w *pt.World) { w.Do("carla", pt.DocumentOf(w.State, 2)) }), replace(applied(), "DOCUMENT/S2<StrategyEscalated", "DOCUMENT/S2<StrategyEscalated by ProcedureDocumented")},
		{"blessed", history(pt.Story(pt.Blessed)), replace(applied(), "DOCUMENT/S2<StrategyEscalated", "DOCUMENT/S2<StrategyEscalated by ProcedureDocumented",
			"OBSERVER_DEBT<ApplyStarted", "OBSERVER_DEBT<ApplyStarted by ObserverConfirmed", "HEALTH<PatchApplied", "HEALTH<PatchApplied by HealthRecorded", "REPLICATE<PatchApplied", "REPLICATE<PatchApplied by ReplicationChecked",
			"ENTER_CYCLE<PatchApplied", "ENTER_CYCLE<PatchApplied by UpdateCycleEntered", "REGULAR_REVIEW<PatchApplied", "REGULAR_REVIEW<PatchApplied by UpdateCycleConcluded")},
		{"rolled back", rolled, append(replace(applied(), "HEALTH<PatchApplied", "HEALTH<PatchApplied by RolledBack", "ENTER_CYCLE<PatchApplied", "ENTER_CYCLE<PatchApplied by RolledBack", "REGULAR_REVIEW<PatchApplied", "REGULAR_REVIEW<PatchApplied by RolledBack"), "REPLICATE<RolledBack")},
		{"differs, and compared", append(slices.Clone(odd), drift), differs},
		{"one of two paths explained", append(slices.Clone(odd), drift, explain(0)), replace(differs, "EXPLAIN_DRIFT<ReplicationChecked", "EXPLAIN_DRIFT<ReplicationChecked by DriftExplained")},
		{"every path explained", append(slices.Clone(odd), drift, explain(0), explain(1)), replace(differs, "EXPLAIN_MISMATCH<DeployMismatch", "EXPLAIN_MISMATCH<DeployMismatch by DriftExplained",
			"EXPLAIN_DRIFT<ReplicationChecked", "EXPLAIN_DRIFT<ReplicationChecked by DriftExplained", "EXPLAIN_DRIFT<ReplicationChecked", "EXPLAIN_DRIFT<ReplicationChecked by DriftExplained")},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			got := owed(t, given(t, x.given...).World())
			want := slices.Clone(x.want)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("owed\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
		})
	}
}

// What an escalation owes is due by the fallback until something was done, then by that; and is owed by whoever did it.
func TestHandlingDue(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Escalated)).World()
	w.Sync()
	at := w.State.Strategies[0].At
	for _, kind := range []string{"DOCUMENT/S2", "DISPUTE/S2"} {
		if o, ok := debt(w.State, kind); !ok || !o.Due.Equal(at.Add(72*time.Hour)) || o.Owner != "" || procedure.RoleWord(o.OwnerRole) != "critical team lead" {
			t.Errorf("before anything was done: %+v", o)
		}
	}
	pt.From(pt.Escalated, pt.Applying2)(w)
	started := w.State.Applies[0].StartedAt
	for _, kind := range []string{"DOCUMENT/S2", "DISPUTE/S2"} {
		if o, ok := debt(w.State, kind); !ok || !o.Due.Equal(started.Add(24*time.Hour)) || o.Owner != "carla" || procedure.RoleWord(o.OwnerRole) != "critical admin" {
			t.Errorf("after the apply: %+v", o)
		}
	}
	if got := w.Sync().Types(); !slices.Contains(got, "arbitration.ObligationDueChanged") {
		t.Errorf("the change of date is not recorded: %v", got)
	}
	pt.From(pt.Applying2, pt.Verified2)(w)
	for kind, due := range map[string]time.Duration{"ENTER_CYCLE": 72 * time.Hour, "REGULAR_REVIEW": 14 * 24 * time.Hour} {
		if o, ok := debt(w.State, kind); !ok || !o.Due.Equal(w.State.Applies[0].Applied.At.Add(due)) || procedure.RoleWord(o.OwnerRole) != "assessment team lead" {
			t.Errorf("%s: %+v", kind, o)
		}
	}
}

// A decision of no effect is undone by an effect: that begins a handling of its own (10.9).
func TestEffectAfterNoEffect(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.DryRun2), pt.Does("clara", pt.NoEffect(2))).World()
	w.Do("carla", pt.Alone())
	got := owed(t, w)
	for _, want := range []string{"DOCUMENT/S2<StrategyEscalated by LeadDecisionRecorded", "DOCUMENT/S2<ApplyStarted", "DISPUTE/S2<ApplyStarted"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not owed: %v", want, got)
		}
	}
}

func TestNoEffect(t *testing.T) {
	t.Parallel()
	in2 := history(pt.Story(pt.Declared), pt.Does("anna", pt.Exploited()))
	failed := history(pt.Story(pt.Applying2), pt.Does(agent, pt.ReportApply(false)), pt.Does(agent, pt.ReportTree(pt.BaseTree())))
	verified1 := history(pt.Story(pt.Verified), pt.Does("anna", pt.Exploited()))
	run(t, []row{
		{name: "nothing was done", given: in2, when: pt.NoEffect(2), by: "clara", then: events("LeadDecisionRecorded")},
		{name: "the active strategy is meant if none is named", given: in2, when: pt.NoEffect(0), by: "clara", then: events("LeadDecisionRecorded"), check: func(t *testing.T, w *pt.World) {
			t.Helper()
			if n := w.State.NoEffects; len(n) != 1 || n[0].Strategy != 2 {
				t.Errorf("%+v", n)
			}
		}},
		{name: "a strategy that never was", given: in2, when: pt.NoEffect(3), by: "clara", refused: procedure.ReasonStrategy},
		{name: "a strategy that there is not", given: in2, when: pt.NoEffect(4), by: "clara", refused: procedure.ReasonField},
		{name: "with another decision", given: in2, when: with(pt.NoEffect(2), func(c *emergencyv1.RecordLeadDecisionRequest) {
			c.Decision = emergencyv1.LeadDecision_LEAD_DECISION_APPROVE
		}), by: "clara", refused: procedure.ReasonField},
		{name: "applied", given: history(pt.Story(pt.Verified2)), when: pt.NoEffect(2), by: "clara", refused: procedure.ReasonHasProductionEffect},
		{name: "tried, and backed out: that was an effect", given: failed, when: pt.NoEffect(2), by: "clara", refused: procedure.ReasonHasProductionEffect},
		{name: "after strategy 1 had applied and verified", given: verified1, when: pt.NoEffect(2), by: "clara", then: events("LeadDecisionRecorded")},
		{name: "after strategy 1 had left an open question", given: history(pt.Story(pt.Applied), pt.Does("anna", pt.Exploited())), when: pt.NoEffect(2), by: "clara", refused: procedure.ReasonHasProductionEffect},
		{name: "strategy 1, and it was not unchanged", given: verified1, when: pt.NoEffect(1), by: "clara", refused: procedure.ReasonHasProductionEffect},
		{name: "by an admin", given: in2, when: pt.NoEffect(2), by: "carla", refused: procedure.ReasonRole},
	})
}

func TestDocumentOfStrategy2(t *testing.T) {
	t.Parallel()
	verified := pt.Story(pt.Verified2)
	document := func(strategy uint32) func(*procedure.State) procedure.Command {
		return func(s *procedure.State) procedure.Command { return pt.DocumentOf(s, strategy) }
	}
	late := func(want bool) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			m, err := procedure.DecodeEvent(w.Records[len(w.Records)-1].GetEvents()[0])
			if err != nil {
				t.Fatal(err)
			}
			if e := m.(*emergencyv1.ProcedureDocumented); e.GetLate() != want || e.GetStrategy() != 2 {
				t.Errorf("%v", e)
			}
		}
	}
	run(t, []row{
		{name: "by the executor", given: history(verified), as: document(2), by: "carla", then: events("ProcedureDocumented"), check: late(false)},
		{name: "by the lead", given: history(verified), as: document(2), by: "clara", then: events("ProcedureDocumented")},
		{name: "by who did not act", given: history(verified), as: document(2), by: "carl", refused: procedure.ReasonNotActingAdmin},
		{name: "by the preparer", given: history(verified), as: document(2), by: "anna", refused: procedure.ReasonRole},
		{name: "late", given: history(verified, pt.Waits(25*time.Hour)), as: document(2), by: "carla", then: events("ProcedureDocumented"), check: late(true)},
		{name: "nothing was done under strategy 1", given: history(verified), as: document(1), by: "carla", refused: procedure.ReasonNothingToDocument},
		{name: "a deviation without a reason", given: history(verified), as: func(s *procedure.State) procedure.Command {
			return with(pt.DocumentOf(s, 2), func(c *emergencyv1.DocumentRequest) { c.Reasons = c.Reasons[1:] })
		}, by: "carla", refused: procedure.ReasonDeviationUnexplained},
		{name: "escalated, and nothing done", given: history(pt.Story(pt.HandedOver)), as: document(2), by: "carla", refused: procedure.ReasonNothingToDocument},
	})
}
