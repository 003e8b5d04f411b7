// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"context"
	"errors"
	"strings"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Escalate goes to strategy 2.
func (s *Server) Escalate(ctx context.Context, req *emergencyv1.EscalateRequest) (*emergencyv1.EscalateResponse, error) {
	overdue, err := s.overdue(ctx, req)
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, procedure.Facts{Overdue: overdue})
	if err != nil {
		return nil, err
	}
	return &emergencyv1.EscalateResponse{Committed: c}, nil
}

// overdue is what whoever escalates owes and is late with in other incidents, as this process has read them. What is owed in a
// drill counts in drills only. Whoever is nobody is refused when it is decided, and has the refusal recorded.
func (s *Server) overdue(ctx context.Context, req *emergencyv1.EscalateRequest) ([]string, error) {
	actor, err := s.Giver(ctx, req)
	var refusal *procedure.Refusal
	if err != nil && !errors.As(err, &refusal) {
		return nil, err
	}
	person, incident := actor.GetPerson(), req.GetMeta().GetIncident()
	if person == "" {
		return nil, nil
	}
	book, now := s.Incidents.Book(), s.Clock.Now()
	has := func(r emergencyv1.Role) bool { return book.Has(person, r, now) }
	var list []string
	s.Incidents.Each(func(st *procedure.State) {
		if st.Incident != incident && st.Declared.Drill == strings.HasPrefix(incident, "x") {
			list = append(list, procedure.Overdue(st, person, has, now)...)
		}
	})
	return list, nil
}

// SignJointDeclaration takes one half of the joint declaration; the second leads to strategy 3.
func (s *Server) SignJointDeclaration(ctx context.Context, req *emergencyv1.SignJointDeclarationRequest) (*emergencyv1.SignJointDeclarationResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	if err != nil {
		return nil, err
	}
	return &emergencyv1.SignJointDeclarationResponse{Committed: c}, nil
}

// DeEscalate goes back to a lower strategy.
func (s *Server) DeEscalate(ctx context.Context, req *emergencyv1.DeEscalateRequest) (*emergencyv1.DeEscalateResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	if err != nil {
		return nil, err
	}
	return &emergencyv1.DeEscalateResponse{Committed: c}, nil
}

// ConfirmLateRecord is a second person's word for what was captured offline.
func (s *Server) ConfirmLateRecord(ctx context.Context, req *emergencyv1.ConfirmLateRecordRequest) (*emergencyv1.ConfirmLateRecordResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	if err != nil {
		return nil, err
	}
	return &emergencyv1.ConfirmLateRecordResponse{Committed: c}, nil
}
