// SPDX-License-Identifier: Apache-2.0

// Package cluster runs a whole installation on one machine as processes: three servers of the event log with an account for each service,
// every service in several instances, with a development authority and the demo rule book. What differs from production is that all of it
// is on one machine. No root and no containers are needed.
package cluster

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/services/cli/client"
	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/child"
	"cacert.org/emergency/services/internal/demobook"
)

// Program is how a program is started.
type Program struct {
	Path string
	Env  []string
}

// Config of a cluster.
type Config struct {
	// Dir is the folder under which everything lies. What is there already is used.
	Dir string
	// Epatchd and NATS are the programs.
	Epatchd, NATS Program
	// Repository is the bare git repository.
	Repository string
	// Instances of each service; 2 if 0.
	Instances int
	// More are further settings of a service, as arguments.
	More map[string][]string
	// Environ is more environment of one instance. Optional.
	Environ func(i *Instance) []string
	// Founded is since when the rule book's roles are held; since the start if zero.
	Founded time.Time
	// Links puts links between the servers of the event log, and between them and their clients, so that they can be cut.
	Links bool
	// Say is told what happens. Optional.
	Say func(format string, a ...any)
}

// Instance is one process of a service.
type Instance struct {
	// Service and Number, from 1.
	Service string
	Number  int
	// API is where it serves gRPC, HTTPS its pages; empty if it has none.
	API, HTTP, HTTPS string

	process *child.Process
}

// Server is one server of the event log.
type Server struct {
	Name, Client, Route, Monitor string
	// Store is the folder of its streams.
	Store   string
	conf    string
	process *child.Process
}

// Cluster is a running one.
type Cluster struct {
	Servers   []*Server
	Instances []*Instance

	cfg     Config
	ca      *devca.CA
	seeds   map[string]string // files, by service; "" the provisioner's
	ports   []net.Listener    // held until they are used
	signing map[string]string // files
	links   map[between]*link // none without Links
}

// dashboard is the service without events of its own.
const dashboard = natsd.Reader

// Services are all services, in the order in which they are started.
func Services() []string { return append(procedure.Owners(), dashboard) }

// sizes are small, because three servers share one disk.
const (
	storeBytes = 4 << 30
	maxBytes   = 256 << 20
	smallBytes = 32 << 20
)

// Start starts everything and founds the rule book if the log is empty. Stop it, also after an error.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if cfg.Instances == 0 {
		cfg.Instances = 2
	}
	if cfg.Say == nil {
		cfg.Say = func(string, ...any) {}
	}
	c := &Cluster{cfg: cfg, seeds: map[string]string{}, signing: map[string]string{}}
	for _, step := range []func(context.Context) error{c.identities, c.addresses, c.configure, c.startServers, c.Provision, c.startServices} {
		if err := step(ctx); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *Cluster) path(parts ...string) string {
	return filepath.Join(append([]string{c.cfg.Dir}, parts...)...)
}

// Keyring is the file of the services' public keys.
func (c *Cluster) Keyring() string { return c.path("services.keys.json") }

// identities makes or finds the certificates and keys of everybody, and the users of the event log.
func (c *Cluster) identities(context.Context) error {
	if err := os.MkdirAll(c.path("nats"), 0o700); err != nil {
		return fmt.Errorf("folder of the cluster: %w", err)
	}
	var err error
	if c.ca, err = devca.Open(c.path("ca"), time.Now); err != nil {
		return err
	}
	keys, err := demobook.Keys(c.ca, c.cfg.Dir, Services()...)
	if err != nil {
		return err
	}
	var listed []history.Key
	for _, o := range procedure.Owners() {
		key, file, err := c.ca.SigningKey(o)
		if err != nil {
			return err
		}
		c.signing[o] = file
		listed = append(listed, history.Key{Owner: o, Public: key.Public().(ed25519.PublicKey)})
	}
	ring, err := history.NewKeyring(listed...)
	if err != nil {
		return err
	}
	if err := ring.Save(c.Keyring()); err != nil {
		return err
	}
	link := c.path("link.key")
	if _, err := os.Stat(link); errors.Is(err, os.ErrNotExist) {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails (crypto/rand)
		if err := os.WriteFile(link, key, 0o600); err != nil {
			return fmt.Errorf("key of the links: %w", err)
		}
	}
	since := c.cfg.Founded
	if since.IsZero() {
		since = time.Now()
	}
	founding, err := demobook.Founding(keys, since)
	if err != nil {
		return err
	}
	return app.WriteEstablish(c.path("rulebook.json"), founding)
}

// hold takes a free port and keeps it until release.
func (c *Cluster) hold(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	c.ports = append(c.ports, l)
	return l.Addr().String(), nil
}

func (c *Cluster) release() {
	for _, l := range c.ports {
		_ = l.Close() // nothing was served on it
	}
	c.ports = nil
}

// addresses gives everybody a place.
func (c *Cluster) addresses(ctx context.Context) error {
	var errs []error
	hold := func() string {
		addr, err := c.hold(ctx)
		errs = append(errs, err)
		return strings.Replace(addr, "127.0.0.1", "localhost", 1)
	}
	for i := range 3 {
		name := fmt.Sprintf("nats-%d", i+1)
		c.Servers = append(c.Servers, &Server{
			Name: name, Client: hold(), Route: hold(), Monitor: hold(), Store: c.path("nats", name), conf: c.path("nats", name+".conf"),
		})
	}
	for _, s := range Services() {
		for n := range c.cfg.Instances {
			i := &Instance{Service: s, Number: n + 1, API: hold(), HTTP: hold()}
			if s == dashboard || s == procedure.OwnerNotification {
				i.HTTPS = hold()
			}
			c.Instances = append(c.Instances, i)
		}
	}
	if c.cfg.Links {
		errs = append(errs, c.lay(ctx))
	}
	return errors.Join(errs...)
}

// nowhere is an address on which nothing listens.
const nowhere = "localhost:1"

// configure writes the servers' configurations.
func (c *Cluster) configure(context.Context) error {
	users := map[string]string{}
	for _, s := range append(natsd.Services(), "") {
		name := s
		if name == "" {
			name = "provisioner"
		}
		c.seeds[s] = c.path("nats", name+".seed")
		key, err := app.NATSUser(c.seeds[s])
		if err != nil {
			return err
		}
		users[s] = key
	}
	provisioner := users[""]
	delete(users, "")
	accounts, err := natsd.Accounts(provisioner, users)
	if err != nil {
		return err
	}
	for _, s := range c.Servers {
		var routes []string
		advertise := ""
		for _, o := range c.Servers {
			if l := c.links[between{s.Name, o.Name}]; l != nil {
				routes, advertise = append(routes, l.address()), nowhere
			} else if !c.cfg.Links {
				routes = append(routes, o.Route)
			}
		}
		dir, err := c.ca.Service(s.Name)
		if err != nil {
			return err
		}
		text, err := natsd.ServerConf{
			Name: s.Name, Cluster: "epatch", Listen: s.Client, Route: s.Route, Routes: routes, Advertise: advertise, Monitor: s.Monitor, Store: s.Store, StoreBytes: storeBytes, Accounts: accounts,
			Cert: filepath.Join(dir, identity.CertFile), Key: filepath.Join(dir, identity.KeyFile), CA: filepath.Join(dir, identity.CAFile),
		}.Conf()
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.conf, []byte(text), 0o600); err != nil {
			return fmt.Errorf("configuration of %s: %w", s.Name, err)
		}
	}
	return nil
}

func (c *Cluster) startServers(ctx context.Context) error {
	c.release()
	for _, s := range c.Servers {
		if err := c.StartServer(ctx, s); err != nil {
			return err
		}
	}
	c.cfg.Say("three servers of the event log run: %s", strings.Join(c.nats(anybody), " "))
	return nil
}

// StartServer starts a server of the event log that does not run.
func (c *Cluster) StartServer(ctx context.Context, s *Server) error {
	if _, err := natsd.ExamineStore(s.Store); err != nil {
		return fmt.Errorf("%s does not start: %w", s.Name, err)
	}
	p, _, err := child.Start(ctx, child.Spec{Name: s.Name, Logs: c.path("logs"), Program: c.cfg.NATS.Path, Env: c.cfg.NATS.Env, Args: []string{"--config", s.conf}})
	s.process = p
	return err
}

// Log is the event log as the provisioner sees it, for tests and measuring. Close its connection.
func (c *Cluster) Log() (jetstream.JetStream, error) { return c.LogAs("") }

// LogAs is the event log as a service sees it, by the service's own user and certificate. Close its connection.
func (c *Cluster) LogAs(service string) (jetstream.JetStream, error) {
	id, err := identity.Load(c.path("services", cmp.Or(service, procedure.OwnerIncident)), identity.LoadOptions{Now: time.Now(), Dev: true})
	if err != nil {
		return nil, err
	}
	return natsd.Dial(natsd.Remote{Servers: c.nats(anybody), Service: service, Seed: c.seeds[service], Identity: id.Current, Logger: slog.New(slog.DiscardHandler)})
}

// Signer signs records as a service does.
func (c *Cluster) Signer(service string) (history.Signer, error) {
	key, err := identity.LoadSigningKey(c.signing[service], true)
	if err != nil {
		return history.Signer{}, err
	}
	return history.NewSigner(key)
}

// AwaitHealthy waits until every stream has a leader and all its copies are current.
func (c *Cluster) AwaitHealthy(ctx context.Context) error {
	for {
		behind, err := c.behind(ctx)
		if err == nil && behind == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the event log is not whole again (%s): %w", behind, errors.Join(err, ctx.Err()))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// behind names a stream that is not whole.
func (c *Cluster) behind(ctx context.Context) (string, error) {
	js, err := c.Log()
	if err != nil {
		return "no connection", err
	}
	defer js.Conn().Close()
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	list, seen := js.ListStreams(limited), 0
	for info := range list.Info() {
		seen++
		if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != len(c.Servers)-1 {
			return info.Config.Name, nil
		}
		for _, r := range info.Cluster.Replicas {
			if !r.Current || r.Offline {
				return info.Config.Name + " on " + r.Name, nil
			}
		}
	}
	if seen == 0 {
		return "no stream", list.Err()
	}
	return "", list.Err()
}

// nats are the servers' addresses, for an instance or anybody.
func (c *Cluster) nats(client string) (urls []string) {
	for _, s := range c.Servers {
		address := s.Client
		if l := c.links[between{client, s.Name}]; l != nil {
			address = l.address()
		}
		urls = append(urls, "tls://"+address)
	}
	return urls
}

// patience is how long a busy machine may take until three servers have a leader for each stream.
const patience = 2 * time.Minute

// Provision creates the streams, and founds the rule book if that was never done.
func (c *Cluster) Provision(ctx context.Context) error {
	err := app.Provision(ctx, app.Cluster{NATS: c.nats(anybody), Seed: c.seeds[""], Identity: c.path("services", procedure.OwnerIncident)}, natsd.Profile{
		Replicas: 3, MaxBytes: maxBytes, ArtefactBytes: maxBytes, BucketBytes: smallBytes,
	}, patience)
	if err != nil {
		return err
	}
	founded := c.path("founded")
	if _, err := os.Stat(founded); err == nil {
		return nil
	}
	args := append([]string{"establish", c.path("rulebook.json"), "--data", c.path("founding")}, c.settings(procedure.OwnerArbitration, anybody)...)
	p, _, err := child.Start(ctx, child.Spec{Name: "epatchd establish", Logs: c.path("logs"), Program: c.cfg.Epatchd.Path, Env: c.cfg.Epatchd.Env, Args: args, Ready: "the rule book has "})
	if err != nil {
		return err
	}
	<-p.Done()
	return os.WriteFile(founded, nil, 0o600)
}

// LogSettings are those by which a command reaches the event log as a service, or as the provisioner if that is empty.
func (c *Cluster) LogSettings(service string) []string { return c.logSettings(service, anybody) }

func (c *Cluster) logSettings(service, client string) []string {
	return []string{
		"--nats", strings.Join(c.nats(client), ","), "--nats-seed", c.seeds[service], "--identity", c.path("services", cmp.Or(service, procedure.OwnerIncident)), "--keyring", c.Keyring(),
	}
}

// settings are those of a service, for an instance or anybody who acts as it.
func (c *Cluster) settings(service, client string) []string {
	args := append(c.logSettings(service, client), "--nats-synced", "--demo-people", c.path("people"))
	if service != dashboard {
		args = append(args, "--signing-key", c.signing[service])
	}
	return args
}

func (c *Cluster) startServices(ctx context.Context) error {
	group, starting := errgroup.WithContext(ctx)
	for _, i := range c.Instances {
		group.Go(func() error { return c.StartInstance(starting, i) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	c.cfg.Say("%d processes of %d services run", len(c.Instances), len(Services()))
	return c.duties(ctx)
}

// StartInstance starts an instance that does not run, and waits until it serves.
func (c *Cluster) StartInstance(ctx context.Context, i *Instance) error {
	name := i.Name()
	args := append([]string{i.Service, "--data", c.path("state", name), "--listen", i.API, "--http", i.HTTP}, c.settings(i.Service, name)...)
	if i.HTTPS != "" {
		args = append(args, "--https", i.HTTPS)
	}
	switch i.Service {
	case procedure.OwnerNotification:
		args = append(args, "--link-key", c.path("link.key"))
	case procedure.OwnerReview, procedure.OwnerDeployment:
		args = append(args, "--repository", c.cfg.Repository)
	}
	for _, s := range Services() {
		args = append(args, "--peer", s+"="+strings.Join(c.Of(s), ";"))
	}
	args = append(args, c.cfg.More[i.Service]...)
	env := c.cfg.Epatchd.Env
	if c.cfg.Environ != nil {
		env = slices.Concat(env, c.cfg.Environ(i))
	}
	p, _, err := child.Start(ctx, child.Spec{Name: name, Logs: c.path("logs"), Program: c.cfg.Epatchd.Path, Env: env, Args: args, Ready: "ready "})
	i.process = p
	return err
}

// Of are the addresses of a service's instances.
func (c *Cluster) Of(service string) (addrs []string) {
	for _, i := range c.Instances {
		if i.Service == service {
			addrs = append(addrs, i.API)
		}
	}
	return addrs
}

// Client is a person's own client.
func (c *Cluster) Client(person string) (*client.Client, error) {
	return c.ClientWith(person, patience)
}

// ClientWith is a person's own client with a patience of its own.
func (c *Cluster) ClientWith(person string, patience time.Duration) (*client.Client, error) {
	cfg := client.Config{Servers: map[string]string{}, Profile: c.path("people", person), Keyring: c.Keyring(), Patience: patience}
	for _, s := range Services() {
		cfg.Servers[s] = strings.Join(c.Of(s), ",")
	}
	cfg.Server = cfg.Servers[dashboard]
	return client.Dial(cfg)
}

// duties puts everybody on duty, by their own commands; those given before are recognised.
func (c *Cluster) duties(ctx context.Context) error {
	done := c.path("on-duty")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	for _, g := range demobook.Duties(time.Now()) {
		p, err := c.Client(g.Person)
		if err != nil {
			return err
		}
		_, err = p.Send(ctx, g.Command)
		if err := errors.Join(err, p.Close()); err != nil {
			return fmt.Errorf("put %s on duty: %w", g.Person, err)
		}
	}
	return os.WriteFile(done, nil, 0o600)
}

// Name is unique, such as review-1.
func (i *Instance) Name() string { return fmt.Sprintf("%s-%d", i.Service, i.Number) }

// Process is an instance's.
func (i *Instance) Process() *child.Process { return i.process }

// Process is a server's.
func (s *Server) Process() *child.Process { return s.process }

// Stop ends everything in order, services first.
func (c *Cluster) Stop() error {
	c.release()
	var all []*child.Process
	for _, i := range c.Instances {
		all = append(all, i.process)
	}
	errs := []error{stop(all)}
	all = nil
	for _, s := range c.Servers {
		all = append(all, s.process)
	}
	errs = append(errs, stop(all))
	for _, l := range c.links {
		l.close()
	}
	return errors.Join(errs...)
}

// stop ends processes, all at the same time.
func stop(all []*child.Process) error {
	var group errgroup.Group
	for _, p := range slices.DeleteFunc(all, func(p *child.Process) bool { return p == nil }) {
		group.Go(p.Stop)
	}
	return group.Wait()
}
