// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"fmt"
	"time"
)

const (
	// checkpointEvery is how often a recording that goes on is brought to the disk and into the history (procedure.md 4.4).
	checkpointEvery = 5 * time.Second
	// lookAgain bounds how long the loop sleeps.
	lookAgain = time.Minute
)

// loop watches over the limits until the end: what must happen because nothing happens.
func (s *session) loop() {
	for s.ctx.Err() == nil {
		next := s.look()
		alarm, stop := s.b.cfg.Clock.Alarm(next)
		select {
		case <-s.ctx.Done():
		case <-s.wake:
		case <-alarm:
		}
		stop()
	}
}

// look does what is due and returns when to look again. Passed means later than due (procedure.md 0.5).
func (s *session) look() time.Time {
	s.mu.Lock()
	now := s.b.cfg.Clock.Now()
	cause, text, next := s.limits(now)
	freeze := Cause("")
	if s.state == StateLive {
		freeze = s.blocked(now)
		s.listen(now)
	}
	checkpoint := s.checkpointDue(now)
	if checkpoint {
		s.checkpointing, s.lastCheckpoint = true, now
		if s.unanchoredSince.IsZero() {
			s.unanchoredSince = now
		}
	}
	times := []time.Time{next, now.Add(lookAgain)}
	if s.state == StateLive {
		heard := s.lastHeard()
		times = append(times, heard.Add(s.grant.Silence), heard.Add(s.grant.Lease), s.grant.ArmedAt.Add(s.grant.Presence))
		if len(s.flow.unseen) > 0 {
			times = append(times, s.flow.unseen[0].at.Add(s.grant.WindowAge))
		}
	}
	if s.state == StateLive || s.state == StateFrozen {
		times = append(times, s.lastCheckpoint.Add(checkpointEvery))
		if !s.unanchoredSince.IsZero() {
			times = append(times, s.unanchoredSince.Add(s.grant.Anchor))
		}
	}
	s.mu.Unlock()
	switch {
	case cause == CauseExpired:
		s.lapse(cause, text)
	case cause != "":
		s.spawn("end", func() { s.terminate(cause, "", text, nil) })
	case freeze != "":
		s.freezeSoon(freeze)
	}
	if checkpoint {
		s.spawn("checkpoint", s.checkpoint)
	}
	return earliest(now, times)
}

// earliest is the first of the times that is still to come, and a moment later.
func earliest(now time.Time, times []time.Time) time.Time {
	next := now.Add(lookAgain)
	for _, t := range times {
		if t = t.Add(time.Millisecond); t.After(now) && t.Before(next) {
			next = t
		}
	}
	return next
}

// checkpointDue is whether there are new frames that the history does not know for long enough; mu is held.
func (s *session) checkpointDue(now time.Time) bool {
	return (s.state == StateLive || s.state == StateFrozen) && !s.checkpointing && s.recorder == nil &&
		now.Sub(s.lastCheckpoint) >= checkpointEvery && (len(s.flow.frames) > s.anchoredFrames || !s.unanchoredSince.IsZero())
}

// checkpoint brings the recording to the disk and its head into the history.
func (s *session) checkpoint() {
	s.mu.Lock()
	frames, refusals := len(s.flow.frames), s.unmarked
	s.unmarked = 0
	s.mu.Unlock()
	if refusals > 0 {
		s.mark(Mark{Kind: MarkRefused, Text: fmt.Sprintf("%d more requests", refusals)})
	}
	cp, err := s.tape.Checkpoint()
	if err != nil {
		s.recordingFailed(err)
		return
	}
	m := Mark{Kind: MarkCheckpoint, Frame: cp.Frame, Chain: cp.Chain, Size: cp.Bytes, Offset: cp.Output, At: s.b.cfg.Clock.Now()}
	s.box.add(s.b, item{what: "checkpoint", do: func(ctx context.Context) error { return s.b.cfg.Rules.Mark(ctx, s.grant.Ref, m) },
		done: func(err error) { s.anchored(frames, err) }})
}

// anchored notes whether the history has a checkpoint. One that was refused is made again, and its age counts on.
func (s *session) anchored(frames int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkpointing = false
	if err == nil {
		s.unanchoredSince, s.anchoredFrames = time.Time{}, frames
	}
	s.notify()
	s.rouse()
}
