// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

var (
	prove   = &emergencyv1.ProveUnusableRequest{Grant: "G1"}
	capture = &emergencyv1.CaptureSessionDiffRequest{Grant: "G1"}
	look    = &emergencyv1.ReportLeftoversRequest{Grant: "G1"}
	seal    = &emergencyv1.SealSessionRequest{Grant: "G1"}
	play    = &emergencyv1.PlayRecordingRequest{Grant: "G1"}
)

func TestDisable(t *testing.T) {
	t.Parallel()
	both := events("SessionTerminated", "ConnectionDisabled")
	failed := found(disable, func(x *procedure.ConsoleFacts) {
		x.HostEnd = &emergencyv1.EndResult{Effect: "host_credential", Outcome: emergencyv1.EffectOutcome_EFFECT_OUTCOME_FAILED}
	})
	owed := func(want bool) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			if o, ok := debt(w.State, "DISABLE_ACCESS"); !ok || o.Open() != want {
				t.Errorf("%+v", o)
			}
		}
	}
	run(t, []row{
		{name: "after the end", given: history(pt.Story(pt.Terminated)), when: disable, by: "carla", then: events("ConnectionDisabled"), check: owed(false)},
		{name: "in the session it ends it", given: history(pt.Story(pt.Live)), when: disable, by: "carla", then: both, check: grantIs(func(g procedure.Grant) bool {
			return g.Cause == emergencyv1.SessionCause_SESSION_CAUSE_DISABLED && len(g.Results) > 0 && g.State == procedure.GrantDisabled
		})},
		{name: "while frozen", given: history(pt.Story(pt.Frozen)), when: disable, by: "carl", then: both},
		{name: "before the session", given: history(pt.Story(pt.Granted)), when: disable, by: "carla", then: both},
		{name: "armed", given: history(pt.Story(pt.Armed)), when: disable, by: "clara", then: both},
		{name: "expired", given: history(pt.Story(pt.Armed), expired), when: disable, by: "carla", then: events("ConnectionDisabled")},
		{name: "the host was not reached: owed still", given: history(pt.Story(pt.Terminated)), when: disable, by: "carla", with: failed, then: events("ConnectionDisabled"), check: owed(true)},
		{name: "nobody said anything: owed still", given: history(pt.Story(pt.Terminated)), when: disable, by: "carla", with: []pt.Option{pt.Facts(procedure.Facts{})}, then: events("ConnectionDisabled"), check: owed(true)},
		{name: "again, until it is done", given: history(pt.Story(pt.Terminated), pt.Does("carla", disable, failed...)), when: disable, by: "carla", then: events("ConnectionDisabled"), check: owed(false)},
		{name: "again, when it is proven", given: history(pt.Story(pt.Proven)), when: disable, by: "carla", then: events("ConnectionDisabled"), check: grantIs(func(g procedure.Grant) bool { return g.State == procedure.GrantProvenUnusable })},
		{name: "no such grant", given: history(pt.Story(pt.Terminated)), when: &emergencyv1.DisableRequest{Grant: "G2"}, by: "carla", refused: procedure.ReasonGrant},
		{name: "by the subject", given: history(pt.Story(pt.Live)), when: disable, by: "emil", refused: procedure.ReasonRole},
		{name: "by somebody with two exclusive roles, as a safety act", given: history(pt.Story(pt.Terminated)), when: disable, by: "xaver", then: events("ConnectionDisabled"), check: wantDeviation(emergencyv1.Deviation_DEVIATION_ROLE_EXCLUSIVITY)},
	})
}

func TestProveUnusable(t *testing.T) {
	t.Parallel()
	disabled := pt.Story(pt.Disabled)
	proven := events("CredentialProvenUnusable", "RoleAssumptionEnded")
	tried := func(change func([]*emergencyv1.ReuseAttempt) []*emergencyv1.ReuseAttempt) []pt.Option {
		return found(prove, func(x *procedure.ConsoleFacts) { x.Attempts = change(x.Attempts) })
	}
	got := func(at string, succeeded bool) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			m, err := procedure.DecodeEvent(w.Records[len(w.Records)-1].GetEvents()[0])
			if err != nil {
				t.Fatal(err)
			}
			if e := m.(*emergencyv1.CredentialStillUsable); e.GetAt() != at || e.GetSucceeded() != succeeded {
				t.Errorf("%v", e)
			}
			if w.State.OpenGrant() == nil {
				t.Error("taken for proven")
			}
		}
	}
	unused := history(pt.Story(pt.Armed), pt.Does("carla", disable))
	run(t, []row{
		{name: "both refused", given: history(disabled), when: prove, by: "carla", then: proven, check: func(t *testing.T, w *pt.World) {
			if o, ok := debt(w.State, "PROVE_UNUSABLE"); !ok || o.Open() || w.State.Grants[0].RoleEnded.By != "carla" {
				t.Errorf("%+v, %+v", o, w.State.Grants[0].RoleEnded)
			}
		}},
		{name: "by the broker", given: history(disabled), when: prove, by: gateway, then: proven},
		{name: "a second time", given: history(pt.Story(pt.Proven)), when: prove, by: "carla", then: events("CredentialProvenUnusable")},
		{name: "a second time, and it got in", given: history(pt.Story(pt.Proven)), when: prove, by: "carla", with: tried(func(a []*emergencyv1.ReuseAttempt) []*emergencyv1.ReuseAttempt { a[0].Refused = false; return a }), then: events("CredentialStillUsable"), check: got("gateway", true)},
		{name: "the host let it in", given: history(disabled), when: prove, by: "carla", with: tried(func(a []*emergencyv1.ReuseAttempt) []*emergencyv1.ReuseAttempt { a[1].Refused = false; return a }), then: events("CredentialStillUsable"), check: got("host", true)},
		{name: "let in once of several times", given: history(disabled), when: prove, by: "carla", with: tried(func(a []*emergencyv1.ReuseAttempt) []*emergencyv1.ReuseAttempt {
			return append(a, &emergencyv1.ReuseAttempt{At: "gateway", AttemptedAt: a[0].GetAttemptedAt()})
		}), then: events("CredentialStillUsable"), check: got("gateway", true)},
		{name: "the host could not be tried", given: history(disabled), when: prove, by: "carla", with: tried(func(a []*emergencyv1.ReuseAttempt) []*emergencyv1.ReuseAttempt { return a[:1] }), then: events("CredentialStillUsable"), check: got("host", false)},
		{name: "nothing was tried", given: history(disabled), when: prove, by: "carla", with: []pt.Option{pt.Facts(procedure.Facts{})}, then: events("CredentialStillUsable"), check: got("gateway", false)},
		{name: "tried before it was disabled", given: history(disabled), when: prove, by: "carla", with: tried(func([]*emergencyv1.ReuseAttempt) []*emergencyv1.ReuseAttempt {
			return pt.Attempts(pt.T0().Add(time.Minute), true)
		}), then: events("CredentialStillUsable"), check: got("gateway", false)},
		{name: "of a grant that was not used the host never had a key", given: unused, when: prove, by: "carla", with: tried(func(a []*emergencyv1.ReuseAttempt) []*emergencyv1.ReuseAttempt { return a[:1] }), then: proven},
		{name: "after an alarm, disabled and tried again", given: history(disabled, stillUsable, pt.Does("carla", disable)), when: prove, by: "carla", then: proven},
		{name: "not disabled", given: history(pt.Story(pt.Terminated)), when: prove, by: "carla", refused: procedure.ReasonNotDisabled},
		{name: "sealed", given: history(pt.Story(pt.Sealed)), when: prove, by: "carla", refused: procedure.ReasonGrantState},
		{name: "no such grant", given: history(disabled), when: &emergencyv1.ProveUnusableRequest{Grant: "G2"}, by: "carla", refused: procedure.ReasonGrant},
		{name: "by the subject", given: history(disabled), when: prove, by: "emil", refused: procedure.ReasonRole},
	})
}

func TestCaptureSessionDiff(t *testing.T) {
	t.Parallel()
	ended := pt.Story(pt.Terminated)
	after := func(change func(*procedure.DiffFacts)) []pt.Option {
		return found(capture, func(x *procedure.ConsoleFacts) { change(x.After) })
	}
	problem := after(func(x *procedure.DiffFacts) { x.Patch, x.Problem = nil, "a file has become executable" })
	run(t, []row{
		{name: "changed", given: history(ended), when: capture, by: "carla", then: events("SessionDiffCaptured"), check: func(t *testing.T, w *pt.World) {
			d := w.State.Grants[0].Diff
			if d.AfterTree != pt.SessionTree() || d.Patch == nil || len(d.Paths) != 1 || d.Problem != "" || d.BaseCommit == "" {
				t.Errorf("%+v", d)
			}
			if o, ok := debt(w.State, "REPLICATE"); !ok || o.Cause != d.Position {
				t.Errorf("%+v", o)
			}
		}},
		{name: "by the broker", given: history(ended), when: capture, by: gateway, then: events("SessionDiffCaptured")},
		{name: "by the host's agent", given: history(ended), when: capture, by: agent, then: events("SessionDiffCaptured")},
		{name: "by another host's agent", given: history(ended), when: capture, by: "host:" + pt.OtherHost, refused: procedure.ReasonRole},
		{name: "unchanged owes nothing", given: history(ended), when: capture, by: gateway, with: after(func(x *procedure.DiffFacts) {
			*x = procedure.DiffFacts{HostTree: procedure.HostTree{Tree: pt.BaseTree()}}
		}), then: events("SessionDiffCaptured"), check: func(t *testing.T, w *pt.World) {
			if o, ok := debt(w.State, "REPLICATE"); ok {
				t.Errorf("%+v", o)
			}
		}},
		{name: "no patch can be made of it: said, not lost", given: history(ended), when: capture, by: gateway, with: problem, then: events("SessionDiffCaptured"), check: grantIs(func(g procedure.Grant) bool {
			return g.Diff.Patch == nil && g.Diff.Problem == "a file has become executable" && len(g.Diff.Paths) == 1
		})},
		{name: "more paths than fit into an event", given: history(ended), when: capture, by: gateway, with: after(func(x *procedure.DiffFacts) { x.Paths = make([]string, 5000); fill(x.Paths) }), then: events("SessionDiffCaptured"), check: func(t *testing.T, w *pt.World) {
			paths := w.State.Grants[0].Diff.Paths
			if last := w.Sealed[paths[len(paths)-1]]; len(paths) != 2000 || last != "3001 more, in the lists of files before and after" {
				t.Errorf("%d paths, the last is %q", len(paths), last)
			}
		}},
		{name: "again after a problem", given: history(ended, pt.Does(gateway, capture, problem...)), when: capture, by: "carla", then: events("SessionDiffCaptured")},
		{name: "twice", given: history(pt.Story(pt.Captured)), when: capture, by: "carla", refused: procedure.ReasonGrantState},
		{name: "the agent did not answer", given: history(ended), when: capture, by: "carla", with: []pt.Option{pt.Facts(procedure.Facts{})}, refused: procedure.ReasonManifestMissing},
		{name: "in the session", given: history(pt.Story(pt.Live)), when: capture, by: "carla", refused: procedure.ReasonGrantState},
		{name: "without a session", given: history(pt.Story(pt.Armed), pt.Does("carla", terminate)), when: capture, by: "carla", refused: procedure.ReasonGrantState},
		{name: "no such grant", given: history(ended), when: &emergencyv1.CaptureSessionDiffRequest{Grant: "G2"}, by: "carla", refused: procedure.ReasonGrant},
		{name: "by the subject", given: history(ended), when: capture, by: "emil", refused: procedure.ReasonRole},
	})
}

func fill(paths []string) {
	for i := range paths {
		paths[i] = fmt.Sprintf("file %d", i)
	}
}

func TestLeftovers(t *testing.T) {
	t.Parallel()
	ended := pt.Story(pt.Terminated)
	owed := func(items int, open bool) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			g := w.State.Grants[0]
			o, ok := debt(w.State, "EXPLAIN_LEFTOVERS")
			if len(g.Leftovers) != items || ok != (items > 0) || ok && o.Open() != open || ok && o.Owner != "carl" {
				t.Errorf("%+v, owed %+v", g.Leftovers, o)
			}
		}
	}
	two := found(look, func(x *procedure.ConsoleFacts) { x.Leftovers = pt.FoundLeftovers().GetFound() })
	nobody := []pt.Option{pt.Facts(procedure.Facts{})}
	run(t, []row{
		{name: "found by the agent", given: history(ended), when: pt.FoundLeftovers(), by: agent, then: events("LeftoversReported"), check: owed(2, true)},
		{name: "nothing found by the agent", given: history(ended), when: look, by: agent, then: events("LeftoversReported"), check: owed(0, false)},
		{name: "fetched for an admin", given: history(ended), when: look, by: "carla", with: two, then: events("LeftoversReported"), check: owed(2, true)},
		{name: "an admin's own list counts for nothing", given: history(ended), when: pt.FoundLeftovers(), by: "carla", then: events("LeftoversReported"), check: owed(0, false)},
		{name: "nobody could look: an item too", given: history(ended), when: look, by: "carla", with: nobody, then: events("LeftoversReported"), check: owed(1, true)},
		{name: "by another host's agent", given: history(ended), when: pt.FoundLeftovers(), by: "host:" + pt.OtherHost, refused: procedure.ReasonRole},
		{name: "in the session", given: history(pt.Story(pt.Live)), when: look, by: "carla", refused: procedure.ReasonGrantState},
		{name: "sealed", given: history(pt.Story(pt.Sealed)), when: look, by: "carla", refused: procedure.ReasonGrantState},
		{name: "without a kind", given: history(ended), when: with(pt.FoundLeftovers(), func(c *emergencyv1.ReportLeftoversRequest) { c.Found[0].Kind = 0 }), by: agent, refused: procedure.ReasonField},

		{name: "all explained", given: history(pt.Story(pt.Captured)), when: pt.ExplainLeftovers(""), by: "carl", then: events("LeftoversExplained"), check: owed(2, false)},
		{name: "one explained", given: history(pt.Story(pt.Captured)), when: pt.ExplainLeftovers("L2"), by: "carl", then: events("LeftoversExplained"), check: owed(2, true)},
		{name: "the other one explained", given: history(pt.Story(pt.Captured), pt.Does("carl", pt.ExplainLeftovers("L2"))), when: pt.ExplainLeftovers(""), by: "carla", then: events("LeftoversExplained"), check: owed(2, false)},
		{name: "explained twice", given: history(pt.Story(pt.Captured), pt.Does("carl", pt.ExplainLeftovers("L2"))), when: pt.ExplainLeftovers("L2"), by: "carl", refused: procedure.ReasonItem},
		{name: "an item that was not listed", given: history(pt.Story(pt.Captured)), when: pt.ExplainLeftovers("L3"), by: "carl", refused: procedure.ReasonItem},
		{name: "nothing listed", given: history(ended), when: pt.ExplainLeftovers(""), by: "carl", refused: procedure.ReasonItem},
		{name: "in a word", given: history(pt.Story(pt.Captured)), when: &emergencyv1.ExplainLeftoversRequest{Grant: "G1", Explanation: "fine"}, by: "carl", refused: procedure.ReasonField},
		{name: "explained by the subject", given: history(pt.Story(pt.Captured)), when: pt.ExplainLeftovers(""), by: "emil", refused: procedure.ReasonRole},
		{name: "a second report goes on counting", given: history(pt.Story(pt.Explained)), when: pt.FoundLeftovers(), by: agent, then: events("LeftoversReported"), check: grantIs(func(g procedure.Grant) bool {
			return len(g.Leftovers) == 4 && g.Leftovers[3].Item == "L4" && g.Leftovers[3].Explained.Position == 0
		})},
	})
}

func TestSealSession(t *testing.T) {
	t.Parallel()
	explained := pt.Story(pt.Explained)
	recording := func(state emergencyv1.RecordingState) []pt.Option {
		return found(seal, func(x *procedure.ConsoleFacts) { x.Recording.State = state })
	}
	state := func(want emergencyv1.RecordingState) func(*testing.T, *pt.World) {
		return grantIs(func(g procedure.Grant) bool { return g.State == procedure.GrantSealed && g.Record == want })
	}
	noDiff := history(pt.Story(pt.Proven), pt.Does(agent, look))
	run(t, []row{
		{name: "complete", given: history(explained), when: seal, by: "carl", then: events("SessionSealed"), check: state(emergencyv1.RecordingState_RECORDING_STATE_COMPLETE)},
		{name: "without the end frame: accepted, and shown", given: history(explained), when: seal, by: "carl", with: recording(emergencyv1.RecordingState_RECORDING_STATE_INCOMPLETE), then: events("SessionSealed"), check: state(emergencyv1.RecordingState_RECORDING_STATE_INCOMPLETE)},
		{name: "broken: accepted, and shown", given: history(explained), when: seal, by: "carl", with: recording(emergencyv1.RecordingState_RECORDING_STATE_BROKEN), then: events("SessionSealed"), check: state(emergencyv1.RecordingState_RECORDING_STATE_BROKEN)},
		{name: "the recording could not be looked at", given: history(explained), when: seal, by: "carl", with: []pt.Option{pt.Facts(procedure.Facts{})}, refused: procedure.ReasonRecorderNotReady},
		{name: "nothing left over", given: history(pt.Story(pt.Proven), pt.Does(gateway, capture), pt.Does(agent, look)), when: seal, by: "carl", then: events("SessionSealed")},
		{name: "not proven unusable", given: history(pt.Story(pt.Disabled)), when: seal, by: "carl", refused: procedure.ReasonNotProvenUnusable},
		{name: "still usable", given: history(pt.Story(pt.Disabled), stillUsable), when: seal, by: "carl", refused: procedure.ReasonNotProvenUnusable},
		{name: "proven, and usable after all", given: history(explained, stillUsable), when: seal, by: "carl", refused: procedure.ReasonNotProvenUnusable},
		{name: "no difference captured", given: noDiff, when: seal, by: "carl", refused: procedure.ReasonDiffMissing},
		{name: "nobody looked for leftovers", given: history(pt.Story(pt.Proven), pt.Does(gateway, capture)), when: seal, by: "carl", refused: procedure.ReasonLeftoversOpen},
		{name: "leftovers not explained", given: history(pt.Story(pt.Captured)), when: seal, by: "carl", refused: procedure.ReasonLeftoversOpen},
		{name: "twice", given: history(pt.Story(pt.Sealed)), when: seal, by: "carl", refused: procedure.ReasonGrantState},
		{name: "a grant that was not used", given: history(pt.Story(pt.Armed), pt.Does("carla", disable), pt.Does("carla", prove)), when: seal, by: "carl", refused: procedure.ReasonGrantState},
		{name: "no such grant", given: history(explained), when: &emergencyv1.SealSessionRequest{Grant: "G2"}, by: "carl", refused: procedure.ReasonGrant},
		{name: "by the subject", given: history(explained), when: seal, by: "emil", refused: procedure.ReasonRole},
	})
}

func TestPlayRecording(t *testing.T) {
	t.Parallel()
	run(t, []row{
		{name: "by an assessor", given: history(pt.Story(pt.Explained)), when: play, by: "anna", then: events("RecordingPlayed")},
		{name: "by an admin, before it is sealed", given: history(pt.Story(pt.Terminated)), when: play, by: "carl", then: events("RecordingPlayed")},
		{name: "by a case manager", given: history(pt.Story(pt.Sealed)), when: play, by: "casper", then: events("RecordingPlayed")},
		{name: "by an arbitrator of no case of this incident", given: history(pt.Story(pt.Sealed)), when: play, by: "arno", refused: procedure.ReasonRole},
		{name: "by an arbitrator who judges it", given: history(pt.Story(pt.Sealed), judge("arno")), when: play, by: "arno", then: events("RecordingPlayed")},
		{name: "by a tester", given: history(pt.Story(pt.Sealed)), when: play, by: "theo", refused: procedure.ReasonRole},
		{name: "by a member", given: history(pt.Story(pt.Sealed)), when: play, by: "mia", refused: procedure.ReasonRole},
		{name: "shown to an assessor by a service", given: history(pt.Story(pt.Sealed)), when: shownTo("anna"), by: "service", then: events("RecordingPlayed")},
		{name: "shown to a tester by a service", given: history(pt.Story(pt.Sealed)), when: shownTo("theo"), by: "service", refused: procedure.ReasonRole},
		{name: "shown to nobody by a service", given: history(pt.Story(pt.Sealed)), when: play, by: "service", refused: procedure.ReasonField},
		{name: "by somebody who says it was another", given: history(pt.Story(pt.Sealed)), when: shownTo("anna"), by: "carl", refused: procedure.ReasonField},
		{name: "shown to somebody by the gateway", given: history(pt.Story(pt.Sealed)), when: shownTo("anna"), by: "gateway", refused: procedure.ReasonRole},
		{name: "nothing recorded", given: history(pt.Story(pt.Armed)), when: play, by: "carl", refused: procedure.ReasonGrantState},
		{name: "no such grant", given: history(pt.Story(pt.Sealed)), when: &emergencyv1.PlayRecordingRequest{Grant: "G2"}, by: "carl", refused: procedure.ReasonGrant},
	})
}

func shownTo(person string) procedure.Command {
	return &emergencyv1.PlayRecordingRequest{Grant: "G1", Person: person}
}

// judge makes a person the arbitrator of a dispute about the incident.
func judge(person string) pt.Step {
	return func(w *pt.World) {
		w.Change(func(s *procedure.State) {
			s.Disputes = append(s.Disputes, procedure.Dispute{ID: "a20261124.1", Arbitrator: person})
		})
	}
}

// TestGrantKeepsTheIncidentOpen: with an access that may be usable the incident neither ends nor goes back (4.1).
func TestGrantKeepsTheIncidentOpen(t *testing.T) {
	t.Parallel()
	earlier := func(t *testing.T) []pt.Option {
		t.Helper()
		w := other(t, "e20261124.7", -time.Hour, pt.Does("carla", pt.Declare()))
		return []pt.Option{pt.Facts(procedure.Facts{Other: w.State})}
	}
	merge := &emergencyv1.MergeIntoRequest{Target: "e20261124.7", Reason: "it is the same outage"}
	run(t, []row{
		{name: "stand down", given: history(pt.Story(pt.Granted)), when: pt.StandDown(), by: "carla", refused: procedure.ReasonGrantOpen},
		{name: "stand down, proven", given: history(pt.Story(pt.Granted), pt.Does("carla", disable), pt.Does("carla", prove)), when: pt.StandDown(), by: "carla", then: events("IncidentStoodDown")},
		{name: "stand down after a session", given: history(pt.Story(pt.Proven)), when: pt.StandDown(), by: "carla", refused: procedure.ReasonHasProductionEffect},
		{name: "close in a session", given: history(pt.Story(pt.Live)), when: pt.Close(), by: "carla", refused: procedure.ReasonNoOutcome},
		{name: "close after a session", given: history(pt.Story(pt.Disabled)), when: pt.Close(), by: "carla", refused: procedure.ReasonGrantOpen},
		{name: "close when it is proven", given: history(pt.Story(pt.Proven)), when: pt.Close(), by: "carla", refused: procedure.ReasonObligationsOpen},
		{name: "go back", given: history(pt.Story(pt.Live)), when: pt.GoBack(1), by: "carla", refused: procedure.ReasonGrantOpen},
		{name: "go back, proven", given: history(pt.Story(pt.Proven)), when: pt.GoBack(1), by: "carla", then: events("StrategyDeEscalated")},
		{name: "merge", given: history(pt.Story(pt.Granted)), when: merge, by: "carla", with: earlier(t), refused: procedure.ReasonGrantOpen},
		{name: "no effect", given: history(pt.Story(pt.Proven)), when: with(pt.Lead(false), func(c *emergencyv1.RecordLeadDecisionRequest) {
			c.Decision = emergencyv1.LeadDecision_LEAD_DECISION_NO_EFFECT
		}), by: "clara", refused: procedure.ReasonHasProductionEffect},
	})
}

// Whoever reads the history holds it to who may play a recording, also where a service says who did.
func TestVerifyPlayed(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Sealed)).World()
	w.Do("service", shownTo("anna"))
	last := w.Records[len(w.Records)-1]
	before := pt.Given(t, pt.Story(pt.Sealed)).World()
	for name, x := range map[string]struct {
		by     *emergencyv1.Actor
		person string
		holds  bool
	}{
		"as it was recorded":         {last.GetActor(), "anna", true},
		"for one who may not see it": {last.GetActor(), "theo", false},
		"for nobody":                 {last.GetActor(), "", false},
		"as another's":               {&emergencyv1.Actor{Person: "carl", Role: emergencyv1.Role_ROLE_CRITICAL_ADMIN}, "anna", false},
		"by the gateway":             {&emergencyv1.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_CONSOLE_GATEWAY, Person: "anna"}, "anna", false},
	} {
		rec := proto.Clone(last).(*emergencyv1.Record)
		rec.Actor = x.by
		e, err := procedure.EncodeEvent(rec.GetOwner(), &emergencyv1.RecordingPlayed{Grant: "G1", Person: x.person})
		if err != nil {
			t.Fatal(err)
		}
		rec.Events[0].Payload = e.GetPayload()
		if err := procedure.VerifyRecord(before.State, rec, before.Book); (err == nil) != x.holds {
			t.Errorf("%s: %v", name, err)
		}
	}
}
