// SPDX-License-Identifier: Apache-2.0

package oncall

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	ics "github.com/arran4/golang-ical"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Calendar is what a calendar program is given: when who is on duty, and when nobody is.
type Calendar struct {
	Book *rulebook.Book
	// Teams to write; Word names each, as in "critical".
	Teams []emergencyv1.Team
	Word  func(emergencyv1.Team) string
	// Person is whose duties to write; empty for everybody's and the gaps.
	Person string
	// Now is the time of writing. The same rota gives the same events whenever it is written, but for how far ahead.
	Now time.Time
}

// domain makes the ids of events unique in the world (RFC 5545 3.8.4.7); it names nobody's machine.
const domain = "rota.emergency.cacert.org"

// turn is a span in which a person is on duty for a team without a break, at the same place in the order of calling.
type turn struct {
	team        emergencyv1.Team
	person      string // empty for a gap
	from, until time.Time
	rank        int
	override    bool
	open        bool // it goes on after the calendar's end
}

// ICS is the calendar as RFC 5545 has it: all times in UTC.
func (c Calendar) ICS() ([]byte, error) {
	cal := ics.NewCalendarFor("CAcert")
	cal.SetProductId("-//CAcert//Emergency Patches//EN")
	cal.SetCalscale("GREGORIAN")
	cal.SetXWRCalName(c.name())
	cal.CalendarProperties = append(cal.CalendarProperties, ics.CalendarProperty{BaseProperty: ics.BaseProperty{
		IANAToken: "REFRESH-INTERVAL", ICalParameters: map[string][]string{"VALUE": {"DURATION"}}, Value: "PT1H", // RFC 7986 5.7
	}})
	for _, team := range c.Teams {
		rota := c.Book.Rota(team)
		for _, t := range c.turns(team, rota) {
			c.event(cal, t, rota.ChangedAt)
		}
	}
	var b bytes.Buffer
	if err := cal.SerializeTo(&b, ics.WithNewLineWindows); err != nil {
		return nil, fmt.Errorf("write the calendar: %w", err)
	}
	return b.Bytes(), nil
}

func (c Calendar) name() string {
	words := make([]string, len(c.Teams))
	for i, t := range c.Teams {
		words[i] = c.Word(t)
	}
	name := "CAcert emergencies, on duty: " + strings.Join(words, ", ")
	if c.Person != "" {
		name += ", " + c.Person
	}
	return name
}

// turns are those of the calendar's time, from the rota's own beginning on: an event that began before the first day shown
// would otherwise begin, and be called, differently each day.
func (c Calendar) turns(team emergencyv1.Team, rota rulebook.Rota) []turn {
	first, end := c.Now, c.end()
	for _, s := range rota.Shifts {
		if from := s.GetFrom().AsTime(); from.Before(first) {
			first = from
		}
	}
	var all, going []turn
	for _, d := range rulebook.Duties(rota.Shifts, first, end) {
		var next []turn
		for rank, person := range placed(d) {
			t := turn{team: team, person: person, from: d.From, rank: rank, override: d.Override}
			if i := slices.IndexFunc(going, func(g turn) bool { return g.person == person && g.rank == rank && g.override == d.Override }); i >= 0 {
				t = going[i]
				going = slices.Delete(going, i, i+1)
			}
			t.until, t.open = d.Until, d.Until.Equal(end)
			next = append(next, t)
		}
		all, going = append(all, going...), next
	}
	all = append(all, going...)
	return slices.DeleteFunc(all, func(t turn) bool {
		return t.until.Before(c.Now.Add(-kept)) || c.Person != "" && t.person != c.Person
	})
}

// placed are the persons of a span; a gap has one, whose name is empty.
func placed(d rulebook.Duty) []string {
	if d.Gap() {
		return []string{""}
	}
	return d.Persons
}

// end is how far ahead the calendar goes: half a year, by whole months, so that what has no end yet does not change each day.
func (c Calendar) end() time.Time {
	n := c.Now.UTC()
	return time.Date(n.Year(), n.Month()+7, 1, 0, 0, 0, 0, time.UTC)
}

func (c Calendar) event(cal *ics.Calendar, t turn, changed time.Time) {
	word := c.Word(t.team)
	who, summary, about := t.person, t.person+" on duty: "+word, fmt.Sprintf("Called as number %d for the %s team.", t.rank+1, word)
	if t.person == "" {
		who, summary, about = "nobody", "NOBODY on duty: "+word, "Nobody would be called for the "+word+" team. A team lead sets the rota: epatch rota plan"
	}
	kind := ""
	if t.override {
		kind, about = "-standin", about+" Stands in for the rotation."
	}
	if t.open {
		about += " Until it is changed; the calendar ends here."
	}
	e := cal.AddEvent(fmt.Sprintf("%s-%s-%s%s@%s", word, who, t.from.UTC().Format("20060102T150405Z"), kind, domain))
	if changed.IsZero() {
		changed = t.from // a rota that was never set has no change; its gap begins with the calendar
	}
	e.SetDtStampTime(changed)
	e.SetLastModifiedAt(changed)
	e.SetStartAt(t.from)
	e.SetEndAt(t.until)
	e.SetSummary(summary)
	e.SetDescription(about)
	e.SetTimeTransparency(ics.TransparencyTransparent) // being on duty does not make a day busy
	e.SetClass(ics.ClassificationConfidential)
	switch {
	case t.person == "":
		e.AddProperty(ics.ComponentPropertyCategories, "GAP")
	case t.override:
		e.AddProperty(ics.ComponentPropertyCategories, "STAND-IN")
	default:
		e.AddProperty(ics.ComponentPropertyCategories, "ROTATION")
	}
}
