// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/cli/client"
	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// killed is how often epatchd is killed (issue 3, section 8.4).
const killed = 30

// acked is a command that was acknowledged.
type acked struct {
	person, command, request string
	done                     *emergencyv1.Committed
	// given is when it was sent first, answered when its answer came.
	given, answered time.Time
}

// load sends commands as several people at a time, and whenever the server is away sends the same command again once it is
// back: so each ends acknowledged, and one whose answer was lost by a kill is sent twice.
type load struct {
	t    *testing.T
	data string
	// connect replaces the connection to one server; optional.
	connect func(person string) (*client.Client, error)

	mu        sync.Mutex
	api       string // empty while the server is away
	changed   chan struct{}
	acks      []acked
	again     int // commands that had to be sent again
	incidents []string
	stop      bool
	limit     int // no more commands than this are given; 0 for any number
	// excused tells which refusals a fault explains: such a command is given up, and must not be stored. Optional.
	excused func(incident string, given time.Time, r *procedure.Refusal) bool
	refused int // commands that were given up
}

// errExcused is a command that was refused, as the fault wants it.
var errExcused = errors.New("refused, and excused")

// set tells the workers where the server is; empty means away.
func (l *load) set(api string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.api = api
	l.poke()
}

func (l *load) poke() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// more lets some more commands be given, where there is a limit, and tells how many were acknowledged.
func (l *load) more() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = len(l.acks) + 60 // so that there are always some under way, and not more histories than the machine reads in time
	l.poke()
	return len(l.acks)
}

// await waits until something is so; it is asked under the lock, after each change.
func (l *load) await(so func() bool) bool {
	ctx, cancel := context.WithTimeout(l.t.Context(), testenv.Patience)
	defer cancel()
	for {
		l.mu.Lock()
		ok, changed := so(), l.changed
		l.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// server is the address of a server that is not the one that was seen to be gone.
func (l *load) server(gone string) (api string) {
	l.await(func() bool { api = l.api; return api != "" && api != gone })
	return api
}

// worker is one person's connection.
type worker struct {
	l      *load
	person string
	n      int
	api    string
	c      *client.Client
}

func (w *worker) dial(gone string) error {
	if w.c != nil {
		_ = w.c.Close() // its server is gone
	}
	var err error
	if w.l.connect != nil {
		w.c, err = w.l.connect(w.person)
		return err
	}
	if w.api = w.l.server(gone); w.api == "" {
		return errors.New("the server stays away")
	}
	api := w.api
	w.c, err = client.Dial(client.Config{
		Server: "localhost:1", Profile: filepath.Join(w.l.data, "people", w.person), Keyring: filepath.Join(w.l.data, "services.keys.json"), Patience: time.Nanosecond,
		Dialer: func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", api)
		},
	})
	return err
}

// give sends a command until it is answered.
func (w *worker) give(cmd procedure.Command) (*emergencyv1.Committed, error) {
	given := time.Now()
	for try := 0; ; try++ {
		if w.c == nil {
			if err := w.dial(""); err != nil {
				return nil, err
			}
		}
		ctx, cancel := context.WithTimeout(w.l.t.Context(), 20*time.Second)
		done, err := w.c.Send(ctx, cmd)
		cancel()
		if err == nil {
			w.l.keep(acked{w.person, procedure.CommandName(cmd), cmd.GetMeta().GetRequestId(), done, given, time.Now()}, try > 0)
			return done, nil
		}
		if r, refused := rpc.RefusalOf(err); refused {
			if w.l.excused != nil && w.l.excused(cmd.GetMeta().GetIncident(), given, r) {
				w.l.mu.Lock()
				w.l.refused++
				w.l.poke()
				w.l.mu.Unlock()
				return nil, errExcused
			}
			return nil, fmt.Errorf("%s by %s: %w", procedure.CommandName(cmd), w.person, err)
		}
		if err := w.dial(w.api); err != nil {
			return nil, err
		}
	}
}

func (l *load) keep(a acked, again bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks = append(l.acks, a)
	if again {
		l.again++
	}
	l.poke()
}

func (w *worker) meta(incident string) *emergencyv1.CommandMeta {
	w.n++
	return &emergencyv1.CommandMeta{Incident: incident, RequestId: fmt.Sprintf("kill-%s-%04d", w.person, w.n)}
}

func (w *worker) declare(drill bool) (string, error) {
	done, err := w.give(&emergencyv1.DeclareRequest{
		Meta: w.meta(""), System: demobook.System, Symptom: "it fails under load", Severity: emergencyv1.Severity_SEVERITY_NORMAL,
		ReasonClass: emergencyv1.ReasonClass_REASON_CLASS_OUTAGE, Reason: "the load of a test", Drill: drill,
	})
	return done.GetIncident(), err
}

// run gives commands of three services until it is told to stop: notes, check-ins, and now and then a new incident.
func (w *worker) run() error {
	defer func() {
		if w.c != nil {
			_ = w.c.Close()
		}
	}()
	for {
		w.l.await(func() bool { return w.l.stop || w.l.limit == 0 || len(w.l.acks) < w.l.limit })
		w.l.mu.Lock()
		stop, incident := w.l.stop, w.l.incidents[w.n%len(w.l.incidents)]
		w.l.mu.Unlock()
		if stop {
			return nil
		}
		var err error
		switch {
		case w.n%100 == 99:
			_, err = w.declare(true)
		case w.n%3 == 0:
			_, err = w.give(&emergencyv1.CheckInRequest{Meta: w.meta(incident)})
		default:
			_, err = w.give(&emergencyv1.AnnotateLogRequest{Meta: w.meta(incident), Entry: 1, Text: fmt.Sprintf("note %d of %s", w.n, w.person)})
		}
		if err != nil && !errors.Is(err, errExcused) {
			return err
		}
	}
}

// TestKill: epatchd is killed 30 times at random moments under load. Every acknowledged command is in the history once, in
// the order of its sender, and the histories are sound.
func TestKill(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	l, log := &load{t: t, data: data, changed: make(chan struct{})}, testenv.NewLog(t)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 1))
	start := func() *testenv.Child {
		return testenv.StartChild(t, log, "all", "--data", data, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--log-level", "warn")
	}
	ready := func(c *testenv.Child) {
		t.Helper()
		select {
		case <-c.Ready:
			l.set(c.Addrs.API)
		case <-c.Ended:
			t.Fatalf("epatchd ended: %v", c.Stop())
		}
	}
	child := start()
	ready(child)
	group, failed := l.start()
	early := 0
	for range killed {
		select {
		case <-child.Ready:
			l.set(child.Addrs.API)
			l.mu.Lock()
			goal := len(l.acks) + random.IntN(60)
			l.mu.Unlock()
			if !l.await(func() bool { return len(l.acks) >= goal || len(failed) > 0 }) {
				t.Fatal("no command is acknowledged any more")
			}
		case <-time.After(time.Duration(random.IntN(1500)) * time.Millisecond): // in the middle of its start
			early++
		}
		l.set("")
		child.Kill()
		child = start()
		if random.IntN(4) > 0 {
			ready(child)
		}
	}
	ready(child)
	l.mu.Lock()
	l.stop = true
	l.mu.Unlock()
	group.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	must(t, child.Stop())
	l.check(t)
	t.Logf("seed %d: killed %d times, %d of them while it started; %d commands acknowledged, %d of them sent again after a kill", seed, killed, early, len(l.acks), l.again)
}

// start sets everybody to work. Whoever fails says so in failed, and raises the limit, so that who waits for commands sees it.
func (l *load) start() (group *sync.WaitGroup, failed chan error) {
	group, failed = new(sync.WaitGroup), make(chan error, 8)
	for _, w := range l.team() {
		group.Go(func() {
			if err := w.run(); err != nil {
				failed <- err
				l.more()
			}
		})
	}
	return group, failed
}

// team declares the incidents and puts people on standby in them.
func (l *load) team() (list []*worker) {
	l.t.Helper()
	l.incidents, list = l.declared(0)
	return list
}

// declared are two new incidents and who stands by in them. Their request ids are numbered from n.
func (l *load) declared(n int) (incidents []string, list []*worker) {
	l.t.Helper()
	first := &worker{l: l, person: "carla", n: n}
	for range 2 {
		incident, err := first.declare(false)
		must(l.t, err)
		incidents = append(incidents, incident)
		first.paged(incident)
	}
	for person, step := range map[string]emergencyv1.ResponderStep{
		"carla": emergencyv1.ResponderStep_RESPONDER_STEP_EXECUTE, "carl": emergencyv1.ResponderStep_RESPONDER_STEP_OBSERVE,
		"anna": emergencyv1.ResponderStep_RESPONDER_STEP_FIRST_REVIEW, "bert": emergencyv1.ResponderStep_RESPONDER_STEP_SECOND_REVIEW,
	} {
		w := &worker{l: l, person: person, n: first.n}
		for _, incident := range incidents {
			accept := testenv.Accept(step, "phone of "+person)
			accept.Meta = w.meta(incident)
			_, err := w.give(accept)
			must(l.t, err)
		}
		list = append(list, w)
	}
	return incidents, list
}

// paged waits until the teams were called: only then there are slots to take.
func (w *worker) paged(incident string) {
	w.l.t.Helper()
	ctx, cancel := context.WithTimeout(w.l.t.Context(), testenv.Patience)
	defer cancel()
	_, err := w.c.Query().ReadIncident(ctx, &dashboardv1.ReadIncidentRequest{Incident: incident, AtLeast: 1})
	must(w.l.t, err)
	called := errors.New("called")
	if err := w.c.Watch(ctx, incident, func(m *dashboardv1.WatchIncidentResponse) error {
		if testenv.Paged(m.GetIncident()) {
			return called
		}
		return nil
	}); !errors.Is(err, called) {
		w.l.t.Fatal(err)
	}
}

// check holds every acknowledgement against what is stored.
func (l *load) check(t *testing.T) {
	t.Helper()
	node, err := app.Open(t.Context(), app.Settings{Data: l.data, Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0", HTTPS: "127.0.0.1:0", LogFormat: "text", LogLevel: "warn", LogTo: testenv.NewLog(t)})
	must(t, err)
	defer func() { must(t, node.Close()) }()
	l.checkStore(t, node.Store())
	if l.again == 0 {
		t.Error("no command had to be sent again: the kills hit nothing")
	}
}

func (l *load) checkStore(t *testing.T, store history.Store) (lost, doubled int) {
	t.Helper()
	report := sound(t, store, filepath.Join(l.data, "services.keys.json"))
	stored, mine := map[string][]*emergencyv1.Record{}, 0
	for _, m := range messages(t, store) {
		rec := openRecord(t, m)
		key := rec.GetActor().GetPerson() + " " + rec.GetCommand() + " " + rec.GetRequestId()
		stored[key] = append(stored[key], rec)
		if len(rec.GetRequestId()) > 5 && rec.GetRequestId()[:5] == "kill-" {
			mine++
		}
	}
	last := map[string]uint64{} // by person and incident
	for _, a := range l.acks {
		list := stored[a.person+" "+a.command+" "+a.request]
		if len(list) != 1 || list[0].GetIncident() != a.done.GetIncident() || list[0].GetFirstPosition() != a.done.GetFirstPosition() {
			lost, doubled = lost+max(0, 1-len(list)), doubled+max(0, len(list)-1)
			t.Errorf("%s %s by %s, acknowledged at position %d of %s, is stored %d times", a.command, a.request, a.person, a.done.GetFirstPosition(), a.done.GetIncident(), len(list))
			continue
		}
		of := a.person + " " + a.done.GetIncident()
		if a.done.GetFirstPosition() <= last[of] {
			t.Errorf("%s by %s stands at position %d, and was given after one at %d", a.request, a.person, a.done.GetFirstPosition(), last[of])
		}
		last[of] = a.done.GetLastPosition()
	}
	if mine != len(l.acks) {
		t.Errorf("%d commands of the load are stored, %d were acknowledged", mine, len(l.acks))
	}
	t.Logf("%d messages, %d records, %d events in %d histories", report.Messages, report.Records, report.Events, len(report.Heads))
	return lost, doubled
}

func openRecord(t testing.TB, m history.Message) *emergencyv1.Record {
	t.Helper()
	var signed emergencyv1.SignedRecord
	rec := new(emergencyv1.Record)
	must(t, proto.Unmarshal(m.Data, &signed))
	must(t, proto.Unmarshal(signed.GetRecord(), rec))
	return rec
}
