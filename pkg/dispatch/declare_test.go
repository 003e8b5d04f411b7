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
	"cacert.org/emergency/pkg/projection"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// index is what a follower knows that has read everything so far.
func index(r *dispatchtest.Rig) *projection.Incidents {
	r.TB.Helper()
	p := projection.NewIncidents()
	if err := projection.Rebuild(r.TB.Context(), projection.Config{Store: r.Store, Keys: r.Keys.Ring, Log: r.Log}, p); err != nil {
		r.TB.Fatal(err)
	}
	return p
}

func declaration(request string, drill bool) *emergencyv1.DeclareRequest {
	c := proceduretest.Declare()
	c.Drill = drill
	c.Meta = &emergencyv1.CommandMeta{RequestId: request}
	return c
}

func declare(r *dispatchtest.Rig, d *dispatch.Dispatcher, known dispatch.Known, who string, c *emergencyv1.DeclareRequest) (*emergencyv1.Committed, error) {
	return d.Declare(r.TB.Context(), c, dispatch.Input{Actor: proceduretest.Actor(who)}, known)
}

func incidents(r *dispatchtest.Rig) []string {
	r.TB.Helper()
	list, err := r.Store.Incidents(r.TB.Context())
	if err != nil {
		r.TB.Fatal(err)
	}
	return slices.DeleteFunc(list, func(id string) bool { return id == procedure.RuleBook })
}

func TestDeclareAtOnce(t *testing.T) {
	t.Parallel()
	dispatchtest.OnBoth(t, func(t *testing.T, r *dispatchtest.Rig) {
		nothing := index(r)
		a, b := r.Dispatcher(procedure.OwnerIncident), r.Dispatcher(procedure.OwnerIncident)
		got := make([]*emergencyv1.Committed, 12)
		var group sync.WaitGroup
		for i := range got {
			group.Go(func() {
				d := []*dispatch.Dispatcher{a, b}[i%2]
				// Each pair is one declaration, sent to both instances at the same moment.
				c, err := declare(r, d, nothing, "carla", declaration(fmt.Sprintf("declare-%04d", i/2), false))
				if err != nil {
					t.Error(err)
				}
				got[i] = c
			})
		}
		group.Wait()
		ids := map[string]bool{}
		for i := 0; i < len(got); i += 2 {
			if got[i].GetIncident() != got[i+1].GetIncident() || got[i].GetRecordHash() != got[i+1].GetRecordHash() {
				t.Errorf("one declaration gave %s and %s", got[i].GetIncident(), got[i+1].GetIncident())
			}
			ids[got[i].GetIncident()] = true
		}
		want := []string{"e20261124.1", "e20261124.2", "e20261124.3", "e20261124.4", "e20261124.5", "e20261124.6"}
		if len(ids) != 6 || !slices.Equal(incidents(r), want) {
			t.Errorf("answered %v, stored %v", ids, incidents(r))
		}
		r.Check()
	})
}

// The same declaration is found again: by the index, by an instance that knows nothing, after midnight, and when it is
// sent as a drill the second time.
func TestDeclareTwice(t *testing.T) {
	t.Parallel()
	for _, known := range []string{"an index that is up to date", "an empty index", "an index that lags"} {
		t.Run(known, func(t *testing.T) {
			t.Parallel()
			r := dispatchtest.Memory(t)
			empty := index(r)
			r.Clock.Set(time.Date(2026, 11, 24, 23, 59, 59, 0, time.UTC))
			first := r.Dispatcher(procedure.OwnerIncident)
			for i, who := range []string{"carl", "anna", "carla"} {
				if _, err := declare(r, first, empty, who, declaration(fmt.Sprintf("other-%04d", i), false)); err != nil {
					t.Fatal(err)
				}
			}
			lags := index(r)
			mine := declaration("declare-mine", false)
			got, err := declare(r, first, empty, "carla", mine)
			if err != nil || got.GetIncident() != "e20261124.4" {
				t.Fatal(got, err)
			}
			idx := map[string]dispatch.Known{"an empty index": empty, "an index that lags": lags, "an index that is up to date": index(r)}[known]
			for _, day := range []string{"same day", "after midnight"} {
				again, err := declare(r, r.Dispatcher(procedure.OwnerIncident), idx, "carla2", mine) // her other key
				if err != nil || !again.GetRepeated() || again.GetIncident() != got.GetIncident() {
					t.Errorf("%s: %v, %v", day, again, err)
				}
				_, err = declare(r, r.Dispatcher(procedure.OwnerIncident), idx, "carla", declaration("declare-mine", true))
				refused(t, err, procedure.ReasonRequestIDReused)
				r.Clock.Advance(time.Minute)
			}
			other, err := declare(r, r.Dispatcher(procedure.OwnerIncident), idx, "carl", declaration("declare-mine", false))
			if err != nil || other.GetIncident() != "e20261125.1" {
				t.Errorf("another person under the same request id, the next day: %v, %v", other, err)
			}
			drill, err := declare(r, r.Dispatcher(procedure.OwnerIncident), idx, "carl", declaration("declare-drill", true))
			if err != nil || drill.GetIncident() != "x20261125.1" || !r.State("x20261125.1").Declared.Drill {
				t.Errorf("%v, %v", drill, err)
			}
			r.Check()
		})
	}
}

// racing is an index that learns of a declaration between two questions.
type racing struct {
	dispatch.Known
	then dispatch.Known
}

func (x *racing) Declared(person, id string) string {
	found := x.Known.Declared(person, id)
	x.Known = x.then
	return found
}

func (x *racing) LastNumber(prefix string) int {
	n := x.Known.LastNumber(prefix)
	x.Known = x.then
	return n
}

func TestDeclareWhileTheIndexCatchesUp(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	empty := index(r)
	c := declaration("declare-0001", false)
	first, err := declare(r, r.Dispatcher(procedure.OwnerIncident), empty, "carla", c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := declare(r, r.Dispatcher(procedure.OwnerIncident), &racing{empty, index(r)}, "carla", c)
	if err != nil || again.GetIncident() != first.GetIncident() {
		t.Errorf("%v, %v: one declaration, two incidents", again, err)
	}
}

func TestDeclareRefused(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	d := r.Dispatcher(procedure.OwnerIncident)
	_, err := declare(r, d, index(r), "dora", declaration("declare-0001", false))
	refused(t, err, procedure.ReasonRole)
	wrong := declaration("declare-0002", false)
	wrong.System = "unheard-of"
	_, err = declare(r, d, index(r), "carla", wrong)
	refused(t, err, procedure.ReasonField)
	if list := incidents(r); len(list) != 0 {
		t.Errorf("a refused declaration left %v", list)
	}
	got, err := declare(r, d, index(r), "carla", declaration("declare-0003", false))
	if err != nil || got.GetIncident() != "e20261124.1" {
		t.Errorf("%v, %v", got, err)
	}
}

// A number that only a stranger's message has, or an incident that a newer version wrote, stops no declaration.
func TestDeclarePastWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	publish := r.Store.(interface {
		Publish(subject string, data []byte) uint64
	}).Publish
	publish("emergency.e20261124-1", []byte("junk"))
	newer := r.Keys.NewWriter(t, r.Store, "e20261124.2", procedure.OwnerIncident)
	rec := historytest.Record(t, "e20261124.2", procedure.OwnerIncident, newer.Chain.Head(), 1, "x")
	rec.Events[0].Type = "incident.OfTheFuture"
	if _, err := newer.Append(t.Context(), r.Keys.Seal(t, rec)); err == nil {
		t.Log("appended; reading on fails, as it must")
	}
	d := r.Dispatcher(procedure.OwnerIncident)
	for i, want := range []string{"e20261124.1", "e20261124.3"} {
		c := declaration(fmt.Sprintf("declare-%04d", i), false)
		got, err := declare(r, d, projection.NewIncidents(), "carla", c)
		if err != nil || got.GetIncident() != want {
			t.Fatalf("%v, %v, want %s", got, err, want)
		}
		again, err := declare(r, r.Dispatcher(procedure.OwnerIncident), projection.NewIncidents(), "carla", c)
		if err != nil || again.GetIncident() != want {
			t.Errorf("again: %v, %v", again, err)
		}
	}
}

func TestDeclareOnFailingStore(t *testing.T) {
	t.Parallel()
	for _, how := range []historytest.Failure{historytest.NotStored, historytest.AckLost, historytest.AckLostAndDown} {
		t.Run(how.String(), func(t *testing.T) {
			t.Parallel()
			r := dispatchtest.Memory(t)
			faulty := &historytest.Faulty{Store: r.Store}
			cfg := r.Config(procedure.OwnerIncident)
			cfg.Store = faulty
			d, known := r.Build(cfg), index(r)
			c := declaration("declare-0001", false)
			faulty.Fail(how)
			if _, err := declare(r, d, known, "carla", c); err == nil {
				t.Fatal("accepted without an acknowledgement")
			}
			faulty.Heal()
			r.Clock.Advance(time.Second)
			got, err := declare(r, d, known, "carla", c)
			if err != nil || got.GetIncident() != "e20261124.1" || got.GetRepeated() != (how != historytest.NotStored) {
				t.Errorf("%v, %v", got, err)
			}
			if list := incidents(r); len(list) != 1 {
				t.Errorf("%v", list)
			}
		})
	}
}

// counting counts how often an incident was read from its beginning: once for each time it was not remembered.
type counting struct {
	history.Store
	mu    sync.Mutex
	loads map[string]int
}

func (c *counting) Load(ctx context.Context, id string, after uint64) ([]history.Message, error) {
	if after == 0 {
		c.mu.Lock()
		c.loads[id]++
		c.mu.Unlock()
	}
	return c.Store.Load(ctx, id, after)
}

type meter struct{ seen []string }

func (m *meter) Command(_ context.Context, _, command, outcome string, _ time.Duration) {
	m.seen = append(m.seen, command+" "+outcome)
}

func TestEveryOutcomeIsCounted(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	cfg, m := r.Config(procedure.OwnerIncident), &meter{}
	faulty := &historytest.Faulty{Store: r.Store}
	cfg.Meter, cfg.Store = m, faulty
	d, known := r.Build(cfg), index(r)
	c := declaration("declare-0001", false)
	_, _ = declare(r, d, known, "carla", c)
	_, _ = declare(r, d, known, "carla", c)
	_, _ = r.Do(d, incident, "dora", note("no"))
	faulty.Fail(historytest.NotStored)
	_, _ = r.Do(d, incident, "carla", note("later"))
	want := []string{"Declare accepted", "Declare repeated", "AnnotateLog refused", "AnnotateLog error"}
	if !slices.Equal(m.seen, want) {
		t.Errorf("counted %v, want %v", m.seen, want)
	}
}
