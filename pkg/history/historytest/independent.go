// SPDX-License-Identifier: Apache-2.0

package historytest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"cacert.org/emergency/pkg/history"
)

// CheckIndependently checks messages as a second pair of eyes: its own decoding from the wire format, its own hashes,
// keys and signatures, nothing of Seal, Chain or a store. It is strict: every message must be a record of its incident,
// next in position, chained, not going back in time, signed by a key of the owner that it names, with event types of
// that owner alone. The error lists all that is wrong.
func CheckIndependently(messages []history.Message, keys map[string][]ed25519.PublicKey) error {
	c := checker{keys: map[string]checkerKey{}, incidents: map[string]checkerState{}}
	for owner, publics := range keys {
		for _, public := range publics {
			spki, err := x509.MarshalPKIXPublicKey(public)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(spki)
			c.keys[hex.EncodeToString(sum[:])] = checkerKey{owner, public}
		}
	}
	var errs []error
	var last uint64
	for _, m := range messages {
		if m.Sequence <= last {
			errs = append(errs, fmt.Errorf("sequence %d after %d", m.Sequence, last))
		}
		last = m.Sequence
		if err := c.message(m); err != nil {
			errs = append(errs, fmt.Errorf("%s, sequence %d: %w", m.Incident, m.Sequence, err))
		}
	}
	return errors.Join(errs...)
}

type checkerKey struct {
	owner  string
	public ed25519.PublicKey
}

type checkerState struct {
	position uint64
	hash     [32]byte
	at       time.Time
}

type checker struct {
	keys      map[string]checkerKey
	incidents map[string]checkerState
}

func (c *checker) message(m history.Message) error {
	envelope, err := fields(m.Data)
	if err != nil {
		return fmt.Errorf("envelope: %w", err)
	}
	record, keyID, signature := envelope.bytes(1), string(envelope.bytes(2)), envelope.bytes(3)
	key, ok := c.keys[keyID]
	if !ok {
		return fmt.Errorf("key %q is unknown", keyID)
	}
	kind := "application/vnd.cacert.emergency.record.v1"
	signed := "DSSEv1 " + strconv.Itoa(len(kind)) + " " + kind + " " + strconv.Itoa(len(record)) + " " + string(record)
	if !ed25519.Verify(key.public, []byte(signed), signature) {
		return errors.New("signature is wrong")
	}
	rec, err := fields(record)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return c.record(m.Incident, key.owner, rec, sha256.Sum256(record))
}

func (c *checker) record(incident, owner string, rec wireFields, hash [32]byte) error {
	if got := string(rec.bytes(1)); got != incident {
		return fmt.Errorf("record of incident %q", got)
	}
	if got := string(rec.bytes(3)); got != owner {
		return fmt.Errorf("names owner %q, signed by %s", got, owner)
	}
	before, ok := c.incidents[incident]
	if !ok {
		before.hash = sha256.Sum256([]byte("emergency/" + incident))
	}
	if got := rec.number(2); got != before.position+1 {
		return fmt.Errorf("first position %d after %d", got, before.position)
	}
	if got, want := string(rec.bytes(17)), hex.EncodeToString(before.hash[:]); got != want {
		return fmt.Errorf("continues %q, the record before is %s", got, want)
	}
	at, err := fields(rec.bytes(10))
	if err != nil {
		return fmt.Errorf("recorded_at: %w", err)
	}
	now := time.Unix(int64(at.number(1)), int64(at.number(2)))
	if now.Before(before.at) {
		return fmt.Errorf("recorded at %s, before %s", now, before.at)
	}
	for _, raw := range rec[19] {
		event, err := fields(raw.bytes)
		if err != nil {
			return fmt.Errorf("event: %w", err)
		}
		if kind := string(event.bytes(1)); !strings.HasPrefix(kind, owner+".") || len(kind) == len(owner)+1 {
			return fmt.Errorf("event type %q in a record of %s", kind, owner)
		}
	}
	if len(rec[19]) == 0 {
		return errors.New("no events")
	}
	c.incidents[incident] = checkerState{before.position + uint64(len(rec[19])), hash, now}
	return nil
}

// wireFields are the fields of one message by number, in the order of the wire.
type wireFields map[protowire.Number][]wireValue

type wireValue struct {
	number uint64
	bytes  []byte
}

func (f wireFields) bytes(n protowire.Number) []byte {
	if v := f[n]; len(v) > 0 {
		return v[len(v)-1].bytes
	}
	return nil
}

func (f wireFields) number(n protowire.Number) uint64 {
	if v := f[n]; len(v) > 0 {
		return v[len(v)-1].number
	}
	return 0
}

func fields(b []byte) (wireFields, error) {
	found := wireFields{}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		var v wireValue
		switch kind {
		case protowire.VarintType:
			v.number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		found[number] = append(found[number], v)
		b = b[n:]
	}
	return found, nil
}
