// SPDX-License-Identifier: Apache-2.0

package timer_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/timer"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const incident = proceduretest.DefaultIncident

// instance is one process: a projection, dispatchers and timers of its own.
type instance struct {
	*dispatchtest.Rig
	incidents *projection.Incidents
	reader    *projection.Runner
	stop      func()
}

// start runs an instance with the timers of these owners.
func start(t *testing.T, r *dispatchtest.Rig, owners ...string) *instance {
	t.Helper()
	return startOn(t, r, r.Clock, owners...)
}

func startOn(t *testing.T, r *dispatchtest.Rig, clock timer.Clock, owners ...string) *instance {
	t.Helper()
	x := &instance{Rig: r, incidents: projection.NewIncidents()}
	var err error
	x.reader, err = projection.New(projection.Config{Store: r.Store, Keys: r.Keys.Ring, Log: r.Log, Projections: []projection.Projection{x.incidents}})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.reader.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		if err := x.reader.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for _, owner := range owners {
		d := r.Dispatcher(owner)
		group.Go(func() {
			err := timer.Run(ctx, timer.Config{Owner: owner, Clock: clock, Incidents: x.incidents, Changed: x.reader.Changed, Dispatch: d, Log: r.Log})
			if err != nil {
				t.Error(err)
			}
		})
	}
	x.stop = sync.OnceFunc(func() { cancel(); group.Wait() })
	t.Cleanup(x.stop)
	return x
}

// settle waits until nothing is due any more at the present time.
func (x *instance) settle(owners ...string) {
	x.TB.Helper()
	for {
		changed := x.reader.Changed()
		if !x.due(owners) {
			return
		}
		select {
		case <-changed:
		case <-x.TB.Context().Done():
			x.TB.Fatal("something stays due")
		}
	}
}

func (x *instance) due(owners []string) bool {
	found, book := false, x.incidents.Book() // not within Each, which holds the lock
	x.incidents.Each(func(s *procedure.State) {
		for _, owner := range owners {
			at, ok := procedure.NextDue(s, procedure.Env{Owner: owner, Now: x.Clock.Now(), Book: book})
			found = found || ok && at.Before(x.Clock.Now())
		}
	})
	return found
}

// events are all payloads of a type in an incident, with the times they were recorded at.
func events[P proto.Message](r *dispatchtest.Rig, id string) (list []P, at []time.Time) {
	r.TB.Helper()
	for _, e := range r.Entries(id) {
		for _, ev := range e.Record.GetEvents() {
			p, err := procedure.DecodeEvent(ev)
			if err != nil {
				r.TB.Fatal(err)
			}
			if x, ok := p.(P); ok {
				list, at = append(list, x), append(at, e.Record.GetRecordedAt().AsTime())
			}
		}
	}
	return list, at
}

// once wants each of these facts recorded exactly once.
func once(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: recorded %v, want %v", what, got, want)
	}
}

func warnings(r *dispatchtest.Rig) (list []string) {
	warned, at := events[*emergencyv1.DeadlineWarned](r, incident)
	for i, w := range warned {
		list = append(list, fmt.Sprintf("%s %d%% at %s", w.GetDeadline(), w.GetPercent(), at[i].Sub(proceduretest.T0()).Round(time.Hour)))
	}
	return list
}

func breaches(r *dispatchtest.Rig) (list []string) {
	breached, at := events[*emergencyv1.DeadlineBreached](r, incident)
	for i, b := range breached {
		if !at[i].After(b.GetDueAt().AsTime()) {
			r.TB.Errorf("%s was due at %s and breached at %s", b.GetDeadline(), b.GetDueAt().AsTime(), at[i])
		}
		list = append(list, b.GetDeadline())
	}
	return list
}

var both = []string{procedure.OwnerIncident, procedure.OwnerNotification}

// 24 hours in which nobody does anything, with two instances at once and a restart in the middle in which time goes on:
// every warning and every breach is recorded once, in its order.
func TestADayPasses(t *testing.T) {
	t.Parallel()
	dispatchtest.OnBoth(t, func(t *testing.T, r *dispatchtest.Rig) {
		r.SeedStory(proceduretest.Called)
		r.Clock.Set(proceduretest.T0().Add(5 * time.Minute))
		a, b := start(t, r, both...), start(t, r, both...)
		pass := func(until time.Duration, step time.Duration) {
			for r.Clock.Now().Before(proceduretest.T0().Add(until)) {
				r.Clock.Advance(step)
				a.settle(both...)
				b.settle(both...)
			}
		}
		pass(13*time.Hour+5*time.Minute, time.Hour)
		a.stop()
		b.stop()
		r.Clock.Advance(6 * time.Hour) // the process is down over the third warning
		a, b = start(t, r, both...), start(t, r, both...)
		a.settle(both...)
		b.settle(both...)
		pass(25*time.Hour+5*time.Minute, time.Hour)
		once(t, "warnings", warnings(r), []string{"overall 25% at 6h0m0s", "overall 50% at 12h0m0s", "overall 75% at 19h0m0s", "overall 90% at 22h0m0s"})
		once(t, "breaches", breaches(r), []string{"s1.slots", "s1.patch", "s1.review1", "s1.tests", "s1.review2", "overall", "s1.deploy", "s1.document"})
		// Each hour everybody was called again: 13 times, once after the restart, and 6 times more.
		repaged, _ := events[*emergencyv1.RePaged](r, incident)
		plain := slices.DeleteFunc(slices.Clone(repaged), func(p *emergencyv1.RePaged) bool { return p.GetFallback() })
		if len(plain) != 20 {
			t.Errorf("%d re-pages in 13 + 1 + 6 hours", len(plain))
		}
		rounds := map[uint32]bool{}
		for _, p := range repaged {
			if rounds[p.GetRound()] {
				t.Errorf("round %d was called twice", p.GetRound())
			}
			rounds[p.GetRound()] = true
		}
		r.Check()
	})
}

// Exactly at the due time is still in time; a millisecond later is not (0.5).
func TestExactlyDueIsInTime(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared) // nobody calls the teams
	r.Clock.Set(proceduretest.T0().Add(15 * time.Minute))
	x := start(t, r, procedure.OwnerIncident)
	x.settle(procedure.OwnerIncident)
	if got := breaches(r); len(got) != 0 {
		t.Errorf("breached at the due time: %v", got)
	}
	r.Clock.Advance(time.Millisecond)
	x.settle(procedure.OwnerIncident)
	once(t, "breaches", breaches(r), []string{"s1.callout"})
}

// Who accepts and never checks in loses the slot, and so does who misses a check-in; the others keep theirs.
func TestStandby(t *testing.T) {
	t.Parallel()
	dispatchtest.OnBoth(t, func(t *testing.T, r *dispatchtest.Rig) {
		r.SeedStory(proceduretest.Accepted)
		notification := r.Dispatcher(procedure.OwnerNotification)
		a, b := start(t, r, procedure.OwnerNotification), start(t, r, procedure.OwnerNotification)
		checkIn := func(who string) {
			t.Helper()
			if _, err := r.Do(notification, incident, who, &emergencyv1.CheckInRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		for _, who := range []string{"carla", "carl", "anna", "theo", "tina", "dora"} {
			checkIn(who) // bert does not
		}
		began := r.Clock.Now()
		for step := range 8 {
			r.Clock.Set(began.Add(time.Duration(step+1) * 10 * time.Minute))
			if step%3 == 2 {
				for _, who := range []string{"carla", "anna", "theo", "tina", "dora"} {
					checkIn(who) // carl does not
				}
			}
			a.settle(procedure.OwnerNotification)
			b.settle(procedure.OwnerNotification)
		}
		var lost []string
		expired, at := events[*emergencyv1.AckExpired](r, incident)
		for i, e := range expired {
			lost = append(lost, fmt.Sprintf("%s %s %t", e.GetSlot(), e.GetPerson(), at[i].After(e.GetDueAt().AsTime())))
		}
		missed, at := events[*emergencyv1.StandbyMissed](r, incident)
		for i, e := range missed {
			lost = append(lost, fmt.Sprintf("%s %s %t", e.GetSlot(), e.GetPerson(), at[i].After(e.GetDueAt().AsTime())))
		}
		once(t, "lost", lost, []string{"assessment/2 bert true", "critical/2 carl true"})
		reopened, _ := events[*emergencyv1.SlotReopened](r, incident)
		if len(reopened) != 1 || reopened[0].GetSlot() != "critical/2" {
			t.Errorf("reopened: %v", reopened)
		}
		s := r.State(incident)
		for _, sl := range s.Slots {
			open := sl.ID == "critical/2" || sl.ID == "assessment/2"
			if open != (sl.State == procedure.SlotOpen) {
				t.Errorf("slot %s is %s", sl.ID, sl.State)
			}
		}
		for _, p := range s.Pages {
			if p.Round > 1 && p.Team != emergencyv1.Team_TEAM_CRITICAL && p.Team != emergencyv1.Team_TEAM_ASSESSMENT {
				t.Errorf("team %s is full, and yet %s was called again", p.Team, p.Person)
			}
		}
		r.Check()
	})
}

// A shift that begins makes a re-page due without anything having happened in the incident.
func TestShiftBegins(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Called)
	critical := emergencyv1.Team_TEAM_CRITICAL
	from := timestamppb.New(proceduretest.T0().Add(3 * time.Hour))
	d := r.Dispatcher(procedure.OwnerNotification)
	for _, team := range []emergencyv1.Team{emergencyv1.Team_TEAM_ASSESSMENT, emergencyv1.Team_TEAM_DEVELOPMENT, emergencyv1.Team_TEAM_TESTING} {
		if _, err := r.Do(d, procedure.RuleBook, "albert", &emergencyv1.SetRotaRequest{Team: team}); err != nil {
			t.Fatal(err)
		}
	}
	shift := &emergencyv1.SetRotaRequest{Team: critical, Shifts: []*emergencyv1.Shift{{Team: critical, Person: "carl", From: from, Rank: 1}}}
	if _, err := r.Do(d, procedure.RuleBook, "clara", shift); err != nil {
		t.Fatal(err)
	}
	clock := &watched{Manual: r.Clock, alarms: make(chan time.Time, 1000)}
	x := startOn(t, r, clock, procedure.OwnerNotification)
	r.Clock.Set(proceduretest.T0().Add(2 * time.Hour))
	x.settle(procedure.OwnerNotification)
	before, _ := events[*emergencyv1.RePaged](r, incident)
	for at := range clock.alarms { // each time it has looked, its next alarm is let ring, up to the shift
		if list, _ := events[*emergencyv1.RePaged](r, incident); len(list) > len(before) {
			break
		}
		if at.After(proceduretest.T0().Add(3*time.Hour + 2*time.Minute)) {
			t.Fatal("carl is on duty, and is not called")
		}
		if at.After(r.Clock.Now()) {
			r.Clock.Set(at)
		}
	}
	again, at := events[*emergencyv1.RePaged](r, incident)
	if last := again[len(again)-1]; last.GetPages()[0].GetPerson() != "carl" || at[len(at)-1].Before(from.AsTime()) {
		t.Errorf("called %v at %s", last.GetPages(), at[len(at)-1])
	}
}

// An obligation that nobody meets is made visible as overdue once and climbs the ladder: half of the time, due, a day,
// three days, then every 14 days (7).
func TestObligationLadder(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	d := r.Dispatcher(procedure.OwnerArbitration)
	sync := &emergencyv1.SyncObligationsRequest{Meta: &emergencyv1.CommandMeta{Incident: incident, RequestId: "sync-0001"}}
	if _, err := d.Do(t.Context(), sync, dispatch.Input{Actor: proceduretest.Actor("reactor")}); err != nil {
		t.Fatal(err)
	}
	a, b := start(t, r, procedure.OwnerArbitration), start(t, r, procedure.OwnerArbitration)
	t0 := proceduretest.T0()
	for _, after := range []time.Duration{12, 13, 24, 25, 30, 48, 49, 96, 97, 96 + 14*24, 97 + 14*24, 97 + 28*24} {
		r.Clock.Set(t0.Add(after * time.Hour))
		a.settle(procedure.OwnerArbitration)
		b.settle(procedure.OwnerArbitration)
	}
	var rungs []string
	escalated, at := events[*emergencyv1.ObligationEscalated](r, incident)
	for i, e := range escalated {
		if e.GetId() == "LEAD_DECISION/1" {
			rungs = append(rungs, fmt.Sprintf("%d after %s %v", e.GetRung(), at[i].Sub(t0), e.GetTold()))
		}
	}
	lead, other, board := emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD, emergencyv1.Role_ROLE_ASSESSMENT_TEAM_LEAD, emergencyv1.Role_ROLE_BOARD
	want := []string{
		fmt.Sprintf("1 after 13h0m0s %v", []emergencyv1.Role{lead}), fmt.Sprintf("2 after 25h0m0s %v", []emergencyv1.Role{lead}),
		fmt.Sprintf("3 after 49h0m0s %v", []emergencyv1.Role{lead}), fmt.Sprintf("4 after 97h0m0s %v", []emergencyv1.Role{other, board}),
		fmt.Sprintf("5 after 433h0m0s %v", []emergencyv1.Role{board}), fmt.Sprintf("6 after 769h0m0s %v", []emergencyv1.Role{board}),
	}
	once(t, "rungs", rungs, want)
	overdue, at := events[*emergencyv1.ObligationOverdue](r, incident)
	if len(overdue) != 2 || overdue[0].GetId() != "LEAD_DECISION/1" || at[0].Sub(t0) != 25*time.Hour {
		t.Errorf("overdue %v at %v", overdue, at)
	}
}

// Two things that become due at the same instant, one after the other, are both recorded: the clock stands still between.
func TestTwiceAtTheSameInstant(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Observed)
	arbitration, deployment := r.Dispatcher(procedure.OwnerArbitration), r.Dispatcher(procedure.OwnerDeployment)
	makeVisible := func() {
		t.Helper()
		c := &emergencyv1.SyncObligationsRequest{Meta: &emergencyv1.CommandMeta{Incident: incident, RequestId: r.RequestID()}}
		got, err := arbitration.Do(t.Context(), c, dispatch.Input{Actor: proceduretest.Actor("reactor")})
		if err != nil || len(got.GetEventTypes()) == 0 {
			t.Fatal(got, err)
		}
	}
	x := start(t, r, procedure.OwnerArbitration)
	r.Clock.Set(proceduretest.T0().Add(25 * time.Hour))
	makeVisible()
	x.settleAt(t, r.State(incident).Position)
	for _, c := range []procedure.Command{&emergencyv1.DryRunRequest{}, &emergencyv1.StartApplyRequest{}} {
		if _, err := r.Do(deployment, incident, "carla", c); err != nil {
			t.Fatal(err)
		}
	}
	makeVisible() // the documentation has been due for an hour when it begins to be owed
	x.settleAt(t, r.State(incident).Position)
	var ids []string
	overdue, _ := events[*emergencyv1.ObligationOverdue](r, incident)
	for _, o := range overdue {
		ids = append(ids, o.GetId()[:8])
	}
	once(t, "overdue", ids, []string{"LEAD_DEC", "DOCUMENT"})
}

// settleAt settles once a position has been read.
func (x *instance) settleAt(t *testing.T, position uint64) {
	t.Helper()
	if err := x.reader.WaitFor(t.Context(), incident, position); err != nil {
		t.Fatal(err)
	}
	x.settle(procedure.OwnerArbitration)
}

// A tick that the store does not take is sent again; nothing is lost and nothing doubled.
func TestTickSurvivesTheStore(t *testing.T) {
	t.Parallel()
	for _, how := range []historytest.Failure{historytest.NotStored, historytest.AckLost} {
		t.Run(how.String(), func(t *testing.T) {
			t.Parallel()
			r := dispatchtest.Memory(t)
			r.SeedStory(proceduretest.Declared)
			faulty := &historytest.Faulty{Store: r.Store}
			r.Store = faulty
			clock := &watched{Manual: r.Clock, alarms: make(chan time.Time, 100)}
			x := startOn(t, r, clock, procedure.OwnerIncident)
			<-clock.alarms // it has looked, and nothing was due
			faulty.Fail(how)
			now := proceduretest.T0().Add(time.Hour)
			r.Clock.Set(now)
			if how == historytest.NotStored {
				for at := range clock.alarms {
					if at.Before(now.Add(time.Minute)) { // it means to try again soon
						r.Clock.Set(at)
						break
					}
				}
			}
			x.settle(procedure.OwnerIncident)
			once(t, "breaches", breaches(r), []string{"s1.callout"})
		})
	}
}

// watched tells which alarms are set.
type watched struct {
	*timer.Manual
	alarms chan time.Time
}

func (w *watched) Alarm(t time.Time) (<-chan struct{}, func()) {
	rung, stop := w.Manual.Alarm(t)
	w.alarms <- t
	return rung, stop
}

func TestManualClock(t *testing.T) {
	t.Parallel()
	m := timer.NewManual(proceduretest.T0())
	past, _ := m.Alarm(m.Now())
	<-past // not in the future: rings at once
	soon, _ := m.Alarm(m.Now().Add(time.Second))
	late, stop := m.Alarm(m.Now().Add(time.Hour))
	given, giveUp := m.Alarm(m.Now().Add(time.Second))
	giveUp()
	m.Advance(time.Second)
	<-soon
	select {
	case <-late:
		t.Error("rang too early")
	case <-given:
		t.Error("rang although it was given up")
	default:
	}
	m.Set(m.Now().Add(-time.Hour))
	m.Advance(3 * time.Hour)
	<-late
	stop()
}

func TestSystemClock(t *testing.T) {
	t.Parallel()
	var c timer.System
	if c.Now().Location() != time.UTC {
		t.Error("not in UTC")
	}
	rung, stop := c.Alarm(c.Now().Add(time.Millisecond))
	defer stop()
	<-rung
}

// A tick that panics keeps no other incident from its due times (hardening 2, poison event).
func TestPanicStopsOneIncidentAlone(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Called)
	other := proceduretest.NewIncident(t, "e20261124.9")
	proceduretest.Story(proceduretest.Called)(other)
	r.Seed(other)
	r.Store = dispatchtest.Panicking{Store: r.Store, Incident: incident}
	x := start(t, r, both...)
	r.Clock.Set(proceduretest.T0().Add(25 * time.Hour))
	for {
		changed := x.reader.Changed()
		if breached, _ := events[*emergencyv1.DeadlineBreached](r, other.State.Incident); len(breached) > 0 {
			break
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatal("nothing is due in the other incident")
		}
	}
	if n := len(r.Entries(incident)); n != 2 {
		t.Errorf("%d records of the incident that panics", n)
	}
}
