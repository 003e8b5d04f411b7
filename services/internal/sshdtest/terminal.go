// SPDX-License-Identifier: Apache-2.0

package sshdtest

import (
	"errors"
	"os"
	"os/user"
	"slices"
	"strings"
)

// ErrNoTerminal is returned where sshd could be started and could give nobody a terminal.
var ErrNoTerminal = errors.New("sshd that is not started by root cannot give a terminal on this machine, because new terminals do not belong to " +
	"group tty (a container's /dev/pts): run as root, or mount /dev/pts with gid=<tty>,mode=620 as ordinary machines do")

// checkTerminal foresees that sshd would want to change the group of a terminal, which only root may.
func checkTerminal() error {
	tty, err := user.LookupGroup("tty")
	if os.Getuid() == 0 || err != nil {
		return nil
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil // no Linux: sshd may have its own ways
	}
	ok := true
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 3 && f[1] == "/dev/pts" { // the last one counts
			ok = slices.Contains(strings.Split(f[3], ","), "gid="+tty.Gid)
		}
	}
	if !ok {
		return ErrNoTerminal
	}
	return nil
}
