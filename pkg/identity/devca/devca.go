// SPDX-License-Identifier: Apache-2.0

// Package devca is a development certificate authority in a folder, for the one-command start, demos and tests. It makes
// what CAcert and the operator provide elsewhere: certificates for servers, services, agents and people, and the
// services' signing keys. Whoever can read the folder is everybody: never use it where an emergency can be real.
//
// Asking twice for the same name gives the same key. A certificate is issued again, for the same key, when it comes
// within 30 days of its end. Files appear whole or not at all, and two processes that start on an empty folder agree on one
// root, so a crash at any point leaves a folder that the next start completes.
package devca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"cacert.org/emergency/pkg/identity"
)

const (
	day         = 24 * time.Hour
	rootLife    = 10 * 365 * day
	leafLife    = 365 * day // browsers refuse server certificates of more than 398 days
	renewBefore = 30 * day
	// backdate makes a fresh certificate valid for machines whose clock is a little behind.
	backdate = time.Hour
)

// signingFile is a service's Ed25519 key, beside its certificate.
const signingFile = "signing.pem"

// validName keeps names inside the folder; ids of people and hosts look like this.
var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// CA is the authority.
type CA struct {
	dir string
	now func() time.Time

	mu   sync.Mutex // one issue at a time
	key  crypto.Signer
	root *x509.Certificate
}

// Open opens the authority in a folder and creates folder and root where they are missing.
func Open(dir string, now func() time.Time) (*CA, error) {
	if now == nil {
		return nil, errors.New("development authority: a clock is needed")
	}
	c := &CA{dir: dir, now: now}
	rootDir := filepath.Join(dir, "root")
	if err := os.MkdirAll(rootDir, 0o700); err != nil {
		return nil, fmt.Errorf("development authority: %w", err)
	}
	key, err := ensureKey(filepath.Join(rootDir, identity.KeyFile), newECDSA)
	if err != nil {
		return nil, fmt.Errorf("development authority: root: %w", err)
	}
	c.key = key
	if c.root, err = c.ensureRoot(filepath.Join(rootDir, identity.CertFile)); err != nil {
		return nil, fmt.Errorf("development authority: root: %w", err)
	}
	return c, nil
}

// RootFile is the path of the root certificate, for browsers and other clients to trust.
func (c *CA) RootFile() string { return filepath.Join(c.dir, "root", identity.CertFile) }

// Server makes the profile folder of a server on this machine, such as the web pages: localhost, 127.0.0.1 and ::1.
func (c *CA) Server(name string) (dir string, err error) {
	return c.issue("servers", name, x509.ExtKeyUsageServerAuth)
}

// Service makes the profile folder of a service, which is a server on this machine and a client of the others.
func (c *CA) Service(name string) (dir string, err error) {
	return c.issue("services", name, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

// System makes the profile folder of an agent or other system identity, a client only.
func (c *CA) System(name string) (dir string, err error) {
	return c.issue("systems", name, x509.ExtKeyUsageClientAuth)
}

// Person makes the profile folder of a person, named by the opaque id. The key is ECDSA P-256, so that browsers take it.
func (c *CA) Person(id string) (dir string, err error) {
	return c.issue("people", id, x509.ExtKeyUsageClientAuth)
}

// SigningKey makes or finds a service's Ed25519 key for its records, and returns the path of its file too.
func (c *CA) SigningKey(service string) (key ed25519.PrivateKey, path string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dir, err := c.folder("services", service)
	if err != nil {
		return nil, "", err
	}
	path = filepath.Join(dir, signingFile)
	if _, err := ensureKey(path, newEd25519); err != nil {
		return nil, "", fmt.Errorf("signing key of %s: %w", service, err)
	}
	key, err = identity.LoadSigningKey(path, false)
	return key, path, err
}

func (c *CA) folder(kind, name string) (string, error) {
	if !validName.MatchString(name) {
		return "", fmt.Errorf("development authority: name %q: use 1 to 64 of a-z, 0-9, dot, dash and underscore, beginning with a letter or digit", name)
	}
	dir := filepath.Join(c.dir, kind, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("development authority: %w", err)
	}
	return dir, nil
}

// issue completes a profile folder. The key comes first and is never replaced, so a crash in between costs nothing.
func (c *CA) issue(kind, name string, usage ...x509.ExtKeyUsage) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dir, err := c.folder(kind, name)
	if err != nil {
		return "", err
	}
	key, err := ensureKey(filepath.Join(dir, identity.KeyFile), newECDSA)
	if err != nil {
		return "", fmt.Errorf("key of %s: %w", name, err)
	}
	if err := replaceIfOther(filepath.Join(dir, identity.CAFile), encodeCertificate(c.root.Raw)); err != nil {
		return "", fmt.Errorf("authority of %s: %w", name, err)
	}
	path := filepath.Join(dir, identity.CertFile)
	if c.good(path, key) {
		return dir, nil
	}
	der, err := c.sign(c.leaf(name, usage), key.Public())
	if err != nil {
		return "", fmt.Errorf("certificate of %s: %w", name, err)
	}
	if err := replace(path, encodeCertificate(der), 0o644); err != nil {
		return "", fmt.Errorf("certificate of %s: %w", name, err)
	}
	return dir, nil
}

// good tells whether the certificate on disk can stay: readable, ours, of this key and not about to end.
func (c *CA) good(path string, key crypto.Signer) bool {
	cert, err := loadCertificate(path)
	if err != nil {
		return false
	}
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	now := c.now()
	return ok && pub.Equal(key.Public()) && cert.CheckSignatureFrom(c.root) == nil &&
		!now.Before(cert.NotBefore) && now.Add(renewBefore).Before(cert.NotAfter)
}

func (c *CA) leaf(name string, usage []x509.ExtKeyUsage) *x509.Certificate {
	t := c.template(name, leafLife)
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, usage
	for _, u := range usage {
		if u == x509.ExtKeyUsageServerAuth {
			t.DNSNames = []string{"localhost"}
			t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
		}
	}
	return t
}

// ensureRoot keeps the root's certificate longer valid than anything that it signs.
func (c *CA) ensureRoot(path string) (*x509.Certificate, error) {
	cert, err := loadCertificate(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
		if !ok || !pub.Equal(c.key.Public()) {
			return nil, fmt.Errorf("%s: belongs to another key than the one beside it: remove the whole folder to begin anew", path)
		}
		if c.now().Add(leafLife + renewBefore).Before(cert.NotAfter) {
			return cert, nil
		}
	}
	t := c.template("CAcert emergency patches: DEVELOPMENT authority, trust it nowhere else", rootLife)
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	c.root = t
	der, err := c.sign(t, c.key.Public())
	if err != nil {
		return nil, err
	}
	if err := replace(path, encodeCertificate(der), 0o644); err != nil {
		return nil, err
	}
	return loadCertificate(path) // what is on disk counts: another process may have been faster
}

func (c *CA) template(name string, life time.Duration) *x509.Certificate {
	now := c.now()
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name, OrganizationalUnit: []string{"DEVELOPMENT"}},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
	}
}

func (c *CA) sign(t *x509.Certificate, pub crypto.PublicKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t.SerialNumber = serial
	return x509.CreateCertificate(rand.Reader, t, c.root, pub, c.key)
}

func newECDSA() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func newEd25519() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}
