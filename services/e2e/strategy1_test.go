// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	"cacert.org/emergency/services/cli/client"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// attack runs the program on a host as an attacker would, and tells whether the attacker's command ran.
func attack(t testing.TB, env *testenv.Env, host string) bool {
	t.Helper()
	cmd := exec.Command("/bin/sh", "cert-info", "nobody; cat ../"+testenv.Secret)
	cmd.Dir = filepath.Join(env.Root(host), "www")
	out, _ := cmd.CombinedOutput() // the repaired program may well fail
	return strings.Contains(string(out), "password")
}

// TestStrategy1 is the whole emergency, as it should go.
func TestStrategy1(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	if !attack(t, env, demobook.Host) {
		t.Fatal("the critical host is not vulnerable, so nothing would be shown")
	}
	s := env.Play(testenv.Closed)
	wantKinds(t, kinds(env, s.ID), "incident.EmergencyDeclared", "notification.CallOutIssued",
		"notification.ResponderAccepted", "notification.StandbyStarted", "notification.ResponderAccepted", "notification.StandbyStarted",
		"notification.ResponderAccepted", "notification.StandbyStarted", "notification.ResponderAccepted", "notification.StandbyStarted",
		"notification.ResponderAccepted", "notification.StandbyStarted", "notification.ResponderAccepted", "notification.StandbyStarted",
		"review.PatchRegistered", "review.FirstReviewRecorded", "review.PatchTransferred", "review.TestServerConfirmed",
		"review.TestReported", "review.TestReported", "review.SecondReviewRecorded", "review.PatchForwarded",
		"deployment.ObserverConfirmed", "deployment.DryRunRecorded", "deployment.ApplyStarted", "deployment.PatchApplied", "deployment.DeployVerified",
		"deployment.HealthRecorded", "deployment.ReplicationPushed", "deployment.ReplicationChecked",
		"arbitration.ProcedureDocumented", "incident.LeadDecisionRecorded", "arbitration.BoardSummaryRecorded", "incident.IncidentClosed")
	for _, host := range []string{demobook.Host, demobook.Test} {
		holds(t, env, host, s.Patch.ResultTree)
		if attack(t, env, host) {
			t.Errorf("%s is still vulnerable", host)
		}
	}
	untouched(t, env, demobook.DrillHost)
	if got := "sha1:" + env.Repo.Ref(demobook.Release+"^{tree}"); got != s.Patch.ResultTree {
		t.Errorf("the release branch holds %s, the host runs %s", got, s.Patch.ResultTree)
	}
	in := s.Read()
	if in.GetStatus() != string(procedure.Closed) || in.GetBreached() || in.GetOverallMetAt() == nil {
		t.Errorf("closed: %s, breached %t, met at %v", in.GetStatus(), in.GetBreached(), in.GetOverallMetAt())
	}
	for _, o := range in.GetObligations() {
		if o.GetState() != "DISCHARGED" || o.GetLateByMs() != 0 {
			t.Errorf("obligation %s is %s, late by %d ms", o.GetId(), o.GetState(), o.GetLateByMs())
		}
	}
	s.Refused("carla", s.DryRun(), procedure.ReasonIncidentState)
	soundHere(t, env)
	messagesOfStrategy1(t, env)
	publicLog(t, env, s)
}

// messagesOfStrategy1: everybody on duty is called once on each channel, and told of the own turn once, on the first.
func messagesOfStrategy1(t *testing.T, env *testenv.Env) {
	t.Helper()
	for _, c := range []*testenv.Channel{env.Mail, env.SMS} {
		for _, person := range []string{"carla", "carl", "anna", "bert", "dora", "tina", "theo"} {
			c.Expect(t, person, "You are called for")
		}
	}
	for _, turn := range []struct{ person, words string }{
		{"anna", "first review"}, {"tina", "test"}, {"theo", "test"}, {"bert", "second review"}, {"carla", "deploy"},
	} {
		env.Mail.Expect(t, turn.person, turn.words)
	}
	env.Mail.ExpectAll("It is your turn")
	quiet(t, env)
}

// publicLog: anybody reads it without a certificate, and it names no person.
func publicLog(t *testing.T, env *testenv.Env, s *testenv.Story) {
	t.Helper()
	public, err := client.Dial(client.Config{Server: "localhost:1", Roots: env.Data("people", "carla", "ca.pem"), Dialer: env.Dial})
	must(t, err)
	defer func() { must(t, public.Close()) }()
	res, err := public.Query().ReadLog(t.Context(), &dashboardv1.ReadLogRequest{Incident: s.ID})
	must(t, err)
	var said []string
	for _, e := range res.GetEntries() {
		said = append(said, e.GetHeadline())
		for _, p := range demobook.People() {
			if strings.Contains(strings.ToLower(e.String()), `"`+p.ID+`"`) {
				t.Errorf("the public log names %s: %v", p.ID, e)
			}
		}
	}
	at := 0
	for _, want := range []string{"Emergency declared", "Teams called", "Patch registered", "First review", "Patch on test server", "Test 1", "Test 2",
		"Second review", "Forwarded", "Deployment started", "Applied", "Deployment verified", "Health", "Replication: equal", "Report published", "Closed"} {
		for at < len(said) && !strings.HasPrefix(said[at], want) {
			at++
		}
		if at == len(said) {
			t.Fatalf("the public log has no %q in its place: %q", want, said)
		}
	}
	page, err := http.Get("http://" + env.HTTP() + "/log.json") //nolint:noctx // ends with the test's system
	must(t, err)
	defer func() { must(t, page.Body.Close()) }()
	var any any
	if err := json.NewDecoder(page.Body).Decode(&any); err != nil || page.StatusCode != http.StatusOK {
		t.Errorf("/log.json: %s: %v", page.Status, err)
	}
}
