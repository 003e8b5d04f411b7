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

const (
	exploited = emergencyv1.UnfitCode_UNFIT_CODE_EXPLOIT_ACTIVE
	noTime    = emergencyv1.UnfitCode_UNFIT_CODE_TIME
)

// paged lets so many rounds pass after the call-out, each after so long.
func paged(rounds int, each time.Duration) pt.Step {
	return func(w *pt.World) {
		for range rounds {
			w.Wait(each)
			w.Tick(procedure.OwnerNotification)
		}
	}
}

// escalated is the last strategy change's event.
func escalated(t *testing.T, w *pt.World) *emergencyv1.StrategyEscalated {
	t.Helper()
	list := w.Records[len(w.Records)-1].GetEvents()
	m, err := procedure.DecodeEvent(list[len(list)-1])
	if err != nil {
		t.Fatal(err)
	}
	e, ok := m.(*emergencyv1.StrategyEscalated)
	if !ok {
		t.Fatalf("the last event is %T", m)
	}
	return e
}

// TestGrounds: each ground of 4.1.1 is proven from the history, and refused with the part that is missing.
func TestGrounds(t *testing.T) {
	t.Parallel()
	declared, called := pt.Story(pt.Declared), pt.Story(pt.Called)
	long := with(pt.Unfit(exploited), func(c *emergencyv1.EscalateRequest) { c.Reason = "short, but not too short" })
	gap := func(team emergencyv1.Team) *emergencyv1.EscalateRequest {
		return &emergencyv1.EscalateRequest{Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_COVERAGE_GAP, Team: team, Reason: pt.Because}
	}
	// after six rounds, eleven minutes each, an hour and six minutes have passed
	often := history(called, paged(6, 11*time.Minute))
	noTesters := book(rota(testing_))
	failed := func(position string) func(*procedure.State) procedure.Command {
		return func(s *procedure.State) procedure.Command { return pt.StepFailed(failedAt(s, position)) }
	}
	odd := pt.Does(agent, pt.ReportTree(pt.Tree("odd")))
	run(t, []row{
		{name: "no ground", given: history(declared), when: &emergencyv1.EscalateRequest{Reason: pt.Because}, by: "carla", refused: procedure.ReasonGroundMissing},
		{name: "no team", given: often, when: pt.Unreachable(0), by: "carla", refused: procedure.ReasonGroundMissing},
		{name: "a gap of no team", given: often, when: gap(0), by: "carla", refused: procedure.ReasonGroundMissing},
		{name: "no failed step", given: often, when: pt.StepFailed(0), by: "carla", refused: procedure.ReasonGroundMissing},
		{name: "no code", given: often, when: pt.Unfit(0), by: "carla", refused: procedure.ReasonGroundMissing},

		{name: "a team that was never called", given: history(declared, pt.Waits(5*time.Hour)), when: pt.Unreachable(testing_), by: "carla", refused: procedure.ReasonGroundNotProven},
		{name: "called once, long ago", given: history(called, pt.Waits(5*time.Hour)), when: pt.Unreachable(testing_), by: "carla", refused: procedure.ReasonGroundNotProven},
		{name: "called often, not long enough", given: history(called, paged(5, 11*time.Minute)), when: pt.Unreachable(testing_), by: "carla", refused: procedure.ReasonGroundNotProven},
		{name: "called often and long enough", given: often, when: pt.Unreachable(testing_), by: "carla", then: events("StrategyEscalated")},
		{name: "by an assessor", given: often, when: pt.Unreachable(assessment), by: "anna", then: events("StrategyEscalated")},
		{name: "by a tester", given: often, when: pt.Unreachable(testing_), by: "theo", refused: procedure.ReasonRole},
		{name: "the team has come", given: history(called, pt.Does("theo", pt.Accept("testing/1")), pt.Does("tina", pt.Accept("testing/2")), paged(3, 11*time.Minute), pt.Waits(20*time.Minute)), when: pt.Unreachable(testing_), by: "carla", refused: procedure.ReasonGroundNotProven},
		{name: "one of two has come", given: history(called, pt.Does("theo", pt.Accept("testing/1")), paged(6, 11*time.Minute)), when: pt.Unreachable(testing_), by: "carla", then: events("StrategyEscalated")},
		{name: "all declined", given: append(slices.Clone(often), pt.Does("theo", pt.Decline(0)), pt.Does("tina", pt.Decline(0))), when: pt.Unreachable(testing_), by: "carla", then: events("StrategyEscalated")},
		{name: "lost and not paged since", given: history(called, paged(6, 11*time.Minute), pt.Does("theo", pt.Accept("testing/1")), pt.Does("tina", pt.Accept("testing/2")), pt.Waits(time.Minute), released("theo", "testing/1")), when: pt.Unreachable(testing_), by: "carla", refused: procedure.ReasonGroundNotProven},

		{name: "no gap", given: often, when: gap(testing_), by: "carla", refused: procedure.ReasonGroundNotProven},
		{name: "a gap", given: history(declared, noTesters, pt.Does("carla", &emergencyv1.CallOutRequest{})), when: gap(testing_), by: "carla", then: events("StrategyEscalated")},
		{name: "another team's gap", given: history(declared, noTesters, pt.Does("carla", &emergencyv1.CallOutRequest{})), when: gap(assessment), by: "carla", refused: procedure.ReasonGroundNotProven},
		{name: "a gap that was filled", given: history(declared, noTesters, pt.Does("carla", &emergencyv1.CallOutRequest{}), pt.Does("theo", pt.Accept("testing/1"))), when: gap(testing_), by: "carla", refused: procedure.ReasonGroundNotProven},
		{name: "a gap of a team that was there before", given: history(declared, pt.Does("theo", pt.Accept("testing/1")), pt.Does("tina", pt.Accept("testing/2")), noTesters, pt.Does("carla", &emergencyv1.CallOutRequest{})), when: gap(testing_), by: "carla", refused: procedure.ReasonGroundNotProven},

		{name: "a failed test", given: history(pt.Story(pt.OnTestServer), pt.Does("theo", pt.Test(fail))), as: failed("test"), by: "carla", then: events("StrategyEscalated")},
		{name: "a failed test that passed later", given: history(pt.Story(pt.OnTestServer), pt.Does("theo", pt.Test(fail)), pt.Does("theo", pt.Test(pass))), as: failed("test"), by: "carla", then: events("StrategyEscalated")},
		{name: "a veto", given: history(pt.Story(pt.Registered), pt.Does("bert", pt.Veto())), as: failed("veto"), by: "carla", then: events("StrategyEscalated")},
		{name: "a failed apply", given: history(pt.Story(pt.Applying), pt.Does(agent, pt.ReportApply(false))), as: failed("apply"), by: "carla", then: events("StrategyEscalated")},
		{name: "a deployment that differs", given: history(pt.Story(pt.Applied), odd), as: failed("mismatch"), by: "carla", then: events("StrategyEscalated")},
		{name: "a passed test", given: history(pt.Story(pt.Tested)), as: func(s *procedure.State) procedure.Command { return pt.StepFailed(s.Current().Tests[0].Position) }, by: "carla", refused: procedure.ReasonGroundNotProven},
		{name: "a position that is none", given: often, when: pt.StepFailed(9999), by: "carla", refused: procedure.ReasonGroundNotProven},

		{name: "unfit", given: history(declared), when: pt.Exploited(), by: "carla", then: events("StrategyEscalated")},
		{name: "unfit, in few words", given: history(declared), when: long, by: "carla", refused: procedure.ReasonGroundNotProven},
		{name: "unfit for time, a quarter left", given: history(declared, until(18*time.Hour)), when: pt.Unfit(noTime), by: "carla", refused: procedure.ReasonGroundNotProven},
		{name: "unfit for time, less than a quarter left", given: history(declared, until(18*time.Hour+time.Second)), when: pt.Unfit(noTime), by: "carla", then: events("StrategyEscalated")},
		{name: "unfit for time, none left", given: history(declared, until(25*time.Hour)), when: pt.Unfit(noTime), by: "carla", then: events("StrategyEscalated")},
		{name: "no reason", given: history(declared), when: with(pt.Exploited(), func(c *emergencyv1.EscalateRequest) { c.Reason = "" }), by: "carla", refused: procedure.ReasonField},
		{name: "unsigned", given: history(declared, func(w *pt.World) { w.Unsigned = true }), when: pt.Exploited(), by: "carla", refused: procedure.ReasonSignature},
		{name: "twice", given: history(declared, pt.Does("carla", pt.Exploited())), when: pt.Exploited(), by: "carla", refused: procedure.ReasonStrategy},
	})
}

// until lets the time pass until so long after the declaration.
func until(after time.Duration) pt.Step {
	return func(w *pt.World) { w.Now = w.State.Declared.At.Add(after) }
}

func released(who, slot string) pt.Step {
	return pt.Does(who, &emergencyv1.EndStandbyRequest{Slot: slot, Reason: emergencyv1.StandbyEndReason_STANDBY_END_REASON_RELEASED})
}

// failedAt is where the last failure of a kind stands.
func failedAt(s *procedure.State, kind string) uint64 {
	var found uint64
	for _, f := range s.Failures {
		if f.Result == kind {
			found = f.Position
		}
	}
	return found
}

// What proves the ground is in the event, whatever the actor said: the team's pages and who declined.
func TestEscalationEvidence(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Called), paged(6, 11*time.Minute), pt.Does("theo", pt.Decline(0))).When(pt.Unreachable(testing_)).By("carla").Then("StrategyEscalated")
	e := escalated(t, w)
	want := []uint64{}
	for _, r := range w.State.Rounds {
		want = append(want, r.Position)
	}
	want = append(want, w.State.Declined[0].Position)
	if !slices.Equal(e.GetEvidence(), want) {
		t.Errorf("evidence %v, want %v", e.GetEvidence(), want)
	}
	if got := e.GetSkippedControls(); !slices.Equal(got, []string{"first_review", "transfer", "tests", "second_review"}) {
		t.Errorf("skipped %v", got)
	}
	// what was done is not skipped
	w = given(t, pt.Story(pt.Transferred)).When(pt.Exploited()).By("carla").Then("StrategyEscalated")
	if got := escalated(t, w).GetSkippedControls(); !slices.Equal(got, []string{"tests", "second_review"}) {
		t.Errorf("skipped %v", got)
	}
	if got := w.Sealed[escalated(t, w).GetReason().GetCommitment()]; got != pt.Because {
		t.Errorf("the reason is %q", got)
	}
}

// Whoever owes something overdue, here or elsewhere, is asked why; nothing is blocked once that is said.
func TestDebtReason(t *testing.T) {
	t.Parallel()
	elsewhere := []pt.Option{pt.Facts(procedure.Facts{Overdue: []string{"DOCUMENT/S2 in e20260101.1"}})}
	but := with(pt.Exploited(), func(c *emergencyv1.EscalateRequest) { c.DebtReason = "the report waits for the vendor" })
	health := history(pt.Story(pt.Verified), pt.Waits(time.Hour)) // carla owes it
	run(t, []row{
		{name: "in another incident", given: history(pt.Story(pt.Declared)), when: pt.Exploited(), by: "carla", with: elsewhere, refused: procedure.ReasonDebtReason},
		{name: "and a reason", given: history(pt.Story(pt.Declared)), when: but, by: "carla", with: elsewhere, then: events("StrategyEscalated")},
		{name: "here", given: health, when: pt.Exploited(), by: "carla", refused: procedure.ReasonDebtReason},
		{name: "here, and a reason", given: health, when: but, by: "carla", then: events("StrategyEscalated")},
		{name: "another person's", given: health, when: pt.Exploited(), by: "carl", then: events("StrategyEscalated")},
		{name: "a team lead's", given: history(pt.Story(pt.Declared), until(25*time.Hour)), when: pt.Exploited(), by: "clara", refused: procedure.ReasonDebtReason},
		{name: "in time", given: history(pt.Story(pt.Declared)), when: pt.Exploited(), by: "clara", then: events("StrategyEscalated")},
	})
}

// TestJoint: two halves, two persons, one of each role, within the window (X12).
func TestJoint(t *testing.T) {
	t.Parallel()
	declared := pt.Story(pt.Declared)
	half := history(declared, pt.Does("carla", pt.Joint()))
	short := func(change func(*emergencyv1.SignJointDeclarationRequest)) procedure.Command {
		return with(pt.Joint(), change)
	}
	lapsed := func(t *testing.T, w *pt.World) {
		t.Helper()
		if len(w.State.Joint) != 1 || w.State.Strategy != 1 || w.State.Joint[0].Position != w.State.Position {
			t.Errorf("%+v, strategy %d", w.State.Joint, w.State.Strategy)
		}
	}
	run(t, []row{
		{name: "first half", given: history(declared), when: pt.Joint(), by: "carla", then: events("JointDeclarationSigned"), check: lapsed},
		{name: "second half", given: half, when: pt.Joint(), by: "anna", then: events("JointDeclarationSigned", "StrategyEscalated")},
		{name: "the assessor first", given: history(declared, pt.Does("anna", pt.Joint())), when: pt.Joint(), by: "carla", then: events("JointDeclarationSigned", "StrategyEscalated")},
		{name: "by a lead", given: half, when: pt.Joint(), by: "albert", then: events("JointDeclarationSigned", "StrategyEscalated")},
		{name: "exactly at the end of the window", given: append(slices.Clone(half), pt.Waits(30*time.Minute)), when: pt.Joint(), by: "anna", then: events("JointDeclarationSigned", "StrategyEscalated")},
		{name: "after the window it is a first half again", given: append(slices.Clone(half), pt.Waits(30*time.Minute+time.Second)), when: pt.Joint(), by: "anna", then: events("JointDeclarationSigned"), check: lapsed},
		{name: "even by the same person", given: append(slices.Clone(half), pt.Waits(31*time.Minute)), when: pt.Joint(), by: "carla", then: events("JointDeclarationSigned"), check: lapsed},
		{name: "single-handed", given: half, when: pt.Joint(), by: "carla", refused: procedure.ReasonSamePerson},
		{name: "single-handed with another key", given: half, when: pt.Joint(), by: "carla2", refused: procedure.ReasonSamePerson},
		{name: "two critical admins", given: half, when: pt.Joint(), by: "carl", refused: procedure.ReasonJointRoles},
		{name: "an admin and the admins' lead", given: half, when: pt.Joint(), by: "clara", refused: procedure.ReasonJointRoles},
		{name: "two assessors", given: history(declared, pt.Does("anna", pt.Joint())), when: pt.Joint(), by: "bert", refused: procedure.ReasonJointRoles},
		{name: "an admin who is an assessor too", given: half, when: pt.Joint(), by: "xaver", refused: procedure.ReasonRoleExclusivity},
		{name: "by a developer", given: half, when: pt.Joint(), by: "dora", refused: procedure.ReasonRole},
		{name: "few words on strategy 1", given: half, when: short(func(c *emergencyv1.SignJointDeclarationRequest) { c.WhyNot_1 = "no" }), by: "anna", refused: procedure.ReasonGroundMissing},
		{name: "few words on strategy 2", given: half, when: short(func(c *emergencyv1.SignJointDeclarationRequest) { c.WhyNot_2 = "no" }), by: "anna", refused: procedure.ReasonGroundMissing},
		{name: "few words on the live system", given: half, when: short(func(c *emergencyv1.SignJointDeclarationRequest) { c.WhyLive = "" }), by: "anna", refused: procedure.ReasonGroundMissing},
		{name: "from strategy 2", given: history(declared, pt.Does("anna", pt.Exploited()), pt.Does("carla", pt.Joint())), when: pt.Joint(), by: "anna", then: events("JointDeclarationSigned", "StrategyEscalated")},
		{name: "a half from before strategy 2", given: append(slices.Clone(half), pt.Does("anna", pt.Exploited())), when: pt.Joint(), by: "anna", then: events("JointDeclarationSigned", "StrategyEscalated")},
		{name: "in strategy 3", given: append(slices.Clone(half), pt.Does("anna", pt.Joint())), when: pt.Joint(), by: "bert", refused: procedure.ReasonStrategy},
		{name: "no way from 3 to 2 by escalation", given: append(slices.Clone(half), pt.Does("anna", pt.Joint())), when: pt.Exploited(), by: "bert", refused: procedure.ReasonStrategy},
	})
	w := given(t, append(slices.Clone(half), pt.Does("anna", pt.Joint()))...).World()
	e := escalated(t, w)
	if w.State.Strategy != 3 || !slices.Equal(e.GetSignatures(), []uint64{2, 3}) || len(w.State.Joint) != 0 {
		t.Errorf("strategy %d by %v, waiting %v", w.State.Strategy, e.GetSignatures(), w.State.Joint)
	}
	if sl, ok := w.State.Slot("assessment/1"); !ok || sl.State != procedure.SlotEnded || sl.Person != "anna" {
		t.Errorf("the declarer's slot is %+v", sl)
	}
	if sl, ok := w.State.Slot("critical/1"); !ok || sl.State != procedure.SlotOpen || sl.Step != emergencyv1.ResponderStep_RESPONDER_STEP_WATCH {
		t.Errorf("the watcher's slot is %+v", sl)
	}
}

func TestDeEscalate(t *testing.T) {
	t.Parallel()
	in2 := history(pt.Story(pt.Declared), pt.Does("anna", pt.Exploited()))
	in3 := history(pt.Story(pt.Declared), pt.Does("anna", pt.Joint()), pt.Does("carla", pt.Joint()))
	run(t, []row{
		{name: "from 2 to 1", given: in2, when: pt.GoBack(1), by: "carla", then: events("StrategyDeEscalated")},
		{name: "from 3 to 2", given: in3, when: pt.GoBack(2), by: "carla", then: events("StrategyDeEscalated")},
		{name: "from 3 to 1", given: in3, when: pt.GoBack(1), by: "anna", then: events("StrategyDeEscalated")},
		{name: "to the same", given: in2, when: pt.GoBack(2), by: "carla", refused: procedure.ReasonStrategy},
		{name: "upwards", given: in2, when: pt.GoBack(3), by: "carla", refused: procedure.ReasonStrategy},
		{name: "from 1", given: history(pt.Story(pt.Declared)), when: pt.GoBack(1), by: "carla", refused: procedure.ReasonStrategy},
		{name: "to none", given: in2, when: pt.GoBack(0), by: "carla", refused: procedure.ReasonField},
		{name: "no reason", given: in2, when: &emergencyv1.DeEscalateRequest{To: 1, Reason: "because"}, by: "carla", refused: procedure.ReasonField},
		{name: "while an apply runs", given: history(pt.Story(pt.Applying2)), when: pt.GoBack(1), by: "carla", refused: procedure.ReasonApplyRunning},
		{name: "by a tester", given: in2, when: pt.GoBack(1), by: "theo", refused: procedure.ReasonRole},
		{name: "and up again", given: append(slices.Clone(in2), pt.Does("carla", pt.GoBack(1))), when: pt.Exploited(), by: "carla", then: events("StrategyEscalated")},
	})
}

// Slots follow the strategy (3.1): who is not needed any more is free, who is stays, for the step that is there to do.
func TestSlotsFollowTheStrategy(t *testing.T) {
	t.Parallel()
	slots := func(s *procedure.State) string {
		text := ""
		for _, sl := range s.Slots {
			text += sl.ID + " " + string(sl.State) + " " + sl.Person + " " + procedure.StepWord(sl.Step) + "\n"
		}
		return text
	}
	w := given(t, pt.Story(pt.OnStandby), pt.Does("anna", pt.Exploited())).World()
	if got, want := slots(w.State), "critical/1 STANDBY carla deploy\ncritical/2 STANDBY carl observe the deployment\nassessment/1 STANDBY anna prepare the patch\n"; got != want {
		t.Errorf("under strategy 2\n%s", got)
	}
	w.Do("anna", pt.Register(1))
	w.Do("anna", pt.HandOverTo("carla"))
	if sl, _ := w.State.Slot("assessment/1"); sl.State != procedure.SlotEnded || sl.Person != "anna" {
		t.Errorf("handed over, and the preparer's slot is %+v", sl)
	}
	w.Do("carla", pt.GoBack(1))
	want := "critical/1 STANDBY carla deploy\ncritical/2 STANDBY carl observe the deployment\nassessment/1 OPEN  review first\nassessment/2 OPEN  review second\ndevelopment/1 ENDED anna prepare the patch\ntesting/1 OPEN  test\ntesting/2 OPEN  test\n"
	if got := slots(w.State); got != want {
		t.Errorf("back under strategy 1\n%s", got)
	}
	w = given(t, pt.Story(pt.Called), pt.Does("anna", pt.Exploited())).World()
	if got, want := slots(w.State), "critical/1 OPEN  deploy\ncritical/2 OPEN  observe the deployment\nassessment/1 OPEN  prepare the patch\n"; got != want {
		t.Errorf("before anybody came\n%s", got)
	}
	if sl, _ := w.State.Slot("critical/1"); !sl.OpenSince.Equal(w.State.Declared.At) {
		t.Errorf("open since %s", sl.OpenSince)
	}
	given(t, pt.Story(pt.Called), pt.Does("anna", pt.Exploited())).When(pt.Accept("testing/1")).By("theo").ThenRefused(procedure.ReasonSlot)
}

// The deadlines of strategy 1 lapse when the incident leaves it, and what was late by then stays late (3.2).
func TestDeadlinesLapse(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Called), until(3*time.Hour), pt.Does("anna", pt.Exploited()), until(30*time.Hour)).World()
	want := map[string]procedure.DeadlineState{
		"s1.callout": procedure.DeadlineMet, "s1.slots": procedure.DeadlineBreached, "s1.patch": procedure.DeadlineLapsed, "s1.review1": procedure.DeadlineLapsed,
		"s1.document": procedure.DeadlineLapsed, "overall": procedure.DeadlineBreached,
	}
	for _, d := range procedure.Deadlines(w.State) {
		if s, ok := want[d.Key]; ok && d.State(w.State, w.Now) != s {
			t.Errorf("%s is %s, want %s", d.Key, d.State(w.State, w.Now), s)
		}
	}
	for range 3 {
		w.Tick(procedure.OwnerIncident)
	}
	if got := w.State.Breached; !slices.Equal(got, []string{"s1.slots", "overall"}) {
		t.Errorf("breached %v", got)
	}
	w = given(t, pt.Story(pt.Verified2)).World() // no documentation is asked for in time
	if at := procedure.OverallMetAt(w.State); at.IsZero() || !at.Equal(w.State.Applies[0].Verified.At) {
		t.Errorf("overall met at %s", at)
	}
	met := procedure.OverallMetAt(w.State)
	w.Do("carla", pt.GoBack(1)) // what was done in time stays so
	if at := procedure.OverallMetAt(w.State); !at.Equal(met) {
		t.Errorf("back under strategy 1 overall is met at %s", at)
	}
	w.Do("anna", pt.Register(2)) // what is done under another strategy meets no deadline of the first
	for _, d := range procedure.Deadlines(w.State) {
		if d.Key == "s1.patch" && d.State(w.State, w.Now) != procedure.DeadlineLapsed {
			t.Errorf("%s is %s", d.Key, d.State(w.State, w.Now))
		}
	}
}
