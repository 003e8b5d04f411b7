// SPDX-License-Identifier: Apache-2.0

package irc

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"cacert.org/emergency/services/notification/channel"
)

const (
	// patience is how long dialling and registering may take.
	patience = 30 * time.Second
	// writeTime is how long one line may take to leave.
	writeTime = 10 * time.Second
	// quiet is how long the server may say nothing before it is asked; after twice that it counts as dead.
	quiet = time.Minute
)

// session is one connection, from dialling to its end.
type session struct {
	cfg   Config
	clock channel.Clock
	conn  net.Conn
	in    *bufio.Reader
	// dead is closed when the connection has ended.
	dead chan struct{}

	write sync.Mutex // one line at a time

	mu     sync.Mutex
	nick   string
	joined map[string]bool // by folded name
	heard  time.Time
	asked  *exchange // the one that waits, if any
	tokens int

	flood bucket // used by one exchange at a time
}

// dial connects and registers. The caller must close the connection, or serve it.
func dial(ctx context.Context, cfg Config, conf *tls.Config, clock channel.Clock) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d := net.Dialer{}
	if cfg.Security == NoTLS {
		d.Control = channel.OnlyLoopback
	}
	conn, err := d.DialContext(ctx, "tcp", cfg.Server)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	s := &session{cfg: cfg, clock: clock, conn: conn, dead: make(chan struct{}), joined: map[string]bool{}, heard: clock.Now(), flood: bucket{left: max(0, cfg.Burst-len(cfg.Join)), filled: clock.Now()}}
	if err := s.start(ctx, conf); err != nil {
		stop()
		_ = conn.Close()
		return nil, err
	}
	if !stop() {
		return nil, ctx.Err()
	}
	return s, nil
}

func (s *session) start(ctx context.Context, conf *tls.Config) error {
	if s.cfg.Security == TLS {
		secure := tls.Client(s.conn, conf)
		if err := secure.HandshakeContext(ctx); err != nil {
			return handshake(err)
		}
		s.conn = secure
	}
	s.in = bufio.NewReaderSize(s.conn, maxRead+2)
	err := s.register()
	if err != nil && ctx.Err() != nil {
		return &downError{detail: "the IRC server did not welcome us in time", temporary: true, cause: err}
	}
	return err
}

func handshake(err error) error {
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &cert):
		return &downError{detail: "the IRC server's certificate is not trusted; check irc.ca_file and irc.server", cause: err}
	case errors.As(err, &record):
		return &downError{detail: "what answers speaks no TLS; check irc.server", cause: err}
	}
	return err
}

// say sends one line.
func (s *session) say(command string, params ...string) error {
	line, err := encode(command, params...)
	if err != nil {
		return err
	}
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	_, err = io.WriteString(s.conn, line+"\r\n")
	return err
}

// read is the next line that can be understood.
func (s *session) read() (message, error) {
	for {
		b, err := s.in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return message{}, fmt.Errorf("the server sent a line of more than %d bytes", maxRead)
		}
		if err != nil {
			return message{}, err
		}
		if m, err := parse(string(b)); err == nil {
			return m, nil
		}
	}
}

// serve reads until the connection ends, and says goodbye when ctx does.
func (s *session) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		_ = s.say("QUIT", "stopping")
		_ = s.conn.Close()
	})
	var guard sync.WaitGroup
	guard.Go(s.keepAlive)
	err := s.loop()
	close(s.dead)
	stop()
	_ = s.conn.Close()
	guard.Wait()
	return err
}

func (s *session) loop() error {
	for {
		m, err := s.read()
		if err != nil {
			return &downError{detail: "the connection to the IRC server was lost", temporary: true, cause: err}
		}
		if err := s.handle(m); err != nil {
			return err
		}
	}
}

// keepAlive finds out that the server is gone although the connection looks open.
func (s *session) keepAlive() {
	for {
		select {
		case <-s.dead:
			return
		case <-s.clock.After(quiet):
		}
		s.mu.Lock()
		silence := s.clock.Now().Sub(s.heard)
		s.mu.Unlock()
		switch {
		case silence >= 2*quiet:
			_ = s.conn.Close()
		case silence >= quiet:
			_ = s.say("PING", "alive")
		}
	}
}

func (s *session) handle(m message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = s.clock.Now()
	mine := fold(m.nick()) == fold(s.nick)
	switch m.command {
	case "PING":
		return s.say("PONG", m.last())
	case "ERROR":
		return &downError{detail: "the IRC server closed the connection", temporary: true, cause: errors.New(channel.OneLine(m.last(), 200))}
	case "NICK":
		if mine {
			s.nick = m.last()
		}
	case "JOIN":
		if mine {
			s.joined[fold(m.param(0))] = true
		}
	case "PART":
		if mine {
			delete(s.joined, fold(m.param(0)))
		}
	case "KICK":
		if fold(m.param(1)) == fold(s.nick) {
			delete(s.joined, fold(m.param(0)))
		}
	}
	if s.asked != nil && s.asked.hear(m) {
		close(s.asked.answered)
		s.asked = nil
	}
	return nil
}

func (s *session) setNick(nick string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nick = nick
}

func (s *session) inside(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joined[fold(name)]
}

// room is how many bytes of text fit in one line to a target, with what the server puts before it for others: the nick,
// the user name with a tilde and the longest host name. A line that is too long would be cut without a word.
func (s *session) room(target string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	const longestHost = 63
	prefix := len(":") + len(s.nick) + len("!~") + max(len(s.cfg.User), 10) + len("@") + longestHost + len(" ")
	return maxLine - prefix - len("PRIVMSG ") - len(target) - len(" :")
}

// exchange is a group of lines and the PING behind them: the server answers in order, so when the PONG is there, all
// errors of the lines are.
type exchange struct {
	target   string
	command  string
	token    string
	answered chan struct{}
	// refusals are the error numerics for the lines, the first of them in why.
	refusals int
	why      string
	away     bool
}

// hear notes what a line says about the exchange and tells whether it was the PONG.
func (x *exchange) hear(m message) bool {
	switch {
	case m.command == "PONG":
		return m.last() == x.token
	case m.command == "301" && fold(m.param(1)) == fold(x.target):
		x.away = true
	case x.refuses(m):
		if x.refusals++; x.refusals == 1 {
			x.why = m.command
		}
	}
	return false
}

func (x *exchange) refuses(m message) bool {
	n, err := strconv.Atoi(m.command)
	if err != nil || len(m.command) != 3 {
		return false
	}
	switch n {
	case 407, 411, 412, 413, 414, 417: // about a PRIVMSG, named differently by each server
		return true
	case 263, 421: // try again, unknown command
		return strings.EqualFold(m.param(1), x.command)
	}
	return (n >= 400 && n < 600 || n == 716 || n == 717) && fold(m.param(1)) == fold(x.target)
}

// errNothingSent says that an exchange ended before its first line was out.
var errNothingSent = errors.New("nothing was sent")

var errLost = errors.New("the connection was lost")

// ask sends lines and waits until the server has answered all of them. After an error that is not errNothingSent the
// lines may have been carried out, and the connection is closed: an answer that comes late must not be taken for one
// to the next page.
func (s *session) ask(ctx context.Context, command, target string, lines ...[]string) (*exchange, error) {
	s.mu.Lock()
	s.tokens++
	x := &exchange{target: target, command: command, token: fmt.Sprintf("epatch-%d", s.tokens), answered: make(chan struct{})}
	s.asked = x
	s.mu.Unlock()
	for i, params := range lines {
		if err := s.throttle(ctx); err != nil && i == 0 {
			return nil, errors.Join(errNothingSent, err)
		} else if err != nil {
			return nil, s.broken(err, false)
		}
		if err := s.say(command, params...); err != nil {
			return nil, s.broken(err, i == 0)
		}
	}
	if err := s.say("PING", x.token); err != nil {
		return nil, s.broken(err, len(lines) == 0)
	}
	select {
	case <-x.answered:
		return x, nil
	case <-s.dead:
		return nil, errLost
	case <-ctx.Done():
		return nil, s.broken(errors.New("no answer in time"), false)
	}
}

// broken ends the connection after an exchange that did not come to its end. A line whose write failed was not whole.
func (s *session) broken(err error, first bool) error {
	_ = s.conn.Close()
	var op *net.OpError
	if errors.As(err, &op) {
		err = errLost
	}
	if first {
		return errors.Join(errNothingSent, err)
	}
	return err
}

// bucket holds the lines that may be sent now.
type bucket struct {
	left   int
	filled time.Time
}

// throttle waits until a line may be sent; a client that sends faster is thrown out, in the middle of a page.
func (s *session) throttle(ctx context.Context) error {
	select {
	case <-s.dead:
		return errLost
	default:
	}
	b := &s.flood
	for {
		now := s.clock.Now()
		if n := int(now.Sub(b.filled) / s.cfg.Every); n > 0 {
			b.left, b.filled = min(s.cfg.Burst, b.left+n), b.filled.Add(time.Duration(n)*s.cfg.Every)
		}
		if b.left > 0 {
			b.left--
			return nil
		}
		select {
		case <-s.clock.After(b.filled.Add(s.cfg.Every).Sub(now)):
		case <-s.dead:
			return errLost
		case <-ctx.Done():
			return errors.New("its time was over before its turn")
		}
	}
}
