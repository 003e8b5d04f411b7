// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Rulings, what they order, and appeals (DRP 3).

// rulingParts are the parts of a ruling's form: the five of DRP 3.1, where the date is when it is recorded, and what the
// procedure adds to them.
func rulingParts() []string {
	return []string{"parties", "facts", "logic", "directions", "place", "judgements", "lifted"}
}

func (a *app) ruleCmd() *cobra.Command {
	req := &emergencyv1.DeliverRulingRequest{}
	var draft bool
	cmd := leaf("rule FILE [DISPUTE]", "Deliver a ruling from a form (DRP 3.1); --draft writes the form", `
The form has the five parts of DRP 3.1, with the date on which it is recorded, and a place for the finding on every deviation that was
attached. It is signed with your key. In a request for review say with --reopen whether the case is re-opened; the reasons are the
part "logic". FILE is the form as you have filled it in; - reads standard input.`, `
  epatch rule --draft > ruling.txt
  epatch rule ruling.txt
  epatch rule ruling.txt a20261124.2 --reopen`,
		cobra.MaximumNArgs(2), func(cmd *cobra.Command, args []string) error {
			if draft {
				return a.draftRuling(cmd.Context(), args)
			}
			if len(args) == 0 {
				return usage("which file holds the ruling?").hint("write the form to be filled in: epatch rule --draft")
			}
			return a.rule(cmd.Context(), req, args)
		})
	f := cmd.Flags()
	f.BoolVar(&draft, "draft", false, "write the form, with what the history knows, and rule nothing")
	f.BoolVar(&req.Sealed, "sealed", false, "keep it secret; needs the Board's confirmation (DRP 3.2)")
	f.StringVar(&req.BoardConfirmation, "board", "", "the Board's reference for a sealed ruling")
	f.BoolVar(&req.Reopen, "reopen", false, "the case is re-opened; for a request for review")
	return cmd
}

func (a *app) draftRuling(ctx context.Context, named []string) error {
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	d, err := s.dispute(named, s.arbitrates, "that you arbitrate")
	if err != nil {
		return err
	}
	var judgements, lifted []string
	for _, x := range d.Deviations {
		judgements = append(judgements, fmt.Sprintf("%d %s:", x.Position, word(x.Deviation)))
	}
	for _, o := range procedure.Debts(s.state) {
		if o.Open() && o.Kind != "RULING" {
			lifted = append(lifted, "open: "+o.ID+", owed by "+orRole(o))
		}
	}
	about := fmt.Sprintf("Ruling in %s on %s. Lines that begin with # are no part of it.\nDeliver it: %s", d.ID, s.state.Incident, a.typing("epatch rule FILE"))
	return writeForm(a.proc.Stdout, about, []part{
		{"parties", "claimants and respondents, as you find them", ""}, {"facts", "what happened; positions of the history prove it", ""}, {"logic", "your reasoning", ""},
		{"directions", "one a line: " + orderForm, ""}, {"place", "where you rule; the date is when it is recorded", ""},
		{"judgements", "behind each colon: " + either(words(emergencyv1.Finding(0))), strings.Join(judgements, "\n")},
		{"lifted", "ids of obligations that you lift, one a line\n" + strings.Join(lifted, "\n"), ""},
	})
}

func (a *app) rule(ctx context.Context, req *emergencyv1.DeliverRulingRequest, args []string) error {
	p, err := a.readForm(args[0], rulingParts()...)
	if err != nil {
		return err
	}
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	d, err := s.dispute(args[1:], s.arbitrates, "that you arbitrate")
	if err != nil {
		return err
	}
	req.Meta, req.Dispute, req.EvidenceRoot = s.meta, d.ID, s.state.HeadHash
	req.Parties, req.Facts, req.Logic, req.Place, req.Lifted = p["parties"], p["facts"], p["logic"], p["place"], lines(p["lifted"])
	if req.Directions, err = a.parseOrders(lines(p["directions"])); err != nil {
		return err
	}
	if req.Judgements, err = judgements(d, p["judgements"]); err != nil {
		return err
	}
	done := fmt.Sprintf("ruling in %s delivered, with %s", d.ID, plural(len(req.Directions), "direction", "directions"))
	if d.Review() {
		done = "review ruled: the case is not re-opened"
		if req.Reopen {
			done = "review ruled: the case is re-opened; the dispute officer forms a panel"
		}
	}
	if _, err := a.act(ctx, req, "%s", done); err != nil {
		return err
	}
	a.then(ctx, s.state.Incident)
	return nil
}

// judgements reads the finding on each deviation; what is missing is named, before anything is signed.
func judgements(d *procedure.Dispute, text string) ([]*emergencyv1.Judgement, error) {
	findings := map[string]emergencyv1.Finding{}
	for _, l := range lines(text) {
		what, finding, ok := strings.Cut(l, ":")
		if !ok {
			return nil, usage("%q is no judgement", l).hint("write POSITION DEVIATION: FINDING, as in the form")
		}
		if finding = strings.TrimSpace(finding); finding == "" {
			continue
		}
		f, err := parse[emergencyv1.Finding]("finding", finding)
		if err != nil {
			return nil, err
		}
		findings[strings.Join(strings.Fields(what), " ")] = f
	}
	var list []*emergencyv1.Judgement
	var missing []string
	for _, x := range d.Deviations {
		key := fmt.Sprintf("%d %s", x.Position, word(x.Deviation))
		f := findings[key]
		if f == 0 {
			missing = append(missing, key+": "+strings.Join(words(f), ", "))
		}
		delete(findings, key)
		list = append(list, &emergencyv1.Judgement{Position: x.Position, Deviation: x.Deviation, Finding: f})
	}
	for key := range findings {
		return nil, usage("%q is no deviation that is attached to %s", key, d.ID)
	}
	if len(missing) > 0 {
		return nil, &failure{code: exitUsage, what: plural(len(missing), "deviation is", "deviations are") + " not judged yet", hints: missing}
	}
	return list, nil
}

func (a *app) publishCmd() *cobra.Command {
	var file string
	cmd := leaf("publish [TEXT] [RULING]", "Publish a ruling within privacy; of a sealed one only that it exists", `
By the case manager. The text goes to the public log: no names, no member data. --file reads it from a file.`, `
  epatch ruling publish "the escalation was justified; the keys of webdb are to be renewed"
  epatch ruling publish --file ruling-public.txt`,
		cobra.MaximumNArgs(2), func(cmd *cobra.Command, args []string) error {
			text := ""
			if file != "" {
				data, err := readText(file)
				if err != nil {
					return err
				}
				text = data
			} else if len(args) > 0 {
				text, args = args[0], args[1:]
			}
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			r, err := s.ruling(args, func(r *procedure.Ruling) bool { return r.Published.Position == 0 }, "that is not published")
			if err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), &emergencyv1.PublishRulingRequest{Meta: s.meta, Ruling: r.ID, Text: text}, "ruling %s published", r.ID)
			return err
		})
	cmd.Flags().StringVar(&file, "file", "", "file with the text")
	return cmd
}

func (a *app) directionListCmd() *cobra.Command {
	return leaf("list", "What was ordered, to whom, until when, and whether it is done", `
The text of a direction is read with epatch details and its position.`, `
  epatch direction list`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			if a.opt.json {
				return a.out.jsonValue(s.state.Directions)
			}
			if len(s.state.Directions) == 0 {
				a.out.line("nothing is ordered in %s", s.state.Incident)
			}
			a.directions(s.state)
			return nil
		})
}

func (a *app) directionDoneCmd() *cobra.Command {
	var proof string
	cmd := leaf("done [DIRECTION] --proof TEXT", "Report that you carried out a direction", `
The direction is the only open one for you, unless it is named. Somebody of the arbitration confirms it then.`, `
  epatch direction done --proof "keys renewed, see ticket 8812"
  epatch direction done D2 --proof "log published"`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(proof) == "" {
				return usage("say what proves it: --proof")
			}
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			d, err := s.direction(args, func(d *procedure.Direction) bool { return d.Reported.Position == 0 && s.named(d) }, "for you")
			if err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), &emergencyv1.ReportDirectionDoneRequest{Meta: s.meta, Direction: d.ID, Proof: proof}, "direction %s reported as done; the case manager or arbitrator confirms it", d.ID)
			return err
		})
	cmd.Flags().StringVar(&proof, "proof", "", "what proves it; restricted")
	return cmd
}

func (a *app) directionConfirmCmd() *cobra.Command {
	return leaf("confirm [DIRECTION]", "Confirm that a direction was carried out", `
By the case manager or an arbitrator, not by who did it.`, `
  epatch direction confirm
  epatch direction confirm D2`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			d, err := s.direction(args, func(d *procedure.Direction) bool { return d.Reported.Position > 0 && d.Done.Position == 0 }, "that is reported as done")
			if err != nil {
				return err
			}
			c, err := a.act(cmd.Context(), &emergencyv1.ConfirmDirectionRequest{Meta: s.meta, Direction: d.ID}, "direction %s confirmed", d.ID)
			if err == nil {
				a.then(cmd.Context(), c.GetIncident())
			}
			return err
		})
}

func (a *app) appealCmd() *cobra.Command {
	list := words(emergencyv1.ReviewGround(0))
	cmd := leaf("request GROUND TEXT [RULING]", "Ask for a review of a ruling (DRP 3.4)", `
By any party or member. The ruling stays binding meanwhile; another arbitrator decides whether the case is re-opened.`, `
  epatch appeal request injustice "the log of mirror 2 was never looked at"`,
		cobra.RangeArgs(2, 3), func(cmd *cobra.Command, args []string) error {
			ground, err := parse[emergencyv1.ReviewGround]("ground", args[0])
			if err != nil {
				return err
			}
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			r, err := s.ruling(args[2:], func(*procedure.Ruling) bool { return true }, "")
			if err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), &emergencyv1.RequestReviewRequest{Meta: s.meta, Ruling: r.ID, Ground: ground, Text: args[1]}, "review of ruling %s requested", r.ID)
			return err
		})
	cmd.ValidArgs = list
	return cmd
}

func (a *app) panelCmd() *cobra.Command {
	req := &emergencyv1.FormAppealPanelRequest{}
	cmd := leaf("panel PERSON PERSON PERSON", "Form a panel of three for a re-opened case (DRP 3.4)", `
By the dispute officer. The first person named is the senior one, unless --senior names another. None of them was in the case or its review.`, `
  epatch appeal panel arno adele axel
  epatch appeal panel arno adele axel --senior axel`,
		cobra.ExactArgs(3), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			d, err := s.dispute([]string{req.Dispute}, func(d *procedure.Dispute) bool { return d.State(s.client.Now()) == procedure.DisputeReopened }, "that is re-opened")
			if err != nil {
				return err
			}
			req.Meta, req.Dispute, req.Members = s.meta, d.ID, args
			if req.Senior == "" {
				req.Senior = args[0]
			}
			_, err = a.act(cmd.Context(), req, "panel formed: %s; %s is senior", strings.Join(args, ", "), req.Senior)
			return err
		})
	cmd.Flags().StringVar(&req.Senior, "senior", "", "the senior one (default: the first)")
	cmd.Flags().StringVar(&req.Dispute, "dispute", "", "dispute of the review (default: the only one that is re-opened)")
	cmd.ValidArgsFunction = a.completePersons
	return cmd
}

// position reads an event's position.
func position(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, usage("%q is no position; they are 1, 2, 3 ...", text).hint("they are listed by epatch timeline")
	}
	return n, nil
}
