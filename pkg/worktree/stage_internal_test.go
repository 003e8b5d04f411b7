// SPDX-License-Identifier: Apache-2.0

package worktree

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"cacert.org/emergency/pkg/gitrepo/gittree"
)

// A named pipe that was put in the place of a file since it was hashed holds nobody up, whether somebody has it open for writing or not.
func TestPipeInPlaceOfAFile(t *testing.T) {
	t.Parallel()
	for _, written := range []bool{false, true} {
		dir := t.TempDir()
		path := filepath.Join(dir, "config")
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if written {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := copyToStage(root, gittree.Entry{Path: "config"}, gittree.SHA1, t.TempDir()); !errors.Is(err, errChanged) {
			t.Errorf("written to %v: %v", written, err)
		}
	}
}
