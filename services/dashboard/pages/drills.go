// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// drillsView is what drills showed: who can be reached, and how each drill went.
type drillsView struct {
	Within  int // days for which a success counts
	Teams   []drillTeam
	Drills  []drill
	Records []reachRecord
}

// drillTeam is what is known of a team: its last drill, its last call, and of whom it is not sure that a call arrives.
type drillTeam struct {
	Name     string
	Last     *lastCall
	LastReal *lastCall
	// Due is when the first person of the rota has not been reached for too long; Late if that is past.
	Due    *when
	Late   bool
	Unsure []person
	Rota   int
}

type lastCall struct {
	Incident string
	At       *when
	Answered int
	Called   int
}

// drill is one drill: how its call-out went, and how far it came.
type drill struct {
	card
	Teams []drillResult
}

// drillResult is what became of the call to one team.
type drillResult struct {
	Name             string
	Called, Answered int
	First            string // how long after the call the first answer came
	Filled           string // how long until the slots were taken; empty if they were not
	Missing          int
	Silent           []person
	Failed           int // pages that did not arrive
}

// reachRecord is one result in the rule book.
type reachRecord struct {
	Person  *person
	Channel string
	Reached bool
	At      *when
	Cause   *event
}

// recordsShown is how many results are listed; the rule book has them all.
const recordsShown = 40

func (p *Pages) drills(v *viewer, _ *http.Request) (*content, error) {
	d := drillsView{Within: int(procedure.ReachedWithin / day), Records: p.reachRecords(v)}
	var states []*procedure.State
	p.cfg.Incidents.Each(func(st *procedure.State) { states = append(states, st.Clone()) })
	slices.SortStableFunc(states, func(a, b *procedure.State) int { return b.Declared.At.Compare(a.Declared.At) })
	for _, t := range teams() {
		d.Teams = append(d.Teams, p.drillTeam(v, t, states))
	}
	for _, st := range states {
		if st.Declared.Drill {
			d.Drills = append(d.Drills, p.drill(v, st))
		}
	}
	return &content{Title: "drills.title", Section: "rulebook", Template: "drills", Data: d}, nil
}

func (p *Pages) drillTeam(v *viewer, team emergencyv1.Team, newest []*procedure.State) drillTeam {
	x := drillTeam{Name: v.enum(team)}
	for _, st := range newest {
		r := p.result(v, st, team)
		if r.Called == 0 {
			continue
		}
		call := &lastCall{st.Incident, v.when(calledAt(st, team)), r.Answered, r.Called}
		switch {
		case st.Declared.Drill && x.Last == nil:
			x.Last = call
		case !st.Declared.Drill && x.LastReal == nil:
			x.LastReal = call
		}
	}
	var due time.Time
	for i, name := range v.rotaOf(team) {
		x.Rota++
		var last time.Time
		for _, c := range v.book.Contacts(name) {
			if at := v.book.Reachability(name, c.GetChannel()).Reached; at.After(last) {
				last = at
			}
		}
		if v.now.Sub(last) > procedure.ReachedWithin {
			x.Unsure = append(x.Unsure, *v.person(name))
		}
		if end := last.Add(procedure.ReachedWithin); i == 0 || end.Before(due) {
			due = end
		}
	}
	x.Late = len(x.Unsure) > 0
	if !x.Late {
		x.Due = v.when(due)
	}
	return x
}

// rotaOf are the persons who are on duty for a team now or later.
func (v *viewer) rotaOf(team emergencyv1.Team) []string {
	var list []string
	for _, s := range v.book.Rota(team).Shifts {
		if (s.GetUntil() == nil || v.now.Before(s.GetUntil().AsTime())) && !slices.Contains(list, s.GetPerson()) {
			list = append(list, s.GetPerson())
		}
	}
	return list
}

func calledAt(st *procedure.State, team emergencyv1.Team) time.Time {
	for _, r := range st.Rounds {
		if slices.Contains(r.Teams, team) {
			return r.At
		}
	}
	return st.Declared.At
}

func (p *Pages) drill(v *viewer, st *procedure.State) drill {
	d := drill{card: v.card(st)}
	for _, t := range teams() {
		if r := p.result(v, st, t); r.Called > 0 || r.Missing > 0 {
			d.Teams = append(d.Teams, r)
		}
	}
	return d
}

// result is what became of the call to a team in one incident.
func (p *Pages) result(v *viewer, st *procedure.State, team emergencyv1.Team) drillResult {
	r := drillResult{Name: v.enum(team)}
	var called []string
	for _, pg := range st.Pages {
		if pg.Team != team {
			continue
		}
		if !slices.Contains(called, pg.Person) {
			called = append(called, pg.Person)
		}
		if pg.State == emergencyv1.DeliveryState_DELIVERY_STATE_FAILED {
			r.Failed++
		}
	}
	r.Called = len(called)
	var first, filled time.Time
	answered := map[string]bool{}
	for _, list := range [][]procedure.Declined{st.Answered, st.Declined} {
		for _, a := range list {
			if a.Team != team {
				continue
			}
			answered[a.Person] = true
			if at := p.recordedAt(st.Incident, a.Position); first.IsZero() || at.Before(first) {
				first = at
			}
		}
	}
	for _, a := range st.Answered {
		if at := p.recordedAt(st.Incident, a.Position); a.Team == team && at.After(filled) {
			filled = at
		}
	}
	for _, name := range called {
		if answered[name] {
			r.Answered++
		} else {
			r.Silent = append(r.Silent, *v.person(name))
		}
	}
	for _, sl := range st.Slots {
		if sl.Team == team && sl.State == procedure.SlotOpen {
			r.Missing++
		}
	}
	began := calledAt(st, team)
	if !first.IsZero() {
		r.First = v.took(first.Sub(began))
	}
	if r.Missing == 0 && !filled.IsZero() {
		r.Filled = v.took(filled.Sub(began))
	}
	return r
}

// recordedAt is when an event was recorded.
func (p *Pages) recordedAt(incident string, position uint64) time.Time {
	rec := p.cfg.Records.At(incident, position)
	if rec == nil {
		return time.Time{}
	}
	return rec.Record.GetRecordedAt().AsTime()
}

// reachRecords are the newest results, the newest first.
func (p *Pages) reachRecords(v *viewer) []reachRecord {
	records, _ := p.cfg.Records.From(procedure.RuleBook, 1)
	var list []reachRecord
	for _, rec := range slices.Backward(records) {
		for _, e := range slices.Backward(rec.Events) {
			x, ok := e.Payload.(*emergencyv1.ReachabilityRecorded)
			if !ok {
				continue
			}
			list = append(list, reachRecord{v.person(x.GetPerson()), x.GetChannel(), x.GetReached(), v.moment(rec.Record.GetRecordedAt()), causeOf(rec.Record.GetCausationId())})
			if len(list) == recordsShown {
				return list
			}
		}
	}
	return list
}

// causeOf is the event that a record names as its cause, <incident>/<position>; nil for none.
func causeOf(id string) *event {
	incident, text, ok := strings.Cut(id, "/")
	position, err := strconv.ParseUint(text, 10, 64)
	if !ok || err != nil || incident == procedure.RuleBook {
		return nil
	}
	return &event{incident, position}
}
