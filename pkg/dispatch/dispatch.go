// SPDX-License-Identifier: Apache-2.0

// Package dispatch is the only writer of histories: it loads an incident, lets pkg/procedure decide, appends the record on
// condition that nothing was added meanwhile, and decides again if something was.
//
// The order of writes is the safety argument. Restricted values are stored before the record that commits to them; the
// record is one message, so a command is recorded whole or not at all; it is acknowledged only after the store has it.
// Nothing is asked from outside between loading and appending: facts come in as values. A refusal, and the answer that there
// is nothing to record, are given only on the true head of the history, never on what a cache remembers. A record is folded
// before it is appended: nothing is ever stored that no reader could follow.
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

	"cacert.org/emergency/pkg/defect"
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
	lock
	reading *history.Reading // nil until it is loaded
	state   *procedure.State
	// trial is a second copy of state on which a record is folded before it is appended, so that no command copies a long history's
	// state. It is nil until it is needed, and after a record that was folded into it was not appended.
	trial *procedure.State
}

// fold folds a stored record into the state.
func (inc *incident) fold(rec *emergencyv1.Record, hash string) error {
	if err := applied(inc.state, rec, hash); err != nil {
		inc.reading, inc.trial = nil, nil // the state may be half a record further: read it anew next time
		return fmt.Errorf("fold %s: %w: %w", rec.GetIncident(), errUnfoldable, err)
	}
	return nil
}

// applied folds a record into a state. A panic is a history that this version cannot follow.
func applied(state *procedure.State, rec *emergencyv1.Record, hash string) error {
	return defect.Contained(func() error { return state.Apply(rec, hash) })
}

// lock is a mutex that nobody waits for longer than his context lasts.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

func (l lock) take(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the command before: %w: %w", history.ErrUnavailable, ctx.Err())
	}
}

func (l lock) give() { <-l }

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
	d.book = &bookCache{store: cfg.Store, keys: cfg.Keys, lock: newLock()}
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
	return d.hold(ctx, id, func(inc *incident) (*emergencyv1.Committed, error) {
		book, err := d.book.current(ctx, false)
		if err != nil {
			return nil, err
		}
		return d.decide(ctx, inc, &deciding{id: id, cmd: cmd, in: in, book: book, salt: newSalt()})
	})
}

// deciding is one command on its way.
type deciding struct {
	id   string
	cmd  procedure.Command
	in   Input
	book *rulebook.Book
	// salt is the same for every decision of the command, so that deciding again leaves no value in the vault under a
	// commitment that no record names.
	salt []byte
}

// decide decides until the outcome stands: what is recorded, refused, or known from before.
func (d *Dispatcher) decide(ctx context.Context, inc *incident, c *deciding) (*emergencyv1.Committed, error) {
	newest := false // whether the head and the book were read since something was known to have changed
	for lost := 0; lost < maxDecisions; {
		if c.id == procedure.RuleBook && position(c.book) < inc.state.Position { // what changes the rules is decided on all of them
			if _, err := d.renew(ctx, inc, c); err != nil {
				return nil, err
			}
		}
		decision, refusal, err := procedure.Decide(inc.state, c.cmd, d.env(c))
		if err != nil {
			return nil, err
		}
		if decision != nil && decision.Repeated != nil {
			return repeated(c.id, decision.Repeated), nil
		}
		if !newest && (refusal != nil || len(decision.Events) == 0) {
			newest = true
			moved, err := d.renew(ctx, inc, c)
			if err != nil {
				return nil, err
			}
			if moved {
				continue
			}
		}
		var committed *emergencyv1.Committed
		switch {
		case refusal != nil:
			err = d.recordRefusal(ctx, inc, c, refusal)
			if err != nil && !errors.Is(err, history.ErrConflict) && procedure.EachRefusalRecorded(c.cmd) {
				return nil, err // refused all the same; whoever asks again has it recorded
			}
			if !errors.Is(err, history.ErrConflict) {
				return nil, refusal
			}
		case len(decision.Events) == 0:
			return &emergencyv1.Committed{Incident: c.id, LastPosition: inc.state.Position, RecordedAt: timestamppb.New(inc.state.RecordedAt)}, nil
		default:
			if committed, err = d.record(ctx, inc, c, decision); !errors.Is(err, history.ErrConflict) {
				return committed, err
			}
		}
		newest = false
		before := inc.state.Position
		moved, err := d.refresh(ctx, inc)
		if err != nil {
			return nil, err
		}
		// What a stranger wrote changes nothing that the decision rests on, and must not end it: it is tried for as long as the caller
		// waits. So is the record of a refused use of a credential.
		strange := moved && inc.state.Position == before
		if !strange && (refusal == nil || !procedure.EachRefusalRecorded(c.cmd)) {
			lost++
		}
	}
	return nil, tooBusy("incident " + c.id)
}

// renew reads the head and the newest rule book; moved tells whether a decision may come out differently now.
func (d *Dispatcher) renew(ctx context.Context, inc *incident, c *deciding) (moved bool, err error) {
	if moved, err = d.refresh(ctx, inc); err != nil {
		return false, err
	}
	book, err := d.book.current(ctx, true)
	if err != nil {
		return false, err
	}
	moved = moved || book != c.book
	c.book = book
	return moved, nil
}

// hold runs fn on a loaded incident while nobody else in this process is at it. An incident that turns out to have no
// history is forgotten: ids that somebody makes up do not fill the memory.
func (d *Dispatcher) hold(ctx context.Context, id string, fn func(*incident) (*emergencyv1.Committed, error)) (*emergencyv1.Committed, error) {
	inc := d.incident(id)
	if err := inc.take(ctx); err != nil {
		return nil, err
	}
	defer inc.give()
	whole := false
	defer func() {
		if !whole {
			inc.reading, inc.trial = nil, nil // a defect ended it somewhere: it is read anew next time
		}
		if inc.reading == nil || inc.state.Position == 0 {
			d.forget(id, inc)
		}
	}()
	if err := d.load(ctx, id, inc); err != nil {
		return nil, err
	}
	committed, err := fn(inc)
	whole = true
	return committed, err
}

func (d *Dispatcher) forget(id string, inc *incident) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.incidents[id] == inc {
		delete(d.incidents, id)
	}
}

// possible tells whether an id could name a history at all.
func possible(id string) bool {
	_, err := history.Subject(id)
	return err == nil
}

func tooBusy(what string) *procedure.Refusal {
	return &procedure.Refusal{
		Code: procedure.Aborted, Reason: procedure.ReasonConcurrentModification, Rule: "G10",
		Message: fmt.Sprintf("%s was changed by others again and again while the command was decided", what),
		Allow:   []procedure.Allowance{{Description: "send the same command again, with the same request id"}},
	}
}

// unplaced answers a command that names no possible incident: it gets the refusal that the rules give it.
func (d *Dispatcher) unplaced(ctx context.Context, cmd procedure.Command, in Input) (*emergencyv1.Committed, error) {
	book, err := d.book.current(ctx, false)
	if err != nil {
		return nil, err
	}
	_, refusal, err := procedure.Decide(procedure.NewState(""), cmd, d.env(&deciding{in: in, book: book, salt: newSalt()}))
	if err != nil {
		return nil, err
	}
	if refusal == nil {
		return nil, fmt.Errorf("command %s names no incident and was not refused", procedure.CommandName(cmd))
	}
	return nil, refusal
}

func (d *Dispatcher) env(c *deciding) procedure.Env {
	return procedure.Env{
		Owner: d.cfg.Owner, Now: d.cfg.Now(), Actor: c.in.Actor, Book: c.book, Facts: c.in.Facts, Salt: c.salt,
		Causation: c.in.Causation, Correlation: c.in.Correlation,
	}
}

func newSalt() []byte {
	salt := make([]byte, 32)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	return salt
}

func (d *Dispatcher) incident(id string) *incident {
	d.mu.Lock()
	defer d.mu.Unlock()
	inc, ok := d.incidents[id]
	if !ok {
		inc = &incident{lock: newLock()}
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
	inc.state, inc.trial = procedure.NewState(id), nil
	if _, err := d.refresh(ctx, inc); err != nil {
		inc.reading = nil
		return err
	}
	return nil
}

// errUnfoldable: an authentic history does not make sense to this version.
var errUnfoldable = errors.New("this version cannot follow the history")

// Poisoned tells whether an error means that this version cannot follow the one incident that was asked for: trying again does not
// help before the program is updated, and other incidents are not affected.
func Poisoned(err error) bool {
	var unreadable *history.UnreadableError
	return errors.Is(err, errUnfoldable) || errors.As(err, &unreadable)
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
		if err := inc.fold(e.Record, e.Hash); err != nil {
			return false, err
		}
		d.recorded(e.Record)
		if inc.trial != nil && applied(inc.trial, e.Record, e.Hash) != nil { // what the state took, its copy takes
			inc.trial = nil
		}
	}
	return inc.reading.Last != before, nil
}

// record seals and appends a decision and folds it in. It is folded first, by the same checks that every reader makes: a
// record that no reader could follow would end the incident for good.
func (d *Dispatcher) record(ctx context.Context, inc *incident, c *deciding, dec *procedure.Decision) (*emergencyv1.Committed, error) {
	rec := d.newRecord(inc, c, dec)
	signed, hash, err := history.Seal(rec, d.cfg.Signer)
	if err != nil {
		return nil, err
	}
	chain := *inc.reading.Chain
	entry, err := chain.Accept(signed)
	if err != nil {
		return nil, fmt.Errorf("the record of %s would not be read: %w", dec.Command, err)
	}
	trial := inc.trial
	if inc.trial = nil; trial == nil {
		trial = inc.state.Clone()
	}
	if err := applied(trial, entry.Record, hash); err != nil {
		return nil, fmt.Errorf("the record of %s would not be folded: %w", dec.Command, err)
	}
	if err := d.keep(ctx, dec.Sealed); err != nil {
		return nil, err
	}
	headers := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, headers)
	sequence, err := d.cfg.Store.Append(ctx, c.id, inc.reading.Last, signed, headers)
	if err != nil {
		return nil, err
	}
	inc.reading.Chain, inc.reading.Last, inc.trial = &chain, sequence, trial
	d.recorded(entry.Record)
	if err := inc.fold(entry.Record, hash); err != nil { // it is stored, and is read anew by whoever comes next
		d.cfg.Log.ErrorContext(ctx, "a record that its copy took was not folded", "incident", c.id, "error", err)
	}
	if c.id == procedure.RuleBook {
		d.book.outdated()
	}
	types := make([]string, len(rec.GetEvents()))
	for i, e := range rec.GetEvents() {
		types[i] = e.GetType()
	}
	return &emergencyv1.Committed{
		Incident: c.id, FirstPosition: rec.GetFirstPosition(), LastPosition: trial.Position, EventTypes: types, RecordedAt: rec.GetRecordedAt(), RecordHash: hash,
	}, nil
}

// keep stores restricted values before the record that commits to them. Without the vault nothing is recorded, and the
// command may be sent again.
func (d *Dispatcher) keep(ctx context.Context, sealed []procedure.Sealed) error {
	for _, s := range sealed {
		err := d.cfg.Vault.Put(ctx, s.Commitment, s.Salt, s.Value)
		switch {
		case errors.Is(err, vault.ErrTooLarge), errors.Is(err, vault.ErrCommitment), errors.Is(err, vault.ErrSalt), errors.Is(err, vault.ErrDestroyed):
			return fmt.Errorf("keep restricted value: %w", err)
		case err != nil:
			return fmt.Errorf("keep restricted value: %w: %w", history.ErrUnavailable, err)
		}
	}
	return nil
}

func (d *Dispatcher) newRecord(inc *incident, c *deciding, dec *procedure.Decision) *emergencyv1.Record {
	head := inc.reading.Chain.Head()
	at := timestamppb.New(dec.RecordedAt)
	return &emergencyv1.Record{
		Incident: c.id, FirstPosition: head.Position + 1, Owner: d.cfg.Owner, Command: dec.Command, RequestId: c.cmd.GetMeta().GetRequestId(),
		RequestDigest: dec.Digest, Actor: dec.Actor, Authority: dec.Authority, OccurredAt: timestamppb.New(dec.OccurredAt), Late: dec.Late, RecordedAt: at, SkewMs: dec.Skew.Milliseconds(),
		CausationId: c.in.Causation, CorrelationId: c.in.Correlation, PolicyDigest: dec.PolicyDigest, RulebookPosition: position(c.book),
		PrevHash: head.Hash, Approval: c.cmd.GetMeta().GetApproval(), Events: dec.Events,
	}
}

func position(book *rulebook.Book) uint64 {
	if book == nil {
		return 0
	}
	return book.Position
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
	var state *procedure.State
	_, err := d.hold(ctx, id, func(inc *incident) (*emergencyv1.Committed, error) {
		if _, err := d.refresh(ctx, inc); err != nil {
			return nil, err
		}
		state = inc.state.Clone()
		return nil, nil
	})
	return state, err
}

// Book returns the rule book on its true head.
func (d *Dispatcher) Book(ctx context.Context) (*rulebook.Book, error) {
	return d.book.current(ctx, true)
}

// Now is the dispatcher's clock.
func (d *Dispatcher) Now() time.Time { return d.cfg.Now() }

// Owner is the service whose commands are dispatched.
func (d *Dispatcher) Owner() string { return d.cfg.Owner }
