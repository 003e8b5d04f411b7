// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ShellConfig is what the forced command of a key line says.
type ShellConfig struct {
	// Socket of the agent.
	Socket string
	// Grant, such as e20261124.1/G1.
	Grant string
	// Environ is the environment that sshd gave.
	Environ []string
}

// Times of the wrapper. An agent that is there answers at once; a busy machine takes longer.
const (
	helloWithin = 10 * time.Second
	byeWithin   = 10 * time.Second
	killWithin  = time.Minute // after that something cannot be killed from here, and the agent's next start tries
)

// Shell is the program behind the forced command: it announces itself to the agent, starts the account's login shell on the
// terminal that it was given, and returns the shell's exit status. It fails closed: without agent, without terminal, or with a
// command from the other side there is no shell; and when agent or terminal are lost, everything that the shell had started
// is killed. The error is for the person at the terminal.
func Shell(cfg ShellConfig) (status int, err error) {
	if err := checkGrant(cfg.Grant); err != nil {
		return 1, err
	}
	for _, v := range cfg.Environ {
		if strings.HasPrefix(v, "SSH_ORIGINAL_COMMAND=") {
			return 1, errors.New("a watched session runs no commands, it is a shell on a terminal and nothing else; connect without a command")
		}
	}
	for fd := range 3 {
		if !isTerminal(fd) {
			return 1, errors.New("a watched session needs a terminal (ssh -t); without one nobody could watch it")
		}
	}
	w := &wrapper{cfg: cfg, lost: make(chan string, 4), ended: make(chan int, 1), bye: make(chan struct{})}
	if err := w.announce(); err != nil {
		return 1, err
	}
	defer func() { _ = w.agent.conn.Close() }() // the process ends here
	return w.run()
}

// wrapper is the process between sshd and the shell.
type wrapper struct {
	cfg   ShellConfig
	agent *line
	start start

	shell int
	lost  chan string   // why the session must end
	ended chan int      // the shell's exit status
	bye   chan struct{} // closed when the agent has dealt with the rest
}

// announce says to the agent who this is and waits until it agrees. By then this process is the adoptive parent of all that
// comes after it, and a member of the session's control group if there is one.
func (w *wrapper) announce() error {
	if err := adopt(); err != nil {
		return fmt.Errorf("no shell is started: %w", err)
	}
	away := func(err error) error {
		return fmt.Errorf("no shell is started: the host's agent, which must know this session, cannot be reached (%w); tell the critical admin who watches", err)
	}
	conn, err := net.DialTimeout("unix", w.cfg.Socket, helloWithin)
	if err != nil {
		return away(err)
	}
	w.agent = newLine(conn.(*net.UnixConn))
	err = errors.Join(conn.SetDeadline(time.Now().Add(helloWithin)), w.agent.send(message{Hello: &hello{Grant: w.cfg.Grant}}))
	var answer message
	if err == nil {
		answer, err = w.agent.receive()
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	switch {
	case err != nil:
		return errors.Join(away(err), conn.Close())
	case answer.Start == nil:
		return errors.Join(fmt.Errorf("no shell is started: the host's agent refuses: %s", answer.Refused), conn.Close())
	}
	w.start = *answer.Start
	return nil
}

// run starts the shell and waits for its end, or for a reason to end it.
func (w *wrapper) run() (int, error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGHUP, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP) // caught and not ignored: the shell would inherit that
	defer signal.Stop(signals)
	if err := w.fork(); err != nil {
		return 1, err
	}
	go w.reap()
	go w.listen()
	go func() {
		awaitHangUp(0)
		w.lose("the terminal was closed")
	}()
	for {
		select {
		case status := <-w.ended:
			return status, w.finish()
		case why := <-w.lost:
			return 1, errors.Join(fmt.Errorf("the session is ended: %s", why), w.killAll())
		case s := <-signals:
			if s == unix.SIGHUP || s == unix.SIGTERM {
				w.lose("the connection was closed")
			}
		}
	}
}

// lose says why the session must end; the first reason counts.
func (w *wrapper) lose(why string) {
	select {
	case w.lost <- why:
	default:
	}
}

// fork starts the login shell in a process group of its own in the foreground of the terminal.
func (w *wrapper) fork() error {
	path, env := w.environment()
	argv := []string{"-" + filepath.Base(path)} // the dash makes it a login shell
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env: env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true, Foreground: true, Ctty: 0},
	})
	if err != nil {
		return fmt.Errorf("no shell is started: %s: %w", path, err)
	}
	w.shell = pid
	// Not before the shell runs: the bound would hold for this process too, which must be able to go on when it is reached.
	if err := limitProcesses(pid, w.start.Processes); err != nil {
		return errors.Join(fmt.Errorf("no shell is started: %w", err), w.killAll())
	}
	return nil
}

// environment is the shell's path and environment: sshd's, with the session's mark, and without a history file, since what
// is typed is kept by the recording.
func (w *wrapper) environment() (shell string, env []string) {
	shell = "/bin/sh"
	for _, v := range w.cfg.Environ {
		name, value, _ := strings.Cut(v, "=")
		switch name {
		case "SHELL":
			if filepath.IsAbs(value) {
				shell = value
			}
		case variable, "HISTFILE":
			continue
		}
		env = append(env, v)
	}
	return shell, append(env, variable+"="+w.start.Mark, "HISTFILE=")
}

// reap waits for the shell, and takes the exit status of whatever this process has adopted.
func (w *wrapper) reap() {
	for {
		var st unix.WaitStatus
		pid, err := unix.Wait4(-1, &st, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return // no children are left
		case pid == w.shell && st.Signaled():
			w.ended <- 128 + int(st.Signal())
		case pid == w.shell:
			w.ended <- st.ExitStatus()
		}
	}
}

// listen waits for the agent's end: without it nobody could stop or end the session.
func (w *wrapper) listen() {
	for {
		m, err := w.agent.receive()
		if err != nil {
			w.lose("the host's agent, which must know this session, is gone")
			return
		}
		if m.Bye {
			close(w.bye)
			return
		}
	}
}

// finish tells the agent that the shell has ended and lets it deal with what is left. If it does not, that is killed here.
func (w *wrapper) finish() error {
	timer := time.NewTimer(byeWithin)
	defer timer.Stop()
	if err := w.agent.send(message{Ended: true}); err == nil {
		select {
		case <-w.bye:
			return nil
		case <-w.lost:
		case <-timer.C:
		}
	}
	return w.killAll()
}

// killAll kills every process of the session but this one.
func (w *wrapper) killAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), killWithin)
	defer cancel()
	t := &table{dir: "/proc"}
	me, err := t.read(os.Getpid())
	if err != nil {
		return err
	}
	c := &crew{
		table: t, self: os.Getpid(), root: me.ident, terminal: me.terminal, mark: variable + "=" + w.start.Mark,
		known: map[ident]bool{}, held: map[ident]bool{},
	}
	_, err = c.kill(ctx, me.ident)
	return err
}
