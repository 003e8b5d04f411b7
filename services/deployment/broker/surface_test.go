// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"cacert.org/emergency/pkg/recording"
	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/deployment/broker/brokertest"
	"cacert.org/emergency/services/internal/sshdtest"
)

// What may be asked for: one session channel with a terminal, a shell, new sizes. Tests of the N-list of console.md.

// refusedOutside waits for the record of a refusal before there is a session.
func (r *rig) refusedOutside(what string) broker.RefusedAttempt {
	r.t.Helper()
	return event(r, func(x broker.RefusedAttempt) bool { return strings.HasPrefix(x.What, what) })
}

// refusedInside waits for the mark of a refusal in a session.
func (r *rig) refusedInside(what string) broker.Mark {
	r.t.Helper()
	return event(r, func(m broker.Mark) bool { return m.Kind == broker.MarkRefused && strings.HasPrefix(m.Text, what) })
}

// untouched checks that the credential was not consumed and that nothing came near the target.
func (r *rig) untouched() {
	r.t.Helper()
	if n := len(events[brokertest.Consumed](r)); n != 0 {
		r.t.Errorf("consumed %d times", n)
	}
	if calls := r.Host.Calls(); slices.Contains(calls, "open") {
		r.t.Errorf("the host was asked: %v", calls)
	}
}

// N1: sftp and scp, in its old and its new way, with and without a watcher.
func TestN01FileTransferIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	k := r.fetch()
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, []byte("x"), 0o600))
	there := filepath.Join(t.TempDir(), "there")
	try := func() {
		for _, args := range [][]string{
			append(append([]string{"sftp"}, r.Args(k)...), r.Login(k)),
			append(append([]string{"scp"}, r.Args(k)...), file, r.Login(k)+":"+there),
			append(append([]string{"scp", "-O"}, r.Args(k)...), file, r.Login(k)+":"+there),
			append(append([]string{"scp", "-O"}, r.Args(k)...), r.Login(k)+":/etc/passwd", there),
		} {
			if out, err := r.run(args[0], args[1:]...); err == nil || !strings.Contains(out, "file transfer are not allowed") {
				t.Errorf("%s: %v: %s", args[0], err, out)
			}
		}
	}
	try()
	r.watch()
	try()
	if _, err := os.Stat(there); err == nil {
		t.Error("a file was copied")
	}
	r.refusedOutside("subsystem sftp")
	r.refusedOutside("exec scp -t")
	r.refusedOutside("exec scp -f")
	r.untouched()
}

// N2: beside a live session, over the same connection: more sessions and commands; and any number of requests at once.
func TestN02NothingElseBesideALiveSession(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	k := r.fetch()
	socket := filepath.Join(t.TempDir(), "mux")
	c := r.ssh(k, "-M", "-S", socket)
	e.state(broker.StateLive)
	mark := filepath.Join(t.TempDir(), "mark")
	for _, what := range [][]string{{"touch " + mark}, {"-tt"}, {"-s", "sftp"}} {
		args := append([]string{"-S", socket, r.Login(k)}, what...)
		if out, err := r.run("ssh", args...); err == nil {
			t.Errorf("%v went through: %s", what, out)
		}
	}
	r.refusedInside("channel session")
	if _, err := os.Stat(mark); err == nil {
		t.Error("a command ran")
	}
	c.typed("echo $((40+2))\n")
	e.sees("42")
	if n := len(events[brokertest.Consumed](r)); n != 1 {
		t.Errorf("consumed %d times", n)
	}
}

func TestN02RequestsWithoutEndAreRecordedWithinBounds(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	g := r.dial(r.fetch())
	g.shell()
	e.state(broker.StateLive)
	const many = 1000
	for i := range many {
		ok, err := g.channel.SendRequest(fmt.Sprintf("nonsense-%d", i), true, nil)
		must(t, err)
		if ok {
			t.Fatal("nonsense was granted")
		}
	}
	seen := e.until("all refusals", func(s brokertest.Seen) bool { return refusals(s) == many })
	if seen.Status.State != broker.StateLive {
		t.Errorf("%+v", seen.Status)
	}
	marks := func() int { return len(events[broker.Mark](r)) }
	r.pass(e, 6*time.Second)
	event(r, func(m broker.Mark) bool { return m.Text == "968 more requests" })
	if n := marks(); n > 40 {
		t.Errorf("%d events", n)
	}
}

// N10: no terminal, no session.
func TestN10WithoutTerminalNoSession(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.watch()
	k := r.fetch()
	for _, extra := range [][]string{{"-T"}, {}} { // the second has no terminal of its own to pass on
		out, err := r.run("ssh", append(append(r.Args(k), extra...), r.Login(k))...)
		if err == nil || !strings.Contains(out, "no session without a terminal") {
			t.Errorf("%v: %s", err, out)
		}
	}
	r.refusedOutside("shell")
	r.untouched()
}

// N12: another target is another door, with the same lock: nothing has to be repeated for it. And what is not said is denied.
func TestN12EveryTargetWantsTheWatcher(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	other := broker.Ref{Incident: "e20261124.2", Grant: "G1"}
	r.Rules.Put(r.Grant(other))
	r.watch() // of the first grant, which must not help the other
	k, err := r.Fetch(t.Context(), other)
	must(t, err)
	out := r.ssh(k).ends()
	if !strings.Contains(out, broker.ReasonWatcherAbsent) {
		t.Error(out)
	}
	r.untouched()
}

// N13: there is no way around the step-up. An arming that is too old lets nothing through, by whatever program.
func TestN13NoWayAroundTheStepUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	k := r.fetch()
	r.clock.Advance(5*time.Minute + time.Second)
	must(t, e.Renew(false))
	if out := r.ssh(k).ends(); !strings.Contains(out, broker.ReasonWatcherAbsent) {
		t.Error(out)
	}
	for _, name := range []string{"sftp", "scp"} {
		args := append(r.Args(k), r.Login(k)+":/etc/passwd")
		if name == "scp" {
			args = append(args, t.TempDir())
		}
		if out, err := r.run(name, args...); err == nil {
			t.Errorf("%s: %s", name, out)
		}
	}
	r.untouched()
}

// N19: what begins as a transfer and goes on as a shell.
func TestN19CommandsAreNotJudgedByTheirBeginning(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.watch()
	k := r.fetch()
	mark := filepath.Join(t.TempDir(), "mark")
	for _, command := range []string{"scp -t /tmp/x; touch " + mark, "scp -t $(touch " + mark + ")", "true"} {
		if out, err := r.run("ssh", append(append(r.Args(k), "-tt", r.Login(k)), command)...); err == nil {
			t.Errorf("%s: %s", command, out)
		}
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the command ran")
	}
	r.refusedOutside("exec scp -t /tmp/x; touch")
	r.untouched()
}

// N26: refused transfers beside a session, several at once, do not spoil it or its recording.
func TestN26ParallelTransfersSpoilNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	k := r.fetch()
	socket := filepath.Join(t.TempDir(), "mux")
	c := r.ssh(k, "-M", "-S", socket)
	e.state(broker.StateLive)
	var all []*client
	for range 5 {
		args := append([]string{"-o", "ControlPath=" + socket}, append(r.Args(k), r.Login(k)+":/etc/passwd", t.TempDir())...)
		all = append(all, r.start(exec.CommandContext(t.Context(), sshdtest.Client(t, "scp"), args...)))
	}
	for _, x := range all {
		if x.ends(); x.err == nil {
			t.Error("a transfer went through")
		}
	}
	c.typed("exit\n")
	e.ending()
	report := r.verify()
	if report.State != recording.Complete {
		t.Errorf("%+v", report)
	}
}

// N27: every forwarding, and what else a client can ask for.
func TestN27ForwardingsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	k := r.fetch()
	// To the target's own sshd, from the client's standard input and from a port.
	if out, err := r.run("ssh", append(append(r.Args(k), "-W", r.Sshd.Address), r.Login(k))...); err == nil {
		t.Error(out)
	}
	r.refusedOutside("channel direct-tcpip")
	c := r.ssh(k, "-R", "127.0.0.1:0:"+r.Sshd.Address, "-R", filepath.Join(t.TempDir(), "s")+":"+r.Sshd.Address, "-A", "-X",
		"-o", "SetEnv=LD_PRELOAD=/tmp/evil.so", "-o", "ForwardX11=yes", "-o", "Tunnel=no")
	e.state(broker.StateLive)
	c.typed("echo preload=$LD_PRELOAD=\n")
	e.sees("preload==")
	for _, what := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "env LD_PRELOAD"} {
		r.refusedOutside(what)
	}
	c.typed("exit\n")
	c.ends()
}

func TestN27UnknownRequestsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	g := r.dial(r.fetch())
	g.shell()
	e.state(broker.StateLive)
	for _, kind := range []string{"direct-tcpip", "direct-streamlocal@openssh.com", "forwarded-tcpip", "tun@openssh.com", "x11", "auth-agent@openssh.com", "session", ""} {
		if _, _, err := g.client.OpenChannel(kind, ssh.Marshal(struct{ A string }{"x"})); err == nil {
			t.Errorf("a channel of kind %q was opened", kind)
		}
		r.refusedInside("channel " + kind)
	}
	for _, kind := range []string{"auth-agent-req@openssh.com", "x11-req", "break", "signal", "xon-xoff", "exec", "subsystem", "pty-req", "shell", "exit-status", ""} {
		ok, err := g.channel.SendRequest(kind, true, nil)
		must(t, err)
		if ok {
			t.Errorf("request %q was granted", kind)
		}
		r.refusedInside(kind)
	}
	for _, kind := range []string{"tcpip-forward", "cancel-tcpip-forward", "hostkeys-prove-00@openssh.com", ""} {
		ok, _, err := g.client.SendRequest(kind, true, nil)
		must(t, err)
		if ok {
			t.Errorf("global request %q was granted", kind)
		}
	}
	if s, _ := r.Broker.Status(brokertest.Ref); s.State != broker.StateLive {
		t.Errorf("%+v", s)
	}
}

// What every Debian client sends unasked is dropped without an entry in the history.
func TestStockClientsLanguageIsDropped(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	cmd := r.Command(t.Context(), r.fetch(), "-tt", "-o", "SendEnv=LANG LC_*", "-o", "ServerAliveInterval=1")
	c := r.start(cmd)
	e.state(broker.StateLive)
	c.typed("echo lc=$LC_ALL=\n")
	e.sees("lc==")
	for _, x := range events[broker.RefusedAttempt](r) {
		t.Errorf("%+v", x)
	}
}

// N29: what a client says reaches events and terminals as one line of plain text. The recording's own neutralising is
// pkg/recording's.
func TestN29ClientTextIsPlain(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	g := r.dial(r.fetch())
	g.shell()
	e.state(broker.StateLive)
	evil := "\x1b]52;c;ZXZpbA==\x07\n\u202e"
	_, err := g.channel.SendRequest(evil, true, nil)
	must(t, err)
	m := r.refusedInside("?]52")
	if strings.ContainsFunc(m.Text, func(c rune) bool { return c < ' ' || c > '~' }) {
		t.Errorf("%q", m.Text)
	}
}

// N30: nobody is exempt from being watched by another person, and input that comes from a pipe is seen as any other.
func TestN30NobodyIsExempt(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	g := r.Grant(brokertest.Ref)
	g.Watcher = brokertest.Subject // as no rule would allow it
	r.Rules.Put(g)
	_, err := r.Broker.Watch(t.Context(), brokertest.Ref, brokertest.Subject, broker.ModeWatcher)
	refusedBy(t, err, broker.ReasonWatcherRole)
	_, err = r.Broker.Watch(t.Context(), brokertest.Ref, "", broker.ModeObserver)
	refusedBy(t, err, broker.ReasonWatcherRole)
	r.Rules.Put(r.Grant(brokertest.Ref))
	e := r.watch()
	cmd := r.Command(t.Context(), r.fetch(), "-tt")
	c := r.start(cmd)
	e.state(broker.StateLive)
	c.typed("echo from-a-pipe\nexit\n")
	_ = c.stdin.Close()
	c.ends()
	e.ending()
	if !strings.Contains(r.recording(), "from-a-pipe") {
		t.Error("the input is not in the recording")
	}
}
