// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Layout of a record in a block file of nats-server 2.15 (filestore.go): length with a flag in the top bit, sequence,
// time, length of the subject; then subject, headers, message, checksum.
const (
	recordHead    = 22
	recordLeast   = recordHead + 8
	recordMost    = MaxMessage + 64<<10 // and a subject
	recordHasHead = 1 << 31
)

// tornTails tells for each stream how many bytes of a half-written record end its last block. A power cut in the middle
// of a write leaves that; it was never acknowledged, and the server cuts it off. Cut-off bytes that are anything else were
// records. The server does not tell the two apart, and cuts while it starts, so this runs before.
//
// What stays undecided: the very last record, damaged after a crash in just its length, looks half-written. Only somebody
// who knows its sequence notices (Guard).
func tornTails(storeDir string, streams []string) (map[string]uint64, error) {
	torn := map[string]uint64{}
	for _, stream := range streams {
		block, err := lastBlock(filepath.Join(storeDir, "$G", "streams", stream, "msgs"))
		if err != nil {
			return nil, fmt.Errorf("look for a half-written record of %s: %w", stream, err)
		}
		torn[stream] = tornTail(block)
	}
	return torn, nil
}

func lastBlock(dir string) ([]byte, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	last, name := -1, ""
	for _, entry := range entries {
		number, isBlock := strings.CutSuffix(entry.Name(), ".blk")
		if n, err := strconv.Atoi(number); isBlock && err == nil && n > last {
			last, name = n, entry.Name()
		}
	}
	if name == "" {
		return nil, nil
	}
	return os.ReadFile(filepath.Join(dir, name))
}

// tornTail follows the lengths of the records to the end of the block, and returns how many bytes the last record has if
// it is not complete, else zero.
func tornTail(block []byte) uint64 {
	for len(block) > 0 {
		if len(block) < recordHead {
			return uint64(len(block))
		}
		length := binary.LittleEndian.Uint32(block) &^ recordHasHead
		if length < recordLeast || length > recordMost {
			return 0
		}
		if int(length) > len(block) {
			return uint64(len(block))
		}
		block = block[length:]
	}
	return 0
}
