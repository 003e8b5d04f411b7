// SPDX-License-Identifier: Apache-2.0

package mailarchive

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"regexp"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/encoding/htmlindex"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// header are the fields of a message, unfolded, in their order. Reading one never fails: what is no field is left out.
type header []field

type field struct{ name, value string }

const (
	fieldsLimit = 500
	valueLimit  = 8 << 10
)

// parseHeader reads the fields up to the empty line.
func parseHeader(message []byte) header {
	var h header
	for len(message) > 0 && len(h) < fieldsLimit {
		line, rest, _ := bytes.Cut(message, []byte("\n"))
		message = rest
		line = bytes.TrimSuffix(line, []byte("\r"))
		switch {
		case len(line) == 0:
			return h
		case line[0] == ' ' || line[0] == '\t':
			if n := len(h); n > 0 && len(h[n-1].value) < valueLimit {
				h[n-1].value += " " + strings.TrimSpace(string(line[:min(len(line), valueLimit)]))
			}
		case fieldForm.Match(line):
			name, value, _ := bytes.Cut(line, []byte(":"))
			h = append(h, field{string(bytes.TrimSpace(name)), strings.TrimSpace(string(value[:min(len(value), valueLimit)]))})
		}
	}
	return h
}

// bodyOf is what stands behind the header.
func bodyOf(message []byte) []byte {
	for len(message) > 0 {
		line, rest, _ := bytes.Cut(message, []byte("\n"))
		message = rest
		if len(bytes.TrimSuffix(line, []byte("\r"))) == 0 {
			return message
		}
	}
	return nil
}

func (h header) all(name string) []string {
	var list []string
	for _, f := range h {
		if strings.EqualFold(f.name, name) {
			list = append(list, f.value)
		}
	}
	return list
}

func (h header) first(name string) string {
	if list := h.all(name); len(list) > 0 {
		return list[0]
	}
	return ""
}

// charset decodes a text in a charset that is known by name; of another one only ASCII is kept.
func charset(name string, in io.Reader) (io.Reader, error) {
	enc, err := htmlindex.Get(strings.TrimSpace(name))
	if err != nil {
		raw, err := io.ReadAll(io.LimitReader(in, kept))
		return bytes.NewReader(bytes.Map(func(r rune) rune {
			if r < 0x80 {
				return r
			}
			return '?'
		}, raw)), err
	}
	return enc.NewDecoder().Reader(in), nil
}

// decodeWords decodes encoded words (RFC 2047); what cannot be decoded stays as it is written.
func decodeWords(s string) string {
	d := mime.WordDecoder{CharsetReader: charset}
	out, err := d.DecodeHeader(s)
	if err != nil {
		return s
	}
	return out
}

// clean makes one line of a text, of characters that a reader sees.
func clean(s string) string {
	s = strings.ToValidUTF8(s, " ")
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r) || unicode.IsControl(r):
			return ' '
		case procedure.Unseen(r):
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// people are the fields that name persons.
func people() []string {
	return []string{"From", "Sender", "Reply-To", "To", "Cc", "Return-Path", "Delivered-To", "X-Original-To"}
}

var bareAddress = regexp.MustCompile(`[^\s<>@,;:"()]+@[^\s<>@,;:"()]+`)

// addresses are those of the header's persons.
func (h header) addresses() []string {
	var list []string
	for _, name := range people() {
		for _, v := range h.all(name) {
			list = append(list, bareAddress.FindAllString(v, 100)...)
		}
	}
	return list
}

// names are the words, in small letters, of the names of persons that a file's headers hold.
type names map[string]bool

// namesLimit bounds how many names are covered.
const namesLimit = 5000

var nameInBrackets = regexp.MustCompile(`\(([^()]*)\)`) // joe@example.org (Joe Example), as list archives write it

// learn takes the names in a header.
func (n names) learn(h header) {
	for _, f := range people() {
		for _, v := range h.all(f) {
			var found []string
			if list, err := mail.ParseAddressList(v); err == nil {
				for _, a := range list {
					found = append(found, a.Name)
				}
			}
			for part := range strings.SplitSeq(v, ",") {
				before, _, _ := strings.Cut(part, "<")
				found = append(found, strings.Trim(before, ` "'`))
				if m := nameInBrackets.FindStringSubmatch(part); m != nil {
					found = append(found, m[1])
				}
			}
			for _, name := range found {
				n.add(clean(decodeWords(name)))
			}
		}
	}
}

// common are words of names that are nobody's: of lists, roles and programs.
var common = map[string]bool{
	"admin": true, "administrator": true, "admins": true, "arbitration": true, "board": true, "bugs": true, "bugtracker": true, "cacert": true,
	"critical": true, "cron": true, "daemon": true, "emergency": true, "for": true, "from": true, "infrastructure": true,
	"list": true, "lists": true, "log": true, "mail": true, "mailer": true, "mailman": true, "patch": true, "postmaster": true, "root": true,
	"security": true, "software": true, "support": true, "system": true, "systemlog": true, "team": true, "testserver": true, "the": true,
	"org": true, "user": true, "via": true, "webmaster": true, "wiki": true, "www": true,
}

// add takes the words of a name, but for those that are nobody's.
func (n names) add(name string) {
	for _, w := range strings.FieldsFunc(name, func(r rune) bool { return !unicode.IsLetter(r) }) {
		w = strings.ToLower(w)
		if len([]rune(w)) >= 3 && !common[w] && len(n) < namesLimit {
			n[w] = true
		}
	}
}

// cover replaces every word of a text that is one of a name.
func (n names) cover(text, with string) string {
	var b strings.Builder
	for len(text) > 0 {
		i := strings.IndexFunc(text, unicode.IsLetter)
		if i < 0 {
			break
		}
		end := strings.IndexFunc(text[i:], func(r rune) bool { return !unicode.IsLetter(r) })
		if end < 0 {
			end = len(text) - i
		}
		word := text[i : i+end]
		b.WriteString(text[:i])
		if n[strings.ToLower(word)] {
			word = with
		}
		b.WriteString(word)
		text = text[i+end:]
	}
	return b.String() + text
}

// firstYear of a mailing list that can be an archive of ours.
const firstYear = 1990

// dated finds when a message was sent: by its sender, unless that differs from what the list's server says by more than drift.
func (r *reader) dated(h header, separator string) (time.Time, emergencyv1.DateSource, bool) {
	const drift = 7 * 24 * time.Hour
	sent, sentOK := r.plausible(parseDate(h.first("Date")))
	for _, x := range []struct {
		at func() (time.Time, bool)
		by emergencyv1.DateSource
	}{
		{func() (time.Time, bool) {
			v := h.first("Received")
			return r.plausible(parseDate(v[strings.LastIndex(v, ";")+1:]))
		}, emergencyv1.DateSource_DATE_SOURCE_RECEIVED},
		{func() (time.Time, bool) { return r.plausible(parseSeparator(separator)) }, emergencyv1.DateSource_DATE_SOURCE_ENVELOPE},
	} {
		at, ok := x.at()
		switch {
		case !ok:
		case sentOK && sent.Sub(at).Abs() <= drift:
			return sent, emergencyv1.DateSource_DATE_SOURCE_HEADER, true
		default:
			return at, x.by, true
		}
	}
	return sent, emergencyv1.DateSource_DATE_SOURCE_HEADER, sentOK
}

func (r *reader) plausible(t time.Time, ok bool) (time.Time, bool) {
	return t, ok && t.Year() >= firstYear && !t.After(r.now)
}

var (
	weekday = regexp.MustCompile(`^[A-Za-z]{2,9}\.?,?\s+`)
	comment = regexp.MustCompile(`\([^()]*\)`)
)

// parseDate reads a date as mails have it, well-formed or nearly.
func parseDate(s string) (time.Time, bool) {
	s = strings.Join(strings.Fields(comment.ReplaceAllString(s, " ")), " ")
	if len(s) > 100 {
		return time.Time{}, false
	}
	if t, err := mail.ParseDate(s); err == nil {
		return t.UTC(), true
	}
	for _, s := range []string{s, weekday.ReplaceAllString(s, "")} {
		for _, form := range []string{
			"2 Jan 2006 15:04:05 -0700", "2 Jan 2006 15:04:05 MST", "2 Jan 2006 15:04:05", "2 Jan 2006 15:04 -0700", "2-Jan-2006 15:04:05 -0700", "2 January 2006 15:04:05 -0700",
			"Jan 2 15:04:05 2006", "Jan 2 15:04:05 MST 2006", "Jan 2 15:04:05 -0700 2006", "2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05", time.RFC3339,
		} {
			if t, err := time.Parse(form, s); err == nil {
				return t.UTC(), true
			}
		}
	}
	return time.Time{}, false
}

var separatorDate = regexp.MustCompile(`(?:[A-Z][a-z]{2},?\s+)?([A-Z][a-z]{2})\s+([0-9]{1,2})\s+([0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?)\s+(?:([A-Z]{1,5}|[+-][0-9]{4})\s+)?((?:19|20)[0-9]{2})(?:\s+([+-][0-9]{4}))?`)

// parseSeparator reads the date of a separator.
func parseSeparator(s string) (time.Time, bool) {
	m := separatorDate.FindStringSubmatch(s)
	if m == nil {
		return time.Time{}, false
	}
	clock := m[3]
	if strings.Count(clock, ":") == 1 {
		clock += ":00"
	}
	zone := "+0000"
	for _, z := range []string{m[4], m[6]} {
		if strings.HasPrefix(z, "+") || strings.HasPrefix(z, "-") {
			zone = z
		}
	}
	t, err := time.Parse("Jan 2 15:04:05 -0700 2006", fmt.Sprintf("%s %s %s %s %s", m[1], m[2], clock, zone, m[5]))
	return t.UTC(), err == nil
}
