// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func optionsOf(w *pt.World, who string) []procedure.Option {
	return procedure.Options(w.State, w.Env(who, ""))
}

// TestOptionsFollowTheStory: at each milestone, whoever acts next in the story is offered the command that comes next, as
// the next step; and a member who holds no role is offered nothing.
func TestOptionsFollowTheStory(t *testing.T) {
	t.Parallel()
	for milestone, want := range map[pt.Milestone][]struct{ who, command string }{
		pt.Declared:      {{"carla", "CallOut"}, {"anna", "CallOut"}},
		pt.Called:        {{"carla", "Respond"}, {"theo", "Respond"}},
		pt.Accepted:      {{"carla", "CheckIn"}, {"dora", "RegisterPatch"}},
		pt.OnStandby:     {{"dora", "RegisterPatch"}},
		pt.Registered:    {{"anna", "RecordFirstReview"}},
		pt.Reviewed:      {{"anna", "Transfer"}},
		pt.OnTestServer:  {{"theo", "ReportTest"}, {"tina", "ReportTest"}},
		pt.Tested:        {{"bert", "RecordSecondReview"}},
		pt.ReviewedTwice: {{"bert", "Forward"}},
		pt.Observed:      {{"carla", "StartApply"}},
		pt.Forwarded:     {{"carl", "ConfirmObserver"}},
		pt.Verified:      {{"carla", "RecordHealth"}, {"clara", "RecordLeadDecision"}, {"bea", "RecordBoardSummary"}},
		pt.Settled:       {{"carla", "Close"}},
	} {
		t.Run(string(milestone), func(t *testing.T) {
			t.Parallel()
			w := given(t, pt.Story(milestone)).World()
			for _, x := range want {
				i := slices.IndexFunc(optionsOf(w, x.who), func(o procedure.Option) bool { return o.Command == x.command && o.Refusal == nil && o.Next })
				if i < 0 {
					t.Errorf("%s is not next offered %s: %s", x.who, x.command, offered(optionsOf(w, x.who)))
				}
			}
			for _, o := range optionsOf(w, "mia") {
				if filing := o.Command == "FileDispute" && o.Subject == ""; o.Refusal == nil && (!filing || o.Next) { // anyone may file (DRP 1.1)
					t.Errorf("a member is offered %s %s, next %t", o.Command, o.Subject, o.Next)
				}
			}
		})
	}
}

func offered(list []procedure.Option) string {
	s := ""
	for _, o := range list {
		if o.Refusal == nil {
			s += fmt.Sprintf("%s %s (next %t); ", o.Command, o.Subject, o.Next)
		}
	}
	return s
}

// TestOptionsAgreeWithDecide: what Options refuses, Decide refuses for the same reason, and what it offers is accepted, or
// refused only for what a person has yet to say. Asked at every milestone for everybody.
func TestOptionsAgreeWithDecide(t *testing.T) {
	t.Parallel()
	for _, m := range slices.Concat(pt.Milestones(), pt.Milestones2()) {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			w := given(t, pt.Story(m)).World()
			before := pt.Fingerprint(w.State)
			for _, p := range pt.People() {
				if p.Name == "mia" || len(p.Roles) == 0 {
					continue
				}
				for _, o := range optionsOf(w, p.Name) {
					checkOption(t, w, p.Name, o)
				}
			}
			if pt.Fingerprint(w.State) != before {
				t.Error("asking changed the state")
			}
		})
	}
}

func checkOption(t *testing.T, w *pt.World, who string, o procedure.Option) {
	t.Helper()
	if o.Title == "" || len(o.Who) == 0 || o.Next && o.Refusal != nil {
		t.Errorf("%s: option %+v", who, o)
	}
	if o.Refusal != nil {
		pt.CheckRefusal(t, o.Refusal)
	}
	cmd := commandFor(w.State, o)
	if cmd == nil {
		return
	}
	out := w.Decide(who, w.Prepare(who, cmd))
	switch {
	case out.Err != nil:
		t.Errorf("%s by %s: %v", o.Command, who, out.Err)
	case (out.Refusal == nil) != (o.Refusal == nil):
		t.Errorf("%s %s by %s: Options says %v, Decide says %v", o.Command, o.Subject, who, o.Refusal, out.Refusal)
	case out.Refusal != nil && out.Refusal.Reason != o.Refusal.Reason:
		t.Errorf("%s %s by %s: Options says %s, Decide says %s", o.Command, o.Subject, who, o.Refusal.Reason, out.Refusal.Reason)
	}
}

// commandFor is the command of an option, filled in by a person; nil where the option is about something else than the
// current revision, or the person's words decide.
func commandFor(s *procedure.State, o procedure.Option) procedure.Command {
	name := o.Command
	switch {
	case name == "RegisterPatch" && o.Subject != "":
		return pt.Replace(o.Subject, 9)
	case name == "RegisterPatch":
		return pt.Register(9)
	case name == "WaiveControl" && o.Subject == s.Current().ID+" tests":
		return pt.Waive(tests)
	case name == "WaiveControl":
		return pt.Waive(observer)
	case name == "Forward" && s.Strategy > 1:
		return pt.HandOverTo("carla")
	case name == "Forward":
		return &emergencyv1.ForwardRequest{RollbackPlan: "take it back"}
	case name == "StartApply" && s.Strategy > 1:
		return pt.Alone()
	case name == "Document":
		return pt.DocumentOf(s, uint32(o.Subject[1]-'0'))
	case name == "DeEscalate":
		return pt.GoBack(uint32(o.Subject[0] - '0'))
	case strings.HasSuffix(o.Subject, " after"):
		if c := pt.Example(name, pt.By{Slot: o.Subject}, s); name != "Transfer" {
			return pt.After(c)
		}
	case name == "RollBack" && s.ApplyOf(s.Current().ID) != nil && s.ApplyOf(s.Current().ID).Observer == "":
		return nil
	case name == "RollBack":
		return pt.RollBack("carl")
	case name == "ExplainDrift", name == "WithdrawVeto", name == "OverruleVeto":
		return nil
	}
	return pt.Example(name, pt.By{Slot: o.Subject}, s)
}

// TestNextSteps: the first step is where the incident stands, by the numbers of chapter 1.
func TestNextSteps(t *testing.T) {
	t.Parallel()
	odd := pt.Does(agent, pt.ReportTree(pt.Tree("odd")))
	for _, x := range []struct {
		name   string
		given  []pt.Step
		number string
		cmd    string
	}{
		{"declared", history(pt.Story(pt.Declared)), "1.2", "CallOut"},
		{"called", history(pt.Story(pt.Called)), "1.5", "RegisterPatch"},
		{"registered", history(pt.Story(pt.Registered)), "1.6", "RecordFirstReview"},
		{"changes asked for", history(pt.Story(pt.Registered), pt.Does("anna", pt.FirstReview(changes))), "1.5", "RegisterPatch"},
		{"vetoed", history(pt.Story(pt.Registered), pt.Does("anna", pt.Veto())), "1.6", "WithdrawVeto"},
		{"reviewed", history(pt.Story(pt.Reviewed)), "1.6", "Transfer"},
		{"transferred", history(pt.Story(pt.Transferred)), "1.6", ""},
		{"on the test server", history(pt.Story(pt.OnTestServer)), "1.7", "ReportTest"},
		{"one test passed and one failed", history(pt.Story(pt.OnTestServer), pt.Does("theo", pt.Test(pass)), pt.Does("tina", pt.Test(fail))), "1.5", "RegisterPatch"},
		{"a test failed after the quorum", history(pt.Story(pt.Tested), pt.Does("tom", pt.Test(fail))), "1.5", "RegisterPatch"},
		{"tested again", history(pt.Story(pt.Tested), pt.Does("theo", pt.Test(fail)), pt.Does("theo", pt.Test(pass))), "1.8", "RecordSecondReview"},
		{"tested", history(pt.Story(pt.Tested)), "1.8", "RecordSecondReview"},
		{"reviewed twice", history(pt.Story(pt.ReviewedTwice)), "1.8", "Forward"},
		{"forwarded", history(pt.Story(pt.Forwarded)), "1.9", "ConfirmObserver"},
		{"observed", history(pt.Story(pt.Observed)), "1.9", "StartApply"},
		{"applying", history(pt.Story(pt.Applying)), "1.9", ""},
		{"differs", history(pt.Story(pt.Applied), odd), "1.9", "BackOut"},
		{"backing out", history(pt.Story(pt.Applied), odd, pt.Does("carla", pt.BackOut())), "1.9", ""},
		{"backed out", history(pt.Story(pt.Applied), odd, pt.Does("carla", pt.BackOut()), pt.Does(agent, pt.ReportTree(pt.BaseTree()))), "1.5", "RegisterPatch"},
		{"settled", history(pt.Story(pt.Settled)), "1", "Close"},
		{"stood down", history(pt.Story(pt.Declared), pt.Does("carla", pt.StandDown())), "7", "RecordLeadDecision"},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			steps := procedure.NextSteps(given(t, x.given...).World().State)
			if len(steps) == 0 || steps[0].Number != x.number || steps[0].Command != x.cmd || steps[0].Title == "" {
				t.Errorf("%+v", steps)
			}
		})
	}
	if steps := procedure.NextSteps(given(t, pt.Story(pt.ClosedDown)).World().State); len(steps) > 0 {
		t.Errorf("closed, and still %+v", steps)
	}
}

// What a dispute waits for goes on after the incident was closed (6, rule 6): whoever it waits for is offered it as the next step,
// and the dispute that is owed is not mistaken for any other that could be filed.
func TestDisputeOptions(t *testing.T) {
	t.Parallel()
	const other = emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER
	closed := pt.Story(pt.ClosedDown)
	for _, x := range []struct {
		name, who, command, subject string
		given                       []pt.Step
		next                        bool
	}{
		{"a case", "casper", "OpenCase", "a20261124.1", history(closed, pt.Dispute(other, pt.Filed)), true},
		{"an answer", "agnes", "RespondAppointment", "a20261124.1", history(closed, pt.Dispute(other, pt.Proposed)), true},
		{"a ruling", "arno", "DeliverRuling", "a20261124.1", history(closed, pt.Dispute(other, pt.Begun)), true},
		{"a direction", "carla", "ReportDirectionDone", "D1", history(closed, pt.Dispute(other, pt.Ruled)), true},
		{"a review may be asked for", "mia", "RequestReview", "R1", history(closed, pt.Dispute(other, pt.Ruled)), false},
		{"a case of the review", "casper", "OpenCase", "a20261124.2", history(closed, pt.Dispute(other, pt.ReviewAsked)), true},
		{"a panel", "doris", "FormAppealPanel", "a20261124.2", history(closed, pt.Dispute(other, pt.Reopened)), true},
		{"the panel's ruling", "adele", "DeliverRuling", "a20261124.2", history(closed, pt.Dispute(other, pt.PanelFormed)), true},
		{"filing again", "mia", "FileDispute", "a20261124.1", history(pt.Story(pt.Verified), pt.Dispute(other, pt.CaseOpened), nobodyTakes(1), doesAs("casper", closeDeclined(1))), true},
		{"the owed one", "carla", "FileDispute", "DISPUTE/S2", history(pt.Story(pt.Healthy2)), true},
		{"any other one", "carla", "FileDispute", "", history(pt.Story(pt.Healthy2)), false},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			w := given(t, x.given...).World()
			i := slices.IndexFunc(optionsOf(w, x.who), func(o procedure.Option) bool { return o.Command == x.command && o.Subject == x.subject })
			if i < 0 {
				t.Fatalf("%s %s is not offered: %s", x.command, x.subject, offered(optionsOf(w, x.who)))
			}
			if o := optionsOf(w, x.who)[i]; o.Refusal != nil || o.Next != x.next {
				t.Errorf("%s %s: next %t, refused %v", x.command, x.subject, o.Next, o.Refusal)
			}
		})
	}
	final := given(t, closed, pt.Dispute(other, pt.FinalRuled)).World()
	for _, o := range optionsOf(final, "mia") {
		if o.Command == "RequestReview" && (o.Refusal == nil || o.Refusal.Reason != procedure.ReasonNoRuling) {
			t.Errorf("a review of %s after the panel's ruling: %v", o.Subject, o.Refusal)
		}
	}
}

// A failing test is named to its author and to its tester, and it is the reason that a review is refused for.
func TestFailingTestStaysVisible(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.OnTestServer), pt.Does("theo", pt.Test(fail))).World()
	steps := procedure.NextSteps(w.State)
	if steps[0].Title != "a new revision of P1: theo's test failed" || !slices.Equal(steps[0].Persons, []string{"dora"}) {
		t.Errorf("%+v", steps[0])
	}
	if steps[1].Command != "ReportTest" || !slices.Equal(steps[1].Persons, []string{"theo"}) {
		t.Errorf("%+v", steps[1])
	}
	r := pt.GivenWorld(t, w).Counting(seen).When(pt.SecondReview(changes)).By("bert").ThenRefused(procedure.ReasonTestFailed)
	if last := r.Allow[len(r.Allow)-1]; last.Command != "RaiseVeto" {
		t.Errorf("no way to stop it: %+v", r.Allow)
	}
}

// Whoever is far too early is told the first step that is missing.
func TestTooEarlyNamesTheFirstMissingStep(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		to   pt.Milestone
		when procedure.Command
		by   string
		want string
	}{
		{pt.Registered, pt.Test(pass), "theo", "RecordFirstReview"},
		{pt.Reviewed, pt.Test(pass), "theo", "Transfer"},
		{pt.Transferred, pt.Test(pass), "theo", "ConfirmTestServer"},
		{pt.Registered, &emergencyv1.DryRunRequest{}, "carla", "RecordFirstReview"},
		{pt.Tested, &emergencyv1.DryRunRequest{}, "carla", "RecordSecondReview"},
		{pt.ReviewedTwice, &emergencyv1.DryRunRequest{}, "carla", "Forward"},
		{pt.Registered, &emergencyv1.ForwardRequest{RollbackPlan: "take it back"}, "bert", "RecordFirstReview"},
	} {
		t.Run(string(x.to)+" "+x.want, func(t *testing.T) {
			t.Parallel()
			w := given(t, pt.Story(x.to)).World()
			refusal := w.Try(x.by, x.when).Refusal
			if refusal == nil || len(refusal.Allow) == 0 || refusal.Allow[0].Command != x.want {
				t.Errorf("%+v", refusal)
			}
		})
	}
}

// A control is waived by one lead, and only that one is named.
func TestWaiverNamesItsOwnLead(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Registered)).World()
	for control, want := range map[emergencyv1.Control]string{
		emergencyv1.Control_CONTROL_TEST_QUORUM: "waiving the test quorum is for assessment team lead; ask assessment team lead: albert",
		emergencyv1.Control_CONTROL_OBSERVER:    "waiving the observer is for critical team lead; ask critical team lead: clara",
	} {
		r := w.Try("theo", pt.Waive(control)).Refusal
		if r == nil || r.Reason != procedure.ReasonRole || r.Message+"; "+r.Allow[0].Description != want {
			t.Errorf("%+v", r)
		}
	}
}

// What a step lacks that waits for somebody is that person's next: the dry run, for whoever is to deploy, and for nobody else.
func TestWhatLeadsToAStepIsNext(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Forwarded), pt.Does("carl", pt.Observe())).World()
	next := func(person string) (list []string) {
		for _, o := range procedure.Options(w.State, procedure.Env{Now: w.Now, Book: w.Book, Actor: procedure.Actor{KeyID: w.Book.KeysOf(person, w.Now)[0]}}) {
			if o.Next && (o.Command == "DryRun" || o.Command == "StartApply") {
				list = append(list, o.Command)
			}
		}
		return list
	}
	if got := next("carla"); !slices.Equal(got, []string{"DryRun"}) {
		t.Errorf("carla's next: %v", got)
	}
	if got := next("carl"); len(got) > 0 {
		t.Errorf("carl's next: %v", got)
	}
	w = given(t, pt.Story(pt.Observed)).World()
	if got := next("carla"); !slices.Equal(got, []string{"StartApply"}) {
		t.Errorf("after the dry run: %v", got)
	}
}

// A form says everything that it lacks at once, each under the name of its field.
func TestWrongFields(t *testing.T) {
	t.Parallel()
	names := func(c procedure.Command) (list []string) {
		for _, w := range procedure.WrongFields(c) {
			list = append(list, w.Field)
		}
		return list
	}
	if got := names(&emergencyv1.CloseRequest{}); !slices.Equal(got, []string{"outcome", "summary"}) {
		t.Errorf("an empty closing lacks %v", got)
	}
	if got := names(&emergencyv1.CloseRequest{Outcome: emergencyv1.Outcome_OUTCOME_FIXED, Summary: "login works again"}); len(got) > 0 {
		t.Errorf("a whole one lacks %v", got)
	}
	if got := names(&emergencyv1.RecordFirstReviewRequest{}); !slices.Contains(got, "binding.revision") || !slices.Contains(got, "verdict") {
		t.Errorf("an empty review lacks %v", got)
	}
}

// What is foreseen is what is decided, as far as nothing has to be found out.
func TestForesee(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Registered)).World()
	foresee := func(person string, c procedure.Command) *procedure.Refusal {
		return procedure.Foresee(w.State, c, procedure.Env{Now: w.Now, Book: w.Book, Actor: procedure.Actor{KeyID: w.Book.KeysOf(person, w.Now)[0]}})
	}
	r := w.State.Current()
	review := &emergencyv1.RecordFirstReviewRequest{Meta: &emergencyv1.CommandMeta{Incident: w.State.Incident}, Binding: &emergencyv1.Binding{Revision: r.ID, Digest: r.Binding}, Verdict: approve}
	if no := foresee("anna", review); no != nil {
		t.Errorf("anna: %v", no)
	}
	if no := foresee("tina", review); no == nil || no.Reason != procedure.ReasonRole {
		t.Errorf("tina: %v", no)
	}
	review.Binding.Digest = strings.Repeat("0", 64)
	if no := foresee("anna", review); no == nil || no.Reason != procedure.ReasonBindingUnknown {
		t.Errorf("another binding: %v", no)
	}
}
