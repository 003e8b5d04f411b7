// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"cacert.org/emergency/pkg/defect"
)

// outbox records what was done already, in order, each thing until it is stored or refused. So no act that lessens access
// waits for the log, and none is forgotten while the log is down.
type outbox struct {
	ctx context.Context // the broker's
	log *slog.Logger

	mu    sync.Mutex
	items []item
	idle  chan struct{} // closed while there is nothing to record
}

type item struct {
	what string
	do   func(context.Context) error
	done func(error) // told nil or the refusal; may be nil
}

// Waits between tries, by the machine's clock: they have nothing to do with the procedure's time.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 2 * time.Second
)

func newOutbox(ctx context.Context, log *slog.Logger) *outbox {
	idle := make(chan struct{})
	close(idle)
	return &outbox{ctx: ctx, log: log, idle: idle}
}

func (o *outbox) add(b *Broker, x item) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.items = append(o.items, x)
	if len(o.items) == 1 {
		o.idle = make(chan struct{})
		b.spawn(o.run)
	}
}

// run records until nothing is left. There is one run for an outbox that is not empty.
func (o *outbox) run() {
	for x, ok := o.head(false); ok; x, ok = o.head(true) {
		err := o.try(x)
		if x.done != nil {
			x.done(err)
		}
	}
}

// head returns what is to be recorded next, after what is recorded was taken away.
func (o *outbox) head(recorded bool) (item, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if recorded {
		o.items = o.items[1:]
	}
	if len(o.items) == 0 {
		close(o.idle)
		return item{}, false
	}
	return o.items[0], true
}

// try returns nil when x is stored, the refusal, or what kept it from being stored until the broker stopped.
func (o *outbox) try(x item) error {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		ctx, cancel := context.WithTimeout(o.ctx, callWithin)
		err := defect.Contained(func() error { return x.do(ctx) }) // it concerns this record, and no other
		cancel()
		var no *Refusal
		if err == nil {
			return nil
		}
		if errors.As(err, &no) || o.ctx.Err() != nil {
			o.log.WarnContext(o.ctx, "not recorded", "what", x.what, "error", err)
			return err
		}
		o.log.WarnContext(o.ctx, "not recorded yet; it will be tried again", "what", x.what, "error", err)
		select {
		case <-o.ctx.Done():
		case <-time.After(wait):
		}
	}
}

// doubt finds out, once the log answers again, whether an attempt whose outcome is unknown did consume the credential. Then the
// grant is used up without a session, and is ended as one whose opening failed.
func (s *session) doubt() {
	s.box.add(s.b, item{what: "whether the credential was consumed", do: func(ctx context.Context) error {
		g, err := s.b.cfg.Rules.Grant(ctx, s.grant.Ref)
		if err != nil {
			return err
		}
		s.mu.Lock()
		lost, busy := g.Consumed && s.state == StateWaiting, s.admitting > 0
		s.mu.Unlock()
		if busy {
			return errors.New("an attempt is under way") // whose credential it may be
		}
		if lost {
			s.spawn("end", func() { s.terminate(CauseOpen, "", "the log's answer to the connection was lost", nil) })
		}
		return nil
	}})
}

// drain waits until everything is recorded, but not for ever.
func (o *outbox) drain(within time.Duration) {
	o.mu.Lock()
	idle := o.idle
	o.mu.Unlock()
	select {
	case <-idle:
	case <-time.After(within):
	}
}
