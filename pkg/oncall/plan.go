// SPDX-License-Identifier: Apache-2.0

package oncall

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Rotation is several persons of a team who take turns.
type Rotation struct {
	Team emergencyv1.Team
	// Persons in the order of their turns.
	Persons []string
	// From is the first hand-over, in the zone by whose clock hands are changed; Until is the end, exclusive.
	From, Until time.Time
	// Days is how long a turn lasts.
	Days int
	// Called is how many are on duty at the same time: whose turn it is first, then who comes next.
	Called int
}

// turnsAtMost bounds a plan: what is written down for years ahead is wrong by then, and each change of a rota carries it whole.
const turnsAtMost = 400

// Shifts are the turns of a rotation. An error says which part of it makes none.
func (r Rotation) Shifts() ([]*emergencyv1.Shift, error) {
	switch {
	case len(r.Persons) == 0:
		return nil, fmt.Errorf("a rotation needs at least one person")
	case r.Days < 1:
		return nil, fmt.Errorf("a turn lasts at least one day, not %d", r.Days)
	case r.Called < 1 || r.Called > len(r.Persons):
		return nil, fmt.Errorf("%d on duty at a time of %d persons", r.Called, len(r.Persons))
	case !r.From.Before(r.Until):
		return nil, fmt.Errorf("the rotation ends at %s, before it begins at %s", text(r.Until), text(r.From))
	}
	for i, p := range r.Persons {
		if slices.Contains(r.Persons[:i], p) {
			return nil, fmt.Errorf("%s is named twice", p)
		}
	}
	var list []*emergencyv1.Shift
	for turn := 0; ; turn++ {
		// By the calendar: a hand-over at nine stays at nine when the clocks change.
		from, until := r.From.AddDate(0, 0, turn*r.Days), r.From.AddDate(0, 0, (turn+1)*r.Days)
		if !from.Before(r.Until) {
			return list, nil
		}
		if turn == turnsAtMost {
			return nil, fmt.Errorf("more than %d turns until %s; plan a shorter time", turnsAtMost, text(r.Until))
		}
		if until.After(r.Until) {
			until = r.Until
		}
		for rank := range r.Called {
			list = append(list, shift(r.Team, r.Persons[(turn+rank)%len(r.Persons)], from, until, uint32(rank+1), false))
		}
	}
}

func text(t time.Time) string { return t.Format("2006-01-02 15:04 MST") }

func shift(team emergencyv1.Team, person string, from, until time.Time, rank uint32, override bool) *emergencyv1.Shift {
	s := &emergencyv1.Shift{Team: team, Person: person, From: timestamppb.New(from), Rank: rank, Override: override}
	if !until.IsZero() {
		s.Until = timestamppb.New(until)
	}
	return s
}

// Lay puts a plan in the place of the rotation from one time until another. What stands in for it stays.
func Lay(rota, plan []*emergencyv1.Shift, from, until time.Time) []*emergencyv1.Shift {
	return ordered(append(without(rota, from, until, false), plan...))
}

// StandIn puts persons in the place of the rotation from one time until another, in the order of calling. Whoever stood in
// before in that time does so no more; without persons the rotation has its place again.
func StandIn(rota []*emergencyv1.Shift, team emergencyv1.Team, persons []string, from, until time.Time) []*emergencyv1.Shift {
	list := without(rota, from, until, true)
	for i, p := range persons {
		list = append(list, shift(team, p, from, until, uint32(i+1), true))
	}
	return ordered(list)
}

// kept is how long shifts that are over stay in the rota, so that a calendar shows the last weeks. The history has them all.
const kept = 35 * 24 * time.Hour

// Current leaves out shifts that were over long before now.
func Current(rota []*emergencyv1.Shift, now time.Time) []*emergencyv1.Shift {
	return slices.DeleteFunc(slices.Clone(rota), func(s *emergencyv1.Shift) bool {
		return s.GetUntil() != nil && s.GetUntil().AsTime().Before(now.Add(-kept))
	})
}

// without cuts a span out of the shifts of one kind. What lies across its ends becomes shorter, or two.
func without(rota []*emergencyv1.Shift, from, until time.Time, override bool) []*emergencyv1.Shift {
	var list []*emergencyv1.Shift
	for _, s := range rota {
		begin, end := s.GetFrom().AsTime(), time.Time{}
		if s.GetUntil() != nil {
			end = s.GetUntil().AsTime()
		}
		if s.GetOverride() != override || !begin.Before(until) || !end.IsZero() && !from.Before(end) {
			list = append(list, s)
			continue
		}
		if begin.Before(from) {
			list = append(list, shift(s.GetTeam(), s.GetPerson(), begin, from, s.GetRank(), override))
		}
		if end.IsZero() || until.Before(end) {
			list = append(list, shift(s.GetTeam(), s.GetPerson(), until, end, s.GetRank(), override))
		}
	}
	return list
}

func ordered(list []*emergencyv1.Shift) []*emergencyv1.Shift {
	slices.SortStableFunc(list, func(a, b *emergencyv1.Shift) int { return a.GetFrom().AsTime().Compare(b.GetFrom().AsTime()) })
	return list
}

// Gaps are the spans in which nobody is on duty.
func Gaps(duties []rulebook.Duty) []rulebook.Duty {
	return slices.DeleteFunc(slices.Clone(duties), func(d rulebook.Duty) bool { return !d.Gap() })
}
