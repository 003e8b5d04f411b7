// SPDX-License-Identifier: Apache-2.0

package dispatchtest

import (
	"context"

	"cacert.org/emergency/pkg/history"
)

// Panicking is a store with a defect: to append to one incident panics.
type Panicking struct {
	history.Store
	Incident string
}

// Append implements history.Store.
func (p Panicking) Append(ctx context.Context, id string, expected uint64, signed []byte, headers map[string]string) (uint64, error) {
	if id == p.Incident {
		panic("boom")
	}
	return p.Store.Append(ctx, id, expected, signed, headers)
}
