// SPDX-License-Identifier: Apache-2.0

package review_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/review"
	"cacert.org/emergency/services/review/tracker"
	"cacert.org/emergency/services/review/tracker/trackertest"
)

// tested brings a patch with a bug id to a test with an automatic note, and returns the note's id.
func (r *rig) tested(bug string) string {
	r.t.Helper()
	cmd := r.mend()
	cmd.BugId = bug
	r.do("dora", cmd)
	r.approved()
	r.wait("on the test server", onTestServer("P1r1"))
	r.do("theo", &emergencyv1.ReportTestRequest{Result: pass, Steps: "x", BugNote: "auto"})
	return r.revision("P1r1").Tests[0].Note
}

// TestDeadTrackerBlocksNothing goes through the steps while the tracker is in trouble; the notes come later, each once.
func TestDeadTrackerBlocksNothing(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]trackertest.Mode{
		"gone": trackertest.Gone, "broken": trackertest.Broken, "offline": trackertest.Offline, "slow": trackertest.Slow, "answers lost": trackertest.LoseAnswer,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := trackertest.Start(t)
			m.Set(mode)
			cfg := mantis(m)
			cfg.Timeout = 500 * time.Millisecond
			r := newRig(t, settings{tracker: cfg})
			note := r.tested("0001500")
			r.do("tina", &emergencyv1.ReportTestRequest{Result: pass, Steps: "x", BugNote: "auto"})
			r.do("bert", &emergencyv1.RecordSecondReviewRequest{Verdict: approve})
			r.do("bert", &emergencyv1.ForwardRequest{RollbackPlan: "back", To: "carla"})
			m.WaitFor(t, "requests in vain", func() bool { return m.Seen(mode) >= 6 })
			r.restart(true)
			m.Set(trackertest.Up)
			all := func() string {
				text := ""
				for _, n := range m.Notes(1500) {
					text += n.Text + "\n"
				}
				return text
			}
			m.WaitFor(t, "four notes", func() bool { return strings.Count(all(), "Note: ") == 4 })
			r.restart(true) // once more everything, and a further note behind it
			r.do("tom", &emergencyv1.ReportTestRequest{Result: pass, Steps: "x", BugNote: "auto"})
			m.WaitFor(t, "five notes", func() bool { return strings.Count(all(), "Note: ") == 5 })
			for _, test := range r.revision("P1r1").Tests {
				if strings.Count(all(), "Note: "+test.Note+"\n") != 1 {
					t.Errorf("the note of %s is not there once", test.By)
				}
			}
			if strings.Count(all(), note) != 1 || strings.Count(all(), "Note: ") != 5 {
				t.Errorf("notes:\n%s", all())
			}
		})
	}
}

func TestRepeatedTestHasOneNote(t *testing.T) {
	t.Parallel()
	m := trackertest.Start(t)
	r := newRig(t, settings{tracker: mantis(m)})
	r.tested("1500")
	cmd := r.prepare("tina", &emergencyv1.ReportTestRequest{Meta: &emergencyv1.CommandMeta{RequestId: "request-0005"}, Result: pass, Steps: "x", BugNote: "auto"})
	first, err := r.send("tina", cmd)
	r.must(err)
	again, err := r.send("tina", cmd)
	if err != nil || !again.GetRepeated() || again.GetRecordHash() != first.GetRecordHash() {
		t.Errorf("repeated: %v, %v", again, err)
	}
	// Two people may choose the same request id; their notes are two.
	r.do("tom", &emergencyv1.ReportTestRequest{Meta: &emergencyv1.CommandMeta{RequestId: "request-0005"}, Result: pass, Steps: "x", BugNote: "auto"})
	m.WaitFor(t, "the notes", func() bool { return len(m.Notes(1500)) == 4 })
	seen := map[string]bool{}
	for _, test := range r.revision("P1r1").Tests {
		seen[test.Note] = true
	}
	if len(seen) != 3 {
		t.Errorf("notes %v, want three", seen)
	}
	// A repeated command is answered also when the tracker has been taken out of the configuration.
	r.cfg.Tracker = tracker.Config{}
	r.restart(false)
	if again, err := r.send("tina", cmd); err != nil || !again.GetRepeated() {
		t.Errorf("repeated without a tracker: %v, %v", again, err)
	}
}

func TestNoteThatNobodyWouldWrite(t *testing.T) {
	t.Parallel()
	m := trackertest.Start(t)
	for name, c := range map[string]struct {
		tracker tracker.Config
		bug     string
	}{
		"no tracker":            {tracker.Config{}, "1500"},
		"no number for the bug": {mantis(m), "login-page"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, settings{tracker: c.tracker})
			cmd := r.mend()
			cmd.BugId = c.bug
			r.do("dora", cmd)
			auto := &emergencyv1.ReportTestRequest{Result: pass, Steps: "x", BugNote: "auto"}
			r.refused("theo", auto, procedure.ReasonTestServerNotReady) // the rules' own refusals come first
			r.approved()
			r.wait("on the test server", onTestServer("P1r1"))
			r.refused("theo", auto, procedure.ReasonBugNoteMissing)
			r.refused("theo", &emergencyv1.ReportTestRequest{Result: pass, Steps: "x"}, procedure.ReasonBugNoteMissing)
			r.refused("anna", auto, procedure.ReasonRole)
			r.do("theo", &emergencyv1.ReportTestRequest{Result: pass, Steps: "x", BugNote: "1500#c77"})
			if got := r.revision("P1r1").Tests[0].Note; got != "1500#c77" {
				t.Errorf("recorded note %q", got)
			}
		})
	}
}

func TestNotesThatAreNotOurs(t *testing.T) {
	t.Parallel()
	m := trackertest.Start(t)
	r := newRig(t, settings{tracker: mantis(m)})
	note := r.tested("1500")
	// A tester's own note, even one that is called like ours, is not written for the tester.
	r.do("tina", &emergencyv1.ReportTestRequest{Result: pass, Steps: "x", BugNote: "my-own-note"})
	r.do("tom", &emergencyv1.ReportTestRequest{Result: pass, Steps: "x", BugNote: note[:len(note)-1] + "x"})
	r.do("bert", &emergencyv1.RecordSecondReviewRequest{Verdict: approve})
	r.do("bert", &emergencyv1.ForwardRequest{RollbackPlan: "back", To: "carla"})
	m.WaitFor(t, "three notes", func() bool { return len(m.Notes(1500)) == 3 })
	for _, n := range m.Notes(1500) {
		if strings.Contains(n.Text, "my-own-note") || strings.Contains(n.Text, note[:len(note)-1]+"x") {
			t.Errorf("a note was written for a tester who had one: %s", n.Text)
		}
	}
}

func TestBugThatDoesNotExist(t *testing.T) {
	t.Parallel()
	m := trackertest.Start(t)
	r := newRig(t, settings{tracker: mantis(m)})
	if note := r.tested("4711"); !strings.HasPrefix(note, "epatch-"+r.incident+"-") {
		t.Errorf("note %q", note)
	}
	m.WaitFor(t, "two questions", func() bool { return m.Seen(trackertest.Up) == 2 }) // and both were given up
	if len(m.Notes(4711)) != 0 {
		t.Error("a note on a bug that does not exist")
	}
}

func TestDrillSaysSo(t *testing.T) {
	t.Parallel()
	m := trackertest.Start(t)
	r := newRig(t, settings{tracker: mantis(m), drill: true})
	r.tested("1500")
	m.WaitFor(t, "two notes", func() bool { return len(m.Notes(1500)) == 2 })
	for _, n := range m.Notes(1500) {
		if !strings.HasPrefix(n.Text, "Drill (no real emergency) x2026") {
			t.Errorf("note of a drill: %s", n.Text)
		}
	}
	if subject := r.bare("log", "-1", "--format=%s", r.ref("P1r1")); !strings.Contains(subject, "drill") {
		t.Errorf("commit of a drill: %s", subject)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	good := review.Config{Repository: "/srv/git/www.git", StateDir: "/var/lib/epatchd/review"}
	if err := good.Check(); err != nil {
		t.Errorf("a good one: %v", err)
	}
	for setting, change := range map[string]func(*review.Config){
		"repository":    func(c *review.Config) { c.Repository = "" },
		"state_dir":     func(c *review.Config) { c.StateDir = "" },
		"tracker.url":   func(c *review.Config) { c.Tracker.Token = "t0ken" },
		"tracker.token": func(c *review.Config) { c.Tracker.URL = "https://bugs.example.org" },
	} {
		c := good
		change(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), setting+":") {
			t.Errorf("%s: %v", setting, err)
		}
	}
	r := newRig(t, settings{})
	bad := r.cfg
	bad.Repository = "ext::sh -c date"
	if _, err := review.New(t.Context(), r.deps, bad); err == nil {
		t.Error("a remote helper was accepted")
	}
	lonely := r.deps
	lonely.Peers = nil
	if _, err := review.New(t.Context(), lonely, r.cfg); err == nil || errors.Is(err, t.Context().Err()) {
		t.Errorf("without the deployment service: %v", err)
	}
}
