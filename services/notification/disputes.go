// SPDX-License-Identifier: Apache-2.0

package notification

import (
	"context"
	"fmt"
	"slices"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/projection"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// tellDispute tells the people of arbitration whom a dispute now waits for, and the parties what was ordered; ok is false for an
// event that is about nothing of it. Proceedings are private (DRP 3.2): a message says that something waits and how to see
// it, and nothing of what is in it.
func (s *Server) tellDispute(ctx context.Context, rec *projection.Record, e projection.Event) (list []effect.Effect, ok bool) {
	role := func(r emergencyv1.Role) []string { return s.Incidents.Book().PersonsWith(r, s.Clock.Now()) }
	managers := func(dispute string) []string { return s.caseManagers(ctx, rec, dispute) }
	tell := func(people []string, what, do string) ([]effect.Effect, bool) {
		var list []effect.Effect
		for i, person := range people {
			if person != "" && !slices.Contains(people[:i], person) {
				list = append(list, s.tell(rec.ID(e), rec.Incident, person, ": "+what, do+fmt.Sprintf("\nSee it:  epatch dispute show --incident %s\n", rec.Incident)))
			}
		}
		return list, true
	}
	typed := func(line string) string { return "  " + line + " --incident " + rec.Incident + "\n" }
	const manager, officer = emergencyv1.Role_ROLE_CASE_MANAGER, emergencyv1.Role_ROLE_DISPUTE_OFFICER
	switch p := e.Payload.(type) {
	case *emergencyv1.DisputeFiled:
		return tell(role(manager), "dispute "+p.GetDispute()+" is filed", "A case manager opens a case:\n"+typed("epatch case open "+p.GetDispute()))
	case *emergencyv1.ReviewRequested:
		return tell(role(manager), "a review of ruling "+p.GetRuling()+" is asked for", "A case manager opens a case:\n"+typed("epatch case open "+p.GetDispute()))
	case *emergencyv1.ArbitratorProposed:
		return tell([]string{p.GetCandidate()}, "you are asked to arbitrate "+p.GetDispute(),
			fmt.Sprintf("Please answer until %s:\n", p.GetAnswerUntil().AsTime().UTC().Format("2006-01-02 15:04 MST"))+typed("epatch case accept --no-conflict")+typed("epatch case decline"))
	case *emergencyv1.ArbitratorDeclined:
		return tell(managers(p.GetDispute()), "an arbitrator declines "+p.GetDispute(), "Ask another one:\n"+typed("epatch case propose PERSON"))
	case *emergencyv1.ArbitratorAccepted:
		return tell(managers(p.GetDispute()), p.GetDispute()+" has an arbitrator", "")
	case *emergencyv1.DisputeClosedDeclined:
		return tell(role(officer), p.GetDispute()+" has no arbitrator, and a ruling is still owed", "It can be filed again.\n")
	case *emergencyv1.DirectionIssued:
		people := []string{p.GetPerson()}
		if r := p.GetRole(); r != emergencyv1.Role_ROLE_UNSPECIFIED && r != emergencyv1.Role_ROLE_MEMBER {
			people = role(r)
		}
		return tell(people, "direction "+p.GetDirection()+" is for you",
			fmt.Sprintf("An arbitrator ordered something of you, until %s. When it is done:\n", p.GetDueAt().AsTime().UTC().Format("2006-01-02 15:04 MST"))+typed("epatch direction done "+p.GetDirection()+" --proof TEXT"))
	case *emergencyv1.DirectionReported:
		return tell(s.managersOfDirection(ctx, rec, p.GetDirection()), "direction "+p.GetDirection()+" is reported as carried out", "Confirm it:\n"+typed("epatch direction confirm "+p.GetDirection()))
	case *emergencyv1.RulingDelivered:
		return tell(managers(p.GetDispute()), "ruling "+p.GetRuling()+" is delivered", "Publish it, within privacy:\n"+typed("epatch ruling publish TEXT"))
	case *emergencyv1.ReviewRuled:
		if p.GetReopened() {
			return tell(role(officer), p.GetDispute()+" is re-opened", "Form the panel:\n"+typed("epatch appeal panel PERSON PERSON PERSON"))
		}
		return tell(managers(p.GetDispute()), p.GetDispute()+" is not re-opened", "")
	case *emergencyv1.AppealPanelFormed:
		return tell(p.GetMembers(), "you are of the panel for "+p.GetDispute(), fmt.Sprintf("The senior member, who delivers the ruling, is %s.\n", p.GetSenior()))
	}
	return nil, false
}

// caseManagers is who opened the case of a dispute; all case managers if that cannot be read.
func (s *Server) caseManagers(ctx context.Context, rec *projection.Record, dispute string) []string {
	if st, ok := s.stateOf(ctx, rec); ok {
		if x, ok := st.Dispute(dispute); ok && x.Opened.By != "" {
			return []string{x.Opened.By}
		}
	}
	return s.Incidents.Book().PersonsWith(emergencyv1.Role_ROLE_CASE_MANAGER, s.Clock.Now())
}

func (s *Server) managersOfDirection(ctx context.Context, rec *projection.Record, direction string) []string {
	dispute := ""
	if st, ok := s.stateOf(ctx, rec); ok {
		if x, ok := st.Direction(direction); ok {
			dispute = x.Dispute
		}
	}
	return s.caseManagers(ctx, rec, dispute)
}
