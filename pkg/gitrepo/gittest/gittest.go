// SPDX-License-Identifier: Apache-2.0

// Package gittest makes real repositories for tests. It is used by tests alone.
package gittest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/gitrepo/gittree"
)

// Repo is a repository with a work tree, on branch main, in a temporary folder.
type Repo struct {
	Dir string
	t   testing.TB
}

// New creates a repository of the given object format.
func New(t testing.TB, algo gittree.Algo) *Repo {
	t.Helper()
	r := &Repo{Dir: t.TempDir(), t: t}
	r.Git("init", "--quiet", "--initial-branch=main", "--object-format="+string(algo), ".")
	return r
}

// Git runs git in the work tree, with no configuration of the machine, and returns its output.
func (r *Repo) Git(args ...string) string {
	r.t.Helper()
	out, err := r.command(args).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.t.Fatalf("git %q: %v: %s", args, err, exit.Stderr)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return string(out)
}

// GitMayFail runs git and says whether it succeeded.
func (r *Repo) GitMayFail(args ...string) bool {
	r.t.Helper()
	err := r.command(args).Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return err == nil
}

func (r *Repo) command(args []string) *exec.Cmd {
	settings := []string{"-c", "core.protectHFS=true", "-c", "core.protectNTFS=true"} // as gitcmd has them
	cmd := exec.Command("git", append(settings, args...)...)
	cmd.Dir = r.Dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + r.Dir, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=Author", "GIT_AUTHOR_EMAIL=author@localhost", "GIT_AUTHOR_DATE=1764000000 +0000",
		"GIT_COMMITTER_NAME=Author", "GIT_COMMITTER_EMAIL=author@localhost", "GIT_COMMITTER_DATE=1764000000 +0000",
	}
	return cmd
}

// Write writes one file of the work tree.
func (r *Repo) Write(path, content string, perm os.FileMode) {
	r.t.Helper()
	full := filepath.Join(r.Dir, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), perm); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Chmod(full, perm); err != nil {
		r.t.Fatal(err)
	}
}

// Commit commits the whole work tree and returns the commit's id.
func (r *Repo) Commit(message string) string {
	r.t.Helper()
	r.Git("add", "--all", "--force")
	r.Git("commit", "--quiet", "--allow-empty", "-m", message)
	return r.Head()
}

// Head is the id of the current commit.
func (r *Repo) Head() string {
	r.t.Helper()
	return line(r.Git("rev-parse", "HEAD"))
}

// Tree is the tree id of a commit, with the format's prefix.
func (r *Repo) Tree(commit string) string {
	r.t.Helper()
	id := line(r.Git("rev-parse", commit+"^{tree}"))
	algo, _ := gittree.AlgoOf(id)
	return string(algo) + ":" + id
}

// Diff is the patch from one commit to another, binary files included.
func (r *Repo) Diff(from, to string) []byte {
	r.t.Helper()
	return []byte(r.Git("diff", "--binary", from, to))
}

func line(s string) string { return strings.TrimRight(s, "\n") }
