// SPDX-License-Identifier: Apache-2.0

package view_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/history/memory"
	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/projection"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/dashboard/view"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// example is an event of a type with something in each field.
func example(t *testing.T, eventType string) proto.Message {
	schema := uint32(1)
	m, err := procedure.DecodeEvent(&emergencyv1.Event{Type: eventType, SchemaVersion: schema})
	check(t, err)
	fill(m.ProtoReflect())
	return m
}

func fill(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case fd.IsList() && fd.Message() != nil:
			fill(m.Mutable(fd).List().AppendMutable().Message())
		case fd.IsList() && fd.Kind() == protoreflect.EnumKind:
			m.Mutable(fd).List().Append(protoreflect.ValueOfEnum(1))
		case fd.IsList() && fd.Kind() == protoreflect.StringKind:
			m.Mutable(fd).List().Append(protoreflect.ValueOfString("item"))
		case fd.IsList():
			m.Mutable(fd).List().Append(protoreflect.ValueOfUint64(7))
		case fd.Message() != nil:
			fill(m.Mutable(fd).Message())
		case fd.Kind() == protoreflect.StringKind:
			m.Set(fd, protoreflect.ValueOfString("some-"+string(fd.Name())))
		case fd.Kind() == protoreflect.EnumKind:
			m.Set(fd, protoreflect.ValueOfEnum(1))
		case fd.Kind() == protoreflect.BoolKind:
			m.Set(fd, protoreflect.ValueOfBool(true))
		case fd.Kind() == protoreflect.Uint32Kind:
			m.Set(fd, protoreflect.ValueOfUint32(5))
		}
	}
}

// Every event has words, and the same ones each time; what was never set leaves no hole that breaks them.
func TestWordsForEveryEvent(t *testing.T) {
	t.Parallel()
	for _, eventType := range procedure.EventTypes() {
		m := example(t, eventType)
		words := view.Words(m)
		if words == "" || strings.Contains(words, "%!") || strings.Contains(words, "UNSPECIFIED") {
			t.Errorf("%s: %q", eventType, words)
		}
		empty := m.ProtoReflect().New().Interface()
		if words := view.Words(empty); words == "" || strings.Contains(words, "%!") {
			t.Errorf("%s without values: %q", eventType, words)
		}
	}
	if words := view.Words(&emergencyv1.CallOutRequest{}); words != "" {
		t.Errorf("a command has words: %q", words)
	}
}

func TestSomeWords(t *testing.T) {
	t.Parallel()
	at := timestamppb.New(time.Date(2026, 11, 24, 21, 30, 0, 0, time.UTC))
	for want, m := range map[string]proto.Message{
		"carl takes critical/2 to observe the deployment, ready in 10 min": &emergencyv1.ResponderAccepted{
			Person: "carl", Slot: "critical/2", Step: emergencyv1.ResponderStep_RESPONDER_STEP_OBSERVE, EtaMinutes: 10},
		"Met: HEALTH/40 by event 44, late by 1m30s":                                            &emergencyv1.ObligationDischarged{Id: "HEALTH/40", By: 44, LateByMs: 90_000},
		"carla deploys P1r1 on www1, without observer":                                         &emergencyv1.ApplyStarted{Executor: "carla", Host: "www1", Binding: &emergencyv1.Binding{Revision: "P1r1"}},
		"Replication of www1: lag, lag at least 49 days (4228206 s)":                           &emergencyv1.ReplicationChecked{Host: "www1", Result: emergencyv1.ReplicationResult_REPLICATION_RESULT_LAG, LagDays: 49, LagSeconds: 4228206, LowerBound: true},
		"tina did not check in for testing/2, due 2026-11-24 21:30 UTC":                        &emergencyv1.StandbyMissed{Person: "tina", Slot: "testing/2", DueAt: at},
		"StartApply was refused: VETO_OPEN (4.3); 2 more refusals before it were only counted": &emergencyv1.CommandRefused{Command: "StartApply", Reason: "VETO_OPEN", Rule: "4.3", Suppressed: 2},
	} {
		if got := view.Words(m); got != want {
			t.Errorf("%q, want %q", got, want)
		}
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
	entries, ok := timeline.Entries("e20261124.1", 0, 0)
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
	if _, ok := timeline.Entries("e20991231.1", 0, 0); ok {
		t.Error("an incident that never was has a timeline")
	}
	if book, ok := timeline.Entries(procedure.RuleBook, 1, 3); !ok || len(book) != 3 {
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
