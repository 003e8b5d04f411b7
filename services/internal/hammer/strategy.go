// SPDX-License-Identifier: Apache-2.0

package hammer

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// strategyFile is what the rules need to remember of an incident's strategies: who was called and came, what failed, and the half
// of a joint declaration that waits.
type strategyFile struct {
	teams  map[emergencyv1.Team]*teamFile
	failed map[uint64]bool // positions of failed tests, vetoes, failed applies and deployments that differ
	half   *halfFile
	ended  map[string]bool // slots whose step is done

	equal    uint64 // last comparison that found host and branch equal
	compared uint64 // last comparison at all
	drift    map[string]bool
}

type teamFile struct {
	first    time.Time
	rounds   map[uint32]bool
	channels map[string]bool
	gap      uint64
	accepted uint64
}

type halfFile struct {
	position uint64
	at       time.Time
	person   string
	role     emergencyv1.Role
}

// now is the strategy in force.
func (c *caseFile) now() uint32 { return max(1, c.console.strategy) }

func (c *caseFile) team(t emergencyv1.Team) *teamFile {
	if c.strategies.teams == nil {
		c.strategies = strategyFile{teams: map[emergencyv1.Team]*teamFile{}, failed: map[uint64]bool{}, ended: map[string]bool{}, drift: map[string]bool{}}
	}
	if c.strategies.teams[t] == nil {
		c.strategies.teams[t] = &teamFile{rounds: map[uint32]bool{}, channels: map[string]bool{}}
	}
	return c.strategies.teams[t]
}

func teamOf(slot string) emergencyv1.Team {
	name, _, _ := strings.Cut(slot, "/")
	return emergencyv1.Team(emergencyv1.Team_value["TEAM_"+strings.ToUpper(name)])
}

// strategy judges changes of the strategy, before the event is noted by whoever else looks at it.
func (j *judge) strategy(c *caseFile, payload proto.Message) {
	c.team(0)
	st := &c.strategies
	switch e := payload.(type) {
	case *emergencyv1.CallOutIssued:
		c.called(e.GetRound(), false, e.GetPages())
	case *emergencyv1.RePaged:
		c.called(e.GetRound(), e.GetFallback(), e.GetPages())
	case *emergencyv1.CoverageGapFound:
		c.team(e.GetTeam()).gap = c.position
	case *emergencyv1.ResponderAccepted:
		c.team(teamOf(e.GetSlot())).accepted = c.position
		delete(st.ended, e.GetSlot())
	case *emergencyv1.StandbyEnded:
		if e.GetReason() == emergencyv1.StandbyEndReason_STANDBY_END_REASON_STEP_DONE {
			st.ended[e.GetSlot()] = true
		}
	case *emergencyv1.TestReported:
		st.failed[c.position] = e.GetResult() == emergencyv1.TestResult_TEST_RESULT_FAIL
	case *emergencyv1.VetoRaised, *emergencyv1.PatchApplyFailed, *emergencyv1.DeployMismatch:
		st.failed[c.position] = true
	case *emergencyv1.JointDeclarationSigned:
		j.half(c, e)
	case *emergencyv1.StrategyEscalated:
		j.escalated(c, e)
		c.reslot(c.now(), e.GetTo())
	case *emergencyv1.StrategyDeEscalated:
		j.want(c, e.GetFrom() == c.now() && e.GetTo() < c.now() && e.GetTo() > 0, "from strategy %d back to %d, under %d", e.GetFrom(), e.GetTo(), c.now())
		j.want(c, c.running() == nil, "back to another strategy while an apply runs")
		c.reslot(c.now(), e.GetTo())
	case *emergencyv1.ReplicationChecked:
		st.compared, st.drift = c.position, map[string]bool{}
		if e.GetResult() == emergencyv1.ReplicationResult_REPLICATION_RESULT_EQUAL {
			st.equal = c.position
		}
		for _, p := range e.GetDriftPaths() {
			st.drift[p.GetCommitment()] = true
		}
	case *emergencyv1.DriftExplained:
		delete(st.drift, e.GetPathCommitment())
	}
}

func (c *caseFile) called(round uint32, fallback bool, pages []*emergencyv1.CalledPage) {
	for _, p := range pages {
		t := c.team(p.GetTeam())
		if t.first.IsZero() {
			t.first = c.at
		}
		t.channels[p.GetChannel()] = true
		if !fallback {
			t.rounds[round] = true
		}
	}
}

// slotsOf are the slots of each strategy by the default policy (procedure.md 3.1).
func slotsOf(strategy uint32) []string {
	return [][]string{
		1: {"critical/1", "critical/2", "assessment/1", "assessment/2", "development/1", "testing/1", "testing/2"},
		2: {"critical/1", "critical/2", "assessment/1"},
		3: {"critical/1", "assessment/1"},
	}[min(3, strategy)]
}

// reslot frees what the new strategy does not need, and what is there anew; who holds a slot of both keeps it.
func (c *caseFile) reslot(from, to uint32) {
	for slot := range c.slots {
		if !slices.Contains(slotsOf(from), slot) || !slices.Contains(slotsOf(to), slot) || c.strategies.ended[slot] {
			delete(c.slots, slot)
		}
	}
	c.strategies.ended = map[string]bool{}
	if to == 3 {
		delete(c.slots, "assessment/1") // the declarer's, who has signed
	}
}

// lead is of the team.
func side(r emergencyv1.Role) emergencyv1.Role {
	switch r {
	case emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD:
		return emergencyv1.Role_ROLE_CRITICAL_ADMIN
	case emergencyv1.Role_ROLE_ASSESSMENT_TEAM_LEAD:
		return emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR
	default:
		return r
	}
}

// half judges one half of a joint declaration: a lapsed one is said to be so, and a second one is by another person of the other role.
func (j *judge) half(c *caseFile, e *emergencyv1.JointDeclarationSigned) {
	st := &c.strategies
	j.signed(c, nil)
	j.want(c, e.GetPerson() == c.who() && e.GetHalf() == side(c.actor.GetRole()), "%s signed as %s for %s", c.who(), c.actor.GetRole(), e.GetPerson())
	switch first := st.half; {
	case first == nil:
		j.want(c, e.GetLapsedHalf() == 0, "a half lapsed that never was")
	case c.at.Sub(first.at) > 30*time.Minute:
		j.want(c, e.GetLapsedHalf() == first.position, "the half at %d had lapsed", first.position)
	default:
		j.want(c, first.person != e.GetPerson() && first.role != e.GetHalf(), "both halves are by %s and %s, as %s", first.person, e.GetPerson(), first.role)
		return // the first one still stands for the escalation that follows in the same record
	}
	st.half = &halfFile{c.position, c.at, e.GetPerson(), e.GetHalf()}
}

// escalated judges a change upwards by the grounds of procedure.md 4.1.1.
func (j *judge) escalated(c *caseFile, e *emergencyv1.StrategyEscalated) {
	st := &c.strategies
	j.want(c, e.GetFrom() == c.now() && e.GetTo() > c.now() && e.GetTo() < 4, "from strategy %d to %d, under %d", e.GetFrom(), e.GetTo(), c.now())
	j.signed(c, nil)
	if e.GetTo() == 3 {
		j.want(c, st.half != nil && len(e.GetSignatures()) == 2 && e.GetSignatures()[0] == st.half.position && e.GetSignatures()[1] == c.position-1, "strategy 3 without a joint declaration: %v", e.GetSignatures())
		st.half = nil
		return
	}
	t := c.team(e.GetTeam())
	switch e.GetGround() {
	case emergencyv1.EscalationGround_ESCALATION_GROUND_TEAM_UNREACHABLE:
		j.want(c, len(t.rounds) >= 3 && len(t.channels) >= 2 && c.at.Sub(t.first) >= time.Hour, "%s is not unreachable: %d rounds, %d channels, since %s", e.GetTeam(), len(t.rounds), len(t.channels), t.first)
		j.want(c, c.missing(e.GetTeam()), "%s is not unreachable: nobody is missing", e.GetTeam())
	case emergencyv1.EscalationGround_ESCALATION_GROUND_COVERAGE_GAP:
		j.want(c, t.gap > 0 && t.accepted < t.gap, "%s has no gap", e.GetTeam())
	case emergencyv1.EscalationGround_ESCALATION_GROUND_STEP_FAILED:
		j.want(c, len(e.GetEvidence()) == 1 && st.failed[e.GetEvidence()[0]], "nothing failed at %v", e.GetEvidence())
	case emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT:
		j.want(c, e.GetCode() != 0 && e.GetReason() != nil, "unfit, and not why")
	default:
		j.want(c, false, "no ground")
	}
}

// missing tells whether a team has a slot that nobody holds.
func (c *caseFile) missing(t emergencyv1.Team) bool {
	if t == emergencyv1.Team_TEAM_DEVELOPMENT && len(c.revs) > 0 {
		return false
	}
	return slices.ContainsFunc(slotsOf(1), func(slot string) bool { return teamOf(slot) == t && c.slots[slot] == "" })
}

// shortRegister: what is prepared under strategy 2 or 3 is registered by an assessor.
func (j *judge) shortRegister(c *caseFile, e *emergencyv1.PatchRegistered) {
	session := e.GetOrigin() == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION
	engineer := session && c.actor.GetRole() == emergencyv1.Role_ROLE_SOFTWARE_ENGINEER
	j.want(c, c.now() == 1 && !session || engineer || side(c.actor.GetRole()) == emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR, "registered as %s under strategy %d", c.actor.GetRole(), c.now())
}

// shortForward: with a local test, and as a deviation unless somebody else approved.
func (j *judge) shortForward(c *caseFile, r *revision, e *emergencyv1.PatchForwarded) {
	j.want(c, e.GetLocalTest() != nil && e.GetTo() != "", "forwarded under strategy %d to %q, local test %t", c.now(), e.GetTo(), e.GetLocalTest() != nil)
	j.want(c, r.firstOK || slices.Contains(c.deviations, emergencyv1.Deviation_DEVIATION_REVIEW_SKIPPED), "a skipped review is no deviation")
	j.noVeto(c, r)
	r.local = true
	if c.now() == 2 { // the preparer's step is done
		c.slots["assessment/1"], c.strategies.ended["assessment/1"] = c.who(), true
	}
}

// shortStart: handed over, and with a word on who does not observe.
func (j *judge) shortStart(c *caseFile, r *revision, e *emergencyv1.ApplyStarted) {
	j.want(c, r.local || r.forwarded, "applied under strategy %d and never handed over", c.now())
	if e.GetObserver() == "" {
		j.want(c, e.GetNoObserverReason() != nil && slices.Contains(c.deviations, emergencyv1.Deviation_DEVIATION_NO_OBSERVER), "nobody observes, and why is not said")
	}
}

// cycleFile is a revision in the update cycle.
type cycleFile struct {
	concluded             bool
	first, second         string
	firstOK, secondOK     bool
	transferred, onServer bool
	tests                 map[string]bool
}

func (f *cycleFile) passed() int {
	n := 0
	for _, ok := range f.tests {
		if ok {
			n++
		}
	}
	return n
}

// cycle judges the events of the update cycle; false for an event of the time before the deployment.
func (j *judge) cycle(c *caseFile, payload proto.Message) bool {
	after := func(p emergencyv1.Phase) bool { return p == emergencyv1.Phase_PHASE_AFTER }
	approves := func(v emergencyv1.ReviewVerdict) bool { return v == emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE }
	switch e := payload.(type) {
	case *emergencyv1.UpdateCycleEntered:
		j.entered(c, e)
	case *emergencyv1.UpdateCycleConcluded:
		f := j.inCycle(c, j.rev(c, e.GetBinding()))
		against := f.first != "" && !f.firstOK || f.second != "" && !f.secondOK
		reverted := e.GetOutcome() == emergencyv1.CycleOutcome_CYCLE_OUTCOME_REVERTED && against
		j.want(c, reverted || f.firstOK && f.secondOK && f.passed() >= 2, "concluded with reviews %t and %t and %d passing tests", f.firstOK, f.secondOK, f.passed())
		f.concluded = true
	case *emergencyv1.FirstReviewRecorded:
		if !after(e.GetPhase()) {
			return false
		}
		r := j.rev(c, e.GetBinding())
		f := j.inCycle(c, r)
		j.signed(c, e.GetBinding())
		j.want(c, f.first == "", "%s has a first regular review", r.id)
		j.distinct(c, "first regular reviewer", e.GetReviewer(), append(r.testers(), r.author, r.by, r.second)...)
		f.first, f.firstOK = e.GetReviewer(), approves(e.GetVerdict())
	case *emergencyv1.SecondReviewRecorded:
		if !after(e.GetPhase()) {
			return false
		}
		r := j.rev(c, e.GetBinding())
		f := j.inCycle(c, r)
		j.signed(c, e.GetBinding())
		j.want(c, f.firstOK && f.second == "" && f.passed() >= 2, "second regular review: first approved %t, a second one by %q, %d tests", f.firstOK, f.second, f.passed())
		j.distinct(c, "second regular reviewer", e.GetReviewer(), append(r.testers(), r.author, r.by, r.first, f.first)...)
		j.noVeto(c, r)
		f.second, f.secondOK = e.GetReviewer(), approves(e.GetVerdict())
	case *emergencyv1.TestReported:
		if !after(e.GetPhase()) {
			return false
		}
		r := j.rev(c, e.GetBinding())
		f := j.inCycle(c, r)
		j.signed(c, e.GetBinding())
		j.want(c, (f.onServer || r.onServer) && e.GetEnvironmentTree() == r.result && e.GetBugNote() != "", "regular test on another tree, or without a note")
		j.distinct(c, "regular tester", e.GetTester(), r.author, r.by, r.first, r.second, f.first, f.second)
		f.tests[e.GetTester()] = e.GetResult() == emergencyv1.TestResult_TEST_RESULT_PASS
	case *emergencyv1.PatchTransferred:
		r := j.rev(c, e.GetBinding())
		if r.cycle == nil {
			return false
		}
		f := j.inCycle(c, r)
		j.want(c, f.firstOK && c.who() == f.first && e.GetCommitTree() == r.result, "transferred in the cycle by %s; the first review is %s's, approved %t", c.who(), f.first, f.firstOK)
		j.noVeto(c, r)
		f.transferred = true
	case *emergencyv1.TestServerConfirmed:
		r := j.rev(c, e.GetBinding())
		if r.cycle == nil {
			return false
		}
		f := j.inCycle(c, r)
		j.want(c, f.transferred && e.GetTree() == r.result, "test server in the cycle: transferred %t, right tree %t", f.transferred, e.GetTree() == r.result)
		f.onServer = true
	default:
		return false
	}
	return true
}

// entered: on the host, and known to be in the repository.
func (j *judge) entered(c *caseFile, e *emergencyv1.UpdateCycleEntered) {
	r := j.rev(c, e.GetBinding())
	j.want(c, r.cycle == nil, "%s entered the update cycle twice", r.id)
	state := "never applied"
	for _, a := range c.applied {
		if a.rev == r.id {
			state = a.state
		}
	}
	there := r.session || r.onHost > 0 && !slices.Contains([]string{"never applied", "applying", "backed out", "rolled back"}, state)
	j.want(c, there, "%s entered the update cycle and is %s", r.id, state)
	st := &c.strategies
	j.want(c, r.session || st.equal > r.onHost || st.compared > r.onHost && len(st.drift) == 0, "%s entered the update cycle before it was replicated", r.id)
	r.cycle = &cycleFile{tests: map[string]bool{}}
}

func (j *judge) inCycle(c *caseFile, r *revision) *cycleFile {
	if r.cycle == nil {
		j.want(c, false, "%s has not entered the update cycle", r.id)
		return &cycleFile{tests: map[string]bool{}}
	}
	j.want(c, !r.cycle.concluded, "the update cycle of %s was concluded", r.id)
	return r.cycle
}

// phaseBefore: once an apply has started, nothing of the time before is recorded any more.
func (j *judge) phaseBefore(c *caseFile, payload proto.Message) {
	switch payload.(type) {
	case *emergencyv1.FirstReviewRecorded, *emergencyv1.SecondReviewRecorded, *emergencyv1.PatchTransferred, *emergencyv1.TestServerConfirmed, *emergencyv1.TestReported:
		b := payload.(interface{ GetBinding() *emergencyv1.Binding }).GetBinding()
		j.want(c, c.status == "open" && !j.rev(c, b).started, "recorded as before the deployment, and is not")
	}
}
