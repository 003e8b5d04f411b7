// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// chunk is how much output one frame holds. maxLine bounds a line of the file: the chunk where each byte needs six.
	chunk   = 32 << 10
	maxLine = 6*chunk + 4<<10
	// maxText bounds what a person or a client may put into one frame; what is longer is cut and says so.
	maxText = 4 << 10
	// member names our part of the header.
	member = "org.cacert.emergency"
	format = 1
	layout = "2006-01-02T15:04:05.000Z"
)

// fileHeader is the header line.
type fileHeader struct {
	Version   int      `json:"version"`
	Term      fileTerm `json:"term"`
	Timestamp int64    `json:"timestamp"`
	Title     string   `json:"title"`
	Ours      ours     `json:"org.cacert.emergency"`
}

type fileTerm struct {
	Cols int    `json:"cols"`
	Rows int    `json:"rows"`
	Type string `json:"type,omitempty"`
}

type ours struct {
	Format    int    `json:"format"`
	Incident  string `json:"incident"`
	Grant     string `json:"grant"`
	Subject   string `json:"subject"`
	Watcher   string `json:"watcher"`
	Host      string `json:"host"`
	Account   string `json:"account"`
	StartedAt string `json:"started_at"`
}

// encodeHeader returns the header line.
func encodeHeader(h Header) ([]byte, error) {
	if err := checkHeader(h); err != nil {
		return nil, err
	}
	line, err := json.Marshal(fileHeader{
		Version: 3, Term: fileTerm{Cols: h.Cols, Rows: h.Rows, Type: h.Term}, Timestamp: h.StartedAt.Unix(),
		Title: h.Incident + " " + h.Grant,
		Ours: ours{
			Format: format, Incident: h.Incident, Grant: h.Grant, Subject: h.Subject, Watcher: h.Watcher,
			Host: h.Host, Account: h.Account, StartedAt: h.StartedAt.UTC().Format(layout),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("encode header: %w", err)
	}
	return append(line, '\n'), nil
}

func checkHeader(h Header) error {
	ids := [...]struct{ name, value string }{
		{"incident", h.Incident}, {"grant", h.Grant}, {"subject", h.Subject}, {"watcher", h.Watcher}, {"host", h.Host},
		{"account", h.Account},
	}
	for _, id := range ids {
		// The slash separates incident and grant in the first hash.
		if id.value == "" || len(id.value) > 256 || !plain(id.value) || strings.ContainsAny(id.value, "/ ") {
			return fmt.Errorf("%s is no id of up to 256 visible ASCII characters without a slash: %.80q", id.name, id.value)
		}
	}
	if len(h.Term) > 64 || !plain(h.Term) {
		return fmt.Errorf("terminal type is not up to 64 visible ASCII characters: %.80q", h.Term)
	}
	if y := h.StartedAt.UTC().Year(); y < 1970 || y > 9999 {
		return errors.New("start time lies outside the years 1970 to 9999")
	}
	return checkSize(h.Cols, h.Rows)
}

// checkSize holds what a player can read: 16 bits each, and no terminal without a cell.
func checkSize(cols, rows int) error {
	if cols < 1 || rows < 1 || cols > 1<<16-1 || rows > 1<<16-1 {
		return fmt.Errorf("no terminal has %d columns and %d rows", cols, rows)
	}
	return nil
}

func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// firstHash is the chain hash of the header.
func firstHash(h Header, line []byte) Hash {
	return sha256.Sum256(append([]byte("recording/"+h.Incident+"/"+h.Grant), line...))
}

// appendLine appends the event line [seconds, code, text] with its newline.
func appendLine(dst []byte, interval int64, code byte, text []byte) []byte {
	dst = append(dst, '[')
	dst = strconv.AppendInt(dst, interval/1000, 10)
	dst = append(dst, '.', byte('0'+interval/100%10), byte('0'+interval/10%10), byte('0'+interval%10))
	dst = append(dst, ", \""...)
	dst = append(dst, code)
	dst = append(dst, "\", "...)
	dst = appendString(dst, text)
	return append(dst, ']', '\n')
}

// appendHashLine appends the comment behind a frame.
func appendHashLine(dst []byte, number uint64, chain Hash) []byte {
	dst = append(dst, "# "...)
	dst = strconv.AppendUint(dst, number, 10)
	dst = append(dst, ' ')
	dst = hex.AppendEncode(dst, chain[:])
	return append(dst, '\n')
}

const digits = "0123456789abcdef"

// appendString appends text, which is UTF-8, as JSON. There is exactly one form of each text, so that a reader can hold the
// writer to it: controls escaped (those of C1 too, which some terminals obey), all else as it is.
func appendString(dst, text []byte) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f && c != 0xc2 {
			continue
		}
		if c == 0xc2 && (i+1 == len(text) || text[i+1] >= 0xa0) {
			continue
		}
		dst = append(dst, text[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		case 0xc2:
			i++
			c = text[i]
			fallthrough
		default:
			dst = append(dst, `\u00`...)
			dst = append(dst, digits[c>>4], digits[c&15])
		}
		start = i + 1
	}
	dst = append(dst, text[start:]...)
	return append(dst, '"')
}

// bodyText is the text of a frame.
func bodyText(b Body) ([]byte, error) {
	switch b := b.(type) {
	case Output:
		return b.Data, nil
	case Input:
		return []byte(b.Text), nil
	case Marker:
		return []byte(b.Label), nil
	case Resize:
		return fmt.Appendf(nil, "%dx%d", b.Cols, b.Rows), nil
	case Exit:
		return strconv.AppendInt(nil, int64(b.Status), 10), nil
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(b); err != nil {
		return nil, fmt.Errorf("encode %T: %w", b, err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// display is what a player shows of bytes that are not all UTF-8: each bad byte as U+FFFD.
func display(data []byte) []byte {
	out := make([]byte, 0, len(data)+len(data)/2)
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		out = utf8.AppendRune(out, r)
		data = data[n:]
	}
	return out
}

// unfinished is how many bytes at the end of data begin a character that may still be completed.
func unfinished(data []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(data); n++ {
		if c := data[len(data)-n]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(data[len(data)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}

// clip makes foreign text fit for a frame: UTF-8, and cut where it is too long, which it then says.
func clip(s string) string {
	cut := ""
	if len(s) > maxText {
		cut = fmt.Sprintf(" [cut, %d bytes]", len(s))
		s = s[:maxText]
		s = s[:len(s)-unfinished([]byte(s))]
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD")) + cut
}

// milliseconds since the start, never going back.
func since(start, now time.Time, last int64) int64 {
	return max(last, now.Sub(start).Milliseconds())
}
