// SPDX-License-Identifier: Apache-2.0

// Package effect does outside things that committed events cause: mails, pushes, jobs on a host.
//
// The order is: the event is in the history; the intent is written to the ledger, once per key by compare-and-set; the act;
// the outcome in the ledger; the result as a command of its own, which becomes an event. A crash between intent and outcome
// leaves an act of which nobody knows whether it was done: an effect that may be repeated is repeated, the others report
// "unknown" as their result and never act twice. The runner starts behind the last record whose effects are all finished, so
// nothing is lost; a replay of histories has no runner, so nothing is sent.
package effect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"cacert.org/emergency/pkg/defect"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/projection"
)

// Effect is one outside act.
type Effect struct {
	// Key is unique for the act: the event's id and what is done.
	Key string
	// Run does it and reports the result by a command. An error means that it may be tried again, if Repeatable; or
	// ErrNotBegun.
	Run func(ctx context.Context) error
	// Repeatable says that doing it twice does no harm, because the other side recognises it.
	Repeatable bool
	// Lane names what the act waits for, such as a channel; empty for nothing in particular. Each lane has places of its own, so that
	// one thing that hangs holds up what waits for it, and nothing else.
	Lane string
	// Unknown reports that the outcome cannot be known; for effects that are not repeatable. Reporting may be repeated, so an
	// error means that it is tried again.
	Unknown func(ctx context.Context) error
}

// State of a key in the ledger.
type State string

// The states of a key.
const (
	Intended State = "intended"
	Done     State = "done"
	Failed   State = "failed"
	Unknown  State = "unknown"
)

// Ledger remembers what was intended and what became of it. Implementations are durable when a call returns nil.
type Ledger interface {
	// Intend writes the intent if the key is new; fresh is false if it was there, and state is what it says.
	Intend(ctx context.Context, key string) (fresh bool, state State, err error)
	// Withdraw takes an intent back whose act was not begun: the key is as if it had never been written.
	Withdraw(ctx context.Context, key string) error
	// Finish writes the outcome.
	Finish(ctx context.Context, key string, state State) error
	// Mark returns how far an owner's runner has come; SetMark writes it.
	Mark(ctx context.Context, owner string) (history.Mark, error)
	SetMark(ctx context.Context, owner string, m history.Mark) error
	// Lease returns which instance may run an owner's effects, empty for none, and the revision that SetLease wants.
	Lease(ctx context.Context, owner string) (holder string, revision uint64, err error)
	// SetLease writes the holder if the lease is still at revision, and returns the new one; ErrLeaseTaken if it is not. Writing the same
	// holder again is how it is kept.
	SetLease(ctx context.Context, owner, holder string, revision uint64) (uint64, error)
}

// Planner says which effects an event has. It acts on nothing itself.
type Planner func(ctx context.Context, rec *projection.Record, e projection.Event) []Effect

// Source gives the verified records after a mark, in order, and then each new one, until ctx ends or fn returns an error. It returns
// history.ErrRolledBack if the message at the mark is not there any more. A *projection.Runner does.
type Source interface {
	Records(ctx context.Context, after history.Mark, fn func(history.Mark, *projection.Record) error) error
}

// Config of a runner. All fields are required but Meter and Tracer.
type Config struct {
	Owner string
	// Instance names this instance of the service, the same after a restart: of several, the one that holds the lease runs the effects.
	Instance string
	Source   Source
	Ledger   Ledger
	Plan     Planner
	Log      *slog.Logger
	Meter    Meter
	// Tracer makes a span of each effect, in the trace in which its event was decided.
	Tracer trace.Tracer
}

// Meter counts effects by outcome; a nil Meter counts nothing.
type Meter interface {
	Effect(ctx context.Context, owner, outcome string)
}

const (
	// AtOnce bounds how many effects of one lane run at the same time; one that hangs keeps one place.
	AtOnce = 256
	// held bounds how many of all lanes run or wait for a place, and with them the memory; then nothing more is planned until one ends.
	held = 8192
)

// Runner runs the effects of one owner.
type Runner struct {
	cfg    Config
	places chan struct{}
	group  sync.WaitGroup

	mu      sync.Mutex
	lease   *lease          // while it is held
	running map[string]bool // keys of the effects under way
	lanes   map[string]*lane
	pending []*item   // in the order of the stream
	trouble []Trouble // in the order of their first failure
	mark    history.Mark
	unkept  int // records finished since the mark was last written
}

// keepEvery is after how many finished records the mark is written. Those behind it are looked up in the ledger again after
// a crash, which costs a question each and repeats nothing.
const keepEvery = 100

// lane is the effects that wait for the same thing.
type lane struct {
	running int
	waiting []func() // for a place, in the order of the stream
}

// item is a record whose effects are not all finished.
type item struct {
	mark history.Mark
	left int
}

// New returns a runner.
func New(cfg Config) (*Runner, error) {
	if cfg.Owner == "" || cfg.Instance == "" || cfg.Source == nil || cfg.Ledger == nil || cfg.Plan == nil || cfg.Log == nil {
		return nil, errors.New("effect: a dependency is missing")
	}
	if cfg.Tracer == nil {
		cfg.Tracer = noop.NewTracerProvider().Tracer("")
	}
	return &Runner{cfg: cfg, places: make(chan struct{}, held), lanes: map[string]*lane{}}, nil
}

// Run follows the histories and runs effects, while this instance is the one that may, until ctx ends; then it waits for those that run. It
// returns an error only for a log that cannot be trusted.
func (r *Runner) Run(ctx context.Context) error {
	for {
		l := r.acquire(ctx)
		if l == nil {
			return nil
		}
		r.begun(l)
		err := r.holding(ctx, l, r.run)
		switch {
		case err == nil, errors.Is(err, history.ErrRolledBack), errors.Is(err, history.ErrWrongLog):
			return err
		case errors.Is(err, errLeaseLost):
			r.cfg.Log.WarnContext(ctx, "effects go on elsewhere", "owner", r.cfg.Owner, "error", err)
		default: // the log or the ledger is away for a moment; that is no reason to take the service down
			r.cfg.Log.ErrorContext(ctx, "effects are interrupted; trying again", "owner", r.cfg.Owner, "error", err)
			sleep(ctx, renewEvery)
		}
	}
}

// begun starts from what the ledger knows, as after a start of the process.
func (r *Runner) begun(l *lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lease, r.running, r.pending, r.trouble, r.mark, r.unkept = l, map[string]bool{}, nil, nil, history.Mark{}, 0
}

// mayAct tells whether this instance still holds the lease.
func (r *Runner) mayAct() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lease.valid()
}

func (r *Runner) run(ctx context.Context) error {
	mark, err := r.cfg.Ledger.Mark(ctx, r.cfg.Owner)
	if ctx.Err() != nil {
		return nil // stopped before it began
	}
	if err != nil {
		return fmt.Errorf("effects of %s: %w", r.cfg.Owner, err)
	}
	defer r.keep(context.WithoutCancel(ctx))
	defer r.group.Wait()
	err = r.cfg.Source.Records(ctx, mark, func(m history.Mark, rec *projection.Record) error { return r.plan(ctx, m, rec) })
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// plan starts the effects of a record. It returns before they are done.
func (r *Runner) plan(ctx context.Context, mark history.Mark, rec *projection.Record) error {
	ctx = rec.Trace(ctx)
	it := &item{mark: mark}
	var effects []Effect
	for _, e := range rec.Events {
		effects = append(effects, r.planned(ctx, rec, e)...)
		if err := ctx.Err(); err != nil {
			return err // the plan may have been cut short: the record is planned anew after the next start
		}
	}
	it.left = len(effects)
	r.mu.Lock()
	r.pending = append(r.pending, it)
	r.mu.Unlock()
	if len(effects) == 0 {
		r.finished(ctx, it, 0)
	}
	for _, e := range effects {
		select {
		case r.places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		r.enter(e.Lane, func() {
			defer func() { <-r.places }()
			if r.do(ctx, e) {
				r.finished(ctx, it, 1)
			}
		})
	}
	return nil
}

// enter runs an act as soon as its lane has a place.
func (r *Runner) enter(name string, act func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lanes[name]
	if l == nil {
		l = &lane{}
		r.lanes[name] = l
	}
	if l.running == AtOnce {
		l.waiting = append(l.waiting, act)
		return
	}
	l.running++
	r.group.Go(func() {
		for ; act != nil; act = r.nextIn(l) {
			act()
		}
	})
}

// nextIn is what a place that became free in a lane is given to; nil if nobody waits for it.
func (r *Runner) nextIn(l *lane) func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(l.waiting) == 0 {
		l.running--
		return nil
	}
	act := l.waiting[0]
	l.waiting = l.waiting[1:]
	return act
}

// planned asks the planner. Its panic is told and concerns this event alone: nothing follows it, and the next record is planned for.
func (r *Runner) planned(ctx context.Context, rec *projection.Record, e projection.Event) (effects []Effect) {
	err := defect.Contained(func() error {
		effects = r.cfg.Plan(ctx, rec, e)
		return nil
	})
	if err == nil {
		return effects
	}
	r.cfg.Log.ErrorContext(ctx, "what follows an event was not planned", slog.String("owner", r.cfg.Owner), slog.String("event", rec.ID(e)), slog.Any("error", err), defect.Stack(err))
	r.failed(rec.ID(e)+"/plan", err, true)
	r.meter(ctx, Failed)
	return nil
}

func (r *Runner) meter(ctx context.Context, outcome State) {
	if r.cfg.Meter != nil {
		r.cfg.Meter.Effect(ctx, r.cfg.Owner, string(outcome))
	}
}

// do runs one effect to its end; false if it was interrupted and has to be seen to after the next start.
func (r *Runner) do(ctx context.Context, e Effect) bool {
	if ctx.Err() != nil {
		return false
	}
	if !r.begin(e.Key) {
		return true // another event wants the same act, and it is under way
	}
	defer r.end(e.Key)
	fresh, state, err := r.intend(ctx, e.Key)
	if err != nil {
		return false
	}
	if !fresh && state != Intended {
		return true
	}
	if !r.mayAct() { // the process was held up
		if fresh {
			r.withdraw(ctx, e.Key)
		}
		return false
	}
	if fresh && ctx.Err() != nil {
		r.withdraw(ctx, e.Key)
		return false
	}
	ctx, span := r.cfg.Tracer.Start(ctx, "effect of "+r.cfg.Owner, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attribute.String("emergency.effect", e.Key)))
	defer span.End()
	run, repeatable, outcome := e.Run, e.Repeatable, Done
	if !fresh && !e.Repeatable {
		run, repeatable, outcome = e.Unknown, true, Unknown // a former run was interrupted in the act
	}
	err = r.attempt(ctx, e.Key, run, repeatable)
	switch {
	case errors.Is(err, ErrNotBegun) && ctx.Err() != nil:
		r.withdraw(ctx, e.Key)
		return false
	case err != nil && ctx.Err() != nil:
		return false
	case err != nil:
		r.cfg.Log.ErrorContext(ctx, "effect failed", slog.String("owner", r.cfg.Owner), slog.String("key", e.Key), slog.Any("error", err), defect.Stack(err))
		outcome = Failed
		span.SetStatus(codes.Error, "given up")
		r.failed(e.Key, err, true)
	default:
		r.succeeded(e.Key)
	}
	r.meter(ctx, outcome)
	return r.finish(ctx, e.Key, outcome) == nil
}

// begin tells whether nobody in this process is at the key.
func (r *Runner) begin(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[key] {
		return false
	}
	r.running[key] = true
	return true
}

func (r *Runner) end(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, key)
}

// intend writes the intent down. A try is not broken off when the runner is told to stop: an intent that was stored without
// its writer knowing would be taken for an act that was interrupted.
func (r *Runner) intend(ctx context.Context, key string) (fresh bool, state State, err error) {
	err = Insist(ctx, nil, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishWithin)
		defer cancel()
		fresh, state, err = r.cfg.Ledger.Intend(ctx, key)
		return err
	})
	return fresh, state, err
}

// finishWithin is how long an outcome that is known is tried to be kept after the runner was told to stop.
const finishWithin = 5 * time.Second

// finish keeps the outcome, also when the runner was told to stop meanwhile: what is known must not be forgotten.
func (r *Runner) finish(ctx context.Context, key string, outcome State) error {
	return Insist(ctx, nil, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishWithin)
		defer cancel()
		return r.cfg.Ledger.Finish(ctx, key, outcome)
	})
}

// ErrNotBegun is what an act that is not repeatable returns when it was stopped before it began: nothing has gone out. It is
// done after the next start, instead of being reported as unknown.
var ErrNotBegun = errors.New("stopped before it began")

// withdraw frees the key of an act that was not begun. If that fails the next start takes the act for interrupted, which is
// the safe side.
func (r *Runner) withdraw(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishWithin)
	defer cancel()
	if err := r.cfg.Ledger.Withdraw(ctx, key); err != nil {
		r.cfg.Log.WarnContext(ctx, "an act that was not begun will be taken for interrupted", "owner", r.cfg.Owner, "key", key, "error", err)
	}
}

// ErrGiveUp ends the tries of a repeatable effect: what it wanted can never succeed. The effect has reported that itself.
var ErrGiveUp = errors.New("given up")

// Insist calls fn until it succeeds, gives up with ErrGiveUp, or ctx ends; at least once in any case. again, if there is
// one, is told of each error after which it is tried again.
func Insist(ctx context.Context, again func(error), fn func(context.Context) error) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 200*time.Millisecond, 30*time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := fn(ctx)
		if errors.Is(err, ErrGiveUp) {
			return struct{}{}, backoff.Permanent(err)
		}
		if err != nil && ctx.Err() == nil && again != nil {
			again(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0))
	return err
}

// attempt runs what may be repeated until it succeeds, gives up or ctx ends; anything else once. A panic is an error of the act.
func (r *Runner) attempt(ctx context.Context, key string, act func(context.Context) error, repeatable bool) error {
	if act == nil {
		return nil
	}
	run := func(ctx context.Context) error { return defect.Contained(func() error { return act(ctx) }) }
	if !repeatable {
		return run(ctx)
	}
	return Insist(ctx, func(err error) {
		r.failed(key, err, false)
		r.cfg.Log.WarnContext(ctx, "effect will be tried again", slog.String("owner", r.cfg.Owner), slog.String("key", key), slog.Any("error", err), defect.Stack(err))
	}, run)
}

// finished counts an effect off and moves the mark over everything that is finished from the front.
func (r *Runner) finished(ctx context.Context, it *item, n int) {
	r.mu.Lock()
	it.left -= n
	for len(r.pending) > 0 && r.pending[0].left == 0 {
		r.mark = r.pending[0].mark
		r.pending = r.pending[1:]
		r.unkept++
	}
	due := r.unkept >= keepEvery
	r.mu.Unlock()
	if due {
		r.keep(ctx)
	}
}

// keep writes the mark.
func (r *Runner) keep(ctx context.Context) {
	r.mu.Lock()
	mark, n := r.mark, r.unkept
	r.unkept = 0
	r.mu.Unlock()
	if n == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := r.cfg.Ledger.SetMark(ctx, r.cfg.Owner, mark); err != nil {
		r.cfg.Log.WarnContext(ctx, "effect mark not kept; effects behind it are looked up again after a start", "owner", r.cfg.Owner, "error", err)
	}
}

// Trouble is an effect that failed, and is tried again or was given up.
type Trouble struct {
	// Key of the effect, which names the event that wants it.
	Key string
	// Error of the last try. It is for operators: it may name machines, and is never shown to the public.
	Error string
	// Tries that failed.
	Tries int
	// GivenUp is set if it is not tried any more.
	GivenUp bool
}

// troubleKept bounds how much is remembered of what was given up; what is tried again is all there.
const troubleKept = 50

// failed remembers a failure of an effect.
func (r *Runner) failed(key string, err error, givenUp bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.trouble, func(t Trouble) bool { return t.Key == key })
	if i < 0 {
		r.trouble = append(r.trouble, Trouble{Key: key})
		i = len(r.trouble) - 1
	}
	t := &r.trouble[i]
	t.Error, t.Tries, t.GivenUp = err.Error(), t.Tries+1, givenUp
	over := -troubleKept
	for _, t := range r.trouble {
		if t.GivenUp {
			over++
		}
	}
	r.trouble = slices.DeleteFunc(r.trouble, func(t Trouble) bool {
		drop := over > 0 && t.GivenUp
		if drop {
			over--
		}
		return drop
	})
}

// succeeded forgets an effect's failures.
func (r *Runner) succeeded(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trouble = slices.DeleteFunc(r.trouble, func(t Trouble) bool { return t.Key == key })
}

// Trouble lists what fails since the runner began, the oldest first.
func (r *Runner) Trouble() []Trouble {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.trouble)
}

// Waiting is how many records have effects that are not finished.
func (r *Runner) Waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending)
}
