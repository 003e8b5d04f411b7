// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Calling the teams and their answers (seed 1.2, 1.3; procedure.md 4.2).

// planned are the steps of a team's slots under a strategy, in the order of the slots (3.1).
var planned = map[emergencyv1.Team][3][]emergencyv1.ResponderStep{
	emergencyv1.Team_TEAM_CRITICAL: {
		{emergencyv1.ResponderStep_RESPONDER_STEP_EXECUTE, emergencyv1.ResponderStep_RESPONDER_STEP_OBSERVE},
		{emergencyv1.ResponderStep_RESPONDER_STEP_EXECUTE, emergencyv1.ResponderStep_RESPONDER_STEP_OBSERVE},
		{emergencyv1.ResponderStep_RESPONDER_STEP_WATCH},
	},
	emergencyv1.Team_TEAM_ASSESSMENT: {
		{emergencyv1.ResponderStep_RESPONDER_STEP_FIRST_REVIEW, emergencyv1.ResponderStep_RESPONDER_STEP_SECOND_REVIEW},
		{emergencyv1.ResponderStep_RESPONDER_STEP_PREPARE},
		{emergencyv1.ResponderStep_RESPONDER_STEP_DECLARE},
	},
	emergencyv1.Team_TEAM_DEVELOPMENT: {{emergencyv1.ResponderStep_RESPONDER_STEP_PREPARE}},
	emergencyv1.Team_TEAM_TESTING:     {{emergencyv1.ResponderStep_RESPONDER_STEP_TEST}},
}

// stepsOf are the steps that a team does under a strategy. A policy may give a team slots that procedure.md does not: they
// are for what the team does in strategy 1.
func stepsOf(t emergencyv1.Team, strategy uint32) []emergencyv1.ResponderStep {
	steps := planned[t]
	if i := int(strategy) - 1; i >= 0 && i < len(steps) && len(steps[i]) > 0 {
		return steps[i]
	}
	return steps[0]
}

// slotsOf are the slots of a strategy, by the policy (3.1).
func slotsOf(p *rulebook.Policy, strategy uint32, at time.Time) []Slot {
	var list []Slot
	for _, team := range []emergencyv1.Team{emergencyv1.Team_TEAM_CRITICAL, emergencyv1.Team_TEAM_ASSESSMENT, emergencyv1.Team_TEAM_DEVELOPMENT, emergencyv1.Team_TEAM_TESTING} {
		steps := stepsOf(team, strategy)
		for i := range p.Count(fmt.Sprintf("team.%s.slots.s%d", teamWord(team), strategy)) {
			step := steps[min(i, len(steps)-1)]
			list = append(list, Slot{ID: fmt.Sprintf("%s/%d", teamWord(team), i+1), Team: team, Step: step, Planned: step, State: SlotOpen, OpenSince: at})
		}
	}
	return list
}

// Teams lists the teams that the active strategy needs.
func (s *State) Teams() []emergencyv1.Team {
	var list []emergencyv1.Team
	for _, sl := range s.Slots {
		if !slices.Contains(list, sl.Team) {
			list = append(list, sl.Team)
		}
	}
	return list
}

func (s *State) firstCall(team emergencyv1.Team) (bool, time.Time) {
	for _, p := range s.Pages {
		if p.Team == team {
			return true, p.SentAt
		}
	}
	for _, g := range s.Gaps {
		if g.Team == team {
			return true, g.At
		}
	}
	return false, time.Time{}
}

func (s *State) called(person string, team emergencyv1.Team) bool {
	return slices.ContainsFunc(s.Pages, func(p Page) bool { return p.Person == person && (team == 0 || p.Team == team) })
}

func callOutFields(f *fields, c *emergencyv1.CallOutRequest) {
	f.want(len(c.GetTeams()) <= 4, "teams", "at most the four teams")
	f.want(!slices.Contains(c.GetTeams(), emergencyv1.Team_TEAM_UNSPECIFIED), "teams", "critical, assessment, development or testing")
	for _, ch := range c.GetChannels() {
		f.word("channels", ch)
	}
}

// decideCallOut pages everybody on duty for the teams, each over the first two channels of their own choice at least;
// a team with an empty rota is a coverage gap at once.
func decideCallOut(d *decision, c *emergencyv1.CallOutRequest) *Refusal {
	least := d.s.Policy.Count("callout.channels_min")
	if n := len(distinct(c.GetChannels())); n > 0 && n < least {
		return refuse(ReasonChannels, "%d channel named, a call-out uses at least %d", n, least).allow("CallOut", "", "name at least %d channels, or none for all", least)
	}
	teams := distinct(c.GetTeams())
	if len(teams) == 0 {
		teams = d.s.Teams()
	}
	if !slices.ContainsFunc(teams, func(t emergencyv1.Team) bool { return slices.Contains(d.s.Teams(), t) }) {
		return refuse(ReasonField, "none of these teams is needed by strategy %d", d.s.Strategy).under("4.2 CallOut").allow("CallOut", "", "name a team of the active strategy")
	}
	pages := d.s.newPages(d.env.Book, d.at, uint32(len(d.s.Rounds)+1), teams, c.GetChannels(), least)
	onDuty := slices.ContainsFunc(teams, func(t emergencyv1.Team) bool { return len(d.env.Book.OnDuty(t, d.at)) > 0 })
	if n := len(channelsOf(pages)); onDuty && n < least {
		return refuse(ReasonChannels, "the persons on duty can be reached over %d of these channels, a call-out uses at least %d", n, least).
			allow("CallOut", "", "name other channels, or none for all").
			allow("SetContacts", "", "the persons on duty add an address on another channel")
	}
	d.emit(&emergencyv1.CallOutIssued{
		Round: uint32(len(d.s.Rounds) + 1), Teams: teams, Channels: channelsOf(pages), Pages: pages, Message: d.seal(c.GetMessage()),
	})
	for _, t := range teams {
		onDuty := d.env.Book.OnDuty(t, d.at)
		if !slices.ContainsFunc(pages, func(p *emergencyv1.CalledPage) bool {
			return p.GetTeam() == t && slices.Contains(onDuty, p.GetPerson())
		}) {
			d.emit(&emergencyv1.CoverageGapFound{Team: t}) // nobody on duty, or nobody of them with an address
		}
	}
	return nil
}

// distinct is a list without repetitions, in its order.
func distinct[T comparable](list []T) []T {
	var out []T
	for _, x := range list {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

func channelsOf(pages []*emergencyv1.CalledPage) []string {
	var list []string
	for _, p := range pages {
		list = append(list, p.GetChannel())
	}
	return distinct(list)
}

// newPages are the pages of a round: for each person on duty the first channels, at least as many as the policy asks.
func (s *State) newPages(b *rulebook.Book, at time.Time, round uint32, teams []emergencyv1.Team, channels []string, least int) []*emergencyv1.CalledPage {
	var pages []*emergencyv1.CalledPage
	for _, t := range teams {
		for _, person := range s.toCall(b, t, at) {
			n := 0
			for _, contact := range b.Contacts(person) {
				if len(channels) > 0 && !slices.Contains(channels, contact.GetChannel()) || len(channels) == 0 && n >= least {
					continue
				}
				n++
				pages = append(pages, &emergencyv1.CalledPage{
					Page: fmt.Sprintf("%d.%d", round, len(pages)+1), Team: t, Person: person, Channel: contact.GetChannel(), Address: contact.GetAddress(),
				})
			}
		}
	}
	return pages
}

// toCall are the persons on duty for a team; under strategy 3 the critical team leads too, on duty or not: without their
// permission, or the proof that they were called, nobody is let in (SP 4.1.1.1, 10.14).
func (s *State) toCall(b *rulebook.Book, t emergencyv1.Team, at time.Time) []string {
	list := b.OnDuty(t, at)
	if s.Strategy == 3 && t == emergencyv1.Team_TEAM_CRITICAL {
		list = append(list, b.PersonsWith(cl, at)...)
	}
	return distinct(list)
}

func (s *State) addPages(f fact, round uint32, pages []*emergencyv1.CalledPage) {
	for _, p := range pages {
		s.Pages = append(s.Pages, Page{
			ID: p.GetPage(), Round: round, Team: p.GetTeam(), Person: p.GetPerson(), Channel: p.GetChannel(),
			Address: p.GetAddress().GetCommitment(), SentAt: f.at, Position: f.pos,
		})
	}
}

func deliveryFields(f *fields, c *emergencyv1.ReportDeliveryRequest) {
	f.want(c.GetPage() != "", "page", "a page id")
	f.want(c.GetState() != 0, "state", "sent, delivered, failed or unknown")
}

// decideDelivery records what became of a page; the same state again is nothing new (natural key page + state).
func decideDelivery(d *decision, c *emergencyv1.ReportDeliveryRequest) *Refusal {
	p := d.s.page(c.GetPage())
	if p == nil {
		return refuse(ReasonPage, "no page %s was sent", c.GetPage())
	}
	if p.State != c.GetState() {
		d.emit(&emergencyv1.DeliveryReported{Page: c.GetPage(), State: c.GetState(), Detail: c.GetDetail()})
	}
	return nil
}

func (s *State) page(id string) *Page {
	for i := range s.Pages {
		if s.Pages[i].ID == id {
			return &s.Pages[i]
		}
	}
	return nil
}

func (s *State) applyDelivery(e *emergencyv1.DeliveryReported) {
	if p := s.page(e.GetPage()); p != nil {
		p.State, p.Detail = e.GetState(), e.GetDetail()
	}
}

func respondFields(f *fields, c *emergencyv1.RespondRequest) {
	f.want(c.GetAnswer() != nil, "answer", "accept, decline or hand over")
	if h := c.GetHandOver(); h != nil {
		f.want(h.GetSlot() != "" && h.GetTo() != "", "hand_over", "a slot and the person who is asked")
	}
	if a := c.GetAccept(); a != nil {
		f.want(a.GetSlot() != "" || a.GetTeam() != 0, "accept", "a slot such as critical/1, or a team")
		f.want(a.GetEtaMinutes() <= 24*60, "accept.eta_minutes", "at most a day")
	}
}

func decideRespond(d *decision, c *emergencyv1.RespondRequest) *Refusal {
	switch a := c.GetAnswer().(type) {
	case *emergencyv1.RespondRequest_Accept:
		return d.accept(a.Accept)
	case *emergencyv1.RespondRequest_Decline:
		return d.decline(a.Decline)
	case *emergencyv1.RespondRequest_HandOver:
		return d.handOver(a.HandOver)
	}
	return refuse(ReasonField, "the answer is of a kind this version does not know")
}

// teamRoles are the roles whose holders are of a team.
func teamRoles(t emergencyv1.Team) []emergencyv1.Role {
	switch t {
	case emergencyv1.Team_TEAM_CRITICAL:
		return roles(ca)
	case emergencyv1.Team_TEAM_ASSESSMENT:
		return roles(sa)
	case emergencyv1.Team_TEAM_DEVELOPMENT:
		return roles(sd, se, sa)
	case emergencyv1.Team_TEAM_TESTING:
		return roles(te)
	case emergencyv1.Team_TEAM_UNSPECIFIED:
	}
	return nil
}

func (d *decision) ofTeam(person string, t emergencyv1.Team) bool {
	return slices.ContainsFunc(teamRoles(t), func(r emergencyv1.Role) bool { return d.holds(person, r) })
}

// fitting chooses the slot: the named one, or the team's first open one for the step. When none of those is open, it is all
// of them.
func (d *decision) fitting(a *emergencyv1.Acceptance) ([]*Slot, *Refusal) {
	if a.GetSlot() != "" {
		if sl, ok := d.s.Slot(a.GetSlot()); ok {
			return []*Slot{sl}, nil
		}
		return nil, refuse(ReasonSlot, "strategy %d has no slot %s", d.s.Strategy, a.GetSlot()).under("G4")
	}
	var taken []*Slot
	for i := range d.s.Slots {
		sl := &d.s.Slots[i]
		if sl.Team != a.GetTeam() || a.GetStep() != 0 && sl.Step != a.GetStep() {
			continue
		}
		if sl.State == SlotOpen {
			return []*Slot{sl}, nil
		}
		taken = append(taken, sl)
	}
	if len(taken) == 0 {
		return nil, refuse(ReasonSlot, "strategy %d has no slot of that team for that step", d.s.Strategy)
	}
	return taken, nil
}

// slotTaken says who holds what and how one of it could become free.
func slotTaken(slots []*Slot) *Refusal {
	var held []string
	refusal := refuse(ReasonSlotTaken, "")
	for _, sl := range slots {
		if sl.State == SlotEnded {
			held = append(held, fmt.Sprintf("slot %s was held by %s until the step was done", sl.ID, sl.Person))
			continue
		}
		held = append(held, fmt.Sprintf("slot %s is held by %s", sl.ID, sl.Person))
		refusal.allow("Respond", sl.ID, "%s hands it over (hand-over)", sl.Person).
			allow("EndStandby", sl.ID, "%s releases it (end-standby --released)", sl.Person)
	}
	refusal.Message = strings.Join(held, ", ")
	return refusal
}

// accept fills a slot with one named person, a contact path and a step (seed 1.3).
func (d *decision) accept(a *emergencyv1.Acceptance) *Refusal {
	slots, refusal := d.fitting(a)
	if refusal != nil {
		return refusal
	}
	sl := slots[0]
	person := a.GetPerson()
	if person == "" {
		person = d.person
	}
	step := a.GetStep()
	if step == 0 {
		step = sl.Step
	}
	for _, p := range []string{person, d.person} { // whoever answers for somebody is of the team too
		if refusal := d.teamMember(p, sl); refusal != nil {
			return refusal
		}
	}
	if sl.State != SlotOpen {
		return slotTaken(slots)
	}
	if refusal := d.contactPath(sl, person, a.GetContactPath()); refusal != nil {
		return refusal
	}
	if !slices.Contains(stepsOf(sl.Team, d.s.Strategy), step) {
		return refuse(ReasonStepMissing, "the step that %s will do is none of the %s team's", person, teamWord(sl.Team)).
			allow("Respond", sl.ID, "name no step, and it is to %s", StepWord(sl.Planned))
	}
	if refusal := d.oneSlot(sl, person); refusal != nil {
		return refusal
	}
	if refusal := d.oneTeam(sl, person, a.GetSecondTeamReason()); refusal != nil {
		return refusal
	}
	d.emit(&emergencyv1.ResponderAccepted{
		Slot: sl.ID, Person: person, ContactPath: d.seal(a.GetContactPath()), Step: step, EtaMinutes: a.GetEtaMinutes(),
		SecondTeamReason: a.GetSecondTeamReason(), Unconfirmed: person != d.person,
	})
	if a.GetOnStandby() && person == d.person {
		d.emit(&emergencyv1.StandbyStarted{Slot: sl.ID, Person: person})
	}
	return nil
}

// teamMember, contactPath, oneSlot and oneTeam are the conditions on whoever is to hold a slot.
func (d *decision) teamMember(person string, sl *Slot) *Refusal {
	if d.ofTeam(person, sl.Team) {
		return nil
	}
	return refuse(ReasonNotTeamMember, "%s is not of the %s team", person, teamWord(sl.Team)).
		allow("Respond", sl.ID, "ask %s", d.whoHas(teamRoles(sl.Team)))
}

func (d *decision) contactPath(sl *Slot, person, contact string) *Refusal {
	if contact != "" {
		return nil
	}
	return refuse(ReasonContactPathMissing, "how to reach %s is not said", person).allow("Respond", sl.ID, "give a contact path, such as a phone number")
}

// oneSlot keeps one person from two slots of a team: their steps are for different persons, and the second person would
// find no slot.
func (d *decision) oneSlot(sl *Slot, person string) *Refusal {
	for _, held := range d.s.Held(person) {
		if held.Team != sl.Team || held.ID == sl.ID {
			continue
		}
		refusal := refuse(ReasonSamePerson, "%s already holds slot %s; the %s team's slots are for different persons", person, held.ID, teamWord(sl.Team))
		switch sl.Team {
		case emergencyv1.Team_TEAM_CRITICAL:
			refusal.under("X10 (SP 1.2, 4.1)")
		case emergencyv1.Team_TEAM_TESTING:
			refusal.under("X9")
		case emergencyv1.Team_TEAM_ASSESSMENT:
			refusal.under("X7")
		case emergencyv1.Team_TEAM_DEVELOPMENT, emergencyv1.Team_TEAM_UNSPECIFIED:
			refusal.under("4.2 Respond")
		}
		return refusal.allow("Respond", held.ID, "%s hands %s over (hand-over) first", person, held.ID).
			allow("EndStandby", held.ID, "%s ends the standby for %s (end-standby) first", person, held.ID).
			allow("Respond", sl.ID, "another of the team takes it; ask %s", d.whoHas(teamRoles(sl.Team)))
	}
	return nil
}

func (d *decision) oneTeam(sl *Slot, person, secondTeam string) *Refusal {
	for _, held := range d.s.Held(person) {
		if held.Team != sl.Team && secondTeam == "" {
			return refuse(ReasonOneTeam, "%s already serves the %s team", person, teamWord(held.Team)).
				allow("Respond", sl.ID, "give the reason why one person serves two teams")
		}
	}
	return nil
}

func (d *decision) decline(a *emergencyv1.Declination) *Refusal {
	team := a.GetTeam()
	if team == 0 {
		for _, p := range d.s.Pages {
			if p.Person == d.person {
				team = p.Team
				break
			}
		}
	}
	if !d.s.called(d.person, team) || team == 0 {
		return refuse(ReasonNotCalled, "%s was not called for the %s team", d.person, teamWord(team)).allow("CallOut", "", "there is nothing to decline")
	}
	slot := ""
	for _, held := range d.s.Held(d.person) {
		if held.Team == team {
			slot = held.ID
		}
	}
	d.emit(&emergencyv1.ResponderDeclined{Team: team, Person: d.person, Reason: d.seal(a.GetReason()), Slot: slot})
	return nil
}

// handOver asks another person; the old holder stays until that person checks in.
func (d *decision) handOver(h *emergencyv1.Handover) *Refusal {
	sl, ok := d.s.Slot(h.GetSlot())
	if !ok {
		return refuse(ReasonSlot, "strategy %d has no slot %s", d.s.Strategy, h.GetSlot())
	}
	if sl.State != SlotAccepted && sl.State != SlotStandby || sl.Person != d.person && !d.ofTeam(d.person, sl.Team) {
		return refuse(ReasonNotHolder, "%s neither holds slot %s nor is of its team", d.person, sl.ID).allow("Respond", sl.ID, "its holder hands it over")
	}
	for _, refusal := range []*Refusal{d.teamMember(h.GetTo(), sl), d.contactPath(sl, h.GetTo(), h.GetContactPath()), d.oneSlot(sl, h.GetTo()), d.oneTeam(sl, h.GetTo(), "")} {
		if refusal != nil {
			return refusal
		}
	}
	d.emit(&emergencyv1.ResponderHandedOver{Slot: sl.ID, From: sl.Person, To: h.GetTo(), ContactPath: d.seal(h.GetContactPath())})
	return nil
}

func (s *State) applyAccepted(f fact, e *emergencyv1.ResponderAccepted) {
	sl, ok := s.Slot(e.GetSlot())
	if !ok {
		return
	}
	s.Answered = append(s.Answered, Declined{sl.Team, e.GetPerson(), f.pos})
	sl.State, sl.Person, sl.Step, sl.Since = SlotAccepted, e.GetPerson(), e.GetStep(), f.at
	sl.Contact, sl.Unconfirmed, sl.HandoverTo, sl.HandoverContact = e.GetContactPath().GetCommitment(), e.GetUnconfirmed(), "", ""
}

func (s *State) openSlot(f fact, id string) {
	sl, ok := s.Slot(id)
	if !ok || s.Status != Open {
		return
	}
	*sl = Slot{ID: sl.ID, Team: sl.Team, Step: sl.Planned, Planned: sl.Planned, State: SlotOpen, OpenSince: f.at}
}
