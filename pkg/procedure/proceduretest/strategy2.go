// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The milestones of strategy 2, in order. The testers cannot be reached: anna and carla do it alone, and owe the rest.
const (
	Unanswered Milestone = "unanswered" // carla and anna are on standby; the testers were paged for more than an hour
	Escalated  Milestone = "escalated"  // by anna
	Prepared   Milestone = "prepared"   // by anna, the author
	HandedOver Milestone = "handed over"
	DryRun2    Milestone = "dry run under strategy 2"
	Applying2  Milestone = "applying under strategy 2" // by carla, without an observer
	Verified2  Milestone = "verified under strategy 2"
	Healthy2   Milestone = "healthy under strategy 2"

	Documented2 Milestone = "documented under strategy 2" // by carla
	Replicated2 Milestone = "replicated under strategy 2"
	Checked2    Milestone = "checked afterwards" // by carl, who could not observe
	InCycle     Milestone = "in the update cycle"
	Reviewed2   Milestone = "first regular review"  // by bert, who transfers it
	Tested2     Milestone = "regular tests"         // by theo and tina
	ReviewedAll Milestone = "second regular review" // by beate
	Blessed     Milestone = "blessed"
)

// Because is a reason that is long enough for everything.
const Because = "the signer hands out strangers' certificates and every minute of it counts"

// Unreachable escalates since a team cannot be reached.
func Unreachable(team emergencyv1.Team) *emergencyv1.EscalateRequest {
	return &emergencyv1.EscalateRequest{Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_TEAM_UNREACHABLE, Team: team, Reason: Because}
}

// Unfit escalates since strategy 1 does not fit.
func Unfit(code emergencyv1.UnfitCode) *emergencyv1.EscalateRequest {
	return &emergencyv1.EscalateRequest{Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT, Code: code, Reason: Because}
}

// Exploited escalates since the weakness is being used.
func Exploited() *emergencyv1.EscalateRequest {
	return Unfit(emergencyv1.UnfitCode_UNFIT_CODE_EXPLOIT_ACTIVE)
}

// StepFailed escalates since the step at a position failed.
func StepFailed(position uint64) *emergencyv1.EscalateRequest {
	return &emergencyv1.EscalateRequest{Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_STEP_FAILED, Evidence: position, Reason: Because}
}

// Joint signs a half of the joint declaration.
func Joint() *emergencyv1.SignJointDeclarationRequest {
	return &emergencyv1.SignJointDeclarationRequest{
		WhyNot_1: "the testers cannot reproduce it on the test server at all",
		WhyNot_2: "no patch can be prepared before the cause is understood",
		WhyLive:  "it happens only with the live database and its present load",
	}
}

// GoBack goes back to a lower strategy.
func GoBack(to uint32) *emergencyv1.DeEscalateRequest {
	return &emergencyv1.DeEscalateRequest{To: to, Reason: "the testers are awake now and can do it"}
}

// HandOverTo forwards the current revision with a local test, to a named critical admin.
func HandOverTo(to string) *emergencyv1.ForwardRequest {
	return &emergencyv1.ForwardRequest{RollbackPlan: "take it back", To: to, LocalTest: "logged in on my own machine, with and without the patch"}
}

// Alone starts the apply without an observer.
func Alone() *emergencyv1.StartApplyRequest {
	return &emergencyv1.StartApplyRequest{NoObserverReason: "nobody else can be had tonight"}
}

// After is a review or a test of the update cycle.
func After[C procedure.Command](c C) C {
	m := c.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByName("phase"), protoreflect.ValueOfEnum(emergencyv1.Phase_PHASE_AFTER.Number()))
	return c
}

// Bless concludes the update cycle: the patch stays as it is.
func Bless() *emergencyv1.ConcludeUpdateCycleRequest {
	return &emergencyv1.ConcludeUpdateCycleRequest{Outcome: emergencyv1.CycleOutcome_CYCLE_OUTCOME_BLESSED}
}

// Reverted concludes the update cycle: the patch was taken back.
func Reverted() *emergencyv1.ConcludeUpdateCycleRequest {
	return &emergencyv1.ConcludeUpdateCycleRequest{Outcome: emergencyv1.CycleOutcome_CYCLE_OUTCOME_REVERTED, Commit: "beef09"}
}

// NoEffect is the lead's decision that a strategy changed nothing.
func NoEffect(strategy uint32) *emergencyv1.RecordLeadDecisionRequest {
	c := Lead(false)
	c.Decision, c.Strategy = emergencyv1.LeadDecision_LEAD_DECISION_NO_EFFECT, strategy
	return c
}

// CapturedAt is a command that was captured offline at a time; the given one stays as it is, for others use it too.
func CapturedAt[C procedure.Command](c C, at time.Time) C {
	c = proto.CloneOf(c)
	m := c.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByName("meta"), protoMessage(&emergencyv1.CommandMeta{CapturedAt: timestamppb.New(at)}))
	return c
}

// story2 is strategy 2 from its beginning on.
func story2() []chapter {
	return []chapter{
		{Unanswered, func(w *World) {
			between("", Called)(w)
			for _, x := range Responders() {
				if x.Person == "carla" || x.Person == "anna" {
					w.act(x.Person, Accept(x.Slot))
					w.act(x.Person, &emergencyv1.CheckInRequest{Slot: x.Slot})
				}
			}
			for range 6 {
				w.Wait(11 * time.Minute)
				w.Tick(procedure.OwnerNotification)
			}
			for _, x := range Responders() {
				if x.Person == "carla" || x.Person == "anna" {
					w.act(x.Person, &emergencyv1.CheckInRequest{Slot: x.Slot})
				}
			}
		}},
		{Escalated, func(w *World) { w.act("anna", Unreachable(emergencyv1.Team_TEAM_TESTING)) }},
		{Prepared, func(w *World) { w.act("anna", Register(1)) }},
		{HandedOver, func(w *World) { w.act("anna", HandOverTo("carla")) }},
		{DryRun2, func(w *World) { w.act("carla", &emergencyv1.DryRunRequest{}) }},
		{Applying2, func(w *World) { w.act("carla", Alone()) }},
		{Verified2, func(w *World) {
			w.act("host:"+w.State.Host(), ReportApply(true))
			w.act("host:"+w.State.Host(), ReportTree(w.State.Current().ResultTree))
		}},
		{Healthy2, func(w *World) { w.act("carla", Health()) }},
		{Documented2, func(w *World) { w.act("carla", DocumentOf(w.State, 2)) }},
		{Replicated2, func(w *World) {
			w.act("carla", &emergencyv1.PushReplicationRequest{})
			w.act("repo:git", &emergencyv1.CheckReplicationRequest{})
		}},
		{Checked2, func(w *World) { w.act("carl", CheckAfter()) }},
		{InCycle, func(w *World) { w.act("anna", &emergencyv1.EnterUpdateCycleRequest{}) }},
		{Reviewed2, func(w *World) {
			w.act("bert", After(FirstReview(approve)))
			w.act("bert", &emergencyv1.TransferRequest{})
			w.act("test:"+TestServer, ConfirmServer(w.State))
		}},
		{Tested2, func(w *World) { w.act("theo", After(Test(pass))); w.act("tina", After(Test(pass))) }},
		{ReviewedAll, func(w *World) { w.act("beate", After(SecondReview(approve))) }},
		{Blessed, func(w *World) { w.act("beate", Bless()) }},
	}
}

// Milestones2 lists those of strategy 2 in order.
func Milestones2() []Milestone { return names(story2()) }
