// SPDX-License-Identifier: Apache-2.0

package hammer

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The rules of arbitration find nothing in a dispute that went through all instances, and everything that is wrong in one.
func TestRulesOfArbitration(t *testing.T) {
	t.Parallel()
	const about = emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1
	play := func(t *testing.T, to proceduretest.Milestone) *proceduretest.World {
		w := proceduretest.Given(t, proceduretest.Story(proceduretest.Verified), proceduretest.Does("clara", proceduretest.Lead(false))).World()
		proceduretest.Dispute(about, to)(w)
		return w
	}
	whole := play(t, proceduretest.FinalRuled)
	whole.Do("clara", proceduretest.Redact(1, whole.State.Declared.Symptom))
	whole.Do("reactor", &emergencyv1.ReportRedactionRequest{Redaction: whole.State.Position})
	whole.Do("clara", &emergencyv1.DiscloseRequest{Event: 1, Commitment: whole.State.Declared.Component})
	if err := CheckRules(messages(t, whole.Records), peopleKeys()); err != nil {
		t.Fatalf("as it should be: %v", err)
	}
	first := func(w *proceduretest.World) string { return w.State.Disputes[0].ID }
	last := func(w *proceduretest.World) string { return w.State.Disputes[len(w.State.Disputes)-1].ID }
	attached := func(w *proceduretest.World) []*emergencyv1.AttachedDeviation {
		var list []*emergencyv1.AttachedDeviation
		for _, v := range w.State.Deviations {
			list = append(list, &emergencyv1.AttachedDeviation{Position: v.Position, Deviation: v.Deviation})
		}
		return list
	}
	ruling := func(w *proceduretest.World, change func(*emergencyv1.RulingDelivered)) []proto.Message {
		c := proceduretest.DeliverRuling(w.State, last(w))
		e := &emergencyv1.RulingDelivered{Ruling: "R1", Dispute: last(w), Arbitrator: "arno", Judgements: c.GetJudgements(), EvidenceRoot: w.State.HeadHash}
		change(e)
		return []proto.Message{e}
	}
	for _, c := range []struct {
		name  string
		after proceduretest.Milestone
		owner string
		add   func(*proceduretest.World) []proto.Message
		want  string
	}{
		{"evidence of nothing", proceduretest.Filed, "", func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.DisputeFiled{Dispute: "a20261125.9", FiledBy: "carl", HeadHash: proceduretest.Genesis("x"), Deviations: attached(w)}}
		}, "no record of the incident"},
		{"a deviation left out", proceduretest.Filed, "", func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.DisputeFiled{Dispute: "a20261125.9", FiledBy: "carl", HeadHash: w.State.HeadHash, EvidencePosition: w.State.Position}}
		}, "attached to a20261125.9: []"},
		{"managed by who acted", proceduretest.Filed, "", func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.CaseOpened{Dispute: first(w), CaseNumber: "c1", CaseManager: "theo"}}
		}, "case manager theo, who acted"},
		{"two cases", proceduretest.CaseOpened, "", func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.CaseOpened{Dispute: first(w), CaseNumber: "c2", CaseManager: "casper"}}
		}, "has two cases"},
		{"judged by who acted", proceduretest.CaseOpened, "", func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.ArbitratorProposed{Dispute: first(w), Candidate: "carl"}, &emergencyv1.ArbitratorAccepted{Dispute: first(w), Arbitrator: "carl"}}
		}, "arbitrator carl, who acted"},
		{"judged by its manager", proceduretest.CaseOpened, "", func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.ArbitratorProposed{Dispute: first(w), Candidate: "casper"}, &emergencyv1.ArbitratorAccepted{Dispute: first(w), Arbitrator: "casper"}}
		}, "manages the case and judges it"},
		{"accepted by who was not asked", proceduretest.Proposed, "", func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.ArbitratorAccepted{Dispute: first(w), Arbitrator: "arno"}}
		}, `"agnes" was asked`},
		{"ruled before the proceedings", proceduretest.Appointed, "", func(w *proceduretest.World) []proto.Message {
			return ruling(w, func(*emergencyv1.RulingDelivered) {})
		}, "before its proceedings began"},
		{"ruled by another", proceduretest.Begun, "", func(w *proceduretest.World) []proto.Message {
			return ruling(w, func(e *emergencyv1.RulingDelivered) { e.Arbitrator = "agnes" })
		}, `its arbitrator is "arno"`},
		{"ruled without a signature", proceduretest.Begun, "", func(w *proceduretest.World) []proto.Message {
			return ruling(w, func(*emergencyv1.RulingDelivered) {})
		}, "signed by nobody"},
		{"a deviation not judged", proceduretest.Begun, "", func(w *proceduretest.World) []proto.Message {
			return ruling(w, func(e *emergencyv1.RulingDelivered) { e.Judgements = nil })
		}, "has 0 findings"},
		{"sealed without the Board", proceduretest.Begun, "", func(w *proceduretest.World) []proto.Message {
			return ruling(w, func(e *emergencyv1.RulingDelivered) { e.Sealed = true })
		}, "sealed without the Board"},
		{"ruled twice", proceduretest.Ruled, "", func(w *proceduretest.World) []proto.Message {
			return ruling(w, func(e *emergencyv1.RulingDelivered) { e.Ruling = "R2" })
		}, "rules on"},
		{"confirmed by who did it", proceduretest.Ruled, "", func(*proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.DirectionReported{Direction: "D1", Person: "carla"}, &emergencyv1.DirectionConfirmed{Direction: "D1", Person: "carla"}}
		}, `of "carla" is confirmed by carla`},
		{"reviewed by who ruled", proceduretest.ReviewAsked, "", func(w *proceduretest.World) []proto.Message {
			return []proto.Message{
				&emergencyv1.CaseOpened{Dispute: last(w), CaseNumber: "c2", CaseManager: "casper"}, &emergencyv1.ArbitratorProposed{Dispute: last(w), Candidate: "arno"},
				&emergencyv1.ArbitratorAccepted{Dispute: last(w), Arbitrator: "arno"}, &emergencyv1.ReviewRuled{Dispute: last(w), Arbitrator: "arno"},
			}
		}, "reviews an own ruling"},
		{"a panel with who ruled", proceduretest.Reopened, "", func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.AppealPanelFormed{Dispute: last(w), Members: []string{"arno", "adele", "alois"}, Senior: "adele"}}
		}, "panel member arno ruled"},
		{"a panel without re-opening", proceduretest.ReviewAppointed, "", func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.AppealPanelFormed{Dispute: last(w), Members: []string{"achim", "adele", "alois"}, Senior: "adele"}}
		}, "was not re-opened"},
		{"closed with an open dispute", proceduretest.Begun, procedure.OwnerIncident, func(*proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.IncidentClosed{}}
		}, "closed while dispute"},
		{"disclosed something else", proceduretest.Filed, "", func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.FieldDisclosed{Event: 1, Commitment: w.State.Declared.Symptom, Field: "symptom", Value: []byte("nothing"), Salt: make([]byte, 32)}}
		}, "not what was committed to"},
		{"erased without an order", proceduretest.Filed, "", func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.RedactionCompleted{Redaction: 1, Commitment: w.State.Declared.Symptom}}
		}, "that nobody ordered"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := play(t, c.after)
			owner := c.owner
			if owner == "" {
				owner = procedure.OwnerArbitration
			}
			w.Append(owner, "Doctored", c.add(w)...)
			wantWrong(t, messages(t, w.Records), c.want)
		})
	}
}
