// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

//go:embed words/*/*.json
var wordFiles embed.FS

//go:embed templates/*.html
var templateFiles embed.FS

// languages are those that have a catalogue; the first one is for whoever asks for none of them.
func languages() []string { return []string{"en", "de"} }

// languageCookie keeps a choice that differs from the browser's.
const languageCookie = "epatch-language"

// set is everything in one language.
type set struct {
	code      string
	words     map[string]string
	templates *template.Template
}

// newSet reads a catalogue and the templates that speak it. Both are part of the program.
func newSet(code string) (*set, error) {
	s := &set{code: code}
	var err error
	if s.words, err = catalogue(code); err != nil {
		return nil, fmt.Errorf("words of %s: %w", code, err)
	}
	s.templates, err = template.New("").Funcs(s.funcs()).ParseFS(templateFiles, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("templates: %w", err)
	}
	return s, nil
}

// catalogue is a language's texts by key: one file an area of the pages, no key in two of them.
func catalogue(code string) (map[string]string, error) {
	files, err := fs.Glob(wordFiles, "words/"+code+"/*.json")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, file := range files {
		b, err := wordFiles.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var words map[string]string
		if err := json.Unmarshal(b, &words); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for key, text := range words {
			if _, twice := all[key]; twice {
				return nil, fmt.Errorf("%s: another file has %q too", file, key)
			}
			all[key] = text
		}
	}
	return all, nil
}

// funcs are what the templates can call.
func (s *set) funcs() template.FuncMap {
	return template.FuncMap{
		"t": s.say, "lang": func() string { return s.code },
		"said":  said,
		"nav":   func(section, name, href, key string) navLink { return navLink{href, key, section == name} },
		"plus":  func(n uint64) uint64 { return n + 1 },
		"minus": func(n uint64) uint64 { return n - 1 },
	}
}

// navLink is a place in the navigation.
type navLink struct {
	Href, Key string
	Here      bool
}

// say is a text of the catalogue. A key that is missing shows itself, so that the page still says what it is about; a test sees
// that none is missing.
func (s *set) say(key string, args ...any) string {
	text, ok := s.words[key]
	if !ok {
		return key
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// language is the one that a request wants: by its cookie, else by Accept-Language.
func (p *Pages) language(r *http.Request) *set {
	if c, err := r.Cookie(languageCookie); err == nil {
		if s, ok := p.templates[c.Value]; ok {
			return s
		}
	}
	return p.templates[accepted(r.Header.Get("Accept-Language"))]
}

// accepted is the language of ours that a header of RFC 9110 12.5.4 likes most.
func accepted(header string) string {
	best, weight := languages()[0], 0.0
	for part := range strings.SplitSeq(header, ",") {
		tag, rest, _ := strings.Cut(strings.TrimSpace(part), ";")
		q := 1.0
		if v, ok := strings.CutPrefix(strings.TrimSpace(rest), "q="); ok {
			q, _ = strconv.ParseFloat(v, 64) // no number counts as not wanted
		}
		code, _, _ := strings.Cut(strings.ToLower(tag), "-")
		if q > weight && slices.Contains(languages(), code) {
			best, weight = code, q
		}
	}
	return best
}

// chooseLanguage keeps a choice and goes back.
func (p *Pages) chooseLanguage(w http.ResponseWriter, r *http.Request) {
	if code := r.PostFormValue("language"); p.templates[code] != nil {
		http.SetCookie(w, &http.Cookie{Name: languageCookie, Value: code, Path: "/", MaxAge: 365 * 24 * 3600, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	}
	http.Redirect(w, r, local(r.PostFormValue("next")), http.StatusSeeOther)
}
