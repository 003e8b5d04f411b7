// SPDX-License-Identifier: Apache-2.0

package history

import (
	"crypto/ed25519"
	"encoding/binary"
	"testing"

	"cacert.org/emergency/pkg/procedure"
)

// A remembered message is recognised by all its bytes, so nothing passes because something like it did.
func TestSignaturesAreAboutTheseBytes(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	record := []byte("record")
	signed := envelope{record: record, signature: ed25519.Sign(private, procedure.PAE(procedure.RecordPayloadType, record))}
	var v signatures
	raw := []byte("the message as stored")
	for range 2 {
		if !v.verify(raw, signed, public) {
			t.Fatal("a good signature was refused")
		}
	}
	forged := envelope{record: record, signature: make([]byte, ed25519.SignatureSize)}
	if v.verify([]byte("another message"), forged, public) {
		t.Error("a forged signature passed beside a remembered one")
	}
	if v.verify([]byte("another message"), forged, public) {
		t.Error("a refused signature was remembered as good")
	}
}

func TestSignaturesForgetTheOldest(t *testing.T) {
	t.Parallel()
	var v signatures
	digest := func(i int) (d [32]byte) { binary.BigEndian.PutUint64(d[:], uint64(i)); return d }
	for i := range 3 * verifiedKept {
		v.remember(digest(i))
		v.remember(digest(i))
	}
	if len(v.known) != verifiedKept || len(v.order) != verifiedKept {
		t.Errorf("%d digests kept in a ring of %d, want %d", len(v.known), len(v.order), verifiedKept)
	}
	if v.known[digest(0)] || !v.known[digest(3*verifiedKept-1)] {
		t.Error("the oldest is kept or the newest is not")
	}
}
