// SPDX-License-Identifier: Apache-2.0

//go:build !race

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"cacert.org/emergency/services/internal/cluster"
	"cacert.org/emergency/services/internal/testenv"
)

// diskBytes is the size of a server's file system.
const diskBytes = 256 << 20

// smallDisks gives each server of the log a file system of its own, which can become full; false where that is not allowed, and then no disk
// becomes full.
func smallDisks(t *testing.T, dir string) bool {
	t.Helper()
	for n := range 3 {
		store := filepath.Join(dir, fmt.Sprintf("nats-%d", n+1))
		must(t, os.MkdirAll(store, 0o700))
		err := syscall.Mount("tmpfs", store, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskBytes))
		if errors.Is(err, syscall.EPERM) && n == 0 {
			t.Log("SKIPPED: full disks, because this process may not mount file systems; root may")
			return false
		}
		must(t, err)
		t.Cleanup(func() { must(t, syscall.Unmount(store, syscall.MNT_DETACH)) })
	}
	return true
}

// fullDisks are faults of the servers' file systems. A server that could not write switches its streams off, and works again after a
// restart with room (docs/runbooks.md).
func (f *faults) fullDisks() map[string]func() {
	restart := func(s *cluster.Server) {
		f.t.Helper()
		must(f.t, os.Remove(filepath.Join(s.Store, "filler")))
		must(f.t, s.Process().Stop())
		must(f.t, f.c.StartServer(f.t.Context(), s))
	}
	return map[string]func(){
		"the disk of a server of the log full": func() {
			s := f.server()
			f.fill(1, s)
			f.going(s.Name + " had a full disk")
			restart(s)
			f.healthy()
		},
		"the disks of all servers of the log full": func() {
			f.fill(2, f.c.Servers...) // the third has nobody to agree with, and may not try to write
			end := f.standstill("all disks of the log are full")
			end()
			for _, s := range f.c.Servers {
				restart(s)
			}
			f.healthy()
		},
	}
}

// fill fills servers' disks until so many of them say that they keep nothing any more. The load goes on meanwhile.
func (f *faults) fill(enough int, servers ...*cluster.Server) {
	f.t.Helper()
	block := make([]byte, 1<<20)
	for end := time.Now().Add(testenv.Patience); ; time.Sleep(10 * time.Millisecond) { // between two looks
		off := 0
		for _, s := range servers {
			f.fillUp(filepath.Join(s.Store, "filler"), block)
			var streams struct{ Disabled bool }
			must(f.t, monitor(s, "jsz", &streams))
			if streams.Disabled {
				off++
			}
		}
		if off >= enough {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("%d disks are full, and %d servers say so", len(servers), off)
		}
		f.l.more()
	}
}

// fillUp makes a file longer until there is no room for a byte.
func (f *faults) fillUp(path string, block []byte) {
	f.t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(f.t, err)
	for size := len(block); size > 0; {
		if _, err := file.Write(block[:size]); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else {
			must(f.t, err)
		}
	}
	must(f.t, file.Close())
}
