// SPDX-License-Identifier: Apache-2.0

package memory_test

import (
	"testing"

	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/projection/memory"
	"cacert.org/emergency/pkg/projection/projectiontest"
)

func TestTables(t *testing.T) {
	t.Parallel()
	projectiontest.Suite(t, func(testing.TB) (projection.Tables, func() int) {
		tables := &memory.Tables{}
		return tables, func() int { return tables.Shown("sample") }
	})
}
