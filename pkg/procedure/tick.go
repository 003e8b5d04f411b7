// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"slices"
	"sort"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// timer is something that happens when a due time has passed, in the order of due time, then id (procedure.md 0.5).
type timer struct {
	due  time.Time
	id   string
	emit func(*decision)
}

// timers are everything that can still become due for the deciding service.
func (d *decision) timers() []timer {
	if d.s.Status == Absent || d.s.Status == Merged {
		return nil
	}
	var list []timer
	switch d.env.Owner {
	case OwnerIncident:
		list = d.deadlineTimers()
	case OwnerNotification:
		list = d.notificationTimers()
	case OwnerDeployment:
		list = d.consoleTimers()
	case OwnerArbitration:
		list = d.arbitrationTimers()
	}
	sort.SliceStable(list, func(i, j int) bool {
		if !list[i].due.Equal(list[j].due) {
			return list[i].due.Before(list[j].due)
		}
		return list[i].id < list[j].id
	})
	return list
}

// tickLimit bounds what one tick emits; more comes with the next one.
const tickLimit = 200

// decideTick emits everything that has become due and was not yet emitted. Each event is folded into a scratch copy before
// the next is looked for, so what one event makes due, or makes moot, counts at once.
func decideTick(d *decision, _ *emergencyv1.TickRequest) *Refusal {
	scratch := d.s
	for range tickLimit {
		step := &decision{s: scratch, env: d.env, row: d.row, meta: d.meta, at: d.at}
		due := step.timers()
		if len(due) == 0 || !due[0].due.Before(d.at) {
			return nil
		}
		due[0].emit(step)
		if step.err != nil || len(step.events) == 0 {
			d.err = step.err
			return nil
		}
		if scratch == d.s {
			scratch = d.s.Clone()
		}
		rec := &emergencyv1.Record{
			Incident: scratch.Incident, FirstPosition: scratch.Position + 1, Owner: d.env.Owner, RecordedAt: timestamppb.New(d.at), Events: step.events,
			Actor: &emergencyv1.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_TIMER},
		}
		if err := scratch.Apply(rec, ""); err != nil {
			d.err = err
			return nil
		}
		d.events = append(d.events, step.events...)
	}
	return nil
}

// NextDue is the time after which a tick of the owner would emit something; ok is false if nothing is outstanding. It may
// lie in the past.
func NextDue(s *State, env Env) (due time.Time, ok bool) {
	d := &decision{s: s, env: env, at: env.Now}
	list := d.timers()
	if len(list) == 0 {
		return time.Time{}, false
	}
	return list[0].due, true
}

// DeadlineState of a deadline.
type DeadlineState string

// The states of a deadline. Late is met after it was due.
const (
	DeadlineOpen     DeadlineState = "OPEN"
	DeadlineMet      DeadlineState = "MET"
	DeadlineLate     DeadlineState = "MET_LATE"
	DeadlineBreached DeadlineState = "BREACHED"
	DeadlineLapsed   DeadlineState = "LAPSED"
)

// Deadline is a due time of the policy and whether its step was done in time. Judged by when the step was recorded, never
// by whether a breach was (procedure.md 0.6).
type Deadline struct {
	Key   string
	Due   time.Time
	MetAt time.Time // zero if not met
}

// State judges the deadline at a time.
func (dl Deadline) State(s *State, now time.Time) DeadlineState {
	switch {
	case !dl.MetAt.IsZero() && !dl.MetAt.After(dl.Due):
		return DeadlineMet
	case !dl.MetAt.IsZero():
		return DeadlineLate
	case dl.lapsed(s):
		return DeadlineLapsed
	case s.Status != Open && (s.EndedAt.IsZero() || !s.EndedAt.After(dl.Due)):
		return DeadlineLapsed
	case now.After(dl.Due):
		return DeadlineBreached
	}
	return DeadlineOpen
}

// lapsed tells whether the incident left strategy 1 before a deadline of that strategy was due (3.2).
func (dl Deadline) lapsed(s *State) bool {
	left := s.leftStrategy1()
	return strings.HasPrefix(dl.Key, "s1.") && !left.IsZero() && !left.After(dl.Due)
}

// Deadlines are the incident's deadlines from T0, in order of due time (procedure.md 3.2).
func Deadlines(s *State) []Deadline {
	if s.Policy == nil {
		return nil
	}
	r := s.judged()
	list := []Deadline{
		{Key: "s1.callout", MetAt: s.firstRound()},
		{Key: "s1.slots", MetAt: s.SlotsFilled.At},
		{Key: "s1.patch", MetAt: s.firstPatch()},
		{Key: "s1.review1", MetAt: r.transferredAt()},
		{Key: "s1.tests", MetAt: r.firstTestedAt()},
		{Key: "s1.review2", MetAt: r.forwardedAt()},
		{Key: "s1.deploy", MetAt: s.verifiedAt()},
		{Key: "s1.document", MetAt: s.documentedAt()},
		{Key: "overall", MetAt: s.overallMetAt()},
	}
	left := s.leftStrategy1()
	for i := range list {
		dl := &list[i]
		dl.Due = s.Declared.At.Add(s.Policy.Duration(dl.Key))
		if strings.HasPrefix(dl.Key, "s1.") && !left.IsZero() && dl.MetAt.After(left) {
			dl.MetAt = time.Time{} // what was done under another strategy meets no deadline of this one
		}
	}
	return list
}

// judged is the revision by whose steps deadlines are judged: the one that was deployed, which no later patch changes, or else the current one.
func (s *State) judged() *Revision {
	for _, a := range s.Applies {
		if r, ok := s.Revision(a.Revision); ok && a.State == Verified {
			return r
		}
	}
	return s.Current()
}

func (s *State) firstRound() time.Time {
	if len(s.Rounds) == 0 {
		return time.Time{}
	}
	return s.Rounds[0].At
}

func (s *State) firstPatch() time.Time {
	if len(s.Revisions) == 0 {
		return time.Time{}
	}
	return s.Revisions[0].At
}

func (r *Revision) transferredAt() time.Time {
	if r == nil || r.Transfer == nil {
		return time.Time{}
	}
	return r.Transfer.FirstAt
}

func (r *Revision) forwardedAt() time.Time {
	if r == nil || r.Forward == nil {
		return time.Time{}
	}
	return r.Forward.FirstAt
}

func (r *Revision) firstTestedAt() time.Time {
	if r == nil {
		return time.Time{}
	}
	return r.TestedAt
}

// testedAt is when the current revision's quorum was reached, or its waiver and minimum both were there.
func (s *State) testedAt(r *Revision) time.Time {
	if r == nil {
		return time.Time{}
	}
	need, since := s.Policy.Count("test.quorum"), time.Time{}
	if w := s.Waived(emergencyv1.Control_CONTROL_TEST_QUORUM, r.ID); w != nil {
		need, since = s.Policy.Count("test.min_after_waiver"), w.At
	}
	for _, t := range r.Tests {
		if !t.Pass {
			continue
		}
		if need--; need == 0 {
			if t.At.After(since) {
				return t.At
			}
			return since
		}
	}
	return time.Time{}
}

func (s *State) verifiedAt() time.Time {
	for _, a := range s.Applies {
		if a.State == Verified {
			return a.Verified.At
		}
	}
	return time.Time{}
}

// overallMetAt: deployed, verified and documented; of what is done under strategies 2 and 3, deployed and verified, or a session
// ended (3.2).
func (s *State) overallMetAt() time.Time {
	met := s.sessionEndedAt()
	for _, a := range s.Applies {
		if a.State == Verified && (a.Strategy > 1 || s.Strategy > 1) {
			met = earliest(met, a.Verified.At)
		}
	}
	v, documented := s.verifiedAt(), s.documentedAt()
	if v.IsZero() || documented.IsZero() {
		return met
	}
	if documented.After(v) {
		v = documented
	}
	return earliest(met, v)
}

// documentedAt is when strategy 1 was documented.
func (s *State) documentedAt() time.Time {
	list := s.documentedUnder(1)
	if len(list) == 0 {
		return time.Time{}
	}
	return list[0].At
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// OverallMetAt is when the incident was handled as its strategy asks (3.2); zero until then.
func OverallMetAt(s *State) time.Time { return s.overallMetAt() }

// warnAt are the shares of the overall deadline at which it warns, in percent.
func warnAt() []uint32 { return []uint32{25, 50, 75, 90} }

// deadlineTimers warn on the way to the overall deadline and record each breach once.
func (d *decision) deadlineTimers() []timer {
	if d.s.Status != Open {
		return nil
	}
	var list []timer
	for _, dl := range Deadlines(d.s) {
		if !dl.MetAt.IsZero() && !dl.MetAt.After(dl.Due) || dl.lapsed(d.s) || slices.Contains(d.s.Breached, dl.Key) {
			continue
		}
		list = append(list, timer{dl.Due, "breach/" + dl.Key, func(d *decision) {
			d.emit(&emergencyv1.DeadlineBreached{Deadline: dl.Key, DueAt: timestamppb.New(dl.Due)})
		}})
		if dl.Key == "overall" {
			list = append(list, d.warnings(dl)...)
		}
	}
	return list
}

func (d *decision) warnings(dl Deadline) []timer {
	var list []timer
	whole := dl.Due.Sub(d.s.Declared.At)
	for _, percent := range warnAt() {
		if slices.Contains(d.s.Warned, Warned{dl.Key, percent}) {
			continue
		}
		due := d.s.Declared.At.Add(whole * time.Duration(percent) / 100)
		list = append(list, timer{due, "warn/" + dl.Key, func(d *decision) {
			d.emit(&emergencyv1.DeadlineWarned{Deadline: dl.Key, Percent: percent, DueAt: timestamppb.New(dl.Due)})
		}})
	}
	return list
}
