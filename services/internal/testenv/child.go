// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"cacert.org/emergency/services/agent"
	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/cluster"
)

// What a test binary is to be: epatchd or epatch with the arguments it has, or the agent that it is told; and at which step of an
// apply the agent kills itself; and by which file epatchd's clock is wrong.
const (
	childVariable = "EPATCH_TESTENV_CHILD"
	agentVariable = "EPATCH_TESTENV_AGENT"
	dieVariable   = "EPATCH_TESTENV_DIE"
	clockVariable = "EPATCH_TESTENV_CLOCK"
)

// Main is a child's program if this process was started as one, else the tests; for TestMain of packages that kill children.
func Main(m *testing.M) int {
	if len(os.Args) > 1 && os.Args[1] == "console-shell" { // started by sshd, for an agent of a test
		return consoleShell()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	switch os.Getenv(childVariable) {
	case "":
		return m.Run()
	case "agent":
		err = runAgent(ctx)
	case "epatch":
		return runEpatch(ctx)
	case "nats-server":
		err = runNATS(ctx)
	default:
		err = app.Command(nil, wrongClock(os.Getenv(clockVariable))...).ExecuteContext(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

// runNATS is nats-server with the configuration file that it is told.
func runNATS(ctx context.Context) error {
	opts, err := server.ProcessConfigFile(os.Args[len(os.Args)-1])
	if err != nil {
		return err
	}
	opts.NoSigs = true
	s, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	s.Start()
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// Programs are epatchd and nats-server for a cluster of processes: both are this very test binary.
func Programs(t testing.TB) (epatchd, nats cluster.Program) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	return cluster.Program{Path: self, Env: []string{childVariable + "=epatchd"}}, cluster.Program{Path: self, Env: []string{childVariable + "=nats-server"}}
}

// consoleShell is epatch-agent's console shell.
func consoleShell() int {
	err := agent.Command(os.Environ()).ExecuteContext(context.Background())
	if err != nil && err.Error() != "" {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	return agent.ExitStatus(err)
}

func runAgent(ctx context.Context) error {
	var cfg agent.Config
	if err := json.Unmarshal([]byte(os.Getenv(agentVariable)), &cfg); err != nil {
		return err
	}
	a, err := agent.New(cfg, agent.Deps{Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Failpoint: func(step string) {
		if die := os.Getenv(dieVariable); die != "" && strings.Contains(step, die) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal takes effect any moment
		}
	}})
	if err != nil {
		return err
	}
	return errors.Join(a.Run(ctx), a.Close())
}

// StartAgentChild starts the agent on a host in a process of its own. If die is not empty it kills itself, as kill -9 does,
// at the first step of an apply whose name contains it. The node must stay where it is.
func (e *Env) StartAgentChild(host, die string) *Child {
	e.t.Helper()
	cfg := e.AgentConfig(host)
	cfg.Services = e.API()
	text, err := json.Marshal(cfg)
	must(e.t, err)
	return startChild(e.t, e.Log, nil, childVariable+"=agent", agentVariable+"="+string(text), dieVariable+"="+die)
}

// Child is epatchd, or an agent, in a process of its own, which can be killed. It is this very test binary, with the race detector if the
// tests have it.
type Child struct {
	// Addrs are epatchd's, known once Ready was closed; an agent has none.
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
	return startChild(t, log, args, childVariable+"=epatchd")
}

func startChild(t testing.TB, log *Log, args []string, env ...string) *Child {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	c := &Child{Ready: make(chan struct{}), Ended: make(chan struct{}), cmd: exec.Command(self, args...)}
	c.cmd.Env = append(os.Environ(), env...)
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

// Wait waits until the process has ended by itself.
func (c *Child) Wait(t testing.TB) {
	t.Helper()
	select {
	case <-c.Ended:
	case <-time.After(Patience):
		t.Fatal("the process does not end")
	}
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
