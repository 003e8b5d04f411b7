// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/timer"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/testenv"
)

type dashboardIncident = dashboardv1.Incident

// paths are all pages of an emergency with a patch.
func paths(id string) []string {
	return []string{
		"/home", "/incidents", "/incidents/" + id, "/incidents/" + id + "/at?position=20", "/incidents/" + id + "/timeline", "/incidents/" + id + "/events/1",
		"/incidents/" + id + "/patches/P1r1", "/obligations?show=all", "/rulebook", "/roster", "/rota", "/drills", "/board", "/system",
	}
}

// TestReading is everything that is read without a browser, on one system: an emergency of most of an hour.
func TestReading(t *testing.T) {
	t.Parallel()
	h := anHour(t)
	id := h.story.ID
	bad := hostile(h.Env)
	t.Run("every page for everybody in each language", func(t *testing.T) {
		for _, who := range []string{"carla", "anna", "tina", "bea", "casper", "arno"} {
			for _, lang := range []string{"en", "de"} {
				w := plain(t, h.Env).as(who)
				w.header.Set("Accept-Language", lang)
				for _, path := range append(paths(id), "/incidents/"+bad.ID, "/incidents/"+bad.ID+"/timeline") {
					wellFormed(t, w, path, lang)
				}
			}
		}
	})
	t.Run("what the emergency's page says", func(t *testing.T) { emergencyPage(t, h) })
	t.Run("home", func(t *testing.T) { homePage(t, h) })
	t.Run("restricted values", func(t *testing.T) { restrictedValues(t, h) })
	t.Run("patch", func(t *testing.T) { patchPage(t, h, bad) })
	t.Run("slider", func(t *testing.T) { sliderPage(t, h) })
	t.Run("roster", func(t *testing.T) { rosterPage(t, h) })
	t.Run("on-call schedule", func(t *testing.T) { rotaPage(t, h) })
	t.Run("drills", func(t *testing.T) { drillsPage(t, h, bad) })
	t.Run("Board", func(t *testing.T) { boardPage(t, h) })
	t.Run("system", func(t *testing.T) { systemPage(t, h) })
	t.Run("filters", func(t *testing.T) { filters(t, h) })
	t.Run("missing", func(t *testing.T) { missing(t, h) })
	t.Run("hostile text", func(t *testing.T) { hostileText(t, h, bad) })
	t.Run("languages", func(t *testing.T) { languageChoice(t, h) })
}

var (
	inline   = regexp.MustCompile(`(?i)<style|\sstyle\s*=|<script(?:[^>]*)>[^<]|\son[a-z]+\s*=\s*["']|javascript:`)
	external = regexp.MustCompile(`(?i)(?:src|href|action)\s*=\s*["'](?:[a-z]+:)?//`)
	untold   = regexp.MustCompile(`>(?:[a-z]+\.)+[A-Za-z0-9._/ -]+<|%!`) // a key of the catalogue instead of a text, or a text with a wrong argument
)

// wellFormed is what holds for each page.
func wellFormed(t *testing.T, w *site, path, lang string) {
	t.Helper()
	a := w.get(path)
	if a.StatusCode != http.StatusOK {
		t.Errorf("%s: %s\n%s", path, a.Status, text(a.body))
		return
	}
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-store", "Content-Language": lang,
	} {
		if got := a.Header.Get(name); got != want {
			t.Errorf("%s: %s is %q, want %q", path, name, got, want)
		}
	}
	has(t, path, a.body, `<html lang="`+lang+`">`, `<main id="main"`, `class="clockbar"`, `class="banner dev"`, "data-now=")
	for what, form := range map[string]*regexp.Regexp{"inline script or style": inline, "another host": external, "an untold word": untold} {
		if found := form.FindString(strings.ReplaceAll(a.body, "<code>", "<code> ")); found != "" && !strings.Contains(found, "@") {
			t.Errorf("%s in %s: %s: %q", path, lang, what, found)
		}
	}
}

func emergencyPage(t *testing.T, h *hour) {
	w := plain(t, h.Env).as("carla")
	body := w.page("/incidents/" + h.story.ID)
	said := text(body)
	has(t, "page", said, "strategy 1", "8 of 9 steps done", "record the system's health", "waits for carla", "P1r2", "replaced by P1r2", "checks are void, because P1r2 took its place",
		h.story.Binding().GetDigest(), "Deployment on critical-1", "Tree on the host", "the same", "equal", "What you can do now", "epatch health HEALTH --checks TEXT -i "+h.story.ID,
		"Call-out", "Critical team", "complete", "Obligations", "the team lead's decision", "Not you, or not now", "Could:", "As of position", "24-hour clock", "Whole timeline")
	has(t, "page", body, `aria-current="step"`, `hx-sse:connect="/incidents/`+h.story.ID+`?live=1"`, `data-until="`)
	hasNot(t, "page", said, "cert-info runs what its caller says") // the symptom is restricted
	// What is refused says who could, by the same checks that decide.
	has(t, "page", said, "give the second review")
	other := text(plain(t, h.Env).as("bea").page("/incidents/" + h.story.ID))
	has(t, "page of the Board", other, "record that the Board was told")
	if strings.Index(other, "Not you, or not now") > strings.Index(other, "record the system's health · P1r2") && strings.Contains(other, "next record the system's health") {
		t.Error("the Board is told to record the health")
	}
}

func homePage(t *testing.T, h *hour) {
	first := func(who string) string {
		said := text(plain(t, h.Env).as(who).page("/home"))
		_, said, _ = strings.Cut(said, "Waits for you first")
		said, _, _ = strings.Cut(said, "Open emergencies")
		return said
	}
	has(t, "carla", first("carla"), "record the system's health", "epatch health", h.story.ID)
	has(t, "casper", first("casper"), "Nothing waits for you")
	has(t, "home", text(plain(t, h.Env).as("carla").page("/home")), "Readiness of the teams", "not surely reachable", "webdb", "Owed", "high severity")
}

func restrictedValues(t *testing.T, h *hour) {
	const symptom = "cert-info runs what its caller says"
	path := "/incidents/" + h.story.ID + "/events/1"
	commitment := h.story.State().Declared.Symptom
	ask := func(who string, form url.Values) answer { return plain(t, h.Env).as(who).do("POST", path, form) }
	hasNot(t, "before asking", plain(t, h.Env).as("carla").page(path+"?commitment="+commitment), symptom)
	got := ask("carla", url.Values{"commitment": {commitment}})
	has(t, "carla", got.body, symptom, "It is written down that you read this")
	hasNot(t, "carla asked for one", got.body, "anybody can read the configuration")
	if got.Header.Get("Cache-Control") != "no-store" {
		t.Error("a restricted value may be kept by the browser")
	}
	var lines []string
	for _, l := range h.Log.Lines() {
		if strings.Contains(l, "restricted value asked for") && strings.Contains(l, "person=carla") && strings.Contains(l, commitment) {
			lines = append(lines, l)
		}
	}
	if len(lines) != 1 {
		t.Errorf("carla's one reading is written down %d times", len(lines))
	}
	refused := ask("bea", url.Values{"commitment": {commitment}})
	has(t, "bea", refused.body, "is not for you to read", "ask somebody who is")
	hasNot(t, "bea", refused.body, symptom)
	// A commitment of another event is none of this one.
	hasNot(t, "another event", plain(t, h.Env).as("carla").do("POST", "/incidents/"+h.story.ID+"/events/2", url.Values{"commitment": {commitment}}).body, symptom)
}

func patchPage(t *testing.T, h *hour, bad *testenv.Story) {
	w := plain(t, h.Env).as("anna")
	body := w.page("/incidents/" + h.story.ID + "/patches/P1r2")
	has(t, "patch", text(body), "hashed again, the same", "www/cert-info", "files: 1", "+1", "−1", "eval \"echo Certificate for $name\"", "printf", "P1r1")
	has(t, "patch", body, `<tr class="add"><td class="no"></td><td class="no">4</td>`, `<tr class="del"><td class="no">4</td><td class="no"></td>`)
	refused := text(plain(t, h.Env).as("bea").page("/incidents/" + h.story.ID + "/patches/P1r2"))
	has(t, "bea", refused, "is not for you to read", h.story.Binding().GetDigest())
	hasNot(t, "bea", refused, "printf")
	odd := w.page("/incidents/" + bad.ID + "/patches/P1r1")
	has(t, "hostile patch", odd, `<span class="odd">\u202e</span>gnp-exe<span class="odd">\u202c</span><span class="odd">\u200b</span>`, "characters would not be seen, or would mislead", "&lt;script&gt;", "www/&lt;img src=x onerror=alert(1)&gt;.html")
	hasNot(t, "hostile patch", odd, "\u202e", "<script>window", "<img src=x")
}

func sliderPage(t *testing.T, h *hour) {
	w := plain(t, h.Env).as("arno")
	last := h.story.State().Position
	for position := uint64(1); position <= last; position += 3 {
		body := text(w.page(fmt.Sprintf("/incidents/%s/at?position=%d", h.story.ID, position)))
		has(t, "slider", body, fmt.Sprintf("Position %d of %d", position, last), "What changed")
	}
	changed := text(w.page(fmt.Sprintf("/incidents/%s/at?position=%d", h.story.ID, h.story.Revision().Position)))
	has(t, "where the second revision came", changed, "What changed", "P1r1 on the test server → became replaced", "P1r2 registered")
	hasNot(t, "where the second revision came", changed, "epatch document") // what was owed then is not to be typed now
	early := text(w.page("/incidents/" + h.story.ID + "/at?position=1"))
	has(t, "at the declaration", early, "No patch is registered yet", "Emergency declared", "24:00:00 left")
	hasNot(t, "at the declaration", early, "P1r1", "Deployment on critical-1")
	for _, position := range []string{fmt.Sprint(last + 1), "99999999999999999999"} {
		a := w.get("/incidents/" + h.story.ID + "/at?position=" + position)
		if position == fmt.Sprint(last+1) && a.StatusCode != http.StatusNotFound {
			t.Errorf("position %s: %s", position, a.Status)
		}
	}
}

func filters(t *testing.T, h *hour) {
	w := plain(t, h.Env).as("carla")
	path := "/incidents/" + h.story.ID + "/timeline"
	all := text(w.page(path))
	has(t, "timeline", all, "carla", "dora", "P1r1")
	of := text(w.page(path + "?who=dora"))
	has(t, "of dora", of, "P1r2")
	hasNot(t, "of dora", strings.SplitN(of, "entries", 2)[1], "carla deploys")
	has(t, "of reviews", w.page(path+"?owner=review"), `<option value="review" selected>`)
	has(t, "of nobody", text(w.page(path+"?who="+url.QueryEscape(markup))), "No event is like that")
}

func missing(t *testing.T, h *hour) {
	w := plain(t, h.Env).as("carla")
	for path, words := range map[string]string{
		"/incidents/e20991231.9": "there is no incident", "/incidents/" + url.PathEscape("<script>"): "there is no incident",
		"/incidents/" + h.story.ID + "/events/0": "has no event at position 0", "/incidents/" + h.story.ID + "/events/9999": "has no event at position", "/incidents/" + h.story.ID + "/events/x": "has no event",
		"/incidents/" + h.story.ID + "/patches/P9r9": "has no revision", "/incidents/rulebook": "there is no incident",
	} {
		a := w.get(path)
		if a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, a.Status)
		}
		has(t, path, text(a.body), words, "This page cannot be shown")
		hasNot(t, path, a.body, "<script>window")
	}
	if a := w.do("POST", "/home", url.Values{}); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST /home: %s", a.Status)
	}
}

func hostileText(t *testing.T, h *hour, bad *testenv.Story) {
	w := plain(t, h.Env).as("carl")
	state := bad.State()
	for _, path := range paths(bad.ID) {
		body := w.page(strings.Replace(path, "position=20", fmt.Sprintf("position=%d", state.Position), 1))
		hasNot(t, path, body, "<script>window", "<img src=x", "<svg onload")
	}
	for position := uint64(1); position <= state.Position; position++ {
		path := fmt.Sprintf("/incidents/%s/events/%d", bad.ID, position)
		for _, f := range state.Restricted {
			if f.Position == position {
				hasNot(t, path, w.do("POST", path, url.Values{"commitment": {f.Commitment}}).body, "<script>window", "<img src=x", "<svg onload")
			}
		}
		hasNot(t, path, w.page(path), "<script>window", "<img src=x", "<svg onload")
	}
	shown := w.do("POST", "/incidents/"+bad.ID+"/events/1", url.Values{"commitment": {state.Declared.Symptom}}).body
	hasNot(t, "symptom", shown, "\u202e")
	has(t, "symptom", shown, `<span class="odd">\u202e</span>`, "&lt;script&gt;window.pwned=1&lt;/script&gt;")
}

func languageChoice(t *testing.T, h *hour) {
	w := plain(t, h.Env).as("carla")
	for header, lang := range map[string]string{"": "en", "de": "de", "de-CH, en;q=0.5": "de", "fr, de;q=0.4, en;q=0.8": "en", "fr": "en", "de;q=0, en": "en", ";;q=x": "en"} {
		w.header.Set("Accept-Language", header)
		has(t, header, w.page("/home"), `<html lang="`+lang+`">`)
	}
	w.header.Set("Accept-Language", "en")
	a := w.do("POST", "/language", url.Values{"language": {"de"}, "next": {"/obligations?show=all"}})
	if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/obligations?show=all" {
		t.Errorf("after the choice: %s to %q", a.Status, a.Header.Get("Location"))
	}
	has(t, "by choice", w.page("/home"), `<html lang="de">`, "Wartet zuerst auf dich", "den Zustand des Systems vermerken")
	w.cookies["epatch-language"] = "../../x"
	has(t, "a choice of nothing", w.page("/home"), `<html lang="en">`)
	for _, next := range []string{"//evil.example", "https://evil.example/", `/\evil.example`, "javascript:alert(1)", ""} {
		if a := w.do("POST", "/language", url.Values{"language": {"de"}, "next": {next}}); a.Header.Get("Location") != "/home" {
			t.Errorf("next %q leads to %q", next, a.Header.Get("Location"))
		}
	}
}

// TestSignIn: by certificate on the TLS address, by choice on this machine in development, and by nothing else.
func TestSignIn(t *testing.T) {
	t.Parallel()
	clock := timer.NewManual(time.Now())
	env := testenv.Start(t, testenv.Options{Clock: clock, NoAgents: true})
	env.Play(testenv.Declared) // and so the pages have read the rule book
	t.Run("nobody is shown nothing", func(t *testing.T) {
		w := plain(t, env)
		for _, path := range []string{"/home", "/incidents", "/obligations", "/rulebook", "/roster", "/rota", "/drills", "/rota.ics?team=critical", "/board.csv", "/board", "/system", "/incidents/e20261124.1", "/incidents/e20261124.1/events/1"} {
			if a := w.get(path); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/sign-in?next="+url.QueryEscape(path) {
				t.Errorf("%s: %s to %q", path, a.Status, a.Header.Get("Location"))
			}
		}
		if a := w.get("/home?live=1"); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("live without signing in: %s", a.Status)
		}
		w.cookies["epatch-session"] = "made-up"
		if a := w.get("/home"); a.StatusCode != http.StatusSeeOther {
			t.Errorf("with a made-up session: %s", a.Status)
		}
	})
	t.Run("by certificate", func(t *testing.T) {
		w := shown(t, env, env.Data("people", "carla"))
		has(t, "sign-in", text(w.page("/sign-in")), "You are carla", "Sign in as carla")
		a := w.do("POST", "/sign-in", url.Values{"next": {"/rulebook"}})
		if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/rulebook" {
			t.Fatalf("sign in: %s to %q\n%s", a.Status, a.Header.Get("Location"), a.body)
		}
		c := a.Cookies()[0]
		if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || len(c.Value) < 43 {
			t.Errorf("cookie %+v", c)
		}
		has(t, "home", w.page("/home"), "<bdi>carla</bdi>")
		if a := w.get("/home"); a.Header.Get("Strict-Transport-Security") == "" {
			t.Error("no Strict-Transport-Security")
		}
		// The session is of this key: without the certificate, or with another one, it is worth nothing.
		for _, other := range []*site{shown(t, env, ""), shown(t, env, env.Data("people", "anna")), plain(t, env)} {
			other.cookies["epatch-session"] = c.Value
			if a := other.get("/home"); a.StatusCode != http.StatusSeeOther {
				t.Errorf("carla's session from elsewhere: %s", a.Status)
			}
		}
	})
	t.Run("no certificate", func(t *testing.T) {
		w := shown(t, env, "")
		has(t, "sign-in", text(w.page("/sign-in")), "showed no client certificate")
		if a := w.do("POST", "/sign-in", url.Values{}); a.StatusCode != http.StatusForbidden || len(a.Cookies()) != 0 {
			t.Errorf("signed in by nothing: %s", a.Status)
		}
	})
	t.Run("unknown key", func(t *testing.T) {
		dir, _ := env.Key("stranger")
		w := shown(t, env, dir)
		has(t, "sign-in", text(w.page("/sign-in")), "lists no person with its key")
		if a := w.do("POST", "/sign-in", url.Values{}); a.StatusCode != http.StatusForbidden {
			t.Errorf("a stranger: %s", a.Status)
		}
	})
	t.Run("by choice", func(t *testing.T) {
		w := plain(t, env)
		has(t, "sign-in", text(w.page("/sign-in")), "carla critical admin", "arno arbitrator")
		w.as("arno")
		has(t, "home", w.page("/home"), "<bdi>arno</bdi>", "Nothing here is real")
		for _, name := range []string{"nobody", "critical-1", ""} {
			if a := plain(t, env).do("POST", "/sign-in", url.Values{"person": {name}}); a.StatusCode != http.StatusForbidden {
				t.Errorf("as %q: %s", name, a.Status)
			}
		}
	})
	t.Run("other sites", func(t *testing.T) {
		w := plain(t, env).as("carla")
		for _, path := range []string{"/sign-in", "/sign-out", "/language", "/incidents/e20261124.1/events/1"} {
			for _, header := range [][]string{{"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}} {
				if a := w.do("POST", path, url.Values{"person": {"anna"}}, header...); a.StatusCode != http.StatusForbidden {
					t.Errorf("POST %s with %v: %s", path, header, a.Status)
				}
			}
		}
		has(t, "still carla", w.page("/home"), "<bdi>carla</bdi>")
		// A name that somebody else points at this address is no reason to let people choose.
		rebound := plain(t, env)
		_, port, _ := strings.Cut(env.HTTP(), ":")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, rebound.base+"/sign-in", strings.NewReader("person=carla"))
		check(t, err)
		req.Host = "evil.example:" + port
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := rebound.client.Do(req)
		check(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("by another name: %s", resp.Status)
		}
	})
	t.Run("sign out", func(t *testing.T) {
		w := plain(t, env).as("carla")
		id := w.cookies["epatch-session"]
		w.do("POST", "/sign-out", url.Values{})
		w.cookies["epatch-session"] = id
		if a := w.get("/home"); a.StatusCode != http.StatusSeeOther {
			t.Errorf("after signing out: %s", a.Status)
		}
	})
	t.Run("revoked key", func(t *testing.T) {
		dir, key := env.Key("anna-2")
		key.Person = "anna"
		book := func(cmd procedure.Command) {
			done, err := env.As("anna").Send(t.Context(), cmd)
			check(t, err)
			// Only to wait until the pages know it: the rule book is no incident.
			_, err = env.As("anna").Query().ReadIncident(t.Context(), &dashboardv1.ReadIncidentRequest{Incident: procedure.RuleBook, AtLeast: done.GetLastPosition()})
			testenv.WantRefusal(t, err, procedure.ReasonIncident)
		}
		meta := func() *emergencyv1.CommandMeta { return &emergencyv1.CommandMeta{Incident: procedure.RuleBook} }
		book(&emergencyv1.AddKeyRequest{Meta: meta(), Key: key})
		w := shown(t, env, dir)
		w.do("POST", "/sign-in", url.Values{})
		has(t, "home", w.page("/home"), "<bdi>anna</bdi>")
		book(&emergencyv1.RevokeKeyRequest{Meta: meta(), KeyId: key.GetKeyId(), Reason: "lost on a train"})
		if a := w.get("/home"); a.StatusCode != http.StatusSeeOther {
			t.Errorf("by a revoked key: %s", a.Status)
		}
	})
	// Last, because it moves the clock.
	t.Run("sessions end", func(t *testing.T) {
		used, idle := plain(t, env).as("carla"), plain(t, env).as("carla")
		for range 24 {
			clock.Advance(20 * time.Minute)
			used.get("/home")
		}
		if a := idle.get("/home"); a.StatusCode != http.StatusSeeOther {
			t.Errorf("unused for hours: %s", a.Status)
		}
		if a := used.get("/home"); a.StatusCode != http.StatusOK {
			t.Errorf("used all the time, eight hours exactly: %s", a.Status)
		}
		clock.Advance(time.Second)
		if a := used.get("/home"); a.StatusCode != http.StatusSeeOther {
			t.Errorf("after more than eight hours: %s", a.Status)
		}
	})
}

// TestDigests: the browser files of others are those that were chosen.
func TestDigests(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"../static/vendor", "testdata/axe"} {
		b, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
		check(t, err)
		named := map[string]bool{"SHA256SUMS": true, "README.md": true}
		for line := range strings.Lines(string(b)) {
			sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
			data, err := os.ReadFile(filepath.Join(dir, name))
			check(t, err)
			if got := sha256.Sum256(data); hex.EncodeToString(got[:]) != sum {
				t.Errorf("%s/%s is not the file that was chosen", dir, name)
			}
			named[name] = true
		}
		list, err := os.ReadDir(dir)
		check(t, err)
		for _, e := range list {
			if !named[e.Name()] {
				t.Errorf("%s/%s has no digest", dir, e.Name())
			}
		}
	}
}
