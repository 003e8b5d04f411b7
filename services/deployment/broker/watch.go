// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"cacert.org/emergency/pkg/recording"
)

// Mode is what somebody watches as. Nobody but the subject types.
type Mode string

// Modes.
const (
	// ModeWatcher is the person named by the grant, whose watching opens the gate.
	ModeWatcher Mode = "watcher"
	// ModeObserver sees everything and counts for nothing.
	ModeObserver Mode = "observer"
)

// Frame is a frame of the recording as those who watch see it.
type Frame struct {
	At time.Time
	// Offset is the length of the output up to and with this frame.
	Offset int64
	Body   recording.Body
}

// Person is somebody who watches, through however many streams.
type Person struct {
	ID   string
	Mode Mode
	// Counts is whether this is the watcher, present at this moment.
	Counts bool
}

// Event is what is new for a stream. Frames come from the first on, without a gap.
type Event struct {
	Frames []Frame
	// Status and Roster are set if they changed since the last event.
	Status *Status
	Roster []Person
	// Ending is set once, when the session has ended and everything it led to is known.
	Ending *Ending
}

const (
	// maxWatchers bounds the streams of one session.
	maxWatchers = 32
	// maxBatch bounds the bytes of output in one event, beyond its first frame.
	maxBatch = 64 << 10
)

// watching is who watches. It is guarded by the session's mu.
type watching struct {
	streams []*Watcher
	version int // grows with each change of the roster
}

func newWatching() watching { return watching{version: 1} }

// Watcher is one stream to somebody who watches.
type Watcher struct {
	s      *session
	person string
	mode   Mode

	// Guarded by the session's mu.
	renewedAt time.Time // zero until the first renewal, which confirms that the stream works
	hidden    bool
	closed    bool
	sent      int64 // output that was handed out

	// Of the reader alone.
	frame      int
	status     Status
	roster     int
	toldEnding bool
}

// Watch begins a stream of a session, from its first byte on. The caller has authenticated the person and, for an observer,
// knows that the person may look on. A watcher counts as present from the first Renew on.
func (b *Broker) Watch(ctx context.Context, ref Ref, person string, mode Mode) (*Watcher, error) {
	grant, err := b.cfg.Rules.Grant(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("grant %s: %w", ref, err)
	}
	switch {
	case person == "" || person == grant.Subject:
		return nil, refused(ReasonWatcherRole, "the subject of grant %s cannot watch it", ref)
	case grant.Over != "":
		return nil, refused(ReasonGrantState, "the session of grant %s is over (%s): play its recording", ref, grant.Over)
	case grant.Consumed && b.find(ref) == nil:
		return nil, refused(ReasonGrantState, "the process that had the session of grant %s is gone: it is being ended", ref)
	case mode == ModeWatcher && person != grant.Watcher:
		return nil, refused(ReasonWatcherRole, "the watcher of grant %s is another person: take over by name, or look on as observer", ref)
	case mode == ModeWatcher && grant.ArmedAt.IsZero():
		return nil, refused(ReasonWatcherAbsent, "arm the watch of grant %s first", ref)
	case mode != ModeWatcher && mode != ModeObserver:
		return nil, refused(ReasonWatcherRole, "nobody watches as %q", mode)
	}
	if err := b.Ready(); err != nil {
		return nil, err
	}
	s, err := b.session(grant)
	if err != nil {
		return nil, err
	}
	s.armed(grant.Watcher, grant.ArmedAt)
	return s.watch(person, mode)
}

func (s *session) watch(person string, mode Mode) (*Watcher, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == StateEnded {
		return nil, refused(ReasonGrantState, "the session of grant %s has ended: play its recording", s.grant.Ref)
	}
	if len(s.watching.streams) >= maxWatchers {
		return nil, refused(ReasonOverloaded, "%d streams of grant %s are open already: close some", maxWatchers, s.grant.Ref)
	}
	w := &Watcher{s: s, person: person, mode: mode}
	s.watching.streams = append(s.watching.streams, w)
	s.watching.version++
	s.notify()
	return w, nil
}

// armed makes a person the watcher, with a step-up at that time. An arming that is older than the known one is old news.
func (s *session) armed(person string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.Before(s.grant.ArmedAt) {
		return
	}
	s.grant.Watcher, s.grant.ArmedAt = person, at
	s.watching.version++
	s.notify()
	s.rouse()
}

// counts is whether a stream makes its person present now; mu is held.
func (s *session) counts(w *Watcher, now time.Time) bool {
	return s.isWatcher(w) && !w.hidden && !w.renewedAt.IsZero() && now.Sub(w.renewedAt) <= s.grant.Lease
}

func (s *session) isWatcher(w *Watcher) bool {
	return w.mode == ModeWatcher && w.person == s.grant.Watcher && !w.closed
}

// absent is why the watcher does not count as present; "" if present. It is about the person: one good stream of any number is
// enough, and any number of streams is one person. mu is held.
func (s *session) absent(now time.Time) Cause {
	hidden := false
	for _, w := range s.watching.streams {
		if s.counts(w, now) {
			if now.Sub(s.grant.ArmedAt) > s.grant.Presence {
				return CausePresence
			}
			return ""
		}
		hidden = hidden || s.isWatcher(w) && w.hidden && now.Sub(w.renewedAt) <= s.grant.Lease
	}
	if hidden {
		return CauseHidden
	}
	return CauseLease
}

// lastHeard is when the watcher gave a sign of life last, with the view visible; mu is held.
func (s *session) lastHeard() time.Time {
	var last time.Time
	for _, w := range s.watching.streams {
		if s.isWatcher(w) && !w.hidden && w.renewedAt.After(last) {
			last = w.renewedAt
		}
	}
	return last
}

// people is the roster: persons, each once; mu is held.
func (s *session) people(now time.Time) []Person {
	var all []Person
	for _, w := range s.watching.streams {
		p := Person{ID: w.person, Mode: ModeObserver, Counts: s.counts(w, now)}
		if s.isWatcher(w) {
			p.Mode = ModeWatcher
		}
		if i := slices.IndexFunc(all, func(q Person) bool { return q.ID == p.ID }); i < 0 {
			all = append(all, p)
		} else if all[i].Mode == ModeObserver || p.Counts {
			all[i] = p
		}
	}
	return all
}

// Next waits for something new and returns it; io.EOF when the session has ended and everything was told. It is for one
// goroutine at a time. A slow reader delays nobody but, if it is the watcher's, the session's output.
func (w *Watcher) Next(ctx context.Context) (Event, error) {
	for {
		w.s.mu.Lock()
		changed := w.s.changed
		e, some := w.news()
		over := w.closed || w.toldEnding && !some
		w.s.mu.Unlock()
		if some {
			return e, nil
		}
		if over {
			return Event{}, io.EOF
		}
		select {
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-changed:
		}
	}
}

// news collects what is new; mu is held.
func (w *Watcher) news() (Event, bool) {
	s := w.s
	if w.closed {
		return Event{}, false
	}
	var e Event
	for size := 0; w.frame < len(s.flow.frames) && size < maxBatch; w.frame++ {
		f := s.flow.frames[w.frame]
		if out, ok := f.Body.(recording.Output); ok {
			size += len(out.Data)
		}
		e.Frames = append(e.Frames, f)
		w.sent = f.Offset
	}
	now := s.b.cfg.Clock.Now()
	if status := s.status(now); w.differs(status) {
		w.status, e.Status = status, &status
	}
	if w.roster != s.watching.version {
		w.roster, e.Roster = s.watching.version, s.people(now)
	}
	select {
	case <-s.ended:
		if !w.toldEnding && w.frame == len(s.flow.frames) {
			ending := s.ending
			w.toldEnding, e.Ending = true, &ending
		}
	default:
	}
	return e, len(e.Frames) > 0 || e.Status != nil || e.Roster != nil || e.Ending != nil
}

// differs is whether a status says something new; how much was shown is told by the frames.
func (w *Watcher) differs(now Status) bool {
	now.Offset, now.Seen, now.Discarded = w.status.Offset, w.status.Seen, w.status.Discarded
	now.UnanchoredSince = w.status.UnanchoredSince
	return now != w.status
}

// Ack says that the stream's terminal has shown the output up to offset. Only what was handed out can be acknowledged, and only
// the watcher's acknowledgement opens the window.
func (w *Watcher) Ack(offset int64) error {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if offset < 0 || offset > w.sent {
		return refused(ReasonWatcherRole, "output up to %d cannot have been seen: %d bytes were sent", offset, w.sent)
	}
	if !s.isWatcher(w) || offset <= s.flow.seen {
		return nil
	}
	s.flow.seen = offset
	n := 0
	for n < len(s.flow.unseen) && s.flow.unseen[n].offset <= offset {
		n++
	}
	s.flow.unseen = slices.Delete(s.flow.unseen, 0, n)
	s.notify()
	return nil
}

// Renew is the sign of life that the lease counts from; hidden says that what is shown is not visible (a background tab). It
// also puts into the recording how far the watcher has seen.
func (w *Watcher) Renew(hidden bool) error {
	s := w.s
	s.mu.Lock()
	if w.closed || s.state == StateEnded {
		s.mu.Unlock()
		return refused(ReasonGrantState, "the session of grant %s is over", s.grant.Ref)
	}
	now := s.b.cfg.Clock.Now()
	before := s.absent(now)
	changed := w.hidden != hidden || w.renewedAt.IsZero()
	w.renewedAt, w.hidden = now, hidden
	if changed || before != s.absent(now) {
		s.watching.version++
		s.notify()
		s.rouse()
	}
	back := s.heard(now)
	seen := s.flow.seen
	tell := s.isWatcher(w) && seen > s.flow.toldSeen
	if tell {
		s.flow.toldSeen = seen
	}
	s.mu.Unlock()
	if back {
		s.recordGap(whySilent)
		s.say("the watcher is heard again: go on")
	}
	if tell {
		_ = s.record(nil, func(r *recording.Writer) error { return r.Ack(w.person, seen) })
	}
	return nil
}

// Close ends the stream. A watcher whose last stream is closed is absent from this moment on.
func (w *Watcher) Close() {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	s.watching.streams = slices.DeleteFunc(s.watching.streams, func(x *Watcher) bool { return x == w })
	s.watching.version++
	if s.state == StateEnded && len(s.watching.streams) == 0 {
		s.flow.frames = nil // nobody is left to read them, and nobody can come
	}
	s.notify()
	s.rouse()
}
