// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// A person signs in a page with a passkey (WebAuthn Level 3). What comes back is verified here and nowhere else, by the services, by
// the agents on the hosts and by whoever checks a history: that the key of the rule book signed, for this statement, in a page of the
// host it was made for, with the person there and recognised by the device.
//
// The signature counter is not looked at. A record is judged by itself, years later too, and passkeys that a person's devices share
// always say 0; what keeps a signature from counting twice is the request id in the statement.

// PasskeyChallenge is the challenge that a passkey signs for bytes of a payload type: base64url of SHA-256 of the DSSE
// pre-authentication encoding, as it stands in the client's data.
func PasskeyChallenge(payloadType string, payload []byte) string {
	sum := sha256.Sum256(PAE(payloadType, payload))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Sizes of what a passkey's signature comes with, in bytes. Authenticators give 37 and what extensions say, browsers a few hundred.
const (
	leastAuthenticatorData = 37
	mostAuthenticatorData  = 1 << 10
	mostClientData         = 4 << 10
	mostSignature          = 1 << 10
	mostCredentialID       = 1023
	mostClientDepth        = 8
)

// Flags of an authenticator's data (WebAuthn Level 3, 6.1).
const (
	flagUserPresent       = 1 << 0
	flagUserVerified      = 1 << 2
	flagBackupEligible    = 1 << 3
	flagBackedUp          = 1 << 4
	flagAttestedData      = 1 << 6
	flagExtensionsPresent = 1 << 7
)

// verifyPasskey verifies what a passkey signed (WebAuthn Level 3, 7.2).
func verifyPasskey(key *emergencyv1.Key, a *emergencyv1.Approval) error {
	p := a.GetPasskey()
	if len(p.GetClientData()) > mostClientData || len(p.GetAuthenticatorData()) > mostAuthenticatorData || len(a.GetSignature()) > mostSignature {
		return errors.New("what the passkey signed is larger than any device makes it")
	}
	if err := verifyClientData(p.GetClientData(), PasskeyChallenge(a.GetPayloadType(), a.GetPayload()), key.GetPasskey().GetRelyingParty()); err != nil {
		return fmt.Errorf("passkey: %w", err)
	}
	if err := verifyAuthenticatorData(p.GetAuthenticatorData(), key.GetPasskey().GetRelyingParty()); err != nil {
		return fmt.Errorf("passkey: %w", err)
	}
	public, err := passkeyPublic(key.GetPublicKey())
	if err != nil {
		return fmt.Errorf("passkey: %w", err)
	}
	sum := sha256.Sum256(p.GetClientData())
	return verifyMessage(public, slices.Concat(p.GetAuthenticatorData(), sum[:]), a.GetSignature())
}

func verifyAuthenticatorData(data []byte, relyingParty string) error {
	if len(data) < leastAuthenticatorData {
		return fmt.Errorf("the authenticator's data has %d bytes, at least %d are needed", len(data), leastAuthenticatorData)
	}
	want := sha256.Sum256([]byte(relyingParty))
	flags := data[32]
	switch has := func(f byte) bool { return flags&f != 0 }; {
	case !bytes.Equal(data[:32], want[:]):
		return fmt.Errorf("the authenticator signed for another host than %s", relyingParty)
	case !has(flagUserPresent):
		return errors.New("nobody was there when it was signed")
	case !has(flagUserVerified):
		return errors.New("the device did not verify who signs: set up a PIN, a fingerprint or the like")
	case has(flagBackedUp) && !has(flagBackupEligible):
		return errors.New("the passkey is said to be backed up, and that it never is")
	case has(flagAttestedData):
		return errors.New("the authenticator made a passkey and did not sign with one")
	case (len(data) > leastAuthenticatorData) != has(flagExtensionsPresent):
		return errors.New("the authenticator's data is not of the length that it says")
	}
	return nil
}

// verifyClientData checks what the browser says that was signed for.
func verifyClientData(data []byte, challenge, relyingParty string) error {
	c, err := decodeClientData(data)
	if err != nil {
		return fmt.Errorf("client data: %w", err)
	}
	switch {
	case c.typ != "webauthn.get":
		return fmt.Errorf("it was signed as %.40q, not as webauthn.get", c.typ)
	case c.challenge != challenge:
		return errors.New("it was signed for another statement")
	case c.crossOrigin || c.topOrigin:
		return errors.New("it was signed inside a page of another site")
	case !pageOf(c.origin, relyingParty):
		return fmt.Errorf("it was signed in a page of %.80q, the passkey is for https pages of %s", c.origin, relyingParty)
	}
	return nil
}

// clientData are the members of the client's data that count (WebAuthn Level 3, 5.8.1).
type clientData struct {
	typ, challenge, origin string
	crossOrigin, topOrigin bool
}

// decodeClientData reads the JSON without anything being left to how a decoder chooses: names are compared as they are, none may be
// there twice, at any depth, and nothing follows the object. Names that are not known are allowed.
func decodeClientData(data []byte) (clientData, error) {
	var c clientData
	if !utf8.Valid(data) {
		return c, errors.New("it is no UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return c, errors.New("it is no JSON object")
	}
	seen := map[string]bool{}
	err := eachMember(d, 1, func(name string, value any) error {
		seen[name] = true
		ok := true
		switch name {
		case "type":
			c.typ, ok = value.(string)
		case "challenge":
			c.challenge, ok = value.(string)
		case "origin":
			c.origin, ok = value.(string)
		case "crossOrigin":
			c.crossOrigin, ok = value.(bool)
		case "topOrigin":
			c.topOrigin = true
		}
		if !ok {
			return fmt.Errorf("%s is not of its kind", name)
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return c, errors.New("something follows it")
	}
	for _, name := range []string{"type", "challenge", "origin"} {
		if !seen[name] {
			return c, fmt.Errorf("%s is missing", name)
		}
	}
	return c, nil
}

// eachMember reads the members of an object that has begun, and its end. What a member holds that is no text, number, truth value or
// null is read and given as nil.
func eachMember(d *json.Decoder, depth int, use func(name string, value any) error) error {
	if depth > mostClientDepth {
		return errors.New("it is nested too deeply")
	}
	names := map[string]bool{}
	for {
		t, err := d.Token()
		if err != nil {
			return errors.New("it is no JSON")
		}
		if t == json.Delim('}') {
			return nil
		}
		name, ok := t.(string)
		if !ok || names[name] {
			return fmt.Errorf("%.40q is there twice", name)
		}
		names[name] = true
		value, err := readValue(d, depth)
		if err != nil {
			return err
		}
		if err := use(name, value); err != nil {
			return err
		}
	}
}

// readValue reads one value; of an object or list nothing is kept.
func readValue(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, errors.New("it is no JSON")
	}
	switch t {
	case json.Delim('{'):
		return nil, eachMember(d, depth+1, func(string, any) error { return nil })
	case json.Delim('['):
		if depth+1 > mostClientDepth {
			return nil, errors.New("it is nested too deeply")
		}
		for d.More() {
			if _, err := readValue(d, depth+1); err != nil {
				return nil, err
			}
		}
		if t, err := d.Token(); err != nil || t != json.Delim(']') {
			return nil, errors.New("it is no JSON")
		}
		return nil, nil
	}
	return t, nil
}

var (
	// relyingPartyForm is a host name in lower case: letters, digits and hyphens, with a dot in it; no address.
	relyingPartyForm = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)
	originForm       = regexp.MustCompile(`^(https?)://([a-z0-9.-]+)(:[1-9][0-9]{0,4})?$`)
)

// developmentHost is the one host whose pages need no TLS: a browser takes it for safe, since nothing leaves the machine.
const developmentHost = "localhost"

func isRelyingParty(id string) bool {
	return id == developmentHost || len(id) <= 253 && relyingPartyForm.MatchString(id)
}

// pageOf tells whether an origin is of a relying party: its host or one below it, over https; over http from this machine alone.
func pageOf(origin, relyingParty string) bool {
	m := originForm.FindStringSubmatch(origin)
	if m == nil || m[1] == "http" && m[2] != developmentHost {
		return false
	}
	return m[2] == relyingParty || strings.HasSuffix(m[2], "."+relyingParty)
}

// passkeyPublic is the public key of a passkey, of a kind whose signatures are verified: ES256, EdDSA or RS256.
func passkeyPublic(spki []byte) (any, error) {
	public, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return k, nil
		}
	case ed25519.PublicKey:
		return k, nil
	case *rsa.PublicKey:
		if k.N.BitLen() >= leastRSABits {
			return k, nil
		}
	}
	return nil, errors.New("a passkey signs by ES256, EdDSA or RS256 with at least 2048 bits")
}

// passkeyForm checks a key that is to be listed as a passkey (4.6 AddKey).
func passkeyForm(k *emergencyv1.Key) *Refusal {
	p := k.GetPasskey()
	if p == nil {
		return nil
	}
	switch _, err := passkeyPublic(k.GetPublicKey()); {
	case k.GetPerson() == "":
		return refuse(ReasonField, "a passkey is a person's")
	case !isRelyingParty(p.GetRelyingParty()):
		return refuse(ReasonField, "field key.passkey.relying_party must be the host name of the pages, such as emergency.cacert.org")
	case len(p.GetCredentialId()) == 0 || len(p.GetCredentialId()) > mostCredentialID:
		return refuse(ReasonField, "field key.passkey.credential_id must be 1 to %d bytes", mostCredentialID)
	case err != nil:
		return refuse(ReasonField, "field key.public_key: %v", err)
	}
	return nil
}
