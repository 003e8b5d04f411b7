// SPDX-License-Identifier: Apache-2.0

package recording_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/recording"
)

// paused is a recording with known pauses: frames of output at 1, 3, 13 and 14 s, a note at 13.5 s.
func paused(t testing.TB) []byte {
	t.Helper()
	var m memory
	at := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	w, err := recording.NewWriterTo(recording.Config{Header: header, Limit: 1 << 20, Salt: salt(), Now: func() time.Time { return at }}, &m)
	must(t, err)
	for _, s := range []struct {
		after time.Duration
		text  string
	}{{1000, "one\r\n"}, {2000, "\x1b]0;two\atwo\r\n"}, {10000, "th"}, {500, ""}, {500, "ree\r\n"}} {
		at = at.Add(s.after * time.Millisecond)
		if s.text == "" {
			must(t, w.Note("P2", "Odd\x1b]0;"))
			continue
		}
		output(t, w, s.text)
	}
	must(t, w.Refused("exec", "SURFACE"))
	_, err = w.End("logout")
	must(t, err)
	return m.bytes()
}

func reader(t testing.TB, data []byte) *recording.Reader {
	t.Helper()
	r, err := recording.NewReader(bytes.NewReader(data))
	must(t, err)
	return r
}

func TestPlay(t *testing.T) {
	t.Parallel()
	data := paused(t)
	const all = "one\r\n␛]0;two␇two\r\nthree\r\n\x1b[0m"
	tests := map[string]struct {
		o    recording.Options
		want string // pauses
	}{
		"as it was":   {recording.Options{}, "2s 10s 500ms 500ms"},
		"faster":      {recording.Options{Speed: 4}, "500ms 2.5s 125ms 125ms"},
		"at once":     {recording.Options{Speed: -1}, ""},
		"no idling":   {recording.Options{MaxIdle: time.Second, Speed: 2}, "500ms 500ms 250ms 250ms"},
		"from frame":  {recording.Options{From: recording.Place{Frame: 3}}, "500ms 500ms"},
		"from byte":   {recording.Options{From: recording.Place{Output: 5}}, "10s 500ms 500ms"},
		"from time":   {recording.Options{From: recording.Place{After: 13200 * time.Millisecond}, Start: time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)}, "500ms"},
		"from time 2": {recording.Options{From: recording.Place{After: 12 * time.Second}}, "500ms 500ms"}, // since the first frame
		"from marker": {recording.Options{From: recording.Place{Marker: "note by p2: odd"}}, "500ms"},
		"from beyond": {recording.Options{From: recording.Place{Frame: 999}}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			var pauses []string
			test.o.Wait = func(_ context.Context, d time.Duration) error {
				pauses = append(pauses, d.String())
				return nil
			}
			must(t, recording.Play(t.Context(), reader(t, data).Frames(), &b, test.o))
			if b.String() != all {
				t.Errorf("shown is %q, want %q", b.String(), all)
			}
			if got := strings.Join(pauses, " "); got != test.want {
				t.Errorf("pauses are %s, want %s", got, test.want)
			}
		})
	}
}

func TestPlayEnds(t *testing.T) {
	t.Parallel()
	data := paused(t)
	stop := errors.New("stop")
	ctx, cancel := context.WithCancel(t.Context())
	tests := map[string]struct {
		o    recording.Options
		w    io.Writer
		data []byte
		want string
	}{
		"ctx while waiting": {recording.Options{OnFrame: func(f recording.Frame, _ bool) error {
			if f.Number == 1 {
				cancel()
			}
			return nil
		}}, &bytes.Buffer{}, data, context.Canceled.Error()},
		"OnFrame":       {recording.Options{Speed: -1, OnFrame: func(recording.Frame, bool) error { return stop }}, &bytes.Buffer{}, data, "stop"},
		"terminal gone": {recording.Options{Speed: -1}, &failing{}, data, "terminal is gone"},
		"bad frame":     {recording.Options{Speed: -1}, &bytes.Buffer{}, bytes.Replace(data, []byte("one"), []byte("0ne"), 1), "frame 1 is bad"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			use := t.Context()
			if strings.HasPrefix(name, "ctx") {
				use = ctx
			}
			if err := recording.Play(use, reader(t, test.data).Frames(), test.w, test.o); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want %s", err, test.want)
			}
			if b, ok := test.w.(*bytes.Buffer); ok && !strings.HasSuffix(b.String(), "\x1b[0m") {
				t.Errorf("the terminal was not set back: %q", b)
			}
		})
	}
}

func TestSeek(t *testing.T) {
	t.Parallel()
	data := paused(t)
	for place, want := range map[recording.Place]uint64{
		{}: 1, {Frame: 3}: 3, {Output: 4}: 1, {Output: 5}: 2, {After: time.Second}: 1, {After: 3001 * time.Millisecond}: 3, {Marker: "ODD"}: 5,
		{Frame: 4, Marker: "odd"}: 4,
	} {
		if f, err := reader(t, data).Seek(place); err != nil || f.Number != want {
			t.Errorf("%+v is at frame %d, want %d; %v", place, f.Number, want, err)
		}
	}
	if _, err := reader(t, data).Seek(recording.Place{Marker: "even"}); !errors.Is(err, io.EOF) {
		t.Errorf("what is not there: %v", err)
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	var m memory
	w := writer(t, &m, 1<<20)
	output(t, w, "$ \x1b[1mcat\x1b[0m /etc/pas")
	output(t, w, "swd\r\nroot:x:0\r\n\x1b]0;Root hidden\a\r\n")
	must(t, w.Note("P2", "why the root password?"))
	must(t, w.Typed("P1", []byte("x")))
	output(t, w, "gr\xc3")
	output(t, w, "\xbcn rooz\bt\u202e")
	tests := map[string]string{
		"PASSWD": "2 $ cat /etc/passwd", "root": "2 root:x:0|2 ]0;Root hidden|3 note by P2: why the root password?|8 grün root\ufffd",
		"grün": "8 grün root\ufffd", "1m": "", "nothing": "",
	}
	for text, want := range tests {
		var got []string
		for h, err := range reader(t, m.bytes()).Search(text) {
			must(t, err)
			got = append(got, fmt.Sprint(h.Frame, " ", h.Line))
		}
		if s := strings.Join(got, "|"); s != want {
			t.Errorf("%s is found at %q, want %q", text, s, want)
		}
	}
	bad := bytes.Replace(m.bytes(), []byte("root:x"), []byte("root:y"), 1)
	found := error(nil)
	for _, err := range reader(t, bad).Search("root") {
		found = err
	}
	var frame *recording.FrameError
	if !errors.As(found, &frame) || frame.Frame != 2 {
		t.Errorf("a search in a broken recording: %v", found)
	}
}
