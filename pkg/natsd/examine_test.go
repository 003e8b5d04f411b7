// SPDX-License-Identifier: Apache-2.0

package natsd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/natsd"
)

func TestExamineWholeStore(t *testing.T) {
	t.Parallel()
	if streams, err := natsd.ExamineStore(t.TempDir()); err != nil || len(streams) != 0 {
		t.Errorf("empty: %v, %v", streams, err)
	}
	dir := t.TempDir()
	s := start(t, dir)
	js := connect(t, s)
	if err := natsd.Provision(t.Context(), js, small); err != nil {
		t.Fatal(err)
	}
	publish(t, js, "emergency.e20261124-1", 100)
	// Values of a bucket are replaced and deleted, which leaves erased records and notes of deletion.
	bucket, err := js.KeyValue(t.Context(), natsd.EffectBucket)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		key := fmt.Sprint("k", i%5)
		if _, err := bucket.PutString(t.Context(), key, strings.Repeat("v", i*50)); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			if err := bucket.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
	}
	closeServer(t, s)
	streams, err := natsd.ExamineStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		if s.Name == natsd.Stream && s == (natsd.StoredStream{Account: "$G", Name: natsd.Stream, Messages: 100, First: 1, Last: 100}) {
			return
		}
	}
	t.Errorf("streams %+v, want %s with its 100 messages", streams, natsd.Stream)
}

// TestExamineRunning examines a store while it is written to, and then with a bit flipped under the running server, which notices nothing.
func TestExamineRunning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	js := connect(t, s)
	if err := natsd.Provision(t.Context(), js, small); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	bucket, err := js.KeyValue(ctx, natsd.EffectBucket)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var written atomic.Int64
	group.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_, err := js.Publish(ctx, "emergency.e20261124-1", fmt.Appendf(nil, "record %d", i))
			if err == nil {
				_, err = bucket.PutString(ctx, fmt.Sprint("k", i%5), strings.Repeat("v", i%2000))
			}
			if err == nil && i%3 == 0 {
				err = bucket.Delete(ctx, fmt.Sprint("k", i%5))
			}
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
			written.Store(int64(i))
		}
	})
	for last := int64(-1); last < 300; {
		before := written.Load()
		streams, err := natsd.ExamineRunning(ctx, dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range streams {
			if s.Name == natsd.Stream && s.Messages < uint64(before) {
				t.Errorf("%d messages were read of %d", s.Messages, before)
			}
		}
		last = before
	}
	stop()
	group.Wait()
	path := filepath.Join(dir, "jetstream", "$G", "streams", natsd.Stream, "msgs", "1.blk")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte("record 50"))
	if _, err := f.WriteAt([]byte{b[at] ^ 1}, int64(at)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := natsd.ExamineRunning(t.Context(), dir); !errors.Is(err, natsd.ErrStoreDamaged) || !strings.Contains(err.Error(), natsd.Stream) {
		t.Errorf("error %v, want ErrStoreDamaged naming the stream", err)
	}
}

// TestExamineFindsEachBit flips every bit of two records, one in the middle and the last, and bits of the settings and their sum, one after the
// other.
func TestExamineFindsEachBit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	js := connect(t, s)
	if err := natsd.Provision(t.Context(), js, small); err != nil {
		t.Fatal(err)
	}
	for i := range 50 { // with headers, as the records of histories
		if _, err := js.Publish(t.Context(), "emergency.e20261124-1", fmt.Appendf(nil, "record %d", i), jetstream.WithExpectLastSequencePerSubject(uint64(i))); err != nil {
			t.Fatal(err)
		}
	}
	closeServer(t, s)
	stream := filepath.Join(dir, "jetstream", "$G", "streams", natsd.Stream)
	for _, file := range []string{"msgs/1.blk", "meta.inf", "meta.sum"} {
		path := filepath.Join(stream, file)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		missed := 0
		for i := range len(b) * 8 {
			one := len(b) / 50 // length of a record, about
			if block := strings.HasSuffix(file, "blk"); !block && i%17 != 0 || block && i/8/one != 25 && i/8 < len(b)-one {
				continue
			}
			b[i/8] ^= 1 << (i % 8)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := natsd.ExamineStore(dir); !errors.Is(err, natsd.ErrStoreDamaged) {
				t.Errorf("%s: bit %d of byte %d: error %v", file, i%8, i/8, err)
				if missed++; missed > 10 {
					t.FailNow()
				}
			}
			b[i/8] ^= 1 << (i % 8)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := natsd.ExamineStore(dir); err != nil {
		t.Errorf("restored: %v", err)
	}
}

// TestExamineTornTail cuts the last record at each of its bytes: a write that was cut short, never damage.
func TestExamineTornTail(t *testing.T) {
	t.Parallel()
	dir, stream := storeOf100(t, true)
	path := filepath.Join(stream, "msgs", "1.blk")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := binaryLen(b)
	for n := 1; n < last; n++ {
		if err := os.WriteFile(path, b[:len(b)-n], 0o600); err != nil {
			t.Fatal(err)
		}
		streams, err := natsd.ExamineStore(dir)
		if err != nil || streams[0].HalfWritten != last-n || streams[0].Last != 99 {
			t.Fatalf("%d bytes missing: %+v, %v", n, streams, err)
		}
	}
	// Space that the file system gave before anything was written.
	if err := os.WriteFile(path, append(b[:len(b):len(b)], make([]byte, 300)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if streams, err := natsd.ExamineStore(dir); err != nil || streams[0].HalfWritten != 300 || streams[0].Last != 100 {
		t.Errorf("zeros at the end: %+v, %v", streams, err)
	}
}

func TestExamineMissingBlock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	js := connect(t, s)
	if err := natsd.Provision(t.Context(), js, natsd.Profile{Replicas: 1, MaxBytes: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", natsd.MaxMessage-1024)
	for range 40 { // several blocks
		if _, err := js.Publish(t.Context(), "emergency.e20261124-1", []byte(text), jetstream.WithExpectStream(natsd.Stream)); err != nil {
			t.Fatal(err)
		}
	}
	closeServer(t, s)
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "$G", "streams", natsd.Stream, "msgs", "*.blk"))
	if err != nil || len(blocks) < 3 {
		t.Fatalf("%d blocks, %v, want three", len(blocks), err)
	}
	for _, missing := range blocks[:2] {
		if err := os.Rename(missing, missing+".away"); err != nil {
			t.Fatal(err)
		}
		if _, err := natsd.ExamineStore(dir); !errors.Is(err, natsd.ErrStoreDamaged) {
			t.Errorf("without %s: %v", missing, err)
		}
		if err := os.Rename(missing+".away", missing); err != nil {
			t.Fatal(err)
		}
	}
}
