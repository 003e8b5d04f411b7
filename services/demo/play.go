// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/cli/client"
)

// maxActs is how many human acts an emergency may take from declaration to health note (design.md).
const maxActs = 15

// story is one emergency being played.
type story struct {
	w        world
	sys      *system
	show     *printer
	people   map[string]*client.Client
	incident string
	t0       time.Time
	acts     int
}

// act lets a person give one or more commands in one human act, and says so.
func (s *story) act(ctx context.Context, who, what string, cmds ...procedure.Command) error {
	s.acts++
	s.show.act(s.since(), who, what)
	for _, cmd := range cmds {
		if m := cmd.GetMeta(); s.incident != "" {
			m.Incident = s.incident
		}
		c, err := s.people[who].Send(ctx, cmd)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", who, procedure.CommandName(cmd), err)
		}
		if s.incident == "" {
			s.incident, s.t0 = c.GetIncident(), c.GetRecordedAt().AsTime()
		}
		for _, other := range s.people { // who looks at what this one did
			other.Saw(s.incident, c.GetLastPosition())
		}
		// Wait until the read side has it.
		if _, err := s.people[who].Query().ReadIncident(ctx, &dashboardv1.ReadIncidentRequest{Incident: s.incident, AtLeast: c.GetLastPosition()}); err != nil {
			return fmt.Errorf("%s: read own %s: %w", who, procedure.CommandName(cmd), err)
		}
	}
	return nil
}

func (s *story) since() string {
	if s.t0.IsZero() {
		return since(time.Now(), time.Now())
	}
	return since(s.t0, time.Now())
}

// await follows the incident until something is so, printing what happens by itself meanwhile.
func (s *story) await(ctx context.Context, what string, so func(*dashboardv1.Incident) bool) (*dashboardv1.Incident, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	stream, err := s.people["carla"].Query().WatchIncident(ctx, &dashboardv1.WatchIncidentRequest{Incident: s.incident})
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", s.incident, err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil, fmt.Errorf("%s did not happen: %w", what, err)
		}
		if so(m.GetIncident()) {
			s.show.fact(s.since(), what)
			return m.GetIncident(), nil
		}
	}
}

// awaitState follows the verified history until something is so.
func (s *story) awaitState(ctx context.Context, what string, so func(*procedure.State) bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	found := errors.New("found")
	err := s.people["carla"].Follow(ctx, s.incident, func(st *procedure.State, _ *history.Entry) error {
		if so(st) {
			return found
		}
		return nil
	})
	if !errors.Is(err, found) {
		return fmt.Errorf("%s did not happen: %w", what, err)
	}
	s.show.fact(s.since(), what)
	return nil
}

func meta() *emergencyv1.CommandMeta { return &emergencyv1.CommandMeta{} }

func accept(team emergencyv1.Team, step emergencyv1.ResponderStep, contact string) *emergencyv1.RespondRequest {
	return &emergencyv1.RespondRequest{Meta: meta(), Answer: &emergencyv1.RespondRequest_Accept{Accept: &emergencyv1.Acceptance{
		Team: team, Step: step, ContactPath: contact, OnStandby: true,
	}}}
}

// part is one step of a play.
type part struct {
	title string
	do    func(context.Context) error
}

// scenario is an emergency that can be played.
type scenario struct {
	title  string
	people []string
	notes  int // that come to the bug tracker
	parts  func(*story) []part
}

// scenarios are the three strategies of the procedure.
func scenarios() map[int]scenario {
	return map[int]scenario{
		1: {
			"strategy 1, start to end", []string{"carla", "carl", "clara", "anna", "bert", "dora", "tina", "theo", "bea"},
			4, // one each for the transfer, both tests and the forwarding
			(*story).strategy1,
		},
		2: {
			"strategy 2, from declaration to ruling", []string{"carla", "carl", "clara", "anna", "bert", "albert", "tina", "theo", "bea", "casper", "arno"},
			4, // one each for the forwarding, the transfer and both tests
			(*story).strategy2,
		},
		3: {
			"strategy 3, from declaration to ruling", []string{"carla", "carl", "clara", "anna", "bert", "albert", "tina", "theo", "bea", "casper", "arno"},
			3, // one each for the transfer and both tests
			(*story).strategy3,
		},
	}
}

// play plays the parts in order.
func (s *story) play(ctx context.Context, parts []part) error {
	for _, p := range parts {
		s.show.title(p.title)
		if err := p.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// strategy1 is the regular update cycle within 24 hours (procedure.md 1.1).
func (s *story) strategy1() []part {
	return []part{
		{"1.1-1.2  Declare, and call the teams", s.declare},
		{"1.3-1.4  The teams answer and stand by", s.answer},
		{"1.5      Prepare the patch", s.prepare},
		{"1.6      First review, repository and test server", s.firstReview},
		{"1.7      Test", s.test},
		{"1.8      Second review, and forward", s.secondReview},
		{"1.9      Deploy", s.deploy},
		{"After    Document, report, close", s.conclude},
	}
}

func (s *story) declare(ctx context.Context) error {
	err := s.act(ctx, "carla", "declares: webdb hands its input to the shell", &emergencyv1.DeclareRequest{
		Meta: meta(), System: "webdb", Component: programFile, Symptom: "cert-info 'x; command' runs the command", Severity: emergencyv1.Severity_SEVERITY_HIGH,
		ReasonClass: emergencyv1.ReasonClass_REASON_CLASS_VULNERABILITY, Reason: "Anybody can read the configuration of the critical host.",
	})
	if err != nil {
		return err
	}
	in, err := s.await(ctx, "all four teams were called, and every page was taken by its channel", func(in *dashboardv1.Incident) bool {
		sent := 0
		for _, p := range in.GetPages() {
			if p.GetState() == "SENT" || p.GetState() == "DELIVERED" {
				sent++
			}
		}
		return sent > 0 && sent == len(in.GetPages())
	})
	if err != nil {
		return err
	}
	s.show.line("%s: %d pages over %s", s.incident, len(in.GetPages()), channelsOf(in))
	return nil
}

func (s *story) answer(ctx context.Context) error {
	const (
		critical, assessment = emergencyv1.Team_TEAM_CRITICAL, emergencyv1.Team_TEAM_ASSESSMENT
		testing              = emergencyv1.Team_TEAM_TESTING
	)
	for _, a := range []struct {
		who  string
		team emergencyv1.Team
		step emergencyv1.ResponderStep
	}{
		{"carla", critical, emergencyv1.ResponderStep_RESPONDER_STEP_EXECUTE}, {"carl", critical, emergencyv1.ResponderStep_RESPONDER_STEP_OBSERVE},
		{"anna", assessment, emergencyv1.ResponderStep_RESPONDER_STEP_FIRST_REVIEW}, {"bert", assessment, emergencyv1.ResponderStep_RESPONDER_STEP_SECOND_REVIEW},
		{"tina", testing, emergencyv1.ResponderStep_RESPONDER_STEP_TEST}, {"theo", testing, emergencyv1.ResponderStep_RESPONDER_STEP_TEST},
	} {
		what := fmt.Sprintf("takes a place in the %s team, to %s; on standby", procedure.TeamWord(a.team), procedure.StepWord(a.step))
		if err := s.act(ctx, a.who, what, accept(a.team, a.step, "phone of "+a.who)); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) prepare(ctx context.Context) error {
	diff, base, err := s.w.patch(ctx)
	if err != nil {
		return err
	}
	trees, err := s.w.trees(ctx, base, diff)
	if err != nil {
		return err
	}
	return s.act(ctx, "dora", fmt.Sprintf("registers the patch (%d bytes, sha256 %.12s)", len(diff), patch.Digest(diff)), &emergencyv1.RegisterPatchRequest{
		Meta: meta(), Bytes: diff, Sha256: patch.Digest(diff), BaseCommit: base, BaseTree: trees.BaseTree, ResultTree: trees.ResultTree, BugId: "1042",
	})
}

// bound is the current revision's binding, as the verified history has it.
func (s *story) bound(ctx context.Context, who string) (*emergencyv1.Binding, *procedure.Revision, error) {
	st, err := s.people[who].State(ctx, s.incident)
	if err != nil {
		return nil, nil, err
	}
	r := st.Current()
	if r == nil {
		return nil, nil, fmt.Errorf("%s has no revision", s.incident)
	}
	return &emergencyv1.Binding{Revision: r.ID, Digest: r.Binding}, r, nil
}

func (s *story) firstReview(ctx context.Context) error {
	b, r, err := s.bound(ctx, "anna")
	if err != nil {
		return err
	}
	if err := s.act(ctx, "anna", fmt.Sprintf("approves %s after the first review (signed over binding %.12s)", r.ID, r.Binding), &emergencyv1.RecordFirstReviewRequest{
		Meta: meta(), Binding: b, Verdict: emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE, Reason: "No shell any more; quoting is right.",
	}); err != nil {
		return err
	}
	_, err = s.await(ctx, "the reviewed tree is in the repository, and the test server's agent confirms that it runs there", func(in *dashboardv1.Incident) bool {
		return has(in, "TestServerConfirmed", "test server")
	})
	return err
}

// has tells whether the current revision has a check of a kind.
func has(in *dashboardv1.Incident, _, kind string) bool {
	for _, r := range in.GetRevisions() {
		for _, c := range r.GetChecks() {
			if r.GetCurrent() && c.GetKind() == kind {
				return true
			}
		}
	}
	return false
}

func (s *story) test(ctx context.Context) error {
	came, err := s.w.exploit(ctx, s.w.testing())
	if err != nil {
		return err
	}
	result := emergencyv1.TestResult_TEST_RESULT_PASS
	if came {
		result = emergencyv1.TestResult_TEST_RESULT_FAIL
	}
	for _, who := range []string{"tina", "theo"} {
		b, r, err := s.bound(ctx, who)
		if err != nil {
			return err
		}
		if err := s.act(ctx, who, fmt.Sprintf("attacks the test server and reports %s for %s", passed(result), r.ID), &emergencyv1.ReportTestRequest{
			Meta: meta(), Binding: b, Result: result, Steps: "ran the attack of the report against the test server", BugNote: "auto",
		}); err != nil {
			return err
		}
	}
	return nil
}

func passed(r emergencyv1.TestResult) string {
	if r == emergencyv1.TestResult_TEST_RESULT_PASS {
		return "pass"
	}
	return "fail"
}

func (s *story) secondReview(ctx context.Context) error {
	b, r, err := s.bound(ctx, "bert")
	if err != nil {
		return err
	}
	return s.act(ctx, "bert", fmt.Sprintf("approves %s after the second review and forwards it to carla", r.ID),
		&emergencyv1.RecordSecondReviewRequest{Meta: meta(), Binding: b, Verdict: emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE, Reason: "Small and right."},
		&emergencyv1.ForwardRequest{Meta: meta(), Binding: b, RollbackPlan: "The agent restores the tree before the patch."})
}

func (s *story) deploy(ctx context.Context) error {
	b, r, err := s.bound(ctx, "carl")
	if err != nil {
		return err
	}
	if err := s.act(ctx, "carl", "confirms to observe", &emergencyv1.ConfirmObserverRequest{Meta: meta(), Binding: b}); err != nil {
		return err
	}
	if err := s.act(ctx, "carla", fmt.Sprintf("deploys %s: dry run, then apply", r.ID),
		&emergencyv1.DryRunRequest{Meta: meta(), Binding: b}, &emergencyv1.StartApplyRequest{Meta: meta(), Binding: b}); err != nil {
		return err
	}
	if _, err := s.await(ctx, "the agent on the critical host checked every signature, applied the patch and reports the reviewed tree", func(in *dashboardv1.Incident) bool {
		return deployed(in) == "VERIFIED"
	}); err != nil {
		return err
	}
	return s.act(ctx, "carla", "records the system's health: good", &emergencyv1.RecordHealthRequest{
		Meta: meta(), Binding: b, Result: emergencyv1.HealthResult_HEALTH_RESULT_GOOD, Checks: "the page answers; the attack fails",
	})
}

func deployed(in *dashboardv1.Incident) string {
	if n := len(in.GetDeployments()); n > 0 {
		return in.GetDeployments()[n-1].GetState()
	}
	return ""
}

// conclude sees the obligations through, so that the incident can be closed.
func (s *story) conclude(ctx context.Context) error {
	s.show.line("human acts from declaration to health note: %d (at most %d)", s.acts, maxActs)
	if s.acts > maxActs {
		return fmt.Errorf("it took %d human acts, at most %d are allowed", s.acts, maxActs)
	}
	if _, err := s.await(ctx, "host and release branch hold the same tree", func(in *dashboardv1.Incident) bool { return in.GetReplication() == "EQUAL" }); err != nil {
		return err
	}
	st, err := s.people["carla"].State(ctx, s.incident)
	if err != nil {
		return err
	}
	reasons := make([]*emergencyv1.DeviationReason, 0, len(st.Deviations))
	for _, d := range st.Deviations {
		reasons = append(reasons, &emergencyv1.DeviationReason{Position: d.Position, Deviation: d.Deviation, Reason: "see the report"})
	}
	if err := s.act(ctx, "carla", "documents what was done", &emergencyv1.DocumentRequest{
		Meta: meta(), Strategy: 1, TimelineConfirmed: true, Reasons: reasons, Text: "A shell injection in cert-info was repaired by strategy 1.",
	}); err != nil {
		return err
	}
	if err := s.act(ctx, "clara", "decides as critical team lead: approved, not referred", &emergencyv1.RecordLeadDecisionRequest{
		Meta: meta(), Decision: emergencyv1.LeadDecision_LEAD_DECISION_APPROVE, Reason: "Handled by the regular cycle, both reviews and tests are there.",
	}); err != nil {
		return err
	}
	day := s.t0.Truncate(24 * time.Hour)
	if err := s.act(ctx, "bea", "records that the Board was told", &emergencyv1.RecordBoardSummaryRequest{
		Meta: meta(), From: timestamppb.New(day), Until: timestamppb.New(day.Add(24 * time.Hour)), BoardReference: "demo-minutes-1",
	}); err != nil {
		return err
	}
	return s.act(ctx, "carla", "closes the incident: fixed", &emergencyv1.CloseRequest{
		Meta: meta(), Outcome: emergencyv1.Outcome_OUTCOME_FIXED, Summary: "Repaired, verified and documented.",
	})
}

func channelsOf(in *dashboardv1.Incident) string {
	seen, list := map[string]bool{}, ""
	for _, p := range in.GetPages() {
		if !seen[p.GetChannel()] {
			seen[p.GetChannel()] = true
			if list != "" {
				list += " and "
			}
			list += p.GetChannel()
		}
	}
	return list
}
