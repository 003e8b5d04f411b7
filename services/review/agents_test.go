// SPDX-License-Identifier: Apache-2.0

package review_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/artefacts"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/rpc"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// agents stands for the deployment service with the test server's agent attached. The agent does what a real one does: it
// reads the patch from the review service, applies it with git to its own folder, and confirms the tree it then has.
type agents struct {
	deploymentv1.UnimplementedAgentServiceServer
	rig  *rig
	conn *grpc.ClientConn

	mu      sync.Mutex
	away    bool
	broken  bool   // the agent answers every job with an error
	holds   string // what it says that it holds, if not what is asked for
	jobs    []*deploymentv1.RunJobRequest
	asked   int // also while away
	changed chan struct{}
}

func startAgents(r *rig) *agents {
	a := &agents{rig: r, changed: make(chan struct{})}
	a.conn = plain(r.t, func(s grpc.ServiceRegistrar) { deploymentv1.RegisterAgentServiceServer(s, a) })
	return a
}

func (a *agents) set(away, broken bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away, a.broken = away, broken
}

// done are the jobs that reached the agent.
func (a *agents) done() []*deploymentv1.RunJobRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]*deploymentv1.RunJobRequest(nil), a.jobs...)
}

// waitAsked waits until the service has asked for a job n times more than now.
func (a *agents) waitAsked(n int) {
	a.rig.t.Helper()
	a.mu.Lock()
	until := a.asked + n
	a.mu.Unlock()
	deadline := time.After(time.Minute)
	for {
		a.mu.Lock()
		asked, changed := a.asked, a.changed
		a.mu.Unlock()
		if asked >= until {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			a.rig.t.Fatal("the agent was never asked")
		}
	}
}

// hold makes the agent say that it holds a tree, whatever it installed.
func (a *agents) hold(tree string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holds = tree
}

// tell answers what the test server holds.
func (a *agents) tell(req *deploymentv1.RunJobRequest) (*deploymentv1.RunJobResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	tree := a.holds
	if tree == "" {
		tree = req.GetJob().GetBaseTree()
	}
	if a.away {
		return nil, status.Error(codes.Unavailable, "no agent of that name is attached")
	}
	return &deploymentv1.RunJobResponse{Result: &deploymentv1.JobResult{JobId: req.GetJob().GetId(), Ok: !a.broken, PreTree: tree, PostTree: tree}}, nil
}

func (a *agents) RunJob(ctx context.Context, req *deploymentv1.RunJobRequest) (*deploymentv1.RunJobResponse, error) {
	if req.GetJob().GetKind() == deploymentv1.JobKind_JOB_KIND_REPORT_TREE {
		return a.tell(req)
	}
	a.mu.Lock()
	a.asked++
	close(a.changed)
	a.changed = make(chan struct{})
	away, broken := a.away, a.broken
	if !away {
		a.jobs = append(a.jobs, req)
	}
	a.mu.Unlock()
	if away {
		return nil, status.Error(codes.Unavailable, "no agent of that name is attached")
	}
	if broken {
		return &deploymentv1.RunJobResponse{Result: &deploymentv1.JobResult{JobId: req.GetJob().GetId(), ErrorCode: "HOST_BASE_MISMATCH", ErrorDetail: "the folder holds another tree"}}, nil
	}
	tree, err := a.install(req.GetJob())
	if err != nil {
		if status.Code(err) != codes.Canceled { // the end of the test
			a.rig.t.Errorf("agent: %v", err)
		}
		return nil, err
	}
	return &deploymentv1.RunJobResponse{Result: &deploymentv1.JobResult{JobId: req.GetJob().GetId(), Ok: true, PostTree: tree}}, nil
}

func (a *agents) install(job *deploymentv1.Job) (string, error) {
	r, agent := a.rig, "test:"+proceduretest.TestServer
	p, err := r.read(agent, job.GetBinding().GetRevision())
	if err != nil {
		return "", fmt.Errorf("read patch: %w", err)
	}
	if got := artefacts.Digest(p.GetBytes()); got != job.GetPatchSha256() || got != p.GetSha256() {
		return "", fmt.Errorf("the bytes have digest %s, the job says %s, the answer %s", got, job.GetPatchSha256(), p.GetSha256())
	}
	tree, err := applied(r, p.GetDiff())
	if err != nil {
		return "", err
	}
	_, err = r.send(agent, r.prepare(agent, &emergencyv1.ConfirmTestServerRequest{Binding: job.GetBinding(), Tree: tree, Environment: proceduretest.TestServer}))
	return tree, err
}

// applied is the tree that git makes of the base with a diff, in a folder of its own.
func applied(r *rig, diff []byte) (string, error) {
	dir, err := os.MkdirTemp("", "agent-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	file, folder := filepath.Join(dir, "diff"), filepath.Join(dir, "work")
	if err := os.WriteFile(file, diff, 0o600); err != nil {
		return "", err
	}
	r.work.Git("clone", "--quiet", "--branch", "release", r.remote, folder)
	r.work.Git("-C", folder, "apply", "--index", file)
	id := strings.TrimSpace(r.work.Git("-C", folder, "write-tree"))
	algo, _ := gittree.AlgoOf(id)
	return string(algo) + ":" + id, nil
}

// dialled is a client's connection.
type dialled = *grpc.ClientConn

// conns keeps one connection for each caller.
type conns struct {
	rig    *rig
	dialer func(context.Context, string) (net.Conn, error)
	mu     sync.Mutex
	open   map[string]dialled
}

func newConns(r *rig, dialer func(context.Context, string) (net.Conn, error)) *conns {
	return &conns{rig: r, dialer: dialer, open: map[string]dialled{}}
}

func (c *conns) get(_ context.Context, who string) (dialled, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn, ok := c.open[who]; ok {
		return conn, nil
	}
	conn, err := rpc.Dial(rpc.LocalAddr, rpc.ClientConfig{Identity: c.rig.authority.of(who, proceduretest.KeyOf(who).Signer), Dialer: c.dialer})
	if err == nil {
		c.open[who] = conn
	}
	return conn, err
}

func (c *conns) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		_ = conn.Close()
	}
	c.open = nil
}
