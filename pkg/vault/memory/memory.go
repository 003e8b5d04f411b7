// SPDX-License-Identifier: Apache-2.0

// Package memory is a vault in memory, for tests. What is destroyed is overwritten, but copies the runtime made stay.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"cacert.org/emergency/pkg/vault"
)

// Store is a vault.Store without any durability.
type Store struct {
	mu     sync.Mutex        // guards sealed and its values
	sealed map[string][]byte // nil: destroyed
}

var _ vault.Store = (*Store)(nil)

// New returns an empty vault of one owner.
func New() *Store {
	return &Store{sealed: map[string][]byte{}}
}

// Put is vault.Store.Put.
func (s *Store) Put(_ context.Context, commitment string, salt, value []byte) error {
	sealed, err := vault.Seal(commitment, salt, value)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.sealed[commitment]; ok && old == nil {
		return fmt.Errorf("%w: %s", vault.ErrDestroyed, commitment)
	}
	s.sealed[commitment] = sealed
	return nil
}

// Get is vault.Store.Get.
func (s *Store) Get(_ context.Context, commitment string) (value, salt []byte, err error) {
	if err := vault.CheckCommitment(commitment); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sealed, ok := s.sealed[commitment]
	switch {
	case !ok:
		return nil, nil, fmt.Errorf("%w: %s", vault.ErrNotFound, commitment)
	case sealed == nil:
		return nil, nil, fmt.Errorf("%w: %s", vault.ErrDestroyed, commitment)
	}
	return vault.Open(commitment, sealed)
}

// Destroy is vault.Store.Destroy.
func (s *Store) Destroy(_ context.Context, commitment string) error {
	if err := vault.CheckCommitment(commitment); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sealed, ok := s.sealed[commitment]
	if !ok {
		return fmt.Errorf("%w: %s", vault.ErrNotFound, commitment)
	}
	clear(sealed)
	s.sealed[commitment] = nil
	return nil
}

// Replace puts other bytes in the place of a value, as a bad disk does. For tests of those who read.
func (s *Store) Replace(commitment string, sealed []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed[commitment] = bytes.Clone(sealed)
}
