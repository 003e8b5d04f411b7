// SPDX-License-Identifier: Apache-2.0

//go:build !race

package e2e

import (
	"fmt"
	"testing"
	"time"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const minuteBehind = "the clocks of a service a minute behind"

// clockSteps are faults of the clocks of a service's machines (procedure.md 0.6, G9): a little behind is written down as such; more is refused, and
// records in no history go back in time.
func (f *faults) clockSteps() map[string]func() {
	services := []string{procedure.CommandOwner(new(emergencyv1.CheckInRequest)), procedure.CommandOwner(new(emergencyv1.AnnotateLogRequest))} // those with most of the load
	step := func(service string, ahead time.Duration) {
		for i, clock := range f.clocks {
			if i.Service == service {
				clock.Step(f.t, ahead)
			}
		}
	}
	return map[string]func(){
		minuteBehind: func() {
			service := services[f.random.IntN(len(services))]
			step(service, -time.Minute)
			f.going(service + " was a minute behind")
			step(service, 0)
		},
		"the clocks of a service an hour behind": func() {
			service := services[f.random.IntN(len(services))]
			f.clockWrong(true)
			step(service, -time.Hour)
			f.awaitRefused(service + " was an hour behind")
			f.going(service + " was an hour behind")
			step(service, 0)
			f.clockWrong(false)
		},
		"the clocks of a service a day ahead": func() { // what it records meanwhile stands in the future: those incidents wait for it, or are declared anew
			service := services[f.random.IntN(len(services))]
			f.clockWrong(true)
			f.leave()
			step(service, 24*time.Hour)
			f.awaitRefused(service + " was a day ahead")
			step(service, 0)
			f.anew()
			f.clockWrong(false)
		},
	}
}

func (f *faults) clockWrong(wrong bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wrong && !wrong {
		f.right = time.Now()
	}
	f.wrong = wrong
}

// excused are refusals because of the clock, of commands that were given while one was wrong; and in an incident with records of the future
// all: by them its deadlines have passed and nobody stands by.
func (f *faults) excused(incident string, given time.Time, r *procedure.Refusal) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ahead[incident] || r.Reason == procedure.ReasonClockSkew && (f.wrong || given.Before(f.right))
}

// leave notes that the incidents of the load get records of the future.
func (f *faults) leave() {
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, incident := range f.l.incidents {
		f.ahead[incident] = true
	}
}

// anew declares others.
func (f *faults) anew() {
	f.t.Helper()
	f.fresh++
	incidents, team := f.l.declared(1_000_000 * f.fresh)
	for _, w := range team {
		must(f.t, w.c.Close())
	}
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	f.l.incidents = incidents
}

// awaitRefused waits until a command was refused because of a clock.
func (f *faults) awaitRefused(after string) {
	f.t.Helper()
	f.l.mu.Lock()
	before := f.l.refused
	f.l.mu.Unlock()
	f.l.more()
	if !f.l.await(func() bool { return f.l.refused > before }) {
		f.t.Fatalf("%s, and no command is refused", after)
	}
}

// timely finds that no history goes back in time, and that each deadline was warned of and missed once; and whether it is written down that a
// clock was behind.
func timely(t *testing.T, store history.Store, behind bool) {
	t.Helper()
	skewed := 0
	last, fired := map[string]time.Time{}, map[string]int{}
	for _, m := range messages(t, store) {
		rec := openRecord(t, m)
		at := rec.GetRecordedAt().AsTime()
		if at.Before(last[rec.GetIncident()]) {
			t.Errorf("position %d of %s was recorded at %s, after one of %s", rec.GetFirstPosition(), rec.GetIncident(), at, last[rec.GetIncident()])
		}
		last[rec.GetIncident()] = at
		if rec.GetSkewMs() > 0 {
			skewed++
		}
		for _, e := range rec.GetEvents() {
			payload, err := procedure.DecodeEvent(e)
			must(t, err)
			switch p := payload.(type) {
			case *emergencyv1.DeadlineWarned:
				fired[fmt.Sprintf("%s: %d %% of %s, due at %s", rec.GetIncident(), p.GetPercent(), p.GetDeadline(), p.GetDueAt().AsTime())]++
			case *emergencyv1.DeadlineBreached:
				fired[fmt.Sprintf("%s: %s missed, due at %s", rec.GetIncident(), p.GetDeadline(), p.GetDueAt().AsTime())]++
			}
		}
	}
	for what, n := range fired {
		if n > 1 {
			t.Errorf("%s was recorded %d times", what, n)
		}
	}
	if behind && skewed == 0 {
		t.Error("a clock was behind, and no record says so")
	}
	t.Logf("%d deadlines were warned of or missed, in %d histories; %d records by a clock that was behind", len(fired), len(last), skewed)
}
