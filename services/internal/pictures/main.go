// SPDX-License-Identifier: Apache-2.0

// Pictures takes the pictures of the pages that the documents show, from a system that runs with development people (the demo):
//
//	go run ./services/internal/pictures -pages http://127.0.0.1:7080 -out docs/screenshots
//
// Each is taken at the width of a desk and of a phone. scripts/screenshots.sh starts a system with something to see.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

func main() {
	pages := flag.String("pages", "http://127.0.0.1:7080", "address of the pages")
	out := flag.String("out", "docs/screenshots", "folder for the pictures")
	only := flag.String("only", "", "only the picture of this name")
	whole := flag.Bool("whole", false, "whole pages instead of their beginning")
	from := flag.String("from", "", "folder with pictures that the browser tests took (EPATCH_SCREENSHOTS), to use those of a session that goes on, and take none")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if *from != "" {
		err = taken(*from, *out, *whole)
	} else {
		err = take(ctx, *pages, *out, *only, *whole)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// picture is one page as somebody sees it. {open} and {over} stand for the newest emergency that is open, and that is not.
type picture struct {
	name, path, person string
	dark               bool
	lang               string
	// press is what is pressed on the way, one page after the other; ready is what then holds when there is all to see. do is done in the
	// page then, until it shows.
	press     []string
	ready     string
	do, until string
}

func pictures() []picture {
	return []picture{
		{name: "home", path: "/home", person: "carla"},
		{name: "home-german-dark", path: "/home", person: "carla", dark: true, lang: "de-AT,de"},
		{name: "emergency", path: "/incidents/{open}", person: "carla"},
		{name: "emergency-over", path: "/incidents/{over}", person: "arno"},
		{name: "slider", path: "/incidents/{over}/at?position=60", person: "arno"},
		{name: "timeline", path: "/incidents/{over}/timeline", person: "arno"},
		{name: "patch", path: "/incidents/{over}/patches/P1r1", person: "anna"},
		{name: "obligations", path: "/obligations?show=all", person: "clara"},
		{name: "roster", path: "/roster", person: "clara"},
		{name: "rota", path: "/rota", person: "clara"},
		{name: "drills", path: "/drills", person: "clara"},
		{name: "board", path: "/board", person: "bea"},
		{name: "system", path: "/system", person: "carl"},
		{name: "log", path: "/log"},
		{name: "form-declare", path: "/declare", person: "carla"},
		{name: "statement", path: "/incidents/{open}/act/CallOut", person: "carla", press: []string{"form.act .do button"}},
		{name: "session", path: "/incidents/{over}/sessions/G1", person: "arno"},
		{name: "playback", path: "/incidents/{over}/sessions/G1", person: "carl", press: []string{"section form button:not(.plain)"}, ready: "document.getElementById('player').dataset.ready === 'true'",
			do:    "(() => { const seek = document.querySelector('[data-do=seek]'); seek.value = seek.max; seek.dispatchEvent(new Event('input')); })()",
			until: "document.querySelector('.xterm-rows').innerText.includes('Certificate for')"},
		{name: "docket", path: "/docket?show=all", person: "casper"},
		{name: "case", path: "/docket?show=all", person: "arno", press: []string{".docket .what a"}},
		{name: "dossier", path: "/incidents/{over}/dossier", person: "arno"},
		{name: "form-dispute", path: "/incidents/{open}/act/FileDispute", person: "carla"},
		{name: "form-review", path: "/incidents/{open}/act/RecordFirstReview", person: "anna"},
		{name: "form-ruling", path: "/docket", person: "arno", press: []string{".docket .what a", `a.button[href*="/act/DeliverRuling"]`}},
		{name: "passkeys", path: "/passkeys", person: "carla"},
	}
}

const (
	desk  = 1280
	phone = 390
	// shown is how much of a long page is shown, in pixels.
	shown = 1500
)

// patience is how long one page may take; a machine that tests at the same time is slow.
const patience = 2 * time.Minute

func take(ctx context.Context, pages, out, only string, whole bool) error {
	program, err := chromium()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("folder for the pictures: %w", err)
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.DisableGPU, chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true))
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // Chromium refuses to sandbox for root
	}
	ctx, cancel := chromedp.NewExecAllocator(ctx, opts...)
	defer cancel()
	browser, stop := chromedp.NewContext(ctx)
	defer stop()
	if err := chromedp.Do(browser, chromedp.Navigate("about:blank")); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	for _, p := range pictures() {
		if only != "" && p.name != only {
			continue
		}
		for _, width := range []int64{desk, phone} {
			file := filepath.Join(out, fmt.Sprintf("%s-%d.png", p.name, width))
			n, err := one(browser, pages, file, p, width, whole)
			if err != nil {
				return fmt.Errorf("%s at %d: %w", p.name, width, err)
			}
			fmt.Fprintf(os.Stdout, "%s %d KiB\n", file, (n+1023)/1024)
		}
	}
	return nil
}

// taken makes the pictures small that a test took of what no demo's data has: a session that goes on.
func taken(from, out string, whole bool) error {
	list, err := filepath.Glob(filepath.Join(from, "watch-*.png"))
	if err != nil || len(list) == 0 {
		return fmt.Errorf("no pictures of a session in %s: %w", from, err)
	}
	for _, file := range list {
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		small, err := smaller(raw, whole)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, filepath.Base(file)), small, 0o644); err != nil { // pictures for everybody
			return err
		}
	}
	return nil
}

func chromium() (string, error) {
	for _, name := range []string{os.Getenv("EPATCH_TEST_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium: install it (Debian: apt-get install chromium) or name it in EPATCH_TEST_CHROMIUM")
}

// one takes one picture in a browser context of its own, and returns its size.
func one(browser context.Context, pages, file string, p picture, width int64, whole bool) (int, error) {
	ctx, stop := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Func(func(ctx context.Context, s *chromedp.Target) error { return p.look(ctx, s, width) })); err != nil {
		return 0, err
	}
	path, err := p.open(ctx, pages)
	if err != nil {
		return 0, err
	}
	if err := chromedp.Do(ctx, chromedp.Navigate(pages+path)); err != nil {
		return 0, err
	}
	for _, selector := range p.press {
		if _, err := chromedp.RunResponse(ctx, chromedp.Click(selector)); err != nil {
			return 0, fmt.Errorf("press %s: %w", selector, err)
		}
	}
	if p.ready != "" {
		if _, err := chromedp.Run(ctx, chromedp.Poll[bool](p.ready, chromedp.WithPollingTimeout(patience))); err != nil {
			return 0, fmt.Errorf("not ready: %w", err)
		}
	}
	if p.do != "" {
		if err := chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void](p.do+"; void 0")); err != nil {
			return 0, fmt.Errorf("do: %w", err)
		}
		if _, err := chromedp.Run(ctx, chromedp.Poll[bool](p.until, chromedp.WithPollingTimeout(patience))); err != nil {
			return 0, fmt.Errorf("not done: %w", err)
		}
	}
	title, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.querySelector('h1') ? '' : document.body.innerText"))
	if err != nil || title != "" {
		return 0, fmt.Errorf("%s is no page: %s %w", path, title, err)
	}
	raw, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		return 0, err
	}
	small, err := smaller(raw, whole)
	if err != nil {
		return 0, err
	}
	return len(small), os.WriteFile(file, small, 0o644) // pictures for everybody
}

// look sets language, width and colours.
func (p picture) look(ctx context.Context, s *chromedp.Target, width int64) error {
	lang := p.lang
	if lang == "" {
		lang = "en-GB,en"
	}
	if _, err := cdp.Call(ctx, s, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: "Mozilla/5.0 Chrome", AcceptLanguage: lang}); err != nil {
		return err
	}
	if p.dark {
		dark := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}}
		if _, err := cdp.Call(ctx, s, emulation.SetEmulatedMedia, dark); err != nil {
			return err
		}
	}
	_, err := cdp.Call(ctx, s, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 900, DeviceScaleFactor: 1, Mobile: width == phone})
	return err
}

// open signs in as the person and returns the page's path with the emergencies that there are.
func (p picture) open(ctx context.Context, pages string) (string, error) {
	if p.person == "" {
		return p.path, nil
	}
	if err := chromedp.Do(ctx, chromedp.Navigate(pages+"/sign-in?next=/incidents")); err != nil {
		return "", err
	}
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(fmt.Sprintf(`//button[b/bdi[text()=%q]]`, p.person))); err != nil {
		return "", fmt.Errorf("sign in as %s: %w", p.person, err)
	}
	path := p.path
	for _, x := range []struct{ word, section string }{{"{open}", "open"}, {"{over}", "over"}} {
		if !strings.Contains(path, x.word) {
			continue
		}
		id, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf("(document.querySelector('section[aria-labelledby=%s] h3 a') || {textContent: ''}).textContent", x.section)))
		if err != nil || id == "" {
			return "", fmt.Errorf("there is no such emergency (%s): %w", x.section, err)
		}
		path = strings.ReplaceAll(path, x.word, id)
	}
	return path, nil
}

// smaller cuts a picture to what is shown, and draws it with the colours it has most of: pages have few.
func smaller(raw []byte, whole bool) ([]byte, error) {
	full, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("the browser's picture: %w", err)
	}
	size := full.Bounds()
	if !whole {
		size.Max.Y = min(size.Max.Y, size.Min.Y+shown)
	}
	small := image.NewPaletted(size, palette(full, size))
	draw.Draw(small, size, full, size.Min, draw.Src)
	var b bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, small)
	return b.Bytes(), err
}

// palette are the colours that a picture has most of, at most 64 of them; neighbours count as one.
func palette(full image.Image, size image.Rectangle) color.Palette {
	count := map[color.RGBA]int{}
	for y := size.Min.Y; y < size.Max.Y; y++ {
		for x := size.Min.X; x < size.Max.X; x++ {
			c := color.RGBAModel.Convert(full.At(x, y)).(color.RGBA)
			count[c]++
		}
	}
	colours := make([]color.RGBA, 0, len(count))
	for c := range count {
		colours = append(colours, c)
	}
	slices.SortFunc(colours, func(a, b color.RGBA) int {
		if count[a] != count[b] {
			return count[b] - count[a]
		}
		return slices.Compare([]uint8{a.R, a.G, a.B}, []uint8{b.R, b.G, b.B})
	})
	var list color.Palette
	for _, near := range []int{36, 12, 0} { // first what differs to the eye, then what is left
		for _, c := range colours {
			if len(list) == 64 {
				return list
			}
			if !slices.ContainsFunc(list, func(o color.Color) bool { return distance(o.(color.RGBA), c) <= near }) {
				list = append(list, c)
			}
		}
	}
	return list
}

func distance(a, b color.RGBA) int {
	d := func(x, y uint8) int { return max(int(x), int(y)) - min(int(x), int(y)) }
	return d(a.R, b.R) + d(a.G, b.G) + d(a.B, b.B)
}
