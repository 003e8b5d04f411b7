// SPDX-License-Identifier: Apache-2.0

// Package passkeytest is an authenticator and a browser in software, for tests: it makes passkeys and signs with them as WebAuthn
// Level 3 says, and can be made to do what an honest one never does.
package passkeytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"slices"

	"github.com/fxamacker/cbor/v2"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Algorithm is a COSE algorithm.
type Algorithm int

// The algorithms that passkeys sign by.
const (
	ES256 Algorithm = -7
	EdDSA Algorithm = -8
	RS256 Algorithm = -257
)

// The flags of an honest signature: the person is there and was verified.
const (
	UserPresent  = 0x01
	UserVerified = 0x04
	Honest       = UserPresent | UserVerified
)

// Passkey is a key in an authenticator.
type Passkey struct {
	RelyingParty string
	Credential   []byte
	Public       []byte // SubjectPublicKeyInfo

	algorithm Algorithm
	signer    crypto.Signer
}

// New makes a passkey for a relying party.
func New(algorithm Algorithm, relyingParty string) *Passkey {
	var signer crypto.Signer
	var err error
	switch algorithm {
	case EdDSA:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	case RS256:
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case ES256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		panic(err) // a machine without randomness
	}
	public, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		panic(err) // all three kinds can be encoded
	}
	credential := sha256.Sum256(public)
	return &Passkey{RelyingParty: relyingParty, Credential: credential[:20], Public: public, algorithm: algorithm, signer: signer}
}

// Key is the passkey as the rule book lists it for a person.
func (p *Passkey) Key(person string) *emergencyv1.Key {
	return &emergencyv1.Key{
		KeyId: procedure.KeyID(p.Public), PublicKey: p.Public, Person: person,
		Passkey: &emergencyv1.Passkey{RelyingParty: p.RelyingParty, CredentialId: p.Credential},
	}
}

// ClientData is what a browser encodes, in its order.
func ClientData(typ, challenge, origin string) []byte {
	b, err := json.Marshal(struct {
		Type        string `json:"type"`
		Challenge   string `json:"challenge"`
		Origin      string `json:"origin"`
		CrossOrigin bool   `json:"crossOrigin"`
	}{typ, challenge, origin, false})
	if err != nil {
		panic(err) // texts can be encoded
	}
	return b
}

// AuthenticatorData is what an authenticator signs about itself, with a counter that went on, and more after it.
func AuthenticatorData(relyingParty string, flags byte, counter uint32, more ...byte) []byte {
	sum := sha256.Sum256([]byte(relyingParty))
	return append(binary.BigEndian.AppendUint32(append(sum[:], flags), counter), more...)
}

// Sign signs authenticator data and client data, whatever they say.
func (p *Passkey) Sign(authenticatorData, clientData []byte) []byte {
	sum := sha256.Sum256(clientData)
	message, hash := slices.Concat(authenticatorData, sum[:]), crypto.Hash(0)
	if p.algorithm != EdDSA {
		digest := sha256.Sum256(message)
		message, hash = digest[:], crypto.SHA256
	}
	signature, err := p.signer.Sign(rand.Reader, message, hash)
	if err != nil {
		panic(err) // none of the kinds fails to sign
	}
	return signature
}

// Approve signs a statement in a page of an origin.
func (p *Passkey) Approve(st *emergencyv1.Statement, origin string) *emergencyv1.Approval {
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(st)
	if err != nil {
		panic(err) // a statement of valid text can be encoded
	}
	a := &emergencyv1.Approval{PayloadType: procedure.StatementPayloadType, Payload: payload, KeyId: procedure.KeyID(p.Public)}
	return p.Over(a, AuthenticatorData(p.RelyingParty, Honest, 0), ClientData("webauthn.get", procedure.PasskeyChallenge(a.GetPayloadType(), payload), origin))
}

// Over completes an approval by a signature over the given data.
func (p *Passkey) Over(a *emergencyv1.Approval, authenticatorData, clientData []byte) *emergencyv1.Approval {
	n := proto.CloneOf(a)
	n.Signature = p.Sign(authenticatorData, clientData)
	n.Passkey = &emergencyv1.PasskeyAssertion{AuthenticatorData: authenticatorData, ClientData: clientData}
	return n
}

// Created is what a page's script sends after the passkey was made, as JSON of WebAuthn's RegistrationResponse, without attestation.
func (p *Passkey) Created(challenge, origin string, flags byte) []byte {
	key, err := cbor.Marshal(p.cose())
	if err != nil {
		panic(err)
	}
	attested := slices.Concat(make([]byte, 16), binary.BigEndian.AppendUint16(nil, uint16(len(p.Credential))), p.Credential, key)
	object, err := cbor.Marshal(map[string]any{
		"fmt": "none", "attStmt": map[string]any{}, "authData": AuthenticatorData(p.RelyingParty, flags|0x40, 0, attested...),
	})
	if err != nil {
		panic(err)
	}
	id, encode := base64.RawURLEncoding.EncodeToString(p.Credential), base64.RawURLEncoding.EncodeToString
	b, err := json.Marshal(map[string]any{
		"id": id, "rawId": id, "type": "public-key",
		"response": map[string]any{"clientDataJSON": encode(ClientData("webauthn.create", challenge, origin)), "attestationObject": encode(object)},
	})
	if err != nil {
		panic(err)
	}
	return b
}

// cose is the public key as an authenticator gives it (RFC 9052).
func (p *Passkey) cose() map[int]any {
	switch k := p.signer.Public().(type) {
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			panic(err) // it was generated
		}
		return map[int]any{1: 2, 3: int(p.algorithm), -1: 1, -2: point[1:33], -3: point[33:]}
	case ed25519.PublicKey:
		return map[int]any{1: 1, 3: int(p.algorithm), -1: 6, -2: []byte(k)}
	case *rsa.PublicKey:
		return map[int]any{1: 3, 3: int(p.algorithm), -1: k.N.Bytes(), -2: []byte{1, 0, 1}}
	}
	panic("no such kind of key")
}
