// SPDX-License-Identifier: Apache-2.0

// Package dispatch is the only writer of histories: it loads an incident, lets pkg/procedure decide, appends the record on
// condition that nothing was added meanwhile, and decides again if something was.
//
// The order of writes is the safety argument. Restricted values are stored before the record that commits to them; the
// record is one message, so a command is recorded whole or not at all; it is acknowledged only after the store has it.
// Nothing is asked from outside between loading and appending: facts come in as values. A refusal is given only on the
// true head of the history, never on what a cache remembers.
package dispatch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	"cacert.org/emergency/pkg/vault"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Config is what a dispatcher works with. All fields are required but Meter.
type Config struct {
	// Owner is the service that decides and signs.
	Owner string
	// Store holds the histories, Keys says whose records count, Signer signs.
	Store  history.Store
	Keys   *history.Keyring
	Signer history.Signer
	// Vault keeps the owner's restricted values.
	Vault vault.Store
	// Now is the clock.
	Now func() time.Time
	Log *slog.Logger
	// Meter counts commands by outcome; optional.
	Meter Meter
}

// Meter counts what became of commands. Outcome is "accepted", "repeated", "refused", "conflict" or "error".
type Meter interface {
	Command(ctx context.Context, owner, command, outcome string, took time.Duration)
}

// Dispatcher decides and records the commands of one owner. It is safe for concurrent use; commands on different incidents
// do not wait for each other.
type Dispatcher struct {
	cfg Config

	mu        sync.Mutex
	incidents map[string]*incident
	book      *bookCache
	refusals  map[refusalKey]*refusalCount
}

// incident is the folded state of one history, as far as this process has read it.
type incident struct {
	mu      sync.Mutex
	reading *history.Reading
	state   *procedure.State
}

// maxDecisions is how often a command is decided before ABORTED/CONCURRENT_MODIFICATION: once and five times again (0.4).
const maxDecisions = 6

// New returns a dispatcher.
func New(cfg Config) (*Dispatcher, error) {
	switch {
	case cfg.Owner == "":
		return nil, errors.New("dispatch: no owner")
	case cfg.Store == nil, cfg.Keys == nil, cfg.Vault == nil, cfg.Now == nil, cfg.Log == nil:
		return nil, errors.New("dispatch: a dependency is missing")
	}
	d := &Dispatcher{cfg: cfg, incidents: map[string]*incident{}, refusals: map[refusalKey]*refusalCount{}}
	d.book = &bookCache{store: cfg.Store, keys: cfg.Keys}
	return d, nil
}

// Input is what comes with a command.
type Input struct {
	// Actor gives the command.
	Actor procedure.Actor
	// Facts are what the service found out for it beforehand.
	Facts procedure.Facts
	// Causation is the id of the event that caused the command, Correlation of the chain's root; empty for a person's own.
	Causation, Correlation string
}

// Do decides a command on its incident and records it. The error is a *procedure.Refusal when a rule said no, and one of
// package history when the history could not be reached.
func (d *Dispatcher) Do(ctx context.Context, cmd procedure.Command, in Input) (*emergencyv1.Committed, error) {
	start := time.Now()
	committed, err := d.do(ctx, cmd.GetMeta().GetIncident(), cmd, in)
	d.count(ctx, cmd, committed, err, time.Since(start))
	return committed, err
}

func (d *Dispatcher) count(ctx context.Context, cmd procedure.Command, c *emergencyv1.Committed, err error, took time.Duration) {
	if d.cfg.Meter == nil {
		return
	}
	var refusal *procedure.Refusal
	outcome := "accepted"
	switch {
	case errors.As(err, &refusal) && refusal.Reason == procedure.ReasonConcurrentModification:
		outcome = "conflict"
	case errors.As(err, &refusal):
		outcome = "refused"
	case err != nil:
		outcome = "error"
	case c.GetRepeated():
		outcome = "repeated"
	}
	d.cfg.Meter.Command(ctx, d.cfg.Owner, procedure.CommandName(cmd), outcome, took)
}

func (d *Dispatcher) do(ctx context.Context, id string, cmd procedure.Command, in Input) (*emergencyv1.Committed, error) {
	if !possible(id) {
		return d.unplaced(ctx, cmd, in)
	}
	book, err := d.book.current(ctx, false)
	if err != nil {
		return nil, err
	}
	inc := d.incident(id)
	inc.mu.Lock()
	defer inc.mu.Unlock()
	if err := d.load(ctx, id, inc); err != nil {
		return nil, err
	}
	defer func() {
		if inc.reading == nil || inc.state.Position == 0 {
			d.forget(id) // an id that somebody made up must not stay in memory
		}
	}()
	fresh := false
	for range maxDecisions {
		decision, refusal, err := procedure.Decide(inc.state, cmd, d.env(book, in))
		if err != nil {
			return nil, err
		}
		if refusal != nil && !fresh { // the cache may be behind: a refusal is given on the true head only
			moved, err := d.refresh(ctx, inc)
			if err != nil {
				return nil, err
			}
			newBook, err := d.book.current(ctx, true)
			if err != nil {
				return nil, err
			}
			fresh = true
			if moved || newBook != book {
				book = newBook
				continue
			}
		}
		if refusal != nil {
			err := d.recordRefusal(ctx, id, inc, cmd, in, book, refusal)
			if errors.Is(err, history.ErrConflict) {
				fresh = false
				continue
			}
			return nil, refusal
		}
		if decision.Repeated != nil {
			return repeated(id, decision.Repeated), nil
		}
		if len(decision.Events) == 0 {
			return &emergencyv1.Committed{Incident: id, LastPosition: inc.state.Position, RecordedAt: timestamppb.New(inc.state.RecordedAt)}, nil
		}
		committed, err := d.record(ctx, id, inc, cmd, in, book, decision)
		if errors.Is(err, history.ErrConflict) {
			if _, err := d.refresh(ctx, inc); err != nil {
				return nil, err
			}
			fresh = true
			continue
		}
		return committed, err
	}
	return nil, tooBusy(id)
}

// possible tells whether an id could name a history at all.
func possible(id string) bool {
	_, err := history.Subject(id)
	return err == nil
}

func tooBusy(id string) *procedure.Refusal {
	return &procedure.Refusal{
		Code: procedure.Aborted, Reason: procedure.ReasonConcurrentModification, Rule: "G10",
		Message: fmt.Sprintf("incident %s was changed by others %d times while the command was decided", id, maxDecisions),
		Allow:   []procedure.Allowance{{Description: "send the same command again, with the same request id"}},
	}
}

// unplaced answers a command that names no possible incident: it gets the refusal that the rules give it.
func (d *Dispatcher) unplaced(ctx context.Context, cmd procedure.Command, in Input) (*emergencyv1.Committed, error) {
	book, err := d.book.current(ctx, false)
	if err != nil {
		return nil, err
	}
	_, refusal, err := procedure.Decide(procedure.NewState(""), cmd, d.env(book, in))
	if err != nil {
		return nil, err
	}
	if refusal == nil {
		return nil, fmt.Errorf("command %s names no incident and was not refused", procedure.CommandName(cmd))
	}
	return nil, refusal
}

func (d *Dispatcher) env(book *rulebook.Book, in Input) procedure.Env {
	salt := make([]byte, 32)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	return procedure.Env{
		Owner: d.cfg.Owner, Now: d.cfg.Now(), Actor: in.Actor, Book: book, Facts: in.Facts, Salt: salt,
		Causation: in.Causation, Correlation: in.Correlation,
	}
}

func (d *Dispatcher) incident(id string) *incident {
	d.mu.Lock()
	defer d.mu.Unlock()
	inc, ok := d.incidents[id]
	if !ok {
		inc = &incident{}
		d.incidents[id] = inc
	}
	return inc
}

// load reads an incident the first time it is asked for.
func (d *Dispatcher) load(ctx context.Context, id string, inc *incident) error {
	if inc.reading != nil {
		return nil
	}
	inc.reading = &history.Reading{Chain: history.NewChain(id, d.cfg.Keys)}
	inc.state = procedure.NewState(id)
	if _, err := d.refresh(ctx, inc); err != nil {
		inc.reading = nil
		return err
	}
	return nil
}

// refresh reads what was stored since and folds it in; moved tells whether anything was.
func (d *Dispatcher) refresh(ctx context.Context, inc *incident) (moved bool, err error) {
	before, foreign := inc.reading.Last, len(inc.reading.Foreign)
	if err := inc.reading.Continue(ctx, d.cfg.Store); err != nil {
		return false, err
	}
	for _, f := range inc.reading.Foreign[foreign:] {
		d.cfg.Log.ErrorContext(ctx, "foreign record skipped", "incident", inc.state.Incident, "sequence", f.Sequence, "reason", string(f.Reason))
	}
	entries := inc.reading.Entries
	inc.reading.Entries, inc.reading.Foreign = nil, nil
	for _, e := range entries {
		if err := inc.state.Apply(e.Record, e.Hash); err != nil {
			inc.reading = nil // the state may be half a record further: read it anew next time
			return false, fmt.Errorf("fold %s: %w", e.Record.GetIncident(), err)
		}
	}
	return inc.reading.Last != before, nil
}

// record seals and appends a decision and folds it in.
func (d *Dispatcher) record(ctx context.Context, id string, inc *incident, cmd procedure.Command, in Input, book *rulebook.Book, dec *procedure.Decision) (*emergencyv1.Committed, error) {
	for _, s := range dec.Sealed {
		if err := d.cfg.Vault.Put(ctx, s.Commitment, s.Salt, s.Value); err != nil {
			return nil, fmt.Errorf("keep restricted value: %w", err)
		}
	}
	rec := d.newRecord(id, inc, cmd, in, book, dec)
	signed, hash, err := history.Seal(rec, d.cfg.Signer)
	if err != nil {
		return nil, err
	}
	headers := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, headers)
	sequence, err := d.cfg.Store.Append(ctx, id, inc.reading.Last, signed, headers)
	if err != nil {
		return nil, err
	}
	if err := d.accept(inc, signed, sequence, hash); err != nil {
		return nil, err
	}
	result := inc.state.Position
	types := make([]string, len(rec.GetEvents()))
	for i, e := range rec.GetEvents() {
		types[i] = e.GetType()
	}
	return &emergencyv1.Committed{
		Incident: id, FirstPosition: rec.GetFirstPosition(), LastPosition: result, EventTypes: types, RecordedAt: rec.GetRecordedAt(), RecordHash: hash,
	}, nil
}

func (d *Dispatcher) newRecord(id string, inc *incident, cmd procedure.Command, in Input, book *rulebook.Book, dec *procedure.Decision) *emergencyv1.Record {
	head := inc.reading.Chain.Head()
	position := uint64(0)
	if book != nil {
		position = book.Position
	}
	at := timestamppb.New(dec.RecordedAt)
	return &emergencyv1.Record{
		Incident: id, FirstPosition: head.Position + 1, Owner: d.cfg.Owner, Command: dec.Command, RequestId: cmd.GetMeta().GetRequestId(),
		RequestDigest: dec.Digest, Actor: dec.Actor, Authority: dec.Authority, OccurredAt: at, RecordedAt: at, SkewMs: dec.Skew.Milliseconds(),
		CausationId: in.Causation, CorrelationId: in.Correlation, PolicyDigest: dec.PolicyDigest, RulebookPosition: position,
		PrevHash: head.Hash, Approval: cmd.GetMeta().GetApproval(), Events: dec.Events,
	}
}

// accept folds our own record in by the same checks that every reader makes.
func (d *Dispatcher) accept(inc *incident, signed []byte, sequence uint64, hash string) error {
	entry, err := inc.reading.Chain.Accept(signed)
	if err == nil {
		inc.reading.Last = sequence
		err = inc.state.Apply(entry.Record, hash)
	}
	if err != nil {
		inc.reading = nil
		return fmt.Errorf("own record does not fold: %w", err)
	}
	return nil
}

func repeated(id string, r *procedure.Result) *emergencyv1.Committed {
	return &emergencyv1.Committed{
		Incident: id, FirstPosition: r.First, LastPosition: r.Last, EventTypes: r.Types, RecordedAt: timestamppb.New(r.RecordedAt), RecordHash: r.Hash, Repeated: true,
	}
}

// State returns a copy of an incident's state on the true head, for gathering facts. What is decided later is decided on
// the state as it is then.
func (d *Dispatcher) State(ctx context.Context, id string) (*procedure.State, error) {
	if !possible(id) {
		return procedure.NewState(id), nil
	}
	inc := d.incident(id)
	inc.mu.Lock()
	defer inc.mu.Unlock()
	if err := d.load(ctx, id, inc); err != nil {
		return nil, err
	}
	if _, err := d.refresh(ctx, inc); err != nil {
		return nil, err
	}
	return inc.state.Clone(), nil
}

// Book returns the rule book on its true head.
func (d *Dispatcher) Book(ctx context.Context) (*rulebook.Book, error) {
	return d.book.current(ctx, true)
}

// Now is the dispatcher's clock.
func (d *Dispatcher) Now() time.Time { return d.cfg.Now() }

// Owner is the service whose commands are dispatched.
func (d *Dispatcher) Owner() string { return d.cfg.Owner }
