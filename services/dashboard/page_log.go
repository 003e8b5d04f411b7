// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/publog"
	"cacert.org/emergency/services/dashboard/view"
)

// logPages are the pages of the public log.
type logPages struct {
	server    *Server
	templates *template.Template
	assets    map[string]asset
}

func newLogPages(s *Server) *logPages {
	return &logPages{server: s, templates: parsed(), assets: assets()}
}

func (p *logPages) mount(mux *http.ServeMux) {
	mux.Handle("GET /{$}", http.RedirectHandler("/log", http.StatusFound))
	for _, drills := range []bool{false, true} {
		base := logPath(drills)
		mux.HandleFunc("GET "+base, p.ready(func(w http.ResponseWriter, r *http.Request) { p.overview(w, r, drills) }))
		mux.HandleFunc("GET "+base+".json", p.ready(func(w http.ResponseWriter, r *http.Request) { p.logJSON(w, r, drills) }))
		mux.HandleFunc("GET "+base+".atom", p.ready(func(w http.ResponseWriter, r *http.Request) { p.logAtom(w, r, drills) }))
	}
	mux.HandleFunc("GET /log/{page}", p.ready(p.one))
	mux.HandleFunc("GET /log/drills/{page}", p.ready(p.oneDrillYear))
	mux.HandleFunc("GET /", p.ready(p.missing))
	for _, a := range p.assets {
		mux.Handle("GET "+a.path, a)
	}
}

func logPath(drills bool) string {
	if drills {
		return "/log/drills"
	}
	return "/log"
}

// ready answers with 503 while the histories are still read: an empty log would be a lie.
func (p *logPages) ready(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, err := p.server.running(); err != nil {
			w.Header().Set("Retry-After", "1")
			plain(w, http.StatusServiceUnavailable, "The log is being read. Try again in a moment.")
			return
		}
		next(w, r)
	}
}

// page is what every page shows.
type page struct {
	Title string

	Palette, Style, Icon string

	Development bool
	Drills      bool
	Base        string // path of this log
	Year        string
	Years       []string
	// What the page reflects.
	Seq  uint64
	Head string
	Age  string
	Made string

	Summary   summary
	Incidents []*incidentPage // of an overview or year
	Older     int             // incidents of an overview that are only on the pages of the years
	Incident  *incidentPage   // of one incident
	Waiting   []waitingView   // disputes without an arbitrator; on an incident's page its own
}

// waitingView is a dispute that no arbitrator has taken (procedure.md 8.6).
type waitingView struct {
	publog.Dispute
	Path, Filed, Age string
}

// summary counts over the whole log (procedure.md 8.6).
type summary struct{ Open, Owed, Overdue int }

// incidentPage is one incident as the public sees it.
type incidentPage struct {
	ID, Path                 string
	System, Severity, Reason string
	Status, Class            string // in words, and for the style
	Strategy                 uint32
	Declared, Since          string
	Due, Outcome, TimeToFix  string
	Breached, Ended          bool
	MergedInto               string
	Last                     *entryView
	Entries                  []*entryView
	Debts                    []debtView
	Open, Overdue            int
	declaredAt               time.Time
}

// debtView is an obligation; its owner is a role (procedure.md 5.5).
type debtView struct{ Kind, What, Role, Due, State, Class string }

// entryView is an entry, ready to be shown.
type entryView struct {
	publog.Entry
	Day, Time, Full, Since string
	Alarm                  bool
	Facts, Texts, Proof    []publog.Field
}

// Gist is the beginning of what somebody wrote, for a card.
func (v *entryView) Gist() string {
	for _, name := range []string{"text", "summary", "reason"} {
		if text := []rune(strings.Join(strings.Fields(v.Entry.Field(name)), " ")); len(text) > 160 {
			return string(text[:159]) + "…"
		} else if len(text) > 0 && name != "reason" || len(text) > 20 {
			return string(text)
		}
	}
	return ""
}

// recentIncidents is how many incidents an overview shows beside the open ones.
const recentIncidents = 20

func (p *logPages) overview(w http.ResponseWriter, r *http.Request, drills bool) {
	pg, all := p.collect(drills)
	pg.Title = map[bool]string{false: "Emergency log", true: "Emergency log: drills"}[drills]
	ended := 0
	for _, i := range all {
		if i.Ended {
			if ended++; ended > recentIncidents {
				pg.Older++
				continue
			}
		}
		pg.Incidents = append(pg.Incidents, i)
	}
	p.render(w, r, http.StatusOK, "log.html", pg)
}

var (
	yearForm     = regexp.MustCompile(`^2[0-9]{3}$`)
	incidentForm = regexp.MustCompile(`^[ex][0-9]{8}\.[0-9]{1,6}$`)
)

func (p *logPages) one(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("page")
	switch {
	case yearForm.MatchString(name):
		p.year(w, r, name, false)
	case incidentForm.MatchString(name):
		p.incident(w, r, name)
	default:
		p.missing(w, r)
	}
}

func (p *logPages) oneDrillYear(w http.ResponseWriter, r *http.Request) {
	if name := r.PathValue("page"); yearForm.MatchString(name) {
		p.year(w, r, name, true)
		return
	}
	p.missing(w, r)
}

func (p *logPages) year(w http.ResponseWriter, r *http.Request, year string, drills bool) {
	pg, all := p.collect(drills)
	if !slices.Contains(pg.Years, year) {
		p.missing(w, r)
		return
	}
	pg.Title, pg.Year = map[bool]string{false: "Emergency log ", true: "Drills "}[drills]+year, year
	for _, i := range all {
		if yearOf(i.ID) == year {
			pg.Incidents = append(pg.Incidents, i)
		}
	}
	p.render(w, r, http.StatusOK, "log.html", pg)
}

// yearOf is the year in an incident's id.
func yearOf(id string) string { return id[1:min(5, len(id))] }

func (p *logPages) incident(w http.ResponseWriter, r *http.Request, id string) {
	pg, all := p.collect(view.Drill(id))
	i := slices.IndexFunc(all, func(x *incidentPage) bool { return x.ID == id })
	if i < 0 {
		p.missing(w, r)
		return
	}
	pg.Incident, pg.Title = all[i], all[i].ID+": "+all[i].System
	pg.Waiting = slices.DeleteFunc(pg.Waiting, func(d waitingView) bool { return d.Incident != id })
	p.render(w, r, http.StatusOK, "incident.html", pg)
}

func (p *logPages) missing(w http.ResponseWriter, r *http.Request) {
	pg, _ := p.collect(false)
	pg.Title = "Not found"
	p.render(w, r, http.StatusNotFound, "missing.html", pg)
}

// collect reads one of the logs: the page's frame, and its incidents, newest first.
func (p *logPages) collect(drills bool) (*page, []*incidentPage) {
	now, entries := p.server.cfg.Clock.Now(), p.server.log.Entries(drills)
	pg := &page{
		Palette: p.assets["palette.css"].path, Style: p.assets["style.css"].path, Icon: p.assets["icon.svg"].path, Development: p.server.cfg.Development, Drills: drills, Base: logPath(drills),
		Made: full(now), Head: publog.Genesis(publog.Real),
	}
	if drills {
		pg.Head = publog.Genesis(publog.Drills)
	}
	if n := len(entries); n > 0 {
		last := entries[n-1]
		pg.Seq, pg.Head, pg.Age = last.Seq, last.Hash, age(now.Sub(last.At))
	}
	for _, d := range publog.Waiting(entries) {
		pg.Waiting = append(pg.Waiting, waitingView{d, "/log/" + d.Incident, full(d.FiledAt), age(now.Sub(d.FiledAt))})
	}
	byID, years := map[string]*incidentPage{}, map[string]bool{}
	var list []*incidentPage
	for _, e := range entries {
		i, ok := byID[e.Incident]
		if !ok {
			i = &incidentPage{ID: e.Incident, Path: "/log/" + e.Incident, declaredAt: e.At}
			byID[e.Incident], years[yearOf(e.Incident)] = i, true
			list = append(list, i)
		}
		i.add(e)
	}
	for _, i := range list {
		p.server.cfg.Incidents.View(i.ID, func(st *procedure.State) { i.stand(st, now) })
		pg.Summary.Owed, pg.Summary.Overdue = pg.Summary.Owed+i.Open, pg.Summary.Overdue+i.Overdue
		if !i.Ended {
			pg.Summary.Open++
		}
	}
	slices.SortStableFunc(list, func(a, b *incidentPage) int { return b.declaredAt.Compare(a.declaredAt) })
	pg.Years = slices.Sorted(maps.Keys(years))
	slices.Reverse(pg.Years)
	return pg, list
}

func (i *incidentPage) add(e publog.Entry) {
	v := &entryView{Entry: e, Day: e.At.UTC().Format("Monday, 2 January 2006"), Time: e.At.UTC().Format("15:04"), Full: full(e.At), Since: since(e.At.Sub(i.declaredAt)), Alarm: alarming(e)}
	for _, f := range e.Fields {
		switch {
		case f.Name == "obligation": // its kind says enough
			v.Proof = append(v.Proof, f)
		case len(f.Value) > 60 || strings.Contains(f.Value, "\n"):
			v.Texts = append(v.Texts, f)
		default:
			v.Facts = append(v.Facts, f)
		}
	}
	switch e.Kind {
	case "incident.EmergencyDeclared":
		i.System, i.Severity, i.Reason, i.Declared = e.Field("system"), e.Field("severity"), e.Field("reason"), full(e.At)
	case "incident.IncidentClosed":
		i.Outcome, i.TimeToFix = e.Field("outcome"), e.Field("time to fix")
	}
	i.Entries, i.Last = append(i.Entries, v), v
}

// alarming entries stand out: what chapter 5 prints in bold, what failed and what is late.
func alarming(e publog.Entry) bool {
	switch e.Kind {
	case "deployment.DeployMismatch", "deployment.PatchApplyFailed", "deployment.BackOutUnproven", "review.VetoRaised", "incident.DeadlineBreached",
		"arbitration.ObligationOverdue", "arbitration.ObligationEscalated", "notification.CoverageGapFound", "notification.SlotReopened",
		"incident.StrategyEscalated", "deployment.AccessGrantIssued", "deployment.SessionFrozen", "deployment.CredentialStillUsable",
		"arbitration.DisputeClosedDeclined":
		return true
	}
	return strings.HasSuffix(e.Headline, ": fail") || strings.HasSuffix(e.Headline, ": veto") || strings.HasPrefix(e.Headline, "Replication: drift")
}

// stand adds how the incident stands now.
func (i *incidentPage) stand(st *procedure.State, now time.Time) {
	i.Strategy, i.MergedInto, i.Since = st.Strategy, st.MergedInto, age(now.Sub(st.Declared.At))
	switch st.Status {
	case procedure.Open, procedure.Absent:
		i.Status, i.Class = "open", "open"
	case procedure.StoodDown:
		i.Status, i.Class, i.Ended = "stood down", "ended", true
	case procedure.Merged:
		i.Status, i.Class, i.Ended = "merged", "ended", true
	case procedure.Closed:
		i.Status, i.Class, i.Ended = "closed", "ended", true
	}
	for _, d := range procedure.Deadlines(st) {
		if d.Key == "overall" {
			state := d.State(st, now)
			i.Due, i.Breached = full(d.Due), state == procedure.DeadlineBreached || state == procedure.DeadlineLate
		}
	}
	for _, o := range obligationsOf(st, now) {
		v := debtView{Kind: o.GetKind(), What: dossier.KindWords(o.GetKind()), Role: procedure.RoleWord(o.GetOwnerRole()), Due: full(o.GetDueAt().AsTime()), State: "met", Class: "met"}
		switch o.GetState() {
		case "OPEN":
			v.State, v.Class, i.Open = "owed", "owed", i.Open+1
		case "OVERDUE":
			v.State, v.Class, i.Open, i.Overdue = "overdue", "overdue", i.Open+1, i.Overdue+1
		default:
			if o.GetLateByMs() > 0 {
				v.State = "met late"
			}
		}
		i.Debts = append(i.Debts, v)
	}
}

func full(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// since is a time after the declaration, such as +1:05.
func since(d time.Duration) string {
	d = d.Truncate(time.Minute)
	switch {
	case d < time.Minute:
		return "start"
	case d < 48*time.Hour:
		return fmt.Sprintf("+%d:%02d h", int(d.Hours()), int(d.Minutes())%60)
	}
	return "+" + strconv.Itoa(int(d.Hours())/24) + " days"
}

// age is how long ago something was, in words.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "less than a minute ago"
	case d < 2*time.Minute:
		return "a minute ago"
	case d < time.Hour:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	case d < 2*time.Hour:
		return "an hour ago"
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours())/24)
}
