// SPDX-License-Identifier: Apache-2.0

package incident_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	artefacts "cacert.org/emergency/pkg/artefacts/memory"
	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	ledger "cacert.org/emergency/pkg/effect/memory"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/service"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/incident"
)

type rig struct {
	*dispatchtest.Rig
	t         *testing.T
	server    *incident.Server
	incidents *projection.Incidents
	reader    *projection.Runner
}

func newRig(t *testing.T, r *dispatchtest.Rig) *rig {
	t.Helper()
	x := &rig{Rig: r, t: t, incidents: projection.NewIncidents()}
	var err error
	x.reader, err = projection.New(projection.Config{Store: r.Store, Keys: r.Keys.Ring, Log: r.Log, Projections: []projection.Projection{x.incidents}})
	if err != nil {
		t.Fatal(err)
	}
	x.server, err = incident.New(service.Deps{
		Owner: procedure.OwnerIncident, Instance: "test", Clock: r.Clock, Log: r.Log, Store: r.Store, Keys: r.Keys.Ring, Signer: r.Keys.Signer(t, procedure.OwnerIncident),
		Artefacts: artefacts.New(1 << 20), Vault: r.Vaults[procedure.OwnerIncident], Ledger: ledger.New(), Incidents: x.incidents, Reader: x.reader,
	})
	if err != nil {
		t.Fatal(err)
	}
	x.read()
	return x
}

// read brings the projection up to date.
func (x *rig) read() {
	x.t.Helper()
	if err := x.reader.CatchUp(x.t.Context()); err != nil {
		x.t.Fatal(err)
	}
}

// as is the call of a person over a connection.
func (x *rig) as(who string) context.Context {
	return identity.WithCaller(x.t.Context(), identity.Caller{KeyID: proceduretest.KeyOf(who).ID})
}

func (x *rig) declare(who string, change func(*emergencyv1.DeclareRequest)) *emergencyv1.DeclareResponse {
	x.t.Helper()
	c := proceduretest.Declare()
	c.Meta = &emergencyv1.CommandMeta{RequestId: x.RequestID()}
	if change != nil {
		change(c)
	}
	got, err := x.server.Declare(x.as(who), c)
	if err != nil {
		x.t.Fatal(err)
	}
	x.read()
	x.Clock.Advance(time.Second)
	return got
}

func (x *rig) meta(id string) *emergencyv1.CommandMeta {
	return &emergencyv1.CommandMeta{Incident: id, RequestId: x.RequestID()}
}

func refused(t *testing.T, err error, want procedure.Reason) {
	t.Helper()
	var r *procedure.Refusal
	if !errors.As(err, &r) || r.Reason != want {
		t.Errorf("want %s, got %v", want, err)
	}
}

// Another open incident of the same system within a day is named, in the answer and in the event, and blocks nothing.
func TestPossibleDuplicates(t *testing.T) {
	t.Parallel()
	x := newRig(t, dispatchtest.Memory(t))
	first := x.declare("carla", nil)
	if len(first.GetPossibleDuplicates()) != 0 {
		t.Errorf("the first has duplicates %v", first.GetPossibleDuplicates())
	}
	second := x.declare("anna", nil)
	want := []string{first.GetCommitted().GetIncident()}
	if !slices.Equal(second.GetPossibleDuplicates(), want) || !slices.Equal(x.State(second.GetCommitted().GetIncident()).Declared.Duplicates, want) {
		t.Errorf("duplicates %v, in the event %v, want %v", second.GetPossibleDuplicates(), x.State(second.GetCommitted().GetIncident()).Declared.Duplicates, want)
	}
	for name, change := range map[string]func(*emergencyv1.DeclareRequest){
		"another system": func(c *emergencyv1.DeclareRequest) { c.System = proceduretest.OtherSystem },
		"a drill":        func(c *emergencyv1.DeclareRequest) { c.Drill = true },
	} {
		if got := x.declare("carla", change); len(got.GetPossibleDuplicates()) != 0 {
			t.Errorf("%s has duplicates %v", name, got.GetPossibleDuplicates())
		}
	}
	x.Clock.Advance(24 * time.Hour)
	if got := x.declare("carl", nil); len(got.GetPossibleDuplicates()) != 0 || got.GetCommitted().GetIncident() != "e20261125.1" {
		t.Errorf("a day later: %v", got)
	}
}

func TestDeclareIsRepeated(t *testing.T) {
	t.Parallel()
	x := newRig(t, dispatchtest.Memory(t))
	c := proceduretest.Declare()
	c.Meta = &emergencyv1.CommandMeta{RequestId: x.RequestID()}
	first, err := x.server.Declare(x.as("carla"), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"before the index knows", "after"} {
		again, err := x.server.Declare(x.as("carla"), c)
		if err != nil || again.GetCommitted().GetIncident() != first.GetCommitted().GetIncident() || !again.GetCommitted().GetRepeated() {
			t.Errorf("%s: %v, %v", what, again, err)
		}
		x.read()
	}
	_, err = x.server.Declare(t.Context(), c)
	refused(t, err, procedure.ReasonNoIdentity)
}

// A merge has two halves, in two incidents. A crash between them, and whatever happened meanwhile, leaves something that the
// same command completes.
func TestMerge(t *testing.T) {
	t.Parallel()
	x := newRig(t, dispatchtest.Memory(t))
	target := x.declare("carla", nil).GetCommitted().GetIncident()
	duplicate := x.declare("anna", nil).GetCommitted().GetIncident()

	later := &emergencyv1.MergeIntoRequest{Meta: x.meta(target), Target: duplicate, Reason: "it is the same outage"}
	_, err := x.server.MergeInto(x.as("carla"), later)
	refused(t, err, procedure.ReasonMergeIntoLater)
	_, err = x.server.MergeInto(x.as("carla"), &emergencyv1.MergeIntoRequest{Meta: x.meta(duplicate), Target: "e20261124.99", Reason: "it is the same outage"})
	refused(t, err, procedure.ReasonIncident)
	_, err = x.server.MergeInto(x.as("carla"), &emergencyv1.MergeIntoRequest{Meta: x.meta(duplicate), Target: duplicate, Reason: "it is the same outage"})
	refused(t, err, procedure.ReasonField)
	_, err = x.server.MergeInto(x.as("dora"), &emergencyv1.MergeIntoRequest{Meta: x.meta(duplicate), Target: target, Reason: "it is the same outage"})
	refused(t, err, procedure.ReasonRole)
	if n := len(x.State(target).Notes); n != 0 {
		t.Fatalf("a merge that was refused left %d traces in the target", n)
	}

	c := &emergencyv1.MergeIntoRequest{Meta: x.meta(duplicate), Target: target, Reason: "it is the same outage"}
	faulty := &historytest.Faulty{Store: x.Store}
	x.Rig.Store = faulty
	broken := newRig(t, x.Rig)
	faulty.Fail(historytest.AckLost) // the first half is stored, and the service dies
	if _, err := broken.server.MergeInto(x.as("carla"), c); err == nil {
		t.Fatal("accepted without an acknowledgement")
	}
	if _, err := x.server.AnnotateLog(x.as("anna"), &emergencyv1.AnnotateLogRequest{Meta: x.meta(duplicate), Entry: 1, Text: "meanwhile"}); err != nil {
		t.Fatal(err)
	}
	got, err := x.server.MergeInto(x.as("carla"), c)
	if err != nil {
		t.Fatalf("the repeated command does not complete the merge: %v", err)
	}
	again, err := x.server.MergeInto(x.as("carla"), c)
	if err != nil || !again.GetCommitted().GetRepeated() || again.GetCommitted().GetLastPosition() != got.GetCommitted().GetLastPosition() {
		t.Errorf("sent a third time: %v, %v", again, err)
	}
	s := x.State(duplicate)
	if s.Status != procedure.Merged || s.MergedInto != target {
		t.Errorf("duplicate is %s into %q", s.Status, s.MergedInto)
	}
	if notes := x.State(target).Notes; len(notes) != 1 || notes[0].Result != duplicate {
		t.Errorf("target says %+v", notes)
	}
	x.Check()
}

// A request id that was used for one merge is not good for another one.
func TestMergeUnderAUsedRequestID(t *testing.T) {
	t.Parallel()
	x := newRig(t, dispatchtest.Memory(t))
	target := x.declare("carla", nil).GetCommitted().GetIncident()
	a, b := x.declare("anna", nil).GetCommitted().GetIncident(), x.declare("bert", nil).GetCommitted().GetIncident()
	meta := x.meta(a)
	if _, err := x.server.MergeInto(x.as("carla"), &emergencyv1.MergeIntoRequest{Meta: meta, Target: target, Reason: "it is the same outage"}); err != nil {
		t.Fatal(err)
	}
	other := &emergencyv1.CommandMeta{Incident: b, RequestId: meta.GetRequestId()}
	_, err := x.server.MergeInto(x.as("carla"), &emergencyv1.MergeIntoRequest{Meta: other, Target: target, Reason: "it is the same outage"})
	refused(t, err, procedure.ReasonRequestIDReused)
	if s := x.State(b); s.Status != procedure.Open {
		t.Errorf("%s is %s, and its target knows nothing of it", b, s.Status)
	}
}

// What cannot be reached now is told as such: come again.
func TestUnavailableIsTemporary(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	r.SeedStory(proceduretest.Declared)
	faulty := &historytest.Faulty{Store: r.Store}
	r.Store = faulty
	x := newRig(t, r)
	for name, give := range map[string]func() error{
		"a command": func() error {
			_, err := x.server.StandDown(x.as("carla"), &emergencyv1.StandDownRequest{Meta: x.meta(proceduretest.DefaultIncident), Reason: "it was a false alarm after all"})
			return err
		},
		"a declaration": func() error {
			c := proceduretest.Declare()
			c.Meta = &emergencyv1.CommandMeta{RequestId: x.RequestID()}
			_, err := x.server.Declare(x.as("carla"), c)
			return err
		},
	} {
		faulty.Fail(historytest.NotStored)
		err := give()
		var temporary interface{ Temporary() bool }
		if !errors.As(err, &temporary) || !temporary.Temporary() {
			t.Errorf("%s: %v", name, err)
		}
	}
}
