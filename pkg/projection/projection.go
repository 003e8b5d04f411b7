// SPDX-License-Identifier: Apache-2.0

// Package projection feeds folds from the stream of all histories.
//
// A projection is a fold with a name and a version. The runner checks every record by chain and signature before any
// projection sees it: a record that fails is foreign, is counted and alarmed, and no projection ever hears of it. A
// projection has no way to act on the world, so a rebuild sends nothing. Everything a projection says is rebuilt from
// nothing at start (memory); what is asked while it is behind says how far it has come.
package projection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"cacert.org/emergency/pkg/defect"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
)

// Record is one verified record with its events decoded.
type Record struct {
	history.Entry
	// Incident is the id of the history it belongs to.
	Incident string
	// Events are its events, in order.
	Events []Event
	// Header is what was stored beside it. It is no part of the history and proves nothing; the trace in which it was decided is there.
	Header map[string]string
}

// Trace returns a context in the trace in which the record was decided; ctx if it has none.
func (r *Record) Trace(ctx context.Context) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier(r.Header))
}

// Event is one event of a record.
type Event = procedure.Event

// ID is the event's id, <incident>/<position>.
func (r *Record) ID(e Event) string { return fmt.Sprintf("%s/%d", r.Incident, e.Position) }

// Projection is a fold over all histories. Apply is called by one goroutine at a time, in the order of the stream; an
// error stops the runner, because a projection that missed a fact would answer wrongly. Reads may run at any time and are
// the projection's own business to guard.
type Projection interface {
	// Name and Version identify what is kept; a change of the fold is a new version.
	Name() string
	Version() int
	// Apply folds a batch of records in.
	Apply(batch []*Record) error
	// Dump writes everything that is kept, byte for byte the same for the same records.
	Dump(w io.Writer) error
}

// Witness is a projection that looks at each record between the states before and after it. The runner shows it those of Incidents, so that
// each incident is folded once however many look at it.
type Witness interface {
	Projection
	// Before is given the state of a record's history before that record, which it must neither keep nor write to. Its error stops the
	// runner, as that of Apply does, unless the record cannot be folded.
	Before(s *procedure.State, rec *Record) error
	// After follows when the record was folded. If it could not be, the next call is about another history.
	After(rec *Record)
}

// Parking is a projection that puts an incident aside which it cannot fold, instead of stopping all others for it.
type Parking interface {
	// Parked tells from which position on an incident is not folded, and why; a nil error if it is.
	Parked(incident string) (from uint64, err error)
}

// Alarm is told of every foreign record.
type Alarm func(incident string, sequence uint64, err *history.ForeignError)

// Config of a runner. All fields are required but OnForeign, Verified and Tracer.
type Config struct {
	Store       history.Store
	Keys        *history.Keyring
	Projections []Projection
	Log         *slog.Logger
	OnForeign   Alarm
	// Verified are the blocks of the log whose signatures need not be verified again; nil for none.
	Verified *history.Verified
	// Tracer makes a span of each record that is applied when it comes, in the trace in which it was decided. Those that were there before
	// have none: a start is nobody's command.
	Tracer trace.Tracer
}

// Runner feeds projections.
type Runner struct {
	cfg   Config
	judge *judge
	fed   []Projection // those of Config, and Incidents before all
	// stopped are the incidents that are not read further and of which the log was told.
	stopped map[string]bool

	mu       sync.Mutex
	last     history.Message // that was read; its mark is made when somebody asks
	position map[string]uint64
	foreign  int
	changed  chan struct{} // closed and replaced when something was applied

	// For those who follow: the last records that were applied, from which sequence on they are all there, those that are not applied
	// yet, and which sequences hold none.
	recent     []*Record
	recentFrom uint64
	fresh      []*Record
	none       []span
}

// New returns a runner that starts from nothing.
func New(cfg Config) (*Runner, error) {
	if cfg.Store == nil || cfg.Keys == nil || cfg.Log == nil || len(cfg.Projections) == 0 {
		return nil, errors.New("projection: a dependency is missing")
	}
	return &Runner{cfg: cfg, fed: inOrder(cfg.Projections), judge: newJudge(cfg.Keys, cfg.Verified), position: map[string]uint64{}, stopped: map[string]bool{}, recentFrom: 1, changed: make(chan struct{})}, nil
}

// inOrder puts Incidents before all others, one of its own where there are witnesses and none is asked for, and makes them its witnesses.
func inOrder(asked []Projection) []Projection {
	var incidents *Incidents
	var witnesses []Witness
	var others []Projection
	for _, p := range asked {
		if x, ok := p.(*Incidents); ok && incidents == nil {
			incidents = x
			continue
		}
		if w, ok := p.(Witness); ok {
			witnesses = append(witnesses, w)
		}
		others = append(others, p)
	}
	if incidents == nil && len(witnesses) > 0 {
		incidents = NewIncidents()
	}
	if incidents == nil {
		return others
	}
	incidents.witnesses = witnesses
	return append([]Projection{incidents}, others...)
}

// CatchUp applies everything that is in the store now and returns. Call it before Run, so that the first answers are
// already true.
func (r *Runner) CatchUp(ctx context.Context) error {
	fold := newStage(1, r.fold)
	judge := newStage(1, func(block []history.Message) error { return fold.next(r.judge.judgeAll(block)) })
	batch := make([]history.Message, 0, history.BlockSize)
	take := func() error {
		if len(batch) == 0 {
			return nil
		}
		block := batch
		batch = make([]history.Message, 0, history.BlockSize)
		return judge.next(block)
	}
	err := r.cfg.Store.Scan(ctx, r.Sequence(), func(m history.Message) error {
		if len(batch) > 0 && history.BlockOf(m.Sequence) != history.BlockOf(batch[0].Sequence) {
			if err := take(); err != nil {
				return err
			}
		}
		batch = append(batch, m)
		return nil
	})
	if err == nil {
		err = take()
	}
	if err := errors.Join(err, judge.end(), fold.end()); err != nil {
		return fmt.Errorf("catch up: %w", err)
	}
	if err := r.cfg.Verified.Save(); err != nil {
		r.cfg.Log.WarnContext(ctx, "the next start verifies signatures again", "error", err)
	}
	return nil
}

// stage does something with each block while the stages before it are at the next ones: reading, judging and folding a long log.
type stage[T any] struct {
	blocks chan T
	done   chan error // how it ended; at the first error, or at end
}

// newStage has room for some blocks that it has not begun with.
func newStage[T any](room int, do func(T) error) *stage[T] {
	s := &stage[T]{blocks: make(chan T, room), done: make(chan error, 1)}
	go func() {
		for block := range s.blocks {
			if err := do(block); err != nil {
				s.done <- err
				return
			}
		}
		s.done <- nil
	}()
	return s
}

// next hands over a block, once there is room for it; after the first error never.
func (s *stage[T]) next(block T) error {
	select {
	case s.blocks <- block:
		return nil
	case err := <-s.done:
		s.done <- nil // told once
		return err
	}
}

func (s *stage[T]) end() error {
	close(s.blocks)
	return <-s.done
}

func (r *Runner) fold(block []*Judged) error {
	var records []*Record
	for _, j := range block {
		rec := r.accept(j)
		if rec != nil {
			records = append(records, rec)
		}
		r.advance(j.Message, rec)
	}
	return r.apply(records)
}

// Run follows the stream until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	err := r.cfg.Store.Follow(ctx, r.Mark(), func(m history.Message) error {
		rec := r.accept(r.judge.judge(m))
		r.advance(m, rec)
		if rec == nil {
			return nil
		}
		defer r.span(ctx, rec)()
		return r.apply([]*Record{rec})
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// span begins the span of a record that is being applied, and returns what ends it.
func (r *Runner) span(ctx context.Context, rec *Record) (end func()) {
	traced := rec.Trace(ctx)
	if r.cfg.Tracer == nil || !trace.SpanContextFromContext(traced).IsValid() {
		return func() {}
	}
	_, span := r.cfg.Tracer.Start(traced, "project "+rec.Record.GetCommand(), trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(attribute.String("emergency.incident", rec.Incident), attribute.Int64("emergency.position", int64(rec.Record.GetFirstPosition()))))
	return func() { span.End() }
}

// accept is the record of a judged message; nil if it is to be skipped.
func (r *Runner) accept(j *Judged) *Record {
	switch {
	case j.Foreign != nil:
		r.alarm(j.Message, j.Foreign)
	case j.Unread != nil:
		r.halt(j.Incident, j.Unread)
	case r.stopped[j.Incident]:
		return nil
	}
	return j.Record
}

// halt stops one incident that this version cannot read or fold, and tells it once; the others go on (hardening.md, poison event).
func (r *Runner) halt(incident string, err error) {
	if r.stopped[incident] {
		return
	}
	r.stopped[incident] = true
	r.cfg.Log.Error("incident cannot be read further by this version", slog.String("incident", incident), slog.Any("error", err), defect.Stack(err))
}

func (r *Runner) alarm(m history.Message, err *history.ForeignError) {
	r.mu.Lock()
	r.foreign++
	r.mu.Unlock()
	r.cfg.Log.Error("foreign record skipped", "incident", m.Incident, "sequence", m.Sequence, "reason", string(err.Reason))
	if r.cfg.OnForeign != nil {
		r.cfg.OnForeign(m.Incident, m.Sequence, err)
	}
}

// Decode decodes the events of a verified record. A panic concerns its incident alone.
func Decode(entry *history.Entry) (*Record, error) {
	var events []Event
	err := defect.Contained(func() (err error) {
		events, err = procedure.DecodeRecord(entry.Record)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Record{Entry: *entry, Incident: entry.Record.GetIncident(), Events: events}, nil
}

// unparked leaves out the records that a projection could not fold: those that come after it in Config are not asked.
func (r *Runner) unparked(batch []*Record, p Parking) []*Record {
	return slices.DeleteFunc(batch, func(rec *Record) bool {
		from, err := p.Parked(rec.Incident)
		if err == nil || rec.Record.GetFirstPosition() < from {
			return false
		}
		r.halt(rec.Incident, err)
		return true
	})
}

func (r *Runner) advance(m history.Message, rec *Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = m
	r.keep(m.Sequence, rec)
}

func (r *Runner) apply(batch []*Record) error {
	if len(batch) == 0 {
		return nil
	}
	for _, p := range r.fed {
		if err := p.Apply(batch); err != nil {
			return fmt.Errorf("projection %s: %w", p.Name(), err)
		}
		if parking, ok := p.(Parking); ok {
			batch = r.unparked(batch, parking)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range batch {
		r.position[rec.Incident] = rec.Events[len(rec.Events)-1].Position
	}
	r.publish()
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

// Mark is how far the runner has come in the stream.
func (r *Runner) Mark() history.Mark {
	r.mu.Lock()
	last := r.last
	r.mu.Unlock()
	if last.Sequence == 0 {
		return history.Mark{}
	}
	return last.Mark()
}

// Sequence is Mark's, for who asks often.
func (r *Runner) Sequence() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last.Sequence
}

// Projections are those that the runner feeds; all of them have come as far as Mark.
func (r *Runner) Projections() []Projection { return slices.Clone(r.cfg.Projections) }

// Foreign is how many foreign records were skipped.
func (r *Runner) Foreign() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.foreign
}

// Position is the last position of an incident that is applied, 0 for none.
func (r *Runner) Position(incident string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.position[incident]
}

// Changed returns a channel that is closed when the next batch has been applied.
func (r *Runner) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// WaitFor waits until an incident's position is applied, so that a caller reads its own write.
func (r *Runner) WaitFor(ctx context.Context, incident string, position uint64) error {
	for {
		changed := r.Changed()
		if r.Position(incident) >= position {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("position %d of %s is not here yet: %w", position, incident, ctx.Err())
		}
	}
}

// Rebuild folds everything that is in the store now into fresh projections and returns them; the running ones stay as they
// are and go on answering. fresh must return new, empty projections.
func Rebuild(ctx context.Context, cfg Config, fresh ...Projection) error {
	cfg.Projections = fresh
	runner, err := New(cfg)
	if err != nil {
		return err
	}
	return runner.CatchUp(ctx)
}
