// SPDX-License-Identifier: Apache-2.0

package notification

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/service"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// CallOut calls teams over at least two channels.
func (s *Server) CallOut(ctx context.Context, req *emergencyv1.CallOutRequest) (*emergencyv1.CallOutResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.CallOutResponse{Committed: c}, err
}

// ReportDelivery reports what became of a page; refused to everybody but the mailer, which is a part of this service.
func (s *Server) ReportDelivery(ctx context.Context, req *emergencyv1.ReportDeliveryRequest) (*emergencyv1.ReportDeliveryResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.ReportDeliveryResponse{Committed: c}, err
}

// Respond accepts, declines or hands over.
func (s *Server) Respond(ctx context.Context, req *emergencyv1.RespondRequest) (*emergencyv1.RespondResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.RespondResponse{Committed: c}, err
}

// CheckIn starts or renews a standby.
func (s *Server) CheckIn(ctx context.Context, req *emergencyv1.CheckInRequest) (*emergencyv1.CheckInResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.CheckInResponse{Committed: c}, err
}

// EndStandby ends a standby.
func (s *Server) EndStandby(ctx context.Context, req *emergencyv1.EndStandbyRequest) (*emergencyv1.EndStandbyResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.EndStandbyResponse{Committed: c}, err
}

// SetRota replaces the rota of a team.
func (s *Server) SetRota(ctx context.Context, req *emergencyv1.SetRotaRequest) (*emergencyv1.SetRotaResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.SetRotaResponse{Committed: c}, err
}

// SetContacts replaces a person's addresses. An address on a channel that this service does not have is refused: a page
// over it would reach nobody.
func (s *Server) SetContacts(ctx context.Context, req *emergencyv1.SetContactsRequest) (*emergencyv1.SetContactsResponse, error) {
	if _, known := s.Incidents.Book().Key(service.Caller(ctx).KeyID); known { // others learn nothing of the channels
		if refusal := s.unknownChannel(req.GetContacts()); refusal != nil {
			return nil, refusal
		}
	}
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.SetContactsResponse{Committed: c}, err
}

func (s *Server) unknownChannel(contacts []*emergencyv1.Contact) error {
	var names []string
	for _, c := range s.cfg.Channels {
		names = append(names, c.Name())
	}
	for _, c := range contacts {
		if !slices.Contains(names, c.GetChannel()) {
			return &procedure.Refusal{
				Code: procedure.InvalidArgument, Reason: procedure.ReasonField, Rule: "G2",
				Message: fmt.Sprintf("channel %.40q is not configured; configured: %s", c.GetChannel(), strings.Join(names, ", ")),
				Allow:   []procedure.Allowance{{Command: "SetContacts", Description: "name one of the configured channels, or have the operator configure it"}},
			}
		}
	}
	return nil
}

// RecordReachability records whether a person was reached; refused to everybody but the mailer.
func (s *Server) RecordReachability(ctx context.Context, req *emergencyv1.RecordReachabilityRequest) (*emergencyv1.RecordReachabilityResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.RecordReachabilityResponse{Committed: c}, err
}
