// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"crypto/rand"
	"fmt"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/service"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// What an agent may answer; the codes of package worktree come besides.
const (
	// codeUnavailable: nothing was done, the job may be sent again.
	codeUnavailable = "UNAVAILABLE"
	codeBase        = "HOST_BASE_MISMATCH"
	codeResult      = "RESULT_MISMATCH"
	codeNoSession   = "NO_SESSION" // the host knows no such session
	codeNoConsole   = "NO_CONSOLE" // it serves none at all
)

// ReasonAgentRefused: the agent on the host does not do what it was asked, because what it was told does not agree with the
// history that it verified, or because the patch cannot be put on this host at all. The message has the agent's words.
const ReasonAgentRefused procedure.Reason = "AGENT_REFUSED"

// found gathers the facts of a command, but only for a caller who would be allowed to give it: it asks the rules without
// the facts, and gathers them if nothing but they is missing. So nobody waits for an agent to be told what the rules say
// anyway, and nothing is pushed for somebody who may not push. What is decided is decided later, on the history as it is then.
func (s *Server) found(ctx context.Context, cmd procedure.Command, missing procedure.Reason, gather func(*procedure.State) (procedure.Facts, error)) (procedure.Facts, error) {
	return s.foundFor(ctx, cmd, service.Caller(ctx), missing, gather)
}

func (s *Server) foundFor(ctx context.Context, cmd procedure.Command, actor procedure.Actor, missing procedure.Reason, gather func(*procedure.State) (procedure.Facts, error)) (procedure.Facts, error) {
	st, err := s.Dispatch.State(ctx, cmd.GetMeta().GetIncident())
	if err != nil {
		return procedure.Facts{}, service.Retryable(err)
	}
	book, err := s.Dispatch.Book(ctx)
	if err != nil {
		return procedure.Facts{}, service.Retryable(err)
	}
	env := procedure.Env{Owner: s.Owner, Now: s.Clock.Now(), Actor: actor, Book: book, Salt: make([]byte, 32)} // nothing of this is kept
	_, refusal, err := procedure.Decide(st, cmd, env)
	if err != nil || refusal == nil || refusal.Reason != missing {
		return procedure.Facts{}, err
	}
	return gather(st)
}

// job is what an agent is told about a revision. It believes none of it.
func job(id string, kind deploymentv1.JobKind, st *procedure.State, r *procedure.Revision) *deploymentv1.Job {
	return &deploymentv1.Job{
		Id: id, Kind: kind, Incident: st.Incident, Binding: &emergencyv1.Binding{Revision: r.ID, Digest: r.Binding},
		PatchSha256: r.Artefact.GetSha256(), BaseTree: r.BaseTree, ResultTree: r.ResultTree,
	}
}

// jobID is the id of a job that no event asks for.
func jobID(what string) string { return what + "." + rand.Text() }

// ask has the agent on the incident's host do a job that changes nothing.
func (s *Server) ask(ctx context.Context, st *procedure.State, j *deploymentv1.Job) (*answer, error) {
	ans, err := s.hub.run(ctx, attachWithin(ctx), st.Host(), j)
	if err != nil {
		return nil, err
	}
	if ans.GetErrorCode() == codeUnavailable {
		return nil, service.Away("the agent on %s could not do it now: %s", st.Host(), ans.GetErrorDetail())
	}
	return ans, nil
}

func agentRefused(host string, ans *answer) *procedure.Refusal {
	return refused(procedure.FailedPrecondition, ReasonAgentRefused, "4.4, B8", fmt.Sprintf("the agent on %s refuses: %s: %s", host, ans.GetErrorCode(), ans.GetErrorDetail()),
		"find out why host and services differ before anything is applied; the agent's log says more")
}

// dryRun has the host's agent try the patch on copies.
func (s *Server) dryRun(ctx context.Context, st *procedure.State, revision string) (procedure.Facts, error) {
	r, ok := st.Revision(revision)
	if !ok {
		return procedure.Facts{}, nil
	}
	ans, err := s.ask(ctx, st, job(jobID("dry-run"), deploymentv1.JobKind_JOB_KIND_DRY_RUN, st, r))
	if err != nil {
		return procedure.Facts{}, err
	}
	if !ans.GetOk() && ans.GetErrorCode() != codeBase && ans.GetErrorCode() != codeResult {
		return procedure.Facts{}, agentRefused(st.Host(), ans)
	}
	return procedure.Facts{Agent: &procedure.AgentFacts{
		Host: st.Host(), HostTree: ans.GetPreTree(), ResultTree: ans.GetPostTree(), Clean: ans.GetOk() && ans.GetRejectedHunks() == 0,
		Rejected: int(ans.GetRejectedHunks()), Files: len(ans.GetChangedPaths()),
	}}, nil
}

// secondLook has the host's agent compute the tree for the observer.
func (s *Server) secondLook(ctx context.Context, st *procedure.State, revision string) (procedure.Facts, error) {
	r, ok := st.Revision(revision)
	if !ok {
		return procedure.Facts{}, nil
	}
	ans, err := s.tree(ctx, st, r.ResultTree, false)
	if err != nil {
		return procedure.Facts{}, err
	}
	return procedure.Facts{Agent: &procedure.AgentFacts{Host: st.Host(), HostTree: ans.GetPostTree()}}, nil
}

// tree has the host's agent compute the tree in the object format of another tree; with a list of its files if asked for.
func (s *Server) tree(ctx context.Context, st *procedure.State, like string, files bool) (*answer, error) {
	j := &deploymentv1.Job{Id: jobID("tree"), Kind: deploymentv1.JobKind_JOB_KIND_REPORT_TREE, Incident: st.Incident, BaseTree: like, WithManifest: files}
	ans, err := s.ask(ctx, st, j)
	if err != nil {
		return nil, err
	}
	if !ans.GetOk() || ans.GetPostTree() == "" {
		return nil, agentRefused(st.Host(), ans)
	}
	return ans, nil
}
