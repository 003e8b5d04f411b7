// SPDX-License-Identifier: Apache-2.0

package gitcmd_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/gitrepo/gitcmd"
	"cacert.org/emergency/pkg/gitrepo/gittest"
	"cacert.org/emergency/pkg/gitrepo/gittree"
)

func newGit(t *testing.T, o gitcmd.Options) *gitcmd.Git {
	t.Helper()
	g, err := gitcmd.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// script writes a program that stands for git.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "git")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// answer is the start of a script that New accepts.
const answer = "case \"$*\" in *' version') echo git version 2.39.5; exit;; esac\n"

func TestNewRefusesOldOrMissingGit(t *testing.T) {
	t.Parallel()
	for version, ok := range map[string]bool{"2.39.5": true, "2.39": true, "3.0.1": true, "2.38.9": false, "1.99": false, "": false, "two.39": false} {
		_, err := gitcmd.New(t.Context(), gitcmd.Options{Program: script(t, "echo git version "+version+"\n")})
		if (err == nil) != ok {
			t.Errorf("version %q: %v", version, err)
		}
	}
	if _, err := gitcmd.New(t.Context(), gitcmd.Options{Program: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a missing git is accepted")
	}
}

// The surroundings' GIT_ variables, HOME and locale must not reach git.
func TestRunBuildsTheEnvironmentFromScratch(t *testing.T) {
	t.Setenv("GIT_DIR", "/elsewhere")
	t.Setenv("GIT_EXEC_PATH", "/elsewhere")
	t.Setenv("GIT_CONFIG_PARAMETERS", "'core.hooksPath=/elsewhere'")
	t.Setenv("HOME", "/elsewhere")
	g := newGit(t, gitcmd.Options{Program: script(t, answer+"env\n")})
	out, err := g.Run(t.Context(), gitcmd.Call{Args: []string{"status"}})
	if err != nil || strings.Contains(string(out), "elsewhere") {
		t.Errorf("%v: %s", err, out)
	}
	for _, want := range []string{"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0", "GIT_DIR=/dev/null", "GIT_ALLOW_PROTOCOL=none"} {
		if !strings.Contains(string(out), want+"\n") {
			t.Errorf("%s is not set:\n%s", want, out)
		}
	}
}

// A repository's own configuration and hooks must not be obeyed.
func TestRunIgnoresHooksAndFilters(t *testing.T) {
	t.Parallel()
	r := gittest.New(t, gittree.SHA1)
	mark := filepath.Join(r.Dir, "ran")
	r.Write(".gitattributes", "* filter=evil text eol=crlf\n", 0o644)
	r.Write("x", "a\n", 0o644)
	base := r.Commit("one")
	r.Git("config", "filter.evil.smudge", "touch "+mark)
	r.Git("config", "filter.evil.clean", "touch "+mark)
	r.Git("config", "core.autocrlf", "true")
	r.Git("config", "apply.whitespace", "fix")
	r.Write(".git/hooks/post-index-change", "#!/bin/sh\ntouch "+mark+"\n", 0o755)
	g := newGit(t, gitcmd.Options{})
	gitDir, index := filepath.Join(r.Dir, ".git"), filepath.Join(t.TempDir(), "index")
	if _, err := g.Run(t.Context(), gitcmd.Call{GitDir: gitDir, Index: index, Args: []string{"read-tree", base}}); err != nil {
		t.Fatal(err)
	}
	diff := "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b  \r\n"
	if _, err := g.ApplyCached(t.Context(), gitDir, index, []byte(diff)); err != nil {
		t.Fatal(err)
	}
	entries, err := g.ReadIndex(t.Context(), gitDir, index)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := entries[1].ID, gittree.BlobID(gittree.SHA1, []byte("b  \r\n")); got != want {
		t.Errorf("the content was not applied byte by byte: %s", got)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("a hook or filter ran")
	}
}

func TestRunBoundsOutputAndTime(t *testing.T) {
	t.Parallel()
	g := newGit(t, gitcmd.Options{Program: script(t, answer+"yes\n"), MaxOutput: 1000})
	if _, err := g.Run(t.Context(), gitcmd.Call{Args: []string{"log"}}); !errors.Is(err, gitcmd.ErrOutput) {
		t.Errorf("endless output: %v", err)
	}
	// The child of git must die with it: it would hold the pipe open for ever.
	g = newGit(t, gitcmd.Options{Program: script(t, answer+"sleep 1000 & wait\n")})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := g.Run(ctx, gitcmd.Call{Args: []string{"log"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("endless call: %v", err)
	}
}

func TestFailureIsOneSafeLine(t *testing.T) {
	t.Parallel()
	f := &gitcmd.Failure{Command: "fetch", Exit: 128, Stderr: "hint\nfatal: \x1b[31mred"}
	if got := f.Error(); strings.ContainsAny(got, "\x1b\n") || !strings.Contains(got, "128") {
		t.Errorf("%q", got)
	}
}

// Holds our reading of git's messages against the git in use.
func TestApplyCachedReportsRejectionsAndOffsets(t *testing.T) {
	t.Parallel()
	g := newGit(t, gitcmd.Options{})
	dir := t.TempDir()
	if _, err := g.Run(t.Context(), gitcmd.Call{Args: []string{"init", "-q", "--bare", dir}, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	lines := "1\n2\n3\n4\n5\n6\n7\n8\n9\n"
	id, err := gittree.WriteLoose(filepath.Join(dir, "objects"), gittree.SHA1, int64(len(lines)), strings.NewReader(lines))
	if err != nil {
		t.Fatal(err)
	}
	fill := func() string {
		index := filepath.Join(t.TempDir(), "index")
		if err := g.FillIndex(t.Context(), dir, index, []gittree.Entry{{Path: "f: x", Mode: "100644", ID: id}, {Path: "g", Mode: "100644", ID: id}}); err != nil {
			t.Fatal(err)
		}
		return index
	}
	hunk := func(path string, at string, lines string) string {
		return "--- a/" + path + "\n+++ b/" + path + "\n@@ -" + at + " +" + at + " @@\n" + lines
	}
	good := "4\n-5\n+five\n 6\n"
	offsets, err := g.ApplyCached(t.Context(), dir, fill(), []byte(hunk("f: x", "2,3", " "+good)))
	if err != nil || len(offsets) != 1 || offsets[0] != (gitcmd.Offset{Path: "f: x", Hunk: 1, Line: 4, Lines: 2}) {
		t.Errorf("offset: %+v, %v", offsets, err)
	}
	if offsets, err := g.ApplyCached(t.Context(), dir, fill(), []byte(hunk("f: x", "4,3", " "+good))); err != nil || len(offsets) != 0 {
		t.Errorf("exact: %+v, %v", offsets, err)
	}
	bad := hunk("f: x", "4,3", " 4\n-five\n+5\n 6\n") + hunk("g", "4,3", " "+good) + "diff --git a/new b/new\n--- a/new\n+++ b/new\n@@ -1 +1 @@\n-a\n+b\n"
	_, err = g.ApplyCached(t.Context(), dir, fill(), []byte(bad))
	var r *gitcmd.Rejection
	if !errors.As(err, &r) || len(r.Hunks) != 2 || r.Hunks[0] != (gitcmd.RejectedHunk{Path: "f: x", Line: 4, Detail: "patch does not apply"}) || r.Hunks[1].Path != "new" {
		t.Errorf("rejection: %+v", err)
	}
	// Trailing blanks that differ are a difference.
	if _, err := g.ApplyCached(t.Context(), dir, fill(), []byte(hunk("g", "4,3", " 4 \n-5\n+five\n 6\n"))); !errors.As(err, &r) {
		t.Errorf("whitespace was tolerated: %v", err)
	}
	if _, err := g.ApplyCached(t.Context(), dir, fill(), bytes.Repeat([]byte("junk\n"), 3)); err == nil || errors.As(err, &r) {
		t.Errorf("junk: %v", err)
	}
}
