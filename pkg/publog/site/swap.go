// SPDX-License-Identifier: Apache-2.0

package site

import (
	"errors"
	"os"
)

// replace lets two folders change places where the system cannot do it at once: for a moment there is none, never half a one. A
// failure brings the old one back.
func replace(fresh, dir string) error {
	old := fresh + "-old"
	if err := os.Rename(dir, old); err != nil {
		return err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return errors.Join(err, os.Rename(old, dir))
	}
	return os.Rename(old, fresh)
}
