// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cacert.org/emergency/services/agent/session"
)

// counting starts a loop that writes a growing number into a file, and returns how to read it.
func counting(x *terminal) func() int {
	x.h.Helper()
	file := filepath.Join(x.h.openFolder(), "count")
	x.say("i=0; while :; do i=$((i+1)); echo $i > " + file + "; done")
	read := func() int {
		b, _ := os.ReadFile(file)
		n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		return n
	}
	eventually(x.h, "a loop that counts", func() bool { return read() > 10 })
	return read
}

// standsStill tells whether a number is the same after the writer had ample time to run.
func standsStill(read func() int) bool {
	was := read()
	for range 20 {
		time.Sleep(10 * time.Millisecond) // nothing can be waited for: nothing is to happen
		if now := read(); now != was && now != 0 {
			return false
		}
	}
	return true
}

// frozen freezes until it holds; on a machine that others keep busy the first try may give up.
func (h *host) frozen() (mode session.Mode) {
	h.Helper()
	eventually(h, "frozen", func() bool {
		var err error
		mode, err = h.Freeze(h.Context(), grant)
		return err == nil
	})
	return mode
}

// TestFreezeAndThaw: a loop in the shell stops within a second of the freeze, stays stopped though something continues it, and
// goes on after the thaw.
func TestFreezeAndThaw(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, k kind) {
		h := newHost(t, k, nil)
		x := h.opened()
		read := counting(x)
		started := time.Now()
		mode := h.frozen()
		within(t, time.Second, "frozen", started, func() bool { return true })
		if want := h.Mode(); mode != want {
			t.Errorf("mode %s, want %s", mode, want)
		}
		if !standsStill(read) {
			t.Error("the loop goes on though the session is frozen")
		}
		if again, err := h.Freeze(t.Context(), grant); err != nil || again != mode {
			t.Errorf("frozen again: %s, %v", again, err)
		}
		_, err := h.Thaw(t.Context(), grant)
		must(t, err)
		was := read()
		eventually(t, "the loop goes on after the thaw", func() bool { return read() > was+10 })
		_, err = x.master.WriteString("\x03") // the shell still has its job in hand
		must(t, err)
		x.say("echo afte''r")
		x.expect("after")
		x.say("exit 7")
		x.wait()
		if x.err == nil || x.err.Error() != "exit status 7" {
			t.Errorf("the console shell ended with %v, want the shell's status 7", x.err)
		}
	})
}

// TestStopped by the subject stays stopped over freeze and thaw.
func TestStoppedStaysStopped(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, k kind) {
		h := newHost(t, k, nil)
		x := h.opened()
		x.say("sleep 1000 & echo $! > " + h.openFolder() + "/pid")
		pid := h.pidIn("pid")
		x.say("kill -STOP $!")
		state := func() string {
			b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
			return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[0]
		}
		eventually(t, "stopped", func() bool { return state() == "T" })
		h.frozen()
		_, err := h.Thaw(t.Context(), grant)
		must(t, err)
		x.say("echo afte''r")
		x.expect("after")
		if state() != "T" {
			t.Error("what the subject had stopped runs after the thaw")
		}
	})
}

// TestContinuedByAnother: what was stopped one by one is stopped again when a process outside of the session continues it.
func TestContinuedByAnother(t *testing.T) {
	t.Parallel()
	h := newHost(t, kind{cgroup: session.NoCgroup}, nil)
	x := h.opened()
	x.say("sh -c 'echo $$ > " + h.openFolder() + "/pid; i=0; while :; do i=$((i+1)); echo $i > " + h.dir + "/open/n; done' &")
	pid := h.pidIn("pid")
	h.frozen()
	must(t, unix.Kill(pid, unix.SIGCONT))
	eventually(t, "stopped again", func() bool {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err == nil && strings.Contains(string(b), ") T ")
	})
}

// n20 are ways to leave the terminal behind; each writes the number of the process that must not survive.
var n20 = map[string]string{
	"background":                      "sleep 1000 & echo $! > %/pid",
	"nohup":                           "nohup sh -c 'echo $$ > %/pid; exec sleep 1000' >/dev/null 2>&1 &",
	"setsid":                          "setsid sh -c 'echo $$ > %/pid; exec sleep 1000' >/dev/null 2>&1 </dev/null &",
	"double fork":                     "( ( setsid nohup sh -c 'echo $$ > %/pid; exec sleep 1000' >/dev/null 2>&1 </dev/null & ) & )",
	"double fork without environment": "( ( setsid env -i /bin/sh -c 'echo $$ > %/pid; exec sleep 1000' >/dev/null 2>&1 </dev/null & ) & )",
	"ignores signals":                 "setsid sh -c 'trap \"\" HUP TERM INT; echo $$ > %/pid; while :; do sleep 1; done' >/dev/null 2>&1 </dev/null &",
	"stopped":                         "setsid sh -c 'echo $$ > %/pid; kill -STOP $$; sleep 1000' >/dev/null 2>&1 </dev/null &",
}

// TestEndKillsWhatDetached (N15, N20): whatever a process of the session did to leave it, the end finds it.
func TestEndKillsWhatDetached(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, k kind) {
		for name, command := range n20 {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				h := newHost(t, k, nil)
				x := h.opened()
				x.say(strings.ReplaceAll(command, "%", h.openFolder()))
				pid := h.pidIn("pid")
				started := time.Now()
				e, err := h.End(t.Context(), grant, "test")
				must(t, err)
				within(t, 2*time.Second, "ended", started, func() bool { return true })
				if alive(pid) {
					t.Errorf("process %d survived: %+v", pid, e)
				}
				h.wantEnded(e, session.Done)
				again, err := h.End(t.Context(), grant, "test")
				must(t, err)
				h.wantEnded(again, session.Done)
				x.wait()
			})
		}
	})
}

// wantEnded: both steps came to this, the key is out and no group is left.
func (h *host) wantEnded(e session.Ending, want session.Outcome) {
	h.Helper()
	for _, effect := range []string{session.StepCredential, session.StepProcesses} {
		if s := outcome(h, e, effect); s.Outcome != want {
			h.Errorf("%s: %+v, want %s", effect, s, want)
		}
	}
	if list, err := (session.KeyFile{Path: h.cfg.KeyFile}).Grants(); err != nil || len(list) != 0 {
		h.Errorf("the key file still has %v (%v)", list, err)
	}
	if open := h.Open(); len(open) != 0 {
		h.Errorf("still open: %v", open)
	}
}

// TestWrapperKilledBySubject: the subject kills the wrapper, and what it had started ends all the same, at once.
func TestWrapperKilledBySubject(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, k kind) {
		for _, name := range []string{"double fork", "double fork without environment", "ignores signals"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				h := newHost(t, k, nil)
				x := h.opened()
				x.say(strings.ReplaceAll(n20[name], "%", h.openFolder()))
				pid := h.pidIn("pid")
				_, err := h.Leftovers(t.Context(), grant) // the agent has looked: what is orphaned between two looks it can miss
				must(t, err)
				must(t, unix.Kill(x.pid, unix.SIGKILL))
				eventually(t, "the process is gone", func() bool { return !alive(pid) })
				eventually(t, "the session is over", func() bool { return len(h.Open()) == 0 })
				e, err := h.End(t.Context(), grant, "test")
				must(t, err)
				h.wantEnded(e, session.Done)
			})
		}
	})
}

// TestLogout: when the subject leaves the shell, what was left behind ends too, and the exit status is the shell's.
func TestLogout(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, k kind) {
		h := newHost(t, k, nil)
		x := h.opened()
		x.say(strings.ReplaceAll(n20["double fork"], "%", h.openFolder()))
		pid := h.pidIn("pid")
		x.say("exit 3")
		x.wait()
		if x.err == nil || x.err.Error() != "exit status 3" {
			t.Errorf("ended with %v, want status 3", x.err)
		}
		if alive(pid) {
			t.Error("a process outlived the wrapper")
		}
		eventually(t, "over", func() bool { return len(h.Open()) == 0 })
		e, err := h.End(t.Context(), grant, "again")
		must(t, err)
		h.wantEnded(e, session.Done)
	})
}

// TestTerminalClosed: the other side hangs up.
func TestTerminalClosed(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, k kind) {
		h := newHost(t, k, nil)
		x := h.opened()
		x.say(strings.ReplaceAll(n20["ignores signals"], "%", h.openFolder()))
		pid := h.pidIn("pid")
		must(t, x.master.Close())
		eventually(t, "the process is gone", func() bool { return !alive(pid) })
		eventually(t, "over", func() bool { return len(h.Open()) == 0 })
		x.wait()
	})
}

// TestForkBomb: a bounded crowd that forks without end is stopped and killed.
func TestForkBomb(t *testing.T) {
	t.Parallel()
	for _, k := range kinds(t) {
		t.Run(k.name, func(t *testing.T) { // one after the other: it fills the machine
			h := newHost(t, k, nil)
			x := h.opened()
			dir := h.openFolder()
			// Each member forks another and ends, in a terminal session of its own, until 400 have been.
			script := "#!/bin/sh\nn=$1\n[ $n -gt 400 ] && exit\necho $n > " + dir + "/n\nsetsid " + dir + "/bomb $((n+1)) </dev/null >/dev/null 2>&1 &\nsetsid sleep 1000 </dev/null >/dev/null 2>&1 &\n"
			must(t, os.WriteFile(dir+"/bomb", []byte(script), 0o755))
			x.say("for i in 1 2 3; do setsid " + dir + "/bomb 1 & done")
			count := func() int {
				b, _ := os.ReadFile(dir + "/n")
				n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
				return n
			}
			eventually(t, "a crowd", func() bool { return count() > 20 })
			started := time.Now()
			h.frozen() // one by one it can take until the crowd has come to its own end
			t.Logf("frozen at %d after %s", count(), time.Since(started).Round(time.Millisecond))
			if !standsStill(count) {
				t.Error("the crowd grows though it is frozen")
			}
			started = time.Now()
			var e session.Ending
			eventually(t, "success", func() bool {
				var err error
				e, err = h.End(t.Context(), grant, "test")
				must(t, err)
				return e.Err() == nil
			})
			t.Logf("ended after %s: %+v", time.Since(started).Round(time.Millisecond), e.Steps)
			h.wantEnded(e, session.Done)
			if !standsStill(count) {
				t.Error("the crowd grows though it was killed")
			}
		})
	}
}
