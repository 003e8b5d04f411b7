// SPDX-License-Identifier: Apache-2.0

package devca_test

import (
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
)

var t0 = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string, at time.Time) *devca.CA {
	t.Helper()
	ca, err := devca.Open(dir, func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func load(t *testing.T, at time.Time, issue func(string) (string, error), name string) *identity.Profile {
	t.Helper()
	dir, err := issue(name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := identity.Load(dir, identity.LoadOptions{Now: at})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func verify(p *identity.Profile, at time.Time, usage x509.ExtKeyUsage) error {
	_, err := p.Certificate.Leaf.Verify(x509.VerifyOptions{Roots: p.Roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

func TestUsage(t *testing.T) {
	t.Parallel()
	ca := open(t, t.TempDir(), t0)
	for _, c := range []struct {
		name           string
		issue          func(string) (string, error)
		server, client bool
	}{
		{"web", ca.Server, true, false},
		{"review", ca.Service, true, true},
		{"host-1", ca.System, false, true},
		{"p-ada", ca.Person, false, true},
	} {
		p := load(t, t0, c.issue, c.name)
		if got := verify(p, t0, x509.ExtKeyUsageServerAuth) == nil; got != c.server {
			t.Errorf("%s serves: %t, want %t", c.name, got, c.server)
		}
		if got := verify(p, t0, x509.ExtKeyUsageClientAuth) == nil; got != c.client {
			t.Errorf("%s calls: %t, want %t", c.name, got, c.client)
		}
		for _, host := range []string{"localhost", "127.0.0.1", "::1"} {
			if got := p.Certificate.Leaf.VerifyHostname(host) == nil; got != c.server {
				t.Errorf("%s is %s: %t, want %t", c.name, host, got, c.server)
			}
		}
		if cn := p.Certificate.Leaf.Subject.CommonName; cn != c.name {
			t.Errorf("common name %q, want %q", cn, c.name)
		}
	}
}

func TestSecondStartFindsEverything(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := load(t, t0, open(t, dir, t0).Person, "p-ada")
	again := load(t, t0, open(t, dir, t0.Add(time.Hour)).Person, "p-ada")
	if !first.Certificate.Leaf.Equal(again.Certificate.Leaf) || !first.Roots.Equal(again.Roots) {
		t.Error("the second start made another certificate or root")
	}
	bob := load(t, t0, open(t, dir, t0).Person, "p-bob")
	if bob.KeyID == first.KeyID {
		t.Error("two people have one key")
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := load(t, t0, open(t, dir, t0).Person, "p-ada")
	end := first.Certificate.Leaf.NotAfter
	for _, c := range []struct {
		at      time.Time
		renewed bool
	}{{end.AddDate(0, 0, -31), false}, {end.AddDate(0, 0, -29), true}} {
		got := load(t, c.at, open(t, dir, c.at).Person, "p-ada")
		if renewed := got.Certificate.Leaf.NotAfter.After(end); renewed != c.renewed || got.KeyID != first.KeyID {
			t.Errorf("at %s: renewed %t, want %t; key kept %t", c.at, renewed, c.renewed, got.KeyID == first.KeyID)
		}
	}
	late := t0.AddDate(9, 6, 0)
	got := load(t, late, open(t, dir, late).Person, "p-ada")
	if got.KeyID != first.KeyID || got.Roots.Equal(first.Roots) {
		t.Error("nine years on the root is not renewed, or the key is another")
	}
	if err := verify(got, got.Certificate.Leaf.NotAfter, x509.ExtKeyUsageClientAuth); err != nil {
		t.Errorf("the certificate outlives its root: %v", err)
	}
}

func TestSigningKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, path, err := open(t, dir, t0).SigningKey("review")
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := open(t, dir, t0).SigningKey("review")
	if err != nil || !key.Equal(again) {
		t.Errorf("second start: another key, %v", err)
	}
	other, _, err := open(t, dir, t0).SigningKey("incident")
	if err != nil || key.Equal(other) {
		t.Errorf("two services share a signing key, %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of %s: %v, %v", path, info.Mode(), err)
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	ca := open(t, t.TempDir(), t0)
	for _, name := range []string{"", "..", "../x", "a/b", ".hidden", "Ada", "a b", "a\x00"} {
		if dir, err := ca.Person(name); err == nil {
			t.Errorf("%q is issued in %s", name, dir)
		}
		if _, _, err := ca.SigningKey(name); err == nil {
			t.Errorf("%q has a signing key", name)
		}
	}
	if _, err := devca.Open(t.TempDir(), nil); err == nil {
		t.Error("opens without a clock")
	}
	for _, damage := range []struct{ name, content string }{{"key.pem", "torn"}, {"cert.pem", "torn"}} {
		dir := t.TempDir()
		open(t, dir, t0)
		if err := os.WriteFile(filepath.Join(dir, "root", damage.name), []byte(damage.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := devca.Open(dir, time.Now); err == nil {
			t.Errorf("a damaged root %s is taken, or silently replaced", damage.name)
		}
	}
	dir := t.TempDir()
	open(t, dir, t0)
	foreign, err := os.ReadFile(open(t, t.TempDir(), t0).RootFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "root", "cert.pem"), foreign, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := devca.Open(dir, time.Now); err == nil {
		t.Error("a root certificate of another key is taken")
	}
}

// TestCrash begins with what a crash between two writes leaves.
func TestCrash(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{"root/cert.pem", "people/p-ada/cert.pem", "people/p-ada/ca.pem"} {
		dir := t.TempDir()
		first := load(t, t0, open(t, dir, t0).Person, "p-ada")
		if err := os.Remove(filepath.Join(dir, lost)); err != nil {
			t.Fatal(err)
		}
		again := load(t, t0, open(t, dir, t0).Person, "p-ada")
		if again.KeyID != first.KeyID {
			t.Errorf("without %s: another key", lost)
		}
		if err := verify(again, t0, x509.ExtKeyUsageClientAuth); err != nil {
			t.Errorf("without %s: %v", lost, err)
		}
	}
}

func TestManyStartAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	profiles := make([]*identity.Profile, 8)
	var wg sync.WaitGroup
	for i := range profiles {
		wg.Go(func() {
			ca, err := devca.Open(dir, func() time.Time { return t0 })
			if err != nil {
				t.Error(err)
				return
			}
			name, err := ca.Service("review")
			if err != nil {
				t.Error(err)
				return
			}
			if profiles[i], err = identity.Load(name, identity.LoadOptions{Now: t0}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for i, p := range profiles {
		_, err := p.Certificate.Leaf.Verify(x509.VerifyOptions{Roots: profiles[0].Roots, CurrentTime: t0, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if err != nil || p.KeyID != profiles[0].KeyID {
			t.Errorf("start %d: %v, same key %t", i, err, p.KeyID == profiles[0].KeyID)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*", ".new-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if ip := profiles[0].Certificate.Leaf.IPAddresses; len(ip) != 2 || !ip[0].Equal(net.IPv4(127, 0, 0, 1)) {
		t.Errorf("addresses %v", ip)
	}
}
