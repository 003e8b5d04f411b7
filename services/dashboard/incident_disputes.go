// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"time"

	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Disputes, rulings and directions in the words of the query API. What is private in them is a commitment here too.

func disputesOf(s *procedure.State, now time.Time) []*dashboardv1.Dispute {
	waits := map[string]bool{}
	for _, x := range procedure.WithoutArbitrator(s) {
		waits[x.ID] = true
	}
	var list []*dashboardv1.Dispute
	for i := range s.Disputes {
		x := &s.Disputes[i]
		out := &dashboardv1.Dispute{
			Id: x.ID, Concern: x.Concern, State: string(x.State(now)), Filed: mark(x.Filed), FiledAs: x.FiledAs, Claimants: restricted(x.Claimants),
			Respondents: restricted(x.Respondents), Complaint: restricted(x.Complaint), EvidencePosition: x.Evidence, EvidenceHash: x.EvidenceHash, Refiles: x.Refiles,
			GoesOnIn: x.RefiledBy, CaseNumber: x.Case, CaseOpened: mark(x.Opened), Arbitrator: x.Arbitrator, Accepted: mark(x.Accepted), Preliminaries: mark(x.Preliminaries),
			Mailed: x.Mailed.Result, OfRuling: x.Of, Reopened: mark(x.Reopened), Panel: append([]string(nil), x.Panel...), Senior: x.Senior, Ended: mark(x.Ended), WithoutArbitrator: waits[x.ID],
		}
		if out.GetGoesOnIn() == "" {
			out.GoesOnIn = x.JoinedTo
		}
		for _, v := range procedure.Attached(s, x.ID) {
			out.Deviations = append(out.Deviations, &emergencyv1.AttachedDeviation{Position: v.Position, Deviation: v.Deviation})
		}
		for _, p := range x.Proposals {
			out.Proposals = append(out.Proposals, &dashboardv1.Proposal{
				Candidate: p.Candidate, Asked: mark(p.Asked), AnswerUntil: instant(p.Until), State: string(p.State(now)), Declined: mark(p.Declined),
			})
		}
		list = append(list, out)
	}
	return list
}

func rulingsOf(s *procedure.State) []*dashboardv1.Ruling {
	var list []*dashboardv1.Ruling
	for _, r := range s.Rulings {
		out := &dashboardv1.Ruling{
			Id: r.ID, Dispute: r.Dispute, Mark: mark(r.Mark), CaseNumber: r.Case, Sealed: r.Sealed, Final: r.Final, Lifted: append([]string(nil), r.Lifted...),
			Published: mark(r.Published), SupersededBy: r.Superseded,
		}
		for _, j := range r.Judgements {
			out.Judgements = append(out.Judgements, &emergencyv1.Judgement{Position: j.Position, Deviation: j.Deviation, Finding: j.Finding})
		}
		list = append(list, out)
	}
	return list
}

func directionsOf(s *procedure.State, now time.Time) []*dashboardv1.Direction {
	var list []*dashboardv1.Direction
	for _, x := range s.Directions {
		list = append(list, &dashboardv1.Direction{
			Id: x.ID, Dispute: x.Dispute, Kind: x.Kind, Person: x.Person, Role: x.Role, Text: restricted(x.Text), DueAt: instant(x.Due), State: string(x.State(now)),
			Issued: mark(x.Issued), InRuling: x.InRuling, Reported: mark(x.Reported), Done: mark(x.Done), Void: mark(x.Void),
		})
	}
	return list
}

// mark is something that was done; absent while it is not.
func mark(m procedure.Mark) *dashboardv1.Mark {
	if m.Position == 0 {
		return nil
	}
	return &dashboardv1.Mark{Position: m.Position, At: instant(m.At), By: m.By}
}
