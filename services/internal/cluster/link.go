// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
)

// link is a stretch of network with a direction of its own each way. While one is shut nothing comes through, not even that an end has
// closed its connection, and no connection is closed: so a network looks that is torn. What was sent meanwhile arrives when it is mended, late,
// as TCP sends it again.
type link struct {
	listener net.Listener
	to       string
	there    gate // what who connected sends
	back     gate // what is answered

	mu     sync.Mutex // guards conns
	conns  map[net.Conn]struct{}
	closed bool
	group  sync.WaitGroup
}

// newLink listens for what is meant for an address.
func newLink(ctx context.Context, to string) (*link, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("find a free port: %w", err)
	}
	l := &link{listener: listener, to: to, conns: map[net.Conn]struct{}{}}
	l.group.Go(l.accept)
	return l, nil
}

// address is where the link begins, by the name that certificates have.
func (l *link) address() string {
	return strings.Replace(l.listener.Addr().String(), "127.0.0.1", "localhost", 1)
}

func (l *link) close() {
	_ = l.listener.Close() // what was accepted ends below
	l.mu.Lock()
	l.closed = true
	for c := range l.conns {
		_ = c.Close() // so that its reader ends
	}
	l.mu.Unlock()
	l.there.set(true)
	l.back.set(true)
	l.group.Wait()
}

func (l *link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		if l.keep(near) {
			l.group.Go(func() { l.carry(near) })
		}
	}
}

// keep notes a connection, so that close ends it; false if close was before.
func (l *link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close() // nothing was sent on it
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *link) drop(c net.Conn) {
	_ = c.Close() // what was sent on it is sent
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// carry makes the rest of a connection's way, once there is one, and carries both ways until an end closes it.
func (l *link) carry(near net.Conn) {
	defer l.drop(near)
	l.there.wait()
	l.back.wait()
	far, err := net.Dial("tcp", l.to)
	if err != nil || !l.keep(far) {
		return // as if nobody listened
	}
	defer l.drop(far)
	var both sync.WaitGroup
	both.Go(func() { pass(far, near, &l.there) })
	both.Go(func() { pass(near, far, &l.back) })
	both.Wait()
}

// pass carries what comes in, while the gate is open; at its end, which passes the gate too, both are closed.
func pass(to, from net.Conn, g *gate) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		g.wait()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_, _ = to.Close(), from.Close() // the other way ends with it
}

// gate is open at first.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // closed when it is opened again; nil while it is open
}

func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case open && g.shut != nil:
		close(g.shut)
		g.shut = nil
	case !open && g.shut == nil:
		g.shut = make(chan struct{})
	}
}

func (g *gate) wait() {
	for {
		g.mu.Lock()
		shut := g.shut
		g.mu.Unlock()
		if shut == nil {
			return
		}
		<-shut
	}
}

// between is who connects, by the name of a server or of an instance of a service, and to which server.
type between struct{ from, to string }

// anybody connects who is neither.
const anybody = ""

// lay makes the links of a cluster: from each server to each other's route, and from each client to each server.
func (c *Cluster) lay(ctx context.Context) (err error) {
	c.links = map[between]*link{}
	clients := []string{anybody}
	for _, i := range c.Instances {
		clients = append(clients, i.Name())
	}
	for _, s := range c.Servers {
		for _, name := range clients {
			if c.links[between{name, s.Name}], err = newLink(ctx, s.Client); err != nil {
				return err
			}
		}
		for _, o := range c.Servers {
			if o == s {
				continue
			}
			if c.links[between{s.Name, o.Name}], err = newLink(ctx, o.Route); err != nil {
				return err
			}
		}
	}
	return nil
}

// Uses tells whether an instance is connected to a server; also over a link that is cut.
func (c *Cluster) Uses(i *Instance, s *Server) bool { return c.links[between{i.Name(), s.Name}].busy() }

// Part cuts an instance off from a server, and from no other, until Mend.
func (c *Cluster) Part(i *Instance, s *Server) { c.links[between{i.Name(), s.Name}].cut() }

// Silence keeps what a server sends from reaching another, until Mend. It hears the other.
func (c *Cluster) Silence(s, to *Server) {
	c.links[between{s.Name, to.Name}].there.set(false)
	c.links[between{to.Name, s.Name}].back.set(false)
}

// CutOff cuts a server off from all others, until Mend; and with clients from all its clients.
func (c *Cluster) CutOff(s *Server, clients bool) {
	for _, o := range c.Servers {
		if o != s {
			c.Silence(s, o)
			c.Silence(o, s)
		}
	}
	for way, l := range c.links {
		if clients && way.to == s.Name {
			l.cut()
		}
	}
}

// Mend mends all links.
func (c *Cluster) Mend() {
	for _, l := range c.links {
		l.there.set(true)
		l.back.set(true)
	}
}

// IsLink tells whether a port of this machine is an end of a link: where it begins, or where a connection over it comes out.
func (c *Cluster) IsLink(port int) bool {
	for _, l := range c.links {
		if l.has(port) {
			return true
		}
	}
	return false
}

func (l *link) has(port int) bool {
	if portOf(l.listener.Addr()) == port {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.conns {
		if portOf(conn.LocalAddr()) == port {
			return true
		}
	}
	return false
}

// busy tells whether somebody is connected over it.
func (l *link) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns) > 0
}

// cut shuts it both ways.
func (l *link) cut() {
	l.there.set(false)
	l.back.set(false)
}

func portOf(a net.Addr) int { return a.(*net.TCPAddr).Port }
