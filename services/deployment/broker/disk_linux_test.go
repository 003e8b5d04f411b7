// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// fillDisk makes every further write to the open file fail as on a full disk: its descriptor leads to /dev/full from now on.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	defer full.Close()
	all, err := filepath.Glob("/proc/self/fd/*")
	must(t, err)
	found := false
	for _, link := range all {
		if target, err := os.Readlink(link); err == nil && target == path {
			fd, err := strconv.Atoi(filepath.Base(link))
			must(t, err)
			must(t, syscall.Dup3(int(full.Fd()), fd, syscall.O_CLOEXEC))
			found = true
		}
	}
	if !found {
		t.Fatalf("%s is not open", path)
	}
}
