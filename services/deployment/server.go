// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// DryRun tries the patch on the host without changing it.
func (s *Server) DryRun(ctx context.Context, req *emergencyv1.DryRunRequest) (*emergencyv1.DryRunResponse, error) {
	facts, err := s.found(ctx, req, procedure.ReasonHostBaseMismatch, func(st *procedure.State) (procedure.Facts, error) {
		return s.dryRun(ctx, st, req.GetBinding().GetRevision())
	})
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, facts)
	return &emergencyv1.DryRunResponse{Committed: c}, err
}

// ConfirmObserver confirms an observer; afterwards it is a second look at the host's tree.
func (s *Server) ConfirmObserver(ctx context.Context, req *emergencyv1.ConfirmObserverRequest) (*emergencyv1.ConfirmObserverResponse, error) {
	facts, err := s.found(ctx, req, procedure.ReasonTreeMismatch, func(st *procedure.State) (procedure.Facts, error) {
		return s.secondLook(ctx, st, req.GetBinding().GetRevision())
	})
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, facts)
	return &emergencyv1.ConfirmObserverResponse{Committed: c}, err
}

// StartApply starts the deployment; the agent applies because of the event.
func (s *Server) StartApply(ctx context.Context, req *emergencyv1.StartApplyRequest) (*emergencyv1.StartApplyResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.StartApplyResponse{Committed: c}, err
}

// ReportApply records the report of the host's agent, or of the executor who applied by hand.
func (s *Server) ReportApply(ctx context.Context, req *emergencyv1.ReportApplyRequest) (*emergencyv1.ReportApplyResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.ReportApplyResponse{Committed: c}, err
}

// ReportTree records the host's tree.
func (s *Server) ReportTree(ctx context.Context, req *emergencyv1.ReportTreeRequest) (*emergencyv1.ReportTreeResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.ReportTreeResponse{Committed: c}, err
}

// BackOut restores the tree before a failed or mismatched apply.
func (s *Server) BackOut(ctx context.Context, req *emergencyv1.BackOutRequest) (*emergencyv1.BackOutResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.BackOutResponse{Committed: c}, err
}

// RollBack takes a verified patch back.
func (s *Server) RollBack(ctx context.Context, req *emergencyv1.RollBackRequest) (*emergencyv1.RollBackResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.RollBackResponse{Committed: c}, err
}

// RecordHealth records the health of the system after the patch.
func (s *Server) RecordHealth(ctx context.Context, req *emergencyv1.RecordHealthRequest) (*emergencyv1.RecordHealthResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.RecordHealthResponse{Committed: c}, err
}

// PushReplication brings the applied state to the release branch. It pushes only what the host is known to hold.
func (s *Server) PushReplication(ctx context.Context, req *emergencyv1.PushReplicationRequest) (*emergencyv1.PushReplicationResponse, error) {
	facts, err := s.found(ctx, req, procedure.ReasonRepoTreeMismatch, func(st *procedure.State) (procedure.Facts, error) {
		return s.push(ctx, st, req.GetCommit())
	})
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, facts)
	return &emergencyv1.PushReplicationResponse{Committed: c}, err
}

// CheckReplication compares the critical host with the release branch.
func (s *Server) CheckReplication(ctx context.Context, req *emergencyv1.CheckReplicationRequest) (*emergencyv1.CheckReplicationResponse, error) {
	facts, err := s.found(ctx, req, procedure.ReasonNotDeployed, func(st *procedure.State) (procedure.Facts, error) {
		return s.compare(ctx, st)
	})
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, facts)
	return &emergencyv1.CheckReplicationResponse{Committed: c}, err
}

// ExplainDrift explains one differing path.
func (s *Server) ExplainDrift(ctx context.Context, req *emergencyv1.ExplainDriftRequest) (*emergencyv1.ExplainDriftResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.ExplainDriftResponse{Committed: c}, err
}
