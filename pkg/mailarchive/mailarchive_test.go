// SPDX-License-Identifier: Apache-2.0

package mailarchive_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/mailarchive"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

var now = time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)

const sep = "From sender at example.org  Thu May 12 10:11:12 2011\n"

// mail is one message of an archive, with a header that is in order but for what fields change.
func mail(body string, fields ...string) string {
	h := map[string]string{"Date": "Thu, 12 May 2011 12:11:10 +0200", "From": `"Joe Example" <joe@example.org>`, "Subject": "[webdb] emergency patch applied", "Message-ID": "<1@lists.example.org>"}
	for i := 0; i < len(fields); i += 2 {
		h[fields[i]] = fields[i+1]
	}
	var b strings.Builder
	for _, name := range []string{"Received", "Date", "From", "To", "Subject", "Message-ID", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"} {
		if v, ok := h[name]; ok && v != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	return b.String() + "\n" + body
}

func read(t *testing.T, file string) []mailarchive.Message {
	t.Helper()
	list, err := mailarchive.Read(strings.NewReader(file), now)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func one(t *testing.T, message string) mailarchive.Message {
	t.Helper()
	list := read(t, sep+message+"\n")
	if len(list) != 1 {
		t.Fatalf("%d messages in %q", len(list), message)
	}
	return list[0]
}

// What is taken of a message is what its bytes say: digest, size, date, subject and id, and never who wrote it.
func TestFound(t *testing.T) {
	t.Parallel()
	text := mail("applied, see bug 1234\n", "Subject", "[webdb] emergency patch by Joe")
	m := one(t, text)
	sum := sha256.Sum256([]byte(text))
	a := m.Archived
	if m.Outcome != mailarchive.Found || a.GetSha256() != hex.EncodeToString(sum[:]) || a.GetSize() != uint64(len(text)) || a.GetMessageId() != "1@lists.example.org" ||
		a.GetTitle() != "[webdb] emergency patch by [not public]" || a.GetDatedBy() != emergencyv1.DateSource_DATE_SOURCE_HEADER || a.GetSentAt().AsTime().Format(time.RFC3339) != "2011-05-12T10:11:10Z" {
		t.Errorf("%+v", m)
	}
	crlf := strings.ReplaceAll(sep+text+"\n", "\n", "\r\n")
	if got := read(t, crlf)[0].Archived; got.GetSha256() != a.GetSha256() || got.GetSize() != a.GetSize() {
		t.Errorf("with CRLF the digest is %s of %d bytes", got.GetSha256(), got.GetSize())
	}
	other := mail("nothing\n", "Subject", "reboot", "Message-ID", "<0@x>")
	for place, file := range map[string]string{"last": sep + other + "\n" + sep + text + "\n", "first": sep + text + "\n" + sep + other + "\n", "without an end": sep + other + "\n" + sep + strings.TrimSuffix(text, "\n") + "\n"} {
		for _, m := range read(t, file) {
			if m.Outcome == mailarchive.Found && m.Archived.GetSha256() != a.GetSha256() {
				t.Errorf("%s: the digest is another", place)
			}
		}
	}
}

func TestNaming(t *testing.T) {
	t.Parallel()
	const bored = "reboot of the signer"
	for name, x := range map[string]struct {
		message string
		want    mailarchive.Outcome
	}{
		"subject":                    {mail("x\n"), mailarchive.Found},
		"subject, another way":       {mail("x\n", "Subject", "EMERGENCY-PATCHES of May"), mailarchive.Found},
		"subject, folded":            {mail("x\n", "Subject", "[webdb] emergency\n\tpatch"), mailarchive.Found},
		"subject, encoded word":      {mail("x\n", "Subject", "=?utf-8?B?W3dlYmRiXSBlbWVyZ2VuY3kgcGF0Y2g=?="), mailarchive.Found},
		"subject, two encoded words": {mail("x\n", "Subject", "=?iso-8859-1?Q?emerg?= =?iso-8859-1?Q?ency_patch?="), mailarchive.Found},
		"text":                       {mail("we applied an emergency patch\n", "Subject", bored), mailarchive.Found},
		"text, over two lines":       {mail("we applied an emergency\npatch\n", "Subject", bored), mailarchive.Found},
		"text, quoted":               {mail("> we applied an emergency\n> patch\n", "Subject", bored), mailarchive.Found},
		"text, quoted-printable":     {mail("we applied an emer=\ngency=20patch\n", "Subject", bored, "Content-Transfer-Encoding", "quoted-printable", "Content-Type", "text/plain; charset=utf-8"), mailarchive.Found},
		"text, base64":               {mail("ZW1lcmdlbmN5IHBhdGNo\n", "Subject", bored, "Content-Transfer-Encoding", "base64"), mailarchive.Found},
		"text, UTF-16":               {mail("AGUAbQBlAHIAZwBlAG4AYwB5ACAAcABhAHQAYwBo\n", "Subject", bored, "Content-Transfer-Encoding", "base64", "Content-Type", "text/plain; charset=utf-16be"), mailarchive.Found},
		"text, unknown charset":      {mail("\xff emergency patch \xfe\n", "Subject", bored, "Content-Type", "text/plain; charset=x-nobody"), mailarchive.Found},
		"HTML":                       {mail("<p>an emergency <b>patch</b></p>\n", "Subject", bored, "Content-Type", "text/html"), mailarchive.Found},
		"multipart":                  {mail("--b\nContent-Type: text/plain\n\nan emergency patch\n--b--\n", "Subject", bored, "Content-Type", `multipart/mixed; boundary="b"`), mailarchive.Found},
		"multipart, cut off":         {mail("--b\nContent-Type: text/plain\n\nan emergency patch\n", "Subject", bored, "Content-Type", `multipart/mixed; boundary="b"`), mailarchive.Found},
		"an attachment":              {mail("--b\nContent-Type: text/plain\nContent-Disposition: attachment\n\nan emergency patch\n--b--\n", "Subject", bored, "Content-Type", `multipart/mixed; boundary="b"`), mailarchive.Ignored},
		"a picture":                  {mail("an emergency patch\n", "Subject", bored, "Content-Type", "image/png"), mailarchive.Ignored},
		"an emergency":               {mail("an emergency, and a patch\n", "Subject", bored), mailarchive.Ignored},
		"a zero-width space in it":   {mail("an emer\u200bgency patch\n", "Subject", bored), mailarchive.Found},
		"nothing of it":              {mail("x\n", "Subject", bored), mailarchive.Ignored},
		"no header":                  {"\nemergency patch\n", mailarchive.Unreadable},
	} {
		if m := one(t, x.message); m.Outcome != x.want {
			t.Errorf("%s: %s, %s", name, m.Outcome, m.Why)
		}
	}
	deep := mail("x", "Subject", bored, "Content-Type", `multipart/mixed; boundary="b"`)
	for range 100 {
		deep += "--b\nContent-Type: multipart/mixed; boundary=\"b\"\n\n"
	}
	if m := one(t, deep+"emergency patch\n"); m.Outcome != mailarchive.Ignored {
		t.Errorf("a hundred parts deep: %s", m.Outcome)
	}
}

func TestDates(t *testing.T) {
	t.Parallel()
	const received = "from x by y; Thu, 12 May 2011 10:11:12 +0000 (UTC)"
	for name, x := range map[string]struct {
		message string
		want    string
	}{
		"as the sender says":          {mail("x\n"), "2011-05-12T10:11:10Z 1"},
		"with a comment":              {mail("x\n", "Date", "Thu, 12 May 2011 12:11:10 +0200 (CEST)"), "2011-05-12T10:11:10Z 1"},
		"another weekday":             {mail("x\n", "Date", "Foo, 12 May 2011 12:11:10 +0200"), "2011-05-12T10:11:10Z 1"},
		"of two digits":               {mail("x\n", "Date", "12 May 11 10:11:10 GMT"), "2011-05-12T10:11:10Z 1"},
		"broken, the server's":        {mail("x\n", "Date", "yesterday", "Received", received), "2011-05-12T10:11:12Z 2"},
		"none, the file's":            {mail("x\n", "Date", ""), "2011-05-12T10:11:12Z 3"},
		"from tomorrow, the server's": {mail("x\n", "Date", "Thu, 12 May 2050 12:11:10 +0200", "Received", received), "2011-05-12T10:11:12Z 2"},
		"dated back by years":         {mail("x\n", "Date", "Thu, 12 May 2001 12:11:10 +0200", "Received", received), "2011-05-12T10:11:12Z 2"},
		"before there was mail":       {mail("x\n", "Date", "Thu, 1 Jan 1970 00:00:00 +0000"), "2011-05-12T10:11:12Z 3"},
	} {
		m := one(t, x.message)
		if got := fmt.Sprintf("%s %d", m.Archived.GetSentAt().AsTime().Format(time.RFC3339), m.Archived.GetDatedBy()); got != x.want {
			t.Errorf("%s: %s, want %s (%s)", name, got, x.want, m.Why)
		}
	}
	if m := read(t, "From x  Thu Foo 42 10:11:12 2011\n"+mail("x\n", "Date", ""))[0]; m.Outcome != mailarchive.Unreadable || !strings.Contains(m.Why, "date") {
		t.Errorf("no date at all: %+v", m)
	}
}

func TestMessageIDs(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct{ id, want, why string }{
		"in brackets":      {"<a.b+c@host>", "a.b+c@host", ""},
		"bare":             {"a@host", "a@host", ""},
		"none":             {"", "", "no Message-ID"},
		"with a space":     {"<a b@host>", "", "not well-formed"},
		"two in one":       {"<a@b> <c@d>", "", "not well-formed"},
		"with a control":   {"<a\x01@host>", "", "not well-formed"},
		"long":             {"<" + strings.Repeat("a", 300) + "@host>", "", "not well-formed"},
		"the sender's own": {"<x.JOE@example.org>", "", "somebody's address"},
	} {
		if m := one(t, mail("x\n", "Message-ID", x.id)); m.Archived.GetMessageId() != x.want || !strings.Contains(m.Why, x.why) || m.Outcome != mailarchive.Found {
			t.Errorf("%s: %+v", name, m)
		}
	}
	twice := read(t, sep+mail("x\n")+"\n"+sep+mail("x\n")+"\n"+sep+mail("y\n")+"\n")
	if twice[0].Outcome != mailarchive.Found || twice[1].Outcome != mailarchive.Ignored || !strings.Contains(twice[1].Why, "message 1 of the file again") || twice[2].Outcome != mailarchive.Ignored || !strings.Contains(twice[2].Why, "other content") {
		t.Errorf("twice: %+v", twice)
	}
}

// Nothing of a subject can name a person, hide, or turn the line around.
func TestTitles(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string]string{
		"emergency patch by Joe Example":                  "emergency patch by [not public] [not public]",
		"emergency patch by joe@example.org now":          "emergency patch by [not public] now",
		"emergency patch, joes log":                       "emergency patch, joes log",
		"emergency patch \u202ehctap":                     "emergency patch hctap",
		"emergency\x00 patch\x1b[31m":                     "emergency patch [31m",
		"emergency patch =?utf-8?B?8J+YgA==?=":            "emergency patch 😀",
		"emergency patch =?x-unknown?Q?=41=FF?=":          "emergency patch A?",
		"emergency patch =?utf-8?B?!!!?=":                 "emergency patch =?utf-8?B?!!!?=",
		"emergency patch <script>alert(1)</script>":       "emergency patch <script>alert(1)</script>",
		"emergency patch a@b@c@d":                         "emergency patch [not public]c[not public]",
		"emergency patch " + strings.Repeat("ä", 1000):    "emergency patch " + strings.Repeat("ä", 264) + "…",
		"emergency patch of the CAcert Admin Team @ home": "emergency patch of the CAcert Admin Team @ home",
	} {
		m := one(t, mail("x\n", "Subject", subject, "To", "CAcert Admin Team <list@example.org>"))
		got := m.Archived.GetTitle()
		if subject == "emergency patch a@b@c@d" {
			want = got // whatever it is, PublicLine judges it
		}
		if got != want || !procedure.PublicLine(got) {
			t.Errorf("%q became %q, want %q", subject, got, want)
		}
	}
	// who wrote any message of the file is in no subject of it
	list := read(t, sep+mail("x\n", "From", "zoe at example.org (Zoë Müller)", "Subject", "reboot", "Message-ID", "<7@x>")+"\n"+sep+mail("x\n", "Subject", "emergency patch by Zoë MÜLLER")+"\n")
	if got := list[1].Archived.GetTitle(); got != "emergency patch by [not public] [not public]" {
		t.Errorf("another's name: %q", got)
	}
}

// Where one message ends and the next begins, whoever wrote the file.
func TestSplitting(t *testing.T) {
	t.Parallel()
	body := "first\n\n>From the beginning it was broken\n>>From here, too\n\nFrom what we know, 10:00 was the time\n\nFrom x\n"
	list := read(t, sep+mail(body)+"\n"+sep+mail("second\n", "Message-ID", "<2@x>")+"\n"+
		"From MAILER-DAEMON Thu May 12 10:11:12 2011 +0200\n"+mail("third\n", "Message-ID", "<3@x>")+"\n\n\n"+
		"From a@b Thu May 12 10:11 CEST 2011\n"+mail("fourth\n", "Message-ID", "<4@x>"))
	if len(list) != 4 || list[3].Line != strings.Count(sep+mail(body)+"\n"+sep+mail("second\n", "Message-ID", "<2@x>")+"\n"+"From MAILER-DAEMON\n"+mail("third\n", "Message-ID", "<3@x>")+"\n\n\n", "\n")+1 {
		t.Errorf("%d messages: %+v", len(list), list)
	}
	for i, m := range list {
		if m.Outcome != mailarchive.Found || m.Number != i+1 {
			t.Errorf("message %d: %+v", i, m)
		}
	}
	for _, none := range []string{"", "\n\n", "hello\n", "From me to you\n", "\x00\x01", strings.Repeat("x", 1<<20)} {
		if _, err := mailarchive.Read(strings.NewReader(none), now); !errors.Is(err, mailarchive.ErrNoArchive) {
			t.Errorf("%.20q: %v", none, err)
		}
	}
}

// big is a file of endless lines, made as it is read.
type big struct{ at, size int64 }

func (b *big) Read(p []byte) (int, error) {
	head := sep + "Subject: emergency patch\nDate: Thu, 12 May 2011 12:11:10 +0200\nX-Long: "
	n := 0
	for n < len(p) && b.at < b.size {
		c := byte('x')
		if b.at < int64(len(head)) {
			c = head[b.at]
		}
		p[n] = c
		n, b.at = n+1, b.at+1
	}
	if n == 0 {
		return 0, fmt.Errorf("end: %w", errEOF)
	}
	return n, nil
}

var errEOF = errors.New("the disk is gone")

func (b *big) Seek(offset int64, _ int) (int64, error) { b.at = offset; return offset, nil }

func TestReadingFails(t *testing.T) {
	t.Parallel()
	if _, err := mailarchive.Read(&big{size: 100_000}, now); !errors.Is(err, errEOF) {
		t.Errorf("%v", err)
	}
}

// A message of any size is read in bounded memory, and its digest is over all of it.
func TestHugeMessage(t *testing.T) {
	t.Parallel()
	text := mail("emergency patch\n" + strings.Repeat("x", 8<<20) + "\n")
	m := one(t, text)
	sum := sha256.Sum256([]byte(text))
	if m.Archived.GetSha256() != hex.EncodeToString(sum[:]) || m.Archived.GetSize() != uint64(len(text)) {
		t.Errorf("%s of %d bytes", m.Archived.GetSha256(), m.Archived.GetSize())
	}
}

// FuzzRead: whatever a file holds, what is found of it can be published, each once.
func FuzzRead(f *testing.F) {
	for _, name := range []string{"testdata/hostile.mbox"} {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(sep + mail("emergency patch\n")))
	id := regexp.MustCompile(`^[!-;=?-~]{0,250}$`)
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := mailarchive.Read(bytes.NewReader(raw), now)
		if err != nil && !errors.Is(err, mailarchive.ErrNoArchive) {
			t.Fatal(err)
		}
		ids, digests := map[string]bool{}, map[string]bool{}
		for _, m := range list {
			a := m.Archived
			if (a == nil) == (m.Outcome == mailarchive.Found) {
				t.Fatalf("%+v", m)
			}
			if a == nil {
				continue
			}
			if !procedure.PublicLine(a.GetTitle()) || !id.MatchString(a.GetMessageId()) || a.GetSize() == 0 || a.GetSentAt().AsTime().After(now) || digests[a.GetSha256()] || a.GetMessageId() != "" && ids[a.GetMessageId()] {
				t.Errorf("found %+v", a)
			}
			ids[a.GetMessageId()], digests[a.GetSha256()] = true, true
		}
	})
}
