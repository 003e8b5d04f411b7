// SPDX-License-Identifier: Apache-2.0

package review_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/rpc"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
)

// authority certifies the fixture's keys.
type authority struct {
	t         testing.TB
	root      *x509.Certificate
	key       *ecdsa.PrivateKey
	serverKey *ecdsa.PrivateKey
	pool      *x509.CertPool
	serial    atomic.Int64
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.key, a.serverKey = a.newKey(), a.newKey()
	template := a.template("root")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.root)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return k
}

func (a *authority) template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(a.serial.Add(1)), Subject: pkix.Name{CommonName: name}, DNSNames: []string{rpc.LocalAddr},
		NotBefore: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
}

// of is the identity of a name with a key.
func (a *authority) of(name string, key crypto.Signer) func() *identity.Profile {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, a.template(name), a.root, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	id, err := identity.KeyID(key.Public())
	if err != nil {
		a.t.Fatal(err)
	}
	p := &identity.Profile{Certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, Signer: key, KeyID: id, Roots: a.pool}
	return func() *identity.Profile { return p }
}

// plain connects to a server of the rig that needs no identity.
func plain(t testing.TB, register func(grpc.ServiceRegistrar)) *grpc.ClientConn {
	t.Helper()
	lis, dial := rpc.Local()
	server := grpc.NewServer()
	register(server)
	done := make(chan error, 1)
	go func() { done <- server.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///local", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		if err := <-done; err != nil {
			t.Errorf("agents: %v", err)
		}
	})
	return conn
}

var _ deploymentv1.AgentServiceServer = (*agents)(nil)
