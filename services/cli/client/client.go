// SPDX-License-Identifier: Apache-2.0

// Package client is the person's side of the procedure: connections with the person's own certificate, the history as the
// person's own machine has verified it, and commands that the person signs.
//
// It believes no server. Whose key is in use, which roles it gives and what an approval says are taken from records whose
// chain and owners' signatures were checked here, by a keyring from a file, so that a person never signs what a server
// merely claims. The private key stays in the process. A command has one request id, however often it has to be sent.
package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/rulebook"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
)

// Dashboard is the name of the server that answers queries, beside the owners' names.
const Dashboard = "dashboard"

// DefaultPatience is how long Send tries again while a server is away.
const DefaultPatience = 10 * time.Second

// Config is what a client is made from.
type Config struct {
	// Server is host:port of all services.
	Server string
	// Servers replaces it for some: by owner name, or Dashboard.
	Servers map[string]string
	// Profile is the folder with the person's cert.pem, key.pem and ca.pem. Empty: without identity, for the public log.
	Profile string
	// Roots is a file with the authorities that verify the server where there is no profile.
	Roots string
	// Keyring is the file of the services' public keys. Without it there is no verified history, and nothing is signed.
	Keyring string
	// Copies is the folder where verified histories are kept, for acts that are captured offline. Empty: none are.
	Copies string
	// OfflineFile makes the client capture instead of send: it asks no server, knows only its copies, and writes the one command that
	// it is given, signed, to this file (G9). Send and Call then return a *Captured. Offline follows from it.
	OfflineFile string
	Offline     bool
	// Patience replaces DefaultPatience if not 0.
	Patience time.Duration
	// OnRetry is told before each further try. Optional.
	OnRetry func(err error, wait time.Duration)
	// Now replaces the machine's clock. Optional.
	Now func() time.Time
	// Dialer replaces the network, for tests. Optional.
	Dialer func(context.Context, string) (net.Conn, error)
	// Tracer makes spans of calls. Optional.
	Tracer trace.TracerProvider
}

// Client is one person's access. It is safe for concurrent use.
type Client struct {
	cfg     Config
	profile *identity.Profile
	keys    *history.Keyring
	conns   map[string]*grpc.ClientConn // by address

	mu        sync.Mutex
	histories map[string]*past
	written   map[string]uint64 // last position of this client's own commands, by incident
}

// ErrNoKeyring says that what was asked needs a verified history, and there is no keyring to verify it by.
var ErrNoKeyring = errors.New("no keyring: without the services' public keys this machine cannot verify the history")

// Dial loads profile and keyring and prepares the connections. It succeeds while the servers are away. Close it.
func Dial(cfg Config) (*Client, error) {
	cfg.Offline = cfg.OfflineFile != ""
	c := &Client{cfg: cfg, conns: map[string]*grpc.ClientConn{}, histories: map[string]*past{}, written: map[string]uint64{}}
	if c.cfg.Now == nil {
		c.cfg.Now = time.Now
	}
	if c.cfg.Patience == 0 {
		c.cfg.Patience = DefaultPatience
	}
	var err error
	if cfg.Profile != "" {
		if c.profile, err = identity.Load(cfg.Profile, identity.LoadOptions{Now: c.cfg.Now()}); err != nil {
			return nil, err
		}
	}
	if cfg.Keyring != "" {
		if c.keys, err = history.LoadKeyring(cfg.Keyring); err != nil {
			return nil, err
		}
	}
	if err := c.dialAll(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Client) dialAll() error {
	conf := rpc.ClientConfig{Dialer: c.cfg.Dialer, Tracer: c.cfg.Tracer}
	if c.profile != nil {
		conf.Identity = c.profile.Current
	} else {
		roots, err := identity.LoadRoots(c.cfg.Roots)
		if err != nil {
			return err
		}
		conf.Roots = roots
	}
	for _, name := range append(procedure.Owners(), Dashboard) {
		addr := c.address(name)
		if c.conns[addr] != nil {
			continue
		}
		conn, err := rpc.Dial(addr, conf)
		if err != nil {
			return err
		}
		c.conns[addr] = conn
	}
	return nil
}

func (c *Client) address(name string) string {
	if addr := c.cfg.Servers[name]; addr != "" {
		return addr
	}
	return c.cfg.Server
}

func (c *Client) conn(name string) *grpc.ClientConn { return c.conns[c.address(name)] }

// Close ends the connections.
func (c *Client) Close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// Query is the query API. What it answers is the server's word; State is verified.
func (c *Client) Query() dashboardv1.QueryServiceClient {
	return dashboardv1.NewQueryServiceClient(c.conn(Dashboard))
}

// Patches reads the bytes of registered revisions.
func (c *Client) Patches() reviewv1.ReviewReaderServiceClient {
	return reviewv1.NewReviewReaderServiceClient(c.conn(procedure.OwnerReview))
}

// Console is the watched console apart from the commands that decide about it: credential, watch, recording.
func (c *Client) Console() deploymentv1.ConsoleServiceClient {
	return deploymentv1.NewConsoleServiceClient(c.conn(procedure.OwnerDeployment))
}

// KeyID is the id of the person's key; empty without a profile.
func (c *Client) KeyID() string {
	if c.profile == nil {
		return ""
	}
	return c.profile.KeyID
}

// Keyring is the services' public keys, nil if none were given.
func (c *Client) Keyring() *history.Keyring { return c.keys }

// Now is the time by the person's own clock.
func (c *Client) Now() time.Time { return c.cfg.Now() }

// Person returns whose key the profile has, by the verified rule book; a NO_IDENTITY or KEY_UNKNOWN refusal if nobody's.
func (c *Client) Person(ctx context.Context) (string, *rulebook.Book, error) {
	if c.profile == nil {
		return "", nil, &procedure.Refusal{Code: procedure.Unauthenticated, Reason: procedure.ReasonNoIdentity, Rule: "G1",
			Message: "there is no certificate to act with",
			Allow:   []procedure.Allowance{{Description: "name your profile folder with --profile DIR, or in EPATCH_PROFILE"}}}
	}
	book, err := c.Book(ctx)
	if err != nil {
		return "", nil, err
	}
	entry, ok := book.Key(c.profile.KeyID)
	if !ok || entry.Key.GetPerson() == "" {
		return "", book, &procedure.Refusal{Code: procedure.Unauthenticated, Reason: procedure.ReasonKeyUnknown, Rule: "G1",
			Message: fmt.Sprintf("your key %.12s is not in the rule book", c.profile.KeyID),
			Allow:   []procedure.Allowance{{Command: "AddKey", Description: "add it with a key of yours that is listed, or ask the Board"}}}
	}
	return entry.Key.GetPerson(), book, nil
}
