// SPDX-License-Identifier: Apache-2.0

// Package mailarchive reads the archive of a mailing list (an mbox file) and finds the messages that name an emergency patch, for the
// public log of the years before this system (procedure.md 8, seed 4).
//
// Everything in a message is written by strangers. Of a message that is found only its Message-ID, the SHA-256 of its bytes, its size,
// date and subject are taken; its sender, its text and its attachments never are. The subject loses addresses, the names of persons
// who wrote to the list, and what a reader cannot see. Memory is bounded whatever the file holds.
package mailarchive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Outcome of a message.
type Outcome string

// The outcomes.
const (
	Found      Outcome = "found"
	Ignored    Outcome = "ignored"
	Unreadable Outcome = "unreadable"
)

// Message is one message of a file.
type Message struct {
	// Number counts the messages of the file, from 1; Line is where its separator stands.
	Number, Line int
	Outcome      Outcome
	// Named: it names an emergency patch.
	Named bool
	// Why it is not found, in words; or what is worth knowing of one that is.
	Why string
	// Archived is what the log may keep of it; nil unless it is found.
	Archived *emergencyv1.ArchivedMessage
}

const (
	// kept is how much of a message is read for what it says; its digest is over all of it.
	kept = 1 << 20
	// separatorLimit is the longest line that can be a separator.
	separatorLimit = 1 << 10
	// messagesLimit bounds the file.
	messagesLimit = 1_000_000
)

// ErrNoArchive says that a file is no mbox.
var ErrNoArchive = errors.New("no mailbox: its first line is not the separator of a message (From, an address, and a date)")

// Read reads a whole file, twice: the names of those who wrote are covered in every subject. Messages come in the order of the file. A
// message dated later than now is dated by where the list's server wrote it. An error is a file that cannot be read, or ErrNoArchive.
func Read(file io.ReadSeeker, now time.Time) ([]Message, error) {
	n := names{}
	if err := split(file, func(m *raw) { n.learn(parseHeader(m.head)) }); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read the archive again: %w", err)
	}
	r := &reader{now: now, covered: n, digests: map[string]int{}, ids: map[string]int{}}
	if err := split(file, r.message); err != nil {
		return nil, err
	}
	return r.list, nil
}

// raw is a message as the file holds it.
type raw struct {
	number, line int
	separator    string
	head         []byte // at most kept
	digest       string
	size         uint64
}

var (
	// separatorForm is a line that separates messages; that of a body which looks like one is quoted with > by who wrote the file, or
	// lacks the time and the year.
	separatorForm = regexp.MustCompile(`^From \S.*[ \t][0-9]{1,2}:[0-9]{2}(:[0-9]{2})?[ \t].*(19|20)[0-9]{2}`)
	fieldForm     = regexp.MustCompile(`^[!-9;-~]+[ \t]*:`)
)

// split calls fn with each message of an mbox. Line ends are LF or CRLF.
func split(file io.Reader, fn func(*raw)) error {
	s := &splitter{in: bufio.NewReaderSize(file, 64<<10), fn: fn, blank: true}
	for {
		line, err := s.in.ReadSlice('\n')
		if len(line) > 0 {
			s.take(line)
		}
		switch {
		case err == nil || errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			s.end()
			if s.count == 0 {
				return ErrNoArchive
			}
			return nil
		default:
			return fmt.Errorf("read the archive: %w", err)
		}
		if s.junk || s.count > messagesLimit {
			return ErrNoArchive
		}
	}
}

type splitter struct {
	in    *bufio.Reader
	fn    func(*raw)
	m     *raw
	count int
	lines int
	begun bool // inside a line that is longer than the buffer
	blank bool // the line before was empty, or there is none
	junk  bool
	hash  interface {
		io.Writer
		Sum([]byte) []byte
	}
	held []byte // the line end that belongs to the message only if more of it follows
}

func (s *splitter) take(line []byte) {
	whole := line[len(line)-1] == '\n'
	first := !s.begun
	s.begun = !whole
	text := line
	if whole {
		text = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	}
	if first {
		s.lines++
		if s.blank && len(text) < separatorLimit && separatorForm.Match(text) {
			line = bytes.Clone(line) // looking further moves what the reader holds
			text = line[:len(text)]
			if s.headFollows() {
				s.begin(string(text))
				return
			}
		}
	}
	if s.m == nil {
		s.junk = s.junk || len(text) > 0 // empty lines before the first message are nothing
		return
	}
	s.blank = first && whole && len(text) == 0
	s.add(s.held)
	s.held = nil
	s.add(text)
	if whole {
		s.held = []byte("\n")
	}
}

func (s *splitter) begin(separator string) {
	s.end()
	s.count++
	s.m, s.hash, s.held, s.blank = &raw{number: s.count, line: s.lines, separator: separator}, sha256.New(), nil, false
}

// headFollows looks at the next line: a message begins with a field, or has an empty head.
func (s *splitter) headFollows() bool {
	next, _ := s.in.Peek(separatorLimit)
	if i := bytes.IndexByte(next, '\n'); i >= 0 {
		next = next[:i]
	}
	next = bytes.TrimSuffix(next, []byte("\r"))
	return len(next) == 0 || fieldForm.Match(next) || bytes.HasPrefix(next, []byte(">From "))
}

func (s *splitter) add(b []byte) {
	if len(b) == 0 {
		return
	}
	_, _ = s.hash.Write(b) // a hash takes everything
	s.m.size += uint64(len(b))
	if room := kept - len(s.m.head); room > 0 {
		s.m.head = append(s.m.head, b[:min(room, len(b))]...)
	}
}

// end hands the message over. The empty line before the next separator is the file's and not the message's.
func (s *splitter) end() {
	if s.m == nil {
		return
	}
	if s.held != nil && !s.blank {
		s.add(s.held)
	}
	s.m.digest = hex.EncodeToString(s.hash.Sum(nil))
	s.fn(s.m)
	s.m = nil
}

// reader makes messages of what lies in the file.
type reader struct {
	now     time.Time
	covered names
	digests map[string]int // to the number of the message
	ids     map[string]int
	list    []Message
}

func (r *reader) message(m *raw) {
	out := Message{Number: m.number, Line: m.line}
	h := parseHeader(m.head)
	subject := clean(decodeWords(h.first("Subject")))
	switch at, by, ok := r.dated(h, m.separator); {
	case m.size == 0 || len(h) == 0:
		out.Outcome, out.Why = Unreadable, "it has no header"
	case !named(subject) && !named(textOf(h, bodyOf(m.head))):
		out.Outcome, out.Why = Ignored, "it names no emergency patch"
	case !ok:
		out.Outcome, out.Why, out.Named = Unreadable, "no date in it can be read", true
	default:
		out.Named = true
		r.found(&out, m, h, &emergencyv1.ArchivedMessage{
			Sha256: m.digest, Size: m.size, SentAt: timestamppb.New(at), DatedBy: by, Title: r.title(subject),
		})
	}
	r.list = append(r.list, out)
}

// found takes a message unless it is in the file twice.
func (r *reader) found(out *Message, m *raw, h header, a *emergencyv1.ArchivedMessage) {
	a.MessageId, out.Why = messageID(h)
	if first, twice := r.digests[a.GetSha256()]; twice {
		out.Outcome, out.Why = Ignored, fmt.Sprintf("it is message %d of the file again", first)
		return
	}
	if first, twice := r.ids[a.GetMessageId()]; twice && a.GetMessageId() != "" {
		out.Outcome, out.Why = Ignored, fmt.Sprintf("it has the Message-ID of message %d of the file, and other content", first)
		return
	}
	r.digests[a.GetSha256()], r.ids[a.GetMessageId()] = m.number, m.number
	out.Outcome, out.Archived = Found, a
}

// title is a subject as it may be published, on one line.
func (r *reader) title(subject string) string {
	const hidden, limit = "[not public]", 280
	const mark = "\ue000" // for private use, so that no subject holds it here
	s := r.covered.cover(procedure.WithoutAddresses(subject, mark), hidden)
	s = strings.ReplaceAll(s, mark, hidden)
	if runes := []rune(s); len(runes) > limit {
		s = string(runes[:limit]) + "…"
	}
	return strings.TrimSpace(procedure.WithoutAddresses(s, hidden)) // what was cut or covered may look like one again
}

var namingForm = regexp.MustCompile(`(?i)\bemergency[\s_-]*patch`)

// named tells whether a text names an emergency patch.
func named(text string) bool { return namingForm.MatchString(text) }

var idForm = regexp.MustCompile(`^<?([!-;=?-~]{3,250})>?$`)

// messageID is the message's id as it may be published, or empty and why.
func messageID(h header) (id, why string) {
	all := h.all("Message-ID")
	if len(all) == 0 {
		return "", "it has no Message-ID; its digest names it"
	}
	m := idForm.FindStringSubmatch(strings.TrimSpace(all[0]))
	if m == nil || len(all) > 1 && slices.ContainsFunc(all[1:], func(s string) bool { return s != all[0] }) {
		return "", "its Message-ID is not well-formed; its digest names it"
	}
	for _, a := range h.addresses() {
		if strings.Contains(strings.ToLower(m[1]), strings.ToLower(a)) {
			return "", "its Message-ID holds somebody's address; its digest names it"
		}
	}
	return m[1], ""
}
