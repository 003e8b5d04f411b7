// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cacert.org/emergency/pkg/gitrepo/gitcmd"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
)

// Content is a file of a tree that the repository does not hold, or a path where nothing is any more.
type Content struct {
	Path string
	Mode string // as git writes it; "" if the file is gone
	Data []byte // of a symbolic link, its target
}

// Difference is what changed files make of a commit's tree.
type Difference struct {
	BaseCommit, ResultTree string
	// Patch is the difference as git writes it, with whole blob ids and binary content, without renames.
	Patch []byte
	// Problem is why Patch may not be registered; nil if it applies to the base commit and gives the result tree.
	Problem error
}

// CommitWithTree finds the newest commit that has a tree ("sha1:..."), in the clone as last fetched. CodeBaseUnknown if there
// is none.
func (r *Repo) CommitWithTree(ctx context.Context, tree string) (Commit, error) {
	unknown := func(err error) error {
		return refuse(CodeBaseUnknown, "find commit", "no commit in the repository as last fetched has this tree; fetch", err)
	}
	_, want, err := gittree.ParseID(tree)
	if err != nil {
		return Commit{}, refuse(CodeArgument, "find commit", err.Error(), nil)
	}
	if _, err := os.Stat(r.dir); err != nil {
		return Commit{}, unknown(errors.New("the repository was never fetched"))
	}
	out, err := r.git.Run(ctx, gitcmd.Call{GitDir: r.dir, Args: []string{"log", "--all", "--date-order", "--format=%T %H"}})
	if err != nil {
		return Commit{}, asRefusal(err, unknown)
	}
	for line := range strings.Lines(string(out)) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), want+" "); ok {
			return r.ResolveCommit(ctx, id)
		}
	}
	return Commit{}, unknown(nil)
}

// Difference makes a patch of what files have become, compared with a commit, and tries it. Every file must have the blob id
// that the list after says, so the patch can hold nothing but what makes that tree. What it reads is kept nowhere: a session's
// files may hold what nobody may see.
//
// Errors: CodeBaseUnknown; CodeBaseMismatch if base and contents do not give the tree of the list.
func (r *Repo) Difference(ctx context.Context, baseCommit string, after []gittree.Entry, contents []Content) (d Difference, err error) {
	base, err := r.ResolveCommit(ctx, baseCommit)
	if err != nil {
		return d, err
	}
	q, err := r.quarantine(ctx, base.ID)
	defer func() { _ = os.RemoveAll(q.dir) }() // Open sweeps what is left
	if err != nil {
		return d, err
	}
	tree, err := q.tree(ctx, base, after, contents)
	if err != nil {
		return d, err
	}
	algo, id, err := gittree.ParseID(base.Tree)
	if err != nil {
		return d, err
	}
	var text bytes.Buffer
	if _, err := q.git.Run(ctx, gitcmd.Call{GitDir: q.repo, Stdout: &text, Args: []string{
		"diff-tree", "-r", "-p", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color", id, tree,
	}}); err != nil {
		return d, fmt.Errorf("write difference: %w", err)
	}
	d = Difference{BaseCommit: base.ID, ResultTree: string(algo) + ":" + tree, Patch: text.Bytes()}
	err = r.tries(ctx, q, d)
	var unfit *patch.Error
	var refusal *Error
	if errors.As(err, &unfit) || errors.As(err, &refusal) && refusal.Code != CodeUnavailable {
		d.Problem, err = err, nil
	}
	return d, err
}

// tree puts the contents beside the base's files and returns the id of the tree they make.
func (q quarantine) tree(ctx context.Context, base Commit, after []gittree.Entry, contents []Content) (string, error) {
	algo, want, err := gittree.ParseID(base.Tree)
	if err != nil {
		return "", err
	}
	expected, err := gittree.ID(algo, slices.Clone(after))
	if err != nil {
		return "", err
	}
	for _, c := range contents {
		if c.Mode == "" {
			continue
		}
		if _, err := gittree.WriteLoose(filepath.Join(q.repo, "objects"), algo, int64(len(c.Data)), bytes.NewReader(c.Data)); err != nil {
			return "", fmt.Errorf("keep %q for the difference: %w", c.Path, err)
		}
	}
	index := filepath.Join(q.dir, "index")
	if err := q.git.FillIndex(ctx, q.repo, index, after); err != nil {
		return "", fmt.Errorf("list the files after: %w", err)
	}
	out, err := q.git.Run(ctx, gitcmd.Call{GitDir: q.repo, Index: index, Args: []string{"write-tree"}})
	if err != nil { // it wants every file to be there: those of the base, and those that were sent
		return "", asRefusal(err, func(err error) error {
			return refuse(CodeBaseMismatch, "make tree", "a file of the tree is neither in the base commit nor among the contents", err)
		})
	}
	tree := strings.TrimSpace(string(out))
	if string(algo)+":"+tree != expected || tree == want {
		return "", refuse(CodeBaseMismatch, "make tree", "base commit and contents do not give the tree of the list, or nothing changed", nil)
	}
	return tree, nil
}

// tries applies the patch to its base as a registered one would be, and compares the tree.
func (r *Repo) tries(ctx context.Context, q quarantine, d Difference) error {
	apart := &Repo{git: r.git, remote: r.remote, dir: q.repo, tmp: q.dir, opts: r.opts}
	result, err := apart.ApplyPatch(ctx, d.BaseCommit, d.Patch)
	if err != nil {
		return err
	}
	if result.ResultTree != d.ResultTree {
		return refuse(CodeBaseMismatch, "try difference", "the patch gives another tree than the files do", nil)
	}
	return nil
}
