// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The same for strategies 2 and 3: that the incident is under another strategy at all, and what an apply under it needs. A
// service could not make a short road of a long one by recording an escalation that nobody signed or nothing grounds.

// verifyStrategy checks a record's changes of the strategy, and what it may do under the strategy as it is, against the history
// before it.
func (s *State) verifyStrategy(rec *emergencyv1.Record, payloads []proto.Message) error {
	for i, p := range payloads {
		var err error
		switch e := p.(type) {
		case *emergencyv1.StrategyEscalated:
			err = s.verifyEscalated(rec, payloads, e)
		case *emergencyv1.JointDeclarationSigned:
			err = s.verifyHalf(rec, e)
		case *emergencyv1.StrategyDeEscalated:
			if e.GetFrom() != s.Strategy || e.GetTo() >= s.Strategy || e.GetTo() < 1 {
				err = fmt.Errorf("strategy %d is recorded to go back from %d to %d", s.Strategy, e.GetFrom(), e.GetTo())
			}
		case *emergencyv1.PatchRegistered:
			if role := rec.GetActor().GetRole(); !preparerFits(s.Strategy, e.GetOrigin(), role) {
				err = fmt.Errorf("%s is registered by %s as %s under strategy %d", e.GetBinding().GetRevision(), rec.GetActor().GetPerson(), roleWord(role), s.Strategy)
			}
		case *emergencyv1.PatchForwarded:
			err = s.verifyPatchForwarded(rec.GetEvents()[i], e)
		case *emergencyv1.ApplyStarted:
			if e.GetObserver() == "" && !slices.Contains(rec.GetEvents()[i].GetDeviations(), emergencyv1.Deviation_DEVIATION_NO_OBSERVER) {
				err = fmt.Errorf("an apply of %s without an observer is not recorded as a deviation", e.GetBinding().GetRevision())
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// verifyEscalated proves the ground again. What the reason says is not in the history; that it is long enough is between the
// actor, who signed it, and whoever reads it.
func (s *State) verifyEscalated(rec *emergencyv1.Record, payloads []proto.Message, e *emergencyv1.StrategyEscalated) error {
	if e.GetFrom() != s.Strategy || e.GetTo() <= s.Strategy || e.GetTo() > 3 {
		return fmt.Errorf("strategy %d is recorded to go from %d to %d", s.Strategy, e.GetFrom(), e.GetTo())
	}
	if e.GetTo() == 3 {
		return s.verifyJoint(rec, payloads, e)
	}
	if rec.GetCommand() != "Escalate" {
		return fmt.Errorf("strategy 2 is recorded under %s", rec.GetCommand())
	}
	var evidence []uint64
	var refusal *Refusal
	at := rec.GetRecordedAt().AsTime()
	if e.GetGround() != emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT {
		c := &emergencyv1.EscalateRequest{Ground: e.GetGround(), Team: e.GetTeam(), Code: e.GetCode()}
		if len(e.GetEvidence()) > 0 {
			c.Evidence = e.GetEvidence()[0]
		}
		evidence, refusal = s.proveGround(c, at)
	} else if e.GetCode() == emergencyv1.UnfitCode_UNFIT_CODE_TIME {
		evidence, refusal = s.proveTime(at)
	} else if e.GetCode() == 0 || e.GetReason() == nil {
		return fmt.Errorf("strategy 1 is recorded not to fit, and not why")
	}
	if refusal != nil {
		return fmt.Errorf("the recorded ground for strategy 2: %w", refusal)
	}
	if !slices.Equal(evidence, e.GetEvidence()) {
		return fmt.Errorf("the recorded ground for strategy 2 names positions %v, what proves it stands at %v", e.GetEvidence(), evidence)
	}
	return nil
}

// verifyJoint: both halves are there, within the window, by two persons, one of each role (X12).
func (s *State) verifyJoint(rec *emergencyv1.Record, payloads []proto.Message, e *emergencyv1.StrategyEscalated) error {
	second, ok := payloads[0].(*emergencyv1.JointDeclarationSigned)
	if !ok || len(s.Joint) != 1 {
		return fmt.Errorf("strategy 3 is recorded without both halves of a joint declaration")
	}
	first := s.Joint[0]
	switch {
	case !slices.Equal(e.GetSignatures(), []uint64{first.Position, s.Position + 1}):
		return fmt.Errorf("the joint declaration is recorded to stand at %v, not at %d and %d", e.GetSignatures(), first.Position, s.Position+1)
	case first.By == second.GetPerson() || first.Half == second.GetHalf():
		return fmt.Errorf("both halves of the joint declaration are by %s and %s, each as %s", first.By, second.GetPerson(), roleWord(first.Half))
	case second.GetLapsedHalf() != 0 || rec.GetRecordedAt().AsTime().After(first.At.Add(s.Policy.Duration("joint.window"))):
		return fmt.Errorf("the first half of the joint declaration had lapsed")
	}
	return nil
}

func (s *State) verifyHalf(rec *emergencyv1.Record, e *emergencyv1.JointDeclarationSigned) error {
	if e.GetHalf() != teamRole(rec.GetActor().GetRole()) {
		return fmt.Errorf("a half of the joint declaration signed as %s is recorded as %s", roleWord(rec.GetActor().GetRole()), roleWord(e.GetHalf()))
	}
	return nil
}

// verifyForwarded: under strategies 2 and 3 with a local test, and with the deviation where no second person approved.
func (s *State) verifyPatchForwarded(event *emergencyv1.Event, e *emergencyv1.PatchForwarded) error {
	r, ok := s.Revision(e.GetBinding().GetRevision())
	if s.Strategy == 1 || !ok {
		return nil
	}
	if e.GetLocalTest() == nil {
		return fmt.Errorf("%s is forwarded under strategy %d without a local test", r.ID, s.Strategy)
	}
	for _, v := range r.reviewSkipped() {
		if !slices.Contains(event.GetDeviations(), v) {
			return fmt.Errorf("that nobody else approved %s is not recorded as a deviation", r.ID)
		}
	}
	return nil
}

// expectStrategy compares an escalation and a joint declaration with what was signed.
func expectStrategy(payload proto.Message, got *emergencyv1.Statement, is func(name, value string) error) error {
	switch e := payload.(type) {
	case *emergencyv1.JointDeclarationSigned:
		return is("texts", e.GetTextsDigest())
	case *emergencyv1.StrategyEscalated:
		if e.GetTo() == 3 {
			return nil // the half in the same record is compared
		}
		if e.GetGround() == emergencyv1.EscalationGround_ESCALATION_GROUND_STEP_FAILED {
			if err := is("evidence", fmt.Sprint(first(e.GetEvidence()))); err != nil {
				return err
			}
		}
		for _, err := range []error{said(got, "reason", e.GetReason()), said(got, "debt_reason", e.GetDebtReason()), is("ground", e.GetGround().String()), is("team", e.GetTeam().String()), is("code", e.GetCode().String())} {
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func first(list []uint64) uint64 {
	if len(list) == 0 {
		return 0
	}
	return list[0]
}

// said compares whether a person said something with whether it was recorded. The words are in the owner's store; the statement
// has them, or their digest, for whoever may see both.
func said(st *emergencyv1.Statement, name string, recorded *emergencyv1.Restricted) error {
	for _, c := range st.GetClaims() {
		if c.GetName() == name && (c.GetValue() == "") != (recorded == nil) {
			return fmt.Errorf("the signature says %q of %s, and the record does not fit it", c.GetValue(), name)
		}
	}
	return nil
}

// shortGate is HostGate's part for strategies 2 and 3: handed over with a local test by an assessor to a critical admin, and the
// executor is none of those who made it (X10, X11). That there is no observer was said by the executor, who signed it.
func (d *decision) shortGate(r *Revision, a *Apply) *Refusal {
	if refusal := d.handedOver(r); refusal != nil {
		return refusal
	}
	switch {
	case !d.env.Book.Has(r.Forward.To, ca, r.Forward.At):
		return refuse(ReasonRecipientRole, "%s was handed over to %q, who is no critical admin", r.ID, r.Forward.To)
	case !d.env.Book.Has(r.Forward.By, sa, r.Forward.At):
		return refuse(ReasonPreparerRole, "%s was handed over by %s, who is no software assessor", r.ID, r.Forward.By)
	case a.Executor == a.Observer:
		return refuse(ReasonSamePerson, "%s is executor and observer", a.Executor).under("X10 (SP 1.2, 4.1)")
	case a.Executor == r.Author, a.Executor == r.By, a.Executor == r.Forward.By, r.reviewedBy(a.Executor), r.testedBy(a.Executor):
		return refuse(ReasonSeparationOfDuty, "the executor %s wrote, handed over, reviewed or tested %s", a.Executor, r.ID)
	case a.Observer == "" && !a.NoObserverSaid:
		return refuse(ReasonObserverMissing, "nobody observes, and why is not said")
	}
	return nil
}
