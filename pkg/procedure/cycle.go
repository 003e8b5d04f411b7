// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"slices"
	"strings"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The regular update cycle after the emergency (seed 2.5, 3.8; procedure.md 4.3): what was deployed on the short road, or by
// hand in a session, gets the reviews and tests that it did not have. Nothing recorded before the deployment is altered.

// Checks are what was decided on a revision in one phase, before the deployment or in the update cycle after it.
type Checks struct {
	First      *Review
	Second     *Review
	Transfer   *Transfer
	TestServer *TestServer
	Tests      []Test
}

func (c Checks) clone() Checks {
	c.First, c.Second, c.Transfer = clonePointer(c.First), clonePointer(c.Second), clonePointer(c.Transfer)
	c.TestServer, c.Tests = clonePointer(c.TestServer), slices.Clone(c.Tests)
	return c
}

// Cycle is a revision in the update cycle.
type Cycle struct {
	Checks
	// Entered has the commit as its result.
	Entered Mark
	BugID   string
	// Concluded has the commit that changed or reverted it, if one did, as its result.
	Concluded Mark
	Outcome   emergencyv1.CycleOutcome
}

func (c *Cycle) clone() *Cycle {
	n := clonePointer(c)
	if n != nil {
		n.Checks = n.Checks.clone()
	}
	return n
}

// word is where a revision stands in the update cycle, in the words of procedure.md 6; empty before it.
func (c *Cycle) word() string {
	switch {
	case c == nil:
		return ""
	case c.Concluded.Position == 0:
		return "InCycle"
	}
	switch c.Outcome {
	case emergencyv1.CycleOutcome_CYCLE_OUTCOME_BLESSED:
		return "Blessed"
	case emergencyv1.CycleOutcome_CYCLE_OUTCOME_CHANGED:
		return "Changed"
	case emergencyv1.CycleOutcome_CYCLE_OUTCOME_REVERTED:
		return "Reverted"
	case emergencyv1.CycleOutcome_CYCLE_OUTCOME_UNSPECIFIED:
	}
	return "InCycle"
}

// phases are the checks of both phases, as far as there are.
func (r *Revision) phases() []*Checks {
	if r.Cycle == nil {
		return []*Checks{&r.Checks}
	}
	return []*Checks{&r.Checks, &r.Cycle.Checks}
}

// Underway are the checks that are made on a revision now: those of the update cycle once it is entered.
func (r *Revision) Underway() *Checks {
	if r.Cycle != nil {
		return &r.Cycle.Checks
	}
	return &r.Checks
}

// Tested is the test server that tests of a revision are made on now; nil if none has confirmed that it holds it.
func (r *Revision) Tested() *TestServer { return r.server(r.Underway()) }

// phase names the phase of checks; phaseWord is for a message.
func (r *Revision) phase(c *Checks) emergencyv1.Phase {
	if c == &r.Checks {
		return emergencyv1.Phase_PHASE_BEFORE
	}
	return emergencyv1.Phase_PHASE_AFTER
}

func (r *Revision) phaseWord(c *Checks) string {
	if c == &r.Checks {
		return ""
	}
	return " in the update cycle"
}

// passing are the persons whose latest test passed, over both phases: a person's second test replaces the first (X9).
func (r *Revision) passing() []string {
	latest := map[string]bool{}
	var persons []string
	for _, c := range r.phases() {
		for _, t := range c.Tests {
			latest[t.By] = t.Pass
			persons = append(persons, t.By)
		}
	}
	return slices.DeleteFunc(distinct(persons), func(p string) bool { return !latest[p] })
}

// checks is the part of a revision that an event is about; nil if the history names none.
func (s *State) checks(b *emergencyv1.Binding, phase emergencyv1.Phase) (*Revision, *Checks) {
	r, ok := s.Revision(b.GetRevision())
	switch {
	case !ok:
		return nil, nil
	case phase != emergencyv1.Phase_PHASE_AFTER:
		return r, &r.Checks
	case r.Cycle == nil:
		return r, nil
	}
	return r, &r.Cycle.Checks
}

// phaseOf is the phase of what does not name one, transfer and test server: after, once the update cycle is entered.
func (s *State) phaseOf(b *emergencyv1.Binding) emergencyv1.Phase {
	if r, ok := s.Revision(b.GetRevision()); ok && r.Cycle != nil {
		return emergencyv1.Phase_PHASE_AFTER
	}
	return emergencyv1.Phase_PHASE_BEFORE
}

// inPhase finds the revision and its checks, if they are still to be made. Before the deployment that is the current revision
// of an open incident; in the update cycle it is what was deployed, even if a newer revision is there (10.16).
func (d *decision) inPhase(b *emergencyv1.Binding, phase emergencyv1.Phase) (*Revision, *Checks, *Refusal) {
	if phase == emergencyv1.Phase_PHASE_AFTER {
		r, refusal := d.bound(b)
		if refusal != nil {
			return nil, nil, refusal
		}
		refusal = d.inCycle(r)
		if refusal != nil {
			return nil, nil, refusal
		}
		return r, &r.Cycle.Checks, nil
	}
	r, refusal := d.current(b)
	if refusal != nil {
		return nil, nil, refusal
	}
	if d.s.Status != Open {
		return nil, nil, refuse(ReasonIncidentState, "incident %s is %s and takes no %s", d.s.Incident, statusWord(d.s.Status), d.row.name)
	}
	if d.s.ApplyOf(r.ID) != nil || r.Origin == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION {
		return nil, nil, refuse(ReasonDeployed, "%s is or was on the host; what is found about it now is for the update cycle", r.ID).
			allow(d.row.name, r.ID, "give it with phase after").allow("EnterUpdateCycle", r.ID, "bring it into the update cycle first; ask %s", d.whoHas(roles(sa)))
	}
	return r, &r.Checks, nil
}

// inCycle holds while a revision is in the update cycle.
func (d *decision) inCycle(r *Revision) *Refusal {
	if r.Cycle == nil {
		return refuse(ReasonNotEntered, "%s has not entered the update cycle", r.ID).
			allow("EnterUpdateCycle", r.ID, "once it is deployed and replicated; ask %s", d.whoHas(roles(sa)))
	}
	if r.Cycle.Concluded.Position > 0 {
		return refuse(ReasonCycleExists, "the update cycle of %s was concluded: %s", r.ID, strings.ToLower(r.Cycle.word()))
	}
	return nil
}

// testedIn is the test quorum of a phase. A waiver is of strategy 1 and for the deployment; the update cycle has none.
func (d *decision) testedIn(r *Revision, c *Checks) *Refusal {
	if c == &r.Checks {
		return d.tested(r)
	}
	if refusal := noFailure(r, c); refusal != nil {
		return refusal
	}
	if need := d.s.Policy.Count("test.quorum"); c.passed() < need {
		return refuse(ReasonTestQuorum, "%s has %d of %d passing tests in the update cycle", r.ID, c.passed(), need).
			allow("ReportTest", r.ID, "with phase after; ask %s", d.whoHas(roles(te)))
	}
	return nil
}

func enterFields(f *fields, c *emergencyv1.EnterUpdateCycleRequest) {
	f.binding(c.GetBinding())
	f.optionalWord("commit", c.GetCommit())
	f.optionalWord("bug_id", c.GetBugId())
}

// decideEnter brings into the regular cycle what is on the host, once the repository is known to hold it.
func decideEnter(d *decision, c *emergencyv1.EnterUpdateCycleRequest) *Refusal {
	r, refusal := d.bound(c.GetBinding())
	if refusal != nil {
		return refusal
	}
	since, ok := d.s.onHostSince(r)
	if !ok {
		return refuse(ReasonNotDeployed, "%s is not on the host: it was not applied, or was taken back, and came from no session", r.ID).
			allow("StartApply", r.ID, "only what was deployed enters the update cycle")
	}
	if r.Cycle != nil {
		return refuse(ReasonCycleExists, "%s entered the update cycle at %s", r.ID, stamp(r.Cycle.Entered.At))
	}
	branch, ok := d.s.replicatedSince(since.Position)
	if !ok {
		return refuse(ReasonReplicationPending, "host and branch were not found equal since %s is on the host, and what differs is not explained", r.ID).
			allow("PushReplication", "", "bring the host's state to the branch").allow("CheckReplication", "", "compare host and branch").
			allow("ExplainDrift", "", "explain each path that differs")
	}
	commit, bug := c.GetCommit(), c.GetBugId()
	if commit == "" {
		commit = branch
	}
	if bug == "" {
		bug = r.BugID
	}
	d.emit(&emergencyv1.UpdateCycleEntered{Binding: r.bind(), Commit: commit, BugId: bug})
	return nil
}

// onHostSince is when a revision came to the host: applied and not taken back, or made there in a session.
func (s *State) onHostSince(r *Revision) (Mark, bool) {
	if a := s.ApplyOf(r.ID); a != nil && a.Applied.Position > 0 && a.Ended.Position == 0 {
		return a.Applied, true
	}
	if r.Origin != emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION {
		return Mark{}, false
	}
	for _, x := range s.sessionDifferences() {
		if x.is(r.Artefact.GetSha256(), r.BaseTree, r.ResultTree) {
			return x.Mark, true
		}
	}
	return Mark{}, false
}

// replicatedSince tells whether host and branch were found equal after a position, or differ only in explained paths, and which
// commit the branch had.
func (s *State) replicatedSince(position uint64) (commit string, ok bool) {
	for i := len(s.Replications) - 1; i >= 0; i-- {
		x := s.Replications[i]
		if x.Position < position {
			break
		}
		explained := x.Kind == emergencyv1.ReplicationResult_REPLICATION_RESULT_DRIFT && i == len(s.Replications)-1 && len(s.openDrift()) == 0
		if x.Kind == emergencyv1.ReplicationResult_REPLICATION_RESULT_EQUAL || explained {
			return x.Result, true
		}
	}
	return "", false
}

func (s *State) applyEntered(f fact, e *emergencyv1.UpdateCycleEntered) {
	if r, ok := s.Revision(e.GetBinding().GetRevision()); ok {
		r.Cycle = &Cycle{Entered: f.mark(f.who(), r.ID, e.GetCommit()), BugID: e.GetBugId()}
	}
}

func concludeFields(f *fields, c *emergencyv1.ConcludeUpdateCycleRequest) {
	f.binding(c.GetBinding())
	f.want(c.GetOutcome() != 0, "outcome", "blessed, changed or reverted")
	f.optionalWord("commit", c.GetCommit())
	f.want(c.GetCommit() != "" || c.GetOutcome() == emergencyv1.CycleOutcome_CYCLE_OUTCOME_BLESSED, "commit", "the commit that changed or reverted it")
}

// decideConclude ends the update cycle: with two approving reviews and the test quorum, all of the phase after; to revert, one
// review that does not approve is enough.
func decideConclude(d *decision, c *emergencyv1.ConcludeUpdateCycleRequest) *Refusal {
	r, refusal := d.bound(c.GetBinding())
	if refusal != nil {
		return refusal
	}
	if refusal := d.inCycle(r); refusal != nil {
		return refusal
	}
	checks := &r.Cycle.Checks
	objected := checks.First != nil && !checks.firstApproved() || checks.Second != nil && !checks.secondApproved()
	if c.GetOutcome() != emergencyv1.CycleOutcome_CYCLE_OUTCOME_REVERTED || !objected {
		if !checks.firstApproved() || !checks.secondApproved() {
			return d.reviewsMissing(r, checks)
		}
		if refusal := d.testedIn(r, checks); refusal != nil {
			return refusal
		}
	}
	d.emit(&emergencyv1.UpdateCycleConcluded{Binding: r.bind(), Outcome: c.GetOutcome(), Commit: c.GetCommit()})
	return nil
}

func (d *decision) reviewsMissing(r *Revision, c *Checks) *Refusal {
	refusal := refuse(ReasonReviewQuorum, "%s has not two approving reviews in the update cycle", r.ID)
	switch {
	case c.First == nil:
		return refusal.allow("RecordFirstReview", r.ID, "with phase after; ask %s", d.whoHas(roles(sa)))
	case c.firstApproved() && c.Second == nil:
		return refusal.allow("RecordSecondReview", r.ID, "with phase after; another assessor than %s: %s", c.First.By, d.whoHas(roles(sa)))
	}
	return refusal.allow("ConcludeUpdateCycle", r.ID, "a review does not approve it: conclude it as reverted, with the commit that reverts it")
}

func (s *State) applyConcluded(f fact, e *emergencyv1.UpdateCycleConcluded) {
	if r, ok := s.Revision(e.GetBinding().GetRevision()); ok && r.Cycle != nil {
		r.Cycle.Concluded, r.Cycle.Outcome = f.mark(f.who(), r.ID, e.GetCommit()), e.GetOutcome()
	}
}
