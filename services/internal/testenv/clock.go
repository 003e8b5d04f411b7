// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cacert.org/emergency/services/internal/app"
)

// SteppedClock is the clock of epatchd in a process of its own, which a test steps while it runs. Only a test binary has it: a released
// program asks nothing but its machine.
type SteppedClock struct{ file string }

// NewSteppedClock makes a clock that is right; its file goes into a folder.
func NewSteppedClock(dir, name string) *SteppedClock {
	return &SteppedClock{filepath.Join(dir, name+".clock")}
}

// Env makes a child ask this clock.
func (c *SteppedClock) Env() string { return clockVariable + "=" + c.file }

// Step makes the clock go wrong by so much, at once; 0 sets it right.
func (c *SteppedClock) Step(t testing.TB, ahead time.Duration) {
	t.Helper()
	must(t, os.WriteFile(c.file+".new", []byte(ahead.String()), 0o600))
	must(t, os.Rename(c.file+".new", c.file))
}

// steppedFrom is a timer.Clock in the child.
type steppedFrom string

func wrongClock(file string) []func(*app.Settings) {
	if file == "" {
		return nil
	}
	return []func(*app.Settings){func(s *app.Settings) { s.Clock = steppedFrom(file) }}
}

// Now is the machine's time and the step. Like a machine's clock that was set, it has no memory of how much time has really passed.
func (c steppedFrom) Now() time.Time {
	now := time.Now().UTC().Round(0)
	text, err := os.ReadFile(string(c))
	if errors.Is(err, os.ErrNotExist) {
		return now
	}
	ahead, err := time.ParseDuration(string(text))
	if err != nil {
		panic(fmt.Sprintf("clock of a test: %v", err))
	}
	return now.Add(ahead)
}

// Alarm rings as the machine's does: after the time that there is until t when it is set, whatever happens to the clock meanwhile.
func (c steppedFrom) Alarm(t time.Time) (<-chan struct{}, func()) {
	rung := make(chan struct{})
	timer := time.AfterFunc(t.Sub(c.Now()), func() { close(rung) })
	return rung, func() { timer.Stop() }
}
