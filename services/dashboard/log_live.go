// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"bytes"
	"net/http"
	"sync"
	"time"

	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/services/dashboard/sse"
)

// The public log is live for anybody who reads it, so what that may cost is bounded: so many readers at once, a time after which each has
// to come again, and one drawing of a page for all who look at it. Whoever finds no room has the page as it is without JavaScript.
const (
	liveReaders = 256
	liveFor     = 30 * time.Minute
	// liveSettle is how long changes are collected: a call-out is dozens of records in a moment.
	liveSettle = 100 * time.Millisecond
)

// liveQuery asks for the changes of a page instead of the page.
const liveQuery = "live"

// liveLog counts the readers, and keeps what was drawn for them.
type liveLog struct {
	mu      sync.Mutex
	readers int
	drawn   map[string]drawing // by path; emptied with the last reader
}

// drawing is the changing part of a page, as it was drawn after a change of the histories.
type drawing struct {
	after <-chan struct{}
	aged  <-chan struct{}
	body  []byte
}

func (l *liveLog) room() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.readers < liveReaders
}

func (l *liveLog) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.readers >= liveReaders {
		return false
	}
	l.readers++
	return true
}

func (l *liveLog) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.readers--; l.readers == 0 {
		clear(l.drawn)
	}
}

// draw returns what is drawn for a page since a change; the first who asks draws it, the others wait for that.
func (l *liveLog) draw(path string, after, aged <-chan struct{}, make func() ([]byte, error)) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d, ok := l.drawn[path]; ok && d.after == after && d.aged == aged {
		return d.body, nil
	}
	body, err := make()
	if err == nil && l.readers > 0 {
		l.drawn[path] = drawing{after, aged, body}
	}
	return body, err
}

// follow sends the changing part of a page of the log whenever it has changed, beginning with the present one.
func (p *logPages) follow(w http.ResponseWriter, r *http.Request, make maker) {
	if !p.live.enter() {
		w.WriteHeader(http.StatusNoContent) // by which a browser stops asking
		return
	}
	defer p.live.leave()
	out, ok := sse.Open(w, r)
	if !ok {
		return
	}
	s := &logStream{Stream: out, p: p, r: r, make: make, until: time.NewTimer(liveFor)}
	defer s.until.Stop()
	for {
		reader, err := p.server.running()
		if err != nil {
			return
		}
		if !s.send(reader) {
			return
		}
	}
}

// logStream is one reader.
type logStream struct {
	*sse.Stream
	p     *logPages
	r     *http.Request
	make  maker
	until *time.Timer
	last  []byte
}

// send sends the page if it says something new, and waits for the next change; false ends the stream.
func (s *logStream) send(reader *projection.Runner) bool {
	changed, aged := reader.Changed(), s.p.server.cfg.Pulse.Changed() // before looking, so that nothing that comes meanwhile is missed
	path := s.r.URL.EscapedPath()
	body, err := s.p.live.draw(path, changed, aged, func() ([]byte, error) {
		whole, err := s.make(s.p.siteWith(path + "?" + liveQuery))
		return livePart(whole), err
	})
	switch {
	case err != nil:
		s.p.server.cfg.Log.ErrorContext(s.r.Context(), "live page of the log not made", "path", path, "error", err)
		return false
	case body == nil:
		return false
	case bytes.Equal(body, s.last):
		return s.Comment("still true") && s.wait(changed, aged)
	}
	s.last = body
	return s.Send("", body) && s.wait(changed, aged)
}

// livePart is what is inside the element that changes. Text is escaped, so no text has its tags.
func livePart(page []byte) []byte {
	_, rest, found := bytes.Cut(page, []byte(`<div id="live" `))
	at, end := bytes.IndexByte(rest, '>'), bytes.LastIndex(rest, []byte("</footer>"))
	if !found || at < 0 || end < at {
		return nil
	}
	return rest[at+1 : end+len("</footer>")]
}

func (s *logStream) wait(changed, aged <-chan struct{}) bool {
	return s.Wait(sse.Waiting{
		Changed: changed, Aged: aged, Settle: liveSettle, Beat: s.p.server.cfg.KeepAlive, Ended: s.p.server.people.Ended(), Until: s.until.C,
	})
}
