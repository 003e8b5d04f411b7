// SPDX-License-Identifier: Apache-2.0

package notification

import (
	"context"

	"cacert.org/emergency/pkg/procedure"
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

// SetContacts replaces a person's addresses.
func (s *Server) SetContacts(ctx context.Context, req *emergencyv1.SetContactsRequest) (*emergencyv1.SetContactsResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.SetContactsResponse{Committed: c}, err
}

// RecordReachability records whether a person was reached; refused to everybody but the mailer.
func (s *Server) RecordReachability(ctx context.Context, req *emergencyv1.RecordReachabilityRequest) (*emergencyv1.RecordReachabilityResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.RecordReachabilityResponse{Committed: c}, err
}
