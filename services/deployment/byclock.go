// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"

	"cacert.org/emergency/pkg/projection"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment/broker"
)

// A session is frozen or ended by the broker, which records it then. Where the clock had to record it because the broker did
// not, the session may still run: what the history says is made true.

// byTheClock tells whether a record is the timer's.
func byTheClock(rec *projection.Record) bool {
	return rec.Record.GetActor().GetSystem() == emergencyv1.SystemKind_SYSTEM_KIND_TIMER
}

func (s *Server) freezeByTheClock(ctx context.Context, rec *projection.Record, e *emergencyv1.SessionFrozen) error {
	ref := broker.Ref{Incident: rec.Incident, Grant: e.GetGrant()}
	_, g, err := s.opened(ctx, ref.Incident, ref.Grant)
	if err != nil || g == nil || g.Terminated.Position > 0 || g.Frozen.At.Before(rec.Record.GetRecordedAt().AsTime()) {
		return err // it went on or has ended since
	}
	if s.broker != nil { // its own record of the freeze would be refused: there is one
		_, err = s.broker.Freeze(ctx, ref, broker.CausePresence, func(context.Context, broker.Freezing) error { return nil })
	}
	var no *broker.Refusal
	if s.broker != nil && !errors.As(err, &no) {
		return err
	}
	return s.onHost(ctx, ref, g.Host, "freeze", deploymentv1.JobKind_JOB_KIND_FREEZE_SESSION)
}

func (s *Server) endByTheClock(ctx context.Context, rec *projection.Record, e *emergencyv1.SessionTerminated) error {
	ref := broker.Ref{Incident: rec.Incident, Grant: e.GetGrant()}
	st, err := s.Dispatch.State(ctx, ref.Incident)
	if err != nil {
		return err
	}
	g, ok := st.Grant(ref.Grant)
	if !ok || g.Consumed.Position == 0 {
		return nil // nothing was ever let in
	}
	if s.broker != nil {
		_, err = s.broker.Terminate(ctx, ref, broker.CauseGateway, "", "ended by the clock", func(context.Context, broker.Ending) error { return nil })
	}
	return errors.Join(err, s.onHost(ctx, ref, g.Host, "end", deploymentv1.JobKind_JOB_KIND_END_ACCESS))
}

// onHost has the host's agent do something to a session. A host without an agent is for the people, and of a session that the
// agent does not know nothing is left to stop.
func (s *Server) onHost(ctx context.Context, ref broker.Ref, host, what string, kind deploymentv1.JobKind) error {
	ans, err := consoleHost{s}.run(ctx, ref, host, &deploymentv1.Job{Id: jobID(what), Kind: kind})
	unknown := ans != nil && (ans.GetErrorCode() == codeNoSession || ans.GetErrorCode() == codeNoConsole)
	if unknown || errors.Is(err, broker.ErrNoAgent) {
		return nil
	}
	return err
}
