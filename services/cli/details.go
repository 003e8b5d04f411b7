// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

func (a *app) detailsCmd() *cobra.Command {
	cmd := leaf("details [POSITION]", "Read one event with its restricted values: symptom, reasons, paths", `
The first event, the declaration, unless another position is named; epatch timeline shows them. What you may not read is said
so. Every reading is recorded.`, `
  epatch details
  epatch details 59 -i e20261124.1`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			position := uint64(1)
			if len(args) > 0 {
				var err error
				if position, err = strconv.ParseUint(args[0], 10, 64); err != nil || position == 0 {
					return usage("%q is no position; they are 1, 2, 3 ...", args[0]).hint("they are listed by epatch timeline")
				}
			}
			return a.details(cmd.Context(), position)
		})
	return cmd
}

// revealed is one restricted value, or why it cannot be read.
type revealed struct {
	Field string `json:"field"`
	Value string `json:"value,omitempty"`
	Why   string `json:"refused,omitempty"`
}

func (a *app) details(ctx context.Context, position uint64) error {
	id, err := a.incident(ctx)
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	answer, err := c.Query().ReadTimeline(ctx, &dashboardv1.ReadTimelineRequest{Incident: id, From: position, To: position})
	if err != nil {
		return err
	}
	if len(answer.GetEntries()) != 1 {
		return usage("%s has no event at position %d; the last is %d", id, position, answer.GetFreshness().GetPosition())
	}
	entry := answer.GetEntries()[0]
	var values []revealed
	for _, f := range entry.GetRestricted() {
		value, err := a.reveal(ctx, id, f.GetCommitment())
		if err != nil {
			return err
		}
		value.Field = f.GetField()
		values = append(values, value)
	}
	return a.showDetails(entry, values)
}

// reveal reads a restricted value. A rule's no is an answer; that a keeper is away is not.
func (a *app) reveal(ctx context.Context, incident, commitment string) (revealed, error) {
	answer, err := a.conn.Query().ReadRestricted(ctx, &dashboardv1.ReadRestrictedRequest{Incident: incident, Commitment: commitment})
	if refusal, ok := rpc.RefusalOf(err); ok {
		return revealed{Why: refusal.Message}, nil
	}
	return revealed{Value: answer.GetValue()}, err
}

func (a *app) showDetails(entry *dashboardv1.TimelineEntry, values []revealed) error {
	if a.opt.json {
		if err := a.out.json(entry); err != nil {
			return err
		}
		return a.out.jsonValue(map[string]any{"restricted": values})
	}
	a.entry(entry, entry, 1)
	for _, v := range values {
		if v.Why != "" {
			a.out.line("  %s: %s", v.Field, dim(v.Why))
			continue
		}
		a.out.line("  %s:", bold(strings.ReplaceAll(v.Field, "_", " ")))
		for _, l := range strings.Split(v.Value, "\n") {
			a.out.line("    %s", l)
		}
	}
	if len(values) == 0 {
		a.out.line("  nothing in it is restricted")
	}
	return nil
}

// restrictedAt are the commitments of an event's restricted fields, by name, from the verified history.
func (a *app) restrictedAt(ctx context.Context, s *scene, position uint64) (map[string]string, error) {
	if position > s.state.Position {
		return nil, usage("%s has no event at position %d; the last is %d", s.state.Incident, position, s.state.Position)
	}
	fields := map[string]string{}
	err := s.client.Follow(ctx, s.state.Incident, func(st *procedure.State, e *history.Entry) error {
		if st.Position < position {
			return nil
		}
		payload, err := procedure.DecodeEvent(e.Record.GetEvents()[position-e.Record.GetFirstPosition()])
		if err != nil {
			return err
		}
		for _, f := range procedure.RestrictedFields(payload) {
			name := f.Field
			for n := 2; fields[name] != ""; n++ { // values of a list share a name
				name = fmt.Sprintf("%s.%d", f.Field, n)
			}
			fields[name] = f.Commitment
		}
		return errEnded
	})
	if !errors.Is(err, errEnded) {
		return nil, err
	}
	return fields, nil
}
