// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"net/http"
	"strings"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// caseView is one dispute with everything that became of it, in the order of the dispute resolution policy.
type caseView struct {
	docketRow
	Strategy uint32
	FiledAs  string
	Relief   string
	Ground   string // of a request for review
	OfRuling string
	OfCase   string // path of the case whose ruling is to be reviewed
	Refiles  string
	Filing   []secret
	Mail     *mark
	Root     string // hash of the record that the evidence ends with
	RootAt   event

	Opened     *caseStep
	Parties    []secret
	Proposals  []proposal
	Candidates []candidate
	Begun      []preliminaries
	Evidence   []exhibit
	ToJudge    []deviation
	Ruling     *ruling
	Review     *reviewRuling
	Directions []caseDirection
	Panel      []person
	Senior     *person
	PanelAt    event
	Appeals    []docketRow
	Can        []option
	// Hidden counts the values that the viewer may ask for; Written is set after some were read.
	Hidden  int
	Written bool
}

// caseStep is something that was done in a case.
type caseStep struct {
	By    *person
	At    *when
	Event event
}

// proposal is an arbitrator who was asked, with why the answer was no.
type proposal struct {
	asked
	Asked  event
	Answer event
	Reason []secret
}

// candidate is an arbitrator of the list who could be asked, or why not.
type candidate struct {
	person
	Conflict string
	Asked    bool
}

// preliminaries are the start of the proceedings, or a further part of it.
type preliminaries struct {
	caseStep
	Values []secret
	Orders uint32
}

// ruling has the five parts of DRP 3.1 and what the procedure adds to them.
type ruling struct {
	ID, Case      string
	Sealed, Final bool
	caseStep
	Place      string
	Parties    []secret
	Facts      []secret
	Logic      []secret
	Judgements []judgement
	Lifted     []string
	Root       string
	RootAt     event
	Superseded string
	Published  *caseStep
	Text       string
	Board      string
}

// judgement is the finding on a deviation.
type judgement struct {
	deviation
	Finding badge
}

// reviewRuling says whether a case is re-opened.
type reviewRuling struct {
	caseStep
	Reopened bool
	Logic    []secret
}

// caseDirection is an order with its text and its proof.
type caseDirection struct {
	docketDirection
	Text, Proof []secret
	Reported    *caseStep
	Confirmed   *caseStep
	InRuling    string
}

// casePage shows one dispute. A POST asks for restricted values of it.
func (p *Pages) casePage(v *viewer, r *http.Request) (*content, error) {
	id := r.PathValue("incident")
	st, err := p.state(v, id)
	if err != nil {
		return nil, err
	}
	x, ok := st.Dispute(r.PathValue("dispute"))
	if !ok {
		return nil, &procedure.Refusal{
			Code: procedure.NotFound, Reason: procedure.ReasonDisputeUnknown, Rule: "G4", Message: fmt.Sprintf("%s has no dispute %.40q", id, r.PathValue("dispute")),
			Allow: []procedure.Allowance{{Description: "take one from the docket"}},
		}
	}
	b := &caseBuilder{p: p, v: v, st: st, x: x, secrets: p.secrets(v, r, st), data: &caseView{}}
	b.build()
	return &content{
		Title: "case.title", Args: []any{x.ID, id}, Section: "docket", Template: "case", Data: b.data, Incident: id, Drill: st.Declared.Drill, Still: r.Method == http.MethodPost,
	}, nil
}

// caseBuilder collects a case from the events of its incident.
type caseBuilder struct {
	p       *Pages
	v       *viewer
	st      *procedure.State
	x       *procedure.Dispute
	secrets *secrets
	data    *caseView
	// reports are the events that reported a direction as carried out, by direction.
	reports map[string]projection.Event
}

func (b *caseBuilder) build() {
	d, st, x := b.data, b.st, b.x
	rows := b.v.docketRows(st)
	for i, row := range rows {
		if row.ID == x.ID {
			d.docketRow = row
		}
		if y := st.Disputes[i]; y.Of != "" {
			if r, ok := st.Ruling(y.Of); ok && r.Dispute == x.ID {
				d.Appeals = append(d.Appeals, row)
			}
		}
	}
	d.Strategy, d.FiledAs, d.Refiles, d.OfRuling, d.Root = st.Strategy, b.v.enum(x.FiledAs), x.Refiles, x.Of, x.EvidenceHash
	d.RootAt = event{st.Incident, x.Evidence}
	if r, ok := st.Ruling(x.Of); ok {
		d.OfCase = casePath(st.Incident, r.Dispute)
	}
	d.Panel, d.Senior = b.v.persons(x.Panel), b.v.person(x.Senior)
	for _, y := range procedure.Attached(st, x.ID) {
		d.ToJudge = append(d.ToJudge, deviation{b.v.enum(y.Deviation), event{st.Incident, y.Position}})
	}
	b.candidates()
	b.reports = map[string]projection.Event{}
	b.p.events(st.Incident, b.add)
	b.appointments()
	b.directions()
	d.Evidence = b.p.exhibits(b.v, st, x.Evidence)
	d.Can = b.options()
	b.count()
}

// add takes what an event says about the case.
func (b *caseBuilder) add(rec *projection.Record, e projection.Event) {
	d := b.data
	step := caseStep{By: b.v.actor(rec.Record.GetActor()), At: b.v.moment(rec.Record.GetRecordedAt()), Event: event{b.st.Incident, e.Position}}
	switch m := e.Payload.(type) {
	case *emergencyv1.DisputeFiled:
		if m.GetDispute() == b.x.ID {
			d.Relief, d.Filing = m.GetRelief(), b.secrets.of(e)
		}
	case *emergencyv1.ReviewRequested:
		if m.GetDispute() == b.x.ID {
			d.Ground, d.Filing = b.v.enum(m.GetGround()), b.secrets.of(e)
		}
	case *emergencyv1.FilingReported:
		if m.GetDispute() == b.x.ID {
			state := strings.TrimPrefix(m.GetState().String(), "DELIVERY_STATE_")
			d.Mail = &mark{b.v.say("delivery." + state), map[string]string{"SENT": good, "DELIVERED": good, "FAILED": bad}[state], step.At, "", step.Event}
		}
	case *emergencyv1.CaseOpened:
		if m.GetDispute() == b.x.ID {
			d.Opened, d.Parties = &step, b.secrets.of(e)
		}
	case *emergencyv1.ArbitratorDeclined:
		if m.GetDispute() == b.x.ID {
			d.Proposals = append(d.Proposals, proposal{Answer: step.Event, Reason: b.secrets.of(e)})
		}
	case *emergencyv1.PreliminariesRecorded:
		if m.GetDispute() == b.x.ID {
			d.Begun = append(d.Begun, preliminaries{step, b.secrets.of(e), m.GetOrders()})
		}
	case *emergencyv1.AppealPanelFormed:
		if m.GetDispute() == b.x.ID {
			d.PanelAt = step.Event
		}
	case *emergencyv1.DirectionReported:
		b.reports[m.GetDirection()] = e
	default:
		b.ruled(e, step)
	}
}

// ruled takes what an event says about the ruling on the case.
func (b *caseBuilder) ruled(e projection.Event, step caseStep) {
	switch m := e.Payload.(type) {
	case *emergencyv1.RulingDelivered:
		if m.GetDispute() != b.x.ID {
			return
		}
		r := &ruling{
			ID: m.GetRuling(), Sealed: m.GetSealed(), Final: m.GetFinal(), caseStep: step, Place: m.GetPlace(), Lifted: m.GetLifted(), Root: m.GetEvidenceRoot(), Board: m.GetBoardConfirmation(),
			Parties: b.secrets.of(e, "parties"), Facts: b.secrets.of(e, "facts"), Logic: b.secrets.of(e, "logic"),
		}
		for _, h := range b.st.Heads {
			if h.Hash == r.Root {
				r.RootAt = event{b.st.Incident, h.Position}
			}
		}
		for _, j := range m.GetJudgements() {
			class := map[emergencyv1.Finding]string{emergencyv1.Finding_FINDING_JUSTIFIED: good, emergencyv1.Finding_FINDING_NOT_JUSTIFIED: bad, emergencyv1.Finding_FINDING_NO_FINDING: quiet}[j.GetFinding()]
			r.Judgements = append(r.Judgements, judgement{deviation{b.v.enum(j.GetDeviation()), event{b.st.Incident, j.GetPosition()}}, badge{b.v.enum(j.GetFinding()), class}})
		}
		if kept, ok := b.st.Ruling(r.ID); ok {
			r.Case, r.Superseded = kept.Case, kept.Superseded
		}
		b.data.Ruling = r
	case *emergencyv1.RulingPublished:
		if r := b.data.Ruling; r != nil && r.ID == m.GetRuling() {
			r.Published, r.Text = &step, m.GetText()
		}
	case *emergencyv1.ReviewRuled:
		if m.GetDispute() == b.x.ID {
			b.data.Review = &reviewRuling{step, m.GetReopened(), b.secrets.of(e)}
		}
	}
}

// appointments puts the answers that were no, which are in the order of the history, to the questions.
func (b *caseBuilder) appointments() {
	answers := b.data.Proposals
	b.data.Proposals = nil
	for i, x := range b.x.Proposals {
		out := proposal{asked: b.data.Asked[i], Asked: event{b.st.Incident, x.Asked.Position}}
		for _, a := range answers {
			if x.Declined.Position == a.Answer.Position {
				out.Answer, out.Reason = a.Answer, a.Reason
			}
		}
		if x.Accepted {
			out.Answer = event{b.st.Incident, b.x.Accepted.Position}
		}
		b.data.Proposals = append(b.data.Proposals, out)
	}
}

// candidates are the arbitrators who could be asked, while one is looked for.
func (b *caseBuilder) candidates() {
	if !b.x.Open() || b.x.Arbitrator != "" || b.x.Case == "" {
		return
	}
	for _, c := range procedure.Candidates(b.st, b.p.env(b.v), b.x.ID) {
		out := candidate{person: *b.v.person(c.Person)}
		for _, x := range b.x.Proposals {
			out.Asked = out.Asked || x.Candidate == c.Person
		}
		if c.Refusal != nil {
			out.Conflict = c.Refusal.Message
		}
		b.data.Candidates = append(b.data.Candidates, out)
	}
}

func (b *caseBuilder) directions() {
	texts := map[string][]secret{}
	b.p.events(b.st.Incident, func(_ *projection.Record, e projection.Event) {
		if m, ok := e.Payload.(*emergencyv1.DirectionIssued); ok && m.GetDispute() == b.x.ID {
			texts[m.GetDirection()] = b.secrets.of(e)
		}
	})
	for i, d := range b.v.docketDirections(b.st) {
		x := b.st.Directions[i]
		if x.Dispute != b.x.ID {
			continue
		}
		out := caseDirection{docketDirection: d, Text: texts[x.ID], InRuling: x.InRuling, Reported: b.mark(x.Reported), Confirmed: b.mark(x.Done)}
		if e, ok := b.reports[x.ID]; ok {
			out.Proof = b.secrets.of(e)
		}
		b.data.Directions = append(b.data.Directions, out)
	}
}

func (b *caseBuilder) mark(m procedure.Mark) *caseStep {
	if m.Position == 0 {
		return nil
	}
	return &caseStep{b.v.person(m.By), b.v.when(m.At), event{b.st.Incident, m.Position}}
}

// options are what the viewer can do about the case, by the checks that decide.
func (b *caseBuilder) options() []option {
	about := map[string]bool{b.x.ID: true}
	if b.data.Ruling != nil {
		about[b.data.Ruling.ID] = true
	}
	for _, d := range b.data.Directions {
		about[d.ID] = true
	}
	var all incidentView
	b.p.options(b.v, b.st, &all)
	var list []option
	for _, o := range append(all.Next, all.Can...) {
		if about[o.subject] {
			list = append(list, o)
		}
	}
	return list
}

// count counts what the viewer may ask for, and what was read just now.
func (b *caseBuilder) count() {
	d := b.data
	lists := [][]secret{d.Filing, d.Parties}
	for _, x := range d.Proposals {
		lists = append(lists, x.Reason)
	}
	for _, x := range d.Begun {
		lists = append(lists, x.Values)
	}
	if d.Ruling != nil {
		lists = append(lists, d.Ruling.Parties, d.Ruling.Facts, d.Ruling.Logic)
	}
	if d.Review != nil {
		lists = append(lists, d.Review.Logic)
	}
	for _, x := range d.Directions {
		lists = append(lists, x.Text, x.Proof)
	}
	for _, list := range lists {
		for _, s := range list {
			if s.State == secretHidden {
				d.Hidden++
			}
			d.Written = d.Written || s.State == secretShown
		}
	}
}
