// SPDX-License-Identifier: Apache-2.0

package dossier

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Summary is what happened in a period, for the Board (SP 3.2.3.1, 4.1.3). It is judged for the period's end, so it says the
// same whenever it is made after that.
type Summary struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
	// JudgedAt is the time for which is judged what is owed or late: the period's end, or the time of asking if that is earlier.
	JudgedAt time.Time `json:"judged_at"`
	// Finished tells whether the period was over when it was asked for.
	Finished bool `json:"finished"`
	Real     Uses `json:"emergencies"`
	Drills   Uses `json:"drills"`
}

// Uses are the incidents of one kind, and their sums.
type Uses struct {
	Incidents []Use `json:"incidents"`
	// Declared counts those declared in the period; By counts, of those, in how many each strategy was in force.
	Declared int    `json:"declared"`
	By       [3]int `json:"by_strategy"`
	// Deviations in the period, by kind, in the order of the kinds.
	Deviations []Count `json:"deviations"`
	Opened     int     `json:"obligations_opened"`
	Met        int     `json:"obligations_met"`
	Overdue    int     `json:"obligations_overdue"`
	Disputes   int     `json:"disputes_filed"`
	Rulings    int     `json:"rulings"`
}

// Count is how often something was.
type Count struct {
	What string `json:"what"`
	N    int    `json:"n"`
}

// Use is one incident in the period.
type Use struct {
	Incident string    `json:"incident"`
	System   string    `json:"system"`
	Severity string    `json:"severity"`
	Reason   string    `json:"reason"`
	Declared time.Time `json:"declared"`
	// New: declared in the period. Others are here for what happened in it, or is still owed.
	New        bool       `json:"declared_in_period"`
	Status     string     `json:"status"`
	Outcome    string     `json:"outcome"`
	Strategies []uint32   `json:"strategies"`
	Steps      []StepTime `json:"steps"`
	Deviations []Count    `json:"deviations"`
	Opened     int        `json:"obligations_opened"`
	Met        int        `json:"obligations_met"`
	MetLate    int        `json:"obligations_met_late"`
	Open       int        `json:"obligations_open"`
	Overdue    int        `json:"obligations_overdue"`
	Disputes   []string   `json:"disputes_filed"`
	Rulings    []string   `json:"rulings"`
}

// StepTime is how long after the declaration a step was first done.
type StepTime struct {
	Number string        `json:"number"`
	What   string        `json:"what"`
	After  time.Duration `json:"after_ns"`
}

// Board summarises a period, until being exclusive. Each input is one incident's whole history; Position and Asked are not
// used. What was recorded after the period, or after asked, does not count.
func Board(from, until, asked time.Time, incidents []Input) (*Summary, error) {
	s, err := period(from, until, asked)
	if err != nil {
		return nil, err
	}
	for _, in := range incidents {
		f, err := s.read(in)
		if err != nil {
			return nil, err
		}
		if f == nil {
			continue
		}
		uses := &s.Real
		if f.state.Declared.Drill {
			uses = &s.Drills
		}
		uses.Incidents = append(uses.Incidents, s.use(f))
	}
	for _, uses := range []*Uses{&s.Real, &s.Drills} {
		slices.SortFunc(uses.Incidents, func(a, b Use) int {
			if n := a.Declared.Compare(b.Declared); n != 0 {
				return n
			}
			return strings.Compare(a.Incident, b.Incident)
		})
		uses.sum()
	}
	return s, nil
}

// period is an empty summary with its times.
func period(from, until, asked time.Time) (*Summary, error) {
	if !from.Before(until) {
		return nil, fmt.Errorf("the period from %s until %s is empty", stamp(from), stamp(until))
	}
	s := &Summary{From: from.UTC(), Until: until.UTC(), Finished: !until.After(asked), JudgedAt: until.UTC()}
	if !s.Finished {
		s.JudgedAt = asked.UTC()
	}
	return s, nil
}

// read folds what was recorded before the summary's time; nil if the incident has no part in the period.
func (s *Summary) read(in Input) (*fold, error) {
	part := Input{Book: in.Book, Asked: s.JudgedAt}
	for _, e := range in.Entries {
		if at := e.Record.GetRecordedAt().AsTime(); at.Before(s.Until) && !at.After(s.JudgedAt) {
			part.Entries = append(part.Entries, e)
		}
	}
	if len(part.Entries) == 0 {
		return nil, nil
	}
	f, err := read(part)
	if err != nil {
		return nil, err
	}
	active := slices.ContainsFunc(f.events, func(e event) bool { return s.within(e.at) })
	owed := slices.ContainsFunc(Obligations(f.state, s.JudgedAt), func(o Owed) bool { return o.By == 0 })
	if !active && !owed {
		return nil, nil
	}
	return f, nil
}

func (s *Summary) within(at time.Time) bool { return !at.Before(s.From) && at.Before(s.Until) }

func (s *Summary) use(f *fold) Use {
	st := f.state
	u := Use{
		Incident: f.incident, System: st.Declared.System, Severity: word(st.Declared.Severity, "SEVERITY_"), Reason: word(st.Declared.ReasonClass, "REASON_CLASS_"),
		Declared: f.t0.UTC(), New: s.within(f.t0), Status: strings.ToLower(strings.ReplaceAll(string(st.Status), "_", " ")),
		Steps: []StepTime{}, Disputes: []string{}, Rulings: []string{}, Strategies: []uint32{},
	}
	if st.Outcome != emergencyv1.Outcome_OUTCOME_UNSPECIFIED {
		u.Outcome = word(st.Outcome, "OUTCOME_")
	}
	for _, n := range []uint32{1, 2, 3} {
		if f.used(n) {
			u.Strategies = append(u.Strategies, n)
		}
	}
	for _, x := range f.steps() {
		if x.FirstAt != nil && s.within(*x.FirstAt) && x.What != "declared" {
			u.Steps = append(u.Steps, StepTime{x.Number, x.What, x.FirstAt.Sub(f.t0)})
		}
	}
	s.happened(f, &u)
	for _, o := range Obligations(st, s.JudgedAt) {
		if s.within(o.Since) {
			u.Opened++
		}
		switch {
		case o.By == 0:
			u.Open++
			if o.State == Overdue {
				u.Overdue++
			}
		case s.within(o.ByAt):
			u.Met++
			if o.LateBy > 0 {
				u.MetLate++
			}
		}
	}
	return u
}

// happened adds what was recorded in the period.
func (s *Summary) happened(f *fold, u *Use) {
	var kinds []emergencyv1.Deviation
	for _, e := range f.events {
		if !s.within(e.at) {
			continue
		}
		kinds = append(kinds, e.deviations...)
		switch p := e.payload.(type) {
		case *emergencyv1.DisputeFiled:
			u.Disputes = append(u.Disputes, fmt.Sprintf("%s, %s", p.GetDispute(), ConcernWords(p.GetConcern())))
		case *emergencyv1.ReviewRequested:
			u.Disputes = append(u.Disputes, fmt.Sprintf("%s, review of ruling %s", p.GetDispute(), p.GetRuling()))
		case *emergencyv1.RulingDelivered:
			u.Rulings = append(u.Rulings, fmt.Sprintf("%s in %s%s", p.GetRuling(), p.GetDispute(), either(p.GetSealed(), ", sealed", "")))
		case *emergencyv1.ReviewRuled:
			u.Rulings = append(u.Rulings, fmt.Sprintf("in %s: %s", p.GetDispute(), either(p.GetReopened(), "re-opened", "not re-opened")))
		}
	}
	slices.Sort(kinds)
	u.Deviations = []Count{}
	for _, k := range kinds {
		u.Deviations = counted(u.Deviations, word(k, "DEVIATION_"), 1)
	}
}

// counted adds to a list of counts.
func counted(list []Count, what string, n int) []Count {
	for i := range list {
		if list[i].What == what {
			list[i].N += n
			return list
		}
	}
	return append(list, Count{what, n})
}

func (u *Uses) sum() {
	u.Deviations = []Count{}
	if u.Incidents == nil {
		u.Incidents = []Use{}
	}
	for _, x := range u.Incidents {
		if x.New {
			u.Declared++
			for _, n := range x.Strategies {
				u.By[n-1]++
			}
		}
		for _, d := range x.Deviations {
			u.Deviations = counted(u.Deviations, d.What, d.N)
		}
		u.Opened, u.Met, u.Overdue = u.Opened+x.Opened, u.Met+x.Met, u.Overdue+x.Overdue
		u.Disputes, u.Rulings = u.Disputes+len(x.Disputes), u.Rulings+len(x.Rulings)
	}
	slices.SortFunc(u.Deviations, func(a, b Count) int { return strings.Compare(a.What, b.What) })
}

// Markdown is the summary as text, at 80 columns.
func (s *Summary) Markdown() string {
	p := &page{}
	p.line("# Emergency procedure: summary for the Board\n")
	p.para("", fmt.Sprintf("%s until %s, judged for %s.%s", stamp(s.From), stamp(s.Until), stamp(s.JudgedAt), either(s.Finished, "", " The period is not over: the figures will change.")))
	p.para("", "It counts what the histories say. It judges nothing.")
	p.title("Emergencies")
	s.Real.write(p)
	p.title("Drills")
	s.Drills.write(p)
	return p.b.String()
}

func (u Uses) write(p *page) {
	if len(u.Incidents) == 0 {
		p.line("- none")
		return
	}
	p.para("- ", fmt.Sprintf("Declared: %d; strategy 1 in %d, strategy 2 in %d, strategy 3 in %d of them.", u.Declared, u.By[0], u.By[1], u.By[2]))
	p.para("- ", "Deviations: "+counts(u.Deviations)+".")
	p.para("- ", fmt.Sprintf("Obligations: %d opened, %d met, %d overdue at the end.", u.Opened, u.Met, u.Overdue))
	p.para("- ", fmt.Sprintf("Disputes filed: %d; rulings: %d.", u.Disputes, u.Rulings))
	for _, x := range u.Incidents {
		p.line("\n### %s\n", plain(x.Incident))
		p.para("- ", plain(fmt.Sprintf("%s, severity %s, %s; declared %s%s; %s%s; strategies %s", x.System, x.Severity, x.Reason, stamp(x.Declared),
			either(x.New, "", ", before the period"), x.Status, either(x.Outcome != "", ", "+x.Outcome, ""), strategyList(x.Strategies))))
		if len(x.Steps) > 0 {
			p.para("- ", plain("Steps in the period, hours after the declaration: "+stepList(x.Steps)))
		}
		p.para("- ", plain("Deviations: "+counts(x.Deviations)))
		p.para("- ", fmt.Sprintf("Obligations: %d opened, %d met (%d late), %d open, %d of them overdue", x.Opened, x.Met, x.MetLate, x.Open, x.Overdue))
		if len(x.Disputes)+len(x.Rulings) > 0 {
			p.para("- ", plain(fmt.Sprintf("Disputes: %s; rulings: %s", noneOr(x.Disputes), noneOr(x.Rulings))))
		}
	}
}

func counts(list []Count) string {
	words := make([]string, len(list))
	for i, c := range list {
		words[i] = fmt.Sprintf("%s %d", c.What, c.N)
	}
	return noneOr(words)
}

func noneOr(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, "; ")
}

func strategyList(list []uint32) string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = fmt.Sprint(n)
	}
	return strings.Join(words, ", ")
}

func stepList(list []StepTime) string {
	words := make([]string, len(list))
	for i, s := range list {
		words[i] = fmt.Sprintf("%s %s %s", s.Number, s.What, hours(s.After))
	}
	return strings.Join(words, "; ")
}

// hours is a time as h:mm, without a sign: a table program takes one for a formula.
func hours(d time.Duration) string {
	return fmt.Sprintf("%d:%02d", int(d.Hours()), int(d.Minutes())%60)
}

// CSV is the summary as a table, one line an incident, emergencies before drills. No cell can act as a formula in the program
// that opens it.
func (s *Summary) CSV() (string, error) {
	var b strings.Builder
	w := csv.NewWriter(&b)
	rows := [][]string{{
		"kind", "incident", "system", "severity", "reason", "declared", "declared in period", "status", "outcome", "strategies", "steps after declaration (h:mm)", "deviations",
		"obligations opened", "obligations met", "met late", "open", "overdue", "disputes filed", "rulings",
	}}
	for _, x := range []struct {
		kind string
		uses Uses
	}{{"emergency", s.Real}, {"drill", s.Drills}} {
		for _, u := range x.uses.Incidents {
			rows = append(rows, []string{
				x.kind, u.Incident, u.System, u.Severity, u.Reason, u.Declared.Format(time.RFC3339), either(u.New, "yes", "no"), u.Status, u.Outcome, strategyList(u.Strategies),
				stepList(u.Steps), counts(u.Deviations), fmt.Sprint(u.Opened), fmt.Sprint(u.Met), fmt.Sprint(u.MetLate), fmt.Sprint(u.Open), fmt.Sprint(u.Overdue), strings.Join(u.Disputes, "; "), strings.Join(u.Rulings, "; "),
			})
		}
	}
	for _, r := range rows {
		for i := range r {
			r[i] = Cell(r[i])
		}
		if err := w.Write(r); err != nil {
			return "", fmt.Errorf("write table: %w", err)
		}
	}
	w.Flush()
	return b.String(), w.Error()
}

// Cell makes a text safe to be a cell: a program that opens the table would run one that begins with a formula's sign.
// Control characters go, since some programs look behind them.
func Cell(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(s, " \u00a0"))
	if strings.ContainsRune("=+-@|%＝＋－＠", first) { // the last four are the wide forms, which some programs take for the others
		return "'" + s
	}
	return s
}
