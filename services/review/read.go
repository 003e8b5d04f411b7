// SPDX-License-Identifier: Apache-2.0

package review

import (
	"context"
	"fmt"

	"cacert.org/emergency/pkg/gitrepo"
	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/service"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// ReadPatch returns the bytes of a revision, hashed again, and the diff to apply: the bytes themselves, or for a bundle what
// it amounts to, computed again. The bytes are restricted until disclosure, so they go to those alone who take part.
func (s *Server) ReadPatch(ctx context.Context, req *reviewv1.ReadPatchRequest) (*reviewv1.ReadPatchResponse, error) {
	if err := s.mayRead(ctx, req.GetIncident()); err != nil {
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
		result, err := s.recompute(ctx, r)
		if err != nil {
			return nil, err
		}
		diff = result.Diff
	}
	s.Log.InfoContext(ctx, "patch read", "incident", st.Incident, "revision", r.ID, "by_key", service.Caller(ctx).KeyID)
	return &reviewv1.ReadPatchResponse{Bytes: data, Sha256: r.Artefact.GetSha256(), Diff: diff}, nil
}

// ComputePatch says what bytes that are not registered make of a commit: what their registration has to say. Who may ask is for the
// server: services alone.
func (s *Server) ComputePatch(ctx context.Context, req *reviewv1.ComputePatchRequest) (*reviewv1.ComputePatchResponse, error) {
	st, err := s.Dispatch.State(ctx, req.GetIncident())
	if err != nil {
		return nil, service.Retryable(err)
	}
	base := req.GetBase()
	if base == "" {
		base = st.ReleaseRef()
	}
	if err := s.repo.Fetch(ctx); err != nil { // a branch is meant as it is now
		return nil, repositoryAway(err)
	}
	out := &reviewv1.ComputePatchResponse{}
	c, err := s.repo.ResolveCommit(ctx, base)
	if err == nil {
		var result gitrepo.Result
		if result, err = s.compute(ctx, c.ID, req.GetBytes()); err == nil {
			out.BaseCommit, out.BaseTree, out.ResultTree = c.ID, result.BaseTree, result.ResultTree
			return out, nil
		}
	}
	out.Problem, err = problem(err)
	return out, err
}

// mayRead lets agents and services read patches, and the people who may read an event's restricted values.
func (s *Server) mayRead(ctx context.Context, incident string) error {
	book, err := s.Dispatch.Book(ctx)
	if err != nil {
		return service.Retryable(err)
	}
	now := s.Clock.Now()
	who, refusal := procedure.Recognise(book, service.Caller(ctx).KeyID, now)
	if refusal == nil && who.GetSystem() == emergencyv1.SystemKind_SYSTEM_KIND_UNSPECIFIED {
		judge := func(st *procedure.State) {
			refusal = procedure.MayRead(st, book, who.GetPerson(), now, "review.PatchRegistered", procedure.RestrictedField{Field: "bytes"})
		}
		if !s.Incidents.View(incident, judge) {
			judge(nil)
		}
	}
	if refusal != nil {
		return refusal
	}
	return nil
}
