// SPDX-License-Identifier: Apache-2.0

package site

import (
	"fmt"
	"net/url"
	"strings"
	"unicode"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/publog"
)

// Wiki is a page in the markup of MoinMoin 1.9, for CAcert's wiki page EmergencyLogs. With a Base every incident and message is linked.
func (s *Site) Wiki() []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("## Made by: epatch log export. What is changed here is lost with the next export.")
	line("#language en")
	line("= Emergency log =")
	if s.cfg.Development {
		line("'''Development.''' A development authority and demo people are in use. Nothing here is real.")
		line("")
	}
	line("Every use of the emergency patch procedure. Persons appear as a role and a letter.")
	if s.cfg.Base != "" {
		l := links{}
		line("The log itself: %s, every entry of %s and of %s, %s, %s.", s.wikiLink(l.Log(publog.Real), "by incident"),
			s.wikiLink(l.All(publog.Real), "the emergencies"), s.wikiLink(l.All(publog.Drills), "the drills"),
			s.wikiLink(l.JSON(publog.Real), "as JSON"), s.wikiLink(l.Atom(publog.Real), "as Atom feed"))
	}
	line("")
	line("Head of the chain: {{{%s}}}", s.Head(publog.Real)) // hexadecimal digits
	line("")
	for _, o := range []publog.Origin{publog.Real, publog.Drills} {
		s.wikiIncidents(line, o)
	}
	if len(s.archive) > 0 {
		line("== From the archive ==")
		line("Messages of the system-log mailing list from the years before this log. Nothing in them was recorded here when it happened.")
		line("")
		wikiRow(line, "'''Sent'''", "'''Entry'''", "'''Subject'''", "'''Message-ID'''", "'''SHA-256'''")
		for _, e := range s.archive {
			wikiRow(line, Moin(e.Sent()), s.wikiLink(links{}.Entry(publog.Archive, e.Seq), fmt.Sprint(e.Seq)), Moin(e.Subject()), Moin(e.Field(publog.FieldMessageID)), Moin(e.Field("sha256")))
		}
	}
	return []byte(b.String())
}

func (s *Site) wikiIncidents(line func(string, ...any), o publog.Origin) {
	list := s.incidents[o]
	line("== %s ==", map[publog.Origin]string{publog.Real: "Emergencies", publog.Drills: "Drills"}[o])
	if len(list) == 0 {
		line("None yet.")
		line("")
		return
	}
	wikiRow(line, "'''Declared'''", "'''Incident'''", "'''What'''", "'''Strategy'''", "'''Stands'''", "'''Owed'''", "'''Last entry'''")
	for _, i := range list {
		stands, owed := i.Status, fmt.Sprintf("%d, %d overdue", i.Open, i.Overdue)
		if i.Outcome != "" {
			stands += ": " + i.Outcome
		}
		if i.MergedInto != "" {
			stands += " into " + i.MergedInto
		}
		if i.Open == 0 {
			owed = "nothing"
		}
		last := i.Last()
		wikiRow(line, Moin(i.Declared), s.wikiLink(links{}.Incident(i.ID), i.ID), Moin(i.System+": "+i.Reason), fmt.Sprint(i.Strategy), Moin(stands), Moin(owed), Moin(last.Full+" "+last.Headline))
	}
	line("")
}

// wikiRow is a row of a table; the cells are markup.
func wikiRow(line func(string, ...any), cells ...string) {
	line("|| %s ||", strings.Join(cells, " || "))
}

// wikiLink is a link to a page of the site, named by a text of ours; the text alone if nobody said where the site is.
func (s *Site) wikiLink(address, text string) string {
	if s.cfg.Base == "" {
		return Moin(text)
	}
	return "[[" + s.absolute(address) + "|" + text + "]]"
}

// ValidBase tells whether a text can be a Config.Base: an address that stands in a feed and in a wiki's link as it is.
func ValidBase(base string) error {
	u, err := url.Parse(base)
	switch {
	case err != nil:
		return fmt.Errorf("the address %q cannot be read", base)
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return fmt.Errorf("the address %q does not begin with https:// and a host", base)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(base, "|[]{}<>\"'`\\ \t\r\n") || strings.ContainsFunc(base, procedure.Unseen):
		return fmt.Errorf("the address %q holds more than a host and a folder", base)
	}
	return nil
}

// Moin is a text as MoinMoin 1.9 shows it, whatever it holds: on one line, and with every character that could be markup as an
// entity. Letters, digits, single dashes, dots and spaces between them mean nothing to MoinMoin, but for words with a capital behind
// a small letter, which it would link.
func Moin(text string) string {
	var b strings.Builder
	last := ' '
	for _, r := range strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || procedure.Unseen(r) }), " ") {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.' && last != '.' && last != ' ', r == ' ', r == '-' && last != '-' && last != ' ':
			b.WriteRune(r)
		case r >= 'A' && r <= 'Z' && (last >= 'A' && last <= 'Z' || !unicode.IsLetter(last) && !unicode.IsDigit(last)):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "&#x%X;", r)
		}
		last = r
	}
	return b.String()
}
