// SPDX-License-Identifier: Apache-2.0

package irc

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"cacert.org/emergency/services/notification/channel"
)

// ngircd is a real server.
type ngircd struct {
	addr, secure string
	conf         string
	cmd          *exec.Cmd
}

// startNgircd starts a real ngircd with a port in clear and one with TLS. global are lines for that part of its configuration.
func startNgircd(t *testing.T, global string) *ngircd {
	t.Helper()
	path, err := exec.LookPath("ngircd")
	if err != nil {
		if path = "/usr/sbin/ngircd"; !exists(path) {
			const how = "ngircd is not installed: apt-get install -y --no-install-recommends ngircd"
			if os.Getenv("CI") != "" {
				t.Fatal(how)
			}
			t.Skip(how)
		}
	}
	_, certFile, keyFile := certificate(t)
	ports := freePorts(t, 2)
	n := &ngircd{addr: "127.0.0.1:" + ports[0], secure: "127.0.0.1:" + ports[1], conf: filepath.Join(filepath.Dir(certFile), "ngircd.conf")}
	text := fmt.Sprintf("[Global]\nName = irc.test.example\nInfo = test\nListen = 127.0.0.1\nPorts = %s\nPidFile =\n%s\n[Limits]\nMaxConnectionsIP = 0\nMaxNickLength = 30\nMaxPenaltyTime = 0\n"+
		"[Options]\nPAM = no\nIdent = no\nDNS = no\n[SSL]\nCertFile = %s\nKeyFile = %s\nPorts = %s\n[Channel]\nName = #locked\nModes = +k sesame\n[Channel]\nName = #mute\nModes = +m\n",
		ports[0], global, certFile, keyFile, ports[1])
	if err := os.WriteFile(n.conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{certFile, keyFile} { // for the same reason
		if err := os.Chmod(f, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	n.cmd = exec.Command(path, "-n", "-f", n.conf)
	n.start(t)
	t.Cleanup(n.kill)
	return n
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, p, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, p)
	}
	return ports
}

// start returns when the server can be reached.
func (n *ngircd) start(t *testing.T) {
	t.Helper()
	n.cmd = exec.Command(n.cmd.Path, n.cmd.Args[1:]...)
	n.cmd.Stdout, n.cmd.Stderr = t.Output(), t.Output()
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(20 * time.Second); ; {
		conn, err := net.Dial("tcp", n.addr)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(until) {
			t.Fatalf("ngircd does not come up: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (n *ngircd) kill() {
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait()
}

// human is somebody at the other end.
type human struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (n *ngircd) human(t *testing.T, lines ...string) *human {
	t.Helper()
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	h := &human{t, conn, bufio.NewReader(conn)}
	for _, l := range append(lines, "PING :ready") {
		if _, err := fmt.Fprintf(conn, "%s\r\n", l); err != nil {
			t.Fatal(err)
		}
	}
	h.until("PONG")
	return h
}

// until reads until a command comes and returns it.
func (h *human) until(command string) message {
	h.t.Helper()
	for {
		line, err := h.in.ReadString('\n')
		if err != nil {
			h.t.Fatalf("waiting for %s: %v", command, err)
		}
		m, err := parse(line)
		if err != nil {
			h.t.Fatalf("%q: %v", line, err)
		}
		if m.command == "PING" {
			fmt.Fprintf(h.conn, "PONG :%s\r\n", m.last())
		}
		if m.command == command {
			return m
		}
	}
}

func TestRealServer(t *testing.T) {
	t.Parallel()
	n := startNgircd(t, "")
	cfg := config(n.secure)
	cfg.Security, cfg.CAFile = TLS, filepath.Join(filepath.Dir(n.conf), "cert.pem")
	cfg.Join = []string{"#locked sesame"}
	squatter := n.human(t, "NICK pager", "USER x 0 * :x")
	c := run(t, cfg)
	alice := n.human(t, "NICK alice", "USER alice 0 * :Alice", "JOIN #emergency", "JOIN #locked sesame")

	p := page("alice")
	p.Text = "First line\r\nQUIT :injected\r\n" + strings.Repeat("Grüße ", 200)
	if r := c.Send(t.Context(), p); r.State != channel.Sent {
		t.Fatalf("%+v", r)
	}
	var got []string
	for range maxPieces {
		m := alice.until("PRIVMSG")
		if m.nick() != "pager_" || !utf8.ValidString(m.last()) {
			t.Errorf("%+v", m)
		}
		got = append(got, m.last())
	}
	text := strings.Join(got, "|")
	for _, want := range []string{"e20261124.1: Critical admin needed|https://emergency.example.org/|First line|QUIT :injected|", "Grüße Grüße", "|(cut; the link has all of it)"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
	// The longest piece came whole: the note would be cut off, or the line be refused, had the room been misjudged.
	if len(got[4]) < c.room(t, "alice")-len("Grüße ") {
		t.Errorf("a full line has only %d bytes", len(got[4]))
	}

	for _, name := range []string{"#emergency", "#locked"} {
		if r := c.Send(t.Context(), page(name)); r.State != channel.Sent {
			t.Errorf("%s: %+v", name, r)
		}
		if m := alice.until("PRIVMSG"); m.param(0) != name || !strings.Contains(m.last(), "Critical admin") {
			t.Errorf("%+v", m)
		}
		alice.until("PRIVMSG")
		alice.until("PRIVMSG")
	}
	for to, want := range map[string]string{"nobody": "(401)", "#mute": "(404)"} {
		if r := c.Send(t.Context(), page(to)); r.State != channel.Failed || !strings.Contains(r.Detail, want) {
			t.Errorf("%s: %+v, want %s", to, r, want)
		}
	}
	fmt.Fprintf(alice.conn, "AWAY :asleep\r\n")
	alice.until("306")
	if r := c.Send(t.Context(), page("alice")); r.State != channel.Sent || !strings.Contains(r.Detail, "away") {
		t.Errorf("%+v", r)
	}
	fmt.Fprintf(squatter.conn, "QUIT\r\n")
}

// room is what the client believes to fit in a line.
func (c *Client) room(t *testing.T, target string) int {
	t.Helper()
	s, why := c.session(t.Context())
	if why != nil {
		t.Fatal(why)
	}
	return s.room(target)
}

func TestRealServerKilledAndBack(t *testing.T) {
	t.Parallel()
	n := startNgircd(t, "")
	c := run(t, config(n.addr))
	n.human(t, "NICK alice", "USER alice 0 * :Alice")
	if r := c.Send(t.Context(), page("alice")); r.State != channel.Sent {
		t.Fatalf("%+v", r)
	}
	n.kill()
	if r := c.Send(t.Context(), page("alice")); r.State != channel.Failed && r.State != channel.Unknown {
		t.Errorf("the server is dead: %+v", r)
	}
	n.start(t)
	n.human(t, "NICK alice", "USER alice 0 * :Alice")
	for {
		r := c.Send(t.Context(), page("alice"))
		if r.State == channel.Sent {
			break
		}
		if r.State != channel.Failed || !r.Temporary {
			t.Fatalf("while it comes back: %+v", r)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestRealServerPassword(t *testing.T) {
	t.Parallel()
	n := startNgircd(t, "Password = sesame")
	cfg := config(n.addr)
	cfg.ServerPassword = "sesame"
	c := run(t, cfg)
	if r := c.Send(t.Context(), page("pager")); r.State != channel.Sent {
		t.Errorf("to itself: %+v", r)
	}
	cfg.ServerPassword, cfg.Nick = "wrong", "other"
	if r := run(t, cfg).Send(t.Context(), page("pager")); r.State != channel.Failed {
		t.Errorf("wrong password: %+v", r)
	} else if !strings.Contains(r.Detail, "irc.server_password") {
		t.Errorf("%+v, want the setting to look at", r) // ngircd sends no 464
	}
}
