// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"testing"

	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
	"cacert.org/emergency/services/notification/channel"
)

// TestRestartAtEveryStep: the node is stopped and started on the same data after every step. Nothing is lost, nothing is
// done or sent twice, and the emergency goes as it would have gone.
func TestRestartAtEveryStep(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Story()
	for step := testenv.Declared; step <= testenv.Closed; step++ {
		s.Until(step)
		before := s.State()
		env.Restart()
		after := s.State()
		if after.Position < before.Position {
			t.Fatalf("after step %d the history ended at %d, after the restart at %d", step, before.Position, after.Position)
		}
		res, err := env.As("clara").Query().ReadIncident(t.Context(), &dashboardv1.ReadIncidentRequest{Incident: s.ID, At: before.Position})
		must(t, err)
		if res.GetIncident().GetHeadHash() != before.HeadHash {
			t.Errorf("after step %d position %d had hash %s, after the restart %s", step, before.Position, before.HeadHash, res.GetIncident().GetHeadHash())
		}
	}
	holds(t, env, demobook.Host, s.Patch.ResultTree)
	count := map[string]int{}
	for _, kind := range kinds(env, s.ID) {
		count[kind]++
	}
	for kind, want := range map[string]int{
		"notification.CallOutIssued": 1, "review.PatchTransferred": 1, "review.TestServerConfirmed": 1, "deployment.ApplyStarted": 1,
		"deployment.PatchApplied": 1, "deployment.DeployVerified": 1, "deployment.ReplicationPushed": 1, "incident.IncidentClosed": 1,
	} {
		if count[kind] != want {
			t.Errorf("%s was recorded %d times", kind, count[kind])
		}
	}
	env.Mail.ExpectAll("You are called for")
	env.SMS.ExpectAll("You are called for")
	env.Mail.ExpectAll("It is your turn")
	quiet(t, env)
	soundHere(t, env)
}

// TestStoppedInTheAct: stopped while the teams are called, and while an apply waits for its agent. Of one page, which hangs in
// its channel, nobody knows whether it arrived: that is said, and it is not sent again; all others go out, some after the
// next start. The apply is done once its agent comes.
func TestStoppedInTheAct(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	env.SMS.Answer(func(ctx context.Context, p channel.Page) channel.Receipt {
		if p.Recipient.Person == "theo" {
			<-ctx.Done() // handed over, and no word of it
			return channel.Receipt{State: channel.Unknown, Detail: "no answer"}
		}
		return channel.Receipt{State: channel.Sent}
	})
	s := env.Play(testenv.Declared)
	env.SMS.Expect(t, "theo", "You are called")
	env.Restart()
	in := env.Await(s.ID, "a word of every page", testenv.Paged)
	for _, p := range in.GetPages() {
		want := "SENT"
		if p.GetPerson() == "theo" && p.GetChannel() == "sms" {
			want = "UNKNOWN"
		}
		if p.GetState() != want {
			t.Errorf("the page to %s by %s is %s, want %s", p.GetPerson(), p.GetChannel(), p.GetState(), want)
		}
	}
	s.Skip(testenv.Called).Until(testenv.DryRun)
	env.Agent(demobook.Host).Stop()
	s.Until(testenv.Started)
	env.Restart()
	untouched(t, env, demobook.Host)
	env.StartAgent(demobook.Host)
	s.Until(testenv.Verified)
	holds(t, env, demobook.Host, s.Patch.ResultTree)
	env.Mail.ExpectAll("")
	env.SMS.ExpectAll("")
	quiet(t, env)
}

// TestAgentKilled: the agent is killed in the middle of an apply. When it is back the tree is the old or the new one, the
// history says which, and the emergency goes on.
func TestAgentKilled(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"job-folder", "saved-new:0", "new:temp:0", "new:placed:0", "new:synced"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			env := testenv.Start(t, testenv.Options{})
			s := env.Play(testenv.DryRun)
			env.Agent(demobook.Host).Stop()
			killed := env.StartAgentChild(demobook.Host, step)
			s.Until(testenv.Started)
			killed.Wait(t)
			if got := testenv.Deployment(s.Read()); got != "APPLYING" {
				t.Fatalf("after the kill the deployment is %s", got)
			}
			env.StartAgent(demobook.Host)
			in := env.Await(s.ID, "the truth about the apply", func(in *dashboardv1.Incident) bool {
				return testenv.Deployment(in) == "VERIFIED" || testenv.Deployment(in) == "BACKED_OUT"
			})
			if testenv.Deployment(in) == "VERIFIED" {
				holds(t, env, demobook.Host, s.Patch.ResultTree)
			} else {
				untouched(t, env, demobook.Host)
			}
		})
	}
}
