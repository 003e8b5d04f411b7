// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/services/dashboard/sse"
)

// much is more than any buffer between a handler and a client that does not read.
var much = make([]byte, 8<<20)

// A client that asks and never reads does not hold the handler (hardening 3, HTTP).
func TestWhoNeverReadsIsLetGo(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"http/1.1", "h2"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			ended := make(chan error, 1)
			srv := httptest.NewUnstartedServer(paced(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := w.Write(much)
				if r.ProtoMajor == 2 && err == nil {
					err = errors.New("all was written")
				}
				ended <- err
			}), 300*time.Millisecond))
			srv.EnableHTTP2 = proto == "h2"
			srv.StartTLS()
			defer srv.Close()
			if proto == "h2" {
				resp, err := get(t, srv)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = resp.Body.Close() }() // and nothing of it is read
			} else {
				d := tls.Dialer{Config: &tls.Config{RootCAs: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"}}
				conn, err := d.DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-ended; err == nil || proto == "http/1.1" && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the handler ended with %v", err)
			}
		})
	}
}

func get(t *testing.T, srv *httptest.Server) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	return srv.Client().Do(req)
}

// Whoever reads gets all of it, again on the same connection after a pause longer than the time for a piece; a stream outlives that time.
func TestWhoReadsIsNotCut(t *testing.T) {
	t.Parallel()
	const within = 300 * time.Millisecond
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprint("h2 ", h2), func(t *testing.T) {
			t.Parallel()
			var stream atomic.Bool
			srv := httptest.NewUnstartedServer(paced(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !stream.Load() {
					_, _ = w.Write(much)
					return
				}
				s, ok := sse.Open(w, r)
				if ok && s.Send("", []byte("first")) {
					<-time.After(2 * within)
					s.Send("", []byte("second"))
				}
			}), within))
			srv.EnableHTTP2 = h2
			srv.StartTLS()
			defer srv.Close()
			for range 2 {
				resp, err := get(t, srv)
				if err != nil {
					t.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(len(much)) {
					t.Errorf("%d bytes: %v", n, err)
				}
				_ = resp.Body.Close()
				<-time.After(2 * within)
			}
			stream.Store(true)
			resp, err := get(t, srv)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			got, err := io.ReadAll(bufio.NewReader(resp.Body))
			if want := "data: first\n\ndata: second\n\n"; err != nil || string(got) != want {
				t.Errorf("the stream said %q: %v", got, err)
			}
		})
	}
}

// The pages have as many connections open as they may, and of one address as many as it may.
func TestConnectionsOfPages(t *testing.T) {
	t.Parallel()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- serveHTTP(ctx, rpc.Capped(lis, 10, 2), nil, http.NotFoundHandler(), func() {})
	}()
	var open []net.Conn
	answered := func() bool {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", lis.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n") // it may be closed already
		_, err = bufio.NewReader(conn).ReadByte()
		return err == nil
	}
	for i, want := range []bool{true, true, false} {
		if got := answered(); got != want {
			t.Errorf("connection %d is served: %v", i+1, got)
		}
	}
	for _, conn := range open {
		_ = conn.Close()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
