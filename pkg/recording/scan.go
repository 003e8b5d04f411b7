// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// tokenKind divides what a terminal is sent.
type tokenKind int

const (
	tokenText    tokenKind = iota // printable ASCII, one or more
	tokenRune                     // one character beyond ASCII
	tokenBad                      // one byte that is no UTF-8
	tokenControl                  // one control character of C0 or C1, or DEL; ESC where it begins nothing complete
	tokenCSI                      // ESC [ parameters intermediates final
	tokenEscape                   // ESC intermediates final
)

// token is one piece. raw are its bytes; those of a sequence are all printable but the first.
type token struct {
	kind  tokenKind
	raw   []byte
	r     rune   // of tokenRune and tokenControl
	param []byte // of tokenCSI
	inter []byte // of tokenCSI and tokenEscape
	final byte   // of tokenCSI and tokenEscape
}

// maxSequence is the longest sequence that is one; what is longer is an ESC with text behind it.
const maxSequence = 64

// scanner divides a stream that comes in pieces. It never holds back more than maxSequence bytes. Strings of the terminal
// (OSC, DCS, APC, PM, SOS) are not taken together: their ESC comes alone and their content as the text it is. A reader that
// swallowed them could be blinded by one that does not end.
type scanner struct {
	buf []byte // what may still become a character or a sequence
}

func (s *scanner) scan(p []byte, emit func(token)) {
	if len(s.buf) > 0 {
		p = append(s.buf, p...)
		s.buf = nil
	}
	for len(p) > 0 {
		t, n := lex(p)
		if n == 0 {
			s.buf = bytes.Clone(p)
			return
		}
		emit(t)
		p = p[n:]
	}
}

// flush gives out what waits for more.
func (s *scanner) flush(emit func(token)) {
	p := s.buf
	s.buf = nil
	for len(p) > 0 {
		t, n := lex(p)
		if n == 0 {
			t, n = single(p)
		}
		emit(t)
		p = p[n:]
	}
}

// lex takes the first token off p; n is 0 if p may be the beginning of one.
func lex(p []byte) (t token, n int) {
	switch c := p[0]; {
	case c == 0x1b:
		return lexEscape(p)
	case c >= ' ' && c < 0x7f:
		for n = 1; n < len(p) && p[n] >= ' ' && p[n] < 0x7f; n++ {
		}
		return token{kind: tokenText, raw: p[:n]}, n
	case c >= utf8.RuneSelf && !utf8.FullRune(p):
		return token{}, 0
	default:
		return single(p)
	}
}

// single takes one character, control or byte, whatever could have followed.
func single(p []byte) (token, int) {
	r, n := utf8.DecodeRune(p)
	switch {
	case r == utf8.RuneError && n == 1:
		return token{kind: tokenBad, raw: p[:1]}, 1
	case r < ' ' || r >= 0x7f && r < 0xa0:
		return token{kind: tokenControl, raw: p[:n], r: r}, n
	case r < utf8.RuneSelf:
		return token{kind: tokenText, raw: p[:1]}, 1
	default:
		return token{kind: tokenRune, raw: p[:n], r: r}, n
	}
}

func lexEscape(p []byte) (token, int) {
	alone := func() (token, int) { return token{kind: tokenControl, raw: p[:1], r: 0x1b}, 1 }
	more := func() (token, int) {
		if len(p) >= maxSequence {
			return alone()
		}
		return token{}, 0
	}
	if len(p) == 1 {
		return more()
	}
	kind, start := tokenEscape, 1
	i := start
	if p[1] == '[' {
		kind, start = tokenCSI, 2
		for i = start; i < len(p) && p[i] >= 0x30 && p[i] <= 0x3f; i++ {
		}
	}
	param := i
	for ; i < len(p) && p[i] >= 0x20 && p[i] <= 0x2f; i++ {
	}
	switch {
	case i >= maxSequence:
		return alone()
	case i == len(p):
		return more()
	}
	final := p[i]
	lowest := byte(0x30)
	if kind == tokenCSI {
		lowest = 0x40
	}
	if final < lowest || final > 0x7e || kind == tokenEscape && i == 1 && strings.IndexByte("]P_^Xk", final) >= 0 {
		return alone()
	}
	return token{kind: kind, raw: p[:i+1], param: p[start:param], inter: p[param:i], final: final}, i + 1
}

// number reads a single parameter of a CSI sequence; none is the one given.
func number(param []byte, none int) (int, bool) {
	if len(param) == 0 {
		return none, true
	}
	n := 0
	for _, c := range param {
		if c < '0' || c > '9' || n > 9999 {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, true
}
