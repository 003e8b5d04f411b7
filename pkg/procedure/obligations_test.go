// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// owed lists the obligations as "KIND" while open and "KIND by N" when discharged by the event of that type.
func owed(t *testing.T, w *pt.World) []string {
	t.Helper()
	types := map[uint64]string{}
	for _, rec := range w.Records {
		for i, e := range rec.GetEvents() {
			types[rec.GetFirstPosition()+uint64(i)] = pt.ShortType(e.GetType())
		}
	}
	var list []string
	for _, o := range procedure.Debts(w.State) {
		if !strings.HasPrefix(o.ID, o.Kind+"/") || types[o.Cause] == "" {
			t.Errorf("obligation %+v has no cause in its id", o)
		}
		if o.Kind == "LEAD_DECISION" || o.Kind == "BOARD_SUMMARY" {
			continue // of every emergency; see below
		}
		s := o.Kind + "<" + types[o.Cause]
		if !o.Open() {
			s += " by " + types[o.By]
		}
		list = append(list, s)
	}
	return list
}

// TestDebts is the table of chapter 7 as far as strategy 1 reaches: what opens an obligation, what discharges it.
func TestDebts(t *testing.T) {
	t.Parallel()
	does := func(who string, c procedure.Command, o ...pt.Option) pt.Step { return pt.Does(who, c, o...) }
	odd := pt.Does(agent, pt.ReportTree(pt.Tree("odd")))
	base := pt.Does(agent, pt.ReportTree(pt.BaseTree()))
	equal := does("repo:git", &emergencyv1.CheckReplicationRequest{})
	drift := does("repo:git", &emergencyv1.CheckReplicationRequest{}, pt.Facts(pt.Drift("etc/odd")))
	health := does("carla", pt.Health())
	mismatch := history(pt.Story(pt.Applied), odd)
	unproven := append(slices.Clone(mismatch), does("carla", pt.BackOut()), odd)
	rolledBack := history(does("carla", pt.RollBack("carl")), base)
	document := func(w *pt.World) { w.Do("carla", pt.Document(w.State)) }
	withdraw := does("beate", &emergencyv1.WithdrawVetoRequest{Veto: "V1", Reason: "I misread the patch"})
	overrule := does("albert", &emergencyv1.OverruleVetoRequest{Veto: "V1", Reason: "the hole it names was there before, and is smaller"})
	join := func(lists ...[]pt.Step) []pt.Step { return slices.Concat(lists...) }
	applied := func(rest ...string) []string { // what any apply owes
		return append([]string{"DOCUMENT/S1<ApplyStarted", "HEALTH<PatchApplied", "REPLICATE<PatchApplied"}, rest...)
	}
	inCycle := join(withoutTests(pt.Observed), history(pt.From(pt.Observed, pt.Verified), equal, does("anna", &emergencyv1.EnterUpdateCycleRequest{})))
	cycled := func(rest ...string) []string {
		return append([]string{"DOCUMENT/S1<ApplyStarted", "HEALTH<PatchApplied", "REPLICATE<PatchApplied by ReplicationChecked"}, rest...)
	}
	for _, x := range []struct {
		name  string
		given []pt.Step
		want  []string
	}{
		{"declared", history(pt.Story(pt.Observed)), nil},
		{"applying", history(pt.Story(pt.Applying)), []string{"DOCUMENT/S1<ApplyStarted"}},
		{"applied", history(pt.Story(pt.Applied)), applied()},
		{"a failed apply", history(pt.Story(pt.Applying), does(agent, pt.ReportApply(false))), []string{"DOCUMENT/S1<ApplyStarted"}},
		{"healthy", history(pt.Story(pt.Verified), health), []string{"DOCUMENT/S1<ApplyStarted", "HEALTH<PatchApplied by HealthRecorded", "REPLICATE<PatchApplied"}},
		{"documented", history(pt.Story(pt.Verified), document), []string{"DOCUMENT/S1<ApplyStarted by ProcedureDocumented", "HEALTH<PatchApplied", "REPLICATE<PatchApplied"}},
		{"replicated", history(pt.Story(pt.Verified), equal), []string{"DOCUMENT/S1<ApplyStarted", "HEALTH<PatchApplied", "REPLICATE<PatchApplied by ReplicationChecked"}},
		{"replicated before", history(pt.Story(pt.Observed), equal, pt.From(pt.Observed, pt.Applied)), applied()},
		{"drifted", history(pt.Story(pt.Verified), drift), applied("EXPLAIN_DRIFT<ReplicationChecked")},
		{"drift gone", history(pt.Story(pt.Verified), drift, equal), []string{"DOCUMENT/S1<ApplyStarted", "HEALTH<PatchApplied", "REPLICATE<PatchApplied by ReplicationChecked", "EXPLAIN_DRIFT<ReplicationChecked by ReplicationChecked"}},
		{"differs", mismatch, applied("EXPLAIN_MISMATCH<DeployMismatch")},
		{"backed out", join(mismatch, history(does("carla", pt.BackOut()), base)), []string{"DOCUMENT/S1<ApplyStarted", "HEALTH<PatchApplied by PatchBackedOut", "REPLICATE<PatchApplied", "EXPLAIN_MISMATCH<DeployMismatch by PatchBackedOut", "REPLICATE<PatchBackedOut"}},
		{"back-out not proven", unproven, applied("EXPLAIN_MISMATCH<DeployMismatch", "BACKOUT_PROOF<BackOutUnproven")},
		{"back-out not proven twice is owed once, from the first time", join(unproven, history(does("carla", pt.BackOut()), odd)), applied("EXPLAIN_MISMATCH<DeployMismatch", "BACKOUT_PROOF<BackOutUnproven")},
		{"back-out proven in the end", join(unproven, history(does("carla", pt.BackOut()), base)), []string{"DOCUMENT/S1<ApplyStarted", "HEALTH<PatchApplied by PatchBackedOut", "REPLICATE<PatchApplied", "EXPLAIN_MISMATCH<DeployMismatch by PatchBackedOut", "BACKOUT_PROOF<BackOutUnproven by PatchBackedOut", "REPLICATE<PatchBackedOut"}},
		{"rolled back", join(history(pt.Story(pt.Verified)), rolledBack), []string{"DOCUMENT/S1<ApplyStarted", "HEALTH<PatchApplied by RolledBack", "REPLICATE<PatchApplied", "REPLICATE<RolledBack"}},
		{"replicated, then rolled back", join(history(pt.Story(pt.Verified), equal), rolledBack), []string{"DOCUMENT/S1<ApplyStarted", "HEALTH<PatchApplied by RolledBack", "REPLICATE<PatchApplied by ReplicationChecked", "REPLICATE<RolledBack"}},
		{"rolled back, then replicated", join(history(pt.Story(pt.Verified)), rolledBack, history(equal)), []string{"DOCUMENT/S1<ApplyStarted", "HEALTH<PatchApplied by RolledBack", "REPLICATE<PatchApplied by ReplicationChecked", "REPLICATE<RolledBack by ReplicationChecked"}},
		{"veto after the start", history(pt.Story(pt.Applying), does("beate", pt.Veto())), []string{"DOCUMENT/S1<ApplyStarted", "POST_APPLY_VETO<VetoRaised"}},
		{"veto after the start, withdrawn", history(pt.Story(pt.Applying), does("beate", pt.Veto()), withdraw), []string{"DOCUMENT/S1<ApplyStarted", "POST_APPLY_VETO<VetoRaised by VetoWithdrawn"}},
		{"veto after the start, overruled", history(pt.Story(pt.Applying), does("beate", pt.Veto()), overrule), []string{"DOCUMENT/S1<ApplyStarted", "POST_APPLY_VETO<VetoRaised by VetoOverruled"}},
		{"veto before the start", history(pt.Story(pt.Observed), does("beate", pt.Veto()), withdraw, pt.From(pt.Observed, pt.Applying)), []string{"DOCUMENT/S1<ApplyStarted"}},
		{"tests waived", join(withoutTests(pt.Observed), history(pt.From(pt.Observed, pt.Applying))), []string{"DOCUMENT/S1<ApplyStarted", "TEST_DEBT<ApplyStarted"}},
		{"the missing test comes after", join(inCycle, history(does("tina", pt.After(pt.Test(pass))))), cycled("TEST_DEBT<ApplyStarted by TestReported")},
		{"the same tester again is not the missing test", join(inCycle, history(does("theo2", pt.After(pt.Test(pass))))), cycled("TEST_DEBT<ApplyStarted")},
		{"a later failure does not bring it back", join(inCycle, history(does("tina", pt.After(pt.Test(pass))), does("tina", pt.After(pt.Test(fail))))), cycled("TEST_DEBT<ApplyStarted by TestReported")},
		{"no observer", join(withoutObserver(), history(pt.From(pt.Observed, pt.Applying))), []string{"DOCUMENT/S1<ApplyStarted", "OBSERVER_DEBT<ApplyStarted"}},
		{"no observer, checked after", join(withoutObserver(), history(pt.From(pt.Observed, pt.Verified), does("carl", pt.CheckAfter()))), []string{"DOCUMENT/S1<ApplyStarted", "OBSERVER_DEBT<ApplyStarted by ObserverConfirmed", "HEALTH<PatchApplied", "REPLICATE<PatchApplied"}},
		{"referred", history(pt.Story(pt.Declared), does("clara", pt.Lead(true))), []string{"DISPUTE/REFERRED<LeadDecisionRecorded"}},
		{"referred, and thought better of", history(pt.Story(pt.Declared), does("clara", pt.Lead(true)), does("clara", pt.Lead(false))), []string{"DISPUTE/REFERRED<LeadDecisionRecorded"}},
		{"referred at last", history(pt.Story(pt.Declared), does("clara", pt.Lead(false)), does("clara", pt.Lead(true))), []string{"DISPUTE/REFERRED<LeadDecisionRecorded"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			w := given(t, x.given...).World()
			got := owed(t, w)
			slices.Sort(got)
			slices.Sort(x.want)
			if !slices.Equal(got, x.want) {
				t.Errorf("owed\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(x.want, "\n  "))
			}
		})
	}
	t.Run("a second finding moves nothing", func(t *testing.T) {
		t.Parallel()
		w := given(t, unproven...).World()
		first, _ := debt(w.State, "BACKOUT_PROOF")
		w.Wait(time.Hour)
		pt.GivenWorld(t, w, does("carla", pt.BackOut()), odd)
		if second, _ := debt(w.State, "BACKOUT_PROOF"); second != first {
			t.Errorf("%+v after %+v", second, first)
		}
	})
	t.Run("of every emergency", func(t *testing.T) {
		t.Parallel()
		w := given(t, pt.Story(pt.Declared)).World()
		for kind, due := range map[string]time.Duration{"LEAD_DECISION": 24 * time.Hour, "BOARD_SUMMARY": 30 * 24 * time.Hour} {
			if o, ok := debt(w.State, kind); !ok || !o.Open() || !o.Due.Equal(pt.T0().Add(due)) {
				t.Errorf("%s: %+v", kind, o)
			}
		}
		w.Do("clara", pt.Lead(false))
		first := w.State.Position
		w.Do("clara", pt.Lead(false))
		if o, _ := debt(w.State, "LEAD_DECISION"); o.By != first {
			t.Errorf("discharged by %d, want the first decision at %d", o.By, first)
		}
		w.Do("bea", pt.BoardSummary())
		if o, _ := debt(w.State, "BOARD_SUMMARY"); o.Open() {
			t.Errorf("%+v", o)
		}
	})
}

func TestObligationTimes(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Applied)).World()
	o, _ := debt(w.State, "HEALTH")
	if o.Overdue(o.Due) || !o.Overdue(o.Due.Add(1)) || o.LateBy(o.Due.Add(time.Minute)) != time.Minute {
		t.Errorf("exactly due is in time: %+v", o)
	}
	w.Now = o.Due.Add(time.Hour)
	w.Do("carla", pt.Health())
	o, _ = debt(w.State, "HEALTH")
	if o.Overdue(w.Now) || o.LateBy(w.Now.Add(time.Hour)) != time.Hour {
		t.Errorf("discharged an hour late: %+v", o)
	}
}

func TestSync(t *testing.T) {
	t.Parallel()
	sync := &emergencyv1.SyncObligationsRequest{}
	synced := func(w *pt.World) { w.Sync() }
	opened := func(n int) []string { return slices.Repeat(events("ObligationOpened"), n) }
	run(t, []row{
		{name: "what is owed becomes visible", given: history(pt.Story(pt.Declared)), when: sync, by: "reactor", then: opened(2)},
		{name: "again is nothing", given: history(pt.Story(pt.Declared), synced), when: sync, by: "reactor"},
		{name: "what was paid becomes visible", given: history(pt.Story(pt.Verified), synced, pt.Does("carla", pt.Health())), when: sync, by: "reactor", then: events("ObligationDischarged")},
		{name: "opened and paid at once", given: history(pt.Story(pt.Verified), pt.Does("carla", pt.Health())), when: sync, by: "reactor", then: append(append(opened(4), "ObligationDischarged"), opened(1)...)},
		{name: "another owner", given: history(pt.Story(pt.Verified), pt.Does("repo:git", &emergencyv1.CheckReplicationRequest{}, pt.Facts(pt.Drift("etc/odd"))), synced,
			secondPatch(pt.DryRun), pt.Does("carla", pt.Observe()), pt.Does("carl", &emergencyv1.StartApplyRequest{})), when: sync, by: "reactor", then: events("ObligationDueChanged")},
		{name: "by a person", given: history(pt.Story(pt.Declared)), when: sync, by: "carla", refused: procedure.ReasonRole},
	})
	t.Run("NeedsSync agrees", func(t *testing.T) {
		t.Parallel()
		w := given(t, pt.Story(pt.Verified)).World()
		if !procedure.NeedsSync(w.State) {
			t.Error("nothing to make visible")
		}
		w.Sync()
		if procedure.NeedsSync(w.State) {
			t.Error("still something to make visible")
		}
	})
}

// TestLadder is the ladder of chapter 7 (SP 5.3.3), on the lead's decision, due at T0+24h.
func TestLadder(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Declared)).World()
	w.Sync()
	tick := func(after time.Duration) string {
		w.Now = pt.T0().Add(after)
		var list []string
		out := w.Tick(procedure.OwnerArbitration)
		for _, e := range out.Record.GetEvents() {
			p, err := procedure.DecodeEvent(e)
			if err != nil {
				t.Fatal(err)
			}
			switch m := p.(type) {
			case *emergencyv1.ObligationOverdue:
				if strings.HasPrefix(m.GetId(), "LEAD") {
					list = append(list, "overdue")
				}
			case *emergencyv1.ObligationEscalated:
				if !strings.HasPrefix(m.GetId(), "LEAD") {
					continue
				}
				told := fmt.Sprintf("%d:", m.GetRung())
				for _, r := range m.GetTold() {
					told += " " + procedure.RoleWord(r)
				}
				list = append(list, told)
			}
		}
		return strings.Join(list, ", ")
	}
	hour, day := time.Hour, 24*time.Hour
	for _, x := range []struct {
		after time.Duration
		want  string
	}{
		{12 * hour, ""}, {12*hour + 1, "1: critical team lead"},
		{day, ""}, {day + 1, "2: critical team lead, overdue"},
		{2 * day, ""}, {2*day + 1, "3: critical team lead"},
		{4 * day, ""}, {4*day + 1, "4: assessment team lead board"},
		{18 * day, ""}, {18*day + 1, "5: board"}, {32*day + 1, "6: board"},
		{60*day + 1, "7: board, 8: board"},
	} {
		if got := tick(x.after); got != x.want {
			t.Errorf("%s after T0: %q, want %q", x.after, got, x.want)
		}
	}
	w.Do("clara", pt.Lead(false))
	w.Sync()
	if got := tick(100 * day); got != "" {
		t.Errorf("after it was paid: %q", got)
	}
}
