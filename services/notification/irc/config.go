// SPDX-License-Identifier: Apache-2.0

package irc

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"cacert.org/emergency/services/notification/channel"
)

// The values of Config.Security and Config.SASL.
const (
	// TLS begins with TLS; port 6697.
	TLS = "tls"
	// NoTLS is allowed only towards this machine.
	NoTLS = "none"
	// Plain logs in with SASLUser and SASLPassword.
	Plain = "plain"
	// External logs in with the client certificate.
	External = "external"
)

// Config is how to reach the IRC network.
type Config struct {
	// Server is host:port.
	Server string
	// Security is tls or none.
	Security string
	// Nick is the nick; if somebody has it, underscores are added.
	Nick string
	// User and RealName are shown to others; the nick if empty.
	User, RealName string
	// ServerPassword is for servers that ask for one (PASS); may be empty.
	ServerPassword channel.Secret
	// SASL is plain, external or empty. If it is set, nothing is sent before the login succeeded.
	SASL         string
	SASLUser     string
	SASLPassword channel.Secret
	// Join are the channels to stay in, each "#name" or "#name key". Others are joined when a page is for them.
	Join []string
	// Burst lines may be sent at once, then one each Every; 5 and 2 s, which servers tolerate.
	Burst int
	Every time.Duration
	// CAFile, CertFile, KeyFile are for TLS.
	channel.TLSFiles
}

var (
	nickForm    = regexp.MustCompile("^[A-Za-z\\[\\]\\\\`_^{|}][A-Za-z0-9\\[\\]\\\\`_^{|}-]{0,63}$")
	channelForm = regexp.MustCompile(`^[#&][^\x00-\x20,:*?\x7f]{1,63}$`)
	userForm    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$`)
)

// Check names each setting that cannot be, and what to write instead. It reads the files.
func (c Config) Check() error {
	_, err := c.load()
	return err
}

func (c Config) withDefaults() Config {
	c.User, c.RealName = cmp.Or(c.User, c.Nick), cmp.Or(c.RealName, c.Nick)
	c.Burst, c.Every = cmp.Or(c.Burst, 5), cmp.Or(c.Every, 2*time.Second)
	return c
}

func (c Config) load() (*tls.Config, error) {
	c = c.withDefaults()
	var errs []error
	want := func(ok bool, setting, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("irc."+setting+": "+format, args...))
		}
	}
	host, port, err := net.SplitHostPort(c.Server)
	want(err == nil && host != "" && port != "", "server", "%q is not host:port", c.Server)
	want(c.Security == TLS || c.Security == NoTLS, "security", "%q is neither tls nor none", c.Security)
	want(c.Security != NoTLS || channel.Loopback(host), "security", "none is for a server on this machine, %q is not; use tls", host)
	want(nickForm.MatchString(c.Nick), "nick", "%q is not a nick", c.Nick)
	want(userForm.MatchString(c.User), "user", "%q is not a user name of up to 32 letters, digits, dots and dashes", c.User)
	want(c.RealName == channel.OneLine(c.RealName, 100), "real_name", "one line of at most 100 bytes")
	want(plainText(c.ServerPassword), "server_password", "has a line break")
	switch c.SASL {
	case "":
		want(c.SASLUser == "" && c.SASLPassword == "", "sasl", "a user or password is given; say plain")
	case Plain:
		want(c.SASLUser != "" && c.SASLPassword != "", "sasl_user and irc.sasl_password", "plain needs both")
		want(plainText(c.SASLPassword) && plainText(channel.Secret(c.SASLUser)), "sasl_user and irc.sasl_password", "has a line break")
	case External:
		want(c.CertFile != "" && c.Security == TLS, "cert_file", "external needs a client certificate and tls")
	default:
		want(false, "sasl", "%q is neither plain nor external nor empty", c.SASL)
	}
	for _, j := range c.Join {
		name, key, _ := strings.Cut(j, " ")
		want(channelForm.MatchString(name) && !strings.ContainsAny(key, " ,:\r\n\x00"), "join", "%q is not #name or #name key", name)
	}
	want(c.Burst > 0, "burst", "at least 1")
	want(c.Every > 0, "every", "a positive duration")
	conf, err := c.TLSFiles.Config("irc", host)
	if err != nil {
		errs = append(errs, err)
	}
	return conf, errors.Join(errs...)
}

func plainText(s channel.Secret) bool {
	return !strings.ContainsAny(string(s), "\r\n\x00") && len(s) <= 300
}

// key is the key of a channel.
func (c Config) key(name string) string {
	for _, j := range c.Join {
		if n, key, _ := strings.Cut(j, " "); fold(n) == fold(name) {
			return key
		}
	}
	return ""
}
