// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// peer is one end of a connection.
type peer struct {
	t *testing.T
	net.Conn
	lines *bufio.Reader
}

func newPeer(t *testing.T, c net.Conn) *peer {
	t.Helper()
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	return &peer{t, c, bufio.NewReader(c)}
}

func (p *peer) say(text string) {
	p.t.Helper()
	_, err := fmt.Fprintln(p, text)
	must(p.t, err)
}

func (p *peer) hears(want string) {
	p.t.Helper()
	if got, err := p.lines.ReadString('\n'); err != nil || got != want+"\n" {
		p.t.Fatalf("heard %q (%v), want %q", got, err, want)
	}
}

// TestLink: what is sent over a link that is shut arrives when it is mended, in order, the end of a connection too; until then no end is told
// of anything. The other direction goes on, and so does a connection that was begun meanwhile.
func TestLink(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	l, err := newLink(t.Context(), listener.Addr().String())
	must(t, err)
	defer l.close()
	dial := func() *peer {
		c, err := net.Dial("tcp", l.address())
		must(t, err)
		return newPeer(t, c)
	}
	accept := func() *peer {
		c, err := listener.Accept()
		must(t, err)
		return newPeer(t, c)
	}
	near := dial()
	far := accept()
	near.say("one")
	far.hears("one")
	l.there.set(false)
	near.say("two")
	far.say("heard")
	near.hears("heard")
	second := dial()
	second.say("four")
	near.say("three")
	must(t, near.Close())
	// Nothing has come, neither a line nor the end: the deadline is over before the first look.
	must(t, far.SetReadDeadline(time.Now().Add(-time.Second)))
	if _, err := far.lines.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("something came through: %v", err)
	}
	must(t, far.SetReadDeadline(time.Now().Add(time.Minute)))
	l.there.set(true)
	far.hears("two")
	far.hears("three")
	if _, err := far.lines.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the end did not come through: %v", err)
	}
	accept().hears("four")
}
