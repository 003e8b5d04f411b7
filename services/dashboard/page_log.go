// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection/pulse"
	"cacert.org/emergency/pkg/publog"
	"cacert.org/emergency/pkg/publog/site"
)

// logPages serve the public log; what they show is made by package site, from the log and from how its incidents stand now.
type logPages struct {
	server *Server
	assets map[string]asset
	live   liveLog
}

func newLogPages(s *Server) *logPages {
	p := &logPages{server: s, assets: assets()}
	p.live.drawn = map[string]drawing{}
	return p
}

func (p *logPages) mount(mux *http.ServeMux) {
	mux.Handle("GET /{$}", http.RedirectHandler("/log", http.StatusFound))
	mux.HandleFunc("GET /log", p.ready(func(w http.ResponseWriter, r *http.Request) {
		p.page(w, r, publog.Real, func(s *site.Site) ([]byte, error) { return s.Overview(publog.Real) })
	}))
	mux.HandleFunc("GET /log/", p.ready(p.under))
	mux.HandleFunc("GET /log.json", p.ready(func(w http.ResponseWriter, r *http.Request) { p.machine(w, r, publog.Real, "json") }))
	mux.HandleFunc("GET /log.atom", p.ready(func(w http.ResponseWriter, r *http.Request) { p.machine(w, r, publog.Real, "atom") }))
	mux.HandleFunc("GET /", p.ready(p.missing))
	for _, a := range p.assets {
		mux.Handle("GET "+a.path, a)
	}
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

// site is the log as it is now, for a page that stays as it is.
func (p *logPages) site() *site.Site { return p.siteWith("") }

// siteWith is the log as it is now, for a page that hears of changes at an address.
func (p *logPages) siteWith(stream string) *site.Site {
	now := p.server.cfg.Clock.Now()
	cfg := site.Config{
		Entries: map[publog.Origin][]publog.Entry{}, Base: p.server.cfg.PublicURL, Live: true, Assets: map[string]string{},
		Development: p.server.cfg.Development, Now: now, Old: oldLog(p.server.cfg.Pulse.Age()), Standing: func(id string) (site.Standing, bool) { return p.standing(id, now) },
	}
	for _, o := range publog.Origins() {
		cfg.Entries[o] = p.server.log.Entries(o)
	}
	for name, a := range p.assets {
		cfg.Assets[name] = a.path
	}
	if cfg.Stream = stream; stream != "" {
		cfg.Scripts = []string{cfg.Assets["vendor/htmx.min.js"], cfg.Assets["vendor/hx-sse.min.js"]}
	}
	return site.New(cfg)
}

// oldLog says that there may be more than the log shows.
func oldLog(age pulse.Age) string {
	since := ""
	if !age.Since.IsZero() {
		since = " since " + age.Since.UTC().Format("2006-01-02 15:04:05 UTC")
	}
	switch {
	case age.Away:
		return "The event log has not answered" + since + ". What is shown is the last state that is known."
	case age.Unread > 0:
		return fmt.Sprintf("This page is %d records behind the event log%s. It catches up by itself.", age.Unread, since)
	}
	return ""
}

// standing is how an incident stands now: a deadline that passes shows at once, before any event says so.
func (p *logPages) standing(id string, now time.Time) (out site.Standing, ok bool) {
	ok = p.server.cfg.Incidents.View(id, func(st *procedure.State) { out = standingOf(st, now) })
	return out, ok
}

func standingOf(st *procedure.State, now time.Time) site.Standing {
	out := site.Standing{Status: "open", Strategy: st.Strategy, MergedInto: st.MergedInto}
	switch st.Status {
	case procedure.StoodDown:
		out.Status, out.Ended = "stood down", true
	case procedure.Merged:
		out.Status, out.Ended = "merged", true
	case procedure.Closed:
		out.Status, out.Ended = "closed", true
	case procedure.Open, procedure.Absent:
	}
	for _, d := range procedure.Deadlines(st) {
		if d.Key == "overall" {
			state := d.State(st, now)
			out.Due, out.Breached = d.Due, state == procedure.DeadlineBreached || state == procedure.DeadlineLate
		}
	}
	for _, o := range obligationsOf(st, now) {
		d := site.Debt{Kind: o.GetKind(), Role: procedure.RoleWord(o.GetOwnerRole()), Due: o.GetDueAt().AsTime(), State: "met"}
		switch {
		case o.GetState() == "OPEN":
			d.State = "owed"
		case o.GetState() == "OVERDUE":
			d.State = "overdue"
		case o.GetLateByMs() > 0:
			d.State = "met late"
		}
		out.Debts = append(out.Debts, d)
	}
	return out
}

var (
	yearForm     = regexp.MustCompile(`^[12][0-9]{3}$`)
	incidentForm = regexp.MustCompile(`^[ex][0-9]{8}\.[0-9]{1,6}$`)
	numberForm   = regexp.MustCompile(`^[1-9][0-9]{0,11}$`)
)

// under are the pages below /log/: [drills/|archive/] and a year, an incident, entry/NUMBER, all, search or atom/NUMBER; with .json
// behind a year, an incident and an entry their machine forms.
func (p *logPages) under(w http.ResponseWriter, r *http.Request) {
	name, origin := strings.TrimPrefix(r.URL.Path, "/log/"), publog.Real
	for _, o := range []publog.Origin{publog.Drills, publog.Archive} {
		rest, ok := strings.CutPrefix(name, string(o))
		switch {
		case !ok:
		case rest == "":
			p.page(w, r, o, func(s *site.Site) ([]byte, error) { return s.Overview(o) })
			return
		case rest == ".json" || rest == ".atom":
			p.machine(w, r, o, rest[1:])
			return
		case rest[0] == '/' && len(rest) > 1:
			origin, name = o, rest[1:]
		}
	}
	name, isJSON := strings.CutSuffix(name, ".json")
	kind, number, _ := strings.Cut(name, "/")
	var seq uint64
	if numberForm.MatchString(number) {
		seq, _ = strconv.ParseUint(number, 10, 64) // its form allows no other than a number
	}
	switch {
	case yearForm.MatchString(name):
		p.either(w, r, origin, isJSON, func(s *site.Site) ([]byte, error) { return s.Year(origin, name) }, func(s *site.Site) ([]byte, error) { return s.YearJSON(origin, name) })
	case incidentForm.MatchString(name) && origin == publog.Real:
		origin = publog.OriginOf(name)
		p.either(w, r, origin, isJSON, func(s *site.Site) ([]byte, error) { return s.Incident(name) }, func(s *site.Site) ([]byte, error) { return s.IncidentJSON(name) })
	case kind == "entry" && seq > 0:
		p.either(w, r, origin, isJSON, func(s *site.Site) ([]byte, error) { return s.Entry(origin, seq) }, func(s *site.Site) ([]byte, error) { return s.EntryJSON(origin, seq) })
	case kind == "atom" && seq > 0 && !isJSON:
		p.feed(w, r, "application/atom+xml; charset=utf-8", origin, func(s *site.Site) ([]byte, error) { return s.AtomPage(origin, int(min(seq, 1<<30))) })
	case name == "all" && !isJSON:
		p.page(w, r, origin, func(s *site.Site) ([]byte, error) { return s.All(origin) })
	case name == "search" && origin == publog.Real && !isJSON:
		body, err := p.site().Search(r.URL.Query().Get("q"))
		p.send(w, r, http.StatusOK, body, err)
	default:
		p.missing(w, r)
	}
}

type maker func(*site.Site) ([]byte, error)

func (p *logPages) either(w http.ResponseWriter, r *http.Request, o publog.Origin, isJSON bool, html, json maker) {
	if isJSON {
		p.feed(w, r, "application/json", o, json)
		return
	}
	p.page(w, r, o, html)
}

func (p *logPages) missing(w http.ResponseWriter, r *http.Request) {
	body, err := p.site().Missing()
	p.send(w, r, http.StatusNotFound, body, err)
}

// page answers with a page, or says that there is none.
func (p *logPages) page(w http.ResponseWriter, r *http.Request, _ publog.Origin, make maker) {
	if r.URL.Query().Has(liveQuery) {
		p.follow(w, r, make)
		return
	}
	stream := ""
	if p.live.room() {
		stream = r.URL.EscapedPath() + "?" + liveQuery
	}
	body, err := make(p.siteWith(stream))
	if err == nil && body == nil {
		p.missing(w, r)
		return
	}
	p.send(w, r, http.StatusOK, body, err)
}

// send writes a page whole or not at all: a template that fails must not leave half a page with status 200.
func (p *logPages) send(w http.ResponseWriter, r *http.Request, code int, body []byte, err error) {
	if err != nil {
		p.server.cfg.Log.ErrorContext(r.Context(), "page not made", "path", r.URL.Path, "error", err)
		plain(w, http.StatusInternalServerError, "This page could not be made. The log itself is at /log.json.")
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Security-Policy", logPolicy)
	w.WriteHeader(code)
	_, _ = w.Write(body) //nolint:gosec // made by html/template just now
}

func (p *logPages) machine(w http.ResponseWriter, r *http.Request, o publog.Origin, form string) {
	if form == "json" {
		p.feed(w, r, "application/json", o, func(s *site.Site) ([]byte, error) { return s.JSON(o) })
		return
	}
	p.feed(w, r, "application/atom+xml; charset=utf-8", o, func(s *site.Site) ([]byte, error) { return s.Atom(o) })
}

// feed answers with a whole document, or tells that the reader has it already. Other sites may read it: it is public.
func (p *logPages) feed(w http.ResponseWriter, r *http.Request, contentType string, o publog.Origin, make maker) {
	s := p.site()
	head := s.Head(o)
	body, err := make(s)
	switch {
	case err != nil:
		p.server.cfg.Log.ErrorContext(r.Context(), "log not written", "path", r.URL.Path, "error", err)
		plain(w, http.StatusInternalServerError, "The log could not be written.")
		return
	case body == nil:
		p.missing(w, r)
		return
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", `"`+head+`"`)
	if strings.Contains(r.Header.Get("If-None-Match"), head) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", contentType)
	_, _ = w.Write(body)
}
