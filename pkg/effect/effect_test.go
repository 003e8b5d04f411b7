// SPDX-License-Identifier: Apache-2.0

package effect_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/effect/memory"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	historymemory "cacert.org/emergency/pkg/history/memory"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/projection"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const incident = proceduretest.DefaultIncident

var errDead = errors.New("the process is dead")

// ledger is one that can die with its process, lose marks and fail for a while; it tells of each outcome.
type ledger struct {
	effect.Ledger
	mu         sync.Mutex
	dead       bool
	loseMarks  bool
	failFinish int
	finished   map[string][]effect.State
	news       chan struct{}
}

func newLedger(below effect.Ledger) *ledger {
	return &ledger{Ledger: below, finished: map[string][]effect.State{}, news: make(chan struct{}, 1000)}
}

func (l *ledger) Intend(ctx context.Context, key string) (bool, effect.State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return false, "", errDead
	}
	return l.Ledger.Intend(ctx, key)
}

func (l *ledger) Finish(ctx context.Context, key string, s effect.State) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead || ctx.Err() != nil {
		return errDead
	}
	if l.failFinish > 0 {
		l.failFinish--
		return errors.New("the ledger is away")
	}
	l.finished[key] = append(l.finished[key], s)
	defer func() { l.news <- struct{}{} }()
	return l.Ledger.Finish(ctx, key, s)
}

func (l *ledger) SetMark(ctx context.Context, owner string, m history.Mark) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead || l.loseMarks {
		return errDead
	}
	return l.Ledger.SetMark(ctx, owner, m)
}

func (l *ledger) die() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
}

// outcomes are all that was written for a key.
func (l *ledger) outcomes(key string) []effect.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.finished[key])
}

// await waits until a key has an outcome.
func (l *ledger) await(t *testing.T, key string) []effect.State {
	t.Helper()
	for {
		if got := l.outcomes(key); len(got) > 0 {
			return got
		}
		select {
		case <-l.news:
		case <-t.Context().Done():
			t.Fatalf("no outcome of %s", key)
		}
	}
}

// counts counts acts.
type counts struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counts) add(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[key]++
	return c.n[key]
}

func (c *counts) of(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[key]
}

// notesOnly plans for notes alone; their text is the key.
func notesOnly(plan func(text string) []effect.Effect) effect.Planner {
	return func(_ context.Context, _ *projection.Record, e projection.Event) []effect.Effect {
		if n, ok := e.Payload.(*emergencyv1.LogAnnotated); ok {
			return plan(n.GetText())
		}
		return nil
	}
}

// source follows the rig's histories, for the runners of a test.
func source(t *testing.T, r *dispatchtest.Rig) effect.Source {
	t.Helper()
	reader, err := projection.New(projection.Config{Store: r.Store, Keys: r.Keys.Ring, Log: r.Log, Projections: []projection.Projection{projection.NewIncidents()}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := reader.Run(ctx); err != nil && !errors.Is(err, history.ErrRolledBack) {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); group.Wait() })
	return reader
}

// run starts a runner; stop ends it and waits.
func run(t *testing.T, r *dispatchtest.Rig, l effect.Ledger, plan effect.Planner) (*effect.Runner, func()) {
	t.Helper()
	runner, err := effect.New(effect.Config{Owner: procedure.OwnerNotification, Instance: "one", Source: source(t, r), Ledger: l, Plan: plan, Log: r.Log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- runner.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return runner, stop
}

// idle waits until everything that was planned is finished.
func idle(t *testing.T, runner *effect.Runner) {
	t.Helper()
	for runner.Waiting() > 0 {
		if t.Context().Err() != nil {
			t.Fatalf("%d records wait", runner.Waiting())
		}
		runtime.Gosched()
	}
}

// note records one event to plan for.
func note(t *testing.T, r *dispatchtest.Rig, text string) {
	t.Helper()
	if _, err := r.Do(r.Dispatcher(procedure.OwnerIncident), incident, "carla", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: text}); err != nil {
		t.Fatal(err)
	}
}

func declared(t *testing.T) *dispatchtest.Rig {
	t.Helper()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	return r
}

func TestOncePerKey(t *testing.T) {
	t.Parallel()
	for name, loseMarks := range map[string]bool{"mark kept": false, "mark lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := declared(t)
			l, acts := newLedger(memory.New()), &counts{}
			l.loseMarks = loseMarks
			plan := notesOnly(func(text string) []effect.Effect {
				var list []effect.Effect
				for _, kind := range []string{"mail", "push"} {
					list = append(list, effect.Effect{Key: text + "/" + kind, Repeatable: kind == "push", Run: func(context.Context) error {
						acts.add(text + "/" + kind)
						return nil
					}})
				}
				return list
			})
			for i := range 5 {
				note(t, r, fmt.Sprint("before ", i))
			}
			for range 3 { // three starts
				_, stop := run(t, r, l, plan)
				for i := range 5 {
					l.await(t, fmt.Sprintf("before %d/mail", i))
					l.await(t, fmt.Sprintf("before %d/push", i))
				}
				stop()
			}
			note(t, r, "after")
			_, stop := run(t, r, l, plan)
			l.await(t, "after/push")
			l.await(t, "after/mail")
			stop()
			for key, n := range acts.n {
				if n != 1 || len(l.outcomes(key)) != 1 || l.outcomes(key)[0] != effect.Done {
					t.Errorf("%s was done %d times, outcomes %v", key, n, l.outcomes(key))
				}
			}
			if len(acts.n) != 12 {
				t.Errorf("%d acts", len(acts.n))
			}
		})
	}
}

// Where a process dies decides what its successor may do: what can be repeated is repeated, of the rest it is reported
// once that nobody knows.
func TestCrash(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"after the intent", "in the act", "before the outcome is kept", "before the mark is kept"} {
		for _, repeatable := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, repeatable %t", point, repeatable), func(t *testing.T) {
				t.Parallel()
				r := declared(t)
				below, acts, unknowns := memory.New(), &counts{}, &counts{}
				note(t, r, "x")
				crashed := make(chan struct{})
				first := newLedger(below)
				die := func() { first.die(); close(crashed) }
				plan := func(l *ledger, mortal bool) effect.Planner {
					return notesOnly(func(text string) []effect.Effect {
						return []effect.Effect{{Key: text, Repeatable: repeatable, Run: func(ctx context.Context) error {
							if mortal && point == "after the intent" {
								die()
								<-ctx.Done()
								return ctx.Err()
							}
							acts.add(text)
							if mortal && point == "in the act" {
								die()
								<-ctx.Done()
								return ctx.Err()
							}
							if mortal && point == "before the outcome is kept" {
								die()
							}
							return nil
						}, Unknown: func(context.Context) error { unknowns.add(text); return nil }}}
					})
				}
				_, stop := run(t, r, first, plan(first, true))
				if point == "before the mark is kept" {
					first.await(t, "x")
					die()
				}
				<-crashed
				stop()

				for i := range 2 { // the second successor finds nothing left to do
					next := newLedger(below)
					_, stop = run(t, r, next, plan(next, false))
					note(t, r, fmt.Sprint("probe ", r.RequestID()))
					s := r.State(incident)
					next.await(t, s.Notes[len(s.Notes)-1].Result)
					if i == 0 && point != "before the mark is kept" {
						next.await(t, "x")
					}
					stop()
				}
				wantActs, wantUnknown := 1, 0
				switch {
				case repeatable && (point == "in the act" || point == "before the outcome is kept"):
					wantActs = 2
				case !repeatable && point == "after the intent":
					wantActs, wantUnknown = 0, 1
				case !repeatable && point != "before the mark is kept":
					wantUnknown = 1
				}
				if acts.of("x") != wantActs || unknowns.of("x") != wantUnknown {
					t.Errorf("done %d times, unknown %d times; want %d and %d", acts.of("x"), unknowns.of("x"), wantActs, wantUnknown)
				}
			})
		}
	}
}

// An effect that hangs holds up no other. The mark stays before it, so that nothing is lost.
func TestHangingEffect(t *testing.T) {
	t.Parallel()
	r := declared(t)
	l := newLedger(memory.New())
	release, hangs := make(chan struct{}), make(chan struct{})
	plan := notesOnly(func(text string) []effect.Effect {
		return []effect.Effect{{Key: text, Run: func(context.Context) error {
			if text == "hangs" {
				close(hangs)
				<-release
			}
			return nil
		}}}
	})
	note(t, r, "hangs")
	hanging, err := r.Store.Last(t.Context(), incident)
	if err != nil {
		t.Fatal(err)
	}
	runner, stop := run(t, r, l, plan)
	<-hangs
	d := r.Dispatcher(procedure.OwnerIncident)
	for i := range 120 { // more than after which the mark is kept
		if _, err := r.Do(d, incident, "carla", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		l.await(t, fmt.Sprint(i))
	}
	if mark, err := l.Mark(t.Context(), procedure.OwnerNotification); err != nil || mark.Sequence >= hanging {
		t.Errorf("the mark is at %d, the effect of %d is not finished: %v", mark.Sequence, hanging, err)
	}
	if n := runner.Waiting(); n < 120 {
		t.Errorf("%d records wait", n)
	}
	close(release)
	l.await(t, "hangs")
	stop()
	last, err := r.Store.Last(t.Context(), incident)
	if err != nil {
		t.Fatal(err)
	}
	if mark, err := l.Mark(t.Context(), procedure.OwnerNotification); err != nil || mark.Sequence != last || mark.Hash == "" {
		t.Errorf("the mark is %v, the last record %d: %v", mark, last, err)
	}
}

// More acts than have a place hang in one lane: they hold up their own lane alone, and go on in it in their order.
func TestHangingLane(t *testing.T) {
	t.Parallel()
	r := declared(t)
	l := newLedger(memory.New())
	release, hang := make(chan struct{}), make(chan struct{}, 2*effect.AtOnce)
	plan := notesOnly(func(text string) (list []effect.Effect) {
		if text != "black hole" {
			return []effect.Effect{{Key: text, Lane: "sms", Run: func(context.Context) error { return nil }}}
		}
		for i := range 2 * effect.AtOnce {
			list = append(list, effect.Effect{Key: fmt.Sprint(text, i), Lane: "mail", Run: func(context.Context) error {
				hang <- struct{}{}
				<-release
				return nil
			}})
		}
		return list
	})
	note(t, r, "black hole")
	runner, stop := run(t, r, l, plan)
	for range effect.AtOnce {
		<-hang
	}
	note(t, r, "another channel")
	if got := l.await(t, "another channel"); got[0] != effect.Done {
		t.Errorf("the other lane's is %s", got[0])
	}
	if n := len(hang); n > 0 {
		t.Errorf("%d more than have a place", n)
	}
	close(release)
	idle(t, runner)
	stop()
	if got := l.outcomes(fmt.Sprint("black hole", 2*effect.AtOnce-1)); len(got) != 1 || got[0] != effect.Done {
		t.Errorf("the last of the lane is %v", got)
	}
}

// Two events that want the same act while it is under way get it once, and nobody reports it as unknown.
func TestSameActTwiceAtOnce(t *testing.T) {
	t.Parallel()
	r := declared(t)
	l, acts := newLedger(memory.New()), &counts{}
	begun, release := make(chan struct{}), make(chan struct{})
	plan := notesOnly(func(text string) []effect.Effect {
		list := []effect.Effect{{Key: text, Run: func(context.Context) error { return nil }}}
		if text == "a" || text == "b" {
			list = append(list, effect.Effect{Key: "tell bert", Run: func(context.Context) error {
				acts.add("told")
				close(begun)
				<-release
				return nil
			}, Unknown: func(context.Context) error { acts.add("unknown"); return nil }})
		}
		return list
	})
	runner, stop := run(t, r, l, plan)
	note(t, r, "a")
	<-begun
	note(t, r, "b")
	note(t, r, "c")
	l.await(t, "c")
	close(release)
	if got := l.await(t, "tell bert"); !slices.Equal(got, []effect.State{effect.Done}) {
		t.Errorf("outcomes %v", got)
	}
	idle(t, runner)
	stop()
	if acts.of("told") != 1 || acts.of("unknown") != 0 || runner.Waiting() != 0 {
		t.Errorf("told %d times, unknown %d times, %d wait", acts.of("told"), acts.of("unknown"), runner.Waiting())
	}
}

// What fails for a while is tried again: a repeatable act, the report that an outcome is unknown, and keeping an outcome.
// What can never succeed is given up, and is no reason to stay.
func TestTriesAgain(t *testing.T) {
	t.Parallel()
	r := declared(t)
	below := memory.New()
	if _, _, err := below.Intend(t.Context(), "interrupted"); err != nil {
		t.Fatal(err)
	}
	l, acts := newLedger(below), &counts{}
	l.failFinish = 1
	flaky := func(key string) func(context.Context) error {
		return func(context.Context) error {
			if acts.add(key) < 3 {
				return errors.New("away")
			}
			return nil
		}
	}
	never := func(context.Context) error {
		acts.add("never")
		return fmt.Errorf("%w: no such thing", effect.ErrGiveUp)
	}
	once := func(context.Context) error { acts.add("once"); return errors.New("no") }
	plan := notesOnly(func(string) []effect.Effect {
		return []effect.Effect{
			{Key: "repeatable", Repeatable: true, Run: flaky("repeatable")},
			{Key: "interrupted", Run: flaky("acted again"), Unknown: flaky("unknown")},
			{Key: "never", Repeatable: true, Run: never},
			{Key: "once", Run: once},
		}
	})
	runner, stop := run(t, r, l, plan)
	note(t, r, "x")
	for key, want := range map[string]effect.State{"repeatable": effect.Done, "interrupted": effect.Unknown, "never": effect.Failed, "once": effect.Failed} {
		if got := l.await(t, key); !slices.Equal(got, []effect.State{want}) {
			t.Errorf("%s: %v, want %s", key, got, want)
		}
	}
	stop()
	if acts.of("repeatable") != 3 || acts.of("unknown") != 3 || acts.of("acted again") != 0 || acts.of("never") != 1 || acts.of("once") != 1 {
		t.Errorf("%v", acts.n)
	}
	if n := runner.Waiting(); n != 0 {
		t.Errorf("%d records still wait", n)
	}
}

// An operator can ask what fails: what is tried again and why, what was given up, and not what came to a good end.
func TestTrouble(t *testing.T) {
	t.Parallel()
	r := declared(t)
	l, acts, again, mended := newLedger(memory.New()), &counts{}, make(chan struct{}), make(chan struct{})
	stuck := func(context.Context) error {
		if acts.add("stuck") == 2 { // so the first failure has been seen
			close(again)
		}
		select {
		case <-mended:
			return nil
		default:
			return errors.New("away")
		}
	}
	plan := notesOnly(func(string) []effect.Effect {
		return []effect.Effect{
			{Key: "stuck", Repeatable: true, Run: stuck}, {Key: "good", Run: func(context.Context) error { return nil }},
			{Key: "never", Run: func(context.Context) error { return errors.New("no such thing") }},
		}
	})
	runner, _ := run(t, r, l, plan)
	note(t, r, "x")
	l.await(t, "never")
	l.await(t, "good")
	select {
	case <-again:
	case <-t.Context().Done():
		t.Fatal("it is not tried again")
	}
	found := map[string]effect.Trouble{}
	for _, x := range runner.Trouble() {
		found[x.Key] = x
	}
	if x := found["stuck"]; x.Error != "away" || x.Tries < 1 || x.GivenUp {
		t.Errorf("what is tried again: %+v", x)
	}
	if x := found["never"]; x.Error != "no such thing" || x.Tries != 1 || !x.GivenUp {
		t.Errorf("what was given up: %+v", x)
	}
	close(mended)
	l.await(t, "stuck")
	if list := runner.Trouble(); len(list) != 1 || list[0].Key != "never" {
		t.Errorf("after it came to a good end: %+v", list)
	}
}

// What is known when the process is told to stop is kept, so that its successor does not report it as unknown.
func TestStopKeepsWhatIsKnown(t *testing.T) {
	t.Parallel()
	r := declared(t)
	below := memory.New()
	l := newLedger(below)
	begun := make(chan struct{})
	plan := notesOnly(func(text string) []effect.Effect {
		return []effect.Effect{{Key: text, Run: func(ctx context.Context) error {
			close(begun)
			<-ctx.Done() // the mail server takes it just then
			return nil
		}}}
	})
	_, stop := run(t, r, l, plan)
	note(t, r, "x")
	<-begun
	stop()
	if _, state, err := below.Intend(t.Context(), "x"); err != nil || state != effect.Done {
		t.Errorf("the ledger says %s, %v", state, err)
	}
}

// What was stopped before it began is done after the next start, once; nobody reports it as unknown.
func TestNotBegun(t *testing.T) {
	t.Parallel()
	r := declared(t)
	below, acts := memory.New(), &counts{}
	planFor := func(run func(ctx context.Context) error) effect.Planner {
		return notesOnly(func(text string) []effect.Effect {
			return []effect.Effect{{Key: text, Run: run, Unknown: func(context.Context) error { acts.add("unknown"); return nil }}}
		})
	}
	begun := make(chan struct{})
	_, stop := run(t, r, below, planFor(func(ctx context.Context) error {
		close(begun)
		<-ctx.Done()
		return effect.ErrNotBegun
	}))
	note(t, r, "x")
	<-begun
	stop()
	l := newLedger(below)
	_, stop = run(t, r, l, planFor(func(context.Context) error { acts.add("done"); return nil }))
	if got := l.await(t, "x"); !slices.Equal(got, []effect.State{effect.Done}) {
		t.Errorf("outcomes %v", got)
	}
	stop()
	if acts.of("done") != 1 || acts.of("unknown") != 0 {
		t.Errorf("done %d times, unknown %d times", acts.of("done"), acts.of("unknown"))
	}
}

// slowIntend is a ledger that stores an intent at once and answers when it is released, or when its caller turns away.
type slowIntend struct {
	effect.Ledger
	stored, release chan struct{}
}

func (l slowIntend) Intend(ctx context.Context, key string) (bool, effect.State, error) {
	fresh, state, err := l.Ledger.Intend(ctx, key)
	close(l.stored)
	select {
	case <-l.release:
		return fresh, state, err
	case <-ctx.Done():
		return false, "", ctx.Err()
	}
}

// Stopped while the intent is being stored: nothing was begun, and nothing is left that says so.
func TestStoppedWhileIntending(t *testing.T) {
	t.Parallel()
	r := declared(t)
	below := memory.New()
	l := slowIntend{below, make(chan struct{}), make(chan struct{})}
	plan := notesOnly(func(text string) []effect.Effect {
		return []effect.Effect{{Key: text, Run: func(context.Context) error { t.Error("begun after the stop"); return nil }}}
	})
	runner, err := effect.New(effect.Config{Owner: procedure.OwnerNotification, Instance: "one", Source: source(t, r), Ledger: l, Plan: plan, Log: r.Log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- runner.Run(ctx) }()
	note(t, r, "x")
	<-l.stored
	cancel()
	close(l.release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if fresh, state, err := below.Intend(t.Context(), "x"); err != nil || !fresh {
		t.Errorf("the ledger still says %s, %v", state, err)
	}
}

// markGone is a ledger whose store is stopped before the runner has begun.
type markGone struct{ effect.Ledger }

func (markGone) Mark(ctx context.Context, _ string) (history.Mark, error) {
	return history.Mark{}, ctx.Err()
}

// A runner that is stopped before it began has not failed.
func TestStoppedBeforeItBegan(t *testing.T) {
	t.Parallel()
	r := declared(t)
	runner, err := effect.New(effect.Config{
		Owner: procedure.OwnerNotification, Instance: "one", Source: source(t, r), Ledger: markGone{memory.New()}, Plan: notesOnly(nil), Log: r.Log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := runner.Run(ctx); err != nil {
		t.Error(err)
	}
}

// A planner that waits for what it plans from may be stopped meanwhile: its record is planned anew after the next start.
func TestStoppedWhilePlanning(t *testing.T) {
	t.Parallel()
	r := declared(t)
	below := memory.New()
	planning := make(chan struct{})
	plan := func(ctx context.Context, rec *projection.Record, _ projection.Event) []effect.Effect {
		if rec.Incident == incident {
			close(planning)
			<-ctx.Done()
		}
		return nil
	}
	_, stop := run(t, r, newLedger(below), plan)
	<-planning
	stop()
	l := newLedger(below)
	run(t, r, l, func(_ context.Context, rec *projection.Record, e projection.Event) []effect.Effect {
		return []effect.Effect{{Key: rec.ID(e), Run: func(context.Context) error { return nil }}}
	})
	if got := l.await(t, incident+"/1"); got[0] != effect.Done {
		t.Errorf("it is %s", got[0])
	}
}

// A panic in the planner or in an act concerns that event and that act: the others go on, after a restart too (hardening 2, poison event).
func TestPanicIsContained(t *testing.T) {
	t.Parallel()
	r := declared(t)
	below := memory.New()
	boom := func(context.Context) error { panic("boom") }
	plan := notesOnly(func(text string) []effect.Effect {
		switch text {
		case "planner":
			panic("boom")
		case "act":
			return []effect.Effect{{Key: text, Run: boom}}
		case "repeatable act":
			return []effect.Effect{{Key: text, Run: boom, Repeatable: true}}
		}
		return []effect.Effect{{Key: text, Run: func(context.Context) error { return nil }}}
	})
	for _, text := range []string{"planner", "act", "repeatable act"} {
		note(t, r, text)
	}
	for _, start := range []string{"first start", "second start"} {
		note(t, r, start)
		l := newLedger(below)
		runner, stop := run(t, r, l, plan)
		if got := l.await(t, start); got[0] != effect.Done {
			t.Errorf("%s: the others are %s", start, got[0])
		}
		var again effect.Trouble
		for again.Tries == 0 {
			for _, x := range runner.Trouble() {
				if x.Key == "repeatable act" {
					again = x
				}
				if !strings.Contains(x.Error, "boom") {
					t.Errorf("trouble %+v", x)
				}
			}
			if t.Context().Err() != nil {
				t.Fatal("the repeatable act is not tried")
			}
			runtime.Gosched()
		}
		if again.GivenUp {
			t.Error("an act that may be repeated was given up")
		}
		if start == "first start" {
			if got := l.await(t, "act"); got[0] != effect.Failed {
				t.Errorf("the act that panics is %s", got[0])
			}
			if !slices.ContainsFunc(runner.Trouble(), func(x effect.Trouble) bool { return x.Key == incident+"/2/plan" && x.GivenUp }) {
				t.Errorf("nobody hears of what was not planned: %+v", runner.Trouble())
			}
		}
		stop()
	}
}

// Replaying everything runs no effect: projections have none, and a runner that comes back has done them all.
func TestReplaySendsNothing(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.ClosedDown)
	below := memory.New()
	planFor := func(run func(key string)) effect.Planner {
		return func(_ context.Context, rec *projection.Record, e projection.Event) []effect.Effect {
			return []effect.Effect{{Key: rec.ID(e), Run: func(context.Context) error { run(rec.ID(e)); return nil }}}
		}
	}
	l := newLedger(below)
	l.loseMarks = true // so that the next one looks at everything again
	first, stop := run(t, r, l, planFor(func(string) {}))
	l.await(t, fmt.Sprintf("%s/%d", incident, r.State(incident).Position))
	idle(t, first)
	stop()
	if err := projection.Rebuild(t.Context(), projection.Config{Store: r.Store, Keys: r.Keys.Ring, Log: r.Log}, projection.NewIncidents()); err != nil {
		t.Fatal(err)
	}
	probed := make(chan string, 1)
	_, stop = run(t, r, newLedger(below), planFor(func(key string) { probed <- key }))
	w := proceduretest.NewIncident(t, "e20261124.2")
	proceduretest.Story(proceduretest.Declared)(w)
	r.Seed(w)
	if got := <-probed; got != "e20261124.2/1" {
		t.Errorf("%s was done again", got)
	}
	stop()
	if len(probed) > 0 {
		t.Errorf("%s was done again", <-probed)
	}
}

// In a log that lost its tail, numbers below the mark are given out again: nothing behind it may be taken for done.
func TestRolledBackLog(t *testing.T) {
	t.Parallel()
	r := declared(t)
	l := newLedger(memory.New())
	plan := notesOnly(func(text string) []effect.Effect {
		return []effect.Effect{{Key: text, Run: func(context.Context) error { return nil }}}
	})
	_, stop := run(t, r, l, plan)
	note(t, r, "lost")
	l.await(t, "lost")
	stop()
	last, err := r.Store.Last(t.Context(), incident)
	if err != nil {
		t.Fatal(err)
	}
	r.Store.(*historymemory.Store).Damage(func(sequence uint64, data []byte) ([]byte, bool) { return data, sequence < last })
	for name, then := range map[string]func(){"tail gone": func() {}, "number given out again": func() { note(t, r, "another") }} {
		then()
		runner, err := effect.New(effect.Config{Owner: procedure.OwnerNotification, Instance: "one", Source: source(t, r), Ledger: l, Plan: plan, Log: r.Log})
		if err != nil {
			t.Fatal(err)
		}
		if err := runner.Run(t.Context()); !errors.Is(err, history.ErrRolledBack) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Nobody plans for what is foreign, nor for what follows a record that cannot be read.
func TestOnlyWhatIsTrueHasEffects(t *testing.T) {
	t.Parallel()
	r := declared(t)
	l := newLedger(memory.New())
	asked := make(chan string, 100)
	plan := func(_ context.Context, rec *projection.Record, e projection.Event) []effect.Effect {
		asked <- rec.ID(e)
		return nil
	}
	w := r.Keys.NewWriter(t, r.Store, incident, procedure.OwnerIncident)
	store := r.Store.(*historymemory.Store)
	store.Publish("emergency.e20261124-1", w.Entries[0].Signed)
	store.Publish("emergency.Nothing", []byte("junk"))
	future := historytest.Record(t, incident, procedure.OwnerIncident, w.Chain.Head(), 1, "x")
	future.Events[0].SchemaVersion = 99
	head := authentic(t, r, w.Chain, future)
	authentic(t, r, w.Chain, historytest.Record(t, incident, procedure.OwnerIncident, head, 1, "after"))
	other := proceduretest.NewIncident(t, "e20261124.2")
	proceduretest.Story(proceduretest.Declared)(other)
	r.Seed(other)
	_, stop := run(t, r, l, plan)
	for id := range asked {
		if id == incident+"/2" || id == incident+"/3" || id == incident+"/4" {
			t.Errorf("planned for %s", id)
		}
		if id == "e20261124.2/1" {
			break
		}
	}
	stop()
}

// authentic stores a record by a service's own key, as a newer version may have.
func authentic(t *testing.T, r *dispatchtest.Rig, chain *history.Chain, rec *emergencyv1.Record) history.Head {
	t.Helper()
	last, err := r.Store.Last(t.Context(), incident)
	if err != nil {
		t.Fatal(err)
	}
	signed := r.Keys.Seal(t, rec)
	if _, err := r.Store.Append(t.Context(), incident, last, signed, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Accept(signed); err != nil {
		t.Fatal(err)
	}
	return chain.Head()
}
