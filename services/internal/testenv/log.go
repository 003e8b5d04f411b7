// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
)

// Log is what the system logs, kept for a test that fails and for tests that wait for a line.
type Log struct {
	t testing.TB

	mu      sync.Mutex
	lines   []string
	rest    []byte
	changed chan struct{} // closed and replaced with each line
}

// shownLines of a failed test's log.
const shownLines = 150

func newLog(t testing.TB) *Log {
	l := &Log{t: t, changed: make(chan struct{})}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		lines := l.Lines()
		t.Logf("the end of the system's log (%d lines in all):\n%s", len(lines), strings.Join(lines[max(0, len(lines)-shownLines):], "\n"))
	})
	return l
}

// Write takes log lines.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		l.lines, l.rest = append(l.lines, string(line)), append([]byte(nil), rest...)
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// Lines are all lines so far.
func (l *Log) Lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

// Await waits for a line, after the first skip ones, that has all of the words, and returns it.
func (l *Log) Await(skip int, words ...string) string {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), Patience)
	defer cancel()
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		lines := l.Lines()
		for ; skip < len(lines); skip++ {
			if all(lines[skip], words) {
				return lines[skip]
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			l.t.Fatalf("the log never said %q", words)
		}
	}
}

func all(s string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}
