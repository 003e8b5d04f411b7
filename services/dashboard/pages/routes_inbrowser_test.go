// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/services/dashboard/pages"
	"cacert.org/emergency/services/internal/testenv"
)

// The systems whose pages are opened in a browser, each by its own test.
const (
	ofHour     = "TestInBrowser"
	ofConsole  = "TestPlayback"
	ofWatch    = "TestWatch"
	ofPasskeys = "TestPasskeyTyped"
	noPage     = "" // not looked at in a browser: why says what it is
)

// route is one entry of the table of everything that the pages serve.
type route struct {
	pattern string
	system  string
	person  string
	// path has {id}, {dispute}, {patch} and {grant} for what its system has; press leads from there to the page, by a form.
	path, press string
	ready       string // what holds when there is all to see
	why         string
}

// routes is the table. An address that is missing here fails TestNoRouteIsForgotten.
func routes() []route {
	return []route{
		{pattern: "GET /home", system: ofHour, person: "carla", path: "/home"},
		{pattern: "GET /incidents", system: ofHour, person: "carla", path: "/incidents"},
		{pattern: "GET /incidents/{incident}", system: ofHour, person: "carla", path: "/incidents/{id}"},
		{pattern: "GET /incidents/{incident}/at", system: ofHour, person: "carla", path: "/incidents/{id}/at?position=20"},
		{pattern: "GET /incidents/{incident}/timeline", system: ofHour, person: "carla", path: "/incidents/{id}/timeline"},
		{pattern: "GET /incidents/{incident}/events/{position}", system: ofHour, person: "clara", path: "/incidents/{id}/events/1"},
		{pattern: "POST /incidents/{incident}/events/{position}", system: ofHour, person: "carla", path: "/incidents/{id}/events/1", press: "form button:not(.plain)"},
		{pattern: "GET /incidents/{incident}/patches/{revision}", system: ofHour, person: "carla", path: "/incidents/{id}/patches/{patch}"},
		{pattern: "GET /incidents/{incident}/act/{command}", system: ofHour, person: "anna", path: "/incidents/{id}/act/RecordSecondReview?subject={patch}"},
		{pattern: "POST /incidents/{incident}/act/{command}", system: ofHour, person: "carla", path: "/incidents/{id}/act/AnnotateLog", press: "form.act .do button"},
		{pattern: "GET /declare", system: ofHour, person: "carla", path: "/declare"},
		{pattern: "POST /declare", system: ofHour, person: "carla", path: "/declare", press: "form.act .do button"},
		{pattern: "GET /obligations", system: ofHour, person: "carla", path: "/obligations?show=all"},
		{pattern: "GET /rulebook", system: ofHour, person: "clara", path: "/rulebook"},
		{pattern: "GET /roster", system: ofHour, person: "clara", path: "/roster"},
		{pattern: "POST /roster", system: ofHour, person: "clara", path: "/roster", press: "form.inline button"},
		{pattern: "GET /rota", system: ofHour, person: "clara", path: "/rota"},
		{pattern: "GET /drills", system: ofHour, person: "clara", path: "/drills"},
		{pattern: "GET /board", system: ofHour, person: "bea", path: "/board"},
		{pattern: "GET /system", system: ofHour, person: "carl", path: "/system"},
		{pattern: "GET /incidents/{incident}/cases/{dispute}", system: ofHour, person: "arno", path: "/incidents/{id}/cases/{dispute}"},
		{pattern: "POST /incidents/{incident}/cases/{dispute}", system: ofHour, person: "arno", path: "/incidents/{id}/cases/{dispute}", press: ".askall button"},
		{pattern: "GET /incidents/{incident}/dossier", system: ofHour, person: "arno", path: "/incidents/{id}/dossier"},
		{pattern: "POST /incidents/{incident}/dossier", system: ofHour, person: "arno", path: "/incidents/{id}/dossier", press: ".askall button"},
		{pattern: "GET /incidents/{incident}/evidence", system: ofHour, person: "arno", path: "/incidents/{id}/evidence"},
		{pattern: "POST /incidents/{incident}/evidence", system: ofHour, person: "arno", path: "/incidents/{id}/evidence", press: ".askall button, .secret button"},
		{pattern: "GET /docket", system: ofHour, person: "casper", path: "/docket?show=all"},
		{pattern: "GET /passkeys", system: ofHour, person: "carla", path: "/passkeys"},
		{pattern: "GET /sign-in", system: ofHour, path: "/sign-in"},
		{pattern: "GET /incidents/{incident}/sessions/{grant}", system: ofConsole, person: "carla", path: "/incidents/{id}/sessions/{grant}"},
		{pattern: "POST /incidents/{incident}/sessions/{grant}", system: ofConsole, person: "carla", path: "/incidents/{id}/sessions/{grant}", press: "section form button:not(.plain)", ready: "document.getElementById('player').dataset.ready === 'true'"},
		{pattern: "GET /incidents/{incident}/sessions/{grant}/watch", system: ofWatch, person: "carla", path: "/incidents/{id}/sessions/{grant}/watch"},
		{pattern: "POST /passkeys", system: ofPasskeys, person: "anna", path: "/passkeys", press: "button[data-passkey-button]"},
		{pattern: "POST /passkeys/revoke", system: ofPasskeys, person: "anna", path: "/passkeys", press: ".rows details form button"},

		{pattern: "POST /incidents/{incident}/act/{command}/sign", why: "leads to the emergency's page, or to a refusal: hostileForms and TestEmergencyInBrowser"},
		{pattern: "POST /declare/sign", why: "leads to the new emergency's page: keyboardForm"},
		{pattern: "POST /passkeys/sign", why: "leads back to the passkeys: TestPasskeyInBrowser"},
		{pattern: "POST /sign-in", why: "leads to a page"}, {pattern: "POST /sign-out", why: "leads to a page"}, {pattern: "POST /language", why: "leads to a page"},
		{pattern: "GET /rota.ics", why: "a calendar"}, {pattern: "GET /board.csv", why: "a table for other programs"},
		{pattern: "POST /incidents/{incident}/sessions/{grant}/frames", why: "a recording, for the player"},
		{pattern: "GET /incidents/{incident}/sessions/{grant}/stream", why: "a WebSocket"},
	}
}

func routesOf(system string) []route {
	return slices.DeleteFunc(routes(), func(r route) bool { return r.system != system })
}

// TestNoRouteIsForgotten: everything that is served stands in the table, and nothing else does.
func TestNoRouteIsForgotten(t *testing.T) {
	t.Parallel()
	var listed []string
	for _, r := range routes() {
		listed = append(listed, r.pattern)
		if (r.system == noPage) != (r.path == "") || (r.system == noPage) != (r.why != "") {
			t.Errorf("%s: neither opened nor explained, or both", r.pattern)
		}
	}
	served := pages.Patterns()
	for _, p := range served {
		if !slices.Contains(listed, p) {
			t.Errorf("%s is served, and no entry of the table opens it in a browser", p)
		}
	}
	for i, p := range listed {
		if !slices.Contains(served, p) || slices.Index(listed, p) != i {
			t.Errorf("%s stands in the table, and is not served or stands there before", p)
		}
	}
}

// names are what a system has in place of a path's names.
type names map[string]string

func (n names) in(path string) string {
	for k, v := range n {
		path = strings.ReplaceAll(path, "{"+k+"}", v)
	}
	return path
}

// everyRoute opens each page of a system: made well in each look, and walked through with the keyboard alone.
func (x *tab) everyRoute(system string, n names) {
	x.t.Helper()
	list := routesOf(system)
	if len(list) == 0 {
		x.t.Fatalf("no route of %s", system)
	}
	for _, r := range list {
		x.as(r.person)
		x.goTo(n.in(r.path))
		if r.press != "" {
			x.follow(r.press)
		}
		if r.ready != "" {
			x.until(r.ready)
		}
		x.everywhere(r.pattern)
		x.byKeyboard(r.pattern)
	}
}

// publicLog does the same with the pages of the public log, as somebody who is not signed in.
func (x *tab) publicLog(n names) {
	x.t.Helper()
	x.as("")
	for _, path := range []string{"/log", "/log/{id}", "/log/entry/1", "/log/all", "/log/search?q=declared", "/log/drills", "/log/archive"} {
		x.goTo(n.in(path))
		x.everywhere(path)
		x.byKeyboard(path)
	}
}

// isRoute does the same with the page that is open, which a test of its own has led to.
func (x *tab) isRoute(system, pattern string) {
	x.t.Helper()
	if !slices.ContainsFunc(routesOf(system), func(r route) bool { return r.pattern == pattern }) {
		x.t.Errorf("%s is no page of %s", pattern, system)
	}
	x.everywhere(pattern)
	x.byKeyboard(pattern)
}

// as signs another person in, in the same browser; nobody for an empty name.
func (x *tab) as(person string) {
	x.t.Helper()
	if x.person == person {
		return
	}
	if !strings.HasPrefix(eval[string](x, "location.href"), "http") {
		x.goTo("/sign-in")
	}
	ask := fmt.Sprintf("fetch('/sign-in', {method: 'POST', redirect: 'manual', body: new URLSearchParams({person: %q, next: '/home'})})", person)
	if person == "" {
		ask = "fetch('/sign-out', {method: 'POST', redirect: 'manual'})"
	}
	if kind := eval[string](x, ask+".then(r => r.type)"); kind != "opaqueredirect" {
		x.t.Fatalf("signing in as %q: %s", person, kind)
	}
	x.person = person
}

// looks are those in which every page is looked at. Colours and sizes are judged in each, all other rules in one of each width.
var looks = []struct {
	width int64
	dark  bool
	all   bool
}{{1280, false, true}, {1280, true, false}, {390, false, false}, {390, true, true}}

// dressed shows the page that is open in another look.
func (x *tab) dressed(width int64, dark bool) {
	x.t.Helper()
	x.do(chromedp.Func(func(ctx context.Context, s *chromedp.Target) error {
		_, err := cdp.Call(ctx, s, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 600})
		if err == nil {
			scheme := map[bool]string{true: "dark", false: "light"}[dark]
			_, err = cdp.Call(ctx, s, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}}) // a page that still glides to what has the focus is not judged by where it is
		}
		return err
	}))
}

// everywhere checks the page that is open in each look: axe finds nothing, nothing is wider than the page, no complaint, no other host,
// and nothing that somebody wrote has run.
func (x *tab) everywhere(what string) { x.t.Helper(); x.looked(what, true) }

// looked is everywhere; unless colours is set, axe judges one look of each width alone: enough for pages that are made of the same parts.
func (x *tab) looked(what string, colours bool) {
	x.t.Helper()
	for _, l := range looks {
		x.dressed(l.width, l.dark)
		name := fmt.Sprintf("%s at %d%s", what, l.width, map[bool]string{true: ", dark"}[l.dark])
		switch {
		case l.all:
			x.accessible(name, "")
		case colours:
			x.accessible(name, ", runOnly: ['color-contrast', 'link-in-text-block', 'target-size']")
		}
		x.steady(name)
		x.shoot(pictureName.ReplaceAllString(strings.ReplaceAll(name, "/incidents/", ""), "-"))
	}
	x.dressed(x.width, x.dark)
}

var pictureName = regexp.MustCompile(`[^A-Za-z0-9]+`)

// fits checks the page that is open at both widths, but for what axe knows: where many pages differ by their texts alone.
func (x *tab) fits(what string) {
	x.t.Helper()
	for _, width := range []int64{1280, 390} {
		x.dressed(width, x.dark)
		x.steady(fmt.Sprintf("%s at %d", what, width))
	}
	x.dressed(x.width, x.dark)
}

// steady is what holds for every page and costs next to nothing.
func (x *tab) steady(what string) {
	x.t.Helper()
	if wide := eval[string](x, tooWide); wide != "" {
		x.t.Errorf("%s: wider than the page: %s", what, wide)
	}
	if eval[bool](x, "typeof window.pwned !== 'undefined'") {
		x.t.Errorf("%s: what somebody wrote ran", what)
	}
	x.quiet(what)
}

// walked is what a walk with Tab has found.
type walked struct {
	Stops, Want    int
	Missed, Unseen []string
	Skip, Loop     bool
}

// listens notes at each Tab where the focus is, what of the page as it was at first is not reached (a live part may be drawn anew behind the
// focus), and whether each is to be seen: it has an outline, is inside the window, and nothing
// that stays in place lies over it.
const listens = `(() => {
	const name = e => e.tagName + ' ' + (e.innerText || e.value || e.getAttribute('aria-label') || e.name || '').trim().slice(0, 40);
	const reachable = e => e.checkVisibility({visibilityProperty: true}) && !e.disabled && !(e.closest('details:not([open])') && !(e.tagName === 'SUMMARY' && e.parentElement.closest('details:not([open])') === e.parentElement && !e.parentElement.parentElement.closest('details:not([open])')));
	const want = () => [...document.querySelectorAll('a[href], button, summary, select, textarea, input:not([type=hidden]), [tabindex="0"]')].filter(reachable)
		.filter(e => e.type !== 'radio' || e === ([...document.getElementsByName(e.name)].find(r => r.checked) || document.getElementsByName(e.name)[0]));
	const skip = document.querySelector('a.skip'), seen = new Set([skip]), first = new Set(want()), w = window.walk = {stops: 1, unseen: [], left: false};
	skip.focus(); // from where the walk begins: by a script, so that whether it is to be seen is checked elsewhere
	w.report = () => ({Skip: want()[0] === skip && document.querySelector(skip.getAttribute('href'))?.tagName === 'MAIN', Stops: w.stops, Want: want().length, Missed: want().filter(e => first.has(e) && !seen.has(e)).map(name), Unseen: w.unseen, Loop: w.left});
	w.note = () => {
		const e = document.activeElement;
		if (w.left || e === w.last) return; // a date has three stops
		if (!e || e === document.body || seen.has(e)) { w.left = true; return; }
		seen.add(w.last = e);
		w.stops++;
		const s = getComputedStyle(e), r = e.getBoundingClientRect();
		const outline = s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0;
		const inside = r.width > 0 && r.height > 0 && r.bottom > 0 && r.top < innerHeight;
		const middle = (from, to, end) => (Math.max(from, 0) + Math.min(to, end)) / 2;
		const hit = document.elementFromPoint(middle(r.left, r.right, innerWidth), middle(r.top, r.bottom, innerHeight));
		const over = hit && !e.contains(hit) && !hit.contains(e) && ['fixed', 'sticky'].includes(getComputedStyle(hit.closest('.clockbar, .controls') || hit).position);
		if (!outline || !inside || over) w.unseen.push(name(e) + (outline ? '' : ': no outline') + (inside ? '' : ': outside') + (over ? ': covered by ' + hit.className : ''));
	};
	if (!window.walks) { window.walks = true; document.addEventListener('keyup', e => { if (e.key === 'Tab') window.walk.note(); }, true); }
	return want().length;
})()`

// byKeyboard goes through the page that is open with Tab alone, at both widths: everything that can be used is reached, each stop is to
// be seen, nothing holds the focus, and the first stop leads past the frame.
func (x *tab) byKeyboard(what string) {
	x.t.Helper()
	for _, width := range []int64{1280, 390} {
		x.dressed(width, x.dark)
		want := eval[int](x, listens)
		name := fmt.Sprintf("%s by keyboard at %d", what, width)
		const atOnce = 16
		for pressed := 0; pressed < want+2*atOnce && !eval[bool](x, "walk.left"); pressed += atOnce { // terminals and what scrolls are stops too
			x.do(chromedp.KeyEvent(strings.Repeat(kb.Tab, atOnce)))
		}
		got := eval[walked](x, "walk.report()")
		if !got.Skip || len(got.Missed) > 0 || len(got.Unseen) > 0 || !got.Loop || got.Stops < want || want < 3 {
			x.t.Errorf("%s: begins with the way to the content %t, %d stops, %d wanted, comes round %t; not reached %q; not to be seen %q", name, got.Skip, got.Stops, got.Want, got.Loop, got.Missed, got.Unseen)
		}
	}
	x.dressed(x.width, x.dark)
}

// forms are the addresses of every command's form, with a subject where that makes it longer.
func forms(n names) []string {
	var list []string
	for _, c := range procedure.Commands() {
		if !pages.GivenInPages(c.Name) || c.Name == "Declare" {
			continue
		}
		switch path := "/incidents/{id}/act/" + c.Name; c.Name {
		case "Respond":
			list = append(list, path+"?kind=accept", path+"?kind=decline", path+"?kind=hand_over&subject=critical%2F1")
		case "DeliverRuling", "RecordPreliminaries", "OpenCase":
			list = append(list, path+"?subject={dispute}")
		default:
			list = append(list, path)
		}
	}
	for i := range list {
		list[i] = n.in(list[i])
	}
	return list
}

// turn puts what a page of the same frame says in the place of what is shown: as it comes from the server, in the frame that is open,
// for which axe has been read already. Pages whose content has a script of its own are opened.
const turn = `(async path => {
	const r = await fetch(path), page = new DOMParser().parseFromString(await r.text(), 'text/html');
	document.querySelector('main').replaceWith(document.adoptNode(page.querySelector('main')));
	document.title = page.title;
	scrollTo(0, 0);
	return r.status;
})`

func (x *tab) turnTo(path string) {
	x.t.Helper()
	if status := eval[int](x, fmt.Sprintf("%s(%q)", turn, path)); status != 200 {
		x.t.Fatalf("%s: status %d", path, status)
	}
}

// everyForm looks at the form of every command, in each look and with the keyboard.
func everyForm(t *testing.T, browser context.Context, env *testenv.Env, n names) {
	x := open(t, browser, env, look{person: "carla", width: 390, within: wholeEmergency})
	x.goTo("/declare")
	for _, path := range forms(n) {
		x.turnTo(path)
		x.looked(path, false)
		x.byKeyboard(path)
	}
}

// germanFits: German words are longer, and no page is wider than a phone for it.
func germanFits(t *testing.T, browser context.Context, env *testenv.Env, n names) {
	x := open(t, browser, env, look{person: "arno", width: 390, lang: "de", within: wholeEmergency})
	x.goTo("/declare")
	for _, r := range routesOf(ofHour) {
		if r.press == "" && r.person != "" {
			x.turnTo(n.in(r.path))
			x.steady(r.path + " in German")
		}
	}
	for _, path := range forms(n) {
		x.turnTo(path)
		x.steady(path + " in German")
	}
	if lang := eval[string](x, "document.documentElement.lang"); lang != "de" {
		t.Errorf("the pages are in %q", lang)
	}
}
