// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/testenv"
)

// TestTwentyFourHours: a whole day passes through the running system in the test's hand: re-pages, a missed standby and an
// expired acceptance, every deadline's warnings and breach, the ladder of what is owed; each once, a restart in between.
func TestTwentyFourHours(t *testing.T) {
	t.Parallel()
	clock := manual()
	env := testenv.Start(t, testenv.Options{Clock: clock})
	s := env.Play(testenv.Called)
	t0 := s.State().Declared.At
	to := func(since time.Duration) { clock.Set(t0.Add(since)) }
	await := func(kind, words string) *dashboardv1.TimelineEntry {
		t.Helper()
		var found *dashboardv1.TimelineEntry
		env.Await(s.ID, kind+" with "+words, func(*dashboardv1.Incident) bool {
			for _, e := range env.Timeline(s.ID) {
				if e.GetType() == kind && strings.Contains(e.GetPayloadJson(), words) {
					found = e
					return true
				}
			}
			return false
		})
		return found
	}
	// on time: what has become due is recorded at the first moment after it.
	onTime := func(since time.Duration, kind, words string) {
		t.Helper()
		to(since + time.Millisecond)
		if got := time.Duration(await(kind, words).GetSinceDeclaredMs()) * time.Millisecond; got != since+time.Millisecond {
			t.Errorf("%s with %s was recorded %s after the declaration, it was due at %s", kind, words, got, since)
		}
	}

	accept(s, "carla", "carl", "anna", "bert", "tina")
	s.Do("theo", &emergencyv1.RespondRequest{Answer: &emergencyv1.RespondRequest_Decline{Decline: &emergencyv1.Declination{Reason: "I am on a train"}}})
	env.Mail.ExpectAll("You are called for")
	onTime(10*time.Minute, "notification.RePaged", `"round":2`)
	for _, c := range []*testenv.Channel{env.Mail, env.SMS} {
		c.Expect(t, "dora", "You are called again") // nobody prepares a patch yet
	}
	env.Await(s.ID, "the second round's reports", testenv.Paged)

	to(50 * time.Minute)
	for _, person := range []string{"carl", "anna", "bert", "tina"} {
		s.Do(person, &emergencyv1.CheckInRequest{})
	}
	onTime(75*time.Minute, "notification.StandbyMissed", `"carla"`)
	await("notification.SlotReopened", `"critical/1"`)
	if st := s.State(); len(st.Held("carla")) != 0 || len(st.Held("carl")) != 1 {
		t.Error("who missed the check-in should have lost the slot, and nobody else")
	}
	later := testenv.Accept(emergencyv1.ResponderStep_RESPONDER_STEP_EXECUTE, "phone of carla")
	later.GetAccept().OnStandby = false
	s.Do("carla", later)
	accepted := clock.Now().Sub(t0)
	for _, person := range []string{"carl", "anna", "bert", "tina"} {
		s.Do(person, &emergencyv1.CheckInRequest{})
	}
	onTime(2*time.Hour, "incident.DeadlineBreached", `"s1.slots"`)
	onTime(accepted+time.Hour, "notification.AckExpired", `"carla"`)

	onTime(6*time.Hour, "incident.DeadlineWarned", `"percent":25`)
	await("incident.DeadlineBreached", `"s1.patch"`)
	onTime(9*time.Hour, "incident.DeadlineBreached", `"s1.review1"`)
	env.Restart()
	onTime(12*time.Hour, "incident.DeadlineWarned", `"percent":50`)
	await("arbitration.ObligationEscalated", "LEAD_DECISION/1")
	onTime(16*time.Hour, "incident.DeadlineBreached", `"s1.tests"`)
	onTime(18*time.Hour, "incident.DeadlineWarned", `"percent":75`)
	onTime(20*time.Hour, "incident.DeadlineBreached", `"s1.review2"`)
	onTime(21*time.Hour+36*time.Minute, "incident.DeadlineWarned", `"percent":90`)
	env.Restart()
	onTime(24*time.Hour, "incident.DeadlineBreached", `"overall"`)
	await("incident.DeadlineBreached", `"s1.deploy"`)
	await("incident.DeadlineBreached", `"s1.document"`)
	await("arbitration.ObligationOverdue", "LEAD_DECISION/1")
	env.Mail.Expect(t, "clara", "LEAD_DECISION is owed")

	if in := s.Read(); !in.GetBreached() || debt(t, in, "LEAD_DECISION").GetState() != "OVERDUE" {
		t.Errorf("breached %t, LEAD_DECISION %s", in.GetBreached(), debt(t, in, "LEAD_DECISION").GetState())
	}
	once(t, env, s.ID)
	res, err := env.As("clara").Query().ReadLog(t.Context(), &dashboardv1.ReadLogRequest{Incident: s.ID})
	must(t, err)
	missed := 0
	for _, e := range res.GetEntries() {
		if strings.HasPrefix(e.GetHeadline(), "Deadline missed") {
			missed++
		}
	}
	if missed != 1 {
		t.Errorf("the public log says %d times that the deadline was missed", missed)
	}
	soundHere(t, env)
}

// accept puts persons on standby for their step.
func accept(s *testenv.Story, persons ...string) {
	steps := map[string]emergencyv1.ResponderStep{
		"carla": emergencyv1.ResponderStep_RESPONDER_STEP_EXECUTE, "carl": emergencyv1.ResponderStep_RESPONDER_STEP_OBSERVE,
		"anna": emergencyv1.ResponderStep_RESPONDER_STEP_FIRST_REVIEW, "bert": emergencyv1.ResponderStep_RESPONDER_STEP_SECOND_REVIEW,
		"tina": emergencyv1.ResponderStep_RESPONDER_STEP_TEST, "theo": emergencyv1.ResponderStep_RESPONDER_STEP_TEST,
	}
	for _, p := range persons {
		s.Do(p, testenv.Accept(steps[p], "phone of "+p))
	}
}

// once checks that every warning and breach was recorded once, and which there were.
func once(t *testing.T, env *testenv.Env, incident string) {
	t.Helper()
	var got []string
	for _, e := range env.Timeline(incident) {
		if strings.HasPrefix(e.GetType(), "incident.Deadline") {
			got = append(got, strings.TrimPrefix(e.GetType(), "incident.Deadline")+" "+e.GetPayloadJson())
		}
	}
	var want []string
	for _, percent := range []int{25, 50, 75, 90} {
		want = append(want, fmt.Sprintf(`Warned {"deadline":"overall","percent":%d,`, percent))
	}
	for _, key := range []string{"s1.slots", "s1.patch", "s1.review1", "s1.tests", "s1.review2", "s1.deploy", "s1.document", "overall"} {
		want = append(want, fmt.Sprintf(`Breached {"deadline":%q,`, key))
	}
	for _, w := range want {
		n := 0
		got = slices.DeleteFunc(got, func(g string) bool {
			if strings.HasPrefix(strings.ReplaceAll(g, `": `, `":`), w) {
				n++
				return true
			}
			return false
		})
		if n != 1 {
			t.Errorf("%s ... was recorded %d times", w, n)
		}
	}
	if len(got) > 0 {
		t.Errorf("nobody expected %q", got)
	}
}
