// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"cacert.org/emergency/services/notification/channel"
)

// Channel is a way to reach people that only records. What a test has not expected can be listed at its end.
type Channel struct {
	name string

	mu      sync.Mutex
	sent    []channel.Page
	used    []bool // expected, by place in sent
	answer  func(context.Context, channel.Page) channel.Receipt
	changed chan struct{} // closed and replaced with each page
}

var _ channel.Channel = (*Channel)(nil)

// NewChannel takes every page as sent.
func NewChannel(name string) *Channel {
	return &Channel{name: name, changed: make(chan struct{}), answer: func(context.Context, channel.Page) channel.Receipt {
		return channel.Receipt{State: channel.Sent, Detail: "recorded"}
	}}
}

// Name is the channel's name in the rule book.
func (c *Channel) Name() string { return c.name }

// Send records the page and answers as Answer says.
func (c *Channel) Send(ctx context.Context, p channel.Page) channel.Receipt {
	c.mu.Lock()
	c.sent, c.used = append(c.sent, p), append(c.used, false)
	answer := c.answer
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	return answer(ctx, p)
}

// Answer changes what comes of pages from now on; it may hang until its context ends.
func (c *Channel) Answer(answer func(context.Context, channel.Page) channel.Receipt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

// Sent are all pages that were tried, in order; one that is tried again is there again.
func (c *Channel) Sent() []channel.Page {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.sent)
}

// Expect waits for a page to a person whose headline or text has the words, and counts it as expected. A page is expected once.
func (c *Channel) Expect(t testing.TB, person, words string) channel.Page {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	for {
		c.mu.Lock()
		for i, p := range c.sent {
			if !c.used[i] && p.Recipient.Person == person && strings.Contains(p.Headline+"\n"+p.Text, words) {
				c.used[i] = true
				c.mu.Unlock()
				return p
			}
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s: no page to %s with %q; there are, unexpected:\n%s", c.name, person, words, strings.Join(c.Unexpected(), "\n"))
		}
	}
}

// ExpectAll counts all pages so far whose headline or text has the words as expected, and returns how many there were.
func (c *Channel) ExpectAll(words string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for i, p := range c.sent {
		if !c.used[i] && strings.Contains(p.Headline+"\n"+p.Text, words) {
			c.used[i] = true
			n++
		}
	}
	return n
}

// Unexpected lists, one a line, the pages that nobody expected.
func (c *Channel) Unexpected() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for i, p := range c.sent {
		if !c.used[i] {
			list = append(list, fmt.Sprintf("%s to %s: %s (%s)", c.name, p.Recipient.Person, p.Headline, p.ID))
		}
	}
	return list
}

// Twice lists the ids of pages that were sent more than once.
func (c *Channel) Twice() []string {
	seen, twice := map[string]int{}, []string(nil)
	for _, p := range c.Sent() {
		if seen[p.ID]++; seen[p.ID] == 2 {
			twice = append(twice, p.ID)
		}
	}
	return twice
}
