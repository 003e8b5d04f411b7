// SPDX-License-Identifier: Apache-2.0

package worktree

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"cacert.org/emergency/pkg/gitrepo/gittree"
)

// scan reads and hashes every file that belongs to the tree.
func (t *Tree) scan(ctx context.Context, root *os.Root, algo gittree.Algo) ([]Entry, error) {
	if !algo.Valid() {
		return nil, &Error{Code: CodeConfig, Detail: fmt.Sprintf("unknown object format %q", string(algo))}
	}
	s := &scanner{tree: t, algo: algo}
	if err := s.folder(ctx, root, ""); err != nil {
		return nil, err
	}
	slices.SortFunc(s.entries, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
	return s.entries, nil
}

type scanner struct {
	tree    *Tree
	algo    gittree.Algo
	entries []Entry
}

// folder reads one folder, held by its descriptor; prefix is its path with a slash, "" for the root.
func (s *scanner) folder(ctx context.Context, dir *os.Root, prefix string) error {
	names, err := readNames(dir)
	if err != nil {
		return fmt.Errorf("read folder %q: %w", prefix, err)
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := dir.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since the folder was listed
		}
		if err != nil {
			return err
		}
		if err := s.item(ctx, dir, prefix+name, name, info); err != nil {
			return err
		}
	}
	return nil
}

func readNames(dir *os.Root) ([]string, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer closeReader(f)
	return f.Readdirnames(-1)
}

func (s *scanner) item(ctx context.Context, dir *os.Root, path, name string, info fs.FileInfo) error {
	rules := s.tree.rules
	switch {
	case info.IsDir():
		if !rules.enter(path) {
			return nil
		}
		sub, err := openChild(dir, name, info)
		if err != nil {
			return unstable(path, err)
		}
		defer closeRoot(sub)
		return s.folder(ctx, sub, path+"/")
	case !rules.listed(path):
		return nil
	case len(s.entries) >= s.tree.spec.MaxFiles:
		return &Error{Code: CodeConfig, Detail: fmt.Sprintf("the tree has more than %d files; raise the limit or narrow what belongs to the tree", s.tree.spec.MaxFiles)}
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := dir.Readlink(name)
		if err != nil {
			return unstable(path, err)
		}
		sum := sha256.Sum256([]byte(target))
		s.entries = append(s.entries, Entry{path, gittree.ModeSymlink, gittree.BlobID(s.algo, []byte(target)), hex.EncodeToString(sum[:]), int64(len(target))})
	case info.Mode().IsRegular():
		e, err := hashFile(dir, name, info, s.algo, io.Discard)
		if err != nil {
			return unstable(path, err)
		}
		e.Path = path
		s.entries = append(s.entries, e)
	}
	return nil
}

var errChanged = errors.New("changed while it was read")

func unstable(path string, err error) error {
	if errors.Is(err, errChanged) || errors.Is(err, fs.ErrNotExist) {
		return &Error{Code: CodeUnstable, Detail: "a file changed while it was read; repeat", Paths: []string{path}, Err: err}
	}
	return err
}

// hashFile reads a regular file that Lstat has described, copies it to w, and makes sure that it is the
// same file and did not change meanwhile. O_NONBLOCK: a pipe put in its place must not hang us.
func hashFile(dir *os.Root, name string, info fs.FileInfo, algo gittree.Algo, w io.Writer) (Entry, error) {
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Entry{}, err
	}
	defer closeReader(f)
	before, err := f.Stat()
	if err != nil {
		return Entry{}, err
	}
	if !same(info, before) {
		return Entry{}, errChanged
	}
	blob, sum := gittree.BlobHash(algo, before.Size()), sha256.New()
	n, err := io.Copy(io.MultiWriter(blob, sum, w), io.LimitReader(f, before.Size()+1))
	if err != nil {
		return Entry{}, err
	}
	after, err := f.Stat()
	if err != nil {
		return Entry{}, err
	}
	if n != before.Size() || !same(before, after) {
		return Entry{}, errChanged
	}
	return Entry{Mode: gitMode(info.Mode()), BlobID: hex.EncodeToString(blob.Sum(nil)), SHA256: hex.EncodeToString(sum.Sum(nil)), Size: n}, nil
}

// gitMode is git's view of a regular file's mode: only whether its owner may execute it counts.
func gitMode(mode fs.FileMode) string {
	if mode&0o100 != 0 {
		return gittree.ModeExecutable
	}
	return gittree.ModeFile
}

// same: two descriptions of one file in one state.
func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Mode() == b.Mode() && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// openChild opens the folder that Lstat has described, and not what may have taken its place: os.Root
// keeps within the root but follows symbolic links there.
func openChild(dir *os.Root, name string, info fs.FileInfo) (*os.Root, error) {
	sub, err := dir.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	got, err := sub.Stat(".")
	if err == nil && !os.SameFile(info, got) {
		err = errChanged
	}
	if err != nil {
		closeRoot(sub)
		return nil, err
	}
	return sub, nil
}

// What was only read, or is closed again after a sync, has nothing to lose at closing.
func closeReader(f *os.File) { _ = f.Close() }
func closeRoot(r *os.Root)   { _ = r.Close() }
