// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"context"
	"fmt"
	"slices"
	"time"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// item is one thing that waits, with what it is ordered by.
type item struct {
	*dashboardv1.InboxItem
	due time.Time // zero: no due time, last
}

// ReadInbox returns what waits for the caller in all incidents: the steps that are the caller's next ones, then what the caller
// owes, then slots that somebody asked the caller to take over; each part the soonest due first. An incident that is closed may
// wait for people too, for a dispute does not reopen it (procedure.md 6, rule 6); one that was merged waits in its target.
func (s *Server) ReadInbox(ctx context.Context, _ *dashboardv1.ReadInboxRequest) (*dashboardv1.ReadInboxResponse, error) {
	a, err := s.recognise(ctx)
	if err != nil {
		return nil, err
	}
	out := &dashboardv1.ReadInboxResponse{}
	if a.GetPerson() == "" {
		return out, nil
	}
	var states []*procedure.State
	s.cfg.Incidents.EachWaiting(func(st *procedure.State) {
		states = append(states, st.Clone()) // looked at without the lock: asking for options takes a while
	})
	env := s.env(a)
	roles := env.Book.Roles(a.GetPerson(), env.Now)
	var steps, debts, handovers []item
	for _, st := range states {
		next := nextOf(st, env, a.GetPerson())
		steps = append(steps, next...)
		debts = append(debts, debtsOf(st, env.Now, a.GetPerson(), roles, next)...)
		handovers = append(handovers, handoversOf(st, a.GetPerson())...)
	}
	for _, part := range [][]item{steps, debts, handovers} {
		slices.SortStableFunc(part, sooner)
		for _, i := range part {
			i.DueAt = instant(i.due)
			out.Items = append(out.Items, i.InboxItem)
		}
	}
	return out, nil
}

// sooner orders by due time; what has none comes last.
func sooner(a, b item) int {
	if a.due.IsZero() != b.due.IsZero() {
		return map[bool]int{true: 1, false: -1}[a.due.IsZero()]
	}
	return a.due.Compare(b.due)
}

func nextOf(st *procedure.State, env procedure.Env, person string) []item {
	var list []item
	for _, o := range procedure.Options(st, env) {
		if !o.Next || o.Command == "CheckIn" && isHandover(st, o.Subject, person) {
			continue
		}
		list = append(list, item{&dashboardv1.InboxItem{Incident: st.Incident, Command: o.Command, Subject: o.Subject, Title: lateness(o.Due, env.Now) + o.Title}, o.Due})
	}
	return list
}

// lateness says by how much something is overdue; empty if it is not.
func lateness(due, now time.Time) string {
	if due.IsZero() || !now.After(due) {
		return ""
	}
	return fmt.Sprintf("overdue by %s: ", now.Sub(due).Round(time.Minute))
}

func isHandover(st *procedure.State, slot, person string) bool {
	sl, ok := st.Slot(slot)
	return ok && sl.HandoverTo == person && sl.Person != person
}

// debtsOf are the obligations that the person owes, or a role of the person, and that no step above discharges.
func debtsOf(st *procedure.State, now time.Time, person string, roles []emergencyv1.Role, next []item) []item {
	var list []item
	for _, o := range procedure.Debts(st) {
		mine := o.Owner == person || o.Owner == "" && slices.Contains(roles, o.OwnerRole)
		shown := slices.ContainsFunc(next, func(i item) bool { return i.GetCommand() == o.How })
		if !o.Open() || !mine || shown {
			continue
		}
		how := lateness(o.Due, now)
		if how == "" {
			how = "owed: "
		}
		title := fmt.Sprintf("%s%s (%s)", how, dossier.KindWords(o.Kind), o.Clause)
		list = append(list, item{&dashboardv1.InboxItem{Incident: st.Incident, Command: knownCommand(o.How), Subject: o.ID, Title: title}, o.Due})
	}
	return list
}

// knownCommand is empty for a command of a later version: then the item is a notice.
func knownCommand(name string) string {
	if slices.ContainsFunc(procedure.Commands(), func(c procedure.CommandInfo) bool { return c.Name == name }) {
		return name
	}
	return ""
}

func handoversOf(st *procedure.State, person string) []item {
	var list []item
	for _, sl := range st.Slots {
		if isHandover(st, sl.ID, person) {
			title := fmt.Sprintf("take over %s from %s", sl.ID, sl.Person)
			list = append(list, item{&dashboardv1.InboxItem{Incident: st.Incident, Command: "CheckIn", Subject: sl.ID, Title: title}, time.Time{}})
		}
	}
	return list
}
