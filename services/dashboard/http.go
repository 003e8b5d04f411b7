// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

//go:embed templates static
var files embed.FS

// contentPolicy lets a page have its own style sheet and picture, and nothing else: no script at all.
const contentPolicy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler returns the pages: the public log, those for people who take part (package pages), health, and what Config mounts.
// The public log is read with GET, and needs and allows no script.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	newLogPages(s).mount(mux)
	s.people.Mount(mux)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	if s.cfg.Metrics != nil {
		mux.Handle("GET /metrics", s.cfg.Metrics)
	}
	guarded := secured(mux)
	if s.cfg.Links == nil {
		return guarded
	}
	outer := http.NewServeMux()
	outer.Handle("/r/", s.cfg.Links) // outside: it sets headers of its own, and has a form
	outer.Handle("/", guarded)
	return outer
}

// readyz is for the operator's probes: it says why not.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if _, err := s.running(); err != nil {
		plain(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	if s.cfg.Ready != nil {
		if err := s.cfg.Ready(); err != nil {
			plain(w, http.StatusServiceUnavailable, err.Error())
			return
		}
	}
	plain(w, http.StatusOK, "ready")
}

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintln(w, text)
}

// secured sets the headers that hold for every page.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		if r.TLS != nil {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// asset is an embedded file that is served under a name that changes with its content.
type asset struct {
	path        string
	contentType string
	data        []byte
}

// assets reads the embedded static files that browsers are given, by name below static/.
func assets() map[string]asset {
	types := map[string]string{".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".js": "text/javascript; charset=utf-8"}
	list := map[string]asset{}
	_ = fs.WalkDir(files, "static", func(name string, d fs.DirEntry, err error) error { // embedded: TestAssets sees that they are there
		contentType, ok := types[path.Ext(name)]
		if err != nil || d.IsDir() || !ok {
			return err
		}
		data, err := files.ReadFile(name)
		sum := sha256.Sum256(data)
		name = strings.TrimPrefix(name, "static/")
		list[name] = asset{"/static/" + hex.EncodeToString(sum[:6]) + "/" + name, contentType, data}
		return err
	})
	return list
}

func (a asset) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", a.contentType)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(a.data)
}

// render writes a page whole or not at all: a template that fails must not leave half a page with status 200.
func (p *logPages) render(w http.ResponseWriter, r *http.Request, code int, name string, data any) {
	var b bytes.Buffer
	if err := p.templates.ExecuteTemplate(&b, name, data); err != nil {
		p.server.cfg.Log.ErrorContext(r.Context(), "page not made", "page", name, "error", err)
		plain(w, http.StatusInternalServerError, "This page could not be made. The log itself is at /log.json.")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes())
}

// parsed are the templates; they are part of the program, so one that does not parse never starts.
func parsed() *template.Template {
	return template.Must(template.New("").ParseFS(files, "templates/*.html"))
}
