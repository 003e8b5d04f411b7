// SPDX-License-Identifier: Apache-2.0

package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
)

// by is the name of a caller whose key is one of the rule book's: all but those that begin with x; services are exempt.
func by(c identity.Caller) (name string, exempt bool) {
	switch {
	case strings.HasPrefix(c.KeyID, "x"):
		return "", false
	case c.KeyID == "service":
		return "", true
	}
	name, _, _ = strings.Cut(c.KeyID, "/")
	return name, false
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	now := time.Unix(1800000000, 0)
	limits := rpc.Limits{
		Known: rpc.Limit{PerSecond: 1, Burst: 3}, Unknown: rpc.Limit{PerSecond: 1, Burst: 1},
		KnownRefused: rpc.Limit{PerSecond: 0.1, Burst: 2}, UnknownRefused: rpc.Limit{PerSecond: 0.1, Burst: 1},
	}
	l := rpc.NewLimiter(limits, by, func() time.Time { return now })
	call := func(key, address string) error {
		return l.Admit(identity.Caller{KeyID: key}, key != "", address)
	}
	limited := func(key, address string, after time.Duration) {
		t.Helper()
		err := call(key, address)
		_ = wantRefusal(t, err, procedure.ResourceExhausted, rpc.ReasonRate)
		var tooMany *rpc.RateError
		if !errors.As(err, &tooMany) || tooMany.After < after || tooMany.After > after+2*time.Millisecond {
			t.Errorf("%s from %s: %v, want to come again after %s", key, address, err, after)
		}
	}
	free := func(key, address string) {
		t.Helper()
		if err := call(key, address); err != nil {
			t.Errorf("%s from %s: %v", key, address, err)
		}
	}
	for range 3 {
		free("ada", "h1")
	}
	limited("ada", "h1", time.Second)
	limited("ada/2", "h2", time.Second) // a second key and another address are the same person
	free("bob", "h1")
	now = now.Add(time.Second)
	free("ada", "h1")
	limited("ada", "h1", time.Second)

	// Without a known key the address counts, for all keys there are.
	free("x1", "h3")
	limited("x2", "h3", time.Second)
	limited("", "h3", time.Second)
	free("", "h4")
	for range 100 {
		free("service", "h3")
	}

	// Refused calls are fewer; who has used them up waits with each call, for longer.
	now = now.Add(time.Hour)
	for range 2 {
		free("ada", "h1")
		l.Refused(identity.Caller{KeyID: "ada"}, true, "h1")
	}
	limited("ada", "h1", 10*time.Second)
	free("bob", "h1")
	now = now.Add(10 * time.Second)
	free("ada", "h1")

	// However many callers there are, the memory is bounded, and who is known keeps what is counted.
	for range 3 {
		_ = call("eve", "h1")
	}
	for i := range 10_000 {
		free("", fmt.Sprint(i))
	}
	if n := l.Remembered(); n > 4200 {
		t.Errorf("%d callers are remembered", n)
	}
	limited("eve", "h1", time.Second)

	none := rpc.NewLimiter(rpc.Limits{}, by, func() time.Time { return now })
	for range 10_000 {
		if err := none.Admit(identity.Caller{}, false, "h1"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLimitGuardsHandlers: no handler runs for a call that is one too many, the answer tells when to come again, and refused calls have a
// limit of their own.
func TestLimitGuardsHandlers(t *testing.T) {
	t.Parallel()
	var no atomic.Bool
	l := rpc.NewLimiter(rpc.Limits{Known: rpc.Limit{PerSecond: 1, Burst: 5}, KnownRefused: rpc.Limit{PerSecond: 0.5, Burst: 1}}, by, func() time.Time { return time.Unix(0, 0) })
	b := start(t, &query{whoAmI: func(context.Context, int) error {
		if no.Load() {
			return &procedure.Refusal{Code: procedure.PermissionDenied, Reason: procedure.ReasonRole, Rule: "G5", Message: "no", Allow: []procedure.Allowance{{Description: "ask ada"}}}
		}
		return nil
	}}, func(c *rpc.ServerConfig) { c.Limiter = l })
	conn := b.dial(b.ada())
	for range 3 {
		if _, err := who(conn); err != nil {
			t.Fatal(err)
		}
	}
	no.Store(true)
	_, err := who(conn)
	_ = wantRefusal(t, err, procedure.PermissionDenied, procedure.ReasonRole)
	no.Store(false)
	_, err = who(conn)
	r := wantRefusal(t, err, procedure.ResourceExhausted, rpc.ReasonRate)
	if !strings.Contains(r.Message, "refused") || !strings.Contains(r.Allow[0].Description, "again in 2") {
		t.Errorf("the refusal says %v", r)
	}
	if after := rpc.RetryAfter(err); after < 2*time.Second || after > 2*time.Second+2*time.Millisecond {
		t.Errorf("come again after %s", after)
	}
	if n := b.query.calls.Load(); n != 4 {
		t.Errorf("%d handlers ran", n)
	}
}

func TestMaxConnections(t *testing.T) {
	t.Parallel()
	b := start(t, &query{}, func(c *rpc.ServerConfig) { c.MaxConnections = 1 })
	for range 3 { // each takes the place that the one before gave back
		conn := b.dial(b.ada())
		if _, err := who(conn); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMaxPerAddress: who has many connections open gets no more, and has one again when one is given back.
func TestMaxPerAddress(t *testing.T) {
	t.Parallel()
	b := start(t, &query{}, func(c *rpc.ServerConfig) { c.MaxConnections, c.MaxPerAddress = 10, 2 })
	held := make([]net.Conn, 2)
	for i := range held {
		conn, err := b.dialer(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		held[i] = conn
	}
	third, err := b.dialer(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Error("a third connection is served")
	}
	if err := held[0].Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := who(b.dial(b.ada())); err != nil {
		t.Error(err)
	}
}
