// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/recording"
)

// shown is what a session's output looks like on a grid, through the neutraliser as in the view.
func shown(t *testing.T, cols, rows int, output string) *grid {
	t.Helper()
	g := newGrid(cols, rows)
	screen := recording.NewNeutraliser(g, recording.Live)
	for _, b := range []byte(output) { // sequences may be split anywhere
		if _, err := screen.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func TestGrid(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name, output, want string
	}{
		{"lines", "one\r\ntwo", "one\ntwo"},
		{"line feed alone keeps the column", "ab\ncd", "ab\n  cd"},
		{"wraps at the edge", "abcdefghijk", "abcdefghij\nk"},
		{"does not wrap before there is more", "abcdefghij\r\nk", "abcdefghij\nk"},
		{"wraps not where it is told not to", "\x1b[?7labcdefghijk", "abcdefghik"},
		{"scrolls", "1\r\n2\r\n3\r\n4\r\n5", "2\n3\n4\n5"},
		{"back and over", "abc\b\bX", "aXc"},
		{"tab", "a\tb", "a       b"},
		{"addressed", "\x1b[2;3Hx\x1b[1;1Hy", "y\n  x"},
		{"beyond the edge is the edge", "\x1b[99;99Hx", "\n\n\n         x"},
		{"erase the line", "abc\r\x1b[Kd", "d"},
		{"erase to here", "abcde\x1b[3G\x1b[1K", "   de"},
		{"erase the screen", "abc\r\nd\x1b[2J\x1b[Hx", "x"},
		{"erase below", "a\r\nb\r\nc\x1b[2;1H\x1b[J", "a"},
		{"insert and delete characters", "abcd\x1b[2G\x1b[@X\x1b[2P", "aXd"},
		{"erase characters", "abcd\x1b[2G\x1b[2X", "a  d"},
		{"insert mode", "bc\r\x1b[4ha", "abc"},
		{"insert and delete lines", "1\r\n2\r\n3\x1b[1;1H\x1b[L0\x1b[3;1H\x1b[M", "0\n1\n3"},
		{"scroll region", "1\r\n2\r\n3\r\n4\x1b[2;3r\x1b[3;1H\n5", "1\n3\n5\n4"},
		{"reverse index", "1\r\n2\x1b[H\x1bM0", "0\n1\n2"},
		{"save and restore", "ab\x1b7\r\ncd\x1b8X", "abX\ncd"},
		{"alternate screen", "shell\x1b[?1049h\x1b[Hvim\x1b[?1049l!", "shell!"},
		{"origin mode", "\x1b[2;3r\x1b[?6h\x1b[Hx\x1b[9;1Hy", "\nx\ny"},
		{"wide characters", "漢字x", "漢字x"},
		{"a wide one does not fit at the edge", "abcdefghi漢", "abcdefghi\n漢"},
		{"combining marks", "e\u0301x", "e\u0301x"},
		{"line drawing", "\x1b(0lqk\x1b(Bx", "┌─┐x"},
		{"titles become text", "\x1b]0;evil\x07", "␛]0;evil"},
		{"colours are no text", "\x1b[1;31mred\x1b[0m", "red"},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			if got := shown(t, 10, 4, x.output).text(); got != x.want {
				t.Errorf("%q shows\n%s\nwant\n%s", x.output, got, x.want)
			}
		})
	}
}

func TestGridLooks(t *testing.T) {
	t.Parallel()
	g := shown(t, 20, 2, "a\x1b[1;31mb\x1b[22mc\x1b[38;5;200md\x1b[0me\x1b[48:2::1:2:3mf\x1b[49;7mg\x1b[27;39mh")
	want := "\x1b[ma\x1b[0;1;31mb\x1b[0;31mc\x1b[0;38;5;200md\x1b[0me\x1b[0;48:2::1:2:3mf\x1b[0;7mg\x1b[0mh"
	if got := string(g.line(nil, 0, 8)); got != want+"\x1b[m\x1b[K" {
		t.Errorf("%q, want %q", got, want)
	}
	if got := string(shown(t, 4, 1, "漢字").line(nil, 0, 3)); !strings.Contains(got, "漢 ") || strings.Contains(got, "字") {
		t.Errorf("a wide character that is cut: %q", got)
	}
}

func TestGridIsResized(t *testing.T) {
	t.Parallel()
	g := shown(t, 10, 4, "1\r\n2\r\n3\r\n4 long")
	g.resize(3, 2)
	if got := g.text(); got != "3\n4 l" {
		t.Errorf("smaller: %q", got)
	}
	g.resize(20, 3)
	if _, err := fmt.Fprint(g, "\r\nnew"); err != nil || g.text() != "3\n4 l\nnew" {
		t.Errorf("larger: %q", g.text())
	}
	g.resize(0, -5)
	g.resize(1<<30, 1<<30)
	if g.cols != maxSide || g.rows != maxSide {
		t.Errorf("%dx%d", g.cols, g.rows)
	}
}

// FuzzGrid: whatever a session writes, the grid stays what it is, and nothing of the session but text and looks is drawn.
func FuzzGrid(f *testing.F) {
	f.Add([]byte("\x1b[2;3r\x1b[?6h\x1b[9;9H\x1b[?1049h漢\x1b[4h字\x1b[5T\x1b[7S\x1b8\x1b[3L\x1b[99@"), 10, 4)
	f.Add([]byte("\x1b[1;1r\x1b[2M\x1bM\x1bM\u0301\b\x1b[Z\x1b[I\t\x1b[1K"), 1, 1)
	f.Fuzz(func(t *testing.T, output []byte, cols, rows int) {
		g := newGrid(cols%50, rows%50)
		screen := recording.NewNeutraliser(g, recording.Live)
		if _, err := screen.Write(output); err != nil {
			t.Fatal(err)
		}
		g.resize(rows%50, cols%50)
		if err := screen.Close(); err != nil {
			t.Fatal(err)
		}
		for y := range g.rows {
			if len(g.cells[y]) != g.cols {
				t.Fatalf("line %d has %d places of %d", y, len(g.cells[y]), g.cols)
			}
			for _, part := range strings.Split(string(g.line(nil, y, g.cols)), "\x1b")[1:] {
				if !strings.HasPrefix(part, "[") || strings.TrimLeft(part[1:], "0123456789;:")[0] != 'm' && !strings.HasPrefix(part, "[K") {
					t.Fatalf("drawn: ESC %q", part)
				}
			}
		}
	})
}
