// SPDX-License-Identifier: Apache-2.0

package review_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/artefacts"
	artefactsjs "cacert.org/emergency/pkg/artefacts/jetstream"
	artefactsmem "cacert.org/emergency/pkg/artefacts/memory"
	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/effect"
	effectjs "cacert.org/emergency/pkg/effect/jetstream"
	effectmem "cacert.org/emergency/pkg/effect/memory"
	"cacert.org/emergency/pkg/gitrepo/gittest"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/history"
	historyjs "cacert.org/emergency/pkg/history/jetstream"
	historymem "cacert.org/emergency/pkg/history/memory"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/natsd/natsdtest"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/pkg/timer"
	"cacert.org/emergency/pkg/vault"
	vaultjs "cacert.org/emergency/pkg/vault/jetstream"
	vaultmem "cacert.org/emergency/pkg/vault/memory"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/review"
	"cacert.org/emergency/services/review/tracker"
)

// rig is the review service with real stores, a real repository and real connections, in one declared emergency. Of the
// other services there are the dispatchers that found the rule book and declare, and agents in place of the deployment
// service and the test server.
type rig struct {
	t        testing.TB
	settings settings
	clock    *timer.Manual
	logged   *logged
	log      *slog.Logger

	store   history.Store
	keys    *history.Keyring
	signers map[string]history.Signer
	memory  *artefactsmem.Store // the artefacts, if they are in memory
	deps    service.Deps

	work   *gittest.Repo
	base   string // commit
	remote string // the bare repository

	agents    *agents
	authority *authority
	cfg       review.Config
	incident  string
	serial    atomic.Int64

	srv  *review.Server
	dial func(context.Context, string) (dialled, error)
	stop func()
}

type settings struct {
	jetstream bool
	tracker   tracker.Config
	algo      gittree.Algo
	drill     bool
}

// logged is the service's log: shown with the test, and kept for the few things that show nowhere else.
type logged struct {
	t       testing.TB
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	close(l.changed)
	l.changed = make(chan struct{})
	return l.t.Output().Write(p)
}

// mark is where the log ends now.
func (l *logged) mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Len()
}

// wait waits until the log says something behind a mark.
func (l *logged) wait(after int, words string) {
	l.t.Helper()
	deadline := time.After(time.Minute)
	for {
		l.mu.Lock()
		said, changed := strings.Contains(l.text.String()[after:], words), l.changed
		l.mu.Unlock()
		if said {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			l.t.Fatalf("the log never said %q", words)
		}
	}
}

func newRig(t testing.TB, set settings) *rig {
	t.Helper()
	r := &rig{t: t, settings: set, clock: timer.NewManual(proceduretest.Founded()), authority: newAuthority(t), logged: &logged{t: t, changed: make(chan struct{})}}
	r.log = slog.New(slog.NewTextHandler(r.logged, &slog.HandlerOptions{Level: slog.LevelWarn}))
	r.makeRepository()
	r.makeStores()
	r.makeHistory()
	r.agents = startAgents(r)
	r.deps.Peers = map[string]grpc.ClientConnInterface{"deployment": r.agents.conn}
	r.cfg = review.Config{Repository: r.remote, StateDir: t.TempDir(), Tracker: set.tracker}
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

// makeRepository makes the software and its bare repository.
func (r *rig) makeRepository() {
	algo := r.settings.algo
	if algo == "" {
		algo = gittree.SHA1
	}
	r.work = gittest.New(r.t, algo)
	r.work.Write("www/index.php", strings.Repeat("line\n", 20)+"end\n", 0o644)
	r.work.Write("www/login.php", "<?php\n$strangers = true;\n", 0o644)
	r.work.Write("tool", "#!/bin/sh\n", 0o755)
	r.base = r.work.Commit("release")
	r.work.Git("branch", "release")
	r.remote = filepath.Join(r.t.TempDir(), "remote.git")
	r.work.Git("clone", "--quiet", "--bare", ".", r.remote)
}

func (r *rig) makeStores() {
	var arts artefacts.Store
	var vaults vault.Store = vaultmem.New()
	var ledger effect.Ledger = effectmem.New()
	if !r.settings.jetstream {
		r.store, r.memory = &historymem.Store{}, artefactsmem.New(artefacts.DefaultLimit)
		arts = r.memory
	} else {
		_, js := natsdtest.Start(r.t)
		store, err := historyjs.New(r.t.Context(), historyjs.Config{JS: js, Logger: r.log, Consumers: true})
		r.must(err)
		r.store = store
		arts, err = artefactsjs.New(r.t.Context(), js, artefacts.DefaultLimit)
		r.must(err)
		vaults, err = vaultjs.New(r.t.Context(), js, procedure.OwnerReview)
		r.must(err)
		ledger, err = effectjs.New(r.t.Context(), js, procedure.OwnerReview)
		r.must(err)
	}
	r.signers = map[string]history.Signer{}
	var ring []history.Key
	for _, owner := range procedure.Owners() {
		public, private, err := ed25519.GenerateKey(nil)
		r.must(err)
		r.signers[owner], err = history.NewSigner(private)
		r.must(err)
		ring = append(ring, history.Key{Owner: owner, Public: public})
	}
	var err error
	r.keys, err = history.NewKeyring(ring...)
	r.must(err)
	r.deps = service.Deps{
		Owner: procedure.OwnerReview, Instance: "test", Clock: r.clock, Log: r.log, Store: r.store, Keys: r.keys, Signer: r.signers[procedure.OwnerReview],
		Artefacts: arts, Vault: vaults, Ledger: ledger, Incidents: projection.NewIncidents(),
	}
	r.deps.Reader, err = projection.New(projection.Config{Store: r.store, Keys: r.keys, Projections: []projection.Projection{r.deps.Incidents}, Log: r.log})
	r.must(err)
}

// makeHistory founds the rule book and declares an emergency.
func (r *rig) makeHistory() {
	arbitration, incident := r.dispatcher(procedure.OwnerArbitration), r.dispatcher(procedure.OwnerIncident)
	founding := proceduretest.Establish()
	founding.Meta = &emergencyv1.CommandMeta{Incident: procedure.RuleBook, RequestId: "establish-1"}
	_, err := arbitration.Do(r.t.Context(), founding, dispatch.Input{Actor: proceduretest.Actor("service")})
	r.must(err)
	r.clock.Set(proceduretest.T0())
	declare := proceduretest.Declare()
	declare.Meta, declare.Drill = &emergencyv1.CommandMeta{RequestId: "declare-1"}, r.settings.drill
	c, err := incident.Declare(r.t.Context(), declare, dispatch.Input{Actor: proceduretest.Actor("carla")}, r.deps.Incidents)
	r.must(err)
	r.incident = c.GetIncident()
	r.must(r.deps.Reader.CatchUp(r.t.Context()))
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.deps.Reader.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			r.t.Errorf("projection runner: %v", err)
		}
	})
}

func (r *rig) dispatcher(owner string) *dispatch.Dispatcher {
	d, err := dispatch.New(dispatch.Config{
		Owner: owner, Store: r.store, Keys: r.keys, Signer: r.signers[owner], Vault: vaultmem.New(), Now: r.clock.Now, Log: r.log,
	})
	r.must(err)
	return d
}

// start runs the service as a new process would.
func (r *rig) start() {
	r.t.Helper()
	srv, err := review.New(r.t.Context(), r.deps, r.cfg)
	r.must(err)
	server, err := rpc.NewServer(rpc.ServerConfig{
		Identity:  r.authority.of("review", r.authority.serverKey),
		Authorize: func(context.Context, string, identity.Caller) error { return nil }, Logger: slog.New(slog.DiscardHandler), Now: r.clock.Now,
	})
	r.must(err)
	srv.Register(server.Server)
	lis, dial := rpc.Local()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Run(ctx, lis) })
	group.Go(func() error { return srv.Run(ctx) })
	conns := newConns(r, dial)
	r.srv, r.dial = srv, conns.get
	r.stop = func() {
		cancel()
		conns.close()
		if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			r.t.Errorf("service: %v", err)
		}
		r.stop = func() {}
	}
}

// restart is a crash of the whole process that forgets what the ledger of effects knew, if fresh.
func (r *rig) restart(fresh bool) {
	r.t.Helper()
	r.stop()
	if fresh {
		r.deps.Ledger = effectmem.New()
	}
	r.start()
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// state is the incident on its true head.
func (r *rig) state() *procedure.State {
	r.t.Helper()
	st, err := r.srv.Dispatch.State(r.t.Context(), r.incident)
	r.must(err)
	return st
}

// revision is a revision on the true head.
func (r *rig) revision(id string) *procedure.Revision {
	r.t.Helper()
	rev, ok := r.state().Revision(id)
	if !ok {
		r.t.Fatalf("there is no revision %s", id)
	}
	return rev
}

// wait waits until something holds of the incident.
func (r *rig) wait(what string, holds func(*procedure.State) bool) {
	r.t.Helper()
	deadline := time.After(time.Minute)
	for {
		changed, ok := r.deps.Reader.Changed(), false
		r.deps.Incidents.View(r.incident, func(s *procedure.State) { ok = holds(s) })
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("never came so far: %s", what)
		}
	}
}

// prepare fills a command in and signs it as a client would.
func (r *rig) prepare(who string, cmd procedure.Command) procedure.Command {
	r.t.Helper()
	cmd = proto.CloneOf(cmd)
	if cmd.GetMeta() == nil {
		m := cmd.ProtoReflect()
		m.Set(m.Descriptor().Fields().ByName("meta"), m.NewField(m.Descriptor().Fields().ByName("meta")))
	}
	if cmd.GetMeta().RequestId == "" {
		cmd.GetMeta().RequestId = fmt.Sprintf("request-%04d", r.serial.Add(1))
	}
	book, err := r.srv.Dispatch.Book(r.t.Context())
	r.must(err)
	w := proceduretest.NewIncident(fatal{r.t}, r.incident)
	w.State, w.Book, w.Now = r.state(), book, r.clock.Now()
	return w.Prepare(who, cmd)
}

type fatal struct{ testing.TB }

// send sends a prepared command over the wire.
func (r *rig) send(who string, cmd procedure.Command) (*emergencyv1.Committed, error) {
	r.t.Helper()
	conn, err := r.dial(r.t.Context(), who)
	r.must(err)
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	var resp emergencyv1.ForwardResponse // the answers to all commands have this form on the wire
	err = conn.Invoke(ctx, "/emergency.review.v1.ReviewService/"+procedure.CommandName(cmd), cmd, &resp)
	return resp.GetCommitted(), err
}

// do gives a command that must be accepted.
func (r *rig) do(who string, cmd procedure.Command) *emergencyv1.Committed {
	r.t.Helper()
	c, err := r.send(who, r.prepare(who, cmd))
	if err != nil {
		r.t.Fatalf("%s by %s: %v", procedure.CommandName(cmd), who, err)
	}
	return c
}

// refused gives a command that must be refused for a reason, with certain words.
func (r *rig) refused(who string, cmd procedure.Command, reason procedure.Reason, words ...string) *procedure.Refusal {
	r.t.Helper()
	c, err := r.send(who, r.prepare(who, cmd))
	return r.isRefusal(procedure.CommandName(cmd)+" by "+who, c, err, reason, words...)
}

func (r *rig) isRefusal(what string, got any, err error, reason procedure.Reason, words ...string) *procedure.Refusal {
	r.t.Helper()
	refusal, ok := rpc.RefusalOf(err)
	if !ok || refusal.Reason != reason {
		r.t.Errorf("%s: got %v, %v, want a refusal %s", what, got, err, reason)
		return &procedure.Refusal{}
	}
	for _, w := range words {
		if !strings.Contains(refusal.Message, w) {
			r.t.Errorf("%s: the refusal does not say %q: %s", what, w, refusal.Message)
		}
	}
	return refusal
}

// read reads a patch over the wire.
func (r *rig) read(who, revision string) (*reviewv1.ReadPatchResponse, error) {
	r.t.Helper()
	conn, err := r.dial(r.t.Context(), who)
	r.must(err)
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	return reviewv1.NewReviewReaderServiceClient(conn).ReadPatch(ctx, &reviewv1.ReadPatchRequest{Incident: r.incident, Revision: revision})
}

// as is the context of a call by somebody, for handlers called without the wire.
func (r *rig) as(who string) context.Context {
	return identity.WithCaller(r.t.Context(), identity.Caller{KeyID: proceduretest.KeyOf(who).ID})
}

// events are the types of all events of the incident, in order.
func (r *rig) events() []string {
	r.t.Helper()
	messages, err := r.store.Load(r.t.Context(), r.incident, 0)
	r.must(err)
	chain := history.NewChain(r.incident, r.keys)
	var types []string
	for _, m := range messages {
		e, err := chain.Accept(m.Data)
		r.must(err)
		for _, ev := range e.Record.GetEvents() {
			types = append(types, ev.GetType())
		}
	}
	return types
}

// count is how many events of a type the incident has.
func (r *rig) count(eventType string) int {
	n := 0
	for _, t := range r.events() {
		if t == eventType {
			n++
		}
	}
	return n
}

// bare runs git in the bare repository.
func (r *rig) bare(args ...string) string {
	r.t.Helper()
	return strings.TrimSpace(r.work.Git(append([]string{"--git-dir=" + r.remote}, args...)...))
}

// change commits one file's new content on top of the base, apart from the branches, and returns the commit.
func (r *rig) change(path, content string) string {
	r.t.Helper()
	r.work.Git("checkout", "--quiet", "--detach", r.base)
	r.work.Write(path, content, 0o644)
	commit := r.work.Commit("change " + path)
	r.work.Git("checkout", "--quiet", "main")
	return commit
}

// register is the registration of what a commit of the work tree changes.
func (r *rig) register(commit string) *emergencyv1.RegisterPatchRequest {
	r.t.Helper()
	return r.registration(r.work.Diff(r.base, commit), r.work.Tree(commit))
}

func (r *rig) registration(patch []byte, resultTree string) *emergencyv1.RegisterPatchRequest {
	return &emergencyv1.RegisterPatchRequest{
		Bytes: patch, Sha256: artefacts.Digest(patch), BaseCommit: r.base, BaseTree: r.work.Tree(r.base), ResultTree: resultTree, BugId: "bug-1500",
	}
}

// mend is the registration of the good patch.
func (r *rig) mend() *emergencyv1.RegisterPatchRequest {
	r.t.Helper()
	return r.register(r.change("www/login.php", "<?php\n$strangers = false;\n"))
}

func (r *rig) ref(revision string) string {
	return "refs/heads/emergency/" + r.incident + "/" + revision
}
