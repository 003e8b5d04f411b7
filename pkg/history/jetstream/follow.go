// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"cacert.org/emergency/pkg/history"
)

// A rolled-back log must still look so after grace: a new leader of a cluster may need a moment to know what it has.
// How often a quiet follower looks whether its mark is still there, reconnects aside, is recheck.
const (
	grace   = 2 * time.Second
	recheck = 10 * time.Second
)

// Follow implements history.Store.
func (s *Store) Follow(ctx context.Context, after history.Mark, fn func(history.Message) error) error {
	f := &following{Store: s, at: after, fn: called(fn)}
	for {
		err := f.run(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, new(calledError)), errors.Is(err, history.ErrRolledBack), errors.Is(err, history.ErrWrongLog):
			return unwrapCalled("follow", err)
		case s.nc.IsClosed():
			return fmt.Errorf("follow: %w: %w", history.ErrUnavailable, nats.ErrConnectionClosed)
		}
		s.cfg.Logger.WarnContext(ctx, "following the history was interrupted", "after", f.at.Sequence, "error", err)
		if wait(ctx, s.cfg.Poll) != nil {
			return ctx.Err()
		}
	}
}

// following is one call of Follow.
type following struct {
	*Store
	at         history.Mark
	fn         func(history.Message) error
	checked    time.Time // when the mark was last found in its place
	reconnects uint64    // of the connection, then
	delivered  atomic.Uint64
	alone      time.Time // until when no consumer is looked for
}

// lookout is how often a follower with a consumer asks the log itself how far it has grown: a consumer may lie on a server that hears of
// nothing new.
const lookout = time.Second

// aloneFor is how long a follower goes on without a consumer until it looks for one again. Two that had taken the same look again soon, and
// not together; where there are none, to look costs more than it brings.
func aloneFor(err error) time.Duration {
	switch {
	case errors.Is(err, errSkipped):
		return 100*time.Millisecond + rand.N(900*time.Millisecond) //nolint:gosec // no secret
	case errors.Is(err, errUnusable):
		return 30 * time.Second
	}
	return 5 * time.Second
}

// run follows until something is irregular, which is an error.
func (f *following) run(ctx context.Context) error {
	for {
		last, err := f.check(ctx)
		if err != nil {
			return err
		}
		if f.mayConsume(everything, math.MaxUint64) && time.Now().After(f.alone) {
			err := f.listen(ctx)
			if errors.As(err, new(calledError)) || errors.Is(err, history.ErrRolledBack) || ctx.Err() != nil {
				return err
			}
			f.cfg.Logger.Log(ctx, f.consumerLevel(err), "following the history without a consumer for a moment", "after", f.at.Sequence, "error", err)
			f.alone = time.Now().Add(aloneFor(err))
			if last, err = f.check(ctx); err != nil {
				return err
			}
		}
		if err := f.getAll(ctx, everything, f.at.Sequence+1, last, f.deliver); err != nil {
			return err
		}
		if last == f.at.Sequence {
			if err := wait(ctx, f.cfg.Poll); err != nil {
				return err
			}
		}
	}
}

var errBehind = errors.New("the consumer does not deliver what the log has")

// listen follows through a consumer.
func (f *following) listen(ctx context.Context) error {
	session, interrupt := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer interrupt(nil)
	f.delivered.Store(f.at.Sequence)
	watch.Go(func() { interrupt(f.watchLog(session)) })
	_, err := f.consume(session, everything, f.at.Sequence+1, math.MaxUint64, f.deliver)
	return err
}

// watchLog returns when the log has twice had something else than the consumer delivered, and nothing moved in between, or when it does not
// answer.
func (f *following) watchLog(ctx context.Context) error {
	const none = math.MaxUint64
	for before := uint64(none); ; {
		if err := wait(ctx, lookout); err != nil {
			return err
		}
		now := f.delivered.Load()
		last, err := f.lastSequence(ctx)
		switch {
		case err != nil:
			return err
		case last == now:
			before = none
		case before == now:
			return fmt.Errorf("%w: its last sequence is %d, %d was delivered", errBehind, last, now)
		default:
			before = now
		}
	}
}

// deliver gives the next message to the caller.
func (f *following) deliver(m history.Message) error {
	if m.Sequence != f.at.Sequence+1 {
		return fmt.Errorf("%w: sequences %d to %d are missing", history.ErrRolledBack, f.at.Sequence+1, m.Sequence-1)
	}
	if err := f.fn(m); err != nil {
		return err
	}
	f.at = m.Mark()
	f.delivered.Store(m.Sequence)
	return nil
}

// check returns the last sequence of the stream. Before anything new is delivered, after each reconnect and now and then
// it looks whether the message at the mark is still the one that was delivered (hardening 6.6).
func (f *following) check(ctx context.Context) (last uint64, err error) {
	for end := time.Now().Add(grace); ; {
		last, err = f.checkOnce(ctx)
		if !errors.Is(err, history.ErrRolledBack) || time.Now().After(end) {
			return last, err
		}
		if err := wait(ctx, f.cfg.Poll); err != nil {
			return 0, err
		}
	}
}

func (f *following) checkOnce(ctx context.Context) (uint64, error) {
	reconnects := f.nc.Stats().Reconnects
	last, err := f.lastSequence(ctx)
	if err != nil || f.at.Sequence == 0 {
		return last, err
	}
	if last < f.at.Sequence {
		return 0, fmt.Errorf("%w: the last sequence is %d, %d was read before", history.ErrRolledBack, last, f.at.Sequence)
	}
	if last == f.at.Sequence && reconnects == f.reconnects && time.Since(f.checked) < recheck {
		return last, nil
	}
	m, err := f.get(ctx, getRequest{Seq: f.at.Sequence})
	if err != nil {
		return 0, err
	}
	if m.Sequence == 0 {
		return 0, fmt.Errorf("%w: sequence %d, which was read before, is gone", history.ErrRolledBack, f.at.Sequence)
	}
	if f.at.Hash != "" && m.Mark() != f.at {
		return 0, fmt.Errorf("%w: sequence %d is another message than the one read before", history.ErrRolledBack, f.at.Sequence)
	}
	f.at, f.checked, f.reconnects = m.Mark(), time.Now(), reconnects
	return last, nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
