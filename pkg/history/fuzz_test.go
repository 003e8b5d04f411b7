// SPDX-License-Identifier: Apache-2.0

package history_test

import (
	"errors"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// FuzzAccept gives a chain any bytes: as a message, and as a record that a service signed. Whatever it answers, the
// answer is typed, the head moves only for an accepted record and then as that record says, the independent checker
// agrees, and unless the incident is unreadable the next good record is accepted.
func FuzzAccept(f *testing.F) {
	keys := historytest.NewKeys(f, "services")
	chain, all := grown(f, keys)
	next := historytest.Record(f, incident, "review", chain.Head(), 2, "next")
	record, err := proto.Marshal(next)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(false, all[0])
	f.Add(false, keys.Seal(f, next))
	f.Add(false, []byte(`{"type":"io.nats.jetstream.api.v1.stream_info_response"}`))
	f.Add(true, record)
	next.Events[1].Type = "review.FromTheFuture"
	record, err = proto.Marshal(next)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(true, record)
	f.Fuzz(func(t *testing.T, sign bool, data []byte) {
		if sign {
			data = sealBytes(t, keys, "review", data)
		}
		own, before := *chain, chain.Head()
		entry, err := own.Accept(data)
		var foreign *history.ForeignError
		var unreadable *history.UnreadableError
		switch {
		case errors.As(err, &unreadable):
			if own.Head() != before {
				t.Fatal("the head moved over an unreadable record")
			}
			return
		case errors.As(err, &foreign):
			if own.Head() != before || foreign.Reason == "" || entry != nil {
				t.Fatalf("foreign %+v moved the head to %+v", foreign, own.Head())
			}
		case err != nil:
			t.Fatalf("an error of no type: %v", err)
		default:
			if got := own.Head().Position; got != before.Position+uint64(len(entry.Record.GetEvents())) {
				t.Fatalf("head is at %d", got)
			}
			// The checker does not merge a field that is there twice, as protobuf does; no Seal writes one.
			if signed := (&emergencyv1.SignedRecord{}); proto.Unmarshal(data, signed) == nil && proto.Size(entry.Record) == len(signed.GetRecord()) {
				agrees(t, keys, append(all[:2:2], data))
			}
		}
		good := historytest.Record(t, incident, "incident", own.Head(), 1, "good")
		if good.RecordedAt.CheckValid() != nil {
			return // the fuzzer recorded at the end of time
		}
		if _, err := own.Accept(keys.Seal(t, good)); err != nil {
			t.Fatalf("the next good record is refused: %v", err)
		}
	})
}

func agrees(t *testing.T, keys *historytest.Keys, all [][]byte) {
	t.Helper()
	var messages []history.Message
	for i, data := range all {
		messages = append(messages, history.Message{Incident: incident, Sequence: uint64(i + 1), Data: data})
	}
	if err := historytest.CheckIndependently(messages, keys.Public()); err != nil {
		t.Fatalf("accepted, and the independent checker says: %v", err)
	}
}

func benchRecord(b *testing.B, keys *historytest.Keys) (*history.Chain, *emergencyv1.Record) {
	chain := history.NewChain(incident, keys.Ring)
	return chain, historytest.Record(b, incident, "incident", chain.Head(), 3, fmt.Sprintf("%0200d", 0))
}

func BenchmarkSeal(b *testing.B) {
	keys := historytest.NewKeys(b, "services")
	_, rec := benchRecord(b, keys)
	signer := keys.Signer(b, "incident")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := history.Seal(rec, signer); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAccept(b *testing.B) {
	keys := historytest.NewKeys(b, "services")
	chain, rec := benchRecord(b, keys)
	signed := keys.Seal(b, rec)
	b.ReportAllocs()
	b.SetBytes(int64(len(signed)))
	for b.Loop() {
		own := *chain
		if _, err := own.Accept(signed); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAcceptForeign is what a flood of junk costs each reader.
func BenchmarkAcceptForeign(b *testing.B) {
	keys := historytest.NewKeys(b, "services")
	chain, rec := benchRecord(b, keys)
	for name, data := range map[string][]byte{"junk": []byte("{}"), "signature": flippedEnd(keys.Seal(b, rec))} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := chain.Accept(data); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

func flippedEnd(data []byte) []byte {
	data[len(data)-1] ^= 1
	return data
}
