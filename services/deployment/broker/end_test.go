// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"cacert.org/emergency/pkg/recording"
	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/deployment/broker/brokertest"
)

// Ends: from each place, under load, with parts that fail.

var errBroken = errors.New("broken for the test")

// flood brings a session under an output flood.
func (r *rig) flood() (*client, *eyes) {
	r.t.Helper()
	c, e := r.open()
	c.typed("yes\n")
	e.until("a flood", func(s brokertest.Seen) bool { return len(s.Output) > 1<<20 })
	return c, e
}

// caller is where a call's context has who calls.
type caller struct{}

// Acceptance 3: ended from the API and the CLI (which both come here), by the watcher's chord, which is the same command from the
// watcher's client, and by the subject, under a flood of output: the gate is shut at once, the channels are closed, the processes
// are verified gone.
func TestEndedFromEachPlaceUnderAFlood(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*rig, *client){
		"command": func(r *rig, _ *client) {
			_, err := r.Broker.Terminate(r.t.Context(), brokertest.Ref, broker.CauseKilled, "ca-2", "from the command line", nil)
			must(r.t, err)
		},
		"chord": func(r *rig, _ *client) { // by a watcher who goes at once; it is recorded in the watcher's name all the same
			ctx, leave := context.WithCancel(context.WithValue(r.t.Context(), caller{}, brokertest.Watcher))
			leave()
			_, err := r.Broker.Terminate(ctx, brokertest.Ref, broker.CauseKilled, brokertest.Watcher, "chord", func(ctx context.Context, e broker.Ending) error {
				if ctx.Value(caller{}) != brokertest.Watcher || ctx.Err() != nil {
					r.t.Errorf("recorded by %v: %v", ctx.Value(caller{}), ctx.Err())
				}
				return r.Rules.Terminate(ctx, brokertest.Ref, e)
			})
			must(r.t, err)
		},
		"subject": func(r *rig, c *client) { must(r.t, c.cmd.Process.Kill()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			c, e := r.flood()
			if p := r.Host.Processes(brokertest.Ref); len(p) < 2 {
				t.Fatalf("nothing runs: %v", p)
			}
			end(r, c)
			ended := e.ending()
			for _, x := range ended.Effects {
				if !x.Done {
					t.Errorf("%+v", x)
				}
			}
			if len(ended.Effects) != 6 {
				t.Errorf("%+v", ended.Effects)
			}
			t.Logf("effects: %+v", ended.Effects)
			c.ends()
			if p := r.Host.Processes(brokertest.Ref); len(p) > 0 {
				t.Errorf("%v run on", p)
			}
			event[broker.Ending](r, nil)
			if report := r.verify(); report.State != recording.Complete {
				t.Errorf("%+v", report)
			}
		})
	}
}

// N15: a freeze that fails does not stop the end; a host that does not answer is not reported as done, and stops no other
// effect; and it is told again.
func TestN15FailingEffectsAreTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.flood()
	r.Host.Fail("freeze", errBroken)
	if f := r.freeze(); f.Mode != broker.FreezeInput || !strings.Contains(f.Problem, errBroken.Error()) {
		t.Errorf("%+v", f)
	}
	r.Host.Fail("freeze", nil)
	event(r, func(m broker.Mark) bool { return m.Kind == broker.MarkFrozen }) // told again until it did
	r.Host.Fail("end", errBroken)
	_, err := r.Broker.Terminate(t.Context(), brokertest.Ref, broker.CauseKilled, brokertest.Watcher, "", nil)
	must(t, err)
	ended := e.ending()
	for _, x := range ended.Effects {
		if x.Done != (x.Name != broker.EffectHost) {
			t.Errorf("%+v", x)
		}
	}
	c.ends()
	r.Host.Fail("end", nil)
	again, err := r.Broker.Disable(t.Context(), brokertest.Ref, brokertest.Watcher)
	must(t, err)
	if len(again) != 2 || !again[0].Done || !again[1].Done {
		t.Errorf("%+v", again)
	}
	if p := r.Host.Processes(brokertest.Ref); len(p) > 0 {
		t.Errorf("%v run on", p)
	}
}

// N15: a host that hangs costs no other effect its time.
func TestN15HangingHostHoldsNothingUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, _ := r.open()
	r.Host.Hold("end", make(chan struct{}))
	done := make(chan broker.Ending, 1)
	go func() {
		ended, _ := r.Broker.Terminate(context.WithoutCancel(t.Context()), brokertest.Ref, broker.CauseKilled, "", "", nil)
		done <- ended
	}()
	c.ends()
	ended := <-done
	if x := ended.Effect(broker.EffectHost); x.Done || !strings.Contains(x.Problem, "not known") {
		t.Errorf("%+v", x)
	}
	if !ended.Effect(broker.EffectTarget).Done || !ended.Effect(broker.EffectRecording).Done {
		t.Errorf("%+v", ended.Effects)
	}
}

// N16: limits that are no limits are refused, and idle means what it says.
func TestN16LimitsAreChecked(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for name, change := range map[string]func(*broker.Limits){
		"lease": func(l *broker.Limits) { l.Lease = 0 }, "grace": func(l *broker.Limits) { l.Grace = -1 },
		"presence": func(l *broker.Limits) { l.Presence = 0 }, "max": func(l *broker.Limits) { l.Max = 0 },
		"idle": func(l *broker.Limits) { l.Idle = -time.Minute }, "window": func(l *broker.Limits) { l.Window = 0 },
		"age": func(l *broker.Limits) { l.WindowAge = 0 }, "recording": func(l *broker.Limits) { l.Recording = 0 },
		"anchor": func(l *broker.Limits) { l.Anchor = 0 },
	} {
		ref := broker.Ref{Incident: "e20261124.9", Grant: name}
		g := r.Grant(ref)
		change(&g.Limits)
		r.Rules.Put(g)
		if _, err := r.Broker.Watch(t.Context(), ref, brokertest.Watcher, broker.ModeWatcher); err == nil {
			t.Errorf("%s: a session without that limit", name)
		}
	}
}

func TestN16IdleSessionEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	c.typed("echo $((40+2))\n")
	e.sees("42\r\nhere> ")
	r.pass(e, 9*time.Minute)
	c.typed("echo $((1+1))-again\n") // what is typed counts anew
	e.sees("2-again\r\nhere> ")
	r.pass(e, 9*time.Minute)
	if s, _ := r.Broker.Status(brokertest.Ref); s.State != broker.StateLive {
		t.Fatalf("%+v", s)
	}
	r.passUntilEnd(e, 2*time.Minute)
	if end := e.ending(); end.Cause != broker.CauseIdle {
		t.Errorf("%+v", end)
	}
	c.ends()
}

// passUntilEnd is pass for a time in which the session ends.
func (r *rig) passUntilEnd(e *eyes, d time.Duration) {
	for range int(d / time.Second) {
		_ = e.Renew(false)
		r.Broker.Armed(brokertest.Ref, brokertest.Watcher, r.clock.Now())
		r.clock.Advance(time.Second)
	}
}

func TestLongestSessionEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	g := r.Grant(brokertest.Ref)
	g.Max = 2 * time.Minute
	r.Rules.Put(g)
	c, e := r.open()
	r.pass(e, 110*time.Second)
	must(t, r.Broker.Extend(brokertest.Ref, brokertest.Watcher, time.Minute, 0))
	r.pass(e, 65*time.Second)
	r.passUntilEnd(e, 10*time.Second)
	if end := e.ending(); end.Cause != broker.CauseMax {
		t.Errorf("%+v", end)
	}
	c.ends()
}

// N20: processes outside of the terminal are the agent's to find (services/agent/session); here: the host is told to end
// the session whatever ended it, and what it says is told.
func TestN20HostIsToldOfEveryEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	r.Host.Fail("end", errors.New("pid 4711 (nohup) is left"))
	c.typed("exit\n")
	if x := e.ending().Effect(broker.EffectHost); x.Done || !strings.Contains(x.Problem, "4711") {
		t.Errorf("%+v", x)
	}
}

// N25: a lost connection ends the grant, and the session is live nowhere any more.
func TestN25LostConnectionEndsTheGrant(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	k := r.fetch()
	c := r.ssh(k)
	e.state(broker.StateLive)
	must(t, c.cmd.Process.Signal(syscall.SIGKILL))
	end := e.ending()
	if end.Cause != broker.CauseConnection {
		t.Errorf("%+v", end)
	}
	event[broker.Ending](r, nil)
	if s, _ := r.Broker.Status(brokertest.Ref); s.State != broker.StateEnded {
		t.Errorf("%+v", s)
	}
	if p := r.Host.Processes(brokertest.Ref); len(p) > 0 {
		t.Errorf("%v run on", p)
	}
	if text := r.ssh(k).ends(); !strings.Contains(text, broker.ReasonGrantState) {
		t.Errorf("connected again: %s", text)
	}
}

// N25: the same if only the channel is closed, and the connection is kept.
func TestN25ClosedChannelEndsTheGrant(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	g := r.dial(r.fetch())
	g.shell()
	e.state(broker.StateLive)
	must(t, g.channel.Close())
	if end := e.ending(); end.Cause != broker.CauseConnection || !end.Effect(broker.EffectHost).Done {
		t.Errorf("%+v", end)
	}
}

// A log that stores the consumption and whose answer is lost leaves a used credential without a session: that is found out, and
// the grant ended.
func TestLostAnswerEndsTheGrant(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	k := r.fetch()
	r.Rules.SetLost(true)
	if text := r.ssh(k).ends(); strings.Contains(text, "here>") {
		t.Error(text)
	}
	if end := e.ending(); end.Cause != broker.CauseOpen || end.Opened {
		t.Errorf("%+v", end)
	}
	event[broker.Ending](r, nil)
	if calls := r.Host.Calls(); slices.Contains(calls, "open") {
		t.Errorf("the host was asked: %v", calls)
	}
}

// A grant that nobody used lapses without a record of the gateway's: the rules say that by themselves. So does one whose gateway
// stops, which another can let in.
func TestUnusedGrantLapses(t *testing.T) {
	t.Parallel()
	for name, lapse := range map[string]func(*rig){
		"first use over": func(r *rig) { r.clock.Advance(10*time.Minute + 2*time.Millisecond) },
		"gateway stops":  func(r *rig) { must(r.t, r.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			e := r.watch()
			lapse(r)
			e.ending()
			if all, _ := r.Rules.Events(brokertest.Ref); len(all) > 0 {
				t.Errorf("%+v", all)
			}
			if calls := r.Host.Calls(); len(calls) > 0 {
				t.Errorf("the host was asked: %v", calls)
			}
		})
	}
}

// N32: what persons do to a session is recorded, also if the log is away at that moment: acts that lessen access do not wait.
func TestN32ActsAreRecordedLater(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	r.Rules.SetDown(true)
	record := func(context.Context, broker.Freezing) error { return brokertest.ErrDown }
	_, err := r.Broker.Freeze(t.Context(), brokertest.Ref, broker.CauseWatcher, record)
	must(t, err)
	e.state(broker.StateFrozen)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = r.Broker.Terminate(context.WithoutCancel(t.Context()), brokertest.Ref, broker.CauseKilled, brokertest.Watcher, "",
			func(context.Context, broker.Ending) error { return brokertest.ErrDown })
	}()
	c.ends()
	<-ended
	if n := len(events[broker.Ending](r)); n != 0 {
		t.Fatal("the log is not down")
	}
	r.Rules.SetDown(false)
	if x := event[broker.Ending](r, nil); x.By != brokertest.Watcher || x.Cause != broker.CauseKilled {
		t.Errorf("%+v", x)
	}
	if x := event[broker.Freezing](r, nil); x.Cause != broker.CauseWatcher {
		t.Errorf("%+v", x)
	}
}

// N34: while the history cannot be asked, nothing opens; and what was ended here stays shut although the history does not say
// so yet.
func TestN34NothingOpensOnAStaleView(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	k := r.fetch()
	r.Rules.SetDown(true)
	if text := r.ssh(k).ends(); strings.Contains(text, "here>") {
		t.Error(text)
	}
	if _, err := r.Broker.Watch(t.Context(), brokertest.Ref, brokertest.Watcher, broker.ModeWatcher); err == nil {
		t.Error("watching begins while the log is down")
	}
	_, err := r.Broker.Terminate(t.Context(), brokertest.Ref, broker.CauseKilled, brokertest.Watcher, "", nil)
	must(t, err)
	e.ending()
	if text := r.ssh(k).ends(); !strings.Contains(text, broker.ReasonGrantState) {
		t.Error(text)
	}
	r.Rules.SetDown(false)
	event[broker.Ending](r, nil)
	r.untouched()
}

// The proof: both credentials are tried again, and refused by whom they would open.
func TestProvenUnusable(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	c.typed("exit\n")
	e.ending()
	_, err := r.Broker.Disable(t.Context(), brokertest.Ref, brokertest.Watcher)
	must(t, err)
	p, err := r.Broker.Prove(t.Context(), brokertest.Ref)
	must(t, err)
	if !p.Gateway.Tried || !p.Gateway.Refused || !strings.Contains(p.Gateway.Answer, broker.ReasonGrantState) {
		t.Errorf("%+v", p.Gateway)
	}
	if !p.Host.Tried || !p.Host.Refused {
		t.Errorf("%+v", p.Host)
	}
}

// A key that still opens the target is found, and an attempt that reached nobody proves nothing.
func TestStillUsableIsFound(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	line, err := os.ReadFile(r.Host.Keys)
	must(t, err)
	c.typed("exit\n")
	e.ending()
	must(t, os.WriteFile(r.Host.Keys, line, 0o600)) // as somebody might, or a host that lies
	p, err := r.Broker.Prove(t.Context(), brokertest.Ref)
	must(t, err)
	if !p.Host.Tried || p.Host.Refused {
		t.Errorf("%+v", p.Host)
	}
	r.Sshd.Close()
	p, err = r.Broker.Prove(t.Context(), brokertest.Ref)
	must(t, err)
	if p.Host.Tried || p.Host.Refused {
		t.Errorf("%+v", p.Host)
	}
}

// Rules that would accept an ended grant are found by the proof, without opening anything.
func TestAcceptingRulesAreFound(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.watch()
	p, err := r.Broker.Prove(t.Context(), brokertest.Ref) // not ended at all
	must(t, err)
	if !p.Gateway.Tried || p.Gateway.Refused {
		t.Errorf("%+v", p.Gateway)
	}
	if len(r.Host.Calls()) > 0 {
		t.Errorf("%v", r.Host.Calls())
	}
}

// After a restart, grants of which the history says that they are in use, and of which nobody knows a session, are ended.
func TestRecoverEndsWhatIsLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	left := broker.Ref{Incident: "e20261124.7", Grant: "G2"}
	grant := r.Grant(left)
	r.Rules.Put(grant)
	ended := r.Broker.Recover(t.Context(), "the gateway was restarted", []broker.Grant{grant})
	if len(ended) != 1 || ended[0].Cause != broker.CauseGateway || !ended[0].Effect(broker.EffectHost).Done {
		t.Fatalf("%+v", ended)
	}
	for late := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if all, _ := r.Rules.Events(left); len(all) == 1 {
			break
		}
		if time.Now().After(late) {
			t.Fatal("the end is not recorded")
		}
	}
	p, err := r.Broker.Prove(t.Context(), left)
	must(t, err)
	if !p.Gateway.Refused || !p.Host.Refused && p.Host.Tried {
		t.Errorf("%+v", p)
	}
}

// A gateway that never had the session's key for the host offers the public half, which the history names: whether the host takes it is
// found all the same. Where it is not named nothing is proven.
func TestProofWithoutTheKey(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	g := r.Grant(broker.Ref{Incident: "e20261124.7", Grant: "G2"})
	g.Consumed = true
	r.Rules.Put(g)
	r.Broker.Recover(t.Context(), "the other gateway is gone", []broker.Grant{g})
	host := func() broker.Trial {
		t.Helper()
		p, err := r.Broker.Prove(t.Context(), g.Ref)
		must(t, err)
		return p.Host
	}
	if x := host(); x.Tried || x.Refused {
		t.Errorf("nobody knows the key: %+v", x)
	}
	key, err := broker.LoadKey(filepath.Join(t.TempDir(), "lost"))
	must(t, err)
	g.TargetKey = key.PublicKey()
	r.Rules.Put(g)
	if x := host(); !x.Tried || !x.Refused {
		t.Errorf("the host does not know the key: %+v", x)
	}
	must(t, os.WriteFile(r.Host.Keys, ssh.MarshalAuthorizedKey(g.TargetKey), 0o600))
	if x := host(); !x.Tried || x.Refused {
		t.Errorf("the host lets the key in: %+v", x)
	}
}

// A gateway that stops ends its sessions and records that.
func TestClosingEndsSessions(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, _ := r.open()
	must(t, r.Close())
	c.ends()
	if x := event[broker.Ending](r, nil); x.Cause != broker.CauseGateway {
		t.Errorf("%+v", x)
	}
}

// A target with another host key than the pinned one is not logged in to.
func TestUnknownHostKeyOpensNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *broker.Config) { c.Targets = otherKey{c.Targets, c.HostKey.PublicKey()} })
	e := r.watch()
	text := r.ssh(r.fetch()).ends()
	end := e.ending()
	if end.Cause != broker.CauseOpen || end.Opened || !strings.Contains(text, "could not be opened") {
		t.Errorf("%+v %s", end, text)
	}
}

// Without an agent an administrator installs the line by hand, and only what is typed can be frozen, which the evidence says.
func TestWithoutAgent(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, method := range []string{"open", "freeze", "thaw", "end"} {
		r.Host.Fail(method, broker.ErrNoAgent)
	}
	e := r.watch()
	c := r.ssh(r.fetch())
	seen := e.until("the line", func(s brokertest.Seen) bool { return strings.Contains(s.Status.Text, "ssh-ed25519") })
	_, line, _ := strings.Cut(seen.Status.Text, ": ")
	must(t, os.WriteFile(r.Host.Keys, []byte(line+"\n"), 0o600))
	e.state(broker.StateLive)
	if o := event[broker.Opening](r, nil); o.HostAgent {
		t.Errorf("%+v", o)
	}
	mark := filepath.Join(t.TempDir(), "mark")
	if f := r.freeze(); f.Mode != broker.FreezeInput || !strings.Contains(f.Problem, "no agent") {
		t.Errorf("%+v", f)
	}
	c.typed("touch " + mark + "\n")
	r.status("discarded", func(s broker.Status) bool { return s.Discarded > 0 })
	must(t, r.resume())
	c.typed("echo $((40+2))\n")
	e.sees("42")
	if _, err := os.Stat(mark); err == nil {
		t.Error("frozen input ran")
	}
	c.typed("exit\n")
	if x := e.ending().Effect(broker.EffectHost); x.Done || !strings.Contains(x.Problem, "by hand") {
		t.Errorf("%+v", x)
	}
}

// A defect in what one session asks ends that session and no other.
func TestDefectEndsOneSession(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *broker.Config) { c.Host = panicking{c.Host} })
	other := broker.Ref{Incident: "e20261124.2", Grant: "G1"}
	r.Rules.Put(r.Grant(other))
	w, err := r.Open(t.Context(), other, brokertest.Watcher, broker.ModeWatcher)
	must(t, err)
	c, e := r.open()
	f, err := r.Broker.Freeze(t.Context(), brokertest.Ref, broker.CauseWatcher, nil)
	if err == nil {
		t.Logf("%+v", f)
	}
	if end := e.ending(); end.Cause != broker.CauseDefect {
		t.Errorf("%+v", end)
	}
	c.ends()
	must(t, w.Renew(false))
	if s, ok := r.Broker.Status(other); !ok || s.State != broker.StateWaiting {
		t.Errorf("%+v", s)
	}
}

// panicking has a defect in freezing.
type panicking struct{ broker.Host }

func (panicking) Freeze(context.Context, broker.Ref, string) error { panic("a defect for the test") }

// A port that nobody speaks ssh on: the handshakes are bounded, and whoever waits outside comes in when they have ended.
func TestSilentConnectionsDoNotStarveOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *broker.Config) { c.MaxHandshakes = 2 })
	for range 2 {
		conn, err := net.Dial("tcp", r.Address)
		must(t, err)
		defer conn.Close()
	}
	e := r.watch()
	c := r.ssh(r.fetch(), "-o", "ConnectTimeout=60") // the silent ones are sent away after ten seconds
	e.state(broker.StateLive)
	c.typed("exit\n")
	c.ends()
}

// otherKey pins another host key.
type otherKey struct {
	broker.Targets
	key ssh.PublicKey
}

func (o otherKey) Target(host string) (broker.Target, error) {
	t, err := o.Targets.Target(host)
	t.HostKey = o.key
	return t, err
}
