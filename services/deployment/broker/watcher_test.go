// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/recording"
	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/deployment/broker/brokertest"
)

// Who watches, and what happens when nobody does.

// N3: nothing before the watcher is there and has confirmed, neither a session nor a key that is typed early.
func TestN03NothingBeforeTheWatcher(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	k := r.fetch()
	if out := r.ssh(k).ends(); !strings.Contains(out, broker.ReasonWatcherAbsent) {
		t.Error(out)
	}
	// A stream that was opened and has not confirmed yet is not a watcher.
	w, err := r.Broker.Watch(t.Context(), brokertest.Ref, brokertest.Watcher, broker.ModeWatcher)
	must(t, err)
	defer w.Close()
	if out := r.ssh(k).ends(); !strings.Contains(out, broker.ReasonWatcherAbsent) {
		t.Error(out)
	}
	// Neither is a person who has not armed, nor an observer.
	_, err = r.Broker.Watch(t.Context(), brokertest.Ref, "ca-2", broker.ModeWatcher)
	refusedBy(t, err, broker.ReasonWatcherRole)
	r.watchAs("ca-2", broker.ModeObserver)
	if out := r.ssh(k).ends(); !strings.Contains(out, broker.ReasonWatcherAbsent) {
		t.Error(out)
	}
	r.untouched()
	if n := len(events[brokertest.ConnectRefused](r)); n != 3 {
		t.Errorf("%d refused attempts are recorded", n)
	}
}

// late are rules that wait for a watcher who is not there yet, as long as the test lets them.
type late struct {
	broker.Rules
	asked, there chan struct{}
}

func (l *late) Connect(ctx context.Context, ref broker.Ref, a broker.Attempt) error {
	if !a.Present {
		close(l.asked)
		<-l.there
		a.Present = true
	}
	return l.Rules.Connect(ctx, ref, a)
}

// N3: a watcher who comes while the rules wait for one finds the session that the credential was used for.
func TestN03WatcherComesWhileTheRulesWait(t *testing.T) {
	t.Parallel()
	rules := &late{asked: make(chan struct{}), there: make(chan struct{})}
	r := newRig(t, func(c *broker.Config) { rules.Rules, c.Rules = c.Rules, rules })
	c := r.ssh(r.fetch())
	<-rules.asked
	e := r.watch()
	close(rules.there)
	e.state(broker.StateLive)
	c.typed("echo $((40+2))\n")
	e.sees("42")
}

// A credential that another process has used leads to no second session here, whoever asks to watch.
func TestUsedElsewhereIsNotWatched(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	g := r.Grant(brokertest.Ref)
	g.Consumed = true
	r.Rules.Put(g)
	for person, mode := range map[string]broker.Mode{brokertest.Watcher: broker.ModeWatcher, "ca-2": broker.ModeObserver} {
		_, err := r.Broker.Watch(t.Context(), brokertest.Ref, person, mode)
		refusedBy(t, err, broker.ReasonGrantState)
	}
	if st, ok := r.Broker.Status(brokertest.Ref); ok {
		t.Errorf("a session was made: %+v", st)
	}
}

func TestN03WhatIsTypedBeforeTheOpeningIsDiscarded(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	hold := make(chan struct{})
	r.Host.Hold("open", hold)
	e := r.watch()
	mark := filepath.Join(t.TempDir(), "mark")
	c := r.ssh(r.fetch())
	e.state(broker.StateOpening)
	c.typed("touch " + mark + "\n")
	r.status("discarded what was typed", func(s broker.Status) bool { return s.Discarded > 0 })
	close(hold)
	e.state(broker.StateLive)
	c.typed("echo $((40+2))\n")
	e.sees("42")
	if _, err := os.Stat(mark); err == nil {
		t.Error("what was typed early ran")
	}
	m := event(r, func(m broker.Mark) bool { return m.Kind == broker.MarkGap })
	if m.Bytes != int64(len("touch "+mark+"\n")) {
		t.Errorf("%+v", m)
	}
}

// N4: the watcher's network drops, and comes back. The session is frozen, not locked up: the same person resumes it.
func TestN04WatcherComesBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	r.clock.Advance(5*time.Second + 2*time.Millisecond) // no sign of life
	frozen := event[broker.Freezing](r, nil)
	if frozen.Cause != broker.CauseLease || frozen.Mode != broker.FreezeProcess {
		t.Errorf("%+v", frozen)
	}
	c.shows("frozen")
	again := r.watch() // a new stream, while the old one hangs
	must(t, r.resume())
	again.state(broker.StateLive)
	c.typed("echo $((40+2))\n")
	again.sees("42")
	e.sees("42")
}

// N5: a freeze that comes while the session is being resumed counts, from before the resumption is recorded until the gate would open: the
// processes are frozen again, and the history has both, in order.
func TestFrozenWhileResumed(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"while it is recorded", "while the host lets go", "while the host fails to"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			c, _ := r.open()
			r.freeze()
			first := event[broker.Freezing](r, nil)
			hold, reached := make(chan struct{}), make(chan struct{})
			if when != "while it is recorded" {
				r.Host.Hold("thaw", hold)
			}
			if when == "while the host fails to" {
				r.Host.Fail("thaw", errors.New("out of order"))
			}
			resumed := make(chan error, 1)
			go func() {
				resumed <- r.Broker.Resume(context.Background(), brokertest.Ref, brokertest.Watcher, "seen", func(ctx context.Context) error {
					if when == "while it is recorded" {
						close(reached)
						<-hold
					}
					return r.Rules.Resume(ctx, brokertest.Ref)
				})
			}()
			if when == "while it is recorded" {
				<-reached
			} else {
				r.status("the host is told to let go", func(broker.Status) bool { return slices.Contains(r.Host.Calls(), "thaw") })
			}
			r.clock.Advance(time.Millisecond)
			frozen := make(chan error, 1)
			go func() {
				_, err := r.Broker.Freeze(context.Background(), brokertest.Ref, broker.CauseWatcher, func(ctx context.Context, f broker.Freezing) error {
					return r.Rules.Freeze(ctx, brokertest.Ref, f)
				})
				frozen <- err
			}()
			r.status("frozen anew", func(s broker.Status) bool { return s.State == broker.StateFrozen && s.Since.After(first.At) })
			close(hold)
			var no *broker.Refusal
			if err := <-resumed; !errors.As(err, &no) || no.Reason != broker.ReasonGrantState {
				t.Errorf("resumed: %v", err)
			}
			must(t, <-frozen)
			event(r, func(f broker.Freezing) bool { return f.At.After(first.At) && f.Mode == broker.FreezeProcess })
			if calls := r.Host.Calls(); calls[len(calls)-1] != "freeze" {
				t.Errorf("the host was last told to %v", calls)
			}
			c.typed("echo never\n")
			r.status("discarded", func(s broker.Status) bool { return s.State == broker.StateFrozen && s.Discarded > 0 })
			r.Host.Fail("thaw", nil)
			must(t, r.resume())
		})
	}
}

// N5: what is typed during a pause is not kept and run by the resumption. N8: neither is Ctrl-C.
func TestN05FrozenInputIsDiscarded(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	mark := filepath.Join(t.TempDir(), "mark")
	c.typed("echo ready-$((1+1))\n")
	e.sees("ready-2")
	if f := r.freeze(); f.Mode != broker.FreezeProcess {
		t.Errorf("%+v", f)
	}
	typed := "touch " + mark + "\n\x03" + strings.Repeat("touch "+mark+"\n", 10_000)
	c.typed(typed)
	r.status("all discarded", func(s broker.Status) bool { return s.Discarded == int64(len(typed)) })
	must(t, r.resume())
	c.typed("echo after-$((1+1))\n")
	e.sees("after-2")
	if _, err := os.Stat(mark); err == nil {
		t.Error("what was typed during the freeze ran")
	}
	seen, _ := e.Seen()
	if gaps := bodies[recording.Discarded](seen); len(gaps) != 1 || gaps[0].Bytes != int64(len(typed)) {
		t.Errorf("%+v", gaps)
	}
}

// N5: the same while the target does not read, so that input of the time before is stuck on the way when the freeze comes: what
// had not left the gateway does not run either, and what is typed behind it is not caught in its buffers.
func TestN05StuckInputIsDiscarded(t *testing.T) {
	t.Parallel()
	t.Run("frozen", func(t *testing.T) {
		t.Parallel()
		stuckInput(t, func(r *rig, _ *eyes) { r.freeze() }, func(r *rig, _ *eyes) { must(t, r.resume()) })
	})
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		stuckInput(t, func(r *rig, _ *eyes) { r.clock.Advance(time.Second + 2*time.Millisecond) }, func(_ *rig, e *eyes) { must(t, e.Renew(false)) })
	})
}

func stuckInput(t *testing.T, shut, open func(*rig, *eyes)) {
	t.Helper()
	r := newRig(t, nil)
	c, e := r.open()
	goOn := filepath.Join(t.TempDir(), "go-on")
	c.typed("stty -icanon -echo; echo stuck-$((1+1)); while [ ! -e " + goOn + " ]; do sleep 0.1; done; sed -n /STOP/q; echo drained-$((1+1))\n")
	e.sees("stuck-2")
	const lines = 16 << 10 // 16 MiB, more than all buffers on the way hold
	written := make(chan struct{})
	go func() {
		defer close(written)
		line := []byte(strings.Repeat("x", 1023) + "\n")
		for range lines {
			if _, err := c.stdin.Write(line); err != nil {
				return
			}
		}
	}()
	before := r.stuck(e)
	shut(r, e)
	<-written // the reader goes on, whatever the target does, until all has arrived but what waits in the queue
	last, same := int64(0), 0
	r.status("discarding what was typed", func(s broker.Status) bool { // all of it: what the client and the network still hold comes after the rest
		if same++; s.Discarded != last {
			last, same = s.Discarded, 0
		}
		return s.Discarded >= lines<<10-before-80<<10 && same >= 500
	})
	if now := forwarded(e); now != before {
		t.Errorf("%d bytes were forwarded while the gate was shut", now-before)
	}
	open(r, e)
	must(t, os.WriteFile(goOn, nil, 0o600))
	c.typed("\nSTOP\n")
	e.sees("drained-2")
	if now := forwarded(e); now != before+int64(len("\nSTOP\n")) {
		t.Errorf("%d bytes were forwarded after it that were typed before or during it", now-before)
	}
}

// Acceptance 3: a watcher who only falls silent, as a stopped process or a pulled cable does, stops the input within a second. It is
// discarded, the subject is told once, the history has one gap however many keys it were, and the session goes on by itself when
// the watcher is heard of before the lease is over.
func TestSilentWatcherStopsInput(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	r.clock.Advance(time.Second) // exactly at the limit is still in time
	c.typed("echo in-time-$((1+1))\n")
	e.sees("in-time-2\r\nhere> ")
	r.clock.Advance(time.Millisecond)
	seen := e.until("that nothing is taken", func(s brokertest.Seen) bool { return s.Status.Silent })
	if seen.Status.State != broker.StateLive || !seen.Status.Present {
		t.Errorf("%+v", seen.Status)
	}
	mark := filepath.Join(t.TempDir(), "mark")
	before := forwarded(e)
	const keys = 100
	for n := range keys { // one by one, so that each is judged
		c.typed("touch " + mark + "\n")
		r.status("discarded what was typed", func(s broker.Status) bool { return s.Discarded == int64((n+1)*len("touch "+mark+"\n")) })
	}
	c.shows("what you type is discarded")
	must(t, e.Renew(false))
	gap := event(r, func(m broker.Mark) bool { return m.Kind == broker.MarkGap })
	if gap.Bytes != int64(keys*len("touch "+mark+"\n")) || !strings.Contains(gap.Text, "not heard of") {
		t.Errorf("%+v", gap)
	}
	e.until("that it goes on", func(s brokertest.Seen) bool { return !s.Status.Silent })
	c.shows("heard again")
	c.typed("echo after-$((1+1))\n")
	e.sees("after-2\r\nhere> ")
	if _, err := os.Stat(mark); err == nil {
		t.Error("what was typed in the silence ran")
	}
	if n := forwarded(e) - before; n != int64(len("echo after-$((1+1))\n")) {
		t.Errorf("%d bytes were forwarded", n)
	}
	if n := strings.Count(c.out.String(), "what you type is discarded"); n != 1 {
		t.Errorf("the subject was told %d times", n)
	}
	if gaps := bodies[recording.Discarded](seenBy(e)); len(gaps) != 1 || gaps[0].Bytes != gap.Bytes {
		t.Errorf("%+v", gaps)
	}
	for _, x := range events[broker.Mark](r) {
		if x.Kind == broker.MarkGap && x != gap {
			t.Errorf("another gap: %+v", x)
		}
	}
	if f := events[broker.Freezing](r); len(f) > 0 {
		t.Errorf("%+v", f)
	}
}

// A silence that lasts as long as the lease freezes the session, its processes too; then a sign of life is not enough any more. What
// was discarded before the freeze is told apart from what was discarded in it.
func TestSilenceBeyondTheLeaseFreezes(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	r.clock.Advance(2 * time.Second)
	e.until("that nothing is taken", func(s brokertest.Seen) bool { return s.Status.Silent })
	c.typed("in the silence\n")
	r.status("discarded what was typed", func(s broker.Status) bool { return s.Discarded == int64(len("in the silence\n")) })
	r.clock.Advance(3*time.Second + 2*time.Millisecond)
	if f := event[broker.Freezing](r, nil); f.Cause != broker.CauseLease || f.Mode != broker.FreezeProcess {
		t.Errorf("%+v", f)
	}
	silent := event(r, func(m broker.Mark) bool { return m.Kind == broker.MarkGap })
	if silent.Bytes != int64(len("in the silence\n")) || !strings.Contains(silent.Text, "not heard of") {
		t.Errorf("%+v", silent)
	}
	must(t, e.Renew(false))
	c.typed("frozen\n")
	r.status("discarded what was typed", func(s broker.Status) bool { return s.Discarded == int64(len("in the silence\nfrozen\n")) })
	if s, _ := r.Broker.Status(brokertest.Ref); s.State != broker.StateFrozen || s.Silent {
		t.Errorf("%+v", s)
	}
	must(t, r.resume())
	frozen := event(r, func(m broker.Mark) bool { return m.Kind == broker.MarkGap && m != silent })
	if frozen.Bytes != int64(len("frozen\n")) {
		t.Errorf("%+v", frozen)
	}
	c.typed("echo after-$((1+1))\n")
	e.sees("after-2")
}

// forwarded is how many bytes of input have been recorded and handed on.
func forwarded(e *eyes) int64 {
	n := int64(0)
	for _, x := range bodies[recording.Typed](seenBy(e)) {
		n += int64(x.Length)
	}
	return n
}

// stuck waits until input is forwarded no more because the target reads none, and returns how much was.
func (r *rig) stuck(e *eyes) int64 {
	r.t.Helper()
	last, same := int64(0), 0
	for late := time.Now().Add(patience); same < 50; time.Sleep(10 * time.Millisecond) {
		now := forwarded(e)
		if same++; now != last || now < 64<<10 {
			last, same = now, 0
		}
		if time.Now().After(late) {
			r.t.Fatalf("input does not get stuck: %d bytes", now)
		}
	}
	return last
}

func seenBy(e *eyes) brokertest.Seen {
	s, _ := e.Seen()
	return s
}

// N6: who joins late sees everything, from the first byte.
func TestN06LateJoinerSeesEverything(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	c.typed("head -c 300000 /dev/zero | tr '\\0' 'x'; echo done-$((1+1))\n")
	e.sees("done-2")
	late := r.watchAs("ca-2", broker.ModeObserver)
	late.sees("done-2")
	first, second := seenBy(e), seenBy(late)
	if !strings.HasPrefix(second.Output, first.Output) && !strings.HasPrefix(first.Output, second.Output) || len(second.Output) < 300_000 {
		t.Errorf("the late one has %d bytes, the first %d", len(second.Output), len(first.Output))
	}
}

// N7: persons are counted, not streams, and only the watcher counts.
func TestN07PersonsAreCounted(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	second := r.watch() // the same person
	r.watchAs("ca-2", broker.ModeObserver)
	r.watchAs("ca-2", broker.ModeObserver)
	seen := e.until("all who watch", func(s brokertest.Seen) bool { return len(s.Roster) == 2 })
	for _, p := range seen.Roster {
		if p.Counts != (p.ID == brokertest.Watcher) {
			t.Errorf("%+v", p)
		}
	}
	r.ssh(r.fetch())
	e.state(broker.StateLive)
	e.Close() // one of two streams of the watcher: the person is still there
	second.until("one stream less", func(s brokertest.Seen) bool { return len(s.Roster) == 2 && s.Status.State == broker.StateLive })
	if s, _ := r.Broker.Status(brokertest.Ref); s.State != broker.StateLive || !s.Present {
		t.Fatalf("%+v", s)
	}
	second.Close() // the last one; that of the other person, twice, does not count
	if f := event[broker.Freezing](r, nil); f.Cause != broker.CauseLease {
		t.Errorf("%+v", f)
	}
}

// N8: one Ctrl-C is enough, under a flood of output, and it goes to the target when it is typed.
func TestN08InterruptReachesTheTarget(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	c.typed("yes; echo stopped-$((1+1))\n")
	e.until("a flood", func(s brokertest.Seen) bool { return len(s.Output) > 1<<20 })
	c.typed("\x03")
	c.typed("echo stopped-$((1+1))\n")
	e.sees("stopped-2")
	if s := seenBy(e).Status; s.State != broker.StateLive {
		t.Errorf("%+v", s)
	}
}

// N9: whoever cannot be the watcher is told so at once, and everybody sees who counts.
func TestN09RolesAreClear(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, person := range []string{"ca-2", brokertest.Subject} {
		_, err := r.Broker.Watch(t.Context(), brokertest.Ref, person, broker.ModeWatcher)
		refusedBy(t, err, broker.ReasonWatcherRole)
	}
	_, err := r.Broker.Watch(t.Context(), brokertest.Ref, "ca-2", "moderator")
	refusedBy(t, err, broker.ReasonWatcherRole)
	e := r.watch()
	o := r.watchAs("ca-2", broker.ModeObserver)
	for _, x := range []*eyes{e, o} {
		x.until("both", func(s brokertest.Seen) bool {
			return len(s.Roster) == 2 && s.Roster[0] == broker.Person{ID: brokertest.Watcher, Mode: broker.ModeWatcher, Counts: true} &&
				s.Roster[1] == broker.Person{ID: "ca-2", Mode: broker.ModeObserver}
		})
	}
	// A takeover by name changes who counts, for the running session.
	r.Broker.Armed(brokertest.Ref, "ca-2", r.clock.Now())
	e.until("the takeover", func(s brokertest.Seen) bool { return !s.Roster[0].Counts })
	if s, _ := r.Broker.Status(brokertest.Ref); s.Present {
		t.Errorf("an observer's stream counts: %+v", s)
	}
}

// N33: the session ends when nobody watches any more, not only when it begins.
func TestN33NobodyLeftEndsTheSession(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	o := r.watchAs("ca-2", broker.ModeObserver)
	e.Close()
	event[broker.Freezing](r, nil)
	o.state(broker.StateFrozen)
	r.clock.Advance(time.Minute) // exactly at the limit is still in time
	if s, _ := r.Broker.Status(brokertest.Ref); s.State != broker.StateFrozen {
		t.Fatalf("%+v", s)
	}
	r.clock.Advance(2 * time.Millisecond)
	end := o.ending()
	if end.Cause != broker.CauseGrace || !end.Effect(broker.EffectHost).Done {
		t.Errorf("%+v", end)
	}
	c.ends()
	event[broker.Ending](r, nil)
	if p := r.Host.Processes(brokertest.Ref); len(p) > 0 {
		t.Errorf("%v run on", p)
	}
}

// A watcher whose view is hidden, whose step-up is old, or who does not see the output does not open the gate.
func TestFreezesOfEachCause(t *testing.T) {
	t.Parallel()
	for cause, lose := range map[broker.Cause]func(*rig, *client, *eyes){
		broker.CauseHidden: func(_ *rig, _ *client, e *eyes) { must(t, e.Renew(true)) },
		broker.CausePresence: func(r *rig, _ *client, e *eyes) {
			for range 301 {
				must(t, e.Renew(false))
				r.clock.Advance(time.Second)
				r.anchored()
			}
		},
		broker.CauseWindow: func(r *rig, c *client, e *eyes) {
			c.typed("echo $((1+1))\n")
			e.sees("2")
			e.Blind()
			c.typed("echo unseen-$((1+1))\n")
			e.sees("unseen-2")
			must(t, e.Renew(false))
			r.clock.Advance(3*time.Second + 2*time.Millisecond)
		},
	} {
		t.Run(string(cause), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			c, e := r.open()
			lose(r, c, e)
			if f := event[broker.Freezing](r, nil); f.Cause != cause {
				t.Errorf("%+v", f)
			}
		})
	}
}

// What the rules decided on may be over when the processes are to go on: then nothing goes on, and the history says so.
func TestResumeWithoutWatcherStaysFrozen(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	_, e := r.open()
	r.freeze()
	e.Close()
	if err := r.resume(); err == nil {
		t.Fatal("resumed without a watcher")
	}
	event(r, func(f broker.Freezing) bool { return f.Cause == broker.CauseLease })
	if s, _ := r.Broker.Status(brokertest.Ref); s.State != broker.StateFrozen {
		t.Errorf("%+v", s)
	}
}

// An acknowledgement of what was never sent opens no window.
func TestAcknowledgementOfTheUnsent(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	_, e := r.open()
	e.Blind()
	refusedBy(t, e.Ack(1<<40), broker.ReasonWatcherRole)
}

// Output that hides itself from the watcher's eyes is pointed out in the history.
func TestConcealedOutputIsMarked(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, _ := r.open()
	c.typed("printf '\\033[1;8mhidden\\033[0m\\n'\n")
	event(r, func(m broker.Mark) bool { return m.Kind == broker.MarkConcealed })
}

// gullible rules believe that the watcher is there.
type gullible struct{ broker.Rules }

func (g gullible) Connect(ctx context.Context, ref broker.Ref, a broker.Attempt) error {
	a.Present = true
	return g.Rules.Connect(ctx, ref, a)
}

// The gateway opens nothing without a watcher, even where the rules were told otherwise, and ends the grant that is used up: nobody
// watches, or a stream was opened that has not given a sign of life.
func TestGatewayHasItsOwnEyes(t *testing.T) {
	t.Parallel()
	for _, silent := range []bool{false, true} {
		r := newRig(t, func(c *broker.Config) { c.Rules = gullible{c.Rules} })
		if silent {
			w, err := r.Broker.Watch(t.Context(), brokertest.Ref, brokertest.Watcher, broker.ModeWatcher)
			must(t, err)
			defer w.Close()
		}
		if text := r.ssh(r.fetch()).ends(); !strings.Contains(text, broker.ReasonWatcherAbsent) {
			t.Error(text)
		}
		if end := event[broker.Ending](r, nil); end.Cause != broker.CauseOpen || end.Opened {
			t.Errorf("%+v", end)
		}
		if calls := r.Host.Calls(); slices.Contains(calls, "open") {
			t.Errorf("the host was asked: %v", calls)
		}
	}
}
