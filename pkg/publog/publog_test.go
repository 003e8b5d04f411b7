// SPDX-License-Identifier: Apache-2.0

package publog_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/publog"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

var bind = &emergencyv1.Binding{Revision: "P1r1", Digest: strings.Repeat("b", 64)}

// secret stands for a restricted value.
var secret = &emergencyv1.Restricted{Commitment: "c0"}

var due = timestamppb.New(time.Date(2026, 11, 25, 20, 0, 0, 0, time.UTC))

// column is the column "Log" of procedure.md 5: an example of each event, and the headline it yields; "-" for none. fields are
// all its fields, but for the deviation that each of the examples carries.
var column = []struct {
	payload  proto.Message
	headline string
	fields   string
}{
	{&emergencyv1.EmergencyDeclared{System: "www", Severity: emergencyv1.Severity_SEVERITY_HIGH, ReasonClass: emergencyv1.ReasonClass_REASON_CLASS_EXPLOIT, PolicyNumber: 3}, "Emergency declared", "system=www|severity=high|reason=exploit|policy=3"},
	{&emergencyv1.DuplicateAbsorbed{Source: "e20261124.2", SourceHeadHash: "ab", Reason: "same"}, "Merged", "absorbed=e20261124.2|head of the absorbed incident=ab|reason=same"},
	{&emergencyv1.IncidentMerged{Target: "e20261124.1", Reason: "same"}, "Merged", "merged into=e20261124.1|reason=same"},
	{&emergencyv1.IncidentStoodDown{Reason: "gone"}, "Stood down", "reason=gone"},
	{&emergencyv1.ControlWaived{Control: emergencyv1.Control_CONTROL_TEST_QUORUM, Binding: bind}, "Control waived", "control=test quorum|revision=P1r1"},
	{&emergencyv1.LeadDecisionRecorded{Decision: emergencyv1.LeadDecision_LEAD_DECISION_APPROVE, Referred: true}, "Team lead decision", "decision=approve|referred to dispute=yes"},
	{&emergencyv1.LogAnnotated{Entry: 1, Text: "public"}, "Note", "on position=1|text=public"},
	{&emergencyv1.LogAnnotated{Entry: 1, RestrictedText: &emergencyv1.Restricted{Commitment: "c"}}, "-", ""},
	{&emergencyv1.DeadlineWarned{Deadline: "overall", Percent: 50}, "-", ""},
	{&emergencyv1.DeadlineBreached{Deadline: "overall", DueAt: due}, "Deadline missed", "deadline=overall|due=2026-11-25 20:00 UTC"},
	{&emergencyv1.DeadlineBreached{Deadline: "s1.tests", DueAt: due}, "-", ""},
	{&emergencyv1.IncidentClosed{Outcome: emergencyv1.Outcome_OUTCOME_FIXED, Summary: "done", TimeToFixMs: 5_400_000}, "Closed", "outcome=fixed|time to fix=1 h 30 min|summary=done"},

	{&emergencyv1.CallOutIssued{Round: 2, Teams: []emergencyv1.Team{emergencyv1.Team_TEAM_TESTING}}, "-", ""}, // not the first round
	{&emergencyv1.DeliveryReported{Page: "1.1"}, "-", ""},
	{&emergencyv1.RePaged{Round: 2}, "-", ""},
	{&emergencyv1.CoverageGapFound{Team: emergencyv1.Team_TEAM_TESTING}, "No one on duty: testing", ""},
	{&emergencyv1.ResponderAccepted{Slot: "critical/1", Person: "carla", Step: emergencyv1.ResponderStep_RESPONDER_STEP_EXECUTE}, "Team has a responder", "team=critical|step=deploy"},
	{&emergencyv1.ResponderDeclined{Person: "carl"}, "-", ""},
	{&emergencyv1.ResponderHandedOver{From: "carla", To: "carl"}, "-", ""},
	{&emergencyv1.AckExpired{Slot: "critical/1"}, "-", ""},
	{&emergencyv1.StandbyStarted{Slot: "critical/1"}, "-", ""},
	{&emergencyv1.StandbyCheckedIn{Slot: "critical/1"}, "-", ""},
	{&emergencyv1.StandbyMissed{Slot: "critical/1"}, "-", ""},
	{&emergencyv1.SlotReopened{Slot: "testing/2", Person: "tina"}, "Responder lost", "team=testing"},
	{&emergencyv1.StandbyEnded{Slot: "critical/1"}, "-", ""},
	{&emergencyv1.RotaChanged{}, "-", ""},
	{&emergencyv1.ContactsChanged{}, "-", ""},
	{&emergencyv1.ReachabilityRecorded{}, "-", ""},

	{&emergencyv1.PatchRegistered{Binding: bind, Patch: &emergencyv1.Artefact{Sha256: "abc"}, Author: "dora"}, "Patch registered", "revision=P1r1|sha256=abc"},
	{&emergencyv1.PatchSuperseded{OldRevision: "P1r1", NewRevision: "P1r2", Voids: []uint64{4, 5}}, "Revision replaced, 2 checks void", "revision=P1r1|replaced by=P1r2"},
	{&emergencyv1.FirstReviewRecorded{Binding: bind, Verdict: emergencyv1.ReviewVerdict_REVIEW_VERDICT_CHANGES}, "First review: changes", "revision=P1r1"},
	{&emergencyv1.PatchTransferred{Binding: bind}, "-", ""},
	{&emergencyv1.TestServerConfirmed{Binding: bind}, "Patch on test server", "revision=P1r1"},
	{&emergencyv1.TestReported{Binding: bind, Tester: "tom", Result: emergencyv1.TestResult_TEST_RESULT_FAIL}, "Test 3: fail", "revision=P1r1"},
	{&emergencyv1.TestReported{Binding: bind, Tester: "theo", Result: emergencyv1.TestResult_TEST_RESULT_PASS, Phase: emergencyv1.Phase_PHASE_AFTER}, "Test 1 in the update cycle: pass", "revision=P1r1|phase=after deployment"},
	{&emergencyv1.SecondReviewRecorded{Binding: bind, Verdict: emergencyv1.ReviewVerdict_REVIEW_VERDICT_VETO}, "Second review: veto", "revision=P1r1"},
	{&emergencyv1.VetoRaised{Veto: "V1", Binding: bind, AfterApplyStarted: true}, "Veto raised", "veto=V1|revision=P1r1|after the deployment started=yes"},
	{&emergencyv1.VetoWithdrawn{Veto: "V1"}, "Veto withdrawn", "veto=V1"},
	{&emergencyv1.VetoOverruled{Veto: "V1"}, "Veto overruled", "veto=V1"},
	{&emergencyv1.PatchForwarded{Binding: bind, To: "carla"}, "Forwarded to the critical team", "revision=P1r1"},

	{&emergencyv1.DryRunRecorded{Host: "www1"}, "-", ""},
	{&emergencyv1.ObserverConfirmed{Observer: "carl"}, "-", ""},
	{&emergencyv1.ApplyStarted{Binding: bind, Host: "www1", Executor: "carla", Observer: "carl", Gate: []*emergencyv1.GateCheck{{Check: "veto", Passed: true}}}, "Deployment started", "revision=P1r1|observer=with observer|gate=green"},
	{&emergencyv1.ApplyStarted{Binding: bind, Gate: []*emergencyv1.GateCheck{{Check: "first_review"}}}, "Deployment started", "revision=P1r1|observer=without observer|gate=not passed: first review"},
	{&emergencyv1.PatchApplied{Binding: bind}, "Applied", "revision=P1r1"},
	{&emergencyv1.PatchApplyFailed{Binding: bind}, "Apply failed", "revision=P1r1"},
	{&emergencyv1.DeployVerified{Binding: bind}, "Deployment verified", "revision=P1r1"},
	{&emergencyv1.DeployMismatch{Binding: bind, Report: &emergencyv1.TreeReport{PathCount: 4}}, "Deployment differs from the reviewed patch", "revision=P1r1|paths=4"},
	{&emergencyv1.BackOutStarted{Host: "www1"}, "-", ""},
	{&emergencyv1.PatchBackedOut{Binding: bind}, "Backed out", "revision=P1r1"},
	{&emergencyv1.BackOutUnproven{Binding: bind}, "Back-out not proven", "revision=P1r1"},
	{&emergencyv1.RollBackStarted{Host: "www1"}, "-", ""},
	{&emergencyv1.RolledBack{Binding: bind}, "Rolled back", "revision=P1r1"},
	{&emergencyv1.HealthRecorded{Binding: bind, Result: emergencyv1.HealthResult_HEALTH_RESULT_DEGRADED}, "Health: degraded", "revision=P1r1"},
	{&emergencyv1.ReplicationPushed{RealActor: "carla"}, "-", ""},
	{&emergencyv1.ReplicationChecked{Result: emergencyv1.ReplicationResult_REPLICATION_RESULT_EQUAL, Host: "www1"}, "Replication: equal", ""},
	{&emergencyv1.ReplicationChecked{Result: emergencyv1.ReplicationResult_REPLICATION_RESULT_LAG, LagDays: 49, LagSeconds: 4228206, LowerBound: true}, "Replication: lag 49 days", "lag=49 days (4228206 s)|lower bound=yes, the time of the effect is unknown"},
	{&emergencyv1.ReplicationChecked{Result: emergencyv1.ReplicationResult_REPLICATION_RESULT_DRIFT, DriftPaths: []*emergencyv1.Restricted{{Commitment: "c1"}, {Commitment: "c2"}}}, "Replication: drift 2 paths", ""},
	{&emergencyv1.DriftExplained{BoundTo: "P1r1"}, "-", ""},

	{&emergencyv1.ProcedureDocumented{Strategy: 1, Text: "what we did", Late: true, Reasons: []*emergencyv1.DeviationReason{{Deviation: emergencyv1.Deviation_DEVIATION_NO_OBSERVER, Reason: "asleep"}}}, "Report published", "strategy=1|on time=no|reason for no observer=asleep|text=what we did"},
	{&emergencyv1.BoardSummaryRecorded{From: due, Until: due, BoardReference: "m20261201.3"}, "Reported to the Board", "from=2026-11-25 20:00 UTC|until=2026-11-25 20:00 UTC|reference=m20261201.3"},
	{&emergencyv1.ObligationOpened{Id: "DOCUMENT/S1/40", OwnerRole: emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD, Owner: "clara", DueAt: due}, "Obligation opened", "kind=DOCUMENT/S1|obligation=DOCUMENT/S1/40|owed by=critical team lead|due=2026-11-25 20:00 UTC"},
	{&emergencyv1.ObligationDueChanged{Id: "HEALTH/9", OwnerRole: emergencyv1.Role_ROLE_CRITICAL_ADMIN, Owner: "carl", DueAt: due}, "Obligation opened", "kind=HEALTH|obligation=HEALTH/9|owed by=critical admin|due=2026-11-25 20:00 UTC"},
	{&emergencyv1.ObligationDischarged{Id: "EXPLAIN_DRIFT/9/2", By: 20, LateByMs: 60_000}, "Obligation met", "kind=EXPLAIN_DRIFT|obligation=EXPLAIN_DRIFT/9/2|late by=1 min"},
	{&emergencyv1.ObligationOverdue{Id: "HEALTH/9", DueAt: due}, "Obligation overdue", "kind=HEALTH|obligation=HEALTH/9|due=2026-11-25 20:00 UTC"},
	{&emergencyv1.ObligationEscalated{Id: "HEALTH/9", Rung: 1}, "-", ""},
	{&emergencyv1.ObligationEscalated{Id: "HEALTH/9", Rung: 4, Told: []emergencyv1.Role{emergencyv1.Role_ROLE_BOARD}}, "Obligation overdue", "kind=HEALTH|obligation=HEALTH/9|rung=4|told=board"},
	{&emergencyv1.StrategyEscalated{From: 1, To: 2, Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT, Code: emergencyv1.UnfitCode_UNFIT_CODE_TIME, SkippedControls: []string{"second_review", "tests"}, Reason: secret}, "Escalated to strategy 2", "from strategy=1|ground=unfit|code=time|skipped=second review|skipped=tests"},
	{&emergencyv1.StrategyEscalated{From: 2, To: 3, Signatures: []uint64{8, 9}}, "Escalated to strategy 3", "from strategy=2|declared by=a critical admin and a software assessor, jointly"},
	{&emergencyv1.StrategyEscalated{From: 1, To: 2, Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_TEAM_UNREACHABLE, Team: emergencyv1.Team_TEAM_TESTING}, "Escalated to strategy 2", "from strategy=1|ground=team unreachable|team=testing"},
	{&emergencyv1.JointDeclarationSigned{Person: "carla", WhyLive: secret}, "-", ""},
	{&emergencyv1.StrategyDeEscalated{From: 3, To: 1, Reason: "carl has a patch"}, "De-escalated", "from strategy=3|to strategy=1|reason=[not public] has a patch"},
	{&emergencyv1.LateRecordConfirmed{Event: 4, Proof: "photo"}, "-", ""},
	{&emergencyv1.UpdateCycleEntered{Binding: bind, Commit: "c0ffee"}, "In the regular cycle", "revision=P1r1"},
	{&emergencyv1.UpdateCycleConcluded{Binding: bind, Outcome: emergencyv1.CycleOutcome_CYCLE_OUTCOME_CHANGED}, "Regular review: changed", "revision=P1r1"},

	{&emergencyv1.AccessPermitted{Subject: "emil", Purpose: secret, ValidUntil: due}, "-", ""},
	{&emergencyv1.AccessGrantIssued{Grant: "G1", Subject: "emil", Watcher: "carl", Host: "www1", Account: secret, SourceAddress: secret, MaxMinutes: 60}, "Remote access granted", "grant=G1|to=software assessor|watched by=critical admin|maximum length=1 h 0 min"},
	{&emergencyv1.RoleAssumed{Grant: "G1", Person: "carla", Role: emergencyv1.Role_ROLE_ACCESS_ENGINEER}, "-", ""},
	{&emergencyv1.RoleAssumptionEnded{Grant: "G1", Person: "carla"}, "-", ""},
	{&emergencyv1.GrantExpired{Grant: "G1"}, "Remote access expired, never used", "grant=G1"},
	{&emergencyv1.WatchArmed{Grant: "G1", Watcher: "carl"}, "-", ""},
	{&emergencyv1.CredentialConsumed{Grant: "G1", SourceAddress: secret, KeyFingerprint: secret}, "-", ""},
	{&emergencyv1.ConnectionOpened{Grant: "G1", HostKeyFingerprint: "SHA256:abc"}, "Remote session opened, watched", "grant=G1"},
	{&emergencyv1.SessionFrozen{Grant: "G1", Cause: emergencyv1.SessionCause_SESSION_CAUSE_LEASE_LOST}, "Session frozen: lease lost", "grant=G1"},
	{&emergencyv1.SessionResumed{Grant: "G1"}, "-", ""},
	{&emergencyv1.SessionMarked{Grant: "G1", Text: secret}, "-", ""},
	{&emergencyv1.SessionExtended{Grant: "G1", Reason: secret}, "-", ""},
	{&emergencyv1.SessionTerminated{Grant: "G1", Cause: emergencyv1.SessionCause_SESSION_CAUSE_WATCHER, Results: []*emergencyv1.EndResult{{Effect: "input", Outcome: emergencyv1.EffectOutcome_EFFECT_OUTCOME_DONE, Detail: "on www1"}, {Effect: "host_credential"}}}, "Remote session ended", "grant=G1|cause=watcher|input=done|host credential=not tried"},
	{&emergencyv1.ConnectionDisabled{Grant: "G1"}, "-", ""},
	{&emergencyv1.CredentialProvenUnusable{Grant: "G1", Attempts: secret}, "Access disabled and proven unusable", "grant=G1"},
	{&emergencyv1.CredentialStillUsable{Grant: "G1", At: "host", Succeeded: true, Attempts: secret}, "Access could not be proven unusable", "grant=G1|at=host|attempt=got in"},
	{&emergencyv1.SessionDiffCaptured{Grant: "G1", ChangedPaths: []*emergencyv1.Restricted{secret}}, "-", ""},
	{&emergencyv1.LeftoversReported{Grant: "G1", Items: []*emergencyv1.Leftover{{Item: "L1", What: secret}}}, "-", ""},
	{&emergencyv1.LeftoversExplained{Grant: "G1", Explanation: secret}, "-", ""},
	{&emergencyv1.SessionSealed{Grant: "G1", Recording: &emergencyv1.Artefact{Sha256: "abc"}, State: emergencyv1.RecordingState_RECORDING_STATE_COMPLETE, WatchedPermille: 987}, "Session record sealed", "grant=G1|recording=complete|sha256=abc|output shown to the watcher=98.7 %"},
	{&emergencyv1.SessionSealed{Grant: "G1", State: emergencyv1.RecordingState_RECORDING_STATE_MISSING}, "Session record sealed", "grant=G1|recording=missing"},
	{&emergencyv1.RecordingPlayed{Grant: "G1", Person: "arno"}, "-", ""},

	{&emergencyv1.DisputeFiled{Dispute: "a20261125.1", Concern: emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2, Claimants: secret, Complaint: secret, Relief: "that carla be heard", FiledBy: "carla", Deviations: []*emergencyv1.AttachedDeviation{{Position: 9, Deviation: emergencyv1.Deviation_DEVIATION_REVIEW_SKIPPED}}}, "Dispute filed", "dispute=a20261125.1|concern=strategy 2|attached=review skipped"},
	{&emergencyv1.FilingReported{Dispute: "a20261125.1", State: emergencyv1.DeliveryState_DELIVERY_STATE_SENT}, "-", ""},
	{&emergencyv1.CaseOpened{Dispute: "a20261125.1", CaseNumber: "a20261125.1", CaseManager: "casper", ActedParties: secret}, "Case number assigned", "dispute=a20261125.1|case=a20261125.1"},
	{&emergencyv1.ArbitratorProposed{Dispute: "a20261125.1", Candidate: "arno"}, "Waiting for an arbitrator", "dispute=a20261125.1"},
	{&emergencyv1.ArbitratorAccepted{Dispute: "a20261125.1", Arbitrator: "arno"}, "Arbitrator accepted", "dispute=a20261125.1"},
	{&emergencyv1.DisputeClosedDeclined{Dispute: "a20261125.1", Asked: 3}, "No arbitrator accepted; ruling still owed", "dispute=a20261125.1|asked=3"},
	{&emergencyv1.PreliminariesRecorded{Dispute: "a20261125.1", Law: secret}, "-", ""},
	{&emergencyv1.DirectionIssued{Direction: "D1", Person: "carla", Text: secret}, "-", ""},
	{&emergencyv1.RulingDelivered{Ruling: "R1", Dispute: "a20261125.1", Arbitrator: "arno", Facts: secret}, "Ruling", "ruling=R1|dispute=a20261125.1"},
	{&emergencyv1.RulingDelivered{Ruling: "R1", Dispute: "a20261125.1", Arbitrator: "arno", Sealed: true, Final: true}, "A sealed ruling exists", "ruling=R1|dispute=a20261125.1|final=yes"},
	{&emergencyv1.RulingPublished{Ruling: "R1", Dispute: "a20261125.1", Text: "the case goes to carla"}, "Ruling", "ruling=R1|dispute=a20261125.1|text=the case goes to [not public]"},
	{&emergencyv1.RulingPublished{Ruling: "R1", Dispute: "a20261125.1", Text: "not for the world", Sealed: true}, "A sealed ruling exists", "ruling=R1|dispute=a20261125.1"},
	{&emergencyv1.DirectionReported{Direction: "D1", Person: "carla", Proof: secret}, "-", ""},
	{&emergencyv1.DirectionConfirmed{Direction: "D1", Person: "casper"}, "Direction carried out", "direction=D1"},
	{&emergencyv1.ReviewRequested{Dispute: "a20261201.1", Ruling: "R1", Ground: emergencyv1.ReviewGround_REVIEW_GROUND_INJUSTICE, Text: secret}, "Review requested", "dispute=a20261201.1|ruling=R1|ground=injustice"},
	{&emergencyv1.ReviewRuled{Dispute: "a20261201.1", Arbitrator: "arno", Reopened: true}, "Re-opened", "dispute=a20261201.1"},
	{&emergencyv1.ReviewRuled{Dispute: "a20261201.1", Arbitrator: "arno"}, "Not re-opened", "dispute=a20261201.1"},
	{&emergencyv1.AppealPanelFormed{Dispute: "a20261201.1", Members: []string{"arno", "anton", "adam"}}, "Appeal panel formed", "dispute=a20261201.1"},
	{&emergencyv1.FieldRedacted{Event: 4, Commitment: "c", Field: "reason", Owner: "incident", Ground: "member data", Clause: "DRP 2.3"}, "Field redacted", "on position=4|field=reason|ground=member data|clause=DRP 2.3|commitment=c"},
	{&emergencyv1.RedactionCompleted{Redaction: 50, Commitment: "c"}, "-", ""},
	{&emergencyv1.FieldDisclosed{Event: 4, Commitment: "c", Field: "report.paths", Value: []byte("www/login"), Salt: []byte("salt")}, "Disclosed", "on position=4|field=report, paths|commitment=c"},
	{&emergencyv1.ObligationDischarged{Id: "RULING/9", LiftedBy: "a20261125.1"}, "Obligation lifted", "kind=RULING|obligation=RULING/9|lifted by=a20261125.1"},
	{&emergencyv1.PersonListed{Person: "carla"}, "-", ""},
	{&emergencyv1.PolicyPublished{}, "-", ""},
	{&emergencyv1.RoleGranted{}, "-", ""},
	{&emergencyv1.RoleRevoked{}, "-", ""},
	{&emergencyv1.KeyAdded{}, "-", ""},
	{&emergencyv1.KeyRevoked{}, "-", ""},
	{
		&emergencyv1.MessageArchived{List: "cacert-systemlog", Message: &emergencyv1.ArchivedMessage{
			MessageId: "a@b", Sha256: "ab", Size: 7, SentAt: due, DatedBy: emergencyv1.DateSource_DATE_SOURCE_RECEIVED, Title: "webdb: emergency patch by carla",
		}},
		"From the archive: webdb: emergency patch by [not public]",
		"sent=2026-11-25T20:00:00Z|date read from=the mail server's stamp|list=cacert-systemlog|message id=a@b|sha256=ab|bytes=7",
	},
	{&emergencyv1.CommandRefused{Command: "StartApply"}, "-", ""},
}

// tested is a world in which theo and tina have tested P1r1.
func tested(t *testing.T) *proceduretest.World {
	return proceduretest.Given(t, proceduretest.Story(proceduretest.Tested)).World()
}

func owners(t *testing.T, m proto.Message) []string {
	if _, refusal := m.(*emergencyv1.CommandRefused); refusal {
		return procedure.Owners()
	}
	e, err := procedure.EncodeEvent("", m)
	if err != nil {
		t.Fatal(err)
	}
	owner, _, _ := strings.Cut(e.GetType(), ".")
	return []string{owner}
}

func record(t *testing.T, w *proceduretest.World, owner string, m proto.Message) *emergencyv1.Record {
	e, err := procedure.EncodeEvent(owner, m, emergencyv1.Deviation_DEVIATION_LATE_RECORD)
	if err != nil {
		t.Fatal(err)
	}
	return &emergencyv1.Record{
		Incident: w.State.Incident, FirstPosition: w.State.Position + 1, Owner: owner, RecordedAt: timestamppb.New(w.Now),
		Actor: &emergencyv1.Actor{Person: "carla", Role: emergencyv1.Role_ROLE_CRITICAL_ADMIN}, Events: []*emergencyv1.Event{e},
	}
}

// The column "Log" of chapter 5, with no event type left out.
func TestColumn(t *testing.T) {
	t.Parallel()
	w := tested(t)
	missing := procedure.EventTypes()
	for _, row := range column {
		for _, owner := range owners(t, row.payload) {
			rec := record(t, w, owner, row.payload)
			kind := rec.GetEvents()[0].GetType()
			missing = slices.DeleteFunc(missing, func(s string) bool { return s == kind })
			e, person, ok, err := publog.Draft(w.State, rec, 0)
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			if row.headline == "-" {
				if ok {
					t.Errorf("%s yields %q, chapter 5 says none", kind, e.Headline)
				}
				continue
			}
			if !ok || e.Headline != row.headline || e.Role != "critical-admin" || person != "carla" {
				t.Errorf("%s yields %t %q by %q (%s), want %q", kind, ok, e.Headline, e.Role, person, row.headline)
			}
			if want := strings.TrimPrefix(row.fields+"|deviation=late record", "|"); text(e) != want {
				t.Errorf("%s says %q, want %q", kind, text(e), want)
			}
			noPerson(t, e)
		}
	}
	missing = slices.DeleteFunc(missing, func(s string) bool { return s == "arbitration.ArbitratorDeclined" }) // TestWaitingForAnArbitrator
	if len(missing) > 0 {
		t.Errorf("event types without a line in the table: %v", missing)
	}
}

// text is the entry's fields, one after the other.
func text(e publog.Entry) string {
	var parts []string
	for _, f := range e.Fields {
		parts = append(parts, f.Name+"="+f.Value)
	}
	return strings.Join(parts, "|")
}

// noPerson fails for an entry that names anybody or any machine of the fixture, or how to reach somebody.
func noPerson(t *testing.T, e publog.Entry) {
	t.Helper()
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	s := strings.ToLower(string(raw))
	hidden := []string{"@example.org", "+49", proceduretest.Host, proceduretest.DrillHost, proceduretest.TestServer}
	for _, p := range proceduretest.People() {
		hidden = append(hidden, `"`+p.Name+`"`, " "+p.Name, p.Name+" ")
	}
	for _, h := range hidden {
		if strings.Contains(s, h) {
			t.Errorf("entry %s names %q", raw, h)
		}
	}
}

func TestFirstCallOut(t *testing.T) {
	t.Parallel()
	w := proceduretest.Given(t, proceduretest.Story(proceduretest.Declared)).World()
	rec := record(t, w, "notification", &emergencyv1.CallOutIssued{Round: 1, Teams: []emergencyv1.Team{emergencyv1.Team_TEAM_CRITICAL, emergencyv1.Team_TEAM_TESTING},
		Pages: []*emergencyv1.CalledPage{{Person: "carl", Address: &emergencyv1.Restricted{Commitment: "address"}}}, Message: &emergencyv1.Restricted{Commitment: "message"}})
	e, _, ok, err := publog.Draft(w.State, rec, 0)
	if err != nil || !ok || e.Headline != "Teams called" || e.Field("teams") != "critical, testing" {
		t.Errorf("first round: %+v, %t, %v", e, ok, err)
	}
	if !slices.Equal(e.Commitments, []string{"message"}) {
		t.Errorf("commitments %v, want the message's alone", e.Commitments)
	}
}

// Free texts are the one way by which a name could slip in.
func TestNamesInTextsAreCovered(t *testing.T) {
	t.Parallel()
	w := tested(t)
	for in, want := range map[string]string{
		"Carla and carl, then theo.":       "[not public] and [not public], then [not public].",
		"on www1-test, later on www1":      "on [not public], later on [not public]",
		"carla carl":                       "[not public] [not public]",
		"carlas and www12 stay, bert-like": "carlas and www12 stay, bert-like",
	} {
		e, _, _, err := publog.Draft(w.State, record(t, w, "arbitration", &emergencyv1.ProcedureDocumented{Strategy: 1, Text: in}), 0)
		if got := e.Field("text"); err != nil || got != want {
			t.Errorf("%q became %q, want %q (%v)", in, got, want, err)
		}
	}
	e, _, _, err := publog.Draft(w.State, record(t, w, "incident", &emergencyv1.EmergencyDeclared{System: "www1"}), 0)
	if err != nil || e.Field("system") != "www1" {
		t.Errorf("a system's public class was covered: %q, %v", e.Field("system"), err)
	}
}

// publish folds a world's history into a log.
func publish(t *testing.T, l *publog.Log, w *proceduretest.World) {
	t.Helper()
	s := procedure.NewState(w.State.Incident)
	for i, rec := range w.Records {
		hash := procedure.KeyID(w.Bytes[i]) // SHA-256 of the bytes
		if _, err := l.Add(s, rec, hash); err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(rec, hash); err != nil {
			t.Fatal(err)
		}
	}
}

func whole(t *testing.T) *proceduretest.World {
	return proceduretest.Given(t, proceduretest.Story(proceduretest.Documented), func(w *proceduretest.World) { w.Sync() },
		proceduretest.From(proceduretest.Documented, proceduretest.Settled), func(w *proceduretest.World) { w.Sync() },
		proceduretest.From(proceduretest.Settled, proceduretest.ClosedDown)).World()
}

func TestWholeStory(t *testing.T) {
	t.Parallel()
	w := whole(t)
	l := publog.New(publog.Real)
	publish(t, l, w)
	entries := l.Entries()
	if err := publog.Verify(publog.Real, entries); err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, e := range entries {
		noPerson(t, e)
		for _, v := range w.Sealed {
			if raw, _ := json.Marshal(e); len(v) > 3 && strings.Contains(string(raw), v) {
				t.Errorf("entry %d holds the restricted value %q", e.Seq, v)
			}
		}
		if !strings.HasPrefix(e.Headline, "Obligation") {
			said = append(said, e.Headline+" / "+e.Role)
		}
	}
	want := []string{
		"Emergency declared / critical-admin A", "Teams called / critical-admin A",
		"Team has a responder / critical-admin A", "Team has a responder / critical-admin B", "Team has a responder / software-assessor C",
		"Team has a responder / software-assessor D", "Team has a responder / software-developer E", "Team has a responder / tester F",
		"Team has a responder / tester G", "Patch registered / software-developer E", "First review: approve / software-assessor C",
		"Patch on test server / test-agent", "Test 1: pass / tester F", "Test 2: pass / tester G", "Second review: approve / software-assessor D",
		"Forwarded to the critical team / software-assessor D", "Deployment started / critical-admin A", "Applied / host-agent",
		"Deployment verified / host-agent", "Health: good / critical-admin A", "Replication: equal / repo-agent",
		"Report published / critical-admin A", "Team lead decision / critical-team-lead H", "Reported to the Board / board I", "Closed / critical-admin A",
	}
	if !slices.Equal(said, want) {
		t.Errorf("the log says\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
	}
	if got := entries[0].EventHash; got != procedure.KeyID(w.Bytes[0])+"#0" {
		t.Errorf("event hash %s does not name the first record", got)
	}
}

// Replaying gives the same bytes; two incidents in one log have letters of their own; drills have a chain of their own.
func TestReplayAndOrigins(t *testing.T) {
	t.Parallel()
	w := whole(t)
	other := proceduretest.NewIncident(t, "e20261124.2")
	proceduretest.Story(proceduretest.Accepted)(other)
	run := func(o publog.Origin) []byte {
		l := publog.New(o)
		publish(t, l, w)
		publish(t, l, other)
		raw, err := json.Marshal(l.Entries())
		if err != nil {
			t.Fatal(err)
		}
		last := l.Entries()[len(l.Entries())-1]
		if last.Incident != "e20261124.2" || last.Role != "tester G" {
			t.Errorf("last entry is by %q of %s, want tester G of the second incident", last.Role, last.Incident)
		}
		return raw
	}
	first, again, drill := run(publog.Real), run(publog.Real), run(publog.Drills)
	if string(first) != string(again) {
		t.Error("a second replay gives other bytes")
	}
	if string(first) == string(drill) || publog.Genesis(publog.Real) == publog.Genesis(publog.Drills) {
		t.Error("the drills' chain is the real one")
	}
}

func TestReferences(t *testing.T) {
	t.Parallel()
	w := tested(t)
	l := publog.New(publog.Real)
	publish(t, l, w)
	opened := uint64(len(l.Entries())) + 1
	add := func(owner string, m proto.Message) publog.Entry {
		list, err := l.Add(w.State, record(t, w, owner, m), "00")
		if err != nil || len(list) != 1 {
			t.Fatalf("%d entries, %v", len(list), err)
		}
		return list[0]
	}
	add("arbitration", &emergencyv1.ObligationOpened{Id: "HEALTH/9", DueAt: due})
	changed := add("arbitration", &emergencyv1.ObligationDueChanged{Id: "HEALTH/9", DueAt: due})
	if got := changed.Field("supersedes"); got != itoa(opened) {
		t.Errorf("the corrected obligation supersedes %q, want entry %d", got, opened)
	}
	if note := add("incident", &emergencyv1.LogAnnotated{Entry: 1, Text: "see below"}); note.Field("on entry") != "1" {
		t.Errorf("note on %q, want entry 1", text(note))
	}
	if note := add("incident", &emergencyv1.LogAnnotated{Entry: 11, Text: "of an event without an entry"}); note.Field("on position") != "11" {
		t.Errorf("note on %q, want position 11", text(note))
	}
	if err := publog.Verify(publog.Real, l.Entries()); err != nil {
		t.Error(err)
	}
}

func itoa(n uint64) string { return strings.TrimSpace(string(mustJSON(n))) }

func mustJSON(v any) []byte {
	b, _ := json.Marshal(v)
	return b
}

func TestVerifyFindsChanges(t *testing.T) {
	t.Parallel()
	l := publog.New(publog.Real)
	publish(t, l, whole(t))
	for name, damage := range map[string]func([]publog.Entry) []publog.Entry{
		"removed":       func(e []publog.Entry) []publog.Entry { return slices.Delete(e, 4, 5) },
		"first removed": func(e []publog.Entry) []publog.Entry { return e[1:] },
		"reordered":     func(e []publog.Entry) []publog.Entry { e[3], e[4] = e[4], e[3]; return e },
		"dated back":    func(e []publog.Entry) []publog.Entry { e[5].At = e[5].At.Add(-time.Hour); return e },
		"headline":      func(e []publog.Entry) []publog.Entry { e[5].Headline += "."; return e },
		"field":         func(e []publog.Entry) []publog.Entry { e[0].Fields = e[0].Fields[1:]; return e },
		"commitment":    func(e []publog.Entry) []publog.Entry { e[0].Commitments = nil; return e },
		"late":          func(e []publog.Entry) []publog.Entry { e[2].Late = true; return e },
		"role":          func(e []publog.Entry) []publog.Entry { e[2].Role = "critical-admin Z"; return e },
		"event":         func(e []publog.Entry) []publog.Entry { e[2].EventHash = "0#0"; return e },
	} {
		var broken *publog.ChainError
		if err := publog.Verify(publog.Real, damage(slices.Clone(l.Entries()))); !errors.As(err, &broken) {
			t.Errorf("%s: not found (%v)", name, err)
		}
	}
	if publog.Verify(publog.Drills, l.Entries()) == nil {
		t.Error("the real log passes as the drills'")
	}
	if err := publog.Verify(publog.Real, nil); err != nil {
		t.Errorf("an empty log: %v", err)
	}
}

func TestManyLetters(t *testing.T) {
	t.Parallel()
	w := tested(t)
	l := publog.New(publog.Real)
	var last publog.Entry
	for i := range 28 {
		rec := record(t, w, "incident", &emergencyv1.LogAnnotated{Entry: 1, Text: "x"})
		rec.Actor.Person = "p" + itoa(uint64(i))
		list, err := l.Add(w.State, rec, "00")
		if err != nil {
			t.Fatal(err)
		}
		last = list[0]
	}
	if last.Role != "critical-admin AB" {
		t.Errorf("the 28th person is %q, want critical-admin AB", last.Role)
	}
}

func TestUnreadableEvent(t *testing.T) {
	t.Parallel()
	w := tested(t)
	rec := record(t, w, "incident", &emergencyv1.LogAnnotated{Text: "x"})
	rec.Events[0].Type = "incident.FromTheFuture"
	if _, err := publog.New(publog.Real).Add(w.State, rec, "00"); err == nil {
		t.Error("an event that nobody understands was passed over")
	}
}
