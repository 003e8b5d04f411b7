// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/publog"
	logsite "cacert.org/emergency/pkg/publog/site"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The exported log, on a plain file server, in a real browser: read without JavaScript from the first page to an entry and back, and
// well made at both widths, whatever strangers wrote in it.
func TestExportedLogInBrowser(t *testing.T) {
	browser := startBrowser(t)
	dir := filepath.Join(t.TempDir(), "log")
	if _, err := exportedLog(t).Write(dir); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.StripPrefix("/deep/down/", http.FileServer(http.Dir(dir))))
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")

	still := open(t, browser, nil, look{width: 1280, still: true})
	still.host = host
	still.goTo("/deep/down/index.html")
	still.follow(`//h2/a[contains(., "www")]`)
	still.follow(`//nav[@aria-label="Logs"]/a[text()="All entries"]`)
	still.follow(`//main//a[text()="Deployment verified"]`)
	still.follow(`//a[@rel="prev"]`)
	still.follow(`//nav[@aria-label="Logs"]/a[text()="Archive"]`)
	still.follow(`//main//a[contains(., "emergency patch 1")]`)
	still.do(chromedp.WaitVisible(`//dd[text()="1@lists.example.org"]|//li[contains(., "1@lists.example.org")]`))

	x := open(t, browser, nil, look{width: 1280, within: wholeEmergency})
	x.host = host
	for _, page := range []string{"index.html", "2026.html", "2016.html", "e20261124.1.html", "e20261124.2.html", "entry/1.html", "all.html", "drills/index.html", "archive/index.html", "archive/entry/1.html"} {
		x.goTo("/deep/down/" + page)
		x.looked(page, false)
		x.byKeyboard(page)
		if strings.Contains(eval[string](x, "document.title"), "owned") {
			t.Errorf("%s: a stranger's text was executed", page)
		}
	}
}

// exportedLog is an emergency, one with hostile notes, a drill, and messages of the archive.
func exportedLog(t *testing.T) *logsite.Site {
	t.Helper()
	whole := pt.Given(t, pt.Story(pt.Documented), func(w *pt.World) { w.Sync() }).World()
	second := pt.NewIncident(t, "e20261124.2")
	pt.Story(pt.Declared)(second)
	second.Do("carla", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: `<script>document.title='owned'</script><img src=x onerror="document.title='owned'"> ` + strings.Repeat("long", 400)})
	drill := pt.NewIncident(t, "x20261124.1")
	pt.Drill()(drill)
	archive := pt.NewArchive(t)
	odd := pt.Archived(2)
	odd.Title = "<script>document.title='owned'</script>" + strings.Repeat("W", 200)
	archive.Do("clara", pt.ImportArchive(pt.Archived(1), odd))
	logs := map[publog.Origin]*publog.Log{}
	for _, o := range publog.Origins() {
		logs[o] = publog.New(o)
	}
	for _, w := range []*pt.World{whole, second, drill, archive} {
		s := procedure.NewState(w.State.Incident)
		for i, rec := range w.Records {
			if _, err := logs[publog.OriginOf(rec.GetIncident())].Add(s, rec, pt.HashOf(w.Bytes[i])); err != nil {
				t.Fatal(err)
			}
			check(t, s.Apply(rec, pt.HashOf(w.Bytes[i])))
		}
	}
	cfg := logsite.Config{Entries: map[publog.Origin][]publog.Entry{}}
	for o, l := range logs {
		cfg.Entries[o] = slices.Clone(l.Entries())
	}
	return logsite.New(cfg)
}
