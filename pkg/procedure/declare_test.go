// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func TestDeclare(t *testing.T) {
	t.Parallel()
	declare := func(change func(*emergencyv1.DeclareRequest)) procedure.Command { return with(pt.Declare(), change) }
	bad := func(name string, change func(*emergencyv1.DeclareRequest)) row {
		return row{name: name, when: declare(change), by: "carla", refused: procedure.ReasonField}
	}
	run(t, []row{
		{name: "by a critical admin", when: pt.Declare(), by: "carla", then: events("EmergencyDeclared"), check: func(t *testing.T, w *pt.World) {
			d := w.State.Declared
			if w.State.Status != procedure.Open || w.State.Strategy != 1 || d.By != "carla" || !d.At.Equal(pt.T0()) || d.Severity != emergencyv1.Severity_SEVERITY_HIGH {
				t.Errorf("declared %+v", d)
			}
			if w.Sealed[d.Symptom] != "certificates of strangers are shown" || w.Sealed[d.Component] != "login" || w.Sealed[d.Reason] == "" {
				t.Errorf("what is restricted is not kept outside by its commitment: %v", w.Sealed)
			}
			if w.State.Policy.Digest != w.Book.PolicyInForce(pt.T0()).Digest {
				t.Error("the policy is not pinned")
			}
			if len(w.State.Slots) != 7 {
				t.Errorf("slots %+v, 3.1 asks for seven", w.State.Slots)
			}
		}},
		{name: "by an assessor", when: pt.Declare(), by: "anna", then: events("EmergencyDeclared")},
		{name: "by a member", when: pt.Declare(), by: "mia", refused: procedure.ReasonRole},
		{name: "duplicates are named, never blocked", when: pt.Declare(), by: "carla", with: []pt.Option{pt.Facts(procedure.Facts{Duplicates: []string{"e20261124.7"}})}, then: events("EmergencyDeclared"), check: func(t *testing.T, w *pt.World) {
			if !slices.Equal(w.State.Declared.Duplicates, []string{"e20261124.7"}) {
				t.Errorf("duplicates %v", w.State.Declared.Duplicates)
			}
		}},
		{name: "a safety command goes through exclusivity, as a deviation", when: pt.Declare(), by: "xaver", then: events("EmergencyDeclared"), check: wantDeviation(emergencyv1.Deviation_DEVIATION_ROLE_EXCLUSIVITY)},
		{name: "names an id", when: declare(func(c *emergencyv1.DeclareRequest) { c.Meta = &emergencyv1.CommandMeta{Incident: "e20261124.1"} }), by: "carla", refused: procedure.ReasonField},
		bad("unknown system", func(c *emergencyv1.DeclareRequest) { c.System = "nowhere" }),
		bad("no system", func(c *emergencyv1.DeclareRequest) { c.System = "" }),
		bad("no severity", func(c *emergencyv1.DeclareRequest) { c.Severity = 0 }),
		bad("unknown severity", func(c *emergencyv1.DeclareRequest) { c.Severity = 77 }),
		bad("no class", func(c *emergencyv1.DeclareRequest) { c.ReasonClass = 0 }),
		bad("no symptom", func(c *emergencyv1.DeclareRequest) { c.Symptom = "" }),
		bad("reason of blanks", func(c *emergencyv1.DeclareRequest) { c.Reason = strings.Repeat(" ", 20) }),
	})
	t.Run("no policy in force", func(t *testing.T) {
		t.Parallel()
		w := pt.NewRuleBook(t)
		doc := pt.Policy()
		doc.EffectiveAt = timestamppb.New(pt.T0().Add(time.Second))
		w.Do("service", with(pt.Establish(), func(c *emergencyv1.EstablishRequest) { c.Policy = pt.PolicyBytes(doc) }))
		n := pt.NewWorld(t)
		n.Book = w.Book
		c := pt.GivenWorld(t, n).Counting(seen)
		c.When(pt.Declare()).By("carla").ThenRefused(procedure.ReasonPolicyMissing)
		c.After(time.Second).When(pt.Declare()).By("carla").Then("EmergencyDeclared")
	})
}

func wantDeviation(want ...emergencyv1.Deviation) func(*testing.T, *pt.World) {
	return func(t *testing.T, w *pt.World) {
		t.Helper()
		if got := lastDeviations(w); !slices.Equal(got, want) {
			t.Errorf("deviations %v, want %v", got, want)
		}
	}
}

// other is an incident of its own, declared some time after T0.
func other(t *testing.T, id string, after time.Duration, steps ...pt.Step) *pt.World {
	t.Helper()
	w := pt.NewIncident(t, id)
	w.Wait(after)
	return pt.GivenWorld(t, w, steps...).World()
}

func TestMerge(t *testing.T) {
	t.Parallel()
	const earlier, later = "e20261124.1", "e20261124.2"
	declared := pt.Does("carla", pt.Declare())
	merge := &emergencyv1.MergeIntoRequest{Target: earlier, Reason: "it is the same outage"}
	for _, x := range []struct {
		name      string
		duplicate func(*testing.T) *pt.World
		target    func(*testing.T) *procedure.State
		refused   procedure.Reason
	}{
		{name: "into the earlier one"},
		{name: "no target", target: func(*testing.T) *procedure.State { return nil }, refused: procedure.ReasonIncident},
		{name: "target not there", target: func(*testing.T) *procedure.State { return procedure.NewState(earlier) }, refused: procedure.ReasonIncident},
		{name: "target not open", refused: procedure.ReasonTargetState, target: func(t *testing.T) *procedure.State {
			return other(t, earlier, 0, declared, pt.Does("carla", pt.StandDown())).State
		}},
		{name: "target later", refused: procedure.ReasonMergeIntoLater, target: func(t *testing.T) *procedure.State { return other(t, earlier, 2*time.Hour, declared).State }},
		{name: "target at the same moment", refused: procedure.ReasonMergeIntoLater, target: func(t *testing.T) *procedure.State { return other(t, earlier, time.Hour, declared).State }},
		{name: "later comes before drill", refused: procedure.ReasonMergeIntoLater, target: func(t *testing.T) *procedure.State { return other(t, earlier, 2*time.Hour, pt.Drill()).State }},
		{name: "drill into emergency", refused: procedure.ReasonDrillBoundary, duplicate: func(t *testing.T) *pt.World { return other(t, later, time.Hour, pt.Drill()) }},
		{name: "the duplicate changed the host", refused: procedure.ReasonHasProductionEffect, duplicate: func(t *testing.T) *pt.World {
			return other(t, later, time.Hour, pt.From("", pt.Applying))
		}},
		{name: "the duplicate is in a higher strategy", refused: procedure.ReasonStrategy, duplicate: func(t *testing.T) *pt.World {
			w := other(t, later, time.Hour, declared)
			w.Change(func(s *procedure.State) { s.Strategy = 2 }) // no command of this version escalates yet
			return w
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			if x.duplicate == nil {
				x.duplicate = func(t *testing.T) *pt.World {
					return other(t, later, time.Hour, declared, pt.Does("carla", &emergencyv1.CallOutRequest{}), pt.Does("carl", pt.Accept("critical/1")))
				}
			}
			if x.target == nil {
				x.target = func(t *testing.T) *procedure.State { return other(t, earlier, 0, declared).State }
			}
			w, target := x.duplicate(t), x.target(t)
			c := pt.GivenWorld(t, w).Counting(seen).When(merge).By("carla", pt.Facts(procedure.Facts{Other: target}))
			if x.refused != "" {
				c.ThenRefused(x.refused)
				return
			}
			c.Then("IncidentMerged")
			if w.State.Status != procedure.Merged || w.State.MergedInto != earlier || len(w.State.Held("carl")) > 0 || len(procedure.Debts(w.State)) > 0 {
				t.Errorf("after the merge: %s into %q, carl holds %v, owed %v", w.State.Status, w.State.MergedInto, w.State.Held("carl"), procedure.Debts(w.State))
			}
		})
	}
	run(t, []row{
		{name: "into itself", given: history(pt.Story(pt.Declared)), when: merge, by: "carla", refused: procedure.ReasonField},
	})
	t.Run("the target takes it in first", func(t *testing.T) {
		t.Parallel()
		source := other(t, later, time.Hour, declared)
		target := other(t, earlier, 0, declared).Wait(2 * time.Hour)
		absorb := &emergencyv1.AbsorbDuplicateRequest{Source: later, SourceHeadHash: source.State.HeadHash, Reason: "it is the same outage"}
		c := pt.GivenWorld(t, target).Counting(seen)
		facts := func(s *procedure.State) pt.Option { return pt.Facts(procedure.Facts{Other: s}) }
		c.When(absorb).By("carla", facts(nil)).ThenRefused(procedure.ReasonTargetState)
		c.When(absorb).By("carla", facts(other(t, later, time.Hour, declared, pt.Does("carla", pt.StandDown())).State)).ThenRefused(procedure.ReasonTargetState)
		tooEarly := other(t, later, -time.Hour, declared).State
		c.When(with(absorb, func(c *emergencyv1.AbsorbDuplicateRequest) { c.SourceHeadHash = tooEarly.HeadHash })).By("carla", facts(tooEarly)).ThenRefused(procedure.ReasonMergeIntoLater)
		c.When(with(absorb, func(c *emergencyv1.AbsorbDuplicateRequest) { c.SourceHeadHash = strings.Repeat("0", 64) })).By("carla", facts(source.State)).ThenRefused(procedure.ReasonTargetState)
		c.When(with(absorb, func(c *emergencyv1.AbsorbDuplicateRequest) { c.Source = "e20261124.3" })).By("carla", facts(source.State)).ThenRefused(procedure.ReasonTargetState)
		c.When(with(absorb, func(c *emergencyv1.AbsorbDuplicateRequest) { c.SourceHeadHash = "x" })).By("carla", facts(source.State)).ThenRefused(procedure.ReasonField)
		c.When(absorb).By("carla", facts(source.State)).Then("DuplicateAbsorbed")
	})
}

func TestStandDown(t *testing.T) {
	t.Parallel()
	run(t, []row{
		{name: "before anything was changed", given: history(pt.Story(pt.Observed)), when: pt.StandDown(), by: "carla", then: events("IncidentStoodDown"), check: func(t *testing.T, w *pt.World) {
			if w.State.Status != procedure.StoodDown || len(w.State.Held("carla")) > 0 {
				t.Errorf("%s, carla still holds %v", w.State.Status, w.State.Held("carla"))
			}
			if o, ok := debt(w.State, "LEAD_DECISION"); !ok || !o.Open() {
				t.Error("the lead's decision is not owed any more")
			}
		}},
		{name: "after an apply started", given: history(pt.Story(pt.Applying)), when: pt.StandDown(), by: "carla", refused: procedure.ReasonHasProductionEffect},
		{name: "reason too short", given: history(pt.Story(pt.Declared)), when: &emergencyv1.StandDownRequest{Reason: "nineteen characters"}, by: "carla", refused: procedure.ReasonField},
		{name: "reason just long enough", given: history(pt.Story(pt.Declared)), when: &emergencyv1.StandDownRequest{Reason: "twenty characters ok"}, by: "carla", then: events("IncidentStoodDown")},
	})
}

func TestWaive(t *testing.T) {
	t.Parallel()
	server := pt.Story(pt.OnTestServer)
	passed := func(who string) pt.Step { return pt.Does(who, pt.Test(pass)) }
	sought := history(pt.Story(pt.Called), pt.Waits(12*time.Minute), pt.Does("carla", pt.Accept("critical/1")), pt.From(pt.OnStandby, pt.Registered))
	run(t, []row{
		{name: "tests, with one passed", given: history(server, passed("theo")), when: pt.Waive(tests), by: "albert", then: events("ControlWaived")},
		{name: "tests, with none", given: history(server), when: pt.Waive(tests), by: "albert", refused: procedure.ReasonTestMinimum},
		{name: "tests, with one failed", given: history(server, pt.Does("theo", pt.Test(fail))), when: pt.Waive(tests), by: "albert", refused: procedure.ReasonTestMinimum},
		{name: "tests, with all passed", given: history(server, passed("theo"), passed("tina")), when: pt.Waive(tests), by: "albert", refused: procedure.ReasonNotApplicable},
		{name: "tests, twice", given: history(server, passed("theo"), pt.Does("albert", pt.Waive(tests))), when: pt.Waive(tests), by: "albert", refused: procedure.ReasonNotApplicable},
		{name: "tests are not the critical lead's", given: history(server, passed("theo")), when: pt.Waive(tests), by: "clara", refused: procedure.ReasonRole},
		{name: "tests of a replaced revision", given: history(server, passed("theo"), pt.Does("dora", pt.Replace("P1r1", 2))), as: old(pt.Waive(tests)), by: "albert", refused: procedure.ReasonPatchRevisionStale},
		{name: "tests of no revision", given: history(pt.Story(pt.Declared)), when: with(pt.Waive(tests), func(c *emergencyv1.WaiveControlRequest) { c.Binding = anyBinding() }), by: "albert", refused: procedure.ReasonPatch},
		{name: "observer, slot open for exactly long enough", given: append(sought, pt.Waits(time.Minute)), when: pt.Waive(observer), by: "clara", then: events("ControlWaived")},
		{name: "observer, slot open for too short", given: append(sought, pt.Waits(time.Minute-time.Nanosecond)), when: pt.Waive(observer), by: "clara", refused: procedure.ReasonGroundNotProven},
		{name: "observer, never called", given: history(pt.Story(pt.Declared), pt.Waits(time.Hour), pt.Does("dora", pt.Register(1))), when: pt.Waive(observer), by: "clara", refused: procedure.ReasonGroundNotProven},
		{name: "observer, slots filled", given: history(pt.Story(pt.Registered), pt.Waits(time.Hour)), when: pt.Waive(observer), by: "clara", refused: procedure.ReasonGroundNotProven},
		{name: "observer is not the assessment lead's", given: append(sought, pt.Waits(time.Minute)), when: pt.Waive(observer), by: "albert", refused: procedure.ReasonRole},
		{name: "no control", given: history(pt.Story(pt.Registered)), when: &emergencyv1.WaiveControlRequest{Reason: strings.Repeat("x", 20)}, by: "albert", refused: procedure.ReasonField},
	})
	t.Run("ends with the revision", func(t *testing.T) {
		t.Parallel()
		w := given(t, server, passed("theo"), pt.Does("albert", pt.Waive(tests)), pt.Does("dora", pt.Replace("P1r1", 2))).World()
		if len(w.State.Waivers) > 0 {
			t.Errorf("waivers %+v", w.State.Waivers)
		}
	})
}

// old makes a command name the revision that the current one replaced.
func old[C procedure.Command](c C) func(*procedure.State) procedure.Command {
	return func(s *procedure.State) procedure.Command {
		n := with(c, func(C) {})
		r := s.Revisions[0]
		setBinding(n, &emergencyv1.Binding{Revision: r.ID, Digest: r.Binding})
		return n
	}
}

// forged makes a command name the current revision with a binding it never had.
func forged[C procedure.Command](c C) func(*procedure.State) procedure.Command {
	return func(s *procedure.State) procedure.Command {
		n := with(c, func(C) {})
		setBinding(n, &emergencyv1.Binding{Revision: s.Current().ID, Digest: strings.Repeat("0", 64)})
		return n
	}
}

func setBinding(c procedure.Command, b *emergencyv1.Binding) {
	m := c.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByName("binding"), m.NewField(m.Descriptor().Fields().ByName("binding")))
	got := c.(interface{ GetBinding() *emergencyv1.Binding }).GetBinding()
	got.Revision, got.Digest = b.GetRevision(), b.GetDigest()
}

func anyBinding() *emergencyv1.Binding {
	return &emergencyv1.Binding{Revision: "P7r1", Digest: strings.Repeat("0", 64)}
}

func TestLeadDecision(t *testing.T) {
	t.Parallel()
	noEffect := &emergencyv1.RecordLeadDecisionRequest{Decision: emergencyv1.LeadDecision_LEAD_DECISION_NO_EFFECT, Reason: "nothing was changed"}
	normal := pt.Does("carla", with(pt.Declare(), func(c *emergencyv1.DeclareRequest) { c.Severity = emergencyv1.Severity_SEVERITY_NORMAL }))
	run(t, []row{
		{name: "referred", given: history(pt.Story(pt.Verified)), when: pt.Lead(true), by: "clara", then: events("LeadDecisionRecorded"), check: wantDeviation()},
		{name: "high severity not referred is a deviation", given: history(pt.Story(pt.Verified)), when: pt.Lead(false), by: "clara", then: events("LeadDecisionRecorded"), check: wantDeviation(emergencyv1.Deviation_DEVIATION_NO_REFERRAL_HIGH)},
		{name: "normal severity not referred is none", given: history(normal), when: pt.Lead(false), by: "clara", then: events("LeadDecisionRecorded"), check: wantDeviation()},
		{name: "not referred without a reason", given: history(normal), when: &emergencyv1.RecordLeadDecisionRequest{Decision: emergencyv1.LeadDecision_LEAD_DECISION_APPROVE}, by: "clara", refused: procedure.ReasonField},
		{name: "another admin", given: history(pt.Story(pt.Verified)), when: pt.Lead(true), by: "carla", refused: procedure.ReasonRole},
		{name: "no effect, before anything", given: history(pt.Story(pt.Observed)), when: noEffect, by: "clara", then: events("LeadDecisionRecorded")},
		{name: "no effect, while applying", given: history(pt.Story(pt.Applying)), when: noEffect, by: "clara", refused: procedure.ReasonHasProductionEffect},
		{name: "no effect, verified", given: history(pt.Story(pt.Verified)), when: noEffect, by: "clara", refused: procedure.ReasonHasProductionEffect},
		{name: "no effect, proven back at the base tree", given: history(pt.Story(pt.Applying), pt.Does("host:"+pt.Host, pt.ReportApply(false)), pt.Does("host:"+pt.Host, pt.ReportTree(pt.BaseTree()))), when: noEffect, by: "clara", then: events("LeadDecisionRecorded")},
	})
}

func TestAnnotate(t *testing.T) {
	t.Parallel()
	run(t, []row{
		{name: "public", given: history(pt.Story(pt.Declared)), when: note(), by: "casper", then: events("LogAnnotated")},
		{name: "restricted", given: history(pt.Story(pt.Declared)), when: with(note(), func(c *emergencyv1.AnnotateLogRequest) { c.Restricted = true }), by: "arno", then: events("LogAnnotated"), check: func(t *testing.T, w *pt.World) {
			for _, b := range w.Bytes {
				if strings.Contains(string(b), "a note") {
					t.Error("the restricted text is in the history")
				}
			}
		}},
		{name: "an entry that is not there", given: history(pt.Story(pt.Declared)), when: with(note(), func(c *emergencyv1.AnnotateLogRequest) { c.Entry = 2 }), by: "carla", refused: procedure.ReasonEntry},
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	agent := "host:" + pt.Host
	stoodDown := pt.Does("carla", pt.StandDown())
	lead, board := pt.Does("clara", pt.Lead(false)), pt.Does("bea", pt.BoardSummary())
	settled := history(pt.Story(pt.Settled))
	second := func(w *pt.World) { // another patch, applied while the first is verified
		pt.Does("dora", pt.Register(2))(w)
		pt.From(pt.Registered, pt.Applying)(w)
	}
	run(t, []row{
		{name: "when nothing is owed", given: settled, when: pt.Close(), by: "carla", then: events("IncidentClosed"), check: func(t *testing.T, w *pt.World) {
			if w.State.Status != procedure.Closed || w.State.Outcome != emergencyv1.Outcome_OUTCOME_FIXED || !w.State.EndedAt.Equal(w.Now) {
				t.Errorf("%s %s %s", w.State.Status, w.State.Outcome, w.State.EndedAt)
			}
		}},
		{name: "by the case manager", given: settled, when: pt.Close(), by: "casper", then: events("IncidentClosed")},
		{name: "nothing done", given: history(pt.Story(pt.Forwarded)), when: pt.Close(), by: "carla", refused: procedure.ReasonNoOutcome},
		{name: "first apply not finished", given: history(pt.Story(pt.Applied)), when: pt.Close(), by: "carla", refused: procedure.ReasonNoOutcome},
		{name: "differing apply", given: history(pt.Story(pt.Applied), pt.Does(agent, pt.ReportTree(pt.Tree("odd")))), when: pt.Close(), by: "carla", refused: procedure.ReasonNoOutcome},
		{name: "second apply running", given: history(pt.Story(pt.Verified), second), when: pt.Close(), by: "carla", refused: procedure.ReasonApplyRunning},
		{name: "roll-back running", given: history(pt.Story(pt.Settled), pt.Does("carla", pt.RollBack("carl"))), when: pt.Close(), by: "carla", refused: procedure.ReasonNoOutcome},
		{name: "obligations open", given: history(pt.Story(pt.Verified)), when: pt.Close(), by: "carla", refused: procedure.ReasonObligationsOpen},
		{name: "implied ones count", given: append(settled, pt.Does("repo:git", &emergencyv1.CheckReplicationRequest{}, pt.Facts(pt.Drift("etc/odd")))), when: pt.Close(), by: "carla", refused: procedure.ReasonObligationsOpen},
		{name: "stood down, decision owed", given: history(pt.Story(pt.Declared), stoodDown), when: pt.Close(), by: "carla", refused: procedure.ReasonObligationsOpen},
		{name: "stood down, nothing owed", given: history(pt.Story(pt.Declared), stoodDown, lead, board), when: pt.Close(), by: "carla", then: events("IncidentClosed")},
		{name: "a drill's debts never block", given: history(pt.Drill(), pt.From(pt.Declared, pt.Verified)), when: pt.Close(), by: "carla", then: events("IncidentClosed")},
	})
	t.Run("the refusal lists each debt and how to pay it", func(t *testing.T) {
		t.Parallel()
		r := given(t, pt.Story(pt.Verified)).When(pt.Close()).By("carla").ThenRefused(procedure.ReasonObligationsOpen)
		var got []string
		for _, a := range r.Allow {
			got = append(got, a.Command+" "+a.Subject)
		}
		want := []string{"RecordBoardSummary BOARD_SUMMARY/1", "RecordLeadDecision LEAD_DECISION/1"}
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("allowances %v lack %q", got, w)
			}
		}
		if len(got) != 5 { // and DOCUMENT/S1, HEALTH, REPLICATE
			t.Errorf("allowances %v, want five", got)
		}
	})
}

// TestPolicyPin: the policy of an incident never changes (10.15).
func TestPolicyPin(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Called)).World()
	book := pt.Founding().For(t)
	book.Now = w.Now
	book.Do("bea", pt.NextPolicy(book, "bruno", func(p *emergencyv1.Policy) {
		for _, v := range p.Values {
			if v.Key == "test.quorum" {
				v.Value = 5
			}
		}
	}))
	w.Book = book.Book
	pt.From(pt.Called, pt.ReviewedTwice)(w) // by two tests still
	if w.State.Policy.Count("test.quorum") != 2 {
		t.Error("the pinned policy changed")
	}
	n := pt.NewWorld(t)
	n.Book, n.Now = book.Book, book.Now
	n.Do("carla", pt.Declare())
	if n.State.Policy.Count("test.quorum") != 5 {
		t.Error("a new incident is not under the new policy")
	}
}
