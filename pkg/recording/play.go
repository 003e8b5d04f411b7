// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"context"
	"fmt"
	"io"
	"iter"
	"time"
)

// Options of a playback. The zero value plays at the speed of the session, from the beginning, with all its pauses.
type Options struct {
	// Speed is how much faster than it was; 0 is 1. Below 0 nothing is waited for.
	Speed float64
	// From is where to begin. What was before is shown at once, so that the screen is what it was.
	From Place
	// MaxIdle shortens pauses, before Speed; 0 leaves them.
	MaxIdle time.Duration
	// Start is the recording's start, for From.After; see Header.StartedAt. Without it the first frame is the start.
	Start time.Time
	// Profile of the terminal's language that is let through.
	Profile Profile
	// Wait waits, or returns the error of ctx; nil is the machine's clock.
	Wait func(ctx context.Context, d time.Duration) error
	// OnFrame, if not nil, is told every frame before it is shown, for a timeline or a status line; playing is false while
	// From is not reached. An error ends the playback.
	OnFrame func(f Frame, playing bool) error
}

// Play shows the output of frames on a terminal, neutralised, and sets the terminal back at the end. It ends with the frames,
// with ctx, or with an error of the frames, of OnFrame or of w.
func Play(ctx context.Context, frames iter.Seq2[Frame, error], w io.Writer, o Options) error {
	screen := NewNeutraliser(w, o.Profile)
	err := play(ctx, frames, screen, o)
	if closed := screen.Close(); err == nil {
		err = closed
	}
	return err
}

func play(ctx context.Context, frames iter.Seq2[Frame, error], screen io.Writer, o Options) error {
	wait := o.Wait
	if wait == nil {
		wait = sleep
	}
	playing, last := false, time.Time{}
	for f, err := range frames {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if o.Start.IsZero() {
			o.Start = f.At
		}
		pause := time.Duration(0)
		if playing {
			pause = o.pause(f.At.Sub(last))
		}
		playing, last = playing || o.From.reached(f, o.Start), f.At
		if pause > 0 {
			if err := wait(ctx, pause); err != nil {
				return err
			}
		}
		if o.OnFrame != nil {
			if err := o.OnFrame(f, playing); err != nil {
				return err
			}
		}
		if out, ok := f.Body.(Output); ok {
			if _, err := screen.Write(out.Data); err != nil {
				return fmt.Errorf("show frame %d: %w", f.Number, err)
			}
		}
	}
	return nil
}

// pause is how long to wait for a frame.
func (o Options) pause(d time.Duration) time.Duration {
	if o.Speed < 0 {
		return 0
	}
	if o.MaxIdle > 0 {
		d = min(d, o.MaxIdle)
	}
	if o.Speed > 0 {
		d = time.Duration(float64(d) / o.Speed)
	}
	return d
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
