// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const agent = "host:" + pt.Host

// secondPatch is P2r1, forwarded.
func secondPatch(to pt.Milestone) pt.Step {
	return func(w *pt.World) {
		w.Do("dora", pt.Register(2))
		pt.From(pt.Registered, to)(w)
	}
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	run1 := &emergencyv1.DryRunRequest{}
	forwarded := pt.Story(pt.Forwarded)
	answer := func(change func(*procedure.AgentFacts)) []pt.Option {
		a := &procedure.AgentFacts{Host: pt.Host, HostTree: pt.BaseTree(), ResultTree: pt.ResultTree(1), Clean: true}
		change(a)
		return []pt.Option{pt.Facts(procedure.Facts{Agent: a})}
	}
	clean := func(want bool) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			if x := w.State.DryRuns[0]; x.Clean != want || x.Host != pt.Host {
				t.Errorf("%+v", x)
			}
		}
	}
	onHost := func(h string) procedure.Command { return &emergencyv1.DryRunRequest{Host: h} }
	run(t, []row{
		{name: "clean", given: history(forwarded), when: run1, by: "carla", then: events("DryRunRecorded"), check: clean(true)},
		{name: "rejected hunks", given: history(forwarded), when: run1, by: "carla", with: answer(func(a *procedure.AgentFacts) { a.Clean, a.Rejected = false, 2 }), then: events("DryRunRecorded"), check: clean(false)},
		{name: "another result is not clean, whatever the agent says", given: history(forwarded), when: run1, by: "carla", with: answer(func(a *procedure.AgentFacts) { a.ResultTree = pt.Tree("x") }), then: events("DryRunRecorded"), check: clean(false)},
		{name: "host holds something else", given: history(forwarded), when: run1, by: "carla", with: answer(func(a *procedure.AgentFacts) { a.HostTree = pt.Tree("x") }), refused: procedure.ReasonHostBaseMismatch},
		{name: "no agent", given: history(forwarded), when: run1, by: "carla", with: []pt.Option{pt.Facts(procedure.Facts{})}, refused: procedure.ReasonHostBaseMismatch},
		{name: "not forwarded", given: history(pt.Story(pt.ReviewedTwice)), when: run1, by: "carla", refused: procedure.ReasonNotForwarded},
		{name: "G11 on the drill's host", given: history(forwarded), when: onHost(pt.DrillHost), by: "carla", refused: procedure.ReasonDrillBoundary},
		{name: "G11 on another system's host", given: history(forwarded), when: onHost(pt.OtherHost), by: "carla", refused: procedure.ReasonDrillBoundary},
		{name: "G11 a drill on the real host", given: history(pt.Drill(), pt.From(pt.Declared, pt.Forwarded)), when: onHost(pt.Host), by: "carla", refused: procedure.ReasonDrillBoundary},
		{name: "a drill on its own host", given: history(pt.Drill(), pt.From(pt.Declared, pt.Forwarded)), when: run1, by: "carla", then: events("DryRunRecorded"), check: func(t *testing.T, w *pt.World) {
			if x := w.State.DryRuns[0]; x.Host != pt.DrillHost {
				t.Errorf("%+v", x)
			}
		}},
		{name: "a drill of a system without a drill host", given: history(pt.Does("carla", with(pt.Declare(), func(c *emergencyv1.DeclareRequest) { c.System, c.Drill = pt.OtherSystem, true })), pt.Does("dora", pt.Register(1))), when: run1, by: "carla", refused: procedure.ReasonDrillBoundary},
		{name: "a replaced revision", given: history(forwarded, pt.Does("dora", pt.Replace("P1r1", 2))), as: old(run1), by: "carla", refused: procedure.ReasonPatchRevisionStale},
		{name: "by an assessor", given: history(forwarded), when: run1, by: "anna", refused: procedure.ReasonRole},
	})
}

func TestConfirmObserver(t *testing.T) {
	t.Parallel()
	dry := pt.Story(pt.DryRun)
	holds := func(tree string) []pt.Option {
		return []pt.Option{pt.Facts(procedure.Facts{Agent: &procedure.AgentFacts{HostTree: tree}})}
	}
	named := func(who string) procedure.Command {
		return with(pt.Observe(), func(c *emergencyv1.ConfirmObserverRequest) { c.Executor = who })
	}
	run(t, []row{
		{name: "before", given: history(dry), when: pt.Observe(), by: "carl", then: events("ObserverConfirmed")},
		{name: "before, naming the executor", given: history(dry), when: named("carla"), by: "carl", then: events("ObserverConfirmed")},
		{name: "before, naming oneself", given: history(dry), when: named("carl"), by: "carl", refused: procedure.ReasonSamePerson},
		{name: "before, of a replaced revision", given: history(dry, pt.Does("dora", pt.Replace("P1r1", 2))), as: old(pt.Observe()), by: "carl", refused: procedure.ReasonPatchRevisionStale},
		{name: "before, of an ended incident", given: history(dry, pt.Does("carla", pt.StandDown())), when: pt.Observe(), by: "carl", refused: procedure.ReasonIncidentState},
		{name: "after", given: history(pt.Story(pt.Verified)), when: pt.CheckAfter(), by: "clara", then: events("ObserverConfirmed")},
		{name: "after, by the executor", given: history(pt.Story(pt.Verified)), when: pt.CheckAfter(), by: "carla", refused: procedure.ReasonSamePerson},
		{name: "after, never applied", given: history(dry), when: pt.CheckAfter(), by: "clara", refused: procedure.ReasonNotDeployed},
		{name: "after, host holds something else", given: history(pt.Story(pt.Verified)), when: pt.CheckAfter(), by: "clara", with: holds(pt.BaseTree()), refused: procedure.ReasonTreeMismatch},
		{name: "after, no agent", given: history(pt.Story(pt.Verified)), when: pt.CheckAfter(), by: "clara", with: []pt.Option{pt.Facts(procedure.Facts{})}, refused: procedure.ReasonTreeMismatch},
		{name: "after, of a revision that was replaced since", given: history(pt.Story(pt.Verified), pt.Does("dora", pt.Replace("P1r1", 2))), as: old(pt.CheckAfter()), by: "clara", then: events("ObserverConfirmed")},
		{name: "after, with a binding that never was", given: history(pt.Story(pt.Verified)), as: forged(pt.CheckAfter()), by: "clara", refused: procedure.ReasonBindingUnknown},
	})
}

// withoutTests is the story to a milestone with one passing test and the rest waived.
func withoutTests(to pt.Milestone) []pt.Step {
	return history(pt.Story(pt.OnTestServer), pt.Does("theo", pt.Test(pass)), pt.Does("albert", pt.Waive(tests)), pt.From(pt.Tested, to))
}

// withoutObserver is the story to a dry run with nobody in the second critical slot, and the observer waived.
func withoutObserver() []pt.Step {
	return history(pt.Story(pt.Called), pt.Does("carla", pt.Accept("critical/1")), pt.Waits(15*time.Minute),
		pt.From(pt.OnStandby, pt.DryRun), pt.Does("clara", pt.Waive(observer)))
}

func TestStartApply(t *testing.T) {
	t.Parallel()
	start := &emergencyv1.StartApplyRequest{}
	observed := pt.Story(pt.Observed)
	by := func(o string) procedure.Command { return &emergencyv1.StartApplyRequest{Observer: o} }
	dirty := func(w *pt.World) {
		w.Do("carla", &emergencyv1.DryRunRequest{}, pt.Facts(procedure.Facts{Agent: &procedure.AgentFacts{HostTree: pt.BaseTree(), ResultTree: pt.Tree("x")}}))
	}
	// carla is critical admin and was tester before: X11 asks what she did, not what she is
	exTester := func(w *pt.World) { w.Change(func(s *procedure.State) { s.Revisions[0].Tests[0].By = "carla" }) }
	backedOut := history(pt.Story(pt.Applying), pt.Does(agent, pt.ReportApply(false)), pt.Does(agent, pt.ReportTree(pt.BaseTree())))
	run(t, []row{
		{name: "green", given: history(observed), when: start, by: "carla", then: events("ApplyStarted"), check: func(t *testing.T, w *pt.World) {
			a := w.State.Applies[0]
			if a.Executor != "carla" || a.Observer != "carl" || a.Host != pt.Host || a.State != procedure.Applying || a.Strategy != 1 {
				t.Errorf("%+v", a)
			}
			wantDeviation()(t, w)
			for _, g := range applyStarted(t, w).GetGate() {
				if !g.GetPassed() || g.GetCheck() != "veto" && len(g.GetEvidence()) == 0 {
					t.Errorf("gate line %v has no evidence", g)
				}
			}
		}},
		{name: "by the observer's word on another host", given: history(observed), when: &emergencyv1.StartApplyRequest{Host: pt.DrillHost}, by: "carla", refused: procedure.ReasonDrillBoundary},
		{name: "a replaced revision", given: history(observed, pt.Does("dora", pt.Replace("P1r1", 2))), as: old(start), by: "carla", refused: procedure.ReasonPatchRevisionStale},
		{name: "not forwarded", given: history(pt.Story(pt.ReviewedTwice)), when: start, by: "carla", refused: procedure.ReasonNotForwarded},
		{name: "already deployed", given: history(pt.Story(pt.Verified)), when: start, by: "carla", refused: procedure.ReasonRevisionSpent},
		{name: "backed out", given: backedOut, when: start, by: "carla", refused: procedure.ReasonRevisionSpent},
		{name: "vetoed", given: history(observed, pt.Does("beate", pt.Veto())), when: start, by: "carla", refused: procedure.ReasonVetoOpen},
		{name: "a test turned to fail", given: history(observed, pt.Does("tom", pt.Test(fail))), when: start, by: "carla", refused: procedure.ReasonTestFailed},
		{name: "one of two tests turned to fail", given: history(observed, pt.Does("theo", pt.Test(fail))), when: start, by: "carla", refused: procedure.ReasonTestFailed},
		{name: "no dry run", given: history(pt.Story(pt.Forwarded), pt.Does("carl", pt.Observe())), when: start, by: "carla", refused: procedure.ReasonDryRunMissing},
		{name: "dry run exactly two hours old", given: history(observed, dryAge(2*time.Hour)), when: start, by: "carla", then: events("ApplyStarted")},
		{name: "dry run older than two hours", given: history(observed, dryAge(2*time.Hour+1)), when: start, by: "carla", refused: procedure.ReasonDryRunMissing},
		{name: "a later dry run that was not clean", given: history(observed, dirty), when: start, by: "carla", refused: procedure.ReasonDryRunMissing},
		{name: "another apply running", given: history(pt.Story(pt.Applying), secondPatch(pt.Observed)), when: start, by: "carla", refused: procedure.ReasonApplyRunning},
		{name: "the same apply running", given: history(pt.Story(pt.Applying)), when: start, by: "carla", refused: procedure.ReasonApplyRunning},
		{name: "X10 names oneself as observer", given: history(observed), when: by("carla"), by: "carla", refused: procedure.ReasonSamePerson},
		{name: "X10 the observer becomes the executor", given: history(observed), when: start, by: "carl", refused: procedure.ReasonObserverMissing},
		{name: "names somebody who has not confirmed", given: history(observed), when: by("clara"), by: "carla", refused: procedure.ReasonObserverMissing},
		{name: "no observer", given: history(pt.Story(pt.DryRun)), when: start, by: "carla", refused: procedure.ReasonObserverMissing},
		{name: "no observer, with a reason but no waiver", given: history(pt.Story(pt.DryRun)), when: &emergencyv1.StartApplyRequest{NoObserverReason: "alone tonight"}, by: "carla", refused: procedure.ReasonObserverMissing},
		{name: "observer for another revision", given: history(pt.Story(pt.Observed), pt.Does("dora", pt.Replace("P1r1", 2)), pt.From(pt.Registered, pt.DryRun)), when: start, by: "carla", refused: procedure.ReasonObserverMissing},
		{name: "X11 by a tester", given: history(observed, exTester), when: start, by: "carla", refused: procedure.ReasonSeparationOfDuty},
		{name: "X11 comes before the observer", given: history(pt.Story(pt.DryRun), exTester), when: start, by: "carla", refused: procedure.ReasonSeparationOfDuty},
		{name: "observer waived", given: withoutObserver(), when: start, by: "carla", then: events("ApplyStarted"), check: func(t *testing.T, w *pt.World) {
			wantDeviation(emergencyv1.Deviation_DEVIATION_NO_OBSERVER)(t, w)
			if o, ok := debt(w.State, "OBSERVER_DEBT"); !ok || !o.Open() {
				t.Errorf("%+v", o)
			}
		}},
		{name: "tests waived", given: withoutTests(pt.Observed), when: start, by: "carla", then: events("ApplyStarted"), check: func(t *testing.T, w *pt.World) {
			wantDeviation(emergencyv1.Deviation_DEVIATION_TEST_QUORUM_WAIVED)(t, w)
			if o, ok := debt(w.State, "TEST_DEBT"); !ok || !o.Open() {
				t.Errorf("%+v", o)
			}
		}},
		{name: "tests waived and there all the same", given: append(withoutTests(pt.Observed), pt.Does("tina", pt.Test(pass))), when: start, by: "carla", then: events("ApplyStarted"), check: func(t *testing.T, w *pt.World) {
			wantDeviation()(t, w)
			if o, ok := debt(w.State, "TEST_DEBT"); ok {
				t.Errorf("owed for nothing: %+v", o)
			}
		}},
		{name: "by an assessor", given: history(observed), when: start, by: "anna", refused: procedure.ReasonRole},
		{name: "by a service, for a person", given: history(observed), when: start, by: "reactor:carla", refused: procedure.ReasonSignature},
	})
	t.Run("the observer must still be critical admin", func(t *testing.T) {
		t.Parallel()
		w := given(t, observed).World()
		book(pt.Does("bea", revokeRole("carl", emergencyv1.Role_ROLE_CRITICAL_ADMIN, w.Now)))(w)
		pt.GivenWorld(t, w).When(start).By("carla").ThenRefused(procedure.ReasonObserverMissing)
	})
}

// dryAge moves the time to an age of the last dry run.
func dryAge(d time.Duration) pt.Step {
	return func(w *pt.World) { w.Now = w.State.DryRuns[len(w.State.DryRuns)-1].At.Add(d) }
}

func applyStarted(t *testing.T, w *pt.World) *emergencyv1.ApplyStarted {
	t.Helper()
	p, err := procedure.DecodeEvent(w.Records[len(w.Records)-1].GetEvents()[0])
	if err != nil {
		t.Fatal(err)
	}
	return p.(*emergencyv1.ApplyStarted)
}

func TestReportApply(t *testing.T) {
	t.Parallel()
	applying := pt.Story(pt.Applying)
	run(t, []row{
		{name: "applied", given: history(applying), when: pt.ReportApply(true), by: agent, then: events("PatchApplied")},
		{name: "failed", given: history(applying), when: pt.ReportApply(false), by: agent, then: events("PatchApplyFailed")},
		{name: "by the executor, under an observer", given: history(applying), when: pt.ReportApply(true), by: "carla", then: events("PatchApplied"), check: wantDeviation(emergencyv1.Deviation_DEVIATION_MANUAL_TREE_REPORT)},
		{name: "failed, by the executor", given: history(applying), when: pt.ReportApply(false), by: "carla", then: events("PatchApplyFailed"), check: wantDeviation(emergencyv1.Deviation_DEVIATION_MANUAL_TREE_REPORT)},
		{name: "by the executor, alone", given: append(withoutObserver(), pt.From(pt.Observed, pt.Applying)), when: pt.ReportApply(true), by: "carla", refused: procedure.ReasonRole},
		{name: "by the observer", given: history(applying), when: pt.ReportApply(true), by: "carl", refused: procedure.ReasonRole},
		{name: "by another host's agent", given: history(applying), when: pt.ReportApply(true), by: "host:" + pt.OtherHost, refused: procedure.ReasonRole},
		{name: "by the test server's agent", given: history(applying), when: pt.ReportApply(true), by: "test:" + pt.TestServer, refused: procedure.ReasonRole},
		{name: "nothing running", given: history(pt.Story(pt.Observed)), when: pt.ReportApply(true), by: agent, refused: procedure.ReasonNoApplyRunning},
		{name: "twice", given: history(pt.Story(pt.Applied)), when: pt.ReportApply(true), by: agent, refused: procedure.ReasonNoApplyRunning},
		{name: "no outcome", given: history(applying), when: &emergencyv1.ReportApplyRequest{}, by: agent, refused: procedure.ReasonField},
		{name: "a binding that never was", given: history(applying), as: forged(pt.ReportApply(true)), by: agent, refused: procedure.ReasonBindingUnknown},
	})
}

func TestReportTree(t *testing.T) {
	t.Parallel()
	applied := pt.Story(pt.Applied)
	odd := pt.Tree("odd")
	result, base := pt.ReportTree(pt.ResultTree(1)), pt.ReportTree(pt.BaseTree())
	failed := pt.Does(agent, pt.ReportApply(false))
	backingOut := history(applied, pt.Does(agent, pt.ReportTree(odd)), pt.Does("carla", pt.BackOut()))
	rollingBack := history(pt.Story(pt.Verified), pt.Does("carla", pt.RollBack("carl")))
	state := func(want procedure.ApplyState) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			if a := w.State.Applies[0]; a.State != want {
				t.Errorf("%s, want %s", a.State, want)
			}
		}
	}
	// the host had drifted between dry run and apply: it is brought back to what it held
	drifted := history(applied, pt.Does(agent, with(pt.ReportTree(odd), func(c *emergencyv1.ReportTreeRequest) { c.PreTree = pt.Tree("drifted") })), pt.Does("carla", pt.BackOut()))
	run(t, []row{
		{name: "as reviewed", given: history(applied), when: result, by: agent, then: events("DeployVerified"), check: state(procedure.Verified)},
		{name: "otherwise", given: history(applied), when: pt.ReportTree(odd), by: agent, then: events("DeployMismatch"), check: func(t *testing.T, w *pt.World) {
			state(procedure.Mismatch)(t, w)
			wantDeviation(emergencyv1.Deviation_DEVIATION_DEPLOY_MISMATCH)(t, w)
			if o, ok := debt(w.State, "EXPLAIN_MISMATCH"); !ok || !o.Open() || o.Owner != "carla" {
				t.Errorf("%+v", o)
			}
		}},
		{name: "by the executor, under an observer", given: history(applied), when: result, by: "carla", then: events("DeployVerified"), check: wantDeviation(emergencyv1.Deviation_DEVIATION_MANUAL_TREE_REPORT)},
		{name: "before the apply report", given: history(pt.Story(pt.Applying)), when: result, by: agent, then: events("PatchApplied", "DeployVerified"), check: func(t *testing.T, w *pt.World) {
			for _, kind := range []string{"HEALTH", "REPLICATE"} {
				if o, ok := debt(w.State, kind); !ok || !o.Open() {
					t.Errorf("%s is not owed: %+v", kind, o)
				}
			}
		}},
		{name: "before the apply report, differing", given: history(pt.Story(pt.Applying)), when: pt.ReportTree(odd), by: agent, then: events("PatchApplied", "DeployMismatch")},
		{name: "before the apply report, nothing changed", given: history(pt.Story(pt.Applying)), when: base, by: agent, then: events("DeployMismatch")},
		{name: "failed, and the base tree is there", given: history(pt.Story(pt.Applying), failed), when: base, by: agent, then: events("PatchBackedOut"), check: state(procedure.BackedOut)},
		{name: "failed, and something else is there", given: history(pt.Story(pt.Applying), failed), when: pt.ReportTree(odd), by: agent, then: events("BackOutUnproven"), check: state(procedure.BackOutUnproven)},
		{name: "backed out", given: backingOut, when: base, by: agent, then: events("PatchBackedOut"), check: state(procedure.BackedOut)},
		{name: "back-out not proven", given: backingOut, when: pt.ReportTree(odd), by: agent, then: events("BackOutUnproven"), check: state(procedure.BackOutUnproven)},
		{name: "backed out to what was found, not to what was expected", given: drifted, when: pt.ReportTree(pt.Tree("drifted")), by: agent, then: events("PatchBackedOut")},
		{name: "not backed out to what was found", given: drifted, when: base, by: agent, then: events("BackOutUnproven")},
		{name: "rolled back", given: rollingBack, when: base, by: agent, then: events("RolledBack"), check: state(procedure.RolledBack)},
		{name: "roll-back not proven", given: rollingBack, when: result, by: agent, then: events("BackOutUnproven")},
		{name: "of a revision that was replaced meanwhile", given: history(pt.Story(pt.Verified), pt.Does("dora", pt.Replace("P1r1", 2)), func(w *pt.World) {
			r, _ := w.State.Revision("P1r1")
			w.Do("carla", with(pt.RollBack("carl"), func(c *emergencyv1.RollBackRequest) {
				c.Binding = &emergencyv1.Binding{Revision: r.ID, Digest: r.Binding}
			}))
		}), as: old(base), by: agent, then: events("RolledBack")},
		{name: "nothing running", given: history(pt.Story(pt.Verified)), when: result, by: agent, refused: procedure.ReasonNoApplyRunning},
		{name: "by another host's agent", given: history(applied), when: result, by: "host:" + pt.OtherHost, refused: procedure.ReasonRole},
		{name: "no tree", given: history(applied), when: pt.ReportTree(""), by: agent, refused: procedure.ReasonField},
	})
}

func TestBackOutAndRollBack(t *testing.T) {
	t.Parallel()
	failed := history(pt.Story(pt.Applying), pt.Does(agent, pt.ReportApply(false)))
	mismatch := history(pt.Story(pt.Applied), pt.Does(agent, pt.ReportTree(pt.Tree("odd"))))
	unproven := append(mismatch, pt.Does("carla", pt.BackOut()), pt.Does(agent, pt.ReportTree(pt.Tree("odd"))))
	verified := pt.Story(pt.Verified)
	// P1r1 differs, P2r1 is being applied on top
	busy := append(mismatch, secondPatch(pt.Applying))
	run(t, []row{
		{name: "failed apply", given: failed, when: pt.BackOut(), by: "carl", then: events("BackOutStarted")},
		{name: "differing apply", given: mismatch, when: pt.BackOut(), by: "carla", then: events("BackOutStarted")},
		{name: "once more after it was not proven", given: unproven, when: pt.BackOut(), by: "carla", then: events("BackOutStarted")},
		{name: "a safety command goes through exclusivity", given: mismatch, when: pt.BackOut(), by: "xaver", then: events("BackOutStarted"), check: wantDeviation(emergencyv1.Deviation_DEVIATION_ROLE_EXCLUSIVITY)},
		{name: "running apply", given: history(pt.Story(pt.Applied)), when: pt.BackOut(), by: "carla", refused: procedure.ReasonNothingToBackOut},
		{name: "verified apply", given: history(verified), when: pt.BackOut(), by: "carla", refused: procedure.ReasonNothingToBackOut},
		{name: "never applied", given: history(pt.Story(pt.Observed)), when: pt.BackOut(), by: "carla", refused: procedure.ReasonNothingToBackOut},
		{name: "while another patch is being applied", given: busy, as: old(pt.BackOut()), by: "carla", refused: procedure.ReasonApplyRunning},
		{name: "reason too short", given: failed, when: &emergencyv1.BackOutRequest{Reason: "bad"}, by: "carla", refused: procedure.ReasonField},

		{name: "roll back, verified", given: history(verified), when: pt.RollBack("carl"), by: "carla", then: events("RollBackStarted")},
		{name: "roll back, differing", given: mismatch, when: pt.RollBack("carl"), by: "carla", then: events("RollBackStarted")},
		{name: "roll back, running", given: history(pt.Story(pt.Applied)), when: pt.RollBack("carl"), by: "carla", refused: procedure.ReasonNotDeployed},
		{name: "roll back, never applied", given: history(pt.Story(pt.Observed)), when: pt.RollBack("carl"), by: "carla", refused: procedure.ReasonNotDeployed},
		{name: "roll back, X10", given: history(verified), when: pt.RollBack("carla"), by: "carla", refused: procedure.ReasonSamePerson},
		{name: "roll back, observed by a tester", given: history(verified), when: pt.RollBack("theo"), by: "carla", refused: procedure.ReasonObserverMissing},
		{name: "roll back, no observer", given: history(verified), when: pt.RollBack(""), by: "carla", refused: procedure.ReasonField},
		{name: "roll back, while another patch is being applied", given: history(verified, secondPatch(pt.Applying)), as: old(pt.RollBack("carl")), by: "carla", refused: procedure.ReasonApplyRunning},
	})
}

func TestHealth(t *testing.T) {
	t.Parallel()
	run(t, []row{
		{name: "applied", given: history(pt.Story(pt.Applied)), when: pt.Health(), by: "carl", then: events("HealthRecorded")},
		{name: "verified", given: history(pt.Story(pt.Verified)), when: pt.Health(), by: "carla", then: events("HealthRecorded")},
		{name: "not applied", given: history(pt.Story(pt.Applying)), when: pt.Health(), by: "carla", refused: procedure.ReasonNotDeployed},
		{name: "never applied", given: history(pt.Story(pt.Observed)), when: pt.Health(), by: "carla", refused: procedure.ReasonNotDeployed},
		{name: "no result", given: history(pt.Story(pt.Applied)), when: &emergencyv1.RecordHealthRequest{}, by: "carla", refused: procedure.ReasonField},
	})
}
