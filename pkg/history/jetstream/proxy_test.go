// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"

	"cacert.org/emergency/pkg/history/historytest"
)

// proxy stands between a store and its server and loses what it is told to lose. Its address stays when the server
// behind it moves.
type proxy struct {
	listener net.Listener

	mu     sync.Mutex // guards all below
	target string
	armed  bool
	how    historytest.Failure
	down   bool
	conns  map[net.Conn]struct{}
}

func newProxy(tb testing.TB, target string) *proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, conns: map[net.Conn]struct{}{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(client) })
		}
	})
	tb.Cleanup(func() {
		listener.Close()
		p.set(func() { p.down = true })
		p.cut()
		serving.Wait()
	})
	return p
}

func (p *proxy) url() string { return "nats://" + p.listener.Addr().String() }

func (p *proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *proxy) fail(how historytest.Failure) { p.set(func() { p.armed, p.how = true, how }) }
func (p *proxy) heal()                        { p.set(func() { p.down = false }) }

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) serve(client net.Conn) {
	p.mu.Lock()
	target, down := p.target, p.down
	p.conns[client] = struct{}{}
	p.mu.Unlock()
	defer p.close(client)
	if down {
		return
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	p.set(func() { p.conns[server] = struct{}{} })
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(server, client, p.losesRequest) })
	pumps.Go(func() { p.pump(client, server, p.losesAnswer) })
	pumps.Wait()
}

func (p *proxy) close(c net.Conn) {
	c.Close()
	p.set(func() { delete(p.conns, c) })
}

// pump copies until one side is closed or the data is to be lost, and then closes both.
func (p *proxy) pump(to, from net.Conn, loses func([]byte) bool) {
	defer p.close(to)
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && loses(buf[:n]) {
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err == io.EOF || err != nil {
			return
		}
	}
}

func (p *proxy) losesRequest(data []byte) bool {
	return p.loses(func() bool { return p.how == historytest.NotStored && bytes.Contains(data, []byte("HPUB emergency.")) })
}

// losesAnswer loses an acknowledgement: what it acknowledges is stored.
func (p *proxy) losesAnswer(data []byte) bool {
	return p.loses(func() bool { return p.how != historytest.NotStored && bytes.Contains(data, []byte(`"seq":`)) })
}

func (p *proxy) loses(now func() bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.armed || !now() {
		return false
	}
	p.armed, p.down = false, p.how == historytest.AckLostAndDown
	return true
}
