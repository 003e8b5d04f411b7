// SPDX-License-Identifier: Apache-2.0

package dashboard_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/dashboard"
)

// secrets is an incident with restricted values: who reads what by its field's name.
func secrets(r *rig) map[string]string {
	w := r.world(one)
	declare := pt.Declare()
	declare.Symptom = "the signer gives out wrong serials"
	r.do(w, "carla", declare)
	r.do(w, "carla", &emergencyv1.CallOutRequest{Message: "come, please"})
	r.do(w, "theo", &emergencyv1.RespondRequest{Answer: &emergencyv1.RespondRequest_Accept{Accept: &emergencyv1.Acceptance{
		Slot: "testing/1", ContactPath: "+49 30 1234567", Step: emergencyv1.ResponderStep_RESPONDER_STEP_TEST,
	}}})
	r.feed(w)
	fields := map[string]string{}
	for _, e := range must(r.client("anna").ReadTimeline(r.t.Context(), &dashboardv1.ReadTimelineRequest{Incident: one}))(r.t).GetEntries() {
		for _, f := range e.GetRestricted() {
			fields[f.GetField()] = f.GetCommitment()
		}
	}
	return fields
}

func (r *rig) restricted(who, commitment string) (string, error) {
	resp, err := r.client(who).ReadRestricted(r.t.Context(), &dashboardv1.ReadRestrictedRequest{Incident: one, Commitment: commitment})
	return resp.GetValue(), err
}

func TestReadRestricted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	of := secrets(r)
	for who, want := range map[string]string{
		"carla": "symptom contact_path", "anna": "symptom contact_path", "clara": "symptom contact_path", "theo": "symptom contact_path",
		"tina": "symptom", "dora": "symptom", "arno": "", "bea": "", "mia": "", "agent": "",
	} {
		for field, value := range map[string]string{"symptom": "the signer gives out wrong serials", "contact_path": "+49 30 1234567"} {
			got, err := r.restricted(who, of[field])
			if !strings.Contains(want, field) {
				refused(t, err, procedure.ReasonRole)
				continue
			}
			if err != nil || got != value {
				t.Errorf("%s reads %s: %q, %v", who, field, got, err)
			}
		}
	}
	_, err := r.restricted("anna", strings.Repeat("0", 64))
	refused(t, err, procedure.ReasonEntry)
	_, err = r.restricted("anna", "")
	refused(t, err, procedure.ReasonEntry)
}

// Each reading leaves a line with the owner and one here; a refused one leaves a line here. No line holds the value.
func TestReadingLeavesALine(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	of := secrets(r)
	if _, err := r.restricted("anna", of["symptom"]); err != nil {
		t.Fatal(err)
	}
	_, err := r.restricted("mia", of["symptom"])
	refused(t, err, procedure.ReasonRole)
	var here, refusedHere, owner int
	for line := range strings.Lines(r.logs.String()) {
		switch {
		case strings.Contains(line, "wrong serials"):
			t.Errorf("a line holds the value: %s", line)
		case strings.Contains(line, "restricted value read") && strings.Contains(line, `"person":"anna"`) && strings.Contains(line, of["symptom"]):
			owner++
		case strings.Contains(line, "restricted value asked for") && strings.Contains(line, `"person":"anna"`) && strings.Contains(line, `"refused":false`):
			here++
		case strings.Contains(line, "restricted value asked for") && strings.Contains(line, `"person":"mia"`) && strings.Contains(line, `"refused":true`):
			refusedHere++
		}
	}
	if owner != 1 || here != 1 || refusedHere != 1 {
		t.Errorf("%d lines of the owner, %d here, %d of the refused reading; want one each", owner, here, refusedHere)
	}
}

func TestRestrictedValueThatIsGone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	of := secrets(r)
	check(t, r.vault.Destroy(t.Context(), of["symptom"]))
	_, err := r.restricted("anna", of["symptom"])
	if refusal := refused(t, err, procedure.ReasonEntry); !strings.Contains(refusal.Message, "not kept any more") {
		t.Errorf("refusal %v", refusal)
	}
}

// An owner that is away is no refusal: the caller is told to come again.
func TestOwnerAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *dashboard.Config) { delete(c.Peers, "incident") })
	of := secrets(r)
	if _, err := r.restricted("anna", of["symptom"]); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want UNAVAILABLE", err)
	}
	if _, err := r.restricted("anna", of["contact_path"]); err != nil {
		t.Errorf("another owner's value: %v", err)
	}
}
