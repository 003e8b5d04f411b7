// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"google.golang.org/protobuf/types/known/timestamppb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/testenv"
)

// disputed has the emergency disputed and ruled on, in words of whoever means harm, and returns the names in its paths.
func (h *hour) disputed() names {
	s := h.story
	s.Do("carla", &emergencyv1.FileDisputeRequest{
		Concern: emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1, Claimants: []string{"carla"}, Respondents: []string{"the emergency teams", markup}, Complaint: "it went too fast\n" + markup + turned + endless, Relief: "a review " + markup,
	})
	dispute := s.State().Disputes[0].ID
	s.Do("casper", &emergencyv1.OpenCaseRequest{Dispute: dispute, CaseNumber: "a20261125.7"})
	s.Do("casper", &emergencyv1.ProposeArbitratorRequest{Dispute: dispute, Candidate: "arno"})
	s.Do("arno", &emergencyv1.RespondAppointmentRequest{Dispute: dispute, Accept: true, NoConflict: true})
	s.Do("arno", &emergencyv1.RecordPreliminariesRequest{Dispute: dispute, Jurisdiction: "CCA 3.2, DRP 2.1", Law: "NSW, Australia"})
	ruling := &emergencyv1.DeliverRulingRequest{
		Dispute: dispute, Parties: "as filed " + markup, Facts: "as the log says, 1 to 20\n\n" + strings.Repeat("What happened is told at length. ", 40), Logic: "nothing else would have helped in time", Place: "Berlin " + markup,
		Directions: []*emergencyv1.Order{{Person: "carla", Text: "write the procedure down " + markup, DueAt: timestamppb.New(time.Now().AddDate(0, 6, 0))}},
	}
	for _, d := range s.State().Disputes[0].Deviations {
		ruling.Judgements = append(ruling.Judgements, &emergencyv1.Judgement{Position: d.Position, Deviation: d.Deviation, Finding: emergencyv1.Finding_FINDING_JUSTIFIED})
	}
	s.Do("arno", ruling)
	return names{"id": s.ID, "dispute": dispute, "patch": "P1r2"}
}

// hostileCase: what the parties wrote is shown as it is to those who ask for it, in the case and in the dossier.
func hostileCase(t *testing.T, browser context.Context, env *testenv.Env, n names) {
	x := open(t, browser, env, look{person: "arno", width: 390, within: wholeEmergency})
	for _, path := range []string{n.in("/incidents/{id}/cases/{dispute}"), n.in("/incidents/{id}/dossier")} {
		x.goTo(path)
		x.follow(".askall button")
		x.fits(path + ", with its restricted values")
		if !eval[bool](x, `document.body.innerText.includes('<script>window.pwned=1</script>')`) {
			t.Errorf("%s: what somebody wrote is not shown as it is", path)
		}
	}
}

// askedByKeyboard goes to the first value by Tab, asks for it by Enter, and reads it where it stands.
func askedByKeyboard(t *testing.T, browser context.Context, env *testenv.Env, n names) {
	x := open(t, browser, env, look{person: "casper", width: 1280})
	x.goTo(n.in("/incidents/{id}/cases/{dispute}"))
	for range 80 {
		x.do(chromedp.KeyEvent(kb.Tab))
		f := eval[focused](x, whatIsFocused)
		if eval[bool](x, "!!document.activeElement.closest('.secret')") {
			if f.Tag != "BUTTON" || !f.Outline || !f.Visible {
				t.Errorf("the focus is not to be seen on %+v", f)
			}
			x.leads("Enter", chromedp.KeyEvent(kb.Enter))
			if shown := eval[string](x, "document.querySelector('.secret .said').innerText"); shown != "carla" {
				t.Errorf("the claimant reads %q", shown)
			}
			return
		}
	}
	t.Error("Tab does not lead to a restricted value")
}

func casesWithoutScript(t *testing.T, browser context.Context, env *testenv.Env, n names) {
	x := open(t, browser, env, look{person: "arno", width: 390, still: true})
	x.goTo("/docket?show=all")
	x.follow(".docket .what a")
	x.follow(".askall button")
	if said := eval[string](x, "document.body.innerText"); !strings.Contains(said, "it went too fast") || !strings.Contains(said, "It is written down that you read this") {
		t.Errorf("case without JavaScript: %s", said)
	}
	x.goTo(n.in("/incidents/{id}/dossier"))
	x.follow(".filters button")
	x.do(chromedp.Click(".cite"))
	if at := eval[string](x, "location.hash"); !strings.HasPrefix(at, "#p") {
		t.Errorf("a sentence leads to %q", at)
	}
}

// dossierOnPaper: nothing of the frame is printed, nothing is cut off at the width of A4, and events, hashes and what has no evidence
// are there.
func dossierOnPaper(t *testing.T, browser context.Context, env *testenv.Env, n names) {
	x := open(t, browser, env, look{person: "arno", width: 673}) // A4 less its margins, at 96 dpi
	x.goTo(n.in("/incidents/{id}/dossier"))
	x.do(chromedp.Func(func(ctx context.Context, s *chromedp.Target) error {
		_, err := cdp.Call(ctx, s, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"})
		return err
	}))
	x.shoot("dossier-print")
	if wide := eval[string](x, tooWide); wide != "" {
		t.Errorf("wider than the paper: %s", wide)
	}
	for _, hidden := range []string{".top nav", ".clockbar", ".filters", ".askall", ".crumb"} {
		if eval[bool](x, fmt.Sprintf("!![...document.querySelectorAll(%q)].find(e => e.checkVisibility())", hidden)) {
			t.Errorf("%s is printed", hidden)
		}
	}
	said := eval[string](x, "document.querySelector('.dossier').innerText")
	for _, want := range []string{"no evidence", "[1]", "Events referred to", "Evidence root"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not printed", want)
		}
	}
	if n := eval[int](x, `[...document.querySelectorAll('.eventlist .hash code')].filter(e => /^[0-9a-f]{64}$/.test(e.innerText) && e.checkVisibility()).length`); n < 10 {
		t.Errorf("%d hashes are printed", n)
	}
}
