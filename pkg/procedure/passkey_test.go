// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/identity/passkey/passkeytest"
	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const (
	relyingParty = "emergency.cacert.org"
	pageOrigin   = "https://emergency.cacert.org"
)

func statement() *emergencyv1.Statement {
	return &emergencyv1.Statement{Incident: pt.DefaultIncident, Command: "Forward", Person: "bert", RequestId: "request-0001", SignedAt: stampOf(pt.T0())}
}

// TestPasskey verifies what honest authenticators and browsers give, of each kind of key.
func TestPasskey(t *testing.T) {
	t.Parallel()
	get := func(origin string) func(*emergencyv1.Approval) []byte {
		return func(a *emergencyv1.Approval) []byte {
			return passkeytest.ClientData("webauthn.get", procedure.PasskeyChallenge(a.GetPayloadType(), a.GetPayload()), origin)
		}
	}
	text := func(format string) func(*emergencyv1.Approval) []byte {
		return func(a *emergencyv1.Approval) []byte {
			return fmt.Appendf(nil, format, procedure.PasskeyChallenge(a.GetPayloadType(), a.GetPayload()))
		}
	}
	honest := passkeytest.AuthenticatorData(relyingParty, passkeytest.Honest, 0)
	for _, algorithm := range []passkeytest.Algorithm{passkeytest.ES256, passkeytest.EdDSA, passkeytest.RS256} {
		for name, x := range map[string]struct {
			party  string
			data   []byte
			client func(*emergencyv1.Approval) []byte
		}{
			"page of the host":                     {relyingParty, honest, get(pageOrigin)},
			"on another port":                      {relyingParty, honest, get(pageOrigin + ":8443")},
			"page of a host below":                 {relyingParty, honest, get("https://www.emergency.cacert.org")},
			"shared with other devices, counting":  {relyingParty, passkeytest.AuthenticatorData(relyingParty, passkeytest.Honest|0x18, 4711), get(pageOrigin)},
			"with extensions":                      {relyingParty, passkeytest.AuthenticatorData(relyingParty, passkeytest.Honest|0x80, 1, 0xa0), get(pageOrigin)},
			"on this machine":                      {"localhost", passkeytest.AuthenticatorData("localhost", passkeytest.Honest, 0), get("http://localhost:8080")},
			"with names that nobody knows":         {relyingParty, honest, text(`{"other_keys_can_be_added_here":{"a":[1,{"b":null}],"c":1.5},"challenge":"%s","origin":"https://emergency.cacert.org","type":"webauthn.get","crossOrigin":false}`)},
			"without saying that it is not framed": {relyingParty, honest, text(`{ "type":"webauthn.get", "challenge":"%s", "origin":"https:\/\/emergency.cacert.org" }`)},
		} {
			p := passkeytest.New(algorithm, x.party)
			a := p.Approve(statement(), pageOrigin)
			a = p.Over(a, x.data, x.client(a))
			if st, err := procedure.OpenApproval(a, p.Key("bert")); err != nil || !proto.Equal(st, statement()) {
				t.Errorf("algorithm %d, %s: %v, %v", algorithm, name, st, err)
			}
		}
	}
}

// TestPasskeyHostile is what no signature may pass for: each is signed by the right key, or by none.
func TestPasskeyHostile(t *testing.T) {
	t.Parallel()
	p, stranger := passkeytest.New(passkeytest.ES256, relyingParty), passkeytest.New(passkeytest.ES256, relyingParty)
	good := p.Approve(statement(), pageOrigin)
	if _, err := procedure.OpenApproval(good, p.Key("bert")); err != nil {
		t.Fatal(err)
	}
	other := statement()
	other.Command = "RaiseVeto"
	challenge := procedure.PasskeyChallenge(good.GetPayloadType(), good.GetPayload())
	honest := passkeytest.AuthenticatorData(relyingParty, passkeytest.Honest, 0)
	data := func(data []byte) *emergencyv1.Approval { return p.Over(good, data, good.GetPasskey().GetClientData()) }
	client := func(format string, args ...any) *emergencyv1.Approval {
		return p.Over(good, honest, fmt.Appendf(nil, format, args...))
	}
	in := func(origin string) *emergencyv1.Approval {
		return p.Over(good, honest, passkeytest.ClientData("webauthn.get", challenge, origin))
	}
	changed := func(change func(*emergencyv1.Approval)) *emergencyv1.Approval { return with(good, change) }
	body := fmt.Sprintf(`"type":"webauthn.get","challenge":"%s","origin":"%s"`, challenge, pageOrigin)
	for name, a := range map[string]*emergencyv1.Approval{
		"for another statement": changed(func(a *emergencyv1.Approval) { a.Payload = p.Approve(other, pageOrigin).GetPayload() }),
		"for another type":      changed(func(a *emergencyv1.Approval) { a.PayloadType = procedure.RecordPayloadType }),
		"another's signature":   changed(func(a *emergencyv1.Approval) { a.Signature = stranger.Approve(statement(), pageOrigin).GetSignature() }),
		"signature cut":         changed(func(a *emergencyv1.Approval) { a.Signature = a.Signature[:len(a.Signature)-1] }),
		"no signature":          changed(func(a *emergencyv1.Approval) { a.Signature = nil }),
		"huge signature":        changed(func(a *emergencyv1.Approval) { a.Signature = append(a.Signature, make([]byte, 1<<20)...) }),
		"no data":               changed(func(a *emergencyv1.Approval) { a.Passkey.AuthenticatorData = nil }),
		"no client data":        changed(func(a *emergencyv1.Approval) { a.Passkey.ClientData = nil }),
		"nothing":               changed(func(a *emergencyv1.Approval) { a.Passkey = &emergencyv1.PasskeyAssertion{} }),
		"not as a passkey":      changed(func(a *emergencyv1.Approval) { a.Passkey = nil }),
		"plain over the statement": changed(func(a *emergencyv1.Approval) { // what the key would sign if it were no passkey
			a.Passkey, a.Signature = nil, nil
			message := procedure.PAE(a.GetPayloadType(), a.GetPayload())
			a.Signature = p.Sign(message[:len(message)-1], message[len(message)-1:])
		}),

		"truncated data":       data(honest[:36]),
		"data and more":        data(append(bytes.Clone(honest), 0)),
		"extensions missing":   data(passkeytest.AuthenticatorData(relyingParty, passkeytest.Honest|0x80, 0)),
		"huge extensions":      data(passkeytest.AuthenticatorData(relyingParty, passkeytest.Honest|0x80, 0, make([]byte, 2<<10)...)),
		"another host's":       data(passkeytest.AuthenticatorData("cacert.org", passkeytest.Honest, 0)),
		"nobody there":         data(passkeytest.AuthenticatorData(relyingParty, passkeytest.UserVerified, 0)),
		"nobody verified":      data(passkeytest.AuthenticatorData(relyingParty, passkeytest.UserPresent, 0)),
		"backed up, and never": data(passkeytest.AuthenticatorData(relyingParty, passkeytest.Honest|0x10, 0)),
		"made, not signed":     data(passkeytest.AuthenticatorData(relyingParty, passkeytest.Honest|0x40, 0)),

		"another challenge":     p.Over(good, honest, passkeytest.ClientData("webauthn.get", procedure.PasskeyChallenge("x", nil), pageOrigin)),
		"challenge padded":      p.Over(good, honest, passkeytest.ClientData("webauthn.get", challenge+"=", pageOrigin)),
		"no challenge":          p.Over(good, honest, passkeytest.ClientData("webauthn.get", "", pageOrigin)),
		"made in a page":        p.Over(good, honest, passkeytest.ClientData("webauthn.create", challenge, pageOrigin)),
		"another site":          in("https://evil.example"),
		"a site like it":        in("https://evilemergency.cacert.org"),
		"a site after it":       in("https://emergency.cacert.org.evil.example"),
		"a site above it":       in("https://cacert.org"),
		"without TLS":           in("http://emergency.cacert.org"),
		"this machine":          in("http://localhost"),
		"upper case":            in("https://EMERGENCY.cacert.org"),
		"with a path":           in(pageOrigin + "/"),
		"with a name":           in("https://me@emergency.cacert.org"),
		"another scheme":        in("android:apk-key-hash:emergency.cacert.org"),
		"no scheme":             in(relyingParty),
		"line end in it":        in("https://evil.example\nhttps://emergency.cacert.org"),
		"no origin":             in(""),
		"framed":                client(`{%s,"crossOrigin":true}`, body),
		"framed by":             client(`{%s,"crossOrigin":false,"topOrigin":"https://evil.example"}`, body),
		"framed, as text":       client(`{%s,"crossOrigin":"true"}`, body),
		"framed, as null":       client(`{%s,"crossOrigin":null}`, body),
		"type as a list":        client(`{"type":["webauthn.get"],"challenge":"%s","origin":"%s"}`, challenge, pageOrigin),
		"names in upper case":   client(`{"Type":"webauthn.get","Challenge":"%s","Origin":"%s"}`, challenge, pageOrigin),
		"origin twice":          client(`{"origin":"https://evil.example",%s}`, body),
		"origin twice, escaped": client(`{"orig\u0069n":"https://evil.example",%s}`, body),
		"unknown name twice":    client(`{%s,"x":1,"x":2}`, body),
		"twice in the depth":    client(`{%s,"x":[{"y":1,"y":2}]}`, body),
		"too deep":              client(`{%s,"x":%s1%s}`, body, strings.Repeat("[", 20), strings.Repeat("]", 20)),
		"too deep by names":     client(`{%s,"x":%s1%s}`, body, strings.Repeat(`{"a":`, 20), strings.Repeat("}", 20)),
		"huge":                  client(`{%s,"x":"%s"}`, body, strings.Repeat("x", 5<<10)),
		"something after it":    client(`{%s}{}`, body),
		"not ended":             client(`{%s`, body),
		"a list":                client(`[{%s}]`, body),
		"no commas":             client(`{"type":"webauthn.get" "challenge":"%s" "origin":"%s"}`, challenge, pageOrigin),
		"no UTF-8":              client("{%s,\"x\":\"\xff\"}", body),
		"type missing":          client(`{"challenge":"%s","origin":"%s"}`, challenge, pageOrigin),
	} {
		if _, err := procedure.OpenApproval(a, p.Key("bert")); err == nil {
			t.Errorf("%s: verifies", name)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: the message has several lines: %v", name, err)
		}
	}
	for i := range good.GetPasskey().GetAuthenticatorData() { // each byte counts, the counter's too: they are signed
		a := changed(func(a *emergencyv1.Approval) { a.Passkey.AuthenticatorData[i] ^= 1 })
		if _, err := procedure.OpenApproval(a, p.Key("bert")); err == nil {
			t.Errorf("byte %d of the authenticator's data flipped: verifies", i)
		}
	}
	for i := range good.GetPasskey().GetClientData() {
		a := changed(func(a *emergencyv1.Approval) { a.Passkey.ClientData[i] ^= 1 })
		if _, err := procedure.OpenApproval(a, p.Key("bert")); err == nil {
			t.Errorf("byte %d of the client data flipped: verifies", i)
		}
	}
	for name, key := range map[string]*emergencyv1.Key{
		"an ordinary key":             {KeyId: p.Key("").GetKeyId(), PublicKey: p.Public, Person: "bert"},
		"for another host":            with(p.Key("bert"), func(k *emergencyv1.Key) { k.Passkey.RelyingParty = "cacert.org" }),
		"for no host":                 with(p.Key("bert"), func(k *emergencyv1.Key) { k.Passkey.RelyingParty = "" }),
		"another passkey":             stranger.Key("bert"),
		"of a kind that signs not so": with(p.Key("bert"), func(k *emergencyv1.Key) { k.PublicKey = p384() }),
		"of no kind":                  with(p.Key("bert"), func(k *emergencyv1.Key) { k.PublicKey = []byte("key") }),
	} {
		if _, err := procedure.OpenApproval(good, key); err == nil {
			t.Errorf("by a key that is listed as %s: verifies", name)
		}
	}
	plain := pt.KeyOf("bert").Sign(statement())
	listed := &emergencyv1.Key{KeyId: pt.KeyOf("bert").ID, PublicKey: pt.KeyOf("bert").Public, Person: "bert", Passkey: &emergencyv1.Passkey{RelyingParty: relyingParty}}
	if _, err := procedure.OpenApproval(plain, listed); err == nil {
		t.Error("a passkey signed without a browser: verifies")
	}
}

func p384() []byte {
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		panic(err)
	}
	public, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		panic(err)
	}
	return public
}

// withPasskey adds a person's passkey to the rule book that decisions see.
func withPasskey(t *testing.T, w *pt.World, p *passkeytest.Passkey, person string) {
	t.Helper()
	book, err := w.Book.With(w.Book.Position+1, pt.Founded(), &emergencyv1.KeyAdded{Key: p.Key(person)})
	if err != nil {
		t.Fatal(err)
	}
	w.Book = book
}

// TestPasskeySigns has a person sign by passkey: what is given in a page, and what is given over the own connection. The agent's gate
// takes an apply that was started so.
func TestPasskeySigns(t *testing.T) {
	t.Parallel()
	for _, forwarded := range []bool{true, false} {
		w := given(t, pt.Story(pt.Observed), pt.HandOn()).World()
		w.Forwarding = forwarded
		p := passkeytest.New(passkeytest.ES256, relyingParty)
		withPasskey(t, w, p, "carla")
		c := w.Prepare("carla", &emergencyv1.StartApplyRequest{})
		st, err := procedure.StatementFor(w.State, c, "carla", roleCA, w.Now)
		if err != nil {
			t.Fatal(err)
		}
		c.GetMeta().Approval = p.Approve(st, pageOrigin)
		pt.GivenWorld(t, w).Counting(seen).When(c).By("carla").Then("ApplyStarted")
		if refusal := procedure.HostGate(w.State, "P1r1", pt.Host, w.Book, w.Now); refusal != nil {
			t.Error(refusal)
		}
		a := w.Records[len(w.Records)-1].GetActor()
		if a.GetPerson() != "carla" || forwarded != (a.GetKeyId() == procedure.KeyID(p.Public)) {
			t.Errorf("recorded as %v", a)
		}
	}
}

// TestPasskeyIsNoConnection: whoever has a passkey's public key in a certificate is not its person.
func TestPasskeyIsNoConnection(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Called)).World()
	p := passkeytest.New(passkeytest.ES256, relyingParty)
	withPasskey(t, w, p, "carla")
	as := pt.WithEnv(func(e *procedure.Env) { e.Actor = procedure.Actor{KeyID: procedure.KeyID(p.Public)} })
	pt.GivenWorld(t, w).Counting(seen).When(note()).By("carla", as).ThenRefused(procedure.ReasonKeyUnknown)
	if _, refusal := procedure.Recognise(w.Book, procedure.KeyID(p.Public), w.Now); refusal == nil {
		t.Error("a connection is recognised by a passkey")
	}
}

// TestAddPasskey is 4.6 for passkeys: by the person with an existing key, a passkey too, or by the Board.
func TestAddPasskey(t *testing.T) {
	t.Parallel()
	p := passkeytest.New(passkeytest.ES256, relyingParty)
	add := func(change func(*emergencyv1.Key)) procedure.Command {
		k := p.Key("anna")
		if change != nil {
			change(k)
		}
		return &emergencyv1.AddKeyRequest{Key: k}
	}
	long := make([]byte, 1024)
	runRuleBook(t, []row{
		{name: "the own", when: add(nil), by: "anna", then: events("KeyAdded"), check: func(t *testing.T, w *pt.World) {
			t.Helper()
			if keys := w.Book.PasskeysOf("anna", w.Now); len(keys) != 1 || keys[0].GetKeyId() != procedure.KeyID(p.Public) {
				t.Errorf("passkeys %v", keys)
			}
			if keys := w.Book.KeysOf("anna", w.Now); len(keys) != 2 {
				t.Errorf("other keys %v", keys)
			}
		}},
		{name: "by the Board", when: add(nil), by: "bea", then: events("KeyAdded")},
		{name: "another's", when: add(nil), by: "bert", refused: procedure.ReasonRole},
		{name: "on this machine", when: add(func(k *emergencyv1.Key) { k.Passkey.RelyingParty = "localhost" }), by: "anna", then: events("KeyAdded")},
		{name: "of a system", when: add(func(k *emergencyv1.Key) {
			k.Person, k.System, k.SystemName = "", emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT, "www9"
		}), by: "bea", refused: procedure.ReasonField},
		{name: "for a whole domain", when: add(func(k *emergencyv1.Key) { k.Passkey.RelyingParty = "org" }), by: "anna", refused: procedure.ReasonField},
		{name: "for an address", when: add(func(k *emergencyv1.Key) { k.Passkey.RelyingParty = "192.0.2.7" }), by: "anna", refused: procedure.ReasonField},
		{name: "for an origin", when: add(func(k *emergencyv1.Key) { k.Passkey.RelyingParty = pageOrigin }), by: "anna", refused: procedure.ReasonField},
		{name: "in upper case", when: add(func(k *emergencyv1.Key) { k.Passkey.RelyingParty = "Emergency.cacert.org" }), by: "anna", refused: procedure.ReasonField},
		{name: "for no host", when: add(func(k *emergencyv1.Key) { k.Passkey.RelyingParty = "" }), by: "anna", refused: procedure.ReasonField},
		{name: "without a name", when: add(func(k *emergencyv1.Key) { k.Passkey.CredentialId = nil }), by: "anna", refused: procedure.ReasonField},
		{name: "with a long name", when: add(func(k *emergencyv1.Key) { k.Passkey.CredentialId = long }), by: "anna", refused: procedure.ReasonField},
		{name: "of another kind", when: add(func(k *emergencyv1.Key) { k.PublicKey = p384(); k.KeyId = procedure.KeyID(k.GetPublicKey()) }), by: "anna", refused: procedure.ReasonField},
	})
}

// TestAddPasskeyByPasskey: one passkey adds the next, handed on by the dashboard.
func TestAddPasskeyByPasskey(t *testing.T) {
	t.Parallel()
	w := givenRuleBook(t, pt.HandOn()).World()
	first, next := passkeytest.New(passkeytest.EdDSA, relyingParty), passkeytest.New(passkeytest.ES256, relyingParty)
	withPasskey(t, w, first, "anna")
	c := w.Prepare("anna", &emergencyv1.AddKeyRequest{Key: next.Key("anna")})
	st, err := procedure.StatementFor(w.State, c, "anna", emergencyv1.Role_ROLE_MEMBER, w.Now)
	if err != nil {
		t.Fatal(err)
	}
	c.GetMeta().Approval = first.Approve(st, pageOrigin)
	pt.GivenWorld(t, w).Counting(seen).When(c).By("anna").Then("KeyAdded")
}

// FuzzPasskey verifies any data as a passkey's: never a panic, and nothing that the key did not sign verifies.
func FuzzPasskey(f *testing.F) {
	p := passkeytest.New(passkeytest.ES256, relyingParty)
	good := p.Approve(statement(), pageOrigin)
	f.Add(good.GetPasskey().GetAuthenticatorData(), good.GetPasskey().GetClientData(), good.GetSignature(), false)
	f.Add(good.GetPasskey().GetAuthenticatorData(), []byte(`{"type":"webauthn.get","challenge":"","origin":"https://emergency.cacert.org","x":[{}],"x":1}`), []byte{}, true)
	f.Add([]byte{}, []byte("{"), []byte{0x30, 0}, true)
	f.Fuzz(func(t *testing.T, data, client, signature []byte, sign bool) {
		a := with(good, func(a *emergencyv1.Approval) {
			a.Passkey = &emergencyv1.PasskeyAssertion{AuthenticatorData: data, ClientData: client}
			a.Signature = signature
		})
		if sign {
			a = p.Over(good, data, client)
		}
		_, err := procedure.OpenApproval(a, p.Key("bert"))
		same := bytes.Equal(data, good.GetPasskey().GetAuthenticatorData()) && bytes.Equal(client, good.GetPasskey().GetClientData())
		if err != nil {
			return
		}
		if !sign && !same {
			t.Fatalf("verifies without having been signed: %x, %q", data, client)
		}
		sum := sha256.Sum256([]byte(relyingParty)) // signed by the key: then it must say what counts, whatever else it says
		says := map[string]any{}
		err = json.Unmarshal(client, &says)
		if err != nil || !bytes.HasPrefix(data, sum[:]) || data[32]&0x05 != 0x05 || says["challenge"] != procedure.PasskeyChallenge(a.GetPayloadType(), a.GetPayload()) || says["origin"] != pageOrigin && !strings.HasSuffix(fmt.Sprint(says["origin"]), "."+relyingParty) && !strings.HasPrefix(fmt.Sprint(says["origin"]), pageOrigin+":") {
			t.Fatalf("verifies: %x, %q", data, client)
		}
	})
}
