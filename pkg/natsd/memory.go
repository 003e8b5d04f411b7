// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/history"
)

// Memory is what a process remembers of its log from one run to the next: when the stream was created, and the last message it has read. A
// Guard forgets with its process, and whoever restarts that would take a log that went back for the truth. The file is as trusted as the
// folder it is in, which is the process's own. Safe for concurrent use.
type Memory struct {
	path string

	mu    sync.Mutex
	kept  remembered // what the file says
	known remembered // what is to be kept; its stream is asked by Recognise
}

// remembered is what stands in the file.
type remembered struct {
	Created  time.Time `json:"created"`
	Sequence uint64    `json:"sequence"`
	Hash     string    `json:"hash"`
}

// memoryHead begins the file, after which there are a line of JSON for whoever has to judge it, and a digest of all before it.
const memoryHead = "epatch log memory 1\n"

// OpenMemory reads the file. One that is missing remembers nothing; with one that is damaged nothing can be compared, which is an error.
func OpenMemory(path string) (*Memory, error) {
	m := &Memory{path: path}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is remembered of the event log: %w", err)
	}
	end := bytes.LastIndexByte(bytes.TrimSuffix(b, []byte("\n")), '\n') + 1
	sum := sha256.Sum256(b[:end])
	line, ok := strings.CutPrefix(string(b[:end]), memoryHead)
	if !ok || string(b[end:]) != hex.EncodeToString(sum[:])+"\n" || json.Unmarshal([]byte(line), &m.kept) != nil {
		return nil, fmt.Errorf("%s is damaged: it is not known whether the event log went back (hardening 4), and nothing is written to it. "+
			"Compare the heads that `epatch history check` prints with those that others remember (docs/runbooks.md, Restore); if the log is whole, remove the file by hand", path)
	}
	m.known = m.kept
	return m, nil
}

// catchUp is how long a replicated log may take until it has what was acknowledged: a server that became leader a moment ago first applies
// what it has, and one that is cut off answers for some seconds as if it were leader.
const catchUp = 10 * time.Second

// Recognise refuses a log that is not the remembered one, or an earlier state of it (hardening 4): call it before anything is read, served or
// written. An error without a comparison means that the log could not be asked.
func (m *Memory) Recognise(ctx context.Context, js jetstream.JetStream, e Expect) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	deadline := time.Now().Add(catchUp)
	for {
		created, findings, behind, err := m.compare(ctx, js)
		if err != nil {
			return fmt.Errorf("compare the event log with what is remembered of it: %w", err)
		}
		if len(findings) == 0 {
			m.known.Created = created
			return nil
		}
		if !behind || e.Replicas < 2 || time.Now().After(deadline) {
			return m.refusal(findings)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// compare tells what of the log is not as it is remembered; behind if that may only be late.
func (m *Memory) compare(ctx context.Context, js jetstream.JetStream) (created time.Time, findings []Finding, behind bool, err error) {
	stream, err := js.Stream(ctx, Stream)
	if err != nil {
		return time.Time{}, nil, false, err
	}
	info, was := stream.CachedInfo(), m.kept
	if !was.Created.IsZero() && !info.Created.Equal(was.Created) {
		findings = append(findings, recreated(info.Created, was.Created))
	}
	if was.Sequence == 0 {
		return info.Created, findings, false, nil
	}
	if last := info.State.LastSeq; last < was.Sequence {
		behind = len(findings) == 0
		return info.Created, append(findings, lower(last, was.Sequence)), behind, nil
	}
	const other = "another record has the place of one that was stored"
	there := "gone"
	switch msg, err := stream.GetMsg(ctx, was.Sequence); {
	case err == nil:
		there = history.Message{Sequence: msg.Sequence, Data: msg.Data}.Mark().Hash
	case !errors.Is(err, jetstream.ErrMsgNotFound):
		return time.Time{}, nil, false, err
	}
	if there != was.Hash {
		findings = append(findings, Finding{Stream, fmt.Sprintf("message %d", was.Sequence), there, was.Hash, other})
	}
	return info.Created, findings, false, nil
}

func (m *Memory) refusal(findings []Finding) error {
	lines := make([]string, len(findings))
	for i, f := range findings {
		lines[i] = f.String()
	}
	return fmt.Errorf("the event log is not the one that this process remembers in %s; nothing is served or written (hardening 4):\n  %s\n"+
		"restore the log that was there (docs/runbooks.md, Restore); only where it was decided to go on with this one, remove that file by hand, as is said there",
		m.path, strings.Join(lines, "\n  "))
}

// Keep remembers a message that was read, and all before it. Less than is remembered changes nothing.
func (m *Memory) Keep(read history.Mark) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if read.Sequence > m.known.Sequence {
		m.known.Sequence, m.known.Hash = read.Sequence, read.Hash
	}
	if m.known == m.kept {
		return nil
	}
	if err := m.write(); err != nil {
		return fmt.Errorf("remember how far the event log was read: %w", err)
	}
	m.kept = m.known
	return nil
}

// write replaces the file whole, and returns when it is on the disk.
func (m *Memory) write() error {
	line, err := json.Marshal(m.known)
	if err != nil {
		return err
	}
	b := fmt.Appendf(nil, "%s%s\n", memoryHead, line)
	sum := sha256.Sum256(b)
	b = fmt.Appendf(b, "%s\n", hex.EncodeToString(sum[:]))
	dir := filepath.Dir(m.path)
	f, err := os.CreateTemp(dir, filepath.Base(m.path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), m.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return cmp.Or(d.Sync(), d.Close())
}

// Guard returns a guard of the log that was recognised, from what is remembered of it on.
func (m *Memory) Guard(js jetstream.JetStream, e Expect) *Guard {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Guard{js: js, expect: e, last: m.known.Sequence, created: m.known.Created}
}
