// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The regular update cycle after an emergency (seed 2.5 and 3.8).

func (a *app) cycleCmd() *cobra.Command {
	return group("cycle", "Bring an emergency patch through the regular update cycle", a.enterCycleCmd(), a.concludeCycleCmd())
}

func (a *app) enterCycleCmd() *cobra.Command {
	req := &emergencyv1.EnterUpdateCycleRequest{}
	cmd := leaf("enter [REVISION]", "Enter the regular update cycle (seed 2.5, 3.8)", `
Once host and branch are equal, or what differs is explained. From then on the patch gets its two regular reviews and two tests,
with the same commands as before a deployment. Commit and bug are the ones that the history knows.`, `
  epatch cycle enter
  epatch cycle enter P1r1 --commit 0d3a7b9`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			s, r, err := a.deployed(cmd.Context(), args)
			if err != nil {
				return err
			}
			req.Meta, req.Binding = s.meta, bind(r)
			if _, err := a.act(cmd.Context(), req, "%s is in the regular update cycle; its reviews and tests follow", r.ID); err != nil {
				return err
			}
			a.then(cmd.Context(), s.state.Incident)
			return nil
		})
	cmd.Flags().StringVar(&req.Commit, "commit", "", "commit in the repository (default: the one that holds what the host runs)")
	cmd.Flags().StringVar(&req.BugId, "bug", "", "bug id in the tracker (default: the revision's own)")
	cmd.ValidArgsFunction = a.completeRevisions
	return cmd
}

func (a *app) concludeCycleCmd() *cobra.Command {
	req := &emergencyv1.ConcludeUpdateCycleRequest{}
	list := words(emergencyv1.CycleOutcome(0))
	cmd := leaf("conclude CYCLE [REVISION]", "End the regular review of an emergency patch", `
Blessed or changed needs two approving reviews and two passing tests of the cycle; reverted needs one review that is against it.
Changed and reverted name the commit that did it.`, `
  epatch cycle conclude blessed
  epatch cycle conclude reverted --commit 77aa01c`,
		oneOf(list, 1), func(cmd *cobra.Command, args []string) (err error) {
			if req.Outcome, err = parse[emergencyv1.CycleOutcome]("outcome", args[0]); err != nil {
				return err
			}
			s, r, err := a.deployed(cmd.Context(), args[1:])
			if err != nil {
				return err
			}
			req.Meta, req.Binding = s.meta, bind(r)
			if _, err := a.act(cmd.Context(), req, "regular review of %s concluded: %s", r.ID, args[0]); err != nil {
				return err
			}
			a.then(cmd.Context(), s.state.Incident)
			return nil
		})
	cmd.Flags().StringVar(&req.Commit, "commit", "", "commit that changed or reverted it")
	cmd.ValidArgsFunction = a.completeThenRevisions(list...)
	return cmd
}
