// SPDX-License-Identifier: Apache-2.0

package gitrepo_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/gitrepo"
	"cacert.org/emergency/pkg/gitrepo/gittest"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
)

// became are the entries of a list after contents were put into it.
func became(t *testing.T, algo gittree.Algo, before []gittree.Entry, contents []gitrepo.Content) []gittree.Entry {
	t.Helper()
	list := slices.DeleteFunc(slices.Clone(before), func(e gittree.Entry) bool {
		return slices.ContainsFunc(contents, func(c gitrepo.Content) bool { return c.Path == e.Path })
	})
	for _, c := range contents {
		if c.Mode != "" {
			list = append(list, gittree.Entry{Path: c.Path, Mode: c.Mode, ID: gittree.BlobID(algo, c.Data)})
		}
	}
	gittree.Sort(list)
	return list
}

// A session's files become a patch that applies to the base and gives exactly the tree after; what may not be registered is said.
func TestDifference(t *testing.T) {
	t.Parallel()
	for _, algo := range []gittree.Algo{gittree.SHA1, gittree.SHA256} {
		work := gittest.New(t, algo)
		work.Write("login.php", "<?php\nold();\n", 0o644)
		work.Write("run.sh", "#!/bin/sh\n", 0o644)
		work.Write("gone.txt", "bye\n", 0o644)
		work.Write("logo.bin", "\x00\x01old", 0o644)
		base := work.Commit("base")
		r, _ := open(t, work, patch.Options{})
		before, err := r.Manifest(t.Context(), base)
		if err != nil {
			t.Fatal(err)
		}
		for name, x := range map[string]struct {
			contents []gitrepo.Content
			problem  patch.Code
		}{
			"changed, new and gone": {[]gitrepo.Content{
				{Path: "login.php", Mode: "100644", Data: []byte("<?php\nnew();\r\n")}, {Path: "etc/neu ü.conf", Mode: "100644", Data: []byte("a=1\n")}, {Path: "gone.txt"},
			}, ""},
			"without a line end": {[]gitrepo.Content{{Path: "login.php", Mode: "100644", Data: []byte("<?php")}}, ""},
			"made executable":    {[]gitrepo.Content{{Path: "run.sh", Mode: "100755", Data: []byte("#!/bin/sh\n")}}, patch.CodeMode},
			"binary":             {[]gitrepo.Content{{Path: "logo.bin", Mode: "100644", Data: []byte("\x00\x01new")}}, patch.CodeBinary},
			"a link":             {[]gitrepo.Content{{Path: "link", Mode: "120000", Data: []byte("login.php")}}, patch.CodeSymlink},
		} {
			t.Run(string(algo)+" "+name, func(t *testing.T) {
				t.Parallel()
				after := became(t, algo, before, x.contents)
				want, err := gittree.ID(algo, slices.Clone(after))
				if err != nil {
					t.Fatal(err)
				}
				d, err := r.Difference(t.Context(), base, after, x.contents)
				if err != nil {
					t.Fatal(err)
				}
				if d.ResultTree != want || d.BaseCommit != base || len(d.Patch) == 0 {
					t.Errorf("%+v, want tree %s", d, want)
				}
				if x.problem != "" {
					wantPatchCode(t, name, d.Problem, x.problem)
				} else if d.Problem != nil {
					t.Errorf("%v", d.Problem)
				} else if got, err := r.ApplyPatch(t.Context(), base, d.Patch); err != nil || got.ResultTree != want {
					t.Errorf("applied it gives %s, %v", got.ResultTree, err)
				}
			})
		}
	}
}

// What does not make the tree of the list is refused, and nothing of what was read stays in the clone.
func TestDifferenceRefuses(t *testing.T) {
	t.Parallel()
	work := gittest.New(t, gittree.SHA1)
	work.Write("login.php", "old\n", 0o644)
	base := work.Commit("base")
	state := t.TempDir()
	remote := filepath.Join(t.TempDir(), "remote.git")
	work.Git("clone", "--quiet", "--bare", ".", remote)
	r, err := gitrepo.Open(t.Context(), remote, gitrepo.Options{StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := r.Manifest(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	secret := []gitrepo.Content{{Path: "login.php", Mode: "100644", Data: []byte("a password\n")}}
	after := became(t, gittree.SHA1, before, secret)
	_, err = r.Difference(t.Context(), base, after, []gitrepo.Content{{Path: "login.php", Mode: "100644", Data: []byte("another\n")}})
	wantCode(t, "other contents than the list says", err, gitrepo.CodeBaseMismatch)
	_, err = r.Difference(t.Context(), base, after, nil)
	wantCode(t, "no contents", err, gitrepo.CodeBaseMismatch)
	_, err = r.Difference(t.Context(), base, before, nil)
	wantCode(t, "nothing changed", err, gitrepo.CodeBaseMismatch)
	_, err = r.Difference(t.Context(), strings.Repeat("0", 40), after, secret)
	wantCode(t, "no such commit", err, gitrepo.CodeBaseUnknown)
	if d, err := r.Difference(t.Context(), base, after, secret); err != nil || !bytes.Contains(d.Patch, []byte("+a password")) {
		t.Errorf("%s, %v", d.Patch, err)
	}
	id := gittree.BlobID(gittree.SHA1, []byte("a password\n"))
	if _, err := os.Stat(filepath.Join(state, "clone.git", "objects", id[:2], id[2:])); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a session's file is kept in the clone: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(state, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestCommitWithTree(t *testing.T) {
	t.Parallel()
	work := gittest.New(t, gittree.SHA1)
	work.Write("a", "1\n", 0o644)
	first := work.Commit("first")
	work.Write("a", "2\n", 0o644)
	second := work.Commit("second")
	work.Write("a", "1\n", 0o644)
	third := work.Commit("back again")
	r, _ := open(t, work, patch.Options{})
	for commit, want := range map[string]string{first: third, second: second, third: third} {
		if got, err := r.CommitWithTree(t.Context(), work.Tree(commit)); err != nil || got.ID != want {
			t.Errorf("tree of %s: %s, %v; want %s", commit, got.ID, err, want)
		}
	}
	_, err := r.CommitWithTree(t.Context(), "sha1:"+strings.Repeat("0", 40))
	wantCode(t, "no such tree", err, gitrepo.CodeBaseUnknown)
	_, err = r.CommitWithTree(t.Context(), "nonsense")
	wantCode(t, "no tree", err, gitrepo.CodeArgument)
}
