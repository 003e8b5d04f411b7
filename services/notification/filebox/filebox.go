// SPDX-License-Identifier: Apache-2.0

// Package filebox is a channel for development: it writes each page as a file into a folder, where a person can read it. It
// reaches nobody.
package filebox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"cacert.org/emergency/services/notification/channel"
)

// Channel writes pages to a folder.
type Channel struct{ name, dir string }

// New returns a channel of a name that writes to a folder, which it creates.
func New(name, dir string) (*Channel, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("outbox of channel %s: %w", name, err)
	}
	return &Channel{name, dir}, nil
}

// Name is the channel's name in the rule book.
func (c *Channel) Name() string { return c.name }

// Send writes the page. The same page again replaces the file.
func (c *Channel) Send(_ context.Context, p channel.Page) channel.Receipt {
	text := fmt.Sprintf("To: %s\nVia: %s\nAt: %s\nSubject: %s\n\n%s", channel.OneLine(p.Recipient.Address, 320), c.name, p.At.UTC().Format("2006-01-02 15:04:05 MST"), channel.OneLine(p.Headline, 200), channel.Clean(p.Text))
	if p.Link != "" {
		text += "\n" + channel.OneLine(p.Link, 500) + "\n"
	}
	name := strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, p.ID)
	path := filepath.Join(c.dir, name+".txt")
	if err := os.WriteFile(path+".part", []byte(text), 0o600); err != nil {
		return channel.Receipt{State: channel.Failed, Temporary: true, Detail: "the outbox folder cannot be written"}
	}
	if err := os.Rename(path+".part", path); err != nil {
		return channel.Receipt{State: channel.Failed, Temporary: true, Detail: "the outbox folder cannot be written"}
	}
	return channel.Receipt{State: channel.Sent, Detail: "written to the development outbox"}
}
