// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The grounds for strategy 2, each proven from the history (procedure.md 4.1.1).

// longReason is how many characters the reason of an unfit strategy, and each text of a joint declaration, has at least.
const longReason = 40

func longEnough(text string) bool {
	return utf8.RuneCountInString(strings.TrimSpace(text)) >= longReason
}

// proveGround finds the positions that prove a ground, or says which part of the proof is missing.
func (s *State) proveGround(c *emergencyv1.EscalateRequest, at time.Time) ([]uint64, *Refusal) {
	switch c.GetGround() {
	case emergencyv1.EscalationGround_ESCALATION_GROUND_TEAM_UNREACHABLE:
		if c.GetTeam() == 0 {
			return nil, groundMissing("which team cannot be reached is not said")
		}
		return s.proveUnreachable(c.GetTeam(), at)
	case emergencyv1.EscalationGround_ESCALATION_GROUND_COVERAGE_GAP:
		if c.GetTeam() == 0 {
			return nil, groundMissing("which team has nobody on duty is not said")
		}
		return s.proveGap(c.GetTeam())
	case emergencyv1.EscalationGround_ESCALATION_GROUND_STEP_FAILED:
		if c.GetEvidence() == 0 {
			return nil, groundMissing("which step failed is not said: the position of a failed test, veto or apply, or of a deployment that differs")
		}
		return s.proveFailure(c.GetEvidence())
	case emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT:
		if c.GetCode() == 0 {
			return nil, groundMissing("why strategy 1 does not fit is not said: exploit active, time, no test environment, repository unavailable or live state needed")
		}
		return s.proveUnfit(c.GetCode(), c.GetReason(), at)
	case emergencyv1.EscalationGround_ESCALATION_GROUND_UNSPECIFIED:
	}
	return nil, groundMissing("no ground is given")
}

func groundMissing(what string) *Refusal {
	return refuse(ReasonGroundMissing, "%s", what).
		allow("Escalate", "", "name a ground: a team that cannot be reached, a coverage gap, a failed step, or why strategy 1 does not fit")
}

func notProven(format string, args ...any) *Refusal {
	return refuse(ReasonGroundNotProven, format, args...).under("4.1.1")
}

// proveUnreachable: the team has an unfilled slot; it was paged in enough rounds, over enough channels, for long enough, and at
// least once since the slot is open; and nobody took it. The positions are those of its pages and of who declined.
func (s *State) proveUnreachable(t emergencyv1.Team, at time.Time) ([]uint64, *Refusal) {
	openSince, open := s.openSince(t)
	if !open {
		return nil, noOpenSlot(t)
	}
	missing, evidence := s.pagedEnough(t, openSince, at)
	if len(missing) > 0 {
		return nil, notProven("that the %s team cannot be reached is not proven: %s", teamWord(t), strings.Join(missing, ", ")).
			allow("CallOut", "", "call the team; it is paged again every %s until somebody answers", s.Policy.Duration("callout.repage"))
	}
	for _, x := range s.Declined {
		if x.Team == t {
			evidence = append(evidence, x.Position)
		}
	}
	evidence = distinct(evidence)
	sortPositions(evidence)
	return evidence, nil
}

// pagedEnough says what is missing before a team counts as unreachable, and where its pages stand. A page on the next channel
// after a failed one is no round of its own.
func (s *State) pagedEnough(t emergencyv1.Team, openSince, at time.Time) (missing []string, pages []uint64) {
	var rounds []uint32
	var channels []string
	var first, last time.Time
	for _, p := range s.Pages {
		if p.Team != t {
			continue
		}
		if first.IsZero() {
			first = p.SentAt
		}
		last, channels, pages = p.SentAt, append(channels, p.Channel), append(pages, p.Position)
		if !s.fallbackRound(p.Round) {
			rounds = append(rounds, p.Round)
		}
	}
	if first.IsZero() {
		return []string{"it was never paged"}, nil
	}
	want := func(ok bool, format string, args ...any) {
		if !ok {
			missing = append(missing, fmt.Sprintf(format, args...))
		}
	}
	for _, x := range []struct {
		have int
		key  string
		what string
	}{{len(distinct(rounds)), "unreachable.min_rounds", "in %d of %d rounds"}, {len(distinct(channels)), "unreachable.min_channels", "over %d of %d channels"}} {
		need := s.Policy.Count(x.key)
		want(x.have >= need, "it was paged "+x.what, x.have, need)
	}
	least, waited := s.Policy.Duration("unreachable.min_time"), at.Sub(first)
	want(waited >= least, "its first page went out %s ago, not %s", waited.Round(time.Second), least)
	want(!last.Before(openSince), "it was not paged again since its slot opened at %s", stamp(openSince))
	return missing, pages
}

func noOpenSlot(t emergencyv1.Team) *Refusal {
	return notProven("the %s team has no unfilled slot", teamWord(t)).allow("Escalate", "", "name the team that is missing, or another ground")
}

// openSince is when a team's longest open slot opened.
func (s *State) openSince(t emergencyv1.Team) (since time.Time, open bool) {
	for _, sl := range s.Slots {
		if sl.Team == t && sl.State == SlotOpen && (!open || sl.OpenSince.Before(since)) {
			since, open = sl.OpenSince, true
		}
	}
	return since, open
}

func (s *State) fallbackRound(number uint32) bool {
	return slices.ContainsFunc(s.Rounds, func(r Round) bool { return r.Number == number && r.Fallback })
}

// proveGap: a called team had nobody on duty, it still has an unfilled slot, and no one accepted since.
func (s *State) proveGap(t emergencyv1.Team) ([]uint64, *Refusal) {
	var gap uint64
	for _, g := range s.Gaps {
		if g.Team == t {
			gap = g.Position
		}
	}
	if gap == 0 {
		return nil, notProven("no call-out found the %s team without anybody on duty", teamWord(t)).allow("CallOut", "", "call the team; a gap is found by the call itself")
	}
	for _, a := range s.Answered {
		if a.Team == t && a.Position > gap {
			return nil, notProven("%s of the %s team accepted since the gap was found", a.Person, teamWord(t)).
				allow("Escalate", "", "name another ground if the team is missing again, such as that it cannot be reached")
		}
	}
	if _, open := s.openSince(t); !open {
		return nil, noOpenSlot(t)
	}
	return []uint64{gap}, nil
}

// proveFailure: the position is a failed test, a veto, a failed apply or a deployment that differs.
func (s *State) proveFailure(position uint64) ([]uint64, *Refusal) {
	if !slices.ContainsFunc(s.Failures, func(m Mark) bool { return m.Position == position }) {
		return nil, notProven("position %d of %s is no failed test, veto, failed apply or deployment that differs", position, s.Incident).
			allow("Escalate", "", "name the position of one; the timeline shows them")
	}
	return []uint64{position}, nil
}

// proveUnfit: the code and a reason of some length, both signed by the actor. TIME needs that less than a quarter of the overall
// time is left.
func (s *State) proveUnfit(code emergencyv1.UnfitCode, reason string, at time.Time) ([]uint64, *Refusal) {
	if !longEnough(reason) {
		return nil, notProven("the reason has fewer than %d characters", longReason).allow("Escalate", "", "say in at least %d characters why strategy 1 does not fit", longReason)
	}
	if code != emergencyv1.UnfitCode_UNFIT_CODE_TIME {
		return nil, nil
	}
	return s.proveTime(at)
}

func (s *State) proveTime(at time.Time) ([]uint64, *Refusal) {
	overall := s.Policy.Duration("overall")
	if left := s.Declared.At.Add(overall).Sub(at); left >= overall/4 {
		return nil, notProven("%s of %s are left; that is not less than a quarter", left.Round(time.Second), overall).
			allow("Escalate", "", "go on by strategy 1, or name another ground")
	}
	return []uint64{1}, nil // the declaration, from which the time runs
}

// noteFailure keeps what may ground an escalation (STEP_FAILED), for ever: a later success does not undo that a step failed.
func (s *State) noteFailure(f fact, what, revision string) {
	s.Failures = append(s.Failures, f.mark(f.who(), revision, what))
}

// ProvenGrounds are the grounds for strategy 2 that the history proves at a time. What a person has to sign, that strategy 1 does
// not fit, is not among them.
func ProvenGrounds(s *State, at time.Time) []*emergencyv1.EscalateRequest {
	var asked, proven []*emergencyv1.EscalateRequest
	for _, t := range []emergencyv1.Team{emergencyv1.Team_TEAM_CRITICAL, emergencyv1.Team_TEAM_ASSESSMENT, emergencyv1.Team_TEAM_DEVELOPMENT, emergencyv1.Team_TEAM_TESTING} {
		asked = append(asked, &emergencyv1.EscalateRequest{Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_COVERAGE_GAP, Team: t},
			&emergencyv1.EscalateRequest{Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_TEAM_UNREACHABLE, Team: t})
	}
	for _, f := range s.Failures {
		asked = append(asked, &emergencyv1.EscalateRequest{Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_STEP_FAILED, Evidence: f.Position})
	}
	for _, c := range asked {
		if _, refusal := s.proveGround(c, at); refusal == nil {
			proven = append(proven, c)
		}
	}
	return proven
}
