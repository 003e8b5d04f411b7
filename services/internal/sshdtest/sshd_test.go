// SPDX-License-Identifier: Apache-2.0

package sshdtest

import (
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestStockClientLogsIn(t *testing.T) {
	t.Parallel()
	s := New(t)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	key, known := filepath.Join(t.TempDir(), "key"), filepath.Join(t.TempDir(), "known_hosts")
	must(t, WriteKey(key, private))
	must(t, os.WriteFile(known, []byte(s.KnownHosts()+"\n"), 0o600))
	login := func() ([]byte, error) {
		host, port, _ := strings.Cut(s.Address, ":")
		return exec.CommandContext(t.Context(), Client(t, "ssh"), "-F", "none", "-i", key, "-o", "UserKnownHostsFile="+known,
			"-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-p", port, s.User+"@"+host, "echo here in $HOME").CombinedOutput()
	}
	if out, err := login(); err == nil {
		t.Fatalf("logged in without a key: %s", out)
	}
	line, err := ssh.NewPublicKey(public)
	must(t, err)
	must(t, os.WriteFile(s.AuthorizedKeys, ssh.MarshalAuthorizedKey(line), 0o600))
	out, err := login()
	if err != nil || string(out) != "here in "+s.Home+"\n" {
		t.Fatalf("%v: %s", err, out)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
