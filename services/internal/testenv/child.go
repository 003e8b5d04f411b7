// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"cacert.org/emergency/services/internal/app"
)

// childVariable tells a test binary that it is to be epatchd.
const childVariable = "EPATCH_TESTENV_CHILD"

// Main is epatchd if this process was started as a Child, else the tests; for TestMain of packages that kill it.
func Main(m *testing.M) int {
	if os.Getenv(childVariable) == "" {
		return m.Run()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := app.Command(nil).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

// Child is epatchd in a process of its own, which can be killed. It is this very test binary, with the race detector if the
// tests have it.
type Child struct {
	// Addrs are known once Ready was closed.
	Addrs app.Addresses
	Ready chan struct{}
	// Ended is closed when the process has ended.
	Ended chan struct{}

	cmd *exec.Cmd
	err error
}

// StartChild starts epatchd with arguments. What it logs goes to log. It is killed when the test ends.
func StartChild(t testing.TB, log *Log, args ...string) *Child {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	c := &Child{Ready: make(chan struct{}), Ended: make(chan struct{}), cmd: exec.Command(self, args...)}
	c.cmd.Env = append(os.Environ(), childVariable+"=1")
	c.cmd.Stderr = log
	out, err := c.cmd.StdoutPipe()
	must(t, err)
	must(t, c.cmd.Start())
	go func() {
		defer close(c.Ended)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			if n, _ := fmt.Sscanf(scan.Text(), "ready api=%s http=%s https=%s", &c.Addrs.API, &c.Addrs.HTTP, &c.Addrs.HTTPS); n == 3 {
				close(c.Ready)
			}
		}
		c.err = c.cmd.Wait()
	}()
	t.Cleanup(c.Kill)
	return c
}

// Kill kills the process as kill -9 does, and waits until it is gone.
func (c *Child) Kill() {
	_ = c.cmd.Process.Kill() // it may have ended
	<-c.Ended
}

// Stop asks the process to end and waits for it. The error is the process's own.
func (c *Child) Stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-c.Ended
	return c.err
}

// NewLog is a log for a Child of a test without an Env.
func NewLog(t testing.TB) *Log { return newLog(t) }
