// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"context"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/service"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	restrictedv1 "cacert.org/emergency/proto/emergency/restricted/v1"
)

// ReadRestricted returns a restricted value to a person who may read it, from the service that keeps it. Each reading leaves a
// line here and one with the owner; a refused one leaves a line here.
func (s *Server) ReadRestricted(ctx context.Context, req *dashboardv1.ReadRestrictedRequest) (*dashboardv1.ReadRestrictedResponse, error) {
	a, err := s.recognise(ctx)
	if err != nil {
		return nil, err
	}
	eventType, field, ok := s.records.Restricted(req.GetIncident(), req.GetCommitment())
	if !ok {
		return nil, &procedure.Refusal{
			Code: procedure.NotFound, Reason: procedure.ReasonEntry, Rule: "0.8", Message: "no event of the incident holds this commitment",
			Allow: []procedure.Allowance{{Description: "take incident and commitment from one entry of the timeline"}},
		}
	}
	var refusal *procedure.Refusal
	book, now := s.cfg.Incidents.Book(), s.cfg.Clock.Now()
	judge := func(st *procedure.State) {
		refusal = procedure.MayRead(st, book, a.GetPerson(), now, eventType, field)
	}
	if !s.cfg.Incidents.View(req.GetIncident(), judge) {
		judge(nil)
	}
	s.cfg.Log.InfoContext(ctx, "restricted value asked for", "incident", req.GetIncident(), "event", eventType, "field", field.Field,
		"commitment", req.GetCommitment(), "person", a.GetPerson(), "key", a.GetKeyId(), "refused", refusal != nil)
	if refusal != nil {
		return nil, refusal
	}
	return s.reveal(ctx, req.GetCommitment(), eventType, a.GetPerson())
}

func (s *Server) reveal(ctx context.Context, commitment, eventType, person string) (*dashboardv1.ReadRestrictedResponse, error) {
	owner, _ := procedure.EventOwner(eventType)
	peer, ok := s.cfg.Peers[owner]
	if !ok {
		return nil, service.Away("no connection to %s, which keeps the value", owner)
	}
	resp, err := restrictedv1.NewRestrictedServiceClient(peer).Reveal(ctx, &restrictedv1.RevealRequest{Owner: owner, Commitment: commitment, Person: person})
	if r, is := rpc.RefusalOf(err); is {
		return nil, r
	}
	if err != nil {
		return nil, err
	}
	return &dashboardv1.ReadRestrictedResponse{Value: string(resp.GetValue())}, nil
}
