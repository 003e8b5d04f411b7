// SPDX-License-Identifier: Apache-2.0

package dashboard_test

import (
	"context"
	"sync"

	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/projection/pulse"
	"cacert.org/emergency/pkg/publog"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/dashboard"
)

// web asks the handler over a real connection and does not follow redirects.
type web struct {
	t   *testing.T
	srv *httptest.Server
}

func (r *rig) web() *web {
	srv := httptest.NewServer(r.server.Handler())
	r.t.Cleanup(srv.Close)
	srv.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &web{r.t, srv}
}

func (w *web) ask(method, path string, header ...string) (*http.Response, string) {
	w.t.Helper()
	req := must(http.NewRequestWithContext(w.t.Context(), method, w.srv.URL+path, nil))(w.t)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp := must(w.srv.Client().Do(req))(w.t)
	defer resp.Body.Close()
	return resp, string(must(io.ReadAll(resp.Body))(w.t))
}

func (w *web) page(path string) string {
	w.t.Helper()
	resp, body := w.ask("GET", path)
	if resp.StatusCode != http.StatusOK {
		w.t.Fatalf("%s: %s\n%s", path, resp.Status, body)
	}
	return body
}

func has(t *testing.T, body string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(body, want) {
			t.Errorf("%q is not in\n%s", want, body)
		}
	}
}

func filled(t *testing.T, change ...func(*dashboard.Config)) *rig {
	r := newRig(t, change...)
	r.told(one, pt.Story(pt.Documented), func(w *pt.World) { w.Sync() })
	r.told("e20261124.2", pt.Story(pt.Called))
	r.told("x20261124.1", pt.Drill())
	r.clock.Set(pt.T0().Add(time.Hour))
	return r
}

func TestPages(t *testing.T) {
	t.Parallel()
	w := filled(t).web()
	overview := w.page("/log")
	has(t, overview, "e20261124.1", "e20261124.2", "<b>2</b> emergencies open", `href="/log/2026"`, `href="/log/drills"`, "Reflects entry", "minutes ago", "Page made 2026-11-24 21:00 UTC")
	if strings.Contains(overview, "x20261124.1") {
		t.Error("a drill is among the emergencies")
	}
	incident := w.page("/log/e20261124.1")
	has(t, incident, "Emergency declared", "Deployment verified", "critical-admin A", "LEAD_DECISION", "Obligations", `id="e1"`)
	has(t, w.page("/log/2026"), "e20261124.1", "Emergency log 2026")
	drills := w.page("/log/drills")
	has(t, drills, "x20261124.1", "No real system is touched")
	if strings.Contains(drills, "e20261124.1") {
		t.Error("an emergency is among the drills")
	}
	has(t, w.page("/log/x20261124.1"), "No real system is touched", "Emergency declared")
	has(t, w.page("/log/drills/2026"), "x20261124.1")
	for _, path := range []string{"/log", "/log/e20261124.1", "/log/2026", "/log/drills", "/log/x20261124.1", "/log.json", "/log.atom", "/log/drills.json", "/log/drills.atom"} {
		body := strings.ToLower(w.page(path))
		for _, p := range pt.People() {
			if regexp.MustCompile(`\b` + p.Name + `\b`).MatchString(body) {
				t.Errorf("%s names %s", path, p.Name)
			}
		}
		for _, hidden := range []string{pt.Host, pt.DrillHost, pt.TestServer, "@example.org", "the signer serves"} {
			if strings.Contains(body, hidden) {
				t.Errorf("%s holds %q", path, hidden)
			}
		}
	}
}

func TestMissingPages(t *testing.T) {
	t.Parallel()
	w := filled(t).web()
	for _, path := range []string{"/log/e20261124.9", "/log/1999", "/log/2025", "/log/nonsense", "/log/drills/2025", "/log/drills/x", "/log/e20261124.1/more", "/nothing", "/log/%2e%2e%2fetc", "/static/000/style.css"} {
		if resp, body := w.ask("GET", path); resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "There is no such page") {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	for _, path := range []string{"/log", "/log.json", "/log.atom", "/log/e20261124.1", "/healthz"} {
		if resp, _ := w.ask("POST", path); resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %s", path, resp.Status)
		}
	}
	if resp, _ := w.ask("GET", "/"); resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != "/log" {
		t.Errorf("/: %s to %q", resp.Status, resp.Header.Get("Location"))
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	w := filled(t).web()
	for _, path := range []string{"/log", "/log/e20261124.1", "/log.json", "/nothing", "/healthz"} {
		resp, body := w.ask("GET", path)
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		} {
			if got := resp.Header.Get(name); !strings.Contains(got, want) {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if csp := resp.Header.Get("Content-Security-Policy"); strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") && !strings.Contains(csp, "script-src 'self';") {
			t.Errorf("%s: policy %q lets others' scripts in", path, csp)
		}
		if regexp.MustCompile(`(?i)<script[^>]*>[^<]|<script src="[^/]|<style|\son\w+=|style="`).MatchString(body) {
			t.Errorf("%s holds script or style that the policy would block", path)
		}
	}
}

// Style sheet and picture are there, under names that change with their content.
func TestAssets(t *testing.T) {
	t.Parallel()
	w := newRig(t).web()
	paths := regexp.MustCompile(`href="(/static/[^"]+)"`).FindAllStringSubmatch(w.page("/log"), -1)
	paths = append(paths, regexp.MustCompile(`src="(/static/[^"]+)"`).FindAllStringSubmatch(w.page("/log"), -1)...)
	if len(paths) != 5 {
		t.Fatalf("assets %v, want five", paths)
	}
	for _, p := range paths {
		resp, body := w.ask("GET", p[1])
		if resp.StatusCode != http.StatusOK || len(body) < 100 || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %s, %d bytes, %q", p[1], resp.Status, len(body), resp.Header.Get("Cache-Control"))
		}
	}
}

func TestDevelopmentIsSaidEverywhere(t *testing.T) {
	t.Parallel()
	paths := []string{"/log", "/log/e20261124.1", "/log/2026", "/log/drills", "/log/x20261124.1", "/nothing"}
	for _, development := range []bool{true, false} {
		w := filled(t, func(c *dashboard.Config) { c.Development = development }).web()
		for _, path := range paths {
			if _, body := w.ask("GET", path); strings.Contains(body, "A development authority and demo people are in use") != development {
				t.Errorf("development %t: %s says otherwise", development, path)
			}
		}
		if has := strings.Contains(w.page("/log.atom"), "(development)"); has != development {
			t.Errorf("development %t: the feed says otherwise", development)
		}
	}
}

func TestLogJSON(t *testing.T) {
	t.Parallel()
	r := filled(t)
	w := r.web()
	for path, origin := range map[string]publog.Origin{"/log.json": publog.Real, "/log/drills.json": publog.Drills} {
		var doc struct {
			Log           publog.Origin
			Genesis, Head string
			Entries       []publog.Entry
		}
		resp, body := w.ask("GET", path)
		check(t, json.Unmarshal([]byte(body), &doc))
		check(t, publog.Verify(origin, doc.Entries))
		if doc.Log != origin || doc.Genesis != publog.Genesis(origin) || doc.Head != doc.Entries[len(doc.Entries)-1].Hash || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: log %q, head %s, headers %v", path, doc.Log, doc.Head, resp.Header)
		}
		if again, _ := w.ask("GET", path, "If-None-Match", resp.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
			t.Errorf("%s asked again: %s", path, again.Status)
		}
	}
	before, _ := w.ask("GET", "/log.json")
	r.told("e20261124.3", pt.Story(pt.Declared))
	if after, _ := w.ask("GET", "/log.json", "If-None-Match", before.Header.Get("ETag")); after.StatusCode != http.StatusOK {
		t.Errorf("after a new entry: %s", after.Status)
	}
}

// feed is what RFC 4287 asks of a feed, read strictly.
type feed struct {
	XMLName xml.Name `xml:"http://www.w3.org/2005/Atom feed"`
	ID      string   `xml:"http://www.w3.org/2005/Atom id"`
	Title   string   `xml:"http://www.w3.org/2005/Atom title"`
	Updated string   `xml:"http://www.w3.org/2005/Atom updated"`
	Author  struct {
		Name string `xml:"http://www.w3.org/2005/Atom name"`
	} `xml:"http://www.w3.org/2005/Atom author"`
	Links []struct {
		Rel  string `xml:"rel,attr"`
		Href string `xml:"href,attr"`
	} `xml:"http://www.w3.org/2005/Atom link"`
	Entries []struct {
		ID      string `xml:"http://www.w3.org/2005/Atom id"`
		Title   string `xml:"http://www.w3.org/2005/Atom title"`
		Updated string `xml:"http://www.w3.org/2005/Atom updated"`
		Content string `xml:"http://www.w3.org/2005/Atom content"`
		Link    struct {
			Href string `xml:"href,attr"`
		} `xml:"http://www.w3.org/2005/Atom link"`
	} `xml:"http://www.w3.org/2005/Atom entry"`
}

func TestLogAtom(t *testing.T) {
	t.Parallel()
	r := filled(t, func(c *dashboard.Config) { c.PublicURL = "https://emergency.example.org/" })
	w := r.web()
	read := func(path string) feed {
		resp, body := w.ask("GET", path)
		if got := resp.Header.Get("Content-Type"); got != "application/atom+xml; charset=utf-8" {
			t.Errorf("%s is %q", path, got)
		}
		var f feed
		check(t, xml.Unmarshal([]byte(body), &f))
		return f
	}
	for _, path := range []string{"/log.atom", "/log/drills.atom"} {
		f := read(path)
		ids := map[string]bool{f.ID: true}
		newest := must(time.Parse(time.RFC3339, f.Updated))(t)
		linked := map[string]string{}
		if f.Title == "" || f.Author.Name == "" || len(f.Links) != 2 || f.Links[0].Rel != "self" || f.Links[0].Href != "https://emergency.example.org"+path {
			t.Errorf("%s: %+v", path, f)
		}
		for _, e := range f.Entries {
			updated := must(time.Parse(time.RFC3339, e.Updated))(t)
			if ids[e.ID] || e.Title == "" || e.Content == "" || updated.After(newest) {
				t.Errorf("%s: entry %+v", path, e)
			}
			ids[e.ID] = true
			u := must(url.Parse(e.Link.Href))(t)
			if linked[u.Path] == "" {
				linked[u.Path] = w.page(u.Path)
			}
			if !u.IsAbs() || !strings.Contains(linked[u.Path], `id="`+u.Fragment+`"`) {
				t.Errorf("%s: link %s leads nowhere", path, e.Link.Href)
			}
		}
	}
	before := read("/log.atom")
	r.told("e20261124.3", pt.Story(pt.Declared))
	after := read("/log.atom")
	if len(after.Entries) != len(before.Entries)+1 || after.Entries[1].ID != before.Entries[0].ID || after.ID != before.ID {
		t.Error("ids of the feed are not stable")
	}
}

// What people write into the log is text, in each form.
func TestTextIsEscaped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.told(one, pt.Story(pt.Declared), pt.Does("carla", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: `<script>alert("x")</script> & ]]>`}))
	if w.State.Position != 2 {
		t.Fatalf("position %d", w.State.Position)
	}
	page := r.web().page("/log/" + one)
	if strings.Contains(page, "<script>") || !strings.Contains(page, "&lt;script&gt;") {
		t.Error("a note became markup")
	}
	var f feed
	check(t, xml.Unmarshal([]byte(r.web().page("/log.atom")), &f))
	has(t, f.Entries[0].Content, `<script>alert("x")</script> & ]]>`)
}

func TestEmptyLog(t *testing.T) {
	t.Parallel()
	w := newRig(t).web()
	has(t, w.page("/log"), "has not been used yet", "This log has no entries yet", publog.Genesis(publog.Real))
	has(t, w.page("/log/drills"), "No drill has been held yet", publog.Genesis(publog.Drills))
	has(t, w.page("/log.json"), `"entries": []`)
	var f feed
	check(t, xml.Unmarshal([]byte(w.page("/log.atom")), &f))
	if _, err := time.Parse(time.RFC3339, f.Updated); err != nil || len(f.Entries) != 0 {
		t.Errorf("empty feed %+v: %v", f, err)
	}
}

// A deadline that passes shows at once, before any event says so; many incidents stay on one page.
func TestOverdueShows(t *testing.T) {
	t.Parallel()
	r := filled(t)
	w := r.web()
	if strings.Contains(w.page("/log"), "24 hours missed") {
		t.Error("missed too early")
	}
	r.clock.Set(pt.T0().Add(26 * time.Hour))
	has(t, w.page("/log"), "24 hours missed", `class="bad"`)
	has(t, w.page("/log/e20261124.2"), "overdue")
}

func TestHealthAndMounts(t *testing.T) {
	t.Parallel()
	var notReady error
	r := newRig(t, func(c *dashboard.Config) {
		c.Links = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { _, _ = io.WriteString(w, req.Method+" "+req.URL.Path) })
		c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "epatch_commands_total 1") })
		c.Ready = func() error { return notReady }
	})
	w := r.web()
	has(t, w.page("/healthz"), "ok")
	has(t, w.page("/readyz"), "ready")
	has(t, w.page("/metrics"), "epatch_commands_total")
	has(t, w.page("/r/token"), "GET /r/token")
	if _, body := w.ask("POST", "/r/token"); body != "POST /r/token" {
		t.Errorf("the link's form: %q", body)
	}
	notReady = errors.New("the event log cannot be reached")
	if resp, body := w.ask("GET", "/readyz"); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "cannot be reached") {
		t.Errorf("not ready: %s %q", resp.Status, body)
	}
}

// Before the histories are read, nothing is answered: an empty log would be a lie.
func TestBeforeTheHistoriesAreRead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	fresh := must(dashboard.New(r.cfg))(t)
	srv := httptest.NewServer(fresh.Handler())
	t.Cleanup(srv.Close)
	w := &web{t, srv}
	for _, path := range []string{"/log", "/log.json", "/log/e20261124.1", "/readyz"} {
		if resp, _ := w.ask("GET", path); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	has(t, w.page("/healthz"), "ok")
	if _, err := dashboard.New(dashboard.Config{}); err == nil {
		t.Error("built without its dependencies")
	}
}

// A dispute without an arbitrator ages in public, on the overview, on its incident's page and in the machine's form, until
// somebody accepts (procedure.md 8.6).
func TestDisputesWithoutArbitrator(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	about := emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2
	w := r.told(one, pt.Story(pt.Healthy2), pt.Dispute(about, pt.DeclinedOnce))
	r.told("e20261124.2", pt.Story(pt.Called))
	r.clock.Set(w.State.RecordedAt.Add(72 * time.Hour))
	web := r.web()
	has(t, web.page("/log"), "Disputes without an arbitrator", "a20261124.1", "strategy 2", "3 days ago", "1 asked, 1 declined")
	has(t, web.page("/log/"+one), "Disputes without an arbitrator")
	has(t, web.page("/log.json"), `"disputes_without_arbitrator": [`, `"dispute": "a20261124.1"`, `"asked": 1`)
	if strings.Contains(web.page("/log/e20261124.2"), "Disputes without") {
		t.Error("another incident's page shows the dispute")
	}
	pt.DisputeFrom(about, pt.DeclinedOnce, pt.Appointed)(w)
	r.feed(w)
	if strings.Contains(web.page("/log"), "Disputes without") {
		t.Error("the dispute still waits though an arbitrator accepted")
	}
	has(t, web.page("/log.json"), `"disputes_without_arbitrator": []`)
	for _, path := range []string{"/log", "/log/" + one, "/log.json", "/log.atom"} {
		body := web.page(path)
		for _, v := range w.Sealed {
			if len(v) > 8 && strings.Contains(body, v) && !strings.HasPrefix(v, "emergency issue handling") {
				t.Errorf("%s holds the restricted value %q", path, v)
			}
		}
	}
}

// Outside development nobody chooses who they are; the pages for people who take part need a certificate.
func TestNobodyChoosesOutsideDevelopment(t *testing.T) {
	t.Parallel()
	for _, development := range []bool{true, false} {
		w := filled(t, func(c *dashboard.Config) { c.Development = development }).web()
		if _, body := w.ask("GET", "/sign-in"); strings.Contains(body, `name="person"`) != development {
			t.Errorf("development %t: the page for signing in says otherwise", development)
		}
		req := must(http.NewRequestWithContext(t.Context(), http.MethodPost, w.srv.URL+"/sign-in", strings.NewReader("person=carla")))(t)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp := must(w.srv.Client().Do(req))(t)
		defer resp.Body.Close()
		if signedIn := len(resp.Cookies()) > 0; signedIn != development {
			t.Errorf("development %t: signed in %t, %s", development, signedIn, resp.Status)
		}
	}
}

// The archive has pages, years, entries and machine forms of its own, marked everywhere, and the log of emergencies shows its years.
func TestArchivePages(t *testing.T) {
	t.Parallel()
	r := filled(t)
	has(t, r.web().page("/log/archive"), "Nothing was taken from the archive yet")
	archive := pt.NewArchive(t)
	archive.Do("clara", pt.ImportArchive(pt.Archived(1), pt.Archived(2)))
	r.feed(archive)
	w := r.web()
	has(t, w.page("/log"), "2 messages from the archive", `href="/log/archive"`, `href="/log/2016"`)
	has(t, w.page("/log/2016"), "from the archive", "emergency patch 1", `href="/log/archive/entry/1"`, "1@lists.example.org")
	has(t, w.page("/log/archive"), "emergency patch 2", "Reflects entry 2 of the archive's log")
	has(t, w.page("/log/archive/entry/2"), "From the archive: emergency patch 2", "critical-team-lead A", "epatch-log-v1\norigin archive\nseq 2\nincident archive\n", `href="/log/archive/entry/1"`)
	has(t, w.page("/log/archive/2016.json"), `"year": "2016"`, "2@lists.example.org")
	var doc struct{ Entries []publog.Entry }
	check(t, json.Unmarshal([]byte(w.page("/log/archive.json")), &doc))
	check(t, publog.Verify(publog.Archive, doc.Entries))
	has(t, w.page("/log/archive.atom"), "tag:cacert.org,2026:emergency-log/archive/2", "<published>2016-10-26T20:00:00Z</published>")
	if strings.Contains(w.page("/log.json"), "lists.example.org") || strings.Contains(w.page("/log"), "disputes") {
		t.Error("the archive is in the log of emergencies")
	}
	if clara := regexp.MustCompile(`\bclara\b`); clara.MatchString(w.page("/log/archive") + w.page("/log/archive.json") + w.page("/log/archive/entry/1")) {
		t.Error("the archive names who imported it")
	}
}

// Each entry, incident and year has an address and a machine form of its own, and the search reads them all.
func TestEntryAndSearchPages(t *testing.T) {
	t.Parallel()
	w := filled(t).web()
	first := w.page("/log/entry/1")
	has(t, first, "Emergency declared", "emergency-log/real", "epatch-log-v1\norigin real\nseq 1\n", `href="/log/e20261124.1#e1"`, `href="/log/entry/2"`, `href="/log/entry/1.json"`)
	var doc struct{ Entries []publog.Entry }
	check(t, json.Unmarshal([]byte(w.page("/log/entry/2.json")), &doc))
	if len(doc.Entries) != 1 || doc.Entries[0].Seq != 2 {
		t.Errorf("entry 2: %+v", doc)
	}
	check(t, json.Unmarshal([]byte(w.page("/log/e20261124.2.json")), &doc))
	for _, e := range doc.Entries {
		if e.Incident != "e20261124.2" {
			t.Errorf("among the entries of e20261124.2 is %+v", e)
		}
	}
	has(t, w.page("/log/2026.json"), "e20261124.1", "e20261124.2")
	has(t, w.page("/log/drills/entry/1"), "No real system is touched", "origin drills")
	has(t, w.page("/log/all"), "Deployment verified", `href="/log/entry/3"`)
	has(t, w.page("/log"), `<form class="ask" method="get" action="/log/search"`)
	resp, found := w.ask("GET", "/log/search?q=deployment+VERIFIED")
	has(t, found, "1 entry holds every word", "Deployment verified", `value="deployment VERIFIED"`)
	if !strings.Contains(resp.Header.Get("Content-Security-Policy"), "form-action 'self'") {
		t.Errorf("the search may not be asked: %q", resp.Header.Get("Content-Security-Policy"))
	}
	has(t, w.page("/log/search?q=%3Cscript%3E"), "No entry holds", "&lt;script&gt;")
	for _, path := range []string{"/log/entry/0", "/log/entry/99999", "/log/entry/1x", "/log/entry/", "/log/atom/1", "/log/1999.json", "/log/e20261124.9.json", "/log/drills/search", "/log/drills/e20261124.1", "/log/archive/entry/1", "/log/archivex", "/log/entry/18446744073709551616"} {
		if resp, body := w.ask("GET", path); resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "There is no such page") {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

// The public log says when the event log is silent or ahead of it, and still shows what is known.
func TestOldLog(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var stored, unreadable = uint64(0), error(nil)
	set := func(n uint64, err error) {
		mu.Lock()
		defer mu.Unlock()
		stored, unreadable = n, err
	}
	var age *pulse.Pulse
	var r *rig
	r = newRig(t, func(c *dashboard.Config) {
		age = pulse.New(pulse.Config{
			Clock: c.Clock, Log: c.Log, Read: func() uint64 { return r.runner.Mark().Sequence },
			Stored: func(context.Context) (uint64, error) { mu.Lock(); defer mu.Unlock(); return stored, unreadable },
		})
		c.Pulse = age
	})
	r.told(one, pt.Story(pt.Documented), func(w *pt.World) { w.Sync() })
	r.run(age.Run)
	w := r.web()
	pass := func(sentence string) string { // the clock goes on until the page says it
		t.Helper()
		for range 10_000 {
			if body := w.page("/log"); strings.Contains(body, sentence) {
				return body
			}
			r.clock.Advance(time.Second)
		}
		t.Fatalf("the log never says %q", sentence)
		return ""
	}
	set(r.runner.Mark().Sequence+3, nil)
	has(t, pass("This page is 3 records behind the event log since "), one)
	set(0, errors.New("no servers"))
	has(t, pass("The event log has not answered since "), one)
	set(r.runner.Mark().Sequence, nil)
	for range 10_000 {
		if !strings.Contains(w.page("/log/"+one), "event log") {
			return
		}
		r.clock.Advance(time.Second)
	}
	t.Error("the log is called old although it is not")
}
