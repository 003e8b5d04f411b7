// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// later gives a command that was captured a while before it is recorded.
func later[C procedure.Command](c C, ago time.Duration) func(*procedure.State) procedure.Command {
	return func(s *procedure.State) procedure.Command { return pt.CapturedAt(c, s.RecordedAt.Add(-ago)) }
}

// TestOffline is G9: signed when it was done, recorded later, by the rules as they are then.
func TestOffline(t *testing.T) {
	t.Parallel()
	called := pt.Story(pt.Called)
	unsigned := func(w *pt.World) { w.Unsigned = true }
	shown := func(t *testing.T, w *pt.World) {
		t.Helper()
		rec := w.Records[len(w.Records)-1]
		if !rec.GetLate() || !rec.GetOccurredAt().AsTime().Before(rec.GetRecordedAt().AsTime()) || rec.GetApproval() == nil {
			t.Errorf("recorded %v, late %t, happened %v", rec.GetRecordedAt(), rec.GetLate(), rec.GetOccurredAt())
		}
		found := false
		for _, d := range lastDeviations(w) {
			found = found || d == emergencyv1.Deviation_DEVIATION_LATE_RECORD
		}
		o, ok := debt(w.State, "OFFLINE_RECONCILE")
		if !found || !ok || o.Owner != rec.GetActor().GetPerson() || !o.Due.Equal(rec.GetRecordedAt().AsTime().Add(72*time.Hour)) {
			t.Errorf("deviations %v, owed %+v", lastDeviations(w), o)
		}
	}
	run(t, []row{
		{name: "a note", given: history(called), as: later(note(), time.Minute), by: "carla", then: events("LogAnnotated"), check: shown},
		{name: "by hand, hours before it could be recorded", given: history(pt.Story(pt.Applying2), pt.Waits(5*time.Hour), pt.Does("carla", note())), as: later(pt.BackOut(), 4*time.Hour), by: "carla", refused: procedure.ReasonNothingToBackOut},
		{name: "a signed command with a step-up of then", given: history(pt.Story(pt.Registered), pt.Waits(5*time.Hour), pt.Does("carla", note())), as: later(bound(pt.FirstReview(approve)), 4*time.Hour), by: "anna", then: events("FirstReviewRecorded"), check: shown},
		{name: "the start of an apply", given: history(pt.Story(pt.DryRun2), pt.Waits(time.Hour), pt.Does("carla", note())), as: later(bound(byHand()), time.Hour), by: "carla", then: events("ApplyStarted"), check: shown},
		{name: "the start of an apply that the agent would do now", given: history(pt.Story(pt.DryRun2), pt.Waits(time.Hour), pt.Does("carla", note())), as: later(bound(pt.Alone()), time.Hour), by: "carla", refused: procedure.ReasonCapturedAt},
		{name: "the rules are those of now", given: history(pt.Story(pt.DryRun2), pt.Does("bert", pt.Veto())), as: later(bound(byHand()), time.Minute), by: "carla", refused: procedure.ReasonVetoOpen},
		{name: "unsigned", given: history(called, unsigned), as: later(note(), time.Minute), by: "carla", refused: procedure.ReasonSignature},
		{name: "from the future", given: history(called), as: later(note(), -2*time.Hour), by: "carla", refused: procedure.ReasonCapturedAt},
		{name: "from before the emergency", given: history(called), as: later(note(), 5*time.Hour), by: "carla", refused: procedure.ReasonCapturedAt},
		{name: "by a system", given: history(pt.Story(pt.Applying2)), as: later(bound(pt.ReportApply(true)), time.Second), by: agent, refused: procedure.ReasonSignature},
		{name: "a role is asked for now", given: history(called), as: later(note(), time.Minute), by: "theo", refused: procedure.ReasonRole},
	})
	t.Run("a declaration", func(t *testing.T) {
		t.Parallel()
		w := given(t).When(pt.CapturedAt(pt.Declare(), pt.T0().Add(-time.Hour))).By("carla").Then("EmergencyDeclared")
		if !w.State.Declared.At.Equal(pt.T0()) || len(w.State.Late) != 1 {
			t.Errorf("T0 is %s, late %v", w.State.Declared.At, w.State.Late)
		}
		shown(t, w)
	})
}

// byHand is an apply that was done by hand, without an observer.
func byHand() *emergencyv1.StartApplyRequest {
	return with(pt.Alone(), func(c *emergencyv1.StartApplyRequest) { c.ByHand = true })
}

// bound names the revision that the command is about, as whoever captures it has to.
func bound[C procedure.Command](c C) C {
	m := c.ProtoReflect()
	b := &emergencyv1.Binding{Revision: "P1r1", Digest: procedure.BindingDigest(pt.DefaultIncident, "P1r1", pt.Register(1).GetSha256(), pt.BaseTree(), pt.ResultTree(1), pt.Book().PolicyInForce(pt.T0()).Digest)}
	m.Set(m.Descriptor().Fields().ByName("binding"), protoreflect.ValueOfMessage(b.ProtoReflect()))
	return c
}

// It must have been signed when it was captured, not when it became convenient; and the signature is over the whole command.
func TestOfflineSignature(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Called)).World()
	w.Wait(2 * time.Hour)
	sign := func(change func(*emergencyv1.Statement)) procedure.Command {
		c := pt.CapturedAt(note(), w.State.RecordedAt)
		c.Meta.Incident, c.Meta.RequestId = w.State.Incident, "captured-1"
		st, err := procedure.StatementFor(w.State, c, "carla", roleCA, w.State.RecordedAt)
		if err != nil {
			t.Fatal(err)
		}
		change(st)
		c.Meta.Approval = pt.KeyOf("carla").Sign(st)
		return c
	}
	now := sign(func(st *emergencyv1.Statement) { st.SignedAt = stampOf(w.Now) })
	pt.GivenWorld(t, w).Counting(seen).When(now).By("carla").ThenRefused(procedure.ReasonCapturedAt)
	other := sign(func(*emergencyv1.Statement) {}).(*emergencyv1.AnnotateLogRequest)
	other.Text = "what I would rather have noted"
	pt.GivenWorld(t, w).Counting(seen).When(other).By("carla").ThenRefused(procedure.ReasonSignature)
	moved := sign(func(*emergencyv1.Statement) {}).(*emergencyv1.AnnotateLogRequest)
	moved.Meta.CapturedAt = stampOf(w.State.RecordedAt.Add(time.Minute))
	pt.GivenWorld(t, w).Counting(seen).When(moved).By("carla").ThenRefused(procedure.ReasonSignature)
	honest := sign(func(*emergencyv1.Statement) {})
	if strings.Contains(string(honest.GetMeta().GetApproval().GetPayload()), w.State.Policy.Digest) {
		t.Error("the statement names the policy, which nobody can ask for who is cut off")
	}
	pt.GivenWorld(t, w).Counting(seen).When(honest).By("carla").Then("LogAnnotated")
}

// A service cannot say that something was captured at another time, or turn it into something done now.
func TestOfflineRecordsAreVerified(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.DryRun2), pt.Waits(time.Minute)).World()
	c := w.Prepare("carla", pt.CapturedAt(bound(byHand()), w.State.RecordedAt))
	out := w.Decide("carla", c)
	if out.Refusal != nil || out.Err != nil {
		t.Fatal(out.Refusal, out.Err)
	}
	before := w.State
	rec := w.Record(c, out.Decision)
	for name, forge := range map[string]func(*emergencyv1.Record){
		"as done now":       func(r *emergencyv1.Record) { r.Late, r.OccurredAt = false, r.RecordedAt },
		"at another time":   func(r *emergencyv1.Record) { r.OccurredAt = stampOf(r.GetOccurredAt().AsTime().Add(time.Second)) },
		"another command":   func(r *emergencyv1.Record) { r.RequestDigest = strings.Repeat("0", 64) },
		"without signature": func(r *emergencyv1.Record) { r.Approval = nil },
	} {
		forged := proto.CloneOf(rec)
		forge(forged)
		if err := procedure.VerifyRecord(before, forged, w.Book); err == nil {
			t.Errorf("%s: believed", name)
		}
	}
	if r := procedure.HostGate(w.State, "P1r1", pt.Host, w.Book, w.Now); r != nil {
		t.Errorf("the agent refuses a start that was captured offline: %v", r)
	}
}

func TestConfirmLateRecord(t *testing.T) {
	t.Parallel()
	confirm := func(s *procedure.State) procedure.Command {
		return &emergencyv1.ConfirmLateRecordRequest{Event: s.Late[0].Position, Proof: "I stood beside her"}
	}
	late := history(pt.Story(pt.Called), func(w *pt.World) { w.Do("carla", later(note(), time.Minute)(w.State)) })
	run(t, []row{
		{name: "by a second person", given: late, as: confirm, by: "anna", then: events("LateRecordConfirmed"), check: func(t *testing.T, w *pt.World) {
			t.Helper()
			if o, ok := debt(w.State, "OFFLINE_RECONCILE"); !ok || o.Open() {
				t.Errorf("%+v", o)
			}
		}},
		{name: "by the same person", given: late, as: confirm, by: "carla2", refused: procedure.ReasonSamePerson},
		{name: "by a tester", given: late, as: confirm, by: "theo", refused: procedure.ReasonRole},
		{name: "an event that is not late", given: late, when: &emergencyv1.ConfirmLateRecordRequest{Event: 1, Proof: "I stood beside her"}, by: "anna", refused: procedure.ReasonNotLate},
		{name: "no such event", given: late, when: &emergencyv1.ConfirmLateRecordRequest{Event: 999, Proof: "I stood beside her"}, by: "anna", refused: procedure.ReasonEntry},
		{name: "no proof", given: late, when: &emergencyv1.ConfirmLateRecordRequest{Event: 1, Proof: " "}, by: "anna", refused: procedure.ReasonField},
		{name: "twice", given: append(late[:2:2], func(w *pt.World) { w.Do("anna", confirm(w.State)) }), as: confirm, by: "bert", refused: procedure.ReasonNotLate},
	})
}
