// SPDX-License-Identifier: Apache-2.0

package worktree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"cacert.org/emergency/pkg/gitrepo/gittree"
	"golang.org/x/sys/unix"
)

// tempPrefix begins the names of our temporary files in the tree. They stand there only while a job runs.
const tempPrefix = ".epatch-tmp-"

func parent(path string) string {
	at := strings.LastIndexByte(path, '/')
	if at < 0 {
		return ""
	}
	return path[:at]
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// openFolder opens a folder of the tree component by component; "" is the root. A component that is
// missing or no folder gives fs.ErrNotExist: there is nothing below it. A symbolic link is no folder.
func openFolder(root *os.Root, path string) (*os.Root, error) {
	dir, err := root.OpenRoot(".")
	if err != nil || path == "" {
		return dir, err
	}
	for name := range strings.SplitSeq(path, "/") {
		info, err := dir.Lstat(name)
		if err == nil && !info.IsDir() {
			err = &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		var sub *os.Root
		if err == nil {
			sub, err = openChild(dir, name, info)
		}
		closeRoot(dir)
		if err != nil {
			return nil, err
		}
		dir = sub
	}
	return dir, nil
}

// lstat describes a path without following any symbolic link; nil if there is nothing.
func lstat(root *os.Root, path string) (fs.FileInfo, error) {
	dir, err := openFolder(root, parent(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closeRoot(dir)
	info, err := dir.Lstat(base(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return info, err
}

const keptBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

func owner(info fs.FileInfo) (uid, gid int) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid)
	}
	return -1, -1 // chown leaves it
}

// writeTemp writes a synced temporary file from a copy in the job folder, and checks on the way that the
// copy still is what the journal says.
func writeTemp(root *os.Root, temp, from string, want *file, algo gittree.Algo) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer closeReader(src)
	info, err := src.Stat()
	if err != nil {
		return err
	}
	dir, err := openFolder(root, parent(temp))
	if err != nil {
		return err
	}
	defer closeRoot(dir)
	dst, err := dir.OpenFile(base(temp), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	blob := gittree.BlobHash(algo, info.Size())
	_, err = io.Copy(io.MultiWriter(dst, blob), src)
	if err == nil && fmt.Sprintf("%x", blob.Sum(nil)) != want.ID {
		err = &Error{Code: CodeState, Detail: "a copy in the state folder is damaged"}
	}
	if err == nil {
		err = dress(dst, want)
	}
	if err == nil && want.MTime != 0 {
		at := time.Unix(0, want.MTime)
		err = dir.Chtimes(base(temp), at, at)
	}
	return errors.Join(err, dst.Sync(), dst.Close())
}

// dress gives an open file its owner, where that is permitted, and then its mode, which chown may clear.
func dress(f *os.File, want *file) error {
	if err := f.Chown(want.UID, want.GID); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return f.Chmod(fs.FileMode(want.Perm))
}

// move renames within the tree, by the descriptors of both folders.
func move(root *os.Root, from, to string) error {
	return withFolder(root, parent(from), func(src *os.File) error {
		return withFolder(root, parent(to), func(dst *os.File) error {
			if err := unix.Renameat(int(src.Fd()), base(from), int(dst.Fd()), base(to)); err != nil {
				return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
			}
			return nil
		})
	})
}

func withFolder(root *os.Root, path string, do func(*os.File) error) error {
	dir, err := openFolder(root, path)
	if err != nil {
		return err
	}
	defer closeRoot(dir)
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer closeReader(f)
	return do(f)
}

// removeFile and removeFolder leave what is of the other kind; what is missing is success.
func removeFile(root *os.Root, path string) error { return unlink(root, path, 0) }

func removeFolder(root *os.Root, path string) error { return unlink(root, path, unix.AT_REMOVEDIR) }

func unlink(root *os.Root, path string, flags int) error {
	err := withFolder(root, parent(path), func(dir *os.File) error {
		return unix.Unlinkat(int(dir.Fd()), base(path), flags)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// makeFolder creates a folder, if it is missing, with owner and mode.
func makeFolder(root *os.Root, f folder) error {
	dir, err := openFolder(root, parent(f.Path))
	if err != nil {
		return err
	}
	defer closeRoot(dir)
	err = dir.Mkdir(base(f.Path), 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Also if it exists: we may have been killed before it had its mode.
	return withFolder(root, f.Path, func(made *os.File) error {
		return dress(made, &file{Perm: f.Perm, UID: f.UID, GID: f.GID})
	})
}

// syncPath syncs a folder of the tree, if it exists.
func syncPath(root *os.Root, path string) error {
	err := withFolder(root, path, (*os.File).Sync)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// folderInUse: the folder is not empty, or is no folder (any more).
func folderInUse(err error) bool {
	return errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTDIR)
}
