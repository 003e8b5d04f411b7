// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"slices"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// First review, transfer, tests, second review and forwarding (seed 1.6 to 1.8; procedure.md 4.3). Persons count, not keys.

type reviewCommand interface {
	Command
	GetBinding() *emergencyv1.Binding
	GetVerdict() emergencyv1.ReviewVerdict
	GetReason() string
	GetPhase() emergencyv1.Phase
}

func reviewFields[P reviewCommand](f *fields, c P) {
	f.binding(c.GetBinding())
	f.want(c.GetVerdict() != 0, "verdict", "approve, changes or veto")
	f.want(c.GetVerdict() == emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE || c.GetReason() != "", "reason", "given unless the revision is approved")
}

func reviewClaims[P reviewCommand](c P) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{claim("verdict", verdictWord(c.GetVerdict())), claim("phase", c.GetPhase().String()), claim("reason", c.GetReason())}
}

// notAuthor is X5.
func (d *decision) notAuthor(r *Revision) *Refusal {
	if r.Author == d.person || r.By == d.person {
		return refuse(ReasonAuthorIsReviewer, "%s wrote or registered %s and cannot review it", d.person, r.ID).allow(d.row.name, r.ID, "%s", d.another(sa))
	}
	return nil
}

// notTester is X8 for reviewers.
func (d *decision) notTester(r *Revision) *Refusal {
	if r.testedBy(d.person) {
		return refuse(ReasonReviewerAndTester, "%s tested %s", d.person, r.ID).allow(d.row.name, r.ID, "%s", d.another(sa))
	}
	return nil
}

// notFirst is X7.
func (d *decision) notFirst(r *Revision) *Refusal {
	if gaveFirst(r, d.person) {
		return refuse(ReasonSamePerson, "%s gave the first review; the second needs another person", d.person).allow("RecordSecondReview", r.ID, "%s", d.another(sa))
	}
	return nil
}

// notSecond is X7 for a first review in the update cycle.
func (d *decision) notSecond(r *Revision) *Refusal {
	if r.Second != nil && r.Second.By == d.person {
		return refuse(ReasonSamePerson, "%s gave the second review before the deployment; the first one needs another person", d.person).allow("RecordFirstReview", r.ID, "%s", d.another(sa))
	}
	return nil
}

// gaveFirst looks at both phases: X5 to X9 count per revision over both.
func gaveFirst(r *Revision, person string) bool {
	return slices.ContainsFunc(r.phases(), func(c *Checks) bool { return c.First != nil && c.First.By == person })
}

// each makes the checks in their order.
func (r *Revision) each(checks ...func(*Revision) *Refusal) *Refusal {
	for _, check := range checks {
		if refusal := check(r); refusal != nil {
			return refusal
		}
	}
	return nil
}

func (r *Revision) testedBy(person string) bool {
	return slices.ContainsFunc(r.phases(), func(c *Checks) bool {
		return slices.ContainsFunc(c.Tests, func(t Test) bool { return t.By == person })
	})
}

func (r *Revision) reviewedBy(person string) bool {
	return slices.ContainsFunc(r.phases(), func(c *Checks) bool {
		return c.First != nil && c.First.By == person || c.Second != nil && c.Second.By == person
	})
}

func (c *Checks) firstApproved() bool {
	return c.First != nil && c.First.Verdict == emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE
}

func (c *Checks) secondApproved() bool {
	return c.Second != nil && c.Second.Verdict == emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE
}

// notSentBack refuses what a reviewer wants changed: only a new revision can go on (4.3), under any strategy.
func (d *decision) notSentBack(r *Revision) *Refusal {
	for _, x := range []struct {
		review *Review
		which  string
		reason Reason
	}{{r.First, "first", ReasonFirstReviewMissing}, {r.Second, "second", ReasonSecondReviewMiss}} {
		if x.review != nil && x.review.Verdict == emergencyv1.ReviewVerdict_REVIEW_VERDICT_CHANGES {
			return refuse(x.reason, "the %s review of %s, by %s, asks for changes", x.which, r.ID, x.review.By).
				allow("RegisterPatch", r.ID, "after %q only a new revision can go on", x.review.Result)
		}
	}
	return nil
}

func (d *decision) firstMissing(r *Revision) *Refusal { return d.firstMissingIn(r, &r.Checks) }

func (d *decision) firstMissingIn(r *Revision, c *Checks) *Refusal {
	if c.firstApproved() {
		return nil
	}
	refusal := refuse(ReasonFirstReviewMissing, "%s has no approving first review%s", r.ID, r.phaseWord(c))
	switch {
	case c.First != nil && c != &r.Checks:
		return refusal.allow("ConcludeUpdateCycle", r.ID, "after %q it can be concluded as reverted", c.First.Result)
	case c.First != nil:
		return refusal.allow("RegisterPatch", r.ID, "after %q only a new revision can go on", c.First.Result)
	}
	return refusal.allow("RecordFirstReview", r.ID, "ask %s", d.whoHas(roles(sa)))
}

func decideFirstReview(d *decision, c *emergencyv1.RecordFirstReviewRequest) *Refusal {
	r, checks, refusal := d.inPhase(c.GetBinding(), c.GetPhase())
	if refusal != nil {
		return refusal
	}
	if refusal := r.each(d.notAuthor, d.notTester, d.notSecond); refusal != nil {
		return refusal
	}
	if checks.First != nil {
		return refuse(ReasonReviewExists, "%s has a first review%s by %s: %s", r.ID, r.phaseWord(checks), checks.First.By, checks.First.Result).
			allow("RecordSecondReview", r.ID, "give the second review once it is tested")
	}
	d.emit(&emergencyv1.FirstReviewRecorded{Binding: r.bind(), Reviewer: d.person, Verdict: c.GetVerdict(), Reason: d.seal(c.GetReason()), Phase: r.phase(checks)})
	if c.GetVerdict() == emergencyv1.ReviewVerdict_REVIEW_VERDICT_VETO {
		return d.veto(r, c.GetReason())
	}
	return nil
}

func transferFields(f *fields, c *emergencyv1.TransferRequest) {
	f.binding(c.GetBinding())
	f.optionalWord("commit", c.GetCommit())
}

// decideTransfer records what the repository holds after the push (B3).
func decideTransfer(d *decision, c *emergencyv1.TransferRequest) *Refusal {
	r, checks, refusal := d.inPhase(c.GetBinding(), d.s.phaseOf(c.GetBinding()))
	if refusal != nil {
		return refusal
	}
	if refusal := d.firstMissingIn(r, checks); refusal != nil {
		return refusal
	}
	if checks.First.By != d.person {
		return refuse(ReasonNotFirstReviewer, "the first reviewer of %s is %s", r.ID, checks.First.By).allow("Transfer", r.ID, "ask %s", checks.First.By)
	}
	if refusal := d.noVeto(r); refusal != nil {
		return refusal
	}
	p := d.env.Facts.Pushed
	if d.hypothetical {
		return nil
	}
	if p == nil || p.Tree != r.ResultTree {
		got := "nothing"
		if p != nil {
			got = p.Tree
		}
		return refuse(ReasonRepoTreeMismatch, "the repository holds %s, the reviewed tree is %s", got, r.ResultTree).
			allow("Transfer", r.ID, "push exactly the reviewed tree; the service does so when no commit is named")
	}
	d.emit(&emergencyv1.PatchTransferred{Binding: r.bind(), Commit: p.Commit, CommitTree: p.Tree, Ref: p.Ref})
	return nil
}

func confirmServerFields(f *fields, c *emergencyv1.ConfirmTestServerRequest) {
	f.binding(c.GetBinding())
	f.tree("tree", c.GetTree())
	f.word("environment", c.GetEnvironment())
}

// decideConfirmServer records the test server's own report of its tree (B4).
func decideConfirmServer(d *decision, c *emergencyv1.ConfirmTestServerRequest) *Refusal {
	r, checks, refusal := d.inPhase(c.GetBinding(), d.s.phaseOf(c.GetBinding()))
	if refusal != nil {
		return refusal
	}
	if checks.Transfer == nil {
		return refuse(ReasonNotTransferred, "%s was not transferred%s", r.ID, r.phaseWord(checks)).allow("Transfer", r.ID, "the first reviewer transfers it")
	}
	if env := d.s.TestEnvironment(); d.agentName() != env || c.GetEnvironment() != env {
		return refuse(ReasonRole, "agent %s does not speak for %s; the test server of this incident is %s", d.agentName(), c.GetEnvironment(), env).
			allow("ConfirmTestServer", r.ID, "wait for the agent on %s", env)
	}
	if c.GetTree() != r.ResultTree {
		return refuse(ReasonTestTreeMismatch, "the test server %s holds %s, the reviewed tree is %s", c.GetEnvironment(), c.GetTree(), r.ResultTree).
			allow("ConfirmTestServer", r.ID, "bring the reviewed tree to the test server; its agent then confirms")
	}
	d.emit(&emergencyv1.TestServerConfirmed{Binding: r.bind(), Tree: c.GetTree(), Environment: c.GetEnvironment()})
	return nil
}

func testFields(f *fields, c *emergencyv1.ReportTestRequest) {
	f.binding(c.GetBinding())
	f.want(c.GetResult() != 0, "result", "pass or fail")
	f.want(c.GetSteps() != "", "steps", "what was done")
	if c.GetEnvironmentTree() != "" {
		f.tree("environment_tree", c.GetEnvironmentTree())
	}
}

func testClaims(c *emergencyv1.ReportTestRequest) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{claim("verdict", resultWord(c.GetResult())), claim("phase", c.GetPhase().String()), claim("steps", c.GetSteps()), claim("bug_note", c.GetBugNote()), claim("environment_tree", c.GetEnvironmentTree())}
}

// decideReportTest records a test (B5): by somebody who neither wrote nor reviewed it, on the reviewed tree, with a note
// in the bug tracker.
func decideReportTest(d *decision, c *emergencyv1.ReportTestRequest) *Refusal {
	r, checks, refusal := d.inPhase(c.GetBinding(), c.GetPhase())
	if refusal != nil {
		return refusal
	}
	server := r.server(checks)
	if server == nil {
		return d.serverMissing(r, checks)
	}
	tree := c.GetEnvironmentTree()
	if tree == "" {
		tree = server.Tree
	}
	if a := d.env.Facts.Agent; a != nil && tree == r.ResultTree {
		tree = a.HostTree // what the test server holds now, whatever it confirmed earlier
	}
	if tree != r.ResultTree {
		return refuse(ReasonTestTreeMismatch, "the tested tree %s is not the reviewed tree %s", tree, r.ResultTree).allow("ReportTest", r.ID, "test on %s, which holds the reviewed tree", server.Environment)
	}
	note := c.GetBugNote()
	if note == "auto" {
		note = d.env.Facts.BugNote
	}
	if note == "" && !d.hypothetical {
		return refuse(ReasonBugNoteMissing, "the test has no note in the bug tracker").allow("ReportTest", r.ID, `name the note, or "auto" to have it written`)
	}
	if r.Author == d.person || r.By == d.person {
		return refuse(ReasonAuthorIsTester, "%s wrote or registered %s and cannot test it", d.person, r.ID).allow("ReportTest", r.ID, "%s", d.another(te))
	}
	if r.reviewedBy(d.person) {
		return refuse(ReasonReviewerAndTester, "%s reviewed %s", d.person, r.ID).allow("ReportTest", r.ID, "%s", d.another(te))
	}
	d.emit(&emergencyv1.TestReported{
		Binding: r.bind(), Tester: d.person, Result: c.GetResult(), Steps: d.seal(c.GetSteps()), BugNote: note, EnvironmentTree: tree, Phase: r.phase(checks),
	})
	return nil
}

// server is the test server that has confirmed a revision in the phase, or before the deployment: it is the same tree, and what the
// server holds when somebody tests is asked again.
func (r *Revision) server(c *Checks) *TestServer {
	if c.TestServer != nil {
		return c.TestServer
	}
	return r.TestServer
}

// serverMissing names the first step that is missing before the test server can confirm.
func (d *decision) serverMissing(r *Revision, c *Checks) *Refusal {
	refusal := refuse(ReasonTestServerNotReady, "no test server has confirmed %s%s", r.ID, r.phaseWord(c))
	if missing := d.firstMissingIn(r, c); missing != nil {
		refusal.Allow = missing.Allow
		return refusal
	}
	if c.Transfer == nil {
		return refusal.allow("Transfer", r.ID, "%s, who gave the first review, transfers it", c.First.By)
	}
	return refusal.allow("ConfirmTestServer", r.ID, "wait for the agent on %s", d.s.TestEnvironment())
}

// passes counts the persons whose latest test of a revision passed.
func passes(r *Revision) int { return r.passed() }

func (c *Checks) passed() int {
	n := 0
	for _, t := range c.Tests {
		if t.Pass {
			n++
		}
	}
	return n
}

// tested holds with no failing test, and a quorum of passing ones or the quorum waived. A failure is named first: more passing
// tests do not mend it.
func (d *decision) tested(r *Revision) *Refusal {
	if refusal := noFailure(r, &r.Checks); refusal != nil {
		return refusal
	}
	return d.enoughTests(r)
}

func noFailure(r *Revision, c *Checks) *Refusal {
	for _, t := range c.Tests {
		if t.Pass {
			continue
		}
		refusal := refuse(ReasonTestFailed, "%s's test of %s%s failed", t.By, r.ID, r.phaseWord(c))
		if c == &r.Checks {
			refusal.allow("RegisterPatch", r.ID, "a new revision mends it")
		}
		return refusal.allow("ReportTest", r.ID, "%s tests again", t.By)
	}
	return nil
}

func (d *decision) enoughTests(r *Revision) *Refusal {
	need := d.s.Policy.Count("test.quorum")
	waived := d.s.Waived(emergencyv1.Control_CONTROL_TEST_QUORUM, r.ID) != nil
	if waived {
		need = d.s.Policy.Count("test.min_after_waiver")
	}
	if passes(r) >= need {
		return nil
	}
	refusal := refuse(ReasonTestQuorum, "%s has %d of %d passing tests", r.ID, passes(r), need).allow("ReportTest", r.ID, "ask %s", d.whoHas(roles(te)))
	if !waived {
		refusal.allow("WaiveControl", r.ID, "with one passing test the rest may be waived, as debt; ask %s", d.whoHas(roles(al)))
	}
	return refusal
}

func decideSecondReview(d *decision, c *emergencyv1.RecordSecondReviewRequest) *Refusal {
	r, checks, refusal := d.inPhase(c.GetBinding(), c.GetPhase())
	if refusal != nil {
		return refusal
	}
	if refusal := d.firstMissingIn(r, checks); refusal != nil {
		return refusal
	}
	if refusal := r.each(d.notAuthor, d.notFirst, d.notTester); refusal != nil {
		return refusal
	}
	if checks.Second != nil {
		return refuse(ReasonReviewExists, "%s has a second review%s by %s: %s", r.ID, r.phaseWord(checks), checks.Second.By, checks.Second.Result)
	}
	if refusal := d.testedIn(r, checks); refusal != nil {
		if c.GetVerdict() != emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE {
			refusal.allow("RaiseVeto", r.ID, "raise a veto instead; it waits for no test")
		}
		return refusal
	}
	if refusal := d.noVeto(r); refusal != nil {
		return refusal
	}
	d.emit(&emergencyv1.SecondReviewRecorded{Binding: r.bind(), Reviewer: d.person, Verdict: c.GetVerdict(), Reason: d.seal(c.GetReason()), Phase: r.phase(checks)})
	if c.GetVerdict() == emergencyv1.ReviewVerdict_REVIEW_VERDICT_VETO {
		return d.veto(r, c.GetReason())
	}
	return nil
}

func (d *decision) secondMissing(r *Revision) *Refusal {
	if r.secondApproved() {
		return nil
	}
	refusal := refuse(ReasonSecondReviewMiss, "%s has no approving second review", r.ID)
	if r.Second != nil {
		return refusal.allow("RegisterPatch", r.ID, "after %q only a new revision can go on", r.Second.Result)
	}
	if r.First == nil {
		return refusal.allow("RecordFirstReview", r.ID, "the first review comes before it; ask %s", d.whoHas(roles(sa)))
	}
	return refusal.allow("RecordSecondReview", r.ID, "another assessor than %s: %s", r.First.By, d.whoHas(roles(sa)))
}

func forwardFields(f *fields, c *emergencyv1.ForwardRequest) {
	f.binding(c.GetBinding())
	f.optionalWord("to", c.GetTo())
}

func forwardClaims(c *emergencyv1.ForwardRequest) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{claim("to", c.GetTo()), claim("rollback_plan", c.GetRollbackPlan()), claim("local_test", c.GetLocalTest())}
}

// decideForward hands the patch to the critical team (B7).
func decideForward(d *decision, c *emergencyv1.ForwardRequest) *Refusal {
	r, refusal := d.current(c.GetBinding())
	if refusal != nil {
		return refusal
	}
	if refusal := r.each(d.noVeto, d.notSentBack); refusal != nil {
		return refusal
	}
	var deviations []emergencyv1.Deviation
	if d.s.Strategy > 1 {
		if refusal := d.localTest(r, c); refusal != nil {
			return refusal
		}
		deviations = r.reviewSkipped()
	} else if refusal := d.secondMissing(r); refusal != nil {
		return refusal
	} else if r.Second.By != d.person {
		return refuse(ReasonNotSecondReviewer, "the second reviewer of %s is %s", r.ID, r.Second.By).allow("Forward", r.ID, "ask %s", r.Second.By)
	}
	if c.GetRollbackPlan() == "" {
		return refuse(ReasonRollbackPlan, "how to go back is not said").allow("Forward", r.ID, "give a rollback plan")
	}
	to := c.GetTo()
	if to == "" {
		to = d.s.executor()
	}
	if !d.holds(to, ca) {
		return refuse(ReasonRecipientRole, "%q is no critical admin", to).allow("Forward", r.ID, "name one of %s", d.whoHas(roles(ca)))
	}
	d.emit(&emergencyv1.PatchForwarded{Binding: r.bind(), To: to, RollbackPlan: d.seal(c.GetRollbackPlan()), LocalTest: d.seal(c.GetLocalTest())}, deviations...)
	return nil
}

// executor is the holder of the executor's slot.
func (s *State) executor() string {
	for _, sl := range s.Slots {
		if sl.Team == emergencyv1.Team_TEAM_CRITICAL && sl.Step == emergencyv1.ResponderStep_RESPONDER_STEP_EXECUTE {
			return sl.Person
		}
	}
	return ""
}
