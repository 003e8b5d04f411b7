// SPDX-License-Identifier: Apache-2.0

// Package sse keeps a browser's connection open and tells it what changes, by server-sent events.
package sse

import (
	"bytes"
	"net/http"
	"time"
)

// WriteWithin is how long a browser may take to receive a change, by the machine's clock, as connections are. Whoever is slower
// connects again and gets the newest state.
const WriteWithin = 20 * time.Second

// Stream is one open connection. It is for one goroutine.
type Stream struct {
	w   http.ResponseWriter
	r   *http.Request
	out *http.ResponseController
}

// Open makes an answer a stream; false, and answered, if the connection cannot be kept open.
func Open(w http.ResponseWriter, r *http.Request) (*Stream, bool) {
	s := &Stream{w: w, r: r, out: http.NewResponseController(w)}
	if s.out.SetReadDeadline(time.Time{}) != nil || s.out.SetWriteDeadline(time.Time{}) != nil {
		http.Error(w, "this connection cannot be kept open", http.StatusNotImplemented)
		return nil, false
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	return s, true
}

// Send sends an event, a plain message if it has no name; false ends the stream.
func (s *Stream) Send(event string, data []byte) bool {
	text := bytes.ReplaceAll(bytes.TrimSpace(data), []byte("\n"), []byte("\ndata: "))
	if event == "" {
		return s.write("data: " + string(text) + "\n\n")
	}
	return s.write("event: " + event + "\ndata: " + string(text) + "\n\n")
}

// Comment sends what no browser shows, so that both ends know that the connection lives; false ends the stream.
func (s *Stream) Comment(text string) bool { return s.write(": " + text + "\n\n") }

// write has a deadline for one write alone. HTTP/2 resets a stream when it has passed, also if nothing is being written: a page that
// took long to draw, since hundreds are drawn, would be hung up for a browser that is not slow at all.
func (s *Stream) write(text string) bool {
	if s.out.SetWriteDeadline(time.Now().Add(WriteWithin)) != nil {
		return false
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return false
	}
	return s.out.Flush() == nil && s.out.SetWriteDeadline(time.Time{}) == nil
}

// Waiting is what a stream waits for.
type Waiting struct {
	// Changed and Aged are closed when there may be something new to say. Changes are collected for Settle: a call-out is dozens of
	// records in a moment.
	Changed, Aged <-chan struct{}
	Settle        time.Duration
	// Beat is after how long the stream says that nothing changed.
	Beat time.Duration
	// Ended and Until end the stream; Until may be nil.
	Ended <-chan struct{}
	Until <-chan time.Time
}

// Wait returns true when there may be something to say; false ends the stream.
func (s *Stream) Wait(w Waiting) bool {
	beat := time.NewTimer(w.Beat)
	defer beat.Stop()
	select {
	case <-s.r.Context().Done():
		return false
	case <-w.Ended:
		return false
	case <-w.Until:
		return false
	case <-beat.C:
		return true
	case <-w.Aged:
		return true
	case <-w.Changed:
	}
	settle := time.NewTimer(w.Settle)
	defer settle.Stop()
	select {
	case <-s.r.Context().Done():
		return false
	case <-w.Ended:
		return false
	case <-settle.C:
		return true
	}
}
