// SPDX-License-Identifier: Apache-2.0

package recording_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/recording"
)

// TestEcho plays what is typed (lines with >) and printed (lines with <), and compares what counts as echoed.
func TestEcho(t *testing.T) {
	t.Parallel()
	type step struct{ typed, seen string }
	typed := func(s string) step { return step{typed: s} }
	seen := func(s string) step { return step{seen: s} }
	each := func(s string) (all []step) { // typed by hand, echoed at once
		for _, c := range s {
			all = append(all, typed(string(c)), seen(string(c)))
		}
		return all
	}
	then := func(lists ...[]step) (all []step) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	tests := map[string]struct {
		steps []step
		want  string // pieces joined by |
	}{
		"typing":               {then(each("ls -l"), []step{typed("\r"), seen("\r\n")}), "ls -l"},
		"two lines":            {then(each("ls"), []step{typed("\r"), seen("\r\nx y\r\n$ ")}, each("pwd"), []step{typed("\r")}), "ls|pwd"},
		"not ended":            {each("ls"), ""},
		"password":             {[]step{typed("secret"), typed("\r"), seen("\r\nWelcome\r\n$ ")}, ""},
		"password by hand":     {[]step{typed("s"), typed("e"), typed("c"), typed("\r"), seen("\r\n")}, ""},
		"password, no newline": {[]step{typed("secret\r"), seen("sorry, try again: ")}, ""},
		"password, then text": {then([]step{typed("secret\r"), seen("\r\n# ")}, each("id"),
			[]step{typed("\r"), seen("\r\n")}), "id"},
		"password with stars":         {[]step{typed("s"), seen("*"), typed("e"), seen("*"), typed("\r"), seen("\r\n")}, ""},
		"password under other output": {[]step{typed("s"), seen("syslog: "), typed("e"), seen("event\r\n"), typed("c\r"), seen("\r\n")}, ""},
		"password and its letters":    {[]step{typed("sec"), seen("something else came"), typed("\r"), seen("\r\n")}, ""},
		"password prefix":             {[]step{typed("secret"), seen("sec"), typed("\r"), seen("\r\n")}, ""},
		"password typed ahead of ssh": {[]step{typed("secret\r"), typed("ls\r"), seen("\r\n$ ls\r\n")}, ""},
		"read -s of one letter":       {[]step{typed("y"), seen("\r\nyes it is\r\n"), typed("\r")}, ""},
		"slow echo":                   {[]step{typed("ls -l\r"), seen("l"), seen("s -"), seen("l\r"), seen("\n")}, "ls -l"},
		"slow echo of two lines":      {[]step{typed("a\rb\r"), seen("a\r\nb\r\n")}, "a|b"},
		"other output between":        {then(each("ls"), []step{seen("\r\nBroadcast message\r\n")}, each(" -l"), []step{typed("\r")}), "ls -l"},
		"other output while waiting":  {[]step{typed("l"), seen("x"), seen("l"), typed("s"), seen("s"), typed("\r")}, ""},
		"colours":                     {[]step{typed("ls"), seen("\x1b[32ml\x1b[0m\x1b[1ms\x1b[m"), typed("\r")}, "ls"},
		"colours in pieces":           {[]step{typed("ls"), seen("\x1b[3"), seen("2ml\x1b"), seen("[0ms"), typed("\r")}, "ls"},
		"backspace":                   {then(each("lsx"), []step{typed("\x7f"), seen("\b \b")}, each(" -l"), []step{typed("\r")}), "lsx| -l"},
		"tab":                         {then(each("cat /e"), []step{typed("\t"), seen("tc/")}, each("pass"), []step{typed("\t"), seen("wd "), typed("\r")}), "cat /e|pass"},
		"insert in the middle": {then(each("ls foo"), []step{typed("\x1b[D"), seen("\b"), typed("\x1b[D"), seen("\b")},
			[]step{typed("a"), seen("aoo\b\b"), typed("b"), seen("boo\b\b"), typed("\r")}), "ls foo|ab"},
		"redrawn as it grows":        {[]step{typed("l"), seen("l"), typed("s"), seen("\b\x1b[32mls\x1b[m"), typed("x"), seen("\b\blsx"), typed("\r")}, "lsx"},
		"redrawn by cursor keys":     {[]step{typed("l"), seen("l"), typed("s"), seen("\x1b[1D\x1b[1mls\x1b[m"), typed("\r")}, "ls"},
		"suggestion behind":          {[]step{typed("l"), seen("ls -la\x1b[5D"), typed("s"), seen("s\x1b[2m -la\x1b[m\x1b[4D"), typed("\r")}, "ls"},
		"history":                    {[]step{typed("\x1b[A"), seen("ls -l"), typed("\r"), seen("\r\n")}, ""},
		"paste in marks":             {[]step{typed("\x1b[200~ls -l\x1b[201~"), seen("\x1b[7mls -l\x1b[27m"), typed("\r"), seen("\r\n")}, "ls -l"},
		"interrupted":                {then(each("rm x"), []step{typed("\x03"), seen("^C\r\n$ ")}, each("ls"), []step{typed("\r")}), "rm x|ls"},
		"editor":                     {then([]step{typed("\x1b"), seen("\x1b[1;1H")}, each("hello"), []step{seen("\x1b[24;60H1,6  All\x1b[1;6H"), typed("\x1b")}), "hello"},
		"editor with cursor":         {[]step{typed("h"), seen("\x1b[?25l\x1b[3;4Hh\x1b[24;60H3,5\x1b[3;5H\x1b[?25h"), typed("i"), seen("\x1b[?25l\x1b[3;5Hi\x1b[?25h"), typed("\x1b")}, "hi"},
		"pager":                      {[]step{typed("j"), seen("\r\x1b[Kanother line\r\n:"), typed("q"), seen("\r\x1b[K$ "), typed("\r")}, ""},
		"pager, then a line":         {then([]step{typed("q"), seen("\r\x1b[K$ "), typed("\r"), seen("\r\n$ ")}, each("ls"), []step{typed("\r")}), "ls"},
		"utf-8":                      {then(each("grüße 日本"), []step{typed("\r")}), "grüße 日本"},
		"utf-8 in pieces":            {[]step{typed("gr\xc3"), seen("gr"), typed("\xbc"), seen("\xc3"), seen("\xbc"), typed("\r")}, "grü"},
		"not utf-8":                  {[]step{typed("a\xffb"), seen("a\xffb"), typed("\r")}, ""},
		"alt keys are no text":       {then([]step{typed("\x1bf"), seen("\x1b[3C")}, each("ls"), []step{typed("\r")}), "ls"},
		"keys that spell text":       {[]step{typed("\x1b[115;1u\x1b[101;1u"), typed("\r"), seen("\r\n")}, ""},
		"too long":                   {[]step{typed(strings.Repeat("x", 5000)), seen(strings.Repeat("x", 5000)), typed("\r")}, ""},
		"nothing typed":              {[]step{seen("hello\r\n"), typed("\r")}, ""},
		"another person goes on":     {then(each("ls"), []step{{typed: "P2:"}}, each("id"), []step{typed("\r")}), "ls|id"},
		"title between":              {[]step{typed("l"), seen("l"), seen("\x1b]0;title\a"), typed("s"), seen("s"), typed("\r")}, "ls"},
		"empty lines, then a word":   {then([]step{typed("\r\r\r"), seen("\r\n$ \r\n$ \r\n$ ")}, each("id"), []step{typed("\r")}), "id"},
		"empty lines, then a secret": {[]step{typed("\r\r\r"), seen("\r\n$ \r\n$ \r\n$ Password: "), typed("secret\r"), seen("\r\nsecretary\r\n")}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var e recording.Echo
			var got []string
			by := "P1"
			collect := func(parts []recording.Part) {
				for _, p := range parts {
					if p.Kind == recording.Echoed {
						got = append(got, string(p.Text))
					}
				}
			}
			for _, s := range test.steps {
				if s.typed == "P2:" {
					by = "P2"
					continue
				}
				if s.typed != "" {
					collect(e.Typed(by, []byte(s.typed)))
				}
				if s.seen != "" {
					collect(e.Seen([]byte(s.seen)))
				}
			}
			if strings.Join(got, "|") != test.want {
				t.Errorf("echoed is %q, want %q", got, test.want)
			}
		})
	}
}

// TestKeys: which input is recorded plainly at once.
func TestKeys(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]string{
		"ls\r":                         "S:ls K:\r",
		"\x03":                         "K:\x03",
		"\x1b[A\x1b[1;5C\x1bOB\x1b[3~": "K:\x1b[A K:\x1b[1;5C K:\x1bOB K:\x1b[3~",
		"\x1b[200~a\x1b[201~":          "K:\x1b[200~ S:a K:\x1b[201~",
		"\x1b[115;1u":                  "K:\x1b S:[115;1u", // a letter, as some terminals are told to send it
		"\x1b[27;2;115~":               "K:\x1b S:[27;2;115~",
		"\x1bOs":                       "K:\x1b S:Os", // a digit of the keypad
		"\x1bs":                        "K:\x1b S:s",
		"\x1b":                         "K:\x1b",
		"[A":                           "S:[A",
		"\x1b[<0;3;4M":                 "K:\x1b[<0;3;4M",
		"\x1b[M !!":                    "K:\x1b S:[M !!",
		"a\x7fb\tc":                    "S:a K:\x7f S:b K:\t S:c",
		"\xff\xfe":                     "S:\xff\xfe",
	} {
		var e recording.Echo
		var got []string
		for _, p := range e.Typed("P1", []byte(input)) {
			got = append(got, map[recording.PartKind]string{recording.Secret: "S:", recording.Key: "K:", recording.Echoed: "E:"}[p.Kind]+string(p.Text))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%q is divided into %q, want %q", input, s, want)
		}
	}
}

// TestEchoNeverInvents: what is called echoed was typed, was printed in this order, and in the division nothing is lost.
func TestEchoNeverInvents(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3000) {
		g := rand.New(rand.NewPCG(seed, 9))
		piece := func() string {
			b := make([]byte, g.IntN(4))
			for i := range b {
				b[i] = "aab\r\n\b\x1b[D\xc3\xbc"[g.IntN(11)]
			}
			return string(b)
		}
		var e recording.Echo
		var typed, seen, divided string
		check := func(parts []recording.Part) {
			for _, p := range parts {
				if p.Kind != recording.Echoed {
					divided += string(p.Text)
					continue
				}
				if !strings.Contains(typed, string(p.Text)) || !inOrder(seen, string(p.Text)) {
					t.Fatalf("seed %d: %q counts as echoed; typed %q, seen %q", seed, p.Text, typed, seen)
				}
			}
		}
		for range 30 {
			in := piece()
			typed += in
			check(e.Typed("P1", []byte(in)))
			out := piece()
			if g.IntN(2) == 0 {
				out = in
			}
			seen += out
			check(e.Seen([]byte(out)))
		}
		if divided != typed {
			t.Fatalf("seed %d: typed %q was divided into %q", seed, typed, divided)
		}
	}
}

// inOrder tells whether the characters of text come in this order in s.
func inOrder(s, text string) bool {
	for _, c := range text {
		i := strings.IndexRune(s, c)
		if i < 0 {
			return false
		}
		s = s[i+len(string(c)):]
	}
	return true
}

// TestNoEchoUnderFlood: a password that is typed without echo while a flood of other text passes is never given away.
func TestNoEchoUnderFlood(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		g := rand.New(rand.NewPCG(seed, 2))
		var e recording.Echo
		var parts []recording.Part
		for _, c := range "hunter2" {
			parts = append(parts, e.Typed("P1", []byte(string(c)))...)
			flood := make([]byte, 1+g.IntN(40))
			for i := range flood {
				flood[i] = "hunter2\n\r\b "[g.IntN(11)]
			}
			parts = append(parts, e.Seen(flood)...)
		}
		for _, p := range append(parts, e.Typed("P1", []byte("\r"))...) {
			if p.Kind == recording.Echoed {
				t.Errorf("seed %d: %q counts as echoed", seed, p.Text)
			}
		}
	}
}
