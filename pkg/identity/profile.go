// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"cacert.org/emergency/pkg/procedure"
)

// The files of a profile folder.
const (
	CertFile = "cert.pem" // certificate, followed by intermediate ones
	KeyFile  = "key.pem"  // its private key: PKCS #8, PKCS #1 or SEC 1, not encrypted
	CAFile   = "ca.pem"   // authorities by which the other side is verified
)

// maxFile bounds what is read of a file before it is parsed.
const maxFile = 1 << 20

// Profile is a person's, service's or agent's own identity.
type Profile struct {
	// Certificate is certificate and key, for TLS; Leaf is set.
	Certificate tls.Certificate
	// Signer is the key, for approvals.
	Signer crypto.Signer
	// KeyID names the key.
	KeyID string
	// Roots are the authorities of ca.pem.
	Roots *x509.CertPool
}

// Current returns the profile itself, so that one that never changes can stand where a Follower could.
func (p *Profile) Current() *Profile { return p }

// LoadOptions say how strict Load is.
type LoadOptions struct {
	// Now is the time at which the certificate must be valid.
	Now time.Time
	// Dev accepts a key file that others may read. Only for a development authority.
	Dev bool
}

// Load reads a profile folder. It refuses, naming file and remedy: a missing or torn file, a certificate that is expired
// or not yet valid, a key of another certificate, a weak key, and a key file that others may read.
func Load(dir string, opt LoadOptions) (*Profile, error) {
	chain, leaf, err := loadCertificates(filepath.Join(dir, CertFile))
	if err != nil {
		return nil, err
	}
	if err := checkDates(filepath.Join(dir, CertFile), leaf, opt.Now); err != nil {
		return nil, err
	}
	key, err := LoadKey(filepath.Join(dir, KeyFile), opt.Dev)
	if err != nil {
		return nil, err
	}
	if id, err := KeyID(key.Public()); err != nil || id != procedure.KeyID(leaf.RawSubjectPublicKeyInfo) {
		return nil, fmt.Errorf("%s: is not the key of the certificate in %s: put the two that belong together into %s", filepath.Join(dir, KeyFile), CertFile, dir)
	}
	roots, err := LoadRoots(filepath.Join(dir, CAFile))
	if err != nil {
		return nil, err
	}
	return &Profile{
		Certificate: tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf},
		Signer:      key, KeyID: procedure.KeyID(leaf.RawSubjectPublicKeyInfo), Roots: roots,
	}, nil
}

// LoadKey reads one private key in PEM. It refuses a file that others than its owner may read, unless dev.
func LoadKey(path string, dev bool) (crypto.Signer, error) {
	data, mode, err := read(path)
	if err != nil {
		return nil, err
	}
	if err := private(path, mode); err != nil && !dev {
		return nil, err
	}
	block, rest := pem.Decode(data)
	for block != nil && block.Type == "EC PARAMETERS" { // openssl writes them before the key
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, fmt.Errorf("%s: holds no key in PEM form; it is empty, torn or of another kind", path)
	}
	key, err := parseKey(block)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := checkSigner(key); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// ReadSecret reads a secret that is no key of a person or service. It refuses a file that others than its owner may read.
func ReadSecret(path string) ([]byte, error) {
	data, mode, err := read(path)
	if err == nil {
		err = private(path, mode)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

// private refuses what more than the owner may read: who could read it once may have it still.
func private(path string, mode fs.FileMode) error {
	if mode.Perm()&0o077 != 0 {
		return fmt.Errorf("%s: mode %#o lets others than its owner use this key: chmod 600 it, and think about a new key", path, mode.Perm())
	}
	return nil
}

// LoadSigningKey reads a service's Ed25519 key, by which its records are signed.
func LoadSigningKey(path string, dev bool) (ed25519.PrivateKey, error) {
	key, err := LoadKey(path, dev)
	if err != nil {
		return nil, err
	}
	k, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: records are signed with Ed25519, this key is of kind %T", path, key)
	}
	return k, nil
}

// LoadRoots reads authorities in PEM. Every block must be a certificate, so that a torn file does not pass as a short one.
func LoadRoots(path string) (*x509.CertPool, error) {
	chain, _, err := loadCertificates(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		pool.AddCert(cert)
	}
	return pool, nil
}

// loadCertificates reads one or more certificates, and nothing else.
func loadCertificates(path string) (chain [][]byte, first *x509.Certificate, err error) {
	rest, _, err := read(path)
	if err != nil {
		return nil, nil, err
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: block %d (%s) is no certificate: %w", path, len(chain)+1, block.Type, err)
		}
		if chain = append(chain, cert.Raw); first == nil {
			first = cert
		}
	}
	if first == nil || bytes.Contains(rest, []byte("-----BEGIN ")) {
		return nil, nil, fmt.Errorf("%s: is empty, torn or of another kind: get it again from where it came from", path)
	}
	return chain, first, nil
}

func checkDates(path string, cert *x509.Certificate, now time.Time) error {
	day := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
	switch {
	case now.After(cert.NotAfter):
		return fmt.Errorf("%s: the certificate of %q expired at %s: get a new one for the same key", path, cert.Subject.CommonName, day(cert.NotAfter))
	case now.Before(cert.NotBefore):
		return fmt.Errorf("%s: the certificate of %q is valid only from %s: check this machine's clock, it says %s", path, cert.Subject.CommonName, day(cert.NotBefore), day(now))
	}
	return nil
}

func parseKey(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the key is encrypted: write it out without a passphrase, openssl pkey -in OLD -out key.pem")
	default:
		return nil, fmt.Errorf("a block %q is no private key", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	switch k := key.(type) {
	case ed25519.PrivateKey:
		return k, nil
	case *ecdsa.PrivateKey:
		return k, nil
	case *rsa.PrivateKey:
		return k, nil
	default:
		return nil, fmt.Errorf("keys of kind %T are not accepted: use Ed25519, ECDSA or RSA", key)
	}
}

// read reads a file of bounded size.
func read(path string) ([]byte, fs.FileMode, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, fmt.Errorf("%s: is missing: %w", path, err)
	case err != nil:
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	case !info.Mode().IsRegular():
		return nil, 0, fmt.Errorf("%s: is no regular file", path)
	case info.Size() > maxFile:
		return nil, 0, fmt.Errorf("%s: is larger than %d bytes", path, maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	return data, info.Mode(), nil
}
