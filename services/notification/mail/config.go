// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"slices"
	"strings"
	"time"

	"cacert.org/emergency/services/notification/channel"
)

// The values of Config.Security.
const (
	// StartTLS begins in clear and refuses to go on without TLS; port 587 or 25.
	StartTLS = "starttls"
	// ImplicitTLS begins with TLS; port 465.
	ImplicitTLS = "tls"
	// NoTLS is allowed only towards this machine.
	NoTLS = "none"
)

// Config is how to reach the mail server.
type Config struct {
	// Server is the mail server, host:port.
	Server string
	// Security is starttls, tls or none.
	Security string
	// From is the sender, an address without a name. Answers and bounces go there.
	From string
	// Name is shown beside the address, such as "CAcert emergency"; may be empty.
	Name string
	// Hello is this machine's name towards the server; the host name if empty.
	Hello string
	// User and Password log in at the server; both empty for none. The password is never sent without TLS, except to
	// this machine.
	User     string
	Password channel.Secret
	// CAFile, CertFile, KeyFile are for TLS.
	channel.TLSFiles
	// SMIMECertFile and SMIMEKeyFile sign the mails, PEM, RSA or ECDSA; both empty for none. The certificate file may
	// hold one intermediate after the signer's own.
	SMIMECertFile, SMIMEKeyFile string
}

// signer is what S/MIME needs.
type signer struct {
	key          crypto.PrivateKey
	cert         *x509.Certificate
	intermediate *x509.Certificate
}

// Check names each setting that cannot be, and what to write instead. It reads the files.
func (c Config) Check(now time.Time) error {
	_, _, err := c.load(now)
	return err
}

func (c Config) load(now time.Time) (*tls.Config, *signer, error) {
	var errs []error
	bad := func(setting, format string, args ...any) {
		errs = append(errs, fmt.Errorf("mail."+setting+": "+format, args...))
	}
	host, port, err := net.SplitHostPort(c.Server)
	if err != nil || host == "" || port == "" {
		bad("server", "%q is not host:port", c.Server)
	}
	switch c.Security {
	case StartTLS, ImplicitTLS:
	case NoTLS:
		if !channel.Loopback(host) {
			bad("security", "none is for a server on this machine, %q is not; use starttls or tls", host)
		}
	default:
		bad("security", "%q is none of starttls, tls, none", c.Security)
	}
	if plainAddress(c.From) == "" {
		bad("from", "%q is not an address such as emergency@example.org", c.From)
	}
	if c.Name != channel.OneLine(c.Name, 100) {
		bad("name", "one line of at most 100 bytes")
	}
	if strings.ContainsFunc(c.Hello, func(r rune) bool { return r <= ' ' || r > '~' }) {
		bad("hello", "%q is not a host name", c.Hello)
	}
	if (c.User == "") != (c.Password == "") {
		bad("user and mail.password", "give both or none")
	}
	conf, err := c.TLSFiles.Config("mail", host)
	if err != nil {
		errs = append(errs, err)
	}
	sign, err := c.signer(now)
	if err != nil {
		errs = append(errs, err)
	}
	return conf, sign, errors.Join(errs...)
}

// signer reads the S/MIME files. A certificate for another address would make every mail look forged.
func (c Config) signer(now time.Time) (*signer, error) {
	if c.SMIMECertFile == "" && c.SMIMEKeyFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.SMIMECertFile, c.SMIMEKeyFile)
	if err != nil {
		return nil, fmt.Errorf("mail.smime_cert_file and mail.smime_key_file: %w", err)
	}
	s := &signer{key: pair.PrivateKey}
	if s.cert, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		return nil, fmt.Errorf("mail.smime_cert_file: %w", err)
	}
	if len(pair.Certificate) > 1 {
		if s.intermediate, err = x509.ParseCertificate(pair.Certificate[1]); err != nil {
			return nil, fmt.Errorf("mail.smime_cert_file: intermediate: %w", err)
		}
	}
	return s, s.check(c.From, now)
}

func (s *signer) check(from string, now time.Time) error {
	switch s.key.(type) {
	case *rsa.PrivateKey, *ecdsa.PrivateKey:
	default:
		return fmt.Errorf("mail.smime_key_file: mail programs verify RSA and ECDSA, this key is %T", s.key)
	}
	if now.Before(s.cert.NotBefore) || now.After(s.cert.NotAfter) {
		return fmt.Errorf("mail.smime_cert_file: valid from %s to %s, not now", s.cert.NotBefore.Format(time.DateOnly), s.cert.NotAfter.Format(time.DateOnly))
	}
	if !slices.ContainsFunc(s.cert.EmailAddresses, func(a string) bool { return strings.EqualFold(a, from) }) {
		return fmt.Errorf("mail.smime_cert_file: the certificate is for %q, mail.from is %q", s.cert.EmailAddresses, from)
	}
	if len(s.cert.ExtKeyUsage) > 0 && !slices.ContainsFunc(s.cert.ExtKeyUsage, func(u x509.ExtKeyUsage) bool {
		return u == x509.ExtKeyUsageEmailProtection || u == x509.ExtKeyUsageAny
	}) {
		return errors.New("mail.smime_cert_file: the certificate may not be used for mail")
	}
	return nil
}

// plainAddress is an address that is nothing but an address in ASCII, or "".
func plainAddress(s string) string {
	a, err := netmail.ParseAddress(s)
	if err != nil || a.Address != s || len(s) > 254 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return s
}
