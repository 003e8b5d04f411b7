// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/effect/effecttest"
	ledger "cacert.org/emergency/pkg/effect/jetstream"
	"cacert.org/emergency/pkg/natsd/natsdtest"
)

func open(t *testing.T, js jetstream.JetStream) *ledger.Ledger {
	t.Helper()
	l, err := ledger.New(t.Context(), js, "notification")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLedger(t *testing.T) {
	t.Parallel()
	_, js := natsdtest.Start(t)
	effecttest.Ledger(t, func(t *testing.T) effect.Ledger { return open(t, js) })

	// What was intended and finished outlives the server.
	dir := t.TempDir()
	server, js := natsdtest.StartIn(t, dir)
	l := open(t, js)
	if fresh, _, err := l.Intend(t.Context(), "kept"); err != nil || !fresh {
		t.Fatal(fresh, err)
	}
	natsdtest.Close(t, server)
	_, js = natsdtest.StartIn(t, dir)
	if fresh, state, err := open(t, js).Intend(t.Context(), "kept"); err != nil || fresh || state != effect.Intended {
		t.Errorf("after a restart: fresh %t, %q, %v", fresh, state, err)
	}
}

// On three replicas a lost compare-and-set has another error code, also while an earlier one is on its way.
func TestLedgerOnACluster(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED: a cluster takes seconds to start; run without -short")
	}
	c := natsdtest.StartCluster(t)
	n := 0
	effecttest.Ledger(t, func(t *testing.T) effect.Ledger {
		n++
		return open(t, c.Connect(t, n%3))
	})
}

// losing is a connection on which the answer to a publish gets lost.
type losing struct {
	jetstream.KeyValue
	stored bool
	lose   *atomic.Int32
}

var errLost = errors.New("no answer came")

func (k losing) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	if k.lose.Add(-1) < 0 {
		return k.KeyValue.Create(ctx, key, value, opts...)
	}
	if k.stored {
		if _, err := k.KeyValue.Create(ctx, key, value, opts...); err != nil {
			return 0, err
		}
	}
	return 0, errLost
}

type losingJS struct {
	jetstream.JetStream
	stored bool
	lose   *atomic.Int32
}

func (j losingJS) KeyValue(ctx context.Context, bucket string) (jetstream.KeyValue, error) {
	kv, err := j.JetStream.KeyValue(ctx, bucket)
	return losing{kv, j.stored, j.lose}, err
}

// An intent whose acknowledgement was lost is ours: nobody acted on it, so it is fresh. One that was never stored is
// written again.
func TestLostAcknowledgement(t *testing.T) {
	t.Parallel()
	_, js := natsdtest.Start(t)
	for name, stored := range map[string]bool{"stored": true, "not stored": false} {
		t.Run(name, func(t *testing.T) {
			lose := new(atomic.Int32)
			l := open(t, losingJS{js, stored, lose})
			lose.Store(2)
			if fresh, state, err := l.Intend(t.Context(), "key "+name); err != nil || !fresh || state != effect.Intended {
				t.Errorf("fresh %t, %q, %v", fresh, state, err)
			}
			lose.Store(0)
			if fresh, state, err := l.Intend(t.Context(), "key "+name); err != nil || fresh || state != effect.Intended {
				t.Errorf("again: fresh %t, %q, %v", fresh, state, err)
			}
		})
	}
}
