// SPDX-License-Identifier: Apache-2.0

package dashboard_test

import (
	"crypto"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"

	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/dashboard"
)

var actLink = regexp.MustCompile(`(?:href|action)="(/incidents/[^"]*/act/[^"]*)"`)

// Every command that a page offers anybody, under each strategy and in a dispute, has a form in which nothing is left untold.
func TestFormsOfEachStrategy(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *dashboard.Config) { c.Development = true })
	about := emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2
	for n, world := range [][]pt.Step{ // the one that ends last comes last: it sets the clock that all are seen by
		{pt.Story(pt.Registered)}, {pt.Story(pt.Forwarded)}, {pt.Story(pt.Verified)}, {pt.Story(pt.Replicated)}, {pt.Story(pt.HandedOver)}, {pt.Story(pt.Joined)},
		{pt.Story(pt.Live)}, {pt.Story(pt.Captured)}, {pt.Story(pt.Replicated2), pt.Dispute(about, pt.Begun)},
	} {
		r.told("e20261124."+strconv.Itoa(n+1), world...)
	}
	w := r.web()
	seen := map[string]bool{}
	for _, who := range []string{"carla", "anna", "clara", "arno"} {
		page := w.signedIn(who, map[bool]string{true: "en", false: "de"}[who == "carla" || who == "arno"])
		for n := range 9 {
			body := page("/incidents/e20261124." + strconv.Itoa(n+1))
			for _, m := range actLink.FindAllStringSubmatch(body, -1) {
				path := html.UnescapeString(m[1])
				name, _, _ := strings.Cut(path[strings.Index(path, "/act/")+len("/act/"):], "?")
				if seen[path] {
					continue
				}
				seen[path], seen[name] = true, true
				if found := untold.FindString(strings.ReplaceAll(page(path), "<code>", "<code> ")); found != "" {
					t.Errorf("%s for %s: %s", path, who, found)
				}
			}
		}
	}
	for _, name := range []string{"Escalate", "SignJointDeclaration", "RecordFirstReview", "DryRun", "RecordHealth", "Document", "FileDispute", "GrantAccess", "DeliverRuling", "ExplainLeftovers", "AnnotateLog"} {
		if !seen[name] {
			t.Errorf("nobody is offered %s", name)
		}
	}
}

var carried = regexp.MustCompile(`<input type="hidden" name="(command|payload|subject|kind)" value="([^"]*)">`)

// A service that is away takes no command: the page says so, still shows the last state and how old it is, and keeps the very
// command that was signed, to be sent again.
func TestServiceAway(t *testing.T) {
	t.Parallel()
	var r *rig
	r = newRig(t, func(c *dashboard.Config) {
		c.Development = true
		c.Peers = map[string]grpc.ClientConnInterface{}
		c.DemoSigner = func(person string) (crypto.Signer, error) { return r.profile(person).Signer, nil }
	})
	r.told("e20261124.1", pt.Story(pt.Called))
	w := r.web()
	session := must(w.srv.Client().PostForm(w.srv.URL+"/sign-in", url.Values{"person": {"carla"}}))(t)
	check(t, session.Body.Close())
	if len(session.Cookies()) == 0 {
		t.Fatal(session.Status)
	}
	post := func(path string, form url.Values) (int, string) {
		t.Helper()
		req := must(http.NewRequestWithContext(t.Context(), http.MethodPost, w.srv.URL+path, strings.NewReader(form.Encode())))(t)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.AddCookie(session.Cookies()[0])
		resp := must(w.srv.Client().Do(req))(t)
		defer resp.Body.Close()
		return resp.StatusCode, string(must(io.ReadAll(resp.Body))(t))
	}
	const act = "/incidents/e20261124.1/act/AnnotateLog"
	code, said := post(act, url.Values{"filled": {"1"}, "entry": {"1"}, "text": {"mirror 2 is out of rotation"}})
	if code != http.StatusOK {
		t.Fatalf("%d\n%s", code, said)
	}
	sign := url.Values{"demo": {"1"}}
	for _, m := range carried.FindAllStringSubmatch(said, -1) {
		sign.Set(m[1], html.UnescapeString(m[2]))
	}
	code, said = post(act+"/sign", sign)
	if code != http.StatusServiceUnavailable {
		t.Fatalf("a service that is away: %d\n%s", code, said)
	}
	has(t, said, "Not sent yet", "Nothing is lost", `value="`+sign.Get("command")+`"`, `value="`+sign.Get("payload")+`"`, "mirror 2 is out of rotation", "As of position")
	has(t, w.signedIn("carla", "en")("/incidents/e20261124.1"), "24-hour clock", "As of position", "recorded")
}
