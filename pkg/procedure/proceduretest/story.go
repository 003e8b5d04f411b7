// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"slices"
	"sync"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Step brings a world on.
type Step func(*World)

// Milestone is a point of the story of strategy 1, named by what has just happened.
type Milestone string

// The milestones of strategy 1, in order.
const (
	Declared      Milestone = "declared"
	Called        Milestone = "called"
	Accepted      Milestone = "accepted"       // carla, carl, anna, bert, dora, theo and tina hold the slots
	OnStandby     Milestone = "on standby"     // and have checked in
	Registered    Milestone = "registered"     // by dora, the author
	Reviewed      Milestone = "first reviewed" // by anna
	Transferred   Milestone = "transferred"
	OnTestServer  Milestone = "on the test server"
	Tested        Milestone = "tested"          // by theo and tina
	ReviewedTwice Milestone = "second reviewed" // by bert
	Forwarded     Milestone = "forwarded"       // to carla
	DryRun        Milestone = "dry run"
	Observed      Milestone = "observed" // by carl
	Applying      Milestone = "applying" // by carla
	Applied       Milestone = "applied"
	Verified      Milestone = "verified"
	Healthy       Milestone = "healthy"
	Replicated    Milestone = "replicated"
	Documented    Milestone = "documented"
	Settled       Milestone = "settled" // lead decision and Board summary: nothing is owed any more
	ClosedDown    Milestone = "closed"
)

type chapter struct {
	name Milestone
	play Step
}

// story is strategy 1 as it should go, one minute an act.
func story() []chapter {
	return []chapter{
		{Declared, func(w *World) { w.act("carla", Declare()) }},
		{Called, func(w *World) { w.act("carla", &emergencyv1.CallOutRequest{Message: "the signer serves wrong data"}) }},
		{Accepted, func(w *World) {
			for _, x := range Responders() {
				w.act(x.Person, Accept(x.Slot))
			}
		}},
		{OnStandby, func(w *World) {
			for _, x := range Responders() {
				w.act(x.Person, &emergencyv1.CheckInRequest{Slot: x.Slot})
			}
		}},
		{Registered, func(w *World) { w.act("dora", Register(1)) }},
		{Reviewed, func(w *World) { w.act("anna", FirstReview(approve)) }},
		{Transferred, func(w *World) { w.act("anna", &emergencyv1.TransferRequest{}) }},
		{OnTestServer, func(w *World) { w.act("test:"+TestServer, ConfirmServer(w.State)) }},
		{Tested, func(w *World) { w.act("theo", Test(pass)); w.act("tina", Test(pass)) }},
		{ReviewedTwice, func(w *World) { w.act("bert", SecondReview(approve)) }},
		{Forwarded, func(w *World) { w.act("bert", &emergencyv1.ForwardRequest{RollbackPlan: "take it back"}) }},
		{DryRun, func(w *World) { w.act("carla", &emergencyv1.DryRunRequest{}) }},
		{Observed, func(w *World) { w.act("carl", Observe()) }},
		{Applying, func(w *World) { w.act("carla", &emergencyv1.StartApplyRequest{}) }},
		{Applied, func(w *World) { w.act("host:"+w.State.Host(), ReportApply(true)) }},
		{Verified, func(w *World) { w.act("host:"+w.State.Host(), ReportTree(w.State.Current().ResultTree)) }},
		{Healthy, func(w *World) { w.act("carla", Health()) }},
		{Replicated, func(w *World) {
			w.act("repo:git", &emergencyv1.PushReplicationRequest{})
			w.act("repo:git", &emergencyv1.CheckReplicationRequest{})
		}},
		{Documented, func(w *World) { w.act("carla", Document(w.State)) }},
		{Settled, func(w *World) { w.act("clara", Lead(false)); w.act("bea", BoardSummary()) }},
		{ClosedDown, func(w *World) { w.act("carla", Close()) }},
	}
}

// act gives one command and lets a minute pass.
func (w *World) act(who string, c procedure.Command) {
	w.t.Helper()
	w.Do(who, c)
	w.Wait(time.Minute)
}

// Milestones lists those of strategy 1 in order.
func Milestones() []Milestone { return names(story()) }

func names(chapters []chapter) []Milestone {
	var list []Milestone
	for _, c := range chapters {
		list = append(list, c.name)
	}
	return list
}

// stories are the stories that are told, each from its beginning.
func stories() [][]chapter { return [][]chapter{story(), story2(), story3()} }

// storyOf is the story that has a milestone; nil if none has.
func storyOf(m Milestone) []chapter {
	for _, list := range stories() {
		if slices.ContainsFunc(list, func(c chapter) bool { return c.name == m }) {
			return list
		}
	}
	return nil
}

// Story brings an incident without a history to a milestone of its story.
func Story(to Milestone) Step {
	return func(w *World) {
		w.t.Helper()
		if w.State.Position > 0 || w.State.Incident != DefaultIncident || !w.Now.Equal(T0()) || w.Book != Book() {
			between("", to)(w)
			return
		}
		at, ok := played()[to]
		if !ok {
			w.t.Fatalf("no milestone %q", to)
		}
		*w = *at.For(w.t)
	}
}

// played is the story told once: the world at each milestone, never changed afterwards.
var played = sync.OnceValue(func() map[Milestone]*World {
	list := map[Milestone]*World{}
	for _, chapters := range stories() {
		w := NewWorld(must{})
		for _, c := range chapters {
			c.play(w)
			list[c.name] = w.Fork()
		}
	}
	return list
})

// From plays the part of a story after one milestone up to another; an empty one plays from the beginning.
func From(after, to Milestone) Step { return between(after, to) }

func between(after, to Milestone) Step {
	return func(w *World) {
		w.t.Helper()
		list := storyOf(to)
		last := slices.IndexFunc(list, func(c chapter) bool { return c.name == to })
		first := slices.IndexFunc(list, func(c chapter) bool { return c.name == after }) + 1
		if last < 0 || after != "" && first == 0 {
			w.t.Fatalf("no milestone %q or %q", after, to)
		}
		for _, c := range list[first : last+1] {
			c.play(w)
		}
	}
}

// Does is a step that gives one command, which must be accepted.
func Does(who string, c procedure.Command, options ...Option) Step {
	return func(w *World) { w.t.Helper(); w.Do(who, c, options...) }
}

// Waits is a step that lets time pass.
func Waits(d time.Duration) Step { return func(w *World) { w.Wait(d) } }

// Drill is a step that declares a drill instead of an emergency.
func Drill() Step {
	return func(w *World) {
		c := Declare()
		c.Drill = true
		w.act("carla", c)
	}
}

// Responder is who takes which slot in the story.
type Responder struct{ Person, Slot string }

// Responders are who takes which slot in the story.
func Responders() []Responder {
	return []Responder{
		{"carla", "critical/1"}, {"carl", "critical/2"}, {"anna", "assessment/1"}, {"bert", "assessment/2"},
		{"dora", "development/1"}, {"theo", "testing/1"}, {"tina", "testing/2"},
	}
}
