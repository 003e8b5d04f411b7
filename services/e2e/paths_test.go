// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/timer"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// manual is a clock in the test's hand. It starts at the machine's time, by which TLS judges certificates.
func manual() *timer.Manual { return timer.NewManual(time.Now().UTC().Truncate(time.Second)) }

// raise is a veto on the current revision.
func raise(s *testenv.Story) *emergencyv1.RaiseVetoRequest {
	return &emergencyv1.RaiseVetoRequest{Binding: s.Binding(), Reason: "it breaks every older client"}
}

// TestVeto: a veto stops every step until its own raiser withdraws it or the assessment team lead overrules it.
func TestVeto(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.Tested)
	s.Do("bert", s.SecondReview(testenv.Veto))
	if in := s.Read(); len(in.GetVetoes()) != 1 || in.GetVetoes()[0].GetRaisedBy() != "bert" {
		t.Fatalf("vetoes: %v", in.GetVetoes())
	}
	refusal := s.Refused("albert", s.Forward(), procedure.ReasonVetoOpen)
	if !slices.ContainsFunc(refusal.Allow, func(a procedure.Allowance) bool {
		return a.Command == "WithdrawVeto" && strings.Contains(a.Description, "bert")
	}) {
		t.Errorf("the refusal does not say that bert can withdraw: %v", refusal.Allow)
	}
	s.Refused("anna", &emergencyv1.WithdrawVetoRequest{Veto: "V1", Reason: "it is mended"}, procedure.ReasonNotVetoOwner)
	s.Do("bert", &emergencyv1.WithdrawVetoRequest{Veto: "V1", Reason: "older clients do work"})
	// A veto is no approval: only a new revision can get another second review.
	s.Refused("albert", s.SecondReview(testenv.Approve), procedure.ReasonReviewExists)
	untouched(t, env, demobook.Host)
}

// TestVetoBeforeApply: a veto between forwarding and apply; overruled, the deployment goes on, as a deviation.
func TestVetoBeforeApply(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.DryRun)
	s.Do("albert", raise(s))
	s.Refused("carla", s.Apply(), procedure.ReasonVetoOpen)
	overrule := &emergencyv1.OverruleVetoRequest{Veto: "V1", Reason: "the older clients were tested by both testers and they work"}
	s.Refused("anna", overrule, procedure.ReasonRole)
	s.Refused("albert", &emergencyv1.OverruleVetoRequest{Veto: "V1", Reason: overrule.GetReason()}, procedure.ReasonSeparationOfDuty)
	s.Do("albert", &emergencyv1.WithdrawVetoRequest{Veto: "V1", Reason: "a misunderstanding"})
	s.Do("bert", raise(s))
	s.Refused("carla", s.Apply(), procedure.ReasonVetoOpen)
	s.Do("albert", &emergencyv1.OverruleVetoRequest{Veto: "V2", Reason: overrule.GetReason()})
	s.Until(testenv.Verified)
	if got := deviations(s.State()); !slices.Contains(got, "VETO_OVERRULED") {
		t.Errorf("deviations: %v", got)
	}
	holds(t, env, demobook.Host, s.Patch.ResultTree)
}

// TestVetoAfterApply: accepted, stops nothing, and is owed an answer before the incident can be closed.
func TestVetoAfterApply(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.Verified)
	s.Do("bert", raise(s))
	s.Until(testenv.Reported)
	if o := debt(t, s.Read(), "POST_APPLY_VETO"); o.GetState() != "OPEN" {
		t.Errorf("POST_APPLY_VETO is %s", o.GetState())
	}
	refusal := s.Refused("carla", s.Close(), procedure.ReasonObligationsOpen)
	if !slices.ContainsFunc(refusal.Allow, func(a procedure.Allowance) bool { return strings.HasPrefix(a.Subject, "POST_APPLY_VETO/") }) {
		t.Errorf("the refusal does not name it: %v", refusal.Allow)
	}
	s.Do("bert", &emergencyv1.WithdrawVetoRequest{Veto: "V1", Reason: "older clients do work"})
	s.Until(testenv.Closed)
	soundHere(t, env)
}

// TestNewRevision: a new revision voids reviews, transfer and tests, says which, and goes the whole way again.
func TestNewRevision(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.Tested)
	old := s.Binding()
	s.Do("bert", s.SecondReview(testenv.Changes))
	s.Refused("bert", s.Forward(), procedure.ReasonSecondReviewMiss)
	var checks []uint64
	for _, c := range s.Read().GetRevisions()[0].GetChecks() {
		checks = append(checks, c.GetPosition())
	}
	s.Patch = env.Repo.Diff(map[string]string{testenv.Program: testenv.Repaired, "README": "A mended system.\n"})
	next := s.Patch.Register()
	next.Supersedes = "P1r1"
	s.Do("dora", next)
	superseded := env.AwaitEvent(s.ID, "review.PatchSuperseded", 0)
	for _, position := range checks {
		if !strings.Contains(superseded.GetPayloadJson(), `"`+itoa(position)+`"`) {
			t.Errorf("position %d is void, and the event does not say so: %s", position, superseded.GetPayloadJson())
		}
	}
	in := s.Read()
	if len(checks) != 6 || len(in.GetRevisions()) != 2 {
		t.Fatalf("%d checks on %d revisions", len(checks), len(in.GetRevisions()))
	}
	for _, c := range in.GetRevisions()[0].GetChecks() {
		if !c.GetVoid() {
			t.Errorf("%s of the old revision still counts", c.GetKind())
		}
	}
	s.Refused("tina", &emergencyv1.ReportTestRequest{Binding: old, Result: testenv.Pass, Steps: "again", BugNote: "note-18"}, procedure.ReasonPatchRevisionStale)
	s.Refused("bert", s.SecondReview(testenv.Approve), procedure.ReasonFirstReviewMissing)
	s.Skip(testenv.Registered).Until(testenv.Verified)
	holds(t, env, demobook.Host, s.Patch.ResultTree)
	holds(t, env, demobook.Test, s.Patch.ResultTree) // the first revision was taken back from there
	soundHere(t, env)
}

// TestTestsWaived: one passing test and a waiver are enough, as a debt that has to be paid.
func TestTestsWaived(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.OnTestServer)
	waive := func() *emergencyv1.WaiveControlRequest {
		return &emergencyv1.WaiveControlRequest{Control: emergencyv1.Control_CONTROL_TEST_QUORUM, Binding: s.Binding(), Reason: "theo cannot be reached"}
	}
	s.Refused("albert", waive(), procedure.ReasonTestMinimum)
	s.Do("tina", s.Test(testenv.Pass))
	refusal := s.Refused("bert", s.SecondReview(testenv.Approve), procedure.ReasonTestQuorum)
	if !slices.ContainsFunc(refusal.Allow, func(a procedure.Allowance) bool {
		return a.Command == "WaiveControl" && strings.Contains(a.Description, "albert")
	}) {
		t.Errorf("the refusal does not say who can waive: %v", refusal.Allow)
	}
	s.Refused("clara", waive(), procedure.ReasonRole)
	s.Do("albert", waive())
	s.Skip(testenv.Tested).Until(testenv.Reported)
	if got := deviations(s.State()); !slices.Contains(got, "TEST_QUORUM_WAIVED") {
		t.Errorf("deviations: %v", got)
	}
	if o := debt(t, s.Read(), "TEST_DEBT"); o.GetState() != "OPEN" {
		t.Errorf("TEST_DEBT is %s", o.GetState())
	}
	s.Refused("carla", s.Close(), procedure.ReasonObligationsOpen)
	missing := s.Test(testenv.Pass)
	s.Refused("theo", missing, procedure.ReasonDeployed) // what is tested now is for the update cycle
	missing.Meta, missing.Phase = nil, emergencyv1.Phase_PHASE_AFTER
	s.Do("bert", &emergencyv1.EnterUpdateCycleRequest{Binding: s.Binding()})
	s.Do("theo", missing)
	if o := debt(t, s.Read(), "TEST_DEBT"); o.GetState() != "DISCHARGED" {
		t.Errorf("after the missing test TEST_DEBT is %s", o.GetState())
	}
	s.Until(testenv.Closed)
}

// TestObserverWaived: without a second critical admin it goes on a quarter of an hour after the call, as a debt: another
// critical admin has to check the host's tree afterwards.
func TestObserverWaived(t *testing.T) {
	t.Parallel()
	clock := manual()
	env := testenv.Start(t, testenv.Options{Clock: clock})
	s := env.Play(testenv.Called)
	for person, step := range map[string]emergencyv1.ResponderStep{
		"carla": emergencyv1.ResponderStep_RESPONDER_STEP_EXECUTE, "anna": emergencyv1.ResponderStep_RESPONDER_STEP_FIRST_REVIEW,
		"bert": emergencyv1.ResponderStep_RESPONDER_STEP_SECOND_REVIEW, "tina": emergencyv1.ResponderStep_RESPONDER_STEP_TEST, "theo": emergencyv1.ResponderStep_RESPONDER_STEP_TEST,
	} {
		s.Do(person, testenv.Accept(step, "phone of "+person))
	}
	s.Skip(testenv.Answered).Until(testenv.Forwarded)
	s.Do("carla", s.DryRun())
	s.Refused("carla", s.Apply(), procedure.ReasonObserverMissing)
	waive := func() *emergencyv1.WaiveControlRequest {
		return &emergencyv1.WaiveControlRequest{Control: emergencyv1.Control_CONTROL_OBSERVER, Binding: s.Binding(), Reason: "carl does not answer"}
	}
	s.Refused("clara", waive(), procedure.ReasonGroundNotProven)
	clock.Advance(16 * time.Minute)
	s.Do("clara", waive())
	s.Skip(testenv.DryRun).Until(testenv.Reported)
	if got := deviations(s.State()); !slices.Contains(got, "NO_OBSERVER") {
		t.Errorf("deviations: %v", got)
	}
	if o := debt(t, s.Read(), "OBSERVER_DEBT"); o.GetState() != "OPEN" {
		t.Errorf("OBSERVER_DEBT is %s", o.GetState())
	}
	s.Refused("carla", s.Close(), procedure.ReasonObligationsOpen)
	after := func() *emergencyv1.ConfirmObserverRequest {
		return s.Observe(emergencyv1.ObserverKind_OBSERVER_KIND_AFTER)
	}
	s.Refused("carla", after(), procedure.ReasonSamePerson)
	testenv.Flip(t, env.Root(demobook.Host)+"/"+testenv.Page)
	s.Refused("carl", after(), procedure.ReasonTreeMismatch)
	testenv.Flip(t, env.Root(demobook.Host)+"/"+testenv.Page)
	s.Do("carl", after())
	s.Until(testenv.Closed)
}

// TestDryRunFails: a host that does not hold the base tree is found before anything is started, and mended it goes on.
func TestDryRunFails(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.Observed)
	page := env.Root(demobook.Host) + "/" + testenv.Page
	testenv.Flip(t, page)
	s.Refused("carla", s.DryRun(), procedure.ReasonHostBaseMismatch)
	s.Refused("carla", s.Apply(), procedure.ReasonDryRunMissing)
	testenv.Flip(t, page)
	s.Until(testenv.Verified)
	holds(t, env, demobook.Host, s.Patch.ResultTree)
}

// TestMerge: a duplicate ends in the earlier incident, and everybody called is told where to answer.
func TestMerge(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	first, second := env.Play(testenv.Answered), env.Play(testenv.Called)
	if st := second.State(); !slices.Contains(st.Declared.Duplicates, first.ID) {
		t.Errorf("the second declaration does not name the first as a possible duplicate: %v", st.Declared.Duplicates)
	}
	first.Refused("carla", &emergencyv1.MergeIntoRequest{Target: second.ID, Reason: "the same hole"}, procedure.ReasonMergeIntoLater)
	second.Do("carla", &emergencyv1.MergeIntoRequest{Target: first.ID, Reason: "the same hole"})
	if in := second.Read(); in.GetStatus() != string(procedure.Merged) || in.GetMergedInto() != first.ID {
		t.Errorf("the duplicate is %s, merged into %q", in.GetStatus(), in.GetMergedInto())
	}
	absorbed := env.AwaitEvent(first.ID, "incident.DuplicateAbsorbed", 0)
	if !strings.Contains(absorbed.GetPayloadJson(), second.ID) {
		t.Errorf("the target does not name the duplicate: %s", absorbed.GetPayloadJson())
	}
	second.Refused("dora", second.Patch.Register(), procedure.ReasonIncidentState)
	for _, person := range []string{"carla", "carl", "anna", "bert", "dora", "tina", "theo"} {
		env.Mail.Expect(t, person, "merged into "+first.ID)
	}
	first.Until(testenv.Verified)
	soundHere(t, env)
}

// TestStandDown: nothing was changed, everybody called is told, and what is owed stays owed.
func TestStandDown(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.Registered)
	s.Do("anna", &emergencyv1.StandDownRequest{Reason: "the program is not reachable from outside"})
	for _, person := range []string{"carla", "carl", "anna", "bert", "dora", "tina", "theo"} {
		env.Mail.Expect(t, person, "stood down")
	}
	s.Refused("anna", s.FirstReview(testenv.Approve), procedure.ReasonIncidentState)
	s.Refused("carla", s.Close(), procedure.ReasonObligationsOpen)
	s.Do("clara", s.Decide())
	s.Do("bea", s.Report())
	s.Do("carla", &emergencyv1.CloseRequest{Outcome: emergencyv1.Outcome_OUTCOME_NOT_NEEDED, Summary: "not reachable from outside"})
	untouched(t, env, demobook.Host)
	soundHere(t, env)

	applied := env.Play(testenv.Started)
	applied.Refused("anna", &emergencyv1.StandDownRequest{Reason: "we have changed our minds about it"}, procedure.ReasonHasProductionEffect)
}

// TestDrill: the same rules on the drill's host, with an id and a log of their own, and nothing real is touched.
func TestDrill(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	release := env.Repo.Ref(demobook.Release)
	s := env.Story()
	s.Drill = true
	s.Until(testenv.Healthy)
	if !strings.HasPrefix(s.ID, "x") {
		t.Errorf("a drill has the id %s", s.ID)
	}
	holds(t, env, demobook.DrillHost, s.Patch.ResultTree)
	untouched(t, env, demobook.Host)
	s.Refused("carla", &emergencyv1.DryRunRequest{Binding: s.Binding(), Host: demobook.Host}, procedure.ReasonDrillBoundary)
	s.Until(testenv.Documented)
	if got := "sha1:" + env.Repo.Ref("refs/heads/emergency/"+s.ID+"/release^{tree}"); got != s.Patch.ResultTree {
		t.Errorf("the drill's own release branch holds %s", got)
	}
	s.Do("carla", s.Close()) // what a drill owes never blocks its end
	if got := env.Repo.Ref(demobook.Release); got != release {
		t.Errorf("a drill moved the release branch from %s to %s", release, got)
	}
	q := env.As("carla").Query()
	for drills, want := range map[bool]bool{true: true, false: false} {
		res, err := q.ReadLog(t.Context(), &dashboardv1.ReadLogRequest{Drills: drills})
		must(t, err)
		if got := len(res.GetEntries()) > 0; got != want {
			t.Errorf("log with drills %t has %d entries", drills, len(res.GetEntries()))
		}
	}
}
