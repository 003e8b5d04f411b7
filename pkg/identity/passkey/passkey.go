// SPDX-License-Identifier: Apache-2.0

// Package passkey carries passkeys between pages and the rules: what a script is asked for and what it sends back, at signing and when
// a passkey is made. Whether a signature counts is judged by package procedure alone, which verifies it again wherever it is read.
//
// A passkey that was made is nothing yet: it counts once its person, or the Board, has listed it in the rule book by AddKey
// (procedure.md 4.6). So this package asks for no attestation, and keeps nothing.
package passkey

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Fields of a form that a page's script fills in, base64url without padding.
const (
	FieldKey               = "passkey_key" // the credential id that signed
	FieldAuthenticatorData = "passkey_authenticator_data"
	FieldClientData        = "passkey_client_data"
	FieldSignature         = "passkey_signature"
	FieldMade              = "passkey_made" // what was made, as JSON
)

// Request is what a script needs to ask a person for a signature, as values for attributes of a page.
type Request struct {
	// Challenge is base64url of the challenge, RelyingParty the id of the relying party.
	Challenge, RelyingParty string
	// Credentials are the credential ids that may sign, base64url.
	Credentials []string
}

// RequestFor asks for a signature over the payload by one of a person's passkeys of a relying party; ok is false if there is none.
func RequestFor(payloadType string, payload []byte, keys []*emergencyv1.Key, relyingParty string) (r Request, ok bool) {
	r = Request{Challenge: procedure.PasskeyChallenge(payloadType, payload), RelyingParty: relyingParty}
	for _, k := range keys {
		if p := k.GetPasskey(); p.GetRelyingParty() == relyingParty {
			r.Credentials = append(r.Credentials, encode(p.GetCredentialId()))
		}
	}
	return r, len(r.Credentials) > 0
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// ErrNotSigned is what Approval returns of a form that no script has filled in.
var ErrNotSigned = errors.New("nothing was signed")

// Approval is the signature that a script has sent with a form, over the payload that the page showed. keys are the person's passkeys;
// which of them signed is found by its credential id. It is not verified here.
func Approval(value func(field string) string, payloadType string, payload []byte, keys []*emergencyv1.Key) (*emergencyv1.Approval, error) {
	if value(FieldSignature) == "" {
		return nil, ErrNotSigned
	}
	a := &emergencyv1.Approval{PayloadType: payloadType, Payload: payload, Passkey: &emergencyv1.PasskeyAssertion{}}
	var credential []byte
	for _, f := range []struct {
		name string
		to   *[]byte
	}{
		{FieldKey, &credential}, {FieldAuthenticatorData, &a.Passkey.AuthenticatorData}, {FieldClientData, &a.Passkey.ClientData}, {FieldSignature, &a.Signature},
	} {
		b, err := base64.RawURLEncoding.DecodeString(value(f.name))
		if err != nil || len(b) == 0 {
			return nil, fmt.Errorf("field %s is no base64url", f.name)
		}
		*f.to = b
	}
	for _, k := range keys {
		if string(k.GetPasskey().GetCredentialId()) == string(credential) {
			a.KeyId = k.GetKeyId()
			return a, nil
		}
	}
	return nil, errors.New("the passkey that signed is none that the rule book lists for you")
}

// Creation is what a script needs to have a passkey made.
type Creation struct {
	Challenge, RelyingParty string
	// User tells the authenticator whose it is: the person's id, base64url, and as people read it.
	User, Person string
	// Known are the credential ids that the person has already, so that no device makes a second one.
	Known []string
}

// madeType keeps a challenge for making a passkey apart from one for signing.
const madeType = "application/vnd.cacert.emergency.passkey.v1"

// CreationFor asks for a passkey of a person. session is what keeps it to this person's sign-in.
func CreationFor(person, session, relyingParty string, keys []*emergencyv1.Key) Creation {
	c := Creation{Challenge: creationChallenge(person, session), RelyingParty: relyingParty, User: encode([]byte(person)), Person: person}
	for _, k := range keys {
		if k.GetPasskey().GetRelyingParty() == relyingParty {
			c.Known = append(c.Known, encode(k.GetPasskey().GetCredentialId()))
		}
	}
	return c
}

func creationChallenge(person, session string) string {
	return procedure.PasskeyChallenge(madeType, []byte(person+"\n"+session))
}

// maxMade bounds what a script sends of a passkey that was made.
const maxMade = 8 << 10

// Made is the key that a script says was made for a person, in a page of an origin. It is not listed anywhere yet.
func Made(response, person, session, relyingParty, origin string) (*emergencyv1.Key, error) {
	if len(response) > maxMade {
		return nil, errors.New("what came back is larger than any passkey")
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes([]byte(response))
	if err != nil {
		return nil, fmt.Errorf("what came back is no passkey: %w", err)
	}
	var kinds []protocol.CredentialParameter
	for _, a := range []webauthncose.COSEAlgorithmIdentifier{webauthncose.AlgES256, webauthncose.AlgEdDSA, webauthncose.AlgRS256} {
		kinds = append(kinds, protocol.CredentialParameter{Type: protocol.PublicKeyCredentialType, Algorithm: a})
	}
	if _, err := parsed.Verify(creationChallenge(person, session), relyingParty, []string{origin}, nil, nil, protocol.TopOriginExplicitVerificationMode, false, true, true,
		nil, kinds, protocol.AttestationPolicy{}, protocol.SignaturePolicy{}); err != nil {
		return nil, fmt.Errorf("the passkey was not made here: %w", err)
	}
	credential := parsed.Response.AttestationObject.AuthData.AttData
	spki, err := publicKey(credential.CredentialPublicKey)
	if err != nil {
		return nil, err
	}
	return &emergencyv1.Key{
		KeyId: procedure.KeyID(spki), PublicKey: spki, Person: person,
		Passkey: &emergencyv1.Passkey{RelyingParty: relyingParty, CredentialId: credential.CredentialID},
	}, nil
}

// publicKey is a COSE key as SubjectPublicKeyInfo.
func publicKey(cose []byte) ([]byte, error) {
	k, err := webauthncose.ParsePublicKey(cose)
	if err != nil {
		return nil, fmt.Errorf("public key of the passkey: %w", err)
	}
	var public any
	switch k := k.(type) {
	case webauthncose.EC2PublicKeyData:
		public, err = k.ToECDSA()
	case webauthncose.OKPPublicKeyData:
		public = ed25519.PublicKey(k.XCoord)
	case webauthncose.RSAPublicKeyData:
		e, wrong := webauthncose.ParseRSAPublicKeyDataExponent(&k)
		public, err = &rsa.PublicKey{N: new(big.Int).SetBytes(k.Modulus), E: e}, wrong
	default:
		err = fmt.Errorf("keys of kind %T are not accepted", k)
	}
	if err != nil {
		return nil, fmt.Errorf("public key of the passkey: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("public key of the passkey: %w", err)
	}
	return spki, nil
}

// Token is a key as text, to be given to a command line. All of it is public.
func Token(k *emergencyv1.Key) (string, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(k)
	if err != nil {
		return "", fmt.Errorf("encode key: %w", err)
	}
	return encode(b), nil
}

// ParseToken reads what Token wrote: a passkey, whole.
func ParseToken(token string) (*emergencyv1.Key, error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	k := &emergencyv1.Key{}
	if err != nil || proto.Unmarshal(b, k) != nil || len(k.ProtoReflect().GetUnknown()) > 0 || k.GetPasskey() == nil || procedure.KeyID(k.GetPublicKey()) != k.GetKeyId() {
		return nil, errors.New("this is no passkey as the page shows it; copy it whole")
	}
	return k, nil
}
