// SPDX-License-Identifier: Apache-2.0

// Package dispatchtest is the writing side of the whole system in the hand of a test: one store with a founded rule book, a
// clock, service keys, and dispatchers of every owner, as many instances as a test wants. Commands are given by the people
// of proceduretest, filled in and signed as a client would on the history as it stands.
package dispatchtest

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	jetstreamstore "cacert.org/emergency/pkg/history/jetstream"
	memorystore "cacert.org/emergency/pkg/history/memory"
	"cacert.org/emergency/pkg/natsd/natsdtest"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/rulebook"
	"cacert.org/emergency/pkg/timer"
	"cacert.org/emergency/pkg/vault"
	vaultmemory "cacert.org/emergency/pkg/vault/memory"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Rig is what all dispatchers of a test share.
type Rig struct {
	TB     testing.TB
	Store  history.Store
	Keys   *historytest.Keys
	Clock  *timer.Manual
	Vaults map[string]vault.Store
	Log    *slog.Logger

	serial atomic.Int64
}

// New founds the rule book in an empty store. Time stands at proceduretest.T0.
func New(tb testing.TB, store history.Store) *Rig {
	tb.Helper()
	r := &Rig{
		TB: tb, Store: store, Keys: historytest.NewKeys(tb, "services"), Clock: timer.NewManual(proceduretest.T0()), Vaults: map[string]vault.Store{},
		Log: slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, owner := range procedure.Owners() {
		r.Vaults[owner] = vaultmemory.New()
	}
	r.Seed(proceduretest.Founding())
	return r
}

// Memory is a rig on a store in memory.
func Memory(tb testing.TB) *Rig {
	tb.Helper()
	return New(tb, &memorystore.Store{})
}

// JetStream is a rig on an embedded server of its own.
func JetStream(tb testing.TB) *Rig {
	tb.Helper()
	_, js := natsdtest.Start(tb)
	store, err := jetstreamstore.New(tb.Context(), jetstreamstore.Config{JS: js, Logger: slog.New(slog.DiscardHandler), Consumers: true})
	if err != nil {
		tb.Fatal(err)
	}
	return New(tb, store)
}

// OnBoth runs a test on both kinds of store.
func OnBoth(t *testing.T, test func(t *testing.T, r *Rig)) {
	t.Helper()
	for name, open := range map[string]func(testing.TB) *Rig{"memory": Memory, "jetstream": JetStream} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// Seed appends the history of a world, sealed by its owners' keys. The world's time must not be after the rig's.
func (r *Rig) Seed(w *proceduretest.World) {
	r.TB.Helper()
	last, err := r.Store.Last(r.TB.Context(), w.State.Incident)
	if err != nil {
		r.TB.Fatal(err)
	}
	for _, rec := range w.Records {
		signed, _, err := history.Seal(rec, r.Keys.Signer(r.TB, rec.GetOwner()))
		if err != nil {
			r.TB.Fatal(err)
		}
		if last, err = r.Store.Append(r.TB.Context(), w.State.Incident, last, signed, nil); err != nil {
			r.TB.Fatal(err)
		}
	}
	if w.Now.After(r.Clock.Now()) {
		r.Clock.Set(w.Now)
	}
}

// SeedStory puts an incident into the store that stands at a milestone of strategy 1, and returns its world.
func (r *Rig) SeedStory(to proceduretest.Milestone) *proceduretest.World {
	r.TB.Helper()
	w := proceduretest.NewWorld(r.TB)
	proceduretest.Story(to)(w)
	r.Seed(w)
	return w
}

// Config of one more dispatcher.
func (r *Rig) Config(owner string) dispatch.Config {
	return dispatch.Config{
		Owner: owner, Store: r.Store, Keys: r.Keys.Ring, Signer: r.Keys.Signer(r.TB, owner), Vault: r.Vaults[owner], Now: r.Clock.Now, Log: r.Log,
	}
}

// Dispatcher is one more instance of an owner's, with a cache of its own.
func (r *Rig) Dispatcher(owner string) *dispatch.Dispatcher {
	r.TB.Helper()
	return r.Build(r.Config(owner))
}

// Build builds a dispatcher from a changed Config.
func (r *Rig) Build(cfg dispatch.Config) *dispatch.Dispatcher {
	r.TB.Helper()
	d, err := dispatch.New(cfg)
	if err != nil {
		r.TB.Fatal(err)
	}
	return d
}

// State folds an incident from the store by itself.
func (r *Rig) State(incident string) *procedure.State {
	r.TB.Helper()
	s := procedure.NewState(incident)
	for _, e := range r.Entries(incident) {
		if err := s.Apply(e.Record, e.Hash); err != nil {
			r.TB.Fatal(err)
		}
	}
	return s
}

// Entries are the valid records of an incident.
func (r *Rig) Entries(incident string) []history.Entry {
	r.TB.Helper()
	reading, err := history.Read(r.TB.Context(), r.Store, r.Keys.Ring, incident)
	if err != nil {
		r.TB.Fatal(err)
	}
	return reading.Entries
}

// Book is the rule book as the store has it.
func (r *Rig) Book() *rulebook.Book {
	r.TB.Helper()
	var book *rulebook.Book
	for _, e := range r.Entries(procedure.RuleBook) {
		next, err := dispatch.FoldBook(book, &e)
		if err != nil {
			r.TB.Fatal(err)
		}
		book = next
	}
	return book
}

// Check reads everything as a second pair of eyes.
func (r *Rig) Check() {
	r.TB.Helper()
	var all []history.Message
	if err := r.Store.Scan(context.Background(), 0, func(m history.Message) error { all = append(all, m); return nil }); err != nil {
		r.TB.Fatal(err)
	}
	if err := historytest.CheckIndependently(all, r.Keys.Public()); err != nil {
		r.TB.Error(err)
	}
}

// RequestID is a fresh one.
func (r *Rig) RequestID() string { return fmt.Sprintf("request-%06d", r.serial.Add(1)) }

// Prepare fills in and signs a command as a client of a person would, on a state of the incident.
func (r *Rig) Prepare(s *procedure.State, book *rulebook.Book, who string, c procedure.Command) procedure.Command {
	r.TB.Helper()
	c = proto.Clone(c).(procedure.Command)
	meta := c.GetMeta()
	if meta == nil {
		meta = &emergencyv1.CommandMeta{}
		c.ProtoReflect().Set(c.ProtoReflect().Descriptor().Fields().ByName("meta"), protoreflect.ValueOfMessage(meta.ProtoReflect()))
	}
	if meta.GetRequestId() == "" {
		meta.RequestId = r.RequestID()
	}
	w := proceduretest.NewIncident(r.TB, s.Incident)
	w.State, w.Now = s, r.Clock.Now()
	if book != nil {
		w.Book = book
	}
	return w.Prepare(who, c)
}

// Input is who gives a command, with the facts that a service would find out when all is well.
func (r *Rig) Input(s *procedure.State, who string, c procedure.Command) dispatch.Input {
	return dispatch.Input{Actor: proceduretest.Actor(who), Facts: proceduretest.GoodFacts(s, c)}
}

// Do gives a command on the incident as it stands: prepared, with facts, by the dispatcher's owner.
func (r *Rig) Do(d *dispatch.Dispatcher, incident, who string, c procedure.Command) (*emergencyv1.Committed, error) {
	r.TB.Helper()
	s := r.State(incident)
	c = r.Prepare(s, nil, who, c)
	return d.Do(r.TB.Context(), c, r.Input(s, who, c))
}
