// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/gitrepo"
	"cacert.org/emergency/pkg/service"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
)

// Config of the service.
type Config struct {
	// Repository is the path or URL of the repository that holds the release branches.
	Repository string
	// StateDir is a folder of the service's own for its clone of the repository.
	StateDir string
	// Git is the path of the git program; git from the PATH if empty.
	Git string
	// Access is what concerns watched sessions.
	Access AccessConfig
}

// check refuses a configuration that cannot work.
func (c Config) check() error {
	switch {
	case c.Repository == "":
		return errors.New("deployment: no repository is set; name the one that holds the release branches")
	case c.StateDir == "":
		return errors.New("deployment: no state folder is set; name a folder for the clone of the repository")
	}
	return nil
}

// Server is the service.
type Server struct {
	deploymentv1.UnimplementedDeploymentServiceServer
	deploymentv1.UnimplementedConsoleServiceServer
	*service.Service
	hub    *hub
	repo   *gitrepo.Repo
	access AccessConfig
}

// New builds the service. It needs neither an agent nor the repository to be there yet.
func New(d service.Deps, cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s, err := service.New(d)
	if err != nil {
		return nil, err
	}
	if cfg.Access.Recordings == "" {
		cfg.Access.Recordings = filepath.Join(cfg.StateDir, "recordings")
	}
	repo, err := gitrepo.Open(context.Background(), cfg.Repository, gitrepo.Options{StateDir: cfg.StateDir, Git: cfg.Git})
	if err != nil {
		return nil, fmt.Errorf("deployment: %w", err)
	}
	return &Server{Service: s, repo: repo, access: cfg.Access, hub: newHub(s.Dispatch.Book, d.Clock.Now, d.Log)}, nil
}

// Register adds the service, and the place where agents dial in, to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	deploymentv1.RegisterDeploymentServiceServer(r, s)
	deploymentv1.RegisterConsoleServiceServer(r, s)
	deploymentv1.RegisterAgentServiceServer(r, s.hub)
}

// Run runs the service's timers and effects until ctx ends.
func (s *Server) Run(ctx context.Context) error { return s.Service.Run(ctx, s.plan) }
