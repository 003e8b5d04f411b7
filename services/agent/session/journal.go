// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// record is what is kept of a session, so that no start of the agent forgets one.
type record struct {
	Grant    string        `json:"grant"`
	Mark     string        `json:"mark"` // in the environment of its processes; unlike the grant, no other agent on the machine has it
	Key      string        `json:"key"`
	Until    time.Time     `json:"until"`
	Grace    time.Duration `json:"grace"`
	OpenedAt time.Time     `json:"opened_at"`
	Cgroup   string        `json:"cgroup,omitempty"`
	Wrapper  ident         `json:"wrapper"`
	Terminal int64         `json:"terminal"`
	Ending   *Ending       `json:"ending,omitempty"`
	Told     bool          `json:"told"` // the service knows of the end
}

// Names of the two files of a session: what it is, and what was on the host before it.
const (
	recordFile = ".session.json"
	beforeFile = ".before.json"
)

func (k *Keeper) file(grant, kind string) string {
	return filepath.Join(k.cfg.StateDir, strings.ReplaceAll(grant, "/", "-")+kind)
}

func (k *Keeper) save(r *record) error { return k.keep(k.file(r.Grant, recordFile), r) }

func (k *Keeper) saveBefore(grant string, v *view) error { return k.keep(k.file(grant, beforeFile), v) }

func (k *Keeper) keep(path string, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		err = replaceFile(path, b, 0o600, -1, -1)
	}
	if err != nil {
		return fmt.Errorf("journal of sessions: %w", err)
	}
	return nil
}

func (k *Keeper) before(grant string) (*view, error) {
	v := &view{}
	return v, readJSON(k.file(grant, beforeFile), v)
}

// forget removes what was kept of an opening that did not succeed.
func (k *Keeper) forget(grant string) error {
	var errs []error
	for _, kind := range []string{recordFile, beforeFile} {
		if err := os.Remove(k.file(grant, kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("journal of sessions: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s is damaged (%w): restore the state folder from a backup", path, err)
	}
	return nil
}

// recover takes up the sessions of an earlier run and ends those that had not ended: keys out, processes killed.
func (k *Keeper) recover(ctx context.Context) error {
	paths, err := filepath.Glob(filepath.Join(k.cfg.StateDir, "*"+recordFile))
	if err != nil {
		return err
	}
	for _, path := range paths {
		rec := &record{}
		if err := readJSON(path, rec); err != nil {
			return err
		}
		if err := k.resume(ctx, rec); err != nil {
			return err
		}
	}
	return nil
}

func (k *Keeper) resume(ctx context.Context, rec *record) error {
	before, err := k.before(rec.Grant)
	if err != nil {
		return err
	}
	s := k.newSession(rec)
	s.crew = k.newCrew(rec, before.Processes)
	if before.Boot != k.boot() { // none of its processes has outlived that, and their numbers mean others now
		s.rec.Wrapper, s.crew.before = ident{}, map[ident]bool{}
	} else {
		s.crew.root, s.crew.terminal = rec.Wrapper, rec.Terminal
		if p, err := k.table.read(rec.Wrapper.PID); err != nil || p.ident != rec.Wrapper {
			s.crew.terminal = 0 // closed, and perhaps somebody else's by now
		}
	}
	if rec.Cgroup != "" {
		s.crew.group = &cgroup{rec.Cgroup}
	}
	k.sessions[rec.Grant] = s
	if rec.Ending != nil && rec.Ending.Err() == nil {
		s.ended.Store(true)
		return nil
	}
	if err := s.end(ctx, whyRestart).Err(); err != nil {
		k.log.ErrorContext(ctx, "ALARM: a session of an earlier run could not be ended; a person has to look", "grant", rec.Grant, "error", err)
	}
	return nil
}
