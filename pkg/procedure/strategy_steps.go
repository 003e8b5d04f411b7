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

// documentCandidates are the reports that could be written, one for each strategy under which something was done to the host.
func documentCandidates(s *State, meta *emergencyv1.CommandMeta) []candidate {
	var list []candidate
	for n := uint32(1); n <= 3; n++ {
		if _, any := s.effectAfter(n, 0); any || n == s.Strategy {
			list = append(list, candidate{&emergencyv1.DocumentRequest{Meta: meta, Strategy: n}, fmt.Sprintf("S%d", n), fmt.Sprintf("document what was done under strategy %d", n)})
		}
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
	if r != nil && r.Origin == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION {
		return nil
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

// after marks the subject of what is about a revision in the update cycle.
const after = " after"

// cycleCandidates are the steps of the update cycle for everything that is on the host, and the confirmation of late records.
func cycleCandidates(s *State, meta *emergencyv1.CommandMeta) []candidate {
	const approve, phase = emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE, emergencyv1.Phase_PHASE_AFTER
	var list []candidate
	for i := range s.Revisions {
		r := &s.Revisions[i]
		if _, there := s.onHostSince(r); !there && r.Cycle == nil {
			continue
		}
		b, name := r.bind(), r.ID+after
		list = append(list, candidate{&emergencyv1.EnterUpdateCycleRequest{Meta: meta, Binding: b}, r.ID, "bring " + r.ID + " into the regular update cycle"})
		if r.Cycle == nil {
			continue
		}
		list = append(list,
			candidate{&emergencyv1.RecordFirstReviewRequest{Meta: meta, Binding: b, Verdict: approve, Phase: phase}, name, "give the first regular review of " + r.ID},
			candidate{&emergencyv1.TransferRequest{Meta: meta, Binding: b}, name, "transfer " + r.ID + " to the repository for its regular tests"},
			candidate{&emergencyv1.ReportTestRequest{Meta: meta, Binding: b, Result: emergencyv1.TestResult_TEST_RESULT_PASS, BugNote: "auto", Phase: phase}, name, "report a regular test of " + r.ID},
			candidate{&emergencyv1.RecordSecondReviewRequest{Meta: meta, Binding: b, Verdict: approve, Phase: phase}, name, "give the second regular review of " + r.ID},
			candidate{&emergencyv1.ConcludeUpdateCycleRequest{Meta: meta, Binding: b, Outcome: emergencyv1.CycleOutcome_CYCLE_OUTCOME_BLESSED}, r.ID, "conclude the update cycle of " + r.ID},
		)
	}
	for _, l := range s.Late {
		if l.Confirmed.Position == 0 {
			at := fmt.Sprint(l.Position)
			list = append(list, candidate{&emergencyv1.ConfirmLateRecordRequest{Meta: meta, Event: l.Position, Proof: "given on confirming"}, at, "confirm what was captured offline at position " + at})
		}
	}
	return list
}

// cycleSteps are what the revisions in the update cycle wait for; entering it is a debt of its own.
func cycleSteps(s *State) []Step {
	var list []Step
	for i := range s.Revisions {
		if r := &s.Revisions[i]; r.Cycle != nil && r.Cycle.Concluded.Position == 0 {
			list = append(list, s.cycleStep(r))
		}
	}
	return list
}

func (s *State) cycleStep(r *Revision) Step {
	c := &r.Cycle.Checks
	st := Step{Number: "2.5", Subject: r.ID + after, Due: r.Cycle.Entered.At.Add(s.Policy.Duration("regular_review"))}
	if r.Origin == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION || s.Strategy == 3 {
		st.Number = "3.8"
	}
	judged := func() []string { // who wrote it or has judged it in another way
		list := []string{r.Author, r.By}
		for _, p := range r.phases() {
			for _, t := range p.Tests {
				list = append(list, t.By)
			}
		}
		return list
	}
	switch {
	case c.First == nil:
		st.Title, st.Command, st.Not = "first regular review of "+r.ID, "RecordFirstReview", judged()
	case !c.firstApproved() || c.Second != nil:
		st.Title, st.Command, st.Subject = "end of the update cycle of "+r.ID, "ConcludeUpdateCycle", r.ID
	case r.server(c) == nil && c.Transfer == nil:
		st.Title, st.Command, st.Persons = "transfer of "+r.ID+" for its regular tests", "Transfer", []string{c.First.By}
	case r.server(c) == nil:
		st.Title = r.ID + " on the test server, for its regular tests"
	case c.passed() < s.Policy.Count("test.quorum"):
		st.Title, st.Command, st.Not = "regular tests of "+r.ID, "ReportTest", append(testersOf(&Revision{Author: r.Author, By: r.By, Checks: *c}), reviewersOf(r)...)
	default:
		st.Title, st.Command, st.Not = "second regular review of "+r.ID, "RecordSecondReview", append(judged(), c.First.By)
	}
	st.Not = distinct(st.Not)
	return st
}

func reviewersOf(r *Revision) []string {
	var list []string
	for _, c := range r.phases() {
		for _, x := range []*Review{c.First, c.Second} {
			if x != nil {
				list = append(list, x.By)
			}
		}
	}
	return list
}
