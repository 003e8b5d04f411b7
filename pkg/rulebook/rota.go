// SPDX-License-Identifier: Apache-2.0

package rulebook

import (
	"cmp"
	"slices"
	"time"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Rota is who is called for a team and when, as it was set last.
type Rota struct {
	// Shifts are shared with the history: never write to them.
	Shifts []*emergencyv1.Shift
	// ChangedAt is when it was set; zero if it never was.
	ChangedAt time.Time
	// Position is the rule book's after the record that set it; zero if it never was.
	Position uint64
}

// Duty is a span of time in which the same persons are on duty for a team.
type Duty struct {
	From, Until time.Time
	// Persons are in the order of calling; none is a gap.
	Persons []string
	// Override is set if they stand in for the rotation.
	Override bool
}

// Gap tells whether nobody is on duty.
func (d Duty) Gap() bool { return len(d.Persons) == 0 }

// Rota returns a team's rota.
func (b *Book) Rota(team emergencyv1.Team) Rota {
	if b == nil {
		return Rota{}
	}
	return b.rota[team]
}

// OnDuty lists the persons to call for a team at a time, in the order of calling, each once. While a shift that stands in
// holds, the rotation does not count.
func (b *Book) OnDuty(team emergencyv1.Team, at time.Time) []string {
	persons, _ := onDuty(b.Rota(team).Shifts, at)
	return persons
}

func onDuty(shifts []*emergencyv1.Shift, at time.Time) (persons []string, override bool) {
	var holding []*emergencyv1.Shift
	for _, s := range shifts {
		if !at.Before(s.GetFrom().AsTime()) && (s.GetUntil() == nil || at.Before(s.GetUntil().AsTime())) {
			holding = append(holding, s)
			override = override || s.GetOverride()
		}
	}
	slices.SortStableFunc(holding, func(a, b *emergencyv1.Shift) int { return cmp.Compare(a.GetRank(), b.GetRank()) })
	for _, s := range holding {
		if s.GetOverride() == override && !slices.Contains(persons, s.GetPerson()) {
			persons = append(persons, s.GetPerson())
		}
	}
	return persons, override
}

// Duties is who is on duty for a team from one time until another, as spans without a hole between them: at each moment of a
// span OnDuty gives its persons.
func (b *Book) Duties(team emergencyv1.Team, from, until time.Time) []Duty {
	return Duties(b.Rota(team).Shifts, from, until)
}

// Duties is the same for shifts that are not set yet.
func Duties(shifts []*emergencyv1.Shift, from, until time.Time) []Duty {
	if !from.Before(until) {
		return nil
	}
	edges := []time.Time{from}
	for _, s := range shifts {
		for _, at := range []time.Time{s.GetFrom().AsTime(), s.GetUntil().AsTime()} { // no end is 1970, which is before any span
			if at.After(from) && at.Before(until) {
				edges = append(edges, at)
			}
		}
	}
	slices.SortFunc(edges, time.Time.Compare)
	var list []Duty
	for _, at := range edges {
		persons, override := onDuty(shifts, at)
		if n := len(list); n > 0 {
			if last := &list[n-1]; last.Override == override && slices.Equal(last.Persons, persons) {
				continue
			}
			list[n-1].Until = at
		}
		list = append(list, Duty{at, until, persons, override})
	}
	return list
}
