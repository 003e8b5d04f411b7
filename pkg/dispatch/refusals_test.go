// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// recordedRefusals are the CommandRefused events of an incident by person.
func recordedRefusals(t *testing.T, r *dispatchtest.Rig, id string) (byPerson map[string]int, suppressed []uint32) {
	t.Helper()
	byPerson = map[string]int{}
	for _, e := range r.Entries(id) {
		for _, ev := range e.Record.GetEvents() {
			p, err := procedure.DecodeEvent(ev)
			if err != nil {
				t.Fatal(err)
			}
			if c, ok := p.(*emergencyv1.CommandRefused); ok {
				byPerson[e.Record.GetActor().GetPerson()]++
				suppressed = append(suppressed, c.GetSuppressed())
				if c.GetCommand() == "" || c.GetReason() == "" || c.GetRule() == "" || e.Record.GetApproval() != nil {
					t.Errorf("refusal %v in %v", c, e.Record)
				}
			}
		}
	}
	return byPerson, suppressed
}

// Twenty of one person in an hour, whatever keys; the rest is counted and comes with the next one.
func TestRefusalsAreRecorded(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	d := r.Dispatcher(procedure.OwnerIncident)
	r.Clock.Set(r.Clock.Now().Truncate(time.Hour).Add(time.Hour))
	try := func(who string) {
		t.Helper()
		_, err := r.Do(d, incident, who, note("no"))
		refused(t, err, procedure.ReasonRole)
	}
	for i := range 30 {
		try([]string{"theo", "theo2"}[i%2])
	}
	try("tina")
	byPerson, _ := recordedRefusals(t, r, incident)
	if byPerson["theo"] != 20 || byPerson["tina"] != 1 {
		t.Errorf("recorded %v, want 20 of theo under both keys and 1 of tina", byPerson)
	}
	r.Clock.Advance(time.Hour)
	try("theo")
	byPerson, suppressed := recordedRefusals(t, r, incident)
	if byPerson["theo"] != 21 || suppressed[len(suppressed)-1] != 10 {
		t.Errorf("recorded %v, suppressed %v: the ten that were only counted are lost", byPerson, suppressed)
	}
	s := r.State(incident)
	if len(s.Acted) != 1 || len(s.Notes) != 0 {
		t.Errorf("refusals changed the state: acted %v, notes %v", s.Acted, s.Notes)
	}
	r.Check()
}

// The twenty are the service's, whichever of its instances records them, and not fresh ones after a restart.
func TestRefusalsAreCountedOverRestarts(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	r.Clock.Set(r.Clock.Now().Truncate(time.Hour).Add(time.Hour))
	try := func(d *dispatch.Dispatcher, times int) {
		t.Helper()
		for range times {
			_, err := r.Do(d, incident, "theo", note("no"))
			refused(t, err, procedure.ReasonRole)
		}
	}
	want := func(n int) {
		t.Helper()
		if byPerson, _ := recordedRefusals(t, r, incident); byPerson["theo"] != n {
			t.Errorf("recorded %v, want %d", byPerson, n)
		}
	}
	one, other := r.Build(r.Config(procedure.OwnerIncident)), r.Build(r.Config(procedure.OwnerIncident))
	try(one, 8)
	try(other, 8)
	try(one, 8)
	want(20)
	try(other, 3)
	try(r.Build(r.Config(procedure.OwnerIncident)), 3) // after a restart
	want(20)
	r.Clock.Advance(time.Hour)
	try(other, 25)
	want(40)
	if _, suppressed := recordedRefusals(t, r, incident); !slices.Contains(suppressed, 3) {
		t.Errorf("counted with the next one: %v", suppressed)
	}
	r.Check()
}

// A refused command may be sent again under its request id once it is allowed.
func TestRefusedThenAllowed(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Called)
	d := r.Dispatcher(procedure.OwnerNotification)
	s := r.State(incident)
	c := r.Prepare(s, nil, "carla", &emergencyv1.CheckInRequest{Slot: "critical/1"})
	_, err := d.Do(t.Context(), c, r.Input(s, "carla", c))
	refused(t, err, procedure.ReasonNotHolder)
	if _, err := r.Do(d, incident, "carla", proceduretest.Accept("critical/1")); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Do(t.Context(), c, r.Input(s, "carla", c)); err != nil || got.GetRepeated() {
		t.Errorf("%v, %v", got, err)
	}
}

// What could not be recorded does not use up what may be, and hides no refusal.
func TestRefusalNotStored(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	faulty := &historytest.Faulty{Store: r.Store}
	cfg := r.Config(procedure.OwnerIncident)
	cfg.Store = faulty
	d := r.Build(cfg)
	for range 25 {
		faulty.Fail(historytest.NotStored)
		_, err := r.Do(d, incident, "theo", note("no"))
		refused(t, err, procedure.ReasonRole)
	}
	for range 3 {
		_, err := r.Do(d, incident, "theo", note("no"))
		refused(t, err, procedure.ReasonRole)
	}
	if byPerson, _ := recordedRefusals(t, r, incident); byPerson["theo"] != 3 {
		t.Errorf("recorded %v", byPerson)
	}
}

// A refusal of a rule-book command is recorded there, and the rule book goes on.
func TestRefusalInTheRuleBook(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	for owner, c := range map[string]procedure.Command{
		procedure.OwnerArbitration:  &emergencyv1.RevokeKeyRequest{KeyId: proceduretest.KeyOf("anna").ID, Reason: "I do not like her"},
		procedure.OwnerNotification: &emergencyv1.SetRotaRequest{Team: emergencyv1.Team_TEAM_CRITICAL},
	} {
		_, err := r.Do(r.Dispatcher(owner), procedure.RuleBook, "theo", c)
		refused(t, err, procedure.ReasonRole)
	}
	if byPerson, _ := recordedRefusals(t, r, procedure.RuleBook); byPerson["theo"] != 2 {
		t.Errorf("recorded %v", byPerson)
	}
	if _, err := r.Do(r.Dispatcher(procedure.OwnerArbitration), procedure.RuleBook, "anna", &emergencyv1.RevokeKeyRequest{KeyId: proceduretest.KeyOf("anna2").ID, Reason: "lost it"}); err != nil {
		t.Error(err)
	}
	if k, ok := r.Book().Key(proceduretest.KeyOf("anna2").ID); !ok || k.RevokedAt.IsZero() {
		t.Errorf("%+v", k)
	}
}

// Ids that somebody makes up are answered and forgotten, also while the store does not answer.
func TestMadeUpIDsAreForgotten(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	store := &counting{Store: r.Store, loads: map[string]int{}}
	faulty := &historytest.Faulty{Store: store}
	cfg := r.Config(procedure.OwnerIncident)
	cfg.Store = faulty
	d := r.Build(cfg)
	for i := range 3 {
		for _, made := range []string{"e20261124.77", "x20261124.1", "e20261124.0", "", "emergency.>", "rulebook2"} {
			c := r.Prepare(procedure.NewState(made), nil, "carla", note("hello"))
			c.GetMeta().Incident = made
			_, err := d.Do(t.Context(), c, dispatch.Input{Actor: proceduretest.Actor("carla")})
			want := procedure.ReasonField
			if made == "e20261124.77" || made == "x20261124.1" {
				want = procedure.ReasonIncident
			}
			refused(t, err, want)
			if s, err := d.State(t.Context(), made); err != nil || s.Position != 0 {
				t.Errorf("state of %q: %v, %v", made, s, err)
			}
		}
		if _, err := r.Do(d, incident, "carla", note(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := store.loads[incident]; n != 1 {
		t.Errorf("a real incident was read %d times", n)
	}
	if n := store.loads["e20261124.77"]; n < 6 {
		t.Errorf("a made-up one was remembered: read from its beginning %d times only", n)
	}
	faulty.Fail(historytest.AckLostAndDown)
	_, err := r.Do(d, incident, "carla", note("down"))
	is(t, err, history.ErrUnknownOutcome)
	_, err = d.State(t.Context(), "e20261124.78")
	is(t, err, history.ErrUnavailable)
	if n := d.Remembered(); n != 1 {
		t.Errorf("%d incidents are remembered, there is one", n)
	}
}

// Many refused at once: nobody is told anything but the refusal or to come again, and the count is kept.
func TestRefusalsAtOnce(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	a, b := r.Dispatcher(procedure.OwnerIncident), r.Dispatcher(procedure.OwnerNotification)
	s := r.State(incident)
	var group sync.WaitGroup
	for i := range 12 {
		group.Go(func() {
			d, cmd := a, procedure.Command(note("no"))
			if i%2 == 0 {
				d, cmd = b, &emergencyv1.CallOutRequest{}
			}
			c := r.Prepare(s, nil, "theo", cmd)
			_, err := d.Do(context.WithoutCancel(t.Context()), c, r.Input(s, "theo", c))
			refusal := new(procedure.Refusal)
			if !asRefusal(err, &refusal) || refusal.Reason != procedure.ReasonRole && refusal.Reason != procedure.ReasonConcurrentModification {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if byPerson, _ := recordedRefusals(t, r, incident); byPerson["theo"] == 0 || byPerson["theo"] > 12 {
		t.Errorf("recorded %v", byPerson)
	}
	r.Check()
}

// Attempts to use a credential are recorded one by one, of whatever kind the refusal and however many they are (4.0).
func TestEachRefusedConnectIsRecorded(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Granted)
	d := r.Dispatcher(procedure.OwnerDeployment)
	other := proceduretest.Connect()
	other.Grant = "G9"
	for range 15 {
		_, err := r.Do(d, incident, "gateway:emil", proceduretest.Connect())
		refused(t, err, procedure.ReasonWatcherAbsent)
		_, err = r.Do(d, incident, "gateway:emil", other)
		refused(t, err, procedure.ReasonGrant) // NOT_FOUND, which is recorded of no other command
	}
	byPerson, suppressed := recordedRefusals(t, r, incident)
	if byPerson["emil"] != 30 {
		t.Errorf("recorded %v", byPerson)
	}
	for _, n := range suppressed {
		if n != 0 {
			t.Errorf("%d were only counted", n)
		}
	}
	r.Check()
}
