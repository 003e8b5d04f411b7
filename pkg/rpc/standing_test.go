// SPDX-License-Identifier: Apache-2.0

package rpc_test

import (
	"context"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

// TestStandingEndsStreams: a stream ends when its caller may not go on, with the reason whatever its handler says; others go on. A caller
// who lost the standing between the call's beginning and its entering does not get a stream either.
func TestStandingEndsStreams(t *testing.T) {
	t.Parallel()
	var revoked atomic.Value
	revoked.Store("")
	standing := rpc.NewStanding(func(c identity.Caller) error {
		if c.KeyID == revoked.Load() {
			return &procedure.Refusal{Code: procedure.PermissionDenied, Reason: procedure.ReasonKeyRevoked, Rule: "G1", Message: "revoked", Allow: []procedure.Allowance{{Description: "use another key"}}}
		}
		return nil
	})
	b := start(t, &query{watch: func(ctx context.Context, s grpc.ServerStream) error {
		if err := s.SendMsg(&dashboardv1.WatchIncidentResponse{}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}}, func(c *rpc.ServerConfig) { c.Standing = standing })
	ada, bob := b.ada(), profile(t, b.ca.Person, "p-bob")
	open := func(p *identity.Profile) grpc.ServerStreamingClient[dashboardv1.WatchIncidentResponse] {
		t.Helper()
		s, err := dashboardv1.NewQueryServiceClient(b.dial(p)).WatchIncident(t.Context(), &dashboardv1.WatchIncidentRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first, other := open(ada), open(bob)
	for _, s := range []grpc.ServerStreamingClient[dashboardv1.WatchIncidentResponse]{first, other} {
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	standing.Recheck() // nothing has changed
	revoked.Store(ada.KeyID)
	standing.Recheck()
	_, err := first.Recv()
	_ = wantRefusal(t, err, procedure.PermissionDenied, procedure.ReasonKeyRevoked)

	late := open(ada)
	for err = nil; err == nil; {
		_, err = late.Recv()
	}
	_ = wantRefusal(t, err, procedure.PermissionDenied, procedure.ReasonKeyRevoked)

	revoked.Store(bob.KeyID)
	standing.Recheck()
	_, err = other.Recv()
	_ = wantRefusal(t, err, procedure.PermissionDenied, procedure.ReasonKeyRevoked)
}
