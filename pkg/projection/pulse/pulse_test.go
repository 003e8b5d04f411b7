// SPDX-License-Identifier: Apache-2.0

package pulse

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"cacert.org/emergency/pkg/timer"
)

func TestAge(t *testing.T) {
	t.Parallel()
	t0 := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	clock := timer.NewManual(t0)
	var stored, read, unread uint64
	var away error
	p := New(Config{
		Clock: clock, Log: slog.New(slog.DiscardHandler), Read: func() uint64 { return read }, Measure: func(n uint64) { unread = n },
		Stored: func(context.Context) (uint64, error) { return stored, away },
	})
	at := func(seconds int) time.Time { return t0.Add(time.Duration(seconds) * time.Second) }
	for _, step := range []struct {
		what         string
		seconds      int
		stored, read uint64
		away         bool
		want         Age
		told         bool // that something has changed
	}{
		{"nothing is stored", 0, 0, 0, false, Age{}, false},
		{"some is stored and read", 2, 7, 7, false, Age{}, false},
		{"one is not read yet", 4, 8, 7, false, Age{}, false},
		{"for six seconds", 10, 9, 7, false, Age{Unread: 2, Since: at(4)}, true},
		{"it was read, the next is new", 12, 10, 9, false, Age{}, true},
		{"and read in its turn: behind all the time, and never long", 16, 12, 11, false, Age{}, false},
		{"all is read", 18, 12, 12, false, Age{}, false},
		{"no answer for a moment", 20, 12, 12, true, Age{}, false},
		{"for six seconds", 24, 12, 12, true, Age{Away: true, Since: at(18)}, true},
		{"still", 60, 12, 12, true, Age{Away: true, Since: at(18)}, false},
		{"it answers, and has more", 62, 20, 12, false, Age{}, true},
		{"that stays unread", 68, 20, 12, false, Age{Unread: 8, Since: at(62)}, true},
		{"and then it is away as well", 80, 20, 12, true, Age{Away: true, Since: at(68)}, true},
	} {
		changed := p.Changed()
		clock.Set(at(step.seconds))
		stored, read, away = step.stored, step.read, nil
		if step.away {
			away = errors.New("no servers")
		}
		p.ask(t.Context())
		if got := p.Age(); got != step.want || got.Old() != (step.want != Age{}) {
			t.Errorf("at %d s, %s: %+v, want %+v", step.seconds, step.what, got, step.want)
		}
		if !step.away && unread != stored-read {
			t.Errorf("at %d s, %s: %d unread are measured", step.seconds, step.what, unread)
		}
		select {
		case <-changed:
			if !step.told {
				t.Errorf("at %d s, %s: told of a change", step.seconds, step.what)
			}
		default:
			if step.told {
				t.Errorf("at %d s, %s: not told", step.seconds, step.what)
			}
		}
	}
}

// A log that never answered is away, too, and nobody can say since when.
func TestNeverHeard(t *testing.T) {
	t.Parallel()
	clock := timer.NewManual(time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC))
	p := New(Config{
		Clock: clock, Log: slog.New(slog.DiscardHandler), Read: func() uint64 { return 0 },
		Stored: func(context.Context) (uint64, error) { return 0, errors.New("no servers") },
	})
	p.ask(t.Context())
	clock.Advance(patience)
	if got := p.Age(); got != (Age{Away: true}) {
		t.Errorf("%+v", got)
	}
	var none *Pulse
	if none.Age().Old() || none.Changed() != nil {
		t.Error("no pulse has something to tell")
	}
}

// Run asks at once and then by the clock, and ends with its context.
func TestRun(t *testing.T) {
	t.Parallel()
	clock := timer.NewManual(time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC))
	asked := make(chan struct{})
	p := New(Config{
		Clock: clock, Log: slog.New(slog.DiscardHandler), Read: func() uint64 { return 0 },
		Stored: func(context.Context) (uint64, error) { asked <- struct{}{}; return 0, nil },
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	<-asked
	for again := false; !again; {
		clock.Advance(every)
		select {
		case <-asked:
			again = true
		default: // it has not set its alarm yet
		}
	}
	stop()
	for {
		select {
		case <-asked:
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			return
		}
	}
}
