// SPDX-License-Identifier: Apache-2.0

package worktree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"cacert.org/emergency/pkg/gitrepo/gitcmd"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
)

// RejectedHunk is a place where a patch does not fit the tree; the first one of each file.
type RejectedHunk = gitcmd.RejectedHunk

// Report is what an operation found or did.
type Report struct {
	// PreTree is the tree found on disk. PostTree is the tree that the patch makes of it (DryRun), or that
	// was computed from disk at the end (Apply, BackOut); "" if it did not come to that.
	PreTree, PostTree string
	ChangedPaths      []string // sorted
	RejectedHunks     []RejectedHunk
	// Kept: touched paths at which somebody else's change was met while the former tree was restored. It was
	// copied to the folder "foreign" of the job in the state folder, then replaced.
	Kept []string
	// Repeated: the job had been done before, and the tree is still what it made.
	Repeated bool
}

// binding is what an operation on the tree is bound to.
type binding struct {
	patch      []byte
	declared   *patch.Patch
	algo       gittree.Algo
	base, want string
}

func (t *Tree) bind(patchBytes []byte, wantBase, wantResult string) (binding, error) {
	declared, err := patch.Parse(patchBytes, t.spec.Patch)
	if err != nil {
		return binding{}, err
	}
	algo, _, err := gittree.ParseID(wantBase)
	if err != nil {
		return binding{}, &Error{Code: CodeConfig, Detail: err.Error()}
	}
	if other, _, err := gittree.ParseID(wantResult); err != nil || other != algo {
		return binding{}, &Error{Code: CodeConfig, Detail: "base and result must be tree ids of one object format"}
	}
	for _, path := range declared.Paths() {
		if !t.rules.listed(path) {
			return binding{}, &Error{Code: CodeUnlisted, Detail: "the patch touches a path that does not belong to the tree", Paths: []string{path}}
		}
		if strings.Contains("/"+path, "/"+tempPrefix) {
			return binding{}, &Error{Code: CodeUnlisted, Detail: "the name is reserved for temporary files", Paths: []string{path}}
		}
	}
	return binding{patchBytes, declared, algo, wantBase, wantResult}, nil
}

// staged is a patch applied to copies.
type staged struct {
	dir     string // throw-away folder; the caller removes it
	report  Report
	changes []gittree.Change
	post    []gittree.Entry
	renamed map[string]string // new path -> old path
}

func (s *staged) objects() string { return filepath.Join(s.dir, "objects") }

// stage computes the base from disk and the result from copies of the touched files. The tree is only read.
func (t *Tree) stage(ctx context.Context, root *os.Root, b binding) (s *staged, err error) {
	s = &staged{renamed: map[string]string{}}
	entries, err := t.scan(ctx, root, b.algo)
	if err != nil {
		return s, err
	}
	pre := gitEntries(entries)
	if s.report.PreTree, err = gittree.ID(b.algo, pre); err != nil {
		return s, err
	}
	if s.report.PreTree != b.base {
		return s, &Error{Code: CodeBase, Detail: "the tree on this host is not the base of the patch", Want: b.base, Got: s.report.PreTree, Paths: t.differing(b.base, pre)}
	}
	t.remember(b.base, pre)
	if s.dir, err = os.MkdirTemp(filepath.Join(t.spec.StateDir, "tmp"), "stage-"); err != nil {
		return s, err
	}
	if err := t.applyToCopies(ctx, root, b, pre, s); err != nil {
		return s, err
	}
	if s.report.PostTree != b.want {
		return s, &Error{Code: CodeResult, Detail: "the patch makes another tree than the one that was reviewed", Want: b.want, Got: s.report.PostTree}
	}
	for _, f := range b.declared.Files {
		if f.Op == patch.Rename {
			s.renamed[f.NewPath] = f.OldPath
		}
	}
	return s, nil
}

// differing names the paths in which a tree that was met before differs from these files; nil if unknown.
func (t *Tree) differing(tree string, entries []gittree.Entry) []string {
	raw, err := os.ReadFile(t.treeFile(tree))
	if err != nil {
		return nil
	}
	known, err := gitcmd.ParseEntries(raw)
	if err != nil {
		return nil
	}
	var paths []string
	for _, c := range gittree.Diff(known, entries) {
		paths = append(paths, c.Path)
	}
	return paths
}

// applyToCopies lets git apply the patch to an index, in a repository that holds nothing but copies of the
// touched files: the same way as the repository of the software does it, so that the same bytes give the
// same tree, and neither attributes nor the umask nor a symbolic link on this host have a say.
func (t *Tree) applyToCopies(ctx context.Context, root *os.Root, b binding, pre []gittree.Entry, s *staged) error {
	git, err := gitcmd.New(ctx, gitcmd.Options{Program: t.spec.Git})
	if err != nil {
		return err
	}
	init := gitcmd.Call{Args: []string{"init", "--quiet", "--bare", "--template=", "--object-format=" + string(b.algo), "--", s.dir}, Dir: s.dir}
	if _, err := git.Run(ctx, init); err != nil {
		return err
	}
	touched := b.declared.Paths()
	for _, e := range pre {
		if _, found := slices.BinarySearch(touched, e.Path); !found {
			continue
		}
		if e.Mode == gittree.ModeSymlink { // a diff without modes does not say that it means one
			return &patch.Error{Code: patch.CodeSymlink, Path: e.Path, Detail: "symbolic links cannot be changed by an emergency patch"}
		}
		if err := copyToStage(root, e, b.algo, s.objects()); err != nil {
			return err
		}
	}
	index := filepath.Join(s.dir, "index")
	if err := git.FillIndex(ctx, s.dir, index, pre); err != nil {
		return err
	}
	_, err = git.ApplyCached(ctx, s.dir, index, b.patch)
	var rejected *gitcmd.Rejection
	if errors.As(err, &rejected) {
		s.report.RejectedHunks = rejected.Hunks
		return &Error{Code: CodeRejected, Detail: "the patch does not fit the tree", Paths: rejectedPaths(rejected), Err: err}
	}
	if err != nil {
		return err
	}
	if s.post, err = git.ReadIndex(ctx, s.dir, index); err != nil {
		return err
	}
	s.changes = gittree.Diff(pre, s.post)
	for _, c := range s.changes {
		s.report.ChangedPaths = append(s.report.ChangedPaths, c.Path)
	}
	if err := b.declared.Check(s.changes); err != nil {
		return err
	}
	s.report.PostTree, err = gittree.ID(b.algo, s.post)
	return err
}

func rejectedPaths(r *gitcmd.Rejection) []string {
	var paths []string
	for _, h := range r.Hunks {
		paths = append(paths, h.Path)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// copyToStage stores a file of the tree as a git object, and finds out if it changed since it was hashed.
func copyToStage(root *os.Root, e gittree.Entry, algo gittree.Algo, objects string) error {
	dir, err := openFolder(root, parent(e.Path))
	if err != nil {
		return unstable(e.Path, err)
	}
	defer closeRoot(dir)
	f, err := dir.OpenFile(base(e.Path), os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe put in its place must not hang us
	if err != nil {
		return unstable(e.Path, err)
	}
	defer closeReader(f)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() { // to read from a pipe would wait for whoever writes to it
		return unstable(e.Path, errChanged)
	}
	id, err := gittree.WriteLoose(objects, algo, info.Size(), f)
	if err != nil || id != e.ID {
		return unstable(e.Path, fmt.Errorf("copy %q: %w", e.Path, errors.Join(errChanged, err)))
	}
	return nil
}
