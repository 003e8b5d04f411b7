// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"cacert.org/emergency/pkg/recording"
)

// line is the two connections of an open session.
type line struct {
	c       *connection
	client  *ssh.Client
	channel ssh.Channel // on the target
	queue   chan typed  // input on its way to the target
	out     sync.Mutex  // of writes to the subject
}

const (
	// piece is how much input is judged at once, queued how many pieces may wait for a target that does not read.
	piece  = 4 << 10
	queued = 16
	// block is how much output is recorded and shown at once.
	block = 32 << 10
)

// claim takes the session for the connection whose attempt consumed the credential.
func (s *session) claim(c *connection) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != StateWaiting || s.absent(s.b.cfg.Clock.Now()) != "" {
		return false
	}
	c.session = s
	s.subject = c
	s.set(StateOpening, "", "")
	return true
}

// open leads from the consumed credential to the live session: recorder, host, target, shell, and the history's word that it is
// open. No byte flows in either direction before that. Whatever fails ends the grant.
func (s *session) open(ctx context.Context, c *connection) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(s.ctx, cancel)
	defer stop()
	s.spawn("input", func() { s.readInput(c) })
	err := s.openLine(ctx, c)
	if err != nil {
		if e := s.terminate(CauseOpen, "", oneLine(err.Error(), 500), nil); e.Cause != CauseOpen {
			// Somebody ended it while the host was being asked to open: what the host did after its end has to end too.
			s.effect(s.b.ctx, EffectHost, s.endHost)
		}
		var no *Refusal
		if !errors.As(err, &no) {
			s.b.cfg.Log.ErrorContext(s.b.ctx, "session not opened", "grant", s.grant.Ref.String(), "error", err)
			return refused(ReasonGrantState, "%s", textOpenFailed)
		}
	}
	return err
}

// openHostWithin is how long the agent may take to verify the history and to install the key.
const openHostWithin = 15 * time.Second

const textOpenFailed = "the target could not be opened, and the credential is used up: a new grant is needed"

func (s *session) openLine(ctx context.Context, c *connection) error {
	c.mu.Lock()
	t := c.terminal
	c.mu.Unlock()
	if err := s.createRecording(t); err != nil {
		return err
	}
	now := s.b.cfg.Clock.Now()
	target, err := s.b.cfg.Targets.Target(s.grant.Host)
	if err != nil {
		return fmt.Errorf("target %s: %w", s.grant.Host, err)
	}
	s.mu.Lock()
	a := newAccess(s.grant, target, now.Add(s.grant.Max), c.target)
	s.access, s.agent = a, true // until the host says otherwise
	s.mu.Unlock()
	asked, done := context.WithTimeout(ctx, openHostWithin)
	err = s.b.cfg.Host.Open(asked, a.Access)
	done()
	if err != nil && !errors.Is(err, ErrNoAgent) {
		return fmt.Errorf("open the access on %s: %w", s.grant.Host, err)
	}
	agent := err == nil
	client, err := s.reach(ctx, a, agent)
	if err != nil {
		return err
	}
	l, requests, err := startShell(ctx, client, t)
	if err != nil {
		client.Close()
		return fmt.Errorf("shell on %s: %w", s.grant.Host, err)
	}
	l.c = c
	opening := Opening{
		Attempt: c.attempt, Term: t.Term, Columns: t.Columns, Rows: t.Rows, HostAgent: agent, Recording: s.recordingName(),
		At: s.b.cfg.Clock.Now(),
	}
	call, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	if err := s.b.cfg.Rules.Opened(call, s.grant.Ref, opening); err != nil {
		client.Close()
		return fmt.Errorf("record the opening: %w", err)
	}
	return s.goLive(l, t, requests, agent)
}

// startShell opens the one channel on the target: the subject's terminal and a shell.
func startShell(ctx context.Context, client *ssh.Client, t terminal) (*line, <-chan *ssh.Request, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	defer context.AfterFunc(ctx, func() { client.Close() })()
	channel, requests, err := client.OpenChannel("session", nil)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range []struct {
		name    string
		payload []byte
	}{{"pty-req", ssh.Marshal(t)}, {"shell", nil}} {
		ok, err := channel.SendRequest(r.name, true, r.payload)
		if err == nil && !ok {
			err = errors.New("the target refuses it")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return &line{client: client, channel: channel, queue: make(chan typed, queued)}, requests, nil
}

func (s *session) goLive(l *line, t terminal, requests <-chan *ssh.Request, agent bool) error {
	s.mu.Lock()
	if s.state != StateOpening {
		s.mu.Unlock()
		l.client.Close()
		return refused(ReasonGrantState, "the grant was ended while the session was being opened")
	}
	now := s.b.cfg.Clock.Now()
	s.line, s.agent, s.openedAt, s.flow.activeAt, s.lastCheckpoint = l, agent, now, now, now
	s.set(StateLive, "", "")
	s.pumps.Add(2)
	s.mu.Unlock()
	s.recordGap("typed before the session was open")
	s.catchUp(l, t)
	exit := make(chan int, 1)
	s.spawn("target's requests", func() { serveTarget(requests, exit) })
	s.spawn("typed", func() { s.forwardInput(l) })
	s.spawn("error stream", func() {
		defer s.pumps.Done()
		s.pump(l, l.channel.Stderr())
	})
	s.spawn("output", func() {
		defer s.pumps.Done()
		if s.pump(l, l.channel) {
			s.spawn("exit", func() { s.targetEnded(l, exit) })
		}
	})
	return nil
}

// serveTarget reads the exit status and answers what else the target asks, which is nothing that is needed.
func serveTarget(requests <-chan *ssh.Request, exit chan<- int) {
	defer close(exit)
	for r := range requests {
		var status struct{ Status uint32 }
		if r.Type == "exit-status" && ssh.Unmarshal(r.Payload, &status) == nil {
			select {
			case exit <- int(status.Status):
			default:
			}
		}
		if r.Type == "exit-signal" {
			select {
			case exit <- 255:
			default:
			}
		}
		_ = r.Reply(false, nil)
	}
}

// statusWithin is how long the target may take to say with which status its shell ended, after its output has.
const statusWithin = 2 * time.Second

// targetEnded ends the session after the last byte of output: the shell has ended, or the target is gone.
func (s *session) targetEnded(l *line, exit <-chan int) {
	wait := time.NewTimer(statusWithin)
	defer wait.Stop()
	select {
	case status, ok := <-exit:
		if !ok {
			break
		}
		_ = s.record(func(int64) recording.Body { return recording.Exit{Status: status} },
			func(w *recording.Writer) error { return w.Exit(status) })
		_, _ = l.c.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
		s.terminate(CauseExit, "", fmt.Sprintf("the shell ended with status %d", status), nil)
		return
	case <-wait.C:
	}
	s.terminate(CauseTarget, "", "the target's connection ended", nil)
}
