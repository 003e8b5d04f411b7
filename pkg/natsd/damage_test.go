// SPDX-License-Identifier: Apache-2.0

package natsd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/natsd"
)

// storeOf100 makes a store with 100 records and returns the folder of its stream. After a crash there is no summary of
// the stream; after a clean stop there is one, which the server prefers to reading its blocks.
func storeOf100(t *testing.T, crashed bool) (dir, stream string) {
	t.Helper()
	dir = t.TempDir()
	s := start(t, dir)
	js := connect(t, s)
	if err := natsd.Provision(t.Context(), js, small); err != nil {
		t.Fatal(err)
	}
	publish(t, js, "emergency.e20261124-1", 100)
	closeServer(t, s)
	stream = filepath.Join(dir, "jetstream", "$G", "streams", natsd.Stream)
	if crashed {
		if err := os.Remove(filepath.Join(stream, "msgs", "index.db")); err != nil {
			t.Fatal(err)
		}
	}
	return dir, stream
}

func change(t *testing.T, path string, how func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, how(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func flip(text string) func([]byte) []byte {
	return func(b []byte) []byte {
		b[bytes.Index(b, []byte(text))] ^= 1
		return b
	}
}

// TestDamagedStoreIsRefused damages the one block of the stream in every way we know.
func TestDamagedStoreIsRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name         string
		clean, crash bool // whether it can be noticed after a clean stop, after a crash
		file         string
		how          func([]byte) []byte
	}{
		{"bit of a record in the middle", true, true, "msgs/1.blk", flip("record 50")},
		{"bit of the last record", true, true, "msgs/1.blk", flip("record 99")},
		{"length of a record in the middle", true, true, "msgs/1.blk", func(b []byte) []byte {
			b[bytes.Index(b, []byte("emergency.e20261124-1record 50"))-20] ^= 0x40
			return b
		}},
		{"whole last record cut off", true, false, "msgs/1.blk", func(b []byte) []byte { return b[:bytes.LastIndex(b, []byte("emergency."))-22] }},
		{"part of the last record cut off", true, false, "msgs/1.blk", func(b []byte) []byte { return b[:len(b)-20] }},
		{"half of the block cut off", true, false, "msgs/1.blk", func(b []byte) []byte { return b[:len(b)/2] }},
		{"second half overwritten", true, true, "msgs/1.blk", func(b []byte) []byte {
			return append(b[:len(b)/2], bytes.Repeat([]byte{'x'}, len(b)/2)...)
		}},
		{"empty block", true, false, "msgs/1.blk", func([]byte) []byte { return nil }},
		{"settings changed", true, true, "meta.inf", flip(natsd.Stream)},
		{"settings empty", true, true, "meta.inf", func([]byte) []byte { return nil }},
	} {
		for _, crashed := range []bool{false, true} {
			if crashed && !tc.crash || !crashed && !tc.clean {
				continue
			}
			name := tc.name + " after a clean stop"
			if crashed {
				name = tc.name + " after a crash"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				dir, stream := storeOf100(t, crashed)
				change(t, filepath.Join(stream, tc.file), tc.how)
				// The second start must not take the server's repair for a whole store.
				for range 2 {
					s, err := natsd.Start(natsd.Config{Dir: dir, Logger: testLog(t)})
					if err == nil {
						closeServer(t, s)
					}
					if !errors.Is(err, natsd.ErrStoreDamaged) || !strings.Contains(err.Error(), natsd.Stream) {
						t.Fatalf("error %v, want ErrStoreDamaged naming the stream", err)
					}
				}
			})
		}
	}
}

// TestHalfWrittenRecordIsNoDamage cuts a write short, as a power cut does: the start goes well, with all that was there.
func TestHalfWrittenRecordIsNoDamage(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 21, 22, 40} {
		dir, stream := storeOf100(t, true)
		change(t, filepath.Join(stream, "msgs", "1.blk"), func(b []byte) []byte {
			record := b[len(b)-binaryLen(b):]
			return append(b, record[:n]...)
		})
		s := start(t, dir)
		js := connect(t, s)
		if err := natsd.NewGuard(js, expect, 100).Look(t.Context()); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		publish(t, js, "emergency.e20261124-1", 1)
		closeServer(t, s)
		start(t, dir)
	}
}

// binaryLen is the length of the last record, all being as long as the one before it says.
func binaryLen(b []byte) int {
	at := bytes.LastIndex(b, []byte("emergency.")) - 22
	return int(binary.LittleEndian.Uint32(b[at:]))
}
