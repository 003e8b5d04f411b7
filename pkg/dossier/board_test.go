// SPDX-License-Identifier: Apache-2.0

package dossier_test

import (
	"encoding/csv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"cacert.org/emergency/pkg/dossier"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
)

// november is the month in which the fixture's emergencies are declared.
func november() (from, until time.Time) {
	return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
}

func TestBoard(t *testing.T) {
	t.Parallel()
	from, until := november()
	drill := pt.NewIncident(t, "x20261124.1")
	pt.Drill()(drill)
	quiet := pt.NewIncident(t, "e20261124.3")
	quiet.Wait(until.Sub(quiet.Now) + time.Hour) // declared after the period
	pt.From("", pt.Declared)(quiet)
	list := []dossier.Input{{Entries: entries(drill)}, {Entries: entries(deviating(t))}, {Entries: entries(quiet)}}
	s, err := dossier.Board(from, until, until, list)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Finished || s.Real.Declared != 1 || s.Drills.Declared != 1 || len(s.Real.Incidents) != 1 || s.Real.By != [3]int{1, 0, 0} {
		t.Fatalf("%+v", s)
	}
	u := s.Real.Incidents[0]
	if u.Incident != "e20261124.1" || !u.New || u.Opened == 0 || u.Met == 0 || u.Overdue == 0 || len(u.Deviations) != 1 || u.Deviations[0] != (dossier.Count{What: "test quorum waived", N: 1}) {
		t.Errorf("%+v", u)
	}
	found := false
	for _, x := range u.Steps {
		found = found || x.What == "deploy verified" && x.After > 20*time.Minute && x.After < time.Hour
	}
	if !found {
		t.Errorf("time per step: %+v", u.Steps)
	}
	// In December nothing was recorded; the emergency is there for what is owed.
	next, err := dossier.Board(until, until.AddDate(0, 1, 0), until.AddDate(0, 1, 0), list)
	if err != nil {
		t.Fatal(err)
	}
	if len(next.Real.Incidents) != 2 || next.Real.Declared != 1 || next.Real.Incidents[0].New || next.Real.Incidents[0].Opened != 0 || next.Real.Incidents[0].Overdue == 0 {
		t.Errorf("December: %+v", next.Real)
	}
	text := s.Markdown()
	for _, want := range []string{"## Emergencies", "strategy 1 in 1", "test quorum waived 1", "### e20261124.1", "## Drills", "### x20261124.1"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if long := tooLong(text); long != "" {
		t.Errorf("longer than 80 columns: %q", long)
	}
	raw, err := s.CSV()
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(raw)).ReadAll()
	if err != nil || len(rows) != 3 || rows[1][0] != "emergency" || rows[2][0] != "drill" {
		t.Errorf("%v: %v", err, rows)
	}
	if _, err := dossier.Board(until, from, until, list); err == nil {
		t.Error("a period that ends before it begins")
	}
}

// What is said of obligations over the time ends where the summary stands, and begins with nothing before the declaration.
func TestOwedOver(t *testing.T) {
	t.Parallel()
	from, until := november()
	drill := pt.NewIncident(t, "x20261124.1")
	pt.Drill()(drill)
	list := []dossier.Input{{Entries: entries(drill)}, {Entries: entries(deviating(t))}}
	for _, asked := range []time.Time{until, pt.T0().Add(5 * time.Minute), pt.T0().Add(30 * time.Hour)} {
		s, err := dossier.Board(from, until, asked, list)
		if err != nil {
			t.Fatal(err)
		}
		o, err := dossier.OwedOver(from, until, asked, 40, list)
		if err != nil {
			t.Fatal(err)
		}
		var open, overdue, met, late int
		for _, x := range s.Real.Incidents {
			open, overdue, met, late = open+x.Open, overdue+x.Overdue, met+x.Met, late+x.MetLate
		}
		first, last := o.Moments[0], o.Moments[40]
		if len(o.Moments) != 41 || first.Open != 0 || !last.At.Equal(s.JudgedAt) || last.Open != open || last.Overdue != overdue {
			t.Errorf("asked at %s: from %+v to %+v, the summary has %d open and %d overdue", asked, first, last, open, overdue)
		}
		for _, k := range o.Kinds {
			open, overdue, met, late = open-k.Open, overdue-k.Overdue, met-k.Met, late-k.MetLate
		}
		if open != 0 || overdue != 0 || met != 0 || late != 0 || len(o.Kinds) == 0 {
			t.Errorf("asked at %s: kinds and summary differ by %d open, %d overdue, %d met, %d late: %+v", asked, open, overdue, met, late, o.Kinds)
		}
	}
	if _, err := dossier.OwedOver(until, from, until, 1, list); err == nil {
		t.Error("a period that ends before it begins")
	}
}

// An unfinished period says so, and counts only what there was when it was asked for.
func TestUnfinishedPeriod(t *testing.T) {
	t.Parallel()
	from, until := november()
	list := []dossier.Input{{Entries: entries(deviating(t))}}
	s, err := dossier.Board(from, until, pt.T0().Add(5*time.Minute), list)
	if err != nil {
		t.Fatal(err)
	}
	if s.Finished || len(s.Real.Incidents[0].Deviations) != 0 || !strings.Contains(s.Markdown(), "not over") {
		t.Errorf("%+v\n%s", s.Real, s.Markdown())
	}
}

// A summary of a finished period does not depend on what came later.
func TestBoardOfRandomHistories(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := pt.Random(rt, 6, nil)
		if len(w.Records) == 0 {
			return
		}
		all := entries(w)
		end := all[rapid.IntRange(0, len(all)-1).Draw(rt, "end")].Record.GetRecordedAt().AsTime().Add(time.Second)
		before := all[:0:0]
		for _, e := range all {
			if e.Record.GetRecordedAt().AsTime().Before(end) {
				before = append(before, e)
			}
		}
		from := pt.T0().Add(-time.Hour)
		one, err := dossier.Board(from, end, end, []dossier.Input{{Entries: before}})
		if err != nil {
			rt.Fatal(err)
		}
		two, err := dossier.Board(from, end, end.AddDate(1, 0, 0), []dossier.Input{{Entries: all}})
		if err != nil {
			rt.Fatal(err)
		}
		if one.Markdown() != two.Markdown() {
			rt.Fatalf("a year later:\n%s\nbefore:\n%s", two.Markdown(), one.Markdown())
		}
	})
}

func TestCell(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"=1+1": "'=1+1", "+1:05": "'+1:05", "-2": "'-2", "@SUM(A1)": "'@SUM(A1)", "\t=1": "' =1", " =cmd|' /C calc'!A0": "' =cmd|' /C calc'!A0", "＝1": "'＝1", "%x": "'%x",
		"webdb": "webdb", "1:05": "1:05", "": "", "a=b": "a=b", "two\nlines": "two lines",
	} {
		if got := dossier.Cell(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}
