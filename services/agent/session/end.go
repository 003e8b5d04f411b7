// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Outcome of a step.
type Outcome string

// Outcomes.
const (
	Done      Outcome = "done"
	NotNeeded Outcome = "not_needed"
	Failed    Outcome = "failed"
)

// Steps that End takes.
const (
	StepCredential = "host_credential" //nolint:gosec // a step's name; the key is out
	StepProcesses  = "processes"       // nothing of the session runs
)

// Step is what became of one of them. Each is taken whatever becomes of the other.
type Step struct {
	Effect  string        `json:"effect"`
	Outcome Outcome       `json:"outcome"`
	Detail  string        `json:"detail"`
	Took    time.Duration `json:"took"`
}

// Ending is the end of a session.
type Ending struct {
	Why   string    `json:"why"`
	Own   bool      `json:"own"` // nobody asked for it: the agent was restarted, or without its service for too long
	At    time.Time `json:"at"`
	Steps []Step    `json:"steps"`
}

// Err is nil if every step was done or not needed.
func (e Ending) Err() error {
	var errs []error
	for _, s := range e.Steps {
		if s.Outcome == Failed {
			errs = append(errs, fmt.Errorf("%s: %s", s.Effect, s.Detail))
		}
	}
	return errors.Join(errs...)
}

// End takes the key of a grant out, kills everything that belongs to its session, also what has detached itself, and returns
// when no look finds a process of it any more. It is never refused: a grant that this host has not heard of has at most a line
// in the key file. Repeated, it looks again, and tells of each step the strongest that was ever done.
func (k *Keeper) End(ctx context.Context, grant, why string) (Ending, error) {
	if err := checkGrant(grant); err != nil {
		return Ending{}, err
	}
	s, err := k.find(grant)
	if err != nil {
		return Ending{Why: why, At: k.now(), Steps: []Step{
			k.dropKey(grant), {Effect: StepProcesses, Outcome: NotNeeded, Detail: "no session was opened on this host"},
		}}, nil
	}
	e := s.end(ctx, why)
	return e, k.Told(grant)
}

// Why sessions end without anybody asking for it.
const (
	whyRestart = "the agent was restarted"
	whyStopped = "the agent is stopped"
	whyNoLink  = "the link to the service was lost for longer than the grace"
)

// Untold lists the grants whose sessions ended without anybody asking for it, and of which Told was not called.
func (k *Keeper) Untold() []string {
	k.mu.Lock()
	all := slices.Collect(maps.Values(k.sessions))
	k.mu.Unlock()
	var list []string
	for _, s := range all {
		s.mu.Lock()
		if e := s.rec.Ending; e != nil && e.Own && !s.rec.Told {
			list = append(list, s.rec.Grant)
		}
		s.mu.Unlock()
	}
	slices.Sort(list)
	return list
}

// Told says that the service knows of the end of a session.
func (k *Keeper) Told(grant string) error {
	s, err := k.find(grant)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec.Told {
		return nil
	}
	s.rec.Told = true
	return k.save(s.rec)
}

// endWithin is how long the killing may take (console.md 9 wants it within 2 s; what takes longer is told as failed).
const endWithin = 5 * time.Second

func (s *session) end(ctx context.Context, why string) Ending {
	first := !s.ended.Swap(true) // from here on no shell starts
	s.abort()
	key := s.k.dropKey(s.rec.Grant) // before the lock: it waits for nobody
	s.mu.Lock()
	defer s.mu.Unlock()
	e := Ending{Why: why, Own: why == whyRestart || why == whyStopped || why == whyNoLink, At: s.k.now(), Steps: []Step{key, s.killAll(ctx, why)}}
	if s.rec.Ending != nil {
		e = s.rec.Ending.merge(e)
	}
	s.rec.Ending = &e
	if e.Err() != nil && !s.retrying {
		s.retrying = true
		s.k.later(s.retry)
	}
	if err := s.k.save(s.rec); err != nil {
		s.k.log.ErrorContext(ctx, "the end of a session could not be kept", "grant", s.rec.Grant, "error", err)
	}
	if first {
		s.k.log.InfoContext(ctx, "session ended", "grant", s.rec.Grant, "why", e.Why, "error", e.Err())
	}
	return e
}

// retryEvery is how often an end that did not succeed is tried again.
const retryEvery = time.Second

// retry tries to end what could not be ended, until it is or the keeper is closed: a crowd that forks faster than it is
// killed one by one comes to its end, and a disk is mended.
func (s *session) retry() {
	for {
		timer := time.NewTimer(retryEvery)
		select {
		case <-timer.C:
		case <-s.k.closing.Done():
			timer.Stop()
			return
		}
		ctx, cancel := context.WithTimeout(s.k.closing, endWithin)
		err := s.end(ctx, "tried again").Err()
		cancel()
		if err == nil {
			s.k.log.Info("a session could be ended after all", "grant", s.rec.Grant)
			s.mu.Lock()
			s.retrying = false
			s.mu.Unlock()
			return
		}
	}
}

// later runs something beside everything else, until Close.
func (k *Keeper) later(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed {
		k.serving.Go(f)
	}
}

// merge adds a later look to what was done before.
func (e Ending) merge(later Ending) Ending {
	e.Steps = append([]Step(nil), e.Steps...)
	for i, old := range e.Steps {
		now := later.Steps[i]
		if old.Outcome == Done && now.Outcome == NotNeeded {
			continue
		}
		e.Steps[i] = now
	}
	return e
}

// failure is a step's error.
func failure(s Step) error { return Ending{Steps: []Step{s}}.Err() }

// dropKey is the step that takes the key out.
func (k *Keeper) dropKey(grant string) Step {
	started := time.Now()
	k.keyMu.Lock()
	removed, err := k.keys.Remove(grant)
	k.keyMu.Unlock()
	s := Step{Effect: StepCredential, Outcome: NotNeeded, Detail: "the key is not in the key file", Took: time.Since(started)}
	switch {
	case err != nil:
		s.Outcome, s.Detail = Failed, err.Error()
	case removed:
		s.Outcome, s.Detail = Done, "the key was taken out of the key file"
	}
	return s
}

// killAll is the step that kills. A wrapper that has said that its shell ended is told when the rest is dealt with, and ends
// by itself, so that sshd passes the shell's exit status on. s.mu is held.
func (s *session) killAll(ctx context.Context, why string) Step {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, endWithin)
	defer cancel()
	step := Step{Effect: StepProcesses, Outcome: NotNeeded, Detail: "no process of the session runs"}
	if s.crew == nil {
		return step
	}
	var killed int
	var err error
	if s.conn != nil && why == shellEnded {
		killed, err = s.crew.kill(ctx, s.crew.root)
		_ = s.conn.send(message{Bye: true}) // it may be gone
		s.awaitWrapper(ctx)
	}
	rest, more := s.crew.kill(ctx, ident{})
	killed += rest
	if err = errors.Join(err, more); err == nil {
		err = s.dissolve(ctx)
	}
	step.Took = time.Since(started)
	switch {
	case err != nil:
		step.Outcome, step.Detail = Failed, err.Error()
	case killed > 0:
		step.Outcome, step.Detail = Done, fmt.Sprintf("%d processes killed and seen to be gone (%s)", killed, s.modeNow())
	case s.rec.Wrapper != (ident{}):
		step.Outcome, step.Detail = Done, "the shell has ended and nothing that it started runs"
	}
	s.hangUp()
	return step
}

// awaitWrapper gives a wrapper that has nothing left to do the time to end.
func (s *session) awaitWrapper(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, freezeWithin)
	defer cancel()
	_ = until(ctx, func() (bool, error) { // if it does not end it is killed
		list, err := s.crew.find()
		return len(list) == 0, err
	})
}

// shellEnded is why a session ends whose subject has left the shell.
const shellEnded = "the shell has ended"

// dissolve takes the empty control group away; while somebody is in it the session is not over.
func (s *session) dissolve(ctx context.Context) error {
	if s.crew.group == nil {
		return nil
	}
	err := until(ctx, func() (bool, error) {
		populated, err := s.crew.group.event("populated")
		return !populated, err
	})
	if err != nil {
		return fmt.Errorf("the control group does not empty: %w", err)
	}
	return s.crew.group.remove()
}

// hangUp ends the conversation with the wrapper.
func (s *session) hangUp() {
	if c := s.conn; c != nil {
		_ = c.conn.Close() // it is gone, most likely
	}
}
