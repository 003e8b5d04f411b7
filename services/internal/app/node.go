// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/artefacts"
	artefactstore "cacert.org/emergency/pkg/artefacts/jetstream"
	"cacert.org/emergency/pkg/effect"
	ledgerstore "cacert.org/emergency/pkg/effect/jetstream"
	"cacert.org/emergency/pkg/history"
	historystore "cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/pkg/telemetry"
	"cacert.org/emergency/pkg/vault"
	vaultstore "cacert.org/emergency/pkg/vault/jetstream"
	"cacert.org/emergency/services/arbitration"
	"cacert.org/emergency/services/dashboard"
	"cacert.org/emergency/services/dashboard/view"
	"cacert.org/emergency/services/deployment"
	"cacert.org/emergency/services/incident"
	"cacert.org/emergency/services/notification"
	"cacert.org/emergency/services/review"
)

// Sizes of the embedded log: about half a million records of an emergency, twenty recordings of the longest sessions, and small
// values. The server reserves them all at the start, out of three quarters of the disk's free space: they must fit on the disk
// of somebody who tries this out.
const (
	maxBytes      = 1 << 30
	artefactBytes = 2 << 30
	bucketBytes   = 128 << 20
)

// Node is one process with everything in it.
type Node struct {
	set Settings
	log *slog.Logger
	tel *telemetry.Telemetry

	nats      *natsd.Server
	conn      *nats.Conn
	js        jetstream.JetStream
	store     *historystore.Store
	keys      *history.Keyring
	signers   map[string]history.Signer
	artefacts artefacts.Store
	ledger    effect.Ledger
	vaults    map[string]vault.Store

	incidents *projection.Incidents
	reader    *projection.Runner

	profile *identity.Profile
	local   net.Listener
	peer    *grpc.ClientConn

	incident     *incident.Server
	notification *notification.Server
	review       *review.Server
	deployment   *deployment.Server
	arbitration  *arbitration.Server
	dashboard    *dashboard.Server
}

// Open starts the embedded log and builds everything. Close ends it.
func Open(ctx context.Context, set Settings) (*Node, error) {
	if err := set.check(); err != nil {
		return nil, err
	}
	n := &Node{set: set, signers: map[string]history.Signer{}, vaults: map[string]vault.Store{}, incidents: projection.NewIncidents()}
	if err := n.open(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) open(ctx context.Context) error {
	level, err := n.set.level()
	if err != nil {
		return err
	}
	n.tel, err = telemetry.Start(ctx, telemetry.Config{Service: "epatchd", Version: Version(), Log: n.set.LogTo, Format: n.set.LogFormat, Level: level})
	if err != nil {
		return err
	}
	n.log = n.tel.Logger
	ca, err := devca.Open(n.set.path("ca"), n.set.Clock.Now)
	if err != nil {
		return err
	}
	keys, err := n.demoKeys(ca)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return n.openIdentity(ca) },
		func() error { return n.openLog(ctx) },
		func() error { return n.openRepository(ctx) },
		n.openPeers,
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

// openIdentity makes or finds the services' signing keys and the file that says which key is whose.
func (n *Node) openIdentity(ca *devca.CA) error {
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
	n.profile, err = identity.Load(n.set.path("services", "epatchd"), identity.LoadOptions{Now: n.set.Clock.Now(), Dev: true})
	return err
}

// KeyringFile is where readers find the services' public keys.
func (n *Node) KeyringFile() string { return n.set.path("services.keys.json") }

// openLog starts the embedded log, and refuses one that could forget.
func (n *Node) openLog(ctx context.Context) error {
	var err error
	if n.nats, err = natsd.Start(natsd.Config{Dir: n.set.path("nats"), Logger: n.log}); err != nil {
		return err
	}
	if n.conn, err = n.nats.Connect("epatchd"); err != nil {
		return err
	}
	if n.js, err = jetstream.New(n.conn); err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	if err := natsd.Provision(ctx, n.js, natsd.Profile{Replicas: 1, MaxBytes: maxBytes, ArtefactBytes: artefactBytes, BucketBytes: bucketBytes}); err != nil {
		return err
	}
	if err := natsd.Check(ctx, n.js, natsd.Expect{Replicas: 1, Sync: n.nats.Sync()}); err != nil {
		return err
	}
	if n.store, err = historystore.New(ctx, historystore.Config{JS: n.js, Logger: n.log, Consumers: true}); err != nil {
		return err
	}
	if n.artefacts, err = artefactstore.New(ctx, n.js, artefacts.DefaultLimit); err != nil {
		return err
	}
	if n.ledger, err = ledgerstore.New(ctx, n.js); err != nil {
		return err
	}
	for _, owner := range procedure.Owners() {
		if n.vaults[owner], err = vaultstore.New(ctx, n.js, owner); err != nil {
			return err
		}
	}
	return nil
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

// openPeers connects the process to itself: services talk by gRPC as they do between machines, only the network is left out.
func (n *Node) openPeers() error {
	lis, dial := rpc.Local()
	n.local = lis
	var err error
	n.peer, err = rpc.Dial(rpc.LocalAddr, rpc.ClientConfig{Identity: n.profile.Current, Dialer: dial, Tracer: n.tel.Tracer, Meter: n.tel.Meter})
	return err
}

// peers are the services by name: all of them are in this process.
func (n *Node) peers() map[string]grpc.ClientConnInterface {
	peers := map[string]grpc.ClientConnInterface{"dashboard": n.peer}
	for _, o := range procedure.Owners() {
		peers[o] = n.peer
	}
	return peers
}

func (n *Node) deps(owner string) service.Deps {
	return service.Deps{
		Owner: owner, Clock: n.set.Clock, Log: n.log.With("service", owner), Store: n.store, Keys: n.keys, Signer: n.signers[owner],
		Artefacts: n.artefacts, Vault: n.vaults[owner], Ledger: n.ledger, Incidents: n.incidents, Reader: n.reader, Peers: n.peers(),
		Meter: meter{n.tel.Metrics}, EffectMeter: meter{n.tel.Metrics},
	}
}

func (n *Node) openServices(ctx context.Context) error {
	var err error
	if n.dashboard, err = dashboard.New(n.dashboardConfig()); err != nil {
		return err
	}
	if n.reader, err = projection.New(projection.Config{
		Store: n.store, Keys: n.keys, Log: n.log, Projections: append([]projection.Projection{n.incidents}, n.dashboard.Projections()...),
		OnForeign: func(string, uint64, *history.ForeignError) { n.tel.Metrics.Foreign(context.Background()) },
	}); err != nil {
		return err
	}
	if n.incident, err = incident.New(n.deps(procedure.OwnerIncident)); err != nil {
		return err
	}
	channels, err := n.channels()
	if err != nil {
		return err
	}
	linkKey, err := n.secretFile("link.key")
	if err != nil {
		return err
	}
	if n.notification, err = notification.New(n.deps(procedure.OwnerNotification), notification.Config{Channels: channels, Link: "https://" + n.set.HTTPS + "/r/", LinkKey: linkKey}); err != nil {
		return err
	}
	if n.review, err = review.New(ctx, n.deps(procedure.OwnerReview), review.Config{Repository: n.set.Repository, StateDir: n.set.path("review"), Tracker: n.set.Tracker}); err != nil {
		return err
	}
	if n.deployment, err = deployment.New(n.deps(procedure.OwnerDeployment), deployment.Config{
		Repository: n.set.Repository, StateDir: n.set.path("deployment"), Access: n.set.Access, Console: n.set.Console,
	}); err != nil {
		return err
	}
	n.arbitration, err = arbitration.New(n.deps(procedure.OwnerArbitration), n.filing(channels))
	return err
}

// openReader reads the histories before anything is answered, so that the first answers are already true.
func (n *Node) openReader(ctx context.Context) error {
	if err := n.reader.CatchUp(ctx); err != nil {
		return err
	}
	n.dashboard.Follow(n.reader)
	return nil
}

// secretFile makes or finds a file with 32 random bytes.
func (n *Node) secretFile(name string) ([]byte, error) {
	path := n.set.path(name)
	if b, err := os.ReadFile(path); err == nil && len(b) == 32 {
		return b, nil
	}
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return nil, fmt.Errorf("keep %s: %w", name, err)
	}
	return b, nil
}

// Close ends everything that Open started.
func (n *Node) Close() error {
	var errs []error
	if n.peer != nil {
		errs = append(errs, n.peer.Close())
	}
	if n.nats != nil {
		errs = append(errs, n.nats.Close())
	}
	if n.tel != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		errs = append(errs, n.tel.Shutdown(ctx))
	}
	return errors.Join(errs...)
}

// Store is the histories, for measuring and tests.
func (n *Node) Store() *historystore.Store { return n.store }

// JetStream is the embedded log's own interface, for measuring and tests.
func (n *Node) JetStream() jetstream.JetStream { return n.js }

// FreshProjections are empty projections like those that run.
func (n *Node) FreshProjections() []projection.Projection {
	return []projection.Projection{projection.NewIncidents(), view.NewTimeline(), view.NewLog(), view.NewRecords()}
}
