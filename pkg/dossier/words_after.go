// SPDX-License-Identifier: Apache-2.0

package dossier

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// strategyWords says what changes the strategy, and what was recorded later than it happened.
func strategyWords(payload proto.Message) string {
	switch e := payload.(type) {
	case *emergencyv1.StrategyEscalated:
		return fmt.Sprintf("Escalated from strategy %d to strategy %d%s%s", e.GetFrom(), e.GetTo(), groundWords(e), either(len(e.GetSkippedControls()) > 0, "; skipped: "+spaced(e.GetSkippedControls()), ""))
	case *emergencyv1.JointDeclarationSigned:
		return fmt.Sprintf("%s signed the %s's half of the joint declaration that strategies 1 and 2 do not solve it%s", e.GetPerson(), procedure.RoleWord(e.GetHalf()),
			either(e.GetLapsedHalf() > 0, fmt.Sprintf("; the half at %d had lapsed", e.GetLapsedHalf()), ""))
	case *emergencyv1.StrategyDeEscalated:
		return fmt.Sprintf("Went back from strategy %d to strategy %d: %s", e.GetFrom(), e.GetTo(), e.GetReason())
	case *emergencyv1.LateRecordConfirmed:
		return fmt.Sprintf("Event %d, which was recorded late, is confirmed: %s", e.GetEvent(), e.GetProof())
	}
	return ""
}

// groundWords is why strategy 2 was needed, as it was stated.
func groundWords(e *emergencyv1.StrategyEscalated) string {
	var parts []string
	if e.GetGround() != emergencyv1.EscalationGround_ESCALATION_GROUND_UNSPECIFIED {
		parts = append(parts, word(e.GetGround(), "ESCALATION_GROUND_"))
	}
	if e.GetTeam() != emergencyv1.Team_TEAM_UNSPECIFIED {
		parts = append(parts, "team "+procedure.TeamWord(e.GetTeam()))
	}
	if e.GetCode() != emergencyv1.UnfitCode_UNFIT_CODE_UNSPECIFIED {
		parts = append(parts, "code "+word(e.GetCode(), "UNFIT_CODE_"))
	}
	if len(e.GetSignatures()) > 0 {
		parts = append(parts, "signed at "+numbers(e.GetSignatures()))
	}
	if len(e.GetEvidence()) > 0 {
		parts = append(parts, "evidence at "+numbers(e.GetEvidence()))
	}
	if len(parts) == 0 {
		return ""
	}
	return "; ground: " + strings.Join(parts, ", ")
}

func numbers(list []uint64) string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = strconv.FormatUint(n, 10)
	}
	return strings.Join(words, ", ")
}

func spaced(list []string) string { return strings.ReplaceAll(strings.Join(list, ", "), "_", " ") }

// accessWords says who was given access to the host, and how it ended.
func accessWords(payload proto.Message) string {
	switch e := payload.(type) {
	case *emergencyv1.AccessPermitted:
		return fmt.Sprintf("Remote access of %s permitted, to be used until %s", e.GetSubject(), clock(e.GetValidUntil()))
	case *emergencyv1.AccessGrantIssued:
		return fmt.Sprintf("Grant %s: one connection of %s to %s, watched by %s, first use until %s, at most %d min; %s; %s", e.GetGrant(), e.GetSubject(), e.GetHost(),
			e.GetWatcher(), clock(e.GetFirstUseUntil()), e.GetMaxMinutes(),
			either(e.GetPermission() > 0, fmt.Sprintf("permission at %d", e.GetPermission()), "without the team lead's permission"), either(e.GetAgent(), "with an agent on the host", "no agent on the host"))
	case *emergencyv1.RoleAssumed:
		return fmt.Sprintf("%s acts as %s for %s", e.GetPerson(), procedure.RoleWord(e.GetRole()), e.GetGrant())
	case *emergencyv1.RoleAssumptionEnded:
		return fmt.Sprintf("%s no longer acts in the assumed role for %s", e.GetPerson(), e.GetGrant())
	case *emergencyv1.GrantExpired:
		return fmt.Sprintf("Grant %s expired: it was not used in time", e.GetGrant())
	case *emergencyv1.WatchArmed:
		return fmt.Sprintf("%s %s %s, at byte %d of the output", e.GetWatcher(), either(e.GetRenewed(), "still watches", "watches"), e.GetGrant(), e.GetOutputOffset())
	case *emergencyv1.CredentialConsumed:
		return fmt.Sprintf("The credential of %s is used up", e.GetGrant())
	case *emergencyv1.ConnectionOpened:
		return fmt.Sprintf("The connection of %s is open; host key %s; %s", e.GetGrant(), e.GetHostKeyFingerprint(), either(e.GetAgent(), "processes can be frozen", "only input can be frozen"))
	case *emergencyv1.ConnectionDisabled:
		return fmt.Sprintf("The connection of %s is disabled: gateway %s, host %s", e.GetGrant(), outcome(e.GetGateway()), outcome(e.GetHost()))
	case *emergencyv1.CredentialProvenUnusable:
		return fmt.Sprintf("The credential of %s was tried again at gateway and host, and refused", e.GetGrant())
	case *emergencyv1.CredentialStillUsable:
		return fmt.Sprintf("The credential of %s is not proven unusable: the attempt at the %s %s", e.GetGrant(), e.GetAt(), either(e.GetSucceeded(), "got in", "could not be made"))
	}
	return ""
}

func outcome(r *emergencyv1.EndResult) string {
	if r.GetOutcome() == emergencyv1.EffectOutcome_EFFECT_OUTCOME_UNSPECIFIED {
		return "not tried"
	}
	return word(r.GetOutcome(), "EFFECT_OUTCOME_")
}

// sessionWords says what happened in a watched session, and what it left.
func sessionWords(payload proto.Message) string {
	switch e := payload.(type) {
	case *emergencyv1.SessionFrozen:
		return fmt.Sprintf("The session of %s is frozen (%s): cause %s, at byte %d of the output, %d bytes of input discarded", e.GetGrant(), freezeWords(e.GetMode()), CauseWords(e.GetCause()), e.GetOutputOffset(), e.GetInputDiscarded())
	case *emergencyv1.SessionResumed:
		return fmt.Sprintf("The session of %s goes on, %d bytes of input were discarded", e.GetGrant(), e.GetInputDiscarded())
	case *emergencyv1.SessionMarked:
		return fmt.Sprintf("Mark in the session of %s: %s, at byte %d of the output%s", e.GetGrant(), word(e.GetKind(), "MARK_KIND_"), e.GetOutputOffset(),
			either(e.GetCheckpoint() != nil, fmt.Sprintf(", frame %d, chain %.12s", e.GetCheckpoint().GetFrame(), e.GetCheckpoint().GetChainHash()), ""))
	case *emergencyv1.SessionExtended:
		return fmt.Sprintf("The session of %s is extended by %d min", e.GetGrant(), e.GetMinutes())
	case *emergencyv1.SessionTerminated:
		return fmt.Sprintf("The session of %s ended: cause %s%s; %d bytes of output, %d of input forwarded, %d discarded", e.GetGrant(), CauseWords(e.GetCause()), endWords(e.GetResults()), e.GetOutputOffset(), e.GetInputBytes(), e.GetInputDiscarded())
	case *emergencyv1.SessionDiffCaptured:
		return fmt.Sprintf("The session of %s changed %s; tree before %.17s, after %.17s", e.GetGrant(), count(len(e.GetChangedPaths()), "path"), e.GetBeforeTree(), e.GetAfterTree())
	case *emergencyv1.LeftoversReported:
		return fmt.Sprintf("The session of %s left %s on the host%s", e.GetGrant(), count(len(e.GetItems()), "thing"), leftoverWords(e.GetItems()))
	case *emergencyv1.LeftoversExplained:
		return fmt.Sprintf("Left by the session of %s, explained: %s", e.GetGrant(), strings.Join(e.GetItems(), ", "))
	case *emergencyv1.SessionSealed:
		return fmt.Sprintf("The session of %s is sealed: recording %s%s, sha256 %.12s, %s of the output shown to the watcher", e.GetGrant(), word(e.GetState(), "RECORDING_STATE_"),
			either(e.GetFirstBadFrame() > 0, fmt.Sprintf(" at frame %d", e.GetFirstBadFrame()), ""), e.GetRecording().GetSha256(), Permille(e.GetWatchedPermille()))
	case *emergencyv1.RecordingPlayed:
		return fmt.Sprintf("%s played the recording of %s", e.GetPerson(), e.GetGrant())
	}
	return ""
}

func freezeWords(m emergencyv1.FreezeMode) string {
	switch m {
	case emergencyv1.FreezeMode_FREEZE_MODE_INPUT:
		return "input only"
	case emergencyv1.FreezeMode_FREEZE_MODE_PROCESS:
		return "input and processes"
	case emergencyv1.FreezeMode_FREEZE_MODE_CGROUP:
		return "input and control group"
	case emergencyv1.FreezeMode_FREEZE_MODE_UNSPECIFIED:
	}
	return "mode not said"
}

// CauseWords says why a session was frozen or ended.
func CauseWords(c emergencyv1.SessionCause) string {
	if c == emergencyv1.SessionCause_SESSION_CAUSE_UNSPECIFIED {
		return "not said"
	}
	return word(c, "SESSION_CAUSE_")
}

func endWords(list []*emergencyv1.EndResult) string {
	s := ""
	for _, r := range list {
		s += "; " + strings.ReplaceAll(r.GetEffect(), "_", " ") + " " + outcome(r)
	}
	return s
}

// leftoverWords counts what was left by its kind, in the order of the kinds.
func leftoverWords(list []*emergencyv1.Leftover) string {
	counts := map[emergencyv1.LeftoverKind]int{}
	for _, l := range list {
		counts[l.GetKind()]++
	}
	var parts []string
	for k := range len(emergencyv1.LeftoverKind_name) {
		if n := counts[emergencyv1.LeftoverKind(k)]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", word(emergencyv1.LeftoverKind(k), "LEFTOVER_KIND_"), n))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

// Permille is a share in 1/1000, as percent.
func Permille(n uint32) string { return fmt.Sprintf("%d.%d %%", n/10, n%10) }

// ConcernWords says what a dispute is about.
func ConcernWords(c emergencyv1.DisputeConcern) string {
	switch c {
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1:
		return "emergency issue handling under option 1"
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2:
		return "emergency issue handling under option 2"
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_3:
		return "emergency issue handling under option 3"
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_ACCESS:
		return "remote access"
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_REVIEW:
		return "review of a ruling"
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER, emergencyv1.DisputeConcern_DISPUTE_CONCERN_UNSPECIFIED:
	}
	return "another matter"
}

// disputeWords says how a dispute comes before an arbitrator.
func disputeWords(payload proto.Message) string {
	switch e := payload.(type) {
	case *emergencyv1.DisputeFiled:
		return fmt.Sprintf("Dispute %s filed by %s: %s; attached: %s; evidence up to %d, record %.12s; relief asked for: %s%s", e.GetDispute(), e.GetFiledBy(),
			ConcernWords(e.GetConcern()), count(len(e.GetDeviations()), "deviation"), e.GetEvidencePosition(), e.GetHeadHash(), e.GetRelief(), either(e.GetRefiles() != "", "; files "+e.GetRefiles()+" again", ""))
	case *emergencyv1.FilingReported:
		return fmt.Sprintf("The mail that files %s is %s%s", e.GetDispute(), word(e.GetState(), "DELIVERY_STATE_"), either(e.GetDetail() != "", ": "+e.GetDetail(), ""))
	case *emergencyv1.CaseOpened:
		return fmt.Sprintf("Case %s opened for %s; case manager %s", e.GetCaseNumber(), e.GetDispute(), e.GetCaseManager())
	case *emergencyv1.ArbitratorProposed:
		return fmt.Sprintf("%s is asked to arbitrate %s, answer awaited until %s", e.GetCandidate(), e.GetDispute(), clock(e.GetAnswerUntil()))
	case *emergencyv1.ArbitratorAccepted:
		return fmt.Sprintf("%s arbitrates %s and declares to have no conflict of interest", e.GetArbitrator(), e.GetDispute())
	case *emergencyv1.ArbitratorDeclined:
		return fmt.Sprintf("%s declines to arbitrate %s", e.GetCandidate(), e.GetDispute())
	case *emergencyv1.DisputeClosedDeclined:
		return fmt.Sprintf("Dispute %s closed: %s asked, none accepted; the ruling is still owed", e.GetDispute(), count(int(e.GetAsked()), "arbitrator"))
	case *emergencyv1.PreliminariesRecorded:
		return fmt.Sprintf("Preliminaries of %s recorded, with %s", e.GetDispute(), count(int(e.GetOrders()), "order"))
	case *emergencyv1.ReviewRequested:
		return fmt.Sprintf("%s asks for a review of ruling %s (%s): dispute %s", e.GetRequestedBy(), e.GetRuling(), word(e.GetGround(), "REVIEW_GROUND_"), e.GetDispute())
	case *emergencyv1.ReviewRuled:
		return fmt.Sprintf("%s rules on %s: %s", e.GetArbitrator(), e.GetDispute(), either(e.GetReopened(), "the case is re-opened", "the case is not re-opened"))
	case *emergencyv1.AppealPanelFormed:
		return fmt.Sprintf("Appeal panel for %s: %s; senior %s", e.GetDispute(), strings.Join(e.GetMembers(), ", "), e.GetSenior())
	}
	return ""
}

// rulingWords says what was ruled and directed, and what became public or was deleted.
func rulingWords(payload proto.Message) string {
	switch e := payload.(type) {
	case *emergencyv1.RulingDelivered:
		return fmt.Sprintf("%s %s of %s delivered by %s%s%s%s, %s", either(e.GetFinal(), "Final ruling", "Ruling"), e.GetRuling(), e.GetDispute(), e.GetArbitrator(),
			either(e.GetSealed(), ", sealed", ""), judgementWords(e.GetJudgements()), either(len(e.GetLifted()) > 0, "; lifted: "+strings.Join(e.GetLifted(), ", "), ""), count(int(e.GetDirections()), "direction"))
	case *emergencyv1.RulingPublished:
		return fmt.Sprintf("Ruling %s of %s published%s", e.GetRuling(), e.GetDispute(), either(e.GetSealed(), ": it is sealed, only that it exists", ""))
	case *emergencyv1.DirectionIssued:
		return fmt.Sprintf("Direction %s in %s to %s, kind %s, due %s", e.GetDirection(), e.GetDispute(), owner(e.GetPerson(), e.GetRole()), word(e.GetKind(), "DIRECTION_KIND_"), clock(e.GetDueAt()))
	case *emergencyv1.DirectionReported:
		return fmt.Sprintf("%s reports direction %s as carried out", e.GetPerson(), e.GetDirection())
	case *emergencyv1.DirectionConfirmed:
		return fmt.Sprintf("%s confirms that direction %s was carried out", e.GetPerson(), e.GetDirection())
	case *emergencyv1.FieldRedacted:
		return fmt.Sprintf("Redaction ordered of %s in event %d: %s (%s)", e.GetField(), e.GetEvent(), e.GetGround(), e.GetClause())
	case *emergencyv1.RedactionCompleted:
		return fmt.Sprintf("Redaction ordered at %d is done: value and salt are deleted", e.GetRedaction())
	case *emergencyv1.FieldDisclosed:
		return fmt.Sprintf("Disclosed: %s of event %d", e.GetField(), e.GetEvent())
	}
	return ""
}

func judgementWords(list []*emergencyv1.Judgement) string {
	s := ""
	for _, j := range list {
		s += fmt.Sprintf("; %s at %d: %s", word(j.GetDeviation(), "DEVIATION_"), j.GetPosition(), word(j.GetFinding(), "FINDING_"))
	}
	return s
}
