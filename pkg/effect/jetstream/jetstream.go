// SPDX-License-Identifier: Apache-2.0

// Package jetstream keeps the ledger of effects in a key-value bucket.
package jetstream

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/natsd"
)

// Ledger is a ledger in the bucket that natsd.Provision creates. Intents and leases are written by compare-and-set, so of several
// instances of a service one acts. What an owner intends stands under the owner's own keys, which no other owner's user may write.
type Ledger struct {
	kv    jetstream.KeyValue
	owner string
}

// New opens the ledger of an owner.
func New(ctx context.Context, js jetstream.JetStream, owner string) (*Ledger, error) {
	kv, err := js.KeyValue(ctx, natsd.EffectBucket)
	if err != nil {
		return nil, fmt.Errorf("open the ledger of effects: %w", err)
	}
	return &Ledger{kv, owner}, nil
}

// effect makes the name of an effect a key of the bucket.
func (l *Ledger) effect(name string) string {
	return natsd.EffectKey("effect", l.owner) + "." + base64.RawURLEncoding.EncodeToString([]byte(name))
}

// tries of one Intend, with pauses between them that grow up to maxPause: a write of somebody else that is on its way is
// there within that time.
const (
	tries    = 10
	maxPause = 50 * time.Millisecond
)

// Intend writes the intent if the key is new. The intent has a token of its own, so that one whose acknowledgement was lost
// is recognised when it is found there: it is fresh, nobody acted on it. A lost compare-and-set of a replicated bucket
// (10164) may be another's write, or our own earlier one, that is still on its way: what is there is looked at until
// something is.
func (l *Ledger) Intend(ctx context.Context, k string) (fresh bool, state effect.State, err error) {
	intent := string(effect.Intended) + " " + rand.Text()
	for n := range tries {
		if _, err = l.kv.Create(ctx, l.effect(k), []byte(intent)); err == nil {
			return true, effect.Intended, nil
		}
		entry, readErr := l.kv.Get(ctx, l.effect(k))
		if readErr == nil {
			word, _, _ := strings.Cut(string(entry.Value()), " ")
			return string(entry.Value()) == intent, effect.State(word), nil
		}
		select {
		case <-ctx.Done():
			return false, "", fmt.Errorf("intend %s: %w", k, err)
		case <-time.After(min(maxPause, 5*time.Millisecond<<n)):
		}
	}
	return false, "", fmt.Errorf("intend %s: %w", k, err)
}

// Withdraw takes an intent back.
func (l *Ledger) Withdraw(ctx context.Context, k string) error {
	if err := l.kv.Delete(ctx, l.effect(k)); err != nil {
		return fmt.Errorf("withdraw %s: %w", k, err)
	}
	return nil
}

// Finish writes the outcome.
func (l *Ledger) Finish(ctx context.Context, k string, s effect.State) error {
	if _, err := l.kv.Put(ctx, l.effect(k), []byte(s)); err != nil {
		return fmt.Errorf("finish %s: %w", k, err)
	}
	return nil
}

// Mark returns how far an owner's runner has come; the zero mark if it never ran.
func (l *Ledger) Mark(ctx context.Context, owner string) (history.Mark, error) {
	entry, err := l.kv.Get(ctx, natsd.EffectKey("mark", owner))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return history.Mark{}, nil
	}
	if err != nil {
		return history.Mark{}, fmt.Errorf("read mark of %s: %w", owner, err)
	}
	var m history.Mark
	if err := json.Unmarshal(entry.Value(), &m); err != nil {
		return history.Mark{}, fmt.Errorf("mark of %s: %w", owner, err)
	}
	return m, nil
}

// SetMark writes how far an owner's runner has come.
func (l *Ledger) SetMark(ctx context.Context, owner string, m history.Mark) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode mark of %s: %w", owner, err)
	}
	if _, err := l.kv.Put(ctx, natsd.EffectKey("mark", owner), b); err != nil {
		return fmt.Errorf("keep mark of %s: %w", owner, err)
	}
	return nil
}

// Lease returns which instance may run an owner's effects.
func (l *Ledger) Lease(ctx context.Context, owner string) (holder string, revision uint64, err error) {
	entry, err := l.kv.Get(ctx, natsd.EffectKey("lease", owner))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("read lease of %s: %w", owner, err)
	}
	return string(entry.Value()), entry.Revision(), nil
}

// SetLease writes who may run an owner's effects, if nobody wrote it since revision.
func (l *Ledger) SetLease(ctx context.Context, owner, holder string, revision uint64) (uint64, error) {
	next, err := l.kv.Update(ctx, natsd.EffectKey("lease", owner), []byte(holder), revision)
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return 0, effect.ErrLeaseTaken
	}
	if err != nil {
		return 0, fmt.Errorf("write lease of %s: %w", owner, err)
	}
	return next, nil
}
