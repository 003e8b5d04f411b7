// SPDX-License-Identifier: Apache-2.0

package worktree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cacert.org/emergency/pkg/gitrepo/gittree"
)

// errForeign: a touched path holds something that neither side of the job put there.
var errForeign = errors.New("was changed by somebody else")

// settling brings every path of a job to one side. Each step is found out anew from the disk, so that it
// can be started again after a kill at any point, also towards the other side.
type settling struct {
	tree    *Tree
	root    *os.Root
	job     *job
	to      side
	missing []int // changes that are not yet on the side
	found   map[int]fs.FileInfo

	madeDirs, goneDirs []folder // that exist only on this side, only on the other
	blocking           map[string]bool
}

// settle ends with every touched path on the side, durably, or with an error. Towards the new side
// somebody else's change is an error; towards the old side it is kept in the job folder and replaced.
func (t *Tree) settle(root *os.Root, j *job, to side) error {
	s := &settling{tree: t, root: root, job: j, to: to, found: map[int]fs.FileInfo{}, madeDirs: j.OldDirs, goneDirs: j.NewDirs}
	if to == newSide {
		s.madeDirs, s.goneDirs = j.NewDirs, j.OldDirs
	}
	s.findBlocking()
	for _, do := range []func() error{s.sweep, s.inspect, s.writeTemps, s.clear, s.place, s.remove, s.sync} {
		if err := do(); err != nil {
			return errors.Join(err, s.sweep())
		}
	}
	return nil
}

// findBlocking: what must go before something else can come, because a file and a folder change places.
func (s *settling) findBlocking() {
	s.blocking = map[string]bool{}
	for _, d := range s.madeDirs {
		s.blocking[d.Path] = true
	}
	for i := range s.job.Changes {
		if c := &s.job.Changes[i]; c.on(s.to) != nil {
			s.blocking[c.Path] = true
		}
	}
}

// blocks says whether a path, or a folder above it, is in the way of what the side needs.
func (s *settling) blocks(path string) bool {
	for ; path != ""; path = parent(path) {
		if s.blocking[path] {
			return true
		}
	}
	return false
}

// sweep removes temporary files, of an earlier attempt or of one that did not succeed.
func (s *settling) sweep() error {
	for i := range s.job.Changes {
		if err := removeFile(s.root, s.job.Changes[i].Temp); err != nil {
			return err
		}
	}
	s.tree.step("%s:swept", s.to)
	return nil
}

// inspect finds the changes that are not yet on the side.
func (s *settling) inspect() error {
	for i := range s.job.Changes {
		c := &s.job.Changes[i]
		info, there, err := s.current(c.Path)
		if err != nil {
			return err
		}
		if there.matches(c.on(s.to)) {
			continue
		}
		if !there.matches(c.Old) && !there.matches(c.New) {
			if s.to == newSide {
				return &Error{Code: CodeBase, Detail: "a file changed since the tree was read", Paths: []string{c.Path}, Err: errForeign}
			}
			if err := s.keepForeign(i, info); err != nil {
				return err
			}
		}
		s.missing = append(s.missing, i)
		s.found[i] = info
	}
	return nil
}

// content is what a path holds: nothing (or a folder, which is no file either), a file, or something else.
type content struct {
	none     bool
	id, mode string
}

func (c content) matches(want *file) bool {
	if want == nil {
		return c.none
	}
	return !c.none && c.id == want.ID && c.mode == want.Mode
}

func (s *settling) current(path string) (fs.FileInfo, content, error) {
	info, err := lstat(s.root, path)
	if err != nil || info == nil || info.IsDir() {
		return nil, content{none: true}, err
	}
	if !info.Mode().IsRegular() {
		return info, content{}, nil
	}
	e, err := s.read(path, info, io.Discard)
	return info, content{id: e.BlobID, mode: e.Mode}, err
}

func (s *settling) read(path string, info fs.FileInfo, w io.Writer) (Entry, error) {
	dir, err := openFolder(s.root, parent(path))
	if err != nil {
		return Entry{}, err
	}
	defer closeRoot(dir)
	return hashFile(dir, base(path), info, s.job.algo(), w)
}

// keepForeign copies somebody else's file into the job folder before it is replaced.
func (s *settling) keepForeign(n int, info fs.FileInfo) error {
	path := s.job.Changes[n].Path
	dir := filepath.Join(s.job.dir, "foreign")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if info == nil { // removed by somebody else: nothing to keep
		return nil
	}
	var body bytes.Buffer
	switch {
	case info.Mode().IsRegular():
		if _, err := s.read(path, info, &body); err != nil {
			return err
		}
	case info.Mode()&fs.ModeSymlink != 0:
		folder, err := openFolder(s.root, parent(path))
		if err != nil {
			return err
		}
		defer closeRoot(folder)
		target, err := folder.Readlink(base(path))
		if err != nil {
			return err
		}
		fmt.Fprintf(&body, "symbolic link to %q\n", target)
	default:
		return &Error{Code: CodeOccupied, Detail: "something that is no file is in the way; move it aside and recover again", Paths: []string{path}}
	}
	s.job.Kept = append(s.job.Kept, path)
	id := gittree.BlobID(s.job.algo(), body.Bytes())
	if err := writeSynced(filepath.Join(dir, fmt.Sprintf("%d-%s", n, id[:12])), body.Bytes()); err != nil {
		return err
	}
	return syncFolder(dir)
}

// writeTemps puts the side's files beside their targets. Whatever can fail for lack of space fails here.
func (s *settling) writeTemps() error {
	for _, i := range s.missing {
		c := &s.job.Changes[i]
		want := c.on(s.to)
		if want == nil {
			continue
		}
		if err := writeTemp(s.root, c.Temp, s.job.content(s.to, i), want, s.job.algo()); err != nil {
			return fmt.Errorf("write a temporary file for %q: %w", c.Path, err)
		}
		s.tree.step("%s:temp:%d", s.to, i)
	}
	return nil
}

// clear removes what is in the way, files before the folders that hold them.
func (s *settling) clear() error {
	for _, i := range s.missing {
		if c := &s.job.Changes[i]; c.on(s.to) == nil && s.blocks(c.Path) {
			if err := s.removeOne(i); err != nil {
				return err
			}
		}
	}
	for _, d := range slices.Backward(s.goneDirs) {
		if !s.blocks(d.Path) {
			continue
		}
		info, err := lstat(s.root, d.Path)
		if err != nil {
			return err
		}
		if info == nil || !info.IsDir() {
			continue // already done
		}
		if err := removeFolder(s.root, d.Path); err != nil {
			return err
		}
		s.tree.step("%s:cleared:%s", s.to, d.Path)
	}
	return nil
}

// place makes folders and renames the temporary files to their names.
func (s *settling) place() error {
	for _, d := range s.madeDirs {
		if err := makeFolder(s.root, d); err != nil {
			return err
		}
		s.tree.step("%s:folder:%s", s.to, d.Path)
	}
	for _, i := range s.missing {
		c := &s.job.Changes[i]
		if c.on(s.to) == nil {
			continue
		}
		if err := s.unchanged(i); err != nil {
			return err
		}
		if err := move(s.root, c.Temp, c.Path); err != nil {
			return err
		}
		s.tree.step("%s:placed:%d", s.to, i)
	}
	return nil
}

// unchanged: nobody has touched the path since inspect. Between this look and the rename somebody still
// could; the tree that is computed at the end does not depend on it.
func (s *settling) unchanged(i int) error {
	c := &s.job.Changes[i]
	info, err := lstat(s.root, c.Path)
	if err != nil {
		return err
	}
	if before := s.found[i]; before != nil && (info == nil || !same(before, info)) || before == nil && info != nil && !info.IsDir() {
		return &Error{Code: CodeBase, Detail: "a file changed since the tree was read", Paths: []string{c.Path}, Err: errForeign}
	}
	return nil
}

func (s *settling) removeOne(i int) error {
	if s.found[i] == nil {
		return nil
	}
	if err := s.unchanged(i); err != nil {
		return err
	}
	if err := removeFile(s.root, s.job.Changes[i].Path); err != nil {
		return err
	}
	s.tree.step("%s:removed:%d", s.to, i)
	return nil
}

// remove takes away the files that the side does not have, and the folders that are empty without them.
func (s *settling) remove() error {
	for _, i := range s.missing {
		if c := &s.job.Changes[i]; c.on(s.to) == nil && !s.blocks(c.Path) {
			if err := s.removeOne(i); err != nil {
				return err
			}
		}
	}
	for _, d := range slices.Backward(s.goneDirs) {
		if s.blocks(d.Path) {
			continue
		}
		// Somebody's new file keeps the folder; an empty folder more or less is not part of the tree.
		if err := removeFolder(s.root, d.Path); err != nil && !folderInUse(err) {
			return err
		}
		s.tree.step("%s:folder-removed:%s", s.to, d.Path)
	}
	return nil
}

// sync makes the names durable: every folder that had an entry added or removed.
func (s *settling) sync() error {
	dirs := map[string]bool{}
	for i := range s.job.Changes {
		dirs[parent(s.job.Changes[i].Path)] = true
		dirs[parent(s.job.Changes[i].Temp)] = true
	}
	for _, d := range slices.Concat(s.madeDirs, s.goneDirs) {
		dirs[parent(d.Path)] = true
	}
	var sorted []string
	for d := range dirs {
		sorted = append(sorted, d)
	}
	slices.SortFunc(sorted, strings.Compare)
	for _, d := range sorted {
		if err := syncPath(s.root, d); err != nil {
			return fmt.Errorf("sync folder %q: %w", d, err)
		}
	}
	s.tree.step("%s:synced", s.to)
	return nil
}
