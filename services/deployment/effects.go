// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// plan says what follows an event. Everything is repeatable: an agent answers a job that it did from its journal, a push
// finds its commit there, and a comparison may be made twice.
func (s *Server) plan(_ context.Context, rec *projection.Record, e projection.Event) []effect.Effect {
	one := func(what string, run func(context.Context) error) []effect.Effect {
		return []effect.Effect{{Key: rec.ID(e) + "/" + what, Lane: what, Run: run, Repeatable: true}} // a freeze waits for no job that waits for its agent
	}
	switch p := e.Payload.(type) {
	case *emergencyv1.ApplyStarted:
		if p.GetByHand() {
			return nil // asked for its tree once the executor has reported
		}
		return one("apply", func(ctx context.Context) error { return s.deliver(ctx, rec, e, s.applyJob(p.GetBinding())) })
	case *emergencyv1.PatchApplied:
		if rec.Record.GetActor().GetPerson() == "" {
			return nil // the agent reports the tree itself
		}
		return one("verify", func(ctx context.Context) error { return s.deliver(ctx, rec, e, verifyJob(p.GetBinding())) })
	case *emergencyv1.BackOutStarted:
		return one("back-out", func(ctx context.Context) error {
			return s.deliver(ctx, rec, e, backJob(p.GetBinding(), procedure.BackingOut))
		})
	case *emergencyv1.RollBackStarted:
		return one("roll-back", func(ctx context.Context) error {
			return s.deliver(ctx, rec, e, backJob(p.GetBinding(), procedure.RollingBack))
		})
	case *emergencyv1.DeployVerified:
		return one("replicate", func(ctx context.Context) error { return s.replicate(ctx, rec, e, p.GetBinding()) })
	case *emergencyv1.PatchRegistered:
		if p.GetOrigin() != emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION {
			return nil
		}
		return one("replicate", func(ctx context.Context) error { return s.bringToBranch(ctx, rec, e) })
	case *emergencyv1.SessionFrozen:
		if !byTheClock(rec) {
			return nil // whoever froze it did so before it was recorded
		}
		return one("freeze", func(ctx context.Context) error { return s.freezeByTheClock(ctx, rec, p) })
	case *emergencyv1.SessionTerminated:
		after := s.aftermath(rec, e, p.GetGrant())
		if byTheClock(rec) {
			after = append(one("end", func(ctx context.Context) error { return s.endByTheClock(ctx, rec, p) }), after...)
		}
		return after
	case *emergencyv1.ReplicationPushed, *emergencyv1.RolledBack, *emergencyv1.PatchBackedOut:
		return one("compare", func(ctx context.Context) error { return s.recheck(ctx, rec, e) })
	}
	return nil
}

// owed is the host that a job is for and the job itself, from the state as it is now; no job if none is owed any more. A
// refusal says that the rules do not let it out.
type owed func(ctx context.Context, id string, st *procedure.State) (host string, j *deploymentv1.Job, err error)

func (s *Server) applyJob(b *emergencyv1.Binding) owed {
	return func(ctx context.Context, id string, st *procedure.State) (string, *deploymentv1.Job, error) {
		r, a := running(st, b)
		if a == nil || a.State != procedure.Applying || eventID(st, a.Position) != id {
			return "", nil, nil
		}
		book, err := s.Dispatch.Book(ctx)
		if err != nil {
			return "", nil, err
		}
		if refusal := procedure.HostGate(st, r.ID, a.Host, book, s.Clock.Now()); refusal != nil {
			return "", nil, refusal
		}
		return a.Host, job(id, deploymentv1.JobKind_JOB_KIND_APPLY, st, r), nil
	}
}

func verifyJob(b *emergencyv1.Binding) owed {
	return func(_ context.Context, id string, st *procedure.State) (string, *deploymentv1.Job, error) {
		r, a := running(st, b)
		if a == nil || a.State != procedure.Applied || eventID(st, a.Applied.Position) != id {
			return "", nil, nil
		}
		return a.Host, job(id, deploymentv1.JobKind_JOB_KIND_VERIFY, st, r), nil
	}
}

func backJob(b *emergencyv1.Binding, state procedure.ApplyState) owed {
	return func(_ context.Context, id string, st *procedure.State) (string, *deploymentv1.Job, error) {
		r, a := running(st, b)
		if a == nil || a.State != state || eventID(st, a.Last) != id {
			return "", nil, nil
		}
		return a.Host, job(id, deploymentv1.JobKind_JOB_KIND_BACK_OUT, st, r), nil
	}
}

func eventID(st *procedure.State, position uint64) string {
	return fmt.Sprintf("%s/%d", st.Incident, position)
}

// running is the attempt on exactly these bytes, or nothing.
func running(st *procedure.State, b *emergencyv1.Binding) (*procedure.Revision, *procedure.Apply) {
	r, ok := st.Revision(b.GetRevision())
	if !ok || r.Binding != b.GetDigest() {
		return nil, nil
	}
	return r, st.ApplyOf(r.ID)
}

// lookAgain is after how long an effect that waits for an agent looks whether the job is still owed: several processes of
// this service may wait, and the agent is attached to one of them.
const lookAgain = time.Minute

// deliver brings a job to the host's agent, however long the agent is away, as long as the job is owed. The result ends it:
// what happened on the host the agent records by its own commands.
func (s *Server) deliver(ctx context.Context, rec *projection.Record, e projection.Event, due owed) error {
	for ctx.Err() == nil {
		st, err := s.Dispatch.State(ctx, rec.Incident)
		if err != nil {
			return err
		}
		host, j, err := due(ctx, rec.ID(e), st)
		var refusal *procedure.Refusal
		if errors.As(err, &refusal) {
			return fmt.Errorf("%w: the job of %s is not handed out: %w", effect.ErrGiveUp, rec.ID(e), refusal)
		}
		if err != nil || j == nil {
			return err
		}
		ans, err := s.hub.run(ctx, lookAgain, host, j)
		if err != nil {
			s.Log.WarnContext(ctx, "a job waits for its agent", "incident", rec.Incident, "job", j.GetId(), "host", host, "error", err)
			if ctx.Err() == nil && s.hub.away(host) {
				continue // the waiting was done in there
			}
			return err
		}
		return s.answered(ctx, rec, j, host, ans)
	}
	return ctx.Err()
}

// away tells whether no host agent of that name is attached.
func (h *hub) away(host string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.agents[agentID{hostAgent, host}] == nil
}

func (s *Server) answered(ctx context.Context, rec *projection.Record, j *deploymentv1.Job, host string, ans *answer) error {
	switch {
	case ans.GetOk():
		s.Log.InfoContext(ctx, "agent did a job", "incident", rec.Incident, "job", j.GetId(), "kind", j.GetKind().String(), "host", host, "tree", ans.GetPostTree())
	case ans.GetErrorCode() == codeUnavailable:
		return fmt.Errorf("agent on %s: %s", host, ans.GetErrorDetail())
	default:
		s.Log.ErrorContext(ctx, "agent did not do a job", "incident", rec.Incident, "job", j.GetId(), "kind", j.GetKind().String(), "host", host,
			"code", ans.GetErrorCode(), "detail", ans.GetErrorDetail())
	}
	return nil
}
