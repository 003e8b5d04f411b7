// SPDX-License-Identifier: Apache-2.0

package worktree

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"cacert.org/emergency/pkg/gitrepo/gittree"
)

// childTask tells a copy of the test program to do one operation and to die at a step of it.
const childTask = "EPATCH_WORKTREE_CHILD"

type task struct {
	Operation  string // apply, recover, backout
	Dir, State string
	Base, Want string
	KillAt     string
}

func TestMain(m *testing.M) {
	if raw := os.Getenv(childTask); raw != "" {
		os.Exit(child(raw))
	}
	os.Exit(m.Run())
}

// child does its task; the patch lies beside the state folder. Its end is a kill, not an exit: no deferred
// call and no buffer gets a chance.
func child(raw string) int {
	var c task
	if err := json.Unmarshal([]byte(raw), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	h := &host{dir: c.Dir, state: c.State, base: c.Base, want: c.Want}
	patchBytes, err := os.ReadFile(filepath.Join(c.State, "..", "patch"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	h.patch = patchBytes
	err = h.do(c.Operation, func(step string) {
		if step == c.KillAt {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

func (h *host) do(operation string, failpoint func(string)) error {
	s := spec
	s.StateDir, s.Failpoint = h.state, failpoint
	s.Patch.AllowModeChange = true
	tree, err := Open(h.dir, s)
	if err != nil {
		return err
	}
	ctx := context.Background()
	switch operation {
	case "apply":
		_, err = tree.Apply(ctx, "1", h.patch, h.base, h.want)
	case "recover":
		_, err = tree.Recover(ctx)
	case "backout":
		_, err = tree.BackOut(ctx, "1")
	}
	return err
}

// kill runs an operation in a child that is killed at the step.
func (h *host) kill(t *testing.T, operation, step string) {
	t.Helper()
	raw, err := json.Marshal(task{operation, h.dir, h.state, h.base, h.want, step})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childTask+"="+string(raw))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%s was not killed at %s: %v\n%s", operation, step, err, out)
	}
}

// steps lists the steps of an operation by doing it.
func (h *host) steps(t *testing.T, operation string) []string {
	t.Helper()
	var steps []string
	if err := h.do(operation, func(step string) { steps = append(steps, step) }); err != nil {
		t.Fatal(err)
	}
	if sorted := slices.Sorted(slices.Values(steps)); len(slices.Compact(sorted)) != len(steps) {
		t.Fatalf("a step has no name of its own: %v", steps)
	}
	return steps
}

// clone makes a copy of a host as it is, state folder included.
func (h *host) clone(t *testing.T) *host {
	t.Helper()
	c := *h
	dir := t.TempDir()
	for _, part := range []string{h.dir, filepath.Dir(h.state)} {
		if out, err := exec.Command("cp", "-a", part, dir+"/").CombinedOutput(); err != nil {
			t.Fatalf("copy: %v: %s", err, out)
		}
	}
	c.dir, c.state = filepath.Join(dir, filepath.Base(h.dir)), filepath.Join(dir, filepath.Base(filepath.Dir(h.state)), filepath.Base(h.state))
	return &c
}

// killHost is a host whose state folder stands in a folder with the patch. Names are chosen so that cp -a
// keeps them apart.
func killHost(t *testing.T) *host {
	t.Helper()
	h := newHost(t, gittree.SHA1)
	outer := t.TempDir()
	h.state = filepath.Join(outer, "var", "state")
	writeFile(t, filepath.Join(outer, "var", "patch"), string(h.patch), 0o600)
	tree := filepath.Join(outer, "tree")
	if err := os.Rename(h.dir, tree); err != nil {
		t.Fatal(err)
	}
	h.dir = tree
	if err := os.MkdirAll(h.state, 0o700); err != nil {
		t.Fatal(err)
	}
	return h
}

// recovered calls Recover and proves that the tree is exactly one of the two pictures, as Recover says.
func (h *host) recovered(t *testing.T, step, before, after string) Landed {
	t.Helper()
	tree := h.open(t, nil)
	out, err := tree.Recover(t.Context())
	if err != nil {
		t.Fatalf("%s: recover: %v", step, err)
	}
	id, got := mustID(t, tree, gittree.SHA1), picture(t, h.dir)
	landed := LandedOld
	if id == h.want {
		landed = LandedNew
	}
	if len(out) > 1 || len(out) == 1 && out[0].Landed != landed {
		t.Errorf("%s: recover says %+v, the tree is %s", step, out, landed)
	}
	if landed == LandedOld && got != before {
		t.Errorf("%s: landed on old, but the host is not as before:\n%s\nbefore:\n%s", step, got, before)
	}
	if landed == LandedNew && timeless(got) != timeless(after) {
		t.Errorf("%s: landed on new, but the host is not as after:\n%s\nafter:\n%s", step, got, after)
	}
	if again, err := tree.Recover(t.Context()); err != nil || len(again) != 0 {
		t.Errorf("%s: a second recover does %+v, %v", step, again, err)
	}
	if left, err := os.ReadDir(filepath.Join(h.state, "tmp")); err != nil || len(left) != 0 {
		t.Errorf("%s: staging is left: %v, %v", step, left, err)
	}
	return landed
}

// timeless takes the times out of a picture: those of newly written files differ from run to run.
func timeless(picture string) string {
	var b strings.Builder
	for line := range strings.Lines(picture) {
		fields := strings.SplitN(line, " ", 20)
		for _, f := range fields {
			if len(f) == 19 && strings.Trim(f, "0123456789") == "" {
				f = "T"
			}
			b.WriteString(f + " ")
		}
	}
	return b.String()
}

// Killed at any step of applying, the host comes to rest on exactly old or exactly new; and killed again
// at any step of that recovery, it still does.
func TestKillAtEveryStep(t *testing.T) {
	t.Parallel()
	h := killHost(t)
	before := picture(t, h.dir)
	done := h.clone(t)
	steps := done.steps(t, "apply")
	after := picture(t, done.dir)
	landed := map[Landed]int{}
	var halfway string // a step at which the tree is between old and new
	for i, step := range steps {
		c := h.clone(t)
		c.kill(t, "apply", step)
		if strings.HasPrefix(step, "new:placed") {
			halfway = step
		}
		side := c.recovered(t, "apply killed at "+step, before, after)
		landed[side]++
		if proven := step == "recomputed" || strings.HasSuffix(step, ":applied"); proven && side != LandedNew {
			t.Errorf("killed at %s, the finished job was undone", step)
		}
		if i%3 != 0 { // each kind of step has several; the test is long enough
			continue
		}
		// The host is as usable as ever.
		tree := c.open(t, nil)
		if got, err := tree.Apply(t.Context(), "2", c.patch, c.base, c.want); err == nil && got.PostTree != c.want {
			t.Errorf("%s: apply afterwards: %+v", step, got)
		}
		if id := mustID(t, tree, gittree.SHA1); id != c.want {
			t.Errorf("%s: the patch cannot be applied afterwards: %s", step, id)
		}
	}
	if landed[LandedOld] == 0 || landed[LandedNew] == 0 || len(steps) < 40 {
		t.Errorf("%d steps, landed %v", len(steps), landed)
	}
	probe := h.clone(t)
	probe.kill(t, "apply", halfway)
	for _, step := range probe.steps(t, "recover") {
		c := h.clone(t)
		c.kill(t, "apply", halfway)
		c.kill(t, "recover", step)
		c.recovered(t, "recover killed at "+step, before, after)
	}
}

func TestKillAtEveryStepOfBackOut(t *testing.T) {
	t.Parallel()
	h := killHost(t)
	before := picture(t, h.dir)
	applied := func() *host {
		c := h.clone(t)
		if err := c.do("apply", nil); err != nil {
			t.Fatal(err)
		}
		return c
	}
	probe := applied()
	after := picture(t, probe.dir)
	for _, step := range probe.steps(t, "backout") {
		c := applied()
		c.kill(t, "backout", step)
		landed := c.recovered(t, "back out killed at "+step, before, after)
		if landed == LandedNew && step != "journal-temporary:backing-out" {
			t.Errorf("back out killed at %s went forward again", step)
		}
		if got, err := c.open(t, nil).BackOut(t.Context(), "1"); err != nil || got.PostTree != c.base {
			t.Errorf("%s: back out again: %+v, %v", step, got, err)
		}
	}
}

// An interrupted job blocks others until it is recovered, and its own repetition too.
func TestInterruptedJobMustBeRecovered(t *testing.T) {
	t.Parallel()
	h := killHost(t)
	h.kill(t, "apply", "new:placed:0")
	tree := h.open(t, nil)
	for _, job := range []string{"1", "2"} {
		_, err := tree.Apply(t.Context(), job, h.patch, h.base, h.want)
		wantCode(t, "apply of job "+job, err, CodeRecovery)
	}
	_, err := tree.DryRun(t.Context(), h.patch, h.base, h.want)
	wantCode(t, "dry run", err, CodeRecovery)
	// Backing out the interrupted job itself is a way to recover it: it is never refused.
	if got, err := tree.BackOut(t.Context(), "1"); err != nil || got.PostTree != h.base {
		t.Errorf("back out: %+v, %v", got, err)
	}
}
