// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"

	"cacert.org/emergency/pkg/publog/site"
)

//go:embed static
var files embed.FS

// contentPolicy lets a page have its own style sheet and picture, and nothing else: no script at all.
const contentPolicy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// logPolicy lets a page of the log ask its own server, too: the search, and by its script what has changed.
const logPolicy = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// Handler returns the pages: the public log, those for people who take part (package pages), health, and what Config mounts.
// The public log is read with GET, and needs no script.
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

// assets are the static files that browsers are given, by name: those of the public log, and those of the other pages.
func assets() map[string]asset {
	list := map[string]asset{}
	own, err := fs.Sub(files, "static")
	if err != nil { // the folder is part of the program
		panic(err)
	}
	for _, folder := range []fs.FS{site.Static(), own} {
		collect(list, folder)
	}
	return list
}

func collect(list map[string]asset, folder fs.FS) {
	types := map[string]string{".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8"}
	_ = fs.WalkDir(folder, ".", func(name string, d fs.DirEntry, err error) error { // embedded: TestAssets sees that they are there
		contentType, ok := types[path.Ext(name)]
		if err != nil || d.IsDir() || !ok {
			return err
		}
		data, err := fs.ReadFile(folder, name)
		sum := sha256.Sum256(data)
		list[name] = asset{"/static/" + hex.EncodeToString(sum[:6]) + "/" + name, contentType, data}
		return err
	})
}

func (a asset) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", a.contentType)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(a.data)
}
