// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"strings"
)

// binary reads the data of a git binary patch: the forward part and, usually, the way back. Shape and
// announced sizes are judged here; git unpacks it.
func (p *parser) binary(f *File) error {
	f.Binary = true
	if !p.opts.AllowBinary {
		return &Error{Code: CodeBinary, Line: p.line, Path: f.Path(), Detail: "binary content was not declared"}
	}
	if err := p.binaryPart(f); err != nil {
		return err
	}
	line, ok := p.peek()
	if ok && (strings.HasPrefix(line, "literal ") || strings.HasPrefix(line, "delta ")) {
		return p.binaryPart(f)
	}
	return nil
}

// binaryPart reads "literal N" or "delta N", its lines, and the empty line after it.
func (p *parser) binaryPart(f *File) error {
	kind, size, _ := strings.Cut(p.take(), " ")
	n, ok := number(size)
	if kind != "literal" && kind != "delta" || !ok {
		return p.syntax("malformed binary patch")
	}
	if n > p.opts.MaxBinary { // git allocates the announced size before it unpacks
		return p.tooLargeBinary(f)
	}
	var packed []byte
	for {
		if len(p.rest) == 0 {
			return p.syntax("binary patch is cut off")
		}
		line := p.take()
		if line == "" {
			break
		}
		if packed, ok = appendBase85(packed, line); !ok {
			return p.syntax("malformed line in a binary patch")
		}
	}
	if kind == "literal" {
		if len(packed) == 0 {
			return p.syntax("binary patch without data")
		}
		return nil
	}
	result, ok := deltaResultSize(packed)
	if !ok {
		return p.syntax("malformed delta in a binary patch")
	}
	if result > uint64(p.opts.MaxBinary) {
		return p.tooLargeBinary(f)
	}
	return nil
}

func (p *parser) tooLargeBinary(f *File) error {
	return &Error{Code: CodeTooLarge, Line: p.line, Path: f.Path(), Detail: "binary content is larger than allowed"}
}

// deltaResultSize reads the two sizes at the head of a delta. A short delta may copy its source again
// and again, so the size of its text says nothing about the file it makes.
func deltaResultSize(packed []byte) (uint64, bool) {
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return 0, false
	}
	r := bufio.NewReader(z)
	if _, err := binary.ReadUvarint(r); err != nil {
		return 0, false
	}
	size, err := binary.ReadUvarint(r)
	return size, err == nil
}

const base85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"

// appendBase85 decodes one line: a letter that tells the number of bytes (A-Z 1-26, a-z 27-52), then
// five characters for each four bytes begun.
func appendBase85(to []byte, line string) ([]byte, bool) {
	var n int
	switch c := line[0]; {
	case c >= 'A' && c <= 'Z':
		n = int(c-'A') + 1
	case c >= 'a' && c <= 'z':
		n = int(c-'a') + 27
	}
	text := line[1:]
	if n == 0 || len(text) != (n+3)/4*5 {
		return nil, false
	}
	for ; text != ""; text = text[5:] {
		var group uint64
		for i := range 5 {
			digit := strings.IndexByte(base85, text[i])
			if digit < 0 {
				return nil, false
			}
			group = group*85 + uint64(digit)
		}
		if group > 1<<32-1 {
			return nil, false
		}
		word := binary.BigEndian.AppendUint32(nil, uint32(group))
		to = append(to, word[:min(n, 4)]...)
		n -= 4
	}
	return to, true
}
