// SPDX-License-Identifier: Apache-2.0

package arbitration

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/service"
	arbitrationv1 "cacert.org/emergency/proto/emergency/arbitration/v1"
)

// Config of the service.
type Config struct {
	// Address is where disputes are filed by mail; empty for nowhere.
	Address string
	// Mailer sends the mails; may be nil if there is no address.
	Mailer Mailer
	// Link is what an incident's id is appended to in those mails; empty for none.
	Link string
}

// Server is the service.
type Server struct {
	arbitrationv1.UnimplementedArbitrationServiceServer
	*service.Service
	cfg Config
}

// New builds the service.
func New(d service.Deps, cfg Config) (*Server, error) {
	s, err := service.New(d)
	if err != nil {
		return nil, err
	}
	if cfg.Address != "" && cfg.Mailer == nil {
		return nil, errors.New("arbitration: an address to file disputes at, and nothing that sends mails")
	}
	return &Server{Service: s, cfg: cfg}, nil
}

// Register adds the service to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	arbitrationv1.RegisterArbitrationServiceServer(r, s)
}

// Run runs timers and effects and does what follows from the incidents by itself, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Service.Run(ctx, s.plan) })
	group.Go(func() error { return s.react(ctx) })
	return group.Wait()
}
