// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/gitrepo/gittree"
)

// Any bytes are refused with a typed error or give a patch whose every path and mode is allowed.
func FuzzParse(f *testing.F) {
	for _, c := range hostile() {
		f.Add([]byte(c.text), c.opts.AllowBinary)
	}
	f.Add([]byte(modify), false)
	f.Fuzz(func(t *testing.T, b []byte, permissive bool) {
		p, err := Parse(b, Options{AllowBinary: permissive, AllowModeChange: permissive})
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Code == "" || e.Detail == "" || strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("untyped or unsafe error: %q", err)
			}
			return
		}
		if len(p.Files) == 0 {
			t.Fatal("accepted a patch without files")
		}
		paths := 0
		for _, file := range p.Files {
			for _, mode := range []string{file.OldMode, file.NewMode} {
				if mode != "" && mode != gittree.ModeFile && mode != gittree.ModeExecutable {
					t.Fatalf("accepted mode %q", mode)
				}
			}
			if file.OldPath != "" {
				paths++
			}
			if file.NewPath != "" && file.NewPath != file.OldPath {
				paths++
			}
		}
		if len(p.Paths()) != paths {
			t.Fatalf("a path is touched twice: %v", p.Files)
		}
		for _, path := range p.Paths() {
			if err := CheckPath(path); err != nil {
				t.Fatalf("accepted path: %v", err)
			}
		}
	})
}

func deflate(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zlib.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// encodeBase85 writes at most 26 bytes as one line of a binary patch.
func encodeBase85(t *testing.T, b []byte) string {
	t.Helper()
	if len(b) > 26 {
		t.Fatalf("%d bytes do not fit one short line", len(b))
	}
	line := []byte{byte('A' + len(b) - 1)}
	for ; len(b) > 0; b = b[min(4, len(b)):] {
		var word [4]byte
		copy(word[:], b)
		v := binary.BigEndian.Uint32(word[:])
		group := make([]byte, 5)
		for i := 4; i >= 0; i-- {
			group[i] = base85[v%85]
			v /= 85
		}
		line = append(line, group...)
	}
	return string(line) + "\n"
}
