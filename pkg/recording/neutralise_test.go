// SPDX-License-Identifier: Apache-2.0

package recording_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"cacert.org/emergency/pkg/recording"
)

func neutral(t testing.TB, p recording.Profile, pieces ...string) string {
	t.Helper()
	var b bytes.Buffer
	n := recording.NewNeutraliser(&b, p)
	for _, s := range pieces {
		if k, err := n.Write([]byte(s)); err != nil || k != len(s) {
			t.Fatalf("write: %d %v", k, err)
		}
	}
	must(t, n.Close())
	return b.String()
}

func TestNeutralise(t *testing.T) {
	t.Parallel()
	const reset = "\x1b[0m"
	same := "\x00same"
	tests := map[string]struct{ in, replay, live string }{
		"text":           {"hello\tgrüße 日本 🎉\r\n\b", same, same},
		"colours":        {"\x1b[1;31mred\x1b[m\x1b[38;5;200mx\x1b[48;2;1;2;3my\x1b[4:3m\x1b[38:2::1:2:3mz\x1b[97;100m", same, same},
		"cursor":         {"\x1b[2Ax\x1b[K\x1b[2J\x1b[10;20H\x1b[;5H\x1b[3P\x1b[@\x1b7\x1b8\x1b[s\x1b[u\x1bM", same, same},
		"clipboard":      {"a\x1b]52;c;aGVsbG8=\ab", "a␛]52;c;aGVsbG8=␇b", "a␛]52;c;aGVsbG8=\ab"},
		"title":          {"\x1b]0;root@host\x1b\\$", "␛]0;root@host␛\\$", "␛]0;root@host␛\\$"},
		"hyperlink":      {"\x1b]8;;http://evil/\x1b\\good\x1b]8;;\x1b\\", "␛]8;;http://evil/␛\\good␛]8;;␛\\", "␛]8;;http://evil/␛\\good␛]8;;␛\\"},
		"DCS":            {"\x1bP$qm\x1b\\", "␛P$qm␛\\", "␛P$qm␛\\"},
		"APC, PM, SOS":   {"\x1b_Gx\x1b\\\x1b^p\x1b\\\x1bXs\x1b\\", "␛_Gx␛\\␛^p␛\\␛Xs␛\\", "␛_Gx␛\\␛^p␛\\␛Xs␛\\"},
		"queries":        {"\x1b[c\x1b[>c\x1b[5n\x1b[6n\x1b[?1$p\x1b[>q\x1bZ\x1b[18t\x1b[x", "␛[c␛[>c␛[5n␛[6n␛[?1$p␛[>q␛Z␛[18t␛[x", "␛[c␛[>c␛[5n␛[6n␛[?1$p␛[>q␛Z␛[18t␛[x"},
		"keyboard query": {"\x1b[?u\x1b[>1u", "␛[?u", "␛[?u"},
		"hidden text":    {"\x1b[8mhidden\x1b[0;8m", "␛[8mhidden␛[0;8m", "␛[8mhidden␛[0;8m"},
		"colours beyond": {"\x1b[38;5;300m\x1b[38;9m\x1b[200m\x1b[38;5m\x1b[1;2;3;4;5;6;7;9;1;2;3;4;5;6;7;9;1m", "␛[38;5;300m␛[38;9m␛[200m␛[38;5m␛[1;2;3;4;5;6;7;9;1;2;3;4;5;6;7;9;1m", "␛[38;5;300m␛[38;9m␛[200m␛[38;5m␛[1;2;3;4;5;6;7;9;1;2;3;4;5;6;7;9;1m"},
		"editor": {"\x1b[?1049h\x1b[1;24r\x1b[?25lx\x1b[?7l\x1b[4h", "␛[?1049h␛[1;24r␛[?25lx␛[?7l␛[4h",
			same + "\x1b7\x1b[r\x1b8\x1b[4l\x1b[?7h\x1b[?25h\x1b[?1049l"},
		"editor that ends":     {"\x1b[?1049h\x1b[?25lx\x1b[?25h\x1b[?1049l", "␛[?1049h␛[?25lx␛[?25h␛[?1049l", same},
		"modes of keys, mouse": {"\x1b[?2004ha\x1b[?1;1000;1006h\x1b=\x1b>\x1b[>4;2m\x1b[<u\x1b[2 q\x1b[!p\x1b[?2026h\x1b[3J", "a", "a"},
		"erase":                {"\x1b[03J\x1b[4J\x1b[3K\x1b[1J", "␛[03J␛[4J␛[3K\x1b[1J", "␛[03J␛[4J␛[3K\x1b[1J"},
		"other modes":          {"\x1b[?3h\x1b[20h\x1b[?1049;3h\x1b[?h", "␛[?3h␛[20h␛[?1049;3h␛[?h", "␛[?3h␛[20h␛[?1049;3h␛[?h"},
		"reset":                {"\x1bc", "␛c", "␛c"},
		"line drawing":         {"\x1b(0lqk\x1b(Blqk\x1b)0\x0elqk\x0flqk", "┌─┐lqk┌─┐lqk", "┌─┐lqk┌─┐lqk"},
		"character sets":       {"\x1b(K\x1b%G\x1b*0\x1bn", "␛(K␛%G␛*0␛n", "␛(K␛%G␛*0␛n"},
		"bell":                 {"\a\a\a" + strings.Repeat("x", 256) + "\a", "␇␇␇" + strings.Repeat("x", 256) + "␇", "\a␇␇" + strings.Repeat("x", 256) + "\a"},
		"controls":             {"\x00\x01\v\f\x7f\x1a", "␀␁␋␌␡␚", "␀␁␋␌␡␚"},
		"C1":                   {"\u009b31m\u009d0;x\u009c\x9b\x90", "‹9b›31m‹9d›0;x‹9c›‹9b›‹90›", "‹9b›31m‹9d›0;x‹9c›‹9b›‹90›"},
		"direction":            {"a\u202eb\u2066\u200f\u2028", "a‹202e›b‹2066›‹200f›‹2028›", "a‹202e›b‹2066›‹200f›‹2028›"},
		"joiner":               {"👩\u200d🚀", same, same},
		"not UTF-8":            {"\xff\xc3(", "‹ff›‹c3›(", "‹ff›‹c3›("},
		"unfinished":           {"a\x1b[12", "a␛[12", "a␛[12"},
		"unfinished rune":      {"a\xe2\x82", "a‹e2›‹82›", "a‹e2›‹82›"},
		"lone ESC":             {"a\x1b", "a␛", "a␛"},
		"ESC ESC":              {"\x1b\x1b[1m", "␛\x1b[1m", "␛\x1b[1m"},
		"broken off":           {"\x1b[3\nrm -rf\x1b[1;\x1b[2m", "␛[3\nrm -rf␛[1;\x1b[2m", "␛[3\nrm -rf␛[1;\x1b[2m"},
		"long":                 {"\x1b[" + strings.Repeat("1;", 60) + "m", "␛[" + strings.Repeat("1;", 60) + "m", "␛[" + strings.Repeat("1;", 60) + "m"},
		"numbers":              {"\x1b[99999A\x1b[1;2;3H\x1b[1:2H\x1b[9999b", "␛[99999A␛[1;2;3H␛[1:2H␛[9999b", "␛[99999A␛[1;2;3H␛[1:2H␛[9999b"},
		"string without end":   {"\x1b]0;" + strings.Repeat("rm -rf / ", 1000), "␛]0;" + strings.Repeat("rm -rf / ", 1000), "␛]0;" + strings.Repeat("rm -rf / ", 1000)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for p, want := range map[recording.Profile]string{recording.Replay: test.replay, recording.Live: test.live} {
				want = strings.Replace(want, same, test.in, 1) + reset
				if got := neutral(t, p, test.in); got != want {
					t.Errorf("profile %d: %q becomes %q, want %q", p, test.in, got, want)
				}
				// In pieces, wherever they are cut, it is the same.
				var pieces []string
				for _, b := range []byte(test.in) {
					pieces = append(pieces, string([]byte{b}))
				}
				if got := neutral(t, p, pieces...); got != want {
					t.Errorf("profile %d, byte by byte: %q becomes %q, want %q", p, test.in, got, want)
				}
				if !allowed(p, []byte(want)) && p == recording.Replay {
					t.Errorf("the checker of this test does not allow %q", want)
				}
			}
		})
	}
	if n := utf8.RuneCountInString(recording.Drawings); n != '~'-'`'+1 {
		t.Errorf("there are %d drawings", n)
	}
}

// The grammar of what may reach a terminal, said anew and not from the code: a list of patterns, and bounds for the numbers.
var (
	plainSequence = regexp.MustCompile("^(?:\x1b[78DEM]|\x1b\\[0*[0-2]?[JK]|\x1b\\[[0-9]*[ABCDEFGILMPSTXZ@`abde]|\x1b\\[[0-9]*(?:;[0-9]*)?[Hf]|\x1b\\[[su])")
	colourful     = regexp.MustCompile("^\x1b\\[([0-9:;]*)m")
	liveSequence  = regexp.MustCompile("^(?:\x1b\\[\\?(?:5|6|7|25|47|1047|1048|1049)[hl]|\x1b\\[4[hl]|\x1b\\[[0-9]*(?:;[0-9]*)?r)")
	anyNumber     = regexp.MustCompile("[0-9]+")
)

// allowed tells whether a terminal can be sent out.
func allowed(p recording.Profile, out []byte) bool {
	for len(out) > 0 {
		r, n := utf8.DecodeRune(out)
		switch {
		case r == utf8.RuneError && n == 1:
			return false
		case r == 0x1b:
			if n = sequence(p, out); n == 0 {
				return false
			}
		case r == '\n' || r == '\r' || r == '\t' || r == '\b' || r == '\a' && p == recording.Live || r == 0x200c || r == 0x200d:
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == 0x2028 || r == 0x2029:
			return false
		}
		out = out[n:]
	}
	return true
}

func sequence(p recording.Profile, out []byte) int {
	m := plainSequence.Find(out)
	if m == nil && p == recording.Live {
		m = liveSequence.Find(out)
	}
	if m == nil {
		if c := colourful.FindSubmatch(out); c != nil && !regexp.MustCompile("(^|;)0*8(;|$)").MatchString(withoutExtended(string(c[1]))) {
			m = c[0]
		}
	}
	for _, v := range anyNumber.FindAll(m, -1) {
		if x, err := strconv.Atoi(string(v)); err != nil || x > 9999 {
			return 0
		}
	}
	return len(m)
}

// withoutExtended takes colours by number out, in which an 8 is a colour.
func withoutExtended(param string) string {
	return regexp.MustCompile("(^|;)0*[345]8;(?:5;[0-9]*|2;[0-9]*;[0-9]*;[0-9]*)").ReplaceAllString(param, "$1")
}

// soup is bytes that are likelier than others to be mischief.
func soup(g *rand.Rand) []byte {
	var b []byte
	for range g.IntN(60) {
		switch g.IntN(8) {
		case 0, 1:
			b = append(b, []string{
				"\x1b[", "\x1b]", "\x1bP", "\x1b", "\x1b\\", "\x1b_", "\x1b[?", "\x1b[38;5;", "\x1b[8", "\x1b(0", "\x0e", "\a", "\xc2\x9b",
				"\x9d", "1049h", "25l", "52;c;", "6n", "$p", "\u202e", "\xe2", "m", ";8m", "3J", "\x1b[4", "h", "r", "\x1b[1;2r", "\x1b[?1049h",
			}[g.IntN(29)]...)
		case 2, 3:
			b = append(b, "0123456789;:?<>= !\"$'"[g.IntN(21)])
		case 4:
			b = append(b, byte(g.IntN(256)))
		case 5:
			b = utf8.AppendRune(b, rune(g.IntN(0x3000)))
		default:
			b = append(b, byte(0x40+g.IntN(0x3f)))
		}
	}
	return b
}

// TestNeutralRandom is N29: whatever the bytes and however they are cut, nothing but the grammar comes out.
func TestNeutralRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6000) {
		g := rand.New(rand.NewPCG(seed, 7))
		in := soup(g)
		for _, p := range []recording.Profile{recording.Replay, recording.Live} {
			got := neutral(t, p, string(in))
			k := g.IntN(len(in) + 1)
			if cut := neutral(t, p, string(in[:k]), string(in[k:])); cut != got {
				t.Fatalf("seed %d: %q gives %q, but cut at %d %q", seed, in, got, k, cut)
			}
			if !allowed(p, []byte(got)) {
				t.Fatalf("seed %d, profile %d: %q becomes %q", seed, p, in, got)
			}
		}
	}
}

// TestChecker: the checker of these tests finds what it is for.
func TestChecker(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"\x1b", "\x1b]0;x\a", "\x1b[c", "\x1b[6n", "\x1b[?1049h", "\x1b[8m", "\x1b[1;8m", "\x1b[08m", "\x1b[3J", "\x1b[03J", "\x1b[33K", "\x1bc", "\x1b(0", "\x1bP", "\a", "\x9b", "\u009b", "\u202e",
		"\xff", "\x0e", "\x7f", "\x1b[99999A", "\x1b[>c", "\x1b[?25l", "\x1b[1;2;3H", "\x1b[1",
	} {
		if allowed(recording.Replay, []byte(bad)) {
			t.Errorf("%q is allowed", bad)
		}
	}
	for _, bad := range []string{"\x1b[?2004h", "\x1b[6n", "\x1b]52;c;x\a", "\x1bc", "\x1b[?3h"} {
		if allowed(recording.Live, []byte(bad)) {
			t.Errorf("%q is allowed live", bad)
		}
	}
}

// TestRestored: after Close of a live view no mode is left on, whatever was printed.
func TestRestored(t *testing.T) {
	t.Parallel()
	mode := regexp.MustCompile(`\x1b\[(\??[0-9]+)([hl])`)
	normal := map[string]string{"?7": "h", "?25": "h"}
	for seed := range uint64(2000) {
		g := rand.New(rand.NewPCG(seed, 8))
		var in string
		for range g.IntN(12) {
			in += fmt.Sprintf("\x1b[%s%c", []string{"?5", "?6", "?7", "?25", "?47", "?1047", "?1048", "?1049", "4", "?25;7"}[g.IntN(10)], "hl"[g.IntN(2)])
		}
		left := map[string]string{}
		for _, m := range mode.FindAllStringSubmatch(neutral(t, recording.Live, in), -1) {
			left[m[1]] = m[2]
		}
		for m, state := range left {
			want := normal[m]
			if want == "" {
				want = "l"
			}
			if state != want {
				t.Fatalf("%q leaves mode %s in state %s", in, m, state)
			}
		}
	}
}

type failing struct{ left int }

func (f *failing) Write(p []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errors.New("terminal is gone")
	}
	return len(p), nil
}

func TestTerminalGone(t *testing.T) {
	t.Parallel()
	n := recording.NewNeutraliser(&failing{left: 1}, recording.Live)
	_, err := n.Write([]byte("x"))
	must(t, err)
	for range 2 {
		if _, err := n.Write([]byte("x")); err == nil {
			t.Error("a terminal that is gone was not noticed")
		}
	}
	if n.Close() == nil {
		t.Error("a terminal that is gone was not noticed at the end")
	}
	n = recording.NewNeutraliser(&bytes.Buffer{}, recording.Live)
	must(t, n.Close())
	if _, err := n.Write([]byte("x")); err == nil {
		t.Error("written after the end")
	}
}
