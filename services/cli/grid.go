// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"charm.land/lipgloss/v2"
)

// grid is what a terminal of the session's size shows. The watcher's own terminal is of another size and keeps a line for the
// state of the session, so what the session does to its screen is done to a grid, and the grid is drawn: nothing in the session can
// write over the state, or hide text behind it. It understands what recording.Neutraliser lets through in the profile Live, whole
// sequences in each Write, and nothing else.
type grid struct {
	cols, rows  int
	cells       [][]cell
	other       [][]cell // of the screen that is not in use, main or alternate
	alternate   bool
	x, y        int
	wraps       bool // the last column is written: the next character goes to the next line
	style       style
	top, bottom int // scroll region, bottom exclusive
	saved       cursor
	origin      bool
	noWrap      bool
	insert      bool
	noCursor    bool
	dirty       []bool
}

type cursor struct {
	x, y  int
	style style
}

// cell is one place: its text, empty for the right half of a wide character, and its look.
type cell struct {
	text  string
	style style
}

// style is how text looks.
type style struct {
	fg, bg, line string // parameters of their SGR sequences
	on           uint16 // bit n set: attribute n
}

// maxSide bounds what a session may claim as its size.
const maxSide = 1000

func newGrid(cols, rows int) *grid {
	g := &grid{}
	g.resize(cols, rows)
	return g
}

// resize gives the grid another size. Lines keep what fits; the last ones are kept where there are too many.
func (g *grid) resize(cols, rows int) {
	cols, rows = min(max(cols, 1), maxSide), min(max(rows, 1), maxSide)
	if g.y >= rows {
		drop := g.y - rows + 1
		g.cells, g.y = g.cells[drop:], rows-1
	}
	g.cells, g.other = fitted(g.cells, cols, rows), fitted(g.other, cols, rows)
	g.cols, g.rows, g.top, g.bottom, g.wraps = cols, rows, 0, rows, false
	g.x = min(g.x, cols-1)
	g.dirty = make([]bool, rows)
	g.touch(0, rows)
}

func fitted(cells [][]cell, cols, rows int) [][]cell {
	out := make([][]cell, rows)
	for i := range out {
		out[i] = blank(cols, style{})
		if i < len(cells) {
			copy(out[i], cells[i])
		}
	}
	return out
}

func blank(n int, s style) []cell {
	line := make([]cell, n)
	for i := range line {
		line[i] = cell{" ", style{bg: s.bg}}
	}
	return line
}

func (g *grid) touch(from, to int) {
	for i := max(from, 0); i < min(to, g.rows); i++ {
		g.dirty[i] = true
	}
}

// Write shows neutralised output. It never fails.
func (g *grid) Write(p []byte) (int, error) {
	for i := 0; i < len(p); {
		if p[i] == 0x1b {
			i += g.sequence(p[i:])
			continue
		}
		r, size := utf8.DecodeRune(p[i:])
		g.put(r)
		i += size
	}
	return len(p), nil
}

func (g *grid) put(r rune) {
	switch r {
	case '\n':
		g.down()
	case '\r':
		g.x, g.wraps = 0, false
	case '\b':
		g.x, g.wraps = max(g.x-1, 0), false
	case '\t':
		g.x = min((g.x/8+1)*8, g.cols-1)
	case 0x07:
	default:
		g.character(r)
	}
}

func (g *grid) character(r rune) {
	width := 1
	if r >= 0x300 {
		width = lipgloss.Width(string(r))
	}
	if width == 0 {
		g.combine(r)
		return
	}
	if g.wraps && !g.noWrap || g.x+width > g.cols && g.cols >= width {
		g.x = 0
		g.down()
	}
	g.wraps = false
	line := g.cells[g.y]
	if g.insert {
		copy(line[min(g.x+width, g.cols):], line[g.x:])
	}
	line[g.x] = cell{string(r), g.style}
	if width == 2 && g.x+1 < g.cols {
		line[g.x+1] = cell{"", g.style}
	}
	g.dirty[g.y] = true
	if g.x += width; g.x >= g.cols {
		g.x, g.wraps = g.cols-1, true
	}
}

// maxCombined bounds how much one place may hold.
const maxCombined = 32

// combine adds a mark to the character before.
func (g *grid) combine(r rune) {
	x := g.x
	if !g.wraps {
		x--
	}
	for x > 0 && g.cells[g.y][x].text == "" {
		x--
	}
	if x < 0 || len(g.cells[g.y][x].text) > maxCombined {
		return
	}
	g.cells[g.y][x].text += string(r)
	g.dirty[g.y] = true
}

// down goes to the next line, and scrolls at the end of the region.
func (g *grid) down() {
	g.wraps = false
	switch {
	case g.y == g.bottom-1:
		g.scroll(g.top, 1)
	case g.y < g.rows-1:
		g.y++
	}
}

func (g *grid) up() {
	g.wraps = false
	switch {
	case g.y == g.top:
		g.scroll(g.top, -1)
	case g.y > 0:
		g.y--
	}
}

// scroll moves the lines from one on, to the end of the region, up by n; down if n is negative.
func (g *grid) scroll(from, n int) {
	region := g.cells[from:g.bottom]
	n = min(max(n, -len(region)), len(region))
	fresh := func(lines [][]cell) {
		for i := range lines {
			lines[i] = blank(g.cols, g.style)
		}
	}
	if n >= 0 {
		copy(region, region[n:])
		fresh(region[len(region)-n:])
	} else {
		copy(region[-n:], region[:len(region)+n])
		fresh(region[:-n])
	}
	g.touch(from, g.bottom)
}

// sequence does what an escape sequence says, and returns its length.
func (g *grid) sequence(p []byte) int {
	if len(p) < 2 {
		return len(p)
	}
	if p[1] != '[' {
		g.escape(p[1])
		return 2
	}
	end := 2
	for end < len(p) && (p[end] < 0x40 || p[end] > 0x7e) {
		end++
	}
	if end == len(p) {
		return end
	}
	if params := string(p[2:end]); strings.HasPrefix(params, "?") {
		g.modes(params[1:], p[end] == 'h')
	} else {
		g.csi(params, p[end])
	}
	return end + 1
}

func (g *grid) escape(c byte) {
	switch c {
	case '7':
		g.saved = cursor{g.x, g.y, g.style}
	case '8':
		g.restore()
	case 'D':
		g.down()
	case 'E':
		g.x = 0
		g.down()
	case 'M':
		g.up()
	}
}

func (g *grid) restore() {
	g.x, g.y, g.style, g.wraps = min(g.saved.x, g.cols-1), min(g.saved.y, g.rows-1), g.saved.style, false
}

// numbers are a sequence's parameters; those that are missing are 0.
func numbers(params string) (a, b int) {
	first, second, _ := strings.Cut(params, ";")
	a, _ = strconv.Atoi(first)
	b, _ = strconv.Atoi(second)
	return min(a, 9999), min(b, 9999)
}

func (g *grid) csi(params string, final byte) {
	a, b := numbers(params)
	n := max(a, 1)
	if final != 'm' && final != 'h' && final != 'l' {
		g.wraps = false
	}
	switch final {
	case 'm':
		g.style = g.style.with(params)
	case 'A':
		g.y = max(g.y-n, g.upper())
	case 'B', 'e':
		g.y = min(g.y+n, g.lower()-1)
	case 'C', 'a':
		g.x = min(g.x+n, g.cols-1)
	case 'D':
		g.x = max(g.x-n, 0)
	case 'E', 'F':
		g.x = 0
		if final == 'E' {
			g.y = min(g.y+n, g.lower()-1)
		} else {
			g.y = max(g.y-n, g.upper())
		}
	case 'G', '`':
		g.x = min(n, g.cols) - 1
	case 'd':
		g.goTo(g.x+1, n)
	case 'H', 'f':
		g.goTo(max(b, 1), n)
	case 'I':
		g.x = min((g.x/8+n)*8, g.cols-1)
	case 'Z':
		g.x = max(((g.x+7)/8-n)*8, 0)
	case 'r':
		g.region(a, b)
	case 's':
		g.saved = cursor{g.x, g.y, g.style}
	case 'u':
		g.restore()
	case 'h', 'l':
		g.insert = params == "4" && final == 'h'
	default:
		g.edit(final, a, n)
	}
}

// upper and lower are how far the cursor may go by steps: it does not leave the region that it is in.
func (g *grid) upper() int {
	if g.y >= g.top {
		return g.top
	}
	return 0
}

func (g *grid) lower() int {
	if g.y < g.bottom {
		return g.bottom
	}
	return g.rows
}

func (g *grid) goTo(col, row int) {
	if g.origin {
		row = min(row+g.top, g.bottom)
	}
	g.x, g.y = min(col, g.cols)-1, min(row, g.rows)-1
}

func (g *grid) region(top, bottom int) {
	if bottom == 0 {
		bottom = g.rows
	}
	if top = max(top, 1); top < bottom && bottom <= g.rows {
		g.top, g.bottom = top-1, bottom
	}
	g.goTo(1, 1)
}

// edit erases, inserts and deletes.
func (g *grid) edit(final byte, a, n int) {
	line := g.cells[g.y]
	left := g.cols - g.x
	switch final {
	case 'J':
		g.eraseScreen(a)
	case 'K':
		g.eraseLine(a)
	case 'X':
		copy(line[g.x:], blank(min(n, left), g.style))
	case '@':
		n = min(n, left)
		copy(line[g.x+n:], line[g.x:])
		copy(line[g.x:], blank(n, g.style))
	case 'P':
		n = min(n, left)
		copy(line[g.x:], line[g.x+n:])
		copy(line[g.cols-n:], blank(n, g.style))
	case 'L':
		g.shift(-n)
	case 'M':
		g.shift(n)
	case 'S':
		g.scroll(g.top, n)
	case 'T':
		g.scroll(g.top, -n)
	}
	g.dirty[g.y] = true
}

// shift inserts or deletes lines where the cursor is, if it is in the region.
func (g *grid) shift(n int) {
	if g.y >= g.top && g.y < g.bottom {
		g.scroll(g.y, n)
	}
}

func (g *grid) eraseScreen(how int) {
	from, to := g.y+1, g.rows
	switch how {
	case 0:
		g.eraseLine(0)
	case 1:
		g.eraseLine(1)
		from, to = 0, g.y
	case 2:
		from = 0
	default:
		return
	}
	for i := from; i < to; i++ {
		g.cells[i] = blank(g.cols, g.style)
	}
	g.touch(from, to)
}

func (g *grid) eraseLine(how int) {
	from, to := g.x, g.cols
	switch how {
	case 1:
		from, to = 0, g.x+1
	case 2:
		from = 0
	}
	copy(g.cells[g.y][from:to], blank(to-from, g.style))
	g.dirty[g.y] = true
}

func (g *grid) modes(list string, on bool) {
	for _, m := range strings.Split(list, ";") {
		switch m {
		case "6":
			g.origin = on
			g.goTo(1, 1)
		case "7":
			g.noWrap = !on
		case "25":
			g.noCursor = !on
		case "1048":
			g.escape(map[bool]byte{true: '7', false: '8'}[on])
		case "47", "1047", "1049":
			g.screen(on, m == "1049")
		}
	}
}

// screen changes to the alternate screen, or back.
func (g *grid) screen(alternate, withCursor bool) {
	if alternate == g.alternate {
		return
	}
	if alternate && withCursor {
		g.saved = cursor{g.x, g.y, g.style}
	}
	g.cells, g.other, g.alternate = g.other, g.cells, alternate
	if alternate {
		for i := range g.cells {
			g.cells[i] = blank(g.cols, style{})
		}
	} else if withCursor {
		g.restore()
	}
	g.touch(0, g.rows)
}

// with is a style after a sequence of colours and attributes.
func (s style) with(params string) style {
	parts := strings.Split(params, ";")
	for i := 0; i < len(parts); i++ {
		head, _, sub := strings.Cut(parts[i], ":")
		v, _ := strconv.Atoi(head)
		switch {
		case v == 0 && !sub:
			s = style{}
		case v == 38 || v == 48 || v == 58:
			n := i + 1
			if !sub {
				n = colourEnd(parts, i)
			}
			s.colour(v, strings.Join(parts[i:n], ";"))
			i = n - 1
		case v >= 1 && v <= 9:
			s.on |= 1 << v
		case v == 22:
			s.on &^= 1<<1 | 1<<2
		case v > 22 && v <= 29:
			s.on &^= 1 << (v - 20)
		case v >= 30 && v <= 37 || v >= 90 && v <= 97:
			s.fg = parts[i]
		case v >= 40 && v <= 47 || v >= 100 && v <= 107:
			s.bg = parts[i]
		case v == 39:
			s.fg = ""
		case v == 49:
			s.bg = ""
		case v == 59:
			s.line = ""
		}
	}
	return s
}

// colourEnd is where an extended colour ends in a list of parameters.
func colourEnd(parts []string, i int) int {
	n := i + 1
	if n < len(parts) && parts[n] == "5" {
		n = i + 3
	} else if n < len(parts) && parts[n] == "2" {
		n = i + 5
	}
	return min(n, len(parts))
}

func (s *style) colour(what int, params string) {
	switch what {
	case 38:
		s.fg = params
	case 48:
		s.bg = params
	case 58:
		s.line = params
	}
}

// sgr is the sequence that gives text this look, whatever it was before.
func (s style) sgr() string {
	params := []string{"0"}
	for n := 1; n <= 9; n++ {
		if s.on&(1<<n) != 0 && n != 8 { // concealed text would be concealed from the watcher
			params = append(params, strconv.Itoa(n))
		}
	}
	for _, p := range []string{s.fg, s.bg, s.line} {
		if p != "" {
			params = append(params, p)
		}
	}
	return "\x1b[" + strings.Join(params, ";") + "m"
}

// line is a line of the grid as a terminal shows it, cut after so many columns.
func (g *grid) line(b []byte, y, width int) []byte {
	now := style{}
	b = append(b, "\x1b[m"...)
	cells := g.cells[y][:min(width, g.cols)]
	if n := len(cells); n > 0 && n < g.cols && g.cells[y][n].text == "" {
		cells = append(slices.Clone(cells[:n-1]), cell{" ", cells[n-1].style}) // half of a wide character
	}
	for _, c := range cells {
		if c.style != now {
			now = c.style
			b = append(b, now.sgr()...)
		}
		b = append(b, c.text...)
	}
	return append(b, "\x1b[m\x1b[K"...)
}

// text is what the grid shows, without its look; for those who read, and for tests.
func (g *grid) text() string {
	var b strings.Builder
	for _, line := range g.cells {
		var l strings.Builder
		for _, c := range line {
			l.WriteString(c.text)
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}
