// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/artefacts"
	artefactstore "cacert.org/emergency/pkg/artefacts/jetstream"
	"cacert.org/emergency/pkg/effect"
	ledgerstore "cacert.org/emergency/pkg/effect/jetstream"
	"cacert.org/emergency/pkg/history"
	historystore "cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/projection/pulse"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/pkg/telemetry"
	"cacert.org/emergency/pkg/vault"
	vaultstore "cacert.org/emergency/pkg/vault/jetstream"
	"cacert.org/emergency/pkg/version"
	"cacert.org/emergency/services/arbitration"
	"cacert.org/emergency/services/dashboard"
	"cacert.org/emergency/services/dashboard/view"
	"cacert.org/emergency/services/deployment"
	"cacert.org/emergency/services/incident"
	"cacert.org/emergency/services/notification"
	"cacert.org/emergency/services/review"
)

// Node is one process, with all services in it or one of them.
type Node struct {
	set Settings
	log *slog.Logger
	tel *telemetry.Telemetry

	// The log, by which connection, what it must look like, and what this process may sign in it.
	nats      *natsd.Server // nil where the log runs elsewhere
	js        jetstream.JetStream
	expect    natsd.Expect
	memory    *natsd.Memory // of the log, across restarts
	store     *historystore.Store
	keys      *history.Keyring
	signers   map[string]history.Signer
	artefacts artefacts.Store
	ledgers   map[string]effect.Ledger
	vaults    map[string]vault.Store

	incidents *projection.Incidents
	reader    *projection.Runner
	pulse     *pulse.Pulse
	verified  *history.Verified
	database  *database // nil without one

	// Who this process is to others, how it reaches the services by name, and by which listener it reaches itself.
	identity func() *identity.Profile
	standing *rpc.Standing // of callers who have something open
	limiter  *rpc.Limiter
	instance string
	lock     *os.File // of the data folder, where the log runs elsewhere
	peers    map[string]grpc.ClientConnInterface
	siblings []deployment.Sibling // instances of the deployment service, this one too, in one of its processes
	conns    []*grpc.ClientConn
	local    net.Listener // nil where the services are elsewhere

	services     map[string]owner // those of this process, by name
	notification *notification.Server
	arbitration  *arbitration.Server
	dashboard    *dashboard.Server // nil in a process without pages
}

// owner is a service that owns commands and events.
type owner interface {
	Register(grpc.ServiceRegistrar)
	Run(context.Context) error
	Waiting() int
	Trouble() []effect.Trouble
	State(ctx context.Context, incident string) (*procedure.State, error)
	RuleBookChanged()
}

// Open opens the log and builds the process's services. Close ends it.
func Open(ctx context.Context, set Settings) (*Node, error) {
	n, err := newNode(ctx, set)
	if err != nil {
		return nil, err
	}
	open := n.openAll
	if set.Service != "" {
		open = n.openOne
	}
	if err := open(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// newNode checks the settings and begins to log.
func newNode(ctx context.Context, set Settings) (*Node, error) {
	if err := set.check(); err != nil {
		return nil, err
	}
	n := &Node{
		set: set, signers: map[string]history.Signer{}, vaults: map[string]vault.Store{}, ledgers: map[string]effect.Ledger{}, incidents: projection.NewIncidents(),
		peers: map[string]grpc.ClientConnInterface{}, services: map[string]owner{},
	}
	n.standing, n.limiter = rpc.NewStanding(n.mayGoOn), rpc.NewLimiter(set.Limits, n.whoIs, set.Clock.Now)
	level, err := set.level()
	if err != nil {
		return nil, err
	}
	name := "epatchd"
	if set.Service != "" {
		name += "-" + set.Service
	}
	n.tel, err = telemetry.Start(ctx, telemetry.Config{Service: name, Version: version.Number(), Log: set.LogTo, Format: set.LogFormat, Level: level})
	if err != nil {
		return nil, err
	}
	n.log = n.tel.Logger
	return n, nil
}

// memoryFile is where a process keeps what it remembers of the log. docs/runbooks.md names it to operators.
const memoryFile = "log.mark"

// openStores opens what lies in the log, as far as the services of this process may use it.
func (n *Node) openStores(ctx context.Context, log historystore.Config) error {
	if err := natsd.Check(ctx, n.js, n.expect); err != nil {
		return err
	}
	var err error
	if n.memory, err = natsd.OpenMemory(n.set.path(memoryFile)); err != nil {
		return err
	}
	if err := n.memory.Recognise(ctx, n.js, n.expect); err != nil {
		return err
	}
	log.JS, log.Logger = n.js, n.log
	if n.store, err = historystore.New(ctx, log); err != nil {
		return err
	}
	owners := n.set.owners()
	if len(owners) == 0 {
		return nil
	}
	n.checkBuckets(ctx)
	if n.artefacts, err = artefactstore.New(ctx, n.js, artefacts.DefaultLimit); err != nil {
		return err
	}
	for _, o := range owners {
		if n.ledgers[o], err = ledgerstore.New(ctx, n.js, o); err != nil {
			return err
		}
		if n.vaults[o], err = vaultstore.New(ctx, n.js, o); err != nil {
			return err
		}
	}
	return nil
}

// buckets are the streams beside the histories that this process's services may ask about.
func (n *Node) buckets() []string {
	streams := []string{"OBJ_" + natsd.ObjectBucket}
	owners := n.set.owners()
	if len(owners) > 0 {
		streams = append(streams, "KV_"+natsd.EffectBucket)
	}
	for _, o := range owners {
		streams = append(streams, "KV_"+natsd.RestrictedBucket(o))
	}
	return streams
}

// checkBuckets says which bucket could forget, such as one of an earlier version that was not provisioned again. No history is lost by it,
// and during an upgrade it is so until all services have the new version: nothing is refused.
func (n *Node) checkBuckets(ctx context.Context) {
	for _, stream := range n.buckets() {
		err := natsd.CheckBucket(ctx, n.js, stream, n.expect)
		var check *natsd.CheckError
		switch {
		case errors.As(err, &check):
			for _, f := range check.Findings {
				n.log.WarnContext(ctx, "a bucket of the event log could forget: `epatchd nats provision` says what to do", "finding", f.String())
			}
		case err != nil:
			n.log.WarnContext(ctx, "a bucket of the event log could not be looked at", "error", err)
		}
	}
}

func (n *Node) deps(owner string) service.Deps {
	return service.Deps{
		Owner: owner, Instance: n.instance, Clock: n.set.Clock, Log: n.log.With("service", owner), Store: n.store, Keys: n.keys, Signer: n.signers[owner],
		Artefacts: n.artefacts, Vault: n.vaults[owner], Ledger: n.ledgers[owner], Incidents: n.incidents, Reader: n.reader, Peers: n.peers,
		Meter: meter{n.tel.Metrics}, EffectMeter: meter{n.tel.Metrics}, Tracer: n.tel.Tracer.Tracer(scope),
	}
}

// openServices builds the services of this process.
func (n *Node) openServices(ctx context.Context) error {
	n.pulse = pulse.New(pulse.Config{
		Clock: n.set.Clock, Log: n.log, Stored: n.store.LastSequence, Read: func() uint64 { return n.reader.Mark().Sequence }, Measure: n.measureReader,
	})
	feed := []projection.Projection{n.incidents}
	var err error
	if n.verified, err = history.OpenVerified(n.set.path("verified")); err != nil {
		n.log.WarnContext(ctx, "signatures are verified again", "error", err)
	}
	if n.set.serves(dashboardName) {
		if n.dashboard, err = dashboard.New(n.dashboardConfig()); err != nil {
			return err
		}
		feed = append(feed, n.dashboard.Projections()...)
	}
	if n.reader, err = projection.New(projection.Config{
		Store: n.store, Keys: n.keys, Log: n.log, Projections: feed, Verified: n.verified, Tracer: n.tel.Tracer.Tracer(scope),
		OnForeign: func(string, uint64, *history.ForeignError) { n.tel.Metrics.Foreign(context.Background()) },
	}); err != nil {
		return err
	}
	for _, o := range n.set.owners() {
		if n.services[o], err = n.openService(ctx, o); err != nil {
			return err
		}
	}
	return n.openDatabase(ctx)
}

func (n *Node) openService(ctx context.Context, name string) (owner, error) {
	deps := n.deps(name)
	var err error
	switch name {
	case procedure.OwnerIncident:
		return incident.New(deps)
	case procedure.OwnerNotification:
		cfg := notification.Config{Link: n.set.base() + "/r/"}
		if cfg.Channels, err = n.channels(); err != nil {
			return nil, err
		}
		if cfg.LinkKey, err = n.linkKey(); err != nil {
			return nil, err
		}
		n.notification, err = notification.New(deps, cfg)
		return n.notification, err
	case procedure.OwnerReview:
		return review.New(ctx, deps, review.Config{Repository: n.set.Repository, StateDir: n.set.path("review"), Tracker: n.set.Tracker})
	case procedure.OwnerDeployment:
		return deployment.New(deps, deployment.Config{
			Repository: n.set.Repository, StateDir: n.set.path("deployment"), Access: n.set.Access, Console: n.set.Console,
			Siblings: n.siblings,
		})
	case procedure.OwnerArbitration:
		cfg, err := n.filing()
		if err != nil {
			return nil, err
		}
		n.arbitration, err = arbitration.New(deps, cfg)
		return n.arbitration, err
	}
	return nil, fmt.Errorf("%q is no service", name)
}

// openReader reads the histories before anything is answered, so that the first answers are already true.
func (n *Node) openReader(ctx context.Context) error {
	if err := n.reader.CatchUp(ctx); err != nil {
		return err
	}
	if err := n.memory.Keep(n.reader.Mark()); err != nil {
		return fmt.Errorf("setting data: %w", err)
	}
	if n.dashboard != nil {
		n.dashboard.Follow(n.reader)
	}
	return nil
}

// linkKeyBytes is the least that cannot be guessed.
const linkKeyBytes = 32

// linkKey signs the links in pages to people; all instances of the service share it.
func (n *Node) linkKey() ([]byte, error) {
	path := n.set.LinkKey
	if path == "" {
		path = n.set.path("link.key")
	}
	b, err := identity.ReadSecret(path)
	switch {
	case err == nil && len(b) >= linkKeyBytes:
		return b, nil
	case n.set.LinkKey == "" && (err == nil || errors.Is(err, os.ErrNotExist)): // made below
	case err != nil:
		return nil, fmt.Errorf("setting link-key: %w: make a file of at least %d random bytes that its owner alone may read, the same for all instances", err, linkKeyBytes)
	default:
		return nil, fmt.Errorf("setting link-key: %s has %d bytes: make a file of at least %d random bytes, the same for all instances", path, len(b), linkKeyBytes)
	}
	b = make([]byte, linkKeyBytes)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return nil, fmt.Errorf("keep the key of the links in pages: %w", err)
	}
	return b, nil
}

// Close ends everything that Open started.
func (n *Node) Close() error {
	var errs []error
	if n.database != nil {
		n.database.tables.Close()
	}
	for _, c := range n.conns {
		errs = append(errs, c.Close())
	}
	switch {
	case n.nats != nil:
		errs = append(errs, n.nats.Close())
	case n.js != nil:
		n.js.Conn().Close()
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
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

// JetStream is the log's own interface, for measuring and tests.
func (n *Node) JetStream() jetstream.JetStream { return n.js }

// FreshProjections are empty projections like those that run.
func (n *Node) FreshProjections() []projection.Projection {
	return []projection.Projection{projection.NewIncidents(), view.NewTimeline(), view.NewLog(), view.NewRecords()}
}
