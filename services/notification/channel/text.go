// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"log/slog"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDetail bounds Detail and RemoteID, in bytes.
const maxDetail = 240

// Clean makes text from elsewhere fit for a mail, an IRC line or a terminal: valid UTF-8, line breaks as LF, tabs as
// blanks, without other control characters and without those that reorder what a reader sees.
func Clean(s string) string {
	s = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u2028", "\n", "\u2029", "\n", "\t", " ").Replace(strings.ToValidUTF8(s, "\uFFFD"))
	return strings.Map(func(r rune) rune {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			return -1
		}
		return r
	}, s)
}

// OneLine is Clean on one line of at most n bytes; what is cut ends in an ellipsis.
func OneLine(s string, n int) string {
	s = strings.Join(strings.Fields(Clean(s)), " ")
	if len(s) <= n {
		return s
	}
	const ellipsis = "…"
	return Prefix(s, n-len(ellipsis)) + ellipsis
}

// Prefix is the longest beginning of s that has at most n bytes and splits no character.
func Prefix(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n = max(n, 0)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// withoutAddress is a text for the history: one line, and the recipient's address taken out, however the other side
// quoted it (procedure.md 5.2: the address is restricted).
func withoutAddress(text, address string) string {
	text = OneLine(text, 1<<16)
	if a := strings.TrimSpace(address); a != "" {
		text = regexp.MustCompile("(?i)"+regexp.QuoteMeta(a)).ReplaceAllLiteralString(text, "[address]")
	}
	return OneLine(text, maxDetail)
}

// Secret is a setting that never shows itself in logs, errors or dumps of a configuration. Convert it to string to use it.
type Secret string

// String hides the secret.
func (Secret) String() string { return "[secret]" }

// GoString hides the secret.
func (Secret) GoString() string { return "[secret]" }

// MarshalText hides the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }
