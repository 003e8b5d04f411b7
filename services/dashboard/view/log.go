// SPDX-License-Identifier: Apache-2.0

package view

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/publog"
)

// Log is the public emergency log, and the one of the drills.
type Log struct {
	mu     sync.RWMutex
	states map[string]*procedure.State // before the next record
	real   *publog.Log
	drills *publog.Log
}

// NewLog returns an empty log.
func NewLog() *Log {
	return &Log{states: map[string]*procedure.State{}, real: publog.New(publog.Real), drills: publog.New(publog.Drills)}
}

// Name is "log".
func (*Log) Name() string { return "log" }

// Version of the fold. 2: tests of the update cycle are told from those before the deployment, and counted by themselves.
func (*Log) Version() int { return 2 }

// Apply folds records in. The rule book's history is no part of the log.
func (l *Log) Apply(batch []*projection.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, rec := range batch {
		if rec.Incident == procedure.RuleBook {
			continue
		}
		s, ok := l.states[rec.Incident]
		if !ok {
			s = procedure.NewState(rec.Incident)
			l.states[rec.Incident] = s
		}
		if _, err := l.of(Drill(rec.Incident)).Add(s, rec.Record, rec.Hash); err != nil {
			return fmt.Errorf("public log of %s: %w", rec.Incident, err)
		}
		if err := s.Apply(rec.Record, rec.Hash); err != nil {
			return err
		}
	}
	return nil
}

// Drill tells whether an id is a drill's: they have their own prefix (procedure.md 0.12).
func Drill(incident string) bool { return len(incident) > 0 && incident[0] == 'x' }

func (l *Log) of(drills bool) *publog.Log {
	if drills {
		return l.drills
	}
	return l.real
}

// Entries are all entries of one of the two logs, oldest first. They are shared: never write to them.
func (l *Log) Entries(drills bool) []publog.Entry {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.of(drills).Entries()
}

// Dump writes every entry as a JSON line, the drills after the real ones.
func (l *Log) Dump(w io.Writer) error {
	enc := json.NewEncoder(w)
	for _, drills := range []bool{false, true} {
		for _, e := range l.Entries(drills) {
			if err := enc.Encode(e); err != nil {
				return fmt.Errorf("dump public log entry %d: %w", e.Seq, err)
			}
		}
	}
	return nil
}
