// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Profile says how much of a terminal's language a Neutraliser lets through.
type Profile int

const (
	// Replay lets through what writes, colours and erases text and moves the cursor: nothing that outlives the playback.
	Replay Profile = iota
	// Live lets through what a full-screen program needs besides: the alternate screen, scroll regions, the cursor's
	// visibility, insert mode and wrapping, and one bell for every bellEvery bytes. Close sets all of it back.
	Live
)

const bellEvery = 256

// Neutraliser writes what a target printed to a person's terminal so that it can do nothing but show text (N29). What is not
// let through becomes visible: the ESC a ␛ and the rest the text it is, other controls their picture or ‹9b›. Nothing is
// swallowed but sequences that have no content and concern only the keyboard, the mouse or the character set; so nobody can hide
// text from the watcher in a title or in a string that never ends. Line drawing of the old character set becomes Unicode.
//
// Sequences may be split over any number of calls; at most 64 bytes are held back. It is not safe for concurrent use.
type Neutraliser struct {
	w       io.Writer
	profile Profile
	scan    scanner
	out     []byte
	err     error

	drawing [2]bool // G0 and G1 are line drawing
	shifted bool    // G1 is in use
	bell    int     // bytes written since the last bell
	changed map[string]string
	region  bool
}

// NewNeutraliser returns a writer to w.
func NewNeutraliser(w io.Writer, p Profile) *Neutraliser {
	return &Neutraliser{w: w, profile: p, bell: bellEvery, changed: map[string]string{}}
}

// Write shows p. It takes all of p unless w fails, and then fails for good.
func (n *Neutraliser) Write(p []byte) (int, error) {
	if n.err != nil {
		return 0, n.err
	}
	n.scan.scan(p, n.token)
	return len(p), n.flush()
}

// Close shows what was held back and sets the terminal back. It does not close w.
func (n *Neutraliser) Close() error {
	if n.err != nil {
		return n.err
	}
	n.scan.flush(n.token)
	n.restore()
	if err := n.flush(); err != nil {
		return err
	}
	n.err = io.ErrClosedPipe
	return nil
}

func (n *Neutraliser) flush() error {
	if len(n.out) > 0 {
		_, n.err = n.w.Write(n.out)
		n.out = n.out[:0]
	}
	return n.err
}

func (n *Neutraliser) token(t token) {
	n.bell = min(n.bell+len(t.raw), bellEvery)
	switch t.kind {
	case tokenText:
		n.text(t.raw)
	case tokenRune:
		n.character(t.r)
	case tokenBad:
		n.out = fmt.Appendf(n.out, "‹%02x›", t.raw[0])
	case tokenControl:
		n.control(t.r)
	case tokenCSI:
		if !n.csi(t) {
			n.show(t)
		}
	case tokenEscape:
		if !n.escape(t) {
			n.show(t)
		}
	}
}

// show makes a sequence visible.
func (n *Neutraliser) show(t token) {
	n.out = append(n.out, "␛"...)
	n.out = append(n.out, t.raw[1:]...)
}

// drawings are the characters ` to ~ of DEC's set for line drawing.
const drawings = "◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·"

func (n *Neutraliser) text(p []byte) {
	g := 0
	if n.shifted {
		g = 1
	}
	if !n.drawing[g] {
		n.out = append(n.out, p...)
		return
	}
	set := []rune(drawings)
	for _, c := range p {
		if c >= '`' && c <= '~' {
			n.out = utf8.AppendRune(n.out, set[c-'`'])
		} else {
			n.out = append(n.out, c)
		}
	}
}

// visible tells whether a character only prints. Marks that turn the direction of writing or separate lines do more: with
// them a line can be made to read as another. Joiners and private characters are used by ordinary text and prompts.
func visible(r rune) bool {
	switch {
	case r == 0x200c || r == 0x200d:
		return true
	case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp), r&0xfffe == 0xfffe:
		return false
	}
	return true
}

func (n *Neutraliser) character(r rune) {
	if visible(r) {
		n.out = utf8.AppendRune(n.out, r)
		return
	}
	n.out = fmt.Appendf(n.out, "‹%04x›", r)
}

func (n *Neutraliser) control(c rune) {
	switch {
	case c == '\n' || c == '\r' || c == '\t' || c == '\b':
		n.out = append(n.out, byte(c))
	case c == 0x0e || c == 0x0f:
		n.shifted = c == 0x0e
	case c == 0x07 && n.profile == Live && n.bell == bellEvery:
		n.out = append(n.out, 0x07)
		n.bell = 0
	case c < ' ':
		n.out = utf8.AppendRune(n.out, 0x2400+c)
	case c == 0x7f:
		n.out = append(n.out, "␡"...)
	default:
		n.out = fmt.Appendf(n.out, "‹%02x›", c)
	}
}

// escape handles a sequence without parameters.
func (n *Neutraliser) escape(t token) bool {
	switch string(t.raw[1:]) {
	case "7", "8", "D", "E", "M": // save and restore the cursor; down, next line, up
		n.out = append(n.out, t.raw...)
	case "=", ">": // the keypad
	case "(B", "(A", "(0":
		n.drawing[0] = t.final == '0'
	case ")B", ")A", ")0":
		n.drawing[1] = t.final == '0'
	default:
		return false
	}
	return true
}

// csi handles a sequence with parameters.
func (n *Neutraliser) csi(t token) bool {
	switch {
	case len(t.inter) > 0: // a reset, and the shape of the cursor: swallowed
		return string(t.raw[2:]) == "!p" || t.final == 'q' && string(t.inter) == " " && digitsOnly(t.param)
	case len(t.param) > 0 && t.param[0] >= '<':
		return n.private(t)
	}
	switch t.final {
	case 'm':
		return n.colour(t.param)
	case 'J':
		if string(t.param) == "3" { // would take the lines that were scrolled away from the person
			return true
		}
		fallthrough
	case 'K':
		v, ok := number(t.param, 0)
		return ok && v <= 2 && n.numbers(t, 1)
	case 'H', 'f':
		return n.numbers(t, 2)
	case 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'I', 'L', 'M', 'P', 'S', 'T', 'X', 'Z', '@', '`', 'a', 'b', 'd', 'e':
		return n.numbers(t, 1)
	case 's', 'u':
		return n.numbers(t, 0)
	case 'r':
		return n.profile == Live && n.scrollRegion(t)
	case 'h', 'l':
		return n.profile == Live && string(t.param) == "4" && n.mode("4", t.final)
	}
	return false
}

// numbers lets a sequence with at most so many numbers through, none of them above what a screen can need.
func (n *Neutraliser) numbers(t token, most int) bool {
	highest := 9999
	if t.final == 'b' {
		highest = 999 // repeats a character
	}
	if len(t.param) > 0 {
		parts := strings.Split(string(t.param), ";")
		if len(parts) > most {
			return false
		}
		for _, p := range parts {
			if v, ok := number([]byte(p), 0); !ok || v > highest {
				return false
			}
		}
	}
	n.out = append(n.out, t.raw...)
	return true
}

func (n *Neutraliser) scrollRegion(t token) bool {
	n.region = n.numbers(t, 2) || n.region
	return n.region
}

// The modes that a program may set on the watcher's screen, and those that are swallowed because they concern only what the keyboard
// and the mouse send, or when the screen is drawn. Values are the state to go back to.
const (
	liveModes    = ";5l;6l;7h;25h;47l;1047l;1048l;1049l;"
	swallowModes = ";1;9;12;66;1000;1001;1002;1003;1004;1005;1006;1007;1015;1016;1034;1035;1036;1037;1039;2004;2026;2031;2048;"
)

// private handles sequences whose parameters begin with a mark of their own.
func (n *Neutraliser) private(t token) bool {
	mark, rest := t.param[0], string(t.param[1:])
	switch {
	case mark == '?' && (t.final == 'h' || t.final == 'l'):
		return n.privateModes(rest, t.final)
	case mark == '>' && t.final == 'm', (mark == '>' || mark == '<' || mark == '=') && t.final == 'u': // what keys send
		return digitsOnly([]byte(rest))
	}
	return false
}

func (n *Neutraliser) privateModes(modes string, final byte) bool {
	known := func(m, set string) bool { return m != "" && strings.Contains(set, ";"+m) }
	parts := strings.Split(modes, ";")
	for _, m := range parts {
		live := n.profile == Live && (known(m+"h;", liveModes) || known(m+"l;", liveModes))
		if !digitsOnly([]byte(m)) || !live && !known(m+";", swallowModes) {
			return false
		}
	}
	for _, m := range parts {
		if n.profile == Live && !known(m+";", swallowModes) {
			n.mode("?"+m, final)
		}
	}
	return true
}

// mode sets a mode and remembers that it must be set back.
func (n *Neutraliser) mode(m string, final byte) bool {
	back := byte('l')
	if m == "?7" || m == "?25" {
		back = 'h'
	}
	n.out = append(n.out, "\x1b["+m...)
	n.out = append(n.out, final)
	if final == back {
		delete(n.changed, m)
	} else {
		n.changed[m] = "\x1b[" + m + string(back)
	}
	return true
}

// colour lets colours and attributes through, but not concealed text.
func (n *Neutraliser) colour(param []byte) bool {
	if len(param) > 0 && !validColour(string(param)) {
		return false
	}
	n.out = append(n.out, "\x1b["...)
	n.out = append(n.out, param...)
	n.out = append(n.out, 'm')
	return true
}

func validColour(param string) bool {
	parts := strings.Split(param, ";")
	if len(parts) > 16 {
		return false
	}
	for i := 0; i < len(parts); i++ {
		head, sub, hasSub := strings.Cut(parts[i], ":")
		v, ok := number([]byte(head), 0)
		if !ok {
			return false
		}
		switch {
		case hasSub && !subColour(v, sub):
			return false
		case hasSub:
		case v == 38 || v == 48 || v == 58:
			skip := extended(parts[i+1:])
			if skip == 0 {
				return false
			}
			i += skip
		case v == 8 || v > 107 || v > 65 && v < 90:
			return false
		}
	}
	return true
}

// subColour are the forms with colons: kinds of underlining, and colours.
func subColour(v int, sub string) bool {
	parts := strings.Split(sub, ":")
	for _, p := range parts {
		if x, ok := number([]byte(p), 0); !ok || x > 255 {
			return false
		}
	}
	return v == 4 && len(parts) == 1 || (v == 38 || v == 48 || v == 58) && len(parts) >= 2 && len(parts) <= 6
}

// extended is how many parameters a colour by number or by components takes.
func extended(parts []string) int {
	n := 0
	switch {
	case len(parts) >= 2 && parts[0] == "5":
		n = 2
	case len(parts) >= 4 && parts[0] == "2":
		n = 4
	}
	for _, p := range parts[:n] {
		if v, ok := number([]byte(p), 0); !ok || v > 255 {
			return 0
		}
	}
	return n
}

func digitsOnly(p []byte) bool {
	for _, c := range p {
		if (c < '0' || c > '9') && c != ';' {
			return false
		}
	}
	return true
}

// restore sets back what was changed.
func (n *Neutraliser) restore() {
	if n.region { // setting it back moves the cursor
		n.out = append(n.out, "\x1b7\x1b[r\x1b8"...)
	}
	for _, m := range [...]string{"4", "?5", "?6", "?7", "?25", "?47", "?1047", "?1048", "?1049"} {
		n.out = append(n.out, n.changed[m]...)
	}
	n.out = append(n.out, "\x1b[0m"...)
	n.region, n.changed = false, map[string]string{}
}
