// SPDX-License-Identifier: Apache-2.0

package recording_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"cacert.org/emergency/pkg/recording"
)

// FuzzRead: no bytes make the reader panic, and what it calls complete is exactly what a writer would write.
func FuzzRead(f *testing.F) {
	data, points := session(f)
	f.Add(data)
	f.Add(data[:points[1].Bytes])
	f.Add([]byte("{}\n# 0 00\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rep, err := recording.Verify(bytes.NewReader(b), points)
		if err != nil || rep.Size != int64(len(b)) {
			t.Fatalf("%+v %v", rep, err)
		}
		if rep.State == recording.Complete && !bytes.Equal(b, data) {
			t.Errorf("another recording matches the anchors: %q", b)
		}
		// The same with a chain that fits, so that the frames themselves are looked at.
		lines := events(b)
		if len(lines) == 0 {
			return
		}
		lines[0] = events(data)[0]
		r, err := recording.NewReader(bytes.NewReader(rehash(lines...)))
		if err != nil {
			t.Fatal(err)
		}
		for hit, err := range r.Search("a") {
			var bad *recording.FrameError
			if err != nil && !errors.As(err, &bad) {
				t.Errorf("%v", err)
			}
			if err == nil && !allowed(recording.Replay, []byte(hit.Line)) {
				t.Errorf("a hit is no plain text: %q", hit.Line)
			}
		}
	})
}

// FuzzNeutralise: nothing but the grammar comes out, however the bytes are cut.
func FuzzNeutralise(f *testing.F) {
	f.Add([]byte("\x1b]52;c;x\a\x1b[?1049h\x1b[8m\u009b"), 3)
	f.Fuzz(func(t *testing.T, b []byte, k int) {
		k = min(max(k, 0), len(b))
		for _, p := range []recording.Profile{recording.Replay, recording.Live} {
			got := neutral(t, p, string(b[:k]), string(b[k:]))
			if !allowed(p, []byte(got)) {
				t.Errorf("profile %d: %q becomes %q", p, b, got)
			}
		}
	})
}

// FuzzWrite: any output in any pieces, with input between, comes back.
func FuzzWrite(f *testing.F) {
	f.Add([]byte("gr\xc3\xbc\x1b[A\xff"), []byte("gr\xc3\r"), 3)
	f.Fuzz(func(t *testing.T, out, in []byte, k int) {
		k = min(max(k, 0), len(out))
		var m memory
		w := writer(t, &m, 256<<20)
		output(t, w, string(out[:k]))
		must(t, w.Typed("P1", in))
		output(t, w, string(out[k:]))
		if _, err := w.End("x"); err != nil {
			t.Fatal(err)
		}
		var got []byte
		r := reader(t, m.bytes())
		for {
			fr, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			must(t, err)
			if o, ok := fr.Body.(recording.Output); ok {
				got = append(got, o.Data...)
			}
		}
		if !bytes.Equal(got, out) || !r.Ended() {
			t.Errorf("%q came back as %q", out, got)
		}
	})
}
