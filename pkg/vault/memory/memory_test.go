// SPDX-License-Identifier: Apache-2.0

package memory_test

import (
	"testing"

	"cacert.org/emergency/pkg/vault"
	"cacert.org/emergency/pkg/vault/memory"
	"cacert.org/emergency/pkg/vault/vaulttest"
)

func TestStore(t *testing.T) {
	t.Parallel()
	vaulttest.Run(t, func(*testing.T) vaulttest.Setup {
		s := memory.New()
		return vaulttest.Setup{
			Store:   s,
			Other:   memory.New(),
			Reopen:  func(*testing.T) vault.Store { return s },
			Replace: func(_ *testing.T, commitment string, sealed []byte) { s.Replace(commitment, sealed) },
		}
	})
}
