// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

var (
	freeze    = &emergencyv1.FreezeRequest{Grant: "G1"}
	resume    = &emergencyv1.ResumeRequest{Grant: "G1"}
	terminate = &emergencyv1.TerminateRequest{Grant: "G1"}
	disable   = &emergencyv1.DisableRequest{Grant: "G1"}
	extend    = &emergencyv1.ExtendSessionRequest{Grant: "G1", Reason: "the cause is found, the cure is not"}
	full      = pt.Does("gateway", &emergencyv1.FreezeRequest{Grant: "G1", Cause: emergencyv1.SessionCause_SESSION_CAUSE_RECORDING_FULL})
)

// grantIs checks the last grant.
func grantIs(check func(procedure.Grant) bool) func(*testing.T, *pt.World) {
	return func(t *testing.T, w *pt.World) {
		t.Helper()
		if g := w.State.Grants[len(w.State.Grants)-1]; !check(g) {
			t.Errorf("%+v", g)
		}
	}
}

func frozenBy(cause emergencyv1.SessionCause, mode emergencyv1.FreezeMode) func(*testing.T, *pt.World) {
	return grantIs(func(g procedure.Grant) bool {
		return g.State == procedure.GrantFrozen && g.FreezeCause == cause && g.FreezeMode == mode
	})
}

func TestFreeze(t *testing.T) {
	t.Parallel()
	live := pt.Story(pt.Live)
	lost := &emergencyv1.FreezeRequest{Grant: "G1", Cause: emergencyv1.SessionCause_SESSION_CAUSE_LEASE_LOST}
	input := found(freeze, func(x *procedure.ConsoleFacts) { x.FreezeMode = emergencyv1.FreezeMode_FREEZE_MODE_INPUT })
	run(t, []row{
		{name: "by the watcher", given: history(live), when: freeze, by: "carl", then: events("SessionFrozen"), check: frozenBy(emergencyv1.SessionCause_SESSION_CAUSE_WATCHER, emergencyv1.FreezeMode_FREEZE_MODE_CGROUP)},
		{name: "a person's cause is the person's wish, whatever is claimed", given: history(live), when: lost, by: "carla", then: events("SessionFrozen"), check: frozenBy(emergencyv1.SessionCause_SESSION_CAUSE_WATCHER, emergencyv1.FreezeMode_FREEZE_MODE_CGROUP)},
		{name: "by the broker", given: history(live), when: lost, by: gateway, then: events("SessionFrozen"), check: frozenBy(emergencyv1.SessionCause_SESSION_CAUSE_LEASE_LOST, emergencyv1.FreezeMode_FREEZE_MODE_CGROUP)},
		{name: "the agent could not", given: history(live), when: lost, by: gateway, with: input, then: events("SessionFrozen"), check: wantDeviation(cannotFreeze)},
		{name: "there is no agent, as was said before", given: history(pt.Story(pt.Consumed), pt.Does(gateway, pt.Opened(false))), when: lost, by: gateway, with: input, then: events("SessionFrozen"), check: wantDeviation()},
		{name: "twice", given: history(pt.Story(pt.Frozen)), when: freeze, by: "carl", refused: procedure.ReasonGrantState},
		{name: "not open yet", given: history(pt.Story(pt.Consumed)), when: freeze, by: "carl", refused: procedure.ReasonGrantState},
		{name: "ended", given: history(pt.Story(pt.Terminated)), when: freeze, by: "carl", refused: procedure.ReasonGrantState},
		{name: "no such grant", given: history(live), when: &emergencyv1.FreezeRequest{Grant: "G2"}, by: "carl", refused: procedure.ReasonGrant},
		{name: "by the subject", given: history(live), when: freeze, by: "emil", refused: procedure.ReasonRole},
		{name: "by somebody with two exclusive roles, as a safety act", given: history(live), when: freeze, by: "xaver", then: events("SessionFrozen"), check: wantDeviation(emergencyv1.Deviation_DEVIATION_ROLE_EXCLUSIVITY)},
	})
}

func TestResume(t *testing.T) {
	t.Parallel()
	rearmed := history(pt.Story(pt.Frozen), pt.Does("carl", pt.Arm()))
	after := func(d time.Duration) []pt.Step { // the story's freeze is a second old
		return history(pt.Story(pt.Frozen), pt.Waits(d-time.Second), pt.Does("carl", pt.Arm()))
	}
	over := with(pt.Arm(), func(c *emergencyv1.ArmWatchRequest) { c.TakeOverReason = "carl has gone home" })
	run(t, []row{
		{name: "armed again", given: rearmed, when: resume, by: "carl", then: events("SessionResumed"), check: grantIs(func(g procedure.Grant) bool { return g.State == procedure.GrantLive && g.InputDiscarded == 3 })},
		{name: "not armed again", given: history(pt.Story(pt.Frozen)), when: resume, by: "carl", refused: procedure.ReasonWatcherAbsent},
		{name: "armed again and gone", given: rearmed, when: resume, by: "carl", with: []pt.Option{pt.Facts(procedure.Facts{})}, refused: procedure.ReasonWatcherAbsent},
		{name: "by another admin", given: rearmed, when: resume, by: "carla", refused: procedure.ReasonWatcherRole},
		{name: "by another admin who took over", given: history(pt.Story(pt.Frozen), pt.Does("carla", over)), when: resume, by: "carla", then: events("SessionResumed")},
		{name: "exactly at the end of the grace", given: after(time.Minute), when: resume, by: "carl", then: events("SessionResumed")},
		{name: "after the grace", given: after(time.Minute + 1), when: resume, by: "carl", refused: procedure.ReasonGraceOver},
		{name: "not frozen", given: history(pt.Story(pt.Live)), when: resume, by: "carl", refused: procedure.ReasonGrantState},
		{name: "ended", given: history(pt.Story(pt.Terminated)), when: resume, by: "carl", refused: procedure.ReasonGrantState},
	})
}

func TestMarkSession(t *testing.T) {
	t.Parallel()
	live := pt.Story(pt.Live) // with a checkpoint at frame 10
	mark := func(kind emergencyv1.MarkKind, text string) procedure.Command {
		return &emergencyv1.MarkSessionRequest{Grant: "G1", Kind: kind, Text: text}
	}
	smaller := with(pt.CheckpointAt(20), func(c *emergencyv1.MarkSessionRequest) { c.Checkpoint.Size = 10 })
	fewer := with(pt.CheckpointAt(20), func(c *emergencyv1.MarkSessionRequest) { c.Checkpoint.OutputOffset = 10 })
	malformed := with(pt.CheckpointAt(20), func(c *emergencyv1.MarkSessionRequest) { c.Checkpoint.ChainHash = "x" })
	run(t, []row{
		{name: "the broker, what it refused before the credential was used", given: history(pt.Story(pt.Granted)), when: mark(emergencyv1.MarkKind_MARK_KIND_REFUSED_REQUEST, "subsystem sftp"), by: "gateway", then: events("SessionMarked")},
		{name: "the broker, a note before the credential was used", given: history(pt.Story(pt.Granted)), when: pt.Note("x"), by: "gateway", refused: procedure.ReasonGrantState},
		{name: "a note", given: history(live), when: pt.Note("he reads the log"), by: "carl", then: events("SessionMarked"), check: func(t *testing.T, w *pt.World) {
			if m := w.State.Grants[0].Marks; len(m) != 1 || m[0].Result != "MARK_KIND_NOTE" {
				t.Errorf("%+v", m)
			}
		}},
		{name: "while frozen", given: history(pt.Story(pt.Frozen)), when: mark(emergencyv1.MarkKind_MARK_KIND_CONCEALMENT, "he cleared the screen"), by: "carl", then: events("SessionMarked")},
		{name: "a note after the end", given: history(pt.Story(pt.Terminated)), when: pt.Note("a note"), by: "carl", refused: procedure.ReasonGrantState},
		{name: "a note before the beginning", given: history(pt.Story(pt.Consumed)), when: pt.Note("a note"), by: "carl", refused: procedure.ReasonGrantState},
		{name: "a checkpoint", given: history(live), when: pt.CheckpointAt(11), by: gateway, then: events("SessionMarked"), check: grantIs(func(g procedure.Grant) bool {
			return g.Last().Frame == 11 && len(g.Checkpoints) == 2 && g.OutputOffset == 1100
		})},
		{name: "the last checkpoint, after the end", given: history(pt.Story(pt.Terminated)), when: pt.CheckpointAt(30), by: gateway, then: events("SessionMarked")},
		{name: "a checkpoint before the credential was used", given: history(pt.Story(pt.Armed)), when: pt.CheckpointAt(1), by: gateway, refused: procedure.ReasonGrantState},
		{name: "a checkpoint after the seal", given: history(pt.Story(pt.Sealed)), when: pt.CheckpointAt(30), by: gateway, refused: procedure.ReasonGrantState},
		{name: "the same checkpoint again", given: history(live), when: pt.CheckpointAt(10), by: gateway, refused: procedure.ReasonField},
		{name: "a checkpoint before the last one", given: history(live), when: pt.CheckpointAt(9), by: gateway, refused: procedure.ReasonField},
		{name: "a recording that shrinks", given: history(live), when: smaller, by: gateway, refused: procedure.ReasonField},
		{name: "an output that shrinks", given: history(live), when: fewer, by: gateway, refused: procedure.ReasonField},
		{name: "no hash", given: history(live), when: malformed, by: gateway, refused: procedure.ReasonField},
		{name: "a checkpoint by a person", given: history(live), when: pt.CheckpointAt(20), by: "carl", refused: procedure.ReasonRole},
		{name: "a refused request", given: history(live), when: mark(emergencyv1.MarkKind_MARK_KIND_REFUSED_REQUEST, "subsystem sftp"), by: gateway, then: events("SessionMarked")},
		{name: "a refused request by a person", given: history(live), when: mark(emergencyv1.MarkKind_MARK_KIND_REFUSED_REQUEST, "subsystem sftp"), by: "carl", refused: procedure.ReasonRole},
		{name: "nothing said", given: history(live), when: mark(0, ""), by: "carl", refused: procedure.ReasonField},
		{name: "a checkpoint that is none", given: history(live), when: mark(emergencyv1.MarkKind_MARK_KIND_CHECKPOINT, "x"), by: gateway, refused: procedure.ReasonField},
		{name: "by the subject", given: history(live), when: pt.Note("a note"), by: "emil", refused: procedure.ReasonRole},
	})
}

// A session whose recording is full goes on only after it was extended.
func TestResumeWithAFullRecording(t *testing.T) {
	t.Parallel()
	live, armed := pt.Story(pt.Live), pt.Does("carl", pt.Arm())
	run(t, []row{
		{name: "not extended", given: history(live, full, armed), when: resume, by: "carl", refused: procedure.ReasonLimit},
		{name: "extended", given: history(live, full, pt.Does("carl", extend), armed), when: resume, by: "carl", then: events("SessionResumed")},
		{name: "extended before it was full", given: history(live, pt.Does("carl", extend), full, armed), when: resume, by: "carl", refused: procedure.ReasonLimit},
	})
}

func TestExtendSession(t *testing.T) {
	t.Parallel()
	live := pt.Story(pt.Live)
	by := func(n uint32) procedure.Command {
		return with(extend, func(c *emergencyv1.ExtendSessionRequest) { c.Minutes = n })
	}
	ends := func(minutes int) func(*testing.T, *pt.World) {
		return grantIs(func(g procedure.Grant) bool {
			return g.EndsBy().Equal(g.Opened.At.Add(time.Hour + time.Duration(minutes)*time.Minute))
		})
	}
	run(t, []row{
		{name: "by the watcher", given: history(live), when: extend, by: "carl", then: events("SessionExtended"), check: ends(30)},
		{name: "by less", given: history(live), when: by(10), by: "carl", then: events("SessionExtended"), check: ends(10)},
		{name: "by more than the policy", given: history(live), when: by(31), by: "carl", refused: procedure.ReasonLimit},
		{name: "a second time", given: history(live, pt.Does("carl", by(1))), when: by(1), by: "carl", refused: procedure.ReasonLimit},
		{name: "by another admin", given: history(live), when: extend, by: "carla", refused: procedure.ReasonLimit},
		{name: "without a reason", given: history(live), when: &emergencyv1.ExtendSessionRequest{Grant: "G1", Reason: "more time"}, by: "carl", refused: procedure.ReasonField},
		{name: "while frozen", given: history(pt.Story(pt.Frozen)), when: extend, by: "carl", refused: procedure.ReasonGrantState},
		{name: "frozen with a full recording", given: history(live, full), when: extend, by: "carl", then: events("SessionExtended"), check: ends(30)},
		{name: "with a full recording once more", given: history(live, pt.Does("carl", by(1)), full), when: extend, by: "carl", refused: procedure.ReasonLimit},
		{name: "frozen by the watcher, whatever the recording", given: history(live, pt.Does("carl", freeze)), when: extend, by: "carl", refused: procedure.ReasonGrantState},
		{name: "after the end", given: history(pt.Story(pt.Terminated)), when: extend, by: "carl", refused: procedure.ReasonGrantState},
	})
}

func TestTerminate(t *testing.T) {
	t.Parallel()
	live := pt.Story(pt.Live)
	claimed := &emergencyv1.TerminateRequest{Grant: "G1", Cause: emergencyv1.SessionCause_SESSION_CAUSE_RECORDER}
	cause := func(want emergencyv1.SessionCause) func(*testing.T, *pt.World) {
		return grantIs(func(g procedure.Grant) bool {
			return g.State == procedure.GrantTerminated && g.Cause == want && len(g.Results) == len(procedure.EndEffects())
		})
	}
	retired := book(func(b *pt.World) { b.Do("bea", revokeRole("emil", emergencyv1.Role_ROLE_SOFTWARE_ENGINEER, b.Now)) })
	run(t, []row{
		{name: "by the watcher", given: history(live), when: terminate, by: "carl", then: events("SessionTerminated"), check: cause(emergencyv1.SessionCause_SESSION_CAUSE_WATCHER)},
		{name: "by another admin", given: history(live), when: terminate, by: "carla", then: events("SessionTerminated"), check: cause(emergencyv1.SessionCause_SESSION_CAUSE_ADMIN)},
		{name: "by the lead", given: history(live), when: terminate, by: "clara", then: events("SessionTerminated"), check: cause(emergencyv1.SessionCause_SESSION_CAUSE_ADMIN)},
		{name: "a person's cause is the person's wish, whatever is claimed", given: history(live), when: claimed, by: "carla", then: events("SessionTerminated"), check: cause(emergencyv1.SessionCause_SESSION_CAUSE_ADMIN)},
		{name: "by the subject", given: history(live), when: terminate, by: "emil", then: events("SessionTerminated"), check: cause(emergencyv1.SessionCause_SESSION_CAUSE_SUBJECT)},
		{name: "by the broker", given: history(live), when: claimed, by: gateway, then: events("SessionTerminated"), check: cause(emergencyv1.SessionCause_SESSION_CAUSE_RECORDER)},
		{name: "by the broker, who does not say why", given: history(live), when: terminate, by: gateway, then: events("SessionTerminated"), check: cause(emergencyv1.SessionCause_SESSION_CAUSE_CONNECTION_LOST)},
		{name: "by the broker for a subject who lost the role", given: history(live, retired), when: claimed, by: gatewayOfEmil, then: events("SessionTerminated"), check: cause(emergencyv1.SessionCause_SESSION_CAUSE_RECORDER)},
		{name: "by the host's agent", given: history(live), when: terminate, by: agent, then: events("SessionTerminated"), check: cause(emergencyv1.SessionCause_SESSION_CAUSE_TARGET_LOST)},
		{name: "by another host's agent", given: history(live), when: terminate, by: "host:" + pt.OtherHost, refused: procedure.ReasonRole},
		{name: "by an assessor who is not the subject", given: history(live), when: terminate, by: "anna", refused: procedure.ReasonRole},
		{name: "while frozen", given: history(pt.Story(pt.Frozen)), when: terminate, by: "carl", then: events("SessionTerminated")},
		{name: "while it is being opened", given: history(pt.Story(pt.Consumed)), when: terminate, by: gateway, then: events("SessionTerminated")},
		{name: "a grant that was not used", given: history(pt.Story(pt.Granted)), when: terminate, by: "carla", then: events("SessionTerminated")},
		{name: "an expired grant", given: history(pt.Story(pt.Armed), expired), when: terminate, by: "carla", then: events("SessionTerminated")},
		{name: "no such grant", given: history(live), when: &emergencyv1.TerminateRequest{Grant: "G2"}, by: "carl", refused: procedure.ReasonGrant},
		{name: "by somebody with two exclusive roles, as a safety act", given: history(live), when: terminate, by: "xaver", then: events("SessionTerminated"), check: wantDeviation(emergencyv1.Deviation_DEVIATION_ROLE_EXCLUSIVITY)},
		{name: "by a tester", given: history(live), when: terminate, by: "theo", refused: procedure.ReasonRole},
	})
	t.Run("of what has ended, the first result", func(t *testing.T) {
		t.Parallel()
		for _, given := range [][]pt.Step{
			{pt.Story(pt.Live), pt.Does("carl", terminate)}, {pt.Story(pt.Live), pt.Does("carl", disable)}, {pt.Story(pt.Consumed), pt.Waits(2 * time.Minute), func(w *pt.World) { w.Tick(procedure.OwnerDeployment) }},
		} {
			w := pt.Given(t, given...).World()
			want := w.State.Grants[0].Terminated
			r := pt.GivenWorld(t, w).When(terminate).By(gateway).ThenRepeated()
			if r.First > want.Position || r.Last < want.Position || !r.RecordedAt.Equal(want.At) || r.Hash == "" || !slices.Contains(r.Types, "deployment.SessionTerminated") {
				t.Errorf("%+v is not the termination at %d", r, want.Position)
			}
		}
		w := pt.Given(t, pt.Story(pt.Sealed)).World()
		if r := pt.GivenWorld(t, w).When(terminate).By("carla").ThenRepeated(); r.Last != w.State.Grants[0].Terminated.Position {
			t.Errorf("%+v", r)
		}
	})
}

// TestConsoleTicks is the clock of 4.4: what the broker has not done, a little later, and each once.
func TestConsoleTicks(t *testing.T) {
	t.Parallel()
	const slack = 5 * time.Second // watch.lease
	opened := func(w *pt.World) time.Time { return w.State.Grants[0].Opened.At }
	for name, x := range map[string]struct {
		given []pt.Step
		due   func(*pt.World) time.Time
		want  string
		cause emergencyv1.SessionCause
	}{
		"first use, not armed": {history(pt.Story(pt.Granted)), func(w *pt.World) time.Time { return w.State.Grants[0].FirstUseUntil }, "GrantExpired", 0},
		"first use, armed":     {history(pt.Story(pt.Armed)), func(w *pt.World) time.Time { return w.State.Grants[0].FirstUseUntil }, "GrantExpired", 0},
		"never opened":         {history(pt.Story(pt.Consumed)), func(w *pt.World) time.Time { return w.State.Grants[0].Consumed.At.Add(time.Minute + slack) }, "SessionTerminated", emergencyv1.SessionCause_SESSION_CAUSE_NOT_OPENED},
		"presence":             {history(pt.Story(pt.Live)), func(w *pt.World) time.Time { return w.State.Grants[0].Armed.At.Add(5*time.Minute + slack) }, "SessionFrozen", emergencyv1.SessionCause_SESSION_CAUSE_PRESENCE},
		"grace":                {history(pt.Story(pt.Frozen)), func(w *pt.World) time.Time { return w.State.Grants[0].Frozen.At.Add(time.Minute + slack) }, "SessionTerminated", emergencyv1.SessionCause_SESSION_CAUSE_GRACE_OVER},
		"longest":              {history(pt.Story(pt.Live), present(14)), func(w *pt.World) time.Time { return opened(w).Add(61 * time.Minute) }, "SessionTerminated", emergencyv1.SessionCause_SESSION_CAUSE_MAX_LENGTH},
		"longest, extended":    {history(pt.Story(pt.Live), pt.Does("carl", extend), present(22)), func(w *pt.World) time.Time { return opened(w).Add(91 * time.Minute) }, "SessionTerminated", emergencyv1.SessionCause_SESSION_CAUSE_MAX_LENGTH},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := pt.Given(t, x.given...).World()
			due := x.due(w)
			if next, ok := procedure.NextDue(w.State, w.Env("timer", procedure.OwnerDeployment)); !ok || !next.Equal(due) {
				t.Errorf("next due %s, want %s", next, due)
			}
			w.Now = due // exactly at the due time is still in time
			if out := w.Tick(procedure.OwnerDeployment); out.Record != nil {
				t.Fatalf("too early: %v", out.Types())
			}
			w.Now = due.Add(1)
			out := w.Tick(procedure.OwnerDeployment)
			if got := out.Types(); len(got) != 1 || pt.ShortType(got[0]) != x.want {
				t.Fatalf("%v, want %s", got, x.want)
			}
			g := w.State.Grants[0]
			switch x.want {
			case "SessionTerminated":
				if g.Cause != x.cause || len(g.Results) != len(procedure.EndEffects()) || g.Results[2].GetOutcome() != emergencyv1.EffectOutcome_EFFECT_OUTCOME_UNREACHABLE {
					t.Errorf("%v, %v", g.Cause, g.Results)
				}
			case "SessionFrozen":
				if g.FreezeCause != x.cause {
					t.Errorf("%v", g.FreezeCause)
				}
			}
			if out := w.Tick(procedure.OwnerDeployment); out.Record != nil {
				t.Errorf("twice: %v", out.Types())
			}
		})
	}
	t.Run("a broker that is gone for long", func(t *testing.T) {
		t.Parallel()
		w := pt.Given(t, pt.Story(pt.Live), pt.Waits(3*time.Hour)).World()
		if got := w.Tick(procedure.OwnerDeployment).Types(); !slices.Equal(got, []string{"deployment.SessionFrozen", "deployment.SessionTerminated"}) {
			t.Errorf("%v", got)
		}
	})
}

// present lets four minutes pass so often, after which the watcher confirms to be there.
func present(times int) pt.Step {
	return func(w *pt.World) {
		for range times {
			w.Wait(4 * time.Minute)
			w.Do("carl", pt.Arm())
		}
	}
}
