// SPDX-License-Identifier: Apache-2.0

// Package timer turns due times into Tick commands. It keeps nothing: after a start or a crash the due times are computed
// again from the histories, so a timer survives a restart; and since a tick is decided on the whole history and appended
// conditionally, what is due is recorded once, however many instances send ticks.
package timer

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cacert.org/emergency/pkg/defect"
	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Config of a timer. All fields are required.
type Config struct {
	Owner     string
	Clock     Clock
	Incidents *projection.Incidents
	Changed   func() <-chan struct{}
	Dispatch  *dispatch.Dispatcher
	Log       *slog.Logger
}

// retryAfter is how long the timer waits after a tick that failed, and at most before it looks again at all.
const (
	retryAfter = 2 * time.Second
	lookAgain  = time.Minute
)

// Run sends ticks until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	plan := &schedule{cfg: cfg, dues: map[string]due{}}
	for ctx.Err() == nil {
		changed := cfg.Changed() // before looking, so that nothing that comes meanwhile is missed
		overdue, wake := plan.look()
		for _, x := range overdue {
			err := defect.Contained(func() error { return tick(ctx, cfg, x) }) // a panic is this incident's alone
			if err != nil && ctx.Err() == nil {
				cfg.Log.WarnContext(ctx, "tick failed; it will be tried again", slog.String("owner", cfg.Owner), slog.String("incident", x.incident), slog.Any("error", err), defect.Stack(err))
				wake = earlier(wake, cfg.Clock.Now().Add(retryAfter))
			}
		}
		alarm, stop := cfg.Clock.Alarm(wake)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-alarm:
		}
		stop()
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// due is when something in an incident is due, as seen at a position.
type due struct {
	incident string
	position uint64
	at       time.Time
}

// schedule knows the next due time of each incident. It computes anew only what changed: an incident that was continued, or
// all of them after a change of the rule book, whose rota decides who is called, and every lookAgain, because a shift may
// have begun without anything having happened.
type schedule struct {
	cfg    Config
	cursor uint64
	book   *rulebook.Book
	whole  time.Time      // when all of them were computed last
	dues   map[string]due // what counts
	queue  queue          // soonest first; entries that do not count any more are dropped when they come up
	again  []string       // were due when looked at last
}

// look returns the incidents in which something is due, and when to look again.
func (p *schedule) look() (overdue []due, next time.Time) {
	now := p.cfg.Clock.Now()
	next = now.Add(lookAgain)
	p.refresh(now)
	for len(p.queue) > 0 {
		x := p.queue[0]
		if p.dues[x.incident] != x {
			heap.Pop(&p.queue)
			continue
		}
		if !x.at.Before(now) {
			return overdue, earlier(next, x.at.Add(time.Millisecond)) // passed means later than due (procedure.md 0.5)
		}
		overdue = append(overdue, x)
		heap.Pop(&p.queue)
		p.again = append(p.again, x.incident)
	}
	return overdue, next
}

// refresh computes the due times anew where something changed, and where something was due: whether the tick recorded it.
func (p *schedule) refresh(now time.Time) {
	ids, cursor := p.cfg.Incidents.Since(p.cursor)
	env := procedure.Env{Owner: p.cfg.Owner, Now: now, Book: p.cfg.Incidents.Book()}
	if env.Book != p.book || now.Sub(p.whole).Abs() >= lookAgain {
		ids, cursor = p.cfg.Incidents.Since(0)
		p.whole = now
	}
	ids = append(ids, p.again...)
	p.cursor, p.book, p.again = cursor, env.Book, nil
	for _, id := range ids {
		delete(p.dues, id)
		err := defect.Contained(func() error {
			p.cfg.Incidents.View(id, func(s *procedure.State) {
				if at, ok := procedure.NextDue(s, env); ok {
					p.dues[id] = due{id, s.Position, at}
					heap.Push(&p.queue, p.dues[id])
				}
			})
			return nil
		})
		if err != nil {
			p.cfg.Log.Error("nobody knows what is due in an incident", slog.String("owner", p.cfg.Owner), slog.String("incident", id), slog.Any("error", err), defect.Stack(err))
		}
	}
}

// queue is a heap of due times.
type queue []due

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }

// Push adds an entry; for package heap.
func (q *queue) Push(x any) { *q = append(*q, x.(due)) }

// Pop removes the last entry; for package heap.
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// tick sends one. Its request id comes from the position at which something was seen to be due: sent again for what was
// recorded meanwhile, it is recognised.
func tick(ctx context.Context, cfg Config, x due) error {
	cmd := &emergencyv1.TickRequest{Meta: &emergencyv1.CommandMeta{Incident: x.incident, RequestId: fmt.Sprintf("tick.at.%d", x.position)}}
	_, err := cfg.Dispatch.Do(ctx, cmd, dispatch.Input{Actor: procedure.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_TIMER, SystemName: cfg.Owner}})
	var refusal *procedure.Refusal
	if errors.As(err, &refusal) {
		cfg.Log.WarnContext(ctx, "tick refused", "owner", cfg.Owner, "incident", x.incident, "reason", string(refusal.Reason))
		return nil
	}
	return err
}
