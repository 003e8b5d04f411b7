// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/projection/pulse"
	"cacert.org/emergency/pkg/timer"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	"cacert.org/emergency/services/dashboard/view"
)

// Config is what the pages are given. All of it is required but Peers, Typed, Process and DemoSigner.
type Config struct {
	Clock timer.Clock
	Log   *slog.Logger

	// Query answers as for a call from outside: who asks is in the context (identity.WithCaller).
	Query dashboardv1.QueryServiceServer
	// Incidents and Records are the folds that the reader feeds; Reader fails until they have caught up.
	Incidents *projection.Incidents
	Records   *view.Records
	Reader    func() (*projection.Runner, error)

	// Peers are connections to the services by owner, for patches, sessions and the commands that people sign. One that is missing is away.
	Peers map[string]grpc.ClientConnInterface
	// Typed is what to type for a command about a subject in an incident; empty for what nobody types.
	Typed func(command, subject, incident string) string
	// Process tells what the process knows about itself.
	Process func(context.Context) Process

	// Pulse tells how old what the projections say is. Optional.
	Pulse *pulse.Pulse

	// Assets are the addresses of style sheets, scripts and pictures by name.
	Assets map[string]string
	// PublicURL is where the pages are reached; empty where that is the address that was asked for. RelyingParty is its host name, for
	// which passkeys are made and sign: localhost if empty, which browsers take for safe on this machine alone.
	PublicURL, RelyingParty string
	// Development lets people on this machine choose who they are, and says so on every page.
	Development bool
	// DemoSigner is the key of a demo person, with which a person who was chosen signs in development.
	DemoSigner func(person string) (crypto.Signer, error)
	// KeepAlive is after how long without a change an open page hears that it is still true; 15 seconds if 0.
	KeepAlive time.Duration
}

const defaultKeepAlive = 15 * time.Second

// Pages serves them.
type Pages struct {
	cfg       Config
	templates map[string]*set // by language
	sessions  *sessions
	ended     chan struct{}
	end       sync.Once
}

// New reads the templates and the words.
func New(cfg Config) (*Pages, error) {
	if cfg.Clock == nil || cfg.Log == nil || cfg.Query == nil || cfg.Incidents == nil || cfg.Records == nil || cfg.Reader == nil || cfg.Assets == nil {
		return nil, errors.New("pages: a dependency is missing")
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = defaultKeepAlive
	}
	if cfg.RelyingParty == "" {
		cfg.RelyingParty = "localhost"
	}
	if cfg.Typed == nil {
		cfg.Typed = func(string, string, string) string { return "" }
	}
	if cfg.Process == nil {
		cfg.Process = func(context.Context) Process { return Process{} }
	}
	p := &Pages{cfg: cfg, templates: map[string]*set{}, sessions: newSessions(cfg.Clock.Now), ended: make(chan struct{})}
	for _, code := range languages() {
		s, err := newSet(code)
		if err != nil {
			return nil, err
		}
		p.templates[code] = s
	}
	return p, nil
}

// HangUp ends what is live, so that a server that stops need not wait for people to leave.
func (p *Pages) HangUp() { p.end.Do(func() { close(p.ended) }) }

// Ended returns a channel that is closed by HangUp.
func (p *Pages) Ended() <-chan struct{} { return p.ended }

// Mount adds the pages to a mux.
func (p *Pages) Mount(mux *http.ServeMux) {
	guard := http.NewCrossOriginProtection()
	for pattern, h := range p.handlers() {
		mux.Handle(pattern, guard.Handler(headers(h)))
	}
}

// handlers are what answers, by pattern.
func (p *Pages) handlers() map[string]http.HandlerFunc {
	all := map[string]http.HandlerFunc{
		"POST /incidents/{incident}/act/{command}/sign":      p.actSigned,
		"POST /declare/sign":                                 p.actSigned,
		"GET /rota.ics":                                      p.calendar,
		"GET /board.csv":                                     p.boardTable,
		"POST /incidents/{incident}/sessions/{grant}/frames": p.frames,
		"GET /incidents/{incident}/sessions/{grant}/stream":  p.watchStream,
		"POST /passkeys/sign":                                p.signPasskey,
		"GET /sign-in":                                       p.signInPage,
		"POST /sign-in":                                      p.signIn,
		"POST /sign-out":                                     p.signOut,
		"POST /language":                                     p.chooseLanguage,
	}
	for pattern, build := range map[string]builder{
		"GET /home":                                        p.home,
		"GET /incidents":                                   p.incidents,
		"GET /incidents/{incident}":                        p.incident,
		"GET /incidents/{incident}/at":                     p.slider,
		"GET /incidents/{incident}/timeline":               p.timelinePage,
		"GET /incidents/{incident}/events/{position}":      p.event,
		"POST /incidents/{incident}/events/{position}":     p.event,
		"GET /incidents/{incident}/patches/{revision}":     p.patch,
		"GET /incidents/{incident}/act/{command}":          p.actPage,
		"POST /incidents/{incident}/act/{command}":         p.actGiven,
		"GET /declare":                                     p.actPage,
		"POST /declare":                                    p.actGiven,
		"GET /obligations":                                 p.obligations,
		"GET /rulebook":                                    p.ruleBook,
		"GET /roster":                                      p.roster,
		"POST /roster":                                     p.roster,
		"GET /rota":                                        p.rota,
		"GET /drills":                                      p.drills,
		"GET /board":                                       p.board,
		"GET /system":                                      p.system,
		"GET /incidents/{incident}/sessions/{grant}":       p.session,
		"POST /incidents/{incident}/sessions/{grant}":      p.session,
		"GET /incidents/{incident}/sessions/{grant}/watch": p.watch,
		"GET /incidents/{incident}/cases/{dispute}":        p.casePage,
		"POST /incidents/{incident}/cases/{dispute}":       p.casePage,
		"GET /incidents/{incident}/dossier":                p.dossierPage,
		"POST /incidents/{incident}/dossier":               p.dossierPage,
		"GET /incidents/{incident}/evidence":               p.evidence,
		"POST /incidents/{incident}/evidence":              p.evidence,
		"GET /docket":                                      p.docket,
		"GET /passkeys":                                    p.passkeys,
		"POST /passkeys":                                   p.passkeyMade,
		"POST /passkeys/revoke":                            p.revokePasskey,
	} {
		all[pattern] = p.page(build)
	}
	return all
}

// contentPolicy lets a page have its own style sheets, scripts and pictures, talk to its own server, and nothing else: no inline
// script, no inline style, no other host (hardening.md 1.12).
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// headers are those in which these pages differ from the public log: they have a script, and nobody else may keep them.
func headers(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", contentPolicy)
		w.Header().Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, formLimit(r))
		next(w, r)
	})
}

// maxForm is more than any form of these pages has but those of commands.
const maxForm = 16 << 10

// formLimit is how many bytes a form may have: a command's has room for its texts, that of a patch for the patch.
func formLimit(r *http.Request) int64 {
	switch name := r.PathValue("command"); {
	case name == "RegisterPatch":
		return maxPatchAct
	case name != "" || strings.HasPrefix(r.URL.Path, "/declare"):
		return maxAct
	}
	return maxForm
}

// content is what a page shows inside the frame.
type content struct {
	// Title and Section are keys of the catalogue; Args go into the title.
	Title   string
	Args    []any
	Section string
	// Template is drawn with Data.
	Template string
	Data     any
	// Incident is what the page is about; empty for a page about all of them.
	Incident string
	Drill    bool
	// Still is set for a page that no event changes.
	Still bool
	// Scripts and Styles are further ones that the page needs, by their names among the assets; Modules are what its scripts import.
	Scripts, Styles, Modules []string
	// Status is 200 unless said otherwise.
	Status int
}

// builder makes a page's content for a viewer. An error becomes a page that says what was refused and what to do.
type builder func(v *viewer, r *http.Request) (*content, error)

// page draws what a builder makes for who is signed in; live if the page's own script asks for that.
func (p *Pages) page(build builder) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := p.viewer(r)
		if _, err := p.cfg.Reader(); err != nil {
			w.Header().Set("Retry-After", "1")
			p.fail(w, r, v, err)
			return
		}
		live := r.Method == http.MethodGet && r.URL.Query().Has("live")
		if v.Person == "" {
			if live {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			http.Redirect(w, r, "/sign-in?next="+escapeQuery(r.URL.RequestURI()), http.StatusSeeOther)
			return
		}
		if live {
			p.stream(w, r, build)
			return
		}
		c, err := build(v, r)
		if err != nil {
			p.fail(w, r, v, err)
			return
		}
		p.render(w, r, v, c)
	}
}

// fail draws an error as a page.
func (p *Pages) fail(w http.ResponseWriter, r *http.Request, v *viewer, err error) {
	c := &content{Title: "failed.title", Template: "failed", Still: true, Data: v.refusal(err), Status: statusOf(err)}
	if c.Status >= http.StatusInternalServerError {
		p.cfg.Log.ErrorContext(r.Context(), "page failed", "path", r.URL.Path, "error", err)
	}
	p.render(w, r, v, c)
}

// statusOf is the HTTP status of an error.
func statusOf(err error) int {
	refusal := new(procedure.Refusal)
	var temporary interface{ Temporary() bool }
	switch {
	case errors.As(err, &refusal):
		switch refusal.Code {
		case procedure.NotFound:
			return http.StatusNotFound
		case procedure.PermissionDenied, procedure.Unauthenticated:
			return http.StatusForbidden
		default:
			return http.StatusBadRequest
		}
	case errors.As(err, &temporary) && temporary.Temporary():
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
