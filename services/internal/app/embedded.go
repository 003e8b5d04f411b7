// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/history"
	historystore "cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/services/internal/demobook"
)

// `epatchd all`: everything in one process, with an embedded log, a development authority and a demo rule book.

// Sizes of the embedded log: about half a million records of an emergency, twenty recordings of the longest sessions, and small
// values. The server reserves them all at the start, out of three quarters of the disk's free space: they must fit on the disk
// of somebody who tries this out.
const (
	maxBytes      = 1 << 30
	artefactBytes = 2 << 30
	bucketBytes   = 128 << 20
)

func (n *Node) openAll(ctx context.Context) error {
	ca, err := devca.Open(n.set.path("ca"), n.set.Clock.Now)
	if err != nil {
		return err
	}
	keys, err := demobook.Keys(ca, n.set.Data, "epatchd")
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return n.makeIdentity(ca) },
		func() error { return n.openLog(ctx) },
		func() error { return n.openRepository(ctx) },
		n.openSelf,
		func() error { return n.openServices(ctx) },
		func() error { return n.openReader(ctx) },
		func() error { return n.foundDemo(ctx, keys) },
		func() error { return n.reader.CatchUp(ctx) }, // so that the people of a new demo are known to the first who asks
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// makeIdentity makes or finds the services' signing keys and the file that says which key is whose.
func (n *Node) makeIdentity(ca *devca.CA) error {
	var listed []history.Key
	for _, owner := range procedure.Owners() {
		key, _, err := ca.SigningKey(owner)
		if err != nil {
			return err
		}
		signer, err := history.NewSigner(key)
		if err != nil {
			return err
		}
		n.signers[owner] = signer
		listed = append(listed, history.Key{Owner: owner, Public: key.Public().(ed25519.PublicKey)})
	}
	keys, err := history.NewKeyring(listed...)
	if err != nil {
		return err
	}
	n.keys = keys
	if err := keys.Save(n.KeyringFile()); err != nil {
		return err
	}
	n.instance = "epatchd" // one at a time: the embedded log locks its folder
	return n.follow(n.set.path("services", "epatchd"), true)
}

// KeyringFile is where readers find the services' public keys.
func (n *Node) KeyringFile() string { return n.set.path("services.keys.json") }

// openLog starts the embedded log, and refuses one that could forget.
func (n *Node) openLog(ctx context.Context) error {
	var err error
	if n.nats, err = natsd.Start(natsd.Config{Dir: n.set.path("nats"), Logger: n.log}); err != nil {
		return err
	}
	conn, err := n.nats.Connect("epatchd")
	if err != nil {
		return err
	}
	if n.js, err = jetstream.New(conn); err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	if err := natsd.Provision(ctx, n.js, natsd.Profile{Replicas: 1, MaxBytes: maxBytes, ArtefactBytes: artefactBytes, BucketBytes: bucketBytes}); err != nil {
		return err
	}
	n.expect = natsd.Expect{Replicas: 1, Sync: n.nats.Sync()}
	return n.openStores(ctx, historystore.Config{Consumers: true})
}

// openRepository makes an empty bare repository where none was named.
func (n *Node) openRepository(ctx context.Context) error {
	if n.set.Repository != n.set.path("repository.git") {
		return nil
	}
	if _, err := os.Stat(filepath.Join(n.set.Repository, "HEAD")); err == nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, "git", "init", "--quiet", "--bare", n.set.Repository)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make repository %s: %w: %s", n.set.Repository, err, out)
	}
	return nil
}

// openSelf connects the process to itself: services talk by gRPC as they do between machines, only the network is left out.
func (n *Node) openSelf() error {
	lis, dial := rpc.Local()
	n.local = lis
	conn, err := rpc.Dial(rpc.LocalAddr, rpc.ClientConfig{Identity: n.identity, Dialer: dial, Tracer: n.tel.Tracer, Meter: n.tel.Meter})
	if err != nil {
		return err
	}
	n.conns = append(n.conns, conn)
	for _, name := range serviceNames() {
		n.peers[name] = conn
	}
	return nil
}
