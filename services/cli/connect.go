// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
)

// The subject's way in: a fresh key, a certificate for it, and the stock ssh client (seed 3.4).

func (a *app) connectCmd() *cobra.Command {
	var show bool
	cmd := leaf("connect [GRANT]", "Connect, once, under the eyes of the watcher (seed 3.4)", `
Waits until the watcher has armed the watch. Then makes a key that never leaves this machine, has it certified for this one
connection, and starts the stock ssh client with it. The key is removed afterwards. What you type and see is recorded and shown
to the watcher; a connection that drops is over, and needs a new grant. --print shows the command instead of running it, and
leaves the key where it says.`, `
  epatch connect
  epatch connect G1 --print`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			return a.connect(cmd.Context(), args, show)
		})
	cmd.Flags().BoolVar(&show, "print", false, "show the command, do not run it")
	cmd.ValidArgsFunction = a.completeGrants
	return cmd
}

func (a *app) connect(ctx context.Context, named []string, show bool) error {
	client, err := exec.LookPath("ssh")
	if err != nil {
		return fail(exitUsage, "there is no ssh on this machine, and the connection is made with the stock client").
			hint("install it: apt-get install openssh-client, or what your system calls it").hint("or connect from a machine that has it; the credential is made there")
	}
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	g, err := s.grant(named, func(g *procedure.Grant) bool { return g.Subject == s.person && unused(g) }, "that you can use")
	if err != nil {
		return err
	}
	if err := a.awaitWatcher(ctx, s, g); err != nil {
		return err
	}
	access, err := a.fetchAccess(ctx, s, g)
	if err != nil {
		return err
	}
	if show {
		return a.printAccess(client, access)
	}
	defer access.remove(a)
	a.errs.line("%s you are watched and recorded from the first byte on; leave with exit, then it is over", alert("look:"))
	return a.enter(ctx, s, g, client, access)
}

// The broker lets nobody in until the watcher's view is up, a moment after the watch was armed: so often it is tried again.
const (
	entries   = 5
	entryWait = 2 * time.Second
)

// enter runs ssh, and runs it again while it was not let in and the credential is still unused.
func (a *app) enter(ctx context.Context, s *scene, g *procedure.Grant, client string, x *access) error {
	for n := 1; ; n++ {
		err := a.run(ctx, client, x)
		var away *failure
		if !errors.As(err, &away) || away.code != exitAway || n == entries {
			return err
		}
		st, readErr := s.client.State(ctx, s.state.Incident)
		if readErr != nil {
			return err
		}
		if now, ok := st.Grant(g.ID); !ok || !unused(now) {
			return err
		}
		a.errs.line("not let in yet; trying again")
		select {
		case <-time.After(entryWait):
		case <-ctx.Done():
			return err
		}
	}
}

// awaitWatcher waits for the watch to be armed: before that the broker lets nobody in.
func (a *app) awaitWatcher(ctx context.Context, s *scene, g *procedure.Grant) error {
	if g.State != procedure.GrantIssued {
		return nil
	}
	limit, cancel := context.WithDeadline(ctx, g.FirstUseUntil)
	defer cancel()
	if !a.opt.json {
		a.errs.line("waiting for %s to arm the watch: %s", g.Watcher, a.typing("epatch watch-console "+g.ID))
	}
	err := s.client.Follow(limit, s.state.Incident, func(st *procedure.State, _ *history.Entry) error {
		if now, ok := st.Grant(g.ID); ok && now.State != procedure.GrantIssued {
			return errEnded
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnded):
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return fail(exitRefused, "%s has expired: nobody armed the watch in time", g.ID).hint("ask for a new grant: epatch grant %s --purpose TEXT", g.Subject)
	}
	return err
}

// access is a credential on this machine, in a folder of its own.
type access struct {
	dir, login, host, port string
}

const (
	keyFile   = "id_ed25519"
	hostsFile = "known_hosts"
)

// fetchAccess makes the key, has it certified and writes what ssh needs into a private folder.
func (a *app) fetchAccess(ctx context.Context, s *scene, g *procedure.Grant) (_ *access, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, g.ID)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	answer, err := s.client.Console().FetchCredential(ctx, &deploymentv1.FetchCredentialRequest{
		Incident: s.state.Incident, Grant: g.ID, PublicKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))),
	})
	if err != nil {
		return nil, err
	}
	x := &access{login: answer.GetLogin()}
	if x.host, x.port, err = net.SplitHostPort(answer.GetAddress()); err != nil {
		return nil, fail(exitDefect, "the server names no address to connect to: %q", answer.GetAddress())
	}
	if strings.HasPrefix(x.host, "-") || strings.HasPrefix(x.login, "-") { // ssh would take it for an option
		return nil, fail(exitUnverified, "the server names a login or host that is none: %q, %q", x.login, x.host)
	}
	if x.dir, err = os.MkdirTemp("", "epatch-"+g.ID+"-"); err != nil {
		return nil, fmt.Errorf("a private folder for the key: %w", err)
	}
	for name, data := range map[string][]byte{
		keyFile: pem.EncodeToMemory(block), keyFile + "-cert.pub": []byte(strings.TrimSpace(answer.GetCertificate()) + "\n"),
		hostsFile: []byte(strings.TrimSpace(answer.GetKnownHosts()) + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(x.dir, name), data, 0o600); err != nil {
			x.remove(a)
			return nil, fmt.Errorf("write the key: %w", err)
		}
	}
	return x, nil
}

// remove takes the key away. It is used up by then, or was never used.
func (x *access) remove(a *app) {
	if err := os.RemoveAll(x.dir); err != nil {
		a.note("the key could not be removed: %v; it is used up, remove it yourself", err)
	}
}

// args are exactly the options that the connection needs. Nobody's own configuration has a say: a forwarding in it would be
// refused and recorded, a shared connection would be a second use.
func (x *access) args() []string {
	file := func(name string) string { return filepath.Join(x.dir, name) }
	return []string{
		"-F", "none", "-tt", "-i", file(keyFile), "-o", "CertificateFile=" + file(keyFile+"-cert.pub"), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "UserKnownHostsFile=" + file(hostsFile), "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes", "-o", "PreferredAuthentications=publickey",
		"-o", "ControlPath=none", "-o", "ClearAllForwardings=yes", "-o", "ForwardAgent=no", "-o", "ForwardX11=no", "-p", x.port, x.login + "@" + x.host,
	}
}

func (a *app) printAccess(client string, x *access) error {
	command := append([]string{client}, x.args()...)
	if a.opt.json {
		return a.out.jsonValue(map[string]any{"command": command, "folder": x.dir})
	}
	a.out.line("%s", shellLine(command))
	a.errs.line("the key is in %s; remove it afterwards: rm -r %s", x.dir, x.dir)
	return nil
}

// shellLine is a command as a shell reads it.
func shellLine(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.ContainsFunc(w, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:@%+,", r)
		}) {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// run runs ssh until it ends. Interrupts are the session's own affair: in a raw terminal they go to the host.
func (a *app) run(ctx context.Context, client string, x *access) error {
	cmd := exec.Command(client, x.args()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.proc.Stdin, a.proc.Stdout, a.proc.Stderr
	if err := cmd.Start(); err != nil {
		return fail(exitDefect, "%s does not start: %v", client, err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		_ = cmd.Process.Signal(os.Interrupt) // it may be gone already
		err = <-done
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 255 { // ssh's own failures; others are the remote shell's
		return fail(exitAway, "ssh did not connect, or the connection was ended from the other side").hint("what is recorded of it: epatch timeline").hint("where the access stands: epatch status")
	}
	if exit == nil && err != nil {
		return fmt.Errorf("run ssh: %w", err)
	}
	if !a.opt.json {
		a.errs.line("the session is over, and with it the grant")
	}
	return nil
}
