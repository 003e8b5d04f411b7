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

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/rulebook"
)

// Records keeps the records of each incident as they are stored, for replay and verification. They are decoded when somebody asks: what is
// decoded takes several times the memory, and few histories are ever opened again.
type Records struct {
	mu   sync.RWMutex
	kept map[string][]Stored
}

// Stored is a record as it is stored.
type Stored struct {
	// Signed are the bytes of the message. They are shared: never write to them.
	Signed []byte
	// Last is the position of its last event.
	Last     uint64
	sequence uint64
}

// decoded is the record, decoded from the same bytes from which the runner decoded it before: no input can make that fail.
func (s Stored) decoded() *projection.Record {
	entry, err := history.Reopen(s.Signed)
	if err != nil {
		panic(err)
	}
	entry.Sequence = s.sequence
	rec, err := projection.Decode(entry)
	if err != nil {
		panic(err)
	}
	return rec
}

// NewRecords returns an empty projection.
func NewRecords() *Records { return &Records{kept: map[string][]Stored{}} }

// Name is "records".
func (*Records) Name() string { return "records" }

// Version of the fold.
func (*Records) Version() int { return 1 }

// Apply keeps the records of a batch.
func (r *Records) Apply(batch []*projection.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range batch {
		r.kept[rec.Incident] = append(r.kept[rec.Incident], Stored{rec.Signed, rec.Events[len(rec.Events)-1].Position, rec.Sequence})
	}
	return nil
}

// Stored are an incident's records from the one that holds a position. ok is false if there is no such incident.
func (r *Records) Stored(incident string, position uint64) (list []Stored, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all, ok := r.kept[incident]
	i := sort.Search(len(all), func(i int) bool { return all[i].Last >= position })
	return all[i:len(all):len(all)], ok
}

// From are the same, decoded. They are none of the projection's: what was decoded for one is not shared with another.
func (r *Records) From(incident string, position uint64) (list []*projection.Record, ok bool) {
	stored, ok := r.Stored(incident, position)
	list = make([]*projection.Record, 0, len(stored))
	for _, s := range stored {
		list = append(list, s.decoded())
	}
	return list, ok
}

// At is the record that holds a position; nil if there is none.
func (r *Records) At(incident string, position uint64) *projection.Record {
	stored, _ := r.Stored(incident, position)
	if len(stored) == 0 {
		return nil
	}
	return stored[0].decoded()
}

// Restricted finds the event of an incident that holds a restricted value: its type, and which field it is.
func (r *Records) Restricted(incident, commitment string) (eventType string, field procedure.RestrictedField, ok bool) {
	all, _ := r.Stored(incident, 1)
	for _, stored := range all {
		for _, e := range stored.decoded().Events {
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
	all, _ := r.Stored(incident, 1)
	s := procedure.NewState(incident)
	for _, stored := range all {
		if s.Position >= position {
			break
		}
		rec := stored.decoded()
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
	all, _ := r.Stored(procedure.RuleBook, 1)
	book := &rulebook.Book{}
	for _, stored := range all {
		rec := stored.decoded()
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

// now are all records of this moment: what comes later is in none of the lists.
func (r *Records) now() map[string][]Stored {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return maps.Clone(r.kept)
}

// Dump writes every record as a line of incident, first position, hash and stored bytes.
func (r *Records) Dump(w io.Writer) error {
	all := r.now()
	for _, id := range slices.Sorted(maps.Keys(all)) {
		for _, stored := range all[id] {
			rec := stored.decoded()
			if _, err := fmt.Fprintf(w, "%s %d %s %s\n", id, rec.Record.GetFirstPosition(), rec.Hash, base64.StdEncoding.EncodeToString(rec.Signed)); err != nil {
				return fmt.Errorf("dump records of %s: %w", id, err)
			}
		}
	}
	return nil
}
