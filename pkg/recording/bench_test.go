// SPDX-License-Identifier: Apache-2.0

package recording_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/recording"
)

// listing is output as a session has it: text, colours, line ends, some characters beyond ASCII.
var listing = []byte(strings.Repeat("-rw-r--r-- 1 root root 4096 Nov 24 10:00 \x1b[01;34mgrün.txt\x1b[0m\r\n", 600)[:32<<10])

// BenchmarkOutput compares the recording with writing the same bytes to a file, in pieces as a channel brings them.
func BenchmarkOutput(b *testing.B) {
	for _, size := range []int{32 << 10, 4 << 10, 256} {
		piece := listing[:size]
		b.Run(fmt.Sprintf("plain/%d", size), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "plain"))
			must(b, err)
			defer f.Close()
			b.SetBytes(int64(size))
			for b.Loop() {
				_, err := f.Write(piece)
				must(b, err)
			}
		})
		b.Run(fmt.Sprintf("recorded/%d", size), func(b *testing.B) {
			cfg := config(filepath.Join(b.TempDir(), "r"), "x")
			cfg.Limit = 1 << 40
			w, err := recording.Create(cfg)
			must(b, err)
			defer w.Close()
			b.SetBytes(int64(size))
			for b.Loop() {
				_, err := w.Output(piece)
				must(b, err)
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	var m memory
	w := writer(b, &m, 1<<40)
	for range 200 {
		_, err := w.Output(listing)
		must(b, err)
	}
	data := m.bytes()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		_, err := recording.Verify(bytes.NewReader(data), nil)
		must(b, err)
	}
}

func BenchmarkNeutralise(b *testing.B) {
	n := recording.NewNeutraliser(io.Discard, recording.Live)
	b.SetBytes(int64(len(listing)))
	for b.Loop() {
		_, err := n.Write(listing)
		must(b, err)
	}
}
