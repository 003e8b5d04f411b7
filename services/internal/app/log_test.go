// SPDX-License-Identifier: Apache-2.0

package app_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/services/internal/app"
)

// hasty is the machine's clock, whose alarms ring in a thousandth of the time.
type hasty struct{}

func (hasty) Now() time.Time { return time.Now().UTC() }

func (hasty) Alarm(t time.Time) (<-chan struct{}, func()) {
	rung := make(chan struct{})
	timer := time.AfterFunc(time.Until(t)/1000, func() { close(rung) })
	return rung, func() { timer.Stop() }
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, data string) (*app.Node, error) {
	t.Helper()
	return app.Open(t.Context(), app.Settings{
		Data: data, Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0", HTTPS: "127.0.0.1:0", LogFormat: "text", LogLevel: "error", LogTo: io.Discard, Clock: hasty{},
	})
}

// started is a node that serves, until it ends by itself or stop is called.
type started struct {
	*app.Node
	addrs app.Addresses
	stop  context.CancelFunc
	ended chan error
}

func start(t *testing.T, data string) *started {
	t.Helper()
	node, err := open(t, data)
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	s, ready := &started{Node: node, stop: stop, ended: make(chan error, 1)}, make(chan app.Addresses, 1)
	go func() {
		err := node.Run(ctx, func(a app.Addresses) { ready <- a })
		s.ended <- errors.Join(err, node.Close())
	}()
	t.Cleanup(stop)
	select {
	case s.addrs = <-ready:
	case err := <-s.ended:
		t.Fatalf("the node ended at once: %v", err)
	}
	return s
}

// end is how it ends by itself, or by stop.
func (s *started) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(time.Minute):
		t.Fatal("the node goes on")
		return nil
	}
}

// TestRestartOnOlderLog: what a process has read it does not take for never written after a restart (hardening 4).
func TestRestartOnOlderLog(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	node, err := open(t, data)
	must(t, err)
	must(t, node.Close())
	nats, copied := filepath.Join(data, "nats"), filepath.Join(t.TempDir(), "copy")
	must(t, os.CopyFS(copied, os.DirFS(nats)))
	s := start(t, data)
	_, err = s.JetStream().Publish(t.Context(), "emergency.e20261124-1", []byte("of a stranger, and read all the same"))
	must(t, err)
	for at := uint64(0); at == 0; { // until it is remembered, also by a process that is killed now
		b, err := os.ReadFile(filepath.Join(data, "log.mark"))
		must(t, err)
		if info, err := s.JetStream().Stream(t.Context(), natsd.Stream); err == nil && strings.Contains(string(b), `"sequence":`+strconv.FormatUint(info.CachedInfo().State.LastSeq, 10)+",") {
			at = info.CachedInfo().State.LastSeq
		}
	}
	s.stop()
	must(t, s.end(t))
	must(t, os.RemoveAll(nats))
	must(t, os.CopyFS(nats, os.DirFS(copied)))
	for range 2 {
		if _, err = open(t, data); err == nil {
			t.Fatal("the older log is taken")
		}
		for _, want := range []string{"state.last_seq is ", "hardening 4", filepath.Join(data, "log.mark"), "docs/runbooks.md"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q", err, want)
			}
		}
	}
	must(t, os.Remove(filepath.Join(data, "log.mark")))
	node, err = open(t, data)
	must(t, err)
	must(t, node.Close())
}

// TestGuardEndsTheNode: a stream that is changed so that it could forget ends a node that runs. Nobody but the guard notices that (hardening 4).
func TestGuardEndsTheNode(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	stream, err := s.JetStream().Stream(t.Context(), natsd.Stream)
	must(t, err)
	cfg := stream.CachedInfo().Config
	cfg.MaxAge = time.Hour
	_, err = s.JetStream().UpdateStream(t.Context(), cfg)
	must(t, err)
	if err := s.end(t); err == nil || !strings.Contains(err.Error(), "the log cannot be trusted any more") || !strings.Contains(err.Error(), "max_age is 1h0m0s") {
		t.Errorf("the node ended with %v, want the guard's error", err)
	}
}

// TestDeletedStreamEndsTheNode: whoever notices it first, the guard, a reader or the server's health, says so.
func TestDeletedStreamEndsTheNode(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	must(t, s.JetStream().DeleteStream(t.Context(), natsd.Stream))
	err := s.end(t)
	if err == nil || !slices.ContainsFunc([]string{"it was deleted", "not the log that was provisioned", "EMERGENCY' could not be recovered"}, func(w string) bool { return strings.Contains(err.Error(), w) }) {
		t.Errorf("the node ended with %v", err)
	}
}

// TestRoomIsTold: how full the streams are is told of each, so that the reserve is seen before it is used up (hardening 2).
func TestRoomIsTold(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.addrs.HTTP+"/metrics", nil)
	must(t, err)
	res, err := http.DefaultClient.Do(r)
	must(t, err)
	text, err := io.ReadAll(res.Body)
	must(t, errors.Join(err, res.Body.Close()))
	for info := range s.JetStream().ListStreams(t.Context()).Info() {
		for name, want := range map[string]float64{"epatch_log_bytes": float64(info.State.Bytes), "epatch_log_limit_bytes": float64(info.Config.MaxBytes)} {
			told := regexp.MustCompile(`(?m)^` + name + `\{[^}]*stream="` + info.Config.Name + `"[^}]*\} (\S+)$`).FindSubmatch(text)
			if told == nil {
				t.Errorf("%s of %s is not told", name, info.Config.Name)
				continue
			}
			if got, err := strconv.ParseFloat(string(told[1]), 64); err != nil || name == "epatch_log_limit_bytes" && got != want || info.Config.Name == natsd.Stream && got <= 0 {
				t.Errorf("%s of %s is %s, want about %g", name, info.Config.Name, told[1], want)
			}
		}
	}
}
