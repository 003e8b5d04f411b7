// SPDX-License-Identifier: Apache-2.0

// Package child starts programs whose life is bound to this process's: they are ended in order, or killed.
package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Spec says what is started.
type Spec struct {
	// Name is what the process is called, in errors and as the name of its log file in Logs.
	Name, Logs string
	// Program is its file, Args its arguments and Env what is added to this process's environment.
	Program string
	Args    []string
	Env     []string
	// Ready is a text of its standard output to wait for: the rest of that line is returned. Nothing is waited for if it is empty.
	Ready string
}

// Process is a running program.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	log  string
}

// Beside is the file of a program that lies beside this one.
func Beside(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	program := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("%s is not beside this program; `make build` makes it: %w", name, err)
	}
	return program, nil
}

// Start starts a program, with its output in a log file.
func Start(ctx context.Context, spec Spec) (*Process, string, error) {
	name, ready := spec.Name, spec.Ready
	if err := os.MkdirAll(spec.Logs, 0o700); err != nil {
		return nil, "", fmt.Errorf("log folder: %w", err)
	}
	p := &Process{name: name, done: make(chan struct{}), log: filepath.Join(spec.Logs, strings.ReplaceAll(name, " ", "-")+".log")}
	logFile, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, "", fmt.Errorf("log of %s: %w", name, err)
	}
	p.cmd = exec.Command(spec.Program, spec.Args...)
	p.cmd.Env = append(os.Environ(), spec.Env...)
	p.cmd.Stderr = logFile
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the terminal's interrupt is this process's: it ends its children in order
	bound(p.cmd.SysProcAttr)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := begin(p.cmd); err != nil {
		return nil, "", fmt.Errorf("start %s: %w", name, err)
	}
	lines := make(chan string, 1)
	go p.read(out, logFile, ready, lines)
	if ready == "" {
		return p, "", nil
	}
	select {
	case line := <-lines:
		return p, line, nil
	case <-p.done:
		return nil, "", fmt.Errorf("%s ended at once: %s (all of it: %s)", name, lastLine(p.log), p.log)
	case <-ctx.Done():
		return nil, "", errors.Join(ctx.Err(), p.Stop())
	}
}

// lastLine is the last thing that a process said.
func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

func (p *Process) read(out io.Reader, logFile *os.File, ready string, lines chan<- string) {
	defer func() { _ = logFile.Close() }() // the child has its own handle
	defer close(p.done)
	scan := bufio.NewScanner(out)
	for scan.Scan() {
		line := scan.Text()
		fmt.Fprintln(logFile, line)
		if rest, ok := strings.CutPrefix(line, ready); ok && ready != "" && lines != nil {
			lines <- strings.TrimSpace(rest)
			lines = nil
		}
	}
	p.err = p.cmd.Wait()
	if p.err == nil {
		p.err = errors.New("exit status 0")
	}
}

// ID is the process's number.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Log is the file with everything that the process said.
func (p *Process) Log() string { return p.log }

// Done is closed when the process has ended; Err then tells how.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err tells how the process ended. Only after Done.
func (p *Process) Err() error { return p.err }

// PID is its number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal, such as SIGSTOP. One to a process that has ended does nothing.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s to %s: %w", s, p.name, err)
	}
	return nil
}

// Kill ends the process as kill -9 does, and waits until it is gone.
func (p *Process) Kill() error {
	err := p.Signal(syscall.SIGKILL)
	<-p.done
	return err
}

// Stop asks the process to end, and ends it after ten seconds. A nil process is stopped already.
func (p *Process) Stop() error {
	if p == nil {
		return nil
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(10 * time.Second):
	}
	return p.Kill()
}
