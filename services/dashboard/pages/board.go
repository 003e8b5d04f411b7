// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// boardView is what the Board asks for (SP 3.2.3.1, 4.1.3): how often, by which strategy, how fast, and what is owed. Drills
// are counted apart and are in no other figure.
type boardView struct {
	Year       string
	Years      []string
	Count      int
	Drills     int
	InTime     int
	Judged     int // whose 24 hours are over or met
	Median     string
	Slowest    string
	Mix        bars
	Steps      bars
	Owed       area
	Debts      []debtCount
	Deviations []counted
	Unreported int
	Waiting    int // disputes without an arbitrator
}

// bars is a chart of horizontal bars, which reads as a table too.
type bars struct {
	Rows   []bar
	Height int
}

type bar struct {
	Label, Value string
	Y, Width     int
}

// area is a chart of a number over time.
type area struct {
	Path, Late           string
	Max                  int
	From, To             *when
	Rows                 []counted
	Peak                 int
	HasPoints, HasLate   bool
	Ticks                []tick
	Width, Height, Floor int
}

type tick struct {
	Label string
	X     int
}

// counted is a word and how often.
type counted struct {
	What  string
	Count int
}

// debtCount is a kind of obligation and what became of those.
type debtCount struct {
	What                      string
	Open, Overdue, Met, Later int
}

// barWidth is the length of the longest bar, barStep the distance of two.
const (
	barWidth = 340
	barStep  = 34
)

func (p *Pages) board(v *viewer, r *http.Request) (*content, error) {
	d := &boardView{Year: r.URL.Query().Get("year")}
	var states []*procedure.State
	p.cfg.Incidents.Each(func(st *procedure.State) {
		year := st.Declared.At.UTC().Format("2006")
		if !slices.Contains(d.Years, year) {
			d.Years = append(d.Years, year)
		}
		if d.Year == "" || d.Year == year {
			states = append(states, st.Clone())
		}
	})
	slices.Sort(d.Years)
	slices.Reverse(d.Years)
	if !slices.Contains(d.Years, d.Year) && d.Year != "" {
		d.Year = ""
	}
	real := slices.DeleteFunc(slices.Clone(states), func(st *procedure.State) bool { return st.Declared.Drill || st.Status == procedure.Merged })
	for _, st := range states {
		if st.Declared.Drill {
			d.Drills++
		}
	}
	d.Count = len(real)
	v.speed(d, real)
	v.mix(d, real)
	v.debtFigures(d, real)
	if err := p.stepTimes(v, d, real); err != nil {
		return nil, err
	}
	v.owedOver(d, real)
	return &content{Title: "board.title", Section: "board", Template: "board", Data: d}, nil
}

// speed is how long emergencies took, and how many kept the 24 hours.
func (v *viewer) speed(d *boardView, list []*procedure.State) {
	var took []time.Duration
	for _, st := range list {
		due, met := overall(st)
		at := procedure.OverallMetAt(st)
		if met {
			took = append(took, at.Sub(st.Declared.At))
		}
		if met || v.now.After(due) {
			d.Judged++
			if met && !at.After(due) {
				d.InTime++
			}
		}
		if len(st.BoardReports) == 0 {
			d.Unreported++
		}
		for _, x := range st.Disputes {
			if x.State(v.now) == procedure.DisputeAwaiting || x.State(v.now) == procedure.DisputeClosedDeclined {
				d.Waiting++
			}
		}
	}
	if len(took) > 0 {
		slices.Sort(took)
		d.Median, d.Slowest = v.took(median(took)), v.took(took[len(took)-1])
	}
}

// median of a sorted list that is not empty; of an even number the lower one, which did happen.
func median(sorted []time.Duration) time.Duration { return sorted[(len(sorted)-1)/2] }

// mix is by which strategy emergencies were handled: the highest that each came to.
func (v *viewer) mix(d *boardView, list []*procedure.State) {
	count := [4]int{}
	for _, st := range list {
		highest := max(st.Strategy, 1)
		for _, c := range st.Strategies {
			highest = max(highest, c.To)
		}
		count[min(highest, 3)]++
	}
	for s := 1; s <= 3; s++ {
		d.Mix.add(v.say("strategy", s), strconv.Itoa(count[s]), count[s])
	}
	d.Mix.scale()
}

// add puts a bar with its raw length; scale makes the longest one barWidth long.
func (b *bars) add(label, value string, n int) {
	b.Rows = append(b.Rows, bar{label, value, len(b.Rows) * barStep, n})
	b.Height = len(b.Rows) * barStep
}

func (b *bars) scale() {
	longest := 0
	for _, r := range b.Rows {
		longest = max(longest, r.Width)
	}
	for i := range b.Rows {
		if n := b.Rows[i].Width; n > 0 {
			b.Rows[i].Width = max(2, n*barWidth/longest)
		}
	}
}

// stepTimes is how long after the declaration each step of strategy 1 was done, in the middle case.
func (p *Pages) stepTimes(v *viewer, d *boardView, list []*procedure.State) error {
	after := map[string][]time.Duration{}
	var order []string
	for _, st := range list {
		steps, err := p.steps(st, v.now)
		if err != nil {
			return err
		}
		for _, s := range steps {
			if s.Strategy != 1 || s.Number == "1.1" {
				continue
			}
			if !slices.Contains(order, s.What) {
				order = append(order, s.What)
			}
			if s.FirstAt != nil {
				after[s.What] = append(after[s.What], s.FirstAt.Sub(st.Declared.At))
			}
		}
	}
	for _, what := range order {
		if times := after[what]; len(times) > 0 {
			slices.Sort(times)
			d.Steps.add(v.say("step."+what), v.took(median(times)), int(median(times)/time.Second))
		}
	}
	d.Steps.scale()
	return nil
}

// debtFigures count obligations by kind, and deviations.
func (v *viewer) debtFigures(d *boardView, list []*procedure.State) {
	kinds, deviations := map[string]*debtCount{}, map[emergencyv1.Deviation]int{}
	var order []string
	for _, st := range list {
		for _, o := range procedure.Debts(st) {
			c := kinds[o.Kind]
			if c == nil {
				c = &debtCount{What: v.debt(o.Kind)}
				kinds[o.Kind], order = c, append(order, o.Kind)
			}
			switch {
			case o.Overdue(v.now):
				c.Overdue++
			case o.Open():
				c.Open++
			case o.LateBy(v.now) > 0:
				c.Later++
			default:
				c.Met++
			}
		}
		for _, x := range st.Deviations {
			deviations[x.Deviation]++
		}
	}
	slices.Sort(order)
	for _, k := range order {
		d.Debts = append(d.Debts, *kinds[k])
	}
	for n := range emergencyv1.Deviation_name {
		if c := deviations[emergencyv1.Deviation(n)]; c > 0 {
			d.Deviations = append(d.Deviations, counted{v.enum(emergencyv1.Deviation(n)), c})
		}
	}
	slices.SortFunc(d.Deviations, func(a, b counted) int {
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return map[bool]int{true: -1, false: 1}[a.What < b.What]
	})
}

// points is how many moments the chart of obligations has.
const points = 48

// owedOver is how many obligations were open, and how many of them overdue, from the first declaration until now.
func (v *viewer) owedOver(d *boardView, list []*procedure.State) {
	var debts []procedure.Obligation
	first := v.now
	for _, st := range list {
		debts = append(debts, procedure.Debts(st)...)
		if st.Declared.At.Before(first) {
			first = st.Declared.At
		}
	}
	a := area{Width: 640, Height: 160, Floor: 140, From: v.when(first), To: v.when(v.now)}
	if span := v.now.Sub(first); len(debts) > 0 && span > 0 {
		open, late := make([]int, points+1), make([]int, points+1)
		for i := range open {
			at := first.Add(span * time.Duration(i) / points)
			for _, o := range debts {
				if o.CausedAt.After(at) || !o.Open() && !o.ByAt.After(at) {
					continue
				}
				open[i]++
				if at.After(o.Due) {
					late[i]++
				}
			}
			a.Max = max(a.Max, open[i])
		}
		a.draw(open, late)
		for _, i := range []int{0, points / 4, points / 2, points * 3 / 4, points} {
			at := first.Add(span * time.Duration(i) / points)
			a.Rows = append(a.Rows, counted{at.UTC().Format("2006-01-02 15:04 UTC"), open[i]})
		}
	}
	d.Owed = a
}

// draw writes the two lines as paths from the left to the right.
func (a *area) draw(open, late []int) {
	path := func(values []int) string {
		s := fmt.Sprintf("M0 %d", a.Floor)
		for i, n := range values {
			s += fmt.Sprintf("L%d %d", i*a.Width/points, a.Floor-n*(a.Floor-20)/max(a.Max, 1))
		}
		return s + fmt.Sprintf("L%d %dZ", a.Width, a.Floor)
	}
	a.HasPoints, a.Path = true, path(open)
	if slices.Max(late) > 0 {
		a.HasLate, a.Late = true, path(late)
	}
}
