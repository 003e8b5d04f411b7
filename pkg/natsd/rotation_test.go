// SPDX-License-Identifier: Apache-2.0

package natsd_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"cacert.org/emergency/pkg/identity"
	it "cacert.org/emergency/pkg/identity/identitytest"
	"cacert.org/emergency/pkg/natsd"
)

// TestRemoteFollowsItsProfile: the servers of the log and a service change to another authority, one after the other, while the service
// goes on. Its connection stays through all of it, and the next one uses what is new.
func TestRemoteFollowsItsProfile(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	from, until := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	root := it.NewRoot(t, "from now on")
	after := root.Intermediate("issues")
	old, err := os.ReadFile(filepath.Join(s.dir, identity.CAFile))
	must(t, err)
	both := append(old, it.Bundle(root)...)

	own := t.TempDir()
	must(t, os.CopyFS(own, os.DirFS(s.dir)))
	write := func(dir, name string, data []byte) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	profile, err := identity.Follow(own, identity.FollowOptions{Now: time.Now, Dev: true, Refused: func(error) {}})
	must(t, err)
	js, err := natsd.Dial(natsd.Remote{
		Servers: []string{s.url}, Service: "review", Seed: s.seeds["review"], Identity: profile.Current, Logger: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	nc := js.Conn()
	t.Cleanup(nc.Close)
	works := func() {
		t.Helper()
		_, err := js.Stream(t.Context(), natsd.Stream)
		must(t, err)
	}

	for _, step := range []func(){
		func() { write(s.dir, identity.CAFile, both); must(t, s.server.Reload()) },
		func() { write(own, identity.CAFile, both) },
		func() {
			key := it.Key(t)
			write(s.dir, identity.CertFile, after.Issue("nats", key, from, until))
			write(s.dir, identity.KeyFile, it.KeyPEM(t, key))
			must(t, s.server.Reload())
		},
		func() {
			key := it.Key(t)
			write(own, identity.CertFile, after.Issue("review", key, from, until))
			works() // the pair from before, while certificate and key do not fit
			write(own, identity.KeyFile, it.KeyPEM(t, key))
		},
		func() { write(own, identity.CAFile, it.Bundle(root)) },
		func() { write(s.dir, identity.CAFile, it.Bundle(root)); must(t, s.server.Reload()) },
	} {
		step()
		works()
	}
	if n := nc.Stats().Reconnects; n != 0 {
		t.Errorf("the connection broke %d times", n)
	}
	back := make(chan struct{}, 1)
	nc.SetReconnectHandler(func(*nats.Conn) { back <- struct{}{} })
	must(t, nc.ForceReconnect())
	select {
	case <-back:
	case <-time.After(time.Minute):
		t.Fatal("the service does not come back")
	}
	works()
	state, err := nc.TLSConnectionState()
	must(t, err)
	if issuer := state.PeerCertificates[0].Issuer.CommonName; issuer != "issues" {
		t.Errorf("the new connection is to a server certified by %q", issuer)
	}
	if issuer := profile.Current().Certificate.Leaf.Issuer.CommonName; issuer != "issues" {
		t.Errorf("the service shows a certificate of %q", issuer)
	}
}
