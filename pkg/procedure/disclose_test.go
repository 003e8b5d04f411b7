// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// redact has a field of the declaration deleted.
func redact(field string) func(*procedure.State) procedure.Command {
	return func(s *procedure.State) procedure.Command {
		return pt.Redact(1, fieldOf(s, "incident.EmergencyDeclared", field).Commitment)
	}
}

func disclose(event, field string) func(*procedure.State) procedure.Command {
	return func(s *procedure.State) procedure.Command {
		r := fieldOf(s, event, field)
		return &emergencyv1.DiscloseRequest{Event: r.Position, Commitment: r.Commitment}
	}
}

// fieldOf is the last restricted field of an event type.
func fieldOf(s *procedure.State, event, field string) procedure.RestrictedAt {
	for i := len(s.Restricted) - 1; i >= 0; i-- {
		if r := s.Restricted[i]; r.EventType == event && r.Field == field {
			return r
		}
	}
	return procedure.RestrictedAt{Position: 1, Commitment: pt.Genesis("none")}
}

func sealOrder(until time.Time) pt.Step {
	return func(w *pt.World) {
		c := pt.Preliminaries(the(w.State, 1))
		c.Orders = []*emergencyv1.Order{{Kind: emergencyv1.DirectionKind_DIRECTION_KIND_SEAL, Role: emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD, Text: "the symptom stays secret", DueAt: stampOf(until)}}
		w.Do("arno", c)
		w.Wait(time.Minute)
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	run(t, []row{
		{name: "by the lead", given: history(pt.Story(pt.Verified)), as: redact("symptom"), by: "clara", then: events("FieldRedacted"), check: func(t *testing.T, w *pt.World) {
			list := procedure.PendingRedactions(w.State)
			if len(list) != 1 || list[0].Field != "symptom" {
				t.Fatalf("%+v", list)
			}
			if _, ok := procedure.RedactionOf(w.State, w.State.Position, list[0].Commitment); !ok {
				t.Error("the owner does not find the order")
			}
			for _, wrong := range []uint64{0, 1, w.State.Position - 1} {
				if _, ok := procedure.RedactionOf(w.State, wrong, list[0].Commitment); ok {
					t.Errorf("the owner finds an order at %d", wrong)
				}
			}
			if _, ok := procedure.RedactionOf(w.State, w.State.Position, w.State.Declared.Reason); ok {
				t.Error("the owner finds an order for another field")
			}
		}},
		{name: "no such event", given: history(pt.Story(pt.Verified)), when: pt.Redact(9999, pt.Genesis("x")), by: "clara", refused: procedure.ReasonEntry},
		{name: "a public field", given: history(pt.Story(pt.Verified)), when: pt.Redact(1, "severity"), by: "clara", refused: procedure.ReasonExistence},
		{name: "of another event", given: history(pt.Story(pt.Verified)), as: func(s *procedure.State) procedure.Command { return pt.Redact(2, s.Declared.Symptom) }, by: "clara", refused: procedure.ReasonExistence},
		{name: "somebody's address, which is the rule book's", given: history(pt.Story(pt.Called)), as: func(s *procedure.State) procedure.Command {
			return pt.Redact(s.Pages[0].Position, s.Pages[0].Address)
		}, by: "clara", refused: procedure.ReasonExistence},
		{name: "without a ground", given: history(pt.Story(pt.Verified)), as: func(s *procedure.State) procedure.Command {
			return with(pt.Redact(1, s.Declared.Symptom), func(c *emergencyv1.RedactRequest) { c.Ground = "" })
		}, by: "clara", refused: procedure.ReasonField},
		{name: "twice", given: history(pt.Story(pt.Verified), doesAs("clara", redact("symptom"))), as: redact("symptom"), by: "clara", refused: procedure.ReasonRedacted},
		{name: "what is public already", given: history(pt.Story(pt.Verified), doesAs("clara", disclose("incident.EmergencyDeclared", "symptom"))), as: redact("symptom"), by: "clara", refused: procedure.ReasonExistence},
		{name: "held for an open dispute", given: disputed(pt.Filed), as: redact("symptom"), by: "clara", refused: procedure.ReasonEvidenceHold},
		{name: "held, but for its arbitrator", given: disputed(pt.Begun), as: redact("symptom"), by: "arno", then: events("FieldRedacted")},
		{name: "held against another arbitrator", given: disputed(pt.Begun), as: redact("symptom"), by: "agnes", refused: procedure.ReasonEvidenceHold},
		{name: "not held after the ruling", given: disputed(pt.Ruled), as: redact("symptom"), by: "clara", then: events("FieldRedacted")},
		{name: "held while nobody takes the dispute", given: append(disputed(pt.CaseOpened), nobodyTakes(1), doesAs("casper", closeDeclined(1))), as: redact("symptom"), by: "clara", refused: procedure.ReasonEvidenceHold},
		{name: "later than the evidence", given: append(disputed(pt.Filed), pt.Does("clara", pt.Lead(false))), as: func(s *procedure.State) procedure.Command {
			r := fieldOf(s, "incident.LeadDecisionRecorded", "reason")
			return pt.Redact(r.Position, r.Commitment)
		}, by: "clara", then: events("FieldRedacted")},
		{name: "held while a dispute is owed", given: history(pt.Story(pt.Verified2)), as: redact("symptom"), by: "clara", refused: procedure.ReasonEvidenceHold},
	})
}

func TestReportRedaction(t *testing.T) {
	t.Parallel()
	done := func(s *procedure.State) procedure.Command {
		return &emergencyv1.ReportRedactionRequest{Redaction: fieldOf(s, "incident.EmergencyDeclared", "symptom").Redacted.Position}
	}
	redacted := history(pt.Story(pt.Verified), doesAs("clara", redact("symptom")))
	run(t, []row{
		{name: "done", given: redacted, as: done, by: "reactor", then: events("RedactionCompleted"), check: func(t *testing.T, w *pt.World) {
			if len(procedure.PendingRedactions(w.State)) > 0 {
				t.Error("still pending")
			}
		}},
		{name: "again", given: append(redacted, doesAs("reactor", done)), as: done, by: "reactor"},
		{name: "of nothing", given: redacted, when: &emergencyv1.ReportRedactionRequest{Redaction: 1}, by: "reactor", refused: procedure.ReasonEntry},
	})
}

func TestDisclose(t *testing.T) {
	t.Parallel()
	symptom := disclose("incident.EmergencyDeclared", "symptom")
	wrong := pt.Facts(procedure.Facts{Revealed: &procedure.Revealed{Salt: make([]byte, 32), Value: []byte("something else")}})
	sealed := append(disputed(pt.Begun), doesAs("arno", ruling(1, func(_ *procedure.State, c *emergencyv1.DeliverRulingRequest) {
		c.Sealed, c.BoardConfirmation = true, "m20261201.2"
	})))
	run(t, []row{
		{name: "by the lead", given: history(pt.Story(pt.Verified)), as: symptom, by: "clara", then: events("FieldDisclosed"), check: func(t *testing.T, w *pt.World) {
			p, err := procedure.DecodeEvent(w.Records[len(w.Records)-1].GetEvents()[0])
			if err != nil {
				t.Fatal(err)
			}
			if e := p.(*emergencyv1.FieldDisclosed); procedure.Commit(e.GetSalt(), e.GetValue()) != w.State.Declared.Symptom {
				t.Error("nobody can check it")
			}
		}},
		{name: "no such value", given: history(pt.Story(pt.Verified)), when: &emergencyv1.DiscloseRequest{Event: 1, Commitment: pt.Genesis("x")}, by: "clara", refused: procedure.ReasonEntry},
		{name: "a value that is another", given: history(pt.Story(pt.Verified)), as: symptom, by: "clara", with: []pt.Option{wrong}, refused: procedure.ReasonEntry},
		{name: "a value that is lost", given: history(pt.Story(pt.Verified)), as: symptom, by: "clara", with: []pt.Option{pt.Facts(procedure.Facts{})}, refused: procedure.ReasonValueGone},
		{name: "redacted", given: history(pt.Story(pt.Verified), doesAs("clara", redact("symptom"))), as: symptom, by: "clara", refused: procedure.ReasonValueGone},
		{name: "twice", given: history(pt.Story(pt.Verified), doesAs("clara", symptom)), as: symptom, by: "clara", refused: procedure.ReasonDisclosed},
		{name: "how somebody is reached", given: history(pt.Story(pt.Accepted)), as: disclose("notification.ResponderAccepted", "contact_path"), by: "clara", refused: procedure.ReasonNeverPublic},
		{name: "private proceedings", given: disputed(pt.Begun), as: disclose("arbitration.PreliminariesRecorded", "law"), by: "clara", refused: procedure.ReasonNeverPublic},
		{name: "by the arbitrator's order", given: disputed(pt.Begun), as: disclose("arbitration.PreliminariesRecorded", "law"), by: "arno", then: events("FieldDisclosed")},
		{name: "not by an arbitrator of other cases", given: disputed(pt.Begun), as: disclose("arbitration.PreliminariesRecorded", "law"), by: "alois", refused: procedure.ReasonNeverPublic},
		{name: "sealed by an order", given: append(disputed(pt.Appointed), sealOrder(pt.T0().AddDate(0, 1, 0))), as: symptom, by: "clara", refused: procedure.ReasonSealed},
		{name: "until its date", given: append(disputed(pt.Appointed), sealOrder(pt.T0().AddDate(0, 1, 0)), pt.Waits(pt.Month)), as: symptom, by: "clara", then: events("FieldDisclosed")},
		{name: "opened by the arbitrator before", given: append(disputed(pt.Appointed), sealOrder(pt.T0().AddDate(0, 1, 0))), as: symptom, by: "arno", then: events("FieldDisclosed")},
		{name: "a sealed ruling", given: sealed, as: disclose("arbitration.RulingDelivered", "logic"), by: "arno", refused: procedure.ReasonSealed},
		{name: "a sealed direction", given: sealed, as: disclose("arbitration.DirectionIssued", "text"), by: "arno", refused: procedure.ReasonSealed},
		{name: "by the reactor before it is due", given: history(pt.Story(pt.Verified)), as: symptom, by: "reactor", refused: procedure.ReasonNotDue},
		{name: "by the reactor when it is", given: history(pt.Story(pt.Replicated), pt.Waits(time.Minute)), as: symptom, by: "reactor", then: events("FieldDisclosed")},
		{name: "the reactor discloses nothing else", given: history(pt.Story(pt.Replicated), pt.Waits(time.Hour)), as: disclose("incident.EmergencyDeclared", "component"), by: "reactor", refused: procedure.ReasonNotDue},
	})
}

// What becomes public by itself does so at the comparison that finds host and branch equal, or 14 days after the apply (3.2).
func TestDueDisclosures(t *testing.T) {
	t.Parallel()
	due := func(w *pt.World) map[string]time.Time {
		list := map[string]time.Time{}
		for _, d := range procedure.DueDisclosures(w.State) {
			list[d.EventType+" "+d.Field] = d.Due
		}
		return list
	}
	if list := due(pt.Given(t, pt.Story(pt.Forwarded)).World()); len(list) > 0 {
		t.Errorf("nothing was changed, and %v is due", list)
	}
	w := pt.Given(t, pt.Story(pt.Verified)).World()
	applied := w.State.Applies[0].Applied.At
	list := due(w)
	for _, field := range []string{"incident.EmergencyDeclared symptom", "review.FirstReviewRecorded reason", "review.SecondReviewRecorded reason", "review.TestReported steps", "deployment.DeployVerified report.paths"} {
		if !list[field].Equal(applied.Add(14 * 24 * time.Hour)) {
			t.Errorf("%s is due %s, applied %s", field, list[field], applied)
		}
	}
	if _, ok := list["incident.EmergencyDeclared component"]; ok || len(list) != 5 {
		t.Errorf("due: %v", list)
	}
	pt.From(pt.Verified, pt.Replicated)(w)
	equal := w.State.Replications[0].At
	if got := due(w)["incident.EmergencyDeclared symptom"]; !got.Equal(equal) {
		t.Errorf("due %s, equal since %s", got, equal)
	}
	doesAs("clara", redact("symptom"))(w)
	doesAs("clara", disclose("review.TestReported", "steps"))(w)
	list = due(w)
	if _, ok := list["incident.EmergencyDeclared symptom"]; ok {
		t.Error("a redacted field is due")
	}
	sealedWorld := pt.Given(t, append(disputed(pt.Appointed), sealOrder(pt.T0().AddDate(0, 2, 0)))...).World()
	if got := due(sealedWorld)["incident.EmergencyDeclared symptom"]; !got.Equal(pt.T0().AddDate(0, 2, 0)) {
		t.Errorf("a sealed field is due %s", got)
	}
}

// Arbitrators read the evidence of their cases from being asked on; proceedings are private (DRP 3.2).
func TestMayReadInDispute(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, append(disputed(pt.Begun), pt.Does("mia", pt.FileDispute(aboutOther)))...).World()
	field := func(event, name string) procedure.RestrictedField {
		return procedure.RestrictedField{Field: name, Commitment: fieldOf(w.State, event, name).Commitment}
	}
	symptom := field("incident.EmergencyDeclared", "symptom")
	law := field("arbitration.PreliminariesRecorded", "law")
	complaint := procedure.RestrictedField{Field: "complaint", Commitment: w.State.Disputes[1].Complaint}
	for _, x := range []struct {
		who, event string
		f          procedure.RestrictedField
		may        bool
	}{
		{"arno", "incident.EmergencyDeclared", symptom, true}, {"alois", "incident.EmergencyDeclared", symptom, false},
		{"carla", "incident.EmergencyDeclared", symptom, true}, {"mia", "incident.EmergencyDeclared", symptom, false},
		{"arno", "arbitration.PreliminariesRecorded", law, true}, {"casper", "arbitration.PreliminariesRecorded", law, true},
		{"doris", "arbitration.PreliminariesRecorded", law, true}, {"carla", "arbitration.PreliminariesRecorded", law, false},
		{"alois", "arbitration.PreliminariesRecorded", law, false}, {"mia", "arbitration.DisputeFiled", complaint, true},
		{"bea", "arbitration.DisputeFiled", complaint, false}, {"carla", "arbitration.DisputeFiled", complaint, true},
		{"agnes", "incident.EmergencyDeclared", symptom, false}, // declined
	} {
		if refusal := procedure.MayRead(w.State, w.Book, x.who, w.Now, x.event, x.f); (refusal == nil) != x.may {
			t.Errorf("%s reads %s of %s: %v", x.who, x.f.Field, x.event, refusal)
		}
	}
	asked := pt.Given(t, disputed(pt.Proposed)...).World()
	if refusal := procedure.MayRead(asked.State, asked.Book, "agnes", asked.Now, "incident.EmergencyDeclared", symptom); refusal != nil {
		t.Errorf("whoever is asked cannot look whether to accept: %v", refusal)
	}
	doesAs("arno", ruling(1, func(_ *procedure.State, c *emergencyv1.DeliverRulingRequest) {
		c.Sealed, c.BoardConfirmation = true, "m20261201.2"
	}))(w)
	logic := field("arbitration.RulingDelivered", "logic")
	text := field("arbitration.DirectionIssued", "text")
	for who, may := range map[string]bool{"arno": true, "casper": true, "bea": true, "carl": false, "anna": false} {
		if refusal := procedure.MayRead(w.State, w.Book, who, w.Now, "arbitration.RulingDelivered", logic); (refusal == nil) != may {
			t.Errorf("%s reads a sealed ruling: %v", who, refusal)
		}
	}
	for who, may := range map[string]bool{"carla": true, "carl": false} {
		if refusal := procedure.MayRead(w.State, w.Book, who, w.Now, "arbitration.DirectionIssued", text); (refusal == nil) != may {
			t.Errorf("%s reads what carla is ordered to do: %v", who, refusal)
		}
	}
}
