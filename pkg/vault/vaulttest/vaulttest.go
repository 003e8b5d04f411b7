// SPDX-License-Identifier: Apache-2.0

// Package vaulttest is what every vault.Store must pass.
package vaulttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"cacert.org/emergency/pkg/vault"
)

// Setup is a vault under test and the ways around it.
type Setup struct {
	Store vault.Store
	Other vault.Store // vault of another owner in the same place
	// Reopen returns another store on the same contents.
	Reopen func(t *testing.T) vault.Store
	// Replace puts other bytes in the place of salt and value, behind the store's back.
	Replace func(t *testing.T, commitment string, sealed []byte)
}

// Run runs the suite. open returns an empty vault, a new one for each call.
func Run(t *testing.T, open func(t *testing.T) Setup) {
	for name, test := range map[string]func(*testing.T, Setup){
		"put and get":                putAndGet,
		"put twice":                  putTwice,
		"put at the same time":       putAtOnce,
		"wrong put":                  wrongPut,
		"wrong commitment":           wrongCommitment,
		"not found":                  notFound,
		"owners are separate":        ownersAreSeparate,
		"caller changes bytes":       callerChanges,
		"corrupt":                    corrupt,
		"destroy":                    destroy,
		"destroy one of many":        destroyOne,
		"destroy corrupt":            destroyCorrupt,
		"destroy at the same time":   destroyAtOnce,
		"put while destroying":       putWhileDestroying,
		"ended context or no error":  endedContext,
		"errors do not tell a value": errorsTellNothing,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// Restricted is a value with its salt and commitment.
type Restricted struct {
	Commitment  string
	Salt, Value []byte
}

// New makes a restricted value, the same one for the same text.
func New(value string) Restricted {
	salt := sha256.Sum256([]byte("salt of " + value))
	sum := sha256.Sum256(append(salt[:], value...))
	return Restricted{hex.EncodeToString(sum[:]), salt[:], []byte(value)}
}

func put(t *testing.T, s vault.Store, r Restricted) {
	t.Helper()
	if err := s.Put(t.Context(), r.Commitment, r.Salt, r.Value); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, s vault.Store, r Restricted) {
	t.Helper()
	value, salt, err := s.Get(t.Context(), r.Commitment)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(value, r.Value) || !bytes.Equal(salt, r.Salt) {
		t.Fatalf("got value %q and salt %x, want %q and %x", value, salt, r.Value, r.Salt)
	}
}

func expectError(t *testing.T, s vault.Store, commitment string, want error) {
	t.Helper()
	value, salt, err := s.Get(t.Context(), commitment)
	if !errors.Is(err, want) || value != nil || salt != nil {
		t.Errorf("value %q, salt %x, error %v, want %v", value, salt, err, want)
	}
}

func putAndGet(t *testing.T, s Setup) {
	for _, value := range []string{"", "a", "symptom\x00\xff\n", strings.Repeat("x", vault.MaxValue)} {
		r := New(value)
		put(t, s.Store, r)
		expect(t, s.Store, r)
		expect(t, s.Reopen(t), r)
	}
}

func putTwice(t *testing.T, s Setup) {
	r := New("symptom")
	put(t, s.Store, r)
	put(t, s.Store, r)
	put(t, s.Reopen(t), r)
	expect(t, s.Store, r)
}

func putAtOnce(t *testing.T, s Setup) {
	r := New("symptom")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Store.Put(t.Context(), r.Commitment, r.Salt, r.Value); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	expect(t, s.Store, r)
}

func wrongPut(t *testing.T, s Setup) {
	r := New("symptom")
	other := New("other")
	large := New(strings.Repeat("x", vault.MaxValue+1))
	// The same bytes, taken apart at another place: this is why the length of the salt is fixed.
	shifted := Restricted{r.Commitment, append(bytes.Clone(r.Salt), r.Value[0]), r.Value[1:]}
	for name, tc := range map[string]struct {
		r    Restricted
		want error
	}{
		"value of another":      {Restricted{r.Commitment, r.Salt, other.Value}, vault.ErrCommitment},
		"salt of another":       {Restricted{r.Commitment, other.Salt, r.Value}, vault.ErrCommitment},
		"commitment of another": {Restricted{other.Commitment, r.Salt, r.Value}, vault.ErrCommitment},
		"upper case":            {Restricted{strings.ToUpper(r.Commitment), r.Salt, r.Value}, vault.ErrCommitment},
		"no commitment":         {Restricted{"", r.Salt, r.Value}, vault.ErrCommitment},
		"no salt":               {Restricted{r.Commitment, nil, r.Value}, vault.ErrSalt},
		"long salt":             {shifted, vault.ErrSalt},
		"too large":             {large, vault.ErrTooLarge},
	} {
		if err := s.Store.Put(t.Context(), tc.r.Commitment, tc.r.Salt, tc.r.Value); !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v, want %v", name, err, tc.want)
		}
	}
	for _, commitment := range []string{r.Commitment, other.Commitment, large.Commitment} {
		expectError(t, s.Store, commitment, vault.ErrNotFound)
	}
}

func wrongCommitment(t *testing.T, s Setup) {
	r := New("symptom")
	put(t, s.Store, r)
	for _, bad := range []string{"", ">", "*", strings.ToUpper(r.Commitment), r.Commitment[:63], r.Commitment + "0", r.Commitment[:62] + "zz", r.Commitment + ".a"} {
		expectError(t, s.Store, bad, vault.ErrCommitment)
		if err := s.Store.Destroy(t.Context(), bad); !errors.Is(err, vault.ErrCommitment) {
			t.Errorf("destroy %q: error %v, want ErrCommitment", bad, err)
		}
	}
	expect(t, s.Store, r)
}

func notFound(t *testing.T, s Setup) {
	put(t, s.Store, New("symptom"))
	missing := New("missing").Commitment
	expectError(t, s.Store, missing, vault.ErrNotFound)
	if err := s.Store.Destroy(t.Context(), missing); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("destroy: error %v, want ErrNotFound", err)
	}
	put(t, s.Store, New("missing"))
}

func ownersAreSeparate(t *testing.T, s Setup) {
	r := New("symptom")
	put(t, s.Store, r)
	expectError(t, s.Other, r.Commitment, vault.ErrNotFound)
	if err := s.Other.Destroy(t.Context(), r.Commitment); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("destroy in another's vault: error %v, want ErrNotFound", err)
	}
	put(t, s.Other, r)
	if err := s.Other.Destroy(t.Context(), r.Commitment); err != nil {
		t.Fatal(err)
	}
	expect(t, s.Store, r)
}

func callerChanges(t *testing.T, s Setup) {
	r := New("symptom")
	put(t, s.Store, r)
	r.Salt[0], r.Value[0] = r.Salt[0]^1, 'S'
	value, salt, err := s.Store.Get(t.Context(), r.Commitment)
	if err != nil {
		t.Fatal(err)
	}
	value[1], salt[1] = 'Y', salt[1]^1
	_ = append(salt, "overwrites the value"...)
	expect(t, s.Store, New("symptom"))
}

func corrupt(t *testing.T, s Setup) {
	r := New("symptom")
	put(t, s.Store, r)
	sealed := append(bytes.Clone(r.Salt), r.Value...)
	flipped := func(at int) []byte {
		b := bytes.Clone(sealed)
		b[at] ^= 1
		return b
	}
	for _, bad := range [][]byte{flipped(0), flipped(vault.SaltSize - 1), flipped(vault.SaltSize), flipped(len(sealed) - 1),
		sealed[:len(sealed)-1], append(bytes.Clone(sealed), 0), sealed[:vault.SaltSize-1], {}} {
		s.Replace(t, r.Commitment, bad)
		expectError(t, s.Store, r.Commitment, vault.ErrCorrupt)
		expectError(t, s.Reopen(t), r.Commitment, vault.ErrCorrupt)
	}
}

func expectDestroyed(t *testing.T, s Setup, r Restricted) {
	t.Helper()
	for _, store := range []vault.Store{s.Store, s.Reopen(t)} {
		expectError(t, store, r.Commitment, vault.ErrDestroyed)
		if err := store.Put(t.Context(), r.Commitment, r.Salt, r.Value); !errors.Is(err, vault.ErrDestroyed) {
			t.Errorf("put after destroy: error %v, want ErrDestroyed", err)
		}
		expectError(t, store, r.Commitment, vault.ErrDestroyed)
	}
}

func destroy(t *testing.T, s Setup) {
	r := New("symptom")
	put(t, s.Store, r)
	for range 2 {
		if err := s.Store.Destroy(t.Context(), r.Commitment); err != nil {
			t.Fatal(err)
		}
		expectDestroyed(t, s, r)
	}
}

func destroyOne(t *testing.T, s Setup) {
	for i := range 5 {
		put(t, s.Store, New(fmt.Sprint(i)))
	}
	if err := s.Store.Destroy(t.Context(), New("2").Commitment); err != nil {
		t.Fatal(err)
	}
	expectDestroyed(t, s, New("2"))
	for _, i := range []int{0, 1, 3, 4} {
		expect(t, s.Store, New(fmt.Sprint(i)))
	}
}

func destroyCorrupt(t *testing.T, s Setup) {
	r := New("symptom")
	put(t, s.Store, r)
	s.Replace(t, r.Commitment, []byte("half the symptom"))
	if err := s.Store.Destroy(t.Context(), r.Commitment); err != nil {
		t.Fatal(err)
	}
	expectDestroyed(t, s, r)
}

func destroyAtOnce(t *testing.T, s Setup) {
	r := New("symptom")
	put(t, s.Store, r)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Store.Destroy(t.Context(), r.Commitment); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	expectDestroyed(t, s, r)
}

func putWhileDestroying(t *testing.T, s Setup) {
	r := New("symptom")
	put(t, s.Store, r)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Store.Put(t.Context(), r.Commitment, r.Salt, r.Value); err != nil && !errors.Is(err, vault.ErrDestroyed) {
				t.Error(err)
			}
		})
	}
	if err := s.Store.Destroy(t.Context(), r.Commitment); err != nil {
		t.Error(err)
	}
	wg.Wait()
	expectDestroyed(t, s, r)
}

// endedContext allows a store that needs no time to ignore the context, but not one that reports a success it did not have.
func endedContext(t *testing.T, s Setup) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := New("symptom")
	if err := s.Store.Put(ctx, r.Commitment, r.Salt, r.Value); err == nil {
		expect(t, s.Store, r)
	}
	put(t, s.Store, r)
	if err := s.Store.Destroy(ctx, r.Commitment); err == nil {
		expectDestroyed(t, s, r)
	}
	if err := s.Store.Destroy(t.Context(), r.Commitment); err != nil {
		t.Fatal(err)
	}
	expectDestroyed(t, s, r)
}

func errorsTellNothing(t *testing.T, s Setup) {
	r := New("very secret symptom")
	var errs []error
	errs = append(errs, s.Store.Put(t.Context(), New("other").Commitment, r.Salt, r.Value))
	put(t, s.Store, r)
	s.Replace(t, r.Commitment, append(bytes.Clone(r.Salt), "very secret symptoms"...))
	_, _, err := s.Store.Get(t.Context(), r.Commitment)
	errs = append(errs, err)
	for _, err := range errs {
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), hex.EncodeToString(r.Salt)) {
			t.Errorf("error %v", err)
		}
	}
}
