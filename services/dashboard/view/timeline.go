// SPDX-License-Identifier: Apache-2.0

package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Timeline is every event in words.
type Timeline struct {
	mu    sync.RWMutex
	lines map[string]*line
}

// line is the timeline of one incident.
type line struct {
	declared time.Time
	entries  []*dashboardv1.TimelineEntry // position n is entries[n-1]
}

// NewTimeline returns an empty timeline.
func NewTimeline() *Timeline { return &Timeline{lines: map[string]*line{}} }

// Name is "timeline".
func (*Timeline) Name() string { return "timeline" }

// Version of the fold.
func (*Timeline) Version() int { return 1 }

// Apply folds records in.
func (t *Timeline) Apply(batch []*projection.Record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, rec := range batch {
		l, ok := t.lines[rec.Incident]
		if !ok {
			l = &line{declared: rec.Record.GetRecordedAt().AsTime()}
			t.lines[rec.Incident] = l
		}
		for _, e := range rec.Events {
			entry, err := l.entry(rec, e)
			if err != nil {
				return fmt.Errorf("%s: %w", rec.ID(e), err)
			}
			l.entries = append(l.entries, entry)
		}
	}
	return nil
}

func (l *line) entry(rec *projection.Record, e projection.Event) (*dashboardv1.TimelineEntry, error) {
	payload, err := payloadJSON(e.Payload)
	if err != nil {
		return nil, err
	}
	out := &dashboardv1.TimelineEntry{
		Position: e.Position, Type: e.Type, RecordedAt: rec.Record.GetRecordedAt(),
		SinceDeclaredMs: rec.Record.GetRecordedAt().AsTime().Sub(l.declared).Milliseconds(),
		Actor:           rec.Record.GetActor(), Text: dossier.Words(e.Payload), Authority: rec.Record.GetAuthority(), Deviations: e.Deviations, PayloadJson: payload,
	}
	for _, f := range procedure.RestrictedFields(e.Payload) {
		out.Restricted = append(out.Restricted, &dashboardv1.RestrictedField{Field: f.Field, Commitment: f.Commitment})
	}
	return out, nil
}

// payloadJSON is a payload as JSON, always the same bytes: protojson varies its spaces on purpose.
func payloadJSON(m proto.Message) (string, error) {
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("payload as JSON: %w", err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return "", fmt.Errorf("payload as JSON: %w", err)
	}
	return b.String(), nil
}

// Entries are the entries of an incident from one position to another, both included; to 0 is the last. They are shared:
// never write to them. ok is false if there is no such incident.
func (t *Timeline) Entries(incident string, from, to uint64) (list []*dashboardv1.TimelineEntry, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	l, ok := t.lines[incident]
	if !ok {
		return nil, false
	}
	last := uint64(len(l.entries))
	if to == 0 || to > last {
		to = last
	}
	if from == 0 {
		from = 1
	}
	if from > to {
		return nil, true
	}
	return l.entries[from-1 : to : to], true
}

// dumped is the shape of a line of the dump.
type dumped struct {
	Incident string `json:"incident"`
	Position uint64 `json:"position"`
	Type     string `json:"type"`
	At       string `json:"at"`
	SinceMs  int64  `json:"since_ms"`
	Actor    string `json:"actor"`
	Text     string `json:"text"`
	Ground   string `json:"authority"`

	Deviations []emergencyv1.Deviation `json:"deviations"`
	Restricted []string                `json:"restricted"`
	Payload    json.RawMessage         `json:"payload"`
}

// Dump writes every entry as a JSON line, incidents in order.
func (t *Timeline) Dump(w io.Writer) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	enc := json.NewEncoder(w)
	for _, id := range slices.Sorted(maps.Keys(t.lines)) {
		for _, e := range t.lines[id].entries {
			d := dumped{
				Incident: id, Position: e.GetPosition(), Type: e.GetType(), At: e.GetRecordedAt().AsTime().Format(time.RFC3339Nano), SinceMs: e.GetSinceDeclaredMs(),
				Actor: actorText(e.GetActor()), Text: e.GetText(), Ground: e.GetAuthority(), Deviations: e.GetDeviations(), Payload: json.RawMessage(e.GetPayloadJson()),
			}
			for _, f := range e.GetRestricted() {
				d.Restricted = append(d.Restricted, f.GetField()+" "+f.GetCommitment())
			}
			if err := enc.Encode(d); err != nil {
				return fmt.Errorf("dump %s/%d: %w", id, e.GetPosition(), err)
			}
		}
	}
	return nil
}

func actorText(a *emergencyv1.Actor) string {
	return fmt.Sprintf("%s %s %s %s %s", a.GetPerson(), a.GetRole(), a.GetKeyId(), a.GetSystem(), a.GetSystemName())
}
