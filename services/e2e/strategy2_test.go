// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

const because = "the page hands out the configuration to anybody, and no tester has answered for an hour"

// TestStrategy2 is the whole emergency by strategy 2, as far as the rules go without an arbitrator: the testers do not come, which
// real pages and the clock prove; an assessor prepares, tests locally and hands over; the executor deploys through the agent
// without an observer; and everything that was skipped is made up for in the regular update cycle.
func TestStrategy2(t *testing.T) {
	t.Parallel()
	clock := manual()
	env := testenv.Start(t, testenv.Options{Clock: clock})
	s := env.Play(testenv.Called)
	accept(s, "carla", "anna")
	unreachable := func() *emergencyv1.EscalateRequest {
		return &emergencyv1.EscalateRequest{Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_TEAM_UNREACHABLE, Team: emergencyv1.Team_TEAM_TESTING, Reason: because}
	}
	s.Refused("anna", &emergencyv1.EscalateRequest{Reason: because}, procedure.ReasonGroundMissing)
	s.Refused("anna", unreachable(), procedure.ReasonGroundNotProven)
	callInVain(env, s, clock.Advance)
	s.Do("anna", unreachable())
	toldOfStrategy2(t, env, s)

	s.Refused("dora", s.Patch.Register(), procedure.ReasonPreparerRole)
	s.Do("anna", s.Patch.Register())
	s.Refused("anna", handOver(s, ""), procedure.ReasonLocalTest)
	s.Do("anna", handOver(s, "ran the attack against my own copy, before and after"))
	s.Do("carla", s.DryRun())
	s.Refused("carla", s.Apply(), procedure.ReasonObserverMissing)
	s.Do("carla", unobserved(s))
	env.Await(s.ID, "the deployment's verification", deployment("VERIFIED"))
	holds(t, env, demobook.Host, s.Patch.ResultTree)
	if attack(t, env, demobook.Host) {
		t.Error("the critical host is still vulnerable")
	}
	if got := deviations(s.State()); !slices.Equal(got, []string{"REVIEW_SKIPPED", "NO_OBSERVER"}) {
		t.Errorf("deviations %v", got)
	}
	s.Do("carla", s.Health())
	s.Refused("carla", s.Close(), procedure.ReasonObligationsOpen)
	s.Do("carla", documented(s, 2))
	s.Do("carl", s.Observe(emergencyv1.ObserverKind_OBSERVER_KIND_AFTER))
	env.Await(s.ID, "equality of host and branch", replicated)

	regularCycle(t, env, s, "anna", "bert")
	paid(t, s.Read(), "DOCUMENT/S2", "OBSERVER_DEBT", "HEALTH", "REPLICATE", "ENTER_CYCLE", "REGULAR_REVIEW")
	s.Do("clara", s.Decide())
	s.Do("bea", s.Report())
	owes(t, s.Read(), "DISPUTE/S2") // what is left is for a critical admin to file, and for an arbitrator to judge
	s.Refused("carla", s.Close(), procedure.ReasonObligationsOpen)
	if in := s.Read(); in.GetBreached() || in.GetOverallMetAt() == nil {
		t.Errorf("breached %t, met at %v", in.GetBreached(), in.GetOverallMetAt())
	}
	soundHere(t, env)
}

// handOver is the preparer's hand-over to carla, with a note of the local test.
func handOver(s *testenv.Story, test string) *emergencyv1.ForwardRequest {
	f := s.Forward()
	f.To, f.LocalTest = "carla", test
	return f
}

// unobserved is an apply without an observer.
func unobserved(s *testenv.Story) *emergencyv1.StartApplyRequest {
	apply := s.Apply()
	apply.NoObserverReason = "carl does not answer either"
	return apply
}

// replicated tells whether host and branch hold the same tree.
func replicated(in *dashboardv1.Incident) bool { return in.GetReplication() == "EQUAL" }

// callInVain lets the rounds pass in which nobody of the testers answers, and both responders check in.
func callInVain(env *testenv.Env, s *testenv.Story, advance func(time.Duration)) {
	for round := 2; round <= 8; round++ {
		advance(10*time.Minute + time.Second)
		env.Await(s.ID, fmt.Sprintf("round %d", round), func(*dashboardv1.Incident) bool {
			return slices.ContainsFunc(env.Timeline(s.ID), func(e *dashboardv1.TimelineEntry) bool {
				return e.GetType() == "notification.RePaged" && strings.Contains(e.GetPayloadJson(), fmt.Sprintf(`"round":%d`, round))
			})
		})
		env.Await(s.ID, "the round's reports", testenv.Paged)
		if round == 6 {
			for _, person := range []string{"carla", "anna"} {
				s.Do(person, &emergencyv1.CheckInRequest{})
			}
		}
	}
}

// toldOfStrategy2: everybody called, and everybody whose step is skipped, is told on which ground; the slot of who is missing is paged.
func toldOfStrategy2(t *testing.T, env *testenv.Env, s *testenv.Story) {
	t.Helper()
	for _, person := range []string{"tina", "theo", "anna", "bert", "albert", "carla", "carl", "dora"} {
		env.Mail.Expect(t, person, "the testing team was called and does not come")
	}
	env.Mail.Expect(t, "anna", "It is your turn: prepare, test locally and register the patch")
	st := s.State()
	if st.Strategy != 2 || len(st.Strategies) != 1 {
		t.Fatalf("strategy %d after %v", st.Strategy, st.Strategies)
	}
	if sl, ok := st.Slot("assessment/1"); !ok || sl.Person != "anna" || sl.Step != emergencyv1.ResponderStep_RESPONDER_STEP_PREPARE {
		t.Errorf("the preparer's slot is %+v", sl)
	}
	if _, ok := st.Slot("testing/1"); ok {
		t.Error("the testers still have a slot")
	}
	for _, kind := range []string{"DOCUMENT/S2", "DISPUTE/S2"} {
		if o := debt(t, s.Read(), kind); o.GetState() != "OPEN" {
			t.Errorf("%s is %s", kind, o.GetState())
		}
	}
}

// regularCycle brings the patch into the update cycle: reviews, transfer, test server and tests of the phase after, by people who
// had no other part in it; the author's own review is refused.
func regularCycle(t *testing.T, env *testenv.Env, s *testenv.Story, author, reviewer string) {
	t.Helper()
	first, second := s.FirstReview(testenv.Approve), s.SecondReview(testenv.Approve)
	first.Phase, second.Phase = emergencyv1.Phase_PHASE_AFTER, emergencyv1.Phase_PHASE_AFTER
	test := func() *emergencyv1.ReportTestRequest {
		c := s.Test(testenv.Pass)
		c.Phase = emergencyv1.Phase_PHASE_AFTER
		return c
	}
	bless := &emergencyv1.ConcludeUpdateCycleRequest{Binding: s.Binding(), Outcome: emergencyv1.CycleOutcome_CYCLE_OUTCOME_BLESSED}
	s.Refused(reviewer, first, procedure.ReasonNotEntered)
	s.Do("anna", &emergencyv1.EnterUpdateCycleRequest{Binding: s.Binding()})
	first.Meta, bless.Meta = nil, nil
	s.Refused(author, first, procedure.ReasonAuthorIsReviewer)
	first.Meta = nil
	s.Refused("tina", test(), procedure.ReasonTestServerNotReady)
	s.Do(reviewer, first)
	env.Await(s.ID, "the test server's confirmation", func(*dashboardv1.Incident) bool { return s.Revision().Tested() != nil })
	holds(t, env, demobook.Test, s.Patch.ResultTree)
	s.Do("tina", test())
	s.Do("theo", test())
	s.Do("albert", second)
	s.Do("albert", bless)
	r := s.Revision()
	if got := procedure.RevisionState(s.State(), r); got != "Blessed" || r.First != nil || len(r.Tests) > 0 {
		t.Errorf("%s stands at %s; before the deployment it has review %v and tests %v", r.ID, got, r.First, r.Tests)
	}
}

// paid checks that obligations are discharged in time.
func paid(t *testing.T, in *dashboardv1.Incident, kinds ...string) {
	t.Helper()
	for _, kind := range kinds {
		if o := debt(t, in, kind); o.GetState() != "DISCHARGED" || o.GetLateByMs() != 0 {
			t.Errorf("%s is %s, late by %d ms", kind, o.GetState(), o.GetLateByMs())
		}
	}
}

// owes checks which kinds of obligation are open, and no others.
func owes(t *testing.T, in *dashboardv1.Incident, want ...string) {
	t.Helper()
	var open []string
	for _, o := range in.GetObligations() {
		if o.GetState() != "DISCHARGED" {
			open = append(open, o.GetKind())
		}
	}
	slices.Sort(open)
	if !slices.Equal(open, want) {
		t.Errorf("owed: %v, want %v", open, want)
	}
}
