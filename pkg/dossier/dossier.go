// SPDX-License-Identifier: Apache-2.0

package dossier

import (
	"fmt"
	"slices"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// NoEvidence is what is said where the history holds nothing; never a guess (procedure.md 9).
const NoEvidence = "no evidence"

// Dossier is a history, sorted by the arbitrator's questions (procedure.md 9).
type Dossier struct {
	Incident string `json:"incident"`
	// Position is the last one that was read, RecordedAt its time, Head the hash of its record.
	Position   uint64    `json:"position"`
	RecordedAt time.Time `json:"recorded_at"`
	Head       string    `json:"head"`
	// AskedAt is the time for which is judged what is due or late.
	AskedAt time.Time `json:"asked_at"`
	// Policy is the one that the incident pinned.
	Policy       uint32 `json:"policy"`
	PolicyDigest string `json:"policy_digest"`
	System       string `json:"system"`
	Status       string `json:"status"`
	Strategy     uint32 `json:"strategy"`
	Drill        bool   `json:"drill"`

	// Persons are those who acted or were named for a part, as of the position.
	Persons []Person `json:"persons"`
	Answers []Answer `json:"answers"`
	// Steps is the table of chapter 1, for every strategy that was in force.
	Steps       []Step `json:"steps"`
	Order       Point  `json:"order"`
	Obligations []Owed `json:"obligations"`
	// Proceedings is what became of disputes; Values what was redacted, disclosed or played.
	Proceedings Point `json:"proceedings"`
	Values      Point `json:"values"`
	// Events are all that a sentence refers to, in order.
	Events []Event `json:"events"`
}

// Answer is the answer to one question, in points.
type Answer struct {
	ID       string  `json:"id"`
	Question string  `json:"question"`
	Points   []Point `json:"points"`
}

// Point is one part of an answer. It has at least one sentence.
type Point struct {
	Label     string     `json:"label"`
	Sentences []Sentence `json:"sentences"`
}

// Sentence is one fact. It names the positions of its events, or reads NoEvidence.
type Sentence struct {
	Text      string   `json:"text"`
	Positions []uint64 `json:"positions"`
	// AsOf marks what later events may change. All other sentences stay as they are, whatever is appended.
	AsOf bool `json:"as_of"`
	// Restricted are the values that stand outside the history.
	Restricted []Restricted `json:"restricted,omitempty"`
}

// Restricted names a value that is kept outside the history.
type Restricted struct {
	Field      string `json:"field"`
	Commitment string `json:"commitment"`
}

// Person is somebody who acted, or whom an event names for a part in it.
type Person struct {
	Person string `json:"person"`
	// Roles are those acted in, by the records; Held those of the rule book at the time of the position, where one was given.
	Roles     []string `json:"acted_as"`
	Held      []string `json:"held,omitempty"`
	Positions []uint64 `json:"positions"`
}

// Event is one event in one line.
type Event struct {
	Position uint64    `json:"position"`
	Type     string    `json:"type"`
	At       time.Time `json:"at"`
	Text     string    `json:"text"`
}

// New answers the questions from a history. It fails only for a history that cannot be read, or is shorter than asked for.
func New(in Input) (*Dossier, error) {
	f, err := read(in)
	if err != nil {
		return nil, err
	}
	s := f.state
	d := &Dossier{
		Incident: f.incident, Position: s.Position, RecordedAt: s.RecordedAt.UTC(), Head: s.HeadHash, AskedAt: f.asked.UTC(),
		System: s.Declared.System, Status: string(s.Status), Strategy: s.Strategy, Drill: s.Declared.Drill,
		Persons: f.persons(), Answers: f.answers(), Steps: f.steps(), Order: Point{labelOrder, f.orDefault(f.order())}, Obligations: Obligations(s, f.asked),
		Proceedings: f.point(point{label: labelProceedings, types: proceedings()}), Values: f.point(point{label: labelValues, types: []string{"FieldRedacted", "RedactionCompleted", "FieldDisclosed", "RecordingPlayed"}}),
	}
	if s.Policy != nil {
		d.Policy, d.PolicyDigest = s.Policy.Number, s.Policy.Digest
	}
	d.Events = f.referred(d)
	return d, nil
}

func (f *fold) persons() []Person {
	byName := map[string]*Person{}
	for _, e := range f.events {
		name := e.rec.GetActor().GetPerson()
		if name == "" || e.name == "CommandRefused" {
			continue
		}
		p := byName[name]
		if p == nil {
			p = &Person{Person: name, Roles: []string{}}
			byName[name] = p
			if f.book != nil {
				for _, r := range f.book.Roles(name, f.state.RecordedAt) {
					if r != emergencyv1.Role_ROLE_MEMBER { // everybody is
						p.Held = append(p.Held, procedure.RoleWord(r))
					}
				}
			}
		}
		if role := procedure.RoleWord(e.rec.GetActor().GetRole()); !slices.Contains(p.Roles, role) && e.rec.GetActor().GetRole() != 0 {
			p.Roles = append(p.Roles, role)
		}
		p.Positions = append(p.Positions, e.pos)
	}
	list := []Person{}
	for _, e := range f.events { // in the order of their first act
		if p := byName[e.rec.GetActor().GetPerson()]; p != nil && p.Positions[0] == e.pos {
			list = append(list, *p)
		}
	}
	return list
}

// referred are the events that anything in the dossier refers to.
func (f *fold) referred(d *Dossier) []Event {
	wanted := map[uint64]bool{}
	for _, s := range d.Sentences() {
		for _, p := range s.Positions {
			wanted[p] = true
		}
	}
	for _, s := range d.Steps {
		for _, p := range s.Positions {
			wanted[p] = true
		}
	}
	for _, o := range d.Obligations {
		wanted[o.Cause], wanted[o.By] = true, true
	}
	list := []Event{}
	for _, e := range f.events {
		if wanted[e.pos] {
			list = append(list, Event{e.pos, e.name, e.at.UTC(), fmt.Sprintf("%s: %s", e.who(), Words(e.payload))})
		}
	}
	return list
}

// Sentences are all sentences, in their order.
func (d *Dossier) Sentences() []Sentence {
	var list []Sentence
	for _, a := range d.Answers {
		for _, p := range a.Points {
			list = append(list, p.Sentences...)
		}
	}
	for _, p := range []Point{d.Order, d.Proceedings, d.Values} {
		list = append(list, p.Sentences...)
	}
	return list
}
