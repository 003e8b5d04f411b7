// SPDX-License-Identifier: Apache-2.0

package dashboard_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func (r *rig) incident(who string) *dashboardv1.Incident {
	r.t.Helper()
	return must(r.client(who).ReadIncident(r.t.Context(), &dashboardv1.ReadIncidentRequest{Incident: one}))(r.t).GetIncident()
}

const about = emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2

// A dispute from its filing to the panel's ruling, as other tools see it.
func TestReadDisputes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.told(one, pt.Story(pt.Healthy2), pt.Dispute(about, pt.Proposed))
	x := r.incident("mia").GetDisputes()[0]
	if x.GetState() != "PROPOSED" || !x.GetWithoutArbitrator() || len(x.GetProposals()) != 1 || x.GetProposals()[0].GetState() != "WAITING" || x.GetClaimants().GetCommitment() == "" {
		t.Errorf("asked: %v", x)
	}
	r.clock.Advance(pt.Month)
	if x = r.incident("mia").GetDisputes()[0]; x.GetState() != "AWAITING_ARBITRATOR" || x.GetProposals()[0].GetState() != "SILENT" {
		t.Errorf("no answer for a month: %v", x)
	}
	r.clock.Set(w.Now)
	pt.DisputeFrom(about, pt.Proposed, pt.Ruled)(w)
	r.feed(w)
	i := r.incident("mia")
	x = i.GetDisputes()[0]
	if x.GetState() != "RULED" || x.GetConcern() != about || x.GetFiled().GetBy() != "carla" || x.GetCaseNumber() != "a20261125.7" || x.GetCaseOpened().GetBy() != "casper" || x.GetWithoutArbitrator() ||
		x.GetArbitrator() != "arno" || x.GetEvidencePosition() == 0 || len(x.GetEvidenceHash()) != 64 || len(x.GetDeviations()) != len(w.State.Disputes[0].Deviations) || x.GetEnded().GetPosition() == 0 {
		t.Errorf("ruled: %v", x)
	}
	if p := x.GetProposals(); len(p) != 2 || p[0].GetCandidate() != "agnes" || p[0].GetState() != "DECLINED" || p[0].GetDeclined().GetPosition() == 0 || p[1].GetState() != "ACCEPTED" {
		t.Errorf("asked: %v", p)
	}
	if l := i.GetRulings(); len(l) != 1 || l[0].GetId() != "R1" || l[0].GetDispute() != x.GetId() || l[0].GetMark().GetBy() != "arno" || len(l[0].GetJudgements()) != len(x.GetDeviations()) {
		t.Errorf("rulings: %v", l)
	}
	d := i.GetDirections()
	if len(d) != 1 || d[0].GetId() != "D1" || d[0].GetPerson() != "carla" || d[0].GetState() != "OPEN" || d[0].GetInRuling() != "R1" || d[0].GetText().GetCommitment() == "" || d[0].GetReported() != nil {
		t.Errorf("directions: %v", d)
	}
	r.clock.Advance(365 * 24 * time.Hour)
	if d := r.incident("mia").GetDirections()[0]; d.GetState() != "OVERDUE" {
		t.Errorf("a year later the direction is %s", d.GetState())
	}
	r.clock.Set(w.Now)
	pt.DisputeFrom(about, pt.Ruled, pt.FinalRuled)(w)
	r.feed(w)
	i = r.incident("mia")
	review := i.GetDisputes()[1]
	if review.GetOfRuling() != "R1" || review.GetState() != "FINAL_RULED" || review.GetSenior() != "adele" || len(review.GetPanel()) != 3 || review.GetReopened().GetBy() != "agnes" || review.GetClaimants() != nil {
		t.Errorf("review: %v", review)
	}
	if l := i.GetRulings(); l[0].GetSupersededBy() != "R2" || !l[1].GetFinal() || l[0].GetPublished().GetPosition() == 0 {
		t.Errorf("rulings: %v", l)
	}
	if d := i.GetDirections(); d[0].GetState() != "DONE" || d[0].GetDone().GetBy() != "casper" || d[1].GetState() != "OPEN" {
		t.Errorf("directions: %v", d)
	}
}

// Strategy 3 with its grants, and the update cycle of strategy 2.
func TestReadAccessAndCycle(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.told(one, pt.Story(pt.Sealed))
	i := r.incident("mia")
	if c := i.GetStrategies(); len(c) != 1 || c[0].GetTo() != 3 || len(c[0].GetSigners()) != 2 || c[0].GetMark().GetPosition() == 0 {
		t.Errorf("strategies: %v", c)
	}
	g := i.GetGrants()[0]
	want := w.State.Grants[0]
	if g.GetId() != "G1" || g.GetState() != "SEALED" || g.GetSubject() != want.Subject || g.GetWatcher() != want.Watcher || g.GetOpened().GetPosition() != want.Opened.Position ||
		g.GetProvenUnusable() == nil || g.GetSealed() == nil || g.GetRecordingSha256() == "" || g.GetMaxSeconds() == 0 || g.GetAfterTree() == "" || len(g.GetLeftovers()) != len(want.Leftovers) || g.GetExpired() != nil {
		t.Errorf("grant: %v", g)
	}
	if p := i.GetPermissions(); len(p) != 1 || p[0].GetSubject() != want.Subject || p[0].GetMark().GetPosition() != g.GetPermission() || p[0].GetPurpose().GetCommitment() == "" {
		t.Errorf("permissions: %v", p)
	}

	r = newRig(t)
	r.told(one, pt.Story(pt.Blessed))
	rev := r.incident("mia").GetRevisions()[0]
	var kinds []string
	for _, k := range rev.GetCycle().GetChecks() {
		kinds = append(kinds, k.GetKind())
	}
	if c := rev.GetCycle(); c.GetOutcome() != emergencyv1.CycleOutcome_CYCLE_OUTCOME_BLESSED || c.GetEntered().GetBy() != "anna" || c.GetCommit() == "" || c.GetConcluded() == nil ||
		strings.Join(kinds, ", ") != "first review, transfer, test server, test, test, second review" {
		t.Errorf("cycle: %v", c)
	}
	if len(rev.GetChecks()) != 1 || rev.GetChecks()[0].GetKind() != "forward" || rev.GetOrigin() != emergencyv1.PatchOrigin_PATCH_ORIGIN_PREPARED {
		t.Errorf("before the deployment: %v", rev)
	}
}

// What was captured offline, and whether a second person stands for it.
func TestReadLateRecords(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.told(one, pt.Story(pt.Documented), func(w *pt.World) {
		w.Wait(time.Hour)
		w.Do("clara", &emergencyv1.RecordLeadDecisionRequest{
			Meta: &emergencyv1.CommandMeta{CapturedAt: timestamppb.New(w.Now.Add(-30 * time.Minute))}, Decision: emergencyv1.LeadDecision_LEAD_DECISION_APPROVE, Refer: true,
		})
	})
	late := r.incident("mia").GetLateRecords()
	if len(late) != 1 || late[0].GetCommand() != "RecordLeadDecision" || late[0].GetMark().GetBy() != "clara" || late[0].GetConfirmed() != nil || late[0].GetLastPosition() < late[0].GetMark().GetPosition() ||
		!late[0].GetCapturedAt().AsTime().Before(late[0].GetMark().GetAt().AsTime()) {
		t.Fatalf("late records: %v", late)
	}
	w.Do("anna", &emergencyv1.ConfirmLateRecordRequest{Event: late[0].GetMark().GetPosition(), Proof: "I was on the phone with her"})
	r.feed(w)
	if late = r.incident("mia").GetLateRecords(); late[0].GetConfirmed().GetBy() != "anna" {
		t.Errorf("confirmed: %v", late)
	}
}

// A dispute about an incident that is closed does not reopen it (6, rule 6), but waits for people all the same: each of them
// finds it in the own inbox, and nobody else does.
func TestInboxOfAClosedIncident(t *testing.T) {
	t.Parallel()
	const other = emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER
	r := newRig(t)
	w := r.told(one, pt.Story(pt.ClosedDown), pt.Dispute(other, pt.Begun))
	if w.State.Status != "CLOSED" {
		t.Fatalf("the incident is %s", w.State.Status)
	}
	has := func(who, item string, want bool) {
		t.Helper()
		if got := r.inbox(who); slices.Contains(got, item+" "+one) != want {
			t.Errorf("%s: %q, want %q: %t", who, got, item, want)
		}
	}
	has("arno", "DeliverRuling a20261124.1", true)
	has("carla", "DeliverRuling a20261124.1", false)
	pt.DisputeFrom(other, pt.Begun, pt.Ruled)(w)
	r.feed(w)
	has("arno", "DeliverRuling a20261124.1", false)
	has("carla", "ReportDirectionDone D1", true)
	has("carl", "ReportDirectionDone D1", false)
	w.Do("carla", &emergencyv1.ReportDirectionDoneRequest{Direction: "D1", Proof: "it is in the wiki"})
	r.feed(w)
	has("carla", "ReportDirectionDone D1", false)
	has("arno", "ConfirmDirection D1", true)
	has("carla", "ConfirmDirection D1", false)
	w.Do("arno", &emergencyv1.ConfirmDirectionRequest{Direction: "D1"})
	pt.DisputeFrom(other, pt.Obeyed, pt.ReviewAppointed)(w)
	r.feed(w)
	has("arno", "DeliverRuling a20261124.2", false)
	if got := r.inbox("mia"); len(got) > 0 {
		t.Errorf("a member who is no party waits for %q", got)
	}
}

// What was merged waits in its target alone.
func TestInboxOfAMergedIncident(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	target := r.told(one, pt.Story(pt.Declared))
	w := r.told("e20261124.2", func(w *pt.World) { w.Wait(time.Hour) }, pt.Story(pt.Declared))
	waits := func() bool {
		return slices.ContainsFunc(r.inbox("clara"), func(item string) bool { return strings.HasSuffix(item, w.State.Incident) })
	}
	if !waits() {
		t.Errorf("the lead has nothing to do in an incident that is open: %q", r.inbox("clara"))
	}
	w.Do("carla", &emergencyv1.MergeIntoRequest{Target: one, Reason: "it is the same outage"}, pt.Facts(procedure.Facts{Other: target.State}))
	r.feed(w)
	if waits() {
		t.Errorf("merged, and still %q", r.inbox("clara"))
	}
}
