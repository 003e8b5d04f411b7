// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/timer"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/cli/client"
	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/notification/channel"
)

// Patience is how long anything may take until a test gives up. Nothing is measured by it.
const Patience = 90 * time.Second

// Options of an Env. The zero value is the system with all agents by the machine's clock.
type Options struct {
	// Clock is the clock of services, agents and people; the machine's if nil. A Manual one should start at the machine's
	// time, by which TLS judges certificates.
	Clock timer.Clock
	// NoAgents leaves hosts and test server without agents until StartAgent.
	NoAgents bool
	// Console gives the critical host an sshd, and the node a broker before it, for strategy 3.
	Console bool
	// Settings changes the node's settings before each start. Optional.
	Settings func(*app.Settings)
}

// Env is the whole system. Its methods fail the test instead of returning errors; call them by the test's own goroutine.
type Env struct {
	// Dir is everything's folder.
	Dir string
	// Repo is the git repository, Mail and SMS the channels by which people are reached.
	Repo      *Repo
	Mail, SMS *Channel
	Clock     timer.Clock
	Log       *Log
	// Target is where watched sessions lead; nil without Console.
	Target *Target

	t      testing.TB
	opt    Options
	agents map[string]*Agent
	keys   map[string]string // folders of second keys, by name

	mu      sync.Mutex
	running *running // nil while the node is stopped
	people  map[string]*client.Client
}

// running is one start of the node.
type running struct {
	node  *app.Node
	addrs app.Addresses
	stop  context.CancelFunc
	ended chan error
}

// Start starts the system and stops it when the test ends.
func Start(t testing.TB, opt Options) *Env {
	t.Helper()
	e := &Env{
		Dir: t.TempDir(), Mail: NewChannel("mail"), SMS: NewChannel("sms"), Clock: opt.Clock, Log: newLog(t), t: t, opt: opt,
		agents: map[string]*Agent{}, people: map[string]*client.Client{}, keys: map[string]string{},
	}
	if e.Clock == nil {
		e.Clock = timer.System{}
	}
	e.Repo = newRepo(t, e.Dir, e.Data("repository.git"))
	for _, host := range []string{demobook.Host, demobook.DrillHost, demobook.Test} {
		e.Repo.Checkout(e.Root(host))
	}
	if opt.Console {
		e.Target = NewTarget(t)
	}
	e.Open()
	t.Cleanup(e.close)
	if !opt.NoAgents {
		for _, host := range []string{demobook.Host, demobook.DrillHost, demobook.Test} {
			e.StartAgent(host)
		}
	}
	return e
}

// Data is a path in the node's data folder.
func (e *Env) Data(parts ...string) string {
	return filepath.Join(append([]string{e.Dir, "data"}, parts...)...)
}

// Root is the folder that stands for a host.
func (e *Env) Root(host string) string { return filepath.Join(e.Dir, "hosts", host) }

// Node is the running node.
func (e *Env) Node() *app.Node {
	e.t.Helper()
	return e.run().node
}

// API is the address of the running node's gRPC API.
func (e *Env) API() string {
	e.t.Helper()
	return e.run().addrs.API
}

// HTTP is the address of the running node's public pages.
func (e *Env) HTTP() string {
	e.t.Helper()
	return e.run().addrs.HTTP
}

// HTTPS is the address of the running node's pages by TLS.
func (e *Env) HTTPS() string {
	e.t.Helper()
	return e.run().addrs.HTTPS
}

func (e *Env) run() *running {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running == nil {
		e.t.Fatal("the node does not run")
	}
	return e.running
}

// Open starts the node, on the data that is there.
func (e *Env) Open() {
	e.t.Helper()
	set := app.Settings{
		Data: e.Data(), Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0", HTTPS: "127.0.0.1:0", LogFormat: "text", LogLevel: "info", LogTo: e.Log,
		Clock: e.Clock, Channels: []channel.Channel{e.Mail, e.SMS},
	}
	if e.Target != nil {
		e.Target.settings(&set)
	}
	if e.opt.Settings != nil {
		e.opt.Settings(&set)
	}
	node, err := app.Open(context.Background(), set)
	if err != nil {
		e.t.Fatalf("open the node: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r, ready := &running{node: node, stop: stop, ended: make(chan error, 1)}, make(chan app.Addresses, 1)
	go func() { r.ended <- node.Run(ctx, func(a app.Addresses) { ready <- a }) }()
	select {
	case r.addrs = <-ready:
	case err := <-r.ended:
		stop()
		e.t.Fatalf("the node ended at once: %v", errors.Join(err, node.Close()))
	}
	e.mu.Lock()
	e.running = r
	e.mu.Unlock()
}

// Stop stops the node in order. Agents and people stay, and find it again after Open.
func (e *Env) Stop() {
	e.t.Helper()
	e.mu.Lock()
	r := e.running
	e.running = nil
	e.mu.Unlock()
	if r == nil {
		return
	}
	r.stop()
	if err := errors.Join(<-r.ended, r.node.Close()); err != nil {
		e.t.Errorf("the node did not end in order: %v", err)
	}
}

// Restart is Stop and Open.
func (e *Env) Restart() {
	e.t.Helper()
	e.Stop()
	e.Open()
}

func (e *Env) close() {
	for _, a := range e.agents {
		a.Stop()
	}
	for _, c := range e.people {
		if err := c.Close(); err != nil {
			e.t.Errorf("close a person's connections: %v", err)
		}
	}
	e.Stop()
}

var errStopped = errors.New("the node is stopped")

// Dial connects to the node where it runs now, whatever address is asked for, so that agents and people survive a restart.
func (e *Env) Dial(ctx context.Context, _ string) (net.Conn, error) {
	e.mu.Lock()
	r := e.running
	e.mu.Unlock()
	if r == nil {
		return nil, errStopped
	}
	return new(net.Dialer).DialContext(ctx, "tcp", r.addrs.API)
}

// As is a person's own client, with the person's certificate, history and keyring. A person of the demo rule book, or what
// SecondKey or Enlist returned.
func (e *Env) As(person string) *client.Client {
	e.t.Helper()
	return e.WithProfile(e.Profile(person))
}

// Profile is the profile folder of whoever As takes.
func (e *Env) Profile(person string) string {
	if dir, ok := e.keys[person]; ok {
		return dir
	}
	return e.Data("people", person)
}

// Key makes a profile folder with a fresh key, which nobody knows yet.
func (e *Env) Key(name string) (dir string, key *emergencyv1.Key) {
	e.t.Helper()
	ca, err := devca.Open(e.Data("ca"), e.Clock.Now)
	must(e.t, err)
	dir, err = ca.Person(name)
	must(e.t, err)
	profile, err := identity.Load(dir, identity.LoadOptions{Now: e.Clock.Now(), Dev: true})
	must(e.t, err)
	return dir, &emergencyv1.Key{KeyId: profile.KeyID, PublicKey: profile.Certificate.Leaf.RawSubjectPublicKeyInfo}
}

// SecondKey lets a person add a second key to the directory, with the first one, and returns the name by which As takes it.
func (e *Env) SecondKey(person string) string {
	e.t.Helper()
	name := person + "-2"
	dir, key := e.Key(name)
	key.Person = person
	_, err := e.As(person).Send(e.t.Context(), &emergencyv1.AddKeyRequest{Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook}, Key: key})
	must(e.t, err)
	e.keys[name] = dir
	return name
}

// WithProfile is a client with the certificate of any profile folder.
func (e *Env) WithProfile(dir string) *client.Client {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if c, ok := e.people[dir]; ok {
		return c
	}
	c, err := client.Dial(client.Config{Server: "localhost:1", Profile: dir, Keyring: e.Data("services.keys.json"), Now: e.Clock.Now, Dialer: e.Dial})
	if err != nil {
		e.t.Fatal(err)
	}
	e.people[dir] = c
	return c
}
