// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const (
	aboutS1    = emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1
	aboutS2    = emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2
	aboutS3    = emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_3
	aboutOther = emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER
)

// disputed is an emergency of strategy 1 with a dispute about it at a milestone.
func disputed(to pt.Milestone) []pt.Step {
	return history(pt.Story(pt.Verified), pt.Dispute(aboutS1, to))
}

// the is the id of the n-th dispute.
func the(s *procedure.State, n int) string {
	if len(s.Disputes) < n {
		return "a20261124.99"
	}
	return s.Disputes[n-1].ID
}

func openCase(n int, number string, acted ...string) func(*procedure.State) procedure.Command {
	return func(s *procedure.State) procedure.Command {
		return &emergencyv1.OpenCaseRequest{Dispute: the(s, n), CaseNumber: number, ActedParties: acted}
	}
}

func propose(n int, who string) func(*procedure.State) procedure.Command {
	return func(s *procedure.State) procedure.Command {
		return &emergencyv1.ProposeArbitratorRequest{Dispute: the(s, n), Candidate: who}
	}
}

func answerTo(n int, accept, noConflict bool) func(*procedure.State) procedure.Command {
	return func(s *procedure.State) procedure.Command {
		return &emergencyv1.RespondAppointmentRequest{Dispute: the(s, n), Accept: accept, NoConflict: noConflict}
	}
}

func closeDeclined(n int) func(*procedure.State) procedure.Command {
	return func(s *procedure.State) procedure.Command {
		return &emergencyv1.CloseDeclinedRequest{Dispute: the(s, n)}
	}
}

// doesAs is a step with a command that depends on the state.
func doesAs(who string, c func(*procedure.State) procedure.Command, options ...pt.Option) pt.Step {
	return func(w *pt.World) { w.Do(who, c(w.State), options...); w.Wait(time.Minute) }
}

func parties(names ...string) pt.Option { return pt.Facts(procedure.Facts{Parties: names}) }

// nobodyTakes asks every arbitrator; each declines or lets the time pass.
func nobodyTakes(n int) pt.Step {
	return func(w *pt.World) {
		for i, who := range []string{"achim", "adele", "agnes", "alois", "arno"} {
			doesAs("casper", propose(n, who))(w)
			if i%2 == 0 {
				doesAs(who, answerTo(n, false, false))(w)
			} else {
				w.Wait(15 * 24 * time.Hour)
			}
		}
	}
}

func TestFileDispute(t *testing.T) {
	t.Parallel()
	file := pt.FileDispute
	without := func(change func(*emergencyv1.FileDisputeRequest)) procedure.Command {
		return with(file(aboutOther), change)
	}
	run(t, []row{
		{name: "by a critical admin", given: history(pt.Story(pt.Verified)), when: file(aboutS1), by: "carla", then: events("DisputeFiled")},
		{name: "by any member", given: history(pt.Story(pt.Declared)), when: file(aboutOther), by: "mia", then: events("DisputeFiled")},
		{name: "after closing", given: history(pt.Story(pt.ClosedDown)), when: file(aboutS1), by: "mia", then: events("DisputeFiled"), check: func(t *testing.T, w *pt.World) {
			o, ok := debt(w.State, "RULING")
			if w.State.Status != procedure.Closed || !ok || !o.AfterClosing(w.State) {
				t.Errorf("%s, %+v", w.State.Status, o)
			}
			if o, _ := debt(w.State, "LEAD_DECISION"); o.AfterClosing(w.State) {
				t.Error("what was owed before is shown as after closing")
			}
		}},
		{name: "no concern", given: history(pt.Story(pt.Verified)), when: file(0), by: "carla", refused: procedure.ReasonField},
		{name: "a review is not filed", given: history(pt.Story(pt.Verified)), when: file(emergencyv1.DisputeConcern_DISPUTE_CONCERN_REVIEW), by: "carla", refused: procedure.ReasonField},
		{name: "no claimants", given: history(pt.Story(pt.Verified)), when: without(func(c *emergencyv1.FileDisputeRequest) { c.Claimants = nil }), by: "carla", refused: procedure.ReasonDRPField},
		{name: "no respondents", given: history(pt.Story(pt.Verified)), when: without(func(c *emergencyv1.FileDisputeRequest) { c.Respondents = nil }), by: "carla", refused: procedure.ReasonDRPField},
		{name: "no complaint", given: history(pt.Story(pt.Verified)), when: without(func(c *emergencyv1.FileDisputeRequest) { c.Complaint = " \n" }), by: "carla", refused: procedure.ReasonDRPField},
		{name: "no relief", given: history(pt.Story(pt.Verified)), when: without(func(c *emergencyv1.FileDisputeRequest) { c.Relief = "" }), by: "carla", refused: procedure.ReasonDRPField},
		{name: "two parties on one line", given: history(pt.Story(pt.Verified)), when: without(func(c *emergencyv1.FileDisputeRequest) { c.Claimants = []string{"a\nb"} }), by: "carla", refused: procedure.ReasonField},
		{name: "evidence of nothing", given: history(pt.Story(pt.Verified)), when: without(func(c *emergencyv1.FileDisputeRequest) { c.HeadHash = strings.Repeat("a", 64) }), by: "carla", refused: procedure.ReasonEvidenceRoot},
		{name: "strategy 2 never followed", given: history(pt.Story(pt.Verified)), when: file(aboutS2), by: "carla", refused: procedure.ReasonField},
		{name: "twice about the same", given: disputed(pt.Filed), when: file(aboutS1), by: "carla", refused: procedure.ReasonDisputeExists},
		{name: "again since it was referred", given: append(disputed(pt.Filed), pt.Does("clara", pt.Lead(true))), when: file(aboutS1), by: "carla", then: events("DisputeFiled"), check: func(t *testing.T, w *pt.World) {
			if o, _ := debt(w.State, "DISPUTE/REFERRED"); o.Open() {
				t.Errorf("%+v", o)
			}
		}},
		{name: "about something else", given: disputed(pt.Filed), when: file(aboutOther), by: "carla", then: events("DisputeFiled")},
		{name: "about the same by another", given: disputed(pt.Filed), when: file(aboutS1), by: "carl", then: events("DisputeFiled")},
		{name: "about the same once it is ruled", given: disputed(pt.Ruled), when: file(aboutS1), by: "carla", then: events("DisputeFiled")},
		{name: "refiles what never was", given: disputed(pt.Filed), when: without(func(c *emergencyv1.FileDisputeRequest) { c.Refiles = "a20200101.1" }), by: "carla", refused: procedure.ReasonDisputeUnknown},
		{name: "refiles another's filing", given: disputed(pt.Filed), as: refile(aboutOther), by: "mia", refused: procedure.ReasonDisputeState},
		{name: "refiles the own filing", given: disputed(pt.Filed), as: refile(aboutS1), by: "carla", then: events("DisputeFiled"), check: func(t *testing.T, w *pt.World) {
			if x := w.State.Disputes[0]; x.State(w.Now) != procedure.DisputeRefiled || x.RefiledBy != the(w.State, 2) {
				t.Errorf("%+v", x)
			}
		}},
		{name: "refiles what has a case", given: disputed(pt.CaseOpened), as: refile(aboutS1), by: "carla", refused: procedure.ReasonDisputeState},
		{name: "refiles what was ruled", given: disputed(pt.Ruled), as: refile(aboutS1), by: "carla", refused: procedure.ReasonDisputeState},
	})
}

func refile(concern emergencyv1.DisputeConcern) func(*procedure.State) procedure.Command {
	return func(s *procedure.State) procedure.Command {
		c := pt.FileDispute(concern)
		c.Refiles = the(s, 1)
		return c
	}
}

// All deviations are attached whatever the filer says, and the evidence ends with a record of this incident, a refused
// command's too.
func TestFilingIsComplete(t *testing.T) {
	t.Parallel()
	w := given(t, append(withoutObserver(), pt.Does("carla", &emergencyv1.StartApplyRequest{}))...).And(refusedNote("carla", nil)).World()
	head := w.State.Heads[len(w.State.Heads)-1]
	c := pt.FileDispute(aboutS1)
	c.HeadHash = head.Hash
	w.Wait(time.Minute)
	w.Do("carla", note())
	w.Do("carla", c)
	x := w.State.Disputes[0]
	if !slices.Equal(x.Deviations, w.State.Deviations) || len(x.Deviations) == 0 {
		t.Errorf("attached %v of %v", x.Deviations, w.State.Deviations)
	}
	if x.Evidence != head.Position || x.EvidenceHash != head.Hash || x.Evidence >= x.Filed.Position-1 {
		t.Errorf("evidence up to %d, filed at %d", x.Evidence, x.Filed.Position)
	}
	for _, commitment := range []string{x.Claimants, x.Respondents, x.Complaint} {
		if w.Sealed[commitment] == "" {
			t.Error("a party or the complaint is not kept outside")
		}
	}
}

// Ids: the service's number if it is free, in the incident unique in any case.
func TestDisputeIDs(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Verified)).World()
	day := "a" + w.Now.UTC().Format("20060102")
	for i, x := range []struct {
		who  string
		from int
		want string
	}{{"carla", 7, ".7"}, {"carl", 7, ".8"}, {"anna", 0, ".1"}, {"bert", 0, ".2"}, {"mia", -3, ".3"}} {
		w.Do(x.who, pt.FileDispute(aboutOther), pt.Facts(procedure.Facts{DisputeNumber: x.from}))
		if got := w.State.Disputes[i].ID; got != day+x.want {
			t.Errorf("%d: %s", i, got)
		}
	}
	w.Wait(48 * time.Hour)
	w.Do("tom", pt.FileDispute(aboutOther))
	if got := w.State.Disputes[5].ID; got == day+".1" || !strings.HasSuffix(got, ".1") {
		t.Errorf("two days later: %s", got)
	}
}

// X14 is exact: every act but reading, and the own acts of arbitration, excludes; so does being a party, or leading a team.
func TestConflictOfInterest(t *testing.T) {
	t.Parallel()
	both := func(w *pt.World) { // tom is listed as case manager, and as arbitrator
		for _, role := range []emergencyv1.Role{emergencyv1.Role_ROLE_CASE_MANAGER, emergencyv1.Role_ROLE_ARBITRATOR} {
			for _, p := range []string{"tom", "theo", "clara", "dora"} {
				listAs(w, p, role)
			}
		}
	}
	proposed := func(who string) []pt.Step {
		return append(disputed(pt.CaseOpened), both, doesAs("casper", propose(1, who)))
	}
	run(t, []row{
		{name: "whoever did nothing may manage", given: append(disputed(pt.Filed), both), as: openCase(1, "c1"), by: "tom", then: events("CaseOpened")},
		{name: "a tester of the patch may not", given: append(disputed(pt.Filed), both), as: openCase(1, "c1"), by: "theo", refused: procedure.ReasonConflictOfInterest},
		{name: "an author who only prepared may not", given: append(disputed(pt.Filed), both), as: openCase(1, "c1"), by: "dora", refused: procedure.ReasonConflictOfInterest},
		{name: "a team lead may not", given: append(disputed(pt.Filed), both), as: openCase(1, "c1"), by: "clara", refused: procedure.ReasonConflictOfInterest},
		{name: "whoever wrote a note may not", given: append(disputed(pt.Filed), pt.Does("casper", note())), as: openCase(1, "c1"), by: "casper", refused: procedure.ReasonConflictOfInterest},
		{name: "whoever was only refused may", given: append(disputed(pt.Filed), refusedNote("casper", nil)), as: openCase(1, "c1"), by: "casper", then: events("CaseOpened")},
		{name: "a named party may not", given: disputed(pt.Filed), as: openCase(1, "c1"), by: "casper", with: []pt.Option{parties("mia", " Casper ")}, refused: procedure.ReasonConflictOfInterest},
		{name: "whoever filed may not", given: history(pt.Story(pt.Verified), pt.Does("casper", pt.FileDispute(aboutOther))), as: openCase(1, "c1"), by: "casper", refused: procedure.ReasonConflictOfInterest},
		{name: "a tester is not proposed", given: append(disputed(pt.CaseOpened), both), as: propose(1, "theo"), by: "casper", refused: procedure.ReasonConflictOfInterest},
		{name: "a party is not proposed", given: disputed(pt.CaseOpened), as: propose(1, "arno"), by: "casper", with: []pt.Option{parties("arno")}, refused: procedure.ReasonConflictOfInterest},
		{name: "the case's manager is not proposed", given: append(disputed(pt.Filed), both, doesAs("tom", openCase(1, "c1"))), as: propose(1, "tom"), by: "casper", refused: procedure.ReasonConflictOfInterest},
		{name: "another manager may go on", given: append(disputed(pt.CaseOpened), both), as: propose(1, "arno"), by: "tom", then: events("ArbitratorProposed")},
		{name: "another manager who acted may not", given: append(disputed(pt.CaseOpened), both), as: propose(1, "arno"), by: "theo", refused: procedure.ReasonConflictOfInterest},
		{name: "asked again on accepting", given: append(proposed("tom"), pt.Does("tom", pt.FileDispute(aboutOther))), as: answerTo(1, true, true), by: "tom", refused: procedure.ReasonConflictOfInterest},
		{name: "declining stays possible", given: append(proposed("tom"), pt.Does("tom", pt.FileDispute(aboutOther))), as: answerTo(1, false, false), by: "tom", then: events("ArbitratorDeclined")},
		{
			name: "whoever acts after being appointed does not rule", given: append(disputed(pt.Begun), pt.Does("arno", note())),
			as: rule(1), by: "arno", refused: procedure.ReasonConflictOfInterest,
		},
		{
			name: "and is replaced", given: append(disputed(pt.Begun), pt.Does("arno", note())), as: propose(1, "adele"), by: "casper", then: events("ArbitratorProposed"),
		},
	})
}

// listAs grants a role in the world's own rule book.
func listAs(w *pt.World, person string, role emergencyv1.Role) {
	book, err := w.Book.With(w.Book.Position+1, w.Now, &emergencyv1.RoleGranted{Grant: &emergencyv1.RoleGrant{
		Person: person, Role: role, EffectiveAt: stampOf(pt.Founded()), BoardDecision: "m20261124.7",
	}})
	if err != nil {
		w.T().Fatalf("grant: %v", err)
	}
	w.Book = book
}

func rule(n int) func(*procedure.State) procedure.Command {
	return func(s *procedure.State) procedure.Command { return pt.DeliverRuling(s, the(s, n)) }
}

func TestOpenCase(t *testing.T) {
	t.Parallel()
	second := append(disputed(pt.CaseOpened), pt.Does("mia", pt.FileDispute(aboutOther)))
	run(t, []row{
		{name: "unknown", given: disputed(pt.Filed), when: &emergencyv1.OpenCaseRequest{Dispute: "a20200101.1", CaseNumber: "c1"}, by: "casper", refused: procedure.ReasonDisputeUnknown},
		{name: "malformed", given: disputed(pt.Filed), when: &emergencyv1.OpenCaseRequest{Dispute: "e20261124.1", CaseNumber: "c1"}, by: "casper", refused: procedure.ReasonField},
		{name: "twice", given: disputed(pt.CaseOpened), as: openCase(1, "c2"), by: "casper", refused: procedure.ReasonCaseExists},
		{name: "a refiled one", given: append(disputed(pt.Filed), doesAs("carla", refile(aboutS1))), as: openCase(1, "c2"), by: "casper", refused: procedure.ReasonDisputeState},
		{name: "joined under the number of an open case", given: second, as: openCase(2, "a20261125.7"), by: "casper", then: events("CaseOpened"), check: func(t *testing.T, w *pt.World) {
			if x := w.State.Disputes[1]; x.State(w.Now) != procedure.DisputeJoined || x.JoinedTo != the(w.State, 1) {
				t.Errorf("%+v", x)
			}
		}},
		{name: "not joined to a decided case", given: append(disputed(pt.Ruled), pt.Does("mia", pt.FileDispute(aboutOther))), as: openCase(2, "a20261125.7"), by: "casper", refused: procedure.ReasonCaseExists},
		{name: "strategy 1 has no acted parties to name", given: disputed(pt.Filed), as: openCase(1, "c1", "mia"), by: "casper", then: events("CaseOpened")},
		{name: "who acted under strategy 2 is named", given: history(pt.Story(pt.Verified2), pt.Dispute(aboutS2, pt.Filed)), as: openCase(1, "c1", "carla"), by: "casper", refused: procedure.ReasonActedPartyMissing},
		{name: "all of them", given: history(pt.Story(pt.Verified2), pt.Dispute(aboutS2, pt.Filed)), as: openCase(1, "c1", "anna", "carla", "mia"), by: "casper", then: events("CaseOpened")},
		{name: "or by the system", given: history(pt.Story(pt.Verified2), pt.Dispute(aboutS2, pt.Filed)), as: openCase(1, "c1"), by: "casper", then: events("CaseOpened"), check: func(t *testing.T, w *pt.World) {
			found := false
			for _, v := range w.Sealed {
				found = found || v == "anna\ncarla"
			}
			if !found {
				t.Errorf("anna and carla acted under strategy 2: %v", procedure.ActedBeyond(w.State))
			}
		}},
	})
}

func TestAppointment(t *testing.T) {
	t.Parallel()
	run(t, []row{
		{name: "no case yet", given: disputed(pt.Filed), as: propose(1, "arno"), by: "casper", refused: procedure.ReasonDisputeState},
		{name: "not on the list", given: disputed(pt.CaseOpened), as: propose(1, "mia"), by: "casper", refused: procedure.ReasonNotListed},
		{name: "while another may answer", given: disputed(pt.Proposed), as: propose(1, "arno"), by: "casper", refused: procedure.ReasonProposalOpen},
		{name: "at the due time itself", given: append(disputed(pt.Proposed), pt.Waits(14*24*time.Hour-time.Minute)), as: propose(1, "arno"), by: "casper", refused: procedure.ReasonProposalOpen},
		{name: "after it", given: append(disputed(pt.Proposed), pt.Waits(14*24*time.Hour)), as: propose(1, "arno"), by: "casper", then: events("ArbitratorProposed")},
		{name: "there is an arbitrator", given: disputed(pt.Appointed), as: propose(1, "adele"), by: "casper", refused: procedure.ReasonDisputeState},
		{name: "not asked", given: disputed(pt.Proposed), as: answerTo(1, true, true), by: "arno", refused: procedure.ReasonNotCandidate},
		{name: "answered already", given: disputed(pt.DeclinedOnce), as: answerTo(1, true, true), by: "agnes", refused: procedure.ReasonNotCandidate},
		{name: "conflict undeclared", given: disputed(pt.Proposed), as: answerTo(1, true, false), by: "agnes", refused: procedure.ReasonConflictUndeclared},
		{name: "accepts", given: disputed(pt.Proposed), as: answerTo(1, true, true), by: "agnes", then: events("ArbitratorAccepted")},
		{name: "declines without a reason", given: disputed(pt.Proposed), as: answerTo(1, false, false), by: "agnes", then: events("ArbitratorDeclined"), check: func(t *testing.T, w *pt.World) {
			if !slices.Contains(values(w.Sealed), "not stated") {
				t.Error("the reason is not kept as not stated")
			}
		}},
		{name: "late, and nobody else was asked", given: append(disputed(pt.Proposed), pt.Waits(pt.Month)), as: answerTo(1, true, true), by: "agnes", then: events("ArbitratorAccepted")},
	})
}

func values(m map[string]string) []string {
	var list []string
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

// Nobody takes the case: it can be closed only after everybody who could was asked, and the ruling stays owed (10.11).
func TestCloseDeclined(t *testing.T) {
	t.Parallel()
	declined := append(disputed(pt.CaseOpened), nobodyTakes(1))
	run(t, []row{
		{name: "nobody asked", given: disputed(pt.CaseOpened), as: closeDeclined(1), by: "casper", refused: procedure.ReasonCandidatesLeft},
		{name: "one asked", given: disputed(pt.DeclinedOnce), as: closeDeclined(1), by: "casper", refused: procedure.ReasonCandidatesLeft},
		{name: "there is an arbitrator", given: disputed(pt.Appointed), as: closeDeclined(1), by: "casper", refused: procedure.ReasonDisputeState},
		{name: "all but the one who is asked now", given: append(disputed(pt.CaseOpened), func(w *pt.World) {
			for _, who := range []string{"achim", "adele", "agnes", "alois"} {
				doesAs("casper", propose(1, who))(w)
				doesAs(who, answerTo(1, false, false))(w)
			}
			doesAs("casper", propose(1, "arno"))(w)
		}), as: closeDeclined(1), by: "casper", refused: procedure.ReasonCandidatesLeft},
		{name: "all were asked", given: declined, as: closeDeclined(1), by: "casper", then: events("DisputeClosedDeclined"), check: func(t *testing.T, w *pt.World) {
			o, _ := debt(w.State, "RULING")
			if !o.Open() || o.OwnerRole != emergencyv1.Role_ROLE_DISPUTE_OFFICER {
				t.Errorf("the ruling is not owed any more: %+v", o)
			}
			if list := procedure.WithoutArbitrator(w.State); len(list) != 1 || list[0].ID != the(w.State, 1) {
				t.Errorf("waits for an arbitrator: %v", list)
			}
		}},
		{name: "who has a conflict need not be asked", given: append(disputed(pt.CaseOpened), pt.Does("arno", note()), func(w *pt.World) {
			for _, who := range []string{"achim", "adele", "agnes", "alois"} {
				doesAs("casper", propose(1, who))(w)
				doesAs(who, answerTo(1, false, false))(w)
			}
		}), as: closeDeclined(1), by: "casper", then: events("DisputeClosedDeclined")},
		{name: "refiled by anybody", given: append(declined, doesAs("casper", closeDeclined(1))), as: refile(aboutOther), by: "mia", then: events("DisputeFiled"), check: func(t *testing.T, w *pt.World) {
			n := 0
			for _, o := range procedure.Debts(w.State) {
				if o.Kind == "RULING" {
					n++
					if o.Cause != w.State.Disputes[0].Filed.Position || !o.Open() {
						t.Errorf("the refiled dispute does not take it over: %+v", o)
					}
				}
			}
			if n != 1 {
				t.Errorf("%d rulings are owed", n)
			}
		}},
	})
}

// A refiled dispute takes over the ruling that is owed, date and all; its ruling discharges it.
func TestRefiledRuling(t *testing.T) {
	t.Parallel()
	w := given(t, append(disputed(pt.CaseOpened), nobodyTakes(1), doesAs("casper", closeDeclined(1)))...).World()
	before, _ := debt(w.State, "RULING")
	doesAs("mia", refile(aboutOther))(w)
	doesAs("casper", openCase(2, "c2"))(w)
	doesAs("casper", propose(2, "arno"))(w)
	doesAs("arno", answerTo(2, true, true))(w)
	now, _ := debt(w.State, "RULING")
	if now.ID != before.ID || !now.Due.Equal(before.Due) || now.Owner != "arno" {
		t.Errorf("from %+v to %+v", before, now)
	}
	w.Do("arno", pt.Preliminaries(the(w.State, 2)))
	doesAs("arno", rule(2))(w)
	for _, o := range procedure.Debts(w.State) {
		if (o.Kind == "RULING" || o.Kind == "CASE_OPEN") && o.Open() {
			t.Errorf("still owed: %+v", o)
		}
	}
}

// A dispute that is owed for an escalation is discharged by a critical admin's filing about it and by nobody else's (10.10).
func TestDisputeOwed(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Escalated)).World()
	o, ok := debt(w.State, "DISPUTE/S2")
	if !ok || !o.Open() || !o.Due.Equal(o.CausedAt.Add(72*time.Hour)) || o.OwnerRole != emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD {
		t.Fatalf("%+v", o)
	}
	pt.From(pt.Escalated, pt.Verified2)(w)
	o, _ = debt(w.State, "DISPUTE/S2")
	if a := w.State.Applies[0]; o.Owner != "carla" || !o.Due.Equal(a.StartedAt.Add(24*time.Hour)) {
		t.Errorf("after the effect: %+v", o)
	}
	w.Do("mia", pt.FileDispute(aboutS2))
	w.Do("carl", pt.FileDispute(aboutOther))
	w.Do("carl", pt.FileDispute(aboutS1))
	if o, _ = debt(w.State, "DISPUTE/S2"); !o.Open() {
		t.Errorf("discharged by somebody else, or about something else: %+v", o)
	}
	w.Do("clara", pt.FileDispute(aboutS2)) // a team lead is a critical admin
	if o, _ = debt(w.State, "DISPUTE/S2"); o.By != w.State.Disputes[3].Filed.Position {
		t.Errorf("%+v", o)
	}
}

// An escalation without effect is ended by the lead (10.9).
func TestEscalationWithoutEffect(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Escalated)).World()
	none := pt.Lead(true)
	none.Decision = emergencyv1.LeadDecision_LEAD_DECISION_NO_EFFECT
	w.Do("clara", none)
	w.Do("clara", pt.Lead(false)) // a later decision takes nothing back
	if o, _ := debt(w.State, "DISPUTE/S2"); o.Open() {
		t.Errorf("%+v", o)
	}
	o, _ := debt(w.State, "DISPUTE/REFERRED")
	if !o.Open() {
		t.Errorf("%+v", o)
	}
	w.Do("mia", pt.FileDispute(aboutS1))
	if o, _ = debt(w.State, "DISPUTE/REFERRED"); !o.Open() {
		t.Error("discharged by a member's filing")
	}
	w.Do("carl", pt.FileDispute(aboutS1))
	if o, _ = debt(w.State, "DISPUTE/REFERRED"); o.Open() {
		t.Errorf("%+v", o)
	}
}

func TestMailedFiling(t *testing.T) {
	t.Parallel()
	report := func(st emergencyv1.DeliveryState) func(*procedure.State) procedure.Command {
		return func(s *procedure.State) procedure.Command {
			return &emergencyv1.ReportFilingRequest{Dispute: the(s, 1), State: st, Detail: "taken by the mail server"}
		}
	}
	sent, failed := report(emergencyv1.DeliveryState_DELIVERY_STATE_SENT), report(emergencyv1.DeliveryState_DELIVERY_STATE_FAILED)
	run(t, []row{
		{name: "sent", given: disputed(pt.Filed), as: sent, by: "mailer", then: events("FilingReported"), check: func(t *testing.T, w *pt.World) {
			if w.State.Disputes[0].Mailed.Result != "sent" {
				t.Errorf("%+v", w.State.Disputes[0].Mailed)
			}
		}},
		{name: "sent after it failed", given: append(disputed(pt.Filed), doesAs("mailer", failed)), as: sent, by: "mailer", then: events("FilingReported")},
		{name: "failed again", given: append(disputed(pt.Filed), doesAs("mailer", failed)), as: failed, by: "mailer"},
		{name: "nothing takes back that it was sent", given: append(disputed(pt.Filed), doesAs("mailer", sent)), as: failed, by: "mailer"},
		{name: "of no dispute", given: history(pt.Story(pt.Verified)), as: sent, by: "mailer", refused: procedure.ReasonDisputeUnknown},
	})
}

// disputeStates are where the explorer begins with disputes.
func disputeStates() [][]pt.Step {
	var list [][]pt.Step
	for _, m := range pt.DisputeMilestones() {
		list = append(list, disputed(m))
	}
	return append(list,
		append(disputed(pt.CaseOpened), nobodyTakes(1)), append(disputed(pt.CaseOpened), nobodyTakes(1), doesAs("casper", closeDeclined(1))),
		history(pt.Story(pt.Verified), doesAs("clara", redact("symptom"))),
		append(disputed(pt.Ruled), pt.Does("carla", &emergencyv1.ReportDirectionDoneRequest{Direction: "D1", Proof: "it is in the wiki"})),
	)
}

// disputeShape is what makes two states different in disputes.
func disputeShape(s *procedure.State) string {
	var b strings.Builder
	for i, x := range s.Disputes {
		if i < 2 {
			fmt.Fprintf(&b, "dispute[%s %t %t %t] ", x.State(s.RecordedAt), x.Mailed.Position > 0, x.Review(), len(x.Proposals) >= 5)
		}
	}
	done, gone, shown := 0, 0, 0
	for _, d := range s.Directions {
		if d.Reported.Position > 0 {
			done = max(done, 1)
		}
		if d.Done.Position > 0 {
			done = 2
		}
	}
	for _, r := range s.Restricted {
		if r.Redacted.Position > 0 {
			gone = 1
		}
		if r.Erased.Position > 0 {
			gone = 2
		}
		if r.Disclosed.Position > 0 {
			shown = 1
		}
	}
	fmt.Fprintf(&b, "directions%d/%d gone%d shown%d", min(1, len(s.Directions)), done, gone, shown)
	return b.String()
}
