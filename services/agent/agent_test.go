// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/agent"
	"cacert.org/emergency/services/deployment/deploymenttest"
)

// childTask names the variable by which this test binary becomes an agent that can be killed.
const childTask = "EPATCH_TEST_AGENT_CHILD"

// child is what the child process is told.
type child struct {
	Config agent.Config
	KillAt string // step at which the process kills itself; none if empty
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "console-shell" {
		err := agent.Command(os.Environ()).ExecuteContext(context.Background())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(agent.ExitStatus(err))
	}
	if raw := os.Getenv(childTask); raw != "" {
		os.Exit(runChild(raw))
	}
	os.Exit(m.Run())
}

func runChild(raw string) int {
	var c child
	if err := json.Unmarshal([]byte(raw), &c); err != nil {
		return 2
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	a, err := agent.New(c.Config, agent.Deps{Log: log, Failpoint: func(step string) {
		if c.KillAt != "" && step == c.KillAt {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until the signal is delivered nothing more may happen
		}
	}})
	if err != nil {
		log.Error("agent", "error", err)
		return 3
	}
	if err := a.Run(context.Background()); err != nil {
		log.Error("agent", "error", err)
		return 4
	}
	return 0
}

func config(r *deploymenttest.Rig, addr string) agent.Config {
	return agent.Config{
		Name: deploymenttest.Host, Kind: agent.KindHost, Root: r.HostRoot, StateDir: filepath.Join(r.Dir, "host-state"),
		Profile: r.ProfileDir(deploymenttest.Host), Keyring: r.KeyFile, Services: addr, Patience: 2 * time.Second,
	}
}

func testConfig(r *deploymenttest.Rig, addr string) agent.Config {
	c := config(r, addr)
	c.Name, c.Kind, c.Root, c.StateDir, c.Profile = deploymenttest.TestServer, agent.KindTest, r.TestRoot, filepath.Join(r.Dir, "test-state"), r.ProfileDir(deploymenttest.TestServer)
	return c
}

// start runs an agent in this process until the test ends, or it is stopped.
func start(r *deploymenttest.Rig, c agent.Config, now func() time.Time) (stop func()) {
	r.Helper()
	a, err := agent.New(c, agent.Deps{Log: r.Logger, Now: now})
	r.Must(err)
	return r.Background(func(ctx context.Context) error {
		return errors.Join(a.Run(ctx), a.Close())
	})
}

// world is a rig with servers.
type world struct {
	*deploymenttest.Rig
	query  *deploymenttest.Query
	review *deploymenttest.Review
	hub    *deploymenttest.Hub // nil where the real service hands out the jobs
	addr   string
}

func (w *world) register(s grpc.ServiceRegistrar) {
	dashboardv1.RegisterQueryServiceServer(s, w.query)
	reviewv1.RegisterReviewServiceServer(s, w.review)
	reviewv1.RegisterReviewReaderServiceServer(s, w.review)
	if w.hub == nil {
		w.Deployment.Register(s)
		return
	}
	deploymentv1.RegisterDeploymentServiceServer(s, w.Deployment)
	deploymentv1.RegisterAgentServiceServer(s, w.hub)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	r := deploymenttest.New(t)
	return &world{Rig: r, query: &deploymenttest.Query{Rig: r}, review: &deploymenttest.Review{Rig: r, Patches: map[string][]byte{}}}
}

// honest is a world in which the real deployment service runs, with its effects.
func honest(t *testing.T) *world {
	w := newWorld(t)
	w.addr = w.Serve(w.register)
	w.Background(w.Reader.Run)
	w.Background(w.Deployment.Run)
	return w
}

// scripted is a world in which a test hands out the jobs; reports go to the real deployment service.
func scripted(t *testing.T) *world {
	w := newWorld(t)
	w.hub = deploymenttest.NewHub()
	w.addr = w.Serve(w.register)
	return w
}

// run has the agent do a job.
func (w *world) run(j *deploymentv1.Job) *deploymentv1.JobResult {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	r, err := w.hub.Run(ctx, j)
	w.Must(err)
	return r
}

func (w *world) client(who string) deploymentv1.DeploymentServiceClient {
	return deploymentv1.NewDeploymentServiceClient(w.Conn(w.addr, who))
}

func (w *world) wantTree(dir, want string) {
	w.Helper()
	if got := w.TreeOf(dir); got != want {
		w.Errorf("%s holds tree %s, want %s", filepath.Base(dir), got, want)
	}
}

func (w *world) wantState(incident string, want procedure.ApplyState) *procedure.Apply {
	w.Helper()
	st := w.WaitFor(incident, "an apply that is "+string(want), func(s *procedure.State) bool {
		return len(s.Applies) > 0 && s.Applies[0].State == want
	})
	return &st.Applies[0]
}

// TestDeployment is seed 1.9 with nothing left out but the people: dry run, apply, verification and replication by the real
// service and a real agent, then a second look, and the way back.
func TestDeployment(t *testing.T) {
	t.Parallel()
	w := honest(t)
	start(w.Rig, config(w.Rig, w.addr), nil)
	incident := w.Forwarded()
	ctx := context.Background()
	dry := &emergencyv1.DryRunRequest{}
	w.Prepare("carla", incident, dry)
	_, err := w.client("carla").DryRun(ctx, dry)
	w.Must(err)
	if runs := w.State(incident).DryRuns; len(runs) != 1 || !runs[0].Clean || runs[0].HostTree != w.BaseTree() {
		t.Fatalf("dry runs %+v", runs)
	}
	w.wantTree(w.HostRoot, w.BaseTree())
	w.Start(incident, false)
	a := w.wantState(incident, procedure.Verified)
	if a.HostTree != w.ResultTree() || a.PreTree != w.BaseTree() || a.Applied.By != deploymenttest.Host {
		t.Errorf("apply %+v", a)
	}
	w.wantTree(w.HostRoot, w.ResultTree())
	checked := w.WaitFor(incident, "a comparison", func(s *procedure.State) bool { return len(s.Replications) > 0 })
	if k := checked.Replications[0].Kind; k != emergencyv1.ReplicationResult_REPLICATION_RESULT_EQUAL || len(checked.Pushes) != 1 {
		t.Errorf("replication is %v after pushes %+v", k, checked.Pushes)
	}
	if got := strings.TrimSpace(w.Repo.Git("--git-dir="+w.Bare, "rev-parse", deploymenttest.Release)); got != w.Fixed {
		t.Errorf("the release branch is at %s, want %s", got, w.Fixed)
	}
	second := &emergencyv1.ConfirmObserverRequest{Kind: emergencyv1.ObserverKind_OBSERVER_KIND_AFTER}
	w.Prepare("carl", incident, second)
	_, err = w.client("carl").ConfirmObserver(ctx, second)
	w.Must(err)
	w.Do("carla", incident, &emergencyv1.RollBackRequest{Reason: "logins fail", Observer: "carl"}, procedure.Facts{})
	w.wantState(incident, procedure.RolledBack)
	w.wantTree(w.HostRoot, w.BaseTree())
	checked = w.WaitFor(incident, "a second comparison", func(s *procedure.State) bool { return len(s.Replications) > 1 })
	if k, n := checked.Replications[1].Kind, len(checked.Drift); k != emergencyv1.ReplicationResult_REPLICATION_RESULT_DRIFT || n != 4 {
		t.Errorf("after the roll-back host and branch are %v with %d paths, want DRIFT with the 4 of the patch", k, n)
	}
}
