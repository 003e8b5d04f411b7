// SPDX-License-Identifier: Apache-2.0

package tracker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/services/review/tracker"
	"cacert.org/emergency/services/review/tracker/trackertest"
)

const note = "epatch-e20261124.1-0123456789abcdef"

func open(t *testing.T, m *trackertest.Mantis, change func(*tracker.Config)) *tracker.Tracker {
	t.Helper()
	cfg := tracker.Config{URL: m.URL, Token: trackertest.Token, Project: trackertest.Project, Timeout: 30 * time.Second}
	if change != nil {
		change(&cfg)
	}
	tr, err := tracker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestDeliverOnce(t *testing.T) {
	t.Parallel()
	m := trackertest.Start(t)
	tr := open(t, m, nil)
	for range 3 {
		if err := tr.Deliver(t.Context(), 1500, note, "a test passed\n"); err != nil {
			t.Fatal(err)
		}
	}
	want := "a test passed\n\nNote: " + note
	if got := m.Notes(1500); len(got) != 1 || got[0].Text != want || got[0].Private {
		t.Errorf("notes %+v, want one public %q", got, want)
	}
	if err := tr.Deliver(t.Context(), 1500, note[:len(note)-1]+"0", "another"); err != nil || len(m.Notes(1500)) != 2 {
		t.Errorf("another note: %v, %d notes", err, len(m.Notes(1500)))
	}
}

func TestQuotedNoteIsNoNote(t *testing.T) {
	t.Parallel()
	m := trackertest.Start(t)
	tr := open(t, m, func(c *tracker.Config) { c.Private = true })
	if err := tr.Deliver(t.Context(), 7, "other", "what about\n> Note: "+note); err != nil {
		t.Fatal(err)
	}
	if err := tr.Deliver(t.Context(), 7, note, "mine"); err != nil {
		t.Fatal(err)
	}
	if got := m.Notes(7); len(got) != 2 || !got[1].Private {
		t.Errorf("notes %+v, want a private one behind the quotation", got)
	}
}

func TestLostAnswerIsFoundAgain(t *testing.T) {
	t.Parallel()
	m := trackertest.Start(t)
	tr := open(t, m, nil)
	m.Set(trackertest.LoseAnswer)
	if err := tr.Deliver(t.Context(), 1500, note, "text"); err == nil || errors.Is(err, tracker.ErrRefused) {
		t.Fatalf("lost answer: %v", err)
	}
	m.Set(trackertest.Up)
	if err := tr.Deliver(t.Context(), 1500, note, "text"); err != nil || len(m.Notes(1500)) != 1 {
		t.Errorf("%v, %d notes, want the one that was written", err, len(m.Notes(1500)))
	}
}

func TestPassingTrouble(t *testing.T) {
	t.Parallel()
	m := trackertest.Start(t)
	tr := open(t, m, nil)
	for _, mode := range []trackertest.Mode{trackertest.Broken, trackertest.Offline, trackertest.Gone} {
		m.Set(mode)
		err := tr.Deliver(t.Context(), 1500, note, "text")
		if err == nil || errors.Is(err, tracker.ErrRefused) || strings.Contains(err.Error(), trackertest.Token) {
			t.Errorf("mode %d: %v", mode, err)
		}
	}
	m.Set(trackertest.Slow)
	impatient := open(t, m, func(c *tracker.Config) { c.Timeout = 50 * time.Millisecond })
	if err := impatient.Deliver(t.Context(), 1500, note, "text"); err == nil || errors.Is(err, tracker.ErrRefused) {
		t.Errorf("slow: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tr.Deliver(ctx, 1500, note, "text"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	m.Set(trackertest.Up)
	wrong := open(t, m, func(c *tracker.Config) { c.Token = "not-the-token" })
	if err := wrong.Deliver(t.Context(), 1500, note, "text"); err == nil || errors.Is(err, tracker.ErrRefused) || !strings.Contains(err.Error(), "403") {
		t.Errorf("wrong token: %v", err)
	}
	if n := len(m.Notes(1500)); n != 0 {
		t.Errorf("%d notes were written on the way", n)
	}
}

func TestNeverThere(t *testing.T) {
	t.Parallel()
	m := trackertest.Start(t)
	if err := open(t, m, nil).Deliver(t.Context(), 4711, note, "text"); !errors.Is(err, tracker.ErrRefused) {
		t.Errorf("a bug that does not exist: %v", err)
	}
	other := open(t, m, func(c *tracker.Config) { c.Project = "Something else" })
	if err := other.Deliver(t.Context(), 1500, note, "text"); !errors.Is(err, tracker.ErrRefused) || len(m.Notes(1500)) != 0 {
		t.Errorf("a bug of another project: %v, notes %v", err, m.Notes(1500))
	}
	// The same status from something that is no MantisBT can be mended.
	wrong := open(t, m, func(c *tracker.Config) { c.URL += "/nowhere" })
	if err := wrong.Deliver(t.Context(), 1500, note, "text"); err == nil || errors.Is(err, tracker.ErrRefused) {
		t.Errorf("a wrong address: %v", err)
	}
}

func TestTokenGoesNowhereElse(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer elsewhere.Close()
	srv := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	tr, err := tracker.New(tracker.Config{URL: srv.URL, Token: trackertest.Token})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Deliver(t.Context(), 1, note, "text"); err == nil {
		t.Error("a redirect counted as an answer")
	}
}

func TestStrangeAnswers(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "null", "[]", `{"issues":[]}`, `{"issues":[{"id":2}]}`, `{"issues":[{"id":1},{"id":1}]}`, "<html>", `{"issues":[{"id":1,"notes":7}]}`} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet {
				t.Errorf("after the answer %q something was written", body)
			}
			_, _ = w.Write([]byte(body))
		}))
		tr, err := tracker.New(tracker.Config{URL: srv.URL, Token: "t"})
		if err != nil {
			t.Fatal(err)
		}
		if err := tr.Deliver(t.Context(), 1, note, "text"); err == nil || errors.Is(err, tracker.ErrRefused) {
			t.Errorf("answer %q: %v", body, err)
		}
		srv.Close()
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	good := tracker.Config{URL: "https://bugs.example.org/mantis", Token: "t0ken"}
	if err := good.Check(); err != nil || !good.Set() || (tracker.Config{}).Set() {
		t.Errorf("a good one: %v", err)
	}
	for setting, change := range map[string]func(*tracker.Config){
		"tracker.url: not":     func(c *tracker.Config) { c.URL = "bugs.example.org" },
		"tracker.url: http is": func(c *tracker.Config) { c.URL = "http://bugs.example.org" },
		"tracker.url: without": func(c *tracker.Config) { c.URL = "https://me:secret@bugs.example.org" },
		"tracker.token":        func(c *tracker.Config) { c.Token = "two\nlines" },
		"tracker.timeout":      func(c *tracker.Config) { c.Timeout = -1 },
	} {
		c := good
		change(&c)
		if _, err := tracker.New(c); err == nil || !strings.Contains(err.Error(), setting) || strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: %v", setting, err)
		}
	}
}

func TestTokenIsNotShown(t *testing.T) {
	t.Parallel()
	cfg := tracker.Config{URL: "https://bugs.example.org", Token: "s3cr3t-value"}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "cfg", cfg)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "cfg", cfg)
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(cfg), fmt.Sprintf("%+v", cfg), fmt.Sprintf("%#v", cfg), string(text), log.String()} {
		if strings.Contains(s, "s3cr3t") {
			t.Errorf("the token shows in %s", s)
		}
	}
}

func TestIssue(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]int{
		"1500": 1500, "0001500": 1500, "bug-1500": 1500, "cacert/12": 12, "Bug:7": 7,
		"": 0, "0": 0, "-5": 0, "bug": 0, "1500x": 0, "a-b-1": 0, "99999999999": 0, "1 5": 0, "bug--1": 0, "../7": 0, "1500\n": 0,
	} {
		if got, ok := tracker.Issue(id); got != want || ok != (want != 0) {
			t.Errorf("%q: %d, %v, want %d", id, got, ok, want)
		}
	}
}
