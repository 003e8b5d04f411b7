// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/procfs"
	"google.golang.org/grpc"

	historystore "cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	incidentv1 "cacert.org/emergency/proto/emergency/incident/v1"
	"cacert.org/emergency/services/internal/child"
	"cacert.org/emergency/services/internal/cluster"
)

// rawStream is where the baseline writes: replicated and synced as the histories are, on the same servers, and read by nobody.
const rawStream = "BENCH"

// connections are how many each side's clients share.
const connections = 8

// fleet is an installation of processes: three servers of the log and both instances of the service that is measured.
type fleet struct {
	cluster *cluster.Cluster
	js      jetstream.JetStream
	clients [2][]incidentv1.IncidentServiceClient // by instance
	open    []*grpc.ClientConn
}

// replicated compares a command on three replicas with a bare publish to them, and two instances of a service with one. The other
// services and this process's clients have the same processors, so the others are stopped.
func replicated(ctx context.Context, opt Options) (figures []Figure, err error) {
	dir, err := os.MkdirTemp("", "epatch-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f := &fleet{}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.start(ctx, dir); err != nil {
		return nil, err
	}
	return f.measure(ctx, opt)
}

func (f *fleet) start(ctx context.Context, dir string) error {
	repository := filepath.Join(dir, "repository.git")
	if err := exec.CommandContext(ctx, "git", "init", "--quiet", "--bare", repository).Run(); err != nil {
		return fmt.Errorf("git init: %w", err)
	}
	cfg := cluster.Config{Dir: dir, Repository: repository, More: map[string][]string{procedure.OwnerIncident: {"--limit-known", "0"}}}
	var err error
	if cfg.Epatchd.Path, err = child.Beside("epatchd"); err != nil {
		return err
	}
	if cfg.NATS.Path, err = child.Beside("nats-server"); err != nil {
		return err
	}
	if f.cluster, err = cluster.Start(ctx, cfg); err != nil {
		return err
	}
	for _, i := range f.cluster.Instances {
		if i.Service != procedure.OwnerIncident {
			if err := i.Process().Stop(); err != nil {
				return err
			}
		}
	}
	profile, err := identity.Load(filepath.Join(dir, "people", "carla"), identity.LoadOptions{Now: time.Now(), Dev: true})
	if err != nil {
		return err
	}
	for n, addr := range f.cluster.Of(procedure.OwnerIncident) {
		for range connections {
			conn, err := rpc.Dial(addr, rpc.ClientConfig{Identity: profile.Current})
			if err != nil {
				return err
			}
			f.open = append(f.open, conn)
			f.clients[n] = append(f.clients[n], incidentv1.NewIncidentServiceClient(conn))
		}
	}
	if f.js, err = f.cluster.Log(); err != nil {
		return err
	}
	return f.rawStream(ctx)
}

// rawStream makes the baseline's stream and has one server lead it and the histories, so that no side has the shorter way.
func (f *fleet) rawStream(ctx context.Context) error {
	histories, err := f.js.Stream(ctx, natsd.Stream)
	if err != nil {
		return err
	}
	cfg := histories.CachedInfo().Config
	cfg.Name, cfg.Subjects, cfg.Description = rawStream, []string{"bench.>"}, ""
	if _, err := f.js.CreateStream(ctx, cfg); err != nil {
		return fmt.Errorf("stream of the baseline: %w", err)
	}
	for _, name := range []string{natsd.Stream, rawStream} {
		if err := f.lead(ctx, name, f.cluster.Servers[0].Name); err != nil {
			return fmt.Errorf("%s led by %s: %w", name, f.cluster.Servers[0].Name, err)
		}
	}
	return f.cluster.AwaitHealthy(ctx)
}

func (f *fleet) lead(ctx context.Context, stream, server string) error {
	for {
		s, err := f.js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		if c := s.CachedInfo().Cluster; c != nil && c.Leader == server {
			return nil
		}
		ask, err := json.Marshal(map[string]any{"placement": map[string]string{"preferred": server}})
		if err != nil {
			return err
		}
		if _, err := f.js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+stream, ask); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func (f *fleet) measure(ctx context.Context, opt Options) ([]Figure, error) {
	var incidents []string
	for range 64 {
		id, err := declare(ctx, f.clients[0][0])
		if err != nil {
			return nil, err
		}
		incidents = append(incidents, id)
	}
	size, err := f.recordSize(ctx, incidents[0])
	if err != nil {
		return nil, err
	}
	raw := rawPublish(f.js, rawStream, "bench.", size)
	on := func(instances int) func(ctx context.Context, client int) error {
		return func(ctx context.Context, client int) error {
			return note(ctx, f.clients[client%instances][client/2%connections], incidents[client])
		}
	}
	for _, op := range []func(context.Context, int) error{on(1), on(2), raw} { // states into memory, connections up
		if _, err := turn(ctx, 64, time.Second, op); err != nil {
			return nil, err
		}
	}
	var list []Figure
	for _, n := range clientCounts() {
		ours, base, err := sideBySide(ctx, opt, n, on(1), raw)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("three replicas: command end to end against raw publish, %d clients", n)
		list = append(list, figure(name, "1/s", ours.perSecond, base.perSecond), figure(name+", p99", "ms", ms(ours.p99), ms(base.p99)))
	}
	two, one, err := sideBySide(ctx, opt, 64, on(2), on(1))
	if err != nil {
		return nil, err
	}
	list = append(list, figure("three replicas: commands by two instances against one, 64 clients", "1/s", two.perSecond, one.perSecond))
	spent, err := f.spent(ctx, opt, 64, on(1), raw)
	return append(list, spent...), err
}

// spent tells whose processor time a command takes, and a bare publish.
func (f *fleet) spent(ctx context.Context, opt Options, clients int, ours, base func(context.Context, int) error) ([]Figure, error) {
	type group struct {
		name string
		pids []int
	}
	groups := []group{{"the log's three servers", nil}, {"both instances of the service", nil}, {"the clients", []int{os.Getpid()}}}
	for _, s := range f.cluster.Servers {
		groups[0].pids = append(groups[0].pids, s.Process().ID())
	}
	for _, i := range f.cluster.Instances {
		if i.Service == procedure.OwnerIncident {
			groups[1].pids = append(groups[1].pids, i.Process().ID())
		}
	}
	used := func() (list []float64, err error) {
		for _, g := range groups {
			sum := 0.0
			for _, pid := range g.pids {
				p, err := procfs.NewProc(pid)
				if err != nil {
					return nil, err
				}
				stat, err := p.Stat()
				if err != nil {
					return nil, err
				}
				sum += stat.CPUTime()
			}
			list = append(list, sum)
		}
		return list, nil
	}
	perOperation := func(op func(context.Context, int) error) ([]float64, error) {
		before, err := used()
		if err != nil {
			return nil, err
		}
		begun := time.Now()
		s, err := turn(ctx, clients, opt.Slice*time.Duration(opt.Rounds), op)
		if err != nil {
			return nil, err
		}
		operations := s.perSecond * time.Since(begun).Seconds()
		after, err := used()
		for i := range after {
			after[i] = (after[i] - before[i]) * 1000 / operations
		}
		return after, err
	}
	a, err := perOperation(ours)
	if err != nil {
		return nil, err
	}
	b, err := perOperation(base)
	if err != nil {
		return nil, err
	}
	var list []Figure
	for i, g := range groups {
		list = append(list, figure(fmt.Sprintf("three replicas: processor time of a command, %d clients: %s", clients, g.name), "ms", a[i], b[i]))
	}
	return list, nil
}

// recordSize is the stored size of a note's record.
func (f *fleet) recordSize(ctx context.Context, incident string) (int, error) {
	if err := note(ctx, f.clients[0][0], incident); err != nil {
		return 0, err
	}
	store, err := historystore.New(ctx, historystore.Config{JS: f.js, Logger: slog.New(slog.DiscardHandler), Consumers: true})
	if err != nil {
		return 0, err
	}
	return recordSize(ctx, store, incident)
}

func (f *fleet) close() error {
	var errs []error
	for _, conn := range f.open {
		errs = append(errs, conn.Close())
	}
	if f.js != nil {
		f.js.Conn().Close()
	}
	if f.cluster != nil {
		errs = append(errs, f.cluster.Stop())
	}
	return errors.Join(errs...)
}
