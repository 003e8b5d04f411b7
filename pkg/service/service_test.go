// SPDX-License-Identifier: Apache-2.0

package service_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"testing"
	"time"

	artefacts "cacert.org/emergency/pkg/artefacts/memory"
	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	ledger "cacert.org/emergency/pkg/effect/memory"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/pkg/vault"
	restrictedv1 "cacert.org/emergency/proto/emergency/restricted/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const incident = proceduretest.DefaultIncident

func deps(t *testing.T, r *dispatchtest.Rig, owner string) service.Deps {
	t.Helper()
	incidents := projection.NewIncidents()
	reader, err := projection.New(projection.Config{Store: r.Store, Keys: r.Keys.Ring, Log: r.Log, Projections: []projection.Projection{incidents}})
	if err != nil {
		t.Fatal(err)
	}
	return service.Deps{
		Owner: owner, Instance: "test", Clock: r.Clock, Log: r.Log, Store: r.Store, Keys: r.Keys.Ring, Signer: r.Keys.Signer(t, owner), Artefacts: artefacts.New(1 << 20),
		Vault: r.Vaults[owner], Ledger: ledger.New(), Incidents: incidents, Reader: reader,
	}
}

func build(t *testing.T, r *dispatchtest.Rig, owner string) *service.Service {
	t.Helper()
	s, err := service.New(deps(t, r, owner))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMissingDependency(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	for _, field := range []string{"Owner", "Clock", "Log", "Store", "Keys", "Artefacts", "Vault", "Ledger", "Incidents", "Reader"} {
		d := deps(t, r, procedure.OwnerIncident)
		reflect.ValueOf(&d).Elem().FieldByName(field).SetZero()
		if _, err := service.New(d); err == nil {
			t.Errorf("built without %s", field)
		}
	}
}

// Whoever gives a command is the key of the connection, and nothing that the command says.
func TestDoAsTheConnection(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	s := build(t, r, procedure.OwnerIncident)
	note := func() *emergencyv1.AnnotateLogRequest {
		return &emergencyv1.AnnotateLogRequest{Meta: &emergencyv1.CommandMeta{Incident: incident, RequestId: r.RequestID()}, Entry: 1, Text: "x"}
	}
	for who, want := range map[string]procedure.Reason{"carla": "", "carla2": "", "dora": procedure.ReasonRole, "nobody we know": procedure.ReasonKeyUnknown, "carl-revoked": procedure.ReasonKeyRevoked} {
		ctx := identity.WithCaller(t.Context(), identity.Caller{KeyID: proceduretest.KeyOf(who).ID})
		_, err := s.Do(ctx, note(), procedure.Facts{})
		wantRefusal(t, who, err, want)
	}
	_, err := s.Do(t.Context(), note(), procedure.Facts{})
	wantRefusal(t, "no connection", err, procedure.ReasonNoIdentity)
	if n := len(r.State(incident).Notes); n != 2 {
		t.Errorf("%d notes", n)
	}
}

func wantRefusal(t *testing.T, what string, err error, want procedure.Reason) {
	t.Helper()
	var refusal *procedure.Refusal
	switch {
	case want == "" && err == nil:
	case !errors.As(err, &refusal) || refusal.Reason != want:
		t.Errorf("%s: want %q, got %v", what, want, err)
	}
}

// A follow-up is the person's own, names what caused it, and done again is recognised: a restart repeats and never doubles.
func TestFollow(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	s := build(t, r, procedure.OwnerNotification)
	cause, err := projection.Decode(&r.Entries(incident)[0])
	if err != nil {
		t.Fatal(err)
	}
	call := &emergencyv1.CallOutRequest{Meta: service.FollowMeta(cause, cause.Events[0], "call-out"), Message: "come"}
	if id := call.GetMeta().GetRequestId(); !regexp.MustCompile(`^[A-Za-z0-9._-]{8,64}$`).MatchString(id) {
		t.Errorf("request id %q is none", id)
	}
	first, err := s.Follow(t.Context(), call, cause, cause.Events[0], s.OnBehalf(cause), procedure.Facts{})
	if err != nil {
		t.Fatal(err)
	}
	again, err := build(t, r, procedure.OwnerNotification).Follow(t.Context(), call, cause, cause.Events[0], s.OnBehalf(cause), procedure.Facts{})
	if err != nil || !again.GetRepeated() || again.GetFirstPosition() != first.GetFirstPosition() {
		t.Errorf("done again: %v, %v", again, err)
	}
	rec := r.Entries(incident)[1]
	if a := rec.Record.GetActor(); a.GetPerson() != "carla" || a.GetSystem() != emergencyv1.SystemKind_SYSTEM_KIND_REACTOR || a.GetSystemName() != procedure.OwnerNotification {
		t.Errorf("followed up by %v", a)
	}
	// What follows the follow-up still names the root of it all.
	next, err := projection.Decode(&rec)
	if err != nil {
		t.Fatal(err)
	}
	report := &emergencyv1.ReportDeliveryRequest{Meta: service.FollowMeta(next, next.Events[0], "page.1.1"), Page: "1.1", State: emergencyv1.DeliveryState_DELIVERY_STATE_SENT}
	if _, err := s.Follow(t.Context(), report, next, next.Events[0], s.System(emergencyv1.SystemKind_SYSTEM_KIND_MAILER), procedure.Facts{}); err != nil {
		t.Fatal(err)
	}
	if got := r.Entries(incident)[2].Record; got.GetCausationId() != incident+"/2" || got.GetCorrelationId() != incident+"/1" || got.GetActor().GetPerson() != "" {
		t.Errorf("because of %s, root %s, by %v", got.GetCausationId(), got.GetCorrelationId(), got.GetActor())
	}
}

// What may be sent again is marked so, for commands and for follow-ups; what was refused or is broken is not.
func TestRetryable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err       error
		temporary bool
	}{
		{fmt.Errorf("append: %w", history.ErrUnavailable), true},
		{fmt.Errorf("append: %w", history.ErrUnknownOutcome), true},
		{fmt.Errorf("append: %w", history.ErrStorageFull), true},
		{service.Away("the agent on %s does not answer", "www1"), true},
		{history.ErrRolledBack, false},
		{&procedure.Refusal{Reason: procedure.ReasonRole}, false},
		{errors.New("defect"), false},
	} {
		got := service.Retryable(c.err)
		var temporary interface {
			Temporary() bool
			RetryAfter() time.Duration
		}
		if ok := errors.As(got, &temporary) && temporary.Temporary() && temporary.RetryAfter() > 0; ok != c.temporary || !errors.Is(got, c.err) {
			t.Errorf("%v: temporary %t", c.err, ok)
		}
	}
	if service.Retryable(nil) != nil {
		t.Error("no error became one")
	}
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	faulty := &historytest.Faulty{Store: r.Store}
	r.Store = faulty
	s := build(t, r, procedure.OwnerNotification)
	cause, err := projection.Decode(&r.Entries(incident)[0])
	if err != nil {
		t.Fatal(err)
	}
	faulty.Fail(historytest.NotStored)
	_, err = s.Follow(t.Context(), &emergencyv1.CallOutRequest{Meta: service.FollowMeta(cause, cause.Events[0], "call-out")}, cause, cause.Events[0], s.OnBehalf(cause), procedure.Facts{})
	var temporary interface{ Temporary() bool }
	if !errors.As(err, &temporary) {
		t.Errorf("a follow-up that was not stored: %v", err)
	}
}

func TestReveal(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	own := r.Vaults[procedure.OwnerIncident]
	secret := &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "who it was", Restricted: true}
	if _, err := r.Do(r.Dispatcher(procedure.OwnerIncident), incident, "carla", secret); err != nil {
		t.Fatal(err)
	}
	payload, err := procedure.DecodeEvent(r.Entries(incident)[1].Record.GetEvents()[0])
	if err != nil {
		t.Fatal(err)
	}
	commitment := payload.(*emergencyv1.LogAnnotated).GetRestrictedText().GetCommitment()
	server := &service.Restricted{Vaults: map[string]vault.Store{procedure.OwnerIncident: own}, Log: r.Log}
	ask := func(owner, commitment string) (*restrictedv1.RevealResponse, error) {
		return server.Reveal(t.Context(), &restrictedv1.RevealRequest{Owner: owner, Commitment: commitment, Person: "clara"})
	}
	got, err := ask(procedure.OwnerIncident, commitment)
	if err != nil || string(got.GetValue()) != "who it was" || procedure.Commit(got.GetSalt(), got.GetValue()) != commitment {
		t.Errorf("%v, %v", got, err)
	}
	if err := own.Destroy(t.Context(), commitment); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]string{"destroyed": commitment, "never kept": procedure.Commit(nil, []byte("x"))} {
		_, err := ask(procedure.OwnerIncident, c)
		wantRefusal(t, name, err, procedure.ReasonEntry)
	}
	if _, err := ask("somebody", commitment); err == nil {
		t.Error("an owner that is not here")
	}
}

// A service runs until it is told to stop, and then says nothing is wrong.
func TestRunStops(t *testing.T) {
	t.Parallel()
	s := build(t, dispatchtest.Memory(t), procedure.OwnerIncident)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx, nil); err != nil {
		t.Error(err)
	}
}
