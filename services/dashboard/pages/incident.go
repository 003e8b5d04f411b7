// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// incidentView is one emergency, as it is or as it was.
type incidentView struct {
	card
	Then       *then // as it was; nil for now
	DeclaredBy *person
	MergedInto string
	Symptom    *event // where the restricted description can be read
	Host       string
	Policy     uint32
	Digest     string
	Head       string
	Changes    []strategyChange
	Tracks     []track
	Teams      []calledTeam
	Channels   []string
	Revisions  []revision
	Deploys    []deploy
	Compared   *comparison
	Sessions   []session3
	Debts      []debt
	Disputes   []dispute
	Directions []direction
	Deviations []deviation
	Next       []option // what waits for the viewer
	Can        []option // what the viewer could do besides
	Cannot     []option
	Latest     []entry
	Entries    int
	Recorded   *recorded // what the viewer has just done
}

// recorded is what has become of a command that was signed in a page.
type recorded struct {
	Event event
	// Behind is set while this page does not show it yet.
	Behind bool
}

// then is a place in the history that is looked at.
type then struct {
	Position, Last uint64
	First          uint64 // of the record
	At             *when
	Since          string
	Changed        []entry
	Turned         []turned
	Before, After  uint64 // neighbours; 0 for none
}

// strategyChange is a step up or down between strategies.
type strategyChange struct {
	From, To uint32
	Why      string
	Event    event
	By       *person
	At       *when
}

// deviation is a control that was not kept, and where.
type deviation struct {
	What  string
	Event event
}

// option is something the viewer can do, or why not.
type option struct {
	What, Typed  string
	Act          *act // where it is done; nil where no page does it
	subject      string
	Reason, Rule string
	Ways         []string
	Who          []person
	Due          *when
}

func (p *Pages) incident(v *viewer, r *http.Request) (*content, error) {
	id := r.PathValue("incident")
	done := p.recorded(v, id, r.URL.Query().Get("recorded"))
	st, err := p.state(v, id)
	if err != nil {
		return nil, err
	}
	data, err := p.shown(v, st, v.now)
	if err != nil {
		return nil, err
	}
	data.Recorded = done
	p.options(v, st, data)
	entries, err := p.entries(v, id, 0)
	if err != nil {
		return nil, err
	}
	data.Entries = len(entries)
	data.Latest = newest(entries, latestEntries)
	return &content{
		Title: "incident.title", Args: []any{id, st.Declared.System}, Section: "incidents", Template: "incident", Data: data, Incident: id, Drill: st.Declared.Drill,
	}, nil
}

// latestEntries is how much of the timeline the emergency's own page shows.
const latestEntries = 12

// state is a copy of an incident's state, or the query API's refusal for one that is not there.
func (p *Pages) state(v *viewer, id string) (*procedure.State, error) {
	var st *procedure.State
	if p.cfg.Incidents.View(id, func(live *procedure.State) { st = live.Clone() }) {
		return st, nil
	}
	_, err := p.cfg.Query.ReadIncident(v.ctx, &dashboardv1.ReadIncidentRequest{Incident: id})
	if err != nil {
		return nil, err
	}
	return nil, &procedure.Refusal{Code: procedure.NotFound, Reason: procedure.ReasonIncident, Rule: "G4", Message: "there is no such incident"}
}

// shown puts a state into words; what is due or late is judged at a time.
func (p *Pages) shown(v *viewer, st *procedure.State, at time.Time) (*incidentView, error) {
	steps, err := p.steps(st, at)
	if err != nil {
		return nil, err
	}
	d := &incidentView{
		card: v.card(st), DeclaredBy: v.person(st.Declared.By), MergedInto: st.MergedInto, Host: st.Host(), Head: st.HeadHash,
		Tracks: v.tracks(st, steps), Revisions: p.revisions(v, st), Deploys: v.deploys(st), Compared: v.compared(st), Sessions: v.sessions(st),
		Debts: p.debtsOf(v, st, at), Disputes: v.disputes(st, at), Directions: v.directions(st, at),
	}
	if st.Declared.Symptom != "" {
		d.Symptom = &event{st.Incident, 1}
	}
	if st.Policy != nil {
		d.Policy, d.Digest = st.Policy.Number, st.Policy.Digest
	}
	d.Teams, d.Channels = v.called(st)
	for _, c := range st.Strategies {
		d.Changes = append(d.Changes, v.change(st, c))
	}
	for _, x := range st.Deviations {
		d.Deviations = append(d.Deviations, deviation{v.enum(x.Deviation), event{st.Incident, x.Position}})
	}
	return d, nil
}

func (v *viewer) change(st *procedure.State, c procedure.StrategyChange) strategyChange {
	out := strategyChange{From: c.From, To: c.To, Event: event{st.Incident, c.Position}, By: v.person(c.By), At: v.when(c.At)}
	switch {
	case c.To < c.From:
		out.Why = v.say("strategy.back")
	case c.To == 3:
		out.Why = v.say("strategy.joint")
	default:
		out.Why = strings.TrimSuffix(v.enum(c.Ground)+": "+v.enum(c.Code)+v.enum(c.Team), ": ")
	}
	return out
}

// options adds what the viewer can do, by the checks that decide.
func (p *Pages) options(v *viewer, st *procedure.State, d *incidentView) {
	for _, o := range procedure.Options(st, p.env(v)) {
		x := option{What: v.command(o.Command, o.Subject), Typed: p.cfg.Typed(o.Command, o.Subject, st.Incident), Due: v.when(o.Due), Act: p.act(v, st, o.Command, o.Subject), subject: o.Subject}
		switch {
		case o.Next:
			d.Next = append(d.Next, x)
			continue
		case o.Refusal == nil:
			d.Can = append(d.Can, x)
			continue
		}
		x.Reason, x.Rule, x.Who = o.Refusal.Message, o.Refusal.Rule, v.persons(o.Who)
		for _, w := range o.Refusal.Allow {
			x.Ways = append(x.Ways, w.Description)
		}
		d.Cannot = append(d.Cannot, x)
	}
	slices.SortStableFunc(d.Next, func(a, b option) int { return compareDue(a.Due, b.Due) })
}

// compareDue puts what is due sooner first, and what has no due time last.
func compareDue(a, b *when) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return a.at.Compare(b.at)
}

// calledTeam is a team on the call-out board.
type calledTeam struct {
	Name    string
	Slots   []slot
	Called  []calledPerson
	Gap     bool
	Missing int // slots that nobody has taken
}

// slot is a place in a team.
type slot struct {
	ID, Step string
	Badge    badge
	Person   *person
	Since    *when
	Due      *when // to be heard of again
	Late     bool
	Handover *person
}

// calledPerson is one person and what became of each call.
type calledPerson struct {
	*person
	Calls  []call // by channel
	Answer badge
	Due    *when
}

// call is what became of the pages to one person on one channel.
type call struct {
	Channel string
	Badge   badge
	Tries   int
	Detail  string
	Event   event
	At      *when
}

// called is the call-out board: team by person by channel.
func (v *viewer) called(st *procedure.State) (teams []calledTeam, channels []string) {
	for _, pg := range st.Pages {
		if !slices.Contains(channels, pg.Channel) {
			channels = append(channels, pg.Channel)
		}
	}
	for _, t := range []emergencyv1.Team{
		emergencyv1.Team_TEAM_CRITICAL, emergencyv1.Team_TEAM_ASSESSMENT, emergencyv1.Team_TEAM_DEVELOPMENT, emergencyv1.Team_TEAM_TESTING,
	} {
		team := calledTeam{Name: v.enum(t), Gap: slices.ContainsFunc(st.Gaps, func(g procedure.Gap) bool { return g.Team == t })}
		for _, sl := range st.Slots {
			if sl.Team == t {
				team.Slots = append(team.Slots, v.slot(st, sl))
				if sl.State == procedure.SlotOpen {
					team.Missing++
				}
			}
		}
		team.Called = v.calledOf(st, t, channels)
		if len(team.Slots)+len(team.Called) > 0 || team.Gap {
			teams = append(teams, team)
		}
	}
	return teams, channels
}

func (v *viewer) slot(st *procedure.State, sl procedure.Slot) slot {
	class := map[procedure.SlotState]string{procedure.SlotOpen: bad, procedure.SlotAccepted: warn, procedure.SlotStandby: good, procedure.SlotEnded: quiet}[sl.State]
	out := slot{ID: sl.ID, Step: v.enum(sl.Step), Badge: v.badge(class, "slot", string(sl.State)), Person: v.person(sl.Person), Since: v.when(sl.Since), Handover: v.person(sl.HandoverTo)}
	if st.Policy == nil || st.Status != procedure.Open {
		return out
	}
	switch sl.State {
	case procedure.SlotAccepted:
		out.Due = v.when(sl.Since.Add(st.Policy.Duration("callout.ack_expiry")))
	case procedure.SlotStandby:
		out.Due = v.when(sl.Since.Add(st.Policy.Duration("standby.checkin")))
	case procedure.SlotOpen, procedure.SlotEnded:
	}
	out.Late = out.Due != nil && v.now.After(out.Due.at)
	return out
}

func (v *viewer) calledOf(st *procedure.State, t emergencyv1.Team, channels []string) []calledPerson {
	var names []string
	for _, pg := range st.Pages {
		if pg.Team == t && !slices.Contains(names, pg.Person) {
			names = append(names, pg.Person)
		}
	}
	var list []calledPerson
	for _, name := range names {
		c := calledPerson{person: v.person(name), Answer: v.answer(st, t, name)}
		for _, ch := range channels {
			c.Calls = append(c.Calls, v.call(st, t, name, ch))
		}
		list = append(list, c)
	}
	return list
}

// call is what is known of the last page of a kind.
func (v *viewer) call(st *procedure.State, t emergencyv1.Team, name, channel string) call {
	c := call{Channel: channel}
	for _, pg := range st.Pages {
		if pg.Team != t || pg.Person != name || pg.Channel != channel {
			continue
		}
		state := strings.TrimPrefix(pg.State.String(), "DELIVERY_STATE_")
		class := map[string]string{"SENT": good, "DELIVERED": good, "FAILED": bad, "UNKNOWN": warn, "UNSPECIFIED": quiet}[state]
		c.Tries, c.Badge, c.Detail, c.Event, c.At = c.Tries+1, v.badge(class, "delivery", state), pg.Detail, event{st.Incident, pg.Position}, v.when(pg.SentAt)
	}
	return c
}

func (v *viewer) answer(st *procedure.State, t emergencyv1.Team, name string) badge {
	of := func(list []procedure.Declined) bool {
		return slices.ContainsFunc(list, func(d procedure.Declined) bool { return d.Team == t && d.Person == name })
	}
	for _, sl := range st.Slots {
		if sl.Team == t && sl.Person == name && (sl.State == procedure.SlotAccepted || sl.State == procedure.SlotStandby) {
			return v.badge(map[bool]string{true: good, false: warn}[sl.State == procedure.SlotStandby], "slot", string(sl.State))
		}
	}
	done := slices.ContainsFunc(st.Slots, func(sl procedure.Slot) bool {
		return sl.Team == t && sl.Person == name && sl.State == procedure.SlotEnded
	})
	switch {
	case of(st.Declined):
		return v.badge(bad, "answer", "declined")
	case done, of(st.Answered):
		return v.badge(quiet, "answer", "ended")
	}
	return v.badge(warn, "answer", "none")
}

// revision is one revision of a patch and everything decided on it.
type revision struct {
	ID, State        string
	Class            string
	Current          bool
	ReplacedBy       string
	Author           *person
	By               *person
	Bug              string
	Binding          string
	Digest           string
	BaseTree, Result string
	BaseCommit       string
	Size             uint64
	Event            event
	At               *when
	Checks           []check
	Void             int
	Vetoes           []veto
	Path             string
}

// check is something that was done on a revision; all of it is bound to the revision's digest.
type check struct {
	Kind   string
	Result badge
	By     *person
	Event  event
	At     *when
	Void   bool
}

// veto stops a revision.
type veto struct {
	ID    string
	By    *person
	Badge badge
	Event event
	After bool
}

func (p *Pages) revisions(v *viewer, st *procedure.State) []revision {
	var list []revision
	for i := range st.Revisions {
		list = append(list, v.revision(st, &st.Revisions[i]))
	}
	slices.Reverse(list) // the newest first
	return list
}

func (v *viewer) revision(st *procedure.State, r *procedure.Revision) revision {
	out := revision{
		ID: r.ID, State: v.say("revision." + procedure.RevisionState(st, r)), Class: quiet, Current: r.Superseded == "", ReplacedBy: r.Superseded, Author: v.person(r.Author),
		By: v.person(r.By), Bug: r.BugID, Binding: r.Binding, Digest: r.Artefact.GetSha256(), BaseTree: r.BaseTree, Result: r.ResultTree, BaseCommit: r.BaseCommit,
		Size: r.Artefact.GetSize(), Event: event{st.Incident, r.Position}, At: v.when(r.At), Path: "/incidents/" + st.Incident + "/patches/" + r.ID,
	}
	if out.Current {
		out.Class = live
	}
	out.Checks = v.checks(st, r)
	for _, x := range st.Vetoes {
		if x.Revision == r.ID {
			class := map[procedure.VetoState]string{procedure.VetoOpen: bad, procedure.VetoWithdrawn: quiet, procedure.VetoOverruled: warn}[x.State]
			out.Vetoes = append(out.Vetoes, veto{x.ID, v.person(x.By), v.badge(class, "veto", string(x.State)), event{st.Incident, x.Position}, x.AfterApply})
		}
	}
	if !out.Current {
		out.Void = len(out.Checks)
	}
	return out
}

// checks are in the order of the history; void once another revision took this one's place.
func (v *viewer) checks(st *procedure.State, r *procedure.Revision) []check {
	var list []check
	add := func(kind, class, result string, m procedure.Mark) {
		list = append(list, check{v.say("check." + kind), badge{result, class}, v.person(m.By), event{st.Incident, m.Position}, v.when(m.At), r.Superseded != ""})
	}
	review := func(kind string, x *procedure.Review) {
		if x != nil {
			add(kind, map[bool]string{true: good, false: bad}[x.Verdict == emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE], v.enum(x.Verdict), x.Mark)
		}
	}
	review("first", r.First)
	if r.Transfer != nil {
		add("transfer", good, short(r.Transfer.Commit), r.Transfer.Mark)
	}
	if r.TestServer != nil {
		add("server", good, r.TestServer.Environment, r.TestServer.Mark)
	}
	for _, t := range r.Tests {
		result, class := emergencyv1.TestResult_TEST_RESULT_FAIL, bad
		if t.Pass {
			result, class = emergencyv1.TestResult_TEST_RESULT_PASS, good
		}
		add("test", class, v.enum(result), t.Mark)
	}
	review("second", r.Second)
	if r.Forward != nil {
		add("forward", good, v.say("check.to", r.Forward.To), r.Forward.Mark)
	}
	for _, w := range st.Waivers {
		if w.Revision == r.ID {
			add("waiver", warn, v.enum(w.Control), w.Mark)
		}
	}
	for _, x := range st.DryRuns {
		if x.Revision == r.ID {
			add("dryrun", map[bool]string{true: good, false: bad}[x.Clean], v.say(map[bool]string{true: "check.clean", false: "check.differs"}[x.Clean]), x.Mark)
		}
	}
	for _, x := range st.Observers {
		if x.Revision == r.ID {
			add("observer", good, v.say(map[bool]string{true: "check.after", false: "check.before"}[x.After]), x.Mark)
		}
	}
	slices.SortStableFunc(list, func(a, b check) int { return int(a.Event.Position) - int(b.Event.Position) })
	return list
}

// deploy is one attempt to bring a revision to the host.
type deploy struct {
	Revision, Host     string
	Badge              badge
	Executor, Observer *person
	Before, Tree, Want string
	Same               bool
	Started            *when
	Took               string
	Running            bool
	Marks              []mark
	Event              event
	ByHand             bool
}

// mark is a moment of a deployment or session.
type mark struct {
	What  string
	Class string
	At    *when
	After string
	Event event
}

func (v *viewer) deploys(st *procedure.State) []deploy {
	var list []deploy
	for _, a := range st.Applies {
		d := deploy{
			Revision: a.Revision, Host: a.Host, Badge: v.badge(applyClass(a.State), "apply", string(a.State)), Executor: v.person(a.Executor), Observer: v.person(a.Observer),
			Before: a.PreTree, Tree: a.HostTree, Started: v.when(a.StartedAt), Running: a.Running(), Event: event{st.Incident, a.Position}, ByHand: a.ByHand,
		}
		if r, ok := st.Revision(a.Revision); ok {
			d.Want, d.Same = r.ResultTree, r.ResultTree == a.HostTree
		}
		add := func(key, class string, m procedure.Mark) {
			if m.Position > 0 {
				d.Marks = append(d.Marks, mark{v.say("apply." + key), class, v.when(m.At), v.took(m.At.Sub(a.StartedAt)), event{st.Incident, m.Position}})
				d.Took = v.took(m.At.Sub(a.StartedAt))
			}
		}
		add("STARTED", good, procedure.Mark{Position: a.Position, At: a.StartedAt})
		add("APPLIED", good, a.Applied)
		add("VERIFIED", good, a.Verified)
		add("MISMATCH", bad, a.Mismatch)
		add("BACK_OUT_UNPROVEN", bad, a.Unproven)
		add("ENDED", warn, a.Ended)
		for _, h := range st.Health {
			if h.Revision == a.Revision && h.Position > a.Position {
				value := strings.TrimPrefix(h.Result, "HEALTH_RESULT_")
				d.Marks = append(d.Marks, mark{v.say("HealthResult." + value), map[string]string{"GOOD": good, "DEGRADED": warn}[value], v.when(h.At), v.took(h.At.Sub(a.StartedAt)), event{st.Incident, h.Position}})
			}
		}
		list = append(list, d)
	}
	slices.Reverse(list)
	return list
}

func applyClass(s procedure.ApplyState) string {
	switch s {
	case procedure.Verified:
		return good
	case procedure.ApplyFailed, procedure.Mismatch, procedure.BackOutUnproven:
		return bad
	case procedure.Applying, procedure.Applied, procedure.BackingOut, procedure.RollingBack:
		return live
	case procedure.BackedOut, procedure.RolledBack:
		return warn
	}
	return quiet
}

// comparison is the last one of host and release branch.
type comparison struct {
	Badge   badge
	At      *when
	Event   event
	Differs int
}

func (v *viewer) compared(st *procedure.State) *comparison {
	n := len(st.Replications)
	if n == 0 {
		return nil
	}
	r := st.Replications[n-1]
	class := map[emergencyv1.ReplicationResult]string{
		emergencyv1.ReplicationResult_REPLICATION_RESULT_EQUAL: good, emergencyv1.ReplicationResult_REPLICATION_RESULT_LAG: warn, emergencyv1.ReplicationResult_REPLICATION_RESULT_DRIFT: bad,
	}[r.Kind]
	return &comparison{badge{v.enum(r.Kind), class}, v.when(r.At), event{st.Incident, r.Position}, len(r.Paths)}
}

// session3 is a watched session of strategy 3.
type session3 struct {
	ID, Host               string
	Badge                  badge
	Subject, Watcher, Gave *person
	Marks                  []mark
	Output, Input          uint64
	Event                  event
	Agent                  bool
	Path                   string
	CanWatch               bool // it is not over
	Recorded               bool // it was used, so there is something to play
}

func (v *viewer) sessions(st *procedure.State) []session3 {
	var list []session3
	for i := range st.Grants {
		list = append(list, v.session(st, &st.Grants[i]))
	}
	return list
}

func (v *viewer) session(st *procedure.State, g *procedure.Grant) session3 {
	x := session3{
		ID: g.ID, Host: g.Host, Badge: v.badge(grantClass(g.State), "grant", string(g.State)), Subject: v.person(g.Subject), Watcher: v.person(g.Watcher), Gave: v.person(g.Granter),
		Output: g.OutputOffset, Input: g.InputBytes, Event: event{st.Incident, g.Position}, Agent: g.Agent,
		Path: "/incidents/" + st.Incident + "/sessions/" + g.ID, CanWatch: !g.Over(), Recorded: g.Consumed.Position > 0,
	}
	start := g.IssuedAt
	add := func(key, class string, m procedure.Mark) {
		if m.Position > 0 {
			x.Marks = append(x.Marks, mark{v.say("grant.mark." + key), class, v.when(m.At), v.took(m.At.Sub(start)), event{st.Incident, m.Position}})
		}
	}
	add("issued", quiet, procedure.Mark{Position: g.Position, At: g.IssuedAt})
	add("armed", good, g.Armed)
	add("opened", good, g.Opened)
	add("frozen", warn, g.Frozen)
	add("resumed", good, g.Resumed)
	add("expired", warn, g.Expired)
	add("terminated", quiet, g.Terminated)
	add("disabled", good, g.DisabledDone)
	add("proven", good, g.Proven)
	add("usable", bad, g.StillUsable)
	add("sealed", good, g.Sealed)
	slices.SortStableFunc(x.Marks, func(a, b mark) int { return int(a.Event.Position) - int(b.Event.Position) })
	return x
}

func grantClass(s procedure.GrantState) string {
	switch s {
	case procedure.GrantLive:
		return live
	case procedure.GrantFrozen, procedure.GrantExpired, procedure.GrantTerminated, procedure.GrantDisabled:
		return warn
	case procedure.GrantStillUsable:
		return bad
	case procedure.GrantProvenUnusable, procedure.GrantSealed:
		return good
	case procedure.GrantIssued, procedure.GrantWatcherReady:
	}
	return quiet
}

// dispute is a filing and what became of it.
type dispute struct {
	ID, Concern string
	Badge       badge
	Case        string
	Filed       *when
	By          *person
	Arbitrator  *person
	Asked       []asked
	Rulings     []event
	Event       event
}

// asked is an arbitrator who was asked.
type asked struct {
	*person
	Badge badge
	Until *when
}

func (v *viewer) disputes(st *procedure.State, at time.Time) []dispute {
	var list []dispute
	for _, x := range st.Disputes {
		state := x.State(at)
		d := dispute{
			ID: x.ID, Concern: v.enum(x.Concern), Badge: v.badge(disputeClass(state), "dispute", string(state)), Case: x.Case, Filed: v.when(x.Filed.At), By: v.person(x.Filed.By),
			Arbitrator: v.person(x.Arbitrator), Event: event{st.Incident, x.Filed.Position},
		}
		for _, a := range x.Proposals {
			d.Asked = append(d.Asked, asked{v.person(a.Candidate), v.proposalBadge(a, at), v.when(a.Until)})
		}
		for _, r := range st.Rulings {
			if r.Dispute == x.ID {
				d.Rulings = append(d.Rulings, event{st.Incident, r.Position})
			}
		}
		list = append(list, d)
	}
	return list
}

func disputeClass(s procedure.DisputeState) string {
	switch s {
	case procedure.DisputeRuled, procedure.DisputeFinalRuled, procedure.DisputeNotReopened:
		return good
	case procedure.DisputeAwaiting, procedure.DisputeClosedDeclined:
		return bad
	case procedure.DisputeJoined, procedure.DisputeRefiled:
		return quiet
	default:
		return warn
	}
}

// direction is what an arbitrator ordered.
type direction struct {
	ID, Kind string
	To       *person
	Role     string
	Badge    badge
	Due      *when
	Event    event
}

func (v *viewer) directions(st *procedure.State, at time.Time) []direction {
	var list []direction
	for _, x := range st.Directions {
		list = append(list, direction{x.ID, v.enum(x.Kind), v.person(x.Person), v.enum(x.Role), v.directionBadge(x, at), v.when(x.Due), event{st.Incident, x.Issued.Position}})
	}
	return list
}

func (v *viewer) proposalBadge(p procedure.Proposal, at time.Time) badge {
	state := p.State(at)
	class := map[procedure.ProposalState]string{procedure.ProposalWaiting: warn, procedure.ProposalAccepted: good, procedure.ProposalDeclined: quiet, procedure.ProposalSilent: bad}[state]
	return v.badge(class, "asked", strings.ToLower(string(state)))
}

func (v *viewer) directionBadge(x procedure.Direction, at time.Time) badge {
	state := x.State(at)
	class := map[procedure.DirectionState]string{
		procedure.DirectionOpen: warn, procedure.DirectionOverdue: bad, procedure.DirectionReported: warn, procedure.DirectionDone: good, procedure.DirectionVoid: quiet,
	}[state]
	return v.badge(class, "direction", strings.ToLower(string(state)))
}
