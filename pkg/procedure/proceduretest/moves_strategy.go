// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// strategyAttempts are changes of strategy and the short road of a patch, in their place or not.
func strategyAttempts(s *procedure.State) []attempt {
	short := Joint()
	short.WhyLive = "we are in a hurry"
	position := uint64(1)
	if n := len(s.Failures); n > 0 {
		position = s.Failures[n-1].Position
	}
	list := cycleAttempts(s)
	return append(list, []attempt{
		{c: Unreachable(emergencyv1.Team_TEAM_TESTING)}, {c: Exploited()}, {c: Unfit(emergencyv1.UnfitCode_UNFIT_CODE_TIME)}, {c: StepFailed(position)},
		{c: &emergencyv1.EscalateRequest{Reason: Because}}, {c: Exploited(), facts: &procedure.Facts{Overdue: []string{"DOCUMENT/S2 in e20260101.1"}}},
		{c: Joint()}, {c: short}, {c: GoBack(1)}, {c: GoBack(2)}, {c: HandOverTo("carla")}, {c: Alone()},
		{c: NoEffect(2)}, {c: NoEffect(3)}, {c: DocumentOf(s, 2)}, {c: DocumentOf(s, 3)},
	}...)
}

// cycleAttempts are steps of the update cycle, and of what was captured offline.
func cycleAttempts(s *procedure.State) []attempt {
	late := uint64(1)
	if n := len(s.Late); n > 0 {
		late = s.Late[n-1].Position
	}
	list := []attempt{
		{c: &emergencyv1.EnterUpdateCycleRequest{}}, {c: Bless()}, {c: Reverted()},
		{c: &emergencyv1.ConfirmLateRecordRequest{Event: late, Proof: "I stood beside it"}},
		{c: CapturedAt(&emergencyv1.AnnotateLogRequest{Entry: 1, Text: "the network is down here"}, s.Declared.At)},
	}
	for _, c := range []procedure.Command{FirstReview(approve), FirstReview(changes), SecondReview(approve), Test(pass), Test(fail)} {
		list = append(list, attempt{c: After(c)})
	}
	return list
}
