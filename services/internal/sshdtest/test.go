// SPDX-License-Identifier: Apache-2.0

package sshdtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
)

// TB is what is needed of *testing.T, so that programs that use this package do not link the testing package.
type TB interface {
	Helper()
	Context() context.Context
	TempDir() string
	Cleanup(func())
	Logf(format string, args ...any)
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
}

// New starts a server for a test and ends it with the test. Where OpenSSH is missing, or cannot give a
// terminal, the test is skipped, and fails under CI.
func New(t TB) *Server {
	t.Helper()
	s, err := Start(t.Context(), Config{Dir: t.TempDir()})
	if errors.Is(err, ErrMissing) || errors.Is(err, ErrNoTerminal) {
		missing(t, err.Error())
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		s.Close()
		if text, err := os.ReadFile(s.Log); err == nil && t.Failed() {
			t.Logf("sshd said:\n%s", text)
		}
	})
	return s
}

// Client returns the path of one of OpenSSH's client programs (ssh, scp, sftp), which every machine that has the server has.
func Client(t TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		missing(t, program+" was not found in PATH: install OpenSSH's client (apt-get install openssh-client)")
	}
	return path
}

func missing(t TB, text string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s", text)
	}
	t.Skipf("SKIPPED, because OpenSSH cannot be used here: %s", text)
}
