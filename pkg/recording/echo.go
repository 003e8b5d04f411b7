// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// PartKind says how a piece of input may be kept.
type PartKind int

const (
	// Secret is text of which nobody knows yet whether it may be read: only its length and a commitment are kept.
	Secret PartKind = iota
	// Key is a key that is no text: return, tabulator, backspace, Ctrl-C, arrows, the marks around what is pasted.
	Key
	// Echoed is text that was Secret before and has now been seen in the output, so it is none.
	Echoed
)

// Part is a piece of input.
type Part struct {
	By   string
	Text []byte
	Kind PartKind
}

const (
	// maxRun bounds the text that waits for its echo, in characters; maxRuns how many pieces of it. What is beyond stays secret.
	maxRun  = 4 << 10
	maxRuns = 64
	// nowhere is a place of the cursor that no cursor key leads back from.
	nowhere = 1 << 30
)

// Echo finds out which of the typed text the target has echoed. It errs on the side of secrecy: the recording has the echo
// itself as output, so text that is wrongly held for secret is lost to nobody, while a password that is wrongly held for
// echoed is given away.
//
// Input is divided into runs: text between two keys. A run counts as echoed when it has ended and every character of it was
// printed after it was typed, one beside the other, with nothing else printed while one was waited for. So characters of a
// password that some other output happens to contain give nothing away, short of that output printing just the password, and
// first, while it is waited for. The cursor is followed through backspaces and cursor keys, since line editors print again
// what they printed before.
//
// The zero value is ready for use. It has no clock and no source of chance.
type Echo struct {
	runs   []*run // oldest first; the last may still be typed
	owed   int    // line ends of runs that are done, yet to be printed
	screen scanner
}

// run is text that was typed without a key between.
type run struct {
	by      string
	text    []rune
	partial []byte // of a character that is not typed whole yet
	pos     int    // where the cursor is, in characters from the beginning of the run
	done    int    // characters that were echoed
	spoilt  bool   // something else was printed, or it is no text
	ended   bool
	lines   int // returns typed behind it
}

func (r *run) waits() bool { return r.done < len(r.text) || len(r.partial) > 0 }

// Typed takes what a person types and divides it, in order. Pieces that are Echoed come first where a key ends them.
func (e *Echo) Typed(by string, p []byte) []Part {
	var parts []Part
	escaped := false // what stands behind a lone ESC in one piece belongs to a key, like Alt-f: no echo is waited for
	for len(p) > 0 {
		n := keyLen(p)
		if n > 0 {
			parts = append(parts, e.end(p[0] == '\r' || p[0] == '\n')...)
			parts = append(parts, Part{By: by, Text: bytes.Clone(p[:n]), Kind: Key})
			escaped = n == 1 && p[0] == 0x1b
		} else {
			n = textLen(p)
			if !escaped {
				parts = append(parts, e.add(by, p[:n])...)
			}
			parts = append(parts, Part{By: by, Text: bytes.Clone(p[:n]), Kind: Secret})
		}
		p = p[n:]
	}
	return parts
}

func textLen(p []byte) int {
	for n, c := range p {
		if c < ' ' || c == 0x7f {
			return n
		}
	}
	return len(p)
}

// keyLen is the length of the key p begins with, 0 if it is text. Sequences that a keyboard can be told to send for letters
// and digits (CSI u, CSI 27 ~, the keypad's) are no keys: of those only the ESC is. A sequence that does not come in one
// piece is not known for one, because its bytes must be recorded before they are forwarded.
func keyLen(p []byte) int {
	if p[0] != 0x1b {
		if p[0] < ' ' || p[0] == 0x7f {
			return 1
		}
		return 0
	}
	if len(p) > 2 && p[1] == 'O' && strings.IndexByte("ABCDFHMPQRS", p[2]) >= 0 {
		return 3
	}
	t, n := lexEscape(p)
	if n == 0 || t.kind != tokenCSI || len(t.inter) > 0 {
		return 1
	}
	param := string(t.param)
	switch {
	case strings.IndexByte("ABCDEFHIOPQRSZcn", t.final) >= 0,
		t.final == '~' && param != "27" && !strings.HasPrefix(param, "27;"),
		(t.final == 'M' || t.final == 'm') && strings.HasPrefix(param, "<"):
		return n
	}
	return 1
}

// add puts text behind the run that is being typed.
func (e *Echo) add(by string, p []byte) (echoed []Part) {
	r := e.open()
	if r != nil && r.by != by {
		echoed = e.end(false)
		r = nil
	}
	if r == nil {
		r = &run{by: by}
		if len(e.runs) == maxRuns {
			e.runs = e.runs[1:]
		}
		e.runs = append(e.runs, r)
	}
	if r.spoilt {
		return echoed
	}
	if !r.waits() {
		r.pos = len(r.text) // what was printed meanwhile was no echo, and the cursor is where the person sees it
	}
	p = append(r.partial, p...)
	n := len(p) - unfinished(p)
	if !utf8.Valid(p[:n]) || len(r.text)+n > maxRun {
		r.spoilt, r.text, r.partial = true, nil, nil
		return echoed
	}
	r.text = append(r.text, []rune(string(p[:n]))...)
	r.partial = bytes.Clone(p[n:])
	return echoed
}

// open is the run that is being typed.
func (e *Echo) open() *run {
	if len(e.runs) == 0 || e.runs[len(e.runs)-1].ended {
		return nil
	}
	return e.runs[len(e.runs)-1]
}

// end ends the run that is being typed, by a key.
func (e *Echo) end(line bool) []Part {
	if len(e.runs) == 0 {
		if line {
			e.owed = min(e.owed+1, maxRuns)
		}
		return nil
	}
	last := e.runs[len(e.runs)-1]
	last.ended = true
	if line {
		last.lines = min(last.lines+1, maxRuns)
	}
	return e.settle()
}

// settle takes off the front what is decided.
func (e *Echo) settle() (echoed []Part) {
	for len(e.runs) > 0 {
		r := e.runs[0]
		if !r.ended || r.waits() && !r.spoilt {
			break
		}
		if !r.spoilt {
			echoed = append(echoed, Part{By: r.by, Text: []byte(string(r.text)), Kind: Echoed})
		}
		e.owed = min(e.owed+r.lines, maxRuns)
		e.runs = e.runs[1:]
	}
	return echoed
}

// Seen takes what the target printed, and returns what of the input is echoed by now.
func (e *Echo) Seen(p []byte) (echoed []Part) {
	if len(e.runs) == 0 && len(e.screen.buf) == 0 && e.owed == 0 {
		e.skip(p)
		return nil
	}
	e.screen.scan(p, func(t token) {
		switch t.kind {
		case tokenText:
			for _, c := range t.raw {
				echoed = append(echoed, e.print(rune(c))...)
			}
		case tokenRune:
			echoed = append(echoed, e.print(t.r)...)
		case tokenBad:
			echoed = append(echoed, e.print(utf8.RuneError)...)
		case tokenControl:
			echoed = append(echoed, e.control(t.r)...)
		case tokenCSI:
			e.move(t)
		case tokenEscape:
		}
	})
	return echoed
}

// skip passes over output while nothing is waited for; only what is unfinished at its end matters.
func (e *Echo) skip(p []byte) {
	tail := p[max(0, len(p)-maxSequence):]
	if i := bytes.LastIndexByte(tail, 0x1b); i >= 0 {
		tail = tail[i:]
	} else {
		tail = tail[len(tail)-unfinished(tail):]
	}
	e.screen.scan(tail, func(token) {})
}

// print is a character on the screen.
func (e *Echo) print(c rune) (echoed []Part) {
	e.owed = 0
	for len(e.runs) > 0 {
		r := e.runs[0]
		switch {
		case r.pos < 0 || !r.waits(): // text before the run, or beyond it
			if r.pos != nowhere {
				r.pos++
			}
			return echoed
		case r.spoilt:
			return echoed
		case r.pos <= r.done && r.pos < len(r.text) && r.text[r.pos] == c:
			r.pos++
			r.done = max(r.done, r.pos)
			return append(echoed, e.settle()...)
		}
		r.spoilt = true
		if !r.ended {
			return echoed
		}
		echoed = append(echoed, e.settle()...) // and perhaps it is the echo of the next
	}
	return echoed
}

// control is a control character on the screen.
func (e *Echo) control(c rune) []Part {
	var r *run
	if len(e.runs) > 0 {
		r = e.runs[0]
	}
	switch {
	case c == '\n' && e.owed > 0:
		e.owed--
	case r == nil:
	case c == '\b':
		if r.pos != nowhere {
			r.pos--
		}
	case c == '\n' && r.waits():
		r.spoilt = true // the line is over and it was not echoed
		return e.settle()
	case (c == '\n' || c == '\r') && !r.waits():
		r.pos = nowhere
	case c == '\r' && !r.ended:
		r.spoilt = true
	}
	return nil
}

// move follows the cursor.
func (e *Echo) move(t token) {
	if strings.IndexByte("CDGHfd`", t.final) < 0 || len(t.inter) > 0 {
		return
	}
	if t.final != 'C' && t.final != 'D' {
		e.owed = 0
	}
	if len(e.runs) == 0 || e.runs[0].pos == nowhere {
		return
	}
	r := e.runs[0]
	n, ok := number(t.param, 1)
	switch {
	case t.final == 'C' && ok:
		r.pos += n
	case t.final == 'D' && ok:
		r.pos -= n
	case !r.waits():
		r.pos = nowhere
	}
}
