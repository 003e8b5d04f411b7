// SPDX-License-Identifier: Apache-2.0

package worktree

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
)

// Landed says on which side an interrupted job came to rest.
type Landed string

// Where a job can come to rest.
const (
	// LandedOld: the tree is the one before the job.
	LandedOld Landed = "old"
	// LandedNew: the tree is the job's result.
	LandedNew Landed = "new"
	// LandedUnproven: the job's files are the former ones, but the tree is not the former tree.
	LandedUnproven Landed = "unproven"
)

// Outcome is what Recover did with one interrupted job.
type Outcome struct {
	JobID  string
	Landed Landed
	Tree   string   // computed from disk; "" for a job that was killed before it had touched anything
	Kept   []string // as in Report
}

// Recover repairs what a killed process left: every interrupted job is brought wholly to its old or its new
// tree, computed from disk, and staging is swept. The agent calls it at start. Without interrupted jobs it
// does nothing. It may itself be killed and called again. The error is CodeUnproven if a tree is neither
// (the outcome is in the list all the same), CodeBusy while another process works.
func (t *Tree) Recover(ctx context.Context) ([]Outcome, error) {
	unlock, err := t.lock(exclusive)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := t.sweepStaging(); err != nil {
		return nil, err
	}
	dirs, err := t.jobs()
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(t.root)
	if err != nil {
		return nil, err
	}
	defer closeRoot(root)
	var outcomes []Outcome
	var errs []error
	for _, dir := range dirs {
		o, err := t.recoverJob(ctx, root, dir)
		if o != nil {
			outcomes = append(outcomes, *o)
		}
		errs = append(errs, err)
	}
	return outcomes, errors.Join(errs...)
}

func (t *Tree) sweepStaging() error {
	tmp := filepath.Join(t.spec.StateDir, "tmp")
	items, err := os.ReadDir(tmp)
	for _, item := range items {
		err = errors.Join(err, os.RemoveAll(filepath.Join(tmp, item.Name())))
	}
	return err
}

func (t *Tree) recoverJob(ctx context.Context, root *os.Root, dir string) (*Outcome, error) {
	j, err := t.load(dir)
	if err != nil {
		return nil, err
	}
	if j == nil {
		id, err := url.PathUnescape(filepath.Base(dir))
		return &Outcome{JobID: id, Landed: LandedOld}, errors.Join(err, os.RemoveAll(dir))
	}
	if !j.Phase.open() {
		return nil, nil
	}
	// Once decided the repair is carried through.
	ctx = context.WithoutCancel(ctx)
	if j.Phase == prepared {
		done, err := t.finished(ctx, root, j)
		if err != nil {
			return nil, err
		}
		if done {
			return &Outcome{JobID: j.ID, Landed: LandedNew, Tree: j.Post}, t.save(j, applied)
		}
	}
	tree, err := t.restore(ctx, root, j)
	o := &Outcome{JobID: j.ID, Landed: LandedOld, Tree: tree, Kept: j.Kept}
	if tree != j.Pre {
		o.Landed = LandedUnproven
	}
	return o, err
}

// finished: the job was killed between its last rename and the word "applied".
func (t *Tree) finished(ctx context.Context, root *os.Root, j *job) (bool, error) {
	s := &settling{tree: t, root: root, job: j, to: newSide}
	if err := s.sweep(); err != nil {
		return false, err
	}
	tree, _, err := t.compare(ctx, root, j.algo(), j.Post)
	if err != nil || tree != j.Post {
		return false, err
	}
	s.madeDirs, s.goneDirs = j.NewDirs, j.OldDirs
	return true, errors.Join(s.remove(), s.sync())
}

// restore brings the tree to the old side, proves it and closes the job. It returns the tree found.
func (t *Tree) restore(ctx context.Context, root *os.Root, j *job) (string, error) {
	settleErr := t.settle(root, j, oldSide)
	tree, paths, err := t.compare(ctx, root, j.algo(), j.Pre)
	t.step("restored")
	switch {
	case err != nil:
		return "", errors.Join(settleErr, err)
	case tree == j.Pre && settleErr == nil:
		return tree, t.save(j, restored)
	case settleErr != nil: // the journal stays open: Recover or BackOut tries again
		return tree, &Error{Code: CodeUnproven, Detail: "the former files could not all be restored; remove the cause and recover again", Want: j.Pre, Got: tree, Paths: paths, Err: settleErr}
	}
	return tree, errors.Join(
		&Error{Code: CodeUnproven, Detail: "the job's files are the former ones again, but the tree is not: other files were changed by somebody else", Want: j.Pre, Got: tree, Paths: paths},
		t.save(j, unproven))
}

// BackOut brings the tree back to exactly what it was before the job, from the job's own copies, and proves
// it. It undoes a verified apply (roll back) as well as a failed one, and may be repeated. It refuses with
// CodeUnknownTree if the tree is neither the job's former nor its new one: a later patch, or somebody's
// change, would be lost.
func (t *Tree) BackOut(ctx context.Context, jobID string) (Report, error) {
	unlock, err := t.lock(exclusive)
	if err != nil {
		return Report{}, err
	}
	defer unlock()
	dir, err := t.jobDir(jobID)
	if err != nil {
		return Report{}, err
	}
	j, err := t.load(dir)
	if err != nil {
		return Report{}, err
	}
	if j == nil {
		return Report{}, &Error{Code: CodeJobUnknown, Detail: "no such job was applied here"}
	}
	if err := t.refuseOpen(dir); err != nil {
		return Report{}, err
	}
	root, err := os.OpenRoot(t.root)
	if err != nil {
		return Report{}, err
	}
	defer closeRoot(root)
	tree, paths, err := t.compare(ctx, root, j.algo(), j.Post)
	if err != nil {
		return Report{}, err
	}
	r := Report{PreTree: tree, PostTree: tree, ChangedPaths: j.paths()}
	switch {
	case tree == j.Pre && !j.Phase.open():
		r.ChangedPaths, r.Repeated = nil, j.Phase == restored
		return r, t.save(j, restored)
	case tree != j.Post && tree != j.Pre && !j.Phase.open():
		return r, &Error{Code: CodeUnknownTree, Detail: "the tree is neither the job's former nor its new one", Want: j.Post, Got: tree, Paths: paths}
	}
	if err := t.save(j, backingOut); err != nil {
		return r, err
	}
	r.PostTree, err = t.restore(context.WithoutCancel(ctx), root, j)
	r.Kept = j.Kept
	return r, err
}
