// SPDX-License-Identifier: Apache-2.0

package hammer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// docket is what the rules of arbitration need to remember of one incident, written down a second time from procedure.md 4.5.
type docket struct {
	hashes     map[string]uint64 // of the records, and where they end
	acted      map[string]bool   // by something else than arbitration
	deviations []string
	disputes   map[string]*disputeFile
	rulings    map[string]string // to their dispute
	directions map[string]string // to who reported; "-" for nobody yet
	redacted   map[string]bool
	disclosed  map[string]bool
}

type disputeFile struct {
	attached           []string
	filer, manager     string
	candidate, judge   string
	number, of, senior string
	refiled            string
	begun, reopened    bool
	joined, ended      bool
	members            []string
}

func newDocket() *docket {
	return &docket{
		hashes: map[string]uint64{}, acted: map[string]bool{}, disputes: map[string]*disputeFile{}, rulings: map[string]string{}, directions: map[string]string{},
		redacted: map[string]bool{}, disclosed: map[string]bool{},
	}
}

// done notes a record after its events were judged: its hash, its deviations, and who acted by it.
func (d *docket) done(rec *emergencyv1.Record, stored []byte, refused bool) {
	for i, e := range rec.GetEvents() {
		for _, v := range e.GetDeviations() {
			d.deviations = append(d.deviations, fmt.Sprint(rec.GetFirstPosition()+uint64(i), " ", v))
		}
	}
	sum := sha256.Sum256(stored)
	d.hashes[hex.EncodeToString(sum[:])] = rec.GetFirstPosition() + uint64(len(rec.GetEvents())) - 1
	judging := slices.Contains([]string{
		"OpenCase", "ProposeArbitrator", "RespondAppointment", "CloseDeclined", "RecordPreliminaries", "DeliverRuling", "PublishRuling", "ConfirmDirection", "FormAppealPanel",
	}, rec.GetCommand())
	arbitrator := rec.GetActor().GetRole() == emergencyv1.Role_ROLE_ARBITRATOR && (rec.GetCommand() == "Redact" || rec.GetCommand() == "Disclose")
	if p := rec.GetActor().GetPerson(); p != "" && !refused && !judging && !arbitrator {
		d.acted[p] = true
	}
}

// afterEndToo are the events of arbitration that an ended incident may still have: all of them (6, rule 6).
var afterEndToo = []string{
	"DisputeFiled", "FilingReported", "CaseOpened", "ArbitratorProposed", "ArbitratorAccepted", "ArbitratorDeclined", "DisputeClosedDeclined", "PreliminariesRecorded",
	"DirectionIssued", "RulingDelivered", "ReviewRuled", "RulingPublished", "DirectionReported", "DirectionConfirmed", "ReviewRequested", "AppealPanelFormed",
	"FieldRedacted", "RedactionCompleted", "FieldDisclosed",
}

func (j *judge) dispute(c *caseFile, id string) *disputeFile {
	x, ok := c.docket.disputes[id]
	if !ok {
		j.want(c, false, "there is no dispute %s", id)
		return &disputeFile{}
	}
	return x
}

// free: nobody who acted, brought the dispute, or manages it, decides it; and no manager acted (X14).
func (j *judge) free(c *caseFile, x *disputeFile, who, what string) {
	j.want(c, !c.docket.acted[who], "%s %s, who acted in the incident", what, who)
	j.want(c, x.filer != who, "%s %s, who brought the dispute", what, who)
}

// arbitration judges the events of chapter 5.5 that are about disputes.
func (j *judge) arbitration(c *caseFile, payload proto.Message) {
	switch e := payload.(type) {
	case *emergencyv1.DisputeFiled:
		j.filed(c, e)
	case *emergencyv1.ReviewRequested:
		j.want(c, c.docket.rulings[e.GetRuling()] != "", "a review of ruling %s, which nobody gave", e.GetRuling())
		j.want(c, c.once("dispute/%s", e.GetDispute()), "dispute %s is there twice", e.GetDispute())
		c.docket.disputes[e.GetDispute()] = &disputeFile{filer: e.GetRequestedBy(), of: c.docket.rulings[e.GetRuling()]}
	case *emergencyv1.CaseOpened:
		x := j.dispute(c, e.GetDispute())
		j.want(c, x.number == "", "dispute %s has two cases", e.GetDispute())
		j.free(c, x, e.GetCaseManager(), "case manager")
		for _, y := range c.docket.disputes {
			if y.number == e.GetCaseNumber() && x.of == "" && y.of == "" && y.refiled == "" && !y.joined { // a review has a case of its own
				x.ended, x.joined = true, true
				y.attached = append(y.attached, x.attached...)
			}
		}
		x.number, x.manager = e.GetCaseNumber(), e.GetCaseManager()
	case *emergencyv1.ArbitratorProposed:
		x := j.dispute(c, e.GetDispute())
		j.want(c, x.number != "" && !x.ended, "an arbitrator is proposed in %s, which has no open case", e.GetDispute())
		j.free(c, x, e.GetCandidate(), "candidate")
		x.candidate = e.GetCandidate()
	case *emergencyv1.ArbitratorAccepted:
		x := j.dispute(c, e.GetDispute())
		j.want(c, x.candidate == e.GetArbitrator(), "%s accepts, %q was asked", e.GetArbitrator(), x.candidate)
		j.free(c, x, e.GetArbitrator(), "arbitrator")
		j.want(c, x.manager != e.GetArbitrator(), "%s manages the case and judges it", e.GetArbitrator())
		x.judge, x.candidate = e.GetArbitrator(), ""
	case *emergencyv1.ArbitratorDeclined:
		x := j.dispute(c, e.GetDispute())
		j.want(c, x.candidate == e.GetCandidate(), "%s declines, %q was asked", e.GetCandidate(), x.candidate)
		x.candidate = ""
	case *emergencyv1.DisputeClosedDeclined:
		x := j.dispute(c, e.GetDispute())
		j.want(c, x.judge == "" && !x.ended, "dispute %s is closed and has an arbitrator, or was ended", e.GetDispute())
		x.ended = true
	case *emergencyv1.PreliminariesRecorded:
		x := j.dispute(c, e.GetDispute())
		j.want(c, !x.ended && c.actor.GetPerson() == x.by(), "the proceedings of %s are begun by %s, its arbitrator is %q", e.GetDispute(), c.actor.GetPerson(), x.by())
		x.begun = true
	default:
		j.rulings(c, payload)
	}
}

// by is who rules.
func (x *disputeFile) by() string {
	if x.senior != "" {
		return x.senior
	}
	return x.judge
}

func (j *judge) filed(c *caseFile, e *emergencyv1.DisputeFiled) {
	j.want(c, c.once("dispute/%s", e.GetDispute()), "dispute %s is there twice", e.GetDispute())
	at, ok := c.docket.hashes[e.GetHeadHash()]
	j.want(c, ok && at == e.GetEvidencePosition(), "the evidence of %s ends with %.12s at %d, which is no record of the incident", e.GetDispute(), e.GetHeadHash(), e.GetEvidencePosition())
	x := &disputeFile{filer: e.GetFiledBy()}
	for _, v := range e.GetDeviations() {
		x.attached = append(x.attached, fmt.Sprint(v.GetPosition(), " ", v.GetDeviation()))
	}
	j.want(c, slices.Equal(x.attached, c.docket.deviations), "attached to %s: %v, the incident has %v", e.GetDispute(), x.attached, c.docket.deviations)
	if old := e.GetRefiles(); old != "" {
		y := j.dispute(c, old)
		j.want(c, y.refiled == "" && y.judge == "", "%s files %s again, which has an arbitrator or was filed again", e.GetDispute(), old)
		x.attached = append(x.attached, y.attached...)
		y.refiled, y.ended = e.GetDispute(), true
	}
	c.docket.disputes[e.GetDispute()] = x
}

func (j *judge) rulings(c *caseFile, payload proto.Message) {
	switch e := payload.(type) {
	case *emergencyv1.RulingDelivered:
		j.ruled(c, e)
	case *emergencyv1.ReviewRuled:
		x := j.dispute(c, e.GetDispute())
		j.want(c, x.of != "" && !x.ended && !x.reopened && x.judge == e.GetArbitrator(), "%s decides the review %s, its arbitrator is %q", e.GetArbitrator(), e.GetDispute(), x.judge)
		j.want(c, j.dispute(c, x.of).judge != e.GetArbitrator(), "%s reviews an own ruling", e.GetArbitrator())
		j.free(c, x, e.GetArbitrator(), "reviewing arbitrator")
		x.reopened, x.ended = e.GetReopened(), !e.GetReopened()
	case *emergencyv1.AppealPanelFormed:
		x := j.dispute(c, e.GetDispute())
		j.want(c, x.reopened && len(x.members) == 0, "a panel for %s, which was not re-opened or has one", e.GetDispute())
		members := slices.Clone(e.GetMembers())
		slices.Sort(members)
		j.want(c, len(slices.Compact(members)) == 3 && slices.Contains(members, e.GetSenior()), "a panel of %v with %s", e.GetMembers(), e.GetSenior())
		for _, m := range members {
			j.free(c, x, m, "panel member")
			j.want(c, m != x.judge && m != j.dispute(c, x.of).judge, "panel member %s ruled in the case or the review", m)
		}
		x.members, x.senior = e.GetMembers(), e.GetSenior()
	case *emergencyv1.DirectionIssued:
		j.want(c, c.once("direction/%s", e.GetDirection()), "direction %s is there twice", e.GetDirection())
		c.docket.directions[e.GetDirection()] = "-"
	case *emergencyv1.DirectionReported:
		j.want(c, c.docket.directions[e.GetDirection()] != "", "direction %s, which nobody issued, is carried out", e.GetDirection())
		c.docket.directions[e.GetDirection()] = e.GetPerson()
	case *emergencyv1.DirectionConfirmed:
		by := c.docket.directions[e.GetDirection()]
		j.want(c, by != "" && by != "-" && by != e.GetPerson(), "direction %s of %q is confirmed by %s", e.GetDirection(), by, e.GetPerson())
		j.want(c, c.once("confirmed/%s", e.GetDirection()), "direction %s is confirmed twice", e.GetDirection())
	case *emergencyv1.FieldRedacted:
		j.want(c, !c.docket.redacted[e.GetCommitment()] && !c.docket.disclosed[e.GetCommitment()], "%s is redacted after it was redacted or disclosed", e.GetField())
		c.docket.redacted[e.GetCommitment()] = true
	case *emergencyv1.RedactionCompleted:
		j.want(c, c.docket.redacted[e.GetCommitment()], "a redaction is completed that nobody ordered")
		j.want(c, c.once("erased/%s", e.GetCommitment()), "a redaction is completed twice")
	case *emergencyv1.FieldDisclosed:
		sum := sha256.Sum256(append(slices.Clone(e.GetSalt()), e.GetValue()...))
		j.want(c, hex.EncodeToString(sum[:]) == e.GetCommitment(), "what is disclosed of %s is not what was committed to", e.GetField())
		j.want(c, !c.docket.redacted[e.GetCommitment()], "%s is disclosed after it was redacted", e.GetField())
		c.docket.disclosed[e.GetCommitment()] = true
	}
}

// ruled: by the arbitrator or the senior member, after the proceedings began, on every attached deviation once, and signed.
func (j *judge) ruled(c *caseFile, e *emergencyv1.RulingDelivered) {
	x := j.dispute(c, e.GetDispute())
	j.want(c, !x.ended && x.by() == e.GetArbitrator(), "%s rules on %s, its arbitrator is %q", e.GetArbitrator(), e.GetDispute(), x.by())
	j.want(c, x.begun || x.of != "", "ruled on %s before its proceedings began", e.GetDispute())
	j.want(c, e.GetFinal() == (x.senior != ""), "ruling %s final: %t, of a panel: %t", e.GetRuling(), e.GetFinal(), x.senior != "")
	j.free(c, x, e.GetArbitrator(), "ruling by")
	j.want(c, c.approval != nil, "ruling %s is signed by nobody", e.GetRuling())
	attached := x.attached
	if x.of != "" {
		attached = j.dispute(c, x.of).attached
	}
	for _, v := range attached {
		n := 0
		for _, y := range e.GetJudgements() {
			if v == fmt.Sprint(y.GetPosition(), " ", y.GetDeviation()) && y.GetFinding() != 0 {
				n++
			}
		}
		j.want(c, n == 1, "deviation %s has %d findings", v, n)
	}
	_, ok := c.docket.hashes[e.GetEvidenceRoot()]
	j.want(c, ok, "the evidence of ruling %s ends with no record of the incident", e.GetRuling())
	j.want(c, !e.GetSealed() || e.GetBoardConfirmation() != "", "ruling %s is sealed without the Board", e.GetRuling())
	x.ended = true
	c.docket.rulings[e.GetRuling()] = e.GetDispute()
}

// undecided is a dispute that is neither decided nor closed; empty for none.
func (d *docket) undecided() string {
	for id, x := range d.disputes {
		if !x.ended {
			return id
		}
	}
	return ""
}
