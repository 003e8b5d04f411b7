// SPDX-License-Identifier: Apache-2.0

package history_test

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/history/memory"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const incident = "e20261124.1"

// grown returns a chain with two records, and their bytes.
func grown(t testing.TB, keys *historytest.Keys) (*history.Chain, [][]byte) {
	t.Helper()
	chain := history.NewChain(incident, keys.Ring)
	var all [][]byte
	for _, owner := range []string{"incident", "notification"} {
		signed := keys.Seal(t, historytest.Record(t, incident, owner, chain.Head(), 2, "grown"))
		if _, err := chain.Accept(signed); err != nil {
			t.Fatal(err)
		}
		all = append(all, signed)
	}
	return chain, all
}

func TestChainAccepts(t *testing.T) {
	t.Parallel()
	keys := historytest.NewKeys(t, "services")
	chain := history.NewChain(incident, keys.Ring)
	if got, want := chain.Head(), (history.Head{Hash: history.Genesis(incident)}); got != want {
		t.Fatalf("head is %+v, want %+v", got, want)
	}
	rec := historytest.Record(t, incident, "review", chain.Head(), 3, "first")
	signed, hash, err := history.Seal(rec, keys.Signer(t, "review"))
	if err != nil {
		t.Fatal(err)
	}
	before := *chain
	entry, err := chain.Accept(signed)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(entry.Record, rec) || entry.Hash != hash || !bytes.Equal(entry.Signed, signed) {
		t.Errorf("entry %+v", entry)
	}
	if got, want := chain.Head(), (history.Head{Position: 3, Hash: hash, RecordedAt: historytest.Start}); got != want {
		t.Errorf("head is %+v, want %+v", got, want)
	}
	// A copy taken before is not touched, and goes its own way.
	if before.Head().Position != 0 {
		t.Error("the snapshot moved")
	}
	if _, err := before.Accept(signed); err != nil || before.Head() != chain.Head() {
		t.Errorf("the snapshot does not accept the same record: %v", err)
	}
	// The same time again is not going back.
	next := historytest.Record(t, incident, "incident", chain.Head(), 1, "second")
	next.RecordedAt = timestamppb.New(historytest.Start)
	if _, err := chain.Accept(keys.Seal(t, next)); err != nil {
		t.Error(err)
	}
	resumed := history.ResumeChain(incident, keys.Ring, chain.Head())
	if _, err := resumed.Accept(keys.Seal(t, historytest.Record(t, incident, "deployment", chain.Head(), 1, "third"))); err != nil {
		t.Error(err)
	}
}

func TestChainSkipsForeign(t *testing.T) {
	t.Parallel()
	keys, thief := historytest.NewKeys(t, "services"), historytest.NewKeys(t, "thief")
	chain, all := grown(t, keys)
	head := chain.Head()
	// next seals a record that would be the next one, after a change.
	next := func(change func(*emergencyv1.Record)) []byte {
		rec := historytest.Record(t, incident, "review", head, 2, "next")
		change(rec)
		signed, _, err := history.Seal(rec, keys.Signer(t, "review"))
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	// envelope repacks a good record.
	envelope := func(change func(*emergencyv1.SignedRecord)) []byte {
		var signed emergencyv1.SignedRecord
		if err := proto.Unmarshal(next(func(*emergencyv1.Record) {}), &signed); err != nil {
			t.Fatal(err)
		}
		change(&signed)
		data, err := proto.Marshal(&signed)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good := next(func(*emergencyv1.Record) {})
	for name, tc := range map[string]struct {
		data []byte
		want history.Reason
	}{
		"nothing":              {nil, history.ReasonMalformed},
		"api answer":           {[]byte(`{"type":"io.nats.jetstream.api.v1.stream_msg_get_response"}`), history.ReasonMalformed},
		"cut":                  {good[:len(good)-1], history.ReasonMalformed},
		"no record":            {envelope(func(s *emergencyv1.SignedRecord) { s.Record = nil }), history.ReasonMalformed},
		"unknown field":        {protowire.AppendVarint(protowire.AppendTag(bytes.Clone(good), 9, protowire.VarintType), 1), history.ReasonMalformed},
		"key twice":            {protowire.AppendString(protowire.AppendTag(bytes.Clone(good), 2, protowire.BytesType), "x"), history.ReasonMalformed},
		"two envelopes":        {append(bytes.Clone(good), good...), history.ReasonMalformed},
		"signed junk":          {sealBytes(t, keys, "review", []byte("\xff")), history.ReasonMalformed},
		"without time":         {next(func(r *emergencyv1.Record) { r.RecordedAt = nil }), history.ReasonMalformed},
		"impossible time":      {next(func(r *emergencyv1.Record) { r.RecordedAt.Nanos = -1 }), history.ReasonMalformed},
		"no key":               {envelope(func(s *emergencyv1.SignedRecord) { s.KeyId = "" }), history.ReasonUnknownKey},
		"key in upper case":    {envelope(func(s *emergencyv1.SignedRecord) { s.KeyId = strings.ToUpper(s.KeyId) }), history.ReasonUnknownKey},
		"thief's key":          {thief.Seal(t, historytest.Record(t, incident, "review", head, 1, "x")), history.ReasonUnknownKey},
		"no signature":         {envelope(func(s *emergencyv1.SignedRecord) { s.Signature = nil }), history.ReasonBadSignature},
		"record changed":       {envelope(func(s *emergencyv1.SignedRecord) { s.Record[len(s.Record)/2] ^= 1 }), history.ReasonBadSignature},
		"signature changed":    {envelope(func(s *emergencyv1.SignedRecord) { s.Signature[0] ^= 1 }), history.ReasonBadSignature},
		"other service's key":  {envelope(func(s *emergencyv1.SignedRecord) { s.KeyId = keys.Signer(t, "incident").KeyID }), history.ReasonBadSignature},
		"other incident":       {next(func(r *emergencyv1.Record) { r.Incident = "e20261124.2" }), history.ReasonWrongSubject},
		"no incident":          {next(func(r *emergencyv1.Record) { r.Incident = "" }), history.ReasonWrongSubject},
		"other owner":          {next(func(r *emergencyv1.Record) { r.Owner = "arbitration" }), history.ReasonWrongOwner},
		"no owner":             {next(func(r *emergencyv1.Record) { r.Owner = "" }), history.ReasonWrongOwner},
		"no events":            {next(func(r *emergencyv1.Record) { r.Events = nil }), history.ReasonEmpty},
		"type without owner":   {next(func(r *emergencyv1.Record) { r.Events[1].Type = "PatchRegistered" }), history.ReasonUnknownType},
		"type of no owner":     {next(func(r *emergencyv1.Record) { r.Events[1].Type = "dashboard.PatchRegistered" }), history.ReasonUnknownType},
		"type without name":    {next(func(r *emergencyv1.Record) { r.Events[1].Type = "review." }), history.ReasonUnknownType},
		"other owner's type":   {next(func(r *emergencyv1.Record) { r.Events[1].Type = "incident.EmergencyDeclared" }), history.ReasonForeignEventType},
		"replayed":             {all[0], history.ReasonGap},
		"last one again":       {all[1], history.ReasonGap},
		"position skipped":     {next(func(r *emergencyv1.Record) { r.FirstPosition++ }), history.ReasonGap},
		"position taken":       {next(func(r *emergencyv1.Record) { r.FirstPosition-- }), history.ReasonGap},
		"position zero":        {next(func(r *emergencyv1.Record) { r.FirstPosition = 0 }), history.ReasonGap},
		"other record before":  {next(func(r *emergencyv1.Record) { r.PrevHash = history.Genesis(incident) }), history.ReasonBrokenChain},
		"no record before":     {next(func(r *emergencyv1.Record) { r.PrevHash = "" }), history.ReasonBrokenChain},
		"recorded before":      {next(func(r *emergencyv1.Record) { r.RecordedAt = timestamppb.New(head.RecordedAt.Add(-1)) }), history.ReasonTimeBackwards},
		"newer type, replayed": {next(func(r *emergencyv1.Record) { r.FirstPosition = 1; r.Events[0].Type = "review.FromTheFuture" }), history.ReasonGap},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own := *chain
			entry, err := own.Accept(tc.data)
			var foreign *history.ForeignError
			if entry != nil || !errors.As(err, &foreign) || foreign.Reason != tc.want {
				t.Fatalf("accepted %v, error %v; want %s", entry, err, tc.want)
			}
			if foreign.Detail == "" || !strings.Contains(err.Error(), string(tc.want)) {
				t.Errorf("error says %q", err)
			}
			if own.Head() != head {
				t.Error("the chain moved")
			}
			if _, err := own.Accept(good); err != nil {
				t.Errorf("the next valid record is refused: %v", err)
			}
		})
	}
}

// sealBytes signs bytes that no Seal would make.
func sealBytes(t testing.TB, keys *historytest.Keys, owner string, record []byte) []byte {
	t.Helper()
	signed, err := proto.Marshal(keys.SignBytes(t, owner, record))
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestGapTellsPositions(t *testing.T) {
	t.Parallel()
	keys := historytest.NewKeys(t, "services")
	chain, _ := grown(t, keys)
	rec := historytest.Record(t, incident, "review", chain.Head(), 1, "x")
	rec.FirstPosition = 9
	_, hash, err := history.Seal(rec, keys.Signer(t, "review"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = chain.Accept(keys.Seal(t, rec))
	var foreign *history.ForeignError
	if !errors.As(err, &foreign) || foreign.Want != 5 || foreign.Got != 9 || foreign.Hash != hash {
		t.Errorf("error is %+v", foreign)
	}
}

// TestUnreadableStops: what an authentic next record says cannot be skipped because this version does not know it.
func TestUnreadableStops(t *testing.T) {
	t.Parallel()
	keys := historytest.NewKeys(t, "services")
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 500, protowire.VarintType), 1)
	for name, tc := range map[string]struct {
		change   func(*emergencyv1.Record)
		position uint64
	}{
		"event type":   {func(r *emergencyv1.Record) { r.Events[1].Type = "review.FromTheFuture" }, 6},
		"record field": {func(r *emergencyv1.Record) { r.ProtoReflect().SetUnknown(unknown) }, 5},
		"actor field":  {func(r *emergencyv1.Record) { r.Actor.ProtoReflect().SetUnknown(unknown) }, 5},
		"event field":  {func(r *emergencyv1.Record) { r.Events[1].ProtoReflect().SetUnknown(unknown) }, 5},
		"approval field": {func(r *emergencyv1.Record) {
			r.Approval = &emergencyv1.Approval{}
			r.Approval.ProtoReflect().SetUnknown(unknown)
		}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chain, _ := grown(t, keys)
			head := chain.Head()
			rec := historytest.Record(t, incident, "review", head, 2, "newer")
			tc.change(rec)
			_, err := chain.Accept(keys.Seal(t, rec))
			var unreadable *history.UnreadableError
			if !errors.As(err, &unreadable) || unreadable.Position != tc.position || unreadable.Incident != incident {
				t.Fatalf("error is %v, want unreadable at %d", err, tc.position)
			}
			if chain.Head() != head {
				t.Error("the chain moved")
			}
			_, err = chain.Accept(keys.Seal(t, historytest.Record(t, incident, "review", head, 1, "known")))
			if !errors.As(err, &unreadable) {
				t.Errorf("the chain went on: %v", err)
			}
		})
	}
}

func TestKeyValidity(t *testing.T) {
	t.Parallel()
	keys := historytest.NewKeys(t, "services")
	old := keys.Ring.Keys()
	for name, tc := range map[string]struct {
		notBefore, notAfter time.Time
		valid               bool
	}{
		"for ever":       {time.Time{}, time.Time{}, true},
		"until exactly":  {time.Time{}, historytest.Start, true},
		"from exactly":   {historytest.Start, time.Time{}, true},
		"retired before": {time.Time{}, historytest.Start.Add(-1), false},
		"used too early": {historytest.Start.Add(1), time.Time{}, false},
	} {
		changed := append([]history.Key{}, old...)
		for i := range changed {
			changed[i].NotBefore, changed[i].NotAfter = tc.notBefore, tc.notAfter
		}
		ring, err := history.NewKeyring(changed...)
		if err != nil {
			t.Fatal(err)
		}
		chain := history.NewChain(incident, ring)
		_, err = chain.Accept(keys.Seal(t, historytest.Record(t, incident, "incident", chain.Head(), 1, "x")))
		var foreign *history.ForeignError
		if tc.valid && err != nil || !tc.valid && (!errors.As(err, &foreign) || foreign.Reason != history.ReasonUnknownKey) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	t.Parallel()
	keys := historytest.NewKeys(t, "services")
	rec := historytest.Record(t, incident, "incident", history.Head{}, 1, "x")
	if _, _, err := history.Seal(rec, history.Signer{}); err == nil {
		t.Error("sealed without a key")
	}
	if _, err := history.NewSigner(nil); err == nil {
		t.Error("made a signer without a key")
	}
	rec.Authority = "\xff"
	if _, _, err := history.Seal(rec, keys.Signer(t, "incident")); err == nil {
		t.Error("sealed a text that is no UTF-8")
	}
}

func TestSubject(t *testing.T) {
	t.Parallel()
	for id, subject := range map[string]string{"e20261124.1": "emergency.e20261124-1", "rulebook": "emergency.rulebook"} {
		got, err := history.Subject(id)
		if err != nil || got != subject || history.IncidentOf(subject) != id {
			t.Errorf("%s: subject %s (%v), back %s", id, got, err, history.IncidentOf(subject))
		}
	}
	for _, id := range []string{"", ".", "a.", ".a", "a..b", "a-b", "A", "a b", "*", ">", "a.*", "ä", "a\n", strings.Repeat("a", 65)} {
		if got, err := history.Subject(id); err == nil {
			t.Errorf("%q: subject %s", id, got)
		}
	}
	for _, subject := range []string{"", "emergency.", "emergency.a.b", "emergency.A", "emergency.a--b", "emergency.-a", "other.a", "emergency.*"} {
		if got := history.IncidentOf(subject); got != "" {
			t.Errorf("%q names incident %q", subject, got)
		}
	}
}

// TestVerifyReports damages histories in all the ways that Verify tells apart.
func TestVerifyReports(t *testing.T) {
	t.Parallel()
	keys := historytest.NewKeys(t, "services")
	flip := func(at uint64) func(*memory.Store) {
		return func(s *memory.Store) {
			s.Damage(func(sequence uint64, data []byte) ([]byte, bool) {
				if sequence == at {
					data[len(data)/2] ^= 1
				}
				return data, true
			})
		}
	}
	last := func(s *memory.Store, change func(*emergencyv1.Record)) {
		reading, err := history.Read(t.Context(), s, keys.Ring, incident)
		if err != nil {
			t.Fatal(err)
		}
		rec := historytest.Record(t, incident, "incident", reading.Chain.Head(), 1, "changed")
		change(rec)
		s.Publish("emergency.e20261124-1", keys.Seal(t, rec))
	}
	type found struct {
		reason   history.Reason
		sequence uint64
		position uint64
		damage   bool
	}
	for name, tc := range map[string]struct {
		do   func(*memory.Store)
		want []found
	}{
		"nothing":      {func(*memory.Store) {}, nil},
		"first record": {flip(1), []found{{"BAD_SIGNATURE", 1, 0, false}, {"GAP", 2, 0, true}, {"HISTORY_ENDS", 2, 0, true}}},
		"middle record": {flip(3), []found{{"BAD_SIGNATURE", 3, 4, false}, {"GAP", 4, 4, true},
			{"HISTORY_ENDS", 4, 4, true}}},
		"last record": {flip(5), []found{{"BAD_SIGNATURE", 5, 8, false}}},
		"record lost": {func(s *memory.Store) {
			s.Damage(func(sequence uint64, data []byte) ([]byte, bool) { return data, sequence != 2 })
		}, []found{{"LOST", 2, 0, true}, {"GAP", 3, 2, true}, {"HISTORY_ENDS", 3, 2, true}}},
		"junk":        {func(s *memory.Store) { s.Publish("emergency.e20261124-1", []byte("{}")) }, []found{{"MALFORMED", 6, 10, false}}},
		"no incident": {func(s *memory.Store) { s.Publish("emergency.X", nil) }, []found{{"NO_INCIDENT", 6, 0, false}}},
		"other predecessor": {func(s *memory.Store) { last(s, func(r *emergencyv1.Record) { r.PrevHash = history.Genesis("x") }) },
			[]found{{"BROKEN_CHAIN", 6, 10, true}, {"HISTORY_ENDS", 6, 10, true}}},
		"another with a taken position": {func(s *memory.Store) {
			last(s, func(r *emergencyv1.Record) { r.FirstPosition = 3 })
			last(s, func(*emergencyv1.Record) {})
		}, []found{{"GAP", 6, 10, true}}},
		"payload": {func(s *memory.Store) { last(s, func(r *emergencyv1.Record) { r.Events[0].Payload = []byte("\xff") }) },
			[]found{{"PAYLOAD", 6, 11, true}}},
		"schema": {func(s *memory.Store) { last(s, func(r *emergencyv1.Record) { r.Events[0].SchemaVersion = 99 }) },
			[]found{{"PAYLOAD", 6, 11, true}}},
		"unreadable": {func(s *memory.Store) {
			last(s, func(r *emergencyv1.Record) { r.Events[0].Type = "incident.FromTheFuture" })
			s.Publish("emergency.e20261124-1", []byte("{}"))
		}, []found{{"UNREADABLE", 6, 11, true}, {"UNREADABLE", 5, 10, true}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := &memory.Store{}
			keys.NewWriter(t, store, incident, "incident").MustAppend(t, 5)
			tc.do(store)
			report, err := history.Verify(t.Context(), store, keys.Ring)
			if err != nil {
				t.Fatal(err)
			}
			var got []found
			sound := true
			for _, f := range report.Findings {
				t.Log(f)
				got = append(got, found{f.Reason, f.Sequence, f.Position, f.Damage})
				sound = sound && !f.Damage
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("found %v, want %v", got, tc.want)
			}
			if report.Sound() != sound || report.Clean() != (len(got) == 0) {
				t.Errorf("sound %t, clean %t", report.Sound(), report.Clean())
			}
		})
	}
}

func TestVerifyBoundsNoise(t *testing.T) {
	t.Parallel()
	keys := historytest.NewKeys(t, "services")
	store := &memory.Store{}
	w := keys.NewWriter(t, store, incident, "incident")
	w.MustAppend(t, 1)
	for range 10_005 {
		store.Publish("emergency.e20261124-1", []byte("junk"))
	}
	store.Publish("emergency.e20261124-1", keys.Seal(t, historytest.Record(t, incident, "incident", history.Head{Position: 9}, 1, "x")))
	report, err := history.Verify(t.Context(), store, keys.Ring)
	if err != nil || report.Suppressed != 5 || report.Sound() || len(report.Findings) != 10_002 {
		t.Errorf("%d findings, %d suppressed, sound %t (%v)", len(report.Findings), report.Suppressed, report.Sound(), err)
	}
}

// TestVerifyUnreadableStore: a store that ends early must not look like a short history.
func TestVerifyUnreadableStore(t *testing.T) {
	t.Parallel()
	keys := historytest.NewKeys(t, "services")
	store := &memory.Store{}
	keys.NewWriter(t, store, incident, "incident").MustAppend(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if report, err := history.Verify(ctx, store, keys.Ring); !errors.Is(err, history.ErrUnavailable) || report.Records != 0 {
		t.Errorf("%d records, error %v", report.Records, err)
	}
}

// TestIndependentChecker: a checker that finds nothing is no checker.
func TestIndependentChecker(t *testing.T) {
	t.Parallel()
	keys, thief := historytest.NewKeys(t, "services"), historytest.NewKeys(t, "thief")
	_, all := grown(t, keys)
	head := history.Head{Position: 4, Hash: hashOf(t, keys, all), RecordedAt: historytest.Start.Add(time.Second)}
	good := historytest.Record(t, incident, "review", head, 1, "x")
	changed := func(change func(*emergencyv1.Record)) []byte {
		rec := proto.Clone(good).(*emergencyv1.Record)
		change(rec)
		signed, _, err := history.Seal(rec, keys.Signer(t, "review"))
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	for name, tc := range map[string]struct {
		data []byte
		want string // in the error; empty: no error
	}{
		"good":          {keys.Seal(t, good), ""},
		"junk":          {[]byte("{}"), "envelope"},
		"nothing":       {nil, "unknown"},
		"unknown key":   {thief.Seal(t, good), "unknown"},
		"flipped":       {flipped(keys.Seal(t, good)), "signature"},
		"replayed":      {all[0], "first position 1 after 4"},
		"gap":           {changed(func(r *emergencyv1.Record) { r.FirstPosition = 6 }), "first position 6 after 4"},
		"chain":         {changed(func(r *emergencyv1.Record) { r.PrevHash = history.Genesis("x") }), "continues"},
		"owner":         {changed(func(r *emergencyv1.Record) { r.Owner = "incident" }), "names owner"},
		"event type":    {changed(func(r *emergencyv1.Record) { r.Events[0].Type = "incident.EmergencyDeclared" }), "event type"},
		"incident":      {changed(func(r *emergencyv1.Record) { r.Incident = "e1" }), "of incident"},
		"time":          {changed(func(r *emergencyv1.Record) { r.RecordedAt = timestamppb.New(historytest.Start) }), "before"},
		"without event": {changed(func(r *emergencyv1.Record) { r.Events = nil }), "no events"},
	} {
		var messages []history.Message
		for i, data := range append(append([][]byte{}, all...), tc.data) {
			messages = append(messages, history.Message{Incident: incident, Sequence: uint64(i + 1), Data: data})
		}
		err := historytest.CheckIndependently(messages, keys.Public())
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error is %v, want %q", name, err, tc.want)
		}
		messages[1].Sequence = 1
		if err := historytest.CheckIndependently(messages, keys.Public()); err == nil {
			t.Errorf("%s: a sequence twice was not found", name)
		}
	}
}

func flipped(data []byte) []byte {
	data[len(data)/2] ^= 1
	return data
}

func hashOf(t *testing.T, keys *historytest.Keys, all [][]byte) string {
	t.Helper()
	chain := history.NewChain(incident, keys.Ring)
	for _, signed := range all {
		if _, err := chain.Accept(signed); err != nil {
			t.Fatal(err)
		}
	}
	return chain.Head().Hash
}
