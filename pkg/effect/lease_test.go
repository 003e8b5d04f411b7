// SPDX-License-Identifier: Apache-2.0

package effect_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/effect/memory"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
)

// instance is one instance of a service, with a ledger that can be away from it.
type instance struct {
	effect.Ledger
	name string
	away atomic.Bool

	mu   sync.Mutex
	acts []string
	hold chan struct{} // acts wait for it, if it is set
	stop func()
}

var errAway = errors.New("the ledger is away")

func (i *instance) SetLease(ctx context.Context, owner, holder string, revision uint64) (uint64, error) {
	if i.away.Load() {
		return 0, errAway
	}
	return i.Ledger.SetLease(ctx, owner, holder, revision)
}

func (i *instance) Lease(ctx context.Context, owner string) (string, uint64, error) {
	if i.away.Load() {
		return "", 0, errAway
	}
	return i.Ledger.Lease(ctx, owner)
}

func (i *instance) act(what string) {
	i.mu.Lock()
	i.acts = append(i.acts, what)
	hold := i.hold
	i.mu.Unlock()
	if hold != nil {
		<-hold
	}
}

// did returns the acts in a fixed order.
func (i *instance) did() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Sorted(slices.Values(i.acts))
}

func (i *instance) start(t *testing.T, r *dispatchtest.Rig) {
	t.Helper()
	plan := notesOnly(func(text string) []effect.Effect {
		return []effect.Effect{
			{Key: text + "/push", Repeatable: true, Run: func(context.Context) error { i.act(text + "/push"); return nil }},
			{Key: text + "/mail", Run: func(context.Context) error { i.act(text + "/mail"); return nil }, Unknown: func(context.Context) error {
				i.act(text + "/mail unknown")
				return nil
			}},
		}
	})
	runner, err := effect.New(effect.Config{Owner: procedure.OwnerNotification, Instance: i.name, Source: source(t, r), Ledger: i, Plan: plan, Log: r.Log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- runner.Run(ctx) }()
	i.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", i.name, err)
		}
	})
}

func both(r *dispatchtest.Rig, t *testing.T) (one, two *instance) {
	t.Helper()
	l := memory.New()
	one, two = &instance{Ledger: l, name: "one"}, &instance{Ledger: l, name: "two"}
	one.start(t, r)
	synctest.Wait()
	two.start(t, r)
	synctest.Wait()
	return one, two
}

func same(t *testing.T, i *instance, want ...string) {
	t.Helper()
	if got := i.did(); !slices.Equal(got, want) {
		t.Errorf("%s did %q, want %q", i.name, got, want)
	}
}

// TestOneInstanceActs: of two instances one acts; when it stops in order the other takes over at its next look.
func TestOneInstanceActs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := declared(t)
		one, two := both(r, t)
		defer two.stop()
		for n := range 3 {
			note(t, r, fmt.Sprint(n))
			time.Sleep(time.Hour)
		}
		same(t, one, "0/mail", "0/push", "1/mail", "1/push", "2/mail", "2/push")
		one.stop()
		note(t, r, "3")
		time.Sleep(2 * time.Second) // as often as an instance looks
		synctest.Wait()
		same(t, one, "0/mail", "0/push", "1/mail", "1/push", "2/mail", "2/push")
		same(t, two, "3/mail", "3/push")
	})
}

// TestHeldUp: an instance that cannot renew its lease, as one that was stopped or cut off, begins nothing any more before another one may,
// and what it had begun is repeated or reported by the other.
func TestHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := declared(t)
		one, two := both(r, t)
		one.mu.Lock()
		one.hold = make(chan struct{})
		one.mu.Unlock()
		note(t, r, "begun")
		synctest.Wait()
		same(t, one, "begun/mail", "begun/push")
		one.away.Store(true)
		time.Sleep(8*time.Second + 2*time.Second) // the lease is over, and it has looked
		note(t, r, "later")
		synctest.Wait()
		same(t, one, "begun/mail", "begun/push")
		same(t, two)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		same(t, two, "begun/mail unknown", "begun/push", "later/mail", "later/push")
		close(one.hold)
		one.away.Store(false)
		note(t, r, "last")
		time.Sleep(time.Minute)
		synctest.Wait()
		same(t, one, "begun/mail", "begun/push")
		same(t, two, "begun/mail unknown", "begun/push", "last/mail", "last/push", "later/mail", "later/push")
		two.stop()
		time.Sleep(time.Minute)
		note(t, r, "back")
		synctest.Wait()
		same(t, one, "back/mail", "back/push", "begun/mail", "begun/push")
		one.stop()
	})
}

// TestSameInstanceAgain: after a crash an instance goes on at once, because the lease is its own.
func TestSameInstanceAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := declared(t)
		l := memory.New()
		if _, err := l.SetLease(t.Context(), procedure.OwnerNotification, "one", 0); err != nil {
			t.Fatal(err)
		}
		one := &instance{Ledger: l, name: "one"}
		note(t, r, "x")
		one.start(t, r)
		synctest.Wait()
		same(t, one, "x/mail", "x/push")
		one.stop()
	})
}

// TestLedgerAway: a ledger that cannot say how far the effects have come is asked again; nothing ends for it.
func TestLedgerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := declared(t)
		one := &instance{Ledger: &forgetful{Ledger: memory.New(), fails: 3}, name: "one"}
		note(t, r, "x")
		one.start(t, r)
		time.Sleep(time.Minute)
		synctest.Wait()
		same(t, one, "x/mail", "x/push")
		one.stop()
	})
}

// forgetful is a ledger whose mark cannot be read for a while.
type forgetful struct {
	effect.Ledger
	fails int
}

func (f *forgetful) Mark(ctx context.Context, owner string) (history.Mark, error) {
	if f.fails--; f.fails >= 0 {
		return history.Mark{}, errAway
	}
	return f.Ledger.Mark(ctx, owner)
}
