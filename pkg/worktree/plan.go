// SPDX-License-Identifier: Apache-2.0

package worktree

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
)

// planner works out, from the tree as it is, everything that a job does, so that the journal can name it
// before the first step.
type planner struct {
	root    *os.Root
	job     *job
	old     map[string]bool // paths of files that the job removes
	new     []string        // paths of files that the job creates, sorted
	oldDirs map[string]folder
	newDirs map[string]folder
}

func (t *Tree) plan(root *os.Root, id string, b binding, s *staged) (*job, error) {
	p := &planner{
		root: root, old: map[string]bool{}, oldDirs: map[string]folder{}, newDirs: map[string]folder{},
		job: &job{ID: id, Root: t.root, PatchSHA256: patch.Digest(b.patch), Pre: s.report.PreTree, Post: s.report.PostTree},
	}
	for _, c := range s.changes {
		if c.NewMode == "" {
			p.old[c.Path] = true
		} else if c.OldMode == "" {
			p.new = append(p.new, c.Path)
		}
	}
	for _, c := range s.changes {
		if err := p.change(c, s.renamed[c.Path]); err != nil {
			return nil, err
		}
	}
	for _, path := range p.new {
		if err := p.makeRoom(path); err != nil {
			return nil, err
		}
	}
	for path := range p.old {
		if err := p.emptied(parent(path)); err != nil {
			return nil, err
		}
	}
	p.job.OldDirs, p.job.NewDirs = sortedFolders(p.oldDirs), sortedFolders(p.newDirs)
	return p.job, p.finish()
}

func sortedFolders(set map[string]folder) []folder {
	var list []folder
	for _, f := range set {
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b folder) int { return cmp.Compare(a.Path, b.Path) })
	return list
}

// change describes both sides of one path. A file keeps its permission bits but for the executable ones,
// if git's mode changes; a renamed file takes its own with it.
func (p *planner) change(c gittree.Change, from string) error {
	out := change{Path: c.Path}
	if c.OldMode != "" {
		old, err := p.describe(c.Path, c.OldID, c.OldMode)
		if err != nil {
			return err
		}
		out.Old = old
	}
	if c.NewMode != "" {
		out.New = &file{ID: c.NewID, Mode: c.NewMode, Perm: 0o644, UID: -1, GID: -1}
		model := out.Old
		if model == nil && from != "" {
			var err error
			if model, err = p.describe(from, "", ""); err != nil {
				return err
			}
		}
		if model != nil {
			out.New.Perm, out.New.UID, out.New.GID = model.Perm, model.UID, model.GID
		}
		out.New.Perm = executable(out.New.Perm, c.NewMode)
	}
	p.job.Changes = append(p.job.Changes, out)
	return nil
}

func (p *planner) describe(path, id, mode string) (*file, error) {
	info, err := lstat(p.root, path)
	if err != nil {
		return nil, err
	}
	if info == nil || !info.Mode().IsRegular() {
		return nil, unstable(path, errChanged)
	}
	uid, gid := owner(info)
	return &file{ID: id, Mode: mode, Perm: uint32(info.Mode() & keptBits), UID: uid, GID: gid, MTime: info.ModTime().UnixNano()}, nil
}

// executable brings permission bits in line with git's mode: whoever may read may execute, or nobody.
func executable(perm uint32, mode string) uint32 {
	has := gitMode(fs.FileMode(perm)) == gittree.ModeExecutable
	switch {
	case mode == gittree.ModeExecutable && !has:
		return perm | 0o100 | (perm&0o444)>>2
	case mode == gittree.ModeFile && has:
		return perm &^ 0o111
	}
	return perm
}

// makeRoom plans the folders that a new file needs, and the removal of an old folder in its place.
func (p *planner) makeRoom(path string) error {
	for at := 0; ; {
		i := strings.IndexByte(path[at:], '/')
		if i < 0 {
			break
		}
		at += i
		dir := path[:at]
		at++
		info, err := lstat(p.root, dir)
		if err != nil {
			return err
		}
		switch {
		case info == nil || p.old[dir]:
			p.newDirs[dir] = folder{Path: dir}
		case !info.IsDir():
			return occupied(dir)
		}
	}
	info, err := lstat(p.root, path)
	switch {
	case err != nil:
		return err
	case info == nil:
		return nil
	case !info.IsDir():
		return occupied(path) // on disk, but not in the tree: a socket or the like
	}
	return p.cleared(path)
}

func occupied(path string) error {
	return &Error{Code: CodeOccupied, Detail: "something that does not belong to the tree is in the way; move it aside and repeat", Paths: []string{path}}
}

// cleared plans the removal of a folder that must give place to a file: it may hold nothing but files that
// the job removes, and folders of the same kind.
func (p *planner) cleared(path string) error {
	names, err := p.list(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		child := path + "/" + name
		info, err := lstat(p.root, child)
		switch {
		case err != nil:
			return err
		case info != nil && info.IsDir():
			if err := p.cleared(child); err != nil {
				return err
			}
		case !p.old[child]:
			return occupied(child)
		}
	}
	return p.dropFolder(path)
}

func (p *planner) list(path string) ([]string, error) {
	dir, err := openFolder(p.root, path)
	if err != nil {
		return nil, err
	}
	defer closeRoot(dir)
	return readNames(dir)
}

func (p *planner) dropFolder(path string) error {
	info, err := lstat(p.root, path)
	if err != nil {
		return err
	}
	if info == nil || !info.IsDir() {
		return unstable(path, errChanged)
	}
	uid, gid := owner(info)
	p.oldDirs[path] = folder{path, uint32(info.Mode() & keptBits), uid, gid}
	return nil
}

// emptied plans the removal of a folder whose last file the job removes, as git does; and of those above.
func (p *planner) emptied(path string) error {
	for ; path != ""; path = parent(path) {
		if _, done := p.oldDirs[path]; done {
			continue
		}
		if slices.ContainsFunc(p.new, func(n string) bool { return within(n, path) }) {
			return nil
		}
		names, err := p.list(path)
		if err != nil {
			return err
		}
		for _, name := range names {
			child := path + "/" + name
			if _, gone := p.oldDirs[child]; !gone && !p.old[child] {
				return nil
			}
		}
		if err := p.dropFolder(path); err != nil {
			return err
		}
	}
	return nil
}

// finish chooses where temporary files stand, and whose owner new files and folders get: those of the
// deepest folder above that both sides have.
func (p *planner) finish() error {
	for i := range p.job.Changes {
		c := &p.job.Changes[i]
		dir := p.stable(c.Path)
		c.Temp = tempPrefix + patch.Digest([]byte(p.job.ID))[:8] + fmt.Sprintf("-%d", i)
		if dir != "" {
			c.Temp = dir + "/" + c.Temp
		}
		if info, err := lstat(p.root, c.Temp); err != nil || info != nil {
			if err == nil {
				err = occupied(c.Temp)
			}
			return err
		}
		if c.New != nil && c.New.UID < 0 {
			f, err := p.stableFolder(c.Path)
			if err != nil {
				return err
			}
			c.New.UID, c.New.GID = f.UID, f.GID
		}
	}
	for i := range p.job.NewDirs {
		f, err := p.stableFolder(p.job.NewDirs[i].Path)
		if err != nil {
			return err
		}
		f.Path = p.job.NewDirs[i].Path
		p.job.NewDirs[i] = f
	}
	return nil
}

func (p *planner) stable(path string) string {
	for dir := parent(path); ; dir = parent(dir) {
		_, onlyOld := p.oldDirs[dir]
		_, onlyNew := p.newDirs[dir]
		if !onlyOld && !onlyNew {
			return dir
		}
	}
}

// stableFolder is the model for what is created below it. Write permission for others is not passed on.
func (p *planner) stableFolder(path string) (folder, error) {
	var f folder
	err := withFolder(p.root, p.stable(path), func(dir *os.File) error {
		info, err := dir.Stat()
		if err != nil {
			return err
		}
		f.UID, f.GID = owner(info)
		f.Perm = uint32(info.Mode()&(fs.ModePerm|fs.ModeSetgid)) &^ 0o022
		f.Perm |= 0o700
		return nil
	})
	return f, err
}
