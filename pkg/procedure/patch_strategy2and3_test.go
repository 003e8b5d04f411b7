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

// TestShortRoad is the road of a patch under strategy 2: who may go it, and what it still asks for (seed 2.2, 2.3).
func TestShortRoad(t *testing.T) {
	t.Parallel()
	escalated, prepared, dry := pt.Story(pt.Escalated), pt.Story(pt.Prepared), pt.Story(pt.DryRun2)
	forward := func(change func(*emergencyv1.ForwardRequest)) procedure.Command {
		return with(pt.HandOverTo("carla"), change)
	}
	handed := func(want ...emergencyv1.Deviation) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			if got := lastDeviations(w); !slices.Equal(got, want) {
				t.Errorf("deviations %v, want %v", got, want)
			}
			if f := current(t, w).Forward; !f.LocalTest || f.Complete || f.To != "carla" {
				t.Errorf("%+v", f)
			}
		}
	}
	skipped := emergencyv1.Deviation_DEVIATION_REVIEW_SKIPPED
	down := pt.Does("carla", pt.GoBack(1))
	run(t, []row{
		{name: "an assessor prepares", given: history(escalated), when: pt.Register(1), by: "anna", then: events("PatchRegistered")},
		{name: "the assessors' lead prepares", given: history(escalated), when: pt.Register(1), by: "albert", then: events("PatchRegistered")},
		{name: "a developer prepares", given: history(escalated), when: pt.Register(1), by: "dora", refused: procedure.ReasonPreparerRole},
		{name: "an engineer prepares", given: history(escalated), when: pt.Register(1), by: "emil", refused: procedure.ReasonPreparerRole},
		{name: "a critical admin prepares", given: history(escalated), when: pt.Register(1), by: "carla", refused: procedure.ReasonRole},
		{name: "a developer, back under strategy 1", given: history(escalated, down), when: pt.Register(1), by: "dora", then: events("PatchRegistered")},
		{name: "nothing comes from a session that never was", given: history(escalated), when: with(pt.Register(1), func(c *emergencyv1.RegisterPatchRequest) { c.Origin = emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION }), by: "anna", refused: procedure.ReasonSessionDiff},

		{name: "handed over", given: history(prepared), when: pt.HandOverTo("carla"), by: "anna", then: events("PatchForwarded"), check: handed(skipped)},
		{name: "by another assessor", given: history(prepared), when: pt.HandOverTo("carla"), by: "bert", then: events("PatchForwarded"), check: handed(skipped)},
		{name: "to whoever holds the slot", given: history(prepared), when: pt.HandOverTo(""), by: "anna", then: events("PatchForwarded"), check: handed(skipped)},
		{name: "approved by a second person", given: history(prepared, pt.Does("bert", pt.FirstReview(approve))), when: pt.HandOverTo("carla"), by: "anna", then: events("PatchForwarded"), check: handed()},
		{name: "looked at and not approved", given: history(prepared, pt.Does("bert", pt.FirstReview(changes))), when: pt.HandOverTo("carla"), by: "anna", refused: procedure.ReasonFirstReviewMissing},
		{name: "no local test", given: history(prepared), when: forward(func(c *emergencyv1.ForwardRequest) { c.LocalTest = " " }), by: "anna", refused: procedure.ReasonLocalTest},
		{name: "no way back", given: history(prepared), when: forward(func(c *emergencyv1.ForwardRequest) { c.RollbackPlan = "" }), by: "anna", refused: procedure.ReasonRollbackPlan},
		{name: "to a tester", given: history(prepared), when: pt.HandOverTo("theo"), by: "anna", refused: procedure.ReasonRecipientRole},
		{name: "to nobody, and nobody holds the slot", given: history(pt.Story(pt.Declared), pt.Does("anna", pt.Exploited()), pt.Does("anna", pt.Register(1))), when: pt.HandOverTo(""), by: "anna", refused: procedure.ReasonRecipientRole},
		{name: "vetoed", given: history(prepared, pt.Does("bert", pt.Veto())), when: pt.HandOverTo("carla"), by: "anna", refused: procedure.ReasonVetoOpen},
		{name: "under strategy 1 it is not enough", given: history(prepared, down), when: pt.HandOverTo("carla"), by: "anna", refused: procedure.ReasonSecondReviewMiss},
		{name: "under strategy 3 it is", given: history(prepared, pt.Does("carla", pt.Joint()), pt.Does("bert", pt.Joint())), when: pt.HandOverTo("carla"), by: "anna", then: events("PatchForwarded")},

		{name: "dry run of what was not handed over", given: history(prepared), when: &emergencyv1.DryRunRequest{}, by: "carla", refused: procedure.ReasonNotForwarded},
		{name: "nobody observes, and why is said", given: history(dry), when: pt.Alone(), by: "carla", then: events("ApplyStarted"), check: func(t *testing.T, w *pt.World) {
			t.Helper()
			if got := lastDeviations(w); !slices.Equal(got, []emergencyv1.Deviation{emergencyv1.Deviation_DEVIATION_NO_OBSERVER}) {
				t.Errorf("deviations %v", got)
			}
			if a := w.State.Applies[0]; a.Strategy != 2 || a.Observer != "" || !a.NoObserverSaid || a.TestsWaived {
				t.Errorf("%+v", a)
			}
		}},
		{name: "nobody observes, and why is not said", given: history(dry), when: &emergencyv1.StartApplyRequest{}, by: "carla", refused: procedure.ReasonObserverMissing},
		{name: "an observer who has not confirmed", given: history(dry), when: with(pt.Alone(), func(c *emergencyv1.StartApplyRequest) { c.Observer = "carl" }), by: "carla", refused: procedure.ReasonObserverMissing},
		{name: "an observer who has", given: history(dry, pt.Does("carl", pt.Observe())), when: &emergencyv1.StartApplyRequest{}, by: "carla", then: events("ApplyStarted"), check: func(t *testing.T, w *pt.World) {
			t.Helper()
			if len(lastDeviations(w)) > 0 || w.State.Applies[0].Observer != "carl" {
				t.Errorf("%+v", w.State.Applies[0])
			}
		}},
		{name: "a waiver of strategy 1 says nothing here", given: history(pt.Story(pt.Called), pt.Waits(16*time.Minute), pt.Does("dora", pt.Register(1)), pt.Does("clara", pt.Waive(observer)), pt.Does("anna", pt.Exploited()), pt.Does("anna", pt.HandOverTo("carla")), pt.Does("carla", &emergencyv1.DryRunRequest{})),
			when: &emergencyv1.StartApplyRequest{}, by: "carla", refused: procedure.ReasonObserverMissing},
		{name: "no waiver of strategy 1 is given here", given: history(prepared), when: pt.Waive(observer), by: "clara", refused: procedure.ReasonNotApplicable},
		{name: "no dry run", given: history(pt.Story(pt.HandedOver)), when: pt.Alone(), by: "carla", refused: procedure.ReasonDryRunMissing},
		{name: "vetoed after the dry run", given: history(dry, pt.Does("bert", pt.Veto())), when: pt.Alone(), by: "carla", refused: procedure.ReasonVetoOpen},
		{name: "back under strategy 1 it is not enough", given: history(dry, down), when: pt.Alone(), by: "carla", refused: procedure.ReasonNotForwarded},
		{name: "what strategy 1 forwarded stays good", given: history(pt.Story(pt.DryRun), pt.Does("anna", pt.Exploited())), when: pt.Alone(), by: "carla", then: events("ApplyStarted")},
		{name: "also when it is handed over again and back", given: history(pt.Story(pt.DryRun), pt.Does("anna", pt.Exploited()), pt.Does("anna", pt.HandOverTo("carla")), down, pt.Does("carl", pt.Observe())), when: &emergencyv1.StartApplyRequest{}, by: "carla", then: events("ApplyStarted")},
		{name: "single-handed by the author is not even a question of strategy", given: history(dry), when: pt.Alone(), by: "anna", refused: procedure.ReasonRole},
		{name: "applied by hand, verified by the agent", given: history(dry, pt.Does("carla", with(pt.Alone(), func(c *emergencyv1.StartApplyRequest) { c.ByHand = true }))), when: pt.ReportTree(pt.ResultTree(1)), by: agent, then: events("PatchApplied", "DeployVerified")},
		{name: "by hand and alone, the executor says that it is done", given: history(dry, pt.Does("carla", with(pt.Alone(), func(c *emergencyv1.StartApplyRequest) { c.ByHand = true }))), when: pt.ReportApply(true), by: "carla", then: events("PatchApplied"), check: func(t *testing.T, w *pt.World) {
			t.Helper()
			if got := lastDeviations(w); !slices.Equal(got, []emergencyv1.Deviation{emergencyv1.Deviation_DEVIATION_MANUAL_TREE_REPORT}) {
				t.Errorf("deviations %v", got)
			}
		}},
		{name: "by the agent it is the agent's to say", given: history(pt.Story(pt.Applying2)), when: pt.ReportApply(true), by: "carla", refused: procedure.ReasonRole},
		{name: "without an observer the executor's own word is none", given: history(pt.Story(pt.Applying2)), when: pt.ReportTree(pt.ResultTree(1)), by: "carla", refused: procedure.ReasonRole},
	})
}

// The gate's evidence names what strategy 2 asks for, and nothing that it does not.
func TestShortGateEvidence(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Applying2)).World()
	m, err := procedure.DecodeEvent(w.Records[len(w.Records)-1].GetEvents()[0])
	if err != nil {
		t.Fatal(err)
	}
	var checks []string
	for _, c := range m.(*emergencyv1.ApplyStarted).GetGate() {
		checks = append(checks, c.GetCheck())
		if !c.GetPassed() || len(c.GetEvidence()) == 0 && c.GetCheck() != "veto" {
			t.Errorf("%v", c)
		}
	}
	if !slices.Equal(checks, []string{"current", "veto", "local_test", "forwarded", "host_base", "dry_run"}) {
		t.Errorf("%v", checks)
	}
	if got := w.Records[len(w.Records)-1].GetAuthority(); got != "seed 2.3" {
		t.Errorf("authority %q", got)
	}
}

// TestShortSteps: the first step is where the incident stands, by the numbers of chapter 1.2.
func TestShortSteps(t *testing.T) {
	t.Parallel()
	for m, want := range map[pt.Milestone][2]string{
		pt.Escalated: {"2.2", "RegisterPatch"}, pt.Prepared: {"2.2", "Forward"}, pt.HandedOver: {"2.3", "StartApply"}, pt.DryRun2: {"2.3", "StartApply"},
		pt.Checked2: {"7", "EnterUpdateCycle"}, pt.InCycle: {"2.5", "RecordFirstReview"}, pt.Reviewed2: {"2.5", "ReportTest"}, pt.Tested2: {"2.5", "RecordSecondReview"}, pt.ReviewedAll: {"2.5", "ConcludeUpdateCycle"},
	} {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			steps := procedure.NextSteps(given(t, pt.Story(m)).World().State)
			i := slices.IndexFunc(steps, func(s procedure.Step) bool { return s.Command == want[1] })
			if i < 0 || steps[i].Number != want[0] {
				t.Errorf("want %v among %+v", want, steps)
			}
		})
	}
	steps := procedure.NextSteps(given(t, pt.Story(pt.Escalated)).World().State)
	if !slices.Equal(steps[0].Persons, []string{"anna"}) {
		t.Errorf("the preparer is %+v", steps[0])
	}
}
