// SPDX-License-Identifier: Apache-2.0

package dashboard_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
	"time"

	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/services/dashboard"
)

// follower is a browser that hears what changes on a page of the public log.
type follower struct {
	t    *testing.T
	resp *http.Response
	in   *bufio.Scanner
}

func (w *web) follow(path string) *follower {
	w.t.Helper()
	req := must(http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.srv.URL+path+"?live", nil))(w.t)
	resp := must(w.srv.Client().Do(req))(w.t)
	w.t.Cleanup(func() { _ = resp.Body.Close() })
	f := &follower{w.t, resp, bufio.NewScanner(resp.Body)}
	f.in.Buffer(nil, 1<<20)
	return f
}

// hears is the next message; empty at the end.
func (f *follower) hears() string {
	f.t.Helper()
	var b strings.Builder
	for f.in.Scan() {
		line := f.in.Text()
		if line == "" && b.Len() > 0 {
			return b.String()
		}
		if rest, ok := strings.CutPrefix(line, "data: "); ok {
			b.WriteString(rest + "\n")
		}
	}
	return b.String()
}

// What happens shows in open pages of the public log: the overview, an incident's page and an entry's.
func TestLogIsLive(t *testing.T) {
	t.Parallel()
	r := filled(t, quiet)
	w := r.web()
	page := w.page("/log")
	has(t, page, `hx-sse:connect="/log?live"`, `<script src="/static/`)
	overview, other, incident, entry := w.follow("/log"), w.follow("/log"), w.follow("/log/e20261124.2"), w.follow("/log/entry/1")
	if got := overview.resp.Header.Get("Content-Type") + overview.resp.Header.Get("Cache-Control"); got != "text/event-stream; charset=utf-8no-store" {
		t.Errorf("headers: %v", overview.resp.Header)
	}
	first := overview.hears()
	if !strings.Contains(page, strings.TrimSpace(first)) {
		t.Errorf("it does not begin with what the page says:\n%s", first)
	}
	other.hears()
	has(t, incident.hears(), "Emergency declared")
	has(t, entry.hears(), "emergency-log/real")
	r.told("e20261124.3", pt.Story(pt.Declared))
	for _, f := range []*follower{overview, other} {
		if got := f.hears(); !strings.Contains(got, "e20261124.3") || !strings.Contains(got, "<b>3</b> emergencies open") {
			t.Errorf("the overview does not show it:\n%s", got)
		}
	}
	has(t, entry.hears(), "Reflects entry")
	if resp, body := w.ask("GET", "/log/e20261124.9?live"); strings.Contains(body, "data:") || resp.StatusCode != http.StatusOK {
		t.Errorf("a page that is not there: %s %q", resp.Status, body)
	}
}

// Readers whom nobody knows cannot use the process up: beyond some hundreds a page is as it is without JavaScript, until somebody goes.
func TestLogReadersAreBounded(t *testing.T) {
	t.Parallel()
	r := filled(t, quiet)
	w := r.web()
	var all []*follower
	for range dashboard.LiveReaders {
		f := w.follow("/log")
		f.hears()
		all = append(all, f)
	}
	if resp, body := w.ask("GET", "/log?live"); resp.StatusCode != http.StatusNoContent || body != "" {
		t.Errorf("one more: %s %q", resp.Status, body)
	}
	if body := w.page("/log"); strings.Contains(body, "hx-sse") || strings.Contains(body, "<script") || !strings.Contains(body, "e20261124.1") {
		t.Error("the page that finds no room is not plain")
	}
	check(t, all[0].resp.Body.Close())
	for deadline := time.Now().Add(time.Minute); !strings.Contains(w.page("/log"), "hx-sse"); {
		if time.Now().After(deadline) {
			t.Fatal("who went is still counted")
		}
	}
	r.server.HangUp()
	for _, f := range all[1:] {
		for f.hears() != "" {
		}
	}
}
