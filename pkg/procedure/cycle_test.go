// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"testing"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func enter() *emergencyv1.EnterUpdateCycleRequest { return &emergencyv1.EnterUpdateCycleRequest{} }

// TestEnterUpdateCycle: what is on the host, and known to be in the repository, enters the regular cycle (seed 2.5).
func TestEnterUpdateCycle(t *testing.T) {
	t.Parallel()
	verified := pt.Story(pt.Verified2)
	equal := pt.Does("repo:git", &emergencyv1.CheckReplicationRequest{})
	drift := pt.Does("repo:git", &emergencyv1.CheckReplicationRequest{}, pt.Facts(pt.Drift("etc/odd")))
	lag := func(w *pt.World) {
		w.Do("repo:git", &emergencyv1.CheckReplicationRequest{}, pt.Facts(pt.Lagging(w.State)))
	}
	explain := func(w *pt.World) {
		w.Do("anna", &emergencyv1.ExplainDriftRequest{PathCommitment: w.State.Drift[0].Commitment, BoundTo: "P1r1"})
	}
	rolledBack := history(verified, pt.Does("carla", pt.RollBack("carl")), pt.Does(agent, pt.ReportTree(pt.BaseTree())), equal)
	entered := func(t *testing.T, w *pt.World) {
		t.Helper()
		if c := current(t, w).Cycle; c == nil || c.Entered.Result != "beef02" || c.BugID != "bug-1500" {
			t.Errorf("%+v", c)
		}
	}
	run(t, []row{
		{name: "replicated", given: history(pt.Story(pt.Replicated2)), when: enter(), by: "anna", then: events("UpdateCycleEntered"), check: entered},
		{name: "a patch of strategy 1 as well", given: history(pt.Story(pt.Replicated)), when: enter(), by: "anna", then: events("UpdateCycleEntered")},
		{name: "not deployed", given: history(pt.Story(pt.HandedOver), equal), when: enter(), by: "anna", refused: procedure.ReasonNotDeployed},
		{name: "being deployed", given: history(pt.Story(pt.Applying2), equal), when: enter(), by: "anna", refused: procedure.ReasonNotDeployed},
		{name: "rolled back", given: rolledBack, when: enter(), by: "anna", refused: procedure.ReasonNotDeployed},
		{name: "never compared", given: history(verified), when: enter(), by: "anna", refused: procedure.ReasonReplicationPending},
		{name: "compared before the change only", given: history(pt.Story(pt.DryRun2), equal, pt.From(pt.DryRun2, pt.Verified2)), when: enter(), by: "anna", refused: procedure.ReasonReplicationPending},
		{name: "lagging", given: history(verified, lag), when: enter(), by: "anna", refused: procedure.ReasonReplicationPending},
		{name: "drifted", given: history(verified, drift), when: enter(), by: "anna", refused: procedure.ReasonReplicationPending},
		{name: "drift explained", given: history(verified, drift, explain), when: enter(), by: "anna", then: events("UpdateCycleEntered")},
		{name: "explained, and drifted again", given: history(verified, drift, explain, drift), when: enter(), by: "anna", refused: procedure.ReasonReplicationPending},
		{name: "twice", given: history(pt.Story(pt.InCycle)), when: enter(), by: "anna", refused: procedure.ReasonCycleExists},
		{name: "after it was concluded", given: history(pt.Story(pt.Blessed)), when: enter(), by: "anna", refused: procedure.ReasonCycleExists},
		{name: "by an admin", given: history(pt.Story(pt.Replicated2)), when: enter(), by: "carla", refused: procedure.ReasonRole},
		{name: "a replaced revision that is on the host", given: history(pt.Story(pt.Replicated2), pt.Does("anna", pt.Replace("P1r1", 2))), as: old(enter()), by: "anna", then: events("UpdateCycleEntered")},
	})
}

// TestPhaseAfter: the same commands with phase after, under X5 to X9 over both phases; without having entered there is no such phase.
func TestPhaseAfter(t *testing.T) {
	t.Parallel()
	in, reviewed, tested := pt.Story(pt.InCycle), pt.Story(pt.Reviewed2), pt.Story(pt.Tested2)
	first, second := pt.After(pt.FirstReview(approve)), pt.After(pt.SecondReview(approve))
	oneTest := history(reviewed, pt.Does("theo", pt.After(pt.Test(pass))))
	twice := history(pt.Story(pt.Replicated), pt.Does("bert", enter())) // anna and bert reviewed it before, theo and tina tested it
	run(t, []row{
		{name: "not entered", given: history(pt.Story(pt.Checked2)), when: first, by: "bert", refused: procedure.ReasonNotEntered},
		{name: "a test, not entered", given: history(pt.Story(pt.Checked2)), when: pt.After(pt.Test(pass)), by: "theo", refused: procedure.ReasonNotEntered},
		{name: "before the deployment that is what was meant", given: history(pt.Story(pt.Prepared)), when: first, by: "bert", refused: procedure.ReasonNotEntered},
		{name: "phase before is over once it is applied", given: history(pt.Story(pt.Verified2)), when: pt.FirstReview(approve), by: "bert", refused: procedure.ReasonDeployed},
		{name: "and in the cycle", given: history(in), when: pt.FirstReview(approve), by: "bert", refused: procedure.ReasonDeployed},
		{name: "a test of phase before is over too", given: history(pt.Story(pt.Verified)), when: pt.Test(pass), by: "tom", refused: procedure.ReasonDeployed},

		{name: "first review", given: history(in), when: first, by: "bert", then: events("FirstReviewRecorded")},
		{name: "X5 by the author", given: history(in), when: first, by: "anna", refused: procedure.ReasonAuthorIsReviewer},
		{name: "a second first review", given: history(reviewed), when: first, by: "beate", refused: procedure.ReasonReviewExists},
		{name: "who gave the first review before may give it again", given: twice, when: first, by: "anna", then: events("FirstReviewRecorded")},
		{name: "X7 who gave the second review before", given: twice, when: first, by: "bert", refused: procedure.ReasonSamePerson},
		{name: "X8 who tested before", given: history(pt.Story(pt.OnTestServer), pt.Does("vera", pt.Test(pass)), pt.Does("theo", pt.Test(pass)), pt.From(pt.Tested, pt.Replicated), pt.Does("bert", enter())), when: first, by: "vera", refused: procedure.ReasonReviewerAndTester},
		{name: "a veto", given: history(in), when: pt.After(pt.FirstReview(veto)), by: "bert", then: events("FirstReviewRecorded", "VetoRaised")},

		{name: "transfer by another", given: history(in, pt.Does("bert", first)), when: &emergencyv1.TransferRequest{}, by: "beate", refused: procedure.ReasonNotFirstReviewer},
		{name: "transfer without a review", given: history(in), when: &emergencyv1.TransferRequest{}, by: "bert", refused: procedure.ReasonFirstReviewMissing},
		{name: "transfer after changes", given: history(in, pt.Does("bert", pt.After(pt.FirstReview(changes)))), when: &emergencyv1.TransferRequest{}, by: "bert", refused: procedure.ReasonFirstReviewMissing},
		{name: "transfer", given: history(in, pt.Does("bert", first)), when: &emergencyv1.TransferRequest{}, by: "bert", then: events("PatchTransferred")},
		{name: "test server before the transfer", given: history(in, pt.Does("bert", first)), as: func(s *procedure.State) procedure.Command { return pt.ConfirmServer(s) }, by: "test:" + pt.TestServer, refused: procedure.ReasonNotTransferred},

		{name: "test before the server holds it", given: history(in, pt.Does("bert", first)), when: pt.After(pt.Test(pass)), by: "theo", refused: procedure.ReasonTestServerNotReady},
		{name: "test", given: history(reviewed), when: pt.After(pt.Test(pass)), by: "theo", then: events("TestReported")},
		{name: "X6 by the author, were she a tester", given: history(pt.Story(pt.Escalated), pt.Does("vera", pt.Register(1)), pt.From(pt.Prepared, pt.Reviewed2)), when: pt.After(pt.Test(pass)), by: "vera", refused: procedure.ReasonAuthorIsTester},
		{name: "X8 by a reviewer", given: history(in, pt.Does("vera", first), pt.Does("vera", &emergencyv1.TransferRequest{}), func(w *pt.World) { w.Do("test:"+pt.TestServer, pt.ConfirmServer(w.State)) }), when: pt.After(pt.Test(pass)), by: "vera", refused: procedure.ReasonReviewerAndTester},
		{name: "no bug note", given: history(reviewed), when: with(pt.After(pt.Test(pass)), func(c *emergencyv1.ReportTestRequest) { c.BugNote = "" }), by: "theo", refused: procedure.ReasonBugNoteMissing},

		{name: "second review with one test", given: oneTest, when: second, by: "beate", refused: procedure.ReasonTestQuorum},
		{name: "X9 the same tester twice is one test", given: history(reviewed, pt.Does("theo", pt.After(pt.Test(pass))), pt.Does("theo2", pt.After(pt.Test(pass)))), when: second, by: "beate", refused: procedure.ReasonTestQuorum},
		{name: "second review with a failed test", given: history(reviewed, pt.Does("theo", pt.After(pt.Test(pass))), pt.Does("tina", pt.After(pt.Test(fail)))), when: second, by: "beate", refused: procedure.ReasonTestFailed},
		{name: "second review", given: history(tested), when: second, by: "beate", then: events("SecondReviewRecorded")},
		{name: "X7 by the same person", given: history(tested), when: second, by: "bert", refused: procedure.ReasonSamePerson},
		{name: "X5 second review by the author", given: history(tested), when: second, by: "anna", refused: procedure.ReasonAuthorIsReviewer},
		{name: "second review of nothing reviewed", given: history(in), when: second, by: "beate", refused: procedure.ReasonFirstReviewMissing},
		{name: "vetoed meanwhile", given: history(tested, pt.Does("albert", pt.Veto())), when: second, by: "beate", refused: procedure.ReasonVetoOpen},
		{name: "after the end", given: history(pt.Story(pt.Blessed)), when: pt.After(pt.Test(pass)), by: "tom", refused: procedure.ReasonCycleExists},
	})
}

// What was recorded before the deployment stays as it was, whatever the update cycle finds.
func TestPhaseAfterAltersNothing(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Replicated), pt.Does("bert", enter())).World()
	before := pt.Fingerprint(current(t, w).Checks)
	w.Do("anna", pt.After(pt.FirstReview(changes)))
	w.Do("theo", pt.After(pt.Test(fail))) // the server that confirmed it before the deployment
	r := current(t, w)
	if pt.Fingerprint(r.Checks) != before || r.Cycle.First == nil || len(r.Cycle.Tests) != 1 {
		t.Errorf("before %+v, in the cycle %+v", r.Checks, r.Cycle)
	}
	if got := procedure.RevisionState(w.State, r); got != "InCycle" {
		t.Errorf("stands at %s", got)
	}
}

// TestConclude: two approving reviews and the tests, all of the phase after; one review against it is enough to revert.
func TestConclude(t *testing.T) {
	t.Parallel()
	outcome := func(o emergencyv1.CycleOutcome, commit string) *emergencyv1.ConcludeUpdateCycleRequest {
		return &emergencyv1.ConcludeUpdateCycleRequest{Outcome: o, Commit: commit}
	}
	changed := outcome(emergencyv1.CycleOutcome_CYCLE_OUTCOME_CHANGED, "beef05")
	all := pt.Story(pt.ReviewedAll)
	failed := history(all, pt.Does("tom", pt.After(pt.Test(fail))))
	stands := func(word string) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			if got := procedure.RevisionState(w.State, current(t, w)); got != word {
				t.Errorf("stands at %s, want %s", got, word)
			}
		}
	}
	run(t, []row{
		{name: "blessed", given: history(all), when: pt.Bless(), by: "beate", then: events("UpdateCycleConcluded"), check: stands("Blessed")},
		{name: "changed", given: history(all), when: changed, by: "anna", then: events("UpdateCycleConcluded"), check: stands("Changed")},
		{name: "reverted after all", given: history(all), when: pt.Reverted(), by: "anna", then: events("UpdateCycleConcluded"), check: stands("Reverted")},
		{name: "reverted for one review", given: history(pt.Story(pt.InCycle), pt.Does("bert", pt.After(pt.FirstReview(changes)))), when: pt.Reverted(), by: "anna", then: events("UpdateCycleConcluded")},
		{name: "reverted for a veto", given: history(pt.Story(pt.InCycle), pt.Does("bert", pt.After(pt.FirstReview(veto)))), when: pt.Reverted(), by: "anna", then: events("UpdateCycleConcluded")},
		{name: "blessed against a review", given: history(pt.Story(pt.InCycle), pt.Does("bert", pt.After(pt.FirstReview(changes)))), when: pt.Bless(), by: "anna", refused: procedure.ReasonReviewQuorum},
		{name: "nothing reviewed", given: history(pt.Story(pt.InCycle)), when: pt.Bless(), by: "anna", refused: procedure.ReasonReviewQuorum},
		{name: "reverted, and nobody looked", given: history(pt.Story(pt.InCycle)), when: pt.Reverted(), by: "anna", refused: procedure.ReasonReviewQuorum},
		{name: "one review", given: history(pt.Story(pt.Tested2)), when: pt.Bless(), by: "anna", refused: procedure.ReasonReviewQuorum},
		{name: "reviews of before do not count", given: history(pt.Story(pt.Replicated), pt.Does("bert", enter())), when: pt.Bless(), by: "anna", refused: procedure.ReasonReviewQuorum},
		{name: "a test fails at last", given: failed, when: pt.Bless(), by: "anna", refused: procedure.ReasonTestFailed},
		{name: "not entered", given: history(pt.Story(pt.Checked2)), when: pt.Bless(), by: "anna", refused: procedure.ReasonNotEntered},
		{name: "twice", given: history(pt.Story(pt.Blessed)), when: pt.Bless(), by: "anna", refused: procedure.ReasonCycleExists},
		{name: "no outcome", given: history(all), when: outcome(0, ""), by: "anna", refused: procedure.ReasonField},
		{name: "changed, and no commit", given: history(all), when: outcome(emergencyv1.CycleOutcome_CYCLE_OUTCOME_CHANGED, ""), by: "anna", refused: procedure.ReasonField},
		{name: "by a tester", given: history(all), when: pt.Bless(), by: "theo", refused: procedure.ReasonRole},
	})
}

// TestGateInTheCycle: the agent on the test server installs what the first regular reviewer transferred.
func TestGateInTheCycle(t *testing.T) {
	t.Parallel()
	gate := func(w *pt.World) *procedure.Refusal {
		return procedure.TestGate(w.State, "P1r1", pt.TestServer, w.Book, w.Now)
	}
	w := given(t, pt.Story(pt.InCycle)).World()
	if r := gate(w); r == nil || r.Reason != procedure.ReasonFirstReviewMissing {
		t.Errorf("not reviewed: %v", r)
	}
	w.Do("bert", pt.After(pt.FirstReview(approve)))
	if r := gate(w); r == nil || r.Reason != procedure.ReasonNotTransferred {
		t.Errorf("not transferred: %v", r)
	}
	w.Do("bert", &emergencyv1.TransferRequest{})
	if r := gate(w); r != nil {
		t.Errorf("transferred: %v", r)
	}
	if s := current(t, w).Tested(); s != nil {
		t.Errorf("nobody has confirmed it, and it is on %+v", s)
	}
	w.Change(func(s *procedure.State) { s.Revisions[0].Cycle.First.By = "anna" })
	if r := gate(w); r == nil || r.Reason != procedure.ReasonAuthorIsReviewer {
		t.Errorf("reviewed by the author: %v", r)
	}
}
