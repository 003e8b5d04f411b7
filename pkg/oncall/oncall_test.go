// SPDX-License-Identifier: Apache-2.0

package oncall_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // hand-overs by the clock of a place, also where the machine has no zones
	"unicode/utf8"

	"github.com/emersion/go-ical"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"cacert.org/emergency/pkg/oncall"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const critical = emergencyv1.Team_TEAM_CRITICAL

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func vienna(t testing.TB) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Vienna")
	check(t, err)
	return zone
}

// book has a rota for the critical team, set at a time.
func book(t testing.TB, at time.Time, shifts []*emergencyv1.Shift) *rulebook.Book {
	t.Helper()
	b, err := (&rulebook.Book{}).With(1, at, &emergencyv1.RotaChanged{Team: critical, Shifts: shifts})
	check(t, err)
	return b
}

func weekly(t testing.TB) (oncall.Rotation, []*emergencyv1.Shift) {
	t.Helper()
	from := time.Date(2026, 10, 12, 9, 0, 0, 0, vienna(t))
	r := oncall.Rotation{Team: critical, Persons: []string{"carla", "carl", "clara"}, From: from, Until: from.AddDate(0, 0, 42), Days: 7, Called: 2}
	shifts, err := r.Shifts()
	check(t, err)
	return r, shifts
}

// Hands are changed at nine by the wall clock, before and after the clocks are changed; everybody has a turn.
func TestRotation(t *testing.T) {
	t.Parallel()
	r, shifts := weekly(t)
	b := book(t, r.From, shifts)
	for week, want := range []string{"carla carl", "carl clara", "clara carla", "carla carl", "carl clara", "clara carla"} {
		at := r.From.AddDate(0, 0, 7*week)
		if at.Hour() != 9 || strings.Join(b.OnDuty(critical, at), " ") != want || strings.Join(b.OnDuty(critical, at.AddDate(0, 0, 7).Add(-time.Second)), " ") != want {
			t.Errorf("week %d from %s: %v, want %s", week, at, b.OnDuty(critical, at), want)
		}
	}
	if b.OnDuty(critical, r.From.Add(-time.Second)) != nil || b.OnDuty(critical, r.Until) != nil {
		t.Error("on duty outside of the plan")
	}
	for name, change := range map[string]func(*oncall.Rotation){
		"nobody": func(r *oncall.Rotation) { r.Persons = nil }, "no time": func(r *oncall.Rotation) { r.Until = r.From }, "no days": func(r *oncall.Rotation) { r.Days = 0 },
		"more than there are": func(r *oncall.Rotation) { r.Called = 4 }, "none at a time": func(r *oncall.Rotation) { r.Called = 0 }, "twice": func(r *oncall.Rotation) { r.Persons[1] = "carla" },
		"for ever": func(r *oncall.Rotation) { r.Until = r.From.AddDate(20, 0, 0) },
	} {
		bad := r
		bad.Persons = slices.Clone(r.Persons)
		change(&bad)
		if list, err := bad.Shifts(); err == nil {
			t.Errorf("%s: %d shifts", name, len(list))
		}
	}
}

// Who stands in wins while it lasts, before and after it the rotation is as it was, and taking it back leaves no trace.
func TestStandIn(t *testing.T) {
	t.Parallel()
	r, shifts := weekly(t)
	from := r.From.Add(50 * time.Hour)
	until := from.AddDate(0, 0, 10)
	over := oncall.StandIn(shifts, critical, []string{"theo"}, from, until)
	b := book(t, r.From, over)
	for at, want := range map[time.Time]string{from.Add(-time.Second): "carla carl", from: "theo", until.Add(-time.Second): "theo", until: "carl clara"} {
		if got := strings.Join(b.OnDuty(critical, at), " "); got != want {
			t.Errorf("at %s: %s, want %s", at, got, want)
		}
	}
	duties := b.Duties(critical, r.From, r.Until)
	if n := len(slices.DeleteFunc(slices.Clone(duties), func(d rulebook.Duty) bool { return !d.Override })); n != 1 {
		t.Errorf("%d spans stand in: %+v", n, duties)
	}
	// A new plan over all of it leaves who stands in.
	again := oncall.Lay(over, shifts, r.From, r.Until)
	if got := book(t, r.From, again).OnDuty(critical, from); !slices.Equal(got, []string{"theo"}) {
		t.Errorf("after a new plan: %v", got)
	}
	back := oncall.StandIn(over, critical, nil, from, until)
	if got, want := fmt.Sprint(book(t, r.From, back).Duties(critical, r.From, r.Until)), fmt.Sprint(book(t, r.From, shifts).Duties(critical, r.From, r.Until)); got != want {
		t.Errorf("taken back:\n%s\nwant\n%s", got, want)
	}
	if n := len(oncall.Current(over, r.Until.AddDate(1, 0, 0))); n != 0 {
		t.Errorf("%d shifts are kept for a year", n)
	}
}

// Cutting a part of an open-ended shift leaves both sides.
func TestLayInTheMiddle(t *testing.T) {
	t.Parallel()
	r, shifts := weekly(t)
	always := []*emergencyv1.Shift{{Team: critical, Person: "theo", From: timestamppb.New(r.From.AddDate(-1, 0, 0)), Rank: 1}}
	b := book(t, r.From, oncall.Lay(always, shifts, r.From, r.Until))
	for at, want := range map[time.Time]string{r.From.Add(-time.Second): "theo", r.From: "carla carl", r.Until: "theo", r.Until.AddDate(10, 0, 0): "theo"} {
		if got := strings.Join(b.OnDuty(critical, at), " "); got != want {
			t.Errorf("at %s: %s, want %s", at, got, want)
		}
	}
}

// Spans follow on each other without a hole, and say what OnDuty says at each moment.
func TestDuties(t *testing.T) {
	t.Parallel()
	t0 := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(rt *rapid.T) {
		var shifts []*emergencyv1.Shift
		for range rapid.IntRange(0, 8).Draw(rt, "shifts") {
			s := &emergencyv1.Shift{
				Team: critical, Person: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "person"), Rank: rapid.Uint32Range(0, 3).Draw(rt, "rank"),
				From: timestamppb.New(t0.Add(time.Duration(rapid.IntRange(-50, 50).Draw(rt, "from")) * time.Hour)), Override: rapid.Bool().Draw(rt, "override"),
			}
			if rapid.Bool().Draw(rt, "ends") {
				s.Until = timestamppb.New(s.GetFrom().AsTime().Add(time.Duration(rapid.IntRange(1, 60).Draw(rt, "hours")) * time.Hour))
			}
			shifts = append(shifts, s)
		}
		b, from, until := book(t, t0, shifts), t0.Add(-30*time.Hour), t0.Add(30*time.Hour)
		last := from
		for i, d := range b.Duties(critical, from, until) {
			if !d.From.Equal(last) || !d.From.Before(d.Until) {
				rt.Fatalf("span %d from %s until %s comes after %s", i, d.From, d.Until, last)
			}
			last = d.Until
			for at := d.From; at.Before(d.Until); at = at.Add(30 * time.Minute) {
				if got := b.OnDuty(critical, at); !slices.Equal(got, d.Persons) {
					rt.Fatalf("at %s %v are on duty, the span says %v", at, got, d.Persons)
				}
			}
		}
		if !last.Equal(until) {
			rt.Fatalf("the spans end at %s", last)
		}
	})
}

// parsed reads a calendar by a library that did not write it.
func parsed(t testing.TB, raw []byte) []ical.Event {
	t.Helper()
	cal, err := ical.NewDecoder(bytes.NewReader(raw)).Decode()
	check(t, err)
	return cal.Events()
}

func prop(t testing.TB, e ical.Event, name string) string {
	t.Helper()
	p := e.Props.Get(name)
	if p == nil {
		t.Fatalf("an event has no %s", name)
	}
	s, err := p.Text()
	if err != nil {
		s = p.Value
	}
	return s
}

func word(emergencyv1.Team) string { return "critical" }

func TestICS(t *testing.T) {
	t.Parallel()
	r, shifts := weekly(t)
	shifts = oncall.StandIn(shifts, critical, []string{"theo"}, r.From.Add(50*time.Hour), r.From.Add(60*time.Hour))
	shifts = oncall.Lay(shifts, nil, r.From.AddDate(0, 0, 14), r.From.AddDate(0, 0, 15))
	changed := time.Date(2026, 10, 1, 7, 30, 0, 0, time.UTC)
	b := book(t, changed, shifts)
	write := func(now time.Time, person string) []byte {
		raw, err := oncall.Calendar{Book: b, Teams: []emergencyv1.Team{critical}, Word: word, Person: person, Now: now}.ICS()
		check(t, err)
		return raw
	}
	raw := write(r.From, "")
	for _, l := range strings.SplitAfter(string(raw), "\r\n") {
		if l == "" {
			continue
		}
		if body := strings.TrimSuffix(l, "\r\n"); body == l || strings.ContainsAny(body, "\r\n") || len(body) > 75 || !utf8.ValidString(body) {
			t.Errorf("no line of RFC 5545 3.1: %q (%d octets)", l, len(l)-2)
		}
	}
	events := parsed(t, raw)
	ids, found := map[string]bool{}, map[string]int{}
	for _, e := range events {
		id, summary := prop(t, e, ical.PropUID), prop(t, e, ical.PropSummary)
		if ids[id] {
			t.Errorf("two events are %s", id)
		}
		ids[id] = true
		found[prop(t, e, ical.PropCategories)]++
		stamped, err := e.Props.DateTime(ical.PropDateTimeStamp, time.UTC)
		check(t, err)
		from, err := e.DateTimeStart(time.UTC)
		check(t, err)
		until, err := e.DateTimeEnd(time.UTC)
		check(t, err)
		if !stamped.Equal(changed) || !from.Before(until) || from.Location() != time.UTC {
			t.Errorf("%s: stamped %s, from %s until %s", id, stamped, from, until)
		}
		// What the calendar says is what the rule book says, at both ends of each event.
		for _, at := range []time.Time{from, until.Add(-time.Second)} {
			on := b.OnDuty(critical, at)
			if name, _, _ := strings.Cut(summary, " "); name == "NOBODY" && len(on) > 0 || name != "NOBODY" && !slices.Contains(on, name) {
				t.Errorf("%s at %s: on duty are %v", summary, at, on)
			}
		}
	}
	if found["STAND-IN"] != 1 || found["GAP"] != 2 || found["ROTATION"] < 12 {
		t.Errorf("events: %v", found)
	}
	// A day later, and after a change that leaves them as they were, the events have the same ids.
	for _, e := range parsed(t, write(r.From.Add(24*time.Hour), "")) {
		if id := prop(t, e, ical.PropUID); !ids[id] {
			t.Errorf("%s was not there a day before", id)
		}
	}
	if !bytes.Equal(raw, write(r.From, "")) {
		t.Error("the same rota gives other bytes")
	}
	for _, e := range parsed(t, write(r.From, "carla")) {
		if s := prop(t, e, ical.PropSummary); !strings.HasPrefix(s, "carla ") {
			t.Errorf("in carla's calendar: %s", s)
		}
	}
}

// What would break a line or a value stays text.
func TestICSText(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 10, 12, 9, 0, 0, 0, time.UTC)
	odd := "ä; , \\ \r\nBEGIN:VEVENT " + strings.Repeat("ü", 90)
	b := book(t, at, []*emergencyv1.Shift{{Team: critical, Person: odd, From: timestamppb.New(at), Rank: 1}})
	raw, err := oncall.Calendar{Book: b, Teams: []emergencyv1.Team{critical}, Word: word, Now: at}.ICS()
	check(t, err)
	events := parsed(t, raw)
	if len(events) != 1 {
		t.Fatalf("%d events\n%s", len(events), raw)
	}
	if got := prop(t, events[0], ical.PropSummary); !strings.Contains(got, strings.Repeat("ü", 90)) || !strings.Contains(got, `ä; , \`) {
		t.Errorf("summary %q", got)
	}
}
