// SPDX-License-Identifier: Apache-2.0

// Package effecttest is what every ledger of effects must pass.
package effecttest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/history"
)

// Ledger checks the contract. open returns a further handle on the same ledger, as another process would have one.
func Ledger(t *testing.T, open func(t *testing.T) effect.Ledger) {
	l := open(t)
	other := open(t)

	t.Run("an intent is fresh once", func(t *testing.T) {
		intend(t, l, "e20261124.1/2/page/1.1", true, effect.Intended)
		intend(t, l, "e20261124.1/2/page/1.1", false, effect.Intended)
		intend(t, other, "e20261124.1/2/page/1.1", false, effect.Intended)
	})
	t.Run("an outcome is remembered", func(t *testing.T) {
		for _, state := range []effect.State{effect.Done, effect.Failed, effect.Unknown} {
			key := "outcome/" + string(state)
			intend(t, l, key, true, effect.Intended)
			if err := l.Finish(t.Context(), key, state); err != nil {
				t.Fatal(err)
			}
			intend(t, other, key, false, state)
		}
	})
	t.Run("an intent that was withdrawn is fresh again", func(t *testing.T) {
		for range 2 {
			intend(t, l, "withdrawn", true, effect.Intended)
			if err := other.Withdraw(t.Context(), "withdrawn"); err != nil {
				t.Fatal(err)
			}
		}
		intend(t, other, "withdrawn", true, effect.Intended)
		intend(t, l, "withdrawn", false, effect.Intended)
	})
	t.Run("any text is a key", func(t *testing.T) {
		for _, key := range []string{"a b", "a.b", "a/b", "*", ">", "ä", "x\n"} {
			intend(t, l, key, true, effect.Intended)
			intend(t, l, key, false, effect.Intended)
		}
	})
	t.Run("of many at once one is fresh", func(t *testing.T) {
		for n := range 20 {
			key := fmt.Sprint("race/", n)
			var mu sync.Mutex
			fresh := 0
			var group sync.WaitGroup
			for i := range 4 {
				group.Go(func() {
					ok, state, err := []effect.Ledger{l, other}[i%2].Intend(t.Context(), key)
					if err != nil || state != effect.Intended {
						t.Errorf("%s: %v, %v", key, state, err)
					}
					mu.Lock()
					defer mu.Unlock()
					if ok {
						fresh++
					}
				})
			}
			group.Wait()
			if fresh != 1 {
				t.Errorf("%s was fresh for %d", key, fresh)
			}
		}
	})
	t.Run("leases", func(t *testing.T) {
		write := func(l effect.Ledger, owner, holder string, revision uint64) (uint64, error) {
			return l.SetLease(t.Context(), owner, holder, revision)
		}
		for _, owner := range []string{"review", "notification"} {
			if holder, revision, err := l.Lease(t.Context(), owner); err != nil || holder != "" || revision != 0 {
				t.Errorf("before the first: %q, %d, %v", holder, revision, err)
			}
			first, err := write(l, owner, "one", 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := write(other, owner, "two", 0); !errors.Is(err, effect.ErrLeaseTaken) {
				t.Errorf("a second first: %v", err)
			}
			second, err := write(l, owner, "one", first)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := write(other, owner, "two", first); !errors.Is(err, effect.ErrLeaseTaken) {
				t.Errorf("at an old revision: %v", err)
			}
			if holder, revision, err := other.Lease(t.Context(), owner); err != nil || holder != "one" || revision != second {
				t.Errorf("%q at %d (%v), want one at %d", holder, revision, err, second)
			}
			third, err := write(other, owner, "two", second)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := write(other, owner, "", third); err != nil {
				t.Fatal(err)
			}
			if holder, _, err := l.Lease(t.Context(), owner); err != nil || holder != "" {
				t.Errorf("given back: %q (%v)", holder, err)
			}
		}
	})
	t.Run("marks", func(t *testing.T) {
		marks := map[string]history.Mark{"review": {Sequence: 7, Hash: "ab"}, "notification": {Sequence: 9, Hash: "cd"}}
		for owner, mark := range marks {
			if got, err := l.Mark(t.Context(), owner); err != nil || got != (history.Mark{}) {
				t.Errorf("before the first: %v, %v", got, err)
			}
			if err := l.SetMark(t.Context(), owner, mark); err != nil {
				t.Fatal(err)
			}
		}
		for owner, mark := range marks {
			if got, err := other.Mark(t.Context(), owner); err != nil || got != mark {
				t.Errorf("%s: %v, %v", owner, got, err)
			}
		}
	})
}

func intend(t *testing.T, l effect.Ledger, key string, fresh bool, state effect.State) {
	t.Helper()
	gotFresh, gotState, err := l.Intend(t.Context(), key)
	if err != nil || gotFresh != fresh || gotState != state {
		t.Fatalf("%q: fresh %t, %q, %v; want %t, %q", key, gotFresh, gotState, err, fresh, state)
	}
}
