// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/patch"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The small program of the repository, and files on the hosts.
const (
	// Program is the file with the hole, Vulnerable what it holds and Repaired what it should.
	Program    = "www/cert-info"
	Vulnerable = "#!/bin/sh\n# cert-info NAME: tells who a certificate is for.\nname=$1\neval \"echo Certificate for $name\"\n"
	Repaired   = "#!/bin/sh\n# cert-info NAME: tells who a certificate is for.\nname=$1\nprintf 'Certificate for %s\\n' \"$name\"\n"
	// Page is another file of the tree.
	Page = "www/index.html"
	// Secret is on each host and no part of the tree.
	Secret = "secret.conf"
)

// Repo is the git repository that stands for cacert-devel, and a developer's clone of it.
type Repo struct {
	// Bare is the repository, Clone the developer's working copy.
	Bare, Clone string
	t           testing.TB
}

// Patch is a patch as its developer has it: with the trees that the developer computed.
type Patch struct {
	Bytes                      []byte
	Base, BaseTree, ResultTree string
}

// Register is the command that registers it.
func (p Patch) Register() *emergencyv1.RegisterPatchRequest {
	return &emergencyv1.RegisterPatchRequest{
		Bytes: p.Bytes, Sha256: patch.Digest(p.Bytes), BaseCommit: p.Base, BaseTree: p.BaseTree, ResultTree: p.ResultTree, BugId: "1042",
	}
}

func newRepo(t testing.TB, dir, bare string) *Repo {
	t.Helper()
	r := &Repo{Bare: bare, Clone: filepath.Join(dir, "clone"), t: t}
	must(t, os.MkdirAll(filepath.Dir(bare), 0o700))
	r.Git(dir, "init", "--quiet", "--bare", bare)
	r.Git(dir, "init", "--quiet", "--initial-branch=release", r.Clone)
	r.write(r.Clone, map[string]string{Program: Vulnerable, Page: "<!doctype html><title>a critical system</title>\n", "README": "A critical system.\n"})
	r.Git(r.Clone, "add", "--all")
	r.Git(r.Clone, "commit", "--quiet", "-m", "The critical system as it is")
	r.Git(r.Clone, "push", "--quiet", bare, "release")
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Git runs git in a folder without anybody's configuration and returns what it says.
func (r *Repo) Git(dir string, args ...string) string {
	r.t.Helper()
	return r.git(dir, nil, args...)
}

func (r *Repo) git(dir string, env []string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=dora", "GIT_AUTHOR_EMAIL=dora@example.org", "GIT_COMMITTER_NAME=dora", "GIT_COMMITTER_EMAIL=dora@example.org",
	}, env...)
	var wrong bytes.Buffer
	cmd.Stderr = &wrong
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, wrong.String())
	}
	return strings.TrimSuffix(string(out), "\n")
}

func (r *Repo) write(dir string, files map[string]string) {
	r.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path, mode := filepath.Join(dir, name), os.FileMode(0o644)
		if name == Program {
			mode = 0o755
		}
		must(r.t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(r.t, os.WriteFile(path, []byte(files[name]), mode))
	}
}

// Checkout makes a plain folder with the files of the release branch and a secret beside them; a host has no git checkout.
func (r *Repo) Checkout(dir string) {
	r.t.Helper()
	must(r.t, os.MkdirAll(dir, 0o755))
	r.git(dir, []string{"GIT_INDEX_FILE=" + dir + ".index"}, "--git-dir="+r.Bare, "--work-tree="+dir, "checkout", "--force", "release", "--", ".")
	must(r.t, os.Remove(dir+".index"))
	must(r.t, os.WriteFile(filepath.Join(dir, Secret), []byte("password\n"), 0o600))
}

// Diff is the patch that gives files new contents on top of the release branch, as git makes it, with the trees by git.
func (r *Repo) Diff(files map[string]string) Patch {
	r.t.Helper()
	r.Git(r.Clone, "fetch", "--quiet", r.Bare, "release")
	r.Git(r.Clone, "reset", "--quiet", "--hard", "FETCH_HEAD")
	p := Patch{Base: r.Git(r.Clone, "rev-parse", "HEAD"), BaseTree: "sha1:" + r.Git(r.Clone, "rev-parse", "HEAD^{tree}")}
	r.write(r.Clone, files)
	r.Git(r.Clone, "add", "--all")
	p.ResultTree = "sha1:" + r.Git(r.Clone, "write-tree")
	p.Bytes = []byte(r.Git(r.Clone, "diff", "--cached", "--no-color", "--no-ext-diff") + "\n")
	r.Git(r.Clone, "reset", "--quiet", "--hard")
	return p
}

// Repair is the patch that mends the program.
func (r *Repo) Repair() Patch {
	r.t.Helper()
	return r.Diff(map[string]string{Program: Repaired})
}

// TreeOf is a host's tree as git itself computes it, without the secret: another program than the agent's.
func (r *Repo) TreeOf(root string) string {
	r.t.Helper()
	index := []string{"GIT_INDEX_FILE=" + root + ".proof"}
	r.git(root, index, "--git-dir="+r.Bare, "--work-tree="+root, "add", "--all", "--", ".", ":!"+Secret)
	tree := r.git(root, index, "--git-dir="+r.Bare, "--work-tree="+root, "write-tree")
	must(r.t, os.Remove(root+".proof"))
	return "sha1:" + tree
}

// Ref is the commit at a ref of the repository.
func (r *Repo) Ref(ref string) string {
	r.t.Helper()
	return r.Git(r.Bare, "rev-parse", ref)
}

// Flip changes one byte of a file: its last but one, so that a final newline stays one.
func Flip(t testing.TB, path string) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	b, err := os.ReadFile(path)
	must(t, err)
	b[len(b)-2] ^= 1
	must(t, os.Chmod(path, info.Mode()|0o200))
	must(t, os.WriteFile(path, b, info.Mode()))
	must(t, os.Chmod(path, info.Mode()))
}
