// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/vault"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func TestAcceptedRepeatedRefused(t *testing.T) {
	t.Parallel()
	dispatchtest.OnBoth(t, func(t *testing.T, r *dispatchtest.Rig) {
		r.SeedStory(proceduretest.Declared)
		d := r.Dispatcher(procedure.OwnerIncident)
		s := r.State(incident)
		c := r.Prepare(s, nil, "carla", note("first"))
		got, err := d.Do(t.Context(), c, r.Input(s, "carla", c))
		if err != nil || got.GetRepeated() || got.GetFirstPosition() != 2 || got.GetLastPosition() != 2 || !slices.Equal(got.GetEventTypes(), []string{"incident.LogAnnotated"}) {
			t.Fatalf("%v, %v", got, err)
		}
		if last := r.Entries(incident)[1]; last.Hash != got.GetRecordHash() || last.Record.GetRequestId() != c.GetMeta().GetRequestId() {
			t.Errorf("recorded %v, answered %v", last.Record, got)
		}
		for name, other := range map[string]*dispatch.Dispatcher{"same instance": d, "another one, from nothing": r.Dispatcher(procedure.OwnerIncident)} {
			again, err := other.Do(t.Context(), c, r.Input(s, "carla", c))
			if err != nil || !again.GetRepeated() {
				t.Fatalf("%s: %v, %v", name, again, err)
			}
			again.Repeated = false
			if !proto.Equal(again, got) {
				t.Errorf("%s: repeated as %v, the first answer was %v", name, again, got)
			}
		}
		changed := proto.CloneOf(c.(*emergencyv1.AnnotateLogRequest))
		changed.Text = "other"
		_, err = d.Do(t.Context(), changed, r.Input(s, "carla", c))
		refused(t, err, procedure.ReasonRequestIDReused)
		_, err = r.Do(d, incident, "dora", note("mine"))
		refused(t, err, procedure.ReasonRole)
		if got, want := types(r, incident), []string{"EmergencyDeclared", "LogAnnotated", "CommandRefused"}; !slices.Equal(got, want) {
			t.Errorf("recorded %v, want %v: what is refused for ROLE is evidence, what is refused for its form is not", got, want)
		}
		r.Check()
	})
}

// The cache of an instance that wrote nothing is behind; what it remembers must not refuse anybody, and must not say that
// there is nothing to do.
func TestStaleCacheRefusesNobody(t *testing.T) {
	t.Parallel()
	dispatchtest.OnBoth(t, func(t *testing.T, r *dispatchtest.Rig) {
		w := r.SeedStory(proceduretest.Forwarded)
		review, deploy, arbitration := r.Dispatcher(procedure.OwnerReview), r.Dispatcher(procedure.OwnerDeployment), r.Dispatcher(procedure.OwnerArbitration)
		for _, d := range []*dispatch.Dispatcher{review, deploy, arbitration} {
			if s, err := d.State(t.Context(), incident); err != nil || s.Position != w.State.Position {
				t.Fatal(s, err)
			}
		}
		sync := func(id string) *emergencyv1.Committed {
			t.Helper()
			c := &emergencyv1.SyncObligationsRequest{Meta: &emergencyv1.CommandMeta{Incident: incident, RequestId: id}}
			got, err := arbitration.Do(t.Context(), c, dispatch.Input{Actor: proceduretest.Actor("reactor")})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		sync("sync-0001")
		for _, x := range []struct {
			who string
			cmd procedure.Command
		}{{"carla", &emergencyv1.DryRunRequest{}}, {"carl", proceduretest.Observe()}, {"carla", &emergencyv1.StartApplyRequest{}}} {
			if _, err := r.Do(deploy, incident, x.who, x.cmd); err != nil {
				t.Fatal(err)
			}
		}
		// On what arbitration remembers nothing new is owed; on the true head the documentation is.
		if got := sync("sync-0002"); !slices.Contains(got.GetEventTypes(), "arbitration.ObligationOpened") {
			t.Errorf("nothing was made visible: %v", got)
		}
		// On what review remembers nothing was applied.
		got, err := r.Do(review, incident, "beate", proceduretest.Veto())
		if err != nil {
			t.Fatal(err)
		}
		if v := r.State(incident).Vetoes; len(v) != 1 || !v[0].AfterApply || v[0].Position != got.GetLastPosition() {
			t.Errorf("the veto was judged on an old head: %+v", v)
		}
		r.Check()
	})
}

// A role that was granted a moment ago counts, whatever a cached rule book says.
func TestRefusalOnNewestBook(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	d, arbitration := r.Dispatcher(procedure.OwnerIncident), r.Dispatcher(procedure.OwnerArbitration)
	_, err := r.Do(d, incident, "mia", note("before"))
	refused(t, err, procedure.ReasonRole)
	grant := &emergencyv1.GrantRoleRequest{Grant: &emergencyv1.RoleGrant{Person: "mia", Role: emergencyv1.Role_ROLE_CASE_MANAGER, BoardDecision: "m20261124.9", EffectiveAt: timestamppb.New(r.Clock.Now())}}
	if _, err := r.Do(arbitration, procedure.RuleBook, "bea", grant); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Do(d, incident, "mia", note("after")); err != nil {
		t.Errorf("refused on an old rule book: %v", err)
	}
}

// What a process has just added to the rule book counts for its next command.
func TestOwnRuleBookIsReadAtOnce(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	d := r.Dispatcher(procedure.OwnerNotification)
	if _, err := r.Do(d, incident, "carla", &emergencyv1.CallOutRequest{Message: "come"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Do(d, procedure.RuleBook, "clara", &emergencyv1.SetRotaRequest{Team: emergencyv1.Team_TEAM_CRITICAL}); err != nil {
		t.Fatal(err)
	}
	got, err := r.Do(d, incident, "carla", &emergencyv1.CallOutRequest{Message: "come again"})
	if err != nil || !slices.Contains(got.GetEventTypes(), "notification.CoverageGapFound") {
		t.Errorf("called by an old rota: %v, %v", got, err)
	}
}

// Two leads on two instances, of which one knows neither the other's change nor that its rule book is old: what was planned on the
// same rota is accepted once.
func TestRotaOfTwoLeadsOnTwoInstances(t *testing.T) {
	t.Parallel()
	dispatchtest.OnBoth(t, func(t *testing.T, r *dispatchtest.Rig) {
		r.SeedStory(proceduretest.Declared)
		one, two := r.Dispatcher(procedure.OwnerNotification), r.Dispatcher(procedure.OwnerNotification)
		testing := &emergencyv1.SetRotaRequest{Team: emergencyv1.Team_TEAM_TESTING}
		if _, err := r.Do(two, procedure.RuleBook, "clara", testing); err != nil { // it keeps what it has read
			t.Fatal(err)
		}
		book, err := two.Book(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		set := func(d *dispatch.Dispatcher, who string) error {
			_, err := r.Do(d, procedure.RuleBook, who, &emergencyv1.SetRotaRequest{Team: emergencyv1.Team_TEAM_CRITICAL, PlannedOn: &book.Position})
			return err
		}
		if err := set(one, "clara"); err != nil {
			t.Fatal(err)
		}
		var refusal *procedure.Refusal
		if err := set(two, "albert"); !errors.As(err, &refusal) || refusal.Reason != procedure.ReasonPositionMismatch {
			t.Errorf("set over an unseen change: %v", err)
		}
	})
}

// 16 callers on 3 instances, of one owner and of different ones: each command that was accepted is there once, each that
// was not is not, and nobody is left without an answer.
func TestConflicts(t *testing.T) {
	t.Parallel()
	for name, owners := range map[string][]string{
		"one owner":        {procedure.OwnerIncident, procedure.OwnerIncident, procedure.OwnerIncident},
		"different owners": {procedure.OwnerIncident, procedure.OwnerNotification, procedure.OwnerIncident},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dispatchtest.OnBoth(t, func(t *testing.T, r *dispatchtest.Rig) {
				r.SeedStory(proceduretest.OnStandby)
				var instances []*dispatch.Dispatcher
				for _, owner := range owners {
					instances = append(instances, r.Dispatcher(owner))
				}
				s := r.State(incident)
				var mu sync.Mutex
				var accepted, aborted []string
				var group sync.WaitGroup
				for i := range 16 {
					group.Go(func() {
						for n := range 6 {
							d := instances[(i+n)%len(instances)]
							text := fmt.Sprintf("note %d.%d", i, n)
							var c procedure.Command = note(text)
							who := "carla"
							if d.Owner() == procedure.OwnerNotification {
								c, who = &emergencyv1.CheckInRequest{Slot: "critical/1"}, "carla"
							}
							c = r.Prepare(s, nil, who, c)
							in := r.Input(s, who, c)
							got, err := d.Do(t.Context(), c, in)
							if err == nil && n%2 == 0 { // sent twice, and the second time elsewhere
								again, err := instances[(i+n)%len(instances)].Do(t.Context(), c, in)
								if err != nil || !again.GetRepeated() || again.GetFirstPosition() != got.GetFirstPosition() {
									t.Errorf("repetition: %v, %v", again, err)
								}
							}
							mu.Lock()
							id := c.GetMeta().GetRequestId()
							var refusal *procedure.Refusal
							switch {
							case err == nil:
								accepted = append(accepted, id)
							case errors.As(err, &refusal) && refusal.Reason == procedure.ReasonConcurrentModification && refusal.Code == procedure.Aborted:
								aborted = append(aborted, id)
							default:
								t.Error(err)
							}
							mu.Unlock()
						}
					})
				}
				group.Wait()
				var recorded []string
				for _, e := range r.Entries(incident) {
					if c := e.Record.GetCommand(); c == "AnnotateLog" || c == "CheckIn" && strings.HasPrefix(e.Record.GetRequestId(), "request-0000") {
						recorded = append(recorded, e.Record.GetRequestId())
					}
				}
				slices.Sort(recorded)
				recorded = slices.DeleteFunc(recorded, func(id string) bool { return !slices.Contains(accepted, id) && !slices.Contains(aborted, id) })
				if !slices.Equal(recorded, sorted(accepted)) {
					t.Errorf("accepted %v, recorded %v", sorted(accepted), recorded)
				}
				if len(accepted)+len(aborted) != 16*6 || len(accepted) == 0 {
					t.Errorf("%d accepted, %d aborted of %d", len(accepted), len(aborted), 16*6)
				}
				r.Check()
			})
		})
	}
}

// contested is a store on which somebody else is always first.
type contested struct {
	history.Store
	appends int
}

func (c *contested) Append(_ context.Context, incident string, expected uint64, _ []byte, _ map[string]string) (uint64, error) {
	c.appends++
	return 0, &history.ConflictError{Incident: incident, Expected: expected, Found: expected + 1}
}

func TestAbortedAfterBoundedTries(t *testing.T) {
	t.Parallel()
	for name, who := range map[string]string{"accepted": "carla", "refused": "dora"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := dispatchtest.Memory(t)
			r.SeedStory(proceduretest.Declared)
			store := &contested{Store: r.Store}
			cfg := r.Config(procedure.OwnerIncident)
			cfg.Store = store
			_, err := r.Do(r.Build(cfg), incident, who, note("never"))
			if refusal := refused(t, err, procedure.ReasonConcurrentModification); refusal.Code != procedure.Aborted || len(refusal.Allow) == 0 {
				t.Errorf("%+v", refusal)
			}
			if store.appends != 6 {
				t.Errorf("%d appends, want one decision and five again (0.4)", store.appends)
			}
		})
	}
}

func TestPinnedPosition(t *testing.T) {
	t.Parallel()
	dispatchtest.OnBoth(t, func(t *testing.T, r *dispatchtest.Rig) {
		r.SeedStory(proceduretest.Declared)
		d, other := r.Dispatcher(procedure.OwnerIncident), r.Dispatcher(procedure.OwnerIncident)
		pin := func(at uint64, text string) *emergencyv1.AnnotateLogRequest {
			c := note(text)
			c.Meta = &emergencyv1.CommandMeta{ExpectedPosition: &at}
			return c
		}
		if _, err := r.Do(d, incident, "carla", pin(1, "pinned")); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Do(other, incident, "carla", note("between")); err != nil {
			t.Fatal(err)
		}
		_, err := r.Do(d, incident, "carla", pin(2, "pinned to what was")) // d does not know of "between"
		if refusal := refused(t, err, procedure.ReasonPositionMismatch); refusal.Code != procedure.Aborted {
			t.Errorf("%+v", refusal)
		}
		if got := notes(r); !slices.Equal(got, []string{"pinned", "between"}) {
			t.Errorf("notes %v", got)
		}
	})
}

// Every write can fail in two ways; in both the caller learns the truth, and the same command sent again is there once.
func TestFailingStore(t *testing.T) {
	t.Parallel()
	for how, want := range map[historytest.Failure]error{
		historytest.NotStored: history.ErrUnavailable, historytest.AckLost: history.ErrUnknownOutcome, historytest.AckLostAndDown: history.ErrUnknownOutcome,
	} {
		t.Run(how.String(), func(t *testing.T) {
			t.Parallel()
			dispatchtest.OnBoth(t, func(t *testing.T, r *dispatchtest.Rig) {
				r.SeedStory(proceduretest.Declared)
				faulty := &historytest.Faulty{Store: r.Store}
				cfg := r.Config(procedure.OwnerIncident)
				cfg.Store = faulty
				d := r.Build(cfg)
				s := r.State(incident)
				c := r.Prepare(s, nil, "carla", note("once"))
				faulty.Fail(how)
				_, err := d.Do(t.Context(), c, r.Input(s, "carla", c))
				is(t, err, want)
				if how == historytest.AckLostAndDown {
					_, err := d.Do(t.Context(), c, r.Input(s, "carla", c))
					is(t, err, history.ErrUnavailable)
					_, err = d.State(t.Context(), incident)
					is(t, err, history.ErrUnavailable)
					faulty.Heal()
				}
				got, err := d.Do(t.Context(), c, r.Input(s, "carla", c))
				if err != nil || got.GetFirstPosition() != 2 {
					t.Errorf("sent again: %v, %v", got, err)
				}
				if _, err := r.Do(d, incident, "carla", note("next")); err != nil {
					t.Error(err)
				}
				if got := notes(r); !slices.Equal(got, []string{"once", "next"}) {
					t.Errorf("notes %v", got)
				}
				r.Check()
			})
		})
	}
}

// What a stranger puts between records forges nothing and blocks nothing.
func TestForeignRecords(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	subject, err := history.Subject(incident)
	if err != nil {
		t.Fatal(err)
	}
	publish := r.Store.(interface {
		Publish(subject string, data []byte) uint64
	}).Publish
	d, other := r.Dispatcher(procedure.OwnerIncident), r.Dispatcher(procedure.OwnerNotification)
	forger := historytest.NewKeys(t, "thief").NewWriter(t, r.Store, incident, procedure.OwnerIncident)
	forged := forger.Next(t, "forged")
	replayed := r.Entries(incident)[0].Signed
	for i := range 5 {
		publish(subject, forged)
		publish(subject, replayed)
		publish(subject, []byte("junk"))
		if _, err := r.Do(d, incident, "carla", note(fmt.Sprint("note ", i))); err != nil {
			t.Fatal(err)
		}
		publish(subject, forged)
		if _, err := r.Do(other, incident, "carla", &emergencyv1.CallOutRequest{Message: "come"}); err != nil {
			t.Fatal(err)
		}
	}
	if s := r.State(incident); s.Position != 11 || len(s.Notes) != 5 || len(s.Rounds) != 5 {
		t.Errorf("position %d, notes %v, %d rounds", s.Position, notes(r), len(s.Rounds))
	}
}

// watching notes how far the history was when a value came into the vault.
type watching struct {
	vault.Store
	r    *dispatchtest.Rig
	fail error
	puts map[string]uint64 // commitment -> last sequence of the incident then
}

func (w *watching) Put(ctx context.Context, commitment string, salt, value []byte) error {
	if w.fail != nil {
		return w.fail
	}
	last, err := w.r.Store.Last(ctx, incident)
	if err != nil {
		return err
	}
	w.puts[commitment] = last
	return w.Store.Put(ctx, commitment, salt, value)
}

func TestRestrictedValues(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	v := &watching{Store: r.Vaults[procedure.OwnerIncident], r: r, puts: map[string]uint64{}}
	cfg := r.Config(procedure.OwnerIncident)
	cfg.Vault = v
	d := r.Build(cfg)
	secret := note("who it was")
	secret.Restricted = true

	v.fail = errors.New("the disk is away")
	_, err := r.Do(d, incident, "carla", secret)
	is(t, err, history.ErrUnavailable)
	if len(r.Entries(incident)) != 1 {
		t.Fatal("recorded without its restricted value")
	}
	v.fail = nil
	if _, err := r.Do(r.Dispatcher(procedure.OwnerIncident), incident, "carl", note("makes the next one lose")); err != nil {
		t.Fatal(err)
	}
	got, err := r.Do(d, incident, "carla", secret)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := procedure.DecodeEvent(r.Entries(incident)[2].Record.GetEvents()[0])
	if err != nil {
		t.Fatal(err)
	}
	commitment := payload.(*emergencyv1.LogAnnotated).GetRestrictedText().GetCommitment()
	value, salt, err := v.Get(t.Context(), commitment)
	if err != nil || string(value) != "who it was" || procedure.Commit(salt, value) != commitment {
		t.Errorf("%q, %v", value, err)
	}
	entries := r.Entries(incident)
	if at := v.puts[commitment]; at >= entries[2].Sequence {
		t.Errorf("in the vault after sequence %d, the record is %d", at, entries[2].Sequence)
	}
	if len(v.puts) != 1 {
		t.Errorf("deciding again left values that no record names: %v", v.puts)
	}
	if raw := string(entries[2].Signed); strings.Contains(raw, "who it was") || got.GetLastPosition() != 3 {
		t.Errorf("the value is in the record, or %v", got)
	}
}

// In one incident time does not go back: a clock a little behind is moved and said so, one far behind records nothing.
func TestClockBehind(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	now := r.Clock.Now()
	fast, d := r.Config(procedure.OwnerIncident), r.Dispatcher(procedure.OwnerIncident)
	fast.Now = func() time.Time { return now.Add(2 * time.Minute) }
	if _, err := r.Do(r.Build(fast), incident, "carl", note("from the future")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Do(d, incident, "carla", note("exactly tolerated")); err != nil {
		t.Fatal(err)
	}
	_, err := r.Do(d, incident, "dora", note("refused, and recorded at the time of the head"))
	refused(t, err, procedure.ReasonRole)
	for _, e := range r.Entries(incident)[2:] {
		if at := e.Record.GetRecordedAt().AsTime(); !at.Equal(now.Add(2*time.Minute)) || e.Record.GetSkewMs() != 120_000 {
			t.Errorf("%s recorded at %s with a skew of %d ms", e.Record.GetCommand(), at, e.Record.GetSkewMs())
		}
	}
	fast.Now = func() time.Time { return now.Add(2*time.Minute + time.Millisecond) }
	if _, err := r.Do(r.Build(fast), incident, "carl", note("further")); err != nil {
		t.Fatal(err)
	}
	before := len(r.Entries(incident))
	_, err = r.Do(d, incident, "carla", note("too far behind"))
	refused(t, err, procedure.ReasonClockSkew)
	if len(r.Entries(incident)) != before {
		t.Error("a clock too far behind recorded something")
	}
	r.Check()
}

// Whoever waits for the command before does not wait for longer than his call lasts.
func TestWaitingEnds(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	held, free := make(chan struct{}), make(chan struct{})
	cfg := r.Config(procedure.OwnerIncident)
	cfg.Store = holding{r.Store, held, free}
	d := r.Build(cfg)
	done := make(chan error, 1)
	s := r.State(incident)
	first := r.Prepare(s, nil, "carla", note("first"))
	go func() {
		_, err := d.Do(t.Context(), first, r.Input(s, "carla", first))
		done <- err
	}()
	<-held
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := r.Prepare(s, nil, "carla", note("second"))
	_, err := d.Do(ctx, c, r.Input(s, "carla", c))
	is(t, err, history.ErrUnavailable)
	is(t, err, context.Canceled)
	close(free)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// holding keeps the first append waiting.
type holding struct {
	history.Store
	held, free chan struct{}
}

func (h holding) Append(ctx context.Context, incident string, expected uint64, signed []byte, headers map[string]string) (uint64, error) {
	close(h.held)
	<-h.free
	return h.Store.Append(ctx, incident, expected, signed, headers)
}

// A record that readers would skip is not stored in the first place.
func TestNothingUnreadableIsStored(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	cfg := r.Config(procedure.OwnerIncident)
	cfg.Signer = r.Keys.Signer(t, procedure.OwnerReview) // the wrong key was installed
	_, err := r.Do(r.Build(cfg), incident, "carla", note("lost"))
	var refusal *procedure.Refusal
	if err == nil || errors.As(err, &refusal) {
		t.Fatalf("want an error, got %v", err)
	}
	if last, err := r.Store.Last(t.Context(), incident); err != nil || last != r.Entries(incident)[0].Sequence {
		t.Errorf("stored all the same, up to %d: %v", last, err)
	}
}

// crowded is a store in which a stranger is faster, so many times.
type crowded struct {
	history.Store
	times int
}

func (c *crowded) Append(ctx context.Context, id string, expected uint64, signed []byte, headers map[string]string) (uint64, error) {
	if c.times > 0 {
		c.times--
		if _, err := c.Store.Append(ctx, id, expected, []byte("junk"), nil); err != nil {
			return 0, err
		}
	}
	return c.Store.Append(ctx, id, expected, signed, headers)
}

// TestStrangersBlockNothing: with a stolen credential somebody writes onto a history before each append of its owner, far more often than a
// command is decided again because of others. It is recorded all the same, and so is a refusal.
func TestStrangersBlockNothing(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	store := &crowded{Store: r.Store, times: 100}
	cfg := r.Config(procedure.OwnerIncident)
	cfg.Store = store
	d := r.Build(cfg)
	if _, err := r.Do(d, incident, "carla", note("in a crowd")); err != nil || store.times != 0 {
		t.Errorf("with %d to come: %v", store.times, err)
	}
	store.times = 100
	_, err := r.Do(d, incident, "theo", note("no"))
	refused(t, err, procedure.ReasonRole)
	if byPerson, _ := recordedRefusals(t, r, incident); byPerson["theo"] != 1 || store.times != 0 {
		t.Errorf("recorded %v, with %d to come", byPerson, store.times)
	}
	if notes := r.State(incident).Notes; len(notes) != 1 {
		t.Errorf("notes: %v", notes)
	}
}

// A panic in the fold of an incident is an incident that this version cannot follow; after one elsewhere it is read anew, and nobody waits
// for its lock.
func TestPanic(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	d := r.Dispatcher(procedure.OwnerIncident)
	if _, err := d.State(t.Context(), incident); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Do(r.Dispatcher(procedure.OwnerIncident), incident, "carla", note("by another instance")); err != nil {
		t.Fatal(err)
	}
	d.Break(incident)
	if _, err := d.State(t.Context(), incident); !dispatch.Poisoned(err) {
		t.Errorf("a fold that panics: %v", err)
	}
	if s, err := d.State(t.Context(), incident); err != nil || s.Position != 2 {
		t.Errorf("read anew: %v", err)
	}
	cfg := r.Config(procedure.OwnerIncident)
	cfg.Store = dispatchtest.Panicking{Store: r.Store, Incident: incident}
	d = r.Build(cfg)
	func() {
		defer func() { _ = recover() }() // its caller's to contain
		_, err := r.Do(d, incident, "carla", note("a defect"))
		t.Errorf("it did not panic: %v", err)
	}()
	if s, err := d.State(t.Context(), incident); err != nil || s.Position != 2 {
		t.Errorf("after a panic: %v", err)
	}
	if n := d.Remembered(); n != 1 {
		t.Errorf("%d incidents in memory", n)
	}
}
