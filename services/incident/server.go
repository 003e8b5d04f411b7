// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/service"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func (s *Server) input(ctx context.Context, facts procedure.Facts) dispatch.Input {
	return dispatch.Input{Actor: service.Caller(ctx), Facts: facts}
}

// MergeInto merges a duplicate into an earlier incident: first the target records that it absorbed the duplicate, then the
// duplicate that it was merged. A crash in between leaves the first half, which a repeated command completes.
func (s *Server) MergeInto(ctx context.Context, req *emergencyv1.MergeIntoRequest) (*emergencyv1.MergeIntoResponse, error) {
	duplicate, err := s.Dispatch.State(ctx, req.GetMeta().GetIncident())
	if err != nil {
		return nil, service.Retryable(err)
	}
	target, err := s.Dispatch.State(ctx, req.GetTarget())
	if err != nil {
		return nil, service.Retryable(err)
	}
	may, err := s.mayMerge(ctx, req, duplicate, target)
	if err != nil {
		return nil, err
	}
	if may && duplicate.Status == procedure.Open && target.Incident != duplicate.Incident {
		if err := s.absorb(ctx, req, duplicate, target); err != nil {
			return nil, err
		}
	}
	c, err := s.Do(ctx, req, procedure.Facts{Other: target})
	if err != nil {
		return nil, err
	}
	return &emergencyv1.MergeIntoResponse{Committed: c}, nil
}

// mayMerge tells whether whoever asks may merge at all, so that nobody else reaches the other incident or learns that it exists. The
// second half then says why not, and records it.
func (s *Server) mayMerge(ctx context.Context, req *emergencyv1.MergeIntoRequest, duplicate, target *procedure.State) (bool, error) {
	book, err := s.Dispatch.Book(ctx)
	if err != nil {
		return false, service.Retryable(err)
	}
	_, refusal, err := procedure.Decide(duplicate, req, procedure.Env{
		Owner: s.Owner, Now: s.Clock.Now(), Actor: service.Caller(ctx), Book: book, Facts: procedure.Facts{Other: target}, Salt: make([]byte, 32),
	})
	return refusal == nil || refusal.Code != procedure.PermissionDenied && refusal.Code != procedure.Unauthenticated, err
}

// absorb records the first half in the target. A malformed merge is left to the second half to refuse. Under a request id
// that was used before, the first half may be there from an interrupted try, naming a head that the duplicate has left since.
func (s *Server) absorb(ctx context.Context, req *emergencyv1.MergeIntoRequest, duplicate, target *procedure.State) error {
	meta := proto.CloneOf(req.GetMeta())
	meta.Incident, meta.ExpectedPosition = req.GetTarget(), nil
	in, err := s.absorbing(ctx, req, meta)
	if err != nil {
		return err
	}
	in.Facts = procedure.Facts{Other: duplicate}
	_, err = s.Dispatch.Do(ctx, &emergencyv1.AbsorbDuplicateRequest{
		Meta: meta, Source: duplicate.Incident, SourceHeadHash: duplicate.HeadHash, Reason: req.GetReason(),
	}, in)
	err = service.Retryable(err)
	var refusal *procedure.Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	absorbed := slices.ContainsFunc(target.Notes, func(n procedure.Mark) bool { return n.Result == duplicate.Incident })
	if refusal.Code == procedure.InvalidArgument || refusal.Reason == procedure.ReasonRequestIDReused && absorbed {
		return nil
	}
	return err
}

// absorbing is who gives the first half: whoever merges. The signature of a forwarded merge is over the second half alone, which
// names both incidents; so this service, which has verified it, follows up on that person's command.
func (s *Server) absorbing(ctx context.Context, req *emergencyv1.MergeIntoRequest, meta *emergencyv1.CommandMeta) (dispatch.Input, error) {
	if !meta.GetForwarded() {
		return s.input(ctx, procedure.Facts{}), nil
	}
	actor, err := s.Giver(ctx, req)
	if err != nil {
		return dispatch.Input{}, err
	}
	meta.Forwarded, meta.Approval = false, nil
	return dispatch.Input{Actor: procedure.Actor{
		Person: actor.GetPerson(), KeyID: actor.GetKeyId(), System: emergencyv1.SystemKind_SYSTEM_KIND_REACTOR, SystemName: s.Owner,
	}}, nil
}

// StandDown ends the emergency while nothing was changed.
func (s *Server) StandDown(ctx context.Context, req *emergencyv1.StandDownRequest) (*emergencyv1.StandDownResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.StandDownResponse{Committed: c}, err
}

// WaiveControl waives a control, as debt.
func (s *Server) WaiveControl(ctx context.Context, req *emergencyv1.WaiveControlRequest) (*emergencyv1.WaiveControlResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.WaiveControlResponse{Committed: c}, err
}

// RecordLeadDecision records the critical team lead's decision.
func (s *Server) RecordLeadDecision(ctx context.Context, req *emergencyv1.RecordLeadDecisionRequest) (*emergencyv1.RecordLeadDecisionResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.RecordLeadDecisionResponse{Committed: c}, err
}

// AnnotateLog adds a note to an entry of the emergency log.
func (s *Server) AnnotateLog(ctx context.Context, req *emergencyv1.AnnotateLogRequest) (*emergencyv1.AnnotateLogResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.AnnotateLogResponse{Committed: c}, err
}

// Close closes the incident.
func (s *Server) Close(ctx context.Context, req *emergencyv1.CloseRequest) (*emergencyv1.CloseResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.CloseResponse{Committed: c}, err
}
