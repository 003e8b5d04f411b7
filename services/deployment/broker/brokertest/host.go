// SPDX-License-Identifier: Apache-2.0

package brokertest

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"cacert.org/emergency/services/deployment/broker"
)

// Host does on this machine what the agent does on a host: it installs the key's line, whose forced command notes the shell's
// process and becomes the shell; freezing, thawing and killing reach that process's whole session. Processes that leave the
// session are the real agent's affair.
type Host struct {
	// Keys is the key file of the sshd.
	Keys string
	// Dir is where the shells' process numbers are noted.
	Dir string

	mu    sync.Mutex
	fault map[string]error
	hold  map[string]<-chan struct{}
	calls []string
}

// Hold makes a method wait until the channel is closed, before it does anything.
func (h *Host) Hold(method string, until <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hold == nil {
		h.hold = map[string]<-chan struct{}{}
	}
	h.hold[method] = until
}

// Fail makes a method ("open", "freeze", "thaw", "end") return err without doing anything; nil ends that.
func (h *Host) Fail(method string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fault == nil {
		h.fault = map[string]error{}
	}
	h.fault[method] = err
}

// Calls returns the names of the methods called, in order.
func (h *Host) Calls() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.calls...)
}

func (h *Host) called(ctx context.Context, method string) error {
	h.mu.Lock()
	h.calls = append(h.calls, method)
	err, until := h.fault[method], h.hold[method]
	h.mu.Unlock()
	if until != nil {
		select {
		case <-until:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (h *Host) pidFile(ref broker.Ref) string { return filepath.Join(h.Dir, ref.Login()+".pid") }

// Open installs the line.
func (h *Host) Open(ctx context.Context, a broker.Access) error {
	if err := h.called(ctx, "open"); err != nil {
		return err
	}
	command := fmt.Sprintf(`command="echo $$ > %s; PS1='here> ' exec /bin/sh -i",`, h.pidFile(a.Ref))
	return os.WriteFile(h.Keys, []byte(command+a.Line()+"\n"), 0o600)
}

// Freeze stops the session's processes and returns when they stand.
func (h *Host) Freeze(ctx context.Context, ref broker.Ref, _ string) error {
	if err := h.called(ctx, "freeze"); err != nil {
		return err
	}
	if err := h.signal(ctx, ref, 1, syscall.SIGSTOP, "Tt"); err != nil {
		return err
	}
	return h.signal(ctx, ref, every, syscall.SIGSTOP, "Tt")
}

// Thaw lets them go on.
func (h *Host) Thaw(ctx context.Context, ref broker.Ref, _ string) error {
	if err := h.called(ctx, "thaw"); err != nil {
		return err
	}
	all := h.Processes(ref)
	slices.Reverse(all)
	for _, p := range all {
		_ = syscall.Kill(p, syscall.SIGCONT)
	}
	return nil
}

// End removes the line and kills until nothing is left.
func (h *Host) End(ctx context.Context, ref broker.Ref, _ string) error {
	if err := h.called(ctx, "end"); err != nil {
		return err
	}
	if err := os.WriteFile(h.Keys, nil, 0o600); err != nil {
		return err
	}
	h.awaitShell(ref)
	return h.signal(ctx, ref, every, syscall.SIGKILL, "Z")
}

// awaitShell gives a shell that sshd is about to start the time to say which process it is.
func (h *Host) awaitShell(ref broker.Ref) {
	if !slices.Contains(h.Calls(), "open") {
		return
	}
	for range 100 {
		if _, err := os.Stat(h.pidFile(ref)); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// every is more processes than a session has.
const every = 1 << 20

// signal sends until the first so many processes of the session are in one of the states, or gone.
func (h *Host) signal(ctx context.Context, ref broker.Ref, first int, sig syscall.Signal, states string) error {
	for {
		rest := 0
		all := h.Processes(ref)
		for _, p := range all[:min(first, len(all))] {
			if state, _ := stat(p); !strings.Contains(states, state) {
				_ = syscall.Kill(p, sig)
				rest++
			}
		}
		if rest == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes are left: %w", rest, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Processes are those of the grant's session, dead ones that nobody has fetched left out. The shell is the first: it has
// to stand before its children are stopped, and goes on after them, or it takes them for stopped by their user and leaves them so.
func (h *Host) Processes(ref broker.Ref) []int {
	text, err := os.ReadFile(h.pidFile(ref))
	if err != nil {
		return nil
	}
	leader := strings.TrimSpace(string(text))
	var all []int
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, e := range entries {
		pid, _ := strconv.Atoi(filepath.Base(e))
		if state, session := stat(pid); session == leader && state != "Z" && state != "" {
			all = append(all, pid)
		}
	}
	slices.SortFunc(all, func(a, b int) int {
		return cmp.Compare(b2i(strconv.Itoa(a) != leader), b2i(strconv.Itoa(b) != leader))
	})
	return all
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// stat returns a process's state and session.
func stat(pid int) (state, session string) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", ""
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 4 {
		return "", ""
	}
	return f[0], f[3]
}
