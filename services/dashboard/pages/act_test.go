// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"html"
	"mime/multipart"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc/command"
	"cacert.org/emergency/pkg/timer"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/testenv"
)

var carried = regexp.MustCompile(`<input type="hidden" name="(command|payload|subject|kind)" value="([^"]*)">`)

// toSign is what a statement page carries to the signature.
func toSign(t *testing.T, a answer) url.Values {
	t.Helper()
	if a.StatusCode != http.StatusOK || !strings.Contains(a.body, "This is what you sign") {
		t.Fatalf("no statement, but %s\n%s", a.Status, text(a.body))
	}
	form := url.Values{"demo": {"1"}}
	for _, m := range carried.FindAllStringSubmatch(a.body, -1) {
		form.Set(m[1], html.UnescapeString(m[2]))
	}
	return form
}

// done is where a signed command leads.
func done(t *testing.T, a answer) string {
	t.Helper()
	if a.StatusCode != http.StatusSeeOther {
		t.Fatalf("not recorded, but %s\n%s", a.Status, text(a.body))
	}
	return a.Header.Get("Location")
}

func declaration() url.Values {
	return url.Values{
		"filled": {"1"}, "system": {"webdb"}, "symptom": {"login answers 500"}, "severity": {"SEVERITY_HIGH"}, "reason_class": {"REASON_CLASS_OUTAGE"}, "reason": {"no member can log in"},
	}
}

// restrictedActs: whose role it is redacts or discloses a value in a page, from the page of its event; others are not asked.
func restrictedActs(t *testing.T, env *testenv.Env, story *testenv.Story) {
	clara, event := plain(t, env).as("clara"), "/incidents/"+story.ID+"/events/1"
	hasNot(t, "for a tester", plain(t, env).as("tina").page(event), "/act/Redact", "/act/Disclose")
	// to follows the link about the n-th value.
	to := func(command string, n int) string {
		t.Helper()
		links := regexp.MustCompile(`"(/[^"]*/act/`+command+`[^"]*)"`).FindAllStringSubmatch(clara.page(event), -1)
		if len(links) <= n {
			t.Fatalf("%d links to %s", len(links), command)
		}
		return html.UnescapeString(links[n][1])
	}
	path, symptom := to("Redact", 0), story.State().Declared.Symptom
	has(t, "the form", text(clara.page(path)), "redact a value · #1", "symptom · "+symptom[:12], "at least 10 characters")
	a := clara.do("POST", path, url.Values{"filled": {"1"}, "ground": {"short"}})
	has(t, "without a ground", a.body, `aria-invalid="true"`, `value="short"`)
	a = clara.do("POST", path, url.Values{"filled": {"1"}, "ground": {"names a member"}, "clause": {"a20261125.1"}})
	sign, _, _ := strings.Cut(path, "?")
	clara.page(done(t, clara.do("POST", sign+"/sign", toSign(t, a))))

	reason := to("Disclose", 0)
	has(t, "a value that is gone", text(clara.page(event)), "disclose a value: the field was redacted")
	has(t, "its form", text(clara.page(strings.Replace(path, "Redact", "Disclose", 1))), "The rules would not take this now", "was redacted at position")
	sign, _, _ = strings.Cut(reason, "?")
	clara.page(done(t, clara.do("POST", sign+"/sign", toSign(t, clara.do("POST", reason, url.Values{"filled": {"1"}})))))
	for _, r := range story.State().Restricted {
		if r.Position == 1 && (r.Redacted.Position > 0) != (r.Commitment == symptom) || r.Position == 1 && (r.Disclosed.Position > 0) == (r.Commitment == symptom) {
			t.Errorf("%+v", r)
		}
	}
	has(t, "without a value", text(clara.page("/incidents/"+story.ID+"/act/Redact")), "the position of an event", "the commitment of the field")
}

// TestActing: a form says what is missing and keeps what was typed; what is signed acts once, however often it is posted; whoever
// may not is told why.
func TestActing(t *testing.T) {
	t.Parallel()
	clock := timer.NewManual(time.Now())
	env := testenv.Start(t, testenv.Options{NoAgents: true, Clock: clock})
	carla := plain(t, env).as("carla")
	has(t, "the form", carla.page("/declare"), `name="symptom"`, `name="reason_class"`, "at least 10 characters")

	short := declaration()
	short.Set("reason", "broken")
	short.Del("reason_class")
	a := carla.do("POST", "/declare", short)
	if a.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("an incomplete form: %s", a.Status)
	}
	has(t, "an incomplete form", a.body, `aria-invalid="true"`, "login answers 500</textarea>", "Something is missing", "at least 10 characters")

	sign := toSign(t, carla.do("POST", "/declare", declaration()))
	path := done(t, carla.do("POST", "/declare/sign", sign))
	if again := done(t, carla.do("POST", "/declare/sign", sign)); again != path {
		t.Errorf("posted twice it leads to %s, once to %s", again, path)
	}
	id := strings.TrimPrefix(strings.TrimSuffix(path, "?recorded=1"), "/incidents/")
	body := carla.page(path)
	has(t, "after declaring", body, "Recorded at position", "/incidents/"+id+"/events/1")
	story := env.Story()
	story.ID = id
	if st := story.State(); st.Declared.By != "carla" || st.Declared.Severity != emergencyv1.Severity_SEVERITY_HIGH {
		t.Errorf("declared: %+v", st.Declared)
	}

	t.Run("one press", func(t *testing.T) {
		slot := "/incidents/" + id + "/act/Respond?subject=critical%2F1"
		has(t, "home", carla.page("/home"), `action="`+html.EscapeString(slot)+`"`, "Accept", "decline")
		said := carla.do("POST", slot, url.Values{"subject": {"critical/1"}})
		has(t, "what accepting signs", text(said.body), "critical/1", "as in the rule book: mail, sms", "You are carla")
		carla.page(done(t, carla.do("POST", "/incidents/"+id+"/act/Respond/sign", toSign(t, said))))
		if sl, _ := story.State().Slot("critical/1"); sl.Person != "carla" || sl.State != procedure.SlotStandby {
			t.Errorf("%+v", sl)
		}
	})
	t.Run("declined", func(t *testing.T) {
		carl := plain(t, env).as("carl")
		form := "/incidents/" + id + "/act/Respond?kind=decline&subject=critical%2F2"
		has(t, "form", carl.page(form), `name="decline.reason"`)
		said := carl.do("POST", form, url.Values{"filled": {"1"}, "kind": {"decline"}, "subject": {"critical/2"}, "decline.reason": {"on a plane"}})
		carl.page(done(t, carl.do("POST", "/incidents/"+id+"/act/Respond/sign", toSign(t, said))))
		if st := story.State(); len(st.Declined) != 1 || st.Declined[0].Person != "carl" {
			t.Errorf("%+v", st.Declined)
		}
	})
	t.Run("not allowed", func(t *testing.T) {
		tina := plain(t, env).as("tina")
		a := tina.do("POST", "/declare", declaration())
		if a.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("a tester declares: %s", a.Status)
		}
		has(t, "a tester declares", text(a.body), "The rules would not take this now", "carla")
		has(t, "a tester's home", text(tina.page("/home")), "You cannot declare an emergency")
	})
	t.Run("another's statement", func(t *testing.T) {
		sign := toSign(t, carla.do("POST", "/incidents/"+id+"/act/CallOut", url.Values{"filled": {"1"}}))
		anna := plain(t, env).as("anna")
		if a := anna.do("POST", "/incidents/"+id+"/act/CallOut/sign", sign); a.StatusCode != http.StatusBadRequest || !strings.Contains(a.body, "for somebody else") {
			t.Errorf("anna signs what carla prepared: %s\n%s", a.Status, text(a.body))
		}
		other := toSign(t, carla.do("POST", "/incidents/"+id+"/act/CallOut", url.Values{"filled": {"1"}, "message": {"come"}}))
		sign.Set("payload", other.Get("payload"))
		if a := carla.do("POST", "/incidents/"+id+"/act/CallOut/sign", sign); a.StatusCode != http.StatusBadRequest || !strings.Contains(a.body, "is not this command") {
			t.Errorf("payload and command do not belong together: %s\n%s", a.Status, text(a.body))
		}
	})
	t.Run("signed too late", func(t *testing.T) {
		const act = "/act/AnnotateLog"
		old := toSign(t, carla.do("POST", "/incidents/"+id+act, url.Values{"filled": {"1"}, "entry": {"1"}, "text": {"mirror 2 is out of rotation"}}))
		clock.Advance(20 * time.Minute)
		a := carla.do("POST", "/incidents/"+id+act+"/sign", old)
		if a.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(a.body, "The signature was too old") {
			t.Fatalf("%s\n%s", a.Status, text(a.body))
		}
		again := url.Values{"demo": {"1"}}
		for _, m := range carried.FindAllStringSubmatch(a.body, -1) {
			again.Set(m[1], html.UnescapeString(m[2]))
		}
		if again.Get("command") != old.Get("command") || again.Get("payload") == old.Get("payload") {
			t.Error("it is another command, or the same old statement")
		}
		done(t, carla.do("POST", "/incidents/"+id+act+"/sign", again))
	})
	t.Run("refused when sent", func(t *testing.T) {
		anna, bert := plain(t, env).as("anna"), plain(t, env).as("bert")
		slot := url.Values{"subject": {"assessment/1"}}
		first := toSign(t, anna.do("POST", "/incidents/"+id+"/act/Respond", slot))
		second := toSign(t, bert.do("POST", "/incidents/"+id+"/act/Respond", slot))
		done(t, anna.do("POST", "/incidents/"+id+"/act/Respond/sign", first))
		a := bert.do("POST", "/incidents/"+id+"/act/Respond/sign", second)
		if a.StatusCode != http.StatusConflict {
			t.Errorf("a place that is taken meanwhile: %s", a.Status)
		}
		has(t, "a place that is taken meanwhile", text(a.body), "Not recorded", "SLOT_TAKEN", "anna", "Nothing was changed")
		has(t, "the form again", bert.do("POST", "/incidents/"+id+"/act/Respond", second).body, `name="accept.contact_path"`)
	})
	t.Run("a patch", func(t *testing.T) {
		dora := plain(t, env).as("dora")
		form := "/incidents/" + id + "/act/RegisterPatch"
		body := dora.page(form)
		has(t, "form", body, `type="file"`, `enctype="multipart/form-data"`, `name="bug_id"`)
		if asked := regexp.MustCompile(`name="base_commit"[^>]*required`).FindString(body); asked != "" {
			t.Errorf("what the review service finds out is asked of a person: %s", asked)
		}
		empty := dora.do("POST", form, url.Values{"filled": {"1"}, "bug_id": {"1423"}})
		if empty.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("without a patch: %s", empty.Status)
		}
		has(t, "without a patch", empty.body, "the patch", `value="1423"`)
		hasNot(t, "without a patch", empty.body, "<code>sha256</code>", "<code>base_tree</code>")
		sent := func(name, data string) answer {
			t.Helper()
			var b strings.Builder
			m := multipart.NewWriter(&b)
			check(t, m.WriteField("filled", "1"))
			check(t, m.WriteField("bug_id", "1423"))
			w, err := m.CreateFormFile("bytes", name)
			check(t, err)
			_, err = w.Write([]byte(data))
			check(t, err)
			check(t, m.Close())
			return dora.post(form, b.String(), m.FormDataContentType())
		}
		if a := sent("no.diff", "this is no patch"); a.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(a.body, "the patch is not acceptable") {
			t.Errorf("no patch: %s\n%s", a.Status, text(a.body))
		}
		a := sent("fix.diff", string(story.Patch.Bytes))
		has(t, "what registering signs", text(a.body), "P1r1", story.Patch.BaseTree, story.Patch.ResultTree)
		dora.page(done(t, dora.do("POST", form+"/sign", toSign(t, a))))
		if r := story.Revision(); r.ID != "P1r1" || r.By != "dora" || r.ResultTree != story.Patch.ResultTree || r.BugID != "1423" {
			t.Errorf("%+v", r)
		}
		anna := plain(t, env).as("anna")
		has(t, "a review beside the difference", anna.page("/incidents/"+id+"/act/RecordFirstReview?subject=P1r1"), `name="verdict"`, `class="diff"`, story.Revision().Binding)
	})
	t.Run("redacted and disclosed", func(t *testing.T) {
		restrictedActs(t, env, story)
	})
	t.Run("from another site", func(t *testing.T) {
		if a := carla.do("POST", "/incidents/"+id+"/act/CallOut", url.Values{}, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"); a.StatusCode != http.StatusForbidden {
			t.Errorf("%s", a.Status)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		for _, path := range []string{"/incidents/" + id + "/act/Nothing", "/incidents/" + id + "/act/Tick", "/incidents/" + id + "/act/Connect", "/incidents/" + id + "/act/Declare", "/incidents/e20200101.1/act/Close"} {
			if a := carla.get(path); a.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %s", path, a.Status)
			}
		}
	})
	t.Run("every form", func(t *testing.T) {
		for _, c := range procedure.Commands() {
			if _, err := command.Method(c.New()); err != nil || len(c.Roles) == 0 || c.RuleBook || c.Archive || c.Name == "Declare" || c.Name == "Connect" || c.Name == "AbsorbDuplicate" {
				continue
			}
			for _, lang := range []string{"en", "de"} {
				carla.header.Set("Accept-Language", lang)
				wellFormed(t, carla, "/incidents/"+id+"/act/"+c.Name, lang)
			}
		}
	})
}
