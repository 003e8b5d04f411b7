// SPDX-License-Identifier: Apache-2.0

package dashboard_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/dashboard"
)

const one = "e20261124.1"

func TestWhoAmI(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *dashboard.Config) { c.Development = true })
	me := must(r.client("clara").WhoAmI(t.Context(), &dashboardv1.WhoAmIRequest{}))(t)
	lead, admin := emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD, emergencyv1.Role_ROLE_CRITICAL_ADMIN
	if me.GetPerson() != "clara" || me.GetKeyId() != r.profile("clara").KeyID || !slices.Contains(me.GetRoles(), lead) || !slices.Contains(me.GetRoles(), admin) || !me.GetDevelopment() {
		t.Errorf("clara is %v", me)
	}
	agent := must(r.client("agent").WhoAmI(t.Context(), &dashboardv1.WhoAmIRequest{}))(t)
	if agent.GetPerson() != "" || agent.GetSystem() != emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT || agent.GetSystemName() != pt.Host || len(agent.GetRoles()) != 0 {
		t.Errorf("the agent is %v", agent)
	}
	_, err := r.client("stranger").WhoAmI(t.Context(), &dashboardv1.WhoAmIRequest{})
	if refusal := refused(t, err, procedure.ReasonKeyUnknown); len(refusal.Allow) == 0 {
		t.Errorf("a stranger is not told what to do: %v", refusal)
	}
	_, err = r.client("").WhoAmI(t.Context(), &dashboardv1.WhoAmIRequest{})
	refused(t, err, procedure.ReasonNoIdentity)
}

// Everything but the public log needs a key of the rule book.
func TestStrangersReadTheLogAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.told(one, pt.Story(pt.Called))
	ctx, c := t.Context(), r.client("stranger")
	calls := map[string]func() error{
		"ListIncidents": func() error { _, err := c.ListIncidents(ctx, &dashboardv1.ListIncidentsRequest{}); return err },
		"ReadIncident": func() error {
			_, err := c.ReadIncident(ctx, &dashboardv1.ReadIncidentRequest{Incident: one})
			return err
		},
		"ReadTimeline": func() error {
			_, err := c.ReadTimeline(ctx, &dashboardv1.ReadTimelineRequest{Incident: one})
			return err
		},
		"ReadOptions":   func() error { _, err := c.ReadOptions(ctx, &dashboardv1.ReadOptionsRequest{Incident: one}); return err },
		"ReadInbox":     func() error { _, err := c.ReadInbox(ctx, &dashboardv1.ReadInboxRequest{}); return err },
		"ReadReadiness": func() error { _, err := c.ReadReadiness(ctx, &dashboardv1.ReadReadinessRequest{}); return err },
		"ReadRuleBook":  func() error { _, err := c.ReadRuleBook(ctx, &dashboardv1.ReadRuleBookRequest{}); return err },
		"ReadRestricted": func() error {
			_, err := c.ReadRestricted(ctx, &dashboardv1.ReadRestrictedRequest{Incident: one})
			return err
		},
		"WatchIncident": func() error {
			s, err := c.WatchIncident(ctx, &dashboardv1.WatchIncidentRequest{Incident: one})
			check(t, err)
			_, err = s.Recv()
			return err
		},
		"ReadHistory": func() error {
			s, err := c.ReadHistory(ctx, &dashboardv1.ReadHistoryRequest{Incident: one})
			check(t, err)
			_, err = s.Recv()
			return err
		},
		"DumpProjection": func() error {
			s, err := c.DumpProjection(ctx, &dashboardv1.DumpProjectionRequest{})
			check(t, err)
			_, err = s.Recv()
			return err
		},
	}
	for name, call := range calls {
		err := call()
		if err == nil {
			t.Errorf("%s answers a stranger", name)
			continue
		}
		refused(t, err, procedure.ReasonKeyUnknown)
	}
	for _, name := range []string{"stranger", ""} {
		log := must(r.client(name).ReadLog(ctx, &dashboardv1.ReadLogRequest{}))(t)
		if len(log.GetEntries()) != 2 || log.GetEntries()[0].GetHeadline() != "Emergency declared" || log.GetEntries()[0].GetRole() != "critical-admin A" {
			t.Errorf("%q reads %v", name, log)
		}
	}
}

func TestReadLogByIncidentAndDrills(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.told(one, pt.Story(pt.Called))
	r.told("e20261124.2", pt.Story(pt.Declared))
	r.told("x20261124.1", pt.Drill())
	read := func(req *dashboardv1.ReadLogRequest) string {
		var ids []string
		for _, e := range must(r.client("").ReadLog(t.Context(), req))(t).GetEntries() {
			ids = append(ids, e.GetIncident())
		}
		return strings.Join(ids, " ")
	}
	for want, req := range map[string]*dashboardv1.ReadLogRequest{
		"e20261124.1 e20261124.1 e20261124.2": {},
		"e20261124.2":                         {Incident: "e20261124.2"},
		"x20261124.1":                         {Drills: true},
		"":                                    {Incident: "e20991231.1"},
	} {
		if got := read(req); got != want {
			t.Errorf("%v gives %q, want %q", req, got, want)
		}
	}
	if got := read(&dashboardv1.ReadLogRequest{Incident: "x20261124.1"}); got != "x20261124.1" {
		t.Errorf("a drill by its id gives %q", got)
	}
}

// ReadIncident at a position is what ReadIncident said when that position was the last one.
func TestReadIncidentAsItWas(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, w := r.client("anna"), r.world(one)
	live := map[uint64]*dashboardv1.Incident{}
	for i, m := range pt.Milestones() {
		if i == 0 {
			pt.Story(m)(w)
		} else {
			pt.From(pt.Milestones()[i-1], m)(w)
		}
		w.Sync()
		r.feed(w)
		resp := must(c.ReadIncident(t.Context(), &dashboardv1.ReadIncidentRequest{Incident: one}))(t)
		f := resp.GetFreshness()
		if f.GetPosition() != w.State.Position || !f.GetRecordedAt().AsTime().Equal(w.State.RecordedAt) || !f.GetAnsweredAt().AsTime().Equal(r.clock.Now()) {
			t.Fatalf("freshness %v, want position %d", f, w.State.Position)
		}
		live[w.State.Position] = resp.GetIncident()
	}
	r.clock.Advance(48 * time.Hour)
	for position, want := range live {
		got := must(c.ReadIncident(t.Context(), &dashboardv1.ReadIncidentRequest{Incident: one, At: position}))(t)
		if !proto.Equal(got.GetIncident(), want) || got.GetFreshness().GetPosition() != position {
			t.Errorf("at %d it is\n%v\nit was\n%v", position, got.GetIncident(), want)
		}
	}
	last := must(c.ReadIncident(t.Context(), &dashboardv1.ReadIncidentRequest{Incident: one}))(t).GetIncident()
	if last.GetStatus() != "CLOSED" || last.GetReplication() != "EQUAL" || last.GetHost() != pt.Host || last.GetHeadHash() != w.State.HeadHash || last.GetBreached() {
		t.Errorf("closed incident: %v", last)
	}
	rev := last.GetRevisions()[0]
	var kinds []string
	for _, k := range rev.GetChecks() {
		kinds = append(kinds, k.GetKind())
	}
	if want := "first review, transfer, test server, test, test, second review, forward"; rev.GetState() != "Verified" || strings.Join(kinds, ", ") != want {
		t.Errorf("revision %v has checks %v, want %s", rev, kinds, want)
	}
	if d := last.GetDeployments()[0]; d.GetState() != "VERIFIED" || d.GetHealth() != "GOOD" || d.GetObserver() != "carl" {
		t.Errorf("deployment %v", d)
	}
	_, err := c.ReadIncident(t.Context(), &dashboardv1.ReadIncidentRequest{Incident: one, At: w.State.Position + 1})
	if refusal := refused(t, err, dashboard.ReasonBehind); !strings.Contains(refusal.Message, "the last one here is") {
		t.Errorf("refusal does not say how far it is: %v", refusal)
	}
}

// A command's events became history together: in its middle it is seen whole.
func TestReadIncidentInTheMiddleOfARecord(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.told(one, pt.Story(pt.Declared))
	w.Sync() // LEAD_DECISION and BOARD_SUMMARY in one record, positions 2 and 3
	r.feed(w)
	got := must(r.client("anna").ReadIncident(t.Context(), &dashboardv1.ReadIncidentRequest{Incident: one, At: 2}))(t)
	if got.GetFreshness().GetPosition() != 3 {
		t.Errorf("freshness %v, want position 3", got.GetFreshness())
	}
}

func TestListIncidents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.told(one, pt.Story(pt.Called))
	r.told("e20261124.2", func(w *pt.World) { w.Wait(time.Hour) }, pt.Story(pt.Declared), pt.Does("carla", pt.StandDown()))
	r.told("e20261124.3", func(w *pt.World) { w.Wait(2 * time.Hour) }, pt.Story(pt.Declared))
	ids := func(open bool) string {
		var list []string
		for _, i := range must(r.client("mia").ListIncidents(t.Context(), &dashboardv1.ListIncidentsRequest{OpenOnly: open}))(t).GetIncidents() {
			list = append(list, i.GetId())
			if len(i.GetPages()) > 0 {
				t.Errorf("the list carries the pages of %s", i.GetId())
			}
		}
		return strings.Join(list, " ")
	}
	if got, want := ids(false), "e20261124.3 e20261124.2 e20261124.1"; got != want {
		t.Errorf("incidents %s, want %s", got, want)
	}
	if got, want := ids(true), "e20261124.3 e20261124.1"; got != want {
		t.Errorf("open incidents %s, want %s", got, want)
	}
}

func TestUnknownIncident(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client("anna")
	for _, id := range []string{"e20261124.9", "", procedure.RuleBook, strings.Repeat("x", 4000)} {
		_, err := c.ReadIncident(t.Context(), &dashboardv1.ReadIncidentRequest{Incident: id})
		refused(t, err, procedure.ReasonIncident)
		_, err = c.ReadOptions(t.Context(), &dashboardv1.ReadOptionsRequest{Incident: id})
		refused(t, err, procedure.ReasonIncident)
	}
	_, err := c.ReadTimeline(t.Context(), &dashboardv1.ReadTimelineRequest{Incident: "e20261124.9"})
	refused(t, err, procedure.ReasonIncident)
	_, err = c.ReadIncident(t.Context(), &dashboardv1.ReadIncidentRequest{Incident: "e20261124.9", At: 3})
	refused(t, err, procedure.ReasonIncident)
}

// at_least waits for one's own write, and gives up with the call's time, telling how far it is.
func TestAtLeast(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.told(one, pt.Story(pt.Declared))
	answer := make(chan error, 1)
	c := r.client("anna")
	go func() {
		resp, err := c.ReadIncident(t.Context(), &dashboardv1.ReadIncidentRequest{Incident: one, AtLeast: 2})
		if err == nil && resp.GetFreshness().GetPosition() < 2 {
			t.Errorf("position %d came for at least 2", resp.GetFreshness().GetPosition())
		}
		answer <- err
	}()
	w.Do("carla", &emergencyv1.CallOutRequest{Message: "now"})
	r.feed(w)
	check(t, <-answer)

	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	_, err := c.ReadIncident(ctx, &dashboardv1.ReadIncidentRequest{Incident: one, AtLeast: 99})
	if refusal := refused(t, err, dashboard.ReasonBehind); !strings.Contains(refusal.Message, "the last one here is 2") {
		t.Errorf("refusal does not say how far it is: %v", refusal)
	}
}

func TestReadTimeline(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.told(one, pt.Story(pt.Registered))
	c := r.client("mia")
	read := func(from, to uint64) []*dashboardv1.TimelineEntry {
		resp := must(c.ReadTimeline(t.Context(), &dashboardv1.ReadTimelineRequest{Incident: one, From: from, To: to}))(t)
		if resp.GetFreshness().GetPosition() != w.State.Position {
			t.Errorf("freshness %v, want %d", resp.GetFreshness(), w.State.Position)
		}
		return resp.GetEntries()
	}
	all := read(0, 0)
	if uint64(len(all)) != w.State.Position {
		t.Fatalf("%d entries of %d events", len(all), w.State.Position)
	}
	for i, e := range all {
		if e.GetPosition() != uint64(i)+1 || e.GetText() == "" || e.GetAuthority() == "" || e.GetPayloadJson() == "" || e.GetActor() == nil {
			t.Errorf("entry %d is not whole: %v", i+1, e)
		}
	}
	if first := all[0]; len(first.GetRestricted()) != 3 || first.GetRestricted()[1].GetField() != "symptom" || first.GetSinceDeclaredMs() != 0 || !strings.Contains(first.GetText(), "Emergency declared: www") {
		t.Errorf("first entry %v", first)
	}
	if got := all[1].GetSinceDeclaredMs(); got != time.Minute.Milliseconds() {
		t.Errorf("the call-out came after %d ms, want a minute", got)
	}
	if part := read(3, 5); len(part) != 3 || part[0].GetPosition() != 3 || part[2].GetPosition() != 5 {
		t.Errorf("3 to 5 gives %v", part)
	}
	if part := read(1000, 0); len(part) != 0 {
		t.Errorf("from 1000 gives %v", part)
	}
	if part := read(5, 3); len(part) != 0 {
		t.Errorf("5 to 3 gives %v", part)
	}
}

func TestReadOptions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.told(one, pt.Story(pt.Registered))
	options := func(who string) map[string]*dashboardv1.Option {
		list := map[string]*dashboardv1.Option{}
		for _, o := range must(r.client(who).ReadOptions(t.Context(), &dashboardv1.ReadOptionsRequest{Incident: one}))(t).GetOptions() {
			list[o.GetCommand()] = o
		}
		return list
	}
	if o := options("anna")["RecordFirstReview"]; !o.GetAllowed() || !o.GetNext() || o.GetSubject() != "P1r1" || o.GetReason() != "" || !slices.Contains(o.GetWho(), "bert") {
		t.Errorf("anna's review: %v", o)
	}
	if o := options("dora")["RecordFirstReview"]; o.GetAllowed() || o.GetNext() || o.GetReason() != "ROLE" || o.GetRule() == "" || o.GetWouldAllow() == "" {
		t.Errorf("dora's review: %v", o)
	}
	if o := options("anna")["Transfer"]; o.GetAllowed() || o.GetReason() != string(procedure.ReasonFirstReviewMissing) {
		t.Errorf("anna's transfer: %v", o)
	}
	for _, o := range options("agent") {
		if o.GetAllowed() && o.GetCommand() != "CheckReplication" {
			t.Errorf("an agent may %v", o)
		}
	}
}

func TestReadReadiness(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	reached := &emergencyv1.RecordReachabilityRequest{Person: "carl", Channel: "irc", Reached: true}
	r.book.Now = pt.T0()
	r.book.Do("mailer", reached)
	r.feed(r.book)
	read := func() map[emergencyv1.Team][]*dashboardv1.PersonReadiness {
		teams := map[emergencyv1.Team][]*dashboardv1.PersonReadiness{}
		for _, team := range must(r.client("mia").ReadReadiness(t.Context(), &dashboardv1.ReadReadinessRequest{}))(t).GetTeams() {
			teams[team.GetTeam()] = team.GetOnDuty()
		}
		return teams
	}
	critical := read()[emergencyv1.Team_TEAM_CRITICAL]
	if len(critical) != 2 || critical[0].GetPerson() != "carla" || !critical[0].GetStale() || critical[0].GetLastReachedAt() != nil {
		t.Fatalf("critical team: %v", critical)
	}
	if carl := critical[1]; carl.GetStale() || !carl.GetLastReachedAt().AsTime().Equal(pt.T0()) || strings.Join(carl.GetChannels(), " ") != "mail irc sms" {
		t.Errorf("carl: %v", carl)
	}
	r.clock.Advance(91 * 24 * time.Hour)
	if carl := read()[emergencyv1.Team_TEAM_CRITICAL][1]; !carl.GetStale() {
		t.Errorf("carl was not reached for 91 days and is not stale: %v", carl)
	}
	if n := len(read()); n != 4 {
		t.Errorf("%d teams, want 4", n)
	}
}

// The rule book as it was known at a time knows nothing of what came later.
func TestReadRuleBook(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.book.Now = pt.T0()
	before := r.book.State.Position
	r.book.Do("bea", &emergencyv1.GrantRoleRequest{Grant: &emergencyv1.RoleGrant{
		Person: "nora", Role: emergencyv1.Role_ROLE_TESTER, EffectiveAt: timestamppb.New(pt.T0()), BoardDecision: "m20261124.1",
	}})
	r.feed(r.book)
	read := func(at *timestamppb.Timestamp) *dashboardv1.ReadRuleBookResponse {
		return must(r.client("mia").ReadRuleBook(t.Context(), &dashboardv1.ReadRuleBookRequest{At: at}))(t)
	}
	listed := func(b *dashboardv1.ReadRuleBookResponse, person string) *dashboardv1.DirectoryEntry {
		i := slices.IndexFunc(b.GetPersons(), func(e *dashboardv1.DirectoryEntry) bool { return e.GetPerson() == person })
		if i < 0 {
			return nil
		}
		return b.GetPersons()[i]
	}
	now := read(nil)
	if now.GetPosition() != r.book.State.Position || now.GetPolicy().GetNumber() != 1 || now.GetPolicyDigest() == "" || len(now.GetSystems()) != 7 {
		t.Errorf("rule book now: position %d, policy %d, %d systems", now.GetPosition(), now.GetPolicy().GetNumber(), len(now.GetSystems()))
	}
	if e := listed(now, "nora"); e == nil || !slices.Contains(e.GetRoles(), emergencyv1.Role_ROLE_TESTER) {
		t.Errorf("nora now: %v", e)
	}
	if e := listed(now, "anna"); len(e.GetKeyIds()) != 3 {
		t.Errorf("anna has keys %v, want 3", e.GetKeyIds())
	}
	if e := listed(now, "carl"); slices.Contains(e.GetKeyIds(), pt.KeyOf("carl-revoked").ID) {
		t.Error("a revoked key is listed")
	}
	then := read(timestamppb.New(pt.T0().Add(-time.Hour)))
	if then.GetPosition() != before || listed(then, "nora") != nil {
		t.Errorf("rule book then: position %d, want %d; nora %v", then.GetPosition(), before, listed(then, "nora"))
	}
	if never := read(timestamppb.New(pt.Founded().Add(-time.Hour))); never.GetPosition() != 0 || never.GetPolicy() != nil || len(never.GetPersons()) != 0 {
		t.Errorf("rule book before it was founded: %v", never)
	}
}
