// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/agent"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// forger writes records with the services' real keys into the real log. Every reader takes them for history; only the
// people's own signatures it cannot make.
type forger struct {
	t    *testing.T
	env  *testenv.Env
	keys *history.Keyring
	ca   *devca.CA
	s    *testenv.Story
}

func newForger(t *testing.T, env *testenv.Env, s *testenv.Story) *forger {
	t.Helper()
	keys, err := history.LoadKeyring(env.Data("services.keys.json"))
	must(t, err)
	ca, err := devca.Open(env.Data("ca"), env.Clock.Now)
	must(t, err)
	return &forger{t, env, keys, ca, s}
}

// write appends a record as if the person had given the command.
func (f *forger) write(owner, command, person string, role emergencyv1.Role, approval *emergencyv1.Approval, payloads ...proto.Message) {
	f.t.Helper()
	key, _, err := f.ca.SigningKey(owner)
	must(f.t, err)
	signer, err := history.NewSigner(key)
	must(f.t, err)
	for {
		reading, err := history.Read(f.t.Context(), f.env.Node().Store(), f.keys, f.s.ID)
		must(f.t, err)
		head, at := reading.Chain.Head(), timestamppb.New(f.env.Clock.Now())
		rec := &emergencyv1.Record{
			Incident: f.s.ID, FirstPosition: head.Position + 1, Owner: owner, Command: command, RequestId: "forged-" + command,
			Actor: &emergencyv1.Actor{Person: person, Role: role, KeyId: f.env.As(person).KeyID()}, Authority: "seed 1.8", OccurredAt: at, RecordedAt: at,
			PolicyDigest: f.s.State().Policy.Digest, PrevHash: head.Hash, Approval: approval,
		}
		for _, p := range payloads {
			e, err := procedure.EncodeEvent(owner, p)
			must(f.t, err)
			rec.Events = append(rec.Events, e)
		}
		signed, _, err := history.Seal(rec, signer)
		must(f.t, err)
		_, err = f.env.Node().Store().Append(f.t.Context(), f.s.ID, reading.Last, signed, nil)
		if errors.Is(err, history.ErrConflict) {
			continue // an honest service was faster
		}
		must(f.t, err)
		return
	}
}

// deploy writes everything from the second review to the start of the apply, without anybody's doing.
func (f *forger) deploy(second *emergencyv1.Approval) {
	f.t.Helper()
	b, r := f.s.Binding(), f.s.Revision()
	const sa, ca = emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR, emergencyv1.Role_ROLE_CRITICAL_ADMIN
	f.write("review", "RecordSecondReview", "bert", sa, second, &emergencyv1.SecondReviewRecorded{Binding: b, Reviewer: "bert", Verdict: testenv.Approve, Phase: emergencyv1.Phase_PHASE_BEFORE})
	f.write("review", "Forward", "bert", sa, nil, &emergencyv1.PatchForwarded{Binding: b, To: "carla"})
	f.write("deployment", "ConfirmObserver", "carl", ca, nil, &emergencyv1.ObserverConfirmed{Binding: b, Observer: "carl", Kind: emergencyv1.ObserverKind_OBSERVER_KIND_BEFORE})
	f.write("deployment", "DryRun", "carla", ca, nil, &emergencyv1.DryRunRecorded{Binding: b, Host: demobook.Host, HostTree: r.BaseTree, ResultTree: r.ResultTree, Clean: true, FilesChanged: 1})
	f.write("deployment", "StartApply", "carla", ca, nil, &emergencyv1.ApplyStarted{Binding: b, Host: demobook.Host, Executor: "carla", Observer: "carl"})
}

// TestInventedApproval: whoever holds the keys of review and deployment services and writes an approval that nobody gave
// gets the job handed out, by the honest part of the system too; the agent refuses it and names what is missing.
func TestInventedApproval(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		approval func(*testing.T, *testenv.Env, *testenv.Story) *emergencyv1.Approval
		point    string
	}{
		"without a signature": {
			approval: func(*testing.T, *testenv.Env, *testenv.Story) *emergencyv1.Approval { return nil },
			point:    "RecordSecondReview by bert has no signature of that person",
		},
		"with the signature of the first review": {
			approval: func(t *testing.T, env *testenv.Env, s *testenv.Story) *emergencyv1.Approval {
				t.Helper()
				var first *emergencyv1.Approval
				must(t, env.As("clara").Records(t.Context(), s.ID, func(r *emergencyv1.SignedRecord) error {
					rec := new(emergencyv1.Record)
					if err := proto.Unmarshal(r.GetRecord(), rec); err != nil || rec.GetCommand() != "RecordFirstReview" {
						return err
					}
					first = rec.GetApproval()
					return nil
				}))
				return first
			},
			point: "which is none of bert's",
		},
		"signed by the forger": {
			approval: func(t *testing.T, env *testenv.Env, s *testenv.Story) *emergencyv1.Approval {
				t.Helper()
				cmd := s.SecondReview(testenv.Approve)
				cmd.Meta = &emergencyv1.CommandMeta{Incident: s.ID, RequestId: "forged-RecordSecondReview"}
				_, err := env.As("emil").Sign(t.Context(), cmd)
				must(t, err)
				a := cmd.GetMeta().GetApproval()
				a.KeyId = env.As("bert").KeyID()
				return a
			},
			point: "RecordSecondReview by bert",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := testenv.Start(t, testenv.Options{})
			s := env.Play(testenv.Tested)
			newForger(t, env, s).deploy(c.approval(t, env, s))
			refused := env.Log.Await(0, "job not done", "JOB_KIND_APPLY")
			names(t, refused, "HISTORY_INVALID", c.point)
			in := env.Await(s.ID, "the agent's report", func(in *dashboardv1.Incident) bool {
				return testenv.Deployment(in) != "APPLYING" && testenv.Deployment(in) != ""
			})
			if got := testenv.Deployment(in); got != "FAILED" && got != "BACKED_OUT" {
				t.Errorf("the deployment is %s", got)
			}
			untouched(t, env, demobook.Host)
		})
	}
}

// liar is a deployment service, and a review service, in the hands of an attacker: it hands out the jobs it likes, takes
// every report, and may hand out other bytes.
type liar struct {
	deploymentv1.UnimplementedAgentServiceServer
	deploymentv1.UnimplementedDeploymentServiceServer
	reviewv1.UnimplementedReviewReaderServiceServer
	jobs    chan *deploymentv1.Job
	results chan *deploymentv1.JobResult
	truth   func() reviewv1.ReviewReaderServiceClient

	mu      sync.Mutex
	swap    bool
	reports []string
}

func (l *liar) Attach(stream grpc.BidiStreamingServer[deploymentv1.AttachRequest, deploymentv1.AttachResponse]) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	for {
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case j := <-l.jobs:
			if err := stream.Send(&deploymentv1.AttachResponse{Job: j}); err != nil {
				return err
			}
		}
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		l.results <- m.GetResult()
	}
}

func (l *liar) ReportApply(_ context.Context, req *emergencyv1.ReportApplyRequest) (*emergencyv1.ReportApplyResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reports = append(l.reports, req.GetOutcome().String())
	return &emergencyv1.ReportApplyResponse{}, nil
}

func (l *liar) ReportTree(context.Context, *emergencyv1.ReportTreeRequest) (*emergencyv1.ReportTreeResponse, error) {
	return &emergencyv1.ReportTreeResponse{}, nil
}

func (l *liar) ReadPatch(ctx context.Context, req *reviewv1.ReadPatchRequest) (*reviewv1.ReadPatchResponse, error) {
	resp, err := l.truth().ReadPatch(ctx, req)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && l.swap {
		resp.Bytes, resp.Diff = flipped(resp.GetBytes()), flipped(resp.GetBytes())
	}
	return resp, err
}

// serve runs the liar with the services' real certificate and returns its address.
func (l *liar) serve(t *testing.T, env *testenv.Env) string {
	t.Helper()
	profile, err := identity.Load(env.Data("services", "epatchd"), identity.LoadOptions{Now: env.Clock.Now(), Dev: true})
	must(t, err)
	server, err := rpc.NewServer(rpc.ServerConfig{
		Identity: func() *identity.Profile { return profile }, Authorize: func(context.Context, string, identity.Caller) error { return nil },
		Logger: slog.New(slog.NewTextHandler(env.Log, nil)), Now: env.Clock.Now,
	})
	must(t, err)
	deploymentv1.RegisterAgentServiceServer(server, l)
	deploymentv1.RegisterDeploymentServiceServer(server, l)
	reviewv1.RegisterReviewReaderServiceServer(server, l)
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, lis) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return lis.Addr().String()
}

// ask hands out a job and returns what the agent says.
func (l *liar) ask(t *testing.T, j *deploymentv1.Job) *deploymentv1.JobResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	select {
	case l.jobs <- j:
	case <-ctx.Done():
		t.Fatal("the agent takes no job")
	}
	select {
	case r := <-l.results:
		return r
	case <-ctx.Done():
		t.Fatal("the agent does not answer")
	}
	return nil
}

// TestLyingDeploymentService: a deployment service that hands out a revision nobody approved, another patch or another tree
// gets nothing done; the true job is done.
func TestLyingDeploymentService(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.DryRun)
	env.Agent(demobook.Host).Stop()
	s.Until(testenv.Started)
	st := s.State()
	r, a := st.Current(), st.RunningApply()
	truth := &deploymentv1.Job{
		Id: s.ID + "/" + itoa(a.Position), Kind: deploymentv1.JobKind_JOB_KIND_APPLY, Incident: s.ID, Binding: s.Binding(),
		PatchSha256: r.Artefact.GetSha256(), BaseTree: r.BaseTree, ResultTree: r.ResultTree,
	}
	unapproved := env.Repo.Diff(map[string]string{testenv.Program: strings.Replace(testenv.Repaired, "%s", "%.9s", 1)}).Register()
	s.Do("dora", unapproved)
	never, ok := s.State().Revision("P2r1")
	if !ok {
		t.Fatal("no second patch")
	}

	l := &liar{jobs: make(chan *deploymentv1.Job), results: make(chan *deploymentv1.JobResult), truth: env.As("carla").Patches}
	addr := l.serve(t, env)
	cfg := env.AgentConfig(demobook.Host)
	cfg.Deployment, cfg.Review = addr, addr
	env.StartAgentWith(cfg, agent.Deps{Dialer: func(ctx context.Context, to string) (net.Conn, error) {
		if to == addr {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
		return env.Dial(ctx, to)
	}})
	change := func(f func(*deploymentv1.Job)) *deploymentv1.Job {
		j := proto.CloneOf(truth)
		f(j)
		return j
	}
	for name, lie := range map[string]struct {
		job         *deploymentv1.Job
		swap        bool
		code, point string
	}{
		"a revision that nobody approved": {job: change(func(j *deploymentv1.Job) {
			j.Binding = &emergencyv1.Binding{Revision: never.ID, Digest: never.Binding}
			j.PatchSha256, j.BaseTree, j.ResultTree = never.Artefact.GetSha256(), never.BaseTree, never.ResultTree
		}), code: "NO_APPLY_RUNNING", point: "no apply of P2r1 was started"},
		"another patch": {job: change(func(j *deploymentv1.Job) { j.PatchSha256 = never.Artefact.GetSha256() }), code: "JOB_DIFFERS", point: "patch digest of P1r1"},
		"another tree":  {job: change(func(j *deploymentv1.Job) { j.ResultTree = never.ResultTree }), code: "JOB_DIFFERS", point: "result tree of P1r1"},
		"other bytes":   {job: truth, swap: true, code: "PATCH_DIFFERS", point: "reviewed was " + r.Artefact.GetSha256()},
	} {
		l.mu.Lock()
		l.swap = lie.swap
		l.mu.Unlock()
		res := l.ask(t, lie.job)
		if res.GetOk() || res.GetErrorCode() != lie.code || !strings.Contains(res.GetErrorDetail(), lie.point) {
			t.Errorf("%s: the agent says %v", name, res)
		}
		untouched(t, env, demobook.Host)
	}
	l.mu.Lock()
	l.swap = false
	l.mu.Unlock()
	if res := l.ask(t, truth); !res.GetOk() || res.GetPostTree() != r.ResultTree {
		t.Errorf("the true job: %v", res)
	}
	holds(t, env, demobook.Host, r.ResultTree)
	if got := read(t, filepath.Join(env.Root(demobook.Host), testenv.Program)); got != testenv.Repaired {
		t.Errorf("the program is %q", got)
	}
}
