// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"fmt"
	"testing"
	"time"

	"cacert.org/emergency/pkg/timer"
	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/deployment/broker/brokertest"
	"cacert.org/emergency/services/internal/sshdtest"
)

// BenchmarkConsole compares a watched session with a plain one to the same sshd: throughput and the echo of a key.
func BenchmarkConsole(b *testing.B) {
	r, err := brokertest.Start(brokertest.Config{Dir: b.TempDir(), Sshd: sshdtest.New(b), Clock: timer.System{}, Log: brokertest.Discard()})
	must(b, err)
	b.Cleanup(func() { must(b, r.Close()) })
	const output, keys = 32 << 20, 300
	for b.Loop() {
		plain, err := r.Plain(b.Context(), output, keys)
		must(b, err)
		watched, err := r.Watched(b.Context(), broker.Ref{Incident: "e20261124.2", Grant: fmt.Sprintf("G%d", time.Now().UnixNano())}, output, keys)
		must(b, err)
		b.ReportMetric(plain.Output/1e6, "plain-MB/s")
		b.ReportMetric(watched.Output/1e6, "watched-MB/s")
		b.ReportMetric(watched.Output/plain.Output, "throughput-ratio")
		b.ReportMetric(float64(plain.Echo.Microseconds()), "plain-echo-us")
		b.ReportMetric(float64(watched.Echo.Microseconds()), "watched-echo-us")
		b.ReportMetric(float64(watched.Echo)/float64(plain.Echo), "echo-ratio")
	}
}

// The measurement measures: a watched session shows all of it, and nothing else takes so long.
func TestMeasurement(t *testing.T) {
	t.Parallel()
	r := newTimedRig(t)
	watched, err := r.Watched(t.Context(), broker.Ref{Incident: "e20261124.2", Grant: "G1"}, 1<<20, 50)
	must(t, err)
	plain, err := r.Plain(t.Context(), 1<<20, 50)
	must(t, err)
	for _, m := range []brokertest.Measured{watched, plain} {
		if m.Output <= 0 || m.Echo <= 0 || m.Slow < m.Echo {
			t.Errorf("%+v", m)
		}
	}
	t.Logf("watched %.1f MB/s, echo %v; plain %.1f MB/s, echo %v", watched.Output/1e6, watched.Echo, plain.Output/1e6, plain.Echo)
}
