// SPDX-License-Identifier: Apache-2.0

package hammer

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"cacert.org/emergency/pkg/history"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// CheckRules judges histories by the procedure's rules, written down a second time from procedure.md and sharing no code with
// the deciding side: it walks the events in their order and asks of each whether it was allowed by those before it. keys are
// the people's public keys (SubjectPublicKeyInfo) by key id. The error lists all that is wrong.
//
// It looks at order and separation: reviews, transfer, tests, forwarding and deployment each after what they need, by
// distinct humans, on one binding, signed by the person; no apply over an open veto, none twice, none at once with another;
// slots, deadlines and obligations once; a change of strategy on a ground that the history proves, the short road of a patch with
// all that it still asks for, and the update cycle by people who had no other part in it; a remote access permitted, granted and watched by others than its subject, its credential
// used once, and nothing ended while it may be usable.
func CheckRules(messages []history.Message, keys map[string][]byte) error {
	j := &judge{keys: keys, cases: map[string]*caseFile{}}
	for _, m := range messages {
		if m.Incident != "rulebook" {
			j.message(m)
		}
	}
	return errors.Join(j.errs...)
}

type judge struct {
	keys  map[string][]byte
	cases map[string]*caseFile
	errs  []error
}

// caseFile is what the rules need to remember of one incident.
type caseFile struct {
	id        string
	status    string // "", open, stood down, merged, closed
	position  uint64
	at        time.Time
	actor     *emergencyv1.Actor
	command   string
	approval  *emergencyv1.Approval
	requestID string
	requests  map[string]bool

	slots    map[string]string // slot -> holder
	revs     map[string]*revision
	vetoes   map[string]*vetoFile
	applied  []*applyFile
	waived   map[string]bool // control/revision
	facts    map[string]bool // what may be there once
	produced bool
	docket   *docket
	console  consoleFile
	// deviations of the event that is judged.
	deviations []emergencyv1.Deviation
	strategies strategyFile
}

type revision struct {
	id, binding, base, result, author, by string
	superseded                            bool
	first, second                         string // reviewer
	firstOK, secondOK                     bool
	transferred, onServer, forwarded      bool
	tests                                 map[string]bool
	observers                             map[string]bool
	dryRun                                time.Time
	dryClean                              bool
	started                               bool
	local, session                        bool
	onHost                                uint64
	cycle                                 *cycleFile
}

type vetoFile struct {
	rev, by string
	open    bool
}

type applyFile struct {
	rev                string
	executor, observer string
	state              string
}

func (j *judge) message(m history.Message) {
	var signed emergencyv1.SignedRecord
	var rec emergencyv1.Record
	if err := proto.Unmarshal(m.Data, &signed); err != nil {
		j.errs = append(j.errs, fmt.Errorf("sequence %d: %w", m.Sequence, err))
		return
	}
	if err := proto.Unmarshal(signed.GetRecord(), &rec); err != nil {
		j.errs = append(j.errs, fmt.Errorf("sequence %d: %w", m.Sequence, err))
		return
	}
	c, ok := j.cases[m.Incident]
	if !ok {
		c = &caseFile{
			id: m.Incident, slots: map[string]string{}, revs: map[string]*revision{}, vetoes: map[string]*vetoFile{}, waived: map[string]bool{},
			facts: map[string]bool{}, requests: map[string]bool{}, docket: newDocket(),
		}
		j.cases[m.Incident] = c
	}
	c.position, c.at = rec.GetFirstPosition()-1, rec.GetRecordedAt().AsTime()
	c.actor, c.command, c.approval, c.requestID = rec.GetActor(), rec.GetCommand(), rec.GetApproval(), rec.GetRequestId()
	refused := false
	for i, e := range rec.GetEvents() {
		c.position++
		_, name, _ := strings.Cut(e.GetType(), ".")
		if i == 0 && name != "CommandRefused" {
			j.want(c, c.fresh(), "request id %q of %s for %s is used a second time", c.requestID, c.who(), c.command)
		}
		payload, err := payloadOf(name, e.GetPayload())
		if err != nil {
			j.errs = append(j.errs, fmt.Errorf("%s/%d: %w", c.id, c.position, err))
			continue
		}
		c.deviations = e.GetDeviations()
		refused = refused || name == "CommandRefused"
		j.event(c, name, payload)
	}
	c.docket.done(&rec, signed.GetRecord(), refused)
}

func payloadOf(name string, b []byte) (proto.Message, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName("emergency.v1." + name))
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", name, err)
	}
	m := t.New().Interface()
	return m, proto.Unmarshal(b, m)
}

func (j *judge) want(c *caseFile, ok bool, format string, args ...any) {
	if !ok {
		j.errs = append(j.errs, fmt.Errorf("%s/%d (%s): %s", c.id, c.position, c.command, fmt.Sprintf(format, args...)))
	}
}

func (c *caseFile) who() string {
	if p := c.actor.GetPerson(); p != "" {
		return p
	}
	return c.actor.GetSystem().String() + "/" + c.actor.GetSystemName()
}

// fresh tells whether the request id was not used before by this actor for this command.
func (c *caseFile) fresh() bool {
	k := c.who() + "|" + c.command + "|" + c.requestID
	seen := c.requests[k]
	c.requests[k] = true
	return !seen
}

// once tells whether a fact was not recorded before.
func (c *caseFile) once(format string, args ...any) bool {
	k := fmt.Sprintf(format, args...)
	seen := c.facts[k]
	c.facts[k] = true
	return !seen
}

// afterEnd are the events that a closed or stood-down incident may still have.
var afterEnd = []string{
	"LogAnnotated", "LeadDecisionRecorded", "DeliveryReported", "ProcedureDocumented", "BoardSummaryRecorded", "ObligationOpened", "ObligationDueChanged",
	"ObligationDischarged", "ObligationOverdue", "ObligationEscalated", "ObserverConfirmed", "HealthRecorded", "ReplicationPushed", "ReplicationChecked",
	"DriftExplained", "VetoWithdrawn", "VetoOverruled", "CommandRefused", "SessionTerminated", "ConnectionDisabled", "CredentialProvenUnusable",
	"UpdateCycleEntered", "UpdateCycleConcluded", "FirstReviewRecorded", "SecondReviewRecorded", "PatchTransferred", "TestServerConfirmed", "TestReported",
	"VetoRaised", "LateRecordConfirmed", "CredentialStillUsable", "RoleAssumptionEnded", "SessionDiffCaptured", "LeftoversReported", "LeftoversExplained", "SessionSealed", "RecordingPlayed",
}

// event judges one event and notes what it changes.
func (j *judge) event(c *caseFile, name string, payload proto.Message) {
	_, declares := payload.(*emergencyv1.EmergencyDeclared)
	j.want(c, declares == (c.position == 1), "%s: the declaration is the first event, and the only one", name)
	switch c.status {
	case "merged":
		j.want(c, name == "CommandRefused", "%s after the incident was merged", name)
	case "closed":
		j.want(c, slices.Contains(afterEnd, name) || slices.Contains(afterEndToo, name), "%s after the incident was closed", name)
	case "stood down":
		j.want(c, slices.Contains(afterEnd, name) || slices.Contains(afterEndToo, name) || name == "IncidentClosed", "%s after the incident was stood down", name)
	}
	j.strategy(c, payload)
	j.console(c, payload)
	j.arbitration(c, payload)
	switch e := payload.(type) {
	case *emergencyv1.EmergencyDeclared:
		c.status = "open"
	case *emergencyv1.IncidentMerged:
		j.want(c, c.docket.undecided() == "", "merged while dispute %s is open", c.docket.undecided())
		j.want(c, !c.produced, "merged after the host was changed")
		c.status = "merged"
	case *emergencyv1.IncidentStoodDown:
		j.want(c, !c.produced, "stood down after the host was changed")
		c.status = "stood down"
	case *emergencyv1.IncidentClosed:
		j.want(c, c.running() == nil, "closed while an apply runs")
		j.want(c, c.docket.undecided() == "", "closed while dispute %s is open", c.docket.undecided())
		c.status = "closed"
	case *emergencyv1.DeadlineBreached:
		j.want(c, c.once("breach/%s", e.GetDeadline()), "deadline %s breached twice", e.GetDeadline())
		j.want(c, c.at.After(e.GetDueAt().AsTime()), "deadline %s breached before it was due", e.GetDeadline())
	case *emergencyv1.DeadlineWarned:
		j.want(c, c.once("warn/%s/%d", e.GetDeadline(), e.GetPercent()), "warned twice")
	case *emergencyv1.ObligationOpened:
		j.want(c, c.once("open/%s", e.GetId()), "obligation %s opened twice", e.GetId())
	case *emergencyv1.ObligationDischarged:
		j.want(c, c.facts["open/"+e.GetId()], "obligation %s discharged before it was opened", e.GetId())
		j.want(c, c.once("discharge/%s", e.GetId()), "obligation %s discharged twice", e.GetId())
	case *emergencyv1.ObligationOverdue:
		j.want(c, c.once("overdue/%s", e.GetId()), "obligation %s overdue twice", e.GetId())
	case *emergencyv1.ObligationEscalated:
		j.want(c, c.once("rung/%s/%d", e.GetId(), e.GetRung()), "obligation %s climbed rung %d twice", e.GetId(), e.GetRung())
	case *emergencyv1.ControlWaived:
		c.waived[fmt.Sprint(e.GetControl(), "/", e.GetBinding().GetRevision())] = true
	default:
		j.team(c, payload)
		j.review(c, payload)
		j.deploy(c, payload)
	}
}

func (j *judge) team(c *caseFile, payload proto.Message) {
	switch e := payload.(type) {
	case *emergencyv1.CallOutIssued:
		for _, p := range e.GetPages() {
			j.want(c, c.once("page/%s", p.GetPage()), "page %s is there twice", p.GetPage())
		}
	case *emergencyv1.RePaged:
		for _, p := range e.GetPages() {
			j.want(c, c.once("page/%s", p.GetPage()), "page %s is there twice", p.GetPage())
		}
	case *emergencyv1.DeliveryReported:
		j.want(c, c.facts["page/"+e.GetPage()], "delivery of page %s, which nobody sent", e.GetPage())
	case *emergencyv1.ResponderAccepted:
		j.want(c, c.slots[e.GetSlot()] == "", "slot %s is %s's, and %s took it", e.GetSlot(), c.slots[e.GetSlot()], e.GetPerson())
		c.slots[e.GetSlot()] = e.GetPerson()
	case *emergencyv1.ResponderDeclined:
		delete(c.slots, e.GetSlot())
	case *emergencyv1.StandbyStarted:
		c.slots[e.GetSlot()] = e.GetPerson()
	case *emergencyv1.StandbyCheckedIn:
		j.want(c, c.slots[e.GetSlot()] == e.GetPerson(), "%s checked in for slot %s of %q", e.GetPerson(), e.GetSlot(), c.slots[e.GetSlot()])
	case *emergencyv1.AckExpired:
		delete(c.slots, e.GetSlot())
	case *emergencyv1.SlotReopened:
		delete(c.slots, e.GetSlot())
	case *emergencyv1.StandbyEnded:
		if e.GetReason() == emergencyv1.StandbyEndReason_STANDBY_END_REASON_RELEASED {
			delete(c.slots, e.GetSlot())
		}
	}
}

// rev is the revision of a binding; the binding must be the registered one.
func (j *judge) rev(c *caseFile, b *emergencyv1.Binding) *revision {
	r := c.revs[b.GetRevision()]
	if r == nil {
		j.want(c, false, "revision %s was never registered", b.GetRevision())
		return &revision{tests: map[string]bool{}, observers: map[string]bool{}}
	}
	j.want(c, r.binding == b.GetDigest(), "%s has another binding than the registered one", r.id)
	return r
}

// current also wants that nothing replaced it.
func (j *judge) current(c *caseFile, b *emergencyv1.Binding) *revision {
	r := j.rev(c, b)
	j.want(c, !r.superseded, "%s was replaced before", r.id)
	return r
}

func (j *judge) noVeto(c *caseFile, r *revision) {
	for id, v := range c.vetoes {
		j.want(c, v.rev != r.id || !v.open, "veto %s of %s on %s is open", id, v.by, r.id)
	}
}

func (j *judge) enoughTests(c *caseFile, r *revision) {
	passed := 0
	for tester, ok := range r.tests {
		j.want(c, ok, "the test of %s failed", tester)
		if ok {
			passed++
		}
	}
	need := 2
	if c.waived[fmt.Sprint(emergencyv1.Control_CONTROL_TEST_QUORUM, "/", r.id)] {
		need = 1
	}
	j.want(c, passed >= need, "%d passing tests of %d", passed, need)
}

// distinct wants a person to be none of others.
func (j *judge) distinct(c *caseFile, what, person string, others ...string) {
	j.want(c, person != "", "%s is nobody", what)
	j.want(c, !slices.Contains(others, person), "%s %s is one of %v", what, person, others)
}

func (r *revision) testers() []string {
	var list []string
	for p := range r.tests {
		list = append(list, p)
	}
	if r.cycle != nil {
		for p := range r.cycle.tests {
			list = append(list, p)
		}
	}
	return list
}

func (j *judge) review(c *caseFile, payload proto.Message) {
	approves := func(v emergencyv1.ReviewVerdict) bool { return v == emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE }
	if j.cycle(c, payload) {
		return
	}
	j.phaseBefore(c, payload)
	switch e := payload.(type) {
	case *emergencyv1.PatchRegistered:
		j.shortRegister(c, e)
		id := e.GetBinding().GetRevision()
		j.want(c, c.revs[id] == nil, "revision %s registered twice", id)
		for _, o := range c.revs {
			j.want(c, o.binding != e.GetBinding().GetDigest(), "binding of %s is %s's", id, o.id)
		}
		j.signed(c, e.GetBinding())
		c.revs[id] = &revision{
			id: id, binding: e.GetBinding().GetDigest(), base: e.GetBaseTree(), result: e.GetResultTree(), author: e.GetAuthor(), by: c.who(),
			session: e.GetOrigin() == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION,
			tests:   map[string]bool{}, observers: map[string]bool{},
		}
	case *emergencyv1.PatchSuperseded:
		old := c.revs[e.GetOldRevision()]
		j.want(c, old != nil && !old.superseded, "%s was replaced although it was not current", e.GetOldRevision())
		if a := c.running(); a != nil {
			j.want(c, a.rev != e.GetOldRevision(), "%s was replaced while it is applied", a.rev)
		}
		if old != nil {
			old.superseded = true
		}
	case *emergencyv1.FirstReviewRecorded:
		r := j.current(c, e.GetBinding())
		j.signed(c, e.GetBinding())
		j.want(c, r.first == "", "%s has a first review", r.id)
		j.distinct(c, "first reviewer", e.GetReviewer(), append(r.testers(), r.author, r.by, r.second)...)
		r.first, r.firstOK = e.GetReviewer(), approves(e.GetVerdict())
	case *emergencyv1.PatchTransferred:
		r := j.current(c, e.GetBinding())
		j.want(c, r.firstOK && c.who() == r.first, "transferred by %s; the first review is %s's, approved %t", c.who(), r.first, r.firstOK)
		j.want(c, e.GetCommitTree() == r.result, "the repository holds another tree")
		j.noVeto(c, r)
		r.transferred = true
	case *emergencyv1.TestServerConfirmed:
		r := j.current(c, e.GetBinding())
		j.want(c, r.transferred && e.GetTree() == r.result, "test server: transferred %t, right tree %t", r.transferred, e.GetTree() == r.result)
		r.onServer = true
	case *emergencyv1.TestReported:
		r := j.current(c, e.GetBinding())
		j.signed(c, e.GetBinding())
		j.want(c, r.onServer, "tested before the test server had it")
		j.want(c, e.GetEnvironmentTree() == r.result && e.GetBugNote() != "", "tested on another tree, or without a note")
		j.distinct(c, "tester", e.GetTester(), r.author, r.by, r.first, r.second)
		r.tests[e.GetTester()] = e.GetResult() == emergencyv1.TestResult_TEST_RESULT_PASS
	case *emergencyv1.SecondReviewRecorded:
		r := j.current(c, e.GetBinding())
		j.signed(c, e.GetBinding())
		j.want(c, r.firstOK && r.second == "", "second review: first approved %t, a second one by %q", r.firstOK, r.second)
		j.distinct(c, "second reviewer", e.GetReviewer(), append(r.testers(), r.author, r.by, r.first)...)
		j.enoughTests(c, r)
		j.noVeto(c, r)
		r.second, r.secondOK = e.GetReviewer(), approves(e.GetVerdict())
	case *emergencyv1.PatchForwarded:
		r := j.current(c, e.GetBinding())
		j.signed(c, e.GetBinding())
		if c.now() > 1 {
			j.shortForward(c, r, e)
			return
		}
		j.want(c, r.secondOK && c.who() == r.second, "forwarded by %s; the second review is %s's, approved %t", c.who(), r.second, r.secondOK)
		j.noVeto(c, r)
		r.forwarded = true
	default:
		j.veto(c, payload)
	}
}

func (j *judge) veto(c *caseFile, payload proto.Message) {
	switch e := payload.(type) {
	case *emergencyv1.VetoRaised:
		r := j.rev(c, e.GetBinding())
		j.want(c, !r.superseded || r.cycle != nil, "%s was replaced before", r.id)
		j.signed(c, e.GetBinding())
		j.want(c, c.vetoes[e.GetVeto()] == nil, "veto %s raised twice", e.GetVeto())
		j.want(c, e.GetAfterApplyStarted() == r.started, "after the apply started: said %t, was %t", e.GetAfterApplyStarted(), r.started)
		j.distinct(c, "veto's owner", e.GetRaisedBy(), r.author)
		for _, v := range c.vetoes {
			j.want(c, !v.open || v.rev != r.id || v.by != e.GetRaisedBy(), "%s has two open vetoes on %s", v.by, r.id)
		}
		c.vetoes[e.GetVeto()] = &vetoFile{r.id, e.GetRaisedBy(), true}
	case *emergencyv1.VetoWithdrawn:
		v := c.vetoes[e.GetVeto()]
		j.want(c, v != nil && v.open && v.by == c.who(), "veto %s withdrawn by %s", e.GetVeto(), c.who())
		if v != nil {
			v.open = false
		}
	case *emergencyv1.VetoOverruled:
		v := c.vetoes[e.GetVeto()]
		j.want(c, v != nil && v.open && v.by != c.who() && c.revs[v.rev].author != c.who(), "veto %s overruled by %s", e.GetVeto(), c.who())
		if v != nil {
			v.open = false
		}
	}
}

func (c *caseFile) running() *applyFile {
	for _, a := range c.applied {
		if slices.Contains([]string{"applying", "applied", "failed", "backing out", "rolling back"}, a.state) {
			return a
		}
	}
	return nil
}

// attempt is the latest attempt on a revision; it must be in one of these states.
func (j *judge) attempt(c *caseFile, b *emergencyv1.Binding, states ...string) *applyFile {
	r := j.rev(c, b)
	for i := len(c.applied) - 1; i >= 0; i-- {
		if a := c.applied[i]; a.rev == r.id {
			j.want(c, slices.Contains(states, a.state), "the apply of %s is %s, not %v", r.id, a.state, states)
			return a
		}
	}
	j.want(c, false, "%s was never applied", r.id)
	return &applyFile{}
}

func (j *judge) deploy(c *caseFile, payload proto.Message) {
	switch e := payload.(type) {
	case *emergencyv1.DryRunRecorded:
		r := j.current(c, e.GetBinding())
		j.want(c, r.forwarded || c.now() > 1 && r.local, "dry run before %s was forwarded", r.id)
		r.dryRun, r.dryClean = c.at, e.GetClean() && e.GetHostTree() == r.base && e.GetResultTree() == r.result
		j.want(c, !e.GetClean() || r.dryClean, "called clean on other trees")
	case *emergencyv1.ObserverConfirmed:
		r := j.rev(c, e.GetBinding())
		if e.GetKind() == emergencyv1.ObserverKind_OBSERVER_KIND_BEFORE {
			j.want(c, !r.superseded, "%s was replaced before", r.id)
			r.observers[e.GetObserver()] = true
		}
	case *emergencyv1.ApplyStarted:
		j.start(c, e)
	case *emergencyv1.PatchApplied:
		j.attempt(c, e.GetBinding(), "applying").state = "applied"
		j.rev(c, e.GetBinding()).onHost = c.position
	case *emergencyv1.PatchApplyFailed:
		j.attempt(c, e.GetBinding(), "applying").state = "failed"
	case *emergencyv1.DeployVerified:
		a := j.attempt(c, e.GetBinding(), "applying", "applied")
		j.want(c, e.GetReport().GetPostTree() == j.rev(c, e.GetBinding()).result, "verified with another tree than the reviewed one")
		a.state = "verified"
	case *emergencyv1.DeployMismatch:
		a := j.attempt(c, e.GetBinding(), "applying", "applied")
		j.want(c, e.GetReport().GetPostTree() != j.rev(c, e.GetBinding()).result, "a mismatch that is none")
		a.state = "mismatch"
	case *emergencyv1.BackOutStarted:
		a := j.attempt(c, e.GetBinding(), "failed", "mismatch", "unproven")
		if other := c.running(); other != nil {
			j.want(c, other == a, "backing out %s while %s is applied", a.rev, other.rev)
		}
		a.state = "backing out"
	case *emergencyv1.RollBackStarted:
		a := j.attempt(c, e.GetBinding(), "verified", "mismatch")
		j.signed(c, e.GetBinding())
		j.want(c, c.running() == nil, "rolled back while another apply runs")
		j.distinct(c, "executor", e.GetExecutor(), e.GetObserver())
		a.state = "rolling back"
	case *emergencyv1.PatchBackedOut:
		j.attempt(c, e.GetBinding(), "failed", "backing out").state = "backed out"
	case *emergencyv1.RolledBack:
		j.attempt(c, e.GetBinding(), "rolling back").state = "rolled back"
	case *emergencyv1.BackOutUnproven:
		j.attempt(c, e.GetBinding(), "failed", "backing out", "rolling back").state = "unproven"
	}
}

// start judges the moment from which the host may change: everything before it must be there.
func (j *judge) start(c *caseFile, e *emergencyv1.ApplyStarted) {
	r := j.current(c, e.GetBinding())
	j.signed(c, e.GetBinding())
	if c.now() > 1 {
		j.shortStart(c, r, e)
	} else {
		j.want(c, r.firstOK && r.transferred && r.onServer && r.secondOK && r.forwarded, "applied with first review %t, transfer %t, test server %t, second review %t, forward %t",
			r.firstOK, r.transferred, r.onServer, r.secondOK, r.forwarded)
		j.enoughTests(c, r)
	}
	j.noVeto(c, r)
	j.want(c, r.dryClean && c.at.Sub(r.dryRun) <= 2*time.Hour, "no clean dry run within two hours")
	if a := c.running(); a != nil {
		j.want(c, false, "%s is still being applied", a.rev)
	}
	j.want(c, !r.started, "%s was applied before", r.id)
	j.distinct(c, "executor", e.GetExecutor(), append(r.testers(), r.author, r.by, r.first, r.second)...)
	j.want(c, e.GetExecutor() == c.who(), "started by %s in the name of %s", c.who(), e.GetExecutor())
	switch {
	case e.GetObserver() == "" && c.now() == 1:
		j.want(c, c.waived[fmt.Sprint(emergencyv1.Control_CONTROL_OBSERVER, "/", r.id)], "nobody observes and nobody waived it")
	case e.GetObserver() != "":
		j.distinct(c, "observer", e.GetObserver(), e.GetExecutor())
		j.want(c, r.observers[e.GetObserver()], "%s never confirmed to observe", e.GetObserver())
	}
	r.started, c.produced = true, true
	c.applied = append(c.applied, &applyFile{rev: r.id, executor: e.GetExecutor(), observer: e.GetObserver(), state: "applying"})
}

// signed wants the person's own signature over this binding, in this command of this incident.
func (j *judge) signed(c *caseFile, b *emergencyv1.Binding) {
	a := c.approval
	public, known := j.keys[a.GetKeyId()]
	if !known {
		j.want(c, false, "not signed by a person's key")
		return
	}
	j.want(c, verify(public, a.GetPayloadType(), a.GetPayload(), a.GetSignature()), "the person's signature is wrong")
	var st emergencyv1.Statement
	if err := proto.Unmarshal(a.GetPayload(), &st); err != nil {
		j.want(c, false, "what was signed does not decode: %v", err)
		return
	}
	j.want(c, st.GetIncident() == c.id && st.GetCommand() == c.command && st.GetPerson() == c.who() && st.GetRequestId() == c.requestID &&
		(b == nil || proto.Equal(st.GetBinding(), b)), "signed something else: %v", &st)
}

func verify(public []byte, payloadType string, payload, signature []byte) bool {
	key, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return false
	}
	message := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
	switch k := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, signature)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(k, sum[:], signature)
	}
	return false
}
