// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// overdue is how long a worker waits for a Send that does not return although its time is over.
const overdue = 5 * time.Second

// lane is one channel's queue. Its workers share the map of jobs; a job waiting for another attempt occupies no worker,
// so one mailbox that answers "try later" does not hold up the next person's page.
type lane struct {
	f  *Fanout
	ch Channel
	// wake tells one idle worker to look again; it passes the word on when it takes a job.
	wake chan struct{}
	// stopped is closed by stop.
	stopped chan struct{}

	mu     sync.Mutex
	closed bool
	seq    int
	jobs   map[string]*job // by page id, bounded by Settings.Queue
	out    int             // Sends that have not returned
}

type job struct {
	page    Page
	seq     int
	due     time.Time // not before
	end     time.Time // not after
	pause   *backoff.ExponentialBackOff
	attempt int
	last    Receipt
	doubt   bool // an attempt may have arrived
	busy    bool // a worker has it
}

func newLane(f *Fanout, c Channel) *lane {
	return &lane{f: f, ch: c, wake: make(chan struct{}, 1), stopped: make(chan struct{}), jobs: map[string]*job{}}
}

func (l *lane) submit(p Page) (Receipt, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return Receipt{State: Failed, Temporary: true, Detail: "not sent: the service is stopping"}, false
	case l.jobs[p.ID] != nil:
		return Receipt{}, true
	case len(l.jobs) >= l.f.set.Queue:
		return Receipt{State: Failed, Temporary: true, Detail: fmt.Sprintf("not sent: %d pages wait for this channel already", len(l.jobs))}, false
	}
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier = l.f.set.FirstPause, l.f.set.MaxPause, 2
	b.Reset()
	now := l.f.clock.Now()
	l.seq++
	l.jobs[p.ID] = &job{page: p, seq: l.seq, due: now, end: now.Add(l.f.set.GiveUp), pause: b}
	l.signal()
	return Receipt{}, true
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lane) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	close(l.stopped)
}

// work is one worker: it returns when the lane is stopped and nothing is left for it.
func (l *lane) work(ctx context.Context) {
	for {
		j, send, wait := l.take(ctx)
		switch {
		case j != nil && send:
			l.try(ctx, j)
		case j != nil:
			l.giveUp(ctx, j)
		case wait == 0:
			return
		default:
			select {
			case <-l.wake:
			case <-l.stopped:
			case <-l.f.clock.After(wait):
			}
		}
	}
}

// take hands out a job, either to send or to give up. Without one it says how long to wait, 0 when the worker is done.
func (l *lane) take(ctx context.Context) (j *job, send bool, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.f.clock.Now()
	wait = l.f.set.GiveUp
	for _, c := range l.jobs {
		if c.busy {
			continue
		}
		if dead := now.After(c.end) || l.closed && (c.attempt > 0 || ctx.Err() != nil); dead {
			return l.taken(c), false, 0
		}
		if until := c.due.Sub(now); until > 0 && !l.closed {
			wait = min(wait, until)
		} else if j == nil || c.seq < j.seq {
			j = c
		}
	}
	if j != nil {
		return l.taken(j), true, 0
	}
	if l.closed {
		return nil, false, 0
	}
	return nil, false, wait
}

func (l *lane) taken(j *job) *job {
	j.busy = true
	l.signal()
	return j
}

// giveUp ends a job that will not be tried again.
func (l *lane) giveUp(ctx context.Context, j *job) {
	r := j.last
	if j.attempt == 0 {
		r = Receipt{State: Failed, Temporary: true, Detail: fmt.Sprintf("not sent: waited %s behind other pages", l.f.set.GiveUp)}
		if ctx.Err() != nil {
			r.Detail = "not sent: the service stopped before its turn"
		}
	}
	l.finish(j, r, true)
}

// try makes one attempt and decides whether another follows.
func (l *lane) try(ctx context.Context, j *job) {
	r := l.attempt(ctx, j.page)
	r.Detail, r.RemoteID = withoutAddress(r.Detail, j.page.Recipient.Address), withoutAddress(r.RemoteID, j.page.Recipient.Address)
	j.attempt++
	if j.doubt && r.State == Failed {
		r.State, r.Detail = Unknown, OneLine("an earlier attempt may have arrived; the last: "+r.Detail, maxDetail)
	}
	j.doubt = j.doubt || r.State == Unknown
	j.last = r

	l.mu.Lock()
	again := r.Temporary && (r.State == Failed || r.State == Unknown) && !l.closed
	if again {
		now := l.f.clock.Now()
		j.due = now.Add(max(j.pause.NextBackOff(), r.RetryAfter))
		again = !j.due.After(j.end)
	}
	l.mu.Unlock()
	l.finish(j, r, !again)
}

// finish reports before it lets go of the job, so a page submitted again meanwhile cannot overtake its own outcome.
func (l *lane) finish(j *job, r Receipt, final bool) {
	l.f.report(Outcome{Channel: l.ch.Name(), Page: j.page, Receipt: r, Attempt: j.attempt, Final: final, At: l.f.clock.Now()})
	l.mu.Lock()
	defer l.mu.Unlock()
	j.busy = false
	if final {
		delete(l.jobs, j.page.ID)
	}
	l.signal()
}

// attempt calls Send with a deadline. A Send that does not return is left behind; with twice as many of them out as
// there are workers nothing more is started until one returns: a defect in one channel must not take the memory of all.
func (l *lane) attempt(ctx context.Context, p Page) Receipt {
	if !l.leave() {
		return Receipt{State: Failed, Temporary: true, Detail: "not sent: earlier pages still hang in this channel"}
	}
	ctx, cancel := context.WithTimeout(ctx, l.f.set.Attempt)
	defer cancel()
	res := make(chan Receipt, 1)
	go func() {
		defer l.back()
		res <- l.send(ctx, p)
	}()
	select {
	case r := <-res:
		return r
	case <-ctx.Done():
	}
	select {
	case r := <-res:
		return r
	case <-l.f.clock.After(overdue):
		return Receipt{State: Unknown, Detail: "the channel did not return in its time"}
	}
}

func (l *lane) leave() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out >= 2*l.f.set.Workers {
		return false
	}
	l.out++
	return true
}

func (l *lane) back() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out--
}

// send keeps a panic in one channel from ending the others. The value may hold an address, so only the place is logged.
func (l *lane) send(ctx context.Context, p Page) (r Receipt) {
	defer func() {
		if v := recover(); v != nil {
			slog.ErrorContext(ctx, "channel panicked", "channel", l.ch.Name(), "page", p, "stack", string(debug.Stack()))
			r = Receipt{State: Unknown, Detail: fmt.Sprintf("defect in channel %s: %T", l.ch.Name(), v)}
		}
	}()
	return l.ch.Send(ctx, p)
}
