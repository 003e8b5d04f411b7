// SPDX-License-Identifier: Apache-2.0

package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Timeline is every event in words. The words are made when somebody reads them, from the records.
type Timeline struct{ records *Records }

// NewTimeline returns an empty timeline.
func NewTimeline() *Timeline { return &Timeline{NewRecords()} }

// Name is "timeline".
func (*Timeline) Name() string { return "timeline" }

// Version of the fold.
func (*Timeline) Version() int { return 1 }

// Apply folds records in.
func (t *Timeline) Apply(batch []*projection.Record) error { return t.records.Apply(batch) }

// entry is an event in words, in a history that began at declared.
func entry(declared time.Time, rec *projection.Record, e projection.Event) (*dashboardv1.TimelineEntry, error) {
	payload, err := payloadJSON(e.Payload)
	if err != nil {
		return nil, err
	}
	out := &dashboardv1.TimelineEntry{
		Position: e.Position, Type: e.Type, RecordedAt: rec.Record.GetRecordedAt(),
		SinceDeclaredMs: rec.Record.GetRecordedAt().AsTime().Sub(declared).Milliseconds(),
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

// Entries are the entries of an incident from one position to another, both included; to 0 is the last. ok is false if there is no such
// incident.
func (t *Timeline) Entries(incident string, from, to uint64) (list []*dashboardv1.TimelineEntry, ok bool, err error) {
	all, ok := t.records.Stored(incident, 0)
	if !ok {
		return nil, false, nil
	}
	list, err = entries(all, from, to)
	return list, true, err
}

// entries are those of a history from one position to another.
func entries(all []Stored, from, to uint64) (list []*dashboardv1.TimelineEntry, err error) {
	declared := all[0].decoded().Record.GetRecordedAt().AsTime()
	for _, s := range all[sort.Search(len(all), func(i int) bool { return all[i].Last >= from }):] {
		rec := s.decoded()
		for _, e := range rec.Events {
			if e.Position < from || to != 0 && e.Position > to {
				continue
			}
			words, err := entry(declared, rec, e)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", rec.ID(e), err)
			}
			list = append(list, words)
		}
		if to != 0 && s.Last >= to {
			break
		}
	}
	return list, nil
}

// Last is an incident's last position; 0 if there is no such incident.
func (t *Timeline) Last(incident string) uint64 {
	stored, _ := t.records.Stored(incident, 0)
	if len(stored) == 0 {
		return 0
	}
	return stored[len(stored)-1].Last
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
	enc := json.NewEncoder(w)
	all := t.records.now()
	for _, id := range slices.Sorted(maps.Keys(all)) {
		list, err := entries(all[id], 1, 0)
		if err != nil {
			return fmt.Errorf("dump %w", err)
		}
		for _, e := range list {
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
