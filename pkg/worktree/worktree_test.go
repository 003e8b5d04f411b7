// SPDX-License-Identifier: Apache-2.0

package worktree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"cacert.org/emergency/pkg/gitrepo"
	"cacert.org/emergency/pkg/gitrepo/gittest"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
)

// host is a folder with the files of a commit and with others that do not belong to the tree.
type host struct {
	dir, state string
	base, want string // tree ids
	patch      []byte
	changed    []string
}

// spec lists part of a host: newHost puts other files beside it, which must survive everything.
var spec = Spec{Include: []string{"www", "bin/*"}, Exclude: []string{"www/uploads", "**/*.log"}}

var unlisted = map[string]string{"www/uploads/photo": "p", "www/app.log": "l", "etc/secret": "s", "www/lib/.git/config": "g"}

func (h *host) open(t *testing.T, change func(*Spec)) *Tree {
	t.Helper()
	s := spec
	s.StateDir = h.state
	s.Patch.AllowModeChange = true
	if change != nil {
		change(&s)
	}
	tree, err := Open(h.dir, s)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// newHost lays out a base, and a patch with a change of every kind.
func newHost(t *testing.T, algo gittree.Algo) *host {
	t.Helper()
	work := gittest.New(t, algo)
	lines := strings.Repeat("line\r\n", 30)
	work.Write("www/index.php", lines+"end", 0o644)
	work.Write("www/lib/old name.php", lines, 0o755)
	work.Write("www/lib/deep/gone.php", "x\n", 0o644)
	work.Write("www/became-dir", "x\n", 0o644)
	work.Write("www/became-file/a/b.php", "b\n", 0o644)
	work.Write("www/became-file/c.php", "c\n", 0o644)
	work.Write("www/script", "#!/bin/sh\n", 0o644)
	work.Write("bin/tool", "#!/bin/sh\n", 0o755)
	if err := os.Symlink("index.php", filepath.Join(work.Dir, "www/link")); err != nil {
		t.Fatal(err)
	}
	base := work.Commit("base")
	h := &host{dir: t.TempDir(), state: t.TempDir(), base: work.Tree(base)}
	work.Git("--work-tree="+h.dir, "checkout", "--force", base, "--", ".")
	work.Git("reset", "--quiet", "--hard", base)

	work.Write("www/index.php", strings.Replace(lines, "line", "first", 1)+"end", 0o644)
	work.Git("mv", "www/lib/old name.php", "www/neu-ü.php")
	work.Git("rm", "-q", "-r", "www/lib/deep/gone.php", "www/became-dir", "www/became-file")
	work.Write("www/became-dir/x/y.php", "y\n", 0o644)
	work.Write("www/became-file", "f\n", 0o644)
	work.Write("www/new/folder/n.php", "n", 0o644)
	work.Write("bin/more", "#!/bin/sh\n", 0o755)
	work.Write("www/script", "#!/bin/sh\n", 0o755)
	head := work.Commit("head")
	h.want, h.patch = work.Tree(head), work.Diff(base, head)
	h.changed = strings.Split(strings.TrimRight(work.Git("diff", "--name-only", "--no-renames", "-z", base, head), "\x00"), "\x00")
	slices.Sort(h.changed)

	for path, content := range unlisted {
		writeFile(t, filepath.Join(h.dir, path), content, 0o600)
	}
	if err := syscall.Mkfifo(filepath.Join(h.dir, "www/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

func writeFile(t *testing.T, path, content string, perm os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), perm); err != nil {
		t.Fatal(err)
	}
}

// picture describes everything below a folder: names, modes, content, owners, and times of files.
func picture(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		uid, gid := owner(info)
		fmt.Fprintf(&b, "%s %v %d:%d", strings.TrimPrefix(path, dir), info.Mode(), uid, gid)
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %q", info.ModTime().UnixNano(), content)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func wantCode(t *testing.T, what string, err error, want Code) Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != want {
		t.Errorf("%s: got %v, want %s", what, err, want)
		return Error{}
	}
	return *e
}

func mustID(t *testing.T, tree *Tree, algo gittree.Algo) string {
	t.Helper()
	id, err := tree.ID(t.Context(), algo)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestDryRunApplyBackOut(t *testing.T) {
	t.Parallel()
	for _, algo := range []gittree.Algo{gittree.SHA1, gittree.SHA256} {
		h := newHost(t, algo)
		tree := h.open(t, nil)
		before := picture(t, h.dir)
		dry, err := tree.DryRun(t.Context(), h.patch, h.base, h.want)
		if err != nil || dry.PreTree != h.base || dry.PostTree != h.want || !slices.Equal(dry.ChangedPaths, h.changed) || len(dry.RejectedHunks) != 0 {
			t.Fatalf("%s: dry run %+v, %v", algo, dry, err)
		}
		if after := picture(t, h.dir); after != before {
			t.Errorf("%s: the dry run changed the host:\n%s", algo, after)
		}
		const job = "e20261124.1/17"
		got, err := tree.Apply(t.Context(), job, h.patch, h.base, h.want)
		if err != nil || got.PreTree != h.base || got.PostTree != h.want || !slices.Equal(got.ChangedPaths, h.changed) || got.Repeated {
			t.Fatalf("%s: apply %+v, %v", algo, got, err)
		}
		if id := mustID(t, tree, algo); id != h.want {
			t.Errorf("%s: tree is %s", algo, id)
		}
		for path, content := range unlisted {
			if got, err := os.ReadFile(filepath.Join(h.dir, path)); err != nil || string(got) != content {
				t.Errorf("%s: %s holds %q, %v", algo, path, got, err)
			}
		}
		if _, err := os.Stat(filepath.Join(h.dir, "www/lib/deep")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: an emptied folder is left: %v", algo, err)
		}
		again, err := tree.Apply(t.Context(), job, h.patch, h.base, h.want)
		if err != nil || !again.Repeated || again.PostTree != h.want {
			t.Errorf("%s: repeated %+v, %v", algo, again, err)
		}
		for range 2 {
			back, err := tree.BackOut(t.Context(), job)
			if err != nil || back.PostTree != h.base {
				t.Fatalf("%s: back out %+v, %v", algo, back, err)
			}
			if after := picture(t, h.dir); after != before {
				t.Errorf("%s: not the exact former tree:\n%s\nbefore:\n%s", algo, after, before)
			}
		}
		_, err = tree.Apply(t.Context(), job, h.patch, h.base, h.want)
		wantCode(t, "the same job after backing out", err, CodeJobReused)
		if _, err := tree.Apply(t.Context(), "e20261124.1/18", h.patch, h.base, h.want); err != nil {
			t.Errorf("%s: a new job after backing out: %v", algo, err)
		}
	}
}

// The same bytes must give the same tree in the repository and on the host.
func TestHostAndRepositoryAgree(t *testing.T) {
	t.Parallel()
	work := gittest.New(t, gittree.SHA1)
	work.Write(".gitattributes", "* text=auto eol=crlf whitespace=fix\n*.php ident filter=x\n", 0o644)
	work.Write("a.php", "$Id$\r\n1 \r\n2\n\t3", 0o644)
	work.Write("b", "1\n", 0o755)
	base := work.Commit("base")
	dir := t.TempDir()
	for _, path := range []string{".gitattributes", "a.php", "b"} {
		blob := work.Git("cat-file", "blob", base+":"+path) // as stored: git would convert at checkout
		writeFile(t, filepath.Join(dir, path), blob, 0o644)
	}
	if err := os.Chmod(filepath.Join(dir, "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	repo, err := gitrepo.Open(t.Context(), work.Dir, gitrepo.Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	tree, err := Open(dir, Spec{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for i, diff := range []string{
		"--- a/b\n+++ b/b\n@@ -1 +1,2 @@\n 1\n+trailing \t\r\n",
		"--- a/b\n+++ b/b\n@@ -1,2 +1 @@\n-1\n trailing \t\r\n--- /dev/null\n+++ b/new.php\n@@ -0,0 +1 @@\n+x\r\n\\ No newline at end of file\n",
		"diff --git a/b b/c/d\nsimilarity index 100%\nrename from b\nrename to c/d\ndiff --git a/.gitattributes b/.gitattributes\ndeleted file mode 100644\n--- a/.gitattributes\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-* text=auto eol=crlf whitespace=fix\n-*.php ident filter=x\n",
	} {
		want, err := repo.ApplyPatch(t.Context(), base, []byte(diff))
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		got, err := tree.Apply(t.Context(), fmt.Sprint(i), []byte(diff), want.BaseTree, want.ResultTree)
		if err != nil || !slices.Equal(got.ChangedPaths, want.Paths) {
			t.Fatalf("%d: %+v, %v", i, got, err)
		}
		person := gitrepo.Person{Name: "a", Email: "a@localhost"}
		base, err = repo.CommitTree(t.Context(), gitrepo.CommitSpec{BaseCommit: want.BaseCommit, ResultTree: want.ResultTree, Author: person, Committer: person, Message: "m", When: commitTime})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestModesAndOwnersArePreserved(t *testing.T) {
	t.Parallel()
	h := newHost(t, gittree.SHA1)
	perms := map[string]os.FileMode{"www/index.php": 0o640, "www/lib/old name.php": 0o750, "www/script": 0o604, "bin/tool": 0o711}
	for path, perm := range perms {
		if err := os.Chmod(filepath.Join(h.dir, path), perm); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(h.dir, "www"), 0o2770); err != nil {
		t.Fatal(err)
	}
	root := os.Getuid() == 0 // only root may give files away; else the owners are our own
	if root {
		for _, path := range []string{"www/index.php", "www"} {
			if err := os.Chown(filepath.Join(h.dir, path), 4711, 4712); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chmod(filepath.Join(h.dir, "www"), 0o770|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	if _, err := h.open(t, nil).Apply(t.Context(), "1", h.patch, h.base, h.want); err != nil {
		t.Fatal(err)
	}
	for path, perm := range map[string]os.FileMode{
		"www/index.php": 0o640, "www/neu-ü.php": 0o750, "www/script": 0o705, "bin/tool": 0o711, // kept, moved, made executable, untouched
		"www/new/folder/n.php": 0o644, "bin/more": 0o755,
		"www/new": 0o750 | os.ModeSetgid | os.ModeDir, "www/new/folder": 0o750 | os.ModeSetgid | os.ModeDir,
	} {
		info, err := os.Stat(filepath.Join(h.dir, path))
		if err != nil || info.Mode() != perm {
			t.Errorf("%s: mode %v, want %v, %v", path, info.Mode(), perm, err)
		}
		uid, gid := owner(info)
		if root && (path == "www/index.php" || strings.HasPrefix(path, "www/new")) && (uid != 4711 || gid != 4712) {
			t.Errorf("%s: owner %d:%d", path, uid, gid)
		}
	}
}

func TestApplyRefusesAndChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t, gittree.SHA1)
	other := "sha1:" + strings.Repeat("1", 40)
	edit := func(path, body string) []byte { return []byte("--- a/" + path + "\n+++ b/" + path + "\n" + body) }
	hunk := "@@ -1 +1 @@\n-x\n+y\n"
	for name, c := range map[string]struct {
		patch      []byte
		base, want string
		code       Code
	}{
		"another base":         {h.patch, other, h.want, CodeBase},
		"another result":       {h.patch, h.base, other, CodeResult},
		"formats mixed":        {h.patch, h.base, "sha256:" + strings.Repeat("1", 64), CodeConfig},
		"no tree id":           {h.patch, "main", h.want, CodeConfig},
		"unlisted path":        {edit("etc/secret", hunk), h.base, other, CodeUnlisted},
		"excluded path":        {edit("www/uploads/photo", hunk), h.base, other, CodeUnlisted},
		"excluded pattern":     {edit("www/lib/x.log", hunk), h.base, other, CodeUnlisted},
		"reserved name":        {edit("www/.epatch-tmp-1", hunk), h.base, other, CodeUnlisted},
		"hunk does not fit":    {edit("www/became-dir", "@@ -1 +1 @@\n-z\n+y\n"), h.base, other, CodeRejected},
		"file missing":         {edit("www/none", hunk), h.base, other, CodeRejected},
		"whitespace differs":   {edit("www/became-dir", "@@ -1 +1 @@\n-x \n+y\n"), h.base, other, CodeRejected},
		"through a symlink":    {[]byte("--- /dev/null\n+++ b/www/link/x\n@@ -0,0 +1 @@\n+y\n"), h.base, other, CodeRejected},
		"offset, other result": {edit("www/became-file/c.php", "@@ -3 +3 @@\n-c\n+d\n"), h.base, other, CodeResult},
	} {
		before := picture(t, h.dir)
		tree := h.open(t, nil)
		_, err := tree.Apply(t.Context(), "1", c.patch, c.base, c.want)
		wantCode(t, name, err, c.code)
		report, err := tree.DryRun(t.Context(), c.patch, c.base, c.want)
		if c.code == CodeRejected {
			if err != nil || len(report.RejectedHunks) == 0 || report.PostTree != "" {
				t.Errorf("%s: dry run %+v, %v", name, report, err)
			}
		} else {
			wantCode(t, "dry run, "+name, err, c.code)
		}
		if after := picture(t, h.dir); after != before {
			t.Errorf("%s: the host changed:\n%s", name, after)
		}
	}
	var p *patch.Error
	_, err := h.open(t, nil).Apply(t.Context(), "1", edit("www/link", "@@ -1 +1 @@\n-index.php\n\\ No newline at end of file\n+/etc/shadow\n\\ No newline at end of file\n"), h.base, other)
	if !errors.As(err, &p) || p.Code != patch.CodeSymlink {
		t.Errorf("a symbolic link by stealth: %v", err)
	}
	_, err = h.open(t, nil).Apply(t.Context(), "1", bytes.Repeat([]byte("+"), 100<<20), h.base, h.want)
	if !errors.As(err, &p) || p.Code != patch.CodeTooLarge {
		t.Errorf("100 MiB: %v", err)
	}
	if jobs, err := os.ReadDir(filepath.Join(h.state, "jobs")); err != nil || len(jobs) != 0 {
		t.Errorf("a refused job left %v, %v", jobs, err)
	}
}

func TestOneFlippedByteIsRefusedAndNamed(t *testing.T) {
	t.Parallel()
	h := newHost(t, gittree.SHA1)
	tree := h.open(t, nil)
	if _, err := tree.DryRun(t.Context(), h.patch, h.base, h.want); err != nil { // the base is remembered
		t.Fatal(err)
	}
	path := filepath.Join(h.dir, "bin/tool") // not touched by the patch
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[3] ^= 1
	writeFile(t, path, string(content), 0o755)
	_, err = tree.Apply(t.Context(), "1", h.patch, h.base, h.want)
	if e := wantCode(t, "flipped byte", err, CodeBase); !slices.Equal(e.Paths, []string{"bin/tool"}) || e.Got == "" || e.Want != h.base {
		t.Errorf("the refusal says %+v", e)
	}
}

func TestSomethingInTheWay(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{
		"unlisted file in a folder that becomes a file": "www/became-file/a/app.log",
		"socket where a file comes":                     "bin/more",
		"socket where a folder comes":                   "www/new",
	} {
		h := newHost(t, gittree.SHA1)
		full := filepath.Join(h.dir, path)
		if strings.HasSuffix(path, ".log") {
			writeFile(t, full, "l", 0o600)
		} else if err := syscall.Mkfifo(full, 0o600); err != nil {
			t.Fatal(err)
		}
		before := picture(t, h.dir)
		_, err := h.open(t, nil).Apply(t.Context(), "1", h.patch, h.base, h.want)
		if e := wantCode(t, name, err, CodeOccupied); !slices.Equal(e.Paths, []string{path}) {
			t.Errorf("%s: names %v", name, e.Paths)
		}
		if after := picture(t, h.dir); after != before {
			t.Errorf("%s: the host changed", name)
		}
	}
}

// A folder that is replaced by a symbolic link between looking and writing must not lead outside.
func TestSymlinkSwapLeadsNowhere(t *testing.T) {
	t.Parallel()
	h := newHost(t, gittree.SHA1)
	outside := t.TempDir()
	writeFile(t, filepath.Join(outside, "index.php"), "outside", 0o644)
	swap := func(step string) {
		if step == "journal:prepared" {
			err := errors.Join(os.Rename(filepath.Join(h.dir, "www"), filepath.Join(h.dir, "moved")), os.Symlink(outside, filepath.Join(h.dir, "www")))
			if err != nil {
				t.Error(err)
			}
		}
	}
	_, err := h.open(t, func(s *Spec) { s.Failpoint = swap }).Apply(t.Context(), "1", h.patch, h.base, h.want)
	wantCode(t, "swap", err, CodeUnproven)
	if got := picture(t, outside); !strings.Contains(got, `"outside"`) || strings.Count(got, "\n") != 2 {
		t.Errorf("a write left the tree:\n%s", got)
	}
	// The cause is removed: nothing was lost.
	if err := errors.Join(os.Remove(filepath.Join(h.dir, "www")), os.Rename(filepath.Join(h.dir, "moved"), filepath.Join(h.dir, "www"))); err != nil {
		t.Fatal(err)
	}
	out, err := h.open(t, nil).Recover(t.Context())
	if err != nil || len(out) != 1 || out[0].Landed != LandedOld || out[0].Tree != h.base {
		t.Errorf("%+v, %v", out, err)
	}
}

// Somebody else writes while the job runs.
func TestForeignChangeDuringApply(t *testing.T) {
	t.Parallel()
	foreign := func(h *host, at, path string) func(*Spec) {
		return func(s *Spec) {
			s.Failpoint = func(step string) {
				if step == at {
					writeFile(t, filepath.Join(h.dir, path), "by somebody else", 0o644)
				}
			}
		}
	}
	h := newHost(t, gittree.SHA1)
	before := picture(t, h.dir)
	got, err := h.open(t, foreign(h, "new:placed:0", "www/index.php")).Apply(t.Context(), "1", h.patch, h.base, h.want)
	if err == nil || got.PostTree != h.base || picture(t, h.dir) != before {
		t.Errorf("touched file: %+v, %v\n%s", got, err, picture(t, h.dir))
	}
	kept, err := filepath.Glob(filepath.Join(h.state, "jobs/1/foreign/*"))
	if err != nil || len(kept) != 1 || !slices.Equal(got.Kept, []string{"www/index.php"}) {
		t.Fatalf("kept %v, report %v, %v", kept, got.Kept, err)
	}
	if content, err := os.ReadFile(kept[0]); err != nil || string(content) != "by somebody else" {
		t.Errorf("kept %q, %v", content, err)
	}

	h = newHost(t, gittree.SHA1)
	got, err = h.open(t, foreign(h, "new:placed:0", "bin/tool")).Apply(t.Context(), "1", h.patch, h.base, h.want)
	e := wantCode(t, "untouched file", err, CodeUnproven)
	if !slices.Equal(e.Paths, []string{"bin/tool"}) || got.PostTree == h.base || got.PostTree == h.want {
		t.Errorf("untouched file: %+v, %+v", got, e)
	}
	tree := h.open(t, nil)
	_, err = tree.BackOut(t.Context(), "1")
	wantCode(t, "back out of an unknown tree", err, CodeUnknownTree)
	writeFile(t, filepath.Join(h.dir, "bin/tool"), "#!/bin/sh\n", 0o755)
	if got, err := tree.BackOut(t.Context(), "1"); err != nil || got.PostTree != h.base {
		t.Errorf("after mending: %+v, %v", got, err)
	}
}

// The copies in the job folder vanish or rot after the journal was written.
func TestFailingWriteRestores(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(copy string) error
		want  Code
	}{
		"missing": {os.Remove, CodeApply},
		"damaged": {func(copy string) error { return os.WriteFile(copy, []byte("evil"), 0o600) }, CodeState},
	} {
		for _, at := range []string{"journal:prepared", "new:temp:3"} {
			h := newHost(t, gittree.SHA1)
			before := picture(t, h.dir)
			spoiled := 0
			tree := h.open(t, func(s *Spec) {
				s.Failpoint = func(step string) {
					if step == at {
						spoiled++
						if err := c.spoil(filepath.Join(h.state, "jobs/1/new/6")); err != nil {
							t.Error(err)
						}
					}
				}
			})
			got, err := tree.Apply(t.Context(), "1", h.patch, h.base, h.want)
			wantCode(t, name+" at "+at, err, c.want)
			if spoiled != 1 || got.PostTree != h.base || picture(t, h.dir) != before {
				t.Errorf("%s at %s: spoiled %d times, %+v\n%s", name, at, spoiled, got, picture(t, h.dir))
			}
		}
	}
}

func TestBackOutRefusesAnUnknownTree(t *testing.T) {
	t.Parallel()
	h := newHost(t, gittree.SHA1)
	tree := h.open(t, nil)
	_, err := tree.BackOut(t.Context(), "1")
	wantCode(t, "unknown job", err, CodeJobUnknown)
	if _, err := tree.Apply(t.Context(), "1", h.patch, h.base, h.want); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(h.dir, "www/index.php"), "a later patch", 0o644)
	before := picture(t, h.dir)
	_, err = tree.BackOut(t.Context(), "1")
	if e := wantCode(t, "changed since", err, CodeUnknownTree); !slices.Equal(e.Paths, []string{"www/index.php"}) {
		t.Errorf("names %v", e.Paths)
	}
	_, err = tree.Apply(t.Context(), "1", h.patch, h.base, h.want)
	wantCode(t, "repeated on a changed tree", err, CodeResult)
	_, err = tree.Apply(t.Context(), "1", []byte("--- a/www/script\n+++ b/www/script\n@@ -1 +1 @@\n-#!/bin/sh\n+x\n"), h.base, h.want)
	wantCode(t, "job id for another patch", err, CodeJobReused)
	if after := picture(t, h.dir); after != before {
		t.Error("a refused operation changed the host")
	}
}

func TestDamagedStateIsNotActedUpon(t *testing.T) {
	t.Parallel()
	flip := func(path string) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)/2] ^= 1
		writeFile(t, path, string(content), 0o600)
	}
	h := newHost(t, gittree.SHA1)
	tree := h.open(t, nil)
	if _, err := tree.Apply(t.Context(), "1", h.patch, h.base, h.want); err != nil {
		t.Fatal(err)
	}
	backups, err := filepath.Glob(filepath.Join(h.state, "jobs/1/old/*"))
	if err != nil || len(backups) == 0 {
		t.Fatal(err)
	}
	flip(backups[0])
	before := mustID(t, tree, gittree.SHA1)
	_, err = tree.BackOut(t.Context(), "1")
	wantCode(t, "damaged backup", err, CodeUnproven)
	if id := mustID(t, tree, gittree.SHA1); id != before {
		t.Errorf("a damaged backup reached the tree: %s", id)
	}
	flip(backups[0])
	if got, err := tree.BackOut(t.Context(), "1"); err != nil || got.PostTree != h.base {
		t.Errorf("with the backup mended: %+v, %v", got, err)
	}
	flip(filepath.Join(h.state, "jobs/1/journal.json"))
	_, err = tree.BackOut(t.Context(), "1")
	wantCode(t, "damaged journal", err, CodeState)
	_, err = tree.Recover(t.Context())
	wantCode(t, "recover with a damaged journal", err, CodeState)
}

func TestLockKeepsOthersOut(t *testing.T) {
	t.Parallel()
	h := newHost(t, gittree.SHA1)
	other := h.open(t, nil)
	var during []error
	tree := h.open(t, func(s *Spec) {
		s.Failpoint = func(step string) {
			if step != "staged" {
				return
			}
			_, err := other.Apply(context.Background(), "2", h.patch, h.base, h.want)
			during = append(during, err)
			_, err = other.ID(context.Background(), gittree.SHA1)
			during = append(during, err)
			_, err = other.Recover(context.Background())
			during = append(during, err)
		}
	})
	if _, err := tree.Apply(t.Context(), "1", h.patch, h.base, h.want); err != nil {
		t.Fatal(err)
	}
	if len(during) != 3 {
		t.Fatalf("%d attempts", len(during))
	}
	for _, err := range during {
		wantCode(t, "while another applies", err, CodeBusy)
	}
}

func TestCancelBeforeTheJournalChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t, gittree.SHA1)
	before := picture(t, h.dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.open(t, nil).Apply(ctx, "1", h.patch, h.base, h.want); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if picture(t, h.dir) != before {
		t.Error("the host changed")
	}
	// Afterwards it is carried through.
	ctx, cancel = context.WithCancel(t.Context())
	tree := h.open(t, func(s *Spec) {
		s.Failpoint = func(step string) {
			if step == "journal:prepared" {
				cancel()
			}
		}
	})
	if got, err := tree.Apply(ctx, "1", h.patch, h.base, h.want); err != nil || got.PostTree != h.want {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, s := range map[string]Spec{
		"state inside":   {StateDir: filepath.Join(dir, "state")},
		"state is tree":  {StateDir: dir},
		"absolute":       {Include: []string{"/www"}},
		"dots":           {Exclude: []string{"../x"}},
		"bad pattern":    {Include: []string{"[a"}},
		"too many stars": {Include: []string{"**/a/**/b/**/c/**"}},
	} {
		_, err := Open(dir, s)
		wantCode(t, name, err, CodeConfig)
	}
	if _, err := Open(filepath.Join(dir, "none"), Spec{}); err == nil {
		t.Error("a missing root is accepted")
	}
	tree, err := Open(dir, Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if id := mustID(t, tree, gittree.SHA1); id != "sha1:4b825dc642cb6eb9a060e54bf8d69288fbee4904" {
		t.Errorf("without a state folder the id is %s", id)
	}
	_, err = tree.Recover(t.Context())
	wantCode(t, "recover without a state folder", err, CodeConfig)
	_, err = tree.ID(t.Context(), "md5")
	wantCode(t, "unknown format", err, CodeConfig)
}

func TestRules(t *testing.T) {
	t.Parallel()
	r, err := parseRules([]string{"www", "*.ini", "lib/**/*.php", "bin/*"}, []string{"www/uploads/", "**/cache", "lib/old*"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"www/a": true, "www/x/y/z": true, "www": true, "wwww/a": false, "a.ini": true, "x/a.ini": false, "lib/a.php": true, "lib/x/y/a.php": true, "lib/a.txt": false,
		"bin/t": true, "bin/x/y": true, "www/uploads/p": false, "www/uploads2": true, "www/x/cache/f": false, "lib/older/a.php": false, "etc/passwd": false,
		"www/.git/config": false, "www/.GIT": false, "www/.gitignore": true,
	} {
		if got := r.listed(path); got != want {
			t.Errorf("listed(%q) is %v", path, got)
		}
		for dir := parent(path); want && dir != ""; dir = parent(dir) {
			if !r.enter(dir) {
				t.Errorf("%q is listed, but %q is not entered", path, dir)
			}
		}
	}
	if r.enter("etc") || r.enter("www/uploads") {
		t.Error("a folder without listed files is entered")
	}
}
