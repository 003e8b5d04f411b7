// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
)

// dossierView is the dossier of package dossier, to be read on a screen and on paper.
type dossierView struct {
	Incident, System string
	Drill            bool
	Status           badge
	Strategy         uint32
	Position, Last   uint64
	At, Asked        *when
	Head             string
	Policy           uint32
	PolicyDigest     string
	Roots            []evidenceRoot
	Persons          []dossierPerson
	Answers          []answerView
	Steps            []stepLine
	Order            pointView
	Owed             []sentence
	Proceedings      pointView
	Values           pointView
	Events           []dossierEvent
	Foreign          bool
	// Restricted counts the values that the viewer may ask for; Written is set after they were read.
	Hidden  int
	Written bool
}

type dossierPerson struct {
	person
	Acted, Held []string
	Count       int
	First, Last uint64
}

type answerView struct {
	ID, Question string
	Points       []pointView
}

type pointView struct {
	Label     string
	Sentences []sentence
}

// sentence is one fact with its positions, or NoEvidence.
type sentence struct {
	Text       string
	Nothing    bool
	AsOf       bool
	Positions  []uint64
	Restricted []secret
}

// stepLine is a line of the table of chapter 1.
type stepLine struct {
	Number, What string
	First, Due   string
	State        string
	Nothing      bool
	Who          []person
	Positions    []uint64
}

// dossierEvent is an event that a sentence refers to, with the hash of its record.
type dossierEvent struct {
	Event event
	Type  string
	At    *when
	Text  string
	Hash  string
}

// dossierPage answers the arbitrator's questions, now or as of a position. A POST shows the restricted values that the viewer may
// read; each reading is written down.
func (p *Pages) dossierPage(v *viewer, r *http.Request) (*content, error) {
	id := r.PathValue("incident")
	st, err := p.state(v, id)
	if err != nil {
		return nil, err
	}
	last, asked := st.Position, v.now
	position, err := strconv.ParseUint(r.FormValue("position"), 10, 63)
	if err != nil || position == last {
		position = 0
	}
	if position > last {
		return nil, noPosition(id, position, last)
	}
	d, err := dossier.New(dossier.Input{Entries: p.entriesOf(id), Book: v.book, Position: position, Asked: askedAt(position, asked)})
	if err != nil {
		return nil, fmt.Errorf("dossier of %s: %w", id, err)
	}
	b := &dossierBuilder{v: v, st: st, secrets: p.secrets(v, r, st), hashes: map[uint64]string{}, fields: map[string]restrictedField{}, read: map[string]secret{}}
	p.events(id, b.add)
	return &content{
		Title: "dossier.title", Args: []any{id}, Section: "docket", Template: "dossier", Data: b.view(d, last), Incident: id, Drill: st.Declared.Drill, Still: true,
	}, nil
}

// askedAt is the time for which is judged what is late: now, or the time of the position that was asked for.
func askedAt(position uint64, now time.Time) time.Time {
	if position > 0 {
		return time.Time{}
	}
	return now
}

// entriesOf is the verified history of an incident: the reader has checked it record by record.
func (p *Pages) entriesOf(incident string) []history.Entry {
	records, _ := p.cfg.Records.From(incident, 1)
	list := make([]history.Entry, len(records))
	for i, rec := range records {
		list[i] = rec.Entry
	}
	return list
}

// dossierBuilder puts a dossier into the words and links of a page.
type dossierBuilder struct {
	v       *viewer
	st      *procedure.State
	secrets *secrets
	hashes  map[uint64]string          // of the record that holds a position
	fields  map[string]restrictedField // by commitment
	read    map[string]secret          // by commitment: a value that several sentences name is read once
	hidden  int
	written bool
}

// restrictedField is where a restricted value stands.
type restrictedField struct {
	event projection.Event
	field procedure.RestrictedField
}

func (b *dossierBuilder) add(rec *projection.Record, e projection.Event) {
	b.hashes[e.Position] = rec.Hash
	for _, f := range procedure.RestrictedFields(e.Payload) {
		if _, known := b.fields[f.Commitment]; !known && f.Commitment != "" {
			b.fields[f.Commitment] = restrictedField{e, f}
		}
	}
}

func (b *dossierBuilder) view(d *dossier.Dossier, last uint64) *dossierView {
	out := &dossierView{
		Incident: d.Incident, System: d.System, Drill: d.Drill, Status: b.v.badge(quiet, "status", d.Status), Strategy: d.Strategy, Position: d.Position, Last: last,
		At: b.v.exact(d.RecordedAt), Asked: b.v.exact(d.AskedAt), Head: d.Head, Policy: d.Policy, PolicyDigest: d.PolicyDigest, Roots: rootsOf(b.st), Foreign: b.v.code != "en",
		Order: b.point(d.Order), Proceedings: b.point(d.Proceedings), Values: b.point(d.Values),
	}
	for _, x := range d.Persons {
		out.Persons = append(out.Persons, dossierPerson{*b.v.person(x.Person), x.Roles, x.Held, len(x.Positions), x.Positions[0], x.Positions[len(x.Positions)-1]})
	}
	for _, a := range d.Answers {
		view := answerView{ID: a.ID, Question: b.v.say("dossier.question." + a.ID)}
		for _, x := range a.Points {
			view.Points = append(view.Points, b.point(x))
		}
		out.Answers = append(out.Answers, view)
	}
	for _, x := range d.Steps {
		out.Steps = append(out.Steps, b.step(x))
	}
	for _, o := range d.Obligations {
		s := sentence{Text: o.Sentence()}
		for _, n := range []uint64{o.Cause, o.By} {
			if n > 0 {
				s.Positions = append(s.Positions, n)
			}
		}
		out.Owed = append(out.Owed, s)
	}
	for _, e := range d.Events {
		out.Events = append(out.Events, dossierEvent{event{d.Incident, e.Position}, e.Type, b.v.exact(e.At), e.Text, b.hashes[e.Position]})
	}
	out.Hidden, out.Written = b.hidden, b.written
	return out
}

// exact is a time to be kept: with its date, and not some time ago.
func (v *viewer) exact(t time.Time) *when {
	return &when{ISO: stamp(t), Text: t.UTC().Format("2006-01-02 15:04:05 UTC"), at: t}
}

func (b *dossierBuilder) point(x dossier.Point) pointView {
	out := pointView{Label: b.v.say("dossier.label." + x.Label)}
	for _, s := range x.Sentences {
		said := sentence{Text: s.Text, Nothing: s.Text == dossier.NoEvidence, AsOf: s.AsOf && len(s.Positions) > 0, Positions: s.Positions}
		for _, r := range s.Restricted {
			if v, ok := b.value(r.Commitment); ok {
				said.Restricted = append(said.Restricted, v)
			}
		}
		out.Sentences = append(out.Sentences, said)
	}
	return out
}

// value judges a restricted value, and reads it if it was asked for.
func (b *dossierBuilder) value(commitment string) (secret, bool) {
	if s, ok := b.read[commitment]; ok {
		return s, true
	}
	f, ok := b.fields[commitment]
	if !ok {
		return secret{}, false
	}
	s := b.secrets.value(f.event, f.field)
	b.read[commitment] = s
	if s.State == secretHidden {
		b.hidden++
	}
	b.written = b.written || s.State == secretShown
	return s, true
}

func (b *dossierBuilder) step(x dossier.Step) stepLine {
	start := b.st.Declared.At
	after := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return "+" + b.v.took(t.Sub(start))
	}
	return stepLine{
		Number: x.Number, What: b.v.say("step." + x.What), First: after(x.FirstAt), Due: after(x.Target), State: x.State, Nothing: x.State == dossier.NoEvidence,
		Who: b.v.persons(x.Who), Positions: x.Positions,
	}
}
