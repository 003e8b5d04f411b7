// SPDX-License-Identifier: Apache-2.0

package history

import (
	"fmt"
	"math"
	"sync"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Every reader decodes every record, so how long that takes is how long a start takes. What Seal writes is decoded here by hand, in a few
// allocations; anything else, such as a field that a newer version added, is left to the protobuf library, whose word on it is the one that
// counts. What is decoded here is what the library makes of the same bytes (FuzzDecode).

// envelope is a SignedRecord as it lies in the message.
type envelope struct{ record, keyID, signature []byte }

// openEnvelope takes a message apart. Nobody signs the envelope, so nothing may hide in it: no unknown field, no field twice, nothing that
// could be written shorter.
func openEnvelope(raw []byte) (envelope, *ForeignError) {
	var e envelope
	size := 0
	for b := raw; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return e, foreign(ReasonMalformed, "no signed record: %v", protowire.ParseError(n))
		}
		parts := []*[]byte{&e.record, &e.keyID, &e.signature}
		if int(number) > len(parts) || *parts[number-1] != nil || kind != protowire.BytesType {
			return e, foreign(ReasonMalformed, "not exactly one signed record")
		}
		to := parts[number-1]
		value, m := protowire.ConsumeBytes(b[n:])
		if m < 0 {
			return e, foreign(ReasonMalformed, "no signed record: %v", protowire.ParseError(m))
		}
		*to, b = value, b[n+m:]
		size += protowire.SizeTag(number) + protowire.SizeBytes(len(value))
		if len(value) == 0 {
			return e, foreign(ReasonMalformed, "not exactly one signed record")
		}
	}
	if size != len(raw) || e.record == nil || !utf8.Valid(e.keyID) {
		return e, foreign(ReasonMalformed, "not exactly one signed record")
	}
	return e, nil
}

// Reopen decodes a message that a Chain has accepted before, for who kept its bytes and nothing else. It checks nothing.
func Reopen(signed []byte) (*Entry, error) {
	e, ferr := openEnvelope(signed)
	if ferr != nil {
		return nil, ferr
	}
	rec, err := decodeRecord(e.record)
	if err != nil {
		return nil, fmt.Errorf("a record that was accepted before: %w", err)
	}
	return &Entry{Record: rec, Hash: hexHash(e.record), Signed: signed}, nil
}

// decodeRecord decodes a record. The payloads of its events, and nothing else of it, lie in raw.
func decodeRecord(raw []byte) (*emergencyv1.Record, error) {
	if rec := decodeFast(raw); rec != nil {
		return rec, nil
	}
	rec := new(emergencyv1.Record)
	return rec, proto.Unmarshal(raw, rec)
}

// decoded is what a record consists of, in one allocation.
type decoded struct {
	record               emergencyv1.Record
	actor                emergencyv1.Actor
	occurredAt, recorded timestamppb.Timestamp
	event                emergencyv1.Event // the first
	events               [1]*emergencyv1.Event
}

// decodeFast decodes what is as Seal writes it; nil for anything else.
func decodeFast(raw []byte) *emergencyv1.Record {
	w := &decoded{}
	w.record.Events = w.events[:0:1]
	words := repeated.Get().(*words)
	defer repeated.Put(words)
	f := fields{rest: raw, words: words}
	for f.next() {
		switch f.number {
		case 1:
			w.record.Incident = f.word()
		case 2:
			w.record.FirstPosition = f.varint()
		case 3:
			w.record.Owner = f.word()
		case 4:
			w.record.Command = f.word()
		case 5:
			w.record.RequestId = f.text()
		case 6:
			w.record.RequestDigest = f.text()
		case 7:
			w.record.Actor = &w.actor
			in := f.enter()
			actor(&in, &w.actor)
			f.leave(&in)
		case 8:
			w.record.Authority = f.word()
		case 9:
			w.record.OccurredAt = &w.occurredAt
			in := f.enter()
			timestamp(&in, &w.occurredAt)
			f.leave(&in)
		case 10:
			w.record.RecordedAt = &w.recorded
			in := f.enter()
			timestamp(&in, &w.recorded)
			f.leave(&in)
		case 11:
			w.record.SkewMs = int64(f.varint())
		case 12:
			w.record.Late = protowire.DecodeBool(f.varint())
		case 13:
			w.record.CausationId = f.text()
		case 14:
			w.record.CorrelationId = f.word()
		case 15:
			w.record.PolicyDigest = f.word()
		case 16:
			w.record.RulebookPosition = f.varint()
		case 17:
			w.record.PrevHash = f.text()
		case 18:
			approval := f.bytes()
			w.record.Approval = new(emergencyv1.Approval)
			f.bad = f.bad || proto.Unmarshal(approval, w.record.Approval) != nil || procedure.HasUnknown(w.record.Approval.ProtoReflect())
		case 19:
			f.repeats()
			e := &w.event
			if len(w.record.Events) > 0 {
				e = new(emergencyv1.Event)
			}
			w.record.Events = append(w.record.Events, e)
			in := f.enter()
			event(&in, e)
			f.leave(&in)
		default:
			return nil
		}
	}
	if f.bad {
		return nil
	}
	if len(w.record.Events) == 0 {
		w.record.Events = nil
	}
	return &w.record
}

func actor(f *fields, a *emergencyv1.Actor) {
	for f.next() {
		switch f.number {
		case 1:
			a.Person = f.word()
		case 2:
			a.Role = emergencyv1.Role(f.enum())
		case 3:
			a.KeyId = f.word()
		case 4:
			a.System = emergencyv1.SystemKind(f.enum())
		case 5:
			a.SystemName = f.word()
		default:
			f.bad = true
		}
	}
}

func timestamp(f *fields, t *timestamppb.Timestamp) {
	for f.next() {
		switch f.number {
		case 1:
			t.Seconds = int64(f.varint())
		case 2:
			t.Nanos = f.enum()
		default:
			f.bad = true
		}
	}
}

func event(f *fields, e *emergencyv1.Event) {
	for f.next() {
		switch f.number {
		case 1:
			e.Type = f.word()
		case 2:
			v := f.varint()
			f.bad = f.bad || v > math.MaxUint32
			e.SchemaVersion = uint32(v)
		case 3:
			e.Payload = f.bytes()
		case 4:
			packed := fields{rest: f.bytes()}
			for len(packed.rest) > 0 && !packed.bad {
				packed.kind = protowire.VarintType
				e.Deviations = append(e.Deviations, emergencyv1.Deviation(packed.enum()))
			}
			f.bad = f.bad || packed.bad
		default:
			f.bad = true
		}
	}
}

// fields walks through the fields of a message. It is bad at the first thing that is not as Seal writes it.
type fields struct {
	rest   []byte
	words  *words
	number protowire.Number
	kind   protowire.Type
	bad    bool
}

// next goes to the next field. Fields are in the order of their numbers, and each is there once.
func (f *fields) next() bool {
	if f.bad || len(f.rest) == 0 {
		return false
	}
	number, kind, n := protowire.ConsumeTag(f.rest)
	if n < 0 || number <= f.number {
		f.bad = true
		return false
	}
	f.number, f.kind, f.rest = number, kind, f.rest[n:]
	return true
}

// repeats allows the field to come again.
func (f *fields) repeats() { f.number-- }

func (f *fields) varint() uint64 {
	v, n := protowire.ConsumeVarint(f.rest)
	if n < 0 || f.kind != protowire.VarintType {
		f.bad = true
		return 0
	}
	f.rest = f.rest[n:]
	return v
}

// enum is a number of 32 bits with a sign.
func (f *fields) enum() int32 {
	v := f.varint()
	f.bad = f.bad || v > math.MaxInt32 // a negative one is left to the library
	return int32(v)
}

func (f *fields) bytes() []byte {
	b, n := protowire.ConsumeBytes(f.rest)
	if n < 0 || f.kind != protowire.BytesType {
		f.bad = true
		return nil
	}
	f.rest = f.rest[n:]
	return b[:len(b):len(b)]
}

// enter begins to walk through a message in the message, and leave ends it.
func (f *fields) enter() fields {
	in := fields{rest: f.bytes(), words: f.words}
	in.bad = f.bad
	return in
}

func (f *fields) leave(in *fields) { f.bad = f.bad || in.bad }

// text is a text that is in this record alone.
func (f *fields) text() string {
	b := f.bytes()
	f.bad = f.bad || !utf8.Valid(b)
	return string(b)
}

// word is a text that is in many records: a person, a command, an incident.
func (f *fields) word() string {
	b := f.bytes()
	if w, ok := f.words.known[string(b)]; ok {
		return w
	}
	f.bad = f.bad || !utf8.Valid(b)
	if f.bad {
		return ""
	}
	if len(f.words.known) == wordsKept {
		clear(f.words.known)
	}
	w := string(b)
	f.words.known[w] = w
	return w
}

// words are texts that were met before, so that each is kept once and not once a record.
type words struct{ known map[string]string }

const wordsKept = 1024

var repeated = sync.Pool{New: func() any { return &words{known: make(map[string]string, wordsKept)} }}
