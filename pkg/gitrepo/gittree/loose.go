// SPDX-License-Identifier: Apache-2.0

package gittree

import (
	"bufio"
	"compress/zlib"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// ErrCorrupt: a loose object is not what its name says. Returned by ReadLoose; the object store is not to
// be trusted, throw it away and stage again.
var ErrCorrupt = errors.New("loose object does not have the content that its name says")

// WriteLoose stores size bytes of r as a loose blob under the folder objects and returns its id. A
// reader that gives fewer or more bytes is an error. The object is not synced: it is for staging.
func WriteLoose(objects string, algo Algo, size int64, r io.Reader) (id string, err error) {
	f, err := os.CreateTemp(objects, "tmp-*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	z, err := zlib.NewWriterLevel(f, zlib.BestSpeed)
	if err != nil {
		return "", err
	}
	h := algo.New()
	w := io.MultiWriter(z, h)
	if _, err := fmt.Fprintf(w, "blob %d\x00", size); err != nil {
		return "", err
	}
	n, err := io.Copy(w, io.LimitReader(r, size+1))
	if err != nil {
		return "", err
	}
	if n != size {
		return "", fmt.Errorf("expected %d bytes, the reader has other than that", size)
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	id = hex.EncodeToString(h.Sum(nil))
	if err := os.MkdirAll(filepath.Join(objects, id[:2]), 0o700); err != nil {
		return "", err
	}
	if err := os.Rename(f.Name(), loosePath(objects, id)); err != nil {
		return "", err
	}
	return id, f.Close()
}

func loosePath(objects, id string) string { return filepath.Join(objects, id[:2], id[2:]) }

// ReadLoose copies the content of the loose blob to w and returns its size. What it wrote counts only
// if the error is nil: the content is hashed on the way and a difference is ErrCorrupt.
func ReadLoose(objects string, algo Algo, id string, w io.Writer) (int64, error) {
	if got, ok := AlgoOf(id); !ok || got != algo {
		return 0, fmt.Errorf("object id %q is not %s", id, string(algo))
	}
	f, err := os.Open(loosePath(objects, id))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // opened for reading only
	z, err := zlib.NewReader(f)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	h := algo.New()
	r := bufio.NewReader(io.TeeReader(z, h))
	if header, err := r.ReadSlice(0); err != nil || !strings.HasPrefix(string(header), "blob ") {
		return 0, fmt.Errorf("%w: not a blob", ErrCorrupt)
	}
	n, err := io.Copy(w, r)
	if err != nil {
		return n, err
	}
	if hex.EncodeToString(h.Sum(nil)) != id {
		return n, fmt.Errorf("%s: %w", id, ErrCorrupt)
	}
	return n, nil
}
