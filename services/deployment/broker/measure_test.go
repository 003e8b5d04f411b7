// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"testing"

	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/deployment/broker/brokertest"
)

// The measurement measures: a watched session shows all of it, and nothing else takes so long.
func TestMeasurement(t *testing.T) {
	t.Parallel()
	r := newTimedRig(t)
	load := brokertest.Load{Output: 1 << 20, Paced: brokertest.PacedRate / 10, Keys: 50}
	watched, err := r.Watched(t.Context(), broker.Ref{Incident: "e20261124.2", Grant: "G1"}, load)
	must(t, err)
	plain, err := r.Plain(t.Context(), load)
	must(t, err)
	for _, m := range []brokertest.Measured{watched, plain} {
		if m.Output <= 0 || m.Paced <= 0 || m.Paced > 1.1*brokertest.PacedRate || m.Echo <= 0 || m.Slow < m.Echo {
			t.Errorf("%+v", m)
		}
	}
	t.Logf("watched %.1f MB/s, echo %v; plain %.1f MB/s, echo %v", watched.Output/1e6, watched.Echo, plain.Output/1e6, plain.Echo)
}
