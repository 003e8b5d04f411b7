// SPDX-License-Identifier: Apache-2.0

package projection_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/projection"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const incident = proceduretest.DefaultIncident

// seen keeps what a runner gave it, and compares the live state with one that is evolved record by record.
type seen struct {
	mu       sync.Mutex
	ids      []string
	batches  int
	fail     error
	live     *projection.Incidents
	evolved  map[string]*procedure.State
	wrong    []string
	compared int
}

func (s *seen) Name() string { return "seen" }
func (s *seen) Version() int { return 1 }

func (s *seen) Dump(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := fmt.Fprintln(w, s.ids)
	return err
}

func (s *seen) Apply(batch []*projection.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.batches++
	for _, rec := range batch {
		for _, e := range rec.Events {
			s.ids = append(s.ids, rec.ID(e))
		}
	}
	for _, rec := range batch {
		s.compare(rec, len(batch) == 1)
	}
	return nil
}

// compare evolves; the live state stands at this record only if the record came alone.
func (s *seen) compare(rec *projection.Record, alone bool) {
	before, ok := s.evolved[rec.Incident]
	if !ok {
		before = procedure.NewState(rec.Incident)
	}
	next, err := procedure.Evolve(before, rec.Record, rec.Hash)
	if err != nil {
		s.wrong = append(s.wrong, err.Error())
		return
	}
	s.evolved[rec.Incident] = next
	if s.live == nil || !alone {
		return
	}
	s.compared++
	s.live.View(rec.Incident, func(live *procedure.State) {
		if live.Position != next.Position || proceduretest.Fingerprint(live) != proceduretest.Fingerprint(next) {
			s.wrong = append(s.wrong, fmt.Sprintf("%s/%d: the live state differs", rec.Incident, next.Position))
		}
	})
}

type running struct {
	*projection.Runner
	*projection.Incidents
	seen *seen
	errs chan error
}

// follow catches up and follows until the test ends.
func follow(t *testing.T, r *dispatchtest.Rig, cfg projection.Config) *running {
	t.Helper()
	x := &running{Incidents: projection.NewIncidents(), seen: &seen{evolved: map[string]*procedure.State{}}, errs: make(chan error, 1)}
	x.seen.live = x.Incidents
	cfg.Store, cfg.Keys, cfg.Log = r.Store, r.Keys.Ring, r.Log
	cfg.Projections = []projection.Projection{x.Incidents, x.seen}
	runner, err := projection.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	x.Runner = runner
	if err := runner.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	go func() { x.errs <- runner.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-x.errs; err != nil && x.seen.fail == nil {
			t.Error(err)
		}
	})
	return x
}

func (x *running) position(t *testing.T, id string) uint64 {
	t.Helper()
	at := uint64(0)
	x.View(id, func(s *procedure.State) { at = s.Position })
	return at
}

func dump(t *testing.T, p projection.Projection) string {
	t.Helper()
	var b bytes.Buffer
	if err := p.Dump(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// sameDump compares byte by byte and shows the first difference.
func sameDump(t *testing.T, live, again projection.Projection) {
	t.Helper()
	a, b := dump(t, live), dump(t, again)
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("a rebuild gives other bytes at %d: %.120q, live %.120q", i, b[i:], a[i:])
		}
	}
	if len(a) != len(b) || len(a) == 0 {
		t.Fatalf("a rebuild gives %d bytes, live are %d", len(b), len(a))
	}
}

func rebuilt(t *testing.T, r *dispatchtest.Rig) *projection.Incidents {
	t.Helper()
	p := projection.NewIncidents()
	if err := projection.Rebuild(t.Context(), projection.Config{Store: r.Store, Keys: r.Keys.Ring, Log: r.Log}, p); err != nil {
		t.Fatal(err)
	}
	return p
}

// What is there is caught up with, what comes is followed, and at every position the live state is the one that evolving
// record by record gives. A rebuild from nothing gives the same bytes.
func TestCatchUpAndFollow(t *testing.T) {
	t.Parallel()
	dispatchtest.OnBoth(t, func(t *testing.T, r *dispatchtest.Rig) {
		r.SeedStory(proceduretest.Called)
		x := follow(t, r, projection.Config{})
		if at := x.position(t, incident); at != r.State(incident).Position {
			t.Fatalf("after catching up: position %d", at)
		}
		whole := proceduretest.NewIncident(t, "e20261124.2")
		proceduretest.Story(proceduretest.ClosedDown)(whole)
		r.Seed(whole)
		d := r.Dispatcher(procedure.OwnerIncident)
		for i := range 5 {
			got, err := r.Do(d, incident, "carla", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: fmt.Sprint("note ", i)})
			if err != nil {
				t.Fatal(err)
			}
			if err := x.WaitFor(t.Context(), incident, got.GetLastPosition()); err != nil {
				t.Fatal(err)
			}
			if at := x.position(t, incident); at < got.GetLastPosition() {
				t.Fatalf("own write at %d is not read at %d", got.GetLastPosition(), at)
			}
		}
		if err := x.WaitFor(t.Context(), "e20261124.2", whole.State.Position); err != nil {
			t.Fatal(err)
		}
		x.seen.mu.Lock()
		if len(x.seen.wrong) > 0 || x.seen.compared < len(whole.Records)/2 {
			t.Errorf("%d states compared, wrong: %v", x.seen.compared, x.seen.wrong)
		}
		x.seen.mu.Unlock()
		sameDump(t, x.Incidents, rebuilt(t, r))
		if x.Declared("carla", whole.Records[0].GetRequestId()) == "" || x.LastNumber("e20261124.") != 2 || x.LastNumber("x20261124.") != 0 {
			t.Errorf("declared %q, last number %d", x.Declared("carla", whole.Records[0].GetRequestId()), x.LastNumber("e20261124."))
		}
		if x.Book().Position != r.Book().Position || len(x.Book().Contacts("anna")) == 0 {
			t.Errorf("the rule book stands at %d", x.Book().Position)
		}
		if n := x.Foreign(); n != 0 {
			t.Errorf("%d foreign records", n)
		}
	})
}

func TestForeignIsSkippedCountedAndAlarmed(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	publish := r.Store.(interface {
		Publish(subject string, data []byte) uint64
	}).Publish
	alarms := make(chan history.Reason, 10)
	x := follow(t, r, projection.Config{OnForeign: func(_ string, _ uint64, err *history.ForeignError) { alarms <- err.Reason }})
	thief := historytest.NewKeys(t, "thief").NewWriter(t, r.Store, incident, procedure.OwnerIncident)
	for _, c := range []struct {
		subject string
		data    []byte
		want    history.Reason
	}{
		{"emergency.e20261124-1", thief.Next(t, "forged"), history.ReasonUnknownKey},
		{"emergency.e20261124-1", r.Entries(incident)[0].Signed, history.ReasonGap},
		{"emergency.Nothing_Of_Ours", []byte("junk"), history.ReasonWrongSubject},
	} {
		publish(c.subject, c.data)
		if got := <-alarms; got != c.want {
			t.Errorf("alarmed for %s, want %s", got, c.want)
		}
	}
	got, err := r.Do(r.Dispatcher(procedure.OwnerIncident), incident, "carla", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "goes on"})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.WaitFor(t.Context(), incident, got.GetLastPosition()); err != nil {
		t.Fatal(err)
	}
	if n := x.Foreign(); n != 3 {
		t.Errorf("%d counted", n)
	}
	x.seen.mu.Lock()
	defer x.seen.mu.Unlock()
	if slices.Contains(x.seen.ids, "e20261124.1/3") {
		t.Errorf("a projection heard of a foreign record: %v", x.seen.ids)
	}
}

// poisons are records by a service's own key that this version cannot follow.
func poisons(t *testing.T, r *dispatchtest.Rig) map[string]func(*historytest.Writer) []byte {
	declared := r.Entries("e20261124.9")[0].Record.GetEvents()[0]
	return map[string]func(*historytest.Writer) []byte{
		"an event of the future": func(w *historytest.Writer) []byte {
			rec := historytest.Record(t, w.Chain.Incident(), procedure.OwnerIncident, w.Chain.Head(), 1, "x")
			rec.Events[0].Type = "incident.OfTheFuture"
			return r.Keys.Seal(t, rec)
		},
		"a schema of the future": func(w *historytest.Writer) []byte {
			rec := historytest.Record(t, w.Chain.Incident(), procedure.OwnerIncident, w.Chain.Head(), 1, "x")
			rec.Events[0].SchemaVersion = 99
			return r.Keys.Seal(t, rec)
		},
		"a fold that makes no sense": func(w *historytest.Writer) []byte {
			rec := historytest.Record(t, w.Chain.Incident(), procedure.OwnerIncident, w.Chain.Head(), 1, "x")
			rec.Events[0] = declared // an incident is declared once
			return r.Keys.Seal(t, rec)
		},
	}
}

// An incident that cannot be read stops itself alone, for good, and a rebuild agrees.
func TestPoisonStopsOneIncidentAlone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"an event of the future", "a schema of the future", "a fold that makes no sense"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := dispatchtest.Memory(t)
			r.SeedStory(proceduretest.Called)
			other := proceduretest.NewIncident(t, "e20261124.9")
			proceduretest.Story(proceduretest.Called)(other)
			r.Seed(other)
			x := follow(t, r, projection.Config{})
			w := r.Keys.NewWriter(t, r.Store, incident, procedure.OwnerIncident)
			if _, err := w.Append(t.Context(), poisons(t, r)[name](w)); err != nil && !isUnreadable(err) {
				t.Fatal(err)
			}
			// What follows in the same incident is authentic, and must not be folded either.
			rec := historytest.Record(t, incident, procedure.OwnerIncident, w.Chain.Head(), 1, "after")
			if _, err := r.Store.Append(t.Context(), incident, last(t, r), r.Keys.Seal(t, rec), nil); err != nil {
				t.Fatal(err)
			}
			d := r.Dispatcher(procedure.OwnerIncident)
			got, err := r.Do(d, "e20261124.9", "carla", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "the other goes on"})
			if err != nil {
				t.Fatal(err)
			}
			if err := x.WaitFor(t.Context(), "e20261124.9", got.GetLastPosition()); err != nil {
				t.Fatal(err)
			}
			c := &emergencyv1.AnnotateLogRequest{Meta: &emergencyv1.CommandMeta{Incident: incident, RequestId: "request-x"}, Entry: 1, Text: "x"}
			if _, err := d.Do(t.Context(), c, r.Input(procedure.NewState(incident), "carla", c)); err == nil {
				t.Error("a command was decided on a history that cannot be read")
			}
			x.seen.mu.Lock()
			if slices.Contains(x.seen.ids, incident+"/3") || slices.Contains(x.seen.ids, incident+"/4") || !slices.Contains(x.seen.ids, incident+"/2") {
				t.Errorf("a projection heard of what cannot be read, or of what follows it: %v", x.seen.ids)
			}
			x.seen.mu.Unlock()
			if name != "a fold that makes no sense" { // which only a fold can find
				alone := &seen{evolved: map[string]*procedure.State{}}
				if err := projection.Rebuild(t.Context(), projection.Config{Store: r.Store, Keys: r.Keys.Ring, Log: r.Log}, alone); err != nil {
					t.Fatal(err)
				}
				if len(alone.wrong) > 0 || slices.Contains(alone.ids, incident+"/4") {
					t.Errorf("a projection alone heard of %v: %v", alone.ids, alone.wrong)
				}
			}
			looks := &witness{} // and no Incidents beside it
			if err := projection.Rebuild(t.Context(), projection.Config{Store: r.Store, Keys: r.Keys.Ring, Log: r.Log}, looks); err != nil {
				t.Fatal(err)
			}
			if len(looks.wrong) > 0 || slices.Contains(looks.after, incident+"/3") || !slices.Contains(looks.after, incident+"/2") || !slices.Contains(looks.after, "e20261124.9/3") {
				t.Errorf("a witness saw %v: %v", looks.after, looks.wrong)
			}
			// Caught up in one batch, or followed one by one: the same is kept.
			sameDump(t, x.Incidents, rebuilt(t, r))
		})
	}
}

// witness notes what it was shown.
type witness struct {
	seen
	last  *projection.Record
	after []string
	wrong []string
}

func (w *witness) Apply([]*projection.Record) error { return nil }

func (w *witness) Before(s *procedure.State, rec *projection.Record) error {
	if s.Incident != rec.Incident || s.Position+1 != rec.Record.GetFirstPosition() {
		w.wrong = append(w.wrong, fmt.Sprintf("%s/%d before %s", s.Incident, s.Position, rec.ID(rec.Events[0])))
	}
	w.last = rec
	return nil
}

func (w *witness) After(rec *projection.Record) {
	if rec != w.last {
		w.wrong = append(w.wrong, "after "+rec.ID(rec.Events[0])+" without before")
	}
	for _, e := range rec.Events {
		w.after = append(w.after, rec.ID(e))
	}
}

// The error of a witness stops the runner, as that of any projection does.
func TestFailingWitnessStopsTheRunner(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Called)
	failing := &failingWitness{}
	err := projection.Rebuild(t.Context(), projection.Config{Store: r.Store, Keys: r.Keys.Ring, Log: r.Log}, failing)
	if !errors.Is(err, errWitness) || len(failing.after) > 0 {
		t.Errorf("%v after %v", err, failing.after)
	}
}

// A panic in the fold of an incident parks it, and nothing else (hardening 2, poison event): whether the fold itself has a defect, or a
// witness in what it makes of it.
func TestPanicParksOneIncident(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"before", "fold", "after"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			r := dispatchtest.Memory(t)
			r.SeedStory(proceduretest.Called)
			other := proceduretest.NewIncident(t, "e20261124.9")
			proceduretest.Story(proceduretest.Called)(other)
			r.Seed(other)
			incidents, looks := projection.NewIncidents(), &panickingWitness{}
			reader, err := projection.New(projection.Config{Store: r.Store, Keys: r.Keys.Ring, Log: r.Log, Projections: []projection.Projection{incidents, looks}})
			if err != nil {
				t.Fatal(err)
			}
			if err := reader.CatchUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			if looks.where = where; where == "fold" {
				incidents.Break(incident)
			}
			note := &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "x"}
			for _, id := range []string{incident, other.State.Incident} {
				if _, err := r.Do(r.Dispatcher(procedure.OwnerIncident), id, "carla", note); err != nil {
					t.Fatal(err)
				}
			}
			if err := reader.CatchUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			if from, err := incidents.Parked(incident); err == nil || from != 3 {
				t.Errorf("parked from %d: %v", from, err)
			}
			if reader.Position(other.State.Incident) != 3 || !incidents.View(other.State.Incident, func(*procedure.State) {}) || !slices.Contains(looks.witness.after, "e20261124.9/3") {
				t.Errorf("the other incident does not go on: %v", looks.after)
			}
			if incidents.View(incident, func(*procedure.State) {}) || reader.Position(incident) != 2 {
				t.Error("half a fold is shown")
			}
		})
	}
}

// panickingWitness has a defect with one incident.
type panickingWitness struct {
	witness
	where string
}

func (w *panickingWitness) Before(s *procedure.State, rec *projection.Record) error {
	if w.where == "fold" && rec.Incident == incident {
		return nil // there is no state to look at
	}
	if w.where == "before" && rec.Incident == incident {
		panic("boom")
	}
	return w.witness.Before(s, rec)
}

func (w *panickingWitness) After(rec *projection.Record) {
	if w.where == "after" && rec.Incident == incident {
		panic("boom")
	}
	w.witness.After(rec)
}

type failingWitness struct{ witness }

var errWitness = errors.New("it cannot say what this is")

func (*failingWitness) Before(*procedure.State, *projection.Record) error { return errWitness }

func isUnreadable(err error) bool {
	var u *history.UnreadableError
	return errors.As(err, &u)
}

func last(t *testing.T, r *dispatchtest.Rig) uint64 {
	t.Helper()
	n, err := r.Store.Last(t.Context(), incident)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWaitForEndsWithItsContext(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	x := follow(t, r, projection.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := x.WaitFor(ctx, incident, 99); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for what never comes: %v", err)
	}
	if err := x.WaitFor(ctx, incident, 1); err != nil {
		t.Errorf("waiting for what is here: %v", err)
	}
}

// A projection that missed a fact would answer wrongly: the runner stops and says which.
func TestFailingProjectionStopsTheRunner(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	broken := &seen{fail: errors.New("disk full"), evolved: map[string]*procedure.State{}}
	err := projection.Rebuild(t.Context(), projection.Config{Store: r.Store, Keys: r.Keys.Ring, Log: r.Log}, projection.NewIncidents(), broken)
	if !errors.Is(err, broken.fail) {
		t.Errorf("got %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	if _, err := projection.New(projection.Config{}); err == nil {
		t.Error("a runner without a store")
	}
}

// EachWaiting gives the incidents that may wait for somebody, in order, and leaves those out that are over; one that is taken up again is back.
func TestEachWaiting(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Called)
	over := proceduretest.NewIncident(t, "e20261124.2")
	proceduretest.Story(proceduretest.ClosedDown)(over)
	r.Seed(over)
	x := follow(t, r, projection.Config{})
	ids := func(each func(func(*procedure.State))) (list []string) {
		each(func(s *procedure.State) { list = append(list, s.Incident) })
		return list
	}
	if all := ids(x.Each); !slices.Equal(all, []string{incident, over.State.Incident}) {
		t.Errorf("all: %v", all)
	}
	if got := ids(x.EachWaiting); !slices.Equal(got, []string{incident}) {
		t.Errorf("waiting: %v", got)
	}
	got, err := r.Do(r.Dispatcher(procedure.OwnerArbitration), over.State.Incident, "carla", proceduretest.FileDispute(emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1))
	if err != nil {
		t.Fatal(err)
	}
	if err := x.WaitFor(t.Context(), over.State.Incident, got.GetLastPosition()); err != nil {
		t.Fatal(err)
	}
	if got := ids(x.EachWaiting); !slices.Equal(got, []string{incident, over.State.Incident}) {
		t.Errorf("after a dispute: %v", got)
	}
}
