// SPDX-License-Identifier: Apache-2.0

package notification_test

import (
	"net/http"
	"net/url"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// untilBook waits for a fact in the rule book.
func (x *rig) untilBook(what string, is func(*rulebook.Book) bool) {
	x.t.Helper()
	for {
		changed := x.reader.Changed()
		if is(x.incidents.Book()) {
			return
		}
		select {
		case <-changed:
		case <-x.t.Context().Done():
			x.t.Fatalf("waiting for: %s", what)
		}
	}
}

// Whoever answers by the link of a page was reached on its channel, and on no other; a second answer says nothing new.
func TestReachedByLink(t *testing.T) {
	t.Parallel()
	x := newWeb(t)
	before := x.incidents.Book().Position
	if status, body := x.post(x.as("carla"), x.link, url.Values{"contact": {"phone"}}); status != http.StatusOK && status != http.StatusSeeOther {
		t.Fatalf("%d %s", status, body)
	}
	x.untilBook("carla was reached by mail", func(b *rulebook.Book) bool { return !b.Reachability("carla", "mail").Reached.IsZero() })
	b := x.incidents.Book()
	if r := b.Reachability("carla", "irc"); !r.Reached.IsZero() || !r.Failed.IsZero() {
		t.Errorf("irc: %+v", r)
	}
	if b.Position != before+1 {
		t.Errorf("%d events for one answer", b.Position-before)
	}
	entries := x.Entries(procedure.RuleBook)
	rec := entries[len(entries)-1].Record
	if a := rec.GetActor(); a.GetSystem() != emergencyv1.SystemKind_SYSTEM_KIND_MAILER || rec.GetCausationId() == "" {
		t.Errorf("recorded by %v, caused by %q", a, rec.GetCausationId())
	}
}

// A page that could not be delivered did not reach anybody; while that stays so it is written down once.
func TestNotReached(t *testing.T) {
	t.Parallel()
	mail, sms := newWay("mail", takes), newWay("sms", refuses)
	x := newRig(t, mail, sms)
	x.start()
	x.declare("anna")
	x.untilBook("nobody of the critical team was reached by sms", func(b *rulebook.Book) bool {
		return !b.Reachability("carla", "sms").Failed.IsZero() && !b.Reachability("carl", "sms").Failed.IsZero()
	})
	if r := x.incidents.Book().Reachability("carla", "mail"); !r.Failed.IsZero() || !r.Reached.IsZero() {
		t.Errorf("a page that was sent says nothing yet: %+v", r)
	}
	x.must(x.Do(x.Dispatcher(procedure.OwnerNotification), incident, "anna", &emergencyv1.CallOutRequest{}))
	x.until("the second round is reported", func(st *procedure.State) bool {
		n := 0
		for _, p := range st.Pages {
			if p.Person == "carla" && p.Channel == "sms" && p.State == emergencyv1.DeliveryState_DELIVERY_STATE_FAILED {
				n++
			}
		}
		return n == 2
	})
	n := 0
	for _, entry := range x.Entries(procedure.RuleBook) {
		rec, err := projection.Decode(&entry)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range rec.Events {
			if r, ok := e.Payload.(*emergencyv1.ReachabilityRecorded); ok && r.GetPerson() == "carla" {
				n++
			}
		}
	}
	if n != 1 {
		t.Errorf("carla's failing channel is written down %d times", n)
	}
}
