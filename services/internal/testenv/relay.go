// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"io"
	"net"
	"sync"
)

// Relay is a piece of network before the node, which a test can cut or make silent.
type Relay struct {
	// Addr stands for the node's API.
	Addr string

	e *Env

	mu      sync.Mutex
	changed *sync.Cond
	cut     bool
	silent  bool
	conns   []net.Conn
}

// Relay opens one, which carries until it is told otherwise.
func (e *Env) Relay() *Relay {
	e.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(e.t, err)
	r := &Relay{Addr: l.Addr().String(), e: e}
	r.changed = sync.NewCond(&r.mu)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { r.carry(conn) })
		}
	})
	e.t.Cleanup(func() {
		_ = l.Close() // ends the accepting
		r.Cut()
		running.Wait()
	})
	return r
}

// Cut closes all connections, and each further one at once, until Mend.
func (r *Relay) Cut() {
	r.set(true, false)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close() // it may be closed already
	}
	r.conns = nil
}

// Silence carries nothing any more, and tells nobody, until Mend.
func (r *Relay) Silence() { r.set(false, true) }

// Mend carries again, also what was under way in a silence.
func (r *Relay) Mend() { r.set(false, false) }

func (r *Relay) set(cut, silent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut, r.silent = cut, silent
	r.changed.Broadcast()
}

// carry serves one connection.
func (r *Relay) carry(down net.Conn) {
	defer func() { _ = down.Close() }()
	up, err := r.e.Dial(r.e.t.Context(), "")
	if err != nil {
		return // the node is away, as it is for everybody
	}
	defer func() { _ = up.Close() }()
	r.mu.Lock()
	r.conns = append(r.conns, down, up)
	cut := r.cut
	r.mu.Unlock()
	if cut {
		return
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{down, up}, {up, down}} {
		both.Go(func() {
			_, _ = io.Copy(&gate{r, way[1]}, way[0]) // ends with either connection
			_, _ = way[0].Close(), way[1].Close()
		})
	}
	both.Wait()
}

// gate lets bytes through while the relay carries.
type gate struct {
	r  *Relay
	to net.Conn
}

func (g *gate) Write(p []byte) (int, error) {
	g.r.mu.Lock()
	for g.r.silent && !g.r.cut {
		g.r.changed.Wait()
	}
	g.r.mu.Unlock()
	return g.to.Write(p)
}
