// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bytes"
	netmail "net/mail"
	"testing"

	"cacert.org/emergency/services/notification/channel"
)

// Whatever a page says, its mail has exactly the headers that this package writes.
func FuzzMessage(f *testing.F) {
	f.Add("e1/1.1", "e1", "head", "text", "https://x")
	f.Add("\r\nBcc: x\r\n", "\nX: y", "=?utf-8?q?=0D=0ABcc:x?=", ".\r\n.\r\nMAIL FROM:<x>", "\x00\xff")
	c, err := New(Config{Server: "127.0.0.1:25", Security: NoTLS, From: "emergency@example.org"}, channel.System{})
	if err != nil {
		f.Fatal(err)
	}
	want := []string{"Auto-Submitted", "Content-Transfer-Encoding", "Content-Type", "Date", "From", "In-Reply-To", "Message-Id", "Mime-Version", "References", "Subject", "To", "X-Epatch-Incident"}
	f.Fuzz(func(t *testing.T, id, incident, headline, text, link string) {
		p := channel.Page{ID: id, Incident: incident, Headline: headline, Text: text, Link: link, Recipient: channel.Recipient{Address: "alice@example.org"}}
		msg, err := c.message(p)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := msg.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		m, err := netmail.ReadMessage(bytes.NewReader(b.Bytes()))
		if err != nil {
			t.Fatalf("%v in %q", err, b.String())
		}
		for _, name := range want {
			if len(m.Header[name]) != 1 {
				t.Errorf("%d times %s in %q", len(m.Header[name]), name, b.String())
			}
		}
		if len(m.Header) != len(want) {
			t.Errorf("headers %v in %q", m.Header, b.String())
		}
	})
}
