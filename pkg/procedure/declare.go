// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"time"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The incident as a whole: declaration (seed 1.1), merge, stand-down, waivers, lead decision, notes and close
// (procedure.md 4.1).

func declareFields(f *fields, c *emergencyv1.DeclareRequest) {
	f.word("system", c.GetSystem())
	f.want(c.GetSeverity() != 0, "severity", "high or normal (SP 5.3.1)")
	f.want(c.GetReasonClass() != 0, "reason_class", "vulnerability, exploit, outage, data or other")
	f.want(c.GetSymptom() != "", "symptom", "what is seen, in words")
	f.reason(c.GetReason(), 10)
}

func decideDeclare(d *decision, c *emergencyv1.DeclareRequest) *Refusal {
	policy := d.env.Book.PolicyInForce(d.at)
	if policy == nil {
		return refuse(ReasonPolicyMissing, "no policy is in force").allow("PublishPolicy", "", "the Board publishes a policy")
	}
	if _, ok := policy.System(c.GetSystem()); !ok {
		known := ""
		for _, s := range policy.Systems() {
			known += " " + s.GetSystem()
		}
		return refuse(ReasonField, "system %q is not in the policy; it knows:%s", c.GetSystem(), known).allow("Declare", "", "name one of:%s", known)
	}
	d.emit(&emergencyv1.EmergencyDeclared{
		System: c.GetSystem(), Component: d.seal(c.GetComponent()), Symptom: d.seal(c.GetSymptom()), Severity: c.GetSeverity(),
		ReasonClass: c.GetReasonClass(), Reason: d.seal(c.GetReason()), Drill: c.GetDrill(),
		Policy: policy.Bytes, PolicyNumber: policy.Number, PossibleDuplicates: d.env.Facts.Duplicates,
	})
	return nil
}

func mergeFields(f *fields, c *emergencyv1.MergeIntoRequest) {
	f.want(incidentForm.MatchString(c.GetTarget()), "target", "an incident id such as e20261124.1")
	f.want(c.GetTarget() != c.GetMeta().GetIncident(), "target", "another incident than the duplicate itself")
	f.reason(c.GetReason(), 10)
}

func absorbFields(f *fields, c *emergencyv1.AbsorbDuplicateRequest) {
	f.want(incidentForm.MatchString(c.GetSource()), "source", "an incident id such as e20261124.1")
	f.want(digestForm.MatchString(c.GetSourceHeadHash()), "source_head_hash", "64 lower-case hex digits")
}

// mergeable holds for both halves of a merge, so that no half can be recorded without the other being allowed.
func mergeable(duplicate, target *State) *Refusal {
	if target == nil || target.Status == Absent {
		return refuse(ReasonIncident, "there is no such incident to merge into")
	}
	switch {
	case target.Status != Open:
		return refuse(ReasonTargetState, "%s is %s", target.Incident, statusWord(target.Status))
	case !target.Declared.At.Before(duplicate.Declared.At):
		return refuse(ReasonMergeIntoLater, "%s was not declared before %s", target.Incident, duplicate.Incident).
			allow("MergeInto", target.Incident, "merge %s into %s instead", target.Incident, duplicate.Incident)
	case target.Declared.Drill != duplicate.Declared.Drill:
		return refuse(ReasonDrillBoundary, "a drill and a real emergency cannot be merged")
	case duplicate.ProductionEffect():
		return refuse(ReasonHasProductionEffect, "%s already changed the critical host", duplicate.Incident)
	case duplicate.rulingOwed() != nil:
		return refuse(ReasonOpenDispute, "a ruling on %s is owed in %s", duplicate.rulingOwed().ID, duplicate.Incident)
	case duplicate.OpenGrant() != nil:
		return openGrantRefusal(duplicate)
	case duplicate.Strategy > target.Strategy:
		return refuse(ReasonStrategy, "%s is handled by strategy %d, %s by %d", duplicate.Incident, duplicate.Strategy, target.Incident, target.Strategy)
	}
	return nil
}

func decideMergeInto(d *decision, c *emergencyv1.MergeIntoRequest) *Refusal {
	if refusal := mergeable(d.s, d.env.Facts.Other); refusal != nil {
		return refusal
	}
	d.emit(&emergencyv1.IncidentMerged{Target: c.GetTarget(), Reason: c.GetReason()})
	return nil
}

func decideAbsorb(d *decision, c *emergencyv1.AbsorbDuplicateRequest) *Refusal {
	source := d.env.Facts.Other
	if source == nil || source.Status != Open {
		return refuse(ReasonTargetState, "the duplicate %s is not open", c.GetSource())
	}
	if source.Incident != c.GetSource() || source.HeadHash != c.GetSourceHeadHash() {
		return refuse(ReasonTargetState, "the history of %s does not end with the record %s", c.GetSource(), short(c.GetSourceHeadHash())).
			allow("MergeInto", c.GetSource(), "merge it as it stands now")
	}
	if refusal := mergeable(source, d.s); refusal != nil {
		return refusal
	}
	d.emit(&emergencyv1.DuplicateAbsorbed{Source: c.GetSource(), SourceHeadHash: c.GetSourceHeadHash(), Reason: c.GetReason()})
	return nil
}

func standDownFields(f *fields, c *emergencyv1.StandDownRequest) { f.reason(c.GetReason(), 20) }

func decideStandDown(d *decision, c *emergencyv1.StandDownRequest) *Refusal {
	if d.s.ProductionEffect() {
		return refuse(ReasonHasProductionEffect, "the critical host was or may have been changed").
			allow("Close", "", "see the obligations through and close the incident")
	}
	if refusal := d.noOpenGrant(); refusal != nil {
		return refusal
	}
	d.emit(&emergencyv1.IncidentStoodDown{Reason: c.GetReason()})
	return nil
}

func waiveFields(f *fields, c *emergencyv1.WaiveControlRequest) {
	f.want(c.GetControl() != 0, "control", "TEST_QUORUM or OBSERVER")
	f.binding(c.GetBinding())
	f.reason(c.GetReason(), 20)
}

func waiveClaims(c *emergencyv1.WaiveControlRequest) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{claim("control", c.GetControl().String()), claim("reason", c.GetReason())}
}

// decideWaive lets the assessment team lead waive the test quorum and the critical team lead the observer, as debt
// (10.3, 10.5); never with zero tests, and never before an observer was sought.
func decideWaive(d *decision, c *emergencyv1.WaiveControlRequest) *Refusal {
	if d.s.Strategy != 1 {
		return refuse(ReasonNotApplicable, "strategy %d does not ask for %s", d.s.Strategy, controlWord(c.GetControl()))
	}
	r, refusal := d.current(c.GetBinding())
	if refusal != nil {
		return refusal
	}
	if d.s.Waived(c.GetControl(), r.ID) != nil {
		return refuse(ReasonNotApplicable, "%s is already waived for %s", controlWord(c.GetControl()), r.ID)
	}
	if c.GetControl() == emergencyv1.Control_CONTROL_TEST_QUORUM {
		if !d.s.testsMissing(r.ID) {
			return refuse(ReasonNotApplicable, "%s has all the passing tests it needs; there is nothing to waive", r.ID)
		}
		if passes(r) < d.s.Policy.Count("test.min_after_waiver") {
			return refuse(ReasonTestMinimum, "%s has no passing test; with none at all there is no waiver", r.ID).allow("ReportTest", r.ID, "a tester reports one passing test")
		}
	} else if refusal := d.observerSought(); refusal != nil {
		return refusal
	}
	d.emit(&emergencyv1.ControlWaived{Control: c.GetControl(), Binding: r.bind(), Reason: d.seal(c.GetReason())})
	return nil
}

// observerSought holds when the critical team was called and an observer's slot stayed open for a while.
func (d *decision) observerSought() *Refusal {
	least := d.s.Policy.Duration("waive_observer.min_open")
	for _, sl := range d.s.Slots {
		if sl.Team != emergencyv1.Team_TEAM_CRITICAL || sl.State != SlotOpen || sl.Planned != emergencyv1.ResponderStep_RESPONDER_STEP_OBSERVE {
			continue
		}
		called, at := d.s.firstCall(emergencyv1.Team_TEAM_CRITICAL)
		since := sl.OpenSince
		if at.After(since) {
			since = at
		}
		if called && d.at.Sub(since) >= least {
			return nil
		}
	}
	return refuse(ReasonGroundNotProven, "no observer's slot of the critical team has stayed open for %s after it was called", least).
		allow("CallOut", "", "call the critical team and wait %s", least)
}

func leadFields(f *fields, c *emergencyv1.RecordLeadDecisionRequest) {
	f.want(c.GetDecision() != 0, "decision", "approve, remedial action or no effect")
	f.want(c.GetStrategy() <= 3 && (c.GetStrategy() == 0 || c.GetDecision() == emergencyv1.LeadDecision_LEAD_DECISION_NO_EFFECT), "strategy", "1, 2 or 3 with the decision of no effect, else 0")
	f.want(c.GetRefer() || c.GetReason() != "", "reason", "given when the case is not referred to dispute resolution")
}

// decideLead records the lead's decision (SP 3.2.3.1); not referring a high severity is a deviation (SP 5.4, 10.1).
func decideLead(d *decision, c *emergencyv1.RecordLeadDecisionRequest) *Refusal {
	var strategy uint32
	if c.GetDecision() == emergencyv1.LeadDecision_LEAD_DECISION_NO_EFFECT {
		if refusal := d.noEffect(c); refusal != nil {
			return refusal
		}
		strategy = d.s.namedStrategy(c)
	}
	var deviations []emergencyv1.Deviation
	if !c.GetRefer() && d.s.Declared.Severity == emergencyv1.Severity_SEVERITY_HIGH {
		deviations = append(deviations, emergencyv1.Deviation_DEVIATION_NO_REFERRAL_HIGH)
	}
	d.emit(&emergencyv1.LeadDecisionRecorded{Decision: c.GetDecision(), Referred: c.GetRefer(), Reason: d.seal(c.GetReason()), Strategy: strategy}, deviations...)
	return nil
}

// hostUnchanged tells whether every attempt is proven to have left the base tree, and nobody had a session there.
func (s *State) hostUnchanged() bool {
	if s.sessionOpened() {
		return false
	}
	for _, a := range s.Applies {
		r, ok := s.Revision(a.Revision)
		if !ok || a.Running() || a.HostTree != r.BaseTree {
			return false
		}
	}
	return true
}

func annotateFields(f *fields, c *emergencyv1.AnnotateLogRequest) {
	f.want(c.GetEntry() > 0, "entry", "the position of an event")
	f.want(c.GetText() != "", "text", "the note")
}

func decideAnnotate(d *decision, c *emergencyv1.AnnotateLogRequest) *Refusal {
	if c.GetEntry() > d.s.Position {
		return refuse(ReasonEntry, "%s has no event at position %d; the last is %d", d.s.Incident, c.GetEntry(), d.s.Position)
	}
	if c.GetRestricted() {
		d.emit(&emergencyv1.LogAnnotated{Entry: c.GetEntry(), RestrictedText: d.seal(c.GetText())})
	} else {
		d.emit(&emergencyv1.LogAnnotated{Entry: c.GetEntry(), Text: c.GetText()})
	}
	return nil
}

func closeFields(f *fields, c *emergencyv1.CloseRequest) {
	f.want(c.GetOutcome() != 0, "outcome", "fixed, not fixed or not needed")
	f.said("summary", c.GetSummary(), 10)
}

// decideClose closes; it states facts, never approval (10.20). Debts count as implied, so no gap between cause and
// record lets an incident slip away (7). A drill's debts never block.
func decideClose(d *decision, c *emergencyv1.CloseRequest) *Refusal {
	if d.s.Status == Open && !d.s.hasOutcome() {
		return d.noOutcome()
	}
	if a := d.s.RunningApply(); a != nil {
		return d.applyRunning(a)
	}
	if refusal := d.noOpenGrant(); refusal != nil {
		return refusal
	}
	if open := d.s.openDebts(); len(open) > 0 && !d.s.Declared.Drill {
		r := refuse(ReasonObligationsOpen, "obligations are open: %d", len(open))
		for _, o := range open {
			r.allow(o.How, o.ID, "%s, due %s, owed by %s", o.Kind, stamp(o.Due), o.owner())
		}
		return r
	}
	if x := d.s.disputeOpen(); x != nil {
		return refuse(ReasonDisputeOpen, "%s is open: %s", x.ID, disputeWord(x.State(d.at))).allow("DeliverRuling", x.ID, "it is ruled on, or closed because no arbitrator takes it")
	}
	d.emit(&emergencyv1.IncidentClosed{Outcome: c.GetOutcome(), Summary: c.GetSummary(), TimeToFixMs: d.s.timeToFix().Milliseconds()})
	return nil
}

func (d *decision) noOutcome() *Refusal {
	if len(d.s.Applies) == 0 && d.s.sessionOpened() {
		return refuse(ReasonNoOutcome, "the session has not ended").allow("Terminate", "", "end it first")
	}
	if len(d.s.Applies) == 0 {
		return refuse(ReasonNoOutcome, "no revision was deployed").allow("StandDown", "", "stand down if nothing has to be changed")
	}
	a := d.s.Applies[len(d.s.Applies)-1]
	return refuse(ReasonNoOutcome, "the last attempt, of %s on %s, is %s", a.Revision, a.Host, statusWord(Status(a.State))).
		allow("BackOut", a.Revision, "wait for the agent's report, or back out")
}

// hasOutcome tells whether the latest attempt that is not still running has ended one way or another, or a session has ended since.
func (s *State) hasOutcome() bool {
	last := s.lastSession()
	for i := len(s.Applies) - 1; i >= 0; i-- {
		if last != nil && last.Terminated.Position > s.Applies[i].Position {
			return true
		}
		switch s.Applies[i].State {
		case Verified, BackedOut, RolledBack:
			return true
		case Mismatch, BackOutUnproven:
			return false
		case Applying, Applied, ApplyFailed, BackingOut, RollingBack:
		}
	}
	return last != nil
}

func (s *State) timeToFix() time.Duration {
	for _, a := range s.Applies {
		if a.Verified.Position > 0 && a.State == Verified {
			return a.Verified.At.Sub(s.Declared.At)
		}
	}
	return 0
}
