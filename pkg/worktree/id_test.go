// SPDX-License-Identifier: Apache-2.0

package worktree

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/gitrepo/gittest"
	"cacert.org/emergency/pkg/gitrepo/gittree"
)

var commitTime = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

// For random trees the id is what `git write-tree` says.
func TestIDEqualsGitWriteTree(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range 12 {
		algo := gittree.SHA1
		if i%3 == 2 {
			algo = gittree.SHA256
		}
		r := gittest.New(t, algo)
		for range 5 + rnd.IntN(30) {
			randomFile(t, rnd, r.Dir)
		}
		if err := os.MkdirAll(filepath.Join(r.Dir, "empty/folder"), 0o755); err != nil {
			t.Fatal(err)
		}
		want := r.Tree(r.Commit("random"))
		tree, err := Open(r.Dir, Spec{StateDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if got := mustID(t, tree, algo); got != want {
			t.Errorf("tree is %s, git says %s\n%s", got, want, r.Git("ls-files", "--stage"))
		}
		entries, err := tree.Manifest(t.Context(), algo)
		if err != nil || strings.Count(r.Git("ls-files", "-z"), "\x00") != len(entries) {
			t.Errorf("%d entries, %v", len(entries), err)
		}
	}
}

func randomFile(t *testing.T, rnd *rand.Rand, dir string) {
	t.Helper()
	// Bytes around "/" and "." decide the order; others are what programs stumble over.
	const letters = "ab./-0_ \n\t\"\\~\x01\x7f\xff:*?[ä"
	var name strings.Builder
	for range 1 + rnd.IntN(8) {
		c := letters[rnd.IntN(len(letters))]
		name.WriteByte(c)
	}
	path := filepath.Join(dir, "x"+name.String()) // x: no name that is only dots
	if !strings.HasPrefix(path, dir+"/x") {
		return
	}
	if os.MkdirAll(filepath.Dir(path), 0o755) != nil {
		return // a file of that name is there
	}
	if _, err := os.Lstat(path); err == nil {
		return
	}
	perm := []os.FileMode{0o644, 0o755, 0o600, 0o744, 0o611, 0o700, 0o666, 0o655}[rnd.IntN(8)]
	var err error
	if rnd.IntN(5) == 0 {
		err = os.Symlink(fmt.Sprintf("../target %d\n", rnd.IntN(9)), path)
	} else if err = os.WriteFile(path, []byte(strings.Repeat(fmt.Sprintln(rnd.Uint64()), rnd.IntN(500))), 0o600); err == nil {
		err = os.Chmod(path, perm)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestManifestDescribesEachFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "f"), "content\n", 0o644)
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	tree, err := Open(dir, Spec{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := tree.Manifest(t.Context(), gittree.SHA1)
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	want := Entry{"f", "100644", "d95f3ad14dee633a758d2e331151e950dd13e4ed", "434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53", 8}
	if got[0] != want {
		t.Errorf("got %+v", got[0])
	}
	if l := got[1]; l.Mode != gittree.ModeSymlink || l.BlobID != gittree.BlobID(gittree.SHA1, []byte("/etc/passwd")) {
		t.Errorf("link %+v", l)
	}
	if small, err := Open(dir, Spec{MaxFiles: 1}); err != nil {
		t.Fatal(err)
	} else if _, err := small.Manifest(t.Context(), gittree.SHA1); err == nil {
		t.Error("more files than allowed are accepted")
	}
}
