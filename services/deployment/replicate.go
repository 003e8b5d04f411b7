// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cacert.org/emergency/pkg/gitrepo"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/service"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Replication: the release branch must come to hold what the critical host runs (B9, procedure.md 4.4 and 10.12).

const repoAgent = emergencyv1.SystemKind_SYSTEM_KIND_REPO_AGENT

// replicate moves the release branch to the verified commit. The push leads to a comparison; where the branch cannot be
// moved forward the comparison is made at once, so that people see what is left to do, and the obligation stays open.
func (s *Server) replicate(ctx context.Context, rec *projection.Record, e projection.Event, b *emergencyv1.Binding) error {
	st, err := s.Dispatch.State(ctx, rec.Incident)
	if err != nil {
		return err
	}
	if _, a := running(st, b); a == nil || a.State != procedure.Verified {
		return nil // taken back meanwhile; that event has a comparison of its own
	}
	return s.bringToBranch(ctx, rec, e)
}

// bringToBranch pushes the last change of the host because of an event.
func (s *Server) bringToBranch(ctx context.Context, rec *projection.Record, e projection.Event) error {
	cmd := &emergencyv1.PushReplicationRequest{Meta: service.FollowMeta(rec, e, "push")}
	facts, err := s.foundFor(ctx, cmd, s.System(repoAgent), procedure.ReasonRepoTreeMismatch, func(st *procedure.State) (procedure.Facts, error) {
		return s.push(ctx, st, "")
	})
	if err == nil {
		_, err = s.Follow(ctx, cmd, rec, e, s.System(repoAgent), facts)
	}
	var refusal *procedure.Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	s.Log.ErrorContext(ctx, "the release branch was not moved; a critical admin has to see to it", "incident", rec.Incident, "reason", string(refusal.Reason), "error", refusal.Message)
	return s.recheck(ctx, rec, e)
}

// recheck compares host and branch because of an event.
func (s *Server) recheck(ctx context.Context, rec *projection.Record, e projection.Event) error {
	cmd := &emergencyv1.CheckReplicationRequest{Meta: service.FollowMeta(rec, e, "compare")}
	facts, err := s.foundFor(ctx, cmd, s.System(repoAgent), procedure.ReasonNotDeployed, func(st *procedure.State) (procedure.Facts, error) {
		return s.compare(ctx, st)
	})
	if err == nil {
		_, err = s.Follow(ctx, cmd, rec, e, s.System(repoAgent), facts)
	}
	var refusal *procedure.Refusal
	if errors.As(err, &refusal) {
		s.Log.ErrorContext(ctx, "host and release branch were not compared", "incident", rec.Incident, "error", refusal)
		return nil
	}
	return err
}

// push moves the release branch forward to a commit whose tree is the host's, and reads it back. With no commit named it is
// the transferred one of the last change; what reached the host before it was transferred (strategies 2 and 3) is committed
// here, from the bytes that were applied or that the session left.
func (s *Server) push(ctx context.Context, st *procedure.State, commit string) (procedure.Facts, error) {
	last, err := lastChange(st)
	if err != nil {
		return procedure.Facts{}, err
	}
	if err := s.repo.Fetch(ctx); err != nil {
		return procedure.Facts{}, repoError(err)
	}
	if commit == "" {
		if commit, err = s.commitOf(ctx, st, last); err != nil {
			return procedure.Facts{}, err
		}
	}
	c, err := s.repo.ResolveCommit(ctx, commit)
	if err != nil {
		return procedure.Facts{}, repoError(err)
	}
	if c.Tree != last.tree {
		return procedure.Facts{}, notPushed(fmt.Sprintf("commit %s has tree %s, host %s holds %s", c.ID, c.Tree, last.host, last.tree), "name a commit that has exactly the host's tree")
	}
	ref := target(st)
	old, err := s.repo.RemoteRef(ctx, ref)
	if err != nil {
		return procedure.Facts{}, repoError(err)
	}
	if old == "" && !st.Declared.Drill {
		return procedure.Facts{}, notPushed("the repository has no branch "+ref, "correct the policy's release branch, or create it")
	}
	if err := s.repo.Push(ctx, c.ID, ref, old); err != nil {
		return procedure.Facts{}, repoError(err)
	}
	return procedure.Facts{Pushed: &procedure.PushFacts{Commit: c.ID, Tree: c.Tree, Ref: ref}}, nil
}

// commitOf is the transferred commit of a change; or one is made of what reached the host without having been transferred
// (seed 2.5, 3.8). The same values give the same commit, however often it is made.
func (s *Server) commitOf(ctx context.Context, st *procedure.State, x hostChange) (string, error) {
	r := x.revision
	if r == nil {
		return "", notPushed("what the session of "+x.grant+" changed is not registered as a patch", "an assessor registers the session's difference; then it comes to the branch by itself")
	}
	if r.Transfer != nil {
		return r.Transfer.Commit, nil
	}
	data, err := s.Artefacts.Get(ctx, r.Artefact.GetSha256())
	if err != nil {
		return "", service.Away("patch of %s: %w", r.ID, err)
	}
	result, err := s.repo.Apply(ctx, r.BaseCommit, data)
	var unfit *patch.Error
	if errors.As(err, &unfit) {
		return "", notPushed(fmt.Sprintf("%s cannot be committed: %s", r.ID, unfit), "commit it by hand, and name the commit")
	}
	if err != nil {
		return "", repoError(err)
	}
	id, err := s.repo.CommitTree(ctx, gitrepo.CommitSpec{
		BaseCommit: r.BaseCommit, ResultTree: result.ResultTree, When: x.at, Author: gitPerson(r.Author), Committer: gitPerson(x.by),
		Message: fmt.Sprintf("%s: emergency %s, revision %s as it runs on %s\n\nNot yet reviewed by the regular cycle.\n\nEmergency: %s\nRevision: %s\nBinding: %s\nPatch-SHA256: %s\n",
			r.BugID, st.Incident, r.ID, x.host, st.Incident, r.ID, r.Binding, r.Artefact.GetSha256()),
	})
	if err != nil {
		return "", fmt.Errorf("commit what is on the host: %w", err)
	}
	return id, nil
}

// gitPerson names a person by the directory's id, with an address that can never exist (RFC 2606).
func gitPerson(person string) gitrepo.Person {
	return gitrepo.Person{Name: person, Email: person + "@epatch.invalid"}
}

// target is the branch that must come to hold what the host runs: the release branch. A drill has one of its own, made by
// its first push, because the release branch is as real as the host that runs it (G11).
func target(st *procedure.State) string {
	if st.Declared.Drill {
		return "refs/heads/emergency/" + st.Incident + "/release"
	}
	return st.ReleaseRef()
}

func notPushed(message, remedy string) *procedure.Refusal {
	return refused(procedure.FailedPrecondition, procedure.ReasonRepoTreeMismatch, "4.4 PushReplication (B9)", message, remedy)
}

// repoError tells a repository that says no from one that cannot be reached.
func repoError(err error) error {
	var e *gitrepo.Error
	if !errors.As(err, &e) || e.Code == gitrepo.CodeUnavailable {
		return service.Away("repository: %w", err)
	}
	return notPushed(e.Error(), "bring the branch there by hand, then compare again with CheckReplication")
}

// compare computes trees of host and branch, and what differs. Nobody's claim enters it.
func (s *Server) compare(ctx context.Context, st *procedure.State) (procedure.Facts, error) {
	branch, err := s.release(ctx, st)
	if err != nil {
		return procedure.Facts{}, err
	}
	ans, err := s.tree(ctx, st, branch.Tree, false)
	if err != nil {
		return procedure.Facts{}, err
	}
	x := &procedure.ReplicationFacts{
		Host: st.Host(), HostTree: ans.GetPostTree(), BranchTree: branch.Tree, BranchCommit: branch.ID, ArrivedAt: arrivedAt(st, branch),
	}
	if x.HostTree != x.BranchTree {
		if err := s.differences(ctx, st, x); err != nil {
			return procedure.Facts{}, err
		}
	}
	return procedure.Facts{Replication: x}, nil
}

// release is the commit that the release branch has now; of a drill that of its own branch, if it has come to one.
func (s *Server) release(ctx context.Context, st *procedure.State) (gitrepo.Commit, error) {
	if err := s.repo.Fetch(ctx); err != nil {
		return gitrepo.Commit{}, repoError(err)
	}
	ref := target(st)
	if st.Declared.Drill {
		pushed, err := s.repo.RemoteRef(ctx, ref)
		if err != nil {
			return gitrepo.Commit{}, repoError(err)
		}
		if pushed == "" {
			ref = st.ReleaseRef()
		}
	}
	c, err := s.repo.ResolveCommit(ctx, ref)
	if err != nil {
		return gitrepo.Commit{}, repoError(err)
	}
	return c, nil
}

// arrivedAt is when the branch got its commit: as recorded if it was pushed from here, else the commit's own time (10.12).
func arrivedAt(st *procedure.State, branch gitrepo.Commit) time.Time {
	for i := len(st.Pushes) - 1; i >= 0; i-- {
		if st.Pushes[i].Result == branch.ID {
			return st.Pushes[i].At
		}
	}
	return branch.CommittedAt
}

// differences finds the paths that differ, and takes out those that an applied revision accounts for which has not arrived.
func (s *Server) differences(ctx context.Context, st *procedure.State, x *procedure.ReplicationFacts) error {
	ans, err := s.tree(ctx, st, x.BranchTree, true)
	if err != nil {
		return err
	}
	algo, _, err := gittree.ParseID(ans.GetPostTree())
	if err != nil {
		return err
	}
	if tree, err := gittree.ID(algo, ans.Files); err != nil || tree != ans.GetPostTree() {
		return fmt.Errorf("the agent on %s listed files that are not those of its tree (%s)", x.Host, tree)
	}
	x.HostTree = ans.GetPostTree()
	files, err := s.repo.Manifest(ctx, x.BranchCommit)
	if err != nil {
		return repoError(err)
	}
	explained := s.waiting(ctx, st, x)
	for _, c := range gittree.Diff(files, ans.Files) {
		if !explained[c] {
			x.Unexplained = append(x.Unexplained, c.Path)
		}
	}
	return nil
}

// waiting are the changes of applied revisions that have not arrived on the branch. The whole difference is lag if the host
// holds the result of one of them and nothing else differs.
func (s *Server) waiting(ctx context.Context, st *procedure.State, x *procedure.ReplicationFacts) map[gittree.Change]bool {
	changes := map[gittree.Change]bool{}
	for _, c := range hostChanges(st) {
		r := c.revision
		if r == nil || !c.stands || arrived(st, r, x.BranchCommit) {
			continue
		}
		x.Pending = x.Pending || r.ResultTree == x.HostTree
		did, err := s.repo.DiffTrees(ctx, r.BaseTree, r.ResultTree)
		if err != nil { // then its paths stay unexplained, which is the safe side
			s.Log.WarnContext(ctx, "the changes of a revision are not in the repository", "incident", st.Incident, "revision", r.ID, "error", err)
			continue
		}
		for _, c := range did {
			changes[c] = true
		}
	}
	return changes
}

func arrived(st *procedure.State, r *procedure.Revision, branch string) bool {
	if r.Transfer == nil || r.Transfer.Commit == branch {
		return r.Transfer != nil
	}
	for _, p := range st.Pushes {
		if p.Result == r.Transfer.Commit {
			return true
		}
	}
	return false
}
