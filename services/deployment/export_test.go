// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"

	"cacert.org/emergency/services/deployment/broker"
)

// Refused records what the gateway refused outside of a session.
func (s *Server) Refused(ctx context.Context, ref broker.Ref, a broker.RefusedAttempt) error {
	return consoleRules{s, nil}.Refused(ctx, ref, a)
}
