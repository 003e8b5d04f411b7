// SPDX-License-Identifier: Apache-2.0

package demo

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

// process is a child of the demo, which it ends when the demo ends.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	log  string
}

// start runs a program that lies beside this one, with its output in a log file. ready is a text of its standard output to
// wait for, and the rest of that line is returned; it waits for nothing if ready is empty.
func start(ctx context.Context, logDir, name, ready string, args ...string) (*process, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", fmt.Errorf("find this program: %w", err)
	}
	program := filepath.Join(filepath.Dir(self), strings.Fields(name)[0])
	if _, err := os.Stat(program); err != nil {
		return nil, "", fmt.Errorf("%s is not beside this program; `make build` makes it: %w", name, err)
	}
	if err := os.MkdirAll(logDir, 0o700); err != nil {
		return nil, "", fmt.Errorf("log folder: %w", err)
	}
	p := &process{name: name, done: make(chan struct{}), log: filepath.Join(logDir, strings.ReplaceAll(name, " ", "-")+".log")}
	logFile, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, "", fmt.Errorf("log of %s: %w", name, err)
	}
	p.cmd = exec.Command(program, args...)
	p.cmd.Stderr = logFile
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the terminal's interrupt is the demo's: it ends its children in order
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := p.cmd.Start(); err != nil {
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
		return nil, "", errors.Join(ctx.Err(), p.stop())
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

func (p *process) read(out io.Reader, logFile *os.File, ready string, lines chan<- string) {
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

// stop asks the process to end, and ends it after ten seconds.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(10 * time.Second):
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.done
	return nil
}
