// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"cacert.org/emergency/pkg/artefacts"
	"cacert.org/emergency/pkg/artefacts/artefactstest"
	store "cacert.org/emergency/pkg/artefacts/jetstream"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/natsd/natsdtest"
	"github.com/nats-io/nats.go/jetstream"
)

func open(t *testing.T, js jetstream.JetStream, limit int64) *store.Store {
	t.Helper()
	s, err := store.New(t.Context(), js, limit)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// loose makes the bucket one whose messages its own client may replace and remove, as it was in earlier versions, too. With damage by a
// disk or by a thief what is left may be anything.
func loose(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	if err := js.DeleteObjectStore(t.Context(), natsd.ObjectBucket); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: natsd.ObjectBucket}); err != nil {
		t.Fatal(err)
	}
}

// objects is the bucket as anybody with a connection has it.
func objects(t *testing.T, js jetstream.JetStream) jetstream.ObjectStore {
	t.Helper()
	bucket, err := js.ObjectStore(t.Context(), natsd.ObjectBucket)
	if err != nil {
		t.Fatal(err)
	}
	return bucket
}

func TestStore(t *testing.T) {
	t.Parallel()
	artefactstest.Run(t, func(t *testing.T) artefactstest.Setup {
		_, js := natsdtest.Start(t)
		loose(t, js)
		return artefactstest.Setup{
			Store:  open(t, js, artefactstest.Limit),
			Reopen: func(t *testing.T, limit int64) artefacts.Store { return open(t, js, limit) },
			Replace: func(t *testing.T, sha256 string, data []byte) {
				if _, err := objects(t, js).PutBytes(t.Context(), sha256, data); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

// TestProvisioned: in the bucket as this version makes it nothing is replaced or removed, and everything is done all the same.
func TestProvisioned(t *testing.T) {
	t.Parallel()
	_, js := natsdtest.Start(t)
	s := open(t, js, 1<<20)
	data := bytes.Repeat([]byte("patch "), 50_000)
	ref, err := s.Put(t.Context(), bytes.NewReader(data), "text/x-diff")
	if err != nil {
		t.Fatal(err)
	}
	meta := "$O." + natsd.ObjectBucket + ".M." + base64.URLEncoding.EncodeToString([]byte(ref.SHA256))
	for _, broken := range []string{"{", `{"deleted":true}`, `{"nuid":"x","chunks":1,"size":9}`} {
		if _, err := js.Publish(t.Context(), meta, []byte(broken)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(t.Context(), ref.SHA256); err == nil {
			t.Errorf("behind %s: %d bytes", broken, len(got))
		}
		if _, err := s.Put(t.Context(), bytes.NewReader(data), "text/x-diff"); err != nil {
			t.Errorf("put again behind %s: %v", broken, err)
		}
		if got, err := s.Get(t.Context(), ref.SHA256); err != nil || !bytes.Equal(got, data) {
			t.Errorf("after %s: %d bytes, %v", broken, len(got), err)
		}
	}
	if err := objects(t, js).Delete(t.Context(), ref.SHA256); err == nil {
		t.Error("the bucket's own client may delete an object")
	}
	if got, err := s.Get(t.Context(), ref.SHA256); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after a refused delete: %d bytes, %v", len(got), err)
	}
}

// TestCluster writes the same bytes through all servers of a cluster at once, and reads them through another one.
func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := natsdtest.StartCluster(t)
	data := bytes.Repeat([]byte("patch "), 50_000)
	var wg sync.WaitGroup
	for i := range 6 {
		writer, reader := open(t, cluster.Connect(t, i%3), 1<<20), open(t, cluster.Connect(t, (i+1)%3), 1<<20)
		wg.Go(func() {
			ref, err := writer.Put(t.Context(), bytes.NewReader(data), "text/x-diff")
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := reader.Get(t.Context(), ref.SHA256); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, error %v", len(got), err)
			}
		})
	}
	wg.Wait()
}

func TestNoBucket(t *testing.T) {
	t.Parallel()
	_, js := natsdtest.Start(t)
	if err := js.DeleteObjectStore(t.Context(), natsd.ObjectBucket); err != nil {
		t.Fatal(err)
	}
	if _, err := store.New(t.Context(), js, 1); !errors.Is(err, jetstream.ErrBucketNotFound) {
		t.Errorf("error %v, want bucket not found", err)
	}
}

func TestSurvivesRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, js := natsdtest.StartIn(t, dir)
	data := bytes.Repeat([]byte("patch "), 50_000)
	ref, err := open(t, js, 1<<20).Put(t.Context(), bytes.NewReader(data), "text/x-diff")
	if err != nil {
		t.Fatal(err)
	}
	natsdtest.Close(t, s)
	_, js = natsdtest.StartIn(t, dir)
	got, err := open(t, js, 1<<20).Get(t.Context(), ref.SHA256)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, error %v", len(got), err)
	}
}

// TestPutTwiceStoresOnce looks at the stream: the second put of a whole artefact writes no message.
func TestPutTwiceStoresOnce(t *testing.T) {
	t.Parallel()
	_, js := natsdtest.Start(t)
	s := open(t, js, 1<<20)
	last := func() uint64 {
		stream, err := js.Stream(t.Context(), "OBJ_"+natsd.ObjectBucket)
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().State.LastSeq
	}
	var first uint64
	for range 2 {
		if _, err := s.Put(t.Context(), strings.NewReader("patch"), "text/x-diff"); err != nil {
			t.Fatal(err)
		}
		if first == 0 {
			first = last()
		}
	}
	if got := last(); first == 0 || got != first {
		t.Errorf("last sequence %d after the first put, %d after the second", first, got)
	}
}

func TestUsualToolsReadIt(t *testing.T) {
	t.Parallel()
	_, js := natsdtest.Start(t)
	ref, err := open(t, js, 1<<20).Put(t.Context(), strings.NewReader("patch"), "text/x-diff")
	if err != nil {
		t.Fatal(err)
	}
	got, err := objects(t, js).GetBytes(t.Context(), ref.SHA256)
	if err != nil || string(got) != "patch" {
		t.Errorf("%q, error %v", got, err)
	}
	info, err := objects(t, js).GetInfo(t.Context(), ref.SHA256)
	if err != nil || info.Metadata["media-type"] != "text/x-diff" {
		t.Errorf("info %+v, error %v", info, err)
	}
}

// TestDamagedObject damages the messages of an object, of which the bucket's own client notices only some.
func TestDamagedObject(t *testing.T) {
	t.Parallel()
	const subject = "$O." + natsd.ObjectBucket
	data := bytes.Repeat([]byte("0123456789"), 30_000) // three messages
	type damage func(ctx context.Context, js jetstream.JetStream, stream jetstream.Stream, info *jetstream.ObjectInfo) error
	publishMeta := func(ctx context.Context, js jetstream.JetStream, name string, meta []byte) error {
		_, err := js.Publish(ctx, subject+".M."+base64.URLEncoding.EncodeToString([]byte(name)), meta)
		return err
	}
	for name, tc := range map[string]struct {
		damage damage
		want   error
	}{
		"flipped byte in a message": {func(ctx context.Context, js jetstream.JetStream, stream jetstream.Stream, info *jetstream.ObjectInfo) error {
			chunks := subject + ".C." + info.NUID
			if err := stream.Purge(ctx, jetstream.WithPurgeSubject(chunks)); err != nil {
				return err
			}
			bad := bytes.Clone(data)
			bad[200_000] ^= 1
			for part := range slices.Chunk(bad, 100_000) {
				if _, err := js.Publish(ctx, chunks, part); err != nil {
					return err
				}
			}
			return nil
		}, artefacts.ErrCorrupt},
		"all messages gone": {func(ctx context.Context, _ jetstream.JetStream, stream jetstream.Stream, info *jetstream.ObjectInfo) error {
			return stream.Purge(ctx, jetstream.WithPurgeSubject(subject+".C."+info.NUID))
		}, artefacts.ErrCorrupt},
		"last message gone": {func(ctx context.Context, _ jetstream.JetStream, stream jetstream.Stream, info *jetstream.ObjectInfo) error {
			return stream.Purge(ctx, jetstream.WithPurgeSubject(subject+".C."+info.NUID), jetstream.WithPurgeSequence(3))
		}, artefacts.ErrCorrupt},
		"metadata is no JSON": {func(ctx context.Context, js jetstream.JetStream, _ jetstream.Stream, info *jetstream.ObjectInfo) error {
			return publishMeta(ctx, js, info.Name, []byte("{"))
		}, artefacts.ErrCorrupt},
		"metadata claims a huge size": {func(ctx context.Context, js jetstream.JetStream, _ jetstream.Stream, info *jetstream.ObjectInfo) error {
			info.Size = 1 << 60
			meta, err := json.Marshal(info)
			if err != nil {
				return err
			}
			return publishMeta(ctx, js, info.Name, meta)
		}, artefacts.ErrTooLarge},
		"metadata claims less": {func(ctx context.Context, js jetstream.JetStream, _ jetstream.Stream, info *jetstream.ObjectInfo) error {
			info.Size = 10
			meta, err := json.Marshal(info)
			if err != nil {
				return err
			}
			return publishMeta(ctx, js, info.Name, meta)
		}, artefacts.ErrCorrupt},
		"metadata without chunks": {func(ctx context.Context, js jetstream.JetStream, _ jetstream.Stream, info *jetstream.ObjectInfo) error {
			return publishMeta(ctx, js, info.Name, []byte("{}"))
		}, artefacts.ErrCorrupt},
		"object deleted": {func(ctx context.Context, js jetstream.JetStream, _ jetstream.Stream, info *jetstream.ObjectInfo) error {
			bucket, err := js.ObjectStore(ctx, natsd.ObjectBucket)
			if err != nil {
				return err
			}
			return bucket.Delete(ctx, info.Name)
		}, artefacts.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, js := natsdtest.Start(t)
			loose(t, js)
			s := open(t, js, 1<<20)
			ref, err := s.Put(t.Context(), bytes.NewReader(data), "text/x-diff")
			if err != nil {
				t.Fatal(err)
			}
			info, err := objects(t, js).GetInfo(t.Context(), ref.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			stream, err := js.Stream(t.Context(), "OBJ_"+natsd.ObjectBucket)
			if err != nil {
				t.Fatal(err)
			}
			if err := tc.damage(t.Context(), js, stream, info); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Get(t.Context(), ref.SHA256); !errors.Is(err, tc.want) || got != nil {
				t.Errorf("%d bytes, error %v, want %v", len(got), err, tc.want)
			}
			if _, err := s.Put(t.Context(), bytes.NewReader(data), "text/x-diff"); err != nil {
				t.Fatalf("put again: %v", err)
			}
			if got, err := s.Get(t.Context(), ref.SHA256); err != nil || !bytes.Equal(got, data) {
				t.Errorf("after putting it again: %d bytes, error %v", len(got), err)
			}
		})
	}
}

func TestServerGone(t *testing.T) {
	t.Parallel()
	srv, js := natsdtest.Start(t)
	s := open(t, js, 1<<20)
	natsdtest.Close(t, srv)
	if _, err := s.Put(t.Context(), strings.NewReader("patch"), ""); err == nil {
		t.Error("put without a server")
	}
	if _, err := s.Get(t.Context(), artefacts.Digest([]byte("patch"))); err == nil || errors.Is(err, artefacts.ErrNotFound) {
		t.Errorf("get without a server: %v", err)
	}
}
