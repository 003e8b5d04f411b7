// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cacert.org/emergency/pkg/recording"
	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/deployment/broker/brokertest"
)

// tries is how often a busy machine may miss a bound before it counts as missed.
const tries = 5

// Acceptance 3: the watcher's network is cut. A stream that breaks freezes within a second. Of a watcher that only falls silent (a
// stopped process, a cable pulled) the input stops within a second, and the session freezes when the lease is over. A shell loop on
// the target stops with the freeze. By the machine's clock.
func TestWatcherCutStopsInputWithinASecond(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cut  func(*brokertest.Eyes, context.CancelFunc)
		late time.Duration // how long after the cut the freeze is due
	}{
		"dropped": {func(e *brokertest.Eyes, _ context.CancelFunc) { e.Close() }, 0},
		"silent": {func(e *brokertest.Eyes, stop context.CancelFunc) {
			stop()
			must(t, e.Renew(false))
		}, brokertest.Limits().Lease},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := range tries {
				input, frozen, stood := cutOnce(t, c.cut)
				t.Logf("after the watcher was gone: the last key was taken after %v, frozen after %v, the processes stand after %v", input, frozen, stood)
				if input <= time.Second && frozen-c.late <= time.Second && stood-c.late <= time.Second {
					return
				}
				t.Logf("try %d missed the bound of a second", n+1)
			}
			t.Error("not within a second")
		})
	}
}

// cutOnce returns how long after the cut the last key was taken, the session was frozen, and the processes stood. Somebody types
// all the time.
func cutOnce(t *testing.T, cut func(*brokertest.Eyes, context.CancelFunc)) (input, frozen, stood time.Duration) {
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
	quiet := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quiet:
				return
			case <-time.After(10 * time.Millisecond):
				_, _ = c.stdin.Write([]byte("x")) // the client may have ended
			}
		}
	}()
	cut(e, stop)
	at := time.Now()
	f := event[broker.Freezing](r, nil)
	recorded := time.Now()
	close(quiet)
	<-done
	if f.Mode != broker.FreezeProcess || f.Cause != broker.CauseLease {
		t.Fatalf("%+v", f)
	}
	before := size(beat)
	now, _ := r.Broker.Status(brokertest.Ref)
	c.typed("\x03touch " + beat + ".late\n")
	r.status("discarding", func(s broker.Status) bool { return s.Discarded > now.Discarded })
	if after := size(beat); after != before {
		t.Errorf("the loop runs on: %d, then %d bytes", before, after)
	}
	late := r.watchAs("ca-2", broker.ModeObserver) // sees all of it, whatever became of the watcher's stream
	late.until("the freeze", func(s brokertest.Seen) bool { return len(bodies[recording.Frozen](s)) > 0 })
	for _, x := range seenBy(late).Frames {
		if _, ok := x.Body.(recording.Typed); ok {
			input = max(input, x.At.Sub(at))
		}
	}
	return input, f.At.Sub(at), recorded.Sub(at)
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
