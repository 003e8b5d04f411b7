// SPDX-License-Identifier: Apache-2.0

// Package vault keeps restricted values: what a history holds only as a commitment, SHA-256(salt || value), and what
// can be destroyed later without breaking it (procedure 0.8, 8.5). Each owner service has a vault of its own.
//
// A vault cannot show another value than the one committed to: every read recomputes the commitment. The salt has a fixed
// length, because the commitment does not say where the salt ends: otherwise one commitment could be opened in two ways.
//
// Who may read, and that reading is recorded (procedure 9), is the owner's business. No error text holds a value or salt.
//
// The package has no dependency; implementations are in memory and jetstream, and vaulttest is what both must pass.
package vault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

const (
	// SaltSize is the length of every salt in bytes. It hides values that could be guessed.
	SaltSize = sha256.Size
	// MaxValue is the most bytes of a value: it has to fit into one message. Larger things are artefacts.
	MaxValue = 512 << 10
)

// Store keeps the restricted values of one owner. Implementations are safe for concurrent use. The caller gives ctx a
// deadline. After any error of Put or Destroy the effect may have happened or not; repeating the call is always safe.
type Store interface {
	// Put keeps a value and its salt under their commitment, durably when it returns nil. The value belongs there before
	// the record that names the commitment is appended. Putting it again is no error. ErrCommitment: commitment is not
	// that of salt and value. ErrSalt, ErrTooLarge: their lengths. ErrDestroyed: it was destroyed and does not come back.
	Put(ctx context.Context, commitment string, salt, value []byte) error

	// Get returns the value and its salt, after checking them against the commitment. ErrNotFound: never stored, or lost.
	// ErrDestroyed: Destroy was called. ErrCorrupt: what is stored does not open the commitment. ErrCommitment: the
	// commitment is not 64 lower-case hex digits.
	Get(ctx context.Context, commitment string) (value, salt []byte, err error)

	// Destroy removes the value and its salt for good. That it was there stays known. As soon as it has an effect, Get
	// and Put answer ErrDestroyed; when it returns nil the bytes are gone as far as the implementation promises.
	// Destroying again is no error and finishes what was interrupted. ErrNotFound: there is no such value; so a wrong
	// commitment is noticed, and nobody reports a redaction that did not happen.
	Destroy(ctx context.Context, commitment string) error
}

// Errors of a Store, to be tested with errors.Is.
var (
	ErrNotFound   = errors.New("restricted value is not in the vault")
	ErrDestroyed  = errors.New("restricted value was destroyed")
	ErrCorrupt    = errors.New("stored restricted value does not open its commitment")
	ErrCommitment = errors.New("wrong commitment")
	ErrSalt       = fmt.Errorf("salt has not %d bytes", SaltSize)
	ErrTooLarge   = fmt.Errorf("restricted value has more than %d bytes", MaxValue)
)

// Seal checks what Put is given and returns the bytes to be stored: salt and value in one piece, so that no reader can
// have one without the other. For implementations.
func Seal(commitment string, salt, value []byte) ([]byte, error) {
	switch {
	case len(salt) != SaltSize:
		return nil, fmt.Errorf("%w but %d", ErrSalt, len(salt))
	case len(value) > MaxValue:
		return nil, fmt.Errorf("%w: %d; store it as an artefact", ErrTooLarge, len(value))
	}
	sealed := make([]byte, 0, SaltSize+len(value))
	sealed = append(append(sealed, salt...), value...)
	if got := commit(sealed); got != commitment {
		return nil, fmt.Errorf("%w: %.80q, but salt and value have %s", ErrCommitment, commitment, got)
	}
	return sealed, nil
}

// Open checks stored bytes against the commitment and takes them apart. For implementations.
func Open(commitment string, sealed []byte) (value, salt []byte, err error) {
	if len(sealed) < SaltSize || commit(sealed) != commitment {
		return nil, nil, fmt.Errorf("%w: %s: %d bytes", ErrCorrupt, commitment, len(sealed))
	}
	return append([]byte{}, sealed[SaltSize:]...), append([]byte{}, sealed[:SaltSize]...), nil
}

// CheckCommitment returns ErrCommitment unless s is written as a commitment is: one value has one name.
func CheckCommitment(s string) error {
	sum, err := hex.DecodeString(s)
	if err != nil || len(sum) != sha256.Size || hex.EncodeToString(sum) != s {
		return fmt.Errorf("%w: %.80q is not 64 lower-case hex digits", ErrCommitment, s)
	}
	return nil
}

func commit(sealed []byte) string {
	sum := sha256.Sum256(sealed)
	return hex.EncodeToString(sum[:])
}
