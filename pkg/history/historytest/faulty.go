// SPDX-License-Identifier: Apache-2.0

package historytest

import (
	"context"
	"fmt"
	"sync"

	"cacert.org/emergency/pkg/history"
)

// Failure is one of the ways in which a write can fail (style 1.8).
type Failure int

const (
	// NotStored: the write never arrives.
	NotStored Failure = iota
	// AckLost: it is stored, and the answer never arrives.
	AckLost
	// AckLostAndDown: it is stored, the answer never arrives, and nothing answers until Heal.
	AckLostAndDown
)

func (f Failure) String() string {
	return [...]string{"not stored", "ack lost", "ack lost and down"}[f]
}

// Faulty is a store whose appends fail on demand, as those of a store do that does not repeat them by itself.
type Faulty struct {
	history.Store

	mu    sync.Mutex // guards below
	armed []Failure
	down  bool
}

// Fail makes the next append that has no failure yet fail.
func (f *Faulty) Fail(how Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = append(f.armed, how)
}

// Heal ends AckLostAndDown.
func (f *Faulty) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = false
}

// Append implements history.Store.
func (f *Faulty) Append(ctx context.Context, incident string, expected uint64, signed []byte, headers map[string]string) (uint64, error) {
	fail, how, down := f.take()
	if down || fail && how == NotStored {
		return 0, fmt.Errorf("injected: %w", history.ErrUnavailable)
	}
	sequence, err := f.Store.Append(ctx, incident, expected, signed, headers)
	if fail && err == nil {
		return 0, fmt.Errorf("injected, %s: %w", how, history.ErrUnknownOutcome)
	}
	return sequence, err
}

func (f *Faulty) take() (fail bool, how Failure, down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down || len(f.armed) == 0 {
		return false, 0, f.down
	}
	how, f.armed = f.armed[0], f.armed[1:]
	f.down = how == AckLostAndDown
	return true, how, false
}

// Load implements history.Store; it fails while the store is down.
func (f *Faulty) Load(ctx context.Context, incident string, after uint64) ([]history.Message, error) {
	f.mu.Lock()
	down := f.down
	f.mu.Unlock()
	if down {
		return nil, fmt.Errorf("injected: %w", history.ErrUnavailable)
	}
	return f.Store.Load(ctx, incident, after)
}
