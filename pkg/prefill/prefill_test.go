// SPDX-License-Identifier: Apache-2.0

package prefill_test

import (
	"testing"

	"cacert.org/emergency/pkg/prefill"
	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func known(t *testing.T, to pt.Milestone, person string) prefill.Known {
	t.Helper()
	w := pt.Given(t, pt.Story(to)).World()
	return prefill.Known{State: w.State, Book: w.Book, Person: person, Now: w.Now}
}

// What is filled in is what the history says, bound to the revision that is named or current.
func TestFill(t *testing.T) {
	t.Parallel()
	k := known(t, pt.Observed, "carla")
	r := k.State.Current()
	start := &emergencyv1.StartApplyRequest{}
	k.Fill(start, r.ID)
	if start.GetBinding().GetDigest() != r.Binding || start.GetObserver() != "carl" || start.GetHost() != k.State.Host() {
		t.Errorf("deployment: %v", start)
	}
	k.Fill(start, "P9r9")
	if start.GetBinding() != nil {
		t.Errorf("a revision that is not there: %v", start.GetBinding())
	}
	forward := &emergencyv1.ForwardRequest{}
	k.Fill(forward, "")
	if forward.GetTo() != "carla" || forward.GetBinding().GetRevision() != r.ID || forward.GetRollbackPlan() == "" {
		t.Errorf("forwarding: %v", forward)
	}
	waive := &emergencyv1.WaiveControlRequest{}
	k.Fill(waive, r.ID+" observer")
	if waive.GetControl() != emergencyv1.Control_CONTROL_OBSERVER || waive.GetBinding().GetDigest() != r.Binding {
		t.Errorf("waiver: %v", waive)
	}
	k.Person = "carl"
	if got := k.Observer(r); got != "" {
		t.Errorf("carl would be observed by %q, himself", got)
	}
}

// An answer is of the kind that was begun; none begun is an acceptance.
func TestFillAnswer(t *testing.T) {
	t.Parallel()
	k := known(t, pt.Called, "carla")
	slot := k.State.Slots[0]
	yes := &emergencyv1.RespondRequest{}
	k.Fill(yes, slot.ID)
	if yes.GetAccept().GetSlot() != slot.ID || !yes.GetAccept().GetOnStandby() {
		t.Errorf("%v", yes)
	}
	no := &emergencyv1.RespondRequest{Answer: &emergencyv1.RespondRequest_Decline{Decline: &emergencyv1.Declination{}}}
	k.Fill(no, slot.ID)
	if no.GetDecline().GetTeam() != slot.Team || no.GetAccept() != nil {
		t.Errorf("%v", no)
	}
}

// Every command can be begun about anything, known or not, on any state: nothing panics, and what is filled in decodes.
func TestFillAnything(t *testing.T) {
	t.Parallel()
	for _, to := range []pt.Milestone{pt.Declared, pt.Verified, pt.Sealed} {
		k := known(t, to, "anna")
		for _, c := range procedure.Commands() {
			for _, subject := range []string{"", "P1r1", "G1", "S2", "DISPUTE/S2", "critical/1", "12 " + k.State.HeadHash, "\x00", "P1r1 nothing"} {
				k.Fill(c.New(), subject)
			}
		}
	}
	k := prefill.Known{State: procedure.NewState(""), Book: known(t, pt.Declared, "anna").Book, Person: "anna"}
	for _, c := range procedure.Commands() {
		k.Fill(c.New(), "P1r1")
	}
}

// A dispute that is owed is the one that is filed.
func TestFillDispute(t *testing.T) {
	t.Parallel()
	k := known(t, pt.Sealed, "carla")
	if owed := prefill.OwedDisputes(k.State); len(owed) != 1 || owed[0] != emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_3 {
		t.Fatalf("owed: %v", owed)
	}
	filing := &emergencyv1.FileDisputeRequest{}
	k.Fill(filing, "")
	if filing.GetConcern() != emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_3 || filing.GetHeadHash() != k.State.HeadHash || filing.GetClaimants()[0] != "carla" || filing.GetRelief() == "" {
		t.Errorf("%v", filing)
	}
}
