// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"fmt"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// longWorld is a tested incident with at least so many events: people who check in and write notes.
func longWorld(b *testing.B, eventCount uint64) *pt.World {
	b.Helper()
	if eventCount <= 10 {
		return pt.Given(b, pt.Story(pt.Accepted)).World()
	}
	w := pt.Given(b, pt.Story(pt.Tested)).World()
	for w.State.Position < eventCount {
		w.Wait(time.Second)
		if w.State.Position%2 == 0 {
			w.Do("carla", &emergencyv1.CheckInRequest{Slot: "critical/1"})
		} else {
			w.Do("anna", note())
		}
	}
	return w
}

// BenchmarkDecide is the hot path of a service: a decision on a folded state must not depend on how long the history is.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []uint64{10, 1000} {
		w := longWorld(b, n)
		commands := map[string]struct {
			who string
			c   procedure.Command
		}{"note": {"carla", note()}, "tick": {"timer", &emergencyv1.TickRequest{}}}
		if n > 10 {
			commands["signed review"] = struct {
				who string
				c   procedure.Command
			}{"bert", pt.SecondReview(approve)}
		}
		for name, x := range commands {
			b.Run(fmt.Sprintf("%s/%d events", name, n), func(b *testing.B) {
				c, env := w.Prepare(x.who, x.c), w.Env(x.who, procedure.OwnerIncident)
				if owner := procedure.CommandOwner(x.c); owner != "" {
					env.Owner = owner
				}
				b.ReportAllocs()
				for b.Loop() {
					if _, refusal, err := procedure.Decide(w.State, c, env); refusal != nil || err != nil {
						b.Fatal(refusal, err)
					}
				}
			})
		}
	}
}

// BenchmarkApply is a replay: time for a record, in place, whatever came before it.
func BenchmarkApply(b *testing.B) {
	for _, n := range []uint64{10, 1000} {
		w := longWorld(b, n)
		b.Run(fmt.Sprintf("%d events", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s := procedure.NewState(w.State.Incident)
				for _, rec := range w.Records {
					if err := s.Apply(rec, "hash"); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(w.Records)), "ns/record")
		})
	}
}

// BenchmarkClone is what a projection or a tick pays for a copy.
func BenchmarkClone(b *testing.B) {
	w := longWorld(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		w.State.Clone()
	}
}

// BenchmarkOptions is what a page asks.
func BenchmarkOptions(b *testing.B) {
	w := longWorld(b, 1000)
	env := w.Env("bert", "")
	b.ReportAllocs()
	for b.Loop() {
		procedure.Options(w.State, env)
	}
}
