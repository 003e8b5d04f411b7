// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
)

// Terminal is a program in a terminal of its own, as a person has it on the screen.
type Terminal struct {
	// Ended is closed when the program has ended.
	Ended chan struct{}

	t   testing.TB
	cmd *exec.Cmd
	pty *os.File

	mu    sync.Mutex
	last  []byte // the end of what it showed
	shown int64
}

// keptText bounds what is kept of a program that shows very much, toldText what of it is told of a test that fails.
const (
	keptText = 64 << 10
	toldText = 2 << 10
)

// OpenTerminal starts a program in a terminal of 160 by 30. It is killed when the test ends.
func OpenTerminal(t testing.TB, cmd *exec.Cmd) *Terminal {
	t.Helper()
	x := &Terminal{t: t, cmd: cmd, Ended: make(chan struct{})}
	var err error
	x.pty, err = pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 160})
	must(t, err)
	go func() {
		_, _ = io.Copy(x, x.pty) // until the program has ended: then the terminal is gone
		_ = cmd.Wait()           // how it ended, Code tells
		close(x.Ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-x.Ended
		_ = x.pty.Close()
		if t.Failed() {
			text := x.Shown()
			t.Logf("the terminal of %v showed at last:\n%q", cmd.Args[1:], text[max(0, len(text)-toldText):])
		}
	})
	return x
}

// Write takes what the program shows.
func (x *Terminal) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.last = append(x.last, p...)
	if n := len(x.last); n > 2*keptText {
		x.last = append([]byte(nil), x.last[n-keptText:]...)
	}
	x.shown += int64(len(p))
	return len(p), nil
}

// Shown is the end of what the program has shown, with control sequences.
func (x *Terminal) Shown() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return string(x.last)
}

// Size is how many bytes the program has shown.
func (x *Terminal) Size() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.shown
}

// Type types keys. What is typed to a program that has ended is lost.
func (x *Terminal) Type(keys string) {
	_, _ = io.WriteString(x.pty, keys) // the terminal of a program that has ended is gone
}

// Signal sends the program a signal.
func (x *Terminal) Signal(s os.Signal) {
	x.t.Helper()
	must(x.t, x.cmd.Process.Signal(s))
}

// Over is whether the program has ended.
func (x *Terminal) Over() bool {
	select {
	case <-x.Ended:
		return true
	default:
		return false
	}
}

// Code waits until the program has ended, and returns its exit code.
func (x *Terminal) Code() int {
	x.t.Helper()
	select {
	case <-x.Ended:
	case <-time.After(Patience):
		x.t.Fatalf("%v does not end", x.cmd.Args[1:])
	}
	return x.cmd.ProcessState.ExitCode()
}
