// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
)

var t0 = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

func write(t testing.TB, dir, name string, data []byte, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	weak := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(must(rsa.GenerateKey(rand.Reader, 1024))(t))})
	half := func(t *testing.T, dir, name string) []byte {
		data := must(os.ReadFile(filepath.Join(dir, name)))(t)
		return data[:len(data)/2]
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string)
		at     time.Time
		want   []string
	}{
		"no certificate": {func(t *testing.T, d string) { _ = os.Remove(filepath.Join(d, "cert.pem")) }, t0, []string{"cert.pem", "missing"}},
		"no key":         {func(t *testing.T, d string) { _ = os.Remove(filepath.Join(d, "key.pem")) }, t0, []string{"key.pem", "missing"}},
		"no authority":   {func(t *testing.T, d string) { _ = os.Remove(filepath.Join(d, "ca.pem")) }, t0, []string{"ca.pem", "missing"}},
		"empty":          {func(t *testing.T, d string) { write(t, d, "cert.pem", nil, 0o644) }, t0, []string{"cert.pem", "empty"}},
		"torn":           {func(t *testing.T, d string) { write(t, d, "cert.pem", half(t, d, "cert.pem"), 0o644) }, t0, []string{"cert.pem", "torn"}},
		"torn key":       {func(t *testing.T, d string) { write(t, d, "key.pem", half(t, d, "key.pem"), 0o600) }, t0, []string{"key.pem", "torn"}},
		"second torn": {func(t *testing.T, d string) {
			whole := must(os.ReadFile(filepath.Join(d, "ca.pem")))(t)
			write(t, d, "ca.pem", append(whole, half(t, d, "ca.pem")...), 0o644)
		}, t0, []string{"ca.pem", "torn"}},
		"key for certificate": {func(t *testing.T, d string) {
			write(t, d, "cert.pem", must(os.ReadFile(filepath.Join(d, "key.pem")))(t), 0o644)
		}, t0, []string{"cert.pem", "PRIVATE KEY"}},
		"too large": {func(t *testing.T, d string) { write(t, d, "cert.pem", make([]byte, 1<<20+1), 0o644) }, t0, []string{"cert.pem", "larger"}},
		"a folder": {func(t *testing.T, d string) {
			_ = os.Remove(filepath.Join(d, "ca.pem"))
			_ = os.Mkdir(filepath.Join(d, "ca.pem"), 0o700)
		}, t0, []string{"ca.pem", "regular"}},
		"expired":       {func(*testing.T, string) {}, t0.AddDate(1, 0, 1), []string{"cert.pem", "p-ada", "expired", "2027-11-24"}},
		"not yet valid": {func(*testing.T, string) {}, t0.AddDate(0, 0, -1), []string{"cert.pem", "clock", "2026-11-24", "2026-11-23"}},
		"other key": {func(t *testing.T, d string) {
			write(t, d, "key.pem", must(os.ReadFile(filepath.Join(person(t, t0), "key.pem")))(t), 0o600)
		}, t0, []string{"key.pem", "not the key of the certificate"}},
		"readable key": {func(t *testing.T, d string) { _ = os.Chmod(filepath.Join(d, "key.pem"), 0o640) }, t0, []string{"key.pem", "chmod 600"}},
		"weak key":     {func(t *testing.T, d string) { write(t, d, "key.pem", weak, 0o600) }, t0, []string{"key.pem", "1024 bits"}},
		"encrypted": {func(t *testing.T, d string) {
			write(t, d, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY"}), 0o600)
		}, t0, []string{"key.pem", "passphrase"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := person(t, t0)
			c.damage(t, dir)
			_, err := identity.Load(dir, identity.LoadOptions{Now: c.at})
			if err == nil {
				t.Fatal("the profile is taken")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q lacks %q", err, w)
				}
			}
		})
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := person(t, t0)
	p := must(identity.Load(dir, identity.LoadOptions{Now: t0}))(t)
	if p.Certificate.Leaf.Subject.CommonName != "p-ada" || p.Current() != p {
		t.Errorf("profile of %q", p.Certificate.Leaf.Subject.CommonName)
	}
	if _, err := p.Certificate.Leaf.Verify(x509.VerifyOptions{Roots: p.Roots, CurrentTime: t0, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(filepath.Join(dir, "key.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	must(identity.Load(dir, identity.LoadOptions{Now: t0, Dev: true}))(t)
	if _, err := identity.LoadSigningKey(filepath.Join(dir, "key.pem"), true); err == nil || !strings.Contains(err.Error(), "Ed25519") {
		t.Errorf("an ECDSA key signs records: %v", err)
	}
}

func TestFollower(t *testing.T) {
	t.Parallel()
	now, root := t0, t.TempDir()
	clock := func() time.Time { return now }
	dir := must(must(devca.Open(root, clock))(t).Service("review"))(t)
	var refused []error
	f := must(identity.Follow(dir, identity.FollowOptions{Now: clock, Refused: func(err error) { refused = append(refused, err) }}))(t)
	first := f.Current()

	now = t0.AddDate(0, 11, 15)
	must(must(devca.Open(root, clock))(t).Service("review"))(t)
	renewed := f.Current()
	if renewed == first || renewed.KeyID != first.KeyID || !renewed.Certificate.Leaf.NotAfter.After(first.Certificate.Leaf.NotAfter) {
		t.Fatal("the renewed certificate is not taken")
	}

	write(t, dir, "cert.pem", []byte("-----BEGIN CERT"), 0o644)
	for range 2 {
		if f.Current() != renewed {
			t.Error("after a torn file the last good profile does not stay")
		}
	}
	if len(refused) != 1 {
		t.Errorf("a torn file is reported %d times: %v", len(refused), refused)
	}
	if _, err := identity.Follow(dir, identity.FollowOptions{Now: clock, Refused: func(error) {}}); err == nil {
		t.Error("a torn profile is followed from the start")
	}
	if _, err := identity.Follow(dir, identity.FollowOptions{}); err == nil {
		t.Error("follows without clock")
	}
}

func FuzzLoad(f *testing.F) {
	dir := person(f, t0)
	cert, key := must(os.ReadFile(filepath.Join(dir, "cert.pem")))(f), must(os.ReadFile(filepath.Join(dir, "key.pem")))(f)
	f.Add(cert, key)
	f.Add(key, cert)
	f.Add(cert[:40], []byte("-----BEGIN EC PARAMETERS-----\n-----END EC PARAMETERS-----\n"))
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		own := t.TempDir()
		write(t, own, "cert.pem", cert, 0o644)
		write(t, own, "key.pem", key, 0o600)
		write(t, own, "ca.pem", cert, 0o644)
		p, err := identity.Load(own, identity.LoadOptions{Now: t0})
		if err == nil && (p.Signer == nil || p.Certificate.Leaf == nil || p.KeyID == "") {
			t.Error("a profile without key or certificate is taken")
		}
	})
}
