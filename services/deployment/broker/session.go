// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"cacert.org/emergency/pkg/recording"
)

// State of a session at the gateway.
type State string

// States. What a grant is besides, the history says.
const (
	StateWaiting State = "waiting" // people may watch; the subject has not come
	StateOpening State = "opening" // the credential is consumed, the target is being opened
	StateLive    State = "live"
	StateFrozen  State = "frozen"
	StateEnded   State = "ended"
)

// Status is how a session stands.
type Status struct {
	State State
	// Cause is why it is frozen or ended; Text what people have to know or do.
	Cause Cause
	Text  string
	Since time.Time
	// Ends is when it will be ended: the grace, the longest length or the first-use time, whichever applies first.
	Ends time.Time
	// Present is whether the watcher is present; Absent why not. Silent is whether a live session takes no input because the
	// watcher, whose lease is not over, was not heard of for too long.
	Present bool
	Absent  Cause
	Silent  bool
	// Recorder and Anchored say whether the recording can be written and whether the history takes its checkpoints.
	Recorder, Anchored bool
	// UnanchoredSince is when the oldest checkpoint was made that the history does not have; zero if it has all.
	UnanchoredSince time.Time
	// HostAgent is whether processes can be frozen.
	HostAgent bool
	// Offset and Seen are the output's length and how much of it the watcher has acknowledged; Discarded counts input.
	Offset, Seen, Discarded int64
}

// session is one grant's console, from the first watcher to the end. It outlives its end until the proof that nothing is left.
//
// Locks: order is for the order in which things are recorded and shown, and may be held while the disk is slow; mu is for the
// state, and is never held while anything is waited for, because the gate is shut under it. order before mu, never the reverse.
type session struct {
	b   *Broker
	box *outbox
	ctx context.Context // until the end
	end context.CancelFunc

	order sync.Mutex
	tape  *recording.Writer // set once, when the target is opened

	mu      sync.Mutex
	grant   Grant // Watcher, ArmedAt and limits change
	state   State
	cause   Cause
	text    string
	since   time.Time
	changed chan struct{} // closed and replaced at every change that somebody waits for
	wake    chan struct{} // has room for one: the loop has to look again
	shut    chan struct{} // closed when the gate is shut by a freeze, an end or silence; who opens it again makes a new one
	silence silence

	watching  watching
	hidden    concealment
	admitting int // attempts whose credential is being consumed
	flow      flow
	subject   *connection // once the credential is consumed
	line      *line       // once the target is open

	openedAt, liveSince, frozenAt time.Time
	live, frozen                  time.Duration
	agent                         bool
	recorder                      error // why the recording is broken
	full                          bool  // the recording has reached its limit
	marks                         int   // refused requests that became events
	unmarked                      int64 // and those that did not

	lastCheckpoint  time.Time
	checkpointing   bool
	unanchoredSince time.Time // when the oldest checkpoint was made that the history does not have
	anchoredFrames  int       // how many frames the history's last checkpoint covers
	freezing        *freezing

	resumeMu sync.Mutex // resumptions, one after the other; before mu and hostMu

	hostMu sync.Mutex // freezing and thawing of processes, one after the other
	ending Ending
	sealed *recording.Seal
	ended  chan struct{} // closed when ending is complete
	pumps  sync.WaitGroup
	access *access // the broker's key for the target
}

// flow counts output and input.
type flow struct {
	offset, seen int64
	toldSeen     int64   // what the recording says of seen
	unseen       []shown // output that is not acknowledged, oldest first
	frames       []Frame
	discarded    int64
	gap          int64 // discarded and not yet recorded
	activeAt     time.Time
}

// shown is when the output up to offset was shown.
type shown struct {
	offset int64
	at     time.Time
}

func newSession(b *Broker, g Grant) *session {
	ctx, end := context.WithCancel(b.ctx)
	s := &session{
		b: b, box: newOutbox(b.ctx, b.cfg.Log.With("grant", g.Ref.String())), ctx: ctx, end: end, grant: g,
		state: StateWaiting, since: b.cfg.Clock.Now(), changed: make(chan struct{}), wake: make(chan struct{}, 1),
		shut: make(chan struct{}), ended: make(chan struct{}), watching: newWatching(),
	}
	close(s.shut)
	return s
}

// say tells the subject something.
func (s *session) say(text string) {
	s.mu.Lock()
	c := s.subject
	s.mu.Unlock()
	if c != nil {
		c.say(text)
	}
}

// guard keeps a defect in one session from touching another: it ends this one.
func (s *session) guard(what string, f func()) {
	defer func() {
		if r := recover(); r != nil {
			s.b.cfg.Log.ErrorContext(s.b.ctx, "defect", "grant", s.grant.Ref.String(), "in", what, "panic", r, "stack", string(debug.Stack()))
			go s.terminate(CauseDefect, "", "a defect in the gateway ("+what+")", nil)
		}
	}()
	f()
}

// spawn runs a part of the session.
func (s *session) spawn(what string, f func()) {
	s.b.spawn(func() { s.guard(what, f) })
}

// notify tells everybody who waits for a change; mu is held.
func (s *session) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *session) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// set changes the state; mu is held.
func (s *session) set(state State, cause Cause, text string) {
	now := s.b.cfg.Clock.Now()
	switch s.state {
	case StateLive:
		s.live += now.Sub(s.liveSince)
	case StateFrozen:
		s.frozen += now.Sub(s.frozenAt)
	case StateWaiting, StateOpening, StateEnded:
	}
	s.state, s.cause, s.text, s.since = state, cause, text, now
	switch state {
	case StateLive:
		s.liveSince = now
		s.shut, s.silence = make(chan struct{}), silence{}
	case StateFrozen:
		s.frozenAt = now
		s.shutGate()
	case StateEnded:
		s.shutGate()
	case StateWaiting, StateOpening:
	}
	s.notify()
	s.rouse()
}

// shutGate stops input and voids what waits to be forwarded; mu is held.
func (s *session) shutGate() {
	if !closed(s.shut) {
		close(s.shut)
	}
}

// status is how it stands; mu is held.
func (s *session) status(now time.Time) Status {
	absent := s.absent(now)
	_, _, ends := s.limits(now)
	return Status{
		State: s.state, Cause: s.cause, Text: s.text, Since: s.since, Ends: ends, Present: absent == "", Absent: absent,
		Silent:   s.state == StateLive && s.silent(now),
		Recorder: s.recorder == nil, Anchored: !s.unanchored(now), UnanchoredSince: s.unanchoredSince, HostAgent: s.agent,
		Offset: s.flow.offset, Seen: s.flow.seen, Discarded: s.flow.discarded,
	}
}

// unanchored is whether a checkpoint has been under way for too long; mu is held.
func (s *session) unanchored(now time.Time) bool {
	return !s.unanchoredSince.IsZero() && now.Sub(s.unanchoredSince) > s.grant.Anchor
}

// blocked is why input may not flow at this moment, whatever the state says; "" if it may. mu is held. Each condition is one of
// the design's: the gate opens only while all of them hold, and it is asked at every input, so that no timer has to run for it.
func (s *session) blocked(now time.Time) Cause {
	if cause := s.absent(now); cause != "" {
		return cause
	}
	switch {
	case len(s.flow.unseen) > 0 && now.Sub(s.flow.unseen[0].at) > s.grant.WindowAge:
		return CauseWindow
	case s.recorder != nil:
		return CauseRecorder
	case s.full:
		return CauseRecording
	case s.unanchored(now):
		return CauseAnchor
	default:
		return ""
	}
}

// limits is the limit that has passed (and its words), and when the next one does; mu is held.
func (s *session) limits(now time.Time) (Cause, string, time.Time) {
	type limit struct {
		cause Cause
		text  string
		at    time.Time
	}
	var all []limit
	opened := limit{CauseMax, "the session has reached its longest length", s.openedAt.Add(s.grant.Max)}
	switch s.state {
	case StateWaiting:
		all = []limit{{CauseExpired, "nobody connected within the first-use time", s.grant.FirstUse}}
	case StateLive:
		all = []limit{opened, {CauseIdle, "nothing was typed or shown for " + s.grant.Idle.String(), s.flow.activeAt.Add(s.grant.Idle)}}
	case StateFrozen:
		all = []limit{opened, {CauseGrace, "frozen for longer than " + s.grant.Grace.String(), s.frozenAt.Add(s.grant.Grace)}}
	case StateOpening, StateEnded:
		return "", "", time.Time{}
	}
	next := all[0]
	for _, x := range all {
		if now.After(x.at) {
			return x.cause, x.text, x.at
		}
		if x.at.Before(next.at) {
			next = x
		}
	}
	return "", "", next.at
}

// record writes to the recording and then before the eyes of those who watch, in one order for both. Nothing is shown that was
// not recorded. The size limit and a broken recording freeze the session.
func (s *session) record(show func(offset int64) recording.Body, write func(*recording.Writer) error) error {
	s.order.Lock()
	defer s.order.Unlock()
	if s.tape == nil {
		return errors.New("there is no recording yet")
	}
	err := write(s.tape)
	if err != nil {
		s.recordingFailed(err)
		return err
	}
	offset := s.tape.Offset()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.b.cfg.Clock.Now()
	if show != nil {
		s.flow.frames = append(s.flow.frames, Frame{At: now, Offset: offset, Body: show(offset)})
	}
	if offset > s.flow.offset {
		if len(s.flow.unseen) == 0 {
			s.rouse() // its age is a new limit
		}
		s.flow.unseen = append(s.flow.unseen, shown{offset, now})
		s.flow.offset = offset
		s.flow.activeAt = now
	}
	s.notify()
	return nil
}

func (s *session) recordingFailed(err error) {
	cause := CauseRecorder
	s.mu.Lock()
	var limit *recording.LimitError
	switch {
	case errors.Is(err, recording.ErrEnded):
		s.mu.Unlock()
		return
	case errors.As(err, &limit):
		s.full, cause = true, CauseRecording
	default:
		s.recorder = err
	}
	s.mu.Unlock()
	s.b.cfg.Log.ErrorContext(s.b.ctx, "the recording cannot go on", "grant", s.grant.Ref.String(), "error", err)
	s.freezeSoon(cause)
}

// extend raises limits that were recorded already.
func (s *session) extend(by string, longer time.Duration, larger int64) error {
	if longer < 0 || larger < 0 {
		return refused(ReasonGrantState, "a limit is only ever extended")
	}
	if larger > 0 {
		s.mu.Lock()
		limit := s.grant.Recording + larger
		s.mu.Unlock()
		err := s.record(func(int64) recording.Body { return recording.Extended{By: by, Limit: limit} },
			func(w *recording.Writer) error { return w.Extend(by, limit) })
		if err != nil {
			return fmt.Errorf("extend the recording: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grant.Max += longer
	if larger > 0 {
		s.grant.Recording += larger
		s.full = false
	}
	s.notify()
	s.rouse()
	return nil
}

func (s *session) note(by, text string) error {
	return s.record(func(int64) recording.Body { return recording.Note{By: by, Text: text} },
		func(w *recording.Writer) error { return w.Note(by, text) })
}

// markedOneByOne is how many refused requests of a session become events each; the rest is counted, so that a subject cannot
// flood the history. In the recording each has its frame.
const markedOneByOne = 32

// refuse records a request that was refused; quiet ones only in the recording.
func (s *session) refuse(what, why string, quiet bool) {
	_ = s.record(func(int64) recording.Body { return recording.Refused{Request: what, Reason: why} },
		func(w *recording.Writer) error { return w.Refused(what, why) })
	if quiet {
		return
	}
	s.mu.Lock()
	s.marks++
	many := s.marks > markedOneByOne
	if many {
		s.unmarked++
	}
	s.mu.Unlock()
	if !many {
		s.mark(Mark{Kind: MarkRefused, Text: what + ": " + why})
	}
}

// mark makes something an event.
func (s *session) mark(m Mark) {
	s.mu.Lock()
	m.Offset, m.At = s.flow.offset, s.b.cfg.Clock.Now()
	s.mu.Unlock()
	s.box.add(s.b, item{what: "mark " + string(m.Kind), do: func(ctx context.Context) error { return s.b.cfg.Rules.Mark(ctx, s.grant.Ref, m) }})
}
