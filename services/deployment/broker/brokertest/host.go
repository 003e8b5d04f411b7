// SPDX-License-Identifier: Apache-2.0

package brokertest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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
	calls []string
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

func (h *Host) called(method string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, method)
	return h.fault[method]
}

func (h *Host) pidFile(ref broker.Ref) string { return filepath.Join(h.Dir, ref.Login()+".pid") }

// Open installs the line.
func (h *Host) Open(_ context.Context, a broker.Access) error {
	if err := h.called("open"); err != nil {
		return err
	}
	command := fmt.Sprintf(`command="echo $$ > %s; exec /bin/sh -i",`, h.pidFile(a.Ref))
	return os.WriteFile(h.Keys, []byte(command+a.Line()+"\n"), 0o600)
}

// Freeze stops the session's processes and returns when they stand.
func (h *Host) Freeze(ctx context.Context, ref broker.Ref, _ string) error {
	if err := h.called("freeze"); err != nil {
		return err
	}
	return h.signal(ctx, ref, syscall.SIGSTOP, "Tt")
}

// Thaw lets them go on.
func (h *Host) Thaw(_ context.Context, ref broker.Ref, _ string) error {
	if err := h.called("thaw"); err != nil {
		return err
	}
	for _, p := range h.Processes(ref) {
		_ = syscall.Kill(p, syscall.SIGCONT)
	}
	return nil
}

// End removes the line and kills until nothing is left.
func (h *Host) End(ctx context.Context, ref broker.Ref, _ string) error {
	if err := h.called("end"); err != nil {
		return err
	}
	if err := os.WriteFile(h.Keys, nil, 0o600); err != nil {
		return err
	}
	return h.signal(ctx, ref, syscall.SIGKILL, "Z")
}

// signal sends until every process of the session is in one of the states, or gone.
func (h *Host) signal(ctx context.Context, ref broker.Ref, sig syscall.Signal, states string) error {
	for {
		rest := 0
		for _, p := range h.Processes(ref) {
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

// Processes are those of the grant's session, dead ones that nobody has fetched left out.
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
	return all
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
