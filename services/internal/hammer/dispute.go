// SPDX-License-Identifier: Apache-2.0

package hammer

import (
	"fmt"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// disputeMoves are moves that somebody would make next who wants the disputes decided.
func (c *client) disputeMoves(s *procedure.State, move func(string, procedure.Command)) {
	if len(s.Disputes) == 0 && len(s.Applies) > 0 {
		move("carl", proceduretest.FileDispute(emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1))
	}
	for i := range s.Disputes {
		if x := &s.Disputes[i]; x.Open() {
			c.disputeMove(s, x, move)
		}
	}
	for _, r := range s.Rulings {
		if r.Published.Position == 0 {
			move("casper", &emergencyv1.PublishRulingRequest{Ruling: r.ID, Text: "it was justified"})
		}
		if !r.Final && r.Superseded == "" && c.chance(10) {
			move("anna", proceduretest.RequestReview(r.ID))
		}
	}
	for _, x := range s.Directions {
		switch {
		case x.Done.Position > 0 || x.Void.Position > 0 || x.Person == "":
		case x.Reported.Position == 0:
			move(x.Person, &emergencyv1.ReportDirectionDoneRequest{Direction: x.ID, Proof: "it is in the wiki"})
		default:
			move("casper", &emergencyv1.ConfirmDirectionRequest{Direction: x.ID})
		}
	}
}

func (c *client) disputeMove(s *procedure.State, x *procedure.Dispute, move func(string, procedure.Command)) {
	arbitrators := []string{"arno", "agnes", "achim"}
	asked := ""
	if n := len(x.Proposals); n > 0 && x.Proposals[n-1].Declined.Position == 0 {
		asked = x.Proposals[n-1].Candidate
	}
	switch {
	case x.Mailed.Position == 0 && c.chance(50):
		move("mailer", &emergencyv1.ReportFilingRequest{Dispute: x.ID, State: emergencyv1.DeliveryState_DELIVERY_STATE_SENT})
	case x.Case == "":
		move("casper", &emergencyv1.OpenCaseRequest{Dispute: x.ID, CaseNumber: fmt.Sprintf("case-%d", 1+c.rng.IntN(3))})
	case len(x.Panel) > 0:
		move(x.Senior, proceduretest.DeliverRuling(s, x.ID))
	case x.Reopened.Position > 0:
		move("doris", &emergencyv1.FormAppealPanelRequest{Dispute: x.ID, Members: []string{"adele", "alois", pick(c, arbitrators)}, Senior: "adele"})
	case x.Arbitrator != "" && !x.Review() && x.Preliminaries.Position == 0:
		move(x.Arbitrator, proceduretest.Preliminaries(x.ID))
	case x.Arbitrator != "":
		ruling := proceduretest.DeliverRuling(s, x.ID)
		ruling.Reopen = true
		move(x.Arbitrator, ruling)
	case asked != "":
		move(asked, &emergencyv1.RespondAppointmentRequest{Dispute: x.ID, Accept: c.chance(80), NoConflict: true})
	default:
		move("casper", &emergencyv1.ProposeArbitratorRequest{Dispute: x.ID, Candidate: pick(c, arbitrators)})
	}
}
