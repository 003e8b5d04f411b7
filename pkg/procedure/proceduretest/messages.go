// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const (
	approve = emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE
	changes = emergencyv1.ReviewVerdict_REVIEW_VERDICT_CHANGES
	veto    = emergencyv1.ReviewVerdict_REVIEW_VERDICT_VETO
	pass    = emergencyv1.TestResult_TEST_RESULT_PASS
	fail    = emergencyv1.TestResult_TEST_RESULT_FAIL
)

// The commands of the story, as a person would give them. What a client fills in (incident, request id, binding,
// signature) is left to World.

// Declare declares an emergency of high severity.
func Declare() *emergencyv1.DeclareRequest {
	return &emergencyv1.DeclareRequest{
		System: System, Component: "login", Symptom: "certificates of strangers are shown", Severity: emergencyv1.Severity_SEVERITY_HIGH,
		ReasonClass: emergencyv1.ReasonClass_REASON_CLASS_VULNERABILITY, Reason: "members' data is shown to strangers",
	}
}

// Accept takes a slot for oneself.
func Accept(slot string) *emergencyv1.RespondRequest {
	return Answer(&emergencyv1.Acceptance{Slot: slot, ContactPath: "+49 30 1234567", EtaMinutes: 10})
}

// Answer takes a slot as the acceptance says.
func Answer(a *emergencyv1.Acceptance) *emergencyv1.RespondRequest {
	return &emergencyv1.RespondRequest{Answer: &emergencyv1.RespondRequest_Accept{Accept: a}}
}

// Decline says no for a team.
func Decline(team emergencyv1.Team) *emergencyv1.RespondRequest {
	return &emergencyv1.RespondRequest{Answer: &emergencyv1.RespondRequest_Decline{Decline: &emergencyv1.Declination{Team: team, Reason: "on a train"}}}
}

// HandOver asks somebody else to take a slot over.
func HandOver(slot, to string) *emergencyv1.RespondRequest {
	return &emergencyv1.RespondRequest{Answer: &emergencyv1.RespondRequest_HandOver{HandOver: &emergencyv1.Handover{Slot: slot, To: to, ContactPath: "+49 30 7654321"}}}
}

// FirstReview gives a first review.
func FirstReview(v emergencyv1.ReviewVerdict) *emergencyv1.RecordFirstReviewRequest {
	return &emergencyv1.RecordFirstReviewRequest{Verdict: v, Reason: "as I see it"}
}

// SecondReview gives a second review.
func SecondReview(v emergencyv1.ReviewVerdict) *emergencyv1.RecordSecondReviewRequest {
	return &emergencyv1.RecordSecondReviewRequest{Verdict: v, Reason: "as I see it"}
}

// ConfirmServer is the test server's own report that it holds the current revision's result.
func ConfirmServer(s *procedure.State) *emergencyv1.ConfirmTestServerRequest {
	c := &emergencyv1.ConfirmTestServerRequest{Tree: Tree("none"), Environment: s.TestEnvironment()}
	if r := s.Current(); r != nil {
		c.Tree = r.ResultTree
	}
	return c
}

// Test reports a test.
func Test(r emergencyv1.TestResult) *emergencyv1.ReportTestRequest {
	return &emergencyv1.ReportTestRequest{Result: r, Steps: "logged in and looked", BugNote: "auto"}
}

// Veto stops the current revision.
func Veto() *emergencyv1.RaiseVetoRequest {
	return &emergencyv1.RaiseVetoRequest{Reason: "it opens another hole"}
}

// Waive waives a control.
func Waive(c emergencyv1.Control) *emergencyv1.WaiveControlRequest {
	return &emergencyv1.WaiveControlRequest{Control: c, Reason: "nobody else can be had tonight"}
}

// Observe confirms to observe the deployment.
func Observe() *emergencyv1.ConfirmObserverRequest {
	return &emergencyv1.ConfirmObserverRequest{Kind: emergencyv1.ObserverKind_OBSERVER_KIND_BEFORE}
}

// CheckAfter confirms that the host holds the reviewed tree.
func CheckAfter() *emergencyv1.ConfirmObserverRequest {
	return &emergencyv1.ConfirmObserverRequest{Kind: emergencyv1.ObserverKind_OBSERVER_KIND_AFTER}
}

// ReportApply is the agent's report of an attempt.
func ReportApply(ok bool) *emergencyv1.ReportApplyRequest {
	c := &emergencyv1.ReportApplyRequest{Outcome: emergencyv1.ApplyOutcome_APPLY_OUTCOME_FAILED, Detail: "hunk 1 of 1 failed"}
	if ok {
		c.Outcome, c.Detail = emergencyv1.ApplyOutcome_APPLY_OUTCOME_APPLIED, ""
	}
	return c
}

// ReportTree is the agent's report of what the host holds now, after having held BaseTree.
func ReportTree(post string) *emergencyv1.ReportTreeRequest {
	return &emergencyv1.ReportTreeRequest{PreTree: BaseTree(), PostTree: post, ChangedPaths: []string{"file"}}
}

// BackOut takes a failed or differing apply back.
func BackOut() *emergencyv1.BackOutRequest {
	return &emergencyv1.BackOutRequest{Reason: "it does not work"}
}

// RollBack takes a verified patch back.
func RollBack(observer string) *emergencyv1.RollBackRequest {
	return &emergencyv1.RollBackRequest{Reason: "it does not work", Observer: observer}
}

// Health records that all is well.
func Health() *emergencyv1.RecordHealthRequest {
	return &emergencyv1.RecordHealthRequest{Result: emergencyv1.HealthResult_HEALTH_RESULT_GOOD, Checks: "login, signing"}
}

// Document documents strategy 1 with a reason for each deviation there is.
func Document(s *procedure.State) *emergencyv1.DocumentRequest { return DocumentOf(s, 1) }

// DocumentOf documents a strategy with a reason for each deviation there is.
func DocumentOf(s *procedure.State, strategy uint32) *emergencyv1.DocumentRequest {
	c := &emergencyv1.DocumentRequest{Strategy: strategy, TimelineConfirmed: true, Text: "what was done, and why"}
	for _, d := range s.Deviations {
		c.Reasons = append(c.Reasons, &emergencyv1.DeviationReason{Position: d.Position, Deviation: d.Deviation, Reason: "there was no other way"})
	}
	return c
}

// Lead approves what was done; refer asks for a dispute.
func Lead(refer bool) *emergencyv1.RecordLeadDecisionRequest {
	return &emergencyv1.RecordLeadDecisionRequest{Decision: emergencyv1.LeadDecision_LEAD_DECISION_APPROVE, Refer: refer, Reason: "all controls were kept"}
}

// BoardSummary reports the month of T0 to the Board.
func BoardSummary() *emergencyv1.RecordBoardSummaryRequest {
	return &emergencyv1.RecordBoardSummaryRequest{From: timestamppb.New(T0().AddDate(0, 0, -10)), Until: timestamppb.New(T0().AddDate(0, 0, 20)), BoardReference: "m20261201.4"}
}

// StandDown ends an emergency that needs no change.
func StandDown() *emergencyv1.StandDownRequest {
	return &emergencyv1.StandDownRequest{Reason: "it was a false alarm after all"}
}

// Close closes the incident.
func Close() *emergencyv1.CloseRequest {
	return &emergencyv1.CloseRequest{Outcome: emergencyv1.Outcome_OUTCOME_FIXED, Summary: "the hole is closed"}
}

// Drift are facts of a comparison that found paths nobody can account for.
func Drift(paths ...string) procedure.Facts {
	return procedure.Facts{Replication: &procedure.ReplicationFacts{HostTree: Tree("drifted"), BranchTree: BaseTree(), BranchCommit: "beef03", Unexplained: paths}}
}

// Lagging are facts of a comparison in which the branch only waits for what was applied.
func Lagging(s *procedure.State) procedure.Facts {
	return procedure.Facts{Replication: &procedure.ReplicationFacts{HostTree: hostTree(s), BranchTree: BaseTree(), BranchCommit: "beef00", Pending: true}}
}

// EqualSince are facts of a comparison that found host and branch equal, the branch since a time.
func EqualSince(s *procedure.State, at time.Time) procedure.Facts {
	return procedure.Facts{Replication: &procedure.ReplicationFacts{HostTree: hostTree(s), BranchTree: hostTree(s), BranchCommit: "beef02", ArrivedAt: at}}
}
