// SPDX-License-Identifier: Apache-2.0

package gitrepo_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/gitrepo"
	"cacert.org/emergency/pkg/gitrepo/gittest"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
)

var when = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

// open makes a bare remote of the work repository and a Repo on it.
func open(t *testing.T, work *gittest.Repo, o patch.Options) (*gitrepo.Repo, string) {
	t.Helper()
	remote := filepath.Join(t.TempDir(), "remote.git")
	work.Git("clone", "--quiet", "--bare", ".", remote)
	r, err := gitrepo.Open(t.Context(), remote, gitrepo.Options{StateDir: t.TempDir(), Patch: o})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r, remote
}

func wantCode(t *testing.T, what string, err error, want gitrepo.Code) {
	t.Helper()
	var e *gitrepo.Error
	if !errors.As(err, &e) || e.Code != want {
		t.Errorf("%s: got %v, want %s", what, err, want)
	}
}

func wantPatchCode(t *testing.T, what string, err error, want patch.Code) {
	t.Helper()
	var e *patch.Error
	if !errors.As(err, &e) || e.Code != want {
		t.Errorf("%s: got %v, want %s", what, err, want)
	}
}

// story is a repository with a change of every kind, and its two commits.
func story(t *testing.T, algo gittree.Algo) (work *gittest.Repo, base, head string) {
	t.Helper()
	work = gittest.New(t, algo)
	lines := strings.Repeat("line\r\n", 30)
	work.Write("www/index.php", lines+"end", 0o644)
	work.Write("www/old name.php", lines, 0o755)
	work.Write("www/gone.php", "x\n", 0o644)
	work.Write("became-dir", "x\n", 0o644)
	work.Write(".gitattributes", "* text eol=lf\n*.php ident\n", 0o644)
	base = work.Commit("base")
	work.Write("www/index.php", lines+"more\r\nend", 0o644)
	work.Git("mv", "www/old name.php", "www/neu-ü.php")
	work.Git("rm", "-q", "www/gone.php", "became-dir")
	work.Write("became-dir/a.php", "a\n", 0o644)
	work.Write("bin/tool", "#!/bin/sh\n", 0o755)
	work.Git("-c", "core.autocrlf=false", "add", "-A")
	head = work.Commit("head")
	return work, base, head
}

func TestApplyPatchComputesGitsTree(t *testing.T) {
	t.Parallel()
	for _, algo := range []gittree.Algo{gittree.SHA1, gittree.SHA256} {
		work, base, head := story(t, algo)
		r, _ := open(t, work, patch.Options{})
		for name, diff := range map[string][]byte{
			"diff":         work.Diff(base, head),
			"format-patch": []byte(work.Git("format-patch", "--stdout", base)),
			"no renames":   []byte(work.Git("diff", "--no-renames", base, head)),
		} {
			got, err := r.ApplyPatch(t.Context(), base, diff)
			if err != nil {
				t.Errorf("%s %s: %v", algo, name, err)
				continue
			}
			if got.BaseTree != work.Tree(base) || got.ResultTree != work.Tree(head) || got.BaseCommit != base {
				t.Errorf("%s %s: %+v", algo, name, got)
			}
			want := []string{"became-dir", "became-dir/a.php", "bin/tool", "www/gone.php", "www/index.php", "www/neu-ü.php", "www/old name.php"}
			if !slices.Equal(got.Paths, want) {
				t.Errorf("%s %s: paths %q", algo, name, got.Paths)
			}
		}
	}
}

func TestApplyPatchRefuses(t *testing.T) {
	t.Parallel()
	work := gittest.New(t, gittree.SHA1)
	work.Write("f", "1\n2\n3\n4\n5\n", 0o644)
	work.Write("g", "same\nsame\nx\nsame\nsame\nx\nsame\n", 0o644)
	if err := os.Symlink("f", filepath.Join(work.Dir, "link")); err != nil {
		t.Fatal(err)
	}
	base := work.Commit("base")
	r, _ := open(t, work, patch.Options{})
	edit := func(path, at, lines string) []byte {
		return []byte(fmt.Sprintf("--- a/%[1]s\n+++ b/%[1]s\n@@ -%[2]s +%[2]s @@\n%[3]s", path, at, lines))
	}
	apply := func(b []byte) error { _, err := r.ApplyPatch(t.Context(), base, b); return err }
	wantCode(t, "other content", apply(edit("f", "1,3", " 1\n-two\n+2\n 3\n")), gitrepo.CodeBaseMismatch)
	wantCode(t, "an offset", apply(edit("f", "3,3", " 2\n-3\n+drei\n 4\n")), gitrepo.CodeBaseMismatch)
	wantCode(t, "whitespace", apply(edit("f", "1,3", " 1 \n-2\n+zwei\n 3\n")), gitrepo.CodeBaseMismatch)
	wantCode(t, "missing file", apply(edit("none", "1", "-a\n+b\n")), gitrepo.CodeBaseMismatch)
	wantCode(t, "creates what exists", apply([]byte("--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+b\n")), gitrepo.CodeBaseMismatch)
	wantCode(t, "beyond a symbolic link", apply([]byte("--- /dev/null\n+++ b/link/f\n@@ -0,0 +1 @@\n+b\n")), gitrepo.CodeBaseMismatch)
	// A diff without modes can change the target of a symbolic link; only the trees show it.
	wantPatchCode(t, "symbolic link by stealth", apply(edit("link", "1", "-f\n\\ No newline at end of file\n+/etc/passwd\n\\ No newline at end of file\n")), patch.CodeSymlink)
	wantPatchCode(t, "declared symbolic link", apply([]byte("diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+x\n")), patch.CodeSymlink)
	wantPatchCode(t, "path", apply(edit("../f", "1", "-a\n+b\n")), patch.CodePath)
	_, err := r.ApplyPatch(t.Context(), strings.Repeat("0", 40), edit("f", "1,3", " 1\n-2\n+two\n 3\n"))
	wantCode(t, "unknown base", err, gitrepo.CodeBaseUnknown)
	var e *gitrepo.Error
	if err := apply(edit("f", "1,3", " 1\n-two\n+2\n 3\n")); !errors.As(err, &e) || !slices.Equal(e.Paths, []string{"f"}) {
		t.Errorf("the refusal does not name the file: %+v", e)
	}
}

func TestModeChangeAndBinaryNeedPermission(t *testing.T) {
	t.Parallel()
	work := gittest.New(t, gittree.SHA1)
	work.Write("tool", "x\n", 0o644)
	work.Write("logo", "\x00"+strings.Repeat("abcdefgh", 300), 0o644)
	base := work.Commit("base")
	work.Write("tool", "x\n", 0o755)
	mode := work.Commit("mode")
	work.Write("logo", "\x00\x01"+strings.Repeat("abcdefgh", 300), 0o644)
	binary := work.Commit("binary")
	strict, _ := open(t, work, patch.Options{})
	lax, _ := open(t, work, patch.Options{AllowModeChange: true, AllowBinary: true})
	for _, c := range []struct {
		from, to string
		want     patch.Code
	}{{base, mode, patch.CodeMode}, {mode, binary, patch.CodeBinary}} {
		_, err := strict.ApplyPatch(t.Context(), c.from, work.Diff(c.from, c.to))
		wantPatchCode(t, "undeclared", err, c.want)
		got, err := lax.ApplyPatch(t.Context(), c.from, work.Diff(c.from, c.to))
		if err != nil || got.ResultTree != work.Tree(c.to) {
			t.Errorf("allowed: %+v, %v", got, err)
		}
	}
}

func TestApplyBundle(t *testing.T) {
	t.Parallel()
	for _, algo := range []gittree.Algo{gittree.SHA1, gittree.SHA256} {
		work, base, head := story(t, algo)
		r, _ := open(t, work, patch.Options{})
		work.Write("www/index.php", "all new\n", 0o644)
		next := work.Commit("two commits in one bundle")
		file := filepath.Join(t.TempDir(), "b")
		bundle := func(args ...string) []byte {
			work.Git(append([]string{"bundle", "create", "--quiet", file}, args...)...)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		good := bundle("main", "^"+base)
		got, err := r.ApplyBundle(t.Context(), base, good)
		if err != nil || got.ResultTree != work.Tree(next) || got.BaseTree != work.Tree(base) {
			t.Fatalf("%s: %+v, %v", algo, got, err)
		}
		again, err := r.ApplyPatch(t.Context(), base, got.Diff)
		if err != nil || again.ResultTree != got.ResultTree {
			t.Errorf("%s: the equivalent diff gives %+v, %v", algo, again, err)
		}
		if _, err := r.ResolveCommit(t.Context(), next); err == nil {
			t.Errorf("%s: an object of the bundle entered the clone", algo)
		}

		work.Git("branch", "other", head)
		refuses := func(what string, b []byte) {
			t.Helper()
			_, err := r.ApplyBundle(t.Context(), base, b)
			wantCode(t, what, err, gitrepo.CodeBundle)
		}
		refuses("two heads", bundle("main", "other", "^"+base))
		work.Git("checkout", "--quiet", "--orphan", "island")
		work.Commit("unrelated")
		refuses("unrelated history", bundle("island"))
		work.Git("checkout", "--quiet", "main")
		work.Write("f", "more\n", 0o644)
		work.Commit("on top of what the clone lacks")
		refuses("missing prerequisite", bundle("main", "^"+next))
		refuses("cut off", good[:len(good)-30])
		flipped := slices.Clone(good)
		flipped[len(flipped)-40] ^= 1
		refuses("one flipped bit", flipped)
		refuses("a diff", work.Diff(base, head))
	}
}

func TestApplyBundleHidesNothing(t *testing.T) {
	t.Parallel()
	work := gittest.New(t, gittree.SHA1)
	work.Write("f", "1\n", 0o644)
	base := work.Commit("base")
	r, _ := open(t, work, patch.Options{})
	if err := os.Symlink("/etc", filepath.Join(work.Dir, "link")); err != nil {
		t.Fatal(err)
	}
	work.Commit("link")
	file := filepath.Join(t.TempDir(), "b")
	work.Git("bundle", "create", "--quiet", file, "main", "^"+base)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.ApplyBundle(t.Context(), base, b)
	wantPatchCode(t, "symbolic link in a bundle", err, patch.CodeSymlink)
	small, err := gitrepo.Open(t.Context(), work.Dir, gitrepo.Options{StateDir: t.TempDir(), MaxBundle: 10})
	if err != nil {
		t.Fatal(err)
	}
	_, err = small.ApplyBundle(t.Context(), base, b)
	wantPatchCode(t, "large bundle", err, patch.CodeTooLarge)
}

func spec(base, tree string) gitrepo.CommitSpec {
	p := gitrepo.Person{Name: "Ässessor", Email: "assessor@localhost"}
	return gitrepo.CommitSpec{BaseCommit: base, ResultTree: tree, Author: p, Committer: p, Message: "bug 1234: fix\n\nwhy", When: when}
}

func TestCommitPushReadBack(t *testing.T) {
	t.Parallel()
	work, base, head := story(t, gittree.SHA1)
	work.Git("reset", "--quiet", "--hard", base)
	r, remote := open(t, work, patch.Options{})
	result, err := r.ApplyPatch(t.Context(), "main", work.Diff(base, head))
	if err != nil {
		t.Fatal(err)
	}
	id, err := r.CommitTree(t.Context(), spec(base, result.ResultTree))
	if err != nil {
		t.Fatal(err)
	}
	other, _ := open(t, work, patch.Options{})
	if _, err := other.ApplyPatch(t.Context(), base, work.Diff(base, head)); err != nil {
		t.Fatal(err)
	}
	if again, err := other.CommitTree(t.Context(), spec(base, result.ResultTree)); err != nil || again != id {
		t.Errorf("the same commit made elsewhere is %s, %v", again, err)
	}
	c, err := r.ResolveCommit(t.Context(), id)
	if err != nil || c.Tree != result.ResultTree || !slices.Equal(c.Parents, []string{base}) || !c.CommittedAt.Equal(when) || c.Author.Name != "Ässessor" {
		t.Errorf("commit %+v, %v", c, err)
	}
	const ref = "refs/heads/main"
	for range 2 { // repeated: success and nothing new
		if err := r.Push(t.Context(), id, ref, base); err != nil {
			t.Fatal(err)
		}
	}
	if now, err := r.RemoteRef(t.Context(), ref); err != nil || now != id {
		t.Errorf("remote has %s, %v", now, err)
	}
	if err := r.Push(t.Context(), id, "refs/heads/emergency/e20261124.1", ""); err != nil {
		t.Errorf("new branch: %v", err)
	}
	if now, err := r.RemoteRef(t.Context(), "refs/heads/none"); err != nil || now != "" {
		t.Errorf("missing branch: %q, %v", now, err)
	}
	fresh, err := gitrepo.Open(t.Context(), remote, gitrepo.Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if tree, err := fresh.TreeOf(t.Context(), "main"); err != nil || tree != result.ResultTree {
		t.Errorf("after fetch: %s, %v", tree, err)
	}
}

func TestPushRefuses(t *testing.T) {
	t.Parallel()
	work := gittest.New(t, gittree.SHA1)
	work.Write("f", "1\n", 0o644)
	base := work.Commit("base")
	work.Write("f", "2\n", 0o644)
	second := work.Commit("second")
	work.Git("checkout", "--quiet", "-b", "side", base)
	work.Write("f", "3\n", 0o644)
	side := work.Commit("side")
	r, remote := open(t, work, patch.Options{})
	push := func(commit, ref, old string) error { return r.Push(t.Context(), commit, ref, old) }
	const ref = "refs/heads/main"
	wantCode(t, "stale expectation", push(side, ref, base), gitrepo.CodeNotFastForward)
	wantCode(t, "would lose a commit", push(side, ref, second), gitrepo.CodeNotFastForward)
	wantCode(t, "backwards", push(base, ref, second), gitrepo.CodeNotFastForward)
	wantCode(t, "exists", push(side, ref, ""), gitrepo.CodeNotFastForward)
	wantCode(t, "unknown commit", push(strings.Repeat("1", 40), ref, second), gitrepo.CodeBaseUnknown)
	for _, bad := range []string{"main", "refs/heads/", "refs/heads/../x", "refs/heads/a..b", "refs/heads/x.lock", "refs/heads/-x", "refs/notes/x", "refs/tags/v1", "refs/heads/a b", "--force"} {
		wantCode(t, bad, push(side, bad, ""), gitrepo.CodeRef)
	}
	if now, _ := r.RemoteRef(t.Context(), ref); now != second {
		t.Errorf("a refused push moved the branch to %s", now)
	}
	// The repository's own policy.
	hook := filepath.Join(remote, "hooks", "pre-receive")
	if err := os.MkdirAll(filepath.Dir(hook), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hook, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "policy", push(side, "refs/heads/new", ""), gitrepo.CodeRef)
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	work := gittest.New(t, gittree.SHA1)
	base := work.Commit("base")
	r, remote := open(t, work, patch.Options{})
	if err := os.Rename(remote, remote+".away"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "fetch", r.Fetch(t.Context()), gitrepo.CodeUnavailable)
	wantCode(t, "push", r.Push(t.Context(), base, "refs/heads/x", ""), gitrepo.CodeUnavailable)
	_, err := r.RemoteRef(t.Context(), "refs/heads/main")
	wantCode(t, "ref", err, gitrepo.CodeUnavailable)
	if _, err := r.ResolveCommit(t.Context(), "main"); err != nil {
		t.Errorf("what was fetched is not at hand: %v", err)
	}
	late, err := gitrepo.Open(t.Context(), remote, gitrepo.Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatalf("open needs the remote: %v", err)
	}
	_, err = late.ResolveCommit(t.Context(), "main")
	wantCode(t, "never fetched", err, gitrepo.CodeBaseUnknown)
	if err := os.Rename(remote+".away", remote); err != nil {
		t.Fatal(err)
	}
	if err := late.Fetch(t.Context()); err != nil {
		t.Errorf("the remote is back: %v", err)
	}
}

func TestOpenRefusesOddAddresses(t *testing.T) {
	t.Parallel()
	for _, remote := range []string{"", "-x", "ext::sh -c id", "http://localhost/x", "git://localhost/x", "https:///x", "a\nb"} {
		_, err := gitrepo.Open(t.Context(), remote, gitrepo.Options{StateDir: t.TempDir()})
		wantCode(t, remote, err, gitrepo.CodeArgument)
	}
	for _, remote := range []string{"https://localhost/x.git", "ssh://git@localhost/x", "git@localhost:x.git", "/srv/x.git", "x.git"} {
		if _, err := gitrepo.Open(t.Context(), remote, gitrepo.Options{StateDir: t.TempDir()}); err != nil {
			t.Errorf("%s: %v", remote, err)
		}
	}
	_, err := gitrepo.Open(t.Context(), "/x", gitrepo.Options{})
	wantCode(t, "no state folder", err, gitrepo.CodeArgument)
}

func TestResolveCommitRefusesExpressions(t *testing.T) {
	t.Parallel()
	work := gittest.New(t, gittree.SHA1)
	base := work.Commit("base")
	r, _ := open(t, work, patch.Options{})
	for _, rev := range []string{"", "-h", "HEAD@{0}", ":/base", "main~1", "main..main", "a b", "main^{tree}", "$(id)"} {
		_, err := r.ResolveCommit(t.Context(), rev)
		wantCode(t, rev, err, gitrepo.CodeArgument)
	}
	for _, rev := range []string{base, base[:10], "main", "refs/heads/main"} {
		if c, err := r.ResolveCommit(t.Context(), rev); err != nil || c.ID != base {
			t.Errorf("%s: %+v, %v", rev, c, err)
		}
	}
	tree := strings.TrimPrefix(work.Tree(base), "sha1:")
	_, err := r.ResolveCommit(t.Context(), tree)
	wantCode(t, "a tree", err, gitrepo.CodeBaseUnknown)
}

func TestEmptyRepositoriesKeepTheirFormat(t *testing.T) {
	t.Parallel()
	work := gittest.New(t, gittree.SHA256)
	r, err := gitrepo.Open(t.Context(), work.Dir, gitrepo.Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	base := work.Commit("first")
	if err := r.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if tree, err := r.TreeOf(t.Context(), base); err != nil || tree != work.Tree(base) {
		t.Errorf("%s, %v", tree, err)
	}
}

func TestManifestAndDiffTrees(t *testing.T) {
	t.Parallel()
	work, base, head := story(t, gittree.SHA1)
	r, _ := open(t, work, patch.Options{})
	entries, err := r.Manifest(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := gittree.ID(gittree.SHA1, entries); err != nil || id != work.Tree(base) {
		t.Errorf("manifest gives %s, %v", id, err)
	}
	changes, err := r.DiffTrees(t.Context(), base, work.Tree(head))
	if err != nil || len(changes) != 7 {
		t.Errorf("%d changes, %v", len(changes), err)
	}
	_, err = r.Manifest(t.Context(), "sha1:"+strings.Repeat("0", 40))
	wantCode(t, "unknown tree", err, gitrepo.CodeBaseUnknown)
	_, err = r.Manifest(t.Context(), "sha1:zz")
	wantCode(t, "malformed tree", err, gitrepo.CodeArgument)
}

func TestCommitTreeRefuses(t *testing.T) {
	t.Parallel()
	work := gittest.New(t, gittree.SHA1)
	base := work.Commit("base")
	r, _ := open(t, work, patch.Options{})
	tree := work.Tree(base)
	for name, change := range map[string]func(*gitrepo.CommitSpec){
		"no name":    func(s *gitrepo.CommitSpec) { s.Author.Name = "" },
		"line break": func(s *gitrepo.CommitSpec) { s.Committer.Name = "a\ncommitter x" },
		"brackets":   func(s *gitrepo.CommitSpec) { s.Author.Email = "a> <b" },
		"no message": func(s *gitrepo.CommitSpec) { s.Message = " \n" },
		"no time":    func(s *gitrepo.CommitSpec) { s.When = time.Time{} },
		"bad tree":   func(s *gitrepo.CommitSpec) { s.ResultTree = "main:x" },
	} {
		s := spec(base, tree)
		change(&s)
		_, err := r.CommitTree(t.Context(), s)
		wantCode(t, name, err, gitrepo.CodeArgument)
	}
	_, err := r.CommitTree(t.Context(), spec(base, "sha1:"+strings.Repeat("0", 40)))
	wantCode(t, "unknown tree", err, gitrepo.CodeBaseUnknown)
}
