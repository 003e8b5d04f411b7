// SPDX-License-Identifier: Apache-2.0

package session

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// peer is the process at the other end of a unix socket, as the kernel knows it.
func peer(conn *net.UnixConn) (pid int, uid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var (
		cred   *unix.Ucred
		failed error
	)
	if err := raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, 0, err
	}
	if failed != nil {
		return 0, 0, fmt.Errorf("credentials of the peer: %w", failed)
	}
	return int(cred.Pid), cred.Uid, nil
}

// signal sends a signal to exactly this process, and not to another that has its number by now. A process that is gone is no
// error.
func (t *table) signal(id ident, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", id.PID, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if now, err := t.read(id.PID); err != nil || now.ident != id {
		return nil //nolint:nilerr // it ended between the look and the signal
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal to process %d: %w", id.PID, err)
	}
	return nil
}

// adopt makes this process the parent of every descendant whose own parent ends.
func adopt() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// limitProcesses bounds how many processes the user of a process may have; children inherit it.
func limitProcesses(pid int, most uint64) error {
	return os.NewSyscallError("prlimit", unix.Prlimit(pid, unix.RLIMIT_NPROC, &unix.Rlimit{Cur: most, Max: most}, nil))
}

// isTerminal tells whether a descriptor is a terminal.
func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// awaitHangUp returns when the other side of a terminal is closed.
func awaitHangUp(fd int) {
	for {
		set := []unix.PollFd{{Fd: int32(fd)}} // hang-up is reported without being asked for
		n, err := unix.Poll(set, -1)
		if err != nil && !errors.Is(err, unix.EINTR) || err == nil && n > 0 {
			return
		}
	}
}

// changedAt is when a file's contents or properties were changed last, in nanoseconds.
func changedAt(st *syscall.Stat_t) int64 { return st.Ctim.Nano() }
