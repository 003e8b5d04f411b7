// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// TestHostGateOfStrategy2 is what the agent asks of a short road, on a history that services could have written.
func TestHostGateOfStrategy2(t *testing.T) {
	t.Parallel()
	revision := func(change func(*procedure.Revision)) func(*procedure.State) {
		return func(s *procedure.State) { change(&s.Revisions[0]) }
	}
	apply := func(change func(*procedure.Apply)) func(*procedure.State) {
		return func(s *procedure.State) { change(&s.Applies[0]) }
	}
	for name, x := range map[string]struct {
		change func(*procedure.State)
		want   procedure.Reason
	}{
		"green":                              {},
		"escalated further while it runs":    {change: func(s *procedure.State) { s.Strategy = 3 }},
		"not forwarded":                      {change: revision(func(r *procedure.Revision) { r.Forward = nil }), want: procedure.ReasonNotForwarded},
		"no local test":                      {change: revision(func(r *procedure.Revision) { r.Forward.LocalTest = false }), want: procedure.ReasonNotForwarded},
		"no local test, but all of before":   {change: revision(func(r *procedure.Revision) { r.Forward.LocalTest, r.Forward.Complete = false, true })},
		"to a tester":                        {change: revision(func(r *procedure.Revision) { r.Forward.To = "theo" }), want: procedure.ReasonRecipientRole},
		"by a developer":                     {change: revision(func(r *procedure.Revision) { r.Forward.By = "dora" }), want: procedure.ReasonPreparerRole},
		"started under strategy 1":           {change: apply(func(a *procedure.Apply) { a.Strategy = 1 }), want: procedure.ReasonFirstReviewMissing},
		"nobody observes, and why is unsaid": {change: apply(func(a *procedure.Apply) { a.NoObserverSaid = false }), want: procedure.ReasonObserverMissing},
		"X10 one person":                     {change: apply(func(a *procedure.Apply) { a.Observer = "carla" }), want: procedure.ReasonSamePerson},
		"X11 the author executes":            {change: revision(func(r *procedure.Revision) { r.Author = "carla" }), want: procedure.ReasonSeparationOfDuty},
		"X11 a tester executes":              {change: revision(func(r *procedure.Revision) { r.Tests = []procedure.Test{{Mark: procedure.Mark{By: "carla"}}} }), want: procedure.ReasonSeparationOfDuty},
		"vetoed": {change: func(s *procedure.State) {
			s.Vetoes = append(s.Vetoes, procedure.Veto{ID: "V1", Revision: "P1r1", By: "beate", State: procedure.VetoOpen})
		}, want: procedure.ReasonVetoOpen},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := pt.Given(t, pt.Story(pt.Applying2)).World()
			w.State = w.State.Clone()
			if x.change != nil {
				x.change(w.State)
			}
			r := procedure.HostGate(w.State, "P1r1", pt.Host, w.Book, w.Now)
			switch {
			case r == nil && x.want != "":
				t.Errorf("green, want %s", x.want)
			case r != nil && r.Reason != x.want:
				t.Errorf("%v, want %q", r, x.want)
			case r != nil:
				pt.CheckRefusal(t, r)
			}
		})
	}
}

// forgery is a change to a record that was honest, which a reader who believes no service must notice.
type forgery struct {
	given []pt.Step
	when  procedure.Command
	by    string
	event int // which event is changed
	forge func(*emergencyv1.Record, proto.Message)
}

func (x forgery) believed(t *testing.T) bool {
	t.Helper()
	w := pt.Given(t, x.given...).World()
	before := w.State
	out := w.Do(x.by, x.when)
	rec := proto.CloneOf(out.Record)
	if err := procedure.VerifyRecord(before, rec, w.Book); err != nil {
		t.Fatalf("the honest record is not believed: %v", err)
	}
	e := rec.GetEvents()[x.event]
	m, err := procedure.DecodeEvent(e)
	if err != nil {
		t.Fatal(err)
	}
	x.forge(rec, m)
	n, err := procedure.EncodeEvent(rec.GetOwner(), m, e.GetDeviations()...)
	if err != nil {
		t.Fatal(err)
	}
	rec.Events[x.event] = n
	return procedure.VerifyRecord(before, rec, w.Book) == nil
}

// TestStrategyLies: a service that would make a short road of a long one is not believed by anybody who reads the history.
func TestStrategyLies(t *testing.T) {
	t.Parallel()
	often := history(pt.Story(pt.Called), paged(6, 11*time.Minute))
	half := history(pt.Story(pt.Declared), pt.Does("carla", pt.Joint()))
	escalated := func(change func(*emergencyv1.StrategyEscalated)) func(*emergencyv1.Record, proto.Message) {
		return func(_ *emergencyv1.Record, m proto.Message) { change(m.(*emergencyv1.StrategyEscalated)) }
	}
	record := func(change func(*emergencyv1.Record)) func(*emergencyv1.Record, proto.Message) {
		return func(r *emergencyv1.Record, _ proto.Message) { change(r) }
	}
	unreachable := func(change func(*emergencyv1.StrategyEscalated)) forgery {
		return forgery{given: often, when: pt.Unreachable(testing_), by: "carla", forge: escalated(change)}
	}
	unfit := func(change func(*emergencyv1.StrategyEscalated)) forgery {
		return forgery{given: history(pt.Story(pt.Declared)), when: pt.Exploited(), by: "carla", forge: escalated(change)}
	}
	joint := func(event int, forge func(*emergencyv1.Record, proto.Message)) forgery {
		return forgery{given: half, when: pt.Joint(), by: "anna", event: event, forge: forge}
	}
	for name, x := range map[string]forgery{
		"another ground": unreachable(func(e *emergencyv1.StrategyEscalated) {
			e.Ground = emergencyv1.EscalationGround_ESCALATION_GROUND_COVERAGE_GAP
		}),
		"another team":           unreachable(func(e *emergencyv1.StrategyEscalated) { e.Team = assessment }),
		"evidence left out":      unreachable(func(e *emergencyv1.StrategyEscalated) { e.Evidence = e.Evidence[1:] }),
		"evidence made up":       unreachable(func(e *emergencyv1.StrategyEscalated) { e.Evidence = append(e.Evidence, 1) }),
		"straight to 3":          unreachable(func(e *emergencyv1.StrategyEscalated) { e.To = 3 }),
		"from elsewhere":         unreachable(func(e *emergencyv1.StrategyEscalated) { e.From = 2 }),
		"downwards":              unreachable(func(e *emergencyv1.StrategyEscalated) { e.To = 1 }),
		"unfit for another code": unfit(func(e *emergencyv1.StrategyEscalated) { e.Code = emergencyv1.UnfitCode_UNFIT_CODE_LIVE_STATE_NEEDED }),
		"unfit for time, of which there is enough": unfit(func(e *emergencyv1.StrategyEscalated) { e.Code = noTime }),
		"unfit for no reason":                      unfit(func(e *emergencyv1.StrategyEscalated) { e.Reason = nil }),
		"unfit for debts that nobody spoke of":     unfit(func(e *emergencyv1.StrategyEscalated) { e.DebtReason = e.Reason }),
		"nobody signed it":                         {given: often, when: pt.Unreachable(testing_), by: "carla", forge: record(func(r *emergencyv1.Record) { r.Approval = nil })},
		"another person's":                         {given: often, when: pt.Unreachable(testing_), by: "carla", forge: record(func(r *emergencyv1.Record) { r.Actor.Person = "carl" })},
		"under a command that nobody signs":        {given: often, when: pt.Unreachable(testing_), by: "carla", forge: record(func(r *emergencyv1.Record) { r.Command, r.Approval = "AnnotateLog", nil })},
		"too early":                                {given: often, when: pt.Unreachable(testing_), by: "carla", forge: record(func(r *emergencyv1.Record) { r.RecordedAt = stampOf(pt.T0().Add(30 * time.Minute)) })},

		"another half":   joint(0, func(_ *emergencyv1.Record, m proto.Message) { m.(*emergencyv1.JointDeclarationSigned).Half = roleCA }),
		"another signer": joint(0, func(_ *emergencyv1.Record, m proto.Message) { m.(*emergencyv1.JointDeclarationSigned).Person = "bert" }),
		"other texts": joint(0, func(_ *emergencyv1.Record, m proto.Message) {
			m.(*emergencyv1.JointDeclarationSigned).TextsDigest = "00"
		}),
		"a half that lapsed":        joint(0, func(_ *emergencyv1.Record, m proto.Message) { m.(*emergencyv1.JointDeclarationSigned).LapsedHalf = 2 }),
		"other signatures":          joint(1, escalated(func(e *emergencyv1.StrategyEscalated) { e.Signatures = []uint64{1, 3} })),
		"after the window":          joint(1, record(func(r *emergencyv1.Record) { r.RecordedAt = stampOf(pt.T0().Add(time.Hour)) })),
		"strategy 2 by a joint one": joint(1, escalated(func(e *emergencyv1.StrategyEscalated) { e.To = 2 })),

		"a step back that is none":     {given: history(pt.Story(pt.Escalated)), when: pt.GoBack(1), by: "carla", forge: func(_ *emergencyv1.Record, m proto.Message) { m.(*emergencyv1.StrategyDeEscalated).To = 2 }},
		"a local test that nobody did": {given: history(pt.Story(pt.Prepared)), when: pt.HandOverTo("carla"), by: "anna", forge: func(_ *emergencyv1.Record, m proto.Message) { m.(*emergencyv1.PatchForwarded).LocalTest = nil }},
		"a skipped review unsaid":      {given: history(pt.Story(pt.Prepared)), when: pt.HandOverTo("carla"), by: "anna", forge: record(func(r *emergencyv1.Record) { r.Events[0].Deviations = nil })},
		"to another":                   {given: history(pt.Story(pt.Prepared)), when: pt.HandOverTo("carla"), by: "anna", forge: func(_ *emergencyv1.Record, m proto.Message) { m.(*emergencyv1.PatchForwarded).To = "carl" }},
		"to another, left open":        {given: history(pt.Story(pt.Prepared)), when: pt.HandOverTo(""), by: "anna", forge: func(_ *emergencyv1.Record, m proto.Message) { m.(*emergencyv1.PatchForwarded).To = "carl" }},
		"a preparer's role":            {given: history(pt.Story(pt.Escalated)), when: pt.Register(1), by: "anna", forge: record(func(r *emergencyv1.Record) { r.Actor.Role = emergencyv1.Role_ROLE_SOFTWARE_DEVELOPER })},
		"a missing observer unsaid":    {given: history(pt.Story(pt.DryRun2)), when: pt.Alone(), by: "carla", forge: record(func(r *emergencyv1.Record) { r.Events[0].Deviations = nil })},
		"an excuse that nobody gave": {given: history(pt.Story(pt.DryRun2), pt.Does("carl", pt.Observe())), when: &emergencyv1.StartApplyRequest{}, by: "carla", forge: func(_ *emergencyv1.Record, m proto.Message) {
			m.(*emergencyv1.ApplyStarted).NoObserverReason = &emergencyv1.Restricted{Commitment: "00"}
		}},
		"by hand, signed for the agent": {given: history(pt.Story(pt.DryRun2)), when: pt.Alone(), by: "carla", forge: func(_ *emergencyv1.Record, m proto.Message) { m.(*emergencyv1.ApplyStarted).ByHand = true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if x.believed(t) {
				t.Error("believed")
			}
		})
	}
}

// A patch that a developer registered under strategy 2 is not believed, although developers may register under strategy 1.
func TestPreparerIsVerified(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Called)).World()
	before := w.State
	rec := w.Do("dora", pt.Register(1)).Record
	if err := procedure.VerifyRecord(before, rec, w.Book); err != nil {
		t.Fatal(err)
	}
	escalated := before.Clone()
	escalated.Strategy = 2
	if procedure.VerifyRecord(escalated, rec, w.Book) == nil {
		t.Error("believed")
	}
}

// Nobody can be told a role skipped that is none, and each control has a role.
func TestSkippedRoles(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Declared), pt.Does("anna", pt.Joint()), pt.Does("carla", pt.Joint())).World()
	e := escalated(t, w)
	if got := e.GetSkippedControls(); !slices.Equal(got, []string{"first_review", "transfer", "tests", "second_review", "forwarded", "dry_run", "observer"}) {
		t.Errorf("%v", got)
	}
	if got := procedure.SkippedRoles(e); !slices.Equal(got, []emergencyv1.Role{roleSA, roleTE, roleCA}) {
		t.Errorf("%v", got)
	}
}
