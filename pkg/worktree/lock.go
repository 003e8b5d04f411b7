// SPDX-License-Identifier: Apache-2.0

package worktree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	shared    = unix.LOCK_SH
	exclusive = unix.LOCK_EX
)

// lock takes the tree for reading or changing, against other processes and against other calls in this
// one. It does not wait: who calls knows better when to try again. The kernel gives the lock back when
// the process dies.
func (t *Tree) lock(kind int) (unlock func(), err error) {
	if t.spec.StateDir == "" {
		if kind == shared {
			return func() {}, nil
		}
		return nil, &Error{Code: CodeConfig, Detail: "no state folder is configured"}
	}
	f, err := os.OpenFile(filepath.Join(t.spec.StateDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), kind|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = &Error{Code: CodeBusy, Detail: "another operation is using the tree; repeat when it is done"}
	}
	if err != nil {
		closeReader(f)
		return nil, err
	}
	return func() {
		// Not left to closing: a process that this one is just starting holds the descriptor too, until
		// it becomes another program.
		_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
		closeReader(f)
	}, nil
}
