// SPDX-License-Identifier: Apache-2.0

package channel_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"cacert.org/emergency/services/notification/channel"
	"cacert.org/emergency/services/notification/irc"
	"cacert.org/emergency/services/notification/mail"
	"cacert.org/emergency/services/notification/webhook"
)

const secret = "0123456789abcdef0123456789abcdef"

// hangingMail is an SMTP server that takes every mail's bytes and never says what it thinks of them.
func hangingMail(t *testing.T) (addr string, read chan string) {
	t.Helper()
	read = make(chan string, 10)
	release := make(chan struct{})
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return hanging{read, release}, nil }))
	srv.Domain = "localhost"
	l := listen(t)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { close(release); _ = srv.Close(); <-done })
	return l.Addr().String(), read
}

type hanging struct {
	read    chan string
	release chan struct{}
}

func (hanging) Reset()                               {}
func (hanging) Logout() error                        { return nil }
func (hanging) Mail(string, *smtp.MailOptions) error { return nil }
func (hanging) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (h hanging) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	h.read <- string(b)
	<-h.release
	return err
}

// dyingIRC is a server that welcomes one client, and is gone for ever when that sends its first page.
func dyingIRC(t *testing.T) (addr string) {
	t.Helper()
	l := listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for in := bufio.NewScanner(conn); in.Scan(); {
			switch word, _, _ := strings.Cut(in.Text(), " "); word {
			case "USER":
				fmt.Fprintf(conn, ":srv 001 pager :Welcome\r\n")
			case "PRIVMSG":
				_ = l.Close()
				return
			}
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// gateway answers every page by code and keeps the ids.
func gateway(t *testing.T, code int) (url string, ids func() map[string]int) {
	t.Helper()
	var mu sync.Mutex
	got := map[string]int{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || webhook.Verify([]byte(secret), r.Header.Get(webhook.SignatureHeader), b, time.Now(), webhook.Window) != nil {
			t.Errorf("not signed: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		got[r.Header.Get(webhook.IdempotencyHeader)]++
		w.WriteHeader(code)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
}

// book keeps outcomes and tells when there is another.
type book struct {
	mu   sync.Mutex
	all  []channel.Outcome
	news chan struct{}
}

func (b *book) add(o channel.Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, o)
	close(b.news)
	b.news = make(chan struct{})
}

// wait returns when enough outcomes of a channel are there.
func (b *book) wait(t *testing.T, what string, enough func([]channel.Outcome) bool) {
	t.Helper()
	for {
		b.mu.Lock()
		all, news := b.all, b.news
		b.mu.Unlock()
		if enough(all) {
			return
		}
		select {
		case <-news:
		case <-t.Context().Done():
			t.Fatalf("%s: only %+v", what, all)
		}
	}
}

func count(all []channel.Outcome, name string, state channel.State) (n int) {
	for _, o := range all {
		if o.Channel == name && o.Receipt.State == state {
			n++
		}
	}
	return n
}

// ahead is the machine's clock, set forward by the test.
type ahead struct {
	channel.System
	by *atomic.Int64
}

func (a ahead) Now() time.Time { return time.Now().Add(time.Duration(a.by.Load())) }

// finals counts the final outcomes of a channel.
func finals(all []channel.Outcome, name string) (n int) {
	for _, o := range all {
		if o.Channel == name && o.Final {
			n++
		}
	}
	return n
}

// A mail server hangs, an IRC server dies, a gateway answers 500: the fourth channel delivers meanwhile, and no outcome
// claims more or less than what happened.
func TestThreeBrokenChannelsDelayNotTheFourth(t *testing.T) {
	t.Parallel()
	mailAddr, mails := hangingMail(t)
	ircAddr := dyingIRC(t)
	smsURL, _ := gateway(t, http.StatusInternalServerError)
	voiceURL, voices := gateway(t, http.StatusOK)
	clock := channel.System{}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m, err := mail.New(mail.Config{Server: mailAddr, Security: mail.NoTLS, From: "emergency@example.org"}, clock)
	must(err)
	i, err := irc.New(irc.Config{Server: ircAddr, Security: irc.NoTLS, Nick: "pager"}, clock, slog.New(slog.NewTextHandler(t.Output(), nil)))
	must(err)
	sms, err := webhook.New(webhook.Config{Name: "sms", URL: smsURL, Secret: secret}, clock)
	must(err)
	voice, err := webhook.New(webhook.Config{Name: "voice", URL: voiceURL, Secret: secret}, clock)
	must(err)

	b := &book{news: make(chan struct{})}
	set := channel.Settings{Queue: 3, Workers: 2, FirstPause: 10 * time.Millisecond, MaxPause: 20 * time.Millisecond, Drain: 100 * time.Millisecond}
	later := ahead{by: new(atomic.Int64)}
	f, err := channel.New(set, later, b.add, m, i, sms, voice)
	must(err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(stop)

	for n := range 3 {
		for name, address := range map[string]string{"mail": "alice@example.org", "irc": "alice", "sms": "+491700000001", "voice": "+491700000001"} {
			p := channel.Page{ID: fmt.Sprintf("e20261124.1/1.%d/%s", n, name), Incident: "e20261124.1", Headline: "Critical admin needed", Recipient: channel.Recipient{Person: "p1", Address: address}}
			if rec, taken := f.Submit(name, p); !taken {
				t.Fatalf("%s: %+v", name, rec)
			}
		}
	}
	if rec, taken := f.Submit("mail", channel.Page{ID: "one too many"}); taken || rec.State != channel.Failed || !rec.Temporary {
		t.Errorf("the mail queue is full: %v %+v", taken, rec)
	}

	<-mails
	<-mails // both workers hang now
	b.wait(t, "voice", func(all []channel.Outcome) bool { return count(all, "voice", channel.Sent) == 3 })
	b.wait(t, "irc", func(all []channel.Outcome) bool {
		return count(all, "irc", channel.Unknown) == 1 && count(all, "irc", channel.Failed) >= 4
	})
	b.wait(t, "sms", func(all []channel.Outcome) bool { return count(all, "sms", channel.Failed) >= 6 })
	b.wait(t, "mail", func(all []channel.Outcome) bool {
		for _, o := range all {
			if o.Channel == "mail" {
				t.Errorf("the mail server has said nothing, and yet: %+v", o)
			}
		}
		return true
	})
	if got := voices(); len(got) != 3 || got["e20261124.1/1.0/voice"] != 1 {
		t.Errorf("the voice gateway got %v", got)
	}

	// When the time for trying is over, the two that fail are given up; the mails still hang until the service stops.
	later.by.Store(int64(time.Hour))
	b.wait(t, "giving up", func(all []channel.Outcome) bool { return finals(all, "sms") == 3 && finals(all, "irc") == 3 })
	stop()
	must(<-done)
	final := map[string]int{}
	for _, o := range b.all {
		if o.Final {
			final[o.Channel+" "+o.Receipt.State.String()]++
		}
		if strings.Contains(o.Receipt.Detail, "alice") || strings.Contains(o.Receipt.Detail, "+49") {
			t.Errorf("an address in %q", o.Receipt.Detail)
		}
	}
	want := map[string]int{
		"mail unknown": 2, "mail failed": 1, // two were handed over, the third never left
		"irc unknown": 1, "irc failed": 2, // one was in the connection that died
		"sms failed": 3, "voice sent": 3,
	}
	if fmt.Sprint(final) != fmt.Sprint(want) {
		t.Errorf("%v, want %v; all: %+v", final, want, b.all)
	}
}
