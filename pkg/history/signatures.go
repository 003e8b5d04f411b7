// SPDX-License-Identifier: Apache-2.0

package history

import (
	"crypto/ed25519"
	"crypto/sha256"
	"sync"

	"cacert.org/emergency/pkg/procedure"
)

// verifiedKept is how many signatures a keyring remembers as good. A process reads each new message several times, by its
// dispatchers, projections and effects; a signature costs far more than the digest by which it is recognised.
const verifiedKept = 4096

// signatures remembers messages whose signature was good, by the digest of all their bytes: the same bytes are good again. What
// it has forgotten, or never saw, is verified.
type signatures struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]bool
	order [][sha256.Size]byte // a ring, oldest at next
	next  int
}

// verify verifies an owner's signature over a record. raw are the bytes of the whole message.
func (v *signatures) verify(raw []byte, signed envelope, public ed25519.PublicKey) bool {
	digest := sha256.Sum256(raw)
	v.mu.Lock()
	known := v.known[digest]
	v.mu.Unlock()
	if known {
		return true
	}
	if !ed25519.Verify(public, procedure.PAE(procedure.RecordPayloadType, signed.record), signed.signature) {
		return false
	}
	v.remember(digest)
	return true
}

func (v *signatures) remember(digest [sha256.Size]byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known == nil {
		v.known = make(map[[sha256.Size]byte]bool, verifiedKept)
	}
	switch {
	case v.known[digest]:
		return
	case len(v.order) < verifiedKept:
		v.order = append(v.order, digest)
	default:
		delete(v.known, v.order[v.next])
		v.order[v.next] = digest
		v.next = (v.next + 1) % verifiedKept
	}
	v.known[digest] = true
}
