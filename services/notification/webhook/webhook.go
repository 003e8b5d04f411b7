// SPDX-License-Identifier: Apache-2.0

// Package webhook pages through gateways for text messages and voice calls, by signed HTTP.
//
// One page is one POST of the JSON object Message. Receivers check it with Verify, or in any language:
//
//	Epatch-Signature: t=1795489445,v1=5257a8...
//	v1 = lower-case hex of HMAC-SHA256(secret, t + "." + body), compared in constant time; several v1 may stand there
//	t  = seconds since 1970, at most Window (5 min) from the receiver's clock
//
// They act once per page: the field page, and the header Idempotency-Key, name it, and a page sent again has the same.
// They answer 2xx when they took the page, with {"id": "...", "state": "delivered"} if they have an id for it or know
// that it arrived; both are optional. 408, 425, 429 and 5xx are tried again, not before Retry-After; every other answer
// is final. No redirect is followed.
//
// The receipt: Sent or Delivered after a 2xx; Failed after another answer, or if no request went out; Unknown if the
// request went out and no answer came back, or a proxy (502, 504) does not know. Unknown is tried again, because the
// receiver recognises the page. Plain http is for this machine only.
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"cacert.org/emergency/services/notification/channel"
)

const (
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 10
	// maxText bounds the text of a page, in bytes.
	maxText = 32 << 10
	// maxPause is the longest Retry-After that is believed.
	maxPause = time.Hour
)

// Config is one gateway.
type Config struct {
	// Name is the channel's name in the rule book, such as sms or voice. The settings are named after it: sms.url.
	Name string
	// URL takes the POST; https, or http on this machine.
	URL string
	// Secret is shared with the gateway, at least 32 bytes.
	Secret channel.Secret
	// CAFile, CertFile, KeyFile are for TLS.
	channel.TLSFiles
}

var word = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

// Check names each setting that cannot be, and what to write instead. It reads the files.
func (c Config) Check() error {
	_, _, err := c.load()
	return err
}

func (c Config) load() (*url.URL, *tls.Config, error) {
	var errs []error
	name := c.Name
	if !word.MatchString(name) {
		errs, name = append(errs, fmt.Errorf("webhook.name: %q is not a lower-case word such as sms", c.Name)), "webhook"
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		// The value is not quoted: an address may hold a key.
		errs, u = append(errs, fmt.Errorf("%s.url: not an address such as https://gateway.example.org/page", name)), &url.URL{}
	case u.User != nil || u.Fragment != "":
		errs = append(errs, fmt.Errorf("%s.url: without user, password and fragment; the signature says who we are", name))
	case u.Scheme == "http" && !channel.Loopback(u.Hostname()):
		errs = append(errs, fmt.Errorf("%s.url: http is for a gateway on this machine, %q is not; use https", name, u.Hostname()))
	}
	if len(c.Secret) < 32 {
		errs = append(errs, fmt.Errorf("%s.secret: %d bytes, at least 32 are needed; make one with: openssl rand -hex 32", name, len(c.Secret)))
	}
	conf, err := c.TLSFiles.Config(name, u.Hostname())
	if err != nil {
		errs = append(errs, err)
	}
	return u, conf, errors.Join(errs...)
}

// Message is the body of a request.
type Message struct {
	// Page is the page id: act once for each.
	Page string `json:"page"`
	// Incident is the id of the incident.
	Incident string `json:"incident"`
	// Headline is one line, fit for a text message or for being read out.
	Headline string `json:"headline"`
	// Text may have several lines.
	Text string `json:"text,omitempty"`
	// Link is where to answer.
	Link string `json:"link,omitempty"`
	// Person is an opaque id.
	Person string `json:"person"`
	// Address is the number or name to reach.
	Address string `json:"address"`
	// Urgent asks to wake the person.
	Urgent bool `json:"urgent"`
	// At is when the page was decided.
	At time.Time `json:"at"`
}

// Channel posts pages to one gateway. Each has a connection of its own, so none is lost in a connection that died
// unnoticed.
type Channel struct {
	name   string
	url    string
	secret []byte
	client *http.Client
	clock  channel.Clock
}

// New reads the files of the configuration and checks it.
func New(cfg Config, clock channel.Clock) (*Channel, error) {
	u, conf, err := cfg.load()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{}
	if u.Scheme == "http" {
		dialer.Control = channel.OnlyLoopback
	}
	transport := &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: conf, DisableKeepAlives: true, DisableCompression: true,
		MaxResponseHeaderBytes: maxAnswer,
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &Channel{name: cfg.Name, url: cfg.URL, secret: []byte(cfg.Secret), client: client, clock: clock}, nil
}

// Name is the configured name.
func (c *Channel) Name() string { return c.name }

// Send posts one page.
func (c *Channel) Send(ctx context.Context, p channel.Page) channel.Receipt {
	if p.Recipient.Address == "" {
		return channel.Receipt{State: channel.Failed, Detail: "not sent: the rule book has no address"}
	}
	var out atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { out.Store(true) }})
	req, err := c.request(ctx, p)
	if err != nil {
		return channel.Receipt{State: channel.Failed, Detail: "not sent: the page cannot be written as a request"}
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return c.noAnswer(ctx, err, out.Load())
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		body = nil // the status counts; only the gateway's id is lost
	}
	return c.receipt(resp, body)
}

func (c *Channel) request(ctx context.Context, p channel.Page) (*http.Request, error) {
	body, err := json.Marshal(Message{
		Page: p.ID, Incident: p.Incident, Headline: channel.OneLine(p.Headline, 500), Text: channel.Clean(channel.Prefix(p.Text, maxText)), Link: p.Link,
		Person: p.Recipient.Person, Address: p.Recipient.Address, Urgent: p.Urgent, At: p.At.UTC(),
	})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "epatch")
	req.Header.Set(IdempotencyHeader, p.ID)
	req.Header.Set(SignatureHeader, sign(c.secret, body, c.clock.Now()))
	return req, nil
}

// noAnswer is the receipt without an answer. The error's text is not used: it holds the URL.
func (c *Channel) noAnswer(ctx context.Context, err error, out bool) channel.Receipt {
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &cert):
		return channel.Receipt{State: channel.Failed, Detail: fmt.Sprintf("not sent: the gateway's certificate is not trusted; check %s.ca_file and %s.url", c.name, c.name)}
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return channel.Receipt{State: channel.Failed, Detail: fmt.Sprintf("not sent: what answers speaks no TLS; check %s.url", c.name)}
	case out && ctx.Err() != nil:
		return channel.Receipt{State: channel.Unknown, Temporary: true, Detail: "the gateway did not answer in time"}
	case out:
		return channel.Receipt{State: channel.Unknown, Temporary: true, Detail: "the connection was lost before the gateway answered"}
	default:
		return channel.Receipt{State: channel.Failed, Temporary: true, Detail: "not sent: no connection to the gateway"}
	}
}

func (c *Channel) receipt(resp *http.Response, body []byte) channel.Receipt {
	code := resp.StatusCode
	r := channel.Receipt{State: channel.Failed, Detail: fmt.Sprintf("the gateway answered %d %s", code, http.StatusText(code))}
	switch {
	case code/100 == 2:
		r.State, r.Detail = channel.Sent, "taken by the gateway"
		var a struct{ ID, State string }
		if json.Unmarshal(body, &a) == nil {
			r.RemoteID = channel.OneLine(a.ID, 100)
			if a.State == "delivered" {
				r.State, r.Detail = channel.Delivered, "the gateway says that it arrived"
			}
		}
	case code == http.StatusBadGateway, code == http.StatusGatewayTimeout:
		r.State, r.Temporary = channel.Unknown, true
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code/100 == 5:
		r.Temporary = true
	case code/100 == 3:
		r.Detail += fmt.Sprintf("; redirects are not followed, correct %s.url", c.name)
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		r.Detail += fmt.Sprintf("; check %s.secret and both clocks", c.name)
	}
	if r.Temporary {
		r.RetryAfter = c.pause(resp.Header.Get("Retry-After"))
	}
	return r
}

// pause reads Retry-After, seconds or a date.
func (c *Channel) pause(v string) time.Duration {
	var d time.Duration
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		d = time.Duration(s) * time.Second
	} else if at, err := http.ParseTime(v); err == nil {
		d = at.Sub(c.clock.Now())
	}
	return min(max(d, 0), maxPause)
}
