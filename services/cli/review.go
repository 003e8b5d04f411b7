// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/prefill"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Reviews, tests, forwarding and vetoes (procedure.md 4.3). All are signed by the person.

// judgement is what a reviewer says.
type judgement struct {
	verdict         emergencyv1.ReviewVerdict
	revision        []string
	reason, repo    string
	after           bool
	plan, to, local string
	noForward       bool
}

// phase is after the deployment if the person says so, or for a revision in the regular update cycle.
func phase(r *procedure.Revision, after bool) emergencyv1.Phase {
	if after {
		return emergencyv1.Phase_PHASE_AFTER
	}
	return prefill.Phase(r)
}

func (a *app) reviewCmd() *cobra.Command {
	first, second := a.judgeCmd("first", "First review (seed 1.6); an approval is followed by the transfer", `
An approval is signed over revision, patch and trees, which are shown. The service then pushes exactly the reviewed tree to
the repository and has it installed on the test server. Read the patch first: epatch patch show.`, a.firstReview),
		a.judgeCmd("second", "Second review (seed 1.8); an approval also forwards to the critical team", `
An approval is signed over revision, patch and trees, which are shown. In the same act the patch is forwarded to the critical
team with a plan for going back; that is signed too. --no-forward leaves it for later.`, a.secondReview)
	return group("review", "Give a review", first, second)
}

func (a *app) judgeCmd(which, about, long string, run func(context.Context, *judgement) error) *cobra.Command {
	j := &judgement{}
	list := words(emergencyv1.ReviewVerdict(0))
	cmd := leaf(which+" VERDICT REVISION", about, long, fmt.Sprintf(`
  epatch review %[1]s approve P1r1
  epatch review %[1]s approve P1r2 --repo ~/cacert-webdb
  epatch review %[1]s changes P1r1 --reason "the index is built without CONCURRENTLY and locks the table"
  epatch review %[1]s veto P1r1 --reason "this opens the login to everybody"`, which),
		oneOf(list, 1), func(cmd *cobra.Command, args []string) (err error) {
			if j.verdict, err = parse[emergencyv1.ReviewVerdict]("verdict", args[0]); err != nil {
				return err
			}
			j.revision = args[1:]
			return run(cmd.Context(), j)
		})
	f := cmd.Flags()
	f.StringVar(&j.reason, "reason", "", "why; needed unless you approve; restricted until disclosure")
	f.StringVar(&j.repo, "repo", "", "your repository; the trees are computed again in it before you sign")
	f.BoolVar(&j.after, "after", false, "a review of the regular update cycle (default: if the revision is in it)")
	if which == "second" {
		f.StringVar(&j.plan, "plan", "", "how to go back (default: the system restores the tree before the patch)")
		f.StringVar(&j.to, "to", "", "critical admin it goes to (default: who holds the slot to deploy)")
		f.BoolVar(&j.noForward, "no-forward", false, "do not forward in the same act")
		_ = cmd.RegisterFlagCompletionFunc("to", a.completePersons) // fails only for a flag that does not exist
	}
	cmd.ValidArgsFunction = a.completeThenRevisions(list...)
	return cmd
}

// judged is the revision a judgement is about, with the bytes proven to be the registered ones.
func (a *app) judged(ctx context.Context, j *judgement, line string) (*scene, *procedure.Revision, error) {
	s, err := a.scene(ctx)
	if err != nil {
		return nil, nil, err
	}
	r, err := s.read(j.revision, line+" "+word(j.verdict)+" %s")
	if err != nil {
		return nil, nil, err
	}
	if j.verdict != emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE && j.reason == "" {
		return nil, nil, usage("say why: --reason").hint("the author needs it to make a better revision")
	}
	p, err := s.patch(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	if j.repo != "" {
		err = a.recompute(ctx, j.repo, r, p.GetBytes())
	}
	return s, r, err
}

func (a *app) firstReview(ctx context.Context, j *judgement) error {
	s, r, err := a.judged(ctx, j, "epatch review first")
	if err != nil {
		return err
	}
	c, err := a.act(ctx, &emergencyv1.RecordFirstReviewRequest{Meta: s.meta, Binding: bind(r), Verdict: j.verdict, Reason: j.reason, Phase: phase(r, j.after)}, "first review of %s: %s", r.ID, word(j.verdict))
	if err != nil {
		return err
	}
	if j.verdict == emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE && phase(r, j.after) == emergencyv1.Phase_PHASE_BEFORE && !a.opt.json {
		a.transferred(ctx, s, r, c)
	}
	a.then(ctx, s.state.Incident)
	return nil
}

// transferTime is how long an approving reviewer waits to see the transfer, which the service does by itself.
const transferTime = 5 * time.Second

// transferred waits for the transfer that follows an approval. Where it takes longer, the review is recorded all the same.
func (a *app) transferred(ctx context.Context, s *scene, r *procedure.Revision, act *emergencyv1.Committed) {
	limit, cancel := context.WithTimeout(ctx, transferTime)
	defer cancel()
	a.progress("the service is transferring %s to the repository", r.ID)
	commit := ""
	err := s.client.Follow(limit, s.state.Incident, func(st *procedure.State, _ *history.Entry) error {
		if now, ok := st.Revision(r.ID); ok && now.Transfer != nil && now.Transfer.Position > act.GetLastPosition() {
			commit = now.Transfer.Commit
			return errEnded
		}
		return nil
	})
	if errors.Is(err, errEnded) {
		a.out.line("      transferred to the repository as commit %s; the test server is next", short(commit))
		return
	}
	a.out.line("%s", a.typing("      it is not transferred to the repository yet; that is done without you, or by hand: epatch transfer"))
}

func (a *app) secondReview(ctx context.Context, j *judgement) error {
	s, r, err := a.judged(ctx, j, "epatch review second")
	if err != nil {
		return err
	}
	if _, err := a.act(ctx, &emergencyv1.RecordSecondReviewRequest{Meta: s.meta, Binding: bind(r), Verdict: j.verdict, Reason: j.reason, Phase: phase(r, j.after)},
		"second review of %s: %s", r.ID, word(j.verdict)); err != nil {
		return err
	}
	if j.verdict == emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE && !j.noForward && phase(r, j.after) == emergencyv1.Phase_PHASE_BEFORE {
		if err := a.forward(ctx, s, r, j); err != nil {
			return fmt.Errorf("the review is recorded, but the patch is not forwarded: %w", err)
		}
	}
	a.then(ctx, s.state.Incident)
	return nil
}

func (a *app) forward(ctx context.Context, s *scene, r *procedure.Revision, j *judgement) error {
	plan := j.plan
	if plan == "" {
		plan = prefill.RollbackPlan(s.state, r)
	}
	to, who := j.to, "the critical team"
	if to == "" {
		to = prefill.Executor(s.state)
	}
	if to != "" {
		who = to
	}
	_, err := a.act(ctx, &emergencyv1.ForwardRequest{Meta: s.fresh(), Binding: bind(r), RollbackPlan: plan, To: to, LocalTest: j.local}, "%s forwarded to %s", r.ID, who)
	return err
}

func (a *app) forwardCmd() *cobra.Command {
	j := &judgement{}
	cmd := leaf("forward [REVISION]", "Hand a patch to the critical team (seed 1.8, 2.2)", `
Under strategy 1 the second review forwards by itself; this is for when it was left out, or the recipient changes. Under strategies 2 and
3 the assessor who prepared the patch hands it over without the regular reviews, and says with --local-test how it was tested.`, `
  epatch forward
  epatch forward --local-test "ran the attack of the report against my own copy: nothing comes out"
  epatch forward P1r1 --to carl --plan "restore the table from the snapshot of 03:00, then roll back"`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			r, err := s.revision(args)
			if err != nil {
				return err
			}
			if err := a.forward(cmd.Context(), s, r, j); err != nil {
				return err
			}
			a.then(cmd.Context(), s.state.Incident)
			return nil
		})
	cmd.Flags().StringVar(&j.plan, "plan", "", "how to go back (default: the system restores the tree before the patch)")
	cmd.Flags().StringVar(&j.to, "to", "", "critical admin it goes to (default: who holds the slot to deploy)")
	cmd.Flags().StringVar(&j.local, "local-test", "", "what was tested locally; strategies 2 and 3")
	_ = cmd.RegisterFlagCompletionFunc("to", a.completePersons) // fails only for a flag that does not exist
	cmd.ValidArgsFunction = a.completeRevisions
	return cmd
}

func (a *app) transferCmd() *cobra.Command {
	var commit string
	cmd := leaf("transfer [REVISION]", "Transfer a reviewed patch to the repository again (seed 1.6)", `
An approving first review transfers by itself. This is for when the repository was down then, or when the first reviewer has
pushed by hand and names the commit.`, `
  epatch transfer
  epatch transfer P1r1 --commit 0d3a7b9`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			r, err := s.revision(args)
			if err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), &emergencyv1.TransferRequest{Meta: s.meta, Binding: bind(r), Commit: commit}, "%s transferred to the repository", r.ID)
			return err
		})
	cmd.Flags().StringVar(&commit, "commit", "", "commit that was pushed by hand")
	cmd.ValidArgsFunction = a.completeRevisions
	return cmd
}

func (a *app) testCmd() *cobra.Command {
	req := &emergencyv1.ReportTestRequest{}
	var after bool
	list := words(emergencyv1.TestResult(0))
	cmd := leaf("test RESULT REVISION --steps TEXT", "Report a test on the test server (seed 1.7)", `
The system checks that the test server holds the reviewed tree. The note in the bug tracker is written by the system, unless
you name one.`, `
  epatch test pass P1r1 --steps "logged in with password and certificate, three browsers"
  epatch test fail P1r1 --steps "logout answers 500"
  epatch test pass P1r1 --steps "as in the bug" --note 7731`,
		oneOf(list, 1), func(cmd *cobra.Command, args []string) (err error) {
			if req.Result, err = parse[emergencyv1.TestResult]("result", args[0]); err != nil {
				return err
			}
			if strings.TrimSpace(req.GetSteps()) == "" {
				return usage("say what you did: --steps")
			}
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			r, err := s.read(args[1:], "epatch test "+args[0]+" %s --steps TEXT")
			if err != nil {
				return err
			}
			req.Meta, req.Binding, req.Phase = s.meta, bind(r), phase(r, after)
			if _, err := a.act(cmd.Context(), req, "test of %s: %s", r.ID, args[0]); err != nil {
				return err
			}
			a.then(cmd.Context(), s.state.Incident)
			return nil
		})
	f := cmd.Flags()
	f.StringVar(&req.Steps, "steps", "", "what you did; restricted until disclosure")
	f.StringVar(&req.BugNote, "note", "auto", "note in the bug tracker; auto lets the system write it")
	f.StringVar(&req.EnvironmentTree, "tree", "", "tree that you tested (default: the one that the test server's agent reported)")
	f.BoolVar(&after, "after", false, "a test of the regular update cycle (default: if the revision is in it)")
	cmd.ValidArgsFunction = a.completeThenRevisions(list...)
	return cmd
}

func (a *app) vetoCmd() *cobra.Command {
	return group("veto", "Stop a revision, or lift a veto (SP 7.4)", a.raiseCmd(), a.liftCmd("withdraw", "Withdraw your own veto", "the new revision answers it"),
		a.liftCmd("overrule", "Overrule a veto, as a deviation; the assessment team lead", "the objection concerns another file, and both reviewers have looked at it again"))
}

func (a *app) raiseCmd() *cobra.Command {
	var reason string
	cmd := leaf("raise [REVISION] --reason TEXT", "Stop a revision; it cannot go on until the veto is lifted", `
Any software assessor who is not its author. A veto after the deployment began stops nothing, and owes an answer.`, `
  epatch veto raise --reason "the new query can be injected through the alias field"`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return usage("say why: --reason")
			}
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			r, err := s.revision(args)
			if err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), &emergencyv1.RaiseVetoRequest{Meta: s.meta, Binding: bind(r), Reason: reason}, "veto against %s", r.ID)
			return err
		})
	cmd.Flags().StringVar(&reason, "reason", "", "why; restricted until disclosure")
	cmd.ValidArgsFunction = a.completeRevisions
	return cmd
}

func (a *app) liftCmd(how, about, example string) *cobra.Command {
	var reason string
	cmd := leaf(how+" [VETO] --reason TEXT", about, `
The veto is the only open one, unless it is named.`, fmt.Sprintf(`
  epatch veto %s --reason "%s"
  epatch veto %s V1 --reason "%s"`, how, example, how, example),
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			veto, err := s.openVeto(args)
			if err != nil {
				return err
			}
			if how == "withdraw" {
				_, err = a.act(cmd.Context(), &emergencyv1.WithdrawVetoRequest{Meta: s.meta, Veto: veto, Reason: reason}, "veto %s withdrawn", veto)
			} else {
				_, err = a.act(cmd.Context(), &emergencyv1.OverruleVetoRequest{Meta: s.meta, Veto: veto, Reason: reason}, "veto %s overruled, as a deviation", veto)
			}
			return err
		})
	least := "10"
	if how == "overrule" {
		least = "40"
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, at least "+least+" characters; restricted until disclosure")
	return cmd
}

func (s *scene) openVeto(named []string) (string, error) {
	if len(named) > 0 {
		return named[0], nil
	}
	var open []string
	for _, v := range s.state.Vetoes {
		if v.State == procedure.VetoOpen {
			open = append(open, v.ID)
		}
	}
	if len(open) == 1 {
		return open[0], nil
	}
	if len(open) == 0 {
		return "", fail(exitRefused, "%s has no open veto", s.state.Incident)
	}
	return "", usage("%s has %d open vetoes; name one", s.state.Incident, len(open)).hint("one of: %s", strings.Join(open, ", "))
}
