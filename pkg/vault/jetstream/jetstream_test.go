// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/natsd/natsdtest"
	"cacert.org/emergency/pkg/vault"
	store "cacert.org/emergency/pkg/vault/jetstream"
	"cacert.org/emergency/pkg/vault/vaulttest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func open(t *testing.T, js jetstream.JetStream, owner string) *store.Store {
	t.Helper()
	s, err := store.New(t.Context(), js, owner)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s vault.Store, value string) vaulttest.Restricted {
	t.Helper()
	r := vaulttest.New(value)
	if err := s.Put(t.Context(), r.Commitment, r.Salt, r.Value); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestStore(t *testing.T) {
	t.Parallel()
	vaulttest.Run(t, func(t *testing.T) vaulttest.Setup {
		_, js := natsdtest.Start(t)
		return vaulttest.Setup{
			Store:  open(t, js, "review"),
			Other:  open(t, js, "deployment"),
			Reopen: func(t *testing.T) vault.Store { return open(t, js, "review") },
			Replace: func(t *testing.T, commitment string, sealed []byte) {
				if _, err := js.Publish(t.Context(), "$KV.RESTRICTED_review."+commitment, sealed); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

// TestStoreOnCluster runs the suite with three replicas, where a lost condition has another code and a reader may be
// connected to a server that is behind. Each test has buckets of its own.
func TestStoreOnCluster(t *testing.T) {
	t.Parallel()
	cluster := natsdtest.StartCluster(t)
	var buckets atomic.Int64
	bucket := func(t *testing.T, js jetstream.JetStream) string {
		review, err := js.Stream(t.Context(), "KV_RESTRICTED_review")
		if err != nil {
			t.Fatal(err)
		}
		owner := fmt.Sprintf("test%d", buckets.Add(1))
		cfg := review.CachedInfo().Config
		cfg.Name, cfg.Subjects, cfg.Metadata = "KV_RESTRICTED_"+owner, []string{"$KV.RESTRICTED_" + owner + ".>"}, nil
		if _, err := js.CreateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		return owner
	}
	vaulttest.Run(t, func(t *testing.T) vaulttest.Setup {
		js, elsewhere := cluster.Connect(t, 0), cluster.Connect(t, 1)
		owner, other := bucket(t, js), bucket(t, js)
		return vaulttest.Setup{
			Store:  open(t, js, owner),
			Other:  open(t, js, other),
			Reopen: func(t *testing.T) vault.Store { return open(t, elsewhere, owner) },
			Replace: func(t *testing.T, commitment string, sealed []byte) {
				if _, err := js.Publish(t.Context(), "$KV.RESTRICTED_"+owner+"."+commitment, sealed); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

func TestEachOwnerHasABucket(t *testing.T) {
	t.Parallel()
	_, js := natsdtest.Start(t)
	for _, owner := range natsd.Owners() {
		put(t, open(t, js, owner), "symptom")
	}
	if _, err := store.New(t.Context(), js, "dashboard"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("vault of one that owns nothing: error %v, want stream not found", err)
	}
}

// holds lists the files below dir that contain text.
func holds(t *testing.T, dir string, text []byte) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.Contains(b, text) {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestDestroyedValueIsNotInTheFiles reads the files of the store, with the server running and after its end. The values
// around the destroyed one are large, so that it lies in the first, in a middle and in the last block of its stream.
func TestDestroyedValueIsNotInTheFiles(t *testing.T) {
	t.Parallel()
	for _, at := range []int{0, 15, 29} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			srv, js := natsdtest.StartIn(t, dir)
			s := open(t, js, "review")
			var secret vaulttest.Restricted
			for i := range 30 {
				put(t, s, fmt.Sprint(i, strings.Repeat("x", vault.MaxValue-10)))
				if i == at {
					secret = put(t, s, "the secret symptom")
				}
			}
			for name, text := range map[string][]byte{"value": secret.Value, "salt": secret.Salt} {
				if len(holds(t, dir, text)) == 0 {
					t.Fatalf("the %s is in no file before it is destroyed: this test would prove nothing", name)
				}
			}
			if err := s.Destroy(t.Context(), secret.Commitment); err != nil {
				t.Fatal(err)
			}
			for _, when := range []string{"while the server runs", "after its end", "after another start"} {
				switch when {
				case "after its end":
					natsdtest.Close(t, srv)
				case "after another start":
					_, js = natsdtest.StartIn(t, dir)
				}
				for name, text := range map[string][]byte{"value": secret.Value, "salt": secret.Salt} {
					if files := holds(t, dir, text); len(files) > 0 {
						t.Errorf("%s: the %s is still in %v", when, name, files)
					}
				}
			}
			s = open(t, js, "review")
			if _, _, err := s.Get(t.Context(), secret.Commitment); !errors.Is(err, vault.ErrDestroyed) {
				t.Errorf("after another start: error %v, want ErrDestroyed", err)
			}
			last := vaulttest.New(fmt.Sprint(29, strings.Repeat("x", vault.MaxValue-10)))
			if _, _, err := s.Get(t.Context(), last.Commitment); err != nil {
				t.Errorf("a value that was not destroyed: %v", err)
			}
		})
	}
}

// TestInterruptedDestroyIsFinished stops after the marker: the value is in the file, but nobody gets it, and the next
// Destroy removes it.
func TestInterruptedDestroyIsFinished(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, js := natsdtest.StartIn(t, dir)
	s := open(t, js, "review")
	secret := put(t, s, "the secret symptom")
	marker := nats.NewMsg("$KV.RESTRICTED_review." + secret.Commitment)
	marker.Header.Set("KV-Operation", "PURGE")
	if _, err := js.PublishMsg(t.Context(), marker); err != nil {
		t.Fatal(err)
	}
	if len(holds(t, dir, secret.Value)) == 0 {
		t.Fatal("the marker removed the value from the file: this test would prove nothing")
	}
	if _, _, err := s.Get(t.Context(), secret.Commitment); !errors.Is(err, vault.ErrDestroyed) {
		t.Errorf("error %v, want ErrDestroyed", err)
	}
	if err := s.Destroy(t.Context(), secret.Commitment); err != nil {
		t.Fatal(err)
	}
	if files := holds(t, dir, secret.Value); len(files) > 0 {
		t.Errorf("the value is still in %v", files)
	}
}

func TestUsualToolsSeeIt(t *testing.T) {
	t.Parallel()
	_, js := natsdtest.Start(t)
	s := open(t, js, "review")
	r := put(t, s, "symptom")
	bucket, err := js.KeyValue(t.Context(), natsd.RestrictedBucket("review"))
	if err != nil {
		t.Fatal(err)
	}
	entry, err := bucket.Get(t.Context(), r.Commitment)
	if err != nil || !bytes.HasSuffix(entry.Value(), r.Value) {
		t.Fatalf("entry %v, error %v", entry, err)
	}
	if err := s.Destroy(t.Context(), r.Commitment); err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Get(t.Context(), r.Commitment); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("error %v, want key not found", err)
	}
}

func TestServerGone(t *testing.T) {
	t.Parallel()
	srv, js := natsdtest.Start(t)
	s := open(t, js, "review")
	r := put(t, s, "symptom")
	natsdtest.Close(t, srv)
	if err := s.Put(t.Context(), r.Commitment, r.Salt, r.Value); err == nil {
		t.Error("put without a server")
	}
	if _, _, err := s.Get(t.Context(), r.Commitment); err == nil || errors.Is(err, vault.ErrNotFound) {
		t.Errorf("get without a server: %v", err)
	}
	if err := s.Destroy(t.Context(), r.Commitment); err == nil || errors.Is(err, vault.ErrNotFound) {
		t.Errorf("destroy without a server: %v", err)
	}
}
