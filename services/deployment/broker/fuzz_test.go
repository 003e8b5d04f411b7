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
