// SPDX-License-Identifier: Apache-2.0

// Package identitytest is an organisation's certificate authority for tests: roots, intermediate authorities, and certificates of any
// length of life for any key. A development system's own authority is package devca.
package identitytest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cacert.org/emergency/pkg/identity"
)

// Authority issues certificates.
type Authority struct {
	t     testing.TB
	key   crypto.Signer
	cert  *x509.Certificate
	chain []byte // itself and what is above it, without the root
}

// NewRoot makes an authority that stands alone.
func NewRoot(t testing.TB, name string) *Authority {
	t.Helper()
	a := &Authority{t: t, key: Key(t)}
	a.cert = a.sign(authority(name), a.key.Public())
	return a
}

// Intermediate makes an authority under this one.
func (a *Authority) Intermediate(name string) *Authority {
	a.t.Helper()
	under := &Authority{t: a.t, key: Key(a.t)}
	under.cert = a.sign(authority(name), under.key.Public())
	under.chain = append(encode("CERTIFICATE", under.cert.Raw), a.chain...)
	return under
}

// PEM is the authority's own certificate, as a bundle has it.
func (a *Authority) PEM() []byte { return encode("CERTIFICATE", a.cert.Raw) }

// Issue makes a certificate for a name and key, valid from and until a time, with the intermediate authorities after it. It serves
// localhost and calls others.
func (a *Authority) Issue(name string, key crypto.Signer, from, until time.Time) []byte {
	a.t.Helper()
	cert := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, key.Public())
	return append(encode("CERTIFICATE", cert.Raw), a.chain...)
}

func authority(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.AddDate(-5, 0, 0), NotAfter: now.AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

func (a *Authority) sign(tmpl *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	a.t.Helper()
	parent := a.cert
	if parent == nil {
		parent = tmpl // a root
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// Key makes a key.
func Key(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// KeyPEM is a key as a profile has it.
func KeyPEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return encode("PRIVATE KEY", der)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Folder is a profile folder whose files a test writes.
type Folder struct {
	Dir string
	t   testing.TB
}

// NewFolder makes one of a certificate, its key and a bundle of authorities.
func NewFolder(t testing.TB, cert []byte, key crypto.Signer, bundle ...*Authority) *Folder {
	t.Helper()
	f := &Folder{Dir: t.TempDir(), t: t}
	f.Write(identity.KeyFile, KeyPEM(t, key))
	f.Write(identity.CertFile, cert)
	f.Write(identity.CAFile, Bundle(bundle...))
	return f
}

// Bundle is the file of several authorities.
func Bundle(list ...*Authority) []byte {
	var b bytes.Buffer
	for _, a := range list {
		b.Write(a.PEM())
	}
	return b.Bytes()
}

// Write replaces a file's content in place.
func (f *Folder) Write(name string, data []byte) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.Dir, name), data, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// WriteSlowly replaces a file's content in two goes, and does something while half of it is there.
func (f *Folder) WriteSlowly(name string, data []byte, between func()) {
	f.t.Helper()
	f.Write(name, data[:len(data)/2])
	between()
	f.Write(name, data)
}
