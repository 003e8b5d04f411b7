// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/pflag"

	"cacert.org/emergency/services/agent"
	"cacert.org/emergency/services/cli"
	"cacert.org/emergency/services/internal/app"
)

// The scripts run the real program against the real services, all in one process, with agents on folders that stand for hosts.

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"epatch-agent": agentShell, "epatch": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		code := cli.Run(ctx, cli.Process{
			Args: os.Args[1:], Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Now: time.Now, Zone: time.UTC,
		})
		stop()
		os.Exit(code)
	}})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata", Setup: setUp, UpdateScripts: os.Getenv("EPATCH_TEST_UPDATE") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"normal": normal, "hosts": hosts, "until": until},
	})
}

// node is one system of a script; its values are in the script's environment.
type node struct {
	data, addr string
	console    agent.Console // of the agent on critical-1; none without a broker
}

func setUp(env *testscript.Env) error { return start(env, node{}, func(*app.Settings) {}) }

// start runs a node, with what a test sets besides.
func start(env *testscript.Env, n node, besides func(*app.Settings)) error {
	t := env.T().(testing.TB)
	n.data = filepath.Join(env.WorkDir, "data")
	var set app.Settings
	set.Flags(pflag.NewFlagSet("node", pflag.ContinueOnError))
	set.Data, set.Listen, set.HTTP, set.HTTPS, set.LogTo = n.data, "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", io.Discard
	besides(&set)
	ctx, stop := context.WithCancel(context.Background())
	sys, err := app.Open(ctx, set)
	if err != nil {
		stop()
		return err
	}
	ready, done := make(chan app.Addresses, 1), make(chan error, 1)
	go func() { done <- sys.Run(ctx, func(a app.Addresses) { ready <- a }) }()
	env.Defer(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("node: %v", err)
		}
		if err := sys.Close(); err != nil {
			t.Errorf("node: %v", err)
		}
	})
	select {
	case a := <-ready:
		n.addr = strings.Replace(a.API, "127.0.0.1", "localhost", 1)
	case err := <-done:
		done <- err
		return err
	}
	env.Values["node"] = n
	env.Setenv("EPATCH_SERVER", n.addr)
	env.Setenv("SERVER", n.addr)
	env.Setenv("EPATCH_DATA", n.data)
	env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
	env.Setenv("GORACE", os.Getenv("GORACE"))
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		env.Setenv("GIT_"+who+"_NAME", "dora")
		env.Setenv("GIT_"+who+"_EMAIL", "dora@example.org")
	}
	return makeRepository(env.WorkDir, n.data)
}

// consoleOf is what the agent of a host is told of watched sessions.
func (n node) consoleOf(host string) agent.Console {
	if host != "critical-1" {
		return agent.Console{}
	}
	return n.console
}

// agentShell is the host's side of a watched session, which sshd starts.
func agentShell() {
	if err := agent.Command(os.Environ()).ExecuteContext(context.Background()); err != nil {
		os.Exit(agent.ExitStatus(err))
	}
}

// makeRepository makes dora's checkout, the repository of the services and the folders of the hosts, all with the same files.
func makeRepository(work, data string) error {
	checkout := filepath.Join(work, "checkout")
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch=release", checkout},
		{"-C", checkout, "add", "--all"},
		{"-C", checkout, "commit", "--quiet", "-m", "as it is"},
		{"-C", checkout, "push", "--quiet", filepath.Join(data, "repository.git"), "release"},
	} {
		if args[0] == "init" {
			defer func() { _ = os.Chmod(checkout, 0o755) }()
		}
		cmd := exec.Command("git", args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_AUTHOR_NAME=dora", "GIT_AUTHOR_EMAIL=d@example.org", "GIT_COMMITTER_NAME=dora", "GIT_COMMITTER_EMAIL=d@example.org"}
		if out, err := cmd.CombinedOutput(); err != nil {
			return &gitError{string(out), err}
		}
		if args[0] == "init" {
			if err := writeFiles(checkout); err != nil {
				return err
			}
		}
	}
	for _, host := range []string{"critical-1", "drill-1", "test-1"} {
		if err := writeFiles(filepath.Join(work, "hosts", host)); err != nil {
			return err
		}
	}
	return nil
}

type gitError struct {
	out string
	err error
}

func (e *gitError) Error() string { return e.err.Error() + ": " + e.out }

func writeFiles(dir string) error {
	for name, text := range map[string]string{"www/info": "#!/bin/sh\neval \"echo $1\"\n", "README": "one\ntwo\nthree\n"} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// hosts starts the agents of the named hosts: hosts critical-1 test-1. With :spoiled behind the name somebody else changes
// a file after the agent has begun to apply.
func hosts(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: hosts NAME...")
	}
	n := ts.Value("node").(node)
	for _, arg := range args {
		name, spoiled := strings.CutSuffix(arg, ":spoiled")
		kind := agent.KindHost
		if strings.HasPrefix(name, "test") {
			kind = agent.KindTest
		}
		a, err := agent.New(agent.Config{
			Name: name, Kind: kind, Root: ts.MkAbs("hosts/" + name), StateDir: ts.MkAbs("agents/" + name), Profile: filepath.Join(n.data, "agents", name),
			Keyring: filepath.Join(n.data, "services.keys.json"), Services: n.addr, Patience: 20 * time.Second, Console: n.consoleOf(name),
		}, agent.Deps{Log: slog.New(slog.DiscardHandler), Failpoint: func(step string) {
			if spoiled && step == "agent:begun" {
				ts.Check(os.WriteFile(ts.MkAbs("hosts/"+name+"/README"), []byte("somebody was here\n"), 0o644))
			}
		}})
		ts.Check(err)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		ts.Defer(func() {
			stop()
			<-done
			ts.Check(a.Close())
		})
	}
}

// until repeats a command until its output has a text: until TEXT epatch --as carla status. It is for what services do by
// themselves, at their own time.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until TEXT COMMAND...")
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		if strings.Contains(out, args[0]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q never came; the last was (%v)\n%s", args[0], err, out)
		}
	}
}

// What differs from run to run, and what stands for it in the scripts.
var changing = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC`), "TIME"},
	{regexp.MustCompile(`\d\d:\d\d:\d\d UTC`), "TIME"},
	{regexp.MustCompile(`\((now|in [^()]*|[^()]* ago)\)`), "(AGO)"},
	{regexp.MustCompile(`T0\+\d+:\d\d:\d\d`), "T0+TIME"},
	{regexp.MustCompile(`\b([exa])\d{8}\.`), "${1}DAY."},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d`), "DAY"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "SHA256"},
	{regexp.MustCompile(`\b[0-9a-f]{40}\b`), "SHA1"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "SHORT"},
	{regexp.MustCompile(`(?m)^\d+ (no-referral-high:)`), "N $1"},
	{regexp.MustCompile(`\b([A-Z_]+)/\d+, owed`), "$1/N, owed"},
	{regexp.MustCompile(`positions? \d+( to \d+)?`), "POSITION"},
	{regexp.MustCompile(`localhost:\d+`), "SERVER"},
	{regexp.MustCompile(`(?m)^TIME +\d+ `), "TIME  N "},
	{regexp.MustCompile(`(?m)\b(at|details) \d+($|[^.\d])`), "$1 N$2"},
	{regexp.MustCompile(`(?m)^ +\d+(-\d+)?  TIME`), "  N  TIME"},
	{regexp.MustCompile(`\d+ records, \d+ events`), "N records, N events"},
	{regexp.MustCompile(`(  |, )\d+ s(  | old)`), "${1}AGE$2"},
	{regexp.MustCompile(`(\S) {2,}`), "$1  "}, // columns are as wide as the times in them
}

// normal writes a file, or stdout or stderr of the last command, with what changes from run to run replaced.
func normal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: normal FROM TO")
	}
	text := []byte(ts.ReadFile(args[0]))
	for _, c := range changing {
		text = c.pattern.ReplaceAll(text, []byte(c.with))
	}
	text = bytes.ReplaceAll(text, []byte(filepath.ToSlash(ts.Getenv("WORK"))), []byte("$WORK"))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), text, 0o644))
}
