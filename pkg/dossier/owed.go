// SPDX-License-Identifier: Apache-2.0

package dossier

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The states of an obligation.
const (
	Open       = "open"
	Overdue    = "overdue"
	Discharged = "met"
	Lifted     = "lifted"
)

// Owed is one obligation, as of a time.
type Owed struct {
	ID   string `json:"id"`
	Kind string `json:"kind"`
	// What is the kind in words.
	What      string `json:"what"`
	OwnerRole string `json:"owner_role"`
	// Role is the role as the rules know it.
	Role  emergencyv1.Role `json:"-"`
	Owner string           `json:"owner,omitempty"`
	Due   time.Time        `json:"due"`
	State string           `json:"state"`
	// LateBy is by how much it is, or was, late; 0 if it is not.
	LateBy time.Duration `json:"late_by_ns"`
	// Rung is the last rung of the ladder that was told; 0 if none was.
	Rung uint32 `json:"rung"`
	// Cause and By are the positions that opened and discharged it; By is 0 while it is open.
	Cause    uint64    `json:"cause"`
	Since    time.Time `json:"since"`
	By       uint64    `json:"by"`
	ByAt     time.Time `json:"by_at"`
	LiftedBy string    `json:"lifted_by,omitempty"`
	// How is the command that discharges it.
	How    string `json:"how"`
	Clause string `json:"clause"`
}

// Obligations are all of an incident, by cause, as of a time.
func Obligations(s *procedure.State, asked time.Time) []Owed {
	list := []Owed{}
	for _, o := range procedure.Debts(s) {
		state := Open
		switch {
		case o.LiftedBy != "":
			state = Lifted
		case !o.Open():
			state = Discharged
		case o.Overdue(asked):
			state = Overdue
		}
		list = append(list, Owed{
			ID: o.ID, Kind: o.Kind, What: KindWords(o.Kind), OwnerRole: procedure.RoleWord(o.OwnerRole), Role: o.OwnerRole, Owner: o.Owner, Due: o.Due.UTC(), State: state,
			LateBy: o.LateBy(asked), Rung: s.Rung(o.ID), Cause: o.Cause, Since: o.CausedAt.UTC(), By: o.By, ByAt: o.ByAt.UTC(), LiftedBy: o.LiftedBy, How: o.How, Clause: o.Clause,
		})
	}
	return list
}

// Who owes it: the person, where one is known, and the role.
func (o Owed) Who() string { return owner(o.Owner, o.Role) }

// StateWords is the state with what is late in it.
func (o Owed) StateWords() string {
	switch {
	case o.State == Lifted:
		return "lifted by " + o.LiftedBy
	case o.State == Discharged && o.LateBy > 0:
		return "met late by " + span(o.LateBy)
	case o.State == Overdue:
		return "overdue by " + span(o.LateBy)
	}
	return o.State
}

// LadderWords says how far up the ladder it was reminded of (procedure.md 7, SP 5.3.3); empty while nobody was.
func (o Owed) LadderWords() string {
	if o.Rung == 0 {
		return ""
	}
	return count(int(o.Rung), "reminder") + " sent"
}

// Sentence says the obligation whole.
func (o Owed) Sentence() string {
	return fmt.Sprintf("%s (%s): owed by %s since %s, due %s, %s.", o.What, o.ID, o.Who(), stamp(o.Since), stamp(o.Due), o.StateWords())
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// KindWords is the kind of an obligation in words (procedure.md 7).
func KindWords(kind string) string {
	family, of, _ := strings.Cut(kind, "/")
	switch family {
	case "LEAD_DECISION":
		return "the team lead's decision"
	case "BOARD_SUMMARY":
		return "the report to the Board"
	case "DOCUMENT":
		return "the documentation" + ofStrategy(of)
	case "DISPUTE":
		if of == "REFERRED" {
			return "the dispute that the team lead referred"
		}
		return "the dispute" + ofStrategy(of)
	case "CASE_OPEN":
		return "a case for the dispute"
	case "RULING":
		return "the arbitrator's ruling"
	case "DIRECTION":
		return "what the arbitrator directed"
	case "HEALTH":
		return "the health note after the deployment"
	case "REPLICATE":
		return "host and repository found equal"
	case "EXPLAIN_DRIFT":
		return "an explanation of a path that differs"
	case "ENTER_CYCLE":
		return "the patch in the regular update cycle"
	case "REGULAR_REVIEW":
		return "the regular review of the patch"
	case "TEST_DEBT":
		return "the test that was waived"
	case "OBSERVER_DEBT":
		return "a second critical admin's check of the host"
	case "EXPLAIN_MISMATCH":
		return "an answer to the deployment that differed"
	case "BACKOUT_PROOF":
		return "the proof that the former tree is back"
	case "POST_APPLY_VETO":
		return "an answer to the veto after the deployment"
	case "DISABLE_ACCESS":
		return "the access disabled"
	case "PROVE_UNUSABLE":
		return "the proof that the access is unusable"
	case "SEAL_SESSION":
		return "the session's record sealed"
	case "EXPLAIN_LEFTOVERS":
		return "an explanation of what the session left"
	case "OFFLINE_RECONCILE":
		return "a second person's word for a late record"
	}
	return strings.ToLower(strings.ReplaceAll(kind, "_", " "))
}

// ofStrategy is " of strategy 2" for S2.
func ofStrategy(s string) string {
	n, err := strconv.Atoi(strings.TrimPrefix(s, "S"))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" of strategy %d", n)
}
