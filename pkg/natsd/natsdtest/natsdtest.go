// SPDX-License-Identifier: Apache-2.0

// Package natsdtest gives tests a real event log: one embedded server, or a cluster of three in this process. All is
// provisioned, lies in temporary folders and is gone with the test.
package natsdtest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"cacert.org/emergency/pkg/natsd"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// patience is how long a busy machine may take to start a cluster.
const patience = 2 * time.Minute

// Start returns an embedded server on an empty folder and a connection to it.
func Start(t testing.TB) (*natsd.Server, jetstream.JetStream) {
	t.Helper()
	return StartIn(t, t.TempDir())
}

// StartIn does so on a folder that may have been used before.
func StartIn(t testing.TB, dir string) (*natsd.Server, jetstream.JetStream) {
	t.Helper()
	s, err := natsd.Start(natsd.Config{Dir: dir, Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(t, s) })
	js := Connect(t, s)
	if err := natsd.Provision(t.Context(), js, natsd.Profile{Replicas: 1, MaxBytes: 32 << 20}); err != nil {
		t.Fatal(err)
	}
	return s, js
}

// Close stops a server before the end of the test.
func Close(t testing.TB, s *natsd.Server) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Connect opens one more connection.
func Connect(t testing.TB, s *natsd.Server) jetstream.JetStream {
	t.Helper()
	nc, err := s.Connect(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// Cluster is three servers that sync every write, with three replicas of each stream.
type Cluster struct {
	Dirs    []string // folders of the stores
	servers []*server.Server
}

// StartCluster starts a cluster on loopback. It takes some seconds.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{}
	routes := freeRoutes(t, 3)
	for i, route := range routes {
		c.Dirs = append(c.Dirs, t.TempDir())
		c.servers = append(c.servers, c.start(t, i, route, routes))
	}
	c.provision(t)
	return c
}

// freeRoutes finds addresses nobody listens on.
func freeRoutes(t testing.TB, n int) (routes []*url.URL) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: l.Addr().String()})
	}
	return routes
}

func (c *Cluster) start(t testing.TB, i int, route *url.URL, routes []*url.URL) *server.Server {
	t.Helper()
	addr, err := net.ResolveTCPAddr("tcp", route.Host)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := server.NewServer(&server.Options{
		ServerName: fmt.Sprintf("n%d", i+1),
		Host:       "127.0.0.1", Port: server.RANDOM_PORT,
		NoSigs: true, NoLog: true, MaxPayload: natsd.MaxMessage,
		JetStream: true, StoreDir: c.Dirs[i], SyncAlways: true,
		Cluster: server.ClusterOpts{Name: "test", Host: addr.IP.String(), Port: addr.Port},
		Routes:  routes,
	})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	return ns
}

// provision waits until the cluster has a leader for each stream.
func (c *Cluster) provision(t testing.TB) {
	t.Helper()
	js := c.Connect(t, 0)
	deadline := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := natsd.Provision(ctx, js, natsd.Profile{Replicas: 3, MaxBytes: 32 << 20})
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("cluster is not ready after %s: %v", patience, err)
		}
	}
}

// Connect connects to one of the servers, 0 to 2.
func (c *Cluster) Connect(t testing.TB, i int) jetstream.JetStream {
	t.Helper()
	if !c.servers[i].ReadyForConnections(patience) {
		t.Fatalf("server %d of the cluster does not start", i)
	}
	nc, err := nats.Connect("", nats.InProcessServer(c.servers[i]), nats.Name(t.Name()), nats.ReconnectBufSize(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// Stop stops one of the servers.
func (c *Cluster) Stop(i int) {
	c.servers[i].Shutdown()
	c.servers[i].WaitForShutdown()
}

// StoreDir is where a server keeps its streams.
func (c *Cluster) StoreDir(i int) string { return filepath.Join(c.Dirs[i], server.JetStreamStoreDir) }
