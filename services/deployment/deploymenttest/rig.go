// SPDX-License-Identifier: Apache-2.0

// Package deploymenttest has everything around an agent, for tests: a development authority, people with keys, a rule book,
// a repository, a host's folder, a store with the true history, the real deployment service, and servers that tell the truth
// or lie as a test wants. It is used by tests alone.
package deploymenttest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	artefactmemory "cacert.org/emergency/pkg/artefacts/memory"
	"cacert.org/emergency/pkg/dispatch"
	effectmemory "cacert.org/emergency/pkg/effect/memory"
	"cacert.org/emergency/pkg/gitrepo/gittest"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/history"
	historymemory "cacert.org/emergency/pkg/history/memory"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/rulebook"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/pkg/timer"
	vaultmemory "cacert.org/emergency/pkg/vault/memory"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment"
)

// The rig's machines and branch.
const (
	Host       = "www1"
	TestServer = "www1-test"
	Release    = "refs/heads/release"
)

// Rig is one world.
type Rig struct {
	testing.TB
	Dir     string
	CA      *devca.CA
	Store   *historymemory.Store
	Keys    *history.Keyring
	KeyFile string
	Signers map[string]history.Signer
	Logger  *slog.Logger
	LogText *Text

	// Repo is the software with a work tree, Bare the repository that the services use; it has Base on the release branch
	// and Fixed on the branch that a transfer would make.
	Repo        *gittest.Repo
	Bare        string
	Base, Fixed string // commits
	Patch       []byte
	// HostRoot and TestRoot are plain folders with the files of Base.
	HostRoot, TestRoot string

	// Artefacts is where the deployment services keep lists of files, differences and recordings.
	Artefacts *artefactmemory.Store

	Incidents  *projection.Incidents
	Reader     *projection.Runner
	Deployment *deployment.Server
	// Service is the profile by which servers serve, and Siblings whether a caller with it may hand on calls.
	Service  *identity.Profile
	Siblings bool

	profiles    map[string]*identity.Profile
	folders     map[string]string
	dispatchers map[string]*dispatch.Dispatcher
	serial      atomic.Int64
	vault       *vaultmemory.Store // of the deployment services
}

// Text is a log that a test may read.
type Text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write adds to the text.
func (t *Text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

// String is what was written so far.
func (t *Text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// New builds the world, with a founded rule book and no incident.
func New(t testing.TB) *Rig {
	t.Helper()
	r := &Rig{
		TB: t, Dir: t.TempDir(), Store: &historymemory.Store{}, Artefacts: artefactmemory.New(1 << 20), Signers: map[string]history.Signer{}, LogText: &Text{},
		vault: vaultmemory.New(), profiles: map[string]*identity.Profile{}, folders: map[string]string{}, dispatchers: map[string]*dispatch.Dispatcher{},
	}
	r.Logger = slog.New(slog.NewTextHandler(r.LogText, &slog.HandlerOptions{Level: slog.LevelDebug}))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.LogText.String())
		}
	})
	r.identities()
	r.repository()
	r.services()
	r.found()
	return r
}

// Must ends the test on an error.
func (r *Rig) Must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// people are the rig's persons.
func people() map[string]emergencyv1.Role {
	return map[string]emergencyv1.Role{
		"carla": emergencyv1.Role_ROLE_CRITICAL_ADMIN, "carl": emergencyv1.Role_ROLE_CRITICAL_ADMIN, "clara": emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD,
		"anna": emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR, "bert": emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR, "dora": emergencyv1.Role_ROLE_SOFTWARE_DEVELOPER,
		"theo": emergencyv1.Role_ROLE_TESTER, "tina": emergencyv1.Role_ROLE_TESTER, "bea": emergencyv1.Role_ROLE_BOARD,
	}
}

func (r *Rig) identities() {
	r.Helper()
	var err error
	r.CA, err = devca.Open(filepath.Join(r.Dir, "ca"), time.Now)
	r.Must(err)
	var listed []history.Key
	for _, owner := range procedure.Owners() {
		key, _, err := r.CA.SigningKey(owner)
		r.Must(err)
		r.Signers[owner], err = history.NewSigner(key)
		r.Must(err)
		listed = append(listed, history.Key{Owner: owner, Public: key.Public().(ed25519.PublicKey)})
	}
	r.Keys, err = history.NewKeyring(listed...)
	r.Must(err)
	r.KeyFile = filepath.Join(r.Dir, "services.keys.json")
	r.Must(r.Keys.Save(r.KeyFile))
	for name := range people() {
		r.profile(name, r.CA.Person)
	}
	for _, name := range []string{Host, TestServer, "stranger"} {
		r.profile(name, r.CA.System)
	}
	r.profile("epatchd", r.CA.Service)
	r.Service = r.Profile("epatchd")
}

func (r *Rig) profile(name string, issue func(string) (string, error)) {
	r.Helper()
	dir, err := issue(name)
	r.Must(err)
	p, err := identity.Load(dir, identity.LoadOptions{Now: time.Now()})
	r.Must(err)
	r.profiles[name], r.folders[name] = p, dir
}

// Profile is the identity of a person, agent or service; ProfileDir its folder.
func (r *Rig) Profile(name string) *identity.Profile { return r.profiles[name] }

// ProfileDir is the folder of a profile.
func (r *Rig) ProfileDir(name string) string { return r.folders[name] }

// repository makes a base and a fix that changes, adds and deletes files.
func (r *Rig) repository() {
	r.Helper()
	r.Repo = gittest.New(r, gittree.SHA1)
	r.Repo.Write("www/index.php", "<?php\necho 'insecure';\n", 0o644)
	r.Repo.Write("www/lib/check.php", strings.Repeat("// line\n", 200)+"return false;\n", 0o644)
	r.Repo.Write("www/old/debug.php", "<?php phpinfo();\n", 0o644)
	r.Repo.Write("bin/cron.sh", "#!/bin/sh\nexit 0\n", 0o755)
	r.Base = r.Repo.Commit("release 1")
	r.Repo.Git("branch", "release")
	r.HostRoot, r.TestRoot = r.export("host"), r.export("test")
	r.Repo.Write("www/index.php", "<?php\necho 'secure';\n", 0o644)
	r.Repo.Write("www/lib/check.php", strings.Repeat("// line\n", 200)+"return true;\n", 0o644)
	r.Repo.Write("www/lib/new/guard.php", "<?php\n", 0o644)
	r.Must(os.Remove(filepath.Join(r.Repo.Dir, "www/old/debug.php")))
	r.Fixed = r.Repo.Commit("fix")
	r.Patch = r.Repo.Diff(r.Base, r.Fixed)
	r.Bare = filepath.Join(r.Dir, "repository.git")
	r.Repo.Git("clone", "--quiet", "--bare", r.Repo.Dir, r.Bare)
	r.Repo.Git("--git-dir="+r.Bare, "branch", "emergency/fix", r.Fixed)
	r.Repo.Git("--git-dir="+r.Bare, "branch", "--force", "main", r.Base)
}

// export writes the files of the present work tree into a plain folder.
func (r *Rig) export(name string) string {
	r.Helper()
	dir := filepath.Join(r.Dir, name)
	r.Must(os.MkdirAll(dir, 0o755))
	cmd := exec.Command("sh", "-c", "tar -C \"$0\" --exclude=.git -cf - . | tar -C \"$1\" -xf -", r.Repo.Dir, dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.Fatalf("export: %v: %s", err, out)
	}
	return dir
}

// TreeOf is the tree of a plain folder, computed by git itself.
func (r *Rig) TreeOf(dir string) string {
	r.Helper()
	tmp := r.TempDir()
	run := func(args ...string) string {
		cmd := exec.Command("git", append([]string{"--git-dir=" + filepath.Join(tmp, "git")}, args...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + tmp, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"}
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			r.Fatalf("git %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("init", "--quiet", "--bare")
	run("--work-tree="+dir, "add", "--all", "--force", ".")
	return "sha1:" + run("write-tree")
}

// BaseTree and ResultTree are the trees of the fixture's patch.
func (r *Rig) BaseTree() string { return r.Repo.Tree(r.Base) }

// ResultTree is the tree after the patch.
func (r *Rig) ResultTree() string { return r.Repo.Tree(r.Fixed) }

func (r *Rig) services() {
	r.Helper()
	var err error
	r.Incidents = projection.NewIncidents()
	r.Reader, err = projection.New(projection.Config{Store: r.Store, Keys: r.Keys, Log: r.Logger, Projections: []projection.Projection{r.Incidents}})
	r.Must(err)
	for _, owner := range procedure.Owners() {
		r.dispatchers[owner], err = dispatch.New(dispatch.Config{
			Owner: owner, Store: r.Store, Keys: r.Keys, Signer: r.Signers[owner], Vault: vaultmemory.New(), Now: time.Now, Log: r.Logger,
		})
		r.Must(err)
	}
	r.Deployment = r.NewDeployment()
}

// NewDeployment is a deployment service on the rig's history, with a clone of its own.
func (r *Rig) NewDeployment() *deployment.Server {
	r.Helper()
	s, err := r.TryDeployment(deployment.Config{Repository: r.Bare, StateDir: r.TempDir()})
	r.Must(err)
	return s
}

// TryDeployment is a deployment service with any configuration.
func (r *Rig) TryDeployment(c deployment.Config) (*deployment.Server, error) {
	return r.TryInstance("test", c)
}

// TryInstance is one of several, by its name.
func (r *Rig) TryInstance(name string, c deployment.Config) (*deployment.Server, error) {
	return deployment.New(service.Deps{
		Owner: procedure.OwnerDeployment, Instance: name, Clock: timer.System{}, Log: r.Logger, Store: r.Store, Keys: r.Keys, Signer: r.Signers[procedure.OwnerDeployment],
		Artefacts: r.Artefacts, Vault: r.vault, Ledger: effectmemory.New(), Incidents: r.Incidents, Reader: r.Reader,
	}, c)
}

// WriteHost writes one file on the host by hand.
func (r *Rig) WriteHost(path, content string) error {
	full := filepath.Join(r.HostRoot, path)
	return errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(content), 0o644))
}

// Place puts the files of the fix onto the host by hand.
func (r *Rig) Place() error {
	return errors.Join(
		r.WriteHost("www/index.php", "<?php\necho 'secure';\n"),
		r.WriteHost("www/lib/check.php", strings.Repeat("// line\n", 200)+"return true;\n"),
		r.WriteHost("www/lib/new/guard.php", "<?php\n"),
		os.RemoveAll(filepath.Join(r.HostRoot, "www/old")))
}

// HideRepository makes the repository unreachable.
func (r *Rig) HideRepository() error { return os.Rename(r.Bare, r.Bare+".away") }

// found writes the rule book.
func (r *Rig) found() {
	r.Helper()
	since := timestamppb.New(time.Now().AddDate(0, -1, 0))
	doc := rulebook.DefaultPolicy()
	doc.BoardDecision, doc.EffectiveAt = "m20261001.1", since
	doc.Systems = []*emergencyv1.CriticalSystem{{System: "www", Host: Host, TestEnvironment: TestServer, DrillHost: "www1-drill", ReleaseRef: Release}}
	policy, err := proto.MarshalOptions{Deterministic: true}.Marshal(doc)
	r.Must(err)
	c := &emergencyv1.EstablishRequest{
		Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook, RequestId: "establish-1"}, Policy: policy, BoardDecision: "m20261001.1",
	}
	for name, role := range people() {
		c.Persons = append(c.Persons, name)
		c.Grants = append(c.Grants, &emergencyv1.RoleGrant{Person: name, Role: role, EffectiveAt: since})
		c.Keys = append(c.Keys, r.key(name, &emergencyv1.Key{Person: name}))
	}
	c.Keys = append(c.Keys,
		r.key(Host, &emergencyv1.Key{System: emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT, SystemName: Host}),
		r.key(TestServer, &emergencyv1.Key{System: emergencyv1.SystemKind_SYSTEM_KIND_TEST_AGENT, SystemName: TestServer}),
		r.key("epatchd", &emergencyv1.Key{System: emergencyv1.SystemKind_SYSTEM_KIND_SERVICE, SystemName: "epatchd"}))
	_, err = r.dispatchers[procedure.OwnerArbitration].Do(context.Background(), c, dispatch.Input{
		Actor: procedure.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_SERVICE, SystemName: "founder"},
	})
	r.Must(err)
}

func (r *Rig) key(name string, k *emergencyv1.Key) *emergencyv1.Key {
	spki, err := x509.MarshalPKIXPublicKey(r.Profile(name).Signer.Public())
	r.Must(err)
	k.PublicKey, k.KeyId = spki, procedure.KeyID(spki)
	return k
}

// Serve starts a server with TLS on a loopback port, until the test ends.
func (r *Rig) Serve(register func(grpc.ServiceRegistrar)) (addr string) {
	r.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	r.Must(err)
	r.ServeOn(lis, register)
	return lis.Addr().String()
}

// ServeOn is Serve on a listener; stop ends the server before the test does.
func (r *Rig) ServeOn(lis net.Listener, register func(grpc.ServiceRegistrar)) (stop func()) {
	r.Helper()
	s, err := rpc.NewServer(rpc.ServerConfig{
		Identity: r.Service.Current, Authorize: func(context.Context, string, identity.Caller) error { return nil }, Logger: r.Logger, Now: time.Now,
		Sibling: func(c identity.Caller) bool { return r.Siblings && c.KeyID == r.Service.KeyID },
	})
	r.Must(err)
	register(s)
	return r.Background(func(ctx context.Context) error { return s.Run(ctx, lis) })
}

// Background runs something until the test ends, or until it is stopped.
func (r *Rig) Background(run func(context.Context) error) (stop func()) {
	r.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			r.Errorf("background: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	r.Cleanup(stop)
	return stop
}

// Conn is a client connection as somebody.
func (r *Rig) Conn(addr, who string) *grpc.ClientConn {
	r.Helper()
	conn, err := rpc.Dial(addr, rpc.ClientConfig{Identity: r.Profile(who).Current})
	r.Must(err)
	r.Cleanup(func() { _ = conn.Close() })
	return conn
}

// State is an incident's true state.
func (r *Rig) State(incident string) *procedure.State {
	r.Helper()
	st, err := r.dispatchers[procedure.OwnerIncident].State(context.Background(), incident)
	r.Must(err)
	return st
}

// Records are the stored records of a history.
func (r *Rig) Records(incident string) []*emergencyv1.SignedRecord {
	r.Helper()
	list, err := loadRecords(context.Background(), r.Store, incident)
	r.Must(err)
	return list
}

// WaitFor waits until the incident's true state is as wanted.
func (r *Rig) WaitFor(incident, what string, is func(*procedure.State) bool) *procedure.State {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var last *procedure.State
	err := r.Store.Follow(ctx, history.Mark{}, func(history.Message) error {
		if last = r.State(incident); is(last) {
			return errFound
		}
		return nil
	})
	if !errors.Is(err, errFound) {
		r.Fatalf("%s did not come about: %v; applies %+v", what, err, last.Applies)
	}
	return last
}

var errFound = errors.New("found")
