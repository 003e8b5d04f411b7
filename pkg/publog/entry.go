// SPDX-License-Identifier: Apache-2.0

package publog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Names of fields that the log itself looks at.
const (
	fieldObligation = "obligation"
	fieldSupersedes = "supersedes"
	fieldOnPosition = "on position"
	fieldOnEntry    = "on entry"
	fieldDispute    = "dispute"
	fieldRefiles    = "files again"
)

// Draft is the entry that one event of a record yields, without what only the log knows: number, letter, chain, the hash of
// the record, what was said before. ok is false where chapter 5 says "-". person is whom the letter is for; empty if a system
// acted, or if who it was is not public.
func Draft(before *procedure.State, rec *emergencyv1.Record, index int) (e Entry, person string, ok bool, err error) {
	payload, err := procedure.DecodeEvent(rec.GetEvents()[index])
	if err != nil {
		return Entry{}, "", false, err
	}
	d, err := draftOf(before, rec, index, payload, nil)
	if err != nil || d.headline == "" {
		return Entry{}, "", false, err
	}
	return d.entry(), d.person(), true, nil
}

func draftOf(before *procedure.State, rec *emergencyv1.Record, index int, payload proto.Message, named []string) (*draft, error) {
	event := rec.GetEvents()[index]
	d := &draft{before: before, rec: rec, index: index, payload: payload, named: named}
	if !d.say(payload) {
		return nil, fmt.Errorf("event type %s has no place in the public log, not even none", event.GetType())
	}
	if d.headline == "" && departs(event.GetDeviations()) {
		d.head("Departure from the rules")
	}
	return d, nil
}

// departs: an exception is itself never secret (SP 9.5), so an event without an entry of its own gets one if it departs from
// the rules. That something was recorded late is shown on what has an entry, and as an obligation.
func departs(list []emergencyv1.Deviation) bool {
	return slices.ContainsFunc(list, func(v emergencyv1.Deviation) bool { return v != emergencyv1.Deviation_DEVIATION_LATE_RECORD })
}

// entry is what the draft says so far.
func (d *draft) entry() Entry {
	event := d.rec.GetEvents()[d.index]
	e := Entry{
		Incident: d.rec.GetIncident(), Kind: event.GetType(), At: d.rec.GetRecordedAt().AsTime(), Late: d.rec.GetLate(),
		Headline: d.headline, Role: roleOf(d.rec.GetActor()), Fields: slices.Clone(d.fields), Commitments: commitments(d.payload),
	}
	for _, v := range event.GetDeviations() {
		e.Fields = append(e.Fields, Field{"deviation", word(v.String(), "DEVIATION_")})
	}
	if d.rec.GetLate() { // both times are shown (procedure.md 4.0 G9)
		e.Fields = append(e.Fields, Field{"captured", stamp(d.rec.GetOccurredAt().AsTime())})
	}
	return e
}

func (d *draft) position() uint64 { return d.rec.GetFirstPosition() + uint64(d.index) }

// person is whom the entry's letter is for.
func (d *draft) person() string {
	if d.unnamed || actsFor(d.rec.GetActor()) {
		return ""
	}
	return d.rec.GetActor().GetPerson()
}

// commitments of what the event itself keeps outside. The addresses of pages are not among them: their commitments belong to
// the rule book and are the same in each incident, so they would tell who was called again.
func commitments(payload proto.Message) []string {
	list := []string{}
	for _, f := range procedure.RestrictedFields(payload) {
		if f.Field != "pages.address" {
			list = append(list, f.Commitment)
		}
	}
	return list
}

// actsFor tells whether a system reports what it did for a person, who has no role in that.
func actsFor(a *emergencyv1.Actor) bool {
	return a.GetSystem() != emergencyv1.SystemKind_SYSTEM_KIND_UNSPECIFIED && a.GetRole() == emergencyv1.Role_ROLE_UNSPECIFIED
}

// roleOf is the acting role, such as critical-admin; never a person, and for a system never its name, which is a host's.
func roleOf(a *emergencyv1.Actor) string {
	if a.GetPerson() == "" || actsFor(a) {
		return dashed(word(a.GetSystem().String(), "SYSTEM_KIND_"))
	}
	if a.GetRole() == emergencyv1.Role_ROLE_UNSPECIFIED {
		return "member"
	}
	return dashed(procedure.RoleWord(a.GetRole()))
}

func dashed(s string) string { return strings.ReplaceAll(s, " ", "-") }

// word is an enum's value in words.
func word(value, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(value, prefix)), "_", " ")
}

// draft collects what an event says in public.
type draft struct {
	before   *procedure.State
	rec      *emergencyv1.Record
	index    int
	payload  proto.Message
	headline string
	fields   []Field

	unnamed  bool   // who acted has no letter
	once     string // said only the first time
	about    string // the thing the entry is about; with corrects it supersedes the last entry about it
	corrects bool
	// of a dispute that waits for an arbitrator: how many this event adds
	dispute         string
	asked, declined int
	opened          *emergencyv1.FieldDisclosed // its value is published where it may be
	named           []string                    // persons and machines that the incident has named before

	namedHere []string // once asked for: those that the event names
}

func (d *draft) head(format string, args ...any) { d.headline = fmt.Sprintf(format, args...) }

func (d *draft) field(name, value string) {
	if value != "" {
		d.fields = append(d.fields, Field{name, value})
	}
}

// text is a field that somebody wrote freely.
func (d *draft) text(name, value string) { d.field(name, d.veil().over(value)) }

func (d *draft) count(name string, n uint64) { d.field(name, strconv.FormatUint(n, 10)) }

func (d *draft) revision(b *emergencyv1.Binding) { d.field("revision", b.GetRevision()) }

// say is the column "Log" of procedure.md 5: every event type, with its entry or with none; false for one it does not know.
func (d *draft) say(payload proto.Message) bool {
	switch e := payload.(type) {
	case *emergencyv1.EmergencyDeclared:
		d.declared(e)
	case *emergencyv1.DuplicateAbsorbed:
		d.head("Merged")
		d.field("absorbed", e.GetSource())
		d.field("head of the absorbed incident", e.GetSourceHeadHash())
		d.text("reason", e.GetReason())
	case *emergencyv1.IncidentMerged:
		d.head("Merged")
		d.field("merged into", e.GetTarget())
		d.text("reason", e.GetReason())
	case *emergencyv1.IncidentStoodDown:
		d.head("Stood down")
		d.text("reason", e.GetReason())
	case *emergencyv1.ControlWaived:
		d.head("Control waived")
		d.field("control", word(e.GetControl().String(), "CONTROL_"))
		d.revision(e.GetBinding())
	case *emergencyv1.LeadDecisionRecorded:
		d.head("Team lead decision")
		d.field("decision", word(e.GetDecision().String(), "LEAD_DECISION_"))
		d.field("referred to dispute", yesNo(e.GetReferred()))
	case *emergencyv1.LogAnnotated:
		if e.GetText() != "" {
			d.head("Note")
			d.count(fieldOnPosition, e.GetEntry())
			d.text("text", e.GetText())
		}
	case *emergencyv1.DeadlineBreached:
		if e.GetDeadline() == "overall" {
			d.head("Deadline missed")
			d.field("deadline", e.GetDeadline())
			d.field("due", stamp(e.GetDueAt().AsTime()))
		}
	case *emergencyv1.IncidentClosed:
		d.head("Closed")
		d.field("outcome", word(e.GetOutcome().String(), "OUTCOME_"))
		d.field("time to fix", duration(e.GetTimeToFixMs()))
		d.text("summary", e.GetSummary())
	case *emergencyv1.StrategyEscalated:
		d.escalatedTo(e)
	case *emergencyv1.StrategyDeEscalated:
		d.head("De-escalated")
		d.count("from strategy", uint64(e.GetFrom()))
		d.count("to strategy", uint64(e.GetTo()))
		d.text("reason", e.GetReason())
	case *emergencyv1.DeadlineWarned, *emergencyv1.CommandRefused, *emergencyv1.LateRecordConfirmed,
		*emergencyv1.JointDeclarationSigned: // none: the second signature is shown with the escalation
	default:
		return d.sayTeams(payload)
	}
	return true
}

func (d *draft) declared(e *emergencyv1.EmergencyDeclared) {
	d.head("Emergency declared")
	d.field("system", e.GetSystem())
	d.field("severity", word(e.GetSeverity().String(), "SEVERITY_"))
	d.field("reason", word(e.GetReasonClass().String(), "REASON_CLASS_"))
	d.field("policy", strconv.FormatUint(uint64(e.GetPolicyNumber()), 10))
	for _, id := range e.GetPossibleDuplicates() {
		d.field("possible duplicate", id)
	}
	if e.GetDrill() {
		d.field("drill", "yes")
	}
}

// sayTeams is chapter 5.2.
func (d *draft) sayTeams(payload proto.Message) bool {
	switch e := payload.(type) {
	case *emergencyv1.CallOutIssued:
		if len(d.before.Rounds) == 0 { // first round only
			d.head("Teams called")
			d.field("teams", teams(e.GetTeams()))
		}
	case *emergencyv1.CoverageGapFound:
		d.head("No one on duty: %s", procedure.TeamWord(e.GetTeam()))
	case *emergencyv1.ResponderAccepted:
		d.head("Team has a responder")
		d.field("team", teamOf(e.GetSlot()))
		d.field("step", procedure.StepWord(e.GetStep()))
	case *emergencyv1.SlotReopened:
		d.head("Responder lost")
		d.field("team", teamOf(e.GetSlot()))
	case *emergencyv1.DeliveryReported, *emergencyv1.RePaged, *emergencyv1.ResponderDeclined, *emergencyv1.ResponderHandedOver,
		*emergencyv1.AckExpired, *emergencyv1.StandbyStarted, *emergencyv1.StandbyCheckedIn, *emergencyv1.StandbyMissed,
		*emergencyv1.StandbyEnded: // none
	case *emergencyv1.RotaChanged, *emergencyv1.ContactsChanged, *emergencyv1.ReachabilityRecorded, *emergencyv1.PersonListed,
		*emergencyv1.PolicyPublished, *emergencyv1.RoleGranted, *emergencyv1.RoleRevoked, *emergencyv1.KeyAdded,
		*emergencyv1.KeyRevoked: // the rule book's own history is no part of the log
	case *emergencyv1.MessageArchived:
		d.archived(e)
	default:
		return d.sayReview(payload)
	}
	return true
}

// FromArchive begins the headline of what was not recorded when it happened.
const FromArchive = "From the archive: "

// The fields of an archived message that pages look at.
const (
	FieldSent      = "sent"
	FieldMessageID = "message id"
)

// archived is a message of the years before this system: what it says of itself, and by what anybody finds it in the archive.
func (d *draft) archived(e *emergencyv1.MessageArchived) {
	m := e.GetMessage()
	subject := d.veil().over(m.GetTitle())
	if subject == "" {
		subject = "(no subject)"
	}
	d.head("%s%s", FromArchive, subject)
	d.field(FieldSent, m.GetSentAt().AsTime().UTC().Format(time.RFC3339))
	d.field("date read from", map[emergencyv1.DateSource]string{
		emergencyv1.DateSource_DATE_SOURCE_RECEIVED: "the mail server's stamp", emergencyv1.DateSource_DATE_SOURCE_ENVELOPE: "the archive file",
	}[m.GetDatedBy()])
	d.field("list", e.GetList())
	d.field(FieldMessageID, m.GetMessageId())
	d.field("sha256", m.GetSha256())
	d.count("bytes", m.GetSize())
}

func teams(list []emergencyv1.Team) string {
	words := make([]string, len(list))
	for i, t := range list {
		words[i] = procedure.TeamWord(t)
	}
	return strings.Join(words, ", ")
}

// teamOf is the team of a slot such as critical/1.
func teamOf(slot string) string {
	team, _, _ := strings.Cut(slot, "/")
	return team
}

// sayReview is chapter 5.3.
func (d *draft) sayReview(payload proto.Message) bool {
	switch e := payload.(type) {
	case *emergencyv1.PatchRegistered:
		d.head("Patch registered")
		d.revision(e.GetBinding())
		d.field("sha256", e.GetPatch().GetSha256())
		if e.GetOrigin() == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION {
			d.field("origin", "difference that a remote session left")
		}
	case *emergencyv1.PatchSuperseded:
		d.head("Revision replaced, %d checks void", len(e.GetVoids()))
		d.field("revision", e.GetOldRevision())
		d.field("replaced by", e.GetNewRevision())
	case *emergencyv1.FirstReviewRecorded:
		d.review("First", e.GetBinding(), e.GetVerdict(), e.GetPhase())
	case *emergencyv1.SecondReviewRecorded:
		d.review("Second", e.GetBinding(), e.GetVerdict(), e.GetPhase())
	case *emergencyv1.VetoRaised:
		d.head("Veto raised")
		d.field("veto", e.GetVeto())
		d.revision(e.GetBinding())
		if e.GetAfterApplyStarted() {
			d.field("after the deployment started", "yes")
		}
	case *emergencyv1.VetoWithdrawn:
		d.head("Veto withdrawn")
		d.veto(e.GetVeto())
	case *emergencyv1.VetoOverruled:
		d.head("Veto overruled")
		d.veto(e.GetVeto())
	case *emergencyv1.TestServerConfirmed:
		d.head("Patch on test server")
		d.revision(e.GetBinding())
	case *emergencyv1.TestReported:
		d.head("Test %d%s: %s", d.testNumber(e), inCycle(e.GetPhase()), word(e.GetResult().String(), "TEST_RESULT_"))
		d.revision(e.GetBinding())
		d.phase(e.GetPhase())
	case *emergencyv1.PatchForwarded:
		d.head("Forwarded to the critical team")
		d.revision(e.GetBinding())
		if e.GetLocalTest() != nil {
			d.field("tested", "locally, by who prepared it")
		}
	case *emergencyv1.UpdateCycleEntered:
		d.head("In the regular cycle")
		d.revision(e.GetBinding())
	case *emergencyv1.UpdateCycleConcluded:
		d.head("Regular review: %s", word(e.GetOutcome().String(), "CYCLE_OUTCOME_"))
		d.revision(e.GetBinding())
	case *emergencyv1.PatchTransferred: // none: the second event of the pair says it
	default:
		return d.sayDeployment(payload)
	}
	return true
}

func (d *draft) review(which string, b *emergencyv1.Binding, v emergencyv1.ReviewVerdict, p emergencyv1.Phase) {
	d.head("%s review: %s", which, word(v.String(), "REVIEW_VERDICT_"))
	d.revision(b)
	d.phase(p)
}

func (d *draft) phase(p emergencyv1.Phase) {
	if p == emergencyv1.Phase_PHASE_AFTER {
		d.field("phase", "after deployment")
	}
}

func (d *draft) veto(id string) {
	d.field("veto", id)
	for _, v := range d.before.Vetoes {
		if v.ID == id {
			d.field("revision", v.Revision)
		}
	}
}

// testNumber counts the testers of the revision in the phase; a second test by the same person keeps the number (X9).
func (d *draft) testNumber(e *emergencyv1.TestReported) int {
	r, ok := d.before.Revision(e.GetBinding().GetRevision())
	if !ok {
		return 1
	}
	tests := r.Tests
	switch {
	case e.GetPhase() != emergencyv1.Phase_PHASE_AFTER:
	case r.Cycle == nil:
		return 1
	default:
		tests = r.Cycle.Tests
	}
	if i := slices.IndexFunc(tests, func(t procedure.Test) bool { return t.By == e.GetTester() }); i >= 0 {
		return i + 1
	}
	return len(tests) + 1
}

// inCycle tells a test of the update cycle from one before the deployment: both are counted from 1.
func inCycle(p emergencyv1.Phase) string {
	if p == emergencyv1.Phase_PHASE_AFTER {
		return " in the update cycle"
	}
	return ""
}

// sayDeployment is chapter 5.4.
func (d *draft) sayDeployment(payload proto.Message) bool {
	switch e := payload.(type) {
	case *emergencyv1.ApplyStarted:
		d.head("Deployment started")
		d.revision(e.GetBinding())
		d.field("observer", map[bool]string{true: "with observer", false: "without observer"}[e.GetObserver() != ""])
		d.field("gate", gateVerdict(e.GetGate()))
	case *emergencyv1.PatchApplied:
		d.head("Applied")
		d.revision(e.GetBinding())
	case *emergencyv1.PatchApplyFailed:
		d.head("Apply failed")
		d.revision(e.GetBinding())
	case *emergencyv1.DeployVerified:
		d.head("Deployment verified")
		d.revision(e.GetBinding())
	case *emergencyv1.DeployMismatch:
		d.head("Deployment differs from the reviewed patch")
		d.revision(e.GetBinding())
		d.count("paths", uint64(e.GetReport().GetPathCount()))
	case *emergencyv1.PatchBackedOut:
		d.head("Backed out")
		d.revision(e.GetBinding())
	case *emergencyv1.BackOutUnproven:
		d.head("Back-out not proven")
		d.revision(e.GetBinding())
	case *emergencyv1.RolledBack:
		d.head("Rolled back")
		d.revision(e.GetBinding())
	case *emergencyv1.HealthRecorded:
		d.head("Health: %s", word(e.GetResult().String(), "HEALTH_RESULT_"))
		d.revision(e.GetBinding())
	case *emergencyv1.ReplicationChecked:
		d.replication(e)
	case *emergencyv1.DryRunRecorded, *emergencyv1.ObserverConfirmed, *emergencyv1.BackOutStarted, *emergencyv1.RollBackStarted,
		*emergencyv1.ReplicationPushed, *emergencyv1.DriftExplained: // none
	default:
		return d.sayAccess(payload)
	}
	return true
}

// gateVerdict is green when every line of the gate passed, else the lines that did not.
func gateVerdict(gate []*emergencyv1.GateCheck) string {
	var red []string
	for _, c := range gate {
		if !c.GetPassed() {
			red = append(red, strings.ReplaceAll(c.GetCheck(), "_", " "))
		}
	}
	if len(red) > 0 {
		return "not passed: " + strings.Join(red, ", ")
	}
	return "green"
}

func (d *draft) replication(e *emergencyv1.ReplicationChecked) {
	switch e.GetResult() {
	case emergencyv1.ReplicationResult_REPLICATION_RESULT_LAG:
		d.head("Replication: lag %d days", e.GetLagDays())
	case emergencyv1.ReplicationResult_REPLICATION_RESULT_DRIFT:
		d.head("Replication: drift %d paths", len(e.GetDriftPaths()))
	case emergencyv1.ReplicationResult_REPLICATION_RESULT_EQUAL:
		d.head("Replication: equal")
	case emergencyv1.ReplicationResult_REPLICATION_RESULT_UNSPECIFIED:
		d.head("Replication: not compared")
	}
	if e.GetLagSeconds() > 0 {
		d.field("lag", fmt.Sprintf("%d days (%d s)", e.GetLagDays(), e.GetLagSeconds()))
	}
	if list := e.GetWaiting(); len(list) > 0 {
		d.field("not arrived", strings.Join(list, ", "))
	}
	if e.GetLowerBound() {
		d.field("lower bound", "yes, the time of the effect is unknown")
	}
}

// sayArbitration is chapter 5.5.
func (d *draft) sayArbitration(payload proto.Message) bool {
	switch e := payload.(type) {
	case *emergencyv1.ProcedureDocumented:
		d.head("Report published")
		d.count("strategy", uint64(e.GetStrategy()))
		d.field("on time", yesNo(!e.GetLate()))
		for _, r := range e.GetReasons() {
			d.text("reason for "+word(r.GetDeviation().String(), "DEVIATION_"), r.GetReason())
		}
		d.text("text", e.GetText())
	case *emergencyv1.BoardSummaryRecorded:
		d.head("Reported to the Board")
		d.field("from", stamp(e.GetFrom().AsTime()))
		d.field("until", stamp(e.GetUntil().AsTime()))
		d.field("reference", e.GetBoardReference())
	case *emergencyv1.ObligationOpened:
		d.obligation("opened", e.GetId())
		d.field("owed by", procedure.RoleWord(e.GetOwnerRole()))
		d.field("due", stamp(e.GetDueAt().AsTime()))
	case *emergencyv1.ObligationDueChanged: // a correction of the entry before
		d.corrects = true
		d.obligation("opened", e.GetId())
		d.field("owed by", procedure.RoleWord(e.GetOwnerRole()))
		d.field("due", stamp(e.GetDueAt().AsTime()))
	case *emergencyv1.ObligationDischarged:
		if e.GetLiftedBy() != "" {
			d.obligation("lifted", e.GetId())
			d.field("lifted by", e.GetLiftedBy())
			break
		}
		d.obligation("met", e.GetId())
		d.field("late by", duration(e.GetLateByMs()))
	case *emergencyv1.ObligationOverdue:
		d.obligation("overdue", e.GetId())
		d.field("due", stamp(e.GetDueAt().AsTime()))
	case *emergencyv1.ObligationEscalated:
		d.escalated(e)
	default:
		return d.sayDisputes(payload)
	}
	return true
}

func (d *draft) obligation(what, id string) {
	d.about = id
	d.head("Obligation %s", what)
	d.field("kind", KindOf(id))
	d.field(fieldObligation, id)
}

// escalated: the first rung is a reminder before the due time, the second comes with ObligationOverdue; what is public is that
// it stays overdue (procedure.md 7, ladder).
func (d *draft) escalated(e *emergencyv1.ObligationEscalated) {
	if e.GetRung() < 3 {
		return
	}
	d.obligation("overdue", e.GetId())
	d.count("rung", uint64(e.GetRung()))
	for _, r := range e.GetTold() {
		d.field("told", procedure.RoleWord(r))
	}
}

// KindOf is the kind of an obligation by its id, <KIND>/<cause position> with the item behind it; a kind may hold a slash.
func KindOf(id string) string {
	parts := strings.Split(id, "/")
	for i, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 64); err == nil && i > 0 {
			return strings.Join(parts[:i], "/")
		}
	}
	return id
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// duration is a time span in words, empty for none.
func duration(ms int64) string {
	d := (time.Duration(ms) * time.Millisecond).Round(time.Minute)
	switch {
	case ms <= 0:
		return ""
	case d < time.Minute:
		return "less than a minute"
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days %d h", int(d.Hours())/24, int(d.Hours())%24)
}
