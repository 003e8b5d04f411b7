// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bytes"
	"iter"
	"strings"
	"time"
	"unicode/utf8"
)

// Place is a point in a recording. The fields that are set count, each by itself: the first frame that satisfies any of
// them. The zero value is the beginning.
type Place struct {
	Frame  uint64        // its number
	Output int64         // the frame that holds this byte of the output, counted from 0; set if > 0
	After  time.Duration // time since the start
	Marker string        // a marker whose label contains it, whatever its case
}

// reached tells whether a frame is at the place or behind it.
func (p Place) reached(f Frame, start time.Time) bool {
	if p == (Place{}) || p.Frame > 0 && f.Number >= p.Frame || p.After > 0 && f.At.Sub(start) >= p.After {
		return true
	}
	switch b := f.Body.(type) {
	case Output:
		return p.Output > 0 && f.Output+int64(len(b.Data)) > p.Output
	case Marker:
		return p.Marker != "" && strings.Contains(strings.ToLower(b.Label), strings.ToLower(p.Marker))
	}
	return false
}

// Seek reads on to a place and returns the first frame there. At the end of the recording it returns io.EOF.
func (r *Reader) Seek(to Place) (Frame, error) {
	for {
		f, err := r.Next()
		if err != nil || to.reached(f, r.Header.StartedAt) {
			return f, err
		}
	}
}

// Hit is a place where a text was found.
type Hit struct {
	Frame  uint64 // in which the line became complete
	At     time.Time
	Output int64  // bytes of output before that frame
	Line   string // the line, without control sequences
}

// maxLineText bounds a line of text that is searched as one.
const maxLineText = 8 << 10

// Search looks for a text, whatever its case, in the lines of the output without their control sequences, in what was typed
// plainly, and in what our own frames say. Titles and other strings to the terminal are searched as text too.
func (r *Reader) Search(text string) iter.Seq2[Hit, error] {
	return func(yield func(Hit, error) bool) {
		s := search{text: strings.ToLower(text)}
		for f, err := range r.Frames() {
			if err != nil {
				yield(Hit{}, err)
				return
			}
			for _, line := range s.frame(f) {
				if !yield(Hit{Frame: f.Number, At: f.At, Output: f.Output, Line: line}, nil) {
					return
				}
			}
			s.at = f
		}
		if line := string(s.line); s.matches(line) {
			yield(Hit{Frame: s.at.Number, At: s.at.At, Output: s.at.Output, Line: line}, nil)
		}
	}
}

type search struct {
	text   string
	screen scanner
	line   []byte
	at     Frame
}

func (s *search) matches(line string) bool { return strings.Contains(strings.ToLower(line), s.text) }

func (s *search) frame(f Frame) (found []string) {
	out, ok := f.Body.(Output)
	if !ok {
		line := Describe(f.Body)
		if in, ok := f.Body.(Input); ok {
			line = printable(in.Text)
		}
		if line != "" && s.matches(line) {
			found = append(found, line)
		}
		return found
	}
	s.screen.scan(out.Data, func(t token) {
		switch t.kind {
		case tokenText:
			s.line = append(s.line, t.raw...)
		case tokenRune:
			s.line = append(s.line, printable(string(t.r))...)
		case tokenBad:
			s.line = utf8.AppendRune(s.line, utf8.RuneError)
		case tokenControl:
			s.control(t.r)
		case tokenCSI, tokenEscape:
		}
		if t.kind == tokenControl && t.r == '\n' || len(s.line) > maxLineText {
			if line := string(bytes.TrimSpace(s.line)); s.matches(line) && line != "" {
				found = append(found, line)
			}
			s.line = s.line[:0]
		}
	})
	return found
}

func (s *search) control(c rune) {
	switch c {
	case '\b':
		_, n := utf8.DecodeLastRune(s.line)
		s.line = s.line[:len(s.line)-n]
	case '\t', '\r':
		s.line = append(s.line, ' ')
	}
}

// printable makes one line of s in which nothing is left that a terminal would obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !visible(r):
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
