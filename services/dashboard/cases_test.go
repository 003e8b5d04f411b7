// SPDX-License-Identifier: Apache-2.0

package dashboard_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/history"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/dashboard"
)

// Pages of arbitration: docket, case, dossier, evidence.

// reader is somebody who is signed in.
type reader struct {
	w            *web
	cookie, lang string
}

func (w *web) reader(person, lang string) *reader {
	w.t.Helper()
	req := must(http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.srv.URL+"/sign-in", strings.NewReader("person="+person)))(w.t)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp := must(w.srv.Client().Do(req))(w.t)
	defer resp.Body.Close()
	return &reader{w, resp.Cookies()[0].Name + "=" + resp.Cookies()[0].Value, lang}
}

var markup = regexp.MustCompile(`<[^>]*>`)

// said is a page as it reads.
func (x *reader) said(path string) string { x.w.t.Helper(); return said(x.get(path)) }

func said(body string) string {
	return html.UnescapeString(strings.Join(strings.Fields(markup.ReplaceAllString(body, " ")), " "))
}

func (x *reader) get(path string) string {
	x.w.t.Helper()
	resp, body := x.w.ask("GET", path, "Cookie", x.cookie, "Accept-Language", x.lang)
	if resp.StatusCode != http.StatusOK {
		x.w.t.Fatalf("%s: %s\n%s", path, resp.Status, said(body))
	}
	return body
}

// asks posts to a page for restricted values.
func (x *reader) asks(path string, form url.Values) string {
	x.w.t.Helper()
	req := must(http.NewRequestWithContext(x.w.t.Context(), http.MethodPost, x.w.srv.URL+path, strings.NewReader(form.Encode())))(x.w.t)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Cookie", x.cookie)
	resp := must(x.w.srv.Client().Do(req))(x.w.t)
	defer resp.Body.Close()
	var b strings.Builder
	if err := resp.Write(&b); err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Cache-Control") != "no-store" {
		x.w.t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return said(b.String())
}

// keep puts a world's restricted values where their owners keep them.
func (r *rig) keep(w *pt.World) {
	for commitment, v := range w.Revealed {
		check(r.t, r.vault.Put(r.t.Context(), commitment, v.Salt, v.Value))
	}
}

func contains(t *testing.T, what, body string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(body, want) {
			t.Errorf("%s: %q is not in\n%s", what, want, body)
		}
	}
}

func lacks(t *testing.T, what, body string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if strings.Contains(body, want) {
			t.Errorf("%s: %q is in\n%s", what, want, body)
		}
	}
}

// court is a system with a dispute that goes on until a milestone.
func court(t *testing.T, to pt.Milestone) (*rig, *pt.World, *web) {
	t.Helper()
	r := newRig(t, func(c *dashboard.Config) { c.Development = true })
	w := r.told(one, pt.Story(pt.Healthy2), pt.Dispute(about, to))
	r.keep(w)
	return r, w, r.web()
}

// The docket over several incidents: what waits for whom, what is late, what nobody takes.
func TestDocket(t *testing.T) {
	t.Parallel()
	r, _, web := court(t, pt.Begun)
	r.told("e20261124.2", pt.Story(pt.ClosedDown), pt.Dispute(emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER, pt.Filed))
	r.told("e20261124.3", pt.Story(pt.ClosedDown), pt.Dispute(emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER, pt.Obeyed))
	r.clock.Set(pt.T0().Add(10 * 24 * time.Hour))
	mia := web.reader("mia", "en")
	all := mia.said("/docket")
	contains(t, "docket", all, "2 open", "1 overdue", "1 without arbitrator", "deliver the ruling", "waits for arno", "open a case", "no arbitrator for", "overdue", "e20261124.1", "e20261124.2")
	lacks(t, "docket of what is open", all, "e20261124.3")
	contains(t, "everything", mia.said("/docket?show=all"), "e20261124.3", "ruled", "confirmed", "a20261125.7")
	_, list, _ := strings.Cut(all, "Disputes")
	if i, j := strings.Index(list, "e20261124.2"), strings.Index(list, "e20261124.1"); i > j {
		t.Error("what is late does not come first")
	}
	mine := web.reader("arno", "en").said("/docket?show=mine")
	contains(t, "arno's docket", mine, "e20261124.1")
	contains(t, "nobody's docket", web.reader("theo", "en").said("/docket?show=mine"), "No dispute here.")
	contains(t, "German", web.reader("arno", "de").said("/docket"), "Register der Schiedsverfahren", "ohne Schiedsrichter", "wartet auf arno")
}

// A case says everything that its reader may read, on request alone, and where not, why.
func TestCase(t *testing.T) {
	t.Parallel()
	_, w, web := court(t, pt.FinalRuled)
	first := w.State.Disputes[0]
	path := "/incidents/" + one + "/cases/" + first.ID
	arno := web.reader("arno", "en")
	plain := arno.said(path)
	contains(t, "case", plain, "Case "+first.ID, "Filing", "carla (critical admin)", "a review of the procedure", "a20261125.7", "casper", "agnes declined", "arno accepted", "Preliminaries", first.EvidenceHash,
		"Ruling R1", "Parties", "Facts", "Logic", "Directions", "Date and place", "Berlin", "justified", "it was justified", "D1", "confirmed", "Appeal", w.State.Disputes[1].ID, "replaced by R2")
	values := []string{"critical admin team", "software assessment team", "emergency issue handling under option 2", "no time", "DRP 2.1", "NSW, Australia", "as the log says", "nothing else would have helped in time", "write the procedure down", "it is in the wiki"}
	lacks(t, "nothing was asked for", plain, values...)
	contains(t, "the arbitrator asks for all", arno.asks(path, url.Values{"all": {"1"}}), append(values, "It is written down that you read this")...)
	one := arno.asks(path, url.Values{"commitment": {first.Complaint}})
	contains(t, "the complaint alone", one, "emergency issue handling under option 2")
	lacks(t, "the complaint alone", one, "critical admin team", "nothing else would have helped")

	// Proceedings are private: parties and teams read nothing of them, whatever they ask for, and are told why (DRP 3.2).
	anna := web.reader("anna", "en").asks(path, url.Values{"all": {"1"}})
	contains(t, "an assessor", anna, "Proceedings are private", "is not for you to read", "ask somebody who is case manager or dispute officer", "emergency issue handling under option 2")
	lacks(t, "an assessor", anna, "DRP 2.1", "NSW, Australia", "no time")
	mia := web.reader("mia", "en").asks(path, url.Values{"all": {"1"}})
	lacks(t, "a member", mia, values...)
	contains(t, "a member", mia, "is not for you to read", "it was justified")

	review := arno.said("/incidents/e20261124.1/cases/" + w.State.Disputes[1].ID)
	contains(t, "review", review, "Request for review", "injustice", "re-opened", "Panel", "achim", "senior adele", "Ruling R2", "final")
	german := web.reader("arno", "de").said(path)
	contains(t, "German", german, "Verfahren "+first.ID, "Einreichung", "Beweiswurzel", "gerechtfertigt", "Berufung")
	resp, body := web.ask("GET", "/incidents/e20261124.1/cases/a20991231.1", "Cookie", arno.cookie)
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("a case that is not there: %s", resp.Status)
	}
	contains(t, "a case that is not there", said(body), "has no dispute", "take one from the docket")
}

// While an arbitrator is looked for, the page says whom the rules let ask, and what speaks against the others.
func TestCandidates(t *testing.T) {
	t.Parallel()
	r, w, web := court(t, pt.DeclinedOnce)
	path := "/incidents/" + one + "/cases/" + w.State.Disputes[0].ID
	casper := web.reader("bea", "en").said(path)
	contains(t, "candidates", casper, "Who could be asked", "agnes was asked", "arno free of conflict", "no arbitrator for", "ask an arbitrator")
	w.Do("arno", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "I looked at the log"})
	r.feed(w)
	contains(t, "who acted", web.reader("bea", "en").said(path), "arno conflict of interest", "arno acted in the incident")
}

// The dossier says in HTML exactly what the library says, sentence by sentence, each with its positions.
func TestDossierPage(t *testing.T) {
	t.Parallel()
	r, w, web := court(t, pt.Ruled)
	var entries []history.Entry
	for i, rec := range w.Records {
		entries = append(entries, history.Entry{Record: rec, Hash: pt.HashOf(w.Bytes[i])})
	}
	d := must(dossier.New(dossier.Input{Entries: entries, Book: r.book.Book, Asked: r.clock.Now()}))(t)
	path := "/incidents/" + one + "/dossier"
	arno := web.reader("arno", "en")
	body := arno.get(path)
	text := said(body)
	for _, s := range d.Sentences() {
		contains(t, "dossier", text, strings.Join(strings.Fields(s.Text), " "))
		for _, p := range s.Positions {
			contains(t, "positions", body, `href="#p`+itoa(p)+`"`, `id="p`+itoa(p)+`"`, "/incidents/"+one+"/events/"+itoa(p))
		}
	}
	if n := strings.Count(body, `class="noevidence"`); n < 5 {
		t.Errorf("no evidence is to be seen %d times", n)
	}
	contains(t, "dossier", text, w.State.Disputes[0].EvidenceHash, "Who authorised the change?", "Steps of chapter 1")
	for _, e := range d.Events {
		_, item, _ := strings.Cut(body, `<li id="p`+itoa(e.Position)+`">`)
		item, _, _ = strings.Cut(item, "</li>")
		contains(t, "event "+itoa(e.Position), item, hashAt(w, e.Position))
	}
	lacks(t, "not asked for", text, "the assessors were not heard", "strangers")
	asked := arno.asks(path, url.Values{"all": {"1"}})
	contains(t, "asked for", asked, w.Sealed[w.State.Declared.Symptom], w.Sealed[w.State.Disputes[0].Claimants])
	mia := web.reader("mia", "en").asks(path, url.Values{"all": {"1"}})
	lacks(t, "a member", mia, w.Sealed[w.State.Declared.Symptom], w.Sealed[w.State.Disputes[0].Claimants])
	contains(t, "a member", mia, "is not for you to read")

	early := arno.said(path + "?position=1")
	contains(t, "at the declaration", early, "position 1 of")
	lacks(t, "at the declaration", early, w.State.Disputes[0].ID+" filed by carla")
	if resp, _ := web.ask("GET", path+"?position=9999", "Cookie", arno.cookie); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a position that is not there: %s", resp.Status)
	}
	contains(t, "German", web.reader("arno", "de").said(path), "kein Beleg", "Wer hat die Änderung veranlasst?", "Die Sätze sind englisch", "Vier-Augen")
}

// The evidence: files by digest, and every restricted value with what became of it; each reading leaves its line.
func TestEvidencePage(t *testing.T) {
	t.Parallel()
	r, w, web := court(t, pt.Ruled)
	w.Do("clara", pt.Redact(1, w.State.Declared.Component))
	r.feed(w)
	path := "/incidents/" + one + "/evidence"
	arno := web.reader("arno", "en")
	text := arno.said(path)
	contains(t, "evidence", text, w.State.HeadHash, w.State.Disputes[0].EvidenceHash, w.State.Revisions[0].Artefact.GetSha256(), "patch", "deleted for ever", w.State.Declared.Symptom)
	before := strings.Count(r.logs.String(), "restricted value asked for")
	symptom := w.Sealed[w.State.Declared.Symptom]
	lacks(t, "not asked for", text, symptom)
	contains(t, "asked for", arno.asks(path, url.Values{"commitment": {w.State.Declared.Symptom, w.State.Declared.Reason}}), symptom, w.Sealed[w.State.Declared.Reason])
	if n := strings.Count(r.logs.String(), "restricted value asked for") - before; n != 2 {
		t.Errorf("two readings are written down %d times", n)
	}
}

// hashAt is the hash of the record that holds a position.
func hashAt(w *pt.World, position uint64) string {
	hash := ""
	for i, rec := range w.Records {
		if rec.GetFirstPosition() <= position {
			hash = pt.HashOf(w.Bytes[i])
		}
	}
	return hash
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }
