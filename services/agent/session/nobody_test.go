// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// asNobody runs the calling test again in a process of an ordinary user.
func asNobody(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "epatch")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o777))
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(copyProgram(t, self, filepath.Join(dir, "test")), "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=120s")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody(t)}
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("as an ordinary user: %v\n%s", err, out)
	}
}

// TestOrdinaryUser: an agent without any rights, for an account that is its own, does all of it too, by processes.
func TestOrdinaryUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		asNobody(t)
		return
	}
	for name, test := range map[string]func(*testing.T){
		"freeze and thaw": TestFreezeAndThaw, "detached": TestEndKillsWhatDetached, "logout": TestLogout, "agent killed": TestAgentKilled, "no shell": TestNoShell,
	} {
		t.Run(name, test)
	}
}
