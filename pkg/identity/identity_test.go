// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// person makes a person's folder under a fresh authority.
func person(t testing.TB, now time.Time) string {
	ca := must(devca.Open(t.TempDir(), func() time.Time { return now }))(t)
	return must(ca.Person("p-ada"))(t)
}

func TestKeyID(t *testing.T) {
	t.Parallel()
	p := must(identity.Load(person(t, time.Now()), identity.LoadOptions{Now: time.Now()}))(t)
	sum := sha256.Sum256(p.Certificate.Leaf.RawSubjectPublicKeyInfo)
	if got := must(identity.KeyID(p.Signer.Public()))(t); got != hex.EncodeToString(sum[:]) || got != p.KeyID {
		t.Errorf("KeyID = %s and %s, want %x", got, p.KeyID, sum)
	}
	if id, err := identity.KeyID("no key"); err == nil {
		t.Errorf("KeyID of a string = %q, want an error", id)
	}
}

func TestSignStatement(t *testing.T) {
	t.Parallel()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	signers := map[string]crypto.Signer{
		"ed25519": must(ed, err)(t),
		"p256":    must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t),
		"p384":    must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t),
		"rsa":     must(rsa.GenerateKey(rand.Reader, 2048))(t),
	}
	other := must(x509.MarshalPKIXPublicKey(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t).Public()))(t)
	st := &emergencyv1.Statement{
		Incident: "e20261124.1", Command: "RecordFirstReview", Person: "p-ada", RequestId: "r-12345678",
		Claims: []*emergencyv1.Claim{{Name: "verdict", Value: "APPROVE"}}, SignedAt: timestamppb.New(time.Unix(1800000000, 5)),
	}
	for name, signer := range signers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := must(identity.SignStatement(signer, st))(t)
			pub := must(x509.MarshalPKIXPublicKey(signer.Public()))(t)
			got := must(procedure.OpenApproval(a, &emergencyv1.Key{PublicKey: pub}))(t)
			if !proto.Equal(got, st) || a.GetKeyId() != procedure.KeyID(pub) {
				t.Errorf("opened %v by key %s, want %v", got, a.GetKeyId(), st)
			}
			if _, err := procedure.OpenApproval(a, &emergencyv1.Key{PublicKey: other}); err == nil {
				t.Error("the approval verifies by another person's key")
			}
			if procedure.VerifySignature(pub, procedure.RecordPayloadType, a.GetPayload(), a.GetSignature()) == nil {
				t.Error("a statement's signature passes as a record's")
			}
			a.Payload[len(a.Payload)-1] ^= 1
			if _, err := procedure.OpenApproval(a, &emergencyv1.Key{PublicKey: pub}); err == nil {
				t.Error("the approval verifies over other bytes")
			}
		})
	}
}

func TestSignStatementRefusesWeakKeys(t *testing.T) {
	t.Parallel()
	for want, signer := range map[string]crypto.Signer{
		"no signing key":           nil,
		"rsa key of 1024 bits":     must(rsa.GenerateKey(rand.Reader, 1024))(t),
		"ecdsa key on curve P-521": must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))(t),
	} {
		if _, err := identity.SignStatement(signer, &emergencyv1.Statement{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	if c, ok := identity.FromContext(context.Background()); ok {
		t.Errorf("a bare context carries caller %v", c)
	}
	ctx := identity.WithCaller(context.Background(), identity.Caller{KeyID: "k"})
	if c, ok := identity.FromContext(ctx); !ok || c.KeyID != "k" {
		t.Errorf("caller = %v, %t", c, ok)
	}
}

// handshake connects client and server and returns what the server saw.
func handshake(t *testing.T, server, client *tls.Config) tls.ConnectionState {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	done := make(chan error, 1)
	c := tls.Client(b, client)
	go func() { done <- c.Handshake() }()
	s := tls.Server(a, server)
	if err := s.Handshake(); err != nil {
		t.Fatalf("server: %v", err)
	}
	if err := <-done; err != nil {
		t.Fatalf("client: %v", err)
	}
	return s.ConnectionState()
}

func TestFromTLS(t *testing.T) {
	t.Parallel()
	ca := must(devca.Open(t.TempDir(), time.Now))(t)
	at := identity.LoadOptions{Now: time.Now()}
	srv := must(identity.Load(must(ca.Server("web"))(t), at))(t)
	ada := must(identity.Load(must(ca.Person("p-ada"))(t), at))(t)
	for name, c := range map[string]struct {
		auth tls.ClientAuthType
		cert []tls.Certificate
		want string
	}{
		"verified":       {tls.VerifyClientCertIfGiven, []tls.Certificate{ada.Certificate}, ada.KeyID},
		"no certificate": {tls.VerifyClientCertIfGiven, nil, ""},
		"not verified":   {tls.RequireAnyClientCert, []tls.Certificate{ada.Certificate}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := handshake(t,
				&tls.Config{Certificates: []tls.Certificate{srv.Certificate}, ClientAuth: c.auth, ClientCAs: srv.Roots, SessionTicketsDisabled: true},
				&tls.Config{Certificates: c.cert, RootCAs: ada.Roots, ServerName: "localhost"})
			got, ok := identity.FromTLS(&state)
			if got.KeyID != c.want || ok != (c.want != "") {
				t.Errorf("caller %q, %t; want %q", got.KeyID, ok, c.want)
			}
			if ok && (!got.Valid(time.Now()) || got.Valid(time.Now().AddDate(2, 0, 0))) {
				t.Error("Valid does not follow the certificate's dates")
			}
		})
	}
	state := handshake(t, identity.ServerTLS(srv.Current, "h2"), &tls.Config{Certificates: []tls.Certificate{ada.Certificate}, RootCAs: ada.Roots, ServerName: "localhost", NextProtos: []string{"h2"}})
	if got, ok := identity.FromTLS(&state); !ok || got.KeyID != ada.KeyID || state.NegotiatedProtocol != "h2" || state.Version != tls.VersionTLS13 {
		t.Errorf("ServerTLS: caller %q, protocol %q", got.KeyID, state.NegotiatedProtocol)
	}
	if _, ok := identity.FromTLS(nil); ok {
		t.Error("a connection without TLS has a caller")
	}
}
