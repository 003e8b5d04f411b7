// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cacert.org/emergency/pkg/gitrepo/gittree"
)

// Changed lists the paths at which two lists of files differ, sorted.
func Changed(before, now []gittree.Entry) []string {
	was := map[string]gittree.Entry{}
	for _, e := range before {
		was[e.Path] = e
	}
	var list []string
	for _, e := range now {
		if was[e.Path] != e {
			list = append(list, e.Path)
		}
		delete(was, e.Path)
	}
	for path := range was {
		list = append(list, path)
	}
	slices.Sort(list)
	return list
}

// Limits of contents that are handed out.
const (
	MaxFile  = 4 << 20
	MaxTotal = 32 << 20
)

// Content is a file of the versioned tree.
type Content struct {
	Path string
	Mode string // git's; "" if the file is gone
	Data []byte // of a symbolic link, its target
}

// ErrTooLarge is returned for contents beyond the limits; its text names the file.
var ErrTooLarge = errors.New("larger than what is handed out")

// ReadFiles reads files of the tree below root: those alone that belong to it, whose list is now. A path that does not is
// taken for gone. No link is followed out of the tree.
func ReadFiles(ctx context.Context, root string, now []gittree.Entry, paths []string) ([]Content, error) {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	entries := map[string]gittree.Entry{}
	for _, e := range now {
		entries[e.Path] = e
	}
	var list []Content
	total := 0
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e, ok := entries[path]
		if !ok {
			list = append(list, Content{Path: path})
			continue
		}
		data, err := readFile(dir, e)
		if err != nil {
			return nil, fmt.Errorf("read %q: %w", path, err)
		}
		if total += len(data); total > MaxTotal {
			return nil, fmt.Errorf("%w: with %q the files asked for have more than %d bytes; ask for fewer at once", ErrTooLarge, path, MaxTotal)
		}
		list = append(list, Content{path, e.Mode, data})
	}
	return list, nil
}

func readFile(dir *os.Root, e gittree.Entry) ([]byte, error) {
	name := filepath.FromSlash(e.Path)
	if e.Mode == "120000" {
		target, err := dir.Readlink(name)
		return []byte(target), err
	}
	info, err := dir.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is no regular file any more, but %s", strings.ToLower(info.Mode().Type().String()))
	}
	if info.Size() > MaxFile {
		return nil, fmt.Errorf("%w: it has %d bytes, the limit is %d", ErrTooLarge, info.Size(), MaxFile)
	}
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if len(data) > MaxFile {
		err = errors.Join(err, ErrTooLarge)
	}
	return data, errors.Join(err, f.Close())
}
