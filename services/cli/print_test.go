// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func testPrinter(environ ...string) (*printer, *bytes.Buffer) {
	var b bytes.Buffer
	now := func() time.Time { return time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC) }
	return newPrinter(&b, Process{Environ: environ, Now: now, Zone: time.FixedZone("CET", 3600)}), &b
}

func TestHarmless(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ in, want string }{
		{"plain text, ünïcode, 漢字", "plain text, ünïcode, 漢字"},
		{"\x1b[2J\x1b]0;title\x07gone", `\x1b[2J\x1b]0;title\x07gone`},
		{"\u009b31mred", `\x9b31mred`},
		{"a\rb", `a\x0db`},
		{"two\nlines", "two ⏎ lines"},
		{"a\tb", "a    b"},
		{"user\u202etxt.exe", `user\u202etxt.exe`},
		{"zero\u200bwidth\ufeff", `zero\u200bwidth\ufeff`},
		{"line\u2028sep", `line\u2028sep`},
		{"bad\xff\xfebytes", `bad\xff\xfebytes`},
		{"\x7f", `\x7f`},
		{"tag\U000e0041", `tag\ue0041`},
	} {
		if got := harmless(x.in); got != x.want {
			t.Errorf("%q: %q, want %q", x.in, got, x.want)
		}
	}
}

func FuzzHarmless(f *testing.F) {
	f.Add("\x1b[31m\n\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := harmless(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) {
			t.Errorf("%q became %q", s, got)
		}
	})
}

// TestNothingOfOthersReachesTheTerminal goes through every way in which a printer writes.
func TestNothingOfOthersReachesTheTerminal(t *testing.T) {
	t.Parallel()
	const evil = "\x1b[31mevil\x07\u202e"
	p, b := testPrinter("CLICOLOR_FORCE=1", "TERM=xterm-256color")
	p.line("%s %v", evil, []string{evil})
	p.line("%s", fail(1, "%s", evil))
	p.field(evil, "%s", evil)
	p.table([]string{"A", "B"}, [][]any{{evil, bold(evil)}, {bad(evil), 7}})
	p.line("%s%s%s%s", good(evil), dim(evil), alert(evil), diffLine("+"+evil))
	if out := b.String(); strings.Contains(out, "\x1b[31mevil") || strings.ContainsAny(out, "\x07\u202e") {
		t.Errorf("others' control characters came through: %q", out)
	}
	if out := b.String(); !strings.Contains(out, `\x1b[31mevil\x07\u202e`) {
		t.Errorf("the text is not shown: %q", out)
	}
}

func TestColour(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		environ []string
		want    bool
	}{
		{[]string{"TERM=xterm-256color"}, false}, // nobody looks
		{[]string{"TERM=xterm-256color", "CLICOLOR_FORCE=1"}, true},
		{[]string{"TERM=xterm-256color", "CLICOLOR_FORCE=1", "NO_COLOR=yes"}, false},
		{[]string{"TERM=xterm-256color", "CLICOLOR_FORCE=1", "NO_COLOR="}, true},
	} {
		p, b := testPrinter(x.environ...)
		p.line("%s", bad("error:"))
		if got := strings.Contains(b.String(), "\x1b[31") || strings.Contains(b.String(), ";31m"); got != x.want {
			t.Errorf("%v: colour %t in %q", x.environ, got, b.String())
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	p, b := testPrinter()
	p.table([]string{"SLOT", "PERSON", ""}, [][]any{{"critical/1", "carla", ""}, {"testing/2", bold("theo"), "on standby"}})
	want := "SLOT        PERSON\ncritical/1  carla\ntesting/2   theo    on standby\n"
	if b.String() != want {
		t.Errorf("got\n%q, want\n%q", b.String(), want)
	}
	b.Reset()
	p.table([]string{"A"}, nil)
	if b.Len() > 0 {
		t.Errorf("a table without rows wrote %q", b.String())
	}
}

func TestNarrowTable(t *testing.T) {
	t.Parallel()
	p, b := testPrinter()
	p.width = 40
	p.table([]string{"WHAT", "HOW"}, [][]any{{"LEAD_DECISION", "epatch lead-decision approve --reason TEXT, or another word"}})
	for _, l := range strings.Split(b.String(), "\n") {
		if utf8.RuneCountInString(l) > 40 {
			t.Errorf("%q is wider than the terminal", l)
		}
	}
	if flat := strings.Join(strings.Fields(b.String()), " "); !strings.Contains(flat, "word") || !strings.Contains(flat, "LEAD_DECISION") {
		t.Errorf("something is cut off: %q", b.String())
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	p, _ := testPrinter()
	now := p.now()
	for _, x := range []struct {
		at   time.Time
		want string
	}{
		{now, "2026-11-24 04:00:00 CET (now)"},
		{now.Add(-59 * time.Second), "2026-11-24 03:59:01 CET (59 s ago)"},
		{now.Add(-61 * time.Second), "2026-11-24 03:58:59 CET (1 min ago)"},
		{now.Add(-time.Hour), "2026-11-24 03:00:00 CET (1 h ago)"},
		{now.Add(-23*time.Hour - 59*time.Minute), "2026-11-23 04:01:00 CET (23 h 59 min ago)"},
		{now.Add(24 * time.Hour), "2026-11-25 04:00:00 CET (in 1 d)"},
		{now.Add(90*24*time.Hour + 5*time.Hour), "2027-02-22 09:00:00 CET (in 90 d 5 h)"},
	} {
		if got := p.clock(timestamppb.New(x.at)); got != x.want {
			t.Errorf("got %q, want %q", got, x.want)
		}
	}
	if p.clock(nil) != "-" || p.at(time.Time{}) != "-" {
		t.Error("a time that is not known is shown")
	}
}

// TestJSONIsStable: protojson varies its spaces from build to build; what is printed must not.
func TestJSONIsStable(t *testing.T) {
	t.Parallel()
	p, b := testPrinter("CLICOLOR_FORCE=1", "TERM=xterm")
	if err := p.json(&emergencyv1.Committed{Incident: "e20261124.1\x1b[31m", FirstPosition: 3, EventTypes: []string{"incident.EmergencyDeclared"}}); err != nil {
		t.Fatal(err)
	}
	want := `{"incident":"e20261124.1\u001b[31m","first_position":"3","last_position":"0","event_types":["incident.EmergencyDeclared"],"record_hash":"","repeated":false}` + "\n"
	if b.String() != want {
		t.Errorf("got %s, want %s", b.String(), want)
	}
	if !json.Valid(b.Bytes()) {
		t.Error("no JSON")
	}
}
