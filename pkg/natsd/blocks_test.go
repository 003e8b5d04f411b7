// SPDX-License-Identifier: Apache-2.0

package natsd

import "testing"

// FuzzBlock: whatever a block file has in it, reading ends with an answer.
func FuzzBlock(f *testing.F) {
	f.Add([]byte{}, true)
	f.Add(make([]byte, recordLeast), false)
	f.Add([]byte("\xff\xff\xff\x7f----------------------------"), true)
	f.Fuzz(func(t *testing.T, block []byte, last bool) {
		sum, err := checksums("EMERGENCY-1")
		if err != nil {
			t.Fatal(err)
		}
		r := blockReader{sum: sum, message: func(uint64) error { return nil }}
		torn, err := r.read(block, last)
		if torn < 0 || torn > len(block) || err == nil && !last && torn > 0 {
			t.Errorf("torn %d of %d, %v", torn, len(block), err)
		}
	})
}
