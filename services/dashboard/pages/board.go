// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// boardView is what the Board asks for (SP 3.2.3.1, 4.1.3): how often, by which strategy, how fast, and what is owed. Its figures
// are those of the same fold that `epatch board-summary` reads (pkg/dossier). Drills are counted apart and are in no other figure.
type boardView struct {
	From, Until string // days; until is exclusive
	Shows       string
	Quick       []periodLink
	Unfinished  bool
	Judged      *when
	Table       string
	Count       int
	Carried     int // declared before, with something in the period or still owed
	Drills      int
	InTime      int
	Over        int // whose 24 hours are over or met
	Median      string
	Slowest     string
	Unreported  int
	Waiting     int // disputes without an arbitrator
	Opened      int
	Met         int
	Overdue     int
	Disputes    int
	Rulings     int
	Mix         bars
	Steps       bars
	Owed        area
	Debts       []debtCount
	Deviations  []counted
	Uses        []use
}

// periodLink leads to a period that is often wanted.
type periodLink struct {
	Text, Href string
	Here       bool
}

// use is one emergency of the period.
type use struct {
	Incident, System, Strategies string
	Declared                     *when
	Before                       bool
	Opened, Met, Open, Overdue   int
	Deviations                   int
}

// bars is a chart of horizontal bars, which reads as a table too.
type bars struct{ Rows []bar }

// bar has a second, paler length for the longest of what its value is the middle of; both in parts of barWidth.
type bar struct {
	Label, Value, Most string
	Count              int
	Width, Reach       int
}

// area is a chart of a number over time, in steps: an obligation is there or it is not.
type area struct {
	Open, Late           string // paths
	Max, Last, LastLate  int
	PeakLate             int
	From, To             *when
	Rows                 []owedRow
	HasPoints, HasLate   bool
	Width, Height, Floor int
	Lines                []int // heights of the grid
}

// owedRow is a row of the table beside the chart.
type owedRow struct {
	At            string
	Open, Overdue int
}

// counted is a word and how often.
type counted struct {
	What  string
	Count int
}

// debtCount is a kind of obligation and what became of those.
type debtCount struct {
	What                        string
	Open, Overdue, Met, MetLate int
}

// barWidth is the length of the longest bar.
const barWidth = 340

func (p *Pages) board(v *viewer, r *http.Request) (*content, error) {
	from, until := v.period24(r)
	inputs := p.inputs()
	sum, err := dossier.Board(from, until, v.now, inputs)
	if err != nil {
		return nil, badPeriod(err)
	}
	owing, err := dossier.OwedOver(from, until, v.now, owedSteps, inputs)
	if err != nil {
		return nil, badPeriod(err)
	}
	real := sum.Real
	d := &boardView{
		From: from.Format(time.DateOnly), Until: until.Format(time.DateOnly), Shows: from.Format(time.DateOnly) + " – " + until.AddDate(0, 0, -1).Format(time.DateOnly),
		Quick: v.periods(from, until), Unfinished: !sum.Finished, Judged: v.when(sum.JudgedAt), Table: "/board.csv?" + periodQuery(from, until), Count: real.Declared, Drills: sum.Drills.Declared,
		Carried: len(real.Incidents) - real.Declared, Opened: real.Opened, Met: real.Met, Overdue: real.Overdue, Disputes: real.Disputes, Rulings: real.Rulings,
	}
	var declared []*procedure.State
	for _, u := range real.Incidents {
		d.Uses = append(d.Uses, v.use(u))
		if u.New {
			p.cfg.Incidents.View(u.Incident, func(st *procedure.State) { declared = append(declared, st.Clone()) })
		}
	}
	v.speed(d, declared, sum.JudgedAt)
	for i, n := range real.By {
		d.Mix.add(bar{Label: v.say("strategy", i+1), Value: strconv.Itoa(n), Width: n})
	}
	d.Mix.scale()
	v.stepTimes(d, real.Incidents)
	d.Owed = v.owed(owing.Moments)
	for _, k := range owing.Kinds {
		d.Debts = append(d.Debts, debtCount{v.debt(k.Kind), k.Open, k.Overdue, k.Met, k.MetLate})
	}
	v.deviations(d, declared)
	return &content{Title: "board.title", Section: "board", Template: "board", Data: d, Still: true}, nil
}

// inputs are the histories of all incidents, as the dossier reads them.
func (p *Pages) inputs() []dossier.Input {
	var ids []string
	p.cfg.Incidents.Each(func(st *procedure.State) { ids = append(ids, st.Incident) })
	var list []dossier.Input
	for _, id := range ids {
		records, _ := p.cfg.Records.From(id, 1)
		in := dossier.Input{Entries: make([]history.Entry, len(records))}
		for i, rec := range records {
			in.Entries[i] = rec.Entry
		}
		list = append(list, in)
	}
	return list
}

func badPeriod(err error) error {
	return &procedure.Refusal{
		Code: procedure.InvalidArgument, Reason: procedure.ReasonField, Rule: "G2", Message: err.Error(), Allow: []procedure.Allowance{{Description: "choose a period that ends after it begins"}},
	}
}

// period24 is the period that is asked for, in whole days of UTC; this year where none is.
func (v *viewer) period24(r *http.Request) (from, until time.Time) {
	year := v.now.UTC().Year()
	from, until = firstOf(year, 1), firstOf(year+1, 1)
	if t, err := time.Parse(time.DateOnly, r.URL.Query().Get("from")); err == nil {
		from = t
	}
	if t, err := time.Parse(time.DateOnly, r.URL.Query().Get("until")); err == nil {
		until = t
	}
	return from, until
}

func firstOf(year int, month time.Month) time.Time {
	return time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
}

func periodQuery(from, until time.Time) string {
	return url.Values{"from": {from.Format(time.DateOnly)}, "until": {until.Format(time.DateOnly)}}.Encode()
}

// periods are those that are often wanted.
func (v *viewer) periods(from, until time.Time) []periodLink {
	year, month := v.now.UTC().Year(), v.now.UTC().Month()
	quarter := (month-1)/3*3 + 1
	var list []periodLink
	for _, q := range []struct {
		text        string
		from, until time.Time
	}{
		{v.say("board.lastmonth"), firstOf(year, month-1), firstOf(year, month)}, {v.say("board.thismonth"), firstOf(year, month), firstOf(year, month+1)},
		{v.say("board.thisquarter"), firstOf(year, quarter), firstOf(year, quarter+3)}, {v.say("board.thisyear"), firstOf(year, 1), firstOf(year+1, 1)},
		{v.say("board.lastyear"), firstOf(year-1, 1), firstOf(year, 1)},
	} {
		list = append(list, periodLink{q.text, "/board?" + periodQuery(q.from, q.until), q.from.Equal(from) && q.until.Equal(until)})
	}
	return list
}

func (v *viewer) use(u dossier.Use) use {
	words := make([]string, len(u.Strategies))
	for i, s := range u.Strategies {
		words[i] = strconv.Itoa(int(s))
	}
	x := use{
		Incident: u.Incident, System: u.System, Strategies: strings.Join(words, ", "), Declared: v.when(u.Declared), Before: !u.New, Opened: u.Opened, Met: u.Met, Open: u.Open, Overdue: u.Overdue,
	}
	for _, d := range u.Deviations {
		x.Deviations += d.N
	}
	return x
}

// speed is how long emergencies took, and how many kept the 24 hours.
func (v *viewer) speed(d *boardView, list []*procedure.State, judged time.Time) {
	var took []time.Duration
	for _, st := range list {
		if st.Status == procedure.Merged {
			continue
		}
		due, met := overall(st)
		at := procedure.OverallMetAt(st)
		met = met && !at.After(judged)
		if met {
			took = append(took, at.Sub(st.Declared.At))
		}
		if met || judged.After(due) {
			d.Over++
			if met && !at.After(due) {
				d.InTime++
			}
		}
		if len(st.BoardReports) == 0 {
			d.Unreported++
		}
		for _, x := range st.Disputes {
			if x.State(judged) == procedure.DisputeAwaiting || x.State(judged) == procedure.DisputeClosedDeclined {
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

// add puts a bar with its raw length; scale makes the longest one barWidth long.
func (b *bars) add(x bar) { b.Rows = append(b.Rows, x) }

func (b *bars) scale() {
	longest := 1
	for _, r := range b.Rows {
		longest = max(longest, r.Width, r.Reach)
	}
	for i := range b.Rows {
		for _, n := range []*int{&b.Rows[i].Width, &b.Rows[i].Reach} {
			if *n > 0 {
				*n = max(2, *n*barWidth/longest)
			}
		}
	}
}

// stepTimes is how long after the declaration each step was first done: in the middle case, and at most.
func (v *viewer) stepTimes(d *boardView, list []dossier.Use) {
	type key struct{ number, what string }
	after := map[key][]time.Duration{}
	var order []key
	for _, u := range list {
		for _, s := range u.Steps {
			k := key{s.Number, s.What}
			if !slices.Contains(order, k) {
				order = append(order, k)
			}
			after[k] = append(after[k], s.After)
		}
	}
	slices.SortStableFunc(order, func(a, b key) int { return strings.Compare(a.number, b.number) })
	for _, k := range order {
		times := after[k]
		slices.Sort(times)
		m, most := median(times), times[len(times)-1]
		d.Steps.add(bar{Label: k.number + " " + v.say("step."+k.what), Value: v.took(m), Most: v.took(most), Count: len(times), Width: int(m / time.Second), Reach: int(most / time.Second)})
	}
	d.Steps.scale()
}

// deviations counts the controls that were not kept, in the words of the pages.
func (v *viewer) deviations(d *boardView, list []*procedure.State) {
	count := map[emergencyv1.Deviation]int{}
	for _, st := range list {
		for _, x := range st.Deviations {
			count[x.Deviation]++
		}
	}
	for kind, n := range count {
		d.Deviations = append(d.Deviations, counted{v.enum(kind), n})
	}
	slices.SortFunc(d.Deviations, func(a, b counted) int {
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return strings.Compare(a.What, b.What)
	})
}

// owedSteps is in how many steps the chart of obligations goes, and tableRows how many of them its table has.
const (
	owedSteps = 96
	tableRows = 12
)

// owed draws how many obligations were open over the time, and how many of them overdue.
func (v *viewer) owed(list []dossier.Moment) area {
	a := area{Width: 640, Height: 160, Floor: 158, From: v.when(list[0].At), To: v.when(list[len(list)-1].At)}
	for i, m := range list {
		a.Max, a.PeakLate = max(a.Max, m.Open), max(a.PeakLate, m.Overdue)
		if i%(owedSteps/tableRows) == 0 {
			a.Rows = append(a.Rows, owedRow{m.At.Format("2006-01-02 15:04 UTC"), m.Open, m.Overdue})
		}
	}
	last := list[len(list)-1]
	a.Last, a.LastLate, a.HasPoints, a.HasLate = last.Open, last.Overdue, a.Max > 0, a.PeakLate > 0
	a.Open = a.path(list, func(m dossier.Moment) int { return m.Open })
	a.Late = a.path(list, func(m dossier.Moment) int { return m.Overdue })
	for n := 1; n <= 4; n++ {
		a.Lines = append(a.Lines, a.Floor-n*(a.Floor-8)/4)
	}
	return a
}

// path goes along a number from the left to the right, and back along the floor.
func (a *area) path(list []dossier.Moment, of func(dossier.Moment) int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "M0 %d", a.Floor)
	for i, m := range list {
		fmt.Fprintf(&b, "V%dH%d", a.Floor-of(m)*(a.Floor-8)/max(a.Max, 1), min(i+1, len(list)-1)*a.Width/max(len(list)-1, 1))
	}
	fmt.Fprintf(&b, "V%dZ", a.Floor)
	return b.String()
}

// boardTable is the summary as a table for a program, as `epatch board-summary --csv` writes it.
func (p *Pages) boardTable(w http.ResponseWriter, r *http.Request) {
	v, ok := p.signedIn(w, r)
	if !ok {
		return
	}
	from, until := v.period24(r)
	sum, err := dossier.Board(from, until, v.now, p.inputs())
	if err != nil {
		p.fail(w, r, v, badPeriod(err))
		return
	}
	table, err := sum.CSV()
	if err != nil {
		p.fail(w, r, v, err)
		return
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="board-`+from.Format(time.DateOnly)+`.csv"`)
	_, _ = w.Write([]byte(table))
}
