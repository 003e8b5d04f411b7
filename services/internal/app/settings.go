// SPDX-License-Identifier: Apache-2.0

// Package app puts the services together: it opens the log, the identities and the read models, builds the roles and serves
// them. `epatchd all` runs everything in one process with an embedded log, a development authority and a demo rule book.
package app

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"cacert.org/emergency/pkg/timer"
	"cacert.org/emergency/services/deployment"
	"cacert.org/emergency/services/notification/channel"
	"cacert.org/emergency/services/notification/irc"
	"cacert.org/emergency/services/notification/mail"
	"cacert.org/emergency/services/notification/webhook"
	"cacert.org/emergency/services/review/tracker"
)

// Settings of a process.
type Settings struct {
	// Data is the folder under which everything lies.
	Data string
	// Listen is the address of the gRPC API, HTTP of the public log, HTTPS of the pages that ask for a certificate.
	Listen, HTTP, HTTPS string
	// PublicURL is where people reach the pages, such as https://emergency.cacert.org: passkeys are made for its host. Empty for this
	// machine, localhost.
	PublicURL string
	// Repository is the bare git repository that patches are transferred to; empty for one below Data.
	Repository string
	// LogFormat is text or json, LogLevel the least level that is written.
	LogFormat, LogLevel string

	// DisputeAddress is where disputes are filed by mail; empty for nowhere.
	DisputeAddress string

	Mail    mail.Config
	IRC     irc.Config
	SMS     webhook.Config
	Tracker tracker.Config
	Access  deployment.AccessConfig
	Console deployment.ConsoleConfig

	// Secrets are read as text and moved into their configs by check.
	smsSecret, mailPassword, ircPassword, trackerToken string

	// Clock replaces the machine's clock, LogTo standard error, and Channels the configured ways to reach people; tests.
	Clock    timer.Clock
	LogTo    io.Writer
	Channels []channel.Channel
}

// Flags adds the settings to a flag set.
func (s *Settings) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&s.Data, "data", "epatch-data", "folder under which everything lies")
	fs.StringVar(&s.Listen, "listen", "localhost:7443", "address of the gRPC API (TLS with client certificates)")
	fs.StringVar(&s.HTTP, "http", "localhost:7080", "address of the public emergency log; loopback only")
	fs.StringVar(&s.HTTPS, "https", "localhost:7444", "address of the same pages by TLS, and of the links in pages")
	fs.StringVar(&s.PublicURL, "public-url", "", "where people reach the pages, such as https://emergency.cacert.org; passkeys are made for its host. By default this machine alone, localhost")
	fs.StringVar(&s.Repository, "repository", "", "bare git repository that patches are transferred to; by default one below the data folder")
	fs.StringVar(&s.LogFormat, "log-format", "text", "text or json")
	fs.StringVar(&s.LogLevel, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(&s.Mail.Server, "mail-server", "", "mail server, host:port; without one pages by mail go to a folder")
	fs.StringVar(&s.Mail.Security, "mail-security", mail.StartTLS, "starttls, tls or none (this machine only)")
	fs.StringVar(&s.Mail.From, "mail-from", "", "sender of mails")
	fs.StringVar(&s.Mail.User, "mail-user", "", "user at the mail server")
	fs.StringVar(&s.mailPassword, "mail-password", "", "password at the mail server")
	fs.StringVar(&s.DisputeAddress, "dispute-address", "", "mail address that disputes are filed at; without one they are filed in the log alone")
	fs.StringVar(&s.Mail.SMIMECertFile, "mail-smime-cert", "", "certificate that signs mails, PEM")
	fs.StringVar(&s.Mail.SMIMEKeyFile, "mail-smime-key", "", "its key, PEM")
	fs.StringVar(&s.IRC.Server, "irc-server", "", "IRC server, host:port; without one nobody is paged by irc")
	fs.StringVar(&s.IRC.Security, "irc-security", irc.TLS, "tls, or none (this machine only)")
	fs.StringVar(&s.IRC.Nick, "irc-nick", "epatch", "nick on IRC")
	fs.StringVar(&s.IRC.SASL, "irc-sasl", "", "plain or external; empty for no login")
	fs.StringVar(&s.IRC.SASLUser, "irc-user", "", "account on IRC, for plain")
	fs.StringVar(&s.ircPassword, "irc-password", "", "its password")
	fs.StringVar(&s.SMS.URL, "sms-url", "", "webhook of an SMS gateway; without one pages by sms go to a folder")
	fs.StringVar(&s.smsSecret, "sms-secret", "", "secret shared with the gateway, at least 32 bytes")
	fs.StringVar(&s.Console.Listen, "console-listen", "", "address of the watched SSH console (strategy 3); without one no remote access is granted here")
	fs.StringVar(&s.Console.Address, "console-address", "", "host:port under which subjects reach it; console-listen if empty")
	fs.StringToStringVar(&s.Console.Targets, "console-target", nil, "address of a critical host's sshd, such as critical-1=192.0.2.1:22; may be given several times")
	fs.Int64Var(&s.Console.Recording, "console-recording", 0, "bytes of a session's recording until its watcher has to extend or end the session (at most 64 MiB, which is the default)")
	fs.StringVar(&s.Console.KnownHosts, "console-known-hosts", "", "known_hosts file that pins the keys of the targets")
	fs.StringVar(&s.Access.Account, "console-account", "", "account on the hosts that sessions log in to")
	fs.DurationVar(&s.Access.MaxLength, "console-max-length", 0, "longest session; only tightens the policy's session.max")
	fs.DurationVar(&s.Access.FirstUse, "console-first-use", 0, "how long a credential waits for its use; only tightens the policy's grant.first_use")
	fs.StringVar(&s.Tracker.URL, "tracker-url", "", "MantisBT to which notes are written; without one testers name their note")
	fs.StringVar(&s.trackerToken, "tracker-token", "", "API token at the tracker")
}

// Secrets names the flags whose values are never shown.
func Secrets() []string {
	return []string{"mail-password", "irc-password", "sms-secret", "tracker-token"}
}

// check completes the settings and refuses what cannot work.
func (s *Settings) check() error {
	if s.Data == "" {
		return errors.New("setting data: a folder is needed")
	}
	for _, a := range []struct{ name, addr string }{{"listen", s.Listen}, {"http", s.HTTP}, {"https", s.HTTPS}} {
		host, _, err := net.SplitHostPort(a.addr)
		if err != nil {
			return fmt.Errorf("setting %s: %q is no host:port", a.name, a.addr)
		}
		if a.name == "http" && !channel.Loopback(host) {
			return fmt.Errorf("setting http: %s is not this machine; without TLS only loopback is served, use https", a.addr)
		}
	}
	if u, err := url.Parse(s.PublicURL); s.PublicURL != "" && (err != nil || u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "") {
		return fmt.Errorf("setting public-url: %q is not of the form https://host", s.PublicURL)
	}
	if s.Clock == nil {
		s.Clock = timer.System{}
	}
	if s.Repository == "" {
		s.Repository = filepath.Join(s.Data, "repository.git")
	}
	s.Tracker.Token = tracker.Token(s.trackerToken)
	s.IRC.SASLPassword = channel.Secret(s.ircPassword)
	s.Mail.Password, s.SMS.Secret, s.SMS.Name = channel.Secret(s.mailPassword), channel.Secret(s.smsSecret), "sms"
	return nil
}

func (s *Settings) level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(s.LogLevel)); err != nil {
		return 0, fmt.Errorf("setting log-level: %q is none of debug, info, warn, error", s.LogLevel)
	}
	return l, nil
}

func (s *Settings) path(parts ...string) string {
	return filepath.Join(append([]string{s.Data}, parts...)...)
}
