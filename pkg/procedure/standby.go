// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Standby with check-ins until the own step is done; a missed one reopens the slot (seed 1.4; procedure.md 4.2).

// ownSlot is the named slot, or the person's only one. A person who was asked to take over counts as its coming holder.
func (d *decision) ownSlot(id string) (*Slot, *Refusal) {
	if id == "" {
		var mine []*Slot
		for i := range d.s.Slots {
			sl := &d.s.Slots[i]
			if (sl.Person == d.person || sl.HandoverTo == d.person) && (sl.State == SlotAccepted || sl.State == SlotStandby) {
				mine = append(mine, sl)
			}
		}
		if len(mine) == 1 {
			return mine[0], nil
		}
		return nil, refuse(ReasonNotHolder, "%s holds %d slots", d.person, len(mine)).allow("Respond", "", "name the slot, or accept one first")
	}
	if sl, ok := d.s.Slot(id); ok {
		return sl, nil
	}
	return nil, refuse(ReasonSlot, "strategy %d has no slot %s", d.s.Strategy, id)
}

// decideCheckIn starts a standby or renews it. The check-in of a person who was asked to take over completes the handover.
func decideCheckIn(d *decision, c *emergencyv1.CheckInRequest) *Refusal {
	sl, refusal := d.ownSlot(c.GetSlot())
	if refusal != nil {
		return refusal
	}
	takesOver := sl.HandoverTo == d.person
	if sl.Person != d.person && !takesOver || sl.State != SlotAccepted && sl.State != SlotStandby {
		return refuse(ReasonNotHolder, "%s does not hold slot %s", d.person, sl.ID).allow("Respond", sl.ID, "accept the slot first")
	}
	if takesOver {
		if refusal := d.oneSlot(sl, d.person); refusal != nil {
			return refusal
		}
	}
	if sl.State == SlotAccepted || takesOver {
		d.emit(&emergencyv1.StandbyStarted{Slot: sl.ID, Person: d.person})
	} else {
		d.emit(&emergencyv1.StandbyCheckedIn{Slot: sl.ID, Person: d.person})
	}
	return nil
}

func (s *State) applyStandby(f fact, slot, person string) {
	sl, ok := s.Slot(slot)
	if !ok {
		return
	}
	if sl.HandoverTo == person {
		sl.Contact, sl.HandoverTo, sl.HandoverContact = sl.HandoverContact, "", ""
	}
	sl.State, sl.Person, sl.Since, sl.Unconfirmed = SlotStandby, person, f.at, false
}

func endStandbyFields(f *fields, c *emergencyv1.EndStandbyRequest) {
	f.want(c.GetReason() != 0, "reason", "step done or released")
}

// decideEndStandby ends a standby: by its holder, or by whoever called the teams.
func decideEndStandby(d *decision, c *emergencyv1.EndStandbyRequest) *Refusal {
	sl, refusal := d.ownSlot(c.GetSlot())
	if refusal != nil {
		return refusal
	}
	if sl.State != SlotAccepted && sl.State != SlotStandby {
		return refuse(ReasonNotHolder, "slot %s is %s", sl.ID, statusWord(Status(sl.State)))
	}
	if sl.Person != d.person && !d.s.initiator(d.person) {
		return refuse(ReasonNotHolder, "%s neither holds slot %s nor called the teams", d.person, sl.ID).allow("EndStandby", sl.ID, "ask %s", sl.Person)
	}
	d.emit(&emergencyv1.StandbyEnded{Slot: sl.ID, Person: sl.Person, Reason: c.GetReason()})
	return nil
}

func (s *State) initiator(person string) bool {
	for _, r := range s.Rounds {
		if len(r.Teams) > 0 && r.By == person {
			return true
		}
	}
	return false
}

// notificationTimers are re-pages, fallbacks to the next channel, expired acceptances and missed check-ins.
func (d *decision) notificationTimers() []timer {
	s, p := d.s, d.s.Policy
	if s.Status != Open {
		return nil
	}
	var list []timer
	for i := range s.Slots {
		sl := &s.Slots[i]
		switch sl.State {
		case SlotAccepted:
			due := sl.Since.Add(p.Duration("callout.ack_expiry"))
			list = append(list, timer{due, "ack/" + sl.ID, func(d *decision) {
				d.emit(&emergencyv1.AckExpired{Slot: sl.ID, Person: sl.Person, DueAt: timestamppb.New(due)})
			}})
		case SlotStandby:
			due := sl.Since.Add(p.Duration("standby.checkin") + p.Duration("standby.grace"))
			list = append(list, timer{due, "standby/" + sl.ID, func(d *decision) {
				d.emit(&emergencyv1.StandbyMissed{Slot: sl.ID, Person: sl.Person, DueAt: timestamppb.New(due)})
				d.emit(&emergencyv1.SlotReopened{Slot: sl.ID, Person: sl.Person})
			}})
		case SlotOpen, SlotEnded:
		}
	}
	return append(list, d.pageTimers()...)
}

// pageTimers: everybody of teams with open slots again after callout.repage; a person whose page failed, or was not taken
// within callout.channel_fallback, on the next channel. Accepting one slot never stops the pages for another.
func (d *decision) pageTimers() []timer {
	s, p := d.s, d.s.Policy
	var list []timer
	if due, pages, ok := s.fallback(d); ok {
		list = append(list, timer{due, "fallback", func(d *decision) {
			d.emit(&emergencyv1.RePaged{Round: uint32(len(d.s.Rounds) + 1), Pages: pages, Fallback: true})
		}})
	}
	last, any := s.lastRound()
	teams := s.openTeams(d)
	if !any || len(teams) == 0 {
		return list
	}
	due := last.Add(p.Duration("callout.repage"))
	round := uint32(len(s.Rounds) + 1)
	pages := s.newPages(d.env.Book, d.at, round, teams, nil, p.Count("callout.channels_min"))
	if len(pages) == 0 {
		return list
	}
	return append(list, timer{due, "repage", func(d *decision) {
		d.emit(&emergencyv1.RePaged{Round: round, Pages: pages})
	}})
}

func (s *State) lastRound() (time.Time, bool) {
	for i := len(s.Rounds) - 1; i >= 0; i-- {
		if !s.Rounds[i].Fallback {
			return s.Rounds[i].At, true
		}
	}
	return time.Time{}, false
}

// openTeams are the called teams with an open slot and somebody on duty.
func (s *State) openTeams(d *decision) []emergencyv1.Team {
	var list []emergencyv1.Team
	for _, t := range s.Teams() {
		called, _ := s.firstCall(t)
		if called && s.hasOpenSlot(t) && len(d.env.Book.OnDuty(t, d.at)) > 0 {
			list = append(list, t)
		}
	}
	return list
}

func (s *State) hasOpenSlot(t emergencyv1.Team) bool {
	for _, sl := range s.Slots {
		if sl.Team == t && sl.State == SlotOpen {
			return true
		}
	}
	return false
}

// fallback finds the persons of the last round whose pages failed and who have a channel that was not yet tried in it.
func (s *State) fallback(d *decision) (due time.Time, pages []*emergencyv1.CalledPage, found bool) {
	wait := s.Policy.Duration("callout.channel_fallback")
	tried := map[string]bool{}
	start := s.roundStart()
	for _, p := range s.Pages {
		if p.Position >= start {
			tried[p.Team.String()+p.Person+p.Channel] = true
		}
	}
	round := uint32(len(s.Rounds) + 1)
	for _, p := range s.Pages {
		if p.Position < start || !s.hasOpenSlot(p.Team) {
			continue
		}
		at, failed := s.failedAt(p, wait)
		if !failed {
			continue
		}
		for _, c := range d.env.Book.Contacts(p.Person) {
			key := p.Team.String() + p.Person + c.GetChannel()
			if tried[key] {
				continue
			}
			if !found || at.Before(due) {
				due = at
			}
			found = true
			if !at.Before(d.at) {
				break // not yet
			}
			tried[key] = true
			pages = append(pages, &emergencyv1.CalledPage{
				Page: fmt.Sprintf("%d.%d", round, len(pages)+1), Team: p.Team, Person: p.Person, Channel: c.GetChannel(), Address: c.GetAddress(),
			})
			break
		}
	}
	return due, pages, found
}

func (s *State) roundStart() uint64 {
	for i := len(s.Rounds) - 1; i >= 0; i-- {
		if !s.Rounds[i].Fallback {
			return s.Rounds[i].Position
		}
	}
	return 0
}

// failedAt is when a page counts as failed: at once when it is reported so, else when nothing was reported in time.
func (s *State) failedAt(p Page, wait time.Duration) (time.Time, bool) {
	switch p.State {
	case emergencyv1.DeliveryState_DELIVERY_STATE_FAILED, emergencyv1.DeliveryState_DELIVERY_STATE_UNKNOWN:
		return p.SentAt, true
	case emergencyv1.DeliveryState_DELIVERY_STATE_UNSPECIFIED:
		return p.SentAt.Add(wait), true
	case emergencyv1.DeliveryState_DELIVERY_STATE_SENT, emergencyv1.DeliveryState_DELIVERY_STATE_DELIVERED:
	}
	return time.Time{}, false
}
