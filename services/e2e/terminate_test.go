// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// TestTerminate ends a session from each of the three places while its host floods it with output (issue 4, acceptance 3): input is
// shut at once, what bert started is verified gone, also what he detached, and the credential is refused from then on.
func TestTerminate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end   func(*console)
		cause emergencyv1.SessionCause
	}{
		"command line": {func(c *console) {
			out, err := c.env.Epatch(c.env.API(), "carl", "--incident", c.ID, "terminate", "G1").CombinedOutput()
			if err != nil {
				c.t.Errorf("epatch terminate: %v: %s", err, out)
			}
		}, emergencyv1.SessionCause_SESSION_CAUSE_ADMIN},
		"API": {func(c *console) {
			c.Do("carla", &emergencyv1.TerminateRequest{Grant: "G1"})
		}, emergencyv1.SessionCause_SESSION_CAUSE_WATCHER},
		"two keys": {func(c *console) { c.watcher.Type("\x1ck") }, emergencyv1.SessionCause_SESSION_CAUSE_WATCHER},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, clock := consoleEnv(t)
			s := playSession(t, env, clock, env.API())
			s.do("echo $$ > " + s.at("shell"))
			s.do(fmt.Sprintf("setsid sh -c 'echo $$ > %s; while :; do sleep 1; done' < /dev/null > /dev/null 2>&1 &", s.at("detached")))
			s.do(fmt.Sprintf("sh -c 'echo $$ > %s; exec yes' &", s.at("flood")))
			processes := []process{s.process("shell"), s.process("detached"), s.process("flood")}
			typist := s.types()
			eventually(t, "the flood, and lines that run in it", func() bool { n, _ := typist.ran(); return n > 0 && s.subject.Size() > 256<<10 })

			ended := time.Now()
			c.end(s)
			g := s.await("the end", func(g *procedure.Grant) bool { return g.Terminated.Position > 0 })
			t.Logf("the end is recorded %s after it was ordered", time.Since(ended).Round(time.Millisecond))
			n, at := typist.ran()
			if g.Cause != c.cause {
				t.Errorf("ended because of %v", g.Cause)
			}
			s.ended(g, processes...)
			typist.stop()
			last, _ := typist.ran()
			if last != n {
				t.Errorf("lines ran after the end: %d, then %d", n, last)
			}
			t.Logf("the last of %d lines that ran on the host is %d, typed %s after the order", typist.typed(), n, at.Sub(ended).Round(time.Millisecond))
			if code := s.watcher.Code(); code != 0 {
				t.Errorf("carla's view did not see the end as one: status %d", code)
			}
			s.provenUnusable()
			soundHere(t, env)
		})
	}
}
