// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"cacert.org/emergency/pkg/gitrepo/gitcmd"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
)

// ApplyBundle computes what a git bundle makes of the base commit. The bundle must hold exactly one head,
// which has the base commit as ancestor. It is unpacked in a quarantine; what counts is the diff from base
// to head, returned in the result, which goes through ApplyPatch like any patch and must give the head's
// own tree. So no object of the bundle enters the clone, and the reviewed text is all there is.
func (r *Repo) ApplyBundle(ctx context.Context, baseCommit string, bundle []byte) (Result, error) {
	if len(bundle) > r.opts.MaxBundle {
		return Result{}, &patch.Error{Code: patch.CodeTooLarge, Detail: fmt.Sprintf("the bundle has %d bytes, allowed are %d", len(bundle), r.opts.MaxBundle)}
	}
	if !patch.IsBundle(bundle) {
		return Result{}, refuse(CodeBundle, "read bundle", "the bytes are no git bundle", nil)
	}
	base, err := r.ResolveCommit(ctx, baseCommit)
	if err != nil {
		return Result{}, err
	}
	q, err := r.quarantine(ctx, base.ID)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = os.RemoveAll(q.dir) }() // Open sweeps what is left
	head, err := q.unpack(ctx, bundle, base.ID)
	if err != nil {
		return Result{}, asRefusal(err, func(err error) error {
			return refuse(CodeBundle, "read bundle", "git does not accept the bundle on top of the base commit", err)
		})
	}
	diff, err := q.git.Run(ctx, gitcmd.Call{GitDir: q.repo, Args: []string{
		"diff-tree", "-p", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color",
		"--src-prefix=a/", "--dst-prefix=b/", "--unified=3", "--diff-algorithm=myers", base.ID, head.ID,
	}})
	if err != nil {
		return Result{}, fmt.Errorf("diff of the bundle: %w", err)
	}
	result, err := r.ApplyPatch(ctx, base.ID, diff)
	if err != nil {
		return Result{}, err
	}
	if result.ResultTree != head.Tree {
		return Result{}, refuse(CodeResultMismatch, "apply bundle", "the bundle's diff does not give the bundle's tree", nil)
	}
	result.Diff = diff
	return result, nil
}

// quarantine is a throw-away repository that sees the clone's objects and whose own vanish with it.
type quarantine struct {
	git       *gitcmd.Git
	dir, repo string
}

func (r *Repo) quarantine(ctx context.Context, commit string) (q quarantine, err error) {
	q.git = r.git
	if q.dir, err = os.MkdirTemp(r.tmp, "bundle-"); err != nil {
		return q, err
	}
	q.repo = filepath.Join(q.dir, "repo.git")
	if err := os.Mkdir(q.repo, 0o700); err != nil {
		return q, err
	}
	algo, _ := gittree.AlgoOf(commit)
	if err := initBare(ctx, q.git, q.repo, algo); err != nil {
		return q, err
	}
	return q, os.WriteFile(filepath.Join(q.repo, "objects", "info", "alternates"), []byte(filepath.Join(r.dir, "objects")+"\n"), 0o600)
}

// unpack verifies the bundle and returns its only head.
func (q quarantine) unpack(ctx context.Context, bundle []byte, base string) (Commit, error) {
	file := filepath.Join(q.dir, "bundle")
	if err := os.WriteFile(file, bundle, 0o600); err != nil {
		return Commit{}, err
	}
	run := func(args ...string) (string, error) {
		out, err := q.git.Run(ctx, gitcmd.Call{GitDir: q.repo, Args: args})
		return strings.TrimSpace(string(out)), err
	}
	// The base must be reachable for `verify`, which asks whether the prerequisites are.
	if _, err := run("update-ref", "refs/heads/base", base); err != nil {
		return Commit{}, err
	}
	if _, err := run("bundle", "verify", "--quiet", file); err != nil {
		return Commit{}, err
	}
	heads, err := run("bundle", "list-heads", file)
	if err != nil {
		return Commit{}, err
	}
	head, _, ok := strings.Cut(heads, " ")
	if !ok || strings.Contains(heads, "\n") {
		return Commit{}, refuse(CodeBundle, "read bundle", "the bundle must hold exactly one branch", nil)
	}
	if _, err := run("bundle", "unbundle", file); err != nil {
		return Commit{}, err
	}
	// Unpacking has named each object by its content; now all that the head adds must be there.
	if _, err := run("rev-list", "--objects", "--quiet", head, "^"+base); err != nil {
		return Commit{}, err
	}
	if _, err := run("merge-base", "--is-ancestor", base, head); err != nil {
		return Commit{}, refuse(CodeBundle, "read bundle", "the bundle's branch does not grow from the base commit", err)
	}
	text, err := run("cat-file", "commit", head)
	if err != nil {
		return Commit{}, err
	}
	return parseCommit(head, text)
}
