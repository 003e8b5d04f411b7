// SPDX-License-Identifier: Apache-2.0

// Package app puts the services together: it opens the log, the identities and the read models, builds the roles and serves
// them. `epatchd all` runs everything in one process with an embedded log, a development authority and a demo rule book.
package app

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
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
	// Service is the one service of this process, as Cluster says; all of them with an embedded log if it is empty.
	Service string
	Cluster Cluster

	// Data is the folder under which everything lies.
	Data string
	// Listen is the address of the gRPC API, HTTP of the public log, HTTPS of the pages that ask for a certificate.
	Listen, HTTP, HTTPS string
	// PublicURL is where people reach the pages, such as https://emergency.cacert.org: passkeys are made for its host. Empty for this
	// machine, localhost.
	PublicURL string
	// Repository is the bare git repository that patches are transferred to; empty for one below Data.
	Repository string
	// LinkKey is the file of the key that signs the links in pages, shared by all instances; one below Data if empty.
	LinkKey string
	// Limits are how many calls a caller may make, MaxConnections how many connections to the API, and how many to the pages, are open at a time, and MaxPerAddress
	// how many from one address; none if zero.
	Limits                        rpc.Limits
	MaxConnections, MaxPerAddress int
	// LogFormat is text or json, LogLevel the least level that is written.
	LogFormat, LogLevel string

	// Database is the URL of a PostgreSQL database in which what operators query and an archive of the log are kept; empty for none.
	Database string

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

// Flags adds the settings of a process with everything in it to a flag set.
func (s *Settings) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&s.Data, "data", "epatch-data", "folder under which everything lies")
	s.commonFlags(fs)
	s.databaseFlag(fs)
	s.pageFlags(fs, "localhost:7080", "localhost:7444")
	fs.StringVar(&s.Repository, "repository", "", "bare git repository that patches are transferred to; by default one below the data folder")
	s.mailFlags(fs)
	s.channelFlags(fs)
	s.consoleFlags(fs)
	s.trackerFlags(fs)
}

// ServiceFlags adds the settings of a process with one service to a flag set.
func (s *Settings) ServiceFlags(fs *pflag.FlagSet, service string) {
	s.Service = service
	fs.StringVar(&s.Data, "data", "", "folder of this instance's own state")
	s.commonFlags(fs)
	s.clusterFlags(fs)
	s.pageFlags(fs, "", "")
	switch service {
	case dashboardName:
		s.databaseFlag(fs)
	case procedure.OwnerNotification:
		s.mailFlags(fs)
		s.channelFlags(fs)
		fs.StringVar(&s.LinkKey, "link-key", "", "file of at least 32 random bytes that sign the links in pages, the same for all instances")
	case procedure.OwnerArbitration:
		s.mailFlags(fs)
	case procedure.OwnerReview, procedure.OwnerDeployment:
		fs.StringVar(&s.Repository, "repository", "", "bare git repository that patches are transferred to: a path, or an https or ssh address")
		if service == procedure.OwnerReview {
			s.trackerFlags(fs)
		} else {
			s.consoleFlags(fs)
		}
	}
}

func (s *Settings) commonFlags(fs *pflag.FlagSet) {
	fs.StringVar(&s.Listen, "listen", "localhost:7443", "address of the gRPC API (TLS with client certificates)")
	s.limitFlags(fs)
	fs.StringVar(&s.LogFormat, "log-format", "text", "text or json")
	fs.StringVar(&s.LogLevel, "log-level", "info", "debug, info, warn or error")
}

// limitFlags are generous: whoever works through an emergency, or watches it, never meets them, and a program that runs wild does.
func (s *Settings) limitFlags(fs *pflag.FlagSet) {
	for _, x := range []struct {
		name, what string
		limit      *rpc.Limit
		perSecond  float64
		burst      int
	}{
		{"known", "calls of a person or system of the rule book", &s.Limits.Known, 200, 2000},
		{"unknown", "calls from one address, of whom the rule book does not know", &s.Limits.Unknown, 50, 500},
		{"known-refused", "of them, calls that had to be refused: who used these up waits with each call", &s.Limits.KnownRefused, 2, 200},
		{"unknown-refused", "the same for an address", &s.Limits.UnknownRefused, 1, 50},
	} {
		fs.Float64Var(&x.limit.PerSecond, "limit-"+x.name, x.perSecond, x.what+", a second; 0 for any number")
		fs.IntVar(&x.limit.Burst, "limit-"+x.name+"-burst", x.burst, "so many of these at once")
	}
	fs.IntVar(&s.MaxConnections, "max-connections", 4096, "connections to the API, and as many to the pages, that are open at a time; more wait. 0 for any number")
	fs.IntVar(&s.MaxPerAddress, "max-connections-per-address", 512, "of them from one address; more are closed. 0 for any number")
}

func (s *Settings) databaseFlag(fs *pflag.FlagSet) {
	fs.StringVar(&s.Database, databaseSetting, "", "PostgreSQL database, postgres://user:password@host/name, in which tables for operators and an archive of the log are kept; without one they are not")
}

// databaseSetting is a secret: the URL may have a password in it.
const databaseSetting = "database"

func (s *Settings) clusterFlags(fs *pflag.FlagSet) {
	c := &s.Cluster
	fs.StringSliceVar(&c.NATS, "nats", nil, "servers of the event log, such as tls://nats-1.example.org:4222; may be given several times")
	fs.StringVar(&c.Seed, "nats-seed", "", "file with the seed of this service's user at those servers")
	c.copyFlags(fs)
	fs.StringVar(&c.Identity, "identity", "", "folder with this service's cert.pem, key.pem and ca.pem; followed, so that a renewed certificate needs no restart")
	if s.Service != dashboardName {
		fs.StringVar(&c.SigningKey, "signing-key", "", "file of the Ed25519 key by which this service signs records")
	}
	fs.StringVar(&c.Keyring, "keyring", "", "file with the public keys by which the services sign records")
	fs.StringToStringVar(&c.Peers, "peer", nil, "address of a service, such as review=review-1.example.org:7443; for several instances separate them by semicolons; may be given several times")
	fs.StringVar(&c.DemoPeople, "demo-people", "", "folder with the profiles of a demo's people, whose keys sign in pages. Never where an emergency can be real")
}

// copyFlags say what the log must be like.
func (c *Cluster) copyFlags(fs *pflag.FlagSet) {
	fs.IntVar(&c.Replicas, "nats-replicas", 3, "copies that the event log must have")
	fs.BoolVar(&c.Synced, "nats-synced", false, "state that every server has sync_interval: always, which a service cannot ask for; without it nothing starts")
}

// logFlags are how an operator's command reaches the log of an installation, by whose user.
func (c *Cluster) logFlags(fs *pflag.FlagSet, whose string) {
	fs.StringSliceVar(&c.NATS, "nats", nil, "servers of the event log, such as tls://nats-1.example.org:4222; may be given several times")
	fs.StringVar(&c.Seed, "nats-seed", "", "file with the seed of "+whose+"'s user at those servers")
	fs.StringVar(&c.Identity, "identity", "", "folder with a cert.pem, key.pem and ca.pem that those servers take")
}

func (s *Settings) pageFlags(fs *pflag.FlagSet, http, https string) {
	fs.StringVar(&s.HTTP, "http", http, "address of the public emergency log, health and metrics; loopback only")
	fs.StringVar(&s.HTTPS, "https", https, "address of the same pages by TLS, and of the links in pages")
	fs.StringVar(&s.PublicURL, "public-url", "", "where people reach the pages, such as https://emergency.cacert.org; passkeys are made for its host. By default this machine alone, localhost")
}

func (s *Settings) mailFlags(fs *pflag.FlagSet) {
	fs.StringVar(&s.Mail.Server, "mail-server", "", "mail server, host:port; without one pages by mail go to a folder")
	fs.StringVar(&s.Mail.Security, "mail-security", mail.StartTLS, "starttls, tls or none (this machine only)")
	fs.StringVar(&s.Mail.From, "mail-from", "", "sender of mails")
	fs.StringVar(&s.Mail.User, "mail-user", "", "user at the mail server")
	fs.StringVar(&s.mailPassword, "mail-password", "", "password at the mail server")
	fs.StringVar(&s.DisputeAddress, "dispute-address", "", "mail address that disputes are filed at; without one they are filed in the log alone")
	fs.StringVar(&s.Mail.SMIMECertFile, "mail-smime-cert", "", "certificate that signs mails, PEM")
	fs.StringVar(&s.Mail.SMIMEKeyFile, "mail-smime-key", "", "its key, PEM")
}

func (s *Settings) channelFlags(fs *pflag.FlagSet) {
	fs.StringVar(&s.IRC.Server, "irc-server", "", "IRC server, host:port; without one nobody is paged by irc")
	fs.StringVar(&s.IRC.Security, "irc-security", irc.TLS, "tls, or none (this machine only)")
	fs.StringVar(&s.IRC.Nick, "irc-nick", "epatch", "nick on IRC")
	fs.StringVar(&s.IRC.SASL, "irc-sasl", "", "plain or external; empty for no login")
	fs.StringVar(&s.IRC.SASLUser, "irc-user", "", "account on IRC, for plain")
	fs.StringVar(&s.ircPassword, "irc-password", "", "its password")
	fs.StringVar(&s.SMS.URL, "sms-url", "", "webhook of an SMS gateway; without one pages by sms go to a folder")
	fs.StringVar(&s.smsSecret, "sms-secret", "", "secret shared with the gateway, at least 32 bytes")
}

func (s *Settings) consoleFlags(fs *pflag.FlagSet) {
	fs.StringVar(&s.Console.Listen, "console-listen", "", "address of the watched SSH console (strategy 3); without one no remote access is granted here")
	fs.StringVar(&s.Console.Address, "console-address", "", "host:port under which subjects reach it; console-listen if empty")
	fs.StringToStringVar(&s.Console.Targets, "console-target", nil, "address of a critical host's sshd, such as critical-1=192.0.2.1:22; may be given several times")
	fs.Int64Var(&s.Console.Recording, "console-recording", 0, "bytes of a session's recording until its watcher has to extend or end the session (at most 64 MiB, which is the default)")
	fs.StringVar(&s.Console.KnownHosts, "console-known-hosts", "", "known_hosts file that pins the keys of the targets")
	fs.StringVar(&s.Access.Account, "console-account", "", "account on the hosts that sessions log in to")
	fs.DurationVar(&s.Access.MaxLength, "console-max-length", 0, "longest session; only tightens the policy's session.max")
	fs.DurationVar(&s.Access.FirstUse, "console-first-use", 0, "how long a credential waits for its use; only tightens the policy's grant.first_use")
}

func (s *Settings) trackerFlags(fs *pflag.FlagSet) {
	fs.StringVar(&s.Tracker.URL, "tracker-url", "", "MantisBT to which notes are written; without one testers name their note")
	fs.StringVar(&s.trackerToken, "tracker-token", "", "API token at the tracker")
}

// Secrets names the flags whose values are never shown.
func Secrets() []string {
	return []string{"mail-password", "irc-password", "sms-secret", "tracker-token", databaseSetting}
}

// dashboardName is the service without events of its own.
const dashboardName = "dashboard"

// serviceNames are all services.
func serviceNames() []string { return append(procedure.Owners(), dashboardName) }

// serves tells whether a service is in this process.
func (s *Settings) serves(name string) bool { return s.Service == "" || s.Service == name }

// owners are the services of this process that own events.
func (s *Settings) owners() []string {
	return slices.DeleteFunc(procedure.Owners(), func(o string) bool { return !s.serves(o) })
}

// base is where people reach this process's pages.
func (s *Settings) base() string {
	if s.PublicURL != "" {
		return strings.TrimSuffix(s.PublicURL, "/")
	}
	return "https://" + s.HTTPS
}

// check completes the settings and refuses what cannot work.
func (s *Settings) check() error {
	if s.Data == "" {
		return errors.New("setting data: a folder is needed")
	}
	for _, a := range []struct{ name, addr string }{{"listen", s.Listen}, {"http", s.HTTP}, {"https", s.HTTPS}} {
		if a.addr == "" && a.name != "listen" {
			continue // not served
		}
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
	if s.Service != "" {
		if err := s.checkService(); err != nil {
			return err
		}
	} else if s.Repository == "" {
		s.Repository = filepath.Join(s.Data, "repository.git")
	}
	s.Tracker.Token = tracker.Token(s.trackerToken)
	s.IRC.SASLPassword = channel.Secret(s.ircPassword)
	s.Mail.Password, s.SMS.Secret, s.SMS.Name = channel.Secret(s.mailPassword), channel.Secret(s.smsSecret), "sms"
	return nil
}

// checkService refuses what one service cannot work with.
func (s *Settings) checkService() error {
	c := s.Cluster
	needed := map[string]bool{
		"nats": len(c.NATS) > 0, "nats-seed": c.Seed != "", "identity": c.Identity != "", "keyring": c.Keyring != "",
		"signing-key": c.SigningKey != "" || s.Service == dashboardName,
		"repository":  s.Repository != "" || s.Service != procedure.OwnerReview && s.Service != procedure.OwnerDeployment,
		"link-key":    s.LinkKey != "" || s.Service != procedure.OwnerNotification,
		"https":       s.HTTPS != "" || s.Service != procedure.OwnerNotification && s.Service != dashboardName,
	}
	for _, name := range slices.Sorted(maps.Keys(needed)) {
		if !needed[name] {
			return fmt.Errorf("setting %s: the %s service needs it", name, s.Service)
		}
	}
	for name, addr := range c.Peers {
		if !slices.Contains(serviceNames(), name) {
			return fmt.Errorf("setting peer: %q is no service; there are %s", name, strings.Join(serviceNames(), ", "))
		}
		c.Peers[name] = strings.ReplaceAll(addr, ";", ",")
	}
	return nil
}

// callees are the services that a service calls: a review asks agents through the deployment service, a redaction reaches every
// owner of a value, and pages everything.
func callees(service string) []string {
	switch service {
	case procedure.OwnerReview:
		return []string{procedure.OwnerDeployment}
	case procedure.OwnerArbitration, dashboardName:
		return procedure.Owners()
	}
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
