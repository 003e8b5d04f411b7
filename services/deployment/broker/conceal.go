// SPDX-License-Identifier: Apache-2.0

package broker

import "strconv"

// concealment finds output that a terminal does not show although it has received it: text after the attribute "concealed". The
// watcher's eyes miss it, the recording has it, and the history says that it is there.
type concealment struct {
	state  int // 0 text, 1 after escape, 2 in the parameters of a control sequence
	params []byte
	marks  int
}

const (
	escape = 0x1b
	// maxParams bounds what is remembered of a sequence; no terminal takes longer ones for attributes.
	maxParams = 64
	// concealMarks is how often a session's concealments become events.
	concealMarks = 8
)

// scan reads output and returns whether it conceals what follows. Sequences may be cut by the ends of the pieces.
func (c *concealment) scan(p []byte) bool {
	found := false
	for _, b := range p {
		switch {
		case b == escape:
			c.state, c.params = 1, c.params[:0]
		case c.state == 1 && b == '[':
			c.state = 2
		case c.state == 2 && b >= '0' && b <= '?':
			if c.params = append(c.params, b); len(c.params) > maxParams {
				c.state = 0
			}
		case c.state == 2:
			found = found || b == 'm' && conceals(c.params)
			c.state = 0
		default:
			c.state = 0
		}
	}
	return found
}

// conceals reads the attributes of a sequence; the numbers of colours among them are none.
func conceals(params []byte) bool {
	var list []int
	n := 0
	for _, b := range append(params, ';') {
		if b >= '0' && b <= '9' {
			n = min(10*n+int(b-'0'), 9999)
			continue
		}
		list = append(list, n)
		n = 0
	}
	hidden := false
	for i := 0; i < len(list); i++ {
		switch list[i] {
		case 8:
			hidden = true
		case 0, 28:
			hidden = false
		case 38, 48, 58:
			if i+1 < len(list) && list[i+1] == 5 {
				i += 2
			} else if i+1 < len(list) && list[i+1] == 2 {
				i += 4
			}
		}
	}
	return hidden
}

// noteConcealment makes an event of it, the first times.
func (s *session) noteConcealment(p []byte) {
	s.mu.Lock()
	found := s.hidden.scan(p) && s.hidden.marks < concealMarks
	if found {
		s.hidden.marks++
	}
	n := s.hidden.marks
	s.mu.Unlock()
	if found {
		s.mark(Mark{Kind: MarkConcealed, Text: "the output hides what follows it from the eyes (attribute concealed), time " + strconv.Itoa(n)})
	}
}
