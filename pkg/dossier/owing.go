// SPDX-License-Identifier: Apache-2.0

package dossier

import (
	"slices"
	"strings"
	"time"
)

// Owing is what became of obligations in a summary's period: over its time, and by kind. Drills are not counted. Its figures are
// those of Board for the same period and the same time of asking, of which it says more.
type Owing struct {
	// Moments go from the period's beginning to the time for which the summary is judged.
	Moments []Moment `json:"moments"`
	// Kinds are in the order of their words.
	Kinds []KindCount `json:"kinds"`
}

// Moment is how many obligations were open at a time, and how many of those were overdue.
type Moment struct {
	At      time.Time `json:"at"`
	Open    int       `json:"open"`
	Overdue int       `json:"overdue"`
}

// KindCount is how many obligations of a kind were open at the end, how many of those overdue, and how many were met in the
// period, how many of those late.
type KindCount struct {
	Kind    string `json:"kind"`
	Open    int    `json:"open"`
	Overdue int    `json:"overdue"`
	Met     int    `json:"met"`
	MetLate int    `json:"met_late"`
}

// OwedOver tells what was owed in a period, at steps+1 moments of equal distance. The arguments are those of Board, and so are
// its errors.
func OwedOver(from, until, asked time.Time, steps int, incidents []Input) (*Owing, error) {
	s, err := period(from, until, asked)
	if err != nil {
		return nil, err
	}
	var list []Owed
	for _, in := range incidents {
		f, err := s.read(in)
		if err != nil {
			return nil, err
		}
		if f != nil && !f.state.Declared.Drill {
			list = append(list, Obligations(f.state, s.JudgedAt)...)
		}
	}
	o := &Owing{Kinds: []KindCount{}}
	for i := range steps + 1 {
		at := s.From.Add(s.JudgedAt.Sub(s.From) * time.Duration(i) / time.Duration(max(steps, 1)))
		o.Moments = append(o.Moments, momentOf(list, at))
	}
	for _, x := range list {
		o.count(s, x)
	}
	slices.SortFunc(o.Kinds, func(a, b KindCount) int { return strings.Compare(a.Kind, b.Kind) })
	return o, nil
}

func momentOf(list []Owed, at time.Time) Moment {
	m := Moment{At: at}
	for _, o := range list {
		if o.Since.After(at) || o.By != 0 && !o.ByAt.After(at) {
			continue
		}
		m.Open++
		if at.After(o.Due) {
			m.Overdue++
		}
	}
	return m
}

func (o *Owing) count(s *Summary, x Owed) {
	if x.By != 0 && !s.within(x.ByAt) {
		return // met before the period
	}
	i := slices.IndexFunc(o.Kinds, func(k KindCount) bool { return k.Kind == x.Kind })
	if i < 0 {
		o.Kinds, i = append(o.Kinds, KindCount{Kind: x.Kind}), len(o.Kinds)
	}
	k := &o.Kinds[i]
	switch {
	case x.By != 0:
		k.Met++
		if x.LateBy > 0 {
			k.MetLate++
		}
	default:
		k.Open++
		if x.State == Overdue {
			k.Overdue++
		}
	}
}
