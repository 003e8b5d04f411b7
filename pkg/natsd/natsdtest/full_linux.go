// SPDX-License-Identifier: Apache-2.0

package natsdtest

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Full makes writing to a file that this process has open fail, as on a disk without space.
func Full(t testing.TB, file string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	device, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	must(err)
	defer device.Close()
	open, err := filepath.Glob("/proc/self/fd/*")
	must(err)
	found := false
	for _, name := range open {
		if to, err := os.Readlink(name); err != nil || to != file {
			continue
		}
		fd, err := strconv.Atoi(filepath.Base(name))
		must(err)
		must(syscall.Dup3(int(device.Fd()), fd, syscall.O_CLOEXEC))
		found = true
	}
	if !found {
		t.Fatalf("%s is not open", file)
	}
}
