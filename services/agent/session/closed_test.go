// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cacert.org/emergency/services/agent/session"
	"cacert.org/emergency/services/internal/sshdtest"
)

// Nothing opens where something is missing.

// TestNoShell without agent, without an opened access, with a command, without terminal, a second time, while frozen, or after
// the end.
func TestNoShell(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before func(h *host)
		env    []string
		want   string
	}{
		"no agent":         {func(h *host) { h.stop() }, nil, "cannot be reached"},
		"no access opened": {nil, nil, "no access was opened"},
		"ended": {func(h *host) {
			must(h, h.OpenAccess(h.Context(), h.access()))
			_, err := h.End(h.Context(), grant, "test")
			must(h, err)
		}, nil, "has ended"},
		"frozen": {func(h *host) {
			must(h, h.OpenAccess(h.Context(), h.access()))
			_, err := h.Freeze(h.Context(), grant)
			must(h, err)
		}, nil, "is frozen"},
		"a second shell": {func(h *host) { h.opened() }, nil, "has a shell already"},
		"a command (N1, N19)": {func(h *host) { must(h, h.OpenAccess(h.Context(), h.access())) },
			[]string{"SSH_ORIGINAL_COMMAND=scp -t /tmp/x; bash"}, "runs no commands"},
		"an empty command": {func(h *host) { must(h, h.OpenAccess(h.Context(), h.access())) }, []string{"SSH_ORIGINAL_COMMAND="}, "runs no commands"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, kind{cgroup: session.NoCgroup}, nil)
			if c.before != nil {
				c.before(h)
			}
			marker := filepath.Join(h.openFolder(), "ran")
			x := h.shell(grant, append(c.env, "ENV="+writeScript(t, h, "echo > "+marker))...)
			x.wait()
			if said, _ := x.out.read(); !strings.Contains(said, c.want) || x.err == nil {
				t.Errorf("said %q and ended with %v, want %q", said, x.err, c.want)
			}
			if _, err := os.Stat(marker); err == nil {
				t.Error("a shell was started")
			}
		})
	}
}

func writeScript(t *testing.T, h *host, text string) string {
	path := filepath.Join(h.openFolder(), "script")
	must(t, os.WriteFile(path, []byte(text+"\n"), 0o755))
	return path
}

// TestNoTerminal (N10): without a terminal there is no session.
func TestNoTerminal(t *testing.T) {
	t.Parallel()
	h := newHost(t, kind{cgroup: session.NoCgroup}, nil)
	must(t, h.OpenAccess(t.Context(), h.access()))
	cmd := exec.Command(h.cfg.Program, "console-shell", "--socket", h.cfg.Socket, "--grant", grant)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "needs a terminal") {
		t.Errorf("said %q, %v", out, err)
	}
}

// TestOtherUserAtTheSocket: who is at the other end the kernel says, and another account than the console's gets nothing.
func TestOtherUserAtTheSocket(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		missing(t, "this is no root: the refusal of another user's process is NOT TESTED")
		return
	}
	h := newHost(t, kind{name: "other account", cgroup: session.NoCgroup, account: "nobody"}, nil)
	must(t, h.OpenAccess(t.Context(), h.access()))
	conn, err := net.Dial("unix", h.cfg.Socket) // as root
	must(t, err)
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, `{"hello":{"grant":%q}}`+"\n", grant) // the answer does not wait for it
	var answer struct{ Refused string }
	must(t, json.NewDecoder(conn).Decode(&answer))
	if !strings.Contains(answer.Refused, "not the account") {
		t.Errorf("answer %+v", answer)
	}
}

// TestCrowdAtTheSocket: who connects again and again without a word is refused, and once they have gone there is room.
func TestCrowdAtTheSocket(t *testing.T) {
	t.Parallel()
	h := newHost(t, kind{cgroup: session.NoCgroup}, nil)
	dial := func() net.Conn {
		conn, err := net.Dial("unix", h.cfg.Socket)
		must(t, err)
		return conn
	}
	refused := func(conn net.Conn) string {
		var answer struct{ Refused string }
		must(t, json.NewDecoder(conn).Decode(&answer))
		return answer.Refused
	}
	var crowd []net.Conn
	for range 32 {
		conn := dial()
		defer conn.Close()
		crowd = append(crowd, conn)
	}
	for range 100 {
		conn := dial()
		if said := refused(conn); !strings.Contains(said, "connections wait") {
			t.Errorf("one more is told %q", said)
		}
		must(t, conn.Close())
	}
	for _, conn := range crowd {
		_, _ = fmt.Fprintln(conn, "{}")
		if said := refused(conn); !strings.Contains(said, "hello was expected") {
			t.Errorf("one of the crowd is told %q", said)
		}
	}
	conn := dial()
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, `{"hello":{"grant":%q}}`+"\n", grant)
	if said := refused(conn); strings.Contains(said, "connections wait") {
		t.Errorf("after the crowd: %q", said)
	}
}

// TestOpenRefuses what cannot be meant.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	h := newHost(t, kind{cgroup: session.NoCgroup}, nil)
	good := h.access()
	for name, change := range map[string]func(*session.Access){
		"another account": func(a *session.Access) { a.Account = "daemon" },
		"a strange grant": func(a *session.Access) { a.Grant = "G1" },
		"a strange key":   func(a *session.Access) { a.PublicKey = "x" },
		"no end":          func(a *session.Access) { a.Until = time.Time{} },
	} {
		a := good
		change(&a)
		if err := h.OpenAccess(t.Context(), a); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if _, err := os.Stat(h.cfg.KeyFile); err == nil {
		t.Error("a key file was written")
	}
	must(t, h.OpenAccess(t.Context(), good))
	must(t, h.OpenAccess(t.Context(), good)) // may be repeated
	other := h.access()
	if err := h.OpenAccess(t.Context(), other); err == nil {
		t.Error("opened with another key")
	}
	_, err := h.End(t.Context(), grant, "test")
	must(t, err)
	if err := h.OpenAccess(t.Context(), good); err == nil {
		t.Error("opened again after the end")
	}
	h.stop()
	h.start()
	if err := h.OpenAccess(t.Context(), good); err == nil {
		t.Error("opened again after the end and a restart")
	}
	h.Link("some", false)
	later := h.access()
	later.Grant, later.Instance = "e20261124.1/G2", "some"
	if err := h.OpenAccess(t.Context(), later); err == nil {
		t.Error("opened without a link to the service")
	}
}

// TestUnknownGrant: End is never refused; Freeze and Thaw say that there is nothing.
func TestUnknownGrant(t *testing.T) {
	t.Parallel()
	h := newHost(t, kind{cgroup: session.NoCgroup}, nil)
	e, err := h.End(t.Context(), grant, "test")
	must(t, err)
	h.wantEnded(e, session.NotNeeded)
	if mode, err := h.Freeze(t.Context(), grant); err == nil || mode != session.ModeNone {
		t.Errorf("froze %s, %v", mode, err)
	}
	if _, err := h.Thaw(t.Context(), grant); err == nil {
		t.Error("thawed")
	}
	if _, err := h.Leftovers(t.Context(), grant); err == nil {
		t.Error("compared with nothing")
	}
	if _, err := h.End(t.Context(), "../x", "test"); err == nil {
		t.Error("a path was taken for a grant")
	}
}

// TestEndBeforeShell: an access that nobody used ends with its key.
func TestEndBeforeShell(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, k kind) {
		h := newHost(t, k, nil)
		must(t, h.OpenAccess(t.Context(), h.access()))
		e, err := h.End(t.Context(), grant, "test")
		must(t, err)
		if s := outcome(t, e, session.StepCredential); s.Outcome != session.Done {
			t.Errorf("%+v", s)
		}
		if s := outcome(t, e, session.StepProcesses); s.Outcome != session.NotNeeded {
			t.Errorf("%+v", s)
		}
	})
}

// TestLinkLost: without the instance of the service that opened it a session freezes within a second, goes on when that is wanted, and ends
// after the grace. Of another instance it does not depend.
func TestLinkLost(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, k kind) {
		h := newHost(t, k, func(c *session.Config) { c.Grace = 3 * time.Second })
		x := h.opened()
		read := counting(x)
		h.Link("another", false) // an instance that has not opened it
		_, err := h.Freeze(t.Context(), grant)
		must(t, err)
		_, err = h.Thaw(t.Context(), grant)
		must(t, err)
		lost := time.Now()
		h.Link("", false)
		within(t, time.Second, "held", lost, func() bool { return len(h.Held("")) == 1 })
		eventually(t, "standing still", func() bool { return standsStill(read) })
		if _, err := h.Thaw(t.Context(), grant); err == nil {
			t.Error("thawed without a link")
		}
		h.Link("", true)
		_, err = h.Thaw(t.Context(), grant)
		must(t, err)
		was := read()
		eventually(t, "goes on", func() bool { return read() > was })
		if held := h.Held(""); len(held) != 0 {
			t.Errorf("held %v", held)
		}
		lost = time.Now()
		h.Link("", false)
		eventually(t, "ended", func() bool { return len(h.Open()) == 0 })
		if took := time.Since(lost); took < 3*time.Second {
			t.Errorf("ended after %s, before the grace was over", took)
		}
		x.wait()
	})
}

// TestAgentKilled: when the agent is killed the wrapper ends what it started; and if even that is prevented, the agent's next
// start does it.
func TestAgentKilled(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, k kind) {
		for name, hinder := range map[string]bool{"wrapper alive": false, "wrapper stopped": true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				h := newHost(t, k, nil)
				h.stop()
				agent := h.agentProcess()
				x := h.shell(grant)
				x.say("echo read''y")
				x.expect("ready")
				x.say(strings.ReplaceAll(n20["double fork"], "%", h.openFolder()))
				pid := h.pidIn("pid")
				if hinder {
					must(t, unix.Kill(x.pid, unix.SIGSTOP))
				}
				must(t, agent.Process.Kill())
				_ = agent.Wait()
				if !hinder {
					eventually(t, "the wrapper has killed it", func() bool { return !alive(pid) })
					x.wait()
				}
				h.start()
				if alive(pid) {
					t.Errorf("process %d survived the start of the next agent", pid)
				}
				e, err := h.End(t.Context(), grant, "test")
				must(t, err)
				h.wantEnded(e, session.Done)
				x.wait()
			})
		}
	})
}

// agentProcess runs a keeper in a process of its own, which opens the access and waits.
func (h *host) agentProcess() *exec.Cmd {
	h.Helper()
	text, err := json.Marshal(agentTask{h.cfg, h.access()})
	must(h, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), agentVariable+"="+string(text))
	cmd.Stderr = h.log
	must(h, cmd.Start())
	h.Cleanup(func() { _ = cmd.Process.Kill() })
	eventually(h, "an agent that has opened the access", func() bool {
		list, err := (session.KeyFile{Path: h.cfg.KeyFile}).Grants()
		return err == nil && len(list) == 1
	})
	return cmd
}

// TestSSHD: the key line does what it is to do in the machine's own sshd, with the stock client: a shell on a terminal and
// nothing else, until the end, and never again.
func TestSSHD(t *testing.T) {
	t.Parallel()
	sshd := sshdtest.New(t)
	client := sshdtest.Client(t, "ssh")
	h := newHost(t, kind{cgroup: session.NoCgroup}, func(c *session.Config) { c.KeyFile, c.From = sshd.AuthorizedKeys, []string{"127.0.0.0/8"} })
	public, private := key(t)
	must(t, sshdtest.WriteKey(h.dir+"/id", private))
	must(t, os.WriteFile(h.dir+"/known", []byte(sshd.KnownHosts()+"\n"), 0o600))
	host, port, err := net.SplitHostPort(sshd.Address)
	must(t, err)
	argv := func(more ...string) []string {
		return append([]string{client, "-F", "none", "-i", h.dir + "/id", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes",
			"-o", "UserKnownHostsFile=" + h.dir + "/known", "-p", port, sshd.User + "@" + host}, more...)
	}
	must(t, h.OpenAccess(t.Context(), session.Access{Grant: grant, PublicKey: public, Account: sshd.User, Until: time.Now().Add(time.Hour)}))
	for name, args := range map[string][]string{"a command": {"echo", "in''side"}, "no terminal": {"-T"}, "sftp": {"-s", "sftp"}} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		full := argv(args...)
		if args[0][0] == '-' {
			full = append(append([]string{client, args[0]}, argv()[1:]...), args[1:]...)
		}
		out, err := exec.CommandContext(ctx, full[0], full[1:]...).CombinedOutput()
		cancel()
		if err == nil || strings.Contains(string(out), "inside") || name != "sftp" && !strings.Contains(string(out), "watched session") {
			t.Errorf("%s: %s, %v", name, out, err)
		}
	}
	x := h.onTerminal(argv(), os.Environ())
	x.say("echo read''y; tty; echo shell $0")
	x.expect("ready")
	x.say(strings.ReplaceAll(n20["double fork"], "%", h.openFolder()))
	pid := h.pidIn("pid")
	started := time.Now()
	e, err := h.End(t.Context(), grant, "test")
	must(t, err)
	within(t, 2*time.Second, "ended", started, func() bool { return !alive(pid) })
	h.wantEnded(e, session.Done)
	x.wait()
	out, err := exec.Command(client, append([]string{"-tt"}, argv()[1:]...)...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Permission denied") {
		t.Errorf("the key still opens something: %s, %v", out, err)
	}
}

// TestExpired: sshd itself refuses a key whose time is over, whatever became of the agent.
func TestExpired(t *testing.T) {
	t.Parallel()
	sshd := sshdtest.New(t)
	client := sshdtest.Client(t, "ssh")
	h := newHost(t, kind{cgroup: session.NoCgroup}, func(c *session.Config) { c.KeyFile = sshd.AuthorizedKeys })
	public, private := key(t)
	must(t, sshdtest.WriteKey(h.dir+"/id", private))
	must(t, h.OpenAccess(t.Context(), session.Access{Grant: grant, PublicKey: public, Account: sshd.User, Until: time.Now().Add(-time.Minute)}))
	host, port, err := net.SplitHostPort(sshd.Address)
	must(t, err)
	out, err := exec.Command(client, "-F", "none", "-tt", "-i", h.dir+"/id", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-p", port, sshd.User+"@"+host).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Permission denied") {
		t.Errorf("%s, %v", out, err)
	}
}
