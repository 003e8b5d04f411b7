// SPDX-License-Identifier: Apache-2.0

package arbitration

import (
	"context"
	"fmt"

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

// syncObligations records what became owed or was discharged, whenever something happened in an incident. It keeps nothing:
// after a start it looks at every incident once.
func (s *Server) syncObligations(ctx context.Context) error {
	for ctx.Err() == nil {
		changed := s.Reader.Changed()
		var behind []*emergencyv1.SyncObligationsRequest
		s.Incidents.Each(func(st *procedure.State) {
			if procedure.NeedsSync(st) {
				id := fmt.Sprintf("sync.%d", st.Position)
				behind = append(behind, &emergencyv1.SyncObligationsRequest{Meta: &emergencyv1.CommandMeta{Incident: st.Incident, RequestId: "obligations." + id}})
			}
		})
		for _, cmd := range behind {
			if _, err := s.Dispatch.Do(ctx, cmd, dispatch.Input{Actor: s.System(emergencyv1.SystemKind_SYSTEM_KIND_REACTOR)}); err != nil && ctx.Err() == nil {
				s.Log.WarnContext(ctx, "obligations not made visible yet", "incident", cmd.GetMeta().GetIncident(), "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return nil
}
