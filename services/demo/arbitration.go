// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// arbitration sees what was done without the regular controls through to a ruling, and the incident to its end (seed 2.4, 2.6,
// 3.7, 3.9).
func (s *story) arbitration(concern emergencyv1.DisputeConcern, complaint string) []part {
	return []part{
		{"Dispute  File it, open a case, find an arbitrator", func(ctx context.Context) error { return s.dispute(ctx, concern, complaint) }},
		{"Ruling   Every departure is judged, and a direction given", s.ruling},
		{"After    Report, close", s.finish},
	}
}

// document explains every departure and gives the public report.
func (s *story) document(ctx context.Context, who string, strategy uint32, text string) error {
	st, err := s.people[who].State(ctx, s.incident)
	if err != nil {
		return err
	}
	var reasons []*emergencyv1.DeviationReason
	for _, d := range st.Deviations {
		reasons = append(reasons, &emergencyv1.DeviationReason{Position: d.Position, Deviation: d.Deviation, Reason: "time was what we did not have; see the report"})
	}
	return s.act(ctx, who, fmt.Sprintf("documents what was done, with a reason for each of %d departures", len(reasons)), &emergencyv1.DocumentRequest{
		Meta: meta(), Strategy: strategy, TimelineConfirmed: true, Reasons: reasons, Text: text,
	})
}

func (s *story) dispute(ctx context.Context, concern emergencyv1.DisputeConcern, complaint string) error {
	if err := s.act(ctx, "carla", "files a dispute: "+complaint, &emergencyv1.FileDisputeRequest{
		Meta: meta(), Concern: concern, Claimants: []string{"carla"}, Respondents: []string{"the critical team"}, Complaint: complaint,
		Relief: "Review of the emergency patch process.",
	}); err != nil {
		return err
	}
	x, err := s.latestDispute(ctx, "casper")
	if err != nil {
		return err
	}
	for _, step := range []struct {
		who, what string
		cmd       procedure.Command
	}{
		{"casper", "takes control of " + x.ID + " and opens the case", &emergencyv1.OpenCaseRequest{Meta: meta(), Dispute: x.ID, CaseNumber: "a20261124.demo"}},
		{"casper", "asks arno to arbitrate", &emergencyv1.ProposeArbitratorRequest{Meta: meta(), Dispute: x.ID, Candidate: "arno"}},
		{"arno", "declares no conflict of interest and accepts", &emergencyv1.RespondAppointmentRequest{Meta: meta(), Dispute: x.ID, Accept: true, NoConflict: true}},
		{"arno", "records the preliminaries", &emergencyv1.RecordPreliminariesRequest{
			Meta: meta(), Dispute: x.ID, Jurisdiction: "The parties are Members under the CCA.", Law: "NSW, Australia, and CAcert's policies.",
		}},
	} {
		if err := s.act(ctx, step.who, step.what, step.cmd); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) latestDispute(ctx context.Context, who string) (*procedure.Dispute, error) {
	st, err := s.people[who].State(ctx, s.incident)
	if err != nil {
		return nil, err
	}
	if len(st.Disputes) == 0 {
		return nil, fmt.Errorf("%s has no dispute", s.incident)
	}
	return &st.Disputes[len(st.Disputes)-1], nil
}

func (s *story) ruling(ctx context.Context) error {
	x, err := s.latestDispute(ctx, "arno")
	if err != nil {
		return err
	}
	var judged []*emergencyv1.Judgement
	for _, d := range x.Deviations {
		judged = append(judged, &emergencyv1.Judgement{Position: d.Position, Deviation: d.Deviation, Finding: emergencyv1.Finding_FINDING_JUSTIFIED})
	}
	if err := s.act(ctx, "arno", fmt.Sprintf("rules, with a finding on each of %d departures and one direction", len(judged)), &emergencyv1.DeliverRulingRequest{
		Meta: meta(), Dispute: x.ID, Parties: "carla; the critical team", Facts: "As the history has them.", Logic: "The departures were necessary, and each was made good.",
		Place: "Vienna", Judgements: judged, Directions: []*emergencyv1.Order{{
			Person: "carla", Text: "Write down how a second admin is reached at night.", DueAt: timestamppb.New(time.Now().Add(30 * 24 * time.Hour)),
		}},
	}); err != nil {
		return err
	}
	st, err := s.people["arno"].State(ctx, s.incident)
	if err != nil {
		return err
	}
	ruling, direction := st.Rulings[len(st.Rulings)-1].ID, st.Directions[len(st.Directions)-1].ID
	for _, step := range []struct {
		who, what string
		cmd       procedure.Command
	}{
		{"casper", "publishes " + ruling, &emergencyv1.PublishRulingRequest{Meta: meta(), Ruling: ruling, Text: "The emergency was handled as the procedure asks. One direction."}},
		{"carla", "reports that " + direction + " is carried out", &emergencyv1.ReportDirectionDoneRequest{Meta: meta(), Direction: direction, Proof: "wiki page NightCalls, version 3"}},
		{"arno", "confirms it", &emergencyv1.ConfirmDirectionRequest{Meta: meta(), Direction: direction}},
	} {
		if err := s.act(ctx, step.who, step.what, step.cmd); err != nil {
			return err
		}
	}
	return nil
}

// finish pays what every emergency owes, and closes. The rules refuse it while anything is owed.
func (s *story) finish(ctx context.Context) error {
	if err := s.act(ctx, "clara", "decides as critical team lead: approved", &emergencyv1.RecordLeadDecisionRequest{
		Meta: meta(), Decision: emergencyv1.LeadDecision_LEAD_DECISION_APPROVE, Reason: "Before arbitration already; nothing to add.",
	}); err != nil {
		return err
	}
	day := s.t0.Truncate(24 * time.Hour)
	if err := s.act(ctx, "bea", "records that the Board was told", &emergencyv1.RecordBoardSummaryRequest{
		Meta: meta(), From: timestamppb.New(day), Until: timestamppb.New(day.Add(24 * time.Hour)), BoardReference: "demo-minutes-1",
	}); err != nil {
		return err
	}
	return s.act(ctx, "carla", "closes the incident: fixed", &emergencyv1.CloseRequest{
		Meta: meta(), Outcome: emergencyv1.Outcome_OUTCOME_FIXED, Summary: "Repaired, documented, replicated, reviewed and ruled on.",
	})
}
