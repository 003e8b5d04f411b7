// SPDX-License-Identifier: Apache-2.0

package child

import (
	"os/exec"
	"runtime"
	"syscall"
)

// bound has the kernel end a program with this process, however this one ends.
func bound(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// starts are run by one thread that lives as long as the process: what the kernel binds a program to is the thread that started it.
var starts = make(chan func())

func init() {
	go func() {
		runtime.LockOSThread()
		for start := range starts {
			start()
		}
	}()
}

func begin(cmd *exec.Cmd) error {
	begun := make(chan error)
	starts <- func() { begun <- cmd.Start() }
	return <-begun
}
