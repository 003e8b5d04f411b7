// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"time"
)

// writeWithin is how long a browser may take to receive a change. Whoever is slower reconnects and gets the newest state.
const writeWithin = 20 * time.Second

// settle is how long changes are collected before a page is drawn again: a call-out is dozens of records in a moment.
const settle = 50 * time.Millisecond

// stream sends the changing part of a page whenever it has changed, beginning with the present one. A page that misses some
// changes gets the newest state: nothing has to be sent in order, and nobody waits for a slow browser. Between changes it hears
// that it is still true. Who may read is asked each time, so a session that ends, or a key that is revoked, ends it.
func (p *Pages) stream(w http.ResponseWriter, r *http.Request, build builder) {
	s := &stream{p: p, w: w, r: r, build: build, out: http.NewResponseController(w)}
	if s.out.SetReadDeadline(time.Time{}) != nil || !s.unlimited() {
		http.Error(w, "this connection cannot be kept open", http.StatusNotImplemented)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no")
	for {
		reader, err := p.cfg.Reader()
		if err != nil {
			return
		}
		changed, aged := reader.Changed(), p.cfg.Pulse.Changed() // before looking, so that nothing that comes meanwhile is missed
		if !s.send() || !s.wait(changed, aged) {
			return
		}
	}
}

type stream struct {
	p     *Pages
	w     http.ResponseWriter
	r     *http.Request
	out   *http.ResponseController
	build builder
	last  [sha256.Size]byte
}

// A deadline holds for one write alone. HTTP/2 resets a stream when it has passed, also if nothing is being written: a page that took
// long to draw, since hundreds are drawn, would be hung up for a browser that is not slow at all.
func (s *stream) limit() bool     { return s.out.SetWriteDeadline(deadline()) == nil }
func (s *stream) unlimited() bool { return s.out.SetWriteDeadline(time.Time{}) == nil }

// send draws the page and sends it if it says something new; false ends the stream.
func (s *stream) send() bool {
	v := s.p.viewer(s.r)
	if v.Person == "" {
		s.write("event: gone\ndata: signed out\n\n")
		return false
	}
	c, err := s.build(v, s.r)
	if err != nil {
		s.write("event: gone\ndata: refused\n\n")
		return false
	}
	html, err := s.p.draw(v, s.r, c, "live")
	if err != nil {
		s.p.cfg.Log.ErrorContext(s.r.Context(), "live page not made", "path", s.r.URL.Path, "error", err)
		return false
	}
	if sum := sha256.Sum256(timeless(html)); sum != s.last {
		s.last = sum
		return s.write("data: " + string(bytes.ReplaceAll(bytes.TrimSpace(html), []byte("\n"), []byte("\ndata: "))) + "\n\n")
	}
	return s.write(fmt.Sprintf("event: beat\ndata: %s\n\n", stamp(v.now)))
}

// timeless is a page without what changes by the passing of time alone, which the page's own script counts on: the value of
// data-now, and each element with data-ago or data-until, with its text. It looks for the attributes, which template text and escaped
// text have nowhere else, since it is done for every open page at every change.
func timeless(html []byte) []byte {
	out := make([]byte, 0, len(html))
	for {
		at := bytes.Index(html, []byte(" data-"))
		if at < 0 {
			return append(out, html...)
		}
		keep, rest := at+len(" data-"), html[at+len(" data-"):]
		switch {
		case bytes.HasPrefix(rest, []byte(`now="`)):
			rest = rest[len(`now="`):]
			rest = rest[max(0, bytes.IndexByte(rest, '"')):]
		case bytes.HasPrefix(rest, []byte(`ago="`)), bytes.HasPrefix(rest, []byte(`until="`)):
			keep = bytes.LastIndexByte(html[:at], '<') // the element's beginning
			rest = rest[max(0, bytes.IndexByte(rest, '<')):]
		}
		out, html = append(out, html[:max(0, keep)]...), rest
	}
}

func (s *stream) write(text string) bool {
	if !s.limit() {
		return false
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return false
	}
	return s.out.Flush() == nil && s.unlimited()
}

// wait returns true when there may be something new.
func (s *stream) wait(changed, aged <-chan struct{}) bool {
	beat := time.NewTimer(s.p.cfg.KeepAlive)
	defer beat.Stop()
	select {
	case <-s.r.Context().Done():
		return false
	case <-s.p.ended:
		return false
	case <-beat.C:
		return true
	case <-aged:
		return true
	case <-changed:
	}
	pause := time.NewTimer(settle)
	defer pause.Stop()
	select {
	case <-s.r.Context().Done():
		return false
	case <-s.p.ended:
		return false
	case <-pause.C:
		return true
	}
}

// deadline is by the machine's clock, as connections are.
func deadline() time.Time { return time.Now().Add(writeWithin) }
