// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
)

// bookCache is the rule book as far as this process has read it. An accepted command records the position it used, and a
// refusal is checked against the newest one; a revoked key or role therefore counts when RuleBookChanged says so, and at the
// latest after freshFor.
type bookCache struct {
	store history.Store
	keys  *history.Keyring

	lock
	reading *history.Reading
	book    *rulebook.Book
	readAt  time.Time
	stale   atomic.Bool
}

// freshFor is how old a book an accepted command may use. It saves a question to the store on every command.
const freshFor = time.Second

// current returns the book, reading what was added since if it is asked to, or if the last reading is too old.
func (b *bookCache) current(ctx context.Context, newest bool) (*rulebook.Book, error) {
	if err := b.take(ctx); err != nil {
		return nil, err
	}
	defer b.give()
	if stale := b.stale.Swap(false); b.reading != nil && !newest && !stale && time.Since(b.readAt) < freshFor {
		return b.book, nil
	}
	readAt := time.Now()
	if b.reading == nil {
		b.reading, b.book = &history.Reading{Chain: history.NewChain(procedure.RuleBook, b.keys)}, &rulebook.Book{}
	}
	if err := b.reading.Continue(ctx, b.store); err != nil {
		b.reading = nil
		return nil, err
	}
	entries := b.reading.Entries
	b.reading.Entries, b.reading.Foreign = nil, nil
	for i := range entries {
		book, err := FoldBook(b.book, &entries[i])
		if err != nil {
			b.reading = nil
			return nil, err
		}
		b.book = book
	}
	b.readAt = readAt
	return b.book, nil
}

// RuleBookChanged makes the next command be decided by the rule book as it is then. Tell it of a change that is seen elsewhere; without
// being told, a command is decided by a book that is a second old at most.
func (d *Dispatcher) RuleBookChanged() { d.book.outdated() }

// outdated makes the next command read the book anew.
func (b *bookCache) outdated() { b.stale.Store(true) }

// FoldBook returns the rule book after one more record.
func FoldBook(book *rulebook.Book, e *history.Entry) (*rulebook.Book, error) {
	rec := e.Record
	payloads := make([]proto.Message, 0, len(rec.GetEvents()))
	for _, event := range rec.GetEvents() {
		p, err := procedure.DecodeEvent(event)
		if err != nil {
			return nil, fmt.Errorf("fold the rule book: %w", err)
		}
		payloads = append(payloads, p)
	}
	last := rec.GetFirstPosition() + uint64(len(rec.GetEvents())) - 1
	next, err := book.With(last, rec.GetRecordedAt().AsTime(), payloads...)
	if err != nil {
		return nil, fmt.Errorf("fold the rule book at %d: %w", last, err)
	}
	return next, nil
}
