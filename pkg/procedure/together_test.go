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

// Where clauses meet that are each tested by themselves.

// A step back from 3 to a strategy 2 that was never followed before is its beginning: it owes what strategy 2 owes (chapter 1, 7).
func TestStrategy2ByStepBack(t *testing.T) {
	t.Parallel()
	joint := history(pt.Story(pt.Joined), pt.Does("carla", pt.GoBack(2)))
	w := given(t, joint...).World()
	got := owed(t, w)
	for _, want := range []string{"DOCUMENT/S2<StrategyDeEscalated", "DISPUTE/S2<StrategyDeEscalated", "DOCUMENT/S3<StrategyEscalated", "DISPUTE/S3<StrategyEscalated"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not owed: %v", want, got)
		}
	}
	pt.From(pt.Escalated, pt.Verified2)(w)
	if o, _ := debt(w.State, "DOCUMENT/S2"); o.Owner != "carla" || !o.Due.Equal(w.State.Applies[0].StartedAt.Add(24*time.Hour)) {
		t.Errorf("after the apply: %+v", o)
	}
	pt.GivenWorld(t, w).Counting(seen).When(pt.FileDispute(aboutS2)).By("carla").Then("DisputeFiled")
	if o, _ := debt(w.State, "DISPUTE/S2"); o.Open() {
		t.Errorf("filed: %+v", o)
	}
	// What a step back returns to has its obligations already.
	w = given(t, pt.Story(pt.Escalated), pt.Does("carla", pt.Joint()), pt.Does("bert", pt.Joint()), pt.Does("carla", pt.GoBack(2))).World()
	if n := len(slices.DeleteFunc(procedure.Debts(w.State), func(o procedure.Obligation) bool { return o.Kind != "DOCUMENT/S2" })); n != 1 {
		t.Errorf("strategy 2 is to be documented %d times", n)
	}
}

// Who reads the recording, as the matrix lets arbitrators, has not acted (X14).
func TestReadingIsNoAct(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Sealed), pt.Dispute(aboutS3, pt.Begun)).World()
	w.Do("arno", &emergencyv1.PlayRecordingRequest{Grant: "G1"})
	pt.GivenWorld(t, w).Counting(seen).WhenAs(func(s *procedure.State) procedure.Command { return pt.DeliverRuling(s, the(s, 1)) }).By("arno").Then("RulingDelivered", "DirectionIssued")
}

// Who observed a roll-back acted (X14, DRP 1.3).
func TestObserverOfARollBackActed(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Verified2), pt.Does("carla", pt.RollBack("carl")), pt.Does(agent, pt.ReportTree(pt.BaseTree()))).World()
	if !slices.Contains(procedure.ActedBeyond(w.State), "carl") {
		t.Errorf("acted: %v", procedure.ActedBeyond(w.State))
	}
}

// A review that nobody took goes on as a review alone, whose ruling is owed from the first request on.
func TestReviewGoesOnAsReview(t *testing.T) {
	t.Parallel()
	declined := history(pt.Story(pt.Verified), pt.Dispute(aboutS1, pt.ReviewAsked), doesAs("casper", openCase(2, "a20261126.1")), func(w *pt.World) {
		for _, who := range []string{"achim", "adele", "agnes", "alois"} {
			doesAs("casper", propose(2, who))(w)
			doesAs(who, answerTo(2, false, false))(w)
		}
	}, doesAs("casper", closeDeclined(2)))
	w := given(t, declined...).World()
	refiled := pt.FileDispute(aboutOther)
	refiled.Refiles = the(w.State, 2)
	no := pt.GivenWorld(t, w).Counting(seen).When(refiled).By("carl").ThenRefused(procedure.ReasonDisputeState)
	if len(no.Allow) == 0 || no.Allow[len(no.Allow)-1].Command != "RequestReview" {
		t.Errorf("what to do: %v", no.Allow)
	}
	w.Do("anna", pt.RequestReview("R1"))
	old, next := w.State.Disputes[1], w.State.Disputes[2]
	if old.RefiledBy != next.ID || next.Refiles != old.ID || !next.Review() {
		t.Errorf("%+v\n%+v", old, next)
	}
	var owed []procedure.Obligation
	for _, o := range procedure.Debts(w.State) {
		if o.Kind == "RULING" && o.Open() {
			owed = append(owed, o)
		}
	}
	if len(owed) != 1 || owed[0].Cause != old.Filed.Position {
		t.Errorf("rulings owed: %+v", owed)
	}
}

// After "changes" only a new revision goes on, under every strategy (4.3).
func TestSentBackUnderStrategy2(t *testing.T) {
	t.Parallel()
	sent := history(pt.Story(pt.Tested), pt.Does("bert", pt.SecondReview(changes)), pt.Does("anna", pt.Exploited()))
	first := history(pt.Story(pt.Prepared), pt.Does("bert", pt.FirstReview(changes)))
	run(t, []row{
		{name: "by the second reviewer", given: sent, when: pt.HandOverTo("carla"), by: "anna", refused: procedure.ReasonSecondReviewMiss},
		{name: "by the first reviewer", given: first, when: pt.HandOverTo("carla"), by: "anna", refused: procedure.ReasonFirstReviewMissing},
		{name: "after it was handed over", given: history(pt.Story(pt.DryRun2), pt.Does("bert", pt.FirstReview(changes))), when: pt.Alone(), by: "carla", refused: procedure.ReasonFirstReviewMissing},
		{name: "a new revision goes on", given: history(append(slices.Clone(first), pt.Does("anna", pt.Replace("P1r1", 2)))...), when: pt.HandOverTo("carla"), by: "anna", then: events("PatchForwarded")},
	})
}

// A session that ended after a deployment that differed is an outcome; one from before it is none (4.1).
func TestRepairedInASession(t *testing.T) {
	t.Parallel()
	odd := history(pt.Story(pt.Applying), pt.Does(agent, pt.ReportTree(pt.Tree("odd"))))
	joint := history(pt.Does("carla", pt.Joint()), pt.Does("anna", pt.Joint()))
	run(t, []row{
		{name: "after it", given: slices.Concat(odd, joint, history(pt.From(pt.Joined, pt.Sealed))), when: pt.Close(), by: "carla", refused: procedure.ReasonObligationsOpen},
		{name: "not without it", given: slices.Concat(odd, joint), when: pt.Close(), by: "carla", refused: procedure.ReasonNoOutcome},
	})
}

// The latest attempt counts, whatever an earlier one came to (4.1).
func TestLatestAttemptCounts(t *testing.T) {
	t.Parallel()
	again := history(pt.Story(pt.Verified2), pt.Does("carla", pt.RollBack("carl")), pt.Does(agent, pt.ReportTree(pt.BaseTree())),
		pt.Does("anna", pt.Replace("P1r1", 2)), pt.Does("anna", pt.HandOverTo("carla")), pt.Does("carla", &emergencyv1.DryRunRequest{}), pt.Does("carla", pt.Alone()))
	run(t, []row{
		{name: "it differs", given: append(slices.Clone(again), pt.Does(agent, pt.ReportTree(pt.Tree("odd")))), when: pt.Close(), by: "carla", refused: procedure.ReasonNoOutcome},
		{name: "it ended well", given: append(slices.Clone(again), pt.Does(agent, pt.ReportTree(pt.ResultTree(2)))), when: pt.Close(), by: "carla", refused: procedure.ReasonObligationsOpen},
	})
}

// Of what came of a second escalation another report is owed, from when something was done; it is in time by that (7).
func TestSecondEscalationIsDocumented(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Verified2)).World()
	w.Do("carla", pt.DocumentOf(w.State, 2))
	w.Wait(4 * 24 * time.Hour)
	w.Do("carla", pt.GoBack(1))
	w.Do("anna", pt.Exploited())
	w.Do("carla", pt.DocumentOf(w.State, 2)) // again, about the first
	open := func() (list []procedure.Obligation) {
		for _, o := range procedure.Debts(w.State) {
			if o.Kind == "DOCUMENT/S2" && o.Open() {
				list = append(list, o)
			}
		}
		return list
	}
	if len(open()) != 1 {
		t.Fatalf("documented before anything was done: %+v", procedure.Debts(w.State))
	}
	w.Do("anna", pt.Replace("P1r1", 2))
	w.Do("anna", pt.HandOverTo("carla"))
	w.Do("carla", &emergencyv1.DryRunRequest{})
	w.Do("carla", pt.Alone())
	w.Do(agent, pt.ReportTree(pt.ResultTree(2)))
	w.Wait(time.Hour)
	out := w.Do("carla", pt.DocumentOf(w.State, 2))
	if len(open()) > 0 {
		t.Errorf("still owed: %+v", open())
	}
	for _, e := range out.Decision.Events {
		m, err := procedure.DecodeEvent(e)
		if err != nil {
			t.Fatal(err)
		}
		if x, ok := m.(*emergencyv1.ProcedureDocumented); ok && x.GetLate() {
			t.Error("a report an hour after the apply is called late")
		}
	}
}

// A later patch breaches no deadline that the deployed one has met (0.6, 3.2).
func TestMetDeadlinesStayMet(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Documented)).World()
	later := w.Now.Add(48 * time.Hour)
	check := func(when string) {
		t.Helper()
		for _, dl := range procedure.Deadlines(w.State) {
			if st := dl.State(w.State, later); st != procedure.DeadlineMet {
				t.Errorf("%s: %s is %s", when, dl.Key, st)
			}
		}
	}
	check("deployed")
	w.Do("dora", pt.Register(2))
	check("after another patch was registered")
}

// A referral is met by the filing about what was done when the lead referred (SP 3.2.3.1).
func TestReferredUnderStrategy2(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Verified2), pt.Does("clara", pt.Lead(true)), pt.Does("carla", pt.FileDispute(aboutS2))).World()
	if o, ok := debt(w.State, "DISPUTE/REFERRED"); !ok || o.Open() {
		t.Errorf("%+v", o)
	}
}

// To end what nobody can use takes no proof back (4.4).
func TestTerminateTakesNoProofBack(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Armed), expired, pt.Does("carla", &emergencyv1.DisableRequest{Grant: "G1"}), pt.Does("carla", &emergencyv1.ProveUnusableRequest{Grant: "G1"})).World()
	w.Do("emil", &emergencyv1.TerminateRequest{Grant: "G1"})
	if g := w.State.Grants[0]; g.State != procedure.GrantProvenUnusable || w.State.OpenGrant() != nil {
		t.Errorf("%s, open %v", g.State, w.State.OpenGrant())
	}
}

// Nobody sits on the panel who managed the case or its review (4.5).
func TestCaseManagerIsNotOfThePanel(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Verified), pt.Dispute(aboutS1, pt.Reopened)).World()
	c := pt.GivenWorld(t, w).Counting(seen).WhenAs(func(s *procedure.State) procedure.Command {
		return &emergencyv1.FormAppealPanelRequest{Dispute: the(s, 2), Members: []string{"achim", "adele", "casper"}, Senior: "casper"}
	})
	c.By("doris").ThenRefused(procedure.ReasonPanel)
}

// An observer is waived where no observer's slot could be filled; the executor's says nothing about that (10.5).
func TestObserverStandsBy(t *testing.T) {
	t.Parallel()
	run(t, []row{
		{name: "no waiver while one stands by", given: history(pt.Story(pt.Called), pt.Does("carl", pt.Accept("critical/2")), pt.Waits(16*time.Minute), pt.From(pt.OnStandby, pt.Registered)), when: pt.Waive(observer), by: "clara", refused: procedure.ReasonGroundNotProven},
	})
}
