// SPDX-License-Identifier: Apache-2.0

// Package historytest holds what tests of histories share: keys and records to write, the suite that every
// history.Store must pass, faults, and a checker that shares no code with the writing side.
package historytest

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Keys is a service key for each owner, the same in every run.
type Keys struct {
	Ring    *history.Keyring
	private map[string]ed25519.PrivateKey
}

// NewKeys makes the keys. The seed tells one set from another, such as the keys of a stranger.
func NewKeys(tb testing.TB, seed string) *Keys {
	tb.Helper()
	k := &Keys{private: map[string]ed25519.PrivateKey{}}
	var listed []history.Key
	for _, owner := range procedure.Owners() {
		sum := sha256.Sum256([]byte(seed + "/" + owner))
		key := ed25519.NewKeyFromSeed(sum[:])
		k.private[owner] = key
		listed = append(listed, history.Key{Owner: owner, Public: key.Public().(ed25519.PublicKey)})
	}
	ring, err := history.NewKeyring(listed...)
	if err != nil {
		tb.Fatal(err)
	}
	k.Ring = ring
	return k
}

// Public lists each owner's public keys, as CheckIndependently wants them.
func (k *Keys) Public() map[string][]ed25519.PublicKey {
	all := map[string][]ed25519.PublicKey{}
	for owner, key := range k.private {
		all[owner] = []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}
	}
	return all
}

// Signer of an owner.
func (k *Keys) Signer(tb testing.TB, owner string) history.Signer {
	tb.Helper()
	signer, err := history.NewSigner(k.private[owner])
	if err != nil {
		tb.Fatal(err)
	}
	return signer
}

// Start is when the histories of Record begin.
var Start = time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC)

// Record is a plausible next record of an owner after a head: n events that carry text.
func Record(tb testing.TB, incident, owner string, head history.Head, n int, text string) *emergencyv1.Record {
	tb.Helper()
	at := head.RecordedAt.Add(time.Second)
	if head.RecordedAt.IsZero() {
		at = Start
	}
	rec := &emergencyv1.Record{
		Incident:      incident,
		FirstPosition: head.Position + 1,
		Owner:         owner,
		Command:       "Declare",
		RequestId:     fmt.Sprintf("request-%s-%d", text, head.Position+1),
		Actor:         &emergencyv1.Actor{Person: "p1", Role: emergencyv1.Role_ROLE_CRITICAL_ADMIN},
		Authority:     "seed 1.1",
		OccurredAt:    timestamppb.New(at),
		RecordedAt:    timestamppb.New(at),
		PrevHash:      head.Hash,
	}
	for range n {
		event, err := procedure.EncodeEvent(owner, &emergencyv1.CommandRefused{Command: text, Code: "FAILED_PRECONDITION", Reason: "ENTRY"})
		if err != nil {
			tb.Fatal(err)
		}
		rec.Events = append(rec.Events, event)
	}
	return rec
}

// Seal seals a record by its owner's key.
func (k *Keys) Seal(tb testing.TB, rec *emergencyv1.Record) []byte {
	tb.Helper()
	signed, _, err := history.Seal(rec, k.Signer(tb, rec.GetOwner()))
	if err != nil {
		tb.Fatal(err)
	}
	return signed
}

// Writer continues one incident as a service does: it decides on what it has read and appends on that condition.
type Writer struct {
	*history.Reading
	Keys  *Keys
	Owner string
	store history.Store
}

// NewWriter starts on the incident as it is now.
func (k *Keys) NewWriter(tb testing.TB, store history.Store, incident, owner string) *Writer {
	tb.Helper()
	reading, err := history.Read(tb.Context(), store, k.Ring, incident)
	if err != nil {
		tb.Fatal(err)
	}
	return &Writer{Reading: reading, Keys: k, Owner: owner, store: store}
}

// Next seals the record that would continue what was read.
func (w *Writer) Next(tb testing.TB, text string) []byte {
	tb.Helper()
	return w.Keys.Seal(tb, Record(tb, w.Chain.Incident(), w.Owner, w.Chain.Head(), 2, text))
}

// Append appends sealed bytes on the condition of what was read, and reads on.
func (w *Writer) Append(ctx context.Context, signed []byte) (uint64, error) {
	sequence, err := w.store.Append(ctx, w.Chain.Incident(), w.Last, signed, map[string]string{"traceparent": "00-1-1-01"})
	if err == nil || errors.Is(err, history.ErrConflict) {
		err = errors.Join(err, w.Continue(ctx, w.store))
	}
	return sequence, err
}

// MustAppend appends n records one after the other.
func (w *Writer) MustAppend(tb testing.TB, n int) {
	tb.Helper()
	for i := range n {
		if _, err := w.Append(tb.Context(), w.Next(tb, fmt.Sprint("record ", i))); err != nil {
			tb.Fatal(err)
		}
	}
}

// SignBytes signs any bytes as an owner's record, such as ones that no Seal would make.
func (k *Keys) SignBytes(tb testing.TB, owner string, record []byte) *emergencyv1.SignedRecord {
	tb.Helper()
	return &emergencyv1.SignedRecord{
		Record:    record,
		KeyId:     k.Signer(tb, owner).KeyID,
		Signature: ed25519.Sign(k.private[owner], procedure.PAE(procedure.RecordPayloadType, record)),
	}
}
