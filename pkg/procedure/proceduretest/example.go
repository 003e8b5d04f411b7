// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// By is who gives an example: whose contacts it sets, on which slot it is given.
type By struct{ Person, Slot string }

// exampleDispute is the dispute that examples are about.
const exampleDispute = "a20261124.1"

// Example is a well-formed command of a line of the matrix (MatrixLine.Name), about the incident in a state; nil if there is none. Commands
// whose content depends on where they are given (keys, roles, policies) have theirs with the tests that give them.
func Example(line string, by By, s *procedure.State) procedure.Command {
	for _, examples := range []func(string, By, *procedure.State) procedure.Command{
		exampleOfIncident, exampleOfPatch, exampleOfDeployment, exampleOfAccess, exampleOfArbitration, exampleOfRuleBook,
	} {
		if c := examples(line, by, s); c != nil {
			return c
		}
	}
	return nil
}

func exampleOfIncident(line string, by By, s *procedure.State) procedure.Command {
	switch line {
	case "Declare":
		return Declare()
	case "MergeInto":
		return &emergencyv1.MergeIntoRequest{Target: "e20261123.9", Reason: "it is the same outage"}
	case "AbsorbDuplicate":
		return &emergencyv1.AbsorbDuplicateRequest{Source: "e20261125.1", SourceHeadHash: strings.Repeat("0", 64)}
	case "StandDown":
		return StandDown()
	case "Escalate":
		return Exploited()
	case "DeEscalate":
		return GoBack(1)
	case "SignJointDeclaration":
		return Joint()
	case "ConfirmLateRecord":
		return &emergencyv1.ConfirmLateRecordRequest{Event: 1, Proof: "I stood beside it"}
	case "WaiveControl/tests":
		return Waive(emergencyv1.Control_CONTROL_TEST_QUORUM)
	case "WaiveControl/observer":
		return Waive(emergencyv1.Control_CONTROL_OBSERVER)
	case "RecordLeadDecision":
		return Lead(false)
	case "AnnotateLog":
		return &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "a note"}
	case "Document":
		return Document(s)
	case "RecordBoardSummary":
		return BoardSummary()
	case "Close":
		return Close()
	case "SyncObligations":
		return &emergencyv1.SyncObligationsRequest{}
	case "Tick":
		return &emergencyv1.TickRequest{}
	case "CallOut":
		return &emergencyv1.CallOutRequest{}
	case "ReportDelivery":
		return &emergencyv1.ReportDeliveryRequest{Page: "1.1", State: emergencyv1.DeliveryState_DELIVERY_STATE_SENT}
	case "Respond":
		return Accept(by.Slot)
	case "CheckIn":
		return &emergencyv1.CheckInRequest{Slot: by.Slot}
	case "EndStandby":
		return &emergencyv1.EndStandbyRequest{Slot: by.Slot, Reason: emergencyv1.StandbyEndReason_STANDBY_END_REASON_STEP_DONE}
	}
	return nil
}

func exampleOfPatch(line string, _ By, s *procedure.State) procedure.Command {
	switch line {
	case "RegisterPatch":
		return Register(7)
	case "RecordFirstReview":
		return FirstReview(emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE)
	case "RecordSecondReview":
		return SecondReview(emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE)
	case "Transfer":
		return &emergencyv1.TransferRequest{}
	case "ConfirmTestServer":
		return ConfirmServer(s)
	case "ReportTest":
		return Test(emergencyv1.TestResult_TEST_RESULT_PASS)
	case "RaiseVeto":
		return Veto()
	case "WithdrawVeto":
		return &emergencyv1.WithdrawVetoRequest{Veto: "V1", Reason: "I misread the patch"}
	case "OverruleVeto":
		return &emergencyv1.OverruleVetoRequest{Veto: "V1", Reason: "the hole it names was there before, and is smaller"}
	case "Forward":
		return &emergencyv1.ForwardRequest{RollbackPlan: "take it back"}
	case "EnterUpdateCycle":
		return &emergencyv1.EnterUpdateCycleRequest{}
	case "ConcludeUpdateCycle":
		return Bless()
	}
	return nil
}

func exampleOfDeployment(line string, _ By, s *procedure.State) procedure.Command {
	switch line {
	case "DryRun":
		return &emergencyv1.DryRunRequest{}
	case "ConfirmObserver":
		return Observe()
	case "StartApply":
		return &emergencyv1.StartApplyRequest{}
	case "ReportApply":
		return ReportApply(true)
	case "ReportTree":
		return ReportTree(s.Current().ResultTree)
	case "BackOut":
		return BackOut()
	case "RollBack":
		return RollBack("carl")
	case "RecordHealth":
		return Health()
	case "PushReplication":
		return &emergencyv1.PushReplicationRequest{}
	case "CheckReplication":
		return &emergencyv1.CheckReplicationRequest{}
	case "ExplainDrift":
		return &emergencyv1.ExplainDriftRequest{PathCommitment: strings.Repeat("0", 64)}
	}
	return nil
}

func exampleOfAccess(line string, _ By, _ *procedure.State) procedure.Command {
	const grant = "G1"
	switch line {
	case "PermitAccess":
		return Permit("emil")
	case "GrantAccess":
		return GrantTo("emil", "carl")
	case "ArmWatch":
		return Arm()
	case "Connect":
		return Connect()
	case "ReportConnection":
		return Opened(true)
	case "Freeze":
		return &emergencyv1.FreezeRequest{Grant: grant}
	case "Resume":
		return &emergencyv1.ResumeRequest{Grant: grant}
	case "MarkSession":
		return Note("a note")
	case "ExtendSession":
		return &emergencyv1.ExtendSessionRequest{Grant: grant, Reason: "the cause is found, the cure is not"}
	case "Terminate":
		return &emergencyv1.TerminateRequest{Grant: grant}
	case "Disable":
		return &emergencyv1.DisableRequest{Grant: grant}
	case "ProveUnusable":
		return &emergencyv1.ProveUnusableRequest{Grant: grant}
	case "CaptureSessionDiff":
		return &emergencyv1.CaptureSessionDiffRequest{Grant: grant}
	case "ReportLeftovers":
		return FoundLeftovers()
	case "ExplainLeftovers":
		return ExplainLeftovers("")
	case "SealSession":
		return &emergencyv1.SealSessionRequest{Grant: grant}
	case "PlayRecording":
		return &emergencyv1.PlayRecordingRequest{Grant: grant}
	}
	return nil
}

func exampleOfArbitration(line string, _ By, s *procedure.State) procedure.Command {
	switch line {
	case "FileDispute":
		return FileDispute(emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER)
	case "ReportFiling":
		return &emergencyv1.ReportFilingRequest{Dispute: exampleDispute, State: emergencyv1.DeliveryState_DELIVERY_STATE_SENT}
	case "OpenCase":
		return &emergencyv1.OpenCaseRequest{Dispute: exampleDispute, CaseNumber: "c1"}
	case "ProposeArbitrator":
		return &emergencyv1.ProposeArbitratorRequest{Dispute: exampleDispute, Candidate: "arno"}
	case "RespondAppointment":
		return &emergencyv1.RespondAppointmentRequest{Dispute: exampleDispute}
	case "CloseDeclined":
		return &emergencyv1.CloseDeclinedRequest{Dispute: exampleDispute}
	case "RecordPreliminaries":
		return Preliminaries(exampleDispute)
	case "DeliverRuling":
		return DeliverRuling(s, exampleDispute)
	case "PublishRuling":
		return &emergencyv1.PublishRulingRequest{Ruling: "R1", Text: "text"}
	case "ReportDirectionDone":
		return &emergencyv1.ReportDirectionDoneRequest{Direction: "D1", Proof: "see the log"}
	case "ConfirmDirection":
		return &emergencyv1.ConfirmDirectionRequest{Direction: "D1"}
	case "RequestReview":
		return RequestReview("R1")
	case "FormAppealPanel":
		return &emergencyv1.FormAppealPanelRequest{Dispute: exampleDispute}
	case "Redact":
		return Redact(1, s.Declared.Symptom)
	case "Disclose":
		return &emergencyv1.DiscloseRequest{Event: 1, Commitment: s.Declared.Symptom}
	case "ReportRedaction":
		return &emergencyv1.ReportRedactionRequest{Redaction: 1}
	case "ImportArchive":
		return ImportArchive(Archived(1))
	}
	return nil
}

func exampleOfRuleBook(line string, by By, _ *procedure.State) procedure.Command {
	switch line {
	case "Establish":
		return Establish()
	case "GrantRole":
		return &emergencyv1.GrantRoleRequest{Grant: &emergencyv1.RoleGrant{
			Person: "mia", Role: emergencyv1.Role_ROLE_TESTER, EffectiveAt: timestamppb.New(Founded()), BoardDecision: "m1",
		}}
	case "RevokeRole":
		return &emergencyv1.RevokeRoleRequest{Person: "theo", Role: emergencyv1.Role_ROLE_TESTER, EffectiveAt: timestamppb.New(Founded()), BoardDecision: "m1"}
	case "SetContacts":
		return &emergencyv1.SetContactsRequest{Person: by.Person, Contacts: []*emergencyv1.Contact{{Channel: "mail", Address: "x@example.org"}}}
	case "SetRota":
		return &emergencyv1.SetRotaRequest{Team: emergencyv1.Team_TEAM_TESTING}
	case "RecordReachability":
		return &emergencyv1.RecordReachabilityRequest{Person: "carla", Channel: "mail"}
	}
	return nil
}
