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

// Log is the public emergency log, that of the drills, and that of the archive.
type Log struct {
	mu     sync.RWMutex
	states map[string]*procedure.State // before the next record
	logs   map[publog.Origin]*publog.Log
}

// NewLog returns an empty log.
func NewLog() *Log {
	l := &Log{states: map[string]*procedure.State{}, logs: map[publog.Origin]*publog.Log{}}
	for _, o := range publog.Origins() {
		l.logs[o] = publog.New(o)
	}
	return l
}

// Name is "log".
func (*Log) Name() string { return "log" }

// Version of the fold. 2: tests of the update cycle are told from those before the deployment, and counted by themselves. 3: the
// log of the archive.
func (*Log) Version() int { return 3 }

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
		if _, err := l.logs[publog.OriginOf(rec.Incident)].Add(s, rec.Record, rec.Hash); err != nil {
			return fmt.Errorf("public log of %s: %w", rec.Incident, err)
		}
		if err := s.ApplyDecoded(rec.Record, rec.Events, rec.Hash); err != nil {
			return err
		}
	}
	return nil
}

// Entries are all entries of one of the logs, oldest first. They are shared: never write to them.
func (l *Log) Entries(o publog.Origin) []publog.Entry {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.logs[o].Entries()
}

// Dump writes every entry as a JSON line, log by log.
func (l *Log) Dump(w io.Writer) error {
	enc := json.NewEncoder(w)
	for _, o := range publog.Origins() {
		for _, e := range l.Entries(o) {
			if err := enc.Encode(e); err != nil {
				return fmt.Errorf("dump public log entry %d: %w", e.Seq, err)
			}
		}
	}
	return nil
}
