// SPDX-License-Identifier: Apache-2.0

package history

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Head is the end of a history: what the next record must continue.
type Head struct {
	Position   uint64    // of the last event; 0 before the first
	Hash       string    // of the last record; Genesis before the first
	RecordedAt time.Time // of the last record; zero before the first
}

// Entry is one record of the history.
type Entry struct {
	Record   *emergencyv1.Record // shared: never write to it
	Hash     string              // SHA-256 of the record's bytes, lower-case hex
	Signed   []byte              // the bytes as stored
	Sequence uint64              // of the message in the store; 0 from Accept, which sees only bytes
}

// Chain decides message by message, in the order of the store, what belongs to the history of one incident. It is small
// and what it points to never changes, so copying the value (snapshot := *chain) is how a cache keeps one. One Chain is
// not for concurrent use; copies are independent.
type Chain struct {
	incident   string
	keys       *Keyring
	head       Head
	unreadable *UnreadableError
}

// NewChain starts before the first record of an incident.
func NewChain(incident string, keys *Keyring) *Chain {
	return ResumeChain(incident, keys, Head{Hash: Genesis(incident)})
}

// ResumeChain goes on where Head was taken, such as from a projection's checkpoint. The head is trusted.
func ResumeChain(incident string, keys *Keyring, head Head) *Chain {
	return &Chain{incident: incident, keys: keys, head: head}
}

// Incident is the id whose history this is.
func (c *Chain) Incident() string { return c.incident }

// Head is the end of what was accepted so far. A new record takes first_position Head.Position+1, prev_hash Head.Hash
// and a recorded_at not before Head.RecordedAt.
func (c *Chain) Head() Head { return c.head }

// Accept judges the next message of the incident's subject. It returns the record if it is the next one;
// *ForeignError if the message is to be skipped, counted and alarmed; *UnreadableError if the incident cannot be read
// further by this version, and then again for every later message.
func (c *Chain) Accept(raw []byte) (*Entry, error) {
	if c.unreadable != nil {
		return nil, c.unreadable
	}
	return c.AcceptOpened(c.keys.Open(raw))
}

// AcceptOpened is Accept for a message that the chain's keyring has opened before.
func (c *Chain) AcceptOpened(o *Opened) (*Entry, error) {
	if c.unreadable != nil {
		return nil, c.unreadable
	}
	entry, key, ferr := o.entry, o.key, o.foreign
	if ferr == nil {
		ferr = c.belongs(entry.Record, key)
	}
	if ferr == nil {
		ferr = c.continues(entry.Record)
	}
	if ferr != nil {
		if entry != nil {
			ferr.Hash = entry.Hash
		}
		return nil, ferr
	}
	// Only here: the same record replayed elsewhere, or out of turn, is foreign and must not stop anything.
	if c.unreadable = c.unknownPart(entry.Record); c.unreadable != nil {
		return nil, c.unreadable
	}
	c.head = Head{
		Position:   c.head.Position + uint64(len(entry.Record.GetEvents())),
		Hash:       entry.Hash,
		RecordedAt: entry.Record.GetRecordedAt().AsTime(),
	}
	return entry, nil
}

// Opened is a message of which is known what can be known without what lies before it: who vouches for it, and what it says. It costs
// far more than the rest of Accept, and any number of messages may be opened at the same time, in any order.
type Opened struct {
	entry   *Entry
	key     Key
	foreign *ForeignError
}

// Entry is what the message says, whether or not it continues its chain; nil if nobody vouches for it. Its Sequence is 0.
func (o *Opened) Entry() *Entry {
	if o.foreign != nil {
		return nil
	}
	return o.entry
}

// Open opens a message.
func (k *Keyring) Open(raw []byte) *Opened { return k.openAs(raw, false) }

// OpenVerified opens a message of which it is known that its signature is good, such as by Verified.Knows.
func (k *Keyring) OpenVerified(raw []byte) *Opened { return k.openAs(raw, true) }

func (k *Keyring) openAs(raw []byte, verified bool) *Opened {
	o := &Opened{}
	o.entry, o.key, o.foreign = k.open(raw, verified)
	return o
}

// open checks what is outside the record: envelope, key, signature. The entry is nil until the signature was good, so
// that a record nobody vouches for is not even decoded.
func (k *Keyring) open(raw []byte, verified bool) (*Entry, Key, *ForeignError) {
	signed, ferr := openEnvelope(raw)
	if ferr != nil {
		return nil, Key{}, ferr
	}
	key, ok := k.keys[string(signed.keyID)]
	if !ok {
		return nil, Key{}, foreign(ReasonUnknownKey, "key %s is no listed service key", shortID(string(signed.keyID)))
	}
	if !verified && !k.good.verify(raw, signed, key.Public) {
		return nil, Key{}, foreign(ReasonBadSignature, "not signed by the key of %s that it names", key.Owner)
	}
	entry := &Entry{Hash: hexHash(signed.record), Signed: raw}
	var err error
	if entry.Record, err = decodeRecord(signed.record); err != nil {
		return entry, Key{}, foreign(ReasonMalformed, "signed by %s, but no record: %v", key.Owner, err)
	}
	if entry.Record.GetRecordedAt().CheckValid() != nil {
		return entry, Key{}, foreign(ReasonMalformed, "signed by %s, but without a valid recorded_at", key.Owner)
	}
	return entry, key, nil
}

// belongs checks that this record may be in this incident and holds only what its signer may say (procedure.md 0.1).
func (c *Chain) belongs(rec *emergencyv1.Record, key Key) *ForeignError {
	if rec.GetIncident() != c.incident {
		return foreign(ReasonWrongSubject, "is a record of incident %q", rec.GetIncident())
	}
	if rec.GetOwner() != key.Owner {
		return foreign(ReasonWrongOwner, "names owner %q, signed by %s", rec.GetOwner(), key.Owner)
	}
	if at := rec.GetRecordedAt().AsTime(); !key.validAt(at) {
		return foreign(ReasonUnknownKey, "the key of %s was not valid at %s", key.Owner, at.Format(time.RFC3339))
	}
	if len(rec.GetEvents()) == 0 {
		return foreign(ReasonEmpty, "has no events")
	}
	for _, event := range rec.GetEvents() {
		owner, name, _ := strings.Cut(event.GetType(), ".")
		if name == "" || !procedure.IsOwner(owner) {
			return foreign(ReasonUnknownType, "event type %q", event.GetType())
		}
		if owner != key.Owner {
			return foreign(ReasonForeignEventType, "%s holds %s, which only %s may", key.Owner, event.GetType(), owner)
		}
	}
	return nil
}

func (c *Chain) continues(rec *emergencyv1.Record) *ForeignError {
	want, got := c.head.Position+1, rec.GetFirstPosition()
	if got != want {
		what := "something before it is missing"
		if got < want {
			what = "that position is taken"
		}
		err := foreign(ReasonGap, "starts at position %d, the next is %d: %s", got, want, what)
		err.Want, err.Got = want, got
		return err
	}
	if rec.GetPrevHash() != c.head.Hash {
		return foreign(ReasonBrokenChain, "position %d continues record %s, the last is %s", got, shortID(rec.GetPrevHash()), shortID(c.head.Hash))
	}
	if at := rec.GetRecordedAt().AsTime(); at.Before(c.head.RecordedAt) {
		return foreign(ReasonTimeBackwards, "recorded at %s, the record before at %s",
			at.Format(time.RFC3339Nano), c.head.RecordedAt.Format(time.RFC3339Nano))
	}
	return nil
}

// unknownPart looks for what a newer version may have added. Payloads are the fold's: procedure.DecodeEvent refuses
// those that it does not know in full.
func (c *Chain) unknownPart(rec *emergencyv1.Record) *UnreadableError {
	if procedure.HasUnknown(rec.ProtoReflect()) {
		return &UnreadableError{c.incident, rec.GetFirstPosition(), "the record has fields that this version does not know"}
	}
	for i, event := range rec.GetEvents() {
		if _, ok := procedure.EventOwner(event.GetType()); !ok {
			return &UnreadableError{c.incident, rec.GetFirstPosition() + uint64(i),
				fmt.Sprintf("event type %q is not known to this version", event.GetType())}
		}
	}
	return nil
}

// shortID makes an id of any origin safe and short for a text: its first hex digits, or what it is instead.
func shortID(id string) string {
	if _, err := hex.DecodeString(id); err != nil || len(id) != 64 {
		return fmt.Sprintf("%.20q", id)
	}
	return id[:12]
}
