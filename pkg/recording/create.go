// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Config of a Writer. All fields are required.
type Config struct {
	// Dir is the folder of recordings: ours alone (0700, our user), no symlink. It is made if only it is missing.
	Dir string
	// Name of the file in it. Nothing of that name may be there, not even a symlink (N22).
	Name string
	// Header; its StartedAt is set from Now.
	Header Header
	// Limit in bytes of the file; see LimitError.
	Limit int64
	// Now is asked at every frame.
	Now func() time.Time
	// Salt gives 32 random bytes for each commitment.
	Salt io.Reader
}

// Create begins a recording. The header is on the disk when it returns.
func Create(cfg Config) (*Writer, error) {
	if cfg.Dir == "" || cfg.Name == "" || cfg.Now == nil || cfg.Salt == nil {
		return nil, errors.New("recording: folder, name, clock or salt is missing")
	}
	if cfg.Limit < MinLimit {
		return nil, fmt.Errorf("recording: the limit of %d bytes is below %d", cfg.Limit, int64(MinLimit))
	}
	cfg.Header.StartedAt = cfg.Now().UTC().Truncate(time.Millisecond)
	line, err := encodeHeader(cfg.Header)
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	f, err := createFile(cfg.Dir, cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	w := newWriter(cfg, f, line)
	if _, err := w.Checkpoint(); err != nil {
		f.Close()
		return nil, err
	}
	return w, nil
}

// createFile makes a file that nobody prepared for us. Everything goes through the folder that was looked at: putting another
// in its place changes nothing.
func createFile(dir, name string) (*os.File, error) {
	if !filepath.IsLocal(name) || filepath.Base(name) != name {
		return nil, fmt.Errorf("%q is not the name of a file in a folder", name)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the folder of recordings: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, fmt.Errorf("look at the folder of recordings: %w", err)
	}
	if err := ownFolder(dir, info); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder of recordings: %w", err)
	}
	defer func() { _ = root.Close() }()
	if opened, err := root.Stat("."); err != nil || !os.SameFile(info, opened) {
		return nil, fmt.Errorf("folder %s was exchanged while it was being opened", dir)
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s is already there in %s: a recording is never written over, and a link never followed", name, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("create the file: %w", err)
	}
	if err := syncFolder(root); err != nil {
		f.Close()
		return nil, fmt.Errorf("sync the folder of recordings: %w", err)
	}
	return f, nil
}

// ownFolder holds that nobody else can put anything into the folder or take it out (N22).
func ownFolder(dir string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is no folder (a link is not followed)", dir)
	case !ok || int(st.Uid) != os.Geteuid():
		return fmt.Errorf("folder %s belongs to another user: recordings lie where nobody else can reach them", dir)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("folder %s is open to others (%v): chmod 700 it", dir, info.Mode().Perm())
	}
	return nil
}

func syncFolder(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
