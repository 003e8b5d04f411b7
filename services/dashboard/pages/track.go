// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"slices"
	"time"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
)

// track is the numbered steps of one strategy.
type track struct {
	Strategy uint32
	Active   bool
	Stops    []stop
	Done     int
}

// stop is one numbered step.
type stop struct {
	Number, What string
	// State is done, current, next or later.
	State string
	Parts []part
	// After is when it was complete, counted from the declaration; Took how long it was since the stop before.
	After, Took string
	Waits       []nextStep
}

// part is one thing that belongs to a step.
type part struct {
	What   string
	Done   bool
	Who    []person
	At     *when
	After  string
	Event  *event
	Times  int
	Target *when
	Late   bool
}

// steps is the table of chapter 1 of an incident up to a state's position, as the dossier has it.
func (p *Pages) steps(st *procedure.State, at time.Time) ([]dossier.Step, error) {
	records, _ := p.cfg.Records.From(st.Incident, 1)
	entries := make([]history.Entry, 0, len(records))
	for _, rec := range records {
		if rec.Record.GetFirstPosition() <= st.Position {
			entries = append(entries, rec.Entry)
		}
	}
	steps, err := dossier.Steps(dossier.Input{Entries: entries, Asked: at})
	if err != nil {
		return nil, fmt.Errorf("steps of %s: %w", st.Incident, err)
	}
	return steps, nil
}

// tracks are those of the strategies that were followed, the one that is followed now first.
func (v *viewer) tracks(st *procedure.State, steps []dossier.Step) []track {
	waits := map[string][]nextStep{}
	for _, s := range procedure.NextSteps(st) {
		number := stopOf(s, st.Strategy)
		waits[number] = append(waits[number], *v.step(s))
	}
	var list []track
	for strategy := uint32(1); strategy <= 3; strategy++ {
		t := v.track(st, strategy, steps)
		if len(t.Stops) == 0 {
			continue
		}
		t.Active = strategy == st.Strategy
		t.place(waits, st)
		list = append(list, t)
	}
	slices.SortStableFunc(list, func(a, b track) int {
		if a.Active == b.Active {
			return 0
		}
		return map[bool]int{true: -1, false: 1}[a.Active]
	})
	return list
}

// stopOf is the numbered step that a thing the incident waits for belongs to; obligations are listed under chapter 7 instead.
func stopOf(s procedure.Step, strategy uint32) string {
	if s.Number != "7" || strategy < 1 || strategy > 3 {
		return s.Number
	}
	at := map[string][3]string{
		"RecordHealth": {"1.9", "2.3", ""}, "Document": {"1.9", "2.4", "3.7"}, "FileDispute": {"", "2.4", "3.7"}, "PushReplication": {"1.9", "2.5", "3.8"},
		"CheckReplication": {"1.9", "2.5", "3.8"}, "ExplainDrift": {"1.9", "2.5", "3.8"}, "EnterUpdateCycle": {"", "2.5", "3.8"}, "ConcludeUpdateCycle": {"", "2.5", "3.8"},
	}[s.Command]
	return at[strategy-1]
}

func (v *viewer) track(st *procedure.State, strategy uint32, steps []dossier.Step) track {
	t := track{Strategy: strategy}
	before := st.Declared.At
	for _, s := range steps {
		if s.Strategy != strategy {
			continue
		}
		if n := len(t.Stops); n == 0 || t.Stops[n-1].Number != s.Number {
			t.Stops = append(t.Stops, stop{Number: s.Number, What: v.say("stop." + s.Number)})
		}
		x := &t.Stops[len(t.Stops)-1]
		x.Parts = append(x.Parts, v.part(st, s))
	}
	for i := range t.Stops {
		x := &t.Stops[i]
		last, done := time.Time{}, true
		for _, q := range x.Parts {
			done = done && q.Done
			if q.At != nil && q.At.at.After(last) {
				last = q.At.at
			}
		}
		if done {
			x.State = "done"
			t.Done++
		}
		if !last.IsZero() {
			x.After = v.took(last.Sub(st.Declared.At))
			if last.After(before) {
				x.Took, before = v.took(last.Sub(before)), last
			}
		}
	}
	return t
}

func (v *viewer) part(st *procedure.State, s dossier.Step) part {
	q := part{What: v.say("step." + s.What), Who: v.persons(s.Who), Times: len(s.Positions), Done: len(s.Positions) > 0 || s.State == "met otherwise"}
	if s.FirstAt != nil {
		q.At, q.After = v.when(*s.FirstAt), v.took(s.FirstAt.Sub(st.Declared.At))
	}
	if len(s.Positions) > 0 {
		q.Event = &event{st.Incident, s.Positions[0]}
	}
	if s.Target != nil {
		q.Target = v.when(*s.Target)
		q.Late = q.At == nil && v.now.After(*s.Target) && st.Status == procedure.Open || q.At != nil && q.At.at.After(*s.Target)
	}
	return q
}

// place says of each stop that is not done whether it is the current one, can come next, or comes later.
func (t *track) place(waits map[string][]nextStep, st *procedure.State) {
	next := false
	for i := range t.Stops {
		x := &t.Stops[i]
		if t.Active && st.Status == procedure.Open {
			x.Waits = waits[x.Number]
		}
		if x.State == "done" {
			if len(x.Waits) == 0 {
				continue
			}
			x.State, t.Done = "", t.Done-1
		}
		switch {
		case len(x.Waits) > 0:
			x.State = "current"
		case !next && t.Active:
			x.State, next = "next", true
		default:
			x.State = "later"
		}
	}
}
