// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"cacert.org/emergency/pkg/recording"
)

const (
	// closeWithin is how long a connection may take to be closed, endHostWithin how long the host may take until the processes
	// are verified gone, recordWithin how long the recording may take until it is sealed.
	closeWithin   = time.Second
	endHostWithin = 5 * time.Second
	recordWithin  = 5 * time.Second
	// recordFirst is how long a person's record of an end waits for what is to be recorded before it.
	recordFirst = 2 * time.Second
)

// terminate ends the session, once; whoever comes later waits for the same ending. The gate is shut before anything else. The
// effects run beside each other: one that fails or hangs stops none of the others, and what is not known to be reached is not
// reported as reached (N15).
func (s *session) terminate(cause Cause, by, text string, record func(context.Context, Ending) error) Ending {
	s.mu.Lock()
	if s.state == StateEnded {
		s.mu.Unlock()
		<-s.ended
		s.recordEnding(record, true)
		return s.ending
	}
	s.set(StateEnded, cause, text)
	e := Ending{Cause: cause, By: by, Text: text, At: s.since, Opened: s.line != nil}
	connected := s.subject != nil
	s.mu.Unlock()
	s.end()
	all := map[string]func(context.Context) error{
		EffectInput:      func(context.Context) error { return nil }, // set has done it
		EffectCredential: s.revoke,
		EffectHost:       s.endHost,
	}
	if connected {
		all[EffectSubject], all[EffectTarget], all[EffectRecording] = s.closeSubject, s.closeTarget, s.seal
	}
	e.Effects = s.effects(s.b.ctx, all)
	s.mu.Lock()
	e.Offset, e.Discarded, e.Live, e.Frozen = s.flow.offset, s.flow.discarded, s.live, s.frozen
	if s.sealed != nil {
		e.Recording, e.Frame, e.Chain, e.SHA256 = s.recordingPath(), s.sealed.Frame, s.sealed.Chain, s.sealed.SHA256
	}
	s.finish(e)
	s.mu.Unlock()
	s.recordEnding(record, false)
	return e
}

// finish makes the ending known to those who wait for it; mu is held.
func (s *session) finish(e Ending) {
	s.ending = e
	close(s.ended)
	if len(s.watching.streams) == 0 {
		s.flow.frames = nil // nobody is left to read them, and nobody can come
	}
	s.notify()
}

// lapse ends a session that waits for its subject, without an effect and without a record: nothing was opened, and what becomes
// of the grant is not for the gateway to say. False if it waits no more.
func (s *session) lapse(cause Cause, text string) bool {
	s.mu.Lock()
	if s.state != StateWaiting {
		s.mu.Unlock()
		return false
	}
	s.set(StateEnded, cause, text)
	s.finish(Ending{Cause: cause, Text: text, At: s.since})
	s.mu.Unlock()
	s.end()
	s.b.forget(s)
	return true
}

// recordEnding has the history know of the end. Of a repetition only the caller's own record is called: the rules answer it with
// the first.
func (s *session) recordEnding(record func(context.Context, Ending) error, again bool) {
	var no *Refusal
	if record != nil {
		s.box.drain(recordFirst) // what came before the end is refused after it
		ctx, cancel := context.WithTimeout(s.b.ctx, callWithin)
		defer cancel()
		if err := record(ctx, s.ending); err == nil || errors.As(err, &no) {
			return
		}
	}
	if !again {
		s.box.add(s.b, item{what: "end", do: func(ctx context.Context) error { return s.b.cfg.Rules.Terminate(ctx, s.grant.Ref, s.ending) }})
	}
}

// effects runs all of them at once and returns when each has ended or has had its time.
func (s *session) effects(ctx context.Context, all map[string]func(context.Context) error) []Effect {
	var mu sync.Mutex
	var done []Effect
	var running sync.WaitGroup
	for name, f := range all {
		running.Go(func() {
			e := s.effect(ctx, name, f)
			mu.Lock()
			defer mu.Unlock()
			done = append(done, e)
		})
	}
	running.Wait()
	slices.SortFunc(done, func(a, b Effect) int { return strings.Compare(a.Name, b.Name) })
	return done
}

// effect runs one. Its time is the machine's: how long something took is a fact of this machine, not of the procedure.
func (s *session) effect(ctx context.Context, name string, f func(context.Context) error) Effect {
	within := closeWithin
	switch name {
	case EffectHost:
		within = endHostWithin
	case EffectRecording:
		within = recordWithin
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	began := time.Now()
	result := make(chan error, 1)
	go func() { // it may hang beyond its time, and nothing waits for it then
		defer func() {
			if r := recover(); r != nil {
				result <- fmt.Errorf("defect: %v", r)
			}
		}()
		result <- f(ctx)
	}()
	var err error
	select {
	case err = <-result:
	case <-ctx.Done():
		err = fmt.Errorf("not known after %v: %w", within, context.Cause(ctx))
	}
	e := Effect{Name: name, Done: err == nil, Took: time.Since(began)}
	if err != nil {
		e.Problem = oneLine(err.Error(), 500)
		s.b.cfg.Log.ErrorContext(s.b.ctx, "an effect of the end was not reached", "grant", s.grant.Ref.String(), "effect", name, "error", err)
	}
	return e
}

// revoke makes the gateway refuse the credential, whatever the rules know by now.
func (s *session) revoke(context.Context) error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.revoked[s.grant.Ref] = true
	return nil
}

func (b *Broker) isRevoked(ref Ref) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.revoked[ref]
}

func (s *session) endHost(ctx context.Context) error {
	err := s.b.cfg.Host.End(ctx, s.grant.Ref, s.grant.Host)
	if errors.Is(err, ErrNoAgent) {
		return fmt.Errorf("%w: remove the key's line by hand and look for processes; its connection is closed", err)
	}
	return err
}

// closeSubject says why and hangs up.
func (s *session) closeSubject(context.Context) error {
	c, why := s.subject, string(s.cause)+lead(": ", s.text)
	if s.cause == CauseOpen { // the text is for those who run the gateway
		why = textOpenFailed
	}
	c.farewell("the session has ended: "+why, farewellWithin)
	c.hangUp()
	gone := make(chan struct{})
	go func() {
		_ = c.conn.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(farewellWithin):
	}
	c.conn.Close()
	<-gone
	return nil
}

func lead(mark, text string) string {
	if text == "" {
		return ""
	}
	return mark + text
}

func (s *session) closeTarget(context.Context) error {
	s.mu.Lock()
	l := s.line
	s.mu.Unlock()
	if l == nil {
		return nil // whoever was opening it closes it: it finds the session ended
	}
	_ = l.channel.Close()
	_ = l.client.Close()
	_ = l.client.Wait()
	return nil
}

// seal writes the end frame behind the last byte that was shown.
func (s *session) seal(ctx context.Context) error {
	quiet := make(chan struct{})
	go func() {
		s.pumps.Wait()
		close(quiet)
	}()
	select {
	case <-quiet:
	case <-time.After(closeWithin): // the end frame says how much output there was; what comes later is shown to nobody
	}
	s.recordGap("typed until the session ended")
	s.order.Lock()
	defer s.order.Unlock()
	if s.tape == nil {
		return errors.New("there is no recording")
	}
	sealed, err := s.tape.End(string(s.cause))
	if err != nil {
		_ = s.tape.Close()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = &sealed
	s.flow.frames = append(s.flow.frames, Frame{At: s.b.cfg.Clock.Now(), Offset: s.flow.offset, Body: recording.End{Reason: string(s.cause)}})
	return ctx.Err()
}
