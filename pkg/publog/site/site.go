// SPDX-License-Identifier: Apache-2.0

// Package site makes the pages of the public emergency log from its entries: HTML that reads without JavaScript, JSON, Atom, and a
// wiki page. The dashboard serves them live, and Write puts the same pages into a folder that any web server can serve.
//
// A page is a pure function of the entries and the Config. Where Config.Now is zero, nothing on a page depends on when it was made, so
// the same log gives the same bytes. Nothing in it decides what may be published: the entries say what is public, and every text in
// them is written by strangers.
package site

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cacert.org/emergency/pkg/publog"
)

//go:embed templates static
var files embed.FS

// Static are the style sheets and the picture of the pages.
func Static() fs.FS {
	sub, err := fs.Sub(files, "static")
	if err != nil { // the folder is part of the program
		panic(err)
	}
	return sub
}

var templates = template.Must(template.New("").ParseFS(files, "templates/*.html"))

// Config says what the pages are made from.
type Config struct {
	// Entries are the whole logs, oldest first; they are never written to.
	Entries map[publog.Origin][]publog.Entry
	// Base is where the pages are reached, such as https://emergency.cacert.org/log-of-emergencies, for links that have to be absolute:
	// those of the feeds and of the wiki page. Feeds have relative links if it is empty.
	Base string
	// Live pages are served by the dashboard: there is a search, and an address to sign in at. The others are files.
	Live bool
	// Assets are the addresses of the Static files by name, for live pages.
	Assets map[string]string
	// Stream is where a live page hears of changes, by server-sent events for the Scripts, which are addresses; a page without it stays as
	// it is.
	Stream  string
	Scripts []string
	// Development says on every page that a development authority and demo people are in use.
	Development bool
	// Old is the sentence that says that the log may have more than is shown here; empty if that is not so.
	Old string
	// Now is what ages are counted to; a page of a zero Now says nothing that changes with the time.
	Now time.Time
	// Standing is how an incident stands, where more is known of it than its entries say. Optional.
	Standing func(incident string) (Standing, bool)
}

// Site makes pages.
type Site struct {
	cfg       Config
	incidents map[publog.Origin][]*incident // newest first
	byID      map[string]*incident
	archive   []*entry // newest first, by when they were sent
}

// New reads the logs in.
func New(cfg Config) *Site {
	cfg.Base = strings.TrimSuffix(cfg.Base, "/")
	s := &Site{cfg: cfg, incidents: map[publog.Origin][]*incident{}, byID: map[string]*incident{}}
	for _, o := range []publog.Origin{publog.Real, publog.Drills} {
		for n := range cfg.Entries[o] {
			e := &cfg.Entries[o][n]
			i, ok := s.byID[e.Incident]
			if !ok {
				i = &incident{ID: e.Incident, Origin: o, declaredAt: e.At}
				s.byID[e.Incident] = i
				s.incidents[o] = append(s.incidents[o], i)
			}
			i.add(e)
		}
		for _, i := range s.incidents[o] {
			i.stand(s.cfg)
		}
		slices.SortStableFunc(s.incidents[o], func(a, b *incident) int { return b.declaredAt.Compare(a.declaredAt) })
	}
	for _, e := range cfg.Entries[publog.Archive] {
		s.archive = append(s.archive, viewOf(e, time.Time{}))
	}
	slices.SortStableFunc(s.archive, func(a, b *entry) int { return b.SentAt.Compare(a.SentAt) })
	return s
}

// page is what every page shows.
type page struct {
	Title string
	L     links

	Live, Development bool
	Old, Stream       string
	Scripts           []string
	Assets            map[string]string
	Origin            publog.Origin
	Year              string
	Years             []string
	// What the page reflects.
	Seq      uint64
	Head     string
	Recorded string
	Age      string
	Made     string

	Summary   summary
	Incidents []*incident // of an overview or year
	Older     int         // incidents of an overview that are only on the pages of the years
	Incident  *incident   // of one incident
	Waiting   []waiting   // disputes without an arbitrator; on an incident's page its own
	Archived  []*entry    // messages of the archive
	InArchive int         // how many there are
	Entry     *entry      // of one entry
	Canonical string
	Next      uint64
	Entries   []*entry // found, or all
	Query     string
	Found     int
}

// Drills tells whether the page is of the drills' log.
func (p *page) Drills() bool { return p.Origin == publog.Drills }

// IsArchive tells whether the page is of the log of the archive.
func (p *page) IsArchive() bool { return p.Origin == publog.Archive }

// Of is the log that the years on the page are of.
func (p *page) Of() publog.Origin {
	if p.IsArchive() {
		return publog.Real
	}
	return p.Origin
}

// Before is the number of the entry before the page's.
func (p *page) Before() uint64 { return p.Entry.Seq - 1 }

// summary counts over a whole log (procedure.md 8.6).
type summary struct{ Open, Owed, Overdue int }

// waiting is a dispute that no arbitrator has taken (procedure.md 8.6).
type waiting struct {
	publog.Dispute
	Filed, Age string
}

// at begins the page that lies at a place of the site.
func (s *Site) at(o publog.Origin, file, title string) *page {
	l := links{live: s.cfg.Live, up: strings.Repeat("../", strings.Count(file, "/"))}
	pg := &page{Title: title, L: l, Live: s.cfg.Live, Development: s.cfg.Development, Old: s.cfg.Old, Stream: s.cfg.Stream, Scripts: s.cfg.Scripts, Origin: o, Head: publog.Genesis(o), Assets: map[string]string{}, InArchive: len(s.archive)}
	for _, name := range assetNames() {
		pg.Assets[name] = l.up + assetFolder + name
		if s.cfg.Live {
			pg.Assets[name] = s.cfg.Assets[name]
		}
	}
	entries := s.cfg.Entries[o]
	if n := len(entries); n > 0 {
		last := entries[n-1]
		pg.Seq, pg.Head, pg.Recorded, pg.Age = last.Seq, last.Hash, full(last.At), s.age(last.At)
	}
	if !s.cfg.Now.IsZero() {
		pg.Made = full(s.cfg.Now)
	}
	for _, i := range s.incidents[o] {
		pg.Summary.Owed, pg.Summary.Overdue = pg.Summary.Owed+i.Open, pg.Summary.Overdue+i.Overdue
		if !i.Ended {
			pg.Summary.Open++
		}
	}
	pg.Years = s.years(o)
	return pg
}

// age is how long ago something was; empty where the page must not change with the time.
func (s *Site) age(at time.Time) string {
	if s.cfg.Now.IsZero() {
		return ""
	}
	return age(s.cfg.Now.Sub(at))
}

// years are those of a log, newest first. The years of the archive are years of the log of emergencies.
func (s *Site) years(o publog.Origin) []string {
	found := map[string]bool{}
	for _, i := range s.incidents[o] {
		found[i.Year()] = true
	}
	if o != publog.Drills {
		for _, e := range s.archive {
			found[e.Year()] = true
		}
	}
	list := slices.Sorted(maps.Keys(found))
	slices.Reverse(list)
	return list
}

func (s *Site) waiting(o publog.Origin) []waiting {
	var list []waiting
	for _, d := range publog.Waiting(s.cfg.Entries[o]) {
		list = append(list, waiting{d, full(d.FiledAt), s.age(d.FiledAt)})
	}
	return list
}

// recent is how many ended incidents, and how many messages of the archive, an overview shows.
const recent = 20

func title(o publog.Origin) string {
	switch o {
	case publog.Drills:
		return "Emergency log: drills"
	case publog.Archive:
		return "Emergency log: from the archive"
	case publog.Real:
	}
	return "Emergency log"
}

// Overview is the first page of a log.
func (s *Site) Overview(o publog.Origin) ([]byte, error) {
	pg := s.at(o, links{}.Log(o), title(o))
	if o == publog.Archive {
		pg.Archived = s.archive
		return render("archive.html", pg)
	}
	pg.Waiting = s.waiting(o)
	ended := 0
	for _, i := range s.incidents[o] {
		if i.Ended {
			if ended++; ended > recent {
				pg.Older++
				continue
			}
		}
		pg.Incidents = append(pg.Incidents, i)
	}
	return render("log.html", pg)
}

// Year is the page of a year; nil if the log has nothing of it.
func (s *Site) Year(o publog.Origin, year string) ([]byte, error) {
	if o == publog.Archive || !slices.Contains(s.years(o), year) {
		return nil, nil
	}
	pg := s.at(o, links{}.OfYear(o, year), title(o)+" "+year)
	pg.Year = year
	for _, i := range s.incidents[o] {
		if i.Year() == year {
			pg.Incidents = append(pg.Incidents, i)
		}
	}
	if o == publog.Real {
		for _, e := range s.archive {
			if e.Year() == year {
				pg.Archived = append(pg.Archived, e)
			}
		}
	}
	return render("log.html", pg)
}

// Incident is the page of one incident; nil if there is none.
func (s *Site) Incident(id string) ([]byte, error) {
	i, ok := s.byID[id]
	if !ok {
		return nil, nil
	}
	pg := s.at(i.Origin, links{}.Incident(id), i.ID+": "+i.System)
	pg.Incident = i
	pg.Waiting = slices.DeleteFunc(s.waiting(i.Origin), func(d waiting) bool { return d.Incident != id })
	return render("incident.html", pg)
}

// Entry is the page of one entry, with what its hash is made of; nil if there is none.
func (s *Site) Entry(o publog.Origin, seq uint64) ([]byte, error) {
	entries := s.cfg.Entries[o]
	if seq < 1 || seq > uint64(len(entries)) {
		return nil, nil
	}
	e := entries[seq-1]
	pg := s.at(o, links{}.Entry(o, seq), fmt.Sprintf("Entry %d: %s", seq, e.Headline))
	declared := time.Time{}
	if i, ok := s.byID[e.Incident]; ok {
		pg.Incident, declared = i, i.declaredAt
	}
	pg.Entry, pg.Canonical = viewOf(e, declared), e.Canonical(o)
	if seq < uint64(len(entries)) {
		pg.Next = seq + 1
	}
	return render("entry.html", pg)
}

// All is every entry of a log on one page, newest first: the search of a site that is only files is the browser's own.
func (s *Site) All(o publog.Origin) ([]byte, error) {
	pg := s.at(o, links{}.All(o), title(o)+": every entry")
	entries := s.cfg.Entries[o]
	for i := len(entries) - 1; i >= 0; i-- {
		pg.Entries = append(pg.Entries, viewOf(entries[i], time.Time{}))
	}
	return render("all.html", pg)
}

const (
	// foundLimit is how many entries a search shows, queryLimit how much of a question it reads, in runes and words.
	foundLimit = 200
	queryLimit = 200
	wordLimit  = 10
)

// Search finds the entries of all logs that hold every word of a question, newest first.
func (s *Site) Search(query string) ([]byte, error) {
	if r := []rune(query); len(r) > queryLimit {
		query = string(r[:queryLimit])
	}
	query = strings.ToValidUTF8(strings.Join(strings.Fields(query), " "), "")
	pg := s.at(publog.Real, links{}.Search(), "Search the emergency log")
	pg.Query = query
	words := strings.Fields(fold(query))
	words = words[:min(len(words), wordLimit)]
	var text []byte
	if len(words) == 0 {
		return render("search.html", pg)
	}
	for _, o := range publog.Origins() {
		for i := len(s.cfg.Entries[o]) - 1; i >= 0; i-- {
			e := &s.cfg.Entries[o][i]
			if text = foldedText(text[:0], e); !holds(text, words) {
				continue
			}
			if pg.Found++; pg.Found <= foundLimit {
				v := viewOf(*e, time.Time{})
				v.Origin = o
				pg.Entries = append(pg.Entries, v)
			}
		}
	}
	return render("search.html", pg)
}

// holds tells whether a text, folded, has all words.
func holds(text []byte, words []string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !bytes.Contains(text, []byte(w)) })
}

// foldedText adds everything that an entry says, together and folded, to a buffer: every entry is looked at in every search.
func foldedText(b []byte, e *publog.Entry) []byte {
	for _, part := range []string{e.Incident, e.Kind, e.Headline, e.Role} {
		b = append(append(b, part...), '\n')
	}
	b = append(e.At.UTC().AppendFormat(b, "2006-01-02"), '\n')
	b = append(append(b, e.Hash...), '\n')
	for _, f := range e.Fields {
		b = append(append(append(append(b, f.Name...), ' '), f.Value...), '\n')
	}
	for i, c := range b {
		switch {
		case c >= utf8.RuneSelf:
			return bytes.ToLower(bytes.ToUpper(b))
		case 'A' <= c && c <= 'Z':
			b[i] = c + 'a' - 'A'
		}
	}
	return b
}

func fold(s string) string { return strings.ToLower(strings.ToUpper(s)) }

// Missing is the page that says that there is none.
func (s *Site) Missing() ([]byte, error) {
	return render("missing.html", s.at(publog.Real, "", "Not found"))
}

// render makes a page whole or not at all.
func render(name string, pg *page) ([]byte, error) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, pg); err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// assetFolder is where the Static files lie in a site of files.
const assetFolder = "assets/"

func assetNames() []string { return []string{"palette.css", "style.css", "icon.svg"} }

// links are the addresses of pages, as seen from one of them. Live ones are absolute paths; those of files are relative, so that the
// site can lie anywhere.
type links struct {
	live bool
	up   string
}

func folder(o publog.Origin) string {
	if o == publog.Real {
		return ""
	}
	return string(o) + "/"
}

func (l links) to(o publog.Origin, live, file string) string {
	if !l.live {
		return l.up + folder(o) + file
	}
	return strings.TrimSuffix("/log/"+folder(o)+live, "/")
}

// Log is the address of a log's first page.
func (l links) Log(o publog.Origin) string { return l.to(o, "", "index.html") }

// OfYear is that of a year.
func (l links) OfYear(o publog.Origin, year string) string { return l.to(o, year, year+".html") }

// Incident is that of an incident; the archive is the one that is none.
func (l links) Incident(id string) string {
	if o := publog.OriginOf(id); o == publog.Archive {
		return l.Log(o)
	} else if o == publog.Drills && l.live {
		return "/log/" + id // as it always was
	} else {
		return l.to(o, id, id+".html")
	}
}

// Entry is that of an entry's own page.
func (l links) Entry(o publog.Origin, seq uint64) string {
	n := strconv.FormatUint(seq, 10)
	return l.to(o, "entry/"+n, "entry/"+n+".html")
}

// All is that of the page with every entry of a log.
func (l links) All(o publog.Origin) string { return l.to(o, "all", "all.html") }

// Search is that of the search, which only live pages have.
func (l links) Search() string { return l.to(publog.Real, "search", "all.html") }

// JSON and Atom are those of a log's machine forms.
func (l links) JSON(o publog.Origin) string { return l.machine(o, "json") }

// Atom is that of the feed.
func (l links) Atom(o publog.Origin) string { return l.machine(o, "atom") }

func (l links) machine(o publog.Origin, form string) string {
	if !l.live {
		return l.up + folder(o) + "log." + form
	}
	return strings.TrimSuffix("/log/"+folder(o), "/") + "." + form
}

// EntryJSON is that of an entry's machine form, IncidentJSON that of an incident's.
func (l links) EntryJSON(o publog.Origin, seq uint64) string { return jsonOf(l.Entry(o, seq)) }

// IncidentJSON is that of an incident's machine form.
func (l links) IncidentJSON(id string) string { return jsonOf(l.Incident(id)) }

// YearJSON is that of a year's machine form.
func (l links) YearJSON(o publog.Origin, year string) string { return jsonOf(l.OfYear(o, year)) }

func jsonOf(address string) string { return strings.TrimSuffix(address, ".html") + ".json" }

// AtomPage is that of an archived part of the feed (RFC 5005).
func (l links) AtomPage(o publog.Origin, n int) string {
	return l.to(o, "atom/"+strconv.Itoa(n), path.Join("atom", strconv.Itoa(n)+".atom"))
}
