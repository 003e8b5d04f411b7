// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// disputeAttempts are the commands of arbitration, in their place or not.
func disputeAttempts(s *procedure.State) []attempt {
	incomplete := FileDispute(emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER)
	incomplete.Respondents = nil
	list := []attempt{
		{c: FileDispute(emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1)}, {c: FileDispute(emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2)}, {c: incomplete},
		{c: Redact(1, s.Declared.Symptom)}, {c: Redact(1, "severity")}, {c: &emergencyv1.DiscloseRequest{Event: 1, Commitment: s.Declared.Component}},
		{c: &emergencyv1.DiscloseRequest{Event: 1, Commitment: s.Declared.Symptom}}, {c: &emergencyv1.ReportRedactionRequest{Redaction: pending(s)}},
	}
	disputes, ruling, direction := []string{"a20261124.1"}, "R1", "D1" // what there is, or what there is not
	for i := max(0, len(s.Disputes)-2); i < len(s.Disputes); i++ {
		disputes = append(disputes, s.Disputes[i].ID)
	}
	if len(disputes) > 1 {
		disputes = disputes[1:]
	}
	for _, id := range disputes {
		list = append(list, attemptsOn(s, id)...)
	}
	if n := len(s.Rulings); n > 0 {
		ruling = s.Rulings[n-1].ID
	}
	if n := len(s.Directions); n > 0 {
		direction = s.Directions[n-1].ID
	}
	return append(list,
		attempt{c: &emergencyv1.PublishRulingRequest{Ruling: ruling, Text: "it was justified"}}, attempt{c: RequestReview(ruling)}, attempt{c: RequestReview("R1")},
		attempt{c: &emergencyv1.ReportDirectionDoneRequest{Direction: direction, Proof: "it is in the wiki"}}, attempt{c: &emergencyv1.ConfirmDirectionRequest{Direction: direction}})
}

func attemptsOn(s *procedure.State, dispute string) []attempt {
	again := FileDispute(emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER)
	again.Refiles = dispute
	unjudged, sealed := DeliverRuling(s, dispute), DeliverRuling(s, dispute)
	unjudged.Judgements, unjudged.Reopen = nil, true
	sealed.Sealed = true
	for _, o := range procedure.Debts(s) {
		if o.Open() && len(sealed.Lifted) < 2 {
			sealed.Lifted = append(sealed.Lifted, o.ID)
		}
	}
	board := DeliverRuling(s, dispute)
	board.Sealed, board.BoardConfirmation, board.Lifted = true, "m20261201.2", sealed.Lifted
	return []attempt{
		{c: again}, {c: &emergencyv1.OpenCaseRequest{Dispute: dispute, CaseNumber: "a20261125.7"}}, {c: &emergencyv1.OpenCaseRequest{Dispute: dispute, CaseNumber: "c" + dispute}},
		{c: &emergencyv1.ReportFilingRequest{Dispute: dispute, State: emergencyv1.DeliveryState_DELIVERY_STATE_SENT}},
		{c: &emergencyv1.ProposeArbitratorRequest{Dispute: dispute, Candidate: "arno"}}, {c: &emergencyv1.ProposeArbitratorRequest{Dispute: dispute, Candidate: "agnes"}},
		{c: &emergencyv1.RespondAppointmentRequest{Dispute: dispute, Accept: true, NoConflict: true}}, {c: &emergencyv1.RespondAppointmentRequest{Dispute: dispute}},
		{c: &emergencyv1.CloseDeclinedRequest{Dispute: dispute}}, {c: Preliminaries(dispute)},
		{c: DeliverRuling(s, dispute)}, {c: unjudged}, {c: sealed}, {c: board},
		{c: &emergencyv1.FormAppealPanelRequest{Dispute: dispute, Members: []string{"achim", "adele", "alois"}, Senior: "adele"}},
		{c: &emergencyv1.FormAppealPanelRequest{Dispute: dispute, Members: []string{"arno", "adele", "alois"}, Senior: "adele"}},
	}
}

// pending is the position of a redaction that was not completed yet, or of something else.
func pending(s *procedure.State) uint64 {
	if list := procedure.PendingRedactions(s); len(list) > 0 {
		return list[0].Redacted.Position
	}
	return 1
}
