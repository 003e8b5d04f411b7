// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
)

// frame is what every page has around its content.
type frame struct {
	*viewer
	Assets      map[string]string
	Development bool
	Scripts     []string
	Styles      []string
	Modules     []string
	Title       string
	Section     string
	// Path is the page's own address, Live the one that its changes come from; empty for a page that does not change.
	Path, Live string
	Other      []string // the other languages
	Drill      bool
	Clock      *clockView
	Fresh      fresh
	Old        *old
	Now        string
	Body       template.HTML
}

// fresh says what a page reflects.
type fresh struct {
	Incident string
	Position uint64
	At       *when
}

// old says why what a page shows may not be the last state.
type old struct {
	Away   bool
	Unread uint64
	Since  *when
}

// old tells that the log is away or that this process is behind it; nil if there is nothing to tell.
func (p *Pages) old(v *viewer) *old {
	age := p.cfg.Pulse.Age()
	if !age.Old() {
		return nil
	}
	return &old{age.Away, age.Unread, v.when(age.Since)}
}

// render writes a page whole or not at all.
func (p *Pages) render(w http.ResponseWriter, r *http.Request, v *viewer, c *content) {
	b, err := p.draw(v, r, c, "page")
	if err != nil {
		p.cfg.Log.ErrorContext(r.Context(), "page not made", "path", r.URL.Path, "error", err)
		http.Error(w, "This page could not be made. The command line still works: epatch status", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", v.code)
	w.Header().Add("Vary", "Accept-Language, Cookie")
	if c.Status != 0 {
		w.WriteHeader(c.Status)
	}
	_, _ = w.Write(b)
}

// draw executes a content's template and the frame's around it: "page" for the whole, "live" for the part that changes.
func (p *Pages) draw(v *viewer, r *http.Request, c *content, around string) ([]byte, error) {
	var body bytes.Buffer
	if err := v.templates.ExecuteTemplate(&body, c.Template, c.Data); err != nil {
		return nil, fmt.Errorf("template %s: %w", c.Template, err)
	}
	f := frame{
		viewer: v, Assets: p.cfg.Assets, Development: p.cfg.Development, Title: v.say(c.Title, c.Args...), Section: c.Section, Path: address(r.URL),
		Scripts: c.Scripts, Styles: c.Styles, Modules: c.Modules, Drill: c.Drill, Now: stamp(v.now), Body: template.HTML(body.String()), //nolint:gosec // made by html/template just now
	}
	for _, code := range languages() {
		if code != v.code {
			f.Other = append(f.Other, code)
		}
	}
	f.Old = p.old(v)
	if v.Person != "" {
		f.Clock, f.Fresh = p.clock(v), p.fresh(v, c)
		if !c.Still {
			f.Live = withQuery(r.URL, "live", "1")
		}
	}
	var b bytes.Buffer
	if err := v.templates.ExecuteTemplate(&b, around, f); err != nil {
		return nil, fmt.Errorf("template %s: %w", around, err)
	}
	return b.Bytes(), nil
}

// address is a page's path with its query, without what asks for it live.
func address(u *url.URL) string {
	q := u.Query()
	q.Del("live")
	path := strings.TrimSuffix(u.EscapedPath(), "/sign") // there is no coming back to a signature, but to its form
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

func withQuery(u *url.URL, key, value string) string {
	q := u.Query()
	q.Set(key, value)
	return u.EscapedPath() + "?" + q.Encode()
}

// fresh tells what a page reflects: its incident's last record, or the last one of any.
func (p *Pages) fresh(v *viewer, c *content) fresh {
	var f fresh
	note := func(st *procedure.State) {
		if f.At == nil || st.RecordedAt.After(f.At.at) {
			f.Incident, f.Position, f.At = st.Incident, st.Position, v.when(st.RecordedAt)
		}
	}
	if c.Incident == "" || !p.cfg.Incidents.View(c.Incident, note) {
		p.cfg.Incidents.Each(note)
	}
	return f
}

// refusalView is a rule's no, or another error, for the person who meets it.
type refusalView struct {
	Message, Reason, Rule string
	Ways                  []string
}

// refusal puts an error into words. What is no refusal and will not pass by itself says nothing of the inside (hardening.md 1.10).
func (v *viewer) refusal(err error) refusalView {
	refusal := new(procedure.Refusal)
	if r, ok := rpc.RefusalOf(err); ok {
		refusal = r
	} else if !errors.As(err, &refusal) {
		if rpc.StorageFull(err) { // what is wrong, and who can help, is told as the service says it
			return refusalView{Message: status.Convert(err).Message()}
		}
		if statusOf(err) == http.StatusServiceUnavailable {
			return refusalView{Message: v.say("failed.away", err.Error())}
		}
		return refusalView{Message: v.say("failed.inside")}
	}
	out := refusalView{Message: refusal.Message, Reason: string(refusal.Reason), Rule: refusal.Rule}
	for _, a := range refusal.Allow {
		out.Ways = append(out.Ways, a.Description)
	}
	return out
}

// clockView is the clock of the most urgent emergency, which is always in sight.
type clockView struct {
	ID, System string
	Due        *when
	Left       string
	Over       bool
	Met        bool
	Strategy   uint32
	Drill      bool
	Others     int // open emergencies beside it
}

// clock finds the open emergency whose 24 hours end first; drills count where there is nothing else.
func (p *Pages) clock(v *viewer) *clockView {
	var best *clockView
	var due time.Time
	open := 0
	p.cfg.Incidents.EachWaiting(func(st *procedure.State) {
		if st.Status != procedure.Open {
			return
		}
		if !st.Declared.Drill {
			open++
		}
		d, met := overall(st)
		better := best == nil || best.Drill && !st.Declared.Drill || best.Drill == st.Declared.Drill && (best.Met && !met || best.Met == met && d.Before(due))
		if better && (best == nil || best.Drill || !st.Declared.Drill) {
			due = d
			best = &clockView{ID: st.Incident, System: st.Declared.System, Due: v.when(d), Left: v.when(d).left(v.now), Over: !met && v.now.After(d), Met: met, Strategy: st.Strategy, Drill: st.Declared.Drill}
		}
	})
	if best != nil && !best.Drill {
		best.Others = open - 1
	}
	return best
}

// overall is when an incident's 24 hours end, and whether everything was done.
func overall(st *procedure.State) (due time.Time, met bool) {
	for _, d := range procedure.Deadlines(st) {
		if d.Key == "overall" {
			return d.Due, !d.MetAt.IsZero()
		}
	}
	return st.Declared.At, false
}
