// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/rpc/command"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/pkg/telemetry"
	"cacert.org/emergency/pkg/version"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	restrictedv1 "cacert.org/emergency/proto/emergency/restricted/v1"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/cli"
	"cacert.org/emergency/services/dashboard"
	"cacert.org/emergency/services/dashboard/pages"
	"cacert.org/emergency/services/notification"
	"cacert.org/emergency/services/notification/channel"
	"cacert.org/emergency/services/notification/filebox"
	"cacert.org/emergency/services/notification/irc"
	"cacert.org/emergency/services/notification/mail"
	"cacert.org/emergency/services/notification/webhook"
)

// onlyServices are the methods that one service calls on another and nobody else may (hardening.md 1.6).
func onlyServices() []string {
	return []string{
		deploymentv1.AgentService_RunJob_FullMethodName, deploymentv1.ConsoleService_ReadInstance_FullMethodName, "/emergency.restricted.v1.RestrictedService/Reveal", "/emergency.restricted.v1.RestrictedService/Erase",
		reviewv1.ReviewReaderService_ComputePatch_FullMethodName,
	}
}

// Run serves until ctx ends. ready is called with the addresses once everything answers.
func (n *Node) Run(ctx context.Context, ready func(Addresses)) error {
	server, err := n.grpcServer()
	if err != nil {
		return err
	}
	listeners, addrs, err := n.listen(ctx)
	if err != nil {
		return err
	}
	pages, err := n.traced(n.handler())
	if err != nil {
		return err
	}
	if err := n.observe(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.reader.Run(ctx) })
	group.Go(func() error { return n.pulse.Run(ctx) })
	group.Go(func() error { return server.Run(ctx, listeners.api) })
	if n.local != nil {
		group.Go(func() error { return server.Run(ctx, n.local) })
	}
	hangUp := func() {}
	if n.dashboard != nil {
		hangUp = n.dashboard.HangUp
	}
	if listeners.web != nil {
		// Without limits for each address: everybody comes from this machine, where only a proxy knows who they are.
		group.Go(func() error {
			return serveHTTP(ctx, rpc.Capped(listeners.web, n.set.MaxConnections, 0), nil, pages, hangUp)
		})
	}
	if listeners.web2 != nil {
		group.Go(func() error {
			lis := rpc.Capped(listeners.web2, n.set.MaxConnections, n.set.MaxPerAddress)
			return serveHTTP(ctx, lis, identity.ServerTLS(n.identity, "h2", "http/1.1"), n.limited(pages), hangUp)
		})
	}
	group.Go(func() error { return n.guard(ctx) })
	group.Go(func() error { return n.remember(ctx) })
	if n.nats != nil {
		group.Go(func() error { return n.watchStore(ctx) })
	}
	group.Go(func() error { return n.watchIdentity(ctx) })
	group.Go(func() error { return n.watchBook(ctx) })
	if n.database != nil {
		for _, k := range n.database.keepers {
			group.Go(func() error { return n.keep(ctx, k) })
		}
	}
	for _, s := range n.services {
		group.Go(func() error { return s.Run(ctx) })
	}
	if ready != nil {
		ready(addrs)
	}
	return group.Wait()
}

// Addresses are where a node listens.
type Addresses struct{ API, HTTP, HTTPS string }

type listeners struct{ api, web, web2 net.Listener }

func (n *Node) listen(ctx context.Context) (listeners, Addresses, error) {
	var l listeners
	var a Addresses
	var lc net.ListenConfig
	for _, x := range []struct {
		setting, addr string
		to            *net.Listener
		out           *string
	}{{"listen", n.set.Listen, &l.api, &a.API}, {"http", n.set.HTTP, &l.web, &a.HTTP}, {"https", n.set.HTTPS, &l.web2, &a.HTTPS}} {
		if x.addr == "" {
			continue // not served
		}
		lis, err := lc.Listen(ctx, "tcp", x.addr)
		if err != nil {
			for _, open := range []net.Listener{l.api, l.web} {
				if open != nil {
					_ = open.Close() // nothing was served on it yet
				}
			}
			return l, a, fmt.Errorf("setting %s: %w", x.setting, err)
		}
		*x.to, *x.out = lis, lis.Addr().String()
	}
	return l, a, nil
}

func (n *Node) grpcServer() (*rpc.Server, error) {
	server, err := rpc.NewServer(rpc.ServerConfig{
		Identity: n.identity, Authorize: n.authorize, Sibling: n.sibling, Standing: n.standing, Anonymous: []string{dashboard.LogMethod}, Logger: n.log, Now: n.set.Clock.Now,
		Limiter: n.limiter, MaxConnections: n.set.MaxConnections, MaxPerAddress: n.set.MaxPerAddress, Tracer: n.tel.Tracer, Meter: n.tel.Meter,
	})
	if err != nil {
		return nil, err
	}
	var state func(context.Context, string) (*procedure.State, error)
	for _, s := range n.services {
		s.Register(server)
		state = s.State
	}
	if n.dashboard != nil {
		n.dashboard.Register(server)
	}
	if state != nil {
		restrictedv1.RegisterRestrictedServiceServer(server, &service.Restricted{Vaults: n.vaults, State: state, Log: n.log})
	}
	return server, nil
}

// authorize lets the listed methods to services alone, and nothing but commands to a key that is revoked: of those the rules say no, and
// record it. Who may give a command is for the rules.
func (n *Node) authorize(_ context.Context, method string, c identity.Caller) error {
	if isCommand(method) {
		return nil
	}
	if err := n.mayGoOn(c); err != nil {
		return err
	}
	actor, _ := procedure.Recognise(n.incidents.Book(), c.KeyID, n.set.Clock.Now())
	if !slices.Contains(onlyServices(), method) || actor.GetSystem() == emergencyv1.SystemKind_SYSTEM_KIND_SERVICE {
		return nil
	}
	return &procedure.Refusal{
		Code: procedure.PermissionDenied, Reason: rpc.ReasonCallerClass, Rule: "hardening 1.6", Message: "this method is for the services among each other",
		Allow: []procedure.Allowance{{Description: "call it with a key that the rule book lists as a service's"}},
	}
}

// isCommand tells whether a method takes a command.
func isCommand(method string) bool { return commandMethods()[method] }

// commandMethods are the methods that take one, by their full names.
var commandMethods = sync.OnceValue(func() map[string]bool {
	all := map[string]bool{}
	for _, c := range procedure.Commands() {
		if m, err := command.Method(c.New()); err == nil { // the others are given by no method
			all[fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())] = true
		}
	}
	return all
})

// guardEvery is how often the log is looked at for what must never happen to it.
const guardEvery = time.Minute

// guard ends the process when the log was changed so that it could forget, or went back (hardening.md 4).
func (n *Node) guard(ctx context.Context) error {
	g := n.memory.Guard(n.js, n.expect)
	for {
		alarm, stop := n.set.Clock.Alarm(n.set.Clock.Now().Add(guardEvery))
		select {
		case <-ctx.Done():
			stop()
			return nil
		case <-alarm:
		}
		err := g.Look(ctx)
		var check *natsd.CheckError
		switch {
		case errors.As(err, &check):
			return fmt.Errorf("the log cannot be trusted any more; no command is taken: %w", err)
		case err != nil && ctx.Err() == nil:
			n.log.WarnContext(ctx, "the log could not be looked at", "error", err)
		}
	}
}

// storeEvery is how soon a failed write of the embedded log is noticed.
const storeEvery = time.Second

// watchStore ends the process after a failed write or sync of the embedded log: what the disk has is not known any more, and a start reads
// and proves it (hardening.md 2).
func (n *Node) watchStore(ctx context.Context) error {
	for {
		alarm, stop := n.set.Clock.Alarm(n.set.Clock.Now().Add(storeEvery))
		select {
		case <-ctx.Done():
			stop()
			return nil
		case <-alarm:
		}
		if err := n.nats.Ready(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("the event log takes no more writes, and the process stops, since only a start proves what is on the disk (hardening 2): %w", err)
		}
	}
}

// ready tells why this process cannot take commands.
func (n *Node) ready() error {
	if n.nats != nil {
		return n.nats.Ready(context.Background())
	}
	if !n.js.Conn().IsConnected() {
		return errors.New("not connected to the event log")
	}
	return nil
}

// rememberEvery is how much of what was read a process may forget when it is killed.
const rememberEvery = 10 * time.Second

// remember keeps how far the log was read, so that the next run notices a log that went back meanwhile.
func (n *Node) remember(ctx context.Context) error {
	for {
		alarm, stop := n.set.Clock.Alarm(n.set.Clock.Now().Add(rememberEvery))
		select {
		case <-ctx.Done():
		case <-alarm:
		}
		stop()
		if err := n.memory.Keep(n.reader.Mark()); err != nil {
			n.log.WarnContext(ctx, "the next start would not notice it if what came last were gone from the log", "error", err)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (n *Node) dashboardConfig() dashboard.Config {
	cfg := dashboard.Config{
		PublicURL: n.set.PublicURL,
		Clock:     n.set.Clock, Log: n.log, Store: n.store, Keys: n.keys, Incidents: n.incidents, Peers: n.peers,
		Metrics: n.tel.Handler(), Typed: cli.Typed, Process: n.process, Pulse: n.pulse,
	}
	if n.nats != nil { // pages alone are of use while a log elsewhere is away: they show what was known last
		cfg.Ready = n.ready
	}
	if n.set.Service == "" || n.set.Cluster.DemoPeople != "" {
		cfg.Development, cfg.DemoSigner = true, n.demoSigner
	}
	return cfg
}

// measureReader shows operators how far the projections of this process have come.
func (n *Node) measureReader(unread uint64) {
	for _, x := range n.reader.Projections() {
		n.tel.Metrics.Projection(context.Background(), x.Name(), n.reader.Mark().Sequence)
		n.tel.Metrics.Behind(context.Background(), x.Name(), unread)
	}
}

// process is what this process knows about itself, for the page that shows it.
func (n *Node) process(ctx context.Context) pages.Process {
	p := pages.Process{Version: version.Number(), Waiting: map[string]int{}, Trouble: map[string][]effect.Trouble{}, Services: map[string]string{}}
	for name, s := range n.services {
		p.Waiting[name], p.Trouble[name] = s.Waiting(), s.Trouble()
	}
	if n.database != nil {
		for _, k := range n.database.keepers {
			p.Kept = append(p.Kept, k.Status())
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for name, peer := range n.peers {
		p.Services[name] = health(ctx, peer)
	}
	info, ahead, err := n.stream(ctx)
	if err != nil {
		p.StoreAway = err.Error()
		return p
	}
	p.Stored, p.Stream, p.Ahead = info.State.LastSeq, streamOf(info), ahead
	return p
}

// stream asks the event log how the histories' stream is, and tells how far this process's clock is ahead of the log's.
func (n *Node) stream(ctx context.Context) (_ *jetstream.StreamInfo, ahead time.Duration, _ error) {
	asked := n.set.Clock.Now()
	s, err := n.js.Stream(ctx, natsd.Stream)
	if err != nil {
		return nil, 0, err
	}
	answered := n.set.Clock.Now()
	return s.CachedInfo(), asked.Add(answered.Sub(asked) / 2).Sub(s.CachedInfo().TimeStamp), nil
}

// health tells why a service does not serve; empty if it does.
func health(ctx context.Context, peer grpc.ClientConnInterface) string {
	answer, err := healthv1.NewHealthClient(peer).Check(ctx, &healthv1.HealthCheckRequest{})
	switch {
	case err != nil:
		return status.Convert(err).Message()
	case answer.GetStatus() != healthv1.HealthCheckResponse_SERVING:
		return answer.GetStatus().String()
	}
	return ""
}

func streamOf(info *jetstream.StreamInfo) *pages.Stream {
	x := &pages.Stream{
		Name: info.Config.Name, Messages: info.State.Msgs, Bytes: info.State.Bytes, First: info.State.FirstSeq, LastAt: info.State.LastTime, Copies: max(1, info.Config.Replicas),
	}
	if info.Cluster != nil {
		x.Leader = info.Cluster.Leader
		for _, r := range info.Cluster.Replicas {
			if !r.Current || r.Offline {
				x.Behind = append(x.Behind, r.Name)
			}
		}
	}
	return x
}

// handler serves the pages, and the page that a link in a call leads to; in a process without pages what operators ask for.
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	if n.notification != nil {
		mux.Handle("/r/", http.StripPrefix("/r", n.notification.Answer()))
	}
	if n.dashboard != nil {
		mux.Handle("/", n.dashboard.Handler())
		return mux
	}
	mux.Handle("GET /metrics", n.tel.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { // Run begins when the histories are read
		if err := n.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	return mux
}

// takeWithin is how long a browser may take to receive a piece of an answer, by the machine's clock, as connections are.
const takeWithin = 30 * time.Second

// serveHTTP serves until ctx ends; then hangUp ends the connections that never end by themselves. secure is nil for no TLS.
func serveHTTP(ctx context.Context, lis net.Listener, secure *tls.Config, h http.Handler, hangUp func()) error {
	if secure != nil {
		lis = tls.NewListener(lis, secure)
	}
	srv := &http.Server{Handler: paced(h, takeWithin), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10}
	srv.RegisterOnShutdown(hangUp)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve pages: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		return errors.Join(err, srv.Close())
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve pages: %w", err)
	}
	return nil
}

// channels are the configured ways to reach people. What is not configured goes to a folder, so that the demo shows it.
func (n *Node) channels() ([]channel.Channel, error) {
	if n.set.Channels != nil {
		return n.set.Channels, nil
	}
	clock := notification.ChannelClock{Clock: n.set.Clock}
	var list []channel.Channel
	add := func(configured bool, name string, open func() (channel.Channel, error)) error {
		if !configured {
			open = func() (channel.Channel, error) { return filebox.New(name, n.set.path("outbox", name)) }
		}
		c, err := open()
		if err != nil {
			return fmt.Errorf("channel %s: %w", name, err)
		}
		list = append(list, c)
		return nil
	}
	err := errors.Join(
		add(n.set.Mail.Server != "", "mail", func() (channel.Channel, error) { return mail.New(n.set.Mail, clock) }),
		add(n.set.SMS.URL != "", "sms", func() (channel.Channel, error) { return webhook.New(n.set.SMS, clock) }),
	)
	if err != nil || n.set.IRC.Server == "" {
		return list, err
	}
	c, err := irc.New(n.set.IRC, clock, n.log)
	if err != nil {
		return nil, fmt.Errorf("channel irc: %w", err)
	}
	return append(list, c), nil
}

// meter counts commands and effects by outcome.
type meter struct{ m *telemetry.Metrics }

var (
	_ dispatch.Meter = meter{}
	_ effect.Meter   = meter{}
)

// Command counts one command.
func (m meter) Command(ctx context.Context, _, command, outcome string, took time.Duration) {
	o := map[string]telemetry.Outcome{
		"accepted": telemetry.Accepted, "repeated": telemetry.Repeated, "refused": telemetry.Refused, "conflict": telemetry.Conflict,
	}[outcome]
	if o == "" {
		o = telemetry.Unavailable
	}
	m.m.Command(ctx, command, o)
	if o == telemetry.Accepted {
		m.m.Append(ctx, took)
	}
}

// Effect counts one effect.
func (m meter) Effect(ctx context.Context, owner, outcome string) {
	o := telemetry.Outcome(strings.ToLower(outcome))
	m.m.Effect(ctx, owner, o)
}
