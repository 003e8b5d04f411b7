// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package site

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// swap lets two folders change places.
func swap(fresh, dir string) error { return replace(fresh, dir) }

// syncTree brings a tree to the disk, file by file.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
