// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func TestRegister(t *testing.T) {
	t.Parallel()
	declared := pt.Story(pt.Declared)
	reg := func(change func(*emergencyv1.RegisterPatchRequest)) procedure.Command {
		return with(pt.Register(1), change)
	}
	facts := func(change func(*procedure.PatchFacts)) []pt.Option {
		f := pt.GoodFacts(procedure.NewState(""), pt.Register(1))
		change(f.Patch)
		return []pt.Option{pt.Facts(f)}
	}
	bad := func(name string, change func(*emergencyv1.RegisterPatchRequest)) row {
		return row{name: name, given: history(declared), when: reg(change), by: "dora", refused: procedure.ReasonField}
	}
	run(t, []row{
		{name: "by a developer", given: history(declared), when: pt.Register(1), by: "dora", then: events("PatchRegistered"), check: func(t *testing.T, w *pt.World) {
			r := current(t, w)
			want := procedure.BindingDigest(w.State.Incident, "P1r1", r.Artefact.GetSha256(), pt.BaseTree(), pt.ResultTree(1), w.State.Policy.Digest)
			if r.ID != "P1r1" || r.Author != "dora" || r.Binding != want {
				t.Errorf("%+v", r)
			}
			if sl, _ := w.State.Slot("development/1"); sl.State != procedure.SlotEnded || sl.Person != "dora" {
				t.Errorf("the preparer's slot counts as filled (3.1): %+v", sl)
			}
		}},
		{name: "by an engineer", given: history(declared), when: pt.Register(1), by: "emil", then: events("PatchRegistered")},
		{name: "by an assessor", given: history(declared), when: pt.Register(1), by: "anna", then: events("PatchRegistered")},
		{name: "by a tester", given: history(declared), when: pt.Register(1), by: "theo", refused: procedure.ReasonRole},
		{name: "for another author", given: history(declared), when: reg(func(c *emergencyv1.RegisterPatchRequest) { c.Author = "emil" }), by: "dora", then: events("PatchRegistered"), check: func(t *testing.T, w *pt.World) {
			if r := current(t, w); r.Author != "emil" || r.By != "dora" {
				t.Errorf("%+v", r)
			}
		}},
		bad("for somebody unknown", func(c *emergencyv1.RegisterPatchRequest) { c.Author = "ghost" }),
		bad("no bytes", func(c *emergencyv1.RegisterPatchRequest) { c.Bytes = nil }),
		bad("no digest", func(c *emergencyv1.RegisterPatchRequest) { c.Sha256 = "" }),
		bad("no commit", func(c *emergencyv1.RegisterPatchRequest) { c.BaseCommit = "" }),
		bad("no tree", func(c *emergencyv1.RegisterPatchRequest) { c.BaseTree = "sha1:12" }),
		bad("changes nothing", func(c *emergencyv1.RegisterPatchRequest) { c.ResultTree = c.BaseTree }),
		bad("no bug", func(c *emergencyv1.RegisterPatchRequest) { c.BugId = "" }),
		{name: "from a session, by a developer", given: history(declared), when: reg(func(c *emergencyv1.RegisterPatchRequest) { c.Origin = emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION }), by: "dora", refused: procedure.ReasonPreparerRole},
		{name: "from a session that left nothing", given: history(declared), when: reg(func(c *emergencyv1.RegisterPatchRequest) { c.Origin = emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION }), by: "emil", refused: procedure.ReasonSessionDiff},
		{name: "other bytes than said", given: history(declared), when: reg(func(c *emergencyv1.RegisterPatchRequest) { c.Bytes = pt.Patch(2) }), by: "dora", refused: procedure.ReasonDigest},
		{name: "not computed", given: history(declared), when: pt.Register(1), by: "dora", with: []pt.Option{pt.Facts(procedure.Facts{})}, refused: procedure.ReasonDigest},
		{name: "no acceptable patch", given: history(declared), when: pt.Register(1), by: "dora", with: facts(func(p *procedure.PatchFacts) { p.Problem = "path escapes" }), refused: procedure.ReasonDigest},
		{name: "another base tree", given: history(declared), when: pt.Register(1), by: "dora", with: facts(func(p *procedure.PatchFacts) { p.BaseTree = pt.Tree("x") }), refused: procedure.ReasonBaseMismatch},
		{name: "another result", given: history(declared), when: pt.Register(1), by: "dora", with: facts(func(p *procedure.PatchFacts) { p.ResultTree = pt.Tree("x") }), refused: procedure.ReasonResultMismatch},
		{name: "the same bytes on the same base", given: history(pt.Story(pt.Registered)), when: pt.Register(1), by: "emil", refused: procedure.ReasonRevisionExists},
		{name: "the same bytes on another base", given: history(pt.Story(pt.Registered)), when: reg(func(c *emergencyv1.RegisterPatchRequest) { c.BaseTree = pt.Tree("x") }), by: "emil", then: events("PatchRegistered"), check: func(t *testing.T, w *pt.World) {
			if r := current(t, w); r.ID != "P2r1" {
				t.Errorf("%+v", r)
			}
		}},
		{name: "replaces one that is not there", given: history(declared), when: pt.Replace("P1r1", 1), by: "dora", refused: procedure.ReasonPatch},
		{name: "replaces one that was replaced", given: history(pt.Story(pt.Registered), pt.Does("dora", pt.Replace("P1r1", 2))), when: pt.Replace("P1r1", 3), by: "dora", refused: procedure.ReasonPatchRevisionStale},
		{name: "replaces one that is being applied", given: history(pt.Story(pt.Applied)), when: pt.Replace("P1r1", 2), by: "dora", refused: procedure.ReasonApplyRunning},
		{name: "replaces one that failed and is not back", given: history(pt.Story(pt.Applying), pt.Does("host:"+pt.Host, pt.ReportApply(false))), when: pt.Replace("P1r1", 2), by: "dora", refused: procedure.ReasonApplyRunning},
		{name: "replaces one that was deployed", given: history(pt.Story(pt.Verified)), when: pt.Replace("P1r1", 2), by: "dora", then: events("PatchRegistered", "PatchSuperseded")},
		{name: "replaces the current one: all checks are void", given: history(pt.Story(pt.OnTestServer), pt.Does("theo", pt.Test(pass)), pt.Does("albert", pt.Waive(tests)), pt.From(pt.Tested, pt.Forwarded)), when: pt.Replace("P1r1", 2), by: "dora", then: events("PatchRegistered", "PatchSuperseded"), check: func(t *testing.T, w *pt.World) {
			r, _ := w.State.Revision("P1r1")
			if r.Superseded != "P1r2" || current(t, w).ID != "P1r2" || current(t, w).First != nil || len(w.State.Waivers) > 0 {
				t.Errorf("%+v", r)
			}
			e := superseded(t, w)
			// everything recorded on the old revision
			voids := []uint64{r.First.Position, r.Transfer.Position, r.TestServer.Position, r.Tests[0].Position, r.Tests[0].Position + 1, r.Second.Position, r.Forward.Position}
			if slices.Sort(voids); !slices.Equal(e.GetVoids(), voids) {
				t.Errorf("voids %v, want %v", e.GetVoids(), voids)
			}
		}},
	})
}

func superseded(t *testing.T, w *pt.World) *emergencyv1.PatchSuperseded {
	t.Helper()
	list := w.Records[len(w.Records)-1].GetEvents()
	p, err := procedure.DecodeEvent(list[len(list)-1])
	if err != nil {
		t.Fatal(err)
	}
	return p.(*emergencyv1.PatchSuperseded)
}

func TestFirstReview(t *testing.T) {
	t.Parallel()
	registered := pt.Story(pt.Registered)
	own := pt.Does("anna", pt.Register(1))
	forOther := pt.Does("anna", with(pt.Register(1), func(c *emergencyv1.RegisterPatchRequest) { c.Author = "dora" }))
	forAnna := pt.Does("dora", with(pt.Register(1), func(c *emergencyv1.RegisterPatchRequest) { c.Author = "anna" }))
	declared := pt.Story(pt.Declared)
	after := with(pt.FirstReview(approve), func(c *emergencyv1.RecordFirstReviewRequest) { c.Phase = emergencyv1.Phase_PHASE_AFTER })
	run(t, []row{
		{name: "approve", given: history(registered), when: pt.FirstReview(approve), by: "anna", then: events("FirstReviewRecorded")},
		{name: "changes", given: history(registered), when: pt.FirstReview(changes), by: "anna", then: events("FirstReviewRecorded")},
		{name: "veto", given: history(registered), when: pt.FirstReview(veto), by: "anna", then: events("FirstReviewRecorded", "VetoRaised"), check: func(t *testing.T, w *pt.World) {
			if v := w.State.OpenVetoes("P1r1"); len(v) != 1 || v[0].By != "anna" || v[0].ID != "V1" {
				t.Errorf("%+v", v)
			}
		}},
		{name: "veto by who has one already", given: history(registered, pt.Does("anna", pt.Veto())), when: pt.FirstReview(veto), by: "anna", refused: procedure.ReasonVetoExists},
		{name: "approve by the lead", given: history(registered), when: pt.FirstReview(approve), by: "albert", then: events("FirstReviewRecorded")},
		{name: "by an admin", given: history(registered), when: pt.FirstReview(approve), by: "carla", refused: procedure.ReasonRole},
		{name: "by a person of exclusive roles", given: history(registered), when: pt.FirstReview(approve), by: "xaver", refused: procedure.ReasonRoleExclusivity},
		{name: "not approved without a reason", given: history(registered), when: &emergencyv1.RecordFirstReviewRequest{Verdict: changes}, by: "anna", refused: procedure.ReasonField},
		{name: "without a verdict", given: history(registered), when: &emergencyv1.RecordFirstReviewRequest{}, by: "anna", refused: procedure.ReasonField},
		{name: "binding without a digest", given: history(registered), when: with(pt.FirstReview(approve), func(c *emergencyv1.RecordFirstReviewRequest) { c.Binding = &emergencyv1.Binding{Revision: "P1r1"} }), by: "anna", refused: procedure.ReasonField},
		{name: "no such revision", given: history(declared), when: with(pt.FirstReview(approve), func(c *emergencyv1.RecordFirstReviewRequest) { c.Binding = anyBinding() }), by: "anna", refused: procedure.ReasonPatch},
		{name: "a binding that never was", given: history(registered), as: forged(pt.FirstReview(approve)), by: "anna", refused: procedure.ReasonBindingUnknown},
		{name: "a replaced revision", given: history(registered, pt.Does("dora", pt.Replace("P1r1", 2))), as: old(pt.FirstReview(approve)), by: "anna", refused: procedure.ReasonPatchRevisionStale},
		{name: "in the update cycle", given: history(registered), when: after, by: "anna", refused: procedure.ReasonNotEntered},
		{name: "X5 by the author", given: history(declared, own), when: pt.FirstReview(approve), by: "anna", refused: procedure.ReasonAuthorIsReviewer},
		{name: "X5 by the author who had it registered", given: history(declared, forAnna), when: pt.FirstReview(approve), by: "anna", refused: procedure.ReasonAuthorIsReviewer},
		{name: "X5 by who registered it for another", given: history(declared, forOther), when: pt.FirstReview(approve), by: "anna", refused: procedure.ReasonAuthorIsReviewer},
		{name: "X5 with the author's other key", given: history(declared, own), when: pt.FirstReview(approve), by: "anna2", refused: procedure.ReasonAuthorIsReviewer},
		{name: "a second first review", given: history(pt.Story(pt.Reviewed)), when: pt.FirstReview(approve), by: "bert", refused: procedure.ReasonReviewExists},
		{name: "X8 by a tester comes first", given: history(pt.Story(pt.OnTestServer), pt.Does("vera", pt.Test(pass))), when: pt.FirstReview(approve), by: "vera", refused: procedure.ReasonReviewerAndTester},
	})
}

func TestTransfer(t *testing.T) {
	t.Parallel()
	transfer := &emergencyv1.TransferRequest{}
	pushed := func(tree string) []pt.Option {
		return []pt.Option{pt.Facts(procedure.Facts{Pushed: &procedure.PushFacts{Commit: "beef01", Tree: tree, Ref: "refs/heads/e"}})}
	}
	run(t, []row{
		{name: "by the first reviewer", given: history(pt.Story(pt.Reviewed)), when: transfer, by: "anna", then: events("PatchTransferred")},
		{name: "by the service, in the reviewer's name", given: history(pt.Story(pt.Reviewed)), when: transfer, by: "reactor:anna", then: events("PatchTransferred")},
		{name: "without a review", given: history(pt.Story(pt.Registered)), when: transfer, by: "anna", refused: procedure.ReasonFirstReviewMissing},
		{name: "after changes were asked for", given: history(pt.Story(pt.Registered), pt.Does("anna", pt.FirstReview(changes))), when: transfer, by: "anna", refused: procedure.ReasonFirstReviewMissing},
		{name: "by another assessor", given: history(pt.Story(pt.Reviewed)), when: transfer, by: "bert", refused: procedure.ReasonNotFirstReviewer},
		{name: "another tree in the repository", given: history(pt.Story(pt.Reviewed)), when: transfer, by: "anna", with: pushed(pt.Tree("x")), refused: procedure.ReasonRepoTreeMismatch},
		{name: "nothing in the repository", given: history(pt.Story(pt.Reviewed)), when: transfer, by: "anna", with: []pt.Option{pt.Facts(procedure.Facts{})}, refused: procedure.ReasonRepoTreeMismatch},
		{name: "vetoed", given: history(pt.Story(pt.Reviewed), pt.Does("bert", pt.Veto())), when: transfer, by: "anna", refused: procedure.ReasonVetoOpen},
		{name: "a replaced revision", given: history(pt.Story(pt.Reviewed), pt.Does("dora", pt.Replace("P1r1", 2))), as: old(transfer), by: "anna", refused: procedure.ReasonPatchRevisionStale},
	})
}

func TestConfirmTestServer(t *testing.T) {
	t.Parallel()
	confirm := func(change func(*emergencyv1.ConfirmTestServerRequest)) func(*procedure.State) procedure.Command {
		return func(s *procedure.State) procedure.Command { return with(pt.ConfirmServer(s), change) }
	}
	same := confirm(func(*emergencyv1.ConfirmTestServerRequest) {})
	agent := "test:" + pt.TestServer
	run(t, []row{
		{name: "by its agent", given: history(pt.Story(pt.Transferred)), as: same, by: agent, then: events("TestServerConfirmed")},
		{name: "by a person", given: history(pt.Story(pt.Transferred)), as: same, by: "theo", refused: procedure.ReasonRole},
		{name: "by the host's agent", given: history(pt.Story(pt.Transferred)), as: same, by: "host:" + pt.Host, refused: procedure.ReasonRole},
		{name: "by another test server's agent", given: history(pt.Story(pt.Transferred)), as: same, by: "test:elsewhere", refused: procedure.ReasonRole},
		{name: "of another test server", given: history(pt.Story(pt.Transferred)), as: confirm(func(c *emergencyv1.ConfirmTestServerRequest) { c.Environment = "elsewhere" }), by: agent, refused: procedure.ReasonRole},
		{name: "not transferred", given: history(pt.Story(pt.Reviewed)), as: same, by: agent, refused: procedure.ReasonNotTransferred},
		{name: "another tree", given: history(pt.Story(pt.Transferred)), as: confirm(func(c *emergencyv1.ConfirmTestServerRequest) { c.Tree = pt.BaseTree() }), by: agent, refused: procedure.ReasonTestTreeMismatch},
		{name: "a replaced revision", given: history(pt.Story(pt.Transferred), pt.Does("dora", pt.Replace("P1r1", 2))), as: func(s *procedure.State) procedure.Command { return old(pt.ConfirmServer(s))(s) }, by: agent, refused: procedure.ReasonPatchRevisionStale},
	})
}

func TestReportTest(t *testing.T) {
	t.Parallel()
	server := pt.Story(pt.OnTestServer)
	report := func(change func(*emergencyv1.ReportTestRequest)) procedure.Command {
		return with(pt.Test(pass), change)
	}
	testers := func(n int) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			if got := len(current(t, w).Tests); got != n {
				t.Errorf("%d tests count, want %d", got, n)
			}
		}
	}
	// vera writes a patch herself, all the way to the test server
	byVera := history(pt.Story(pt.Declared), pt.Does("vera", pt.Register(1)), pt.From(pt.Registered, pt.OnTestServer))
	run(t, []row{
		{name: "pass", given: history(server), when: pt.Test(pass), by: "theo", then: events("TestReported"), check: func(t *testing.T, w *pt.World) {
			if x := current(t, w).Tests[0]; x.By != "theo" || !x.Pass || x.Note != "bug-1500#7" {
				t.Errorf("%+v", x)
			}
		}},
		{name: "fail", given: history(server), when: pt.Test(fail), by: "theo", then: events("TestReported")},
		{name: "without a step-up, but signed", given: history(server), when: pt.Test(pass), by: "reactor:theo", refused: procedure.ReasonSignature},
		{name: "by an assessor", given: history(server), when: pt.Test(pass), by: "anna", refused: procedure.ReasonRole},
		{name: "no result", given: history(server), when: report(func(c *emergencyv1.ReportTestRequest) { c.Result = 0 }), by: "theo", refused: procedure.ReasonField},
		{name: "no steps", given: history(server), when: report(func(c *emergencyv1.ReportTestRequest) { c.Steps = "" }), by: "theo", refused: procedure.ReasonField},
		{name: "in the update cycle", given: history(server), when: report(func(c *emergencyv1.ReportTestRequest) { c.Phase = emergencyv1.Phase_PHASE_AFTER }), by: "theo", refused: procedure.ReasonNotEntered},
		{name: "no test server", given: history(pt.Story(pt.Transferred)), when: pt.Test(pass), by: "theo", refused: procedure.ReasonTestServerNotReady},
		{name: "another tree", given: history(server), when: report(func(c *emergencyv1.ReportTestRequest) { c.EnvironmentTree = pt.BaseTree() }), by: "theo", refused: procedure.ReasonTestTreeMismatch},
		{name: "the reviewed tree", given: history(server), when: report(func(c *emergencyv1.ReportTestRequest) { c.EnvironmentTree = pt.ResultTree(1) }), by: "theo", then: events("TestReported")},
		{name: "what the test server holds now", given: history(server), when: pt.Test(pass), by: "theo", then: events("TestReported"),
			with: []pt.Option{pt.Facts(procedure.Facts{BugNote: "n", Agent: &procedure.AgentFacts{Host: "test-1", HostTree: pt.ResultTree(1)}})}},
		{name: "changed since it confirmed", given: history(server), when: pt.Test(pass), by: "theo", refused: procedure.ReasonTestTreeMismatch,
			with: []pt.Option{pt.Facts(procedure.Facts{BugNote: "n", Agent: &procedure.AgentFacts{Host: "test-1", HostTree: pt.BaseTree()}})}},
		{name: "no note", given: history(server), when: report(func(c *emergencyv1.ReportTestRequest) { c.BugNote = "" }), by: "theo", refused: procedure.ReasonBugNoteMissing},
		{name: "a note asked for that nobody wrote", given: history(server), when: pt.Test(pass), by: "theo", with: []pt.Option{pt.Facts(procedure.Facts{})}, refused: procedure.ReasonBugNoteMissing},
		{name: "a note of one's own", given: history(server), when: report(func(c *emergencyv1.ReportTestRequest) { c.BugNote = "bug-1500#9" }), by: "theo", with: []pt.Option{pt.Facts(procedure.Facts{})}, then: events("TestReported")},
		{name: "X6 by the author", given: byVera, when: pt.Test(pass), by: "vera", refused: procedure.ReasonAuthorIsTester},
		{name: "X8 by the first reviewer", given: history(pt.Story(pt.Declared), pt.Does("dora", pt.Register(1)), pt.Does("vera", pt.FirstReview(approve)), pt.Does("vera", &emergencyv1.TransferRequest{}), pt.From(pt.Transferred, pt.OnTestServer)), when: pt.Test(pass), by: "vera", refused: procedure.ReasonReviewerAndTester},
		{name: "X8 by the second reviewer", given: history(pt.Story(pt.Tested), pt.Does("vera", pt.SecondReview(approve))), when: pt.Test(pass), by: "vera", refused: procedure.ReasonReviewerAndTester},
		{name: "X9 again replaces", given: history(server, pt.Does("theo", pt.Test(pass))), when: pt.Test(pass), by: "theo", then: events("TestReported"), check: testers(1)},
		{name: "X9 again by the other key replaces", given: history(server, pt.Does("theo", pt.Test(pass))), when: pt.Test(fail), by: "theo2", then: events("TestReported"), check: testers(1)},
		{name: "by another adds", given: history(server, pt.Does("theo", pt.Test(pass))), when: pt.Test(pass), by: "tina", then: events("TestReported"), check: testers(2)},
		{name: "a replaced revision", given: history(server, pt.Does("dora", pt.Replace("P1r1", 2))), as: old(pt.Test(pass)), by: "theo", refused: procedure.ReasonPatchRevisionStale},
	})
}

func TestSecondReview(t *testing.T) {
	t.Parallel()
	server, tested := pt.Story(pt.OnTestServer), pt.Story(pt.Tested)
	passes := func(who ...string) pt.Step {
		return func(w *pt.World) {
			for _, p := range who {
				w.Do(p, pt.Test(pass))
			}
		}
	}
	fails := func(who string) pt.Step { return pt.Does(who, pt.Test(fail)) }
	run(t, []row{
		{name: "approve", given: history(tested), when: pt.SecondReview(approve), by: "bert", then: events("SecondReviewRecorded")},
		{name: "veto", given: history(tested), when: pt.SecondReview(veto), by: "bert", then: events("SecondReviewRecorded", "VetoRaised")},
		{name: "no first review", given: history(pt.Story(pt.Registered)), when: pt.SecondReview(approve), by: "bert", refused: procedure.ReasonFirstReviewMissing},
		{name: "no first review comes before author", given: history(pt.Story(pt.Declared), pt.Does("bert", pt.Register(1))), when: pt.SecondReview(approve), by: "bert", refused: procedure.ReasonFirstReviewMissing},
		{name: "X5 by the author", given: history(pt.Story(pt.Declared), pt.Does("bert", pt.Register(1)), pt.From(pt.Registered, pt.Tested)), when: pt.SecondReview(approve), by: "bert", refused: procedure.ReasonAuthorIsReviewer},
		{name: "X7 by the first reviewer", given: history(tested), when: pt.SecondReview(approve), by: "anna", refused: procedure.ReasonSamePerson},
		{name: "X7 with the first reviewer's other key", given: history(tested), when: pt.SecondReview(approve), by: "anna2", refused: procedure.ReasonSamePerson},
		{name: "X8 by a tester", given: history(server, passes("vera", "tina")), when: pt.SecondReview(approve), by: "vera", refused: procedure.ReasonReviewerAndTester},
		{name: "a second second review", given: history(pt.Story(pt.ReviewedTwice)), when: pt.SecondReview(approve), by: "beate", refused: procedure.ReasonReviewExists},
		{name: "no test", given: history(server), when: pt.SecondReview(approve), by: "bert", refused: procedure.ReasonTestQuorum},
		{name: "one test", given: history(server, passes("theo")), when: pt.SecondReview(approve), by: "bert", refused: procedure.ReasonTestQuorum},
		{name: "one person's two tests", given: history(server, passes("theo", "theo2")), when: pt.SecondReview(approve), by: "bert", refused: procedure.ReasonTestQuorum},
		{name: "one test and a waiver", given: history(server, passes("theo"), pt.Does("albert", pt.Waive(tests))), when: pt.SecondReview(approve), by: "bert", then: events("SecondReviewRecorded")},
		{name: "a waiver, and the one test turned to fail", given: history(server, passes("theo"), pt.Does("albert", pt.Waive(tests)), fails("theo")), when: pt.SecondReview(approve), by: "bert", refused: procedure.ReasonTestFailed},
		{name: "two passed and one failed", given: history(tested, fails("tom")), when: pt.SecondReview(approve), by: "bert", refused: procedure.ReasonTestFailed},
		{name: "the failed one passes now", given: history(tested, fails("tom"), passes("tom")), when: pt.SecondReview(approve), by: "bert", then: events("SecondReviewRecorded")},
		{name: "tests come before the veto", given: history(server, pt.Does("beate", pt.Veto())), when: pt.SecondReview(approve), by: "bert", refused: procedure.ReasonTestQuorum},
		{name: "vetoed", given: history(tested, pt.Does("beate", pt.Veto())), when: pt.SecondReview(approve), by: "bert", refused: procedure.ReasonVetoOpen},
		{name: "a replaced revision", given: history(tested, pt.Does("dora", pt.Replace("P1r1", 2))), as: old(pt.SecondReview(approve)), by: "bert", refused: procedure.ReasonPatchRevisionStale},
	})
}

func TestVeto(t *testing.T) {
	t.Parallel()
	registered := pt.Story(pt.Registered)
	raised := pt.Does("bert", pt.Veto())
	withdraw := &emergencyv1.WithdrawVetoRequest{Veto: "V1", Reason: "I misread the patch"}
	overrule := &emergencyv1.OverruleVetoRequest{Veto: "V1", Reason: "the hole it names was there before, and is smaller"}
	noVeto := with(withdraw, func(c *emergencyv1.WithdrawVetoRequest) { c.Veto = "V9" })
	run(t, []row{
		{name: "raised", given: history(registered), when: pt.Veto(), by: "bert", then: events("VetoRaised"), check: func(t *testing.T, w *pt.World) {
			if v := w.State.Vetoes[0]; v.AfterApply {
				t.Errorf("%+v", v)
			}
		}},
		{name: "raised without a step-up", given: history(registered), when: pt.Veto(), by: "bert", then: events("VetoRaised")},
		{name: "raised after the apply started", given: history(pt.Story(pt.Applying)), when: pt.Veto(), by: "beate", then: events("VetoRaised"), check: func(t *testing.T, w *pt.World) {
			if v := w.State.Vetoes[0]; !v.AfterApply {
				t.Errorf("%+v", v)
			}
			if o, ok := debt(w.State, "POST_APPLY_VETO"); !ok || !o.Open() || o.Owner != "carla" {
				t.Errorf("%+v", o)
			}
		}},
		{name: "X5 by the author", given: history(pt.Story(pt.Declared), pt.Does("bert", pt.Register(1))), when: pt.Veto(), by: "bert", refused: procedure.ReasonAuthorIsReviewer},
		{name: "by a tester", given: history(registered), when: pt.Veto(), by: "theo", refused: procedure.ReasonRole},
		{name: "twice by one person", given: history(registered, raised), when: pt.Veto(), by: "bert", refused: procedure.ReasonVetoExists},
		{name: "by two persons", given: history(registered, raised), when: pt.Veto(), by: "anna", then: events("VetoRaised")},
		{name: "again after it was withdrawn", given: history(registered, raised, pt.Does("bert", withdraw)), when: pt.Veto(), by: "bert", then: events("VetoRaised")},
		{name: "of a replaced revision", given: history(registered, pt.Does("dora", pt.Replace("P1r1", 2))), as: old(pt.Veto()), by: "bert", refused: procedure.ReasonPatchRevisionStale},
		{name: "withdrawn", given: history(registered, raised), when: withdraw, by: "bert", then: events("VetoWithdrawn"), check: func(t *testing.T, w *pt.World) {
			if len(w.State.OpenVetoes("P1r1")) > 0 {
				t.Error("still open")
			}
		}},
		{name: "withdrawn by another", given: history(registered, raised), when: withdraw, by: "anna", refused: procedure.ReasonNotVetoOwner},
		{name: "withdrawn twice", given: history(registered, raised, pt.Does("bert", withdraw)), when: withdraw, by: "bert", refused: procedure.ReasonVetoClosed},
		{name: "withdrawn, not there", given: history(registered), when: noVeto, by: "bert", refused: procedure.ReasonVetoUnknown},
		{name: "overruled", given: history(registered, raised), when: overrule, by: "albert", then: events("VetoOverruled"), check: wantDeviation(emergencyv1.Deviation_DEVIATION_VETO_OVERRULED)},
		{name: "overruled by another assessor", given: history(registered, raised), when: overrule, by: "anna", refused: procedure.ReasonRole},
		{name: "overruled by its owner", given: history(registered, pt.Does("albert", pt.Veto())), when: overrule, by: "albert", refused: procedure.ReasonSeparationOfDuty},
		{name: "overruled by the author", given: history(pt.Story(pt.Declared), pt.Does("albert", pt.Register(1)), raised), when: overrule, by: "albert", refused: procedure.ReasonSeparationOfDuty},
		{name: "overruled by who registered it for another", given: history(pt.Story(pt.Declared), pt.Does("albert", with(pt.Register(1), func(c *emergencyv1.RegisterPatchRequest) { c.Author = "dora" })), raised), when: overrule, by: "albert", refused: procedure.ReasonSeparationOfDuty},
		{name: "overruled after it was withdrawn", given: history(registered, raised, pt.Does("bert", withdraw)), when: overrule, by: "albert", refused: procedure.ReasonVetoClosed},
		{name: "overruled, not there", given: history(registered), when: overrule, by: "albert", refused: procedure.ReasonVetoUnknown},
		{name: "overruled in 39 characters", given: history(registered, raised), when: with(overrule, func(c *emergencyv1.OverruleVetoRequest) { c.Reason = "thirty-nine characters are not enough.." }), by: "albert", refused: procedure.ReasonField},
	})
}

func TestForward(t *testing.T) {
	t.Parallel()
	forward := &emergencyv1.ForwardRequest{RollbackPlan: "take it back"}
	twice := pt.Story(pt.ReviewedTwice)
	to := func(who string) procedure.Command {
		return with(forward, func(c *emergencyv1.ForwardRequest) { c.To = who })
	}
	run(t, []row{
		{name: "to the executor", given: history(twice), when: forward, by: "bert", then: events("PatchForwarded"), check: func(t *testing.T, w *pt.World) {
			if f := current(t, w).Forward; f.To != "carla" || w.Sealed == nil {
				t.Errorf("%+v", f)
			}
		}},
		{name: "to a named admin", given: history(twice), when: to("clara"), by: "bert", then: events("PatchForwarded")},
		{name: "vetoed", given: history(twice, pt.Does("beate", pt.Veto())), when: forward, by: "bert", refused: procedure.ReasonVetoOpen},
		{name: "no second review", given: history(pt.Story(pt.Tested)), when: forward, by: "bert", refused: procedure.ReasonSecondReviewMiss},
		{name: "no review at all", given: history(pt.Story(pt.Registered)), when: forward, by: "bert", refused: procedure.ReasonSecondReviewMiss},
		{name: "second review asked for changes", given: history(pt.Story(pt.Tested), pt.Does("bert", pt.SecondReview(changes))), when: forward, by: "bert", refused: procedure.ReasonSecondReviewMiss},
		{name: "by the first reviewer", given: history(twice), when: forward, by: "anna", refused: procedure.ReasonNotSecondReviewer},
		{name: "no plan to go back", given: history(twice), when: &emergencyv1.ForwardRequest{}, by: "bert", refused: procedure.ReasonRollbackPlan},
		{name: "to an assessor", given: history(twice), when: to("beate"), by: "bert", refused: procedure.ReasonRecipientRole},
		{name: "to nobody, the executor's slot being open", given: history(pt.Story(pt.Called), pt.From(pt.OnStandby, pt.ReviewedTwice)), when: forward, by: "bert", refused: procedure.ReasonRecipientRole},
		{name: "a replaced revision", given: history(twice, pt.Does("dora", pt.Replace("P1r1", 2))), as: old(forward), by: "bert", refused: procedure.ReasonPatchRevisionStale},
	})
}

// TestHumans: one human with two keys counts once, wherever two are needed (2.3).
func TestHumans(t *testing.T) {
	t.Parallel()
	run(t, []row{
		{name: "author and reviewer", given: history(pt.Story(pt.Declared), pt.Does("anna2", pt.Register(1))), when: pt.FirstReview(approve), by: "anna", refused: procedure.ReasonAuthorIsReviewer},
		{name: "two reviewers", given: history(pt.Story(pt.Registered), pt.Does("anna2", pt.FirstReview(approve)), pt.Does("anna", &emergencyv1.TransferRequest{}), pt.From(pt.Transferred, pt.Tested)), when: pt.SecondReview(approve), by: "anna", refused: procedure.ReasonSamePerson},
		{name: "two testers", given: history(pt.Story(pt.OnTestServer), pt.Does("theo", pt.Test(pass)), pt.Does("theo2", pt.Test(pass))), when: pt.SecondReview(approve), by: "bert", refused: procedure.ReasonTestQuorum},
		{name: "executor and observer", given: history(pt.Story(pt.DryRun), pt.Does("carla2", pt.Observe())), when: &emergencyv1.StartApplyRequest{}, by: "carla", refused: procedure.ReasonObserverMissing},
		{name: "executor and named observer", given: history(pt.Story(pt.DryRun), pt.Does("carla2", pt.Observe())), when: &emergencyv1.StartApplyRequest{Observer: "carla"}, by: "carla2", refused: procedure.ReasonSamePerson},
		{name: "executor and check afterwards", given: history(pt.Story(pt.Verified)), when: pt.CheckAfter(), by: "carla2", refused: procedure.ReasonSamePerson},
		{name: "executor and observer of a roll-back", given: history(pt.Story(pt.Verified)), when: pt.RollBack("carla"), by: "carla2", refused: procedure.ReasonSamePerson},
		{name: "veto and overruling", given: history(pt.Story(pt.Registered), pt.Does("anna2", pt.Veto())), when: pt.Veto(), by: "anna", refused: procedure.ReasonVetoExists},
	})
}
