// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func (a *app) replayCmd() *cobra.Command {
	var at uint64
	cmd := a.incidentLeaf("replay INCIDENT [--at POSITION]", "The incident as it was, computed here from the verified history", `
Folds the verified records up to a position with the procedure's own rules, shows the state as it was then, and compares it
with what the server answers for that position. Nothing outside is done. --json writes the state.`, `
  epatch replay e20261124.1 --at 42
  epatch replay e20261124.1 --json`,
		func(ctx context.Context, id string) error {
			if !procedure.IsIncident(id) {
				return usage("%s is no incident", id).hint("as it was at a time: epatch rulebook show --at TIME")
			}
			return a.replay(ctx, id, at)
		})
	cmd.Flags().Uint64Var(&at, "at", 0, "position; the end if 0")
	return cmd
}

// errReached ends the reading.
var errReached = errors.New("reached")

func (a *app) replay(ctx context.Context, id string, at uint64) error {
	st, err := a.fold(ctx, id, at)
	if err != nil {
		return err
	}
	answer, err := a.conn.Query().ReadIncident(ctx, &dashboardv1.ReadIncidentRequest{Incident: id, At: st.Position})
	if err != nil {
		return err
	}
	if a.opt.json {
		if err := a.out.jsonValue(st); err != nil {
			return err
		}
	} else {
		a.out.line("%s as it was at position %d of its history, %s", bold(id), st.Position, a.out.at(st.RecordedAt))
		a.replayed(st)
	}
	if diff := differences(st, answer.GetIncident()); len(diff) > 0 {
		err := fail(exitUnverified, "the server's answer for position %d is not what the history says", st.Position)
		for _, d := range diff {
			err = err.hint("%s", d)
		}
		return err
	}
	if !a.opt.json {
		a.out.line("computed here from verified records; the server answers the same")
	}
	return nil
}

// fold reads and verifies the history up to the record that holds a position.
func (a *app) fold(ctx context.Context, id string, at uint64) (*procedure.State, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	if c.Keyring() == nil {
		return nil, errNoKeyring()
	}
	chain, st := history.NewChain(id, c.Keyring()), procedure.NewState(id)
	err = c.Records(ctx, id, func(signed *emergencyv1.SignedRecord) error {
		entry, err := accept(chain, signed)
		if err != nil {
			return fail(exitUnverified, "%s after position %d: %v", id, st.Position, err).hint("all that is wrong: epatch history check %s", id)
		}
		if err := st.Apply(entry.Record, entry.Hash); err != nil {
			return err
		}
		if at > 0 && st.Position >= at {
			return errReached
		}
		return nil
	})
	switch {
	case errors.Is(err, errReached):
		return st, nil
	case err == nil && st.Position < at:
		return nil, usage("%s ends at position %d, before %d", id, st.Position, at)
	}
	return st, err
}

// replayed shows a state in the words of the procedure.
func (a *app) replayed(s *procedure.State) {
	a.out.field("status", "%s, strategy %d, on %s", string(s.Status), s.Strategy, s.Declared.System)
	a.out.field("declared", "%s by %s", s.Declared.At.In(a.out.local).Format("2006-01-02 15:04:05 MST"), s.Declared.By)
	for i, step := range procedure.NextSteps(s) {
		if i == 0 {
			a.out.field("stood at", "%s %s", step.Number, step.Title)
		}
	}
	for _, sl := range s.Slots {
		a.out.field("slot", "%s %s %s", sl.ID, string(sl.State), sl.Person)
	}
	for i := range s.Revisions {
		a.out.field("patch", "%s %s, by %s", s.Revisions[i].ID, eventWords(procedure.RevisionState(s, &s.Revisions[i])), s.Revisions[i].Author)
	}
	for _, d := range s.Applies {
		a.out.field("host", "%s on %s: %s, tree %s", d.Revision, d.Host, applyWords(d.State), d.HostTree)
	}
	for _, o := range procedure.Debts(s) {
		a.out.field("owed", "%s", debtWords(o, s.RecordedAt))
	}
	a.out.field("head", "%s", s.HeadHash)
}

func debtWords(o procedure.Obligation, now time.Time) string {
	who := o.Owner
	if who == "" {
		who = procedure.RoleWord(o.OwnerRole)
	}
	state := "open"
	switch {
	case !o.Open():
		state = fmt.Sprintf("met at position %d", o.By)
	case o.Overdue(now):
		state = "overdue"
	}
	return fmt.Sprintf("%s by %s, %s", o.ID, who, state)
}

// differences compares a state with the server's picture of it, in the facts that somebody would act on.
func differences(s *procedure.State, i *dashboardv1.Incident) []string {
	var list []string
	same := func(what string, here, there any) {
		if fmt.Sprint(here) != fmt.Sprint(there) {
			list = append(list, fmt.Sprintf("%s: here %v, there %v", what, here, there))
		}
	}
	same("position", s.Position, i.GetPosition())
	same("head", s.HeadHash, i.GetHeadHash())
	same("status", string(s.Status), i.GetStatus())
	same("strategy", s.Strategy, i.GetStrategy())
	same("declared by", s.Declared.By, i.GetDeclaredBy())
	same("policy", s.Policy.Digest, i.GetPolicyDigest())
	same("number of slots", len(s.Slots), len(i.GetSlots()))
	for n := range min(len(s.Slots), len(i.GetSlots())) {
		here, there := s.Slots[n], i.GetSlots()[n]
		same("slot "+here.ID, fmt.Sprint(here.ID, string(here.State), here.Person, here.HandoverTo), fmt.Sprint(there.GetId(), there.GetState(), there.GetPerson(), there.GetHandoverTo()))
	}
	same("number of revisions", len(s.Revisions), len(i.GetRevisions()))
	for n := range min(len(s.Revisions), len(i.GetRevisions())) {
		here, there := &s.Revisions[n], i.GetRevisions()[n]
		same("revision "+here.ID, []string{here.ID, here.Binding, procedure.RevisionState(s, here), here.BaseTree, here.ResultTree, here.Author},
			[]string{there.GetId(), there.GetBinding(), there.GetState(), there.GetBaseTree(), there.GetResultTree(), there.GetAuthor()})
	}
	same("number of deployments", len(s.Applies), len(i.GetDeployments()))
	for n := range min(len(s.Applies), len(i.GetDeployments())) {
		here, there := s.Applies[n], i.GetDeployments()[n]
		same("deployment of "+here.Revision, []string{here.Host, here.Executor, here.Observer, string(here.State), here.PreTree, here.HostTree},
			[]string{there.GetHost(), there.GetExecutor(), there.GetObserver(), there.GetState(), there.GetPreTree(), there.GetHostTree()})
	}
	return append(list, differentDebts(s, i)...)
}

// differentDebts compares what is owed and what departed from the rules.
func differentDebts(s *procedure.State, i *dashboardv1.Incident) []string {
	var here, there, list []string
	for _, o := range procedure.Debts(s) {
		here = append(here, fmt.Sprintf("%s %t", o.ID, o.Open()))
	}
	for _, o := range i.GetObligations() {
		there = append(there, fmt.Sprintf("%s %t", o.GetId(), o.GetState() != "DISCHARGED"))
	}
	slices.Sort(here)
	slices.Sort(there)
	if !slices.Equal(here, there) {
		list = append(list, fmt.Sprintf("owed: here %v, there %v", here, there))
	}
	here, there = nil, nil
	for _, d := range s.Deviations {
		here = append(here, fmt.Sprintf("%d %s", d.Position, word(d.Deviation)))
	}
	for _, d := range i.GetDeviations() {
		there = append(there, fmt.Sprintf("%d %s", d.GetPosition(), word(d.GetDeviation())))
	}
	if !slices.Equal(here, there) {
		list = append(list, fmt.Sprintf("deviations: here %v, there %v", here, there))
	}
	return list
}
