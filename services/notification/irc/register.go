// SPDX-License-Identifier: Apache-2.0

package irc

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"cacert.org/emergency/services/notification/channel"
)

// maxNicks is how many nicks are tried.
const maxNicks = 5

// downError is why there is no connection.
type downError struct {
	// detail is for the receipt: no text of the server, no internals.
	detail string
	// temporary is false where an operator must change something.
	temporary bool
	// cause is for the log.
	cause error
}

func (e *downError) Error() string {
	if e.cause == nil {
		return e.detail
	}
	return e.detail + ": " + e.cause.Error()
}

func (e *downError) Unwrap() error { return e.cause }

func refused(detail string) error { return &downError{detail: detail} }

// down makes a downError of any error.
func down(err error) *downError {
	var d *downError
	if errors.As(err, &d) {
		return d
	}
	return &downError{detail: "no connection to the IRC server", temporary: true, cause: err}
}

// registration is the dialogue from the first line to the welcome.
type registration struct {
	s        *session
	cfg      Config
	caps     string
	loggedIn bool
	tries    int
}

// register introduces us and logs in. When SASL is configured and the server welcomes us without it, that is refused:
// pages would go out under a name that anybody can take.
func (s *session) register() error {
	r := &registration{s: s, cfg: s.cfg, tries: 1}
	if err := r.introduce(); err != nil {
		return err
	}
	for {
		m, err := s.read()
		if err != nil {
			return err
		}
		welcome, err := r.handle(m)
		if err != nil {
			return err
		}
		if welcome {
			s.setNick(m.param(0))
			return nil
		}
	}
}

func (r *registration) introduce() error {
	var errs []error
	say := func(command string, params ...string) { errs = append(errs, r.s.say(command, params...)) }
	if r.cfg.SASL != "" {
		say("CAP", "LS", "302")
	}
	if r.cfg.ServerPassword != "" {
		say("PASS", string(r.cfg.ServerPassword))
	}
	r.s.setNick(r.cfg.Nick)
	say("NICK", r.cfg.Nick)
	say("USER", r.cfg.User, "0", "*", r.cfg.RealName)
	return errors.Join(errs...)
}

func (r *registration) handle(m message) (welcome bool, err error) {
	switch m.command {
	case "PING":
		return false, r.s.say("PONG", m.last())
	case "CAP":
		return false, r.capability(m)
	case "AUTHENTICATE":
		return false, r.authenticate(m)
	case "900", "903", "907":
		if m.command == "900" {
			return false, nil
		}
		r.loggedIn = true
		return false, r.s.say("CAP", "END")
	case "902", "904", "905", "906", "908":
		return false, refused("the IRC server refused the login (" + m.command + "); check irc.sasl, irc.sasl_user and irc.sasl_password")
	case "410", "421":
		if r.cfg.SASL != "" {
			return false, refused("the IRC server does not know how to log in; check irc.sasl")
		}
	case "433", "436", "437":
		return false, r.nextNick()
	case "432":
		return false, refused("the IRC server does not accept the nick (432); check irc.nick")
	case "464":
		return false, refused("the IRC server refused the password (464); check irc.server_password")
	case "463", "465", "466":
		return false, refused("the IRC server does not let us in (" + m.command + ")")
	case "ERROR":
		detail := "the IRC server closed the connection before the welcome"
		if r.cfg.ServerPassword != "" {
			detail += "; irc.server_password may be wrong" // some servers say no 464
		}
		return false, &downError{detail: detail, temporary: true, cause: errors.New(channel.OneLine(m.last(), 200))}
	case "001":
		if r.cfg.SASL != "" && !r.loggedIn {
			return false, refused("the IRC server let us in without a login; check irc.sasl")
		}
		return true, nil
	}
	return false, nil
}

func (r *registration) capability(m message) error {
	switch strings.ToUpper(m.param(1)) {
	case "LS":
		if r.caps += " " + m.last(); len(r.caps) > maxRead {
			return refused("the IRC server's list of capabilities does not end")
		}
		if m.param(2) == "*" {
			return nil
		}
		if !offers(r.caps, r.cfg.SASL) {
			return refused("the IRC server offers no login by " + r.cfg.SASL + "; check irc.sasl")
		}
		return r.s.say("CAP", "REQ", "sasl")
	case "ACK":
		return r.s.say("AUTHENTICATE", strings.ToUpper(r.cfg.SASL))
	case "NAK":
		return refused("the IRC server refused the login; check irc.sasl")
	}
	return nil
}

// offers tells whether a list of capabilities has SASL with the mechanism; a server may leave the mechanisms out.
func offers(caps, mechanism string) bool {
	for c := range strings.FieldsSeq(caps) {
		name, value, named := strings.Cut(c, "=")
		if name != "sasl" {
			continue
		}
		if !named {
			return true
		}
		for m := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(m, mechanism) {
				return true
			}
		}
	}
	return false
}

// authenticate answers the server's "+". A response goes in pieces of 400 bytes; one that fills its last piece is
// followed by an empty one.
func (r *registration) authenticate(m message) error {
	if m.param(0) != "+" {
		return refused("the IRC server asks for a login we do not know")
	}
	var response string
	if r.cfg.SASL == Plain {
		response = base64.StdEncoding.EncodeToString([]byte("\x00" + r.cfg.SASLUser + "\x00" + string(r.cfg.SASLPassword)))
	}
	const piece = 400
	for len(response) >= piece {
		if err := r.s.say("AUTHENTICATE", response[:piece]); err != nil {
			return err
		}
		response = response[piece:]
	}
	if response == "" {
		response = "+"
	}
	return r.s.say("AUTHENTICATE", response)
}

func (r *registration) nextNick() error {
	if r.tries++; r.tries > maxNicks {
		return &downError{detail: fmt.Sprintf("the nick and %d others are taken", maxNicks-1), temporary: true}
	}
	nick := r.cfg.Nick + strings.Repeat("_", r.tries-1)
	r.s.setNick(nick)
	return r.s.say("NICK", nick)
}
