// SPDX-License-Identifier: Apache-2.0

//go:build !race

// A dozen processes with the race detector in them need a bigger machine than a test's; what they run is tested with it in one process.

package e2e

import (
	"context"
	"log/slog"
	"testing"

	"cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/services/internal/cluster"
	"cacert.org/emergency/services/internal/testenv"
)

// TestCluster: a whole installation of processes - three servers of the event log, each service in two instances with its own account - is
// restarted under load, process by process and in order; then an instance of each is killed and a server, and at last all servers of the log at once. No command is
// refused, and each that was acknowledged is stored once, in the order of its sender (issue 6, section 2).
func TestCluster(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED: a cluster of processes takes most of a minute; run without -short")
	}
	dir := t.TempDir()
	c := startInstallation(t, cluster.Config{Dir: dir})

	l := &load{t: t, data: dir, changed: make(chan struct{}), connect: c.Client, limit: 100}
	group, failed := l.start()
	going := func(after string) { // the load goes on, with everybody's commands
		t.Helper()
		goal := l.more() + 20
		if !l.await(func() bool { return len(l.acks) >= goal || len(failed) > 0 }) {
			t.Fatalf("after %s no command is acknowledged any more", after)
		}
	}
	healthy := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
		defer cancel()
		must(t, c.AwaitHealthy(ctx))
	}
	for _, kill := range []bool{false, true} {
		for _, i := range c.Instances {
			if kill && i.Number > 1 {
				continue
			}
			if kill {
				must(t, i.Process().Kill())
			} else {
				must(t, i.Process().Stop())
			}
			going(i.Service + " was away")
			must(t, c.StartInstance(t.Context(), i))
		}
		for n, s := range c.Servers {
			if kill && n > 0 {
				break // all are killed below
			}
			if kill {
				must(t, s.Process().Kill())
			} else {
				must(t, s.Process().Stop())
			}
			going(s.Name + " was away")
			must(t, c.StartServer(t.Context(), s))
			healthy()
		}
	}
	for _, s := range c.Servers { // as at night, while everything goes on
		if _, err := natsd.ExamineRunning(t.Context(), s.Store); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	var pages *pageReader
	for _, i := range c.Instances {
		if i.Service == "dashboard" && pages == nil {
			pages = signedIn(t, "http://"+i.HTTP, "carla")
		}
	}
	for _, s := range c.Servers {
		must(t, s.Process().Kill())
	}
	l.mu.Lock()
	incident := l.incidents[0]
	l.mu.Unlock()
	logAway(t, pages, incident, func() {
		for _, s := range c.Servers {
			must(t, c.StartServer(t.Context(), s))
		}
		healthy()
	})
	going("all servers of the log were killed")
	awaitReaders(t, c)
	l.mu.Lock()
	l.stop = true
	l.poke()
	l.mu.Unlock()
	group.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	js, err := c.Log()
	must(t, err)
	defer js.Conn().Close()
	store, err := jetstream.New(t.Context(), jetstream.Config{JS: js, Logger: slog.New(slog.DiscardHandler), Consumers: true})
	must(t, err)
	l.checkStore(t, store)
	t.Logf("%d commands acknowledged, %d of them sent again", len(l.acks), l.again)
}

// awaitReaders waits until each instance of each service reads the log by a consumer of its own.
func awaitReaders(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	js, err := c.Log()
	must(t, err)
	defer js.Conn().Close()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	for _, service := range natsd.Services() {
		for read := 0; read < 2; {
			read = 0
			for _, name := range natsd.Consumers(service) {
				consumer, err := js.Consumer(ctx, natsd.Stream, name)
				if err != nil {
					t.Fatalf("consumer %s: %v", name, err)
				}
				if consumer.CachedInfo().NumWaiting > 0 {
					read++
				}
			}
		}
	}
}
