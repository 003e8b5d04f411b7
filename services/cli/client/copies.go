// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protodelim"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// A copy of each history that this machine has read and verified, so that an act can be captured while no server answers (G9). A copy
// is verified again when it is read; it is never the ground for anything while a server can be asked.

const copyEnding = ".history"

func (c *Client) copyOf(incident string) string {
	return filepath.Join(c.cfg.Copies, incident+copyEnding)
}

// keep writes a history that was read to the end; a copy that cannot be written is no reason to stop.
func (c *Client) keep(p *past, before uint64) {
	if c.cfg.Copies == "" || c.cfg.Offline || p.chain.Head().Position == before || !copyable(p.chain.Incident()) {
		return
	}
	var b bytes.Buffer
	for _, r := range p.records {
		if _, err := protodelim.MarshalTo(&b, r); err != nil {
			return
		}
	}
	if os.MkdirAll(c.cfg.Copies, 0o700) != nil {
		return
	}
	name := c.copyOf(p.chain.Incident())
	fresh := fmt.Sprintf("%s.%d", name, os.Getpid())
	if os.WriteFile(fresh, b.Bytes(), 0o600) != nil || os.Rename(fresh, name) != nil {
		_ = os.Remove(fresh)
	}
}

// copyable keeps an id that a server sent from naming a file elsewhere.
func copyable(incident string) bool {
	return incident != "" && !strings.ContainsAny(incident, `/\`) && !strings.HasPrefix(incident, ".")
}

// recall folds in the copy of a history.
func (c *Client) recall(p *past) error {
	f, err := os.Open(c.copyOf(p.chain.Incident()))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w of %s in %s: this machine has never read it", ErrNoCopy, p.chain.Incident(), c.cfg.Copies)
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	list, err := readCopy(f)
	if err != nil {
		return fmt.Errorf("copy of %s: %w", p.chain.Incident(), err)
	}
	for _, r := range list {
		if _, err := p.accept(r); err != nil {
			return fmt.Errorf("copy of %s: %w", p.chain.Incident(), err)
		}
	}
	return nil
}

// copyLimit bounds one record of a copy.
const copyLimit = 4 << 20

func readCopy(f io.Reader) ([]*emergencyv1.SignedRecord, error) {
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	r := bytes.NewReader(b)
	var list []*emergencyv1.SignedRecord
	for r.Len() > 0 {
		rec := new(emergencyv1.SignedRecord)
		if err := (protodelim.UnmarshalOptions{MaxSize: copyLimit}).UnmarshalFrom(r, rec); err != nil {
			return nil, err
		}
		list = append(list, rec)
	}
	return list, nil
}

// ErrNoCopy says that there is no copy of a history to capture an act on.
var ErrNoCopy = errors.New("no copy")

// Copied lists the incidents of which this machine has a copy, the newest id last.
func (c *Client) Copied() []string {
	entries, err := os.ReadDir(c.cfg.Copies)
	if err != nil {
		return nil
	}
	var list []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), copyEnding); ok && procedure.IsIncident(id) {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return list
}
