// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// desk is one person's browser in an emergency.
type desk struct {
	*tab
	// seen are the pages that were found well made, of all desks.
	seen map[string]bool
	// emergency is the one in which the person has acted.
	emergency string
}

// once checks a page that no desk has come to yet, in each look.
func (d *desk) once(what string) {
	d.t.Helper()
	if !d.seen[what] {
		d.seen[what] = true
		d.looked(what, false)
	}
}

// choose ticks or chooses a value, write types a text, each as a person does.
func (d *desk) choose(name, value string) {
	d.t.Helper()
	d.do(chromedp.Click(fmt.Sprintf(`input[name=%q][value=%q]`, name, value)))
}

func (d *desk) write(name, text string) {
	d.t.Helper()
	d.do(chromedp.SendKeys(fmt.Sprintf(`[name=%q]`, name), text))
}

// see goes on from a form to what is signed; sign signs it, and comes to the emergency's page with what was recorded.
func (d *desk) see() {
	d.t.Helper()
	d.follow(`form.act .do button`)
	d.once("what is signed, after " + eval[string](d.tab, `document.querySelector('#act').innerText`))
}

func (d *desk) sign() {
	d.t.Helper()
	if eval[bool](d.tab, `document.querySelector('form.sign') === null`) {
		d.t.Fatalf("nothing to sign at %s:\n%s", eval[string](d.tab, "location.pathname"), eval[string](d.tab, "document.body.innerText"))
	}
	d.follow(`form.sign button`)
	if said := eval[string](d.tab, `document.querySelector('.panel.good[role=status]')?.innerText ?? ''`); !strings.Contains(said, "Recorded at position") {
		d.t.Fatalf("not recorded at %s:\n%s", eval[string](d.tab, "location.href"), eval[string](d.tab, "document.body.innerText"))
	}
	if id := eval[string](d.tab, "location.pathname"); d.emergency == "" {
		d.emergency = strings.TrimPrefix(id, "/incidents/")
	}
	d.do(chromedp.Navigate("about:blank")) // an open page is drawn again with each event, and one processor draws all of them here
}

// next waits on the page of what waits until a command is the first that waits, and opens it.
func (d *desk) next(command string) {
	d.t.Helper()
	d.goTo("/home")
	d.until(fmt.Sprintf(`[...document.querySelectorAll('.first .do form, .first .do > a.button')].some(e => (e.action || e.href).includes('/act/%s'))`, command))
	direct := eval[bool](d.tab, fmt.Sprintf(`document.querySelector('.first .do form[action*="/act/%s"]') !== null`, command))
	if direct {
		d.follow(fmt.Sprintf(`.first .do form[action*="/act/%s"] button`, command))
		d.once("what is signed for " + command)
		return
	}
	d.follow(fmt.Sprintf(`.first .do a.button[href*="/act/%s"]`, command))
}

// wholeEmergency is how long the people's browsers are open at most.
const wholeEmergency = 9 * time.Minute

// TestEmergencyInBrowser is a whole emergency by strategy 1, from the declaration until it is closed, by people who have nothing but a
// browser each, through the pages alone: the reviewers and the deployer sign by passkeys, the others by their demo keys; with the real agents on the hosts.
func TestEmergencyInBrowser(t *testing.T) {
	t.Parallel()
	browser := startBrowser(t)
	env := testenv.Start(t, testenv.Options{})
	seen, n := map[string]bool{}, 0
	people, keys := map[string]*desk{}, map[string]string{}
	withPasskey := []string{"carla", "anna", "bert"}
	sit := func(name string) *desk { // every second one has a phone
		if people[name] == nil {
			x := open(t, browser, env, look{width: []int64{1280, 390}[n%2], named: true, within: wholeEmergency})
			if slices.Contains(withPasskey, name) {
				x.hasAuthenticator()
			}
			x.goTo("/home")
			x.follow(fmt.Sprintf(`//button[b/bdi[text()=%q]]`, name))
			if slices.Contains(withPasskey, name) {
				keys[name] = x.addsPasskey(nil)
			}
			people[name] = &desk{x, seen, ""}
			n++
		}
		return people[name]
	}
	carla := sit("carla")

	carla.goTo("/home")
	carla.follow(`a[href="/declare"]`)
	carla.shoot("form-declare-1280")
	carla.write("symptom", "cert-info runs what its caller says")
	carla.choose("reason_class", "REASON_CLASS_VULNERABILITY")
	carla.write("reason", "anybody can read the configuration")
	carla.see()
	carla.shoot("statement-1280")
	carla.sign()
	id := carla.emergency
	story := env.Story()
	story.ID = id

	for _, name := range []string{"carla", "carl", "anna", "bert", "tina", "theo"} {
		sit(name).next("Respond")
		sit(name).sign()
	}

	dora := sit("dora")
	dora.next("RegisterPatch")
	file := filepath.Join(t.TempDir(), "fix.diff")
	check(t, os.WriteFile(file, story.Patch.Bytes, 0o600))
	dora.do(chromedp.SetUploadFiles(`input[name="bytes"]`, []string{file}))
	dora.write("bug_id", "1423")
	dora.see()
	dora.sign()

	anna := sit("anna")
	anna.next("RecordFirstReview")
	anna.shoot("form-review-1280")
	anna.choose("verdict", "REVIEW_VERDICT_APPROVE")
	anna.see()
	anna.sign()

	for _, name := range []string{"tina", "theo"} {
		x := sit(name)
		x.next("ReportTest")
		x.choose("result", "TEST_RESULT_PASS")
		x.write("steps", "asked for a certificate with a semicolon in its name; logged in with password and certificate")
		x.do(chromedp.SetValue(`[name="bug_note"]`, "7731")) // this system writes to no tracker
		x.see()
		x.sign()
	}

	bert := sit("bert")
	bert.next("RecordSecondReview")
	bert.shoot("form-review-390")
	bert.choose("verdict", "REVIEW_VERDICT_APPROVE")
	bert.see()
	bert.sign()
	bert.next("Forward")
	bert.see()
	bert.sign()

	sit("carl").next("ConfirmObserver")
	sit("carl").sign()
	carla.next("DryRun")
	carla.sign()
	carla.next("StartApply")
	carla.sign()
	env.Await(id, "the deployment's verification", func(in *dashboardIncident) bool { return testenv.Deployment(in) == "VERIFIED" })

	carla.next("RecordHealth")
	carla.choose("result", "HEALTH_RESULT_GOOD")
	carla.write("checks", "login, certificates, the job that failed")
	carla.see()
	carla.sign()
	env.Await(id, "equality of host and branch", func(in *dashboardIncident) bool { return in.GetReplication() == "EQUAL" })

	carla.next("Document")
	carla.write("text", "dora's patch quotes the name; deployed and verified, no restart")
	carla.choose("timeline_confirmed", "1")
	carla.see()
	carla.sign()
	clara := sit("clara")
	clara.next("RecordLeadDecision")
	clara.choose("decision", "LEAD_DECISION_APPROVE")
	clara.write("reason", "regular handling, no data was exposed")
	clara.see()
	clara.sign()
	bea := sit("bea")
	bea.next("RecordBoardSummary")
	bea.write("board_reference", "m20261201.4")
	bea.see()
	bea.sign()
	carla.next("Close")
	carla.choose("outcome", "OUTCOME_FIXED")
	carla.write("summary", "cert-info quotes what its caller says")
	carla.see()
	carla.sign()

	if st := story.State(); st.Status != procedure.Closed {
		t.Errorf("the emergency is %s", st.Status)
	}
	by := signedBy(t, env, id)
	for command, who := range map[string]string{"Declare": "carla", "RecordFirstReview": "anna", "RecordSecondReview": "bert", "Forward": "bert", "DryRun": "carla", "StartApply": "carla", "RecordHealth": "carla", "Close": "carla"} {
		if want := who + " " + keys[who]; !slices.Contains(by[command], want) {
			t.Errorf("%s is signed by the passkeys %v, not by that of %s", command, by[command], want)
		}
	}
	tree, err := os.ReadFile(filepath.Join(env.Root(demobook.Host), testenv.Program))
	check(t, err)
	if string(tree) != testenv.Repaired {
		t.Errorf("the host holds\n%s", tree)
	}
	for name, d := range people { // nothing complained, and no other host was asked, in the whole emergency
		d.quiet(name)
	}
}
