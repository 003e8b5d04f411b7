// SPDX-License-Identifier: Apache-2.0

// Package irc pages by IRC, to a nick or a channel, over one connection that mends itself.
//
// The receipt: Sent when the server has answered the PING behind the lines without an error for one of them; that is
// all IRC can prove, so nothing is ever Delivered. Failed when each line was refused, or none was sent. Unknown when
// the connection was lost in between, or only some lines were refused; it is not tried again, because nobody at the
// other end would recognise the repetition. While there is no connection Send asks for one and says why there is none.
//
// A nick is whoever has it now: pages to nicks belong on networks where nicks are protected. Text is for reading only;
// it cannot begin another line or command, and what does not fit is cut with a note, after the link.
package irc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"cacert.org/emergency/services/notification/channel"
)

const (
	// maxPieces is how many lines one page has at most.
	maxPieces = 6
	// stable is how long a connection must have lasted for the next pause to be short again.
	stable = time.Minute
	// fresh is how long a failed attempt to connect answers for the next page.
	fresh = 5 * time.Second
)

// Client is the channel. Run keeps the connection.
type Client struct {
	cfg     Config
	tls     *tls.Config
	clock   channel.Clock
	log     *slog.Logger
	running atomic.Bool
	// turn is held by the page that is being sent.
	turn chan struct{}
	// hurry ends the pause between two attempts to connect.
	hurry chan struct{}

	mu      sync.Mutex
	up      *session      // nil while there is none
	why     *downError    // after a failed attempt, until the next begins
	triedAt time.Time     // end of the last attempt
	changed chan struct{} // closed at each change of the three
}

// New reads the files of the configuration and checks it.
func New(cfg Config, clock channel.Clock, log *slog.Logger) (*Client, error) {
	conf, err := cfg.load()
	if err != nil {
		return nil, err
	}
	return &Client{cfg: cfg.withDefaults(), tls: conf, clock: clock, log: log, turn: make(chan struct{}, 1), hurry: make(chan struct{}, 1), changed: make(chan struct{})}, nil
}

// Name is "irc".
func (c *Client) Name() string { return "irc" }

// Run keeps a connection until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	if c.running.Swap(true) {
		return errors.New("irc: runs already")
	}
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.Multiplier, pause.MaxInterval = time.Second, 2, 2*time.Minute
	pause.Reset()
	for ctx.Err() == nil {
		began := c.clock.Now()
		err := c.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if c.clock.Now().Sub(began) > stable+patience {
			pause.Reset()
		}
		next := pause.NextBackOff()
		c.log.WarnContext(ctx, "irc: no connection", "error", err, "next_try_in", next)
		select {
		case <-c.hurry:
		case <-c.clock.After(next):
		case <-ctx.Done():
		}
	}
	c.set(nil, &downError{detail: "the service is stopping", temporary: true})
	return nil
}

// once is one connection.
func (c *Client) once(ctx context.Context) error {
	c.set(nil, nil)
	s, err := dial(ctx, c.cfg, c.tls, c.clock)
	if err == nil {
		c.log.InfoContext(ctx, "irc: connected", "nick", s.nick)
		for _, j := range c.cfg.Join { // refusals show when a page is for that channel
			err = errors.Join(err, s.say("JOIN", strings.Fields(j)...))
		}
		c.set(s, nil)
		err = errors.Join(err, s.serve(ctx))
	}
	c.set(nil, down(err))
	return err
}

func (c *Client) set(up *session, why *downError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up, c.why = up, why
	if why != nil {
		c.triedAt = c.clock.Now()
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// session waits for a connection: for the attempt that runs, or for one that it asks for if the last is not fresh.
func (c *Client) session(ctx context.Context) (*session, *downError) {
	for {
		c.mu.Lock()
		up, why, age, changed := c.up, c.why, c.clock.Now().Sub(c.triedAt), c.changed
		c.mu.Unlock()
		switch {
		case up != nil:
			return up, nil
		case why != nil && age < fresh:
			return nil, why
		case why != nil:
			select {
			case c.hurry <- struct{}{}:
			default:
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, &downError{detail: "no connection to the IRC server in time", temporary: true}
		}
	}
}

// Send sends one page.
func (c *Client) Send(ctx context.Context, p channel.Page) channel.Receipt {
	target := p.Recipient.Address
	if !nickForm.MatchString(target) && !channelForm.MatchString(target) {
		return channel.Receipt{State: channel.Failed, Detail: "not sent: the rule book's address is neither a nick nor a channel"}
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return channel.Receipt{State: channel.Failed, Temporary: true, Detail: "not sent: earlier pages took all the time"}
	}
	s, why := c.session(ctx)
	if why != nil {
		return channel.Receipt{State: channel.Failed, Temporary: why.temporary, Detail: "not sent: " + why.detail}
	}
	if r, ok := c.enter(ctx, s, target); !ok {
		return r
	}
	var lines [][]string
	for _, piece := range compose(p, s.room(target)) {
		lines = append(lines, []string{target, piece})
	}
	x, err := s.ask(ctx, "PRIVMSG", target, lines...)
	return receipt(x, err, len(lines))
}

// enter joins the target if it is a channel.
func (c *Client) enter(ctx context.Context, s *session, target string) (channel.Receipt, bool) {
	if nickForm.MatchString(target) || s.inside(target) {
		return channel.Receipt{}, true
	}
	join := []string{target}
	if key := c.cfg.key(target); key != "" {
		join = append(join, key)
	}
	x, err := s.ask(ctx, "JOIN", target, join)
	switch {
	case err != nil:
		return channel.Receipt{State: channel.Failed, Temporary: true, Detail: "not sent: joining the channel: " + lastLine(err)}, false
	case x.refusals > 0:
		return channel.Receipt{State: channel.Failed, Temporary: passing(x.why), Detail: "not sent: " + explain(x.why)}, false
	case !s.inside(target):
		return channel.Receipt{State: channel.Failed, Temporary: true, Detail: "not sent: the IRC server did not let us into the channel"}, false
	}
	return channel.Receipt{}, true
}

func receipt(x *exchange, err error, lines int) channel.Receipt {
	switch {
	case errors.Is(err, errNothingSent):
		return channel.Receipt{State: channel.Failed, Temporary: true, Detail: "not sent: " + lastLine(err)}
	case err != nil:
		return channel.Receipt{State: channel.Unknown, Detail: lastLine(err) + " after lines were handed over"}
	case x.refusals >= lines:
		return channel.Receipt{State: channel.Failed, Temporary: passing(x.why), Detail: "not sent: " + explain(x.why)}
	case x.refusals > 0:
		return channel.Receipt{State: channel.Unknown, Detail: fmt.Sprintf("%d of %d lines were refused: %s", x.refusals, lines, explain(x.why))}
	case x.away:
		return channel.Receipt{State: channel.Sent, Detail: "taken by the IRC server; the person is marked as away"}
	}
	return channel.Receipt{State: channel.Sent, Detail: "taken by the IRC server"}
}

// lastLine is the innermost reason of a joined error.
func lastLine(err error) string {
	s := err.Error()
	return channel.OneLine(s[strings.LastIndexByte(s, '\n')+1:], 120)
}

// compose writes a page as lines of at most n bytes: headline and link first, so that they are never cut.
func compose(p channel.Page, n int) []string {
	head := channel.OneLine(p.Headline, 2*n)
	if p.Incident != "" && !strings.Contains(head, p.Incident) {
		head = channel.OneLine(p.Incident, 60) + ": " + head
	}
	if p.Urgent {
		head = "URGENT " + head
	}
	pieces := split(head, n)
	if p.Link != "" {
		pieces = append(pieces, split(channel.OneLine(p.Link, 2*n), n)...)
	}
	text := split(channel.Prefix(p.Text, (maxPieces+1)*n), n)
	if len(pieces)+len(text) > maxPieces {
		note := "(cut)"
		if p.Link != "" {
			note = "(cut; the link has all of it)"
		}
		text = append(text[:max(0, maxPieces-1-len(pieces))], note)
	}
	return append(pieces, text...)
}

// passing tells whether a refusal may be over soon.
func passing(numeric string) bool {
	switch numeric {
	case "263", "401", "405", "437", "439", "471", "480":
		return true
	}
	return false
}

// explain says in words what an error numeric means. The server's own words are not used: they hold the address.
func explain(numeric string) string {
	words := map[string]string{
		"263": "the IRC server is busy", "401": "nobody has that nick now", "403": "there is no such channel", "404": "we may not speak in the channel",
		"405": "we are in too many channels", "437": "the name is not available now", "439": "the IRC server asks to wait", "442": "we are not in the channel",
		"471": "the channel is full", "473": "the channel is for invited only", "474": "we are banned from the channel", "475": "the channel's key is wrong; check irc.join",
		"477": "the channel is for registered nicks only", "489": "the channel is for TLS users only", "531": "the person does not accept it", "716": "the person does not accept it",
	}
	if w := words[numeric]; w != "" {
		return w + " (" + numeric + ")"
	}
	return "the IRC server refused it (" + numeric + ")"
}
