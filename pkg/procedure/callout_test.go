// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// book changes the rule book that an incident is decided under.
func book(steps ...pt.Step) pt.Step {
	return func(w *pt.World) {
		b := pt.Founding().For(w.T())
		b.Now = w.Now
		for _, s := range steps {
			s(b)
		}
		w.Book = b.Book
	}
}

func rota(team emergencyv1.Team, persons ...string) pt.Step {
	c := &emergencyv1.SetRotaRequest{Team: team}
	for i, p := range persons {
		c.Shifts = append(c.Shifts, &emergencyv1.Shift{Team: team, Person: p, From: timestamppb.New(pt.Founded()), Rank: uint32(len(persons) - i)})
	}
	return pt.Does("clara", c)
}

func contacts(person string, channels ...string) pt.Step {
	c := &emergencyv1.SetContactsRequest{Person: person}
	for _, ch := range channels {
		c.Contacts = append(c.Contacts, &emergencyv1.Contact{Channel: ch, Address: person + " on " + ch})
	}
	return pt.Does(person, c)
}

func TestCallOut(t *testing.T) {
	t.Parallel()
	declared := pt.Story(pt.Declared)
	call := func(change func(*emergencyv1.CallOutRequest)) procedure.Command {
		return with(&emergencyv1.CallOutRequest{}, change)
	}
	channels := func(list ...string) procedure.Command {
		return call(func(c *emergencyv1.CallOutRequest) { c.Channels = list })
	}
	teams := func(list ...emergencyv1.Team) procedure.Command {
		return call(func(c *emergencyv1.CallOutRequest) { c.Teams = list })
	}
	run(t, []row{
		{name: "all teams over two channels each", given: history(declared), when: &emergencyv1.CallOutRequest{}, by: "carla", then: events("CallOutIssued"), check: func(t *testing.T, w *pt.World) {
			if len(w.State.Pages) != 2*(2+3+2+3) {
				t.Errorf("%d pages", len(w.State.Pages))
			}
			for _, p := range w.State.Pages {
				if w.Book.Contacts(p.Person)[0].GetAddress().GetCommitment() == "" || p.Address == "" {
					t.Errorf("page %s has no address", p.ID)
				}
			}
			if w.State.Rounds[0].Number != 1 || len(w.State.Rounds[0].Teams) != 4 {
				t.Errorf("round %+v", w.State.Rounds[0])
			}
		}},
		{name: "one team, by an assessor", given: history(declared), when: teams(assessment), by: "anna", then: events("CallOutIssued"), check: func(t *testing.T, w *pt.World) {
			if len(w.State.Pages) != 6 {
				t.Errorf("%d pages", len(w.State.Pages))
			}
		}},
		{name: "a team named twice is called once", given: history(declared), when: teams(critical, critical), by: "carla", then: events("CallOutIssued"), check: func(t *testing.T, w *pt.World) {
			if len(w.State.Pages) != 4 {
				t.Errorf("%d pages", len(w.State.Pages))
			}
		}},
		{name: "again is a new round", given: history(pt.Story(pt.Called)), when: &emergencyv1.CallOutRequest{}, by: "carla", then: events("CallOutIssued"), check: func(t *testing.T, w *pt.World) {
			if w.State.Rounds[1].Number != 2 {
				t.Errorf("round %+v", w.State.Rounds[1])
			}
		}},
		{name: "two channels named", given: history(declared), when: channels("sms", "irc"), by: "carla", then: events("CallOutIssued"), check: func(t *testing.T, w *pt.World) {
			if slices.ContainsFunc(w.State.Pages, func(p procedure.Page) bool { return p.Channel == "mail" }) {
				t.Error("somebody was called by mail")
			}
		}},
		{name: "one channel named", given: history(declared), when: channels("mail"), by: "carla", refused: procedure.ReasonChannels},
		{name: "one channel named twice", given: history(declared), when: channels("mail", "mail"), by: "carla", refused: procedure.ReasonChannels},
		{name: "one channel named twice, and nobody on duty", given: history(declared, book(rota(testing_), rota(critical), rota(assessment), rota(development))), when: channels("mail", "mail"), by: "carla", refused: procedure.ReasonChannels},
		{name: "channels that nobody has", given: history(declared), when: channels("fax", "telex"), by: "carla", refused: procedure.ReasonChannels},
		{name: "one channel between them", given: history(declared, book(rota(critical, "carla"), contacts("carla", "mail"))), when: teams(critical), by: "carla", refused: procedure.ReasonChannels},
		{name: "channels before teams", given: history(declared), when: call(func(c *emergencyv1.CallOutRequest) {
			c.Channels, c.Teams = []string{"mail"}, []emergencyv1.Team{critical}
		}), by: "carla", refused: procedure.ReasonChannels},
		{name: "no such team", given: history(declared), when: teams(0), by: "carla", refused: procedure.ReasonField},
		{name: "nobody on duty", given: history(declared, book(rota(testing_))), when: &emergencyv1.CallOutRequest{}, by: "carla", then: events("CallOutIssued", "CoverageGapFound"), check: func(t *testing.T, w *pt.World) {
			if len(w.State.Gaps) != 1 || w.State.Gaps[0].Team != testing_ {
				t.Errorf("gaps %+v", w.State.Gaps)
			}
		}},
		{name: "nobody on duty anywhere", given: history(declared, book(rota(testing_), rota(critical), rota(assessment), rota(development))), when: &emergencyv1.CallOutRequest{}, by: "carla",
			then: events("CallOutIssued", "CoverageGapFound", "CoverageGapFound", "CoverageGapFound", "CoverageGapFound")},
		{name: "nobody on duty can be reached", given: history(declared, book(rota(testing_, "theo"), contacts("theo"))), when: &emergencyv1.CallOutRequest{}, by: "carla", then: events("CallOutIssued", "CoverageGapFound")},
	})
	t.Run("no team of the strategy", func(t *testing.T) {
		t.Parallel()
		w := given(t, declared).World()
		w.Change(func(s *procedure.State) { // as strategy 2 will have it
			s.Slots = slices.DeleteFunc(s.Slots, func(s procedure.Slot) bool { return s.Team == testing_ })
		})
		pt.GivenWorld(t, w).Counting(seen).When(teams(testing_)).By("carla").ThenRefused(procedure.ReasonField)
	})
}

func TestReportDelivery(t *testing.T) {
	t.Parallel()
	called := pt.Story(pt.Called)
	delivered := &emergencyv1.ReportDeliveryRequest{Page: "1.1", State: emergencyv1.DeliveryState_DELIVERY_STATE_DELIVERED}
	run(t, []row{
		{name: "delivered", given: history(called), when: delivered, by: "mailer", then: events("DeliveryReported")},
		{name: "the same again is nothing", given: history(called, pt.Does("mailer", delivered)), when: delivered, by: "mailer"},
		{name: "another state", given: history(called, pt.Does("mailer", delivered)), when: with(delivered, func(c *emergencyv1.ReportDeliveryRequest) { c.State = emergencyv1.DeliveryState_DELIVERY_STATE_FAILED }), by: "mailer", then: events("DeliveryReported")},
		{name: "no such page", given: history(called), when: with(delivered, func(c *emergencyv1.ReportDeliveryRequest) { c.Page = "9.9" }), by: "mailer", refused: procedure.ReasonPage},
		{name: "by a person", given: history(called), when: delivered, by: "carla", refused: procedure.ReasonRole},
	})
}

func TestRespondAccept(t *testing.T) {
	t.Parallel()
	called := pt.Story(pt.Called)
	accept := func(change func(*emergencyv1.Acceptance)) procedure.Command {
		a := &emergencyv1.Acceptance{Slot: "critical/1", ContactPath: "+49 30 1"}
		change(a)
		return pt.Answer(a)
	}
	step := func(s emergencyv1.ResponderStep) func(*emergencyv1.Acceptance) {
		return func(a *emergencyv1.Acceptance) { a.Slot, a.Team, a.Step = "", critical, s }
	}
	slot := func(t *testing.T, w *pt.World, id string) *procedure.Slot {
		sl, ok := w.State.Slot(id)
		if !ok {
			t.Fatalf("no slot %s", id)
		}
		return sl
	}
	observe, exec := emergencyv1.ResponderStep_RESPONDER_STEP_OBSERVE, emergencyv1.ResponderStep_RESPONDER_STEP_EXECUTE
	run(t, []row{
		{name: "a named slot", given: history(called), when: pt.Accept("critical/1"), by: "carla", then: events("ResponderAccepted"), check: func(t *testing.T, w *pt.World) {
			sl := slot(t, w, "critical/1")
			if sl.State != procedure.SlotAccepted || sl.Person != "carla" || sl.Step != exec || w.Sealed[sl.Contact] == "" || sl.Unconfirmed {
				t.Errorf("%+v", sl)
			}
		}},
		{name: "and on standby at once", given: history(called), when: accept(func(a *emergencyv1.Acceptance) { a.OnStandby = true }), by: "carla", then: events("ResponderAccepted", "StandbyStarted")},
		{name: "the team's slot for a step", given: history(called), when: accept(step(observe)), by: "carla", then: events("ResponderAccepted"), check: func(t *testing.T, w *pt.World) {
			if sl := slot(t, w, "critical/2"); sl.Person != "carla" {
				t.Errorf("%+v", sl)
			}
		}},
		{name: "the team's first open slot", given: history(called, pt.Does("carl", pt.Accept("critical/1"))), when: accept(step(0)), by: "carla", then: events("ResponderAccepted"), check: func(t *testing.T, w *pt.World) {
			if sl := slot(t, w, "critical/2"); sl.Person != "carla" {
				t.Errorf("%+v", sl)
			}
		}},
		{name: "all of the team's taken", given: history(pt.Story(pt.Accepted)), when: accept(step(0)), by: "clara", refused: procedure.ReasonSlotTaken},
		{name: "a second slot of the team", given: history(called, pt.Does("carla", pt.Accept("critical/1"))), when: pt.Accept("critical/2"), by: "carla", refused: procedure.ReasonSamePerson},
		{name: "a second slot by the team's name", given: history(called, pt.Does("carla", pt.Accept("critical/1"))), when: accept(step(0)), by: "carla", refused: procedure.ReasonSamePerson},
		{name: "a second slot for a team mate", given: history(called, pt.Does("carla", pt.Accept("critical/1"))), when: accept(func(a *emergencyv1.Acceptance) { a.Slot, a.Person = "critical/2", "carla" }), by: "carl", refused: procedure.ReasonSamePerson},
		{name: "a second slot of the testers", given: history(called, pt.Does("theo", pt.Accept("testing/1"))), when: pt.Accept("testing/2"), by: "theo", refused: procedure.ReasonSamePerson},
		{name: "another slot after the first was released", by: "carla", when: pt.Accept("critical/2"), then: events("ResponderAccepted"),
			given: history(called, pt.Does("carla", pt.Accept("critical/1")), pt.Does("carla", &emergencyv1.EndStandbyRequest{Slot: "critical/1", Reason: emergencyv1.StandbyEndReason_STANDBY_END_REASON_RELEASED}))},
		{name: "no such slot", given: history(called), when: pt.Accept("critical/3"), by: "carla", refused: procedure.ReasonSlot},
		{name: "no slot for that step", given: history(called), when: accept(step(emergencyv1.ResponderStep_RESPONDER_STEP_TEST)), by: "carla", refused: procedure.ReasonSlot},
		{name: "another step of the team", given: history(called), when: accept(func(a *emergencyv1.Acceptance) { a.Step = observe }), by: "carla", then: events("ResponderAccepted")},
		{name: "a step that is not the team's", given: history(called), when: accept(func(a *emergencyv1.Acceptance) { a.Step = emergencyv1.ResponderStep_RESPONDER_STEP_TEST }), by: "carla", refused: procedure.ReasonStepMissing},
		{name: "of another team", given: history(called), when: pt.Accept("critical/1"), by: "theo", refused: procedure.ReasonNotTeamMember},
		{name: "for somebody of another team", given: history(called), when: accept(func(a *emergencyv1.Acceptance) { a.Person = "theo" }), by: "carla", refused: procedure.ReasonNotTeamMember},
		{name: "for a team mate by an outsider", given: history(called), when: accept(func(a *emergencyv1.Acceptance) { a.Person = "carl" }), by: "theo", refused: procedure.ReasonNotTeamMember},
		{name: "for a team mate", given: history(called), when: accept(func(a *emergencyv1.Acceptance) { a.Person, a.OnStandby = "carl", true }), by: "carla", then: events("ResponderAccepted"), check: func(t *testing.T, w *pt.World) {
			if sl := slot(t, w, "critical/1"); sl.Person != "carl" || !sl.Unconfirmed {
				t.Errorf("%+v", sl)
			}
		}},
		{name: "taken", given: history(pt.Story(pt.Accepted)), when: pt.Accept("critical/1"), by: "clara", refused: procedure.ReasonSlotTaken},
		{name: "taken comes before contact path", given: history(pt.Story(pt.Accepted)), when: accept(func(a *emergencyv1.Acceptance) { a.ContactPath = "" }), by: "clara", refused: procedure.ReasonSlotTaken},
		{name: "no contact path", given: history(called), when: accept(func(a *emergencyv1.Acceptance) { a.ContactPath = "" }), by: "carla", refused: procedure.ReasonContactPathMissing},
		{name: "a second team", given: history(called, pt.Does("vera", pt.Accept("assessment/1"))), when: pt.Accept("testing/1"), by: "vera", refused: procedure.ReasonOneTeam},
		{name: "a second team, with a reason", given: history(called, pt.Does("vera", pt.Accept("assessment/1"))), by: "vera", then: events("ResponderAccepted"),
			when: accept(func(a *emergencyv1.Acceptance) { a.Slot, a.SecondTeamReason = "testing/1", "nobody else is there" })},
		{name: "no answer", given: history(called), when: &emergencyv1.RespondRequest{}, by: "carla", refused: procedure.ReasonField},
		{name: "neither slot nor team", given: history(called), when: accept(func(a *emergencyv1.Acceptance) { a.Slot = "" }), by: "carla", refused: procedure.ReasonField},
		{name: "later than a day", given: history(called), when: accept(func(a *emergencyv1.Acceptance) { a.EtaMinutes = 24*60 + 1 }), by: "carla", refused: procedure.ReasonField},
	})
	t.Run("all of the team's taken: the refusal says by whom and how one becomes free", func(t *testing.T) {
		t.Parallel()
		r := given(t, pt.Story(pt.Accepted)).When(accept(step(0))).By("clara").ThenRefused(procedure.ReasonSlotTaken)
		if r.Message != "slot critical/1 is held by carla, slot critical/2 is held by carl" || len(r.Allow) != 4 || r.Allow[3].Description != "carl releases it (end-standby --released)" {
			t.Errorf("%s; %v", r.Message, r.Allow)
		}
	})
	t.Run("another step lasts only as long as its holder", func(t *testing.T) {
		t.Parallel()
		w := given(t, called, pt.Does("carla", accept(func(a *emergencyv1.Acceptance) { a.Step = observe })),
			pt.Does("carla", &emergencyv1.EndStandbyRequest{Slot: "critical/1", Reason: emergencyv1.StandbyEndReason_STANDBY_END_REASON_RELEASED})).World()
		if sl := slot(t, w, "critical/1"); sl.Step != exec || sl.State != procedure.SlotOpen {
			t.Errorf("%+v", sl)
		}
	})
	t.Run("when all slots are filled, the deadline is met", func(t *testing.T) {
		t.Parallel()
		w := given(t, pt.Story(pt.Accepted)).World()
		if !w.State.SlotsFilled.At.Equal(w.State.RecordedAt) {
			t.Errorf("filled at %v", w.State.SlotsFilled)
		}
	})
}

func TestRespondDecline(t *testing.T) {
	t.Parallel()
	run(t, []row{
		{name: "was called", given: history(pt.Story(pt.Called)), when: pt.Decline(critical), by: "carla", then: events("ResponderDeclined")},
		{name: "for the team of the page", given: history(pt.Story(pt.Called)), when: pt.Decline(0), by: "theo", then: events("ResponderDeclined"), check: func(t *testing.T, w *pt.World) {
			if d := w.State.Declined[0]; d.Team != testing_ || d.Person != "theo" {
				t.Errorf("%+v", d)
			}
		}},
		{name: "gives the slot back", given: history(pt.Story(pt.Accepted)), when: pt.Decline(critical), by: "carla", then: events("ResponderDeclined"), check: func(t *testing.T, w *pt.World) {
			if sl, _ := w.State.Slot("critical/1"); sl.State != procedure.SlotOpen || sl.Person != "" || !sl.OpenSince.Equal(w.Now) {
				t.Errorf("%+v", sl)
			}
		}},
		{name: "was not called", given: history(pt.Story(pt.Called)), when: pt.Decline(critical), by: "clara", refused: procedure.ReasonNotCalled},
		{name: "was called for another team", given: history(pt.Story(pt.Called)), when: pt.Decline(testing_), by: "carla", refused: procedure.ReasonNotCalled},
		{name: "before any call", given: history(pt.Story(pt.Declared)), when: pt.Decline(0), by: "carla", refused: procedure.ReasonNotCalled},
	})
}

func TestRespondHandOver(t *testing.T) {
	t.Parallel()
	accepted := pt.Story(pt.Accepted)
	bare := with(pt.HandOver("critical/1", "clara"), func(c *emergencyv1.RespondRequest) { c.GetHandOver().ContactPath = "" })
	run(t, []row{
		{name: "by the holder", given: history(accepted), when: pt.HandOver("critical/1", "clara"), by: "carla", then: events("ResponderHandedOver"), check: func(t *testing.T, w *pt.World) {
			if sl, _ := w.State.Slot("critical/1"); sl.Person != "carla" || sl.HandoverTo != "clara" {
				t.Errorf("the old holder stays until the new one checks in: %+v", sl)
			}
		}},
		{name: "by a team mate", given: history(accepted), when: pt.HandOver("critical/1", "clara"), by: "carl", then: events("ResponderHandedOver")},
		{name: "by an outsider", given: history(accepted), when: pt.HandOver("critical/1", "clara"), by: "theo", refused: procedure.ReasonNotHolder},
		{name: "of an open slot", given: history(pt.Story(pt.Called)), when: pt.HandOver("critical/1", "clara"), by: "carla", refused: procedure.ReasonNotHolder},
		{name: "to an outsider", given: history(accepted), when: pt.HandOver("critical/1", "theo"), by: "carla", refused: procedure.ReasonNotTeamMember},
		{name: "without a contact path", given: history(accepted), when: bare, by: "carla", refused: procedure.ReasonContactPathMissing},
		{name: "to somebody who serves another team", given: history(pt.Story(pt.Called), pt.Does("anna", pt.Accept("assessment/1")), pt.Does("vera", pt.Answer(&emergencyv1.Acceptance{Slot: "testing/1", ContactPath: "x"}))), when: pt.HandOver("assessment/1", "vera"), by: "anna", refused: procedure.ReasonOneTeam},
		{name: "to the holder of the team's other slot", given: history(accepted), when: pt.HandOver("critical/1", "carl"), by: "carla", refused: procedure.ReasonSamePerson},
		{name: "to somebody who took the team's other slot since", by: "clara", when: &emergencyv1.CheckInRequest{Slot: "critical/1"}, refused: procedure.ReasonSamePerson,
			given: history(pt.Story(pt.Called), pt.Does("carla", pt.Accept("critical/1")), pt.Does("carla", pt.HandOver("critical/1", "clara")), pt.Does("clara", pt.Accept("critical/2")))},
		{name: "no such slot", given: history(accepted), when: pt.HandOver("critical/9", "clara"), by: "carla", refused: procedure.ReasonSlot},
		{name: "to nobody", given: history(accepted), when: pt.HandOver("critical/1", ""), by: "carla", refused: procedure.ReasonField},
	})
	t.Run("completed by the check-in of the new holder, who is reached another way", func(t *testing.T) {
		t.Parallel()
		w := given(t, accepted, pt.Does("carla", pt.HandOver("critical/1", "clara")), pt.Does("clara", &emergencyv1.CheckInRequest{})).World()
		sl, _ := w.State.Slot("critical/1")
		if sl.Person != "clara" || sl.State != procedure.SlotStandby || sl.HandoverTo != "" || w.Sealed[sl.Contact] != "+49 30 7654321" {
			t.Errorf("%+v, reached by %q", sl, w.Sealed[sl.Contact])
		}
	})
}

func TestStandby(t *testing.T) {
	t.Parallel()
	checkIn := &emergencyv1.CheckInRequest{Slot: "critical/1"}
	end := func(reason emergencyv1.StandbyEndReason) procedure.Command {
		return &emergencyv1.EndStandbyRequest{Slot: "critical/1", Reason: reason}
	}
	done, released := emergencyv1.StandbyEndReason_STANDBY_END_REASON_STEP_DONE, emergencyv1.StandbyEndReason_STANDBY_END_REASON_RELEASED
	accepted, standby := pt.Story(pt.Accepted), pt.Story(pt.OnStandby)
	run(t, []row{
		{name: "the first check-in starts it", given: history(accepted), when: checkIn, by: "carla", then: events("StandbyStarted")},
		{name: "the next ones renew it", given: history(standby), when: checkIn, by: "carla", then: events("StandbyCheckedIn"), check: func(t *testing.T, w *pt.World) {
			if sl, _ := w.State.Slot("critical/1"); !sl.Since.Equal(w.Now) {
				t.Errorf("%+v", sl)
			}
		}},
		{name: "without naming the only slot", given: history(standby), when: &emergencyv1.CheckInRequest{}, by: "carla", then: events("StandbyCheckedIn")},
		{name: "without a slot", given: history(standby), when: &emergencyv1.CheckInRequest{}, by: "clara", refused: procedure.ReasonNotHolder},
		{name: "for another", given: history(standby), when: checkIn, by: "carl", refused: procedure.ReasonNotHolder},
		{name: "before accepting", given: history(pt.Story(pt.Called)), when: checkIn, by: "carla", refused: procedure.ReasonNotHolder},
		{name: "no such slot", given: history(standby), when: &emergencyv1.CheckInRequest{Slot: "x/1"}, by: "carla", refused: procedure.ReasonSlot},
		{name: "confirms what a team mate accepted", given: history(pt.Story(pt.Called), pt.Does("carl", pt.Answer(&emergencyv1.Acceptance{Slot: "critical/1", Person: "carla", ContactPath: "x"}))), when: checkIn, by: "carla", then: events("StandbyStarted"), check: func(t *testing.T, w *pt.World) {
			if sl, _ := w.State.Slot("critical/1"); sl.Unconfirmed {
				t.Errorf("%+v", sl)
			}
		}},
		{name: "step done", given: history(standby), when: end(done), by: "carla", then: events("StandbyEnded"), check: func(t *testing.T, w *pt.World) {
			if sl, _ := w.State.Slot("critical/1"); sl.State != procedure.SlotEnded {
				t.Errorf("%+v", sl)
			}
		}},
		{name: "released: open again", given: history(standby), when: end(released), by: "carla", then: events("StandbyEnded"), check: func(t *testing.T, w *pt.World) {
			if sl, _ := w.State.Slot("critical/1"); sl.State != procedure.SlotOpen {
				t.Errorf("%+v", sl)
			}
		}},
		{name: "released by who called the teams", given: history(standby), when: &emergencyv1.EndStandbyRequest{Slot: "testing/1", Reason: released}, by: "carla", then: events("StandbyEnded")},
		{name: "by a team mate", given: history(standby), when: end(done), by: "carl", refused: procedure.ReasonNotHolder},
		{name: "of an open slot", given: history(pt.Story(pt.Called)), when: end(done), by: "carla", refused: procedure.ReasonNotHolder},
		{name: "twice", given: history(standby, pt.Does("carla", end(done))), when: end(done), by: "carla", refused: procedure.ReasonNotHolder},
		{name: "without a reason", given: history(standby), when: end(0), by: "carla", refused: procedure.ReasonField},
		{name: "no such slot to end", given: history(standby), when: &emergencyv1.EndStandbyRequest{Slot: "x/1", Reason: done}, by: "carla", refused: procedure.ReasonSlot},
	})
}

func notificationTick() (procedure.Command, string, []pt.Option) {
	return &emergencyv1.TickRequest{}, "timer", []pt.Option{pt.Owner(procedure.OwnerNotification)}
}

func TestNotificationTimers(t *testing.T) {
	t.Parallel()
	tick, timer, owner := notificationTick()
	at := func(after time.Duration) pt.Step { return func(w *pt.World) { w.Now = pt.T0().Add(after) } }
	minute, nano := time.Minute, time.Nanosecond
	delivered := func(w *pt.World) { // all pages, so that no fallback is due
		for _, p := range w.State.Pages {
			w.Do("mailer", &emergencyv1.ReportDeliveryRequest{Page: p.ID, State: emergencyv1.DeliveryState_DELIVERY_STATE_DELIVERED})
		}
	}
	// carla is called at T0+1m, accepts at T0+2m and checks in at T0+9m; see the story
	called := history(pt.Story(pt.Called), delivered)
	accepted := history(pt.Story(pt.Accepted), delivered)
	standby := history(pt.Story(pt.OnStandby), delivered)
	run(t, []row{
		{name: "re-page: exactly due is in time", given: append(called, at(11*minute)), when: tick, by: timer, with: owner},
		{name: "re-page: passed", given: append(called, at(11*minute+nano)), when: tick, by: timer, with: owner, then: events("RePaged"), check: func(t *testing.T, w *pt.World) {
			if n := len(w.State.Pages); n != 40 {
				t.Errorf("%d pages: one re-page lists all pages of all open slots", n)
			}
		}},
		{name: "re-page: much later is still one", given: append(called, at(20*time.Hour)), when: tick, by: timer, with: owner, then: events("RePaged")},
		{name: "re-page: nobody is called who is not missing", given: append(standby, at(60*minute)), when: tick, by: timer, with: owner},
		{name: "acceptance: exactly due", given: append(accepted, at(62*minute)), when: tick, by: timer, with: owner},
		{name: "acceptance: passed, and called again at once", given: append(accepted, at(62*minute+nano)), when: tick, by: timer, with: owner, then: events("AckExpired", "RePaged"), check: func(t *testing.T, w *pt.World) {
			if sl, _ := w.State.Slot("critical/1"); sl.State != procedure.SlotOpen {
				t.Errorf("%+v", sl)
			}
			if slices.ContainsFunc(w.State.Pages, func(p procedure.Page) bool { return p.Round > 1 && p.Team != critical }) {
				t.Error("a team without an open slot is called again")
			}
		}},
		{name: "check-in: exactly due", given: append(standby, at(9*minute+75*minute)), when: tick, by: timer, with: owner},
		{name: "check-in: missed reopens the slot", given: append(standby, at(9*minute+75*minute+nano)), when: tick, by: timer, with: owner, then: events("StandbyMissed", "SlotReopened", "RePaged"), check: func(t *testing.T, w *pt.World) {
			if sl, _ := w.State.Slot("critical/1"); sl.State != procedure.SlotOpen || sl.Person != "" {
				t.Errorf("%+v", sl)
			}
		}},
	})
}

func TestChannelFallback(t *testing.T) {
	t.Parallel()
	tick, timer, owner := notificationTick()
	at := func(after time.Duration) pt.Step { return func(w *pt.World) { w.Now = pt.T0().Add(after) } }
	report := func(state emergencyv1.DeliveryState, which func(procedure.Page) bool) pt.Step {
		return func(w *pt.World) {
			for _, p := range w.State.Pages {
				if p.State == 0 && which(p) {
					w.Do("mailer", &emergencyv1.ReportDeliveryRequest{Page: p.ID, State: state})
				}
			}
		}
	}
	all := func(procedure.Page) bool { return true }
	carlasMail := func(p procedure.Page) bool { return p.Person == "carla" && p.Channel == "mail" }
	failed, sent := emergencyv1.DeliveryState_DELIVERY_STATE_FAILED, emergencyv1.DeliveryState_DELIVERY_STATE_SENT
	called := pt.Story(pt.Called)
	persons := func(w *pt.World) []string {
		var list []string
		for _, p := range w.State.Pages {
			if p.Round == 2 {
				list = append(list, p.Person+" "+p.Channel)
			}
		}
		return list
	}
	run(t, []row{
		{name: "nothing reported: exactly due", given: history(called, at(2*time.Minute)), when: tick, by: timer, with: owner},
		{name: "nothing reported: passed", given: history(called, at(2*time.Minute+1)), when: tick, by: timer, with: owner, then: events("RePaged"), check: func(t *testing.T, w *pt.World) {
			if got := persons(w); len(got) != 10 || !slices.Contains(got, "carla sms") {
				t.Errorf("called on the next channel: %v", got)
			}
		}},
		{name: "one failed: only that person, at once", given: history(called, at(90*time.Second), report(failed, carlasMail)), when: tick, by: timer, with: owner, then: events("RePaged"), check: func(t *testing.T, w *pt.World) {
			if got := persons(w); !slices.Equal(got, []string{"carla sms"}) {
				t.Errorf("called on the next channel: %v", got)
			}
		}},
		{name: "taken by the channel is not failed", given: history(called, report(sent, all), at(5*time.Minute)), when: tick, by: timer, with: owner},
		{name: "no channel left", given: history(called, at(2*time.Minute+1), pt.Does(timer, tick, owner...), at(4*time.Minute)), when: tick, by: timer, with: owner},
	})
}
