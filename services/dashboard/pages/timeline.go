// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"cacert.org/emergency/pkg/prefill"
	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

// entry is one event of the timeline, or several that say the same.
type entry struct {
	Event      event
	To         uint64 // last position of several; 0 for one
	Type       string
	Owner      string
	Text       string
	Foreign    bool // Text is in the language of the rules
	At         *when
	After      string
	Who        *person
	Deviations []string
	Restricted int
	Alarm      bool
}

// entries is the whole timeline of an incident, from a position on, in order.
func (p *Pages) entries(v *viewer, id string, from uint64) ([]entry, error) {
	answer, err := p.cfg.Query.ReadTimeline(v.ctx, &dashboardv1.ReadTimelineRequest{Incident: id, From: from})
	if err != nil {
		return nil, err
	}
	return v.told(id, answer.GetEntries()), nil
}

// told puts events into entries; reports about pages that say the same are put together, for there are dozens of them.
func (v *viewer) told(id string, list []*dashboardv1.TimelineEntry) []entry {
	var out []entry
	for i := 0; i < len(list); {
		n := 1
		for i+n < len(list) && sameReport(list[i], list[i+n]) {
			n++
		}
		e := v.entry(id, list[i])
		if n > 1 {
			_, what, _ := strings.Cut(list[i].GetText(), ": ")
			e.To, e.Text, e.Who = list[i+n-1].GetPosition(), fmt.Sprintf("%d pages: %s", n, what), nil
		}
		out = append(out, e)
		i += n
	}
	return out
}

func sameReport(x, y *dashboardv1.TimelineEntry) bool {
	_, one, _ := strings.Cut(x.GetText(), ": ")
	_, other, _ := strings.Cut(y.GetText(), ": ")
	return x.GetType() == procedure.OwnerNotification+".DeliveryReported" && y.GetType() == x.GetType() && one == other
}

func (v *viewer) entry(id string, e *dashboardv1.TimelineEntry) entry {
	owner, _, _ := strings.Cut(e.GetType(), ".")
	out := entry{
		Event: event{id, e.GetPosition()}, Type: e.GetType(), Owner: owner, Text: e.GetText(), Foreign: v.code != "en", At: v.moment(e.GetRecordedAt()),
		After: sinceStart(e.GetSinceDeclaredMs()), Who: v.actor(e.GetActor()), Restricted: len(e.GetRestricted()), Alarm: alarming(e),
	}
	if out.Text == "" {
		out.Text = e.GetType()
	}
	for _, d := range e.GetDeviations() {
		out.Deviations = append(out.Deviations, v.enum(d))
	}
	return out
}

// alarming events stand out: what failed, what is late, what was refused or stopped.
func alarming(e *dashboardv1.TimelineEntry) bool {
	_, name, _ := strings.Cut(e.GetType(), ".")
	switch name {
	case "DeployMismatch", "PatchApplyFailed", "BackOutUnproven", "VetoRaised", "DeadlineBreached", "ObligationOverdue", "ObligationEscalated", "CoverageGapFound", "SlotReopened",
		"StrategyEscalated", "SessionFrozen", "CredentialStillUsable", "CommandRefused", "DisputeClosedDeclined":
		return true
	}
	return len(e.GetDeviations()) > 0
}

// sinceStart is the time since the declaration as h:mm:ss.
func sinceStart(ms int64) string {
	s := ms / 1000
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// newest are the last n entries, the newest first.
func newest(list []entry, n int) []entry {
	list = slices.Clone(list[max(0, len(list)-n):])
	slices.Reverse(list)
	return list
}

// timelineView is the timeline with its filters.
type timelineView struct {
	Incident   string
	System     string
	Who, Owner string
	Alarms     bool
	People     []string
	Owners     []string
	Shown, All int
	Entries    []entry
}

func (p *Pages) timelinePage(v *viewer, r *http.Request) (*content, error) {
	id, q := r.PathValue("incident"), r.URL.Query()
	st, err := p.state(v, id)
	if err != nil {
		return nil, err
	}
	all, err := p.entries(v, id, 0)
	if err != nil {
		return nil, err
	}
	d := timelineView{Incident: id, System: st.Declared.System, Who: q.Get("who"), Owner: q.Get("owner"), Alarms: q.Get("alarms") != "", Owners: procedure.Owners(), All: len(all)}
	for _, e := range all {
		if e.Who != nil && !slices.Contains(d.People, e.Who.Name) {
			d.People = append(d.People, e.Who.Name)
		}
		who := d.Who == "" || e.Who != nil && e.Who.Name == d.Who
		if who && (d.Owner == "" || e.Owner == d.Owner) && (!d.Alarms || e.Alarm) {
			d.Entries = append(d.Entries, e)
		}
	}
	slices.Sort(d.People)
	d.Shown = len(d.Entries)
	slices.Reverse(d.Entries)
	return &content{Title: "timeline.title", Args: []any{id}, Section: "incidents", Template: "timeline", Data: d, Incident: id, Drill: st.Declared.Drill}, nil
}

// eventView is one event with all that belongs to it.
type eventView struct {
	entry
	Last       uint64
	Authority  string
	Payload    []line
	Restricted []restricted
	Hash       string
	First      uint64
	End        uint64
	Session    string // the page of the session that went on then, at this moment
}

// line is one value of a payload; Long is its length if it is long.
type line struct {
	Name, Value string
	Long        int
}

// restricted is a value that stands outside the history: shown to those who ask for it and may read it.
type restricted struct {
	Field, Commitment string
	Value             string
	Shown             bool
	Refused           *refusalView
	// Acts are what the viewer can do with the value.
	Acts []valueAct
}

// valueAct is a command about one restricted value: where it is given, or why the rules would not take it now.
type valueAct struct {
	Href, Text string
	Why        string
}

// event shows one event. A POST asks for one of its restricted values; the query API writes down who looked.
func (p *Pages) event(v *viewer, r *http.Request) (*content, error) {
	id := r.PathValue("incident")
	position, err := strconv.ParseUint(r.PathValue("position"), 10, 63)
	if err != nil {
		position = 0
	}
	st, err := p.state(v, id)
	if err != nil {
		return nil, err
	}
	answer, err := p.cfg.Query.ReadTimeline(v.ctx, &dashboardv1.ReadTimelineRequest{Incident: id, From: position, To: max(position, 1)})
	if err != nil {
		return nil, err
	}
	if position == 0 || len(answer.GetEntries()) != 1 {
		return nil, noPosition(id, position, st.Position)
	}
	e := answer.GetEntries()[0]
	d := eventView{entry: v.entry(id, e), Last: st.Position, Authority: e.GetAuthority(), Payload: flatten(e.GetPayloadJson()), Session: during(st, e.GetRecordedAt().AsTime(), position)}
	if rec := p.cfg.Records.At(id, position); rec != nil {
		d.Hash, d.First, d.End = rec.Hash, rec.Events[0].Position, rec.Events[len(rec.Events)-1].Position
	}
	wanted := ""
	if r.Method == http.MethodPost {
		wanted = r.PostFormValue("commitment")
	}
	for _, f := range e.GetRestricted() {
		x := restricted{Field: strings.ReplaceAll(f.GetField(), "_", " "), Commitment: f.GetCommitment()}
		if wanted != "" && wanted == x.Commitment {
			x = p.reveal(v, id, x)
		}
		x.Acts = p.valueActs(v, st, position, x.Commitment)
		d.Restricted = append(d.Restricted, x)
	}
	return &content{Title: "event.title", Args: []any{id, position}, Section: "incidents", Template: "event.view", Data: d, Incident: id, Drill: st.Declared.Drill, Still: true}, nil
}

// valueActs are the commands about a restricted value for those whose role gives them. Options has none of them: an incident has hundreds
// of values.
func (p *Pages) valueActs(v *viewer, st *procedure.State, position uint64, commitment string) []valueAct {
	var list []valueAct
	for _, name := range []string{"Redact", "Disclose"} {
		info, ok := commandNamed(name)
		if !ok {
			continue
		}
		subject := prefill.ValueSubject(position, commitment)
		refusal := procedure.Foresee(st, p.begin(v, st, info, subject, ""), p.env(v))
		switch {
		case refusal == nil:
			list = append(list, valueAct{Href: actPath(st.Incident, name, subject, ""), Text: v.say("command." + name)})
		case refusal.Code != procedure.PermissionDenied:
			list = append(list, valueAct{Text: v.say("command." + name), Why: refusal.Message})
		}
	}
	return list
}

// during is the place, in the recording of a session, of an event that became history while the session went on.
func during(st *procedure.State, at time.Time, position uint64) string {
	for _, g := range st.Grants {
		if g.Consumed.Position > 0 && g.Over() && !at.Before(g.Consumed.At) && !at.After(g.Terminated.At) {
			return fmt.Sprintf("/incidents/%s/sessions/%s?at=%d", st.Incident, g.ID, position)
		}
	}
	return ""
}

func noPosition(id string, position, last uint64) *procedure.Refusal {
	return &procedure.Refusal{
		Code: procedure.NotFound, Reason: procedure.ReasonEntry, Rule: "0.7", Message: fmt.Sprintf("%s has no event at position %d; they are 1 to %d", id, position, last),
		Allow: []procedure.Allowance{{Description: "take a position from the timeline"}},
	}
}

// slider shows an emergency as it was at a position, and what changed there.
func (p *Pages) slider(v *viewer, r *http.Request) (*content, error) {
	id := r.PathValue("incident")
	now, err := p.state(v, id)
	if err != nil {
		return nil, err
	}
	position, err := strconv.ParseUint(r.URL.Query().Get("position"), 10, 63)
	if err != nil || position == 0 {
		position = now.Position
	}
	if position > now.Position {
		return nil, noPosition(id, position, now.Position)
	}
	st, err := p.cfg.Records.StateAt(id, position)
	if err != nil {
		return nil, err
	}
	if st == nil {
		return nil, noPosition(id, position, now.Position)
	}
	asThen := *v
	asThen.now, asThen.past = st.RecordedAt, true
	data, err := p.shown(&asThen, st, st.RecordedAt)
	if err != nil {
		return nil, err
	}
	if data.Then, err = p.then(v, &asThen, st, now.Position, position); err != nil {
		return nil, err
	}
	return &content{
		Title: "slider.title", Args: []any{id, position}, Section: "incidents", Template: "slider", Data: data, Incident: id, Drill: st.Declared.Drill, Still: true,
	}, nil
}

// then describes the record that holds a position: a command is atomic, so its events became history together.
// What changed is said as of then.
func (p *Pages) then(v, asThen *viewer, st *procedure.State, last, position uint64) (*then, error) {
	t := &then{Position: position, Last: last, First: position, At: v.when(st.RecordedAt), Since: v.took(st.RecordedAt.Sub(st.Declared.At))}
	if rec := p.cfg.Records.At(st.Incident, position); rec != nil {
		t.First = rec.Events[0].Position
	}
	if t.First > 1 {
		t.Before = t.First - 1
	}
	if st.Position < last {
		t.After = st.Position + 1
	}
	answer, err := p.cfg.Query.ReadTimeline(v.ctx, &dashboardv1.ReadTimelineRequest{Incident: st.Incident, From: t.First, To: st.Position})
	if err != nil {
		return nil, err
	}
	t.Changed = v.told(st.Incident, answer.GetEntries())
	var before *procedure.State
	if t.First > 1 {
		if before, err = p.cfg.Records.StateAt(st.Incident, t.First-1); err != nil {
			return nil, err
		}
	}
	t.Turned = turns(asThen.facts(before), asThen.facts(st))
	return t, nil
}
