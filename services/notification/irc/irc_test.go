// SPDX-License-Identifier: Apache-2.0

package irc

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cacert.org/emergency/services/notification/channel"
)

// on answers lines that begin with a prefix, and is friendly to others.
func on(prefix string, lines ...string) func(int, string) ([]string, bool) {
	return func(_ int, line string) ([]string, bool) { return lines, strings.HasPrefix(line, prefix) }
}

func TestPageIsSentAfterTheRoundTrip(t *testing.T) {
	t.Parallel()
	p := listen(t, nil, nil)
	cfg := config(p.addr)
	cfg.Join = []string{"#emergency sesame"}
	c := run(t, cfg)
	if r := c.Send(t.Context(), page("alice")); r.State != channel.Sent {
		t.Fatalf("%+v", r)
	}
	if r := c.Send(t.Context(), page("#emergency")); r.State != channel.Sent {
		t.Fatalf("%+v", r)
	}
	if r := c.Send(t.Context(), page("#other")); r.State != channel.Sent {
		t.Fatalf("%+v", r)
	}
	want := "PRIVMSG alice :e20261124.1: Critical admin needed|PRIVMSG alice https://emergency.example.org/|PRIVMSG alice :Please answer."
	if got := strings.Join(p.wait(t, "PRIVMSG alice", 3), "|"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := strings.Join(p.wait(t, "JOIN", 2), "|"); !strings.HasPrefix(got, "JOIN #emergency sesame") || !strings.HasSuffix(got, "JOIN #other") {
		t.Errorf("%s", got)
	}
	if c.Name() != "irc" {
		t.Error("name")
	}
}

func TestNothingCanBeInjected(t *testing.T) {
	t.Parallel()
	p := listen(t, nil, nil)
	c := run(t, config(p.addr))
	evil := "x\r\nQUIT :bye\nJOIN #evil\x00\x01DCC SEND\x01"
	pg := page("alice")
	pg.Headline, pg.Text, pg.Link, pg.Incident = evil, evil, evil, evil
	if r := c.Send(t.Context(), pg); r.State != channel.Sent {
		t.Fatalf("%+v", r)
	}
	for _, address := range []string{"", "a b", "a,b", "alice\r\nQUIT", "#a,#b", "#a b", ":alice", "$$*", "*", "@#ops", "#", "alice!u@h", "1alice", "älice"} {
		if r := c.Send(t.Context(), page(address)); r.State != channel.Failed || r.Temporary {
			t.Errorf("%q: %+v", address, r)
		}
	}
	for _, l := range p.wait(t, "", 4) {
		m, err := parse(l)
		if err != nil || !strings.Contains("NICK USER PRIVMSG PING", m.command) || strings.Contains(l, "\x01") {
			t.Errorf("the server heard %q", l)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	type want struct {
		state  channel.State
		temp   bool
		detail string
	}
	for _, c := range []struct {
		name, to string
		answer   func(int, string) ([]string, bool)
		want     want
	}{
		{"401", "Alice", on("PRIVMSG", ":srv 401 pager alice :No such nick"), want{channel.Failed, true, "(401)"}},
		{"401 for somebody else", "alice", on("PRIVMSG", ":srv 401 pager bob :No such nick"), want{channel.Sent, false, ""}},
		{"401 for one line of three", "alice", on("PRIVMSG alice :Please", ":srv 401 pager alice :No such nick"), want{channel.Unknown, false, "1 of 3"}},
		{"404", "#c", on("PRIVMSG", ":srv 404 pager #C :Cannot send"), want{channel.Failed, false, "(404)"}},
		{"403", "#c", on("JOIN", ":srv 403 pager #c :No such channel"), want{channel.Failed, false, "(403)"}},
		{"471", "#c", on("JOIN", ":srv 471 pager #c :Full"), want{channel.Failed, true, "(471)"}},
		{"475", "#c", on("JOIN", ":srv 475 pager #c :Bad key"), want{channel.Failed, false, "irc.join"}},
		{"no word about the join", "#c", on("JOIN"), want{channel.Failed, true, "did not let us"}},
		{"away", "alice", on("PRIVMSG", ":srv 301 pager alice :asleep"), want{channel.Sent, false, "away"}},
		{"busy", "alice", on("PRIVMSG", ":srv 263 pager PRIVMSG :Try again"), want{channel.Failed, true, "(263)"}},
		{"417", "alice", on("PRIVMSG", ":srv 417 pager :Input line was too long"), want{channel.Failed, false, "(417)"}},
		{"716", "alice", on("PRIVMSG", ":srv 716 pager alice :is in +g"), want{channel.Failed, false, "(716)"}},
		{"unheard of", "alice", on("PRIVMSG", ":srv 599 pager alice :?"), want{channel.Failed, false, "(599)"}},
		{"hangs up", "alice", on("PRIVMSG", hangUp), want{channel.Unknown, false, "lost"}},
		{"error", "alice", on("PRIVMSG", "ERROR :Closing Link: flood"), want{channel.Unknown, false, "lost"}},
		{"hangs up at join", "#c", on("JOIN", hangUp), want{channel.Failed, true, "lost"}},
		{"rubbish between", "alice", on("PRIVMSG", "", "\xff\xfe", ":", ":srv 401", "@", ":pager!u@h NICK pager2"), want{channel.Sent, false, ""}},
		{"endless line", "alice", on("PRIVMSG", strings.Repeat("x", 2*maxRead)), want{channel.Unknown, false, "lost"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := listen(t, nil, c.answer)
			r := run(t, config(p.addr)).Send(t.Context(), page(c.to))
			if r.State != c.want.state || r.Temporary != c.want.temp || !strings.Contains(r.Detail, c.want.detail) || strings.Contains(strings.ToLower(r.Detail), "alice") {
				t.Errorf("%+v, want %+v", r, c.want)
			}
		})
	}
}

func TestServerThatAnswersNothing(t *testing.T) {
	t.Parallel()
	p := listen(t, nil, func(n int, line string) ([]string, bool) { return nil, n == 0 && strings.HasPrefix(line, "P") })
	c := run(t, config(p.addr))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { p.wait(t, "PING", 1); cancel() }()
	if r := c.Send(ctx, page("alice")); r.State != channel.Unknown || r.Temporary || !strings.Contains(r.Detail, "in time") {
		t.Errorf("%+v", r)
	}
	// Its late answers must not count for the next page: that goes over a new connection.
	p.wait(t, "USER", 2)
	if r := c.Send(t.Context(), page("alice")); r.State != channel.Sent {
		t.Errorf("after that: %+v", r)
	}
}

func TestRegistrationThatFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*Config)
		answer func(int, string) ([]string, bool)
		temp   bool
		detail string
	}{
		{"nicks taken", nil, func(_ int, line string) ([]string, bool) {
			if strings.HasPrefix(line, "NICK") {
				return []string{":srv 433 * pager :in use"}, true
			}
			return nil, strings.HasPrefix(line, "USER")
		}, true, "nick and 4 others"},
		{"nick refused", nil, on("NICK", ":srv 432 * pager :erroneous"), false, "irc.nick"},
		{"password", func(c *Config) { c.ServerPassword = "wrong" }, on("USER", ":srv 464 * :incorrect", hangUp), false, "irc.server_password"},
		{"banned", nil, on("USER", ":srv 465 * :banned"), false, "(465)"},
		{"error", nil, on("USER", "ERROR :Trying to reconnect too fast."), true, "before the welcome"},
		{"hangs up", nil, on("NICK", hangUp), true, "no connection"},
		{"login refused", sasl, script(":srv CAP * LS :sasl", ":srv CAP * ACK :sasl", "AUTHENTICATE +", ":srv 904 * :failed"), false, "(904)"},
		{"login too long", sasl, script(":srv CAP * LS :sasl", ":srv CAP * ACK :sasl", "AUTHENTICATE +", ":srv 905 * :too long"), false, "(905)"},
		{"no login offered", sasl, script(":srv CAP * LS :multi-prefix"), false, "offers no login"},
		{"other mechanism", sasl, script(":srv CAP * LS :sasl=EXTERNAL,SCRAM-SHA-256"), false, "offers no login by plain"},
		{"login not acknowledged", sasl, script(":srv CAP * LS :sasl", ":srv CAP * NAK :sasl"), false, "refused the login"},
		{"challenge", sasl, script(":srv CAP * LS :sasl", ":srv CAP * ACK :sasl", "AUTHENTICATE Zm9v"), false, "do not know"},
		{"no CAP", sasl, on("CAP", ":srv 421 pager CAP :Unknown command"), false, "irc.sasl"},
		{"welcome without login", sasl, on("CAP"), false, "without a login"},
		{"endless list", sasl, on("CAP", strings.Split(strings.Repeat(":srv CAP * LS * :"+strings.Repeat("x ", 200)+"\n", 50), "\n")...), false, "does not end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := listen(t, nil, c.answer)
			cfg := config(p.addr)
			if c.change != nil {
				c.change(&cfg)
			}
			r := run(t, cfg).Send(t.Context(), page("alice"))
			if r.State != channel.Failed || r.Temporary != c.temp || !strings.Contains(r.Detail, c.detail) {
				t.Errorf("%+v, want temporary=%v %q", r, c.temp, c.detail)
			}
			if n := p.count("PRIVMSG"); n != 0 {
				t.Errorf("%d lines were sent", n)
			}
		})
	}
}

func sasl(c *Config) { c.SASL, c.SASLUser, c.SASLPassword = Plain, "pager", "sesame" }

// script answers CAP LS, CAP REQ, and the AUTHENTICATE lines by the given lines in turn.
func script(lines ...string) func(int, string) ([]string, bool) {
	var mu sync.Mutex
	turn := map[int]int{}
	return func(n int, line string) ([]string, bool) {
		switch {
		case strings.HasPrefix(line, "USER"), line == "CAP END":
			return nil, line != "CAP END"
		case !strings.HasPrefix(line, "CAP") && !strings.HasPrefix(line, "AUTHENTICATE"):
			return nil, false
		}
		mu.Lock()
		defer mu.Unlock()
		i := turn[n]
		turn[n]++
		if i >= len(lines) {
			return nil, true
		}
		return []string{lines[i]}, true
	}
}

func TestNickCollision(t *testing.T) {
	t.Parallel()
	p := listen(t, nil, func(_ int, line string) ([]string, bool) {
		switch line {
		case "NICK pager", "NICK pager_":
			return []string{":srv 433 * " + line[5:] + " :in use"}, true
		case "NICK pager__":
			return []string{":srv 001 pager__ :Welcome"}, true
		}
		return nil, strings.HasPrefix(line, "USER")
	})
	if r := run(t, config(p.addr)).Send(t.Context(), page("alice")); r.State != channel.Sent {
		t.Errorf("%+v", r)
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	pair, certFile, keyFile := certificate(t)
	server := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
	for _, c := range []struct {
		name, mechanism, password, response string
		certs                               int
	}{
		{"plain", Plain, "sésame", base64.StdEncoding.EncodeToString([]byte("\x00pager\x00sésame")), 0},
		{"plain, long", Plain, strings.Repeat("x", 293), "", 0}, // 7 + 293 bytes are 400 in base64: an empty piece follows
		{"external", External, "", "+", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var response atomic.Value
			p := listen(t, server, func(_ int, line string) ([]string, bool) {
				switch {
				case line == "CAP LS 302":
					return []string{":srv CAP * LS * :multi-prefix x=y", ":srv CAP * LS :sasl=PLAIN,EXTERNAL"}, true
				case line == "CAP REQ sasl":
					return []string{":srv CAP * ACK :sasl"}, true
				case line == "AUTHENTICATE "+strings.ToUpper(c.mechanism):
					return []string{"AUTHENTICATE +"}, true
				case strings.HasPrefix(line, "AUTHENTICATE "):
					if len(line) == len("AUTHENTICATE ")+400 {
						return nil, true
					}
					response.Store(strings.TrimPrefix(line, "AUTHENTICATE "))
					return []string{":srv 900 * x :you are", ":srv 903 * :ok"}, true
				case line == "CAP END":
					return []string{":srv 001 pager :Welcome"}, true
				}
				return nil, strings.HasPrefix(line, "USER")
			})
			cfg := config(p.addr)
			cfg.Security, cfg.CAFile, cfg.SASL = TLS, certFile, c.mechanism
			if c.mechanism == Plain {
				cfg.SASLUser, cfg.SASLPassword = "pager", channel.Secret(c.password)
			} else {
				cfg.CertFile, cfg.KeyFile = certFile, keyFile
			}
			if r := run(t, cfg).Send(t.Context(), page("alice")); r.State != channel.Sent {
				t.Fatalf("%+v", r)
			}
			if got := response.Load(); c.response != "" && got != c.response || c.response == "" && got != "+" {
				t.Errorf("response %q", got)
			}
			if p.certs != c.certs {
				t.Errorf("%d client certificates", p.certs)
			}
		})
	}
}

func TestUntrustedServer(t *testing.T) {
	t.Parallel()
	pair, _, _ := certificate(t)
	_, other, _ := certificate(t)
	p := listen(t, &tls.Config{Certificates: []tls.Certificate{pair}}, nil)
	cfg := config(p.addr)
	cfg.Security, cfg.CAFile, cfg.ServerPassword = TLS, other, "hush"
	if r := run(t, cfg).Send(t.Context(), page("alice")); r.State != channel.Failed || r.Temporary || !strings.Contains(r.Detail, "irc.ca_file") {
		t.Errorf("%+v", r)
	}
	clear := listen(t, nil, on("", "NOTICE AUTH :no TLS here, and a line that is long enough"))
	cfg.Server = clear.addr
	if r := run(t, cfg).Send(t.Context(), page("alice")); r.State != channel.Failed || len(p.heard) != 0 || clear.count("PASS") != 0 {
		t.Errorf("%+v", r)
	}
}

func TestReconnect(t *testing.T) {
	t.Parallel()
	p := listen(t, nil, nil)
	c := run(t, config(p.addr))
	if r := c.Send(t.Context(), page("#c")); r.State != channel.Sent {
		t.Fatalf("%+v", r)
	}
	p.drop()
	p.wait(t, "USER", 2)
	if r := c.Send(t.Context(), page("#c")); r.State != channel.Sent {
		t.Errorf("after the connection was lost: %+v", r)
	}
	if n := p.count("JOIN #c"); n != 2 {
		t.Errorf("joined %d times, want once for each connection", n)
	}
}

func TestKickedOutOfTheChannel(t *testing.T) {
	t.Parallel()
	p := listen(t, nil, on("PRIVMSG #c :Please", ":op!o@h KICK #c pager :out", ":pager!u@h PART #d"))
	c := run(t, config(p.addr))
	for range 2 {
		if r := c.Send(t.Context(), page("#c")); r.State != channel.Sent {
			t.Fatalf("%+v", r)
		}
	}
	if n := p.count("JOIN #c"); n != 2 {
		t.Errorf("joined %d times, want again after the kick", n)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	p := listen(t, nil, nil)
	cfg := config(p.addr)
	cfg.Server = "127.0.0.1:1"
	c := run(t, cfg)
	for range 3 { // the second and third find the pause and hear why
		if r := c.Send(t.Context(), page("alice")); r.State != channel.Failed || !r.Temporary || !strings.Contains(r.Detail, "no connection") {
			t.Errorf("%+v", r)
		}
	}
	if err := c.Run(t.Context()); err == nil {
		t.Error("a second Run was allowed")
	}
	idle, err := New(config(p.addr), channel.System{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := idle.Send(ctx, page("alice")); r.State != channel.Failed || !r.Temporary {
		t.Errorf("not running: %+v", r)
	}
	idle.turn <- struct{}{}
	if r := idle.Send(ctx, page("alice")); r.State != channel.Failed || !r.Temporary {
		t.Errorf("never its turn: %+v", r)
	}
}

// step is a clock whose timers fire when the test says so.
type step struct {
	mu     sync.Mutex
	now    time.Time
	timers []timer
	asked  chan time.Duration
}

type timer struct {
	at time.Time
	c  chan time.Time
}

func (s *step) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *step) After(d time.Duration) <-chan time.Time {
	s.mu.Lock()
	c := make(chan time.Time, 1)
	s.timers = append(s.timers, timer{s.now.Add(d), c})
	s.mu.Unlock()
	s.asked <- d
	return c
}

func (s *step) forward(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
	for i := range s.timers {
		if t := &s.timers[i]; t.c != nil && !t.at.After(s.now) {
			t.c <- s.now
			t.c = nil
		}
	}
}

func TestThrottle(t *testing.T) {
	t.Parallel()
	p := listen(t, nil, nil)
	cfg := config(p.addr)
	cfg.Burst, cfg.Every = 2, 2*time.Second
	clock := &step{now: time.Unix(1, 0), asked: make(chan time.Duration, 100)}
	c := runAt(t, cfg, clock)
	got := make(chan channel.Receipt, 1)
	go func() { got <- c.Send(t.Context(), page("alice")) }()
	for d := range clock.asked {
		if d == 2*time.Second {
			break
		}
	}
	if n := len(p.wait(t, "PRIVMSG", 2)); n != 2 {
		t.Errorf("%d lines went at once, want 2", n)
	}
	clock.forward(2 * time.Second)
	if r := <-got; r.State != channel.Sent || p.count("PRIVMSG") != 3 {
		t.Errorf("%+v after %d lines", r, p.count("PRIVMSG"))
	}
	// A page whose time ends while it waits for its turn has sent nothing.
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for d := range clock.asked {
			if d == 2*time.Second {
				cancel()
				return
			}
		}
	}()
	if r := c.Send(ctx, page("alice")); r.State != channel.Failed || !r.Temporary || p.count("PRIVMSG") != 3 {
		t.Errorf("%+v after %d lines", r, p.count("PRIVMSG"))
	}
}

func TestSilentServerIsFound(t *testing.T) {
	t.Parallel()
	p := listen(t, nil, func(n int, line string) ([]string, bool) { return nil, n == 0 && line == "PING alive" })
	clock := &step{now: time.Unix(1, 0), asked: make(chan time.Duration, 100)}
	runAt(t, config(p.addr), clock)
	for range 2 { // asked after a minute, given up after two
		for d := range clock.asked {
			if d == quiet {
				break
			}
		}
		clock.forward(quiet)
	}
	p.wait(t, "PING alive", 1)
	for d := range clock.asked {
		if d != quiet { // the pause before the next connection
			clock.forward(d)
			break
		}
	}
	p.wait(t, "USER", 2)
}

func TestConfigNamesTheSetting(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Config){
		"irc.server":               func(c *Config) { c.Server = "irc" },
		"irc.security: \"\"":       func(c *Config) { c.Security = "" },
		"irc.security: none":       func(c *Config) { c.Server = "irc.example.org:6667" },
		"irc.nick":                 func(c *Config) { c.Nick = "a b" },
		"irc.user":                 func(c *Config) { c.User = "a b" },
		"irc.real_name":            func(c *Config) { c.RealName = "a\nb" },
		"irc.server_password":      func(c *Config) { c.ServerPassword = "a\r\nb" },
		"irc.sasl:":                func(c *Config) { c.SASL = "scram" },
		"irc.sasl: a user":         func(c *Config) { c.SASLUser = "x" },
		"irc.sasl_user":            func(c *Config) { c.SASL = Plain },
		"irc.cert_file: external":  func(c *Config) { c.SASL = External },
		"irc.join":                 func(c *Config) { c.Join = []string{"#ok", "emergency"} },
		"irc.join: \"#a\"":         func(c *Config) { c.Join = []string{"#a key,#b"} },
		"irc.burst":                func(c *Config) { c.Burst = -1 },
		"irc.every":                func(c *Config) { c.Every = -1 },
		"irc.ca_file":              func(c *Config) { c.CAFile = "/nonexistent" },
		"irc.cert_file and irc.ke": func(c *Config) { c.CertFile = "/nonexistent" },
	} {
		cfg := config("127.0.0.1:6667")
		change(&cfg)
		if _, err := New(cfg, channel.System{}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := config("localhost:6667").Check(); err != nil {
		t.Error(err)
	}
}
