// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/identity"
	it "cacert.org/emergency/pkg/identity/identitytest"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/testenv"
)

// Certificates in, keys of the rule book (issue 6, section 3).

// TestCertificatesAndKeys: the organisation's own authority, with an intermediate one, is put into the bundle of the running system; a
// person's certificate from it is taken for the same key as before, and for a new one after that was added; two keys count at once; a
// revoked one nowhere any more, on connections and streams that were open before, too; and an expired certificate is told what to do.
func TestCertificatesAndKeys(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{NoAgents: true})
	s := env.Play(testenv.Declared)
	now := env.Clock.Now()
	root := it.NewRoot(t, "organisation")
	ca := root.Intermediate("members")
	bundle := append([]byte(read(t, env.Data("services", "epatchd"), identity.CAFile)), it.Bundle(root)...)
	own := []byte(read(t, env.Data("people", "carla"), identity.CAFile)) // by which people verify the services
	issue := func(name string, signer crypto.Signer, from, until time.Time) string {
		f := it.NewFolder(t, ca.Issue(name, signer, from, until), signer)
		f.Write(identity.CAFile, own)
		return f.Dir
	}
	note := func(dir string) error {
		_, err := env.WithProfile(dir).Send(t.Context(), &emergencyv1.AnnotateLogRequest{Meta: &emergencyv1.CommandMeta{Incident: s.ID}, Entry: 1, Text: "a note"})
		return err
	}
	listed, err := identity.LoadKey(filepath.Join(env.Data("people", "carla"), identity.KeyFile), true)
	must(t, err)
	renewed := issue("carla", listed, now.Add(-time.Hour), now.Add(time.Hour))
	if err := note(renewed); err == nil {
		t.Error("an authority that is not in the bundle is believed")
	}
	must(t, os.WriteFile(env.Data("services", "epatchd", identity.CAFile), bundle, 0o600)) // while it runs
	renewed = issue("carla", listed, now.Add(-time.Hour), now.Add(time.Hour))
	must(t, note(renewed)) // another certificate for the same key is the same person at once

	next := it.Key(t)
	second := issue("carla", next, now.Add(-time.Hour), now.Add(time.Hour))
	_, err = env.WithProfile(second).Send(t.Context(), &emergencyv1.AnnotateLogRequest{Meta: &emergencyv1.CommandMeta{Incident: s.ID}, Entry: 1, Text: "a note"})
	testenv.WantRefusal(t, err, procedure.ReasonKeyUnknown)
	p, err := identity.Load(second, identity.LoadOptions{Now: now})
	must(t, err)
	add := &emergencyv1.Key{KeyId: p.KeyID, PublicKey: p.Certificate.Leaf.RawSubjectPublicKeyInfo, Person: "carla"}
	_, err = env.As("carla").Send(t.Context(), &emergencyv1.AddKeyRequest{Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook}, Key: add})
	must(t, err)
	must(t, note(second))
	must(t, note(renewed)) // two at once

	// Revoked: what is open ends, and nothing more is answered.
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	stream, err := env.WithProfile(renewed).Query().WatchIncident(ctx, &dashboardv1.WatchIncidentRequest{Incident: s.ID})
	must(t, err)
	_, err = stream.Recv()
	must(t, err)
	lost, err := identity.KeyID(listed.Public())
	must(t, err)
	_, err = env.WithProfile(second).Send(t.Context(), &emergencyv1.RevokeKeyRequest{Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook}, KeyId: lost, Reason: "the laptop was stolen"})
	must(t, err)
	for err = nil; err == nil; {
		_, err = stream.Recv()
	}
	testenv.WantRefusal(t, err, procedure.ReasonKeyRevoked)
	r := testenv.WantRefusal(t, note(renewed), procedure.ReasonKeyRevoked)
	if !strings.Contains(r.Allow[0].Description, "another key") {
		t.Errorf("the refusal says %v", r)
	}
	_, err = env.WithProfile(renewed).Query().ListIncidents(ctx, &dashboardv1.ListIncidentsRequest{})
	testenv.WantRefusal(t, err, procedure.ReasonKeyRevoked)
	must(t, note(second))

	// Expired, on the own machine before anything is sent, and at the service if the machine's clock is wrong.
	ended := issue("carla", next, now.Add(-2*time.Hour), now.Add(-time.Minute))
	if _, err := identity.Load(ended, identity.LoadOptions{Now: now}); err == nil || !strings.Contains(err.Error(), "get a new one for the same key") {
		t.Errorf("an expired certificate: %v", err)
	}
	past, err := identity.Load(ended, identity.LoadOptions{Now: now.Add(-time.Hour)})
	must(t, err)
	// In TLS 1.3 the service's answer to a certificate can be overtaken by the end of the connection, on which the client still writes: then
	// it says no more than that. Once in a few tries the reason must come.
	said := errors.New("nothing")
	for n := 0; n < 20 && !strings.Contains(said.Error(), "expired"); n++ {
		conn, err := rpc.Dial("localhost:1", rpc.ClientConfig{Identity: past.Current, Dialer: env.Dial})
		must(t, err)
		_, said = dashboardv1.NewQueryServiceClient(conn).WhoAmI(ctx, &dashboardv1.WhoAmIRequest{})
		must(t, conn.Close())
		if said == nil {
			t.Fatal("an expired certificate is taken")
		}
	}
	if !strings.Contains(said.Error(), "expired") {
		t.Errorf("an expired certificate at the service: %v", said)
	}
}

// TestLimits: a program that runs wild with a person's key, or from one address, is told to wait, and for how long; the person's own
// client waits by itself. Nobody else notices.
func TestLimits(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{NoAgents: true, Settings: func(s *app.Settings) {
		s.Limits = rpc.Limits{
			Known: rpc.Limit{PerSecond: 1000, Burst: 10_000}, KnownRefused: rpc.Limit{PerSecond: 2, Burst: 10},
			Unknown: rpc.Limit{PerSecond: 0.01, Burst: 5}, UnknownRefused: rpc.Limit{PerSecond: 0.01, Burst: 3},
		}
	}})
	s := env.Play(testenv.Declared)
	theo := env.As("theo").Query()
	var err error
	wild := func() error {
		for range 50 { // of an incident that there is not
			if _, err = theo.ReadIncident(t.Context(), &dashboardv1.ReadIncidentRequest{Incident: "e20200101.1"}); err != nil {
				if r, ok := rpc.RefusalOf(err); ok && r.Reason == rpc.ReasonRate {
					return err
				}
			}
		}
		return nil
	}
	r := testenv.WantRefusal(t, wild(), rpc.ReasonRate)
	if after := rpc.RetryAfter(err); after <= 0 || after > time.Second || !strings.Contains(r.Allow[0].Description, "again in") {
		t.Errorf("told to come again after %s: %v", after, r)
	}
	s.Do("carla", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "nobody else notices"})
	if _, err := env.As("theo").Send(t.Context(), &emergencyv1.SetContactsRequest{ // waits by itself
		Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook}, Person: "theo", Contacts: []*emergencyv1.Contact{{Channel: "mail", Address: "theo@example.org"}},
	}); err != nil {
		t.Errorf("after waiting: %v", err)
	}

	// Without a certificate, by address: at the API and at the pages together.
	nobody, err := rpc.Dial("localhost:1", rpc.ClientConfig{Roots: roots(t, env), Dialer: env.Dial})
	must(t, err)
	defer func() { must(t, nobody.Close()) }()
	for range 10 {
		if _, err = dashboardv1.NewQueryServiceClient(nobody).ReadLog(t.Context(), &dashboardv1.ReadLogRequest{}); err != nil {
			break
		}
	}
	testenv.WantRefusal(t, err, rpc.ReasonRate)
	res := page(t, env)
	if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
		t.Errorf("the pages answer %s, to come again after %q", res.Status, res.Header.Get("Retry-After"))
	}
	s.Do("carla", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "from the same address"})
}

// roots are the authorities by which people verify the services.
func roots(t *testing.T, env *testenv.Env) *x509.CertPool {
	t.Helper()
	pool, err := identity.LoadRoots(env.Data("people", "carla", identity.CAFile))
	must(t, err)
	return pool
}

// page asks for the public log by TLS, without a certificate.
func page(t *testing.T, env *testenv.Env) *http.Response {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots(t, env), MinVersion: tls.VersionTLS13}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+env.HTTPS()+"/log", nil)
	must(t, err)
	res, err := (&http.Client{Transport: transport}).Do(req)
	must(t, err)
	must(t, res.Body.Close())
	return res
}
