// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"cacert.org/emergency/services/agent/session"
)

func lineOf(t *testing.T, grant string) session.Line {
	public, _ := key(t)
	return session.Line{Grant: grant, PublicKey: public, Until: time.Date(2026, 11, 24, 20, 5, 7, 0, time.FixedZone("", 3600)), Program: "/usr/bin/epatch-agent", Socket: "/run/epatch/sock"}
}

// TestKeyFile: only our own lines come and go, everything else stays byte by byte, and so do mode and owner.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys")
	other, _ := key(t)
	before := "# by hand\n\n" + other + "restrict,pty,command=\"x\" not ours epatch-console:nonsense"
	must(t, os.WriteFile(path, []byte(before), 0o640))
	f := session.KeyFile{Path: path, Shared: true}
	one, two := lineOf(t, "e20261124.1/G1"), lineOf(t, "x20261124.2/G12")
	two.From, two.Program = []string{"192.0.2.7", "2001:db8::/32"}, "/opt/my tools/epatch-agent"
	must(t, f.Install(one))
	must(t, f.Install(two))
	must(t, f.Install(one))
	if list, err := f.Grants(); err != nil || !reflect.DeepEqual(list, []string{two.Grant, one.Grant}) {
		t.Errorf("grants %v, %v", list, err)
	}
	b, err := os.ReadFile(path)
	must(t, err)
	for _, want := range []string{
		before + "\n",
		`restrict,pty,expiry-time="20261124190507Z",command="/usr/bin/epatch-agent console-shell --socket /run/epatch/sock --grant e20261124.1/G1" ssh-ed25519 `,
		`,from="192.0.2.7,2001:db8::/32",command="'/opt/my tools/epatch-agent' console-shell --socket `,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the file lacks %q:\n%s", want, b)
		}
	}
	for _, l := range strings.Split(strings.TrimSpace(string(b)), "\n")[3:] {
		if _, _, options, _, err := ssh.ParseAuthorizedKey([]byte(l)); err != nil && !strings.Contains(l, "not ours") || err == nil && len(options) < 4 {
			t.Errorf("%s: options %q, %v", l, options, err)
		}
	}
	for _, g := range []string{one.Grant, two.Grant, one.Grant} {
		removed, err := f.Remove(g)
		must(t, err)
		if again, err := f.Remove(g); err != nil || again {
			t.Errorf("removed %s twice (first %v): %v", g, removed, err)
		}
	}
	b, err = os.ReadFile(path)
	must(t, err)
	if got := string(b); got != before+"\n" {
		t.Errorf("left %q, want %q", got, before+"\n")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if litter, _ := filepath.Glob(filepath.Dir(path) + "/.epatch*"); len(litter) > 0 {
		t.Errorf("left behind: %v", litter)
	}
}

// TestKeyLineRefuses everything that could write something else into the file than one key for one command.
func TestKeyLineRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*session.Line){
		"no grant":             func(l *session.Line) { l.Grant = "" },
		"grant with blank":     func(l *session.Line) { l.Grant = "e20261124.1/G1 x" },
		"grant with newline":   func(l *session.Line) { l.Grant += "\n" },
		"grant with path":      func(l *session.Line) { l.Grant = "../../e20261124.1/G1" },
		"no key":               func(l *session.Line) { l.PublicKey = "" },
		"two keys":             func(l *session.Line) { l.PublicKey += l.PublicKey },
		"key with options":     func(l *session.Line) { l.PublicKey = `command="sh" ` + l.PublicKey },
		"key of another type":  func(l *session.Line) { l.PublicKey = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7" },
		"no end":               func(l *session.Line) { l.Until = time.Time{} },
		"from a name":          func(l *session.Line) { l.From = []string{"*.example.org"} },
		"from with quote":      func(l *session.Line) { l.From = []string{`192.0.2.7",command="sh`} },
		"relative program":     func(l *session.Line) { l.Program = "epatch-agent" },
		"program with quote":   func(l *session.Line) { l.Program = `/bin/sh" ` },
		"program with quote 2": func(l *session.Line) { l.Program = `/bin/sh'; sh '` },
		"socket with newline":  func(l *session.Line) { l.Socket = "/run/x\nssh-ed25519 AAAA" },
		"socket with dollar 2": func(l *session.Line) { l.Socket = `/run/\$(sh)` },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "keys")
			l := lineOf(t, grant)
			change(&l)
			if err := (session.KeyFile{Path: path}).Install(l); err == nil {
				b, _ := os.ReadFile(path)
				t.Errorf("accepted: %s", b)
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("a file was written")
			}
		})
	}
}

// TestKeyFileIsNoLink: a link in the place of the file is not followed.
func TestKeyFileIsNoLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/target", []byte("precious\n"), 0o600))
	must(t, os.Symlink(dir+"/target", dir+"/keys"))
	f := session.KeyFile{Path: dir + "/keys"}
	if err := f.Install(lineOf(t, grant)); err == nil {
		t.Error("installed through a link")
	}
	if _, err := f.Remove(grant); err == nil {
		t.Error("removed through a link")
	}
	if b, err := os.ReadFile(dir + "/target"); err != nil || string(b) != "precious\n" {
		t.Errorf("the target holds %q, %v", b, err)
	}
}
