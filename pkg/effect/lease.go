// SPDX-License-Identifier: Apache-2.0

package effect

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Of several instances of a service one runs its effects: the one that holds the lease in the ledger. The holder writes it anew every
// renewEvery and acts only while its last writing is younger than holdFor, by its own steady clock. Another takes the lease when it has
// seen it unchanged for takeAfter, by its own: so neither has to know the other's time, and a holder that was stopped for a while finds out
// before it acts. What it had begun is then an act of which nobody knows: the ledger's intents see to that, as after a crash.
const (
	renewEvery = 2 * time.Second
	holdFor    = 8 * time.Second
	takeAfter  = 12 * time.Second
)

// ErrLeaseTaken is returned by Ledger.SetLease when the lease is not at the revision any more.
var ErrLeaseTaken = errors.New("somebody else wrote the lease")

var errLeaseLost = errors.New("another instance may run the effects now")

// lease is what an instance knows of the lease it holds.
type lease struct {
	mu       sync.Mutex
	revision uint64
	written  time.Time // when the last successful writing was begun
}

func (l *lease) wrote(revision uint64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revision, l.written = revision, at
}

// valid tells whether its holder may still act.
func (l *lease) valid() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.written) < holdFor
}

// acquire waits until this instance holds the lease. It returns nil if ctx ended.
func (r *Runner) acquire(ctx context.Context) *lease {
	var seen uint64
	var since time.Time
	waiting := false
	for ctx.Err() == nil {
		began := time.Now()
		holder, revision, err := r.cfg.Ledger.Lease(ctx, r.cfg.Owner)
		if err == nil && (seen != revision || since.IsZero()) {
			seen, since = revision, began
		}
		if err == nil && (holder == "" || holder == r.cfg.Instance || time.Since(since) >= takeAfter) {
			if revision, err = r.cfg.Ledger.SetLease(ctx, r.cfg.Owner, r.cfg.Instance, revision); err == nil {
				l := &lease{}
				l.wrote(revision, began)
				if waiting {
					r.cfg.Log.InfoContext(ctx, "this instance runs the effects now", "owner", r.cfg.Owner, "before", holder)
				}
				return l
			}
		}
		switch {
		case err != nil && !errors.Is(err, ErrLeaseTaken) && ctx.Err() == nil:
			r.cfg.Log.WarnContext(ctx, "the lease of the effects cannot be had; trying again", "owner", r.cfg.Owner, "error", err)
		case err == nil && !waiting:
			waiting = true
			r.cfg.Log.InfoContext(ctx, "another instance runs the effects", "owner", r.cfg.Owner, "instance", holder)
		}
		sleep(ctx, renewEvery)
	}
	return nil
}

// renew writes the lease anew until ctx ends; it returns errLeaseLost if it could not in time, or somebody else did.
func (r *Runner) renew(ctx context.Context, l *lease) error {
	for {
		sleep(ctx, renewEvery)
		if ctx.Err() != nil {
			return nil
		}
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, renewEvery)
		revision, err := r.cfg.Ledger.SetLease(limited, r.cfg.Owner, r.cfg.Instance, l.revision)
		if errors.Is(err, ErrLeaseTaken) { // by our own writing whose answer was lost, perhaps
			var holder string
			holder, revision, err = r.cfg.Ledger.Lease(limited, r.cfg.Owner)
			if err == nil && holder != r.cfg.Instance {
				cancel()
				return fmt.Errorf("%w: %s", errLeaseLost, holder)
			}
		}
		cancel()
		if err == nil {
			l.wrote(revision, began)
		}
		if !l.valid() {
			return fmt.Errorf("%w: the lease was not renewed for %s: %w", errLeaseLost, holdFor, err)
		}
	}
}

// holding runs fn while the lease is held, and gives it back when ctx ends, so that another instance need not wait.
func (r *Runner) holding(ctx context.Context, l *lease, fn func(context.Context) error) error {
	held, end := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() {
		if err := r.renew(held, l); err != nil {
			end(err)
		}
	})
	err := fn(held)
	lost := context.Cause(held)
	end(nil)
	renewing.Wait()
	if errors.Is(lost, errLeaseLost) {
		return lost
	}
	if l.valid() {
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishWithin)
		defer cancel()
		if _, err := r.cfg.Ledger.SetLease(back, r.cfg.Owner, "", l.revision); err != nil {
			r.cfg.Log.WarnContext(ctx, "the lease was not given back; another instance waits for its end", "owner", r.cfg.Owner, "error", err)
		}
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
