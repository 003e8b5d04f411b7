// SPDX-License-Identifier: Apache-2.0

package publog_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/publog"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// book is a log in the hand of a test, with one incident in it.
type book struct {
	t        *testing.T
	w        *proceduretest.World
	log      *publog.Log
	position uint64
}

func open(t *testing.T) *book {
	w := tested(t)
	b := &book{t: t, w: w, log: publog.New(publog.Real), position: w.State.Position}
	publish(t, b.log, w)
	return b
}

// add publishes one more event, whether this version of the rules would decide it or not.
func (b *book) add(m proto.Message, change ...func(*emergencyv1.Record)) []publog.Entry {
	b.t.Helper()
	owner := owners(b.t, m)[0]
	e, err := procedure.EncodeEvent(owner, m)
	if err != nil {
		b.t.Fatal(err)
	}
	b.position++
	rec := &emergencyv1.Record{
		Incident: b.w.State.Incident, FirstPosition: b.position, Owner: owner, RecordedAt: timestamppb.New(b.w.Now), OccurredAt: timestamppb.New(b.w.Now),
		Actor: &emergencyv1.Actor{Person: "carla", Role: emergencyv1.Role_ROLE_CRITICAL_ADMIN}, Events: []*emergencyv1.Event{e},
	}
	for _, c := range change {
		c(rec)
	}
	list, err := b.log.Add(b.w.State, rec, "00")
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

func by(person string, role emergencyv1.Role) func(*emergencyv1.Record) {
	return func(rec *emergencyv1.Record) { rec.Actor = &emergencyv1.Actor{Person: person, Role: role} }
}

func departing(v emergencyv1.Deviation) func(*emergencyv1.Record) {
	return func(rec *emergencyv1.Record) { rec.Events[0].Deviations = []emergencyv1.Deviation{v} }
}

// Only the first freeze of each session is said; another session's is another first one.
func TestFirstFreezeOnly(t *testing.T) {
	t.Parallel()
	b := open(t)
	for i, want := range []int{1, 0, 1, 0} {
		grant := []string{"G1", "G1", "G2", "G1"}[i]
		if got := b.add(&emergencyv1.SessionFrozen{Grant: grant, Cause: emergencyv1.SessionCause_SESSION_CAUSE_LEASE_LOST}); len(got) != want {
			t.Errorf("freeze %d, of %s: %d entries, want %d", i, grant, len(got), want)
		}
	}
}

func TestWaitingForAnArbitrator(t *testing.T) {
	t.Parallel()
	b := open(t)
	say := func(m proto.Message, change ...func(*emergencyv1.Record)) publog.Entry {
		t.Helper()
		return b.add(m, change...)[0]
	}
	say(&emergencyv1.DisputeFiled{Dispute: "a20261125.1", Concern: emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2})
	say(&emergencyv1.DisputeFiled{Dispute: "a20261125.2", Concern: emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER})
	say(&emergencyv1.ArbitratorProposed{Dispute: "a20261125.1", Candidate: "arno"})
	e := say(&emergencyv1.ArbitratorDeclined{Dispute: "a20261125.1", Candidate: "arno", Reason: secret}, by("arno", emergencyv1.Role_ROLE_ARBITRATOR))
	if e.Headline != "Waiting for an arbitrator: 1 asked, 1 declined" || e.Role != "arbitrator" {
		t.Errorf("declined: %q by %q; who it was is not public", e.Headline, e.Role)
	}
	e = say(&emergencyv1.ArbitratorProposed{Dispute: "a20261125.1", Candidate: "anton"})
	if e.Headline != "Waiting for an arbitrator: 2 asked, 1 declined" {
		t.Errorf("second proposal: %q", e.Headline)
	}
	waiting := publog.Waiting(b.log.Entries())
	if len(waiting) != 2 || waiting[0].Asked != 2 || waiting[0].Declined != 1 || !waiting[0].FiledAt.Equal(b.w.Now) || waiting[1].Dispute != "a20261125.2" {
		t.Fatalf("waiting: %+v", waiting)
	}
	say(&emergencyv1.ArbitratorAccepted{Dispute: "a20261125.2", Arbitrator: "arno"}, by("arno", emergencyv1.Role_ROLE_ARBITRATOR))
	say(&emergencyv1.DisputeClosedDeclined{Dispute: "a20261125.1", Asked: 2})
	waiting = publog.Waiting(b.log.Entries())
	if len(waiting) != 1 || !waiting[0].ClosedDeclined {
		t.Fatalf("a dispute that nobody took goes on waiting: %+v", waiting)
	}
	filed := waiting[0].FiledAt
	b.w.Now = b.w.Now.Add(time.Hour)
	say(&emergencyv1.DisputeFiled{Dispute: "a20261126.1", Refiles: "a20261125.1"})
	waiting = publog.Waiting(b.log.Entries())
	if len(waiting) != 1 || waiting[0].Dispute != "a20261126.1" || !waiting[0].FiledAt.Equal(filed) {
		t.Errorf("a dispute that is filed again is as old as the first filing: %+v", waiting)
	}
}

// A disclosure is an entry of its own; the one before stays as it was.
func TestDisclosure(t *testing.T) {
	t.Parallel()
	b := open(t)
	position, review := entryOf(t, b, "review.FirstReviewRecorded")
	before := slices.Clone(b.log.Entries())
	salt := []byte("0123456789abcdef")
	disclose := func(event uint64, field, value string, change ...func(*emergencyv1.Record)) publog.Entry {
		t.Helper()
		return b.add(&emergencyv1.FieldDisclosed{Event: event, Commitment: procedure.Commit(salt, []byte(value)), Field: field, Value: []byte(value), Salt: salt}, change...)[0]
	}
	e := disclose(position, "reason", "<b>as I see it</b>")
	if e.Field("on entry") != itoa(review) || e.Field("value") != "<b>as I see it</b>" || e.Field("salt") != hex.EncodeToString(salt) {
		t.Errorf("disclosed: %s", text(e))
	}
	if got := procedure.Commit(salt, []byte(e.Field("value"))); got != e.Field("commitment") {
		t.Errorf("what was disclosed does not fit its commitment")
	}
	if e := disclose(position, "reason", "as tina saw it"); e.Field("value") != "as [not public] saw it" || e.Field("salt") != "" {
		t.Errorf("a name was disclosed, or the salt by which it can be guessed: %s", text(e))
	}
	if e := disclose(position, "reason", "\xff\x00"); e.Field("value") != "hex ff00" {
		t.Errorf("bytes that are no text: %s", text(e))
	}
	accepted, _ := entryOf(t, b, "notification.ResponderAccepted")
	if e := disclose(accepted, "contact_path", "+49 30 1234567"); e.Field("value") != "never public without an arbitrator's order" || e.Field("salt") != "" {
		t.Errorf("how to reach somebody was disclosed: %s", text(e))
	}
	if e := disclose(accepted, "contact_path", "the mailing list", by("arno", emergencyv1.Role_ROLE_ARBITRATOR)); e.Field("value") != "the mailing list" {
		t.Errorf("an arbitrator's order: %s", text(e))
	}
	if !slices.EqualFunc(before, b.log.Entries()[:len(before)], func(x, y publog.Entry) bool { return x.Hash == y.Hash && text(x) == text(y) }) {
		t.Error("an entry was edited")
	}
}

// entryOf finds position and number of the first entry of a kind.
func entryOf(t *testing.T, b *book, kind string) (position, seq uint64) {
	t.Helper()
	for _, rec := range b.w.Records {
		for i, e := range rec.GetEvents() {
			if e.GetType() == kind && position == 0 {
				position = rec.GetFirstPosition() + uint64(i)
			}
		}
	}
	i := slices.IndexFunc(b.log.Entries(), func(e publog.Entry) bool { return e.Kind == kind })
	if i < 0 || position == 0 {
		t.Fatalf("no %s", kind)
	}
	return position, b.log.Entries()[i].Seq
}

// What departs from the rules is never secret, though its event has no entry of its own; a late record shows both times.
func TestExceptionsAreNeverSecret(t *testing.T) {
	t.Parallel()
	b := open(t)
	list := b.add(&emergencyv1.RoleAssumed{Grant: "G1", Person: "carla"}, departing(emergencyv1.Deviation_DEVIATION_ROLE_ASSUMPTION))
	if len(list) != 1 || list[0].Headline != "Departure from the rules" || list[0].Field("deviation") != "role assumption" {
		t.Errorf("an assumed role: %+v", list)
	}
	list = b.add(&emergencyv1.AccessGrantIssued{Grant: "G1", MaxMinutes: 30}, departing(emergencyv1.Deviation_DEVIATION_SUBJECT_NOT_ASSESSOR))
	if list[0].Field("to") != "software engineer" || list[0].Field("maximum length") != "30 min" {
		t.Errorf("a grant for an engineer: %s", text(list[0]))
	}
	late := func(rec *emergencyv1.Record) {
		rec.Late, rec.OccurredAt = true, timestamppb.New(b.w.Now.Add(-time.Hour))
	}
	list = b.add(&emergencyv1.StrategyDeEscalated{From: 2, To: 1, Reason: "carl has a patch"}, late)
	if !list[0].Late || list[0].Field("captured") != "2026-11-24 19:22 UTC" || !list[0].At.Equal(b.w.Now) {
		t.Errorf("recorded late: %+v", list[0])
	}
}

// The ruling's text is a new entry that supersedes the one which said that there is a ruling.
func TestPublishedRulingSupersedes(t *testing.T) {
	t.Parallel()
	b := open(t)
	delivered := b.add(&emergencyv1.RulingDelivered{Ruling: "R1", Dispute: "a20261125.1", Facts: secret})[0]
	other := b.add(&emergencyv1.RulingDelivered{Ruling: "R2", Dispute: "a20261125.2", Facts: secret})[0]
	published := b.add(&emergencyv1.RulingPublished{Ruling: "R1", Dispute: "a20261125.1", Text: "for the claimant"})[0]
	if published.Field("supersedes") != itoa(delivered.Seq) || other.Field("supersedes") != "" {
		t.Errorf("published: %s; other: %s", text(published), text(other))
	}
}

// Whom an event has named, no later text names, whatever part that was.
func TestNamesOfEarlierEventsAreCovered(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.add(&emergencyv1.AccessGrantIssued{Grant: "G1", Subject: "emil", Watcher: "carl", Host: "spare7"})
	b.add(&emergencyv1.AppealPanelFormed{Dispute: "a20261201.1", Members: []string{"arno", "anton", "adam"}, Senior: "adam"})
	e := b.add(&emergencyv1.RulingPublished{Ruling: "R1", Text: "emil on spare7; adam agrees, Anton does not"})[0]
	if e.Field("text") != "[not public] on [not public]; [not public] agrees, [not public] does not" {
		t.Errorf("%q", e.Field("text"))
	}
}

func TestStanding(t *testing.T) {
	t.Parallel()
	b := open(t)
	for _, m := range []proto.Message{
		&emergencyv1.ObligationOpened{Id: "HEALTH/9", DueAt: due}, &emergencyv1.ObligationOpened{Id: "RULING/10", DueAt: due}, &emergencyv1.ObligationOpened{Id: "REPLICATE/9", DueAt: due},
		&emergencyv1.ObligationOverdue{Id: "HEALTH/9", DueAt: due}, &emergencyv1.ObligationDischarged{Id: "RULING/10", By: 40}, &emergencyv1.ObligationOverdue{Id: "REPLICATE/9", DueAt: due},
		&emergencyv1.ObligationDueChanged{Id: "REPLICATE/9", DueAt: due},
	} {
		b.add(m)
	}
	if open, overdue := publog.Owed(b.log.Entries()); open != 2 || overdue != 1 {
		t.Errorf("%d open, %d overdue, want 2 and 1", open, overdue)
	}
}

// Two saved copies show what was removed, put in another order or dated back (procedure.md 8.7).
func TestContinues(t *testing.T) {
	t.Parallel()
	l := publog.New(publog.Real)
	publish(t, l, whole(t))
	all := slices.Clone(l.Entries())
	saved := all[:10]
	if err := publog.Continues(saved, all); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*book){
		"removed":   func(b *book) { b.w.Records, b.w.Bytes = b.w.Records[:5], b.w.Bytes[:5] },
		"reordered": func(b *book) { b.w.Records[2], b.w.Records[3] = b.w.Records[3], b.w.Records[2] },
		"dated back": func(b *book) {
			rec := proto.Clone(b.w.Records[1]).(*emergencyv1.Record)
			rec.RecordedAt = timestamppb.New(rec.GetRecordedAt().AsTime().Add(-time.Second))
			b.w.Records[1] = rec
		},
	} {
		w := whole(t)
		change(&book{w: w})
		forged := publog.New(publog.Real) // a log made anew, whose own chain is whole
		for i, rec := range w.Records {
			if _, err := forged.Add(w.State, rec, procedure.KeyID(w.Bytes[i])); err != nil {
				t.Fatal(err)
			}
		}
		var broken *publog.ChainError
		if err := publog.Continues(saved, forged.Entries()); !errors.As(err, &broken) {
			t.Errorf("%s: not found: %v", name, err)
		}
		if head := saved[len(saved)-1].Hash; publog.Holds(publog.Real, forged.Entries(), head) {
			t.Errorf("%s: the forged log holds the saved head", name)
		}
	}
	late := slices.Clone(all)
	late = append(late, publog.Entry{Seq: uint64(len(all)) + 1, Incident: "e20261123.1", At: all[len(all)-1].At.Add(-publog.ClockTolerance - time.Second)})
	if err := publog.Continues(all, late); err == nil || !strings.Contains(err.Error(), "dated back") {
		t.Errorf("an incident slipped in with an old date: %v", err)
	}
	if !publog.Holds(publog.Real, all, saved[3].Hash) || !publog.Holds(publog.Real, nil, publog.Genesis(publog.Real)) || publog.Holds(publog.Real, all, "00") {
		t.Error("a written head is found where it is not, or not where it is")
	}
}

// The whole stories: what each says in public, and that it says nothing else.
func TestStories(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		steps []proceduretest.Step
		says  []string
	}{
		"strategy 2": {
			[]proceduretest.Step{proceduretest.Story(proceduretest.Blessed), sync},
			[]string{"Escalated to strategy 2 / software-assessor B", "Forwarded to the critical team / software-assessor B", "Deployment started / critical-admin A", "Report published / critical-admin A", "In the regular cycle / software-assessor B", "Test 1 in the update cycle: pass / tester", "Test 2 in the update cycle: pass / tester", "Regular review: blessed / software-assessor"},
		},
		"strategy 3": {
			[]proceduretest.Step{proceduretest.Story(proceduretest.Sealed), sync},
			[]string{"Escalated to strategy 3 / ", "Remote access granted / critical-admin A", "Departure from the rules / critical-admin A", "Remote session opened, watched / console-gateway", "Session frozen: ", "Remote session ended / ", "Access disabled and proven unusable / ", "Session record sealed / "},
		},
		"dispute": {
			[]proceduretest.Step{proceduretest.Story(proceduretest.Healthy2), proceduretest.Dispute(emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2, proceduretest.FinalRuled), sync},
			[]string{"Dispute filed / critical-admin A", "Case number assigned / case-manager", "Waiting for an arbitrator: 1 asked, 0 declined / case-manager", "Waiting for an arbitrator: 1 asked, 1 declined / arbitrator\n", "Arbitrator accepted / arbitrator", "Ruling / arbitrator", "Direction carried out / case-manager", "Review requested / software-assessor", "Re-opened / arbitrator", "Appeal panel formed / dispute-officer"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := proceduretest.Given(t, x.steps...).World()
			l := publog.New(publog.Real)
			publish(t, l, w)
			if err := publog.Verify(publog.Real, l.Entries()); err != nil {
				t.Fatal(err)
			}
			var said strings.Builder
			for _, e := range l.Entries() {
				noPerson(t, e)
				said.WriteString(e.Headline + " / " + e.Role + "\n")
			}
			for _, want := range x.says {
				if !strings.Contains(said.String(), want) {
					t.Errorf("%q is not said:\n%s", want, said.String())
				}
			}
			private(t, w, said.String()+string(mustJSON(l.Entries())))
		})
	}
}

func sync(w *proceduretest.World) { w.Sync() }

// private fails if a text holds a restricted value that was not disclosed.
func private(t proceduretest.T, w *proceduretest.World, text string) {
	t.Helper()
	disclosed := disclosedIn(t, w)
	for commitment, v := range w.Sealed {
		for _, l := range strings.Split(v, "\n") {
			if len(l) > 8 && !disclosed[commitment] && strings.Contains(text, l) {
				t.Fatalf("the restricted value %q is public", l)
			}
		}
	}
}

// Whatever is tried, in any order: replay gives the same bytes, and neither a restricted value nor a person is in them.
func TestRandomHistoriesStayPrivate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := proceduretest.Random(rt, 6, nil)
		render := func() []byte {
			l := publog.New(publog.Real)
			s := procedure.NewState(w.State.Incident)
			for i, rec := range w.Records {
				hash := procedure.KeyID(w.Bytes[i])
				if _, err := l.Add(s, rec, hash); err != nil {
					rt.Fatal(err)
				}
				if err := s.Apply(rec, hash); err != nil {
					rt.Fatal(err)
				}
			}
			if err := publog.Verify(publog.Real, l.Entries()); err != nil {
				rt.Fatal(err)
			}
			var b strings.Builder
			for _, e := range l.Entries() {
				b.WriteString(e.Canonical(publog.Real))
			}
			raw, err := json.Marshal(l.Entries())
			if err != nil {
				rt.Fatal(err)
			}
			return append(raw, b.String()...)
		}
		first := render()
		if string(first) != string(render()) {
			rt.Fatal("a second replay gives other bytes")
		}
		private(rt, w, string(first))
		for _, p := range proceduretest.People() {
			for _, form := range []string{`"` + p.Name + `"`, " " + p.Name + " ", " " + p.Name + `"`} {
				if strings.Contains(string(first), form) {
					rt.Fatalf("%q is named", p.Name)
				}
			}
		}
	})
}

// disclosedIn are the commitments whose values a history has made public.
func disclosedIn(t proceduretest.T, w *proceduretest.World) map[string]bool {
	list := map[string]bool{}
	for _, rec := range w.Records {
		for _, e := range rec.GetEvents() {
			payload, err := procedure.DecodeEvent(e)
			if err != nil {
				t.Fatalf("%v", err)
			}
			if d, ok := payload.(*emergencyv1.FieldDisclosed); ok {
				list[d.GetCommitment()] = true
			}
		}
	}
	return list
}
