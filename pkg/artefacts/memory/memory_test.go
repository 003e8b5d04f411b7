// SPDX-License-Identifier: Apache-2.0

package memory_test

import (
	"testing"

	"cacert.org/emergency/pkg/artefacts"
	"cacert.org/emergency/pkg/artefacts/artefactstest"
	"cacert.org/emergency/pkg/artefacts/memory"
)

func TestStore(t *testing.T) {
	t.Parallel()
	artefactstest.Run(t, func(t *testing.T) artefactstest.Setup {
		s := memory.New(artefactstest.Limit)
		return artefactstest.Setup{
			Store:   s,
			Reopen:  func(_ *testing.T, limit int64) artefacts.Store { return s.Reopen(limit) },
			Replace: func(_ *testing.T, sha256 string, data []byte) { s.Replace(sha256, data) },
		}
	})
}
