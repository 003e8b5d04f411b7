// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// strategy2 is a patch that the critical admin applies before the regular reviews (procedure.md 1.2).
func (s *story) strategy2() []part {
	return append([]part{
		{"2.1      Declare, and call the teams", s.declare},
		{"2        The hole is being used: strategy 1 does not fit", s.escalate},
		{"2.2      Prepare the patch, test it locally, hand it over", s.handOver},
		{"2.3      Deploy", s.deployAlone},
		{"2.4      Document", func(ctx context.Context) error {
			return s.document(ctx, "carla", 2, "A shell injection that was being used was repaired by strategy 2.")
		}},
		{"2.5      Replicate, and review in the regular cycle", func(ctx context.Context) error { return s.regularCycle(ctx, "bert") }},
	}, s.arbitration(emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2, "emergency issue handling under option 2")...)
}

func (s *story) escalate(ctx context.Context) error {
	return s.act(ctx, "carla", "goes to strategy 2, signed: the hole is being used, reviews would come too late", &emergencyv1.EscalateRequest{
		Meta: meta(), Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT, Code: emergencyv1.UnfitCode_UNFIT_CODE_EXPLOIT_ACTIVE,
		Reason: "The configuration is being read by strangers right now; a day of reviews gives them a day.",
	})
}

// handOver lets the assessor prepare the patch, test it on the own machine, and hand it to a named critical admin (seed 2.2).
func (s *story) handOver(ctx context.Context) error {
	diff, base, err := s.w.patch(ctx)
	if err != nil {
		return err
	}
	trees, err := s.w.trees(ctx, base, diff)
	if err != nil {
		return err
	}
	if err := s.w.localTest(ctx); err != nil {
		return err
	}
	s.show.fact(s.since(), "anna attacks her own copy: the patched program prints no secret")
	if err := s.act(ctx, "anna", fmt.Sprintf("registers the patch (%d bytes, sha256 %.12s)", len(diff), patch.Digest(diff)), &emergencyv1.RegisterPatchRequest{
		Meta: meta(), Bytes: diff, Sha256: patch.Digest(diff), BaseCommit: base, BaseTree: trees.BaseTree, ResultTree: trees.ResultTree, BugId: "1042",
	}); err != nil {
		return err
	}
	b, r, err := s.bound(ctx, "anna")
	if err != nil {
		return err
	}
	return s.act(ctx, "anna", fmt.Sprintf("hands %s to carla, with a note of the local test", r.ID), &emergencyv1.ForwardRequest{
		Meta: meta(), Binding: b, To: "carla", RollbackPlan: "The agent restores the tree before the patch.", LocalTest: "ran the attack against my own copy: no secret comes out, a name is still printed",
	})
}

// localTest attacks the assessor's own copy, which has a secret of its own.
func (w world) localTest(ctx context.Context) error {
	if err := os.WriteFile(filepath.Join(w.checkout(), secretFile), []byte(secret+"\n"), 0o600); err != nil {
		return err
	}
	came, err := w.exploit(ctx, w.checkout())
	if err == nil && came {
		err = errors.New("the patched copy is still vulnerable")
	}
	return errors.Join(err, os.Remove(filepath.Join(w.checkout(), secretFile)))
}

// deployAlone applies without an observer: asked for, not there, and owed from then on (10.5).
func (s *story) deployAlone(ctx context.Context) error {
	b, r, err := s.bound(ctx, "carla")
	if err != nil {
		return err
	}
	if err := s.act(ctx, "carla", fmt.Sprintf("deploys %s without an observer: dry run, then apply", r.ID), &emergencyv1.DryRunRequest{Meta: meta(), Binding: b},
		&emergencyv1.StartApplyRequest{Meta: meta(), Binding: b, NoObserverReason: "Nobody of the team answered, and the hole is being used."}); err != nil {
		return err
	}
	if _, err := s.await(ctx, "the agent on the critical host checked every signature, applied the patch and reports the tree that anna prepared", func(in *dashboardv1.Incident) bool {
		return deployed(in) == "VERIFIED"
	}); err != nil {
		return err
	}
	if err := s.act(ctx, "carla", "records the system's health: good", &emergencyv1.RecordHealthRequest{
		Meta: meta(), Binding: b, Result: emergencyv1.HealthResult_HEALTH_RESULT_GOOD, Checks: "the page answers; the attack fails",
	}); err != nil {
		return err
	}
	if _, err := s.await(ctx, "what runs on the host was committed and pushed: host and release branch hold the same tree", func(in *dashboardv1.Incident) bool {
		return in.GetReplication() == "EQUAL"
	}); err != nil {
		return err
	}
	return s.act(ctx, "carl", "wakes up and checks the host's tree independently: the debt of the missing observer is paid", &emergencyv1.ConfirmObserverRequest{
		Meta: meta(), Binding: b, Kind: emergencyv1.ObserverKind_OBSERVER_KIND_AFTER,
	})
}

// regularCycle gives the emergency patch its regular reviews and tests afterwards (seed 2.5, 3.8): by two assessors who are not
// its author.
func (s *story) regularCycle(ctx context.Context, first string) error {
	const after = emergencyv1.Phase_PHASE_AFTER
	b, r, err := s.bound(ctx, "anna")
	if err != nil {
		return err
	}
	approve := emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE
	if err := s.act(ctx, "anna", fmt.Sprintf("brings %s into the regular update cycle", r.ID), &emergencyv1.EnterUpdateCycleRequest{Meta: meta(), Binding: b}); err != nil {
		return err
	}
	if err := s.act(ctx, first, "approves it after a first review", &emergencyv1.RecordFirstReviewRequest{
		Meta: meta(), Binding: b, Verdict: approve, Reason: "No shell any more; quoting is right.", Phase: after,
	}); err != nil {
		return err
	}
	if err := s.awaitState(ctx, "the test server's agent confirms that the tree runs there", func(st *procedure.State) bool {
		now := st.Current()
		return now != nil && now.Cycle != nil && now.Cycle.TestServer != nil
	}); err != nil {
		return err
	}
	for _, who := range []string{"tina", "theo"} {
		came, err := s.w.exploit(ctx, s.w.testing())
		if err != nil {
			return err
		}
		if came {
			return errors.New("the test server is still vulnerable")
		}
		if err := s.act(ctx, who, "attacks the test server and reports pass", &emergencyv1.ReportTestRequest{
			Meta: meta(), Binding: b, Result: emergencyv1.TestResult_TEST_RESULT_PASS, Steps: "ran the attack of the report against the test server", BugNote: "auto", Phase: after,
		}); err != nil {
			return err
		}
	}
	if err := s.act(ctx, "albert", "approves it after a second review", &emergencyv1.RecordSecondReviewRequest{
		Meta: meta(), Binding: b, Verdict: approve, Reason: "Small and right.", Phase: after,
	}); err != nil {
		return err
	}
	return s.act(ctx, "albert", "concludes the regular review: the emergency patch stays as it is", &emergencyv1.ConcludeUpdateCycleRequest{
		Meta: meta(), Binding: b, Outcome: emergencyv1.CycleOutcome_CYCLE_OUTCOME_BLESSED,
	})
}
