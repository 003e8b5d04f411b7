// SPDX-License-Identifier: Apache-2.0

package irc

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"cacert.org/emergency/services/notification/channel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hangUp in an answer closes the connection.
const hangUp = "\x00hang up"

// peer is a scripted server. It answers each line by answer; nil means as a friendly server would.
type peer struct {
	addr string
	// answer gets the number of the connection, from 0, and the line. ok false: the friendly answer.
	answer func(n int, line string) (lines []string, ok bool)

	mu    sync.Mutex
	conns []net.Conn
	heard []string
	news  chan struct{} // closed at each line
	// certs counts the client certificates that were shown.
	certs int
}

func friendly(line string) []string {
	m, err := parse(line)
	if err != nil {
		return nil
	}
	switch m.command {
	case "USER":
		return []string{":srv 001 pager :Welcome", ":srv 376 pager :End of MOTD"}
	case "PING":
		return []string{":srv PONG srv :" + m.last()}
	case "JOIN":
		return []string{":pager!u@h JOIN " + m.param(0)}
	case "QUIT":
		return []string{hangUp}
	}
	return nil
}

func listen(t *testing.T, conf *tls.Config, answer func(n int, line string) ([]string, bool)) *peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{addr: l.Addr().String(), answer: answer, news: make(chan struct{})}
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns = append(p.conns, conn)
			p.mu.Unlock()
			wg.Go(func() { p.talk(n, conn) })
		}
	})
	t.Cleanup(func() { l.Close(); p.drop(); wg.Wait() })
	return p
}

// drop closes all connections.
func (p *peer) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
}

func (p *peer) talk(n int, conn net.Conn) {
	defer conn.Close()
	in := bufio.NewScanner(conn)
	for in.Scan() {
		line := strings.TrimSuffix(in.Text(), "\r")
		p.mu.Lock()
		p.heard = append(p.heard, line)
		if c, ok := conn.(*tls.Conn); ok && strings.HasPrefix(line, "USER") {
			p.certs += len(c.ConnectionState().PeerCertificates)
		}
		close(p.news)
		p.news = make(chan struct{})
		p.mu.Unlock()
		var lines []string
		ok := false
		if p.answer != nil {
			lines, ok = p.answer(n, line)
		}
		if !ok {
			lines = friendly(line)
		}
		for _, l := range lines {
			if l == hangUp {
				return
			}
			if _, err := fmt.Fprintf(conn, "%s\r\n", l); err != nil {
				return
			}
		}
	}
}

// wait returns when the peer has heard n lines that begin with the prefix.
func (p *peer) wait(t *testing.T, prefix string, n int) []string {
	t.Helper()
	for {
		p.mu.Lock()
		var got []string
		for _, l := range p.heard {
			if strings.HasPrefix(l, prefix) {
				got = append(got, l)
			}
		}
		news := p.news
		p.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-news:
		case <-t.Context().Done():
			t.Fatalf("the server heard only %q", got)
		}
	}
}

func (p *peer) count(prefix string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.heard {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

func config(addr string) Config {
	return Config{Server: addr, Security: NoTLS, Nick: "pager", Burst: 100, Every: time.Millisecond}
}

// run starts a client that is stopped with the test.
func run(t *testing.T, cfg Config) *Client {
	t.Helper()
	return runAt(t, cfg, channel.System{})
}

func runAt(t *testing.T, cfg Config, clock channel.Clock) *Client {
	t.Helper()
	c, err := New(cfg, clock, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return c
}

func page(address string) channel.Page {
	return channel.Page{ID: "e1/1.1", Incident: "e20261124.1", Headline: "Critical admin needed", Link: "https://emergency.example.org/", Text: "Please answer.", Recipient: channel.Recipient{Person: "p1", Address: address}}
}

// certificate is a self-signed one for 127.0.0.1, with its files.
func certificate(t *testing.T) (pair tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if pair, err = tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	return pair, certFile, keyFile
}
