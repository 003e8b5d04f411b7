// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Store keeps the messages of all histories in one order. It judges no record: what is a valid one, Chain decides, and
// messages of strangers are returned as well and have sequence numbers of their own.
//
// Durability: a message that Append reported, or that any read returned, is still there after any crash of this process
// or of the store, and its bytes do not change. Order: sequences only grow, over all incidents together, and a lower one
// never appears later. Reads see everything that was appended before they began, by whomever.
//
// All methods are safe for concurrent use; appends to different incidents do not wait for each other. Each honours its
// context and, without a deadline, still ends after a bounded time (Follow and Scan excepted).
type Store interface {
	// Append stores one sealed record if nothing was stored on the incident's subject after expected. expected is the
	// sequence of the last message there that the decision saw, messages of strangers included; 0 for none. headers
	// (such as trace ids) are not part of the history and may be nil.
	//
	// It returns the sequence of the message, also when these very bytes were stored at this place by an earlier call:
	// so a caller who does not know may always repeat the same call. The store itself repeats within bounds; a caller
	// who gets ErrConflict loads, decides again and comes with other bytes.
	//
	// Errors: *ConflictError (ErrConflict), ErrUnavailable, ErrUnknownOutcome, ErrStorageFull, ErrTooLarge, ErrWrongLog,
	// ErrRolledBack, or that an argument is wrong. After all of them the record is certainly not stored, ErrUnknownOutcome
	// and ErrWrongLog excepted.
	Append(ctx context.Context, incident string, expected uint64, signed []byte, headers map[string]string) (sequence uint64, err error)

	// Load returns the messages on an incident's subject after a sequence, in order: all that were there when it began.
	Load(ctx context.Context, incident string, after uint64) ([]Message, error)

	// Last returns the last sequence on an incident's subject, 0 for none. Never use it as expected for a decision that
	// was made on an earlier Load: what came between was not seen.
	Last(ctx context.Context, incident string) (sequence uint64, err error)

	// Incidents lists the incidents that have messages, sorted; the rule book is one of them. Subjects that name no
	// incident are left out; Scan shows their messages.
	Incidents(ctx context.Context) ([]string, error)

	// Scan calls fn for every message after a sequence, in order, up to the last one at the call, and returns. A
	// sequence that the store does not have any more is skipped: who cares sees the jump. An error of fn ends it and is
	// returned as it is.
	Scan(ctx context.Context, after uint64, fn func(Message) error) error

	// Follow calls fn for every message after a mark, in order and none left out, and then for each new one until ctx
	// ends or fn returns an error, which is returned as it is. It outlives restarts of the store. It returns
	// ErrRolledBack when the message at the mark, or at the last one given to fn, is gone or is another one, or when one
	// is missing in between.
	Follow(ctx context.Context, after Mark, fn func(Message) error) error
}

// Message is one stored message, of whatever origin.
type Message struct {
	Incident string // that the subject names; empty if it names none
	Sequence uint64 // in the whole store, from 1
	Data     []byte // as stored; never write to it
	Header   map[string]string
	Time     time.Time // when the store took it; no rule uses it
}

// Mark says how far a reader has come. Keep it with what was made of the messages, in one transaction.
type Mark struct {
	Sequence uint64 // 0: before the first
	Hash     string // of the message's data, as Message.Mark gives it; empty: not compared
}

// Mark of a reader that has dealt with this message.
func (m Message) Mark() Mark { return Mark{m.Sequence, hexHash(m.Data)} }

var (
	// ErrConflict is in every *ConflictError.
	ErrConflict = errors.New("the history was continued by another record")

	// ErrUnavailable is returned when the store could not be reached or did not take part; nothing was stored. Try again
	// later, or tell the person to.
	ErrUnavailable = errors.New("the history is not available")

	// ErrUnknownOutcome is returned by Append when a try was sent and neither an answer nor a look at the history could
	// tell whether it was stored. Repeat the call with the same bytes, however late; never with others.
	ErrUnknownOutcome = errors.New("it is not known whether the record was stored")

	// ErrStorageFull is returned by Append when the store has no room; nothing was stored. Stop intake and alarm: an
	// operator has to add storage, nothing is ever dropped to make room.
	ErrStorageFull = errors.New("the storage of the history is full")

	// ErrWrongLog is returned when what answers is not the log that was provisioned: the stream is missing, sealed or
	// another, or an acknowledgement cannot be true. Stop intake and alarm.
	ErrWrongLog = errors.New("this is not the log that was provisioned")

	// ErrRolledBack is returned when messages that were there are gone or different: an old copy was restored, or a tail
	// was lost. Stop and alarm; nothing that was built from the log can be trusted to agree with it.
	ErrRolledBack = errors.New("the log was rolled back")
)

// ConflictError is returned by Append when somebody else's message was stored after expected.
type ConflictError struct {
	Incident string
	Expected uint64
	Found    uint64 // sequence of the first message after Expected
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("append to %s after sequence %d: %v at sequence %d", e.Incident, e.Expected, ErrConflict, e.Found)
}

// Unwrap makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Unwrap() error { return ErrConflict }

// maxHeaders is the most bytes of headers with one record.
const maxHeaders = 8 << 10

const subjectPrefix = "emergency."

// Subject is the one literal subject of an incident. A subject has one token per incident, so the dot in an id such as
// e20261124.1 is written as a dash there.
func Subject(incident string) (string, error) {
	if len(incident) > 64 || !validID(incident, '.') {
		return "", fmt.Errorf("incident id %.80q: letters a-z, digits and single dots between them, at most 64", incident)
	}
	return subjectPrefix + strings.ReplaceAll(incident, ".", "-"), nil
}

// IncidentOf is the incident that a subject names; empty if it names none.
func IncidentOf(subject string) string {
	token, ok := strings.CutPrefix(subject, subjectPrefix)
	if !ok || len(token) > 64 || !validID(token, '-') {
		return ""
	}
	return strings.ReplaceAll(token, "-", ".")
}

func validID(id string, separator byte) bool {
	last := separator
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != separator || last == separator) {
			return false
		}
		last = c
	}
	return last != separator
}

// CheckAppend is what every store refuses before it does anything: an incident that is no id, a record without bytes or
// with too many, and headers that could mean something to a store or break its framing.
func CheckAppend(incident string, signed []byte, headers map[string]string) (subject string, err error) {
	subject, err = Subject(incident)
	if err != nil {
		return "", err
	}
	if len(signed) == 0 {
		return "", errors.New("record has no bytes")
	}
	size := 0
	for name, value := range headers {
		if err := checkHeader(name, value); err != nil {
			return "", err
		}
		size += len(name) + len(value) + 4
	}
	if len(signed) > MaxSigned || size > maxHeaders {
		return "", fmt.Errorf("%w: %d bytes and %d of headers; the limits are %d and %d", ErrTooLarge, len(signed), size, MaxSigned, maxHeaders)
	}
	return subject, nil
}

// checkHeader keeps out everything by which a NATS client gives orders: Nats-Msg-Id above all (hardening 1.4).
func checkHeader(name, value string) error {
	if !validID(strings.ToLower(name), '-') {
		return fmt.Errorf("header %.80q: a name has letters, digits and single dashes between them", name)
	}
	if strings.HasPrefix(strings.ToLower(name), "nats-") || strings.EqualFold(name, "status") {
		return fmt.Errorf("header %s: the store alone sets headers of that kind", name)
	}
	if strings.ContainsAny(value, "\r\n\x00") {
		return fmt.Errorf("header %s: the value has a line break", name)
	}
	return nil
}
