// SPDX-License-Identifier: Apache-2.0

package hammer

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The rules find nothing in a strategy-2 emergency with its update cycle, and everything that is wrong with one.
func TestRulesOfStrategy2(t *testing.T) {
	t.Parallel()
	whole := proceduretest.NewWorld(t)
	proceduretest.Story(proceduretest.Blessed)(whole)
	whole.Do("carla", proceduretest.GoBack(1))
	whole.Do("anna", proceduretest.Joint())
	whole.Do("clara", proceduretest.Joint())
	if err := CheckRules(messages(t, whole.Records), peopleKeys()); err != nil {
		t.Fatalf("the story as it should be: %v", err)
	}
	bind := func(w *proceduretest.World) *emergencyv1.Binding {
		r := w.State.Current()
		return &emergencyv1.Binding{Revision: r.ID, Digest: r.Binding}
	}
	const after = emergencyv1.Phase_PHASE_AFTER
	sealed := &emergencyv1.Restricted{Commitment: "00"}
	unreachable := &emergencyv1.StrategyEscalated{From: 1, To: 2, Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_TEAM_UNREACHABLE, Team: emergencyv1.Team_TEAM_TESTING}
	for _, c := range []struct {
		name  string
		after proceduretest.Milestone
		owner string
		add   func(*proceduretest.World) proto.Message
		want  string
	}{
		{"unreachable after one round", proceduretest.Called, procedure.OwnerIncident, func(*proceduretest.World) proto.Message { return unreachable }, "is not unreachable: 1 rounds"},
		{"unreachable, and all are there", proceduretest.Accepted, procedure.OwnerIncident, func(*proceduretest.World) proto.Message { return unreachable }, "nobody is missing"},
		{"a gap that is none", proceduretest.Called, procedure.OwnerIncident, func(*proceduretest.World) proto.Message {
			return &emergencyv1.StrategyEscalated{From: 1, To: 2, Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_COVERAGE_GAP, Team: emergencyv1.Team_TEAM_TESTING}
		}, "has no gap"},
		{"nothing failed", proceduretest.Tested, procedure.OwnerIncident, func(*proceduretest.World) proto.Message {
			return &emergencyv1.StrategyEscalated{From: 1, To: 2, Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_STEP_FAILED, Evidence: []uint64{1}}
		}, "nothing failed at"},
		{"unfit, and not why", proceduretest.Declared, procedure.OwnerIncident, func(*proceduretest.World) proto.Message {
			return &emergencyv1.StrategyEscalated{From: 1, To: 2, Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT}
		}, "unfit, and not why"},
		{"nobody signed it", proceduretest.Declared, procedure.OwnerIncident, func(*proceduretest.World) proto.Message {
			return &emergencyv1.StrategyEscalated{From: 1, To: 2, Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT, Code: 1, Reason: sealed}
		}, "not signed by a person's key"},
		{"no ground", proceduretest.Declared, procedure.OwnerIncident, func(*proceduretest.World) proto.Message {
			return &emergencyv1.StrategyEscalated{From: 1, To: 2}
		}, "no ground"},
		{"strategy 3 by nobody", proceduretest.Declared, procedure.OwnerIncident, func(*proceduretest.World) proto.Message {
			return &emergencyv1.StrategyEscalated{From: 1, To: 3, Signatures: []uint64{1, 2}}
		}, "without a joint declaration"},
		{"back to where it is", proceduretest.Escalated, procedure.OwnerIncident, func(*proceduretest.World) proto.Message {
			return &emergencyv1.StrategyDeEscalated{From: 2, To: 2}
		}, "from strategy 2 back to 2"},
		{"back while an apply runs", proceduretest.Applying2, procedure.OwnerIncident, func(*proceduretest.World) proto.Message {
			return &emergencyv1.StrategyDeEscalated{From: 2, To: 1}
		}, "while an apply runs"},
		{"handed over untested", proceduretest.Prepared, procedure.OwnerReview, func(w *proceduretest.World) proto.Message {
			return &emergencyv1.PatchForwarded{Binding: bind(w), To: "carla"}
		}, "local test false"},
		{"a skipped review that is no deviation", proceduretest.Prepared, procedure.OwnerReview, func(w *proceduretest.World) proto.Message {
			return &emergencyv1.PatchForwarded{Binding: bind(w), To: "carla", LocalTest: sealed}
		}, "a skipped review is no deviation"},
		{"never handed over", proceduretest.Prepared, procedure.OwnerDeployment, func(w *proceduretest.World) proto.Message {
			return &emergencyv1.ApplyStarted{Binding: bind(w), Executor: "carla", NoObserverReason: sealed}
		}, "never handed over"},
		{"nobody observes, and nothing is said", proceduretest.DryRun2, procedure.OwnerDeployment, func(w *proceduretest.World) proto.Message {
			return &emergencyv1.ApplyStarted{Binding: bind(w), Executor: "carla"}
		}, "nobody observes"},
		{"executed by the author", proceduretest.DryRun2, procedure.OwnerDeployment, func(w *proceduretest.World) proto.Message {
			return &emergencyv1.ApplyStarted{Binding: bind(w), Executor: "anna", NoObserverReason: sealed}
		}, "executor anna is one of"},
		{"in the cycle before it is replicated", proceduretest.Healthy2, procedure.OwnerReview, func(w *proceduretest.World) proto.Message {
			return &emergencyv1.UpdateCycleEntered{Binding: bind(w)}
		}, "before it was replicated"},
		{"in the cycle before it is applied", proceduretest.HandedOver, procedure.OwnerReview, func(w *proceduretest.World) proto.Message {
			return &emergencyv1.UpdateCycleEntered{Binding: bind(w)}
		}, "never applied"},
		{"phase after before the cycle", proceduretest.Checked2, procedure.OwnerReview, func(w *proceduretest.World) proto.Message {
			return &emergencyv1.FirstReviewRecorded{Binding: bind(w), Reviewer: "bert", Phase: after}
		}, "has not entered the update cycle"},
		{"phase before after the deployment", proceduretest.Checked2, procedure.OwnerReview, func(w *proceduretest.World) proto.Message {
			return &emergencyv1.FirstReviewRecorded{Binding: bind(w), Reviewer: "bert"}
		}, "recorded as before the deployment"},
		{"regular review by the author", proceduretest.InCycle, procedure.OwnerReview, func(w *proceduretest.World) proto.Message {
			return &emergencyv1.FirstReviewRecorded{Binding: bind(w), Reviewer: "anna", Phase: after}
		}, "first regular reviewer anna is one of"},
		{"both regular reviews by one person", proceduretest.Tested2, procedure.OwnerReview, func(w *proceduretest.World) proto.Message {
			return &emergencyv1.SecondReviewRecorded{Binding: bind(w), Reviewer: "bert", Phase: after, Verdict: emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE}
		}, "second regular reviewer bert is one of"},
		{"regular test by a regular reviewer", proceduretest.Reviewed2, procedure.OwnerReview, func(w *proceduretest.World) proto.Message {
			return &emergencyv1.TestReported{Binding: bind(w), Tester: "bert", Phase: after, EnvironmentTree: w.State.Current().ResultTree, BugNote: "x"}
		}, "regular tester bert is one of"},
		{"blessed with one review", proceduretest.Tested2, procedure.OwnerReview, func(w *proceduretest.World) proto.Message {
			return &emergencyv1.UpdateCycleConcluded{Binding: bind(w), Outcome: emergencyv1.CycleOutcome_CYCLE_OUTCOME_BLESSED}
		}, "concluded with reviews true and false"},
		{"blessed twice", proceduretest.Blessed, procedure.OwnerReview, func(w *proceduretest.World) proto.Message {
			return &emergencyv1.UpdateCycleConcluded{Binding: bind(w), Outcome: emergencyv1.CycleOutcome_CYCLE_OUTCOME_BLESSED}
		}, "was concluded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := proceduretest.NewWorld(t)
			proceduretest.Story(c.after)(w)
			w.Append(c.owner, "Doctored", c.add(w))
			wantWrong(t, messages(t, w.Records), c.want)
		})
	}
	for name, c := range map[string]struct {
		first, second string
		wait          time.Duration
		want          string
	}{
		"one person":  {"carla", "carla", time.Minute, "both halves are by carla and carla"},
		"one role":    {"carla", "carl", time.Minute, "as ROLE_CRITICAL_ADMIN"},
		"a half late": {"carla", "anna", time.Hour, "had lapsed"},
	} {
		t.Run("joint by "+name, func(t *testing.T) {
			t.Parallel()
			w := proceduretest.NewWorld(t)
			proceduretest.Story(proceduretest.Declared)(w)
			w.Do(c.first, proceduretest.Joint())
			w.Wait(c.wait)
			half := emergencyv1.Role_ROLE_CRITICAL_ADMIN
			if c.second == "anna" {
				half = emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR
			}
			w.Append(procedure.OwnerIncident, "Doctored", &emergencyv1.JointDeclarationSigned{Half: half, Person: c.second})
			wantWrong(t, messages(t, w.Records), c.want)
		})
	}
}
