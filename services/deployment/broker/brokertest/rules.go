// SPDX-License-Identifier: Apache-2.0

// Package brokertest gives tests and benchmarks of the console what the broker asks for: rules that keep the history of one
// grant in memory, with the compare-and-set of the real one; a host that does with real processes what its agent would; and a
// rig of a broker before a real sshd.
package brokertest

import (
	"context"
	"errors"
	"slices"
	"sync"

	"cacert.org/emergency/services/deployment/broker"
)

// Rules is the history of some grants.
type Rules struct {
	mu      sync.Mutex
	grants  map[broker.Ref]*history
	down    bool
	lost    bool
	changed chan struct{}
}

type history struct {
	broker.Grant
	consumed, opened, frozen, ended bool
	events                          []any
}

// Consumed is the event of a credential that was used.
type Consumed struct{ broker.Attempt }

// ConnectRefused is the record of an attempt that the rules refused.
type ConnectRefused struct {
	broker.Attempt
	Reason string
}

// ErrDown is what the rules answer while the log is down.
var ErrDown = errors.New("the log is down")

// NewRules returns rules without a grant.
func NewRules() *Rules {
	return &Rules{grants: map[broker.Ref]*history{}, changed: make(chan struct{})}
}

// Put makes a grant or changes what is said of it; its events stay.
func (r *Rules) Put(g broker.Grant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.grants[g.Ref]; h != nil {
		h.Grant = g
		return
	}
	r.grants[g.Ref] = &history{Grant: g}
}

// SetDown makes every call fail as if the log were down, or ends that.
func (r *Rules) SetDown(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// SetLost makes Connect store what it decides and answer as if the log were down, or ends that.
func (r *Rules) SetLost(lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = lost
}

// Events returns what was recorded of a grant so far, in order: Consumed, broker.Opening, broker.Freezing, broker.Mark,
// broker.Ending, ConnectRefused, broker.RefusedAttempt; and a channel that is closed when more is.
func (r *Rules) Events(ref broker.Ref) ([]any, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.grants[ref]
	if h == nil {
		return nil, r.changed
	}
	return slices.Clone(h.events), r.changed
}

// with calls f on a grant's history and adds the event that it returns.
func (r *Rules) with(ctx context.Context, ref broker.Ref, f func(*history) (any, error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return ErrDown
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	h := r.grants[ref]
	if h == nil {
		return &broker.Refusal{Reason: "GRANT", Text: "there is no grant " + ref.String()}
	}
	event, err := f(h)
	if event != nil {
		h.events = append(h.events, event)
		close(r.changed)
		r.changed = make(chan struct{})
	}
	return err
}

// Grant returns the grant.
func (r *Rules) Grant(ctx context.Context, ref broker.Ref) (g broker.Grant, err error) {
	err = r.with(ctx, ref, func(h *history) (any, error) {
		g = h.Grant
		g.Consumed = h.consumed || g.Consumed
		if h.ended {
			g.Over = "terminated"
		}
		return nil, nil
	})
	return g, err
}

// Connect is the compare-and-set.
func (r *Rules) Connect(ctx context.Context, ref broker.Ref, a broker.Attempt) error {
	return r.with(ctx, ref, func(h *history) (any, error) {
		reason := ""
		switch {
		case h.ended:
			reason = broker.ReasonGrantState
		case h.consumed:
			reason = broker.ReasonConsumed
		case !a.Present:
			reason = broker.ReasonWatcherAbsent
		case a.At.After(h.FirstUse):
			reason = broker.ReasonExpired
		}
		if reason != "" {
			return ConnectRefused{a, reason}, &broker.Refusal{Reason: reason, Text: "the rules refuse the connection"}
		}
		h.consumed, h.TargetKey = true, a.TargetKey
		if r.lost {
			return Consumed{a}, ErrDown
		}
		return Consumed{a}, nil
	})
}

// Opened records the opening.
func (r *Rules) Opened(ctx context.Context, ref broker.Ref, o broker.Opening) error {
	return r.with(ctx, ref, func(h *history) (any, error) {
		if !h.consumed || h.ended {
			return nil, &broker.Refusal{Reason: broker.ReasonGrantState, Text: "nothing was consumed"}
		}
		h.opened = true
		return o, nil
	})
}

// Freeze records a freeze of a live session.
func (r *Rules) Freeze(ctx context.Context, ref broker.Ref, f broker.Freezing) error {
	return r.with(ctx, ref, func(h *history) (any, error) {
		if !h.opened || h.ended || h.frozen {
			return nil, &broker.Refusal{Reason: broker.ReasonGrantState, Text: "the session is not live"}
		}
		h.frozen = true
		return f, nil
	})
}

// Resume is the command by which a watcher lets a frozen session go on.
func (r *Rules) Resume(ctx context.Context, ref broker.Ref) error {
	return r.with(ctx, ref, func(h *history) (any, error) {
		if !h.frozen || h.ended {
			return nil, &broker.Refusal{Reason: broker.ReasonGrantState, Text: "the session is not frozen"}
		}
		h.frozen = false
		return nil, nil
	})
}

// Mark records a mark.
func (r *Rules) Mark(ctx context.Context, ref broker.Ref, m broker.Mark) error {
	return r.with(ctx, ref, func(*history) (any, error) { return m, nil })
}

// Terminate records the end, once.
func (r *Rules) Terminate(ctx context.Context, ref broker.Ref, e broker.Ending) error {
	return r.with(ctx, ref, func(h *history) (any, error) {
		if h.ended {
			return nil, nil
		}
		h.ended = true
		return e, nil
	})
}

// Refused records an attempt that did not come as far as Connect.
func (r *Rules) Refused(ctx context.Context, ref broker.Ref, x broker.RefusedAttempt) error {
	return r.with(ctx, ref, func(*history) (any, error) { return x, nil })
}
