// SPDX-License-Identifier: Apache-2.0

package projection_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/memory"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// nothing is a projection that keeps nothing.
type nothing struct{}

func (nothing) Name() string                     { return "nothing" }
func (nothing) Version() int                     { return 1 }
func (nothing) Apply([]*projection.Record) error { return nil }
func (nothing) Dump(io.Writer) error             { return nil }

// Whoever follows a runner gets every record after a mark once and in order: what the runner keeps, what it has to read again, and what
// comes; nothing of strangers, and nothing at all after a mark that the log does not have.
func TestRecords(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	publish := r.Store.(interface {
		Publish(subject string, data []byte) uint64
	}).Publish
	w := r.Keys.NewWriter(t, r.Store, "e20261124.7", procedure.OwnerIncident)
	var want []history.Mark
	grow := func(n int) {
		t.Helper()
		for range n {
			if len(want)%97 == 0 {
				publish("emergency.e20261124-7", []byte("junk"))
				publish("emergency.Nothing_Of_Ours", []byte("junk"))
				if err := w.Continue(t.Context(), r.Store); err != nil {
					t.Fatal(err)
				}
			}
			signed := w.Next(t, "x")
			sequence, err := w.Append(t.Context(), signed)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, history.Message{Sequence: sequence, Data: signed}.Mark())
		}
	}
	grow(2600) // more than a runner keeps
	runner, err := projection.New(projection.Config{Store: r.Store, Keys: r.Keys.Ring, Log: r.Log, Projections: []projection.Projection{nothing{}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := runner.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { ended <- runner.Run(ctx) }()
	defer func() { stop(); <-ended }()

	enough := errors.New("enough")
	first := want[0].Sequence
	for name, after := range map[string]history.Mark{"the beginning": {}, "the first": want[0], "in the middle": want[1300], "of what is kept": want[2500], "the end": want[2599]} {
		t.Run(name, func(t *testing.T) {
			from := slices.IndexFunc(want, func(m history.Mark) bool { return m.Sequence > after.Sequence })
			if from < 0 {
				from = len(want)
			}
			got := make(chan history.Mark)
			done := make(chan error, 1)
			go func() {
				done <- runner.Records(t.Context(), after, func(m history.Mark, rec *projection.Record) error {
					if rec.Incident == procedure.RuleBook && m.Sequence < first && after.Sequence == 0 {
						return nil // with which the rig begins
					}
					if rec.Sequence != m.Sequence || rec.Incident != "e20261124.7" || len(rec.Events) != 2 {
						return errors.New("another record")
					}
					select {
					case got <- m:
						return nil
					case <-t.Context().Done():
						return enough
					}
				})
			}()
			next := func(i int) {
				t.Helper()
				select {
				case m := <-got:
					if m != want[i] {
						t.Fatalf("record %d is at %d, want %d", i, m.Sequence, want[i].Sequence)
					}
				case err := <-done:
					t.Fatalf("ended before record %d: %v", i, err)
				}
			}
			for i := from; i < len(want); i++ {
				next(i)
			}
			there := len(want)
			grow(3)
			for i := there; i < len(want); i++ {
				next(i)
			}
		})
	}
	for name, mark := range map[string]history.Mark{"beyond the end": {Sequence: 1 << 40, Hash: "x"}, "another message": {Sequence: want[5].Sequence, Hash: want[6].Hash}} {
		err := runner.Records(t.Context(), mark, func(history.Mark, *projection.Record) error { return enough })
		if !errors.Is(err, history.ErrRolledBack) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What was verified is not verified again, and what was not is: a block that is remembered passes with a signature that nobody made, which
// shows that it is not looked at; the same bytes elsewhere, or one byte changed, are a stranger's.
func TestVerifiedBlocksAreNotVerifiedAgain(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	w := r.Keys.NewWriter(t, r.Store, "e20261124.7", procedure.OwnerIncident)
	w.MustAppend(t, 2*history.BlockSize)
	var all []history.Message
	if err := r.Store.Scan(t.Context(), 0, func(m history.Message) error { all = append(all, m); return nil }); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "verified")
	read := func(messages []history.Message) int { // how many are a stranger's
		t.Helper()
		store := &memory.Store{}
		for _, m := range messages {
			store.Publish("emergency."+strings.ReplaceAll(m.Incident, ".", "-"), m.Data)
		}
		known, err := history.OpenVerified(path)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := history.NewKeyring(r.Keys.Ring.Keys()...) // one that remembers no signature
		if err != nil {
			t.Fatal(err)
		}
		runner, err := projection.New(projection.Config{
			Store: store, Keys: keys, Log: slog.New(slog.DiscardHandler), Projections: []projection.Projection{nothing{}}, Verified: known,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := runner.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		return runner.Foreign()
	}
	if n := read(all); n != 0 {
		t.Fatalf("%d of the true records are foreign", n)
	}
	forged := func(i int) []history.Message {
		list := slices.Clone(all)
		signed := &emergencyv1.SignedRecord{}
		if err := proto.Unmarshal(list[i].Data, signed); err != nil {
			t.Fatal(err)
		}
		signed.Signature[0] ^= 1
		var err error
		if list[i].Data, err = proto.Marshal(signed); err != nil {
			t.Fatal(err)
		}
		return list
	}
	const at = history.BlockSize + 9
	if n := read(forged(at)); n != len(all)-at { // it, and all that would continue it
		t.Errorf("a forged signature in a block that was verified otherwise: %d foreign, want %d", n, len(all)-at)
	}
	known, err := history.OpenVerified(path)
	if err != nil {
		t.Fatal(err)
	}
	known.Remember(forged(at)[history.BlockSize : 2*history.BlockSize])
	if err := known.Save(); err != nil {
		t.Fatal(err)
	}
	if n := read(forged(at)); n != 0 {
		t.Errorf("a block that is remembered was verified: %d foreign", n)
	}
	if n := read(all); n != 0 {
		t.Errorf("%d of the true records are foreign", n)
	}
	if n := read(forged(9)); n == 0 {
		t.Error("a forged signature in the first block passed")
	}
}
