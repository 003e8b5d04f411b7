// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"bytes"
	"errors"
	"io"

	"golang.org/x/crypto/ssh"

	"cacert.org/emergency/pkg/recording"
)

// typed is input that passed the gate; gate is closed when that gate was shut, and input that is still waiting then is void.
type typed struct {
	data []byte
	gate <-chan struct{}
	end  bool // the subject types no more
}

// readInput takes what the subject types. It never waits while the gate is shut, so that nothing is left lying in a buffer that
// would run after a resumption (N5): what comes is judged when it comes, and thrown away if the gate is shut.
func (s *session) readInput(c *connection) {
	buf := make([]byte, piece)
	for {
		n, err := c.channel.Read(buf)
		if n > 0 {
			s.take(append([]byte(nil), buf[:n]...))
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				s.endInput()
			}
			return
		}
	}
}

// take queues input, or discards it.
func (s *session) take(p []byte) {
	gate, open := s.gate()
	if !open {
		s.discard(len(p))
		return
	}
	s.enqueue(typed{data: p, gate: gate})
}

func (s *session) enqueue(t typed) {
	s.mu.Lock()
	l := s.line
	s.mu.Unlock()
	select {
	case <-t.gate:
		s.discard(len(t.data))
	case l.queue <- t:
	}
}

// endInput lets the target know that no more input comes.
func (s *session) endInput() {
	if gate, open := s.gate(); open {
		s.enqueue(typed{gate: gate, end: true})
	}
}

// gate is whether input may flow now, with the channel that is closed as soon as it may not. If it may not although the session
// is live, this freezes it, or shuts the gate if it is only silence: nobody needs to wait until the loop sees it too.
func (s *session) gate() (<-chan struct{}, bool) {
	s.mu.Lock()
	live, cause := s.state == StateLive, Cause("")
	if live {
		now := s.b.cfg.Clock.Now()
		cause = s.blocked(now)
		s.listen(now)
	}
	gate := s.shut
	s.mu.Unlock()
	if cause != "" {
		s.freezeSoon(cause)
	}
	return gate, live && cause == "" && !closed(gate)
}

// void is whether the gate through which input came was shut since, or has to be now.
func (s *session) void(gate <-chan struct{}) bool {
	if _, open := s.gate(); !open {
		return true
	}
	return closed(gate)
}

func (s *session) discard(n int) {
	s.mu.Lock()
	s.flow.discarded += int64(n)
	s.flow.gap += int64(n)
	tell := n > 0 && s.silence.on && !s.silence.told
	s.silence.told = s.silence.told || tell
	s.mu.Unlock()
	if tell {
		s.say("the watcher was not heard of for " + s.grant.Silence.String() + ": what you type is discarded until it is")
	}
}

// recordGap records what was discarded since the last time.
func (s *session) recordGap(why string) {
	s.mu.Lock()
	n := s.takeGap()
	s.mu.Unlock()
	s.recordDiscarded(n, why)
}

// takeGap is how much was discarded since the last time; mu is held.
func (s *session) takeGap() int64 {
	n := s.flow.gap
	s.flow.gap = 0
	return n
}

func (s *session) recordDiscarded(n int64, why string) {
	if n == 0 {
		return
	}
	_ = s.record(func(int64) recording.Body { return recording.Discarded{Bytes: n, Cause: why} },
		func(w *recording.Writer) error { return w.Discarded(n, why) })
	s.mark(Mark{Kind: MarkGap, Bytes: n, Text: why})
}

// forwardInput records input and hands it to the target, in small pieces, each judged again: what was waiting when the gate was
// shut is thrown away.
func (s *session) forwardInput(l *line) {
	for {
		var t typed
		select {
		case <-s.ctx.Done():
			return
		case t = <-l.queue:
		}
		if !s.forward(l, t) {
			return
		}
	}
}

func (s *session) forward(l *line, t typed) bool {
	if s.void(t.gate) {
		s.discard(len(t.data))
		return true
	}
	if t.end {
		_ = l.channel.CloseWrite()
		return true
	}
	by := s.grant.Subject
	err := s.record(func(int64) recording.Body { return recording.Typed{By: by, Length: len(t.data)} },
		func(w *recording.Writer) error { return w.Typed(by, t.data) })
	if err != nil || s.void(t.gate) { // the disk may have taken its time
		s.discard(len(t.data))
		return true
	}
	s.mu.Lock()
	s.flow.activeAt = s.b.cfg.Clock.Now()
	s.mu.Unlock()
	_, err = l.channel.Write(t.data)
	return err == nil
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// pump brings the target's output to the subject and to those who watch: recorded first, never more than the window allows. A
// full window makes it wait, which makes the target's sshd wait, which makes the program wait: nothing is dropped, and nobody is
// killed for being fast (N31). It returns whether it came to the end of the target's output; otherwise the session has ended, or
// will because of what kept the output from being recorded or shown.
func (s *session) pump(l *line, from io.Reader) bool {
	buf := make([]byte, block)
	for {
		n := s.room()
		if n == 0 {
			return false
		}
		n, err := from.Read(buf[:n])
		if n > 0 && !s.show(l, bytes.Clone(buf[:n])) {
			return false
		}
		if err != nil {
			return true
		}
	}
}

// room waits until output may be read, and returns how much; 0 at the end.
func (s *session) room() int {
	for {
		s.mu.Lock()
		changed, left := s.changed, s.grant.Window-(s.flow.offset-s.flow.seen)
		wait := s.full || s.recorder != nil
		over := s.state == StateEnded
		s.mu.Unlock()
		switch {
		case over:
			return 0
		case left > 0 && !wait:
			return int(min(left, block))
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
		}
	}
}

// show records output, which also puts it before those who watch, and then gives it to the subject. What cannot be recorded is
// shown to nobody; what only found the recording full is kept until the watcher has decided.
func (s *session) show(l *line, p []byte) bool {
	body := func(int64) recording.Body { return recording.Output{Data: p} }
	write := func(w *recording.Writer) error {
		_, err := w.Output(p)
		return err
	}
	for err := s.record(body, write); err != nil; err = s.record(body, write) {
		var limit *recording.LimitError
		if !errors.As(err, &limit) || s.room() == 0 {
			return false
		}
	}
	s.noteConcealment(p)
	l.out.Lock()
	defer l.out.Unlock()
	_, err := l.c.channel.Write(p)
	return err == nil
}

// resize records a new size and tells the target.
func (s *session) resize(z size) {
	s.mu.Lock()
	l := s.line
	s.mu.Unlock()
	if l == nil {
		return // catchUp tells it
	}
	err := s.record(func(int64) recording.Body { return recording.Resize{Cols: int(z.Columns), Rows: int(z.Rows)} },
		func(w *recording.Writer) error { return w.Resize(int(z.Columns), int(z.Rows)) })
	if err == nil {
		_, _ = l.channel.SendRequest("window-change", false, ssh.Marshal(z))
	}
}

// catchUp tells the target a size that came while it was being opened.
func (s *session) catchUp(l *line, t terminal) {
	l.c.mu.Lock()
	now := l.c.terminal
	l.c.mu.Unlock()
	if z := (size{now.Columns, now.Rows, now.Width, now.Height}); z != (size{t.Columns, t.Rows, t.Width, t.Height}) {
		s.resize(z)
	}
}
