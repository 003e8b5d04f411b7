// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/identity"
)

// Remote says how a process reaches a log that runs elsewhere, as a user of Accounts.
type Remote struct {
	// Servers are their addresses, such as tls://nats-1.example.org:4222.
	Servers []string
	// Service is whose account the user has; empty for the provisioner's, which sees JetStream's API itself.
	Service string
	// Seed is the file with the seed of the user's NKEY.
	Seed string
	// Identity is the process's own profile: client certificate, and the authorities by which the servers are verified. It is asked at
	// each connection, so that what is renewed on disk needs no restart.
	Identity func() *identity.Profile
	Logger   *slog.Logger
}

// provisioner is how the connection of the user without a service is called.
const provisioner = "provisioner"

// Dial connects. The connection comes back by itself for as long as the process runs, and buffers nothing while it is away: a publish
// fails at once, so that its caller knows (hardening 6.8).
func Dial(r Remote) (jetstream.JetStream, error) {
	if len(r.Servers) == 0 || r.Seed == "" || r.Identity == nil || r.Logger == nil {
		return nil, errors.New("connect to nats: servers, seed file, identity and logger are needed")
	}
	for _, s := range r.Servers {
		if !strings.HasPrefix(s, "tls://") {
			return nil, fmt.Errorf("connect to nats: %q: only tls:// is used", s)
		}
	}
	if _, err := identity.ReadSecret(r.Seed); err != nil {
		return nil, fmt.Errorf("connect to nats: seed file %w", err)
	}
	key, err := nats.NkeyOptionFromSeed(r.Seed) // reads it again at each connection
	if err != nil {
		return nil, fmt.Errorf("connect to nats: seed file %s: %w", r.Seed, err)
	}
	name := cmp.Or(r.Service, provisioner)
	options := append(r.tls(), key, nats.Name(name))
	if r.Service != "" {
		options = append(options, nats.CustomInboxPrefix(InboxPrefix(name)))
	}
	nc, err := nats.Connect(strings.Join(r.Servers, ","), append(options, watched(r.Logger.With("connection", name))...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to nats as %s: %w", name, err)
	}
	var js jetstream.JetStream
	if r.Service == "" {
		js, err = jetstream.New(nc)
	} else {
		js, err = jetstream.NewWithAPIPrefix(nc, APIPrefix)
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("open JetStream as %s: %w", name, err)
	}
	return js, nil
}

// tls are the options by which each new connection shows and verifies what the profile is then.
func (r Remote) tls() []nats.Option {
	return []nats.Option{
		nats.Secure(&tls.Config{
			MinVersion:           tls.VersionTLS13,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &r.Identity().Certificate, nil },
		}),
		nats.ClientTLSConfig(nil, func() (*x509.CertPool, error) { return r.Identity().Roots, nil }),
	}
}

// watched are the options that every connection has: it buffers nothing, comes back for ever, and says what happens to it.
// A server that stands still, or whose machine is gone without a word, closes no connection: it is left for another one when it has not
// answered so many questions. The library's own four minutes are a long time in an emergency.
const (
	pingEvery = 5 * time.Second
	pingsOut  = 2
)

func watched(log *slog.Logger) []nats.Option {
	return []nats.Option{
		nats.ReconnectBufSize(-1),
		nats.MaxReconnects(-1),
		nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(pingsOut),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil: our own Close
				log.Warn("nats disconnected", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("nats reconnected", "server", nc.ConnectedServerName()) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if sub != nil {
				log.Error("nats error", "error", err, "subject", sub.Subject)
				return
			}
			log.Error("nats error", "error", err)
		}),
	}
}
