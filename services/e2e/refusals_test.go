// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/testenv"
)

// refusal is something that somebody tries, after somebody else's acts that lead there, and why it is refused.
type refusal struct {
	what   string
	before func()
	person string
	cmd    func() procedure.Command
	want   procedure.Reason
}

// TestRefusals tries what nobody may who handles an emergency by strategies 2 and 3, or judges it (issue 4, acceptance 6): each is
// refused by the API with its reason code, the clause and what would be allowed instead, and the history has it.
func TestRefusals(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{Console: true})
	for _, name := range []string{"theo", "anna"} {
		env.Enlist(name, emergencyv1.Role_ROLE_ARBITRATOR)
	}
	env.Enlist("carl", emergencyv1.Role_ROLE_SOFTWARE_ENGINEER) // a subject who could watch, if it were another's session
	carla2, anna2, carl2 := env.SecondKey("carla"), env.SecondKey("anna"), env.SecondKey("carl")

	give := func(cmd procedure.Command) func() procedure.Command { return func() procedure.Command { return cmd } }
	c := &court{env.Play(testenv.Verified), t, env}
	ruling := func() procedure.Command { return c.ruling(1, &emergencyv1.Order{Person: "carla", Text: "nothing"}) }
	appoint := func(who string) func() procedure.Command {
		return func() procedure.Command {
			return &emergencyv1.ProposeArbitratorRequest{Dispute: c.dispute(1), Candidate: who}
		}
	}
	c.refuses([]refusal{
		{"close with open obligations", nil, "carla", give(c.Close()), procedure.ReasonObligationsOpen},
		{"appoint who tested the patch", func() {
			c.Do("carla", &emergencyv1.FileDisputeRequest{
				Concern: emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1, Claimants: []string{"carla"}, Respondents: []string{"the assessment team"},
				Complaint: "emergency issue handling under option 1", Relief: "a review of what was done",
			})
			c.Do("casper", &emergencyv1.OpenCaseRequest{Dispute: c.dispute(1), CaseNumber: "a20261125.7"})
		}, "casper", appoint("theo"), procedure.ReasonConflictOfInterest},
		{"appoint who reviewed it", nil, "casper", appoint("anna"), procedure.ReasonConflictOfInterest},
		{"a ruling by who acted and has no case", func() {
			c.appoint(1, "", "arno")
			c.Do("arno", c.preliminaries(1))
		}, "anna", ruling, procedure.ReasonNotCaseArbitrator},
		{"a ruling by the arbitrator who has acted since", func() {
			c.Do("arno", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "I was there, too"})
		}, "arno", ruling, procedure.ReasonConflictOfInterest},
	})

	c = &court{env.Play(testenv.Called), t, env}
	sign := func(person string) func() { return func() { c.Do(person, half()) } }
	c.refuses([]refusal{
		{"strategy 2 without a ground", nil, "carla", give(&emergencyv1.EscalateRequest{Reason: because}), procedure.ReasonGroundMissing},
		{"strategy 2 on the mere word that a team does not come", nil, "carla", give(&emergencyv1.EscalateRequest{
			Ground: emergencyv1.EscalationGround_ESCALATION_GROUND_TEAM_UNREACHABLE, Team: emergencyv1.Team_TEAM_TESTING, Reason: because,
		}), procedure.ReasonGroundNotProven},
		{"strategy 3 without a ground", nil, "carla", give(&emergencyv1.SignJointDeclarationRequest{}), procedure.ReasonGroundMissing},
		{"strategy 3 by one person", sign("carla"), "carla", give(half()), procedure.ReasonSamePerson},
		{"strategy 3 by one person with two keys", nil, carla2, give(half()), procedure.ReasonSamePerson},
		{"strategy 3 by two critical admins", nil, "carl", give(half()), procedure.ReasonJointRoles},
		{"access without the lead's permission", sign("anna"), "carla", give(grantTo("carl")), procedure.ReasonLeadPermissionMissing},
		{"access for oneself", func() { c.Do("clara", permit("carl")) }, "carl", give(grantTo("carl")), procedure.ReasonSubjectIsWatcher},
		{"access for oneself by another key", nil, carl2, give(grantTo("carl")), procedure.ReasonSubjectIsWatcher},
		{"access watched by its subject", nil, "carla", give(&emergencyv1.GrantAccessRequest{Subject: "carl", Watcher: "carl", Purpose: purpose}), procedure.ReasonSubjectIsWatcher},
		{"watch over oneself by another key", func() { c.Do("carla", grantTo("carl")) }, carl2, give(&emergencyv1.ArmWatchRequest{
			Grant: "G1", TakeOverReason: "carla has to leave",
		}), procedure.ReasonSubjectIsWatcher},
		{"watch as an assessor by another key", nil, anna2, give(&emergencyv1.ArmWatchRequest{Grant: "G1", TakeOverReason: "carla has to leave"}), procedure.ReasonRole},
	})
	c.Do("carla", &emergencyv1.ArmWatchRequest{Grant: "G1"})
	stream, err := env.As(carl2).Console().Watch(soon(t))
	must(t, err)
	must(t, stream.Send(&deploymentv1.WatchRequest{Message: &deploymentv1.WatchRequest_Hello{Hello: &deploymentv1.WatchHello{Incident: c.ID, Grant: "G1"}}}))
	_, err = stream.Recv()
	testenv.WantRefusal(t, err, procedure.ReasonSubjectIsWatcher)
	soundHere(t, env)
}

// refuses tries each, in order.
func (c *court) refuses(list []refusal) {
	c.t.Helper()
	for _, x := range list {
		if x.before != nil {
			x.before()
		}
		cmd, before := x.cmd(), c.State().Position
		no := c.Refused(x.person, cmd, x.want)
		c.t.Logf("%s, by %s: %s (%s): %s", x.what, x.person, no.Reason, no.Rule, no.Message)
		if no.Rule == "" || no.Message == "" || len(no.Allow) == 0 {
			c.t.Errorf("%s: a refusal says by which rule and what to do: %+v", x.what, no)
		}
		e := c.env.AwaitEvent(c.ID, procedure.CommandOwner(cmd)+".CommandRefused", before)
		if want := fmt.Sprintf(`"reason":"%s"`, x.want); !strings.Contains(e.GetPayloadJson(), want) {
			c.t.Errorf("%s: the history has %s", x.what, e.GetPayloadJson())
		}
	}
}
