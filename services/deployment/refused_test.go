// SPDX-License-Identifier: Apache-2.0

package deployment_test

import (
	"strings"
	"testing"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment/broker"
)

// What the gateway refuses outside of a session is in the history with what was asked for and why, and consumes nothing
// (hardening 1.7, SshRefused).
func TestRefusedAttemptSaysWhat(t *testing.T) {
	t.Parallel()
	x := serveSessions(t)
	incident := x.Granted()
	attempts := []broker.RefusedAttempt{
		{Source: "192.0.2.1", Client: "SSH-2.0-OpenSSH_9.9", What: "subsystem sftp", Reason: broker.ReasonSurface, Text: "a session is a terminal and nothing else"},
		{Source: "192.0.2.1", Client: "SSH-2.0-OpenSSH_9.9", What: "exec", Reason: broker.ReasonSurface, Text: "a session is a terminal and nothing else"},
		{Source: "192.0.2.2", What: "login", Reason: broker.ReasonKey, Text: "the certificate has expired"},
		{Source: "192.0.2.2", What: "connection", Reason: broker.ReasonOverloaded, Text: "the gateway has too many connections"},
	}
	for _, a := range attempts {
		x.Must(x.Deployment.Refused(t.Context(), broker.Ref{Incident: incident, Grant: "G1"}, a))
	}
	var said []string
	reading, err := history.Read(t.Context(), x.Store, x.Keys, incident)
	x.Must(err)
	for _, e := range reading.Entries {
		for _, ev := range e.Record.GetEvents() {
			p, err := procedure.DecodeEvent(ev)
			x.Must(err)
			m, is := p.(*emergencyv1.SessionMarked)
			if !is {
				continue
			}
			if m.GetKind() != emergencyv1.MarkKind_MARK_KIND_REFUSED_REQUEST || e.Record.GetActor().GetSystem() != emergencyv1.SystemKind_SYSTEM_KIND_CONSOLE_GATEWAY {
				t.Errorf("marked %v by %v", m.GetKind(), e.Record.GetActor())
			}
			text, _, err := x.Deployment.Vault.Get(t.Context(), m.GetText().GetCommitment())
			x.Must(err)
			said = append(said, string(text))
		}
	}
	if len(said) != len(attempts) {
		t.Fatalf("recorded %q", said)
	}
	for i, a := range attempts {
		for _, part := range []string{a.What, a.Reason, a.Text, a.Source, a.Client} {
			if !strings.Contains(said[i], part) {
				t.Errorf("%q lacks %q", said[i], part)
			}
		}
	}
	if g, _ := x.State(incident).Grant("G1"); g.Consumed.Position > 0 || len(g.Marks) != len(attempts) {
		t.Errorf("the grant is %+v", g)
	}
}
