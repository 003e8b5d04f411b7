// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"strings"
	"time"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Deployment (seed 1.9; procedure.md 4.4): dry run, observer, gate, apply, verify, back out, roll back, health.

// hostOf is the incident's host; a drill never reaches a real one and a real incident never uses a drill's (G11).
func (d *decision) hostOf(named string) (string, *Refusal) {
	host := d.s.Host()
	if host == "" {
		return "", refuse(ReasonDrillBoundary, "the policy names no drill host for system %s", d.s.Declared.System).allow("PublishPolicy", "", "the Board names one")
	}
	if named != "" && named != host {
		return "", refuse(ReasonDrillBoundary, "host %s is not the host of this incident, which is %s", named, host).allow(d.row.name, host, "name %s or no host", host)
	}
	return host, nil
}

func dryRunFields(f *fields, c *emergencyv1.DryRunRequest) {
	f.binding(c.GetBinding())
	f.optionalWord("host", c.GetHost())
}

func decideDryRun(d *decision, c *emergencyv1.DryRunRequest) *Refusal {
	r, refusal := d.current(c.GetBinding())
	if refusal != nil {
		return refusal
	}
	host, refusal := d.hostOf(c.GetHost())
	if refusal != nil {
		return refusal
	}
	if refusal := d.forwarded(r); refusal != nil {
		return refusal
	}
	if d.hypothetical {
		return nil
	}
	a := d.env.Facts.Agent
	if a == nil || a.HostTree != r.BaseTree {
		got := "no agent answered"
		if a != nil {
			got = "it holds " + a.HostTree
		}
		return refuse(ReasonHostBaseMismatch, "host %s does not hold the base tree %s of %s: %s", host, r.BaseTree, r.ID, got).
			allow("RegisterPatch", r.ID, "make a revision against what the host runs").allow("CheckReplication", "", "find out how host and branch differ")
	}
	d.emit(&emergencyv1.DryRunRecorded{
		Binding: r.bind(), Host: host, HostTree: a.HostTree, ResultTree: a.ResultTree, Clean: a.Clean && a.ResultTree == r.ResultTree,
		RejectedHunks: uint32(a.Rejected), FilesChanged: uint32(a.Files),
	})
	return nil
}

// forwarded refuses a revision that was not forwarded as the strategy asks, and names the first step that is missing before
// that.
func (d *decision) forwarded(r *Revision) *Refusal {
	if d.s.Strategy > 1 {
		return d.handedOver(r)
	}
	if r.Forward != nil && r.Forward.Complete {
		return nil
	}
	refusal := refuse(ReasonNotForwarded, "%s was not forwarded to the critical team", r.ID)
	if r.Forward != nil {
		refusal.Message += " after both reviews; that it was under another strategy is not enough"
	}
	if missing := r.each(d.firstMissing, d.secondMissing); missing != nil {
		refusal.Allow = missing.Allow
		return refusal
	}
	return refusal.allow("Forward", r.ID, "%s forwards it", r.Second.By)
}

func observerFields(f *fields, c *emergencyv1.ConfirmObserverRequest) {
	f.binding(c.GetBinding())
	f.optionalWord("executor", c.GetExecutor())
}

// decideObserver records that a second critical admin will observe, or has checked the host's tree (SP 4.1).
func decideObserver(d *decision, c *emergencyv1.ConfirmObserverRequest) *Refusal {
	after := c.GetKind() == emergencyv1.ObserverKind_OBSERVER_KIND_AFTER
	named := d.current
	if after {
		named = d.bound // what was deployed is checked even if a newer revision is there (10.16)
	}
	r, refusal := named(c.GetBinding())
	if refusal != nil {
		return refusal
	}
	executor := c.GetExecutor()
	if a := d.s.ApplyOf(r.ID); a != nil {
		executor = a.Executor
	}
	if executor == d.person {
		return refuse(ReasonSamePerson, "%s is the executor and cannot be the observer too", d.person).under("X10 (SP 1.2, 4.1)").
			allow("ConfirmObserver", r.ID, "%s", d.another(ca))
	}
	ev := &emergencyv1.ObserverConfirmed{Binding: r.bind(), Kind: emergencyv1.ObserverKind_OBSERVER_KIND_BEFORE, Observer: d.person}
	if after {
		if d.s.ApplyOf(r.ID) == nil {
			return refuse(ReasonNotDeployed, "%s was not applied", r.ID)
		}
		if a := d.env.Facts.Agent; !d.hypothetical && (a == nil || a.HostTree != r.ResultTree) {
			return refuse(ReasonTreeMismatch, "the host does not hold the reviewed tree %s now", r.ResultTree).allow("CheckReplication", "", "find out how it differs")
		} else if a != nil {
			ev.HostTree = a.HostTree
		}
		ev.Kind = emergencyv1.ObserverKind_OBSERVER_KIND_AFTER
	} else if d.s.Status != Open {
		return refuse(ReasonIncidentState, "incident %s is %s", d.s.Incident, statusWord(d.s.Status))
	}
	d.emit(ev)
	return nil
}

func startApplyFields(f *fields, c *emergencyv1.StartApplyRequest) {
	f.binding(c.GetBinding())
	f.optionalWord("host", c.GetHost())
	f.optionalWord("observer", c.GetObserver())
}

func startApplyClaims(c *emergencyv1.StartApplyRequest) []*emergencyv1.Claim {
	by := "agent"
	if c.GetByHand() {
		by = "hand"
	}
	return []*emergencyv1.Claim{claim("host", c.GetHost()), claim("observer", c.GetObserver()), claim("no_observer_reason", c.GetNoObserverReason()), claim("applied_by", by)}
}

// decideStartApply lets the executor start when the gate is green. From here on the world may change, so everything that
// can be refused is refused here; whichever of a veto and this is recorded first wins (6, rule 2).
func decideStartApply(d *decision, c *emergencyv1.StartApplyRequest) *Refusal {
	r, refusal := d.current(c.GetBinding())
	if refusal != nil {
		return refusal
	}
	host, refusal := d.hostOf(c.GetHost())
	if refusal != nil {
		return refusal
	}
	if refusal := d.forwarded(r); refusal != nil {
		return refusal
	}
	if refusal := d.unspent(r); refusal != nil {
		return refusal
	}
	if refusal := d.gate(r); refusal != nil {
		return refusal
	}
	dry := d.s.cleanDryRun(r, host, d.at)
	if dry == nil {
		return refuse(ReasonDryRunMissing, "no clean dry run of %s on %s within the last %s", r.ID, host, d.s.Policy.Duration("dry_run.valid")).allow("DryRun", r.ID, "run it; deploying from the command line does")
	}
	if a := d.s.RunningApply(); a != nil {
		return d.applyRunning(a)
	}
	if c.GetObserver() == d.person {
		return refuse(ReasonSamePerson, "%s cannot be executor and observer", d.person).under("X10 (SP 1.2, 4.1)").allow("ConfirmObserver", r.ID, "%s", d.another(ca))
	}
	if r.Author == d.person || r.By == d.person || r.reviewedBy(d.person) || r.testedBy(d.person) {
		return refuse(ReasonSeparationOfDuty, "%s wrote, reviewed or tested %s", d.person, r.ID).allow("StartApply", r.ID, "%s", d.another(ca))
	}
	observer, refusal := d.observer(r, c)
	if refusal != nil {
		return refusal
	}
	d.emit(&emergencyv1.ApplyStarted{
		Binding: r.bind(), Host: host, Executor: d.person, Observer: observer, Gate: d.s.gateEvidence(r, dry, observer), ByHand: c.GetByHand(),
		NoObserverReason: d.seal(c.GetNoObserverReason()),
	}, d.applyDeviations(r, observer)...)
	return nil
}

func (d *decision) applyRunning(a *Apply) *Refusal {
	return refuse(ReasonApplyRunning, "the apply of %s on %s is not finished", a.Revision, a.Host).
		allow("ReportTree", a.Revision, "wait for the agent's report, or for the executor's under an observer")
}

func (d *decision) applyDeviations(r *Revision, observer string) []emergencyv1.Deviation {
	var list []emergencyv1.Deviation
	if observer == "" {
		list = append(list, emergencyv1.Deviation_DEVIATION_NO_OBSERVER)
	}
	if d.s.Strategy == 1 && passes(r) < d.s.Policy.Count("test.quorum") {
		list = append(list, emergencyv1.Deviation_DEVIATION_TEST_QUORUM_WAIVED)
	}
	return list
}

// unspent refuses a revision that was taken back: a new one is needed (6, rule 3).
func (d *decision) unspent(r *Revision) *Refusal {
	a := d.s.ApplyOf(r.ID)
	if a == nil || a.Running() {
		return nil
	}
	return refuse(ReasonRevisionSpent, "%s was already applied and is %s", r.ID, statusWord(Status(a.State))).allow("RegisterPatch", r.ID, "register a new revision")
}

// gate is green or says the first thing that is missing. The agent on the host runs the same function on the history it
// has verified itself, before it touches a file.
func (d *decision) gate(r *Revision) *Refusal {
	if d.s.Strategy > 1 {
		return r.each(d.noVeto, d.notSentBack, d.handedOver)
	}
	return r.each(d.noVeto, d.firstMissing, d.secondMissing, d.tested)
}

func (s *State) cleanDryRun(r *Revision, host string, now time.Time) *DryRun {
	valid := s.Policy.Duration("dry_run.valid")
	for i := len(s.DryRuns) - 1; i >= 0; i-- {
		if x := &s.DryRuns[i]; x.Revision == r.ID && x.Host == host {
			if x.Clean && now.Sub(x.At) <= valid {
				return x
			}
			return nil // a later dry run that was not clean, or is too old, counts against an earlier one
		}
	}
	return nil
}

// observer is the confirmed second critical admin, or empty where the team lead waived the control, or under strategies 2 and 3
// where the executor says why there is none (10.5).
func (d *decision) observer(r *Revision, c *emergencyv1.StartApplyRequest) (string, *Refusal) {
	for i := len(d.s.Observers) - 1; i >= 0; i-- {
		o := d.s.Observers[i]
		if o.Revision == r.ID && !o.After && o.By != d.person && (c.GetObserver() == "" || c.GetObserver() == o.By) && d.holds(o.By, ca) {
			return o.By, nil
		}
	}
	excused := d.s.Waived(emergencyv1.Control_CONTROL_OBSERVER, r.ID) != nil
	if d.s.Strategy > 1 {
		excused = strings.TrimSpace(c.GetNoObserverReason()) != "" || d.hypothetical
	}
	if excused && c.GetObserver() == "" {
		return "", nil
	}
	if d.s.Strategy > 1 {
		return "", refuse(ReasonObserverMissing, "no second critical admin has confirmed to observe %s, and why there is none is not said", r.ID).
			allow("ConfirmObserver", r.ID, "have it confirmed by %s", d.another(ca)).
			allow("StartApply", r.ID, "say why nobody observes (no observer reason); it is recorded as debt")
	}
	return "", refuse(ReasonObserverMissing, "no second critical admin has confirmed to observe %s", r.ID).
		allow("ConfirmObserver", r.ID, "have it confirmed by %s", d.another(ca)).
		allow("WaiveControl", r.ID, "when none can be had, a waiver as debt; ask %s", d.whoHas(roles(cl)))
}

// gateEvidence is the green gate, line by line, with the positions that prove each.
func (s *State) gateEvidence(r *Revision, dry *DryRun, observer string) []*emergencyv1.GateCheck {
	line := func(check string, positions ...uint64) *emergencyv1.GateCheck {
		return &emergencyv1.GateCheck{Check: check, Passed: true, Evidence: positions}
	}
	var tests []uint64
	for _, t := range r.Tests {
		tests = append(tests, t.Position)
	}
	if w := s.Waived(emergencyv1.Control_CONTROL_TEST_QUORUM, r.ID); w != nil {
		tests = append(tests, w.Position)
	}
	var seen []uint64
	for _, o := range s.Observers {
		if o.Revision == r.ID && !o.After && o.By == observer {
			seen = append(seen, o.Position)
		}
	}
	if w := s.Waived(emergencyv1.Control_CONTROL_OBSERVER, r.ID); w != nil && observer == "" {
		seen = append(seen, w.Position)
	}
	list := []*emergencyv1.GateCheck{line("current", r.Position), line("veto")}
	if s.Strategy > 1 {
		list = append(list, line("local_test", r.Forward.Position))
	} else {
		list = append(list, line("first_review", r.First.Position), line("tests", tests...), line("second_review", r.Second.Position))
	}
	list = append(list, line("forwarded", r.Forward.Position), line("host_base", dry.Position), line("dry_run", dry.Position))
	if s.Strategy == 1 || observer != "" {
		list = append(list, line("observer", seen...))
	}
	return list
}

// running is the unfinished attempt on the revision that a report names. After the start the world has changed: a stale
// revision is no reason to refuse the truth about it (10.16).
func (d *decision) running(b *emergencyv1.Binding) (*Revision, *Apply, *Refusal) {
	r, refusal := d.bound(b)
	if refusal != nil {
		return nil, nil, refusal
	}
	a := d.s.ApplyOf(r.ID)
	if a == nil || !a.Running() {
		return nil, nil, refuse(ReasonNoApplyRunning, "no apply of %s is running", r.ID).allow("StartApply", r.ID, "the executor starts it")
	}
	return r, a, d.reporter(a)
}

// reporter lets only the host's own agent report, or the executor who has an observer and applied by hand. Without an observer, which
// strategies 2 and 3 allow, the executor may still say that it is done by hand: the agent then looks and reports the tree.
func (d *decision) reporter(a *Apply) *Refusal {
	if d.person == "" {
		if d.env.Actor.SystemName == "" && d.agentName() == a.Host || d.env.Actor.SystemName == a.Host {
			return nil
		}
		return refuse(ReasonRole, "agent %s does not serve host %s", d.agentName(), a.Host)
	}
	alone := a.ByHand && a.NoObserverSaid && d.row.name == "ReportApply"
	if d.person == a.Executor && (a.Observer != "" || alone) {
		return nil
	}
	return refuse(ReasonRole, "the report is for the agent on %s, or for the executor under an observer", a.Host)
}

func (d *decision) agentName() string {
	if k, ok := d.env.Book.Key(d.env.Actor.KeyID); ok {
		return k.Key.GetSystemName()
	}
	return d.env.Actor.SystemName
}

func (d *decision) manual() []emergencyv1.Deviation {
	if d.person == "" {
		return nil
	}
	return []emergencyv1.Deviation{emergencyv1.Deviation_DEVIATION_MANUAL_TREE_REPORT}
}

func reportApplyFields(f *fields, c *emergencyv1.ReportApplyRequest) {
	f.binding(c.GetBinding())
	f.want(c.GetOutcome() != 0, "outcome", "applied or failed")
}

func decideReportApply(d *decision, c *emergencyv1.ReportApplyRequest) *Refusal {
	r, a, refusal := d.running(c.GetBinding())
	if refusal != nil {
		return refusal
	}
	if a.State != Applying {
		return refuse(ReasonNoApplyRunning, "the apply of %s is already %s", r.ID, statusWord(Status(a.State)))
	}
	if c.GetOutcome() == emergencyv1.ApplyOutcome_APPLY_OUTCOME_APPLIED {
		d.emit(&emergencyv1.PatchApplied{Binding: r.bind(), Detail: d.seal(c.GetDetail())}, d.manual()...)
	} else {
		d.emit(&emergencyv1.PatchApplyFailed{Binding: r.bind(), Detail: d.seal(c.GetDetail())}, d.manual()...)
	}
	return nil
}

func reportTreeFields(f *fields, c *emergencyv1.ReportTreeRequest) {
	f.binding(c.GetBinding())
	f.tree("pre_tree", c.GetPreTree())
	f.tree("post_tree", c.GetPostTree())
}

// decideReportTree judges the host's tree against what it must be: the reviewed tree after an apply, the former tree after
// a back-out or roll-back. Nothing is refused here, the world is as it is (10.16).
func decideReportTree(d *decision, c *emergencyv1.ReportTreeRequest) *Refusal {
	r, a, refusal := d.running(c.GetBinding())
	if refusal != nil {
		return refusal
	}
	report := &emergencyv1.TreeReport{
		PreTree: c.GetPreTree(), PostTree: c.GetPostTree(), ExpectedTree: r.ResultTree, PathCount: uint32(len(c.GetChangedPaths())), Paths: d.seal(lines(c.GetChangedPaths())),
	}
	switch a.State {
	case Applying, Applied:
		if a.State == Applying && c.GetPostTree() != r.BaseTree {
			d.emit(&emergencyv1.PatchApplied{Binding: r.bind()}, d.manual()...) // the host was changed, whether or not that was reported
		}
		if c.GetPostTree() == r.ResultTree {
			d.emit(&emergencyv1.DeployVerified{Binding: r.bind(), Report: report}, d.manual()...)
		} else {
			d.emit(&emergencyv1.DeployMismatch{Binding: r.bind(), Report: report}, append(d.manual(), emergencyv1.Deviation_DEVIATION_DEPLOY_MISMATCH)...)
		}
	case ApplyFailed, BackingOut, RollingBack:
		report.ExpectedTree = a.former(r)
		d.back(r, a, report)
	case Verified, Mismatch, BackedOut, BackOutUnproven, RolledBack:
	}
	return nil
}

// former is the tree that a back-out or roll-back has to bring back: the one the host was found with. Before the first
// report that is the base tree, as the dry run saw it.
func (a *Apply) former(r *Revision) string {
	if a.PreTree != "" {
		return a.PreTree
	}
	return r.BaseTree
}

func (d *decision) back(r *Revision, a *Apply, report *emergencyv1.TreeReport) {
	switch {
	case report.GetPostTree() != report.GetExpectedTree():
		d.emit(&emergencyv1.BackOutUnproven{Binding: r.bind(), Report: report}, d.manual()...)
	case a.State == RollingBack:
		d.emit(&emergencyv1.RolledBack{Binding: r.bind(), Report: report}, d.manual()...)
	default:
		d.emit(&emergencyv1.PatchBackedOut{Binding: r.bind(), Report: report}, d.manual()...)
	}
}

func backOutFields(f *fields, c *emergencyv1.BackOutRequest) {
	f.binding(c.GetBinding())
	f.reason(c.GetReason(), 5)
}

// decideBackOut asks for the former tree after a failed or mismatched apply, or again when a back-out was not proven. It
// never asks for a step-up (G8): going back must be easy.
func decideBackOut(d *decision, c *emergencyv1.BackOutRequest) *Refusal {
	r, refusal := d.bound(c.GetBinding())
	if refusal != nil {
		return refusal
	}
	a := d.s.ApplyOf(r.ID)
	if a == nil || a.State != ApplyFailed && a.State != Mismatch && a.State != BackOutUnproven {
		return refuse(ReasonNothingToBackOut, "%s has no failed or differing apply", r.ID).allow("RollBack", r.ID, "a verified patch is rolled back")
	}
	if other := d.s.RunningApply(); other != nil && other.Revision != r.ID {
		return d.applyRunning(other)
	}
	d.emit(&emergencyv1.BackOutStarted{Binding: r.bind(), Host: a.Host, TargetTree: a.former(r), Reason: d.seal(c.GetReason())})
	return nil
}

func rollBackFields(f *fields, c *emergencyv1.RollBackRequest) {
	f.binding(c.GetBinding())
	f.reason(c.GetReason(), 5)
	f.word("observer", c.GetObserver())
}

func rollBackClaims(c *emergencyv1.RollBackRequest) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{claim("reason", c.GetReason()), claim("observer", c.GetObserver())}
}

func decideRollBack(d *decision, c *emergencyv1.RollBackRequest) *Refusal {
	r, refusal := d.bound(c.GetBinding())
	if refusal != nil {
		return refusal
	}
	a := d.s.ApplyOf(r.ID)
	if a == nil || a.State != Verified && a.State != Mismatch {
		return refuse(ReasonNotDeployed, "%s is not on the host", r.ID)
	}
	if c.GetObserver() == d.person {
		return refuse(ReasonSamePerson, "%s cannot be executor and observer", d.person).under("X10 (SP 1.2, 4.1)").allow("RollBack", r.ID, "name another of %s", d.whoHas(roles(ca)))
	}
	if !d.holds(c.GetObserver(), ca) && !(d.hypothetical && c.GetObserver() == "") {
		return refuse(ReasonObserverMissing, "%s is no critical admin and cannot observe", c.GetObserver()).allow("RollBack", r.ID, "name one of %s", d.whoHas(roles(ca)))
	}
	if other := d.s.RunningApply(); other != nil {
		return d.applyRunning(other)
	}
	d.emit(&emergencyv1.RollBackStarted{Binding: r.bind(), Host: a.Host, TargetTree: a.former(r), Executor: d.person, Observer: c.GetObserver(), Reason: d.seal(c.GetReason())})
	return nil
}

func healthFields(f *fields, c *emergencyv1.RecordHealthRequest) {
	f.binding(c.GetBinding())
	f.want(c.GetResult() != 0, "result", "good, degraded or bad")
}

func decideHealth(d *decision, c *emergencyv1.RecordHealthRequest) *Refusal {
	r, refusal := d.bound(c.GetBinding())
	if refusal != nil {
		return refusal
	}
	a := d.s.ApplyOf(r.ID)
	if a == nil || a.Applied.Position == 0 {
		return refuse(ReasonNotDeployed, "%s was not applied", r.ID).allow("StartApply", r.ID, "deploy it first")
	}
	d.emit(&emergencyv1.HealthRecorded{Binding: r.bind(), Result: c.GetResult(), Checks: d.seal(c.GetChecks())})
	return nil
}
