// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// TestShellLine: what --print shows is what a shell runs.
func TestShellLine(t *testing.T) {
	t.Parallel()
	words := []string{"printf", `%s\n`, "", "plain-word", "two words", "it's", `$HOME "x" \`, "a;b", "-o", "A=b@c:22"}
	out, err := exec.Command("sh", "-c", shellLine(words)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(words[2:], "\n") + "\n"; string(out) != want {
		t.Errorf("the shell read %q, want %q", out, want)
	}
}

// TestOnlyOurOptionsCount: a person's own configuration of ssh has no say in the connection.
func TestOnlyOurOptionsCount(t *testing.T) {
	t.Parallel()
	client, err := exec.LookPath("ssh")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("ssh is missing")
		}
		t.Skip("SKIPPED: ssh is missing")
	}
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	const config = "Host *\n  ForwardAgent yes\n  ForwardX11 yes\n  LocalForward 8080 localhost:80\n  ControlMaster auto\n  ControlPath ~/.ssh/c\n  StrictHostKeyChecking no\n  IdentityFile ~/.ssh/mine\n  SendEnv *\n"
	if err := os.WriteFile(filepath.Join(home, ".ssh", "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(home, "private"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "private", keyFile), nil, 0o600); err != nil { // one that is not there is passed over
		t.Fatal(err)
	}
	x := &access{dir: filepath.Join(home, "private"), login: "e20261124.1.G1", host: "broker.example.org", port: "2222"}
	cmd := exec.Command(client, append([]string{"-G"}, x.args()...)...) // prints the configuration that counts
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	lines := strings.Split(strings.ToLower(out.String()), "\n")
	for _, want := range []string{
		"user e20261124.1.g1", "hostname broker.example.org", "port 2222", "forwardagent no", "forwardx11 no", "clearallforwardings yes", "stricthostkeychecking true",
		"identitiesonly yes", "identityfile " + strings.ToLower(x.dir) + "/id_ed25519", "controlmaster false", "requesttty force",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("%q does not count:\n%s", want, out.String())
		}
	}
	for _, l := range lines {
		if strings.HasPrefix(l, "localforward") || strings.HasPrefix(l, "sendenv") || strings.Contains(l, "mine") {
			t.Errorf("the person's own %q counts", l)
		}
	}
}

func TestOrders(t *testing.T) {
	t.Parallel()
	a := testApp()
	a.proc.Zone = time.FixedZone("CET", 3600)
	o, err := a.parseOrder("protect clara 2026-12-01: keep: the recording of G1")
	if err != nil || o.Kind != emergencyv1.DirectionKind_DIRECTION_KIND_PROTECT || o.Person != "clara" || o.Text != "keep: the recording of G1" ||
		!o.DueAt.AsTime().Equal(time.Date(2026, 12, 1, 23, 0, 0, 0, time.UTC)) {
		t.Errorf("%v, %v", o, err)
	}
	o, err = a.parseOrder("critical-team-lead 2026-12-01T12:30: publish the log")
	if err != nil || o.Kind != emergencyv1.DirectionKind_DIRECTION_KIND_DO || o.Person != "" || o.Role != emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD ||
		!o.DueAt.AsTime().Equal(time.Date(2026, 12, 1, 11, 30, 0, 0, time.UTC)) {
		t.Errorf("%v, %v", o, err)
	}
	for _, wrong := range []string{"", "clara", "clara: x", "clara 2026-12-01:", "clara tomorrow: x", "forbid clara 2026-12-01: x", "a b c d: x"} {
		if o, err := a.parseOrder(wrong); err == nil {
			t.Errorf("%q is taken as %v", wrong, o)
		}
	}
}

func TestForms(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := writeForm(&b, "a form\nof two lines", []part{{"one", "help", "text\n\nmore\x1b[2J"}, {"two", "", ""}}); err != nil {
		t.Fatal(err)
	}
	got, err := parseForm(strings.ReplaceAll(b.String(), "\n", "\r\n"), []string{"one", "two"})
	if err != nil || got["one"] != "text\n\nmore"+`\x1b[2J` || got["two"] != "" || len(got) != 2 {
		t.Errorf("%q, %v", got, err)
	}
	for _, wrong := range []string{"text", "== three\n", "== one\n== one\n"} {
		if got, err := parseForm(wrong, []string{"one", "two"}); err == nil {
			t.Errorf("%q is read as %q", wrong, got)
		}
	}
}
