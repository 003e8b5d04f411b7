// SPDX-License-Identifier: Apache-2.0

package dashboard_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/dashboard"
)

type watch = interface {
	Recv() (*dashboardv1.WatchIncidentResponse, error)
}

func (r *rig) watch(who, id string) watch {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	r.t.Cleanup(cancel)
	return must(r.client(who).WatchIncident(ctx, &dashboardv1.WatchIncidentRequest{Incident: id}))(r.t)
}

// follow reads a watch until it reaches a position, and checks that no event is missing or twice.
func follow(t *testing.T, s watch, from, to uint64) (messages int) {
	t.Helper()
	for at := from; at < to; messages++ {
		m := must(s.Recv())(t)
		for _, e := range m.GetEntries() {
			if at++; e.GetPosition() != at {
				t.Fatalf("event %d where %d comes next", e.GetPosition(), at)
			}
		}
		if m.GetFreshness().GetPosition() != at || m.GetIncident().GetPosition() != at {
			t.Fatalf("a message reflects %d and carries events up to %d", m.GetFreshness().GetPosition(), at)
		}
	}
	return messages
}

// quiet is a watch without keepalives, whose messages can be counted.
func quiet(c *dashboard.Config) { c.KeepAlive = 1000 * time.Hour }

func TestWatchIncident(t *testing.T) {
	t.Parallel()
	r := newRig(t, quiet)
	w := r.told(one, pt.Story(pt.Called))
	s := r.watch("anna", one)
	first := must(s.Recv())(t)
	if first.GetIncident().GetStatus() != "OPEN" || first.GetFreshness().GetPosition() != w.State.Position || len(first.GetEntries()) != 0 {
		t.Errorf("first message %v", first)
	}
	at := w.State.Position
	for _, x := range pt.Responders() {
		w.Do(x.Person, pt.Accept(x.Slot))
		r.feed(w)
		if n := follow(t, s, at, w.State.Position); n != 1 {
			t.Errorf("one change came in %d messages", n)
		}
		at = w.State.Position
	}
	r.told("e20261124.2", pt.Story(pt.Called)) // another incident is no change of this one
	w.Sync()
	r.feed(w)
	if n := follow(t, s, at, w.State.Position); n != 1 {
		t.Errorf("after another incident's changes, one change came in %d messages", n)
	}
}

func TestWatchUnknown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.watch("anna", "e20261124.9").Recv()
	refused(t, err, procedure.ReasonIncident)
}

// Without a change the state comes again, so that the client knows that it still hears.
func TestWatchKeepAlive(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *dashboard.Config) { c.KeepAlive = time.Minute })
	r.told(one, pt.Story(pt.Called))
	s := r.watch("anna", one)
	first := must(s.Recv())(t)
	got := make(chan *dashboardv1.WatchIncidentResponse, 1)
	go func() {
		m, _ := s.Recv()
		got <- m
	}()
	for {
		r.clock.Advance(time.Minute) // again and again: the handler may not have set its alarm yet
		select {
		case m := <-got:
			if m.GetFreshness().GetPosition() != first.GetFreshness().GetPosition() || len(m.GetEntries()) != 0 || !m.GetFreshness().GetAnsweredAt().AsTime().After(first.GetFreshness().GetAnsweredAt().AsTime()) {
				t.Errorf("keepalive %v after %v", m, first)
			}
			return
		default:
		}
	}
}

// One client that never reads holds up neither the others nor the projections, and later gets all it missed.
func TestSlowWatcher(t *testing.T) {
	t.Parallel()
	r := newRig(t, quiet)
	w := r.told(one, pt.Story(pt.OnStandby))
	from := w.State.Position
	slow, quick := r.watch("bert", one), r.watch("anna", one)
	must(slow.Recv())(t)
	must(quick.Recv())(t)
	long := strings.Repeat("a long note. ", 1000)
	at := from
	for range 25 { // far more than a connection holds
		w.Do("carla", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: long})
		r.feed(w)
		follow(t, quick, at, w.State.Position)
		at = w.State.Position
	}
	if n := follow(t, slow, from, w.State.Position); n > 25 {
		t.Errorf("25 changes came in %d messages", n)
	}
}

// A key that is revoked stops hearing.
func TestWatchEndsWithTheKey(t *testing.T) {
	t.Parallel()
	r := newRig(t, quiet)
	w := r.told(one, pt.Story(pt.Called))
	s := r.watch("anna", one)
	must(s.Recv())(t)
	r.book.Now = w.Now
	r.book.Do("anna", &emergencyv1.RevokeKeyRequest{KeyId: r.profile("anna").KeyID, Reason: "lost on a train"})
	r.feed(r.book)
	w.Wait(time.Minute).Do("carla", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "x"})
	r.feed(w)
	_, err := s.Recv()
	refused(t, err, procedure.ReasonKeyRevoked)
}

// history reads an incident's records until there are so many.
func (r *rig) history(ctx context.Context, req *dashboardv1.ReadHistoryRequest, n int) []*emergencyv1.SignedRecord {
	r.t.Helper()
	s := must(r.client("anna").ReadHistory(ctx, req))(r.t)
	var list []*emergencyv1.SignedRecord
	for n < 0 || len(list) < n {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return list
		}
		check(r.t, err)
		list = append(list, m.GetRecord())
	}
	return list
}

// The bytes that are sent are the bytes that are stored.
func TestReadHistory(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.told(one, pt.Story(pt.Declared))
	w.Sync() // positions 2 and 3
	pt.From(pt.Declared, pt.Called)(w)
	r.feed(w)
	stored := must(r.store.Load(t.Context(), one, 0))(t)
	got := r.history(t.Context(), &dashboardv1.ReadHistoryRequest{Incident: one}, -1)
	if len(got) != len(stored) {
		t.Fatalf("%d records of %d", len(got), len(stored))
	}
	for i, rec := range got {
		raw := must(proto.MarshalOptions{Deterministic: true}.Marshal(rec))(t)
		if !bytes.Equal(raw, stored[i].Data) || !bytes.Equal(rec.GetRecord(), w.Bytes[i]) {
			t.Errorf("record %d is not the stored one", i)
		}
	}
	if part := r.history(t.Context(), &dashboardv1.ReadHistoryRequest{Incident: one, From: 3}, -1); len(part) != 2 || !bytes.Equal(part[0].GetRecord(), w.Bytes[1]) {
		t.Errorf("from the middle of a record: %d records, want the one that holds it and the next", len(part))
	}
	if part := r.history(t.Context(), &dashboardv1.ReadHistoryRequest{Incident: one, From: 99}, -1); len(part) != 0 {
		t.Errorf("from beyond the end: %d records", len(part))
	}
	if book := r.history(t.Context(), &dashboardv1.ReadHistoryRequest{Incident: procedure.RuleBook}, -1); len(book) != len(r.book.Records) {
		t.Errorf("rule book: %d records of %d", len(book), len(r.book.Records))
	}
	s := must(r.client("anna").ReadHistory(t.Context(), &dashboardv1.ReadHistoryRequest{Incident: "e20261124.9"}))(t)
	_, err := s.Recv()
	refused(t, err, procedure.ReasonIncident)
}

// Who stays gets every later record once, in order.
func TestReadHistoryFollows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.told(one, pt.Story(pt.Declared))
	total := make(chan []*emergencyv1.SignedRecord, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := must(r.client("anna").ReadHistory(ctx, &dashboardv1.ReadHistoryRequest{Incident: one, Follow: true}))(t)
	go func() {
		var list []*emergencyv1.SignedRecord
		for next := uint64(0); next < 30; {
			m, err := s.Recv()
			if err != nil {
				t.Errorf("follow: %v", err)
				break
			}
			list = append(list, m.GetRecord())
			var rec emergencyv1.Record
			if err := proto.Unmarshal(m.GetRecord().GetRecord(), &rec); err != nil {
				t.Errorf("record: %v", err)
			}
			next = rec.GetFirstPosition() - 1 + uint64(len(rec.GetEvents()))
		}
		total <- list
	}()
	for w.State.Position < 30 {
		w.Do("carla", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "note"})
		r.feed(w)
	}
	got := <-total
	if len(got) != len(w.Records) {
		t.Fatalf("%d records of %d", len(got), len(w.Records))
	}
	for i, rec := range got {
		if !bytes.Equal(rec.GetRecord(), w.Bytes[i]) {
			t.Errorf("record %d is another one", i)
		}
	}
	cancel()
	if _, err := s.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("after the caller gave up: %v", err)
	}
}

func (r *rig) dump(name string, rebuild bool) []byte {
	r.t.Helper()
	s := must(r.client("anna").DumpProjection(r.t.Context(), &dashboardv1.DumpProjectionRequest{Name: name, Rebuild: rebuild}))(r.t)
	var b bytes.Buffer
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return b.Bytes()
		}
		check(r.t, err)
		b.Write(m.GetChunk())
	}
}

// A projection rebuilt from nothing is the running one, byte for byte.
func TestDumpProjection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.told(one, pt.Story(pt.Documented), func(w *pt.World) { w.Sync() })
	r.told("x20261124.1", pt.Drill())
	for _, name := range []string{"incidents", "timeline", "log", "records", ""} {
		running, rebuilt := r.dump(name, false), r.dump(name, true)
		if !bytes.Equal(running, rebuilt) || len(running) < 1000 {
			t.Errorf("%q: running %d bytes, rebuilt %d bytes, equal %t", name, len(running), len(rebuilt), bytes.Equal(running, rebuilt))
		}
	}
	before := r.dump("log", false)
	r.told("e20261124.2", pt.Story(pt.Declared))
	if bytes.Equal(before, r.dump("log", false)) {
		t.Error("a new incident changes nothing in the dump")
	}
	s := must(r.client("anna").DumpProjection(t.Context(), &dashboardv1.DumpProjectionRequest{Name: "secrets"}))(t)
	_, err := s.Recv()
	if refusal := refused(t, err, procedure.ReasonField); !strings.Contains(refusal.Allow[0].Description, "timeline") {
		t.Errorf("the refusal names no projection: %v", refusal)
	}
}
