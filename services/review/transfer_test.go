// SPDX-License-Identifier: Apache-2.0

package review_test

import (
	"os"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// repositoryAway takes the repository away, and gives what brings it back.
func (r *rig) repositoryAway() (back func()) {
	r.t.Helper()
	r.must(os.Rename(r.remote, r.remote+".away"))
	return func() { r.t.Helper(); r.must(os.Rename(r.remote+".away", r.remote)) }
}

// waitRefused waits until the incident has n refusals by the service.
func (r *rig) waitRefused(n int) {
	r.t.Helper()
	r.wait("a refused command", func(*procedure.State) bool { return r.count("review.CommandRefused") >= n })
	if r.count("review.CommandRefused") > n {
		r.t.Errorf("%d refusals, want %d: %q", r.count("review.CommandRefused"), n, r.events())
	}
}

func (r *rig) approved() {
	r.t.Helper()
	r.do("anna", &emergencyv1.RecordFirstReviewRequest{Verdict: approve})
}

func TestTransferWaitsForTheRepository(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	r.do("dora", r.mend())
	back := r.repositoryAway()
	r.approved()
	got, err := r.srv.Transfer(r.as("anna"), r.prepare("anna", &emergencyv1.TransferRequest{}).(*emergencyv1.TransferRequest))
	r.isAway(got, err)
	if r.count("review.PatchTransferred") != 0 {
		t.Error("transferred into nothing")
	}
	back()
	r.wait("on the test server", onTestServer("P1r1"))
	if n := r.count("review.PatchTransferred"); n != 1 {
		t.Errorf("transferred %d times", n)
	}
}

func TestVetoEndsTheTransfer(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	r.do("dora", r.mend())
	back := r.repositoryAway()
	r.approved()
	r.do("bert", &emergencyv1.RaiseVetoRequest{Reason: "it opens another hole"})
	back()
	r.waitRefused(1)
	// The veto may cross a push that is on its way; a branch of that name is no transfer.
	if r.count("review.PatchTransferred") != 0 {
		t.Error("transferred in spite of the veto")
	}
	r.refused("anna", &emergencyv1.TransferRequest{}, procedure.ReasonVetoOpen, "bert")
	r.do("bert", &emergencyv1.WithdrawVetoRequest{Veto: "V1", Reason: "it was another file"})
	r.do("anna", &emergencyv1.TransferRequest{})
	r.wait("on the test server", onTestServer("P1r1"))
}

func TestVetoOverruled(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	r.do("dora", r.mend())
	r.do("bert", &emergencyv1.RaiseVetoRequest{Reason: "it opens another hole"})
	r.approved()
	r.waitRefused(1)
	if r.bare("for-each-ref", "refs/heads/emergency") != "" {
		t.Error("pushed in spite of the veto")
	}
	r.refused("anna", &emergencyv1.OverruleVetoRequest{Veto: "V1", Reason: strings.Repeat("because ", 6)}, procedure.ReasonRole)
	r.refused("anna", &emergencyv1.WithdrawVetoRequest{Veto: "V1", Reason: "somebody else's veto"}, procedure.ReasonNotVetoOwner)
	r.do("albert", &emergencyv1.OverruleVetoRequest{Veto: "V1", Reason: strings.Repeat("because ", 6)})
	r.do("anna", &emergencyv1.TransferRequest{})
	r.wait("on the test server", onTestServer("P1r1"))
}

func TestNewRevisionEndsTheTransfer(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	r.do("dora", r.mend()) // the clone is filled
	next := r.register(r.change("www/login.php", "<?php\n$strangers = null;\n"))
	next.Supersedes = "P1r1"
	r.agents.set(true, false)
	// The veto keeps the transfer from overtaking the new revision.
	r.do("bert", &emergencyv1.RaiseVetoRequest{Reason: "it opens another hole"})
	r.approved()
	r.waitRefused(1)
	r.do("dora", next)
	old := r.revision("P1r1")
	r.refused("anna", &emergencyv1.TransferRequest{Binding: &emergencyv1.Binding{Revision: old.ID, Digest: old.Binding}}, procedure.ReasonPatchRevisionStale, "P1r2")
	r.restart(true) // all effects of the whole history once more
	r.agents.set(false, false)
	r.do("anna", &emergencyv1.RecordFirstReviewRequest{Verdict: approve})
	r.wait("the new one on the test server", onTestServer("P1r2"))
	if refs := r.bare("for-each-ref", "--format=%(refname)", "refs/heads/emergency"); refs != r.ref("P1r2") {
		t.Errorf("the repository has %q", refs)
	}
	for _, j := range r.agents.done() {
		if j.GetJob().GetBinding().GetRevision() != "P1r2" {
			t.Errorf("the agent was asked to install %s", j.GetJob().GetBinding().GetRevision())
		}
	}
}

func TestSomebodyElsesCommitOnTheBranch(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	r.do("dora", r.mend())
	other := r.change("tool", "something else\n")
	r.work.Git("push", "--quiet", r.remote, other+":"+r.ref("P1r1"))
	r.approved()
	r.waitRefused(1)
	r.refused("anna", &emergencyv1.TransferRequest{}, procedure.ReasonRepoTreeMismatch, "the repository holds", r.work.Tree(other), other, r.ref("P1r1"))
	if now := r.bare("rev-parse", r.ref("P1r1")); now != other {
		t.Errorf("the branch was moved to %s", now)
	}
	r.bare("update-ref", "-d", r.ref("P1r1"))
	r.do("anna", &emergencyv1.TransferRequest{})
	r.wait("on the test server", onTestServer("P1r1"))
}

func TestRepositoryRefusesThePush(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	r.do("dora", r.mend())
	hook := r.remote + "/hooks/pre-receive"
	r.must(os.MkdirAll(r.remote+"/hooks", 0o755))
	r.must(os.WriteFile(hook, []byte("#!/bin/sh\nexit 1\n"), 0o755))
	r.approved()
	r.waitRefused(1)
	r.refused("anna", &emergencyv1.TransferRequest{}, procedure.ReasonRepoTreeMismatch, "the repository holds nothing", "refuses the change")
	r.must(os.Remove(hook))
	r.do("anna", &emergencyv1.TransferRequest{})
}

func TestTransferByHand(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	good := r.change("www/login.php", "<?php\n$strangers = false;\n")
	wrong := r.change("tool", "something else\n")
	r.do("dora", r.register(good))
	r.do("bert", &emergencyv1.RaiseVetoRequest{Reason: "it opens another hole"}) // so that the service does not push by itself
	r.approved()
	r.waitRefused(1)
	r.do("bert", &emergencyv1.WithdrawVetoRequest{Veto: "V1", Reason: "it was another file"})

	r.refused("anna", &emergencyv1.TransferRequest{Commit: good}, procedure.ReasonRepoTreeMismatch, "the repository holds nothing", r.ref("P1r1"))
	r.work.Git("push", "--quiet", r.remote, good+":refs/heads/elsewhere")
	r.refused("anna", &emergencyv1.TransferRequest{Commit: good}, procedure.ReasonRepoTreeMismatch, "the repository holds nothing", r.ref("P1r1"))
	r.work.Git("push", "--quiet", r.remote, wrong+":"+r.ref("P1r1"))
	r.refused("anna", &emergencyv1.TransferRequest{Commit: wrong}, procedure.ReasonRepoTreeMismatch, "the repository holds", r.work.Tree(wrong))
	r.refused("anna", &emergencyv1.TransferRequest{Commit: good}, procedure.ReasonRepoTreeMismatch, "the repository holds", wrong, good)
	r.refused("bert", &emergencyv1.TransferRequest{Commit: wrong}, procedure.ReasonNotFirstReviewer, "anna")
	r.work.Git("push", "--quiet", "--force", r.remote, good+":"+r.ref("P1r1"))
	r.do("anna", &emergencyv1.TransferRequest{Commit: good})
	if tr := r.revision("P1r1").Transfer; tr.Commit != good || tr.Tree != r.work.Tree(good) || tr.Ref != r.ref("P1r1") {
		t.Errorf("recorded %+v", tr)
	}
	r.wait("on the test server", onTestServer("P1r1"))
}

func TestRewrittenBranchIsFound(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	good := r.mend()
	r.do("dora", good)
	r.agents.set(true, false)
	r.approved()
	r.wait("transferred", transferred("P1r1"))
	r.agents.waitAsked(1)
	commit := r.revision("P1r1").Transfer.Commit
	other := r.change("www/login.php", "<?php\n$strangers = falsE;\n") // one byte
	r.work.Git("push", "--quiet", "--force", r.remote, other+":"+r.ref("P1r1"))
	r.refused("anna", &emergencyv1.TransferRequest{}, procedure.ReasonRepoTreeMismatch, "the repository holds", r.work.Tree(other), other)
	r.refused("anna", &emergencyv1.TransferRequest{Commit: commit}, procedure.ReasonRepoTreeMismatch, "the repository holds", other)
	// Nothing is installed while the repository holds something else, and after a start neither.
	r.agents.set(false, false)
	mark := r.logged.mark()
	r.logged.wait(mark, "repository: "+r.ref("P1r1")+" has commit")
	r.restart(false)
	r.logged.wait(r.logged.mark(), "repository: "+r.ref("P1r1")+" has commit")
	if len(r.agents.done()) != 0 || r.revision("P1r1").TestServer != nil {
		t.Error("installed from a repository that holds something else")
	}
	r.bare("update-ref", r.ref("P1r1"), commit)
	r.wait("on the test server", onTestServer("P1r1"))
}

func TestInstallWaitsForTheAgent(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	r.do("dora", r.mend())
	r.agents.set(true, false)
	r.approved()
	r.wait("transferred", transferred("P1r1"))
	r.agents.waitAsked(2)
	r.agents.set(false, true) // there, and unable
	r.agents.waitAsked(2)
	back := r.repositoryAway() // which holds nothing up: the agent has the bytes from the artefact store
	r.refused("theo", &emergencyv1.ReportTestRequest{Result: pass, Steps: "x", BugNote: "n1"}, procedure.ReasonTestServerNotReady)
	r.agents.waitAsked(1)
	back()
	r.agents.set(false, false)
	r.wait("on the test server", onTestServer("P1r1"))
	rev, jobs := r.revision("P1r1"), r.agents.done()
	job := jobs[len(jobs)-1]
	if job.GetAgent() != proceduretest.TestServer || job.GetJob().GetKind() != deploymentv1.JobKind_JOB_KIND_INSTALL ||
		job.GetJob().GetResultTree() != rev.ResultTree || job.GetJob().GetBaseTree() != rev.BaseTree || job.GetJob().GetBinding().GetDigest() != rev.Binding {
		t.Errorf("the job was %v", job)
	}
	for _, j := range jobs {
		if j.GetJob().GetId() != job.GetJob().GetId() {
			t.Errorf("one job under two ids: %s and %s", j.GetJob().GetId(), job.GetJob().GetId())
		}
	}
}

// TestReplayedEffectsDoNothingTwice starts the service again with a ledger that has forgotten everything.
func TestReplayedEffectsDoNothingTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	r.do("dora", r.mend())
	r.approved()
	r.wait("on the test server", onTestServer("P1r1"))
	commit, events := r.bare("rev-parse", r.ref("P1r1")), r.events()
	r.restart(true)
	r.cfg.StateDir = t.TempDir() // and another machine, with an empty clone
	r.restart(true)
	r.do("dora", r.register(r.change("www/index.php", "more\n"))) // goes through the same histories afterwards
	r.do("bert", &emergencyv1.RecordFirstReviewRequest{Verdict: approve})
	r.wait("the second one on the test server", onTestServer("P2r1"))
	if now := r.bare("rev-parse", r.ref("P1r1")); now != commit {
		t.Errorf("the branch has commit %s, had %s", now, commit)
	}
	if n := r.count("review.PatchTransferred"); n != 2 {
		t.Errorf("%d transfers; before the starts %q, now %q", n, events, r.events())
	}
}

func TestReorderedCommands(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	r.do("dora", r.mend())
	agent := "test:" + proceduretest.TestServer
	tree := r.revision("P1r1").ResultTree
	test := &emergencyv1.ReportTestRequest{Result: pass, Steps: "x", BugNote: "n1"}
	confirm := &emergencyv1.ConfirmTestServerRequest{Tree: tree, Environment: proceduretest.TestServer}
	forward := &emergencyv1.ForwardRequest{RollbackPlan: "back", To: "carla"}
	r.refused("anna", &emergencyv1.TransferRequest{}, procedure.ReasonFirstReviewMissing)
	r.refused(agent, confirm, procedure.ReasonNotTransferred)
	r.refused("theo", test, procedure.ReasonTestServerNotReady)
	r.refused("bert", &emergencyv1.RecordSecondReviewRequest{Verdict: approve}, procedure.ReasonFirstReviewMissing)
	if r.bare("for-each-ref", "refs/heads/emergency") != "" {
		t.Error("a refused transfer pushed something")
	}
	r.approved()
	r.refused("bert", &emergencyv1.RecordSecondReviewRequest{Verdict: approve}, procedure.ReasonTestQuorum)
	r.refused("bert", forward, procedure.ReasonSecondReviewMiss)
	r.wait("on the test server", onTestServer("P1r1"))
	confirm.Tree = r.revision("P1r1").BaseTree
	r.refused(agent, confirm, procedure.ReasonTestTreeMismatch, proceduretest.TestServer)
	r.refused("anna", &emergencyv1.RecordFirstReviewRequest{Verdict: approve}, procedure.ReasonReviewExists)
	r.refused("theo", confirm, procedure.ReasonRole)
	r.do("theo", test)
	r.do("tina", &emergencyv1.ReportTestRequest{Result: pass, Steps: "x", BugNote: "n2"})
	r.do("tom", &emergencyv1.ReportTestRequest{Result: fail, Steps: "x", BugNote: "n3"})
	r.refused("bert", &emergencyv1.RecordSecondReviewRequest{Verdict: approve}, procedure.ReasonTestFailed, "tom")
	r.do("tom", &emergencyv1.ReportTestRequest{Result: pass, Steps: "again", BugNote: "n4"})
	r.refused("anna", &emergencyv1.RecordSecondReviewRequest{Verdict: approve}, procedure.ReasonSamePerson)
	r.do("bert", &emergencyv1.RecordSecondReviewRequest{Verdict: approve})
	r.do("bert", forward)
}
