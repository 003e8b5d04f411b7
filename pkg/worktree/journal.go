// SPDX-License-Identifier: Apache-2.0

package worktree

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
)

// phase is how far a job has come. The journal is replaced at each change of phase.
type phase string

const (
	prepared   phase = "prepared"    // copies are safe; the tree is old, new or between
	applied    phase = "applied"     // the tree was computed to be the new one
	backingOut phase = "backing-out" // from applied towards old; old, new or between
	restored   phase = "restored"    // the tree was computed to be the old one again
	unproven   phase = "unproven"    // every touched path is old, but the tree is not: somebody changed it
)

// open says whether the tree may be between old and new.
func (p phase) open() bool { return p == prepared || p == backingOut }

// job is the journal of one apply. Everything that Recover needs is in it or in files beside it: "old/<n>"
// and "new/<n>" hold the content of the n-th change, "foreign/" what others had put in its place.
type job struct {
	ID          string
	Root        string
	PatchSHA256 string
	Pre, Post   string // tree ids
	Phase       phase
	Changes     []change
	// OldDirs exist only in the old tree, NewDirs only in the new one; sorted, so parents come first.
	OldDirs, NewDirs []folder
	Kept             []string `json:",omitempty"` // see Report

	dir string // of the job, in the state folder
}

// change is one touched path. Old or New is nil where the path is no file on that side.
type change struct {
	Path     string
	Temp     string // name for temporary files, in a folder that both sides have
	Old, New *file
}

// file is what a path holds on one side.
type file struct {
	ID       string // blob id
	Mode     string // git's
	Perm     uint32 // permission bits, with setuid, setgid and sticky
	UID, GID int
	MTime    int64 // nanoseconds since 1970; 0: the time of writing
}

type folder struct {
	Path     string
	Perm     uint32
	UID, GID int
}

// side is which tree a job is brought to.
type side string

const (
	oldSide side = "old"
	newSide side = "new"
)

func (c *change) on(s side) *file {
	if s == newSide {
		return c.New
	}
	return c.Old
}

func (j *job) algo() gittree.Algo {
	algo, _, _ := strings.Cut(j.Pre, ":")
	return gittree.Algo(algo)
}

func (j *job) paths() []string {
	paths := make([]string, len(j.Changes))
	for i, c := range j.Changes {
		paths[i] = c.Path
	}
	return paths
}

// content is the copy of a change's bytes on one side.
func (j *job) content(s side, n int) string {
	return filepath.Join(j.dir, string(s), strconv.Itoa(n))
}

const maxJobID = 80 // escaped three times as long, still a file name

// jobDir is the folder of a job. The id is escaped, as it comes from outside.
func (t *Tree) jobDir(id string) (string, error) {
	if id == "" || len(id) > maxJobID {
		return "", &Error{Code: CodeConfig, Detail: fmt.Sprintf("a job id has 1 to %d bytes", maxJobID)}
	}
	name := strings.ReplaceAll(url.PathEscape(id), ".", "%2E")
	return filepath.Join(t.spec.StateDir, "jobs", name), nil
}

const journalName = "journal.json"

// save writes the journal so that after a crash it is the former or the new one, whole.
func (t *Tree) save(j *job, p phase) error {
	j.Phase = p
	body, err := json.Marshal(j)
	if err != nil {
		return err
	}
	// A flipped bit in a path or id must not be acted upon.
	body = fmt.Appendf(body, "\n%s\n", patch.Digest(body))
	tmp := filepath.Join(j.dir, journalName+".tmp")
	if err := writeSynced(tmp, body); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	t.step("journal-temporary:%s", p)
	if err := os.Rename(tmp, filepath.Join(j.dir, journalName)); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if err := syncFolder(j.dir); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	t.step("journal:%s", p)
	return nil
}

func writeSynced(path string, body []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// load reads a job's journal; nil without error if the job has none (yet).
func (t *Tree) load(dir string) (*job, error) {
	raw, err := os.ReadFile(filepath.Join(dir, journalName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	damaged := &Error{Code: CodeState, Detail: "the journal in " + filepath.Base(dir) + " is damaged; restore the state folder from a backup, or compare the tree by hand"}
	body, sum, _ := bytes.Cut(raw, []byte("\n"))
	if string(sum) != patch.Digest(body)+"\n" {
		return nil, damaged
	}
	j := &job{dir: dir}
	if err := json.Unmarshal(body, j); err != nil {
		return nil, damaged
	}
	if j.Root != t.root {
		return nil, &Error{Code: CodeConfig, Detail: "the state folder belongs to another tree"}
	}
	return j, nil
}

// jobs lists the job folders, in the order of their names.
func (t *Tree) jobs() ([]string, error) {
	items, err := os.ReadDir(filepath.Join(t.spec.StateDir, "jobs"))
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, item := range items {
		dirs = append(dirs, filepath.Join(t.spec.StateDir, "jobs", item.Name()))
	}
	return dirs, nil
}

// refuseOpen refuses while a job other than this one may have left the tree between old and new.
func (t *Tree) refuseOpen(except string) error {
	dirs, err := t.jobs()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if dir == except {
			continue
		}
		j, err := t.load(dir)
		if err != nil {
			return err
		}
		if j != nil && j.Phase.open() {
			return &Error{Code: CodeRecovery, Detail: fmt.Sprintf("job %q was interrupted; recover first", j.ID)}
		}
	}
	return nil
}

const rememberedTrees = 16

// remember keeps the list of files of a tree that was met, so that a later mismatch can name paths. It is
// a convenience: a failure is no reason to stop.
func (t *Tree) remember(tree string, entries []gittree.Entry) {
	name := t.treeFile(tree)
	if _, err := os.Stat(name); err == nil {
		return
	}
	var b bytes.Buffer
	for _, e := range entries {
		fmt.Fprintf(&b, "%s blob %s\t%s\x00", e.Mode, e.ID, e.Path)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "new-")
	if err != nil {
		return
	}
	_, err = f.Write(b.Bytes())
	if errors.Join(err, f.Close()) != nil || os.Rename(f.Name(), name) != nil {
		return
	}
	t.forget()
}

func (t *Tree) treeFile(tree string) string {
	return filepath.Join(t.spec.StateDir, "trees", strings.ReplaceAll(tree, ":", "-"))
}

// forget keeps the newest lists.
func (t *Tree) forget() {
	items, err := os.ReadDir(filepath.Join(t.spec.StateDir, "trees"))
	if err != nil {
		return
	}
	var infos []fs.FileInfo
	for _, item := range items {
		if info, err := item.Info(); err == nil {
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for _, info := range infos[min(len(infos), rememberedTrees):] {
		_ = os.Remove(filepath.Join(t.spec.StateDir, "trees", info.Name())) // tried again next time
	}
}
