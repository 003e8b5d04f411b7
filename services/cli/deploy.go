// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/prefill"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The deployment: started by a person's signature, then followed on the verified history until it is certain how it ended.

// deployment is what the executor says of it.
type deployment struct {
	revision []string
	reason   string
	byHand   bool
	noWait   bool
	wait     time.Duration
	goal     procedure.ApplyState // what it must end as; any other end is a failure
}

func (a *app) deployCmd() *cobra.Command {
	d := &deployment{goal: procedure.Verified}
	cmd := leaf("deploy [REVISION]", "Dry run, apply, verify: bring the patch to the critical host (seed 1.9, 2.3)", `
Runs the dry run, then signs and starts the deployment with you as executor, then follows it until the host's agent has
proven what the host holds. Stops where something differs, and says so: exit code 7. Ctrl-C ends the following, not the
deployment. Host and observer are the incident's own.

Under strategy 2 nobody need observe; say why with --no-observer-reason, it is a debt that another admin pays afterwards.
With --by-hand you apply the patch yourself, under the observer's eyes; then epatch report-apply.`, `
  epatch deploy
  epatch deploy P1r2
  epatch deploy --no-observer-reason "carl and clara were called three times and do not answer"
  epatch deploy --by-hand`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			d.revision = args
			return a.deploy(cmd.Context(), d)
		})
	f := cmd.Flags()
	f.BoolVar(&d.byHand, "by-hand", false, "you apply the patch yourself; the agent only verifies and reports")
	f.StringVar(&d.reason, "no-observer-reason", "", "why nobody observes; strategy 1: only where the critical team lead has waived it; restricted")
	a.waitFlags(cmd, d)
	cmd.ValidArgsFunction = a.completeRevisions
	return cmd
}

func (a *app) waitFlags(cmd *cobra.Command, d *deployment) {
	cmd.Flags().BoolVar(&d.noWait, "no-wait", false, "do not follow it; look later with epatch status")
	cmd.Flags().DurationVar(&d.wait, "wait", 10*time.Minute, "how long to follow it")
}

func (a *app) deploy(ctx context.Context, d *deployment) error {
	s, r, err := a.about(ctx, d.revision)
	if err != nil {
		return err
	}
	// Asked before anything is done on the host; the dry run itself is what comes next.
	no := a.refusal(s, "StartApply", r.ID)
	told := no != nil && no.Reason == procedure.ReasonObserverMissing && d.reason != "" // what is asked there is said already
	if no != nil && no.Reason != procedure.ReasonDryRunMissing && !told {
		return no
	}
	if err := a.dryRun(ctx, s, r); err != nil {
		return err
	}
	observer := s.known().Observer(r)
	req := &emergencyv1.StartApplyRequest{Meta: s.fresh(), Binding: bind(r), Host: s.state.Host(), Observer: observer, NoObserverReason: d.reason, ByHand: d.byHand}
	seen := "nobody observing, which is a deviation"
	if observer != "" {
		seen = observer + " observing"
	}
	c, err := a.act(ctx, req, "deployment of %s on %s started, %s", r.ID, s.state.Host(), seen)
	if err != nil {
		return err
	}
	if d.byHand {
		return a.handWork(s, r)
	}
	return a.follow(ctx, s, r, d, c)
}

// refusal is what the rules say now of a command about a subject; nil where they allow it or do not know it.
func (a *app) refusal(s *scene, command, subject string) *procedure.Refusal {
	for _, o := range s.options(a.proc.Now()) {
		if o.Command == command && o.Subject == subject {
			return o.Refusal
		}
	}
	return nil
}

func (a *app) handWork(s *scene, r *procedure.Revision) error {
	if a.opt.json {
		return nil
	}
	a.out.line("now apply it yourself on %s:", s.state.Host())
	a.out.line("  %s > %s.diff       the bytes that were reviewed", a.typing("epatch patch show "+r.ID+" --raw"), r.ID)
	a.out.line("  git apply --check %s.diff && git apply %s.diff", r.ID, r.ID)
	a.out.line("then say how it went; the agent reports the tree:")
	a.out.line("%s", a.typing("  epatch report-apply applied"))
	a.out.line("%s", a.typing("  epatch report-apply failed --detail TEXT"))
	return nil
}

func (a *app) reportApplyCmd() *cobra.Command {
	d := &deployment{goal: procedure.Verified}
	var detail string
	list := words(emergencyv1.ApplyOutcome(0))
	cmd := leaf("report-apply APPLIED [REVISION]", "Say how applying by hand went", `
Only after epatch deploy --by-hand, by the executor. Then follows until the agent has proven what the host holds.`, `
  epatch report-apply applied
  epatch report-apply failed --detail "third hunk does not fit; former files restored"`,
		oneOf(list, 1), func(cmd *cobra.Command, args []string) error {
			outcome, err := parse[emergencyv1.ApplyOutcome]("outcome", args[0])
			if err != nil {
				return err
			}
			s, r, err := a.deployed(cmd.Context(), args[1:])
			if err != nil {
				return err
			}
			req := &emergencyv1.ReportApplyRequest{Meta: s.meta, Binding: bind(r), Outcome: outcome, Detail: detail}
			c, err := a.act(cmd.Context(), req, "reported: %s %s by hand", r.ID, args[0])
			if err != nil {
				return err
			}
			return a.follow(cmd.Context(), s, r, d, c)
		})
	cmd.Flags().StringVar(&detail, "detail", "", "what happened; restricted")
	a.waitFlags(cmd, d)
	cmd.ValidArgsFunction = a.completeThenRevisions(list...)
	return cmd
}

func (a *app) backOutCmd() *cobra.Command {
	d := &deployment{goal: procedure.BackedOut}
	cmd := leaf("back-out [REVISION]", "Restore the tree before a failed or mismatched deployment", `
Never asks for anything but that you want it. Follows until the agent has proven that the former tree is back.`, `
  epatch back-out
  epatch back-out --reason "half of the files are old"`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			s, r, err := a.deployed(cmd.Context(), args)
			if err != nil {
				return err
			}
			if d.reason == "" {
				d.reason = prefill.BackOutReason(s.state, r)
			}
			c, err := a.act(cmd.Context(), &emergencyv1.BackOutRequest{Meta: s.meta, Binding: bind(r), Reason: d.reason}, "%s is being backed out on %s", r.ID, s.state.Host())
			if err != nil {
				return err
			}
			return a.follow(cmd.Context(), s, r, d, c)
		})
	cmd.Flags().StringVar(&d.reason, "reason", "", "why (default: what the history says of the deployment); restricted")
	a.waitFlags(cmd, d)
	cmd.ValidArgsFunction = a.completeRevisions
	return cmd
}

func (a *app) rollBackCmd() *cobra.Command {
	d := &deployment{goal: procedure.RolledBack}
	var observer string
	cmd := leaf("roll-back [REVISION] --reason TEXT", "Take a verified patch back", `
Signed by you as executor; the observer is the one of the deployment, unless another one is named. Follows until the agent
has proven that the tree before the patch is back.`, `
  epatch roll-back --reason "members without certificate cannot register any more"
  epatch roll-back --reason "..." --observer carl`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(d.reason) == "" {
				return usage("say why: --reason")
			}
			s, r, err := a.deployed(cmd.Context(), args)
			if err != nil {
				return err
			}
			if observer == "" {
				observer = s.known().SecondPair(r)
			}
			if no := a.refusal(s, "RollBack", r.ID); no != nil && observer == "" {
				return no
			}
			if observer == "" {
				return usage("nobody observed the deployment; name who observes now: --observer")
			}
			c, err := a.act(cmd.Context(), &emergencyv1.RollBackRequest{Meta: s.meta, Binding: bind(r), Reason: d.reason, Observer: observer}, "%s is being rolled back on %s", r.ID, s.state.Host())
			if err != nil {
				return err
			}
			return a.follow(cmd.Context(), s, r, d, c)
		})
	cmd.Flags().StringVar(&d.reason, "reason", "", "why; restricted")
	cmd.Flags().StringVar(&observer, "observer", "", "second critical admin (default: of the deployment)")
	a.waitFlags(cmd, d)
	_ = cmd.RegisterFlagCompletionFunc("observer", a.completePersons) // fails only for a flag that does not exist
	cmd.ValidArgsFunction = a.completeRevisions
	return cmd
}

// errEnded ends the following; errFailed when the agent has reported a failure, and no tree after it.
var (
	errEnded  = errors.New("ended")
	errFailed = errors.New("failed")
)

// treeTime is how long to wait for the agent's report of the tree after it has reported a failure.
const treeTime = 20 * time.Second

// follow prints what happens on the host after an act, until it is certain, and says how it ended.
func (a *app) follow(ctx context.Context, s *scene, r *procedure.Revision, d *deployment, act *emergencyv1.Committed) error {
	if d.noWait {
		return nil
	}
	limit, cancel := context.WithTimeout(ctx, d.wait)
	defer cancel()
	limit, giveUp := context.WithCancelCause(limit)
	defer giveUp(nil)
	a.progress("following %s on %s; Ctrl-C ends the following, not the deployment", r.ID, s.state.Host())
	var last *procedure.State
	err := s.client.Follow(limit, s.state.Incident, func(st *procedure.State, e *history.Entry) error {
		last = st
		if e.Record.GetFirstPosition() < act.GetFirstPosition() {
			return nil // before the act
		}
		a.step(e)
		switch apply := st.ApplyOf(r.ID); {
		case apply == nil:
		case apply.State == procedure.ApplyFailed:
			time.AfterFunc(treeTime, func() { giveUp(errFailed) })
		case !apply.Running():
			return errEnded
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnded), errors.Is(context.Cause(limit), errFailed):
		return a.ended(ctx, s, r, last, d.goal)
	case ctx.Err() != nil:
		return fail(exitInterrupted, "you follow no more; %s goes on on %s without you", r.ID, s.state.Host()).hint("look again: epatch status, epatch watch")
	case errors.Is(err, context.DeadlineExceeded):
		return fail(exitAway, "after %s it is not certain how %s ended on %s: its agent has not reported", span(d.wait), r.ID, s.state.Host()).
			hint("is the agent running on %s? it goes on where it was", s.state.Host()).hint("look again: epatch status, epatch watch")
	}
	return err
}

// step prints the events of a record, in words.
func (a *app) step(e *history.Entry) {
	if a.opt.json {
		return
	}
	at := e.Record.GetRecordedAt().AsTime().In(a.out.local).Format("15:04:05 MST")
	for i, ev := range e.Record.GetEvents() {
		_, name, _ := strings.Cut(ev.GetType(), ".")
		if strings.HasPrefix(name, "Obligation") || name == "DeliveryReported" || name == "CommandRefused" {
			continue // of no interest while the host is changing
		}
		a.out.line("%s  %4d  %s", at, e.Record.GetFirstPosition()+uint64(i), eventWords(name))
	}
}

// eventWords is an event's name in words: PatchApplied is "patch applied".
func eventWords(name string) string {
	var b strings.Builder
	for i, r := range name {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte(' ')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func applyWords(st procedure.ApplyState) string {
	return strings.ReplaceAll(strings.ToLower(string(st)), "_", " ")
}

// ended says how it ended, from the verified history alone.
func (a *app) ended(ctx context.Context, s *scene, r *procedure.Revision, st *procedure.State, goal procedure.ApplyState) error {
	apply := st.ApplyOf(r.ID)
	if a.opt.json {
		if err := a.out.jsonValue(map[string]any{"deployment": map[string]any{
			"revision": apply.Revision, "host": apply.Host, "state": string(apply.State), "pre_tree": apply.PreTree, "host_tree": apply.HostTree, "position": apply.Last,
		}}); err != nil {
			return err
		}
	}
	if apply.State != goal {
		return otherwise(st, r, apply)
	}
	if a.opt.json {
		return nil
	}
	words := map[procedure.ApplyState]string{
		procedure.Verified:   "%s runs on %s: the host holds exactly the reviewed tree %s",
		procedure.BackedOut:  "%s is backed out: %s holds the tree before it again, %s",
		procedure.RolledBack: "%s is rolled back: %s holds the tree before it again, %s",
	}
	a.out.line("%s "+words[goal], good("proven:"), r.ID, apply.Host, apply.HostTree)
	a.then(ctx, s.state.Incident)
	return nil
}

// otherwise says what the host holds instead, and what to do.
func otherwise(st *procedure.State, r *procedure.Revision, apply *procedure.Apply) error {
	host, before := apply.Host, apply.PreTree
	if before == "" {
		before = r.BaseTree // as the dry run saw it
	}
	differs := func(format string, args ...any) *failure { return fail(exitDiffers, format, args...) }
	switch apply.State {
	case procedure.BackedOut, procedure.RolledBack:
		return differs("%s was not applied; it is proven that %s holds the tree before it, %s", r.ID, host, apply.HostTree).
			hint("what happened: epatch timeline --from %d", apply.Position).hint("then a new revision: epatch patch register FILE --bug ID")
	case procedure.ApplyFailed:
		return differs("%s was not applied on %s: the agent reports a failure, and not yet what the host holds", r.ID, host).
			hint("what happened: epatch details %d", apply.Last).hint("restore and prove the former tree: epatch back-out")
	case procedure.Mismatch:
		return differs("%s holds another tree than was reviewed: it reports %s, reviewed is %s", host, apply.HostTree, r.ResultTree).
			hint("restore the former tree: epatch back-out").hint("which paths changed: epatch details %d", apply.Last).hint("it has to be explained or taken back within %s", span(st.Policy.Duration("mismatch")))
	case procedure.BackOutUnproven:
		return differs("it is not proven that %s holds the tree before %s again: it reports %s, before was %s", host, r.ID, apply.HostTree, before).
			hint("look at the host; then again: epatch back-out").hint("which paths changed: epatch details %d", apply.Last)
	case procedure.Applying, procedure.Applied, procedure.Verified, procedure.BackingOut, procedure.RollingBack:
	}
	return differs("%s on %s is %s", r.ID, host, applyWords(apply.State)).hint("look again: epatch status, epatch watch")
}
