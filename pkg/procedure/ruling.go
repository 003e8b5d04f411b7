// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Proceedings, rulings, directions and appeal (seed 2.6, 3.9; DRP 2 and 3; procedure.md 4.5).

func (f *fields) orders(name string, list []*emergencyv1.Order) {
	for _, o := range list {
		f.want(given(o.GetText()), name+".text", "what is to be done")
		f.want((o.GetPerson() == "") != (o.GetRole() == 0), name+".person", "a person or else a role that has to do it")
		f.optionalWord(name+".person", o.GetPerson())
		f.want(o.GetDueAt() != nil, name+".due_at", "until when")
	}
}

// issue emits one direction for each order.
func (d *decision) issue(x *Dispute, list []*emergencyv1.Order) *Refusal {
	for i, o := range list {
		if !o.GetDueAt().AsTime().After(d.at) {
			return refuse(ReasonField, "the order %q is due at %s, which has passed", o.GetText(), stamp(o.GetDueAt().AsTime())).under("4.5").allow(d.row.name, "due_at", "name a later time")
		}
		kind := o.GetKind()
		if kind == 0 {
			kind = emergencyv1.DirectionKind_DIRECTION_KIND_DO
		}
		d.emit(&emergencyv1.DirectionIssued{
			Direction: fmt.Sprintf("D%d", len(d.s.Directions)+i+1), Dispute: x.ID, Kind: kind, Person: o.GetPerson(), Role: o.GetRole(),
			Text: d.seal(o.GetText()), DueAt: timestamppb.New(o.GetDueAt().AsTime()),
		})
	}
	return nil
}

func preliminariesFields(f *fields, c *emergencyv1.RecordPreliminariesRequest) {
	f.dispute(c.GetDispute())
	f.want(given(c.GetJurisdiction()), "jurisdiction", "why arbitration may decide")
	f.want(given(c.GetLaw()), "law", "the law that applies")
	f.lines("joined", c.GetJoined())
	f.lines("dismissed", c.GetDismissed())
	f.orders("orders", c.GetOrders())
}

// decidePreliminaries opens the proceedings; further ones may follow until the ruling, such as an order in an emergency. Whoever
// joins as a party is not case manager or arbitrator (X14, X15).
func decidePreliminaries(d *decision, c *emergencyv1.RecordPreliminariesRequest) *Refusal {
	x, refusal := d.judged(c.GetDispute())
	if refusal != nil {
		return refusal
	}
	for _, p := range c.GetJoined() {
		if p == x.Opened.By || p == d.person {
			return refuse(ReasonConflictOfInterest, "%s would be a party of %s and decide or manage it", p, x.ID).under("X14, X15 (DRP 1.5, 2.2)")
		}
	}
	d.emit(&emergencyv1.PreliminariesRecorded{
		Dispute: x.ID, Jurisdiction: d.seal(c.GetJurisdiction()), Law: d.seal(c.GetLaw()), Joined: d.seal(strings.Join(c.GetJoined(), "\n")),
		Dismissed: d.seal(strings.Join(c.GetDismissed(), "\n")), Orders: uint32(len(c.GetOrders())),
	})
	return d.issue(x, c.GetOrders())
}

// judged finds an open dispute of which the actor is the arbitrator, or for a panel the senior member.
func (d *decision) judged(id string) (*Dispute, *Refusal) {
	x, refusal := d.inCase(id)
	if refusal != nil {
		return nil, refusal
	}
	arbitrator := x.Arbitrator
	if len(x.Panel) > 0 {
		arbitrator = x.Senior
	}
	if arbitrator != d.person {
		who := "nobody yet"
		if arbitrator != "" {
			who = arbitrator
		}
		return nil, refuse(ReasonNotCaseArbitrator, "the arbitrator of %s is %s", x.ID, who).allow("ProposeArbitrator", x.ID, "the case manager proposes an arbitrator, who accepts")
	}
	return x, nil
}

func rulingFields(f *fields, c *emergencyv1.DeliverRulingRequest) {
	f.dispute(c.GetDispute())
	f.want(c.GetEvidenceRoot() == "" || digestForm.MatchString(c.GetEvidenceRoot()), "evidence_root", "64 lower-case hex digits, or empty for the history as it stands")
	f.orders("directions", c.GetDirections())
	f.lines("lifted", c.GetLifted())
	f.optionalWord("board_confirmation", c.GetBoardConfirmation())
}

// rulingClaims are what an arbitrator signs: everything that the ruling says, long texts by their digest.
func rulingClaims(c *emergencyv1.DeliverRulingRequest) []*emergencyv1.Claim {
	var directions []string
	for _, o := range c.GetDirections() {
		directions = append(directions, fmt.Sprintf("%s %s%s until %s: %s", o.GetKind(), o.GetPerson(), roleWord(o.GetRole()), o.GetDueAt().AsTime().UTC().Format("2006-01-02T15:04:05Z"), o.GetText()))
	}
	return []*emergencyv1.Claim{
		claim("dispute", c.GetDispute()), claim("parties", c.GetParties()), claim("facts", c.GetFacts()), claim("logic", c.GetLogic()),
		claim("directions", strings.Join(directions, "\n")), claim("place", c.GetPlace()), claim("judgements", judgementText(c.GetJudgements())),
		claim("lifted", strings.Join(c.GetLifted(), " ")), claim("evidence_root", c.GetEvidenceRoot()), claim("sealed", fmt.Sprint(c.GetSealed())),
		claim("board_confirmation", c.GetBoardConfirmation()), claim("reopen", fmt.Sprint(c.GetReopen())),
	}
}

func judgementText(list []*emergencyv1.Judgement) string {
	var words []string
	for _, j := range list {
		words = append(words, fmt.Sprintf("%d %s %s", j.GetPosition(), j.GetDeviation(), j.GetFinding()))
	}
	return strings.Join(words, "; ")
}

// decideRuling takes a ruling: of the case's arbitrator; on a request for review, whether the case is re-opened; of a panel the
// final one. X14 is asked again: whoever acted in the incident since does not rule.
func decideRuling(d *decision, c *emergencyv1.DeliverRulingRequest) *Refusal {
	x, refusal := d.judged(c.GetDispute())
	if refusal != nil {
		return refusal
	}
	if refusal := d.mayJudge(d.person, x); refusal != nil {
		return refusal
	}
	if x.Review() && len(x.Panel) == 0 {
		return d.reviewRuling(x, c)
	}
	return d.ruling(x, c)
}

func (d *decision) reviewRuling(x *Dispute, c *emergencyv1.DeliverRulingRequest) *Refusal {
	if x.Reopened.Position > 0 {
		return d.disputeState(x, "is re-opened and waits for its panel").allow("FormAppealPanel", x.ID, "the dispute officer forms the panel: %s", d.whoHas(roles(dro)))
	}
	if refusal := d.drpFields(map[string]bool{"logic": given(c.GetLogic())}); refusal != nil {
		return refusal
	}
	d.emit(&emergencyv1.ReviewRuled{Dispute: x.ID, Arbitrator: d.person, Reopened: c.GetReopen(), Logic: d.seal(c.GetLogic())})
	return nil
}

func (d *decision) ruling(x *Dispute, c *emergencyv1.DeliverRulingRequest) *Refusal {
	if x.Preliminaries.Position == 0 && !x.Review() { // a panel goes on from the proceedings that it reviews
		return refuse(ReasonPreliminariesMissing, "the proceedings of %s have not begun", x.ID).allow("RecordPreliminaries", x.ID, "record jurisdiction, law and parties")
	}
	if refusal := d.drpFields(map[string]bool{
		"parties": given(c.GetParties()), "facts": given(c.GetFacts()), "logic": given(c.GetLogic()), "directions": len(c.GetDirections()) > 0, "place": given(c.GetPlace()),
	}); refusal != nil {
		return refusal
	}
	if refusal := d.allJudged(x, c.GetJudgements()); refusal != nil {
		return refusal
	}
	root, refusal := d.evidenceRoot(c.GetEvidenceRoot())
	if refusal != nil {
		return refusal
	}
	if refusal := d.mayLift(c.GetLifted()); refusal != nil {
		return refusal
	}
	if c.GetSealed() && c.GetBoardConfirmation() == "" && !d.hypothetical {
		return refuse(ReasonBoardDecisionMissing, "a ruling is kept secret only with the Board's confirmation").under("4.5 DeliverRuling (DRP 3.2)").
			allow("DeliverRuling", x.ID, "name the Board's confirmation: %s", d.whoHas(roles(bd)))
	}
	d.emit(&emergencyv1.RulingDelivered{
		Ruling: fmt.Sprintf("R%d", len(d.s.Rulings)+1), Dispute: x.ID, Arbitrator: d.person, Parties: d.seal(c.GetParties()), Facts: d.seal(c.GetFacts()),
		Logic: d.seal(c.GetLogic()), Place: c.GetPlace(), Judgements: c.GetJudgements(), Lifted: c.GetLifted(), EvidenceRoot: root.Hash,
		Sealed: c.GetSealed(), BoardConfirmation: c.GetBoardConfirmation(), Final: len(x.Panel) > 0, Directions: uint32(len(c.GetDirections())),
	})
	return d.issue(x, c.GetDirections())
}

// attached are the deviations that a ruling on a dispute must judge: those of all disputes that it decides, in order.
func (s *State) attached(x *Dispute) []DeviationAt {
	var list []DeviationAt
	for _, y := range s.family(x) {
		for _, v := range y.Deviations {
			if !slices.Contains(list, v) {
				list = append(list, v)
			}
		}
	}
	slices.SortFunc(list, func(a, b DeviationAt) int {
		if a.Position != b.Position {
			return int(a.Position) - int(b.Position)
		}
		return int(a.Deviation) - int(b.Deviation)
	})
	return list
}

// Attached are the deviations that a ruling on a dispute must judge.
func Attached(s *State, dispute string) []DeviationAt {
	x, ok := s.Dispute(dispute)
	if !ok {
		return nil
	}
	return s.attached(x)
}

func (d *decision) allJudged(x *Dispute, list []*emergencyv1.Judgement) *Refusal {
	if d.hypothetical {
		return nil
	}
	judged := map[DeviationAt]int{}
	for _, j := range list {
		if j.GetFinding() != 0 {
			judged[DeviationAt{j.GetPosition(), j.GetDeviation()}]++
		}
	}
	attached := d.s.attached(x)
	for _, v := range attached {
		if judged[v] != 1 {
			return refuse(ReasonDeviationUnjudged, "the deviation %q at position %d has %d findings", deviationWord(v.Deviation), v.Position, judged[v]).
				allow("DeliverRuling", x.ID, "give each of the %d deviations one finding: justified, not justified or no finding", len(attached))
		}
	}
	if len(list) != len(attached) {
		return refuse(ReasonField, "%d findings are given on %d attached deviations", len(list), len(attached)).under("4.5 DeliverRuling").allow("DeliverRuling", x.ID, "judge what is attached")
	}
	return nil
}

// mayLift: what is lifted must be owed. Only a ruling can lift an obligation (7; SP 1.2, 9.1.1).
func (d *decision) mayLift(ids []string) *Refusal {
	if len(ids) == 0 {
		return nil
	}
	open := d.s.openDebts()
	for i, id := range ids {
		owed := slices.ContainsFunc(open, func(o Obligation) bool { return o.ID == id })
		if !owed || slices.Contains(ids[:i], id) {
			return refuse(ReasonObligation, "there is no open obligation %s to lift", id).allow("DeliverRuling", "", "name open obligations, each once")
		}
	}
	return nil
}

func publishRulingFields(f *fields, c *emergencyv1.PublishRulingRequest) {
	f.word("ruling", c.GetRuling())
}

// decidePublishRuling publishes within privacy; of a sealed one only that it exists (DRP 3.2; procedure.md 5.5).
func decidePublishRuling(d *decision, c *emergencyv1.PublishRulingRequest) *Refusal {
	r, x, refusal := d.rulingOf(c.GetRuling())
	if refusal != nil {
		return refusal
	}
	if refusal := d.unconflicted(d.person, x); refusal != nil {
		return refusal
	}
	switch {
	case r.Published.Position > 0:
		return d.disputeState(x, "has its ruling "+r.ID+" published already")
	case r.Sealed && given(c.GetText()):
		return refuse(ReasonSealed, "%s is sealed; only its existence is published", r.ID).allow("PublishRuling", r.ID, "give no text")
	case !r.Sealed && !given(c.GetText()) && !d.hypothetical:
		return refuse(ReasonField, "the text for the public log is missing").under("4.5 PublishRuling").allow("PublishRuling", r.ID, "give the text, without what is private")
	}
	d.emit(&emergencyv1.RulingPublished{Ruling: r.ID, Dispute: x.ID, Text: c.GetText(), Sealed: r.Sealed})
	return nil
}

func (d *decision) rulingOf(id string) (*Ruling, *Dispute, *Refusal) {
	if r, ok := d.s.Ruling(id); ok {
		if x, ok := d.s.Dispute(r.Dispute); ok {
			return r, x, nil
		}
	}
	return nil, nil, refuse(ReasonNoRuling, "%s has no ruling %s", d.s.Incident, id).allow("DeliverRuling", "", "name one of its rulings")
}

func (f *fields) direction(id string) {
	f.want(id != "" && id[0] == 'D', "direction", "a direction such as D1")
}

func reportDirectionFields(f *fields, c *emergencyv1.ReportDirectionDoneRequest) {
	f.direction(c.GetDirection())
	f.want(given(c.GetProof()), "proof", "what shows that it was done")
}

func decideReportDirection(d *decision, c *emergencyv1.ReportDirectionDoneRequest) *Refusal {
	x, refusal := d.direction(c.GetDirection())
	if refusal != nil {
		return refusal
	}
	if x.Person != d.person && (x.Role == 0 || !d.holds(d.person, x.Role)) {
		return refuse(ReasonNotNamed, "%s is for %s", x.ID, x.named()).allow("ReportDirectionDone", x.ID, "whoever it is for reports it")
	}
	d.emit(&emergencyv1.DirectionReported{Direction: x.ID, Person: d.person, Proof: d.seal(c.GetProof())})
	return nil
}

// named is whom a direction is for, in words.
func (x Direction) named() string {
	if x.Person != "" {
		return x.Person
	}
	return roleWord(x.Role)
}

// direction finds a direction that is still to be carried out.
func (d *decision) direction(id string) (*Direction, *Refusal) {
	x, ok := d.s.Direction(id)
	switch {
	case !ok:
		return nil, refuse(ReasonDirection, "%s has no direction %s", d.s.Incident, id).allow("", "", "name one of its directions")
	case x.Done.Position > 0:
		return nil, refuse(ReasonDisputeState, "%s is confirmed to be carried out", id)
	case x.Void.Position > 0:
		return nil, refuse(ReasonDisputeState, "%s is void: the ruling it is part of was superseded by %s", id, x.Void.Result)
	}
	return x, nil
}

func confirmDirectionFields(f *fields, c *emergencyv1.ConfirmDirectionRequest) {
	f.direction(c.GetDirection())
}

// decideConfirmDirection needs a report by somebody else than the one who confirms. Whoever a direction is for by name never
// confirms it; and X14 holds for whoever does.
func decideConfirmDirection(d *decision, c *emergencyv1.ConfirmDirectionRequest) *Refusal {
	x, refusal := d.direction(c.GetDirection())
	if refusal != nil {
		return refusal
	}
	if x.Reported.Position == 0 {
		return refuse(ReasonDisputeState, "nobody has reported %s as carried out", x.ID).allow("ReportDirectionDone", x.ID, "%s reports it", x.named())
	}
	if x.Reported.By == d.person || x.Person == d.person {
		return refuse(ReasonSamePerson, "%s carried %s out and cannot confirm it", d.person, x.ID).under("4.5 ConfirmDirection").allow("ConfirmDirection", x.ID, "have it confirmed by %s", d.another(cm, ar))
	}
	if y, ok := d.s.Dispute(x.Dispute); ok {
		if refusal := d.unconflicted(d.person, y); refusal != nil {
			return refusal
		}
	}
	d.emit(&emergencyv1.DirectionConfirmed{Direction: x.ID, Person: d.person})
	return nil
}

func requestReviewFields(f *fields, c *emergencyv1.RequestReviewRequest) {
	f.word("ruling", c.GetRuling())
	f.want(c.GetGround() != 0, "ground", "injustice, egregious or unconscionable (DRP 3.4)")
	f.want(given(c.GetText()), "text", "why")
}

// decideRequestReview opens a dispute of kind review; the ruling stays binding meanwhile. A panel's ruling is final.
func decideRequestReview(d *decision, c *emergencyv1.RequestReviewRequest) *Refusal {
	r, _, refusal := d.rulingOf(c.GetRuling())
	if refusal != nil {
		return refusal
	}
	if r.Final || r.Superseded != "" {
		return refuse(ReasonNoRuling, "%s is final, or was superseded by a final ruling; there is no ruling left to review", r.ID).under("4.5 RequestReview (DRP 3.4)")
	}
	for _, x := range d.s.Disputes {
		if x.Of == r.ID && x.Open() {
			return refuse(ReasonDisputeExists, "the review of %s was already requested as %s, and it is open", r.ID, x.ID).allow("", x.ID, "follow %s, or join it as a party", x.ID)
		}
	}
	d.emit(&emergencyv1.ReviewRequested{Dispute: d.disputeID(), Ruling: r.ID, Ground: c.GetGround(), Text: d.seal(c.GetText()), RequestedBy: d.person})
	return nil
}

func appealPanelFields(f *fields, c *emergencyv1.FormAppealPanelRequest) {
	f.dispute(c.GetDispute())
	for _, p := range c.GetMembers() {
		f.word("members", p)
	}
}

// decideAppealPanel forms a panel of three arbitrators who had no part in case or review (DRP 3.4).
func decideAppealPanel(d *decision, c *emergencyv1.FormAppealPanelRequest) *Refusal {
	x, refusal := d.inCase(c.GetDispute())
	switch {
	case refusal != nil:
		return refusal
	case !x.Review() || x.Reopened.Position == 0:
		return refuse(ReasonNotReopened, "%s is no case that was re-opened", x.ID).allow("DeliverRuling", x.ID, "the arbitrator of the review decides whether it is")
	case len(x.Panel) > 0:
		return d.disputeState(x, "has a panel already")
	}
	members := distinct(c.GetMembers())
	if d.hypothetical {
		return nil
	}
	if len(members) != 3 || len(c.GetMembers()) != 3 || !slices.Contains(members, c.GetSenior()) {
		return refuse(ReasonPanel, "a panel is three persons, and the senior one is one of them").allow("FormAppealPanel", x.ID, "name three of %s", d.whoHas(roles(ar)))
	}
	for _, p := range members {
		for _, y := range d.s.family(x) {
			if y.Arbitrator == p || y.Opened.By == p {
				had := "was the arbitrator"
				if y.Arbitrator != p {
					had = "opened the case"
				}
				return refuse(ReasonPanel, "%s %s of %s", p, had, y.ID).allow("FormAppealPanel", x.ID, "name somebody who was not: %s", d.whoHas(roles(ar)))
			}
		}
		if refusal := d.listed(p, x); refusal != nil {
			return refusal
		}
	}
	d.emit(&emergencyv1.AppealPanelFormed{Dispute: x.ID, Members: c.GetMembers(), Senior: c.GetSenior()})
	return nil
}

// expectFromArbitration compares what an arbitrator or lead signed with what is recorded as theirs.
func expectFromArbitration(payload proto.Message, is, isOrEmpty func(name, value string) error) error {
	all := func(pairs ...string) error {
		for i := 0; i < len(pairs); i += 2 {
			if err := is(pairs[i], pairs[i+1]); err != nil {
				return err
			}
		}
		return nil
	}
	switch e := payload.(type) {
	case *emergencyv1.RulingDelivered:
		if err := isOrEmpty("evidence_root", e.GetEvidenceRoot()); err != nil {
			return err
		}
		for _, c := range []*emergencyv1.Claim{claim("judgements", judgementText(e.GetJudgements())), claim("lifted", strings.Join(e.GetLifted(), " ")), claim("place", e.GetPlace())} {
			if err := is(c.GetName(), c.GetValue()); err != nil {
				return err
			}
		}
		return all("dispute", e.GetDispute(), "sealed", fmt.Sprint(e.GetSealed()), "board_confirmation", e.GetBoardConfirmation())
	case *emergencyv1.ReviewRuled:
		return all("dispute", e.GetDispute(), "reopen", fmt.Sprint(e.GetReopened()))
	case *emergencyv1.FieldRedacted:
		c := redactClaims(&emergencyv1.RedactRequest{Event: e.GetEvent(), Commitment: e.GetCommitment(), Ground: e.GetGround(), Clause: e.GetClause()})
		for _, x := range c {
			if err := is(x.GetName(), x.GetValue()); err != nil {
				return err
			}
		}
	}
	return nil
}

// personInArbitration is the person whom an event of arbitration names as the one who did it.
func personInArbitration(payload proto.Message) string {
	switch e := payload.(type) {
	case *emergencyv1.DisputeFiled:
		return e.GetFiledBy()
	case *emergencyv1.CaseOpened:
		return e.GetCaseManager()
	case *emergencyv1.ArbitratorAccepted:
		return e.GetArbitrator()
	case *emergencyv1.ArbitratorDeclined:
		return e.GetCandidate()
	case *emergencyv1.RulingDelivered:
		return e.GetArbitrator()
	case *emergencyv1.ReviewRuled:
		return e.GetArbitrator()
	case *emergencyv1.DirectionReported:
		return e.GetPerson()
	case *emergencyv1.DirectionConfirmed:
		return e.GetPerson()
	case *emergencyv1.ReviewRequested:
		return e.GetRequestedBy()
	}
	return ""
}
