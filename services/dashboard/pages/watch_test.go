// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/chromedp"

	"cacert.org/emergency/pkg/procedure"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/testenv"
)

const (
	watching = "document.getElementById('watch').dataset"
	rowsText = "document.querySelector('.xterm-rows').innerText"
	heading  = "document.getElementById('standing').textContent"
)

// TestWatch is a watched session with the browser as the watcher's view: the stock ssh client types, the page shows, acknowledges,
// freezes when it is hidden, and ends the session.
func TestWatch(t *testing.T) {
	t.Parallel()
	chromium := startBrowser(t)
	c := newConsole(t)
	x := open(t, chromium, c.Env, look{person: "carla", width: 1280, within: 4 * testenv.Patience})
	x.everyRoute(ofWatch, names{"id": c.story.ID, "grant": "G1"})
	x.do(chromedp.Click("[data-do=begin]"))
	x.until(watching + ".mode === 'watcher' && " + heading + " === 'watcher ready'")
	subject := c.run("anna", "connect")
	types(x, subject, "PS1=; echo answer-$((6*7))", "answer-42")
	if !eval[bool](x, "("+watching+".open === 'true') === ("+heading+" === 'live')") {
		t.Errorf("the heading says %q", eval[string](x, heading))
	}
	x.shoot("watch-1280")
	types(x, subject, evil, "true-colour")
	notActedOn(t, x)

	// An observer sees the same, from the first byte, and has nothing to press.
	o := open(t, chromium, c.Env, look{person: "carl", width: 390, lang: "de", within: 4 * testenv.Patience})
	o.goTo(c.path("/watch"))
	o.until(watching + ".mode === 'observer' && " + rowsText + ".includes('true-colour')")
	if n := eval[int](o, "document.querySelectorAll('#watch button:not([data-do=over] button)').length"); n != 0 {
		t.Errorf("an observer has %d buttons besides the one to take over", n)
	}
	o.wellMade("observing at 390")

	// A note is a marker in history and recording.
	x.do(chromedp.SetValue("[data-do=note] input", "she looks at the answer"))
	eval[bool](x, "document.querySelector('[data-do=note]').requestSubmit(), true")
	for _, view := range []*tab{x, o} {
		view.until("document.querySelector('.notices').innerText.includes('note by carla: she looks at the answer')")
	}

	// Out of sight nobody sees the page, the session stands still, and what is typed meanwhile is thrown away.
	for hidden := false; !hidden; { // a machine that is busy lets a page fall silent before it is hidden, which freezes too
		window(x, "normal")
		flows(x)
		window(x, "minimized")
		o.until(watching + ".open === 'false'")
		c.await("the freeze", func(g *procedure.Grant) bool { return g.State == procedure.GrantFrozen })
		hidden = c.grant().FreezeCause == emergencyv1.SessionCause_SESSION_CAUSE_WATCHER_HIDDEN
	}
	if !eval[bool](x, "document.hidden") {
		t.Error("the page in a minimized window is not hidden")
	}
	o.until(heading + " === 'eingefroren'")
	subject.typing("echo never-$((40+2))")
	o.until("document.querySelector('[data-show=discarded]').textContent !== ''")
	window(x, "normal")
	x.until("!document.hidden")
	types(x, subject, "echo answer-$((6*7+1))", "answer-43")
	if eval[bool](x, rowsText+".includes('never-42')") {
		t.Error("what was typed while nobody watched has run")
	}

	// The end takes two steps; the first one already stops it.
	x.do(chromedp.Click("[data-do=stop]"))
	x.until(watching + ".open === 'false'")
	x.wellMade("about to end")
	x.do(chromedp.Click("[data-do=kill]"))
	c.await("the end", func(g *procedure.Grant) bool { return g.Terminated.Position > 0 && g.DisabledDone.Position > 0 })
	for _, r := range c.grant().Results {
		if r.GetOutcome() != emergencyv1.EffectOutcome_EFFECT_OUTCOME_DONE && r.GetOutcome() != emergencyv1.EffectOutcome_EFFECT_OUTCOME_NOT_NEEDED {
			t.Errorf("%s: %s %s", r.GetEffect(), r.GetOutcome(), r.GetDetail())
		}
	}
	for _, view := range []*tab{x, o} {
		view.until(watching + ".over !== undefined && ['terminated', 'beendet'].includes(" + heading + ")")
		notActedOn(t, view)
	}
	_ = subject.in.Close()
	subject.ends()
}

// TestWatchByPasskey is the watcher with a phone and a passkey: every signature is the passkey's, also the one that makes the watcher
// present. The controls stay in reach, and two keys end the session.
func TestWatchByPasskey(t *testing.T) {
	t.Parallel()
	chromium := startBrowser(t)
	c := newConsole(t)
	x := open(t, chromium, c.Env, look{width: 390, named: true, within: 4 * testenv.Patience})
	x.hasAuthenticator()
	x.goTo("/home")
	x.follow(`//button[b/bdi[text()="carla"]]`)
	key := "carla " + x.addsPasskey(nil)
	x.goTo(c.path("/watch"))
	inReach(x, "begin")
	x.do(chromedp.Click("[data-do=begin]"))
	x.until(watching + ".mode === 'watcher'")
	subject := c.run("anna", "connect")
	types(x, subject, "PS1=; echo answer-$((6*7))", "answer-42")
	x.shoot("watch-390")
	types(x, subject, evil, "true-colour")
	notActedOn(t, x)
	x.wellMade("the watcher's view at 390")

	window(x, "minimized")
	c.await("the freeze", func(g *procedure.Grant) bool { return g.State == procedure.GrantFrozen })
	window(x, "normal")
	x.until("!document.hidden")
	flows(x)
	x.do(chromedp.Click("[data-show=longer] summary"), chromedp.SetValue("[data-do=extend] input", "the lock has a second holder"))
	inReach(x, "stop")
	for c.grant().Extended.Position == 0 { // a session that stands still is not extended
		flows(x)
		eval[bool](x, "document.querySelector('[data-show=did]').textContent = '', document.querySelector('[data-do=extend]').requestSubmit(), true")
		x.until("/ExtendSession: (recorded|not recorded)/.test(document.querySelector('[data-show=did]').textContent)")
	}
	x.until("document.querySelector('[data-do=extend]') === null")

	eval[bool](x, "scrollTo(0, 0), true")
	inReach(x, "hold", "stop")
	x.do(chromedp.Evaluate[chromedp.Void](chord("f")))
	x.until(watching + ".open === 'false'")
	c.await("the watcher's freeze", func(g *procedure.Grant) bool { return g.State == procedure.GrantFrozen })
	x.until("/^Freeze: (recorded|frozen already)/.test(document.querySelector('[data-show=did]').textContent)")
	x.do(chromedp.Evaluate[chromedp.Void](chord("k")))
	c.await("the end", func(g *procedure.Grant) bool { return g.Terminated.Position > 0 && g.DisabledDone.Position > 0 })
	x.mu.Lock() // the page that holds the session freezes it before the signature comes, which then has nothing to freeze
	x.problems = slices.DeleteFunc(x.problems, func(p string) bool { return strings.Contains(p, "/act/Freeze/sign") })
	x.mu.Unlock()
	x.quiet("watching by passkey")
	by := signedBy(t, c.Env, c.story.ID)
	for _, command := range []string{"ArmWatch", "Resume", "ExtendSession", "Terminate", "Disable"} {
		if !slices.Contains(by[command], key) {
			t.Errorf("%s is signed by %v, not by %s", command, by[command], key)
		}
	}
	_ = subject.in.Close()
	subject.ends()
}

// chord presses the two keys that act: a single key of a habit does not.
func chord(key string) string {
	return fmt.Sprintf(`document.dispatchEvent(new KeyboardEvent('keydown', {key: '\\', ctrlKey: true, bubbles: true, cancelable: true}));
		document.dispatchEvent(new KeyboardEvent('keydown', {key: %q, bubbles: true, cancelable: true})); void 0`, key)
}

// inReach checks that controls can be pressed without scrolling, and that a finger hits them.
func inReach(x *tab, names ...string) {
	x.t.Helper()
	for _, name := range names {
		if !eval[bool](x, fmt.Sprintf(`(() => {
			const b = document.querySelector('[data-do=%s]'), r = b.getBoundingClientRect();
			const hit = document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2);
			return r.height >= 24 && r.top >= 0 && r.bottom <= innerHeight && r.right <= innerWidth && (hit === b || b.contains(hit));
		})()`, name)) {
			x.t.Errorf("%s is not in reach", name)
		}
	}
}

// flows lets the session go on if it stands still: a test's machine is often too busy for a page to say each second that it is there.
func flows(x *tab) {
	x.t.Helper()
	x.until(`(() => {
		if (` + watching + `.open === 'true') return true;
		const resume = document.querySelector('[data-do=resume]');
		if (!resume.hidden && !(performance.now() - window.asked < 5000)) { window.asked = performance.now(); resume.click(); }
		return false;
	})()`)
}

// types has the subject type a line until the page shows what comes of it; what came while the session stood still is thrown away.
// The echo of the line must not be enough.
func types(x *tab, subject *program, line, want string) {
	x.t.Helper()
	if strings.Contains(line, want) {
		x.t.Fatalf("the echo of %q shows %q", line, want)
	}
	shown := rowsText + ".includes('" + want + "')"
	for {
		flows(x)
		subject.typing(line)
		x.until(shown + " || " + watching + ".open === 'false'")
		if eval[bool](x, shown) {
			return
		}
	}
}

func notActedOn(t *testing.T, x *tab) {
	t.Helper()
	if eval[bool](x, "window.pwned !== undefined || document.title.includes('pwned') || document.querySelectorAll('.xterm a, .xterm img, .xterm script').length > 0") {
		t.Error("the output has acted on the page")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.sent) == 0 {
		t.Error("the page has sent no sign of life")
	}
	for _, m := range x.sent { // what a terminal answers to a question in the output would be typed for the person who watches
		var said map[string]any
		if err := json.Unmarshal([]byte(m), &said); err != nil {
			t.Errorf("the page has sent %q: %v", m, err)
		}
		for k := range said {
			if !slices.Contains([]string{"watch", "signed", "rendered", "hidden"}, k) {
				t.Errorf("the page has sent %q", m)
			}
		}
	}
}

// window brings the tab's window out of sight, or back: the browser itself then says whether the page is hidden.
func window(x *tab, state string) {
	x.t.Helper()
	x.do(chromedp.Func(func(ctx context.Context, s *chromedp.Target) error {
		w, err := cdp.Call(ctx, s, browser.GetWindowForTarget, browser.GetWindowForTargetParams{})
		if err == nil {
			_, err = cdp.Call(ctx, s, browser.SetWindowBounds, browser.SetWindowBoundsParams{WindowID: w.WindowID, Bounds: &browser.Bounds{WindowState: browser.WindowState(state)}})
		}
		return err
	}))
}

// TestWatchThroughService: nobody is the watcher by a service's word, and nobody but a service speaks for another.
func TestWatchThroughService(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	c.story.Do("carla", &emergencyv1.ArmWatchRequest{Grant: "G1"})
	said := func(profile string, hello *deploymentv1.WatchHello) (deploymentv1.WatchMode, error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
		defer cancel()
		stream, err := c.WithProfile(profile).Console().Watch(ctx)
		check(t, err)
		hello.Incident, hello.Grant = c.story.ID, "G1"
		check(t, stream.Send(&deploymentv1.WatchRequest{Message: &deploymentv1.WatchRequest_Hello{Hello: hello}}))
		m, err := stream.Recv()
		return m.GetWelcome().GetMode(), err
	}
	service, carl := c.Data("services", "epatchd"), c.Data("people", "carl")
	if mode, err := said(service, &deploymentv1.WatchHello{Person: "carl", Observe: true}); err != nil || mode != deploymentv1.WatchMode_WATCH_MODE_OBSERVER {
		t.Errorf("an observer through a service: %v, %v", mode, err)
	}
	for name, x := range map[string]struct {
		profile string
		hello   *deploymentv1.WatchHello
		want    string
	}{
		"the watcher by a service's word":  {service, &deploymentv1.WatchHello{Person: "carla"}, "nobody has"},
		"nobody through a service":         {service, &deploymentv1.WatchHello{}, "watched by critical admins"},
		"a tester through a service":       {service, &deploymentv1.WatchHello{Person: "theo", Observe: true}, "watched by critical admins"},
		"somebody else over the own line":  {carl, &deploymentv1.WatchHello{Person: "carla"}, "only a service"},
		"the subject through a service":    {service, &deploymentv1.WatchHello{Person: "anna", Observe: true}, "cannot watch"},
		"the watcher, signed by a service": {service, &deploymentv1.WatchHello{Person: "carla", Approval: &emergencyv1.Approval{}}, "none of carla's"},
	} {
		if mode, err := said(x.profile, x.hello); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, %v; want %q", name, mode, err, x.want)
		}
	}
	has(t, "the watcher's page", plain(t, c.Env).as("carla").page(c.path("/watch")), `data-do="begin"`, `data-watcher="true"`)
	s := plain(t, c.Env).as("carl")
	hasNot(t, "an observer's page", s.page(c.path("/watch")), "<button type", `data-watcher="true"`)
	if a := s.do("GET", c.path("/stream"), nil, "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2RlZg==", "Origin", "https://evil.example"); a.StatusCode != http.StatusForbidden {
		t.Errorf("the stream from another site: %s", a.Status)
	}
	if a := plain(t, c.Env).get(c.path("/stream")); a.StatusCode != http.StatusForbidden {
		t.Errorf("the stream without signing in: %s", a.Status)
	}
}
