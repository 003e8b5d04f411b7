// SPDX-License-Identifier: Apache-2.0

package recording_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"cacert.org/emergency/pkg/recording"
)

var header = recording.Header{
	Incident: "e20261124.1", Grant: "G1", Subject: "P1", Watcher: "P2", Host: "host-1", Account: "root", Cols: 80, Rows: 24,
	Term: "xterm-256color",
}

// memory is a file in memory that can be made to fail.
type memory struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	room    int // bytes until the disk is full; 0 is no limit
	syncErr error
	syncs   int
	closed  bool
}

func (m *memory) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.room > 0 && m.buf.Len()+len(p) > m.room {
		n, _ := m.buf.Write(p[:max(0, m.room-m.buf.Len())])
		return n, errors.New("no space left on device")
	}
	return m.buf.Write(p)
}

func (m *memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncs++
	return m.syncErr
}

func (m *memory) Truncate(n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.buf.Truncate(int(n))
	return nil
}

func (m *memory) Close() error { m.closed = true; return nil }

func (m *memory) bytes() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.buf.Bytes())
}

// clock goes on by step at every question.
func clock(step time.Duration) func() time.Time {
	var mu sync.Mutex
	now := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(step)
		return now
	}
}

// salt is a source of chance that is the same every time.
func salt() io.Reader { return rand.NewChaCha8([32]byte{1}) }

func writer(t testing.TB, f recording.File, limit int64) *recording.Writer {
	t.Helper()
	w, err := recording.NewWriterTo(recording.Config{
		Header: header, Limit: limit, Now: clock(7 * time.Millisecond), Salt: salt(),
	}, f)
	must(t, err)
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func output(t testing.TB, w *recording.Writer, s string) int64 {
	t.Helper()
	n, err := w.Output([]byte(s))
	must(t, err)
	return n
}

// session writes a short session with a frame of every kind, and returns the file and its checkpoints.
func session(t testing.TB) ([]byte, []recording.Checkpoint) {
	t.Helper()
	var m memory
	w := writer(t, &m, 1<<20)
	var points []recording.Checkpoint
	point := func() {
		cp, err := w.Checkpoint()
		must(t, err)
		points = append(points, cp)
	}
	point()
	output(t, w, "$ ")
	must(t, w.Typed("P1", []byte("ls")))
	output(t, w, "ls")
	must(t, w.Typed("P1", []byte("\r")))
	output(t, w, "\r\nb\xc3")
	must(t, w.Ack("P2", 3))
	output(t, w, "\xbc \xff\xfe\x1b[31m\u0085\"\\\x00\x7f")
	must(t, w.Resize(100, 30))
	must(t, w.Refused("exec", "SURFACE"))
	point()
	must(t, w.Freeze("LEASE", "processes"))
	must(t, w.Discarded(12, "frozen"))
	must(t, w.Thaw("P2", "back"))
	must(t, w.Note("P2", "look at \"this\"\nhere"))
	must(t, w.Takeover("P2", true, "stuck"))
	must(t, w.Takeover("P2", false, "done"))
	must(t, w.Extend("P2", 2<<20))
	must(t, w.Exit(0))
	seal, err := w.End("logout")
	must(t, err)
	points = append(points, seal.Checkpoint)
	rep := verify(t, m.bytes(), points...)
	if rep.State != recording.Complete || rep.SHA256 != seal.SHA256 || rep.Last != seal.Checkpoint || rep.Size != seal.Bytes {
		t.Fatalf("a good recording is %+v", rep)
	}
	return m.bytes(), points
}

func verify(t testing.TB, data []byte, anchors ...recording.Checkpoint) recording.Report {
	t.Helper()
	rep, err := recording.Verify(bytes.NewReader(data), anchors)
	must(t, err)
	return rep
}

func frames(t testing.TB, data []byte) []recording.Frame {
	t.Helper()
	r, err := recording.NewReader(bytes.NewReader(data))
	must(t, err)
	var all []recording.Frame
	for f, err := range r.Frames() {
		must(t, err)
		all = append(all, f)
	}
	return all
}

// TestFormat holds the file to the definition of asciicast 3 as a player reads it.
func TestFormat(t *testing.T) {
	t.Parallel()
	data, _ := session(t)
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	var head struct {
		Version int
		Term    struct {
			Cols, Rows uint16
			Type       string
		}
		Timestamp uint64
	}
	must(t, json.Unmarshal([]byte(lines[0]), &head))
	if head.Version != 3 || head.Term.Cols != 80 || head.Term.Rows != 24 || head.Term.Type != header.Term || head.Timestamp != 1795514400 {
		t.Errorf("header is %+v", head)
	}
	codes := ""
	for i, line := range lines[1:] {
		if i%2 == 0 {
			if !strings.HasPrefix(line, fmt.Sprintf("# %d ", i/2)) {
				t.Errorf("no comment behind frame %d: %s", i/2, line)
			}
			continue
		}
		var event [3]any
		must(t, json.Unmarshal([]byte(line), &event))
		seconds, isNumber := event[0].(float64)
		code, isCode := event[1].(string)
		_, isText := event[2].(string)
		if !isNumber || seconds < 0 || !isCode || len(code) != 1 || !isText {
			t.Errorf("no event of asciicast 3: %s", line)
		}
		codes += code
	}
	if want := "oCoiioHABorRFmDTmNmKmKmLmxE"; codes != want {
		t.Errorf("codes are %s, want %s", codes, want)
	}
}

// TestFrames: what was written is what is read, times and offsets too.
func TestFrames(t *testing.T) {
	t.Parallel()
	data, points := session(t)
	var out, in []byte
	kinds := map[string]int{}
	last := time.Time{}
	for _, f := range frames(t, data) {
		if f.At.Before(last) || f.Output != int64(len(out)) {
			t.Errorf("frame %d is at %v and byte %d of the output, behind %v and %d", f.Number, f.At, f.Output, last, len(out))
		}
		last = f.At
		kinds[fmt.Sprintf("%T", f.Body)]++
		switch b := f.Body.(type) {
		case recording.Output:
			out = append(out, b.Data...)
		case recording.Input:
			in = append(in, b.Text...)
		case recording.Typed:
			if b.By != "P1" || b.Length != 2 || b.Commitment == (recording.Hash{}) {
				t.Errorf("typed is %+v", b)
			}
		case recording.Discarded:
			if b.Bytes != 12 || b.Cause != "frozen" {
				t.Errorf("discarded is %+v", b)
			}
		case recording.End:
			if b.Output != int64(len(out)) || b.Input != 3 || b.Discarded != 12 || b.Frames != f.Number || f.Number != points[2].Frame {
				t.Errorf("end is %+v", b)
			}
		}
		if d := recording.Describe(f.Body); strings.ContainsAny(d, "\n\x1b") {
			t.Errorf("description is more than a line: %q", d)
		}
	}
	if want := "$ ls\r\nb\xc3\xbc \xff\xfe\x1b[31m\u0085\"\\\x00\x7f"; string(out) != want {
		t.Errorf("output is %q, want %q", out, want)
	}
	if string(in) != "ls\r" {
		t.Errorf("plain input is %q", in)
	}
	for _, k := range []string{"Typed", "Refused", "Ack", "Frozen", "Thawed", "Note", "Takeover", "Discarded", "Extended", "Resize", "Exit", "End"} {
		if kinds["recording."+k] == 0 {
			t.Errorf("no frame of kind %s", k)
		}
	}
}

// TestBytes: any bytes in any pieces come back as they were, and whole characters are shown whole.
func TestBytes(t *testing.T) {
	t.Parallel()
	texts := []string{
		"grüße, 日本語 und 🎉 e\u0301", "\xf0\x9f\x98", "\xe2\x82\xc3\x28\xf0\x9f\x92\xa9\xff", "\xed\xa0\x80\xc0\xaf", "\xf4\x90\x80\x80", "\u2028\ufffd\xef\xbf",
		"\xc2", "\xc2\x85\xc2\xa0", strings.Repeat("€", 12000),
	}
	for seed := range uint64(16) {
		g := rand.New(rand.NewPCG(seed, 1))
		b := make([]byte, g.IntN(200))
		for i := range b {
			b[i] = "\x00\n\x1ba\x80\xbf\xc2\xc3\xe2\x82\xf0\x9f\xff\"\\\x7f"[g.IntN(16)]
		}
		texts = append(texts, string(b))
	}
	for i, text := range texts {
		for _, piece := range []int{1, 2, 3, 5, 7, 1 << 20} {
			var m memory
			w := writer(t, &m, 64<<20)
			if len(text) > 1000 && piece < 7 {
				continue
			}
			var n int64
			for rest := text; rest != ""; {
				k := min(piece, len(rest))
				n = output(t, w, rest[:k])
				rest = rest[k:]
			}
			if n != int64(len(text)) {
				t.Errorf("offset is %d of %d", n, len(text))
			}
			_, err := w.End("")
			must(t, err)
			got := ""
			for _, f := range frames(t, m.bytes()) {
				if o, ok := f.Body.(recording.Output); ok {
					got += string(o.Data)
				}
			}
			if got != text || verify(t, m.bytes()).State != recording.Complete {
				t.Errorf("text %d in pieces of %d: %.80q came back as %.80q", i, piece, text, got)
			}
			if shown := shown(t, m.bytes()); i == 0 && shown != text {
				t.Errorf("a player would show %q, not %q", shown, text)
			}
		}
	}
}

// shown is what a player that knows nothing of us shows.
func shown(t testing.TB, data []byte) string {
	t.Helper()
	all := ""
	for line := range strings.Lines(string(data)) {
		var event [3]any
		if strings.HasPrefix(line, "[") && json.Unmarshal([]byte(line), &event) == nil && event[1] == "o" {
			all += event[2].(string)
		}
	}
	return all
}

// TestOldPlayer: what is no UTF-8 is shown as replacement characters, nothing is lost for us.
func TestOldPlayer(t *testing.T) {
	t.Parallel()
	var m memory
	w := writer(t, &m, 1<<20)
	output(t, w, "a\xffb\xc3")
	output(t, w, "\xa9")
	if got := shown(t, m.bytes()); got != "a\ufffdbé" {
		t.Errorf("a player shows %q", got)
	}
}
