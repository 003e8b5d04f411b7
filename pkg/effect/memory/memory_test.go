// SPDX-License-Identifier: Apache-2.0

package memory_test

import (
	"testing"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/effect/effecttest"
	"cacert.org/emergency/pkg/effect/memory"
)

func TestLedger(t *testing.T) {
	t.Parallel()
	l := memory.New()
	effecttest.Ledger(t, func(*testing.T) effect.Ledger { return l })
}
