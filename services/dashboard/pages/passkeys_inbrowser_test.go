// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/testenv"
)

// hasAuthenticator gives a tab a device that makes passkeys and signs with them, whose person is always there.
func (x *tab) hasAuthenticator() {
	x.t.Helper()
	x.do(chromedp.Func(func(ctx context.Context, s *chromedp.Target) error {
		_, err := cdp.Call(ctx, s, webauthn.Enable, webauthn.EnableParams{})
		if err == nil {
			_, err = cdp.Call(ctx, s, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
				Protocol: "ctap2", Transport: "internal", HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
			}})
		}
		return err
	}))
}

// addsPasskey makes a passkey, and adds it by the demo key of whoever is signed in. It returns the key's id; look is called with
// what was made before it is added.
func (x *tab) addsPasskey(look func()) string {
	x.t.Helper()
	x.goTo("/passkeys")
	x.follow(`button[data-passkey-button]`)
	if look != nil {
		look()
	}
	x.follow(`form.sign button[name=demo]`)
	return eval[string](x, `document.querySelector('.panel.good code').innerText`)
}

// signedBy are the keys that have signed commands of a history, by command, and for those that were passkeys: person and key.
func signedBy(t *testing.T, env *testenv.Env, incident string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	check(t, env.As("carla").Records(t.Context(), incident, func(signed *emergencyv1.SignedRecord) error {
		rec := &emergencyv1.Record{}
		err := proto.Unmarshal(signed.GetRecord(), rec)
		if a := rec.GetApproval(); err == nil && a.GetPasskey() != nil && procedure.Forwarded(rec.GetActor()) {
			key := rec.GetActor().GetPerson() + " " + a.GetKeyId()
			found[rec.GetCommand()] = append(found[rec.GetCommand()], key)
		}
		return err
	}))
	return found
}

// TestPasskeyInBrowser makes a passkey in a real browser's authenticator, adds it to the rule book, and gives a command that it has
// signed. The record is verified as by a reader who believes no service.
func TestPasskeyInBrowser(t *testing.T) {
	t.Parallel()
	browser := startBrowser(t)
	env := testenv.Start(t, testenv.Options{})
	story := env.Play(testenv.Declared)
	x := open(t, browser, env, look{width: 390, named: true, within: 4 * testenv.Patience})
	x.hasAuthenticator()
	x.goTo("/home")
	x.follow(`//button[b/bdi[text()="carla"]]`)
	added := x.addsPasskey(func() { x.shoot("passkey-made-390") })
	x.goTo("/incidents/" + story.ID + "/act/AnnotateLog")
	x.do(chromedp.SetValue(`[name="entry"]`, "1"), chromedp.SendKeys(`[name="text"]`, "looked at by a passkey"))
	x.follow(`form.act .do button`)
	x.everywhere("what is signed, with a passkey")
	x.shoot("statement-passkey-390")
	x.follow(`form.sign button[data-passkey-button]`)
	x.until(fmt.Sprintf(`location.pathname === '/incidents/%s'`, story.ID))
	x.quiet("signing with a passkey")
	if by := signedBy(t, env, story.ID)["AnnotateLog"]; !slices.Equal(by, []string{"carla " + added}) {
		t.Errorf("signed by %v, added was %s", by, added)
	}
	if out, err := env.Epatch(env.API(), "carla", "history", "check").CombinedOutput(); err != nil {
		t.Errorf("history check: %v\n%s", err, out)
	}
}

// TestPasskeyTyped: a passkey that was made in a page is added on its person's own machine, by the line that the page says to type; and
// revoked in the page. What was revoked signs nothing more.
func TestPasskeyTyped(t *testing.T) {
	t.Parallel()
	browser := startBrowser(t)
	env := testenv.Start(t, testenv.Options{NoAgents: true})
	x := open(t, browser, env, look{width: 390, named: true, within: 4 * testenv.Patience})
	x.hasAuthenticator()
	x.goTo("/home")
	x.follow(`//button[b/bdi[text()="anna"]]`)
	x.goTo("/passkeys")
	x.follow(`button[data-passkey-button]`)
	x.isRoute(ofPasskeys, "POST /passkeys")
	id, line := eval[string](x, `document.querySelector('.digests code').innerText`), eval[string](x, `document.querySelector('section[aria-labelledby=typed] code').innerText`)
	args := strings.Fields(line)
	if len(args) != 5 || strings.Join(args[:4], " ") != "epatch key add --passkey" {
		t.Fatalf("to be typed is %q", line)
	}
	if out, err := env.Epatch(env.API(), "bert", args[1:]...).CombinedOutput(); err == nil || !strings.Contains(string(out), "another's key is for the Board") {
		t.Errorf("another person adds it: %v\n%s", err, out)
	}
	if out, err := env.Epatch(env.API(), "anna", append(args[1:4:4], args[4][:len(args[4])-8])...).CombinedOutput(); err == nil {
		t.Errorf("half of a passkey is added: %s", out)
	}
	out, err := env.Epatch(env.API(), "anna", args[1:]...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "key "+id+" added for anna") {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	x.until(`fetch('/passkeys').then(r => r.text()).then(s => s.includes('` + id + `'))`)
	x.goTo("/passkeys")
	x.do(chromedp.Click(".rows details summary"), chromedp.SendKeys(`[name=reason]`, "the phone is lost "+markup))
	x.everywhere("passkeys, one to be revoked")
	x.follow(`.rows details form button`)
	x.isRoute(ofPasskeys, "POST /passkeys/revoke")
	x.follow(`form.sign button[data-passkey-button]`)
	if said := eval[string](x, `document.querySelector('.panel.good code').innerText`); said != id || eval[bool](x, "typeof window.pwned !== 'undefined'") {
		t.Errorf("revoked is %q, or what was written ran", said)
	}
	x.until(`fetch('/passkeys').then(r => r.text()).then(s => !s.includes('name="key" value="` + id + `"'))`)
	if out, err := env.Epatch(env.API(), "anna", "key", "list").CombinedOutput(); err != nil || !strings.Contains(string(out), "passkey for localhost") || !strings.Contains(string(out), "revoked") {
		t.Errorf("key list: %v\n%s", err, out)
	}
}
