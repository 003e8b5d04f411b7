// SPDX-License-Identifier: Apache-2.0

package irc

import (
	"errors"
	"fmt"
	"strings"

	"cacert.org/emergency/services/notification/channel"
)

const (
	// maxLine is what a client may send in one line, without CR LF.
	maxLine = 510
	// maxRead is what a server may send in one line: tags (8191) and the rest.
	maxRead = 8191 + 512
	// maxParams is how many parameters a line has at most.
	maxParams = 15
)

// message is one line from the server, without tags.
type message struct {
	// source is who sent it: a server, or nick!user@host.
	source string
	// command is a word in capitals or a numeric.
	command string
	params  []string
}

// parse reads one line with or without its CR LF. It refuses what could not have been one line of IRC.
func parse(line string) (message, error) {
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if len(line) > maxRead {
		return message{}, fmt.Errorf("line of %d bytes", len(line))
	}
	if strings.ContainsAny(line, "\r\n\x00") {
		return message{}, errors.New("line with a line break or zero inside")
	}
	var m message
	if strings.HasPrefix(line, "@") {
		_, line = word(line)
	}
	if strings.HasPrefix(line, ":") {
		m.source, line = word(line[1:])
	}
	m.command, line = word(strings.TrimLeft(line, " "))
	if m.command == "" || strings.ContainsFunc(m.command, func(r rune) bool { return !isAlnum(r) }) {
		return message{}, errors.New("line without a command")
	}
	m.command = strings.ToUpper(m.command)
	for line != "" {
		var p string
		if line[0] == ':' || len(m.params) == maxParams-1 {
			p, line = strings.TrimPrefix(line, ":"), ""
		} else {
			p, line = word(line)
		}
		m.params = append(m.params, p)
	}
	return m, nil
}

// word cuts the first word; the rest begins with the next one.
func word(s string) (first, rest string) {
	first, rest, _ = strings.Cut(s, " ")
	return first, strings.TrimLeft(rest, " ")
}

func isAlnum(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
}

// nick is the nick of the source.
func (m message) nick() string {
	n, _, _ := strings.Cut(m.source, "!")
	return n
}

// param is the n-th parameter, "" if there is none.
func (m message) param(n int) string {
	if n < 0 || n >= len(m.params) {
		return ""
	}
	return m.params[n]
}

// last is the last parameter.
func (m message) last() string { return m.param(len(m.params) - 1) }

// encode writes one line without CR LF. Only the last parameter may be empty or have blanks. It refuses everything that
// the server could read as another line or other parameters, so nothing can be injected, whoever the caller is.
func encode(command string, params ...string) (string, error) {
	var b strings.Builder
	b.WriteString(command)
	for i, p := range params {
		open := p == "" || p[0] == ':' || strings.ContainsRune(p, ' ')
		if open && i < len(params)-1 {
			return "", fmt.Errorf("%s: parameter %d is not one word", command, i+1)
		}
		b.WriteString(" ")
		if open {
			b.WriteString(":")
		}
		b.WriteString(p)
	}
	line := b.String()
	if strings.ContainsAny(line, "\r\n\x00") {
		return "", fmt.Errorf("%s: a parameter has a line break or zero", command)
	}
	if len(line) > maxLine {
		return "", fmt.Errorf("%s: line of %d bytes, %d are allowed", command, len(line), maxLine)
	}
	return line, nil
}

// split cuts a text at its line breaks, and where a piece would have more than n bytes: at a blank, else between two
// characters. Empty lines are left out.
func split(text string, n int) []string {
	n = max(n, 4) // room for any character, so that it ends
	var out []string
	for line := range strings.SplitSeq(channel.Clean(text), "\n") {
		for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
			piece := channel.Prefix(line, n)
			if i := strings.LastIndexByte(piece, ' '); len(piece) < len(line) && line[len(piece)] != ' ' && i > n/2 {
				piece = piece[:i]
			}
			out, line = append(out, strings.TrimSpace(piece)), line[len(piece):]
		}
	}
	return out
}

// fold is a nick or channel name as servers compare them (RFC 1459).
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r == '[', r == ']', r == '\\':
			return r + '{' - '['
		case r == '~':
			return '^'
		}
		return r
	}, s)
}
