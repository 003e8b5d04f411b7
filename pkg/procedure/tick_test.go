// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// deadlineEvents are the events of a tick, in words.
func deadlineEvents(t *testing.T, out pt.Outcome) string {
	t.Helper()
	var list []string
	for _, e := range out.Record.GetEvents() {
		p, err := procedure.DecodeEvent(e)
		if err != nil {
			t.Fatal(err)
		}
		switch m := p.(type) {
		case *emergencyv1.DeadlineWarned:
			list = append(list, fmt.Sprintf("%s %d%%", m.GetDeadline(), m.GetPercent()))
		case *emergencyv1.DeadlineBreached:
			list = append(list, m.GetDeadline())
		}
	}
	return strings.Join(list, ", ")
}

// TestDeadlines lets an emergency run through its 24 hours without anybody doing anything (3.2).
func TestDeadlines(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Declared)).World()
	at := func(after time.Duration) string {
		w.Now = pt.T0().Add(after)
		return deadlineEvents(t, w.Tick(procedure.OwnerIncident))
	}
	minute, hour := time.Minute, time.Hour
	for _, x := range []struct {
		after time.Duration
		want  string
	}{
		{15 * minute, ""}, {15*minute + 1, "s1.callout"}, {2 * hour, ""}, {2*hour + 1, "s1.slots"},
		{6 * hour, ""}, {6*hour + 1, "s1.patch, overall 25%"}, {9*hour + 1, "s1.review1"}, {12*hour + 1, "overall 50%"},
		{16*hour + 1, "s1.tests"}, {18*hour + 1, "overall 75%"}, {20*hour + 1, "s1.review2"}, {21*hour + 36*minute, ""}, {21*hour + 36*minute + 1, "overall 90%"},
		{24 * hour, ""}, {24*hour + 1, "overall, s1.deploy, s1.document"}, {100 * hour, ""},
	} {
		if got := at(x.after); got != x.want {
			t.Errorf("%s after T0: %q, want %q", x.after, got, x.want)
		}
	}
}

// A tick that comes late tells everything at once, in the order in which it became due.
func TestLateTick(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Declared), pt.Waits(48*time.Hour)).World()
	const want = "s1.callout, s1.slots, s1.patch, overall 25%, s1.review1, overall 50%, s1.tests, overall 75%, s1.review2, overall 90%, overall, s1.deploy, s1.document"
	if got := deadlineEvents(t, w.Tick(procedure.OwnerIncident)); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestDeadlineStates(t *testing.T) {
	t.Parallel()
	state := func(w *pt.World, key string) procedure.DeadlineState {
		for _, d := range procedure.Deadlines(w.State) {
			if d.Key == key {
				return d.State(w.State, w.Now)
			}
		}
		t.Fatalf("no deadline %s", key)
		return ""
	}
	at := func(after time.Duration) pt.Step { return func(w *pt.World) { w.Now = pt.T0().Add(after) } }
	hour := time.Hour
	for _, x := range []struct {
		name  string
		given []pt.Step
		key   string
		want  procedure.DeadlineState
	}{
		{"open", history(pt.Story(pt.Declared)), "s1.patch", procedure.DeadlineOpen},
		{"exactly due is open", history(pt.Story(pt.Declared), at(6*hour)), "s1.patch", procedure.DeadlineOpen},
		{"passed", history(pt.Story(pt.Declared), at(6*hour+1)), "s1.patch", procedure.DeadlineBreached},
		{"met", history(pt.Story(pt.Registered), at(9*hour)), "s1.patch", procedure.DeadlineMet},
		{"met exactly when due", history(pt.Story(pt.Declared), at(6*hour), pt.Does("dora", pt.Register(1))), "s1.patch", procedure.DeadlineMet},
		{"met late", history(pt.Story(pt.Declared), at(6*hour+1), pt.Does("dora", pt.Register(1))), "s1.patch", procedure.DeadlineLate},
		{"met late, whether or not a breach was recorded", history(pt.Story(pt.Declared), at(6*hour+1), func(w *pt.World) { w.Tick(procedure.OwnerIncident) }, pt.Does("dora", pt.Register(1))), "s1.patch", procedure.DeadlineLate},
		{"lapsed", history(pt.Story(pt.Declared), pt.Does("carla", pt.StandDown()), at(9*hour)), "s1.patch", procedure.DeadlineLapsed},
		{"passed before it ended", history(pt.Story(pt.Declared), at(9*hour), pt.Does("carla", pt.StandDown())), "s1.patch", procedure.DeadlineBreached},
		{"review met", history(pt.Story(pt.Transferred)), "s1.review1", procedure.DeadlineMet},
		{"transferred again much later is still met", history(pt.Story(pt.Transferred), at(10*hour), pt.Does("anna", &emergencyv1.TransferRequest{})), "s1.review1", procedure.DeadlineMet},
		{"a new revision has to be reviewed again", history(pt.Story(pt.Transferred), pt.Does("dora", pt.Replace("P1r1", 2))), "s1.review1", procedure.DeadlineOpen},
		{"tests met", history(pt.Story(pt.Tested)), "s1.tests", procedure.DeadlineMet},
		{"one test is not enough", history(pt.Story(pt.OnTestServer), pt.Does("theo", pt.Test(pass))), "s1.tests", procedure.DeadlineOpen},
		{"tested again much later is still met", history(pt.Story(pt.Tested), at(17*hour), pt.Does("theo", pt.Test(pass))), "s1.tests", procedure.DeadlineMet},
		{"one test and a waiver", withoutTests(pt.ReviewedTwice), "s1.tests", procedure.DeadlineMet},
		{"forwarded again much later is still met", history(pt.Story(pt.Forwarded), at(21*hour), pt.Does("bert", &emergencyv1.ForwardRequest{RollbackPlan: "x", To: "clara"})), "s1.review2", procedure.DeadlineMet},
		{"verified", history(pt.Story(pt.Verified)), "s1.deploy", procedure.DeadlineMet},
		{"verified, not documented", history(pt.Story(pt.Verified)), "overall", procedure.DeadlineOpen},
		{"documented", history(pt.Story(pt.Documented)), "overall", procedure.DeadlineMet},
		{"rolled back is not deployed", history(pt.Story(pt.Verified), pt.Does("carla", pt.RollBack("carl"))), "s1.deploy", procedure.DeadlineOpen},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			w := given(t, x.given...).World()
			if got := state(w, x.key); got != x.want {
				t.Errorf("%s is %s, want %s", x.key, got, x.want)
			}
		})
	}
	t.Run("overall is met by the later of the two", func(t *testing.T) {
		t.Parallel()
		w := given(t, pt.Story(pt.Documented)).World()
		if got := procedure.OverallMetAt(w.State); !got.Equal(w.State.Documented[0].At) {
			t.Errorf("met at %s", got)
		}
	})
}

// TestTick: nothing due is nothing recorded, and a tick that repeats itself records nothing new.
func TestTick(t *testing.T) {
	t.Parallel()
	for _, owner := range procedure.Owners() {
		t.Run(owner, func(t *testing.T) {
			t.Parallel()
			tick := &emergencyv1.TickRequest{}
			c := given(t, pt.Story(pt.Called))
			c.World().Sync()
			c.World().Now = c.World().State.RecordedAt
			c.When(tick).By("timer", pt.Owner(owner)).Then()
			w := c.World()
			w.Now = pt.T0().Add(30 * 24 * time.Hour)
			first := w.Tick(owner)
			if again := w.Tick(owner); again.Record != nil {
				t.Errorf("the second tick records %v after %v", again.Types(), first.Types())
			}
		})
	}
	run(t, []row{
		{name: "by a person", given: history(pt.Story(pt.Declared)), when: &emergencyv1.TickRequest{}, by: "carla", with: []pt.Option{pt.Owner(procedure.OwnerIncident)}, refused: procedure.ReasonRole},
		{name: "no incident", when: &emergencyv1.TickRequest{}, by: "timer", refused: procedure.ReasonIncident},
		{name: "an ended incident still has obligations", given: history(pt.Story(pt.Declared), func(w *pt.World) { w.Sync() }, pt.Does("carla", pt.StandDown()), pt.Waits(25*time.Hour)), when: &emergencyv1.TickRequest{}, by: "timer",
			with: []pt.Option{pt.Owner(procedure.OwnerArbitration)}, then: events("ObligationEscalated", "ObligationEscalated", "ObligationOverdue")},
		{name: "an ended incident has no deadlines", given: history(pt.Story(pt.Declared), pt.Does("carla", pt.StandDown()), pt.Waits(25*time.Hour)), when: &emergencyv1.TickRequest{}, by: "timer"},
	})
}

// TestNextDue: at the time itself nothing is emitted, just after it something is.
func TestNextDue(t *testing.T) {
	t.Parallel()
	for _, m := range pt.Milestones() {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			w := given(t, pt.Story(m)).World()
			w.Sync()
			for _, owner := range procedure.Owners() {
				checkNextDue(t, w.For(t), owner)
			}
		})
	}
}

func checkNextDue(t pt.T, w *pt.World, owner string) {
	t.Helper()
	if w.State.Status == procedure.Absent || w.State.Status == procedure.Merged {
		return // takes no tick
	}
	if w.Now.Before(w.State.RecordedAt) {
		w.Now = w.State.RecordedAt
	}
	due, ok := procedure.NextDue(w.State, w.Env("timer", owner))
	if !ok {
		w.Wait(60 * 24 * time.Hour)
		if out := w.Tick(owner); out.Record != nil {
			t.Fatalf("%s: nothing is outstanding, and a later tick records %v", owner, out.Types())
		}
		return
	}
	if !due.Before(w.State.RecordedAt) {
		w.Now = due
		if out := w.Tick(owner); out.Record != nil {
			t.Fatalf("%s: exactly when due at %s a tick records %v", owner, due, out.Types())
		}
		w.Now = due.Add(1)
	}
	if out := w.Tick(owner); out.Record == nil {
		t.Fatalf("%s: just after %s, at %s, a tick records nothing", owner, due, w.Now)
	}
}

// TestTickLimit: what is more than one tick can hold comes with the next one.
func TestTickLimit(t *testing.T) {
	t.Parallel()
	paths := make([]string, 150)
	for i := range paths {
		paths[i] = fmt.Sprintf("etc/%d", i)
	}
	w := given(t, pt.Story(pt.Verified), pt.Does("repo:git", &emergencyv1.CheckReplicationRequest{}, pt.Facts(pt.Drift(paths...)))).World()
	w.Sync()
	w.Wait(80 * time.Hour)
	var sizes []int
	for range 10 {
		out := w.Tick(procedure.OwnerArbitration)
		if out.Record == nil {
			break
		}
		sizes = append(sizes, len(out.Record.GetEvents()))
	}
	if len(sizes) < 2 || slices.Max(sizes) > 200 {
		t.Errorf("ticks of %v events", sizes)
	}
	if out := w.Tick(procedure.OwnerArbitration); out.Record != nil {
		t.Errorf("never done: %v", out.Types())
	}
}
