// SPDX-License-Identifier: Apache-2.0

package dossier

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// question is one of the arbitrator's, with the points that answer it.
type question struct {
	id, text string
	points   []point
}

// point is one part of an answer: the events of some types, told one by one, and what is computed from several.
type point struct {
	label string
	types []string
	// ground tells of each event which ground its actor named.
	ground bool
	// only leaves out events of the types.
	only func(event) bool
	more func(*fold) []Sentence
}

// questions are those of procedure.md 9, in its words, with the events that it names.
func questions() []question {
	return []question{
		{"D1", "Who authorised the change? (drift case)", []point{
			{label: "Escalation", types: []string{"StrategyEscalated"}, ground: true},
			{label: "Team lead's decision", types: []string{"LeadDecisionRecorded"}, ground: true},
			{label: "Forwarding to the critical team", types: []string{"PatchForwarded"}, ground: true},
			{label: "Deployment", types: []string{"ApplyStarted", "RollBackStarted", "BackOutStarted"}, ground: true},
			{label: "Permission of remote access", types: []string{"AccessPermitted", "AccessGrantIssued"}, ground: true},
			{label: "Replication", types: []string{"ReplicationPushed"}, ground: true},
		}},
		{"D2", "Why was it done?", []point{
			{label: "Declaration", types: []string{"EmergencyDeclared"}},
			{label: "Ground of the escalation", types: []string{"StrategyEscalated"}},
			{label: "Joint declaration", types: []string{"JointDeclarationSigned"}},
			{label: "Reasons given for the deviations", types: []string{"ProcedureDocumented"}, more: (*fold).reasons},
		}},
		{"D3", "Which documentation was missing, and since when?", []point{
			{label: "Owed", more: (*fold).missing},
			{label: "Comparisons of host and repository", types: []string{"ReplicationChecked"}},
		}},
		{"Q1", "Was the emergency access justified? (access case; the facts, for the arbitrator to judge)", []point{
			{label: "Declaration", types: []string{"EmergencyDeclared"}},
			{label: "Joint declaration", types: []string{"JointDeclarationSigned"}},
			{label: "Who was called, and who came", more: (*fold).called},
			{label: "Who was on duty, and who did not take part", types: []string{"CoverageGapFound", "ResponderDeclined", "AckExpired", "StandbyMissed", "SlotReopened"}},
			{label: "Permission and grant", types: []string{"AccessPermitted", "AccessGrantIssued"}},
			{label: "Deviations", more: (*fold).deviations},
		}},
		{"Q2", "What was the cause of the outage, or of the change?", []point{
			{label: "Symptom", types: []string{"EmergencyDeclared"}},
			{label: "Patches", types: []string{"PatchRegistered", "PatchSuperseded"}},
			{label: "Tests", types: []string{"TestReported"}},
			{label: "Dry runs and failed deployments", types: []string{"DryRunRecorded", "PatchApplyFailed", "DeployMismatch"}},
			{label: "What a session changed", types: []string{"SessionDiffCaptured", "LeftoversReported", "LeftoversExplained"}},
			{label: "Health", types: []string{"HealthRecorded"}},
			{label: "Notes", types: []string{"LogAnnotated"}},
		}},
		{"Q3", "Was dual control kept?", []point{
			{label: "Reviews and tests", more: (*fold).reviewControl},
			{label: "Joint declaration", more: (*fold).jointControl},
			{label: "Deployment", more: (*fold).deployControl},
			{label: "Independent checks", types: []string{"ObserverConfirmed"}, only: checkedAfter},
			{label: "Remote access", more: (*fold).accessControl},
			{label: "Watch", types: []string{"WatchArmed", "SessionFrozen", "SessionResumed", "SessionSealed"}},
			{label: "Controls waived, vetoes overruled", types: []string{"ControlWaived", "VetoOverruled"}},
			{label: "Deviations from dual control", more: func(f *fold) []Sentence {
				return f.departures(emergencyv1.Deviation_DEVIATION_NO_OBSERVER, emergencyv1.Deviation_DEVIATION_TEST_QUORUM_WAIVED,
					emergencyv1.Deviation_DEVIATION_REVIEW_SKIPPED, emergencyv1.Deviation_DEVIATION_LEAD_IS_ACTOR, emergencyv1.Deviation_DEVIATION_ROLE_EXCLUSIVITY)
			}},
		}},
		{"Q4", "Was the procedure followed? (see also the table of steps)", []point{
			{label: "Deadlines passed unmet", types: []string{"DeadlineBreached"}},
			{label: "Refused commands", types: []string{"CommandRefused"}},
			{label: "Deviations", more: (*fold).deviations},
			{label: "Recorded late", more: (*fold).late},
		}},
		{"Q5", "Did the access engineer do wrong? (the facts, for the arbitrator to judge)", []point{
			{label: "Role assumed and given back", types: []string{"RoleAssumed", "RoleAssumptionEnded"}},
			{label: "Limits of the grant", types: []string{"AccessGrantIssued", "SessionExtended", "GrantExpired"}},
			{label: "Use", types: []string{"CredentialConsumed", "ConnectionOpened", "SessionTerminated"}},
			{label: "End of the access", types: []string{"ConnectionDisabled", "CredentialProvenUnusable", "CredentialStillUsable", "SessionSealed"}},
			{label: "Times between them", more: (*fold).accessTimes},
		}},
	}
}

func proceedings() []string {
	return []string{
		"DisputeFiled", "CaseOpened", "ArbitratorProposed", "ArbitratorDeclined", "ArbitratorAccepted", "DisputeClosedDeclined", "PreliminariesRecorded",
		"RulingDelivered", "RulingPublished", "DirectionIssued", "DirectionReported", "DirectionConfirmed", "ReviewRequested", "ReviewRuled", "AppealPanelFormed",
	}
}

func (f *fold) answers() []Answer {
	var list []Answer
	for _, q := range questions() {
		a := Answer{ID: q.id, Question: q.text}
		for _, p := range q.points {
			a.Points = append(a.Points, f.point(p))
		}
		list = append(list, a)
	}
	return list
}

func (f *fold) point(p point) Point {
	var list []Sentence
	for _, e := range f.events {
		if slices.Contains(p.types, e.name) && (p.only == nil || p.only(e)) {
			list = append(list, f.tell(e, p.ground))
		}
	}
	if p.more != nil {
		list = append(list, p.more(f)...)
	}
	return Point{p.label, f.orDefault(list)}
}

// orDefault says that there is no evidence where there is nothing else to say.
func (f *fold) orDefault(list []Sentence) []Sentence {
	if len(list) == 0 {
		return []Sentence{{Text: NoEvidence, Positions: []uint64{}, AsOf: true}}
	}
	return list
}

func checkedAfter(e event) bool {
	o, ok := e.payload.(*emergencyv1.ObserverConfirmed)
	return ok && o.GetKind() == emergencyv1.ObserverKind_OBSERVER_KIND_AFTER
}

// reasons are those that a documentation gave, one for each deviation.
func (f *fold) reasons() []Sentence {
	var list []Sentence
	for _, e := range f.events {
		doc, ok := e.payload.(*emergencyv1.ProcedureDocumented)
		if !ok {
			continue
		}
		for _, r := range doc.GetReasons() {
			list = append(list, Sentence{
				Text:      fmt.Sprintf("The documentation of strategy %d gives for %s at %d: %s.", doc.GetStrategy(), word(r.GetDeviation(), "DEVIATION_"), r.GetPosition(), strings.TrimSuffix(r.GetReason(), ".")),
				Positions: f.existing(e.pos, r.GetPosition()),
			})
		}
	}
	return list
}

// existing leaves out positions that the history does not have: an event may name any number.
func (f *fold) existing(list ...uint64) []uint64 {
	out := []uint64{}
	for _, p := range list {
		if p > 0 && p <= uint64(len(f.events)) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// deviations are all of them, each with its event.
func (f *fold) deviations() []Sentence { return f.departures() }

// departures are the deviations of some kinds; of every kind if none is named.
func (f *fold) departures(kinds ...emergencyv1.Deviation) []Sentence {
	var list []Sentence
	for _, e := range f.events {
		for _, d := range e.deviations {
			if len(kinds) == 0 || slices.Contains(kinds, d) {
				list = append(list, Sentence{
					Text:      fmt.Sprintf("%s, %s: deviation %s in: %s.", f.when(e.at), e.who(), word(d, "DEVIATION_"), strings.TrimSuffix(Words(e.payload), ".")),
					Positions: []uint64{e.pos},
				})
			}
		}
	}
	return list
}

// late is what was captured while the system could not record it.
func (f *fold) late() []Sentence {
	var list []Sentence
	for _, e := range f.events {
		if e.rec.GetLate() || e.name == "LateRecordConfirmed" {
			list = append(list, f.tell(e, false))
		}
	}
	return list
}

// missing is the documentation that is or was owed, at the time that is asked for (D3).
func (f *fold) missing() []Sentence {
	var list []Sentence
	for _, o := range Obligations(f.state, f.asked) {
		family, _, _ := strings.Cut(o.Kind, "/")
		if !slices.Contains([]string{"DOCUMENT", "DISPUTE", "REPLICATE", "EXPLAIN_DRIFT", "ENTER_CYCLE"}, family) {
			continue
		}
		list = append(list, Sentence{Text: upperFirst(o.Sentence()), Positions: f.existing(o.Cause, o.By), AsOf: true})
	}
	return list
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// team is what became of the calls to one team.
type team struct {
	pages, failed, rounds int
	channels              []string
	positions             []uint64
	taken, declined       []string
}

// called says of each team how it was called and who took a place: what an arbitrator needs to know about who could not be
// reached.
func (f *fold) called() []Sentence {
	teams := map[emergencyv1.Team]*team{}
	of := func(t emergencyv1.Team) *team {
		if teams[t] == nil {
			teams[t] = &team{}
		}
		return teams[t]
	}
	for _, e := range f.events {
		switch p := e.payload.(type) {
		case *emergencyv1.CallOutIssued:
			f.countPages(of, p.GetPages(), e.pos)
		case *emergencyv1.RePaged:
			f.countPages(of, p.GetPages(), e.pos)
		case *emergencyv1.ResponderAccepted:
			t := of(slotTeam(p.GetSlot()))
			t.taken, t.positions = append(t.taken, p.GetPerson()+" "+p.GetSlot()), append(t.positions, e.pos)
		case *emergencyv1.ResponderDeclined:
			t := of(p.GetTeam())
			t.declined, t.positions = append(t.declined, p.GetPerson()), append(t.positions, e.pos)
		}
	}
	for _, p := range f.state.Pages {
		if p.State == emergencyv1.DeliveryState_DELIVERY_STATE_FAILED {
			of(p.Team).failed++
		}
	}
	var list []Sentence
	for _, id := range []emergencyv1.Team{emergencyv1.Team_TEAM_CRITICAL, emergencyv1.Team_TEAM_ASSESSMENT, emergencyv1.Team_TEAM_DEVELOPMENT, emergencyv1.Team_TEAM_TESTING} {
		if t := teams[id]; t != nil && len(t.positions) > 0 {
			list = append(list, Sentence{Text: t.sentence(id), Positions: f.existing(t.positions...), AsOf: true})
		}
	}
	return list
}

func (t *team) sentence(id emergencyv1.Team) string {
	text := fmt.Sprintf("Team %s: %s in %s over %s, %d reported as failed; taken by: %s", procedure.TeamWord(id), count(t.pages, "page"), count(t.rounds, "round"), listed(t.channels), t.failed, listed(t.taken))
	if len(t.declined) > 0 {
		text += "; declined by: " + listed(t.declined)
	}
	return text + "."
}

func listed(list []string) string {
	if len(list) == 0 {
		return "nobody"
	}
	return strings.Join(list, ", ")
}

func (f *fold) countPages(of func(emergencyv1.Team) *team, pages []*emergencyv1.CalledPage, position uint64) {
	seen := map[emergencyv1.Team]bool{}
	for _, p := range pages {
		t := of(p.GetTeam())
		t.pages++
		if !seen[p.GetTeam()] {
			seen[p.GetTeam()] = true
			t.rounds, t.positions = t.rounds+1, append(t.positions, position)
		}
		if !slices.Contains(t.channels, p.GetChannel()) {
			t.channels = append(t.channels, p.GetChannel())
		}
	}
}

// slotTeam is the team of a slot such as critical/1.
func slotTeam(slot string) emergencyv1.Team {
	name, _, _ := strings.Cut(slot, "/")
	return emergencyv1.Team(emergencyv1.Team_value["TEAM_"+strings.ToUpper(name)])
}

// grantTimes are the moments of one grant.
type grantTimes struct {
	granted, assumed, opened, ended, disabled event
	extended                                  uint32
	limit                                     uint32
}

// accessTimes are the times between what was done with each grant, each said where its end is recorded (Q5).
func (f *fold) accessTimes() []Sentence {
	grants := map[string]*grantTimes{}
	of := func(id string) *grantTimes {
		if grants[id] == nil {
			grants[id] = &grantTimes{}
		}
		return grants[id]
	}
	var list []Sentence
	between := func(from, to event, format string, args ...any) {
		if from.pos > 0 {
			list = append(list, Sentence{Text: fmt.Sprintf(format, args...), Positions: []uint64{from.pos, to.pos}})
		}
	}
	for _, e := range f.events {
		switch p := e.payload.(type) {
		case *emergencyv1.AccessGrantIssued:
			g := of(p.GetGrant())
			g.granted, g.limit = e, p.GetMaxMinutes()
		case *emergencyv1.RoleAssumed:
			of(p.GetGrant()).assumed = e
		case *emergencyv1.CredentialConsumed:
			g := of(p.GetGrant())
			between(g.granted, e, "The credential of %s was used %s after the grant.", p.GetGrant(), span(e.at.Sub(g.granted.at)))
		case *emergencyv1.ConnectionOpened:
			of(p.GetGrant()).opened = e
		case *emergencyv1.SessionExtended:
			of(p.GetGrant()).extended += p.GetMinutes()
		case *emergencyv1.SessionTerminated:
			g := of(p.GetGrant())
			g.ended = e
			between(g.opened, e, "The session of %s lasted %s; at most %d min were granted, %d min were added.", p.GetGrant(), span(e.at.Sub(g.opened.at)), g.limit, g.extended)
		case *emergencyv1.ConnectionDisabled:
			g := of(p.GetGrant())
			g.disabled = e
			between(g.ended, e, "The access of %s was disabled %s after the session's end.", p.GetGrant(), span(max(0, e.at.Sub(g.ended.at))))
		case *emergencyv1.CredentialProvenUnusable:
			g := of(p.GetGrant())
			between(g.disabled, e, "The credential of %s was proven unusable %s after it was disabled.", p.GetGrant(), span(max(0, e.at.Sub(g.disabled.at))))
		case *emergencyv1.RoleAssumptionEnded:
			g := of(p.GetGrant())
			between(g.assumed, e, "The role was assumed for %s, for %s.", span(max(time.Duration(0), e.at.Sub(g.assumed.at))), p.GetGrant())
		}
	}
	return list
}

// QuestionIDs are the ids of all questions, in their order. What shows a dossier in another language has a text for each of them,
// and for each of PointLabels.
func QuestionIDs() []string {
	var list []string
	for _, q := range questions() {
		list = append(list, q.id)
	}
	return list
}

// PointLabels are all labels that a point can have, each once.
func PointLabels() []string {
	list := []string{labelOrder, labelProceedings, labelValues}
	for _, q := range questions() {
		for _, p := range q.points {
			if !slices.Contains(list, p.label) {
				list = append(list, p.label)
			}
		}
	}
	return list
}

// The labels of the points beside the questions.
const (
	labelOrder       = "Order"
	labelProceedings = "Disputes and rulings"
	labelValues      = "Redacted, disclosed, played"
)
