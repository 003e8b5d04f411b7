// SPDX-License-Identifier: Apache-2.0

// Package artefactstest is what every artefacts.Store must pass.
package artefactstest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"cacert.org/emergency/pkg/artefacts"
)

// Limit is the limit of the stores under test.
const Limit = 1 << 20

// Setup is a store under test and the ways around it.
type Setup struct {
	Store artefacts.Store
	// Reopen returns another store on the same contents, with this limit.
	Reopen func(t *testing.T, limit int64) artefacts.Store
	// Replace puts other bytes in the place of an artefact, behind the store's back.
	Replace func(t *testing.T, sha256 string, data []byte)
}

// Run runs the suite. open returns an empty store with the limit Limit, a new one for each call.
func Run(t *testing.T, open func(t *testing.T) Setup) {
	for name, test := range map[string]func(*testing.T, Setup){
		"put and get":               putAndGet,
		"put twice":                 putTwice,
		"put at the same time":      putAtOnce,
		"not found":                 notFound,
		"no digest":                 noDigest,
		"limit of put":              limitOfPut,
		"limit of get":              limitOfGet,
		"reader fails":              readerFails,
		"caller changes bytes":      callerChanges,
		"one flipped byte":          flippedByte,
		"other length":              otherLength,
		"put mends":                 putMends,
		"ended context or no error": endedContext,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// sample returns n bytes without a pattern that chunks could share.
func sample(n int) []byte {
	data := make([]byte, n)
	x := uint32(n) + 1
	for i := range data {
		x = x*1664525 + 1013904223
		data[i] = byte(x >> 24)
	}
	return data
}

func put(t *testing.T, s artefacts.Store, data []byte) artefacts.Ref {
	t.Helper()
	ref, err := s.Put(t.Context(), bytes.NewReader(data), "text/x-diff")
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func expect(t *testing.T, s artefacts.Store, sha256 string, want []byte) {
	t.Helper()
	got, err := s.Get(t.Context(), sha256)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes with digest %s, want %d with %s", len(got), artefacts.Digest(got), len(want), artefacts.Digest(want))
	}
}

func putAndGet(t *testing.T, s Setup) {
	for _, n := range []int{0, 1, 128 << 10, 128<<10 + 1, 300_000, Limit} {
		data := sample(n)
		ref := put(t, s.Store, data)
		if want := (artefacts.Ref{SHA256: artefacts.Digest(data), Size: int64(n), MediaType: "text/x-diff"}); ref != want {
			t.Errorf("ref %+v, want %+v", ref, want)
		}
		expect(t, s.Store, ref.SHA256, data)
		expect(t, s.Reopen(t, Limit), ref.SHA256, data)
	}
}

func putTwice(t *testing.T, s Setup) {
	data := sample(300_000)
	first := put(t, s.Store, data)
	second, err := s.Store.Put(t.Context(), bytes.NewReader(data), "application/octet-stream")
	if err != nil {
		t.Fatal(err)
	}
	if second.SHA256 != first.SHA256 || second.Size != first.Size || second.MediaType != "application/octet-stream" {
		t.Errorf("second ref %+v after first %+v", second, first)
	}
	expect(t, s.Store, first.SHA256, data)
}

func putAtOnce(t *testing.T, s Setup) {
	data := sample(300_000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			ref, err := s.Store.Put(t.Context(), bytes.NewReader(data), "text/x-diff")
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := s.Store.Get(t.Context(), ref.SHA256); err != nil || !bytes.Equal(got, data) {
				t.Errorf("get after put: %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	expect(t, s.Store, artefacts.Digest(data), data)
}

func notFound(t *testing.T, s Setup) {
	put(t, s.Store, sample(10))
	missing := artefacts.Digest(sample(11))
	if data, err := s.Store.Get(t.Context(), missing); !errors.Is(err, artefacts.ErrNotFound) || data != nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("got %d bytes, error %v, want ErrNotFound naming the digest", len(data), err)
	}
}

func noDigest(t *testing.T, s Setup) {
	digest := put(t, s.Store, sample(10)).SHA256
	for _, bad := range []string{"", "a", strings.ToUpper(digest), digest + "0", digest[:63], digest[:62] + "zz", "../" + digest[3:], digest + "\n"} {
		if data, err := s.Store.Get(t.Context(), bad); !errors.Is(err, artefacts.ErrDigest) || data != nil {
			t.Errorf("digest %q: %d bytes, error %v, want ErrDigest", bad, len(data), err)
		}
	}
}

// endless never ends; reading it to the end would take all memory.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func limitOfPut(t *testing.T, s Setup) {
	for name, r := range map[string]io.Reader{"one byte more": bytes.NewReader(sample(Limit + 1)), "no end": endless{}} {
		if _, err := s.Store.Put(t.Context(), r, "text/x-diff"); !errors.Is(err, artefacts.ErrTooLarge) {
			t.Errorf("%s: error %v, want ErrTooLarge", name, err)
		}
	}
	if _, err := s.Store.Get(t.Context(), artefacts.Digest(sample(Limit+1))); !errors.Is(err, artefacts.ErrNotFound) {
		t.Errorf("after a refused put: %v, want ErrNotFound", err)
	}
}

func limitOfGet(t *testing.T, s Setup) {
	ref := put(t, s.Store, sample(1000))
	if data, err := s.Reopen(t, 999).Get(t.Context(), ref.SHA256); !errors.Is(err, artefacts.ErrTooLarge) || data != nil {
		t.Errorf("got %d bytes, error %v, want ErrTooLarge", len(data), err)
	}
	expect(t, s.Reopen(t, 1000), ref.SHA256, sample(1000))
}

func readerFails(t *testing.T, s Setup) {
	broken := errors.New("cable pulled")
	r, w := io.Pipe()
	go func() {
		_, _ = w.Write(sample(100))
		_ = w.CloseWithError(broken)
	}()
	if _, err := s.Store.Put(t.Context(), r, "text/x-diff"); !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the reader", err)
	}
	if _, err := s.Store.Get(t.Context(), artefacts.Digest(sample(100))); !errors.Is(err, artefacts.ErrNotFound) {
		t.Errorf("half an artefact: %v, want ErrNotFound", err)
	}
}

func callerChanges(t *testing.T, s Setup) {
	data := sample(1000)
	ref := put(t, s.Store, data)
	data[0] ^= 1
	got, err := s.Store.Get(t.Context(), ref.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	got[1] ^= 1
	expect(t, s.Store, ref.SHA256, sample(1000))
}

func expectCorrupt(t *testing.T, s Setup, sha256 string) {
	t.Helper()
	for _, store := range []artefacts.Store{s.Store, s.Reopen(t, Limit)} {
		data, err := store.Get(t.Context(), sha256)
		var corrupt *artefacts.CorruptError
		if !errors.Is(err, artefacts.ErrCorrupt) || !errors.As(err, &corrupt) || corrupt.SHA256 != sha256 {
			t.Errorf("error %v, want ErrCorrupt naming %s", err, sha256)
		}
		if data != nil {
			t.Errorf("%d bytes were handed out", len(data))
		}
	}
}

func flippedByte(t *testing.T, s Setup) {
	const n = 300_000
	ref := put(t, s.Store, sample(n))
	for _, at := range []int{0, n / 2, n - 1} {
		data := sample(n)
		data[at] ^= 1
		s.Replace(t, ref.SHA256, data)
		expectCorrupt(t, s, ref.SHA256)
	}
}

func otherLength(t *testing.T, s Setup) {
	ref := put(t, s.Store, sample(1000))
	for _, data := range [][]byte{{}, sample(1000)[:999], append(sample(1000), 0)} {
		s.Replace(t, ref.SHA256, data)
		expectCorrupt(t, s, ref.SHA256)
	}
}

func putMends(t *testing.T, s Setup) {
	for _, other := range [][]byte{sample(999), sample(Limit + 1)} {
		ref := put(t, s.Store, sample(1000))
		s.Replace(t, ref.SHA256, other)
		if _, err := s.Store.Get(t.Context(), ref.SHA256); err == nil {
			t.Fatal("the replaced artefact was handed out")
		}
		put(t, s.Store, sample(1000))
		expect(t, s.Store, ref.SHA256, sample(1000))
	}
}

// endedContext allows a store that needs no time to ignore the context, but not one that reports a success it did not have.
func endedContext(t *testing.T, s Setup) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	data := sample(1000)
	ref, err := s.Store.Put(ctx, bytes.NewReader(data), "text/x-diff")
	if err == nil {
		expect(t, s.Store, ref.SHA256, data)
	}
	put(t, s.Store, data)
	expect(t, s.Store, artefacts.Digest(data), data)
}
