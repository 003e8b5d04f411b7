// SPDX-License-Identifier: Apache-2.0

package history

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// MaxSigned is the most bytes a sealed record may have. With its headers it must stay below the 1 MiB that the stream
// takes (hardening 4); larger things are artefacts.
const MaxSigned = 1<<20 - 16<<10

// ErrTooLarge is returned by Seal and Store.Append for a record that no store takes. Nothing was stored; the caller
// refuses the command, since trying again cannot help.
var ErrTooLarge = errors.New("record is too large")

// Signer seals records for one service.
type Signer struct {
	KeyID string // KeyID of the key's public half
	Key   ed25519.PrivateKey
}

// NewSigner returns the signer of a private key.
func NewSigner(key ed25519.PrivateKey) (Signer, error) {
	if len(key) != ed25519.PrivateKeySize {
		return Signer{}, fmt.Errorf("signing key has %d bytes, an Ed25519 private key has %d", len(key), ed25519.PrivateKeySize)
	}
	id, err := KeyID(key.Public().(ed25519.PublicKey))
	if err != nil {
		return Signer{}, err
	}
	return Signer{KeyID: id, Key: key}, nil
}

// KeyID names a public key: SHA-256 of its SubjectPublicKeyInfo, lower-case hex.
func KeyID(public ed25519.PublicKey) (string, error) {
	if len(public) != ed25519.PublicKeySize {
		return "", fmt.Errorf("public key has %d bytes, an Ed25519 key has %d", len(public), ed25519.PublicKeySize)
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	return hexHash(spki), nil
}

// Seal encodes a record once, signs it and wraps it. The result is final: what is stored, hashed and verified from now
// on are these bytes. hash is what the next record names as prev_hash.
func Seal(rec *emergencyv1.Record, signer Signer) (signed []byte, hash string, err error) {
	if len(signer.Key) != ed25519.PrivateKeySize || signer.KeyID == "" {
		return nil, "", errors.New("seal record: signer has no key")
	}
	record, err := proto.MarshalOptions{Deterministic: true}.Marshal(rec)
	if err != nil {
		return nil, "", fmt.Errorf("seal record: %w", err)
	}
	signed, err = proto.MarshalOptions{Deterministic: true}.Marshal(&emergencyv1.SignedRecord{
		Record:    record,
		KeyId:     signer.KeyID,
		Signature: ed25519.Sign(signer.Key, procedure.PAE(procedure.RecordPayloadType, record)),
	})
	if err != nil {
		return nil, "", fmt.Errorf("seal record: %w", err)
	}
	if len(signed) > MaxSigned {
		return nil, "", fmt.Errorf("seal record: %w: %d bytes, the limit is %d; keep large things as artefacts", ErrTooLarge, len(signed), MaxSigned)
	}
	return signed, hexHash(record), nil
}

// Genesis is the prev_hash of an incident's first record: it binds the whole chain to the incident (procedure.md 0.7).
func Genesis(incident string) string { return hexHash([]byte("emergency/" + incident)) }

func hexHash(b []byte) string {
	sum := sha256.Sum256(b)
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], sum[:]) // one allocation, not two
	return string(text[:])
}
