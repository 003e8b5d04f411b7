// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The years before this system: messages of the system-log mailing list that name an emergency patch (procedure.md 8, seed 4).
// They are a history of their own, id Archive, because they are no incident's: nobody declared them here, and no rule was kept or
// broken. What is imported is never edited; importing again adds only what is not there yet.

// ArchivedMessage is what makes a message of the archive known again.
type ArchivedMessage struct {
	Digest    string
	MessageID string // empty if it has none that may be published
	Position  uint64
}

const (
	// ArchiveBatch is how many messages one command takes at most, so that its record stays well under the stream's limit.
	ArchiveBatch = 100
	// subjectLimit and messageIDLimit are in runes and bytes.
	subjectLimit   = 300
	messageIDLimit = 250
	// archivedSizeLimit is more than any mail server takes.
	archivedSizeLimit = 1 << 30
)

var (
	messageIDForm = regexp.MustCompile(`^[!-;=?-~]{3,250}$`) // printable ASCII without space and angle brackets
	// addressForm matches what may be the address of a person (procedure.md 8.4).
	addressForm = regexp.MustCompile(`[^\s<>@]+@[^\s<>@]*[^\s<>@.,;:!?)]`)
)

// HoldsAddress tells whether a text holds what may be somebody's address, which is never published (procedure.md 8.4).
func HoldsAddress(s string) bool { return addressForm.MatchString(s) }

// WithoutAddresses replaces everything in a text that HoldsAddress would find.
func WithoutAddresses(s, with string) string {
	for range 8 { // what stands beside a removed one may look like one again
		if !HoldsAddress(s) {
			return s
		}
		s = addressForm.ReplaceAllString(s, with)
	}
	return strings.ReplaceAll(s, "@", " at ")
}

// PublicLine tells whether a text can stand on one line of the public log: no control character, none that changes the direction of
// writing or is not seen, no address.
func PublicLine(s string) bool {
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= subjectLimit && s == strings.TrimSpace(s) && !HoldsAddress(s) &&
		!strings.ContainsFunc(s, Unseen)
}

// Unseen are the characters that a reader does not see, or that change what the reader sees of others: controls, formats (among them
// those of the direction of writing), separators of lines, surrogates and private use.
func Unseen(r rune) bool {
	return unicode.Is(unicode.C, r) || r == '\u2028' || r == '\u2029' || r == utf8.RuneError
}

func importFields(f *fields, c *emergencyv1.ImportArchiveRequest) {
	f.word("list", c.GetList())
	f.want(len(c.GetMessages()) > 0 && len(c.GetMessages()) <= ArchiveBatch, "messages", "1 to %d messages", ArchiveBatch)
	digests, ids := map[string]bool{}, map[string]bool{}
	for _, m := range c.GetMessages() {
		id := m.GetMessageId()
		f.want(digestForm.MatchString(m.GetSha256()) && !digests[m.GetSha256()], "messages.sha256", "64 lower-case hex digits, each digest once")
		f.want(id == "" || len(id) <= messageIDLimit && messageIDForm.MatchString(id) && !ids[id], "messages.message_id", "a Message-ID without angle brackets, each once, or empty")
		f.want(m.GetSize() > 0 && m.GetSize() <= archivedSizeLimit, "messages.size", "the size of the message")
		f.want(m.GetSentAt().IsValid() && m.GetDatedBy() != 0, "messages.sent_at", "when it was sent, and where that was read")
		f.want(PublicLine(m.GetTitle()), "messages.title", "one line of at most %d characters, without control characters and without anybody's address", subjectLimit)
		digests[m.GetSha256()], ids[id] = true, true
	}
}

// importClaims name the messages by one digest over everything that is said of them, so that what was signed is what is recorded.
func importClaims(c *emergencyv1.ImportArchiveRequest) []*emergencyv1.Claim {
	return archiveClaims(c.GetList(), c.GetMessages())
}

func archiveClaims(list string, messages []*emergencyv1.ArchivedMessage) []*emergencyv1.Claim {
	h := sha256.New()
	for _, m := range messages {
		fmt.Fprintf(h, "%s %d %s %s %q %q\n", m.GetSha256(), m.GetSize(), m.GetSentAt().AsTime().Format(time.RFC3339Nano), m.GetDatedBy(), m.GetMessageId(), m.GetTitle())
	}
	return []*emergencyv1.Claim{
		{Name: "list", Value: list}, {Name: "messages", Value: strconv.Itoa(len(messages))}, {Name: "sha256", Value: hex.EncodeToString(h.Sum(nil))},
	}
}

// expectImport fills in what a record says that the person must have signed for an import. What a service's forwarding adds to the
// claims is for verifyForwarded to judge.
func expectImport(want *emergencyv1.Statement, payloads []proto.Message, forwarded bool) {
	var list string
	var messages []*emergencyv1.ArchivedMessage
	for _, p := range payloads {
		if e, ok := p.(*emergencyv1.MessageArchived); ok {
			list, messages = e.GetList(), append(messages, e.GetMessage())
		}
	}
	signed := want.Claims
	want.Claims = archiveClaims(list, messages)
	for _, c := range signed {
		if forwarded && (c.GetName() == requestDigestClaim || c.GetName() == expectedPositionClaim) {
			want.Claims = append(want.Claims, c)
		}
	}
}

// firstMail is before every message of a mailing list.
var firstMail = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// decideImport takes messages that are not there yet, all of them or none.
func decideImport(d *decision, c *emergencyv1.ImportArchiveRequest) *Refusal {
	digests, ids := map[string]bool{}, map[string]string{}
	for _, m := range d.s.Archive {
		digests[m.Digest] = true
		if m.MessageID != "" {
			ids[m.MessageID] = m.Digest
		}
	}
	for _, m := range c.GetMessages() {
		at, id := m.GetSentAt().AsTime(), m.GetMessageId()
		if at.After(d.env.Now) || at.Before(firstMail) {
			return refuse(ReasonArchiveDate, "message %s is dated %s", nameOf(m), stamp(at)).
				allow("ImportArchive", "", "leave it out, or read its date from where the list's server wrote it")
		}
		if digests[m.GetSha256()] {
			return refuse(ReasonArchiveMessage, "message %s is in the archive already", nameOf(m)).
				allow("ImportArchive", "", "leave out what is there; epatch log import-mbox does")
		}
		if old, ok := ids[id]; ok && id != "" {
			return refuse(ReasonArchiveMessage, "message %s is in the archive with other content, sha256 %s", id, old).
				allow("ImportArchive", "", "leave it out: what the log says is never edited; add what is to be said with a later message of the list")
		}
		d.emit(&emergencyv1.MessageArchived{List: c.GetList(), Message: m})
	}
	return nil
}

func nameOf(m *emergencyv1.ArchivedMessage) string {
	if m.GetMessageId() != "" {
		return m.GetMessageId()
	}
	return "sha256 " + short(m.GetSha256())
}

func (s *State) applyArchived(f fact, e *emergencyv1.MessageArchived) {
	s.Archive = append(s.Archive, ArchivedMessage{e.GetMessage().GetSha256(), e.GetMessage().GetMessageId(), f.pos})
}
