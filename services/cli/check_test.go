// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// told is a whole emergency and its rule book, sealed by the services.
type told struct {
	t       *testing.T
	signers map[string]history.Signer
	keys    *history.Keyring
	records map[string][]*emergencyv1.SignedRecord
}

func tell(t *testing.T) *told {
	t.Helper()
	x := &told{t: t, signers: map[string]history.Signer{}, records: map[string][]*emergencyv1.SignedRecord{}}
	var listed []history.Key
	for _, owner := range procedure.Owners() {
		seed := sha256.Sum256([]byte(owner))
		key := ed25519.NewKeyFromSeed(seed[:])
		signer, err := history.NewSigner(key)
		if err != nil {
			t.Fatal(err)
		}
		x.signers[owner] = signer
		listed = append(listed, history.Key{Owner: owner, Public: key.Public().(ed25519.PublicKey)})
	}
	var err error
	if x.keys, err = history.NewKeyring(listed...); err != nil {
		t.Fatal(err)
	}
	book := proceduretest.NewRuleBook(t)
	book.Do("service", proceduretest.Establish())
	x.seal(procedure.RuleBook, book.Records)
	x.seal(proceduretest.DefaultIncident, proceduretest.Given(t, proceduretest.Story(proceduretest.ClosedDown)).World().Records)
	return x
}

// seal signs records anew, each continuing the one before it, as their owners would: what a thief of all services' keys can
// do. What it cannot do is sign for people.
func (x *told) seal(id string, records []*emergencyv1.Record) {
	x.t.Helper()
	x.records[id] = nil
	prev := history.Genesis(id)
	for _, rec := range records {
		rec = proto.CloneOf(rec)
		rec.PrevHash = prev
		raw, hash, err := history.Seal(rec, x.signers[rec.GetOwner()])
		if err != nil {
			x.t.Fatal(err)
		}
		signed := &emergencyv1.SignedRecord{}
		if err := proto.Unmarshal(raw, signed); err != nil {
			x.t.Fatal(err)
		}
		x.records[id] = append(x.records[id], signed)
		prev = hash
	}
}

// open decodes an incident's records, to be changed and sealed again.
func (x *told) open() []*emergencyv1.Record {
	x.t.Helper()
	var list []*emergencyv1.Record
	for _, signed := range x.records[proceduretest.DefaultIncident] {
		rec := &emergencyv1.Record{}
		if err := proto.Unmarshal(signed.GetRecord(), rec); err != nil {
			x.t.Fatal(err)
		}
		list = append(list, rec)
	}
	return list
}

func (x *told) check() []finding {
	var list []finding
	for _, r := range check([]string{proceduretest.DefaultIncident, procedure.RuleBook}, x.records, x.keys) {
		list = append(list, r.Findings...)
	}
	return list
}

// given finds the record of a command.
func given(t *testing.T, records []*emergencyv1.Record, command string) *emergencyv1.Record {
	t.Helper()
	i := slices.IndexFunc(records, func(r *emergencyv1.Record) bool { return r.GetCommand() == command })
	if i < 0 {
		t.Fatalf("no %s in the story", command)
	}
	return records[i]
}

func TestCheckAcceptsWhatIsRight(t *testing.T) {
	t.Parallel()
	x := tell(t)
	if found := x.check(); len(found) > 0 {
		t.Fatalf("found %+v", found)
	}
	results := check([]string{proceduretest.DefaultIncident, procedure.RuleBook}, x.records, x.keys)
	if results[0].Incident != procedure.RuleBook || results[1].Signed != 7 {
		t.Errorf("rule book first, and seven approvals: %+v", results)
	}
}

// TestCheckCountsWhatItVerified: an approval beside a record that needs none was never held against anything, and does not count.
func TestCheckCountsWhatItVerified(t *testing.T) {
	t.Parallel()
	x := tell(t)
	records := x.open()
	given(t, records, "Declare").Approval = given(t, records, "Forward").GetApproval()
	x.seal(proceduretest.DefaultIncident, records)
	for _, r := range check([]string{proceduretest.DefaultIncident}, x.records, x.keys) {
		if r.Signed != 7 || len(r.Findings) > 0 {
			t.Errorf("%+v", r)
		}
	}
}

// TestCheckFindsForgedPeople: a thief of every service's key has chain and owners right, and is found by the people's own
// signatures.
func TestCheckFindsForgedPeople(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name   string
		change func(t *testing.T, records []*emergencyv1.Record)
		want   string
	}{
		{"approval left out", func(t *testing.T, r []*emergencyv1.Record) { given(t, r, "RecordSecondReview").Approval = nil }, "has no signature of that person"},
		{"approval of another act", func(t *testing.T, r []*emergencyv1.Record) {
			given(t, r, "RecordSecondReview").Approval = given(t, r, "Forward").GetApproval()
		}, "signature says nothing of verdict"},
		{"signature changed", func(t *testing.T, r []*emergencyv1.Record) {
			a := given(t, r, "StartApply").GetApproval()
			a.Signature[len(a.Signature)-1] ^= 1
		}, "signature"},
		{"another person named", func(t *testing.T, r []*emergencyv1.Record) {
			given(t, r, "RecordFirstReview").Actor.Person = "beate"
		}, "is recorded as anna's"},
		{"a role nobody gave", func(t *testing.T, r []*emergencyv1.Record) {
			given(t, r, "Declare").Actor.Person = "mia"
		}, "did not hold the role"},
		{"a system for a person", func(t *testing.T, r []*emergencyv1.Record) {
			given(t, r, "StartApply").Actor = &emergencyv1.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_REACTOR, SystemName: "deployment"}
		}, "may not be given by"},
		{"a command of another service", func(t *testing.T, r []*emergencyv1.Record) { given(t, r, "RecordHealth").Command = "Declare" }, "belongs to incident"},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			story := tell(t)
			records := story.open()
			x.change(t, records)
			story.seal(proceduretest.DefaultIncident, records)
			found := story.check()
			if !slices.ContainsFunc(found, func(f finding) bool { return f.Reason == "APPROVAL" && strings.Contains(f.Detail, x.want) }) {
				t.Errorf("want %q, found %+v", x.want, found)
			}
		})
	}
}

// TestCheckFindsDamage: what was changed, left out, exchanged or signed by the wrong service.
func TestCheckFindsDamage(t *testing.T) {
	t.Parallel()
	incident := proceduretest.DefaultIncident
	for _, x := range []struct {
		name   string
		change func(*told)
		want   history.Reason
	}{
		{"one bit", func(s *told) { s.records[incident][3].Record[40] ^= 1 }, history.ReasonBadSignature},
		{"left out", func(s *told) { s.records[incident] = slices.Delete(s.records[incident], 3, 4) }, history.ReasonGap},
		{"exchanged", func(s *told) { r := s.records[incident]; r[3], r[4] = r[4], r[3] }, history.ReasonGap},
		{"twice", func(s *told) { s.records[incident] = slices.Insert(s.records[incident], 4, s.records[incident][3]) }, history.ReasonGap},
		{"another service's key", func(s *told) {
			records := s.open()
			signer := s.signers[procedure.OwnerReview]
			raw, _, err := history.Seal(records[0], signer)
			if err != nil {
				s.t.Fatal(err)
			}
			if err := proto.Unmarshal(raw, s.records[incident][0]); err != nil {
				s.t.Fatal(err)
			}
		}, history.ReasonWrongOwner},
		{"an unlisted key", func(s *told) { s.records[incident][0].KeyId = strings.Repeat("0", 64) }, history.ReasonUnknownKey},
		{"another incident's record", func(s *told) { s.records[incident][0] = s.records[procedure.RuleBook][0] }, history.ReasonWrongSubject},
		{"no bytes", func(s *told) { s.records[incident][0].Record = nil }, history.ReasonMalformed},
		{"of the rule book", func(s *told) { s.records[procedure.RuleBook][0].Signature[0] ^= 1 }, history.ReasonBadSignature},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			story := tell(t)
			x.change(story)
			found := story.check()
			if !slices.ContainsFunc(found, func(f finding) bool { return f.Reason == string(x.want) }) {
				t.Errorf("want %s, found %+v", x.want, found)
			}
		})
	}
}

// TestCheckSaysHowMuchIsLost: after a gap nothing can be judged, and that is one finding.
func TestCheckSaysHowMuchIsLost(t *testing.T) {
	t.Parallel()
	x := tell(t)
	x.records[proceduretest.DefaultIncident][5].Record[10] ^= 1
	if found := x.check(); len(found) != 2 || !strings.Contains(found[1].Detail, "cannot be judged") {
		t.Errorf("found %+v", found)
	}
}
