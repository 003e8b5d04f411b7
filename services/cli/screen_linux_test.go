// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"cacert.org/emergency/pkg/recording"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// openPTY opens a pseudo terminal: the master is the test's, the slave the program's.
func openPTY(t *testing.T, cols, rows uint16) (master, slave *os.File) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = master.Close(), slave.Close() })
	if err := pty.Setsize(slave, &pty.Winsize{Cols: cols, Rows: rows}); err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// terminal is the person's terminal: it understands what the view draws.
type terminal struct {
	raw    lockedBuffer
	master *os.File
}

func (x *terminal) read() { _, _ = io.Copy(&x.raw, x.master) } // until the pty is closed

// screen is what the person sees.
func (x *terminal) screen(cols, rows int) string {
	g := newGrid(cols, rows)
	s := recording.NewNeutraliser(g, recording.Live)
	_, _ = io.WriteString(s, x.raw.String()) // a grid takes everything
	return g.text()
}

func (x *terminal) until(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if strings.Contains(x.screen(100, 25), text) {
			return
		}
	}
	t.Fatalf("%q never came:\n%s", text, x.screen(100, 25))
}

func (x *terminal) keys(t *testing.T, keys string) {
	t.Helper()
	if _, err := io.WriteString(x.master, keys); err != nil {
		t.Fatal(err)
	}
}

// TestTheScreen plays a watcher at a terminal: what is seen, that no single key does anything, what the chords do, and that the
// terminal is given back.
func TestTheScreen(t *testing.T) {
	t.Parallel()
	master, slave := openPTY(t, 100, 25)
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{master: master}
	go x.read()
	p := Process{Stdin: slave, Stdout: slave, Stderr: io.Discard, Now: time.Now, Zone: time.UTC}
	a := &app{proc: p, out: newPrinter(slave, p), errs: newPrinter(io.Discard, p)}
	r := newWatchRig(t, a, &viewing{})
	r.start(t)
	r.welcomed(t, watcherMode)
	r.stands(&deploymentv1.WatchState{State: "live", InputOpen: true})
	x.until(t, "G1 LIVE  input open")

	r.output(50, "\x1b]0;title\x07anna@critical-1:~$ \x1b[99;1Hcover the state\x1b[H")
	r.renewal(t, "shown", func(m *deploymentv1.WatchRenewal) bool { return m.GetRendered() == 50 })
	x.until(t, "␛]0;title")
	if got := x.screen(100, 25); !strings.Contains(got, "cover the state\n") || !strings.Contains(got, "G1 LIVE") {
		t.Errorf("the session wrote over the state:\n%s", got)
	}

	x.keys(t, "fkrq\x03\x1a")
	x.until(t, "you only watch")
	x.keys(t, "\x1cf")
	if c, ok := r.command(t).(*emergencyv1.FreezeRequest); !ok {
		t.Errorf("the first thing that any key did was %v", c)
	}
	x.until(t, " frozen")
	x.keys(t, "\x1cn")
	x.until(t, "note, then Enter")
	x.keys(t, "lookk\x7fs at gr\xc3\xbc\xc3\xbce\r")
	if c, ok := r.command(t).(*emergencyv1.MarkSessionRequest); !ok || c.GetText() != "looks at grüüe" {
		t.Errorf("note: %v", c)
	}
	x.keys(t, "\x1ce\x1b")          // not, after all
	x.keys(t, "\x1cnhe does \x1ck") // no time for the rest
	if c, ok := r.command(t).(*emergencyv1.TerminateRequest); !ok {
		t.Errorf("kill: %v", c)
	}
	if c, ok := r.command(t).(*emergencyv1.DisableRequest); !ok {
		t.Errorf("kill: %v", c)
	}
	x.keys(t, "\x1cq")
	if err := r.ended(t); !errors.Is(err, errLeft) {
		t.Errorf("left: %v", err)
	}
	after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal is not as it was: %v %v", after, err)
	}
	for end := time.Now().Add(patience); !strings.HasSuffix(x.raw.String(), leaveScreen); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the screen is not given back")
		}
	}
}

// TestAChordIsShort: the prefix alone arms nothing for later.
func TestAChordIsShort(t *testing.T) {
	t.Parallel()
	_, slave := openPTY(t, 80, 24)
	now := time.Now()
	p := Process{Stdin: slave, Stdout: slave, Now: func() time.Time { return now }, Zone: time.UTC}
	v := &screenView{app: &app{proc: p, out: newPrinter(slave, p)}, grant: "G1", out: slave, in: slave}
	v.fresh(80, 24)
	var got []string
	k := &chords{view: v, give: func(o order) { got = append(got, o.what) }}
	k.key(prefixKey)
	now = now.Add(chordTime + time.Millisecond)
	k.key('k')
	k.key('k')
	k.key(prefixKey)
	now = now.Add(chordTime)
	k.key('p')
	if len(got) != 1 || got[0] != "presence" {
		t.Errorf("given: %v", got)
	}
}
