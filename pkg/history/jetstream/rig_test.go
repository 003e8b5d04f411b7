// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
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

// rig is a server that can be stopped, started and damaged, with a store that reaches it through a proxy.
type rig struct {
	dir   string
	proxy *proxy
	stop  func()
	url   string
}

func testLog(tb testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	r := &rig{dir: tb.TempDir()}
	r.start(tb)
	r.proxy = newProxy(tb, r.target())
	tb.Cleanup(func() { r.stop() })
	js := connect(tb, r.url)
	if err := natsd.Provision(tb.Context(), js, natsd.Profile{Replicas: 1, MaxBytes: 64 << 20, Consumers: true}); err != nil {
		tb.Fatal(err)
	}
	return r
}

func (r *rig) start(tb testing.TB) {
	tb.Helper()
	s, err := natsd.Start(natsd.Config{Dir: r.dir, Logger: slog.New(slog.DiscardHandler), Listen: "127.0.0.1:0"})
	if err != nil {
		tb.Fatal(err)
	}
	r.url, r.stop = s.ClientURL(), func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	}
}

// startAnyway starts a server that does not mind a damaged store, as an operator's own may be.
func (r *rig) startAnyway(tb testing.TB) {
	tb.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, JetStream: true,
		StoreDir: r.dir, SyncAlways: true})
	if err != nil {
		tb.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		tb.Fatal("the server does not start")
	}
	r.url, r.stop = s.ClientURL(), func() { s.Shutdown(); s.WaitForShutdown() }
}

func (r *rig) target() string { return r.url[len("nats://"):] }

// during stops the server, does something to its folder, and starts it.
func (r *rig) during(tb testing.TB, do func(), start func(testing.TB)) {
	tb.Helper()
	r.stop()
	r.proxy.cut()
	do()
	start(tb)
	r.proxy.set(func() { r.proxy.target = r.target() })
}

func connect(tb testing.TB, url string) natsjs.JetStream {
	tb.Helper()
	nc, err := nats.Connect(url, nats.ReconnectBufSize(-1), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond),
		nats.ReconnectJitter(time.Millisecond, time.Millisecond))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	js, err := natsjs.New(nc)
	if err != nil {
		tb.Fatal(err)
	}
	return js
}

func openStore(tb testing.TB, url string, change func(*jetstream.Config)) *jetstream.Store {
	tb.Helper()
	cfg := jetstream.Config{JS: connect(tb, url), Logger: testLog(tb), Poll: 5 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	store, err := jetstream.New(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return store
}

// ways are how a store may read.
func ways() map[string]func(*jetstream.Config) {
	return map[string]func(*jetstream.Config){
		"gets alone": func(*jetstream.Config) {},
		"consumers":  func(c *jetstream.Config) { c.Consumers = true },
		"readers":    func(c *jetstream.Config) { c.Readers = natsd.Consumers("incident") },
	}
}

// suiteRig makes a rig for the suite. The stranger comes over a connection of his own.
func suiteRig(t *testing.T, by func(*jetstream.Config)) *historytest.Rig {
	r := newRig(t)
	store := openStore(t, r.proxy.url(), by)
	backup := t.TempDir()
	return &historytest.Rig{
		Store:   store,
		Publish: func(tb testing.TB, subject string, data []byte) { r.publish(tb, subject, data) },
		Fail:    func(_ testing.TB, how historytest.Failure) { r.proxy.fail(how) },
		Heal:    func(testing.TB) { r.proxy.heal() },
		Restart: func(tb testing.TB) { r.during(tb, func() {}, r.start) },
		FlipByte: func(tb testing.TB, m history.Message) {
			r.during(tb, func() { flip(tb, r.dir, m.Data) }, r.startAnyway)
		},
		Backup:  func(tb testing.TB) { r.during(tb, func() { replace(tb, backup, r.dir) }, r.start) },
		Restore: func(tb testing.TB) { r.during(tb, func() { replace(tb, r.dir, backup) }, r.start) },
	}
}

func (r *rig) publish(tb testing.TB, subject string, data []byte) {
	if _, err := connect(tb, r.url).Publish(tb.Context(), subject, data); err != nil {
		tb.Error(err)
	}
}

// flip changes one bit where the data lies on disk.
func flip(tb testing.TB, dir string, data []byte) {
	tb.Helper()
	found := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		at := bytes.Index(content, data)
		if at < 0 {
			return nil
		}
		found++
		content[at+len(data)/2] ^= 1
		return os.WriteFile(path, content, 0o600)
	})
	if err != nil || found != 1 {
		tb.Fatalf("the data lies in %d files, error %v", found, err)
	}
}

func replace(tb testing.TB, to, from string) {
	tb.Helper()
	if err := os.RemoveAll(to); err != nil {
		tb.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		tb.Fatal(err)
	}
}
