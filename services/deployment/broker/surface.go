// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// surface is what a client may ask for. Its zero value allows nothing (hardening.md 1.7): what is forgotten is denied.
type surface struct {
	session bool // one session channel in the life of a connection
	pty     bool // one terminal, before the shell
	shell   bool // one shell, with a terminal
	resize  bool // new sizes of the terminal
}

// console is the whole of what the procedure allows (procedure.md 4.4, console rules).
func console() surface { return surface{session: true, pty: true, shell: true, resize: true} }

// asked is how far a connection has come.
type asked struct{ channel, pty, shell bool }

// verdict on a request.
type verdict int

const (
	deny verdict = iota // refused, recorded in the recording and in the history
	drop                // refused, recorded in the recording only: what every stock client sends by itself
	allow
)

// channel judges the opening of a channel.
func (p surface) channel(kind string, a asked) error {
	switch {
	case kind != "session":
		return errors.New("only a console is allowed; every forwarding is refused")
	case !p.session:
		return errors.New("no session is allowed")
	case a.channel:
		return errors.New("there is one channel in one connection, and it was opened already")
	default:
		return nil
	}
}

// request judges a request on the session channel. Stock clients of Debian, Fedora and others send LANG and LC_* unasked:
// these are dropped without an entry in the history, so that the entries there are those that mean something.
func (p surface) request(r *ssh.Request, a asked) (verdict, string) {
	switch r.Type {
	case "pty-req":
		return when(p.pty && !a.pty && !a.shell, "one terminal, before the shell")
	case "shell":
		if !a.pty {
			return deny, "no session without a terminal: use `ssh -tt`"
		}
		return when(p.shell && !a.shell, "one shell in one connection")
	case "window-change":
		return when(p.resize && a.pty, "there is no terminal")
	case "env":
		if harmlessName(r.Payload) {
			return drop, "no variable of the client reaches the target"
		}
		return deny, "no variable of the client reaches the target"
	case "exec", "subsystem":
		return deny, "commands and file transfer are not allowed: what has to go in or out goes through the incident as an artefact"
	case "eow@openssh.com", "keepalive@openssh.com":
		return drop, "not needed"
	default:
		return deny, "not part of a console"
	}
}

// global judges a request on the connection. no-more-sessions only gives rights up, and every stock client sends it.
func (p surface) global(kind string) (verdict, string) {
	switch kind {
	case "no-more-sessions@openssh.com", "keepalive@openssh.com":
		return drop, "not needed"
	default:
		return deny, "not part of a console"
	}
}

func when(ok bool, otherwise string) (verdict, string) {
	if ok {
		return allow, ""
	}
	return deny, otherwise
}

func harmlessName(payload []byte) bool {
	var env struct{ Name, Value string }
	if ssh.Unmarshal(payload, &env) != nil {
		return false
	}
	return env.Name == "LANG" || env.Name == "TERM" || strings.HasPrefix(env.Name, "LC_")
}

// describe names a request for people, in one line.
func describe(r *ssh.Request) string {
	var text struct {
		Text string
		Rest []byte `ssh:"rest"`
	}
	switch r.Type {
	case "exec", "subsystem", "env", "signal":
		if ssh.Unmarshal(r.Payload, &text) == nil {
			return oneLine(r.Type+" "+text.Text, 200)
		}
	}
	return oneLine(r.Type, 200)
}

// oneLine makes a client's text fit for a log, a terminal and an event.
func oneLine(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	if len(s) > limit {
		s = fmt.Sprintf("%s... (%d bytes)", s[:limit], len(s))
	}
	return s
}

// terminal is a pty-req. Terminal modes go to the target as they are: its own sshd judges them.
type terminal struct {
	Term                         string
	Columns, Rows, Width, Height uint32
	Modes                        string
}

// size is a window-change.
type size struct{ Columns, Rows, Width, Height uint32 }

// parseTerminal reads a pty-req. A client without a terminal of its own (`ssh -tt` in a script) names no size.
func parseTerminal(payload []byte) (terminal, error) {
	var t terminal
	if err := ssh.Unmarshal(payload, &t); err != nil {
		return t, errors.New("the terminal cannot be read")
	}
	if len(t.Term) > 64 || oneLine(t.Term, 64) != t.Term || len(t.Modes) > 4096 {
		return t, errors.New("the terminal's name or modes are too long or not plain text")
	}
	z, err := checkSize(size{t.Columns, t.Rows, t.Width, t.Height})
	t.Columns, t.Rows, t.Width, t.Height = z.Columns, z.Rows, z.Width, z.Height
	return t, err
}

func parseSize(payload []byte) (size, error) {
	var z size
	if err := ssh.Unmarshal(payload, &z); err != nil {
		return z, errors.New("the terminal's size cannot be read")
	}
	return checkSize(z)
}

func checkSize(z size) (size, error) {
	if z.Columns == 0 {
		z.Columns = 80
	}
	if z.Rows == 0 {
		z.Rows = 24
	}
	if z.Columns > 1<<16-1 || z.Rows > 1<<16-1 {
		return z, errors.New("no terminal is that large")
	}
	return z, nil
}
