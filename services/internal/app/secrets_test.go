// SPDX-License-Identifier: Apache-2.0

package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSeedForItsOwner: a user of the event log whose seed others may read is nobody's, at making it and at using it.
func TestSeedForItsOwner(t *testing.T) {
	t.Parallel()
	seed := filepath.Join(t.TempDir(), "review.seed")
	if _, err := NATSUser(seed); err != nil {
		t.Fatal(err)
	}
	if _, err := NATSUser(seed); err != nil {
		t.Error(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(seed, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := NATSUser(seed); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// TestLinkKey: a file that is no key is refused with what is wrong and what to do; one of the data folder is made.
func TestLinkKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, n int, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, n), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for want, path := range map[string]string{
		"chmod 600 it, and think about a new key: make": write("open", 32, 0o640),
		"no such file or directory: make":               filepath.Join(dir, "none"),
		" has 31 bytes: make":                           write("short", 31, 0o600),
		" has 0 bytes: make":                            write("empty", 0, 0o600),
	} {
		n := &Node{set: Settings{Data: dir, LinkKey: path}}
		if _, err := n.linkKey(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "%!") {
			t.Errorf("%v, want %q", err, want)
		}
	}
	n := &Node{set: Settings{Data: dir, LinkKey: write("good", 32, 0o600)}}
	if b, err := n.linkKey(); err != nil || len(b) != 32 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	n.set.LinkKey = ""
	write("link.key", 32, 0o644)
	if _, err := n.linkKey(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("the data folder's own, readable by everybody: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "link.key")); err != nil {
		t.Fatal(err)
	}
	made, err := n.linkKey()
	if err != nil || len(made) != 32 {
		t.Fatalf("%d bytes, %v", len(made), err)
	}
	if again, err := n.linkKey(); err != nil || string(again) != string(made) {
		t.Errorf("it is made twice (%v)", err)
	}
}
