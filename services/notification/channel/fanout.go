// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Settings bound what a Fanout holds and how long it tries. Zero values take the default.
type Settings struct {
	// Queue is how many pages a channel holds, waiting or being sent; 256.
	Queue int
	// Workers is how many pages a channel sends at once; 4.
	Workers int
	// Attempt is how long one attempt may take; 30 s.
	Attempt time.Duration
	// GiveUp is how long after it was taken a page is still tried; 5 min, so that it ends before callout.repage
	// (procedure.md 3.2) pages again. The final outcome comes at the latest Attempt later.
	GiveUp time.Duration
	// FirstPause is the pause before the second attempt, MaxPause the longest; 2 s and 60 s.
	FirstPause, MaxPause time.Duration
	// Drain is how long Run goes on sending after it was told to stop; 10 s.
	Drain time.Duration
}

func (s Settings) withDefaults() Settings {
	s.Queue, s.Workers = cmp.Or(s.Queue, 256), cmp.Or(s.Workers, 4)
	s.Attempt, s.GiveUp, s.Drain = cmp.Or(s.Attempt, 30*time.Second), cmp.Or(s.GiveUp, 5*time.Minute), cmp.Or(s.Drain, 10*time.Second)
	s.FirstPause, s.MaxPause = cmp.Or(s.FirstPause, 2*time.Second), cmp.Or(s.MaxPause, time.Minute)
	return s
}

// Check names each setting that cannot be.
func (s Settings) Check() error {
	s = s.withDefaults()
	var errs []error
	want := func(ok bool, setting, why string) {
		if !ok {
			errs = append(errs, fmt.Errorf("notification.%s: %s", setting, why))
		}
	}
	want(s.Queue > 0, "queue", "at least 1")
	want(s.Workers > 0 && s.Workers <= s.Queue, "workers", "at least 1, at most the queue")
	want(s.Attempt > 0, "attempt", "a positive duration")
	want(s.GiveUp > 0, "give_up", "a positive duration")
	want(s.FirstPause > 0, "first_pause", "a positive duration")
	want(s.MaxPause >= s.FirstPause, "max_pause", "at least first_pause")
	want(s.Drain > 0, "drain", "a positive duration")
	return errors.Join(errs...)
}

// Outcome is one receipt. A page has one for each attempt; the last is Final.
type Outcome struct {
	// Channel is the channel's name.
	Channel string
	// Page is the page as it was submitted.
	Page Page
	// Receipt is the truth about all attempts so far: if one of them may have arrived, a later Failed reads Unknown.
	Receipt Receipt
	// Attempt counts from 1; 0 if the page was given up before it was tried.
	Attempt int
	// Final says that nothing more will be tried.
	Final bool
	// At is when the attempt ended.
	At time.Time
}

// Fanout gives each channel a bounded queue and workers of its own.
type Fanout struct {
	set     Settings
	clock   Clock
	report  func(Outcome)
	lanes   map[string]*lane
	started atomic.Bool
}

// New makes a Fanout. report is called by the workers of the page's channel, several at once, and holds up only that
// channel; it must return.
func New(set Settings, clock Clock, report func(Outcome), channels ...Channel) (*Fanout, error) {
	if err := set.Check(); err != nil {
		return nil, err
	}
	if clock == nil || report == nil {
		return nil, errors.New("fanout: a clock and a report function are needed")
	}
	f := &Fanout{set: set.withDefaults(), clock: clock, report: report, lanes: map[string]*lane{}}
	for _, c := range channels {
		if c == nil || c.Name() == "" {
			return nil, errors.New("fanout: a channel without a name")
		}
		if f.lanes[c.Name()] != nil {
			return nil, fmt.Errorf("fanout: two channels are called %s", c.Name())
		}
		f.lanes[c.Name()] = newLane(f, c)
	}
	return f, nil
}

// Submit gives a page to a channel and returns at once. taken: the outcome comes by the report function; a page that
// the channel still holds is not taken twice. Not taken: the receipt is the final outcome, Failed, and report is not
// called, so the caller may hold locks.
func (f *Fanout) Submit(channel string, p Page) (refused Receipt, taken bool) {
	l := f.lanes[channel]
	if l == nil {
		return Receipt{State: Failed, Detail: "no channel of this name is configured"}, false
	}
	if p.ID == "" {
		return Receipt{State: Failed, Detail: "the page has no id"}, false
	}
	return l.submit(p)
}

// Run sends until ctx ends, then drains: no page is taken, what waits for another attempt is final as it stands, what
// was not tried is tried once while Settings.Drain lasts. When Run returns every page that was taken has its final
// outcome, and channels that are Runners have stopped.
func (f *Fanout) Run(ctx context.Context) error {
	if f.started.Swap(true) {
		return errors.New("fanout: runs already")
	}
	open, shut := context.WithCancel(context.WithoutCancel(ctx))
	defer shut()
	errs := make(chan error, len(f.lanes))
	for _, l := range f.lanes {
		go func() { errs <- runChannel(open, l.ch) }()
	}
	work, kill := context.WithCancel(open)
	defer kill()
	var lanes sync.WaitGroup
	for _, l := range f.lanes {
		for range f.set.Workers {
			lanes.Go(func() { l.work(work) })
		}
	}
	<-ctx.Done()
	for _, l := range f.lanes {
		l.stop()
	}
	drained := make(chan struct{})
	go func() { lanes.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-f.clock.After(f.set.Drain):
		kill()
		<-drained
	}
	shut()
	var all []error
	for range f.lanes {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func runChannel(ctx context.Context, c Channel) error {
	r, ok := c.(Runner)
	if !ok {
		return nil
	}
	if err := r.Run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("channel %s stopped by itself: %w", c.Name(), err)
	}
	return nil
}
