// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"cacert.org/emergency/pkg/gitrepo/gitcmd"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
)

// Result is what a patch makes of a base.
type Result struct {
	BaseCommit string
	// BaseTree and ResultTree are prefixed ids, as the binding names them.
	BaseTree, ResultTree string
	// Paths that differ between the two trees, sorted.
	Paths []string
	// Diff is the unified diff that stands for a bundle; nil for a patch, which is its own diff.
	Diff []byte
}

// Apply computes what registered bytes make of the base commit, be they a patch or a bundle.
func (r *Repo) Apply(ctx context.Context, baseCommit string, data []byte) (Result, error) {
	if patch.IsBundle(data) {
		return r.ApplyBundle(ctx, baseCommit, data)
	}
	return r.ApplyPatch(ctx, baseCommit, data)
}

// ApplyPatch computes what the patch makes of the base commit, in a temporary index. The clone keeps the
// resulting objects, so that CommitTree finds them; nothing refers to them.
//
// Errors: *patch.Error if the patch may not be applied or does other than it declares; CodeBaseUnknown;
// CodeBaseMismatch if a hunk does not fit exactly where its header says. An offset is a mismatch: with
// repeated lines it can put a hunk in the wrong place, and it shows that the patch was made against
// another file than the reviewer has before them.
func (r *Repo) ApplyPatch(ctx context.Context, baseCommit string, patchBytes []byte) (Result, error) {
	declared, err := patch.Parse(patchBytes, r.opts.Patch)
	if err != nil {
		return Result{}, err
	}
	base, err := r.ResolveCommit(ctx, baseCommit)
	if err != nil {
		return Result{}, err
	}
	dir, err := os.MkdirTemp(r.tmp, "apply-")
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // Open sweeps what is left
	tree, err := r.applyTo(ctx, base.ID, filepath.Join(dir, "index"), patchBytes)
	if err != nil {
		return Result{}, err
	}
	algo, _ := gittree.AlgoOf(base.ID)
	result := Result{BaseCommit: base.ID, BaseTree: base.Tree, ResultTree: string(algo) + ":" + tree}
	changes, err := r.DiffTrees(ctx, result.BaseTree, result.ResultTree)
	if err != nil {
		return Result{}, err
	}
	for _, c := range changes {
		result.Paths = append(result.Paths, c.Path)
	}
	if err := declared.Check(changes); err != nil {
		return Result{}, err
	}
	return result, nil
}

func (r *Repo) applyTo(ctx context.Context, commit, index string, patchBytes []byte) (string, error) {
	if _, err := r.git.Run(ctx, gitcmd.Call{GitDir: r.dir, Index: index, Args: []string{"read-tree", commit}}); err != nil {
		return "", fmt.Errorf("read base tree: %w", err)
	}
	offsets, err := r.git.ApplyCached(ctx, r.dir, index, patchBytes)
	var rejected *gitcmd.Rejection
	switch {
	case errors.As(err, &rejected):
		e := refuse(CodeBaseMismatch, "apply patch", "the patch does not fit the base commit; make it anew against that commit", err)
		for _, h := range rejected.Hunks {
			e.Paths = append(e.Paths, h.Path)
		}
		return "", e
	case err != nil:
		return "", asRefusal(err, func(err error) error {
			return refuse(CodeBaseMismatch, "apply patch", "git refuses the patch", err)
		})
	case len(offsets) > 0:
		o := offsets[0]
		e := refuse(CodeBaseMismatch, "apply patch", fmt.Sprintf("hunk %d fits only %d lines away from where it says; make the patch anew against the base commit", o.Hunk, o.Lines), nil)
		e.Paths = []string{o.Path}
		return "", e
	}
	out, err := r.git.Run(ctx, gitcmd.Call{GitDir: r.dir, Index: index, Args: []string{"write-tree"}})
	if err != nil {
		return "", fmt.Errorf("write result tree: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
