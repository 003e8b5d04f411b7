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
	mu       sync.RWMutex // guards what logs say; they are only written by the runner
	logs     map[publog.Origin]*publog.Log
	prepared *publog.Prepared // by Before, of the record that After is about
}

var _ projection.Witness = (*Log)(nil)

// NewLog returns an empty log.
func NewLog() *Log {
	l := &Log{logs: map[publog.Origin]*publog.Log{}}
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

// Before implements projection.Witness. The rule book's history is no part of the log.
func (l *Log) Before(s *procedure.State, rec *projection.Record) (err error) {
	l.prepared = nil
	if rec.Incident == procedure.RuleBook {
		return nil
	}
	if l.prepared, err = l.logs[publog.OriginOf(rec.Incident)].Prepare(s, rec.Record, rec.Events); err != nil {
		return fmt.Errorf("public log of %s: %w", rec.Incident, err)
	}
	return nil
}

// After implements projection.Witness: it publishes what Before has prepared.
func (l *Log) After(rec *projection.Record) {
	if l.prepared == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.logs[publog.OriginOf(rec.Incident)].Publish(l.prepared, rec.Hash)
}

// Apply implements projection.Projection. There is nothing left to do.
func (*Log) Apply([]*projection.Record) error { return nil }

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
