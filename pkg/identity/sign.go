// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// minRSABits is the shortest RSA key that procedure.VerifySignature accepts.
const minRSABits = 2048

// SignStatement encodes a statement and signs it with the person's key. What it returns is final: the payload's bytes
// are what was signed and are never encoded again. procedure.OpenApproval verifies it.
func SignStatement(signer crypto.Signer, st *emergencyv1.Statement) (*emergencyv1.Approval, error) {
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("encode statement: %w", err)
	}
	return SignPayload(signer, procedure.StatementPayloadType, payload)
}

// SignPayload signs bytes of a named type in DSSE form.
func SignPayload(signer crypto.Signer, payloadType string, payload []byte) (*emergencyv1.Approval, error) {
	if err := checkSigner(signer); err != nil {
		return nil, err
	}
	id, err := KeyID(signer.Public())
	if err != nil {
		return nil, err
	}
	message, hash := procedure.PAE(payloadType, payload), crypto.Hash(0)
	if _, pure := signer.Public().(ed25519.PublicKey); !pure {
		sum := sha256.Sum256(message)
		message, hash = sum[:], crypto.SHA256
	}
	sig, err := signer.Sign(rand.Reader, message, hash)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return &emergencyv1.Approval{PayloadType: payloadType, Payload: payload, KeyId: id, Signature: sig}, nil
}

// checkSigner refuses keys whose signatures nobody would accept.
func checkSigner(signer crypto.Signer) error {
	if signer == nil {
		return errors.New("no signing key: load a profile with a key first")
	}
	switch k := signer.Public().(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("ecdsa key on curve %s: use P-256 or P-384", k.Curve.Params().Name)
	case *rsa.PublicKey:
		if k.N.BitLen() >= minRSABits {
			return nil
		}
		return fmt.Errorf("rsa key of %d bits: use at least %d", k.N.BitLen(), minRSABits)
	default:
		return fmt.Errorf("key of kind %T: use Ed25519, ECDSA or RSA", k)
	}
}
