// SPDX-License-Identifier: Apache-2.0

// Package channel is the contract between the notification service and the ways to reach people (mail, irc, webhook),
// and the Fanout that keeps a way that hangs from holding up the others.
//
// What it promises: a page that was taken gets a final outcome within a bounded time, and the outcome says no more than
// is known. Sent means that the next hop took the page, not that a person read it; Unknown means that it may have
// arrived. What it never does: wait for a channel while a caller waits, keep pages without bound, decide what follows
// from an outcome (the service reports it by ReportDelivery, procedure.md 4.2), or remember anything over a restart:
// the history does.
package channel

import (
	"context"
	"log/slog"
	"time"
)

// Page is one message to one person on one channel.
type Page struct {
	// ID is unique over all incidents, and the same when the page is sent again: it is the idempotency key.
	ID string
	// Incident is the id of the incident, such as e20261124.1.
	Incident string
	// Headline is one line that tells what is wanted.
	Headline string
	// Text is the message; it may have several lines or be empty.
	Text string
	// Link leads to the place where to answer; it may be empty.
	Link string
	// Recipient is whom it is for.
	Recipient Recipient
	// Urgent pages ask to wake somebody.
	Urgent bool
	// At is when the page was decided.
	At time.Time
}

// Recipient is a person and the address on the channel.
type Recipient struct{ Person, Address string }

// LogValue keeps the recipient and the text out of logs (procedure.md 8.4).
func (p Page) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", p.ID), slog.String("incident", p.Incident))
}

// State is what became of a page.
type State int

// The states. The zero value claims nothing.
const (
	// Unknown: handed over, but nobody can say whether it was taken.
	Unknown State = iota
	// Sent: taken by the next hop.
	Sent
	// Delivered: the next hop says that it reached the person's device.
	Delivered
	// Failed: not taken.
	Failed
)

// String is the state in lower case.
func (s State) String() string {
	switch s {
	case Sent:
		return "sent"
	case Delivered:
		return "delivered"
	case Failed:
		return "failed"
	default:
		return "unknown"
	}
}

// Receipt is the truth about one attempt.
type Receipt struct {
	// State is what became of the page.
	State State
	// Temporary says that another attempt may succeed and does no harm. An Unknown is temporary only where the other
	// side recognises the repetition; else the person could get the page twice.
	Temporary bool
	// RetryAfter is the least pause that the other side asked for, 0 if none.
	RetryAfter time.Duration
	// Detail is one line for the operator, without address or secret.
	Detail string
	// RemoteID is how the next hop calls the page, if it said so.
	RemoteID string
}

// Channel is a way to reach people.
type Channel interface {
	// Name is the channel's name in the rule book, such as mail, irc or sms.
	Name() string
	// Send tries once. It is called by several goroutines and returns when ctx ends: with Failed if the page cannot
	// have gone out, with Unknown if it may have.
	Send(ctx context.Context, p Page) Receipt
}

// Runner is a Channel that keeps something open meanwhile, such as a connection. Run mends itself and returns only when
// ctx ends; Fanout calls it.
type Runner interface {
	Run(ctx context.Context) error
}

// Clock is where the time comes from.
type Clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time
}

// System is the machine's clock.
type System struct{}

// Now is time.Now.
func (System) Now() time.Time { return time.Now() }

// After is time.After.
func (System) After(d time.Duration) <-chan time.Time { return time.After(d) }
