// SPDX-License-Identifier: Apache-2.0

package history

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// library is what the protobuf library makes of a message: the envelope's parts if it is exactly one signed record.
func library(raw []byte) (record, keyID, signature []byte, ok bool) {
	var signed emergencyv1.SignedRecord
	if proto.Unmarshal(raw, &signed) != nil || len(signed.ProtoReflect().GetUnknown()) > 0 || proto.Size(&signed) != len(raw) || len(signed.GetRecord()) == 0 {
		return nil, nil, nil, false
	}
	return signed.GetRecord(), []byte(signed.GetKeyId()), signed.GetSignature(), true
}

func same(t *testing.T, raw []byte) {
	t.Helper()
	record, keyID, signature, ok := library(raw)
	e, ferr := openEnvelope(raw)
	switch {
	case ok != (ferr == nil):
		t.Fatalf("the library takes %x: %t, and here: %v", raw, ok, ferr)
	case ferr != nil && ferr.Reason != ReasonMalformed:
		t.Fatal(ferr)
	case ok && (string(record) != string(e.record) || string(keyID) != string(e.keyID) || string(signature) != string(e.signature)):
		t.Fatalf("other parts of %x", raw)
	}
	for _, b := range [][]byte{raw, record} { // any bytes may be a record, too
		fast, slow := decodeFast(b), new(emergencyv1.Record)
		if fast == nil {
			continue
		}
		if err := proto.Unmarshal(b, slow); err != nil || !proto.Equal(fast, slow) || procedure.HasUnknown(slow.ProtoReflect()) {
			t.Fatalf("%x is\n%v here and\n%v for the library, %v", b, fast, slow, err)
		}
	}
}

// full is a record in which every field says something.
func full() *emergencyv1.Record {
	at := &timestamppb.Timestamp{Seconds: 1_790_000_000, Nanos: 5}
	return &emergencyv1.Record{
		Incident: "e20261124.1", FirstPosition: 7, Owner: "incident", Command: "AnnotateLog", RequestId: "r-é", RequestDigest: "d",
		Actor:     &emergencyv1.Actor{Person: "p", Role: 3, KeyId: "k", System: 1, SystemName: "s"},
		Authority: "a", OccurredAt: at, RecordedAt: at, SkewMs: -4, Late: true, CausationId: "c/1", CorrelationId: "c", PolicyDigest: "p", RulebookPosition: 9,
		PrevHash: "h", Approval: &emergencyv1.Approval{PayloadType: "t", Payload: []byte("x"), Signature: []byte("y")},
		Events: []*emergencyv1.Event{
			{Type: "incident.LogAnnotated", SchemaVersion: 1, Payload: []byte("abc"), Deviations: []emergencyv1.Deviation{1, 2}}, {Type: "z"}, {},
		},
	}
}

func encode(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// Every field of a record is decoded by hand: a field that was added to the schema and forgotten here would make every start slow.
func TestDecodesEveryField(t *testing.T) {
	t.Parallel()
	rec := full()
	for m, i := rec.ProtoReflect(), 0; i < m.Descriptor().Fields().Len(); i++ {
		if fd := m.Descriptor().Fields().Get(i); !m.Has(fd) {
			t.Errorf("the test's record says nothing in %s", fd.Name())
		}
	}
	if got := decodeFast(encode(t, rec)); got == nil || !proto.Equal(got, rec) {
		t.Errorf("got %v", got)
	}
	if got := decodeFast(encode(t, &emergencyv1.Record{})); got == nil || !proto.Equal(got, &emergencyv1.Record{}) {
		t.Errorf("an empty record: %v", got)
	}
}

// What Seal would not write is left to the library.
func TestDecodeLeavesTheRest(t *testing.T) {
	t.Parallel()
	rec := encode(t, full())
	for name, raw := range map[string][]byte{
		"an unknown field":      protowire.AppendVarint(protowire.AppendTag(rec[:len(rec):len(rec)], 99, protowire.VarintType), 1),
		"a field that is twice": append(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "x"), rec...),
		"no text":               protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte{0xff}),
		"half of it":            rec[:len(rec)/2],
		"another kind":          protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1),
	} {
		if decodeFast(raw) != nil {
			t.Errorf("%s is decoded", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	rec := encode(f, full())
	f.Add(encode(f, &emergencyv1.SignedRecord{Record: rec, KeyId: "key", Signature: []byte("sig")}))
	f.Add(encode(f, &emergencyv1.SignedRecord{Record: rec}))
	f.Add(rec)
	f.Add(append(rec[:len(rec):len(rec)], rec...))
	f.Add([]byte{0x0a, 0x81, 0x00, 'x'})       // a length that could be shorter
	f.Add([]byte{0x12, 0x01, 0xff, 0x0a, 0})   // no text, no record
	f.Add([]byte{0x1a, 0x01, 1, 0x0a, 1, 'x'}) // in another order
	f.Fuzz(func(t *testing.T, raw []byte) { same(t, raw) })
}
