// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cacert.org/emergency/pkg/publog"
)

// logDocument is /log.json: the whole log, which publog.Verify checks.
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

func originOf(drills bool) publog.Origin {
	if drills {
		return publog.Drills
	}
	return publog.Real
}

func headOf(o publog.Origin, entries []publog.Entry) string {
	if len(entries) == 0 {
		return publog.Genesis(o)
	}
	return entries[len(entries)-1].Hash
}

func (p *logPages) logJSON(w http.ResponseWriter, r *http.Request, drills bool) {
	origin, entries := originOf(drills), p.server.log.Entries(drills)
	doc := logDocument{Log: origin, Development: p.server.cfg.Development, Genesis: publog.Genesis(origin), Head: headOf(origin, entries), Entries: entries}
	if doc.Entries == nil {
		doc.Entries = []publog.Entry{}
	}
	doc.Owed, doc.Overdue = publog.Owed(entries)
	doc.Waiting = publog.Waiting(entries)
	b, err := json.MarshalIndent(doc, "", " ")
	p.feed(w, r, feedBody{"application/json", doc.Head, append(b, '\n'), err})
}

// feedBody is a machine's form of the log.
type feedBody struct {
	contentType, head string
	body              []byte
	err               error
}

// feed answers with a whole document, or tells that the reader has it already. Other sites may read it: it is public.
func (p *logPages) feed(w http.ResponseWriter, r *http.Request, f feedBody) {
	if f.err != nil {
		p.server.cfg.Log.ErrorContext(r.Context(), "log not written", "path", r.URL.Path, "error", f.err)
		plain(w, http.StatusInternalServerError, "The log could not be written.")
		return
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", `"`+f.head+`"`)
	if strings.Contains(r.Header.Get("If-None-Match"), f.head) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.contentType)
	_, _ = w.Write(f.body)
}

// atomEntries is how many of the newest entries the feed has; log.json has all.
const atomEntries = 100

// The elements of RFC 4287 that the feed uses.
type atomFeed struct {
	XMLName  xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	ID       string      `xml:"id"`
	Title    string      `xml:"title"`
	Subtitle string      `xml:"subtitle"`
	Updated  string      `xml:"updated"`
	Author   atomAuthor  `xml:"author"`
	Links    []atomLink  `xml:"link"`
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

func (p *logPages) logAtom(w http.ResponseWriter, r *http.Request, drills bool) {
	origin, entries := originOf(drills), p.server.log.Entries(drills)
	base := strings.TrimSuffix(p.server.cfg.PublicURL, "/")
	doc := atomFeed{
		ID: atomID(origin, 0), Title: "CAcert emergency log", Subtitle: "Every use of the emergency patch procedure", Author: atomAuthor{"CAcert"},
		Updated: time.Unix(0, 0).UTC().Format(time.RFC3339), // of a log without entries
		Links: []atomLink{
			{"self", "application/atom+xml", base + logPath(drills) + ".atom"}, {"alternate", "text/html", base + logPath(drills)},
		},
	}
	if drills {
		doc.Title, doc.Subtitle = "CAcert emergency log: drills", "Exercises; no real system is touched"
	}
	if p.server.cfg.Development {
		doc.Title += " (development)"
	}
	newest := entries[max(0, len(entries)-atomEntries):]
	for i := len(newest) - 1; i >= 0; i-- {
		e := atomOf(origin, base, newest[i])
		doc.Updated = max(doc.Updated, e.Updated) // the services' clocks may differ a little, so not simply the last entry's
		doc.Entries = append(doc.Entries, e)
	}
	b, err := xml.MarshalIndent(doc, "", " ")
	p.feed(w, r, feedBody{"application/atom+xml; charset=utf-8", headOf(origin, entries), append([]byte(xml.Header), append(b, '\n')...), err})
}

func atomOf(o publog.Origin, base string, e publog.Entry) atomEntry {
	var text strings.Builder
	fmt.Fprintf(&text, "By: %s\n", e.Role)
	for _, f := range e.Fields {
		fmt.Fprintf(&text, "%s: %s\n", f.Name, f.Value)
	}
	fmt.Fprintf(&text, "Entry %d, hash %s", e.Seq, e.Hash)
	at := e.At.UTC().Format(time.RFC3339)
	return atomEntry{
		ID: atomID(o, e.Seq), Title: e.Incident + ": " + e.Headline, Updated: at, Published: at,
		Link: atomLink{"alternate", "text/html", fmt.Sprintf("%s/log/%s#e%d", base, e.Incident, e.Seq)}, Content: atomText{"text", text.String()},
	}
}
