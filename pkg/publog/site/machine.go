// SPDX-License-Identifier: Apache-2.0

package site

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cacert.org/emergency/pkg/publog"
)

// logDocument is a log's machine form: the whole log, which publog.Verify checks.
type logDocument struct {
	Log         publog.Origin `json:"log"`
	Development bool          `json:"development"`
	Genesis     string        `json:"genesis"`
	Head        string        `json:"head"`
	// What the entries say to be open (procedure.md 8.6); ages are for the reader to count, the document changes with the head alone.
	Owed    int              `json:"obligations_owed"`
	Overdue int              `json:"obligations_overdue"`
	Waiting []publog.Dispute `json:"disputes_without_arbitrator"`
	Entries []publog.Entry   `json:"entries"`
}

// partDocument is the machine form of some entries of a log. A part of a chain proves nothing by itself: the whole log does.
type partDocument struct {
	Log         publog.Origin  `json:"log"`
	Development bool           `json:"development"`
	Incident    string         `json:"incident,omitempty"`
	Year        string         `json:"year,omitempty"`
	Head        string         `json:"head"`
	Entries     []publog.Entry `json:"entries"`
}

// Head is the hash of a log's last entry: what its machine forms change with.
func (s *Site) Head(o publog.Origin) string {
	if n := len(s.cfg.Entries[o]); n > 0 {
		return s.cfg.Entries[o][n-1].Hash
	}
	return publog.Genesis(o)
}

// JSON is a whole log.
func (s *Site) JSON(o publog.Origin) ([]byte, error) {
	entries := s.cfg.Entries[o]
	doc := logDocument{Log: o, Development: s.cfg.Development, Genesis: publog.Genesis(o), Head: s.Head(o), Entries: entries, Waiting: publog.Waiting(entries)}
	if doc.Entries == nil {
		doc.Entries = []publog.Entry{}
	}
	doc.Owed, doc.Overdue = publog.Owed(entries)
	return encode(doc)
}

// IncidentJSON are the entries of an incident; nil if there is none.
func (s *Site) IncidentJSON(id string) ([]byte, error) {
	i, ok := s.byID[id]
	if !ok {
		return nil, nil
	}
	doc := partDocument{Log: i.Origin, Development: s.cfg.Development, Incident: id, Head: s.Head(i.Origin)}
	for _, e := range i.entries {
		doc.Entries = append(doc.Entries, *e)
	}
	return encode(doc)
}

// YearJSON are the entries about the incidents of a year, in the order of the log; nil if it has nothing of it.
func (s *Site) YearJSON(o publog.Origin, year string) ([]byte, error) {
	doc := partDocument{Log: o, Development: s.cfg.Development, Year: year, Head: s.Head(o)}
	for _, e := range s.cfg.Entries[o] {
		of := ""
		if i, ok := s.byID[e.Incident]; ok {
			of = i.Year()
		} else if v := viewOf(e, time.Time{}); v.FromArchive() {
			of = v.Year()
		}
		if of == year {
			doc.Entries = append(doc.Entries, e)
		}
	}
	if doc.Entries == nil {
		return nil, nil
	}
	return encode(doc)
}

// EntryJSON is one entry; nil if there is none.
func (s *Site) EntryJSON(o publog.Origin, seq uint64) ([]byte, error) {
	entries := s.cfg.Entries[o]
	if seq < 1 || seq > uint64(len(entries)) {
		return nil, nil
	}
	return encode(partDocument{Log: o, Development: s.cfg.Development, Head: s.Head(o), Entries: entries[seq-1 : seq]})
}

func encode(doc any) ([]byte, error) {
	b, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode log: %w", err)
	}
	return append(b, '\n'), nil
}

// atomEntries is how many entries a document of the feed has: the newest, and each archived part.
const atomEntries = 100

// The elements of RFC 4287 and RFC 5005 that the feed uses.
type atomFeed struct {
	XMLName  xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	ID       string      `xml:"id"`
	Title    string      `xml:"title"`
	Subtitle string      `xml:"subtitle"`
	Updated  string      `xml:"updated"`
	Author   atomAuthor  `xml:"author"`
	Links    []atomLink  `xml:"link"`
	Archive  *struct{}   `xml:"http://purl.org/syndication/history/1.0 archive"`
	Entries  []atomEntry `xml:"entry"`
}

type atomAuthor struct {
	Name string `xml:"name"`
}

type atomLink struct {
	Rel  string `xml:"rel,attr"`
	Type string `xml:"type,attr"`
	Href string `xml:"href,attr"`
}

type atomEntry struct {
	ID        string   `xml:"id"`
	Title     string   `xml:"title"`
	Updated   string   `xml:"updated"`
	Published string   `xml:"published"`
	Link      atomLink `xml:"link"`
	Content   atomText `xml:"content"`
}

type atomText struct {
	Type string `xml:"type,attr"`
	Text string `xml:",chardata"`
}

// atomID names a log or entry for ever, wherever it is served (RFC 4151).
func atomID(o publog.Origin, seq uint64) string {
	id := "tag:cacert.org,2026:emergency-log/" + string(o)
	if seq > 0 {
		id += "/" + strconv.FormatUint(seq, 10)
	}
	return id
}

// AtomPages is how many archived parts a log's feed has: only full ones, which never change again (RFC 5005, 4).
func (s *Site) AtomPages(o publog.Origin) int { return len(s.cfg.Entries[o]) / atomEntries }

// Atom is the feed of the newest entries.
func (s *Site) Atom(o publog.Origin) ([]byte, error) {
	entries := s.cfg.Entries[o]
	doc, l := s.feed(o, links{}.Atom(o), entries[max(0, len(entries)-atomEntries):])
	if n := s.AtomPages(o); n > 0 {
		doc.Links = append(doc.Links, s.atomLink("prev-archive", l.AtomPage(o, n)))
	}
	return s.atom(doc)
}

// AtomPage is an archived part of the feed, 1 the oldest; nil if there is none.
func (s *Site) AtomPage(o publog.Origin, n int) ([]byte, error) {
	if n < 1 || n > s.AtomPages(o) {
		return nil, nil
	}
	doc, l := s.feed(o, links{}.AtomPage(o, n), s.cfg.Entries[o][(n-1)*atomEntries:n*atomEntries])
	doc.Archive = &struct{}{}
	doc.Links[0] = s.atomLink("self", l.AtomPage(o, n))
	doc.Links = append(doc.Links, s.atomLink("current", l.Atom(o)))
	if n > 1 {
		doc.Links = append(doc.Links, s.atomLink("prev-archive", l.AtomPage(o, n-1)))
	}
	// no next-archive: it would change a part that is complete
	return s.atom(doc)
}

func (s *Site) atomLink(rel, address string) atomLink {
	return atomLink{rel, "application/atom+xml", s.absolute(address)}
}

// absolute is an address with Base before it; without one it stays as it is.
func (s *Site) absolute(address string) string {
	if s.cfg.Base == "" {
		return address
	}
	return s.cfg.Base + "/" + strings.TrimPrefix(address, "/")
}

// linksFrom are the addresses as seen from a file, or from nowhere where they will be absolute.
func (s *Site) linksFrom(file string) links {
	if s.cfg.Live || s.cfg.Base != "" {
		return links{live: s.cfg.Live}
	}
	return links{up: strings.Repeat("../", strings.Count(file, "/"))}
}

func (s *Site) feed(o publog.Origin, file string, entries []publog.Entry) (*atomFeed, links) {
	l := s.linksFrom(file)
	doc := &atomFeed{
		ID: atomID(o, 0), Title: "CAcert emergency log", Subtitle: "Every use of the emergency patch procedure", Author: atomAuthor{"CAcert"},
		Updated: time.Unix(0, 0).UTC().Format(time.RFC3339), // of a log without entries
		Links:   []atomLink{s.atomLink("self", l.Atom(o)), {"alternate", "text/html", s.absolute(l.Log(o))}},
	}
	switch o {
	case publog.Drills:
		doc.Title, doc.Subtitle = "CAcert emergency log: drills", "Exercises; no real system is touched"
	case publog.Archive:
		doc.Title, doc.Subtitle = "CAcert emergency log: from the archive", "Messages of the system-log mailing list from the years before the log"
	case publog.Real:
	}
	if s.cfg.Development {
		doc.Title += " (development)"
	}
	for i := len(entries) - 1; i >= 0; i-- {
		e := s.atomOf(o, l, entries[i])
		doc.Updated = max(doc.Updated, e.Updated) // the services' clocks may differ a little, so not simply the last entry's
		doc.Entries = append(doc.Entries, e)
	}
	return doc, l
}

func (s *Site) atomOf(o publog.Origin, l links, e publog.Entry) atomEntry {
	var text strings.Builder
	fmt.Fprintf(&text, "By: %s\n", e.Role)
	for _, f := range e.Fields {
		fmt.Fprintf(&text, "%s: %s\n", f.Name, f.Value)
	}
	fmt.Fprintf(&text, "Entry %d, hash %s", e.Seq, e.Hash)
	at := e.At.UTC().Format(time.RFC3339)
	out := atomEntry{ID: atomID(o, e.Seq), Title: e.Incident + ": " + e.Headline, Updated: at, Published: at, Content: atomText{"text", text.String()}}
	address := fmt.Sprintf("%s#e%d", l.Incident(e.Incident), e.Seq)
	if v := viewOf(e, time.Time{}); v.FromArchive() {
		out.Title, address, out.Published = e.Headline, l.Entry(o, e.Seq), v.SentAt.Format(time.RFC3339)
	}
	out.Link = atomLink{"alternate", "text/html", s.absolute(address)}
	return out
}

func (s *Site) atom(doc *atomFeed) ([]byte, error) {
	b, err := xml.MarshalIndent(doc, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode feed: %w", err)
	}
	return append([]byte(xml.Header), append(b, '\n')...), nil
}
