// SPDX-License-Identifier: Apache-2.0

package review_test

import (
	"strings"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// TestTestServerChangedSince: what the test server confirmed once says nothing of what it holds when the test is reported.
func TestTestServerChangedSince(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	r.do("dora", r.mend())
	r.approved()
	r.wait("on the test server", onTestServer("P1r1"))
	report := func() *emergencyv1.ReportTestRequest {
		return &emergencyv1.ReportTestRequest{Result: pass, Steps: "x", BugNote: "1500#c77"}
	}
	other := "sha1:" + strings.Repeat("7", 40)
	r.agents.hold(other)
	r.refused("theo", report(), procedure.ReasonTestTreeMismatch, other)
	r.agents.hold("")
	r.do("theo", report())
	r.agents.hold(other)
	r.agents.set(true, false) // an agent that is away holds nobody up
	r.do("tina", report())
	r.agents.set(false, true)
	r.do("tom", report())
	if got := len(r.revision("P1r1").Tests); got != 3 {
		t.Errorf("%d tests", got)
	}
}
