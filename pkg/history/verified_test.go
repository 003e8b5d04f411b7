// SPDX-License-Identifier: Apache-2.0

package history

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func messagesFrom(sequence uint64, n int) []Message {
	list := make([]Message, n)
	for i := range list {
		list[i] = Message{Sequence: sequence + uint64(i), Data: fmt.Appendf(nil, "message %d", sequence+uint64(i))}
	}
	return list
}

// A whole block is known again by all its bytes and by where it lies, also by the next process; nothing else is.
func TestVerifiedBlocks(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "verified")
	v, err := OpenVerified(path)
	if err != nil {
		t.Fatal(err)
	}
	block := messagesFrom(BlockSize+1, BlockSize)
	if v.Knows(block) {
		t.Error("known before it was verified")
	}
	v.Remember(block)
	v.Remember(messagesFrom(1, BlockSize-1))
	v.Remember(messagesFrom(2, BlockSize))
	if err := v.Save(); err != nil {
		t.Fatal(err)
	}
	if v, err = OpenVerified(path); err != nil || !v.Knows(block) || len(v.blocks) != 1 {
		t.Fatalf("after a restart: known %t of %d, %v", v.Knows(block), len(v.blocks), err)
	}
	for name, other := range map[string]func([]Message) []Message{
		"another byte":       func(b []Message) []Message { b[77].Data = []byte("Message 590"); return b },
		"a byte moved":       func(b []Message) []Message { b[3].Data, b[4].Data = append(b[3].Data, 'x'), b[4].Data[1:]; return b },
		"two changed places": func(b []Message) []Message { b[3].Data, b[4].Data = b[4].Data, b[3].Data; return b },
		"one missing":        func(b []Message) []Message { return b[:BlockSize-1] },
		"a jump":             func(b []Message) []Message { b[BlockSize-1].Sequence++; return b },
		"elsewhere":          func([]Message) []Message { return messagesFrom(1, BlockSize) },
		"nothing":            func([]Message) []Message { return nil },
	} {
		if v.Knows(other(slices.Clone(block))) {
			t.Errorf("%s: known", name)
		}
	}
	var none *Verified
	if none.Remember(block); none.Knows(block) || none.Save() != nil {
		t.Error("nothing remembers")
	}
}

// Of a file that is damaged anywhere nothing is believed.
func TestVerifiedFileDamaged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "verified")
	v, err := OpenVerified(path)
	if err != nil {
		t.Fatal(err)
	}
	block := messagesFrom(1, BlockSize)
	v.Remember(block)
	if err := v.Save(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if v, err := OpenVerified(path); err == nil || v.Knows(block) {
			t.Errorf("%s: error %v, known %t", what, err, v.Knows(block))
		}
	}
	for i := range good {
		b := slices.Clone(good)
		b[i] ^= 1
		try(fmt.Sprintf("byte %d flipped", i), b)
		try(fmt.Sprintf("cut to %d bytes", i), good[:i])
	}
	try("a byte more", append(slices.Clone(good), 0))
}
