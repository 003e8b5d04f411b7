// SPDX-License-Identifier: Apache-2.0

package recording_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"cacert.org/emergency/pkg/recording"
)

// frameOf is the frame whose line or hash line holds byte i.
func frameOf(data []byte, i int) uint64 { return uint64(bytes.Count(data[:i], []byte("\n")) / 2) }

func isBroken(t *testing.T, what string, rep recording.Report, frame uint64) {
	t.Helper()
	if rep.State != recording.Broken || rep.FirstBad != frame || rep.Why == "" {
		t.Errorf("%s: %s, frame %d (%s), want broken at frame %d", what, rep.State, rep.FirstBad, rep.Why, frame)
	}
}

// TestFlip is acceptance line 4: whatever byte is changed, the check names the frame whose line, or hash line, holds it.
func TestFlip(t *testing.T) {
	t.Parallel()
	data, _ := session(t)
	for i := range data {
		bits := []int{i % 8}
		if i%5 == 0 {
			bits = []int{0, 1, 2, 3, 4, 5, 6, 7}
		}
		for _, bit := range bits {
			bad := bytes.Clone(data)
			bad[i] ^= 1 << bit
			isBroken(t, fmt.Sprintf("byte %d, bit %d", i, bit), verify(t, bad), frameOf(data, i))
		}
	}
}

// TestCut: a recording that was cut is never complete, and the frame that is not whole is named.
func TestCut(t *testing.T) {
	t.Parallel()
	data, _ := session(t)
	for n := range data {
		rep := verify(t, data[:n])
		lines := bytes.Count(data[:n], []byte("\n"))
		if n > 0 && data[n-1] == '\n' && lines%2 == 0 {
			if rep.State != recording.Incomplete || rep.FirstBad != uint64(lines/2) || rep.Why == "" {
				t.Errorf("cut at %d, behind a frame: %s, frame %d, want incomplete before frame %d", n, rep.State, rep.FirstBad, lines/2)
			}
			continue
		}
		isBroken(t, fmt.Sprintf("cut at %d", n), verify(t, data[:n]), frameOf(data, n))
	}
}

// large is a recording of some megabytes.
func large(t testing.TB) ([]byte, []recording.Checkpoint) {
	t.Helper()
	var m memory
	w := writer(t, &m, 64<<20)
	var points []recording.Checkpoint
	g := rand.New(rand.NewPCG(3, 4))
	for range 60 {
		b := make([]byte, g.IntN(20000))
		for i := range b {
			b[i] = byte(g.IntN(256))
		}
		output(t, w, string(b))
		output(t, w, strings.Repeat("drwxr-xr-x 2 root root 4096 Nov 24 10:00 grün\r\n", g.IntN(300)))
		cp, err := w.Checkpoint()
		must(t, err)
		points = append(points, cp)
	}
	_, err := w.End("logout")
	must(t, err)
	return m.bytes(), points
}

func TestLargeFlipAndCut(t *testing.T) {
	t.Parallel()
	data, points := large(t)
	if rep := verify(t, data, points...); rep.State != recording.Complete || rep.Proven != points[59].Frame {
		t.Fatalf("%+v", rep)
	}
	g := rand.New(rand.NewPCG(5, 6))
	for range 8 {
		i := g.IntN(len(data))
		bad := bytes.Clone(data)
		bad[i] ^= 1 << g.IntN(8)
		isBroken(t, fmt.Sprintf("byte %d", i), verify(t, bad), frameOf(data, i))
		n := g.IntN(len(data))
		if rep := verify(t, data[:n]); rep.State == recording.Complete || rep.FirstBad != frameOf(data, n) {
			t.Errorf("cut at %d: %s, frame %d, want %d", n, rep.State, rep.FirstBad, frameOf(data, n))
		}
	}
}

// TestRearranged: frames that are taken out, put in twice, exchanged, or stand behind the end.
func TestRearranged(t *testing.T) {
	t.Parallel()
	data, _ := session(t)
	lines := strings.SplitAfter(strings.TrimSuffix(string(data), "\n"), "\n")
	lines[len(lines)-1] += "\n"
	last := len(lines)/2 - 1
	build := func(order ...int) []byte {
		var b bytes.Buffer
		for _, f := range order {
			b.WriteString(lines[2*f] + lines[2*f+1])
		}
		return b.Bytes()
	}
	all := make([]int, last+1)
	for i := range all {
		all[i] = i
	}
	for i := range last + 1 {
		removed := slices.Delete(slices.Clone(all), i, i+1)
		if i < last {
			isBroken(t, fmt.Sprintf("without frame %d", i), verify(t, build(removed...)), uint64(i))
		}
		twice := slices.Insert(slices.Clone(all), i, i)
		isBroken(t, fmt.Sprintf("frame %d twice", i), verify(t, build(twice...)), uint64(i)+1)
		if i < last {
			exchanged := slices.Clone(all)
			exchanged[i], exchanged[i+1] = exchanged[i+1], exchanged[i]
			isBroken(t, fmt.Sprintf("frames %d and %d exchanged", i, i+1), verify(t, build(exchanged...)), uint64(i))
		}
		// A comment is no frame of ours, and a recording has none but ours.
		comment := append(build(all[:i+1]...), "# a comment\n"...)
		isBroken(t, "a comment", verify(t, append(comment, build(all[i+1:]...)...)), uint64(i)+1)
	}
	for _, tail := range []string{"\n", " ", "x", "[0.000, \"o\", \"x\"]\n", strings.Repeat("\x00", 1<<20)} {
		isBroken(t, "something behind the end", verify(t, append(bytes.Clone(data), tail...)), uint64(last)+1)
	}
	crlf := bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))
	isBroken(t, "other line ends", verify(t, crlf), 0)
}

// rehash makes a chain for lines that somebody has changed: what who can write the file can do.
func rehash(events ...string) []byte {
	var b bytes.Buffer
	chain := sha256.Sum256([]byte("recording/" + header.Incident + "/" + header.Grant + events[0]))
	for i, e := range events {
		if i > 0 {
			chain = sha256.Sum256(append(chain[:], e...))
		}
		fmt.Fprintf(&b, "%s# %d %x\n", e, i, chain)
	}
	return b.Bytes()
}

func events(data []byte) (all []string) {
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, "#") {
			all = append(all, line)
		}
	}
	return all
}

// TestForged is N21: a recording whose chain was made anew is good in itself; the checkpoints in the history catch it.
func TestForged(t *testing.T) {
	t.Parallel()
	data, points := session(t)
	if !bytes.Equal(rehash(events(data)...), data) {
		t.Fatal("the chain is not what the format says")
	}
	changed := events(data)
	changed[6] = strings.Replace(changed[6], `\r\nb`, `\r\nB`, 1)
	forged := rehash(changed...)
	if bytes.Equal(forged, data) {
		t.Fatal("nothing was changed")
	}
	if rep := verify(t, forged); rep.State != recording.Complete || rep.HasProof {
		t.Fatalf("without anchors: %+v", rep)
	}
	rep := verify(t, forged, points[2], points[0], points[1])
	isBroken(t, "forged", rep, points[1].Frame)
	if len(rep.Unmatched) != 2 || rep.Unmatched[0].Anchor != points[1] || !rep.HasProof || rep.Proven != points[0].Frame {
		t.Errorf("%+v", rep)
	}
	// A true beginning that was cut off and ended anew.
	short := append(events(data)[:points[1].Frame], "[0.000, \"E\", \"{\\\"reason\\\":\\\"x\\\",\\\"frames\\\":"+
		fmt.Sprint(points[1].Frame)+",\\\"output\\\":23,\\\"input\\\":3,\\\"discarded\\\":0}\"]\n")
	if rep := verify(t, rehash(short...)); rep.State != recording.Complete {
		t.Fatalf("the short one is no good in itself: %+v", rep)
	}
	isBroken(t, "ended anew", verify(t, rehash(short...), points[:2]...), points[1].Frame)
	// Cut behind a frame: incomplete, but for the checkpoint that says there was more.
	cut := data[:points[0].Bytes]
	if rep := verify(t, cut, points[0]); rep.State != recording.Incomplete || !rep.HasProof {
		t.Errorf("cut: %+v", rep)
	}
	rep = verify(t, cut, points...)
	isBroken(t, "cut before a checkpoint", rep, points[0].Frame+1)
	if len(rep.Unmatched) != 2 {
		t.Errorf("%+v", rep.Unmatched)
	}
	for _, wrong := range []func(*recording.Checkpoint){
		func(c *recording.Checkpoint) { c.Output++ }, func(c *recording.Checkpoint) { c.Bytes-- }, func(c *recording.Checkpoint) { c.Chain[5]++ },
	} {
		cp := points[1]
		wrong(&cp)
		rep := verify(t, data, cp)
		isBroken(t, "wrong checkpoint", rep, cp.Frame)
		if len(rep.Unmatched) != 1 || rep.Unmatched[0].Why == "" {
			t.Errorf("%+v", rep.Unmatched)
		}
	}
	other, _ := large(t)
	isBroken(t, "another recording", verify(t, other, points...), points[1].Frame)
}

// TestForgedFrames: the chain is right, the frames are not what a writer writes.
func TestForgedFrames(t *testing.T) {
	t.Parallel()
	data, _ := session(t)
	head := events(data)[0]
	end := func(frames, output int) string {
		return fmt.Sprintf("[0.000, \"E\", \"{\\\"reason\\\":\\\"\\\",\\\"frames\\\":%d,\\\"output\\\":%d,\\\"input\\\":0,\\\"discarded\\\":0}\"]\n", frames, output)
	}
	if rep := verify(t, rehash(head, "[0.000, \"o\", \"ab\"]\n", end(2, 2))); rep.State != recording.Complete {
		t.Fatalf("the pattern is no good: %+v", rep)
	}
	tests := map[string][]string{
		"other form":            {"[0, \"o\", \"x\"]\n"},
		"spaces":                {"[0.000,  \"o\", \"x\"]\n"},
		"escape that need not":  {"[0.000, \"o\", \"\\u0041\"]\n"},
		"surrogate":             {"[0.000, \"o\", \"\\ud800\"]\n"},
		"not UTF-8":             {"[0.000, \"o\", \"\xff\"]\n"},
		"negative":              {"[-1.000, \"o\", \"x\"]\n"},
		"not a number":          {"[\"x\", \"o\", \"x\"]\n"},
		"for ever":              {"[1e300, \"o\", \"x\"]\n"},
		"too late":              {"[999999999.000, \"o\", \"x\"]\n", "[999999999.000, \"o\", \"x\"]\n", "[999999999.000, \"o\", \"x\"]\n", "[999999999.000, \"o\", \"x\"]\n"},
		"unknown code":          {"[0.000, \"Q\", \"x\"]\n"},
		"long code":             {"[0.000, \"oo\", \"x\"]\n"},
		"no text":               {"[0.000, \"o\", 1]\n"},
		"four":                  {"[0.000, \"o\", \"x\", 1]\n"},
		"empty":                 {"\n"},
		"size":                  {"[0.000, \"r\", \"0x5\"]\n"},
		"status":                {"[0.000, \"x\", \"one\"]\n"},
		"no JSON":               {"[0.000, \"A\", \"{\"]\n"},
		"unknown field":         {"[0.000, \"A\", \"{\\\"x\\\":1}\"]\n"},
		"two objects":           {"[0.000, \"A\", \"{}{}\"]\n"},
		"bytes without display": {"[0.000, \"B\", \"{\\\"data\\\":\\\"/w==\\\"}\"]\n", "[0.000, \"m\", \"x\"]\n"},
		"other display":         {"[0.000, \"B\", \"{\\\"data\\\":\\\"/w==\\\"}\"]\n", "[0.000, \"o\", \"harmless\"]\n"},
		"not begun":             {"[0.000, \"H\", \"{\\\"data\\\":\\\"YQ==\\\"}\"]\n"},
		"not gone on with":      {"[0.000, \"H\", \"{\\\"data\\\":\\\"ww==\\\"}\"]\n", "[0.000, \"o\", \"x\"]\n"},
		"totals of frames":      {end(2, 0)},
		"totals of output":      {"[0.000, \"o\", \"ab\"]\n", end(2, 1)},
		"two ends":              {end(1, 0), end(2, 0)},
		"a line without end":    {"[0.000, \"o\", \"" + strings.Repeat("x", 1<<20) + "\"]\n"},
	}
	for name, lines := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			isBroken(t, name, verify(t, rehash(append([]string{head}, lines...)...)), uint64(len(lines)))
		})
	}
	for name, line := range map[string]string{
		"version": strings.Replace(head, `"version":3`, `"version":2`, 1), "format": strings.Replace(head, `"format":1`, `"format":2`, 1),
		"incident": strings.Replace(head, `"incident":"e`, `"incident":"/`, 1), "time": strings.Replace(head, "T10", "T99", 1),
		"null": "null\n", "deep": strings.Repeat("[", 100000) + "\n", "comment": "# 0\n", "title": strings.Replace(head, `"title":"e`, `"title":"f`, 1),
	} {
		if line == head {
			t.Errorf("%s: nothing was changed", name)
		}
		isBroken(t, "header: "+name, verify(t, rehash(line)), 0)
	}
}

func TestReadingFails(t *testing.T) {
	t.Parallel()
	data, _ := session(t)
	for _, n := range []int{0, 100, 1000, len(data)} {
		r := io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(errors.New("input/output error")))
		if rep, err := recording.Verify(r, nil); err == nil {
			t.Errorf("an error of the source after %d bytes is %+v", n, rep)
		}
	}
	if rep, err := recording.Verify(iotest.OneByteReader(bytes.NewReader(data)), nil); err != nil || rep.State != recording.Complete {
		t.Errorf("byte by byte: %+v %v", rep, err)
	}
}
