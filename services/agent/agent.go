// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/worktree"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
	"cacert.org/emergency/services/agent/session"
)

// Agent is one host's agent.
type Agent struct {
	cfg  Config
	deps Deps
	log  *slog.Logger

	tree    *worktree.Tree
	journal *journal
	follow  *follower
	lock    *os.File
	conns   []*grpc.ClientConn

	sessions *session.Keeper // nil on a host without watched sessions

	one        sync.Mutex                                 // one job at a time, but those that are urgent
	jobs       map[string]deploymentv1.AgentServiceClient // by address of an instance
	deployment deploymentv1.DeploymentServiceClient
	review     reviewv1.ReviewServiceClient
	patches    reviewv1.ReviewReaderServiceClient
}

// New checks settings, profile, keyring and folders, and refuses a second agent on the same state folder. It needs no
// service to be there yet. Close it.
func New(cfg Config, deps Deps) (*Agent, error) {
	if deps.Log == nil {
		return nil, errors.New("agent: a log is needed")
	}
	if deps.Now == nil {
		deps.Now = func() time.Time { return time.Now().UTC() }
	}
	if deps.Tracer == nil {
		deps.Tracer = noop.NewTracerProvider()
	}
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, deps: deps, log: deps.Log.With("agent", cfg.Name)}
	if err := a.open(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *Agent) open() error {
	if err := os.MkdirAll(a.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("setting agent-state-dir: %w", err)
	}
	var err error
	if a.lock, err = lockFile(a.cfg.state("agent.lock")); err != nil {
		return err
	}
	a.tree, err = worktree.Open(a.cfg.Root, worktree.Spec{
		Include: a.cfg.Include, Exclude: a.cfg.Exclude, StateDir: a.cfg.state("tree"), Git: a.cfg.Git, Failpoint: a.deps.Failpoint,
	})
	if err != nil {
		return fmt.Errorf("setting agent-root: %w", err)
	}
	if a.journal, err = openJournal(a.cfg.state("jobs")); err != nil {
		return err
	}
	keys, err := history.LoadKeyring(a.cfg.Keyring)
	if err != nil {
		return fmt.Errorf("setting agent-keyring: %w", err)
	}
	known, err := openHeads(a.cfg.state("heads.json"))
	if err != nil {
		return err
	}
	a.follow = &follower{keys: keys, heads: known, log: a.log}
	if err := a.openConsole(); err != nil {
		return err
	}
	return a.dial()
}

// lockFile keeps a second agent out; the kernel opens the lock when the process ends, however it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("setting agent-state-dir: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("setting agent-state-dir: another agent works with %s: %w", path, err), f.Close())
	}
	return f, nil
}

// dial prepares the connections; they are made when they are needed.
func (a *Agent) dial() error {
	profile, err := identity.Follow(a.cfg.Profile, identity.FollowOptions{Now: a.deps.Now, Dev: a.cfg.Dev, Refused: func(err error) {
		a.log.Error("profile", "error", err)
	}})
	if err != nil {
		return fmt.Errorf("setting agent-profile: %w", err)
	}
	conns := map[string]*grpc.ClientConn{}
	for _, addr := range []string{a.cfg.Deployment, a.cfg.Review, a.cfg.Query} {
		if conns[addr] != nil {
			continue
		}
		conn, err := rpc.Dial(addr, rpc.ClientConfig{Identity: profile.Current, ServerName: a.cfg.ServerName, Dialer: a.deps.Dialer, Tracer: a.deps.Tracer})
		if err != nil {
			return err
		}
		conns[addr], a.conns = conn, append(a.conns, conn)
	}
	// Jobs come from each instance of the deployment service: which one gives them is for the services.
	a.jobs = map[string]deploymentv1.AgentServiceClient{a.cfg.Deployment: deploymentv1.NewAgentServiceClient(conns[a.cfg.Deployment])}
	if instances := strings.Split(a.cfg.Deployment, ","); len(instances) > 1 {
		clear(a.jobs)
		for _, addr := range instances {
			conn, err := rpc.Dial(addr, rpc.ClientConfig{Identity: profile.Current, ServerName: a.cfg.ServerName, Dialer: a.deps.Dialer, Tracer: a.deps.Tracer})
			if err != nil {
				return err
			}
			a.conns = append(a.conns, conn)
			a.jobs[addr] = deploymentv1.NewAgentServiceClient(conn)
		}
	}
	a.deployment = deploymentv1.NewDeploymentServiceClient(conns[a.cfg.Deployment])
	a.review = reviewv1.NewReviewServiceClient(conns[a.cfg.Review])
	a.patches = reviewv1.NewReviewReaderServiceClient(conns[a.cfg.Review])
	a.follow.query = dashboardv1.NewQueryServiceClient(conns[a.cfg.Query])
	return nil
}

// Close ends the connections and lets another agent have the state folder.
func (a *Agent) Close() error {
	var errs []error
	for _, c := range a.conns {
		errs = append(errs, c.Close())
	}
	if a.sessions != nil {
		errs = append(errs, a.sessions.Close())
	}
	if a.lock != nil { // unlocked and not only closed: a child that is just being started still has a copy of the descriptor
		errs = append(errs, syscall.Flock(int(a.lock.Fd()), syscall.LOCK_UN), a.lock.Close())
	}
	return errors.Join(errs...)
}

// Run repairs what a kill left behind, then keeps the agent attached and does jobs until ctx ends. It returns an error only
// if the tree cannot be worked on at all.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.recover(ctx); err != nil {
		return err
	}
	var attached sync.WaitGroup
	for addr, jobs := range a.jobs {
		attached.Go(func() { a.stayAttached(ctx, addr, jobs) })
	}
	attached.Go(func() { a.tellEnds(ctx) })
	attached.Wait()
	return nil
}

// stayAttached keeps the agent attached to one instance of the deployment service.
func (a *Agent) stayAttached(ctx context.Context, addr string, jobs deploymentv1.AgentServiceClient) {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 200*time.Millisecond, 10*time.Second
	for ctx.Err() == nil {
		err := a.attach(ctx, addr, jobs, wait.Reset)
		if ctx.Err() != nil {
			break
		}
		pause := wait.NextBackOff()
		a.log.WarnContext(ctx, "not attached to the deployment service; trying again", "address", addr, "in", pause.String(), "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// recover brings the tree of every interrupted job to its old or its new side.
func (a *Agent) recover(ctx context.Context) error {
	outcomes, err := a.tree.Recover(ctx)
	for _, o := range outcomes {
		a.log.WarnContext(ctx, "an interrupted job was brought to rest", "job", o.JobID, "side", string(o.Landed), "tree", o.Tree, "kept", o.Kept)
	}
	var e *worktree.Error
	if errors.As(err, &e) && e.Code == worktree.CodeUnproven {
		a.log.ErrorContext(ctx, "an interrupted job could not be brought to rest; a person has to look", "error", err)
		return nil // the agent reports it, and a back-out may be tried
	}
	if err != nil {
		return fmt.Errorf("recover %s: %w", a.cfg.Root, err)
	}
	return nil
}

// resume takes up the jobs that a kill interrupted, so that the history learns the truth about them even if nobody asks
// again. They were verified, and are verified anew.
func (a *Agent) resume(ctx context.Context) {
	list, err := a.journal.unfinished()
	if err != nil {
		a.log.ErrorContext(ctx, "interrupted jobs cannot be read", "error", err)
	}
	for _, e := range list {
		if ctx.Err() == nil {
			a.log.WarnContext(ctx, "taking up an interrupted job", "job", e.job.GetId(), "kind", e.job.GetKind().String())
			a.do(ctx, "", e.job)
		}
	}
}
