// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// byHand writes a file of the critical host as a sysadmin who applies by hand does.
func byHand(t testing.TB, env *testenv.Env, text string) {
	t.Helper()
	write(t, env.Root(demobook.Host)+"/"+testenv.Program, text)
}

func startByHand(s *testenv.Story) *emergencyv1.StartApplyRequest {
	c := s.Apply()
	c.ByHand = true
	return c
}

func reportApplied(s *testenv.Story) *emergencyv1.ReportApplyRequest {
	return &emergencyv1.ReportApplyRequest{Binding: s.Binding(), Outcome: emergencyv1.ApplyOutcome_APPLY_OUTCOME_APPLIED, Detail: "edited the file"}
}

func deployment(state string) func(*dashboardv1.Incident) bool {
	return func(in *dashboardv1.Incident) bool { return testenv.Deployment(in) == state }
}

// TestByHand: the executor applies by hand under an observer; the agent only verifies and reports.
func TestByHand(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.DryRun)
	s.Do("carla", startByHand(s))
	s.Refused("carl", reportApplied(s), procedure.ReasonRole)
	byHand(t, env, testenv.Repaired)
	s.Do("carla", reportApplied(s))
	env.Await(s.ID, "the agent's verification", deployment("VERIFIED"))
	if got := deviations(s.State()); !slices.Contains(got, "MANUAL_TREE_REPORT") {
		t.Errorf("deviations: %v", got)
	}
	holds(t, env, demobook.Host, s.Patch.ResultTree)
	s.Skip(testenv.Verified).Until(testenv.Closed)
}

// TestMismatchAndBackOut: what was applied by hand is not the reviewed patch; it is backed out, and only the exact former
// tree counts as that.
func TestMismatchAndBackOut(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.DryRun)
	s.Do("carla", startByHand(s))
	byHand(t, env, strings.Replace(testenv.Repaired, "printf", "printf --", 1))
	s.Do("carla", reportApplied(s))
	env.Await(s.ID, "the mismatch", deployment("MISMATCH"))
	if got := deviations(s.State()); !slices.Contains(got, "DEPLOY_MISMATCH") {
		t.Errorf("deviations: %v", got)
	}
	if o := debt(t, s.Read(), "EXPLAIN_MISMATCH"); o.GetState() != "OPEN" {
		t.Errorf("EXPLAIN_MISMATCH is %s", o.GetState())
	}
	backOut := func() *emergencyv1.BackOutRequest {
		return &emergencyv1.BackOutRequest{Binding: s.Binding(), Reason: "not what was reviewed"}
	}
	s.Do("carla", backOut())
	env.Await(s.ID, "an unproven back-out", deployment("BACK_OUT_UNPROVEN"))
	byHand(t, env, testenv.Vulnerable)
	s.Do("carla", backOut())
	env.Await(s.ID, "the back-out", deployment("BACKED_OUT"))
	untouched(t, env, demobook.Host)
	s.Refused("carla", s.Apply(), procedure.ReasonRevisionSpent)
	soundHere(t, env)
}

// TestRollBack: a verified patch is taken back to the exact former tree, and a new revision is needed.
func TestRollBack(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.Replicated)
	roll := func(observer string) *emergencyv1.RollBackRequest {
		return &emergencyv1.RollBackRequest{Binding: s.Binding(), Reason: "older clients fail", Observer: observer}
	}
	s.Refused("carla", roll("carla"), procedure.ReasonSamePerson)
	s.Do("carla", roll("carl"))
	env.Await(s.ID, "the roll-back", deployment("ROLLED_BACK"))
	untouched(t, env, demobook.Host)
	s.Refused("carla", s.Apply(), procedure.ReasonRevisionSpent)
	// The branch still has what the host does not: that is seen, and owed.
	in := env.Await(s.ID, "the comparison after the roll-back", func(in *dashboardv1.Incident) bool { return in.GetReplication() != "EQUAL" })
	if o := debt(t, in, "REPLICATE"); o.GetState() == "" {
		t.Error("REPLICATE has no state")
	}
	soundHere(t, env)
}
