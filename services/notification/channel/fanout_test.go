// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// way is a channel whose Send is given.
type way struct {
	name string
	send func(ctx context.Context, p Page) Receipt
}

func (w way) Name() string                             { return w.name }
func (w way) Send(ctx context.Context, p Page) Receipt { return w.send(ctx, p) }
func good(context.Context, Page) Receipt               { return Receipt{State: Sent} }
func hang(ctx context.Context, _ Page) Receipt {
	<-ctx.Done()
	return Receipt{State: Unknown, Detail: "hung"}
}
func later(context.Context, Page) Receipt {
	return Receipt{State: Failed, Temporary: true, Detail: "later"}
}
func page(id string) Page {
	return Page{ID: id, Recipient: Recipient{Person: "p1", Address: "Alice@Example.org"}}
}
func answers(r ...Receipt) func(context.Context, Page) Receipt {
	var mu sync.Mutex
	i := -1
	return func(context.Context, Page) Receipt {
		mu.Lock()
		defer mu.Unlock()
		i = min(i+1, len(r)-1)
		return r[i]
	}
}

// rig is a running Fanout whose outcomes are kept.
type rig struct {
	*Fanout
	stop func()
	mu   sync.Mutex
	all  []Outcome
}

// start runs a Fanout inside the bubble of the test; stop ends it and waits for Run.
func start(t *testing.T, set Settings, channels ...Channel) *rig {
	t.Helper()
	r := &rig{}
	f, err := New(set, System{}, func(o Outcome) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.all = append(r.all, o)
	}, channels...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	var once sync.Once
	r.Fanout, r.stop = f, func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(r.stop)
	return r
}

func (r *rig) submit(t *testing.T, channel string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if rec, ok := r.Submit(channel, page(id)); !ok {
			t.Fatalf("page %s refused: %+v", id, rec)
		}
	}
}

// of are the outcomes of one page.
func (r *rig) of(id string) (out []Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.all {
		if o.Page.ID == id {
			out = append(out, o)
		}
	}
	return out
}

// final is the one final outcome of a page.
func (r *rig) final(t *testing.T, id string) Outcome {
	t.Helper()
	out := r.of(id)
	n := 0
	for _, o := range out {
		if o.Final {
			n++
		}
	}
	if n != 1 || !out[len(out)-1].Final {
		t.Fatalf("page %s: want one final outcome, the last; got %+v", id, out)
	}
	return out[len(out)-1]
}

func TestHangingChannelDelaysNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Settings{Queue: 3, Workers: 1}, way{"mail", hang}, way{"irc", good})
		began := time.Now()
		r.submit(t, "mail", "m1", "m2", "m3")
		r.submit(t, "irc", "i1")
		synctest.Wait()
		if o := r.final(t, "i1"); o.Receipt.State != Sent || !o.At.Equal(began) {
			t.Errorf("irc: %+v, want sent at once", o)
		}
		rec, taken := r.Submit("mail", page("m4"))
		if taken || rec.State != Failed || !rec.Temporary || !time.Now().Equal(began) {
			t.Errorf("full queue: taken %v, %+v", taken, rec)
		}
		if len(r.of("m4")) != 0 {
			t.Error("a refused page was reported as well")
		}
		time.Sleep(3 * 31 * time.Second)
		for _, id := range []string{"m1", "m2", "m3"} {
			if o := r.final(t, id); o.Receipt.State != Unknown || o.Attempt != 1 {
				t.Errorf("%s: %+v, want unknown after one attempt", id, o)
			}
		}
		r.submit(t, "mail", "m4")
	})
}

func TestRetry(t *testing.T) {
	t.Parallel()
	temp := Receipt{State: Failed, Temporary: true, Detail: "451"}
	doubt := Receipt{State: Unknown, Temporary: true, Detail: "no answer"}
	for _, c := range []struct {
		name    string
		answers []Receipt
		states  []State
	}{
		{"sent at once", []Receipt{{State: Sent}}, []State{Sent}},
		{"delivered at once", []Receipt{{State: Delivered}}, []State{Delivered}},
		{"later", []Receipt{temp, temp, {State: Sent}}, []State{Failed, Failed, Sent}},
		{"refused", []Receipt{{State: Failed, Detail: "550"}}, []State{Failed}},
		{"unknown is not repeated", []Receipt{{State: Unknown}, {State: Sent}}, []State{Unknown}},
		{"unknown that may be repeated", []Receipt{doubt, {State: Sent}}, []State{Unknown, Sent}},
		{"a failure after a doubt is a doubt", []Receipt{doubt, {State: Failed, Detail: "400"}}, []State{Unknown, Unknown}},
		{"sent is not repeated even if marked temporary", []Receipt{{State: Sent, Temporary: true}}, []State{Sent}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := start(t, Settings{}, way{"w", answers(c.answers...)})
				r.submit(t, "w", "1")
				time.Sleep(time.Hour)
				var got []State
				for i, o := range r.of("1") {
					got = append(got, o.Receipt.State)
					if o.Attempt != i+1 {
						t.Errorf("outcome %d: attempt %d", i, o.Attempt)
					}
				}
				if fmt.Sprint(got) != fmt.Sprint(c.states) {
					t.Errorf("states %v, want %v", got, c.states)
				}
				r.final(t, "1")
			})
		})
	}
}

func TestRetryEndsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Settings{GiveUp: time.Minute}, way{"w", later})
		began := time.Now()
		r.submit(t, "w", "1")
		time.Sleep(time.Hour)
		o := r.final(t, "1")
		if o.Receipt.State != Failed || !o.Receipt.Temporary || o.Attempt < 3 || o.At.Sub(began) > time.Minute {
			t.Errorf("after %s: %+v", o.At.Sub(began), o)
		}
	})
}

func TestRetryAfterIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		busy := Receipt{State: Failed, Temporary: true, RetryAfter: 90 * time.Second}
		never := Receipt{State: Failed, Temporary: true, RetryAfter: time.Hour}
		r := start(t, Settings{}, way{"w", answers(busy, Receipt{State: Sent})}, way{"never", answers(never)})
		began := time.Now()
		r.submit(t, "w", "1")
		r.submit(t, "never", "2")
		time.Sleep(time.Hour)
		if o := r.final(t, "1"); o.At.Sub(began) < 90*time.Second || o.Receipt.State != Sent {
			t.Errorf("%+v after %s", o, o.At.Sub(began))
		}
		if o := r.final(t, "2"); !o.At.Equal(began) {
			t.Errorf("a pause longer than the bound is final at once, got %+v", o)
		}
	})
}

func TestWaitingPageBlocksNoWorker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		send := func(ctx context.Context, p Page) Receipt {
			if p.ID == "grey" {
				return later(ctx, p)
			}
			return good(ctx, p)
		}
		r := start(t, Settings{Workers: 1}, way{"w", send})
		began := time.Now()
		r.submit(t, "w", "grey", "good")
		synctest.Wait()
		if o := r.final(t, "good"); !o.At.Equal(began) {
			t.Errorf("the other page waited until %s", o.At.Sub(began))
		}
	})
}

func TestPageBehindHangingOnesIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		set := Settings{Workers: 1, Attempt: time.Minute, GiveUp: 30 * time.Second}
		r := start(t, set, way{"w", hang})
		began := time.Now()
		r.submit(t, "w", "1", "2", "3")
		time.Sleep(time.Hour)
		for _, id := range []string{"2", "3"} {
			o := r.final(t, id)
			if o.Receipt.State != Failed || !o.Receipt.Temporary || o.Attempt != 0 || o.At.Sub(began) > set.GiveUp+set.Attempt {
				t.Errorf("after %s: %+v", o.At.Sub(began), o)
			}
		}
	})
}

func TestSamePageIsTakenOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Settings{}, way{"w", hang})
		r.submit(t, "w", "1", "1")
		time.Sleep(time.Hour)
		r.final(t, "1")
	})
}

func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context, p Page) Receipt {
			select {
			case <-ctx.Done():
				return Receipt{State: Unknown}
			case <-time.After(4 * time.Second):
				return Receipt{State: Sent}
			}
		}
		r := start(t, Settings{Workers: 1}, way{"slow", slow}, way{"later", later}, way{"hang", hang})
		r.submit(t, "slow", "s1", "s2", "s3")
		r.submit(t, "later", "l1")
		r.submit(t, "hang", "h1", "h2")
		synctest.Wait()
		began := time.Now()
		r.stop()
		if d := time.Since(began); d != 10*time.Second {
			t.Errorf("drained in %s, want the whole 10 s and no more", d)
		}
		for id, want := range map[string]State{"s1": Sent, "s2": Sent, "s3": Unknown, "l1": Failed, "h1": Unknown, "h2": Failed} {
			if o := r.final(t, id); o.Receipt.State != want {
				t.Errorf("%s: %+v, want %s", id, o.Receipt, want)
			}
		}
		if rec, taken := r.Submit("slow", page("s4")); taken || rec.State != Failed {
			t.Errorf("a stopped fanout took a page: %+v", rec)
		}
	})
}

func TestBrokenChannels(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		deaf := func(context.Context, Page) Receipt { <-release; return Receipt{State: Sent} }
		boom := func(context.Context, Page) Receipt { panic("alice@example.org") }
		r := start(t, Settings{Workers: 1}, way{"deaf", deaf}, way{"boom", boom}, way{"good", good})
		r.submit(t, "boom", "b1")
		r.submit(t, "deaf", "d1", "d2", "d3")
		time.Sleep(75 * time.Second)
		r.submit(t, "good", "g1")
		synctest.Wait()
		if o := r.final(t, "b1"); o.Receipt.State != Unknown || strings.Contains(o.Receipt.Detail, "alice") {
			t.Errorf("panic: %+v", o.Receipt)
		}
		for _, id := range []string{"d1", "d2"} {
			if o := r.final(t, id); o.Receipt.State != Unknown {
				t.Errorf("%s: %+v, want unknown: it may still go out", id, o.Receipt)
			}
		}
		if out := r.of("d3"); len(out) == 0 || out[0].Receipt.State != Failed || out[len(out)-1].Final {
			t.Errorf("d3 behind two strayed pages: %+v, want a temporary failure", out)
		}
		close(release)
		time.Sleep(time.Hour)
		if o := r.final(t, "d3"); o.Receipt.State != Sent {
			t.Errorf("d3 after the channel came back: %+v", o.Receipt)
		}
		r.final(t, "g1")
	})
}

func TestDetailHoldsNoAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Settings{}, way{"w", answers(Receipt{State: Failed, Detail: "550 <alice@EXAMPLE.org>\r\n\x1b[2Jno such user " + strings.Repeat("x", 900), RemoteID: "q alice@example.org"})})
		r.submit(t, "w", "1")
		synctest.Wait()
		rec := r.final(t, "1").Receipt
		if !strings.HasPrefix(rec.Detail, "550 <[address]> [2Jno such user x") || len(rec.Detail) > maxDetail || rec.RemoteID != "q [address]" {
			t.Errorf("%q %q", rec.Detail, rec.RemoteID)
		}
	})
}

type runner struct {
	way
	state chan string
}

func (r runner) Run(ctx context.Context) error {
	r.state <- "up"
	<-ctx.Done()
	r.state <- "down"
	return ctx.Err()
}

func TestRunnerOutlivesDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		state := make(chan string, 2)
		send := func(ctx context.Context, _ Page) Receipt {
			time.Sleep(3 * time.Second)
			return Receipt{State: Sent, Detail: fmt.Sprint(len(state))}
		}
		r := start(t, Settings{}, runner{way{"w", send}, state})
		r.submit(t, "w", "1")
		synctest.Wait()
		r.stop()
		if o := r.final(t, "1"); o.Receipt.Detail != "1" || len(state) != 2 {
			t.Errorf("the channel was stopped before its pages were: %+v, %d", o.Receipt, len(state))
		}
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	report := func(Outcome) {}
	for name, c := range map[string]struct {
		set   Settings
		clock Clock
		rep   func(Outcome)
		chs   []Channel
		want  string
	}{
		"queue":     {Settings{Queue: -1}, System{}, report, nil, "notification.queue"},
		"workers":   {Settings{Queue: 1, Workers: 2}, System{}, report, nil, "notification.workers"},
		"attempt":   {Settings{Attempt: -1}, System{}, report, nil, "notification.attempt"},
		"give up":   {Settings{GiveUp: -1}, System{}, report, nil, "notification.give_up"},
		"pauses":    {Settings{FirstPause: time.Hour}, System{}, report, nil, "notification.max_pause"},
		"drain":     {Settings{Drain: -1}, System{}, report, nil, "notification.drain"},
		"no clock":  {Settings{}, nil, report, nil, "clock"},
		"no report": {Settings{}, System{}, nil, nil, "report"},
		"nameless":  {Settings{}, System{}, report, []Channel{way{"", good}}, "without a name"},
		"twice":     {Settings{}, System{}, report, []Channel{way{"w", good}, way{"w", good}}, "two channels"},
	} {
		if _, err := New(c.set, c.clock, c.rep, c.chs...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	f, err := New(Settings{}, System{}, report, way{"w", good})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ channel, id string }{{"nowhere", "1"}, {"w", ""}} {
		if rec, taken := f.Submit(c.channel, page(c.id)); taken || rec.State != Failed || rec.Temporary {
			t.Errorf("%v: %v %+v", c, taken, rec)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Run(ctx); err != nil {
		t.Errorf("first run: %v", err)
	}
	if err := f.Run(ctx); err == nil {
		t.Error("a second run was allowed")
	}
}

// Whatever the channels answer and whenever it stops: each page that was taken has one final outcome, the last.
func TestEveryPageEndsOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		script := rapid.SliceOfN(rapid.IntRange(0, 5), 1, 20).Draw(rt, "answers")
		pauses := rapid.SliceOfN(rapid.IntRange(0, 20), 1, 15).Draw(rt, "seconds between pages")
		set := Settings{Queue: rapid.IntRange(1, 5).Draw(rt, "queue"), Workers: 1, GiveUp: 20 * time.Second, Attempt: 5 * time.Second}
		synctest.Test(t, func(t *testing.T) {
			var all []Receipt
			for _, n := range script {
				all = append(all, []Receipt{{State: Sent}, {State: Failed}, {State: Failed, Temporary: true}, {State: Unknown}, {State: Unknown, Temporary: true}, {}}[n])
			}
			next := answers(all...)
			r := start(t, set, way{"w", func(ctx context.Context, p Page) Receipt {
				if time.Now().Second()%3 == 0 {
					return hang(ctx, p)
				}
				return next(ctx, p)
			}})
			var taken []string
			for i, s := range pauses {
				if _, ok := r.Submit("w", page(fmt.Sprint(i))); ok {
					taken = append(taken, fmt.Sprint(i))
				}
				time.Sleep(time.Duration(s) * time.Second)
			}
			r.stop()
			for _, id := range taken {
				r.final(t, id)
			}
		})
	})
}
