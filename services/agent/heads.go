// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"cacert.org/emergency/pkg/history"
)

// seen is the end of a history as it was last verified.
type seen struct {
	Position uint64 `json:"position"`
	Hash     string `json:"hash"`
}

// heads remembers the ends of the histories that were verified, so that nobody can show the agent an older history, or
// another one, as if nothing had happened since. What it never saw it takes from the first showing.
type heads struct {
	path string

	mu    sync.Mutex
	known map[string]seen
}

// openHeads reads what was kept. A damaged file is an error and not an empty memory.
func openHeads(path string) (*heads, error) {
	h := &heads{path: path, known: map[string]seen{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ends of the histories: %w", err)
	}
	if err := json.Unmarshal(b, &h.known); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): restore it from a backup; removing it means to believe the next history that is shown", path, err)
	}
	return h, nil
}

// check compares the entries of a history with what was seen of it before. short tells that it only ends too early, which
// may be a service that is behind.
func (h *heads) check(incident string, entries []history.Entry) (short bool, err error) {
	h.mu.Lock()
	last, known := h.known[incident]
	h.mu.Unlock()
	if !known {
		return false, nil
	}
	end := uint64(0)
	for _, e := range entries {
		end = endOf(e)
		if end >= last.Position {
			if end == last.Position && e.Hash == last.Hash {
				return false, nil
			}
			return false, refuse(codeOtherHistory, "position %d of %s is another record than the one seen before: somebody keeps two histories", last.Position, incident)
		}
	}
	return true, refuse(codeRolledBack, "the history of %s ends at position %d; it was seen up to %d before: it was rolled back or is withheld", incident, end, last.Position)
}

func endOf(e history.Entry) uint64 {
	return e.Record.GetFirstPosition() + uint64(len(e.Record.GetEvents())) - 1
}

// keep remembers the ends of histories that were verified in full.
func (h *heads) keep(ends map[string]seen) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed := false
	for incident, end := range ends {
		if end.Position > h.known[incident].Position {
			h.known[incident], changed = end, true
		}
	}
	if !changed {
		return nil
	}
	b, err := json.Marshal(h.known)
	if err != nil {
		return err
	}
	return writeFile(h.path, b)
}

// writeFile replaces a file durably: after a crash it is the former or the new one, whole.
func writeFile(path string, body []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
