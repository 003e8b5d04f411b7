// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Changing the strategy (procedure.md 1, 4.1): to 2 on a ground that the history proves or the actor signs, to 3 by a
// joint declaration of two persons, and back down. A claim alone is never a ground.

func escalateFields(f *fields, c *emergencyv1.EscalateRequest) { f.reason(c.GetReason(), 10) }

func escalateClaims(c *emergencyv1.EscalateRequest) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{
		claim("ground", c.GetGround().String()), claim("team", c.GetTeam().String()), claim("evidence", fmt.Sprint(c.GetEvidence())),
		claim("code", c.GetCode().String()), restrictedClaim("reason", c.GetReason()), restrictedClaim("debt_reason", c.GetDebtReason()),
	}
}

// restrictedClaim says a restricted text by its digest: a statement stays in the history when the text is redacted.
func restrictedClaim(name, value string) *emergencyv1.Claim {
	if value == "" {
		return claim(name, "")
	}
	sum := sha256.Sum256([]byte(value))
	return claim(name, "sha256:"+hex.EncodeToString(sum[:]))
}

// decideEscalate goes from strategy 1 to 2. What proves the ground is found here, in the history, and put into the event.
func decideEscalate(d *decision, c *emergencyv1.EscalateRequest) *Refusal {
	if d.s.Strategy != 1 {
		return refuse(ReasonStrategy, "the incident is handled by strategy %d already", d.s.Strategy).under("4.1 Escalate").
			allow("SignJointDeclaration", "", "strategy 3 takes a joint declaration of a critical admin and an assessor")
	}
	evidence, refusal := d.s.proveGround(c, d.at)
	if refusal != nil {
		return refusal
	}
	if owed := d.overdue(); len(owed) > 0 && c.GetDebtReason() == "" && !d.hypothetical {
		return refuse(ReasonDebtReason, "%s owes what is overdue: %s", d.person, strings.Join(owed, ", ")).
			allow("Escalate", "", "say why it is necessary although that is still owed (debt reason); then nothing is blocked")
	}
	d.emit(&emergencyv1.StrategyEscalated{
		From: d.s.Strategy, To: 2, Ground: c.GetGround(), Team: c.GetTeam(), Code: c.GetCode(), Evidence: evidence,
		SkippedControls: d.s.skipped(2), Reason: d.seal(c.GetReason()), DebtReason: d.seal(c.GetDebtReason()),
	})
	return nil
}

// overdue are the actor's own overdue obligations: in this incident by its state, in others as the service found them.
func (d *decision) overdue() []string {
	list := Overdue(d.s, d.person, func(r emergencyv1.Role) bool { return d.holds(d.person, r) }, d.at)
	return distinct(append(list, d.env.Facts.Overdue...))
}

// Overdue lists what a person owes in an incident and has not done in time, as "KIND in incident": what names the person, and
// what is owed by a role that only leads hold.
func Overdue(s *State, person string, has func(emergencyv1.Role) bool, now time.Time) []string {
	var list []string
	for _, o := range Debts(s) {
		lead := o.Owner == "" && (o.OwnerRole == cl || o.OwnerRole == al) && has(o.OwnerRole)
		if o.Overdue(now) && (o.Owner == person || lead) {
			list = append(list, o.Kind+" in "+s.Incident)
		}
	}
	return distinct(list)
}

// controls are what a strategy asks for before a patch is on the host, in the order of chapter 1, and whether it was done for
// the current revision.
func (s *State) controls(strategy uint32) []gateLine {
	r := s.Current()
	if r == nil {
		r = &Revision{}
	}
	observed := slices.ContainsFunc(s.Observers, func(o Observer) bool { return o.Revision == r.ID && !o.After })
	dry := slices.ContainsFunc(s.DryRuns, func(x DryRun) bool { return x.Revision == r.ID && x.Clean })
	reviews := []gateLine{
		{"first_review", r.firstApproved()}, {"transfer", r.Transfer != nil}, {"tests", !s.testedAt(r).IsZero()}, {"second_review", r.secondApproved()},
	}
	apply := []gateLine{{"forwarded", r.Forward != nil}, {"dry_run", dry}, {"observer", observed}}
	switch strategy {
	case 1:
		return append(reviews, apply...)
	case 2:
		return apply
	}
	return nil
}

type gateLine struct {
	name string
	done bool
}

// skipped are the controls of the active strategy that another one does not ask for any more and that were not done yet.
func (s *State) skipped(to uint32) []string {
	var list []string
	asked := s.controls(to)
	for _, l := range s.controls(s.Strategy) {
		if !l.done && !slices.ContainsFunc(asked, func(a gateLine) bool { return a.name == l.name }) {
			list = append(list, l.name)
		}
	}
	return list
}

func jointFields(*fields, *emergencyv1.SignJointDeclarationRequest) {}

func jointClaims(c *emergencyv1.SignJointDeclarationRequest) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{claim("texts", textsDigest(c))}
}

// textsDigest is SHA-256 over the three texts, each ended by a line feed.
func textsDigest(c *emergencyv1.SignJointDeclarationRequest) string {
	h := sha256.New()
	for _, text := range []string{c.GetWhyNot_1(), c.GetWhyNot_2(), c.GetWhyLive()} {
		fmt.Fprintf(h, "%s\n", text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// JointHalf is one half of a joint declaration.
type JointHalf struct {
	Mark
	Half emergencyv1.Role
}

// decideJoint takes one half of a joint declaration; the second one within the window leads to strategy 3 in the same unit
// (seed 3.2, 10.7). A half that has waited longer has lapsed, and the new one is a first half.
func decideJoint(d *decision, c *emergencyv1.SignJointDeclarationRequest) *Refusal {
	if d.s.Strategy != 1 && d.s.Strategy != 2 {
		return refuse(ReasonStrategy, "the incident is handled by strategy %d already", d.s.Strategy).under("4.1 SignJointDeclaration").
			allow("GrantAccess", "", "the joint declaration is made; access can be granted")
	}
	for _, x := range []struct{ name, text string }{{"strategy 1", c.GetWhyNot_1()}, {"strategy 2", c.GetWhyNot_2()}, {"the live system", c.GetWhyLive()}} {
		if !longEnough(x.text) {
			return refuse(ReasonGroundMissing, "what is said about %s has fewer than %d characters", x.name, longReason).under("4.1 SignJointDeclaration").
				allow("SignJointDeclaration", "", "say in at least %d characters each why not strategy 1, why not 2, and why the live system", longReason)
		}
	}
	signed := &emergencyv1.JointDeclarationSigned{
		Half: teamRole(d.role), Person: d.person, TextsDigest: textsDigest(c),
		WhyNot_1: d.seal(c.GetWhyNot_1()), WhyNot_2: d.seal(c.GetWhyNot_2()), WhyLive: d.seal(c.GetWhyLive()),
	}
	if len(d.s.Joint) == 0 {
		d.emit(signed)
		return nil
	}
	first := d.s.Joint[0]
	if d.at.After(first.At.Add(d.s.Policy.Duration("joint.window"))) {
		signed.LapsedHalf = first.Position
		d.emit(signed)
		return nil
	}
	if refusal := d.secondHalf(first); refusal != nil {
		return refusal
	}
	d.emit(signed)
	d.emit(&emergencyv1.StrategyEscalated{
		From: d.s.Strategy, To: 3, Signatures: []uint64{first.Position, d.s.Position + 1}, SkippedControls: d.s.skipped(3),
	})
	return nil
}

// secondHalf is X12: another person, and one critical admin and one assessor.
func (d *decision) secondHalf(first JointHalf) *Refusal {
	other := ca
	if first.Half == ca {
		other = sa
	}
	if first.By == d.person {
		return refuse(ReasonSamePerson, "%s has signed one half already; the other is for another person", d.person).under("X12 (seed 3.2, SP 1.2)").
			allow("SignJointDeclaration", "", "%s", d.another(other))
	}
	if teamRole(d.role) == first.Half {
		return refuse(ReasonJointRoles, "%s signed as %s already; the other half is for the other role", first.By, roleWord(first.Half)).
			allow("SignJointDeclaration", "", "ask %s", d.whoHas(roles(other)))
	}
	return nil
}

func (s *State) applyJoint(f fact, e *emergencyv1.JointDeclarationSigned) {
	if e.GetLapsedHalf() > 0 {
		s.Joint = nil
	}
	s.Joint = append(s.Joint, JointHalf{f.mark(e.GetPerson(), "", e.GetTextsDigest()), e.GetHalf()})
}

func deEscalateFields(f *fields, c *emergencyv1.DeEscalateRequest) {
	f.want(c.GetTo() >= 1 && c.GetTo() <= 3, "to", "the strategy to go back to: 1 or 2")
	f.reason(c.GetReason(), 20)
}

// decideDeEscalate goes back to a lower strategy. Work and obligations stay.
func decideDeEscalate(d *decision, c *emergencyv1.DeEscalateRequest) *Refusal {
	if c.GetTo() >= d.s.Strategy {
		refusal := refuse(ReasonStrategy, "strategy %d is not lower than %d, by which the incident is handled", c.GetTo(), d.s.Strategy).under("4.1 DeEscalate")
		if d.s.Strategy > 1 {
			refusal.allow("DeEscalate", "", "name a lower strategy")
		}
		return refusal
	}
	if refusal := d.noOpenGrant(); refusal != nil {
		return refusal
	}
	if a := d.s.RunningApply(); a != nil {
		return d.applyRunning(a)
	}
	d.emit(&emergencyv1.StrategyDeEscalated{From: d.s.Strategy, To: c.GetTo(), Reason: c.GetReason()})
	return nil
}

// StrategyChange is one change of the strategy.
type StrategyChange struct {
	Mark
	From, To uint32
	Ground   emergencyv1.EscalationGround
	Team     emergencyv1.Team
	Code     emergencyv1.UnfitCode
	// Skipped are the controls that are not asked for any more.
	Skipped []string
	// Signers of the joint declaration; to strategy 3.
	Signers []string
}

// SkippedRoles are the roles whose steps an escalation skips; whoever holds one is told (4.1).
func SkippedRoles(e *emergencyv1.StrategyEscalated) []emergencyv1.Role {
	var list []emergencyv1.Role
	for _, control := range e.GetSkippedControls() {
		switch control {
		case "first_review", "second_review", "transfer", "forwarded":
			list = append(list, sa)
		case "tests":
			list = append(list, te)
		case "dry_run", "observer":
			list = append(list, ca)
		}
	}
	return distinct(list)
}

// GroundWords says on which ground the strategy was changed, as the public log may have it.
func GroundWords(e *emergencyv1.StrategyEscalated) string {
	switch e.GetGround() {
	case emergencyv1.EscalationGround_ESCALATION_GROUND_TEAM_UNREACHABLE:
		return "the " + teamWord(e.GetTeam()) + " team was called and does not come"
	case emergencyv1.EscalationGround_ESCALATION_GROUND_COVERAGE_GAP:
		return "the " + teamWord(e.GetTeam()) + " team has nobody on duty"
	case emergencyv1.EscalationGround_ESCALATION_GROUND_STEP_FAILED:
		return fmt.Sprintf("a step failed at position %d", first(e.GetEvidence()))
	case emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT:
		return "strategy 1 does not fit (" + strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(e.GetCode().String(), "UNFIT_CODE_")), "_", " ") + ")"
	case emergencyv1.EscalationGround_ESCALATION_GROUND_UNSPECIFIED:
	}
	return "a critical admin and an assessor declared it jointly"
}

func (s *State) applyEscalated(f fact, e *emergencyv1.StrategyEscalated) {
	s.Strategies = append(s.Strategies, StrategyChange{f.mark(f.who(), "", ""), e.GetFrom(), e.GetTo(), e.GetGround(), e.GetTeam(), e.GetCode(), slices.Clone(e.GetSkippedControls()), nil})
	s.changeStrategy(f, e.GetTo())
	if e.GetTo() == 3 {
		s.Strategies[len(s.Strategies)-1].Signers = s.signers()
		s.fillDeclarer()
		s.Joint = nil
	}
}

func (s *State) signers() []string {
	var list []string
	for _, half := range s.Joint {
		list = append(list, half.By)
	}
	return list
}

func (s *State) applyDeEscalated(f fact, e *emergencyv1.StrategyDeEscalated) {
	s.Strategies = append(s.Strategies, StrategyChange{Mark: f.mark(f.who(), "", ""), From: e.GetFrom(), To: e.GetTo()})
	s.changeStrategy(f, e.GetTo())
}

// changeStrategy makes the slots those of the new strategy (3.1). A slot that both strategies have stays with its holder, for
// the step that the new one plans; one that is not needed any more ends; all others are open.
func (s *State) changeStrategy(f fact, to uint32) {
	s.Strategy = to
	if s.Policy == nil {
		return
	}
	slots := slotsOf(s.Policy, to, f.at)
	for i := range slots {
		n := &slots[i]
		if r := s.Current(); r != nil && n.Team == emergencyv1.Team_TEAM_DEVELOPMENT {
			n.State, n.Person, n.Since = SlotEnded, r.By, f.at // filled by the registered revision (3.1)
			continue
		}
		old, ok := s.Slot(n.ID)
		switch {
		case !ok:
		case old.State == SlotOpen:
			n.OpenSince = old.OpenSince
		case old.State == SlotAccepted || old.State == SlotStandby:
			held := *old
			held.Planned = n.Planned
			if !slices.Contains(stepsOf(n.Team, to), held.Step) {
				held.Step = n.Planned
			}
			*n = held
		}
	}
	s.Slots = slots
}

// fillDeclarer ends the slot of the assessor who has signed the joint declaration already.
func (s *State) fillDeclarer() {
	for _, half := range s.Joint {
		for i := range s.Slots {
			if sl := &s.Slots[i]; sl.Planned == emergencyv1.ResponderStep_RESPONDER_STEP_DECLARE && half.Half == sa {
				sl.State, sl.Person, sl.Step, sl.Since = SlotEnded, half.By, sl.Planned, half.At
			}
		}
	}
}

// leftStrategy1 is when the incident left strategy 1 for the first time: the s1 deadlines lapse then (3.2).
func (s *State) leftStrategy1() time.Time {
	if len(s.Strategies) == 0 {
		return time.Time{}
	}
	return s.Strategies[0].At
}

func (s *State) cloneStrategy(from *State) {
	s.Strategies, s.Joint, s.Answered, s.Failures = slices.Clone(from.Strategies), slices.Clone(from.Joint), slices.Clone(from.Answered), slices.Clone(from.Failures)
	s.NoEffects, s.Late = slices.Clone(from.NoEffects), slices.Clone(from.Late)
	for i := range s.Strategies {
		s.Strategies[i].Skipped, s.Strategies[i].Signers = slices.Clone(s.Strategies[i].Skipped), slices.Clone(s.Strategies[i].Signers)
	}
}
