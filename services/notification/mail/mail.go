// SPDX-License-Identifier: Apache-2.0

// Package mail pages by SMTP.
//
// One page is one plain-text mail on a connection of its own, so a server that hangs holds up one page. The Message-ID
// follows from the page id, so the same page sent again is recognisable; all mails of an incident are one thread. Mails
// are marked as generated (RFC 3834), so no autoresponder answers, and are S/MIME-signed when a certificate is given.
//
// The receipt: Sent when the server took the mail; Failed when it said no, or when the connection was lost before the
// mail's end was sent; Unknown when it was lost after that. Unknown is not tried again: most mail servers deliver the
// same Message-ID twice. Nothing is ever Delivered: SMTP cannot tell.
//
// A mail never authorises anything (hardening 1.11): the link leads to a page that asks who it is.
package mail

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"cacert.org/emergency/services/notification/channel"
)

const (
	// maxDialogue bounds one SMTP dialogue if the context does not.
	maxDialogue = 2 * time.Minute
	// farewell is how long the server may take to answer QUIT.
	farewell = 2 * time.Second
	// maxText bounds the text of a page, in bytes.
	maxText = 32 << 10
)

// Channel sends mails. It keeps nothing between two pages.
type Channel struct {
	cfg    Config
	host   string
	port   int
	domain string
	tls    *tls.Config
	sign   *signer
	clock  channel.Clock
}

// New reads the files of the configuration and checks it.
func New(cfg Config, clock channel.Clock) (*Channel, error) {
	conf, sign, err := cfg.load(clock.Now())
	if err != nil {
		return nil, err
	}
	host, p, _ := net.SplitHostPort(cfg.Server)
	port, err := strconv.Atoi(p)
	if err != nil || port < 1 || port > 65535 {
		return nil, fmt.Errorf("mail.server: port %q is not a number up to 65535", p)
	}
	return &Channel{cfg: cfg, host: host, port: port, domain: cfg.From[strings.LastIndexByte(cfg.From, '@')+1:], tls: conf, sign: sign, clock: clock}, nil
}

// Name is "mail".
func (c *Channel) Name() string { return "mail" }

// Send sends one mail.
func (c *Channel) Send(ctx context.Context, p channel.Page) channel.Receipt {
	msg, err := c.message(p)
	if err != nil {
		return channel.Receipt{State: channel.Failed, Detail: err.Error()}
	}
	link := &connection{ctx: ctx}
	defer link.close()
	client, err := c.client(link)
	if err != nil {
		return channel.Receipt{State: channel.Failed, Detail: "mail client: " + err.Error()}
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return refusedAtStart(ctx, err)
	}
	err = client.SendWithSMTPClient(session, msg)
	if !msg.IsDelivered() {
		// The connection is cut without QUIT: that command would end a mail that was written in part.
		return notTaken(ctx, err)
	}
	link.bid(session)
	return channel.Receipt{State: channel.Sent, Detail: "taken by the mail server", RemoteID: channel.OneLine(msg.ServerResponse(), 100)}
}

// connection is the raw connection of one dialogue. go-mail leaves it open when the greeting, TLS or login fails, and
// looks at the context only while dialling.
type connection struct {
	ctx  context.Context
	conn net.Conn
	stop func() bool
}

func (l *connection) set(conn net.Conn) {
	l.conn = conn
	l.stop = context.AfterFunc(l.ctx, func() { _ = conn.Close() })
}

func (l *connection) close() {
	if l.conn != nil {
		l.stop()
		_ = l.conn.Close()
	}
}

// bid says goodbye after the mail was taken. What comes back changes nothing, so it is not waited for long.
func (l *connection) bid(session *smtp.Client) {
	_ = l.conn.SetDeadline(time.Now().Add(farewell))
	_ = session.Quit()
}

// client makes a go-mail client for one dialogue: go-mail changes its own settings while it works.
func (c *Channel) client(link *connection) (*gomail.Client, error) {
	opts := []gomail.Option{
		gomail.WithPort(c.port), gomail.WithTimeout(maxDialogue), gomail.WithTLSConfig(c.tls.Clone()), gomail.WithoutNoop(), gomail.WithoutRset(), gomail.WithoutSMTPUTF8(),
		gomail.WithDialContextFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
			return c.dial(ctx, link, network, address)
		}),
		gomail.WithTLSPolicy(gomail.NoTLS),
	}
	if c.cfg.Security == StartTLS {
		opts = append(opts, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if c.cfg.Hello != "" {
		opts = append(opts, gomail.WithHELO(c.cfg.Hello))
	}
	if c.cfg.User != "" {
		opts = append(opts, gomail.WithUsername(c.cfg.User), gomail.WithPassword(string(c.cfg.Password)),
			gomail.WithOpportunisticSMTPAuth(gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthPlain, gomail.SMTPAuthLogin))
	}
	return gomail.NewClient(c.host, opts...)
}

func (c *Channel) dial(ctx context.Context, link *connection, network, address string) (net.Conn, error) {
	d := net.Dialer{}
	if c.cfg.Security == NoTLS {
		d.Control = channel.OnlyLoopback
	}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	link.set(conn)
	if c.cfg.Security != ImplicitTLS {
		return conn, nil
	}
	secure := tls.Client(conn, c.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secure, nil
}

// message renders once before anything is sent: an error in the middle would leave half a mail at the server.
func (c *Channel) message(p channel.Page) (*gomail.Msg, error) {
	to := plainAddress(p.Recipient.Address)
	if to == "" {
		return nil, errors.New("not sent: the rule book's address is no mail address")
	}
	m := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := errors.Join(m.FromFormat(c.cfg.Name, c.cfg.From), m.EnvelopeFrom(c.cfg.From), m.To(to)); err != nil {
		return nil, errors.New("not sent: the mail library refuses the sender or the recipient")
	}
	m.Subject(subject(p))
	m.SetMessageIDWithValue(c.id("page", p.ID))
	m.SetDateWithValue(c.clock.Now())
	thread := "<" + c.id("incident", p.Incident) + ">"
	m.SetGenHeader(gomail.HeaderInReplyTo, thread)
	m.SetGenHeader(gomail.HeaderReferences, thread)
	m.SetGenHeader("Auto-Submitted", "auto-generated")
	m.SetGenHeader("X-Epatch-Incident", channel.OneLine(p.Incident, 60))
	if p.Urgent {
		m.SetImportance(gomail.ImportanceHigh)
	}
	m.SetBodyString(gomail.TypeTextPlain, body(p))
	if c.sign != nil {
		if err := m.SignWithKeypair(c.sign.key, c.sign.cert, c.sign.intermediate); err != nil {
			return nil, fmt.Errorf("not sent: sign: %w", err)
		}
	}
	if _, err := m.WriteTo(io.Discard); err != nil {
		return nil, fmt.Errorf("not sent: compose: %w", err)
	}
	return m, nil
}

func subject(p channel.Page) string {
	s := channel.OneLine(p.Headline, 180)
	if p.Incident != "" && !strings.Contains(s, p.Incident) {
		s = fmt.Sprintf("[%s] %s", channel.OneLine(p.Incident, 60), s)
	}
	return s
}

// body has the link before the text, so that a telephone shows it without scrolling.
func body(p channel.Page) string {
	var b strings.Builder
	b.WriteString(channel.OneLine(p.Headline, 500) + "\n")
	if p.Link != "" {
		b.WriteString("\nAnswer here: " + channel.OneLine(p.Link, 1000) + "\n")
	}
	if text := strings.TrimSpace(channel.Clean(channel.Prefix(p.Text, maxText))); text != "" {
		b.WriteString("\n" + text + "\n")
	}
	if len(p.Text) > maxText {
		b.WriteString("\n(cut; the link has all of it)\n")
	}
	fmt.Fprintf(&b, "\nIncident %s, page %s, decided at %s\n", channel.OneLine(p.Incident, 60), channel.OneLine(p.ID, 100), p.At.UTC().Format(time.RFC3339))
	return b.String()
}

// dotAtom is what may stand unquoted on the left of a Message-ID (RFC 5322), and short enough not to be folded.
var dotAtom = regexp.MustCompile(`^[A-Za-z0-9/_+-]+(\.[A-Za-z0-9/_+-]+)*$`)

// id is a Message-ID without brackets. What cannot stand in one is replaced by its digest.
func (c *Channel) id(kind, value string) string {
	if len(value) > 40 || !dotAtom.MatchString(value) {
		sum := sha256.Sum256([]byte(value))
		kind, value = kind+"-digest", hex.EncodeToString(sum[:16])
	}
	return kind + "." + value + "@" + c.domain
}

// refusedAtStart is the receipt of a dialogue that ended before the mail began. A lost connection and a 4xx may be over
// soon; a certificate that is not trusted, a refused login or a server without TLS wait for an operator.
func refusedAtStart(ctx context.Context, err error) channel.Receipt {
	r := channel.Receipt{State: channel.Failed, Detail: "not sent: the mail server does not let us begin"}
	var reply *textproto.Error
	var babble textproto.ProtocolError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var netErr net.Error
	switch {
	case errors.As(err, &reply):
		r.Temporary = reply.Code/100 == 4
		r.Detail = fmt.Sprintf("not sent: the mail server answered %d before the mail began", reply.Code)
		if reply.Code == 535 || reply.Code == 534 {
			r.Detail += "; check mail.user and mail.password"
		}
	case errors.As(err, &babble), errors.As(err, &record):
		r.Detail = "not sent: what answers is no mail server, or expects TLS otherwise; check mail.server and mail.security"
	case errors.As(err, &cert):
		r.Detail = "not sent: the mail server's certificate is not trusted; check mail.ca_file and mail.server"
	case ctx.Err() != nil:
		r.Temporary, r.Detail = true, "not sent: the mail server did not answer in time"
	case errors.As(err, &netErr), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		r.Temporary, r.Detail = true, "not sent: no connection to the mail server"
	case strings.Contains(err.Error(), "STARTTLS"):
		r.Detail = "not sent: the mail server offers no STARTTLS; check mail.server and mail.security"
	default:
		r.Detail = "not sent: the mail server and we cannot agree on a login; check mail.user and mail.security"
	}
	return r
}

// notTaken is the receipt of a mail that the server did not confirm. go-mail counts only 4xx as temporary, and a lost
// connection as permanent; here a lost connection is temporary before the mail's end and unknown after it.
func notTaken(ctx context.Context, err error) channel.Receipt {
	var e *gomail.SendError
	if !errors.As(err, &e) {
		return channel.Receipt{State: channel.Unknown, Detail: "the mail library did not say what became of the mail"}
	}
	if code := e.ErrorCode(); code != 0 {
		return channel.Receipt{State: channel.Failed, Temporary: e.IsTemp(), Detail: fmt.Sprintf("not sent: the mail server answered %d %s", code, e.EnhancedStatusCode())}
	}
	why := "the connection was lost"
	if ctx.Err() != nil {
		why = "no answer in time"
	}
	switch e.Reason {
	case gomail.ErrSMTPDataClose:
		return channel.Receipt{State: channel.Unknown, Detail: why + " after the whole mail was handed over"}
	case gomail.ErrGetSender, gomail.ErrGetRcpts, gomail.ErrNoUnencoded:
		return channel.Receipt{State: channel.Failed, Detail: "not sent: " + e.Reason.String()}
	default:
		return channel.Receipt{State: channel.Failed, Temporary: true, Detail: "not sent: " + why + " before the mail's end"}
	}
}
