// SPDX-License-Identifier: Apache-2.0

package rpc_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
)

func TestLimiter(t *testing.T) {
	t.Parallel()
	now := time.Unix(1800000000, 0)
	l := rpc.NewLimiter(1, 3, func() time.Time { return now })
	call := func(name string) error {
		return l.Limit(identity.WithCaller(context.Background(), identity.Caller{KeyID: name}), "m")
	}
	for i := range 3 {
		if err := call("ada"); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	_ = wantRefusal(t, call("ada"), procedure.ResourceExhausted, rpc.ReasonRate)
	_ = wantRefusal(t, call("ada"), procedure.ResourceExhausted, rpc.ReasonRate)
	if err := call("bob"); err != nil {
		t.Errorf("one caller spends another's calls: %v", err)
	}
	now = now.Add(time.Second)
	if err := call("ada"); err != nil {
		t.Errorf("a second later: %v", err)
	}
	_ = wantRefusal(t, call("ada"), procedure.ResourceExhausted, rpc.ReasonRate)
	for i := range 10_000 { // more callers than are remembered
		if err := call(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLimitGuardsHandlers(t *testing.T) {
	t.Parallel()
	l := rpc.NewLimiter(1, 2, func() time.Time { return time.Unix(0, 0) })
	b := start(t, &query{}, func(c *rpc.ServerConfig) { c.Limit = l.Limit })
	conn := b.dial(b.ada())
	for range 2 {
		if _, err := who(conn); err != nil {
			t.Fatal(err)
		}
	}
	_, err := who(conn)
	_ = wantRefusal(t, err, procedure.ResourceExhausted, rpc.ReasonRate)
	if n := b.query.calls.Load(); n != 2 {
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
