// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/dossier"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	"cacert.org/emergency/services/cli/client"
)

// ledgerOptions are which obligations are wanted.
type ledgerOptions struct{ all, mine, overdue bool }

func (a *app) obligationsCmd() *cobra.Command {
	var opt ledgerOptions
	cmd := leaf("obligations [INCIDENT]", "Everything that is owed: by whom, until when, and how to discharge it", `
Of all incidents, the most urgent first, as the histories say that this machine has verified. Open ones, unless --all; nobody
inside the teams can waive one, only a ruling can lift it.`, `
  epatch obligations
  epatch obligations --mine
  epatch obligations e20261124.1 --all --json`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			return a.obligations(cmd.Context(), args, opt)
		})
	f := cmd.Flags()
	f.BoolVar(&opt.all, "all", false, "also those that are discharged")
	f.BoolVar(&opt.mine, "mine", false, "those that you owe, by name or in a role that you hold")
	f.BoolVar(&opt.overdue, "overdue", false, "those whose time has passed")
	cmd.ValidArgsFunction = a.completeIncidents
	return cmd
}

// debt is an obligation and whose it is.
type debt struct {
	Incident string `json:"incident"`
	Drill    bool   `json:"drill"`
	dossier.Owed
	Told string `json:"told"`
}

func (a *app) obligations(ctx context.Context, named []string, opt ledgerOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	list, err := a.ledger(ctx, c, named, opt)
	if err != nil {
		return err
	}
	if a.opt.json {
		return a.out.jsonValue(map[string]any{"obligations": list})
	}
	for _, d := range list {
		a.debt(d)
	}
	if len(list) == 0 {
		a.out.line("nothing is owed")
		return nil
	}
	overdue := len(slices.DeleteFunc(slices.Clone(list), func(d debt) bool { return d.State != dossier.Overdue }))
	a.out.line("%s, %d overdue", plural(len(list), "obligation", "obligations"), overdue)
	return nil
}

// ledger reads the incidents' verified histories.
func (a *app) ledger(ctx context.Context, c *client.Client, named []string, opt ledgerOptions) ([]debt, error) {
	me, book, err := c.Person(ctx)
	if err != nil {
		return nil, err
	}
	ids := named
	if len(ids) == 0 {
		answer, err := c.Query().ListIncidents(ctx, &dashboardv1.ListIncidentsRequest{})
		if err != nil {
			return nil, err
		}
		for _, i := range answer.GetIncidents() {
			ids = append(ids, i.GetId())
		}
	}
	list := []debt{}
	for _, id := range ids {
		s, err := c.State(ctx, id)
		if err != nil {
			return nil, err
		}
		for _, o := range dossier.Obligations(s, a.proc.Now()) {
			open := o.State == dossier.Open || o.State == dossier.Overdue
			mine := o.Owner == me || o.Owner == "" && book.Has(me, o.Role, a.proc.Now())
			if (opt.all || open) && (!opt.mine || mine) && (!opt.overdue || o.State == dossier.Overdue) {
				list = append(list, debt{id, s.Declared.Drill, o, o.LadderWords()})
			}
		}
	}
	slices.SortStableFunc(list, func(x, y debt) int { // open before discharged, soonest first
		if n := boolInt(x.By > 0) - boolInt(y.By > 0); n != 0 {
			return n
		}
		return x.Due.Compare(y.Due)
	})
	return list, nil
}

// debt writes one obligation.
func (a *app) debt(d debt) {
	where := d.Incident
	if d.Drill {
		where += ", drill"
	}
	state := styled(harmless(d.StateWords()))
	switch d.State {
	case dossier.Overdue:
		state = bad(d.StateWords())
	case dossier.Open:
		state = alert(d.StateWords())
	}
	a.out.line("%s: %s", bold(d.What), state)
	a.out.line("      %s", dim(fmt.Sprintf("%s, since position %d, %s", where, d.Cause, d.Clause)))
	a.out.line("      owed by %s, due %s", d.Who(), a.out.at(d.Due))
	if d.State == dossier.Open || d.State == dossier.Overdue {
		if d.Told != "" {
			a.out.line("      %s", d.Told)
		}
		a.out.line("      %s", scoped(howTyped(d.How), d.Incident))
	}
}
