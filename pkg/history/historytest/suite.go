// SPDX-License-Identifier: Apache-2.0

package historytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"cacert.org/emergency/pkg/history"
)

// Rig is a fresh, empty store and the hands of a test on it. Only Store, Publish, Fail and Heal are used while others
// use the store.
type Rig struct {
	Store history.Store
	// Publish stores a message as a stranger would: any subject, no condition.
	Publish func(tb testing.TB, subject string, data []byte)
	// Fail makes the next append fail.
	Fail func(tb testing.TB, how Failure)
	// Heal ends AckLostAndDown.
	Heal func(tb testing.TB)
	// Restart stops the store and starts it again. Nil for a store that does not outlive its process.
	Restart func(tb testing.TB)
	// FlipByte changes one bit in the middle of the stored data of a message.
	FlipByte func(tb testing.TB, message history.Message)
	// Backup keeps the store as it is; Restore brings it back, as an operator does with an old copy.
	Backup, Restore func(tb testing.TB)
}

const incident = "e20261124.1"

// Run runs the suite. Each test gets a rig of its own.
func Run(t *testing.T, newRig func(t *testing.T) *Rig) {
	for name, test := range map[string]func(*testing.T, *Rig){
		"append and load":           appendAndLoad,
		"append refuses":            appendRefuses,
		"repeat the same bytes":     repeatSameBytes,
		"largest record":            largestRecord,
		"incidents":                 incidents,
		"ended context":             endedContext,
		"scan":                      scan,
		"long history":              longHistory,
		"race on one incident":      raceOneIncident,
		"race step by step":         raceStepByStep,
		"incidents do not wait":     incidentsOverlap,
		"strangers":                 strangers,
		"strangers while writing":   strangersWhileWriting,
		"follow":                    follow,
		"follow checks its mark":    followChecksMark,
		"follow a rolled-back log":  followRolledBack,
		"flipped byte":              flippedByte,
		"append to rolled-back log": appendRolledBack,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newRig(t))
		})
	}
	for _, how := range []Failure{NotStored, AckLost, AckLostAndDown} {
		t.Run("append fails, "+how.String(), func(t *testing.T) {
			t.Parallel()
			appendFails(t, newRig(t), how)
		})
	}
}

func load(tb testing.TB, store history.Store, after uint64) []history.Message {
	tb.Helper()
	messages, err := store.Load(tb.Context(), incident, after)
	if err != nil {
		tb.Fatal(err)
	}
	return messages
}

func check(tb testing.TB, store history.Store, keys *Keys, want int) {
	tb.Helper()
	messages := load(tb, store, 0)
	if len(messages) != want {
		tb.Errorf("%d messages are stored, want %d", len(messages), want)
	}
	if err := CheckIndependently(messages, keys.Public()); err != nil {
		tb.Error(err)
	}
}

func is(tb testing.TB, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("error is %v, want %v", err, want)
	}
}

func appendAndLoad(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	if got := load(t, r.Store, 0); len(got) != 0 {
		t.Fatalf("a new store has %d messages", len(got))
	}
	w := keys.NewWriter(t, r.Store, incident, "incident")
	signed := w.Next(t, "first")
	headers := map[string]string{"traceparent": "00-1-1-01"}
	sequence, err := r.Store.Append(t.Context(), incident, 0, signed, headers)
	if err != nil || sequence == 0 {
		t.Fatalf("append: sequence %d, error %v", sequence, err)
	}
	got := load(t, r.Store, 0)
	if len(got) != 1 || got[0].Sequence != sequence || got[0].Incident != incident || !bytes.Equal(got[0].Data, signed) ||
		got[0].Header["traceparent"] != "00-1-1-01" || got[0].Time.IsZero() {
		t.Fatalf("stored %+v", got)
	}
	if last, err := r.Store.Last(t.Context(), incident); err != nil || last != sequence {
		t.Errorf("last is %d (%v), want %d", last, err, sequence)
	}
	if last, err := r.Store.Last(t.Context(), "x20261124.1"); err != nil || last != 0 {
		t.Errorf("last of an incident without messages is %d (%v)", last, err)
	}
	if got := load(t, r.Store, sequence); len(got) != 0 {
		t.Errorf("after the last one: %d messages", len(got))
	}
}

func appendRefuses(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	w := keys.NewWriter(t, r.Store, incident, "incident")
	w.MustAppend(t, 1)
	last, next := w.Last, w.Next(t, "next")
	for name, tc := range map[string]struct {
		incident string
		expected uint64
		signed   []byte
		headers  map[string]string
		want     error
	}{
		"behind":          {incident, 0, next, nil, history.ErrConflict},
		"ahead":           {incident, last + 1, next, nil, history.ErrRolledBack},
		"too large":       {incident, last, make([]byte, history.MaxSigned+1), nil, history.ErrTooLarge},
		"large headers":   {incident, last, next, map[string]string{"tracestate": string(bytes.Repeat([]byte("x"), history.MaxSigned))}, history.ErrTooLarge},
		"no bytes":        {incident, last, nil, nil, nil},
		"wildcard":        {"*", last, next, nil, nil},
		"two tokens":      {"e20261124.1.>", last, next, nil, nil},
		"message id":      {incident, last, next, map[string]string{"Nats-Msg-Id": "1"}, nil},
		"own condition":   {incident, last, next, map[string]string{"nats-expected-last-subject-sequence": "0"}, nil},
		"header in value": {incident, last, next, map[string]string{"trace": "1\r\nNats-Msg-Id: 1"}, nil},
		"header in name":  {incident, last, next, map[string]string{"a: b\r\nNats-Msg-Id": "1"}, nil},
	} {
		_, err := r.Store.Append(t.Context(), tc.incident, tc.expected, tc.signed, tc.headers)
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: error is %v, want %v", name, err, tc.want)
		}
	}
	check(t, r.Store, keys, 1)
	var conflict *history.ConflictError
	_, err := r.Store.Append(t.Context(), incident, 0, next, nil)
	if !errors.As(err, &conflict) || conflict.Found != last || conflict.Incident != incident {
		t.Errorf("conflict is %v, want one that names sequence %d", err, last)
	}
}

func repeatSameBytes(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	w := keys.NewWriter(t, r.Store, incident, "incident")
	signed := w.Next(t, "first")
	first, err := r.Store.Append(t.Context(), incident, 0, signed, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Continue(t.Context(), r.Store); err != nil {
		t.Fatal(err)
	}
	w.MustAppend(t, 3)
	again, err := r.Store.Append(t.Context(), incident, 0, signed, nil)
	if err != nil || again != first {
		t.Errorf("the same bytes again, however late: sequence %d, error %v; want %d", again, err, first)
	}
	check(t, r.Store, keys, 4)
}

func largestRecord(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	w := keys.NewWriter(t, r.Store, incident, "incident")
	rec := Record(t, incident, "incident", w.Chain.Head(), 1, "large")
	rec.Authority = string(bytes.Repeat([]byte("x"), history.MaxSigned-1000))
	signed := keys.Seal(t, rec)
	if _, err := w.Append(t.Context(), signed); err != nil {
		t.Fatal(err)
	}
	check(t, r.Store, keys, 1)
	rec.Authority += string(bytes.Repeat([]byte("x"), 1000))
	_, _, err := history.Seal(rec, keys.Signer(t, "incident"))
	is(t, err, history.ErrTooLarge)
}

func incidents(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	if ids, err := r.Store.Incidents(t.Context()); err != nil || len(ids) != 0 {
		t.Fatalf("a new store has incidents %v (%v)", ids, err)
	}
	want := []string{"e20261124.1", "e20261124.12", "rulebook", "x20261124.1"}
	for _, id := range want {
		keys.NewWriter(t, r.Store, id, "incident").MustAppend(t, 2)
	}
	r.Publish(t, "emergency.No_Incident", []byte("junk"))
	ids, err := r.Store.Incidents(t.Context())
	if err != nil || !slices.Equal(ids, want) {
		t.Errorf("incidents are %v (%v), want %v", ids, err, want)
	}
}

func endedContext(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	w := keys.NewWriter(t, r.Store, incident, "incident")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Store.Append(ctx, incident, 0, w.Next(t, "never"), nil)
	is(t, err, history.ErrUnavailable)
	is(t, err, context.Canceled)
	_, err = r.Store.Load(ctx, incident, 0)
	is(t, err, context.Canceled)
	is(t, r.Store.Follow(ctx, history.Mark{}, func(history.Message) error { return nil }), context.Canceled)
	check(t, r.Store, keys, 0)
}

var errStop = errors.New("stop")

func scan(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	var want []uint64
	for i := range 6 {
		w := keys.NewWriter(t, r.Store, fmt.Sprintf("e20261124.%d", i%3), "incident")
		w.MustAppend(t, 1)
		want = append(want, w.Last)
	}
	r.Publish(t, "emergency.No_Incident", []byte("junk"))
	var got []uint64
	seen := func(m history.Message) error { got = append(got, m.Sequence); return nil }
	if err := r.Store.Scan(t.Context(), 0, seen); err != nil || !slices.Equal(got, append(want, want[5]+1)) {
		t.Errorf("scan gave %v (%v), want %v and the stranger's", got, err, want)
	}
	got = nil
	if err := r.Store.Scan(t.Context(), want[5], seen); err != nil || !slices.Equal(got, []uint64{want[5] + 1}) {
		t.Errorf("scan after %d gave %v (%v)", want[5], got, err)
	}
	err := r.Store.Scan(t.Context(), 0, func(history.Message) error { return errStop })
	if err != errStop {
		t.Errorf("scan returned %v, want the function's own error", err)
	}
}

// longHistory is long enough for every way in which a store may read, and not alone in the store.
func longHistory(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	w := keys.NewWriter(t, r.Store, incident, "review")
	other := keys.NewWriter(t, r.Store, "e20261124.2", "incident")
	for range 40 {
		w.MustAppend(t, 1)
		other.MustAppend(t, 1)
	}
	check(t, r.Store, keys, 40)
	all := load(t, r.Store, 0)
	for _, after := range []int{0, 1, 30, 35, 36, 37, 38, 39} {
		got := load(t, r.Store, all[after].Sequence)
		if len(got) != 39-after || len(got) > 0 && got[0].Sequence != all[after+1].Sequence {
			t.Errorf("after message %d: %d messages", after, len(got))
		}
	}
}

func raceOneIncident(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	const writers, each = 16, 5
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			w := keys.NewWriter(t, r.Store, incident, []string{"incident", "review", "deployment"}[i%3])
			for n := 0; n < each && !t.Failed(); {
				_, err := w.Append(t.Context(), w.Next(t, fmt.Sprintf("writer %d, record %d", i, n)))
				if err == nil {
					n++
				} else if !errors.Is(err, history.ErrConflict) {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	check(t, r.Store, keys, writers*each)
}

func raceStepByStep(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	Race(t, r.Store, keys, 16, 8)
	check(t, r.Store, keys, 8)
}

// Race lets writers decide on the same history and append at the same time, round by round: exactly one must win each.
func Race(t *testing.T, store history.Store, keys *Keys, writers, rounds int) {
	t.Helper()
	for round := range rounds {
		start := make(chan struct{})
		wins := make(chan int, writers)
		var group sync.WaitGroup
		for i := range writers {
			w := keys.NewWriter(t, store, incident, "incident")
			signed := w.Next(t, fmt.Sprintf("round %d, writer %d", round, i))
			group.Go(func() {
				<-start
				_, err := store.Append(t.Context(), incident, w.Last, signed, nil)
				if err == nil {
					wins <- i
				} else if !errors.Is(err, history.ErrConflict) {
					t.Errorf("round %d, writer %d: %v", round, i, err)
				}
			})
		}
		close(start)
		group.Wait()
		if len(wins) != 1 {
			t.Fatalf("round %d has %d winners", round, len(wins))
		}
	}
}

func incidentsOverlap(t *testing.T, r *Rig) {
	keys := NewKeys(t, "services")
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			w := keys.NewWriter(t, r.Store, fmt.Sprintf("e20261124.%d", i), "incident")
			w.MustAppend(t, 4)
		})
	}
	group.Wait()
	report, err := history.Verify(t.Context(), r.Store, keys.Ring)
	if err != nil || !report.Clean() || report.Records != 64 || len(report.Heads) != 16 {
		t.Errorf("report %+v, error %v", report, err)
	}
}

func appendFails(t *testing.T, r *Rig, how Failure) {
	keys := NewKeys(t, "services")
	w := keys.NewWriter(t, r.Store, incident, "incident")
	w.MustAppend(t, 2)
	expected, signed := w.Last, w.Next(t, "fails")
	r.Fail(t, how)
	sequence, err := r.Store.Append(t.Context(), incident, expected, signed, nil)
	if how == AckLostAndDown && !errors.Is(err, history.ErrUnknownOutcome) {
		t.Errorf("nothing answered, the error is %v, want ErrUnknownOutcome", err)
	}
	r.Heal(t)
	stored := load(t, r.Store, expected)
	switch {
	case err == nil && (len(stored) != 1 || stored[0].Sequence != sequence):
		t.Fatalf("reported as stored at %d; %d messages are there", sequence, len(stored))
	case errors.Is(err, history.ErrUnavailable) && !errors.Is(err, history.ErrUnknownOutcome) && len(stored) != 0:
		t.Fatal("reported as certainly not stored, and is there")
	case err != nil && !errors.Is(err, history.ErrUnavailable) && !errors.Is(err, history.ErrUnknownOutcome):
		t.Fatal(err)
	}
	t.Logf("%s: %v", how, err)
	again, err := r.Store.Append(t.Context(), incident, expected, signed, nil)
	if err != nil || len(stored) == 1 && again != stored[0].Sequence {
		t.Errorf("the same bytes again: sequence %d, error %v", again, err)
	}
	check(t, r.Store, keys, 3)
	other := keys.Seal(t, Record(t, incident, "incident", w.Chain.Head(), 1, "other bytes"))
	_, err = r.Store.Append(t.Context(), incident, expected, other, nil)
	is(t, err, history.ErrConflict)
}
