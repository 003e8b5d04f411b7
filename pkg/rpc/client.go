// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"cacert.org/emergency/pkg/identity"
)

// DefaultTimeout is the deadline of a unary call whose context has none.
const DefaultTimeout = 30 * time.Second

// retryUnavailable tries again what could not be decided, and nothing else: a refusal is an answer. A command is safe to
// send again because its request_id names it (G3). A server's own delay counts before these times.
const retryUnavailable = `{
  %s"methodConfig": [{
    "name": [{}],
    "retryPolicy": {
      "maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2.0,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}`

// stay keeps to one instance, any of them, for as long as it is there: what a caller reads then never goes back in time, as it would from
// one that is a moment behind. When it is away the next one is asked.
const stay = `"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}], `

// ClientConfig is what a connection is made from.
type ClientConfig struct {
	// Identity returns the caller's own profile: certificate, key and the roots by which the server is verified. It is asked at each
	// handshake, so that what is renewed on disk needs no restart.
	Identity func() *identity.Profile
	// Roots verify the server where Identity is nil: a connection without identity, for the public log.
	Roots *x509.CertPool
	// ServerName is the name that the server's certificate must have; the host of the address if empty.
	ServerName string
	// Dialer replaces the network; see Local. Optional.
	Dialer func(context.Context, string) (net.Conn, error)
	// Timeout replaces DefaultTimeout if not 0.
	Timeout time.Duration
	// Once lets no call be tried again, and a lost connection be made anew every two seconds at the latest: for calls that are handed on,
	// whose caller tries again.
	Once bool
	// Tracer and Meter observe calls. Optional.
	Tracer trace.TracerProvider
	Meter  metric.MeterProvider
}

// Dial makes a client for an address, host:port, or for several of one service, separated by commas. It connects when it is first used,
// and again whenever the connection is lost, so it succeeds while the server is down. Close it.
func Dial(addr string, cfg ClientConfig) (*grpc.ClientConn, error) {
	creds, err := clientTLS(cfg)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	timeout := cfg.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(observe(cfg.Tracer, cfg.Meter)...)),
		grpc.WithDisableServiceConfig(),                                     // none from DNS
		grpc.WithDefaultCallOptions(grpc.MaxRetryRPCBufferSize(MaxReceive)), // else the largest commands are not tried again
		grpc.WithUnaryInterceptor(withTimeout(timeout)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingWait, PermitWithoutStream: true}),
	}
	target := "dns:///" + addr
	if cfg.Dialer != nil {
		options, target = append(options, grpc.WithContextDialer(cfg.Dialer)), "passthrough:///"+addr
	}
	policy := ""
	if strings.Contains(addr, ",") {
		instances, err := addresses(addr)
		if err != nil {
			return nil, err
		}
		known := manual.NewBuilderWithScheme("instances")
		known.InitialState(resolver.State{Addresses: instances})
		options, target, policy = append(options, grpc.WithResolvers(known)), "instances:///", stay
	}
	if cfg.Once {
		again := backoff.DefaultConfig
		again.BaseDelay, again.MaxDelay = 100*time.Millisecond, 2*time.Second
		options = append(options, grpc.WithDisableRetry(), grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: pingWait}))
	} else {
		options = append(options, grpc.WithDefaultServiceConfig(fmt.Sprintf(retryUnavailable, policy)))
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	return conn, nil
}

// addresses are the instances of a list, each verified by its own host's name.
func addresses(list string) ([]resolver.Address, error) {
	var all []resolver.Address
	for _, addr := range strings.Split(list, ",") {
		addr = strings.TrimSpace(addr)
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %q is no host:port", list, addr)
		}
		all = append(all, resolver.Address{Addr: addr, ServerName: host})
	}
	return all, nil
}

// clientTLS is how a client shows itself and verifies the server.
func clientTLS(cfg ClientConfig) (credentials.TransportCredentials, error) {
	if cfg.Identity == nil {
		if cfg.Roots == nil { // nil would mean the machine's own authorities
			return nil, errors.New("roots to verify the server are needed")
		}
		return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, ServerName: cfg.ServerName, RootCAs: cfg.Roots}), nil
	}
	return following{current: cfg.Identity, serverName: cfg.ServerName}, nil
}

// following are a client's credentials by the profile of the moment: each handshake asks for it, so that a renewed certificate, a new key
// and another bundle of authorities count for the next connection, and those that are open stay.
type following struct {
	current    func() *identity.Profile
	serverName string
}

func (f following) now() credentials.TransportCredentials {
	p := f.current()
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: f.serverName, RootCAs: p.Roots,
		// Sent whatever authorities the server names: one that does not take it must say so, instead of a call that
		// arrives without identity.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &p.Certificate, nil },
	})
}

// ClientHandshake is one new connection.
func (f following) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return f.now().ClientHandshake(ctx, authority, conn)
}

// ServerHandshake fails: these are a client's.
func (f following) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("a client's credentials serve nobody")
}

// Info tells the protocol, and the name that the server must have.
func (f following) Info() credentials.ProtocolInfo { return f.now().Info() }

// Clone returns the same: nothing in it changes.
func (f following) Clone() credentials.TransportCredentials { return f }

// OverrideServerName fails: ClientConfig.ServerName says it.
func (f following) OverrideServerName(string) error {
	return errors.New("the server's name is set when the connection is made")
}

// withTimeout gives a unary call a deadline where it has none.
func withTimeout(d time.Duration) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if _, has := ctx.Deadline(); !has {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, d)
			defer cancel()
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	}
}
