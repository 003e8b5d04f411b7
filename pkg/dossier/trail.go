// SPDX-License-Identifier: Apache-2.0

package dossier

import (
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Trail is a history that is read record by record, by who follows one and asks for its steps now and then.
type Trail struct{ f *fold }

// NewTrail is before the first record.
func NewTrail(incident string) *Trail {
	return &Trail{&fold{incident: incident, state: procedure.NewState(incident), only: stepTypes()}}
}

// Add reads the next record; events are its events, by procedure.DecodeRecord. After an error the trail is of no use any more.
func (t *Trail) Add(entry history.Entry, events []procedure.Event) error {
	at := entry.Record.GetRecordedAt().AsTime()
	if t.f.state.Position == 0 {
		t.f.t0 = at
	}
	t.f.asked = at
	return t.f.add(entry, events)
}

// State is the state after the last record; never write to it.
func (t *Trail) State() *procedure.State { return t.f.state }

// Steps is the table of chapter 1 as of the last record.
func (t *Trail) Steps() []Step { return t.f.steps() }

// Actor is who recorded a position of a step.
func (t *Trail) Actor(position uint64) *emergencyv1.Actor { return t.f.at(position).rec.GetActor() }
