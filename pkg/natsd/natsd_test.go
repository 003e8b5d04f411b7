// SPDX-License-Identifier: Apache-2.0

package natsd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/natsd"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// childDir in the environment makes the test binary the process that TestKilledProcess kills.
const childDir = "NATSD_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, publishForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

var small = natsd.Profile{Replicas: 1, MaxBytes: 16 << 20}

func start(t *testing.T, dir string) *natsd.Server {
	t.Helper()
	s, err := natsd.Start(natsd.Config{Dir: dir, Logger: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeServer(t, s) })
	return s
}

func closeServer(t *testing.T, s *natsd.Server) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func connect(t *testing.T, s *natsd.Server) jetstream.JetStream {
	t.Helper()
	nc, err := s.Connect(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// provisioned returns a connection to a fresh server with everything in place.
func provisioned(t *testing.T) (*natsd.Server, jetstream.JetStream) {
	t.Helper()
	s := start(t, t.TempDir())
	js := connect(t, s)
	if err := natsd.Provision(t.Context(), js, small); err != nil {
		t.Fatal(err)
	}
	return s, js
}

func publish(t *testing.T, js jetstream.JetStream, subject string, n int) {
	t.Helper()
	for i := range n {
		if _, err := js.Publish(t.Context(), subject, fmt.Appendf(nil, "record %d", i)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStartRefusesWrongConfig(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cfg  natsd.Config
		want string
	}{
		"no logger":     {natsd.Config{Dir: t.TempDir()}, "Logger is missing"},
		"no folder":     {natsd.Config{Logger: quiet()}, "Dir is missing"},
		"no port":       {natsd.Config{Dir: t.TempDir(), Logger: quiet(), Listen: "127.0.0.1"}, "missing port"},
		"bad port":      {natsd.Config{Dir: t.TempDir(), Logger: quiet(), Listen: "127.0.0.1:http"}, "port is no number"},
		"all addresses": {natsd.Config{Dir: t.TempDir(), Logger: quiet(), Listen: ":4222"}, "only a loopback address"},
		"open address":  {natsd.Config{Dir: t.TempDir(), Logger: quiet(), Listen: "0.0.0.0:4222"}, "only a loopback address"},
		"folder a file": {natsd.Config{Dir: file, Logger: quiet()}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := natsd.Start(tc.cfg)
			if err == nil {
				closeServer(t, s)
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %q does not say %q", err, tc.want)
			}
		})
	}
}

func TestOneServerPerFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, dir)
	_, err := natsd.Start(natsd.Config{Dir: dir, Logger: testLog(t)})
	if !errors.Is(err, natsd.ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Fatalf("second start: %v, want ErrInUse naming process %d", err, os.Getpid())
	}
	if err := first.Ready(t.Context()); err != nil {
		t.Fatalf("first server after the refused second: %v", err)
	}
	closeServer(t, first)
	start(t, dir)
}

func TestConnectAndClose(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	if url := s.ClientURL(); url != "" {
		t.Errorf("a port is open: %s", url)
	}
	js := connect(t, s)
	closeServer(t, s)
	if !js.Conn().IsClosed() {
		t.Error("connection outlives its server")
	}
	if err := s.Ready(t.Context()); err == nil {
		t.Error("closed server is ready")
	}
	if _, err := s.Connect("late"); err == nil {
		t.Error("connected to a closed server")
	}
}

func TestListenOnLoopback(t *testing.T) {
	t.Parallel()
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir(), Logger: testLog(t), Listen: "127.0.0.1:0", ServerName: "named"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeServer(t, s) })
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if nc.ConnectedServerName() != "named" {
		t.Errorf("server is called %q", nc.ConnectedServerName())
	}
}

// publishForEver is the child: it prints the sequence and the text of each record after its acknowledgement.
func publishForEver(dir string) error {
	s, err := natsd.Start(natsd.Config{Dir: dir, Logger: quiet()})
	if err != nil {
		return err
	}
	nc, err := s.Connect("child")
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := natsd.Provision(ctx, js, small); err != nil {
		return err
	}
	for i := 1; ; i++ {
		text := fmt.Sprintf("record %d of process %d", i, os.Getpid())
		ack, err := js.Publish(ctx, "emergency.e20261124-1", []byte(text))
		if err != nil {
			return err
		}
		fmt.Println(ack.Sequence, text)
	}
}

// TestKilledProcess kills the server with its process in the middle of writing: all acknowledged records are there
// afterwards, in order. It does so twice on one store, so that the second run starts from a store without a clean end.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acked := map[uint64]string{}
	for run := range 2 {
		last := killAfter(t, dir, acked, 200)
		s, err := natsd.Start(natsd.Config{Dir: dir, Logger: testLog(t)})
		if err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		js := connect(t, s)
		guard := natsd.NewGuard(js, natsd.Expect{Replicas: 1, Sync: s.Sync()}, last)
		if err := guard.Look(t.Context()); err != nil {
			t.Errorf("run %d: %v", run, err)
		}
		stream, err := js.Stream(t.Context(), natsd.Stream)
		if err != nil {
			t.Fatal(err)
		}
		for seq, text := range acked {
			msg, err := stream.GetMsg(t.Context(), seq)
			if err != nil || string(msg.Data) != text {
				t.Fatalf("run %d: acknowledged record %d of %d, %q: got %+v, error %v", run, seq, last, text, msg, err)
			}
		}
		closeServer(t, s)
	}
}

// killAfter runs the child until it has acknowledged n records more, kills it, adds to acked what it acknowledged, and
// returns the last sequence.
func killAfter(t *testing.T, dir string, acked map[uint64]string, n int) (last uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	var stderr strings.Builder
	child.Stderr = &stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	count := 0
	for lines := bufio.NewScanner(out); lines.Scan(); count++ {
		number, text, _ := strings.Cut(lines.Text(), " ")
		seq, err := strconv.ParseUint(number, 10, 64)
		if err != nil || seq <= last {
			t.Fatalf("child said %q after sequence %d", lines.Text(), last)
		}
		last, acked[seq] = seq, text
		if count == n {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = child.Wait() // always an error: it was killed
	if count < n {
		t.Fatalf("child stopped after %d records, before it was killed: %s", count, stderr.String())
	}
	return last
}
