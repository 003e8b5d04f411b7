// SPDX-License-Identifier: Apache-2.0

package rpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/telemetry"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const readLog = "/emergency.dashboard.v1.QueryService/ReadLog"

// query is a service whose answers a test chooses.
type query struct {
	dashboardv1.UnimplementedQueryServiceServer
	calls  atomic.Int32
	whoAmI func(ctx context.Context, n int) error
	watch  func(ctx context.Context, s grpc.ServerStream) error
}

func (q *query) WhoAmI(ctx context.Context, _ *dashboardv1.WhoAmIRequest) (*dashboardv1.WhoAmIResponse, error) {
	n := q.calls.Add(1)
	c, _ := identity.FromContext(ctx)
	if q.whoAmI != nil {
		if err := q.whoAmI(ctx, int(n)); err != nil {
			return nil, err
		}
	}
	return &dashboardv1.WhoAmIResponse{KeyId: c.KeyID}, nil
}

func (q *query) ReadLog(context.Context, *dashboardv1.ReadLogRequest) (*dashboardv1.ReadLogResponse, error) {
	q.calls.Add(1)
	return &dashboardv1.ReadLogResponse{}, nil
}

func (q *query) WatchIncident(_ *dashboardv1.WatchIncidentRequest, s grpc.ServerStreamingServer[dashboardv1.WatchIncidentResponse]) error {
	q.calls.Add(1)
	return q.watch(s.Context(), s)
}

// logs is a log that a test can read.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// bench is a running server and what is needed to call it.
type bench struct {
	ca     *devca.CA
	query  *query
	logs   *logs
	dialer func(context.Context, string) (net.Conn, error)
	stop   func() // ends the server and waits for it
	server *rpc.Server
	dir    string // of the authority
	t      testing.TB
}

func profile(t testing.TB, issue func(string) (string, error), name string) *identity.Profile {
	t.Helper()
	dir, err := issue(name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := identity.Load(dir, identity.LoadOptions{Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func start(t testing.TB, q *query, change func(*rpc.ServerConfig)) *bench {
	t.Helper()
	dir := t.TempDir()
	ca, err := devca.Open(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{ca: ca, dir: dir, query: q, logs: &logs{}, t: t}
	cfg := rpc.ServerConfig{
		Identity:  profile(t, ca.Service, "dashboard").Current,
		Authorize: func(context.Context, string, identity.Caller) error { return nil },
		Anonymous: []string{readLog},
		Logger:    slog.New(slog.NewTextHandler(b.logs, nil)),
		Now:       time.Now,
	}
	if change != nil {
		change(&cfg)
	}
	if b.server, err = rpc.NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	dashboardv1.RegisterQueryServiceServer(b.server, q)
	lis, dialer := rpc.Local()
	b.dialer = dialer
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.server.Run(ctx, lis) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

// dial connects as a profile, or without identity.
func (b *bench) dial(p *identity.Profile) *grpc.ClientConn {
	b.t.Helper()
	cfg := rpc.ClientConfig{Dialer: b.dialer, Roots: profile(b.t, b.ca.Service, "dashboard").Roots}
	if p != nil {
		cfg.Identity = p.Current
	}
	conn, err := rpc.Dial(rpc.LocalAddr, cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (b *bench) ada() *identity.Profile { return profile(b.t, b.ca.Person, "p-ada") }

func who(conn *grpc.ClientConn) (string, error) {
	r, err := dashboardv1.NewQueryServiceClient(conn).WhoAmI(context.Background(), &dashboardv1.WhoAmIRequest{})
	return r.GetKeyId(), err
}

func wantRefusal(t *testing.T, err error, code procedure.Code, reason procedure.Reason) *procedure.Refusal {
	t.Helper()
	r, ok := rpc.RefusalOf(err)
	if !ok || r.Code != code || r.Reason != reason || len(r.Allow) == 0 {
		t.Fatalf("error %v; want %s/%s with a remedy", err, code, reason)
	}
	return r
}

func TestCallerIsKnown(t *testing.T) {
	t.Parallel()
	b := start(t, &query{}, nil)
	ada := b.ada()
	if got, err := who(b.dial(ada)); err != nil || got != ada.KeyID {
		t.Errorf("the handler saw %q, %v; want %q", got, err, ada.KeyID)
	}
	if !strings.Contains(b.logs.String(), ada.KeyID) {
		t.Errorf("the log does not name the caller: %s", b.logs)
	}
}

func TestWithoutCertificate(t *testing.T) {
	t.Parallel()
	b := start(t, &query{}, nil)
	conn := b.dial(nil)
	_, err := who(conn)
	_ = wantRefusal(t, err, procedure.Unauthenticated, procedure.ReasonNoIdentity)
	stream, err := dashboardv1.NewQueryServiceClient(conn).WatchIncident(context.Background(), &dashboardv1.WatchIncidentRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	_ = wantRefusal(t, err, procedure.Unauthenticated, procedure.ReasonNoIdentity)
	if n := b.query.calls.Load(); n != 0 {
		t.Fatalf("%d handlers ran without identity", n)
	}

	if _, err := dashboardv1.NewQueryServiceClient(conn).ReadLog(context.Background(), &dashboardv1.ReadLogRequest{}); err != nil {
		t.Errorf("the public log is refused: %v", err)
	}
	if h, err := healthv1.NewHealthClient(conn).Check(context.Background(), &healthv1.HealthCheckRequest{}); err != nil || h.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
	services := reflected(t, conn)
	if !strings.Contains(services, "emergency.dashboard.v1.QueryService") {
		t.Errorf("reflection lists %s", services)
	}
}

func reflected(t *testing.T, conn *grpc.ClientConn) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return r.String()
}

func TestForeignCertificate(t *testing.T) {
	t.Parallel()
	b := start(t, &query{}, nil)
	foreign, err := devca.Open(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	mallory := *profile(t, foreign.Person, "p-ada")
	mallory.Roots = b.ada().Roots // takes our server, but is not ours
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err = dashboardv1.NewQueryServiceClient(b.dial(&mallory)).ReadLog(ctx, &dashboardv1.ReadLogRequest{})
	if c := status.Code(err); c != codes.Unavailable && c != codes.DeadlineExceeded {
		t.Errorf("error %v", err)
	}
	if n := b.query.calls.Load(); n != 0 {
		t.Errorf("%d handlers ran for a foreign certificate", n)
	}
}

func TestOnlyTLS13(t *testing.T) {
	t.Parallel()
	b := start(t, &query{}, nil)
	raw, err := b.dialer(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{MaxVersion: tls.VersionTLS12, RootCAs: b.ada().Roots, ServerName: "localhost", NextProtos: []string{"h2"}})
	defer func() { _ = c.Close() }()
	if err := c.Handshake(); err == nil {
		t.Error("TLS 1.2 is taken")
	}
}

func TestCertificateEndsDuringConnection(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	b := start(t, &query{}, func(c *rpc.ServerConfig) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	conn := b.dial(b.ada())
	if _, err := who(conn); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(366 * 24 * time.Hour))
	_, err := who(conn)
	r := wantRefusal(t, err, procedure.Unauthenticated, procedure.ReasonNoIdentity)
	if !strings.Contains(r.Message, "ended at") {
		t.Errorf("message %q", r.Message)
	}
	if _, err := dashboardv1.NewQueryServiceClient(conn).ReadLog(context.Background(), &dashboardv1.ReadLogRequest{}); err != nil {
		t.Errorf("the public log is refused: %v", err)
	}
}

func TestRenewedServerCertificate(t *testing.T) {
	t.Parallel()
	var current atomic.Pointer[identity.Profile]
	b := start(t, &query{}, func(c *rpc.ServerConfig) {
		current.Store(c.Identity())
		c.Identity = current.Load
	})
	other := profile(t, b.ca.Server, "other")
	serial := func() string {
		raw, err := b.dialer(context.Background(), "")
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, &tls.Config{RootCAs: other.Roots, ServerName: "localhost", NextProtos: []string{"h2"}})
		defer func() { _ = c.Close() }()
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	current.Store(other)
	if after := serial(); after == before || after != other.Certificate.Leaf.SerialNumber.String() {
		t.Errorf("certificate %s before, %s after the change", before, after)
	}
}

func TestDeadlineRequired(t *testing.T) {
	t.Parallel()
	b := start(t, &query{}, nil)
	conn := b.dial(b.ada())
	// A stream's client interceptors give no deadline, so this is a unary call without one.
	s, err := conn.NewStream(context.Background(), &grpc.StreamDesc{}, dashboardv1.QueryService_WhoAmI_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SendMsg(&dashboardv1.WhoAmIRequest{}), s.CloseSend()); err != nil {
		t.Fatal(err)
	}
	err = s.RecvMsg(&dashboardv1.WhoAmIResponse{})
	_ = wantRefusal(t, err, procedure.InvalidArgument, rpc.ReasonDeadlineRequired)
	if n := b.query.calls.Load(); n != 0 {
		t.Errorf("%d handlers ran", n)
	}
}

func TestDeadlineLeavesTimeToAnswer(t *testing.T) {
	t.Parallel()
	q := &query{whoAmI: func(ctx context.Context, _ int) error {
		end, _ := ctx.Deadline()
		if left := time.Until(end); left > time.Minute {
			return fmt.Errorf("the handler has %s", left)
		}
		return nil
	}}
	b := start(t, q, nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if _, err := dashboardv1.NewQueryServiceClient(b.dial(b.ada())).WhoAmI(ctx, &dashboardv1.WhoAmIRequest{}); err != nil {
		t.Errorf("%v: %s", err, b.logs)
	}
}

func TestAuthorize(t *testing.T) {
	t.Parallel()
	b := start(t, &query{}, func(c *rpc.ServerConfig) {
		c.Authorize = func(_ context.Context, method string, caller identity.Caller) error {
			if caller.Certificate.Subject.CommonName == "host-1" {
				return &procedure.Refusal{Code: procedure.PermissionDenied, Reason: rpc.ReasonCallerClass, Rule: method, Allow: []procedure.Allowance{{}}}
			}
			if caller.Certificate.Subject.CommonName == "p-bad" {
				panic("in authorize")
			}
			return nil
		}
	})
	_, err := who(b.dial(profile(t, b.ca.System, "host-1")))
	if r := wantRefusal(t, err, procedure.PermissionDenied, rpc.ReasonCallerClass); r.Rule != dashboardv1.QueryService_WhoAmI_FullMethodName {
		t.Errorf("asked about %q", r.Rule)
	}
	if _, err := who(b.dial(profile(t, b.ca.Person, "p-bad"))); status.Code(err) != codes.Internal {
		t.Errorf("a panic while authorizing lets through: %v", err)
	}
	if n := b.query.calls.Load(); n != 0 {
		t.Errorf("%d handlers ran", n)
	}
	if _, err := who(b.dial(b.ada())); err != nil {
		t.Error(err)
	}
}

// unavailable is an error as the log's client returns it.
type unavailable struct{ after time.Duration }

func (unavailable) Error() string               { return "secret broker address" }
func (unavailable) Temporary() bool             { return true }
func (u unavailable) RetryAfter() time.Duration { return u.after }

func TestAnswers(t *testing.T) {
	t.Parallel()
	refusal := &procedure.Refusal{Code: procedure.FailedPrecondition, Reason: procedure.ReasonVetoOpen, Rule: "4.3", Message: "open", Allow: []procedure.Allowance{{Command: "WithdrawVeto", Subject: "V1"}}}
	upstream, err := status.New(codes.Unavailable, "secret upstream").WithDetails()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		err   error
		code  codes.Code
		calls int32 // how often the client tried
		level string
	}{
		"refusal":             {refusal, codes.FailedPrecondition, 1, "INFO"},
		"wrapped refusal":     {fmt.Errorf("secret: %w", refusal), codes.FailedPrecondition, 1, "INFO"},
		"refusal of a status": {fmt.Errorf("secret: %w", rpc.StatusOf(refusal).Err()), codes.FailedPrecondition, 1, "INFO"},
		"unavailable":         {fmt.Errorf("append: %w", unavailable{time.Millisecond}), codes.Unavailable, 5, "WARN"},
		"no room in the log":  {fmt.Errorf("secret: %w", temporarily{history.ErrStorageFull}), codes.ResourceExhausted, 1, "WARN"},
		"upstream's no room":  {fmt.Errorf("secret: %w", status.Error(codes.ResourceExhausted, "the event log has no room: nothing was recorded")), codes.ResourceExhausted, 1, "WARN"},
		"too large upstream":  {status.Error(codes.ResourceExhausted, "secret"), codes.Internal, 1, "ERROR"},
		"upstream down":       {fmt.Errorf("ask: %w", upstream.Err()), codes.Unavailable, 5, "WARN"},
		"inner deadline":      {fmt.Errorf("secret: %w", context.DeadlineExceeded), codes.Unavailable, 5, "WARN"},
		"unimplemented":       {status.Error(codes.Unimplemented, "secret"), codes.Unimplemented, 1, "INFO"},
		"plain":               {errors.New("secret"), codes.Internal, 1, "ERROR"},
		"own status":          {status.Error(codes.NotFound, "secret"), codes.Internal, 1, "ERROR"},
		"nil refusal":         {(*procedure.Refusal)(nil), codes.Internal, 1, "ERROR"},
		"panic":               {nil, codes.Internal, 1, "ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t, &query{whoAmI: func(context.Context, int) error {
				if name == "panic" {
					panic("secret")
				}
				return c.err
			}}, nil)
			_, err := who(b.dial(b.ada()))
			if status.Code(err) != c.code || strings.Contains(err.Error(), "secret") {
				t.Errorf("the caller sees %v, want %s and no internals", err, c.code)
			}
			if c.code == codes.ResourceExhausted && !(rpc.StorageFull(err) && strings.Contains(err.Error(), "operators have to make room")) {
				t.Errorf("the caller is told %v", err)
			}
			if got := b.query.calls.Load(); got != c.calls {
				t.Errorf("tried %d times, want %d", got, c.calls)
			}
			if c.code == codes.FailedPrecondition {
				_ = wantRefusal(t, err, refusal.Code, refusal.Reason)
			}
			b.stop()
			if !strings.Contains(b.logs.String(), "level="+c.level) {
				t.Errorf("level %s is not in the log: %s", c.level, b.logs)
			}
			if c.level != "INFO" {
				referenced(t, b, err)
			}
		})
	}
}

// temporarily marks an error as services do that may be tried again by whoever follows an event.
type temporarily struct{ error }

func (temporarily) Temporary() bool           { return true }
func (temporarily) RetryAfter() time.Duration { return time.Millisecond }
func (t temporarily) Unwrap() error           { return t.error }

// referenced checks that the caller's reference finds the cause in the log.
func referenced(t *testing.T, b *bench, err error) {
	t.Helper()
	var retry, ref bool
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.RequestInfo:
			ref = len(d.GetRequestId()) == 32 && strings.Contains(b.logs.String(), "reference="+d.GetRequestId())
		case *errdetails.RetryInfo:
			retry = true
		}
	}
	if !ref {
		t.Errorf("the reference of %v is not in the log: %s", status.Convert(err).Details(), b.logs)
	}
	if want := status.Code(err) == codes.Unavailable; retry != want {
		t.Errorf("names a delay: %t, want %t", retry, want)
	}
}

func TestRetryUntilAvailable(t *testing.T) {
	t.Parallel()
	b := start(t, &query{whoAmI: func(_ context.Context, n int) error {
		if n < 3 {
			return unavailable{time.Millisecond}
		}
		return nil
	}}, nil)
	if _, err := who(b.dial(b.ada())); err != nil || b.query.calls.Load() != 3 {
		t.Errorf("after %d tries: %v", b.query.calls.Load(), err)
	}
}

// TestInstances: a connection keeps to one instance, and no call fails because that one ends.
func TestInstances(t *testing.T) {
	t.Parallel()
	var queries [2]*query
	var stops [2]func()
	var addrs []string
	var ada *identity.Profile
	var roots string
	for i := range queries {
		queries[i] = &query{}
		b := start(t, queries[i], func(cfg *rpc.ServerConfig) {
			if i > 0 { // one authority for both
				ca, err := devca.Open(roots, time.Now)
				if err != nil {
					t.Fatal(err)
				}
				cfg.Identity = profile(t, ca.Service, "dashboard").Current
			}
		})
		if i == 0 {
			ada, roots = b.ada(), b.dir
		}
		lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- b.server.Run(ctx, lis) }()
		stops[i] = sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
		t.Cleanup(stops[i])
		addrs = append(addrs, lis.Addr().String())
	}
	conn, err := rpc.Dial(strings.Join(addrs, ","), rpc.ClientConfig{Identity: ada.Current})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ask := func(until func() bool) {
		t.Helper()
		for !until() {
			if _, err := who(conn); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask(func() bool { return queries[0].calls.Load()+queries[1].calls.Load() >= 20 })
	used, other := 0, 1
	if queries[0].calls.Load() == 0 {
		used, other = 1, 0
	}
	if n := queries[other].calls.Load(); n != 0 {
		t.Errorf("the other instance got %d of the calls", n)
	}
	stops[used]()
	ask(func() bool { return queries[other].calls.Load() >= 20 })
	if _, err := rpc.Dial("localhost:1,nowhere", rpc.ClientConfig{Identity: ada.Current}); err == nil || !strings.Contains(err.Error(), `"nowhere"`) {
		t.Errorf("an address without a port: %v", err)
	}
}

func TestCallerGivesUp(t *testing.T) {
	t.Parallel()
	entered, ended := make(chan struct{}), make(chan error, 1)
	b := start(t, &query{whoAmI: func(ctx context.Context, _ int) error {
		close(entered)
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-entered; cancel() }()
	_, err := dashboardv1.NewQueryServiceClient(b.dial(b.ada())).WhoAmI(ctx, &dashboardv1.WhoAmIRequest{})
	if status.Code(err) != codes.Canceled || !errors.Is(<-ended, context.Canceled) {
		t.Errorf("error %v", err)
	}
	b.stop()
	if !strings.Contains(b.logs.String(), "code=Canceled") {
		t.Errorf("log: %s", b.logs)
	}
}

func TestDeadlinePasses(t *testing.T) {
	t.Parallel()
	b := start(t, &query{whoAmI: func(ctx context.Context, _ int) error { <-ctx.Done(); return errors.New("secret") }}, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := dashboardv1.NewQueryServiceClient(b.dial(b.ada())).WhoAmI(ctx, &dashboardv1.WhoAmIRequest{})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("error %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	b := start(t, &query{}, nil)
	c := dashboardv1.NewQueryServiceClient(b.dial(b.ada()))
	_, err := c.ReadLog(context.Background(), &dashboardv1.ReadLogRequest{Incident: strings.Repeat("x", rpc.MaxReceive+1)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message over the limit: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(context.Background(), "x-long", strings.Repeat("x", 32<<10))
	if _, err := c.ReadLog(ctx, &dashboardv1.ReadLogRequest{}); err == nil {
		t.Error("headers over the limit are taken")
	}
	if n := b.query.calls.Load(); n != 0 {
		t.Errorf("%d handlers ran", n)
	}
	if _, err := c.ReadLog(context.Background(), &dashboardv1.ReadLogRequest{Incident: strings.Repeat("x", rpc.MaxReceive-16)}); err != nil {
		t.Errorf("a message just under the limit: %v", err)
	}
}

func TestStreamPanics(t *testing.T) {
	t.Parallel()
	b := start(t, &query{watch: func(context.Context, grpc.ServerStream) error { panic("secret") }}, nil)
	conn := b.dial(b.ada())
	s, err := dashboardv1.NewQueryServiceClient(conn).WatchIncident(context.Background(), &dashboardv1.WatchIncidentRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
	if _, err := who(conn); err != nil {
		t.Errorf("after a panic the server answers %v", err)
	}
}

func TestStopEndsStreams(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	b := start(t, &query{watch: func(ctx context.Context, _ grpc.ServerStream) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}}, nil)
	s, err := dashboardv1.NewQueryServiceClient(b.dial(b.ada())).WatchIncident(context.Background(), &dashboardv1.WatchIncidentRequest{})
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	b.stop()
	if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("error %v", err)
	}
}

func TestNewServerNeedsItsParts(t *testing.T) {
	t.Parallel()
	if _, err := rpc.NewServer(rpc.ServerConfig{}); err == nil || !strings.Contains(err.Error(), "is needed") {
		t.Errorf("error %v", err)
	}
	if _, err := rpc.Dial("localhost:1", rpc.ClientConfig{}); err == nil || !strings.Contains(err.Error(), "roots") {
		t.Errorf("a client trusts the machine's authorities: %v", err)
	}
}

func TestTraceReachesHandler(t *testing.T) {
	t.Parallel()
	tel, err := telemetry.Start(context.Background(), telemetry.Config{Service: "test", Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
	var seen trace.SpanContext
	b := start(t, &query{whoAmI: func(ctx context.Context, _ int) error {
		seen = trace.SpanContextFromContext(ctx)
		return errors.New("secret")
	}}, func(c *rpc.ServerConfig) { c.Tracer, c.Meter = tel.Tracer, tel.Meter })
	ada := b.ada()
	conn, err := rpc.Dial(rpc.LocalAddr, rpc.ClientConfig{Identity: ada.Current, Dialer: b.dialer, Tracer: tel.Tracer, Meter: tel.Meter})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, span := tel.Tracer.Tracer("test").Start(context.Background(), "declare")
	defer span.End()
	_, err = dashboardv1.NewQueryServiceClient(conn).WhoAmI(ctx, &dashboardv1.WhoAmIRequest{})
	if !seen.IsValid() || seen.TraceID() != span.SpanContext().TraceID() {
		t.Errorf("the handler is in trace %s, the caller in %s", seen.TraceID(), span.SpanContext().TraceID())
	}
	if !strings.Contains(status.Convert(err).Message(), seen.TraceID().String()) {
		t.Errorf("the reference is not the trace: %v", err)
	}
}
