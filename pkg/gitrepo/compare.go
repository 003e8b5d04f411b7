// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"context"
	"strings"

	"cacert.org/emergency/pkg/gitrepo/gitcmd"
	"cacert.org/emergency/pkg/gitrepo/gittree"
)

// Manifest lists every file of a commit or of a tree ("sha1:..."), sorted by path, submodules included.
func (r *Repo) Manifest(ctx context.Context, commitOrTree string) ([]gittree.Entry, error) {
	tree, err := r.treeID(ctx, commitOrTree)
	if err != nil {
		return nil, err
	}
	out, err := r.git.Run(ctx, gitcmd.Call{GitDir: r.dir, Args: []string{"ls-tree", "-r", "-z", "--full-tree", tree}})
	if err != nil {
		return nil, asRefusal(err, func(err error) error {
			return refuse(CodeBaseUnknown, "list tree", "no such tree in the repository as last fetched", err)
		})
	}
	return gitcmd.ParseEntries(out)
}

// DiffTrees compares two commits or trees path by path. A rename is one path gone and one new. To compare
// with a host's tree that the repository does not hold, use gittree.Diff on the two manifests.
func (r *Repo) DiffTrees(ctx context.Context, before, after string) ([]gittree.Change, error) {
	a, err := r.Manifest(ctx, before)
	if err != nil {
		return nil, err
	}
	b, err := r.Manifest(ctx, after)
	if err != nil {
		return nil, err
	}
	return gittree.Diff(a, b), nil
}

// treeID gives the bare hex id of a tree for a commit name or a prefixed tree id.
func (r *Repo) treeID(ctx context.Context, commitOrTree string) (string, error) {
	if !strings.Contains(commitOrTree, ":") {
		tree, err := r.TreeOf(ctx, commitOrTree)
		_, id, _ := strings.Cut(tree, ":")
		return id, err
	}
	_, id, err := gittree.ParseID(commitOrTree)
	if err != nil {
		return "", refuse(CodeArgument, "find tree", err.Error(), nil)
	}
	return id, nil
}
