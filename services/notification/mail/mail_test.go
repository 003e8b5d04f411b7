// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/smallstep/pkcs7"
	"go.uber.org/goleak"

	"cacert.org/emergency/services/notification/channel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var at = time.Date(2026, 11, 24, 3, 4, 5, 0, time.UTC)

func page() channel.Page {
	return channel.Page{
		ID: "e20261124.1/1.3", Incident: "e20261124.1", Headline: "Critical admin needed: OCSP signer exposes its key", Text: "Please answer.\n.\nA line that begins with a dot is above. Grüße",
		Link: "https://emergency.example.org/e20261124.1", Recipient: channel.Recipient{Person: "p1", Address: "alice@example.org"}, Urgent: true, At: at,
	}
}

func plain(addr string) Config {
	return Config{Server: addr, Security: NoTLS, From: "emergency@example.org", Name: "CAcert emergency"}
}

func open(t *testing.T, cfg Config) *Channel {
	t.Helper()
	c, err := New(cfg, channel.System{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func taken(t *testing.T, s *server) (*netmail.Message, []byte) {
	t.Helper()
	select {
	case b := <-s.mails:
		m, err := netmail.ReadMessage(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%v in %s", err, b)
		}
		return m, b
	default:
		t.Fatal("the server got no mail")
		return nil, nil
	}
}

func decoded(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(quotedprintable.NewReader(r))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "\r\n", "\n")
}

func TestMailIsWhatThePageSays(t *testing.T) {
	t.Parallel()
	s := serve(t, &server{}, nil, false)
	c, p := open(t, plain(s.addr)), page()
	if r := c.Send(t.Context(), p); r.State != channel.Sent {
		t.Fatalf("%+v", r)
	}
	m, raw := taken(t, s)
	if s.from != "emergency@example.org" || len(s.to) != 1 || s.to[0] != "alice@example.org" {
		t.Errorf("envelope %s -> %s", s.from, s.to)
	}
	for name, want := range map[string]string{
		"From": `"CAcert emergency" <emergency@example.org>`, "To": "<alice@example.org>", "Auto-Submitted": "auto-generated",
		"Subject":    "[e20261124.1] Critical admin needed: OCSP signer exposes its key",
		"Message-Id": "<page.e20261124.1/1.3@example.org>", "References": "<incident.e20261124.1@example.org>", "In-Reply-To": "<incident.e20261124.1@example.org>",
		"Importance": "high", "Content-Type": "text/plain; charset=UTF-8",
	} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if d, err := m.Header.Date(); err != nil || time.Since(d) > time.Hour {
		t.Errorf("date %v %v", d, err)
	}
	want := `Critical admin needed: OCSP signer exposes its key

Answer here: https://emergency.example.org/e20261124.1

Please answer.
.
A line that begins with a dot is above. Grüße

Incident e20261124.1, page e20261124.1/1.3, decided at 2026-11-24T03:04:05Z
`
	if got := decoded(t, m.Body); strings.TrimRight(got, "\n") != strings.TrimRight(want, "\n") {
		t.Errorf("body %q, want %q", got, want)
	}
	if strings.Contains(strings.ToLower(string(raw)), "go-mail") {
		t.Error("the mail names the library")
	}
	if r := c.Send(t.Context(), p); r.State != channel.Sent {
		t.Fatalf("again: %+v", r)
	}
	if again, _ := taken(t, s); again.Header.Get("Message-Id") != m.Header.Get("Message-Id") {
		t.Error("the same page has another Message-ID")
	}
}

func TestNoHeaderCanBeInjected(t *testing.T) {
	t.Parallel()
	s := serve(t, &server{}, nil, false)
	c := open(t, plain(s.addr))
	evil := "x\r\nBcc: eve@example.org\nX-Evil: 1\r\r\n\r\nbody"
	p := page()
	p.ID, p.Incident, p.Headline, p.Link, p.Text, p.Urgent = evil, evil, evil, evil, evil, false
	if r := c.Send(t.Context(), p); r.State != channel.Sent {
		t.Fatalf("%+v", r)
	}
	m, raw := taken(t, s)
	if len(s.to) != 1 || m.Header.Get("Bcc") != "" || m.Header.Get("X-Evil") != "" {
		t.Errorf("injected: %s", raw)
	}
	if len(m.Header["Message-Id"]) != 1 || !strings.HasPrefix(m.Header.Get("Message-Id"), "<page-digest.") {
		t.Errorf("Message-ID %q", m.Header["Message-Id"])
	}
	for _, address := range []string{"", "alice", "alice@example.org\r\nDATA", "alice@example.org, eve@example.org", "Alice <alice@example.org>", "alice@example.org>", "älice@example.org", "@x:alice@example.org", "alice@example.org SIZE=1"} {
		p.Recipient.Address = address
		if r := c.Send(t.Context(), p); r.State != channel.Failed || r.Temporary || strings.Contains(r.Detail, "lice") {
			t.Errorf("%q: %+v, want refused without quoting it", address, r)
		}
	}
	if len(s.to) != 1 {
		t.Errorf("a refused address reached the server: %q", s.to)
	}
}

func TestLongAndForeignHeadlines(t *testing.T) {
	t.Parallel()
	s := serve(t, &server{}, nil, false)
	c := open(t, plain(s.addr))
	for _, headline := range []string{strings.Repeat("ü", 400), strings.Repeat("word ", 100), strings.Repeat("x", 1000), "日本語の見出し", ""} {
		p := page()
		p.Headline = headline
		if r := c.Send(t.Context(), p); r.State != channel.Sent {
			t.Fatalf("%.10s: %+v", headline, r)
		}
		m, raw := taken(t, s)
		got, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
		if want := "[e20261124.1] " + channel.OneLine(headline, 180); err != nil || strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("subject %q, want %q, %v", got, want, err)
		}
		for line := range strings.SplitSeq(string(raw), "\r\n") {
			if len(line) > 998 {
				t.Errorf("a line of %d bytes", len(line))
			}
		}
	}
}

// until is a context that ends when the fact is there.
func until(t *testing.T, fact <-chan struct{}) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		select {
		case <-fact:
		case <-ctx.Done():
		}
		cancel()
	}()
	t.Cleanup(cancel)
	return ctx
}

func TestLongTextIsCutAndSaysSo(t *testing.T) {
	t.Parallel()
	s := serve(t, &server{}, nil, false)
	p := page()
	p.Text = strings.Repeat("é", 1<<20)
	if r := open(t, plain(s.addr)).Send(t.Context(), p); r.State != channel.Sent {
		t.Fatalf("%+v", r)
	}
	m, _ := taken(t, s)
	if body := decoded(t, m.Body); len(body) > maxText+1000 || !strings.Contains(body, "(cut;") || !strings.Contains(body, p.Link) {
		t.Errorf("%d bytes", len(body))
	}
}

func TestReceiptsAreTrue(t *testing.T) {
	t.Parallel()
	reply := func(code int, text string) error {
		return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: text}
	}
	type want struct {
		state  channel.State
		temp   bool
		detail string
	}
	for _, c := range []struct {
		name string
		srv  *server
		want want
	}{
		{"451 at RCPT", &server{onRcpt: reply(451, "greylisted, alice@example.org")}, want{channel.Failed, true, "451 4.1.1"}},
		{"550 at RCPT", &server{onRcpt: reply(550, "no such user alice@example.org")}, want{channel.Failed, false, "550 5.1.1"}},
		{"552 at MAIL", &server{onMail: reply(552, "full")}, want{channel.Failed, false, "552 5.1.1"}},
		{"421 at MAIL", &server{onMail: reply(421, "busy")}, want{channel.Failed, true, "421 4.1.1"}},
		{"452 after DATA", &server{onData: reply(452, "disk")}, want{channel.Failed, true, "452 4.1.1"}},
		{"554 after DATA", &server{onData: reply(554, "spam")}, want{channel.Failed, false, "554 5.1.1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv := serve(t, c.srv, nil, false)
			r := open(t, plain(srv.addr)).Send(t.Context(), page())
			if r.State != c.want.state || r.Temporary != c.want.temp || !strings.Contains(r.Detail, c.want.detail) || strings.Contains(r.Detail, "alice") {
				t.Errorf("%+v, want %+v", r, c.want)
			}
			if len(srv.mails) != 0 {
				t.Error("a mail was taken")
			}
		})
	}
	for _, c := range []struct {
		name   string
		hangUp bool
		lines  []string
		want   want
	}{
		{"silent from the start", false, nil, want{channel.Failed, true, "in time"}},
		{"hangs up at once", true, nil, want{channel.Failed, true, "no connection"}},
		{"554 as greeting", true, []string{"554 go away"}, want{channel.Failed, false, "554"}},
		{"421 as greeting", true, []string{"421 busy"}, want{channel.Failed, true, "421"}},
		{"speaks no SMTP", true, []string{"HTTP/1.1 400 Bad Request"}, want{channel.Failed, false, "no mail server"}},
		{"silent after EHLO", false, []string{"220 x"}, want{channel.Failed, true, "in time"}},
		{"hangs up at RCPT", true, []string{"220 x", "250 x", "250 ok"}, want{channel.Failed, true, "lost before"}},
		{"silent at DATA", false, []string{"220 x", "250 x", "250 ok", "250 ok"}, want{channel.Failed, true, "in time before"}},
		{"silent in mid-DATA", false, []string{"220 x", "250 x", "250 ok", "250 ok", "354 go"}, want{channel.Unknown, false, "in time after"}},
		{"hangs up after DATA", true, []string{"220 x", "250 x", "250 ok", "250 ok", "354 go"}, want{channel.Unknown, false, "lost after"}},
		{"takes it and never says goodbye", false, []string{"220 x", "250 x", "250 ok", "250 ok", "354 go", "250 2.0.0 queued as 4711"}, want{channel.Sent, false, "taken"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, silent := talk(t, c.hangUp, c.lines...)
			r := open(t, plain(addr)).Send(until(t, silent), page())
			if r.State != c.want.state || r.Temporary != c.want.temp || !strings.Contains(r.Detail, c.want.detail) {
				t.Errorf("%+v, want %+v", r, c.want)
			}
			if c.want.state == channel.Sent && !strings.Contains(r.RemoteID, "4711") {
				t.Errorf("remote id %q", r.RemoteID)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if r := open(t, plain(l.Addr().String())).Send(t.Context(), page()); r.State != channel.Failed || !r.Temporary {
			t.Errorf("%+v", r)
		}
	})
}

func TestHangInRealServer(t *testing.T) {
	t.Parallel()
	s := serve(t, &server{hang: make(chan struct{}), reached: make(chan struct{})}, nil, false)
	if r := open(t, plain(s.addr)).Send(until(t, s.reached), page()); r.State != channel.Unknown || r.Temporary {
		t.Errorf("%+v, want unknown and no repetition", r)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	for _, c := range []struct {
		name             string
		security, caFile string
		pair             *tls.Certificate
		implicit         bool
		state            channel.State
		detail           string
	}{
		{"starttls", StartTLS, ca.pem, ca.server(t), false, channel.Sent, ""},
		{"implicit", ImplicitTLS, ca.pem, ca.server(t), true, channel.Sent, ""},
		{"starttls, other authority", StartTLS, other.pem, ca.server(t), false, channel.Failed, "not trusted"},
		{"implicit, other authority", ImplicitTLS, other.pem, ca.server(t), true, channel.Failed, "not trusted"},
		{"implicit, server speaks no TLS at once", ImplicitTLS, ca.pem, ca.server(t), false, channel.Failed, "check mail.server and mail.security"},
		{"starttls is not offered", StartTLS, ca.pem, nil, false, channel.Failed, "offers no STARTTLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, &server{user: "u", password: "pässword", mechs: []string{"PLAIN"}}, c.pair, c.implicit)
			cfg := plain(s.addr)
			cfg.Security, cfg.CAFile, cfg.User, cfg.Password = c.security, c.caFile, "u", "pässword"
			r := open(t, cfg).Send(t.Context(), page())
			if r.State != c.state || r.Temporary || !strings.Contains(r.Detail, c.detail) {
				t.Errorf("%+v, want %s %s", r, c.state, c.detail)
			}
			if got := len(s.mails); (got == 1) != (c.state == channel.Sent) {
				t.Errorf("%d mails", got)
			}
		})
	}
}

func TestLoginIsRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, &server{user: "u", password: "right", mechs: []string{"PLAIN"}}, nil, false)
	cfg := plain(s.addr)
	cfg.User, cfg.Password = "u", "wrong"
	if r := open(t, cfg).Send(t.Context(), page()); r.State != channel.Failed || r.Temporary || !strings.Contains(r.Detail, "535") || !strings.Contains(r.Detail, "mail.password") || strings.Contains(r.Detail, "wrong") {
		t.Errorf("%+v", r)
	}
	s = serve(t, &server{mechs: []string{"X-UNHEARD-OF"}}, nil, false)
	cfg.Server = s.addr
	if r := open(t, cfg).Send(t.Context(), page()); r.State != channel.Failed || r.Temporary {
		t.Errorf("%+v", r)
	}
}

func TestSignature(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	mailbox := func(c *x509.Certificate) {
		c.EmailAddresses, c.ExtKeyUsage = []string{"Emergency@example.org"}, []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}
	}
	s := serve(t, &server{}, nil, false)
	cfg := plain(s.addr)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	for _, name := range []string{"ecdsa", "rsa"} {
		key := ecKey(t)
		if name == "rsa" {
			key = rsaKey
		}
		cfg.SMIMECertFile, cfg.SMIMEKeyFile = ca.issue(t, key, mailbox)
		p := page()
		p.Headline = strings.Repeat("Überschrift, die gefaltet wird ", 5)
		if r := open(t, cfg).Send(t.Context(), p); r.State != channel.Sent {
			t.Fatalf("%s: %+v", name, r)
		}
		_, raw := taken(t, s)
		content, sig := split(t, raw)
		p7, err := pkcs7.Parse(sig)
		if err != nil {
			t.Fatal(err)
		}
		p7.Content = content
		if err := p7.VerifyWithChain(roots); err != nil {
			t.Errorf("%s: the signature is not valid: %v", name, err)
		}
		if body := decoded(t, bytes.NewReader(content[bytes.Index(content, []byte("\r\n\r\n"))+4:])); !strings.Contains(body, "Please answer.") {
			t.Errorf("%s: signed is %q", name, body)
		}
		p7.Content = bytes.Replace(content, []byte("Please"), []byte("Pleese"), 1)
		if p7.VerifyWithChain(roots) == nil {
			t.Errorf("%s: a changed mail verifies as well", name)
		}
	}
}

// split is the signed part, as it stands, and the signature.
func split(t *testing.T, raw []byte) (content, sig []byte) {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/signed" {
		t.Fatalf("%s %v", kind, err)
	}
	_, rest, ok := bytes.Cut(raw, []byte("\r\n--"+params["boundary"]+"\r\n"))
	content, _, ok2 := bytes.Cut(rest, []byte("\r\n--"+params["boundary"]+"\r\n"))
	if !ok || !ok2 {
		t.Fatalf("no parts in %s", raw)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for range 2 {
		part, err := parts.NextRawPart()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(part.Header.Get("Content-Type"), "application/pkcs7-signature") {
			if sig, err = base64.StdEncoding.DecodeString(strings.NewReplacer("\r", "", "\n", "").Replace(string(b))); err != nil {
				t.Fatal(err)
			}
		}
	}
	return content, sig
}

func TestConfigNamesTheSetting(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	mailbox := func(c *x509.Certificate) { c.EmailAddresses = []string{"emergency@example.org"} }
	sign := func(key func(*testing.T) (c, k string)) func(*Config) {
		return func(c *Config) { c.SMIMECertFile, c.SMIMEKeyFile = key(t) }
	}
	rubbish := t.TempDir() + "/rubbish.pem"
	if err := os.WriteFile(rubbish, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"mail.server":                     func(c *Config) { c.Server = "mail" },
		"mail.server: port":               func(c *Config) { c.Server = "127.0.0.1:smtps" },
		"mail.security: none is":          func(c *Config) { c.Server = "mail.example.org:25" },
		"mail.security: \"\"":             func(c *Config) { c.Security = "" },
		"mail.from":                       func(c *Config) { c.From = "Emergency <e@example.org>" },
		"mail.name":                       func(c *Config) { c.Name = "a\nb" },
		"mail.hello":                      func(c *Config) { c.Hello = "a\r\nMAIL" },
		"mail.user and mail.password":     func(c *Config) { c.User = "u" },
		"mail.ca_file":                    func(c *Config) { c.CAFile = rubbish },
		"mail.cert_file":                  func(c *Config) { c.CertFile = rubbish },
		"mail.smime_cert_file and":        func(c *Config) { c.SMIMEKeyFile = rubbish },
		"mail.smime_key_file: mail prog":  sign(func(t *testing.T) (string, string) { return ca.issue(t, edKey(t), mailbox) }),
		"mail.smime_cert_file: the certi": sign(func(t *testing.T) (string, string) { return ca.issue(t, ecKey(t), func(*x509.Certificate) {}) }),
		"mail.smime_cert_file: valid": sign(func(t *testing.T) (string, string) {
			return ca.issue(t, ecKey(t), func(c *x509.Certificate) { mailbox(c); c.NotAfter = time.Now().Add(-time.Minute) })
		}),
		"may not be used for mail": sign(func(t *testing.T) (string, string) {
			return ca.issue(t, ecKey(t), func(c *x509.Certificate) {
				mailbox(c)
				c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			})
		}),
	} {
		cfg := plain("127.0.0.1:25")
		change(&cfg)
		if _, err := New(cfg, channel.System{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := (Config{}).Check(at); err == nil || strings.Count(err.Error(), "\n") < 2 {
		t.Errorf("an empty configuration: %v, want all that is missing", err)
	}
	if err := plain("localhost:25").Check(at); err != nil {
		t.Error(err)
	}
}
