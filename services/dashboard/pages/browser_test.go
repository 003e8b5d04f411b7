// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"cacert.org/emergency/services/internal/testenv"
)

//go:embed testdata/axe/axe.min.js
var axe string

// startBrowser is the one real Chromium of all tests; everybody in it has an own context, as in another browser. It ends with the
// tests (TestMain).
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	ctx, err := theBrowser.start()
	if errors.Is(err, errNoBrowser) && os.Getenv("CI") == "" {
		t.Skip("SKIPPED, the pages are not tested in a browser: " + err.Error())
	}
	check(t, err)
	return ctx
}

var errNoBrowser = errors.New("no Chromium: install it (Debian: apt-get install chromium) or name it in EPATCH_TEST_CHROMIUM")

// oneBrowser is started by the first test that needs it.
type oneBrowser struct {
	once sync.Once
	ctx  context.Context
	err  error
	ends []func()
}

var theBrowser oneBrowser

func (b *oneBrowser) start() (context.Context, error) {
	b.once.Do(func() { b.ctx, b.err = b.run() })
	return b.ctx, b.err
}

func (b *oneBrowser) run() (context.Context, error) {
	program := chromium()
	if program == "" {
		return nil, errNoBrowser
	}
	dir, err := os.MkdirTemp("", "epatch-chromium-")
	if err != nil {
		return nil, err
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.DisableGPU, chromedp.UserDataDir(dir),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("lang", "en"))
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // Chromium refuses to sandbox for root
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, stop := chromedp.NewContext(ctx)
	b.ends = []func(){stop, cancel, func() { _ = os.RemoveAll(dir) }}
	return ctx, chromedp.Do(ctx, chromedp.Navigate("about:blank"))
}

func (b *oneBrowser) stop() {
	for _, end := range b.ends {
		end()
	}
}

func chromium() string {
	for _, name := range []string{os.Getenv("EPATCH_TEST_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	return ""
}

// tab is one page that is open in the browser, with all that it complained about and asked for.
type tab struct {
	t   *testing.T
	ctx context.Context
	env *testenv.Env
	// host serves the pages instead of env, if it is set.
	host string
	// look is what it was opened with; person is who is signed in now.
	look

	mu       sync.Mutex
	problems []string
	hosts    map[string]bool
	sent     []string // by WebSocket
}

// look is how a tab looks at pages.
type look struct {
	person string // signed in by choosing; empty for nobody
	width  int64
	lang   string
	dark   bool
	still  bool          // without JavaScript
	named  bool          // by the name of this machine: there are no passkeys for addresses
	within time.Duration // how long the tab is in use; testenv.Patience if 0
}

const height = 900

// open opens a tab for a person, in a context of its own.
func open(t *testing.T, browser context.Context, env *testenv.Env, l look) *tab {
	t.Helper()
	ctx, stop := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	ctx, cancel := context.WithTimeout(ctx, max(l.within, testenv.Patience))
	t.Cleanup(func() { cancel(); stop() })
	x := &tab{t: t, ctx: ctx, env: env, look: l, hosts: map[string]bool{}}
	if l.named {
		_, port, err := net.SplitHostPort(env.HTTP())
		check(t, err)
		x.host = net.JoinHostPort("localhost", port)
	}
	check(t, chromedp.Listen(ctx, x.hear))
	lang := map[string]string{"": "en-GB,en;q=0.8", "de": "de-AT,de;q=0.9,en;q=0.5"}[l.lang]
	phone := l.width < 600
	x.do(chromedp.Func(func(ctx context.Context, s *chromedp.Target) error {
		_, err := cdp.Call(ctx, s, network.Enable, network.EnableParams{})
		if err == nil {
			_, err = cdp.Call(ctx, s, log.Enable, cdp.Empty{})
		}
		if err == nil {
			_, err = cdp.Call(ctx, s, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: "Mozilla/5.0 Chrome", AcceptLanguage: lang})
		}
		if err == nil {
			_, err = cdp.Call(ctx, s, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: l.width, Height: height, DeviceScaleFactor: 1, Mobile: phone})
		}
		if err == nil && l.dark {
			_, err = cdp.Call(ctx, s, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
		}
		if err == nil && l.still {
			_, err = cdp.Call(ctx, s, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		}
		return err
	}))
	if l.person != "" {
		x.goTo("/home")
		x.follow(fmt.Sprintf(`//button[b/bdi[text()=%q]]`, l.person))
	}
	return x
}

// hear notes what a page complains about, and which hosts it talks to.
func (x *tab) hear(ev any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch e := ev.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" {
			var words []string
			for _, a := range e.Args {
				words = append(words, string(a.Value)+a.Description)
			}
			x.problems = append(x.problems, "console: "+strings.Join(words, " "))
		}
	case *runtime.EventExceptionThrown:
		x.problems = append(x.problems, "exception: "+e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		answered := strings.Contains(e.Entry.Text, "status of 422") || strings.Contains(e.Entry.Text, "status of 409") // the browser's note on what was refused, as it should
		if (e.Entry.Level == "error" || e.Entry.Level == "warning") && !answered {
			x.problems = append(x.problems, fmt.Sprintf("log: %s %s", e.Entry.Text, e.Entry.URL))
		}
	case *network.EventWebSocketFrameSent:
		x.sent = append(x.sent, string(e.Response.PayloadData))
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err == nil && u.Scheme != "data" {
			x.hosts[u.Host] = true
		}
	}
}

func (x *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	x.t.Helper()
	if err := chromedp.Do(x.ctx, steps...); err != nil {
		body, _ := chromedp.Run(x.ctx, chromedp.Evaluate[string]("document.documentElement.innerText"))
		x.t.Fatalf("in the browser: %v\n%s", err, body)
	}
}

func (x *tab) goTo(path string) {
	x.t.Helper()
	x.do(chromedp.Navigate("http://" + x.server() + path))
}

func (x *tab) server() string {
	if x.host != "" {
		return x.host
	}
	return x.env.HTTP()
}

// follow clicks on something that leads to another page, and waits until that is there.
func (x *tab) follow(selector string) {
	x.t.Helper()
	x.leads("following "+selector, chromedp.Click(selector))
}

// leads does something that leads to another page.
func (x *tab) leads(what string, step chromedp.Action[chromedp.Void]) {
	x.t.Helper()
	if _, err := chromedp.RunResponse(x.ctx, step); err != nil {
		x.t.Fatalf("%s: %v\n%s", what, err, eval[string](x, "document.body.innerText"))
	}
}

// eval is the value of an expression in the page.
func eval[T any](x *tab, expression string) T {
	x.t.Helper()
	v, err := chromedp.Run(x.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		x.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for a fact in the page; if the page goes away meanwhile, in the one that comes instead.
func (x *tab) until(expression string) {
	x.t.Helper()
	for {
		// By the clock, because a window that is not looked at draws no frames.
		_, err := chromedp.Run(x.ctx, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(testenv.Patience)))
		switch {
		case err == nil:
			return
		case x.ctx.Err() == nil && (strings.Contains(err.Error(), "context") || strings.Contains(err.Error(), "navigated")):
			continue
		}
		x.t.Fatalf("waiting for %s: %v", expression, err)
	}
}

// violation is what axe finds.
type violation struct {
	ID, Impact, Help string
	Nodes            []string
}

// wellMade checks what holds for every page, as it is open: axe finds nothing, nothing is wider than the page, no complaint, no other
// host, and nothing that somebody wrote has run.
func (x *tab) wellMade(what string) {
	x.t.Helper()
	x.accessible(what, "")
	x.steady(what)
}

// accessible checks that axe finds nothing, by all its rules unless more options say which.
func (x *tab) accessible(what, more string) {
	x.t.Helper()
	if eval[bool](x, `typeof axe === 'undefined'`) {
		eval[bool](x, axe+"; true")
	}
	list := eval[[]violation](x, `axe.run(document, {resultTypes: ['violations'], preload: false`+more+`}).then(r => r.violations.map(v => ({ID: v.id, Impact: v.impact, Help: v.help, Nodes: v.nodes.map(n => n.target.join(' ') + ' ' + n.failureSummary)})))`)
	for _, v := range list {
		x.t.Errorf("%s: axe %s (%s): %s\n  %s", what, v.ID, v.Impact, v.Help, strings.Join(v.Nodes[:min(3, len(v.Nodes))], "\n  "))
	}
}

// quiet checks that no page has complained, and none has asked another host.
func (x *tab) quiet(what string) {
	x.t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range x.problems {
		x.t.Errorf("%s: %s", what, p)
	}
	for h := range x.hosts {
		if h != x.server() {
			x.t.Errorf("%s: asks %s", what, h)
		}
	}
}

// tooWide names what makes a page scroll sideways.
const tooWide = `(() => {
	const w = document.documentElement.clientWidth;
	if (document.documentElement.scrollWidth <= w) return '';
	return [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > w + 1 && !e.closest('.scroll')).slice(0, 3)
		.map(e => e.tagName + '.' + e.className + ' ' + Math.round(e.getBoundingClientRect().right) + ' of ' + w + ': ' + e.textContent.slice(0, 60)).join('; ') || 'something';
})()`

// shoot keeps a picture of the whole page where EPATCH_SCREENSHOTS names a folder, for whoever works on the pages.
func (x *tab) shoot(name string) {
	x.t.Helper()
	dir := os.Getenv("EPATCH_SCREENSHOTS")
	if dir == "" {
		return
	}
	check(x.t, os.MkdirAll(dir, 0o755))
	b, err := chromedp.Run(x.ctx, chromedp.FullScreenshot(100))
	check(x.t, err)
	check(x.t, os.WriteFile(filepath.Join(dir, name+".png"), b, 0o644))
}
