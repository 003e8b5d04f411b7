// SPDX-License-Identifier: Apache-2.0

package arbitration_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	artefacts "cacert.org/emergency/pkg/artefacts/memory"
	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	"cacert.org/emergency/pkg/effect"
	ledger "cacert.org/emergency/pkg/effect/memory"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/history/memory"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/pkg/timer"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/arbitration"
)

const incident = proceduretest.DefaultIncident

// instance is one process with the service.
type instance struct {
	*dispatchtest.Rig
	t         *testing.T
	server    *arbitration.Server
	cfg       arbitration.Config
	peers     map[string]grpc.ClientConnInterface
	ledger    effect.Ledger
	incidents *projection.Incidents
	reader    *projection.Runner
	stop      func()
}

func build(t *testing.T, r *dispatchtest.Rig, clock timer.Clock, change ...func(*instance)) *instance {
	t.Helper()
	x := &instance{Rig: r, t: t, incidents: projection.NewIncidents(), ledger: ledger.New()}
	for _, c := range change {
		c(x)
	}
	var err error
	x.reader, err = projection.New(projection.Config{Store: r.Store, Keys: r.Keys.Ring, Log: r.Log, Projections: []projection.Projection{x.incidents}})
	if err != nil {
		t.Fatal(err)
	}
	x.server, err = arbitration.New(service.Deps{
		Owner: procedure.OwnerArbitration, Instance: "test", Clock: clock, Log: r.Log, Store: r.Store, Keys: r.Keys.Ring, Signer: r.Keys.Signer(t, procedure.OwnerArbitration),
		Artefacts: artefacts.New(1 << 20), Vault: r.Vaults[procedure.OwnerArbitration], Ledger: x.ledger, Incidents: x.incidents, Reader: x.reader, Peers: x.peers,
	}, x.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.reader.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	return x
}

func start(t *testing.T, r *dispatchtest.Rig) *instance {
	t.Helper()
	return startOn(t, r, r.Clock)
}

func startOn(t *testing.T, r *dispatchtest.Rig, clock timer.Clock, change ...func(*instance)) *instance {
	t.Helper()
	x := build(t, r, clock, change...)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, run := range []func(context.Context) error{x.reader.Run, x.server.Run} {
		group.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	x.stop = sync.OnceFunc(func() { cancel(); group.Wait() })
	t.Cleanup(x.stop)
	return x
}

// settle waits until everything owed is visible, and nothing is due.
func (x *instance) settle() {
	x.t.Helper()
	for {
		changed, open, book := x.reader.Changed(), false, x.incidents.Book()
		x.incidents.Each(func(s *procedure.State) {
			at, due := procedure.NextDue(s, procedure.Env{Owner: procedure.OwnerArbitration, Now: x.Clock.Now(), Book: book})
			open = open || procedure.NeedsSync(s) || due && at.Before(x.Clock.Now())
		})
		if !open {
			return
		}
		select {
		case <-changed:
		case <-x.t.Context().Done():
			x.t.Fatal("obligations stay invisible")
		}
	}
}

// visible are the obligations as events made them visible.
func (x *instance) visible() (open, discharged []string) {
	for _, o := range x.State(incident).Obligations {
		if o.Open() {
			open = append(open, o.ID)
		} else {
			discharged = append(discharged, o.ID)
		}
	}
	return open, discharged
}

// What is owed becomes visible by itself when others act, once however many instances look, after a restart too; and what
// was done discharges it.
func TestObligationsBecomeVisible(t *testing.T) {
	t.Parallel()
	dispatchtest.OnBoth(t, func(t *testing.T, r *dispatchtest.Rig) {
		r.SeedStory(proceduretest.Observed)
		a, b := start(t, r), start(t, r)
		a.settle()
		open, _ := a.visible()
		if !slices.Equal(open, []string{"BOARD_SUMMARY/1", "LEAD_DECISION/1"}) {
			t.Errorf("at first open: %v", open)
		}
		deployment := r.Dispatcher(procedure.OwnerDeployment)
		do := func(who string, c procedure.Command) {
			t.Helper()
			if _, err := r.Do(deployment, incident, who, c); err != nil {
				t.Fatal(err)
			}
		}
		do("carla", &emergencyv1.StartApplyRequest{})
		do("host:www1", proceduretest.ReportApply(true))
		a.until("DOCUMENT/S1")
		b.stop()
		do("host:www1", proceduretest.ReportTree(r.State(incident).Current().ResultTree))
		a.stop()
		do("carla", proceduretest.Health()) // while nobody looks
		a, b = start(t, r), start(t, r)
		a.settle()
		b.settle()
		_, discharged := a.visible()
		if len(discharged) != 1 || discharged[0][:7] != "HEALTH/" {
			t.Errorf("discharged: %v", discharged)
		}
		a.once()
		r.Check()
	})
}

// until waits until an obligation of a kind is visible.
func (x *instance) until(kind string) {
	x.t.Helper()
	for {
		changed, found := x.reader.Changed(), false
		x.incidents.View(incident, func(s *procedure.State) {
			found = slices.ContainsFunc(s.Obligations, func(o procedure.Obligation) bool { return o.Kind == kind })
		})
		if found {
			return
		}
		select {
		case <-changed:
		case <-x.t.Context().Done():
			x.t.Fatalf("%s stays invisible", kind)
		}
	}
}

// once wants each obligation opened, discharged and overdue at most once.
func (x *instance) once() {
	x.t.Helper()
	seen := map[string]int{}
	for _, e := range x.Entries(incident) {
		for _, ev := range e.Record.GetEvents() {
			p, err := procedure.DecodeEvent(ev)
			if err != nil {
				x.t.Fatal(err)
			}
			switch o := p.(type) {
			case *emergencyv1.ObligationOpened:
				seen["opened "+o.GetId()]++
			case *emergencyv1.ObligationDischarged:
				seen["discharged "+o.GetId()]++
			case *emergencyv1.ObligationOverdue:
				seen["overdue "+o.GetId()]++
			}
		}
	}
	for what, n := range seen {
		if n != 1 {
			x.t.Errorf("%s %d times", what, n)
		}
	}
}

// Over weeks nobody does anything: each obligation is overdue once, and the clock in the test's hand loses nothing.
func TestWeeksOfSilence(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Verified)
	x := start(t, r)
	for range 40 {
		x.settle()
		r.Clock.Advance(24 * time.Hour)
	}
	x.settle()
	open, _ := x.visible()
	now := r.Clock.Now()
	for _, o := range procedure.Debts(r.State(incident)) {
		if o.Open() != slices.Contains(open, o.ID) {
			t.Errorf("%s is owed: %t, visible: %v", o.ID, o.Open(), open)
		}
		if !o.Overdue(now) {
			t.Errorf("%s is not overdue after 40 days", o.ID)
		}
	}
	x.once()
}

// The store takes nothing for a while: obligations are made visible as soon as it does, by the clock alone.
func TestObligationsSurviveTheStore(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	faulty := &historytest.Faulty{Store: r.Store}
	r.Store = faulty
	faulty.Fail(historytest.NotStored)
	clock := &watched{Manual: r.Clock, alarms: make(chan time.Time, 100)}
	x := startOn(t, r, clock)
	for at := range clock.alarms {
		if !at.After(r.Clock.Now().Add(2 * time.Second)) { // it means to try again soon
			r.Clock.Set(at)
			break
		}
	}
	x.settle()
	if open, _ := x.visible(); len(open) != 2 {
		t.Errorf("visible: %v", open)
	}
}

// watched tells which alarms are set.
type watched struct {
	*timer.Manual
	alarms chan time.Time
}

func (w *watched) Alarm(t time.Time) (<-chan struct{}, func()) {
	rung, stop := w.Manual.Alarm(t)
	w.alarms <- t
	return rung, stop
}

// The rule book by its handlers: who gives the command is the connection's key, and what the rules refuse is returned as it
// is.
func TestRuleBook(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	x := build(t, r, r.Clock)
	as := func(who string) context.Context {
		return identity.WithCaller(t.Context(), identity.Caller{KeyID: proceduretest.KeyOf(who).ID})
	}
	meta := func() *emergencyv1.CommandMeta {
		return &emergencyv1.CommandMeta{Incident: procedure.RuleBook, RequestId: x.RequestID()}
	}
	role := emergencyv1.Role_ROLE_CASE_MANAGER
	grant := &emergencyv1.RoleGrant{Person: "mia", Role: role, BoardDecision: "m20261124.9", EffectiveAt: timestamppb.New(x.Clock.Now())}
	if _, err := x.server.GrantRole(as("bea"), &emergencyv1.GrantRoleRequest{Meta: meta(), Grant: grant}); err != nil || !x.Book().Has("mia", role, x.Clock.Now()) {
		t.Errorf("granted: %v", err)
	}
	_, err := x.server.GrantRole(as("mia"), &emergencyv1.GrantRoleRequest{Meta: meta(), Grant: grant})
	refused(t, err, procedure.ReasonRole)
	_, err = x.server.GrantRole(t.Context(), &emergencyv1.GrantRoleRequest{Meta: meta(), Grant: grant})
	refused(t, err, procedure.ReasonNoIdentity)
	if _, err := x.server.RevokeRole(as("bea"), &emergencyv1.RevokeRoleRequest{Meta: meta(), Person: "mia", Role: role, BoardDecision: "m20261125.1", EffectiveAt: timestamppb.New(x.Clock.Now())}); err != nil {
		t.Error(err)
	}
	key := proceduretest.KeyOf("mia's new one")
	if _, err := x.server.AddKey(as("mia"), &emergencyv1.AddKeyRequest{Meta: meta(), Key: &emergencyv1.Key{KeyId: key.ID, PublicKey: key.Public, Person: "mia"}}); err != nil {
		t.Error(err)
	}
	_, err = x.server.RevokeKey(as("theo"), &emergencyv1.RevokeKeyRequest{Meta: meta(), KeyId: key.ID, Reason: "not mine"})
	refused(t, err, procedure.ReasonRole)
	if _, err := x.server.RevokeKey(as("mia"), &emergencyv1.RevokeKeyRequest{Meta: meta(), KeyId: key.ID, Reason: "lost on a train"}); err != nil {
		t.Error(err)
	}
	found := proceduretest.Establish()
	found.Meta = meta()
	_, err = x.server.Establish(t.Context(), found)
	refused(t, err, procedure.ReasonRuleBookExists)
}

// An empty log is founded once.
func TestEstablish(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.Store = &memory.Store{}
	r.Clock.Set(proceduretest.Founded())
	x := build(t, r, r.Clock)
	found := proceduretest.Establish()
	found.Meta = &emergencyv1.CommandMeta{Incident: procedure.RuleBook, RequestId: x.RequestID()}
	first, err := x.server.Establish(t.Context(), found)
	if err != nil {
		t.Fatal(err)
	}
	again, err := x.server.Establish(t.Context(), found)
	if err != nil || !again.GetRepeated() || again.GetRecordHash() != first.GetRecordHash() {
		t.Errorf("%v, %v", again, err)
	}
	if !x.Book().Has("carla", emergencyv1.Role_ROLE_CRITICAL_ADMIN, x.Clock.Now()) {
		t.Error("nobody has a role")
	}
}

func refused(t *testing.T, err error, want procedure.Reason) {
	t.Helper()
	var r *procedure.Refusal
	if !errors.As(err, &r) || r.Reason != want {
		t.Errorf("want %s, got %v", want, err)
	}
}

// What follows from one incident panics: what follows from the others is done (hardening 2, poison event).
func TestPanicStopsOneIncidentAlone(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Observed)
	other := proceduretest.NewIncident(t, "e20261124.9")
	proceduretest.Story(proceduretest.Observed)(other)
	r.Seed(other)
	r.Store = dispatchtest.Panicking{Store: r.Store, Incident: incident}
	x := start(t, r)
	for {
		changed, visible := x.reader.Changed(), false
		x.incidents.View(other.State.Incident, func(s *procedure.State) { visible = !procedure.NeedsSync(s) })
		if visible {
			break
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatal("what the other incident owes stays invisible")
		}
	}
	if open, _ := x.visible(); len(open) > 0 {
		t.Errorf("recorded in the incident that panics: %v", open)
	}
}
