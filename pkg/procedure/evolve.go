// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// NewState returns the state of an incident without a history.
func NewState(incident string) *State { return &State{Incident: incident} }

// Evolve returns the state after one more record and leaves the given one as it was.
func Evolve(s *State, rec *emergencyv1.Record, hash string) (*State, error) {
	n := s.Clone()
	if err := n.Apply(rec, hash); err != nil {
		return nil, err
	}
	return n, nil
}

// Apply folds one record into the state, in place. The caller has verified the record's chain and signature. An event
// that this version does not understand is an error, and the state must then be thrown away.
func (s *State) Apply(rec *emergencyv1.Record, hash string) error {
	events, err := DecodeRecord(rec)
	if err != nil {
		return err
	}
	return s.ApplyDecoded(rec, events, hash)
}

// ApplyDecoded is Apply for a record whose events were decoded before, by DecodeRecord: whoever folds a record into several things
// decodes it once.
func (s *State) ApplyDecoded(rec *emergencyv1.Record, events []Event, hash string) error {
	if rec.GetFirstPosition() != s.Position+1 {
		return fmt.Errorf("record of %s starts at position %d, the state stands at %d", rec.GetIncident(), rec.GetFirstPosition(), s.Position)
	}
	at := rec.GetRecordedAt().AsTime()
	types, under := make([]string, 0, len(events)), s.Strategy
	for _, e := range events {
		s.Position++
		for _, d := range e.Deviations {
			s.Deviations = append(s.Deviations, DeviationAt{s.Position, d})
		}
		if err := s.apply(fact{rec: rec, at: at, pos: s.Position}, e.Payload); err != nil {
			return fmt.Errorf("%s/%d %s: %w", rec.GetIncident(), s.Position, e.Type, err)
		}
		s.noteForArbitration(fact{rec: rec, at: at, pos: s.Position}, e.Type, e.Payload, under)
		types = append(types, e.Type)
	}
	s.Heads = append(s.Heads, RecordHead{s.Position, hash})
	if s.SlotsFilled.Position == 0 && s.Status == Open && len(s.Slots) > 0 && !slices.ContainsFunc(s.Slots, func(sl Slot) bool { return sl.State == SlotOpen }) {
		s.SlotsFilled = Mark{Position: s.Position, At: at}
	}
	s.RecordedAt, s.HeadHash = at, hash
	s.noteLate(rec)
	s.remember(rec, types, hash)
	return nil
}

// remember keeps the request id (G3) and who acted (X14).
func (s *State) remember(rec *emergencyv1.Record, types []string, hash string) {
	if len(types) == 1 && strings.HasSuffix(types[0], "."+refusedName) {
		return // a refused command may be sent again under the same id
	}
	if s.Requests == nil {
		s.Requests = map[RequestKey]Result{}
	}
	a := rec.GetActor()
	s.Requests[requestKey(a, rec.GetCommand(), rec.GetRequestId())] = Result{
		Digest: rec.GetRequestDigest(), First: rec.GetFirstPosition(), Last: s.Position, Types: types, RecordedAt: s.RecordedAt, Hash: hash,
	}
	if p := a.GetPerson(); p != "" && !slices.Contains(s.Acted, p) {
		s.Acted = append(s.Acted, p)
		sort.Strings(s.Acted)
	}
}

func requestKey(a *emergencyv1.Actor, command, id string) RequestKey {
	who := a.GetPerson()
	if who == "" {
		who = a.GetSystem().String() + "/" + a.GetSystemName()
	}
	return RequestKey{who, command, id}
}

// fact is where an event stands.
type fact struct {
	rec *emergencyv1.Record
	at  time.Time
	pos uint64
}

func (f fact) mark(by, revision, result string) Mark { return Mark{f.pos, f.at, by, revision, result} }

// who names the person who acted, or the system.
func (f fact) who() string {
	if p := f.rec.GetActor().GetPerson(); p != "" {
		return p
	}
	return f.rec.GetActor().GetSystemName()
}

// apply is the one switch over all events of an incident's history.
func (s *State) apply(f fact, payload proto.Message) error {
	if _, declares := payload.(*emergencyv1.EmergencyDeclared); declares != (s.Status == Absent) && IsIncident(s.Incident) {
		return fmt.Errorf("an incident's history begins with its declaration and has one")
	}
	switch e := payload.(type) {
	case *emergencyv1.EmergencyDeclared:
		return s.applyDeclared(f, e)
	case *emergencyv1.DuplicateAbsorbed:
		s.Notes = append(s.Notes, f.mark(f.who(), "", e.GetSource()))
	case *emergencyv1.IncidentMerged:
		s.Status, s.MergedInto, s.EndedAt = Merged, e.GetTarget(), f.at
		s.endSlots()
	case *emergencyv1.IncidentStoodDown:
		s.Status, s.EndedAt = StoodDown, f.at
		s.endSlots()
	case *emergencyv1.StrategyEscalated:
		s.applyEscalated(f, e)
	case *emergencyv1.StrategyDeEscalated:
		s.applyDeEscalated(f, e)
	case *emergencyv1.JointDeclarationSigned:
		s.applyJoint(f, e)
	case *emergencyv1.ControlWaived:
		s.Waivers = append(s.Waivers, Waiver{f.mark(f.who(), e.GetBinding().GetRevision(), ""), e.GetControl()})
		s.noteTested(f, e.GetBinding().GetRevision())
	case *emergencyv1.LeadDecisionRecorded:
		s.applyLead(f, e)
	case *emergencyv1.LogAnnotated:
		s.Notes = append(s.Notes, f.mark(f.who(), "", e.GetText()))
	case *emergencyv1.LateRecordConfirmed:
		s.applyLateConfirmed(f, e)
	case *emergencyv1.DeadlineWarned:
		s.Warned = append(s.Warned, Warned{e.GetDeadline(), e.GetPercent()})
	case *emergencyv1.DeadlineBreached:
		s.Breached = append(s.Breached, e.GetDeadline())
	case *emergencyv1.IncidentClosed:
		s.Status, s.Outcome, s.EndedAt = Closed, e.GetOutcome(), f.at
		s.endSlots()

	case *emergencyv1.CallOutIssued:
		s.Rounds = append(s.Rounds, Round{e.GetRound(), f.pos, f.at, slices.Clone(e.GetTeams()), slices.Clone(e.GetChannels()), false, f.who()})
		s.addPages(f, e.GetRound(), e.GetPages())
	case *emergencyv1.RePaged:
		s.Rounds = append(s.Rounds, Round{e.GetRound(), f.pos, f.at, nil, nil, e.GetFallback(), f.who()})
		s.addPages(f, e.GetRound(), e.GetPages())
	case *emergencyv1.DeliveryReported:
		s.applyDelivery(e)
	case *emergencyv1.CoverageGapFound:
		s.Gaps = append(s.Gaps, Gap{e.GetTeam(), f.pos, f.at})
	case *emergencyv1.ResponderAccepted:
		s.applyAccepted(f, e)
	case *emergencyv1.ResponderDeclined:
		s.Declined = append(s.Declined, Declined{e.GetTeam(), e.GetPerson(), f.pos})
		s.openSlot(f, e.GetSlot())
	case *emergencyv1.ResponderHandedOver:
		if sl, ok := s.Slot(e.GetSlot()); ok {
			sl.HandoverTo, sl.HandoverContact = e.GetTo(), e.GetContactPath().GetCommitment()
		}
	case *emergencyv1.StandbyStarted:
		s.applyStandby(f, e.GetSlot(), e.GetPerson())
	case *emergencyv1.StandbyCheckedIn:
		s.applyStandby(f, e.GetSlot(), e.GetPerson())
	case *emergencyv1.AckExpired:
		s.openSlot(f, e.GetSlot())
	case *emergencyv1.StandbyMissed:
		s.Notes = append(s.Notes, f.mark(e.GetPerson(), "", e.GetSlot()))
	case *emergencyv1.SlotReopened:
		s.openSlot(f, e.GetSlot())
	case *emergencyv1.StandbyEnded:
		if e.GetReason() == emergencyv1.StandbyEndReason_STANDBY_END_REASON_RELEASED {
			s.openSlot(f, e.GetSlot())
		} else if sl, ok := s.Slot(e.GetSlot()); ok {
			sl.State, sl.Since = SlotEnded, f.at
		}

	case *emergencyv1.PatchRegistered:
		s.applyRegistered(f, e)
	case *emergencyv1.PatchSuperseded:
		if r, ok := s.Revision(e.GetOldRevision()); ok {
			r.Superseded = e.GetNewRevision()
		}
		s.Waivers = slices.DeleteFunc(s.Waivers, func(w Waiver) bool { return w.Revision == e.GetOldRevision() })
	case *emergencyv1.FirstReviewRecorded:
		if r, c := s.checks(e.GetBinding(), e.GetPhase()); c != nil {
			c.First = &Review{f.mark(e.GetReviewer(), r.ID, verdictWord(e.GetVerdict())), e.GetVerdict()}
		}
	case *emergencyv1.SecondReviewRecorded:
		if r, c := s.checks(e.GetBinding(), e.GetPhase()); c != nil {
			c.Second = &Review{f.mark(e.GetReviewer(), r.ID, verdictWord(e.GetVerdict())), e.GetVerdict()}
		}
	case *emergencyv1.PatchTransferred:
		if r, c := s.checks(e.GetBinding(), s.phaseOf(e.GetBinding())); c != nil {
			t := &Transfer{f.mark(f.who(), r.ID, e.GetCommit()), e.GetCommit(), e.GetCommitTree(), e.GetRef(), f.at}
			if c.Transfer != nil {
				t.FirstAt = c.Transfer.FirstAt
			}
			c.Transfer = t
		}
	case *emergencyv1.TestServerConfirmed:
		if r, c := s.checks(e.GetBinding(), s.phaseOf(e.GetBinding())); c != nil {
			c.TestServer = &TestServer{f.mark(f.who(), r.ID, e.GetTree()), e.GetTree(), e.GetEnvironment()}
		}
	case *emergencyv1.TestReported:
		s.applyTest(f, e)
	case *emergencyv1.VetoRaised:
		s.noteFailure(f, "veto", e.GetBinding().GetRevision())
		s.Vetoes = append(s.Vetoes, Veto{
			ID: e.GetVeto(), Revision: e.GetBinding().GetRevision(), By: e.GetRaisedBy(), State: VetoOpen,
			AfterApply: e.GetAfterApplyStarted(), Position: f.pos, At: f.at,
		})
	case *emergencyv1.VetoWithdrawn:
		s.endVeto(f, e.GetVeto(), VetoWithdrawn)
	case *emergencyv1.VetoOverruled:
		s.endVeto(f, e.GetVeto(), VetoOverruled)
	case *emergencyv1.PatchForwarded:
		if r, ok := s.Revision(e.GetBinding().GetRevision()); ok {
			t := &Forward{f.mark(f.who(), r.ID, e.GetTo()), e.GetTo(), e.GetLocalTest() != nil, s.Strategy == 1, f.at}
			if r.Forward != nil {
				t.Complete, t.FirstAt = t.Complete || r.Forward.Complete, r.Forward.FirstAt
			}
			r.Forward = t
			s.fillPreparer(f)
		}

	case *emergencyv1.UpdateCycleEntered:
		s.applyEntered(f, e)
	case *emergencyv1.UpdateCycleConcluded:
		s.applyConcluded(f, e)

	case *emergencyv1.DryRunRecorded:
		s.DryRuns = append(s.DryRuns, DryRun{f.mark(f.who(), e.GetBinding().GetRevision(), ""), e.GetHost(), e.GetHostTree(), e.GetClean()})
	case *emergencyv1.ObserverConfirmed:
		after := e.GetKind() == emergencyv1.ObserverKind_OBSERVER_KIND_AFTER
		s.Observers = append(s.Observers, Observer{f.mark(e.GetObserver(), e.GetBinding().GetRevision(), e.GetHostTree()), after, ""})
	case *emergencyv1.ApplyStarted:
		s.Applies = append(s.Applies, Apply{
			Revision: e.GetBinding().GetRevision(), Host: e.GetHost(), Executor: e.GetExecutor(), Observer: e.GetObserver(),
			NoObserverSaid: e.GetNoObserverReason() != nil, Strategy: s.Strategy, ByHand: e.GetByHand(), State: Applying, Position: f.pos, StartedAt: f.at, Last: f.pos,
			TestsWaived: s.Strategy == 1 && s.testsMissing(e.GetBinding().GetRevision()),
		})
	case *emergencyv1.PatchApplied:
		s.moveApply(f, e.GetBinding(), Applied, func(a *Apply) { a.Applied = f.mark(f.who(), a.Revision, "") })
	case *emergencyv1.PatchApplyFailed:
		s.noteFailure(f, "apply", e.GetBinding().GetRevision())
		s.moveApply(f, e.GetBinding(), ApplyFailed, nil)
	case *emergencyv1.DeployVerified:
		s.moveApply(f, e.GetBinding(), Verified, func(a *Apply) { a.Verified = f.mark(f.who(), a.Revision, ""); a.trees(e.GetReport()) })
	case *emergencyv1.DeployMismatch:
		s.noteFailure(f, "mismatch", e.GetBinding().GetRevision())
		s.moveApply(f, e.GetBinding(), Mismatch, func(a *Apply) { a.Mismatch = f.mark(f.who(), a.Revision, ""); a.trees(e.GetReport()) })
	case *emergencyv1.BackOutStarted:
		s.moveApply(f, e.GetBinding(), BackingOut, nil)
	case *emergencyv1.PatchBackedOut:
		s.moveApply(f, e.GetBinding(), BackedOut, func(a *Apply) { a.Ended = f.mark(f.who(), a.Revision, ""); a.HostTree = e.GetReport().GetPostTree() })
	case *emergencyv1.BackOutUnproven:
		s.moveApply(f, e.GetBinding(), BackOutUnproven, func(a *Apply) { a.unproven(f); a.HostTree = e.GetReport().GetPostTree() })
	case *emergencyv1.RollBackStarted:
		s.moveApply(f, e.GetBinding(), RollingBack, nil)
	case *emergencyv1.RolledBack:
		s.moveApply(f, e.GetBinding(), RolledBack, func(a *Apply) { a.Ended = f.mark(f.who(), a.Revision, ""); a.HostTree = e.GetReport().GetPostTree() })
	case *emergencyv1.HealthRecorded:
		s.Health = append(s.Health, f.mark(f.who(), e.GetBinding().GetRevision(), e.GetResult().String()))
	case *emergencyv1.ReplicationPushed:
		s.Pushes = append(s.Pushes, f.mark(f.who(), "", e.GetCommit()))
	case *emergencyv1.ReplicationChecked:
		s.applyReplication(f, e)
	case *emergencyv1.DriftExplained:
		for i := range s.Drift {
			if s.Drift[i].Commitment == e.GetPathCommitment() {
				s.Drift[i].Explained = f.mark(f.who(), "", e.GetBoundTo())
			}
		}

	case *emergencyv1.ProcedureDocumented:
		s.Documented = append(s.Documented, DocumentRecord{f.mark(f.who(), "", ""), e.GetStrategy()})
	case *emergencyv1.BoardSummaryRecorded:
		s.BoardReports = append(s.BoardReports, BoardReport{f.mark(f.who(), "", e.GetBoardReference()), e.GetFrom().AsTime(), e.GetUntil().AsTime()})
	case *emergencyv1.ObligationOpened, *emergencyv1.ObligationDueChanged, *emergencyv1.ObligationDischarged,
		*emergencyv1.ObligationOverdue, *emergencyv1.ObligationEscalated:
		s.applyObligation(f, payload)
	case *emergencyv1.CommandRefused:
		// no effect on the procedure (procedure.md 4.0)
	case *emergencyv1.PersonListed, *emergencyv1.PolicyPublished, *emergencyv1.RoleGranted, *emergencyv1.RoleRevoked,
		*emergencyv1.KeyAdded, *emergencyv1.KeyRevoked, *emergencyv1.RotaChanged, *emergencyv1.ContactsChanged, *emergencyv1.ReachabilityRecorded:
		if s.Incident != RuleBook { // folded by package rulebook; here only position, time and request ids count
			return fmt.Errorf("event %T belongs to the rule book", payload)
		}
	case *emergencyv1.MessageArchived:
		if s.Incident != Archive {
			return fmt.Errorf("event %T belongs to the archive", payload)
		}
		s.applyArchived(f, e)
	default:
		if s.applyConsole(f, payload) {
			return nil
		}
		return s.applyArbitration(f, payload)
	}
	return nil
}

func (s *State) applyDeclared(f fact, e *emergencyv1.EmergencyDeclared) error {
	policy, err := rulebook.ParsePolicy(e.GetPolicy())
	if err != nil {
		return fmt.Errorf("pinned policy: %w", err)
	}
	s.Status, s.Strategy, s.Policy = Open, 1, policy
	s.Declared = Declaration{
		At: f.at, By: f.who(), ByRole: f.rec.GetActor().GetRole(), System: e.GetSystem(), Severity: e.GetSeverity(),
		ReasonClass: e.GetReasonClass(), Drill: e.GetDrill(), Component: e.GetComponent().GetCommitment(),
		Symptom: e.GetSymptom().GetCommitment(), Reason: e.GetReason().GetCommitment(), Duplicates: slices.Clone(e.GetPossibleDuplicates()),
	}
	s.Slots = slotsOf(policy, 1, f.at)
	return nil
}

func (s *State) endSlots() {
	for i := range s.Slots {
		s.Slots[i].State = SlotEnded
	}
}

func (s *State) applyRegistered(f fact, e *emergencyv1.PatchRegistered) {
	id := e.GetBinding().GetRevision()
	patch, _, _ := strings.Cut(id, "r")
	s.Revisions = append(s.Revisions, Revision{
		ID: id, Patch: patch, Binding: e.GetBinding().GetDigest(), Artefact: e.GetPatch(), BaseCommit: e.GetBaseCommit(),
		BaseTree: e.GetBaseTree(), ResultTree: e.GetResultTree(), Author: e.GetAuthor(), BugID: e.GetBugId(), Origin: e.GetOrigin(),
		By: f.who(), Position: f.pos, At: f.at,
	})
	for i := range s.Slots { // a preparer slot counts as filled when a revision is registered (procedure.md 3.1)
		if sl := &s.Slots[i]; sl.Team == emergencyv1.Team_TEAM_DEVELOPMENT && sl.State != SlotEnded {
			sl.State, sl.Person, sl.Since = SlotEnded, f.who(), f.at
		}
	}
}

func (s *State) applyTest(f fact, e *emergencyv1.TestReported) {
	r, c := s.checks(e.GetBinding(), e.GetPhase())
	if c == nil {
		return
	}
	if e.GetResult() == emergencyv1.TestResult_TEST_RESULT_FAIL {
		s.noteFailure(f, "test", e.GetBinding().GetRevision())
	}
	t := Test{f.mark(e.GetTester(), r.ID, resultWord(e.GetResult())), e.GetResult() == emergencyv1.TestResult_TEST_RESULT_PASS, e.GetBugNote()}
	c.Tests = slices.DeleteFunc(c.Tests, func(o Test) bool { return o.By == t.By }) // X9: replaces, never adds
	c.Tests = append(c.Tests, t)
	s.noteTested(f, r.ID)
	if a := s.ApplyOf(r.ID); a != nil && a.TestsWaived && a.TestsDone.Position == 0 && len(r.passing()) >= s.Policy.Count("test.quorum") {
		a.TestsDone = t.Mark
	}
}

// noteTested keeps when a revision had its tests for the first time.
func (s *State) noteTested(f fact, revision string) {
	r, ok := s.Revision(revision)
	if !ok || s.Policy == nil || !r.TestedAt.IsZero() {
		return
	}
	if !s.testedAt(r).IsZero() {
		r.TestedAt = f.at
	}
}

// testsMissing tells whether a revision has fewer passing tests than the quorum.
func (s *State) testsMissing(revision string) bool {
	r, ok := s.Revision(revision)
	return ok && s.Policy != nil && passes(r) < s.Policy.Count("test.quorum")
}

// applyLead keeps the latest decision, and the first ones: what was owed is discharged, or owed, from then on.
func (s *State) applyLead(f fact, e *emergencyv1.LeadDecisionRecorded) {
	n := &LeadRecord{f.mark(f.who(), "", e.GetDecision().String()), e.GetDecision(), e.GetReferred(), Mark{}, Mark{}}
	if e.GetDecision() == emergencyv1.LeadDecision_LEAD_DECISION_NO_EFFECT {
		s.NoEffects = append(s.NoEffects, NoEffect{n.Mark, max(1, e.GetStrategy())})
	}
	n.First = n.Mark
	if s.Lead != nil {
		n.First, n.FirstReferred = s.Lead.First, s.Lead.FirstReferred
	}
	if n.Referred && n.FirstReferred.Position == 0 {
		n.FirstReferred = n.Mark
	}
	s.Lead = n
}

func (s *State) endVeto(f fact, id string, to VetoState) {
	for i := range s.Vetoes {
		if s.Vetoes[i].ID == id {
			s.Vetoes[i].State, s.Vetoes[i].Ended = to, f.mark(f.who(), s.Vetoes[i].Revision, "")
		}
	}
}

func (s *State) moveApply(f fact, b *emergencyv1.Binding, to ApplyState, more func(*Apply)) {
	a := s.ApplyOf(b.GetRevision())
	if a == nil {
		return
	}
	a.State, a.Last = to, f.pos
	if more != nil {
		more(a)
	}
}

// unproven keeps the first finding: what is owed for it runs from then, however often it is tried again.
func (a *Apply) unproven(f fact) {
	if a.Unproven.Position == 0 {
		a.Unproven = f.mark(f.who(), a.Revision, "")
	}
}

func (a *Apply) trees(r *emergencyv1.TreeReport) {
	a.PreTree, a.HostTree = r.GetPreTree(), r.GetPostTree()
}

func (s *State) applyReplication(f fact, e *emergencyv1.ReplicationChecked) {
	r := Replication{Mark: f.mark(f.who(), "", e.GetBranchCommit()), Kind: e.GetResult()}
	for _, p := range e.GetDriftPaths() {
		r.Paths = append(r.Paths, p.GetCommitment())
	}
	s.Replications = append(s.Replications, r)
	for _, p := range r.Paths {
		s.Drift = append(s.Drift, DriftPath{Commitment: p, Found: r.Mark})
	}
}

func verdictWord(v emergencyv1.ReviewVerdict) string {
	return strings.ToLower(strings.TrimPrefix(v.String(), "REVIEW_VERDICT_"))
}

func resultWord(r emergencyv1.TestResult) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "TEST_RESULT_"))
}
