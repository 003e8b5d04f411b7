// SPDX-License-Identifier: Apache-2.0

// Package jetstream keeps the ledger of effects in a key-value bucket.
package jetstream

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/natsd"
)

// Ledger is a ledger in the bucket that natsd.Provision creates. Intents are written by compare-and-set, so of several
// instances of a service one acts. An intent that another instance left unfinished looks like one of our own that was
// interrupted: run one instance of a service's effects at a time until leases come with the cluster.
type Ledger struct{ kv jetstream.KeyValue }

// New opens the ledger.
func New(ctx context.Context, js jetstream.JetStream) (*Ledger, error) {
	kv, err := js.KeyValue(ctx, natsd.EffectBucket)
	if err != nil {
		return nil, fmt.Errorf("open the ledger of effects: %w", err)
	}
	return &Ledger{kv}, nil
}

// key makes any text a key of the bucket.
func key(kind, text string) string {
	return kind + "." + base64.RawURLEncoding.EncodeToString([]byte(text))
}

// Intend writes the intent if the key is new.
func (l *Ledger) Intend(ctx context.Context, k string) (bool, effect.State, error) {
	_, err := l.kv.Create(ctx, key("effect", k), []byte(effect.Intended))
	if err == nil {
		return true, effect.Intended, nil
	}
	if !errors.Is(err, jetstream.ErrKeyExists) {
		return false, "", fmt.Errorf("intend %s: %w", k, err)
	}
	entry, err := l.kv.Get(ctx, key("effect", k))
	if err != nil {
		return false, "", fmt.Errorf("read intent of %s: %w", k, err)
	}
	return false, effect.State(entry.Value()), nil
}

// Finish writes the outcome.
func (l *Ledger) Finish(ctx context.Context, k string, s effect.State) error {
	if _, err := l.kv.Put(ctx, key("effect", k), []byte(s)); err != nil {
		return fmt.Errorf("finish %s: %w", k, err)
	}
	return nil
}

// Mark returns how far an owner's runner has come; the zero mark if it never ran.
func (l *Ledger) Mark(ctx context.Context, owner string) (history.Mark, error) {
	entry, err := l.kv.Get(ctx, key("mark", owner))
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
	if _, err := l.kv.Put(ctx, key("mark", owner), b); err != nil {
		return fmt.Errorf("keep mark of %s: %w", owner, err)
	}
	return nil
}
