// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/service"
	incidentv1 "cacert.org/emergency/proto/emergency/incident/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Server is the service.
type Server struct {
	incidentv1.UnimplementedIncidentServiceServer
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
func (s *Server) Register(r grpc.ServiceRegistrar) { incidentv1.RegisterIncidentServiceServer(r, s) }

// Run runs the service's timers until ctx ends.
func (s *Server) Run(ctx context.Context) error { return s.Service.Run(ctx, nil) }

// duplicateWithin is how long before a declaration another one of the same system counts as a possible duplicate (4.1).
const duplicateWithin = 24 * time.Hour

// Declare declares an emergency.
func (s *Server) Declare(ctx context.Context, req *emergencyv1.DeclareRequest) (*emergencyv1.DeclareResponse, error) {
	now := s.Clock.Now()
	duplicates := s.Incidents.Duplicates(req.GetSystem(), req.GetDrill(), func(o *procedure.State) bool { return now.Sub(o.Declared.At) <= duplicateWithin })
	c, err := s.Dispatch.Declare(ctx, req, s.input(ctx, procedure.Facts{Duplicates: duplicates}), s.Incidents)
	if err != nil {
		return nil, service.Retryable(err)
	}
	return &emergencyv1.DeclareResponse{Committed: c, PossibleDuplicates: duplicates}, nil
}
