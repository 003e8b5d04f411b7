// SPDX-License-Identifier: Apache-2.0

package dossier_test

import (
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/dossier"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const about2 = emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2

// walked makes the dossier at every record of a world's history and checks that nothing is taken back.
func walked(t *testing.T, w *pt.World) *dossier.Dossier {
	t.Helper()
	var last *dossier.Dossier
	for n, e := range entries(w) {
		in := dossier.Input{Entries: entries(w), Book: w.Book, Position: e.Record.GetFirstPosition()}
		d := made(t, in)
		check(t, d)
		if n > 0 {
			stays(t, last, d)
		}
		last = d
	}
	return last
}

// stepOf finds a line of the table of steps.
func stepOf(t *testing.T, d *dossier.Dossier, number, what string) dossier.Step {
	t.Helper()
	for _, s := range d.Steps {
		if s.Number == number && s.What == what {
			return s
		}
	}
	t.Fatalf("no step %s, %s", number, what)
	return dossier.Step{}
}

func TestStrategy2(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Blessed), pt.Dispute(about2, pt.Obeyed), func(w *pt.World) { w.Sync() }).World()
	d := walked(t, w)
	says(t, pointOf(t, d, "D1", "Escalation"), "anna (software assessor): Escalated from strategy 1 to strategy 2; ground: team unreachable, team testing, evidence at ")
	says(t, pointOf(t, d, "D1", "Deployment"), "carla deploys P1r1 on www1, without observer; deviation: no observer")
	says(t, pointOf(t, d, "Q1", "Who was called, and who came"), "Team testing: 60 pages in 13 rounds over mail, irc, sms, 0 reported as failed; taken by: nobody")
	says(t, pointOf(t, d, "Q3", "Deployment"), "author anna, executor carla, observer nobody: different persons.")
	says(t, pointOf(t, d, "Q3", "Reviews and tests"), "first reviewer after deployment bert", "second reviewer after deployment beate: different persons.")
	says(t, pointOf(t, d, "Q3", "Deviations from dual control"), "deviation review skipped in: P1r1 forwarded to carla", "deviation no observer in: carla deploys")
	says(t, pointOf(t, d, "D2", "Reasons given for the deviations"), "The documentation of strategy 2 gives for no observer at ")
	says(t, d.Proceedings, "Dispute a20261124.1 filed by carla: emergency issue handling under option 2", "agnes declines to arbitrate", "Ruling R1 of a20261124.1 delivered by arno", "Direction D1", "casper confirms that direction D1 was carried out")
	for _, x := range [][2]string{{"2", "escalated"}, {"2.2", "forwarded"}, {"2.3", "deploy verified"}, {"2.4", "documented"}, {"2.4", "dispute filed"}, {"2.5", "review ended"}, {"2.6", "ruling"}} {
		if s := stepOf(t, d, x[0], x[1]); len(s.Positions) != 1 || s.FirstAt == nil {
			t.Errorf("step %s, %s: %+v", x[0], x[1], s)
		}
	}
	if s := stepOf(t, d, "2.4", "dispute filed"); s.State != "met" || s.Target == nil {
		t.Errorf("the dispute: %+v", s)
	}
	if s := stepOf(t, d, "1.8", "forwarded"); len(s.Positions) != 0 {
		t.Errorf("what was done under strategy 2 counts for strategy 1: %+v", s)
	}
}

func TestStrategy3(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Sealed), func(w *pt.World) { w.Sync() }).World()
	d := walked(t, w)
	says(t, pointOf(t, d, "Q3", "Joint declaration"), "critical admin carla, software assessor anna: different persons.")
	says(t, pointOf(t, d, "Q3", "Remote access"), "grant G1; subject emil, permitted by clara, named watcher carl: different persons.", "grant G1; subject emil, granted by carla: different persons.", "watch of G1 armed; subject emil, watcher carl: different persons.")
	says(t, pointOf(t, d, "Q3", "Watch"), "The session of G1 is frozen", "of the output shown to the watcher")
	says(t, pointOf(t, d, "Q5", "Role assumed and given back"), "carla acts as access engineer for G1; deviation: role assumption", "carla no longer acts in the assumed role for G1")
	says(t, pointOf(t, d, "Q5", "Times between them"), "The credential of G1 was used ", " after the grant.", "The session of G1 lasted ", "The access of G1 was disabled ", "The credential of G1 was proven unusable ", "The role was assumed for ")
	says(t, pointOf(t, d, "Q2", "What a session changed"), "The session of G1 changed ", "The session of G1 left ", "explained: L1")
	for _, x := range [][2]string{{"3.2", "jointly declared"}, {"3.3", "access granted"}, {"3.4", "connection open"}, {"3.6", "sealed"}} {
		if s := stepOf(t, d, x[0], x[1]); len(s.Positions) == 0 {
			t.Errorf("step %s, %s: %+v", x[0], x[1], s)
		}
	}
	if text := d.Markdown(nil); strings.Contains(text, "emil@") || strings.Contains(text, "strangers") {
		t.Error("a restricted value is shown")
	}
}

// The public text of a draft knows the facts of its strategy, and the draft becomes a documentation.
func TestDraftsOfStrategies2And3(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Healthy2)).World()
	draft, err := dossier.Draft(dossier.Input{Entries: entries(w)}, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Why strategy 2:", "escalated from strategy 1; ground: team unreachable, team testing", "deploy started (step 2.3)", ", no observer:\n", "the dispute of strategy 2, owed by"} {
		if !strings.Contains(draft, want) {
			t.Errorf("%q is not in\n%s", want, draft)
		}
	}
	r, err := dossier.ParseDraft(filled(draft))
	if err != nil {
		t.Fatal(err)
	}
	w.Do("carla", &emergencyv1.DocumentRequest{Strategy: r.Strategy, TimelineConfirmed: true, Reasons: r.Reasons, Text: r.Text})
	w = pt.Given(t, pt.Story(pt.Sealed)).World()
	if draft, err = dossier.Draft(dossier.Input{Entries: entries(w)}, 3); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Why strategy 3:", "connection open (step 3.4)", "What the session changed, and what it left:", "G1: left on the host: ", ", role assumption:\n"} {
		if !strings.Contains(draft, want) {
			t.Errorf("%q is not in\n%s", want, draft)
		}
	}
	if r, err = dossier.ParseDraft(filled(draft)); err != nil {
		t.Fatal(err)
	}
	w.Do("carla", &emergencyv1.DocumentRequest{Strategy: r.Strategy, TimelineConfirmed: true, Reasons: r.Reasons, Text: r.Text})
}

// Strategies, disputes and rulings of a period.
func TestBoardOfStrategies(t *testing.T) {
	t.Parallel()
	from, until := november()
	w := pt.Given(t, pt.Story(pt.Blessed), pt.Dispute(about2, pt.Reopened), func(w *pt.World) { w.Sync() }).World()
	s, err := dossier.Board(from, until, until.Add(time.Hour), []dossier.Input{{Entries: entries(w)}})
	if err != nil {
		t.Fatal(err)
	}
	u := s.Real.Incidents[0]
	if s.Real.By != [3]int{1, 1, 0} || len(u.Disputes) != 2 || len(u.Rulings) != 2 || u.Rulings[0] != "R1 in a20261124.1" || s.Real.Disputes != 2 {
		t.Errorf("%+v", s.Real)
	}
	if text := s.Markdown(); !strings.Contains(text, "Disputes filed: 2; rulings: 2.") || tooLong(text) != "" {
		t.Errorf("%s", text)
	}
}
