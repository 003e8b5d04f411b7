// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/testenv"
)

// fillHostile puts text of those who mean harm into every field of a form that takes text, and takes the first of all choices.
const fillHostile = `(text => {
	const form = document.querySelector('form.act');
	form.querySelectorAll('details').forEach(d => d.open = true);
	form.querySelectorAll('textarea, input[type=text]').forEach(e => e.value = text);
	form.querySelectorAll('fieldset').forEach(f => f.querySelector('input[type=radio]')?.click());
	form.querySelectorAll('select').forEach(s => { if (s.getAttribute('aria-required') && !s.value) s.selectedIndex = 1; });
	form.querySelectorAll('input[type=checkbox][name=drill]').forEach(e => e.checked = true);
	return form.querySelectorAll('textarea, input[type=text]').length;
})`

// hostileForms: whatever is written into forms executes nothing and breaks no layout: not in the form that comes back, not on the page
// that says what is signed, not where it was recorded.
func hostileForms(t *testing.T, browser context.Context, h *hour, bad *testenv.Story) {
	text := markup + turned + endless
	x := open(t, browser, h.Env, look{person: "carl", width: 390, within: wholeEmergency})
	for _, f := range []struct{ who, path string }{
		{"carl", "/declare"}, {"carl", "/incidents/" + bad.ID + "/act/AnnotateLog"}, {"carl", "/incidents/" + bad.ID + "/act/CallOut"}, {"carl", "/incidents/" + bad.ID + "/act/Escalate"},
		{"carl", "/incidents/" + bad.ID + "/act/FileDispute"}, {"carl", "/incidents/" + bad.ID + "/act/Respond?subject=" + url.QueryEscape(markup)},
		{"anna", "/incidents/" + bad.ID + "/act/RaiseVeto?subject=P1r1"}, {"anna", "/incidents/" + bad.ID + "/act/Respond?kind=decline"},
	} {
		x.as(f.who)
		x.goTo(f.path)
		x.fits(f.path + ", empty")
		if n := eval[int](x, fillHostile+"("+strconv.Quote(text)+")"); n == 0 {
			t.Errorf("%s has no field for text", f.path)
		}
		x.follow("form.act .do button")
		x.looked(f.path+", filled in", false) // what is signed, or refused: it stands in its field again
		if eval[bool](x, "document.querySelector('form.sign') !== null") {
			x.follow("form.sign button")
			x.fits(f.path + ", signed")
		}
	}
	refusedWhenSigned(t, x, bad)
}

// refusedWhenSigned: somebody takes the place while another reads what is signed.
func refusedWhenSigned(t *testing.T, x *tab, bad *testenv.Story) {
	x.as("theo")
	x.goTo("/incidents/" + bad.ID + "/act/Respond?kind=accept&subject=testing%2F1")
	x.do(chromedp.SetValue(`[name="accept.contact_path"]`, markup))
	x.follow("form.act .do button")
	bad.Do("tina", &emergencyv1.RespondRequest{Answer: &emergencyv1.RespondRequest_Accept{Accept: &emergencyv1.Acceptance{Slot: "testing/1", ContactPath: "phone", OnStandby: true}}})
	x.follow("form.sign button")
	x.everywhere("refused when it was signed")
	if said := eval[string](x, "document.querySelector('main').innerText"); !strings.Contains(said, "Not recorded") || !strings.Contains(said, "SLOT_TAKEN") {
		t.Errorf("a place that is taken meanwhile: %s", said)
	}
}

// keyboardForm declares a drill with nothing but the keys.
func keyboardForm(t *testing.T, browser context.Context, h *hour) {
	x := open(t, browser, h.Env, look{person: "carl", width: 1280})
	x.goTo("/declare")
	// to goes on with Tab until the focus is on something.
	to := func(selector string) {
		t.Helper()
		for range 60 {
			x.do(chromedp.KeyEvent(kb.Tab))
			if eval[bool](x, fmt.Sprintf("document.activeElement.matches(%q)", selector)) {
				if f := eval[focused](x, whatIsFocused); !f.Outline || !f.Visible {
					t.Errorf("the focus is not to be seen on %s: %+v", selector, f)
				}
				return
			}
		}
		t.Fatalf("Tab does not lead to %s", selector)
	}
	to(`textarea[name="symptom"]`)
	x.do(chromedp.KeyEvent("smoke in rack 4"))
	to(`input[name="severity"]`)
	to(`input[name="reason_class"]`)
	x.do(chromedp.KeyEvent(" "))
	to(`textarea[name="reason"]`)
	x.do(chromedp.KeyEvent("quarterly drill of the teams"))
	to(`input[name="drill"]`)
	x.do(chromedp.KeyEvent(" "))
	to(`form.act .do button`)
	x.leads("Enter on the form's button", chromedp.KeyEvent(kb.Enter))
	to(`form.sign button`)
	x.leads("Enter on the signature", chromedp.KeyEvent(kb.Enter))
	if said := eval[string](x, "document.body.innerText"); !strings.Contains(said, "Recorded at position") {
		t.Errorf("a drill declared by the keyboard is not recorded:\n%s", said)
	}
}
