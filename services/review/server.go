// SPDX-License-Identifier: Apache-2.0

package review

import (
	"context"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/service"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// lacks tells whether a command comes as far as the rule that asks for facts, whose reason is given: it would be refused for
// their absence alone. What counts is decided again when it is recorded; this saves the work for commands that are refused or
// repeated anyway, and keeps strangers from causing any.
func (s *Server) lacks(ctx context.Context, cmd procedure.Command, actor procedure.Actor, facts procedure.Reason) (*procedure.State, bool, error) {
	st, err := s.Dispatch.State(ctx, cmd.GetMeta().GetIncident())
	if err != nil {
		return nil, false, service.Retryable(err)
	}
	book, err := s.Dispatch.Book(ctx)
	if err != nil {
		return nil, false, service.Retryable(err)
	}
	_, refusal, err := procedure.Decide(st, cmd, procedure.Env{Owner: s.Owner, Now: s.Clock.Now(), Actor: actor, Book: book})
	return st, refusal != nil && refusal.Reason == facts, err
}

// RegisterPatch registers a patch or a new revision.
func (s *Server) RegisterPatch(ctx context.Context, req *emergencyv1.RegisterPatchRequest) (*emergencyv1.RegisterPatchResponse, error) {
	facts, err := s.patchFacts(ctx, req)
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, facts)
	if err != nil {
		return nil, err
	}
	return &emergencyv1.RegisterPatchResponse{Committed: c}, nil
}

// RecordFirstReview records the first review; an approval is followed by the transfer.
func (s *Server) RecordFirstReview(ctx context.Context, req *emergencyv1.RecordFirstReviewRequest) (*emergencyv1.RecordFirstReviewResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	if err != nil {
		return nil, err
	}
	return &emergencyv1.RecordFirstReviewResponse{Committed: c}, nil
}

// Transfer pushes the reviewed tree, or checks the commit that the reviewer pushed by hand.
func (s *Server) Transfer(ctx context.Context, req *emergencyv1.TransferRequest) (*emergencyv1.TransferResponse, error) {
	facts, err := s.pushFacts(ctx, req, service.Caller(ctx))
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, facts)
	if err != nil {
		return nil, err
	}
	return &emergencyv1.TransferResponse{Committed: c}, nil
}

// ConfirmTestServer records the test server's tree.
func (s *Server) ConfirmTestServer(ctx context.Context, req *emergencyv1.ConfirmTestServerRequest) (*emergencyv1.ConfirmTestServerResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	if err != nil {
		return nil, err
	}
	return &emergencyv1.ConfirmTestServerResponse{Committed: c}, nil
}

// ReportTest records a test.
func (s *Server) ReportTest(ctx context.Context, req *emergencyv1.ReportTestRequest) (*emergencyv1.ReportTestResponse, error) {
	facts, err := s.testFacts(ctx, req)
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, facts)
	if err != nil {
		return nil, err
	}
	return &emergencyv1.ReportTestResponse{Committed: c}, nil
}

// RecordSecondReview records the second review.
func (s *Server) RecordSecondReview(ctx context.Context, req *emergencyv1.RecordSecondReviewRequest) (*emergencyv1.RecordSecondReviewResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	if err != nil {
		return nil, err
	}
	return &emergencyv1.RecordSecondReviewResponse{Committed: c}, nil
}

// RaiseVeto stops a revision.
func (s *Server) RaiseVeto(ctx context.Context, req *emergencyv1.RaiseVetoRequest) (*emergencyv1.RaiseVetoResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	if err != nil {
		return nil, err
	}
	return &emergencyv1.RaiseVetoResponse{Committed: c}, nil
}

// WithdrawVeto withdraws one's own veto.
func (s *Server) WithdrawVeto(ctx context.Context, req *emergencyv1.WithdrawVetoRequest) (*emergencyv1.WithdrawVetoResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	if err != nil {
		return nil, err
	}
	return &emergencyv1.WithdrawVetoResponse{Committed: c}, nil
}

// OverruleVeto overrules a veto.
func (s *Server) OverruleVeto(ctx context.Context, req *emergencyv1.OverruleVetoRequest) (*emergencyv1.OverruleVetoResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	if err != nil {
		return nil, err
	}
	return &emergencyv1.OverruleVetoResponse{Committed: c}, nil
}

// Forward hands the patch to the critical team.
func (s *Server) Forward(ctx context.Context, req *emergencyv1.ForwardRequest) (*emergencyv1.ForwardResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	if err != nil {
		return nil, err
	}
	return &emergencyv1.ForwardResponse{Committed: c}, nil
}

// EnterUpdateCycle brings what is on the host into the regular update cycle.
func (s *Server) EnterUpdateCycle(ctx context.Context, req *emergencyv1.EnterUpdateCycleRequest) (*emergencyv1.EnterUpdateCycleResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	if err != nil {
		return nil, err
	}
	return &emergencyv1.EnterUpdateCycleResponse{Committed: c}, nil
}

// ConcludeUpdateCycle ends the regular review of an emergency patch.
func (s *Server) ConcludeUpdateCycle(ctx context.Context, req *emergencyv1.ConcludeUpdateCycleRequest) (*emergencyv1.ConcludeUpdateCycleResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	if err != nil {
		return nil, err
	}
	return &emergencyv1.ConcludeUpdateCycleResponse{Committed: c}, nil
}
