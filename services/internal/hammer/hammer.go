// SPDX-License-Identifier: Apache-2.0

// Package hammer is a load generator that also checks. Clients give random commands of all five services on few incidents at
// once, through several instances of each owner: in their place and out of it, late, twice, under used request ids, pinned to
// old positions, with agents and timers among them. Afterwards what is in the log is compared with what was answered, read
// with a second pair of eyes (historytest.CheckIndependently), and judged by rules that share no code with the deciding side
// (CheckRules).
package hammer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Config of a run.
type Config struct {
	// Clients give Commands in all, each from its own share of Seed.
	Clients, Commands int
	Seed              uint64
	// Open is how many incidents are kept open at a time.
	Open int
}

// Count is what became of the commands of one kind.
type Count struct{ Sent, Accepted, Repeated, Nothing, Refused, Aborted int }

// Report says what a run did.
type Report struct {
	Count
	ByCommand map[string]*Count
	Reasons   map[procedure.Reason]int
	Incidents int
	Took      time.Duration
}

// answer is one command and what its sender was told.
type answer struct {
	cmd       procedure.Command
	who       procedure.Actor
	owner     string
	committed *emergencyv1.Committed
	err       error
}

// Hammer is a run.
type Hammer struct {
	cfg       Config
	r         *dispatchtest.Rig
	instances map[string][]*dispatch.Dispatcher

	mu        sync.Mutex
	incidents []string        // in the order of declaration
	ended     map[string]bool // seen closed, stood down or merged
	answers   []answer
	clock     sync.Mutex
}

// New prepares a run on a founded store. More stores are further connections to the same one; each gets instances of every
// owner.
func New(r *dispatchtest.Rig, cfg Config, more ...history.Store) *Hammer {
	h := &Hammer{cfg: cfg, r: r, instances: map[string][]*dispatch.Dispatcher{}, ended: map[string]bool{}}
	for _, owner := range procedure.Owners() {
		for _, store := range append([]history.Store{r.Store}, more...) {
			c := r.Config(owner)
			c.Store, c.Log = store, r.Log
			h.instances[owner] = append(h.instances[owner], r.Build(c))
		}
	}
	return h
}

// Run gives all commands and returns what became of them.
func (h *Hammer) Run(ctx context.Context) *Report {
	began := time.Now()
	var group sync.WaitGroup
	for i := range h.cfg.Clients {
		c := &client{Hammer: h, number: i, turn: 7 * i, rng: rand.New(rand.NewPCG(h.cfg.Seed, uint64(i))), seen: map[string]*procedure.State{}} //nolint:gosec // a reproducible choice, no secret
		group.Go(func() {
			for range h.cfg.Commands / h.cfg.Clients {
				c.step(ctx)
			}
		})
	}
	group.Wait()
	return h.report(time.Since(began))
}

func (h *Hammer) report(took time.Duration) *Report {
	rep := &Report{ByCommand: map[string]*Count{}, Reasons: map[procedure.Reason]int{}, Incidents: len(h.incidents), Took: took}
	for _, a := range h.answers {
		name := procedure.CommandName(a.cmd)
		if rep.ByCommand[name] == nil {
			rep.ByCommand[name] = &Count{}
		}
		for _, c := range []*Count{&rep.Count, rep.ByCommand[name]} {
			c.Sent++
			var refusal *procedure.Refusal
			switch {
			case errors.As(a.err, &refusal) && refusal.Reason == procedure.ReasonConcurrentModification:
				c.Aborted++
			case errors.As(a.err, &refusal):
				c.Refused++
			case a.err != nil:
			case a.committed.GetRepeated():
				c.Repeated++
			case a.committed.GetFirstPosition() == 0:
				c.Nothing++
			default:
				c.Accepted++
			}
		}
		var refusal *procedure.Refusal
		if errors.As(a.err, &refusal) {
			rep.Reasons[refusal.Reason]++
		}
	}
	return rep
}

// Write prints the report.
func (r *Report) Write(w io.Writer) {
	fmt.Fprintf(w, "%d commands on %d incidents in %s: %d accepted, %d repeated, %d with nothing to record, %d refused, %d aborted\n",
		r.Sent, r.Incidents, r.Took.Round(time.Millisecond), r.Accepted, r.Repeated, r.Nothing, r.Refused, r.Aborted)
	for _, name := range slices.Sorted(maps.Keys(r.ByCommand)) {
		c := r.ByCommand[name]
		fmt.Fprintf(w, "  %-20s sent %4d  accepted %4d  repeated %3d  nothing %3d  refused %4d  aborted %d\n", name, c.Sent, c.Accepted, c.Repeated, c.Nothing, c.Refused, c.Aborted)
	}
	var reasons []string
	for _, reason := range slices.Sorted(maps.Keys(r.Reasons)) {
		reasons = append(reasons, fmt.Sprintf("%s %d", reason, r.Reasons[reason]))
	}
	fmt.Fprintf(w, "  refused for %s\n", strings.Join(reasons, ", "))
}

// client gives one command after the other.
type client struct {
	*Hammer
	number int
	turn   int // which command of all comes next when any will do
	rng    *rand.Rand
	seen   map[string]*procedure.State // what it last saw of an incident, which may be old by now
}

func (c *client) chance(percent int) bool { return c.rng.IntN(100) < percent }

func pick[T any](c *client, list []T) T { return list[c.rng.IntN(len(list))] }

func (c *client) instance(owner string) *dispatch.Dispatcher { return pick(c, c.instances[owner]) }

func (c *client) step(ctx context.Context) {
	c.passTime()
	switch {
	case c.chance(3):
		c.ruleBook(ctx)
		return
	case len(c.open()) < c.cfg.Open:
		c.declare(ctx)
		return
	}
	id := c.some()
	s := c.look(ctx, id)
	if s == nil {
		return
	}
	m, ok := c.choose(s)
	if !ok {
		return
	}
	m.Who = c.other(m.Who)
	cmd := c.r.Prepare(s, nil, m.Who, m.Command)
	in := dispatch.Input{Actor: proceduretest.Actor(m.Who), Facts: proceduretest.GoodFacts(s, cmd)}
	if m.Facts != nil {
		in.Facts = *m.Facts
	}
	if merge, ok := c.merge(ctx, s, cmd); ok {
		cmd, in.Facts = merge.cmd, merge.facts
	}
	owner := procedure.CommandOwner(cmd)
	if owner == "" {
		owner = m.Owner
	}
	c.give(ctx, owner, cmd, in, s)
}

// other sometimes takes another key of the same person.
func (c *client) other(who string) string {
	for _, key := range []string{"anna", "carla", "theo"} {
		if who == key && c.chance(20) {
			return key + "2"
		}
	}
	return who
}

// give sends a command, now and then in one of the ways that must make no difference, or must be refused.
func (c *client) give(ctx context.Context, owner string, cmd procedure.Command, in dispatch.Input, s *procedure.State) {
	switch {
	case c.chance(10): // twice at once, on two instances
		var group sync.WaitGroup
		for _, d := range c.instances[owner] {
			group.Go(func() { c.send(ctx, d, cmd, in) })
		}
		group.Wait()
		return
	case c.chance(5): // pinned to what was seen, which may be old
		pinned := proto.Clone(cmd).(procedure.Command)
		at := s.Position
		pinned.GetMeta().ExpectedPosition = &at
		cmd = pinned
	}
	c.send(ctx, c.instance(owner), cmd, in)
	switch {
	case c.chance(10):
		c.send(ctx, c.instance(owner), cmd, in)
	case c.chance(5): // the same request id for something else
		changed := proto.Clone(cmd).(procedure.Command)
		changed.GetMeta().Authority = "another ground"
		c.send(ctx, c.instance(owner), changed, in)
	}
}

func (h *Hammer) send(ctx context.Context, d *dispatch.Dispatcher, cmd procedure.Command, in dispatch.Input) *emergencyv1.Committed {
	got, err := d.Do(ctx, cmd, in)
	h.note(answer{cmd, in.Actor, d.Owner(), got, err})
	return got
}

func (h *Hammer) note(a answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers = append(h.answers, a)
}

// passTime moves the clock, mostly a little.
func (c *client) passTime() {
	if !c.chance(20) {
		return
	}
	d := time.Duration(c.rng.IntN(60)) * time.Second
	if c.chance(3) {
		d = time.Duration(c.rng.IntN(60)) * time.Minute
	}
	c.clock.Lock()
	defer c.clock.Unlock()
	c.r.Clock.Advance(d)
}

func (h *Hammer) open() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(h.incidents), func(id string) bool { return h.ended[id] })
}

// some incident, mostly an open one.
func (c *client) some() string {
	open := c.open()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(open) > 0 && !c.chance(7) {
		return pick(c, open)
	}
	return pick(c, c.incidents)
}

// look is how an incident is seen by this client: mostly as it is, sometimes as it was.
func (c *client) look(ctx context.Context, id string) *procedure.State {
	if s := c.seen[id]; s != nil && c.chance(30) {
		return s
	}
	s, err := c.instance(pick(c, procedure.Owners())).State(ctx, id)
	if err != nil {
		c.note(answer{cmd: &emergencyv1.TickRequest{Meta: &emergencyv1.CommandMeta{Incident: id}}, err: err})
		return nil
	}
	c.seen[id] = s
	if s.Status != procedure.Open {
		c.mu.Lock()
		c.ended[id] = true
		c.mu.Unlock()
	}
	return s
}

func (c *client) declare(ctx context.Context) {
	cmd := proceduretest.Declare()
	cmd.Drill = c.chance(20)
	cmd.Meta = &emergencyv1.CommandMeta{RequestId: c.r.RequestID()}
	who := pick(c, []string{"carla", "carl", "anna", "bert", "dora", "xaver"})
	in := dispatch.Input{Actor: proceduretest.Actor(who)}
	d := c.instance(procedure.OwnerIncident)
	for range 1 + c.rng.IntN(2) {
		got, err := d.Declare(ctx, cmd, in, nothing{})
		c.note(answer{cmd, in.Actor, d.Owner(), got, err})
		if err == nil && !got.GetRepeated() {
			c.mu.Lock()
			c.incidents = append(c.incidents, got.GetIncident())
			c.mu.Unlock()
		}
		d = c.instance(procedure.OwnerIncident)
	}
}

// nothing is an index that knows nothing.
type nothing struct{}

func (nothing) Declared(string, string) string { return "" }
func (nothing) LastNumber(string) int          { return 0 }

// choose picks a move: mostly one that brings the incident on, else any command, in its place or not.
func (c *client) choose(s *procedure.State) (proceduretest.Move, bool) {
	if c.chance(60) {
		if good := c.helpful(s); len(good) > 0 {
			return pick(c, good), true
		}
	}
	byName := map[string][]proceduretest.Move{}
	for _, m := range proceduretest.Moves(s) {
		name := procedure.CommandName(m.Command)
		byName[name] = append(byName[name], m)
	}
	names := slices.Sorted(maps.Keys(byName))
	name := names[c.turn%len(names)] // one after the other, so that every command has its turn
	c.turn++
	if (name == "StandDown" || name == "MergeInto" || name == "Close") && c.number%4 > 0 { // they end the fun
		return proceduretest.Move{}, false
	}
	return pick(c, byName[name]), true
}

var (
	critical = []string{"carla", "carl"}
	assess   = []string{"anna", "bert", "beate"}
	testers  = []string{"theo", "tina", "tom"}
)

// helpful are moves that somebody would make next who wants the incident solved, sometimes with bad luck.
func (c *client) helpful(s *procedure.State) []proceduretest.Move {
	if s.Status != procedure.Open {
		return nil
	}
	var list []proceduretest.Move
	move := func(who string, cmd procedure.Command) {
		list = append(list, proceduretest.Move{Who: who, Command: cmd})
	}
	if len(s.Rounds) == 0 {
		move("carla", &emergencyv1.CallOutRequest{Message: "come"})
	}
	if len(s.Revisions) == 0 {
		for _, x := range proceduretest.Responders() {
			move(x.Person, proceduretest.Accept(x.Slot))
		}
	}
	if procedure.NeedsSync(s) {
		move("reactor", &emergencyv1.SyncObligationsRequest{})
	}
	if s.Strategy == 1 && c.chance(6) {
		move(pick(c, assess), proceduretest.Exploited())
	}
	if s.Strategy > 1 {
		c.shortMoves(s, move)
	} else {
		c.patchMoves(s, move)
	}
	c.disputeMoves(s, move)
	return list
}

func (c *client) patchMoves(s *procedure.State, move func(string, procedure.Command)) {
	verdict := func() emergencyv1.ReviewVerdict {
		if c.chance(88) {
			return emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE
		}
		return pick(c, []emergencyv1.ReviewVerdict{emergencyv1.ReviewVerdict_REVIEW_VERDICT_CHANGES, emergencyv1.ReviewVerdict_REVIEW_VERDICT_VETO})
	}
	result := emergencyv1.TestResult_TEST_RESULT_PASS
	if c.chance(8) {
		result = emergencyv1.TestResult_TEST_RESULT_FAIL
	}
	approved := func(r *procedure.Review) bool { return r.Verdict == emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE }
	r := s.Current()
	if r == nil {
		move("dora", proceduretest.Register(1+c.rng.IntN(1000)))
		return
	}
	if open := s.OpenVetoes(r.ID); len(open) > 0 {
		move(open[0].By, &emergencyv1.WithdrawVetoRequest{Veto: open[0].ID, Reason: "I misread the patch"})
		move("albert", &emergencyv1.OverruleVetoRequest{Veto: open[0].ID, Reason: "the hole it names was there before, and is smaller"})
	}
	passed, failed := 0, ""
	for _, x := range r.Tests {
		if x.Pass {
			passed++
		} else {
			failed = x.By
		}
	}
	switch a := s.ApplyOf(r.ID); {
	case a != nil:
		c.applyMoves(s, r, a, move)
	case r.First == nil:
		move(pick(c, assess), proceduretest.FirstReview(verdict()))
	case !approved(r.First), r.Second != nil && !approved(r.Second):
		move("dora", proceduretest.Replace(r.ID, 1+c.rng.IntN(1000)))
	case r.Transfer == nil:
		move(r.First.By, &emergencyv1.TransferRequest{})
	case r.TestServer == nil:
		move("test:"+proceduretest.TestServer, proceduretest.ConfirmServer(s))
	case failed != "":
		move(failed, proceduretest.Test(emergencyv1.TestResult_TEST_RESULT_PASS))
	case passed < 2:
		move(pick(c, testers), proceduretest.Test(result))
	case r.Second == nil:
		move(pick(c, assess), proceduretest.SecondReview(verdict()))
	case r.Forward == nil:
		move(r.Second.By, &emergencyv1.ForwardRequest{RollbackPlan: "take it back", To: "carla"})
	default:
		move("carla", &emergencyv1.DryRunRequest{})
		move("carl", proceduretest.Observe())
		move("carla", &emergencyv1.StartApplyRequest{})
		if c.chance(30) {
			move("beate", proceduretest.Veto())
		}
	}
}

func (c *client) applyMoves(s *procedure.State, r *procedure.Revision, a *procedure.Apply, move func(string, procedure.Command)) {
	agent := "host:" + a.Host
	switch a.State {
	case procedure.Applying:
		move(agent, proceduretest.ReportApply(c.chance(80)))
	case procedure.Applied:
		move(agent, proceduretest.ReportTree(pick(c, []string{r.ResultTree, r.ResultTree, r.ResultTree, proceduretest.Tree("odd")})))
	case procedure.ApplyFailed, procedure.BackingOut, procedure.RollingBack:
		move(agent, proceduretest.ReportTree(pick(c, []string{r.BaseTree, r.BaseTree, proceduretest.Tree("odd")})))
	case procedure.Mismatch, procedure.BackOutUnproven:
		move("carla", proceduretest.BackOut())
	case procedure.Verified:
		move("carla", proceduretest.Health())
		move("repo:git", &emergencyv1.PushReplicationRequest{})
		move("repo:git", &emergencyv1.CheckReplicationRequest{})
		move("carla", proceduretest.DocumentOf(s, a.Strategy))
		if r.Cycle == nil {
			move(pick(c, assess), &emergencyv1.EnterUpdateCycleRequest{})
		} else {
			c.cycleMoves(s, r.Cycle, move)
		}
		move("clara", proceduretest.Lead(false))
		move("bea", proceduretest.BoardSummary())
		move("carla", proceduretest.Close())
		if c.chance(30) {
			move(pick(c, critical), proceduretest.RollBack("carl"))
		}
	case procedure.BackedOut, procedure.RolledBack:
		move("dora", proceduretest.Register(1+c.rng.IntN(1000)))
		move("dora", proceduretest.Replace(r.ID, 1+c.rng.IntN(1000)))
	}
}

type merging struct {
	cmd   procedure.Command
	facts procedure.Facts
}

// merge turns a made-up merge into one of two incidents that exist, with the facts that go with it.
func (c *client) merge(ctx context.Context, s *procedure.State, cmd procedure.Command) (merging, bool) {
	switch m := cmd.(type) {
	case *emergencyv1.MergeIntoRequest:
		if other := c.look(ctx, c.oldest(s.Incident)); other != nil && other.Incident != s.Incident {
			m.Target = other.Incident
			return merging{m, procedure.Facts{Other: other}}, true
		}
	case *emergencyv1.AbsorbDuplicateRequest:
		if other := c.look(ctx, c.some()); other != nil {
			m.Source, m.SourceHeadHash = other.Incident, other.HeadHash
			return merging{m, procedure.Facts{Other: other}}, true
		}
	}
	return merging{}, false
}

// oldest is the oldest open incident of the same kind, or the incident itself.
func (c *client) oldest(id string) string {
	for _, o := range c.open() {
		if o[0] == id[0] {
			return o
		}
	}
	return id
}

// ruleBook gives a command on the rule book. Nobody who acts in the incidents gains or loses anything by it.
func (c *client) ruleBook(ctx context.Context) {
	s, err := c.instance(procedure.OwnerArbitration).State(ctx, procedure.RuleBook)
	book, bookErr := c.instance(procedure.OwnerArbitration).Book(ctx)
	if err != nil || bookErr != nil {
		c.note(answer{cmd: &emergencyv1.EstablishRequest{}, err: errors.Join(err, bookErr)})
		return
	}
	key := proceduretest.KeyOf(fmt.Sprint("mia", c.rng.IntN(20)))
	revoke := key.ID
	for _, k := range book.Keys() {
		if k.Key.GetPerson() == "mia" && k.RevokedAt.IsZero() && k.Key.GetKeyId() != proceduretest.KeyOf("mia").ID {
			revoke = k.Key.GetKeyId()
		}
	}
	grant := &emergencyv1.RoleGrant{Person: "mia", Role: emergencyv1.Role_ROLE_CASE_MANAGER, BoardDecision: "m20261124.9", EffectiveAt: timestamppb.New(c.r.Clock.Now())}
	from := timestamppb.New(proceduretest.Founded())
	type try struct {
		who string
		cmd procedure.Command
	}
	t := pick(c, []try{
		{"clara", &emergencyv1.SetRotaRequest{Team: emergencyv1.Team_TEAM_CRITICAL, Shifts: []*emergencyv1.Shift{{Team: emergencyv1.Team_TEAM_CRITICAL, Person: "carla", From: from, Rank: 1}, {Team: emergencyv1.Team_TEAM_CRITICAL, Person: "carl", From: from, Rank: 2}}}},
		{"theo", &emergencyv1.SetRotaRequest{Team: emergencyv1.Team_TEAM_TESTING}},
		{"theo", &emergencyv1.SetContactsRequest{Person: "theo", Contacts: []*emergencyv1.Contact{{Channel: "mail", Address: "theo@example.org"}, {Channel: "irc", Address: "theo"}}}},
		{"mailer", &emergencyv1.RecordReachabilityRequest{Person: "anna", Channel: "mail", Reached: c.chance(50)}},
		{"bea", &emergencyv1.AddKeyRequest{Key: &emergencyv1.Key{KeyId: key.ID, PublicKey: key.Public, Person: "mia"}}},
		{"bea", &emergencyv1.RevokeKeyRequest{KeyId: revoke, Reason: "lost it again"}},
		{"bea", &emergencyv1.GrantRoleRequest{Grant: grant}},
		{"bea", &emergencyv1.RevokeRoleRequest{Person: "mia", Role: emergencyv1.Role_ROLE_CASE_MANAGER, BoardDecision: "m20261124.9", EffectiveAt: grant.GetEffectiveAt()}},
		{"service", proceduretest.Establish()},
		{"bea", c.nextPolicy(s, book)},
	})
	cmd := c.r.Prepare(s, book, t.who, t.cmd)
	c.give(ctx, procedure.CommandOwner(cmd), cmd, dispatch.Input{Actor: proceduretest.Actor(t.who)}, s)
}

// nextPolicy is a further version of the same policy.
func (c *client) nextPolicy(s *procedure.State, book *rulebook.Book) *emergencyv1.PublishPolicyRequest {
	w := proceduretest.NewIncident(c.r.TB, procedure.RuleBook)
	w.State, w.Book, w.Now = s, book, c.r.Clock.Now()
	last := book.LatestPolicy()
	doc := last.Document()
	doc.Number, doc.PreviousDigest, doc.BoardDecision, doc.EffectiveAt = last.Number+1, last.Digest, "m20261115.2", timestamppb.New(w.Now)
	cmd := &emergencyv1.PublishPolicyRequest{Policy: proceduretest.PolicyBytes(doc), Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook, RequestId: c.r.RequestID()}}
	cmd.Second = w.SecondSignature("bruno", cmd)
	return cmd
}
