// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/projection/pulse"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/pkg/timer"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	"cacert.org/emergency/services/dashboard/pages"
	"cacert.org/emergency/services/dashboard/view"
)

// Config is what the service is given. Clock, Log, Store, Keys and Incidents are required.
type Config struct {
	Clock timer.Clock
	Log   *slog.Logger

	// The histories, and whose records count: for rebuilding projections beside the running ones.
	Store history.Store
	Keys  *history.Keyring

	// Incidents is the folded state of all incidents; the same runner feeds it and Projections.
	Incidents *projection.Incidents

	// Peers are connections to the services by owner, for restricted values, patches, sessions and the commands that people give in pages.
	// One that is missing is away.
	Peers map[string]grpc.ClientConnInterface

	// PublicURL is where the pages are reached, such as https://emergency.cacert.org, for the links of the Atom feed; they are
	// relative if it is empty.
	PublicURL string
	// Development says on every page that a development authority and demo people are in use.
	Development bool

	// Pulse tells how old what the projections say is, for the pages to tell. Optional: they then never do.
	Pulse *pulse.Pulse

	// Links answers the one-time links of pages to responders, under /r/; Metrics answers /metrics. Optional.
	Links   http.Handler
	Metrics http.Handler
	// Ready tells why the process is not ready, beyond what the dashboard knows itself. Optional.
	Ready func() error

	// Typed is what to type for a command about a subject in an incident, for the pages; Process what the process knows about
	// itself. Optional.
	Typed   func(command, subject, incident string) string
	Process func(context.Context) pages.Process

	// DemoSigner is the key of a demo person, in a development system that has it; people of the demo then sign in pages without a
	// passkey. Optional.
	DemoSigner func(person string) (crypto.Signer, error)

	// KeepAlive is after how long without a change a watcher gets the present state again; 15 seconds if 0.
	KeepAlive time.Duration
}

// defaultKeepAlive is shorter than what proxies and phones give an idle connection.
const defaultKeepAlive = 15 * time.Second

// Server is the service.
type Server struct {
	dashboardv1.UnimplementedQueryServiceServer
	cfg      Config
	timeline *view.Timeline
	log      *view.Log
	records  *view.Records
	reader   atomic.Pointer[projection.Runner]
	rebuild  chan struct{} // one rebuild at a time
	people   *pages.Pages
}

// New builds the service. It answers nothing before Follow.
func New(cfg Config) (*Server, error) {
	if cfg.Clock == nil || cfg.Log == nil || cfg.Store == nil || cfg.Keys == nil || cfg.Incidents == nil {
		return nil, errors.New("dashboard: a dependency is missing")
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = defaultKeepAlive
	}
	s := &Server{cfg: cfg, timeline: view.NewTimeline(), log: view.NewLog(), records: view.NewRecords(), rebuild: make(chan struct{}, 1)}
	paths := map[string]string{}
	for name, a := range assets() {
		paths[name] = a.path
	}
	public, err := url.Parse(cfg.PublicURL)
	if err != nil {
		return nil, fmt.Errorf("dashboard: public URL: %w", err)
	}
	s.people, err = pages.New(pages.Config{
		PublicURL: cfg.PublicURL, RelyingParty: public.Hostname(),
		Clock: cfg.Clock, Log: cfg.Log, Query: s, Incidents: cfg.Incidents, Records: s.records, Reader: s.running, Peers: cfg.Peers,
		Typed: cfg.Typed, Process: cfg.Process, Pulse: cfg.Pulse, Assets: paths, Development: cfg.Development, DemoSigner: cfg.DemoSigner, KeepAlive: cfg.KeepAlive,
	})
	return s, err
}

// HangUp ends what is live in pages, so that a server that stops need not wait for people to leave.
func (s *Server) HangUp() { s.people.HangUp() }

// Projections are what the service wants fed, beside Config.Incidents, by one runner.
func (s *Server) Projections() []projection.Projection {
	return []projection.Projection{s.timeline, s.log, s.records}
}

// Follow names the runner that feeds Config.Incidents and Projections. Call it when the runner has caught up, so that the
// first answers are already true.
func (s *Server) Follow(r *projection.Runner) {
	s.cfg.Incidents.EachWaiting(func(*procedure.State) {}) // which of all incidents wait is found once: not while the first person waits for it
	s.reader.Store(r)
}

// Register adds the query service to a gRPC server. ReadLog is for everybody: name LogMethod among the anonymous methods.
func (s *Server) Register(r grpc.ServiceRegistrar) { dashboardv1.RegisterQueryServiceServer(r, s) }

// LogMethod is the one method that needs no identity.
const LogMethod = dashboardv1.QueryService_ReadLog_FullMethodName

// running returns the runner, or the error of a service that is still starting.
func (s *Server) running() (*projection.Runner, error) {
	if r := s.reader.Load(); r != nil {
		return r, nil
	}
	return nil, service.Away("the dashboard still reads the histories")
}

// all are the projections that can be dumped, by name, and empty ones of the same kind.
func (s *Server) all() (running, fresh []projection.Projection) {
	running = append([]projection.Projection{s.cfg.Incidents}, s.Projections()...)
	fresh = []projection.Projection{projection.NewIncidents(), view.NewTimeline(), view.NewLog(), view.NewRecords()}
	return running, fresh
}
