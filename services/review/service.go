// SPDX-License-Identifier: Apache-2.0

package review

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/gitrepo"
	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/service"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
	"cacert.org/emergency/services/review/tracker"
)

// maxPatch is the largest patch in bytes, and the largest diff that stands for a bundle: a message of the API has room for
// no more, and an emergency patch is read by people.
const maxPatch = 1 << 20

// Config of the service.
type Config struct {
	// Repository is the repository of the patched software: a path, or an https or ssh address. Required.
	Repository string
	// StateDir is where the service keeps its own clone; of this service alone. Required.
	StateDir string
	// GitEnv is added to git's environment, such as GIT_SSH_COMMAND.
	GitEnv []string
	// Tracker is where notes about bugs go; the zero value is none.
	Tracker tracker.Config
}

// Check names each setting that cannot be. It opens nothing.
func (c Config) Check() error {
	var errs []error
	if c.Repository == "" {
		errs = append(errs, errors.New("repository: give the path or address of the patched software's git repository"))
	}
	if c.StateDir == "" {
		errs = append(errs, errors.New("state_dir: give a folder for the clone of the repository"))
	}
	if c.Tracker.Set() {
		errs = append(errs, c.Tracker.Check())
	}
	return errors.Join(errs...)
}

// Server is the service.
type Server struct {
	reviewv1.UnimplementedReviewServiceServer
	reviewv1.UnimplementedReviewReaderServiceServer
	*service.Service
	repo    *gitrepo.Repo
	tracker *tracker.Tracker // nil for none
	agents  deploymentv1.AgentServiceClient
}

// New builds the service. It needs the peer "deployment". The repository and the tracker may be down.
func New(ctx context.Context, d service.Deps, cfg Config) (*Server, error) {
	base, err := service.New(d)
	if err != nil {
		return nil, err
	}
	if err := cfg.Check(); err != nil {
		return nil, fmt.Errorf("review: %w", err)
	}
	if d.Peers["deployment"] == nil {
		return nil, errors.New("review: no connection to the deployment service")
	}
	s := &Server{Service: base, agents: deploymentv1.NewAgentServiceClient(d.Peers["deployment"])}
	s.repo, err = gitrepo.Open(ctx, cfg.Repository, gitrepo.Options{
		StateDir: cfg.StateDir, Env: cfg.GitEnv, Patch: patch.Options{MaxBytes: maxPatch}, MaxBundle: maxPatch,
	})
	if err != nil {
		return nil, fmt.Errorf("review: %w", err)
	}
	if cfg.Tracker.Set() {
		if s.tracker, err = tracker.New(cfg.Tracker); err != nil {
			return nil, fmt.Errorf("review: %w", err)
		}
	}
	return s, nil
}

// Register adds the services to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	reviewv1.RegisterReviewServiceServer(r, s)
	reviewv1.RegisterReviewReaderServiceServer(r, s)
}

// Run runs timers and effects until ctx ends.
func (s *Server) Run(ctx context.Context) error { return s.Service.Run(ctx, s.plan) }
