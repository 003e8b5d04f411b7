// SPDX-License-Identifier: Apache-2.0

package sse_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"cacert.org/emergency/services/dashboard/sse"
)

// deadlines is a browser's connection that keeps what it was told of writing.
type deadlines struct {
	*httptest.ResponseRecorder
	now    time.Time // the deadline that holds
	during []time.Time
}

func (d *deadlines) SetReadDeadline(time.Time) error    { return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.now = t; return nil }
func (d *deadlines) Write(b []byte) (int, error) {
	d.during = append(d.during, d.now)
	return d.ResponseRecorder.Write(b)
}

func open(t *testing.T) (*sse.Stream, *deadlines) {
	t.Helper()
	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	s, ok := sse.Open(d, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if !ok {
		t.Fatal("not opened")
	}
	return s, d
}

// HTTP/2 resets a stream whose deadline passes, written to or not: it holds while a message is written, and no longer.
func TestNoDeadlineBetweenMessages(t *testing.T) {
	t.Parallel()
	s, d := open(t)
	if !s.Send("", []byte("x\ny\n")) || !d.now.IsZero() || !s.Send("gone", []byte("signed out")) || !d.now.IsZero() || !s.Comment("still true") {
		t.Errorf("not written, or a deadline at %s is left", d.now)
	}
	for _, at := range d.during {
		if at.IsZero() {
			t.Errorf("written with the deadlines %v", d.during)
		}
	}
	if got, want := d.Body.String(), "data: x\ndata: y\n\nevent: gone\ndata: signed out\n\n: still true\n\n"; got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
	if got := d.Result().Header.Get("Content-Type"); got != "text/event-stream; charset=utf-8" {
		t.Errorf("as %q", got)
	}
}

func TestCannotBeKeptOpen(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder() // knows of no deadlines
	if _, ok := sse.Open(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)); ok || w.Code != http.StatusNotImplemented {
		t.Errorf("opened %t, answered %d", ok, w.Code)
	}
}

// What a stream waits for, one at a time: everything else would take longer than the test.
func TestWait(t *testing.T) {
	t.Parallel()
	shut := make(chan struct{})
	close(shut)
	over := make(chan time.Time)
	close(over)
	const never = time.Hour
	for name, tc := range map[string]struct {
		w    sse.Waiting
		want bool
	}{
		"changed, once it has settled": {sse.Waiting{Changed: shut, Settle: time.Millisecond, Beat: never}, true},
		"aged":                         {sse.Waiting{Aged: shut, Settle: never, Beat: never}, true},
		"a beat":                       {sse.Waiting{Settle: never, Beat: time.Millisecond}, true},
		"ended":                        {sse.Waiting{Ended: shut, Settle: never, Beat: never}, false},
		"for long enough":              {sse.Waiting{Until: over, Settle: never, Beat: never}, false},
		"changed, and ended meanwhile": {sse.Waiting{Changed: shut, Ended: shut, Settle: never, Beat: never}, false},
	} {
		s, _ := open(t)
		if got := s.Wait(tc.w); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
