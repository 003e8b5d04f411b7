// SPDX-License-Identifier: Apache-2.0

package view_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/history/memory"
	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/services/dashboard/view"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// told is a store with the rule book, one whole incident, one half and a drill.
func told(t *testing.T) (*memory.Store, *historytest.Keys) {
	store, keys := &memory.Store{}, historytest.NewKeys(t, "view")
	second, drill := pt.NewIncident(t, "e20261124.2"), pt.NewIncident(t, "x20261124.1")
	pt.Story(pt.Forwarded)(second)
	pt.Drill()(drill)
	for _, w := range []*pt.World{pt.Founding(), pt.Given(t, pt.Story(pt.ClosedDown)).World(), second, drill} {
		last := uint64(0)
		for _, rec := range w.Records {
			signed, _, err := history.Seal(rec, keys.Signer(t, rec.GetOwner()))
			check(t, err)
			last, err = store.Append(t.Context(), w.State.Incident, last, signed, nil)
			check(t, err)
		}
	}
	return store, keys
}

func built(t *testing.T, store *memory.Store, keys *historytest.Keys) []projection.Projection {
	all := []projection.Projection{view.NewTimeline(), view.NewLog(), view.NewRecords()}
	check(t, projection.Rebuild(t.Context(), projection.Config{Store: store, Keys: keys.Ring, Log: slog.New(slog.DiscardHandler)}, all...))
	return all
}

// Rebuilt from nothing, each projection is the same, byte for byte.
func TestRebuildIsIdentical(t *testing.T) {
	t.Parallel()
	store, keys := told(t)
	first, again := built(t, store, keys), built(t, store, keys)
	for i, p := range first {
		var a, b bytes.Buffer
		check(t, p.Dump(&a))
		check(t, again[i].Dump(&b))
		if !bytes.Equal(a.Bytes(), b.Bytes()) || a.Len() < 1000 {
			t.Errorf("%s: %d and %d bytes, equal %t", p.Name(), a.Len(), b.Len(), bytes.Equal(a.Bytes(), b.Bytes()))
		}
	}
}

// The payload's JSON is JSON, the same bytes each time, and tells the fields by their names in the proto.
func TestPayloadJSON(t *testing.T) {
	t.Parallel()
	store, keys := told(t)
	timeline := built(t, store, keys)[0].(*view.Timeline)
	entries, ok, err := timeline.Entries("e20261124.1", 0, 0)
	check(t, err)
	if !ok || len(entries) < 30 {
		t.Fatalf("%d entries, %t", len(entries), ok)
	}
	for _, e := range entries {
		var fields map[string]any
		if err := json.Unmarshal([]byte(e.GetPayloadJson()), &fields); err != nil || strings.Contains(e.GetPayloadJson(), "\": ") {
			t.Errorf("event %d: %v: %s", e.GetPosition(), err, e.GetPayloadJson())
		}
	}
	if got := entries[0].GetPayloadJson(); !strings.Contains(got, `"reason_class":"REASON_CLASS_`) {
		t.Errorf("declaration: %s", got)
	}
	if _, ok, _ := timeline.Entries("e20991231.1", 0, 0); ok || timeline.Last("e20991231.1") != 0 {
		t.Error("an incident that never was has a timeline")
	}
	if book, ok, err := timeline.Entries(procedure.RuleBook, 1, 3); err != nil || !ok || len(book) != 3 {
		t.Errorf("rule book: %d entries, %t", len(book), ok)
	}
}

// StateAt is the state of the live fold at each record.
func TestStateAt(t *testing.T) {
	t.Parallel()
	store, keys := told(t)
	records := built(t, store, keys)[2].(*view.Records)
	w := pt.Given(t, pt.Story(pt.ClosedDown)).World()
	live := procedure.NewState(w.State.Incident)
	for i, rec := range w.Records {
		next, err := procedure.Evolve(live, rec, procedure.KeyID(w.Bytes[i]))
		check(t, err)
		live = next
		got, err := records.StateAt(w.State.Incident, live.Position)
		check(t, err)
		if pt.Fingerprint(got) != pt.Fingerprint(live) {
			t.Errorf("state at %d is another one", live.Position)
		}
	}
	if s, err := records.StateAt(w.State.Incident, live.Position+1); s != nil || err != nil {
		t.Errorf("beyond the end: %v, %v", s, err)
	}
}
