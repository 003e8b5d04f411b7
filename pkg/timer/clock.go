// SPDX-License-Identifier: Apache-2.0

package timer

import (
	"sync"
	"time"
)

// Clock is where time comes from. Every part that asks for the time is given one, so that a test can hold it in its hand
// and 24 hours pass in a millisecond.
type Clock interface {
	// Now is the present time.
	Now() time.Time
	// Alarm returns a channel that is closed once Now is at or after t, and a function that gives the alarm up.
	Alarm(t time.Time) (<-chan struct{}, func())
}

// System is the machine's clock.
type System struct{}

// Now is the machine's time in UTC.
func (System) Now() time.Time { return time.Now().UTC() }

// Alarm rings at t by the machine's clock.
func (System) Alarm(t time.Time) (<-chan struct{}, func()) {
	rung := make(chan struct{})
	timer := time.AfterFunc(time.Until(t), func() { close(rung) })
	return rung, func() { timer.Stop() }
}

// Manual is a clock that stands still until it is moved.
type Manual struct {
	mu     sync.Mutex
	now    time.Time
	alarms map[*alarm]bool
}

type alarm struct {
	at   time.Time
	rung chan struct{}
}

// NewManual returns a clock that stands at t.
func NewManual(t time.Time) *Manual { return &Manual{now: t.UTC(), alarms: map[*alarm]bool{}} }

// Now is the time the clock stands at.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Alarm rings when the clock is moved to t or beyond.
func (m *Manual) Alarm(t time.Time) (<-chan struct{}, func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := &alarm{at: t, rung: make(chan struct{})}
	if !t.After(m.now) {
		close(a.rung)
		return a.rung, func() {}
	}
	m.alarms[a] = true
	return a.rung, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.alarms, a)
	}
}

// Advance moves the clock forward and rings what has come due.
func (m *Manual) Advance(d time.Duration) { m.Set(m.Now().Add(d)) }

// Set moves the clock to t, backwards too, and rings what has come due.
func (m *Manual) Set(t time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = t.UTC()
	for a := range m.alarms {
		if !a.at.After(m.now) {
			close(a.rung)
			delete(m.alarms, a)
		}
	}
}
