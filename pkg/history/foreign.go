// SPDX-License-Identifier: Apache-2.0

package history

import "fmt"

// Reason says why a stored message is not, or not wholly, part of the history. Codes are never renamed or reused.
type Reason string

// Reasons of a ForeignError, in the order in which Chain checks.
const (
	// ReasonMalformed: no SignedRecord, or more than one; its record does not decode.
	ReasonMalformed Reason = "MALFORMED"
	// ReasonUnknownKey: the key is not listed, or was not valid when the record says it was recorded.
	ReasonUnknownKey Reason = "UNKNOWN_KEY"
	// ReasonBadSignature: the signature is not the key's over these bytes. A damaged byte looks like this, too.
	ReasonBadSignature Reason = "BAD_SIGNATURE"
	// ReasonWrongSubject: an authentic record of another incident.
	ReasonWrongSubject Reason = "WRONG_SUBJECT"
	// ReasonWrongOwner: the key belongs to another owner than the record names.
	ReasonWrongOwner Reason = "WRONG_OWNER"
	// ReasonEmpty: a record without events.
	ReasonEmpty Reason = "EMPTY"
	// ReasonUnknownType: an event type that is not <owner>.<Name>.
	ReasonUnknownType Reason = "UNKNOWN_TYPE"
	// ReasonForeignEventType: an event type that belongs to another owner.
	ReasonForeignEventType Reason = "FOREIGN_EVENT_TYPE"
	// ReasonGap: the first position is not the next one. Lower: the position is taken, such as by the original of a
	// replayed record. Higher: something before it is missing.
	ReasonGap Reason = "GAP"
	// ReasonBrokenChain: the next position, but after another record than the last valid one.
	ReasonBrokenChain Reason = "BROKEN_CHAIN"
	// ReasonTimeBackwards: recorded before the last valid record (procedure.md 0.6).
	ReasonTimeBackwards Reason = "TIME_BACKWARDS"
)

// ForeignError is why Chain skips a message. The chain is as before: the next message may be valid.
type ForeignError struct {
	Reason Reason
	Detail string
	// Want and Got are first positions; set for ReasonGap alone.
	Want, Got uint64
	// Hash of the record; set once its signature was good, so for all reasons after ReasonBadSignature.
	Hash string
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("foreign record, %s: %s", e.Reason, e.Detail)
}

func foreign(reason Reason, format string, args ...any) *ForeignError {
	return &ForeignError{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// UnreadableError means that an authentic record, the next of its incident, holds something that this version does not
// know: an event type or a field that a newer version added. The incident cannot be read or decided on further until
// this program is updated; other incidents are not affected. It is no foreign record: those are noise, this is a fact.
type UnreadableError struct {
	Incident string
	Position uint64 // of the event, or of the first event of the record
	Detail   string
}

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("incident %s cannot be read from position %d on: %s; update this program", e.Incident, e.Position, e.Detail)
}
