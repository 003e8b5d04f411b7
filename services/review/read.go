// SPDX-License-Identifier: Apache-2.0

package review

import (
	"context"
	"fmt"
	"slices"

	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/service"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// ReadPatch returns the bytes of a revision, hashed again, and the diff to apply: the bytes themselves, or for a bundle what
// it amounts to, computed again. The bytes are restricted until disclosure, so they go to those alone who take part.
func (s *Server) ReadPatch(ctx context.Context, req *reviewv1.ReadPatchRequest) (*reviewv1.ReadPatchResponse, error) {
	if err := s.mayRead(ctx); err != nil {
		return nil, err
	}
	st, err := s.Dispatch.State(ctx, req.GetIncident())
	if err != nil {
		return nil, service.Retryable(err)
	}
	r, ok := st.Revision(req.GetRevision())
	if !ok {
		return nil, &procedure.Refusal{
			Code: procedure.NotFound, Reason: procedure.ReasonPatch, Rule: "G4",
			Message: fmt.Sprintf("incident %s has no revision %s", shown(req.GetIncident()), shown(req.GetRevision())),
		}
	}
	data, err := s.stored(ctx, r)
	if err != nil {
		return nil, err
	}
	diff := data
	if patch.IsBundle(data) {
		_, result, err := s.recompute(ctx, r)
		if err != nil {
			return nil, err
		}
		diff = result.Diff
	}
	s.Log.InfoContext(ctx, "patch read", "incident", st.Incident, "revision", r.ID, "by_key", service.Caller(ctx).KeyID)
	return &reviewv1.ReadPatchResponse{Bytes: data, Sha256: r.Artefact.GetSha256(), Diff: diff}, nil
}

// takesPart are the roles that have a step in strategy 1; a team lead has the team's role.
func takesPart(r emergencyv1.Role) bool {
	switch r {
	case emergencyv1.Role_ROLE_CRITICAL_ADMIN, emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR, emergencyv1.Role_ROLE_SOFTWARE_DEVELOPER,
		emergencyv1.Role_ROLE_SOFTWARE_ENGINEER, emergencyv1.Role_ROLE_TESTER:
		return true
	}
	return false
}

// mayRead lets agents, services and people who take part read patches.
func (s *Server) mayRead(ctx context.Context) error {
	key := service.Caller(ctx).KeyID
	if key == "" {
		return &procedure.Refusal{Code: procedure.Unauthenticated, Reason: procedure.ReasonNoIdentity, Rule: "G1", Message: "the caller showed no certificate"}
	}
	if _, ours := s.Keys.Lookup(key); ours {
		return nil
	}
	book, err := s.Dispatch.Book(ctx)
	if err != nil {
		return service.Retryable(err)
	}
	now := s.Clock.Now()
	entry, ok := book.Key(key)
	switch {
	case !ok:
		return &procedure.Refusal{Code: procedure.PermissionDenied, Reason: procedure.ReasonKeyUnknown, Rule: "G1", Message: "the caller's key is not in the rule book"}
	case !entry.RevokedAt.IsZero() && !now.Before(entry.RevokedAt):
		return &procedure.Refusal{Code: procedure.PermissionDenied, Reason: procedure.ReasonKeyRevoked, Rule: "G1", Message: "the caller's key was revoked"}
	case entry.Key.GetPerson() == "", slices.ContainsFunc(book.Roles(entry.Key.GetPerson(), now), takesPart):
		return nil
	}
	return &procedure.Refusal{
		Code: procedure.PermissionDenied, Reason: procedure.ReasonRole, Rule: "5.3",
		Message: "patches are read by critical admins, assessors, developers, engineers and testers until they are disclosed",
	}
}
