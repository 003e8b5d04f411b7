// SPDX-License-Identifier: Apache-2.0

package rpc_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

// siblings are two instances of a service; what the front is asked it hands on to the back.
type siblings struct {
	*bench
	front *bench
	conn  *grpc.ClientConn // ada's, to the front, by an address
	back  *query
}

func startSiblings(t *testing.T, back *query) *siblings {
	t.Helper()
	b := start(t, back, func(cfg *rpc.ServerConfig) {
		own := cfg.Identity().KeyID
		cfg.Sibling = func(c identity.Caller) bool { return c.KeyID == own }
	})
	s := &siblings{bench: b, back: back}
	ca, err := devca.Open(b.dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	self := profile(t, ca.Service, "dashboard")
	onward, err := rpc.Dial(rpc.LocalAddr, rpc.ClientConfig{Dialer: b.dialer, Identity: self.Current, Once: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = onward.Close() })
	s.front = start(t, &query{whoAmI: func(ctx context.Context, _ int) error {
		ctx, err := rpc.HandOn(ctx)
		if err != nil {
			return err
		}
		_, err = dashboardv1.NewQueryServiceClient(onward).WhoAmI(ctx, &dashboardv1.WhoAmIRequest{})
		return err
	}}, func(cfg *rpc.ServerConfig) { cfg.Identity = self.Current })
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.front.server.Serve(lis) }() // ends with the server
	if s.conn, err = rpc.Dial(lis.Addr().String(), rpc.ClientConfig{Identity: b.ada().Current}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close() })
	return s
}

// What is handed on arrives as its caller's, from the caller's address and with the caller's deadline; what is answered arrives whole, and
// once more it is not handed on.
func TestHandOn(t *testing.T) {
	t.Parallel()
	type seen struct {
		caller  identity.Caller
		address string
		left    time.Duration
		onward  bool
		again   error
	}
	got := make(chan seen, 1)
	s := startSiblings(t, &query{whoAmI: func(ctx context.Context, n int) error {
		c, _ := identity.FromContext(ctx)
		end, _ := ctx.Deadline()
		_, again := rpc.HandOn(ctx)
		got <- seen{c, rpc.AddressOf(ctx), time.Until(end), rpc.HandedOn(ctx), again}
		if n > 1 {
			return &procedure.Refusal{Code: procedure.FailedPrecondition, Reason: procedure.ReasonGrantState, Rule: "4.4", Message: "no", Allow: []procedure.Allowance{{Description: "yes"}}}
		}
		return nil
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := dashboardv1.NewQueryServiceClient(s.conn).WhoAmI(ctx, &dashboardv1.WhoAmIRequest{}); err != nil {
		t.Fatal(err)
	}
	x := <-got
	if x.caller.KeyID != s.ada().KeyID || x.address != "127.0.0.1" || !x.onward || x.again == nil || x.left <= 0 || x.left > 20*time.Second {
		t.Errorf("arrived: %+v", x)
	}
	_, err := who(s.conn)
	wantRefusal(t, err, procedure.FailedPrecondition, procedure.ReasonGrantState)
	if n := s.back.calls.Load(); n != 2 {
		t.Errorf("a refused call was handed on %d times", n-1)
	}
}

// A caller who gives up ends the call that was handed on.
func TestHandOnGivenUp(t *testing.T) {
	t.Parallel()
	began, ended := make(chan struct{}), make(chan error, 1)
	s := startSiblings(t, &query{whoAmI: func(ctx context.Context, _ int) error {
		close(began)
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	_, err := dashboardv1.NewQueryServiceClient(s.conn).WhoAmI(ctx, &dashboardv1.WhoAmIRequest{})
	if status.Code(err) != codes.Canceled {
		t.Errorf("answered %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

// Nobody but the service itself may say that a call is somebody else's: not a person, not an agent, not another service, nobody without a
// certificate; on no method, also those that anybody may call; and not where there are no other instances. The handler is not reached.
func TestHandOnRefused(t *testing.T) {
	t.Parallel()
	watch := func(context.Context, grpc.ServerStream) error { return nil }
	b := start(t, &query{watch: watch}, func(cfg *rpc.ServerConfig) {
		own := cfg.Identity().KeyID
		cfg.Sibling = func(c identity.Caller) bool { return c.KeyID == own }
	})
	alone := start(t, &query{watch: watch}, nil)
	victim := b.ada().KeyID
	headers := map[string]metadata.MD{
		"both":         metadata.Pairs("epatch-handed-on-caller", victim, "epatch-handed-on-address", "192.0.2.1"),
		"caller alone": metadata.Pairs("epatch-handed-on-caller", victim),
		"address":      metadata.Pairs("epatch-handed-on-address", "192.0.2.1"),
		"empty":        metadata.Pairs("epatch-handed-on-caller", "", "epatch-handed-on-address", ""),
		"two callers":  metadata.Pairs("epatch-handed-on-caller", victim, "epatch-handed-on-caller", victim, "epatch-handed-on-address", "192.0.2.1"),
		"no key":       metadata.Pairs("epatch-handed-on-caller", "carla", "epatch-handed-on-address", "192.0.2.1"),
		"no address":   metadata.Pairs("epatch-handed-on-caller", victim, "epatch-handed-on-address", "here"),
	}
	calls := map[string]func(context.Context, *grpc.ClientConn) error{
		"unary": func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := dashboardv1.NewQueryServiceClient(c).WhoAmI(ctx, &dashboardv1.WhoAmIRequest{})
			return err
		},
		"anonymous": func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := dashboardv1.NewQueryServiceClient(c).ReadLog(ctx, &dashboardv1.ReadLogRequest{})
			return err
		},
		"stream": func(ctx context.Context, c *grpc.ClientConn) error {
			s, err := dashboardv1.NewQueryServiceClient(c).WatchIncident(ctx, &dashboardv1.WatchIncidentRequest{})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"health": func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := healthv1.NewHealthClient(c).Check(ctx, &healthv1.HealthCheckRequest{})
			return err
		},
	}
	refuses := func(b *bench, who string, p *identity.Profile, kinds ...string) {
		t.Helper()
		conn := b.dial(p)
		for _, kind := range kinds {
			for name, call := range calls {
				err := call(metadata.NewOutgoingContext(t.Context(), headers[kind]), conn)
				r, ok := rpc.RefusalOf(err)
				if !ok || r.Code != procedure.PermissionDenied || r.Reason != rpc.ReasonCallerClass {
					t.Errorf("%s, headers %s, %s: %v", who, kind, name, err)
				}
			}
		}
	}
	own := profile(t, b.ca.Service, "dashboard")
	for who, p := range map[string]*identity.Profile{
		"a person": b.ada(), "an agent": profile(t, b.ca.System, "critical-1"), "another service": profile(t, b.ca.Service, "review"), "nobody": nil,
	} {
		refuses(b, who, p, "both", "caller alone", "address", "empty")
	}
	refuses(b, "the service", own, "caller alone", "address", "empty", "two callers", "no key", "no address")
	refuses(alone, "the service, where there is one instance", profile(t, alone.ca.Service, "dashboard"), "both")
	if n := b.query.calls.Load() + alone.query.calls.Load(); n != 0 {
		t.Errorf("%d calls reached a handler", n)
	}
	if err := calls["unary"](metadata.NewOutgoingContext(t.Context(), headers["both"]), b.dial(own)); err != nil {
		t.Errorf("the service itself: %v", err)
	}
}
