// SPDX-License-Identifier: Apache-2.0

package deployment_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment"
	"cacert.org/emergency/services/deployment/deploymenttest"
)

// stream is an attached agent's end; hangUp ends it.
type stream struct {
	grpc.BidiStreamingClient[deploymentv1.AttachRequest, deploymentv1.AttachResponse]
	hangUp context.CancelFunc
}

// world is a rig whose deployment service is served, with or without its effects.
type world struct {
	*deploymenttest.Rig
	addr string
}

func serve(t *testing.T) *world {
	t.Helper()
	r := deploymenttest.New(t)
	return &world{r, r.Serve(r.Deployment.Register)}
}

func (w *world) effects() {
	w.Background(w.Reader.Run)
	w.Background(w.Deployment.Run)
}

func (w *world) client(who string) deploymentv1.DeploymentServiceClient {
	return deploymentv1.NewDeploymentServiceClient(w.Conn(w.addr, who))
}

// attach dials in as somebody under a name.
func (w *world) attach(who, name string) stream {
	w.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.Cleanup(cancel)
	s, err := deploymentv1.NewAgentServiceClient(w.Conn(w.addr, who)).Attach(ctx)
	w.Must(err)
	w.Must(s.Send(&deploymentv1.AttachRequest{Message: &deploymentv1.AttachRequest_Hello{Hello: name}}))
	return stream{s, cancel}
}

func result(r *deploymentv1.JobResult) *deploymentv1.AttachRequest {
	return &deploymentv1.AttachRequest{Message: &deploymentv1.AttachRequest_Result{Result: r}}
}

// serveJobs answers each job as told, until the stream ends.
func (w *world) serveJobs(s stream, answer func(*deploymentv1.Job) *deploymentv1.JobResult) {
	w.Background(func(ctx context.Context) error {
		defer context.AfterFunc(ctx, s.hangUp)()
		for {
			m, err := s.Recv()
			if err != nil {
				return nil
			}
			r := answer(m.GetJob())
			r.JobId = m.GetJob().GetId()
			if err := s.Send(result(r)); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		}
	})
}

func (w *world) runJob(who string, timeout time.Duration, j *deploymentv1.Job) (*deploymentv1.JobResult, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	resp, err := deploymentv1.NewAgentServiceClient(w.Conn(w.addr, who)).RunJob(ctx, &deploymentv1.RunJobRequest{Agent: deploymenttest.Host, Job: j})
	return resp.GetResult(), err
}

func treeJob(id string) *deploymentv1.Job {
	return &deploymentv1.Job{Id: id, Kind: deploymentv1.JobKind_JOB_KIND_REPORT_TREE}
}

// wantAttached waits until the agent answers.
func (w *world) wantAttached(post string) {
	w.Helper()
	r, err := w.runJob("epatchd", 30*time.Second, treeJob("tree.1"))
	if err != nil || r.GetPostTree() != post {
		w.Fatalf("answer %v, %v; want tree %s", r, err, post)
	}
}

func refusal(err error) string {
	r, ok := rpc.RefusalOf(err)
	if !ok {
		return fmt.Sprint(err)
	}
	return string(r.Reason)
}

// TestWhoMayAttach: the key in the rule book says which agent it is, and nothing else does.
func TestWhoMayAttach(t *testing.T) {
	t.Parallel()
	w := serve(t)
	for _, c := range []struct{ who, name, want string }{
		{"stranger", deploymenttest.Host, "KEY_UNKNOWN"},
		{"carla", deploymenttest.Host, "CALLER_CLASS"},
		{"epatchd", deploymenttest.Host, "CALLER_CLASS"},
		{deploymenttest.Host, deploymenttest.TestServer, "ROLE"},
		{deploymenttest.TestServer, deploymenttest.Host, "ROLE"},
		{deploymenttest.Host, "", "ROLE"},
	} {
		_, err := w.attach(c.who, c.name).Recv()
		if got := refusal(err); got != c.want {
			t.Errorf("%s as %q: %s, want %s", c.who, c.name, got, c.want)
		}
	}
	silent, err := deploymentv1.NewAgentServiceClient(w.Conn(w.addr, deploymenttest.Host)).Attach(t.Context())
	w.Must(err)
	w.Must(silent.CloseSend())
	_, err = silent.Recv()
	wantRefusal(t, err, procedure.ReasonField)
}

// TestWhoMayRunJobs: services only, and of what changes a critical host not even they.
func TestWhoMayRunJobs(t *testing.T) {
	t.Parallel()
	w := serve(t)
	change := func(kind deploymentv1.JobKind) *deploymentv1.Job {
		return &deploymentv1.Job{Id: "e20261124.1/3", Kind: kind, Incident: "e20261124.1"}
	}
	for _, c := range []struct {
		who  string
		job  *deploymentv1.Job
		want string
	}{
		{"carla", treeJob("tree.1"), "CALLER_CLASS"},
		{deploymenttest.Host, treeJob("tree.1"), "CALLER_CLASS"},
		{"stranger", treeJob("tree.1"), "KEY_UNKNOWN"},
		{"epatchd", change(deploymentv1.JobKind_JOB_KIND_APPLY), "CALLER_CLASS"},
		{"epatchd", change(deploymentv1.JobKind_JOB_KIND_BACK_OUT), "CALLER_CLASS"},
		{"epatchd", change(deploymentv1.JobKind_JOB_KIND_VERIFY), "CALLER_CLASS"},
		{"epatchd", change(deploymentv1.JobKind_JOB_KIND_UNSPECIFIED), "FIELD"},
		{"epatchd", treeJob(""), "FIELD"},
	} {
		_, err := w.runJob(c.who, 10*time.Second, c.job)
		if got := refusal(err); got != c.want {
			t.Errorf("%s, %v: %s, want %s", c.who, c.job, got, c.want)
		}
	}
}

// TestAgentAway: the answer comes before the caller's time is over, and asks to come again.
func TestAgentAway(t *testing.T) {
	t.Parallel()
	w := serve(t)
	_, err := w.runJob("epatchd", time.Second, treeJob("tree.1"))
	if c := status.Code(err); c != codes.Unavailable && c != codes.DeadlineExceeded { // the client itself came again meanwhile
		t.Errorf("answer %v, want UNAVAILABLE", err)
	}
	if want := "the agent on " + deploymenttest.Host + " is away"; !strings.Contains(w.LogText.String(), want) {
		t.Errorf("the log lacks %q", want)
	}
}

// TestNewerConnectionReplacesTheOlder: an agent that comes back over a network that has not noticed yet is served at once.
func TestNewerConnectionReplacesTheOlder(t *testing.T) {
	t.Parallel()
	w := serve(t)
	old := w.attach(deploymenttest.Host, deploymenttest.Host)
	a, b := "sha1:"+strings.Repeat("a", 40), "sha1:"+strings.Repeat("b", 40)
	w.serveJobs(old, func(*deploymentv1.Job) *deploymentv1.JobResult {
		return &deploymentv1.JobResult{Ok: true, PostTree: a}
	})
	w.wantAttached(a)
	fresh := w.attach(deploymenttest.Host, deploymenttest.Host)
	w.serveJobs(fresh, func(*deploymentv1.Job) *deploymentv1.JobResult {
		return &deploymentv1.JobResult{Ok: true, PostTree: b}
	})
	<-old.Context().Done()
	w.wantAttached(b)
}

// TestOneJobAtATime: a job whose caller has gone is still finished before the next is sent.
func TestOneJobAtATime(t *testing.T) {
	t.Parallel()
	w := serve(t)
	s := w.attach(deploymenttest.Host, deploymenttest.Host)
	if _, err := w.runJob("epatchd", 2*time.Second, treeJob("slow")); err == nil {
		t.Fatal("answered by nobody")
	}
	m, err := s.Recv()
	w.Must(err)
	if m.GetJob().GetId() != "slow" {
		t.Fatalf("first job %v", m)
	}
	tree := "sha1:" + strings.Repeat("c", 40)
	answered := make(chan error, 1)
	go func() {
		r, err := w.runJob("epatchd", 30*time.Second, treeJob("next"))
		if err == nil && r.GetPostTree() != tree {
			err = fmt.Errorf("answer of another job: %v", r)
		}
		answered <- err
	}()
	w.Must(s.Send(result(&deploymentv1.JobResult{JobId: "slow", Ok: true, PostTree: "sha1:" + strings.Repeat("d", 40)})))
	m, err = s.Recv()
	w.Must(err)
	if m.GetJob().GetId() == "slow" { // the caller's own repetition of a call that found no answer
		w.Must(s.Send(result(&deploymentv1.JobResult{JobId: "slow", Ok: true})))
		m, err = s.Recv()
		w.Must(err)
	}
	w.Must(s.Send(result(&deploymentv1.JobResult{JobId: m.GetJob().GetId(), Ok: true, PostTree: tree})))
	w.Must(<-answered)
}

// TestAnswersThatCannotBe end the connection and reach nobody.
func TestAnswersThatCannotBe(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]*deploymentv1.AttachRequest{
		"another job's result": result(&deploymentv1.JobResult{JobId: "other", Ok: true}),
		"a malformed tree":     result(&deploymentv1.JobResult{JobId: "tree.1", Ok: true, PostTree: "sha1:zz"}),
		"hello again":          {Message: &deploymentv1.AttachRequest_Hello{Hello: deploymenttest.Host}},
		"another job's files":  {Message: &deploymentv1.AttachRequest_Manifest{Manifest: &deploymentv1.ManifestPart{JobId: "other"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := serve(t)
			s := w.attach(deploymenttest.Host, deploymenttest.Host)
			done := make(chan error, 1)
			go func() {
				_, err := w.runJob("epatchd", 2*time.Second, treeJob("tree.1"))
				done <- err
			}()
			_, err := s.Recv()
			w.Must(err)
			w.Must(s.Send(answer))
			if _, err := s.Recv(); err == nil {
				t.Error("the connection goes on")
			}
			if err := <-done; status.Code(err) != codes.Unavailable && status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("answer %v", err)
			}
		})
	}
}

// TestRevokedWhileAttached: a key that was revoked gets no job any more.
func TestRevokedWhileAttached(t *testing.T) {
	t.Parallel()
	w := serve(t)
	s := w.attach(deploymenttest.Host, deploymenttest.Host)
	tree := "sha1:" + strings.Repeat("a", 40)
	asked := make(chan string, 100)
	w.serveJobs(s, func(j *deploymentv1.Job) *deploymentv1.JobResult {
		asked <- j.GetId()
		return &deploymentv1.JobResult{Ok: true, PostTree: tree}
	})
	w.wantAttached(tree)
	w.Do("bea", procedure.RuleBook, &emergencyv1.RevokeKeyRequest{KeyId: w.Profile(deploymenttest.Host).KeyID, Reason: "the host was stolen"}, procedure.Facts{})
	if r, err := w.runJob("epatchd", 5*time.Second, treeJob("tree.2")); err == nil {
		t.Errorf("the revoked agent answered %v", r)
	}
	<-s.Context().Done()
	if n := len(asked); n != 1 {
		t.Errorf("%d jobs were handed out", n)
	}
}

// TestConfig is refused at start where it cannot work.
func TestConfig(t *testing.T) {
	t.Parallel()
	r := deploymenttest.New(t)
	for name, c := range map[string]deployment.Config{
		"no repository":        {StateDir: t.TempDir()},
		"no folder":            {Repository: r.Bare},
		"malformed repository": {Repository: "ext::sh -c false", StateDir: t.TempDir()},
		"no git":               {Repository: r.Bare, StateDir: t.TempDir(), Git: "/nowhere/git"},
	} {
		if _, err := r.TryDeployment(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
