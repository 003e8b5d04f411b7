// SPDX-License-Identifier: Apache-2.0

package rpc_test

import (
	"context"
	"crypto"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"cacert.org/emergency/pkg/identity"
	it "cacert.org/emergency/pkg/identity/identitytest"
	"cacert.org/emergency/pkg/rpc"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

// follow follows a profile folder, and counts the changes that could not be used.
func follow(t *testing.T, f *it.Folder, refused *atomic.Int32) *identity.Follower {
	t.Helper()
	profile, err := identity.Follow(f.Dir, identity.FollowOptions{Now: time.Now, Refused: func(error) { refused.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	return profile
}

// seen is what a new connection shows to each side: the key by which the caller is known, and the server's certificate.
func seen(t *testing.T, dial func() *grpc.ClientConn) (caller, server string) {
	t.Helper()
	conn := dial()
	defer func() { _ = conn.Close() }()
	var p peer.Peer
	res, err := dashboardv1.NewQueryServiceClient(conn).WhoAmI(t.Context(), &dashboardv1.WhoAmIRequest{}, grpc.Peer(&p))
	if err != nil {
		t.Fatal(err)
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		t.Fatalf("a connection by %T", p.AuthInfo)
	}
	id, err := identity.KeyID(info.State.PeerCertificates[0].PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return res.GetKeyId(), id
}

func keyID(t *testing.T, key crypto.Signer) string {
	t.Helper()
	id, err := identity.KeyID(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestEverythingIsRenewedUnderLoad: an organisation changes its authority while calls go on. The bundles get the new root beside the old
// one, then server and client get certificates for new keys from an intermediate authority under it, and at the end the old root goes.
// Each file is half-written for a while, and certificate and key do not fit for another. No call is refused or lost, each connection
// that begins uses what is new, and what could not be used was told of.
func TestEverythingIsRenewedUnderLoad(t *testing.T) {
	t.Parallel()
	from, until := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	before, root := it.NewRoot(t, "until now"), it.NewRoot(t, "from now on")
	after := root.Intermediate("issues")
	oldServer, oldClient, newServer, newClient := it.Key(t), it.Key(t), it.Key(t), it.Key(t)
	serverFiles := it.NewFolder(t, before.Issue("dashboard", oldServer, from, until), oldServer, before)
	clientFiles := it.NewFolder(t, before.Issue("review", oldClient, from, until), oldClient, before)
	var refused atomic.Int32
	server, client := follow(t, serverFiles, &refused), follow(t, clientFiles, &refused)
	b := start(t, &query{}, func(c *rpc.ServerConfig) { c.Identity = server.Current })
	dial := func() *grpc.ClientConn {
		conn, err := rpc.Dial(rpc.LocalAddr, rpc.ClientConfig{Identity: client.Current, Dialer: b.dialer})
		if err != nil {
			t.Error(err)
		}
		return conn
	}
	lasting := dial()
	defer func() { _ = lasting.Close() }()

	// The load: one connection that stays, and one after the other that begins.
	var calls atomic.Int64
	running, stop := context.WithCancel(t.Context())
	group, running := errgroup.WithContext(running)
	load := func(conn func() (*grpc.ClientConn, func())) {
		group.Go(func() error {
			for running.Err() == nil {
				c, done := conn()
				_, err := who(c)
				done()
				if err != nil {
					return err
				}
				calls.Add(1)
			}
			return nil
		})
	}
	load(func() (*grpc.ClientConn, func()) { return lasting, func() {} })
	for range 2 {
		load(func() (*grpc.ClientConn, func()) { c := dial(); return c, func() { _ = c.Close() } })
	}
	goOn := func() { // until calls were made with the files as they are
		t.Helper()
		_, _ = seen(t, dial)
		for n := calls.Load(); calls.Load() < n+5 && running.Err() == nil; {
			if _, err := who(lasting); err != nil {
				t.Fatal(err)
			}
		}
	}
	wants := func(caller, server string) {
		t.Helper()
		if c, s := seen(t, dial); c != caller || s != server {
			t.Errorf("a new connection is of %.8s to %.8s, want %.8s to %.8s", c, s, caller, server)
		}
	}
	wants(keyID(t, oldClient), keyID(t, oldServer))
	for _, f := range []*it.Folder{serverFiles, clientFiles} {
		f.WriteSlowly(identity.CAFile, it.Bundle(before, root), goOn)
		goOn()
	}
	serverFiles.WriteSlowly(identity.CertFile, after.Issue("dashboard", newServer, from, until), goOn)
	goOn() // the new certificate with the old key: the pair from before
	wants(keyID(t, oldClient), keyID(t, oldServer))
	serverFiles.WriteSlowly(identity.KeyFile, it.KeyPEM(t, newServer), goOn)
	wants(keyID(t, oldClient), keyID(t, newServer))
	clientFiles.WriteSlowly(identity.KeyFile, it.KeyPEM(t, newClient), goOn)
	goOn()
	clientFiles.WriteSlowly(identity.CertFile, after.Issue("review", newClient, from, until), goOn)
	wants(keyID(t, newClient), keyID(t, newServer))
	for _, f := range []*it.Folder{serverFiles, clientFiles} {
		f.WriteSlowly(identity.CAFile, it.Bundle(root), goOn)
		goOn()
	}
	wants(keyID(t, newClient), keyID(t, newServer))
	stop()
	if err := group.Wait(); err != nil {
		t.Errorf("a call under load: %v", err)
	}
	if n := refused.Load(); n < 8 { // 8 half-written files; more where certificate and key did not fit
		t.Errorf("%d changes were told of that could not be used", n)
	}

	// The old authority counts no more: neither whom it has certified to the server, nor a server of it to a client.
	stranger := it.NewFolder(t, before.Issue("review", oldClient, from, until), oldClient, root)
	if _, err := who(b.dialAs(follow(t, stranger, &refused))); err == nil {
		t.Error("the server takes a certificate of the authority that was taken out")
	}
	b2 := start(t, &query{}, func(c *rpc.ServerConfig) {
		c.Identity = follow(t, it.NewFolder(t, before.Issue("dashboard", oldServer, from, until), oldServer, root), &refused).Current
	})
	if _, err := who(b2.dialAs(client)); err == nil {
		t.Error("the client takes a server of the authority that was taken out")
	}
}

// dialAs connects as whoever a follower is.
func (b *bench) dialAs(f *identity.Follower) *grpc.ClientConn {
	b.t.Helper()
	conn, err := rpc.Dial(rpc.LocalAddr, rpc.ClientConfig{Identity: f.Current, Dialer: b.dialer})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	return conn
}
