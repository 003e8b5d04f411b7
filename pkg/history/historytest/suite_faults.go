// SPDX-License-Identifier: Apache-2.0

package historytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"cacert.org/emergency/pkg/history"
)

// strangers puts a message of every kind between two records. None is taken for history, none is in the way.
func strangers(t *testing.T, r *Rig) {
	keys, thief := NewKeys(t, "services"), NewKeys(t, "thief")
	w := keys.NewWriter(t, r.Store, incident, "incident")
	elsewhere := keys.NewWriter(t, r.Store, "e20261124.2", "incident")
	elsewhere.MustAppend(t, 1)
	w.MustAppend(t, 2)
	subject, err := history.Subject(incident)
	if err != nil {
		t.Fatal(err)
	}
	head := w.Chain.Head()
	wrongOwner := Record(t, incident, "review", head, 1, "forged")
	forged, _, err := history.Seal(wrongOwner, keys.Signer(t, "notification"))
	if err != nil {
		t.Fatal(err)
	}
	mixed := Record(t, incident, "review", head, 1, "forged")
	mixed.Events = append(mixed.Events, Record(t, incident, "deployment", head, 1, "forged").Events...)
	for want, data := range map[history.Reason][]byte{
		history.ReasonMalformed:        []byte(`{"type":"io.nats.jetstream.api.v1.stream_info_response","total":0}`),
		history.ReasonUnknownKey:       thief.Seal(t, Record(t, incident, "incident", head, 1, "forged")),
		history.ReasonGap:              w.Entries[0].Signed, // replayed
		history.ReasonWrongSubject:     elsewhere.Entries[0].Signed,
		history.ReasonWrongOwner:       forged,
		history.ReasonForeignEventType: keys.Seal(t, mixed),
	} {
		r.Publish(t, subject, data)
		reading, err := history.Read(t.Context(), r.Store, keys.Ring, incident)
		if err != nil {
			t.Fatal(err)
		}
		if got := reading.Foreign[len(reading.Foreign)-1]; got.Reason != want || got.Sequence != reading.Last {
			t.Errorf("foreign is %v at %d, want %s at %d", got.ForeignError, got.Sequence, want, reading.Last)
		}
		// A writer that has not seen the stranger must decide again, and then gets through.
		_, err = w.Append(t.Context(), w.Next(t, "after "+string(want)))
		is(t, err, history.ErrConflict)
		w.MustAppend(t, 1)
	}
	r.Publish(t, "emergency.No_Incident", []byte("junk"))
	r.Publish(t, subject, nil)
	report, err := history.Verify(t.Context(), r.Store, keys.Ring)
	if err != nil || !report.Sound() || len(report.Findings) != 8 || report.Records != 9 {
		t.Errorf("report %+v, error %v", report, err)
	}
}

// strangersWhileWriting floods the subject while services write: they must all get through, each record once.
func strangersWhileWriting(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	subject, err := history.Subject(incident)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var flood, writers sync.WaitGroup
	r.Publish(t, subject, []byte("junk 0")) // a store in memory may be done with all writers within the first millisecond
	flood.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond): // a rate, not a wait: writers need several tries a second to lose against
				r.Publish(t, subject, fmt.Appendf(nil, "junk %d", n))
			}
		}
	})
	for i := range 4 {
		writers.Go(func() {
			w := keys.NewWriter(t, r.Store, incident, "review")
			for n := 0; n < 5 && !t.Failed(); {
				_, err := w.Append(t.Context(), w.Next(t, fmt.Sprintf("writer %d, record %d", i, n)))
				if err == nil {
					n++
				} else if !errors.Is(err, history.ErrConflict) {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	flood.Wait()
	reading, err := history.Read(t.Context(), r.Store, keys.Ring, incident)
	if err != nil || len(reading.Entries) != 20 || len(reading.Foreign) == 0 {
		t.Errorf("%d records, %d foreign, error %v; want 20 and some", len(reading.Entries), len(reading.Foreign), err)
	}
	var valid []history.Message
	for _, e := range reading.Entries {
		valid = append(valid, history.Message{Incident: incident, Sequence: e.Sequence, Data: e.Signed})
	}
	if err := CheckIndependently(valid, keys.Public()); err != nil {
		t.Error(err)
	}
}

// collector is what a follower has seen.
type collector struct {
	messages chan history.Message
	done     chan error
	cancel   context.CancelFunc
}

func collect(t *testing.T, store history.Store, after history.Mark) *collector {
	ctx, cancel := context.WithCancel(t.Context())
	c := &collector{messages: make(chan history.Message, 10000), done: make(chan error, 1), cancel: cancel}
	t.Cleanup(func() { cancel(); <-c.done })
	go func() {
		c.done <- store.Follow(ctx, after, func(m history.Message) error { c.messages <- m; return nil })
		close(c.done)
	}()
	return c
}

// take waits for n messages, which must follow each other without a gap.
func (c *collector) take(t *testing.T, n int) (last history.Message) {
	t.Helper()
	for range n {
		select {
		case m := <-c.messages:
			if last.Sequence > 0 && m.Sequence != last.Sequence+1 {
				t.Fatalf("sequence %d follows %d", m.Sequence, last.Sequence)
			}
			last = m
		case err := <-c.done:
			t.Fatalf("follow ended: %v", err)
		case <-t.Context().Done():
			t.Fatal("test ended while waiting for messages")
		}
	}
	return last
}

func follow(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	w := keys.NewWriter(t, r.Store, incident, "incident")
	w.MustAppend(t, 30)
	c := collect(t, r.Store, history.Mark{})
	mark := c.take(t, 30).Mark()
	w.MustAppend(t, 3)
	c.take(t, 3)
	if r.Restart != nil {
		r.Restart(t)
		w.MustAppend(t, 3)
		c.take(t, 3)
	} else {
		w.MustAppend(t, 3)
	}
	fromMark := collect(t, r.Store, mark)
	if last := fromMark.take(t, 6); last.Sequence != mark.Sequence+6 {
		t.Errorf("from mark %d on, the sixth is %d", mark.Sequence, last.Sequence)
	}
	c.cancel()
	is(t, <-c.done, context.Canceled)
	err := r.Store.Follow(t.Context(), mark, func(history.Message) error { return errStop })
	if err != errStop {
		t.Errorf("follow returned %v, want the function's own error", err)
	}
	check(t, r.Store, keys, 36)
}

func followChecksMark(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	w := keys.NewWriter(t, r.Store, incident, "incident")
	w.MustAppend(t, 3)
	none := func(m history.Message) error { t.Errorf("sequence %d was delivered", m.Sequence); return nil }
	for name, mark := range map[string]history.Mark{
		"another message": {Sequence: 2, Hash: history.Genesis("another")},
		"never there":     {Sequence: 4},
	} {
		if err := r.Store.Follow(t.Context(), mark, none); !errors.Is(err, history.ErrRolledBack) {
			t.Errorf("%s: %v, want ErrRolledBack", name, err)
		}
	}
}

// followRolledBack restores an old copy and lets others use its sequences again: by number alone all looks well.
func followRolledBack(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	w := keys.NewWriter(t, r.Store, incident, "incident")
	w.MustAppend(t, 3)
	r.Backup(t)
	c := collect(t, r.Store, history.Mark{})
	w.MustAppend(t, 2)
	mark := c.take(t, 5).Mark()
	r.Restore(t)
	keys.NewWriter(t, r.Store, "e20261124.2", "review").MustAppend(t, 4)
	if err := <-c.done; !errors.Is(err, history.ErrRolledBack) {
		t.Errorf("the running follower ended with %v, want ErrRolledBack", err)
	}
	none := func(m history.Message) error { t.Errorf("sequence %d was delivered", m.Sequence); return nil }
	is(t, r.Store.Follow(t.Context(), mark, none), history.ErrRolledBack)
}

func appendRolledBack(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	w := keys.NewWriter(t, r.Store, incident, "incident")
	w.MustAppend(t, 1)
	r.Backup(t)
	w.MustAppend(t, 2)
	r.Restore(t)
	_, err := r.Store.Append(t.Context(), incident, w.Last, w.Next(t, "on lost ground"), nil)
	is(t, err, history.ErrRolledBack)
	check(t, r.Store, keys, 1)
}

// flippedByte damages a record in the middle. The report must not call the store sound.
func flippedByte(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	w := keys.NewWriter(t, r.Store, incident, "incident")
	w.MustAppend(t, 20)
	before, err := history.Verify(t.Context(), r.Store, keys.Ring)
	if err != nil || !before.Clean() || before.Records != 20 || before.Events != 40 || before.Heads[incident] != w.Chain.Head() {
		t.Fatalf("before the damage: %+v, error %v", before, err)
	}
	r.FlipByte(t, load(t, r.Store, 0)[10])
	report, err := history.Verify(t.Context(), r.Store, keys.Ring)
	if err != nil {
		t.Fatal(err)
	}
	if report.Sound() && report.Heads[incident] == before.Heads[incident] {
		t.Error("nothing was found")
	}
	for _, f := range report.Findings {
		t.Log(f)
	}
	ends := slices.ContainsFunc(report.Findings, func(f history.Finding) bool {
		return f.Reason == history.ReasonHistoryEnds && f.Position == 20
	})
	if !ends && report.LastSequence >= before.LastSequence {
		t.Error("the report does not say that the valid history ends at position 20")
	}
}
