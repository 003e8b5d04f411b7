// SPDX-License-Identifier: Apache-2.0

package arbitration

import (
	"context"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Establish founds an empty rule book. It is no RPC: the operator's process calls it with arbitration's own key.
func (s *Server) Establish(ctx context.Context, req *emergencyv1.EstablishRequest) (*emergencyv1.Committed, error) {
	return s.Dispatch.Do(ctx, req, dispatch.Input{Actor: s.System(emergencyv1.SystemKind_SYSTEM_KIND_SERVICE)})
}

// Document documents what was done.
func (s *Server) Document(ctx context.Context, req *emergencyv1.DocumentRequest) (*emergencyv1.DocumentResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.DocumentResponse{Committed: c}, err
}

// RecordBoardSummary records that a period was reported to the Board.
func (s *Server) RecordBoardSummary(ctx context.Context, req *emergencyv1.RecordBoardSummaryRequest) (*emergencyv1.RecordBoardSummaryResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.RecordBoardSummaryResponse{Committed: c}, err
}

// PublishPolicy adds a version of the policy.
func (s *Server) PublishPolicy(ctx context.Context, req *emergencyv1.PublishPolicyRequest) (*emergencyv1.PublishPolicyResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.PublishPolicyResponse{Committed: c}, err
}

// GrantRole grants a role.
func (s *Server) GrantRole(ctx context.Context, req *emergencyv1.GrantRoleRequest) (*emergencyv1.GrantRoleResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.GrantRoleResponse{Committed: c}, err
}

// RevokeRole takes a role away.
func (s *Server) RevokeRole(ctx context.Context, req *emergencyv1.RevokeRoleRequest) (*emergencyv1.RevokeRoleResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.RevokeRoleResponse{Committed: c}, err
}

// AddKey adds a key.
func (s *Server) AddKey(ctx context.Context, req *emergencyv1.AddKeyRequest) (*emergencyv1.AddKeyResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.AddKeyResponse{Committed: c}, err
}

// RevokeKey revokes a key.
func (s *Server) RevokeKey(ctx context.Context, req *emergencyv1.RevokeKeyRequest) (*emergencyv1.RevokeKeyResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.RevokeKeyResponse{Committed: c}, err
}

// ImportArchive takes messages of the years before this system into the public log.
func (s *Server) ImportArchive(ctx context.Context, req *emergencyv1.ImportArchiveRequest) (*emergencyv1.ImportArchiveResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.ImportArchiveResponse{Committed: c}, err
}
