// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cgroup is a control group (version 2) of its own for one session; see cgroups(7). Whatever a member starts is a member,
// however it detaches itself, so that stopping and killing are one act of the kernel for all of them.
type cgroup struct{ dir string }

// findCgroup returns the folder below which groups may be made: the agent's own group, in the hierarchy of version 2 wherever
// it is mounted (on hybrid systems it lies beside those of version 1).
func findCgroup(proc string) (string, error) {
	mounts, err := os.ReadFile(filepath.Join(proc, "self/mountinfo"))
	if err != nil {
		return "", err
	}
	own, err := os.ReadFile(filepath.Join(proc, "self/cgroup"))
	if err != nil {
		return "", err
	}
	var group string
	for line := range strings.Lines(string(own)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			group = path
		}
	}
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 5 || len(right) < 1 || right[0] != "cgroup2" || group == "" {
			continue
		}
		below, err := filepath.Rel(left[3], group) // what of the hierarchy is mounted here
		if err != nil || below == ".." || strings.HasPrefix(below, "../") {
			continue
		}
		return filepath.Join(left[4], below), nil
	}
	return "", errors.New("no control groups of version 2 are mounted")
}

// makeCgroup makes the group of a session. most bounds its processes where the kernel's counter is available.
func makeCgroup(parent, name string, most uint64) (*cgroup, error) {
	c := &cgroup{filepath.Join(parent, name)}
	if err := os.Mkdir(c.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if _, err := os.Stat(c.file("cgroup.freeze")); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is no group that can be frozen: %w", c.dir, err), os.Remove(c.dir))
	}
	_ = c.write("pids.max", strconv.FormatUint(most, 10)) // there only where the operator has delegated it
	return c, nil
}

func (c *cgroup) file(name string) string { return filepath.Join(c.dir, name) }

func (c *cgroup) write(file, text string) error {
	f, err := os.OpenFile(c.file(file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// add moves a process in; what it starts from then on is in, too.
func (c *cgroup) add(pid int) error { return c.write("cgroup.procs", strconv.Itoa(pid)) }

// members are the processes in the group and below it. A group that is gone has none.
func (c *cgroup) members() (map[int]bool, error) {
	set := map[int]bool{}
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				set[pid] = true
			}
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return set, nil
	}
	return set, err
}

// event reads a line of cgroup.events: frozen or populated.
func (c *cgroup) event(name string) (bool, error) {
	b, err := os.ReadFile(c.file("cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return bytes.Contains(b, []byte(name+" 1\n")), err
}

// freeze stops or continues all members and returns when the kernel says that it is so.
func (c *cgroup) freeze(ctx context.Context, on bool) error {
	text := map[bool]string{true: "1", false: "0"}[on]
	if err := c.write("cgroup.freeze", text); err != nil {
		return err
	}
	return until(ctx, func() (bool, error) {
		frozen, err := c.event("frozen")
		return frozen == on, err
	})
}

// kill kills all members, frozen ones too.
func (c *cgroup) kill() error {
	err := c.write("cgroup.kill", "1")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the group is gone, or the kernel is older than 5.14: then they are killed one by one
	}
	return err
}

// remove takes the group away, with what a member made below it. It must be empty.
func (c *cgroup) remove() error {
	var dirs []string
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		err = os.Remove(dirs[i])
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// until repeats a look until it is true, fails, or ctx ends.
func until(ctx context.Context, look func() (bool, error)) error {
	pause := time.Millisecond
	for {
		ok, err := look()
		if ok || err != nil {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		pause = min(2*pause, 20*time.Millisecond)
	}
}
