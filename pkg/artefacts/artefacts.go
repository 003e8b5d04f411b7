// SPDX-License-Identifier: Apache-2.0

// Package artefacts keeps large things (patches, recordings, documents) by the SHA-256 of their bytes. Events carry the
// reference, and the digest in the event decides what the bytes are: a store can lose an artefact, but not pass off
// another one.
//
// The package has no dependency; implementations are in memory and jetstream, and artefactstest is what both must pass.
package artefacts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// DefaultLimit is the most bytes an artefact may have where nothing else is configured: more than the recording of a console
// session, also if its watcher has let it grow. It bounds what a reader holds in memory.
const DefaultLimit = 256 << 20

// Ref names an artefact in an event.
type Ref struct {
	SHA256    string // digest of the bytes, 64 lower-case hex digits
	Size      int64  // bytes
	MediaType string // such as text/x-diff; says how to show the bytes, and is not covered by the digest
}

// Store keeps artefacts. Implementations are safe for concurrent use.
//
// Nothing is ever replaced or deleted through it. The caller gives ctx a deadline.
type Store interface {
	// Put reads r to its end and keeps the bytes. When it returns a Ref they are durable, and every Get that starts
	// afterwards finds them. Putting the same bytes again is no error and stores nothing new, except that it mends an
	// artefact that had become unreadable; the Ref has the media type of this call. More bytes than the store's limit:
	// ErrTooLarge. After any error the bytes may be stored or not; putting them again is the way to be sure.
	Put(ctx context.Context, r io.Reader, mediaType string) (Ref, error)

	// Get returns the bytes with this digest, none before all have been hashed again. ErrNotFound: never stored, or lost.
	// ErrCorrupt: what is stored under the digest is something else; the bytes have to come from where they came from
	// first. ErrDigest: not a digest. ErrTooLarge: the stored size is above the limit, and nothing was read.
	Get(ctx context.Context, sha256 string) ([]byte, error)
}

// Errors of a Store, to be tested with errors.Is.
var (
	ErrNotFound = errors.New("artefact is not in the store")
	ErrCorrupt  = errors.New("stored artefact is not what its digest says")
	ErrTooLarge = errors.New("artefact is larger than the limit")
	ErrDigest   = errors.New("digest is not 64 lower-case hex digits")
)

// CorruptError is ErrCorrupt with the digest that was asked for and what was found instead.
type CorruptError struct {
	SHA256 string
	Detail string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("artefact %s: %v: %s: get the bytes from their origin and store them again", e.SHA256, ErrCorrupt, e.Detail)
}

func (e *CorruptError) Unwrap() error { return ErrCorrupt }

// Digest is the SHA-256 of data as a Ref has it.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// CheckDigest returns ErrDigest unless s is written as a Ref has it: one artefact has one name.
func CheckDigest(s string) error {
	sum, err := hex.DecodeString(s)
	if err != nil || len(sum) != sha256.Size || hex.EncodeToString(sum) != s {
		return fmt.Errorf("%w: %.80q", ErrDigest, s)
	}
	return nil
}

// Verify returns a *CorruptError unless data has the digest. For implementations and for whoever got bytes elsewhere.
func Verify(sha256 string, data []byte) error {
	if got := Digest(data); got != sha256 {
		return &CorruptError{SHA256: sha256, Detail: fmt.Sprintf("%d bytes with digest %s", len(data), got)}
	}
	return nil
}

// Read takes what a Put is given, at most limit bytes, and names it. For implementations.
func Read(r io.Reader, limit int64, mediaType string) ([]byte, Ref, error) {
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(r, limit+1))
	if err != nil {
		return nil, Ref{}, fmt.Errorf("read artefact: %w", err)
	}
	if n > limit {
		return nil, Ref{}, fmt.Errorf("%w of %d bytes", ErrTooLarge, limit)
	}
	data := b.Bytes()
	return data, Ref{SHA256: Digest(data), Size: n, MediaType: mediaType}, nil
}
