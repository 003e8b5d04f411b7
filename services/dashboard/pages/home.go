// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// homeView is what waits for the viewer first, then everything that is going on.
type homeView struct {
	First    *waiting
	Then     []waiting
	Open     []card
	Overdue  []debt
	Teams    []readyTeam
	AnyStale bool
	// Declares is set for who may declare an emergency; Refused says why not, and who could.
	Declares bool
	Refused  *refusalView
}

// waiting is one thing that waits for the viewer.
type waiting struct {
	What, Incident string
	Typed          string
	Act            *act // where it is done; nil where no page does it
	Due            *when
	Late           bool
	Foreign        bool // What is in the language of the rules
}

// card is an incident in a list.
type card struct {
	ID, System string
	Reason     string
	Badges     []badge
	Strategy   uint32
	Step       *nextStep
	Declared   *when
	Due        *when
	Left       string
	Over, Met  bool
	Open       bool
	Drill      bool
}

// nextStep is what an incident waits for.
type nextStep struct {
	Number, What string
	Owed         bool // an obligation, not a step of a strategy
	Foreign      bool
	// Persons hold it; Anybody is set if anyone of them can take it.
	Persons []person
	Anybody bool
	Due     *when
	Late    bool
}

func (p *Pages) home(v *viewer, _ *http.Request) (*content, error) {
	data := homeView{Open: p.openCards(v)}
	inbox, err := p.cfg.Query.ReadInbox(v.ctx, &dashboardv1.ReadInboxRequest{})
	if err != nil {
		return nil, err
	}
	for _, i := range inbox.GetItems() {
		data.Then = append(data.Then, p.waiting(v, i))
	}
	if len(data.Then) > 0 {
		data.First, data.Then = &data.Then[0], data.Then[1:]
	}
	if refusal := p.declares(v); refusal != nil {
		said := v.refusal(refusal)
		data.Refused = &said
	} else {
		data.Declares = true
	}
	for _, d := range p.debts(v, p.cfg.Incidents.EachWaiting) {
		if d.State == "overdue" {
			data.Overdue = append(data.Overdue, d)
		}
	}
	if data.Teams, err = p.readiness(v); err != nil {
		return nil, err
	}
	data.AnyStale = slices.ContainsFunc(data.Teams, func(t readyTeam) bool { return len(t.OnDuty) == 0 || t.Stale > 0 })
	return &content{Title: "home.title", Section: "home", Template: "home", Data: data}, nil
}

// declares asks the rules whether the viewer may declare an emergency.
func (p *Pages) declares(v *viewer) *procedure.Refusal {
	info, _ := commandNamed("Declare")
	st := procedure.NewState("")
	return procedure.Foresee(st, p.begin(v, st, info, "", ""), p.env(v))
}

func (p *Pages) waiting(v *viewer, i *dashboardv1.InboxItem) waiting {
	w := waiting{Incident: i.GetIncident(), Typed: p.cfg.Typed(i.GetCommand(), i.GetSubject(), i.GetIncident()), Due: v.moment(i.GetDueAt())}
	w.Late = w.Due != nil && v.now.After(w.Due.at)
	kind, subject := debtKind(i.GetSubject()), i.GetSubject()
	if kind != "" {
		subject = owedSubject(kind)
	}
	p.cfg.Incidents.View(i.GetIncident(), func(st *procedure.State) { w.Act = p.act(v, st, i.GetCommand(), subject) })
	switch {
	case kind != "":
		w.What, w.Typed = v.say("home.owed", v.debt(kind)), p.cfg.Typed(i.GetCommand(), "", i.GetIncident())
	case i.GetCommand() != "":
		w.What = v.command(i.GetCommand(), i.GetSubject())
	default:
		w.What, w.Foreign = i.GetTitle(), v.code != "en"
	}
	return w
}

// debtKind is the kind in an obligation's id, such as DOCUMENT/S1 in DOCUMENT/S1/12; empty for any other subject.
func debtKind(id string) string {
	at := strings.LastIndexByte(id, '/')
	if at <= 0 || id[0] < 'A' || id[0] > 'Z' || strings.ContainsAny(id[:at], "abcdefghijklmnopqrstuvwxyz") {
		return ""
	}
	return id[:at]
}

// owedSubject is what a command is about that meets an obligation of a kind: DOCUMENT/S2 asks for the documentation of S2. Most
// commands then find by themselves what is current.
func owedSubject(kind string) string {
	if strategy, ok := strings.CutPrefix(kind, "DOCUMENT/"); ok {
		return strategy
	}
	if strings.HasPrefix(kind, "DISPUTE/") {
		return kind
	}
	return ""
}

// each goes through incidents: all of them, or those that may wait for somebody.
type each func(func(*procedure.State))

// openCards are the open incidents.
func (p *Pages) openCards(v *viewer) []card {
	return p.cards(v, p.cfg.Incidents.EachWaiting, func(st *procedure.State) bool { return st.Status == procedure.Open })
}

// cards are the incidents that are wanted, the newest first, and drills after what is real.
func (p *Pages) cards(v *viewer, from each, want func(*procedure.State) bool) []card {
	var list []card
	from(func(st *procedure.State) {
		if want(st) {
			list = append(list, v.card(st))
		}
	})
	slices.Reverse(list)
	slices.SortStableFunc(list, func(a, b card) int {
		if a.Drill != b.Drill {
			return map[bool]int{true: 1, false: -1}[a.Drill]
		}
		return b.Declared.at.Compare(a.Declared.at)
	})
	return list
}

func (v *viewer) card(st *procedure.State) card {
	due, met := overall(st)
	c := card{
		ID: st.Incident, System: st.Declared.System, Reason: v.enum(st.Declared.ReasonClass), Badges: v.badges(st), Strategy: st.Strategy,
		Declared: v.when(st.Declared.At), Due: v.when(due), Met: met, Over: !met && v.now.After(due), Open: st.Status == procedure.Open, Drill: st.Declared.Drill,
	}
	c.Left = c.Due.left(v.now)
	c.Step = v.next(st)
	return c
}

// badges say how an incident stands.
func (v *viewer) badges(st *procedure.State) []badge {
	class := quiet
	if st.Status == procedure.Open {
		class = live
	}
	list := []badge{v.badge(class, "status", string(st.Status))}
	if st.Declared.Drill {
		list = append(list, badge{v.say("drill"), live})
	}
	if st.Declared.Severity == emergencyv1.Severity_SEVERITY_HIGH {
		list = append(list, badge{v.say("Severity.HIGH"), bad})
	}
	owed, overdue := 0, 0
	for _, o := range procedure.Debts(st) {
		if o.Overdue(v.now) {
			overdue++
		} else if o.Open() {
			owed++
		}
	}
	if overdue > 0 {
		list = append(list, badge{v.say("count.overdue", overdue), bad})
	}
	if owed > 0 {
		list = append(list, badge{v.say("count.owed", owed), warn})
	}
	return list
}

// next is the step that an incident waits for; nil if there is none.
func (v *viewer) next(st *procedure.State) *nextStep {
	steps := procedure.NextSteps(st)
	if len(steps) == 0 {
		return nil
	}
	return v.step(steps[0])
}

func (v *viewer) step(s procedure.Step) *nextStep {
	n := &nextStep{Number: s.Number, Owed: s.Number == "7", What: s.Title, Foreign: v.code != "en", Persons: v.persons(s.Persons), Due: v.when(s.Due)}
	n.Late = n.Due != nil && v.now.After(s.Due)
	if s.Command == "" {
		return n
	}
	n.What, n.Foreign = v.command(s.Command, s.Subject), false
	if len(s.Persons) == 0 {
		n.Persons, n.Anybody = v.persons(v.able(s)), true
	}
	return n
}

// able are the persons who hold a role for a step's command, without those who may not do this one.
func (v *viewer) able(s procedure.Step) []string {
	var list []string
	for _, c := range procedure.Commands() {
		if c.Name != s.Command {
			continue
		}
		for _, r := range c.Roles {
			for _, person := range v.book.PersonsWith(r, v.now) {
				if r != emergencyv1.Role_ROLE_MEMBER && !slices.Contains(list, person) && !slices.Contains(s.Not, person) {
					list = append(list, person)
				}
			}
		}
	}
	return list
}

// readyTeam is a team and who is on duty for it.
type readyTeam struct {
	Name   string
	OnDuty []readyPerson
	Stale  int
}

type readyPerson struct {
	*person
	Channels []string
	Reached  *when
	Stale    bool
}

func (p *Pages) readiness(v *viewer) ([]readyTeam, error) {
	answer, err := p.cfg.Query.ReadReadiness(v.ctx, &dashboardv1.ReadReadinessRequest{})
	if err != nil {
		return nil, err
	}
	var list []readyTeam
	for _, t := range answer.GetTeams() {
		team := readyTeam{Name: v.enum(t.GetTeam())}
		for _, x := range t.GetOnDuty() {
			team.OnDuty = append(team.OnDuty, readyPerson{v.person(x.GetPerson()), x.GetChannels(), v.moment(x.GetLastReachedAt()), x.GetStale()})
			if x.GetStale() {
				team.Stale++
			}
		}
		list = append(list, team)
	}
	return list, nil
}

// incidentsView lists all incidents.
type incidentsView struct {
	Open, Over []card
}

func (p *Pages) incidents(v *viewer, _ *http.Request) (*content, error) {
	data := incidentsView{
		Open: p.openCards(v),
		Over: p.cards(v, p.cfg.Incidents.Each, func(st *procedure.State) bool { return st.Status != procedure.Open }),
	}
	return &content{Title: "incidents.title", Section: "incidents", Template: "incidents", Data: data}, nil
}

// debt is an obligation.
type debt struct {
	ID, Incident string
	Drill        bool
	What, Kind   string
	Owner        *person
	Role         string
	Mine         bool
	Due          *when
	// State is open, overdue, met, late or lifted.
	State     string
	Badge     badge
	LateBy    string
	Clause    string
	Typed     string
	Cause, By event
	Case      string
}

// debts are the obligations of incidents: what is overdue longest first, then what is due soonest, then what is done.
func (p *Pages) debts(v *viewer, from each) []debt {
	var list []debt
	from(func(st *procedure.State) { list = append(list, p.debtsOf(v, st, v.now)...) })
	sortDebts(list)
	return list
}

func sortDebts(list []debt) {
	slices.SortStableFunc(list, func(a, b debt) int {
		if x, y := a.open(), b.open(); x != y {
			return map[bool]int{true: -1, false: 1}[x]
		}
		if !a.open() {
			return b.Due.at.Compare(a.Due.at)
		}
		return a.Due.at.Compare(b.Due.at)
	})
}

func (d debt) open() bool { return d.State == "open" || d.State == "overdue" }

// debtsOf are the obligations of one incident, judged at a time.
func (p *Pages) debtsOf(v *viewer, st *procedure.State, at time.Time) []debt {
	var list []debt
	for _, o := range procedure.Debts(st) {
		d := debt{
			ID: o.ID, Incident: st.Incident, Drill: st.Declared.Drill, What: v.debt(o.Kind), Kind: o.Kind, Owner: v.person(o.Owner), Role: v.enum(o.OwnerRole),
			Due: v.when(o.Due), Clause: o.Clause, Cause: event{st.Incident, o.Cause}, By: event{st.Incident, o.By}, Case: o.LiftedBy, State: "open", Badge: v.badge(warn, "debt.state", "open"),
		}
		d.Mine = v.me(o.Owner) || o.Owner == "" && v.has(o.OwnerRole)
		if late := o.LateBy(at); late > 0 {
			d.LateBy = v.took(late)
		}
		switch {
		case o.LiftedBy != "":
			d.State, d.Badge = "lifted", v.badge(quiet, "debt.state", "lifted")
		case !o.Open() && d.LateBy != "":
			d.State, d.Badge = "late", v.badge(warn, "debt.state", "late")
		case !o.Open():
			d.State, d.Badge = "met", v.badge(good, "debt.state", "met")
		case o.Overdue(at):
			d.State, d.Badge = "overdue", v.badge(bad, "debt.state", "overdue")
		}
		if d.open() && !v.past { // what was owed then is not to be typed now
			d.Typed = p.cfg.Typed(o.How, "", st.Incident)
		}
		list = append(list, d)
	}
	sortDebts(list)
	return list
}

// obligationsView is the debt ledger.
type obligationsView struct {
	Show                 string // open, all or mine
	Open, Overdue, Total int
	Mine                 int
	Debts                []debt
}

func (p *Pages) obligations(v *viewer, r *http.Request) (*content, error) {
	data := obligationsView{Show: r.URL.Query().Get("show")}
	if !slices.Contains([]string{"open", "mine", "all"}, data.Show) {
		data.Show = "open"
	}
	for _, d := range p.debts(v, p.cfg.Incidents.Each) {
		data.Total++
		if d.open() {
			data.Open++
		}
		if d.State == "overdue" {
			data.Overdue++
		}
		if d.open() && d.Mine {
			data.Mine++
		}
		if data.Show == "all" || d.open() && (data.Show == "open" || d.Mine) {
			data.Debts = append(data.Debts, d)
		}
	}
	return &content{Title: "obligations.title", Section: "obligations", Template: "obligations", Data: data}, nil
}
