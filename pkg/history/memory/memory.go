// SPDX-License-Identifier: Apache-2.0

// Package memory keeps histories in memory: for tests and for reading a history offline. It keeps the contract of
// history.Store, except that nothing outlives the process.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"cacert.org/emergency/pkg/history"
)

// Store is a history.Store in memory. The zero value is empty and ready.
type Store struct {
	mu       sync.Mutex       // guards all below
	messages []stored         // in order; a removed one leaves a jump in the sequences
	subjects map[string][]int // indexes into messages
	last     uint64           // sequence given out last
	changed  chan struct{}    // closed and dropped at each change; nil if nobody waits
}

type stored struct {
	subject string
	history.Message
}

var _ history.Store = (*Store)(nil)

// Append implements history.Store.
func (s *Store) Append(ctx context.Context, incident string, expected uint64, signed []byte, headers map[string]string) (uint64, error) {
	subject, err := history.CheckAppend(incident, signed, headers)
	if err != nil {
		return 0, fmt.Errorf("append to %s: %w", incident, err)
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("append to %s: %w: %w", incident, history.ErrUnavailable, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if later := s.after(subject, expected); len(later) > 0 {
		if bytes.Equal(later[0].Data, signed) {
			return later[0].Sequence, nil // these bytes, by an earlier call
		}
		return 0, &history.ConflictError{Incident: incident, Expected: expected, Found: later[0].Sequence}
	}
	if last := s.lastOf(subject); last < expected {
		return 0, fmt.Errorf("append to %s after sequence %d: %w: the last one is %d", incident, expected, history.ErrRolledBack, last)
	}
	return s.add(subject, signed, headers), nil
}

// after returns the messages of a subject after a sequence.
func (s *Store) after(subject string, sequence uint64) []history.Message {
	all := s.subjects[subject]
	from := sort.Search(len(all), func(i int) bool { return s.messages[all[i]].Sequence > sequence })
	later := make([]history.Message, 0, len(all)-from)
	for _, i := range all[from:] {
		later = append(later, s.messages[i].Message)
	}
	return later
}

func (s *Store) lastOf(subject string) uint64 {
	all := s.subjects[subject]
	if len(all) == 0 {
		return 0
	}
	return s.messages[all[len(all)-1]].Sequence
}

func (s *Store) add(subject string, data []byte, headers map[string]string) uint64 {
	s.last++
	s.messages = append(s.messages, stored{subject, history.Message{
		Incident: history.IncidentOf(subject),
		Sequence: s.last,
		Data:     bytes.Clone(data),
		Header:   maps.Clone(headers),
		Time:     time.Now().UTC(),
	}})
	if s.subjects == nil {
		s.subjects = map[string][]int{}
	}
	s.subjects[subject] = append(s.subjects[subject], len(s.messages)-1)
	s.wake()
	return s.last
}

func (s *Store) wake() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// Load implements history.Store.
func (s *Store) Load(ctx context.Context, incident string, after uint64) ([]history.Message, error) {
	subject, err := reading(ctx, incident)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", incident, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.after(subject, after), nil
}

// Last implements history.Store.
func (s *Store) Last(ctx context.Context, incident string) (uint64, error) {
	subject, err := reading(ctx, incident)
	if err != nil {
		return 0, fmt.Errorf("last of %s: %w", incident, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastOf(subject), nil
}

func reading(ctx context.Context, incident string) (subject string, err error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("%w: %w", history.ErrUnavailable, err)
	}
	return history.Subject(incident)
}

// Incidents implements history.Store.
func (s *Store) Incidents(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list incidents: %w: %w", history.ErrUnavailable, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for subject := range s.subjects {
		if id := history.IncidentOf(subject); id != "" {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Scan implements history.Store.
func (s *Store) Scan(ctx context.Context, after uint64, fn func(history.Message) error) error {
	s.mu.Lock()
	messages := s.tail(after)
	s.mu.Unlock()
	for _, m := range messages {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("scan: %w: %w", history.ErrUnavailable, err)
		}
		if err := fn(m.Message); err != nil {
			return err
		}
	}
	return nil
}

// tail is the part of messages after a sequence. The array behind it is only ever appended to or replaced.
func (s *Store) tail(after uint64) []stored {
	from := sort.Search(len(s.messages), func(i int) bool { return s.messages[i].Sequence > after })
	return s.messages[from:len(s.messages):len(s.messages)]
}

// Follow implements history.Store.
func (s *Store) Follow(ctx context.Context, after history.Mark, fn func(history.Message) error) error {
	for {
		messages, changed, err := s.since(after)
		if err != nil {
			return err
		}
		for _, m := range messages {
			if err := ctx.Err(); err != nil {
				return err
			}
			if m.Sequence != after.Sequence+1 {
				return fmt.Errorf("%w: sequences %d to %d are missing", history.ErrRolledBack, after.Sequence+1, m.Sequence-1)
			}
			if err := fn(m.Message); err != nil {
				return err
			}
			after = m.Mark()
		}
		if len(messages) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// since returns what was stored after a mark, once the message at the mark was found to be the same.
func (s *Store) since(mark history.Mark) ([]stored, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mark.Sequence > 0 {
		at := s.tail(mark.Sequence - 1)
		if len(at) == 0 || at[0].Sequence != mark.Sequence {
			return nil, nil, fmt.Errorf("%w: sequence %d, which was read before, is gone", history.ErrRolledBack, mark.Sequence)
		}
		if mark.Hash != "" && at[0].Mark() != mark {
			return nil, nil, fmt.Errorf("%w: sequence %d is another message than the one read before", history.ErrRolledBack, mark.Sequence)
		}
	}
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.tail(mark.Sequence), s.changed, nil
}

// Publish stores a message as a stranger with a stolen broker credential would: on any subject, without any condition.
func (s *Store) Publish(subject string, data []byte) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.add(subject, data, nil)
}

// Damage does what failing storage may do: fn gets all messages' data by sequence and returns what is left of them.
// The sequence numbers that fn drops at the end are given out again, as a NATS server does that lost a tail.
func (s *Store) Damage(fn func(sequence uint64, data []byte) (left []byte, keep bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.messages
	s.messages, s.subjects, s.last = nil, map[string][]int{}, 0
	for _, m := range old {
		left, keep := fn(m.Sequence, bytes.Clone(m.Data))
		if !keep {
			continue
		}
		m.Data, s.last = left, m.Sequence
		s.messages = append(s.messages, m)
		s.subjects[m.subject] = append(s.subjects[m.subject], len(s.messages)-1)
	}
	s.wake()
}
