// SPDX-License-Identifier: Apache-2.0

package projection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"cacert.org/emergency/pkg/history"
)

// recentKept is how many records a runner keeps for those who follow it. Whoever is further behind reads the log.
const recentKept = 1024

// span is a run of sequences that hold no record, both ends included.
type span struct{ from, to uint64 }

// Records calls fn for each record after a mark, in the order of the stream, once the projections have it, and then for each new one, until
// ctx ends or fn returns an error, which is returned as it is. So whoever follows a runner reads and verifies nothing a second time. It
// returns ErrRolledBack if the log does not have the message at the mark, or has another one there: numbers below the mark are then given
// out again, and what follows would be taken for known.
func (r *Runner) Records(ctx context.Context, after history.Mark, fn func(history.Mark, *Record) error) error {
	if err := confirm(ctx, r.cfg.Store, after); err != nil {
		return err
	}
	for at := after.Sequence; ; {
		changed := r.Changed()
		list, from := r.since(at)
		if from > at+1 {
			if err := r.readUpTo(ctx, at, from-1, fn); err != nil {
				return err
			}
			at = from - 1
		}
		for _, x := range list {
			if err := fn(markOf(x), x); err != nil {
				return err
			}
			at = x.Sequence
		}
		if len(list) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// since returns the kept records after a sequence, and the first sequence from which on all are kept.
func (r *Runner) since(at uint64) (list []*Record, from uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, _ := slices.BinarySearchFunc(r.recent, at+1, func(x *Record, want uint64) int { return cmp.Compare(x.Sequence, want) })
	return slices.Clone(r.recent[i:]), r.recentFrom
}

// readUpTo reads records that are not kept any more. What the runner found of their chains holds; who signed them is asked again, since
// they are read again.
func (r *Runner) readUpTo(ctx context.Context, after, upTo uint64, fn func(history.Mark, *Record) error) error {
	err := r.cfg.Store.Scan(ctx, after, func(m history.Message) error {
		if m.Sequence > upTo {
			return errEnough
		}
		if m.Incident == "" || r.skipped(m.Sequence) {
			return nil
		}
		entry := r.cfg.Keys.Open(m.Data).Entry()
		if entry == nil {
			return fmt.Errorf("%w: sequence %d is not the record that was read there before", history.ErrRolledBack, m.Sequence)
		}
		entry.Sequence = m.Sequence
		rec, err := Decode(entry)
		if err != nil {
			return fmt.Errorf("sequence %d, which was read before: %w", m.Sequence, err)
		}
		return fn(m.Mark(), rec)
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// skipped tells whether the message at a sequence is no record: a stranger's, or of an incident that cannot be read so far.
func (r *Runner) skipped(sequence uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, found := slices.BinarySearchFunc(r.none, sequence, func(s span, want uint64) int {
		switch {
		case s.to < want:
			return -1
		case s.from > want:
			return 1
		}
		return 0
	})
	return found
}

// keep remembers what a message is; under mu.
func (r *Runner) keep(sequence uint64, rec *Record) {
	if rec == nil {
		if n := len(r.none); n > 0 && r.none[n-1].to+1 == sequence {
			r.none[n-1].to = sequence
		} else {
			r.none = append(r.none, span{sequence, sequence})
		}
		return
	}
	r.fresh = append(r.fresh, rec)
}

// markOf is the mark of the message that a record came in.
func markOf(rec *Record) history.Mark {
	return history.Message{Sequence: rec.Sequence, Data: rec.Signed}.Mark()
}

// publish gives what was applied to those who follow; under mu.
func (r *Runner) publish() {
	r.recent = append(r.recent, r.fresh...)
	clear(r.fresh)
	r.fresh = r.fresh[:0]
	if drop := len(r.recent) - recentKept; drop > recentKept { // now and then many, not each time one
		r.recentFrom = r.recent[drop-1].Sequence + 1
		r.recent = slices.Clone(r.recent[drop:])
	}
}

// confirm looks whether the log has the message at a mark. It returns ErrRolledBack if not.
// Follow has patience for a new leader of a cluster that does not know yet what it has.
func confirm(ctx context.Context, store history.Store, mark history.Mark) error {
	if mark.Sequence == 0 {
		return nil
	}
	var found *history.Message
	err := store.Scan(ctx, mark.Sequence-1, func(m history.Message) error {
		found = &m
		return errEnough
	})
	switch {
	case err != nil && !errors.Is(err, errEnough):
		return err
	case found != nil && found.Sequence == mark.Sequence && found.Mark() == mark:
		return nil
	case found != nil && found.Sequence == mark.Sequence:
		return fmt.Errorf("%w: another message is there", history.ErrRolledBack)
	}
	follow, stop := context.WithCancel(ctx)
	defer stop()
	err = store.Follow(follow, mark, func(history.Message) error { return errEnough })
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

var errEnough = errors.New("enough was read")
