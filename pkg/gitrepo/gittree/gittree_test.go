// SPDX-License-Identifier: Apache-2.0

package gittree_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/gitrepo/gittest"
	"cacert.org/emergency/pkg/gitrepo/gittree"
)

func TestIDEqualsGit(t *testing.T) {
	t.Parallel()
	for _, algo := range []gittree.Algo{gittree.SHA1, gittree.SHA256} {
		r := gittest.New(t, algo)
		var entries []gittree.Entry
		// Names around "/" in the alphabet: a folder sorts as its name with a slash.
		for _, path := range []string{"a.b", "a/x", "a0", "a-b/c", "a/y/z", "b", "ä", "A", "a b", "\x01", "\xff", "-n", "a\nb", "a\\b"} {
			mode, perm := gittree.ModeFile, os.FileMode(0o644)
			if len(entries)%2 == 1 {
				mode, perm = gittree.ModeExecutable, 0o755
			}
			r.Write(path, "content of "+path, perm)
			entries = append(entries, gittree.Entry{Path: path, Mode: mode, ID: gittree.BlobID(algo, []byte("content of "+path))})
		}
		got, err := gittree.ID(algo, entries)
		if want := r.Tree(r.Commit("all")); err != nil || got != want {
			t.Errorf("%s: %s, %v, git says %s", algo, got, err, want)
		}
	}
}

func TestIDOfNothing(t *testing.T) {
	t.Parallel()
	if got, err := gittree.ID(gittree.SHA1, nil); err != nil || got != "sha1:4b825dc642cb6eb9a060e54bf8d69288fbee4904" {
		t.Errorf("empty tree is %s, %v", got, err)
	}
}

func TestIDRefuses(t *testing.T) {
	t.Parallel()
	blob := gittree.BlobID(gittree.SHA1, nil)
	file := func(path string) gittree.Entry { return gittree.Entry{Path: path, Mode: gittree.ModeFile, ID: blob} }
	for name, entries := range map[string][]gittree.Entry{
		"twice":           {file("a"), file("a")},
		"file and folder": {file("a"), file("a/b")},
		"empty name":      {file("a//b")},
		"absolute":        {file("/a")},
		"dots":            {file("a/../b")},
		"mode":            {{Path: "a", Mode: "100664", ID: blob}},
		"other format":    {{Path: "a", Mode: gittree.ModeFile, ID: gittree.BlobID(gittree.SHA256, nil)}},
		"no id":           {{Path: "a", Mode: gittree.ModeFile}},
	} {
		if id, err := gittree.ID(gittree.SHA1, entries); err == nil {
			t.Errorf("%s: accepted as %s", name, id)
		}
	}
	if _, err := gittree.ID("md5", nil); err == nil {
		t.Error("an unknown format is accepted")
	}
}

func TestParseID(t *testing.T) {
	t.Parallel()
	for tree, ok := range map[string]bool{
		"sha1:" + strings.Repeat("a", 40):   true,
		"sha256:" + strings.Repeat("0", 64): true,
		"sha1:" + strings.Repeat("a", 64):   false,
		"sha256:" + strings.Repeat("0", 40): false,
		"sha1:" + strings.Repeat("A", 40):   false,
		strings.Repeat("a", 40):             false,
		"":                                  false,
	} {
		if _, _, err := gittree.ParseID(tree); (err == nil) != ok {
			t.Errorf("%q: %v", tree, err)
		}
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	e := func(path, mode, id string) gittree.Entry { return gittree.Entry{Path: path, Mode: mode, ID: id} }
	got := gittree.Diff(
		[]gittree.Entry{e("same", "100644", "1"), e("gone", "100644", "2"), e("mode", "100644", "3"), e("text", "100644", "4")},
		[]gittree.Entry{e("new", "100755", "5"), e("text", "100644", "6"), e("mode", "100755", "3"), e("same", "100644", "1")},
	)
	want := []gittree.Change{
		{Path: "gone", OldMode: "100644", OldID: "2"},
		{Path: "mode", OldMode: "100644", NewMode: "100755", OldID: "3", NewID: "3"},
		{Path: "new", NewMode: "100755", NewID: "5"},
		{Path: "text", OldMode: "100644", NewMode: "100644", OldID: "4", NewID: "6"},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got[i], want[i])
		}
	}
}

func TestLooseObjects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	content := strings.Repeat("content\x00", 9000)
	id, err := gittree.WriteLoose(dir, gittree.SHA1, int64(len(content)), strings.NewReader(content))
	if err != nil || id != gittree.BlobID(gittree.SHA1, []byte(content)) {
		t.Fatalf("%s, %v", id, err)
	}
	var out bytes.Buffer
	if n, err := gittree.ReadLoose(dir, gittree.SHA1, id, &out); err != nil || out.String() != content || n != int64(len(content)) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	for _, size := range []int64{int64(len(content)) - 1, int64(len(content)) + 1} {
		if _, err := gittree.WriteLoose(dir, gittree.SHA1, size, strings.NewReader(content)); err == nil {
			t.Errorf("a reader that is not %d bytes long is accepted", size)
		}
	}
	other := gittree.BlobID(gittree.SHA1, []byte("other"))
	if err := os.MkdirAll(filepath.Join(dir, other[:2]), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, id[:2], id[2:]), filepath.Join(dir, other[:2], other[2:])); err != nil {
		t.Fatal(err)
	}
	if _, err := gittree.ReadLoose(dir, gittree.SHA1, other, &out); !errors.Is(err, gittree.ErrCorrupt) {
		t.Errorf("a wrong object is read: %v", err)
	}
	if _, err := gittree.ReadLoose(dir, gittree.SHA1, "../../etc/passwd", &out); err == nil {
		t.Error("an id that is a path is read")
	}
}

// Every name that git refuses for a file is DotGit, and no other.
func TestDotGitEqualsGit(t *testing.T) {
	t.Parallel()
	r := gittest.New(t, gittree.SHA1)
	blob := gittree.BlobID(gittree.SHA1, nil)
	for _, name := range []string{
		".git", ".GIT", ".gIt.", ".git ", ".git. .", ".git:x", ".git::$INDEX_ALLOCATION", `.git\x`, `a\.git`, "git~1", "GIT~1", "git~1.", `x\git~1 `,
		".g\u200cit", "\ufeff.git", ".git\u206f", ".git2", "git~2", "git", ".gitx", ".git-", ".git.x", "..git", ".g\u00adit", ".gitignore", "a.git", ".git\xff", `.git/`, ".g it",
	} {
		name = strings.TrimSuffix(name, "/")
		out := r.GitMayFail("update-index", "--add", "--cacheinfo", "100644,"+blob+","+name)
		if got := gittree.DotGit(name); got != !out {
			t.Errorf("%q: DotGit is %v, git accepts: %v", name, got, out)
		}
	}
}
