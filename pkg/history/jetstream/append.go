// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/history"
)

// Codes that nats.go does not name.
const (
	codeClusterAway           jetstream.ErrorCode = 10008 // the server sees no leader
	codeInsufficientResources jetstream.ErrorCode = 10023
	codeStorageExceeded       jetstream.ErrorCode = 10047
	codeWrongStream           jetstream.ErrorCode = 10060
	codeStoreFailed           jetstream.ErrorCode = 10077
	codeSealed                jetstream.ErrorCode = 10109
)

// outcome of one publish.
type outcome int

const (
	stored   outcome = iota
	notSent          // it did not leave the process
	refused          // the server answered: this try was not stored
	unknown          // no answer
	hopeless         // the server answered: no try will be stored
)

// Append implements history.Store.
//
// Why it can repeat itself: all tries are the same bytes under the same condition, that the subject's last sequence is
// expected. As soon as one is stored the condition fails for all others. So at most one is stored, and what lies first
// after expected tells whose it was (hardening 6.4, 6.5).
func (s *Store) Append(ctx context.Context, incident string, expected uint64, signed []byte, headers map[string]string) (uint64, error) {
	subject, err := history.CheckAppend(incident, signed, headers)
	if err != nil {
		return 0, fmt.Errorf("append to %s: %w", incident, err)
	}
	a := appending{Store: s, incident: incident, subject: subject, expected: expected, signed: signed, headers: headers}
	sequence, err := a.run(ctx)
	if err != nil && !errors.Is(err, history.ErrConflict) { // a conflict says all this itself
		return 0, fmt.Errorf("append to %s after sequence %d: %w", incident, expected, err)
	}
	return sequence, err
}

// appending is one call of Append.
type appending struct {
	*Store
	incident, subject string
	expected          uint64
	signed            []byte
	headers           map[string]string
	doubt             bool // a try was sent and not answered: it may be stored, now or soon
}

func (a *appending) run(ctx context.Context) (uint64, error) {
	var last error
	for n := range a.cfg.Tries {
		if n > 0 {
			if a.pause(ctx, n) != nil {
				break
			}
			level := slog.LevelWarn
			if code(last) == jetstream.JSErrCodeStreamWrongLastSequenceConstant { // another append in flight: everyday
				level = slog.LevelDebug
			}
			a.cfg.Logger.Log(ctx, level, "append is tried again", "incident", a.incident, "try", n+1, "error", last)
		}
		sequence, result, err := a.publish(ctx)
		switch result {
		case stored:
			return sequence, nil
		case hopeless:
			return 0, err
		case unknown:
			a.doubt = true
		case notSent, refused:
		}
		last = err
		if result == notSent {
			continue
		}
		sequence, done, err := a.readBack(ctx)
		if done {
			return sequence, err
		}
		if err == nil && !a.doubt && errors.Is(last, history.ErrStorageFull) {
			return 0, last
		}
	}
	return 0, a.gaveUp(ctx, last)
}

// gaveUp names the end of all tries. Where one is in doubt, that nothing was found does not say that nothing comes.
func (a *appending) gaveUp(ctx context.Context, last error) error {
	if a.doubt {
		return fmt.Errorf("%w: %w", history.ErrUnknownOutcome, unavailable(ctx, last))
	}
	if code(last) == jetstream.JSErrCodeStreamWrongLastSequence {
		return fmt.Errorf("%w: nothing lies there after it, and it is not the last either: %w", history.ErrRolledBack, last)
	}
	return unavailable(ctx, last)
}

func (a *appending) publish(ctx context.Context) (uint64, outcome, error) {
	if a.nc.IsClosed() {
		return 0, notSent, nats.ErrConnectionClosed
	}
	if err := ctx.Err(); err != nil {
		return 0, notSent, err
	}
	msg := nats.NewMsg(a.subject)
	msg.Data = a.signed
	for name, value := range a.headers {
		msg.Header.Set(name, value)
	}
	var ack *jetstream.PubAck
	err := a.once(ctx, func(ctx context.Context) (err error) {
		ack, err = a.cfg.JS.PublishMsg(ctx, msg,
			jetstream.WithExpectStream(Stream),
			jetstream.WithExpectLastSequencePerSubject(a.expected),
			jetstream.WithRetryAttempts(0)) // every repetition is ours, with a look in between
		return err
	})
	if err != nil {
		return 0, outcomeOf(err), named(err)
	}
	if ack.Stream != Stream || ack.Sequence <= a.expected || ack.Duplicate {
		return 0, hopeless, fmt.Errorf("%w: acknowledged by stream %q as sequence %d, duplicate %t",
			history.ErrWrongLog, ack.Stream, ack.Sequence, ack.Duplicate)
	}
	return ack.Sequence, stored, nil
}

// outcomeOf judges the error of a publish that was handed to the connection.
func outcomeOf(err error) outcome {
	switch {
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionDraining):
		return notSent
	case errors.Is(err, nats.ErrMaxPayload):
		return hopeless
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return refused // reported only when the server could hand the message to nobody
	}
	switch code(err) {
	case 0:
		return unknown
	case codeStoreFailed:
		if noRoom(err) {
			return refused
		}
		return unknown // by the disk of the server that answers, after the others were asked to store it
	case jetstream.JSErrCodeStreamNotFound, codeSealed, codeWrongStream, jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return hopeless
	}
	return refused
}

// noRoom tells a stream at its limit, which its leader sees before it asks the others, from a write that failed: both have one code.
func noRoom(err error) bool {
	return code(err) != codeStoreFailed || strings.Contains(err.Error(), "maximum bytes exceeded")
}

// named gives an error of a publish its name in the contract, where it has one.
func named(err error) error {
	var name error
	switch code(err) {
	case codeInsufficientResources, codeStorageExceeded, codeStoreFailed:
		if noRoom(err) {
			name = history.ErrStorageFull
		}
	case jetstream.JSErrCodeStreamNotFound, codeSealed, codeWrongStream:
		name = history.ErrWrongLog
	case jetstream.JSErrCodeStreamMessageExceedsMaximum:
		name = history.ErrTooLarge
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		name = history.ErrTooLarge
	}
	if name == nil {
		return err
	}
	return fmt.Errorf("%w: %w", name, err)
}

// readBack looks what lies first after expected: these bytes, another message, or nothing (not done, no error).
func (a *appending) readBack(ctx context.Context) (sequence uint64, done bool, err error) {
	var m history.Message
	err = a.once(ctx, func(ctx context.Context) (err error) {
		m, err = a.ask(ctx, getRequest{NextFor: a.subject, Seq: a.expected + 1})
		return err
	})
	if err != nil || m.Sequence == 0 {
		return 0, false, err
	}
	if bytes.Equal(m.Data, a.signed) {
		return m.Sequence, true, nil
	}
	return 0, true, &history.ConflictError{Incident: a.incident, Expected: a.expected, Found: m.Sequence}
}
