// SPDX-License-Identifier: Apache-2.0

package site

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// swap lets two folders change places at once.
func swap(fresh, dir string) error {
	err := unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system that cannot
		return replace(fresh, dir)
	}
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: fresh, New: dir, Err: err}
	}
	return nil
}

// syncTree brings a tree to the disk.
func syncTree(dir string) error {
	f, err := os.Open(dir) // the folder that was just made
	if err != nil {
		return err
	}
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		err = fmt.Errorf("sync %s: %w", dir, err)
		return errors.Join(err, f.Close())
	}
	return f.Close()
}
