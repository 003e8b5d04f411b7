// SPDX-License-Identifier: Apache-2.0

package review

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/service"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// plan says what an event makes the service do outside.
func (s *Server) plan(_ context.Context, rec *projection.Record, e projection.Event) []effect.Effect {
	switch p := e.Payload.(type) {
	case *emergencyv1.FirstReviewRecorded:
		if p.GetVerdict() == emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE {
			return []effect.Effect{s.transfer(rec, e, p)}
		}
	case *emergencyv1.PatchTransferred:
		return append(s.transferNote(rec, e, p), s.install(rec, e, p))
	case *emergencyv1.TestReported:
		return s.testNoteOf(rec, e, p)
	case *emergencyv1.PatchForwarded:
		return s.forwardNote(rec, e, p)
	}
	return nil
}

// transfer transfers in the reviewer's name: approving is one act (design.md). A rule's refusal, such as for a veto or a
// newer revision, is in the history and ends it; the reviewer can give the command by hand later.
func (s *Server) transfer(rec *projection.Record, e projection.Event, p *emergencyv1.FirstReviewRecorded) effect.Effect {
	return effect.Effect{Key: rec.ID(e) + "/transfer", Repeatable: true, Run: func(ctx context.Context) error {
		cmd := &emergencyv1.TransferRequest{Meta: service.FollowMeta(rec, e, "transfer"), Binding: p.GetBinding()}
		facts, err := s.pushFacts(ctx, cmd, s.OnBehalf(rec))
		if err != nil {
			return err // of the repository or the artefact store: both can be mended
		}
		_, err = s.Follow(ctx, cmd, rec, e, s.OnBehalf(rec), facts)
		return unlessRefused(err)
	}}
}

// unlessRefused ends the tries of a follow-up that a rule refused, except where the same command may be accepted later.
func unlessRefused(err error) error {
	var refusal *procedure.Refusal
	if errors.As(err, &refusal) && refusal.Code != procedure.Aborted && refusal.Reason != procedure.ReasonClockSkew {
		return fmt.Errorf("%w: %w", effect.ErrGiveUp, err)
	}
	return err
}

// installWithin is how long the test server's agent may take; then it is asked again, and knows the job by its id.
const installWithin = 10 * time.Minute

// install has the test server's agent bring the reviewed tree there; the agent itself then confirms (B4). It is tried again
// until the agent has done it or the revision does not matter any more. What an agent failed to do it does not try again under
// the same job id; a further Transfer is a new job.
func (s *Server) install(rec *projection.Record, e projection.Event, p *emergencyv1.PatchTransferred) effect.Effect {
	return effect.Effect{Key: rec.ID(e) + "/install", Repeatable: true, Run: func(ctx context.Context) error {
		st, err := s.Dispatch.State(ctx, rec.Incident)
		if err != nil {
			return err
		}
		r, ok := st.Revision(p.GetBinding().GetRevision())
		if !ok || !wanted(st, r, e.Position) {
			return nil
		}
		if st.TestEnvironment() == "" {
			return fmt.Errorf("%w: the policy names no test environment for system %s", effect.ErrGiveUp, st.Declared.System)
		}
		if err := s.stillHeld(ctx, p); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, installWithin)
		defer cancel()
		resp, err := s.agents.RunJob(ctx, &deploymentv1.RunJobRequest{Agent: st.TestEnvironment(), Job: &deploymentv1.Job{
			Id: rec.ID(e), Kind: deploymentv1.JobKind_JOB_KIND_INSTALL, Incident: rec.Incident, Binding: p.GetBinding(),
			PatchSha256: r.Artefact.GetSha256(), BaseTree: r.BaseTree, ResultTree: r.ResultTree,
		}})
		if err != nil {
			return fmt.Errorf("install %s on %s: %w", r.ID, st.TestEnvironment(), err)
		}
		if res := resp.GetResult(); !res.GetOk() {
			return fmt.Errorf("install %s on %s: the agent says %s: %q; when that is mended, the first reviewer gives Transfer again", r.ID, st.TestEnvironment(), shown(res.GetErrorCode()), res.GetErrorDetail())
		}
		return nil
	}}
}

// wanted tells whether a transfer still waits for the test server: it is the last one, nobody has confirmed it, and its tests are
// still to be made. What is in the update cycle is tested even if it was replaced or the emergency has ended.
func wanted(st *procedure.State, r *procedure.Revision, transfer uint64) bool {
	c := r.Underway()
	if c.TestServer != nil || c.Transfer == nil || c.Transfer.Position != transfer {
		return false
	}
	if r.Cycle != nil {
		return r.Cycle.Concluded.Position == 0
	}
	return st.Status == procedure.Open && r.Superseded == ""
}

// stillHeld refuses to go on from a repository that does not hold what was transferred. One that does not answer holds
// nothing up: the agent takes the bytes from the artefact store.
func (s *Server) stillHeld(ctx context.Context, p *emergencyv1.PatchTransferred) error {
	now, err := s.repo.RemoteRef(ctx, p.GetRef())
	if err != nil {
		s.Log.WarnContext(ctx, "repository not asked before the installation", "ref", p.GetRef(), "error", err)
		return nil
	}
	if now != p.GetCommit() {
		return fmt.Errorf("repository: %s has commit %q, transferred was %s; set the branch back, or register and review what is meant", p.GetRef(), now, p.GetCommit())
	}
	return nil
}
