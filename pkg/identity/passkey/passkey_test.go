// SPDX-License-Identifier: Apache-2.0

package passkey_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/identity/passkey"
	"cacert.org/emergency/pkg/identity/passkey/passkeytest"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const (
	party  = "emergency.cacert.org"
	origin = "https://emergency.cacert.org"
)

// TestMade takes what an authenticator makes, of each kind of key, and nothing that was made elsewhere, for somebody else or without
// the person having been verified.
func TestMade(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []passkeytest.Algorithm{passkeytest.ES256, passkeytest.EdDSA, passkeytest.RS256} {
		p := passkeytest.New(algorithm, party)
		challenge := passkey.CreationFor("anna", "session", party, nil).Challenge
		made := string(p.Created(challenge, origin, passkeytest.Honest))
		got, err := passkey.Made(made, "anna", "session", party, origin)
		if err != nil || !proto.Equal(got, p.Key("anna")) {
			t.Errorf("algorithm %d: %v, %v", algorithm, got, err)
		}
		for name, x := range map[string]struct{ response, person, session, party, origin string }{
			"for another person":  {made, "bert", "session", party, origin},
			"at another sign-in":  {made, "anna", "other", party, origin},
			"for another host":    {made, "anna", "session", "cacert.org", origin},
			"in another page":     {made, "anna", "session", party, "https://evil.example"},
			"nobody verified":     {string(p.Created(challenge, origin, passkeytest.UserPresent)), "anna", "session", party, origin},
			"nobody there":        {string(p.Created(challenge, origin, passkeytest.UserVerified)), "anna", "session", party, origin},
			"cut":                 {made[:len(made)/2], "anna", "session", party, origin},
			"nothing":             {"", "anna", "session", party, origin},
			"huge":                {made + strings.Repeat(" ", 10<<10), "anna", "session", party, origin},
			"a signing challenge": {string(p.Created(procedure.PasskeyChallenge(procedure.StatementPayloadType, []byte("anna\nsession")), origin, passkeytest.Honest)), "anna", "session", party, origin},
		} {
			if k, err := passkey.Made(x.response, x.person, x.session, x.party, x.origin); err == nil {
				t.Errorf("%s: taken as %v", name, k)
			}
		}
	}
}

// TestToken carries a passkey to a command line and nothing else.
func TestToken(t *testing.T) {
	t.Parallel()
	k := passkeytest.New(passkeytest.ES256, party).Key("anna")
	token, err := passkey.Token(k)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := passkey.ParseToken(token); err != nil || !proto.Equal(got, k) {
		t.Errorf("%v, %v", got, err)
	}
	plain := proto.CloneOf(k)
	plain.Passkey = nil
	other := proto.CloneOf(k)
	other.KeyId = strings.Repeat("0", 64)
	for name, k := range map[string]*emergencyv1.Key{"no passkey": plain, "another id": other} {
		token, err := passkey.Token(k)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := passkey.ParseToken(token); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, token := range []string{"", "x", token[:len(token)-3], token + "!"} {
		if _, err := passkey.ParseToken(token); err == nil {
			t.Errorf("%q: taken", token)
		}
	}
}

// TestApproval makes an approval of what a script sends, which verifies; and of a form that was not signed, or by a passkey that is
// not the person's, none.
func TestApproval(t *testing.T) {
	t.Parallel()
	p, other := passkeytest.New(passkeytest.ES256, party), passkeytest.New(passkeytest.ES256, "elsewhere.cacert.org")
	keys := []*emergencyv1.Key{other.Key("anna"), p.Key("anna")}
	st := &emergencyv1.Statement{Incident: "e20261124.1", Command: "Close", Person: "anna", RequestId: "r-12345678", SignedAt: timestamppb.New(time.Unix(1800000000, 0))}
	payload, err := proto.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	request, ok := passkey.RequestFor(procedure.StatementPayloadType, payload, keys, party)
	encode := base64.RawURLEncoding.EncodeToString
	if !ok || request.RelyingParty != party || len(request.Credentials) != 1 || request.Credentials[0] != encode(p.Credential) {
		t.Fatalf("%+v", request)
	}
	if _, ok := passkey.RequestFor(procedure.StatementPayloadType, payload, keys[:1], party); ok {
		t.Error("a passkey of another host is asked for")
	}
	data, client := passkeytest.AuthenticatorData(party, passkeytest.Honest, 0), passkeytest.ClientData("webauthn.get", request.Challenge, origin)
	form := map[string]string{
		passkey.FieldKey: request.Credentials[0], passkey.FieldAuthenticatorData: encode(data), passkey.FieldClientData: encode(client), passkey.FieldSignature: encode(p.Sign(data, client)),
	}
	approval := func(change func(map[string]string)) (*emergencyv1.Approval, error) {
		f := map[string]string{}
		for k, v := range form {
			f[k] = v
		}
		change(f)
		return passkey.Approval(func(name string) string { return f[name] }, procedure.StatementPayloadType, payload, keys)
	}
	a, err := approval(func(map[string]string) {})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := procedure.OpenApproval(a, keys[1]); err != nil || !proto.Equal(got, st) || a.GetKeyId() != keys[1].GetKeyId() {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := approval(func(f map[string]string) { clear(f) }); !errors.Is(err, passkey.ErrNotSigned) {
		t.Errorf("an empty form: %v", err)
	}
	for name, change := range map[string]func(map[string]string){
		"a passkey of nobody": func(f map[string]string) { f[passkey.FieldKey] = encode([]byte("nobody")) },
		"no key":              func(f map[string]string) { delete(f, passkey.FieldKey) },
		"no base64":           func(f map[string]string) { f[passkey.FieldClientData] = "{}" },
		"no data":             func(f map[string]string) { delete(f, passkey.FieldAuthenticatorData) },
	} {
		if a, err := approval(change); err == nil || errors.Is(err, passkey.ErrNotSigned) {
			t.Errorf("%s: %v, %v", name, a, err)
		}
	}
}
