// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/testenv"
)

// TestInBrowser is everything that needs a real browser and an emergency of most of an hour, with a dispute that was ruled on: one system
// for all its tabs, which are open at the same time.
func TestInBrowser(t *testing.T) {
	t.Parallel()
	browser := startBrowser(t)
	h := anHour(t)
	bad, n := hostile(h.Env), h.disputed()
	t.Run("at once", func(t *testing.T) {
		t.Run("every page", func(t *testing.T) {
			t.Parallel()
			x := open(t, browser, h.Env, look{person: "carla", width: 1280, within: wholeEmergency})
			x.everyRoute(ofHour, n)
			x.publicLog(n)
		})
		t.Run("every form", func(t *testing.T) { t.Parallel(); everyForm(t, browser, h.Env, n) })
		t.Run("phone, German, dark", func(t *testing.T) { t.Parallel(); german(t, browser, h) })
		t.Run("phone, German", func(t *testing.T) { t.Parallel(); germanFits(t, browser, h.Env, n) })
		t.Run("hostile text", func(t *testing.T) { t.Parallel(); hostilePages(t, browser, h, bad) })
		t.Run("hostile case", func(t *testing.T) { t.Parallel(); hostileCase(t, browser, h.Env, n) })
		t.Run("live", func(t *testing.T) { t.Parallel(); livePages(t, browser, h) })
		t.Run("keyboard", func(t *testing.T) { t.Parallel(); keyboard(t, browser, h) })
		t.Run("hostile text in forms", func(t *testing.T) { t.Parallel(); hostileForms(t, browser, h, bad) })
		t.Run("a form by keyboard", func(t *testing.T) { t.Parallel(); keyboardForm(t, browser, h) })
		t.Run("a value by keyboard", func(t *testing.T) { t.Parallel(); askedByKeyboard(t, browser, h.Env, n) })
		t.Run("without JavaScript", func(t *testing.T) { t.Parallel(); withoutScript(t, browser, h) })
		t.Run("cases without JavaScript", func(t *testing.T) { t.Parallel(); casesWithoutScript(t, browser, h.Env, n) })
		t.Run("paper", func(t *testing.T) { t.Parallel(); dossierOnPaper(t, browser, h.Env, n) })
	})
}

func german(t *testing.T, browser context.Context, h *hour) {
	x := open(t, browser, h.Env, look{person: "anna", width: 390, lang: "de", dark: true})
	for _, path := range []string{"/home", "/incidents/" + h.story.ID, "/incidents/" + h.story.ID + "/patches/P1r2", "/board"} {
		x.goTo(path)
		if lang := eval[string](x, "document.documentElement.lang"); lang != "de" {
			t.Errorf("%s is in %q", path, lang)
		}
		x.wellMade(path + " in German, dark, at 390")
	}
}

func hostilePages(t *testing.T, browser context.Context, h *hour, bad *testenv.Story) {
	x := open(t, browser, h.Env, look{person: "carl", width: 390, within: wholeEmergency})
	id, last := bad.ID, bad.State().Position
	for _, path := range []string{"/incidents/" + id, "/incidents/" + id + "/timeline", "/incidents/" + id + "/patches/P1r1", fmt.Sprintf("/incidents/%s/events/%d", id, last), fmt.Sprintf("/incidents/%s/at?position=%d", id, last)} {
		x.goTo(path)
		x.everywhere(path + ", hostile")
	}
	x.goTo("/incidents/" + id + "/events/1")
	for range 3 { // each restricted value of the declaration: those that are shown have no button any more
		x.follow("form button:not(.plain)")
		x.fits("a hostile value, shown")
		if !eval[bool](x, `document.querySelector('.said').innerText.includes('<script>window.pwned=1</script>')`) {
			t.Error("a restricted value is not shown as it is")
		}
	}
	x.everywhere("the last hostile value, shown")
}

// livePages: what happens shows in pages that are open, without loading them again, and what the reader did there stays.
func livePages(t *testing.T, browser context.Context, h *hour) {
	page, home, log := open(t, browser, h.Env, look{person: "clara", width: 1280}), open(t, browser, h.Env, look{person: "casper", width: 390}), open(t, browser, h.Env, look{width: 390})
	log.goTo("/log")
	page.goTo("/incidents/" + h.story.ID)
	page.do(chromedp.Click(".can details summary"))
	for _, x := range []*tab{page, home, log} {
		x.until("!!(document.getElementById('live')._htmx && document.getElementById('live')._htmx.sse)")
		x.do(chromedp.Evaluate[chromedp.Void]("window.before = true; void 0"))
	}
	s := h.Play(testenv.Declared)
	for _, x := range []*tab{home, log} {
		x.until(fmt.Sprintf("document.querySelector('#live').innerText.includes(%q)", s.ID))
	}
	sent := time.Now()
	h.story.Do("carl", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "somebody looked at the logs"})
	page.until(`document.querySelector('.entries').innerText.includes('somebody looked at the logs')`)
	t.Logf("an event showed in an open page %s after it was sent, the browser's polling included", time.Since(sent).Round(time.Millisecond))
	log.fits("the public log after a change")
	for _, x := range []*tab{page, home, log} {
		if !eval[bool](x, "window.before === true") {
			t.Error("the page was loaded again")
		}
	}
	if !eval[bool](page, "document.querySelector('.can details').open") {
		t.Error("what the reader had unfolded is folded again")
	}
	page.until(`/^\d+ seconds? ago$/.test(document.querySelector('.entries .ago').innerText)`)
	page.wellMade("after a change")
	// Signing out in one tab ends what is open in the others of the same browser: they come to the page for signing in.
	page.do(chromedp.Evaluate[chromedp.Void](`fetch('/sign-out', {method: 'POST'}).then(() => 0); void 0`))
	h.story.Do("carl", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "and another one"})
	page.until("location.pathname === '/sign-in'")
}

// focused is what has the focus, and whether that is to be seen.
type focused struct {
	Tag, Text, Href string
	Outline         bool
	Visible         bool
}

const whatIsFocused = `(() => {
	const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
	return {Tag: e.tagName, Text: e.innerText || e.value || '', Href: e.getAttribute('href') || '', Outline: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0,
		Visible: r.width > 0 && r.height > 0 && r.bottom > 0 && r.top < innerHeight};
})()`

// keyboard walks through the emergency's page with Tab and Enter alone.
func keyboard(t *testing.T, browser context.Context, h *hour) {
	x := open(t, browser, h.Env, look{person: "bert", width: 1280})
	x.goTo("/incidents/" + h.story.ID)
	press := func(key string) focused {
		x.do(chromedp.KeyEvent(key))
		return eval[focused](x, whatIsFocused)
	}
	if f := press(kb.Tab); f.Href != "#main" || !f.Visible || !f.Outline {
		t.Errorf("the first stop is no way to the content: %+v", f)
	}
	press(kb.Enter)
	if id := eval[string](x, "document.activeElement.id"); id != "main" {
		t.Errorf("the way to the content leads to %q", id)
	}
	want := eval[int](x, `[...document.querySelectorAll('main a, main button, main summary, main input, main select, main [tabindex="0"]')].filter(e => e.checkVisibility() && !(e.closest('details:not([open])') && e.tagName !== 'SUMMARY')).length`)
	var stops []focused
	opened := false
	for len(stops) < want+20 {
		f := press(kb.Tab)
		if eval[bool](x, "!document.activeElement.closest('main')") {
			break
		}
		stops = append(stops, f)
		if !f.Outline || !f.Visible {
			t.Errorf("the focus is not to be seen on %s %q %q", f.Tag, f.Text, f.Href)
		}
		if f.Tag == "SUMMARY" && strings.HasPrefix(f.Text, "Not you") && !opened {
			press(kb.Enter)
			if opened = eval[bool](x, "document.activeElement.parentElement.open"); !opened {
				t.Error("the keyboard does not unfold what is refused")
			}
			press(kb.Enter) // and folds it again
		}
	}
	if len(stops) != want || !opened {
		t.Errorf("%d stops with Tab, %d things to reach, unfolded %t", len(stops), want, opened)
	}
	x.do(chromedp.Focus(".entries .ref"))
	x.leads("Enter on an event", chromedp.KeyEvent(kb.Enter))
	if at := eval[string](x, "location.pathname"); !strings.Contains(at, "/events/") {
		t.Errorf("Enter on an event leads to %s", at)
	}
}

// withoutScript: everything can be read, asked for and gone through by links and forms alone.
func withoutScript(t *testing.T, browser context.Context, h *hour) {
	x := open(t, browser, h.Env, look{person: "carla", width: 390, still: true})
	id := h.story.ID
	x.follow(".card.open h3 a")
	shows := func(what string, words ...string) {
		t.Helper()
		said := eval[string](x, "document.body.innerText")
		for _, w := range words {
			if !strings.Contains(said, w) {
				t.Errorf("%s without JavaScript: %q is not in\n%s", what, w, said)
			}
		}
	}
	x.goTo("/incidents/" + id)
	shows("emergency", "Without JavaScript this page does not change by itself", "24-hour clock", "Deployment on critical-1", "ago")
	x.goTo("/incidents/" + id + "/events/1")
	x.follow("form button:not(.plain)")
	shows("restricted value", "It is written down that you read this", testenv.Program)
	x.goTo("/incidents/" + id + "/at?position=5")
	x.follow(`a[rel="next"]`)
	shows("slider", "What changed")
	x.goTo("/incidents/" + id + "/timeline")
	x.follow(".filters button")
	shows("timeline", "entries")
	x.follow(`form[action="/sign-out"] button`)
	shows("after signing out", "Demo people")
}
