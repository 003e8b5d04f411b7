// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"errors"
	"fmt"
)

// Foreign is a message that was skipped.
type Foreign struct {
	Sequence uint64
	*ForeignError
}

// Reading is the history of an incident as one reading found it.
type Reading struct {
	Entries []Entry
	Foreign []Foreign // count and alarm them (hardening 1.3)
	Chain   *Chain    // after the last entry
	Last    uint64    // sequence of the last message, foreign ones included: the expected of the next Append
}

// Read loads and checks a whole incident. On an *UnreadableError the reading has what came before it.
func Read(ctx context.Context, store Store, keys *Keyring, incident string) (*Reading, error) {
	r := &Reading{Chain: NewChain(incident, keys)}
	return r, r.Continue(ctx, store)
}

// Continue reads what was stored since, such as after a conflict.
func (r *Reading) Continue(ctx context.Context, store Store) error {
	incident := r.Chain.Incident()
	messages, err := store.Load(ctx, incident, r.Last)
	if err != nil {
		return fmt.Errorf("read %s: %w", incident, err)
	}
	for _, m := range messages {
		entry, err := r.Chain.Accept(m.Data)
		var foreign *ForeignError
		switch {
		case errors.As(err, &foreign):
			r.Foreign = append(r.Foreign, Foreign{m.Sequence, foreign})
		case err != nil:
			return fmt.Errorf("read %s: sequence %d: %w", incident, m.Sequence, err)
		default:
			entry.Sequence = m.Sequence
			r.Entries = append(r.Entries, *entry)
		}
		r.Last = m.Sequence
	}
	return nil
}
