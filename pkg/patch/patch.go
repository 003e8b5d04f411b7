// SPDX-License-Identifier: Apache-2.0

// Package patch decodes a unified diff and says what it would do, before anything is done.
//
// It reads the output of `git diff`, of `git format-patch`, and of `diff -u` with a/ and b/ prefixes,
// and refuses everything that an emergency patch may not carry: paths that leave the tree or reach
// into a repository's own folder, symbolic links, submodules, undeclared mode changes, binary content,
// and every form that a reader and `git apply` could understand differently (procedure.md 0.14:
// patches are applied byte-exact).
//
// The decoder is pure: no files, clock, network or programs. It never changes a byte of the patch, so a
// carriage return that belongs to a line stays there. It judges the text alone; whoever applies the
// patch compares the trees afterwards with what was declared here (see Patch.Check).
package patch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"cacert.org/emergency/pkg/gitrepo/gittree"
)

// Op is what a patch does with one file.
type Op string

// The operations. A rename may change the content too.
const (
	Modify Op = "modify"
	Create Op = "create"
	Delete Op = "delete"
	Rename Op = "rename"
)

// File is one file's part of a patch.
type File struct {
	Op Op
	// OldPath is "" for a created file, NewPath for a deleted one; else both are set.
	OldPath, NewPath string
	// OldMode and NewMode are octal as git writes them, "" where the patch does not say.
	OldMode, NewMode string
	// OldBlob and NewBlob are the (often shortened) ids of the index line, "" without one.
	OldBlob, NewBlob string
	Binary           bool
	// Hunks, Added and Removed count hunks and lines; they are 0 for a binary file.
	Hunks, Added, Removed int
	// Line is the number of the file's first header line in the patch, from 1.
	Line int
}

// Path is the file's path after the patch, or its former path if the patch deletes it.
func (f File) Path() string {
	if f.NewPath != "" {
		return f.NewPath
	}
	return f.OldPath
}

// ModeChange says whether the patch changes the mode of an existing file.
func (f File) ModeChange() bool {
	return f.OldPath != "" && f.NewPath != "" && f.OldMode != f.NewMode && f.NewMode != ""
}

// Patch is a decoded patch. It holds no bytes of the text it came from.
type Patch struct {
	Files []File
}

// Paths lists every path that the patch touches, both names of a renamed file, sorted, each once.
func (p *Patch) Paths() []string {
	var paths []string
	for _, f := range p.Files {
		for _, path := range []string{f.OldPath, f.NewPath} {
			if path != "" {
				paths = append(paths, path)
			}
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// Check compares what the patch declares with what applying it did to the tree (gittree.Diff), and refuses any difference. It is
// the guard against a text that this package and git read differently: a path too many or too few, a
// file that appears or vanishes undeclared, a mode that the text hid (a symbolic link changed by a diff
// without modes).
func (p *Patch) Check(did []gittree.Change) error {
	declared := map[string]File{}
	for _, f := range p.Files {
		if f.OldPath != "" && f.OldPath != f.NewPath {
			declared[f.OldPath] = File{Op: Delete, OldPath: f.OldPath, OldMode: f.OldMode, Line: f.Line}
		}
		if f.NewPath == "" {
			continue
		}
		if f.Op == Rename {
			f = File{Op: Create, NewPath: f.NewPath, NewMode: f.NewMode, Line: f.Line}
		}
		declared[f.NewPath] = f
	}
	for _, c := range did {
		f, ok := declared[c.Path]
		if !ok {
			return &Error{Code: CodeSyntax, Path: c.Path, Detail: "applying the patch touches a path that the patch does not declare"}
		}
		if err := f.check(c); err != nil {
			return err
		}
		delete(declared, c.Path)
	}
	for _, f := range p.Files { // in the order of the patch, so that the same patch gives the same error
		if _, left := declared[f.Path()]; left {
			return &Error{Code: CodeSyntax, Line: f.Line, Path: f.Path(), Detail: "the patch declares this file but applying it leaves the file as it was"}
		}
	}
	return nil
}

// check compares one declared file with what happened to its path.
func (f File) check(c gittree.Change) error {
	for _, mode := range []string{c.OldMode, c.NewMode} {
		if mode == "" {
			continue
		}
		if err := checkMode(mode, f.Line, c.Path); err != nil {
			return err
		}
	}
	fail := func(detail string) error {
		return &Error{Code: CodeSyntax, Line: f.Line, Path: c.Path, Detail: detail}
	}
	switch {
	case (f.Op == Create) != (c.OldMode == ""):
		return fail("the patch and the tree disagree on whether the file existed before")
	case (f.Op == Delete) != (c.NewMode == ""):
		return fail("the patch and the tree disagree on whether the file exists afterwards")
	case f.Op == Create && f.NewMode != "" && f.NewMode != c.NewMode:
		return &Error{Code: CodeMode, Line: f.Line, Path: c.Path, Detail: "the new file has mode " + c.NewMode + ", declared was " + f.NewMode}
	case f.Op == Modify && c.OldMode != c.NewMode && !f.ModeChange():
		return &Error{Code: CodeMode, Line: f.Line, Path: c.Path, Detail: "the mode changes from " + c.OldMode + " to " + c.NewMode + " but the patch does not declare it"}
	}
	return nil
}

// Digest is the patch's identity: SHA-256 of its bytes in lower-case hex.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// IsBundle says whether the bytes begin as a git bundle (format 2 or 3) and not as a diff.
func IsBundle(b []byte) bool {
	return bytes.HasPrefix(b, []byte("# v2 git bundle\n")) || bytes.HasPrefix(b, []byte("# v3 git bundle\n"))
}
