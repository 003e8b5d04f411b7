// SPDX-License-Identifier: Apache-2.0

package view

import (
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/rulebook"
)

// Records keeps the records of each incident as they are stored, for replay and verification.
type Records struct {
	mu   sync.RWMutex
	kept map[string][]*projection.Record
}

// NewRecords returns an empty projection.
func NewRecords() *Records { return &Records{kept: map[string][]*projection.Record{}} }

// Name is "records".
func (*Records) Name() string { return "records" }

// Version of the fold.
func (*Records) Version() int { return 1 }

// Apply keeps the records of a batch.
func (r *Records) Apply(batch []*projection.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range batch {
		r.kept[rec.Incident] = append(r.kept[rec.Incident], rec)
	}
	return nil
}

// From are an incident's records from the one that holds a position. They are shared: never write to them. ok is false if
// there is no such incident.
func (r *Records) From(incident string, position uint64) (list []*projection.Record, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all, ok := r.kept[incident]
	i := sort.Search(len(all), func(i int) bool { return lastOf(all[i]) >= position })
	return all[i:len(all):len(all)], ok
}

func lastOf(rec *projection.Record) uint64 { return rec.Events[len(rec.Events)-1].Position }

// Restricted finds the event of an incident that holds a restricted value: its type, and which field it is.
func (r *Records) Restricted(incident, commitment string) (eventType string, field procedure.RestrictedField, ok bool) {
	all, _ := r.From(incident, 1)
	for _, rec := range all {
		for _, e := range rec.Events {
			for _, f := range procedure.RestrictedFields(e.Payload) {
				if f.Commitment == commitment && commitment != "" {
					return e.Type, f, true
				}
			}
		}
	}
	return "", procedure.RestrictedField{}, false
}

// StateAt folds an incident's records up to the one that holds a position: a command is atomic, so its events became history
// together. nil if the history does not reach that far.
func (r *Records) StateAt(incident string, position uint64) (*procedure.State, error) {
	all, _ := r.From(incident, 1)
	s := procedure.NewState(incident)
	for _, rec := range all {
		if s.Position >= position {
			break
		}
		if err := s.ApplyDecoded(rec.Record, rec.Events, rec.Hash); err != nil {
			return nil, fmt.Errorf("fold %s: %w", incident, err)
		}
	}
	if s.Position < position {
		return nil, nil
	}
	return s, nil
}

// BookAt folds the rule book as it was known at a time.
func (r *Records) BookAt(at time.Time) (*rulebook.Book, error) {
	all, _ := r.From(procedure.RuleBook, 1)
	book := &rulebook.Book{}
	for _, rec := range all {
		recorded := rec.Record.GetRecordedAt().AsTime()
		if recorded.After(at) {
			break
		}
		for _, e := range rec.Events {
			var err error
			if book, err = book.With(e.Position, recorded, e.Payload); err != nil {
				return nil, fmt.Errorf("fold rule book: %w", err)
			}
		}
	}
	return book, nil
}

// Dump writes every record as a line of incident, first position, hash and stored bytes.
func (r *Records) Dump(w io.Writer) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, id := range slices.Sorted(maps.Keys(r.kept)) {
		for _, rec := range r.kept[id] {
			if _, err := fmt.Fprintf(w, "%s %d %s %s\n", id, rec.Record.GetFirstPosition(), rec.Hash, base64.StdEncoding.EncodeToString(rec.Signed)); err != nil {
				return fmt.Errorf("dump records of %s: %w", id, err)
			}
		}
	}
	return nil
}
