// SPDX-License-Identifier: Apache-2.0

// Package e2e plays whole emergencies in the whole system: one story a file, by the public API, as different people with
// different certificates, with real agents on real trees. What must not happen is asked of the histories, of the trees as
// git computes them, and of the channels that recorded every message.
package e2e

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	must(t, err)
	return string(b)
}

func write(t testing.TB, path, text string) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte(text), info.Mode()))
}

// sound checks every record of every history twice: by the system's own verifier, and by a reader that shares no code with
// the writing side.
func sound(t testing.TB, store history.Store, keyring string) *history.Report {
	t.Helper()
	keys, err := history.LoadKeyring(keyring)
	must(t, err)
	report, err := history.Verify(t.Context(), store, keys)
	must(t, err)
	if !report.Clean() {
		t.Errorf("the histories are not sound: %v", report.Findings)
	}
	public := map[string][]ed25519.PublicKey{}
	for _, k := range keys.Keys() {
		public[k.Owner] = append(public[k.Owner], k.Public)
	}
	if err := historytest.CheckIndependently(messages(t, store), public); err != nil {
		t.Errorf("the independent reader: %v", err)
	}
	return report
}

// messages are all messages of a store.
func messages(t testing.TB, store history.Store) []history.Message {
	t.Helper()
	var list []history.Message
	must(t, store.Scan(t.Context(), 0, func(m history.Message) error {
		list = append(list, m)
		return nil
	}))
	return list
}

// soundHere checks the histories of a running system.
func soundHere(t testing.TB, env *testenv.Env) {
	t.Helper()
	sound(t, env.Node().Store(), env.Data("services.keys.json"))
}

// kinds are the types of an incident's events in order, without those whose place in the order is nobody's business:
// reports of the channels, obligations made visible, and what becomes public by itself.
func kinds(env *testenv.Env, incident string) []string {
	var list []string
	for _, e := range env.Timeline(incident) {
		if e.GetType() != "notification.DeliveryReported" && !strings.HasPrefix(e.GetType(), "arbitration.Obligation") && e.GetType() != "arbitration.FieldDisclosed" {
			list = append(list, e.GetType())
		}
	}
	return list
}

func wantKinds(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// untouched checks that a host still runs the release as it was in the beginning.
func untouched(t testing.TB, env *testenv.Env, host string) {
	t.Helper()
	first := env.Repo.Git(env.Repo.Clone, "rev-list", "--max-parents=0", "HEAD")
	want := "sha1:" + env.Repo.Git(env.Repo.Clone, "rev-parse", first+"^{tree}")
	if got := env.Repo.TreeOf(env.Root(host)); got != want {
		t.Errorf("%s holds %s, it should still hold %s", host, got, want)
	}
}

// holds checks which tree a host runs, as git computes it.
func holds(t testing.TB, env *testenv.Env, host, tree string) {
	t.Helper()
	if got := env.Repo.TreeOf(env.Root(host)); got != tree {
		t.Errorf("%s holds %s, want %s", host, got, tree)
	}
	if got := read(t, env.Root(host), testenv.Secret); got != "password\n" {
		t.Errorf("%s: what is no part of the tree was changed to %q", host, got)
	}
}

// quiet checks that no channel sent what nobody expected, and nothing twice.
func quiet(t testing.TB, env *testenv.Env) {
	t.Helper()
	for _, c := range []*testenv.Channel{env.Mail, env.SMS} {
		if list := c.Unexpected(); len(list) > 0 {
			t.Errorf("messages that nobody expected:\n%s", strings.Join(list, "\n"))
		}
		if list := c.Twice(); len(list) > 0 {
			t.Errorf("sent more than once: %v", list)
		}
	}
}

// debt is the incident's obligation of a kind, which must be there.
func debt(t testing.TB, in *dashboardv1.Incident, kind string) *dashboardv1.Obligation {
	t.Helper()
	o := testenv.Obligation(in, kind)
	if o == nil {
		t.Fatalf("no obligation %s; there are %v", kind, in.GetObligations())
	}
	return o
}

// deviations are the names of an incident's deviations.
func deviations(s *procedure.State) []string {
	var list []string
	for _, d := range s.Deviations {
		list = append(list, strings.TrimPrefix(d.Deviation.String(), "DEVIATION_"))
	}
	return list
}

// hosts are all machines of the demo.
func hosts() []string { return []string{demobook.Host, demobook.DrillHost, demobook.Test} }

// eventsOf are the events of a record.
func eventsOf(t testing.TB, signed *emergencyv1.SignedRecord) []proto.Message {
	t.Helper()
	var rec emergencyv1.Record
	must(t, proto.Unmarshal(signed.GetRecord(), &rec))
	var list []proto.Message
	for _, e := range rec.GetEvents() {
		m, err := procedure.DecodeEvent(e)
		must(t, err)
		list = append(list, m)
	}
	return list
}
