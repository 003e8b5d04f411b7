// SPDX-License-Identifier: Apache-2.0

package deploymenttest

import (
	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// because is a reason that is long enough for an escalation.
const because = "visitors see each other's data right now, and more of them with every minute"

// HandedOver is an incident under strategy 2 whose patch anna prepared, tested locally and handed to carla.
func (r *Rig) HandedOver() string {
	r.Helper()
	incident := r.Declare()
	r.Do("anna", incident, &emergencyv1.EscalateRequest{
		Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT, Code: emergencyv1.UnfitCode_UNFIT_CODE_EXPLOIT_ACTIVE, Reason: because,
	}, procedure.Facts{})
	r.Do("anna", incident, &emergencyv1.RegisterPatchRequest{
		Bytes: r.Patch, Sha256: patch.Digest(r.Patch), BaseCommit: r.Base, BaseTree: r.BaseTree(), ResultTree: r.ResultTree(), BugId: "bug-1500",
	}, procedure.Facts{Patch: &procedure.PatchFacts{
		Artefact: &emergencyv1.Artefact{Sha256: patch.Digest(r.Patch), Size: uint64(len(r.Patch)), MediaType: "text/x-diff"}, BaseTree: r.BaseTree(), ResultTree: r.ResultTree(), Files: 1,
	}})
	r.Do("anna", incident, &emergencyv1.ForwardRequest{To: "carla", RollbackPlan: "back out", LocalTest: "logged in as two people on my own machine"}, procedure.Facts{})
	return incident
}

// StartedAlone is an incident under strategy 2 whose apply carla started without an observer, after a dry run that nobody made.
func (r *Rig) StartedAlone(byHand bool) string {
	r.Helper()
	incident := r.HandedOver()
	r.Do("carla", incident, &emergencyv1.DryRunRequest{}, procedure.Facts{Agent: &procedure.AgentFacts{
		Host: Host, HostTree: r.BaseTree(), ResultTree: r.ResultTree(), Clean: true, Files: 4,
	}})
	r.Do("carla", incident, &emergencyv1.StartApplyRequest{ByHand: byHand, NoObserverReason: "carl does not answer"}, procedure.Facts{})
	return incident
}
