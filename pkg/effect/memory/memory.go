// SPDX-License-Identifier: Apache-2.0

// Package memory is a ledger for tests: it ends with the process.
package memory

import (
	"context"
	"sync"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/history"
)

// Ledger keeps everything in memory.
type Ledger struct {
	mu     sync.Mutex
	states map[string]effect.State
	marks  map[string]history.Mark
	leases map[string]lease
}

type lease struct {
	holder   string
	revision uint64
}

// New returns an empty ledger.
func New() *Ledger {
	return &Ledger{states: map[string]effect.State{}, marks: map[string]history.Mark{}, leases: map[string]lease{}}
}

// Intend writes the intent if the key is new.
func (l *Ledger) Intend(_ context.Context, key string) (bool, effect.State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s, ok := l.states[key]; ok {
		return false, s, nil
	}
	l.states[key] = effect.Intended
	return true, effect.Intended, nil
}

// Withdraw takes an intent back.
func (l *Ledger) Withdraw(_ context.Context, key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.states, key)
	return nil
}

// Finish writes the outcome.
func (l *Ledger) Finish(_ context.Context, key string, s effect.State) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states[key] = s
	return nil
}

// Mark returns how far an owner's runner has come.
func (l *Ledger) Mark(_ context.Context, owner string) (history.Mark, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.marks[owner], nil
}

// SetMark writes how far an owner's runner has come.
func (l *Ledger) SetMark(_ context.Context, owner string, m history.Mark) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks[owner] = m
	return nil
}

// Lease returns which instance may run an owner's effects.
func (l *Ledger) Lease(_ context.Context, owner string) (string, uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leases[owner].holder, l.leases[owner].revision, nil
}

// SetLease writes who may run an owner's effects, if nobody wrote it since revision.
func (l *Ledger) SetLease(_ context.Context, owner, holder string, revision uint64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leases[owner].revision != revision {
		return 0, effect.ErrLeaseTaken
	}
	l.leases[owner] = lease{holder, revision + 1}
	return revision + 1, nil
}
