// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"cacert.org/emergency/pkg/oncall"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// rotaView is the on-call schedule of all teams for one week or four, in whole days of UTC.
type rotaView struct {
	Weeks               int
	Earlier, Now, Later string // addresses
	Week, Month         string
	Shows               string
	Weekdays            []string
	Teams               []rotaTeam
	Gaps                []rotaGap
	Lead                bool
	Mine                string // address of the viewer's own calendar
}

// rotaTeam is the schedule of one team.
type rotaTeam struct {
	Key, Name string
	Now, Next *rotaSpan
	Changed   *when
	Rows      []rotaWeek
	Spans     []rotaSpan
	Calendar  string
}

type rotaWeek struct {
	Label string
	Days  []rotaDay
}

// rotaDay is a day of the calendar; Parts are who is on duty in it, more than one if hands are changed.
type rotaDay struct {
	Label       string
	Today, Over bool
	Parts       []rotaPart
}

type rotaPart struct {
	From     string // time of day; empty from midnight on
	Persons  []person
	Override bool
	Over     bool
}

// rotaSpan is a span of time with the same persons.
type rotaSpan struct {
	From, Until *when
	Open        bool // it goes on after what is shown
	Persons     []person
	Override    bool
	Current     bool
	Over        bool
}

// rotaGap is a span in which nobody is on duty for a team.
type rotaGap struct {
	Team        string
	From, Until *when
	Current     bool
}

const day = 24 * time.Hour

// ahead is how far is looked for who is on duty next.
const ahead = 60 * day

func (p *Pages) rota(v *viewer, r *http.Request) (*content, error) {
	weeks, monday := 4, mondayOf(v.now)
	if r.URL.Query().Get("weeks") == "1" {
		weeks = 1
	}
	from := monday
	if t, err := time.Parse(time.DateOnly, r.URL.Query().Get("from")); err == nil && t.Year() > 2000 && t.Year() < 2200 {
		from = mondayOf(t)
	}
	until := from.AddDate(0, 0, 7*weeks)
	d := rotaView{
		Weeks: weeks, Shows: from.Format(time.DateOnly) + " – " + until.AddDate(0, 0, -1).Format(time.DateOnly), Weekdays: v.weekdays(),
		Earlier: rotaPath(from.AddDate(0, 0, -7*weeks), weeks), Later: rotaPath(until, weeks), Week: rotaPath(from, 1), Month: rotaPath(from, 4),
		Lead: v.has(emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD, emergencyv1.Role_ROLE_ASSESSMENT_TEAM_LEAD), Mine: "/rota.ics?person=" + url.QueryEscape(v.Person),
	}
	if !from.Equal(monday) {
		d.Now = rotaPath(monday, weeks)
	}
	for _, t := range teams() {
		x := v.rotaTeam(t, from, weeks)
		d.Teams = append(d.Teams, x)
		for _, s := range x.Spans {
			if len(s.Persons) == 0 && s.Until.at.After(v.now) {
				d.Gaps = append(d.Gaps, rotaGap{x.Name, s.From, s.Until, s.Current})
			}
		}
	}
	return &content{Title: "rota.title", Section: "rulebook", Template: "rota", Data: d}, nil
}

func rotaPath(from time.Time, weeks int) string {
	path := "/rota?from=" + from.Format(time.DateOnly)
	if weeks == 1 {
		path += "&weeks=1"
	}
	return path
}

// mondayOf is the beginning of a week, in UTC.
func mondayOf(t time.Time) time.Time {
	t = t.UTC().Truncate(day)
	return t.AddDate(0, 0, -(int(t.Weekday())+6)%7)
}

func (v *viewer) weekdays() []string {
	return []string{v.say("weekday.mon"), v.say("weekday.tue"), v.say("weekday.wed"), v.say("weekday.thu"), v.say("weekday.fri"), v.say("weekday.sat"), v.say("weekday.sun")}
}

func (v *viewer) rotaTeam(team emergencyv1.Team, from time.Time, weeks int) rotaTeam {
	key := procedure.TeamWord(team)
	x := rotaTeam{Key: key, Name: v.enum(team), Changed: v.when(v.book.Rota(team).ChangedAt), Calendar: "/rota.ics?team=" + key}
	until := from.AddDate(0, 0, 7*weeks)
	for _, d := range v.book.Duties(team, from, until) {
		x.Spans = append(x.Spans, v.rotaSpan(d, until))
	}
	if list := v.book.Duties(team, v.now, v.now.Add(ahead)); len(list) > 0 {
		s := v.rotaSpan(list[0], v.now.Add(ahead))
		x.Now = &s
		if len(list) > 1 {
			next := v.rotaSpan(list[1], v.now.Add(ahead))
			x.Next = &next
		}
	}
	for w := range weeks {
		row := rotaWeek{Label: from.AddDate(0, 0, 7*w).Format(time.DateOnly)}
		for i := range 7 {
			row.Days = append(row.Days, v.rotaDay(team, from.AddDate(0, 0, 7*w+i)))
		}
		x.Rows = append(x.Rows, row)
	}
	return x
}

func (v *viewer) rotaSpan(d rulebook.Duty, end time.Time) rotaSpan {
	return rotaSpan{
		From: v.when(d.From), Until: v.when(d.Until), Open: d.Until.Equal(end), Persons: v.persons(d.Persons), Override: d.Override,
		Current: !v.now.Before(d.From) && v.now.Before(d.Until), Over: !d.Until.After(v.now),
	}
}

func (v *viewer) rotaDay(team emergencyv1.Team, from time.Time) rotaDay {
	until := from.AddDate(0, 0, 1)
	x := rotaDay{Label: from.Format("01-02"), Today: !v.now.Before(from) && v.now.Before(until), Over: !until.After(v.now)}
	for _, d := range v.book.Duties(team, from, until) {
		part := rotaPart{Persons: v.persons(d.Persons), Override: d.Override, Over: !d.Until.After(v.now)}
		if d.From.After(from) {
			part.From = d.From.UTC().Format("15:04")
		}
		x.Parts = append(x.Parts, part)
	}
	return x
}

// calendar answers with the schedule for calendar programs: of one team or all, of one person or everybody. It is for who is
// signed in, as the pages are.
func (p *Pages) calendar(w http.ResponseWriter, r *http.Request) {
	v, ok := p.signedIn(w, r)
	if !ok {
		return
	}
	c := oncall.Calendar{Book: v.book, Teams: teams(), Word: procedure.TeamWord, Person: r.URL.Query().Get("person"), Now: v.now}
	name := "on-duty"
	if team := r.URL.Query().Get("team"); team != "" {
		c.Teams = slices.DeleteFunc(c.Teams, func(t emergencyv1.Team) bool { return procedure.TeamWord(t) != team })
		name += "-" + team
	}
	if c.Person != "" {
		name += "-" + strings.Map(plainLetter, c.Person)
	}
	if len(c.Teams) == 0 || c.Person != "" && !v.book.Listed(c.Person) {
		p.fail(w, r, v, &procedure.Refusal{
			Code: procedure.NotFound, Reason: procedure.ReasonEntry, Rule: "4.6 SetRota", Message: "there is no such team or person",
			Allow: []procedure.Allowance{{Description: "take an address from the on-call schedule"}},
		})
		return
	}
	raw, err := c.ICS()
	if err != nil {
		p.fail(w, r, v, err)
		return
	}
	w.Header().Set("Content-Type", "text/calendar; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`.ics"`)
	_, _ = w.Write(raw)
}

// plainLetter leaves letters, digits and hyphens in a file's name.
func plainLetter(r rune) rune {
	if r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
		return r
	}
	return -1
}
