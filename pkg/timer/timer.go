// SPDX-License-Identifier: Apache-2.0

// Package timer turns due times into Tick commands. It keeps nothing: after a start or a crash the due times are computed
// again from the histories, so a timer survives a restart; and since a tick is decided on the whole history and appended
// conditionally, what is due is recorded once, however many instances send ticks.
package timer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
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
	for ctx.Err() == nil {
		changed := cfg.Changed() // before looking, so that nothing that comes meanwhile is missed
		due, wake := look(cfg)
		for _, x := range due {
			if err := tick(ctx, cfg, x); err != nil && ctx.Err() == nil {
				cfg.Log.WarnContext(ctx, "tick failed; it will be tried again", "owner", cfg.Owner, "incident", x.incident, "error", err)
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

// overdue is an incident in which something is due, and the position at which that was seen.
type overdue struct {
	incident string
	position uint64
}

// look finds the incidents in which something is due, and when to look again.
func look(cfg Config) (due []overdue, next time.Time) {
	now := cfg.Clock.Now()
	next = now.Add(lookAgain)
	env := procedure.Env{Owner: cfg.Owner, Now: now, Book: cfg.Incidents.Book()}
	cfg.Incidents.Each(func(s *procedure.State) {
		at, ok := procedure.NextDue(s, env)
		switch {
		case !ok:
		case at.Before(now):
			due = append(due, overdue{s.Incident, s.Position})
		case at.Before(next):
			next = at.Add(time.Millisecond) // passed means later than due (procedure.md 0.5)
		}
	})
	return due, next
}

// tick sends one. Its request id comes from the position at which something was seen to be due: sent again for what was
// recorded meanwhile, it is recognised.
func tick(ctx context.Context, cfg Config, x overdue) error {
	cmd := &emergencyv1.TickRequest{Meta: &emergencyv1.CommandMeta{Incident: x.incident, RequestId: fmt.Sprintf("tick.at.%d", x.position)}}
	_, err := cfg.Dispatch.Do(ctx, cmd, dispatch.Input{Actor: procedure.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_TIMER, SystemName: cfg.Owner}})
	var refusal *procedure.Refusal
	if errors.As(err, &refusal) {
		cfg.Log.WarnContext(ctx, "tick refused", "owner", cfg.Owner, "incident", x.incident, "reason", string(refusal.Reason))
		return nil
	}
	return err
}
