// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"cacert.org/emergency/services/agent"
	"cacert.org/emergency/services/cli"
	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/sshdtest"
)

// Target is where watched sessions of an Env, or of a cluster of processes, lead: the critical host's own sshd, as the account that the tests run as.
type Target struct {
	*sshdtest.Server
	// Dir is a short folder for what sessions leave and for the agent's socket; Watched lies in it, and is what the agent looks
	// through for changed files.
	Dir, Watched string
	known        string
}

// NewTarget starts the host's sshd. Where OpenSSH cannot be used the test is skipped, and fails under CI.
func NewTarget(t testing.TB) *Target {
	t.Helper()
	sshdtest.Client(t, "ssh")
	x := &Target{Server: sshdtest.New(t)}
	var err error
	x.Dir, err = os.MkdirTemp("", "epatch") // the path of a socket must be short
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(x.Dir)) })
	x.known, x.Watched = filepath.Join(x.Dir, "known_hosts"), filepath.Join(x.Dir, "watched")
	must(t, os.Mkdir(x.Watched, 0o755))
	must(t, os.WriteFile(x.known, []byte(x.KnownHosts()+"\n"), 0o600))
	return x
}

// settings let the node's broker reach the host.
func (x *Target) settings(set *app.Settings) {
	set.Console.Listen, set.Console.KnownHosts = "127.0.0.1:0", x.known
	set.Console.Targets = map[string]string{demobook.Host: x.Address}
	set.Access.Account = x.User
}

// Flags are the same settings for a process of the deployment service.
func (x *Target) Flags() []string {
	return []string{
		"--console-listen", "127.0.0.1:0", "--console-target", demobook.Host + "=" + x.Address, "--console-known-hosts", x.known, "--console-account", x.User,
	}
}

// Console lets the host's agent take sessions.
func (x *Target) Console() agent.Console {
	return agent.Console{Account: x.User, Shared: true, Keys: x.AuthorizedKeys, Socket: filepath.Join(x.Dir, "sock"), Folders: []string{x.Watched}}
}

// Epatch is the command line program as a person starts it, with the person's certificate of this Env, against the node at an
// address such as API's or a Relay's.
func (e *Env) Epatch(api, person string, args ...string) *exec.Cmd {
	e.t.Helper()
	_, port, err := net.SplitHostPort(api)
	must(e.t, err)
	return Epatch(e.t, e.Data(), e.Dir, []string{"EPATCH_SERVER=localhost:" + port}, person, args...)
}

// Epatch is the command line program with the certificates in a data folder, a home folder, and settings by the environment.
func Epatch(t testing.TB, data, home string, settings []string, person string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, append([]string{"--as", person}, args...)...)
	cmd.Env = append(os.Environ(), append(settings, childVariable+"=epatch", "EPATCH_DATA="+data, "HOME="+home, "TERM=xterm", "NO_COLOR=1")...)
	return cmd
}

// runEpatch is the program itself.
func runEpatch(ctx context.Context) int {
	return cli.Run(ctx, cli.Process{Args: os.Args[1:], Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Now: time.Now, Zone: time.UTC})
}
