// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/dossier"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// boardOptions are the settings of the verb.
type boardOptions struct {
	from, until, reference, out string
	csv, unfinished             bool
}

func (a *app) boardCmd() *cobra.Command {
	var opt boardOptions
	cmd := leaf("board-summary [--reference ID]", "Summarise a period for the Board, or record that it was reported (SP 3.2.3.1, 4.1.3)", `
Without --reference: the uses of the procedure in the period, from verified histories: strategies, time for each step,
deviations, obligations, disputes and rulings; drills apart. The period is the last whole calendar month, in UTC, unless it is
named; one that is not over is refused, unless --unfinished.

With --reference: records for one incident that a period was reported to the Board, under the Board's own reference. The
period is then the calendar month of the declaration unless it is named.`, `
  epatch board-summary --from 2026-11-01 --until 2026-12-01
  epatch board-summary --csv -o november.csv
  epatch board-summary --reference m20261201.4`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			if opt.reference != "" {
				return a.recordBoard(cmd.Context(), opt)
			}
			return a.boardSummary(cmd.Context(), opt)
		})
	f := cmd.Flags()
	f.StringVar(&opt.reference, "reference", "", "the Board's own reference: record that the period was reported")
	f.StringVar(&opt.from, "from", "", "first day of the period, YYYY-MM-DD")
	f.StringVar(&opt.until, "until", "", "day after the period, YYYY-MM-DD")
	f.BoolVar(&opt.csv, "csv", false, "as a table, one line an incident")
	f.BoolVar(&opt.unfinished, "unfinished", false, "also for a period that is not over: the figures will change")
	f.StringVarP(&opt.out, "out", "o", "", "file for the summary; never overwritten")
	return cmd
}

// period reads the period, or takes the month that begins with first.
func (o boardOptions) period(first time.Time) (from, until time.Time, err error) {
	if from, err = day("from", o.from, first); err != nil {
		return from, until, err
	}
	until, err = day("until", o.until, time.Date(from.Year(), from.Month()+1, 1, 0, 0, 0, 0, time.UTC))
	return from, until, err
}

func (a *app) recordBoard(ctx context.Context, opt boardOptions) error {
	if opt.csv || opt.unfinished || opt.out != "" {
		return usage("--csv, --unfinished and --out are for the summary itself, --reference is for recording it").hint("first: epatch board-summary --csv -o summary.csv")
	}
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	t0 := s.state.Declared.At.UTC()
	from, until, err := opt.period(time.Date(t0.Year(), t0.Month(), 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		return err
	}
	req := &emergencyv1.RecordBoardSummaryRequest{Meta: s.meta, From: timestamppb.New(from), Until: timestamppb.New(until), BoardReference: opt.reference}
	_, err = a.act(ctx, req, "reported to the Board as %s: %s to %s", opt.reference, from.Format(time.DateOnly), until.Format(time.DateOnly))
	if err == nil {
		a.then(ctx, s.state.Incident)
	}
	return err
}

func (a *app) boardSummary(ctx context.Context, opt boardOptions) error {
	now := a.proc.Now().UTC()
	from, until, err := opt.period(time.Date(now.Year(), now.Month()-1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		return err
	}
	if until.After(now) && !opt.unfinished {
		return usage("the period until %s is not over: its figures will change", until.Format(time.RFC3339)).hint("all the same: epatch board-summary --unfinished")
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	answer, err := c.Query().ListIncidents(ctx, &dashboardv1.ListIncidentsRequest{})
	if err != nil {
		return err
	}
	var list []dossier.Input
	for _, i := range answer.GetIncidents() {
		a.progress("reading %s", i.GetId())
		in, err := a.input(ctx, i.GetId())
		if err != nil {
			return err
		}
		list = append(list, in)
	}
	s, err := dossier.Board(from, until, now, list)
	if err != nil {
		return usage("%v", err)
	}
	return a.document(opt.out, func() (string, error) {
		switch {
		case a.opt.json:
			b, err := json.Marshal(s)
			return string(b) + "\n", err
		case opt.csv:
			return s.CSV()
		}
		return s.Markdown(), nil
	})
}

// day reads a date, or a time in RFC 3339.
func day(flag, text string, otherwise time.Time) (time.Time, error) {
	if text == "" {
		return otherwise, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage("--%s %q is no day such as 2026-11-24, and no time such as 2026-11-24T03:00:00Z", flag, text)
}
