// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// T is the part of testing.TB that this package needs; a *rapid.T and a *testing.B have it too.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// World is one history in the hand of a test: an incident, or the rule book itself. It does what a service does around
// Decide and Apply, with the time in the test's hand.
type World struct {
	// Book is the rule book that decisions see.
	Book *rulebook.Book
	// State is the fold of Records.
	State *procedure.State
	// Now is the clock of the deciding services.
	Now time.Time
	// Records is the history so far; Bytes are its stored bytes.
	Records []*emergencyv1.Record
	Bytes   [][]byte
	// Sealed are the restricted values kept outside, by commitment.
	Sealed map[string]string
	// Revealed are the same with their salts.
	Revealed map[string]*procedure.Revealed
	// Unsigned stops commands from being signed on the way, for tests of missing signatures.
	Unsigned bool
	// Forwarding has a service hand on what persons give from now on, all of it signed, as the dashboard does; see HandOn.
	Forwarding bool

	t      T
	head   string
	serial int
	seen   seen
}

// seen is the fingerprint that a state had when it was last looked at.
type seen struct {
	state *procedure.State
	print string
}

// unchanged fails if the state is not as it was when it was last looked at.
func (w *World) unchanged(what string) {
	w.t.Helper()
	if Fingerprint(w.State) != w.fingerprint() {
		w.t.Fatalf("%s changed the state it was given", what)
	}
}

func (w *World) fingerprint() string {
	if w.seen.state != w.State {
		w.seen = seen{w.State, Fingerprint(w.State)}
	}
	return w.seen.print
}

// Change lets a test make a state that no history of this version has.
func (w *World) Change(change func(*procedure.State)) {
	w.State = w.State.Clone()
	change(w.State)
}

// DefaultIncident is the id of the incident that a test gets if it names none.
const DefaultIncident = "e20261124.1"

// NewWorld is an incident without a history, under the fixture's rule book.
func NewWorld(t T) *World { return NewIncident(t, DefaultIncident) }

// NewIncident is an incident of a given id without a history.
func NewIncident(t T, id string) *World {
	return &World{t: t, Now: T0(), Book: Book(), State: procedure.NewState(id), head: Genesis(id)}
}

// Forwarder is the service that hands on what persons give, and OtherService one that could as well; see HandOn.
const (
	Forwarder    = "service:dashboard"
	OtherService = "service:other"
)

// HandOn is a step after which persons give their commands through a service, whose key is in the rule book.
func HandOn() Step {
	return func(w *World) {
		w.t.Helper()
		for _, name := range []string{Forwarder, OtherService} {
			k := KeyOf(name)
			key := &emergencyv1.Key{KeyId: k.ID, PublicKey: k.Public, System: emergencyv1.SystemKind_SYSTEM_KIND_SERVICE, SystemName: strings.TrimPrefix(name, "service:")}
			book, err := w.Book.With(w.Book.Position+1, Founded(), &emergencyv1.KeyAdded{Key: key})
			if err != nil {
				w.t.Fatalf("key of %s: %v", name, err)
			}
			w.Book = book
		}
		w.Forwarding = true
	}
}

// Fork is an independent copy: what is done in one is not done in the other.
func (w *World) Fork() *World {
	n := *w
	n.State, n.Records, n.Bytes = w.State.Clone(), slices.Clone(w.Records), slices.Clone(w.Bytes)
	n.Sealed = map[string]string{}
	for k, v := range w.Sealed {
		n.Sealed[k] = v
	}
	return &n
}

// T is the test that the world belongs to.
func (w *World) T() T { return w.t }

// For hands a copy of the world to another test.
func (w *World) For(t T) *World {
	n := w.Fork()
	n.t = t
	return n
}

// Outcome is what became of a command.
type Outcome struct {
	Command  procedure.Command // as it was sent
	Decision *procedure.Decision
	Refusal  *procedure.Refusal
	Err      error
	Record   *emergencyv1.Record // nil when nothing was recorded
}

// Types are the types of the events that were recorded.
func (o Outcome) Types() []string {
	var list []string
	for _, e := range o.Record.GetEvents() {
		list = append(list, e.GetType())
	}
	return list
}

// Option changes how a command is sent.
type Option func(*sending)

type sending struct {
	owner string
	facts *procedure.Facts
	env   func(*procedure.Env)
}

// Owner names the service that decides; needed for Tick alone.
func Owner(owner string) Option { return func(s *sending) { s.owner = owner } }

// Facts replaces what the service would find out.
func Facts(f procedure.Facts) Option { return func(s *sending) { s.facts = &f } }

// WithEnv changes the environment of the decision as the last thing before it is made.
func WithEnv(change func(*procedure.Env)) Option { return func(s *sending) { s.env = change } }

// Do gives a command that must be accepted.
func (w *World) Do(who string, c procedure.Command, options ...Option) Outcome {
	w.t.Helper()
	out := w.Try(who, c, options...)
	if out.Err != nil {
		w.t.Fatalf("%s by %s: %v", procedure.CommandName(c), who, out.Err)
	}
	if out.Refusal != nil {
		w.t.Fatalf("%s by %s was refused: %v", procedure.CommandName(c), who, out.Refusal)
	}
	return out
}

// Try gives a command: it is filled in and signed, decided, and recorded if it is accepted. On the way it checks what no
// decision may ever do, change the state or the command, and that the record can be verified by who believes no service.
func (w *World) Try(who string, c procedure.Command, options ...Option) Outcome {
	w.t.Helper()
	c = w.Prepare(who, c)
	out := w.Decide(who, c, options...)
	if out.Decision != nil && out.Decision.Repeated == nil && len(out.Decision.Events) > 0 {
		out.Record = w.Record(c, out.Decision)
	}
	return out
}

// Record records a decision on a command, as it was prepared.
func (w *World) Record(c procedure.Command, d *procedure.Decision) *emergencyv1.Record {
	w.t.Helper()
	rec := w.newRecord(c, d)
	if err := procedure.VerifyRecord(w.State, rec, w.Book); err != nil {
		w.t.Fatalf("%s by %s was accepted, and nobody who reads it can believe it: %v", d.Command, d.Actor.GetPerson(), err)
	}
	w.record(rec)
	for _, s := range d.Sealed {
		if w.Sealed == nil {
			w.Sealed = map[string]string{}
		}
		w.Sealed[s.Commitment] = string(s.Value)
		w.Revealed = maps.Clone(w.Revealed)
		if w.Revealed == nil {
			w.Revealed = map[string]*procedure.Revealed{}
		}
		w.Revealed[s.Commitment] = &procedure.Revealed{Salt: s.Salt, Value: s.Value}
	}
	return rec
}

// Decide only decides a prepared command, and records nothing.
func (w *World) Decide(who string, c procedure.Command, options ...Option) Outcome {
	w.t.Helper()
	s := &sending{owner: procedure.CommandOwner(c)}
	for _, o := range options {
		o(s)
	}
	if s.owner == "" {
		s.owner = procedure.OwnerIncident
	}
	env := w.Env(who, s.owner)
	if c.GetMeta().GetForwarded() && IsPerson(who) {
		env.Actor = Actor(Forwarder)
	}
	if s.facts != nil {
		env.Facts = *s.facts
	} else {
		env.Facts = w.GoodFacts(c)
	}
	if s.env != nil {
		s.env(&env)
	}
	return w.DecideIn(c, env)
}

// DecideIn decides a prepared command in an environment, and checks that neither state nor command was changed by it, and
// that the answer is exactly one of decision, refusal and error.
func (w *World) DecideIn(c procedure.Command, env procedure.Env) Outcome {
	w.t.Helper()
	w.fingerprint()
	command := proto.Clone(c)
	d, r, err := procedure.Decide(w.State, c, env)
	w.unchanged("deciding " + procedure.CommandName(c))
	if !proto.Equal(command, c) {
		w.t.Fatalf("deciding %s changed the command", procedure.CommandName(c))
	}
	answers := 0
	for _, given := range []bool{d != nil, r != nil, err != nil} {
		if given {
			answers++
		}
	}
	if answers != 1 {
		w.t.Fatalf("deciding %s gave decision %v, refusal %v and error %v", procedure.CommandName(c), d, r, err)
	}
	return Outcome{Command: c, Decision: d, Refusal: r, Err: err}
}

// Env is the environment of a decision at the world's time.
func (w *World) Env(who, owner string) procedure.Env {
	salt := sha256.Sum256(fmt.Appendf(nil, "salt %s %d", w.State.Incident, w.State.Position))
	return procedure.Env{Owner: owner, Now: w.Now, Actor: Actor(who), Book: w.Book, Salt: salt[:]}
}

// Prepare returns a copy of a command with everything filled in that a client would: incident, a fresh request id, the
// current revision's binding, and the person's signature where one is needed.
func (w *World) Prepare(who string, c procedure.Command) procedure.Command {
	c = proto.Clone(c).(procedure.Command)
	m := c.ProtoReflect()
	meta := c.GetMeta()
	if meta == nil {
		m.Set(m.Descriptor().Fields().ByName("meta"), m.NewField(m.Descriptor().Fields().ByName("meta")))
		meta = c.GetMeta()
	}
	if _, declares := c.(*emergencyv1.DeclareRequest); !declares && meta.Incident == "" {
		meta.Incident = w.State.Incident
	}
	if meta.RequestId == "" {
		w.serial++
		meta.RequestId = fmt.Sprintf("request-%04d", w.serial)
	}
	if fd := m.Descriptor().Fields().ByName("binding"); fd != nil && !m.Has(fd) {
		if r := w.State.Current(); r != nil {
			b := &emergencyv1.Binding{Revision: r.ID, Digest: r.Binding}
			m.Set(fd, protoMessage(b))
		}
	}
	if w.Forwarding && IsPerson(who) && meta.CapturedAt == nil {
		meta.Forwarded = true
	}
	if procedure.NeedsSignature(c) && meta.Approval == nil && IsPerson(who) && !w.Unsigned {
		meta.Approval = w.Sign(who, c)
	}
	return c
}

// Sign is a person's approval of a command as the history stands, in the role that fits.
func (w *World) Sign(key string, c procedure.Command) *emergencyv1.Approval {
	at := w.Now
	if captured := c.GetMeta().GetCapturedAt(); captured != nil {
		at = captured.AsTime() // it was signed then
	}
	st, err := procedure.StatementFor(w.State, c, PersonOf(key), w.roleFor(key, c), at)
	if err != nil {
		w.t.Fatalf("statement for %s: %v", procedure.CommandName(c), err)
	}
	return KeyOf(key).Sign(st)
}

// roleFor is the role in which a person would give a command: one that both have, else the first that the command asks for.
func (w *World) roleFor(key string, c procedure.Command) emergencyv1.Role {
	wanted := commandRoles(procedure.CommandName(c))
	for _, r := range wanted {
		if w.Book.Has(PersonOf(key), r, w.Now) {
			return r
		}
	}
	if len(wanted) == 0 {
		return emergencyv1.Role_ROLE_MEMBER
	}
	return wanted[0]
}

func commandRoles(name string) []emergencyv1.Role {
	for _, info := range commands() {
		if info.Name == name {
			return info.Roles
		}
	}
	return nil
}

// Tick gives a service's timer its turn; nothing due is no failure.
func (w *World) Tick(owner string) Outcome {
	w.t.Helper()
	return w.Do("timer", &emergencyv1.TickRequest{}, Owner(owner))
}

// Sync makes the obligations visible.
func (w *World) Sync() Outcome {
	w.t.Helper()
	return w.Do("reactor", &emergencyv1.SyncObligationsRequest{})
}

// Wait moves the time on.
func (w *World) Wait(d time.Duration) *World {
	w.Now = w.Now.Add(d)
	return w
}

// Append records events that no command of this version would decide, such as an import of old data. Nothing is checked.
func (w *World) Append(owner, command string, payloads ...proto.Message) *emergencyv1.Record {
	w.t.Helper()
	dec := &procedure.Decision{Owner: owner, Command: command, RecordedAt: w.Now, Actor: &emergencyv1.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_SERVICE, SystemName: owner}}
	for _, p := range payloads {
		e, err := procedure.EncodeEvent(owner, p)
		if err != nil {
			w.t.Fatalf("encode: %v", err)
		}
		dec.Events = append(dec.Events, e)
	}
	w.serial++
	rec := w.newRecord(nil, dec)
	rec.RequestId = fmt.Sprintf("append-%04d", w.serial)
	w.record(rec)
	return rec
}

// AppendRefusal records that a command was refused, as the service that decided it does.
func (w *World) AppendRefusal(who string, c procedure.Command, r *procedure.Refusal) {
	w.t.Helper()
	e, err := procedure.RefusedEvent(procedure.CommandOwner(c), c, r, 0)
	if err != nil {
		w.t.Fatalf("refusal event: %v", err)
	}
	digest, err := procedure.RequestDigest(c)
	if err != nil {
		w.t.Fatalf("digest: %v", err)
	}
	w.record(w.newRecord(c, &procedure.Decision{
		Owner: procedure.CommandOwner(c), Command: procedure.CommandName(c), Digest: digest, Authority: r.Rule, RecordedAt: w.Now,
		Actor: &emergencyv1.Actor{Person: PersonOf(who), KeyId: KeyOf(who).ID}, Events: []*emergencyv1.Event{e},
	}))
}

func (w *World) newRecord(c procedure.Command, dec *procedure.Decision) *emergencyv1.Record {
	occurred := dec.OccurredAt
	if occurred.IsZero() {
		occurred = dec.RecordedAt
	}
	rec := &emergencyv1.Record{
		Incident: w.State.Incident, FirstPosition: w.State.Position + 1, Owner: dec.Owner, Command: dec.Command, RequestDigest: dec.Digest,
		Actor: dec.Actor, Authority: dec.Authority, OccurredAt: timestamppb.New(occurred), Late: dec.Late, RecordedAt: timestamppb.New(dec.RecordedAt),
		SkewMs: dec.Skew.Milliseconds(), PolicyDigest: dec.PolicyDigest, RulebookPosition: w.Book.Position, PrevHash: w.head, Events: dec.Events,
	}
	if c != nil {
		rec.RequestId, rec.Approval = c.GetMeta().GetRequestId(), c.GetMeta().GetApproval()
	}
	return rec
}

// record folds a record in and checks that evolving left the state before it as it was.
func (w *World) record(rec *emergencyv1.Record) {
	w.t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(rec)
	if err != nil {
		w.t.Fatalf("encode record: %v", err)
	}
	hash := HashOf(b)
	w.fingerprint()
	next, err := procedure.Evolve(w.State, rec, hash)
	if err != nil {
		w.t.Fatalf("evolve after %s: %v", rec.GetCommand(), err)
	}
	w.unchanged("evolving " + rec.GetCommand())
	w.State, w.head = next, hash
	w.Records, w.Bytes = append(w.Records, rec), append(w.Bytes, b)
	if w.State.Incident == procedure.RuleBook {
		w.Book = FollowBook(w.t, w.Book, w.State.Position, rec)
	}
}

// FollowBook is the rule book after one more record of it, which ends at a position.
func FollowBook(t T, b *rulebook.Book, position uint64, rec *emergencyv1.Record) *rulebook.Book {
	t.Helper()
	var payloads []proto.Message
	for _, e := range rec.GetEvents() {
		p, err := procedure.DecodeEvent(e)
		if err != nil {
			t.Fatalf("decode: %v", err)
		}
		payloads = append(payloads, p)
	}
	n, err := b.With(position, rec.GetRecordedAt().AsTime(), payloads...)
	if err != nil {
		t.Fatalf("fold rule book: %v", err)
	}
	return n
}

// HashOf is the hash of a record's stored bytes.
func HashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// ShortType is an event type without its owner.
func ShortType(eventType string) string {
	_, name, _ := strings.Cut(eventType, ".")
	return name
}
