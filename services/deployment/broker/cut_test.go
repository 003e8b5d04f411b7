// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/deployment/broker/brokertest"
)

// tries is how often a busy machine may miss a bound before it counts as missed.
const tries = 5

// Acceptance 2: the watcher's network is cut. A stream that breaks stops input within a second; a watcher that only falls silent
// (a stopped process, a cable pulled) does when its lease has run out, or when what it did not see gets too old. A shell loop on
// the target stops too. By the machine's clock.
func TestWatcherCutStopsInputWithinASecond(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(*brokertest.Eyes, context.CancelFunc) time.Time{
		"dropped": func(e *brokertest.Eyes, _ context.CancelFunc) time.Time {
			e.Close()
			return time.Now()
		},
		"silent": func(e *brokertest.Eyes, stop context.CancelFunc) time.Time {
			stop()
			must(t, e.Renew(false))
			return time.Now().Add(brokertest.Limits().Lease)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := range tries {
				took, stood := cutOnce(t, cut)
				t.Logf("frozen %v after the watcher was gone, processes stand %v after", took, stood)
				if took <= time.Second && stood <= time.Second {
					return
				}
				t.Logf("try %d missed the bound of a second", n+1)
			}
			t.Error("not within a second")
		})
	}
}

// cutOnce returns how long after the cut the gate was shut, and the processes stood.
func cutOnce(t *testing.T, cut func(*brokertest.Eyes, context.CancelFunc) time.Time) (frozen, stood time.Duration) {
	t.Helper()
	r := newTimedRig(t)
	e, err := r.Open(t.Context(), brokertest.Ref, brokertest.Watcher, broker.ModeWatcher)
	must(t, err)
	alive, stop := context.WithCancel(t.Context())
	defer stop()
	e.KeepAlive(alive)
	c := r.ssh(r.fetch())
	c.shows("here> ")
	beat := filepath.Join(t.TempDir(), "beat")
	c.typed(fmt.Sprintf("while :; do echo x >> %s; done\n", beat))
	for late := time.Now().Add(patience); size(beat) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("the loop does not run")
		}
	}
	at := cut(e, stop)
	f := event[broker.Freezing](r, nil)
	recorded := time.Now()
	if f.Mode != broker.FreezeProcess || f.Cause != broker.CauseLease {
		t.Fatalf("%+v", f)
	}
	before := size(beat)
	c.typed("\x03touch " + beat + ".late\n")
	r.status("discarding", func(s broker.Status) bool { return s.Discarded > 0 })
	if after := size(beat); after != before {
		t.Errorf("the loop runs on: %d, then %d bytes", before, after)
	}
	return f.At.Sub(at), recorded.Sub(at)
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// Acceptance 3, the bounds of console.md 9: the gate at once, the processes within two seconds, under a flood.
func TestEndIsReachedInTime(t *testing.T) {
	t.Parallel()
	for n := range tries {
		r := newTimedRig(t)
		r.flood()
		began := time.Now()
		end, err := r.Broker.Terminate(t.Context(), brokertest.Ref, broker.CauseKilled, brokertest.Watcher, "", nil)
		must(t, err)
		gate, host := end.At.Sub(began)+end.Effect(broker.EffectInput).Took, end.Effect(broker.EffectHost)
		t.Logf("gate shut after %v, processes verified gone after %v, all after %v", gate, host.Took, time.Since(began))
		if !host.Done {
			t.Fatalf("%+v", host)
		}
		if gate <= 250*time.Millisecond && host.Took <= 2*time.Second {
			return
		}
		t.Logf("try %d missed a bound", n+1)
	}
	t.Error("the gate is not shut within 250 ms, or the processes are not gone within 2 s")
}
