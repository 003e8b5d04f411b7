// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"cacert.org/emergency/services/internal/testenv"
)

// playedBy counts the playbacks that the history names for a person.
func playedBy(c *console, person string) int {
	n := 0
	for _, e := range c.Timeline(c.story.ID) {
		if strings.HasSuffix(e.GetType(), ".RecordingPlayed") && strings.HasPrefix(e.GetText(), person+" ") {
			n++
		}
	}
	return n
}

// playsIt opens the page of the session and asks for its recording.
func playsIt(x *tab, path string) {
	x.goTo(path)
	x.follow("section form button:not(.plain)")
}

// TestPlayback plays the recording of a real session: in the page's terminal, as text without JavaScript, and for those who may.
func TestPlayback(t *testing.T) {
	t.Parallel()
	browser := startBrowser(t)
	c := newConsole(t)
	c.played()

	// Without JavaScript the transcript says what was shown, and the word that is looked for is found.
	still := open(t, browser, c.Env, look{person: "anna", width: 390, still: true})
	playsIt(still, c.path(""))
	said := eval[string](still, "document.body.innerText")
	has(t, "transcript", said, "answer-42", "answer-43", "note by carla: she looks at the answer", "pwned-title", "it is written down that you play it", "complete")
	if wide := eval[string](still, tooWide); wide != "" {
		t.Errorf("the transcript is wider than the page: %s", wide)
	}
	if n := playedBy(c, "anna"); n != 1 {
		t.Errorf("one playback is %d events", n)
	}
	still.do(chromedp.SetValue(".filters input[type=search]", "answer-43"))
	still.follow(".filters button")
	said = eval[string](still, "document.querySelector('.transcript').innerText")
	has(t, "search", said, "answer-43")
	hasNot(t, "search", said, "answer-42")
	if n := playedBy(c, "anna"); n != 1 {
		t.Errorf("a search in it is another playback: %d events", n)
	}

	all := open(t, browser, c.Env, look{person: "carla", width: 1280, within: 4 * testenv.Patience})
	all.everyRoute(ofConsole, names{"id": c.story.ID, "grant": "G1"})
	for _, width := range []int64{1280, 390} {
		x := open(t, browser, c.Env, look{person: "carl", width: width})
		playsIt(x, c.path(""))
		x.until("document.getElementById('player').dataset.ready === 'true'")
		inPlayer(t, x)
		x.shoot(fmt.Sprintf("playback-%d", width))
		x.wellMade("playback, played")
	}
	if n := playedBy(c, "carl"); n != 2 {
		t.Errorf("two playbacks are %d events", n)
	}

	// From an event of the history to the same moment of the recording.
	x := open(t, browser, c.Env, look{person: "carl", width: 1280, lang: "de"})
	x.goTo("/incidents/" + c.story.ID + "/events/" + c.markPosition())
	x.follow(`a[href*="/sessions/G1?at="]`)
	x.follow("section form button:not(.plain)")
	x.until("document.getElementById('player').dataset.ready === 'true'")
	if at, end := eval[float64](x, "Number(document.getElementById('player').dataset.at)"), eval[float64](x, "Number(document.querySelector('[data-do=seek]').max)"); at <= 0 || at >= end {
		t.Errorf("it begins at %v of %v", at, end)
	}
	x.fits("playback in German")

	c.notFor()
	c.damaged(t)
}

// inPlayer seeks, searches and jumps in the player, and sees what the terminal shows; nothing of the output has acted on the page.
func inPlayer(t *testing.T, x *tab) {
	t.Helper()
	const screen = "document.querySelector('.xterm-rows').innerText"
	x.do(chromedp.SetValue("[data-do=find] input", "answer-42"))
	eval[bool](x, "document.querySelector('[data-do=find]').requestSubmit(), true")
	x.until(screen + ".includes('answer-42')")
	if eval[bool](x, screen+".includes('answer-43')") {
		t.Error("the end is shown at the beginning")
	}
	// the seek bar by keyboard: End is the end
	eval[bool](x, "document.querySelector('[data-do=seek]').focus(), true")
	x.do(chromedp.KeyEvent(kb.End))
	x.until(screen + ".includes('answer-43')")
	x.until("document.querySelector('[data-show=time]').value.split(' / ').every((v, i, a) => v === a[0])")
	// an event of the history leads to its moment
	eval[bool](x, "[...document.querySelectorAll('.moments li')].find(li => li.innerText.includes(': note')).querySelector('button').click(), true")
	x.until("!(" + screen + ".includes('answer-43'))")
	eval[bool](x, "document.querySelector('[data-do=speed]').value = '16', document.querySelector('[data-do=play]').click(), true")
	x.until(screen + ".includes('answer-43')")
	if title := eval[string](x, "document.title"); strings.Contains(title, "pwned") {
		t.Errorf("the output has set the title: %q", title)
	}
	if eval[bool](x, "window.pwned !== undefined || document.querySelectorAll('.xterm a, .xterm img, .xterm script').length > 0") {
		t.Error("the output has acted on the page")
	}
}

// notFor: a tester may not play it, by any of its addresses, and nothing is recorded as played.
func (c *console) notFor() {
	c.t.Helper()
	s := plain(c.t, c.Env).as("theo")
	has(c.t, "for a tester", text(s.page(c.path(""))), "PlayRecording is for critical admin")
	for _, path := range []string{c.path(""), c.path("/frames")} {
		a := s.do("POST", path, url.Values{"request": {"page-0123456789"}})
		if strings.Contains(a.body, "answer-42") {
			c.t.Errorf("%s shows it to a tester: %s", path, a.Status)
		}
	}
	if n := playedBy(c, "theo"); n != 0 {
		c.t.Errorf("%d playbacks for a tester", n)
	}
	if a := s.do("POST", c.path("/frames"), url.Values{"request": {"page-0123456789"}}, "Origin", "https://evil.example"); a.StatusCode != http.StatusForbidden {
		c.t.Errorf("from another site: %s", a.Status)
	}
	if a := plain(c.t, c.Env).do("POST", c.path("/frames"), url.Values{"request": {"page-0123456789"}}); a.StatusCode != http.StatusForbidden {
		c.t.Errorf("without signing in: %s", a.Status)
	}
}

// damaged: the page names the first bad frame, and shows what stands before it.
func (c *console) damaged(t *testing.T) {
	t.Helper()
	file := c.recordingFile()
	data, err := os.ReadFile(file)
	check(t, err)
	s := plain(t, c.Env).as("carl")
	play := func() string { return text(s.do("POST", c.path(""), url.Values{"request": {}}).body) }
	first := regexp.MustCompile(`First bad frame: ([0-9]+)\.`)

	flipped := append([]byte(nil), data...)
	flipped[len(flipped)*2/3] ^= 1
	check(t, os.WriteFile(file, flipped, 0o600))
	body := play()
	has(t, "one byte changed", body, "Recording broken", "answer-42")
	if m := first.FindStringSubmatch(body); m == nil || m[1] == "0" {
		t.Errorf("no bad frame is named: %s", body)
	}
	check(t, os.WriteFile(file, data[:len(data)*2/3], 0o600))
	if body = play(); !first.MatchString(body) || strings.Contains(body, "Recording complete") {
		t.Errorf("cut, it is said to be whole: %s", body)
	}
	check(t, os.WriteFile(file, data, 0o600))
	c.sealed()
	has(t, "sealed", play(), "Recording complete", "these bytes are the ones that the history has sealed at position")
}

// markPosition is the position of the watcher's note.
func (c *console) markPosition() string {
	c.t.Helper()
	for _, e := range c.Timeline(c.story.ID) {
		if strings.HasSuffix(e.GetType(), ".SessionMarked") && e.GetActor().GetPerson() == "carla" {
			return strconv.FormatUint(e.GetPosition(), 10)
		}
	}
	c.t.Fatal("there is no note")
	return ""
}
