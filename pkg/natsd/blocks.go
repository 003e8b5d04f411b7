// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/minio/highwayhash"
)

// Layout of a record in a block file of nats-server 2.15 (filestore.go): length with a flag in the top bit, sequence with two
// flags, time, length of the subject; then subject, headers with a length of their own if there are any, message, checksum. The
// checksum covers none of the lengths: of a message without headers nothing proves where its subject ends. Records of histories have headers.
const (
	recordHead    = 22
	recordSum     = highwayhash.Size64
	recordLeast   = recordHead + recordSum
	recordMost    = 32 << 20 // beyond it the server itself takes a length for damage
	tailMost      = 4 << 20  // longer than any one write
	recordHasHead = 1 << 31
	recordErased  = 1 << 63
	recordNote    = 1 << 62 // a note of a deletion, no message
)

// blockReader reads the records of one block file and proves their checksums.
type blockReader struct {
	sum *highwayhash.Digest64
	// message is called with the sequence of each record that is a message, in their order.
	message func(sequence uint64) error
}

// checksums are those of a store's file; the server keys them by the name of what is in it, so that a file in the wrong place shows.
func checksums(name string) (*highwayhash.Digest64, error) {
	key := sha256.Sum256([]byte(name))
	return highwayhash.NewDigest64(key[:])
}

// read reads a whole block. In the last block of a stream a half-written record may end it: a power cut in the middle of a
// write leaves that. It was never acknowledged, and the server cuts it off; torn is its length. Anything else that does not
// verify is damage.
func (r *blockReader) read(block []byte, last bool) (torn int, err error) {
	for at := 0; at < len(block); {
		rest := block[at:]
		length, whole := r.record(rest)
		if !whole {
			if last && r.halfWritten(rest) {
				return len(rest), nil
			}
			return 0, fmt.Errorf("what is stored from byte %d on is not what was written", at)
		}
		seq := binary.LittleEndian.Uint64(rest[4:])
		if seq&recordNote == 0 && seq&recordErased == 0 && seq != 0 {
			if err := r.message(seq); err != nil {
				return 0, err
			}
		}
		at += length
	}
	return 0, nil
}

// record tells how long the record is with which b begins, and whether it is whole.
func (r *blockReader) record(b []byte) (length int, whole bool) {
	if len(b) < recordLeast {
		return 0, false
	}
	length = int(binary.LittleEndian.Uint32(b) &^ recordHasHead)
	if length < recordLeast || length > recordMost || length > len(b) {
		return 0, false
	}
	return length, r.verifies(b[:length])
}

func (r *blockReader) verifies(record []byte) bool {
	subject := int(binary.LittleEndian.Uint16(record[20:]))
	text := subject
	headers := binary.LittleEndian.Uint32(record)&recordHasHead != 0
	if headers {
		text += 4 // the length of the headers
	}
	data, sum := record[recordHead:len(record)-recordSum], record[len(record)-recordSum:]
	if text > len(data) {
		return false
	}
	if headers && !headersEnd(data[text:], binary.LittleEndian.Uint32(data[subject:])) {
		return false
	}
	r.sum.Reset()
	_, _ = r.sum.Write(record[4:20]) // never fails (hash.Hash)
	_, _ = r.sum.Write(data[:subject])
	_, _ = r.sum.Write(data[text:])
	var have [recordSum]byte
	return bytes.Equal(r.sum.Sum(have[:0]), sum)
}

// headersEnd tells whether the headers are where their length says.
func headersEnd(text []byte, length uint32) bool {
	if uint64(length) > uint64(len(text)) {
		return false
	}
	headers := text[:length]
	return bytes.HasPrefix(headers, []byte("NATS/1.0")) && bytes.HasSuffix(headers, []byte("\r\n\r\n"))
}

// halfWritten tells whether rest can be the beginning of a record whose writing was cut short, or space that the file system gave
// and nothing was written to. It is not if it has a whole record in it: then a length is what is damaged.
func (r *blockReader) halfWritten(rest []byte) bool {
	if len(bytes.TrimLeft(rest, "\x00")) == 0 {
		return true
	}
	if len(rest) < recordLeast {
		return true
	}
	length := int(binary.LittleEndian.Uint32(rest) &^ recordHasHead)
	if length <= len(rest) || length > recordMost || len(rest) > tailMost || r.verifies(rest) {
		return false
	}
	for at := 1; at+recordLeast <= len(rest); at++ {
		if _, whole := r.record(rest[at:]); whole {
			return false
		}
	}
	return true
}

// errUnexaminable is for files that are written in another way than our servers' configuration has it.
var errUnexaminable = errors.New("compressed or encrypted, which the configuration of `epatchd nats conf` never is")
