// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"cacert.org/emergency/pkg/recording"
)

// createRecording opens the recorder. It comes before anything is dialled: without a recording there is no session (N18).
func (s *session) createRecording(t terminal) error {
	s.mu.Lock()
	g := s.grant
	s.mu.Unlock()
	cfg := recording.Config{
		Dir: s.b.cfg.Recordings, Name: s.recordingName(), Limit: g.Recording, Now: s.b.cfg.Clock.Now, Salt: rand.Reader,
		Header: recording.Header{
			Incident: g.Incident, Grant: g.Grant, Subject: g.Subject, Watcher: g.Watcher, Host: g.Host, Account: g.Account,
			Cols: int(t.Columns), Rows: int(t.Rows), Term: t.Term,
		},
	}
	w, err := recording.Create(cfg)
	if err != nil {
		return fmt.Errorf("begin the recording: %w", err)
	}
	s.order.Lock()
	s.tape = w
	s.order.Unlock()
	return nil
}

// Ready reports whether recordings can be begun at this moment: without one, no watch is armed and no session opened.
func (b *Broker) Ready() error {
	err := os.MkdirAll(b.cfg.Recordings, 0o700)
	if err == nil {
		err = probe(b.cfg.Recordings)
	}
	if err != nil {
		b.cfg.Log.ErrorContext(b.ctx, "recordings cannot be written", "error", err)
		return refused(ReasonRecorder, "the gateway cannot write recordings now: see its log, and the disk it writes to")
	}
	return nil
}

// probe writes as much as a recording needs at least, and takes it away again.
func probe(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(make([]byte, 64<<10))
	return errors.Join(err, f.Sync(), f.Close())
}

// recorded is whether the session is open as far as the history is concerned, so that marks and frames find their place.
func (s *session) recorded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.line != nil
}

// recordingName is one per session: a grant has only one.
func (s *session) recordingName() string { return s.grant.Login() + ".cast" }

func (s *session) recordingPath() string { return filepath.Join(s.b.cfg.Recordings, s.recordingName()) }

// RecordingPath is where the recording of a grant lies, whether or not there is one.
func (b *Broker) RecordingPath(ref Ref) string {
	return filepath.Join(b.cfg.Recordings, ref.Login()+".cast")
}
