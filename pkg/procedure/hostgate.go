// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// What a reader checks who believes no service: the agent on a host before it touches a file, and the verifier. The chain and
// the owners' signatures are checked by package history; here it is the people's.

// VerifyRecord checks that a record could have been decided as its actor's act: the role was held, and where the command
// needs the person's own signature, it is there and says exactly what the events say. s is the state before the record,
// book the rule book as it is now, which knows keys and roles as they were at the record's time.
func VerifyRecord(s *State, rec *emergencyv1.Record, book *rulebook.Book) error {
	row, ok := rowByName(rec.GetCommand())
	if !ok {
		return fmt.Errorf("command %q is not known", rec.GetCommand())
	}
	if row.owner != "" && row.owner != rec.GetOwner() {
		return fmt.Errorf("command %s belongs to %s, not to %s", row.name, row.owner, rec.GetOwner())
	}
	payloads, err := decodeAll(rec)
	if err != nil {
		return err
	}
	if len(payloads) == 1 {
		if _, refused := payloads[0].(*emergencyv1.CommandRefused); refused {
			return verifyRefused(rec, book)
		}
	}
	if err := verifyActor(row, rec, book); err != nil {
		return err
	}
	for i, p := range payloads {
		if err := s.verifyConsole(rec, i, p, book); err != nil {
			return err
		}
		if commands := signedFor(p); len(commands) > 0 && !slices.Contains(commands, row.name) {
			return fmt.Errorf("%T is recorded under %s, which nobody signs for it", p, row.name)
		}
		if named := personIn(p); named != "" && named != rec.GetActor().GetPerson() {
			return fmt.Errorf("%s by %s is recorded as %s's", row.name, rec.GetActor().GetPerson(), named)
		}
	}
	if err := s.verifyStrategy(rec, payloads); err != nil {
		return err
	}
	if !signatureCounts(row, rec) {
		return nil
	}
	return verifySigned(s, row, rec, payloads, book)
}

// SignatureCounts tells whether a record is of a kind whose signature VerifyRecord asks for and verifies. An approval beside any
// other record, as earlier versions kept it, proves nothing.
func SignatureCounts(rec *emergencyv1.Record) bool {
	row, ok := rowByName(rec.GetCommand())
	return ok && signatureCounts(row, rec)
}

func signatureCounts(row *commandRow, rec *emergencyv1.Record) bool {
	refused := len(rec.GetEvents()) == 1 && strings.HasSuffix(rec.GetEvents()[0].GetType(), "."+refusedName)
	return Forwarded(rec.GetActor()) || !refused && (row.signed || rec.GetLate())
}

func rowByName(name string) (*commandRow, bool) {
	for _, row := range commandIndex {
		if row.name == name {
			return row, true
		}
	}
	return nil, false
}

func decodeAll(rec *emergencyv1.Record) ([]proto.Message, error) {
	var list []proto.Message
	for _, e := range rec.GetEvents() {
		m, err := DecodeEvent(e)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// verifyActor checks the matrix at the time of the record.
func verifyActor(row *commandRow, rec *emergencyv1.Record, book *rulebook.Book) error {
	a := rec.GetActor()
	at := rec.GetRecordedAt().AsTime()
	if row.through != 0 && a.GetSystem() != row.through {
		return fmt.Errorf("%s is given by %s alone", row.name, row.through)
	}
	if a.GetPerson() == "" || a.GetSystem() == consoleGateway && row.through == 0 {
		if slices.Contains(row.systems, a.GetSystem()) {
			return nil
		}
		return fmt.Errorf("%s may not be given by %s", row.name, a.GetSystem())
	}
	if !slices.Contains(row.roles, a.GetRole()) || !book.Has(a.GetPerson(), a.GetRole(), at) {
		return fmt.Errorf("%s did not hold the role of %s at %s, which %s needs", a.GetPerson(), roleWord(a.GetRole()), stamp(at), row.name)
	}
	return nil
}

// signedBy verifies the signature of a record's person and returns what was signed.
func signedBy(rec *emergencyv1.Record, book *rulebook.Book) (*emergencyv1.Statement, error) {
	a, at := rec.GetApproval(), rec.GetRecordedAt().AsTime()
	if a == nil {
		return nil, fmt.Errorf("%s by %s has no signature of that person", rec.GetCommand(), rec.GetActor().GetPerson())
	}
	entry, ok := book.Key(a.GetKeyId())
	if !ok || entry.Key.GetPerson() != rec.GetActor().GetPerson() {
		return nil, fmt.Errorf("%s is signed by key %s, which is none of %s's", rec.GetCommand(), short(a.GetKeyId()), rec.GetActor().GetPerson())
	}
	if !entry.RevokedAt.IsZero() && !at.Before(entry.RevokedAt) {
		return nil, fmt.Errorf("%s is signed by key %s, which was revoked at %s", rec.GetCommand(), short(a.GetKeyId()), stamp(entry.RevokedAt))
	}
	st, err := OpenApproval(a, entry.Key)
	if err != nil {
		return nil, fmt.Errorf("%s by %s: %w", rec.GetCommand(), rec.GetActor().GetPerson(), err)
	}
	return st, nil
}

// verifySigned checks the person's signature and compares the statement with what was recorded.
func verifySigned(s *State, row *commandRow, rec *emergencyv1.Record, payloads []proto.Message, book *rulebook.Book) error {
	st, err := signedBy(rec, book)
	if err != nil {
		return err
	}
	if st.GetRole() != rec.GetActor().GetRole() {
		return fmt.Errorf("%s was signed as %s and recorded as %s", row.name, roleWord(st.GetRole()), roleWord(rec.GetActor().GetRole()))
	}
	want := &emergencyv1.Statement{
		Incident: rec.GetIncident(), Command: row.name, Person: rec.GetActor().GetPerson(), RequestId: rec.GetRequestId(), Claims: st.GetClaims(),
	}
	if s.Policy != nil {
		want.PolicyDigest = s.Policy.Digest
	}
	for _, p := range payloads {
		if err := s.expectFrom(want, p, st); err != nil {
			return fmt.Errorf("%s by %s: %w", row.name, want.Person, err)
		}
	}
	if row.archive {
		expectImport(want, payloads, Forwarded(rec.GetActor()))
	}
	if row.creates {
		want.Incident = ""
	}
	if Forwarded(rec.GetActor()) {
		if err := verifyForwarded(s, row, rec, st, book); err != nil {
			return fmt.Errorf("%s by %s: %w", row.name, want.Person, err)
		}
	}
	if rec.GetLate() {
		if err := verifyCaptured(rec, want, st); err != nil {
			return fmt.Errorf("%s by %s: %w", row.name, want.Person, err)
		}
	}
	if diff := statementDiff(want, st); diff != "" {
		return fmt.Errorf("%s by %s was signed for another %s than was recorded", row.name, want.Person, diff)
	}
	return nil
}

// expectFrom fills in what an event says the person must have signed, and compares the claims that the event repeats.
func (s *State) expectFrom(want *emergencyv1.Statement, payload proto.Message, got *emergencyv1.Statement) error {
	is := func(name, value string) error {
		for _, c := range got.GetClaims() {
			if c.GetName() == name {
				if c.GetValue() == value {
					return nil
				}
				return fmt.Errorf("%s was signed as %q and recorded as %q", name, c.GetValue(), value)
			}
		}
		return fmt.Errorf("the signature says nothing of %s", name)
	}
	// either the value that was signed, or left to the system by signing an empty one
	isOrEmpty := func(name, value string) error {
		if is(name, "") == nil {
			return nil
		}
		return is(name, value)
	}
	switch e := payload.(type) {
	case *emergencyv1.StrategyEscalated, *emergencyv1.JointDeclarationSigned:
		return expectStrategy(payload, got, is)
	case *emergencyv1.ControlWaived:
		s.bindRevision(want, e.GetBinding())
		return is("control", e.GetControl().String())
	case *emergencyv1.PatchRegistered:
		want.Binding, want.PatchSha256, want.BaseTree, want.ResultTree = e.GetBinding(), e.GetPatch().GetSha256(), e.GetBaseTree(), e.GetResultTree()
		if b := BindingDigest(want.Incident, e.GetBinding().GetRevision(), want.PatchSha256, want.BaseTree, want.ResultTree, want.PolicyDigest); b != e.GetBinding().GetDigest() {
			return fmt.Errorf("the binding of %s is not that of its bytes", e.GetBinding().GetRevision())
		}
		return isOrEmpty("author", e.GetAuthor())
	case *emergencyv1.FirstReviewRecorded:
		s.bindRevision(want, e.GetBinding())
		return is("verdict", verdictWord(e.GetVerdict()))
	case *emergencyv1.SecondReviewRecorded:
		s.bindRevision(want, e.GetBinding())
		return is("verdict", verdictWord(e.GetVerdict()))
	case *emergencyv1.TestReported:
		s.bindRevision(want, e.GetBinding())
		return is("verdict", resultWord(e.GetResult()))
	case *emergencyv1.VetoRaised:
		s.bindRevision(want, e.GetBinding())
		return is("verdict", "veto")
	case *emergencyv1.VetoWithdrawn:
		for _, v := range s.Vetoes {
			if v.ID == e.GetVeto() && v.By != want.Person {
				return fmt.Errorf("veto %s was raised by %s", v.ID, v.By)
			}
		}
		s.bindVeto(want, e.GetVeto())
		return is("veto", e.GetVeto())
	case *emergencyv1.VetoOverruled:
		s.bindVeto(want, e.GetVeto())
		return is("veto", e.GetVeto())
	case *emergencyv1.PatchForwarded:
		s.bindRevision(want, e.GetBinding())
		if err := said(got, "local_test", e.GetLocalTest()); err != nil {
			return err
		}
		if is("to", "") == nil && e.GetTo() != s.executor() {
			return fmt.Errorf("to whom was left to the slots, which say %q, and is recorded as %q", s.executor(), e.GetTo())
		}
		return isOrEmpty("to", e.GetTo())
	case *emergencyv1.ApplyStarted:
		s.bindRevision(want, e.GetBinding())
		by := "agent"
		if e.GetByHand() {
			by = "hand"
		}
		for _, err := range []error{isOrEmpty("host", e.GetHost()), is("applied_by", by), said(got, "no_observer_reason", e.GetNoObserverReason())} {
			if err != nil {
				return err
			}
		}
		return isOrEmpty("observer", e.GetObserver())
	case *emergencyv1.RollBackStarted:
		s.bindRevision(want, e.GetBinding())
		return is("observer", e.GetObserver())
	case *emergencyv1.RulingDelivered, *emergencyv1.ReviewRuled, *emergencyv1.FieldRedacted:
		return expectFromArbitration(payload, is, isOrEmpty)
	case *emergencyv1.PolicyPublished:
		return is("policy", "sha256:"+KeyID(e.GetPolicy()))
	case *emergencyv1.MessageArchived:
		return is("list", e.GetList()) // the messages are compared together, by expectImport
	}
	return expectConsole(payload, is, isOrEmpty)
}

// signedFor lists the commands under which an event may be recorded, for events that count only with a person's signature:
// under any other command nobody would have signed it. Empty for all other events.
func signedFor(payload proto.Message) []string {
	switch payload.(type) {
	case *emergencyv1.StrategyEscalated:
		return []string{"Escalate", "SignJointDeclaration"}
	case *emergencyv1.JointDeclarationSigned:
		return []string{"SignJointDeclaration"}
	case *emergencyv1.ControlWaived:
		return []string{"WaiveControl"}
	case *emergencyv1.PatchRegistered, *emergencyv1.PatchSuperseded:
		return []string{"RegisterPatch"}
	case *emergencyv1.FirstReviewRecorded:
		return []string{"RecordFirstReview"}
	case *emergencyv1.SecondReviewRecorded:
		return []string{"RecordSecondReview"}
	case *emergencyv1.TestReported:
		return []string{"ReportTest"}
	case *emergencyv1.VetoRaised:
		return []string{"RaiseVeto", "RecordFirstReview", "RecordSecondReview"}
	case *emergencyv1.VetoWithdrawn:
		return []string{"WithdrawVeto"}
	case *emergencyv1.VetoOverruled:
		return []string{"OverruleVeto"}
	case *emergencyv1.PatchForwarded:
		return []string{"Forward"}
	case *emergencyv1.ApplyStarted:
		return []string{"StartApply"}
	case *emergencyv1.RollBackStarted:
		return []string{"RollBack"}
	case *emergencyv1.RulingDelivered, *emergencyv1.ReviewRuled:
		return []string{"DeliverRuling"}
	case *emergencyv1.FieldRedacted:
		return []string{"Redact"}
	case *emergencyv1.PolicyPublished:
		return []string{"PublishPolicy", "Establish"}
	case *emergencyv1.MessageArchived:
		return []string{"ImportArchive"}
	}
	return underCommand(payload)
}

// personIn is the person whom an event names as the one who did it; the state believes it.
func personIn(payload proto.Message) string {
	switch e := payload.(type) {
	case *emergencyv1.JointDeclarationSigned:
		return e.GetPerson()
	case *emergencyv1.FirstReviewRecorded:
		return e.GetReviewer()
	case *emergencyv1.SecondReviewRecorded:
		return e.GetReviewer()
	case *emergencyv1.TestReported:
		return e.GetTester()
	case *emergencyv1.VetoRaised:
		return e.GetRaisedBy()
	case *emergencyv1.ApplyStarted:
		return e.GetExecutor()
	case *emergencyv1.RollBackStarted:
		return e.GetExecutor()
	case *emergencyv1.ObserverConfirmed:
		return e.GetObserver()
	case *emergencyv1.RoleAssumed:
		return e.GetPerson()
	case *emergencyv1.WatchArmed:
		return e.GetWatcher()
	}
	return personInArbitration(payload)
}

// TestGate is what the agent on a test server checks before it changes anything, on a history whose every record it has
// verified: the revision is current, approved by a first reviewer who did not write it, and the reviewed tree was transferred
// (seed 1.6).
func TestGate(s *State, revision, environment string, book *rulebook.Book, now time.Time) *Refusal {
	r, ok := s.Revision(revision)
	if !ok {
		return refuse(ReasonPatch, "there is no revision %s", revision)
	}
	if s.TestEnvironment() != environment {
		return refuse(ReasonDrillBoundary, "the test server of system %s is %s, this is %s", s.Declared.System, s.TestEnvironment(), environment)
	}
	d := &decision{s: s, env: Env{Owner: OwnerReview, Now: now, Book: book}, row: mustRow("ConfirmTestServer"), at: now}
	_, c, refusal := d.inPhase(r.bind(), s.phaseOf(r.bind()))
	if refusal != nil {
		return refusal
	}
	if refusal := d.firstMissingIn(r, c); refusal != nil {
		return refusal
	}
	switch {
	case c.First.By == r.Author, c.First.By == r.By:
		return refuse(ReasonAuthorIsReviewer, "%s wrote or registered %s and reviewed it", c.First.By, r.ID)
	case c.Transfer == nil:
		return refuse(ReasonNotTransferred, "%s was not transferred%s", r.ID, r.phaseWord(c))
	case c.Transfer.Tree != r.ResultTree:
		return refuse(ReasonRepoTreeMismatch, "the transferred tree of %s is %s, the reviewed tree is %s", r.ID, c.Transfer.Tree, r.ResultTree)
	}
	return nil
}

// HostGate is what the agent on a host checks before it changes anything, on a history whose every record it has verified:
// an apply of exactly this revision on this host was started by a person and is not finished, and everything that the gate
// needs is there, by as many different people as it needs. s is the state with the ApplyStarted in it.
func HostGate(s *State, revision, host string, book *rulebook.Book, now time.Time) *Refusal {
	r, ok := s.Revision(revision)
	if !ok {
		return refuse(ReasonPatch, "there is no revision %s", revision)
	}
	a := s.ApplyOf(revision)
	if a == nil || a.State != Applying {
		return refuse(ReasonNoApplyRunning, "no apply of %s was started, or it is finished", revision)
	}
	if a.Host != host {
		return refuse(ReasonDrillBoundary, "the apply of %s is for host %s, this is %s", revision, a.Host, host)
	}
	// The dry run that the start relied on says nothing of a host any more that was left alone for longer; and whoever shows
	// an old history to an agent that never saw it gets nothing by it.
	if valid := s.Policy.Duration("dry_run.valid"); now.Sub(a.StartedAt) > valid {
		return refuse(ReasonDryRunMissing, "the apply of %s was started at %s, more than %s ago, and is not taken up any more", revision, stamp(a.StartedAt), valid)
	}
	d := &decision{s: s, env: Env{Owner: OwnerDeployment, Now: now, Book: book}, row: mustRow("StartApply"), at: now}
	for _, v := range s.Vetoes { // one raised after the start stops nothing (6, rule 1)
		if v.Revision == revision && v.State == VetoOpen && !v.AfterApply {
			return d.noVeto(r)
		}
	}
	if a.Strategy > 1 {
		return d.shortGate(r, a)
	}
	if refusal := r.each(d.firstMissing, d.secondMissing, d.tested, d.forwarded); refusal != nil {
		return refusal
	}
	return separate(s, r, a)
}

func mustRow(name string) *commandRow {
	row, _ := rowByName(name)
	return row
}

// separate checks X5, X7, X8, X10 and X11 over what was recorded: whoever decided, these are different people.
func separate(s *State, r *Revision, a *Apply) *Refusal {
	reviewers := []string{r.First.By, r.Second.By}
	switch {
	case slices.Contains(reviewers, r.Author), slices.Contains(reviewers, r.By):
		return refuse(ReasonAuthorIsReviewer, "a reviewer of %s wrote or registered it", r.ID)
	case r.First.By == r.Second.By:
		return refuse(ReasonSamePerson, "%s gave both reviews of %s", r.First.By, r.ID)
	case r.testedBy(r.Author), r.testedBy(r.By):
		return refuse(ReasonAuthorIsTester, "a tester of %s wrote or registered it", r.ID)
	case r.testedBy(r.First.By), r.testedBy(r.Second.By):
		return refuse(ReasonReviewerAndTester, "somebody reviewed and tested %s", r.ID)
	case a.Executor == a.Observer:
		return refuse(ReasonSamePerson, "%s is executor and observer", a.Executor).under("X10 (SP 1.2, 4.1)")
	case a.Executor == r.Author, a.Executor == r.By, r.reviewedBy(a.Executor), r.testedBy(a.Executor):
		return refuse(ReasonSeparationOfDuty, "the executor %s wrote, reviewed or tested %s", a.Executor, r.ID)
	case a.Observer == "" && s.Waived(emergencyv1.Control_CONTROL_OBSERVER, r.ID) == nil:
		return refuse(ReasonObserverMissing, "nobody observes, and nobody waived it")
	}
	return nil
}
