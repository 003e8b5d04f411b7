// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package session

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// errLinux is what everything here says where the kernel lacks what a watched session stands on.
var errLinux = errors.New("watched console sessions need a Linux host")

func peer(*net.UnixConn) (pid int, uid uint32, err error) { return 0, 0, errLinux }

func (t *table) signal(ident, unix.Signal) error { return errLinux }

func adopt() error { return errLinux }

func limitProcesses(int, uint64) error { return errLinux }

func isTerminal(int) bool { return false }

func awaitHangUp(int) {}

func changedAt(*syscall.Stat_t) int64 { return 0 }
