// SPDX-License-Identifier: Apache-2.0

package review

import (
	"context"
	"errors"
	"fmt"

	"cacert.org/emergency/pkg/gitrepo"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// branch is where a reviewed revision goes in the repository. Every revision has its own, so that none replaces another and
// the release branch stays what the critical host runs.
func branch(incident string, r *procedure.Revision) string {
	ref := "refs/heads/emergency/" + incident + "/" + r.ID
	if r.Cycle != nil {
		ref += "-regular" // the update cycle never moves what was reviewed before the deployment
	}
	return ref
}

// pushFacts pushes the reviewed tree if no commit is named, and says what the repository holds then (B3).
func (s *Server) pushFacts(ctx context.Context, req *emergencyv1.TransferRequest, actor procedure.Actor) (procedure.Facts, error) {
	st, lacks, err := s.lacks(ctx, req, actor, procedure.ReasonRepoTreeMismatch)
	if err != nil || !lacks {
		return procedure.Facts{}, err
	}
	r, _ := st.Revision(req.GetBinding().GetRevision()) // or the rules had refused
	ref := branch(st.Incident, r)
	wanted, refused := req.GetCommit(), ""
	if wanted == "" {
		if wanted, err = s.commit(ctx, st, r); err != nil {
			return procedure.Facts{}, err
		}
		if refused, err = s.push(ctx, wanted, ref); err != nil {
			return procedure.Facts{}, err
		}
	}
	held, err := s.held(ctx, ref)
	if err != nil {
		return procedure.Facts{}, err
	}
	return procedure.Facts{Pushed: pushed(ref, wanted, refused, held)}, nil
}

// pushed are the facts of a push or of a look. A commit with the reviewed tree counts only if it is the one that was pushed
// or named; else the place of the tree says what is wrong.
func pushed(ref, wanted, refused string, held gitrepo.Commit) *procedure.PushFacts {
	f := &procedure.PushFacts{Commit: held.ID, Tree: held.Tree, Ref: ref}
	switch {
	case held.ID == "" && refused != "":
		f.Tree = fmt.Sprintf("nothing at %s (%s)", ref, refused)
	case held.ID == "":
		f.Tree = "nothing at " + ref
	case held.ID != wanted:
		f.Tree = fmt.Sprintf("%s by commit %s at %s, where commit %s was expected", held.Tree, held.ID, ref, wanted)
	}
	return f
}

// push pushes a commit to its branch. A refusal by the repository is told, not returned: what is there then decides.
func (s *Server) push(ctx context.Context, commit, ref string) (refused string, err error) {
	err = s.repo.Push(ctx, commit, ref, "")
	var no *gitrepo.Error
	switch {
	case err == nil:
		return "", nil
	case code(err) == gitrepo.CodeUnavailable:
		return "", repositoryAway(err)
	case errors.As(err, &no) && (no.Code == gitrepo.CodeNotFastForward || no.Code == gitrepo.CodeRef):
		return no.Detail, nil
	}
	return "", fmt.Errorf("push to the repository: %w", err)
}

// held reads back which commit a branch of the repository has; none if there is no such branch.
func (s *Server) held(ctx context.Context, ref string) (gitrepo.Commit, error) {
	id, err := s.repo.RemoteRef(ctx, ref)
	if err != nil {
		return gitrepo.Commit{}, repositoryAway(err)
	}
	if id == "" {
		return gitrepo.Commit{}, nil
	}
	c, err := s.commitOf(ctx, id)
	if err != nil { // the branch is gone again, or the repository cannot hand out what it names
		return gitrepo.Commit{}, repositoryAway(err)
	}
	return c, nil
}

// commit makes the commit of a reviewed revision: computed anew from the bytes, and the same however often it is made, so
// that a repeated transfer finds its own.
func (s *Server) commit(ctx context.Context, st *procedure.State, r *procedure.Revision) (string, error) {
	result, err := s.recompute(ctx, r)
	if err != nil {
		return "", err
	}
	first := r.Underway().First
	drill := ""
	if st.Declared.Drill {
		drill = "drill "
	}
	id, err := s.repo.CommitTree(ctx, gitrepo.CommitSpec{
		BaseCommit: r.BaseCommit, ResultTree: result.ResultTree, Author: signature(r.Author), Committer: signature(first.By), When: first.At,
		Message: fmt.Sprintf("%s: emergency %s%s, revision %s\n\nEmergency: %s\nRevision: %s\nBinding: %s\nPatch-SHA256: %s\n",
			r.BugID, drill, st.Incident, r.ID, st.Incident, r.ID, r.Binding, r.Artefact.GetSha256()),
	})
	if err != nil {
		return "", fmt.Errorf("commit the reviewed tree: %w", err)
	}
	return id, nil
}

// signature names a person by the directory's id. The address is one that can never exist (RFC 2606): mail addresses are
// restricted, and git wants one.
func signature(person string) gitrepo.Person {
	return gitrepo.Person{Name: person, Email: person + "@epatch.invalid"}
}
