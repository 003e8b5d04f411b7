// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Access to a host for one watched session: what is found out before it is granted, and after it has ended (seed 3.3, 3.6,
// 3.8; procedure.md 4.4). The session itself is the broker's.

// AccessConfig is what the operator sets for accesses. It may only tighten what the policy allows.
type AccessConfig struct {
	// Account that sessions log in to, where a grant names none.
	Account string
	// MaxLength of a session and FirstUse of its credential; 0 for the policy's.
	MaxLength, FirstUse time.Duration
	// Recordings is the folder that the broker writes recordings to, where nobody else comes; recordings in the state folder if
	// empty.
	Recordings string
}

// PermitAccess records the critical team lead's permission.
func (s *Server) PermitAccess(ctx context.Context, req *emergencyv1.PermitAccessRequest) (*emergencyv1.PermitAccessResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.PermitAccessResponse{Committed: c}, err
}

// GrantAccess grants one session, once the host's agent has listed the tree as it is before.
func (s *Server) GrantAccess(ctx context.Context, req *emergencyv1.GrantAccessRequest) (*emergencyv1.GrantAccessResponse, error) {
	facts, err := s.found(ctx, req, procedure.ReasonManifestMissing, func(st *procedure.State) (procedure.Facts, error) {
		return s.beforeAccess(ctx, st)
	})
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, facts)
	return &emergencyv1.GrantAccessResponse{Committed: c}, err
}

func (s *Server) beforeAccess(ctx context.Context, st *procedure.State) (procedure.Facts, error) {
	ans, err := s.tree(ctx, st, s.format(ctx, st), true)
	if err != nil {
		return procedure.Facts{}, err
	}
	before, err := s.listed(ctx, st.Host(), ans)
	if err != nil {
		return procedure.Facts{}, err
	}
	x := &procedure.ConsoleFacts{Account: s.access.Account, Agent: true, Before: &before, MaxLength: s.access.MaxLength, FirstUse: s.access.FirstUse}
	if s.broker != nil && len(s.siblings) > 0 {
		x.Instance = s.Instance
	}
	return consoleFacts(x), nil
}

// format is any tree in the repository's object format, so that the host's trees can be compared with its commits. A
// repository that is away must not keep anybody from a host: then it is the usual one.
func (s *Server) format(ctx context.Context, st *procedure.State) string {
	c, err := s.repo.ResolveCommit(ctx, st.ReleaseRef())
	if err != nil {
		return ""
	}
	return c.Tree
}

// ExplainLeftovers records what something is that a session left.
func (s *Server) ExplainLeftovers(ctx context.Context, req *emergencyv1.ExplainLeftoversRequest) (*emergencyv1.ExplainLeftoversResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.ExplainLeftoversResponse{Committed: c}, err
}

// CaptureSessionDiff records what a session changed in the host's tree. It is done after every session by itself; by hand it
// is for what could not be made then.
func (s *Server) CaptureSessionDiff(ctx context.Context, req *emergencyv1.CaptureSessionDiffRequest) (*emergencyv1.CaptureSessionDiffResponse, error) {
	facts, err := s.found(ctx, req, procedure.ReasonManifestMissing, func(st *procedure.State) (procedure.Facts, error) {
		return s.afterSession(ctx, st, req.GetGrant())
	})
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, facts)
	return &emergencyv1.CaptureSessionDiffResponse{Committed: c}, err
}

// ReportLeftovers records what a session left: as the agent reports it, or as it is fetched from the agent for a person. If
// the agent cannot be asked now, that nobody has looked is recorded as one of the things that have to be explained.
func (s *Server) ReportLeftovers(ctx context.Context, req *emergencyv1.ReportLeftoversRequest) (*emergencyv1.ReportLeftoversResponse, error) {
	facts, err := s.leftoversFor(ctx, req)
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, facts)
	return &emergencyv1.ReportLeftoversResponse{Committed: c}, err
}

// SealSession seals an access, once the service has checked and stored the recording.
func (s *Server) SealSession(ctx context.Context, req *emergencyv1.SealSessionRequest) (*emergencyv1.SealSessionResponse, error) {
	if to, err := s.keeper(ctx, refOf(req)); to != nil || err != nil {
		return handOn(ctx, to, err, req, (*sibling).SealSession)
	}
	facts, err := s.found(ctx, req, procedure.ReasonRecorderNotReady, func(st *procedure.State) (procedure.Facts, error) {
		return s.beforeSeal(ctx, st, req.GetGrant())
	})
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, facts)
	return &emergencyv1.SealSessionResponse{Committed: c}, err
}
