// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// Deny is the zero value: a policy that says nothing allows nothing.
func TestZeroSurfaceDeniesAll(t *testing.T) {
	t.Parallel()
	var nothing surface
	for _, kind := range []string{"session", "direct-tcpip", ""} {
		if nothing.channel(kind, asked{}) == nil {
			t.Errorf("channel %q", kind)
		}
	}
	for _, a := range []asked{{}, {channel: true}, {channel: true, pty: true}, {true, true, true}} {
		for _, kind := range []string{"pty-req", "shell", "window-change", "exec", "subsystem", "env", "signal", "x"} {
			if v, _ := nothing.request(&ssh.Request{Type: kind}, a); v == allow {
				t.Errorf("request %q after %+v", kind, a)
			}
		}
	}
	if v, _ := nothing.global("tcpip-forward"); v == allow {
		t.Error("global request")
	}
	var v verdict
	if v != deny {
		t.Error("the zero verdict is not a refusal")
	}
}

// What conceals is found wherever a piece of output ends, and colours that have the same number are not taken for it.
func TestConcealment(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"\x1b[8mx": true, "\x1b[1;8mx": true, "\x1b[0;8m": true, "a\x1b[38;5;8;8m": true,
		"\x1b[38;5;8mgrey": false, "\x1b[48;2;8;8;8m": false, "\x1b[8;0m": false, "\x1b[8;28m": false, "\x1b[88m": false, "\x1b[18m": false,
		"8m": false, "[8m": false, "\x1b[8H": false, "\x1b]8m": false, "\x1b[8;2t": false,
	} {
		for cut := range len(text) {
			var c concealment
			if got := c.scan([]byte(text[:cut])) || c.scan([]byte(text[cut:])); got != want {
				t.Errorf("%q, cut at %d: %v", text, cut, got)
			}
		}
	}
}

// FuzzRequest: whatever a client asks, it gets terminal, shell and size at most, in their order, and its words are plain.
func FuzzRequest(f *testing.F) {
	f.Add("pty-req", ssh.Marshal(terminal{Term: "vt100", Columns: 80, Rows: 24}), true, false)
	f.Add("window-change", ssh.Marshal(size{80, 24, 0, 0}), true, true)
	f.Add("env", ssh.Marshal(struct{ A, B string }{"LC_ALL", "C"}), false, false)
	f.Add("exec", ssh.Marshal(struct{ A string }{"\x1b]0;x"}), false, true)
	f.Fuzz(func(t *testing.T, kind string, payload []byte, pty, shell bool) {
		r := &ssh.Request{Type: kind, Payload: payload}
		v, why := console().request(r, asked{channel: true, pty: pty, shell: shell})
		switch {
		case v == allow && kind != "pty-req" && kind != "shell" && kind != "window-change":
			t.Errorf("%q is allowed", kind)
		case v == allow && (kind == "shell" || kind == "window-change") && !pty:
			t.Errorf("%q is allowed without a terminal", kind)
		case v != allow && why == "":
			t.Errorf("%q is refused without a reason", kind)
		}
		if s := describe(r); strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) || len(s) > 300 {
			t.Errorf("%q", s)
		}
		if x, err := parseTerminal(payload); err == nil && (x.Columns == 0 || x.Rows == 0 || x.Columns > 65535 || len(x.Term) > 64) {
			t.Errorf("%+v", x)
		}
		if z, err := parseSize(payload); err == nil && (z.Columns == 0 || z.Rows == 0 || z.Rows > 65535) {
			t.Errorf("%+v", z)
		}
	})
}

// FuzzLogin: a login that is read is written the same.
func FuzzLogin(f *testing.F) {
	f.Add("e20261124.1.G1")
	f.Add(".G1")
	f.Add("e20261124.")
	f.Fuzz(func(t *testing.T, login string) {
		if ref, ok := ParseLogin(login); ok && (ref.Login() != login || ref.Incident == "" || ref.Grant == "") {
			t.Errorf("%q is read as %+v", login, ref)
		}
	})
}
