// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"slices"
	"time"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// What strategies 2 and 3 owe afterwards (procedure.md 7): each escalation its documentation and its dispute, each change of the
// host the regular update cycle.

// handling is a strategy 2 or 3 that came into force, and what came of it.
type handling struct {
	strategy uint32
	cause    Mark
	// effect is the first production effect under the strategy after the cause, by whoever acted; none has position 0.
	effect Mark
	// noEffect is the lead's decision that there was none.
	noEffect Mark
}

// handlings are all of them. If the lead found that one had no effect and there was one after all, that effect begins another.
func (s *State) handlings() []handling {
	var list []handling
	for _, c := range s.entries() {
		h := handling{strategy: c.To, cause: c.Mark}
		effect, any := s.effectAfter(c.To, c.Position)
		h.noEffect = s.foundNoEffect(c.To, c.Position, effect)
		if h.noEffect.Position == 0 {
			h.effect = effect
		}
		list = append(list, h)
		if any && h.noEffect.Position > 0 {
			again := handling{strategy: c.To, cause: effect, effect: effect}
			if !slices.Contains(list, again) {
				list = append(list, again)
			}
		}
	}
	return list
}

// effectAfter is the first production effect under a strategy after a position.
func (s *State) effectAfter(strategy uint32, position uint64) (Mark, bool) {
	var list []Mark
	for _, a := range s.Applies {
		if a.Strategy == strategy {
			list = append(list, Mark{Position: a.Position, At: a.StartedAt, By: a.Executor})
		}
	}
	if strategy == 3 {
		list = append(list, s.sessionEffects()...)
	}
	found := Mark{}
	for _, m := range list {
		if m.Position > position && (found.Position == 0 || m.Position < found.Position) {
			found = m
		}
	}
	return found, found.Position > 0
}

func (s *State) foundNoEffect(strategy uint32, after uint64, effect Mark) Mark {
	for _, n := range s.NoEffects {
		if n.Strategy == strategy && n.Position > after && (effect.Position == 0 || n.Position < effect.Position) {
			return n.Mark
		}
	}
	return Mark{}
}

// NoEffect is a lead's decision that a strategy changed nothing.
type NoEffect struct {
	Mark
	Strategy uint32
}

// due is when something is owed for a handling: some time after its first effect, else by the fallback from the escalation.
func (s *State) dueAfter(h handling, key string) time.Time {
	if h.effect.Position > 0 {
		return h.effect.At.Add(s.Policy.Duration(key))
	}
	return h.cause.At.Add(s.Policy.Duration("obligation.fallback"))
}

// handlingDebts is one obligation of a kind for each escalation, such as DOCUMENT/S2, owed by the acting critical admin, and by
// the team lead until somebody has acted. by are the events that discharge it.
func (s *State) handlingDebts(kind, key, how, clause string, by func(handling) []Mark) []Obligation {
	var list []Obligation
	for _, h := range s.handlings() {
		role := cl
		if h.effect.Position > 0 {
			role = ca
		}
		name := fmt.Sprintf("%s/S%d", kind, h.strategy)
		list = append(list, s.owe(name, h.cause, s.dueAfter(h, key), role, h.effect.By, how, clause, append(by(h), h.noEffect)...))
	}
	return list
}

// strategyDebts are the documentation of each escalation, and the update cycle of what sessions left.
func (s *State) strategyDebts() []Obligation {
	list := s.handlingDebts("DOCUMENT", "document", "Document", "seed 2.4, 3.7", s.documentedAfter)
	for _, x := range s.sessionDifferences() {
		entered, concluded := s.cycleOf(x)
		list = append(list, s.cycleDebts(x.Mark, entered, concluded, Mark{})...)
	}
	return list
}

// documentedAfter are the reports on what was done: given before that, one was about something else.
func (s *State) documentedAfter(h handling) []Mark {
	if h.effect.Position == 0 {
		return nil
	}
	return slices.DeleteFunc(s.documentedUnder(h.strategy), func(m Mark) bool { return m.Position < h.effect.Position })
}

// documents is the first production effect that a report on a strategy given now would be about: of what came of it, the first that nobody has
// documented, or else the last. false if nothing was done.
func (s *State) documents(strategy uint32) (effect Mark, acted bool) {
	if strategy == 1 {
		return s.effectAfter(1, 0)
	}
	for _, h := range s.handlings() {
		if h.strategy != strategy || h.effect.Position == 0 {
			continue
		}
		effect, acted = h.effect, true
		if len(s.documentedAfter(h)) == 0 {
			break
		}
	}
	return effect, acted
}

func (s *State) documentedUnder(strategy uint32) []Mark {
	var list []Mark
	for _, d := range s.Documented {
		if d.Strategy == strategy {
			list = append(list, d.Mark)
		}
	}
	return list
}

// cycleDebts are the entry into the regular update cycle and its regular review, from a change of the host on.
func (s *State) cycleDebts(change, entered, concluded, ended Mark) []Obligation {
	cause := Mark{Position: change.Position, At: change.At}
	return []Obligation{
		s.owe("ENTER_CYCLE", cause, change.At.Add(s.Policy.Duration("enter_cycle")), al, "", "EnterUpdateCycle", "seed 2.5, 3.8", entered, ended),
		s.owe("REGULAR_REVIEW", cause, change.At.Add(s.Policy.Duration("regular_review")), al, "", "ConcludeUpdateCycle", "SP 7.4", concluded, ended),
	}
}

// cycleOf are the entry and the end of the update cycle of a patch that a session left.
func (s *State) cycleOf(x sessionDifference) (entered, concluded Mark) {
	for _, r := range s.Revisions {
		if r.Origin == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION && x.is(r.Artefact.GetSha256(), r.BaseTree, r.ResultTree) && r.Cycle != nil {
			return r.Cycle.Entered, r.Cycle.Concluded
		}
	}
	return Mark{}, Mark{}
}

// patchCycleDebts are those of a patch applied under strategy 2 or 3.
func (s *State) patchCycleDebts(a *Apply) []Obligation {
	var entered, concluded Mark
	if r, ok := s.Revision(a.Revision); ok && r.Cycle != nil {
		entered, concluded = r.Cycle.Entered, r.Cycle.Concluded
	}
	return s.cycleDebts(a.Applied, entered, concluded, a.Ended)
}

// mismatchExplained is when every path that a comparison found after a deployment that differed was explained.
func (s *State) mismatchExplained(a *Apply) Mark {
	done := Mark{}
	for _, x := range s.Replications {
		if x.Position < a.Mismatch.Position || x.Kind != emergencyv1.ReplicationResult_REPLICATION_RESULT_DRIFT {
			continue
		}
		if m, ok := s.allExplained(x.Paths); ok && (done.Position == 0 || m.Position < done.Position) {
			done = m
		}
	}
	return done
}

// allExplained is the explanation that was the last of a list of paths, if each has one.
func (s *State) allExplained(paths []string) (last Mark, ok bool) {
	for _, p := range paths {
		i := slices.IndexFunc(s.Drift, func(d DriftPath) bool { return d.Commitment == p && d.Explained.Position > 0 })
		if i < 0 {
			return Mark{}, false
		}
		if s.Drift[i].Explained.Position > last.Position {
			last = s.Drift[i].Explained
		}
	}
	return last, len(paths) > 0
}

// noEffect allows the lead's decision that a strategy had no effect: nothing was done to the host under it, and what the host
// holds is known (10.9). Strategy 1 is judged as a whole: every attempt is proven to have left the base tree.
func (d *decision) noEffect(c *emergencyv1.RecordLeadDecisionRequest) *Refusal {
	strategy := d.s.namedStrategy(c)
	changed := refuse(ReasonHasProductionEffect, "the critical host was changed under strategy %d, or it is not proven that it was not", strategy).
		allow("BackOut", "", "prove by a tree report that the host holds the base tree")
	if strategy == 1 {
		if d.s.hostUnchanged() {
			return nil
		}
		return changed
	}
	if !d.s.everIn(strategy) {
		return refuse(ReasonStrategy, "strategy %d was never in force", strategy).under("4.1 RecordLeadDecision").
			allow("RecordLeadDecision", "", "name the strategy that had no effect")
	}
	if _, any := d.s.effectAfter(strategy, 0); any || len(d.s.Applies) > 0 && !d.s.hostKnown() {
		return changed
	}
	return nil
}

func (s *State) namedStrategy(c *emergencyv1.RecordLeadDecisionRequest) uint32 {
	if c.GetStrategy() > 0 {
		return c.GetStrategy()
	}
	return s.Strategy
}

// hostKnown tells whether the last attempt ended with the tree that it should have ended with.
func (s *State) hostKnown() bool {
	switch s.Applies[len(s.Applies)-1].State {
	case Verified, BackedOut, RolledBack:
		return true
	case Applying, Applied, ApplyFailed, Mismatch, BackingOut, BackOutUnproven, RollingBack:
	}
	return false
}
