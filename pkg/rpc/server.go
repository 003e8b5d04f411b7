// SPDX-License-Identifier: Apache-2.0

// Package rpc builds gRPC servers and clients that all behave the same.
//
// A server speaks TLS 1.3 only and knows its callers by client certificate. A call without one is refused with
// UNAUTHENTICATED/NO_IDENTITY, except to the methods that the application names and to health and reflection, which
// anybody who completes TLS may call. Unary calls need a deadline. Which kind of caller may call a method is decided by
// the application's Authorize; who may give a command is decided by the rules, never here.
//
// What a caller sees is a Refusal, whole, or UNAVAILABLE with a delay, or a reference under which the operator finds the
// rest in the log: no error text, file name or stack ever leaves a server. A panic ends the call and not the process.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"cacert.org/emergency/pkg/identity"
)

// Limits of every server (hardening.md 1.6, 3).
const (
	MaxReceive    = 1 << 20          // bytes of one message
	maxHeaders    = 16 << 10         // bytes of the headers of one call
	maxStreams    = 128              // calls at a time on one connection
	handshakeTime = 10 * time.Second // for TLS and the HTTP/2 preface
	maxUnary      = 60 * time.Second // however much later the caller's deadline is
	connectionAge = 30 * time.Minute // then the client connects again, and shows its certificate again
	pingAfter     = 20 * time.Second // of silence, by either side
	pingWait      = 10 * time.Second // for the answer, then the connection is dead
	stopTime      = 10 * time.Second // for calls that run when the server is stopped
)

// ServerConfig is what a server is built from.
type ServerConfig struct {
	// Identity returns the server's own profile; its roots are those by which clients are verified. Asked at each
	// handshake, so that a renewed certificate needs no restart. Required.
	Identity func() *identity.Profile
	// Authorize says whether this caller may call the method at all, by class of caller: an allow-list. It returns a
	// *procedure.Refusal, or an error as a handler would. It is not asked for anonymous methods, health and reflection.
	// Required.
	Authorize func(ctx context.Context, fullMethod string, c identity.Caller) error
	// Sibling tells whether a caller is another instance of the very service that is served, by its key. Such a caller alone may hand on a
	// call that somebody made there (HandOn): the handler then sees who made it. Optional; nobody may without it.
	Sibling func(c identity.Caller) bool
	// Anonymous lists full names of methods that anybody may call, with or without a client certificate, such as the
	// query for the public log.
	Anonymous []string
	// Limiter refuses calls of callers who make too many. Optional.
	Limiter *Limiter
	// Standing ends streams whose caller may not go on. Optional.
	Standing *Standing
	// MaxConnections is how many connections are open at a time; more wait. 0 is no bound.
	MaxConnections int
	// MaxPerAddress is how many of them may come from one address; more are closed at once. It needs MaxConnections. 0 is no bound.
	MaxPerAddress int
	// Logger gets one line a call. Required.
	Logger *slog.Logger
	// Now is the clock by which certificates of running connections end. Required.
	Now func() time.Time
	// Tracer and Meter observe calls. Optional.
	Tracer trace.TracerProvider
	Meter  metric.MeterProvider
}

// Server is a gRPC server with health and reflection.
type Server struct {
	*grpc.Server
	// Health says what works: SetServingStatus with the full name of a gRPC service, or "" for all.
	Health *health.Server

	maxConnections int
	maxPerAddress  int
	stop           context.CancelFunc
}

// NewServer builds a server. Register the services on it, then Run it.
func NewServer(cfg ServerConfig) (*Server, error) {
	for missing, is := range map[string]bool{
		"Identity": cfg.Identity == nil, "Authorize": cfg.Authorize == nil, "Logger": cfg.Logger == nil, "Now": cfg.Now == nil,
	} {
		if is {
			return nil, fmt.Errorf("grpc server: %s is needed", missing)
		}
	}
	stopping, stop := context.WithCancel(context.Background())
	g := newGuard(cfg, stopping)
	s := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(identity.ServerTLS(cfg.Identity, "h2"))),
		grpc.StatsHandler(otelgrpc.NewServerHandler(observe(cfg.Tracer, cfg.Meter)...)),
		grpc.ForceServerCodecV2(newPatientCodec()),
		grpc.UnaryInterceptor(g.unary), grpc.StreamInterceptor(g.stream),
		grpc.MaxRecvMsgSize(MaxReceive), grpc.MaxHeaderListSize(maxHeaders), grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingWait, MaxConnectionAge: connectionAge}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingAfter / 2, PermitWithoutStream: true}),
	)
	h := health.NewServer()
	healthv1.RegisterHealthServer(s, h)
	reflection.Register(s)
	return &Server{Server: s, Health: h, maxConnections: cfg.MaxConnections, maxPerAddress: cfg.MaxPerAddress, stop: stop}, nil
}

// Run serves until the context is done, then takes no more calls, ends the contexts of streams, gives what still runs ten
// seconds and ends. A stream's handler that waits for its client must therefore also watch its context. Run returns nil
// when it was stopped, and closes the listener.
func (s *Server) Run(ctx context.Context, lis net.Listener) error {
	lis = Capped(lis, s.maxConnections, s.maxPerAddress)
	failed := make(chan error, 1)
	defer s.stop()
	go func() { failed <- s.Serve(lis) }()
	select {
	case err := <-failed:
		if err == nil || errors.Is(err, grpc.ErrServerStopped) { // by another Run, on another listener
			return nil
		}
		return fmt.Errorf("serve %s: %w", lis.Addr(), err)
	case <-ctx.Done():
	}
	s.Health.Shutdown()
	s.stop()
	hard := time.AfterFunc(stopTime, s.Stop)
	s.GracefulStop()
	hard.Stop()
	if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", lis.Addr(), err)
	}
	return nil
}

func observe(t trace.TracerProvider, m metric.MeterProvider) []otelgrpc.Option {
	if t == nil {
		t = tracenoop.NewTracerProvider()
	}
	if m == nil {
		m = metricnoop.NewMeterProvider()
	}
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(t), otelgrpc.WithMeterProvider(m), otelgrpc.WithPropagators(propagation.TraceContext{}),
	}
}

// open tells whether a method is served to anybody who completes TLS: it tells nothing about incidents.
func open(fullMethod string) bool {
	return strings.HasPrefix(fullMethod, "/grpc.health.v1.Health/") || strings.HasPrefix(fullMethod, "/grpc.reflection.")
}
