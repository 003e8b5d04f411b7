// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func TestImportArchive(t *testing.T) {
	t.Parallel()
	message := func(change func(*emergencyv1.ArchivedMessage)) procedure.Command {
		m := pt.Archived(9)
		change(m)
		return pt.ImportArchive(pt.Archived(8), m)
	}
	many := func(n int) procedure.Command {
		c := pt.ImportArchive()
		for i := range n {
			c.Messages = append(c.Messages, pt.Archived(i))
		}
		return c
	}
	wrong := func(name string, change func(*emergencyv1.ArchivedMessage)) row {
		return row{name: name, when: message(change), by: "clara", refused: procedure.ReasonField}
	}
	before := history(pt.Does("casper", pt.ImportArchive(pt.Archived(1), pt.Archived(2))))
	for _, r := range []row{
		{name: "by the critical team lead", when: pt.ImportArchive(pt.Archived(1)), by: "clara", then: events("MessageArchived")},
		{name: "by a case manager", when: pt.ImportArchive(pt.Archived(1), pt.Archived(2)), by: "casper", then: events("MessageArchived", "MessageArchived")},
		{name: "without Message-ID or subject", when: message(func(m *emergencyv1.ArchivedMessage) { m.MessageId, m.Title = "", "" }), by: "clara", then: events("MessageArchived", "MessageArchived")},
		{name: "more, later", given: before, when: pt.ImportArchive(pt.Archived(3)), by: "clara", then: events("MessageArchived")},
		{name: "the same again", given: before, when: pt.ImportArchive(pt.Archived(3), pt.Archived(2)), by: "clara", refused: procedure.ReasonArchiveMessage},
		{name: "a Message-ID with other content", given: before, when: message(func(m *emergencyv1.ArchivedMessage) { m.MessageId = pt.Archived(1).GetMessageId() }), by: "clara", refused: procedure.ReasonArchiveMessage},
		{name: "from tomorrow", when: message(func(m *emergencyv1.ArchivedMessage) { m.SentAt = stampOf(pt.T0().Add(24 * time.Hour)) }), by: "clara", refused: procedure.ReasonArchiveDate},
		{name: "from before there was mail", when: message(func(m *emergencyv1.ArchivedMessage) { m.SentAt = stampOf(time.Unix(0, 0)) }), by: "clara", refused: procedure.ReasonArchiveDate},
		{name: "by a critical admin", when: pt.ImportArchive(pt.Archived(1)), by: "carla", refused: procedure.ReasonRole},
		{name: "about an incident", when: with(pt.ImportArchive(pt.Archived(1)), func(c *emergencyv1.ImportArchiveRequest) { c.Meta = &emergencyv1.CommandMeta{Incident: "e20261124.1"} }), by: "clara", refused: procedure.ReasonField},
		{name: "nothing", when: pt.ImportArchive(), by: "clara", refused: procedure.ReasonField},
		{name: "as many as one record takes", when: many(procedure.ArchiveBatch), by: "clara"},
		{name: "too many", when: many(procedure.ArchiveBatch + 1), by: "clara", refused: procedure.ReasonField},
		{name: "no list", when: with(pt.ImportArchive(pt.Archived(1)), func(c *emergencyv1.ImportArchiveRequest) { c.List = "" }), by: "clara", refused: procedure.ReasonField},
		wrong("no digest", func(m *emergencyv1.ArchivedMessage) { m.Sha256 = "" }),
		wrong("a digest twice", func(m *emergencyv1.ArchivedMessage) { m.Sha256 = pt.Archived(8).GetSha256() }),
		wrong("a Message-ID twice", func(m *emergencyv1.ArchivedMessage) { m.MessageId = pt.Archived(8).GetMessageId() }),
		wrong("a Message-ID with a line end", func(m *emergencyv1.ArchivedMessage) { m.MessageId = "a\n@b" }),
		wrong("a Message-ID with a bracket", func(m *emergencyv1.ArchivedMessage) { m.MessageId = "<a@b>" }),
		wrong("a long Message-ID", func(m *emergencyv1.ArchivedMessage) { m.MessageId = strings.Repeat("a", 251) }),
		wrong("no size", func(m *emergencyv1.ArchivedMessage) { m.Size = 0 }),
		wrong("no date", func(m *emergencyv1.ArchivedMessage) { m.SentAt = nil }),
		wrong("a date from nowhere", func(m *emergencyv1.ArchivedMessage) { m.DatedBy = 0 }),
		wrong("an address in the subject", func(m *emergencyv1.ArchivedMessage) { m.Title = "emergency patch by joe@example.org" }),
		wrong("a subject of two lines", func(m *emergencyv1.ArchivedMessage) { m.Title = "emergency\npatch" }),
		wrong("a subject from right to left", func(m *emergencyv1.ArchivedMessage) { m.Title = "emergency \u202ehctap" }),
		wrong("a long subject", func(m *emergencyv1.ArchivedMessage) { m.Title = strings.Repeat("ä", 301) }),
		wrong("a subject that is no text", func(m *emergencyv1.ArchivedMessage) { m.Title = "emergency \ufffd patch" }),
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			w := pt.NewArchive(t)
			if len(r.then) == 0 && r.refused == "" { // many events
				if out := w.Do(r.by, r.when); len(out.Types()) != procedure.ArchiveBatch {
					t.Errorf("%d events", len(out.Types()))
				}
				return
			}
			r.play(t, pt.GivenWorld(t, w, r.given...).Counting(seen))
		})
	}
}

// What was signed is what is recorded: a record that says something else of a message, leaves one out or adds one, does not verify.
func TestImportedIsWhatWasSigned(t *testing.T) {
	t.Parallel()
	w := pt.NewArchive(t)
	before := w.State
	w.Do("clara", pt.ImportArchive(pt.Archived(1), pt.Archived(2)))
	rec := w.Records[0]
	if err := procedure.VerifyRecord(before, rec, w.Book); err != nil {
		t.Fatal(err)
	}
	forged := func(change func(*emergencyv1.Record)) error {
		r := proto.CloneOf(rec)
		change(r)
		return procedure.VerifyRecord(before, r, w.Book)
	}
	other := func(m *emergencyv1.ArchivedMessage, list string) *emergencyv1.Event {
		e, err := procedure.EncodeEvent(procedure.OwnerArbitration, &emergencyv1.MessageArchived{List: list, Message: m})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	changed := pt.Archived(2)
	changed.Title = "nothing of interest"
	for name, change := range map[string]func(*emergencyv1.Record){
		"another subject":  func(r *emergencyv1.Record) { r.Events[1] = other(changed, "cacert-systemlog") },
		"another list":     func(r *emergencyv1.Record) { r.Events[1] = other(pt.Archived(2), "elsewhere") },
		"one left out":     func(r *emergencyv1.Record) { r.Events = r.Events[:1] },
		"one added":        func(r *emergencyv1.Record) { r.Events = append(r.Events, other(pt.Archived(3), "cacert-systemlog")) },
		"the order turned": func(r *emergencyv1.Record) { r.Events[0], r.Events[1] = r.Events[1], r.Events[0] },
		"another command":  func(r *emergencyv1.Record) { r.Command = "PublishPolicy" },
		"unsigned":         func(r *emergencyv1.Record) { r.Approval = nil },
	} {
		if err := forged(change); err == nil {
			t.Errorf("%s: verified", name)
		}
	}
}

// An archived message is no incident's fact.
func TestArchiveStandsApart(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Declared)).World()
	archive := pt.NewArchive(t)
	archive.Do("clara", pt.ImportArchive(pt.Archived(1)))
	rec := proto.CloneOf(archive.Records[0])
	rec.Incident, rec.FirstPosition = w.State.Incident, w.State.Position+1
	if _, err := procedure.Evolve(w.State, rec, "x"); err == nil {
		t.Error("an archived message was folded into an incident")
	}
	if procedure.IsIncident(procedure.Archive) || procedure.IsIncident(procedure.RuleBook) || !procedure.IsIncident("e20261124.1") {
		t.Error("the histories beside the incidents are not told apart")
	}
}

func TestWithoutAddresses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                  "",
		"emergency patch":                   "emergency patch",
		"by joe@example.org, at once":       "by [x], at once",
		"by <joe@example.org>":              "by <[x]>",
		"joe@ville.example joe@b@c.example": "[x] [x]",
		"load @ 3 per second":               "load @ 3 per second",
		"@handle":                           "@handle",
	} {
		got := procedure.WithoutAddresses(in, "[x]")
		if got != want || procedure.HoldsAddress(got) {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}
