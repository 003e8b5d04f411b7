// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// How disputes stand, and what is done about single restricted values (procedure.md 8).

func (a *app) disputeListCmd() *cobra.Command {
	return leaf("list", "The disputes of the incident, how old they are and what they wait for", `
A dispute without an arbitrator ages in public.`, `
  epatch dispute list
  epatch dispute list --json`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			if a.opt.json {
				return a.out.jsonValue(s.state.Disputes)
			}
			if len(s.state.Disputes) == 0 {
				a.out.line("%s has no dispute", s.state.Incident)
			}
			a.disputes(s.state)
			return nil
		})
}

func (a *app) disputeShowCmd() *cobra.Command {
	cmd := leaf("show [DISPUTE]", "One dispute: what it says, who decides it, what is to be judged", `
Claimants, respondents and complaint are shown to those who may read them; every reading is recorded.`, `
  epatch dispute show
  epatch dispute show a20261124.1`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			d, err := s.dispute(args, func(*procedure.Dispute) bool { return true }, "")
			if err != nil {
				return err
			}
			if a.opt.json {
				return a.out.jsonValue(d)
			}
			return a.showDispute(cmd.Context(), s, d)
		})
	cmd.ValidArgsFunction = a.completeDisputes
	return cmd
}

func (a *app) showDispute(ctx context.Context, s *scene, d *procedure.Dispute) error {
	now := a.proc.Now()
	a.out.line("%s  %s, %s, %s old", bold(d.ID), word(d.Concern), disputeWord(d.State(now)), span(now.Sub(d.Filed.At)))
	a.out.field("filed", "%s by %s, position %d", a.out.at(d.Filed.At), d.Filed.By, d.Filed.Position)
	if d.Case != "" {
		a.out.field("case", "%s, case manager %s", d.Case, d.Opened.By)
	}
	for _, p := range d.Proposals {
		a.out.field("arbitrator", "%s, %s", p.Candidate, proposalWords(p, a.out, now))
	}
	if len(d.Panel) > 0 {
		a.out.field("panel", "%s; %s is senior", strings.Join(d.Panel, ", "), d.Senior)
	}
	if d.Mailed.Position > 0 {
		a.out.field("by mail", "%s %s", d.Mailed.Result, a.out.at(d.Mailed.At))
	}
	a.out.field("evidence", "up to position %d, %s", d.Evidence, d.EvidenceHash)
	for _, x := range d.Deviations {
		a.out.field("to be judged", "%s at position %d", word(x.Deviation), x.Position)
	}
	for _, v := range []struct{ name, commitment string }{{"claimants", d.Claimants}, {"respondents", d.Respondents}, {"complaint", d.Complaint}} {
		if v.commitment == "" {
			continue
		}
		value, err := a.reveal(ctx, s.state.Incident, v.commitment)
		if err != nil {
			return err
		}
		if value.Why != "" {
			a.out.field(v.name, "%s", dim(value.Why))
			continue
		}
		for _, l := range strings.Split(value.Value, "\n") {
			a.out.field(v.name, "%s", l)
		}
	}
	return nil
}

func proposalWords(p procedure.Proposal, out *printer, now time.Time) string {
	switch p.State(now) {
	case procedure.ProposalAccepted:
		return "appointed"
	case procedure.ProposalDeclined:
		return "declined " + out.at(p.Declined.At)
	case procedure.ProposalSilent:
		return "did not answer until " + out.at(p.Until)
	case procedure.ProposalWaiting:
	}
	return "asked, answer awaited until " + out.at(p.Until)
}

// disputes lists them, open ones first.
func (a *app) disputes(st *procedure.State) {
	now := a.proc.Now()
	var rows [][]any
	for _, open := range []bool{true, false} {
		for i := range st.Disputes {
			d := &st.Disputes[i]
			if d.Open() != open {
				continue
			}
			state := any(disputeWord(d.State(now)))
			if open {
				state = alert(disputeWord(d.State(now)))
			}
			rows = append(rows, []any{"  " + d.ID, word(d.Concern), state, span(now.Sub(d.Filed.At)), waitsFor(d, now)})
		}
	}
	a.out.table([]string{"  DISPUTE", "ABOUT", "STATE", "AGE", "WAITS FOR"}, rows)
}

// disputeWord is a dispute's state in words.
func disputeWord(st procedure.DisputeState) string {
	return strings.ReplaceAll(strings.ToLower(string(st)), "_", " ")
}

// waitsFor says who has to do what next in a dispute.
func waitsFor(d *procedure.Dispute, now time.Time) string {
	switch d.State(now) {
	case procedure.DisputeFiled:
		return "a case manager"
	case procedure.DisputeCaseOpened, procedure.DisputeAwaiting:
		return d.Opened.By + ", to ask an arbitrator"
	case procedure.DisputeProposed:
		return d.Proposals[len(d.Proposals)-1].Candidate + ", to accept or decline"
	case procedure.DisputeAccepted:
		return d.Arbitrator + ", to begin"
	case procedure.DisputePreliminaries:
		return d.Arbitrator + ", to rule"
	case procedure.DisputeReopened:
		return "the dispute officer, to form a panel"
	case procedure.DisputePanel:
		return d.Senior + ", to rule"
	case procedure.DisputeClosedDeclined:
		return "somebody who files it again: a ruling is owed"
	case procedure.DisputeRuled, procedure.DisputeFinalRuled, procedure.DisputeJoined, procedure.DisputeRefiled, procedure.DisputeNotReopened:
	}
	return ""
}

// directions lists what was ordered.
func (a *app) directions(st *procedure.State) {
	now := a.proc.Now()
	var rows [][]any
	for i := range st.Directions {
		d := &st.Directions[i]
		who := d.Person
		if who == "" {
			who = procedure.RoleWord(d.Role)
		}
		due := any(a.out.at(d.Due))
		if d.Done.Position == 0 && d.Void.Position == 0 && now.After(d.Due) {
			due = bad(a.out.at(d.Due))
		}
		rows = append(rows, []any{"  " + d.ID, word(d.Kind), who, directionWord(d), due, fmt.Sprintf("details %d", d.Issued.Position)})
	}
	a.out.table([]string{"  DIRECTION", "KIND", "TO", "STATE", "DUE", "TEXT"}, rows)
}

func directionWord(d *procedure.Direction) string {
	switch {
	case d.Void.Position > 0:
		return "void"
	case d.Done.Position > 0:
		return "confirmed"
	case d.Reported.Position > 0:
		return "reported, to be confirmed"
	}
	return "open"
}

// named tells whether a direction is for the person.
func (s *scene) named(d *procedure.Direction) bool {
	return d.Person == s.person || d.Person == "" && s.book.Has(s.person, d.Role, s.client.Now())
}

// direction is the one that was named, or else the only one that fits.
func (s *scene) direction(named []string, fits func(*procedure.Direction) bool, what string) (*procedure.Direction, error) {
	var ids []string
	var found *procedure.Direction
	for i := range s.state.Directions {
		d := &s.state.Directions[i]
		if len(named) > 0 && d.ID == named[0] {
			return d, nil
		}
		if len(named) == 0 && d.Void.Position == 0 && fits(d) {
			ids, found = append(ids, d.ID), d
		}
	}
	switch {
	case len(named) > 0:
		return nil, fail(exitRefused, "%s has no direction %q", s.state.Incident, named[0]).hint("which there are: epatch direction list")
	case len(ids) == 1:
		return found, nil
	case len(ids) == 0:
		return nil, fail(exitRefused, "%s has no open direction %s", s.state.Incident, what).hint("how they stand: epatch direction list")
	}
	return nil, usage("%s has %d directions %s; name one", s.state.Incident, len(ids), what).hint("one of: %s", strings.Join(ids, ", "))
}

// ruling is the one that was named, or else the only one that fits.
func (s *scene) ruling(named []string, fits func(*procedure.Ruling) bool, what string) (*procedure.Ruling, error) {
	var ids []string
	var found *procedure.Ruling
	for i := range s.state.Rulings {
		r := &s.state.Rulings[i]
		if len(named) > 0 && r.ID == named[0] {
			return r, nil
		}
		if len(named) == 0 && r.Superseded == "" && fits(r) {
			ids, found = append(ids, r.ID), r
		}
	}
	switch {
	case len(named) > 0:
		return nil, fail(exitRefused, "%s has no ruling %q", s.state.Incident, named[0])
	case len(ids) == 1:
		return found, nil
	case len(ids) == 0:
		return nil, fail(exitRefused, "%s has no ruling %s", s.state.Incident, what).hint("how its disputes stand: epatch dispute list")
	}
	return nil, usage("%s has %d rulings %s; name one", s.state.Incident, len(ids), what).hint("one of: %s", strings.Join(ids, ", "))
}

func orRole(o procedure.Obligation) string {
	if o.Owner != "" {
		return o.Owner
	}
	return procedure.RoleWord(o.OwnerRole)
}

// oneField is the field of an event that was named, or else its only restricted one.
func (a *app) oneField(ctx context.Context, s *scene, args []string) (at uint64, name, commitment string, err error) {
	if at, err = position(args[0]); err != nil {
		return 0, "", "", err
	}
	fields, err := a.restrictedAt(ctx, s, at)
	if err != nil {
		return 0, "", "", err
	}
	var known []string
	for n, c := range fields {
		known = append(known, n)
		name, commitment = n, c
	}
	slices.Sort(known)
	switch {
	case len(args) > 1:
		name = strings.ReplaceAll(args[1], "-", "_")
		if fields[name] == "" {
			return 0, "", "", usage("the event at position %d has no restricted field %q", at, args[1]).hint("it has: %s", strings.Join(known, ", "))
		}
		return at, name, fields[name], nil
	case len(fields) == 0:
		return 0, "", "", fail(exitRefused, "nothing in the event at position %d is restricted", at)
	case len(fields) > 1:
		return 0, "", "", usage("the event at position %d has %d restricted fields; name one", at, len(fields)).hint("one of: %s", strings.Join(known, ", "))
	}
	return at, name, commitment, nil
}

func (a *app) redactCmd() *cobra.Command {
	req := &emergencyv1.RedactRequest{}
	return withFlags(leaf("redact POSITION [FIELD] --ground TEXT --clause CLAUSE", "Destroy a restricted value for ever; that it existed stays (SP 9.5)", `
Value and salt are deleted by the service that keeps them; the commitment, the ground and the clause stay, in public. What is held for
an open dispute can be redacted by its arbitrator alone. There is no way back. The field is the only restricted one, unless it is named.`, `
  epatch redact 14 contact_path --ground "private number of a member" --clause "SP 9.5"`,
		cobra.RangeArgs(1, 2), func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(req.GetGround()) == "" || strings.TrimSpace(req.GetClause()) == "" {
				return usage("say why, and by which clause or case: --ground, --clause")
			}
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			at, name, commitment, err := a.oneField(cmd.Context(), s, args)
			if err != nil {
				return err
			}
			req.Meta, req.Event, req.Commitment = s.meta, at, commitment
			_, err = a.act(cmd.Context(), req, "%s of the event at position %d is redacted; its keeper deletes value and salt", strings.ReplaceAll(name, "_", " "), at)
			return err
		}), func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&req.Ground, "ground", "", "why; public")
		cmd.Flags().StringVar(&req.Clause, "clause", "", "clause or case number; public")
	})
}

func (a *app) discloseCmd() *cobra.Command {
	return leaf("disclose POSITION [FIELD]", "Publish a restricted value with its salt", `
In the public log, for ever. What is sealed, or never public, is refused. The field is the only restricted one, unless it is named.`, `
  epatch disclose 12
  epatch disclose 1 symptom`,
		cobra.RangeArgs(1, 2), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			at, name, commitment, err := a.oneField(cmd.Context(), s, args)
			if err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), &emergencyv1.DiscloseRequest{Meta: s.meta, Event: at, Commitment: commitment}, "%s of the event at position %d is public", strings.ReplaceAll(name, "_", " "), at)
			return err
		})
}

func withFlags(cmd *cobra.Command, add func(*cobra.Command)) *cobra.Command {
	add(cmd)
	return cmd
}

// readText reads a short text from a file.
func readText(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", usage("%v", err)
	}
	if len(data) > maxForm {
		return "", usage("%s is larger than %d bytes; is it the right file?", file, maxForm)
	}
	return strings.TrimSpace(string(data)), nil
}
