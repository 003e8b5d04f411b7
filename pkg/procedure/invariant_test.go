// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// TestInvariants plays random histories and holds what must be true in each, whatever anybody tried.
func TestInvariants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var sent []sentCommand
		w := pt.Random(rt, 20, func(before *procedure.State, m pt.Move, out pt.Outcome) {
			if out.Err != nil {
				rt.Fatalf("%s by %s: %v", procedure.CommandName(m.Command), m.Who, out.Err)
			}
			if out.Refusal != nil {
				pt.CheckRefusal(rt, out.Refusal)
			}
			if out.Record != nil {
				checkRecord(rt, before, out)
				sent = append(sent, sentCommand{m, out})
			}
		})
		checkPersons(rt, w.State)
		checkRepetition(rt, w, sent)
		checkReplay(rt, w)
		checkDebtsRecorded(rt, w.For(rt))
		for _, owner := range procedure.Owners() {
			checkTick(rt, w.For(rt), owner)
			checkNextDue(rt, w.For(rt), owner)
		}
	})
}

type sentCommand struct {
	move pt.Move
	out  pt.Outcome
}

// checkRecord holds for each record and the states before and after it.
func checkRecord(t pt.T, before *procedure.State, out pt.Outcome) {
	rec := out.Record
	after, err := procedure.Evolve(before, rec, "hash")
	if err != nil {
		t.Fatalf("evolve: %v", err)
	}
	if rec.GetFirstPosition() != before.Position+1 || after.Position != before.Position+uint64(len(rec.GetEvents())) {
		t.Fatalf("record at %d with %d events after position %d", rec.GetFirstPosition(), len(rec.GetEvents()), before.Position)
	}
	if after.RecordedAt.Before(before.RecordedAt) {
		t.Fatalf("recorded_at goes back from %s to %s", before.RecordedAt, after.RecordedAt)
	}
	if before.Status == procedure.Closed && after.Status != procedure.Closed || before.Status == procedure.Merged {
		t.Fatalf("%s goes on as %s", before.Status, after.Status)
	}
	for _, e := range rec.GetEvents() {
		if owner, ok := procedure.EventOwner(e.GetType()); !ok || owner != rec.GetOwner() {
			t.Fatalf("%s in a record of %s", e.GetType(), rec.GetOwner())
		}
		if pt.ShortType(e.GetType()) == "ApplyStarted" {
			checkStart(t, before, after)
		}
	}
	checkDebts(t, before, after)
}

// checkStart holds when an apply starts: nothing is vetoed, everything that was reviewed is what is applied, and five kinds
// of act are by as many persons as they must be (X5 to X11).
func checkStart(t pt.T, before, after *procedure.State) {
	a := after.Applies[len(after.Applies)-1]
	r, ok := before.Revision(a.Revision)
	if !ok || r.Forward == nil {
		t.Fatalf("applied and not forwarded: %+v", r)
	}
	if before.Strategy > 1 {
		checkShortStart(t, before, r, a)
		return
	}
	if r.First == nil || r.Second == nil || r.Transfer == nil || r.TestServer == nil || !r.Forward.Complete {
		t.Fatalf("applied without a step: %+v", r)
	}
	if len(before.OpenVetoes(r.ID)) > 0 {
		t.Fatalf("%s started with an open veto", r.ID)
	}
	if r.Superseded != "" || r.Transfer.Tree != r.ResultTree || r.TestServer.Tree != r.ResultTree {
		t.Fatalf("%s is not what was reviewed: %+v", r.ID, r)
	}
	if before.RunningApply() != nil {
		t.Fatalf("two applies at once: %+v", after.Applies)
	}
	team := []string{r.Author, r.By, r.First.By, r.Second.By}
	for _, x := range r.Tests {
		team = append(team, x.By)
	}
	if slices.Contains(team, a.Executor) || a.Executor == a.Observer {
		t.Fatalf("executor %s, observer %s, and %v worked on %s", a.Executor, a.Observer, team, r.ID)
	}
	if a.Observer == "" && before.Waived(observer, r.ID) == nil {
		t.Fatalf("nobody observes %s and nobody waived it", r.ID)
	}
}

// checkShortStart holds when an apply starts under strategy 2 or 3: an assessor handed the current revision to a critical admin,
// tested, nothing is vetoed, and who made it does not execute it.
func checkShortStart(t pt.T, before *procedure.State, r *procedure.Revision, a procedure.Apply) {
	if !r.Forward.LocalTest && !r.Forward.Complete || r.Superseded != "" || len(before.OpenVetoes(r.ID)) > 0 || before.RunningApply() != nil {
		t.Fatalf("%+v is applied: forwarded %+v, vetoes %v", r, r.Forward, before.OpenVetoes(r.ID))
	}
	if len(before.Strategies) == 0 || before.Strategies[len(before.Strategies)-1].To != before.Strategy {
		t.Fatalf("strategy %d without a change to it: %+v", before.Strategy, before.Strategies)
	}
	if a.Executor == a.Observer || a.Executor == r.Author || a.Executor == r.By || a.Executor == r.Forward.By {
		t.Fatalf("executor %s, observer %s, %s wrote and %s registered and %s forwarded it", a.Executor, a.Observer, r.Author, r.By, r.Forward.By)
	}
	if a.Observer == "" && !a.NoObserverSaid {
		t.Fatalf("nobody observes %s, and why is not said", r.ID)
	}
}

// checkPersons holds for every revision at any time.
func checkPersons(t pt.T, s *procedure.State) {
	for _, r := range s.Revisions {
		phases := []procedure.Checks{r.Checks}
		if r.Cycle != nil {
			phases = append(phases, r.Cycle.Checks)
		}
		var first, second, testers []string
		for _, c := range phases {
			if c.First != nil {
				first = append(first, c.First.By)
			}
			if c.Second != nil {
				second = append(second, c.Second.By)
			}
			var here []string
			for _, x := range c.Tests {
				if slices.Contains(here, x.By) {
					t.Fatalf("%s counts twice as tester of %s (X9)", x.By, r.ID)
				}
				here = append(here, x.By)
			}
			testers = append(testers, here...)
		}
		for _, p := range first {
			if slices.Contains(second, p) {
				t.Fatalf("%s gave both reviews of %s (X7)", p, r.ID)
			}
		}
		reviewers := slices.Concat(first, second)
		for _, p := range slices.Concat(reviewers, testers) {
			if p == r.Author || p == r.By {
				t.Fatalf("%s wrote %s and judged it (X5, X6)", p, r.ID)
			}
		}
		for _, p := range reviewers {
			if slices.Contains(testers, p) {
				t.Fatalf("%s reviewed and tested %s (X8)", p, r.ID)
			}
		}
	}
	running := 0
	for _, a := range s.Applies {
		if a.Running() {
			running++
		}
	}
	if running > 1 {
		t.Fatalf("%d applies at once", running)
	}
}

// checkDebts: an obligation never disappears, never moves, and what is discharged stays so by the same event.
func checkDebts(t pt.T, before, after *procedure.State) {
	if after.Status == procedure.Merged {
		return // they pass to the incident that goes on (4.1)
	}
	now := map[string]procedure.Obligation{}
	for _, o := range procedure.Debts(after) {
		if _, twice := now[o.ID]; twice {
			t.Fatalf("%s is owed twice", o.ID)
		}
		now[o.ID] = o
	}
	for _, old := range procedure.Debts(before) {
		o, ok := now[old.ID]
		switch {
		case !ok:
			t.Fatalf("%s was owed and is no more", old.ID)
		case o.Cause != old.Cause || !o.Due.Equal(old.Due) && !untilTheEnd(o.Kind) && (!old.Open() || !firstEffect(before, after)):
			t.Fatalf("%s moved from %+v to %+v", old.ID, old, o)
		case !old.Open() && o.By != old.By:
			t.Fatalf("%s was discharged by %d and now by %d", old.ID, old.By, o.By)
		}
	}
}

// untilTheEnd are the obligations that run from the end of a session, which is only planned while it is live (3.2).
func untilTheEnd(kind string) bool {
	return kind == "DISABLE_ACCESS" || kind == "PROVE_UNUSABLE" || kind == "SEAL_SESSION"
}

// firstEffect tells whether the host was changed between two states: what an escalation owes is due from then (7).
func firstEffect(before, after *procedure.State) bool {
	return len(after.Applies) > len(before.Applies) || opened(after) > opened(before)
}

func opened(s *procedure.State) int {
	n := 0
	for _, g := range s.Grants {
		if g.Opened.Position > 0 {
			n++
		}
	}
	return n
}

// checkDebtsRecorded: making obligations visible makes all of them visible, once.
func checkDebtsRecorded(t pt.T, w *pt.World) {
	if w.State.Status == procedure.Absent || w.State.Status == procedure.Merged {
		return
	}
	w.Now = w.State.RecordedAt
	if need, out := procedure.NeedsSync(w.State), w.Sync(); need != (out.Record != nil) {
		t.Fatalf("NeedsSync says %v, %v was recorded", need, out.Types())
	}
	if out := w.Sync(); out.Record != nil || procedure.NeedsSync(w.State) {
		t.Fatalf("a second time records %v", out.Types())
	}
	for _, o := range procedure.Debts(w.State) {
		i := slices.IndexFunc(w.State.Obligations, func(x procedure.Obligation) bool { return x.ID == o.ID })
		if i < 0 || w.State.Obligations[i].Open() != o.Open() {
			t.Fatalf("%+v is not visible", o)
		}
	}
}

// checkRepetition: every command, sent again as it was, gives the result it gave; with another body it is refused (G3).
func checkRepetition(t pt.T, w *pt.World, sent []sentCommand) {
	w.Now = w.State.RecordedAt
	for _, x := range sent {
		again := w.Decide(x.move.Who, x.out.Command, x.move.Options()...)
		if again.Err != nil || again.Refusal != nil || again.Decision.Repeated == nil {
			t.Fatalf("%s by %s, sent again: %+v", procedure.CommandName(x.out.Command), x.move.Who, again)
		}
		r, rec := again.Decision.Repeated, x.out.Record
		if r.First != rec.GetFirstPosition() || r.Last != rec.GetFirstPosition()+uint64(len(rec.GetEvents()))-1 || !slices.Equal(r.Types, x.out.Types()) {
			t.Fatalf("%s by %s, sent again, gives %+v", procedure.CommandName(x.out.Command), x.move.Who, r)
		}
		other := proto.Clone(x.out.Command).(procedure.Command)
		other.GetMeta().Authority = "another ground"
		out := w.Decide(x.move.Who, other, x.move.Options()...)
		if _, registers := other.(*emergencyv1.RegisterPatchRequest); registers || other.GetMeta().GetCapturedAt() != nil {
			continue // what was signed names the revision that it became, or the whole command, so the signature is judged first
		}
		if out.Refusal == nil || out.Refusal.Reason != procedure.ReasonRequestIDReused {
			t.Fatalf("%s by %s with another body: %+v", procedure.CommandName(other), x.move.Who, out)
		}
	}
}

// checkReplay: the same history gives the same state.
func checkReplay(t pt.T, w *pt.World) {
	a, b := replay(t, w), replay(t, w)
	if pt.Fingerprint(a) != pt.Fingerprint(b) || pt.Fingerprint(a) != pt.Fingerprint(w.State) {
		t.Fatalf("the same history gives different states")
	}
}

// replay folds the stored bytes from the beginning, in place.
func replay(t pt.T, w *pt.World) *procedure.State {
	s := procedure.NewState(w.State.Incident)
	for i, b := range w.Bytes {
		var rec emergencyv1.Record
		if err := proto.Unmarshal(b, &rec); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if err := s.Apply(&rec, pt.HashOf(b)); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
	return s
}

// checkTick: a tick that has nothing to tell, and one that comes twice, record nothing.
func checkTick(t pt.T, w *pt.World, owner string) {
	if w.State.Status == procedure.Absent || w.State.Status == procedure.Merged {
		return
	}
	w.Now = w.State.RecordedAt
	for range 20 { // a tick tells so much at once and no more
		if w.Tick(owner).Record == nil {
			break
		}
	}
	if out := w.Tick(owner); out.Record != nil {
		t.Fatalf("%s: never done telling: %v", owner, out.Types())
	}
}
