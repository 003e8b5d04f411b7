// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// BlockSize is how many messages a block has: block n holds the sequences from n*BlockSize+1 on.
const BlockSize = 512

// BlockOf is the number of the block that a sequence is in.
func BlockOf(sequence uint64) uint64 { return (sequence - 1) / BlockSize }

// Verified remembers of which blocks of the log this installation has verified every signature, by the digest of the block's bytes, in a
// file. A start then reads a long log without verifying again what it verified before: signatures are most of what reading costs. The same
// bytes have the same good signatures; whose key it was, whether it may write this, and how the record continues its chain is asked each
// time. The file is as trusted as the folder it is in, which is the service's own; who checks a history for others (Verify, the offline
// verifier) never uses it. A nil Verified remembers nothing.
type Verified struct {
	path string

	mu      sync.Mutex
	blocks  map[uint64][sha256.Size]byte
	unsaved bool
}

// verifiedHead begins the file, whose rest is a number and a digest for each block, and at last a digest of all before it.
var verifiedHead = []byte("epatch verified blocks 1\n")

const verifiedEntry = 8 + sha256.Size

// OpenVerified reads the file. One that is missing remembers nothing; of one that is damaged nothing is believed, and err says so.
func OpenVerified(path string) (v *Verified, err error) {
	v = &Verified{path: path, blocks: map[uint64][sha256.Size]byte{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
	}
	if err != nil {
		return v, fmt.Errorf("read which signatures were verified: %w", err)
	}
	body, sum := b[:max(0, len(b)-sha256.Size)], b[max(0, len(b)-sha256.Size):]
	rest, ok := bytes.CutPrefix(body, verifiedHead)
	if want := sha256.Sum256(body); !ok || !bytes.Equal(sum, want[:]) || len(rest)%verifiedEntry != 0 {
		return v, fmt.Errorf("%s is damaged: every signature is verified again", path)
	}
	for ; len(rest) > 0; rest = rest[verifiedEntry:] {
		v.blocks[binary.BigEndian.Uint64(rest)] = [sha256.Size]byte(rest[8:verifiedEntry])
	}
	return v, nil
}

// Knows tells whether these messages are a whole block whose signatures were verified.
func (v *Verified) Knows(block []Message) bool {
	if v == nil || !whole(block) {
		return false
	}
	v.mu.Lock()
	want, ok := v.blocks[BlockOf(block[0].Sequence)]
	v.mu.Unlock()
	return ok && digestOf(block) == want
}

// Remember notes that the signatures of these messages are good, all of them. Less than a whole block is not remembered.
func (v *Verified) Remember(block []Message) {
	if v == nil || !whole(block) {
		return
	}
	number, digest := BlockOf(block[0].Sequence), digestOf(block)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.blocks[number] != digest {
		v.blocks[number], v.unsaved = digest, true
	}
}

// Save writes the file, if there is anything new.
func (v *Verified) Save() error {
	if v == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.unsaved {
		return nil
	}
	b := bytes.Clone(verifiedHead)
	for number, digest := range v.blocks {
		b = append(binary.BigEndian.AppendUint64(b, number), digest[:]...)
	}
	sum := sha256.Sum256(b)
	f, err := os.CreateTemp(filepath.Dir(v.path), filepath.Base(v.path)+".*")
	if err != nil {
		return fmt.Errorf("remember which signatures were verified: %w", err)
	}
	_, err = f.Write(append(b, sum[:]...))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), v.path)
	}
	if err != nil {
		return fmt.Errorf("remember which signatures were verified: %w", errors.Join(err, os.Remove(f.Name())))
	}
	v.unsaved = false
	return nil
}

func whole(block []Message) bool {
	return len(block) == BlockSize && (block[0].Sequence-1)%BlockSize == 0 && block[BlockSize-1].Sequence == block[0].Sequence+BlockSize-1
}

// digestOf covers the bytes of a block's messages and where each begins.
func digestOf(block []Message) (digest [sha256.Size]byte) {
	h := sha256.New()
	var length [8]byte
	for _, m := range block {
		binary.BigEndian.PutUint64(length[:], uint64(len(m.Data)))
		h.Write(length[:])
		h.Write(m.Data)
	}
	h.Sum(digest[:0])
	return digest
}
