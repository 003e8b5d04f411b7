// SPDX-License-Identifier: Apache-2.0

// Package pulse tells how old what projections say is: whether the event log answers, and whether the projections keep up with it.
//
// Projections go on answering while the log is away or they are behind it. That is right for readers, who see the last known state,
// as long as they are told so. No rule depends on it: a command is decided on the log itself.
package pulse

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"cacert.org/emergency/pkg/timer"
)

// How often the log is asked, how long it may take to answer, and how long it may be silent, or a record unread, until readers are told.
const (
	every    = 2 * time.Second
	within   = 2 * time.Second
	patience = 5 * time.Second
)

// Config of a pulse. All fields are required but Measure.
type Config struct {
	Clock timer.Clock
	Log   *slog.Logger
	// Stored is the last sequence in the log, asked of the log itself; Read the last one that the projections have.
	Stored func(context.Context) (uint64, error)
	Read   func() uint64
	// Measure is told after each answer how many records are not read. Optional.
	Measure func(unread uint64)
}

// Age is how old what is read is. The zero value is: not worth telling.
type Age struct {
	// Away is set when the log does not answer; Since is when it last did, zero if it never did.
	Away bool
	// Unread is how many records the log has that are not read yet although there was time; Since is from when on.
	Unread uint64
	Since  time.Time
}

// Old tells whether readers must be told.
func (a Age) Old() bool { return a.Away || a.Unread > 0 }

// Pulse asks the log now and then.
type Pulse struct {
	cfg Config

	mu      sync.Mutex
	began   time.Time // of asking
	heard   time.Time // the last answer
	stored  uint64    // what it said
	owed    uint64    // the sequence that is not read although it was stored at owedAt; 0 for none
	owedAt  time.Time
	told    Age           // at the last look, without its number
	changed chan struct{} // closed and replaced when told changes
}

// New returns a pulse that has not asked yet.
func New(cfg Config) *Pulse {
	return &Pulse{cfg: cfg, began: cfg.Clock.Now(), changed: make(chan struct{})}
}

// Run asks until ctx ends.
func (p *Pulse) Run(ctx context.Context) error {
	for {
		p.ask(ctx)
		alarm, stop := p.cfg.Clock.Alarm(p.cfg.Clock.Now().Add(every))
		select {
		case <-ctx.Done():
			stop()
			return nil
		case <-alarm:
		}
	}
}

func (p *Pulse) ask(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, within)
	stored, err := p.cfg.Stored(bounded)
	cancel()
	if ctx.Err() != nil {
		return
	}
	read := p.cfg.Read()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Clock.Now()
	if err == nil {
		p.heard, p.stored = now, stored
		switch {
		case read >= stored:
			p.owed = 0
		case p.owed == 0 || read >= p.owed:
			p.owed, p.owedAt = stored, now
		}
		if p.cfg.Measure != nil {
			p.cfg.Measure(stored - min(read, stored))
		}
	}
	was := p.told
	p.told = p.age(now, read)
	p.told.Unread = min(p.told.Unread, 1) // that it is behind, not by how much
	if p.told == was {
		return
	}
	switch {
	case p.told.Away && !was.Away:
		p.cfg.Log.WarnContext(ctx, "the event log does not answer: readers are told how old what they see is", "since", p.told.Since, "error", err)
	case was.Away && !p.told.Away:
		p.cfg.Log.InfoContext(ctx, "the event log answers again")
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// age is how old what is read is; under mu.
func (p *Pulse) age(now time.Time, read uint64) Age {
	last := p.heard
	if last.IsZero() {
		last = p.began
	}
	switch {
	case now.Sub(last) >= patience:
		return Age{Away: true, Since: p.heard}
	case p.owed > read && now.Sub(p.owedAt) >= patience:
		return Age{Unread: p.stored - read, Since: p.owedAt}
	}
	return Age{}
}

// Age is how old what is read now is. A nil pulse has nothing to tell.
func (p *Pulse) Age() Age {
	if p == nil {
		return Age{}
	}
	read := p.cfg.Read()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.age(p.cfg.Clock.Now(), read)
}

// Changed returns a channel that is closed when what readers must be told has changed; nil, which never happens, for a nil pulse.
func (p *Pulse) Changed() <-chan struct{} {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}
