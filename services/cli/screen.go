// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/term"

	"cacert.org/emergency/pkg/recording"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
)

// screenView shows a session on the watcher's terminal, and its state on the last line.
type screenView struct {
	app   *app
	grant string
	out   *os.File
	in    *os.File
	raw   *term.State

	mu     sync.Mutex
	grid   *grid
	screen *recording.Neutraliser
	st     *deploymentv1.WatchState
	mode   deploymentv1.WatchMode
	said   string
	until  time.Time
	typing *entry
	shift  int // first line of the grid that is shown
	drawn  string
	closed bool
	stops  []func()
}

// entry is a text that the watcher is typing.
type entry struct {
	what, text string
}

const (
	enterScreen = "\x1b[?1049h\x1b[m\x1b[2J"
	leaveScreen = "\x1b[m\x1b[?25h\x1b[?1049l"
	saidTime    = 6 * time.Second
	chordTime   = 2 * time.Second
	prefixKey   = 0x1c // Ctrl-\
)

const keysHelp = `keys, after Ctrl-\: f freeze  r resume  k kill  n note  e extend  p present  q leave`

func openScreen(a *app, grant string, out *os.File) (consoleView, error) {
	in, ok := a.proc.Stdin.(*os.File)
	if !ok || !term.IsTerminal(in.Fd()) {
		return nil, usage("standard input is no terminal, so no key could freeze or end the session").hint("as a log: epatch watch-console --plain")
	}
	v := &screenView{app: a, grant: grant, out: out, in: in}
	v.fresh(80, 24)
	if err := v.take(); err != nil {
		return nil, err
	}
	v.stops = append(v.stops, onResize(v.redraw), repeatedly(time.Second, v.tick))
	return v, nil
}

// repeatedly calls fn again and again until it is stopped.
func repeatedly(d time.Duration, fn func()) (stop func()) {
	t, done := time.NewTicker(d), make(chan struct{})
	go func() {
		defer t.Stop()
		for {
			select {
			case <-t.C:
				fn()
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// take makes the terminal the view's.
func (v *screenView) take() (err error) {
	if v.raw, err = term.MakeRaw(v.in.Fd()); err != nil {
		return fmt.Errorf("read single keys: %w", err)
	}
	_, err = io.WriteString(v.out, enterScreen)
	return err
}

// give gives the terminal back.
func (v *screenView) give() {
	_, _ = io.WriteString(v.out, leaveScreen) // there is nothing else to be done about it
	_ = term.Restore(v.in.Fd(), v.raw)
}

func (v *screenView) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	v.closed = true
	for _, stop := range v.stops {
		stop()
	}
	v.give()
}

func (v *screenView) hidden(told func(bool)) (stop func()) {
	return onSuspend(func() {
		v.mu.Lock() // nothing is drawn while the terminal is somebody else's
		v.give()
	}, func() {
		_ = v.take() // else the next write fails, and ends the view
		v.mu.Unlock()
		v.redraw()
	}, told)
}

// fresh begins with an empty screen of the session's size.
func (v *screenView) fresh(cols, rows int) {
	v.grid = newGrid(cols, rows)
	v.screen = recording.NewNeutraliser(v.grid, recording.Live)
}

func (v *screenView) welcome(m *deploymentv1.WatchWelcome) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mode = m.GetMode()
	v.fresh(int(m.GetColumns()), int(m.GetRows()))
	v.grid.touch(0, v.grid.rows)
	return v.draw()
}

func (v *screenView) frame(f *deploymentv1.WatchFrame) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch f.GetKind() {
	case deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_OUTPUT:
		if _, err := v.screen.Write(f.GetData()); err != nil {
			return err
		}
	case deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_RESIZE:
		v.grid.resize(int(f.GetColumns()), int(f.GetRows()))
	case deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_NOTICE:
		v.note(f.GetNotice())
	case deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_INPUT, deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_UNSPECIFIED: // its echo is output
	}
	return v.draw()
}

func (v *screenView) state(m *deploymentv1.WatchState) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.st = m
	return v.draw()
}

func (v *screenView) say(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.note(text)
	_ = v.draw() // a terminal that is gone is noticed by the next frame
}

func (v *screenView) note(text string) { v.said, v.until = text, v.app.proc.Now().Add(saidTime) }

func (v *screenView) tick() {
	v.mu.Lock()
	defer v.mu.Unlock()
	_ = v.draw() // as in say
}

func (v *screenView) redraw() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.drawn = ""
	v.grid.touch(0, v.grid.rows)
	_ = v.draw() // as in say
}

// draw brings to the terminal what has changed. It returns once the terminal has taken it.
func (v *screenView) draw() error {
	if v.closed {
		return nil
	}
	width, height, err := term.GetSize(v.out.Fd())
	if err != nil || width <= 0 || height <= 1 {
		width, height = 80, 24
	}
	room := height - 1
	if shift := v.firstLine(room); shift != v.shift {
		v.shift = shift
		v.grid.touch(0, v.grid.rows)
	}
	b := []byte("\x1b[?25l")
	for y := range v.grid.rows {
		if row := y - v.shift; v.grid.dirty[y] && row >= 0 && row < room {
			b = v.grid.line(fmt.Appendf(b, "\x1b[%d;1H", row+1), y, width)
		}
		v.grid.dirty[y] = false
	}
	if v.drawn == "" {
		for row := v.grid.rows - v.shift; row < room; row++ {
			b = fmt.Appendf(b, "\x1b[%d;1H\x1b[m\x1b[K", row+1)
		}
	}
	if line := v.statusLine(width, room); line != v.drawn {
		b = fmt.Appendf(b, "\x1b[%d;1H\x1b[m%s\x1b[m", height, line)
		v.drawn = line
	}
	if !v.grid.noCursor {
		b = fmt.Appendf(b, "\x1b[%d;%dH\x1b[?25h", min(v.grid.y-v.shift, room-1)+1, min(v.grid.x, width-1)+1)
	}
	_, err = v.out.Write(b)
	return err
}

// firstLine keeps the cursor in sight where the session's screen is higher than the terminal.
func (v *screenView) firstLine(room int) int {
	most := v.grid.rows - room
	if most <= 0 {
		return 0
	}
	return min(most, max(v.grid.y-room+1, 0))
}

// statusLine is the last line: what was said, what is typed, or how the session stands.
func (v *screenView) statusLine(width, room int) string {
	text := v.standing(width, room)
	switch {
	case v.typing != nil:
		text = v.typing.what + ", then Enter (Esc: not): " + v.typing.text + "_"
	case v.said != "" && v.app.proc.Now().Before(v.until):
		text = v.said
	}
	text = cutTo(" "+harmless(text), width)
	return lipgloss.NewStyle().Reverse(true).Render(text + strings.Repeat(" ", max(width-lipgloss.Width(text), 0)))
}

// cutTo cuts a text to a width.
func cutTo(text string, width int) string {
	for lipgloss.Width(text) > width {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}

// standing is how the session stands.
func (v *screenView) standing(width, room int) string {
	if v.st == nil {
		return v.grant + "  waiting for the session"
	}
	now := v.app.proc.Now()
	parts := []string{v.grant + " " + strings.ToUpper(strings.ReplaceAll(v.st.GetState(), "_", " ")) + becauseOf(v.st.GetCause()), inputWord(v.st)}
	left := func(name string, at interface{ AsTime() time.Time }, set bool) {
		if set {
			parts = append(parts, name+" "+shortSpan(at.AsTime().Sub(now)))
		}
	}
	left("ENDS in", v.st.GetGraceUntil(), v.st.GetGraceUntil() != nil)
	left("left", v.st.GetEndsAt(), v.st.GetEndsAt() != nil)
	left("present (p) by", v.st.GetPresenceUntil(), v.st.GetPresenceUntil() != nil && v.mode == deploymentv1.WatchMode_WATCH_MODE_WATCHER)
	for _, p := range v.st.GetPersons() {
		parts = append(parts, p.GetPart()+" "+p.GetPerson())
	}
	if v.grid.cols > width || v.grid.rows > room {
		parts = append([]string{fmt.Sprintf("ENLARGE to %dx%d", v.grid.cols, v.grid.rows+1)}, parts...)
	}
	return strings.Join(append(parts, `Ctrl-\ h`), "  ")
}

// shortSpan is a time on the way to its end, as m:ss.
func shortSpan(d time.Duration) string {
	s := max(int(d.Seconds()), 0)
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// orders reads keys until ctx ends. One key alone does nothing.
func (v *screenView) orders(ctx context.Context, give func(order)) error {
	k := &chords{view: v, give: give}
	buf := make([]byte, 256)
	for ctx.Err() == nil {
		n, err := v.in.Read(buf)
		if err != nil {
			return err
		}
		for _, c := range buf[:n] {
			k.key(c)
		}
	}
	return nil
}

// chords turns keys into orders.
type chords struct {
	view   *screenView
	give   func(order)
	prefix time.Time // when the prefix was typed; zero if it was not the last key
}

func (k *chords) key(c byte) {
	if k.entering(c) {
		return
	}
	now := k.view.app.proc.Now()
	switch {
	case c == prefixKey:
		k.prefix = now
		k.view.say(keysHelp)
	case k.prefix.IsZero() || now.Sub(k.prefix) > chordTime:
		k.prefix = time.Time{}
		k.view.say("you only watch. " + keysHelp)
	default:
		k.prefix = time.Time{}
		k.chord(c)
	}
}

func (k *chords) chord(c byte) {
	single := map[byte]string{'f': "freeze", 'r': "resume", 'k': "kill", 'p': "presence", 'q': "leave"}
	text := map[byte]string{'n': "note", 'e': "extend"}
	switch {
	case single[c] != "":
		k.view.say(single[c] + " ...")
		k.give(order{what: single[c]})
	case text[c] != "":
		k.view.edit(&entry{what: text[c]})
	default:
		k.view.say(keysHelp)
	}
}

// entering takes a key as part of a text; false if none is being typed.
func (k *chords) entering(c byte) bool {
	v := k.view
	v.mu.Lock()
	e := v.typing
	v.mu.Unlock()
	if e == nil {
		return false
	}
	next := &entry{e.what, e.text}
	switch c {
	case '\r', '\n':
		v.edit(nil)
		if text := strings.TrimSpace(e.text); text != "" {
			k.give(order{e.what, text})
		}
		return true
	case 0x1b, 0x03:
		v.edit(nil)
		return true
	case prefixKey: // whoever types a note may have to freeze at once
		v.edit(nil)
		return false
	case 0x7f, 0x08:
		_, size := utf8.DecodeLastRuneInString(e.text)
		next.text = e.text[:len(e.text)-size]
	default:
		if c >= ' ' && len(e.text) < 500 {
			next.text += string([]byte{c}) // a character of several bytes comes byte by byte
		}
	}
	v.edit(next)
	return true
}

func (v *screenView) edit(e *entry) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.typing, v.said = e, ""
	_ = v.draw() // as in say
}
