// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// TestProvenGrounds: what is proposed is exactly what is accepted, and no ground that is only signed is among it.
func TestProvenGrounds(t *testing.T) {
	t.Parallel()
	came := []pt.Step{
		pt.Does("carla", pt.Accept("critical/1")), pt.Does("carl", pt.Accept("critical/2")), pt.Does("anna", pt.Accept("assessment/1")),
		pt.Does("bert", pt.Accept("assessment/2")), pt.Does("dora", pt.Accept("development/1")),
	}
	for _, x := range []struct {
		name  string
		given []pt.Step
		want  []*emergencyv1.EscalateRequest
	}{
		{"nothing has failed yet", history(pt.Story(pt.Called)), nil},
		{"one team does not come", append(append(history(pt.Story(pt.Called)), came...), paged(6, 11*time.Minute)), []*emergencyv1.EscalateRequest{
			{Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_TEAM_UNREACHABLE, Team: testing_},
		}},
		{"a step failed", history(pt.Story(pt.OnTestServer), pt.Does("theo", pt.Test(fail))), []*emergencyv1.EscalateRequest{
			{Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_STEP_FAILED},
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			w := given(t, x.given...).World()
			got := procedure.ProvenGrounds(w.State, w.Now)
			if len(got) != len(x.want) {
				t.Fatalf("found %v, want %v", got, x.want)
			}
			for i, g := range got {
				if x.want[i].Ground == emergencyv1.EscalationGround_ESCALATION_GROUND_STEP_FAILED {
					x.want[i].Evidence = failedAt(w.State, "test")
				}
				if !proto.Equal(g, x.want[i]) {
					t.Errorf("found %v, want %v", g, x.want[i])
				}
				g.Reason = pt.Because
				given(t, x.given...).When(g).By("carla").Then("StrategyEscalated")
			}
		})
	}
}
