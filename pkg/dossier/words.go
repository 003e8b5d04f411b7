// SPDX-License-Identifier: Apache-2.0

package dossier

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Words says an event in one line, for those who take part: unlike the public log it names persons and hosts. Who acted
// stands beside it. It is empty for an event that it does not know.
func Words(payload proto.Message) string {
	for _, say := range []func(proto.Message) string{
		incidentWords, strategyWords, teamWords, reviewWords, deploymentWords, accessWords, sessionWords, disputeWords, rulingWords, debtWords, bookWords,
	} {
		if s := say(payload); s != "" {
			return s
		}
	}
	return ""
}

func incidentWords(payload proto.Message) string {
	switch e := payload.(type) {
	case *emergencyv1.EmergencyDeclared:
		what := "Emergency"
		if e.GetDrill() {
			what = "Drill"
		}
		return fmt.Sprintf("%s declared: %s, severity %s, reason %s", what, e.GetSystem(), word(e.GetSeverity(), "SEVERITY_"), word(e.GetReasonClass(), "REASON_CLASS_"))
	case *emergencyv1.DuplicateAbsorbed:
		return fmt.Sprintf("%s was merged into this incident: %s", e.GetSource(), e.GetReason())
	case *emergencyv1.IncidentMerged:
		return fmt.Sprintf("Merged into %s: %s", e.GetTarget(), e.GetReason())
	case *emergencyv1.IncidentStoodDown:
		return "Stood down: " + e.GetReason()
	case *emergencyv1.ControlWaived:
		return fmt.Sprintf("Control %s waived for %s", word(e.GetControl(), "CONTROL_"), e.GetBinding().GetRevision())
	case *emergencyv1.LeadDecisionRecorded:
		return fmt.Sprintf("Team lead's decision: %s, %s", word(e.GetDecision(), "LEAD_DECISION_")+either(e.GetStrategy() > 1, fmt.Sprintf(" of strategy %d", e.GetStrategy()), ""), either(e.GetReferred(), "referred to dispute", "not referred to dispute"))
	case *emergencyv1.LogAnnotated:
		return fmt.Sprintf("Note on event %d%s", e.GetEntry(), either(e.GetText() == "", " (restricted)", ": "+e.GetText()))
	case *emergencyv1.DeadlineWarned:
		return fmt.Sprintf("%d %% of deadline %s have passed; it is due %s", e.GetPercent(), e.GetDeadline(), clock(e.GetDueAt()))
	case *emergencyv1.DeadlineBreached:
		return fmt.Sprintf("Deadline %s passed unmet; it was due %s", e.GetDeadline(), clock(e.GetDueAt()))
	case *emergencyv1.IncidentClosed:
		return fmt.Sprintf("Closed, %s: %s", word(e.GetOutcome(), "OUTCOME_"), e.GetSummary())
	case *emergencyv1.CommandRefused:
		more := ""
		if e.GetSuppressed() > 0 {
			more = fmt.Sprintf("; %d more refusals before it were only counted", e.GetSuppressed())
		}
		return fmt.Sprintf("%s was refused: %s (%s)%s", e.GetCommand(), e.GetReason(), e.GetRule(), more)
	}
	return ""
}

func teamWords(payload proto.Message) string {
	switch e := payload.(type) {
	case *emergencyv1.CallOutIssued:
		return fmt.Sprintf("Round %d: called %s, %d pages over %s", e.GetRound(), teamList(e.GetTeams()), len(e.GetPages()), strings.Join(e.GetChannels(), ", "))
	case *emergencyv1.DeliveryReported:
		return strings.TrimSuffix(fmt.Sprintf("Page %s: %s (%s)", e.GetPage(), word(e.GetState(), "DELIVERY_STATE_"), e.GetDetail()), " ()")
	case *emergencyv1.RePaged:
		return fmt.Sprintf("Round %d: paged again, %d pages%s", e.GetRound(), len(e.GetPages()), either(e.GetFallback(), " on the next channel", ""))
	case *emergencyv1.CoverageGapFound:
		return "Nobody on duty: " + procedure.TeamWord(e.GetTeam())
	case *emergencyv1.ResponderAccepted:
		return fmt.Sprintf("%s takes %s to %s%s%s", e.GetPerson(), e.GetSlot(), procedure.StepWord(e.GetStep()),
			either(e.GetEtaMinutes() > 0, fmt.Sprintf(", ready in %d min", e.GetEtaMinutes()), ""), either(e.GetUnconfirmed(), ", still to be confirmed", ""))
	case *emergencyv1.ResponderDeclined:
		return fmt.Sprintf("%s will not take part for %s%s", e.GetPerson(), procedure.TeamWord(e.GetTeam()), either(e.GetSlot() != "", " and gives up "+e.GetSlot(), ""))
	case *emergencyv1.ResponderHandedOver:
		return fmt.Sprintf("%s asks %s to take over %s", e.GetFrom(), e.GetTo(), e.GetSlot())
	case *emergencyv1.AckExpired:
		return fmt.Sprintf("%s did not start the standby for %s, due %s", e.GetPerson(), e.GetSlot(), clock(e.GetDueAt()))
	case *emergencyv1.StandbyStarted:
		return fmt.Sprintf("%s is on standby for %s", e.GetPerson(), e.GetSlot())
	case *emergencyv1.StandbyCheckedIn:
		return fmt.Sprintf("%s checked in for %s", e.GetPerson(), e.GetSlot())
	case *emergencyv1.StandbyMissed:
		return fmt.Sprintf("%s did not check in for %s, due %s", e.GetPerson(), e.GetSlot(), clock(e.GetDueAt()))
	case *emergencyv1.SlotReopened:
		return fmt.Sprintf("%s is open again; it was %s's", e.GetSlot(), e.GetPerson())
	case *emergencyv1.StandbyEnded:
		return fmt.Sprintf("%s ended the standby for %s: %s", e.GetPerson(), e.GetSlot(), word(e.GetReason(), "STANDBY_END_REASON_"))
	}
	return ""
}

func reviewWords(payload proto.Message) string {
	switch e := payload.(type) {
	case *emergencyv1.PatchRegistered:
		return fmt.Sprintf("%s registered%s: written by %s, bug %s, %s, sha256 %.12s", e.GetBinding().GetRevision(),
			either(e.GetOrigin() == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION, " from a session's difference", ""), e.GetAuthor(), e.GetBugId(), count(int(e.GetFilesChanged()), "file"), e.GetPatch().GetSha256())
	case *emergencyv1.PatchSuperseded:
		return fmt.Sprintf("%s replaces %s; void: %s", e.GetNewRevision(), e.GetOldRevision(), count(len(e.GetVoids()), "check"))
	case *emergencyv1.FirstReviewRecorded:
		return fmt.Sprintf("First review of %s by %s: %s%s", e.GetBinding().GetRevision(), e.GetReviewer(), word(e.GetVerdict(), "REVIEW_VERDICT_"), after(e.GetPhase()))
	case *emergencyv1.PatchTransferred:
		return fmt.Sprintf("%s is in the repository: commit %.12s on %s", e.GetBinding().GetRevision(), e.GetCommit(), e.GetRef())
	case *emergencyv1.TestServerConfirmed:
		return fmt.Sprintf("%s is on test server %s", e.GetBinding().GetRevision(), e.GetEnvironment())
	case *emergencyv1.TestReported:
		return fmt.Sprintf("Test of %s by %s: %s, note %s%s", e.GetBinding().GetRevision(), e.GetTester(), word(e.GetResult(), "TEST_RESULT_"), e.GetBugNote(), after(e.GetPhase()))
	case *emergencyv1.SecondReviewRecorded:
		return fmt.Sprintf("Second review of %s by %s: %s%s", e.GetBinding().GetRevision(), e.GetReviewer(), word(e.GetVerdict(), "REVIEW_VERDICT_"), after(e.GetPhase()))
	case *emergencyv1.VetoRaised:
		return fmt.Sprintf("Veto %s on %s by %s%s", e.GetVeto(), e.GetBinding().GetRevision(), e.GetRaisedBy(), either(e.GetAfterApplyStarted(), ", after the apply had started", ""))
	case *emergencyv1.VetoWithdrawn:
		return fmt.Sprintf("Veto %s withdrawn", e.GetVeto())
	case *emergencyv1.VetoOverruled:
		return fmt.Sprintf("Veto %s overruled", e.GetVeto())
	case *emergencyv1.PatchForwarded:
		return fmt.Sprintf("%s forwarded to %s%s", e.GetBinding().GetRevision(), e.GetTo(), either(e.GetLocalTest() != nil, ", with a note of the local test", ""))
	case *emergencyv1.UpdateCycleEntered:
		return fmt.Sprintf("%s is in the regular update cycle: commit %.12s, bug %s", e.GetBinding().GetRevision(), e.GetCommit(), e.GetBugId())
	case *emergencyv1.UpdateCycleConcluded:
		return fmt.Sprintf("Regular review of %s concluded: %s%s", e.GetBinding().GetRevision(), word(e.GetOutcome(), "CYCLE_OUTCOME_"), either(e.GetCommit() != "", fmt.Sprintf(", commit %.12s", e.GetCommit()), ""))
	}
	return ""
}

func after(p emergencyv1.Phase) string {
	return either(p == emergencyv1.Phase_PHASE_AFTER, ", after deployment", "")
}

func deploymentWords(payload proto.Message) string {
	switch e := payload.(type) {
	case *emergencyv1.DryRunRecorded:
		return fmt.Sprintf("Dry run of %s on %s: %s", e.GetBinding().GetRevision(), e.GetHost(), either(e.GetClean(), "clean", fmt.Sprintf("%d hunks do not apply, or the tree would differ", e.GetRejectedHunks())))
	case *emergencyv1.ObserverConfirmed:
		return fmt.Sprintf("%s %s %s", e.GetObserver(), either(e.GetKind() == emergencyv1.ObserverKind_OBSERVER_KIND_AFTER, "checked the host after the deployment of", "will observe the deployment of"), e.GetBinding().GetRevision())
	case *emergencyv1.ApplyStarted:
		return fmt.Sprintf("%s deploys %s on %s, %s%s", e.GetExecutor(), e.GetBinding().GetRevision(), e.GetHost(), either(e.GetObserver() != "", "observed by "+e.GetObserver(), "without observer"), either(e.GetByHand(), ", by hand", ""))
	case *emergencyv1.PatchApplied:
		return e.GetBinding().GetRevision() + " is applied"
	case *emergencyv1.PatchApplyFailed:
		return e.GetBinding().GetRevision() + " could not be applied"
	case *emergencyv1.DeployVerified:
		return fmt.Sprintf("Verified: the host's tree is the reviewed tree of %s", e.GetBinding().GetRevision())
	case *emergencyv1.DeployMismatch:
		return fmt.Sprintf("Mismatch: the host's tree is not the reviewed tree of %s; changed: %s", e.GetBinding().GetRevision(), count(int(e.GetReport().GetPathCount()), "path"))
	case *emergencyv1.BackOutStarted:
		return fmt.Sprintf("Back-out of %s started on %s", e.GetBinding().GetRevision(), e.GetHost())
	case *emergencyv1.PatchBackedOut:
		return e.GetBinding().GetRevision() + " is backed out: the former tree is restored"
	case *emergencyv1.BackOutUnproven:
		return fmt.Sprintf("Back-out of %s is not proven: the host's tree is another one", e.GetBinding().GetRevision())
	case *emergencyv1.RollBackStarted:
		return fmt.Sprintf("%s rolls %s back on %s, observed by %s", e.GetExecutor(), e.GetBinding().GetRevision(), e.GetHost(), e.GetObserver())
	case *emergencyv1.RolledBack:
		return e.GetBinding().GetRevision() + " is rolled back"
	case *emergencyv1.HealthRecorded:
		return fmt.Sprintf("Health after %s: %s", e.GetBinding().GetRevision(), word(e.GetResult(), "HEALTH_RESULT_"))
	case *emergencyv1.ReplicationPushed:
		return fmt.Sprintf("Commit %.12s is on %s: an act of %s, pushed by %s, %s", e.GetCommit(), e.GetRef(), e.GetRealActor(), e.GetImportActor(), either(e.GetSigned(), "signed", "not signed"))
	case *emergencyv1.ReplicationChecked:
		return fmt.Sprintf("Replication of %s: %s%s", e.GetHost(), word(e.GetResult(), "REPLICATION_RESULT_"), lag(e))
	case *emergencyv1.DriftExplained:
		return fmt.Sprintf("A path that differs is explained by %s", e.GetBoundTo())
	}
	return ""
}

func lag(e *emergencyv1.ReplicationChecked) string {
	s := ""
	if e.GetLagSeconds() > 0 {
		s = fmt.Sprintf(", lag %s%d days (%d s)", either(e.GetLowerBound(), "at least ", ""), e.GetLagDays(), e.GetLagSeconds())
	}
	if n := len(e.GetDriftPaths()); n > 0 {
		s += ", differing: " + count(n, "path")
	}
	if list := e.GetWaiting(); len(list) > 0 {
		s += ", not arrived: " + strings.Join(list, ", ")
	}
	return s
}

func debtWords(payload proto.Message) string {
	switch e := payload.(type) {
	case *emergencyv1.ProcedureDocumented:
		return fmt.Sprintf("Strategy %d documented%s: %s", e.GetStrategy(), either(e.GetLate(), ", late", ""), e.GetText())
	case *emergencyv1.BoardSummaryRecorded:
		return fmt.Sprintf("Reported to the Board (%s): %s to %s", e.GetBoardReference(), clock(e.GetFrom()), clock(e.GetUntil()))
	case *emergencyv1.ObligationOpened:
		return fmt.Sprintf("Owed: %s by %s, due %s", e.GetId(), owner(e.GetOwner(), e.GetOwnerRole()), clock(e.GetDueAt()))
	case *emergencyv1.ObligationDueChanged:
		return fmt.Sprintf("Owed: %s now by %s, due %s", e.GetId(), owner(e.GetOwner(), e.GetOwnerRole()), clock(e.GetDueAt()))
	case *emergencyv1.ObligationDischarged:
		late := time.Duration(e.GetLateByMs()) * time.Millisecond
		if e.GetLiftedBy() != "" {
			return fmt.Sprintf("Lifted: %s, by %s", e.GetId(), e.GetLiftedBy())
		}
		return fmt.Sprintf("Met: %s by event %d%s", e.GetId(), e.GetBy(), either(late > 0, ", late by "+late.Round(time.Second).String(), ""))
	case *emergencyv1.ObligationOverdue:
		return fmt.Sprintf("Overdue: %s, was due %s", e.GetId(), clock(e.GetDueAt()))
	case *emergencyv1.ObligationEscalated:
		told := make([]string, len(e.GetTold()))
		for i, r := range e.GetTold() {
			told[i] = procedure.RoleWord(r)
		}
		return fmt.Sprintf("Reminder %d of %s to %s", e.GetRung(), e.GetId(), strings.Join(told, ", "))
	}
	return ""
}

func owner(person string, role emergencyv1.Role) string {
	switch {
	case person == "":
		return procedure.RoleWord(role)
	case role == emergencyv1.Role_ROLE_UNSPECIFIED:
		return person
	}
	return fmt.Sprintf("%s (%s)", person, procedure.RoleWord(role))
}

func bookWords(payload proto.Message) string {
	switch e := payload.(type) {
	case *emergencyv1.PersonListed:
		return e.GetPerson() + " is listed in the directory"
	case *emergencyv1.PolicyPublished:
		return fmt.Sprintf("Policy %d published, signed by %s", e.GetNumber(), strings.Join(e.GetSignedBy(), " and "))
	case *emergencyv1.RoleGranted:
		g := e.GetGrant()
		return fmt.Sprintf("%s is %s from %s (%s)", g.GetPerson(), procedure.RoleWord(g.GetRole()), clock(g.GetEffectiveAt()), g.GetBoardDecision())
	case *emergencyv1.RoleRevoked:
		return fmt.Sprintf("%s is no longer %s from %s (%s)", e.GetPerson(), procedure.RoleWord(e.GetRole()), clock(e.GetEffectiveAt()), e.GetBoardDecision())
	case *emergencyv1.KeyAdded:
		k := e.GetKey()
		return fmt.Sprintf("Key %.12s is %s's", k.GetKeyId(), k.GetPerson()+k.GetSystemName())
	case *emergencyv1.KeyRevoked:
		return fmt.Sprintf("Key %.12s is revoked: %s", e.GetKeyId(), e.GetReason())
	case *emergencyv1.RotaChanged:
		return fmt.Sprintf("Rota of %s: %d shifts", procedure.TeamWord(e.GetTeam()), len(e.GetShifts()))
	case *emergencyv1.ContactsChanged:
		return fmt.Sprintf("%s can be reached in %d ways", e.GetPerson(), len(e.GetContacts()))
	case *emergencyv1.ReachabilityRecorded:
		return fmt.Sprintf("%s was %s on %s", e.GetPerson(), either(e.GetReached(), "reached", "not reached"), e.GetChannel())
	case *emergencyv1.MessageArchived:
		return fmt.Sprintf("From the archive of %s: %q, sent %s", e.GetList(), e.GetMessage().GetTitle(), clock(e.GetMessage().GetSentAt()))
	}
	return ""
}

func word(value fmt.Stringer, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(value.String(), prefix)), "_", " ")
}

func teamList(list []emergencyv1.Team) string {
	words := make([]string, len(list))
	for i, t := range list {
		words[i] = procedure.TeamWord(t)
	}
	return strings.Join(words, ", ")
}

func either(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func clock(t *timestamppb.Timestamp) string { return t.AsTime().UTC().Format("2006-01-02 15:04 UTC") }

// count is a number of things, one or more.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
