// SPDX-License-Identifier: Apache-2.0

package natsd_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cacert.org/emergency/pkg/natsd"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"
)

// TestSyncAlways asks the kernel, after each acknowledgement, whether pages of the stream's blocks still wait to be
// written to the disk. The same question to a server with the default of NATS must find some, else it proves nothing.
func TestSyncAlways(t *testing.T) {
	t.Parallel()
	dir := onDisk(t)
	s := start(t, dir)
	js := connect(t, s)
	if err := natsd.Provision(t.Context(), js, small); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		publish(t, js, "emergency.e20261124-1", 1)
		if dirty := dirtyPages(t, dir); dirty != 0 {
			t.Fatalf("%d pages are not on the disk after the acknowledgement", dirty)
		}
	}

	control := onDisk(t)
	js = unsynced(t, control)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: natsd.Stream, Subjects: []string{natsd.Subjects}}); err != nil {
		t.Fatal(err)
	}
	for range 20 { // more than one try: the kernel may write back at any time
		publish(t, js, "emergency.e20261124-1", 1)
		if dirtyPages(t, control) > 0 {
			return
		}
	}
	t.Fatal("no waiting page without syncing either: this file system does not tell")
}

// onDisk is a folder that is not in memory, where nothing would ever wait to be written.
func onDisk(t *testing.T) string {
	t.Helper()
	var fs unix.Statfs_t
	for _, parent := range []string{os.TempDir(), "/var/tmp"} {
		if err := unix.Statfs(parent, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
			continue
		}
		dir, err := os.MkdirTemp(parent, "sync-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		return dir
	}
	cannotTell(t, "the temporary folders are in memory: set TMPDIR to a folder on a disk")
	return ""
}

// unsynced starts a server as NATS comes.
func unsynced(t *testing.T, dir string) jetstream.JetStream {
	t.Helper()
	ns, err := server.NewServer(&server.Options{ServerName: "control", DontListen: true, NoSigs: true, JetStream: true, StoreDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(time.Minute) {
		t.Fatal("control server does not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(ns))
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

func dirtyPages(t *testing.T, dir string) (dirty uint64) {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "$G", "streams", natsd.Stream, "msgs", "*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("no blocks of the stream: %v", err)
	}
	for _, block := range blocks {
		f, err := os.Open(block)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var stat unix.Cachestat_t
		err = unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &stat, 0)
		if errors.Is(err, unix.ENOSYS) {
			cannotTell(t, "a kernel older than 6.5 does not know which pages wait for the disk")
		}
		if err != nil {
			t.Fatal(err)
		}
		dirty += stat.Dirty + stat.Writeback
	}
	return dirty
}

func cannotTell(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip("SKIPPED: " + why)
}
