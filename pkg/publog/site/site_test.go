// SPDX-License-Identifier: Apache-2.0

package site_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/publog"
	"cacert.org/emergency/pkg/publog/site"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

var update = flag.Bool("update", false, "write the golden wiki page")

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}

// logs are the logs of worlds, one after the other.
func logs(t *testing.T, worlds ...*pt.World) map[publog.Origin][]publog.Entry {
	t.Helper()
	all := map[publog.Origin]*publog.Log{}
	for _, o := range publog.Origins() {
		all[o] = publog.New(o)
	}
	for _, w := range worlds {
		s := procedure.NewState(w.State.Incident)
		for i, rec := range w.Records {
			hash := pt.HashOf(w.Bytes[i])
			must(all[publog.OriginOf(rec.GetIncident())].Add(s, rec, hash))(t)
			check(t, s.Apply(rec, hash))
		}
	}
	out := map[publog.Origin][]publog.Entry{}
	for o, l := range all {
		out[o] = slices.Clone(l.Entries())
	}
	return out
}

const hostile = "</pre><script>alert(1)</script> <<Include(FrontPage)>> {{http://example.org/x.png}} || cell || {{{ pre }}} [[http://example.org|here]] WikiWord ---- ''bold'' `tt` &lt; ^up^ user@example.org http://example.org/ \u202ehctap"

// worlds are an emergency with everything, one with hostile notes, a drill, and messages of the archive.
func worlds(t *testing.T) []*pt.World {
	t.Helper()
	whole := pt.Given(t, pt.Story(pt.Documented), func(w *pt.World) { w.Sync() }).World()
	second := pt.NewIncident(t, "e20261124.2")
	pt.Story(pt.Declared)(second)
	second.Do("carla", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: strings.ReplaceAll(hostile, "\u202e", "")})
	drill := pt.NewIncident(t, "x20261124.1")
	pt.Drill()(drill)
	archive := pt.NewArchive(t)
	odd := pt.Archived(3)
	odd.Title = "<<Include(FrontPage)>> || EmergencyPatch {{{x}}} [[WikiWord]] ---- <script>"
	archive.Do("clara", pt.ImportArchive(pt.Archived(1), pt.Archived(2), odd))
	return []*pt.World{whole, second, drill, archive}
}

func exported(t *testing.T, base string, worlds ...*pt.World) *site.Site {
	t.Helper()
	return site.New(site.Config{Entries: logs(t, worlds...), Base: base, Development: true})
}

// Every link of every page leads to a file of the site, and to a place in it that is there; nothing leads outside, nothing is a script,
// nothing depends on when the page was made.
func TestFilesHangTogether(t *testing.T) {
	t.Parallel()
	files := must(exported(t, "", worlds(t)...).Files())(t)
	attribute := regexp.MustCompile(`(?:href|src|action)="([^"]*)"`)
	ids := regexp.MustCompile(`id="([^"]*)"`)
	for name, body := range files {
		if path.Ext(name) != ".html" {
			continue
		}
		for _, m := range attribute.FindAllStringSubmatch(string(body), -1) {
			target, fragment, _ := strings.Cut(m[1], "#")
			file := path.Join(path.Dir(name), target)
			if target == "" {
				file = name
			}
			there, ok := files[file]
			if !ok {
				t.Errorf("%s leads to %s, which is not there", name, m[1])
				continue
			}
			if fragment != "" && !slices.ContainsFunc(ids.FindAllStringSubmatch(string(there), -1), func(x []string) bool { return x[1] == fragment }) {
				t.Errorf("%s leads to %s, and there is no such place", name, m[1])
			}
		}
		for _, bad := range []string{"<script", "<form", " ago", "Page made", "javascript:", "onclick", "style=\"", "http://", "https://"} {
			text := strings.ReplaceAll(string(body), "http://example.org", "") // the hostile text names one, which no attribute does
			if strings.Contains(text, bad) {
				t.Errorf("%s holds %q", name, bad)
			}
		}
		if !bytes.Contains(body, []byte(`http-equiv="Content-Security-Policy" content="default-src 'none'`)) || !bytes.Contains(body, []byte("Head of the chain")) {
			t.Errorf("%s lacks its policy or its head", name)
		}
	}
	for _, name := range []string{"index.html", "2026.html", "2016.html", "e20261124.1.html", "e20261124.1.json", "2026.json", "entry/1.html", "entry/1.json", "all.html", "log.json", "log.atom", "drills/index.html", "drills/x20261124.1.html", "drills/entry/1.html", "archive/index.html", "archive/entry/3.html", "archive/log.json", "archive/2016.json", "EmergencyLogs.txt", "SHA256SUMS", "assets/style.css"} {
		if files[name] == nil {
			t.Errorf("there is no %s in %v", name, slices.Sorted(maps.Keys(files)))
		}
	}
	if !bytes.Contains(files["2016.html"], []byte("from the archive")) || !bytes.Contains(files["archive/entry/3.html"], []byte("3@lists.example.org")) {
		t.Error("the archive is not marked, or has no Message-ID")
	}
	if !bytes.Contains(files["entry/2.html"], []byte("epatch-log-v1\norigin real\nseq 2\n")) {
		t.Error("an entry's page does not show what is hashed")
	}
}

// What the entries alone say of an incident is what the pages of an export say.
func TestStandingFromEntries(t *testing.T) {
	t.Parallel()
	joined := pt.Given(t, pt.Story(pt.Joined), func(w *pt.World) { w.Sync() }).World()
	down := pt.NewIncident(t, "e20261125.1")
	pt.Story(pt.Declared)(down)
	down.Do("carla", pt.StandDown())
	s := exported(t, "", joined, down)
	page := string(must(s.Incident(joined.State.Incident))(t))
	for _, want := range []string{"<dt>Strategy</dt><dd>3</dd>", `class="state owed">owed`, "DOCUMENT/S3", ">open<"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in\n%s", want, page)
		}
	}
	if page := string(must(s.Incident("e20261125.1"))(t)); !strings.Contains(page, "stood down") {
		t.Errorf("not stood down:\n%s", page)
	}
	if must(s.Incident("e20261125.2"))(t) != nil || must(s.Entry(publog.Real, 0))(t) != nil || must(s.Year(publog.Real, "1999"))(t) != nil || must(s.AtomPage(publog.Real, 1))(t) != nil {
		t.Error("a page of nothing")
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	s := exported(t, "", worlds(t)...)
	for query, want := range map[string]string{
		"emergency DECLARED": "3 entries hold", "e20261124.2 note": "1 entry holds", "3@lists.example.org": "1 entry holds", "declared drill": "1 entry holds",
		"nothing-of-the-kind": "No entry holds", "": "are searched for", strings.Repeat("qq ", 5000): "No entry holds", "<script>": "entries hold", "\xff\xfe": "are searched for",
	} {
		page := string(must(s.Search(query))(t))
		if !strings.Contains(page, want) || strings.Contains(page, "<script") {
			t.Errorf("%.40q: no %q in\n%s", query, want, page)
		}
	}
}

// feed is a document of the feed, as RFC 4287 and RFC 5005 have it.
type feed struct {
	XMLName xml.Name `xml:"http://www.w3.org/2005/Atom feed"`
	ID      string   `xml:"http://www.w3.org/2005/Atom id"`
	Title   string   `xml:"http://www.w3.org/2005/Atom title"`
	Updated string   `xml:"http://www.w3.org/2005/Atom updated"`
	Author  string   `xml:"http://www.w3.org/2005/Atom author>name"`
	Archive *string  `xml:"http://purl.org/syndication/history/1.0 archive"`
	Links   []struct {
		Rel  string `xml:"rel,attr"`
		Href string `xml:"href,attr"`
	} `xml:"http://www.w3.org/2005/Atom link"`
	Entries []struct {
		ID      string `xml:"http://www.w3.org/2005/Atom id"`
		Title   string `xml:"http://www.w3.org/2005/Atom title"`
		Updated string `xml:"http://www.w3.org/2005/Atom updated"`
		Link    struct {
			Href string `xml:"href,attr"`
		} `xml:"http://www.w3.org/2005/Atom link"`
	} `xml:"http://www.w3.org/2005/Atom entry"`
}

func (f feed) link(rel string) string {
	for _, l := range f.Links {
		if l.Rel == rel {
			return l.Href
		}
	}
	return ""
}

// Who follows the links of the feed back gets every entry once (RFC 5005, 4), and a full part never changes again.
func TestFeedPages(t *testing.T) {
	t.Parallel()
	archive := pt.NewArchive(t)
	for batch := range 3 {
		c := pt.ImportArchive()
		for i := range 85 {
			c.Messages = append(c.Messages, pt.Archived(batch*85+i))
		}
		archive.Do("clara", c)
	}
	files := must(exported(t, "", archive).Files())(t)
	read := func(name string) (f feed) {
		check(t, xml.Unmarshal(files[name], &f))
		if f.ID == "" || f.Title == "" || f.Author == "" || path.Join(path.Dir(name), f.link("self")) != name {
			t.Errorf("%s: %+v", name, f)
		}
		return f
	}
	seen := map[string]int{}
	name := "archive/log.atom"
	documents := 0
	for ; name != "archive"; documents++ {
		f := read(name)
		if (f.Archive != nil) != (documents > 0) {
			t.Errorf("%s is marked as an archived part: %t", name, f.Archive != nil)
		}
		for _, e := range f.Entries {
			seen[e.ID]++
			if files[path.Join(path.Dir(name), e.Link.Href)] == nil {
				t.Errorf("%s: entry %s leads to %s", name, e.ID, e.Link.Href)
			}
		}
		if current := f.link("current"); documents > 0 && path.Join(path.Dir(name), current) != "archive/log.atom" {
			t.Errorf("%s: current is %s", name, current)
		}
		prev := f.link("prev-archive")
		if prev == "" {
			break
		}
		name = path.Join(path.Dir(name), prev)
	}
	if len(seen) != 255 || documents != 2 {
		t.Errorf("%d entries in %d parts", len(seen), documents+1)
	}
	before := files["archive/atom/2.atom"]
	archive.Do("clara", pt.ImportArchive(pt.Archived(999)))
	if after := must(exported(t, "", archive).Files())(t); !bytes.Equal(before, after["archive/atom/2.atom"]) {
		t.Error("a full part of the feed changed")
	}
	files = must(exported(t, "https://log.example.org/of/emergencies/", archive).Files())(t)
	var f feed
	check(t, xml.Unmarshal(files["archive/log.atom"], &f))
	if f.link("self") != "https://log.example.org/of/emergencies/archive/log.atom" || f.Entries[0].Link.Href != "https://log.example.org/of/emergencies/archive/entry/256.html" {
		t.Errorf("links %+v, %s", f.Links, f.Entries[0].Link.Href)
	}
}

// The wiki page is exactly this, and nothing that strangers wrote in it is markup.
func TestWikiPage(t *testing.T) {
	t.Parallel()
	got := exported(t, "https://log.example.org", worlds(t)...).Wiki()
	const golden = "testdata/EmergencyLogs.txt"
	if *update {
		check(t, os.WriteFile(golden, got, 0o600))
	}
	if want := must(os.ReadFile(golden))(t); !bytes.Equal(got, want) {
		t.Errorf("not %s:\n%s", golden, got)
	}
	var rows int
	for line := range strings.Lines(string(got)) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(line, "||") {
			continue
		}
		if rows++; strings.Count(line, "||") != 8 && strings.Count(line, "||") != 6 {
			t.Errorf("a row of other cells: %s", line)
		}
		bare := regexp.MustCompile(`\[\[https://log\.example\.org/[A-Za-z0-9./-]*\|[A-Za-z0-9.]*\]\]|'''[A-Za-z0-9 -]*'''`).ReplaceAllString(line, "")
		if regexp.MustCompile("<<|\\{\\{|\\[\\[|----|''|`|\\^|,,|__|@|://").MatchString(bare) {
			t.Errorf("markup in %s", line)
		}
	}
	if rows != 9 {
		t.Errorf("%d rows", rows)
	}
	if plain := string(exported(t, "", worlds(t)...).Wiki()); strings.Contains(plain, "[[") {
		t.Error("links without an address to lead to")
	}
}

func TestMoin(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Emergency declared": "Emergency declared", "2026-11-24 20:00 UTC": "2026-11-24 20&#x3A;00 UTC", "WikiWord": "Wiki&#x57;ord", "UTC": "UTC",
		"<<Include(x)>>": "&#x3C;&#x3C;Include&#x28;x&#x29;&#x3E;&#x3E;", "----": "&#x2D;&#x2D;&#x2D;&#x2D;", "a--b": "a-&#x2D;b", " * item": "&#x2A; item",
		"||": "&#x7C;&#x7C;", "a\n== b ==": "a &#x3D;&#x3D; b &#x3D;&#x3D;", "ÄpfelBaum": "&#xC4;pfel&#x42;aum", "&amp;": "&#x26;amp&#x3B;", "\u202eabc\x00": "abc", "a ... b": "a &#x2E;&#x2E;&#x2E; b",
	} {
		if got := site.Moin(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// FuzzMoin: nothing of what MoinMoin's parser looks for is left, and what is shown is the text.
func FuzzMoin(f *testing.F) {
	f.Add(hostile)
	f.Add("CamelCase/SubPage Interwiki:Page attachment:x")
	markup := regexp.MustCompile(`[^a-zA-Z0-9 .&#;-]|--| \.|\.\.|[a-z0-9][A-Z]`)
	entity := regexp.MustCompile(`&#x[0-9A-F]+;`)
	f.Fuzz(func(t *testing.T, in string) {
		out := site.Moin(in)
		bare := entity.ReplaceAllString(out, "\x01")
		if m := markup.FindString(strings.ReplaceAll(bare, "\x01", "")); strings.ContainsAny(bare, "&#;") || strings.ContainsFunc(bare, func(r rune) bool { return r > 0x7e }) {
			t.Errorf("%q became %q: %q", in, out, m)
		}
		if m := markup.FindString(strings.ReplaceAll(bare, "\x01", "-x-")); m != "" && m != "--" {
			t.Errorf("%q became %q, with %q in it", in, out, m)
		}
	})
}

func TestValidBase(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"https://log.example.org", "http://localhost:8080/log", "https://log.example.org/a/b/"} {
		check(t, site.ValidBase(good))
	}
	for _, bad := range []string{"", "log.example.org", "ftp://x", "https://", "https://x/?a", "https://x/#a", "https://u:p@x/", "https://x/|y", "https://x/]]<<", "https://x/ y", "javascript:alert(1)", "https://x/\u202ey"} {
		if site.ValidBase(bad) == nil {
			t.Errorf("%q is taken for an address", bad)
		}
	}
}

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	check(t, filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(dir, file)
			raw, err := os.ReadFile(file)
			out[name] = string(raw)
			return err
		}
		return err
	}))
	return out
}

func TestWrite(t *testing.T) {
	t.Parallel()
	all := worlds(t)
	parent := t.TempDir()
	dir := filepath.Join(parent, "sub", "log")
	write := func(s *site.Site) site.Written {
		t.Helper()
		w := must(s.Write(dir))(t)
		if names := must(os.ReadDir(filepath.Dir(dir)))(t); len(names) != 1 || w.Left != "" {
			t.Errorf("beside the site lies %v, %+v", names, w)
		}
		return w
	}
	if w := write(exported(t, "", all[:2]...)); w.Unchanged || w.Files < 30 {
		t.Errorf("%+v", w)
	}
	first := tree(t, dir)
	if w := write(exported(t, "", all[:2]...)); !w.Unchanged {
		t.Errorf("the same log: %+v", w)
	}
	check(t, os.Remove(filepath.Join(dir, "index.html"))) // nothing of others is lost by writing it again
	write(exported(t, "", all[:2]...))
	if !maps.Equal(first, tree(t, dir)) {
		t.Error("the same log gives other bytes")
	}
	check(t, os.Chmod(dir, 0o711))
	if w := write(exported(t, "", all...)); w.Unchanged {
		t.Errorf("a longer log: %+v", w)
	}
	if info := must(os.Stat(dir))(t); info.Mode().Perm() != 0o711 {
		t.Errorf("the folder's mode became %o", info.Mode().Perm())
	}
	if _, ok := tree(t, dir)["archive/entry/3.html"]; !ok {
		t.Error("the new site is not there")
	}
	linked := filepath.Join(parent, "linked")
	check(t, os.Symlink(dir, linked))
	if w := must(exported(t, "", all[:1]...).Write(linked))(t); w.Unchanged {
		t.Errorf("through a link: %+v", w)
	}
	if _, ok := tree(t, dir)["archive/entry/3.html"]; ok {
		t.Error("the old site is still there")
	}
}

// What no export wrote is never lost, and what cannot be written leaves nothing.
func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	all := worlds(t)
	for name, spoil := range map[string]func(dir string) error{
		"a file of others":    func(dir string) error { return os.WriteFile(filepath.Join(dir, "robots.txt"), []byte("x"), 0o600) },
		"in a folder of ours": func(dir string) error { return os.WriteFile(filepath.Join(dir, "entry", "x"), nil, 0o600) },
		"a changed page":      func(dir string) error { return os.WriteFile(filepath.Join(dir, "index.html"), []byte("x"), 0o600) },
		"a link in its place": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "index.html")), os.Symlink("/etc/hostname", filepath.Join(dir, "index.html")))
		},
		"no sums":        func(dir string) error { return os.Remove(filepath.Join(dir, "SHA256SUMS")) },
		"sums of others": func(dir string) error { return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte("x\n"), 0o600) },
		"sums that climb": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(strings.Repeat("0", 64)+"  ../x\n"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "log")
			must(exported(t, "", all[0]).Write(dir))(t)
			check(t, spoil(dir))
			before := tree(t, dir)
			if w, err := exported(t, "", all...).Write(dir); !errors.Is(err, site.ErrNotOurs) {
				t.Errorf("%+v, %v", w, err)
			}
			if !maps.Equal(before, tree(t, dir)) {
				t.Error("something was changed")
			}
			if names := must(os.ReadDir(filepath.Dir(dir)))(t); len(names) != 1 {
				t.Errorf("left behind: %v", names)
			}
		})
	}
	forged := logs(t, all...)
	forged[publog.Real][3].Headline = "Nothing happened"
	elsewhere := logs(t, all...)
	elsewhere[publog.Drills] = elsewhere[publog.Real]
	for name, entries := range map[string]map[publog.Origin][]publog.Entry{"a log out of order": forged, "a log of another": elsewhere} {
		dir := filepath.Join(t.TempDir(), "log")
		var broken *publog.ChainError
		if _, err := site.New(site.Config{Entries: entries}).Write(dir); !errors.As(err, &broken) {
			t.Errorf("%s: %v", name, err)
		}
		if names := must(os.ReadDir(filepath.Dir(dir)))(t); len(names) != 0 {
			t.Errorf("%s left %v", name, names)
		}
	}
}

// An incident's name becomes a file's: one that climbs out of the folder is none.
func TestNamesOfFiles(t *testing.T) {
	t.Parallel()
	e := publog.Entry{Seq: 1, Incident: "../../e20261124.1", Kind: "incident.EmergencyDeclared", Prev: publog.Genesis(publog.Real)}
	e.Hash = pt.HashOf([]byte(e.Canonical(publog.Real)))
	if _, err := site.New(site.Config{Entries: map[publog.Origin][]publog.Entry{publog.Real: {e}}}).Files(); err == nil || !strings.Contains(err.Error(), "no incident") {
		t.Errorf("%v", err)
	}
}

// A site that says something else than its log is found, whoever made its sums right again.
func TestCheck(t *testing.T) {
	t.Parallel()
	all := worlds(t)
	resum := func(dir string) error {
		var b strings.Builder
		files := tree(t, dir)
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if name != "SHA256SUMS" {
				fmt.Fprintf(&b, "%s  %s\n", pt.HashOf([]byte(files[name])), filepath.ToSlash(name))
			}
		}
		return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(b.String()), 0o600)
	}
	edit := func(name, old, now string) func(string) error {
		return func(dir string) error {
			file := filepath.Join(dir, name)
			raw, err := os.ReadFile(file)
			if err == nil && !bytes.Contains(raw, []byte(old)) {
				err = fmt.Errorf("%s does not hold %q", name, old)
			}
			return errors.Join(err, os.WriteFile(file, bytes.ReplaceAll(raw, []byte(old), []byte(now)), 0o600))
		}
	}
	dropped := func(dir string) error { // the last entry of the log is gone, and everything was made again by hand but the pages
		file := filepath.Join(dir, "log.json")
		var doc map[string]any
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(raw, &doc); err != nil {
			return err
		}
		entries := doc["entries"].([]any)
		doc["entries"] = entries[:len(entries)-1]
		raw, err = json.Marshal(doc)
		return errors.Join(err, os.WriteFile(file, raw, 0o600), resum(dir))
	}
	for name, x := range map[string]struct {
		spoil func(string) error
		want  string
	}{
		"as it was":      {func(string) error { return nil }, ""},
		"an edited page": {edit("index.html", "emergencies", "parties"), "index.html was changed"},
		"and its sum": {func(dir string) error {
			return errors.Join(edit("index.html", "emergencies", "parties")(dir), resum(dir))
		}, "index.html says something else"},
		"an edited entry": {func(dir string) error {
			return errors.Join(edit("log.json", "Emergency declared", "Nothing")(dir), resum(dir))
		}, "log.json is not in order"},
		"an entry dropped":     {dropped, "says something else than the log"},
		"a missing page":       {func(dir string) error { return os.Remove(filepath.Join(dir, "all.html")) }, "all.html is missing"},
		"dropped with its sum": {func(dir string) error { return errors.Join(os.Remove(filepath.Join(dir, "all.html")), resum(dir)) }, "all.html is missing: the log makes it"},
		"a page added": {func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "x.html"), nil, 0o600), resum(dir))
		}, "SHA256SUMS says something else"},
		"no sums": {func(dir string) error { return os.Remove(filepath.Join(dir, "SHA256SUMS")) }, "this is no exported log"},
		"no word of its making": {func(dir string) error {
			return errors.Join(edit("export.json", "epatch-log-export-v1", "x")(dir), resum(dir))
		}, "does not say what"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "log")
			must(exported(t, "", all...).Write(dir))(t)
			check(t, x.spoil(dir))
			got := must(site.Check(dir))(t)
			found := fmt.Sprint(got.Problems)
			if (x.want == "") != (len(got.Problems) == 0) || !strings.Contains(found, x.want) || got.OtherMaker {
				t.Errorf("found %s, want %q", found, x.want)
			}
		})
	}
	if _, err := site.Check(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("nothing was checked and found right")
	}
}
