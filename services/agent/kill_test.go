// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/worktree"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/agent"
	"cacert.org/emergency/services/deployment/deploymenttest"
)

// process is an agent in a process of its own.
type process struct {
	cmd  *exec.Cmd
	out  *deploymenttest.Text
	done chan error
}

// spawn starts an agent that kills itself at a step; it lives until the test ends if there is none.
func spawn(w *world, c agent.Config, killAt string) *process {
	w.Helper()
	raw, err := json.Marshal(child{c, killAt})
	w.Must(err)
	p := &process{cmd: exec.Command(os.Args[0], "-test.run=^$"), out: &deploymenttest.Text{}, done: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), childTask+"="+string(raw))
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	w.Must(p.cmd.Start())
	go func() { p.done <- p.cmd.Wait() }()
	w.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may be gone
		if w.Failed() {
			w.Logf("agent to be killed at %q said: %s", killAt, p.out.String())
		}
	})
	return p
}

// wantKilled waits until the process has killed itself.
func (w *world) wantKilled(p *process, at string) {
	w.Helper()
	<-p.done
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		w.Fatalf("the agent ended with %v before step %q: %s", p.cmd.ProcessState, at, p.out.String())
	}
}

// record lists the steps of an apply, or of a back-out after it, on a copy of the host.
func record(t *testing.T, backOut bool) []string {
	t.Helper()
	r := deploymenttest.New(t)
	var mu sync.Mutex
	var steps []string
	tree, err := worktree.Open(r.HostRoot, worktree.Spec{StateDir: filepath.Join(r.Dir, "tree"), Failpoint: func(step string) {
		mu.Lock()
		defer mu.Unlock()
		if !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
	}})
	r.Must(err)
	_, err = tree.Apply(context.Background(), "e20261124.1/12", r.Patch, r.BaseTree(), r.ResultTree())
	r.Must(err)
	if !backOut {
		return append(steps, "agent:begun", "agent:tried", "agent:apply-reported", "agent:tree-reported")
	}
	applied := len(steps)
	_, err = tree.BackOut(context.Background(), "e20261124.1/12")
	r.Must(err)
	return steps[applied:]
}

// TestKillAtEveryStep: whenever the agent is killed while it applies, the next one finds the host on the old or the new
// side and the history learns which, without anybody doing anything.
func TestKillAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, step := range record(t, false) {
		t.Run(strings.ReplaceAll(step, "/", "_"), func(t *testing.T) {
			t.Parallel()
			w := honest(t)
			incident := w.Started(false)
			c := config(w.Rig, w.addr)
			w.wantKilled(spawn(w, c, step), step)
			spawn(w, c, "")
			st := w.WaitFor(incident, "the truth", func(s *procedure.State) bool {
				return s.Applies[0].State == procedure.Verified || s.Applies[0].State == procedure.BackedOut
			})
			w.wantTree(w.HostRoot, st.Applies[0].HostTree)
			if want := map[bool]string{true: w.ResultTree(), false: w.BaseTree()}[st.Applies[0].State == procedure.Verified]; st.Applies[0].HostTree != want {
				t.Errorf("%s with tree %s, want %s", st.Applies[0].State, st.Applies[0].HostTree, want)
			}
			untouched := slices.Contains([]string{"agent:begun", "staged", "job-folder"}, step) || strings.HasPrefix(step, "saved-") || step == "journal-temporary:prepared"
			if untouched && st.Applies[0].State != procedure.Verified {
				t.Errorf("killed before anything was touched, and the revision is %s instead of being applied after the restart", st.Applies[0].State)
			}
			w.wantNoLitter(w.HostRoot)
		})
	}
}

// wantNoLitter: no temporary file of the agent is left in the tree.
func (w *world) wantNoLitter(dir string) {
	w.Helper()
	w.Must(filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(filepath.Base(path), ".epatch") {
			w.Errorf("left behind: %s", path)
		}
		return err
	}))
}

// TestKillAtEveryStepOfRollBack: the same for the way back.
func TestKillAtEveryStepOfRollBack(t *testing.T) {
	t.Parallel()
	for _, step := range record(t, true) {
		t.Run(strings.ReplaceAll(step, "/", "_"), func(t *testing.T) {
			t.Parallel()
			w := honest(t)
			incident := w.Started(false)
			c := config(w.Rig, w.addr)
			p := spawn(w, c, step)
			w.wantState(incident, procedure.Verified)
			w.Do("carla", incident, &emergencyv1.RollBackRequest{Reason: "logins fail", Observer: "carl"}, procedure.Facts{})
			w.wantKilled(p, step)
			spawn(w, c, "")
			a := w.wantState(incident, procedure.RolledBack)
			w.wantTree(w.HostRoot, a.HostTree)
			if a.HostTree != w.BaseTree() {
				t.Errorf("rolled back to %s, want %s", a.HostTree, w.BaseTree())
			}
			w.wantNoLitter(w.HostRoot)
		})
	}
}

// TestKilledAndAskedNothing: a killed agent tells the truth at its next start from its own journal, also if nobody sends the
// job again.
func TestKilledAndAskedNothing(t *testing.T) {
	t.Parallel()
	for step, want := range map[string]procedure.ApplyState{"agent:tried": procedure.Verified, "new:synced": procedure.Verified, "journal:prepared": procedure.BackedOut} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			w := scripted(t)
			incident := w.Started(false)
			c := config(w.Rig, w.addr)
			p := spawn(w, c, step)
			j := w.ApplyJob(incident)
			ctx, cancel := context.WithCancel(context.Background())
			asked := make(chan struct{})
			go func() {
				defer close(asked)
				_, _ = w.hub.Run(ctx, j) // nobody will answer
			}()
			w.wantKilled(p, step)
			cancel()
			<-asked
			spawn(w, c, "")
			a := w.wantState(incident, want)
			w.wantTree(w.HostRoot, a.HostTree)
		})
	}
}

// TestOneAgentPerState: a second agent on the same state folder does not start, and a killed one does not keep the next out.
func TestOneAgentPerState(t *testing.T) {
	t.Parallel()
	w := honest(t)
	c := config(w.Rig, w.addr)
	stop := start(w.Rig, c, nil)
	p := spawn(w, c, "")
	if err := <-p.done; err == nil || !bytes.Contains([]byte(p.out.String()), []byte("another agent works with")) {
		t.Errorf("the second agent ended with %v: %s", err, p.out.String())
	}
	stop()
	start(w.Rig, c, nil)
}
