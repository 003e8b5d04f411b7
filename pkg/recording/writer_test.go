// SPDX-License-Identifier: Apache-2.0

package recording_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"cacert.org/emergency/pkg/recording"
)

// TestClockBack: a clock that goes back makes no time of a frame before that of the frame before.
func TestClockBack(t *testing.T) {
	t.Parallel()
	var m memory
	times := []int{0, 5000, 3000, 6000}
	w, err := recording.NewWriterTo(recording.Config{Header: header, Limit: 1 << 20, Salt: salt(), Now: func() time.Time {
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(times[0]) * time.Millisecond)
		times = times[1:]
		return at
	}}, &m)
	must(t, err)
	for range 3 {
		output(t, w, "x")
	}
	got := ""
	for _, f := range frames(t, m.bytes()) {
		got += f.At.Format("05.0 ")
	}
	if got != "05.0 05.0 06.0 " {
		t.Errorf("times are %s", got)
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	var m memory
	w := writer(t, &m, limit)
	text := strings.Repeat("0123456789\r\n", 1000)
	var full *recording.LimitError
	before := int64(0)
	for !errors.As(err(w.Output([]byte(text))), &full) {
		before = w.Offset()
	}
	if full.Limit != limit || w.Offset() != before || int64(m.buf.Len()) != full.Size {
		t.Fatalf("at the limit: %+v, offset %d, file %d", full, w.Offset(), m.buf.Len())
	}
	if e := w.Typed("P1", []byte(strings.Repeat("x", 20000)+"\r")); e != nil { // small enough for what is left, or refused
		if !errors.As(e, &full) {
			t.Fatal(e)
		}
	}
	must(t, w.Freeze("SIZE", "processes")) // there is room to say why
	if e := w.Extend("P2", limit); e == nil {
		t.Error("the limit was extended to what it is")
	}
	must(t, w.Extend("P2", 2*limit))
	if n := output(t, w, text); n != before+int64(len(text)) {
		t.Errorf("after the extension the offset is %d", n)
	}
	// Even when notes have eaten all the reserve, the end has its place.
	for !errors.As(w.Note("P2", strings.Repeat("n", 4000)), &full) {
	}
	_, e := w.End("SIZE")
	must(t, e)
	if rep := verify(t, m.bytes()); rep.State != recording.Complete || rep.Size > 2*limit {
		t.Errorf("%+v", rep)
	}
}

func err[T any](_ T, err error) error { return err }

// TestLongText: what a client or a person may say has bounds, and says so.
func TestLongText(t *testing.T) {
	t.Parallel()
	var m memory
	w := writer(t, &m, 1<<20)
	must(t, w.Note("P2", strings.Repeat("ü", 5000)))
	must(t, w.Refused("env \xff\x1b[31m", "x"))
	note := frames(t, m.bytes())[0].Body.(recording.Note)
	if len(note.Text) > 4200 || !strings.HasSuffix(note.Text, " [cut, 10000 bytes]") {
		t.Errorf("a long note has %d bytes and ends with %q", len(note.Text), note.Text[len(note.Text)-30:])
	}
	if r := frames(t, m.bytes())[2].Body.(recording.Refused); r.Request != "env \ufffd\ufffd[31m" {
		t.Errorf("request is %q", r.Request)
	}
}

// TestFailClosed: after an error of the disk nothing is recorded any more, and everybody is told (N11, N17).
func TestFailClosed(t *testing.T) {
	t.Parallel()
	calls := func(w *recording.Writer) map[string]error {
		return map[string]error{
			"output": err(w.Output([]byte("x"))), "typed": w.Typed("P1", []byte("x")), "note": w.Note("P2", "x"), "ack": w.Ack("P2", 1),
			"discarded": w.Discarded(1, "x"), "extend": w.Extend("P2", 1<<40), "checkpoint": err(w.Checkpoint()), "end": err(w.End("x")),
		}
	}
	t.Run("full", func(t *testing.T) {
		t.Parallel()
		m := &memory{room: 3000}
		w := writer(t, m, 1<<20)
		output(t, w, "whole")
		whole := m.buf.Len()
		if _, err := w.Output(make([]byte, 3000)); err == nil {
			t.Fatal("a full disk was not noticed")
		}
		m.room = 0 // there is room again, and yet
		for name, err := range calls(w) {
			if err == nil || !strings.Contains(err.Error(), "no space left") {
				t.Errorf("%s after a failed write: %v", name, err)
			}
		}
		if m.buf.Len() != whole || verify(t, m.bytes()).State != recording.Incomplete {
			t.Errorf("half a frame was left: %d bytes, %d whole", m.buf.Len(), whole)
		}
	})
	t.Run("sync", func(t *testing.T) {
		t.Parallel()
		m := &memory{syncErr: errors.New("input/output error")}
		w := writer(t, m, 1<<20)
		if _, err := w.Checkpoint(); err == nil {
			t.Fatal("a failed sync was not noticed")
		}
		m.mu.Lock()
		m.syncErr = nil
		m.mu.Unlock()
		for name, err := range calls(w) {
			if err == nil || !strings.Contains(err.Error(), "input/output error") {
				t.Errorf("%s after a failed sync: %v", name, err)
			}
		}
	})
	t.Run("salt", func(t *testing.T) {
		t.Parallel()
		m := &memory{}
		w, e := recording.NewWriterTo(recording.Config{Header: header, Limit: 1 << 20, Now: clock(1), Salt: strings.NewReader("short")}, m)
		must(t, e)
		must(t, w.Typed("P1", []byte("\r"))) // needs none
		if w.Typed("P1", []byte("secret")) == nil {
			t.Fatal("without a salt a commitment was made")
		}
		for name, err := range calls(w) {
			if err == nil {
				t.Errorf("%s after a missing salt", name)
			}
		}
	})
	t.Run("end", func(t *testing.T) {
		t.Parallel()
		m := &memory{}
		w := writer(t, m, 1<<20)
		_, e := w.End("once")
		must(t, e)
		must(t, w.Close())
		for name, err := range calls(w) {
			if !errors.Is(err, recording.ErrEnded) {
				t.Errorf("%s after the end: %v", name, err)
			}
		}
		if rep := verify(t, m.bytes()); rep.State != recording.Complete || rep.End.Reason != "once" || !m.closed {
			t.Errorf("%+v", rep)
		}
	})
	t.Run("given up", func(t *testing.T) {
		t.Parallel()
		m := &memory{}
		w := writer(t, m, 1<<20)
		must(t, w.Close())
		if _, err := w.End("late"); !errors.Is(err, recording.ErrEnded) || verify(t, m.bytes()).State != recording.Incomplete {
			t.Errorf("a recording that was given up was ended: %v", err)
		}
	})
}

// TestConcurrent: several may write at once; each sees its own order.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	var m memory
	w := writer(t, &m, 64<<20)
	const each = 200
	var group sync.WaitGroup
	var points []recording.Checkpoint
	for i := range 4 {
		group.Go(func() {
			for k := range each {
				if i == 0 {
					cp, err := w.Checkpoint()
					if err != nil {
						t.Error(err)
						return
					}
					points = append(points, cp)
				}
				if err := w.Note(fmt.Sprint(i), fmt.Sprint(k)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	seen := map[string]int{}
	for _, f := range frames(t, m.bytes()) {
		if n, ok := f.Body.(recording.Note); ok {
			if n.Text != fmt.Sprint(seen[n.By]) {
				t.Fatalf("%s wrote %s, want %d", n.By, n.Text, seen[n.By])
			}
			seen[n.By]++
		}
	}
	if len(seen) != 4 || seen["3"] != each {
		t.Errorf("notes are %v", seen)
	}
	if rep := verify(t, m.bytes(), points...); rep.State != recording.Incomplete || len(rep.Unmatched) > 0 || !rep.HasProof {
		t.Errorf("%+v", rep)
	}
}

// TestPassword: what is typed with the echo off is nowhere in the file, and cannot be found by guessing either.
func TestPassword(t *testing.T) {
	t.Parallel()
	var m memory
	w := writer(t, &m, 1<<20)
	output(t, w, "Password: ")
	must(t, w.Typed("P1", []byte("hunter2")))
	must(t, w.Typed("P1", []byte("\r")))
	output(t, w, "\r\n# ")
	_, err := w.End("logout")
	must(t, err)
	guess := sha256.Sum256([]byte("hunter2"))
	for _, secret := range []string{"hunter2", hex.EncodeToString(guess[:])} {
		if bytes.Contains(m.bytes(), []byte(secret)) {
			t.Errorf("the recording contains %s", secret)
		}
	}
	var typed []recording.Typed
	for _, f := range frames(t, m.bytes()) {
		if b, ok := f.Body.(recording.Typed); ok {
			typed = append(typed, b)
		}
	}
	if len(typed) != 1 || typed[0].Length != 7 || typed[0].By != "P1" {
		t.Errorf("typed is %+v", typed)
	}
}
