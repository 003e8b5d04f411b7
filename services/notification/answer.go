// SPDX-License-Identifier: Apache-2.0

package notification

import (
	"crypto/hmac"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// linkValid is how long a page's link can be used.
const linkValid = 24 * time.Hour

// token is the path of a page's link: incident, page, end, and 128 bits of a keyed digest over them. It authorises nothing:
// it leads to a page on which the person signs in by certificate (hardening.md 1.11), and is used up once the person has
// answered.
func (s *Server) token(incident, page string) string {
	end := strconv.FormatInt(s.Clock.Now().Add(linkValid).Unix(), 36)
	return incident + "/" + page + "/" + end + "/" + s.mac(incident, page, end)
}

func (s *Server) mac(parts ...string) string {
	h := hmac.New(sha256.New, s.cfg.LinkKey)
	h.Write([]byte(strings.Join(parts, "\x00")))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

//go:embed answer.html
var answerFiles embed.FS

var answerPage = template.Must(template.ParseFS(answerFiles, "answer.html"))

type answerView struct {
	Incident, Team, Person, Slot, Note string
	SignedIn, Answered, Drill          bool
}

// Answer serves the page that a link leads to, below the path where it is mounted.
func (s *Server) Answer() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{incident}/{page}/{end}/{mac}", s.showAnswer)
	mux.HandleFunc("POST /{incident}/{page}/{end}/{mac}", s.takeAnswer)
	return http.NewCrossOriginProtection().Handler(mux)
}

var errLink = errors.New("this link is not one of ours, or it has expired")

// linked finds the page of a link and whether its person has answered.
func (s *Server) linked(r *http.Request) (view answerView, page procedure.Page, err error) {
	incident, id, end := r.PathValue("incident"), r.PathValue("page"), r.PathValue("end")
	if !hmac.Equal([]byte(s.mac(incident, id, end)), []byte(r.PathValue("mac"))) {
		return view, page, errLink
	}
	until, err := strconv.ParseInt(end, 36, 64)
	if err != nil || s.Clock.Now().After(time.Unix(until, 0)) {
		return view, page, errLink
	}
	st, err := s.Dispatch.State(r.Context(), incident)
	if err != nil {
		return view, page, err
	}
	for _, p := range st.Pages {
		if p.ID == id {
			page = p
		}
	}
	if page.ID == "" {
		return view, page, errLink
	}
	view = answerView{Incident: incident, Drill: st.Declared.Drill, Team: procedure.TeamWord(page.Team), Person: page.Person, Answered: len(st.Held(page.Person)) > 0 || st.Status != procedure.Open}
	if _, used := st.Requests[procedure.RequestKey{Person: page.Person, Command: "Respond", RequestID: linkRequest(r)}]; used {
		view.Answered = true // also if what was answered then no longer holds: a link is used once
	}
	for _, d := range st.Declined {
		view.Answered = view.Answered || d.Person == page.Person && d.Team == page.Team && d.Position > page.Position
	}
	return view, page, nil
}

// linkRequest is the request id of an answer by a link.
func linkRequest(r *http.Request) string {
	return linkPrefix + linkWord(r.PathValue("page")) + "." + r.PathValue("mac")
}

// linkPrefix begins the request ids of answers by a link; linkWord is how a page's id stands in them.
const linkPrefix = "link."

func linkWord(page string) string { return strings.ReplaceAll(page, "/", ".") }

// signedIn tells whether the connection's certificate is the called person's.
func (s *Server) signedIn(r *http.Request, person string) (identity.Caller, bool) {
	c, ok := identity.FromTLS(r.TLS)
	if !ok {
		return c, false
	}
	k, known := s.Incidents.Book().Key(c.KeyID)
	return c, known && k.Key.GetPerson() == person
}

func (s *Server) showAnswer(w http.ResponseWriter, r *http.Request) {
	view, page, err := s.linked(r)
	if err != nil {
		s.failAnswer(w, r, err)
		return
	}
	_, view.SignedIn = s.signedIn(r, page.Person)
	s.render(w, http.StatusOK, view)
}

func (s *Server) takeAnswer(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	view, page, err := s.linked(r)
	if err != nil {
		s.failAnswer(w, r, err)
		return
	}
	caller, ok := s.signedIn(r, page.Person)
	if !ok || view.Answered {
		view.SignedIn = ok
		s.render(w, http.StatusForbidden, view)
		return
	}
	view.SignedIn = true
	meta := &emergencyv1.CommandMeta{Incident: view.Incident, RequestId: linkRequest(r)}
	cmd := &emergencyv1.RespondRequest{Meta: meta}
	if r.PostFormValue("answer") == "decline" {
		cmd.Answer = &emergencyv1.RespondRequest_Decline{Decline: &emergencyv1.Declination{Team: page.Team, Reason: r.PostFormValue("reason")}}
	} else {
		cmd.Answer = &emergencyv1.RespondRequest_Accept{Accept: &emergencyv1.Acceptance{Team: page.Team, ContactPath: r.PostFormValue("contact"), OnStandby: true}}
	}
	_, err = s.Dispatch.Do(r.Context(), cmd, dispatch.Input{Actor: procedure.Actor{KeyID: caller.KeyID}})
	var refusal *procedure.Refusal
	switch {
	case errors.As(err, &refusal):
		view.Note = refusal.Message + " (" + refusal.Rule + ")"
		s.render(w, http.StatusConflict, view)
	case err != nil:
		s.failAnswer(w, r, err)
	default:
		w.Header().Set("Location", r.PathValue("mac")) // the page itself, wherever it is mounted
		w.WriteHeader(http.StatusSeeOther)
	}
}

func (s *Server) failAnswer(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, errLink) {
		s.render(w, http.StatusNotFound, answerView{Note: err.Error()})
		return
	}
	s.Log.ErrorContext(r.Context(), "answer page", "error", err)
	s.render(w, http.StatusServiceUnavailable, answerView{Note: "The emergency system cannot answer now. Nothing was recorded; please try again, or use epatch."})
}

func (s *Server) render(w http.ResponseWriter, code int, view answerView) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	if err := answerPage.Execute(w, view); err != nil {
		s.Log.Warn("answer page not sent whole", "error", err)
	}
}
