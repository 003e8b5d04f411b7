// SPDX-License-Identifier: Apache-2.0

package recording_test

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cacert.org/emergency/pkg/recording"
)

func TestSmoke(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "rec")
	now := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	w, err := recording.Create(recording.Config{
		Dir: dir, Name: "a.cast", Limit: 64 << 20, Now: func() time.Time { now = now.Add(7 * time.Millisecond); return now }, Salt: rand.Reader,
		Header: recording.Header{Incident: "e20261124.1", Grant: "G1", Subject: "P1", Watcher: "P2", Host: "h", Account: "root", Cols: 80, Rows: 24, Term: "xterm"},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Output([]byte("$ "))
	w.Typed("P1", []byte("l"))
	w.Output([]byte("l"))
	w.Typed("P1", []byte("s\r"))
	w.Output([]byte("s\r\nüb\xc3"))
	w.Ack("P2", 3)
	w.Output([]byte("\xbc \xff\xfe\x1b[31m"))
	w.Note("P2", "look at \"this\"")
	cp, err := w.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	seal, err := w.End("logout")
	if err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(filepath.Join(dir, "a.cast"))
	t.Logf("%s", data)
	rep, err := recording.Verify(bytes.NewReader(data), []recording.Checkpoint{cp, seal.Checkpoint})
	if err != nil || rep.State != recording.Complete || rep.SHA256 != seal.SHA256 {
		t.Fatalf("%+v %v", rep, err)
	}
}
