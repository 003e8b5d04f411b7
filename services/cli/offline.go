// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/cli/client"
)

// Offline capture (G9): while nothing answers, an act is signed when it is done and recorded later, under the rules of then.

// copies is the folder of the histories that this machine has verified; only a person has one.
func (a *app) copies() string {
	if a.opt.profile == "" {
		return ""
	}
	return filepath.Join(a.opt.profile, "histories")
}

// captured says what is in the file and what is left to do.
func (a *app) captured(c *client.Captured) {
	if a.opt.json {
		_ = a.out.json(c.Command) // the same is in the file
		return
	}
	m := c.Command.GetMeta()
	on := ""
	if m.GetIncident() != "" {
		on = " on " + m.GetIncident()
	}
	a.out.line("%s %s%s, as done at %s, signed, in %s", good("captured:"), procedure.CommandName(c.Command), on, a.out.clock(m.GetCapturedAt()), c.File)
	a.out.line("          nothing is recorded yet; as soon as a server answers: epatch submit %s", c.File)
}

// lastKnown is the incident that an act without a server is about: the only open one of which there is a copy.
func (a *app) lastKnown(ctx context.Context, c *client.Client) (string, error) {
	var open []string
	for _, id := range c.Copied() {
		if s, err := c.State(ctx, id); err == nil && s.Status == procedure.Open {
			open = append(open, id)
		}
	}
	if len(open) == 1 {
		return open[0], nil
	}
	err := usage("no server is asked, and %d open incidents are known here", len(open)).hint("name the one that you mean with --incident")
	for _, id := range open {
		err = err.hint("--incident %s", id)
	}
	return "", err
}

func (a *app) submitCmd() *cobra.Command {
	return leaf("submit FILE...", "Send what was captured with --offline-file", `
What was done while no server answered is recorded as late: both times are shown, deadlines go by when it is recorded, and a second
person has to confirm it (epatch confirm-late). It is judged by the rules as they are now; what they refuse is refused, and stays in
its file. Sent twice it is recorded once.`, `
  epatch --offline-file note.json note "the network of the data centre is down, I work at the console"
  epatch submit note.json`,
		cobra.MinimumNArgs(1), func(cmd *cobra.Command, args []string) error {
			for _, file := range args {
				if err := a.submit(cmd.Context(), file); err != nil {
					return err
				}
			}
			return nil
		})
}

func (a *app) submit(ctx context.Context, file string) error {
	if a.opt.offline != "" {
		return usage("submit sends, and --offline-file keeps: give one")
	}
	captured, err := client.ReadCaptured(file)
	if err != nil {
		return usage("%v", err)
	}
	_, err = a.act(ctx, captured, "%s of %s, captured in %s", procedure.CommandName(captured), a.out.clock(captured.GetMeta().GetCapturedAt()), file)
	return err
}

func (a *app) confirmLateCmd() *cobra.Command {
	var proof string
	cmd := leaf("confirm-late [POSITION] --proof TEXT", "Confirm an act that was captured offline; by a second person", `
POSITION is that of the late event; without it the only one that is not confirmed.`, `
  epatch confirm-late --proof "I stood beside her in the data centre"`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error { return a.confirmLate(cmd.Context(), args, proof) })
	cmd.Flags().StringVar(&proof, "proof", "", "what the confirmation rests on")
	return cmd
}

func (a *app) confirmLate(ctx context.Context, args []string, proof string) error {
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	var open []procedure.LateRecord
	for _, l := range s.state.Late {
		if l.Confirmed.Position == 0 {
			open = append(open, l)
		}
	}
	req := &emergencyv1.ConfirmLateRecordRequest{Meta: s.meta, Proof: proof}
	if len(args) > 0 {
		if req.Event, err = position(args[0]); err != nil {
			return err
		}
	}
	if req.Event == 0 {
		if len(open) != 1 {
			err := usage("%d acts that were captured offline wait for a confirmation", len(open))
			for _, l := range open {
				err = err.hint("%s by %s, done at %s: epatch confirm-late %d --proof TEXT", l.Command, l.By, l.Captured.UTC().Format("15:04 MST"), l.Position)
			}
			return err
		}
		req.Event = open[0].Position
	}
	if _, err := a.act(ctx, req, "late act at position %d confirmed", req.Event); err != nil {
		return err
	}
	a.then(ctx, s.state.Incident)
	return nil
}
