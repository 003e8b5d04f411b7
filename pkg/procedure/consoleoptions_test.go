// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// TestConsoleSteps: at each milestone the first thing that the incident waits for, and for whom.
func TestConsoleSteps(t *testing.T) {
	t.Parallel()
	for at, want := range map[pt.Milestone]struct{ command, person string }{
		pt.Joined: {"PermitAccess", ""}, pt.Permitted: {"GrantAccess", ""}, pt.Granted: {"ArmWatch", "carl"}, pt.Armed: {"Connect", "emil"}, pt.Consumed: {"", ""},
		pt.Live: {"Terminate", "carl"}, pt.Frozen: {"Resume", "carl"}, pt.Terminated: {"Disable", "carla"}, pt.Disabled: {"ProveUnusable", "carla"},
		pt.Proven: {"CaptureSessionDiff", ""}, pt.Captured: {"ExplainLeftovers", "carl"}, pt.Explained: {"SealSession", "carl"},
	} {
		w := pt.Given(t, pt.Story(at)).World()
		step := procedure.NextSteps(w.State)[0]
		person := ""
		if len(step.Persons) > 0 {
			person = step.Persons[0]
		}
		if step.Command != want.command || person != want.person || step.Title == "" {
			t.Errorf("%s: %+v, want %+v", at, step, want)
		}
	}
	w := pt.Given(t, pt.Story(pt.Disabled), stillUsable).World()
	if step := procedure.NextSteps(w.State)[0]; step.Command != "Disable" {
		t.Errorf("still usable: %+v", step)
	}
	w = pt.Given(t, pt.Story(pt.Proven), pt.Does(gateway, capture)).World()
	if step := procedure.NextSteps(w.State)[0]; step.Command != "ReportLeftovers" {
		t.Errorf("captured, nobody looked: %+v", step)
	}
}

// TestConsoleOptions: what a person can do is what Decide would accept.
func TestConsoleOptions(t *testing.T) {
	t.Parallel()
	allowed := func(at pt.Milestone, who string) []string {
		w := pt.Given(t, pt.Story(at)).World()
		var list []string
		for _, o := range procedure.Options(w.State, procedure.Env{Now: w.Now, Actor: pt.Actor(who), Book: w.Book, Salt: make([]byte, 32)}) {
			if o.Refusal == nil && (o.Subject == "G1" || slices.Contains([]string{"PermitAccess", "GrantAccess"}, o.Command)) {
				list = append(list, o.Command)
			}
		}
		return list
	}
	for _, x := range []struct {
		at   pt.Milestone
		who  string
		want []string
	}{
		{pt.Joined, "clara", []string{"PermitAccess"}},
		{pt.Permitted, "carla", []string{"GrantAccess"}},
		{pt.Permitted, "anna", nil},
		{pt.Granted, "carl", []string{"ArmWatch", "Terminate", "Disable"}},
		{pt.Live, "carl", []string{"ArmWatch", "Freeze", "MarkSession", "ExtendSession", "Terminate", "Disable", "PlayRecording"}},
		{pt.Live, "emil", []string{"Terminate"}},
		{pt.Live, "theo", nil},
		{pt.Frozen, "carla", []string{"ArmWatch", "MarkSession", "Terminate", "Disable", "PlayRecording"}},
		{pt.Terminated, "carla", []string{"Disable", "CaptureSessionDiff", "ReportLeftovers", "PlayRecording"}},
		{pt.Explained, "carl", []string{"GrantAccess", "Disable", "ProveUnusable", "ReportLeftovers", "SealSession", "PlayRecording"}},
		{pt.Sealed, "anna", []string{"PlayRecording"}},
	} {
		if got := allowed(x.at, x.who); !slices.Equal(got, x.want) {
			t.Errorf("%s, %s: %v, want %v", x.at, x.who, got, x.want)
		}
	}
}

// TestConsoleDue: what is owed for an access runs from its end, and while there is none from the latest end there can be.
func TestConsoleDue(t *testing.T) {
	t.Parallel()
	due := func(w *pt.World, kind string) time.Time {
		t.Helper()
		o, ok := debt(w.State, kind)
		if !ok {
			t.Fatalf("%s is not owed", kind)
		}
		return o.Due
	}
	for at, end := range map[pt.Milestone]func(procedure.Grant) time.Time{
		pt.Granted:    func(g procedure.Grant) time.Time { return g.FirstUseUntil },
		pt.Consumed:   func(g procedure.Grant) time.Time { return g.Consumed.At.Add(time.Hour) },
		pt.Live:       func(g procedure.Grant) time.Time { return g.Opened.At.Add(time.Hour) },
		pt.Terminated: func(g procedure.Grant) time.Time { return g.Terminated.At },
	} {
		w := pt.Given(t, pt.Story(at)).World()
		want := end(w.State.Grants[0])
		if got := due(w, "DISABLE_ACCESS"); !got.Equal(want.Add(15 * time.Minute)) {
			t.Errorf("%s: disable by %s, the end is %s", at, got, want)
		}
		if got := due(w, "PROVE_UNUSABLE"); !got.Equal(want.Add(30 * time.Minute)) {
			t.Errorf("%s: prove by %s, the end is %s", at, got, want)
		}
		if at == pt.Live || at == pt.Terminated {
			if got := due(w, "SEAL_SESSION"); !got.Equal(want.Add(24 * time.Hour)) {
				t.Errorf("%s: seal by %s, the end is %s", at, got, want)
			}
		} else if _, owed := debt(w.State, "SEAL_SESSION"); owed {
			t.Errorf("%s: a seal is owed for no session", at)
		}
	}
	w := pt.Given(t, pt.Story(pt.Live)).World()
	w.Sync()
	w.Do("carl", terminate)
	if out := w.Sync(); !slices.Contains(out.Types(), "arbitration.ObligationDueChanged") {
		t.Errorf("%v", out.Types())
	}
}

// TestConsoleReading: what a session shows is for the two teams that answer for it, and for who judges it (8.4).
func TestConsoleReading(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Sealed), judge("arno")).World()
	fields := map[string][]string{}
	for _, rec := range w.Records {
		for _, e := range rec.GetEvents() {
			m, err := procedure.DecodeEvent(e)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range procedure.RestrictedFields(m) {
				if rec.GetOwner() != procedure.OwnerDeployment {
					continue
				}
				fields[e.GetType()] = append(fields[e.GetType()], f.Field)
				if w.Sealed[f.Commitment] == "" {
					t.Errorf("%s %s is kept nowhere", e.GetType(), f.Field)
				}
			}
		}
	}
	want := map[string][]string{
		"deployment.AccessPermitted": {"purpose"}, "deployment.AccessGrantIssued": {"account", "purpose", "source_address"},
		"deployment.CredentialConsumed": {"source_address", "key_fingerprint"}, "deployment.SessionMarked": {"text"},
		"deployment.CredentialProvenUnusable": {"attempts"}, "deployment.SessionDiffCaptured": {"changed_paths"},
		"deployment.LeftoversReported": {"items.what", "items.what"}, "deployment.LeftoversExplained": {"explanation"},
	}
	for typ, list := range want {
		if !slices.Equal(fields[typ], list) {
			t.Errorf("%s keeps %v, want %v", typ, fields[typ], list)
		}
		delete(fields, typ)
	}
	if len(fields) > 0 {
		t.Errorf("and %v", fields)
	}
	readers := []string{"carla", "clara", "anna", "albert", "casper", "arno"}
	for _, p := range pt.People() {
		if p.Name == "xaver" || p.Name == "vera" || p.Name == "viktor" { // assessors too
			continue
		}
		admin := slices.Contains(p.Roles, emergencyv1.Role_ROLE_CRITICAL_ADMIN) || slices.Contains(p.Roles, emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR)
		may := admin || slices.Contains(readers, p.Name)
		for _, f := range []procedure.RestrictedField{procedure.RecordingField(), {Field: "text", Commitment: "x"}} {
			if r := procedure.MayRead(w.State, w.Book, p.Name, w.Now, procedure.RecordingEvent, f); (r == nil) != may {
				t.Errorf("%s reads %s: %v", p.Name, f.Field, r)
			}
		}
		if r := procedure.MayRead(w.State, w.Book, p.Name, w.Now, "deployment.AccessGrantIssued", procedure.RestrictedField{Field: "account"}); (r == nil) != may {
			t.Errorf("%s reads the account: %v", p.Name, r)
		}
	}
}
