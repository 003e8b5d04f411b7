// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// holders are a person for each column.
var holders = map[string]string{
	"CA": "carla", "SA": "anna", "SD": "dora", "SE": "emil", "TE": "theo", "CL": "clara", "AL": "albert",
	"CM": "casper", "AR": "arno", "DO": "doris", "BD": "bea", "ME": "mia",
}

// systems are an identity for each system that procedure.md 2.1 has in strategy 1.
var systemActors = map[string]string{
	"timer": "timer", "mailer": "mailer", "reactor": "reactor", "service": "service",
	"gateway": "gateway", "host_agent": "host:" + pt.Host, "test_agent": "test:" + pt.TestServer, "repo_agent": "repo:git",
}

// inTheRelation is a command that a person may give in the named relation: on the own slot, the own key ...
func inTheRelation(command, person string, s *procedure.State) procedure.Command {
	own := map[string]string{"carla": "critical/1", "anna": "assessment/1", "dora": "development/1", "emil": "development/1", "theo": "testing/1", "clara": "critical/1", "albert": "assessment/1"}[person]
	if own == "" {
		own = "critical/1"
	}
	switch command {
	case "PlayRecording":
		if person == systemActors["service"] {
			return shownTo("carl")
		}
	case "Respond":
		return pt.Accept(own)
	case "CheckIn":
		return &emergencyv1.CheckInRequest{Slot: own}
	case "EndStandby":
		return &emergencyv1.EndStandbyRequest{Slot: own, Reason: emergencyv1.StandbyEndReason_STANDBY_END_REASON_STEP_DONE}
	case "AddKey":
		k := pt.KeyOf("new key of " + person)
		return &emergencyv1.AddKeyRequest{Key: &emergencyv1.Key{KeyId: k.ID, PublicKey: k.Public, Person: person}}
	case "RevokeKey":
		return &emergencyv1.RevokeKeyRequest{KeyId: pt.KeyOf(person).ID, Reason: "lost in the train"}
	case "Connect", "Terminate":
		return exampleOf(command, s)
	case "SetContacts":
		return &emergencyv1.SetContactsRequest{Person: person, Contacts: []*emergencyv1.Contact{{Channel: "mail", Address: "x@example.org"}}}
	case "Close":
		return pt.Close()
	}
	return exampleOf(command, s)
}

// exampleOf is a well-formed command of each kind.
func exampleOf(command string, s *procedure.State) procedure.Command {
	switch command {
	case "Declare":
		return pt.Declare()
	case "MergeInto":
		return &emergencyv1.MergeIntoRequest{Target: "e20261123.9", Reason: "it is the same outage"}
	case "AbsorbDuplicate":
		return &emergencyv1.AbsorbDuplicateRequest{Source: "e20261125.1", SourceHeadHash: strings.Repeat("0", 64)}
	case "StandDown":
		return pt.StandDown()
	case "Escalate":
		return pt.Exploited()
	case "SignJointDeclaration":
		return pt.Joint()
	case "ConfirmLateRecord":
		return &emergencyv1.ConfirmLateRecordRequest{Event: 1, Proof: "I stood beside it"}
	case "EnterUpdateCycle":
		return &emergencyv1.EnterUpdateCycleRequest{}
	case "ConcludeUpdateCycle":
		return pt.Bless()
	case "DeEscalate":
		return pt.GoBack(1)
	case "CallOut":
		return &emergencyv1.CallOutRequest{}
	case "ExplainDrift":
		return &emergencyv1.ExplainDriftRequest{PathCommitment: strings.Repeat("0", 64)}
	case "ReportDelivery":
		return &emergencyv1.ReportDeliveryRequest{Page: "1.1", State: emergencyv1.DeliveryState_DELIVERY_STATE_SENT}
	case "RegisterPatch":
		return pt.Register(7)
	case "RecordFirstReview":
		return pt.FirstReview(approve)
	case "RecordSecondReview":
		return pt.SecondReview(approve)
	case "Transfer":
		return &emergencyv1.TransferRequest{}
	case "Forward":
		return &emergencyv1.ForwardRequest{RollbackPlan: "take it back"}
	case "RaiseVeto":
		return pt.Veto()
	case "WithdrawVeto":
		return &emergencyv1.WithdrawVetoRequest{Veto: "V1", Reason: "I misread the patch"}
	case "OverruleVeto":
		return &emergencyv1.OverruleVetoRequest{Veto: "V1", Reason: "the hole it names was there before, and is smaller"}
	case "ConfirmTestServer":
		return pt.ConfirmServer(s)
	case "ReportTest":
		return pt.Test(pass)
	case "ConfirmObserver":
		return pt.Observe()
	case "DryRun":
		return &emergencyv1.DryRunRequest{}
	case "StartApply":
		return &emergencyv1.StartApplyRequest{}
	case "BackOut":
		return pt.BackOut()
	case "RollBack":
		return pt.RollBack("carl")
	case "RecordHealth":
		return pt.Health()
	case "Document":
		return pt.Document(s)
	case "ReportApply":
		return pt.ReportApply(true)
	case "ReportTree":
		return pt.ReportTree(pt.ResultTree(1))
	case "PushReplication":
		return &emergencyv1.PushReplicationRequest{}
	case "CheckReplication":
		return &emergencyv1.CheckReplicationRequest{}
	case "PermitAccess":
		return pt.Permit("emil")
	case "GrantAccess":
		return pt.GrantTo("emil", "carl")
	case "ArmWatch":
		return pt.Arm()
	case "Connect":
		return pt.Connect()
	case "ReportConnection":
		return pt.Opened(true)
	case "Freeze":
		return &emergencyv1.FreezeRequest{Grant: "G1"}
	case "Resume":
		return &emergencyv1.ResumeRequest{Grant: "G1"}
	case "MarkSession":
		return pt.Note("a note")
	case "ExtendSession":
		return &emergencyv1.ExtendSessionRequest{Grant: "G1", Reason: "the cause is found, the cure is not"}
	case "Terminate":
		return &emergencyv1.TerminateRequest{Grant: "G1"}
	case "Disable":
		return &emergencyv1.DisableRequest{Grant: "G1"}
	case "ProveUnusable":
		return &emergencyv1.ProveUnusableRequest{Grant: "G1"}
	case "CaptureSessionDiff":
		return &emergencyv1.CaptureSessionDiffRequest{Grant: "G1"}
	case "ReportLeftovers":
		return pt.FoundLeftovers()
	case "ExplainLeftovers":
		return pt.ExplainLeftovers("")
	case "SealSession":
		return &emergencyv1.SealSessionRequest{Grant: "G1"}
	case "PlayRecording":
		return &emergencyv1.PlayRecordingRequest{Grant: "G1"}
	case "WaiveControl/tests":
		return pt.Waive(tests)
	case "WaiveControl/observer":
		return pt.Waive(observer)
	case "RecordLeadDecision":
		return pt.Lead(false)
	case "AnnotateLog":
		return note()
	case "RecordBoardSummary":
		return pt.BoardSummary()
	case "Close":
		return pt.Close()
	case "FileDispute":
		return pt.FileDispute(emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER)
	case "ReportFiling":
		return &emergencyv1.ReportFilingRequest{Dispute: "a20261124.1", State: emergencyv1.DeliveryState_DELIVERY_STATE_SENT}
	case "OpenCase":
		return &emergencyv1.OpenCaseRequest{Dispute: "a20261124.1", CaseNumber: "c1"}
	case "ProposeArbitrator":
		return &emergencyv1.ProposeArbitratorRequest{Dispute: "a20261124.1", Candidate: "arno"}
	case "CloseDeclined":
		return &emergencyv1.CloseDeclinedRequest{Dispute: "a20261124.1"}
	case "RespondAppointment":
		return &emergencyv1.RespondAppointmentRequest{Dispute: "a20261124.1"}
	case "RecordPreliminaries":
		return pt.Preliminaries("a20261124.1")
	case "DeliverRuling":
		return pt.DeliverRuling(s, "a20261124.1")
	case "PublishRuling":
		return &emergencyv1.PublishRulingRequest{Ruling: "R1", Text: "text"}
	case "ReportDirectionDone":
		return &emergencyv1.ReportDirectionDoneRequest{Direction: "D1", Proof: "see the log"}
	case "ConfirmDirection":
		return &emergencyv1.ConfirmDirectionRequest{Direction: "D1"}
	case "RequestReview":
		return pt.RequestReview("R1")
	case "FormAppealPanel":
		return &emergencyv1.FormAppealPanelRequest{Dispute: "a20261124.1"}
	case "Redact":
		return pt.Redact(1, s.Declared.Symptom)
	case "Disclose":
		return &emergencyv1.DiscloseRequest{Event: 1, Commitment: s.Declared.Symptom}
	case "ReportRedaction":
		return &emergencyv1.ReportRedactionRequest{Redaction: 1}
	case "SyncObligations":
		return &emergencyv1.SyncObligationsRequest{}
	case "Tick":
		return &emergencyv1.TickRequest{}
	case "GrantRole":
		return &emergencyv1.GrantRoleRequest{Grant: &emergencyv1.RoleGrant{Person: "mia", Role: roleTE, EffectiveAt: stampOf(pt.Founded()), BoardDecision: "m1"}}
	case "RevokeRole":
		return revokeRole("theo", roleTE, pt.Founded())
	case "SetRota":
		return &emergencyv1.SetRotaRequest{Team: testing_}
	case "RecordReachability":
		return &emergencyv1.RecordReachabilityRequest{Person: "carla", Channel: "mail"}
	case "Establish":
		return pt.Establish()
	case "ImportArchive":
		return pt.ImportArchive(pt.Archived(1))
	}
	return nil
}

// TestMatrix asks Decide about every cell: x means past G5, so any later refusal is right; a blank is refused with
// PERMISSION_DENIED/ROLE. It does not look at the table that the code decides by.
func TestMatrix(t *testing.T) {
	t.Parallel()
	seenCommands := map[string]bool{}
	for _, line := range pt.Matrix() {
		seenCommands[line.Command] = true
		t.Run(line.Name(), func(t *testing.T) {
			t.Parallel()
			for _, c := range pt.MatrixColumns() {
				checkCell(t, line.Name(), holders[c], line.Allowed[c])
			}
			for kind, actor := range systemActors {
				checkCell(t, line.Name(), actor, slices.Contains(line.Systems, kind))
			}
			for _, who := range []string{"sven", "axel"} { // SU and AE have no command of their own; they are members
				checkCell(t, line.Name(), who, line.Allowed["ME"])
			}
		})
	}
	for _, c := range procedure.Commands() {
		if !seenCommands[c.Name] {
			t.Errorf("the matrix has no line for %s", c.Name)
		}
	}
}

func checkCell(t *testing.T, command, who string, allowed bool) {
	t.Helper()
	w := matrixWorld(t, command, who)
	var cmd procedure.Command
	if name, _, _ := strings.Cut(command, "/"); name == "PublishPolicy" {
		second := "bruno"
		cmd = pt.NextPolicy(w, second, nil)
	} else {
		cmd = inTheRelation(command, who, w.State)
	}
	if command == "Connect" && pt.IsPerson(who) {
		who = "gateway:" + who // the broker gives it, for whom it has recognised
	}
	if cmd == nil {
		t.Fatalf("no example of %s", command)
	}
	cmd = w.Prepare(who, cmd)
	if procedure.NeedsSignature(cmd) && cmd.GetMeta().GetApproval() == nil { // a system can only sign as itself
		cmd.GetMeta().Approval = systemApproval(t, w, cmd)
	}
	out := w.Decide(who, cmd)
	if out.Err != nil {
		t.Fatalf("%s by %s: %v", command, who, out.Err)
	}
	refusedForRole := out.Refusal != nil && out.Refusal.Reason == procedure.ReasonRole
	if refusedForRole == allowed {
		t.Errorf("%s by %s: allowed %v, got %v", command, who, allowed, out.Refusal)
	}
	if !allowed && out.Refusal != nil && out.Refusal.Code != procedure.PermissionDenied {
		t.Errorf("%s by %s: %v", command, who, out.Refusal)
	}
}

func systemApproval(t *testing.T, w *pt.World, c procedure.Command) *emergencyv1.Approval {
	t.Helper()
	var role emergencyv1.Role
	for _, info := range procedure.Commands() {
		if info.Name == procedure.CommandName(c) {
			role = info.Roles[0]
		}
	}
	st, err := procedure.StatementFor(w.State, c, "", role, w.Now)
	if err != nil {
		t.Fatal(err)
	}
	return pt.KeyOf("host:" + pt.Host).Sign(st)
}

// matrixWorld is a history in which the command's relation to its actor is as the matrix names it: carla is executor.
func matrixWorld(t *testing.T, command, who string) *pt.World {
	t.Helper()
	name, _, _ := strings.Cut(command, "/")
	for _, c := range procedure.Commands() {
		if c.Name == name && c.RuleBook {
			return pt.Founding().For(t)
		}
		if c.Name == name && c.Archive {
			return pt.NewArchive(t)
		}
	}
	milestone := pt.Observed
	switch name {
	case "PermitAccess", "GrantAccess":
		milestone = pt.Joined
	case "ArmWatch":
		milestone = pt.Granted
	case "Connect":
		milestone = pt.Armed
	case "ReportConnection":
		milestone = pt.Consumed
	case "Freeze", "MarkSession", "ExtendSession", "Disable":
		milestone = pt.Live
	case "PlayRecording":
		return pt.Given(t, pt.Story(pt.Live), judge("arno")).World() // an arbitrator of the incident
	case "Terminate":
		w := pt.Given(t, pt.Story(pt.Live)).World()
		if who == "anna" || who == "albert" || who == "emil" { // each may be the subject
			w.Change(func(s *procedure.State) { s.Grants[0].Subject = who })
		}
		return w
	case "Resume":
		milestone = pt.Frozen
	case "ProveUnusable":
		milestone = pt.Disabled
	case "CaptureSessionDiff", "ReportLeftovers":
		milestone = pt.Proven
	case "ExplainLeftovers":
		milestone = pt.Captured
	case "SealSession":
		milestone = pt.Explained
	case "Declare":
		return pt.NewWorld(t)
	case "ReportApply", "ReportTree":
		if who == "clara" { // may be executor as well as any other critical admin
			w := pt.Given(t, pt.Story(pt.Observed), pt.Does("clara", &emergencyv1.StartApplyRequest{})).World()
			return w
		}
		milestone = pt.Applying
	}
	return pt.Given(t, pt.Story(milestone)).World()
}

// TestMatrixIsTheTable holds the matrix against the table that the code decides by, so that neither has a row the other
// lacks; roles are compared by TestMatrix.
func TestMatrixIsTheTable(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, line := range pt.Matrix() {
		known[line.Command] = true
	}
	for _, c := range procedure.Commands() {
		delete(known, c.Name)
	}
	if len(known) > 0 {
		t.Errorf("the matrix has commands that are not implemented: %s", fmt.Sprint(known))
	}
}
