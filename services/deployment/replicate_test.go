// SPDX-License-Identifier: Apache-2.0

package deployment_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/worktree"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment/deploymenttest"
)

// hostAgent attaches an agent that truly computes the tree of the host's folder and believes everything, which is all that
// replication needs. For the real one see package agent.
func (w *world) hostAgent() {
	w.Helper()
	tree, err := worktree.Open(w.HostRoot, worktree.Spec{})
	w.Must(err)
	s := w.attach(deploymenttest.Host, deploymenttest.Host)
	w.Background(func(ctx context.Context) error {
		defer context.AfterFunc(ctx, s.hangUp)()
		for {
			m, err := s.Recv()
			if err != nil {
				return nil
			}
			files, err := tree.Manifest(context.Background(), gittree.SHA1)
			if err != nil {
				return err
			}
			var list []gittree.Entry
			part := &deploymentv1.ManifestPart{JobId: m.GetJob().GetId()}
			for _, f := range files {
				list = append(list, gittree.Entry{Path: f.Path, Mode: f.Mode, ID: f.BlobID})
				part.Entries = append(part.Entries, &deploymentv1.ManifestEntry{Path: []byte(f.Path), Mode: f.Mode, Blob: f.BlobID})
			}
			id, err := gittree.ID(gittree.SHA1, list)
			if err != nil {
				return err
			}
			if m.GetJob().GetWithManifest() {
				if err := s.Send(&deploymentv1.AttachRequest{Message: &deploymentv1.AttachRequest_Manifest{Manifest: part}}); err != nil {
					return nil
				}
			}
			if err := s.Send(result(&deploymentv1.JobResult{JobId: m.GetJob().GetId(), Ok: true, PreTree: id, PostTree: id})); err != nil {
				return nil
			}
		}
	})
}

// verified is an incident whose patch was applied and verified; the host holds it. Effects do not run.
func (w *world) verified() string {
	w.Helper()
	incident := w.Started(true)
	w.Must(w.Place())
	w.Do("carla", incident, &emergencyv1.ReportApplyRequest{Outcome: emergencyv1.ApplyOutcome_APPLY_OUTCOME_APPLIED}, procedure.Facts{})
	w.Do(deploymenttest.Host, incident, &emergencyv1.ReportTreeRequest{PreTree: w.BaseTree(), PostTree: w.ResultTree()}, procedure.Facts{})
	return incident
}

func (w *world) check(incident string) *procedure.Replication {
	w.Helper()
	req := &emergencyv1.CheckReplicationRequest{}
	w.Prepare("carla", incident, req)
	_, err := w.client("carla").CheckReplication(context.Background(), req)
	w.Must(err)
	all := w.State(incident).Replications
	return &all[len(all)-1]
}

func (w *world) push(who, incident, commit string) error {
	w.Helper()
	req := &emergencyv1.PushReplicationRequest{Commit: commit}
	w.Prepare(who, incident, req)
	_, err := w.client(who).PushReplication(context.Background(), req)
	return err
}

func (w *world) branch() string {
	w.Helper()
	return strings.TrimSpace(w.Repo.Git("--git-dir="+w.Bare, "rev-parse", deploymenttest.Release))
}

const (
	equal = emergencyv1.ReplicationResult_REPLICATION_RESULT_EQUAL
	lag   = emergencyv1.ReplicationResult_REPLICATION_RESULT_LAG
	drift = emergencyv1.ReplicationResult_REPLICATION_RESULT_DRIFT
)

// TestLagThenEqual: before the commit arrives the difference is exactly the applied revision; afterwards there is none.
func TestLagThenEqual(t *testing.T) {
	t.Parallel()
	w := serve(t)
	incident := w.verified()
	w.hostAgent()
	if r := w.check(incident); r.Kind != lag || len(r.Paths) != 0 {
		t.Errorf("before the push: %v with %d paths, want LAG", r.Kind, len(r.Paths))
	}
	w.Must(w.push("carla", incident, ""))
	if w.branch() != w.Fixed {
		t.Errorf("the branch is at %s", w.branch())
	}
	w.Must(w.push("carl", incident, "")) // it is there already
	if r := w.check(incident); r.Kind != equal {
		t.Errorf("after the push: %v", r.Kind)
	}
}

// TestDriftIsNamedPathByPath, and only the paths that no applied revision accounts for.
func TestDriftIsNamedPathByPath(t *testing.T) {
	t.Parallel()
	w := serve(t)
	incident := w.verified()
	w.Must(w.WriteHost("www/backdoor.php", "<?php\n"))
	w.Must(w.WriteHost("bin/cron.sh", "#!/bin/sh\nexit 1\n"))
	w.hostAgent()
	if r := w.check(incident); r.Kind != drift || len(r.Paths) != 2 {
		t.Errorf("%v with %d paths, want DRIFT with 2", r.Kind, len(r.Paths))
	}
}

// TestArrivedAndRevertedIsDrift: a branch that had the fix and lost it is not merely late.
func TestArrivedAndRevertedIsDrift(t *testing.T) {
	t.Parallel()
	w := serve(t)
	incident := w.verified()
	w.hostAgent()
	w.Must(w.push("carla", incident, ""))
	w.Repo.Git("checkout", "--quiet", w.Fixed)
	w.Repo.Git("revert", "--no-edit", "HEAD")
	w.Repo.Git("push", "--quiet", w.Bare, "HEAD:"+deploymenttest.Release)
	if r := w.check(incident); r.Kind != drift || len(r.Paths) != 4 {
		t.Errorf("%v with %d paths, want DRIFT with the 4 of the patch", r.Kind, len(r.Paths))
	}
}

// TestPushMovesOnlyForwardAndOnlyWhatRuns: everything else leaves the branch where it is and records nothing.
func TestPushMovesOnlyForwardAndOnlyWhatRuns(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(w *world)
		who     string
		commit  func(w *world) string
		want    string
	}{
		"a branch that moved on": {prepare: func(w *world) {
			w.Repo.Git("checkout", "--quiet", w.Base)
			w.Repo.Write("README", "moved on\n", 0o644)
			w.Repo.Commit("regular work")
			w.Repo.Git("push", "--quiet", w.Bare, "HEAD:"+deploymenttest.Release)
		}, who: "carla", want: "REPO_TREE_MISMATCH"},
		"a commit that does not run": {commit: func(w *world) string { return w.Base }, who: "carla", want: "REPO_TREE_MISMATCH"},
		"an unknown commit":          {commit: func(*world) string { return strings.Repeat("9", 40) }, who: "carla", want: "REPO_TREE_MISMATCH"},
		"no release branch": {prepare: func(w *world) {
			w.Repo.Git("--git-dir="+w.Bare, "branch", "-D", "release")
		}, who: "carla", want: "REPO_TREE_MISMATCH"},
		"somebody who may not":        {who: "dora", want: "ROLE"},
		"an agent of the host itself": {who: deploymenttest.Host, want: "ROLE"},
		"a stranger":                  {who: "stranger", want: "KEY_UNKNOWN"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := serve(t)
			incident := w.verified()
			if c.prepare != nil {
				c.prepare(w)
			}
			before := w.Repo.Git("--git-dir="+w.Bare, "for-each-ref")
			commit := ""
			if c.commit != nil {
				commit = c.commit(w)
			}
			if got := refusal(w.push(c.who, incident, commit)); got != c.want {
				t.Errorf("answer %s, want %s", got, c.want)
			}
			if after := w.Repo.Git("--git-dir="+w.Bare, "for-each-ref"); after != before {
				t.Errorf("the repository changed:\n%s\n%s", before, after)
			}
			if n := len(w.State(incident).Pushes); n != 0 {
				t.Errorf("%d pushes recorded", n)
			}
		})
	}
}

// TestNotPushedIsCompared: the service by itself moves nothing backwards, says what is different, and leaves it owed.
func TestNotPushedIsCompared(t *testing.T) {
	t.Parallel()
	w := serve(t)
	w.Repo.Git("checkout", "--quiet", w.Base)
	w.Repo.Write("README", "moved on\n", 0o644)
	moved := w.Repo.Commit("regular work")
	w.Repo.Git("push", "--quiet", w.Bare, "HEAD:"+deploymenttest.Release)
	w.hostAgent()
	w.effects()
	incident := w.verified()
	st := w.WaitFor(incident, "a comparison", func(s *procedure.State) bool { return len(s.Replications) > 0 })
	if r := st.Replications[0]; r.Kind != drift || len(r.Paths) != 1 {
		t.Errorf("%v with %d paths, want DRIFT with README alone", r.Kind, len(r.Paths))
	}
	if len(st.Pushes) != 0 || w.branch() != moved {
		t.Errorf("pushed %v, branch at %s", st.Pushes, w.branch())
	}
	owed := false
	for _, d := range procedure.Debts(st) {
		owed = owed || d.Kind == "REPLICATE" && d.Open()
	}
	if !owed {
		t.Error("the replication is not owed any more")
	}
}

// TestRefusedBeforeAnybodyIsAsked: who may not give a command is told so at once, with no agent anywhere.
func TestRefusedBeforeAnybodyIsAsked(t *testing.T) {
	t.Parallel()
	w := serve(t)
	incident := w.Forwarded()
	dry := &emergencyv1.DryRunRequest{}
	w.Prepare("dora", incident, dry)
	if _, err := w.client("dora").DryRun(context.Background(), dry); refusal(err) != "ROLE" {
		t.Errorf("a dry run by a developer: %v", err)
	}
	check := &emergencyv1.CheckReplicationRequest{}
	w.Prepare("theo", incident, check)
	if _, err := w.client("theo").CheckReplication(context.Background(), check); refusal(err) != "ROLE" {
		t.Errorf("a comparison by a tester: %v", err)
	}
	early := w.Declare()
	w.Register(early)
	dry = &emergencyv1.DryRunRequest{}
	w.Prepare("carla", early, dry)
	if _, err := w.client("carla").DryRun(context.Background(), dry); refusal(err) != "NOT_FORWARDED" {
		t.Errorf("a dry run before it was forwarded: %v", err)
	}
}

// TestRepositoryAway: nothing is recorded, and the caller is asked to come again.
func TestRepositoryAway(t *testing.T) {
	t.Parallel()
	w := serve(t)
	incident := w.verified()
	w.hostAgent()
	w.Must(w.HideRepository())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req := &emergencyv1.CheckReplicationRequest{}
	w.Prepare("carla", incident, req)
	if _, err := w.client("carla").CheckReplication(ctx, req); status.Code(err) != codes.Unavailable {
		t.Errorf("answer %v, want UNAVAILABLE", err)
	}
	if n := len(w.State(incident).Replications); n != 0 {
		t.Errorf("%d comparisons recorded", n)
	}
}

// TestJobsAreHandedOutOnlyForWhatTheRulesPassed: no agent hears of an apply that was not started, or is over.
func TestJobsAreHandedOutOnlyForWhatTheRulesPassed(t *testing.T) {
	t.Parallel()
	w := serve(t)
	kinds := make(chan *deploymentv1.Job, 100)
	s := w.attach(deploymenttest.Host, deploymenttest.Host)
	w.serveJobs(s, func(j *deploymentv1.Job) *deploymentv1.JobResult {
		kinds <- j
		return &deploymentv1.JobResult{Ok: true, PreTree: w.BaseTree(), PostTree: w.BaseTree()}
	})
	over := w.Started(false) // and over before the service looks
	w.Do(deploymenttest.Host, over, &emergencyv1.ReportApplyRequest{Outcome: emergencyv1.ApplyOutcome_APPLY_OUTCOME_FAILED}, procedure.Facts{})
	w.Do(deploymenttest.Host, over, &emergencyv1.ReportTreeRequest{PreTree: w.BaseTree(), PostTree: w.BaseTree()}, procedure.Facts{})
	byHand := w.Started(true)
	running := w.Started(false)
	w.effects()
	for {
		j := <-kinds
		if j.GetKind() == deploymentv1.JobKind_JOB_KIND_REPORT_TREE {
			continue // for the comparison after the failed one
		}
		if j.GetIncident() != running || j.GetKind() != deploymentv1.JobKind_JOB_KIND_APPLY || j.GetId() != w.ApplyJob(running).GetId() {
			t.Errorf("handed out: %v; by hand %s, over %s", j, byHand, over)
		}
		return
	}
}
