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
	// Identity returns the caller's own profile: certificate, key and the roots by which the server is verified.
	Identity func() *identity.Profile
	// Roots verify the server where Identity is nil: a connection without identity, for the public log.
	Roots *x509.CertPool
	// ServerName is the name that the server's certificate must have; the host of the address if empty.
	ServerName string
	// Dialer replaces the network; see Local. Optional.
	Dialer func(context.Context, string) (net.Conn, error)
	// Timeout replaces DefaultTimeout if not 0.
	Timeout time.Duration
	// Tracer and Meter observe calls. Optional.
	Tracer trace.TracerProvider
	Meter  metric.MeterProvider
}

// Dial makes a client for an address, host:port, or for several of one service, separated by commas. It connects when it is first used,
// and again whenever the connection is lost, so it succeeds while the server is down. Close it.
func Dial(addr string, cfg ClientConfig) (*grpc.ClientConn, error) {
	tlsConfig, err := clientTLS(cfg)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	timeout := cfg.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)),
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
	options = append(options, grpc.WithDefaultServiceConfig(fmt.Sprintf(retryUnavailable, policy)))
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

func clientTLS(cfg ClientConfig) (*tls.Config, error) {
	roots := cfg.Roots
	c := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: cfg.ServerName}
	if cfg.Identity != nil {
		roots = cfg.Identity().Roots
		// Sent whatever authorities the server names: one that does not take it must say so, instead of a call that
		// arrives without identity.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &cfg.Identity().Certificate, nil
		}
	}
	if c.RootCAs = roots; roots == nil { // nil would mean the machine's own authorities
		return nil, errors.New("roots to verify the server are needed")
	}
	return c, nil
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
