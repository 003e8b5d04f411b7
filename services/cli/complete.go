// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

// Shell completion. What is asked of the server has two seconds; without an answer nothing is offered.

const completionTime = 2 * time.Second

const noFiles = cobra.ShellCompDirectiveNoFileComp

// complete offers fixed words for a flag.
func complete(cmd *cobra.Command, flag string, list ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(list, noFiles)) // fails only for a flag that does not exist
}

type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// asked runs a question for completion; the hooks of commands do not run then.
func (a *app) asked(cmd *cobra.Command, ask func(context.Context) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	if err := a.setUp(cmd); err != nil {
		return nil, noFiles
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	list, err := ask(ctx)
	if err != nil {
		return nil, noFiles
	}
	return list, noFiles
}

func (a *app) completeIncidents(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	return a.asked(cmd, func(ctx context.Context) ([]string, error) {
		c, err := a.client()
		if err != nil {
			return nil, err
		}
		answer, err := c.Query().ListIncidents(ctx, &dashboardv1.ListIncidentsRequest{})
		var list []string
		for _, i := range answer.GetIncidents() {
			list = append(list, i.GetId()+"\t"+harmless(statusWord(i)+", "+i.GetSystem()))
		}
		return list, err
	})
}

// present is the incident that is meant, for completion: nothing is said about the choice.
func (a *app) present(ctx context.Context) (*dashboardv1.Incident, error) {
	a.opt.json = true // no word on standard error
	id, err := a.incident(ctx)
	if err != nil {
		return nil, err
	}
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	answer, err := c.Query().ReadIncident(ctx, &dashboardv1.ReadIncidentRequest{Incident: id})
	return answer.GetIncident(), err
}

func (a *app) completeRevisions(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	return a.revisionWords(cmd)
}

func (a *app) revisionWords(cmd *cobra.Command) ([]string, cobra.ShellCompDirective) {
	return a.asked(cmd, func(ctx context.Context) ([]string, error) {
		i, err := a.present(ctx)
		var list []string
		for _, r := range i.GetRevisions() {
			list = append(list, r.GetId()+"\t"+harmless(eventWords(r.GetState())))
		}
		return list, err
	})
}

// completeThenRevisions offers fixed words first and revisions after them.
func (a *app) completeThenRevisions(list ...string) completion {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return list, noFiles
		case 1:
			return a.revisionWords(cmd)
		}
		return nil, noFiles
	}
}

func (a *app) completeSlots(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.asked(cmd, func(ctx context.Context) ([]string, error) {
		i, err := a.present(ctx)
		var list []string
		for _, s := range i.GetSlots() {
			list = append(list, s.GetId()+"\t"+harmless(s.GetStep()+", "+orNobody(s.GetPerson())))
		}
		return list, err
	})
}

func (a *app) completePersons(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.asked(cmd, func(ctx context.Context) ([]string, error) {
		c, err := a.client()
		if err != nil {
			return nil, err
		}
		answer, err := c.Query().ReadRuleBook(ctx, &dashboardv1.ReadRuleBookRequest{})
		var list []string
		for _, p := range answer.GetPersons() {
			list = append(list, harmless(p.GetPerson()))
		}
		return list, err
	})
}
