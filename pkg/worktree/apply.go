// SPDX-License-Identifier: Apache-2.0

package worktree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
)

// DryRun says what Apply would do, in a staging copy of the touched files; the tree is only read. Hunks
// that do not fit are in the report and no error: they are what a dry run is for (4.4 DryRunRecorded).
// Errors, with the report as far as it came: *patch.Error, CodeBase, CodeResult, CodeUnlisted, CodeOccupied.
func (t *Tree) DryRun(ctx context.Context, patchBytes []byte, wantBase, wantResult string) (Report, error) {
	b, err := t.bind(patchBytes, wantBase, wantResult)
	if err != nil {
		return Report{}, err
	}
	if t.spec.StateDir == "" {
		return Report{}, &Error{Code: CodeConfig, Detail: "no state folder is configured"}
	}
	unlock, err := t.lock(shared)
	if err != nil {
		return Report{}, err
	}
	defer unlock()
	if err := t.refuseOpen(""); err != nil {
		return Report{}, err
	}
	root, err := os.OpenRoot(t.root)
	if err != nil {
		return Report{}, err
	}
	defer closeRoot(root)
	s, err := t.stage(ctx, root, b)
	defer s.discard()
	if err == nil {
		_, err = t.plan(root, "dry run", b, s)
	}
	var e *Error
	if errors.As(err, &e) && e.Code == CodeRejected {
		err = nil
	}
	return s.report, err
}

func (s *staged) discard() {
	if s.dir != "" {
		_ = os.RemoveAll(s.dir) // Recover sweeps what is left
	}
}

// Apply makes the tree the reviewed result, or leaves it as it was. The job id is the key under which it is
// done at most once: repeated with the same arguments it reports what was done (Report.Repeated).
//
// Once the journal is written the context no longer ends it: a patch half placed is worse than a late one.
// Errors: those of DryRun, CodeRejected; CodeApply or CodeResult if the former tree was restored;
// CodeUnproven if it could not be proven to be; CodeRecovery, CodeJobReused, CodeBusy.
func (t *Tree) Apply(ctx context.Context, jobID string, patchBytes []byte, wantBase, wantResult string) (Report, error) {
	b, err := t.bind(patchBytes, wantBase, wantResult)
	if err != nil {
		return Report{}, err
	}
	unlock, err := t.lock(exclusive)
	if err != nil {
		return Report{}, err
	}
	defer unlock()
	dir, err := t.jobDir(jobID)
	if err != nil {
		return Report{}, err
	}
	root, err := os.OpenRoot(t.root)
	if err != nil {
		return Report{}, err
	}
	defer closeRoot(root)
	if j, err := t.load(dir); err != nil || j != nil {
		if err != nil {
			return Report{}, err
		}
		return t.repeat(ctx, root, j, b)
	}
	if err := t.refuseOpen(dir); err != nil {
		return Report{}, err
	}
	s, err := t.stage(ctx, root, b)
	defer s.discard()
	if err != nil {
		return s.report, err
	}
	t.step("staged")
	j, err := t.prepare(root, jobID, dir, b, s)
	if err != nil {
		_ = os.RemoveAll(dir) // without a journal it is nothing; Recover sweeps what is left
		s.report.PostTree = ""
		return s.report, err
	}
	return t.carryOut(context.WithoutCancel(ctx), root, j, s)
}

// repeat answers a job that has a journal already.
func (t *Tree) repeat(ctx context.Context, root *os.Root, j *job, b binding) (Report, error) {
	switch {
	case j.PatchSHA256 != patch.Digest(b.patch) || j.Pre != b.base || j.Post != b.want:
		return Report{}, &Error{Code: CodeJobReused, Detail: "the job id was used for another patch or binding"}
	case j.Phase.open():
		return Report{}, &Error{Code: CodeRecovery, Detail: "the job was interrupted; recover first"}
	case j.Phase != applied:
		return Report{}, &Error{Code: CodeJobReused, Detail: "the job was undone; apply under a new job id"}
	}
	tree, paths, err := t.compare(ctx, root, j.algo(), j.Post)
	if err != nil {
		return Report{}, err
	}
	r := Report{PreTree: j.Pre, PostTree: tree, ChangedPaths: j.paths(), Repeated: true}
	if tree != j.Post {
		return r, &Error{Code: CodeResult, Detail: "the job was applied and verified, and the tree changed afterwards", Want: j.Post, Got: tree, Paths: paths}
	}
	return r, nil
}

// compare computes the tree from disk; paths tell where it differs from the wanted one, if that is known.
func (t *Tree) compare(ctx context.Context, root *os.Root, algo gittree.Algo, want string) (tree string, paths []string, err error) {
	entries, err := t.scan(ctx, root, algo)
	if err != nil {
		return "", nil, err
	}
	list := gitEntries(entries)
	if tree, err = gittree.ID(algo, list); err != nil {
		return "", nil, err
	}
	if tree != want {
		paths = t.differing(want, list)
	}
	return tree, paths, nil
}

// prepare fills the job folder and ends with the journal: until then nothing has happened.
func (t *Tree) prepare(root *os.Root, id, dir string, b binding, s *staged) (*job, error) {
	j, err := t.plan(root, id, b, s)
	if err != nil {
		return nil, err
	}
	j.dir = dir
	if err := os.RemoveAll(dir); err != nil { // of an attempt that was killed before its journal
		return nil, err
	}
	for _, sub := range []string{string(oldSide), string(newSide)} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	t.step("job-folder")
	for i := range j.Changes {
		if err := t.saveOld(root, j, i); err != nil {
			return nil, fmt.Errorf("save the former content of %q: %w", j.Changes[i].Path, err)
		}
		if err := t.saveNew(j, i, s); err != nil {
			return nil, fmt.Errorf("save the new content of %q: %w", j.Changes[i].Path, err)
		}
	}
	for _, d := range []string{filepath.Join(dir, string(oldSide)), filepath.Join(dir, string(newSide)), dir, filepath.Dir(dir)} {
		if err := syncFolder(d); err != nil {
			return nil, err
		}
	}
	t.remember(j.Post, s.post)
	return j, t.save(j, prepared)
}

// saveOld copies a file of the tree, and refuses it if it is no longer what the base says.
func (t *Tree) saveOld(root *os.Root, j *job, n int) error {
	c := &j.Changes[n]
	if c.Old == nil {
		return nil
	}
	info, err := lstat(root, c.Path)
	if err != nil {
		return err
	}
	if info == nil || !info.Mode().IsRegular() {
		return unstable(c.Path, errChanged)
	}
	folder, err := openFolder(root, parent(c.Path))
	if err != nil {
		return err
	}
	defer closeRoot(folder)
	err = writeCopy(j.content(oldSide, n), func(w io.Writer) error {
		e, err := hashFile(folder, base(c.Path), info, j.algo(), w)
		if err == nil && (e.BlobID != c.Old.ID || e.Mode != c.Old.Mode) {
			err = errChanged
		}
		return err
	})
	t.step("saved-old:%d", n)
	return unstable(c.Path, err)
}

func (t *Tree) saveNew(j *job, n int, s *staged) error {
	c := &j.Changes[n]
	if c.New == nil {
		return nil
	}
	id, from := c.New.ID, s.objects()
	err := writeCopy(j.content(newSide, n), func(w io.Writer) error {
		_, err := gittree.ReadLoose(from, j.algo(), id, w)
		return err
	})
	t.step("saved-new:%d", n)
	return err
}

// writeCopy creates a synced file.
func writeCopy(path string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Sync(), f.Close())
}

// carryOut moves the tree to the new side and proves it, or brings it back.
func (t *Tree) carryOut(ctx context.Context, root *os.Root, j *job, s *staged) (Report, error) {
	r := s.report
	r.PostTree = ""
	failure := t.settle(root, j, newSide)
	if failure == nil {
		tree, paths, err := t.compare(ctx, root, j.algo(), j.Post)
		t.step("recomputed")
		switch {
		case err != nil:
			failure = err
		case tree == j.Post:
			r.PostTree = tree
			return r, t.save(j, applied)
		default:
			failure = &Error{Code: CodeResult, Detail: "the tree on disk is not the result", Want: j.Post, Got: tree, Paths: paths}
		}
	}
	var e *Error
	if !errors.As(failure, &e) {
		e = &Error{Code: CodeApply, Detail: "the patch could not be written", Err: failure}
	}
	var err error
	r.PostTree, err = t.restore(ctx, root, j)
	r.Kept = j.Kept
	if err != nil {
		return r, errors.Join(err, failure) // that the tree is not proven is the first thing to know
	}
	e.Detail += "; the former tree was restored"
	return r, e
}
