// SPDX-License-Identifier: Apache-2.0

package app

import (
	"net/http"
	"slices"
	"time"
)

// piece is what has to be taken within the time of paced.
const piece = 64 << 10

// paced ends an answer of which a piece is not taken in time: a client that asks for much and never reads would hold its handler, and what
// that has open, for ever. The server's own WriteTimeout is no choice: it would cut a long download that goes on well, and every stream.
func paced(next http.Handler, within time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := &pacedWriter{ResponseWriter: w, out: http.NewResponseController(w), within: within}
		if err := p.out.SetWriteDeadline(time.Time{}); err != nil { // the last answer's of this connection, which has passed meanwhile
			http.Error(w, "this connection cannot be limited", http.StatusNotImplemented)
			return
		}
		defer p.allow() // what is not sent yet is sent after the handler
		next.ServeHTTP(p, r)
	})
}

type pacedWriter struct {
	http.ResponseWriter
	out    *http.ResponseController
	within time.Duration
}

func (p *pacedWriter) allow() { _ = p.out.SetWriteDeadline(time.Now().Add(p.within)) } // it could be set when the answer began

// Write gives the client time for each piece. A stream that sets a deadline of its own does so for what it writes after it, and clears it.
func (p *pacedWriter) Write(b []byte) (n int, err error) {
	if len(b) == 0 {
		return p.ResponseWriter.Write(b)
	}
	for part := range slices.Chunk(b, piece) {
		p.allow()
		m, err := p.ResponseWriter.Write(part)
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Unwrap is for http.ResponseController.
func (p *pacedWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }
