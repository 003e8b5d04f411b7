// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// TestHostGate is what the agent on a host asks before it touches a file, on a history that services could have written.
func TestHostGate(t *testing.T) {
	t.Parallel()
	revision := func(change func(*procedure.Revision)) func(*procedure.State) {
		return func(s *procedure.State) { change(&s.Revisions[0]) }
	}
	apply := func(change func(*procedure.Apply)) func(*procedure.State) {
		return func(s *procedure.State) { change(&s.Applies[0]) }
	}
	for name, x := range map[string]struct {
		change func(*procedure.State)
		host   string
		want   procedure.Reason
	}{
		"green":            {},
		"another host":     {host: pt.DrillHost, want: procedure.ReasonDrillBoundary},
		"no such revision": {change: revision(func(r *procedure.Revision) { r.ID = "P2r1" }), want: procedure.ReasonPatch},
		"finished already": {change: apply(func(a *procedure.Apply) { a.State = procedure.Applied }), want: procedure.ReasonNoApplyRunning},
		"never started":    {change: func(s *procedure.State) { s.Applies = nil }, want: procedure.ReasonNoApplyRunning},
		"veto before the start": {change: func(s *procedure.State) {
			s.Vetoes = append(s.Vetoes, procedure.Veto{ID: "V1", Revision: "P1r1", By: "beate", State: procedure.VetoOpen})
		}, want: procedure.ReasonVetoOpen},
		"veto after the start": {change: func(s *procedure.State) {
			s.Vetoes = append(s.Vetoes, procedure.Veto{ID: "V1", Revision: "P1r1", By: "beate", State: procedure.VetoOpen, AfterApply: true})
		}},
		"no first review":           {change: revision(func(r *procedure.Revision) { r.First = nil }), want: procedure.ReasonFirstReviewMissing},
		"first review asks changes": {change: revision(func(r *procedure.Revision) { r.First.Verdict = changes }), want: procedure.ReasonFirstReviewMissing},
		"no second review":          {change: revision(func(r *procedure.Revision) { r.Second = nil }), want: procedure.ReasonSecondReviewMiss},
		"one test":                  {change: revision(func(r *procedure.Revision) { r.Tests = r.Tests[:1] }), want: procedure.ReasonTestQuorum},
		"a failed test":             {change: revision(func(r *procedure.Revision) { r.Tests = append(slices.Clone(r.Tests), procedure.Test{}) }), want: procedure.ReasonTestFailed},
		"not forwarded":             {change: revision(func(r *procedure.Revision) { r.Forward = nil }), want: procedure.ReasonNotForwarded},
		"X5 author reviewed first":  {change: revision(func(r *procedure.Revision) { r.Author = "anna" }), want: procedure.ReasonAuthorIsReviewer},
		"X5 author reviewed second": {change: revision(func(r *procedure.Revision) { r.By = "bert" }), want: procedure.ReasonAuthorIsReviewer},
		"X7 one reviewer":           {change: revision(func(r *procedure.Revision) { r.Second.By = "anna" }), want: procedure.ReasonSamePerson},
		"X6 author tested":          {change: revision(func(r *procedure.Revision) { r.Author = "theo" }), want: procedure.ReasonAuthorIsTester},
		"X8 reviewer tested":        {change: revision(func(r *procedure.Revision) { r.Tests[0].By = "bert" }), want: procedure.ReasonReviewerAndTester},
		"X10 one person":            {change: apply(func(a *procedure.Apply) { a.Observer = "carla" }), want: procedure.ReasonSamePerson},
		"X11 executor tested":       {change: revision(func(r *procedure.Revision) { r.Tests[0].By = "carla" }), want: procedure.ReasonSeparationOfDuty},
		"nobody observes":           {change: apply(func(a *procedure.Apply) { a.Observer = "" }), want: procedure.ReasonObserverMissing},
		"nobody observes, and waived": {change: func(s *procedure.State) {
			s.Applies[0].Observer = ""
			s.Waivers = append(s.Waivers, procedure.Waiver{Mark: procedure.Mark{Revision: "P1r1"}, Control: observer})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := pt.Given(t, pt.Story(pt.Applying)).World()
			if x.change != nil {
				x.change(w.State)
			}
			if x.host == "" {
				x.host = pt.Host
			}
			r := procedure.HostGate(w.State, "P1r1", x.host, w.Book, w.Now)
			switch {
			case r == nil && x.want != "":
				t.Errorf("green, want %s", x.want)
			case r != nil && r.Reason != x.want:
				t.Errorf("%v, want %q", r, x.want)
			case r != nil:
				pt.CheckRefusal(t, r)
			}
		})
	}
}

// TestVerifyRecord changes records that a service could forge; each must be noticed. That what Decide accepts verifies is
// checked by World for every command of every test.
func TestVerifyRecord(t *testing.T) {
	t.Parallel()
	signed := map[pt.Milestone]string{pt.Registered: pt.ShortType("review.PatchRegistered"), pt.Reviewed: "FirstReviewRecorded", pt.ReviewedTwice: "SecondReviewRecorded", pt.Forwarded: "PatchForwarded", pt.Applying: "ApplyStarted"}
	last := func(t *testing.T, to pt.Milestone) (*pt.World, *procedure.State, *emergencyv1.Record) {
		t.Helper()
		w := pt.Given(t, pt.Story(to)).World()
		before := procedure.NewState(w.State.Incident)
		for i, rec := range w.Records[:len(w.Records)-1] {
			if err := before.Apply(rec, w.Records[i+1].GetPrevHash()); err != nil {
				t.Fatal(err)
			}
		}
		return w, before, proto.Clone(w.Records[len(w.Records)-1]).(*emergencyv1.Record)
	}
	payload := func(change func(proto.Message)) func(*emergencyv1.Record) {
		return func(rec *emergencyv1.Record) {
			e := rec.GetEvents()[0]
			m, err := procedure.DecodeEvent(e)
			if err != nil {
				t.Fatal(err)
			}
			change(m)
			n, err := procedure.EncodeEvent(rec.GetOwner(), m)
			if err != nil {
				t.Fatal(err)
			}
			e.Payload = n.GetPayload()
		}
	}
	forgeries := map[string]func(*emergencyv1.Record){
		"another owner":      func(r *emergencyv1.Record) { r.Owner = procedure.OwnerArbitration },
		"an unknown command": func(r *emergencyv1.Record) { r.Command = "Invented" },
		"another command":    func(r *emergencyv1.Record) { r.Command = "Close" },
		"another person":     func(r *emergencyv1.Record) { r.Actor.Person = "beate" },
		"a role not held":    func(r *emergencyv1.Record) { r.Actor.Role = roleTE },
		"no person": func(r *emergencyv1.Record) {
			r.Actor = &emergencyv1.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_SERVICE}
		},
		"no signature":           func(r *emergencyv1.Record) { r.Approval = nil },
		"signature cut":          func(r *emergencyv1.Record) { r.Approval.Signature = r.Approval.Signature[1:] },
		"an unknown signing key": func(r *emergencyv1.Record) { r.Approval.KeyId = strings.Repeat("0", 64) },
		"another request":        func(r *emergencyv1.Record) { r.RequestId = "request-9999" },
		"an unknown event":       func(r *emergencyv1.Record) { r.Events[0].Type = "review.Invented" },
		"another binding": payload(func(m proto.Message) {
			m.(interface{ GetBinding() *emergencyv1.Binding }).GetBinding().Digest = strings.Repeat("0", 64)
		}),
	}
	for milestone := range signed {
		for name, forge := range forgeries {
			t.Run(string(milestone)+", "+name, func(t *testing.T) {
				t.Parallel()
				w, before, rec := last(t, milestone)
				forge(rec)
				if err := procedure.VerifyRecord(before, rec, w.Book); err == nil {
					t.Error("believed")
				}
			})
		}
	}
	single := map[string]struct {
		to    pt.Milestone
		forge func(proto.Message)
	}{
		"verdict":       {pt.Reviewed, func(m proto.Message) { m.(*emergencyv1.FirstReviewRecorded).Verdict = changes }},
		"other verdict": {pt.ReviewedTwice, func(m proto.Message) { m.(*emergencyv1.SecondReviewRecorded).Verdict = veto }},
		"author":        {pt.Registered, func(m proto.Message) { m.(*emergencyv1.PatchRegistered).Patch.Sha256 = strings.Repeat("0", 64) }},
		"result tree":   {pt.Registered, func(m proto.Message) { m.(*emergencyv1.PatchRegistered).ResultTree = pt.Tree("x") }},
		"test result":   {pt.Tested, func(m proto.Message) { m.(*emergencyv1.TestReported).Result = fail }},
	}
	for name, x := range map[string]struct {
		to    pt.Milestone
		forge func(proto.Message)
	}{
		"reviewer":        {pt.Reviewed, func(m proto.Message) { m.(*emergencyv1.FirstReviewRecorded).Reviewer = "beate" }},
		"second reviewer": {pt.ReviewedTwice, func(m proto.Message) { m.(*emergencyv1.SecondReviewRecorded).Reviewer = "beate" }},
		"tester":          {pt.Tested, func(m proto.Message) { m.(*emergencyv1.TestReported).Tester = "tom" }},
		"executor":        {pt.Applying, func(m proto.Message) { m.(*emergencyv1.ApplyStarted).Executor = "clara" }},
		"observer":        {pt.Observed, func(m proto.Message) { m.(*emergencyv1.ObserverConfirmed).Observer = "clara" }},
	} {
		single["another "+name] = x
	}
	for name, x := range single {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, before, rec := last(t, x.to)
			payload(x.forge)(rec)
			if err := procedure.VerifyRecord(before, rec, w.Book); err == nil {
				t.Error("believed")
			}
		})
	}
	for milestone, event := range signed {
		t.Run(string(milestone)+", under a command that nobody signs", func(t *testing.T) {
			t.Parallel()
			w, before, rec := last(t, milestone)
			if got := pt.ShortType(rec.GetEvents()[0].GetType()); got != event {
				t.Fatalf("last event %s, want %s", got, event)
			}
			rec.Approval = nil
			for _, info := range procedure.Commands() {
				rec.Command = info.Name
				if err := procedure.VerifyRecord(before, rec, w.Book); err == nil {
					t.Errorf("believed as %s", info.Name)
				}
			}
		})
	}
	t.Run("another's veto withdrawn", func(t *testing.T) {
		t.Parallel()
		w := pt.Given(t, pt.Story(pt.Registered), pt.Does("bert", pt.Veto())).World()
		c := w.Prepare("anna", &emergencyv1.WithdrawVetoRequest{Veto: "V1", Reason: "I misread the patch"})
		e, err := procedure.EncodeEvent(procedure.OwnerReview, &emergencyv1.VetoWithdrawn{Veto: "V1"})
		if err != nil {
			t.Fatal(err)
		}
		rec := &emergencyv1.Record{
			Incident: w.State.Incident, FirstPosition: w.State.Position + 1, Owner: procedure.OwnerReview, Command: "WithdrawVeto", RequestId: c.GetMeta().GetRequestId(),
			Actor: &emergencyv1.Actor{Person: "anna", Role: roleSA}, RecordedAt: stampOf(w.Now), Approval: c.GetMeta().GetApproval(), Events: []*emergencyv1.Event{e},
		}
		if err := procedure.VerifyRecord(w.State, rec, w.Book); err == nil {
			t.Error("believed")
		}
	})
	t.Run("a waiver that nobody signed", func(t *testing.T) {
		t.Parallel()
		w := pt.Given(t, pt.Story(pt.OnTestServer), pt.Does("theo", pt.Test(pass)), pt.Does("albert", pt.Waive(tests))).World()
		rec := proto.Clone(w.Records[len(w.Records)-1]).(*emergencyv1.Record)
		if rec.GetApproval() == nil {
			t.Fatal("a waiver is not signed")
		}
		rec.Approval = nil
		if err := procedure.VerifyRecord(w.State, rec, w.Book); err == nil {
			t.Error("believed")
		}
	})
	t.Run("a key that was revoked before", func(t *testing.T) {
		t.Parallel()
		_, before, rec := last(t, pt.Reviewed)
		b := pt.Founding().For(t)
		b.Now = rec.GetRecordedAt().AsTime()
		b.Do("anna", &emergencyv1.RevokeKeyRequest{KeyId: pt.KeyOf("anna").ID, Reason: "stolen in the evening"})
		if err := procedure.VerifyRecord(before, rec, b.Book); err == nil {
			t.Error("believed")
		}
		b = pt.Founding().For(t)
		b.Now = rec.GetRecordedAt().AsTime().Add(time.Second) // what was done before stays valid (2.3 (d))
		b.Do("anna", &emergencyv1.RevokeKeyRequest{KeyId: pt.KeyOf("anna").ID, Reason: "stolen in the evening"})
		if err := procedure.VerifyRecord(before, rec, b.Book); err != nil {
			t.Errorf("not believed: %v", err)
		}
	})
}
