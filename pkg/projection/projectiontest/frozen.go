// SPDX-License-Identifier: Apache-2.0

package projectiontest

import (
	"bufio"
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// EachFrozen runs a test on a log with each of the frozen histories: what released versions recorded. They lie beside the rules,
// two folders above a package below pkg/projection.
func EachFrozen(t *testing.T, test func(t *testing.T, s *Stream)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "procedure", "testdata", "*-v*.txt"))
	if err != nil || len(files) < 5 {
		t.Fatalf("frozen histories are missing: %v, %v", files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			t.Parallel()
			s := NewStream(t)
			s.load(f)
			test(t, s)
		})
	}
}

func (s *Stream) load(path string) {
	s.TB.Helper()
	f, err := os.Open(path)
	if err != nil {
		s.TB.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	last, n := map[string]uint64{}, 0
	for lines.Scan() {
		if strings.Contains(lines.Text(), ": ") {
			continue // a heading
		}
		raw, err := base64.StdEncoding.DecodeString(lines.Text())
		if err != nil {
			s.TB.Fatal(err)
		}
		rec := &emergencyv1.Record{}
		if err := proto.Unmarshal(raw, rec); err != nil {
			s.TB.Fatal(err)
		}
		// Signed over the recorded bytes themselves: encoding them anew could give other hashes.
		signed, err := proto.Marshal(s.Keys.SignBytes(s.TB, rec.GetOwner(), raw))
		if err != nil {
			s.TB.Fatal(err)
		}
		id := rec.GetIncident()
		if last[id], err = s.Store.Append(context.Background(), id, last[id], signed, map[string]string{"traceparent": "00-1-2-01"}); err != nil {
			s.TB.Fatal(err)
		}
		if n++; n%7 == 0 { // strangers write among them
			last[id] = s.Store.Publish("emergency."+strings.ReplaceAll(id, ".", "-"), []byte("junk"))
		}
	}
	if err := lines.Err(); err != nil || n < 10 {
		s.TB.Fatalf("%s: %d records, %v", path, n, err)
	}
	report, err := history.Verify(context.Background(), s.Store, s.Keys.Ring)
	if err != nil || !report.Sound() || report.Records != uint64(n) {
		s.TB.Fatalf("%s: %v, %+v", path, err, report)
	}
}

// Truncated is the same log up to a sequence, as it was once.
func (s *Stream) Truncated(last uint64) *Stream {
	s.TB.Helper()
	old := NewStream(s.TB)
	at := map[string]uint64{}
	err := s.Store.Scan(context.Background(), 0, func(m history.Message) (err error) {
		if m.Sequence <= last {
			at[m.Incident], err = old.Store.Append(context.Background(), m.Incident, at[m.Incident], m.Data, m.Header)
		}
		return err
	})
	if err != nil {
		s.TB.Fatal(err)
	}
	return old
}
