// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// readFromDisk reads a file as the disk has it: what the system remembers of it, and has written, is forgotten first.
func readFromDisk(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return nil, fmt.Errorf("read %s from the disk: %w", path, err)
	}
	return io.ReadAll(f)
}
