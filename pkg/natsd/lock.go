// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lockDir takes the folder for this server. Two servers on one store destroy it, and NATS does not prevent that. The
// kernel drops the lock with the process, so a crash leaves nothing to clean up; the number in the file is only for the
// error text.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "epatch.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		_ = f.Close()
		return nil, fmt.Errorf("%w: %s is locked by process %s: stop it or choose another folder",
			ErrInUse, path, strings.TrimSpace(string(holder)))
	}
	if err := f.Truncate(0); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write lock file: %w", err)
	}
	if _, err := fmt.Fprintf(f, "%d\n", os.Getpid()); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write lock file: %w", err)
	}
	return f, nil
}
