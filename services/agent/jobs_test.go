// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/agent"
	"cacert.org/emergency/services/deployment/deploymenttest"
)

func (w *world) write(dir, path, content string) {
	w.Helper()
	w.Must(os.WriteFile(filepath.Join(dir, path), []byte(content), 0o644))
}

func (w *world) reportApplied(incident string) {
	w.Helper()
	req := &emergencyv1.ReportApplyRequest{Outcome: emergencyv1.ApplyOutcome_APPLY_OUTCOME_APPLIED, Detail: "copied by hand"}
	w.Prepare("carla", incident, req)
	_, err := w.client("carla").ReportApply(context.Background(), req)
	w.Must(err)
}

// TestByHand: where the executor applies by hand, the agent keeps its hands off and tells which tree came of it.
func TestByHand(t *testing.T) {
	t.Parallel()
	w := honest(t)
	start(w.Rig, config(w.Rig, w.addr), nil)
	incident := w.Started(true)
	w.Must(w.Place())
	w.reportApplied(incident)
	a := w.wantState(incident, procedure.Verified)
	if a.HostTree != w.ResultTree() || a.PreTree != w.BaseTree() || a.Verified.By != deploymenttest.Host {
		t.Errorf("apply %+v", a)
	}
	w.wantTree(w.HostRoot, w.ResultTree())
}

// TestByHandGoneWrong: the agent says so, and that the way back by hand is complete.
func TestByHandGoneWrong(t *testing.T) {
	t.Parallel()
	w := honest(t)
	start(w.Rig, config(w.Rig, w.addr), nil)
	incident := w.Started(true)
	w.write(w.HostRoot, "www/index.php", "<?php\necho 'half';\n")
	w.reportApplied(incident)
	w.wantState(incident, procedure.Mismatch)
	back := &emergencyv1.BackOutRequest{Reason: "half a patch"}
	w.Do("carla", incident, back, procedure.Facts{})
	w.wantState(incident, procedure.BackOutUnproven)
	w.write(w.HostRoot, "www/index.php", "<?php\necho 'insecure';\n")
	w.Do("carla", incident, &emergencyv1.BackOutRequest{Reason: "restored by hand"}, procedure.Facts{})
	w.wantState(incident, procedure.BackedOut)
}

// TestHostChangedSinceTheDryRun: the base is computed again at the very moment; nothing is overwritten.
func TestHostChangedSinceTheDryRun(t *testing.T) {
	t.Parallel()
	w := honest(t)
	incident := w.Forwarded()
	w.Do("carla", incident, &emergencyv1.DryRunRequest{}, procedure.Facts{Agent: &procedure.AgentFacts{
		Host: deploymenttest.Host, HostTree: w.BaseTree(), ResultTree: w.ResultTree(), Clean: true,
	}})
	w.write(w.HostRoot, "www/index.php", "<?php\necho 'somebody was here';\n")
	changed := w.TreeOf(w.HostRoot)
	w.Start(incident, false)
	start(w.Rig, config(w.Rig, w.addr), nil)
	a := w.wantState(incident, procedure.BackOutUnproven)
	if a.HostTree != changed {
		t.Errorf("the history has tree %s, the host %s", a.HostTree, changed)
	}
	w.wantTree(w.HostRoot, changed)
	if !strings.Contains(w.LogText.String(), "HOST_BASE_MISMATCH") {
		t.Error("the log does not say why")
	}
}

// TestReportsOutliveTheServer: what was done while the services were away is reported when they are back.
func TestReportsOutliveTheServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Background(w.Reader.Run)
	w.Background(w.Deployment.Run)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	w.Must(err)
	w.addr = lis.Addr().String()
	stopServer := w.ServeOn(lis, w.register)
	incident := w.Started(false)
	applied, goOn := make(chan struct{}), make(chan struct{})
	a, err := agent.New(config(w.Rig, w.addr), agent.Deps{Log: w.Logger, Failpoint: func(step string) {
		if step == "agent:tried" {
			close(applied)
			<-goOn
		}
	}})
	w.Must(err)
	w.Background(func(ctx context.Context) error { return a.Run(ctx) })
	<-applied
	stopServer()
	close(goOn)
	w.wantTree(w.HostRoot, w.ResultTree())
	lis, err = net.Listen("tcp", w.addr)
	w.Must(err)
	w.ServeOn(lis, w.register)
	w.wantState(incident, procedure.Verified)
}

// TestDryRunTellsWhatIsWrong: the person learns before the start what would keep the agent from applying.
func TestDryRunTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tell func(w *world, incident string)
		want string
	}{
		"another patch": {func(w *world, _ string) { w.review.Lie = func(b []byte) []byte { return append(b, '\n') } }, "PATCH_DIFFERS"},
		"the host has another tree": {func(w *world, _ string) {
			w.write(w.HostRoot, "www/index.php", "<?php\necho 'somebody was here';\n")
		}, "HOST_BASE_MISMATCH"},
		"a review nobody signed": {func(w *world, incident string) {
			w.edit(incident, "RecordFirstReview", func(r *emergencyv1.Record) { r.Approval = nil })
		}, "HISTORY_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := honest(t)
			incident := w.Forwarded()
			c.tell(w, incident)
			start(w.Rig, config(w.Rig, w.addr), nil)
			req := &emergencyv1.DryRunRequest{}
			w.Prepare("carla", incident, req)
			_, err := w.client("carla").DryRun(context.Background(), req)
			if err == nil || !strings.Contains(err.Error(), c.want) && !strings.Contains(err.Error(), "does not hold the base tree") {
				t.Errorf("answer %v, want %s", err, c.want)
			}
			if runs := w.State(incident).DryRuns; len(runs) != 0 {
				t.Errorf("recorded: %+v", runs)
			}
		})
	}
}

// revise registers and transfers another patch, of files that go into the one place.
func (w *world) revise(incident, content string, supersedes string) *deploymentv1.Job {
	w.Helper()
	w.Repo.Git("checkout", "--quiet", w.Base)
	w.Repo.Write("www/index.php", content, 0o644)
	commit := w.Repo.Commit("another fix")
	b := w.Repo.Diff(w.Base, commit)
	w.review.Patches[patch.Digest(b)] = b
	req := &emergencyv1.RegisterPatchRequest{
		Bytes: b, Sha256: patch.Digest(b), BaseCommit: w.Base, BaseTree: w.BaseTree(), ResultTree: w.Repo.Tree(commit), BugId: "bug-1500", Supersedes: supersedes,
	}
	w.Do("dora", incident, req, procedure.Facts{Patch: &procedure.PatchFacts{
		Artefact: &emergencyv1.Artefact{Sha256: patch.Digest(b), Size: uint64(len(b)), MediaType: "text/x-diff"}, BaseTree: w.BaseTree(), ResultTree: w.Repo.Tree(commit), Files: 1,
	}})
	w.Transfer(incident, commit)
	return w.installJob(incident)
}

func (w *world) installJob(incident string) *deploymentv1.Job {
	w.Helper()
	return w.Job(incident, deploymentv1.JobKind_JOB_KIND_INSTALL, w.State(incident).Current().Transfer.Position)
}

// TestInstall: each transferred revision comes to the test server on the base that it was made for, whatever was there
// before, and the server's real tree is what is confirmed.
func TestInstall(t *testing.T) {
	t.Parallel()
	w := scripted(t)
	start(w.Rig, testConfig(w.Rig, w.addr), nil)
	incident := w.Declare()
	w.Register(incident)
	w.Transfer(incident, w.Fixed)
	first := w.installJob(incident)
	if r := w.run(first); !r.GetOk() || r.GetPostTree() != w.ResultTree() {
		t.Fatalf("first: %v", r)
	}
	w.wantTree(w.TestRoot, w.ResultTree())
	if ts := w.State(incident).Current().TestServer; ts == nil || ts.Tree != w.ResultTree() || ts.Environment != deploymenttest.TestServer || ts.By != deploymenttest.TestServer {
		t.Errorf("confirmed %+v", ts)
	}
	second := w.revise(incident, "<?php\necho 'better';\n", "P1r1")
	if r := w.run(second); !r.GetOk() {
		t.Fatalf("second: %v", r)
	}
	w.wantTree(w.TestRoot, second.GetResultTree())
	if r := w.run(first); !r.GetOk() || r.GetPostTree() != w.ResultTree() {
		t.Errorf("the old job asked again: %v, want what was answered then", r)
	}
	w.wantTree(w.TestRoot, second.GetResultTree())
	other := w.Declare()
	third := w.revise(other, "<?php\necho 'other';\n", "")
	if r := w.run(third); !r.GetOk() || w.State(other).Current().TestServer == nil {
		t.Fatalf("of another incident: %v", r)
	}
	w.wantTree(w.TestRoot, third.GetResultTree())
}

// TestInstallRefuses what was not reviewed and transferred, and what is not on the base.
func TestInstallRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tell func(w *world, incident string, j *deploymentv1.Job)
		code string
	}{
		"a review nobody signed": {func(w *world, incident string, _ *deploymentv1.Job) {
			w.edit(incident, "RecordFirstReview", func(r *emergencyv1.Record) { r.Approval = nil })
		}, "HISTORY_INVALID"},
		"no transfer": {func(w *world, incident string, j *deploymentv1.Job) {
			w.show(incident, w.cut(incident, "Transfer"))
			j.Id = incident + "/1"
		}, "NOT_TRANSFERRED"},
		"no review": {func(w *world, incident string, j *deploymentv1.Job) {
			w.show(incident, w.cut(incident, "RecordFirstReview"))
			j.Id = incident + "/1"
		}, "FIRST_REVIEW_MISSING"},
		"the transfer of another tree": {func(w *world, incident string, _ *deploymentv1.Job) {
			w.edit(incident, "Transfer", func(r *emergencyv1.Record) {
				e := w.Payload(r.GetEvents()[0]).(*emergencyv1.PatchTransferred)
				e.CommitTree = "sha1:" + strings.Repeat("1", 40)
				r.Events[0] = w.Event(procedure.OwnerReview, e)
			})
		}, "REPO_TREE_MISMATCH"},
		"another patch":            {func(w *world, _ string, _ *deploymentv1.Job) { w.review.Lie = func(b []byte) []byte { return b[1:] } }, "PATCH_DIFFERS"},
		"a replaced revision":      {func(w *world, incident string, _ *deploymentv1.Job) { w.revise(incident, "<?php\n", "P1r1") }, "PATCH_REVISION_STALE"},
		"a job for critical hosts": {func(_ *world, _ string, j *deploymentv1.Job) { j.Kind = deploymentv1.JobKind_JOB_KIND_APPLY }, "JOB"},
		"a server somebody changed": {func(w *world, _ string, _ *deploymentv1.Job) {
			w.write(w.TestRoot, "www/index.php", "<?php\necho 'tried something';\n")
		}, "HOST_BASE_MISMATCH"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := scripted(t)
			incident := w.Declare()
			w.Register(incident)
			w.Transfer(incident, w.Fixed)
			j := proto.CloneOf(w.installJob(incident))
			c.tell(w, incident, j)
			before := w.TreeOf(w.TestRoot)
			conf := testConfig(w.Rig, w.addr)
			conf.Patience = 200 * time.Millisecond
			start(w.Rig, conf, nil)
			if r := w.run(j); r.GetOk() || r.GetErrorCode() != c.code {
				t.Errorf("answer %v, want %s", r, c.code)
			}
			w.wantTree(w.TestRoot, before)
			if r, ok := w.State(incident).Revision("P1r1"); !ok || r.TestServer != nil {
				t.Error("the test server was confirmed")
			}
		})
	}
}

// TestInstallAfterMending: a test server that somebody had changed gets the patch once it is mended, under the same job, and
// the refused confirmation is recorded once.
func TestInstallAfterMending(t *testing.T) {
	t.Parallel()
	w := scripted(t)
	incident := w.Declare()
	w.Register(incident)
	w.Transfer(incident, w.Fixed)
	start(w.Rig, testConfig(w.Rig, w.addr), nil)
	w.write(w.TestRoot, "www/index.php", "<?php\necho 'tried something';\n")
	j := w.installJob(incident)
	for range 3 {
		if r := w.run(j); r.GetOk() || r.GetErrorCode() != "HOST_BASE_MISMATCH" {
			t.Fatalf("answer %v", r)
		}
	}
	refusals := 0
	for _, rec := range w.Records(incident) {
		for _, e := range w.Open(rec).GetEvents() {
			if strings.HasSuffix(e.GetType(), ".CommandRefused") {
				refusals++
			}
		}
	}
	if refusals != 1 {
		t.Errorf("%d refusals recorded, want 1", refusals)
	}
	w.write(w.TestRoot, "www/index.php", "<?php\necho 'insecure';\n")
	if r := w.run(j); !r.GetOk() || w.State(incident).Current().TestServer == nil {
		t.Errorf("after mending: %v", r)
	}
	w.wantTree(w.TestRoot, w.ResultTree())
}

// TestBackOutRefuses a way back that nobody asked for.
func TestBackOutRefuses(t *testing.T) {
	t.Parallel()
	w := scripted(t)
	incident := w.Started(false)
	start(w.Rig, config(w.Rig, w.addr), nil)
	if r := w.run(w.ApplyJob(incident)); !r.GetOk() {
		t.Fatal(r)
	}
	st := w.State(incident)
	j := w.Job(incident, deploymentv1.JobKind_JOB_KIND_BACK_OUT, st.Applies[0].Last)
	if r := w.run(j); r.GetOk() || r.GetErrorCode() != "NOTHING_TO_BACK_OUT" {
		t.Errorf("answer %v", r)
	}
	w.wantTree(w.HostRoot, w.ResultTree())
}

// TestSettingsThatCannotWork are refused at start, by the name of the setting.
func TestSettingsThatCannotWork(t *testing.T) {
	t.Parallel()
	r := deploymenttest.New(t)
	for name, c := range map[string]struct {
		change func(*agent.Config)
		want   string
	}{
		"no name":             {func(c *agent.Config) { c.Name = "" }, "agent-name"},
		"no root":             {func(c *agent.Config) { c.Root = "" }, "agent-root"},
		"a root that is none": {func(c *agent.Config) { c.Root = filepath.Join(r.Dir, "nothing") }, "agent-root"},
		"state in the tree":   {func(c *agent.Config) { c.StateDir = filepath.Join(r.HostRoot, "state") }, "agent-root"},
		"unknown kind":        {func(c *agent.Config) { c.Kind = "other" }, "agent-kind"},
		"no address":          {func(c *agent.Config) { c.Services = "localhost" }, "agent-services"},
		"no keyring":          {func(c *agent.Config) { c.Keyring = filepath.Join(r.Dir, "nothing") }, "agent-keyring"},
		"no profile":          {func(c *agent.Config) { c.Profile = r.Dir }, "agent-profile"},
		"malformed pattern":   {func(c *agent.Config) { c.Include = []string{"../x"} }, "../x"},
		"no patience":         {func(c *agent.Config) { c.Patience = -time.Second }, "agent-patience"},
		"damaged memory": {func(c *agent.Config) {
			r.Must(os.MkdirAll(c.StateDir, 0o700))
			r.Must(os.WriteFile(filepath.Join(c.StateDir, "heads.json"), []byte("{"), 0o600))
		}, "heads.json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := config(r, "localhost:1")
			conf.StateDir = filepath.Join(t.TempDir(), "state")
			c.change(&conf)
			a, err := agent.New(conf, agent.Deps{Log: r.Logger})
			if err == nil {
				_ = a.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that names %s", err, c.want)
			}
			_ = os.RemoveAll(filepath.Join(r.HostRoot, "state"))
		})
	}
}

// TestCommandRefusesAMisspeltVariable, since a setting that is not taken may be the one that protects.
func TestCommandRefusesAMisspeltVariable(t *testing.T) {
	t.Parallel()
	cmd := agent.Command([]string{"EPATCH_AGENT_EXCLUDED=www/cache", "EPATCH_LISTEN=other program's"})
	cmd.SetArgs(nil)
	if err := cmd.ExecuteContext(context.Background()); err == nil || !strings.Contains(err.Error(), "EPATCH_AGENT_EXCLUDED") || strings.Contains(err.Error(), "LISTEN") {
		t.Errorf("error %v", err)
	}
}
