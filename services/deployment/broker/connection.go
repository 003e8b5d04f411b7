// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// connection is a subject's connection, whose credential is proven and not consumed yet.
type connection struct {
	b        *Broker
	conn     *ssh.ServerConn
	channels <-chan ssh.NewChannel
	globals  <-chan *ssh.Request
	ref      Ref
	attempt  Attempt
	surface  surface

	channel ssh.Channel // the one session channel; set before anything else can use it
	target  ssh.Signer  // made for the target before the credential is consumed
	notes   chan note

	mu        sync.Mutex
	asked     asked
	terminal  terminal
	session   *session // once the credential is consumed
	refusals  int      // before that
	explained bool
}

// note is a text of the gateway for the subject's terminal.
type note struct {
	text string
	done chan<- struct{}
}

// maxRefusals is how many requests may be refused on a connection that has no session: whoever asks for more wants no console.
const maxRefusals = 32

// serve serves the connection until it ends; a session over it ends with it.
func (c *connection) serve() {
	defer c.conn.Close()
	ctx, cancel := context.WithCancel(c.b.ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	late := time.AfterFunc(shellWithin, func() {
		if !c.hasShell() {
			c.conn.Close()
		}
	})
	defer late.Stop()
	var parts sync.WaitGroup
	parts.Go(func() {
		for r := range c.globals {
			c.global(r)
		}
	})
	for offered := range c.channels {
		c.offer(ctx, &parts, offered)
	}
	cancel()
	c.lost("the subject's connection ended")
	parts.Wait()
}

// lost ends the session of a subject that has gone (N25).
func (c *connection) lost(text string) {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s != nil {
		s.terminate(CauseConnection, "", text, nil)
	}
}

func (c *connection) hasShell() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked.shell
}

func (c *connection) global(r *ssh.Request) {
	v, why := c.surface.global(r.Type)
	_ = r.Reply(false, nil)
	if v != drop {
		c.refuse(describe(r), why, false)
	}
}

func (c *connection) offer(ctx context.Context, parts *sync.WaitGroup, offered ssh.NewChannel) {
	c.mu.Lock()
	err := c.surface.channel(offered.ChannelType(), c.asked)
	if err == nil {
		c.asked.channel = true
	}
	c.mu.Unlock()
	if err != nil {
		_ = offered.Reject(ssh.Prohibited, err.Error())
		c.refuse("channel "+oneLine(offered.ChannelType(), 100), err.Error(), false)
		return
	}
	channel, requests, err := offered.Accept()
	if err != nil {
		return
	}
	c.channel = channel
	parts.Go(func() { c.speak(ctx) })
	parts.Go(func() {
		for r := range requests {
			c.request(ctx, parts, r)
		}
		c.lost("the subject closed the session") // the channel is closed, whatever becomes of the connection
	})
}

// request judges a request on the session channel.
func (c *connection) request(ctx context.Context, parts *sync.WaitGroup, r *ssh.Request) {
	c.mu.Lock()
	v, why := c.surface.request(r, c.asked)
	c.mu.Unlock()
	var err error
	if v == allow {
		switch r.Type {
		case "pty-req":
			err = c.setTerminal(r)
		case "window-change":
			err = c.resize(r)
		case "shell":
			c.mu.Lock()
			c.asked.shell = true
			c.mu.Unlock()
			parts.Go(func() { c.shell(ctx, r) })
			return
		}
	}
	if err != nil {
		v, why = deny, err.Error()
	}
	if v != allow {
		if v == deny {
			c.explain("refused: " + describe(r) + ": " + why)
		}
		_ = r.Reply(false, nil)
		c.refuse(describe(r), why, v == drop)
		return
	}
	_ = r.Reply(true, nil)
}

func (c *connection) setTerminal(r *ssh.Request) error {
	t, err := parseTerminal(r.Payload)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked.pty, c.terminal = true, t
	return nil
}

func (c *connection) resize(r *ssh.Request) error {
	z, err := parseSize(r.Payload)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.terminal.Columns, c.terminal.Rows, c.terminal.Width, c.terminal.Height = z.Columns, z.Rows, z.Width, z.Height
	s := c.session
	c.mu.Unlock()
	if s != nil {
		s.resize(z)
	}
	return nil
}

// shell consumes the credential and opens the session. What is answered is the rules' own text.
func (c *connection) shell(ctx context.Context, r *ssh.Request) {
	s, err := c.admit(ctx)
	if err == nil {
		err = s.open(ctx, c)
	}
	if err == nil {
		_ = r.Reply(true, nil)
		return
	}
	if errors.Is(err, errProbeAccepted) {
		_ = r.Reply(true, nil)
		c.hangUp()
		return
	}
	text := "the gateway cannot open the session now; ask who granted it"
	var no *Refusal
	if errors.As(err, &no) {
		text = no.Error()
	} else {
		c.b.cfg.Log.ErrorContext(ctx, "session not opened", "grant", c.ref.String(), "error", err)
	}
	c.farewell(text, explainWithin)
	_ = r.Reply(false, nil)
	c.hangUp()
}

// admit consumes the credential. It is the only way to a session, and only one caller in the life of a grant comes through.
func (c *connection) admit(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	a, s := c.attempt, c.b.find(c.ref)
	a.At = c.b.cfg.Clock.Now()
	var err error
	if c.target, err = newTargetKey(); err != nil {
		return nil, fmt.Errorf("key for the target: %w", err)
	}
	a.TargetKey = c.target.PublicKey()
	if s != nil {
		defer s.admits()()
		s.mu.Lock()
		a.Present = s.absent(a.At) == "" && s.state == StateWaiting
		s.mu.Unlock()
	}
	if c.b.isRevoked(c.ref) {
		no := refused(ReasonGrantState, "the access of grant %s was ended", c.ref)
		c.b.recordRefusal(c.ref, c.refusal("console", no))
		return nil, no
	}
	if err := c.b.cfg.Rules.Connect(ctx, c.ref, a); err != nil {
		var no *Refusal
		if s != nil && !errors.As(err, &no) {
			s.doubt()
		}
		return nil, err
	}
	if c.b.isProbe(a.Serial) {
		return nil, errProbeAccepted
	}
	if s == nil { // the watcher came while the rules waited for one
		s = c.b.find(c.ref)
	}
	// The watcher may have left since the rules were asked. The credential is used up then, and the grant has to end.
	if s == nil || !s.claim(c) {
		c.b.spawn(func() {
			if _, err := c.b.Terminate(c.b.ctx, c.ref, CauseOpen, "", "no watcher was there when the session was to open", nil); err != nil {
				c.b.cfg.Log.ErrorContext(c.b.ctx, "a used grant could not be ended", "grant", c.ref.String(), "error", err)
			}
		})
		return nil, refused(ReasonWatcherAbsent, "no watcher is there")
	}
	return s, nil
}

// admits notes that an attempt is under way, until the function that it returns is called.
func (s *session) admits() func() {
	add := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.admitting += n
	}
	add(1)
	return func() { add(-1) }
}

// refuse records a refused request: in the session's recording, or on its own before there is one.
func (c *connection) refuse(what, why string, quiet bool) {
	c.mu.Lock()
	s := c.session
	if s != nil && !s.recorded() {
		s = nil // it is being opened
	}
	if s == nil {
		c.refusals++
	}
	n := c.refusals
	c.mu.Unlock()
	switch {
	case s != nil:
		s.refuse(what, why, quiet)
	case n > maxRefusals:
		c.conn.Close()
	case !quiet:
		c.b.recordRefusal(c.ref, c.refusal(what, refused(ReasonSurface, "%s", why)))
	}
}

func (c *connection) refusal(what string, why *Refusal) RefusedAttempt {
	return RefusedAttempt{
		Source: c.attempt.Source, Client: c.attempt.Client, What: what, Reason: why.Reason, Text: why.Text, At: c.b.cfg.Clock.Now(),
	}
}

// explain says why something is refused; so that it is read, if the client may be about to leave.
func (c *connection) explain(text string) {
	c.mu.Lock()
	wait := c.session == nil && !c.explained
	c.explained = true
	c.mu.Unlock()
	if wait {
		c.farewell(text, explainWithin)
		return
	}
	c.say(text)
}

// say tells the subject something, if the terminal takes it: a subject that does not read must hold nothing up.
func (c *connection) say(text string) {
	select {
	case c.notes <- note{text: text}:
	default:
	}
}

const (
	// farewellWithin is how long a last word may take, explainWithin the reason of a refusal, which nothing has to wait for.
	farewellWithin = 250 * time.Millisecond
	explainWithin  = 2 * time.Second
)

// farewell says a last word and waits a little until it is shown. Stock clients leave as soon as a request fails, without
// showing what came just before; once they have answered another request they have.
func (c *connection) farewell(text string, within time.Duration) {
	late := time.NewTimer(within)
	defer late.Stop()
	written, shown := make(chan struct{}), make(chan struct{})
	select {
	case c.notes <- note{text, written}:
	case <-late.C:
		return
	}
	select {
	case <-written:
	case <-late.C:
		return
	}
	go func() {
		_, _, _ = c.conn.SendRequest("keepalive@openssh.com", true, nil) // ends with the connection at the latest
		close(shown)
	}()
	select {
	case <-shown:
	case <-late.C:
	}
}

// speak writes the notes. They go to the error stream, so that they never mix with the target's output, which alone is
// recorded as such.
func (c *connection) speak(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-c.notes:
			_, _ = c.channel.Stderr().Write([]byte("\r\n[epatch] " + oneLine(n.text, 1000) + "\r\n"))
			if n.done != nil {
				close(n.done)
			}
		}
	}
}

// hangUpWithin is how long a client may take to hang up by itself once its channel is closed. Closing at once could lose what it
// was told last.
const hangUpWithin = 2 * time.Second

func (c *connection) hangUp() {
	_ = c.channel.Close()
	time.AfterFunc(hangUpWithin, func() { c.conn.Close() })
}
