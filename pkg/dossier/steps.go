// SPDX-License-Identifier: Apache-2.0

package dossier

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Step is one line of the table of chapter 1, as of a position.
type Step struct {
	Strategy uint32 `json:"strategy"`
	Number   string `json:"number"`
	What     string `json:"what"`
	// Positions are those of its events; none means NoEvidence.
	Positions []uint64 `json:"positions"`
	// FirstAt is when it was done first.
	FirstAt *time.Time `json:"first_at"`
	// Target is when it had to be done, absent where there is no time for it; State is what became of it.
	Target *time.Time `json:"target"`
	State  string     `json:"state"`
	Who    []string   `json:"who"`
}

// row describes a step: which events do it, and what says when it had to be done.
type row struct {
	strategy     uint32
	number, what string
	types        []string
	deadline     string // key of the policy
	debt         string // kind of obligation
	ordered      bool   // comes after all ordered rows before it
	whenever     bool   // counts whatever strategy was in force when it was recorded
	only         func(*fold, event) bool
}

// rows are chapter 1. Calling the teams and preparing the patch go on side by side (procedure.md 10.17), so they have no
// order among each other.
func rows() []row {
	return []row{
		{1, "1.1", "declared", []string{"EmergencyDeclared"}, "", "", true, false, nil},
		{1, "1.2", "teams called", []string{"CallOutIssued"}, "s1.callout", "", false, false, nil},
		{1, "1.3", "responders named", []string{"ResponderAccepted"}, "s1.slots", "", false, false, nil},
		{1, "1.4", "standby", []string{"StandbyStarted"}, "", "", false, false, nil},
		{1, "1.5", "patch registered", []string{"PatchRegistered"}, "s1.patch", "", true, false, prepared},
		{1, "1.6", "first review", []string{"FirstReviewRecorded"}, "", "", true, false, beforehand},
		{1, "1.6", "in the repository", []string{"PatchTransferred"}, "s1.review1", "", true, false, nil},
		{1, "1.6", "on test server", []string{"TestServerConfirmed"}, "", "", true, false, nil},
		{1, "1.7", "tested", []string{"TestReported"}, "s1.tests", "", true, false, beforehand},
		{1, "1.8", "second review", []string{"SecondReviewRecorded"}, "", "", true, false, beforehand},
		{1, "1.8", "forwarded", []string{"PatchForwarded"}, "s1.review2", "", true, false, nil},
		{1, "1.9", "dry run", []string{"DryRunRecorded"}, "", "", true, false, nil},
		{1, "1.9", "deploy started", []string{"ApplyStarted"}, "", "", true, false, nil},
		{1, "1.9", "deploy verified", []string{"DeployVerified"}, "s1.deploy", "", true, false, nil},
		{1, "1.9", "health", []string{"HealthRecorded"}, "", "HEALTH", false, false, nil},
		{1, "1.9", "documented", []string{"ProcedureDocumented"}, "s1.document", "DOCUMENT/S1", false, true, documents(1)},
		{1, "1.9", "compared with git", []string{"ReplicationChecked"}, "", "REPLICATE", false, false, nil},

		{2, "2", "escalated", []string{"StrategyEscalated"}, "", "", true, true, leadsTo(2)},
		{2, "2.2", "patch registered", []string{"PatchRegistered"}, "", "", true, false, prepared},
		{2, "2.2", "forwarded", []string{"PatchForwarded"}, "", "", true, false, nil},
		{2, "2.3", "dry run", []string{"DryRunRecorded"}, "", "", true, false, nil},
		{2, "2.3", "deploy started", []string{"ApplyStarted"}, "", "", true, false, nil},
		{2, "2.3", "deploy verified", []string{"DeployVerified"}, "", "", true, false, nil},
		{2, "2.3", "health", []string{"HealthRecorded"}, "", "HEALTH", false, false, nil},
		{2, "2.4", "documented", []string{"ProcedureDocumented"}, "", "DOCUMENT/S2", false, true, documents(2)},
		{2, "2.4", "dispute filed", []string{"DisputeFiled"}, "", "DISPUTE/S2", false, true, concerns(2)},
		{2, "2.5", "pushed to git", []string{"ReplicationPushed"}, "", "", false, true, nil},
		{2, "2.5", "compared with git", []string{"ReplicationChecked"}, "", "REPLICATE", false, true, nil},
		{2, "2.5", "in update cycle", []string{"UpdateCycleEntered"}, "", "ENTER_CYCLE", false, true, nil},
		{2, "2.5", "review ended", []string{"UpdateCycleConcluded"}, "", "REGULAR_REVIEW", false, true, nil},
		{2, "2.6", "case opened", []string{"CaseOpened"}, "", "CASE_OPEN", false, true, concerns(2)},
		{2, "2.6", "ruling", []string{"RulingDelivered"}, "", "RULING", false, true, concerns(2)},

		{3, "3.2", "jointly declared", []string{"JointDeclarationSigned"}, "", "", true, true, nil},
		{3, "3.2", "escalated", []string{"StrategyEscalated"}, "", "", true, true, leadsTo(3)},
		{3, "3.3", "access permitted", []string{"AccessPermitted"}, "", "", true, true, nil},
		{3, "3.3", "access granted", []string{"AccessGrantIssued"}, "", "", true, true, nil},
		{3, "3.3", "role assumed", []string{"RoleAssumed"}, "", "", true, true, nil},
		{3, "3.4", "watch armed", []string{"WatchArmed"}, "", "", true, true, nil},
		{3, "3.4", "credential used", []string{"CredentialConsumed"}, "", "", true, true, nil},
		{3, "3.4", "connection open", []string{"ConnectionOpened"}, "", "", true, true, nil},
		{3, "3.6", "session ended", []string{"SessionTerminated", "GrantExpired"}, "", "", true, true, nil},
		{3, "3.6", "access disabled", []string{"ConnectionDisabled"}, "", "DISABLE_ACCESS", false, true, nil},
		{3, "3.6", "proven unusable", []string{"CredentialProvenUnusable"}, "", "PROVE_UNUSABLE", false, true, nil},
		{3, "3.6", "sealed", []string{"SessionSealed"}, "", "SEAL_SESSION", false, true, nil},
		{3, "3.7", "documented", []string{"ProcedureDocumented"}, "", "DOCUMENT/S3", false, true, documents(3)},
		{3, "3.7", "dispute filed", []string{"DisputeFiled"}, "", "DISPUTE/S3", false, true, concerns(3)},
		{3, "3.8", "diff captured", []string{"SessionDiffCaptured"}, "", "", false, true, nil},
		{3, "3.8", "diff as patch", []string{"PatchRegistered"}, "", "", false, true, fromSession},
		{3, "3.8", "compared with git", []string{"ReplicationChecked"}, "", "REPLICATE", false, true, nil},
		{3, "3.8", "in update cycle", []string{"UpdateCycleEntered"}, "", "ENTER_CYCLE", false, true, nil},
		{3, "3.8", "review ended", []string{"UpdateCycleConcluded"}, "", "REGULAR_REVIEW", false, true, nil},
		{3, "3.9", "case opened", []string{"CaseOpened"}, "", "CASE_OPEN", false, true, concerns(3)},
		{3, "3.9", "ruling", []string{"RulingDelivered"}, "", "RULING", false, true, concerns(3)},
	}
}

// Where an event has to do with one strategy by what it says, not by when it was recorded.

func documents(n uint32) func(*fold, event) bool {
	return func(_ *fold, e event) bool {
		d, ok := e.payload.(*emergencyv1.ProcedureDocumented)
		return ok && d.GetStrategy() == n
	}
}

func leadsTo(n uint32) func(*fold, event) bool {
	return func(_ *fold, e event) bool {
		x, ok := e.payload.(*emergencyv1.StrategyEscalated)
		return ok && x.GetTo() == n
	}
}

// concerns follows a dispute through its case to its ruling.
func concerns(n uint32) func(*fold, event) bool {
	wanted := emergencyv1.DisputeConcern(n) // DISPUTE_CONCERN_STRATEGY_1 to 3 are 1 to 3
	return func(f *fold, e event) bool {
		switch p := e.payload.(type) {
		case *emergencyv1.DisputeFiled:
			return p.GetConcern() == wanted
		case *emergencyv1.CaseOpened:
			return f.concern(p.GetDispute()) == wanted
		case *emergencyv1.RulingDelivered:
			return f.concern(p.GetDispute()) == wanted
		}
		return false
	}
}

func (f *fold) concern(dispute string) emergencyv1.DisputeConcern {
	for _, e := range f.events {
		if d, ok := e.payload.(*emergencyv1.DisputeFiled); ok && d.GetDispute() == dispute {
			return d.GetConcern()
		}
	}
	return emergencyv1.DisputeConcern_DISPUTE_CONCERN_UNSPECIFIED
}

func fromSession(_ *fold, e event) bool {
	p, ok := e.payload.(*emergencyv1.PatchRegistered)
	return ok && p.GetOrigin() == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION
}

func prepared(f *fold, e event) bool { return !fromSession(f, e) }

// beforehand tells reviews and tests before the deployment from those of the update cycle.
func beforehand(_ *fold, e event) bool {
	p, ok := e.payload.(interface{ GetPhase() emergencyv1.Phase })
	return !ok || p.GetPhase() != emergencyv1.Phase_PHASE_AFTER
}

// of are the row's events.
func (f *fold) of(r row) []event {
	var list []event
	for _, e := range f.events {
		if slices.Contains(r.types, e.name) && (r.only == nil || r.only(f, e)) && (r.whenever || e.strategy == r.strategy) {
			list = append(list, e)
		}
	}
	return list
}

// used tells whether a strategy was in force at some time.
func (f *fold) used(strategy uint32) bool {
	return strategy == 1 || slices.ContainsFunc(f.under, func(s since) bool { return s.strategy == strategy })
}

// Steps is the table of chapter 1 alone, for every strategy that was in force. It fails as New does.
func Steps(in Input) ([]Step, error) {
	f, err := read(in)
	if err != nil {
		return nil, err
	}
	return f.steps(), nil
}

// stepTypes are the events that do a step, without their owners.
var stepTypes = sync.OnceValue(func() map[string]bool {
	types := map[string]bool{}
	for _, r := range rows() {
		for _, name := range r.types {
			types[name] = true
		}
	}
	return types
})

// StepNames are all that What can be, each once.
func StepNames() []string {
	var list []string
	for _, r := range rows() {
		if !slices.Contains(list, r.what) {
			list = append(list, r.what)
		}
	}
	return list
}

func (f *fold) steps() []Step {
	list := []Step{}
	for _, r := range rows() {
		if !f.used(r.strategy) {
			continue
		}
		s := Step{Strategy: r.strategy, Number: r.number, What: r.what, Positions: []uint64{}, Who: []string{}}
		for i, e := range f.of(r) {
			if i == 0 {
				at := e.at.UTC()
				s.FirstAt = &at
			}
			s.Positions = append(s.Positions, e.pos)
			if who := doer(e); !slices.Contains(s.Who, who) {
				s.Who = append(s.Who, who)
			}
		}
		f.judge(&s, r)
		list = append(list, s)
	}
	return list
}

// doer is who did a step: the person, or the machine.
func doer(e event) string {
	if p := e.rec.GetActor().GetPerson(); p != "" {
		return p
	}
	return e.rec.GetActor().GetSystemName()
}

// judge adds when a step had to be done and what became of that, by the rules' own deadlines and obligations.
func (f *fold) judge(s *Step, r row) {
	if len(s.Positions) == 0 {
		s.State = NoEvidence
	}
	for _, dl := range procedure.Deadlines(f.state) {
		if r.deadline != "" && dl.Key == r.deadline {
			due := dl.Due.UTC()
			s.Target = &due
			s.State = strings.ToLower(strings.ReplaceAll(string(dl.State(f.state, f.asked)), "_", " "))
		}
	}
	if s.Target != nil || r.debt == "" {
		return
	}
	for _, o := range Obligations(f.state, f.asked) {
		if o.Kind == r.debt && f.fits(o, r) { // the first one; all of them are in the ledger
			due := o.Due
			if s.Target, s.State = &due, o.StateWords(); len(s.Positions) == 0 && o.State == Discharged {
				s.State = "met otherwise"
			}
			return
		}
	}
}

// fits tells whether an obligation that every strategy opens was opened under the row's.
func (f *fold) fits(o Owed, r row) bool {
	if d, ok := f.at(o.Cause).payload.(*emergencyv1.DisputeFiled); ok {
		return d.GetConcern() == emergencyv1.DisputeConcern(r.strategy)
	}
	return strings.Contains(o.Kind, "/") || f.strategyAt(o.Cause) == r.strategy
}

// order says where a step was done before one that comes before it in chapter 1.
func (f *fold) order() []Sentence {
	var list []Sentence
	var before []row
	for _, r := range rows() {
		events := f.of(r)
		if !r.ordered || len(events) == 0 {
			continue
		}
		for _, b := range before {
			earlier := f.of(b)[0]
			if b.strategy == r.strategy && events[0].pos < earlier.pos {
				list = append(list, Sentence{
					Text:      fmt.Sprintf("Step %s, %s, was first done before step %s, %s.", r.number, r.what, b.number, b.what),
					Positions: []uint64{events[0].pos, earlier.pos},
				})
			}
		}
		before = append(before, r)
	}
	return list
}
