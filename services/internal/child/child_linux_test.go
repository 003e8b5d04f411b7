// SPDX-License-Identifier: Apache-2.0

package child_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"cacert.org/emergency/services/internal/child"
)

const parentVariable = "EPATCH_CHILD_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentVariable); dir != "" {
		os.Exit(parent(dir))
	}
	os.Exit(m.Run())
}

// parent starts a program that says its number, hands that on, and waits to be killed.
func parent(dir string) int {
	_, pid, err := child.Start(context.Background(), child.Spec{Name: "sleeper", Logs: dir, Program: "/bin/sh", Args: []string{"-c", "echo pid $$; exec sleep 600"}, Ready: "pid "})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(pid)
	time.Sleep(time.Minute)
	return 0
}

// TestEndsWithItsParent: kill -9 of the process that started a program ends that too.
func TestEndsWithItsParent(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), parentVariable+"="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _, err := bufio.NewReader(out).ReadLine()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the program does not run: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	for end := time.Now().Add(30 * time.Second); !gone(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the program outlives who started it")
		}
	}
}

// gone tells whether a process has ended; whoever adopts it may not have asked how yet.
func gone(pid int) bool {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || stateOf(stat) == 'Z'
}

// stateOf is the letter after the name in parentheses.
func stateOf(stat []byte) byte {
	for i := len(stat) - 1; i >= 0; i-- {
		if stat[i] == ')' && i+2 < len(stat) {
			return stat[i+2]
		}
	}
	return 0
}
