// SPDX-License-Identifier: Apache-2.0

package natsd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/natsd/natsdtest"
)

// remembering is a memory of the log as it is now, as one process leaves it to the next.
func remembering(t *testing.T, js jetstream.JetStream) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "log.mark")
	m, err := natsd.OpenMemory(path)
	must(t, err)
	must(t, m.Recognise(t.Context(), js, expect))
	stream, err := js.Stream(t.Context(), natsd.Stream)
	must(t, err)
	mark := history.Mark{Sequence: stream.CachedInfo().State.LastSeq}
	if mark.Sequence > 0 {
		msg, err := stream.GetMsg(t.Context(), mark.Sequence)
		must(t, err)
		mark = history.Message{Sequence: msg.Sequence, Data: msg.Data}.Mark()
	}
	must(t, m.Keep(mark))
	return path
}

// recognise is what the next process says of a log.
func recognise(t *testing.T, path string, js jetstream.JetStream) error {
	t.Helper()
	m, err := natsd.OpenMemory(path)
	must(t, err)
	return m.Recognise(t.Context(), js, expect)
}

func TestMemoryOfTheSameLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, js := natsdtest.StartIn(t, dir)
	empty := remembering(t, js)
	publish(t, js, "emergency.e20261124-1", 3)
	path := remembering(t, js)
	publish(t, js, "emergency.e20261124-2", 3)
	closeServer(t, s)
	_, js = natsdtest.StartIn(t, dir)
	for _, p := range []string{path, empty, filepath.Join(t.TempDir(), "none")} {
		if err := recognise(t, p, js); err != nil {
			t.Error(err)
		}
	}
	m, err := natsd.OpenMemory(path)
	must(t, err)
	must(t, m.Recognise(t.Context(), js, expect))
	before, err := os.ReadFile(path)
	must(t, err)
	must(t, m.Keep(history.Mark{Sequence: 1, Hash: "of a reader that is behind"}))
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("less than was remembered is kept: %s (%v)", after, err)
	}
}

// TestMemoryOfAnotherLog: a process that restarts does not take for the truth what its predecessor would have refused.
func TestMemoryOfAnotherLog(t *testing.T) {
	t.Parallel()
	backup := func(t *testing.T, dir string, records int) string {
		t.Helper()
		s, js := natsdtest.StartIn(t, dir)
		publish(t, js, "emergency.e20261124-1", records)
		closeServer(t, s)
		to := filepath.Join(t.TempDir(), "copy")
		must(t, os.CopyFS(to, os.DirFS(dir)))
		must(t, os.Remove(filepath.Join(to, "epatch.lock")))
		return to
	}
	for name, tc := range map[string]struct {
		then func(t *testing.T, js jetstream.JetStream) // with the copy of a log of three records, of which six were seen
		want []string
	}{
		"an older copy": {func(*testing.T, jetstream.JetStream) {}, []string{"state.last_seq is 3, must be 6 or more"}},
		"an older copy that was written on": {func(t *testing.T, js jetstream.JetStream) {
			for range 5 {
				_, err := js.Publish(t.Context(), "emergency.e20261124-2", []byte("another record"))
				must(t, err)
			}
		}, []string{"message 6 is ", "another record"}},
		"a stream made anew": {func(t *testing.T, js jetstream.JetStream) {
			must(t, js.DeleteStream(t.Context(), natsd.Stream))
			must(t, natsd.Provision(t.Context(), js, small))
		}, []string{"created is ", "deleted and created again", "state.last_seq is 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			copied := backup(t, dir, 3)
			_, js := natsdtest.StartIn(t, dir)
			publish(t, js, "emergency.e20261124-1", 3)
			path := remembering(t, js)
			_, old := natsdtest.StartIn(t, copied)
			tc.then(t, old)
			for range 2 { // a restart changes nothing
				err := recognise(t, path, old)
				if err == nil {
					t.Fatal("it is taken for the log that was seen")
				}
				for _, want := range append(tc.want, path, "hardening 4", "docs/runbooks.md") {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%v does not say %q", err, want)
					}
				}
			}
			if err := recognise(t, path, js); err != nil {
				t.Errorf("the right log: %v", err)
			}
			must(t, os.Remove(path))
			if err := recognise(t, path, old); err != nil {
				t.Errorf("after it was decided: %v", err)
			}
		})
	}
}

// TestMemoryGuards: the guard compares with what was remembered, from its first look on.
func TestMemoryGuards(t *testing.T) {
	t.Parallel()
	_, js := provisioned(t)
	publish(t, js, "emergency.e20261124-1", 3)
	path := remembering(t, js)
	m, err := natsd.OpenMemory(path)
	must(t, err)
	must(t, m.Recognise(t.Context(), js, expect))
	g := m.Guard(js, expect)
	must(t, g.Look(t.Context()))
	g = m.Guard(js, expect)
	must(t, js.DeleteStream(t.Context(), natsd.Stream))
	must(t, natsd.Provision(t.Context(), js, small))
	found := findings(t, g.Look(t.Context()))
	for _, want := range []string{"created", "state.last_seq"} {
		if _, ok := found[want]; !ok {
			t.Errorf("%s is not named in %v", want, found)
		}
	}
	must(t, js.DeleteStream(t.Context(), natsd.Stream))
	if f, ok := findings(t, g.Look(t.Context()))["stream"]; !ok || f.Is != "not there" {
		t.Errorf("a deleted stream: %v", f)
	}
}

// TestMemoryDamaged: of a file that is damaged anywhere nothing is believed, and it is told.
func TestMemoryDamaged(t *testing.T) {
	t.Parallel()
	_, js := provisioned(t)
	publish(t, js, "emergency.e20261124-1", 3)
	path := remembering(t, js)
	good, err := os.ReadFile(path)
	must(t, err)
	try := func(what string, b []byte) {
		t.Helper()
		must(t, os.WriteFile(path, b, 0o600))
		if _, err := natsd.OpenMemory(path); err == nil || !strings.Contains(err.Error(), path+" is damaged") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range good {
		b := append([]byte{}, good...)
		b[i] ^= 1
		try("a bit", b)
		try("cut", good[:i])
	}
	try("more", append(append([]byte{}, good...), 'x'))
	must(t, os.Chmod(path, 0o600))
	must(t, os.WriteFile(path, good, 0o600))
	must(t, recognise(t, path, js))
}
