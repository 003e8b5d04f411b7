// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"net/http"
	"slices"
	"time"

	"cacert.org/emergency/pkg/procedure"
)

// docketView is every dispute of every emergency, and what arbitrators ordered: what arbitration works from.
type docketView struct {
	Show                              string // open, mine or all
	Open, Overdue, Unassigned, Orders int
	Rows                              []docketRow
	Directions                        []docketDirection
}

// docketRow is one dispute on the docket.
type docketRow struct {
	dispute
	Incident, System string
	Drill, Open      bool
	Path             string
	// Waits are the steps that it waits for, by the rules, Late if one of them is overdue.
	Waits []nextStep
	Late  bool
	// Unassigned is for how long it has had no arbitrator although a ruling is owed; empty if it has one.
	Unassigned string
	// GoesOn is the dispute in which this one goes on.
	GoesOn string
	due    time.Time
	filed  time.Time
}

// docketDirection is an order that is not carried out yet, or was.
type docketDirection struct {
	direction
	Incident string
	Drill    bool
	Path     string
	Waits    []nextStep
	Late     bool
	Open     bool
	due      time.Time
}

func (p *Pages) docket(v *viewer, r *http.Request) (*content, error) {
	data := docketView{Show: r.URL.Query().Get("show")}
	if !slices.Contains([]string{"open", "mine", "all"}, data.Show) {
		data.Show = "open"
	}
	p.cfg.Incidents.Each(func(st *procedure.State) {
		for _, row := range v.docketRows(st) {
			data.count(row)
			if data.shows(row.Open, v.waitedFor(row.Waits)) {
				data.Rows = append(data.Rows, row)
			}
		}
		for _, d := range v.docketDirections(st) {
			if d.Open {
				data.Orders++
			}
			if data.shows(d.Open, v.waitedFor(d.Waits)) {
				data.Directions = append(data.Directions, d)
			}
		}
	})
	slices.SortStableFunc(data.Rows, func(a, b docketRow) int {
		if a.Open && b.Open {
			return byUrgency(a.Drill, b.Drill, true, true, a.due, b.due)
		}
		return byUrgency(a.Drill, b.Drill, a.Open, b.Open, b.filed, a.filed) // what is decided: the newest first
	})
	slices.SortStableFunc(data.Directions, func(a, b docketDirection) int { return byUrgency(a.Drill, b.Drill, a.Open, b.Open, a.due, b.due) })
	return &content{Title: "docket.title", Section: "docket", Template: "docket", Data: data}, nil
}

func (d *docketView) count(row docketRow) {
	if row.Open {
		d.Open++
	}
	if row.Late {
		d.Overdue++
	}
	if row.Unassigned != "" {
		d.Unassigned++
	}
}

func (d *docketView) shows(open, mine bool) bool {
	return d.Show == "all" || open && (d.Show == "open" || mine)
}

// byUrgency puts what is real before drills, what is open before what is not, and then orders by time.
func byUrgency(drillA, drillB, openA, openB bool, a, b time.Time) int {
	switch {
	case drillA != drillB:
		return map[bool]int{true: 1, false: -1}[drillA]
	case openA != openB:
		return map[bool]int{true: -1, false: 1}[openA]
	}
	return a.Compare(b)
}

// waitedFor tells whether one of some steps waits for the viewer.
func (v *viewer) waitedFor(steps []nextStep) bool {
	return slices.ContainsFunc(steps, func(s nextStep) bool {
		return slices.ContainsFunc(s.Persons, func(x person) bool { return x.Me })
	})
}

// docketRows are the disputes of one emergency.
func (v *viewer) docketRows(st *procedure.State) []docketRow {
	if len(st.Disputes) == 0 {
		return nil
	}
	without := procedure.WithoutArbitrator(st)
	list := v.disputes(st, v.now)
	var rows []docketRow
	for i := range st.Disputes {
		x := &st.Disputes[i]
		row := docketRow{
			dispute: list[i], Incident: st.Incident, System: st.Declared.System, Drill: st.Declared.Drill, Path: casePath(st.Incident, x.ID), GoesOn: x.RefiledBy, filed: x.Filed.At,
		}
		if row.GoesOn == "" {
			row.GoesOn = x.JoinedTo
		}
		row.Waits, row.Late, row.due = v.waits(st, x.ID)
		row.Open = x.Open() || len(row.Waits) > 0
		if slices.ContainsFunc(without, func(y procedure.Dispute) bool { return y.ID == x.ID }) {
			row.Unassigned = v.took(v.now.Sub(x.Filed.At))
		}
		rows = append(rows, row)
	}
	return rows
}

func casePath(incident, dispute string) string {
	return "/incidents/" + incident + "/cases/" + dispute
}

// waits are the steps that something waits for, by the rules: those whose subject it is.
func (v *viewer) waits(st *procedure.State, subject string) (list []nextStep, late bool, due time.Time) {
	for _, s := range procedure.NextSteps(st) {
		if s.Subject != subject {
			continue
		}
		n := v.step(s)
		list, late = append(list, *n), late || n.Late
		if due.IsZero() || !s.Due.IsZero() && s.Due.Before(due) {
			due = s.Due
		}
	}
	return list, late, due
}

func (v *viewer) docketDirections(st *procedure.State) []docketDirection {
	shown := v.directions(st, v.now)
	var list []docketDirection
	for i, x := range st.Directions {
		d := docketDirection{direction: shown[i], Incident: st.Incident, Drill: st.Declared.Drill, Path: casePath(st.Incident, x.Dispute), due: x.Due}
		d.Waits, d.Late, _ = v.waits(st, x.ID)
		state := x.State(v.now)
		d.Open = state != procedure.DirectionDone && state != procedure.DirectionVoid
		list = append(list, d)
	}
	return list
}
