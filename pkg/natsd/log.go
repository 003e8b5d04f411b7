// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// maxWarnings bounds what is kept of a server that warns without end.
const maxWarnings = 8

// serverLog passes the server's log on to slog, and keeps what Start needs to explain a failed start: the server
// reports that nowhere else.
type serverLog struct {
	log *slog.Logger

	mu       sync.Mutex // guards the fields below
	fatalMsg string
	warnings []string
}

func (l *serverLog) write(level slog.Level, format string, v []any) string {
	msg := strings.TrimSpace(fmt.Sprintf(format, v...))
	l.log.Log(context.Background(), level, msg)
	return msg
}

func (l *serverLog) keep(msg string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.warnings) < maxWarnings {
		l.warnings = append(l.warnings, msg)
	}
}

// Noticef is the server's running commentary, some thirty lines per start: for whoever asks for it.
func (l *serverLog) Noticef(format string, v ...any) { l.write(slog.LevelDebug, format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.keep(l.write(slog.LevelWarn, format, v)) }
func (l *serverLog) Errorf(format string, v ...any)  { l.keep(l.write(slog.LevelError, format, v)) }
func (l *serverLog) Debugf(format string, v ...any)  { l.write(slog.LevelDebug, format, v) }
func (l *serverLog) Tracef(format string, v ...any)  { l.write(slog.LevelDebug, format, v) }

// Fatalf does not end the process, unlike the server's own logger: Start returns the message instead.
func (l *serverLog) Fatalf(format string, v ...any) {
	msg := l.write(slog.LevelError, format, v)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatalMsg == "" {
		l.fatalMsg = msg
	}
}

func (l *serverLog) fatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatalMsg
}

func (l *serverLog) warningsText() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.warnings) == 0 {
		return ""
	}
	return " (the server said: " + strings.Join(l.warnings, "; ") + ")"
}
