// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"slices"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Documentation and the Board's summary (seed 1; procedure.md 4.5).

func documentFields(f *fields, c *emergencyv1.DocumentRequest) {
	f.want(c.GetStrategy() >= 1 && c.GetStrategy() <= 3, "strategy", "1, 2 or 3")
	f.want(c.GetTimelineConfirmed(), "timeline_confirmed", "true: the report stands on the timeline")
	f.want(c.GetText() != "", "text", "the public text of the report")
}

// decideDocument takes the report of somebody who acted under the strategy, with a reason for every deviation. Late is
// accepted, and shown late.
func decideDocument(d *decision, c *emergencyv1.DocumentRequest) *Refusal {
	first, acted := d.s.documents(c.GetStrategy())
	mine := c.GetStrategy() == 3 && d.s.actedInSession(d.person)
	for _, a := range d.s.Applies {
		mine = mine || a.Strategy == c.GetStrategy() && (a.Executor == d.person || a.Observer == d.person)
	}
	if !acted {
		return refuse(ReasonNothingToDocument, "nothing was done to the host under strategy %d", c.GetStrategy()).
			allow("RecordLeadDecision", "", "if it stays so, the critical team lead records that the strategy had no effect")
	}
	if !mine && !d.holds(d.person, cl) {
		return refuse(ReasonNotActingAdmin, "%s did not act under strategy %d", d.person, c.GetStrategy()).
			allow("Document", "", "who executed, observed, watched or granted, or the critical team lead, documents")
	}
	for _, dev := range d.s.Deviations {
		explained := slices.ContainsFunc(c.GetReasons(), func(r *emergencyv1.DeviationReason) bool {
			return r.GetPosition() == dev.Position && r.GetDeviation() == dev.Deviation && r.GetReason() != ""
		})
		if !explained && !d.hypothetical {
			return refuse(ReasonDeviationUnexplained, "the deviation %q at position %d has no reason", deviationWord(dev.Deviation), dev.Position).
				allow("Document", "", "give a reason for each of the %d deviations", len(d.s.Deviations))
		}
	}
	due := d.s.Declared.At.Add(d.s.Policy.Duration("s1.document"))
	if c.GetStrategy() > 1 {
		due = first.At.Add(d.s.Policy.Duration("document"))
	}
	d.emit(&emergencyv1.ProcedureDocumented{Strategy: c.GetStrategy(), Reasons: c.GetReasons(), Text: c.GetText(), Appendix: d.seal(c.GetAppendix()), Late: d.at.After(due)})
	return nil
}

func boardFields(f *fields, c *emergencyv1.RecordBoardSummaryRequest) {
	f.want(c.GetFrom() != nil && c.GetUntil() != nil && c.GetFrom().AsTime().Before(c.GetUntil().AsTime()), "from", "before until")
	f.word("board_reference", c.GetBoardReference())
}

func decideBoardSummary(d *decision, c *emergencyv1.RecordBoardSummaryRequest) *Refusal {
	if t0 := d.s.Declared.At; t0.Before(c.GetFrom().AsTime()) || !t0.Before(c.GetUntil().AsTime()) {
		return refuse(ReasonField, "the declaration of %s is not inside the period", stamp(t0)).under("4.5 RecordBoardSummary").
			allow("RecordBoardSummary", "", "name a period that holds it")
	}
	d.emit(&emergencyv1.BoardSummaryRecorded{From: c.GetFrom(), Until: c.GetUntil(), BoardReference: c.GetBoardReference()})
	return nil
}
