// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"slices"
	"time"

	"pgregory.net/rapid"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Random plays a random valid history: the story, or strategy 3's console, up to a random milestone, sometimes with a dispute up
// to one, then moves of anybody, with time going on by random steps and sometimes a little back. Refused moves record nothing; after sees every move that was tried, with the
// state before it.
func Random(t *rapid.T, moves int, after func(before *procedure.State, m Move, out Outcome)) *World {
	w := NewWorld(t)
	list := slices.Concat(Milestones(), Milestones2(), Milestones3())
	if n := rapid.IntRange(0, len(list)).Draw(t, "milestone"); n > 0 {
		Story(list[n-1])(w)
		if m := rapid.IntRange(-2*len(DisputeMilestones()), len(DisputeMilestones())).Draw(t, "dispute"); m > 0 {
			Dispute(emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER, DisputeMilestones()[m-1])(w)
		}
	}
	for range moves {
		w.Wait(rapid.SampledFrom(steps()).Draw(t, "wait"))
		step(t, w, after)
	}
	return w
}

// steps are how far the time moves between two moves; the tolerance of clocks is two minutes.
func steps() []time.Duration {
	return []time.Duration{0, time.Second, time.Minute, time.Minute, 10 * time.Minute, time.Hour, 25 * time.Hour, -time.Minute, -3 * time.Minute}
}

// step tries moves until one is accepted, a few at most: most of what can be tried is refused.
func step(t *rapid.T, w *World, after func(*procedure.State, Move, Outcome)) {
	for range 8 {
		m := rapid.SampledFrom(Moves(w.State)).Draw(t, "move")
		before := w.State
		out := w.TryMove(m)
		if after != nil {
			after(before, m, out)
		}
		if out.Record != nil {
			return
		}
		if w.Now.Before(w.State.RecordedAt) {
			w.Now = w.State.RecordedAt // nobody's clock stays behind for ever
		}
	}
}
