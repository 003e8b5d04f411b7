// SPDX-License-Identifier: Apache-2.0

package publog

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// escalatedTo shows why the strategy changed: the code of the ground, never the text.
func (d *draft) escalatedTo(e *emergencyv1.StrategyEscalated) {
	d.head("Escalated to strategy %d", e.GetTo())
	d.count("from strategy", uint64(e.GetFrom()))
	if e.GetGround() != emergencyv1.EscalationGround_ESCALATION_GROUND_UNSPECIFIED {
		d.field("ground", word(e.GetGround().String(), "ESCALATION_GROUND_"))
	}
	if e.GetTeam() != emergencyv1.Team_TEAM_UNSPECIFIED {
		d.field("team", procedure.TeamWord(e.GetTeam()))
	}
	if e.GetCode() != emergencyv1.UnfitCode_UNFIT_CODE_UNSPECIFIED {
		d.field("code", word(e.GetCode().String(), "UNFIT_CODE_"))
	}
	if len(e.GetSignatures()) > 0 {
		d.field("declared by", "a critical admin and a software assessor, jointly")
	}
	for _, c := range e.GetSkippedControls() {
		d.field("skipped", strings.ReplaceAll(c, "_", " "))
	}
}

// sayAccess is chapter 5.4, remote access.
func (d *draft) sayAccess(payload proto.Message) bool {
	switch e := payload.(type) {
	case *emergencyv1.AccessGrantIssued:
		d.head("Remote access granted")
		d.field("grant", e.GetGrant())
		d.field("to", d.subjectRole())
		d.field("watched by", procedure.RoleWord(emergencyv1.Role_ROLE_CRITICAL_ADMIN))
		d.minutes("maximum length", e.GetMaxMinutes())
	case *emergencyv1.ConnectionOpened:
		d.head("Remote session opened, watched")
		d.field("grant", e.GetGrant())
	case *emergencyv1.SessionFrozen:
		d.once = "frozen " + e.GetGrant()
		d.head("Session frozen: %s", word(e.GetCause().String(), "SESSION_CAUSE_"))
		d.field("grant", e.GetGrant())
	case *emergencyv1.SessionTerminated:
		d.head("Remote session ended")
		d.field("grant", e.GetGrant())
		d.field("cause", word(e.GetCause().String(), "SESSION_CAUSE_"))
		for _, r := range e.GetResults() {
			d.field(strings.ReplaceAll(r.GetEffect(), "_", " "), outcome(r))
		}
	case *emergencyv1.GrantExpired:
		d.head("Remote access expired, never used")
		d.field("grant", e.GetGrant())
	case *emergencyv1.CredentialProvenUnusable:
		d.head("Access disabled and proven unusable")
		d.field("grant", e.GetGrant())
	case *emergencyv1.CredentialStillUsable:
		d.head("Access could not be proven unusable")
		d.field("grant", e.GetGrant())
		d.field("at", e.GetAt())
		d.field("attempt", map[bool]string{true: "got in", false: "could not be made"}[e.GetSucceeded()])
	case *emergencyv1.SessionSealed:
		d.sealed(e)
	case *emergencyv1.AccessPermitted, *emergencyv1.RoleAssumed, *emergencyv1.RoleAssumptionEnded, *emergencyv1.WatchArmed,
		*emergencyv1.CredentialConsumed, *emergencyv1.SessionResumed, *emergencyv1.SessionMarked, *emergencyv1.SessionExtended,
		*emergencyv1.ConnectionDisabled, *emergencyv1.SessionDiffCaptured, *emergencyv1.LeftoversReported,
		*emergencyv1.LeftoversExplained, *emergencyv1.RecordingPlayed: // none
	default:
		return d.sayArbitration(payload)
	}
	return true
}

// subjectRole is in which role the subject has access: an assessor, unless the event says that it departs from that.
func (d *draft) subjectRole() string {
	if slices.Contains(d.rec.GetEvents()[d.index].GetDeviations(), emergencyv1.Deviation_DEVIATION_SUBJECT_NOT_ASSESSOR) {
		return procedure.RoleWord(emergencyv1.Role_ROLE_SOFTWARE_ENGINEER)
	}
	return procedure.RoleWord(emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR)
}

func (d *draft) minutes(name string, n uint32) { d.field(name, duration(int64(n)*60_000)) }

func outcome(r *emergencyv1.EndResult) string {
	if r.GetOutcome() == emergencyv1.EffectOutcome_EFFECT_OUTCOME_UNSPECIFIED {
		return "not tried"
	}
	return word(r.GetOutcome().String(), "EFFECT_OUTCOME_")
}

// sealed shows the recording by its digest; the recording itself is never public.
func (d *draft) sealed(e *emergencyv1.SessionSealed) {
	d.head("Session record sealed")
	d.field("grant", e.GetGrant())
	d.field("recording", word(e.GetState().String(), "RECORDING_STATE_"))
	d.field("sha256", e.GetRecording().GetSha256())
	if e.GetState() != emergencyv1.RecordingState_RECORDING_STATE_MISSING {
		d.field("output shown to the watcher", permille(e.GetWatchedPermille()))
	}
}

func permille(n uint32) string {
	return strings.TrimSuffix(fmt.Sprintf("%d.%d", n/10, n%10), ".0") + " %"
}

// sayDisputes is chapter 5.5, from the filing of a dispute to what was redacted or disclosed. Proceedings are private (DRP 3.2).
func (d *draft) sayDisputes(payload proto.Message) bool {
	switch e := payload.(type) {
	case *emergencyv1.DisputeFiled:
		d.head("Dispute filed")
		d.field(fieldDispute, e.GetDispute())
		d.field("concern", word(e.GetConcern().String(), "DISPUTE_CONCERN_"))
		for _, a := range e.GetDeviations() {
			d.field("attached", word(a.GetDeviation().String(), "DEVIATION_"))
		}
		d.field(fieldRefiles, e.GetRefiles())
	case *emergencyv1.CaseOpened:
		d.head("Case number assigned")
		d.field(fieldDispute, e.GetDispute())
		d.field("case", e.GetCaseNumber())
	case *emergencyv1.ArbitratorProposed:
		d.head("Waiting for an arbitrator")
		d.field(fieldDispute, e.GetDispute())
		d.dispute, d.asked = e.GetDispute(), 1
	case *emergencyv1.ArbitratorDeclined: // who it was is not public, not even by a letter
		d.head("Waiting for an arbitrator")
		d.field(fieldDispute, e.GetDispute())
		d.dispute, d.declined, d.unnamed = e.GetDispute(), 1, true
	case *emergencyv1.ArbitratorAccepted:
		d.head("Arbitrator accepted")
		d.field(fieldDispute, e.GetDispute())
	case *emergencyv1.DisputeClosedDeclined:
		d.head("No arbitrator accepted; ruling still owed")
		d.field(fieldDispute, e.GetDispute())
		d.count("asked", uint64(e.GetAsked()))
	case *emergencyv1.ReviewRequested:
		d.head("Review requested")
		d.field(fieldDispute, e.GetDispute())
		d.field("ruling", e.GetRuling())
		d.field("ground", word(e.GetGround().String(), "REVIEW_GROUND_"))
	case *emergencyv1.ReviewRuled:
		d.head("%s", map[bool]string{true: "Re-opened", false: "Not re-opened"}[e.GetReopened()])
		d.field(fieldDispute, e.GetDispute())
	case *emergencyv1.AppealPanelFormed:
		d.head("Appeal panel formed")
		d.field(fieldDispute, e.GetDispute())
	case *emergencyv1.PreliminariesRecorded, *emergencyv1.FilingReported, *emergencyv1.DirectionIssued, *emergencyv1.DirectionReported: // none
	default:
		return d.sayRulings(payload)
	}
	return true
}

func (d *draft) sayRulings(payload proto.Message) bool {
	switch e := payload.(type) {
	case *emergencyv1.RulingDelivered: // its text comes with RulingPublished
		d.head("%s", rulingHead(e.GetSealed()))
		d.about = "ruling " + e.GetRuling()
		d.field("ruling", e.GetRuling())
		d.field(fieldDispute, e.GetDispute())
		if e.GetFinal() {
			d.field("final", "yes")
		}
	case *emergencyv1.RulingPublished:
		d.head("%s", rulingHead(e.GetSealed()))
		d.about, d.corrects = "ruling "+e.GetRuling(), true
		d.field("ruling", e.GetRuling())
		d.field(fieldDispute, e.GetDispute())
		if !e.GetSealed() {
			d.text("text", e.GetText())
		}
	case *emergencyv1.DirectionConfirmed:
		d.head("Direction carried out")
		d.field("direction", e.GetDirection())
	case *emergencyv1.FieldRedacted:
		d.head("Field redacted")
		d.count(fieldOnPosition, e.GetEvent())
		d.field("field", spaced(e.GetField()))
		d.text("ground", e.GetGround())
		d.field("clause", e.GetClause())
		d.field("commitment", e.GetCommitment())
	case *emergencyv1.FieldDisclosed:
		d.head("Disclosed")
		d.count(fieldOnPosition, e.GetEvent())
		d.field("field", spaced(e.GetField()))
		d.field("commitment", e.GetCommitment())
		d.opened = e
	case *emergencyv1.RedactionCompleted: // none: what was ordered stands in the log
	default:
		return false
	}
	return true
}

func rulingHead(sealed bool) string {
	if sealed {
		return "A sealed ruling exists"
	}
	return "Ruling"
}

func spaced(field string) string { return strings.NewReplacer("_", " ", ".", ", ").Replace(field) }

// discloses publishes a value that was restricted until now, of an event of the given type. With its salt anybody can check
// it against the commitment that stands in the log since the event; if a name had to be covered the salt stays away, since
// whoever has it can try names until the commitment fits.
func (d *draft) discloses(eventType string) {
	e := d.opened
	switch ordered := d.rec.GetActor().GetRole() == emergencyv1.Role_ROLE_ARBITRATOR; {
	case procedure.Disclosure(eventType, e.GetField()) == procedure.DiscloseNever && !ordered: // refused by the rules, and held back here
		d.field("value", "never public without an arbitrator's order")
	case !utf8.Valid(e.GetValue()):
		d.field("value", "hex "+hex.EncodeToString(e.GetValue()))
		d.field("salt", hex.EncodeToString(e.GetSalt()))
	default:
		value := d.veil().over(string(e.GetValue()))
		d.field("value", value)
		if value == string(e.GetValue()) {
			d.field("salt", hex.EncodeToString(e.GetSalt()))
		}
	}
}
