// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/natsd"
)

// cluster is three servers with three replicas of the stream. A single node hides what happens while an append is
// still in flight (hardening 6.1).
type cluster struct {
	servers []*server.Server
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{}
	ports := freePorts(t, 3)
	var routes []*url.URL
	for _, port := range ports {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	for i, port := range ports {
		s, err := server.NewServer(&server.Options{ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true,
			JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, Routes: routes,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port}})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		c.servers = append(c.servers, s)
	}
	for _, s := range c.servers {
		if !s.ReadyForConnections(20 * time.Second) {
			t.Fatal("a server does not start")
		}
	}
	js := c.connect(t)
	for {
		err := natsd.Provision(t.Context(), js, natsd.Profile{Replicas: 3, MaxBytes: 16 << 20})
		if err == nil {
			return c
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // between two questions whether the cluster has found itself
	}
}

// freePorts are ports that were free a moment ago: the servers must know each other's before they start.
func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func (c *cluster) connect(t *testing.T) natsjs.JetStream {
	t.Helper()
	var urls []string
	for _, s := range c.servers {
		urls = append(urls, s.ClientURL())
	}
	nc, err := nats.Connect(strings.Join(urls, ","), nats.ReconnectBufSize(-1), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// stopLeader stops the server that leads the stream.
func (c *cluster) stopLeader(t *testing.T, js natsjs.JetStream) {
	t.Helper()
	stream, err := js.Stream(t.Context(), jetstream.Stream)
	if err != nil {
		t.Fatal(err)
	}
	leader := stream.CachedInfo().Cluster.Leader
	for _, s := range c.servers {
		if s.Name() == leader {
			s.Shutdown()
			s.WaitForShutdown()
			return
		}
	}
	t.Fatalf("no server is called %q", leader)
}

// TestCluster races on three replicas, and then takes the leader away under writers.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	keys := historytest.NewKeys(t, "services")
	open := func() *jetstream.Store {
		store, err := jetstream.New(t.Context(), jetstream.Config{JS: c.connect(t), Logger: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	one, two := open(), open()
	historytest.Race(t, one, keys, 16, 10)

	const writers, each = 4, 15
	progress := make(chan struct{}, writers*each)
	var group sync.WaitGroup
	for i := range writers {
		store := []*jetstream.Store{one, two}[i%2]
		group.Go(func() { writeThrough(t, store, keys, i+2, each, progress) }) // incidents 1 and 2
	}
	for range writers * each / 3 {
		<-progress
	}
	c.stopLeader(t, c.connect(t))
	group.Wait()
	report, err := history.Verify(t.Context(), two, keys.Ring)
	if err != nil || !report.Clean() || report.Records != 10+writers*each {
		t.Errorf("report %+v, error %v", report, err)
	}
	seen := 0
	err = one.Follow(t.Context(), history.Mark{}, func(history.Message) error {
		if seen++; seen == 10+writers*each {
			return errDone
		}
		return nil
	})
	if !errors.Is(err, errDone) {
		t.Error(err)
	}
}
