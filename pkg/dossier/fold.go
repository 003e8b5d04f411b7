// SPDX-License-Identifier: Apache-2.0

package dossier

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Input is what a text is made from.
type Input struct {
	// Entries is the verified history of one incident, from its beginning. It is shared and never written to.
	Entries []history.Entry
	// Book is the verified rule book: which roles the persons held that an event names. Optional.
	Book *rulebook.Book
	// Position is where the history is read to; a command is atomic, so the record that holds it is read whole. 0 is the end.
	Position uint64
	// Asked is the time for which is judged what is due or late; the recorded time of the last record if zero.
	Asked time.Time
}

// event is one fact and where it stands.
type event struct {
	pos        uint64
	at         time.Time
	rec        *emergencyv1.Record
	name       string // type without the owner
	payload    proto.Message
	deviations []emergencyv1.Deviation
	strategy   uint32 // in force when it was recorded; an event that changes it counts as of the new one
}

// who acted: a person, or the system.
func (e event) who() string {
	a := e.rec.GetActor()
	switch {
	case a.GetPerson() != "" && a.GetRole() != emergencyv1.Role_ROLE_UNSPECIFIED:
		return fmt.Sprintf("%s (%s)", a.GetPerson(), procedure.RoleWord(a.GetRole()))
	case a.GetPerson() != "":
		return a.GetPerson()
	case a.GetSystemName() != "":
		return fmt.Sprintf("%s (%s)", a.GetSystemName(), word(a.GetSystem(), "SYSTEM_KIND_"))
	}
	return "the " + word(a.GetSystem(), "SYSTEM_KIND_")
}

// fold is a history up to a position.
type fold struct {
	incident string
	events   []event // those of only, or all of them
	only     map[string]bool
	under    []since // strategies in force, in order
	state    *procedure.State
	book     *rulebook.Book
	asked    time.Time
	t0       time.Time
}

// since is from which position on a strategy was in force.
type since struct {
	position uint64
	strategy uint32
}

func read(in Input) (*fold, error) {
	if len(in.Entries) == 0 {
		return nil, fmt.Errorf("the history has no record")
	}
	first := in.Entries[0].Record
	f := &fold{incident: first.GetIncident(), state: procedure.NewState(first.GetIncident()), book: in.Book, t0: first.GetRecordedAt().AsTime()}
	for _, entry := range in.Entries {
		if in.Position > 0 && f.state.Position >= in.Position {
			break
		}
		events, err := procedure.DecodeRecord(entry.Record)
		if err == nil {
			err = f.add(entry, events)
		}
		if err != nil {
			return nil, fmt.Errorf("history of %s: %w", f.incident, err)
		}
	}
	if f.state.Position < in.Position {
		return nil, fmt.Errorf("the history of %s ends at position %d, before %d", f.incident, f.state.Position, in.Position)
	}
	if f.asked = in.Asked; f.asked.IsZero() {
		f.asked = f.state.RecordedAt
	}
	return f, nil
}

func (f *fold) add(entry history.Entry, events []procedure.Event) error {
	rec := entry.Record
	if err := f.state.ApplyDecoded(rec, events, entry.Hash); err != nil {
		return err
	}
	if n := len(f.under); n == 0 || f.under[n-1].strategy != f.state.Strategy {
		f.under = append(f.under, since{rec.GetFirstPosition(), f.state.Strategy})
	}
	for _, e := range events {
		_, name, _ := strings.Cut(e.Type, ".")
		if f.only != nil && !f.only[name] {
			continue
		}
		f.events = append(f.events, event{
			pos: e.Position, at: rec.GetRecordedAt().AsTime(), rec: rec, name: name, payload: e.Payload, deviations: e.Deviations, strategy: f.state.Strategy,
		})
	}
	return nil
}

// at returns the event at a position; the zero event where there is none, or where it was not kept.
func (f *fold) at(position uint64) event {
	i, found := slices.BinarySearchFunc(f.events, position, func(e event, want uint64) int { return cmp.Compare(e.pos, want) })
	if !found {
		return event{}
	}
	return f.events[i]
}

// strategyAt is the strategy that was in force when a position was recorded; 0 where there is none.
func (f *fold) strategyAt(position uint64) uint32 {
	if position == 0 || position > f.state.Position {
		return 0
	}
	i, found := slices.BinarySearchFunc(f.under, position, func(s since, want uint64) int { return cmp.Compare(s.position, want) })
	if !found {
		i--
	}
	return f.under[i].strategy
}

// when is a time of the history, as the clock had it and counted from the declaration.
func (f *fold) when(at time.Time) string {
	return fmt.Sprintf("%s, %s", at.UTC().Format("2006-01-02 15:04 UTC"), sinceT0(at.Sub(f.t0)))
}

// sinceT0 is the time since the declaration, such as T0+1:05:09.
func sinceT0(d time.Duration) string {
	s := int64(d / time.Second)
	return fmt.Sprintf("T0+%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// tell says one event as a sentence: when, who, what, and what departed from the rules in it. ground adds what the actor
// named as the ground.
func (f *fold) tell(e event, ground bool) Sentence {
	text := fmt.Sprintf("%s, %s: %s", f.when(e.at), e.who(), Words(e.payload))
	for _, d := range e.deviations {
		text += "; deviation: " + word(d, "DEVIATION_")
	}
	if ground {
		text += "; ground named: " + either(e.rec.GetAuthority() != "", e.rec.GetAuthority(), "none")
	}
	if e.rec.GetLate() {
		text += "; recorded late, captured " + clock(e.rec.GetOccurredAt())
	}
	s := Sentence{Text: text + ".", Positions: []uint64{e.pos}}
	for _, r := range procedure.RestrictedFields(e.payload) {
		s.Restricted = append(s.Restricted, Restricted{Field: r.Field, Commitment: r.Commitment})
	}
	return s
}

// span is a time in words, to the second: what happened in a session is a matter of seconds.
func span(d time.Duration) string {
	d = d.Round(time.Second)
	days, h, m, s := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d d %d h", days, h)
	case h > 0:
		return fmt.Sprintf("%d h %d min", h, m)
	case m > 0 && s > 0:
		return fmt.Sprintf("%d min %d s", m, s)
	case m > 0:
		return fmt.Sprintf("%d min", m)
	}
	return fmt.Sprintf("%d s", s)
}
