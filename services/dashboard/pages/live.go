// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"bytes"
	"crypto/sha256"
	"net/http"
	"time"

	"cacert.org/emergency/services/dashboard/sse"
)

// settle is how long changes are collected before a page is drawn again: a call-out is dozens of records in a moment.
const settle = 50 * time.Millisecond

// stream sends the changing part of a page whenever it has changed, beginning with the present one. A page that misses some
// changes gets the newest state: nothing has to be sent in order, and nobody waits for a slow browser. Between changes it hears
// that it is still true. Who may read is asked each time, so a session that ends, or a key that is revoked, ends it.
func (p *Pages) stream(w http.ResponseWriter, r *http.Request, build builder) {
	out, ok := sse.Open(w, r)
	if !ok {
		return
	}
	s := &stream{Stream: out, p: p, r: r, build: build}
	for {
		reader, err := p.cfg.Reader()
		if err != nil {
			return
		}
		changed, aged := reader.Changed(), p.cfg.Pulse.Changed() // before looking, so that nothing that comes meanwhile is missed
		if !s.send() || !s.Wait(sse.Waiting{Changed: changed, Aged: aged, Settle: settle, Beat: p.cfg.KeepAlive, Ended: p.ended}) {
			return
		}
	}
}

type stream struct {
	*sse.Stream
	p     *Pages
	r     *http.Request
	build builder
	last  [sha256.Size]byte
}

// send draws the page and sends it if it says something new; false ends the stream.
func (s *stream) send() bool {
	v := s.p.viewer(s.r)
	if v.Person == "" {
		s.Send("gone", []byte("signed out"))
		return false
	}
	c, err := s.build(v, s.r)
	if err != nil {
		s.Send("gone", []byte("refused"))
		return false
	}
	html, err := s.p.draw(v, s.r, c, "live")
	if err != nil {
		s.p.cfg.Log.ErrorContext(s.r.Context(), "live page not made", "path", s.r.URL.Path, "error", err)
		return false
	}
	if sum := sha256.Sum256(timeless(html)); sum != s.last {
		s.last = sum
		return s.Send("", html)
	}
	return s.Send("beat", []byte(stamp(v.now)))
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
