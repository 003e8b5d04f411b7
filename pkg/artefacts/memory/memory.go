// SPDX-License-Identifier: Apache-2.0

// Package memory keeps artefacts in memory: for tests, and for whatever may be gone with the process.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"cacert.org/emergency/pkg/artefacts"
)

// Store is an artefacts.Store without any durability.
type Store struct {
	limit int64
	data  *sync.Map // digest -> []byte, never written to
}

var _ artefacts.Store = (*Store)(nil)

// New returns an empty store that takes artefacts of up to limit bytes.
func New(limit int64) *Store {
	return &Store{limit: limit, data: &sync.Map{}}
}

// Reopen returns a store with another limit and the same contents, now and later.
func (s *Store) Reopen(limit int64) *Store {
	return &Store{limit: limit, data: s.data}
}

// Put is artefacts.Store.Put.
func (s *Store) Put(_ context.Context, r io.Reader, mediaType string) (artefacts.Ref, error) {
	data, ref, err := artefacts.Read(r, s.limit, mediaType)
	if err != nil {
		return artefacts.Ref{}, err
	}
	s.data.Store(ref.SHA256, data)
	return ref, nil
}

// Get is artefacts.Store.Get.
func (s *Store) Get(_ context.Context, sha256 string) ([]byte, error) {
	if err := artefacts.CheckDigest(sha256); err != nil {
		return nil, err
	}
	value, ok := s.data.Load(sha256)
	if !ok {
		return nil, fmt.Errorf("%w: %s", artefacts.ErrNotFound, sha256)
	}
	data, _ := value.([]byte)
	if int64(len(data)) > s.limit {
		return nil, fmt.Errorf("artefact %s of %d bytes: %w of %d bytes", sha256, len(data), artefacts.ErrTooLarge, s.limit)
	}
	if err := artefacts.Verify(sha256, data); err != nil {
		return nil, err
	}
	return bytes.Clone(data), nil
}

// Replace puts other bytes in the place of an artefact, as a bad disk does. For tests of those who read.
func (s *Store) Replace(sha256 string, data []byte) {
	s.data.Store(sha256, bytes.Clone(data))
}
