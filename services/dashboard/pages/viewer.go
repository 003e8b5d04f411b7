// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// viewer is who looks, in which language, and when. All that a page says depends on it and on the histories alone.
type viewer struct {
	*set
	now    time.Time
	book   *rulebook.Book
	ctx    context.Context // carries the key, so that the query API knows who asks
	Person string          // empty if nobody is signed in
	Key    string
	Roles  []emergencyv1.Role
	past   bool // now is a moment of the history: nothing is said to be some time ago
}

// sessionCookie holds the id of a session.
const sessionCookie = "epatch-session"

// viewer finds out who looks.
func (p *Pages) viewer(r *http.Request) *viewer {
	v := &viewer{set: p.language(r), now: p.cfg.Clock.Now(), book: p.cfg.Incidents.Book(), ctx: r.Context()}
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return v
	}
	if s, ok := p.sessions.use(c.Value); ok && (!s.certificate || shownKey(r, v.now) == s.key) && (s.certificate || p.choosing(r)) {
		v.as(s.key)
	}
	return v
}

// signedIn is who looks, for what is no page; false if the answer is given already.
func (p *Pages) signedIn(w http.ResponseWriter, r *http.Request) (*viewer, bool) {
	v := p.viewer(r)
	if _, err := p.cfg.Reader(); err != nil {
		w.Header().Set("Retry-After", "1")
		p.fail(w, r, v, err)
		return nil, false
	}
	if v.Person == "" {
		http.Redirect(w, r, "/sign-in?next="+escapeQuery(r.URL.RequestURI()), http.StatusSeeOther)
		return nil, false
	}
	return v, true
}

// as recognises the person of a key by the rule book (G1); systems have no pages.
func (v *viewer) as(key string) {
	actor, refusal := procedure.Recognise(v.book, key, v.now)
	if refusal != nil || actor.GetPerson() == "" {
		return
	}
	v.Person, v.Key, v.Roles = actor.GetPerson(), key, v.book.Roles(actor.GetPerson(), v.now)
	v.ctx = identity.WithCaller(v.ctx, identity.Caller{KeyID: key})
}

// shownKey is the key of the certificate that the connection showed; empty for none, or one that is over.
func shownKey(r *http.Request, now time.Time) string {
	if c, ok := identity.FromTLS(r.TLS); ok && c.Valid(now) {
		return c.KeyID
	}
	return ""
}

// choosing tells whether people may choose who they are: in development, and from this machine alone. The name that was asked
// for counts too, or any site could point a name of its own at this address.
func (p *Pages) choosing(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if !p.cfg.Development || err != nil || !from.Addr().Unmap().IsLoopback() {
		return false
	}
	host := (&url.URL{Host: r.Host}).Hostname()
	if a, err := netip.ParseAddr(host); err == nil {
		return a.IsLoopback()
	}
	return host == "localhost"
}

// local is a path of these pages to go to; what is none leads home.
func local(path string) string {
	u, err := url.Parse(path)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t") {
		return "/home"
	}
	return path
}

func escapeQuery(s string) string { return url.QueryEscape(s) }

// has tells whether the viewer holds one of the roles.
func (v *viewer) has(roles ...emergencyv1.Role) bool {
	return slices.ContainsFunc(roles, func(r emergencyv1.Role) bool { return slices.Contains(v.Roles, r) })
}

// me tells whether a person is the viewer.
func (v *viewer) me(person string) bool { return person != "" && person == v.Person }

// signInView is what the page for signing in shows.
type signInView struct {
	Next string
	// Shown is the person of the certificate; Unknown is set for one that the rule book does not list.
	Shown   string
	Unknown bool
	TLS     bool
	Choose  []chosen
}

// chosen is a person of the demo.
type chosen struct {
	Person string
	Roles  string
}

func (p *Pages) signInPage(w http.ResponseWriter, r *http.Request) {
	v := p.viewer(r)
	if _, err := p.cfg.Reader(); err != nil {
		p.fail(w, r, v, err)
		return
	}
	p.render(w, r, v, p.signInContent(v, r, r.URL.Query().Get("next")))
}

func (p *Pages) signInContent(v *viewer, r *http.Request, next string) *content {
	data := signInView{Next: local(next), TLS: r.TLS != nil}
	if key := shownKey(r, v.now); key != "" {
		shown := *v
		shown.as(key)
		data.Shown, data.Unknown = shown.Person, shown.Person == ""
	}
	if p.choosing(r) {
		for _, person := range v.book.Persons() {
			if len(v.book.KeysOf(person, v.now)) > 0 {
				data.Choose = append(data.Choose, chosen{person, v.roles(v.book.Roles(person, v.now))})
			}
		}
	}
	return &content{Title: "signin.title", Template: "signin", Data: data, Still: true}
}

// signIn begins a session: by the certificate of the connection, or by choice where that is allowed.
func (p *Pages) signIn(w http.ResponseWriter, r *http.Request) {
	v := p.viewer(r)
	if _, err := p.cfg.Reader(); err != nil {
		p.fail(w, r, v, err)
		return
	}
	key, certificate := shownKey(r, v.now), true
	if person := r.PostFormValue("person"); person != "" {
		key, certificate = "", false
		if keys := v.book.KeysOf(person, v.now); p.choosing(r) && len(keys) > 0 {
			key = keys[0]
		}
	}
	fresh := *v
	fresh.Person = ""
	fresh.as(key)
	if fresh.Person == "" {
		c := p.signInContent(v, r, r.PostFormValue("next"))
		c.Status = http.StatusForbidden
		p.render(w, r, v, c)
		return
	}
	if c, err := r.Cookie(sessionCookie); err == nil {
		p.sessions.end(c.Value)
	}
	p.cfg.Log.InfoContext(r.Context(), "signed in", "person", fresh.Person, "key", key, "certificate", certificate)
	http.SetCookie(w, cookie(p.sessions.begin(key, certificate), int(sessionMax.Seconds())))
	http.Redirect(w, r, local(r.PostFormValue("next")), http.StatusSeeOther)
}

func (p *Pages) signOut(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(sessionCookie); err == nil {
		p.sessions.end(c.Value)
	}
	http.SetCookie(w, cookie("", -1))
	http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
}

// cookie is sent back to these pages only, never by another site, never to a script. Browsers take it on loopback without TLS.
func cookie(id string, age int) *http.Cookie {
	return &http.Cookie{Name: sessionCookie, Value: id, Path: "/", MaxAge: age, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
}
