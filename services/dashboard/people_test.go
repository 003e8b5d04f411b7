// SPDX-License-Identifier: Apache-2.0

package dashboard_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/dashboard"
)

// signedIn is a person's cookie, and the language of the person's browser.
func (w *web) signedIn(person, lang string) func(path string) string {
	w.t.Helper()
	req := must(http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.srv.URL+"/sign-in", strings.NewReader("person="+person)))(w.t)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp := must(w.srv.Client().Do(req))(w.t)
	defer resp.Body.Close()
	if len(resp.Cookies()) == 0 {
		w.t.Fatalf("%s could not sign in: %s", person, resp.Status)
	}
	cookie := resp.Cookies()[0].Name + "=" + resp.Cookies()[0].Value
	return func(path string) string {
		w.t.Helper()
		resp, body := w.ask("GET", path, "Cookie", cookie, "Accept-Language", lang)
		if resp.StatusCode != http.StatusOK {
			w.t.Fatalf("%s: %s\n%s", path, resp.Status, body)
		}
		return body
	}
}

// untold is a key of the catalogue where a text should be.
var untold = regexp.MustCompile(`>(?:[a-z]+\.)+[A-Za-z0-9._/ -]+<|>(?:[A-Z][a-zA-Z]+\.[A-Z_0-9]+)<|%!`)

// The pages of emergencies by strategies 2 and 3 and of a dispute, at every position of their histories.
func TestPagesOfEachStrategy(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *dashboard.Config) { c.Development = true })
	about := emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2
	dispute := pt.DisputeMilestones()
	worlds := map[string]*pt.World{
		"e20261124.1": r.told("e20261124.1", pt.Story(pt.Blessed), pt.Dispute(about, dispute[len(dispute)-1])),
		"e20261124.2": r.told("e20261124.2", pt.Story(pt.Sealed)),
		"e20261124.3": r.told("e20261124.3", pt.Story(pt.Frozen)),
	}
	w := r.web()
	for _, lang := range []string{"en", "de"} {
		page := w.signedIn("carla", lang)
		for _, path := range []string{"/home", "/incidents", "/obligations?show=all", "/board", "/system", "/rulebook"} {
			if found := untold.FindString(strings.ReplaceAll(page(path), "<code>", "<code> ")); found != "" {
				t.Errorf("%s in %s: %s", path, lang, found)
			}
		}
		for id, world := range worlds {
			paths := []string{"/incidents/" + id, "/incidents/" + id + "/timeline"}
			for position := uint64(1); position <= world.State.Position; position += 4 {
				paths = append(paths, fmt.Sprintf("/incidents/%s/at?position=%d", id, position))
			}
			for _, path := range paths {
				body := strings.ReplaceAll(page(path), "<code>", "<code> ")
				if found := untold.FindString(body); found != "" {
					t.Errorf("%s in %s: %s", path, lang, found)
				}
			}
		}
	}
	page := w.signedIn("arno", "en")
	has(t, page("/incidents/e20261124.1"), "strategy 2", "Escalation to strategy 2", "Arbitration", "a20261124.1", "a team cannot be reached", "confirmed by the update cycle")
	has(t, page("/incidents/e20261124.2"), "strategy 3", "Watched sessions", "sealed", "proven unusable", "emil", "Joint declaration", "role assumed")
	has(t, page("/incidents/e20261124.3"), "frozen", "Watched sessions")
	has(t, page("/board"), "strategy 3", "role assumed")
}
