// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"cacert.org/emergency/pkg/timer"
	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/deployment/broker/brokertest"
	"cacert.org/emergency/services/internal/sshdtest"
)

// patience is how long a busy machine may take for what happens at once on an idle one.
const patience = 60 * time.Second

// rig is a broker before a real sshd, with what tests want of both.
type rig struct {
	*brokertest.Rig
	t     *testing.T
	clock *timer.Manual // nil where the machine's clock runs
}

// newRig starts a rig whose clock stands still.
func newRig(t *testing.T, change func(*broker.Config)) *rig {
	t.Helper()
	clock := timer.NewManual(time.Now())
	return &rig{startRig(t, clock, change), t, clock}
}

// newTimedRig starts a rig whose clock is the machine's.
func newTimedRig(t *testing.T) *rig {
	t.Helper()
	return &rig{startRig(t, timer.System{}, nil), t, nil}
}

func startRig(t *testing.T, clock timer.Clock, change func(*broker.Config)) *brokertest.Rig {
	t.Helper()
	sshd := sshdtest.New(t)
	sshdtest.Client(t, "ssh")
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	r, err := brokertest.Start(brokertest.Config{Dir: t.TempDir(), Sshd: sshd, Clock: clock, Log: log, Change: change})
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// watch begins to watch the first grant as its watcher.
func (r *rig) watch() *eyes {
	r.t.Helper()
	return r.watchAs(brokertest.Watcher, broker.ModeWatcher)
}

func (r *rig) watchAs(person string, mode broker.Mode) *eyes {
	r.t.Helper()
	e, err := r.Open(r.t.Context(), brokertest.Ref, person, mode)
	must(r.t, err)
	if r.clock == nil {
		e.KeepAlive(r.t.Context())
	}
	return &eyes{e, r.t}
}

// fetch gets a credential of the first grant.
func (r *rig) fetch() brokertest.Key {
	r.t.Helper()
	k, err := r.Fetch(r.t.Context(), brokertest.Ref)
	must(r.t, err)
	return k
}

// client is a running stock client; what it shows and says is kept.
type client struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *screen
	ended chan struct{}
	err   error // once ended
}

// ssh starts the stock client with a terminal; extra arguments come before the login.
func (r *rig) ssh(k brokertest.Key, extra ...string) *client {
	r.t.Helper()
	return r.start(r.Command(r.t.Context(), k, append([]string{"-tt"}, extra...)...))
}

func (r *rig) start(cmd *exec.Cmd) *client {
	r.t.Helper()
	c := &client{t: r.t, cmd: cmd, out: newScreen(), ended: make(chan struct{})}
	stdin, err := cmd.StdinPipe()
	must(r.t, err)
	cmd.Env = append(os.Environ(), "TERM=vt100", "LC_ALL=C")
	cmd.Stdout, cmd.Stderr, c.stdin = c.out, c.out, stdin
	must(r.t, cmd.Start())
	go func() {
		c.err = cmd.Wait()
		close(c.ended)
	}()
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-c.ended
	})
	return c
}

func (c *client) typed(s string) {
	c.t.Helper()
	_, err := io.WriteString(c.stdin, s)
	must(c.t, err)
}

// shows waits until the client has shown text.
func (c *client) shows(text string) {
	c.t.Helper()
	c.out.await(c.t, text)
}

// ends waits until the client has ended, and returns all that it showed.
func (c *client) ends() string {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(patience):
		c.t.Fatalf("the client does not end; it showed:\n%s", c.out.String())
	}
	return c.out.String()
}

// run runs a client program to its end.
func (r *rig) run(name string, args ...string) (string, error) {
	r.t.Helper()
	c := r.start(exec.CommandContext(r.t.Context(), sshdtest.Client(r.t, name), args...))
	_ = c.stdin.Close()
	return c.ends(), c.err
}

// screen is what a program has shown.
type screen struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{}
}

func newScreen() *screen { return &screen{changed: make(chan struct{})} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
	return s.buf.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	late := time.After(patience)
	for {
		s.mu.Lock()
		changed, now := s.changed, s.buf.String()
		s.mu.Unlock()
		if strings.Contains(now, text) {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%q was not shown, but:\n%s", text, now)
		}
	}
}

// eyes are a watcher's.
type eyes struct {
	*brokertest.Eyes
	t *testing.T
}

// until waits until what is seen fulfils ok.
func (e *eyes) until(what string, ok func(brokertest.Seen) bool) brokertest.Seen {
	e.t.Helper()
	late := time.After(patience)
	for {
		seen, changed := e.Seen()
		if ok(seen) {
			return seen
		}
		select {
		case <-changed:
		case <-late:
			e.t.Fatalf("the watcher does not see %s, but %+v, and:\n%.4000s", what, seen.Status, seen.Output)
		}
	}
}

func (e *eyes) sees(text string) {
	e.t.Helper()
	e.until(text, func(s brokertest.Seen) bool { return strings.Contains(s.Output, text) })
}

func (e *eyes) state(want broker.State) brokertest.Seen {
	e.t.Helper()
	return e.until("state "+string(want), func(s brokertest.Seen) bool { return s.Status.State == want })
}

// ending waits for the end and everything it led to.
func (e *eyes) ending() broker.Ending {
	e.t.Helper()
	return *e.until("the ending", func(s brokertest.Seen) bool { return s.Ending != nil }).Ending
}

// event waits until the history of the first grant has an event of this kind that fulfils ok, and returns the first.
func event[T any](r *rig, ok func(T) bool) T {
	r.t.Helper()
	late := time.After(patience)
	for {
		all, changed := r.Rules.Events(brokertest.Ref)
		for _, e := range all {
			if x, is := e.(T); is && (ok == nil || ok(x)) {
				return x
			}
		}
		select {
		case <-changed:
		case <-late:
			r.t.Fatalf("no such event (%T), but: %+v", *new(T), all)
		}
	}
}

// events are those of a kind so far.
func events[T any](r *rig) []T {
	var some []T
	all, _ := r.Rules.Events(brokertest.Ref)
	for _, e := range all {
		if x, is := e.(T); is {
			some = append(some, x)
		}
	}
	return some
}

// refusedBy checks that err is a refusal with that reason.
func refusedBy(t *testing.T, err error, reason string) {
	t.Helper()
	var no *broker.Refusal
	if !errors.As(err, &no) || no.Reason != reason {
		t.Fatalf("got %v, want a refusal by %s", err, reason)
	}
}

// open brings a session to life and returns its client and watcher.
func (r *rig) open() (*client, *eyes) {
	r.t.Helper()
	e := r.watch()
	c := r.ssh(r.fetch())
	e.state(broker.StateLive)
	return c, e
}

// freeze freezes as the watcher's command does.
func (r *rig) freeze() broker.Freezing {
	r.t.Helper()
	f, err := r.Broker.Freeze(r.t.Context(), brokertest.Ref, broker.CauseWatcher, func(ctx context.Context, f broker.Freezing) error {
		return r.Rules.Freeze(ctx, brokertest.Ref, f)
	})
	must(r.t, err)
	return f
}

// resume resumes as the watcher's command does: recorded first.
func (r *rig) resume() error {
	r.t.Helper()
	return r.Broker.Resume(r.t.Context(), brokertest.Ref, brokertest.Watcher, "seen", func(ctx context.Context) error {
		err := r.Rules.Resume(ctx, brokertest.Ref)
		must(r.t, err)
		return err
	})
}
