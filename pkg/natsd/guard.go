// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Guard repeats Check and remembers what it saw, to notice a log that went back: a restored older store, a cut tail, or
// a stream deleted and created again. After a lost tail the server gives the same sequence numbers out again, so nothing
// but the memory of the last one tells (hardening 4). One Guard per process; safe for concurrent use.
type Guard struct {
	js     jetstream.JetStream
	expect Expect

	mu       sync.Mutex // guards the fields below, and keeps answers in the order of their questions
	last     uint64
	created  time.Time
	wentBack []Finding
}

// NewGuard starts with the highest sequence known to have been stored, such as the one of a checkpoint or a projection;
// zero if none is known.
func NewGuard(js jetstream.JetStream, e Expect, last uint64) *Guard {
	return &Guard{js: js, expect: e, last: last}
}

// Look checks once: every 60 seconds and after each reconnect. A *CheckError means: take no more commands until a person
// has looked. Other errors mean that the question could not be asked. A log that once went back stays refused, also when
// it has caught up: by then its sequence numbers stand for other records.
func (g *Guard) Look(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, err := check(ctx, g.js, g.expect)
	if errors.Is(err, jetstream.ErrStreamNotFound) && !g.created.IsZero() {
		return checkError(append(g.wentBack, Finding{Stream, "stream", "not there", "there", "it was deleted, with all records"}))
	}
	if err != nil {
		return err
	}
	if g.created.IsZero() {
		g.created = s.info.Created
	}
	if !s.info.Created.Equal(g.created) {
		g.wentBack = append(g.wentBack, recreated(s.info.Created, g.created))
		g.created = s.info.Created
	}
	last := s.info.State.LastSeq
	if last < g.last {
		g.wentBack = append(g.wentBack, lower(last, g.last))
	}
	g.last = last
	return checkError(append(s.findings, g.wentBack...))
}

func recreated(is, was time.Time) Finding {
	return Finding{Stream, "created", is.Format(time.RFC3339Nano), was.Format(time.RFC3339Nano), "the stream was deleted and created again"}
}

func lower(is, was uint64) Finding {
	return Finding{Stream, "state.last_seq", fmt.Sprint(is), fmt.Sprintf("%d or more", was), "records that were stored are gone"}
}

// Last is the last sequence seen.
func (g *Guard) Last() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}
