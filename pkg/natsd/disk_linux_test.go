// SPDX-License-Identifier: Apache-2.0

package natsd_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cacert.org/emergency/pkg/natsd"
)

// TestNotReadyAfterFailedWrite: a server whose disk fails goes on running and says nothing by itself.
func TestNotReadyAfterFailedWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	js := connect(t, s)
	must(t, natsd.Provision(t.Context(), js, small))
	must(t, s.Ready(t.Context()))
	publish(t, js, "emergency.e20261124-1", 1)
	must(t, s.Ready(t.Context()))
	full(t, filepath.Join(dir, "jetstream", "$G", "streams", natsd.Stream, "msgs", "1.blk"))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // it does not answer
	defer cancel()
	if _, err := js.Publish(ctx, "emergency.e20261124-1", []byte("x")); err == nil {
		t.Fatal("a failed write is acknowledged")
	}
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), natsd.Stream) || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("after a failed write: %v", err)
	}
}

// full makes writing to a file that this process has open fail, as on a disk without space.
func full(t *testing.T, file string) {
	t.Helper()
	device, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	must(t, err)
	defer device.Close()
	open, err := filepath.Glob("/proc/self/fd/*")
	must(t, err)
	found := false
	for _, name := range open {
		if to, err := os.Readlink(name); err != nil || to != file {
			continue
		}
		fd, err := strconv.Atoi(filepath.Base(name))
		must(t, err)
		must(t, syscall.Dup3(int(device.Fd()), fd, syscall.O_CLOEXEC))
		found = true
	}
	if !found {
		t.Fatalf("%s is not open", file)
	}
}
