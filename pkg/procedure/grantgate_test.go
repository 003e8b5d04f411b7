// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// checkGate compares a gate's answer.
func checkGate(t *testing.T, r *procedure.Refusal, want procedure.Reason) {
	t.Helper()
	switch {
	case r == nil && want != "":
		t.Errorf("green, want %s", want)
	case r != nil && r.Reason != want:
		t.Errorf("%v, want %q", r, want)
	case r != nil:
		pt.CheckRefusal(t, r)
	}
}

// TestAccessGate is what the agent on a host asks before it lets a key in, on a history that services could have written.
func TestAccessGate(t *testing.T) {
	t.Parallel()
	grant := func(change func(*procedure.Grant)) func(*procedure.State) {
		return func(s *procedure.State) { change(&s.Grants[0]) }
	}
	without := func(person string, role emergencyv1.Role) func(*pt.World) {
		return book(func(b *pt.World) { b.Do("bea", revokeRole(person, role, b.Now)) })
	}
	for name, x := range map[string]struct {
		at     pt.Milestone
		change func(*procedure.State)
		step   func(*pt.World)
		host   string
		after  time.Duration
		want   procedure.Reason
	}{
		"green":                         {},
		"another host":                  {host: pt.OtherHost, want: procedure.ReasonDrillBoundary},
		"a grant for another host":      {change: grant(func(g *procedure.Grant) { g.Host = pt.OtherHost }), want: procedure.ReasonDrillBoundary},
		"no such grant":                 {change: func(s *procedure.State) { s.Grants = nil }, want: procedure.ReasonGrant},
		"another strategy":              {change: func(s *procedure.State) { s.Strategy = 2 }, want: procedure.ReasonStrategy},
		"not consumed":                  {at: pt.Armed, want: procedure.ReasonGrantState},
		"open already":                  {at: pt.Live, want: procedure.ReasonGrantState},
		"ended":                         {at: pt.Terminated, want: procedure.ReasonGrantState},
		"an old history":                {after: 11 * time.Minute, want: procedure.ReasonGrantExpired},
		"the subject watches":           {change: grant(func(g *procedure.Grant) { g.Watcher = g.Subject }), want: procedure.ReasonSubjectIsWatcher},
		"the subject granted":           {change: grant(func(g *procedure.Grant) { g.Granter = g.Subject }), want: procedure.ReasonSubjectIsWatcher},
		"the subject permitted":         {change: func(s *procedure.State) { s.Permissions[0].By = "emil" }, want: procedure.ReasonSubjectIsWatcher},
		"not armed":                     {change: grant(func(g *procedure.Grant) { g.Armed = procedure.Mark{} }), want: procedure.ReasonWatcherAbsent},
		"presence not confirmed":        {after: 6 * time.Minute, want: procedure.ReasonWatcherAbsent},
		"the subject lost the role":     {step: without("emil", emergencyv1.Role_ROLE_SOFTWARE_ENGINEER), want: procedure.ReasonSubjectRole},
		"the watcher lost the role":     {step: without("carl", emergencyv1.Role_ROLE_CRITICAL_ADMIN), want: procedure.ReasonWatcherAbsent},
		"a history without a policy":    {change: func(s *procedure.State) { s.Policy = nil }, want: procedure.ReasonDrillBoundary},
		"the subject is another person": {change: grant(func(g *procedure.Grant) { g.Subject = "theo" }), want: procedure.ReasonSubjectRole},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if x.at == "" {
				x.at = pt.Consumed
			}
			if x.host == "" {
				x.host = pt.Host
			}
			w := pt.Given(t, pt.Story(x.at)).World()
			if x.change != nil {
				w.Change(x.change)
			}
			if x.step != nil {
				x.step(w)
			}
			checkGate(t, procedure.AccessGate(w.State, "G1", x.host, w.Book, w.Now.Add(x.after)), x.want)
		})
	}
}

func TestSessionGate(t *testing.T) {
	t.Parallel()
	for at, want := range map[pt.Milestone]procedure.Reason{
		pt.Consumed: procedure.ReasonGrantState, pt.Live: "", pt.Frozen: procedure.ReasonGrantState, pt.Resumed: "", pt.Terminated: procedure.ReasonGrantState,
	} {
		w := pt.Given(t, pt.Story(at)).World()
		checkGate(t, procedure.SessionGate(w.State, "G1", pt.Host, w.Book, w.Now), want)
		checkGate(t, procedure.SessionGate(w.State, "G1", pt.OtherHost, w.Book, w.Now), procedure.ReasonDrillBoundary)
	}
	w := pt.Given(t, pt.Story(pt.Live)).World()
	checkGate(t, procedure.SessionGate(w.State, "G1", pt.Host, w.Book, w.Now.Add(2*time.Hour)), procedure.ReasonGrantState)
	checkGate(t, procedure.SessionGate(w.State, "G1", pt.Host, w.Book, w.Now.Add(6*time.Minute)), procedure.ReasonWatcherAbsent)
}

func TestMayFetchCredential(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		at    pt.Milestone
		who   string
		after time.Duration
		book  *rulebook.Book
		want  procedure.Reason
	}{
		"the subject":             {at: pt.Granted, who: "emil"},
		"when the watch is armed": {at: pt.Armed, who: "emil"},
		"another assessor":        {at: pt.Granted, who: "anna", want: procedure.ReasonNotSubject},
		"the watcher":             {at: pt.Granted, who: "carl", want: procedure.ReasonNotSubject},
		"nobody":                  {at: pt.Granted, who: "", want: procedure.ReasonNotSubject},
		"too late":                {at: pt.Granted, who: "emil", after: time.Hour, want: procedure.ReasonGrantExpired},
		"used":                    {at: pt.Live, who: "emil", want: procedure.ReasonCredentialConsumed},
		"ended":                   {at: pt.Terminated, who: "emil", want: procedure.ReasonGrantState},
		"no grant":                {at: pt.Permitted, who: "emil", want: procedure.ReasonGrant},
		"not in the directory":    {at: pt.Granted, who: "emil", book: &rulebook.Book{}, want: procedure.ReasonSubjectRole},
	} {
		w := pt.Given(t, pt.Story(x.at)).World()
		if x.book == nil {
			x.book = w.Book
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkGate(t, procedure.MayFetchCredential(w.State, "G1", x.who, x.book, w.Now.Add(x.after)), x.want)
		})
	}
}

func TestMayWatch(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Live)).World()
	for who, x := range map[string]struct {
		watcher bool
		want    procedure.Reason
	}{
		"carl": {watcher: true}, "carla": {}, "clara": {}, "arno": {}, "emil": {want: procedure.ReasonSubjectIsWatcher},
		"anna": {want: procedure.ReasonRole}, "theo": {want: procedure.ReasonRole}, "mia": {want: procedure.ReasonRole}, "": {want: procedure.ReasonRole},
	} {
		watcher, r := procedure.MayWatch(w.State, "G1", who, w.Book, w.Now)
		checkGate(t, r, x.want)
		if watcher != x.watcher {
			t.Errorf("%s counts: %t", who, watcher)
		}
	}
	if _, r := procedure.MayWatch(w.State, "G2", "carl", w.Book, w.Now); r == nil || r.Reason != procedure.ReasonGrant {
		t.Errorf("%v", r)
	}
	// the subject stays the subject, even as critical admin
	w.Change(func(s *procedure.State) { s.Grants[0].Subject = "carla" })
	_, r := procedure.MayWatch(w.State, "G1", "carla", w.Book, w.Now)
	checkGate(t, r, procedure.ReasonSubjectIsWatcher)
}

// TestVerifyConsole changes records that a service could forge; each must be noticed.
func TestVerifyConsole(t *testing.T) {
	t.Parallel()
	type forgery struct {
		after  pt.Milestone // the record that is forged is the first one after it
		at     pt.Milestone
		change func(*emergencyv1.Record, []proto.Message)
	}
	forgeries := map[string]forgery{
		"a permission for somebody else": {pt.Joined, pt.Permitted, func(_ *emergencyv1.Record, m []proto.Message) { m[0].(*emergencyv1.AccessPermitted).Subject = "anna" }},
		"a permission for ever": {pt.Joined, pt.Permitted, func(_ *emergencyv1.Record, m []proto.Message) {
			m[0].(*emergencyv1.AccessPermitted).ValidUntil = stampOf(pt.T0().AddDate(1, 0, 0))
		}},
		"an unsigned permission":    {pt.Joined, pt.Permitted, func(r *emergencyv1.Record, _ []proto.Message) { r.Approval = nil }},
		"a grant for somebody else": {pt.Permitted, pt.Granted, func(_ *emergencyv1.Record, m []proto.Message) { m[0].(*emergencyv1.AccessGrantIssued).Subject = "anna" }},
		"another watcher": {pt.Permitted, pt.Granted, func(_ *emergencyv1.Record, m []proto.Message) {
			m[0].(*emergencyv1.AccessGrantIssued).Watcher = "clara"
		}},
		"a longer session": {pt.Permitted, pt.Granted, func(_ *emergencyv1.Record, m []proto.Message) { m[0].(*emergencyv1.AccessGrantIssued).MaxMinutes = 600 }},
		"a longer first use": {pt.Permitted, pt.Granted, func(_ *emergencyv1.Record, m []proto.Message) {
			m[0].(*emergencyv1.AccessGrantIssued).FirstUseUntil = stampOf(pt.T0().AddDate(0, 0, 1))
		}},
		"a permission that is none": {pt.Permitted, pt.Granted, func(_ *emergencyv1.Record, m []proto.Message) { m[0].(*emergencyv1.AccessGrantIssued).Permission = 1 }},
		"no permission, and nobody was called": {pt.Permitted, pt.Granted, func(r *emergencyv1.Record, m []proto.Message) {
			m[0].(*emergencyv1.AccessGrantIssued).Permission = 0
			r.Events[0].Deviations = append(r.Events[0].Deviations, noPermission)
		}},
		"a subject who is no assessor, unmentioned": {pt.Permitted, pt.Granted, func(r *emergencyv1.Record, _ []proto.Message) { r.Events[0].Deviations = nil }},
		"the assumed role unmentioned":              {pt.Permitted, pt.Granted, func(r *emergencyv1.Record, _ []proto.Message) { r.Events[1].Deviations = nil }},
		"a host without an agent unmentioned":       {pt.Consumed, pt.Live, func(_ *emergencyv1.Record, m []proto.Message) { m[0].(*emergencyv1.ConnectionOpened).Agent = false }},
		"a watch from before":                       {pt.Granted, pt.Armed, func(r *emergencyv1.Record, _ []proto.Message) { r.Late = true }},
		"another acts as access engineer":           {pt.Permitted, pt.Granted, func(_ *emergencyv1.Record, m []proto.Message) { m[1].(*emergencyv1.RoleAssumed).Person = "carl" }},
		"an unsigned grant":                         {pt.Permitted, pt.Granted, func(r *emergencyv1.Record, _ []proto.Message) { r.Approval = nil }},
		"armed by another":                          {pt.Granted, pt.Armed, func(_ *emergencyv1.Record, m []proto.Message) { m[0].(*emergencyv1.WatchArmed).Watcher = "clara" }},
		"armed for another grant":                   {pt.Granted, pt.Armed, func(_ *emergencyv1.Record, m []proto.Message) { m[0].(*emergencyv1.WatchArmed).Grant = "G2" }},
		"armed by the broker":                       {pt.Granted, pt.Armed, func(r *emergencyv1.Record, _ []proto.Message) { r.Command = "Freeze" }},
		"the credential used by another": {pt.Armed, pt.Consumed, func(r *emergencyv1.Record, _ []proto.Message) {
			r.Actor.Person, r.Actor.Role = "anna", emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR
		}},
		"the credential used without a broker": {pt.Armed, pt.Consumed, func(r *emergencyv1.Record, _ []proto.Message) { r.Actor.System = 0 }},
		"the credential used too late":         {pt.Armed, pt.Consumed, func(r *emergencyv1.Record, _ []proto.Message) { r.RecordedAt = stampOf(pt.T0().Add(time.Hour)) }},
		"another credential used":              {pt.Armed, pt.Consumed, func(_ *emergencyv1.Record, m []proto.Message) { m[0].(*emergencyv1.CredentialConsumed).Grant = "G2" }},
		"used under another command":           {pt.Armed, pt.Consumed, func(r *emergencyv1.Record, _ []proto.Message) { r.Command = "Terminate" }},
		"opened by a person": {pt.Consumed, pt.Live, func(r *emergencyv1.Record, _ []proto.Message) {
			r.Actor = &emergencyv1.Actor{Person: "carl", Role: emergencyv1.Role_ROLE_CRITICAL_ADMIN}
		}},
		"ended by a member": {pt.Resumed, pt.Terminated, func(r *emergencyv1.Record, _ []proto.Message) {
			r.Actor = &emergencyv1.Actor{Person: "mia", Role: emergencyv1.Role_ROLE_MEMBER}
		}},
	}
	for name, f := range forgeries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := pt.Given(t, pt.Story(f.after)).World()
			rec := proto.Clone(pt.Given(t, pt.Story(f.at)).World().Records[len(before.Records)]).(*emergencyv1.Record)
			if err := procedure.VerifyRecord(before.State, rec, before.Book); err != nil {
				t.Fatalf("as it was recorded: %v", err)
			}
			var payloads []proto.Message
			for _, e := range rec.GetEvents() {
				m, err := procedure.DecodeEvent(e)
				if err != nil {
					t.Fatal(err)
				}
				payloads = append(payloads, m)
			}
			f.change(rec, payloads)
			for i, m := range payloads {
				e, err := procedure.EncodeEvent(rec.GetOwner(), m)
				if err != nil {
					t.Fatal(err)
				}
				rec.Events[i].Payload = e.GetPayload()
			}
			if err := procedure.VerifyRecord(before.State, rec, before.Book); err == nil {
				t.Error("it verifies")
			}
		})
	}
	t.Run("a grant under another strategy, and beside an open one", func(t *testing.T) {
		t.Parallel()
		before := pt.Given(t, pt.Story(pt.Permitted)).World()
		after := pt.Given(t, pt.Story(pt.Granted)).World()
		rec := proto.Clone(after.Records[len(before.Records)]).(*emergencyv1.Record)
		before.Change(func(s *procedure.State) { s.Strategy = 2 })
		if err := procedure.VerifyRecord(before.State, rec, before.Book); err == nil {
			t.Error("it verifies under strategy 2")
		}
		if err := procedure.VerifyRecord(after.State, rec, after.Book); err == nil {
			t.Error("it verifies beside an open grant")
		}
	})
	t.Run("a session goes on without its watcher", func(t *testing.T) {
		t.Parallel()
		before := pt.Given(t, pt.Story(pt.Frozen)).World()
		all := pt.Given(t, pt.Story(pt.Resumed)).World()
		rec := all.Records[len(before.Records)+1]
		if rec.GetCommand() != "Resume" {
			t.Fatal(rec.GetCommand())
		}
		if err := procedure.VerifyRecord(before.State, rec, before.Book); err == nil {
			t.Error("it verifies although the watch was not armed again")
		}
	})
}
