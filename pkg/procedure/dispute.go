// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Disputes up to the appointment of an arbitrator (seed 2.4, 2.6, 3.7, 3.9; DRP 1; procedure.md 4.5).

var disputeForm = regexp.MustCompile(`^a[0-9]{8}\.[1-9][0-9]{0,5}$`)

func (f *fields) dispute(id string) {
	f.want(disputeForm.MatchString(id), "dispute", "a dispute id such as a20261125.1")
}

// lines bounds a list whose entries are stored one a line.
func (f *fields) lines(name string, list []string) {
	for _, s := range list {
		f.want(strings.TrimSpace(s) != "" && !strings.Contains(s, "\n"), name, "entries of one line each, none of them empty")
	}
}

func fileDisputeFields(f *fields, c *emergencyv1.FileDisputeRequest) {
	f.want(c.GetConcern() != 0 && c.GetConcern() != emergencyv1.DisputeConcern_DISPUTE_CONCERN_REVIEW, "concern", "what it is about; a ruling is contested by RequestReview")
	f.want(c.GetHeadHash() == "" || digestForm.MatchString(c.GetHeadHash()), "head_hash", "64 lower-case hex digits, or empty for the history as it stands")
	f.want(c.GetRefiles() == "" || disputeForm.MatchString(c.GetRefiles()), "refiles", "a dispute id such as a20261125.1, or empty")
	f.lines("claimants", c.GetClaimants())
	f.lines("respondents", c.GetRespondents())
}

// decideFileDispute takes the filing of anybody (DRP 1.1). All deviations of the incident so far are attached, whatever the
// filer says: which of them were justified is not for the filer to choose (2.3).
func decideFileDispute(d *decision, c *emergencyv1.FileDisputeRequest) *Refusal {
	if refusal := d.drpFields(map[string]bool{
		"claimants": len(c.GetClaimants()) > 0, "respondents": len(c.GetRespondents()) > 0, "complaint": given(c.GetComplaint()), "relief": given(c.GetRelief()),
	}); refusal != nil {
		return refusal
	}
	if n := strategyOf(c.GetConcern()); n > 1 && !d.s.everIn(n) {
		return refuse(ReasonField, "strategy %d was never followed in %s", n, d.s.Incident).under("4.5 FileDispute").allow("FileDispute", "", "name what the dispute is about")
	}
	root, refusal := d.evidenceRoot(c.GetHeadHash())
	if refusal != nil {
		return refusal
	}
	if refusal := d.refiles(c.GetRefiles()); refusal != nil {
		return refusal
	}
	for _, x := range d.s.Disputes {
		if x.Open() && x.Filed.By == d.person && x.Concern == c.GetConcern() && x.ID != c.GetRefiles() && x.Filed.Position > d.s.askedFor(x.Concern) {
			return refuse(ReasonDisputeExists, "%s already filed %s about the same, and it is open", d.person, x.ID).allow("", x.ID, "follow %s", x.ID)
		}
	}
	e := &emergencyv1.DisputeFiled{
		Dispute: d.disputeID(), Concern: c.GetConcern(), Claimants: d.seal(strings.Join(c.GetClaimants(), "\n")),
		Respondents: d.seal(strings.Join(c.GetRespondents(), "\n")), Complaint: d.seal(c.GetComplaint()), Relief: c.GetRelief(),
		HeadHash: root.Hash, EvidencePosition: root.Position, Refiles: c.GetRefiles(), FiledBy: d.person,
	}
	for _, v := range d.s.Deviations {
		e.Deviations = append(e.Deviations, &emergencyv1.AttachedDeviation{Position: v.Position, Deviation: v.Deviation})
	}
	d.emit(e)
	return nil
}

func given(s string) bool { return strings.TrimSpace(s) != "" }

// drpFields refuses a filing or ruling that lacks a part that the dispute resolution policy asks for. The missing ones are
// named in a fixed order.
func (d *decision) drpFields(there map[string]bool) *Refusal {
	if d.hypothetical {
		return nil
	}
	var missing []string
	for name, ok := range there {
		if !ok {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return refuse(ReasonDRPField, "%s lacks: %s", d.row.name, strings.Join(missing, ", ")).allow(d.row.name, missing[0], "fill in %s", strings.Join(missing, ", "))
}

// strategyOf is the strategy that a dispute is about; 0 for another concern.
func strategyOf(c emergencyv1.DisputeConcern) uint32 {
	switch c {
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1:
		return 1
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2:
		return 2
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_3, emergencyv1.DisputeConcern_DISPUTE_CONCERN_ACCESS:
		return 3
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER, emergencyv1.DisputeConcern_DISPUTE_CONCERN_REVIEW, emergencyv1.DisputeConcern_DISPUTE_CONCERN_UNSPECIFIED:
	}
	return 0
}

// askedFor is the position at which a dispute was last asked for: by an escalation, or by the lead who referred strategy 1. A
// filing from before does not stand in the way of the one that is owed since.
func (s *State) askedFor(c emergencyv1.DisputeConcern) uint64 {
	if n := strategyOf(c); n > 1 {
		return s.enteredLast(n)
	}
	if c == emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1 && s.Lead != nil {
		return s.Lead.FirstReferred.Position
	}
	return 0
}

// evidenceRoot is the record that evidence ends with: the one named, or the last.
func (d *decision) evidenceRoot(hash string) (RecordHead, *Refusal) {
	if hash == "" {
		return RecordHead{d.s.Position, d.s.HeadHash}, nil
	}
	if h, ok := d.s.headAt(hash); ok {
		return h, nil
	}
	return RecordHead{}, refuse(ReasonEvidenceRoot, "no record of %s has the hash %s", d.s.Incident, short(hash)).
		allow(d.row.name, "", "name the hash of one of its records, or none for the history as it stands")
}

// refiles: a dispute that nobody took may be filed again by anybody, an inadequate filing before a case is opened by whoever
// filed it. Others cannot take a filing out of somebody's hands.
func (d *decision) refiles(id string) *Refusal {
	if id == "" {
		return nil
	}
	x, refusal := d.dispute(id)
	switch {
	case refusal != nil:
		return refusal
	case x.RefiledBy != "":
		return d.disputeState(x, "was filed again as "+x.RefiledBy)
	case x.Review():
		return d.disputeState(x, "is the review of a ruling, and only a review goes on with it").allow("RequestReview", x.Of, "request the review of %s again", x.Of)
	case x.Outcome == DisputeClosedDeclined, x.Open() && x.Case == "" && x.Filed.By == d.person:
		return nil
	}
	return d.disputeState(x, "cannot be filed again: that is for a dispute that nobody took, or for its filer before a case is opened")
}

// disputeID is the id of a new dispute: the first number of the day that the service knows to be free among all incidents and
// that is free in this one. There is no counter over all incidents: what names a dispute is (incident, dispute), which this
// check keeps unique; two filings in two incidents at the same moment may share a number.
func (d *decision) disputeID() string {
	prefix := "a" + d.at.UTC().Format("20060102") + "."
	for n := max(1, d.env.Facts.DisputeNumber); ; n++ {
		if _, taken := d.s.Dispute(prefix + strconv.Itoa(n)); !taken {
			return prefix + strconv.Itoa(n)
		}
	}
}

func reportFilingFields(f *fields, c *emergencyv1.ReportFilingRequest) {
	f.dispute(c.GetDispute())
	f.want(c.GetState() != 0, "state", "what became of the mail")
}

// decideReportFiling notes what became of the mail to the arbitration forum. Once it was taken nothing changes that.
func decideReportFiling(d *decision, c *emergencyv1.ReportFilingRequest) *Refusal {
	x, refusal := d.dispute(c.GetDispute())
	if refusal != nil {
		return refusal
	}
	sent := filingWord(emergencyv1.DeliveryState_DELIVERY_STATE_SENT)
	if x.Mailed.Result == sent || x.Mailed.Position > 0 && x.Mailed.Result == filingWord(c.GetState()) {
		return nil // a repetition says nothing new
	}
	d.emit(&emergencyv1.FilingReported{Dispute: x.ID, State: c.GetState(), Detail: c.GetDetail()})
	return nil
}

func filingWord(st emergencyv1.DeliveryState) string {
	return strings.ToLower(strings.TrimPrefix(st.String(), "DELIVERY_STATE_"))
}

// dispute finds a dispute (G4).
func (d *decision) dispute(id string) (*Dispute, *Refusal) {
	if x, ok := d.s.Dispute(id); ok {
		return x, nil
	}
	return nil, refuse(ReasonDisputeUnknown, "%s has no dispute %s", d.s.Incident, id).allow("FileDispute", "", "name one of its disputes: %s", d.s.disputeList())
}

func (s *State) disputeList() string {
	var ids []string
	for _, x := range s.Disputes {
		ids = append(ids, x.ID)
	}
	if len(ids) == 0 {
		return "it has none"
	}
	return strings.Join(ids, ", ")
}

func (d *decision) disputeState(x *Dispute, why string) *Refusal {
	r := refuse(ReasonDisputeState, "%s %s", x.ID, why)
	if y := d.s.successor(x); y != x {
		return r.allow(d.row.name, y.ID, "give it in %s, which goes on", y.ID)
	}
	return r
}

// inCase finds an open dispute with a case.
func (d *decision) inCase(id string) (*Dispute, *Refusal) {
	x, refusal := d.dispute(id)
	switch {
	case refusal != nil:
		return nil, refusal
	case !x.Open():
		return nil, d.disputeState(x, "is "+disputeWord(x.Outcome))
	case x.Case == "":
		return nil, d.disputeState(x, "has no case yet").allow("OpenCase", x.ID, "the case manager opens a case: %s", d.whoHas(roles(cm)))
	}
	return x, nil
}

func disputeWord(st DisputeState) string { return statusWord(Status(st)) }

// DisputeWord is a dispute's state in words.
func DisputeWord(st DisputeState) string { return disputeWord(st) }

// conflict says why a person may not judge or manage a dispute (X14, DRP 1.5); empty if nothing speaks against it.
func (d *decision) conflict(person string, x *Dispute) string {
	for _, i := range d.s.Involved {
		if i.Person == person {
			return fmt.Sprintf("acted in the incident, at position %d", i.First)
		}
	}
	for _, y := range d.s.family(x) {
		if y.Filed.By == person {
			return "brought " + y.ID
		}
	}
	if slices.ContainsFunc(d.env.Facts.Parties, func(p string) bool { return strings.EqualFold(strings.TrimSpace(p), person) }) {
		return "is named as a party"
	}
	for _, r := range roles(cl, al) { // both lead teams that every call-out is for
		if d.holds(person, r) {
			return "is " + roleWord(r)
		}
	}
	return ""
}

func (d *decision) unconflicted(person string, x *Dispute) *Refusal {
	if why := d.conflict(person, x); why != "" {
		return refuse(ReasonConflictOfInterest, "%s %s, and cannot take part in deciding %s", person, why, x.ID).
			allow(d.row.name, x.ID, "somebody who had no part in the incident does it: %s", d.whoHas(d.row.roles))
	}
	return nil
}

func openCaseFields(f *fields, c *emergencyv1.OpenCaseRequest) {
	f.dispute(c.GetDispute())
	f.word("case_number", c.GetCaseNumber())
	f.lines("acted_parties", c.GetActedParties())
}

// decideOpenCase takes control of a filing (DRP 1.3). Under the number of a case that is open in this incident the dispute is
// joined to it (10.10).
func decideOpenCase(d *decision, c *emergencyv1.OpenCaseRequest) *Refusal {
	x, refusal := d.dispute(c.GetDispute())
	if refusal != nil {
		return refusal
	}
	if refusal := d.unconflicted(d.person, x); refusal != nil {
		return refusal
	}
	if x.Case != "" {
		return refuse(ReasonCaseExists, "%s already has the case %s", x.ID, x.Case)
	}
	if !x.Open() {
		return d.disputeState(x, "is "+disputeWord(x.Outcome))
	}
	if lead := d.s.leadOf(c.GetCaseNumber(), x.ID); lead != nil && (!lead.Open() || x.Review()) {
		return refuse(ReasonCaseExists, "the case %s is that of %s, which is %s", c.GetCaseNumber(), lead.ID, disputeWord(lead.State(d.at))).
			allow("OpenCase", x.ID, "give it a case number of its own")
	}
	parties := c.GetActedParties()
	for _, p := range d.s.actedBeyond() {
		if len(parties) > 0 && !slices.Contains(parties, p) {
			return refuse(ReasonActedPartyMissing, "%s acted under strategy 2 or 3 and is not named", p).allow("OpenCase", x.ID, "name %s, or nobody: then the system does", strings.Join(d.s.actedBeyond(), ", "))
		}
	}
	if len(parties) == 0 {
		parties = d.s.actedBeyond()
	}
	d.emit(&emergencyv1.CaseOpened{Dispute: x.ID, CaseNumber: c.GetCaseNumber(), CaseManager: d.person, ActedParties: d.seal(strings.Join(parties, "\n"))})
	return nil
}

// actedBeyond are the persons who acted under strategy 2 or 3 (DRP 1.3), sorted.
func (s *State) actedBeyond() []string {
	var list []string
	for _, i := range s.Involved {
		if i.Under&(1<<2|1<<3) != 0 {
			list = append(list, i.Person)
		}
	}
	return list
}

// ActedBeyond are the persons who acted under strategy 2 or 3, sorted.
func ActedBeyond(s *State) []string { return s.actedBeyond() }

func proposeFields(f *fields, c *emergencyv1.ProposeArbitratorRequest) {
	f.dispute(c.GetDispute())
	f.word("candidate", c.GetCandidate())
}

// decidePropose asks one arbitrator of the list (DRP 1.5). Whoever was appointed and then acted in the incident, or left the
// list, is replaced the same way: otherwise a case could never end.
func decidePropose(d *decision, c *emergencyv1.ProposeArbitratorRequest) *Refusal {
	x, refusal := d.managed(c.GetDispute())
	if refusal != nil {
		return refusal
	}
	if refusal := d.listed(c.GetCandidate(), x); refusal != nil && !d.hypothetical {
		return refusal
	}
	if n := len(x.Proposals); n > 0 && x.Proposals[n-1].waiting(d.at) {
		p := x.Proposals[n-1]
		return refuse(ReasonProposalOpen, "%s was asked and may answer until %s", p.Candidate, stamp(p.Until)).allow("RespondAppointment", x.ID, "%s answers, or the time passes", p.Candidate)
	}
	if x.Arbitrator != "" && d.listed(x.Arbitrator, x) == nil {
		return d.disputeState(x, "has an arbitrator, "+x.Arbitrator)
	}
	d.emit(&emergencyv1.ArbitratorProposed{
		Dispute: x.ID, Candidate: c.GetCandidate(), AnswerUntil: timestamppb.New(d.at.Add(d.s.Policy.Duration("appointment"))),
	})
	return nil
}

// listed: a candidate is on the list and has no conflict.
func (d *decision) listed(candidate string, x *Dispute) *Refusal {
	if !d.holds(candidate, ar) {
		return refuse(ReasonNotListed, "%s is not on the list of arbitrators", candidate).allow(d.row.name, x.ID, "name %s", d.whoHas(roles(ar)))
	}
	return d.mayJudge(candidate, x)
}

// managed finds an open dispute with a case, for a case manager without a conflict. The one who opened the case need not be
// the one who goes on with it.
func (d *decision) managed(id string) (*Dispute, *Refusal) {
	x, refusal := d.inCase(id)
	if refusal != nil {
		return nil, refusal
	}
	return x, d.unconflicted(d.person, x)
}

// mayJudge checks X14 and, for a review, that it is not the arbitrator whose ruling is reviewed. Who manages a case does not
// judge it.
func (d *decision) mayJudge(person string, x *Dispute) *Refusal {
	if refusal := d.unconflicted(person, x); refusal != nil {
		return refusal
	}
	if x.Opened.By == person {
		return refuse(ReasonConflictOfInterest, "%s manages %s and does not judge it", person, x.ID)
	}
	return d.otherArbitrator(person, x)
}

// Candidate is an arbitrator of the list; Refusal is why this one cannot be asked to decide a dispute, nil if nothing speaks
// against it.
type Candidate struct {
	Person  string
	Refusal *Refusal
}

// Candidates are the arbitrators on the list, sorted, each judged as for ProposeArbitrator (X14, DRP 1.5). Who is named as a party
// is known from restricted text alone, and judged by the service when somebody is asked.
func Candidates(s *State, env Env, dispute string) []Candidate {
	x, ok := s.Dispute(dispute)
	row, known := rowByName("ProposeArbitrator")
	if !ok || !known {
		return nil
	}
	d := &decision{s: s, env: env, row: row, at: env.Now, hypothetical: true}
	var list []Candidate
	for _, p := range env.Book.PersonsWith(ar, env.Now) {
		list = append(list, Candidate{p, d.mayJudge(p, x)})
	}
	return list
}

// otherArbitrator refuses whoever ruled in what a review is about.
func (d *decision) otherArbitrator(person string, x *Dispute) *Refusal {
	for _, y := range d.s.family(x)[1:] {
		if x.Review() && y.Arbitrator == person {
			return refuse(ReasonSameArbitrator, "%s was the arbitrator of %s, whose ruling is to be reviewed", person, y.ID).
				allow("ProposeArbitrator", x.ID, "another arbitrator: %s", d.whoHas(roles(ar)))
		}
	}
	return nil
}

func respondAppointmentFields(f *fields, c *emergencyv1.RespondAppointmentRequest) {
	f.dispute(c.GetDispute())
}

// decideRespondAppointment: declining is always possible, also for whoever has a conflict, and needs no reason (DRP 1.5). An
// answer after the time counts as long as nobody else was asked.
func decideRespondAppointment(d *decision, c *emergencyv1.RespondAppointmentRequest) *Refusal {
	x, refusal := d.inCase(c.GetDispute())
	if refusal != nil {
		return refusal
	}
	n := len(x.Proposals)
	if n == 0 || x.Proposals[n-1].Candidate != d.person || !x.Proposals[n-1].unanswered() {
		return refuse(ReasonNotCandidate, "%s is not asked to be the arbitrator of %s", d.person, x.ID).allow("ProposeArbitrator", x.ID, "the case manager proposes an arbitrator")
	}
	if !c.GetAccept() {
		reason := c.GetReason()
		if !given(reason) {
			reason = "not stated"
		}
		d.emit(&emergencyv1.ArbitratorDeclined{Dispute: x.ID, Candidate: d.person, Reason: d.seal(reason)})
		return nil
	}
	if refusal := d.mayJudge(d.person, x); refusal != nil {
		return refusal
	}
	if !c.GetNoConflict() && !d.hypothetical {
		return refuse(ReasonConflictUndeclared, "an arbitrator declares to have no conflict of interest").allow("RespondAppointment", x.ID, "declare it, or decline")
	}
	d.emit(&emergencyv1.ArbitratorAccepted{Dispute: x.ID, Arbitrator: d.person})
	return nil
}

func closeDeclinedFields(f *fields, c *emergencyv1.CloseDeclinedRequest) { f.dispute(c.GetDispute()) }

// decideCloseDeclined ends a dispute that nobody took (DRP 1.5); the ruling stays owed (10.11).
func decideCloseDeclined(d *decision, c *emergencyv1.CloseDeclinedRequest) *Refusal {
	x, refusal := d.managed(c.GetDispute())
	if refusal != nil {
		return refusal
	}
	if x.Arbitrator != "" {
		return d.disputeState(x, "has an arbitrator, "+x.Arbitrator)
	}
	asked := map[string]bool{}
	for _, p := range x.Proposals {
		asked[p.Candidate] = !p.waiting(d.at)
	}
	var left []string
	for _, p := range d.env.Book.PersonsWith(ar, d.env.Now) {
		if !asked[p] && d.mayJudge(p, x) == nil {
			left = append(left, p)
		}
	}
	if len(left) > 0 {
		return refuse(ReasonCandidatesLeft, "arbitrators without a conflict have not declined yet, nor let the time pass: %s", strings.Join(left, ", ")).
			allow("ProposeArbitrator", x.ID, "ask %s", left[0])
	}
	d.emit(&emergencyv1.DisputeClosedDeclined{Dispute: x.ID, Asked: uint32(len(asked))})
	return nil
}
