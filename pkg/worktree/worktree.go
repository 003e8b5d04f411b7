// SPDX-License-Identifier: Apache-2.0

// Package worktree patches a plain folder on a host, so that the tree that was reviewed is the tree that
// runs, or nothing changed.
//
// The folder need not be a git checkout. Which of its files belong to the tree is configured (Spec); all
// others, and everything named .git, are ignored and never touched. The tree's id is computed from the files
// themselves and equals git's (procedure.md 0.14).
//
// # Order of writes
//
// Apply computes the base from disk and the result in a staging area, and refuses before it touches
// anything if either differs from what the binding says. Then:
//
//  1. The former and the new content of each touched file are copied into a job folder outside the tree
//     and synced, each checked against its blob id.
//  2. A journal that names every step is written (temporary file, sync, rename, sync). From here a kill is
//     repaired by Recover; before, nothing has happened.
//  3. The new files are written beside their targets under temporary names and synced. A full disk ends
//     the job here, with no file changed.
//  4. Renames, deletions and folders, then a sync of every folder touched.
//  5. The tree is computed again from disk. Only if it is the result does the journal say "applied";
//     else the former tree is restored from the copies and computed again.
//
// At any moment each touched path is wholly old or wholly new, and Recover settles all of them to one
// side. A touched file that somebody else changed meanwhile is kept in the job folder before it is replaced.
//
// Paths are walked by folder descriptors, one name at a time, and no symbolic link is followed, so that
// another process that may write into the tree cannot lead a write out of it or to another place in it.
// Modes are preserved, and owners where the process may; a file's hard links and extended attributes are not.
package worktree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
)

// Spec says what belongs to the tree and where state is kept.
type Spec struct {
	// Include lists what belongs to the tree; empty means everything. A pattern is a path relative to the
	// root whose components may hold *, ? and [...] as in path.Match; ** stands for any number of
	// components. A pattern also covers everything below what it names.
	Include []string
	// Exclude takes out of what Include lists; same patterns.
	Exclude []string
	// StateDir holds lock, journals, backups and staging; outside the tree, created with mode 0700. Without
	// it only ID and Manifest work, and without a lock.
	StateDir string
	// Patch are the limits and permissions for patches.
	Patch patch.Options
	// Git is the path of the git program; default: git from the PATH of this process.
	Git string
	// MaxFiles bounds the files of the tree; default 500,000.
	MaxFiles int
	// Failpoint, if set, is told the name of each step that has just been taken. Tests use it to end the
	// process there, or to play another process; a program leaves it nil.
	Failpoint func(step string)
}

// Tree is one folder on a host. It is safe for concurrent use, also by several processes with the same
// StateDir: an operation that cannot get the lock is refused with CodeBusy and may be repeated.
type Tree struct {
	root  string
	rules rules
	spec  Spec
}

// Open checks the configuration. It neither reads nor changes the tree.
func Open(root string, spec Spec) (*Tree, error) {
	rules, err := parseRules(spec.Include, spec.Exclude)
	if err != nil {
		return nil, err
	}
	if spec.MaxFiles <= 0 {
		spec.MaxFiles = 500_000
	}
	if root, err = realFolder(root); err != nil {
		return nil, fmt.Errorf("open tree: %w", err)
	}
	t := &Tree{root: root, rules: rules, spec: spec}
	if spec.StateDir == "" {
		return t, nil
	}
	if err := os.MkdirAll(spec.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("create state folder: %w", err)
	}
	if t.spec.StateDir, err = realFolder(spec.StateDir); err != nil {
		return nil, fmt.Errorf("open state folder: %w", err)
	}
	if within(t.spec.StateDir, root) || within(root, t.spec.StateDir) {
		return nil, &Error{Code: CodeConfig, Detail: "the state folder and the tree must not lie in each other"}
	}
	for _, dir := range []string{"jobs", "trees", "tmp"} {
		if err := os.MkdirAll(filepath.Join(t.spec.StateDir, dir), 0o700); err != nil {
			return nil, fmt.Errorf("create state folder: %w", err)
		}
	}
	return t, nil
}

func realFolder(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", &fs.PathError{Op: "open", Path: path, Err: errors.New("not a folder")}
	}
	return path, nil
}

func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/")
}

// Entry is one file of the tree.
type Entry struct {
	Path   string // relative to the root, with slashes; any bytes that the file system allows
	Mode   string // 100644, 100755 (owner may execute) or 120000
	BlobID string // in the object format asked for
	SHA256 string // of the content; of a symbolic link, of its target
	Size   int64
}

// Manifest lists the files that belong to the tree, sorted by path. Empty folders, sockets, devices and
// the like are no part of it. CodeUnstable if a file changes while it is read.
func (t *Tree) Manifest(ctx context.Context, algo gittree.Algo) ([]Entry, error) {
	unlock, err := t.lock(shared)
	if err != nil {
		return nil, err
	}
	defer unlock()
	root, err := os.OpenRoot(t.root)
	if err != nil {
		return nil, err
	}
	defer closeRoot(root)
	return t.scan(ctx, root, algo)
}

// ID is the tree id that git computes for the same files: "sha1:..." or "sha256:...".
func (t *Tree) ID(ctx context.Context, algo gittree.Algo) (string, error) {
	entries, err := t.Manifest(ctx, algo)
	if err != nil {
		return "", err
	}
	return gittree.ID(algo, gitEntries(entries))
}

func gitEntries(entries []Entry) []gittree.Entry {
	list := make([]gittree.Entry, len(entries))
	for i, e := range entries {
		list[i] = gittree.Entry{Path: e.Path, Mode: e.Mode, ID: e.BlobID}
	}
	return list
}

func (t *Tree) step(format string, args ...any) {
	if t.spec.Failpoint != nil {
		t.spec.Failpoint(fmt.Sprintf(format, args...))
	}
}
