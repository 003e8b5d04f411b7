// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/prefill"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Disputes: filing, and the way to an arbitrator (procedure.md 4.5; DRP 1 and 2).

func (a *app) lawCommands() []*cobra.Command {
	return []*cobra.Command{
		group("dispute", "File a dispute, or see how one stands", a.fileCmd(), a.disputeListCmd(), a.disputeShowCmd()),
		group("case", "The way to an arbitrator, and the start of the proceedings", a.openCaseCmd(), a.proposeCmd(), a.appointCmd(true), a.appointCmd(false), a.closeDeclinedCmd(), a.preliminariesCmd()),
		a.ruleCmd(), group("ruling", "Publish a ruling", a.publishCmd()),
		group("direction", "What was ordered, and whether it is done", a.directionListCmd(), a.directionDoneCmd(), a.directionConfirmCmd()),
		group("appeal", "Have a ruling reviewed (DRP 3.4)", a.appealCmd(), a.panelCmd()), a.redactCmd(), a.discloseCmd(),
	}
}

// filing is a dispute as the person wants it.
type filing struct {
	req           *emergencyv1.FileDisputeRequest
	concern, from string
	draft         bool
}

func (a *app) fileCmd() *cobra.Command {
	d := &filing{req: &emergencyv1.FileDisputeRequest{}}
	cmd := leaf("file", "File a dispute about the handling of the emergency (seed 2.4, 3.7; DRP 1)", `
Anybody may; under strategies 2 and 3 a critical admin has to. The four fields of DRP 1.4 are filled in from the history: claimant
is you, respondents are the emergency teams, the complaint is the handling under the option in question with every deviation, and
relief is a review with a finding on each. Each can be given instead. --draft writes all of it as a form; --from files the form
that you have changed. The evidence ends with the history as it is now.`, `
  epatch dispute file
  epatch dispute file --concern strategy-2 --relief "review of the decision to skip the second review"
  epatch dispute file --draft > dispute.txt && epatch dispute file --from dispute.txt`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error { return a.fileDispute(cmd.Context(), d) })
	f := cmd.Flags()
	list := words(emergencyv1.DisputeConcern(0))
	f.StringVar(&d.concern, "concern", "", "what it is about: "+either(list)+" (default: the strategy for which one is owed)")
	f.StringArrayVar(&d.req.Claimants, "claimant", nil, "who files, once for each; restricted (default: you)")
	f.StringArrayVar(&d.req.Respondents, "respondent", nil, "against whom, once for each; restricted (default: the emergency teams)")
	f.StringVar(&d.req.Complaint, "complaint", "", "complaint; restricted (default: the handling under the option, with the deviations)")
	f.StringVar(&d.req.Relief, "relief", "", "what is asked for; public (default: a review with a finding on each deviation)")
	f.StringVar(&d.req.Refiles, "refiles", "", "dispute that was closed without a ruling and is filed again")
	f.BoolVar(&d.draft, "draft", false, "write it as a form, and file nothing")
	f.StringVar(&d.from, "from", "", "file the form; - for standard input")
	complete(cmd, "concern", list...)
	_ = cmd.RegisterFlagCompletionFunc("refiles", a.completeDisputes) // fails only for a flag that does not exist
	return cmd
}

func (a *app) fileDispute(ctx context.Context, d *filing) error {
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	req := d.req
	if d.from != "" {
		if err := a.readDispute(d); err != nil {
			return err
		}
	}
	if req.Concern, err = s.concern(d.concern); err != nil {
		return err
	}
	s.known().Dispute(req)
	if d.draft {
		return writeForm(a.proc.Stdout, "A dispute about "+s.state.Incident+", as it would be filed now. Change what is not right.\nFile it: "+a.typing("epatch dispute file --from FILE"), []part{
			{"concern", "one of " + either(words(emergencyv1.DisputeConcern(0))), word(req.Concern)}, {"claimants", "one a line", strings.Join(req.Claimants, "\n")},
			{"respondents", "one a line", strings.Join(req.Respondents, "\n")}, {"complaint", "", req.Complaint}, {"relief", "public", req.Relief},
		})
	}
	req.Meta, req.HeadHash = s.meta, s.state.HeadHash
	c, err := a.act(ctx, req, "dispute filed: %s", firstLine(req.Complaint))
	if err != nil || a.opt.json {
		return err
	}
	if s.state, err = s.client.State(ctx, s.state.Incident); err != nil {
		return err
	}
	for _, x := range s.state.Disputes {
		if x.Filed.Position >= c.GetFirstPosition() && x.Filed.Position <= c.GetLastPosition() {
			a.out.line("      it is %s, with %s attached; a case manager opens the case", bold(x.ID), plural(len(x.Deviations), "deviation", "deviations"))
		}
	}
	a.then(ctx, s.state.Incident)
	return nil
}

func firstLine(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	return first
}

func (a *app) readDispute(d *filing) error {
	p, err := a.readForm(d.from, "concern", "claimants", "respondents", "complaint", "relief")
	if err != nil {
		return err
	}
	if d.concern == "" {
		d.concern = p["concern"]
	}
	if len(d.req.Claimants) == 0 {
		d.req.Claimants = lines(p["claimants"])
	}
	if len(d.req.Respondents) == 0 {
		d.req.Respondents = lines(p["respondents"])
	}
	if d.req.Complaint == "" {
		d.req.Complaint = p["complaint"]
	}
	if d.req.Relief == "" {
		d.req.Relief = p["relief"]
	}
	return nil
}

// concern is what a dispute is about: as typed, or the strategy for which one is owed, or the one that is in force.
func (s *scene) concern(typed string) (emergencyv1.DisputeConcern, error) {
	if typed != "" {
		return parse[emergencyv1.DisputeConcern]("concern", typed)
	}
	open := prefill.OwedDisputes(s.state)
	switch len(open) {
	case 0:
		return emergencyv1.DisputeConcern(s.state.Strategy), nil // the first three are the strategies
	case 1:
		return open[0], nil
	}
	err := usage("%d disputes are owed; say which one this is", len(open))
	for _, c := range open {
		err = err.hint("epatch dispute file --concern %s", word(c))
	}
	return 0, err
}
