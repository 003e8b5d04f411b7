// SPDX-License-Identifier: Apache-2.0

package irc

import (
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"cacert.org/emergency/services/notification/channel"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]message{
		"PING :a b\r\n":                            {command: "PING", params: []string{"a b"}},
		":srv 001 me :hi":                          {source: "srv", command: "001", params: []string{"me", "hi"}},
		"@time=1;x :n!u@h privmsg #c :\x01A\x01":   {source: "n!u@h", command: "PRIVMSG", params: []string{"#c", "\x01A\x01"}},
		":s 353 a  b   :":                          {source: "s", command: "353", params: []string{"a", "b", ""}},
		"  QUIT":                                   {command: "QUIT"},
		"X 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16": {command: "X", params: strings.Split("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15 16", ",")},
	} {
		got, err := parse(line)
		if want.params == nil {
			want.params = got.params[:0:0]
		}
		if err != nil || got.source != want.source || got.command != want.command || len(got.params) != len(want.params) || len(want.params) > 0 && !reflect.DeepEqual(got.params, want.params) {
			t.Errorf("%q: %+v %v, want %+v", line, got, err, want)
		}
	}
	for _, line := range []string{"", "\r\n", ":only", ":", "@tag", "   ", "PING\x00", "PING\rQUIT", "PING\nQUIT", "P-NG", "\xff", ":s  ", strings.Repeat("a", maxRead+1)} {
		if m, err := parse(line); err == nil {
			t.Errorf("%q is taken as %+v", line, m)
		}
	}
	m, _ := parse(":Nick!u@h NICK new")
	if m.nick() != "Nick" || m.param(0) != "new" || m.param(7) != "" || m.last() != "new" || (message{}).last() != "" {
		t.Errorf("%+v", m)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(":n!u@h PRIVMSG #c :hello there\r\n")
	f.Add("@a=b;c :s 433 * nick :in use")
	f.Add("AUTHENTICATE +")
	f.Add(":s  005  a  b=c :are supported")
	f.Fuzz(func(t *testing.T, line string) {
		m, err := parse(line)
		if err != nil {
			return
		}
		if m.command == "" || len(m.params) > maxParams || strings.Contains(m.source, " ") {
			t.Fatalf("%q: %+v", line, m)
		}
		_, _, _ = m.nick(), m.last(), fold(m.source)
		// What can be written at all reads back as the same.
		out, err := encode(m.command, m.params...)
		if err != nil {
			return
		}
		again, err := parse(out)
		if err != nil || again.command != m.command || len(again.params) != len(m.params) || len(m.params) > 0 && !reflect.DeepEqual(again.params, m.params) {
			t.Fatalf("%q -> %+v -> %q -> %+v, %v", line, m, out, again, err)
		}
	})
}

func TestEncodeRefusesInjection(t *testing.T) {
	t.Parallel()
	for _, params := range [][]string{
		{"#c", "a\r\nQUIT"}, {"#c", "a\nQUIT"}, {"#c", "a\rQUIT"}, {"#c", "a\x00"}, {"#c x", "a"}, {":c", "a"}, {"", "a"}, {"a\r\nQUIT", "b"}, {"#c", strings.Repeat("x", 510)},
	} {
		if line, err := encode("PRIVMSG", params...); err == nil {
			t.Errorf("%q became %q", params, line)
		}
	}
	if line, err := encode("PRIVMSG", "#c", ":) ok"); err != nil || line != "PRIVMSG #c ::) ok" {
		t.Errorf("%q %v", line, err)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("some words and\r\nlines", 7)
	f.Add(strings.Repeat("ü", 300), 51)
	f.Add("\x01ACTION x\x01\r\nQUIT", 400)
	f.Fuzz(func(t *testing.T, text string, n int) {
		if n < 4 || n > 1000 {
			return
		}
		var all strings.Builder
		for _, p := range split(text, n) {
			if len(p) > n || p == "" || !utf8.ValidString(p) || strings.ContainsAny(p, "\r\n\x00\x01") {
				t.Fatalf("piece %q of %q at %d", p, text, n)
			}
			all.WriteString(p)
		}
		squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
		if got, want := squeeze(all.String()), squeeze(channel.Clean(text)); got != want {
			t.Fatalf("%q became %q", want, got)
		}
	})
}

func TestCompose(t *testing.T) {
	t.Parallel()
	p := channel.Page{Incident: "e20261124.1", Headline: "Critical admin needed", Link: "https://x/e", Text: "one\ntwo", Urgent: true}
	if got, want := strings.Join(compose(p, 400), "|"), "URGENT e20261124.1: Critical admin needed|https://x/e|one|two"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	p.Text = strings.Repeat("word ", 10000)
	got := compose(p, 100)
	if len(got) != maxPieces || got[1] != "https://x/e" || got[maxPieces-1] != "(cut; the link has all of it)" {
		t.Errorf("%q", got)
	}
	p.Headline, p.Link = strings.Repeat("Überlänge", 1000), ""
	if got = compose(p, 100); len(got) > maxPieces || got[len(got)-1] != "(cut)" {
		t.Errorf("%q", got)
	}
}
