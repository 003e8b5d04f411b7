// SPDX-License-Identifier: Apache-2.0

package dashboard_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/history/memory"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/pkg/timer"
	"cacert.org/emergency/pkg/vault"
	vaultmemory "cacert.org/emergency/pkg/vault/memory"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	restrictedv1 "cacert.org/emergency/proto/emergency/restricted/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/dashboard"
)

// rig is the dashboard over a history in memory, reached by real gRPC.
type rig struct {
	t      *testing.T
	clock  *timer.Manual
	store  *memory.Store
	keys   *historytest.Keys
	runner *projection.Runner
	cfg    dashboard.Config
	server *dashboard.Server
	vault  *vaultmemory.Store
	logs   *buffer

	ca   *devca.CA
	dial func(context.Context, string) (conn grpc.ClientConnInterface)
	book *pt.World
	sent map[*pt.World]int
	last map[string]uint64 // sequence in the store, by incident
	mu   sync.Mutex
	ids  map[string]*identity.Profile
}

// buffer is a log that several goroutines write to.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[V any](v V, err error) func(testing.TB) V {
	return func(t testing.TB) V {
		t.Helper()
		check(t, err)
		return v
	}
}

// callers are the persons and machines that have a certificate of the development authority.
func callers() []string {
	return []string{"carla", "carl", "clara", "anna", "bert", "dora", "theo", "tina", "bea", "arno", "mia", "albert"}
}

func newRig(t *testing.T, change ...func(*dashboard.Config)) *rig {
	t.Helper()
	r := &rig{
		t: t, clock: timer.NewManual(pt.T0()), store: &memory.Store{}, keys: historytest.NewKeys(t, "dashboard"), vault: vaultmemory.New(), logs: &buffer{},
		sent: map[*pt.World]int{}, last: map[string]uint64{}, ids: map[string]*identity.Profile{},
	}
	r.ca = must(devca.Open(t.TempDir(), time.Now))(t)
	r.foundBook()
	log := slog.New(slog.NewJSONHandler(r.logs, nil))
	incidents := projection.NewIncidents()
	cfg := dashboard.Config{Clock: r.clock, Log: log, Store: r.store, Keys: r.keys.Ring, Incidents: incidents, Peers: map[string]grpc.ClientConnInterface{}}
	for _, owner := range []string{"incident", "notification", "review", "deployment", "arbitration"} {
		cfg.Peers[owner] = r.restrictedPeer(log)
	}
	for _, c := range change {
		c(&cfg)
	}
	r.cfg = cfg
	r.server = must(dashboard.New(cfg))(t)
	all := append([]projection.Projection{incidents}, r.server.Projections()...)
	r.runner = must(projection.New(projection.Config{Store: r.store, Keys: r.keys.Ring, Projections: all, Log: log}))(t)
	check(t, r.runner.CatchUp(t.Context()))
	r.server.Follow(r.runner)
	r.run(func(ctx context.Context) error { return r.runner.Run(ctx) })
	r.dial = r.serve(log, r.server.Register)
	return r
}

// run runs something until the test ends, which fails if it ended with an error.
func (r *rig) run(f func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	r.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			r.t.Error(err)
		}
	})
}

// foundBook is the fixture's rule book, in which the callers also have the keys of their certificates.
func (r *rig) foundBook() {
	r.book = pt.Founding().For(r.t)
	for _, name := range callers() {
		p := r.profile(name)
		r.book.Do(name, &emergencyv1.AddKeyRequest{Key: &emergencyv1.Key{KeyId: p.KeyID, PublicKey: p.Certificate.Leaf.RawSubjectPublicKeyInfo, Person: name}})
	}
	p := r.profile("agent")
	r.book.Do("bea", &emergencyv1.AddKeyRequest{Key: &emergencyv1.Key{
		KeyId: p.KeyID, PublicKey: p.Certificate.Leaf.RawSubjectPublicKeyInfo, System: emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT, SystemName: pt.Host,
	}})
	r.feed(r.book)
}

func (r *rig) profile(name string) *identity.Profile {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.ids[name]; ok {
		return p
	}
	p := must(identity.Load(must(r.ca.Person(name))(r.t), identity.LoadOptions{Now: time.Now()}))(r.t)
	r.ids[name] = p
	return p
}

// serve starts a gRPC server and returns what dials it under a name; "" is a caller without certificate.
func (r *rig) serve(log *slog.Logger, register func(grpc.ServiceRegistrar)) func(context.Context, string) grpc.ClientConnInterface {
	own := must(identity.Load(must(r.ca.Service("dashboard"))(r.t), identity.LoadOptions{Now: time.Now()}))(r.t)
	lis, dialer := rpc.Local()
	srv := must(rpc.NewServer(rpc.ServerConfig{
		Identity: own.Current, Authorize: func(context.Context, string, identity.Caller) error { return nil }, Anonymous: []string{dashboard.LogMethod}, Logger: log, Now: time.Now,
	}))(r.t)
	register(srv)
	r.run(func(ctx context.Context) error { return srv.Run(ctx, lis) })
	return func(_ context.Context, name string) grpc.ClientConnInterface {
		cfg := rpc.ClientConfig{Dialer: dialer, Roots: own.Roots}
		if name != "" {
			cfg.Identity = r.profile(name).Current
		}
		conn := must(rpc.Dial(rpc.LocalAddr, cfg))(r.t)
		r.t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
}

// restrictedPeer is an owner's RestrictedService, on a server of its own.
func (r *rig) restrictedPeer(log *slog.Logger) grpc.ClientConnInterface {
	vaults := map[string]vault.Store{}
	for _, owner := range procedure.Owners() {
		vaults[owner] = r.vault
	}
	return r.serve(log, func(reg grpc.ServiceRegistrar) {
		restrictedv1.RegisterRestrictedServiceServer(reg, &service.Restricted{Vaults: vaults, Log: log.With("part", "owner")})
	})(r.t.Context(), "bea")
}

// client asks as somebody.
func (r *rig) client(name string) dashboardv1.QueryServiceClient {
	return dashboardv1.NewQueryServiceClient(r.dial(r.t.Context(), name))
}

// world is a new incident under the rig's rule book.
func (r *rig) world(id string) *pt.World {
	w := pt.NewIncident(r.t, id)
	w.Book = r.book.Book
	return w
}

// feed seals what is new in a world's history, appends it, and waits until the dashboard has it.
func (r *rig) feed(w *pt.World) {
	r.t.Helper()
	id := w.State.Incident
	for _, rec := range w.Records[r.sent[w]:] {
		signed, _, err := history.Seal(rec, r.keys.Signer(r.t, rec.GetOwner()))
		check(r.t, err)
		r.last[id], err = r.store.Append(r.t.Context(), id, r.last[id], signed, nil)
		check(r.t, err)
	}
	r.sent[w] = len(w.Records)
	if w.State.Incident != procedure.RuleBook {
		r.clock.Set(w.State.RecordedAt)
	}
	if r.runner != nil {
		check(r.t, r.runner.WaitFor(r.t.Context(), id, w.State.Position))
	}
}

// told plays steps in a new incident and feeds them.
func (r *rig) told(id string, steps ...pt.Step) *pt.World {
	r.t.Helper()
	w := r.world(id)
	for _, s := range steps {
		s(w)
	}
	r.feed(w)
	return w
}

// do gives a command and keeps its restricted values where the owners do.
func (r *rig) do(w *pt.World, who string, c procedure.Command) pt.Outcome {
	r.t.Helper()
	out := w.Do(who, c)
	for _, s := range out.Decision.Sealed {
		check(r.t, r.vault.Put(r.t.Context(), s.Commitment, s.Salt, s.Value))
	}
	return out
}

// refused wants an error that is a refusal for a reason.
func refused(t *testing.T, err error, want procedure.Reason) *procedure.Refusal {
	t.Helper()
	refusal, ok := rpc.RefusalOf(err)
	if !ok || refusal.Reason != want {
		t.Fatalf("got %v, want refusal %s", err, want)
	}
	return refusal
}
