// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"strings"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The short road of a patch under strategies 2 and 3 (seed 2.2, 2.3): prepared and locally tested by an assessor, handed to a
// named critical admin. What is skipped is a deviation, and owed afterwards.

// originOf is where a patch comes from; prepared unless said otherwise.
func originOf(c *emergencyv1.RegisterPatchRequest) emergencyv1.PatchOrigin {
	if c.GetOrigin() == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION {
		return c.GetOrigin()
	}
	return emergencyv1.PatchOrigin_PATCH_ORIGIN_PREPARED
}

// mayPrepare holds the role rows by strategy and origin (matrix 2.2); a session's patch is exactly what the session left.
func (d *decision) mayPrepare(c *emergencyv1.RegisterPatchRequest) *Refusal {
	if !preparerFits(d.s.Strategy, originOf(c), d.role) {
		allowed := roles(sa)
		if originOf(c) == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION {
			allowed = roles(sa, se)
		}
		return refuse(ReasonPreparerRole, "a patch of this origin is registered by %s under strategy %d, not by %s", roleList(allowed), d.s.Strategy, roleWord(d.role)).
			allow("RegisterPatch", c.GetSupersedes(), "ask %s", d.whoHas(allowed))
	}
	if originOf(c) != emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION || d.hypothetical {
		return nil
	}
	for _, x := range d.s.sessionDifferences() {
		if x.is(c.GetSha256(), c.GetBaseTree(), c.GetResultTree()) {
			return nil
		}
	}
	return refuse(ReasonSessionDiff, "no session left exactly this difference").allow("CaptureSessionDiff", "", "register the difference as it was captured; its digest is in the event").
		allow("RegisterPatch", c.GetSupersedes(), "register it as a prepared patch if a person wrote it")
}

// preparerFits tells whether a role may register a patch of an origin. Developers and engineers may under strategy 1; there, as
// anywhere, only assessors and engineers bring in what a session left.
func preparerFits(strategy uint32, origin emergencyv1.PatchOrigin, role emergencyv1.Role) bool {
	switch {
	case teamRole(role) == sa:
		return true
	case origin == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION:
		return role == se
	}
	return strategy == 1
}

// localTest asks for the note on the preparer's local test, which stands for reviews and tests.
func (d *decision) localTest(r *Revision, c *emergencyv1.ForwardRequest) *Refusal {
	if strings.TrimSpace(c.GetLocalTest()) != "" || d.hypothetical {
		return nil
	}
	return refuse(ReasonLocalTest, "how %s was tested locally is not said", r.ID).allow("Forward", r.ID, "say what was tested and how (local test)")
}

// reviewSkipped is the deviation of handing over what no second person approved. A first review is by another than author and
// registrant (X5).
func (r *Revision) reviewSkipped() []emergencyv1.Deviation {
	if r.firstApproved() {
		return nil
	}
	return []emergencyv1.Deviation{emergencyv1.Deviation_DEVIATION_REVIEW_SKIPPED}
}

// handedOver is what the gate asks for under strategies 2 and 3: forwarded with a local test note, or, from before the
// escalation, with everything that strategy 1 asks for.
func (d *decision) handedOver(r *Revision) *Refusal {
	if r.Forward != nil && (r.Forward.LocalTest || r.Forward.Complete) {
		return nil
	}
	return refuse(ReasonNotForwarded, "%s was not handed over to a critical admin", r.ID).
		allow("Forward", r.ID, "with a note on the local test, by %s", d.whoHas(roles(sa)))
}

// fillPreparer ends the preparer's slot of strategy 2: with handing over its step is done, by whoever did it.
func (s *State) fillPreparer(f fact) {
	for i := range s.Slots {
		if sl := &s.Slots[i]; s.Strategy > 1 && sl.Planned == emergencyv1.ResponderStep_RESPONDER_STEP_PREPARE && sl.State != SlotEnded {
			sl.State, sl.Person, sl.Since = SlotEnded, f.who(), f.at
		}
	}
}

// seedStep is the step of chapter 1 that a command does under the strategy in force; the service names it as the authority where
// the person names none (0.7).
func seedStep(row *commandRow, strategy uint32) string {
	type steps struct{ two, three string }
	at, ok := map[string]steps{
		"RegisterPatch": {"seed 2.2", "seed 3.8"}, "Forward": {"seed 2.2", "seed 2.2"}, "DryRun": {"seed 2.3", "seed 2.3"}, "StartApply": {"seed 2.3", "seed 2.3"},
		"ReportApply": {"seed 2.3", "seed 2.3"}, "ReportTree": {"seed 2.3", "seed 2.3"}, "BackOut": {"seed 2.3", "seed 2.3"}, "RollBack": {"seed 2.3", "seed 2.3"},
		"Document": {"seed 2.4", "seed 3.7"},
	}[row.name]
	switch {
	case ok && strategy == 2:
		return at.two
	case ok && strategy == 3:
		return at.three
	}
	return row.authority
}
