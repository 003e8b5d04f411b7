// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"cacert.org/emergency/pkg/gitrepo"
)

// The vulnerable program: it hands what its caller says to the shell, so a caller can read what it must not.
const vulnerable = `#!/bin/sh
# cert-info NAME: tells who a certificate is for.
name=$1
eval "echo Certificate for $name"
`

const repaired = `#!/bin/sh
# cert-info NAME: tells who a certificate is for.
name=$1
printf 'Certificate for %s\n' "$name"
`

const (
	programFile = "www/cert-info"
	secretFile  = "secret.conf" // on the host, not part of the tree
	secret      = "database-password-of-the-demo"
	attack      = "nobody; cat ../" + secretFile
)

// world is the demo's machines: folders below one data folder.
type world struct {
	data     string
	scenario int
}

func (w world) path(parts ...string) string {
	return filepath.Join(append([]string{w.data}, parts...)...)
}

func (w world) repository() string { return w.path("repository.git") }
func (w world) checkout() string   { return w.path("dora-checkout") }
func (w world) critical() string   { return w.path("hosts", "critical-1") }
func (w world) testing() string    { return w.path("hosts", "test-1") }

// git runs the system's git without anybody's configuration.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=dora", "GIT_AUTHOR_EMAIL=dora@example.org", "GIT_COMMITTER_NAME=dora", "GIT_COMMITTER_EMAIL=dora@example.org",
	}
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// prepare makes the repository with the vulnerable program and both hosts that run it, unless they are there.
func (w world) prepare(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(w.repository(), "HEAD")); err == nil {
		return nil
	}
	if err := os.MkdirAll(w.data, 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	steps := []func() error{
		func() error { _, err := git(ctx, w.data, "init", "--quiet", "--bare", w.repository()); return err },
		func() error { return w.firstCommit(ctx) },
		func() error { return w.host(ctx, w.critical()) },
		func() error { return w.host(ctx, w.testing()) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (w world) firstCommit(ctx context.Context) error {
	if _, err := git(ctx, w.data, "init", "--quiet", "--initial-branch=release", w.checkout()); err != nil {
		return err
	}
	files := map[string]string{
		programFile:      vulnerable,
		"www/index.html": "<!doctype html><title>demo</title><p>The demo's critical system.\n",
		"README":         "The demo's critical system: one small program with a hole.\n",
	}
	for name, text := range files {
		path := filepath.Join(w.checkout(), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if name == programFile {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"add", "--all"}, {"commit", "--quiet", "-m", "The critical system as it is"}, {"push", "--quiet", w.repository(), "release"}} {
		if _, err := git(ctx, w.checkout(), args...); err != nil {
			return err
		}
	}
	return nil
}

// host makes a plain folder with the files of the release branch; a critical host has no git checkout.
func (w world) host(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if _, err := git(ctx, dir, "--git-dir="+w.repository(), "--work-tree="+dir, "checkout", "--force", "release", "--", "."); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(w.repository(), "index")); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.WriteFile(filepath.Join(dir, secretFile), []byte(secret+"\n"), 0o600)
}

// exploit runs the program on a host as an attacker would and tells whether the secret came out.
func (w world) exploit(ctx context.Context, host string) (bool, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "cert-info", attack)
	cmd.Dir = filepath.Join(host, "www")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return false, fmt.Errorf("run the program: %w", err)
	}
	return strings.Contains(string(out), secret), nil
}

// patch is the developer's work: the repair, as git makes a patch of it.
func (w world) patch(ctx context.Context) (diff []byte, base string, err error) {
	if base, err = git(ctx, w.checkout(), "rev-parse", "HEAD"); err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(filepath.Join(w.checkout(), programFile), []byte(repaired), 0o755); err != nil {
		return nil, "", err
	}
	text, err := git(ctx, w.checkout(), "diff", "--no-color", "--no-ext-diff")
	return []byte(text + "\n"), base, err
}

// trees are the trees before and after the patch, computed by dora in her own repository: what she signs.
func (w world) trees(ctx context.Context, base string, diff []byte) (gitrepo.Result, error) {
	repo, err := gitrepo.Open(ctx, w.checkout(), gitrepo.Options{StateDir: w.path("dora-state")})
	if err != nil {
		return gitrepo.Result{}, err
	}
	if err := repo.Fetch(ctx); err != nil {
		return gitrepo.Result{}, err
	}
	return repo.ApplyPatch(ctx, base, diff)
}

// treeOf computes a host's git tree by git itself: another program than the agent's, for the proof at the end.
func (w world) treeOf(ctx context.Context, host string) (string, error) {
	index := w.path("proof.index")
	defer func() { _ = os.Remove(index) }() // a scratch file; nothing depends on it
	env := []string{"--git-dir=" + w.repository(), "--work-tree=" + host}
	for _, args := range [][]string{{"add", "--all", "--", ".", ":!" + secretFile}} {
		if _, err := gitIndex(ctx, index, host, append(env, args...)...); err != nil {
			return "", err
		}
	}
	tree, err := gitIndex(ctx, index, host, append(env, "write-tree")...)
	return "sha1:" + tree, err
}

func gitIndex(ctx context.Context, index, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_INDEX_FILE=" + index}
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// since is a time after the declaration, for a reader.
func since(t0, t time.Time) string {
	d := t.Sub(t0).Round(10 * time.Millisecond)
	return fmt.Sprintf("+%02d:%02d:%05.2f", int(d.Hours()), int(d.Minutes())%60, (d % time.Minute).Seconds())
}
