// SPDX-License-Identifier: Apache-2.0

package hammer

import (
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// shortMoves bring a patch on the short road of strategy 2 and 3.
func (c *client) shortMoves(s *procedure.State, move func(string, procedure.Command)) {
	r := s.Current()
	if r == nil {
		move(pick(c, assess), proceduretest.Register(1+c.rng.IntN(1000)))
		return
	}
	if open := s.OpenVetoes(r.ID); len(open) > 0 {
		move(open[0].By, &emergencyv1.WithdrawVetoRequest{Veto: open[0].ID, Reason: "I misread the patch"})
	}
	a := s.ApplyOf(r.ID)
	switch {
	case a != nil && (a.State == procedure.BackedOut || a.State == procedure.RolledBack):
		move(pick(c, assess), proceduretest.Register(1+c.rng.IntN(1000)))
	case a != nil:
		c.applyMoves(s, r, a, move)
	case r.Forward == nil || !r.Forward.LocalTest && !r.Forward.Complete:
		move(pick(c, assess), proceduretest.HandOverTo("carla"))
	default:
		move("carla", &emergencyv1.DryRunRequest{})
		move("carla", proceduretest.Alone())
		if c.chance(20) {
			move("carl", proceduretest.Observe())
			move("beate", proceduretest.Veto())
			move("carla", proceduretest.GoBack(1))
		}
	}
}

// cycleMoves bring a revision on in the update cycle.
func (c *client) cycleMoves(s *procedure.State, cycle *procedure.Cycle, move func(string, procedure.Command)) {
	switch {
	case cycle.Concluded.Position > 0:
	case cycle.First == nil:
		move(pick(c, assess), proceduretest.After(proceduretest.FirstReview(emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE)))
	case cycle.Transfer == nil:
		move(cycle.First.By, &emergencyv1.TransferRequest{})
	case cycle.TestServer == nil:
		move("test:"+proceduretest.TestServer, proceduretest.ConfirmServer(s))
	case len(cycle.Tests) < 2:
		move(pick(c, testers), proceduretest.After(proceduretest.Test(emergencyv1.TestResult_TEST_RESULT_PASS)))
	case cycle.Second == nil:
		move(pick(c, assess), proceduretest.After(proceduretest.SecondReview(emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE)))
	default:
		move(pick(c, assess), proceduretest.Bless())
	}
}
