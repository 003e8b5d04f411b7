// SPDX-License-Identifier: Apache-2.0

package dashboard_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// inbox is what waits for somebody: command, subject and incident of each item.
func (r *rig) inbox(who string) []string {
	r.t.Helper()
	var list []string
	for _, i := range must(r.client(who).ReadInbox(r.t.Context(), &dashboardv1.ReadInboxRequest{}))(r.t).GetItems() {
		if i.GetTitle() == "" {
			r.t.Errorf("an item without words: %v", i)
		}
		list = append(list, strings.Join(strings.Fields(fmt.Sprint(i.GetCommand(), " ", i.GetSubject(), " ", i.GetIncident())), " "))
	}
	return list
}

func TestInboxAlongTheStory(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		milestone pt.Milestone
		who, want string
	}{
		{pt.Declared, "carl", "CallOut e20261124.1"},
		{pt.Declared, "mia", ""},
		{pt.Registered, "anna", "RecordFirstReview P1r1 e20261124.1"},
		{pt.Registered, "dora", ""},
		{pt.Reviewed, "anna", "Transfer P1r1 e20261124.1"},
		{pt.OnTestServer, "theo", "ReportTest P1r1 e20261124.1"},
		{pt.Tested, "bert", "RecordSecondReview P1r1 e20261124.1"},
		{pt.Forwarded, "carl", "ConfirmObserver P1r1 e20261124.1"},
		{pt.Observed, "carla", "StartApply P1r1 e20261124.1"},
		{pt.Verified, "carla", "RecordHealth P1r1 e20261124.1"},
		{pt.ClosedDown, "carla", ""},
	} {
		t.Run(string(c.milestone)+" "+c.who, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.told(one, pt.Story(c.milestone))
			got := r.inbox(c.who)
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) == 0 || got[0] != c.want) {
				t.Errorf("inbox %q, want %q first", got, c.want)
			}
		})
	}
}

// What a lead owes comes as steps first and then as debts; what is late says so.
func TestInboxOfALead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.told(one, pt.Story(pt.Documented), pt.Does("clara", pt.Lead(true)))
	got := r.inbox("clara")
	if i := slices.IndexFunc(got, func(s string) bool { return strings.HasPrefix(s, "FileDispute DISPUTE/REFERRED") }); i < 0 {
		t.Errorf("the dispute to be filed is missing: %q", got)
	}
	if !slices.Contains(got, "RecordBoardSummary e20261124.1") {
		t.Errorf("the Board summary is missing: %q", got)
	}
	for _, item := range got {
		if n := strings.Count(strings.Join(got, "\n"), item); n != 1 {
			t.Errorf("%q is there %d times: %q", item, n, got)
		}
	}
	r.clock.Set(w.Now.Add(30 * time.Hour))
	for _, i := range must(r.client("clara").ReadInbox(t.Context(), &dashboardv1.ReadInboxRequest{}))(t).GetItems() {
		if strings.HasPrefix(i.GetSubject(), "DISPUTE") && !strings.HasPrefix(i.GetTitle(), "overdue by ") {
			t.Errorf("an overdue debt reads %q", i.GetTitle())
		}
	}
	if got := r.inbox("albert"); slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "DISPUTE") }) {
		t.Errorf("the other lead is told to file it: %q", got)
	}
}

// All incidents in one list: by due time, handovers last; an agent has no inbox.
func TestInboxOverIncidents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.told("e20261124.2", func(w *pt.World) { w.Wait(time.Hour) }, pt.Story(pt.Forwarded))
	r.told("e20261124.3", pt.Story(pt.OnStandby), pt.Does("carl", released("critical/2")), pt.Does("carla", pt.HandOver("critical/1", "carl")))
	r.told(one, pt.Story(pt.Forwarded))
	r.clock.Advance(2 * time.Hour)
	got := r.inbox("carl")
	first := slices.Index(got, "ConfirmObserver P1r1 e20261124.1")
	second := slices.Index(got, "ConfirmObserver P1r1 e20261124.2")
	handover := slices.Index(got, "CheckIn critical/1 e20261124.3")
	if first < 0 || second < first || handover != len(got)-1 {
		t.Errorf("inbox %q: want the earlier incident's step first, the handover last", got)
	}
	if got := r.inbox("agent"); len(got) > 0 {
		t.Errorf("an agent's inbox: %q", got)
	}
}

// released gives a slot free again.
func released(slot string) *emergencyv1.EndStandbyRequest {
	return &emergencyv1.EndStandbyRequest{Slot: slot, Reason: emergencyv1.StandbyEndReason_STANDBY_END_REASON_RELEASED}
}
