// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func (a *app) boardCmd() *cobra.Command {
	req := &emergencyv1.RecordBoardSummaryRequest{}
	var from, until string
	cmd := leaf("board-summary --reference ID", "Record that a period was reported to the Board (SP 3.2.3.1, 4.1.3)", `
The period is the calendar month of the declaration, in UTC, unless it is named.`, `
  epatch board-summary --reference m20261201.4
  epatch board-summary --reference m20261201.4 --from 2026-11-01 --until 2026-12-01`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			if req.BoardReference == "" {
				return usage("the Board's own reference is needed: --reference")
			}
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			t0 := s.state.Declared.At.UTC()
			first := time.Date(t0.Year(), t0.Month(), 1, 0, 0, 0, 0, time.UTC)
			start, err := day("from", from, first)
			if err != nil {
				return err
			}
			end, err := day("until", until, first.AddDate(0, 1, 0))
			if err != nil {
				return err
			}
			req.Meta, req.From, req.Until = s.meta, timestamppb.New(start), timestamppb.New(end)
			_, err = a.act(cmd.Context(), req, "reported to the Board as %s: %s to %s", req.BoardReference, start.Format(time.DateOnly), end.Format(time.DateOnly))
			if err == nil {
				a.then(cmd.Context(), s.state.Incident)
			}
			return err
		})
	cmd.Flags().StringVar(&req.BoardReference, "reference", "", "the Board's own reference")
	cmd.Flags().StringVar(&from, "from", "", "first day of the period, YYYY-MM-DD")
	cmd.Flags().StringVar(&until, "until", "", "day after the period, YYYY-MM-DD")
	return cmd
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
