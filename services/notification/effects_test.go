// SPDX-License-Identifier: Apache-2.0

package notification_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/vault"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/notification/channel"
)

// onDuty is how many persons the fixture's rota has.
const onDuty = 10

// Declaring is one act: the teams are called in the declarer's name, over two channels each, and what became of every page
// is in the history.
func TestDeclarationCallsTheTeams(t *testing.T) {
	t.Parallel()
	mail, irc, sms := newWay("mail", takes), newWay("irc", func(context.Context, channel.Page) channel.Receipt {
		return channel.Receipt{State: channel.Delivered, Detail: "seen\nby a human"}
	}), newWay("sms", takes)
	x := newRig(t, mail, irc, sms)
	x.start()
	x.declare("carla")
	x.until("all pages reported", func(s *procedure.State) bool { return allReported("mail")(s) && allReported("irc")(s) })

	call := x.Entries(incident)[1].Record
	if a := call.GetActor(); call.GetCommand() != "CallOut" || a.GetPerson() != "carla" || a.GetSystem() != emergencyv1.SystemKind_SYSTEM_KIND_REACTOR ||
		call.GetCausationId() != incident+"/1" || call.GetCorrelationId() != incident+"/1" {
		t.Errorf("called by %v because of %s", call.GetActor(), call.GetCausationId())
	}
	for page, state := range x.reported() {
		want := "sent"
		if strings.Contains(page, " irc ") {
			want = "delivered"
		}
		if state != want {
			t.Errorf("page to %s: %s, want %s", page, state, want)
		}
	}
	for _, w := range []*way{mail, irc} {
		got := w.pages(urgent)
		if len(got) != onDuty {
			t.Errorf("%s: %d pages, %d are on duty", w.name, len(got), onDuty)
		}
		ids := map[string]bool{}
		for _, p := range got {
			if p.Recipient.Address != p.Recipient.Person+"@"+w.name || ids[p.ID] || p.Incident != incident || p.Headline == "" || p.Text == "" {
				t.Errorf("%s: page %+v", w.name, p)
			}
			if !strings.HasPrefix(p.Link, "https://emergency.example/r/"+incident+"/") {
				t.Errorf("link %s", p.Link)
			}
			ids[p.ID] = true
		}
	}
	if n := len(sms.pages(urgent)); n != 0 {
		t.Errorf("%d pages on a third channel, nobody failed", n)
	}
	for _, e := range x.Entries(incident) {
		if strings.Contains(string(e.Signed), "@mail") {
			t.Fatal("an address is in the history")
		}
		if c := e.Record.GetCommand(); c == "ReportDelivery" && e.Record.GetActor().GetSystem() != emergencyv1.SystemKind_SYSTEM_KIND_MAILER {
			t.Errorf("delivery reported by %v", e.Record.GetActor())
		}
	}
	x.Check()
}

// A mail server hangs and IRC refuses: what is known is reported as it is, and the next channel is tried by the clock.
func TestFallbackToTheNextChannel(t *testing.T) {
	t.Parallel()
	mail, irc, sms := newWay("mail", hangs), newWay("irc", refuses), newWay("sms", takes)
	x := newRig(t, mail, irc, sms)
	x.start()
	x.declare("carla")
	x.until("irc reported", allReported("irc"))
	for page, state := range x.reported() {
		if want := map[bool]string{true: "failed", false: "unspecified"}[strings.Contains(page, " irc ")]; state != want && !strings.Contains(page, " sms ") {
			t.Errorf("page to %s is %s, want %s", page, state, want)
		}
	}
	x.Clock.Advance(61 * time.Second)
	x.until("sms reported", allReported("sms"))
	got := sms.pages(urgent)
	if len(got) != onDuty {
		t.Errorf("%d pages by sms, %d persons could not be reached otherwise", len(got), onDuty)
	}
	s := x.State(incident)
	if last := s.Rounds[len(s.Rounds)-1]; !last.Fallback {
		t.Errorf("the last round is no fallback: %+v", last)
	}
	for page, state := range x.reported() {
		if strings.Contains(page, " sms ") && state != "sent" {
			t.Errorf("page to %s is %s", page, state)
		}
		if strings.Contains(page, " mail ") && state != "unspecified" {
			t.Errorf("nobody knows of the page to %s, and it is called %s", page, state)
		}
	}
}

// A mail server takes connections and never answers, and more pages wait for it than may at once: calls by another channel go out meanwhile
// (hardening 2, mail black hole).
func TestBlackHoleHoldsUpNoOtherChannel(t *testing.T) {
	t.Parallel()
	mail, irc := newWay("mail", hangs), newWay("irc", takes)
	x := newRig(t, mail, irc)
	x.start()
	incidents := effect.AtOnce/onDuty + 3
	for range incidents {
		x.declare("carla")
	}
	called := map[string]bool{}
	for _, p := range irc.await(t, incidents*onDuty, urgent) {
		called[p.Incident] = true
	}
	if len(called) != incidents {
		t.Errorf("%d of %d emergencies were called out", len(called), incidents)
	}
	if n := len(mail.pages(urgent)); n == 0 || n > effect.AtOnce {
		t.Errorf("%d pages hang in the mail", n)
	}
}

// The store is away while pages are reported: they have gone out, so the truth is told as soon as it can be.
func TestReportsSurviveTheStore(t *testing.T) {
	t.Parallel()
	mail, irc := newWay("mail", takes), newWay("irc", takes)
	x := newRig(t, mail, irc)
	faulty := &historytest.Faulty{Store: x.Store}
	x.Store = faulty
	begun := sync.OnceFunc(func() {
		for _, how := range []historytest.Failure{historytest.NotStored, historytest.AckLost, historytest.NotStored} {
			faulty.Fail(how)
		}
	})
	mail.answer = func(context.Context, channel.Page) channel.Receipt {
		begun()
		return channel.Receipt{State: channel.Sent}
	}
	x.start()
	x.declare("carla")
	x.until("all pages reported", func(s *procedure.State) bool { return allReported("mail")(s) && allReported("irc")(s) })
	if n := len(mail.pages(urgent)); n != onDuty {
		t.Errorf("%d mails", n)
	}
	x.Check()
}

// flaky is a vault that is away for its first questions.
type flaky struct {
	vault.Store
	mu   sync.Mutex
	away int
}

func (f *flaky) Get(ctx context.Context, commitment string) ([]byte, []byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away > 0 {
		f.away--
		return nil, nil, errors.New("no answer")
	}
	return f.Store.Get(ctx, commitment)
}

// A vault that is away for a moment does not make a page fail; an address that was destroyed does, and that is said.
func TestAddresses(t *testing.T) {
	t.Parallel()
	mail, irc := newWay("mail", takes), newWay("irc", takes)
	x := newRig(t, mail, irc)
	own := x.Vaults[procedure.OwnerNotification]
	for _, c := range x.Book().Contacts("theo") {
		if c.GetChannel() == "mail" {
			if err := own.Destroy(t.Context(), c.GetAddress().GetCommitment()); err != nil {
				t.Fatal(err)
			}
		}
	}
	x.Vaults[procedure.OwnerNotification] = &flaky{Store: own, away: 3}
	x.start()
	x.declare("carla")
	x.until("all pages reported", func(s *procedure.State) bool { return allReported("mail")(s) && allReported("irc")(s) })
	for page, state := range x.reported() {
		if want := map[bool]string{true: "failed", false: "sent"}[page == "theo mail 1"]; state != want {
			t.Errorf("page to %s is %s, want %s", page, state, want)
		}
	}
}

// Nobody on duty for a team is told at once to who called and to who leads (4.2).
func TestCoverageGapIsTold(t *testing.T) {
	t.Parallel()
	mail, irc := newWay("mail", takes), newWay("irc", takes)
	x := newRig(t, mail, irc)
	x.must(x.Do(x.Dispatcher(procedure.OwnerNotification), procedure.RuleBook, "albert", &emergencyv1.SetRotaRequest{Team: emergencyv1.Team_TEAM_TESTING}))
	x.start()
	x.declare("carla")
	told := map[string]int{}
	for _, p := range mail.await(t, 2, about("nobody is on duty for the testing team")) {
		told[p.Recipient.Person]++
	}
	if len(told) != 2 || told["carla"] != 1 || told["albert"] != 1 {
		t.Errorf("told %v, want carla, who called, and albert, who leads", told)
	}
}

// Whom somebody else names for a slot hears of it.
func TestWhoIsAskedIsTold(t *testing.T) {
	t.Parallel()
	mail, irc := newWay("mail", takes), newWay("irc", takes)
	x := newRig(t, mail, irc)
	x.SeedStory(proceduretest.OnStandby)
	x.start()
	d := x.Dispatcher(procedure.OwnerNotification)
	x.must(x.Do(d, incident, "carla", proceduretest.HandOver("critical/1", "clara")))
	if got := mail.await(t, 1, about("asked to take critical/1")); got[0].Recipient.Person != "clara" {
		t.Errorf("told %s", got[0].Recipient.Person)
	}
	x.must(x.Do(d, incident, "bert", &emergencyv1.EndStandbyRequest{Slot: "assessment/2", Reason: emergencyv1.StandbyEndReason_STANDBY_END_REASON_RELEASED}))
	x.must(x.Do(d, incident, "anna", proceduretest.Answer(&emergencyv1.Acceptance{Slot: "assessment/2", Person: "beate", ContactPath: "+49 30 1"})))
	if got := mail.await(t, 1, about("asked to take assessment/2")); got[0].Recipient.Person != "beate" {
		t.Errorf("told %s", got[0].Recipient.Person)
	}
}

// Everybody who was called hears once that it is over, over the first channel that takes it.
func TestStandDownIsTold(t *testing.T) {
	t.Parallel()
	mail, irc := newWay("mail", func(_ context.Context, p channel.Page) channel.Receipt {
		if p.Recipient.Person == "tom" {
			return channel.Receipt{State: channel.Failed, Detail: "mailbox full"}
		}
		return channel.Receipt{State: channel.Sent}
	}), newWay("irc", takes)
	x := newRig(t, mail, irc)
	x.start()
	x.declare("carla")
	x.until("called", func(s *procedure.State) bool { return allReported("mail")(s) && allReported("irc")(s) })
	x.must(x.Do(x.Dispatcher(procedure.OwnerIncident), incident, "carla", proceduretest.StandDown()))
	told := map[string]int{}
	for _, p := range mail.await(t, onDuty, about("stood down")) {
		told[p.Recipient.Person]++
	}
	if got := irc.await(t, 1, about("stood down")); len(got) != 1 || got[0].Recipient.Person != "tom" {
		t.Errorf("by irc: %v", got)
	}
	for person, n := range told {
		if n != 1 {
			t.Errorf("%s was told %d times", person, n)
		}
	}
	if len(told) != onDuty {
		t.Errorf("told %v", told)
	}
}

// An obligation that climbs the ladder is told to who is named at that rung.
func TestOwedIsTold(t *testing.T) {
	t.Parallel()
	mail, irc := newWay("mail", takes), newWay("irc", takes)
	x := newRig(t, mail, irc)
	x.SeedStory(proceduretest.Verified)
	arbitration := x.Dispatcher(procedure.OwnerArbitration)
	x.must(arbitration.Do(t.Context(), &emergencyv1.SyncObligationsRequest{Meta: &emergencyv1.CommandMeta{Incident: incident, RequestId: "sync-0001"}}, dispatch.Input{Actor: proceduretest.Actor("reactor")}))
	x.start()
	x.Clock.Advance(20 * time.Minute)
	x.must(arbitration.Do(t.Context(), &emergencyv1.TickRequest{Meta: &emergencyv1.CommandMeta{Incident: incident, RequestId: "tick-0001"}}, dispatch.Input{Actor: proceduretest.Actor("timer")}))
	// Half of the time for the health note is over; carla deployed, so she owes it, and no other critical admin.
	if got := mail.await(t, 1, about("HEALTH is owed")); len(got) != 1 || got[0].Recipient.Person != "carla" {
		t.Errorf("told %v", got)
	}
	x.Clock.Advance(24 * time.Hour)
	x.must(arbitration.Do(t.Context(), &emergencyv1.TickRequest{Meta: &emergencyv1.CommandMeta{Incident: incident, RequestId: "tick-0002"}}, dispatch.Input{Actor: proceduretest.Actor("timer")}))
	told := map[string]bool{}
	for _, p := range mail.await(t, 3, about("HEALTH is owed")) {
		told[p.Recipient.Person] = true
	}
	if !told["clara"] || told["carl"] {
		t.Errorf("told %v: when it is due the team lead hears of it", told)
	}
}

// Each step is told once to the person it waits for, whatever else happens meanwhile.
func TestNextStepIsToldOnce(t *testing.T) {
	t.Parallel()
	mail, irc := newWay("mail", takes), newWay("irc", takes)
	x := newRig(t, mail, irc)
	x.SeedStory(proceduretest.OnStandby)
	x.start()
	review := x.Dispatcher(procedure.OwnerReview)
	x.must(x.Do(review, incident, "dora", proceduretest.Register(1)))
	if got := mail.await(t, 1, about("first review of P1r1")); got[0].Recipient.Person != "anna" || !strings.Contains(got[0].Text, "1.6") {
		t.Errorf("told %+v", got[0])
	}
	x.must(x.Do(review, incident, "vera", proceduretest.Veto()))
	x.must(x.Do(review, incident, "vera", &emergencyv1.WithdrawVetoRequest{Veto: "V1", Reason: "I misread the patch"}))
	x.must(x.Do(review, incident, "anna", proceduretest.FirstReview(emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE)))
	mail.await(t, 1, about("transfer of P1r1"))
	if got := mail.pages(about("first review of P1r1")); len(got) != 1 {
		t.Errorf("told %d times", len(got))
	}
}

// A service that stops in the middle and comes back sends nothing twice; what it cannot know it calls unknown.
func TestRestartInTheMiddle(t *testing.T) {
	t.Parallel()
	mail, irc := newWay("mail", takes), newWay("irc", func(ctx context.Context, p channel.Page) channel.Receipt {
		if p.Recipient.Person == "anna" {
			return hangs(ctx, p)
		}
		return channel.Receipt{State: channel.Sent}
	})
	x := newRig(t, mail, irc)
	// A process that was killed in the act left this behind.
	if _, _, err := x.ledger.Intend(t.Context(), incident+"/2/page/1.1"); err != nil {
		t.Fatal(err)
	}
	x.start()
	x.declare("carla")
	x.until("mail reported", allReported("mail"))
	irc.await(t, onDuty, urgent)
	x.stop()
	if s := x.State(incident); s.Pages[0].ID != "1.1" || s.Pages[0].State != emergencyv1.DeliveryState_DELIVERY_STATE_UNKNOWN {
		t.Errorf("page of the killed process: %+v", s.Pages[0])
	}
	before := len(x.State(incident).Pages)
	x.start()
	x.must(x.Do(x.Dispatcher(procedure.OwnerIncident), incident, "carla", proceduretest.StandDown()))
	mail.await(t, 1, about("stood down"))
	x.stop()
	for _, w := range []*way{mail, irc} {
		sent := map[string]int{}
		for _, p := range w.pages(func(p channel.Page) bool { return strings.Contains(p.ID, "/1.") }) {
			sent[p.ID]++
		}
		for id, n := range sent {
			if n != 1 {
				t.Errorf("%s: page %s was sent %d times", w.name, id, n)
			}
		}
		if sent[incident+"/1.1"] != 0 {
			t.Error("the page of the killed process was sent again")
		}
	}
	for page, state := range x.reported() {
		want := "sent"
		if page == "carla mail 1" || page == "anna irc 1" {
			want = "unknown"
		}
		if strings.HasSuffix(page, " 1") && state != want {
			t.Errorf("page to %s is %s, want %s", page, state, want)
		}
	}
	if before == 0 {
		t.Error("nobody was called")
	}
	x.Check()
}

// Nobody may take a drill for an emergency: neither the page, nor the link's page, nor what is told later. What was typed on
// standing down is in the text and in no subject.
func TestDrillSaysSo(t *testing.T) {
	t.Parallel()
	const drill = "x20261124.1"
	mail, irc := newWay("mail", takes), newWay("irc", takes)
	x := newRig(t, mail, irc)
	x.start()
	c := proceduretest.Declare()
	c.Drill, c.Meta = true, &emergencyv1.CommandMeta{RequestId: x.RequestID()}
	x.must(x.Dispatcher(procedure.OwnerIncident).Declare(t.Context(), c, dispatch.Input{Actor: proceduretest.Actor("carla")}, x.incidents))
	pages := mail.await(t, onDuty, urgent)
	down := proceduretest.StandDown()
	x.must(x.Do(x.Dispatcher(procedure.OwnerIncident), drill, "carla", down))
	for _, p := range append(pages, mail.await(t, onDuty, about("stood down"))...) {
		if !strings.HasPrefix(p.Headline, "CAcert DRILL "+drill) || !strings.Contains(p.Text, "This is a drill.") || strings.Contains(p.Headline, down.GetReason()) {
			t.Errorf("%q\n%s", p.Headline, p.Text)
		}
		if !p.Urgent && !strings.Contains(p.Text, down.GetReason()) {
			t.Errorf("the reason is not told: %s", p.Text)
		}
	}
	w := httptest.NewRecorder()
	x.server.Answer().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimPrefix(pages[0].Link, "https://emergency.example/r"), nil))
	if body := w.Body.String(); !strings.Contains(body, "<title>CAcert DRILL "+drill) || !strings.Contains(body, "This is a drill.") {
		t.Errorf("the link's page: %s", body)
	}
}

// An address on a channel that the service does not have would never be used: it is refused, with the channels that are there.
func TestContactsOnUnknownChannel(t *testing.T) {
	t.Parallel()
	x := newRig(t, newWay("mail", takes), newWay("irc", takes))
	x.start()
	ctx := identity.WithCaller(t.Context(), identity.Caller{KeyID: proceduretest.Actor("theo").KeyID})
	set := func(channel string) error {
		_, err := x.server.SetContacts(ctx, &emergencyv1.SetContactsRequest{
			Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook, RequestId: x.RequestID()}, Person: "theo",
			Contacts: []*emergencyv1.Contact{{Channel: channel, Address: "theo"}},
		})
		return err
	}
	var refusal *procedure.Refusal
	if err := set("pigeon"); !errors.As(err, &refusal) || refusal.Reason != procedure.ReasonField || refusal.Message != `channel "pigeon" is not configured; configured: mail, irc` {
		t.Errorf("%v", err)
	}
	if err := set("irc"); err != nil {
		t.Error(err)
	}
}
