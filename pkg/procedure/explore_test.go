// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// exploreStates bounds the exploration: so many different states are asked about every move, after those it begins with.
var exploreStates = flag.Int("explore", 30, "how many states TestExplore visits beside those it begins with; there are many thousand")

// TestExplore goes breadth first through the reachable states of an incident, from every milestone of the story at once, and
// asks in each of them about every move. A move is accepted or refused with a whole reason; it never panics, never errs,
// and never changes what it was given; what is accepted changes the state, so that no event is one that Evolve forgot.
func TestExplore(t *testing.T) {
	t.Parallel()
	x := &explorer{t: t, shapes: map[string]bool{}, accepted: map[string]bool{}, refused: map[procedure.Reason]bool{}, events: map[string]bool{}}
	x.see(pt.NewWorld(t))
	short := []pt.Milestone{pt.Escalated, pt.Prepared, pt.HandedOver, pt.DryRun2, pt.Verified2, pt.Checked2, pt.InCycle, pt.Reviewed2, pt.Tested2, pt.ReviewedAll, pt.Blessed}
	for _, m := range slices.Concat(pt.Milestones(), short) {
		x.see(pt.Given(t, pt.Story(m)).World())
	}
	for _, m := range pt.Milestones3() {
		x.see(pt.Given(t, pt.Story(m)).World())
	}
	rollBack, odd := pt.Does("carla", pt.RollBack("carl")), pt.Does(agent, pt.ReportTree(pt.Tree("odd")))
	for _, steps := range [][]pt.Step{ // beside the story
		{pt.Story(pt.Declared), pt.Does("carla", pt.StandDown())}, {pt.Story(pt.Verified), rollBack},
		{pt.Story(pt.Applied), odd}, {pt.Story(pt.Applied), odd, pt.Does("carla", pt.BackOut())},
		{pt.Story(pt.Applying), pt.Does(agent, pt.ReportApply(false))}, withoutTests(pt.Observed), withoutObserver(), {pt.Story(pt.OnTestServer), pt.Does("theo", pt.Test(pass))},
		{pt.Story(pt.Registered), pt.Does("bert", pt.Veto())}, {pt.Story(pt.Verified), pt.Does("repo:git", &emergencyv1.CheckReplicationRequest{}, pt.Facts(pt.Drift("etc/odd")))},
		{pt.Story(pt.Frozen), pt.Does("carl", pt.Arm())}, {pt.Story(pt.Armed), expired}, {pt.Story(pt.Disabled), stillUsable},
		{pt.Story(pt.Declared), pt.Does("carla", pt.CapturedAt(note(), pt.T0()))}, {pt.Story(pt.Declared), pt.Does("carla", pt.Joint())},
		{pt.Story(pt.Declared), pt.Does("carla", pt.Joint()), pt.Does("anna", pt.Joint())}, {pt.Story(pt.InCycle), pt.Does("bert", pt.After(pt.FirstReview(changes)))},
	} {
		x.see(pt.Given(t, steps...).World())
	}
	for _, steps := range disputeStates() {
		x.see(pt.Given(t, steps...).World())
	}
	first := len(x.queue)
	for visited := 0; len(x.queue) > 0 && visited < first+*exploreStates; visited++ {
		w := x.queue[0]
		x.queue = x.queue[1:]
		x.visit(w)
		if t.Failed() {
			return
		}
	}
	x.report()
}

type explorer struct {
	t        *testing.T
	queue    []*pt.World
	shapes   map[string]bool
	accepted map[string]bool // commands
	refused  map[procedure.Reason]bool
	events   map[string]bool
	followed map[string]bool // moves, in the state that is visited
	cells    int
	over     int // states that wait for nobody
}

// see queues a state unless one of the same shape was seen.
func (x *explorer) see(w *pt.World) {
	shape := shapeOf(w.State)
	if !x.shapes[shape] {
		x.shapes[shape] = true
		x.queue = append(x.queue, w)
	}
}

// later are the times after which moves are tried: at once, and when everything of a day has become due.
func (x *explorer) visit(w *pt.World) {
	before := pt.Fingerprint(w.State)
	x.followed = map[string]bool{}
	x.waits(w)
	for _, m := range pt.Moves(w.State) {
		waits := []time.Duration{time.Second}
		if _, tick := m.Command.(*emergencyv1.TickRequest); tick {
			waits = []time.Duration{time.Second, 30 * time.Hour}
		}
		for _, wait := range waits {
			x.try(w, m, wait)
		}
	}
	if pt.Fingerprint(w.State) != before {
		x.t.Errorf("moves changed the state that they were tried on")
	}
}

// waits holds Waits against what it stands for: where it says no, there is nothing for anybody, now or later.
func (x *explorer) waits(w *pt.World) {
	if procedure.Waits(w.State) {
		return
	}
	x.over++
	now := w.Now
	defer func() { w.Now = now }()
	for _, wait := range []time.Duration{0, 30 * time.Hour, 400 * 24 * time.Hour} {
		w.Now = now.Add(wait)
		for _, person := range w.Book.Persons() {
			for _, o := range procedure.Options(w.State, w.Env(person, "")) {
				if o.Next && w.State.Status != procedure.Merged {
					x.t.Errorf("%s waits for nobody, and %s %s waits for %s", w.State.Incident, o.Command, o.Subject, person)
				}
			}
		}
		for _, o := range procedure.Debts(w.State) {
			if o.Open() {
				x.t.Errorf("%s waits for nobody, and owes %s", w.State.Incident, o.ID)
			}
		}
	}
}

func (x *explorer) try(w *pt.World, m pt.Move, wait time.Duration) {
	x.cells++
	name := procedure.CommandName(m.Command)
	now := w.Now
	w.Now = now.Add(wait)
	defer func() { w.Now = now }()
	env := w.Env(m.Who, procedure.CommandOwner(m.Command))
	if m.Owner != "" {
		env.Owner = m.Owner
	}
	if env.Facts = w.GoodFacts(m.Command); m.Facts != nil {
		env.Facts = *m.Facts
	}
	c := w.Prepare(m.Who, m.Command)
	sent := proto.Clone(c)
	d, refusal, err := procedure.Decide(w.State, c, env)
	switch {
	case err != nil:
		x.t.Errorf("%s by %s: %v", name, m.Who, err)
	case !proto.Equal(sent, c):
		x.t.Errorf("%s by %s was changed", name, m.Who)
	case refusal != nil:
		pt.CheckRefusal(x.t, refusal)
		x.refused[refusal.Reason] = true
	case d.Repeated != nil && name == "Terminate" && len(w.State.Grants) > 0 && w.State.Grants[len(w.State.Grants)-1].Terminated.Position > 0:
		// the first result is the answer, under whatever request id (4.4)
	case d.Repeated != nil:
		x.t.Errorf("%s by %s is taken for an earlier command", name, m.Who)
	case len(d.Events) == 0:
		if !slices.Contains([]string{"Tick", "SyncObligations", "ReportDelivery"}, name) {
			x.t.Errorf("%s by %s is accepted and does nothing", name, m.Who)
		}
	default:
		// who of those who may gives it makes no other shape
		if key := fmt.Sprintf("%p %v %s", m.Command, wait, m.Owner); !x.followed[key] {
			x.followed[key] = true
			x.follow(w, c, d)
		}
	}
}

// follow records an accepted move in a copy and looks at what it changed.
func (x *explorer) follow(w *pt.World, c procedure.Command, d *procedure.Decision) {
	x.accepted[d.Command] = true
	for _, e := range d.Events {
		x.events[e.GetType()] = true
	}
	next := w.Fork()
	rec := next.Record(c, d)
	checkRecord(x.t, w.State, pt.Outcome{Record: rec})
	checkPersons(x.t, next.State)
	if pt.Fingerprint(core(w.State)) == pt.Fingerprint(core(next.State)) {
		x.t.Errorf("%s by %s records %v, and nothing changes by it", d.Command, d.Actor.GetPerson(), d.Events)
	}
	x.see(next)
}

// core is a state without what every record changes: head, request ids and who acted.
func core(s *procedure.State) *procedure.State {
	n := withoutHead(s)
	n.Requests, n.Acted, n.Involved = nil, nil, nil
	return n
}

func (x *explorer) report() {
	if x.over == 0 {
		x.t.Error("no state was seen that waits for nobody")
	}
	x.t.Logf("%d states of %d seen, %d cells, %d refusal reasons", len(x.shapes)-len(x.queue), len(x.shapes), x.cells, len(x.refused))
	for _, c := range procedure.Commands() {
		if !c.RuleBook && !c.Archive && !x.accepted[c.Name] {
			x.t.Errorf("%s was never accepted", c.Name)
		}
	}
	elsewhere := map[string]string{
		"CommandRefused":       "changes nothing; see TestRefusedEvent",
		"CoverageGapFound":     "needs another rota; see TestCallOut",
		"MessageArchived":      "is no incident's; see TestImportArchive",
		"ObligationDueChanged": "needs a second apply by another executor; see TestSync",
	}
	for _, typ := range procedure.EventTypes() {
		name := pt.ShortType(typ)
		if elsewhere[name] == "" && !ofRuleBookType(typ) && !x.events[typ] {
			x.t.Errorf("%s never happened", typ)
		}
	}
}

func ofRuleBookType(typ string) bool {
	e := &emergencyv1.Event{Type: typ, SchemaVersion: 1}
	m, err := procedure.DecodeEvent(e)
	return err == nil && ofRuleBook(m)
}

// shapeOf is what makes two states different for the explorer: the state machines of procedure.md 6, without who, when and
// which bytes.
func shapeOf(s *procedure.State) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+" ", args...) }
	some := func(n, most int) int { return min(n, most) }
	say("%s strategy%d joint%d late%d", s.Status, s.Strategy, len(s.Joint), some(len(s.Late), 1))
	for _, id := range []string{"critical/1", "testing/1"} {
		if sl, ok := s.Slot(id); ok {
			say("%s:%s/%t", id, sl.State, sl.HandoverTo != "")
		}
	}
	say("rounds%d declined%d", some(len(s.Rounds), 2), some(len(s.Declined), 1))
	first := max(0, len(s.Revisions)-2)
	for _, r := range s.Revisions[first:] {
		passed, failed := 0, 0
		for _, x := range r.Tests {
			if x.Pass {
				passed++
			} else {
				failed++
			}
		}
		say("rev[%t %t %s %s %t %t %d/%d %t]", r.Superseded != "", s.Waived(tests, r.ID) != nil, verdictOf(r.First), verdictOf(r.Second), r.Transfer != nil, r.TestServer != nil, some(passed, 2), some(failed, 1), r.Forward != nil)
		if r.Cycle != nil {
			say("cycle[%s %s %t %t %d %s]", verdictOf(r.Cycle.First), verdictOf(r.Cycle.Second), r.Cycle.Transfer != nil, r.Cycle.TestServer != nil, some(len(r.Cycle.Tests), 2), r.Cycle.Outcome)
		}
		if a := s.ApplyOf(r.ID); a != nil {
			say("apply[%s %t %t]", a.State, a.Observer != "", a.Applied.Position > 0)
		}
		say("veto%d", some(len(s.OpenVetoes(r.ID)), 1))
	}
	say("dry%d obs%d health%d drift%d", some(len(s.DryRuns), 1), some(len(s.Observers), 2), some(len(s.Health), 1), some(len(s.Drift), 1))
	if n := len(s.Replications); n > 0 {
		say("rep%s", s.Replications[n-1].Kind)
	}
	say("%s", consoleShape(s))
	say("%s", disputeShape(s))
	say("lead%t doc%d board%d visible%d breached%t", s.Lead != nil, some(len(s.Documented), 1), some(len(s.BoardReports), 1), some(len(s.Obligations), 1), len(s.Breached) > 0)
	return b.String()
}

// consoleShape is where strategy 3's console stands.
func consoleShape(s *procedure.State) string {
	if len(s.Grants) == 0 {
		return fmt.Sprintf("s%d permitted%t", s.Strategy, len(s.Permissions) > 0)
	}
	g := s.Grants[len(s.Grants)-1]
	return fmt.Sprintf("s%d grants%d %s used%t rearmed%t ext%t marks%d cp%d diff%t left%t/%t done%t", s.Strategy, min(len(s.Grants), 2), g.State, g.Consumed.Position > 0,
		g.Armed.Position > g.Frozen.Position, g.Extended.Position > 0, min(len(g.Marks), 1), min(len(g.Checkpoints), 2), g.Diff.Position > 0,
		len(g.LeftoversReported) > 0, len(g.Leftovers) > 0 && g.Leftovers[0].Explained.Position == 0, g.DisabledDone.Position > 0)
}

func verdictOf(r *procedure.Review) string {
	if r == nil {
		return "-"
	}
	return r.Result
}
