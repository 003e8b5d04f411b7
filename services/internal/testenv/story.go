// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/demobook"
)

// Step is a place in an emergency by strategy 1, in the order of procedure.md 1.1.
type Step int

// The steps. A story that was played until one has done it, and nothing after it.
const (
	Declared     Step = iota + 1 // by carla
	Called                       // every page was taken by its channel
	Answered                     // six persons on standby
	Registered                   // the patch, by dora
	Reviewed                     // first review, by anna
	OnTestServer                 // transferred, and its agent confirmed
	Tested                       // by tina and theo
	Approved                     // second review, by bert
	Forwarded                    // by bert to carla
	Observed                     // carl confirms to observe
	DryRun                       // clean, by carla
	Started                      // the apply, by carla
	Verified                     // the critical tree is the reviewed one
	Healthy                      // health note by carla
	Replicated                   // host and release branch are equal
	Documented                   // by carla
	Decided                      // by the critical team lead, clara
	Reported                     // to the Board, by bea
	Closed                       // by carla
)

// Story is one emergency being played.
type Story struct {
	// ID is the incident, once declared; Drill makes it one.
	ID    string
	Drill bool
	// Patch is what will be, or was, registered.
	Patch Patch

	e    *Env
	done Step
}

// Play plays a new emergency until a step, as a team that does everything right.
func (e *Env) Play(until Step) *Story {
	e.t.Helper()
	return e.Story().Until(until)
}

// Story is an emergency of which nothing was played yet.
func (e *Env) Story() *Story {
	e.t.Helper()
	return &Story{e: e, Patch: e.Repo.Repair()}
}

// Until plays on until a step.
func (s *Story) Until(step Step) *Story {
	s.e.t.Helper()
	plays := s.plays()
	for s.done < step {
		plays[s.done]()
		s.done++
	}
	return s
}

// Skip says that the test itself has done everything until a step.
func (s *Story) Skip(step Step) *Story {
	s.done = step
	return s
}

// plays are the steps, in their order.
func (s *Story) plays() []func() {
	await := func(what string, so func(*dashboardv1.Incident) bool) func() {
		return func() { s.e.t.Helper(); s.e.Await(s.ID, what, so) }
	}
	act := func(person string, cmd func() procedure.Command) func() {
		return func() { s.e.t.Helper(); s.Do(person, cmd()) }
	}
	return []func(){
		s.declare,
		await("every page taken by its channel", Paged),
		s.answer,
		act("dora", func() procedure.Command { return s.Patch.Register() }),
		act("anna", func() procedure.Command { return s.FirstReview(Approve) }),
		await("the test server's confirmation", func(in *dashboardv1.Incident) bool { return Has(in, "test server") }),
		func() { s.Do("tina", s.Test(Pass)); s.Do("theo", s.Test(Pass)) },
		act("bert", func() procedure.Command { return s.SecondReview(Approve) }),
		act("bert", func() procedure.Command { return s.Forward() }),
		act("carl", func() procedure.Command { return s.Observe(emergencyv1.ObserverKind_OBSERVER_KIND_BEFORE) }),
		act("carla", func() procedure.Command { return s.DryRun() }),
		act("carla", func() procedure.Command { return s.Apply() }),
		await("the deployment's verification", func(in *dashboardv1.Incident) bool { return Deployment(in) == "VERIFIED" }),
		act("carla", func() procedure.Command { return s.Health() }),
		await("equality of host and branch", func(in *dashboardv1.Incident) bool { return in.GetReplication() == "EQUAL" }),
		act("carla", func() procedure.Command { return s.Document() }),
		act("clara", func() procedure.Command { return s.Decide() }),
		act("bea", func() procedure.Command { return s.Report() }),
		act("carla", func() procedure.Command { return s.Close() }),
	}
}

func (s *Story) declare() {
	s.e.t.Helper()
	s.ID = s.Do("carla", &emergencyv1.DeclareRequest{
		System: demobook.System, Component: Program, Symptom: "cert-info runs what its caller says", Severity: emergencyv1.Severity_SEVERITY_HIGH,
		ReasonClass: emergencyv1.ReasonClass_REASON_CLASS_VULNERABILITY, Reason: "anybody can read the configuration", Drill: s.Drill,
	}).GetIncident()
}

func (s *Story) answer() {
	s.e.t.Helper()
	for _, a := range []struct {
		who  string
		step emergencyv1.ResponderStep
	}{
		{"carla", emergencyv1.ResponderStep_RESPONDER_STEP_EXECUTE}, {"carl", emergencyv1.ResponderStep_RESPONDER_STEP_OBSERVE},
		{"anna", emergencyv1.ResponderStep_RESPONDER_STEP_FIRST_REVIEW}, {"bert", emergencyv1.ResponderStep_RESPONDER_STEP_SECOND_REVIEW},
		{"tina", emergencyv1.ResponderStep_RESPONDER_STEP_TEST}, {"theo", emergencyv1.ResponderStep_RESPONDER_STEP_TEST},
	} {
		s.Do(a.who, Accept(a.step, "phone of "+a.who))
	}
}

// Do gives a command of the incident as a person, who signs it where that is needed.
func (s *Story) Do(person string, cmd procedure.Command) *emergencyv1.Committed {
	s.e.t.Helper()
	done, err := s.Try(person, cmd)
	if err != nil {
		s.e.t.Fatalf("%s by %s: %v", procedure.CommandName(cmd), person, err)
	}
	return done
}

// Try is Do that may fail.
func (s *Story) Try(person string, cmd procedure.Command) (*emergencyv1.Committed, error) {
	s.e.t.Helper()
	s.on(cmd)
	ctx, cancel := context.WithTimeout(s.e.t.Context(), Patience)
	defer cancel()
	done, err := s.e.As(person).Send(ctx, cmd)
	if err == nil { // whatever is asked next is asked of an answer that knows this
		_, err = s.e.As(person).Query().ReadIncident(ctx, &dashboardv1.ReadIncidentRequest{Incident: done.GetIncident(), AtLeast: done.GetLastPosition()})
	}
	return done, err
}

// on makes a command one of this incident.
func (s *Story) on(cmd procedure.Command) {
	m := cmd.GetMeta()
	if m == nil {
		m = &emergencyv1.CommandMeta{}
		setMeta(cmd, m)
	}
	if m.GetIncident() == "" {
		m.Incident = s.ID
	}
}

// Refused gives a command that must be refused for a reason, and returns the refusal.
func (s *Story) Refused(person string, cmd procedure.Command, want procedure.Reason) *procedure.Refusal {
	s.e.t.Helper()
	_, err := s.Try(person, cmd)
	return WantRefusal(s.e.t, err, want)
}

// WantRefusal fails the test unless an error is a refusal for a reason.
func WantRefusal(t testing.TB, err error, want procedure.Reason) *procedure.Refusal {
	t.Helper()
	r, ok := rpc.RefusalOf(err)
	if !ok || r.Reason != want {
		t.Fatalf("want refusal %s, got %v", want, err)
	}
	return r
}

// State is the incident as a person's own machine has verified it.
func (s *Story) State() *procedure.State {
	s.e.t.Helper()
	st, err := s.e.As("clara").State(s.e.t.Context(), s.ID)
	must(s.e.t, err)
	return st
}

// Revision is the current revision.
func (s *Story) Revision() *procedure.Revision {
	s.e.t.Helper()
	r := s.State().Current()
	if r == nil {
		s.e.t.Fatalf("%s has no revision", s.ID)
	}
	return r
}

// Binding is the current revision's.
func (s *Story) Binding() *emergencyv1.Binding {
	s.e.t.Helper()
	r := s.Revision()
	return &emergencyv1.Binding{Revision: r.ID, Digest: r.Binding}
}

// Read is the incident as the query service has it, with this story's own last command in it.
func (s *Story) Read() *dashboardv1.Incident {
	s.e.t.Helper()
	res, err := s.e.As("clara").Query().ReadIncident(s.e.t.Context(), &dashboardv1.ReadIncidentRequest{Incident: s.ID, AtLeast: s.State().Position})
	must(s.e.t, err)
	return res.GetIncident()
}

// Host is the folder of the host that the incident is about.
func (s *Story) Host() string {
	if s.Drill {
		return s.e.Root(demobook.DrillHost)
	}
	return s.e.Root(demobook.Host)
}

// Short names of values that stories use.
const (
	Approve = emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE
	Changes = emergencyv1.ReviewVerdict_REVIEW_VERDICT_CHANGES
	Veto    = emergencyv1.ReviewVerdict_REVIEW_VERDICT_VETO
	Pass    = emergencyv1.TestResult_TEST_RESULT_PASS
	Fail    = emergencyv1.TestResult_TEST_RESULT_FAIL
)

// The commands of the procedure, on the current revision.

// Accept takes a place of the step's team and starts the standby.
func Accept(step emergencyv1.ResponderStep, contact string) *emergencyv1.RespondRequest {
	team := map[emergencyv1.ResponderStep]emergencyv1.Team{
		emergencyv1.ResponderStep_RESPONDER_STEP_EXECUTE: emergencyv1.Team_TEAM_CRITICAL, emergencyv1.ResponderStep_RESPONDER_STEP_OBSERVE: emergencyv1.Team_TEAM_CRITICAL,
		emergencyv1.ResponderStep_RESPONDER_STEP_PREPARE: emergencyv1.Team_TEAM_DEVELOPMENT, emergencyv1.ResponderStep_RESPONDER_STEP_TEST: emergencyv1.Team_TEAM_TESTING,
		emergencyv1.ResponderStep_RESPONDER_STEP_FIRST_REVIEW: emergencyv1.Team_TEAM_ASSESSMENT, emergencyv1.ResponderStep_RESPONDER_STEP_SECOND_REVIEW: emergencyv1.Team_TEAM_ASSESSMENT,
	}[step]
	return &emergencyv1.RespondRequest{Answer: &emergencyv1.RespondRequest_Accept{Accept: &emergencyv1.Acceptance{Team: team, Step: step, ContactPath: contact, OnStandby: true}}}
}

// FirstReview is a first review with a verdict.
func (s *Story) FirstReview(v emergencyv1.ReviewVerdict) *emergencyv1.RecordFirstReviewRequest {
	s.e.t.Helper()
	return &emergencyv1.RecordFirstReviewRequest{Binding: s.Binding(), Verdict: v, Reason: "looked at every line"}
}

// SecondReview is a second review with a verdict.
func (s *Story) SecondReview(v emergencyv1.ReviewVerdict) *emergencyv1.RecordSecondReviewRequest {
	s.e.t.Helper()
	return &emergencyv1.RecordSecondReviewRequest{Binding: s.Binding(), Verdict: v, Reason: "looked at every line again"}
}

// Test is a test with a result and a note of the tester's own.
func (s *Story) Test(r emergencyv1.TestResult) *emergencyv1.ReportTestRequest {
	s.e.t.Helper()
	return &emergencyv1.ReportTestRequest{Binding: s.Binding(), Result: r, Steps: "ran the attack against the test server", BugNote: "note-17"}
}

// Forward hands the revision to the holder of the executor's slot.
func (s *Story) Forward() *emergencyv1.ForwardRequest {
	s.e.t.Helper()
	return &emergencyv1.ForwardRequest{Binding: s.Binding(), RollbackPlan: "the agent restores the tree before the patch"}
}

// Observe confirms to observe, or to have checked afterwards.
func (s *Story) Observe(kind emergencyv1.ObserverKind) *emergencyv1.ConfirmObserverRequest {
	s.e.t.Helper()
	return &emergencyv1.ConfirmObserverRequest{Binding: s.Binding(), Kind: kind}
}

// DryRun tries the revision on the host.
func (s *Story) DryRun() *emergencyv1.DryRunRequest {
	s.e.t.Helper()
	return &emergencyv1.DryRunRequest{Binding: s.Binding()}
}

// Apply starts the deployment by the agent.
func (s *Story) Apply() *emergencyv1.StartApplyRequest {
	s.e.t.Helper()
	return &emergencyv1.StartApplyRequest{Binding: s.Binding()}
}

// Health says that the system works.
func (s *Story) Health() *emergencyv1.RecordHealthRequest {
	s.e.t.Helper()
	return &emergencyv1.RecordHealthRequest{Binding: s.Binding(), Result: emergencyv1.HealthResult_HEALTH_RESULT_GOOD, Checks: "the page answers"}
}

// Document explains every deviation so far.
func (s *Story) Document() *emergencyv1.DocumentRequest {
	s.e.t.Helper()
	req := &emergencyv1.DocumentRequest{Strategy: 1, TimelineConfirmed: true, Text: "A hole was mended by strategy 1."}
	for _, d := range s.State().Deviations {
		req.Reasons = append(req.Reasons, &emergencyv1.DeviationReason{Position: d.Position, Deviation: d.Deviation, Reason: fmt.Sprintf("deviation at %d: see the report", d.Position)})
	}
	return req
}

// Decide is the team lead's: approved, and not referred.
func (s *Story) Decide() *emergencyv1.RecordLeadDecisionRequest {
	return &emergencyv1.RecordLeadDecisionRequest{Decision: emergencyv1.LeadDecision_LEAD_DECISION_APPROVE, Reason: "handled by the regular cycle"}
}

// Report tells the Board of the day of the declaration.
func (s *Story) Report() *emergencyv1.RecordBoardSummaryRequest {
	s.e.t.Helper()
	day := s.State().Declared.At.Truncate(24 * time.Hour)
	return &emergencyv1.RecordBoardSummaryRequest{From: timestamppb.New(day), Until: timestamppb.New(day.Add(24 * time.Hour)), BoardReference: "minutes-1"}
}

// Close says that the issue is fixed.
func (s *Story) Close() *emergencyv1.CloseRequest {
	return &emergencyv1.CloseRequest{Outcome: emergencyv1.Outcome_OUTCOME_FIXED, Summary: "mended, verified and documented"}
}

// setMeta sets the common part of any command.
func setMeta(cmd procedure.Command, m *emergencyv1.CommandMeta) {
	r := cmd.ProtoReflect()
	r.Set(r.Descriptor().Fields().ByName("meta"), protoreflect.ValueOfMessage(m.ProtoReflect()))
}
