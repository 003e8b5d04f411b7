// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	secrets "cacert.org/emergency/pkg/identity"
)

const (
	// forcedCommand stands in every certificate. The broker runs no command of anybody; another server that trusts the same
	// authority by mistake would run this and nothing else.
	forcedCommand = "epatch console"

	optionCommand = "force-command"
	optionSource  = "source-address"
	optionPTY     = "permit-pty"

	// backdate allows for a target clock that is a little behind.
	backdate = 30 * time.Second
)

// Credential is what the subject's ssh needs besides the private key, which never leaves the subject's machine.
type Credential struct {
	// Certificate is the content of KEY-cert.pub, KnownHosts that of a known_hosts file: one line each.
	Certificate, KnownHosts string
	// Login and Address are where to connect to.
	Login, Address string
	Serial         uint64
	Fingerprint    string
	NotAfter       time.Time
}

// Credential makes the certificate of a grant for a public key in the form of an authorized_keys line. The caller has
// authenticated the person; source is the address that the person's request came from. It consumes nothing and may be
// repeated: whatever certificates there are, the grant is used once.
func (b *Broker) Credential(ctx context.Context, ref Ref, person, publicKey, source string) (Credential, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(publicKey))
	if err != nil || key.Type() != ssh.KeyAlgoED25519 {
		return Credential{}, refused(ReasonKey, "the public key has to be an Ed25519 key, as `ssh-keygen -t ed25519` makes it")
	}
	grant, err := b.cfg.Rules.Grant(ctx, ref)
	if err != nil {
		return Credential{}, fmt.Errorf("grant %s: %w", ref, err)
	}
	now := b.cfg.Clock.Now()
	switch {
	case grant.Over != "":
		return Credential{}, refused(ReasonGrantState, "grant %s cannot be used any more: %s", ref, grant.Over)
	case now.After(grant.FirstUse):
		return Credential{}, refused(ReasonExpired, "grant %s had to be used before %s", ref, grant.FirstUse.Format(time.RFC3339))
	case person != grant.Subject:
		return Credential{}, refused(ReasonNotSubject, "grant %s is for another person", ref)
	case grant.Source != "" && !fromThere(grant.Source, source):
		return Credential{}, refused(ReasonSource, "grant %s may only be used from %s, this request comes from %s", ref, grant.Source, source)
	}
	return b.mint(grant, key, source, now)
}

func (b *Broker) mint(grant Grant, key ssh.PublicKey, source string, now time.Time) (Credential, error) {
	var serial [8]byte
	if _, err := rand.Read(serial[:]); err != nil {
		return Credential{}, fmt.Errorf("serial number: %w", err)
	}
	from, err := sourceOption(source)
	if err != nil {
		return Credential{}, err
	}
	cert := &ssh.Certificate{
		Key: key, Serial: binary.BigEndian.Uint64(serial[:]), CertType: ssh.UserCert, KeyId: grant.Ref.String(),
		ValidPrincipals: []string{grant.Login()},
		ValidAfter:      uint64(now.Add(-backdate).Unix()), ValidBefore: uint64(grant.FirstUse.Unix()),
		Permissions: ssh.Permissions{
			CriticalOptions: map[string]string{optionCommand: forcedCommand, optionSource: from},
			Extensions:      map[string]string{optionPTY: ""},
		},
	}
	if err := cert.SignCert(rand.Reader, b.cfg.UserCA); err != nil {
		return Credential{}, fmt.Errorf("sign certificate: %w", err)
	}
	return Credential{
		Certificate: string(ssh.MarshalAuthorizedKey(cert)),
		KnownHosts:  knownhosts.Line([]string{b.cfg.Address}, b.cfg.HostKey.PublicKey()) + "\n",
		Login:       grant.Login(), Address: b.cfg.Address, Serial: cert.Serial, Fingerprint: ssh.FingerprintSHA256(key), NotAfter: grant.FirstUse,
	}, nil
}

// sourceOption is the value of source-address. Of a machine's own loopback addresses its programs use now one, now another.
func sourceOption(source string) (string, error) {
	ip := net.ParseIP(source)
	if ip == nil {
		return "", refused(ReasonSource, "a console needs an IP address to come from, and %q is none", source)
	}
	if ip.IsLoopback() {
		return "127.0.0.0/8,::1/128", nil
	}
	return ip.String(), nil
}

// fromThere is whether an address is the named one, or in the named network.
func fromThere(named, source string) bool {
	from, err := netip.ParseAddr(source)
	if err != nil {
		return false
	}
	if network, err := netip.ParsePrefix(named); err == nil {
		return network.Contains(from.Unmap())
	}
	one, err := netip.ParseAddr(named)
	return err == nil && (one.Unmap() == from.Unmap() || one.IsLoopback() && from.IsLoopback())
}

// badCredential is why a certificate is not accepted. Ref is set if it is one of ours, which makes the attempt worth recording.
type badCredential struct {
	ref  Ref
	text string
}

func (e *badCredential) Error() string { return e.text }

// checkCertificate holds a certificate to exactly the form that mint gives it. An empty list of principals would be valid for
// every login, and an option or extension that mint does not set can only come from a mistake.
func (b *Broker) checkCertificate(conn ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Certificate, error) {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, &badCredential{text: "only the certificate of a grant is accepted: fetch it anew, and give it with -o CertificateFile"}
	}
	checker := ssh.CertChecker{
		SupportedCriticalOptions: []string{optionCommand, optionSource},
		IsUserAuthority:          func(key ssh.PublicKey) bool { return bytes.Equal(key.Marshal(), b.cfg.UserCA.PublicKey().Marshal()) },
		Clock:                    b.cfg.Clock.Now,
	}
	if !b.signed(cert) {
		return nil, &badCredential{text: "the certificate was not made by this gateway"}
	}
	_, err := checker.Authenticate(conn, cert)
	ref, named := Ref{}, false
	if len(cert.ValidPrincipals) == 1 {
		ref, named = ParseLogin(cert.ValidPrincipals[0])
	}
	switch {
	case err != nil && strings.Contains(err.Error(), "expired"):
		return nil, &badCredential{ref, "the certificate has expired: a grant has to be used within its first-use time; a new grant is needed"}
	case err != nil:
		return nil, &badCredential{ref, strings.TrimPrefix(err.Error(), "ssh: ")}
	case !named || cert.KeyId != ref.String() || cert.CriticalOptions[optionCommand] != forcedCommand ||
		cert.CriticalOptions[optionSource] == "" || len(cert.Extensions) != 1 || cert.Key.Type() != ssh.KeyAlgoED25519:
		return nil, &badCredential{ref, "the certificate has not the form of a grant's"}
	}
	return cert, nil
}

// signed tells whether our authority signed a certificate. The checker of package ssh asks that last: what it finds wrong before may be
// anybody's invention, who knows the authority's public half.
func (b *Broker) signed(cert *ssh.Certificate) bool {
	ca := b.cfg.UserCA.PublicKey()
	if cert.SignatureKey == nil || cert.Signature == nil || !bytes.Equal(cert.SignatureKey.Marshal(), ca.Marshal()) {
		return false
	}
	bare := *cert
	bare.Signature = nil
	text := bare.Marshal()
	return ca.Verify(text[:len(text)-4], cert.Signature) == nil // without the length of the signature that is not there
}

// LoadKey reads an Ed25519 key (the gateway's host key, the authority of its certificates) and makes it where there is none. It refuses a file
// that others than its owner may read.
func LoadKey(path string) (ssh.Signer, error) {
	text, err := secrets.ReadSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := newKeyFile(path); err != nil {
			return nil, fmt.Errorf("make key %s: %w", path, err)
		}
		text, err = secrets.ReadSecret(path)
	}
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	if key.PublicKey().Type() != ssh.KeyAlgoED25519 {
		return nil, fmt.Errorf("key %s is %s, but has to be Ed25519", path, key.PublicKey().Type())
	}
	return key, nil
}

// newKeyFile writes a fresh key beside path first, so that there never is half a key.
func newKeyFile(path string) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
