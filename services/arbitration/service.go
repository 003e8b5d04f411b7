// SPDX-License-Identifier: Apache-2.0

package arbitration

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/service"
	arbitrationv1 "cacert.org/emergency/proto/emergency/arbitration/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Server is the service.
type Server struct {
	arbitrationv1.UnimplementedArbitrationServiceServer
	*service.Service
}

// New builds the service.
func New(d service.Deps) (*Server, error) {
	s, err := service.New(d)
	if err != nil {
		return nil, err
	}
	return &Server{Service: s}, nil
}

// Register adds the service to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	arbitrationv1.RegisterArbitrationServiceServer(r, s)
}

// Run runs timers and keeps the obligations visible until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Service.Run(ctx, nil) })
	group.Go(func() error { return s.syncObligations(ctx) })
	return group.Wait()
}

// syncObligations records what became owed or was discharged, in each incident in which something happened. It keeps
// nothing: after a start it looks at every incident once.
func (s *Server) syncObligations(ctx context.Context) error {
	var cursor uint64
	var again []string
	for ctx.Err() == nil {
		changed := s.Reader.Changed()
		var ids []string
		ids, cursor = s.Incidents.Since(cursor)
		ids, again = append(ids, again...), nil
		for _, id := range ids {
			if err := s.sync(ctx, id); err != nil && ctx.Err() == nil {
				again = append(again, id)
				s.Log.WarnContext(ctx, "obligations not made visible yet", "incident", id, "error", err)
			}
		}
		alarm, stop := s.Clock.Alarm(s.Clock.Now().Add(retryAfter))
		if len(again) == 0 {
			alarm = nil
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-alarm:
		}
		stop()
	}
	return nil
}

// retryAfter is how long after a failure the obligations are looked at again.
const retryAfter = 2 * time.Second

func (s *Server) sync(ctx context.Context, id string) error {
	var cmd *emergencyv1.SyncObligationsRequest
	s.Incidents.View(id, func(st *procedure.State) {
		if procedure.NeedsSync(st) {
			cmd = &emergencyv1.SyncObligationsRequest{Meta: &emergencyv1.CommandMeta{Incident: id, RequestId: fmt.Sprintf("obligations.sync.%d", st.Position)}}
		}
	})
	if cmd == nil {
		return nil
	}
	_, err := s.Dispatch.Do(ctx, cmd, dispatch.Input{Actor: s.System(emergencyv1.SystemKind_SYSTEM_KIND_REACTOR)})
	return err
}
