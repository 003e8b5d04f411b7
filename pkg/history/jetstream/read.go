// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/history"
)

// Long reads. A consumer costs about 2 ms to create and then 3 µs a message; getting a message costs 30 to 60 µs of
// which little is waiting, so several at once help mostly over a network. Hence: the usual short tail one by one, then a
// consumer where one is allowed, else several gets at once.
const (
	tail    = 4    // messages that Load gets one by one
	workers = 16   // gets at once
	window  = 1024 // sequences that a read of the whole stream gets before it delivers them
)

// everything is the filter of a read of the whole stream.
const everything = ">"

// Load implements history.Store.
func (s *Store) Load(ctx context.Context, incident string, after uint64) ([]history.Message, error) {
	subject, err := history.Subject(incident)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", incident, err)
	}
	var messages []history.Message
	for range tail {
		m, err := s.get(ctx, getRequest{NextFor: subject, Seq: after + 1})
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", incident, err)
		}
		if m.Sequence == 0 {
			return messages, nil
		}
		messages, after = append(messages, m), m.Sequence
	}
	last, err := s.get(ctx, getRequest{LastFor: subject})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", incident, err)
	}
	err = s.read(ctx, subject, after+1, last.Sequence, func(m history.Message) error {
		messages = append(messages, m)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", incident, err)
	}
	return messages, nil
}

// Scan implements history.Store.
func (s *Store) Scan(ctx context.Context, after uint64, fn func(history.Message) error) error {
	last, err := s.lastSequence(ctx)
	if err == nil {
		err = s.read(ctx, everything, after+1, last, called(fn))
	}
	return unwrapCalled("scan", err)
}

// calledError carries an error of the caller's function through, so that it is never taken for one of ours.
type calledError struct{ error }

func called(fn func(history.Message) error) func(history.Message) error {
	return func(m history.Message) error {
		if err := fn(m); err != nil {
			return calledError{err}
		}
		return nil
	}
}

func unwrapCalled(step string, err error) error {
	var c calledError
	if errors.As(err, &c) {
		return c.error
	}
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return nil
}

// read calls fn for all messages of a subject with from <= sequence <= upTo, in order. A consumer is only a faster way:
// what it does not deliver, for whatever reason, is got one by one.
func (s *Store) read(ctx context.Context, filter string, from, upTo uint64, fn func(history.Message) error) error {
	if from <= upTo && s.mayConsume(filter, upTo-from+1) {
		next, err := s.consume(ctx, filter, from, upTo, fn)
		if err == nil || errors.As(err, new(calledError)) {
			return err
		}
		if ctx.Err() != nil {
			return unavailable(ctx, err)
		}
		s.cfg.Logger.Log(ctx, s.consumerLevel(err), "history is read without a consumer", "from", next, "error", err)
		from = next
	}
	return s.getAll(ctx, filter, from, upTo, fn)
}

// getAll reads with several gets at once: each worker walks its share of the sequences.
func (s *Store) getAll(ctx context.Context, filter string, from, upTo uint64, fn func(history.Message) error) error {
	step := uint64(window)
	if filter != everything {
		step = math.MaxUint64 // one subject fits in memory, and is thin
	}
	for from <= upTo {
		end := upTo
		if upTo-from >= step {
			end = from + step - 1
		}
		messages, err := s.getShares(ctx, filter, from, end)
		if err != nil {
			return err
		}
		for _, m := range messages {
			if err := fn(m); err != nil {
				return err
			}
		}
		from = end + 1
	}
	return nil
}

func (s *Store) getShares(ctx context.Context, filter string, from, end uint64) ([]history.Message, error) {
	size := end - from + 1
	shares := min(workers, size)
	found := make([][]history.Message, shares)
	failed := make([]error, shares)
	var group sync.WaitGroup
	for i := range shares {
		a, b := from+size*i/shares, from+size*(i+1)/shares
		group.Go(func() { found[i], failed[i] = s.walk(ctx, filter, a, b) })
	}
	group.Wait()
	var all []history.Message
	for _, part := range found {
		all = append(all, part...)
	}
	return all, errors.Join(failed...)
}

// walk gets the messages with from <= sequence < end.
func (s *Store) walk(ctx context.Context, filter string, from, end uint64) ([]history.Message, error) {
	var messages []history.Message
	for from < end {
		m, err := s.get(ctx, getRequest{NextFor: filter, Seq: from})
		if err != nil {
			return nil, err
		}
		if m.Sequence == 0 || m.Sequence >= end {
			break
		}
		messages, from = append(messages, m), m.Sequence+1
	}
	return messages, nil
}

var errSkipped = errors.New("the consumer skipped messages, or has gone back")

// consume reads through a consumer and returns the first sequence that it has not delivered. It gives up at the first
// irregularity: a skipped message, an interruption, silence where there should be messages.
func (s *Store) consume(ctx context.Context, filter string, from, upTo uint64, fn func(history.Message) error) (next uint64, err error) {
	session, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	defer context.AfterFunc(s.link.Load(), func() { interrupt(errInterrupted) })()
	consumer, leave, err := s.consumer(ctx, filter, from)
	if err != nil {
		return from, err
	}
	defer leave()
	messages, err := consumer.Messages(jetstream.PullExpiry(4*time.Second), jetstream.PullHeartbeat(time.Second),
		jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return from, fmt.Errorf("pull from consumer: %w", err)
	}
	defer messages.Stop()
	silence := time.AfterFunc(math.MaxInt64, func() { interrupt(errNoAnswer) })
	defer silence.Stop()
	for count := uint64(1); from <= upTo; count++ {
		if upTo != math.MaxUint64 { // else there may be nothing to come
			silence.Reset(s.cfg.Timeout)
		}
		msg, err := messages.Next(jetstream.NextContext(session))
		silence.Stop()
		if session.Err() != nil {
			return from, context.Cause(session)
		}
		if err != nil {
			return from, err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return from, err
		}
		// Of all messages each has its number; whoever moved the consumer about makes them come again.
		if s := meta.Sequence; s.Consumer != count || s.Stream < from || filter == everything && s.Stream != from {
			return from, errSkipped
		}
		if err := fn(message(msg.Subject(), meta.Sequence.Stream, msg.Data(), msg.Headers(), meta.Timestamp)); err != nil {
			return from, err
		}
		from = meta.Sequence.Stream + 1
	}
	return from, nil
}
