// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// watchStream is the service's side of a watch, in the test's hand.
type watchStream struct {
	grpc.ClientStream
	down chan *deploymentv1.WatchResponse // closed: the session's stream ends
	up   chan *deploymentv1.WatchRequest
	cut  chan error
	ctx  context.Context
}

func (s *watchStream) Send(m *deploymentv1.WatchRequest) error {
	select {
	case s.up <- m:
	case <-s.ctx.Done():
	}
	return nil
}

func (s *watchStream) Recv() (*deploymentv1.WatchResponse, error) {
	select {
	case m, ok := <-s.down:
		if !ok {
			return nil, io.EOF
		}
		return m, nil
	case err := <-s.cut:
		return nil, err
	case <-s.ctx.Done():
		return nil, status.FromContextError(s.ctx.Err()).Err()
	}
}

// watchRig is a watch whose other side is the test.
type watchRig struct {
	*consoleWatch
	down  chan *deploymentv1.WatchResponse
	up    chan *deploymentv1.WatchRequest
	cut   chan error
	given chan procedure.Command
	fails func(procedure.Command) error
	done  chan error
}

func newWatchRig(t *testing.T, a *app, v *viewing) *watchRig {
	t.Helper()
	r := &watchRig{
		down: make(chan *deploymentv1.WatchResponse, 100), up: make(chan *deploymentv1.WatchRequest, 100), cut: make(chan error), given: make(chan procedure.Command, 10),
		fails: func(procedure.Command) error { return nil }, done: make(chan error, 1),
	}
	r.consoleWatch = &consoleWatch{
		app: a, incident: "e20261124.1", grant: "G1", viewing: v, left: make(chan struct{}),
		dial: func(ctx context.Context) (deploymentv1.ConsoleService_WatchClient, error) {
			return &watchStream{down: r.down, up: r.up, cut: r.cut, ctx: ctx}, nil
		},
		give: func(_ context.Context, cmd procedure.Command) error {
			r.given <- cmd
			return r.fails(cmd)
		},
	}
	return r
}

func (r *watchRig) start(t *testing.T) {
	t.Helper()
	if err := r.open(); err != nil {
		t.Fatal(err)
	}
	go func() {
		err := r.run(t.Context())
		r.view.close()
		r.done <- err
	}()
}

func (r *watchRig) welcomed(t *testing.T, mode deploymentv1.WatchMode) {
	t.Helper()
	if hello := r.next(t).GetHello(); hello.GetIncident() != "e20261124.1" || hello.GetGrant() != "G1" {
		t.Fatalf("hello %v", hello)
	}
	r.down <- &deploymentv1.WatchResponse{Message: &deploymentv1.WatchResponse_Welcome{Welcome: &deploymentv1.WatchWelcome{Mode: mode, RenewEveryMs: 10, Columns: 80, Rows: 24}}}
}

// patience of the tests is for a busy machine only.
const patience = 30 * time.Second

func (r *watchRig) next(t *testing.T) *deploymentv1.WatchRequest {
	t.Helper()
	select {
	case m := <-r.up:
		return m
	case <-time.After(patience):
		t.Fatal("nothing was sent")
		return nil
	}
}

// renewal waits for one that satisfies.
func (r *watchRig) renewal(t *testing.T, what string, ok func(*deploymentv1.WatchRenewal) bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if m := r.next(t); m.GetRenewal() != nil && ok(m.GetRenewal()) {
			return
		}
	}
	t.Fatalf("no renewal said: %s", what)
}

func (r *watchRig) command(t *testing.T) procedure.Command {
	t.Helper()
	for {
		select {
		case c := <-r.given:
			return c
		case <-r.up: // renewals go on
		case <-time.After(patience):
			t.Fatal("no command was given")
			return nil
		}
	}
}

func (r *watchRig) output(offset uint64, text string) {
	r.down <- &deploymentv1.WatchResponse{Message: &deploymentv1.WatchResponse_Frame{Frame: &deploymentv1.WatchFrame{
		Kind: deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_OUTPUT, Data: []byte(text), OutputOffset: offset, AtMs: 1500,
	}}}
}

func (r *watchRig) stands(st *deploymentv1.WatchState) {
	r.down <- &deploymentv1.WatchResponse{Message: &deploymentv1.WatchResponse_State{State: st}}
}

func (r *watchRig) ended(t *testing.T) error {
	t.Helper()
	for {
		select {
		case err := <-r.done:
			return err
		case <-r.up:
		case <-time.After(patience):
			t.Fatal("the view goes on")
			return nil
		}
	}
}

// lockedBuffer is standard output that a test reads while the program writes.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// until waits for a text.
func (b *lockedBuffer) until(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(b.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q never came:\n%s", text, b.String())
		}
	}
}

func plainApp(stdin io.Reader) (*app, *lockedBuffer) {
	var out lockedBuffer
	p := Process{Stdin: stdin, Stdout: &out, Stderr: io.Discard, Now: time.Now, Zone: time.UTC}
	return &app{proc: p, out: newPrinter(p.Stdout, p), errs: newPrinter(p.Stderr, p)}, &out
}

const watcherMode = deploymentv1.WatchMode_WATCH_MODE_WATCHER

func TestPlainWatchAcknowledgesWhatItHasShown(t *testing.T) {
	t.Parallel()
	a, out := plainApp(nil)
	r := newWatchRig(t, a, &viewing{plain: true})
	r.start(t)
	r.welcomed(t, watcherMode)
	r.renewal(t, "nothing shown", func(m *deploymentv1.WatchRenewal) bool { return m.GetRendered() == 0 && !m.GetHidden() })
	r.output(7, "\x1b[2Jhi\x07")
	r.renewal(t, "seven bytes shown", func(m *deploymentv1.WatchRenewal) bool { return m.GetRendered() == 7 })
	if want := `    1.500  output  \x1b[2Jhi\x07` + "\n"; !strings.Contains(out.String(), want) {
		t.Errorf("shown %q, without %q", out.String(), want)
	}
	r.stands(&deploymentv1.WatchState{State: "live", InputOpen: true, Persons: []*deploymentv1.WatchPerson{{Person: "anna", Part: "subject"}}})
	r.stands(&deploymentv1.WatchState{State: "live", InputOpen: true, Persons: []*deploymentv1.WatchPerson{{Person: "anna", Part: "subject"}}})
	r.stands(&deploymentv1.WatchState{State: "terminated", Cause: emergencyv1.SessionCause_SESSION_CAUSE_IDLE, InputDiscarded: 3})
	if err := r.ended(t); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"state   live, input open, subject anna\n", "state   terminated: idle, input shut, 3 bytes of it thrown away\n"} {
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("%q is not there once:\n%s", want, out.String())
		}
	}
}

func TestPlainWatchTakesOrders(t *testing.T) {
	t.Parallel()
	in, orders := io.Pipe()
	a, out := plainApp(in)
	r := newWatchRig(t, a, &viewing{plain: true})
	r.fails = func(cmd procedure.Command) error {
		if _, ok := cmd.(*emergencyv1.TerminateRequest); ok {
			return errors.New("the log is away")
		}
		return nil
	}
	r.start(t)
	r.welcomed(t, watcherMode)
	order := func(line string) procedure.Command {
		if _, err := io.WriteString(orders, line+"\n"); err != nil {
			t.Fatal(err)
		}
		return r.command(t)
	}
	if c, ok := order("freeze").(*emergencyv1.FreezeRequest); !ok || c.GetGrant() != "G1" || c.GetCause() != emergencyv1.SessionCause_SESSION_CAUSE_WATCHER {
		t.Errorf("freeze: %v", c)
	}
	if c, ok := order("resume").(*emergencyv1.ArmWatchRequest); !ok { // the watch is armed again first
		t.Errorf("resume: %v", c)
	}
	if c, ok := r.command(t).(*emergencyv1.ResumeRequest); !ok {
		t.Errorf("resume: %v", c)
	}
	if c, ok := order("note he looks at  the lock").(*emergencyv1.MarkSessionRequest); !ok || c.GetText() != "he looks at  the lock" {
		t.Errorf("note: %v", c)
	}
	if c, ok := order("presence").(*emergencyv1.ArmWatchRequest); !ok {
		t.Errorf("presence: %v", c)
	}
	if c, ok := order("kill").(*emergencyv1.TerminateRequest); !ok {
		t.Errorf("kill: %v", c)
	}
	if c, ok := r.command(t).(*emergencyv1.DisableRequest); !ok { // although the first one failed
		t.Errorf("kill: %v", c)
	}
	if _, err := io.WriteString(orders, "nonsense\n"); err != nil {
		t.Fatal(err)
	}
	out.until(t, `you     refused: "nonsense" is no order`)
	out.until(t, "you     refused: the log is away")
	if _, err := io.WriteString(orders, "leave\n"); err != nil {
		t.Fatal(err)
	}
	if err := r.ended(t); !errors.Is(err, errLeft) {
		t.Errorf("left: %v", err)
	}
}

// TestAKillIsSeenThrough: the session is over before its access is disabled, and the view with it.
func TestAKillIsSeenThrough(t *testing.T) {
	t.Parallel()
	in, orders := io.Pipe()
	a, _ := plainApp(in)
	r := newWatchRig(t, a, &viewing{plain: true})
	over := make(chan struct{})
	r.fails = func(cmd procedure.Command) error {
		if _, ok := cmd.(*emergencyv1.DisableRequest); ok {
			<-over
		}
		return nil
	}
	r.start(t)
	r.welcomed(t, watcherMode)
	if _, err := io.WriteString(orders, "kill\n"); err != nil {
		t.Fatal(err)
	}
	r.command(t)
	r.command(t)
	r.stands(&deploymentv1.WatchState{State: "terminated"})
	if err := r.ended(t); err != nil {
		t.Fatal(err)
	}
	close(over)
	r.finish()
	if r.killed != "kill: ended and disabled" {
		t.Errorf("what became of it: %q", r.killed)
	}
}

// TestAnObserverRenewsNothing: who looks on neither keeps a session alive nor acknowledges.
func TestAnObserverRenewsNothing(t *testing.T) {
	t.Parallel()
	a, _ := plainApp(nil)
	r := newWatchRig(t, a, &viewing{plain: true, observe: true})
	r.start(t)
	r.welcomed(t, deploymentv1.WatchMode_WATCH_MODE_OBSERVER)
	r.output(5, "hello")
	close(r.down)
	if err := r.ended(t); err != nil {
		t.Fatal(err)
	}
	select {
	case m := <-r.up:
		t.Errorf("an observer sent %v", m)
	default:
	}
}

// TestALostStreamIsOpenedAgain: everything comes once more from the first byte, and is acknowledged once more.
func TestALostStreamIsOpenedAgain(t *testing.T) {
	t.Parallel()
	a, out := plainApp(nil)
	r := newWatchRig(t, a, &viewing{plain: true})
	r.start(t)
	r.welcomed(t, watcherMode)
	r.output(5, "hello")
	r.renewal(t, "shown", func(m *deploymentv1.WatchRenewal) bool { return m.GetRendered() == 5 })
	r.cut <- status.Error(codes.Unavailable, "network")
	for m := r.next(t); m.GetHello() == nil; m = r.next(t) {
	}
	r.down <- &deploymentv1.WatchResponse{Message: &deploymentv1.WatchResponse_Welcome{Welcome: &deploymentv1.WatchWelcome{Mode: watcherMode, RenewEveryMs: 10}}}
	r.renewal(t, "nothing shown of the new stream", func(m *deploymentv1.WatchRenewal) bool { return m.GetRendered() == 0 })
	r.output(5, "hello")
	r.renewal(t, "shown again", func(m *deploymentv1.WatchRenewal) bool { return m.GetRendered() == 5 })
	r.cut <- status.Error(codes.PermissionDenied, "not you")
	if err := r.ended(t); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a refusal was tried again: %v", err)
	}
	if !strings.Contains(out.String(), "the connection is lost") {
		t.Error("the loss was not said")
	}
}

// TestWhatWasNotWrittenIsNotAcknowledged: a terminal that is gone has shown nothing.
func TestWhatWasNotWrittenIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	a, _ := plainApp(nil)
	r := newWatchRig(t, a, &viewing{plain: true})
	r.view = brokenView{plainView: &plainView{app: a}}
	go func() { r.done <- r.run(t.Context()) }()
	r.welcomed(t, watcherMode)
	r.output(5, "hello")
	for {
		select {
		case err := <-r.done:
			if err == nil || !strings.Contains(err.Error(), "no terminal") {
				t.Errorf("the view went on: %v", err)
			}
			return
		case m := <-r.up:
			if m.GetRenewal().GetRendered() > 0 {
				t.Errorf("acknowledged %v", m)
			}
		case <-time.After(patience):
			t.Fatal("the view goes on")
		}
	}
}

type brokenView struct{ *plainView }

func (brokenView) frame(*deploymentv1.WatchFrame) error { return errors.New("no terminal") }

func TestStatusLine(t *testing.T) {
	t.Parallel()
	a, _ := plainApp(nil)
	now := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	a.proc.Now = func() time.Time { return now }
	v := &screenView{app: a, grant: "G1", mode: watcherMode}
	v.fresh(80, 24)
	v.st = &deploymentv1.WatchState{
		State: "frozen", Cause: emergencyv1.SessionCause_SESSION_CAUSE_LEASE_LOST, GraceUntil: timestamppb.New(now.Add(48 * time.Second)),
		EndsAt: timestamppb.New(now.Add(54 * time.Minute)), PresenceUntil: timestamppb.New(now.Add(4*time.Minute + 10*time.Second)),
		Persons: []*deploymentv1.WatchPerson{{Person: "carla", Part: "watcher"}, {Person: "an\x1bna", Part: "subject"}},
	}
	want := `G1 FROZEN: lease lost  input shut  ENDS in 0:48  left 54:00  present (p) by 4:10  watcher carla  subject an\x1bna  Ctrl-\ h`
	if got := v.statusLine(200, 40); !strings.Contains(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := v.statusLine(60, 20); !strings.Contains(got, "ENLARGE to 80x25") {
		t.Errorf("too small a terminal is not said: %q", got)
	}
	v.note("frozen")
	if got := v.statusLine(80, 24); !strings.Contains(got, " frozen  ") {
		t.Errorf("%q", got)
	}
	now = now.Add(time.Minute)
	if got := v.statusLine(80, 24); !strings.Contains(got, "FROZEN") {
		t.Errorf("what was said stays: %q", got)
	}
}
