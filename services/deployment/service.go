// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/gitrepo"
	"cacert.org/emergency/pkg/service"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment/broker"
)

// Config of the service.
type Config struct {
	// Repository is the path or URL of the repository that holds the release branches.
	Repository string
	// StateDir is a folder of the service's own for its clone of the repository.
	StateDir string
	// Git is the path of the git program; git from the PATH if empty.
	Git string
	// Siblings are all instances of the service, this one too, if there can be several. An instance of which others do not know ends no
	// session of theirs and is handed no call.
	Siblings []Sibling
	// Access is what concerns watched sessions, Console how subjects reach them and they the hosts.
	Access  AccessConfig
	Console ConsoleConfig
}

// check refuses a configuration that cannot work.
func (c Config) check() error {
	switch {
	case c.Repository == "":
		return errors.New("deployment: no repository is set; name the one that holds the release branches")
	case c.StateDir == "":
		return errors.New("deployment: no state folder is set; name a folder for the clone of the repository")
	}
	return c.Console.check(c.Access)
}

// Server is the service.
type Server struct {
	deploymentv1.UnimplementedDeploymentServiceServer
	deploymentv1.UnimplementedConsoleServiceServer
	*service.Service
	hub      *hub
	repo     *gitrepo.Repo
	access   AccessConfig
	siblings []*sibling

	broker          *broker.Broker // nil without a console
	watches         taken
	consoleListener net.Listener
	recordSize      int64
	bringing        *semaphore.Weighted // of stored recordings

	mu    sync.Mutex
	modes map[broker.Ref]emergencyv1.FreezeMode // how far each session's last freeze reached
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
	server := &Server{
		Service: s, repo: repo, access: cfg.Access, siblings: newSiblings(cfg.Siblings), hub: newHub(s.Dispatch.Book, d.Clock.Now, d.Log), modes: map[broker.Ref]emergencyv1.FreezeMode{},
		bringing: semaphore.NewWeighted(storedAtOnce),
	}
	return server, server.openConsole(cfg)
}

// Register adds the service, and the place where agents dial in, to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	deploymentv1.RegisterDeploymentServiceServer(r, s)
	deploymentv1.RegisterConsoleServiceServer(r, s)
	deploymentv1.RegisterAgentServiceServer(r, s.hub)
}

// Run runs the service's timers and effects, and the console, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Service.Run(ctx, s.plan) })
	group.Go(func() error { return s.serveConsole(ctx) })
	return group.Wait()
}
