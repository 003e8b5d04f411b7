// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"fmt"

	"cacert.org/emergency/pkg/procedure"
)

// Anchors are the checkpoints of a session's recording that the incident's history holds, for Verify. The error is of one that is
// not well-formed, which the rules let into no history.
func Anchors(g *procedure.Grant) ([]Checkpoint, error) {
	var list []Checkpoint
	for _, c := range g.Checkpoints {
		chain, err := ParseHash(c.ChainHash)
		if err != nil {
			return nil, fmt.Errorf("the checkpoint at position %d: %w", c.Position, err)
		}
		list = append(list, Checkpoint{Frame: c.Frame, Chain: chain, Output: int64(c.OutputOffset), Bytes: int64(c.Size)})
	}
	return list, nil
}
