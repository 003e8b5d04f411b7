// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/testenv"
)

// TestPasskeyInBrowser makes a passkey in a real browser's authenticator, adds it to the rule book, and gives a command that it has
// signed. The record is verified as by a reader who believes no service.
func TestPasskeyInBrowser(t *testing.T) {
	t.Parallel()
	browser := startBrowser(t)
	env := testenv.Start(t, testenv.Options{})
	story := env.Play(testenv.Declared)
	x := open(t, browser, env, look{width: 390, named: true, within: 4 * testenv.Patience})
	x.do(chromedp.Func(func(ctx context.Context, s *chromedp.Target) error {
		_, err := cdp.Call(ctx, s, webauthn.Enable, webauthn.EnableParams{})
		if err == nil {
			_, err = cdp.Call(ctx, s, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
				Protocol: "ctap2", Transport: "internal", HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
			}})
		}
		return err
	}))
	x.goTo("/home")
	x.follow(`//button[b/bdi[text()="carla"]]`)
	x.goTo("/passkeys")
	x.wellMade("passkeys")
	x.follow(`button[data-passkey-button]`)
	x.wellMade("a passkey that was made")
	x.shoot("passkey-made-390")
	x.follow(`form.sign button[name=demo]`)
	added := eval[string](x, `document.querySelector('.panel.good code').innerText`)
	x.goTo("/incidents/" + story.ID + "/act/AnnotateLog")
	x.do(chromedp.SetValue(`[name="entry"]`, "1"), chromedp.SendKeys(`[name="text"]`, "looked at by a passkey"))
	x.follow(`form.act .do button`)
	x.wellMade("what is signed, with a passkey")
	x.shoot("statement-passkey-390")
	x.follow(`form.sign button[data-passkey-button]`)
	x.until(fmt.Sprintf(`location.pathname === '/incidents/%s'`, story.ID))
	x.quiet("signing with a passkey")
	var found bool
	check(t, env.As("carla").Records(t.Context(), story.ID, func(signed *emergencyv1.SignedRecord) error {
		rec := &emergencyv1.Record{}
		if err := proto.Unmarshal(signed.GetRecord(), rec); err != nil || rec.GetCommand() != "AnnotateLog" {
			return err
		}
		found = true
		if a := rec.GetApproval(); a.GetPasskey() == nil || a.GetKeyId() != added || !procedure.Forwarded(rec.GetActor()) || rec.GetActor().GetPerson() != "carla" || rec.GetActor().GetRole() != emergencyv1.Role_ROLE_CRITICAL_ADMIN {
			t.Errorf("recorded as %v, signed by %s, added was %s", rec.GetActor(), a.GetKeyId(), added)
		}
		return nil
	}))
	if !found {
		t.Error("nothing is recorded")
	}
	if out, err := env.Epatch(env.API(), "carla", "history", "check").CombinedOutput(); err != nil {
		t.Errorf("history check: %v\n%s", err, out)
	}
}
