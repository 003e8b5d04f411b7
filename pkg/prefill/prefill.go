// SPDX-License-Identifier: Apache-2.0

// Package prefill fills in what the history knows of a command that a person is about to give, so that nobody types what the
// system knows: bindings and ids, who observes, what a dispute says of the handling. The command line and the pages use the same.
//
// It proposes and decides nothing: whatever it fills in the person may change, and the rules judge what is given. It depends on
// nothing but the values it is handed.
package prefill

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Known is what is known when a command is prepared.
type Known struct {
	// State is the incident; one that is Absent for a command that makes one, or that is about the rule book.
	State *procedure.State
	Book  *rulebook.Book
	// Person is who will give the command.
	Person string
	Now    time.Time
}

// Fill fills the empty fields of a command about a subject of procedure.Options; an empty subject means what is current. Meta is
// the caller's. A subject that the state does not know leaves its fields empty: the rules then say what is missing.
func (k Known) Fill(cmd procedure.Command, subject string) {
	switch c := cmd.(type) {
	case *emergencyv1.DeclareRequest:
		k.declare(c)
	case *emergencyv1.DeEscalateRequest:
		n, _ := strconv.ParseUint(subject, 10, 32) // no number leaves it open
		c.To = uint32(n)
	case *emergencyv1.EscalateRequest:
		k.escalate(c)
	case *emergencyv1.WaiveControlRequest:
		name, what, _ := strings.Cut(subject, " ")
		c.Binding = k.binding(name)
		c.Control = map[string]emergencyv1.Control{"tests": emergencyv1.Control_CONTROL_TEST_QUORUM, "observer": emergencyv1.Control_CONTROL_OBSERVER}[what]
	case *emergencyv1.AnnotateLogRequest:
		c.Entry = k.State.Position
	case *emergencyv1.ConfirmLateRecordRequest:
		c.Event, _ = strconv.ParseUint(subject, 10, 64) // no number leaves it open
	case *emergencyv1.RespondRequest:
		k.respond(c, subject)
	case *emergencyv1.CheckInRequest:
		c.Slot = subject
	case *emergencyv1.EndStandbyRequest:
		c.Slot, c.Reason = subject, emergencyv1.StandbyEndReason_STANDBY_END_REASON_STEP_DONE
	default:
		if !k.fillReview(cmd, subject) && !k.fillDeployment(cmd, subject) && !k.fillArbitration(cmd, subject) {
			k.fillConsole(cmd, subject)
		}
	}
}

// declare names the only system of a policy that knows one.
func (k Known) declare(c *emergencyv1.DeclareRequest) {
	c.Severity = emergencyv1.Severity_SEVERITY_HIGH
	if p := k.Book.PolicyInForce(k.Now); p != nil && len(p.Systems()) == 1 {
		c.System = p.Systems()[0].GetSystem()
	}
}

// escalate takes the one ground that the history proves. None or several are the person's to say.
func (k Known) escalate(c *emergencyv1.EscalateRequest) {
	if proven := procedure.ProvenGrounds(k.State, k.Now); len(proven) == 1 {
		c.Ground, c.Team, c.Evidence = proven[0].Ground, proven[0].Team, proven[0].Evidence
	}
}

// respond fills in the kind of answer that is there, an acceptance if none is.
func (k Known) respond(c *emergencyv1.RespondRequest, slot string) {
	switch a := c.GetAnswer().(type) {
	case *emergencyv1.RespondRequest_Decline:
		if sl, ok := k.State.Slot(slot); ok {
			a.Decline.Team = sl.Team
		}
	case *emergencyv1.RespondRequest_HandOver:
		a.HandOver.Slot = slot
	default:
		c.Answer = &emergencyv1.RespondRequest_Accept{Accept: &emergencyv1.Acceptance{Slot: slot, ContactPath: k.Contact(k.Person), OnStandby: true}}
	}
}

// Contact names the ways by which the rule book reaches a person; the addresses themselves are kept sealed. Empty if it knows none.
func (k Known) Contact(person string) string {
	var channels []string
	for _, c := range k.Book.Contacts(person) {
		channels = append(channels, c.GetChannel())
	}
	if len(channels) == 0 {
		return ""
	}
	return "as in the rule book: " + strings.Join(channels, ", ")
}

// revision is the one that is named, or else the current one; nil if there is none.
func (k Known) revision(name string) *procedure.Revision {
	if name == "" {
		return k.State.Current()
	}
	r, ok := k.State.Revision(name)
	if !ok {
		return nil
	}
	return r
}

func (k Known) binding(name string) *emergencyv1.Binding {
	r := k.revision(name)
	if r == nil {
		return nil
	}
	return &emergencyv1.Binding{Revision: r.ID, Digest: r.Binding}
}

func (k Known) phase(name string) emergencyv1.Phase {
	r := k.revision(name)
	if r == nil {
		return emergencyv1.Phase_PHASE_BEFORE
	}
	return Phase(r)
}

// Phase is after the deployment for a revision in the regular update cycle.
func Phase(r *procedure.Revision) emergencyv1.Phase {
	if r.Cycle != nil {
		return emergencyv1.Phase_PHASE_AFTER
	}
	return emergencyv1.Phase_PHASE_BEFORE
}

func (k Known) fillReview(cmd procedure.Command, subject string) bool {
	switch c := cmd.(type) {
	case *emergencyv1.RegisterPatchRequest:
		c.Supersedes, c.Author, c.Origin = subject, k.Person, emergencyv1.PatchOrigin_PATCH_ORIGIN_PREPARED
		if r := k.revision(subject); r != nil && subject != "" {
			c.BugId = r.BugID
		}
	case *emergencyv1.RecordFirstReviewRequest:
		c.Binding, c.Phase = k.binding(subject), k.phase(subject)
	case *emergencyv1.RecordSecondReviewRequest:
		c.Binding, c.Phase = k.binding(subject), k.phase(subject)
	case *emergencyv1.TransferRequest:
		c.Binding = k.binding(subject)
	case *emergencyv1.ReportTestRequest:
		c.Binding, c.Phase, c.BugNote = k.binding(subject), k.phase(subject), "auto"
	case *emergencyv1.RaiseVetoRequest:
		c.Binding = k.binding(subject)
	case *emergencyv1.WithdrawVetoRequest:
		c.Veto = subject
	case *emergencyv1.OverruleVetoRequest:
		c.Veto = subject
	case *emergencyv1.ForwardRequest:
		c.Binding, c.To = k.binding(subject), Executor(k.State)
		if r := k.revision(subject); r != nil {
			c.RollbackPlan = RollbackPlan(k.State, r)
		}
	case *emergencyv1.EnterUpdateCycleRequest:
		c.Binding = k.binding(subject)
	case *emergencyv1.ConcludeUpdateCycleRequest:
		c.Binding = k.binding(subject)
	default:
		return false
	}
	return true
}

// RollbackPlan is how the system itself goes back, in words for whoever has to do it by hand.
func RollbackPlan(s *procedure.State, r *procedure.Revision) string {
	return fmt.Sprintf("Restore tree %s (commit %s) on %s: epatch back-out after a failed apply, epatch roll-back after a verified one. By hand: bring the files of that commit to the host and have the agent report the tree.",
		r.BaseTree, r.BaseCommit, s.Host())
}

// Executor is the holder of the slot to deploy, empty if there is not exactly one.
func Executor(s *procedure.State) string {
	person, n := "", 0
	for _, sl := range s.Slots {
		if sl.Step == emergencyv1.ResponderStep_RESPONDER_STEP_EXECUTE && sl.Person != "" && sl.State != procedure.SlotOpen {
			person, n = sl.Person, n+1
		}
	}
	if n != 1 {
		return ""
	}
	return person
}

func (k Known) fillDeployment(cmd procedure.Command, subject string) bool {
	r := k.revision(subject)
	switch c := cmd.(type) {
	case *emergencyv1.DryRunRequest:
		c.Binding = k.binding(subject)
	case *emergencyv1.ConfirmObserverRequest:
		c.Binding, c.Kind = k.binding(subject), emergencyv1.ObserverKind_OBSERVER_KIND_BEFORE
		if r != nil {
			c.Executor = k.Observed(r)
			if a := k.State.ApplyOf(r.ID); a != nil {
				c.Kind = emergencyv1.ObserverKind_OBSERVER_KIND_AFTER
			}
		}
	case *emergencyv1.StartApplyRequest:
		c.Binding, c.Host = k.binding(subject), k.State.Host()
		if r != nil {
			c.Observer = k.Observer(r)
		}
	case *emergencyv1.ReportApplyRequest:
		c.Binding = k.binding(subject)
	case *emergencyv1.BackOutRequest:
		c.Binding = k.binding(subject)
		if r != nil {
			c.Reason = BackOutReason(k.State, r)
		}
	case *emergencyv1.RollBackRequest:
		c.Binding = k.binding(subject)
		if r != nil {
			c.Observer = k.SecondPair(r)
		}
	case *emergencyv1.RecordHealthRequest:
		c.Binding = k.binding(subject)
	case *emergencyv1.ExplainDriftRequest:
		k.drift(c, subject)
	default:
		return false
	}
	return true
}

// Observed is the executor of a revision's deployment, as far as it is known.
func (k Known) Observed(r *procedure.Revision) string {
	switch a := k.State.ApplyOf(r.ID); {
	case a != nil:
		return a.Executor
	case r.Forward != nil && r.Forward.To != k.Person:
		return r.Forward.To
	}
	return ""
}

// Observer is the latest one who confirmed to observe a revision's deployment, other than the person who deploys.
func (k Known) Observer(r *procedure.Revision) string {
	for i := len(k.State.Observers) - 1; i >= 0; i-- {
		o := k.State.Observers[i]
		if o.Revision == r.ID && !o.After && o.By != k.Person && k.Book.Has(o.By, emergencyv1.Role_ROLE_CRITICAL_ADMIN, k.Now) {
			return o.By
		}
	}
	return ""
}

// SecondPair is the other critical admin of the deployment, as seen by the one who acts now.
func (k Known) SecondPair(r *procedure.Revision) string {
	apply := k.State.ApplyOf(r.ID)
	switch {
	case apply == nil:
		return ""
	case apply.Observer == k.Person:
		return apply.Executor
	}
	return apply.Observer
}

// BackOutReason says what the history knows, so that nobody has to type while the host is half changed.
func BackOutReason(s *procedure.State, r *procedure.Revision) string {
	if apply := s.ApplyOf(r.ID); apply != nil {
		state := strings.ReplaceAll(strings.ToLower(string(apply.State)), "_", " ")
		return fmt.Sprintf("the deployment of %s on %s is %s (position %d)", r.ID, apply.Host, state, apply.Last)
	}
	return "the deployment of " + r.ID + " is to be taken back"
}

// drift finds the path by the beginning of its commitment.
func (k Known) drift(c *emergencyv1.ExplainDriftRequest, subject string) {
	if n := len(k.State.Revisions); n > 0 {
		c.BoundTo = k.State.Revisions[0].ID
	}
	if n := len(k.State.Replications); n > 0 && subject != "" {
		for _, p := range k.State.Replications[n-1].Paths {
			if strings.HasPrefix(p, subject) {
				c.PathCommitment = p
			}
		}
	}
}

func (k Known) fillArbitration(cmd procedure.Command, subject string) bool {
	switch c := cmd.(type) {
	case *emergencyv1.DocumentRequest:
		k.document(c, subject)
	case *emergencyv1.RecordBoardSummaryRequest:
		c.From, c.Until = month(k.State.Declared.At)
	case *emergencyv1.FileDisputeRequest:
		k.dispute(c, subject)
	case *emergencyv1.OpenCaseRequest:
		c.Dispute, c.CaseNumber = subject, subject
	case *emergencyv1.ProposeArbitratorRequest:
		c.Dispute = subject
	case *emergencyv1.RespondAppointmentRequest:
		c.Dispute = subject
	case *emergencyv1.CloseDeclinedRequest:
		c.Dispute = subject
	case *emergencyv1.RecordPreliminariesRequest:
		c.Dispute = subject
	case *emergencyv1.DeliverRulingRequest:
		k.ruling(c, subject)
	case *emergencyv1.PublishRulingRequest:
		c.Ruling = subject
	case *emergencyv1.ReportDirectionDoneRequest:
		c.Direction = subject
	case *emergencyv1.ConfirmDirectionRequest:
		c.Direction = subject
	case *emergencyv1.RequestReviewRequest:
		if c.Ruling = subject; subject == "" && len(k.State.Rulings) == 1 {
			c.Ruling = k.State.Rulings[0].ID
		}
	case *emergencyv1.FormAppealPanelRequest:
		c.Dispute = subject
	case *emergencyv1.RedactRequest:
		c.Event, c.Commitment = valueOf(subject)
	case *emergencyv1.DiscloseRequest:
		c.Event, c.Commitment = valueOf(subject)
	default:
		return false
	}
	return true
}

// ValueSubject is the subject of a command about one restricted value, as Fill reads it.
func ValueSubject(position uint64, commitment string) string {
	return strconv.FormatUint(position, 10) + " " + commitment
}

// valueOf reads a ValueSubject.
func valueOf(subject string) (event uint64, commitment string) {
	at, commitment, _ := strings.Cut(subject, " ")
	event, _ = strconv.ParseUint(at, 10, 64) // no number leaves it open
	return event, commitment
}

// document asks for a reason for every deviation.
func (k Known) document(c *emergencyv1.DocumentRequest, subject string) {
	n, err := strconv.ParseUint(strings.TrimPrefix(subject, "S"), 10, 32)
	if c.Strategy = uint32(n); err != nil {
		c.Strategy = ToDocument(k.State)
	}
	for _, d := range k.State.Deviations {
		c.Reasons = append(c.Reasons, &emergencyv1.DeviationReason{Position: d.Position, Deviation: d.Deviation})
	}
}

// ToDocument is the strategy that waits for its documentation: the one of the last change to the host, or else the present one.
func ToDocument(s *procedure.State) uint32 {
	if n := len(s.Applies); n > 0 {
		return s.Applies[n-1].Strategy
	}
	return s.Strategy
}

// month is the calendar month, in UTC, that a time is in.
func month(at time.Time) (from, until *timestamppb.Timestamp) {
	first := time.Date(at.UTC().Year(), at.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
	return timestamppb.New(first), timestamppb.New(first.AddDate(0, 1, 0))
}

// dispute is what the history says about a handling that has to be judged (DRP 1.4).
func (k Known) dispute(c *emergencyv1.FileDisputeRequest, debt string) {
	c.HeadHash = k.State.HeadHash
	owed := OwedDisputes(k.State)
	switch concern, known := concerns()[debt]; {
	case known:
		c.Concern = concern
	case len(owed) == 1:
		c.Concern = owed[0]
	case len(owed) == 0:
		c.Concern = emergencyv1.DisputeConcern(k.State.Strategy) // the first three are the strategies
	}
	k.Dispute(c)
}

// concerns are what the disputes are about that are owed.
func concerns() map[string]emergencyv1.DisputeConcern {
	return map[string]emergencyv1.DisputeConcern{
		"DISPUTE/S3": emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_3, "DISPUTE/S2": emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2,
		"DISPUTE/REFERRED": emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1,
	}
}

// OwedDisputes are what the disputes are about that are owed and not filed yet.
func OwedDisputes(s *procedure.State) []emergencyv1.DisputeConcern {
	var open []emergencyv1.DisputeConcern
	for _, o := range procedure.Debts(s) {
		if c := concerns()[o.Kind]; c != 0 && o.Open() && !slices.Contains(open, c) {
			open = append(open, c)
		}
	}
	return open
}

// Dispute fills in the four fields of DRP 1.4 where they are empty.
func (k Known) Dispute(c *emergencyv1.FileDisputeRequest) {
	if len(c.Claimants) == 0 {
		c.Claimants = []string{k.Person}
	}
	if len(c.Respondents) == 0 {
		c.Respondents = []string{"the emergency teams"}
	}
	if c.Complaint == "" {
		c.Complaint = complaint(k.State, c.Concern)
	}
	if c.Relief == "" {
		c.Relief = "review of the emergency process, with a finding on each deviation, and directions where they are needed"
	}
}

// complaint is the seed's own wording, with the deviations that a ruling has to judge.
func complaint(s *procedure.State, about emergencyv1.DisputeConcern) string {
	var b strings.Builder
	switch about {
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1, emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2, emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_3:
		fmt.Fprintf(&b, "emergency issue handling under option %d", int(about))
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_ACCESS:
		b.WriteString("remote access to a critical system in an emergency")
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER, emergencyv1.DisputeConcern_DISPUTE_CONCERN_REVIEW, emergencyv1.DisputeConcern_DISPUTE_CONCERN_UNSPECIFIED:
		b.WriteString("emergency issue handling")
	}
	fmt.Fprintf(&b, " (incident %s on %s)", s.Incident, s.Declared.System)
	if len(s.Deviations) == 0 {
		b.WriteString("\nno deviation is recorded")
	}
	for _, d := range s.Deviations {
		fmt.Fprintf(&b, "\ndeviation at position %d: %s", d.Position, strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(d.Deviation.String(), "DEVIATION_")), "_", "-"))
	}
	return b.String()
}

// ruling asks for a finding on every deviation that is attached.
func (k Known) ruling(c *emergencyv1.DeliverRulingRequest, subject string) {
	c.Dispute, c.EvidenceRoot = subject, k.State.HeadHash
	if d, ok := k.State.Dispute(subject); ok {
		for _, x := range d.Deviations {
			c.Judgements = append(c.Judgements, &emergencyv1.Judgement{Position: x.Position, Deviation: x.Deviation})
		}
	}
}

// fillConsole fills in the grant; what opens one names the person whose access was permitted last.
func (k Known) fillConsole(cmd procedure.Command, subject string) {
	if c, ok := cmd.(*emergencyv1.GrantAccessRequest); ok {
		if n := len(k.State.Permissions); n > 0 {
			c.Subject = k.State.Permissions[n-1].Subject
		}
		return
	}
	m := cmd.ProtoReflect()
	if fd := m.Descriptor().Fields().ByName("grant"); fd != nil && fd.Message() == nil {
		m.Set(fd, protoreflect.ValueOfString(subject))
	}
}
