// SPDX-License-Identifier: Apache-2.0

package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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
		"no such file or directory: make": filepath.Join(dir, "none"),
		" has 31 bytes: make":             write("short", 31, 0o600),
		" has 0 bytes: make":              write("empty", 0, 0o600),
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
	made, err := n.linkKey()
	if err != nil || len(made) != 32 {
		t.Fatalf("%d bytes, %v", len(made), err)
	}
	if again, err := n.linkKey(); err != nil || string(again) != string(made) {
		t.Errorf("it is made twice (%v)", err)
	}
}
