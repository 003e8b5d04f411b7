// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/timer"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// recorder keeps each state of an incident as the running system said it, live, when it was the present one.
type recorder struct {
	cancel context.CancelFunc
	ended  chan error

	mu      sync.Mutex
	live    map[uint64]*dashboardv1.Incident
	last    uint64
	changed chan struct{}
}

func record(t *testing.T, env *testenv.Env, incident string) *recorder {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &recorder{cancel: cancel, ended: make(chan error, 1), live: map[uint64]*dashboardv1.Incident{}, changed: make(chan struct{})}
	watcher := env.As("casper")
	go func() {
		r.ended <- watcher.Watch(ctx, incident, func(m *dashboardv1.WatchIncidentResponse) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if position := m.GetIncident().GetPosition(); r.live[position] == nil {
				r.live[position], r.last = m.GetIncident(), position
				close(r.changed)
				r.changed = make(chan struct{})
			}
			return nil
		})
	}()
	return r
}

// reach waits until the recorder has seen a position.
func (r *recorder) reach(t *testing.T, position uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	for {
		r.mu.Lock()
		last, changed := r.last, r.changed
		r.mu.Unlock()
		if last >= position {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("position %d was never watched, the last is %d", position, last)
		}
	}
}

func (r *recorder) stop(t *testing.T) map[uint64]*dashboardv1.Incident {
	t.Helper()
	r.cancel()
	if err := <-r.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("watching ended: %v", err)
	}
	return r.live
}

// settled waits until nothing more follows by itself: every effect has reported, and every obligation is visible.
func settled(t *testing.T, env *testenv.Env, s *testenv.Story) uint64 {
	t.Helper()
	position := uint64(0)
	env.Await(s.ID, "rest", func(in *dashboardv1.Incident) bool {
		st := s.State()
		position = st.Position
		return testenv.Paged(in) && !procedure.NeedsSync(st) && st.Position == in.GetPosition()
	})
	return position
}

// dump is a projection of the running node, or the same rebuilt from nothing.
func dump(t *testing.T, env *testenv.Env, name string, rebuild bool) []byte {
	t.Helper()
	stream, err := env.As("clara").Query().DumpProjection(t.Context(), &dashboardv1.DumpProjectionRequest{Name: name, Rebuild: rebuild})
	must(t, err)
	var b bytes.Buffer
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return b.Bytes()
		}
		must(t, err)
		b.Write(m.GetChunk())
	}
}

// world is everything outside the histories that an effect could change.
func world(t *testing.T, env *testenv.Env) string {
	t.Helper()
	var b strings.Builder
	for _, c := range []*testenv.Channel{env.Mail, env.SMS} {
		fmt.Fprintf(&b, "%s: %d messages\n", c.Name(), len(c.Sent()))
	}
	b.WriteString(env.Repo.Git(env.Repo.Bare, "for-each-ref") + "\n")
	for _, h := range hosts() {
		fmt.Fprintf(&b, "%s: %s\n", h, env.Repo.TreeOf(env.Root(h)))
	}
	fmt.Fprintf(&b, "%d records\n", len(messages(t, env.Node().Store())))
	return b.String()
}

// replaying is a story whose every state is kept as it was live, to be compared with what a replay makes of the history.
type replaying struct {
	env   *testenv.Env
	s     *testenv.Story
	clock *timer.Manual
	watch *recorder
	dumps map[uint64][]byte
}

func replay(t *testing.T, env *testenv.Env, s *testenv.Story, clock *timer.Manual) *replaying {
	t.Helper()
	return &replaying{env, s, clock, record(t, env, s.ID), map[uint64][]byte{}}
}

// rest keeps the whole state. Time moves only when nothing else does, so that live and replayed states are judged at one time.
func (r *replaying) rest(t *testing.T) {
	t.Helper()
	r.keep(t)
	r.clock.Advance(time.Minute)
}

// keep keeps the whole state, and the time.
func (r *replaying) keep(t *testing.T) {
	t.Helper()
	var now []byte
	position := still(t, r.env, r.s, func() { now = dump(t, r.env, "incidents", false) })
	r.watch.reach(t, position)
	r.dumps[position] = now
}

// still looks at something at rest, again if the history went on meanwhile: what an effect will report, no state says before.
func still(t *testing.T, env *testenv.Env, s *testenv.Story, look func()) (position uint64) {
	t.Helper()
	for {
		position = settled(t, env, s)
		if look(); s.State().Position == position {
			return position
		}
	}
}

func (r *replaying) until(t *testing.T, steps ...testenv.Step) {
	t.Helper()
	for _, step := range steps {
		r.s.Until(step)
		r.rest(t)
	}
}

// same replays everything: at every position the folded state is the one that the running system had there, live; rebuilt
// projections are the same byte for byte; and all the replaying does nothing outside.
func (r *replaying) same(t *testing.T) {
	t.Helper()
	env, s := r.env, r.s
	live, last := r.watch.stop(t), settled(t, env, s)
	before := world(t, env)
	first := at(t, env, s, last)
	sameStates(t, live, first, last)
	sameDumps(t, env, s.ID, r.dumps)
	for position := range r.dumps {
		if live[position] == nil {
			t.Errorf("the state at %d, where everything was at rest, was not seen live", position)
		}
	}
	var running, rebuilt []byte
	still(t, env, s, func() { running, rebuilt = dump(t, env, "", false), dump(t, env, "", true) })
	if !bytes.Equal(running, rebuilt) {
		t.Error("rebuilt projections differ from the running ones")
	}
	env.Restart() // which folds everything again
	if again := dump(t, env, "", false); !bytes.Equal(running, again) {
		t.Error("after a restart the projections are others")
	}
	for position, in := range at(t, env, s, last) {
		if !proto.Equal(in, first[position]) {
			t.Errorf("position %d is folded otherwise after a restart", position)
		}
	}
	if after := world(t, env); after != before {
		t.Errorf("replaying changed the world from\n%s\nto\n%s", before, after)
	}
	t.Logf("%d positions folded, %d states compared with what was live there, %d full dumps", last, len(live), len(r.dumps))
}

// TestReplay: a whole history of strategy 1, with a veto, a replaced revision and a waiver in it (issue 3, section 8.8).
func TestReplay(t *testing.T) {
	t.Parallel()
	clock := manual()
	env := testenv.Start(t, testenv.Options{Clock: clock})
	s := env.Play(testenv.Declared)
	r := replay(t, env, s, clock)
	r.until(t, testenv.Called, testenv.Answered, testenv.Registered, testenv.Reviewed, testenv.OnTestServer)
	s.Do("tina", s.Test(testenv.Pass))
	s.Do("albert", raise(s))
	r.rest(t)
	s.Do("albert", &emergencyv1.WithdrawVetoRequest{Veto: "V1", Reason: "a misunderstanding"})
	s.Refused("carla", s.DryRun(), procedure.ReasonNotForwarded)
	r.rest(t)
	s.Patch = env.Repo.Diff(map[string]string{testenv.Program: testenv.Repaired, "README": "A mended system.\n"})
	next := s.Patch.Register()
	next.Supersedes = "P1r1"
	s.Do("dora", next)
	s.Skip(testenv.Registered)
	r.rest(t)
	r.until(t, testenv.Reviewed, testenv.OnTestServer)
	s.Do("theo", s.Test(testenv.Pass))
	s.Do("albert", &emergencyv1.WaiveControlRequest{Control: emergencyv1.Control_CONTROL_TEST_QUORUM, Binding: s.Binding(), Reason: "tina has left and nobody else is on duty"})
	s.Skip(testenv.Tested)
	r.rest(t)
	r.until(t, testenv.Approved, testenv.Forwarded, testenv.Observed, testenv.DryRun, testenv.Started, testenv.Verified, testenv.Healthy, testenv.Replicated)
	s.Do("anna", &emergencyv1.EnterUpdateCycleRequest{Binding: s.Binding()})
	missing := s.Test(testenv.Pass)
	missing.Phase = emergencyv1.Phase_PHASE_AFTER
	s.Do("tina", missing)
	r.rest(t)
	r.until(t, testenv.Documented, testenv.Decided, testenv.Reported, testenv.Closed)
	r.same(t)
}

// arbitrated sees what was done without the regular controls through to a ruling whose direction is carried out.
func (r *replaying) arbitrated(t *testing.T, concern emergencyv1.DisputeConcern) {
	t.Helper()
	c := &court{r.s, t, r.env}
	c.Do("carla", &emergencyv1.FileDisputeRequest{
		Concern: concern, Claimants: []string{"carla"}, Respondents: []string{"the critical team"}, Complaint: "emergency issue handling", Relief: "a review of what was done",
	})
	r.rest(t)
	c.appoint(1, "a20261125.7", "arno")
	r.rest(t)
	c.Do("arno", c.preliminaries(1))
	c.Do("arno", c.ruling(1, &emergencyv1.Order{Person: "carla", Text: "write down how a second admin is reached at night"}))
	r.rest(t)
	c.Do("casper", &emergencyv1.PublishRulingRequest{Ruling: "R1", Text: "handled as the procedure asks; one direction"})
	c.Do("carla", &emergencyv1.ReportDirectionDoneRequest{Direction: "D1", Proof: "wiki page NightCalls, version 3"})
	r.rest(t)
	c.Do("arno", &emergencyv1.ConfirmDirectionRequest{Direction: "D1"})
	r.rest(t)
}

// documented is the story's documentation, of another strategy.
func documented(s *testenv.Story, strategy uint32) *emergencyv1.DocumentRequest {
	d := s.Document()
	d.Strategy, d.Text = strategy, fmt.Sprintf("A hole was mended by strategy %d.", strategy)
	return d
}

// TestReplayStrategy2: a whole history of strategy 2, from a proven ground to the ruling and the end (issue 4, acceptance 7).
func TestReplayStrategy2(t *testing.T) {
	t.Parallel()
	clock := manual()
	env := testenv.Start(t, testenv.Options{Clock: clock})
	s := env.Play(testenv.Declared)
	r := replay(t, env, s, clock)
	r.until(t, testenv.Called)
	accept(s, "carla", "anna")
	r.rest(t)
	s.Do("carla", &emergencyv1.EscalateRequest{
		Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT, Code: emergencyv1.UnfitCode_UNFIT_CODE_EXPLOIT_ACTIVE,
		Reason: "strangers read the configuration right now; a day of reviews gives them a day",
	})
	r.rest(t)
	s.Do("anna", s.Patch.Register())
	r.rest(t)
	s.Do("anna", handOver(s, "ran the attack against my own copy, before and after"))
	r.rest(t)
	s.Do("carla", s.DryRun())
	s.Do("carla", unobserved(s))
	env.Await(s.ID, "the deployment's verification", deployment("VERIFIED"))
	r.rest(t)
	s.Do("carla", s.Health())
	s.Do("carl", s.Observe(emergencyv1.ObserverKind_OBSERVER_KIND_AFTER))
	env.Await(s.ID, "equality of host and branch", replicated)
	s.Do("carla", documented(s, 2))
	r.rest(t)
	regularCycle(t, env, s, "anna", "bert")
	r.rest(t)
	r.arbitrated(t, emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2)
	s.Skip(testenv.Documented)
	r.until(t, testenv.Decided, testenv.Reported, testenv.Closed)
	r.same(t)
}

// TestReplayStrategy3: a whole history of strategy 3, with a session of a stock ssh client on a stock sshd, frozen and resumed, and
// what it changed as the patch (issue 4, acceptance 7).
func TestReplayStrategy3(t *testing.T) {
	t.Parallel()
	clock := manual()
	env := testenv.Start(t, testenv.Options{Clock: clock, Console: true})
	s := env.Play(testenv.Declared)
	r := replay(t, env, s, clock)
	r.until(t, testenv.Called)
	s.Do("carla", half())
	r.rest(t)
	s.Do("anna", half())
	r.rest(t)
	s.Do("clara", permit("bert"))
	s.Do("carla", grantTo("bert"))
	r.rest(t)
	c := openSession(t, env, s, clock, env.API())
	r.keep(t)
	s.Do("carla", &emergencyv1.FreezeRequest{Grant: "G1", Cause: emergencyv1.SessionCause_SESSION_CAUSE_WATCHER})
	r.keep(t)
	c.resumed()
	s.Do("carla", &emergencyv1.MarkSessionRequest{Grant: "G1", Kind: emergencyv1.MarkKind_MARK_KIND_NOTE, Text: "he mends the program now"})
	r.keep(t)
	must(t, os.WriteFile(c.at("repaired"), []byte(testenv.Repaired), 0o600))
	c.do("cat " + c.at("repaired") + " > " + env.Root(demobook.Host) + "/" + testenv.Program)
	c.subject.Type("exit\r")
	g := c.await("the end, and what the agent found", func(g *procedure.Grant) bool {
		return g.Terminated.Position > 0 && len(g.Checkpoints) > 0 && g.Diff.Position > 0 && len(g.LeftoversReported) > 0
	})
	r.rest(t)
	holds(t, env, demobook.Host, s.Patch.ResultTree)
	s.Do("carla", &emergencyv1.DisableRequest{Grant: "G1"})
	s.Do("carla", &emergencyv1.ProveUnusableRequest{Grant: "G1"})
	if len(g.Leftovers) > 0 {
		s.Do("carla", &emergencyv1.ExplainLeftoversRequest{Grant: "G1", Explanation: "looked at one by one: nothing of the session's own stays"})
	}
	r.rest(t)
	s.Do("carla", &emergencyv1.SealSessionRequest{Grant: "G1"})
	if out, err := env.Epatch(env.API(), "carla", "--incident", s.ID, "replay-console", "G1", "--speed", "0").CombinedOutput(); err != nil {
		t.Errorf("replay-console: %v: %s", err, out)
	}
	r.rest(t)
	s.Do("bert", &emergencyv1.RegisterPatchRequest{
		Origin: emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION, Sha256: g.Diff.Patch.GetSha256(), BaseCommit: g.Diff.BaseCommit,
		BaseTree: g.BeforeTree, ResultTree: g.Diff.AfterTree, Author: "bert", BugId: "1042",
	})
	env.Await(s.ID, "equality of host and branch", replicated)
	s.Do("carla", documented(s, 3))
	r.rest(t)
	regularCycle(t, env, s, "bert", "anna")
	r.rest(t)
	r.arbitrated(t, emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_3)
	s.Skip(testenv.Documented)
	r.until(t, testenv.Decided, testenv.Reported, testenv.Closed)
	r.same(t)
}

// at is the incident as the query service folds it at every position.
func at(t *testing.T, env *testenv.Env, s *testenv.Story, last uint64) map[uint64]*dashboardv1.Incident {
	t.Helper()
	all := map[uint64]*dashboardv1.Incident{}
	for n := uint64(1); n <= last; n++ {
		res, err := env.As("clara").Query().ReadIncident(t.Context(), &dashboardv1.ReadIncidentRequest{Incident: s.ID, At: n})
		must(t, err)
		all[n] = res.GetIncident()
	}
	return all
}

// sameStates compares live and folded states. A command is atomic, so at a position in the middle of a record there never
// was another state than the one after it.
func sameStates(t *testing.T, live, folded map[uint64]*dashboardv1.Incident, last uint64) {
	t.Helper()
	ends := map[uint64]bool{}
	for n := uint64(1); n <= last; n++ {
		end := folded[n].GetPosition()
		if ends[end] = true; end < n {
			t.Errorf("asked for position %d, got %d", n, end)
		}
		if was := live[end]; was != nil && !proto.Equal(was, folded[n]) {
			t.Errorf("position %d: live it was\n%s\nfolded it is\n%s", n, prototext.Format(was), prototext.Format(folded[n]))
		}
	}
	for _, position := range slices.Sorted(maps.Keys(live)) {
		if !ends[position] {
			t.Errorf("live there was a state at %d, which is the end of no record", position)
		}
	}
}

// sameDumps folds the stored records from nothing and holds the whole state, field by field, against what the running system
// said of itself at the same position.
func sameDumps(t *testing.T, env *testenv.Env, incident string, dumps map[uint64][]byte) {
	t.Helper()
	keys, err := history.LoadKeyring(env.Data("services.keys.json"))
	must(t, err)
	fold, chains, compared := projection.NewIncidents(), map[string]*history.Chain{}, 0
	for _, m := range messages(t, env.Node().Store()) {
		if chains[m.Incident] == nil {
			chains[m.Incident] = history.NewChain(m.Incident, keys)
		}
		entry, err := chains[m.Incident].Accept(m.Data)
		must(t, err)
		rec, err := projection.Decode(entry)
		must(t, err)
		must(t, fold.Apply([]*projection.Record{rec}))
		want, ok := dumps[chains[m.Incident].Head().Position]
		if m.Incident != incident || !ok {
			continue
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "projection %s version %d\n", fold.Name(), fold.Version())
		must(t, fold.Dump(&b))
		if compared++; !bytes.Equal(b.Bytes(), want) {
			t.Errorf("at position %d the fold is another state than the running system had", chains[m.Incident].Head().Position)
		}
	}
	if compared != len(dumps) {
		t.Errorf("%d of %d dumps compared", compared, len(dumps))
	}
}
