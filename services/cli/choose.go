// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/prefill"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/cli/client"
)

// incident is the one that was named, or else the only one that can be meant; then it says which.
func (a *app) incident(ctx context.Context) (string, error) {
	if a.chosen != "" {
		return a.chosen, nil
	}
	if a.opt.incident != "" {
		a.chosen = a.opt.incident
		return a.chosen, nil
	}
	c, err := a.client()
	if err != nil {
		return "", err
	}
	if a.opt.offline != "" {
		a.chosen, err = a.lastKnown(ctx, c)
		return a.chosen, err
	}
	me, err := c.Query().WhoAmI(ctx, &dashboardv1.WhoAmIRequest{})
	if err != nil {
		return "", err
	}
	list, err := alive(ctx, c)
	if err != nil {
		return "", err
	}
	a.several = len(list) > 1
	waiting := map[string]bool{}
	if len(list) > 1 { // the list does not say who was called
		inbox, err := c.Query().ReadInbox(ctx, &dashboardv1.ReadInboxRequest{})
		if err != nil {
			return "", err
		}
		for _, item := range inbox.GetItems() {
			waiting[item.GetIncident()] = true
		}
	}
	a.chosen, err = a.pick(list, func(i *dashboardv1.Incident) bool { return waiting[i.GetId()] || involves(i, me.GetPerson()) })
	return a.chosen, err
}

// alive are the open incidents; where there is none, those that were stood down and not closed; else those that are over in which
// something still waits for the person, such as a dispute.
func alive(ctx context.Context, c *client.Client) ([]*dashboardv1.Incident, error) {
	open, err := c.Query().ListIncidents(ctx, &dashboardv1.ListIncidentsRequest{OpenOnly: true})
	if err != nil || len(open.GetIncidents()) > 0 {
		return open.GetIncidents(), err
	}
	all, err := c.Query().ListIncidents(ctx, &dashboardv1.ListIncidentsRequest{})
	if err != nil {
		return nil, err
	}
	list := slices.DeleteFunc(slices.Clone(all.GetIncidents()), func(i *dashboardv1.Incident) bool { return i.GetStatus() != string(procedure.StoodDown) })
	if len(list) > 0 || len(all.GetIncidents()) == 0 {
		return list, nil
	}
	inbox, err := c.Query().ReadInbox(ctx, &dashboardv1.ReadInboxRequest{})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all.GetIncidents(), func(i *dashboardv1.Incident) bool {
		return !slices.ContainsFunc(inbox.GetItems(), func(x *dashboardv1.InboxItem) bool { return x.GetIncident() == i.GetId() })
	}), nil
}

func (a *app) pick(list []*dashboardv1.Incident, concerns func(*dashboardv1.Incident) bool) (string, error) {
	mine := slices.DeleteFunc(slices.Clone(list), func(i *dashboardv1.Incident) bool { return !concerns(i) })
	why := "the only open one that involves you"
	if len(mine) == 0 && len(list) == 1 {
		mine, why = list, "the only open one"
	}
	if len(mine) == 1 {
		if mine[0].GetStatus() != string(procedure.Open) {
			why = "over, but the only one in which something is left to do"
		}
		if !a.opt.json {
			a.errs.line("%s", dim("incident "+mine[0].GetId()+", "+mine[0].GetSystem()+": "+why))
		}
		return mine[0].GetId(), nil
	}
	if len(list) == 0 {
		return "", usage("there is no open incident").hint("name one that is over with --incident; all of them: epatch incidents --all").hint("declare one: epatch declare")
	}
	if len(mine) == 0 {
		mine = list
	}
	err := usage("%d open incidents could be meant", len(mine))
	for _, i := range mine {
		err = err.hint("--incident %s  %s, declared %s", i.GetId(), i.GetSystem(), a.out.clock(i.GetDeclaredAt()))
	}
	return "", err.hint("for all that you type in this shell: export EPATCH_INCIDENT=%s", mine[0].GetId())
}

// involves tells whether a person has a part in an incident.
func involves(i *dashboardv1.Incident, person string) bool {
	is := func(p string) bool { return p == person && person != "" }
	found := is(i.GetDeclaredBy())
	for _, s := range i.GetSlots() {
		found = found || is(s.GetPerson()) || is(s.GetHandoverTo())
	}
	for _, p := range i.GetPages() {
		found = found || is(p.GetPerson())
	}
	for _, r := range i.GetRevisions() {
		found = found || is(r.GetAuthor()) || slices.ContainsFunc(r.GetChecks(), func(c *dashboardv1.Check) bool { return is(c.GetBy()) })
	}
	for _, d := range i.GetDeployments() {
		found = found || is(d.GetExecutor()) || is(d.GetObserver())
	}
	for _, v := range i.GetVetoes() {
		found = found || is(v.GetRaisedBy())
	}
	for _, o := range i.GetObligations() {
		found = found || is(o.GetOwner()) && o.GetState() != "DISCHARGED"
	}
	return found
}

// scene is what an act needs to know: who acts, and the incident as its verified history says it is.
type scene struct {
	client *client.Client
	state  *procedure.State
	person string
	book   *rulebook.Book
	meta   *emergencyv1.CommandMeta
}

// scene reads the incident and the rule book and verifies them.
func (a *app) scene(ctx context.Context) (*scene, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	id, err := a.incident(ctx)
	if err != nil {
		return nil, err
	}
	s := &scene{client: c, meta: &emergencyv1.CommandMeta{Incident: id}}
	if s.person, s.book, err = c.Person(ctx); err != nil {
		return nil, err
	}
	s.state, err = c.State(ctx, id)
	return s, err
}

// known is what the history says for the person's next command.
func (s *scene) known() prefill.Known {
	return prefill.Known{State: s.state, Book: s.book, Person: s.person, Now: s.client.Now()}
}

// fresh is the common part of one more command on the same incident.
func (s *scene) fresh() *emergencyv1.CommandMeta {
	return &emergencyv1.CommandMeta{Incident: s.meta.GetIncident()}
}

// meta is the common part of a command that needs nothing but the incident's id.
func (a *app) meta(ctx context.Context) (*emergencyv1.CommandMeta, error) {
	id, err := a.incident(ctx)
	return &emergencyv1.CommandMeta{Incident: id}, err
}

// revision is the one that was named, or else the current one.
func (s *scene) revision(named []string) (*procedure.Revision, error) {
	if len(named) == 0 || named[0] == "" {
		if r := s.state.Current(); r != nil {
			return r, nil
		}
		return nil, fail(exitRefused, "%s has no patch yet", s.state.Incident).hint("register it: epatch patch register FILE --bug ID")
	}
	if r, ok := s.state.Revision(named[0]); ok {
		return r, nil
	}
	var have []string
	for _, r := range s.state.Revisions {
		have = append(have, r.ID)
	}
	return nil, fail(exitRefused, "%s has no revision %q", s.state.Incident, named[0]).hint("it has: %s", strings.Join(have, ", "))
}

// read is the revision for an act that says the person has read or tried the bytes. It has to be named: what was read may
// not be what is current by now. The line is what to type, with %s for the revision.
func (s *scene) read(named []string, line string) (*procedure.Revision, error) {
	r, err := s.revision(named)
	if err != nil || len(named) > 0 {
		return r, err
	}
	return nil, usage("name the revision that you have read").hint("read it: epatch patch show %s", r.ID).hint("then: "+line, r.ID)
}

func bind(r *procedure.Revision) *emergencyv1.Binding {
	return &emergencyv1.Binding{Revision: r.ID, Digest: r.Binding}
}

// options are what the person can do now, by the same functions that the services decide with.
func (s *scene) options(now time.Time) []procedure.Option {
	return procedure.Options(s.state, procedure.Env{Now: now, Book: s.book, Actor: procedure.Actor{KeyID: s.client.KeyID()}})
}

// incidentLeaf builds a command about the incident that is named, or else the only one it can be about.
func (a *app) incidentLeaf(use, about, long, example string, run func(ctx context.Context, id string) error) *cobra.Command {
	cmd := leaf(use, about, long, example, cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
		if err := a.optionalIncident(args); err != nil {
			return err
		}
		id, err := a.incident(cmd.Context())
		if err != nil {
			return err
		}
		return run(cmd.Context(), id)
	})
	cmd.ValidArgsFunction = a.completeIncidents
	return cmd
}

// optionalIncident takes an incident that was named without a flag; it goes before one in the environment.
func (a *app) optionalIncident(args []string) error {
	if len(args) == 0 {
		return nil
	}
	if a.flagged && a.opt.incident != args[0] {
		return usage("two incidents are named: %s and %s", args[0], a.opt.incident)
	}
	a.opt.incident = args[0]
	return nil
}

// noKeyring tells whether an error is only that nothing can be verified here.
func noKeyring(err error) bool { return errors.Is(err, client.ErrNoKeyring) }
