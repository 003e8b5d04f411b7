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

// ruling is a ruling on the n-th dispute with something changed.
func ruling(n int, change func(*procedure.State, *emergencyv1.DeliverRulingRequest)) func(*procedure.State) procedure.Command {
	return func(s *procedure.State) procedure.Command {
		c := pt.DeliverRuling(s, the(s, n))
		change(s, c)
		return c
	}
}

// unobserved is a dispute about an emergency in which nobody observed: there are deviations to judge.
func unobserved(to pt.Milestone) []pt.Step {
	return append(withoutObserver(), pt.Does("carla", &emergencyv1.StartApplyRequest{}), pt.From(pt.Applying, pt.Verified), pt.Dispute(aboutS1, to))
}

func TestPreliminaries(t *testing.T) {
	t.Parallel()
	preliminaries := func(change func(*emergencyv1.RecordPreliminariesRequest)) func(*procedure.State) procedure.Command {
		return func(s *procedure.State) procedure.Command { return with(pt.Preliminaries(the(s, 1)), change) }
	}
	as := preliminaries(func(*emergencyv1.RecordPreliminariesRequest) {})
	order := preliminaries(func(c *emergencyv1.RecordPreliminariesRequest) {
		c.Orders = []*emergencyv1.Order{pt.Order("carla", "touch nothing"), {Role: emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR, Text: "keep your notes", DueAt: stampOf(pt.T0().AddDate(0, 1, 0))}}
	})
	run(t, []row{
		{name: "not the arbitrator", given: disputed(pt.Appointed), as: as, by: "agnes", refused: procedure.ReasonNotCaseArbitrator},
		{name: "nobody is yet", given: disputed(pt.CaseOpened), as: as, by: "arno", refused: procedure.ReasonNotCaseArbitrator},
		{name: "no law", given: disputed(pt.Appointed), as: preliminaries(func(c *emergencyv1.RecordPreliminariesRequest) { c.Law = " " }), by: "arno", refused: procedure.ReasonField},
		{name: "recorded", given: disputed(pt.Appointed), as: as, by: "arno", then: events("PreliminariesRecorded")},
		{name: "with orders", given: disputed(pt.Begun), as: order, by: "arno", then: events("PreliminariesRecorded", "DirectionIssued", "DirectionIssued"), check: func(t *testing.T, w *pt.World) {
			list := w.State.Directions
			if len(list) != 2 || list[0].ID != "D1" || list[1].ID != "D2" || list[0].InRuling != "" || list[0].Kind != emergencyv1.DirectionKind_DIRECTION_KIND_DO {
				t.Errorf("%+v", list)
			}
			if o, _ := debt(w.State, "DIRECTION"); o.Owner != "carla" || !o.Due.Equal(list[0].Due) {
				t.Errorf("%+v", o)
			}
		}},
		{name: "an order for nobody", given: disputed(pt.Begun), as: preliminaries(func(c *emergencyv1.RecordPreliminariesRequest) {
			c.Orders = []*emergencyv1.Order{pt.Order("", "touch nothing")}
		}), by: "arno", refused: procedure.ReasonField},
		{name: "an order for yesterday", given: disputed(pt.Begun), as: preliminaries(func(c *emergencyv1.RecordPreliminariesRequest) {
			c.Orders = []*emergencyv1.Order{with(pt.Order("carla", "touch nothing"), func(o *emergencyv1.Order) { o.DueAt = stampOf(pt.T0()) })}
		}), by: "arno", refused: procedure.ReasonField},
		{name: "the case manager joins as a party", given: disputed(pt.Appointed), as: preliminaries(func(c *emergencyv1.RecordPreliminariesRequest) { c.Joined = []string{"casper"} }), by: "arno", refused: procedure.ReasonConflictOfInterest},
		{name: "after the ruling", given: disputed(pt.Ruled), as: as, by: "arno", refused: procedure.ReasonDisputeState},
	})
}

func TestDeliverRuling(t *testing.T) {
	t.Parallel()
	change := func(fn func(*emergencyv1.DeliverRulingRequest)) func(*procedure.State) procedure.Command {
		return ruling(1, func(_ *procedure.State, c *emergencyv1.DeliverRulingRequest) { fn(c) })
	}
	lift := func(ids ...string) func(*procedure.State) procedure.Command {
		return change(func(c *emergencyv1.DeliverRulingRequest) { c.Lifted = ids })
	}
	run(t, []row{
		{name: "ruled", given: unobserved(pt.Begun), as: rule(1), by: "arno", then: events("RulingDelivered", "DirectionIssued"), check: func(t *testing.T, w *pt.World) {
			r := w.State.Rulings[0]
			if w.State.Disputes[0].State(w.Now) != procedure.DisputeRuled || r.By != "arno" || len(r.Judgements) != len(w.State.Deviations) || r.Case == "" {
				t.Errorf("%+v", r)
			}
			if o, _ := debt(w.State, "RULING"); o.By != r.Position {
				t.Errorf("%+v", o)
			}
		}},
		{name: "not the arbitrator", given: unobserved(pt.Begun), as: rule(1), by: "agnes", refused: procedure.ReasonNotCaseArbitrator},
		{name: "proceedings not begun", given: unobserved(pt.Appointed), as: rule(1), by: "arno", refused: procedure.ReasonPreliminariesMissing},
		{name: "twice", given: unobserved(pt.Ruled), as: rule(1), by: "arno", refused: procedure.ReasonDisputeState},
		{name: "no parties", given: unobserved(pt.Begun), as: change(func(c *emergencyv1.DeliverRulingRequest) { c.Parties = "" }), by: "arno", refused: procedure.ReasonDRPField},
		{name: "no facts", given: unobserved(pt.Begun), as: change(func(c *emergencyv1.DeliverRulingRequest) { c.Facts = " " }), by: "arno", refused: procedure.ReasonDRPField},
		{name: "no logic", given: unobserved(pt.Begun), as: change(func(c *emergencyv1.DeliverRulingRequest) { c.Logic = "" }), by: "arno", refused: procedure.ReasonDRPField},
		{name: "no directions", given: unobserved(pt.Begun), as: change(func(c *emergencyv1.DeliverRulingRequest) { c.Directions = nil }), by: "arno", refused: procedure.ReasonDRPField},
		{name: "no place", given: unobserved(pt.Begun), as: change(func(c *emergencyv1.DeliverRulingRequest) { c.Place = "" }), by: "arno", refused: procedure.ReasonDRPField},
		{name: "a deviation without a finding", given: unobserved(pt.Begun), as: change(func(c *emergencyv1.DeliverRulingRequest) { c.Judgements[0].Finding = 0 }), by: "arno", refused: procedure.ReasonDeviationUnjudged},
		{name: "a deviation left out", given: unobserved(pt.Begun), as: change(func(c *emergencyv1.DeliverRulingRequest) { c.Judgements = c.Judgements[1:] }), by: "arno", refused: procedure.ReasonDeviationUnjudged},
		{name: "a deviation judged twice", given: unobserved(pt.Begun), as: change(func(c *emergencyv1.DeliverRulingRequest) { c.Judgements = append(c.Judgements, c.Judgements[0]) }), by: "arno", refused: procedure.ReasonDeviationUnjudged},
		{name: "what was not attached is judged", given: unobserved(pt.Begun), as: change(func(c *emergencyv1.DeliverRulingRequest) {
			c.Judgements = append(c.Judgements, &emergencyv1.Judgement{Position: 1, Deviation: emergencyv1.Deviation_DEVIATION_LATE_RECORD, Finding: emergencyv1.Finding_FINDING_JUSTIFIED})
		}), by: "arno", refused: procedure.ReasonField},
		{name: "evidence of another incident", given: unobserved(pt.Begun), as: change(func(c *emergencyv1.DeliverRulingRequest) { c.EvidenceRoot = pt.Genesis("e20261124.2") }), by: "arno", refused: procedure.ReasonEvidenceRoot},
		{name: "sealed without the Board", given: unobserved(pt.Begun), as: change(func(c *emergencyv1.DeliverRulingRequest) { c.Sealed = true }), by: "arno", refused: procedure.ReasonBoardDecisionMissing},
		{name: "sealed with it", given: unobserved(pt.Begun), as: change(func(c *emergencyv1.DeliverRulingRequest) { c.Sealed, c.BoardConfirmation = true, "m20261201.2" }), by: "arno", then: events("RulingDelivered", "DirectionIssued")},
		{name: "lifts what is not owed", given: unobserved(pt.Begun), as: lift("HEALTH/9999"), by: "arno", refused: procedure.ReasonObligation},
		{name: "lifts what is owed", given: unobserved(pt.Begun), as: lift("LEAD_DECISION/1", "BOARD_SUMMARY/1"), by: "arno", then: events("RulingDelivered", "DirectionIssued"), check: func(t *testing.T, w *pt.World) {
			o, _ := debt(w.State, "LEAD_DECISION")
			if o.By != w.State.Rulings[0].Position || o.LiftedBy != "a20261125.7" {
				t.Errorf("%+v", o)
			}
			w.Sync()
			w.Do("clara", pt.Lead(false)) // what is done later changes nothing
			for _, x := range []string{"LEAD_DECISION", "BOARD_SUMMARY"} {
				o, _ := debt(w.State, x)
				i := slices.IndexFunc(w.State.Obligations, func(y procedure.Obligation) bool { return y.ID == o.ID })
				if o.LiftedBy == "" || i < 0 || w.State.Obligations[i].LiftedBy != o.LiftedBy {
					t.Errorf("%+v", o)
				}
			}
		}},
		{name: "lifts twice the same", given: unobserved(pt.Begun), as: lift("LEAD_DECISION/1", "LEAD_DECISION/1"), by: "arno", refused: procedure.ReasonObligation},
		{name: "an old signature", given: unobserved(pt.Begun), as: func(s *procedure.State) procedure.Command { return rule(1)(s) }, by: "arno", with: []pt.Option{pt.WithEnv(func(e *procedure.Env) { e.Now = e.Now.Add(time.Hour) })}, refused: procedure.ReasonStepUpRequired},
	})
}

// Every obligation that is owed can be lifted, of whatever kind it is, and by a ruling alone.
func TestLiftEverything(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string][]pt.Step{"strategy 1": unobserved(pt.Begun), "strategy 2": history(pt.Story(pt.Verified2), pt.Dispute(aboutS1, pt.Begun))} {
		w := given(t, steps...).World()
		var all []string
		for _, o := range procedure.Debts(w.State) {
			if o.Open() && o.Kind != "RULING" {
				all = append(all, o.ID)
			}
		}
		if len(all) < 6 {
			t.Fatalf("%s: only %v are owed", name, all)
		}
		doesAs("arno", ruling(1, func(_ *procedure.State, c *emergencyv1.DeliverRulingRequest) { c.Lifted = all }))(w)
		for _, o := range procedure.Debts(w.State) {
			if o.Open() && o.Kind != "DIRECTION" || slices.Contains(all, o.ID) && o.LiftedBy == "" {
				t.Errorf("%s: %+v", name, o)
			}
		}
	}
}

// The signature is over what is recorded: whoever reads a ruling with another finding than was signed does not believe it.
func TestRulingIsSigned(t *testing.T) {
	t.Parallel()
	w := given(t, unobserved(pt.Begun)...).World()
	c := w.Prepare("arno", pt.DeliverRuling(w.State, the(w.State, 1)))
	c.(*emergencyv1.DeliverRulingRequest).Judgements[0].Finding = emergencyv1.Finding_FINDING_NOT_JUSTIFIED
	out := w.Decide("arno", c)
	if out.Refusal == nil || out.Refusal.Reason != procedure.ReasonSignature {
		t.Errorf("%+v", out)
	}
	before := w.State
	doesAs("arno", rule(1))(w)
	rec := w.Records[len(w.Records)-1]
	if err := procedure.VerifyRecord(before, rec, w.Book); err != nil {
		t.Fatal(err)
	}
	forged := with(rec, func(r *emergencyv1.Record) {
		p, err := procedure.DecodeEvent(r.GetEvents()[0])
		if err != nil {
			t.Fatal(err)
		}
		e := p.(*emergencyv1.RulingDelivered)
		e.Judgements[0].Finding = emergencyv1.Finding_FINDING_NOT_JUSTIFIED
		if r.Events[0], err = procedure.EncodeEvent(procedure.OwnerArbitration, e); err != nil {
			t.Fatal(err)
		}
	})
	if procedure.VerifyRecord(before, forged, w.Book) == nil {
		t.Error("another finding than was signed is believed")
	}
	other := with(rec, func(r *emergencyv1.Record) { r.Command = "PublishRuling" })
	if procedure.VerifyRecord(before, other, w.Book) == nil {
		t.Error("a ruling under a command that nobody signs is believed")
	}
}

func TestPublishRuling(t *testing.T) {
	t.Parallel()
	publish := func(text string) procedure.Command {
		return &emergencyv1.PublishRulingRequest{Ruling: "R1", Text: text}
	}
	sealed := append(unobserved(pt.Begun), doesAs("arno", ruling(1, func(_ *procedure.State, c *emergencyv1.DeliverRulingRequest) {
		c.Sealed, c.BoardConfirmation = true, "m20261201.2"
	})))
	run(t, []row{
		{name: "none", given: unobserved(pt.Begun), when: publish("text"), by: "casper", refused: procedure.ReasonNoRuling},
		{name: "without a text", given: unobserved(pt.Ruled), when: publish(""), by: "casper", refused: procedure.ReasonField},
		{name: "published", given: unobserved(pt.Ruled), when: publish("text"), by: "casper", then: events("RulingPublished")},
		{name: "twice", given: unobserved(pt.RulingPublic), when: publish("text"), by: "casper", refused: procedure.ReasonDisputeState},
		{name: "a sealed one with a text", given: sealed, when: publish("text"), by: "casper", refused: procedure.ReasonSealed},
		{name: "that a sealed one exists", given: sealed, when: publish(""), by: "casper", then: events("RulingPublished")},
	})
}

func TestDirections(t *testing.T) {
	t.Parallel()
	report := &emergencyv1.ReportDirectionDoneRequest{Direction: "D1", Proof: "it is in the wiki"}
	confirm := &emergencyv1.ConfirmDirectionRequest{Direction: "D1"}
	reported := append(disputed(pt.Ruled), pt.Does("carla", report))
	forRole := append(disputed(pt.Begun), doesAs("arno", ruling(1, func(_ *procedure.State, c *emergencyv1.DeliverRulingRequest) {
		c.Directions[0].Person, c.Directions[0].Role = "", emergencyv1.Role_ROLE_CASE_MANAGER
	})))
	run(t, []row{
		{name: "unknown", given: disputed(pt.Ruled), when: with(report, func(c *emergencyv1.ReportDirectionDoneRequest) { c.Direction = "D9" }), by: "carla", refused: procedure.ReasonDirection},
		{name: "another person", given: disputed(pt.Ruled), when: report, by: "carl", refused: procedure.ReasonNotNamed},
		{name: "without proof", given: disputed(pt.Ruled), when: with(report, func(c *emergencyv1.ReportDirectionDoneRequest) { c.Proof = "" }), by: "carla", refused: procedure.ReasonField},
		{name: "by whom it names", given: disputed(pt.Ruled), when: report, by: "carla", then: events("DirectionReported")},
		{name: "by another key of the same", given: disputed(pt.Ruled), when: report, by: "carla2", then: events("DirectionReported")},
		{name: "by the role it names", given: forRole, when: report, by: "casper", then: events("DirectionReported")},
		{name: "confirmed before it is reported", given: disputed(pt.Ruled), when: confirm, by: "casper", refused: procedure.ReasonDisputeState},
		{name: "confirmed by the case manager", given: reported, when: confirm, by: "casper", then: events("DirectionConfirmed"), check: func(t *testing.T, w *pt.World) {
			if o, _ := debt(w.State, "DIRECTION"); o.Open() {
				t.Errorf("%+v", o)
			}
		}},
		{name: "confirmed by the arbitrator", given: reported, when: confirm, by: "arno", then: events("DirectionConfirmed")},
		{name: "confirmed by who did it", given: append(forRole, pt.Does("casper", report)), when: confirm, by: "casper", refused: procedure.ReasonSamePerson},
		{name: "confirmed by who acted", given: append(slices.Clone(reported), pt.Does("casper", note())), when: confirm, by: "casper", refused: procedure.ReasonConflictOfInterest},
		{name: "confirmed twice", given: disputed(pt.Obeyed), when: confirm, by: "arno", refused: procedure.ReasonDisputeState},
	})
}

func TestReview(t *testing.T) {
	t.Parallel()
	reopen := func(yes bool) func(*procedure.State) procedure.Command {
		return func(s *procedure.State) procedure.Command {
			return &emergencyv1.DeliverRulingRequest{Dispute: the(s, 2), Logic: "they were not heard", Reopen: yes}
		}
	}
	panel := func(senior string, members ...string) func(*procedure.State) procedure.Command {
		return func(s *procedure.State) procedure.Command {
			return &emergencyv1.FormAppealPanelRequest{Dispute: the(s, 2), Members: members, Senior: senior}
		}
	}
	notReopened := append(disputed(pt.ReviewAppointed), doesAs("agnes", reopen(false)))
	good := panel("adele", "achim", "adele", "alois")
	run(t, []row{
		{name: "of no ruling", given: disputed(pt.Begun), when: pt.RequestReview("R1"), by: "anna", refused: procedure.ReasonNoRuling},
		{name: "without a ground", given: disputed(pt.Ruled), when: with(pt.RequestReview("R1"), func(c *emergencyv1.RequestReviewRequest) { c.Ground = 0 }), by: "anna", refused: procedure.ReasonField},
		{name: "requested by a member", given: disputed(pt.Ruled), when: pt.RequestReview("R1"), by: "mia", then: events("ReviewRequested"), check: func(t *testing.T, w *pt.World) {
			if x := w.State.Disputes[1]; !x.Review() || x.Of != "R1" || x.State(w.Now) != procedure.DisputeFiled {
				t.Errorf("%+v", x)
			}
		}},
		{name: "while one is open", given: disputed(pt.ReviewAsked), when: pt.RequestReview("R1"), by: "mia", refused: procedure.ReasonDisputeExists},
		{name: "again after one that changed nothing", given: notReopened, when: pt.RequestReview("R1"), by: "mia", then: events("ReviewRequested")},
		{name: "of a final ruling", given: disputed(pt.FinalRuled), when: pt.RequestReview("R2"), by: "mia", refused: procedure.ReasonNoRuling},
		{name: "of a superseded ruling", given: disputed(pt.FinalRuled), when: pt.RequestReview("R1"), by: "mia", refused: procedure.ReasonNoRuling},
		{name: "by the arbitrator of the case", given: append(disputed(pt.ReviewAsked), doesAs("casper", openCase(2, "c2"))), as: propose(2, "arno"), by: "casper", refused: procedure.ReasonSameArbitrator},
		{name: "is no joined case", given: disputed(pt.ReviewAsked), as: openCase(2, "a20261125.7"), by: "casper", refused: procedure.ReasonCaseExists},
		{name: "without logic", given: disputed(pt.ReviewAppointed), as: func(s *procedure.State) procedure.Command {
			return &emergencyv1.DeliverRulingRequest{Dispute: the(s, 2), Reopen: true}
		}, by: "agnes", refused: procedure.ReasonDRPField},
		{name: "not re-opened", given: disputed(pt.ReviewAppointed), as: reopen(false), by: "agnes", then: events("ReviewRuled"), check: func(t *testing.T, w *pt.World) {
			if x := w.State.Disputes[1]; x.State(w.Now) != procedure.DisputeNotReopened || w.State.Rulings[0].Superseded != "" {
				t.Errorf("%+v", x)
			}
			for _, o := range procedure.Debts(w.State) {
				if o.Kind == "RULING" && o.Open() {
					t.Errorf("%+v", o)
				}
			}
		}},
		{name: "re-opened", given: disputed(pt.ReviewAppointed), as: reopen(true), by: "agnes", then: events("ReviewRuled"), check: func(t *testing.T, w *pt.World) {
			for _, o := range procedure.Debts(w.State) {
				if o.Kind == "RULING" && o.Cause == w.State.Disputes[1].Filed.Position && !o.Open() {
					t.Error("a re-opened case owes no ruling")
				}
			}
		}},
		{name: "re-opened twice", given: disputed(pt.Reopened), as: reopen(true), by: "agnes", refused: procedure.ReasonDisputeState},
		{name: "a panel without re-opening", given: disputed(pt.ReviewAppointed), as: good, by: "doris", refused: procedure.ReasonNotReopened},
		{name: "a panel on the case itself", given: disputed(pt.Begun), as: func(s *procedure.State) procedure.Command {
			return &emergencyv1.FormAppealPanelRequest{Dispute: the(s, 1), Members: []string{"achim", "adele", "alois"}, Senior: "adele"}
		}, by: "doris", refused: procedure.ReasonNotReopened},
		{name: "a panel of two", given: disputed(pt.Reopened), as: panel("adele", "adele", "alois"), by: "doris", refused: procedure.ReasonPanel},
		{name: "a panel with one twice", given: disputed(pt.Reopened), as: panel("adele", "adele", "alois", "alois"), by: "doris", refused: procedure.ReasonPanel},
		{name: "a senior from outside", given: disputed(pt.Reopened), as: panel("agnes", "achim", "adele", "alois"), by: "doris", refused: procedure.ReasonPanel},
		{name: "with the arbitrator of the case", given: disputed(pt.Reopened), as: panel("adele", "arno", "adele", "alois"), by: "doris", refused: procedure.ReasonPanel},
		{name: "with the arbitrator of the review", given: disputed(pt.Reopened), as: panel("adele", "agnes", "adele", "alois"), by: "doris", refused: procedure.ReasonPanel},
		{name: "with somebody who is no arbitrator", given: disputed(pt.Reopened), as: panel("adele", "mia", "adele", "alois"), by: "doris", refused: procedure.ReasonNotListed},
		{name: "with somebody who acted", given: append(disputed(pt.Reopened), pt.Does("alois", note())), as: good, by: "doris", refused: procedure.ReasonConflictOfInterest},
		{name: "formed", given: disputed(pt.Reopened), as: good, by: "doris", then: events("AppealPanelFormed")},
		{name: "formed twice", given: disputed(pt.PanelFormed), as: good, by: "doris", refused: procedure.ReasonDisputeState},
		{name: "the panel's ruling by a junior member", given: disputed(pt.PanelFormed), as: rule(2), by: "alois", refused: procedure.ReasonNotCaseArbitrator},
		{name: "the panel's ruling", given: disputed(pt.PanelFormed), as: rule(2), by: "adele", then: events("RulingDelivered", "DirectionIssued"), check: func(t *testing.T, w *pt.World) {
			r := w.State.Rulings
			if !r[1].Final || r[0].Superseded != "R2" || w.State.Disputes[1].State(w.Now) != procedure.DisputeFinalRuled {
				t.Errorf("%+v", r)
			}
		}},
	})
}

// A review that is appointed to the same arbitrator by an old history is refused at the ruling, too.
func TestSameArbitratorRules(t *testing.T) {
	t.Parallel()
	given(t, append(disputed(pt.ReviewAppointed), func(w *pt.World) {
		w.Change(func(s *procedure.State) { s.Disputes[1].Arbitrator = "arno" })
	})...).WhenAs(func(s *procedure.State) procedure.Command {
		return &emergencyv1.DeliverRulingRequest{Dispute: the(s, 2), Logic: "I was right"}
	}).By("arno").ThenRefused(procedure.ReasonSameArbitrator)
}

// The final ruling voids what was not carried out of the one it supersedes, and keeps what was.
func TestSupersededDirections(t *testing.T) {
	t.Parallel()
	two := func(_ *procedure.State, c *emergencyv1.DeliverRulingRequest) {
		c.Directions = append(c.Directions, pt.Order("carl", "write it down, too"))
	}
	w := given(t, append(disputed(pt.Begun), doesAs("arno", ruling(1, two)), pt.DisputeFrom(aboutS1, pt.RulingPublic, pt.FinalRuled))...).World()
	for _, o := range procedure.Debts(w.State) {
		x, ok := w.State.Direction(map[uint64]string{w.State.Directions[0].Issued.Position: "D1", w.State.Directions[1].Issued.Position: "D2", w.State.Directions[2].Issued.Position: "D3"}[o.Cause])
		if o.Kind != "DIRECTION" || !ok {
			continue
		}
		want := map[string]string{"D1": "", "D2": "R2", "D3": ""}[x.ID]
		if o.LiftedBy != want || o.Open() != (x.ID == "D3") {
			t.Errorf("%s: %+v", x.ID, o)
		}
	}
	w.Wait(time.Minute)
	given := pt.GivenWorld(t, w).Counting(seen)
	given.When(&emergencyv1.ReportDirectionDoneRequest{Direction: "D2", Proof: "late, but done"}).By("carl").ThenRefused(procedure.ReasonDisputeState)
}

// Joined disputes are decided together: a ruling judges what is attached to any of them and ends all (10.10).
func TestJoinedDisputes(t *testing.T) {
	t.Parallel()
	w := given(t, append(disputed(pt.CaseOpened), pt.Waits(time.Minute))...).World()
	none := pt.Lead(false) // high severity, not referred: a further deviation
	w.Do("clara", none)
	w.Do("mia", pt.FileDispute(aboutOther))
	doesAs("casper", openCase(2, "a20261125.7"))(w)
	for _, c := range []struct {
		who string
		cmd func(*procedure.State) procedure.Command
	}{{"casper", propose(1, "arno")}, {"arno", answerTo(1, true, true)}} {
		doesAs(c.who, c.cmd)(w)
	}
	w.Do("arno", pt.Preliminaries(the(w.State, 1)))
	if len(procedure.Attached(w.State, the(w.State, 1))) <= len(w.State.Disputes[0].Deviations) {
		t.Fatal("what is attached to the joined dispute need not be judged")
	}
	c := pt.GivenWorld(t, w).Counting(seen)
	c.WhenAs(propose(2, "arno")).By("casper").ThenRefused(procedure.ReasonDisputeState)
	doesAs("arno", rule(1))(w)
	for _, o := range procedure.Debts(w.State) {
		if o.Kind == "RULING" && o.Open() {
			t.Errorf("%+v", o)
		}
	}
}

// Close waits for disputes, in a drill too, whose obligations never block (6, rule 5).
func TestCloseWithDispute(t *testing.T) {
	t.Parallel()
	run(t, []row{
		{name: "obligations of a dispute", given: history(pt.Story(pt.Settled), pt.Dispute(aboutS1, pt.Begun)), when: pt.Close(), by: "carla", refused: procedure.ReasonObligationsOpen},
		{name: "the ruling lifted by another ruling", given: history(pt.Story(pt.Settled), pt.Dispute(aboutS1, pt.Begun), pt.Does("mia", pt.FileDispute(aboutOther)), func(w *pt.World) {
			x := w.State.Disputes[1]
			doesAs("arno", ruling(1, func(s *procedure.State, c *emergencyv1.DeliverRulingRequest) {
				for _, o := range procedure.Debts(s) {
					if o.Open() && o.Cause == x.Filed.Position {
						c.Lifted = append(c.Lifted, o.ID)
					}
				}
			}))(w)
			w.Do("carla", &emergencyv1.ReportDirectionDoneRequest{Direction: "D1", Proof: "it is in the wiki"})
			w.Do("casper", &emergencyv1.ConfirmDirectionRequest{Direction: "D1"})
		}), when: pt.Close(), by: "carla", refused: procedure.ReasonDisputeOpen},
		{name: "ruled and obeyed", given: history(pt.Story(pt.Settled), pt.Dispute(aboutS1, pt.Obeyed)), when: pt.Close(), by: "carla", then: events("IncidentClosed")},
		{name: "a ruling is not lost by merging", given: history(pt.Story(pt.Registered), pt.Does("mia", pt.FileDispute(aboutOther))), when: &emergencyv1.MergeIntoRequest{Target: "e20261124.7", Reason: "it is the same outage"}, by: "carla", with: []pt.Option{pt.Facts(procedure.Facts{Other: earlier(t)})}, refused: procedure.ReasonOpenDispute},
	})
}

// earlier is another open incident, declared before.
func earlier(t *testing.T) *procedure.State {
	w := pt.NewIncident(t, "e20261124.7")
	w.Wait(-time.Hour)
	w.Do("carla", pt.Declare())
	return w.State
}

// The state of a dispute at each milestone (6).
func TestDisputeState(t *testing.T) {
	t.Parallel()
	for milestone, want := range map[pt.Milestone][2]procedure.DisputeState{
		pt.Filed: {procedure.DisputeFiled}, pt.CaseOpened: {procedure.DisputeCaseOpened}, pt.Proposed: {procedure.DisputeProposed},
		pt.DeclinedOnce: {procedure.DisputeAwaiting}, pt.Appointed: {procedure.DisputeAccepted}, pt.Begun: {procedure.DisputePreliminaries},
		pt.Ruled: {procedure.DisputeRuled}, pt.ReviewAsked: {procedure.DisputeRuled, procedure.DisputeFiled}, pt.ReviewAppointed: {procedure.DisputeRuled, procedure.DisputeAccepted},
		pt.Reopened: {procedure.DisputeRuled, procedure.DisputeReopened}, pt.PanelFormed: {procedure.DisputeRuled, procedure.DisputePanel},
		pt.FinalRuled: {procedure.DisputeRuled, procedure.DisputeFinalRuled},
	} {
		w := pt.Given(t, disputed(milestone)...).World()
		for i, x := range w.State.Disputes {
			if got := x.State(w.Now); got != want[i] {
				t.Errorf("%s: dispute %d is %s, want %s", milestone, i+1, got, want[i])
			}
		}
	}
	w := pt.Given(t, append(disputed(pt.Proposed), pt.Waits(pt.Month))...).World()
	if got := w.State.Disputes[0].State(w.Now); got != procedure.DisputeAwaiting {
		t.Errorf("nobody answered: %s", got)
	}
}
