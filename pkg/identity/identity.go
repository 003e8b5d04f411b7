// SPDX-License-Identifier: Apache-2.0

// Package identity tells who calls and signs for people.
//
// A caller is a key: the one in the client certificate that TLS verified. Whose key it is, and which roles that person
// holds, is not known here; the rule book says it (procedure.md G1). The package reads certificates and keys from files
// and refuses those that must not be used, with an error that says what to do. It never prompts, never sends a private
// key anywhere and never signs by itself: a person's approval is made on the person's own machine (hardening.md 1.1).
package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"cacert.org/emergency/pkg/procedure"
)

// KeyID is the id of a public key: SHA-256 of its SubjectPublicKeyInfo in DER, lower-case hex. It fails for values that
// are no public key of a kind that certificates carry.
func KeyID(pub any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("key id: %w", err)
	}
	return procedure.KeyID(der), nil
}

// Caller is who made a call, as far as TLS can tell.
type Caller struct {
	// KeyID names the key in the client certificate.
	KeyID string
	// Certificate is the verified client certificate. It is shared: do not write to it.
	Certificate *x509.Certificate
}

// Valid tells whether the certificate may be used at that time. A connection can outlive the certificate it began with.
func (c Caller) Valid(now time.Time) bool {
	return c.Certificate != nil && !now.Before(c.Certificate.NotBefore) && !now.After(c.Certificate.NotAfter)
}

// FromTLS returns the caller of a connection. ok is false without a client certificate, and also for one that nobody
// verified: the state of a server that does not check client certificates yields no caller.
func FromTLS(state *tls.ConnectionState) (c Caller, ok bool) {
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return Caller{}, false
	}
	leaf := state.VerifiedChains[0][0]
	return Caller{KeyID: procedure.KeyID(leaf.RawSubjectPublicKeyInfo), Certificate: leaf}, true
}

// ServerTLS is how a server knows its callers, speaking these protocols: TLS 1.3 only, and a client certificate is verified
// by the roots of the server's own profile if there is one. Whether a request needs one is for the server to say, so that
// the caller gets a reason and not a broken connection. The profile is asked for at each handshake.
func ServerTLS(current func() *Profile, protocols ...string) *tls.Config {
	config := func() *tls.Config {
		p := current()
		return &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: protocols,
			Certificates: []tls.Certificate{p.Certificate},
			ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: p.Roots,
			SessionTicketsDisabled: true, // every connection is verified by the roots of now
		}
	}
	first := config()
	first.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return config(), nil }
	return first
}

type callerKey struct{}

// WithCaller returns a context that carries the caller.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// FromContext returns the caller that WithCaller put there; ok is false for a call without identity.
func FromContext(ctx context.Context) (c Caller, ok bool) {
	c, ok = ctx.Value(callerKey{}).(Caller)
	return c, ok
}
