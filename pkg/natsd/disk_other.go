// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package natsd

import "os"

func readFromDisk(path string) ([]byte, error) { return os.ReadFile(path) }
