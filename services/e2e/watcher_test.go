// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"syscall"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/testenv"
)

// TestWatcherGone: the watcher's program stands still, or the network to it is cut or silent (issue 4, acceptance 3). What bert types
// then never reaches the host, not even when the session goes on; the loop that he started there stands still; and when nobody
// comes back within the grace the access has ended, with everything that he started.
func TestWatcherGone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		goes, comes func(*console, *testenv.Relay)
	}{
		"stopped": {
			func(c *console, _ *testenv.Relay) { c.watcher.Signal(syscall.SIGSTOP) },
			func(c *console, _ *testenv.Relay) { c.watcher.Signal(syscall.SIGCONT) },
		},
		"cut":    {func(_ *console, r *testenv.Relay) { r.Cut() }, func(_ *console, r *testenv.Relay) { r.Mend() }},
		"silent": {func(_ *console, r *testenv.Relay) { r.Silence() }, func(_ *console, r *testenv.Relay) { r.Mend() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, clock := consoleEnv(t)
			relay := env.Relay()
			s := playSession(t, env, clock, relay.Addr)
			loop, beat := s.loop()

			left := time.Now()
			c.goes(s, relay)
			s.frozen(left, 0)
			stood := size(t, beat)
			never := "echo > " + s.at("never") + "\r"
			before := s.discarded()
			s.subject.Type(never)
			eventually(t, "what bert types is thrown away", func() bool { return s.discarded() >= before+uint64(len(never)) })
			if now := size(t, beat); now != stood {
				t.Errorf("the loop went on from %d to %d", stood, now)
			}

			c.comes(s, relay)
			s.resumed()
			s.do("echo > " + s.at("on")) // was typed after the other line
			eventually(t, "the loop goes on", func() bool { return size(t, beat) > stood })

			typist := s.types()
			eventually(t, "lines run", func() bool { n, _ := typist.ran(); return n > 0 })
			left = time.Now()
			c.goes(s, relay)
			s.frozen(left, s.grant().Frozen.Position)
			clock.Advance(s.State().Policy.Duration("watch.grace") + time.Second)
			g := s.await("the end", func(g *procedure.Grant) bool { return g.Terminated.Position > 0 })
			if g.Cause != emergencyv1.SessionCause_SESSION_CAUSE_GRACE_OVER {
				t.Errorf("ended because of %v", g.Cause)
			}
			s.ended(g, loop)
			typist.stop()
			n, at := typist.ran()
			t.Logf("the last of %d lines that ran on the host is %d, typed %s after the last sign of life", typist.typed(), n, at.Sub(left).Round(time.Millisecond))
			if exists(s.at("never")) {
				t.Error("what was typed while the session was frozen has run")
			}
			c.comes(s, relay)
			s.watcher.Code() // sees that it is over
			s.provenUnusable()
			soundHere(t, env)
		})
	}
}

// resumed lets the session go on, once carla's view is back.
func (c *console) resumed() {
	c.t.Helper()
	eventually(c.t, "carla watches again", func() bool {
		c.Do("carla", &emergencyv1.ArmWatchRequest{Grant: "G1"})
		_, err := c.Try("carla", &emergencyv1.ResumeRequest{Grant: "G1"})
		if no, ok := rpc.RefusalOf(err); ok && no.Reason == procedure.ReasonWatcherAbsent {
			return false
		}
		must(c.t, err)
		return true
	})
}
