// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment/deploymenttest"
)

// replaced changes the payload of the first event of a record.
func (w *world) replaced(rec *emergencyv1.Record, m proto.Message) {
	w.Helper()
	e := w.Event(rec.GetOwner(), m)
	e.Deviations = rec.GetEvents()[0].GetDeviations()
	rec.Events[0] = e
}

// without puts a harmless note in the place of a command's record, so that all others stay where they are.
func (w *world) without(incident, command string) {
	w.Helper()
	w.edit(incident, command, func(rec *emergencyv1.Record) {
		rec.Owner, rec.Command, rec.Approval = procedure.OwnerIncident, "AnnotateLog", nil
		rec.Events = []*emergencyv1.Event{w.Event(procedure.OwnerIncident, &emergencyv1.LogAnnotated{Entry: 1, Text: "nothing of note"})}
	})
}

// shortLies make a short road of what is none: nobody escalated, nobody tested, nobody handed over, or not whom the records name.
func shortLies() map[string]lie {
	return map[string]lie{
		"an escalation that nobody signed": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "Escalate", func(r *emergencyv1.Record) { r.Approval = nil })
			},
			code: "HISTORY_INVALID", point: "Escalate by anna has no signature",
		},
		"an escalation under a command that nobody signs": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "Escalate", func(r *emergencyv1.Record) { r.Command, r.Approval = "AnnotateLog", nil })
			},
			code: "HISTORY_INVALID", point: "which nobody signs for it",
		},
		"an escalation left out": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) { w.without(incident, "Escalate") },
			code: "FIRST_REVIEW_MISSING", point: "no approving first review",
		},
		"an escalation for a ground that the history does not prove": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "Escalate", func(r *emergencyv1.Record) {
					e := w.Payload(r.GetEvents()[0]).(*emergencyv1.StrategyEscalated)
					e.Ground, e.Team, e.Code = emergencyv1.EscalationGround_ESCALATION_GROUND_TEAM_UNREACHABLE, emergencyv1.Team_TEAM_TESTING, 0
					w.replaced(r, e)
				})
			},
			code: "HISTORY_INVALID", point: "it was never paged",
		},
		"an escalation for another code than was signed": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "Escalate", func(r *emergencyv1.Record) {
					e := w.Payload(r.GetEvents()[0]).(*emergencyv1.StrategyEscalated)
					e.Code = emergencyv1.UnfitCode_UNFIT_CODE_LIVE_STATE_NEEDED
					w.replaced(r, e)
				})
			},
			code: "HISTORY_INVALID", point: "code was signed as",
		},
		"a patch of a developer": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "RegisterPatch", func(r *emergencyv1.Record) {
					st := w.State(incident)
					cmd := &emergencyv1.RegisterPatchRequest{Meta: &emergencyv1.CommandMeta{Incident: incident, RequestId: r.GetRequestId()}}
					r.Actor.Person, r.Actor.Role = "dora", emergencyv1.Role_ROLE_SOFTWARE_DEVELOPER
					r.Approval = w.Sign("dora", "dora", st, cmd)
				})
			},
			code: "HISTORY_INVALID", point: "registered by dora as software developer under strategy 2",
		},
		"a local test that nobody wrote down": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "Forward", func(r *emergencyv1.Record) {
					e := w.Payload(r.GetEvents()[0]).(*emergencyv1.PatchForwarded)
					e.LocalTest = nil
					w.replaced(r, e)
				})
			},
			code: "HISTORY_INVALID", point: "without a local test",
		},
		"a skipped review that is no deviation": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "Forward", func(r *emergencyv1.Record) { r.Events[0].Deviations = nil })
			},
			code: "HISTORY_INVALID", point: "is not recorded as a deviation",
		},
		"handed over by nobody": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) { w.without(incident, "Forward") },
			code: "NOT_FORWARDED", point: "was not handed over",
		},
		"handed to another": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "Forward", func(r *emergencyv1.Record) {
					e := w.Payload(r.GetEvents()[0]).(*emergencyv1.PatchForwarded)
					e.To = "carl"
					w.replaced(r, e)
				})
			},
			code: "HISTORY_INVALID", point: `to was signed as "carla"`,
		},
		"an observer who was never there": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "StartApply", func(r *emergencyv1.Record) {
					e := w.Payload(r.GetEvents()[0]).(*emergencyv1.ApplyStarted)
					e.Observer, e.NoObserverReason = "carl", nil
					w.replaced(r, e)
				})
			},
			code: "HISTORY_INVALID", point: "no_observer_reason",
		},
		"a missing observer that is no deviation": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "StartApply", func(r *emergencyv1.Record) { r.Events[0].Deviations = nil })
			},
			code: "HISTORY_INVALID", point: "without an observer is not recorded as a deviation",
		},
		"back under strategy 1 while it runs, and nothing of it": {
			tell: func(w *world, incident string, _ *deploymentv1.Job) {
				w.edit(incident, "DryRun", func(rec *emergencyv1.Record) { // in its place, so that positions stay
					rec.Owner, rec.Command = procedure.OwnerIncident, "DeEscalate"
					rec.Events[0] = w.Event(procedure.OwnerIncident, &emergencyv1.StrategyDeEscalated{From: 2, To: 1, Reason: "nobody's reason at all"})
				})
			},
			code: "FIRST_REVIEW_MISSING", point: "no approving first review",
		},
	}
}

// TestLiesOfStrategy2: the short road takes as many people's signatures as it has acts, and the agent checks each.
func TestLiesOfStrategy2(t *testing.T) {
	t.Parallel()
	for name, l := range shortLies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := scripted(t)
			incident := w.StartedAlone(false)
			j := w.ApplyJob(incident)
			c := config(w.Rig, w.addr)
			c.Patience = 200 * time.Millisecond
			start(w.Rig, c, nil)
			l.tell(w, incident, j)
			r := w.run(j)
			if r.GetOk() || r.GetErrorCode() != l.code || !strings.Contains(r.GetErrorDetail(), l.point) {
				t.Errorf("answer %s %q, want %s naming %q", r.GetErrorCode(), r.GetErrorDetail(), l.code, l.point)
			}
			w.wantTree(w.HostRoot, w.BaseTree())
			w.wantRefused(incident)
			if !strings.Contains(w.LogText.String(), "ALARM") {
				t.Error("no alarm in the log")
			}
		})
	}
}

// TestStrategy2IsDone: the same without a lie is done.
func TestStrategy2IsDone(t *testing.T) {
	t.Parallel()
	w := scripted(t)
	incident := w.StartedAlone(false)
	start(w.Rig, config(w.Rig, w.addr), nil)
	if r := w.run(w.ApplyJob(incident)); !r.GetOk() || r.GetPostTree() != w.ResultTree() {
		t.Errorf("answer %v", r)
	}
	a := w.wantState(incident, procedure.Verified)
	if a.Strategy != 2 || a.Observer != "" {
		t.Errorf("%+v", a)
	}
	w.wantTree(w.HostRoot, w.ResultTree())
}

// TestByHandAlone: applied by hand and without an observer, the agent's word is the one that counts.
func TestByHandAlone(t *testing.T) {
	t.Parallel()
	w := honest(t)
	start(w.Rig, config(w.Rig, w.addr), nil)
	incident := w.StartedAlone(true)
	w.Must(w.Place())
	if _, err := w.Try("carla", incident, &emergencyv1.ReportTreeRequest{PreTree: w.BaseTree(), PostTree: w.ResultTree()}, procedure.Facts{}); err == nil {
		t.Error("the executor's own word for the tree is taken, and nobody observes")
	}
	w.reportApplied(incident)
	a := w.wantState(incident, procedure.Verified)
	if a.HostTree != w.ResultTree() || a.Verified.By != deploymenttest.Host {
		t.Errorf("apply %+v", a)
	}
}
