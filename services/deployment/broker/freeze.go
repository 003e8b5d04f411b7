// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cacert.org/emergency/pkg/recording"
)

const (
	// freezeWithin is watch.freeze_within: how long the host may take to freeze the processes.
	freezeWithin = time.Second
	// freezeAgain is how long the gateway waits, by the machine's clock, until it tells a host once more that did not freeze.
	freezeAgain = time.Second
)

// freezing is a freeze of which the gate is shut, and the rest is under way.
type freezing struct {
	s    *session
	f    Freezing
	done chan struct{} // closed when it is known how far it reaches
	gap  int64         // what was discarded in the silence before it

	// Guarded by the session's mu: closed when the resumption that is under way is recorded, or will not be; nil if there is none.
	resuming chan struct{}
	// after is resuming of the freeze before, if this one overtook its resumption: the history has to have that first.
	after <-chan struct{}
}

// freezeSoon freezes and records it, without waiting for either.
func (s *session) freezeSoon(cause Cause) {
	if f := s.freeze(cause); f != nil {
		s.spawn("freeze", func() { _, _ = f.finish(s.b.ctx, nil) })
	}
}

// freeze shuts the gate at once, and keeps it shut if the session is about to be resumed; nil if it is neither live nor that. The caller calls
// finish.
func (s *session) freeze(cause Cause) *freezing {
	s.mu.Lock()
	var after chan struct{}
	if s.state == StateFrozen && s.freezing != nil {
		after = s.freezing.resuming
	}
	if s.state != StateLive && after == nil {
		s.mu.Unlock()
		return nil
	}
	s.set(StateFrozen, cause, "")
	f := &freezing{s: s, done: make(chan struct{}), after: after, f: Freezing{
		Cause: cause, Mode: FreezeInput, Offset: s.flow.offset, Seen: s.flow.seen, At: s.since,
	}}
	if s.silence.on {
		f.gap = s.takeGap()
	}
	s.freezing = f
	s.mu.Unlock()
	s.spawn("freeze the host", f.host)
	return f
}

// host freezes the processes. A host that does not answer is told again for as long as the session is frozen: the input is shut
// anyway, but what runs there goes on unseen.
func (f *freezing) host() {
	s := f.s
	known := sync.OnceFunc(func() { close(f.done) })
	defer known() // a defect in the host's part must not keep anybody waiting
	err := s.freezeHost(nil)
	if err == nil {
		f.f.Mode = FreezeProcess
	} else {
		f.f.Problem = err.Error()
	}
	s.recordDiscarded(f.gap, whySilent)
	_ = s.record(func(int64) recording.Body { return recording.Frozen{Cause: string(f.f.Cause), Mode: string(f.f.Mode)} },
		func(w *recording.Writer) error { return w.Freeze(string(f.f.Cause), string(f.f.Mode)) })
	s.say("frozen (" + string(f.f.Cause) + "): what you type is discarded")
	known()
	if err != nil && !errors.Is(err, ErrNoAgent) {
		f.again()
	}
}

// again tells the host until it has frozen or need not any more.
func (f *freezing) again() {
	s := f.s
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(freezeAgain):
		}
		switch err := s.freezeHost(f); {
		case errors.Is(err, errOver):
			return
		case err == nil:
			s.mark(Mark{Kind: MarkFrozen, Text: "the processes stand still now"})
			return
		}
	}
}

// standing is whether f is the freeze that holds.
func (s *session) standing(f *freezing) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == StateFrozen && s.freezing == f
}

// errOver means that there is nothing to freeze any more.
var errOver = errors.New("the freeze is over")

// freezeHost tells the host, unless f (if not nil) does not hold any more.
func (s *session) freezeHost(f *freezing) error {
	s.hostMu.Lock()
	defer s.hostMu.Unlock()
	if f != nil && !s.standing(f) {
		return errOver
	}
	ctx, cancel := context.WithTimeout(s.ctx, freezeWithin)
	defer cancel()
	return s.b.cfg.Host.Freeze(ctx, s.grant.Ref, s.grant.Host)
}

// finish waits until it is known how far the freeze reaches, and records it.
func (f *freezing) finish(ctx context.Context, record func(context.Context, Freezing) error) (Freezing, error) {
	<-f.done
	if f.after != nil {
		<-f.after
	}
	var no *Refusal
	if record != nil {
		if err := record(ctx, f.f); err == nil || errors.As(err, &no) {
			return f.f, err
		}
	}
	s := f.s
	s.box.add(s.b, item{what: "freeze", do: func(ctx context.Context) error { return s.b.cfg.Rules.Freeze(ctx, s.grant.Ref, f.f) }})
	return f.f, nil
}

// resume records that the session goes on, thaws the processes and opens the gate, if what is needed for it is there. One resumption at a time:
// who comes second finds what the first has made of it.
func (s *session) resume(ctx context.Context, by, reason string, record func(context.Context) error) error {
	s.resumeMu.Lock()
	defer s.resumeMu.Unlock()
	s.mu.Lock()
	f := s.freezing
	if s.state != StateFrozen || f == nil {
		s.mu.Unlock()
		return refused(ReasonGrantState, "the session of grant %s is not frozen", s.grant.Ref)
	}
	recorded := make(chan struct{})
	known := sync.OnceFunc(func() { close(recorded) })
	f.resuming = recorded // from here on a freeze counts, though the session is not live yet
	s.mu.Unlock()
	defer func() {
		known()
		s.mu.Lock()
		defer s.mu.Unlock()
		f.resuming = nil
	}()
	if err := record(ctx); err != nil {
		return err
	}
	known()
	<-f.done
	return s.goOn(ctx, f, by, reason)
}

// goOn ends a freeze that still holds.
func (s *session) goOn(ctx context.Context, f *freezing, by, reason string) error {
	s.hostMu.Lock()
	defer s.hostMu.Unlock()
	if !s.standing(f) {
		return s.overtaken()
	}
	cause, err := s.thaw(ctx)
	if !s.standing(f) {
		return s.overtaken() // who froze it meanwhile waits to tell the host, and records it
	}
	if err != nil {
		s.recordFrozenAgain(f, cause, err)
		return err
	}
	s.recordGap("typed while the session was frozen")
	_ = s.record(func(int64) recording.Body { return recording.Thawed{By: by, Reason: reason} },
		func(w *recording.Writer) error { return w.Thaw(by, reason) })
	s.say("resumed")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != StateFrozen || s.freezing != f {
		return s.overtaken()
	}
	s.freezing = nil
	s.flow.activeAt = s.b.cfg.Clock.Now()
	s.set(StateLive, "", "")
	return nil
}

func (s *session) overtaken() error {
	return refused(ReasonGrantState, "the session of grant %s was frozen again, or ended, meanwhile", s.grant.Ref)
}

// thaw asks for everything once more before a process moves: what the rules decided on may be over. The cause is why the session
// stays frozen.
func (s *session) thaw(ctx context.Context) (Cause, error) {
	s.mu.Lock()
	cause := s.blocked(s.b.cfg.Clock.Now())
	s.mu.Unlock()
	if cause != "" {
		return cause, refused(reasonOf(cause), "the session stays frozen: %s", cause)
	}
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	// Always: a freeze of which nothing was heard may have been done all the same.
	if err := s.b.cfg.Host.Thaw(ctx, s.grant.Ref, s.grant.Host); err != nil && !errors.Is(err, ErrNoAgent) {
		return CauseThaw, fmt.Errorf("the host could not let the processes go on: %w", err)
	}
	return "", nil
}

// reasonOf is the rule by which a session stays frozen.
func reasonOf(c Cause) string {
	switch c {
	case CauseRecorder, CauseAnchor:
		return ReasonRecorder
	case CauseRecording:
		return ReasonLimit
	default:
		return ReasonWatcherAbsent
	}
}

// recordFrozenAgain tells the history, which has the session live, that it is not.
func (s *session) recordFrozenAgain(f *freezing, cause Cause, problem error) {
	again := f.f
	again.Cause, again.At = cause, s.b.cfg.Clock.Now()
	if again.Problem == "" {
		again.Problem = problem.Error()
	}
	s.box.add(s.b, item{what: "freeze", do: func(ctx context.Context) error { return s.b.cfg.Rules.Freeze(ctx, s.grant.Ref, again) }})
}
