// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/timer"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// half is one half of a joint declaration.
func half() *emergencyv1.SignJointDeclarationRequest {
	return &emergencyv1.SignJointDeclarationRequest{
		WhyNot_1: "nobody can say yet which of the programs is the one that leaks", WhyNot_2: "a patch cannot be prepared without knowing what to mend",
		WhyLive: "it happens only with the data of the live system",
	}
}

const purpose = "find and mend what leaks"

func permit(subject string) *emergencyv1.PermitAccessRequest {
	return &emergencyv1.PermitAccessRequest{Subject: subject, Purpose: purpose}
}

func grantTo(subject string) *emergencyv1.GrantAccessRequest {
	return &emergencyv1.GrantAccessRequest{Subject: subject, Purpose: purpose}
}

// console is a watched session on the critical host, each of its people at a terminal of their own: bert at the stock ssh client,
// carla at watch-console. The time of the services stands still, so that however busy the machine is carla's signs of life come
// in time; a test lets it run when it wants to see what becomes of them.
type console struct {
	*testenv.Story
	t     *testing.T
	env   *testenv.Env
	clock *timer.Manual

	watcher, subject *testenv.Terminal
	ssh              []string // the stock client's command line, with the credential
	marks            int
}

// consoleEnv is a system with a critical host that takes sessions, whose agent is a process of its own.
func consoleEnv(t *testing.T) (*testenv.Env, *timer.Manual) {
	t.Helper()
	clock := manual()
	env := testenv.Start(t, testenv.Options{Clock: clock, Console: true, NoAgents: true})
	env.StartAgentChild(demobook.Host, "")
	env.Log.Await(0, "agent attached", demobook.Host)
	return env, clock
}

// openSession has carla watch through an address of the API, and bert come in.
func openSession(t *testing.T, env *testenv.Env, s *testenv.Story, clock *timer.Manual, api string) *console {
	t.Helper()
	c := &console{Story: s, t: t, env: env, clock: clock}
	c.watcher = testenv.OpenTerminal(t, env.Epatch(api, "carla", "--incident", s.ID, "watch-console"))
	eventually(t, "carla's view is open", func() bool { return strings.Contains(c.watcher.Shown(), "watcher carla") })
	out, err := env.Epatch(env.API(), "bert", "--incident", s.ID, "connect", "--print", "--json").Output()
	must(t, err)
	var way struct {
		Command []string `json:"command"`
		Folder  string   `json:"folder"`
	}
	must(t, json.Unmarshal(out, &way))
	t.Cleanup(func() { must(t, os.RemoveAll(way.Folder)) })
	c.ssh = way.Command
	eventually(t, "bert is let in", func() bool {
		g := c.grant()
		if g.Consumed.Position == 0 && (c.subject == nil || c.subject.Over()) { // again, where carla's first sign of life came too late for him
			c.subject = testenv.OpenTerminal(t, exec.Command(c.ssh[0], c.ssh[1:]...))
		}
		return g.Opened.Position > 0
	})
	eventually(t, "the shell's prompt", func() bool { return c.subject.Size() > 0 })
	return c
}

// playSession plays an emergency until bert has come in.
func playSession(t *testing.T, env *testenv.Env, clock *timer.Manual, api string) *console {
	t.Helper()
	s := env.Play(testenv.Called)
	s.Do("carla", half())
	s.Do("anna", half())
	s.Do("clara", permit("bert"))
	s.Do("carla", grantTo("bert"))
	return openSession(t, env, s, clock, api)
}

func (c *console) grant() *procedure.Grant {
	c.t.Helper()
	g, ok := c.State().Grant("G1")
	if !ok {
		c.t.Fatal("there is no grant")
	}
	return g
}

// await waits until the history says something of the grant.
func (c *console) await(what string, so func(*procedure.Grant) bool) (g *procedure.Grant) {
	c.t.Helper()
	c.env.Await(c.ID, what, func(*dashboardv1.Incident) bool {
		g = c.grant()
		return so(g)
	})
	return g
}

// eventually waits for a fact outside the histories.
func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for late := time.Now().Add(testenv.Patience); !fact(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) || t.Context().Err() != nil {
			t.Fatalf("never: %s", what)
		}
	}
}

// at is a path on the host, of the test's own.
func (c *console) at(name string) string { return filepath.Join(c.env.Target.Dir, name) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// do has bert type a line, and waits until the host has run it.
func (c *console) do(line string) {
	c.t.Helper()
	c.marks++
	mark := c.at(fmt.Sprintf("mark-%d", c.marks))
	c.subject.Type(line + "\recho > " + mark + "\r")
	eventually(c.t, line, func() bool { return exists(mark) })
}

// loop has bert start a shell loop in the background that writes to a file without a pause; it returns the loop's process and the file.
func (c *console) loop() (process, string) {
	c.t.Helper()
	beat := c.at("beat")
	c.do(fmt.Sprintf("sh -c 'echo $$ > %s; while :; do echo . >> %s; done' &", c.at("loop"), beat))
	eventually(c.t, "the loop runs", func() bool { return size(c.t, beat) > 0 })
	return c.process("loop"), beat
}

// size is how long a file is; 0 if it is not there.
func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	must(t, err)
	return info.Size()
}

// process is a process of the host, told apart from a later one with the same number by its start.
type process struct{ pid, began string }

// process is the one whose number is in a file.
func (c *console) process(file string) process {
	c.t.Helper()
	var p process
	eventually(c.t, "a process in "+file, func() bool {
		b, _ := os.ReadFile(c.at(file))
		p = process{pid: strings.TrimSpace(string(b))}
		p.began, _ = procStat(p.pid)
		return p.began != ""
	})
	return p
}

// gone is whether the process runs no more.
func (p process) gone() bool {
	began, state := procStat(p.pid)
	return began != p.began || state == "Z" // dead, and only not yet fetched by its parent
}

// procStat is when a process began, and its state; empty if there is none.
func procStat(pid string) (began, state string) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil || pid == "" {
		return "", ""
	}
	fields := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+1:])
	return fields[19], fields[0]
}

// discarded is how many bytes of input were thrown away so far, as somebody is told who begins to look on.
func (c *console) discarded() uint64 {
	c.t.Helper()
	ctx, cancel := context.WithCancel(soon(c.t))
	defer cancel() // only so many may look on at a time
	stream, err := c.env.As("carl").Console().Watch(ctx)
	must(c.t, err)
	hello := &deploymentv1.WatchHello{Incident: c.ID, Grant: "G1", Observe: true}
	must(c.t, stream.Send(&deploymentv1.WatchRequest{Message: &deploymentv1.WatchRequest_Hello{Hello: hello}}))
	for {
		m, err := stream.Recv()
		must(c.t, err)
		if st := m.GetState(); st != nil {
			return st.GetInputDiscarded()
		}
	}
}

// typist types numbered lines, each of which appends its number to a file, until it is stopped.
type typist struct {
	c      *console
	file   string
	mu     sync.Mutex
	times  []time.Time
	finish chan struct{}
	ended  sync.WaitGroup
}

func (c *console) types() *typist {
	x := &typist{c: c, file: c.at("typed"), finish: make(chan struct{})}
	x.ended.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			x.mu.Lock()
			x.times = append(x.times, time.Now())
			x.mu.Unlock()
			c.subject.Type(fmt.Sprintf("echo %d >> %s\r", n, x.file))
			select {
			case <-tick.C:
			case <-c.subject.Ended:
				return
			case <-x.finish:
				return
			}
		}
	})
	return x
}

// stop ends the typing.
func (x *typist) stop() {
	close(x.finish)
	x.ended.Wait()
}

// ran is the number of the last line that ran on the host, and when it was typed; -1 if none ran.
func (x *typist) ran() (int, time.Time) {
	b, _ := os.ReadFile(x.file)
	lines := strings.Fields(string(b))
	if len(lines) == 0 {
		return -1, time.Time{}
	}
	n, err := strconv.Atoi(lines[len(lines)-1])
	must(x.c.t, err)
	x.mu.Lock()
	defer x.mu.Unlock()
	return n, x.times[n]
}

// typed is how many lines were typed so far.
func (x *typist) typed() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.times)
}

// ended checks that an end was whole: each of its steps is done, the session's processes do not run any more, the ssh client has
// been sent away, the host knows the key no more, and whoever tries the credential again is refused and recorded.
func (c *console) ended(g *procedure.Grant, processes ...process) {
	t := c.t
	t.Helper()
	for i, want := range procedure.EndEffects() {
		if len(g.Results) <= i {
			t.Fatalf("results of the end: %v", g.Results)
		}
		r := g.Results[i]
		if r.GetEffect() != want || r.GetOutcome() != emergencyv1.EffectOutcome_EFFECT_OUTCOME_DONE {
			t.Errorf("%s: %v, %s", want, r.GetOutcome(), r.GetDetail())
		}
		t.Logf("%s done after %d ms", r.GetEffect(), r.GetTookMs())
	}
	for _, p := range processes {
		if !p.gone() {
			t.Errorf("process %s goes on", p.pid)
		}
	}
	if code := c.subject.Code(); code == 0 {
		t.Error("the ssh client ended as if bert had left by himself")
	}
	keys, err := os.ReadFile(c.env.Target.AuthorizedKeys)
	must(t, err)
	if strings.Contains(string(keys), c.ID) {
		t.Errorf("the host's key file: %s", keys)
	}
	c.refused()
}

// refused tries the credential again.
func (c *console) refused() {
	t := c.t
	t.Helper()
	before := c.State().Position
	again := exec.CommandContext(soon(t), c.ssh[0], c.ssh[1:]...)
	again.Stdin = strings.NewReader("echo > " + c.at("again") + "\rexit\r")
	out, err := again.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 255 || exists(c.at("again")) {
		t.Errorf("the credential is taken again: %v: %s", err, out)
	}
	e := c.env.AwaitEvent(c.ID, "deployment.SessionMarked", before)
	for !strings.Contains(e.GetPayloadJson(), "MARK_KIND_REFUSED_REQUEST") {
		e = c.env.AwaitEvent(c.ID, "deployment.SessionMarked", e.GetPosition())
	}
	t.Logf("tried again: %s; recorded: %s", strings.TrimSpace(string(out)), e.GetPayloadJson())
}

// provenUnusable disables the access, unless that is done, and has it proven.
func (c *console) provenUnusable() {
	c.t.Helper()
	if c.grant().Disabled.Position == 0 {
		c.Do("carla", &emergencyv1.DisableRequest{Grant: "G1"})
	}
	c.Do("carla", &emergencyv1.ProveUnusableRequest{Grant: "G1"})
	if g := c.grant(); g.State != procedure.GrantProvenUnusable {
		c.t.Errorf("the access is %s", g.State)
	}
}

// running lets a clock go as the machine's does.
func running(clock *timer.Manual) (stop func()) {
	finish := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case <-tick.C:
				now := time.Now()
				clock.Advance(now.Sub(last))
				last = now
			case <-finish:
				return
			}
		}
	})
	return func() {
		close(finish)
		ended.Wait()
	}
}

// frozen lets the time run until the session is frozen, because carla is gone or what she has not seen is too old, and says how long that took.
func (c *console) frozen(since time.Time, after uint64) {
	c.t.Helper()
	stop := running(c.clock)
	g := c.await("the session is frozen", func(g *procedure.Grant) bool { return g.Frozen.Position > after })
	stop()
	c.t.Logf("frozen in the history %s after the last sign of life", time.Since(since).Round(time.Millisecond))
	lost := g.FreezeCause == emergencyv1.SessionCause_SESSION_CAUSE_LEASE_LOST || g.FreezeCause == emergencyv1.SessionCause_SESSION_CAUSE_UNSEEN_OUTPUT
	if g.State != procedure.GrantFrozen || !lost {
		c.t.Errorf("%s because of %v", g.State, g.FreezeCause)
	}
	if !slices.Contains([]emergencyv1.FreezeMode{emergencyv1.FreezeMode_FREEZE_MODE_PROCESS, emergencyv1.FreezeMode_FREEZE_MODE_CGROUP}, g.FreezeMode) {
		c.t.Errorf("frozen: %v", g.FreezeMode)
	}
}
