// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"cacert.org/emergency/services/agent"
	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/sshdtest"
)

// TestConsole runs a whole watched session: the stock ssh client as the subject's, the broker of the deployment service, the machine's
// own sshd as the target, the host's agent, and watch-console as the watcher's.
func TestConsole(t *testing.T) {
	t.Parallel()
	sshdtest.Client(t, "ssh")
	testscript.Run(t, testscript.Params{
		Dir: "testdata/console", UpdateScripts: os.Getenv("EPATCH_TEST_UPDATE") != "",
		Setup: setUpConsole, Cmds: map[string]func(*testscript.TestScript, bool, []string){"normal": normal, "hosts": hosts, "until": until, "flip": flip},
	})
}

func setUpConsole(env *testscript.Env) error {
	t := env.T().(testing.TB)
	dir := filepath.Join(env.WorkDir, "target")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	target, err := sshdtest.Start(context.Background(), sshdtest.Config{Dir: dir})
	if err != nil {
		return err
	}
	env.Defer(func() {
		target.Close()
		if text, err := os.ReadFile(target.Log); err == nil && t.Failed() {
			t.Logf("sshd said:\n%s", text)
		}
	})
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, []byte(target.KnownHosts()+"\n"), 0o600); err != nil {
		return err
	}
	program, err := exec.LookPath("epatch-agent") // this test's own program, under that name
	if err != nil {
		return err
	}
	n := node{console: agent.Console{Account: target.User, Shared: true, Keys: target.AuthorizedKeys, Program: program, Folders: []string{filepath.Join(env.WorkDir, "watched")}}}
	if err := os.Mkdir(filepath.Join(env.WorkDir, "watched"), 0o755); err != nil {
		return err
	}
	return start(env, n, func(set *app.Settings) {
		set.Console.Listen, set.Console.KnownHosts, set.Console.Recording = "127.0.0.1:0", known, 1<<20
		set.Console.Targets = map[string]string{"critical-1": target.Address}
		set.Access.Account = target.User
	})
}

// flip changes one byte of a file: flip FILE FRACTION, where a fraction of 0.5 is its middle.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	var at float64
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE FRACTION")
	}
	if _, err := fmt.Sscan(args[1], &at); err != nil {
		ts.Fatalf("%v", err)
	}
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	data[int(float64(len(data))*at)] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}
