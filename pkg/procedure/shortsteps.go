// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"slices"
	"strings"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// What somebody can do about the strategy, and what an incident under strategy 2 or 3 waits for (chapter 1.2, 1.3).

// strategyCandidates are the changes of strategy that could make sense. What a person has yet to say is taken as said.
func strategyCandidates(s *State, meta *emergencyv1.CommandMeta) []candidate {
	text := strings.Repeat("said on giving it ", 3)
	unfit := &emergencyv1.EscalateRequest{ // a person can always sign that; other grounds have to be proven
		Meta: meta, Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT, Code: emergencyv1.UnfitCode_UNFIT_CODE_EXPLOIT_ACTIVE, Reason: text,
	}
	list := []candidate{
		{unfit, "", "go to strategy 2"},
		{&emergencyv1.SignJointDeclarationRequest{Meta: meta, WhyNot_1: text, WhyNot_2: text, WhyLive: text}, "", "sign the joint declaration that leads to strategy 3"},
	}
	for to := uint32(1); to < s.Strategy; to++ {
		list = append(list, candidate{&emergencyv1.DeEscalateRequest{Meta: meta, To: to, Reason: text}, fmt.Sprint(to), fmt.Sprintf("go back to strategy %d", to)})
	}
	return list
}

// shortSteps are what strategies 2 and 3 wait for on the road of a patch.
func shortSteps(s *State) []Step {
	number := func(item string) string { return fmt.Sprintf("%d.%s", s.Strategy, item) }
	r := s.Current()
	if s.Strategy == 3 && (r == nil || s.ApplyOf(r.ID) == nil && r.Forward == nil) {
		return nil // the console's steps come first
	}
	switch {
	case r == nil:
		return []Step{{Number: number("2"), Title: "prepare, test locally and register the patch", Command: "RegisterPatch", Persons: s.holders(emergencyv1.ResponderStep_RESPONDER_STEP_PREPARE)}}
	case s.ApplyOf(r.ID) != nil:
		return applySteps(s, r, s.ApplyOf(r.ID))
	}
	if open := s.OpenVetoes(r.ID); len(open) > 0 {
		return []Step{{Number: number("2"), Title: "veto " + open[0].ID + " is open", Command: "WithdrawVeto", Subject: open[0].ID, Persons: []string{open[0].By}}}
	}
	if r.Forward == nil || !r.Forward.LocalTest && !r.Forward.Complete {
		return []Step{{Number: number("2"), Title: "handing over of " + r.ID + " to a critical admin, with a local test", Command: "Forward", Subject: r.ID, Persons: s.preparers(r)}}
	}
	return []Step{{Number: number("3"), Title: "deployment of " + r.ID, Command: "StartApply", Subject: r.ID, Persons: []string{r.Forward.To}}}
}

// preparers are who is to hand a revision over: the assessor who registered it, else whoever holds the slot.
func (s *State) preparers(r *Revision) []string {
	holders := s.holders(emergencyv1.ResponderStep_RESPONDER_STEP_PREPARE)
	if len(holders) == 0 || slices.Contains(holders, r.By) {
		return holders
	}
	return distinct(append(holders, r.By))
}
