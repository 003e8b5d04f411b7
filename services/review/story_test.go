// SPDX-License-Identifier: Apache-2.0

package review_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/review/tracker"
	"cacert.org/emergency/services/review/tracker/trackertest"
)

const (
	approve = emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE
	pass    = emergencyv1.TestResult_TEST_RESULT_PASS
	fail    = emergencyv1.TestResult_TEST_RESULT_FAIL
)

// transferred and onTestServer tell how far a revision is.
func transferred(id string) func(*procedure.State) bool {
	return func(s *procedure.State) bool { r, ok := s.Revision(id); return ok && r.Transfer != nil }
}

func onTestServer(id string) func(*procedure.State) bool {
	return func(s *procedure.State) bool { r, ok := s.Revision(id); return ok && r.TestServer != nil }
}

func mantis(m *trackertest.Mantis) tracker.Config {
	return tracker.Config{URL: m.URL, Token: trackertest.Token, Project: trackertest.Project}
}

// TestFromPatchToForward is steps 1.5 to 1.8 of strategy 1, as people and an agent meet them.
func TestFromPatchToForward(t *testing.T) {
	t.Parallel()
	for _, algo := range []gittree.Algo{gittree.SHA1, gittree.SHA256} {
		t.Run(string(algo), func(t *testing.T) {
			t.Parallel()
			m := trackertest.Start(t)
			r := newRig(t, settings{jetstream: true, tracker: mantis(m), algo: algo})
			patch := r.mend()
			r.do("dora", patch)
			r.do("anna", &emergencyv1.RecordFirstReviewRequest{Verdict: approve, Reason: "a reason that stays restricted"})
			r.wait("transferred", transferred("P1r1"))
			rev := r.revision("P1r1")
			checkCommit(t, r, rev)
			r.wait("on the test server", onTestServer("P1r1"))
			for _, tester := range []string{"theo", "tina"} {
				r.do(tester, &emergencyv1.ReportTestRequest{Result: pass, Steps: "steps that stay restricted", BugNote: "auto"})
			}
			r.do("bert", &emergencyv1.RecordSecondReviewRequest{Verdict: approve})
			r.do("bert", &emergencyv1.ForwardRequest{RollbackPlan: "a plan that stays restricted", To: "carla"})
			m.WaitFor(t, "four notes", func() bool { return len(m.Notes(1500)) == 4 })
			checkNotes(t, r, m)
			checkReading(t, r, patch.GetBytes())
			if slices.ContainsFunc(r.events(), func(s string) bool { return strings.HasSuffix(s, "CommandRefused") }) {
				t.Errorf("something was refused on the way: %q", r.events())
			}
		})
	}
}

// checkCommit holds the commit in the bare repository against what was reviewed.
func checkCommit(t *testing.T, r *rig, rev *procedure.Revision) {
	t.Helper()
	commit := r.bare("rev-parse", r.ref("P1r1"))
	text := r.bare("log", "-1", "--format=%T|%P|%an|%cn|%cI|%B", commit)
	_, tree, _ := strings.Cut(rev.ResultTree, ":")
	for _, want := range []string{tree + "|" + r.base + "|dora|anna|2026-11-24T20:00:00", r.incident, "P1r1", rev.Binding, "bug-1500"} {
		if !strings.Contains(text, want) {
			t.Errorf("the commit does not say %q:\n%s", want, text)
		}
	}
	if rev.Transfer.Commit != commit || rev.Transfer.Tree != rev.ResultTree || rev.Transfer.Ref != r.ref("P1r1") || rev.Transfer.By != "anna" {
		t.Errorf("recorded transfer %+v, the repository has %s", rev.Transfer, commit)
	}
	if now := r.bare("rev-parse", "release"); now != r.base {
		t.Errorf("the release branch moved to %s", now)
	}
}

// checkNotes holds the notes against what was recorded, and against what must never be in them.
func checkNotes(t *testing.T, r *rig, m *trackertest.Mantis) {
	t.Helper()
	all := ""
	for _, n := range m.Notes(1500) {
		all += n.Text + "\n\n"
		if n.Private {
			t.Error("a private note")
		}
	}
	rev := r.revision("P1r1")
	for _, test := range rev.Tests {
		if strings.Count(all, "Note: "+test.Note) != 1 || !strings.HasPrefix(test.Note, "epatch-"+r.incident+"-") {
			t.Errorf("the recorded note %q is not there once", test.Note)
		}
	}
	for _, want := range []string{rev.Transfer.Commit, rev.Binding, rev.ResultTree, "a test passed", "forwarded to the critical team"} {
		if !strings.Contains(all, want) {
			t.Errorf("no note says %q", want)
		}
	}
	for _, never := range []string{"restricted", "dora", "anna", "bert", "theo", "tina", "carla", "login.php", "strangers"} {
		if strings.Contains(all, never) {
			t.Errorf("a note says %q", never)
		}
	}
}

// checkReading lets those who take part read the patch, and nobody else.
func checkReading(t *testing.T, r *rig, patch []byte) {
	t.Helper()
	for _, who := range []string{"dora", "emil", "anna", "albert", "theo", "carla", "clara", "casper", "test:" + proceduretest.TestServer, "host:" + proceduretest.Host} {
		p, err := r.read(who, "P1r1")
		if err != nil || !bytes.Equal(p.GetBytes(), patch) || !bytes.Equal(p.GetDiff(), patch) || p.GetSha256() != r.revision("P1r1").Artefact.GetSha256() {
			t.Errorf("read by %s: %v, %v", who, p, err)
		}
	}
	for who, reason := range map[string]procedure.Reason{
		"mia": procedure.ReasonRole, "sven": procedure.ReasonRole, "bea": procedure.ReasonRole, "arno": procedure.ReasonRole, "stranger": procedure.ReasonKeyUnknown,
	} {
		p, err := r.read(who, "P1r1")
		r.isRefusal("read by "+who, p, err, reason)
	}
	p, err := r.read("anna", "P1r9")
	r.isRefusal("read of no revision", p, err, procedure.ReasonPatch, "P1r9")
}
