// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// dispute is the one that was named, or else the only one that fits.
func (s *scene) dispute(named []string, fits func(*procedure.Dispute) bool, what string) (*procedure.Dispute, error) {
	if len(named) > 0 && named[0] != "" {
		if d, ok := s.state.Dispute(named[0]); ok {
			return d, nil
		}
		return nil, fail(exitRefused, "%s has no dispute %q", s.state.Incident, named[0]).hint("which there are: epatch dispute list")
	}
	var list []*procedure.Dispute
	for i := range s.state.Disputes {
		if d := &s.state.Disputes[i]; fits(d) {
			list = append(list, d)
		}
	}
	switch len(list) {
	case 1:
		return list[0], nil
	case 0:
		f := fail(exitRefused, "%s has no dispute %s", s.state.Incident, what)
		if len(s.state.Disputes) == 0 {
			return nil, f.hint("file one: epatch dispute file")
		}
		return nil, f.hint("how they stand: epatch dispute list")
	}
	err := usage("%s has %d disputes %s; name one", s.state.Incident, len(list), what)
	for _, d := range list {
		err = err.hint("%s: %s, %s", d.ID, word(d.Concern), disputeWord(d.State(s.client.Now())))
	}
	return nil, err
}

// awaitsArbitrator tells whether somebody can be asked to arbitrate.
func (s *scene) awaitsArbitrator(d *procedure.Dispute) bool {
	st := d.State(s.client.Now())
	return st == procedure.DisputeCaseOpened || st == procedure.DisputeAwaiting
}

// isAsked tells whether the person is asked to arbitrate.
func (s *scene) isAsked(d *procedure.Dispute) bool {
	n := len(d.Proposals)
	return d.State(s.client.Now()) == procedure.DisputeProposed && d.Proposals[n-1].Candidate == s.person
}

// arbitrates tells whether the person decides a dispute that is not decided.
func (s *scene) arbitrates(d *procedure.Dispute) bool {
	return d.Open() && (d.Arbitrator == s.person || slices.Contains(d.Panel, s.person))
}

func (a *app) openCaseCmd() *cobra.Command {
	req := &emergencyv1.OpenCaseRequest{}
	cmd := leaf("open [DISPUTE]", "Take control of a filing and give it its case number (DRP 1.3)", `
By a case manager who has not acted in the emergency. The number is the dispute's own id, unless the forum has given another one.
Everybody who acted under strategy 2 or 3 is named as a party by the service itself.`, `
  epatch case open
  epatch case open a20261124.1 --number a20261124.3`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			d, err := s.dispute(args, func(d *procedure.Dispute) bool { return d.State(s.client.Now()) == procedure.DisputeFiled }, "that waits for a case manager")
			if err != nil {
				return err
			}
			if req.CaseNumber == "" {
				req.CaseNumber = d.ID
			}
			req.Meta, req.Dispute = s.meta, d.ID
			if _, err := a.act(cmd.Context(), req, "case %s opened for dispute %s; you are its case manager", req.CaseNumber, d.ID); err != nil {
				return err
			}
			a.then(cmd.Context(), s.state.Incident)
			return nil
		})
	cmd.Flags().StringVar(&req.CaseNumber, "number", "", "case number of the arbitration forum (default: the dispute's id)")
	cmd.Flags().StringArrayVar(&req.ActedParties, "party", nil, "person who acted, once for each; restricted (default: as the history says)")
	cmd.ValidArgsFunction = a.completeDisputes
	return cmd
}

func (a *app) proposeCmd() *cobra.Command {
	cmd := leaf("propose PERSON [DISPUTE]", "Ask one arbitrator of the list (DRP 1.5)", `
One after the other; whoever acted in the emergency, leads a team of it, or is a party cannot be asked.`, `
  epatch case propose arno`,
		cobra.RangeArgs(1, 2), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			d, err := s.dispute(args[1:], s.awaitsArbitrator, "that waits for an arbitrator")
			if err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), &emergencyv1.ProposeArbitratorRequest{Meta: s.meta, Dispute: d.ID, Candidate: args[0]}, "%s is asked to arbitrate %s; answer: epatch case accept --no-conflict, or epatch case decline", args[0], d.ID)
			return err
		})
	cmd.ValidArgsFunction = a.completePersons
	return cmd
}

func (a *app) appointCmd(accept bool) *cobra.Command {
	req := &emergencyv1.RespondAppointmentRequest{Accept: accept}
	use, about, long, example := "accept [DISPUTE] --no-conflict", "Accept an appointment as arbitrator (DRP 1.5)", `
With --no-conflict you declare that you have no conflict of interest; without it nobody is appointed.`, `
  epatch case accept --no-conflict`
	if !accept {
		use, about, long, example = "decline [DISPUTE]", "Decline an appointment as arbitrator (DRP 1.5)", `
A reason is asked for and need not be given.`, `
  epatch case decline
  epatch case decline --reason "I audited the system last year"`
	}
	cmd := leaf(use, about, long, example, cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
		s, err := a.scene(cmd.Context())
		if err != nil {
			return err
		}
		d, err := s.dispute(args, s.isAsked, "for which you are asked")
		if err != nil {
			return err
		}
		done := "you are the arbitrator of %s"
		if !accept {
			done = "declined: %s goes to the next arbitrator"
		}
		req.Meta, req.Dispute = s.meta, d.ID
		if _, err := a.act(cmd.Context(), req, done, d.ID); err != nil {
			return err
		}
		a.then(cmd.Context(), s.state.Incident)
		return nil
	})
	if accept {
		cmd.Flags().BoolVar(&req.NoConflict, "no-conflict", false, "you declare that you have no conflict of interest")
	} else {
		cmd.Flags().StringVar(&req.Reason, "reason", "not stated", "why; restricted")
	}
	cmd.ValidArgsFunction = a.completeDisputes
	return cmd
}

func (a *app) closeDeclinedCmd() *cobra.Command {
	cmd := leaf("close-declined [DISPUTE]", "Close a dispute that no arbitrator took (DRP 1.5)", `
Only once everybody on the list who is free of conflict was asked. The ruling stays owed, and the dispute can be filed again.`, `
  epatch case close-declined`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			d, err := s.dispute(args, s.awaitsArbitrator, "that waits for an arbitrator")
			if err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), &emergencyv1.CloseDeclinedRequest{Meta: s.meta, Dispute: d.ID}, "%s is closed without an arbitrator; the ruling stays owed", d.ID)
			return err
		})
	cmd.ValidArgsFunction = a.completeDisputes
	return cmd
}

func (a *app) preliminariesCmd() *cobra.Command {
	req := &emergencyv1.RecordPreliminariesRequest{}
	var orders []string
	cmd := leaf("preliminaries [DISPUTE] --jurisdiction TEXT --law TEXT", "Begin the proceedings: jurisdiction, law, parties, first orders (DRP 2)", `
By the case's arbitrator. Proceedings are private; an order is tracked until it is confirmed.
An order is `+orderForm+`.`, `
  epatch case preliminaries --jurisdiction "CCA 3.2, DRP 2.1" --law "NSW, Australia"
  epatch case preliminaries --jurisdiction "CCA 3.2" --law "NSW" --order "protect clara 2026-12-01: keep the recording of G1"`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) (err error) {
			if strings.TrimSpace(req.GetJurisdiction()) == "" || strings.TrimSpace(req.GetLaw()) == "" {
				return usage("say why arbitration may decide and which law applies: --jurisdiction, --law")
			}
			if req.Orders, err = a.parseOrders(orders); err != nil {
				return err
			}
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			d, err := s.dispute(args, s.arbitrates, "that you arbitrate")
			if err != nil {
				return err
			}
			req.Meta, req.Dispute = s.meta, d.ID
			if _, err := a.act(cmd.Context(), req, "proceedings in %s begun, with %s", d.ID, plural(len(req.Orders), "order", "orders")); err != nil {
				return err
			}
			a.then(cmd.Context(), s.state.Incident)
			return nil
		})
	f := cmd.Flags()
	f.StringVar(&req.Jurisdiction, "jurisdiction", "", "why arbitration may decide; restricted")
	f.StringVar(&req.Law, "law", "", "law that applies; restricted")
	f.StringArrayVar(&req.Joined, "joined", nil, "party that joins, once for each; restricted")
	f.StringArrayVar(&req.Dismissed, "dismissed", nil, "party that is dismissed, once for each; restricted")
	f.StringArrayVar(&orders, "order", nil, "first order, once for each")
	cmd.ValidArgsFunction = a.completeDisputes
	return cmd
}

func (a *app) completeDisputes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	return a.asked(cmd, func(ctx context.Context) ([]string, error) {
		a.opt.json = true // no word on standard error
		s, err := a.scene(ctx)
		if err != nil {
			return nil, err
		}
		var list []string
		for i := range s.state.Disputes {
			d := &s.state.Disputes[i]
			list = append(list, d.ID+"\t"+harmless(word(d.Concern)+", "+disputeWord(d.State(a.proc.Now()))))
		}
		return list, nil
	})
}
