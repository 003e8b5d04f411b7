// SPDX-License-Identifier: Apache-2.0

//go:build !race

package e2e

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/services/internal/testenv"
)

// pageReader is a person who reads the pages of an installation, without JavaScript.
type pageReader struct {
	t      *testing.T
	base   string
	client *http.Client
}

func signedIn(t *testing.T, base, person string) *pageReader {
	t.Helper()
	jar, err := cookiejar.New(nil)
	must(t, err)
	r := &pageReader{t, base, &http.Client{Jar: jar, Timeout: testenv.Patience}}
	if code, body := r.send("/sign-in", url.Values{"person": {person}, "next": {"/home"}}); code != http.StatusOK {
		t.Fatalf("sign in: %d\n%s", code, body)
	}
	return r
}

// send posts a form, or gets a page where there is none, and follows where it leads.
func (r *pageReader) send(path string, form url.Values) (code int, body string) {
	r.t.Helper()
	method, content := http.MethodGet, io.Reader(nil)
	if form != nil {
		method, content = http.MethodPost, strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.base+path, content)
	must(r.t, err)
	req.Header.Set("Origin", r.base)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := r.client.Do(req)
	must(r.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(r.t, err)
	return res.StatusCode, string(b)
}

// until loads a page again until it says a sentence, or does not say it any more.
func (r *pageReader) until(path, sentence string, said bool) string {
	r.t.Helper()
	for end := time.Now().Add(testenv.Patience); ; time.Sleep(200 * time.Millisecond) {
		code, body := r.send(path, nil)
		if code == http.StatusOK && strings.Contains(body, sentence) == said {
			return body
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s: %d, %q is said: %t is wanted\n%s", path, code, sentence, said, body)
		}
	}
}

var carriedField = regexp.MustCompile(`<input type="hidden" name="(command|payload|subject|kind)" value="([^"]*)">`)

const silent = "The event log does not answer."

// declaring fills the form of a declaration and returns what is to be signed.
func (r *pageReader) declaring() url.Values {
	r.t.Helper()
	_, body := r.send("/declare", url.Values{
		"filled": {"1"}, "system": {"webdb"}, "symptom": {"login answers 500"}, "severity": {"SEVERITY_HIGH"}, "reason_class": {"REASON_CLASS_OUTAGE"}, "reason": {"no member can log in"},
	})
	form := url.Values{"demo": {"1"}}
	for _, m := range carriedField.FindAllStringSubmatch(body, -1) {
		form.Set(m[1], html.UnescapeString(m[2]))
	}
	if len(form) < 2 {
		r.t.Fatalf("no statement to sign\n%s", body)
	}
	return form
}

// logAway: while no server of the log runs, every page shows the last state and says since when the log is silent, a form is refused with
// what to do, and posted again when the log is back it acts once (issue 5, line 5).
func logAway(t *testing.T, reader *pageReader, incident string, back func()) {
	t.Helper()
	form := reader.declaring()
	reader.until("/home", silent, true)
	for _, path := range []string{"/incidents/" + incident, "/incidents/" + incident + "/timeline", "/incidents", "/declare", "/obligations", "/rulebook", "/system"} {
		code, body := reader.send(path, nil)
		if code != http.StatusOK || !strings.Contains(body, silent) || !strings.Contains(body, "So it is since") {
			t.Errorf("%s while the log is away: %d\n%s", path, code, body)
		}
		if strings.Contains(path, incident) && !strings.Contains(body, "of "+incident) {
			t.Errorf("%s does not show the last state\n%s", path, body)
		}
	}
	if code, body := reader.send("/log", nil); code != http.StatusOK || !strings.Contains(body, "The event log has not answered since") {
		t.Errorf("the public log while the log is away: %d\n%s", code, body)
	}
	if code, body := reader.send("/declare/sign", form); code != http.StatusServiceUnavailable || !strings.Contains(body, "Try again in a moment") {
		t.Errorf("a form while the log is away: %d\n%s", code, body)
	}
	back()
	reader.until("/home", silent, false)
	var page [2]string
	for i := range page {
		code, body := reader.send("/declare/sign", form)
		if code != http.StatusOK {
			t.Errorf("the same form when the log is back: %d\n%s", code, body)
		}
		page[i] = regexp.MustCompile(`As of position \d+ of (\S+),`).FindString(body)
	}
	if page[0] == "" || page[0][strings.LastIndexByte(page[0], ' '):] != page[1][strings.LastIndexByte(page[1], ' '):] {
		t.Errorf("one form posted twice leads to %q and %q", page[0], page[1])
	}
}
