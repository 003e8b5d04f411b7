// SPDX-License-Identifier: Apache-2.0

package arbitration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/pkg/vault"
	restrictedv1 "cacert.org/emergency/proto/emergency/restricted/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// FileDispute files a dispute.
func (s *Server) FileDispute(ctx context.Context, req *emergencyv1.FileDisputeRequest) (*emergencyv1.FileDisputeResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{DisputeNumber: s.freeNumber()})
	return &emergencyv1.FileDisputeResponse{Committed: c}, err
}

// OpenCase takes control of a filing.
func (s *Server) OpenCase(ctx context.Context, req *emergencyv1.OpenCaseRequest) (*emergencyv1.OpenCaseResponse, error) {
	c, err := s.appoint(ctx, req, req.GetDispute())
	return &emergencyv1.OpenCaseResponse{Committed: c}, err
}

// ProposeArbitrator asks one arbitrator of the list.
func (s *Server) ProposeArbitrator(ctx context.Context, req *emergencyv1.ProposeArbitratorRequest) (*emergencyv1.ProposeArbitratorResponse, error) {
	c, err := s.appoint(ctx, req, req.GetDispute())
	return &emergencyv1.ProposeArbitratorResponse{Committed: c}, err
}

// RespondAppointment accepts or declines an appointment.
func (s *Server) RespondAppointment(ctx context.Context, req *emergencyv1.RespondAppointmentRequest) (*emergencyv1.RespondAppointmentResponse, error) {
	c, err := s.appoint(ctx, req, req.GetDispute())
	return &emergencyv1.RespondAppointmentResponse{Committed: c}, err
}

// CloseDeclined closes a dispute that no arbitrator took.
func (s *Server) CloseDeclined(ctx context.Context, req *emergencyv1.CloseDeclinedRequest) (*emergencyv1.CloseDeclinedResponse, error) {
	c, err := s.appoint(ctx, req, req.GetDispute())
	return &emergencyv1.CloseDeclinedResponse{Committed: c}, err
}

// RecordPreliminaries opens the proceedings.
func (s *Server) RecordPreliminaries(ctx context.Context, req *emergencyv1.RecordPreliminariesRequest) (*emergencyv1.RecordPreliminariesResponse, error) {
	c, err := s.appoint(ctx, req, req.GetDispute())
	return &emergencyv1.RecordPreliminariesResponse{Committed: c}, err
}

// DeliverRuling rules.
func (s *Server) DeliverRuling(ctx context.Context, req *emergencyv1.DeliverRulingRequest) (*emergencyv1.DeliverRulingResponse, error) {
	c, err := s.appoint(ctx, req, req.GetDispute())
	return &emergencyv1.DeliverRulingResponse{Committed: c}, err
}

// PublishRuling publishes a ruling within privacy.
func (s *Server) PublishRuling(ctx context.Context, req *emergencyv1.PublishRulingRequest) (*emergencyv1.PublishRulingResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.PublishRulingResponse{Committed: c}, err
}

// ReportDirectionDone reports that a direction was carried out.
func (s *Server) ReportDirectionDone(ctx context.Context, req *emergencyv1.ReportDirectionDoneRequest) (*emergencyv1.ReportDirectionDoneResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.ReportDirectionDoneResponse{Committed: c}, err
}

// ConfirmDirection confirms that a direction was carried out.
func (s *Server) ConfirmDirection(ctx context.Context, req *emergencyv1.ConfirmDirectionRequest) (*emergencyv1.ConfirmDirectionResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.ConfirmDirectionResponse{Committed: c}, err
}

// RequestReview asks for a review of a ruling.
func (s *Server) RequestReview(ctx context.Context, req *emergencyv1.RequestReviewRequest) (*emergencyv1.RequestReviewResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{DisputeNumber: s.freeNumber()})
	return &emergencyv1.RequestReviewResponse{Committed: c}, err
}

// FormAppealPanel forms a panel for a re-opened case.
func (s *Server) FormAppealPanel(ctx context.Context, req *emergencyv1.FormAppealPanelRequest) (*emergencyv1.FormAppealPanelResponse, error) {
	c, err := s.appoint(ctx, req, req.GetDispute())
	return &emergencyv1.FormAppealPanelResponse{Committed: c}, err
}

// Redact orders that a restricted value is deleted for ever; the reactor sees to it.
func (s *Server) Redact(ctx context.Context, req *emergencyv1.RedactRequest) (*emergencyv1.RedactResponse, error) {
	c, err := s.Do(ctx, req, procedure.Facts{})
	return &emergencyv1.RedactResponse{Committed: c}, err
}

// Disclose publishes a restricted value, which its owner is asked for.
func (s *Server) Disclose(ctx context.Context, req *emergencyv1.DiscloseRequest) (*emergencyv1.DiscloseResponse, error) {
	revealed, err := s.reveal(ctx, req)
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, procedure.Facts{Revealed: revealed})
	return &emergencyv1.DiscloseResponse{Committed: c}, err
}

// freeNumber is the first number of the day that no dispute has, as far as this process has read.
func (s *Server) freeNumber() int {
	prefix, last := "a"+s.Clock.Now().UTC().Format("20060102")+".", 0
	s.Incidents.Each(func(st *procedure.State) {
		for _, x := range st.Disputes {
			if rest, ok := strings.CutPrefix(x.ID, prefix); ok {
				n, _ := strconv.Atoi(rest)
				last = max(last, n)
			}
		}
	})
	return last + 1
}

// appoint decides a command that asks who may take part in a dispute: the parties named in it are restricted, so the rules
// cannot read them from the history.
func (s *Server) appoint(ctx context.Context, cmd procedure.Command, dispute string) (*emergencyv1.Committed, error) {
	st, err := s.Dispatch.State(ctx, cmd.GetMeta().GetIncident())
	if err != nil {
		return nil, service.Retryable(err)
	}
	parties, err := s.parties(ctx, st, dispute)
	if err != nil {
		return nil, err
	}
	return s.Do(ctx, cmd, procedure.Facts{Parties: parties})
}

// parties are the names in the claimants, respondents and joined parties of a dispute and of those it is decided with. What
// was redacted names nobody any more.
func (s *Server) parties(ctx context.Context, st *procedure.State, dispute string) ([]string, error) {
	var list []string
	for _, x := range st.Family(dispute) {
		for _, commitment := range slices.Concat([]string{x.Claimants, x.Respondents}, x.Joined) {
			if commitment == "" {
				continue
			}
			value, _, err := s.Vault.Get(ctx, commitment)
			switch {
			case errors.Is(err, vault.ErrDestroyed), errors.Is(err, vault.ErrNotFound):
			case err != nil:
				return nil, service.Away("the parties of %s cannot be read: %v", dispute, err)
			default:
				list = append(list, strings.Split(string(value), "\n")...)
			}
		}
	}
	return list, nil
}

// reveal asks the owner of an event for a value of it; nil if the owner does not keep it, or if there is no such value: the
// rules say so.
func (s *Server) reveal(ctx context.Context, req *emergencyv1.DiscloseRequest) (*procedure.Revealed, error) {
	st, err := s.Dispatch.State(ctx, req.GetMeta().GetIncident())
	if err != nil {
		return nil, service.Retryable(err)
	}
	i := slices.IndexFunc(st.Restricted, func(r procedure.RestrictedAt) bool {
		return r.Position == req.GetEvent() && r.Commitment == req.GetCommitment()
	})
	if i < 0 || st.Restricted[i].Redacted.Position > 0 {
		return nil, nil
	}
	return s.valueOf(ctx, st.Restricted[i])
}

// valueOf reads a value from its owner. The service that keeps it writes the reading down (9).
func (s *Server) valueOf(ctx context.Context, r procedure.RestrictedAt) (*procedure.Revealed, error) {
	client, owner, err := s.ownerOf(r)
	if err != nil {
		return nil, err
	}
	resp, err := client.Reveal(ctx, &restrictedv1.RevealRequest{Owner: owner, Commitment: r.Commitment})
	if refusal, ok := rpc.RefusalOf(err); ok && refusal.Code == procedure.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, service.Away("%s does not answer for a value it keeps: %v", owner, err)
	}
	return &procedure.Revealed{Value: resp.GetValue(), Salt: resp.GetSalt()}, nil
}

func (s *Server) ownerOf(r procedure.RestrictedAt) (restrictedv1.RestrictedServiceClient, string, error) {
	owner, _ := procedure.EventOwner(r.EventType)
	peer, ok := s.Peers[owner]
	if !ok {
		return nil, owner, service.Away("no connection to %s, which keeps the value", fmt.Sprintf("%q", owner))
	}
	return restrictedv1.NewRestrictedServiceClient(peer), owner, nil
}
