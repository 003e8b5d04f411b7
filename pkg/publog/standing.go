// SPDX-License-Identifier: Apache-2.0

package publog

import (
	"slices"
	"strings"
	"time"
)

// Dispute is one that has no arbitrator yet (procedure.md 8.6).
type Dispute struct {
	Incident string `json:"incident"`
	Dispute  string `json:"dispute"`
	Concern  string `json:"concern,omitempty"`
	// FiledAt is when it was filed; of one that was filed again, when it was for the first time.
	FiledAt  time.Time `json:"filed_at"`
	Asked    int       `json:"asked"`
	Declined int       `json:"declined"`
	// ClosedDeclined: nobody took it, and the ruling is still owed.
	ClosedDeclined bool `json:"closed_declined"`
}

// Waiting lists the disputes without an arbitrator, the oldest first, from nothing but the entries.
func Waiting(entries []Entry) []Dispute {
	list := []Dispute{}
	for n := range entries {
		e := &entries[n]
		_, kind, _ := strings.Cut(e.Kind, ".")
		switch kind {
		case "DisputeFiled", "ReviewRequested", "ArbitratorProposed", "ArbitratorDeclined", "DisputeClosedDeclined", "ArbitratorAccepted":
		default:
			continue // most entries
		}
		id := e.Field(fieldDispute)
		i := slices.IndexFunc(list, func(d Dispute) bool { return d.Incident == e.Incident && d.Dispute == id })
		switch {
		case kind == "DisputeFiled" || kind == "ReviewRequested":
			d := Dispute{Incident: e.Incident, Dispute: id, Concern: e.Field("concern"), FiledAt: e.At}
			if kind == "ReviewRequested" {
				d.Concern = "review"
			}
			list = append(list, d)
			list = takeOver(list, e.Field(fieldRefiles))
		case i < 0:
		case kind == "ArbitratorProposed":
			list[i].Asked++
		case kind == "ArbitratorDeclined":
			list[i].Declined++
		case kind == "DisputeClosedDeclined":
			list[i].ClosedDeclined = true
		case kind == "ArbitratorAccepted":
			list = slices.Delete(list, i, i+1)
		}
	}
	slices.SortStableFunc(list, func(a, b Dispute) int { return a.FiledAt.Compare(b.FiledAt) })
	return list
}

// takeOver lets the last of the list stand for the one that it files again.
func takeOver(list []Dispute, old string) []Dispute {
	last := &list[len(list)-1]
	i := slices.IndexFunc(list, func(d Dispute) bool { return d.Incident == last.Incident && d.Dispute == old })
	if i < 0 || old == "" {
		return list
	}
	last.FiledAt = list[i].FiledAt
	return slices.Delete(list, i, i+1)
}

// Owed counts the obligations that the entries show as open, and those of them that they show as overdue.
func Owed(entries []Entry) (open, overdue int) {
	late := map[string]bool{}
	for n := range entries {
		e := &entries[n]
		key := e.Incident + " " + e.Field(fieldObligation)
		switch _, kind, _ := strings.Cut(e.Kind, "."); kind {
		case "ObligationOpened", "ObligationDueChanged":
			late[key] = false
		case "ObligationOverdue", "ObligationEscalated":
			late[key] = true
		case "ObligationDischarged":
			delete(late, key)
		}
	}
	for _, l := range late {
		open++
		if l {
			overdue++
		}
	}
	return open, overdue
}
